//! A sandbox chain that lets a test act at one exact moment: after a follower has read what a block
//! concerns, and before it commits. What two processes do to each other once in a million blocks
//! happens here every time.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tidegate_chain::sandbox::SandboxChain;
use tidegate_chain::{
    Balances, Chain, EndpointHealth, Error, Fee, Identity, PoolHealth, SecondReading, TokenState, Transaction, Witnesses,
};
use tidegate_rules::block::{Address, Block, BlockRef, Hash};

use super::world::PAYER;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// What is done, once, when a payer's address is written into a new transfer.
pub type Deed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a test leaves the deed.
#[derive(Clone, Default)]
pub struct Meddler(Arc<Mutex<Option<Deed>>>);

impl Meddler {
    pub fn next(&self, deed: impl Future<Output = ()> + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::pin(deed));
    }

    /// True once the deed is done, or while there is none.
    pub fn is_done(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }

    fn act(&self) {
        let deed = self.0.lock().unwrap().take();
        if let Some(deed) = deed {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(deed));
        }
    }
}

pub struct Meddled {
    pub chain: SandboxChain,
    pub meddler: Meddler,
}

impl Chain for Meddled {
    fn identity<'a, 'b>(&'a self) -> Answer<'b, Identity>
    where
        'a: 'b,
        Self: 'b,
    {
        self.chain.identity()
    }

    fn head<'a, 'b>(&'a self) -> Answer<'b, BlockRef>
    where
        'a: 'b,
        Self: 'b,
    {
        self.chain.head()
    }

    fn header<'a, 'b>(&'a self, number: u64) -> Answer<'b, Option<BlockRef>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.chain.header(number)
    }

    fn blocks<'a, 'b>(&'a self, from: u64, limit: u32) -> Answer<'b, Vec<Block>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.chain.blocks(from, limit)
    }

    fn final_head<'a, 'b>(&'a self) -> Answer<'b, Option<BlockRef>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.chain.final_head()
    }

    fn reread<'a, 'c, 'b>(&'a self, block: &'c BlockRef) -> Answer<'b, Option<Block>>
    where
        'a: 'b,
        'c: 'b,
        Self: 'b,
    {
        self.chain.reread(block)
    }

    fn token_state<'a, 'c, 'b>(&'a self, addresses: &'c [Address]) -> Answer<'b, TokenState>
    where
        'a: 'b,
        'c: 'b,
        Self: 'b,
    {
        self.chain.token_state(addresses)
    }

    fn balances<'a, 'c, 'b>(&'a self, addresses: &'c [Address]) -> Answer<'b, Balances>
    where
        'a: 'b,
        'c: 'b,
        Self: 'b,
    {
        self.chain.balances(addresses)
    }

    fn transaction<'a, 'c, 'b>(&'a self, hash: &'c Hash) -> Answer<'b, Option<Transaction>>
    where
        'a: 'b,
        'c: 'b,
        Self: 'b,
    {
        Chain::transaction(&self.chain, hash)
    }

    fn fee<'a, 'b>(&'a self, holder: Option<Address>) -> Answer<'b, Fee>
    where
        'a: 'b,
        Self: 'b,
    {
        self.chain.fee(holder)
    }

    fn second_reading<'a, 'c, 'b>(&'a self, blocks: &'c [BlockRef]) -> Answer<'b, Vec<SecondReading>>
    where
        'a: 'b,
        'c: 'b,
        Self: 'b,
    {
        self.chain.second_reading(blocks)
    }

    fn format_address(&self, address: &Address) -> String {
        if *address == PAYER {
            self.meddler.act();
        }
        self.chain.format_address(address)
    }

    fn parse_address(&self, text: &str) -> Option<Address> {
        self.chain.parse_address(text)
    }

    fn witnesses<'a, 'c, 'b>(&'a self, block: &'c BlockRef) -> Answer<'b, Witnesses>
    where
        'a: 'b,
        'c: 'b,
        Self: 'b,
    {
        self.chain.witnesses(block)
    }

    fn endpoints(&self) -> Vec<EndpointHealth> {
        self.chain.endpoints()
    }

    fn pool(&self) -> PoolHealth {
        self.chain.pool()
    }
}
