//! A TRON or an EVM node for benches: it makes blocks when told to, serves them over HTTP as real
//! nodes do, and counts what it is asked. TRON's blocks are two recorded ones (SOURCES.md of the
//! chain crate) with other numbers, times and transaction ids; their headers prove themselves.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::Uri;
use axum::serve::ListenerExt as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_rules::block::Address;

pub const TRON_TOKEN: &str = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t";
/// The last four bytes of the genesis block's id.
pub const TRON_CHAIN: u64 = 728_126_428;
const GENESIS: &str = "00000000000000001ebf88508a03865c71d452e25f4d51194196a1d22b6653dc";
pub const EVM_TOKEN: &str = "0xdAC17F958D2ee523a2206206994597C13D831ec7";
pub const EVM_CHAIN: u64 = 1;
const TRANSFER: &str = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
/// Eight digits, as in the recorded blocks.
pub const FIRST: u64 = 60_000_000;
/// How far the final head is behind.
const FINAL_BEHIND: u64 = 18;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tron,
    Evm,
}

/// A transfer to `to` in one block of so many.
#[derive(Clone, Copy)]
pub struct Pays {
    pub to: Address,
    pub every: u64,
}

pub struct Node {
    pub url: String,
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    pays: Option<Pays>,
    templates: Vec<Template>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// From [`FIRST`] on.
    blocks: Vec<Made>,
    calls: BTreeMap<String, u64>,
}

struct Made {
    id: String,
    parent: String,
    time_ms: u64,
    served: Instant,
}

impl Node {
    pub async fn start(kind: Kind, pays: Option<Pays>) -> Arc<Self> {
        let templates = match kind {
            Kind::Tron => vec![Template::read("reconstructed_infos_61132092"), Template::read("reconstructed_infos_60836289_visible_true")],
            Kind::Evm => Vec::new(),
        };
        let inner = Arc::new(Inner { kind, pays, templates, state: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::clone(&inner);
        let handle = move |uri: Uri, body: Bytes| {
            let answer = answers.answer(uri.path(), &body);
            async move { answer }
        };
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
        Arc::new(Self { url, inner })
    }

    /// Puts a block on top; from now on it is served.
    pub fn mine(&self, time_ms: u64) {
        let mut state = self.inner.state.lock().unwrap();
        let number = FIRST + state.blocks.len() as u64;
        let parent = state.blocks.last().map_or_else(|| format!("{:016x}{}", number - 1, "0".repeat(48)), |block| block.id.clone());
        let id = match self.inner.kind {
            Kind::Tron => tron_id(number, time_ms, &parent),
            Kind::Evm => format!("{number:016x}{time_ms:048x}"),
        };
        state.blocks.push(Made { id, parent, time_ms, served: Instant::now() });
    }

    /// When a block was served first.
    pub fn served(&self, number: u64) -> Option<Instant> {
        let state = self.inner.state.lock().unwrap();
        state.blocks.get(number.checked_sub(FIRST)? as usize).map(|block| block.served)
    }

    pub fn head(&self) -> u64 {
        FIRST + self.inner.state.lock().unwrap().blocks.len() as u64 - 1
    }

    /// What was asked since the last time: how often each question.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.inner.state.lock().unwrap().calls)
    }
}

impl State {
    fn head(&self) -> u64 {
        FIRST + self.blocks.len() as u64 - 1
    }

    fn block(&self, number: u64) -> Option<&Made> {
        self.blocks.get(usize::try_from(number.checked_sub(FIRST)?).ok()?)
    }

    fn count(&mut self, question: &str) {
        *self.calls.entry(question.to_owned()).or_default() += 1;
    }
}

impl Inner {
    fn pays_in(&self, number: u64) -> Option<Address> {
        self.pays.filter(|pays| number.is_multiple_of(pays.every)).map(|pays| pays.to)
    }

    fn answer(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        match (self.kind, &asked) {
            (Kind::Tron, _) => self.tron(path, &asked),
            (Kind::Evm, Value::Array(calls)) => Value::Array(calls.iter().map(|call| self.evm(call)).collect()).to_string().into_bytes(),
            (Kind::Evm, call) => self.evm(call).to_string().into_bytes(),
        }
    }

    fn tron(&self, path: &str, asked: &Value) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        let (view, call) = path.trim_start_matches('/').split_once('/').unwrap();
        state.count(call);
        let top = if view == "walletsolidity" { state.head().saturating_sub(FINAL_BEHIND) } else { state.head() };
        match call {
            "getblock" => {
                let number = asked["id_or_num"].as_str().map_or(top, |text| text.parse().unwrap());
                if number == 0 {
                    return tron_genesis();
                }
                state.block(number).filter(|_| number <= top).map_or_else(|| b"{}".to_vec(), |block| tron_header(number, block))
            }
            "gettransactioninfobyblocknum" => {
                let number = asked["num"].as_u64().unwrap();
                let Some(time_ms) = state.block(number).filter(|_| number <= top).map(|block| block.time_ms) else { return b"[]".to_vec() };
                drop(state);
                self.templates[(number % 2) as usize].fill(number, time_ms, self.pays_in(number))
            }
            "getchainparameters" => json!({ "chainParameter": [
                { "key": "getCreateAccountFee", "value": 100_000 }, { "key": "getTransactionFee", "value": 1_000 },
                { "key": "getCreateNewAccountFeeInSystemContract", "value": 1_000_000 }, { "key": "getEnergyFee", "value": 100 }] })
            .to_string()
            .into_bytes(),
            "triggerconstantcontract" => {
                let word = match asked["function_selector"].as_str() {
                    Some("symbol()") => format!("{:064x}{:064x}{:0<64}", 32, 4, hex::encode("USDT")),
                    Some("decimals()") => format!("{:064x}", 6),
                    _ => {
                        let message = hex::encode("REVERT opcode executed");
                        return json!({ "result": { "result": true, "message": message }, "constant_result": [""] }).to_string().into();
                    }
                };
                json!({ "result": { "result": true }, "energy_used": 2_207, "constant_result": [word] }).to_string().into_bytes()
            }
            _ => json!({ "Error": format!("{call} is not here") }).to_string().into_bytes(),
        }
    }

    fn evm(&self, call: &Value) -> Value {
        let mut state = self.state.lock().unwrap();
        let (method, params) = (call["method"].as_str().unwrap(), &call["params"]);
        state.count(method);
        let quantity = |text: &Value| u64::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        let numbered = |text: &Value| match text.as_str().unwrap() {
            "latest" => state.head(),
            "finalized" => state.head().saturating_sub(FINAL_BEHIND).max(FIRST),
            _ => quantity(text),
        };
        let hashed = |text: &Value| u64::from_str_radix(&text.as_str().unwrap()[2..18], 16).unwrap();
        let logs = |number: u64| {
            let block = state.block(number)?;
            self.pays_in(number).map(|to| evm_log(number, &block.id, to))
        };
        let answer = match method {
            "eth_chainId" => json!(hex_of(EVM_CHAIN)),
            "eth_getBlockByNumber" => {
                let number = numbered(&params[0]);
                state.block(number).map_or(Value::Null, |block| {
                    let transactions: Vec<Value> = logs(number).iter().map(|log| log["transactionHash"].clone()).collect();
                    json!({ "number": hex_of(number), "hash": format!("0x{}", block.id), "parentHash": format!("0x{}", block.parent),
                        "timestamp": hex_of(block.time_ms / 1_000), "transactions": transactions })
                })
            }
            "eth_getLogs" => match &params[0]["blockHash"] {
                Value::Null => {
                    json!((numbered(&params[0]["fromBlock"])..=numbered(&params[0]["toBlock"])).filter_map(logs).collect::<Vec<_>>())
                }
                hash => json!(logs(hashed(hash)).into_iter().collect::<Vec<_>>()),
            },
            "eth_getBlockReceipts" => {
                let receipt = |log: Value| {
                    json!({ "blockHash": log["blockHash"], "blockNumber": log["blockNumber"],
                    "transactionHash": log["transactionHash"], "status": "0x1", "logs": [log] })
                };
                json!(logs(hashed(&params[0])).map(receipt).into_iter().collect::<Vec<_>>())
            }
            "eth_call" => match params[0]["data"].as_str().unwrap() {
                "0x95d89b41" => json!(format!("0x{:064x}{:064x}{:0<64}", 32, 4, hex::encode("USDT"))),
                "0x313ce567" => json!(format!("0x{:064x}", 6)),
                _ => json!("0x"),
            },
            _ => {
                let error = json!({ "code": -32_601, "message": format!("the method {method} does not exist/is not available") });
                return json!({ "jsonrpc": "2.0", "id": call["id"], "error": error });
            }
        };
        json!({ "jsonrpc": "2.0", "id": call["id"], "result": answer })
    }
}

fn hex_of(number: u64) -> String {
    format!("{number:#x}")
}

fn evm_log(number: u64, block: &str, to: Address) -> Value {
    json!({ "address": EVM_TOKEN.to_lowercase(), "topics": [format!("0x{TRANSFER}"), format!("0x{:0>64}", "aa".repeat(20)),
        format!("0x{:0>64}", hex::encode(to.0))], "data": format!("0x{:064x}", 12_500_000), "blockNumber": hex_of(number),
        "blockHash": format!("0x{block}"), "transactionHash": format!("0x{number:064x}"), "transactionIndex": "0x0",
        "logIndex": "0x0", "removed": false })
}

const ROOT: &str = "a01cc1caab3606554ac376bb579415280dea3bdcfd8180b3551d47c8f0f5410c";
const WITNESS: &str = "412a4d700c196a78f8ff7f0bf17d93fe6018396d2e";

/// The number, and the last 24 bytes of the hash of the raw header (`BlockCapsule.BlockId`).
fn tron_id(number: u64, time_ms: u64, parent: &str) -> String {
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 128 {
            bytes.push(value as u8 | 128);
            value >>= 7;
        }
        bytes.push(value as u8);
        hex::encode(bytes)
    };
    let raw = format!("08{}1220{ROOT}1a20{parent}38{}4a15{WITNESS}501d", varint(time_ms), varint(number));
    let digest = hex::encode(Sha256::digest(hex::decode(raw).unwrap()));
    format!("{number:016x}{}", &digest[16..])
}

fn tron_header(number: u64, block: &Made) -> Vec<u8> {
    format!(
        r#"{{"blockID":"{}","block_header":{{"raw_data":{{"number":{number},"txTrieRoot":"{ROOT}","witness_address":"{WITNESS}","parentHash":"{}","version":29,"timestamp":{}}},"witness_signature":"{}"}}}}"#,
        block.id,
        block.parent,
        block.time_ms,
        "f5".repeat(65)
    )
    .into_bytes()
}

fn tron_genesis() -> Vec<u8> {
    let witness = hex::encode("A new system must allow existing systems to be linked together");
    json!({ "blockID": GENESIS, "block_header": { "raw_data": { "txTrieRoot": "d6".repeat(32), "parentHash": "e5".repeat(32),
        "witness_address": witness } } })
    .to_string()
    .into_bytes()
}

/// The infos of a recorded block, and where in them stands what differs from block to block. All of
/// it keeps its width.
struct Template {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    times: Vec<usize>,
    ids: Vec<usize>,
    /// The recipient of one transfer of the token, as 40 hex digits.
    payee: usize,
}

impl Template {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../chain/tests/data/tron/{name}.json"));
        let infos: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let bytes = infos.to_string().into_bytes();
        let after = |key: &str| -> Vec<usize> {
            let found = bytes.windows(key.len()).enumerate().filter(|(_, window)| *window == key.as_bytes());
            found.map(|(at, _)| at + key.len()).collect()
        };
        // Behind the topic: the sender's, and twelve empty bytes of the recipient's.
        let payee = after(TRANSFER)[0] + r#"",""#.len() + 64 + r#"",""#.len() + 24;
        let (numbers, times, ids) = (after(r#""blockNumber":"#), after(r#""blockTimeStamp":"#), after(r#""id":""#));
        Self { numbers, times, ids, payee, bytes }
    }

    fn fill(&self, number: u64, time_ms: u64, payee: Option<Address>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut put = |places: &[usize], text: &str| {
            for at in places {
                bytes[*at..][..text.len()].copy_from_slice(text.as_bytes());
            }
        };
        put(&self.numbers, &format!("{number:08}"));
        put(&self.times, &format!("{time_ms:013}"));
        put(&self.ids, &format!("{number:016x}"));
        if let Some(payee) = payee {
            put(&[self.payee], &hex::encode(payee.0));
        }
        bytes
    }
}
