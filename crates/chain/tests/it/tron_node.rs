//! A TRON full node to test against: it answers as java-tron's HTTP servlets do, and can be made
//! to lag, to lie and to break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_chain::tron::{TronChain, TronConfig, parse_address};
use tidegate_rules::block::Address;

use crate::evm_node::Token;
use crate::server::{Answer, Asked, Server, pool};

/// Mainnet's genesis block id; its last four bytes are the chain id.
const GENESIS: &str = "00000000000000001ebf88508a03865c71d452e25f4d51194196a1d22b6653dc";
pub(crate) const CHAIN_ID: u64 = 0x2b66_53dc;
pub(crate) const ZERO_ROOT: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub(crate) fn usdt() -> Address {
    parse_address("TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t").unwrap()
}

/// Says something else than the node would.
type Override = Box<dyn Fn(&Asked) -> Option<Answer> + Send>;

#[derive(Default)]
pub(crate) struct State {
    /// Header and infos by height.
    pub(crate) blocks: BTreeMap<u64, (Value, Value)>,
    pub(crate) head: u64,
    pub(crate) solid: u64,
    /// `None` for a token that has no such views.
    pub(crate) token: Option<Token>,
    /// What addresses, as 40 hex digits, hold. Whom it does not list holds nothing.
    pub(crate) balances: BTreeMap<String, u64>,
    /// Whom the token gives no balance for, as 40 hex digits.
    pub(crate) mute: Option<String>,
    /// It simulates the creation of contracts.
    pub(crate) deployless: bool,
    /// Infos and transactions by id, and what waits, if the node shows that.
    pub(crate) infos: BTreeMap<String, Value>,
    pub(crate) sent: BTreeMap<String, Value>,
    pub(crate) waiting: Option<BTreeMap<String, Value>>,
    pub(crate) instead: Option<Override>,
}

#[derive(Clone)]
pub(crate) struct TronNode {
    pub(crate) server: Arc<Server>,
    state: Arc<Mutex<State>>,
}

impl TronNode {
    pub(crate) async fn start(blocks: impl IntoIterator<Item = (Value, Value)>) -> Self {
        let mut state = State { token: Some(Token::default()), ..State::default() };
        for (header, infos) in blocks {
            state.head = number_of(&header);
            state.blocks.insert(state.head, (header, infos));
        }
        let state = Arc::new(Mutex::new(state));
        let answers = Arc::clone(&state);
        let server = Server::start(move |asked| {
            let state = answers.lock().unwrap();
            state.instead.as_ref().and_then(|instead| instead(asked)).unwrap_or_else(|| node(&state, asked))
        });
        Self { server: Arc::new(server.await), state }
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Answers `instead` where it says something.
    pub(crate) fn instead(&self, instead: impl Fn(&Asked) -> Option<Answer> + Send + 'static) {
        self.with(|state| state.instead = Some(Box::new(instead)));
    }

    /// How often it was asked since the last time.
    pub(crate) fn calls(&self) -> usize {
        self.server.asked().len()
    }
}

pub(crate) fn chain(nodes: &[&TronNode]) -> TronChain {
    let servers: Vec<&Server> = nodes.iter().map(|node| &*node.server).collect();
    TronChain::new(TronConfig { chain_id: CHAIN_ID, token: usdt() }, pool(&servers))
}

fn node(state: &State, asked: &Asked) -> Answer {
    let (view, call) = asked.path.trim_start_matches('/').split_once('/').unwrap();
    let top = if view == "walletsolidity" { state.solid } else { state.head };
    let visible = |number: &u64| *number <= top;
    Answer::Json(match call {
        "getblock" => {
            assert_eq!(asked.body["detail"], json!(false), "whole blocks are not needed");
            let number = asked.body.get("id_or_num").map_or(top, |text| text.as_str().unwrap().parse().unwrap());
            // Block 0 only when asked for it: a node whose view has nothing else yet says `{}`.
            if asked.body["id_or_num"] == "0" {
                return Answer::Json(genesis());
            }
            let block = Some(number).filter(visible).and_then(|number| state.blocks.get(&number));
            block.map_or(json!({}), |(header, _)| header.clone())
        }
        "gettransactioninfobyblocknum" => {
            let number = asked.body["num"].as_u64().filter(visible);
            number.and_then(|number| state.blocks.get(&number)).map_or(json!([]), |(_, infos)| infos.clone())
        }
        "gettransactioninfobyid" => by_id(&state.infos, asked),
        "gettransactionbyid" => by_id(&state.sent, asked),
        "gettransactionfrompending" => match &state.waiting {
            Some(waiting) => by_id(waiting, asked),
            None => return Answer::Status(404, &[], json!({ "Error": "this API is unavailable due to config" }).to_string()),
        },
        "getchainparameters" => parameters(),
        "getnodeinfo" => node_info(state),
        "triggerconstantcontract" if asked.body.get("contract_address").is_none() => {
            if !state.deployless {
                let message = hex::encode("class java.lang.RuntimeException : contract_address isn't set.");
                return Answer::Json(json!({ "result": { "code": "OTHER_ERROR", "message": message } }));
            }
            let data = asked.body["data"].as_str().unwrap();
            let words: Vec<&str> = (1..=data.len() / 64).map(|word| &data[data.len() - 64 * word..][..64]).collect();
            let count = (0..words.len()).find(|n| words[*n] == format!("{n:064x}") && words[n + 1] == format!("{:064x}", 64)).unwrap();
            assert!(count <= 200, "a node gives a call 80 ms");
            let values: Vec<String> = words[..count].iter().rev().map_while(|owner| balance(state, owner)).collect();
            let returned = format!("{:064x}{:064x}{}", state.head, values.len(), values.concat());
            json!({ "result": { "result": true }, "energy_used": 90_000, "constant_result": [returned] })
        }
        "triggerconstantcontract" if asked.body["function_selector"] == "balanceOf(address)" => {
            match balance(state, asked.body["parameter"].as_str().unwrap()) {
                Some(value) => json!({ "result": { "result": true }, "energy_used": 935, "constant_result": [value] }),
                None => reverted(),
            }
        }
        // The energy of a transfer from one who holds: more to one who holds nothing.
        "triggerconstantcontract" if asked.body["function_selector"] == "transfer(address,uint256)" => {
            let holds = |text: &str| balance(state, &format!("{:0>64}", &text[text.len() - 40..])) > Some(format!("{:064x}", 0));
            let (from, to) = (asked.body["owner_address"].as_str().unwrap(), &asked.body["parameter"].as_str().unwrap()[..64]);
            if !holds(from) {
                return Answer::Json(reverted());
            }
            let energy = if holds(to) { 31_895 } else { 64_895 };
            json!({ "result": { "result": true }, "energy_used": energy, "energy_penalty": 17_245, "constant_result": [ZERO_ROOT],
                "transaction": { "ret": [{}] } })
        }
        "triggerconstantcontract" => {
            let number = |number: u64| format!("{number:064x}");
            let word = match (asked.body["function_selector"].as_str().unwrap(), asked.body["parameter"].as_str(), &state.token) {
                ("symbol()", None, _) => format!("{:064x}{:064x}{:0<64}", 32, 4, hex::encode("USDT")),
                ("decimals()", None, _) => number(6),
                ("paused()", None, Some(token)) => number(token.paused.into()),
                ("deprecated()", None, Some(token)) => number(token.deprecated.into()),
                ("isBlackListed(address)", Some(address), Some(token)) => {
                    let address = address.strip_prefix("000000000000000000000000").unwrap();
                    number(token.blacklisted.iter().any(|known| known == address).into())
                }
                _ => return Answer::Json(reverted()),
            };
            json!({ "result": { "result": true }, "energy_used": 2207, "constant_result": [word] })
        }
        other => panic!("the adapter called {other}"),
    })
}

/// `{}` for what is not there.
fn by_id(all: &BTreeMap<String, Value>, asked: &Asked) -> Value {
    all.get(asked.body["value"].as_str().unwrap()).cloned().unwrap_or_else(|| json!({}))
}

/// What the token says an address holds, as a word; `word` is that address in one.
fn balance(state: &State, word: &str) -> Option<String> {
    let address = word.strip_prefix("000000000000000000000000").unwrap();
    let value = state.balances.get(address).copied().unwrap_or(0);
    (state.mute.as_deref() != Some(address)).then(|| format!("{value:064x}"))
}

/// What a node says of itself, as far as it is looked at (developers.tron.network, getnodeinfo).
fn node_info(state: &State) -> Value {
    let shown = |number: u64| {
        let id = state.blocks.get(&number).map_or(GENESIS, |(header, _)| header["blockID"].as_str().unwrap());
        format!("Num:{number},ID:{id}")
    };
    json!({ "beginSyncNum": 0, "block": shown(state.head), "solidityBlock": shown(state.solid), "currentConnectCount": 0,
        "peerList": [], "machineInfo": { "threadCount": 1 }, "totalFlow": 0 })
}

/// Some of the chain's parameters, those of mainnet at the end of 2025. One of value 0 has none.
fn parameters() -> Value {
    json!({ "chainParameter": [
        { "key": "getMaintenanceTimeInterval", "value": 21_600_000 }, { "key": "getCreateAccountFee", "value": 100_000 },
        { "key": "getTransactionFee", "value": 1_000 }, { "key": "getCreateNewAccountFeeInSystemContract", "value": 1_000_000 },
        { "key": "getEnergyFee", "value": 100 }, { "key": "getAllowMarketTransaction" } ] })
}

/// As java-tron shows it: the call went through, and the contract gave up.
pub(crate) fn reverted() -> Value {
    json!({ "result": { "result": true, "message": hex::encode("REVERT opcode executed") }, "energy_used": 1984, "constant_result": [""] })
}

/// As java-tron shows it: a default number is left out, and the witness is a sentence.
fn genesis() -> Value {
    let witness = hex::encode("A new system must allow existing systems to be linked together");
    json!({ "blockID": GENESIS, "block_header": { "raw_data": {
        "txTrieRoot": "d6bdd6c1bc3b7e8d5a8a4d1f1ee6d1b6bd0b5bd2dd8e1f2e4d5cbd3a1a2b3c4d",
        "parentHash": "e58f33f9baf9305dc6f82b9f1934ea8f0ade2defb951258d50167028c780351f",
        "witness_address": witness } } })
}

/// A chain of blocks from `first` on, with `infos(number)` in each, and ids that prove them.
pub(crate) fn make_chain(first: u64, count: u64, infos: impl Fn(u64) -> Vec<Value>) -> Vec<(Value, Value)> {
    let mut parent = format!("{:016x}{}", first - 1, "0".repeat(48));
    (first..first + count)
        .map(|number| {
            let infos = infos(number);
            let root = if infos.is_empty() { ZERO_ROOT.to_owned() } else { "ab".repeat(32) };
            let header = make_header(number, &parent, &root);
            parent = header["blockID"].as_str().unwrap().to_owned();
            (header, infos.into())
        })
        .collect()
}

pub(crate) fn time_of(number: u64) -> u64 {
    1_700_000_000_000 + number * 3_000
}

/// A header with the id that its content hashes to.
pub(crate) fn make_header(number: u64, parent: &str, root: &str) -> Value {
    let time = time_of(number);
    let witness = format!("41{}", "77".repeat(20));
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 128 {
            bytes.push(value as u8 | 128);
            value >>= 7;
        }
        bytes.push(value as u8);
        hex::encode(bytes)
    };
    let (time_field, number_field) = (varint(time), varint(number));
    let raw = format!("08{time_field}1220{root}1a20{parent}38{number_field}4a15{witness}501d");
    let digest = hex::encode(Sha256::digest(hex::decode(raw).unwrap()));
    json!({ "blockID": format!("{number:016x}{}", &digest[16..]), "block_header": { "raw_data": {
        "number": number, "txTrieRoot": root, "parentHash": parent, "witness_address": witness,
        "version": 29, "timestamp": time }, "witness_signature": "00" } })
}

/// A successful USDT transfer of `value`.
pub(crate) fn transfer_info(number: u64, id: &str, value: u64) -> Value {
    json!({ "id": id, "blockNumber": number, "blockTimeStamp": time_of(number), "contractResult": [ZERO_ROOT],
        "contract_address": "41a614f803b6fd780986a42c78ec9c7f77e6ded13c", "receipt": { "result": "SUCCESS" },
        "log": [{ "address": "a614f803b6fd780986a42c78ec9c7f77e6ded13c",
            "topics": ["ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
                format!("{:0>64}", "aa".repeat(20)), format!("{:0>64}", "bb".repeat(20))],
            "data": format!("{value:064x}") }] })
}

/// A transfer of TRX: no log, and no result in the receipt.
pub(crate) fn trx_info(number: u64, id: &str) -> Value {
    json!({ "id": id, "blockNumber": number, "blockTimeStamp": time_of(number), "contractResult": [""],
        "receipt": { "net_usage": 268 } })
}

pub(crate) fn number_of(header: &Value) -> u64 {
    header["block_header"]["raw_data"]["number"].as_u64().unwrap_or(0)
}
