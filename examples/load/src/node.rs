//! A simulated EVM chain that answers JSON-RPC as a node does, so that several `tidegate serve` can
//! follow one chain. It makes a block at its rhythm and puts into it what was paid meanwhile; it
//! never forks and never lies (the tests have nodes that do).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::now_ms;

/// `Transfer(address,address,uint256)`.
const TRANSFER: &str = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// The token's contract: made up, as the chain is.
pub const TOKEN: &str = "0x00000000000000000000000000000000000051d7";

/// How far the final head is behind.
const FINAL_BEHIND: usize = 18;

/// Transfers that one block takes; the others wait for the next.
const TRANSFERS_PER_BLOCK_MAX: usize = 2_000;

/// What a chain is.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// What `eth_chainId` answers.
    pub chain_id: u64,
    /// The decimals of its token.
    pub decimals: u32,
    /// From one block to the next.
    pub block_time: Duration,
}

/// A node that answers until it is dropped.
pub struct Node {
    /// Where it answers.
    pub url: String,
    chain: Chain,
    state: Arc<Mutex<State>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct State {
    blocks: Vec<Block>,
    numbers: HashMap<String, usize>,
    waiting: Vec<Transfer>,
    transfers: u64,
}

struct Block {
    hash: String,
    time_s: u64,
    logs: Vec<Value>,
}

struct Transfer {
    to: String,
    raw: u128,
}

impl Node {
    /// Starts the chain and answers at `listen`.
    ///
    /// # Errors
    /// With a sentence, when the address is taken.
    pub async fn start(chain: Chain, listen: &str) -> Result<Self, String> {
        let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
        let url = format!("http://{}", listener.local_addr().map_err(|error| error.to_string())?);
        let state = Arc::new(Mutex::new(State::default()));
        locked(&state).mine(chain);
        let (asked, mined) = (Arc::clone(&state), Arc::clone(&state));
        let answer = move |body: Bytes| {
            let answer = answer(chain, &asked, &body);
            async move { answer }
        };
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, Router::new().fallback(answer)).await;
        });
        let miner = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(chain.block_time);
            loop {
                ticks.tick().await;
                locked(&mined).mine(chain);
            }
        });
        Ok(Self { url, chain, state, tasks: [server, miner] })
    }

    /// Pays `micros` millionths of the token to an address, in the next block.
    pub fn pay(&self, to: &str, micros: u64) {
        let unit = 10_u128.saturating_pow(self.chain.decimals.saturating_sub(6));
        let raw = u128::from(micros).saturating_mul(unit);
        locked(&self.state).waiting.push(Transfer { to: to.trim_start_matches("0x").to_lowercase(), raw });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Puts a block on top.
    fn mine(&mut self, chain: Chain) {
        let (number, time_s) = (self.blocks.len(), now_ms() / 1_000);
        let parent = self.blocks.last().map_or("", |block| block.hash.as_str());
        let hash = hash_of(&format!("{}/{number}/{time_s}/{parent}", chain.chain_id));
        let room = self.waiting.len().min(TRANSFERS_PER_BLOCK_MAX);
        let mut logs = Vec::with_capacity(room);
        for (index, transfer) in self.waiting.drain(..room).enumerate() {
            self.transfers += 1;
            logs.push(json!({
                "address": TOKEN,
                "topics": [format!("0x{TRANSFER}"), format!("0x{:0>64}", "aa".repeat(20)), format!("0x{:0>64}", transfer.to)],
                "data": format!("{:#066x}", transfer.raw), "blockNumber": quantity(number), "blockHash": hash,
                "transactionHash": hash_of(&format!("{}/transfer/{}", chain.chain_id, self.transfers)),
                "transactionIndex": quantity(index), "logIndex": quantity(index), "removed": false,
            }));
        }
        self.numbers.insert(hash.clone(), number);
        self.blocks.push(Block { hash, time_s, logs });
    }

    fn number(&self, named: &Value) -> Option<usize> {
        let top = self.blocks.len().saturating_sub(1);
        match named.as_str()? {
            "latest" => Some(top),
            "finalized" | "safe" => Some(top.saturating_sub(FINAL_BEHIND)),
            number => usize::from_str_radix(number.strip_prefix("0x")?, 16).ok(),
        }
    }

    fn header(&self, number: usize) -> Value {
        let Some(block) = self.blocks.get(number) else { return Value::Null };
        let none = format!("0x{:064x}", 0);
        let parent = number.checked_sub(1).and_then(|below| self.blocks.get(below)).map_or(none, |block| block.hash.clone());
        let transactions: Vec<&Value> = block.logs.iter().filter_map(|log| log.get("transactionHash")).collect();
        json!({ "number": quantity(number), "hash": block.hash, "parentHash": parent,
            "timestamp": format!("{:#x}", block.time_s), "transactions": transactions })
    }

    fn logs(&self, filter: &Value) -> Value {
        let range = match filter.get("blockHash").and_then(Value::as_str) {
            Some(hash) => self.numbers.get(hash).map(|number| *number..=*number),
            None => self.number(&filter["fromBlock"]).zip(self.number(&filter["toBlock"])).map(|(from, to)| from..=to),
        };
        let blocks = range.and_then(|range| self.blocks.get(*range.start()..=(*range.end()).min(self.blocks.len().saturating_sub(1))));
        blocks.unwrap_or_default().iter().flat_map(|block| block.logs.clone()).collect()
    }

    fn receipts(&self, named: &Value) -> Value {
        let number = named.as_str().and_then(|hash| self.numbers.get(hash).copied()).or_else(|| self.number(named));
        let Some(block) = number.and_then(|number| self.blocks.get(number)) else { return Value::Null };
        let receipt = |log: &Value| {
            json!({ "blockHash": log["blockHash"], "blockNumber": log["blockNumber"], "transactionHash": log["transactionHash"],
                "status": "0x1", "logs": [log] })
        };
        block.logs.iter().map(receipt).collect()
    }
}

fn quantity(number: usize) -> String {
    format!("{number:#x}")
}

fn hash_of(text: &str) -> String {
    format!("0x{}", hex::encode(Sha256::digest(text)))
}

/// Answers one call, or a batch of them.
fn answer(chain: Chain, state: &Mutex<State>, body: &[u8]) -> String {
    let state = locked(state);
    match serde_json::from_slice(body).unwrap_or_default() {
        Value::Array(calls) => Value::Array(calls.iter().map(|call| answer_one(chain, &state, call)).collect()).to_string(),
        call => answer_one(chain, &state, &call).to_string(),
    }
}

fn answer_one(chain: Chain, state: &State, call: &Value) -> Value {
    let (method, first) = (call["method"].as_str().unwrap_or_default(), &call["params"][0]);
    let result = match method {
        "eth_chainId" => json!(format!("{:#x}", chain.chain_id)),
        "eth_blockNumber" => json!(quantity(state.blocks.len().saturating_sub(1))),
        "eth_gasPrice" => json!("0x3b9aca00"),
        "eth_getBlockByNumber" => state.number(first).map_or(Value::Null, |number| state.header(number)),
        "eth_getLogs" => state.logs(first),
        "eth_getBlockReceipts" => state.receipts(first),
        "eth_call" => json!(token_says(chain, first["data"].as_str().or(first["input"].as_str()).unwrap_or_default())),
        _ => {
            let error = json!({ "code": -32_601, "message": format!("the method {method} does not exist/is not available") });
            return json!({ "jsonrpc": "2.0", "id": call["id"], "error": error });
        }
    };
    json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })
}

/// What the token's contract answers: its symbol and its decimals.
fn token_says(chain: Chain, data: &str) -> String {
    let mut words = "0x".to_owned();
    let _ = match data {
        "0x95d89b41" => write!(words, "{:064x}{:064x}{:0<64}", 32, 4, hex::encode("USDT")),
        "0x313ce567" => write!(words, "{:064x}", chain.decimals),
        _ => Ok(()),
    };
    words
}
