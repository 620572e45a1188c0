//! Orders as shops meet them: opening one, choosing a network, cancelling, and how an order looks
//! from outside. What an order becomes is decided in `rules::order`; this module brings it the
//! facts and stores what follows.

mod decide;
pub mod deposit;
mod view;

use std::sync::Arc;

use serde::Serialize;
use tidegate_rules::alert::{Alert, AlertKind};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::changes::{
    Changes, Details, KeptAnswer, NewAlert, NewEvent, NewLease, NewOrder, NewPeriod, OrderChange, WalletChange, WalletMove,
};
use tidegate_rules::id::{DeliveryId, EventId, LeaseId, MerchantId, OrderId};
use tidegate_rules::lease::{self, Lease};
use tidegate_rules::notify::{self, EventType};
use tidegate_rules::order::{self, Depth, Event, Head, Heads, Mark, Purpose, Status, Step, Terms};
use tidegate_rules::time::{Span, Time};
use tidegate_vault::Wallet;

use crate::clock;
use crate::config::NetworkConfig;
use crate::gateway::{Gateway, NetworkPart, Wake};
use crate::plans;
use crate::pool::{Taken, is_fresh};
use crate::problem::{Problem, RACED};
use crate::store::{Commit, MerchantRow, OrderRow, Store, StoreError};

pub use decide::{Cancelling, Edit, Named, cancel, confirm, edit};
pub use view::{
    OrderView, PaymentOption, PublicOrder, Required, TransferView, demanded, hash_text, public_view, shows_addresses, transfer_view, view,
};

/// How often a decision is made again after somebody else's commit was first.
const ATTEMPTS: usize = 8;

/// How often orders that never leased an address are looked at: only the server's clock ends them.
pub const UNLEASED_CHECK: Span = Span::from_secs(5);

/// How many orders are expired in one go.
const EXPIRE_MAX: i64 = 500;

/// What a shop wishes to be paid.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What the money is for.
    pub purpose: Purpose,
    /// How much; at least, where the payer says how much.
    pub amount: Amount,
    /// On which network; `None` lets the payer choose.
    pub network: Option<Network>,
    /// For how long.
    pub expires_in: Option<Span>,
    /// Everything that decides nothing.
    pub details: Details,
}

/// An order that was asked for.
#[derive(Clone, Debug)]
pub enum Opened {
    /// It is new.
    New(OrderView),
    /// The shop's number was used before, for the same amount: this is that order.
    Known(OrderView),
}

/// Opens an order and leases it a wallet, in one commit with its first event.
///
/// `keep` makes the answer to keep under the request's idempotency key.
///
/// # Errors
/// 422 for an amount or a time out of range, 409 `duplicate_merchant_order`, 503
/// `network_unavailable` and `pool_exhausted`.
pub async fn open(
    gateway: &Gateway,
    merchant: &MerchantRow,
    wish: &Wish,
    keep: impl Fn(&OrderView) -> Option<KeptAnswer>,
) -> Result<Opened, Problem> {
    let now = clock::now();
    for _ in 0..ATTEMPTS {
        // First of all: what was said of a known order holds, whatever would be said of a new one now.
        if let Some(number) = &wish.details.merchant_order_id
            && let Some(known) = gateway.store.order_by_merchant_id(merchant.id, number).await?
        {
            if known.order.terms.amount != wish.amount {
                return Err(Problem::conflict(
                    "duplicate_merchant_order",
                    format!(
                        "merchant_order_id {number:?} is order {} over {}; use another number, or the same amount",
                        known.id, known.order.terms.amount
                    ),
                ));
            }
            return Ok(Opened::Known(view(gateway, &known, &gateway.heads())));
        }
        check_wish(gateway, wish)?;
        plans::check(gateway, merchant.id, &wish.details).await?;
        let heads = gateway.heads();
        let mut row = OrderRow {
            id: OrderId::new(now, clock::id_bytes()),
            merchant: merchant.id,
            livemode: gateway.livemode,
            created_at: now,
            details: wish.details.clone(),
            cancel_reason: None,
            order: order::open(terms(gateway, wish, &heads, now)),
            addresses: Vec::new(),
            withheld: Vec::new(),
            transfers: Vec::new(),
            version: 1,
        };
        let mut changes = Changes::default();
        // Held until the commit is over, so that nobody else is offered the wallet.
        let mut _taken = None;
        if let Some(network) = &wish.network {
            let part = part_named(gateway, network)?;
            let head = part.open_head(now)?;
            _taken = Some(lend(gateway, part, &head, &mut row, &mut changes, now).await?);
            row.order.current = Some(network.clone());
        }
        changes.new_orders.push(NewOrder {
            id: row.id,
            merchant: merchant.id,
            livemode: row.livemode,
            created_at: now,
            details: row.details.clone(),
            order: row.order.clone(),
        });
        let view = view(gateway, &row, &heads);
        changes.events.push(event(&row, merchant, EventType::Pending, &view, now));
        changes.answer = keep(&view);
        let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
        match gateway.store.commit(changes).await? {
            Commit::Done => {
                let network = row.order.current.as_ref().map(Network::as_str);
                tracing::info!(order = %row.id, merchant = %merchant.id, amount = %wish.amount, network, "order opened");
                gateway.signal(Wake::Delivery);
                return Ok(Opened::New(view));
            }
            Commit::Conflict => refuse_if_raced(gateway, scope).await?,
        }
        if let Some(network) = &wish.network {
            gateway.pool.lost(gateway, network);
        }
    }
    Err(Problem::unavailable("busy", "too many orders at once; try again"))
}

/// After a conflict: was it another request with the same idempotency key? Then its answer is the
/// answer, and there is nothing to try again.
pub(crate) async fn refuse_if_raced(gateway: &Gateway, scope: Option<String>) -> Result<(), Problem> {
    refuse_if_answered(&gateway.store, scope).await
}

/// The same, of what needs the store alone.
pub(crate) async fn refuse_if_answered(store: &Store, scope: Option<String>) -> Result<(), Problem> {
    match scope {
        Some(scope) if store.kept_answer(&scope).await?.is_some() => {
            Err(Problem::conflict(RACED, "another request with this idempotency key was first; send it again to get its answer"))
        }
        _ => Ok(()),
    }
}

fn check_wish(gateway: &Gateway, wish: &Wish) -> Result<(), Problem> {
    let config = &gateway.config.orders;
    if wish.amount < config.min_amount {
        return Err(Problem::invalid("/amount", format!("expected at least {}", config.min_amount)));
    }
    match &wish.network {
        Some(network) => check_amount("/amount", &part_named(gateway, network)?.config, wish.amount)?,
        None if gateway.networks().values().any(|part| part.config.takes(wish.amount)) => {}
        None => return Err(Problem::invalid("/amount", "no network takes an order of this amount")),
    }
    if let Some(expires_in) = wish.expires_in
        && !(config.min_expires_in..=order::EXPIRES_IN_MAX).contains(&expires_in)
    {
        return Err(Problem::invalid(
            "/expires_in",
            format!("expected {} to {} seconds", config.min_expires_in.secs(), order::EXPIRES_IN_MAX.secs()),
        ));
    }
    Ok(())
}

/// How deep an order's money must be buried on a network. Where the payer says how much, as deep as the
/// largest order has to be: there is no tier to go by.
fn depth(network: &NetworkConfig, purpose: Purpose, amount: Amount) -> Depth {
    match purpose {
        Purpose::Payment => network.depth_for(amount),
        Purpose::OpenAmount | Purpose::Deposits => network.deepest(),
    }
}

/// Refuses an amount that may not be paid on this network.
fn check_amount(pointer: &str, network: &NetworkConfig, amount: Amount) -> Result<(), Problem> {
    if network.takes(amount) {
        return Ok(());
    }
    let limits = [network.min_amount.map(|min| format!("at least {min}")), network.max_amount.map(|max| format!("at most {max}"))];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    Err(Problem::invalid(pointer, format!("{} takes orders of {}", network.name, limits.join(" and "))))
}

/// What is agreed with this order, from the configuration of today.
fn terms(gateway: &Gateway, wish: &Wish, heads: &Heads, now: Time) -> Terms {
    let config = &gateway.config.orders;
    let concerned = gateway.networks().iter().filter(|(name, _)| wish.network.as_ref().is_none_or(|network| network == *name));
    let newest = concerned.filter_map(|(name, part)| part.state().newest.max(heads.get(name).map(|head| head.tip.time))).max();
    Terms {
        purpose: wish.purpose,
        amount: wish.amount,
        tolerance: config.underpayment_tolerance,
        expires_at: newest.map_or(now, |newest| newest.max(now)).plus(wish.expires_in.unwrap_or(config.expires_in)),
        late_window: config.late_window,
        accept_late: config.accept_late,
        cooldown: gateway.config.pool.cooldown,
        depths: gateway.networks().iter().map(|(name, part)| (name.clone(), depth(&part.config, wish.purpose, wish.amount))).collect(),
    }
}

/// An address as its chain writes it, where any network here can read it.
pub fn own_spelling(gateway: &Gateway, address: String) -> String {
    let known = gateway.networks().values().find_map(|part| Some(part.chain.format_address(&part.chain.parse_address(&address)?)));
    known.unwrap_or(address)
}

/// The network of that name.
///
/// # Errors
/// 422 that names those there are.
pub fn part_named<'a>(gateway: &'a Gateway, network: &Network) -> Result<&'a Arc<NetworkPart>, Problem> {
    gateway.networks().get(network).ok_or_else(|| {
        let known: Vec<&str> = gateway.networks().keys().map(Network::as_str).collect();
        Problem::invalid("/network", format!("expected one of: {}", known.join(", ")))
    })
}

/// Lends the order the next free wallet of a network.
async fn lend<'a>(
    gateway: &'a Gateway,
    part: &NetworkPart,
    head: &Head,
    row: &mut OrderRow,
    changes: &mut Changes,
    now: Time,
) -> Result<Taken<'a>, Problem> {
    let settled = head.settled(row.order.terms.depth(&part.config.name));
    // Kept until this is over, or they would be offered again and again.
    let mut tampered = Vec::new();
    loop {
        let taken = gateway.pool.take(gateway, part, settled.map(|settled| settled.number)).await?;
        let wallet = &taken.wallet;
        let id = wallet.id.to_string();
        let bound = Wallet { id: &id, network: wallet.network.as_str(), address: &wallet.address.0 };
        if !gateway.vault.verify_tag(&bound, &wallet.tag) || part.chain.format_address(&wallet.address) != wallet.address_text {
            report_tampered(gateway, &wallet.address_text, &id).await?;
            tampered.push(taken);
            continue;
        }
        let from = lease::start(is_fresh(wallet), settled, wallet.leased_to)
            .ok_or_else(|| Problem::unavailable("network_unavailable", "nothing of this network is settled yet; try again later"))?;
        let lease = Lease {
            id: LeaseId::new(now, clock::id_bytes()),
            order: row.id,
            network: wallet.network.clone(),
            wallet: wallet.id,
            address: wallet.address,
            from,
            to: None,
        };
        changes.wallets.push(WalletChange { id: wallet.id, version: wallet.version, kind: WalletMove::Lease { order: row.id, at: now } });
        // Not the one that was read: while the master key changes that may be under the previous key.
        let tag = gateway.vault.current().tag(&bound);
        changes.new_leases.push(NewLease {
            lease: lease.clone(),
            address_text: wallet.address_text.clone(),
            tag: tag.clone(),
            late_until: row.order.terms.late_until(),
            at: now,
        });
        row.addresses.push((wallet.address_text.clone(), tag));
        row.order.leases.push(lease);
        return Ok(taken);
    }
}

/// A wallet whose address does not match its tag is never handed out.
async fn report_tampered(gateway: &Gateway, address: &str, wallet: &str) -> Result<(), Problem> {
    let alert = Gateway::alert(
        AlertKind::AddressTampered,
        wallet,
        format!("the stored address {address} of wallet {wallet} is not the one it was made with: somebody edited the database"),
        clock::now(),
    );
    let _ = gateway.store.commit(Changes { alerts: vec![alert], ..Changes::default() }).await?;
    Ok(())
}

/// Where an event about an order goes, if its merchant wants to hear of such.
fn receiver(row: &OrderRow, merchant: &MerchantRow, kind: EventType) -> Option<String> {
    row.details.callback_url.clone().or_else(|| merchant.webhook_url.clone()).filter(|_| merchant.wants(kind))
}

/// An event about an order, with its body fixed now and its delivery beside it.
pub fn event(row: &OrderRow, merchant: &MerchantRow, kind: EventType, view: &impl Serialize, at: Time) -> NewEvent {
    let url = receiver(row, merchant, kind);
    NewEvent {
        id: EventId::new(at, clock::id_bytes()),
        kind,
        merchant: row.merchant,
        subject: row.id.into(),
        at,
        body: serde_json::to_string(&notify::body(kind, at, view)).unwrap_or_default(),
        delivery: url.map(|url| (DeliveryId::new(at, clock::id_bytes()), url)),
    }
}

/// What a step of an order has to say, ready to be stored.
pub fn tell(
    gateway: &Gateway,
    row: &OrderRow,
    merchant: &MerchantRow,
    (events, alerts): (&[Event], &[Alert]),
    heads: &Heads,
    at: Time,
    changes: &mut Changes,
) {
    if !events.is_empty() {
        let view = view(gateway, row, heads);
        changes.events.extend(events.iter().map(|what| match (row.order.terms.purpose, &what.transfer) {
            (Purpose::Deposits, Some((network, key))) => deposit::event(gateway, row, merchant, (what.kind, network, *key), at),
            _ => event(row, merchant, what.kind, &view, at),
        }));
        for what in events {
            let (network, tx_hash) = what.transfer.as_ref().map(|(network, key)| (network.as_str(), key.tx_hash.to_string())).unzip();
            let (event, received) = (what.kind.name(), row.order.tally.received);
            tracing::info!(order = %row.id, network, tx_hash, event, %received, "order event");
        }
    }
    if events.iter().any(|what| what.kind == EventType::Paid) {
        changes.new_periods.extend(period(row, merchant, at));
    }
    changes.alerts.extend(alerts.iter().map(|alert| order_alert(row, alert, at)));
}

/// What a paid order adds to its user's membership, if it buys a plan.
fn period(row: &OrderRow, merchant: &MerchantRow, at: Time) -> Option<NewPeriod> {
    let (user, plan) = (row.details.user_id.clone()?, row.details.plan_id.clone()?);
    let url = receiver(row, merchant, EventType::MembershipActivated);
    Some(NewPeriod { order: row.id, merchant: row.merchant, user, plan, at, event: EventId::new(at, clock::id_bytes()), url })
}

fn order_alert(row: &OrderRow, alert: &Alert, at: Time) -> NewAlert {
    let about = match &alert.transfer {
        Some((network, key)) => format!("{} {network} {}/{}", row.id, key.tx_hash, key.ordinal),
        None => row.id.to_string(),
    };
    let detail = match alert.kind {
        AlertKind::LateMoney => "money arrived that this order does not count: too late, or for a cancelled order",
        AlertKind::ExpiredUnderpaid => "the order expired holding money that is not enough",
        AlertKind::PaymentReverted => "the chain took back money of a paid order; what was delivered may have to be taken back",
        _ => "see the order",
    };
    Gateway::alert(alert.kind, about, detail, at)
}

/// One of the merchant's orders.
///
/// # Errors
/// 404 for an unknown one and for another merchant's, which look the same.
pub async fn find(gateway: &Gateway, merchant: Option<MerchantId>, id: &str) -> Result<OrderRow, Problem> {
    let missing = || Problem::not_found("order");
    let id: OrderId = id.parse().map_err(|_| missing())?;
    let row = gateway.store.order(id).await?.ok_or_else(missing)?;
    // A permanent address is met under its customer.
    if merchant.is_some_and(|merchant| merchant != row.merchant) || row.order.terms.purpose == Purpose::Deposits {
        return Err(missing());
    }
    Ok(row)
}

/// Makes a network the payer's current choice, leasing an address there if there is none yet.
///
/// # Errors
/// 409 `order_not_pending`, 422 for an unknown network, 503 as when opening.
pub async fn choose(
    gateway: &Gateway,
    merchant: Option<MerchantId>,
    id: &str,
    network: &Network,
    keep: impl Fn(&OrderView) -> Option<KeptAnswer>,
) -> Result<OrderRow, Problem> {
    for _ in 0..ATTEMPTS {
        let now = clock::now();
        let mut row = find(gateway, merchant, id).await?;
        let part = part_named(gateway, network)?;
        let newest = part.state().newest.max(part.state().head.map(|head| head.tip.time)).unwrap_or(now);
        let leased = row.order.leases.iter().any(|lease| lease.network == *network);
        let mut changes = Changes::default();
        let mut _taken = None;
        let before = row.order.clone();
        let mut lease = None;
        if !leased {
            check_amount("/network", &part.config, row.order.terms.amount)?;
            // Refuse before a wallet is taken, so that a late click costs nothing.
            let refused = before.status != Status::Pending || now > before.terms.expires_at || newest > before.terms.expires_at;
            if refused {
                return Err(order::Refusal::NotPending.into());
            }
            let head = part.open_head(now)?;
            row.order.terms.depths.entry(network.clone()).or_insert_with(|| depth(&part.config, before.terms.purpose, before.terms.amount));
            _taken = Some(lend(gateway, part, &head, &mut row, &mut changes, now).await?);
            lease = row.order.leases.pop();
        }
        row.order = order::choose(&row.order, network, lease, newest, now)?;
        changes.orders.push(OrderChange { id: row.id, version: row.version, order: row.order.clone(), cancel_reason: None, edited: None });
        let view = view(gateway, &row, &gateway.heads());
        changes.answer = keep(&view);
        let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
        if gateway.store.commit(changes).await? == Commit::Done {
            gateway.signal(Wake::Order(row.id));
            return Ok(row);
        }
        refuse_if_raced(gateway, scope).await?;
        if !leased {
            gateway.pool.lost(gateway, network);
        }
    }
    Err(Problem::unavailable("busy", "this order changes too fast; try again"))
}

/// Expires orders that never leased an address: only the server's clock ends them.
///
/// # Errors
/// When the store does not answer.
pub async fn expire_unleased(gateway: &Gateway) -> Result<(), StoreError> {
    let now = clock::now();
    let heads = gateway.heads();
    for id in gateway.store.unleased_orders_past(now, EXPIRE_MAX).await? {
        let Some(mut row) = gateway.store.order(id).await? else { continue };
        let Step { order, events, alerts, .. } = order::advance(&row.order, &row.payments(), &heads, now);
        if order == row.order {
            continue;
        }
        row.order = order;
        let owner = gateway.merchant(row.merchant).await?;
        let mut changes = Changes::default();
        tell(gateway, &row, &owner, (&events, &alerts), &heads, now, &mut changes);
        changes.orders.push(OrderChange { id, version: row.version, order: row.order.clone(), cancel_reason: None, edited: None });
        // A conflict means that the payer chose a network just now: the next round sees.
        if gateway.store.commit(changes).await? == Commit::Done {
            gateway.signal(Wake::Order(id));
            gateway.signal(Wake::Delivery);
        }
    }
    Ok(())
}

/// The mark of a block, for heads.
#[must_use]
pub const fn mark(block: &tidegate_rules::block::BlockRef) -> Mark {
    Mark { number: block.number, time: block.time }
}
