//! A real Ethereum node, Anvil, that mines when the test says so, and the contracts on it.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::api::http;
use crate::evm::{self, Address, Arg, Payer, Unsigned};
use crate::process::Process;
use crate::tools;

/// Anvil's chain id.
pub const CHAIN_ID: u64 = 31337;

/// The first of Anvil's dev accounts: known to everybody, worth nothing.
pub const PAYER_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// A running node. Blocks are mined on demand only, unless started otherwise.
pub struct Anvil {
    pub url: String,
    /// Dev accounts, unlocked and rich in ether.
    pub accounts: Vec<Address>,
    http: reqwest::Client,
    next_id: AtomicU64,
    sending: Mutex<()>,
    process: Process,
}

/// A block as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub number: u64,
    pub hash: String,
    pub timestamp_s: u64,
}

/// A test token and the two contracts around it, each holding a large supply.
pub struct Tokens {
    /// Behaves like Tether's.
    pub usdt: Address,
    /// Looks like it, at another address.
    pub fake: Address,
    /// Pays many at once; see `contracts/Batch.sol`.
    pub batch: Address,
}

impl Anvil {
    /// A node that mines only when told to.
    pub async fn start() -> Self {
        Self::start_with(&["--no-mining"]).await
    }

    /// A node with these further arguments.
    pub async fn start_with(args: &[&str]) -> Self {
        let mut command = Command::new(tools::anvil());
        // One slot an epoch: the final head follows the newest two blocks behind.
        command.args(["--port", "0", "--slots-in-an-epoch", "1"]).args(args);
        let mut process = Process::start("anvil", &mut command);
        let address = process.line("its address", |line| line.strip_prefix("Listening on ").map(str::to_owned)).await;
        let mut anvil = Self {
            url: format!("http://{address}"),
            accounts: Vec::new(),
            http: http(),
            next_id: AtomicU64::new(1),
            sending: Mutex::default(),
            process,
        };
        let accounts = anvil.rpc("eth_accounts", json!([])).await;
        anvil.accounts = accounts.as_array().unwrap().iter().map(|account| evm::address(account.as_str().unwrap())).collect();
        anvil
    }

    /// Ends it: nobody answers at its address any more.
    pub fn stop(&mut self) {
        self.process.kill();
    }

    /// One JSON-RPC call. An error answer fails the test.
    pub async fn rpc(&self, method: &str, params: Value) -> Value {
        match self.try_rpc(method, &params).await {
            Ok(result) => result,
            Err(error) => panic!("{method} {params}: {error}"),
        }
    }

    async fn try_rpc(&self, method: &str, params: &Value) -> Result<Value, String> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let answer = self.http.post(&self.url).json(&call).send().await.map_err(|e| e.to_string())?;
        let mut answer: Value = answer.json().await.map_err(|e| e.to_string())?;
        match answer.get("error") {
            None => Ok(answer["result"].take()),
            Some(error) => Err(error.to_string()),
        }
    }

    /// The newest block.
    pub async fn head(&self) -> Head {
        let block = self.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
        Head {
            number: quantity(&block["number"]),
            hash: block["hash"].as_str().unwrap().to_owned(),
            timestamp_s: quantity(&block["timestamp"]),
        }
    }

    /// Mines `blocks`, with what waits in the pool in the first of them.
    pub async fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")])).await;
    }

    /// The next block, and with it the clock of the chain, has this time.
    pub async fn set_next_time(&self, timestamp_s: u64) {
        self.rpc("evm_setNextBlockTimestamp", json!([timestamp_s])).await;
    }

    /// Replaces the newest `depth` blocks by as many others. `keep`: signed transactions that the
    /// new branch holds, each with the place of its block in the branch, from 0.
    pub async fn reorg(&self, depth: u64, keep: &[(&[u8], u64)]) {
        let pairs: Vec<Value> = keep.iter().map(|(raw, block)| json!([format!("0x{}", hex::encode(raw)), block])).collect();
        self.rpc("anvil_reorg", json!([depth, pairs])).await;
    }

    /// Remembers the whole state; [`revert`](Self::revert) returns to it once.
    pub async fn snapshot(&self) -> Value {
        self.rpc("evm_snapshot", json!([])).await
    }

    pub async fn revert(&self, snapshot: Value) {
        assert_eq!(self.rpc("evm_revert", json!([snapshot])).await, json!(true));
    }

    /// The whole state, for a reader of a failed test to load again.
    pub async fn dump(&self) -> String {
        self.rpc("anvil_dumpState", json!([])).await.as_str().unwrap().to_owned()
    }

    /// Sends a transaction from an unlocked account; gives its hash. It waits in the pool until
    /// the next block. The gas is stated, so that a transaction that will fail is mined as well.
    pub async fn send(&self, from: Address, to: Option<Address>, data: &[u8]) -> String {
        let mut tx = json!({
            "from": evm::text(from),
            "data": format!("0x{}", hex::encode(data)),
            "gas": "0x7a1200",
        });
        if let Some(to) = to {
            tx["to"] = json!(evm::text(to));
        }
        // Anvil picks the nonce, and picks one twice when it mines or is asked again meanwhile.
        let _one_at_a_time = self.sending.lock().await;
        for _ in 0..100 {
            match self.try_rpc("eth_sendTransaction", &json!([tx])).await {
                Ok(hash) => return hash.as_str().unwrap().to_owned(),
                Err(error) if error.contains("underpriced") || error.contains("nonce too low") => {}
                Err(error) => panic!("eth_sendTransaction {tx}: {error}"),
            }
        }
        panic!("eth_sendTransaction {tx}: the node finds no nonce");
    }

    /// Sends signed bytes, as any wallet does; gives the hash.
    pub async fn send_raw(&self, raw: &[u8]) -> String {
        let raw = format!("0x{}", hex::encode(raw));
        self.rpc("eth_sendRawTransaction", json!([raw])).await.as_str().unwrap().to_owned()
    }

    /// A token transfer signed by `payer`, ready to be sent.
    pub async fn sign_transfer(&self, payer: &Payer, token: Address, to: Address, value: u128) -> Vec<u8> {
        let from = evm::text(payer.address());
        let nonce = self.rpc("eth_getTransactionCount", json!([from, "pending"])).await;
        payer.sign(&Unsigned {
            chain_id: CHAIN_ID,
            nonce: quantity(&nonce),
            to: token,
            data: evm::call("transfer(address,uint256)", &[Arg::Address(to), Arg::Uint(value)]),
            gas: 200_000,
        })
    }

    /// The receipt of a mined transaction.
    pub async fn receipt(&self, hash: &str) -> Option<Value> {
        let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
        (!receipt.is_null()).then_some(receipt)
    }

    /// Did the mined transaction succeed?
    pub async fn succeeded(&self, hash: &str) -> bool {
        let receipt = self.receipt(hash).await;
        let receipt = receipt.unwrap_or_else(|| panic!("{hash} is not mined"));
        receipt["status"] == "0x1"
    }

    /// What `owner` has of `token`, in base units.
    pub async fn balance(&self, token: Address, owner: Address) -> u128 {
        let data = evm::call("balanceOf(address)", &[Arg::Address(owner)]);
        let call = json!({ "to": evm::text(token), "data": format!("0x{}", hex::encode(data)) });
        let word = self.rpc("eth_call", json!([call, "latest"])).await;
        u128::from_str_radix(word.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// Deploys the contract of `artifact` (JSON written by `scripts/compile-contracts`).
    pub async fn deploy(&self, artifact: &str, constructor: &[Arg<'_>]) -> Address {
        let artifact: Value = serde_json::from_str(artifact).unwrap();
        let mut code = hex::decode(artifact["bytecode"].as_str().unwrap()).unwrap();
        code.extend(evm::arguments(constructor));
        let hash = self.send(self.accounts[0], None, &code).await;
        self.mine(1).await;
        assert!(self.succeeded(&hash).await, "{} does not deploy", artifact["contract"]);
        let receipt = self.receipt(&hash).await.unwrap();
        evm::address(receipt["contractAddress"].as_str().unwrap())
    }

    /// A token with these decimals, and what the tests need around it. Account 0 and the batch
    /// contract hold a billion each, account 1 and 2 a million.
    pub async fn deploy_tokens(&self, decimals: usize) -> Tokens {
        let whole = 10_u128.pow(u32::try_from(decimals).unwrap());
        let billion = 1_000_000_000 * whole;
        let usdt = self.deploy(include_str!("../contracts/TestTether.json"), &[Arg::Uint(3 * billion), Arg::Uint(decimals as u128)]).await;
        let fake = self.deploy(include_str!("../contracts/FakeTether.json"), &[]).await;
        let batch = self.deploy(include_str!("../contracts/Batch.json"), &[]).await;
        for (holder, value) in [(batch, billion), (self.accounts[1], billion / 1000), (self.accounts[2], billion / 1000)] {
            let data = evm::call("transfer(address,uint256)", &[Arg::Address(holder), Arg::Uint(value)]);
            self.send(self.accounts[0], Some(usdt), &data).await;
        }
        self.mine(1).await;
        assert_eq!(self.balance(usdt, batch).await, billion);
        Tokens { usdt, fake, batch }
    }
}

fn quantity(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("not a quantity: {value}"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ground_under_the_tests_holds() {
        let anvil = Anvil::start().await;
        let tokens = anvil.deploy_tokens(6).await;
        let shop = [0x11; 20];

        // A transfer signed here arrives, and logs one Transfer.
        let payer = Payer::new(PAYER_KEY);
        let raw = anvil.sign_transfer(&payer, tokens.usdt, shop, 12_500_000).await;
        let hash = anvil.send_raw(&raw).await;
        anvil.mine(1).await;
        assert!(anvil.succeeded(&hash).await);
        assert_eq!(anvil.balance(tokens.usdt, shop).await, 12_500_000);
        assert_eq!(anvil.receipt(&hash).await.unwrap()["logs"].as_array().unwrap().len(), 1);

        // A reorg takes it back, and can bring it again.
        anvil.reorg(1, &[]).await;
        assert_eq!(anvil.receipt(&hash).await, None);
        assert_eq!(anvil.balance(tokens.usdt, shop).await, 0);
        anvil.mine(2).await;
        let before = anvil.head().await;
        anvil.reorg(2, &[(&raw, 1)]).await;
        let after = anvil.head().await;
        assert_eq!(after.number, before.number);
        assert_ne!(after.hash, before.hash);
        assert_eq!(anvil.balance(tokens.usdt, shop).await, 12_500_000);

        // A snapshot is a way back.
        let snapshot = anvil.snapshot().await;
        anvil.mine(5).await;
        anvil.revert(snapshot).await;
        assert_eq!(anvil.head().await.number, after.number);

        // Time goes where it is told, blocks may share it, and the final head follows.
        anvil.set_next_time(after.timestamp_s + 1000).await;
        anvil.mine(3).await;
        assert_eq!(anvil.head().await.timestamp_s, after.timestamp_s + 1000);
        let last = anvil.rpc("eth_getBlockByNumber", json!(["finalized", false])).await;
        assert_eq!(quantity(&last["number"]), after.number + 1);
        assert!(anvil.dump().await.len() > 100);
    }

    #[tokio::test]
    async fn the_contracts_do_what_they_are_for() {
        let anvil = Anvil::start().await;
        let tokens = anvil.deploy_tokens(6).await;
        let (shop, from) = ([0x22; 20], anvil.accounts[3]);
        let one = |signature: &str| evm::call(signature, &[Arg::Address(tokens.usdt), Arg::Address(shop), Arg::Uint(7)]);
        let many = evm::call(
            "pay(address,address[],uint256[])",
            &[Arg::Address(tokens.usdt), Arg::Addresses(&[shop, [0x33; 20], shop]), Arg::Uints(&[1, 2, 3])],
        );
        let fake = evm::call("transfer(address,uint256)", &[Arg::Address(shop), Arg::Uint(9)]);
        // What is called, does it succeed, how many logs does it leave.
        for (contract, data, succeeds, logs) in [
            (tokens.batch, many, true, 3),
            (tokens.batch, one("payThenRevert(address,address,uint256)"), false, 0),
            (tokens.batch, one("payInVain(address,address,uint256)"), true, 0),
            (tokens.batch, one("oddThenPay(address,address,uint256)"), true, 5),
            (tokens.fake, fake.clone(), true, 1),
            (tokens.usdt, fake, false, 0), // account 3 owns nothing
        ] {
            let hash = anvil.send(from, Some(contract), &data).await;
            anvil.mine(1).await;
            let receipt = anvil.receipt(&hash).await.unwrap();
            assert_eq!(receipt["status"] == "0x1", succeeds, "{receipt}");
            assert_eq!(receipt["logs"].as_array().unwrap().len(), logs, "{receipt}");
        }
        assert_eq!(anvil.balance(tokens.usdt, shop).await, 1 + 3 + 7);

        // Tether's own oddities: no return value, a pause, a blacklist for senders only.
        let owner = anvil.accounts[0];
        let transfer = evm::call("transfer(address,uint256)", &[Arg::Address(shop), Arg::Uint(1)]);
        let probe = json!({ "from": evm::text(owner), "to": evm::text(tokens.usdt),
            "data": format!("0x{}", hex::encode(&transfer)) });
        assert_eq!(anvil.rpc("eth_call", json!([probe, "latest"])).await, json!("0x"));
        for (call, succeeds) in [
            (evm::call("pause()", &[]), false),
            (evm::call("unpause()", &[]), true),
            (evm::call("addBlackList(address)", &[Arg::Address(shop)]), true),
            (evm::call("addBlackList(address)", &[Arg::Address(owner)]), false),
            (evm::call("removeBlackList(address)", &[Arg::Address(owner)]), true),
        ] {
            anvil.send(owner, Some(tokens.usdt), &call).await;
            let hash = anvil.send(owner, Some(tokens.usdt), &transfer).await;
            anvil.mine(1).await;
            assert_eq!(anvil.succeeded(&hash).await, succeeds);
        }
    }
}
