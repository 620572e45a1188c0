//! An EVM node to test against: it answers JSON-RPC as geth does, can have the limits that
//! providers have, and can be made to lag, to lie and to break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha3::{Digest, Keccak256};
use tidegate_chain::evm::{EvmChain, EvmConfig, parse_address};
use tidegate_rules::block::Address;

use crate::server::{Answer, Server, pool};

pub(crate) const TOPIC: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
/// The first topic of an event of TetherToken.sol.
pub(crate) fn topic(event: &str) -> Value {
    let path = format!("{}/tests/data/vectors/abi_selectors_topics.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    vectors["topics"][event].clone()
}

/// `Transfer` and the events that notices are made of, as they are asked for: any of them.
fn topics_asked() -> Value {
    let events = ["Transfer", "AddedBlackList", "RemovedBlackList", "DestroyedBlackFunds", "Pause", "Unpause", "Deprecate"];
    json!([events.map(topic)])
}

pub(crate) const USDT: &str = "0xdac17f958d2ee523a2206206994597c13d831ec7";

pub(crate) fn usdt() -> Address {
    parse_address(USDT).unwrap()
}

#[derive(Clone)]
pub(crate) struct EvmBlock {
    pub(crate) hash: String,
    pub(crate) parent: String,
    pub(crate) number: u64,
    pub(crate) bloom: String,
    /// As `eth_getLogs` shows them.
    pub(crate) logs: Vec<Value>,
}

impl EvmBlock {
    pub(crate) fn header(&self) -> Value {
        let transactions: Vec<_> = self.transactions();
        json!({ "number": hex(self.number), "hash": self.hash, "parentHash": self.parent,
            "timestamp": hex(1_700_000_000 + 12 * self.number), "logsBloom": self.bloom,
            "transactions": transactions, "extraData": "0x", "gasUsed": "0x0" })
    }

    fn transactions(&self) -> Vec<String> {
        let mut hashes: Vec<_> = self.logs.iter().map(|log| log["transactionHash"].as_str().unwrap().to_owned()).collect();
        hashes.dedup();
        hashes
    }

    pub(crate) fn receipts(&self) -> Vec<Value> {
        let of = |hash: &String| self.logs.iter().filter(|log| log["transactionHash"] == **hash).cloned().collect();
        let receipt = |hash: &String| {
            let logs: Vec<Value> = of(hash);
            json!({ "blockHash": self.hash, "blockNumber": hex(self.number), "transactionHash": hash,
                "status": "0x1", "logs": logs })
        };
        self.transactions().iter().map(receipt).collect()
    }
}

/// What the token says of itself.
#[derive(Clone, Default)]
pub(crate) struct Token {
    pub(crate) paused: bool,
    pub(crate) deprecated: bool,
    /// As 40 hex digits.
    pub(crate) blacklisted: Vec<String>,
}

/// Says something else than the node would: a `result` or an `error` member.
type Override = Box<dyn Fn(&str, &Value) -> Option<Value> + Send>;

pub(crate) struct State {
    /// Consecutive from the first one's number.
    pub(crate) blocks: Vec<EvmBlock>,
    pub(crate) head: u64,
    pub(crate) finalized: Option<u64>,
    pub(crate) chain_id: u64,
    /// `None` for a token that has no such views, such as BSC's.
    pub(crate) token: Option<Token>,
    /// What addresses, as 40 hex digits, hold. Whom it does not list holds nothing.
    pub(crate) balances: BTreeMap<String, u64>,
    /// Whom the token gives no balance for, as 40 hex digits.
    pub(crate) mute: Option<String>,
    /// How far the block that contracts see is ahead of the head, where there is Multicall3.
    pub(crate) multicall: Option<u64>,
    /// It simulates the creation of contracts.
    pub(crate) deployless: bool,
    /// Receipts and transactions by hash.
    pub(crate) receipts: BTreeMap<String, Value>,
    pub(crate) sent: BTreeMap<String, Value>,
    topics: Value,
    /// Some providers take filters lightly: the token's address and topics are looked at or not.
    pub(crate) filters: bool,
    /// The most blocks one `eth_getLogs` may span, and how the refusal reads.
    pub(crate) range_max: Option<(u64, Value)>,
    /// The most calls in a batch.
    pub(crate) batch_max: usize,
    /// The HTTP status of an answer that is one error.
    pub(crate) error_status: u16,
    pub(crate) instead: Option<Override>,
    /// Every call, parts of batches one by one.
    pub(crate) calls: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct EvmNode {
    pub(crate) server: Arc<Server>,
    state: Arc<Mutex<State>>,
}

impl EvmNode {
    pub(crate) async fn start(blocks: Vec<EvmBlock>) -> Self {
        let state = State {
            head: blocks.last().unwrap().number,
            blocks,
            finalized: None,
            chain_id: 1,
            token: Some(Token::default()),
            balances: BTreeMap::new(),
            mute: None,
            multicall: None,
            deployless: false,
            receipts: BTreeMap::new(),
            sent: BTreeMap::new(),
            topics: topics_asked(),
            filters: false,
            range_max: None,
            batch_max: 1_000,
            error_status: 200,
            instead: None,
            calls: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let answers = Arc::clone(&state);
        let server = Server::start(move |asked| {
            let mut state = answers.lock().unwrap();
            let answer = match asked.body.as_array() {
                None => reply(&mut state, &asked.body),
                Some(calls) if calls.len() > state.batch_max => {
                    let error = json!({ "code": -32_600, "message": "batch size too large" });
                    json!({ "jsonrpc": "2.0", "id": null, "error": error })
                }
                // In another order than asked: JSON-RPC allows it.
                Some(calls) => calls.iter().rev().map(|call| reply(&mut state, call)).collect(),
            };
            match answer.get("error") {
                Some(_) if state.error_status != 200 => Answer::Status(state.error_status, &[], answer.to_string()),
                _ => Answer::Json(answer),
            }
        });
        Self { server: Arc::new(server.await), state }
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Answers `instead` where it says something.
    pub(crate) fn instead(&self, instead: impl Fn(&str, &Value) -> Option<Value> + Send + 'static) {
        self.with(|state| state.instead = Some(Box::new(instead)));
    }

    /// What was called since the last time, in a short form.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.calls))
    }
}

pub(crate) fn chain(nodes: &[&EvmNode]) -> EvmChain {
    let servers: Vec<&Server> = nodes.iter().map(|node| &*node.server).collect();
    EvmChain::new(EvmConfig::new(1, usdt()), pool(&servers))
}

fn reply(state: &mut State, call: &Value) -> Value {
    let (method, params) = (call["method"].as_str().unwrap(), &call["params"]);
    state.calls.push(method.trim_start_matches("eth_").to_owned());
    let said = state.instead.as_ref().and_then(|instead| instead(method, params));
    let mut reply = said.unwrap_or_else(|| node(state, method, params));
    reply["jsonrpc"] = json!("2.0");
    reply["id"] = call["id"].clone();
    reply
}

fn node(state: &State, method: &str, params: &Value) -> Value {
    let numbered = |number: u64| state.blocks.iter().find(|block| block.number == number && number <= state.head);
    let hashed = |hash: &Value| state.blocks.iter().find(|block| *hash == block.hash && block.number <= state.head);
    let result = |value: Value| json!({ "result": value });
    let error = |code: i64, message: &str| json!({ "error": { "code": code, "message": message } });
    match method {
        "eth_chainId" => result(json!(hex(state.chain_id))),
        "eth_getBlockByNumber" => {
            assert_eq!(params[1], false, "whole blocks are not needed");
            let block = match params[0].as_str().unwrap() {
                "latest" => numbered(state.head),
                "finalized" => match state.finalized {
                    Some(number) => numbered(number),
                    None => return error(-39_001, "Unknown block"),
                },
                number => numbered(quantity(&json!(number))),
            };
            result(block.map_or(Value::Null, EvmBlock::header))
        }
        "eth_getLogs" => {
            let filter = &params[0];
            assert_eq!(filter["address"], USDT);
            // A block that is doubted, and blocks that are read again, are asked for without topics.
            let all = filter["topics"].is_null();
            assert!(all || filter["topics"] == state.topics, "{filter}");
            let named = |log: &Value| state.topics[0].as_array().unwrap().contains(&log["topics"][0]);
            let wanted = |log: &Value| !state.filters || (log["address"] == USDT && (all || named(log)));
            let logs_of = |block: &EvmBlock| block.logs.iter().filter(|log| wanted(log)).cloned().collect::<Vec<_>>();
            if !filter["blockHash"].is_null() {
                return match hashed(&filter["blockHash"]) {
                    Some(block) => result(json!(logs_of(block))),
                    None => error(-32_000, "unknown block"),
                };
            }
            let (from, to) = (quantity(&filter["fromBlock"]), quantity(&filter["toBlock"]));
            if let Some((_, refusal)) = state.range_max.as_ref().filter(|(most, _)| to - from + 1 > *most) {
                return json!({ "error": refusal });
            }
            // As many nodes still do: what is beyond the head is silently nothing.
            let logs = (from..=to).filter_map(numbered).flat_map(logs_of);
            result(logs.collect())
        }
        "eth_getBlockReceipts" => result(hashed(&params[0]).map_or(Value::Null, |block| json!(block.receipts()))),
        "eth_getTransactionReceipt" => result(state.receipts.get(params[0].as_str().unwrap()).cloned().unwrap_or_default()),
        "eth_getTransactionByHash" => result(state.sent.get(params[0].as_str().unwrap()).cloned().unwrap_or_default()),
        "eth_call" if params[0]["to"] != USDT && params[0]["to"].as_str().is_none_or(|to| to.to_lowercase() != USDT) => {
            let at = match params[1].as_str().unwrap() {
                "latest" => state.head,
                number => quantity(&json!(number)),
            };
            let words: Vec<&str> = call_words(&params[0]["data"]);
            match (params[0]["to"].as_str(), state.multicall) {
                (None, _) if state.deployless => result(json!(created(state, at, &words))),
                (None, _) => error(-32_602, "invalid argument 0: missing to"),
                (Some(MULTICALL3), None) => result(json!("0x")),
                (Some(MULTICALL3), Some(ahead)) => result(json!(aggregated(state, at + ahead, &words))),
                (to, _) => panic!("the adapter called {to:?}"),
            }
        }
        "eth_call" => {
            let word = |number: u64| result(json!(format!("0x{number:064x}")));
            match (params[0]["data"].as_str().unwrap().split_at(10), &state.token) {
                (("0x95d89b41", ""), _) => result(json!(format!("0x{:064x}{:064x}{:0<64}", 32, 4, hex::encode("USDT")))),
                (("0x313ce567", ""), _) => word(6),
                (("0x70a08231", address), _) => match balance(state, address) {
                    Some(value) => word(value),
                    None => result(json!("0x")),
                },
                (("0x5c975abb", ""), Some(token)) => word(token.paused.into()),
                (("0x0e136b19", ""), Some(token)) => word(token.deprecated.into()),
                (("0xe47d6060", address), Some(token)) => {
                    let address = address.strip_prefix("000000000000000000000000").unwrap();
                    word(token.blacklisted.iter().any(|known| known == address).into())
                }
                _ => error(3, "execution reverted"),
            }
        }
        other => error(-32_601, &format!("the method {other} does not exist/is not available")),
    }
}

pub(crate) const MULTICALL3: &str = "0xca11bde05977b3631167028862be2a173976ca11";

/// Call data as words, the last of them first: there stand the arguments, whatever is before them.
fn call_words(data: &Value) -> Vec<&str> {
    let data = data.as_str().unwrap().trim_start_matches("0x");
    (1..=data.len() / 64).map(|word| &data[data.len() - 64 * word..][..64]).collect()
}

/// What the token says an address holds; `word` is that address in a word.
fn balance(state: &State, word: &str) -> Option<u64> {
    let address = word.strip_prefix("000000000000000000000000").unwrap();
    (state.mute.as_deref() != Some(address)).then(|| state.balances.get(address).copied().unwrap_or(0))
}

/// As contracts/Balances.sol returns it for the owners that end the call data.
fn created(state: &State, at: u64, words: &[&str]) -> String {
    let count = (0..words.len()).find(|count| words[*count] == format!("{count:064x}") && words[count + 1] == format!("{:064x}", 64));
    let owners = words[..count.unwrap()].iter().rev();
    let values: Vec<String> = owners.map_while(|owner| balance(state, owner)).map(|value| format!("{value:064x}")).collect();
    format!("0x{at:064x}{:064x}{}", values.len(), values.concat())
}

/// As Multicall3 returns it: for its `getBlockNumber()` alone, or for that and for balances.
fn aggregated(state: &State, at: u64, words: &[&str]) -> String {
    if words.is_empty() {
        return format!("0x{at:064x}");
    }
    // Each balance ends in two words: a selector with the upper part of an address, and the rest.
    let balances =
        words.chunks(6).map_while(|call| (call.get(1)?.starts_with("70a08231")).then(|| format!("{}{}", &call[1][8..], &call[0][..8])));
    let mut values: Vec<Option<u64>> = balances.map(|word| balance(state, &word)).collect();
    values.push(Some(at));
    values.reverse();
    let (mut offsets, mut results, mut offset) = (String::new(), String::new(), 32 * values.len());
    for value in &values {
        let result = match value {
            Some(value) => format!("{:064x}{:064x}{:064x}{value:064x}", 1, 64, 32),
            None => format!("{:064x}{:064x}{:064x}", 0, 64, 0),
        };
        offsets += &format!("{offset:064x}");
        offset += result.len() / 2;
        results += &result;
    }
    format!("0x{:064x}{:064x}{offsets}{results}", 32, values.len())
}

/// A chain from block `first` on; `values(number)` are the transfers in each, one a transaction.
pub(crate) fn make_chain(first: u64, count: u64, values: impl Fn(u64) -> Vec<u64>) -> Vec<EvmBlock> {
    (first..first + count)
        .map(|number| {
            let (hash, parent) = (hash_of(number), hash_of(number - 1));
            let logs: Vec<Value> =
                (0..).zip(values(number)).map(|(index, value)| log(number, index, &format!("0x{number:062x}{index:02x}"), value)).collect();
            let bloom = if logs.is_empty() { bloom_of(&[]) } else { token_bloom() };
            EvmBlock { hash, parent, number, bloom, logs }
        })
        .collect()
}

pub(crate) fn hash_of(number: u64) -> String {
    format!("0xb10c{number:060x}")
}

pub(crate) fn log(number: u64, index: u64, transaction: &str, value: u64) -> Value {
    let party = |byte: &str| format!("0x{:0>64}", byte.repeat(20));
    json!({ "address": USDT, "topics": [TOPIC, party("aa"), party("bb")], "data": format!("0x{value:064x}"),
        "blockNumber": hex(number), "blockHash": hash_of(number), "transactionHash": transaction,
        "transactionIndex": "0x0", "logIndex": hex(index), "removed": false })
}

/// The bloom of a block with a transfer of the token in it.
pub(crate) fn token_bloom() -> String {
    bloom_of(&[USDT, TOPIC])
}

/// Yellow paper, 4.3: bit `h & 2047` of the 2,048 for the first three pairs of bytes of the hash.
pub(crate) fn bloom_of(items: &[&str]) -> String {
    let mut bits = vec!['0'; 2_048];
    for item in items {
        let hash = Keccak256::digest(hex::decode(item).unwrap());
        for pair in 0..3 {
            let bit = (usize::from(hash[2 * pair]) << 8 | usize::from(hash[2 * pair + 1])) % 2_048;
            bits[2_047 - bit] = '1';
        }
    }
    let digit = |four: &[char]| format!("{:x}", u8::from_str_radix(&four.iter().collect::<String>(), 2).unwrap());
    format!("0x{}", bits.chunks(4).map(digit).collect::<String>())
}

pub(crate) fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}
