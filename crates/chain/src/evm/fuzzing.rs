//! Doors for the fuzz targets in `fuzz/` to what an EVM node's answers are read as. `cargo fuzz`
//! alone compiles them.

use serde_json::Value;
use tidegate_rules::block::{Address, Block, BlockRef};

use super::rpc::{self, Call};
use super::wire::{self, Header};
use crate::endpoints::Failure;

/// The result of `eth_getBlockByNumber`.
///
/// # Errors
/// As for the adapter.
pub fn header(result: &str) -> Result<Option<BlockRef>, Failure> {
    Ok(Header::read(result)?.map(|header| header.at))
}

/// The blocks that the results of `eth_getBlockByNumber`, in their order, and of `eth_getLogs` make
/// together. `None` when the headers are not all there, or not consecutive: then the adapter does
/// not ask for logs.
///
/// # Errors
/// As for the adapter.
pub fn blocks(headers: &[&str], logs: &str, token: &Address) -> Result<Option<Vec<Block>>, Failure> {
    let headers = headers.iter().map(|result| Header::read(result)).collect::<Result<Option<Vec<Header>>, _>>()?;
    let consecutive = |[a, b]: &[Header; 2]| a.at.number.checked_add(1) == Some(b.at.number);
    let Some(headers) = headers.filter(|headers| headers.array_windows().all(consecutive)) else { return Ok(None) };
    let found = wire::read_logs(logs, &headers, token)?;
    Ok(Some(headers.iter().zip(found).map(|(header, found)| found.into_block(header.at)).collect()))
}

/// The block that the results of `eth_getBlockByNumber` and `eth_getBlockReceipts` make together.
///
/// # Errors
/// As for the adapter.
pub fn receipts(header: &str, receipts: &str, token: &Address) -> Result<Option<Block>, Failure> {
    let Some(header) = Header::read(header)? else { return Ok(None) };
    let _ = header.may_hold_transfers_of(token);
    wire::read_receipts(receipts, &header, token).map(|found| Some(found.into_block(header.at)))
}

/// A number, as the result of `eth_chainId`.
///
/// # Errors
/// As for the adapter.
pub fn quantity(result: &str) -> Result<u64, Failure> {
    wire::read_quantity(result)
}

/// Bytes, as the result of `eth_call`.
///
/// # Errors
/// As for the adapter.
pub fn bytes(result: &str) -> Result<Vec<u8>, Failure> {
    wire::read_bytes(result)
}

/// The answer to one call: its result as it came, or what its error means.
///
/// # Errors
/// As for the adapter.
pub fn reply(answer: &[u8]) -> Result<Result<String, String>, Failure> {
    let meaning = |error: rpc::RpcError| format!("{:?} {} {}", error.meaning(), error.is_reverted(), error.failure("eth_call"));
    Ok(rpc::read_reply(answer)?.map(|result| result.get().to_owned()).map_err(meaning))
}

/// The answers to a batch of `calls` calls, in their order: each one's result, `None` for an error.
/// `None` for an endpoint that takes no such batch.
///
/// # Errors
/// As for the adapter.
pub fn batch(answer: &[u8], calls: usize) -> Result<Option<Vec<Option<String>>>, Failure> {
    let calls = vec![Call { method: "eth_call", params: Value::Null }; calls];
    let told = rpc::read_batch(answer, &calls)?;
    Ok(told.map(|told| told.into_iter().map(|told| told.ok().map(|result| result.get().to_owned())).collect()))
}
