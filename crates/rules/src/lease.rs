//! Whose money is this? A lease lends a wallet's address to an order for a stretch of blocks;
//! [`claim`] gives each transfer its order.
//!
//! Leases own heights above `from`; inside a lease the block's own time decides between on time,
//! late and stray. Where a lease ends (`to`) never decides it: a lease is only ended after its
//! whole late window has settled, so feeding blocks one by one or in batches gives the same.

use crate::amount::{Amount, Raw};
use crate::block::{Address, Network};
use crate::id::{LeaseId, OrderId, WalletId};
use crate::order::{Mark, Terms};
use crate::time::{Span, Time};

/// A wallet lent to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The order it serves.
    pub order: OrderId,
    /// Where the wallet lives.
    pub network: Network,
    /// The wallet.
    pub wallet: WalletId,
    /// The wallet's address.
    pub address: Address,
    /// Blocks above this height belong to the lease.
    pub from: u64,
    /// The settled head when the lease ended; `None` while it lives.
    pub to: Option<u64>,
}

/// A lease as [`claim`] needs it: who, from where, and until when money is on time and late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The order.
    pub order: OrderId,
    /// Blocks above this height belong to the lease.
    pub from: u64,
    /// Money in blocks up to this time is on time.
    pub expires_at: Time,
    /// For how long after that it is late, and still this order's.
    pub late_window: Span,
}

/// What a transfer to an address of ours says, as far as its owner matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Base units, never zero.
    pub value: Raw,
    /// The token's decimals on this network.
    pub decimals: u8,
    /// The height of its block.
    pub number: u64,
    /// The time of its block.
    pub time: Time,
    /// True when the sender is a wallet of the pool.
    pub from_own: bool,
}

/// What became of a transfer to an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// On time for this order.
    Order(OrderId),
    /// In this order's late window.
    Late(OrderId),
    /// No order owns the wallet at that height and time.
    Stray,
    /// As stray, and too small to look at.
    Dust,
    /// Between wallets of ours: a sweep, a refund, a fee. Never counts.
    Own,
    /// More than any token moves: a forged or broken one.
    Unreadable,
}

/// Gives a transfer to an address of ours its owner.
///
/// `leases` are those of the wallet, at least the newest that began below the transfer's height; of two
/// that began at one height the last in the list counts. `dust_below` is the amount below which unowned
/// money is dust.
#[must_use]
pub fn claim(leases: &[Window], transfer: &Incoming, dust_below: Amount) -> Claim {
    let Some(amount) = transfer.value.to_amount(transfer.decimals) else {
        return Claim::Unreadable;
    };
    if transfer.from_own {
        return Claim::Own;
    }
    let lease = leases.iter().filter(|lease| lease.from < transfer.number).max_by_key(|lease| lease.from);
    match lease {
        Some(lease) if transfer.time <= lease.expires_at => Claim::Order(lease.order),
        Some(lease) if transfer.time <= lease.expires_at.plus(lease.late_window) => Claim::Late(lease.order),
        _ if amount < dust_below => Claim::Dust,
        _ => Claim::Stray,
    }
}

/// The height a new lease of a wallet starts above.
///
/// Zero only for a key made here that was never leased and never received anything: nobody can
/// have paid to it before. Every other wallet starts at the new order's settled head, or where its
/// last lease ended if that is higher; while there is no settled head it cannot be leased, for then
/// its whole history would be the new order's.
#[must_use]
pub fn start(fresh: bool, settled: Option<Mark>, last_to: Option<u64>) -> Option<u64> {
    if fresh {
        return Some(0);
    }
    Some(settled?.number.max(last_to.unwrap_or(0)))
}

/// True once a lease may end: its order is over, and the settled head of its network is past the
/// late window, so that no money can come any more that would still be this order's.
#[must_use]
pub fn may_end(order_is_over: bool, terms: &Terms, settled: Option<Mark>) -> bool {
    order_is_over && settled.is_some_and(|mark| mark.time > terms.expires_at.plus(terms.late_window))
}
