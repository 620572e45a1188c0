//! What people decide about an order: cancelling it, confirming it, changing it. What follows is
//! decided in `rules::order`; here the facts are brought and the outcome is stored, with a row in the
//! audit log where an operator did it.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_rules::audit::Action;
use tidegate_rules::block::{Hash, Network};
use tidegate_rules::changes::{Changes, Details, KeptAnswer, OrderChange, Recorded};
use tidegate_rules::id::{MerchantId, OrderId};
use tidegate_rules::order::{self, Cancel, Status, Step};
use tidegate_rules::time::Time;

use super::{ATTEMPTS, OrderView, find, part_named, refuse_if_raced, tell, view};
use crate::clock;
use crate::follow::{self, Linked, Work};
use crate::gateway::{Gateway, Wake};
use crate::people::Doer;
use crate::problem::Problem;
use crate::store::{Commit, OrderRow, TransferFilter, TransferRow};
use crate::transactions::{self, Standing};

/// The most stray transfers to one wallet that are looked at when an order gets more time.
const STRAYS_MAX: i64 = 200;

/// Who cancels, and how.
pub struct Cancelling<'a> {
    /// Only an order of this merchant; `None` for an operator.
    pub merchant: Option<MerchantId>,
    /// Why.
    pub reason: Option<&'a str>,
    /// Whether money on the chain keeps it from being cancelled.
    pub how: Cancel,
    /// The operator, for the audit log.
    pub doer: Option<&'a Doer>,
}

/// Cancels an order.
///
/// # Errors
/// 409 `payment_in_progress`, `order_paid`, `order_expired`.
pub async fn cancel(
    gateway: &Gateway,
    id: &str,
    asked: Cancelling<'_>,
    keep: impl Fn(&OrderView) -> Option<KeptAnswer>,
) -> Result<OrderView, Problem> {
    let Cancelling { merchant, reason, how, doer } = asked;
    for _ in 0..ATTEMPTS {
        let now = clock::now();
        let mut row = find(gateway, merchant, id).await?;
        let heads = gateway.heads();
        let Step { order, payments, events, alerts } = order::cancel(&row.order, &row.payments(), how, now)?;
        let mut changes = Changes::default();
        let owner = gateway.merchant(row.merchant).await?;
        if order != row.order {
            row.order = order;
            follow::take_payments(&mut row, payments, &mut changes);
            tell(gateway, &row, &owner, (&events, &alerts), &heads, now, &mut changes);
            let cancel_reason = reason.map(str::to_owned);
            changes.orders.push(OrderChange { id: row.id, version: row.version, order: row.order.clone(), cancel_reason, edited: None });
            let detail = json!({ "forced": how == Cancel::Force });
            changes.audit.extend(doer.map(|doer| {
                let done = doer.did(Action::OrderCancel, row.id, now).because(reason.unwrap_or_default());
                done.with(&detail)
            }));
        }
        if let Some(view) = stored(gateway, &row, changes, &keep).await? {
            return Ok(view);
        }
    }
    Err(too_fast())
}

/// A transfer that an operator names to confirm an order with.
pub struct Named {
    /// On which network; `None` for the order's current one.
    pub network: Option<Network>,
    /// Its transaction.
    pub hash: Hash,
    /// Which of the transaction's transfers, where several fit.
    pub ordinal: Option<u32>,
}

/// A person confirms an order, by bare word or with a transfer, which is read from the chain.
///
/// # Errors
/// 409 `order_paid`, `order_cancelled`, `transfer_already_counted`, `transaction_pending`; 422 for a
/// transaction that failed, that is unknown, ours, or of another token, and where several of its
/// transfers fit and none is named.
pub async fn confirm(
    gateway: &Arc<Gateway>,
    id: &str,
    reason: &str,
    named: Option<&Named>,
    doer: &Doer,
    keep: impl Fn(&OrderView) -> Option<KeptAnswer>,
) -> Result<OrderView, Problem> {
    let mut looked = false;
    for _ in 0..ATTEMPTS {
        let now = clock::now();
        let mut row = find(gateway, None, id).await?;
        match row.order.status {
            Status::Paid => return Err(order::Refusal::AlreadyPaid.into()),
            Status::Cancelled => return Err(order::Refusal::AlreadyCancelled.into()),
            Status::Pending | Status::Confirming | Status::Expired => {}
        }
        let heads = gateway.heads();
        let mut changes = Changes::default();
        let mut detail = json!({});
        let Some(named) = named else {
            let step = order::confirm(&row.order, &row.payments(), reason, None, &heads, now)?;
            let owner = gateway.merchant(row.merchant).await?;
            row.order = step.order;
            follow::take_payments(&mut row, step.payments, &mut changes);
            tell(gateway, &row, &owner, (&step.events, &step.alerts), &heads, now, &mut changes);
            changes.orders.push(OrderChange {
                id: row.id,
                version: row.version,
                order: row.order.clone(),
                cancel_reason: None,
                edited: None,
            });
            changes.audit.push(doer.did(Action::OrderConfirm, row.id, now).because(reason).with(&detail));
            if let Some(view) = stored(gateway, &row, changes, &keep).await? {
                return Ok(view);
            }
            continue;
        };
        let network = named.network.clone().or_else(|| row.order.current.clone());
        let network = network.ok_or_else(|| Problem::invalid("/network", "this order has no network yet: say on which the transfer is"))?;
        let part = part_named(gateway, &network)?;
        let found = transactions::known(gateway, part, named.hash).await?;
        let transfers = match found {
            Some(known) => known.transfers,
            None if looked => Vec::new(),
            None => {
                looked = true;
                let known = transactions::look(gateway, part, named.hash).await?;
                match known.standing {
                    Standing::Recorded => known.transfers,
                    Standing::Waiting | Standing::Unread => {
                        return Err(Problem::conflict("transaction_pending", format!("{}; try again in a moment", known.standing)));
                    }
                    Standing::Failed(_) | Standing::Foreign | Standing::Unknown => {
                        return Err(Problem::invalid("/tx_hash", known.standing.to_string()));
                    }
                }
            }
        };
        let mut work = Work::default();
        let transfer = choose(gateway, &mut work, &row, transfers, named.ordinal).await?;
        let key = transfer.payment.key;
        detail = json!({ "network": network.as_str(), "tx_hash": key.tx_hash.to_string(), "ordinal": key.ordinal, "from_order": transfer.order.map(|order| order.to_string()) });
        work.confirm(gateway, row.id, Linked { network: &network, key, reason }, &heads, now, &mut changes).await??;
        let after = work.order(row.id).cloned().unwrap_or(row);
        work.finish(gateway, now, &mut changes).await?;
        changes.audit.push(doer.did(Action::OrderConfirm, after.id, now).because(reason).with(&detail));
        if let Some(view) = stored(gateway, &after, changes, &keep).await? {
            return Ok(view);
        }
    }
    Err(too_fast())
}

/// The transfer that is meant, with its order and the one that has it loaded.
async fn choose(
    gateway: &Gateway,
    work: &mut Work,
    row: &OrderRow,
    transfers: Vec<TransferRow>,
    ordinal: Option<u32>,
) -> Result<TransferRow, Problem> {
    let standing: Vec<TransferRow> = transfers.into_iter().filter(|transfer| transfer.payment.standing).collect();
    if standing.is_empty() {
        return Err(Problem::invalid("/tx_hash", "none of its transfers to the pool stands on the chain"));
    }
    let named = standing.into_iter().filter(|transfer| ordinal.is_none_or(|ordinal| transfer.payment.key.ordinal == ordinal));
    let named: Vec<TransferRow> = named.collect();
    let [first, ..] = named.as_slice() else {
        return Err(Problem::invalid("/ordinal", "the transaction has no transfer of this rank to the pool"));
    };
    if named.iter().all(|transfer| transfer.recorded == Recorded::Own) {
        return Err(Problem::invalid("/tx_hash", "it moves money between wallets of the pool: nobody paid"));
    }
    if first.payment.value.is_zero() || named.iter().all(|transfer| transfer.recorded == Recorded::Unreadable) {
        return Err(Problem::invalid("/tx_hash", "its log does not read as a transfer of money"));
    }
    let mut ids: Vec<OrderId> = named.iter().filter_map(|transfer| transfer.order).collect();
    ids.push(row.id);
    ids.sort_unstable();
    ids.dedup();
    let orders = gateway.store.orders(&ids).await?;
    let counts = |transfer: &TransferRow| {
        let owner = orders.iter().find(|order| Some(order.id) == transfer.order);
        owner.is_some_and(|owner| order::may_count(&owner.order, &transfer.payment))
    };
    let fits = |transfer: &&TransferRow| !matches!(transfer.recorded, Recorded::Own | Recorded::Unreadable) && !counts(transfer);
    let fitting: Vec<&TransferRow> = named.iter().filter(fits).collect();
    let chosen = match fitting.as_slice() {
        [] => return Err(order::Refusal::TransferCounted.into()),
        [one] => (*one).clone(),
        several => {
            let ranks: Vec<String> = several.iter().map(|transfer| transfer.payment.key.ordinal.to_string()).collect();
            return Err(Problem::invalid("/ordinal", format!("several of its transfers fit: expected one of {}", ranks.join(", "))));
        }
    };
    // As the row says it is now: whoever changed it since is found by its version.
    work.load_orders(orders);
    work.load_loose(vec![chosen.clone()]);
    Ok(chosen)
}

/// What an operator changes of an order. `None` leaves it as it is.
#[derive(Debug, Default)]
pub struct Edit {
    /// More time.
    pub expires_at: Option<Time>,
    /// Another JSON object.
    pub metadata: Option<String>,
    /// Another address for its webhooks, or none.
    pub callback_url: Option<Option<String>>,
    /// Another note, or none.
    pub note: Option<Option<String>>,
}

/// Changes an order: later `expires_at` while it is pending, and what decides nothing at any time.
///
/// # Errors
/// 409 `order_not_pending` and `invalid_expires_at`.
pub async fn edit(gateway: &Gateway, id: &str, asked: &Edit, doer: &Doer) -> Result<OrderView, Problem> {
    for _ in 0..ATTEMPTS {
        let now = clock::now();
        let mut row = find(gateway, None, id).await?;
        let heads = gateway.heads();
        let mut changes = Changes::default();
        let mut detail = serde_json::Map::new();
        let details = edited(&row, asked, &mut detail);
        row.details.clone_from(&details);
        if let Some(expires_at) = asked.expires_at {
            detail.insert("expires_at".into(), json!([row.order.terms.expires_at, expires_at]));
            let terms = order::extend(&row.order, &row.payments(), expires_at, &heads, now)?.order.terms;
            let strays = claimable(gateway, &row, expires_at).await?;
            let mut work = Work::default();
            work.load_orders(vec![row.clone()]);
            work.load_loose(strays.clone());
            work.extend(gateway, row.id, (terms, strays), &heads, now, &mut changes).await?;
            row = work.order(row.id).cloned().unwrap_or(row);
            work.finish(gateway, now, &mut changes).await?;
        }
        // Written with the state it goes with: whoever was first is found by the version.
        changes.orders.retain(|change| change.id != row.id);
        let (order, edited) = (row.order.clone(), Some(details));
        changes.orders.push(OrderChange { id: row.id, version: row.version, order, cancel_reason: None, edited });
        changes.audit.push(doer.did(Action::OrderUpdate, row.id, now).with(&Value::Object(detail)));
        if let Some(view) = stored(gateway, &row, changes, &|_: &OrderView| None).await? {
            return Ok(view);
        }
    }
    Err(too_fast())
}

/// The order's details after the edit; what changed goes into the audit log, before and after.
fn edited(row: &OrderRow, asked: &Edit, detail: &mut serde_json::Map<String, Value>) -> Details {
    let mut details = row.details.clone();
    if let Some(metadata) = &asked.metadata {
        // It may hold what is personal: the log says that it changed.
        detail.insert("metadata".into(), json!("changed"));
        details.metadata.clone_from(metadata);
    }
    if let Some(url) = &asked.callback_url {
        detail.insert("callback_url".into(), json!([details.callback_url, url]));
        details.callback_url.clone_from(url);
    }
    if let Some(note) = &asked.note {
        detail.insert("note".into(), json!([details.note, note]));
        details.note.clone_from(note);
    }
    details
}

/// Money at the order's addresses that was nobody's only because of its time, and is the order's if
/// that ends later.
async fn claimable(gateway: &Gateway, row: &OrderRow, expires_at: Time) -> Result<Vec<TransferRow>, Problem> {
    let late_until = expires_at.plus(row.order.terms.late_window);
    let mut found = Vec::new();
    for lease in &row.order.leases {
        let filter = TransferFilter { wallet: Some(lease.wallet), ..TransferFilter::default() };
        let strays = gateway.store.transfers(filter, STRAYS_MAX).await?;
        found.extend(strays.into_iter().filter(|transfer| {
            let payment = &transfer.payment;
            let is_nobodys = transfer.order.is_none() && matches!(transfer.recorded, Recorded::Stray | Recorded::Dust);
            is_nobodys && payment.network == lease.network && payment.block.number > lease.from && payment.block.time <= late_until
        }));
    }
    Ok(found)
}

/// Commits what was decided; the order as it is shown, or `None` when somebody else was first.
async fn stored(
    gateway: &Gateway,
    row: &OrderRow,
    mut changes: Changes,
    keep: &impl Fn(&OrderView) -> Option<KeptAnswer>,
) -> Result<Option<OrderView>, Problem> {
    let view = view(gateway, row, &gateway.heads());
    changes.answer = keep(&view);
    let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
    if gateway.store.commit(changes).await? == Commit::Done {
        gateway.signal(Wake::Order(row.id));
        gateway.signal(Wake::Delivery);
        return Ok(Some(view));
    }
    refuse_if_raced(gateway, scope).await?;
    Ok(None)
}

fn too_fast() -> Problem {
    Problem::unavailable("busy", "this order changes too fast; try again")
}
