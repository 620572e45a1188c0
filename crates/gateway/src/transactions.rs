//! One transaction by its hash, as support, a payer or a provider's hint names it: what is recorded
//! of it, and where nothing is, what the chain says.
//!
//! Whoever names a hash decides nothing. Money that a block holds and that was missed is taken in by
//! reading that block again, as `scan` does; a transaction that failed is recorded as failed, so
//! that nobody waits for it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_chain::{Attempted, Outcome, Transaction};
use tidegate_rules::block::{Address, BlockRef, Hash, Network, TransferKey};
use tidegate_rules::changes::{Changes, OrderChange, Recorded};
use tidegate_rules::id::{OrderId, TransferId};
use tidegate_rules::lease::{self, Incoming};
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{Payment, Status};
use tidegate_rules::time::Time;

use crate::clock;
use crate::follow::{self, transfer_change};
use crate::gateway::{Gateway, NetworkPart, Wake};
use crate::orders::{self, mark};
use crate::problem::Problem;
use crate::store::{Commit, OrderRow, TransferFilter, TransferRow, WalletRow};

/// How often a decision is made again after somebody else's commit was first.
const ATTEMPTS: usize = 5;

/// The most transfers of one transaction that are shown.
const SHOWN_MAX: i64 = 200;

/// What is known of a transaction.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where.
    pub network: Network,
    /// Its hash.
    pub hash: Hash,
    /// What that means for us.
    pub standing: Standing,
    /// Its transfers to addresses of ours, as recorded.
    pub transfers: Vec<TransferRow>,
    /// The number of its block, where the chain was asked.
    pub block: Option<u64>,
}

/// What a transaction means for us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Its money is recorded; each transfer says what became of it.
    Recorded,
    /// It waits for a block.
    Waiting,
    /// It is in a block that was not read yet, and pays to us.
    Unread,
    /// It failed: nothing moved. Why, in the chain's words.
    Failed(String),
    /// It succeeded and pays nothing to an address of ours.
    Foreign,
    /// No endpoint knows it.
    Unknown,
}

impl Standing {
    /// The word in the API.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Waiting => "waiting",
            Self::Unread => "unread",
            Self::Failed(_) => "failed",
            Self::Foreign => "foreign",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded => f.write_str("its transfers to wallets of the pool are recorded"),
            Self::Waiting => f.write_str("it is not in a block yet"),
            Self::Unread => f.write_str("it is in a block that will be read in a moment"),
            Self::Failed(why) => write!(f, "it failed and moved nothing: {why}"),
            Self::Foreign => f.write_str("it succeeded, and pays nothing of this token to a wallet of the pool"),
            Self::Unknown => f.write_str("no endpoint of this network knows it; check the hash and the network"),
        }
    }
}

/// Why a recorded transfer counts, or does not.
#[must_use]
pub fn why(row: &TransferRow) -> &'static str {
    if row.payment.failed {
        return "its transaction failed: nothing moved";
    }
    if !row.payment.standing {
        return "its block is no longer part of the chain";
    }
    match (row.recorded, row.payment.by_hand) {
        (Recorded::Matched, true) => "linked to its order by a person",
        (Recorded::Matched, false) => "paid to the order's address in time, or late and accepted",
        (Recorded::Late, _) => "came after the order's time, or the order was cancelled: it does not count",
        (Recorded::Stray, _) => "no order owned the address at that time",
        (Recorded::Dust, _) => "no order owned the address at that time, and it is below pool.dust_below",
        (Recorded::Own, _) => "came from another wallet of the pool",
        (Recorded::Unreadable, _) => "its log does not read as a transfer",
    }
}

/// Reads a hash as people write it on either kind of chain.
///
/// # Errors
/// 422 that says what was expected.
pub fn parse_hash(pointer: &str, text: &str) -> Result<Hash, Problem> {
    let text = text.trim().to_ascii_lowercase();
    text.parse().map_err(|error| Problem::invalid(pointer, format!("{error}")))
}

/// What is recorded of a transaction, where any of it stands on the chain. What failed, or left the
/// chain, may be in a block meanwhile.
///
/// # Errors
/// When the store does not answer.
pub async fn known(gateway: &Gateway, part: &NetworkPart, hash: Hash) -> Result<Option<Known>, Problem> {
    let transfers = recorded(gateway, part, hash).await?;
    let stands = transfers.iter().any(|row| row.payment.standing);
    let network = part.config.name.clone();
    Ok(stands.then_some(Known { network, hash, standing: Standing::Recorded, transfers, block: None }))
}

/// What the chain says of a transaction; what is ours is taken in.
///
/// # Errors
/// 503 when no endpoint answers; when the store does not answer.
pub async fn look(gateway: &Arc<Gateway>, part: &Arc<NetworkPart>, hash: Hash) -> Result<Known, Problem> {
    let found = part.chain.transaction(&hash).await.map_err(|error| unreachable(part, &error))?;
    let block = found.as_ref().and_then(|found| found.block);
    let standing = match found {
        None => Standing::Unknown,
        Some(found) => mean(gateway, part, &found).await?,
    };
    let transfers = recorded(gateway, part, hash).await?;
    let standing = if transfers.iter().any(|row| row.payment.standing) { Standing::Recorded } else { standing };
    Ok(Known { network: part.config.name.clone(), hash, standing, transfers, block: block.map(|block| block.number) })
}

/// What a transaction means for us, with everything that follows from it stored.
async fn mean(gateway: &Arc<Gateway>, part: &Arc<NetworkPart>, found: &Transaction) -> Result<Standing, Problem> {
    let standing = match (&found.outcome, found.block) {
        (Outcome::Pending, _) | (_, None) => Standing::Waiting,
        (Outcome::Failed { reason }, Some(block)) => {
            record_failed(gateway, part, found, &block, reason).await?;
            Standing::Failed(reason.clone())
        }
        (Outcome::Succeeded, Some(block)) => take_in(gateway, part, found, &block).await?,
    };
    Ok(standing)
}

fn unreachable(part: &NetworkPart, error: &tidegate_chain::Error) -> Problem {
    tracing::warn!(network = %part.config.name, %error, "a transaction could not be asked for");
    Problem::unavailable("network_unavailable", format!("{} could not be asked; try again later", part.config.name))
}

/// Every recorded transfer of a transaction.
///
/// # Errors
/// When the store does not answer.
pub async fn recorded(gateway: &Gateway, part: &NetworkPart, hash: Hash) -> Result<Vec<TransferRow>, Problem> {
    let filter = TransferFilter { network: Some(part.config.name.clone()), tx_hash: Some(hash), ..TransferFilter::default() };
    Ok(gateway.store.transfers(filter, SHOWN_MAX).await?)
}

/// A transaction that is in a block and pays to us: read its block again, unless it comes next.
async fn take_in(gateway: &Arc<Gateway>, part: &Arc<NetworkPart>, found: &Transaction, block: &BlockRef) -> Result<Standing, Problem> {
    let addresses: Vec<Address> = found.transfers.iter().map(|transfer| transfer.to).collect();
    if addresses.is_empty() || gateway.store.wallets_at(&part.config.name, &addresses).await?.is_empty() {
        return Ok(Standing::Foreign);
    }
    let tip = part.state().head.map(|head| head.tip.number);
    if tip.is_none_or(|tip| block.number > tip) {
        gateway.signal(Wake::Look);
        return Ok(Standing::Unread);
    }
    match follow::scan(gateway, part, block.number, block.number, |_| {}).await {
        Ok(_) => Ok(Standing::Recorded),
        Err(error) => {
            tracing::warn!(network = %part.config.name, block = block.number, %error, "the block of a named transaction could not be read again");
            Err(Problem::unavailable(
                "network_unavailable",
                format!("block {} of {} could not be read again; try again later", block.number, part.config.name),
            ))
        }
    }
}

/// Records that a transaction that was to pay to us failed, and tells the shop if an order was
/// waiting for it. Once: a second look finds the row.
async fn record_failed(gateway: &Gateway, part: &NetworkPart, found: &Transaction, block: &BlockRef, reason: &str) -> Result<(), Problem> {
    let Some(attempted) = found.attempted else { return Ok(()) };
    let name = &part.config.name;
    let Some(wallet) = gateway.store.wallets_at(name, &[attempted.to]).await?.into_iter().next() else { return Ok(()) };
    for _ in 0..ATTEMPTS {
        if !recorded(gateway, part, found.hash).await?.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        let owner = owner(gateway, part, &wallet, &attempted, block).await?;
        let row = failed_row(part, found.hash, &wallet, &attempted, block, owner, now);
        let mut changes = Changes { transfers: vec![transfer_change(&row, None)], ..Changes::default() };
        let order = match owner.0 {
            Some(id) => gateway.store.order(id).await?,
            None => None,
        };
        let waiting = |order: &OrderRow| matches!(order.order.status, Status::Pending | Status::Confirming);
        if let Some(mut order) = order.filter(waiting) {
            order.transfers.push(row);
            let merchant = gateway.merchant(order.merchant).await?;
            let view = orders::view(gateway, &order, &gateway.heads());
            changes.events.push(orders::event(&order, &merchant, EventType::PaymentFailed, &view, now));
            // Who decides on the order meanwhile must not miss it.
            changes.orders.push(OrderChange {
                id: order.id,
                version: order.version,
                order: order.order.clone(),
                cancel_reason: None,
                edited: None,
            });
            tracing::info!(order = %order.id, network = %part.config.name, tx_hash = %found.hash, reason, "a payment failed on the chain");
        }
        let woken: Vec<OrderId> = changes.orders.iter().map(|change| change.id).collect();
        if gateway.store.commit(changes).await? == Commit::Done {
            for order in woken {
                gateway.signal(Wake::Order(order));
                gateway.signal(Wake::Delivery);
            }
            return Ok(());
        }
    }
    Err(Problem::unavailable("busy", "the order changes all the time; try again"))
}

/// Whose the money would have been.
async fn owner(
    gateway: &Gateway,
    part: &NetworkPart,
    wallet: &WalletRow,
    attempted: &Attempted,
    block: &BlockRef,
) -> Result<(Option<OrderId>, Recorded), Problem> {
    let windows = gateway.store.windows(&[wallet.id], block.number..=block.number).await?.remove(&wallet.id).unwrap_or_default();
    let incoming = Incoming {
        value: attempted.value,
        decimals: part.config.decimals,
        number: block.number,
        time: block.time,
        from_own: !gateway.store.wallets_at(&part.config.name, &[attempted.from]).await?.is_empty(),
    };
    Ok(Recorded::of(lease::claim(&windows, &incoming, gateway.config.pool.dust_below)))
}

/// The row of a transaction that failed. A transfer of it that succeeds on another branch has the
/// same name and takes the row over.
fn failed_row(
    part: &NetworkPart,
    hash: Hash,
    wallet: &WalletRow,
    attempted: &Attempted,
    block: &BlockRef,
    (order, recorded): (Option<OrderId>, Recorded),
    now: Time,
) -> TransferRow {
    let format = |address: &Address| part.chain.format_address(address);
    TransferRow {
        id: TransferId::new(now, clock::id_bytes()),
        payment: Payment {
            network: part.config.name.clone(),
            key: TransferKey { tx_hash: hash, ordinal: 0 },
            from: attempted.from,
            to: attempted.to,
            value: attempted.value,
            decimals: part.config.decimals,
            block: mark(block),
            standing: false,
            proven: false,
            settled: false,
            promoted: false,
            by_hand: false,
            late_told: false,
            failed: true,
        },
        block_hash: block.hash,
        recorded,
        order,
        wallet: Some(wallet.id),
        address_texts: (format(&attempted.from), format(&attempted.to)),
        seen_at: now,
        version: 0,
    }
}
