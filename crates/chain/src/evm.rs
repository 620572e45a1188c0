//! Ethereum and everything that speaks its JSON-RPC.
//!
//! At the tip a block is read by two calls: its header, and the token's `Transfer` logs by the
//! block's own hash, together with what the contract says of itself (freezes, pauses). While
//! catching up, logs are read by range. Logs are never filtered by recipient, so that a million
//! watched addresses cost what ten do, and an ordinal within a transaction can be told.
//!
//! `eth_getLogs` answers `[]` just as happily for a block that the node does not have
//! (go-ethereum#24078, besu#8007), so an answer counts only with its proof: the hash of every
//! log's block is the one of the header that we hold, the headers are one chain, and the last of
//! them is still there after the logs were read. A block whose bloom filter speaks against an
//! empty answer is asked for a second time, if possible elsewhere, and without naming topics: an
//! endpoint that does not understand a list of them must not hide money.

mod address;
mod balances;
mod fee;
#[cfg(fuzzing)]
pub mod fuzzing;
mod rpc;
mod second_reading;
mod transaction;
mod wire;

use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tidegate_rules::block::{Address, Block, BlockRef, Hash};

pub use self::address::{format_address, parse_address};
use self::balances::BalanceLore;
pub use self::balances::MULTICALL3;
pub use self::fee::{GAS_LIMIT, GAS_OF_FIRST_BALANCE, GAS_TO_NEW};
use self::rpc::{Call, Learned, Meaning, Rpc, Told};
use self::wire::{Header, moved};
use crate::balances::check_addresses;
use crate::endpoints::{Endpoint, Endpoints, Failure, Opinion, Prefer};
use crate::second_reading::{check_blocks, in_both, in_both_of_each};
use crate::transfer_log::{Found, TRANSFER_TOPIC};
use crate::{
    Balances, Chain, EndpointHealth, Error, FLAGS_AT_ONCE, Fee, Identity, PoolHealth, SecondReading, TokenState, Transaction, Witnesses,
    abi, blacklisted, check_state_addresses, notice_log,
};

/// The most blocks that one call of [`Chain::blocks`] reads, and that one `eth_getLogs` spans,
/// unless the configuration says fewer.
pub const RANGE_MAX: u32 = 200;

/// What an EVM network is.
#[derive(Clone, Debug)]
pub struct EvmConfig {
    /// EIP-155 chain id. Every endpoint must be on this chain before anything it says is believed.
    pub chain_id: u64,
    /// The token contract.
    pub token: Address,
    /// The most blocks to ask for at once; what an endpoint bears below it is learned.
    pub range_max: u32,
    /// The tag of the newest final block: `finalized`, or `safe` or `latest` on chains whose nodes
    /// do not know it.
    pub final_tag: String,
}

impl EvmConfig {
    /// A network with the usual limits.
    #[must_use]
    pub fn new(chain_id: u64, token: Address) -> Self {
        Self { chain_id, token, range_max: RANGE_MAX, final_tag: "finalized".into() }
    }
}

/// An EVM network behind its endpoints.
#[derive(Debug)]
pub struct EvmChain {
    config: EvmConfig,
    endpoints: Endpoints,
    rpc: Rpc,
    lore: Vec<Lore>,
}

/// What was learned about an endpoint.
#[derive(Debug)]
struct Lore {
    /// It has shown that it is on the right chain.
    proven: AtomicBool,
    /// It does not offer `eth_getBlockReceipts`.
    no_receipts: AtomicBool,
    /// It does not offer `eth_feeHistory`.
    no_fee_history: AtomicBool,
    /// How many blocks one `eth_getLogs` may span.
    range: Learned,
    balances: BalanceLore,
}

/// A block as it was read, before a doubt about it is settled.
struct Draft {
    header: Header,
    found: Found,
    /// Whose answer it is, by its place in the configuration.
    source: usize,
}

impl Draft {
    fn is_doubtful(&self, token: &Address) -> bool {
        self.found.logs == 0 && self.header.may_hold_transfers_of(token)
    }

    /// Takes the answer to a second question about it, if that has more to say; true when it does.
    fn take(&mut self, second: Found) -> bool {
        // Where neither answer has a transfer, the one with more to say is taken.
        let has_more = second.logs > 0 || second.notices.len() > self.found.notices.len();
        if has_more {
            let number = self.header.at.number;
            tracing::warn!(number, logs = second.logs, notices = second.notices.len(), "logs that a first answer had left out");
            self.found = second;
        }
        has_more
    }

    fn into_block(self) -> Block {
        self.found.into_block(self.header.at)
    }
}

/// Which block a header is wanted of.
#[derive(Clone, Copy)]
enum Which<'a> {
    Number(u64),
    Tag(&'a str),
}

impl EvmChain {
    /// A chain that has not been spoken to yet.
    #[must_use]
    pub fn new(config: EvmConfig, endpoints: Endpoints) -> Self {
        let lore = |_| Lore {
            proven: AtomicBool::new(false),
            no_receipts: AtomicBool::new(false),
            no_fee_history: AtomicBool::new(false),
            range: Learned::up_to(config.range_max),
            balances: BalanceLore::default(),
        };
        let (rpc, lore) = (Rpc::new(endpoints.count()), (0..endpoints.count()).map(lore).collect());
        Self { rpc, lore, config, endpoints }
    }

    async fn read(&self, endpoint: Endpoint, from: u64, limit: u32) -> Result<Vec<Draft>, Failure> {
        self.prove(&endpoint).await?;
        let headers = self.headers(&endpoint, from, limit.min(self.config.range_max.max(1))).await?;
        let found = match headers.as_slice() {
            [] => Vec::new(),
            [header] => vec![self.logs_of(&endpoint, header).await?],
            headers => self.logs_over(&endpoint, headers).await?,
        };
        let source = endpoint.index();
        Ok(headers.into_iter().zip(found).map(|(header, found)| Draft { header, found, source }).collect())
    }

    /// The headers from `from` upwards that the endpoint has: one chain, at most `limit` long.
    async fn headers(&self, endpoint: &Endpoint, from: u64, limit: u32) -> Result<Vec<Header>, Failure> {
        if limit <= 1 {
            return Ok(self.header_on(endpoint, Which::Number(from)).await?.into_iter().collect());
        }
        // The head first: at the tip, where nearly every call is made, it is the very header that
        // is needed, and away from it, it says how many blocks there are to fetch.
        let head = self.header_on(endpoint, Which::Tag("latest")).await?.ok_or_else(no_head)?;
        let last = head.at.number.min(from.saturating_add(u64::from(limit)).saturating_sub(1));
        let numbers: Vec<u64> = (from..=last).filter(|number| *number != head.at.number).collect();
        let calls: Vec<Call> = numbers.iter().map(|number| block_call(Which::Number(*number))).collect();
        let told = self.rpc.many(endpoint, &calls).await?;
        let mut headers: Vec<Header> = Vec::with_capacity(told.len());
        for (number, told) in numbers.into_iter().zip(&told) {
            match read_header(told, Which::Number(number))? {
                Some(header) => {
                    endpoint.saw_block(&header.at);
                    headers.push(header);
                }
                None => break,
            }
        }
        if last == head.at.number && from <= last {
            headers.push(head);
        }
        // Behind a balancer the head may come from a node that is ahead of the one with the others:
        // without the first there are none, or whoever asked would pass over it.
        if headers.first().is_some_and(|first| first.at.number != from) {
            return Ok(Vec::new());
        }
        // The chain may have been reorganised between two answers: what stands before is whole.
        let consecutive = headers
            .array_windows()
            .take_while(|[parent, child]| parent.at.number.checked_add(1) == Some(child.at.number) && parent.at.hash == child.at.parent)
            .count();
        headers.truncate(consecutive.saturating_add(1));
        Ok(headers)
    }

    /// The token's logs in a chain of blocks, by ranges that the endpoint bears.
    async fn logs_over(&self, endpoint: &Endpoint, headers: &[Header]) -> Result<Vec<Found>, Failure> {
        let lore = self.lore.get(endpoint.index());
        let mut found = Vec::with_capacity(headers.len());
        let mut left = headers;
        while let [first, ..] = left {
            let size = lore.map_or(1, |lore| lore.range.get()).min(u32::try_from(left.len()).unwrap_or(u32::MAX));
            let (now, later) = left.split_at_checked(size as usize).unwrap_or((left, &[]));
            let Some(last) = now.last().filter(|_| size > 1) else {
                found.push(self.logs_of(endpoint, first).await?);
                left = left.get(1..).unwrap_or_default();
                continue;
            };
            let call = self.logs_call(json!({ "fromBlock": hex(first.at.number), "toBlock": hex(last.at.number) }));
            let calls = [call, block_call(Which::Number(last.at.number))];
            let told = self.rpc.many(endpoint, &calls).await?;
            let [logs, header] = told.as_slice() else { return Err(moved(last.at.number)) };
            match logs {
                Err(error) if error.meaning() == Meaning::TooMuch => {
                    if let Some(lore) = lore {
                        lore.range.refused(size);
                    }
                    continue;
                }
                Err(error) => return Err(error.failure("eth_getLogs")),
                Ok(logs) => {
                    // Only now is it known that the endpoint had the whole range to search.
                    let still = read_header(header, Which::Number(last.at.number))?;
                    if still.is_none_or(|header| header.at.hash != last.at.hash) {
                        return Err(moved(last.at.number));
                    }
                    found.extend(wire::read_logs(logs.get(), now, &self.config.token)?);
                }
            }
            if let Some(lore) = lore {
                lore.range.served(size);
            }
            left = later;
        }
        Ok(found)
    }

    /// The token's logs in one block, by its hash.
    async fn logs_of(&self, endpoint: &Endpoint, header: &Header) -> Result<Found, Failure> {
        let call = self.logs_call(json!({ "blockHash": format!("0x{}", header.at.hash) }));
        let told = self.rpc.one(endpoint, &call).await?;
        self.read_logs_of(&told, header)
    }

    fn read_logs_of(&self, told: &Told, header: &Header) -> Result<Found, Failure> {
        let logs = told.as_ref().map_err(|error| error.failure("eth_getLogs"))?;
        let found = wire::read_logs(logs.get(), std::slice::from_ref(header), &self.config.token)?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    /// Asks once more, preferring another endpoint, for the blocks that came without a log though
    /// their bloom filters allow one. A second empty answer is believed: a filter may be wrong.
    async fn settle_doubts(&self, drafts: &mut [Draft]) -> Result<(), Error> {
        let token = &self.config.token;
        let doubtful: Vec<&mut Draft> = drafts.iter_mut().filter(|draft| draft.is_doubtful(token)).collect();
        // All of them come from one endpoint.
        let Some(source) = doubtful.first().map(|draft| draft.source) else { return Ok(()) };
        let headers: Vec<Header> = doubtful.iter().map(|draft| draft.header.clone()).collect();
        let headers = &headers;
        let ask = |endpoint: Endpoint| async move {
            self.prove(&endpoint).await?;
            let calls: Vec<Call> = headers.iter().map(|header| self.all_logs_call(header)).collect();
            let told = self.rpc.many(&endpoint, &calls).await?;
            let found: Vec<Found> =
                told.iter().zip(headers).map(|(told, header)| self.read_logs_of(told, header)).collect::<Result<_, Failure>>()?;
            Ok((endpoint.index(), found))
        };
        let (answered, second) = self.endpoints.run(Prefer::OtherThan(source), ask).await?;
        for (draft, found) in doubtful.into_iter().zip(second) {
            if draft.take(found) {
                self.endpoints.note_source(draft.header.at.number, answered);
            }
        }
        Ok(())
    }

    async fn reread_on(&self, endpoint: Endpoint, block: BlockRef) -> Result<Opinion<Option<Block>>, Failure> {
        self.prove(&endpoint).await?;
        let header = self.header_on(&endpoint, Which::Number(block.number)).await?;
        let header = header.ok_or_else(|| Failure::Behind(format!("it does not have block {}", block.number)))?;
        if header.at.hash != block.hash {
            return Ok(Opinion::Against(None));
        }
        let found = match self.receipts_of(&endpoint, &header).await? {
            Some(found) => found,
            None => self.logs_of(&endpoint, &header).await?,
        };
        let mut draft = Draft { header, found, source: endpoint.index() };
        if draft.is_doubtful(&self.config.token) {
            // Of the same endpoint: the word of another that served the block would count for two.
            let told = self.rpc.one(&endpoint, &self.all_logs_call(&draft.header)).await?;
            let second = self.read_logs_of(&told, &draft.header)?;
            draft.take(second);
        }
        let is_doubtful = draft.is_doubtful(&self.config.token);
        let block = Some(draft.into_block());
        Ok(if is_doubtful { Opinion::Against(block) } else { Opinion::For(block) })
    }

    /// What the block's receipts hold; `None` where the endpoint does not offer them.
    async fn receipts_of(&self, endpoint: &Endpoint, header: &Header) -> Result<Option<Found>, Failure> {
        let no_receipts = self.lore.get(endpoint.index()).map(|lore| &lore.no_receipts);
        if no_receipts.is_some_and(|none| none.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let params = json!([format!("0x{}", header.at.hash)]);
        match self.rpc.one(endpoint, &Call { method: "eth_getBlockReceipts", params }).await? {
            Ok(receipts) => wire::read_receipts(receipts.get(), header, &self.config.token).map(Some),
            Err(error) => match error.meaning() {
                Meaning::NoSuchBlock | Meaning::Busy => Err(error.failure("eth_getBlockReceipts")),
                // Not there, or not in this plan: logs by hash serve as well, from now on.
                Meaning::NotOffered | Meaning::Forbidden => {
                    if let Some(none) = no_receipts {
                        none.store(true, Ordering::Relaxed);
                    }
                    Ok(None)
                }
                Meaning::TooMuch | Meaning::Other => Ok(None),
            },
        }
    }

    async fn head_of(&self, endpoint: Endpoint) -> Result<BlockRef, Failure> {
        self.prove(&endpoint).await?;
        Ok(self.header_on(&endpoint, Which::Tag("latest")).await?.ok_or_else(no_head)?.at)
    }

    async fn header_of(&self, endpoint: Endpoint, number: u64) -> Result<Option<BlockRef>, Failure> {
        self.prove(&endpoint).await?;
        Ok(self.header_on(&endpoint, Which::Number(number)).await?.map(|header| header.at))
    }

    async fn header_on(&self, endpoint: &Endpoint, which: Which<'_>) -> Result<Option<Header>, Failure> {
        let header = read_header(&self.rpc.one(endpoint, &block_call(which)).await?, which)?;
        match (&header, which) {
            (Some(header), Which::Tag("latest")) => endpoint.saw_head(&header.at),
            (Some(header), _) => endpoint.saw_block(&header.at),
            (None, _) => {}
        }
        Ok(header)
    }

    /// Asks an endpoint once which chain it is on, before its answers are believed.
    async fn prove(&self, endpoint: &Endpoint) -> Result<(), Failure> {
        let proven = self.lore.get(endpoint.index()).map(|lore| &lore.proven);
        if proven.is_some_and(|proven| proven.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let (found, expected) = (self.chain_id(endpoint).await?, self.config.chain_id);
        if found != expected {
            return Err(Failure::Permanent(format!("expected chain id {expected}, found {found}")));
        }
        if let Some(proven) = proven {
            proven.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn chain_id(&self, endpoint: &Endpoint) -> Result<u64, Failure> {
        let told = self.rpc.one(endpoint, &Call { method: "eth_chainId", params: json!([]) }).await?;
        wire::read_quantity(told.map_err(|error| error.failure("eth_chainId"))?.get())
    }

    /// A view of the token contract: what it returned, or why the call did not go through.
    async fn view(&self, endpoint: &Endpoint, selector: &str) -> Result<Result<Vec<u8>, String>, Failure> {
        let call = json!([{ "to": format_address(&self.config.token), "data": selector }, "latest"]);
        match self.rpc.one(endpoint, &Call { method: "eth_call", params: call }).await? {
            Ok(returned) => wire::read_bytes(returned.get()).map(Ok),
            Err(error) if error.meaning() == Meaning::Other => Ok(Err(endpoint.quote(&error.message))),
            Err(error) => Err(error.failure("eth_call")),
        }
    }

    /// Every log of the token in one block, by its hash, approvals and all.
    fn all_logs_call(&self, header: &Header) -> Call {
        let token = format_address(&self.config.token).to_lowercase();
        Call { method: "eth_getLogs", params: json!([{ "blockHash": format!("0x{}", header.at.hash), "address": token }]) }
    }

    /// The logs of the token that concern us. A list in the place of a topic means any of them;
    /// `Transfer` stands first, for an endpoint that looks no further.
    fn logs_call(&self, mut filter: Value) -> Call {
        let notices = notice_log::TOPICS.iter().map(|(_, topic)| *topic);
        let topics: Vec<String> = iter::once(TRANSFER_TOPIC).chain(notices).map(|topic| format!("0x{topic}")).collect();
        if let Some(filter) = filter.as_object_mut() {
            filter.insert("address".into(), format_address(&self.config.token).to_lowercase().into());
            filter.insert("topics".into(), json!([topics]));
        }
        Call { method: "eth_getLogs", params: json!([filter]) }
    }

    /// A view that answers yes or no; `None` from a contract that does not have it.
    async fn flag(&self, endpoint: &Endpoint, data: &str) -> Result<Option<bool>, Failure> {
        let call = json!([{ "to": format_address(&self.config.token), "data": data }, "latest"]);
        match self.rpc.one(endpoint, &Call { method: "eth_call", params: call }).await? {
            Ok(returned) => Ok(abi::flag(&wire::read_bytes(returned.get())?)),
            // Only the contract's own refusal says that it has no such view. Whatever else goes
            // wrong must not pass for "not blacklisted".
            Err(error) if error.is_reverted() => Ok(None),
            Err(error) => Err(error.failure("eth_call")),
        }
    }
}

#[async_trait]
impl Chain for EvmChain {
    async fn identity(&self) -> Result<Identity, Error> {
        let ask = |endpoint: Endpoint| async move {
            let chain_id = self.chain_id(&endpoint).await?;
            let symbol = self.view(&endpoint, SYMBOL).await?;
            Ok((chain_id, symbol, self.view(&endpoint, DECIMALS).await?))
        };
        let (chain_id, symbol, decimals) = self.endpoints.run(Prefer::Current, ask).await?;
        let refuse = |why: &str| {
            let token = format_address(&self.config.token);
            Error::Refused(format!("expected a token contract at {token} on chain {chain_id}, found none: {why}"))
        };
        let (symbol, decimals) = (symbol.map_err(|why| refuse(&why))?, decimals.map_err(|why| refuse(&why))?);
        if symbol.is_empty() && decimals.is_empty() {
            return Err(refuse("there is no code at this address"));
        }
        Ok(Identity {
            chain_id,
            symbol: abi::symbol(&symbol).ok_or_else(|| refuse("it has no symbol()"))?,
            decimals: abi::decimals(&decimals).ok_or_else(|| refuse("it has no decimals()"))?,
        })
    }

    async fn head(&self) -> Result<BlockRef, Error> {
        self.endpoints.run(Prefer::Current, |endpoint| self.head_of(endpoint)).await
    }

    async fn header(&self, number: u64) -> Result<Option<BlockRef>, Error> {
        self.endpoints.run(Prefer::Current, |endpoint| self.header_of(endpoint, number)).await
    }

    async fn blocks(&self, from: u64, limit: u32) -> Result<Vec<Block>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let read = self.endpoints.run_from(from, |endpoint| self.read(endpoint, from, limit));
        let mut drafts = self.endpoints.looking_around(|endpoint| self.head_of(endpoint), read).await?;
        self.settle_doubts(&mut drafts).await?;
        Ok(drafts.into_iter().map(Draft::into_block).collect())
    }

    async fn final_head(&self) -> Result<Option<BlockRef>, Error> {
        let ask = |endpoint: Endpoint| async move {
            self.prove(&endpoint).await?;
            self.header_on(&endpoint, Which::Tag(&self.config.final_tag)).await
        };
        Ok(self.endpoints.run(Prefer::Current, ask).await?.map(|header| header.at))
    }

    async fn reread(&self, block: &BlockRef) -> Result<Option<Block>, Error> {
        let ask = |endpoint: Endpoint| self.reread_on(endpoint, *block);
        self.endpoints.second_opinion(block.number, in_both, ask).await
    }

    async fn token_state(&self, addresses: &[Address]) -> Result<TokenState, Error> {
        check_state_addresses(addresses)?;
        let ask = |endpoint: Endpoint| async move {
            self.prove(&endpoint).await?;
            let endpoint = &endpoint;
            let paused = self.flag(endpoint, PAUSED).await?;
            let deprecated = self.flag(endpoint, DEPRECATED).await?;
            let questions: Vec<String> = addresses.iter().map(|address| format!("{IS_BLACK_LISTED}{}", abi::parameter(address))).collect();
            let questions = questions.into_iter().map(|data| async move { self.flag(endpoint, &data).await });
            let flags: Vec<Option<bool>> = stream::iter(questions).buffered(FLAGS_AT_ONCE).try_collect().await?;
            Ok(TokenState { paused, deprecated, blacklisted: blacklisted(addresses, &flags) })
        };
        self.endpoints.run(Prefer::Current, ask).await
    }

    async fn balances(&self, addresses: &[Address]) -> Result<Balances, Error> {
        check_addresses(addresses)?;
        if addresses.is_empty() {
            return Ok(Balances::default());
        }
        self.endpoints.run(Prefer::Current, |endpoint| self.balances_on(endpoint, addresses)).await
    }

    async fn transaction(&self, hash: &Hash) -> Result<Option<Transaction>, Error> {
        // Each has its own view of what waits, and some forget what is old.
        self.endpoints.search(|endpoint| self.transaction_on(endpoint, *hash)).await
    }

    async fn fee(&self, holder: Option<Address>) -> Result<Fee, Error> {
        self.endpoints.run(Prefer::Current, |endpoint| self.fee_on(endpoint, holder)).await
    }

    async fn second_reading(&self, blocks: &[BlockRef]) -> Result<Vec<SecondReading>, Error> {
        check_blocks(blocks)?;
        self.endpoints.second_opinions(blocks, in_both_of_each, |endpoint, run| self.second_reading_on(endpoint, run)).await
    }

    fn format_address(&self, address: &Address) -> String {
        format_address(address)
    }

    fn parse_address(&self, text: &str) -> Option<Address> {
        parse_address(text)
    }

    async fn witnesses(&self, block: &BlockRef) -> Result<Witnesses, Error> {
        let number = block.number;
        Ok(self.endpoints.witnesses(block, |endpoint| self.header_of(endpoint, number)).await)
    }

    fn endpoints(&self) -> Vec<EndpointHealth> {
        self.endpoints.health()
    }

    fn pool(&self) -> PoolHealth {
        self.endpoints.pool_health()
    }
}

/// The selectors of `symbol()` and `decimals()`.
const SYMBOL: &str = "0x95d89b41";
const DECIMALS: &str = "0x313ce567";
/// The selectors of `paused()`, `deprecated()` and `isBlackListed(address)` (TetherToken.sol).
const PAUSED: &str = "0x5c975abb";
const DEPRECATED: &str = "0x0e136b19";
const IS_BLACK_LISTED: &str = "0xe47d6060";

fn block_call(which: Which<'_>) -> Call {
    let which = match which {
        Which::Number(number) => hex(number),
        Which::Tag(tag) => tag.to_owned(),
    };
    Call { method: "eth_getBlockByNumber", params: json!([which, false]) }
}

/// The header that was asked for; `None` when the endpoint says in any of the usual ways that it
/// does not have it.
fn read_header(told: &Told, which: Which<'_>) -> Result<Option<Header>, Failure> {
    let header = match told {
        Ok(result) => Header::read(result.get())?,
        Err(error) if error.meaning() == Meaning::NoSuchBlock => None,
        Err(error) => return Err(error.failure("eth_getBlockByNumber")),
    };
    match (header, which) {
        (Some(header), Which::Number(number)) if header.at.number != number => {
            Err(Failure::transient(format!("asked for block {number}, got block {}", header.at.number)))
        }
        (header, _) => Ok(header),
    }
}

fn no_head() -> Failure {
    Failure::transient("it has no newest block")
}

/// A number as JSON-RPC writes it.
fn hex(number: u64) -> String {
    format!("{number:#x}")
}
