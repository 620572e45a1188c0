//! TRON, by the HTTP API of a full node: `wallet/…`, and `walletsolidity/…` for what is final. Not
//! every endpoint serves the latter (java-tron does on another port): such a one is asked by the
//! former alone.
//!
//! A block is read by two calls, whatever number of addresses is watched: its header, and
//! `gettransactioninfobyblocknum`, which holds the outcome and the logs of each transaction
//! together. It does not use TRON's `eth_getLogs`, whose index forgets logs (java-tron#4987,
//! #6037) and which does not look at outcomes.

mod address;
mod balances;
mod fee;
#[cfg(fuzzing)]
pub mod fuzzing;
mod second_reading;
mod transaction;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tidegate_rules::block::{Address, Block, BlockRef, Hash};

pub use self::address::{format_address, parse_address};
pub use self::balances::DEPLOYLESS_MAX;
pub use self::fee::{BANDWIDTH, ENERGY, ENERGY_TO_NEW};
pub use self::wire::{Header, parse_header, parse_infos};
use crate::balances::check_addresses;
use crate::endpoints::{Endpoint, Endpoints, Failure, Opinion, Prefer};
use crate::second_reading::{check_blocks, in_both, in_both_of_each};
use crate::{
    Balances, Chain, EndpointHealth, Error, FLAGS_AT_ONCE, Fee, Identity, PoolHealth, SecondReading, TokenState, Transaction, Witnesses,
    abi, blacklisted, check_state_addresses,
};

/// The most blocks that one call of [`Chain::blocks`] reads.
pub const BLOCKS_MAX: u32 = 100;
/// How many blocks are asked for at once while catching up.
const AT_ONCE: usize = 4;

/// What a TRON network is.
#[derive(Clone, Debug)]
pub struct TronConfig {
    /// The last four bytes of the genesis block's id. Every endpoint must be on this chain before
    /// anything it says is believed.
    pub chain_id: u64,
    /// The token contract.
    pub token: Address,
}

/// A TRON network behind its endpoints.
#[derive(Debug)]
pub struct TronChain {
    config: TronConfig,
    endpoints: Endpoints,
    lore: Vec<Lore>,
}

/// What was learned about an endpoint.
#[derive(Debug, Default)]
struct Lore {
    /// It has shown that it is on the right chain.
    proven: AtomicBool,
    /// It does not pretend to create a contract.
    no_deployless: AtomicBool,
    /// It does not show what waits for a block.
    no_pending: AtomicBool,
    /// It does not serve the view of what is solid.
    no_solid: AtomicBool,
    /// It does not say of itself which block is solid.
    no_node_info: AtomicBool,
}

/// Whose view of the chain: the newest, or only what can no longer be taken back.
#[derive(Clone, Copy)]
enum View {
    Full,
    Solid,
}

impl View {
    fn path(self, call: &str) -> String {
        match self {
            Self::Full => format!("wallet/{call}"),
            Self::Solid => format!("walletsolidity/{call}"),
        }
    }
}

impl TronChain {
    /// A chain that has not been spoken to yet.
    #[must_use]
    pub fn new(config: TronConfig, endpoints: Endpoints) -> Self {
        let lore = (0..endpoints.count()).map(|_| Lore::default()).collect();
        Self { config, endpoints, lore }
    }

    async fn read(&self, endpoint: Endpoint, from: u64, limit: u32) -> Result<Vec<Block>, Failure> {
        let endpoint = &endpoint;
        self.prove(endpoint).await?;
        let limit = u64::from(limit.min(BLOCKS_MAX));
        if limit <= 1 {
            let block = self.block_at(endpoint, from, None).await?;
            return Ok(block.into_iter().collect());
        }
        // The head first: at the tip, where nearly every call is made, it is the very header that
        // is needed, and away from it, it says how many blocks there are to fetch.
        let head = self.newest(endpoint, View::Full).await?.ok_or_else(no_head)?;
        if head.at.number < from {
            return Ok(Vec::new());
        }
        let last = head.at.number.min(from.saturating_add(limit).saturating_sub(1));
        let head = &head;
        let blocks: Vec<Option<Block>> =
            stream::iter(from..=last).map(|number| self.block_at(endpoint, number, Some(head))).buffered(AT_ONCE).try_collect().await?;
        Ok(unbroken(blocks))
    }

    /// The whole block at a height; its header need not be asked for when it is the known one.
    async fn block_at(&self, endpoint: &Endpoint, number: u64, known: Option<&Header>) -> Result<Option<Block>, Failure> {
        let header = match known.filter(|header| header.at.number == number) {
            Some(header) => Some(header.clone()),
            None => self.numbered(endpoint, View::Full, number).await?,
        };
        match header {
            Some(header) => self.block_of(endpoint, View::Full, header).await.map(Some),
            None => Ok(None),
        }
    }

    async fn block_of(&self, endpoint: &Endpoint, view: View, header: Header) -> Result<Block, Failure> {
        let request = json!({ "num": header.at.number });
        let answer = endpoint.post(&view.path("gettransactioninfobyblocknum"), &request, 1).await?;
        parse_infos(&answer, &header, &self.config.token)
    }

    async fn head_of(&self, endpoint: Endpoint) -> Result<BlockRef, Failure> {
        self.prove(&endpoint).await?;
        Ok(self.newest(&endpoint, View::Full).await?.ok_or_else(no_head)?.at)
    }

    async fn header_of(&self, endpoint: Endpoint, number: u64) -> Result<Option<BlockRef>, Failure> {
        self.prove(&endpoint).await?;
        Ok(self.numbered(&endpoint, View::Full, number).await?.map(|header| header.at))
    }

    async fn newest(&self, endpoint: &Endpoint, view: View) -> Result<Option<Header>, Failure> {
        let header = parse_header(&endpoint.post(&view.path("getblock"), &json!({ "detail": false }), 1).await?)?;
        match (&header, view) {
            (Some(header), View::Full) => endpoint.saw_head(&header.at),
            (Some(header), View::Solid) => endpoint.saw_block(&header.at),
            (None, _) => {}
        }
        Ok(header)
    }

    async fn numbered(&self, endpoint: &Endpoint, view: View, number: u64) -> Result<Option<Header>, Failure> {
        let request = json!({ "id_or_num": number.to_string(), "detail": false });
        let header = parse_header(&endpoint.post(&view.path("getblock"), &request, 1).await?)?;
        match header {
            Some(header) if header.at.number != number => {
                Err(Failure::transient(format!("asked for block {number}, got block {}", header.at.number)))
            }
            header => {
                if let Some(header) = &header {
                    endpoint.saw_block(&header.at);
                }
                Ok(header)
            }
        }
    }

    /// Asks an endpoint once which chain it is on, before its answers are believed.
    async fn prove(&self, endpoint: &Endpoint) -> Result<(), Failure> {
        let proven = self.lore.get(endpoint.index()).map(|lore| &lore.proven);
        if proven.is_some_and(|proven| proven.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let (found, expected) = (self.chain_id(endpoint).await?, self.config.chain_id);
        if found != expected {
            return Err(Failure::Permanent(format!("expected the TRON chain {expected}, found the chain {found}")));
        }
        if let Some(proven) = proven {
            proven.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn chain_id(&self, endpoint: &Endpoint) -> Result<u64, Failure> {
        let genesis = self.numbered(endpoint, View::Full, 0).await?;
        let hash = genesis.ok_or_else(|| Failure::transient("it does not have block 0"))?.at.hash;
        Ok(hash.0.last_chunk::<4>().map_or(0, |id| u64::from(u32::from_be_bytes(*id))))
    }

    async fn constant(&self, endpoint: &Endpoint, function: &str, parameter: &str) -> Result<Result<Vec<u8>, String>, Failure> {
        let mut request = json!({
            "owner_address": format!("41{}", hex::encode([0; 20])),
            "contract_address": format!("41{}", hex::encode(self.config.token.0)),
            "function_selector": function,
            "visible": false,
        });
        if let Some(request) = request.as_object_mut().filter(|_| !parameter.is_empty()) {
            request.insert("parameter".into(), parameter.into());
        }
        let answer = endpoint.post(&View::Full.path("triggerconstantcontract"), &request, 1).await?;
        Ok(wire::parse_constant(&answer)?.map_err(|why| endpoint.quote(&why)))
    }

    /// A view that answers yes or no; `None` from a contract that does not have it.
    async fn flag(&self, endpoint: &Endpoint, function: &str, parameter: &str) -> Result<Option<bool>, Failure> {
        match self.constant(endpoint, function, parameter).await? {
            Ok(returned) => Ok(abi::flag(&returned)),
            // Only the contract's own refusal says that it has no such view. Whatever else goes
            // wrong (the node's time for a call is up, say) must not pass for "not blacklisted".
            Err(why) if wire::is_reverted(&why) => Ok(None),
            Err(why) => Err(Failure::transient(format!("{function}: {why}"))),
        }
    }

    async fn reread_on(&self, endpoint: Endpoint, block: BlockRef) -> Result<Opinion<Option<Block>>, Failure> {
        self.prove(&endpoint).await?;
        let solid = self.in_solid(&endpoint, self.reread_in(&endpoint, View::Solid, &block)).await?;
        let read = match solid {
            Some(read) => Some(read),
            None => self.reread_in(&endpoint, View::Full, &block).await?,
        };
        read.ok_or_else(|| Failure::Behind(format!("it does not have block {}", block.number)))
    }

    /// `None` where there is no block at that height in this view.
    async fn reread_in(&self, endpoint: &Endpoint, view: View, block: &BlockRef) -> Result<Option<Opinion<Option<Block>>>, Failure> {
        match self.numbered(endpoint, view, block.number).await? {
            Some(header) if header.at.hash != block.hash => Ok(Some(Opinion::Against(None))),
            Some(header) => Ok(Some(Opinion::For(Some(self.block_of(endpoint, view, header).await?)))),
            None => Ok(None),
        }
    }

    async fn final_on(&self, endpoint: Endpoint) -> Result<Option<BlockRef>, Failure> {
        self.prove(&endpoint).await?;
        let solid = self.in_solid(&endpoint, self.newest(&endpoint, View::Solid)).await?;
        let has_no_view = self.lore.get(endpoint.index()).is_some_and(|lore| lore.no_solid.load(Ordering::Relaxed));
        if solid.is_none() && has_no_view {
            return self.solid_by_node_info(&endpoint).await;
        }
        Ok(solid.map(|header| header.at))
    }

    /// What is asked of the view of what is solid; `None` where it has none of it, and where the
    /// endpoint does not serve that view, which is no fault of it and is not asked again.
    async fn in_solid<T>(
        &self,
        endpoint: &Endpoint,
        asked: impl Future<Output = Result<Option<T>, Failure>>,
    ) -> Result<Option<T>, Failure> {
        let no_solid = self.lore.get(endpoint.index()).map(|lore| &lore.no_solid);
        if no_solid.is_some_and(|none| none.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        match asked.await {
            Err(Failure::NotOffered(_)) => {
                // One that has no other path either is broken, and that says nothing about a view.
                self.newest(endpoint, View::Full).await?.ok_or_else(no_head)?;
                if let Some(none) = no_solid {
                    none.store(true, Ordering::Relaxed);
                }
                Ok(None)
            }
            told => told,
        }
    }

    /// The solid block that the node names, if it shows it under the same hash.
    async fn solid_by_node_info(&self, endpoint: &Endpoint) -> Result<Option<BlockRef>, Failure> {
        let no_node_info = self.lore.get(endpoint.index()).map(|lore| &lore.no_node_info);
        if no_node_info.is_some_and(|none| none.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let answer = match endpoint.post(&View::Full.path("getnodeinfo"), &json!({}), 1).await {
            Err(Failure::NotOffered(_)) => {
                if let Some(none) = no_node_info {
                    none.store(true, Ordering::Relaxed);
                }
                return Ok(None);
            }
            told => told?,
        };
        let Some((number, hash)) = wire::parse_solid(&answer)? else { return Ok(None) };
        // Behind a balancer another node may answer now, which does not have it yet.
        let header = self.numbered(endpoint, View::Full, number).await?;
        Ok(header.map(|header| header.at).filter(|at| at.hash == hash))
    }
}

#[async_trait]
impl Chain for TronChain {
    async fn identity(&self) -> Result<Identity, Error> {
        let ask = |endpoint: Endpoint| async move {
            let chain_id = self.chain_id(&endpoint).await?;
            let symbol = self.constant(&endpoint, "symbol()", "").await?;
            Ok((chain_id, symbol, self.constant(&endpoint, "decimals()", "").await?))
        };
        let (chain_id, symbol, decimals) = self.endpoints.run(Prefer::Current, ask).await?;
        let refuse = |why: &str| {
            let token = format_address(&self.config.token);
            Error::Refused(format!("expected a token contract at {token} on the TRON chain {chain_id}, found none: {why}"))
        };
        let (symbol, decimals) = (symbol.map_err(|why| refuse(&why))?, decimals.map_err(|why| refuse(&why))?);
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
        self.endpoints.looking_around(|endpoint| self.head_of(endpoint), read).await
    }

    async fn final_head(&self) -> Result<Option<BlockRef>, Error> {
        self.endpoints.search(|endpoint| self.final_on(endpoint)).await
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
            let paused = self.flag(endpoint, "paused()", "").await?;
            let deprecated = self.flag(endpoint, "deprecated()", "").await?;
            let questions: Vec<String> = addresses.iter().map(abi::parameter).collect();
            let questions =
                questions.into_iter().map(|parameter| async move { self.flag(endpoint, "isBlackListed(address)", &parameter).await });
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

fn no_head() -> Failure {
    Failure::transient("it has no newest block")
}

/// The blocks up to the first that is missing or is not the child of the one before it: the chain
/// may have been reorganised while it was read, and what stands before that point is whole.
fn unbroken(blocks: Vec<Option<Block>>) -> Vec<Block> {
    let mut whole: Vec<Block> = Vec::with_capacity(blocks.len());
    for block in blocks.into_iter().map_while(|block| block) {
        if whole.last().is_some_and(|parent| parent.at.hash != block.at.parent) {
            break;
        }
        whole.push(block);
    }
    whole
}
