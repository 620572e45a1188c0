//! The questions of the EVM adapter against Anvil, a real node (scripts/install-test-tools), and a
//! token that behaves like Tether's.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tidegate_chain::endpoints::{EndpointConfig, Endpoints, Prefer};
use tidegate_chain::evm::{EvmChain, EvmConfig, GAS_OF_FIRST_BALANCE, MULTICALL3, format_address, parse_address};
use tidegate_chain::{Attempted, BALANCES_MAX, Balances, Basis, Chain, Fee, Outcome, SecondReading};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Hash, Network};

const SUPPLY: u64 = 1_000_000;

struct Anvil {
    url: String,
    pool: Endpoints,
    accounts: Vec<Address>,
    process: Child,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Anvil {
    async fn start() -> Self {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/node_modules");
        let program = std::env::var_os("TIDEGATE_ANVIL").map(PathBuf::from);
        let program = program.unwrap_or_else(|| tools.join("@foundry-rs/anvil-linux-amd64/bin/anvil"));
        let mut command = Command::new(&program);
        command.args(["--port", "0", "--slots-in-an-epoch", "1", "--no-mining"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("no {program:?} ({error}): run scripts/install-test-tools"));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("Listening on ").map(str::to_owned)).unwrap();
        // Whoever stops reading stops the node, in the end.
        std::thread::spawn(move || lines.for_each(drop));
        let url = format!("http://{address}");
        let config = EndpointConfig::new(url.parse().unwrap());
        let pool = Endpoints::new(&Network::new("anvil"), vec![config], Box::new(|| 0)).unwrap();
        let mut anvil = Self { url, pool, accounts: Vec::new(), process };
        let accounts = anvil.rpc("eth_accounts", json!([])).await;
        anvil.accounts = accounts.as_array().unwrap().iter().map(address_of).collect();
        anvil
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        let call = &json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.pool.run(Prefer::Current, |endpoint| async move { endpoint.post("", call, 1).await }).await.unwrap();
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer.get("error").is_none(), "{call}: {answer}");
        answer["result"].take()
    }

    /// A transaction from an unlocked account in a block of its own.
    async fn send(&self, from: Address, to: Option<Address>, data: String) -> Hash {
        let hash = self.queue(from, to, data).await;
        self.mine(1).await;
        hash
    }

    /// Only what is told to be mined is mined.
    async fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([blocks])).await;
    }

    /// A transaction from an unlocked account that waits for a block.
    async fn queue(&self, from: Address, to: Option<Address>, data: String) -> Hash {
        let mut call = json!({ "from": format_address(&from), "data": format!("0x{data}"), "gas": "0x7a1200" });
        if let Some(to) = to {
            call["to"] = format_address(&to).into();
        }
        self.rpc("eth_sendTransaction", json!([call])).await.as_str().unwrap().parse().unwrap()
    }

    async fn deploy(&self, code: String) -> Address {
        let hash = self.send(self.accounts[0], None, code).await;
        let receipt = self.rpc("eth_getTransactionReceipt", json!([format!("0x{hash}")])).await;
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        address_of(&receipt["contractAddress"])
    }

    /// A token, all of it with the first account.
    async fn token(&self) -> Address {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/contracts/TestTether.json");
        let artifact: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let code = artifact["bytecode"].as_str().unwrap().trim_start_matches("0x");
        self.deploy(format!("{code}{SUPPLY:064x}{:064x}", 6)).await
    }

    /// Puts Multicall3 where it is on every chain.
    async fn multicall3(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evm/multicall3_creation.hex");
        let made = self.deploy(std::fs::read_to_string(path).unwrap().trim_end().to_owned()).await;
        let code = self.rpc("eth_getCode", json!([format_address(&made), "latest"])).await;
        self.rpc("anvil_setCode", json!([format_address(&MULTICALL3), code])).await;
    }

    async fn transfer(&self, token: Address, from: Address, to: Address, value: u64) -> Hash {
        self.send(from, Some(token), transfer_data(to, value)).await
    }

    fn chain(&self, token: Address) -> EvmChain {
        let config = EndpointConfig::new(self.url.parse().unwrap());
        let pool = Endpoints::new(&Network::new("anvil"), vec![config], Box::new(|| 0)).unwrap();
        EvmChain::new(EvmConfig::new(31_337, token), pool)
    }
}

fn transfer_data(to: Address, value: u64) -> String {
    format!("a9059cbb{:0>64}{value:064x}", hex::encode(to.0))
}

fn address_of(text: &Value) -> Address {
    parse_address(text.as_str().unwrap()).unwrap()
}

/// Addresses that nobody has.
fn addresses(count: usize) -> Vec<Address> {
    let address = |number: usize| {
        let mut bytes = [0xd0; 20];
        bytes[12..].copy_from_slice(&(number as u64).to_be_bytes());
        Address(bytes)
    };
    (0..count).map(address).collect()
}

#[tokio::test]
async fn a_real_node_gives_five_hundred_balances_in_one_call_with_multicall3_and_without_it() {
    let anvil = Anvil::start().await;
    let token = anvil.token().await;
    let wallets = addresses(2 * BALANCES_MAX);
    for (place, value) in [(0, 7), (1, 8), (499, 9), (500, 10), (999, 11)] {
        anvil.transfer(token, anvil.accounts[0], wallets[place], value).await;
    }
    let held =
        |place: usize| [(0, 7), (1, 8), (499, 9), (500, 10), (999, 11)].iter().find(|known| known.0 == place).map_or(0, |known| known.1);
    let expected: Vec<Raw> = (0..wallets.len()).map(|place| Raw::from_units(held(place))).collect();
    let (first, second) = wallets.split_at(BALANCES_MAX);

    // Without Multicall3: a contract that the node only pretends to create.
    let chain = anvil.chain(token);
    let head = chain.head().await.unwrap().number;
    let found = chain.balances(first).await.unwrap();
    assert_eq!(found, Balances { at: head, values: expected[..BALANCES_MAX].to_vec(), calls: 4 }, "two of them found out the way");
    let found = chain.balances(second).await.unwrap();
    assert_eq!(found, Balances { at: head, values: expected[BALANCES_MAX..].to_vec(), calls: 2 });

    // With it: one call each, once it is known to be there.
    anvil.multicall3().await;
    let chain = anvil.chain(token);
    let head = chain.head().await.unwrap().number;
    assert_eq!(chain.balances(&wallets[..1]).await.unwrap().calls, 3);
    let before = chain.endpoints()[0].calls;
    for (wallets, expected) in [(first, &expected[..BALANCES_MAX]), (second, &expected[BALANCES_MAX..])] {
        let found = chain.balances(wallets).await.unwrap();
        assert_eq!(found, Balances { at: head, values: expected.to_vec(), calls: 1 });
    }
    assert_eq!(chain.endpoints()[0].calls - before, 2, "a thousand balances, two requests");

    // Where there is no token, nobody holds nothing of it.
    let nothing = anvil.chain(Address([0x77; 20]));
    assert!(nothing.balances(first).await.unwrap_err().to_string().contains("gave no balance"));
}

#[tokio::test]
async fn a_real_node_tells_what_became_of_a_transaction_and_what_one_costs() {
    let anvil = Anvil::start().await;
    let token = anvil.token().await;
    let (chain, rich, poor) = (anvil.chain(token), anvil.accounts[0], anvil.accounts[1]);
    let shop = addresses(1)[0];
    let told = async |hash| chain.transaction(&hash).await.unwrap().unwrap();

    let paid = told(anvil.transfer(token, rich, shop, 5).await).await;
    let block = paid.block.unwrap();
    assert_eq!((paid.outcome, paid.from, paid.attempted), (Outcome::Succeeded, Some(rich), None));
    let blocks = chain.blocks(block.number, 1).await.unwrap();
    assert_eq!((paid.transfers, block), (blocks[0].transfers.clone(), blocks[0].at));

    let failed = told(anvil.transfer(token, poor, shop, 6).await).await;
    let asked_for = |from, value| Some(Attempted { from, to: shop, value: Raw::from_units(value) });
    assert_eq!((failed.outcome, failed.transfers), (Outcome::Failed { reason: "status 0, reverted".into() }, vec![]));
    assert_eq!((failed.block.unwrap().number, failed.from, failed.attempted), (block.number + 1, Some(poor), asked_for(poor, 6)));

    let hash = anvil.queue(rich, Some(token), transfer_data(shop, 7)).await;
    let pending = told(hash).await;
    assert_eq!((pending.outcome, pending.block, pending.attempted), (Outcome::Pending, None, asked_for(rich, 7)));
    anvil.mine(1).await;
    assert_eq!(told(hash).await.outcome, Outcome::Succeeded);
    assert_eq!(chain.transaction(&Hash([7; 32])).await, Ok(None));

    for (holder, expected) in [(None, Basis::Known), (Some(poor), Basis::Known), (Some(rich), Basis::Simulated)] {
        let fee = chain.fee(holder).await.unwrap();
        let Fee::Evm { gas, gas_to_new, base_fee, priority_fee, max_fee_per_gas, cost, basis, .. } = fee else { panic!("{fee:?}") };
        assert_eq!(basis, expected);
        assert!((45_000..90_000).contains(&gas_to_new) && gas_to_new - gas == GAS_OF_FIRST_BALANCE, "{gas} {gas_to_new}");
        assert!(base_fee > 0 && priority_fee > 0);
        assert_eq!((max_fee_per_gas, cost), (2 * base_fee + priority_fee, u128::from(gas) * (base_fee + priority_fee)));
    }
}

#[tokio::test]
async fn a_real_node_is_read_a_second_time_and_a_fork_shows() {
    let anvil = Anvil::start().await;
    let token = anvil.token().await;
    for value in 1..=3 {
        anvil.transfer(token, anvil.accounts[0], addresses(1)[0], value).await;
    }
    anvil.mine(2).await;
    let chain = anvil.chain(token);
    let blocks = chain.blocks(1, 50).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.transfers.len()).sum::<usize>(), 3);
    let refs: Vec<_> = blocks.iter().map(|block| block.at).collect();
    let same: Vec<_> = blocks.iter().cloned().map(SecondReading::Same).collect();
    let before = chain.endpoints()[0].calls;
    assert_eq!(chain.second_reading(&refs).await.unwrap(), same, "by range, and one by its receipts: the only endpoint read them first");
    assert_eq!(chain.endpoints()[0].calls - before, 3);
    anvil.rpc("anvil_reorg", json!([2, []])).await;
    let now = chain.second_reading(&refs).await.unwrap();
    let (stand, gone) = refs.split_at(refs.len() - 2);
    assert_eq!(now[..stand.len()], same[..stand.len()]);
    for (reading, block) in now[stand.len()..].iter().zip(gone) {
        assert!(matches!(reading, SecondReading::Replaced(at) if at.number == block.number && at.hash != block.hash));
    }
}
