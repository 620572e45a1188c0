//! What a TRON node says, taken apart: block headers and the transaction infos of a block.
//!
//! Everything here is pure. It must never take silence for emptiness: java-tron answers `[]` for
//! an empty block, for a block that it does not have, and when something broke inside. And it must
//! never take a log for money: a transaction that ran out of time keeps its logs (VMActuator does
//! not clear them for OutOfTimeException), so the receipt's result is looked at first.
//!
//! Protobuf leaves default values out of the JSON: no `number` is block 0, no `result` is success.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use tidegate_rules::block::{Address, Block, BlockRef, Hash};
use tidegate_rules::time::Time;

use super::address::{format_address, parse_address};
use crate::endpoints::{Failure, suspended_for};
use crate::transaction::reason;
use crate::transfer_log::{Found, Kind};

/// A block's header, its id recomputed where the node served every field that goes into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its place in the chain.
    pub at: BlockRef,
    /// True when the header itself says that there is no transaction in the block: the root of
    /// their tree is zero (BlockCapsule.calcMerkleRoot).
    pub is_empty: bool,
}

/// Reads the answer to `getblock`; `None` when the node does not have the block (`{}`).
///
/// # Errors
/// When the answer is an error, is not a header, or is one that contradicts itself.
pub fn parse_header(answer: &[u8]) -> Result<Option<Header>, Failure> {
    let block: BlockJson = serde_json::from_slice(answer).map_err(|error| unreadable("a block", answer, &error))?;
    let (Some(id), Some(header)) = (block.id, block.header) else {
        if is_nothing(answer) {
            return Ok(None);
        }
        return Err(complaint(answer).unwrap_or_else(|| garbled("a block", answer)));
    };
    let raw = header.raw_data;
    let hash: Hash = id.parse().map_err(|_| garbled("a block id", answer))?;
    let parent: Hash = raw.parent.parse().map_err(|_| garbled("a parent hash", answer))?;
    check_id(&raw, hash)?;
    let at = BlockRef { number: raw.number, hash, parent, time: Time::from_millis(raw.timestamp) };
    let is_empty = raw.tx_trie_root.len() == 64 && raw.tx_trie_root.bytes().all(|digit| digit == b'0');
    Ok(Some(Header { at, is_empty }))
}

/// Reads the answer to `gettransactioninfobyblocknum` for the block of `header`: every transfer
/// of `token` that a successful transaction made, the logs that should have been one, and what
/// the contract said of itself.
///
/// # Errors
/// When the answer is an error, or is not whole, or is another block's.
pub fn parse_infos(answer: &[u8], header: &Header, token: &Address) -> Result<Block, Failure> {
    if !matches!(answer.trim_ascii_start().first(), Some(b'[')) {
        return Err(complaint(answer).unwrap_or_else(|| garbled("transaction infos", answer)));
    }
    let infos: Vec<Info> = serde_json::from_slice(answer).map_err(|error| unreadable("transaction infos", answer, &error))?;
    let number = header.at.number;
    if infos.is_empty() != header.is_empty {
        return Err(Failure::transient(if header.is_empty {
            format!("there are transaction infos for block {number}, whose header says that it is empty")
        } else {
            format!("there are no transaction infos for block {number}, whose header says that it is not empty")
        }));
    }
    let token = Forms::of(token);
    let mut found = Found::default();
    let mut with_logs = HashSet::new();
    for info in &infos {
        if info.number != number || (info.time != 0 && info.time != header.at.time.millis()) {
            let other = info.number;
            return Err(Failure::transient(format!("asked for the infos of block {number}, got some of block {other}")));
        }
        let mut logs = info.logs_of(&token).peekable();
        if logs.peek().is_none() {
            continue;
        }
        let tx_hash: Hash = info.id.parse().map_err(|_| garbled("a transaction id", info.id.as_bytes()))?;
        if !with_logs.insert(tx_hash) {
            return Err(Failure::transient(format!("transaction {tx_hash} is twice in block {number}")));
        }
        let mut ordinal = 0;
        for (kind, log) in logs {
            found.push(kind, tx_hash, &mut ordinal, &log.topics, log.data);
        }
    }
    Ok(found.into_block(header.at))
}

/// Reads the answer to `getnodeinfo` for the newest block that the node holds solid, its height and
/// its hash; `None` when it does not say. It says `Num:71553985,ID:000000000443d3c1…`.
///
/// # Errors
/// When the answer is an error or is garbled.
pub(super) fn parse_solid(answer: &[u8]) -> Result<Option<(u64, Hash)>, Failure> {
    let info: NodeInfoJson = serde_json::from_slice(answer).map_err(|error| unreadable("what a node says of itself", answer, &error))?;
    let Some(solid) = info.solid.filter(|text| !text.is_empty()) else {
        return complaint(answer).map_or(Ok(None), Err);
    };
    let read = || {
        let (number, id) = solid.strip_prefix("Num:")?.split_once(",ID:")?;
        Some((number.parse().ok()?, id.parse().ok()?))
    };
    read().map(Some).ok_or_else(|| garbled("a solid block", solid.as_bytes()))
}

/// What became of one transaction, as `gettransactioninfobyid` says it.
pub(super) struct Executed {
    pub(super) number: u64,
    /// The time of its block: there is no hash of it in the answer.
    pub(super) time: Time,
    pub(super) outcome: Executions,
    pub(super) found: Found,
}

/// Whether a transaction did what it says.
pub(super) enum Executions {
    Succeeded,
    /// With the reason, in the chain's own words.
    Failed(String),
}

/// Reads the answer to `gettransactioninfobyid` for the transaction `of`; `None` for `{}`.
///
/// # Errors
/// When the answer is an error, is garbled, or is about another transaction.
pub(super) fn parse_info(answer: &[u8], of: Hash, token: &Address) -> Result<Option<Executed>, Failure> {
    if is_nothing(answer) {
        return Ok(None);
    }
    let info: Info = serde_json::from_slice(answer).map_err(|error| unreadable("a transaction info", answer, &error))?;
    if info.id.is_empty() {
        return Err(complaint(answer).unwrap_or_else(|| garbled("a transaction info", answer)));
    }
    if info.id.parse() != Ok(of) {
        return Err(Failure::transient(format!("asked for the info of transaction {of}, got one of {}", info.id)));
    }
    let token = Forms::of(token);
    let (mut found, mut ordinal) = (Found::default(), 0);
    for (kind, log) in info.logs_of(&token) {
        found.push(kind, of, &mut ordinal, &log.topics, log.data);
    }
    let outcome = info.failure().map_or(Executions::Succeeded, Executions::Failed);
    Ok(Some(Executed { number: info.number, time: Time::from_millis(info.time), outcome, found }))
}

/// A transaction as it was sent.
pub(super) struct Sent {
    /// Whose contract call, or whatever else, it is. Another key than this account's may have
    /// signed it.
    pub(super) owner: Option<Address>,
    /// The call data, if it calls the token.
    pub(super) to_token: Option<Vec<u8>>,
}

/// Reads the answer to `gettransactionbyid` or `gettransactionfrompending` for the transaction
/// `of`; `None` for `{}`.
///
/// # Errors
/// As [`parse_info`].
pub(super) fn parse_sent(answer: &[u8], of: Hash, token: &Address) -> Result<Option<Sent>, Failure> {
    if is_nothing(answer) {
        return Ok(None);
    }
    let sent: SentJson = serde_json::from_slice(answer).map_err(|error| unreadable("a transaction", answer, &error))?;
    let (Some(id), Some(raw)) = (sent.id, sent.raw_data) else {
        return Err(complaint(answer).unwrap_or_else(|| garbled("a transaction", answer)));
    };
    if id.parse() != Ok(of) {
        return Err(Failure::transient(format!("asked for transaction {of}, got {id}")));
    }
    // There is exactly one, in spite of the list (java-tron TransactionCapsule.validContractProto).
    let Some(contract) = raw.contract.into_iter().next() else { return Ok(Some(Sent { owner: None, to_token: None })) };
    let value = contract.parameter.value;
    let token = Forms::of(token);
    let is_call = contract.kind == "TriggerSmartContract" && value.contract_address.is_some_and(|text| token.is(&text));
    let to_token = value.data.filter(|_| is_call).and_then(|data| hex::decode(data.as_bytes()).ok());
    Ok(Some(Sent { owner: value.owner_address.and_then(|text| party(&text)), to_token }))
}

/// An address as a node writes it: `41` and forty hex digits, or base58 (`visible: true`).
fn party(text: &str) -> Option<Address> {
    let digits = text.strip_prefix("41").filter(|digits| digits.len() == 40);
    digits.map_or_else(|| parse_address(text), |digits| hex::decode_to_array(digits).ok().map(Address))
}

/// `[]`, whatever it means.
pub(super) fn is_empty_list(answer: &[u8]) -> bool {
    answer.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b"[]")
}

/// `{}`: the node does not have what was asked for.
fn is_nothing(answer: &[u8]) -> bool {
    answer.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b"{}")
}

/// Reads the answer to `triggerconstantcontract`: what the contract returned, or why it did not.
/// `result.result` is true for calls that revert, too; the message tells them apart.
///
/// # Errors
/// When the answer is an error of the node or is garbled.
pub(super) fn parse_constant(answer: &[u8]) -> Result<Result<Vec<u8>, String>, Failure> {
    let called: Called = serde_json::from_slice(answer).map_err(|error| unreadable("a call", answer, &error))?;
    let Some(outcome) = called.result else {
        return Err(complaint(answer).unwrap_or_else(|| garbled("a call", answer)));
    };
    if let Some(message) = outcome.message {
        return Ok(Err(text_of(&message)));
    }
    if called.transaction.is_some_and(|transaction| transaction.ret.iter().any(|ret| ret.ret == Some("FAILED"))) {
        return Ok(Err("the call failed and the node does not say why".into()));
    }
    let returned = called.constant_result.first().map_or("", |text| text.as_ref());
    hex::decode(returned).map(Ok).map_err(|_| garbled("a call", answer))
}

/// Reads the answer to `triggerconstantcontract` for what the call used; `None` when it failed.
///
/// # Errors
/// As [`parse_constant`].
pub(super) fn parse_energy(answer: &[u8]) -> Result<Option<u64>, Failure> {
    let called: Called = serde_json::from_slice(answer).map_err(|error| unreadable("a call", answer, &error))?;
    Ok(parse_constant(answer)?.ok().map(|_| called.energy_used))
}

/// What the committee has set, in sun.
pub(super) struct Prices {
    pub(super) energy: u64,
    pub(super) bandwidth: u64,
    /// To make an address an account: the account, and the transaction that makes it.
    pub(super) activation: u64,
}

/// Reads the answer to `getchainparameters`.
///
/// # Errors
/// When the answer is an error, or a price is missing in it. A price of 0 has no value.
pub(super) fn parse_prices(answer: &[u8]) -> Result<Prices, Failure> {
    let all: ParametersJson = serde_json::from_slice(answer).map_err(|error| unreadable("chain parameters", answer, &error))?;
    if all.parameters.is_empty() {
        return Err(complaint(answer).unwrap_or_else(|| garbled("chain parameters", answer)));
    }
    let value = |key: &str| {
        let found = all.parameters.iter().find(|parameter| parameter.key == key);
        found.map(|parameter| parameter.value).ok_or_else(|| Failure::transient(format!("no {key} among the chain's parameters")))
    };
    let price = |key: &str| u64::try_from(value(key)?).map_err(|_| Failure::transient(format!("a negative {key}")));
    let activation = price("getCreateNewAccountFeeInSystemContract")?.saturating_add(price("getCreateAccountFee")?);
    Ok(Prices { energy: price("getEnergyFee")?, bandwidth: price("getTransactionFee")?, activation })
}

/// A text that a node wrote as hex, or as it is.
fn text_of(text: &str) -> String {
    hex::decode(text.as_bytes()).map_or_else(|_| text.to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// True when a call failed because the contract itself gave up, in the words of java-tron's VM
/// (Program.Exception): a contract without the function does that, and no other failure means it.
pub(super) fn is_reverted(why: &str) -> bool {
    ["REVERT opcode executed", "Invalid operation code", "isn't 'JUMPDEST'"].iter().any(|words| why.contains(words))
}

/// The failure that an answer in the node's own words stands for: a JSON object with an `Error`
/// (200, 403 and 404 alike) or a bare sentence. `None` when it is neither.
fn complaint(answer: &[u8]) -> Option<Failure> {
    let text = match serde_json::from_slice::<Complaint>(answer) {
        Ok(complaint) => complaint.text.into_owned(),
        Err(_) if matches!(answer.trim_ascii_start().first(), Some(b'{' | b'[' | b'<') | None) => return None,
        Err(_) => String::from_utf8_lossy(answer).into_owned(),
    };
    Some(if text.contains("unavailable due to config") {
        Failure::NotOffered(text)
    } else if text.contains("this API is closed") {
        Failure::Permanent(text)
    } else {
        let rest = suspended_for(&text);
        Failure::Transient { reason: text, rest }
    })
}

fn unreadable(what: &str, answer: &[u8], error: &serde_json::Error) -> Failure {
    complaint(answer).unwrap_or_else(|| Failure::transient(format!("expected {what}, found something unreadable ({error})")))
}

fn garbled(what: &str, answer: &[u8]) -> Failure {
    let start = String::from_utf8_lossy(answer.get(..256).unwrap_or(answer)).into_owned();
    Failure::transient(format!("expected {what}, found: {start}"))
}

/// A block's id is its number in eight bytes and then the last 24 of the SHA-256 of its raw
/// header (java-tron BlockCapsule.BlockId), so a header proves itself.
fn check_id(raw: &RawHeaderJson, id: Hash) -> Result<(), Failure> {
    let (number, _) = id.0.split_first_chunk::<8>().map_or(([0; 8], &[][..]), |(number, rest)| (*number, rest));
    if u64::from_be_bytes(number) != raw.number {
        return Err(Failure::transient(format!("block id {id} is not one of block {}", raw.number)));
    }
    let Some(bytes) = raw.protobuf() else { return Ok(()) };
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    if digest.get(8..) == id.0.get(8..) {
        Ok(())
    } else {
        Err(Failure::transient(format!("the header served for block {} does not hash to its id {id}", raw.number)))
    }
}

#[derive(Deserialize)]
struct BlockJson<'a> {
    #[serde(rename = "blockID", borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(rename = "block_header", borrow)]
    header: Option<HeaderJson<'a>>,
}

#[derive(Deserialize)]
struct HeaderJson<'a> {
    #[serde(borrow)]
    raw_data: RawHeaderJson<'a>,
}

#[derive(Deserialize)]
struct NodeInfoJson<'a> {
    #[serde(rename = "solidityBlock", borrow)]
    solid: Option<Cow<'a, str>>,
}

/// `BlockHeader.raw` of java-tron's Tron.proto.
#[derive(Deserialize)]
struct RawHeaderJson<'a> {
    #[serde(default)]
    timestamp: i64,
    #[serde(rename = "txTrieRoot", borrow, default)]
    tx_trie_root: Cow<'a, str>,
    #[serde(rename = "parentHash", borrow, default)]
    parent: Cow<'a, str>,
    #[serde(default)]
    number: u64,
    #[serde(default)]
    witness_id: u64,
    #[serde(borrow, default)]
    witness_address: Cow<'a, str>,
    #[serde(default)]
    version: u64,
    #[serde(rename = "accountStateRoot", borrow, default)]
    account_state_root: Cow<'a, str>,
    /// A field that we do not know may be part of the hash.
    #[serde(flatten, borrow)]
    others: HashMap<Cow<'a, str>, IgnoredAny>,
}

impl RawHeaderJson<'_> {
    /// The bytes that are hashed, or `None` when not every field of them is here.
    fn protobuf(&self) -> Option<Vec<u8>> {
        let witness = match parse_address(&self.witness_address) {
            Some(address) => [&[0x41], &address.0[..]].concat(),
            None => hex::decode(self.witness_address.as_bytes()).ok()?,
        };
        let tx_trie_root = hex::decode(self.tx_trie_root.as_bytes()).ok()?;
        if !self.others.is_empty() || self.number == 0 || witness.is_empty() || tx_trie_root.is_empty() {
            return None;
        }
        let mut raw = Vec::with_capacity(128);
        varint_field(&mut raw, 1, u64::try_from(self.timestamp).ok()?);
        bytes_field(&mut raw, 2, &tx_trie_root);
        bytes_field(&mut raw, 3, &hex::decode(self.parent.as_bytes()).ok()?);
        varint_field(&mut raw, 7, self.number);
        varint_field(&mut raw, 8, self.witness_id);
        bytes_field(&mut raw, 9, &witness);
        varint_field(&mut raw, 10, self.version);
        bytes_field(&mut raw, 11, &hex::decode(self.account_state_root.as_bytes()).ok()?);
        Some(raw)
    }
}

/// A protobuf field of wire type 0; a default value is not written.
fn varint_field(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        varint(out, value);
    }
}

/// A protobuf field of wire type 2; a default value is not written.
fn bytes_field(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        out.push((field << 3) | 2);
        varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// `TransactionInfo`, only what money depends on. The texts are hex or words of an enumeration,
/// which JSON never escapes, so they are borrowed from the answer.
#[derive(Deserialize)]
struct Info<'a> {
    #[serde(default)]
    id: &'a str,
    #[serde(rename = "blockNumber", default)]
    number: u64,
    #[serde(rename = "blockTimeStamp", default)]
    time: i64,
    #[serde(borrow)]
    receipt: Option<Receipt<'a>>,
    result: Option<&'a str>,
    /// Why it failed, as text in hex, or plain where the node was asked to be readable.
    #[serde(rename = "resMessage", borrow, default)]
    message: Cow<'a, str>,
    #[serde(rename = "log", borrow, default)]
    logs: Vec<Log<'a>>,
}

#[derive(Deserialize)]
struct Receipt<'a> {
    #[serde(borrow)]
    result: Option<&'a str>,
}

#[derive(Deserialize)]
struct Log<'a> {
    #[serde(default)]
    address: &'a str,
    #[serde(borrow, default)]
    topics: Vec<&'a str>,
    #[serde(default)]
    data: &'a str,
}

impl<'a> Info<'a> {
    fn receipt(&self) -> Option<&'a str> {
        self.receipt.as_ref().and_then(|receipt| receipt.result)
    }

    /// Why the transaction failed, `None` when it did not. What is no contract call, as a transfer
    /// of TRX, has no result in its receipt.
    fn failure(&self) -> Option<String> {
        let receipt = self.receipt().unwrap_or("DEFAULT");
        if matches!(receipt, "SUCCESS" | "DEFAULT") && self.result != Some("FAILED") {
            return None;
        }
        let kind = if matches!(receipt, "SUCCESS" | "DEFAULT") { "FAILED" } else { receipt };
        let message = text_of(&self.message);
        Some(reason(&if message.is_empty() { kind.to_owned() } else { format!("{kind}: {message}") }))
    }

    /// The token's logs that concern us, in their order, if the transaction did what it says: a
    /// contract's receipt says `SUCCESS`, everything else is a failure or not a contract call.
    fn logs_of<'b>(&'b self, token: &'b Forms) -> impl Iterator<Item = (Kind, &'b Log<'a>)> {
        let succeeded = self.receipt() == Some("SUCCESS") && self.result != Some("FAILED");
        let logs = if succeeded { self.logs.as_slice() } else { &[] };
        // The address first: a block is full of other tokens' transfers.
        logs.iter().filter(|log| token.is(log.address)).filter_map(|log| Some((Kind::of(&log.topics)?, log)))
    }
}

/// The ways a node may write the token's address in a log: twenty bytes of hex (java-tron's own),
/// with the `41` in front, or base58 (`visible: true`).
struct Forms {
    hex: String,
    base58: String,
}

impl Forms {
    fn of(token: &Address) -> Self {
        Self { hex: hex::encode(token.0), base58: format_address(token) }
    }

    /// Only a text of 42 digits has a prefix: twenty bytes may begin with 41, too.
    fn is(&self, text: &str) -> bool {
        let bare = if text.len() == 42 { text.strip_prefix("41").unwrap_or(text) } else { text };
        bare.eq_ignore_ascii_case(&self.hex) || text == self.base58
    }
}

#[derive(Deserialize)]
struct Complaint<'a> {
    #[serde(rename = "Error", alias = "error", borrow)]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Called<'a> {
    #[serde(borrow)]
    result: Option<Outcome<'a>>,
    #[serde(borrow, default)]
    constant_result: Vec<Cow<'a, str>>,
    /// What a call used, the penalty for a busy contract included.
    #[serde(default)]
    energy_used: u64,
    #[serde(borrow)]
    transaction: Option<CalledJson<'a>>,
}

#[derive(Deserialize)]
struct ParametersJson<'a> {
    #[serde(rename = "chainParameter", borrow, default)]
    parameters: Vec<ParameterOfChain<'a>>,
}

#[derive(Deserialize)]
struct ParameterOfChain<'a> {
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(default)]
    value: i64,
}

#[derive(Deserialize)]
struct CalledJson<'a> {
    #[serde(borrow, default)]
    ret: Vec<RetJson<'a>>,
}

#[derive(Deserialize)]
struct RetJson<'a> {
    #[serde(borrow)]
    ret: Option<&'a str>,
}

#[derive(Deserialize)]
struct SentJson<'a> {
    #[serde(rename = "txID")]
    id: Option<&'a str>,
    #[serde(borrow)]
    raw_data: Option<RawJson<'a>>,
}

#[derive(Deserialize)]
struct RawJson<'a> {
    #[serde(borrow, default)]
    contract: Vec<ContractJson<'a>>,
}

#[derive(Deserialize)]
struct ContractJson<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    parameter: ParameterJson<'a>,
}

#[derive(Deserialize)]
struct ParameterJson<'a> {
    #[serde(borrow)]
    value: ValueJson<'a>,
}

/// What of a contract of any type is looked at. `data` is hex, whatever else a type calls so.
#[derive(Deserialize)]
struct ValueJson<'a> {
    #[serde(borrow)]
    owner_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    contract_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
}
