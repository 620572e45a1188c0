//! JSON-RPC 2.0 on one endpoint: single calls, batches where they are accepted, and what the many
//! providers mean by their errors.
//!
//! Providers share codes but not meanings (-32005 is "too many results" here and "too many
//! requests" there), so a meaning is read from the code and the words together. The words below
//! are those of real answers; tests/data/evm/provider_error_captures.json holds them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::endpoints::{Endpoint, Failure};

/// The most calls that are put into one batch.
pub(super) const BATCH_MAX: u32 = 50;

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) params: Value,
}

/// What an endpoint said to a call: the result as it came, `null` included, or its error.
pub(super) type Told = Result<Box<RawValue>, RpcError>;

/// An `error` object.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RpcError {
    #[serde(default)]
    pub(super) code: i64,
    #[serde(default)]
    pub(super) message: String,
}

/// What an error means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Ask for fewer blocks.
    TooMuch,
    /// The endpoint does not have that block (yet).
    NoSuchBlock,
    /// The endpoint does not have that method.
    NotOffered,
    /// Later.
    Busy,
    /// The key is wrong, or has no right to this.
    Forbidden,
    /// Anything else.
    Other,
}

impl RpcError {
    pub(super) fn meaning(&self) -> Meaning {
        let text = self.message.to_ascii_lowercase();
        let says = |any: &[&str]| any.iter().any(|words| text.contains(words));
        // The order matters: "extends beyond current head" also speaks of a "block range".
        if self.code == -39_001 || says(&NO_SUCH_BLOCK) {
            Meaning::NoSuchBlock
        } else if says(&TOO_MUCH) {
            Meaning::TooMuch
        } else if matches!(self.code, 429 | -32_029) || says(&BUSY) {
            Meaning::Busy
        } else if self.code == -32_601 || says(&NOT_OFFERED) {
            Meaning::NotOffered
        } else if says(&FORBIDDEN) {
            Meaning::Forbidden
        } else if self.code == -32_005 {
            Meaning::Busy
        } else {
            Meaning::Other
        }
    }

    /// True when the contract itself refused: the call was made, and it gave up. Code 3 is geth's,
    /// -32015 that of Parity and its heirs.
    pub(super) fn is_reverted(&self) -> bool {
        let text = self.message.to_ascii_lowercase();
        matches!(self.code, 3 | -32_015) || ["revert", "invalid opcode", "invalid jump"].iter().any(|words| text.contains(words))
    }

    /// This error as a failure of the endpoint, for a call that should have been answered.
    pub(super) fn failure(&self, method: &str) -> Failure {
        let text = format!("{method}: {} ({})", self.message, self.code);
        match self.meaning() {
            Meaning::NoSuchBlock => Failure::Behind(text),
            Meaning::NotOffered => Failure::NotOffered(text),
            Meaning::Forbidden => Failure::Permanent(text),
            Meaning::TooMuch | Meaning::Busy | Meaning::Other => Failure::transient(text),
        }
    }
}

const NO_SUCH_BLOCK: [&str; 8] = [
    "beyond current head",
    "unknown block",
    "block not found",
    "header not found",
    "header for hash not found",
    "invalid blockhash",
    "cannot find block",
    "after last accepted block",
];
const TOO_MUCH: [&str; 16] = [
    "max block range",
    "max results",
    "more than 10000 results",
    "query returned more than",
    "too many results",
    "response size",
    "response is too big",
    "range is too large",
    "range too large",
    "range too wide",
    "block range is",
    "blocks range",
    "block range",
    "block ranges",
    "ranges over",
    "up to a",
];
const BUSY: [&str; 7] =
    ["rate limit", "too many requests", "compute units", "request count exceeded", "exceeded the quota", "capacity", "throttle"];
const NOT_OFFERED: [&str; 5] = ["does not exist", "method not found", "not supported", "not available", "method not allowed"];
const FORBIDDEN: [&str; 4] = ["unauthorized", "invalid api key", "invalid project id", "must be authenticated"];

/// Calls on endpoints, and what was learned about the batches that each one accepts.
#[derive(Debug)]
pub(super) struct Rpc {
    batches: Vec<Learned>,
}

impl Rpc {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { batches: (0..endpoints).map(|_| Learned::up_to(BATCH_MAX)).collect() }
    }

    /// One call.
    pub(super) async fn one(&self, endpoint: &Endpoint, call: &Call) -> Result<Told, Failure> {
        read_reply(&endpoint.post("", &Request::new(0, call), 1).await?)
    }

    /// Many calls, answered in their order: in batches as large as the endpoint accepts, one by
    /// one where it accepts none.
    pub(super) async fn many(&self, endpoint: &Endpoint, calls: &[Call]) -> Result<Vec<Told>, Failure> {
        let mut told = Vec::with_capacity(calls.len());
        let mut left = calls;
        while let [first, ..] = left {
            let learned = self.batches.get(endpoint.index());
            let size = learned.map_or(1, Learned::get).min(u32::try_from(left.len()).unwrap_or(u32::MAX));
            let (now, later) = left.split_at_checked(size as usize).unwrap_or((left, &[]));
            if size <= 1 {
                told.push(self.one(endpoint, first).await?);
            } else if let Some(answers) = batch(endpoint, now).await? {
                told.extend(answers);
                if let Some(learned) = learned {
                    learned.served(size);
                }
            } else {
                if let Some(learned) = learned {
                    learned.refused(size);
                }
                continue;
            }
            left = if size <= 1 { left.get(1..).unwrap_or_default() } else { later };
        }
        Ok(told)
    }
}

/// One batch; `None` when the endpoint does not take a batch of this size.
async fn batch(endpoint: &Endpoint, calls: &[Call]) -> Result<Option<Vec<Told>>, Failure> {
    let requests: Vec<Request> = (0..).zip(calls).map(|(id, call)| Request::new(id, call)).collect();
    read_batch(&endpoint.post("", &requests, u32::try_from(calls.len()).unwrap_or(u32::MAX)).await?, calls)
}

/// The answer to one call.
pub(super) fn read_reply(answer: &[u8]) -> Result<Told, Failure> {
    let reply: Reply = serde_json::from_slice(answer).map_err(|error| garbled(&error))?;
    reply.told()
}

/// The answers to the calls of a batch, in the order of the calls; `None` as in [`batch`].
pub(super) fn read_batch(answer: &[u8], calls: &[Call]) -> Result<Option<Vec<Told>>, Failure> {
    if matches!(answer.trim_ascii_start().first(), Some(b'{')) {
        // One answer to many questions: an error about the batch itself.
        return match read_reply(answer)? {
            Err(error) if matches!(error.meaning(), Meaning::Busy | Meaning::Forbidden) => Err(error.failure("batch")),
            Err(_) => Ok(None),
            Ok(_) => Err(Failure::transient("one answer to a batch of calls")),
        };
    }
    let replies: Vec<Reply> = serde_json::from_slice(answer).map_err(|error| garbled(&error))?;
    // JSON-RPC lets the answers come in any order.
    let mut by_id: HashMap<u64, Reply> = HashMap::with_capacity(replies.len());
    for reply in replies {
        let id = reply.id.and_then(|id| id.get().parse().ok());
        if id.is_none_or(|id| by_id.insert(id, reply).is_some()) {
            return Err(Failure::transient("an answer in a batch that nobody asked for"));
        }
    }
    let in_order = (0..).zip(calls).map(|(id, call)| match by_id.remove(&id) {
        Some(reply) => reply.told(),
        None => Err(Failure::transient(format!("no answer to {} in a batch", call.method))),
    });
    in_order.collect::<Result<_, _>>().map(Some)
}

fn garbled(error: &serde_json::Error) -> Failure {
    Failure::transient(format!("expected a JSON-RPC answer, found something unreadable ({error})"))
}

#[derive(Serialize)]
struct Request<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'static str,
    params: &'a Value,
}

impl<'a> Request<'a> {
    fn new(id: u64, call: &'a Call) -> Self {
        Self { jsonrpc: "2.0", id, method: call.method, params: &call.params }
    }
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    result: Option<&'a RawValue>,
    error: Option<RpcError>,
}

impl Reply<'_> {
    fn told(self) -> Result<Told, Failure> {
        match (self.result, self.error) {
            (_, Some(error)) => Ok(Err(error)),
            (Some(result), None) => Ok(Ok(result.to_owned())),
            (None, None) => Err(Failure::transient("an answer with neither result nor error")),
        }
    }
}

/// `"result": null` is an answer ("there is no such block"); no `result` at all is not one.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A size that an endpoint bears, learned from its refusals: halved by each, and grown by a
/// thirty-second when all of it was used and served, up to the most that we would ask for.
#[derive(Debug)]
pub(super) struct Learned {
    now: AtomicU32,
    most: u32,
}

impl Learned {
    pub(super) fn up_to(most: u32) -> Self {
        let most = most.max(1);
        Self { now: AtomicU32::new(most), most }
    }

    pub(super) fn get(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self, size: u32) {
        self.now.store(size.wrapping_div(2).max(1), Ordering::Relaxed);
    }

    pub(super) fn served(&self, size: u32) {
        let now = self.get();
        if size >= now {
            let grown = now.saturating_add(now.wrapping_div(32).max(1));
            self.now.store(grown.min(self.most), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_captured_error_means_what_it_says() {
        let captures: HashMap<String, Value> =
            serde_json::from_str(include_str!("../../tests/data/evm/provider_error_captures.json")).unwrap();
        let mut left: Vec<_> = captures.keys().map(String::as_str).collect();
        let table = "
            infura_too_many_results      TooMuch
            alchemy_log_response_size    TooMuch
            geth_future_range_2026_spec  NoSuchBlock
            max_block_range              TooMuch
            range_1k                     TooMuch
            drpc_free                    TooMuch
            blockpi                      TooMuch
            max_results                  TooMuch";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, expected) = line.split_once(char::is_whitespace).unwrap();
            let error: RpcError = serde_json::from_value(captures[name]["error"].clone()).unwrap();
            assert_eq!(format!("{:?}", error.meaning()), expected.trim(), "{name}");
            left.retain(|left| *left != name);
        }
        assert!(left.is_empty(), "captures without an expectation: {left:?}");
    }

    #[test]
    fn other_errors_of_the_wild() {
        let table = [
            (-32_005, "daily request count exceeded, request rate limited", Meaning::Busy),
            (-32_005, "limit exceeded", Meaning::Busy),
            (429, "Your app has exceeded its compute units per second capacity", Meaning::Busy),
            (-32_601, "the method eth_getBlockReceipts does not exist/is not available", Meaning::NotOffered),
            (-32_000, "unknown block", Meaning::NoSuchBlock),
            (-32_602, "invalid blockHash", Meaning::NoSuchBlock),
            (-39_001, "Unknown block", Meaning::NoSuchBlock),
            (-32_602, "exceed max block range: 5000", Meaning::TooMuch),
            (-32_000, "invalid project id", Meaning::Forbidden),
            (-32_000, "missing trie node", Meaning::Other),
            (3, "execution reverted", Meaning::Other),
        ];
        for (code, message, expected) in table {
            let error = RpcError { code, message: message.into() };
            assert_eq!(error.meaning(), expected, "{message}");
        }
    }

    #[test]
    fn only_a_contract_reverts() {
        let table = [
            (3, "execution reverted", true),
            (-32_000, "execution reverted", true),
            (-32_015, "VM execution error.", true),
            (-32_603, "Error: VM Exception while processing transaction: reverted without a reason", true),
            (-32_000, "invalid opcode: INVALID", true),
            (-32_000, "missing trie node", false),
            (-32_000, "execution timeout", false),
            (-32_000, "header not found", false),
            (-32_601, "the method eth_call does not exist/is not available", false),
        ];
        for (code, message, expected) in table {
            assert_eq!(RpcError { code, message: message.into() }.is_reverted(), expected, "{message}");
        }
    }

    #[test]
    fn a_size_is_halved_by_a_refusal_and_grows_back_slowly() {
        let learned = Learned::up_to(1_000);
        learned.refused(1_000);
        assert_eq!(learned.get(), 500);
        learned.served(20);
        assert_eq!(learned.get(), 500, "a small answer proves nothing");
        for _ in 0..100 {
            learned.served(learned.get());
        }
        assert_eq!(learned.get(), 1_000);
        for _ in 0..20 {
            learned.refused(learned.get());
        }
        assert_eq!(learned.get(), 1, "one block can always be asked for");
    }
}
