//! What an EVM node says, taken apart: headers, logs and receipts, and the proof that logs belong
//! to the headers that they are said to belong to.
//!
//! Everything here is pure. A log without its block's hash in its place, a log that stands twice,
//! one that is `removed`: each makes the whole answer void. Logs that were not asked for are
//! skipped, because some providers take filters lightly.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use sha3::{Digest, Keccak256};
use tidegate_rules::block::{Address, BlockRef, Hash};
use tidegate_rules::time::Time;

use crate::endpoints::Failure;
use crate::transfer_log::{Found, Kind, TRANSFER_TOPIC};

const BLOOM_BYTES: usize = 256;

/// A block's header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) at: BlockRef,
    /// `None` when the chain does not fill it, as TRON's JSON-RPC and some roll-ups do not.
    bloom: Option<Box<[u8; BLOOM_BYTES]>>,
    /// How many transactions the block has, where the answer says so.
    transactions: Option<usize>,
}

impl Header {
    /// The header of a block that is known already.
    pub(super) fn known(at: BlockRef) -> Self {
        Self { at, bloom: None, transactions: None }
    }

    /// Reads the result of `eth_getBlockByNumber`; `None` for `null`.
    pub(super) fn read(result: &str) -> Result<Option<Self>, Failure> {
        let Some(block) = parse::<Option<HeaderJson>>("a block", result)? else { return Ok(None) };
        let at = BlockRef {
            number: quantity(block.number)?,
            hash: hash(block.hash)?,
            parent: hash(block.parent)?,
            time: Time::from_secs(i64::try_from(quantity(block.timestamp)?).unwrap_or(i64::MAX)),
        };
        let bloom = block.bloom.and_then(|text| hex::decode_to_array::<_, BLOOM_BYTES>(text).ok());
        let bloom = bloom.filter(|bloom| bloom.iter().any(|byte| *byte != 0)).map(Box::new);
        Ok(Some(Self { at, bloom, transactions: block.transactions.map(|list| list.len()) }))
    }

    /// True when the header's bloom filter allows a `Transfer` log of the token in the block.
    pub(super) fn may_hold_transfers_of(&self, token: &Address) -> bool {
        let topic = hex::decode_to_array::<_, 32>(TRANSFER_TOPIC).unwrap_or_default();
        self.bloom.as_ref().is_some_and(|bloom| allows(bloom, &token.0) && allows(bloom, &topic))
    }
}

/// Yellow paper, section 4.3: three bits of 2,048, each named by eleven bits of the item's hash.
fn allows(bloom: &[u8; BLOOM_BYTES], item: &[u8]) -> bool {
    let hash: [u8; 32] = Keccak256::digest(item).into();
    hash.as_chunks::<2>().0.iter().take(3).all(|pair| {
        let bit = u16::from_be_bytes(*pair) & 2_047;
        let byte = usize::from(2_047_u16.saturating_sub(bit)) >> 3;
        bloom.get(byte).is_some_and(|byte| byte >> (bit & 7) & 1 == 1)
    })
}

/// Reads the result of `eth_getLogs` for the blocks of `headers`, which are consecutive: what was
/// found in each of them.
pub(super) fn read_logs(result: &str, headers: &[Header], token: &Address) -> Result<Vec<Found>, Failure> {
    gather(&parse::<Vec<LogJson>>("logs", result)?, headers, token)
}

/// Reads the result of `eth_getBlockReceipts` for the block of `header`; `null` is a node that
/// does not have the block.
pub(super) fn read_receipts(result: &str, header: &Header, token: &Address) -> Result<Found, Failure> {
    let receipts: Option<Vec<ReceiptJson>> = parse("receipts", result)?;
    let Some(receipts) = receipts else {
        return Err(Failure::Behind(format!("it has no receipts of block {}", header.at.number)));
    };
    if header.transactions.is_some_and(|expected| expected != receipts.len()) {
        let number = header.at.number;
        return Err(Failure::transient(format!("{} receipts of block {number} are not all", receipts.len())));
    }
    let mut logs = Vec::new();
    for receipt in receipts {
        if hash(receipt.block_hash)? != header.at.hash {
            return Err(moved(header.at.number));
        }
        // Before Byzantium there is no status; a failed transaction has no logs in any case.
        if receipt.status != Some("0x0") {
            logs.extend(receipt.logs);
        }
    }
    let mut found = gather(&logs, std::slice::from_ref(header), token)?;
    Ok(found.pop().unwrap_or_default())
}

/// The receipt of one transaction.
pub(super) struct Receipt<'a> {
    pub(super) number: u64,
    pub(super) block: Hash,
    pub(super) from: Address,
    pub(super) succeeded: bool,
    pub(super) gas_used: u64,
    logs: Vec<LogJson<'a>>,
}

impl<'a> Receipt<'a> {
    /// Reads the result of `eth_getTransactionReceipt` for the transaction `of`; `None` for `null`.
    pub(super) fn read(result: &'a str, of: Hash) -> Result<Option<Self>, Failure> {
        let Some(receipt) = parse::<Option<OneReceiptJson>>("a receipt", result)? else { return Ok(None) };
        for said in receipt.logs.iter().map(|log| log.transaction_hash).chain([receipt.transaction_hash]) {
            if hash(said)? != of {
                return Err(Failure::transient(format!("asked for the receipt of {of}, got one of {said}")));
            }
        }
        let succeeded = match receipt.status {
            Some("0x1") => true,
            Some("0x0") => false,
            // Before Byzantium (2017) there was none; no outcome can be told from that.
            other => return Err(garbled("a receipt's status", other.unwrap_or("none"))),
        };
        Ok(Some(Self {
            number: quantity(receipt.block_number)?,
            block: hash(receipt.block_hash)?,
            from: address(receipt.from)?,
            succeeded,
            gas_used: quantity(receipt.gas_used)?,
            logs: receipt.logs,
        }))
    }

    /// What it moved; a failed transaction has moved nothing, whatever logs it carries.
    pub(super) fn found(&self, header: &Header, token: &Address) -> Result<Found, Failure> {
        let logs = if self.succeeded { self.logs.as_slice() } else { &[] };
        Ok(gather(logs, std::slice::from_ref(header), token)?.pop().unwrap_or_default())
    }
}

/// One transaction as it was sent.
pub(super) struct Sent {
    pub(super) from: Address,
    /// `None` when it creates a contract.
    pub(super) to: Option<Address>,
    pub(super) data: Vec<u8>,
    /// The gas that it may use.
    pub(super) gas: u64,
    /// The block that it is in, as the endpoint says.
    pub(super) block: Option<u64>,
}

impl Sent {
    /// Reads the result of `eth_getTransactionByHash` for the transaction `of`; `None` for `null`.
    pub(super) fn read(result: &str, of: Hash) -> Result<Option<Self>, Failure> {
        let Some(sent) = parse::<Option<SentJson>>("a transaction", result)? else { return Ok(None) };
        if hash(sent.hash)? != of {
            return Err(Failure::transient(format!("asked for transaction {of}, got {}", sent.hash)));
        }
        let data = sent.input.or(sent.data).unwrap_or_default();
        Ok(Some(Self {
            from: address(sent.from)?,
            to: sent.to.map(address).transpose()?,
            data: hex::decode(data).map_err(|_| garbled("call data", data.get(..100).unwrap_or(data)))?,
            gas: quantity(sent.gas)?,
            block: sent.block_number.map(quantity).transpose()?,
        }))
    }
}

fn gather(logs: &[LogJson], headers: &[Header], token: &Address) -> Result<Vec<Found>, Failure> {
    let mut placed = Vec::new();
    for log in logs {
        let is_token = hex::decode_to_array::<_, 20>(log.address).is_ok_and(|address| address == token.0);
        let Some(kind) = Kind::of(&log.topics).filter(|_| is_token) else { continue };
        if log.removed == Some(true) {
            return Err(Failure::Behind("a log that is said to be removed".into()));
        }
        let number = quantity(log.block_number)?;
        let index = headers.first().and_then(|first| number.checked_sub(first.at.number));
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some((index, header)) = index.and_then(|index| Some((index, headers.get(index)?))) else {
            return Err(Failure::transient(format!("a log of block {number}, which was not asked for")));
        };
        if hash(log.block_hash)? != header.at.hash {
            return Err(moved(number));
        }
        placed.push((index, quantity(log.log_index)?, hash(log.transaction_hash)?, kind, log));
    }
    placed.sort_unstable_by_key(|(index, log_index, ..)| (*index, *log_index));
    let twice = placed.array_windows().any(|[(a, i, ..), (b, j, ..)]| (a, i) == (b, j));
    if twice {
        return Err(Failure::transient("a log that stands twice in one answer"));
    }
    let mut found: Vec<Found> = headers.iter().map(|_| Found::default()).collect();
    let mut ordinals: HashMap<(usize, Hash), u32> = HashMap::new();
    for (index, _, tx_hash, kind, log) in placed {
        if let Some(found) = found.get_mut(index) {
            found.push(kind, tx_hash, ordinals.entry((index, tx_hash)).or_default(), &log.topics, log.data);
        }
    }
    Ok(found)
}

/// The bytes of a hex string result, as of `eth_call`.
pub(super) fn read_bytes(result: &str) -> Result<Vec<u8>, Failure> {
    let text: &str = parse("hex bytes", result)?;
    hex::decode(text).map_err(|_| garbled("hex bytes", text))
}

/// A number result, as of `eth_chainId`.
pub(super) fn read_quantity(result: &str) -> Result<u64, Failure> {
    quantity(parse("a number", result)?)
}

/// A price result, as of `eth_gasPrice`.
pub(super) fn read_price(result: &str) -> Result<u128, Failure> {
    price(parse("a price", result)?)
}

/// What blocks cost lately, and what the next one will.
pub(super) struct FeeHistory {
    pub(super) next_base_fee: u128,
    /// The middle of the blocks' middle tips; `None` when nobody paid one.
    pub(super) tip: Option<u128>,
}

impl FeeHistory {
    /// Reads the result of `eth_feeHistory` for one percentile; `None` for one without base fees.
    pub(super) fn read(result: &str) -> Result<Option<Self>, Failure> {
        let history: FeeHistoryJson = parse("a history of fees", result)?;
        // One more than there are blocks: that of the next one stands last.
        let Some(next) = history.base_fees.last() else { return Ok(None) };
        let tips = history.rewards.unwrap_or_default();
        let tips: Result<Vec<u128>, Failure> = tips.iter().filter_map(|block| block.first()).map(|tip| price(tip)).collect();
        let mut tips = tips?;
        tips.sort_unstable();
        let middle = tips.get(tips.len().wrapping_div(2)).copied().filter(|tip| *tip > 0);
        Ok(Some(Self { next_base_fee: price(next)?, tip: middle }))
    }
}

/// The chain changed between two answers; asking again will show one side of it.
pub(super) fn moved(number: u64) -> Failure {
    Failure::Behind(format!("block {number} changed while it was read"))
}

fn parse<'a, T: Deserialize<'a>>(what: &str, result: &'a str) -> Result<T, Failure> {
    serde_json::from_str(result).map_err(|error| Failure::transient(format!("expected {what}, found something unreadable ({error})")))
}

fn quantity(text: &str) -> Result<u64, Failure> {
    // The parser would take a sign.
    let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+')).ok_or_else(|| garbled("a number", text))?;
    u64::from_str_radix(digits, 16).map_err(|_| garbled("a number", text))
}

fn price(text: &str) -> Result<u128, Failure> {
    let digits = text.strip_prefix("0x").ok_or_else(|| garbled("a price", text))?;
    u128::from_str_radix(digits, 16).map_err(|_| garbled("a price", text))
}

fn address(text: &str) -> Result<Address, Failure> {
    hex::decode_to_array(text).map(Address).map_err(|_| garbled("an address", text))
}

fn hash(text: &str) -> Result<Hash, Failure> {
    text.parse().map_err(|_| garbled("a hash", text))
}

fn garbled(what: &str, text: &str) -> Failure {
    Failure::transient(format!("expected {what}, found {text:?}"))
}

#[derive(Deserialize)]
struct HeaderJson<'a> {
    number: &'a str,
    hash: &'a str,
    #[serde(rename = "parentHash")]
    parent: &'a str,
    timestamp: &'a str,
    #[serde(rename = "logsBloom", borrow)]
    bloom: Option<&'a str>,
    transactions: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogJson<'a> {
    address: &'a str,
    #[serde(borrow)]
    topics: Vec<&'a str>,
    #[serde(default)]
    data: &'a str,
    block_hash: &'a str,
    block_number: &'a str,
    transaction_hash: &'a str,
    log_index: &'a str,
    removed: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptJson<'a> {
    block_hash: &'a str,
    #[serde(borrow)]
    status: Option<&'a str>,
    #[serde(borrow)]
    logs: Vec<LogJson<'a>>,
}

#[derive(Deserialize)]
struct FeeHistoryJson<'a> {
    #[serde(rename = "baseFeePerGas", borrow, default)]
    base_fees: Vec<&'a str>,
    #[serde(rename = "reward", borrow)]
    rewards: Option<Vec<Vec<&'a str>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneReceiptJson<'a> {
    transaction_hash: &'a str,
    block_hash: &'a str,
    block_number: &'a str,
    from: &'a str,
    gas_used: &'a str,
    #[serde(borrow)]
    status: Option<&'a str>,
    #[serde(borrow)]
    logs: Vec<LogJson<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentJson<'a> {
    hash: &'a str,
    from: &'a str,
    #[serde(borrow)]
    to: Option<&'a str>,
    /// Called `data` by some nodes, and both by others.
    #[serde(borrow)]
    input: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a str>,
    gas: &'a str,
    #[serde(borrow)]
    block_number: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The answers of one recorded exchange of ethereum/execution-apis.
    fn recorded(name: &str) -> Value {
        let path = format!("{}/tests/data/evm/execution-apis/{name}.io", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let answer = text.lines().find_map(|line| line.strip_prefix("<< ")).unwrap();
        serde_json::from_str(answer).unwrap()
    }

    fn recorded_header(name: &str) -> Option<Header> {
        Header::read(&recorded(name)["result"].to_string()).unwrap()
    }

    fn header(number: u64, hash: &str) -> Header {
        let hash = hash.parse().unwrap();
        Header { at: BlockRef { number, hash, parent: hash, time: Time::default() }, bloom: None, transactions: None }
    }

    #[test]
    fn a_number_is_hex_digits_alone() {
        for (text, expected) in [("0x0", 0), ("0x1", 1), ("0xa4b1", 42_161), ("0xffffffffffffffff", u64::MAX)] {
            assert_eq!(read_quantity(&format!("\"{text}\"")), Ok(expected));
        }
        for text in ["", "0x", "1", "0x+1", "0x-1", "0x 1", "0x1_0", "0xg", "0x10000000000000000"] {
            read_quantity(&format!("\"{text}\"")).expect_err(text);
        }
    }

    #[test]
    fn recorded_headers() {
        for name in ["finalized", "safe", "latest"] {
            let header = recorded_header(&format!("eth_getBlockByNumber__get-{name}")).unwrap();
            assert_eq!((header.at.number, header.at.time), (54, Time::from_secs(540)));
            assert!(header.at.hash.to_string().starts_with("d226371d") && header.bloom.is_some());
        }
        assert!(recorded_header("eth_getBlockByNumber__get-block-notfound").is_none());
    }

    #[test]
    fn recorded_logs() {
        let (second, fourth) = (
            header(2, "b4874cd66b2070da5d1905b5937e97c82d1891747739b3ebb0f7f6ffc9ad518a"),
            header(4, "98f797a6af91ea770ab3a99d89c17a3a46d14c76db6bb711b18156a3493d2c94"),
        );
        let between = header(3, &"3".repeat(64));
        for name in ["filter-with-blockHash", "filter-with-blockHash-and-topics", "topic-exact-match", "contract-addr"] {
            let result = recorded(&format!("eth_getLogs__{name}"))["result"].to_string();
            // The contract is not a token: its logs are read, and are none of ours.
            let token = Address(hex::decode_to_array("7dcd17433742f4c0ca53122ab541d0ba67fc27df").unwrap());
            let headers = [second.clone(), between.clone(), fourth.clone()];
            let found = read_logs(&result, &headers, &token).unwrap();
            assert!(found.iter().all(|found| found.logs == 0), "{name}");

            // With its topic made into Transfer they are, each in its block.
            let result = result.replace("00000000000000000000000000000000000000000000000000000000656d6974", TRANSFER_TOPIC);
            let found = read_logs(&result, &headers, &token).unwrap();
            let logs: Vec<usize> = found.iter().map(|found| found.logs).collect();
            assert_eq!(logs, if name == "contract-addr" { [1, 0, 1] } else { [0, 0, 1] }, "{name}");
            read_logs(&result, &[second.clone(), between.clone()], &token).unwrap_err();
        }
    }

    #[test]
    fn recorded_receipts() {
        let receipts = |name: &str| recorded(&format!("eth_getBlockReceipts__get-block-receipts-{name}"))["result"].to_string();
        let token = Address([1; 20]);
        let latest = recorded_header("eth_getBlockByNumber__get-latest").unwrap();
        assert_eq!(read_receipts(&receipts("latest"), &latest, &token).unwrap().logs, 0);
        let emitter = Address(hex::decode_to_array("b1917d669e2a9307d342d04ab74e68ea94c4d11c").unwrap());
        let as_transfer = receipts("latest").replace("e6bccefd92fc2fa71227cbd31f39b085fabc5c0f7b7d07eb4a639c53ad5822f4", TRANSFER_TOPIC);
        assert!(read_receipts(&as_transfer, &latest, &emitter).unwrap().unreadable.len() == 1, "one topic only");

        let first = header(1, "80e911b62f552f563a2544dfef5eb39ec8863d9082c998ca6b657f76e19de38e");
        for name in ["by-hash", "n"] {
            assert_eq!(read_receipts(&receipts(name), &first, &token).unwrap().logs, 0);
        }
        for name in ["empty", "future", "not-found"] {
            assert!(matches!(read_receipts(&receipts(name), &first, &token), Err(Failure::Behind(_))), "{name}");
        }
        for name in ["0", "earliest"] {
            assert_eq!(read_receipts(&receipts(name), &first, &token).unwrap().logs, 0, "an empty block");
            read_receipts(&receipts(name), &latest, &token).expect_err("fewer receipts than transactions");
        }
        read_receipts(&receipts("n"), &latest, &token).expect_err("of another block");
    }

    #[test]
    fn recorded_receipts_of_one_transaction() {
        let read = |name: &str| {
            let result = recorded(&format!("eth_getTransactionReceipt__{name}"))["result"].to_string();
            let of = recorded(&format!("eth_getTransactionReceipt__{name}"))["result"]["transactionHash"].as_str().map(str::to_owned);
            let of = of.map_or(Hash([1; 32]), |of| of.parse().unwrap());
            Receipt::read(&result, of).unwrap().map(|receipt| (receipt.number, receipt.gas_used, receipt.succeeded, receipt.logs.len()))
        };
        for name in ["get-dynamic-fee", "get-access-list", "get-blob-tx", "get-setcode-tx"] {
            let result = recorded(&format!("eth_getTransactionReceipt__{name}"))["result"].clone();
            let number = quantity(result["blockNumber"].as_str().unwrap()).unwrap();
            let gas = quantity(result["gasUsed"].as_str().unwrap()).unwrap();
            let logs = result["logs"].as_array().unwrap().len();
            assert_eq!(read(name), Some((number, gas, result["status"] == "0x1", logs)), "{name}");
            assert!(Receipt::read(&result.to_string(), Hash([1; 32])).is_err(), "{name}: of another transaction");
        }
        assert_eq!(read("get-notfound-tx"), None);
        let old = recorded("eth_getTransactionReceipt__get-legacy-receipt")["result"].clone();
        let of = old["transactionHash"].as_str().unwrap().parse().unwrap();
        assert!(Receipt::read(&old.to_string(), of).is_err(), "from before there was a status");

        // One of mainnet, of the token, that approves and transfers nothing.
        let path = format!("{}/tests/data/evm/mainnet_eth_getTransactionReceipt_usdt_alloy.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let of = "21f6554c28453a01e7276c1db2fc1695bb512b170818bfa98fa8136433100616".parse().unwrap();
        let receipt = Receipt::read(&text, of).unwrap().unwrap();
        let at = header(receipt.number, &receipt.block.to_string());
        let usdt = Address(hex::decode_to_array("dac17f958d2ee523a2206206994597c13d831ec7").unwrap());
        let found = receipt.found(&at, &usdt).unwrap();
        assert_eq!((receipt.succeeded, found.logs, found.transfers.len()), (true, 0, 0));
        let transfer = text.replace("8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925", TRANSFER_TOPIC);
        let found = Receipt::read(&transfer, of).unwrap().unwrap().found(&at, &usdt).unwrap();
        assert_eq!(found.transfers.len(), 1, "with its topic made into Transfer it is one");
    }

    #[test]
    fn a_recorded_history_of_fees() {
        let history = FeeHistory::read(&recorded("eth_feeHistory__fee-history")["result"].to_string()).unwrap().unwrap();
        assert_eq!((history.next_base_fee, history.tip), (0x342a_385a, Some(1)));
    }

    #[test]
    fn a_bloom_filter_allows_what_is_in_the_receipt() {
        let path = format!("{}/tests/data/evm/mainnet_eth_getTransactionReceipt_usdt_alloy.json", env!("CARGO_MANIFEST_DIR"));
        let receipt: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let bloom = hex::decode_to_array::<_, BLOOM_BYTES>(receipt["logsBloom"].as_str().unwrap()).unwrap();
        let usdt = hex::decode(receipt["logs"][0]["address"].as_str().unwrap()).unwrap();
        let approval = hex::decode(receipt["logs"][0]["topics"][0].as_str().unwrap()).unwrap();
        assert!(allows(&bloom, &usdt) && allows(&bloom, &approval));
        assert!(!allows(&bloom, &hex::decode(TRANSFER_TOPIC).unwrap()), "it was an approval");
        let header = Header { bloom: Some(Box::new(bloom)), ..header(1, &"1".repeat(64)) };
        assert!(!header.may_hold_transfers_of(&Address(usdt.try_into().unwrap())));
    }

    #[test]
    fn a_real_usdt_log_is_a_transfer() {
        let path = format!("{}/tests/data/evm/mainnet_usdt_logs_captures.json", env!("CARGO_MANIFEST_DIR"));
        let capture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let usdt = Address(hex::decode_to_array("dac17f958d2ee523a2206206994597c13d831ec7").unwrap());
        let block = header(0x157_0445, capture["logs"][0]["blockHash"].as_str().unwrap());
        let found = read_logs(&capture["logs"].to_string(), &[block], &usdt).unwrap();
        assert_eq!(found[0].transfers[0].value.to_string(), "1700000000");
        assert_eq!(format!("{:?}", found[0].transfers[0].to), "28c6c06298d514db089934071355e5743bf21d60");
    }
}
