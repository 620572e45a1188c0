//! Orders as shops meet them: opening one, choosing a network, cancelling, and how an order looks
//! from outside. What an order becomes is decided in `rules::order`; this module brings it the
//! facts and stores what follows.

use serde::{Deserialize, Serialize};
use tidegate_rules::alert::{Alert, AlertKind};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::changes::{
    Changes, Details, KeptAnswer, NewAlert, NewEvent, NewLease, NewOrder, OrderChange, WalletChange, WalletMove,
};
use tidegate_rules::id::{DeliveryId, EventId, LeaseId, MerchantId, OrderId};
use tidegate_rules::lease::{self, Lease};
use tidegate_rules::notify::{self, EventType};
use tidegate_rules::order::{self, Cancel, Depth, Event, Exception, Head, Heads, Mark, Status, Step, Terms};
use tidegate_rules::time::{Span, Time};
use tidegate_vault::Wallet;
use utoipa::ToSchema;

use crate::clock;
use crate::config::Kind;
use crate::gateway::{Gateway, NetworkPart, Wake};
use crate::pool::{Taken, is_fresh};
use crate::problem::{Problem, RACED};
use crate::store::{Commit, MerchantRow, OrderRow, StoreError};

/// How often a decision is made again after somebody else's commit was first.
const ATTEMPTS: usize = 8;

/// How often orders that never leased an address are looked at: only the server's clock ends them.
pub const UNLEASED_CHECK: Span = Span::from_secs(5);

/// How many orders are expired in one go.
const EXPIRE_MAX: i64 = 500;

/// An order as shops see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderView {
    /// Its id.
    #[schema(example = "ord_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    pub id: String,
    /// Whose it is.
    #[schema(example = "mer_019a5a0fca7e7bd0a3f2c8e1b4d96f71")]
    pub merchant_id: String,
    /// Real money, or the sandbox.
    pub livemode: bool,
    /// `pending`, `confirming`, `paid`, `expired` or `cancelled`.
    #[schema(example = "pending")]
    pub status: String,
    /// `underpaid`, `overpaid`, `late`, `manual`, `reverted`, or null.
    pub exception: Option<String>,
    /// The network the payer chose, or null before the choice.
    #[schema(example = "tron")]
    pub network: Option<String>,
    /// What is paid with.
    #[schema(example = "USDT")]
    pub token: String,
    /// What the shop asks for.
    #[schema(example = "12.500000")]
    pub amount: String,
    /// Counted money that stands on the chain now.
    #[schema(example = "0.000000")]
    pub amount_received: String,
    /// Its settled part.
    #[schema(example = "0.000000")]
    pub amount_confirmed: String,
    /// Where to pay on the chosen network.
    pub address: Option<String>,
    /// The wallet of that address.
    pub wallet_id: Option<String>,
    /// The shop's user.
    pub user_id: Option<String>,
    /// The plan it buys.
    pub plan_id: Option<String>,
    /// The shop's own number.
    pub merchant_order_id: Option<String>,
    /// The fewest confirmations of its counted transfers.
    pub confirmations: u64,
    /// How many are needed: an integer, or `"final"`; null before a network is chosen.
    #[schema(value_type = Option<Object>, example = 19)]
    pub confirmations_required: Option<Required>,
    /// The page for the payer.
    pub checkout_url: String,
    /// A link that wallets understand.
    pub payment_uri: Option<String>,
    /// Every address the order was lent. All of them are watched.
    pub payment_options: Vec<PaymentOption>,
    /// Where this order's webhooks go instead of the merchant's address.
    pub callback_url: Option<String>,
    /// Where the payer may return to.
    pub redirect_url: Option<String>,
    /// The shop's own JSON object.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// The operator's note.
    pub note: Option<String>,
    /// When it was created.
    #[schema(example = "2026-11-23T08:00:00.000Z")]
    pub created_at: String,
    /// Money in blocks up to this time is on time.
    pub expires_at: String,
    /// When it was paid.
    pub paid_at: Option<String>,
    /// When it was cancelled.
    pub cancelled_at: Option<String>,
    /// Every transfer to its addresses, oldest first.
    pub transfers: Vec<TransferView>,
}

/// Confirmations needed: a number, or `"final"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Required {
    /// So many.
    Blocks(u32),
    /// The word `final`.
    Word(String),
}

impl From<Depth> for Required {
    fn from(depth: Depth) -> Self {
        match depth {
            Depth::Blocks(blocks) => Self::Blocks(blocks),
            Depth::Final => Self::Word("final".into()),
        }
    }
}

/// An address the order was lent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PaymentOption {
    /// Where.
    pub network: String,
    /// The address; null if it fails its integrity check, then an alert says so.
    pub address: Option<String>,
    /// Its wallet.
    pub wallet_id: String,
    /// A link that wallets understand.
    pub payment_uri: Option<String>,
}

/// A transfer to an address of the order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransferView {
    /// Its id here.
    pub id: String,
    /// Where.
    pub network: String,
    /// The transaction, as the chain's explorers write it.
    pub tx_hash: String,
    /// Its rank within the transaction.
    pub ordinal: u32,
    /// The block it is in, or was in last.
    pub block_number: u64,
    /// Who paid.
    pub from: String,
    /// To which address.
    pub to: String,
    /// Whole millionths.
    #[schema(example = "12.500000")]
    pub amount: String,
    /// Base units, exactly.
    #[schema(example = "12500000")]
    pub raw_value: String,
    /// `pending`, `confirmed` or `orphaned`.
    #[schema(example = "pending")]
    pub status: String,
    /// Head − block + 1; 0 when it is orphaned.
    pub confirmations: u64,
    /// When it was first seen.
    pub seen_at: String,
}

/// An order as a payer may see it: nothing of what the shop keeps to itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PublicOrder {
    /// Its id.
    pub id: String,
    /// Real money, or the sandbox.
    pub livemode: bool,
    /// As in the order.
    pub status: String,
    /// As in the order.
    pub exception: Option<String>,
    /// As in the order.
    pub network: Option<String>,
    /// As in the order.
    pub token: String,
    /// As in the order.
    pub amount: String,
    /// As in the order.
    pub amount_received: String,
    /// As in the order.
    pub amount_confirmed: String,
    /// Null once the time for paying is over.
    pub address: Option<String>,
    /// As in the order.
    pub confirmations: u64,
    /// As in the order.
    #[schema(value_type = Option<Object>)]
    pub confirmations_required: Option<Required>,
    /// As in the order.
    pub checkout_url: String,
    /// Null once the time for paying is over.
    pub payment_uri: Option<String>,
    /// Empty once the time for paying is over.
    pub payment_options: Vec<PaymentOption>,
    /// As in the order.
    pub redirect_url: Option<String>,
    /// As in the order.
    pub created_at: String,
    /// As in the order.
    pub expires_at: String,
    /// As in the order.
    pub paid_at: Option<String>,
    /// As in the order.
    pub cancelled_at: Option<String>,
    /// As in the order.
    pub transfers: Vec<TransferView>,
}

/// True while a payer may be shown an address: the order is pending, and neither the server's time
/// nor a leased network's head has passed its end.
#[must_use]
pub fn shows_addresses(row: &OrderRow, heads: &Heads, now: Time) -> bool {
    let ends = row.order.terms.expires_at;
    let newest = row.order.leases.iter().filter_map(|lease| heads.get(&lease.network)).map(|head| head.tip.time).max();
    row.order.status == Status::Pending && now <= ends && newest.is_none_or(|newest| newest <= ends)
}

/// An order as a payer may see it.
#[must_use]
pub fn public_view(gateway: &Gateway, row: &OrderRow, heads: &Heads, now: Time) -> PublicOrder {
    let open = shows_addresses(row, heads, now);
    let view = view(gateway, row, heads);
    PublicOrder {
        id: view.id,
        livemode: view.livemode,
        status: view.status,
        exception: view.exception,
        network: view.network,
        token: view.token,
        amount: view.amount,
        amount_received: view.amount_received,
        amount_confirmed: view.amount_confirmed,
        address: view.address.filter(|_| open),
        confirmations: view.confirmations,
        confirmations_required: view.confirmations_required,
        checkout_url: view.checkout_url,
        payment_uri: view.payment_uri.filter(|_| open),
        payment_options: if open { view.payment_options } else { Vec::new() },
        redirect_url: view.redirect_url,
        created_at: view.created_at,
        expires_at: view.expires_at,
        paid_at: view.paid_at,
        cancelled_at: view.cancelled_at,
        transfers: view.transfers,
    }
}

/// An order as the shop sees it.
#[must_use]
pub fn view(gateway: &Gateway, row: &OrderRow, heads: &Heads) -> OrderView {
    let order = &row.order;
    let rest = order.terms.amount.saturating_sub(order.tally.received);
    let asked = if rest.is_zero() { order.terms.amount } else { rest };
    let options: Vec<PaymentOption> = order
        .leases
        .iter()
        .zip(&row.addresses)
        .map(|(lease, (text, tag))| {
            // Write access to the database alone must not redirect payers.
            let genuine = genuine_address(gateway, lease, text, tag);
            PaymentOption {
                network: lease.network.to_string(),
                address: genuine.then(|| text.clone()),
                wallet_id: lease.wallet.to_string(),
                payment_uri: gateway.networks().get(&lease.network).filter(|_| genuine).map(|part| payment_uri(part, text, asked)),
            }
        })
        .collect();
    let current = options.iter().find(|option| order.current.as_ref().is_some_and(|network| network.as_str() == option.network));
    let payments = row.payments();
    let time = |time: Time| time.to_string();
    OrderView {
        id: row.id.to_string(),
        merchant_id: row.merchant.to_string(),
        livemode: row.livemode,
        status: order.status.name().to_owned(),
        exception: order.exception.map(|exception: Exception| exception.name().to_owned()),
        network: order.current.as_ref().map(ToString::to_string),
        token: "USDT".to_owned(),
        amount: order.terms.amount.to_string(),
        amount_received: order.tally.received.to_string(),
        amount_confirmed: order.tally.confirmed.to_string(),
        address: current.and_then(|option| option.address.clone()),
        wallet_id: current.map(|option| option.wallet_id.clone()),
        user_id: row.details.user_id.clone(),
        plan_id: row.details.plan_id.clone(),
        merchant_order_id: row.details.merchant_order_id.clone(),
        confirmations: order::confirmations(order, &payments, heads),
        confirmations_required: order.current.as_ref().map(|network| order.terms.depth(network).into()),
        checkout_url: checkout_url(gateway, row.id),
        payment_uri: current.and_then(|option| option.payment_uri.clone()),
        callback_url: row.details.callback_url.clone(),
        redirect_url: row.details.redirect_url.clone(),
        metadata: serde_json::from_str(&row.details.metadata).unwrap_or_default(),
        note: row.details.note.clone(),
        created_at: time(row.created_at),
        expires_at: time(order.terms.expires_at),
        paid_at: order.facts.paid.map(|paid| time(paid.at)),
        cancelled_at: order.facts.cancelled_at.map(time),
        transfers: row
            .transfers
            .iter()
            .map(|transfer| {
                let payment = &transfer.payment;
                let prefix = match gateway.networks().get(&payment.network).map(|part| part.config.kind) {
                    Some(Kind::Evm) => "0x",
                    _ => "",
                };
                let confirmations =
                    heads.get(&payment.network).filter(|_| payment.standing).map_or(0, |head| head.confirmations(payment.block.number));
                TransferView {
                    id: transfer.id.to_string(),
                    network: payment.network.to_string(),
                    tx_hash: format!("{prefix}{}", payment.key.tx_hash),
                    ordinal: payment.key.ordinal,
                    block_number: payment.block.number,
                    from: transfer.address_texts.0.clone(),
                    to: transfer.address_texts.1.clone(),
                    amount: payment.value.to_amount_saturating(payment.decimals).to_string(),
                    raw_value: payment.value.to_string(),
                    status: payment.status().name().to_owned(),
                    confirmations,
                    seen_at: time(transfer.seen_at),
                }
            })
            .collect(),
        payment_options: options,
    }
}

/// True when an address is the one its wallet was made with, in both spellings.
fn genuine_address(gateway: &Gateway, lease: &Lease, text: &str, tag: &str) -> bool {
    let id = lease.wallet.to_string();
    let wallet = Wallet { id: &id, network: lease.network.as_str(), address: &lease.address.0 };
    let spelled = gateway.networks().get(&lease.network).is_none_or(|part| part.chain.format_address(&lease.address) == text);
    spelled && gateway.vault.verify_tag(&wallet, tag)
}

/// The page for the payer.
fn checkout_url(gateway: &Gateway, id: OrderId) -> String {
    let base =
        gateway.config.server.public_url.as_ref().map_or_else(|| format!("http://{}", gateway.config.server.listen), ToString::to_string);
    format!("{}/pay/{id}", base.trim_end_matches('/'))
}

/// A link that wallets understand: EIP-681 on EVM; TRON has no standard, so the widespread form.
fn payment_uri(part: &NetworkPart, address: &str, amount: Amount) -> String {
    let config = &part.config;
    match config.kind {
        Kind::Evm => {
            let units = amount.to_raw(config.decimals).unwrap_or_default();
            format!("ethereum:{}@{}/transfer?address={address}&uint256={units}", config.token, config.chain_id)
        }
        Kind::Tron => format!("tron:{address}?token={}&amount={amount}", config.token),
    }
}

/// What a shop wishes to be paid.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How much.
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
    check_wish(gateway, wish)?;
    for _ in 0..ATTEMPTS {
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
            gateway.pool.forget(network);
        }
    }
    Err(Problem::unavailable("busy", "too many orders at once; try again"))
}

/// After a conflict: was it another request with the same idempotency key? Then its answer is the
/// answer, and there is nothing to try again.
async fn refuse_if_raced(gateway: &Gateway, scope: Option<String>) -> Result<(), Problem> {
    match scope {
        Some(scope) if gateway.store.kept_answer(&scope).await?.is_some() => {
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

/// What is agreed with this order, from the configuration of today.
fn terms(gateway: &Gateway, wish: &Wish, heads: &Heads, now: Time) -> Terms {
    let config = &gateway.config.orders;
    let concerned = gateway.networks().iter().filter(|(name, _)| wish.network.as_ref().is_none_or(|network| network == *name));
    let newest = concerned.filter_map(|(name, part)| part.state().newest.max(heads.get(name).map(|head| head.tip.time))).max();
    Terms {
        amount: wish.amount,
        tolerance: config.underpayment_tolerance,
        expires_at: newest.map_or(now, |newest| newest.max(now)).plus(wish.expires_in.unwrap_or(config.expires_in)),
        late_window: config.late_window,
        accept_late: config.accept_late,
        cooldown: gateway.config.pool.cooldown,
        depths: gateway.networks().iter().map(|(name, part)| (name.clone(), part.config.depth_for(wish.amount))).collect(),
    }
}

/// The network of that name.
///
/// # Errors
/// 422 that names those there are.
pub fn part_named<'a>(gateway: &'a Gateway, network: &Network) -> Result<&'a NetworkPart, Problem> {
    gateway.networks().get(network).map(std::convert::AsRef::as_ref).ok_or_else(|| {
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
    loop {
        let taken = gateway.pool.take(gateway, part, settled.map(|settled| settled.number)).await?;
        let wallet = &taken.wallet;
        let id = wallet.id.to_string();
        let bound = Wallet { id: &id, network: wallet.network.as_str(), address: &wallet.address.0 };
        if !gateway.vault.verify_tag(&bound, &wallet.tag) || part.chain.format_address(&wallet.address) != wallet.address_text {
            report_tampered(gateway, &wallet.address_text, &id).await?;
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
        changes.new_leases.push(NewLease {
            lease: lease.clone(),
            address_text: wallet.address_text.clone(),
            tag: wallet.tag.clone(),
            late_until: row.order.terms.late_until(),
            at: now,
        });
        row.addresses.push((wallet.address_text.clone(), wallet.tag.clone()));
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

/// An event about an order, with its body fixed now and its delivery beside it.
pub fn event(row: &OrderRow, merchant: &MerchantRow, kind: EventType, view: &OrderView, at: Time) -> NewEvent {
    let url = row.details.callback_url.clone().or_else(|| merchant.webhook_url.clone());
    NewEvent {
        id: EventId::new(at, clock::id_bytes()),
        kind,
        merchant: row.merchant,
        order: row.id,
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
        changes.events.extend(events.iter().map(|what| event(row, merchant, what.kind, &view, at)));
        for what in events {
            tracing::info!(order = %row.id, event = what.kind.name(), received = %row.order.tally.received, "order event");
        }
    }
    changes.alerts.extend(alerts.iter().map(|alert| order_alert(row, alert, at)));
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
    if merchant.is_some_and(|merchant| merchant != row.merchant) {
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
            // Refuse before a wallet is taken, so that a late click costs nothing.
            let refused = before.status != Status::Pending || now > before.terms.expires_at || newest > before.terms.expires_at;
            if refused {
                return Err(order::Refusal::NotPending.into());
            }
            let head = part.open_head(now)?;
            row.order.terms.depths.entry(network.clone()).or_insert_with(|| part.config.depth_for(before.terms.amount));
            _taken = Some(lend(gateway, part, &head, &mut row, &mut changes, now).await?);
            lease = row.order.leases.pop();
        }
        row.order = order::choose(&row.order, network, lease, newest, now)?;
        changes.orders.push(OrderChange { id: row.id, version: row.version, order: row.order.clone(), cancel_reason: None });
        let view = view(gateway, &row, &gateway.heads());
        changes.answer = keep(&view);
        let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
        if gateway.store.commit(changes).await? == Commit::Done {
            gateway.signal(Wake::Order(row.id));
            return Ok(row);
        }
        refuse_if_raced(gateway, scope).await?;
        if !leased {
            gateway.pool.forget(network);
        }
    }
    Err(Problem::unavailable("busy", "this order changes too fast; try again"))
}

/// Cancels an order.
///
/// # Errors
/// 409 `payment_in_progress`, `order_paid`, `order_expired`.
pub async fn cancel(
    gateway: &Gateway,
    merchant: Option<MerchantId>,
    id: &str,
    reason: Option<&str>,
    how: Cancel,
    keep: impl Fn(&OrderView) -> Option<KeptAnswer>,
) -> Result<OrderView, Problem> {
    for _ in 0..ATTEMPTS {
        let now = clock::now();
        let mut row = find(gateway, merchant, id).await?;
        let heads = gateway.heads();
        let Step { order, payments, events, alerts } = order::cancel(&row.order, &row.payments(), how, now)?;
        let mut changes = Changes::default();
        let owner = gateway.merchant(row.merchant).await?;
        if order != row.order {
            row.order = order;
            crate::follow::take_payments(&mut row, payments, &mut changes);
            tell(gateway, &row, &owner, (&events, &alerts), &heads, now, &mut changes);
            changes.orders.push(OrderChange {
                id: row.id,
                version: row.version,
                order: row.order.clone(),
                cancel_reason: reason.map(str::to_owned),
            });
        }
        let view = view(gateway, &row, &heads);
        changes.answer = keep(&view);
        let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
        if gateway.store.commit(changes).await? == Commit::Done {
            gateway.signal(Wake::Order(row.id));
            gateway.signal(Wake::Delivery);
            return Ok(view);
        }
        refuse_if_raced(gateway, scope).await?;
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
        changes.orders.push(OrderChange { id, version: row.version, order: row.order.clone(), cancel_reason: None });
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
