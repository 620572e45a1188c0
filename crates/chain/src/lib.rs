//! Speaks to chains: blocks and the token transfers in them, heads, what a token says of itself
//! and whom it has frozen, what addresses hold, what became of a transaction, what one costs.
//!
//! One trait, [`Chain`], and three that keep it: [`evm`], [`tron`] and [`sandbox`]. The first two
//! share [`endpoints`], the pool of URLs behind a network. This crate cannot reach the database or
//! a key; its manifest proves it. It holds no state about payments: it answers questions.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)
)]

mod abi;
mod balances;
pub mod endpoints;
pub mod evm;
mod fee;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod notice_log;
pub mod sandbox;
mod second_reading;
mod transaction;
mod transfer_log;
pub mod tron;

use async_trait::async_trait;
use tidegate_rules::block::{Address, Block, BlockRef, Hash};

pub use self::balances::{BALANCES_MAX, Balances, SINGLE_BALANCES_AT_ONCE};
pub use self::fee::{Basis, Fee};
pub use self::second_reading::{SECOND_READING_MAX, SecondReading};
pub use self::transaction::{Attempted, Outcome, REASON_CHARS_MAX, Transaction};

pub use self::health::{EndpointHealth, EndpointState, PoolHealth, Switch, SwitchCause, Witnesses};

/// What a network says of itself, to be compared with the configuration before money depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// EIP-155 chain id; for TRON the last four bytes of the genesis block's id.
    pub chain_id: u64,
    /// The token contract's `symbol()`, as it says (attacker text if the contract is not genuine).
    pub symbol: String,
    /// The token contract's `decimals()`.
    pub decimals: u8,
}

/// The most addresses that one call of [`Chain::token_state`] takes: each of them is a request.
pub const STATE_ADDRESSES_MAX: usize = 50;
/// How many of those requests are under way at once.
const FLAGS_AT_ONCE: usize = 5;

/// How a token stands at the newest block: what its notices have led to, whoever saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenState {
    /// `paused()`: nobody can send. `None` when the contract does not say.
    pub paused: Option<bool>,
    /// `deprecated()`: another contract does its work. `None` when the contract does not say.
    pub deprecated: Option<bool>,
    /// Those of the addresses asked about that `isBlackListed(address)` is true of, in the order
    /// asked. None of them when the contract does not have that function.
    pub blacklisted: Vec<Address>,
}

/// A chain as the gateway needs it. Every answer is proven whole or it is an error.
#[async_trait]
pub trait Chain: Send + Sync {
    /// What chain and token this is. A contract that does not answer is [`Error::Refused`].
    async fn identity(&self) -> Result<Identity, Error>;

    /// The newest block that an endpoint shows.
    async fn head(&self) -> Result<BlockRef, Error>;

    /// The header at a height, `None` when the endpoint does not have it (yet).
    async fn header(&self, number: u64) -> Result<Option<BlockRef>, Error>;

    /// Whole blocks from `from` upwards, at most `limit`, consecutive, each one's parent the one
    /// before it. Fewer than asked, or none, when the endpoint does not have them yet. All of
    /// them come from one endpoint, and none is returned whose transfers are not proven complete.
    async fn blocks(&self, from: u64, limit: u32) -> Result<Vec<Block>, Error>;

    /// The newest block that the chain itself holds final: TRON solidified, EVM `finalized`.
    /// `None` when the chain has no final block yet, or no endpoint that answers says which it is.
    async fn final_head(&self) -> Result<Option<BlockRef>, Error>;

    /// Reads a block a second time, once it is settled, by a way that stands on its own: TRON from
    /// the solidified view where it is final, EVM by block hash, both preferring another endpoint
    /// than those that served it. `None` when another block stands at that height now: one endpoint
    /// shows another, and none shows this one but such as served it.
    async fn reread(&self, block: &BlockRef) -> Result<Option<Block>, Error>;

    /// How the token stands now, and which of these addresses it has frozen. A view that the
    /// contract does not have is no error; one that could not be asked is. More than
    /// [`STATE_ADDRESSES_MAX`] addresses are [`Error::Refused`].
    async fn token_state(&self, addresses: &[Address]) -> Result<TokenState, Error>;

    /// What these addresses hold of the token now, all of them or none. More than [`BALANCES_MAX`]
    /// addresses are [`Error::Refused`]; none are answered without a request.
    async fn balances(&self, addresses: &[Address]) -> Result<Balances, Error>;

    /// What became of a transaction. `None` when no endpoint that answered knows it, and at least
    /// one did answer. Not every TRON endpoint shows transactions that wait for a block.
    async fn transaction(&self, hash: &Hash) -> Result<Option<Transaction>, Error>;

    /// What a transfer of the token costs now. The size of it is tried out from `holder`, an
    /// address that holds some of the token and may send it, where one is given.
    async fn fee(&self, holder: Option<Address>) -> Result<Fee, Error>;

    /// Reads blocks that have settled once more, by a way that stands on its own and another
    /// endpoint than those that served them, where there is one. They are a chain, each one's
    /// parent the one before it; anything else, and more than [`SECOND_READING_MAX`] of them, is
    /// [`Error::Refused`]. One answer for each, in their order.
    async fn second_reading(&self, blocks: &[BlockRef]) -> Result<Vec<SecondReading>, Error>;

    /// Writes an address the way people on this chain do (EIP-55, or base58check `T…`).
    fn format_address(&self, address: &Address) -> String;

    /// Reads an address strictly: the form of this chain only, checksum verified where it has one.
    fn parse_address(&self, text: &str) -> Option<Address>;

    /// Which independent endpoints show this block at its height. All that may be asked are asked
    /// at once; those of one host are one witness. Whether that is enough is not decided here.
    async fn witnesses(&self, block: &BlockRef) -> Result<Witnesses, Error>;

    /// How each endpoint is doing, in the order of the configuration, without secrets.
    fn endpoints(&self) -> Vec<EndpointHealth>;

    /// Which of them is in use, and how it came to that.
    fn pool(&self) -> PoolHealth;
}

fn check_state_addresses(addresses: &[Address]) -> Result<(), Error> {
    if addresses.len() <= STATE_ADDRESSES_MAX {
        return Ok(());
    }
    Err(Error::Refused(format!("expected at most {STATE_ADDRESSES_MAX} addresses to ask the token about, found {}", addresses.len())))
}

/// The addresses whose flag, in the same place, is set.
fn blacklisted(addresses: &[Address], flags: &[Option<bool>]) -> Vec<Address> {
    addresses.iter().zip(flags).filter(|(_, flag)| **flag == Some(true)).map(|(address, _)| *address).collect()
}

/// Why a chain did not answer. The question a caller has is: ask again, or not?
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Ask again later: no endpoint answered, all are resting, or the answer was not whole.
    #[error("{0}")]
    Transient(String),
    /// Asking again will not help until somebody changes something: wrong key, wrong chain, a
    /// contract that is not there.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// True when asking again later may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }
}
