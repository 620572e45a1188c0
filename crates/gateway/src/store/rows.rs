//! What the store holds, as rows of Rust, and how each is read from a row of the database. A value
//! that does not read is an error that names it; nothing is guessed.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tidegate_rules::amount::Amount;
use tidegate_rules::block::{Address, BlockRef, Hash, Network, TransferKey};
use tidegate_rules::books::Difference;
use tidegate_rules::changes::{DeliveryState, Details, Recorded};
use tidegate_rules::id::{DeliveryId, EndpointId, KeyId, LeaseId, MerchantId, OrderId, SourceId, Subject, TransferId, WalletId};
use tidegate_rules::lease::Lease;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{
    self, Confirmation, Depth, Exception, Facts, Mark, Order, Paid, PaidBy, Payment, PaymentStatus, Purpose, Status, Tally, Terms,
};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::{RiskLevel, WalletKind, WalletStatus};
use tidegate_rules::webhook_endpoint::takes;
use tidegate_vault::SealedKey;

use super::StoreError;

/// What a read finds.
pub(super) type Found<T> = Result<T, StoreError>;

/// A merchant.
#[derive(Clone, Debug)]
pub struct MerchantRow {
    /// Its id.
    pub id: MerchantId,
    /// Its name.
    pub name: String,
    /// Where its webhooks go.
    pub webhook_url: Option<String>,
    /// The types of events that its receivers want, as words; `None` for all.
    pub webhook_events: Option<String>,
    /// Its webhook secret, sealed.
    pub webhook_secret: String,
    /// The secret it had before, sealed, and until when that signs too.
    pub previous_secret: Option<(String, Time)>,
    /// Since when.
    pub created_at: Time,
}

impl MerchantRow {
    /// Whether its receivers want to hear of such events.
    #[must_use]
    pub fn wants(&self, kind: EventType) -> bool {
        takes(self.webhook_events.as_deref(), kind)
    }
}

/// An API key.
#[derive(Clone, Debug)]
pub struct ApiKeyRow {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub merchant: MerchantId,
    /// What it may do, space separated.
    pub scopes: String,
    /// For real money?
    pub livemode: bool,
    /// What people call it.
    pub name: Option<String>,
    /// The addresses and networks it may be used from, space separated; empty for all.
    pub allowed_ips: String,
    /// Since when.
    pub created_at: Time,
    /// Until when it is good.
    pub expires_at: Option<Time>,
    /// When it was used last; up to a minute old.
    pub last_used_at: Option<Time>,
    /// Since when it is void.
    pub revoked_at: Option<Time>,
}

/// Where the follower of a network is.
#[derive(Clone, Debug)]
pub struct NetworkRow {
    /// The network.
    pub name: Network,
    /// The highest tip there ever was.
    pub peak: u64,
    /// The highest final height.
    pub finalized: Option<u64>,
    /// Why it is halted.
    pub halted: Option<String>,
    /// How deep money must be buried at least, while it is in trouble.
    pub floor: Option<Depth>,
    /// The row's version.
    pub version: i64,
    /// The blocks that are kept, oldest first; the last is the tip. Never empty.
    pub recent: Vec<BlockRef>,
}

/// A wallet of the pool.
#[derive(Clone, Debug)]
pub struct WalletRow {
    /// Its id.
    pub id: WalletId,
    /// What people call it.
    pub name: String,
    /// Where it lives.
    pub network: Network,
    /// Its address.
    pub address: Address,
    /// Its address as people write it.
    pub address_text: String,
    /// Where its key comes from.
    pub kind: WalletKind,
    /// What may be done with it now.
    pub status: WalletStatus,
    /// The MAC over (id, network, address).
    pub tag: String,
    /// The sealed key, of a random or imported one.
    pub sealed_key: Option<SealedKey>,
    /// What it is derived from, and its index there.
    pub source: Option<(SourceId, u32)>,
    /// Restricts its use.
    pub risk_level: RiskLevel,
    /// Whether it was ever leased.
    pub ever_leased: bool,
    /// Where its last lease ended.
    pub leased_to: Option<u64>,
    /// The highest block with a recorded transfer to it.
    pub paid_at: Option<u64>,
    /// Its last lease ended: it rests, or has rested.
    pub rested_at: Option<Time>,
    /// The order it is leased to.
    pub order: Option<OrderId>,
    /// Since when.
    pub created_at: Time,
    /// When it was leased last.
    pub last_used_at: Option<Time>,
    /// When its key was last opened and found to give its address.
    pub verified_at: Option<Time>,
    /// What it held beside our records when it was read first, where it may have a past.
    pub opening: Option<Difference>,
    /// What it held when the chain was asked last.
    pub balance: Option<(Amount, Time)>,
    /// The row's version.
    pub version: i64,
}

/// How many wallets of a network have a status.
#[derive(Clone, Debug)]
pub struct WalletCount {
    /// The network.
    pub network: Network,
    /// The status.
    pub status: WalletStatus,
    /// How many.
    pub count: i64,
}

/// A recorded transfer.
#[derive(Clone, Debug)]
pub struct TransferRow {
    /// Its id here.
    pub id: TransferId,
    /// The transfer and its state.
    pub payment: Payment,
    /// The hash of its block.
    pub block_hash: Hash,
    /// What became of it.
    pub recorded: Recorded,
    /// Its order.
    pub order: Option<OrderId>,
    /// Its wallet.
    pub wallet: Option<WalletId>,
    /// Both addresses as people write them: from, to.
    pub address_texts: (String, String),
    /// When it was first seen.
    pub seen_at: Time,
    /// The row's version.
    pub version: i64,
}

/// An order with everything that belongs to it.
#[derive(Clone, Debug)]
pub struct OrderRow {
    /// Its id.
    pub id: OrderId,
    /// Whose.
    pub merchant: MerchantId,
    /// Real money?
    pub livemode: bool,
    /// When it was created.
    pub created_at: Time,
    /// What the shop says.
    pub details: Details,
    /// Why a person cancelled it.
    pub cancel_reason: Option<String>,
    /// The order.
    pub order: Order,
    /// Of each lease, in the order of `order.leases`: the address as people write it, and its tag.
    pub addresses: Vec<(String, String)>,
    /// Wallets that it leases and that were frozen or disabled meanwhile: money still counts, and nobody is
    /// sent there any more.
    pub withheld: Vec<WalletId>,
    /// Its transfers, oldest first.
    pub transfers: Vec<TransferRow>,
    /// The row's version.
    pub version: i64,
}

impl OrderRow {
    /// Its payments alone.
    #[must_use]
    pub fn payments(&self) -> Vec<Payment> {
        self.transfers.iter().map(|transfer| transfer.payment.clone()).collect()
    }
}

/// An event.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// Its place in the order of commits.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// What happened.
    pub kind: String,
    /// When.
    pub at: Time,
    /// Whose.
    pub merchant: MerchantId,
    /// What it is about, by its id.
    pub subject: String,
    /// The body of its webhook.
    pub body: String,
}

/// What takes no further delivery at the moment.
#[derive(Clone, Debug, Default)]
pub struct Busy {
    /// Receivers that are sent as much as they may be at once: scheme, host and port.
    pub origins: Vec<String>,
    /// Of what an endpoint is being told something: it hears of the next thing when it has heard this.
    pub subjects: Vec<(Subject, Option<EndpointId>)>,
}

/// A delivery whose next try is due.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The event's id, which is the `webhook-id`.
    pub event_id: String,
    /// What happened.
    pub kind: String,
    /// Whose secret signs it, unless it goes to an endpoint.
    pub merchant: MerchantId,
    /// The endpoint that it goes to, whose secret signs it.
    pub endpoint: Option<EndpointId>,
    /// What it is about.
    pub subject: Subject,
    /// Where to.
    pub url: String,
    /// Who the receiver is.
    pub origin: String,
    /// When it happened.
    pub event_at: Time,
    /// Tries made by the schedule.
    pub tries: u32,
    /// What it was before somebody asked to send it again, while that try is due.
    pub before: Option<DeliveryState>,
    /// The body.
    pub body: String,
}

/// An answer kept under an idempotency key.
#[derive(Clone, Debug)]
pub struct KeptAnswerRow {
    /// The MAC of the request's body.
    pub body_mac: String,
    /// The status code.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// Reads a column that is written as text.
pub(super) fn parse<T: FromStr>(row: &AnyRow, column: &'static str) -> Found<T> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::corrupt(column, text))
}

pub(super) fn parse_some<T: FromStr>(row: &AnyRow, column: &'static str) -> Found<Option<T>> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| StoreError::corrupt(column, text))).transpose()
}

pub(super) fn named<T>(row: &AnyRow, column: &'static str, from_name: fn(&str) -> Option<T>) -> Found<T> {
    let text: String = row.try_get(column)?;
    from_name(&text).ok_or_else(|| StoreError::corrupt(column, text))
}

pub(super) fn number(row: &AnyRow, column: &'static str) -> Found<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| StoreError::corrupt(column, value))
}

pub(super) fn small(row: &AnyRow, column: &'static str) -> Found<u32> {
    let value: i64 = row.try_get(column)?;
    u32::try_from(value).map_err(|_| StoreError::corrupt(column, value))
}

pub(super) fn number_some(row: &AnyRow, column: &'static str) -> Found<Option<u64>> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(|value| u64::try_from(value).map_err(|_| StoreError::corrupt(column, value))).transpose()
}

pub(super) fn time(row: &AnyRow, column: &'static str) -> Found<Time> {
    Ok(Time::from_millis(row.try_get(column)?))
}

pub(super) fn time_some(row: &AnyRow, column: &'static str) -> Found<Option<Time>> {
    let value: Option<i64> = row.try_get(column)?;
    Ok(value.map(Time::from_millis))
}

pub(super) fn amount(row: &AnyRow, column: &'static str) -> Found<Amount> {
    Ok(Amount::from_micros(number(row, column)?))
}

pub(super) fn flag(row: &AnyRow, column: &'static str) -> Found<bool> {
    let value: i64 = row.try_get(column)?;
    Ok(value != 0)
}

pub(super) fn network(row: &AnyRow, column: &'static str) -> Found<Network> {
    let name: String = row.try_get(column)?;
    Ok(Network::new(&name))
}

pub(super) fn address(row: &AnyRow, column: &'static str) -> Found<Address> {
    let text: String = row.try_get(column)?;
    hex::decode_to_array(&text).map(Address).map_err(|_| StoreError::corrupt(column, text))
}

pub(super) fn wallet(row: &AnyRow) -> Found<WalletRow> {
    Ok(WalletRow {
        id: parse(row, "id")?,
        name: row.try_get("name")?,
        network: network(row, "network")?,
        address: address(row, "address_hex")?,
        address_text: row.try_get("address")?,
        kind: named(row, "kind", WalletKind::from_name)?,
        status: named(row, "status", WalletStatus::from_name)?,
        tag: row.try_get("tag")?,
        sealed_key: row.try_get::<Option<String>, _>("sealed_key")?.map(SealedKey::from_text),
        source: match parse_some(row, "source_id")? {
            Some(source) => Some((source, small(row, "derive_index")?)),
            None => None,
        },
        risk_level: named(row, "risk_level", RiskLevel::from_name)?,
        ever_leased: flag(row, "ever_leased")?,
        leased_to: number_some(row, "leased_to")?,
        paid_at: number_some(row, "paid_at")?,
        rested_at: time_some(row, "rested_at")?,
        order: parse_some(row, "order_id")?,
        created_at: time(row, "created_at")?,
        last_used_at: time_some(row, "last_used_at")?,
        verified_at: time_some(row, "verified_at")?,
        opening: parse_some(row, "opening")?,
        balance: match time_some(row, "balance_at")? {
            Some(at) => Some((amount(row, "balance")?, at)),
            None => None,
        },
        version: row.try_get("version")?,
    })
}

pub(super) fn lease(row: &AnyRow) -> Found<Lease> {
    Ok(Lease {
        id: parse::<LeaseId>(row, "id")?,
        order: parse(row, "order_id")?,
        network: network(row, "network")?,
        wallet: parse(row, "wallet_id")?,
        address: address(row, "address_hex")?,
        from: number(row, "from_height")?,
        to: number_some(row, "to_height")?,
    })
}

pub(super) fn transfer(row: &AnyRow) -> Found<TransferRow> {
    let status: String = row.try_get("status")?;
    let status = PaymentStatus::from_name(&status).ok_or_else(|| StoreError::corrupt("status", status))?;
    Ok(TransferRow {
        id: parse(row, "id")?,
        payment: Payment {
            network: network(row, "network")?,
            key: TransferKey {
                tx_hash: parse(row, "tx_hash")?,
                ordinal: u32::try_from(number(row, "ordinal")?).map_err(|_| StoreError::corrupt("ordinal", "a number above 32 bits"))?,
            },
            from: address(row, "from_hex")?,
            to: address(row, "to_hex")?,
            value: parse(row, "raw_value")?,
            decimals: u8::try_from(number(row, "decimals")?).map_err(|_| StoreError::corrupt("decimals", "a number above 8 bits"))?,
            block: Mark { number: number(row, "block_number")?, time: time(row, "block_time")? },
            standing: matches!(status, PaymentStatus::Pending | PaymentStatus::Confirmed),
            proven: flag(row, "proven")?,
            settled: status == PaymentStatus::Confirmed,
            promoted: flag(row, "promoted")?,
            by_hand: flag(row, "by_hand")?,
            late_told: flag(row, "late_told")?,
            failed: status == PaymentStatus::Failed,
        },
        block_hash: parse(row, "block_hash")?,
        recorded: named(row, "disposition", Recorded::from_name)?,
        order: parse_some(row, "order_id")?,
        wallet: parse_some(row, "wallet_id")?,
        address_texts: (row.try_get("from_address")?, row.try_get("to_address")?),
        seen_at: time(row, "seen_at")?,
        version: row.try_get("version")?,
    })
}

pub(super) fn event(row: &AnyRow) -> Found<EventRow> {
    Ok(EventRow {
        seq: row.try_get("seq")?,
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        at: time(row, "at")?,
        merchant: parse(row, "merchant_id")?,
        subject: row.try_get("subject_id")?,
        body: row.try_get("body")?,
    })
}

/// A depth as the database holds it.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredDepth {
    Blocks(u32),
    Word(String),
}

/// Reads a depth that is one word.
pub(super) fn depth_of(text: &str) -> Found<Depth> {
    match text {
        "final" => Ok(Depth::Final),
        _ => text.parse().map(Depth::Blocks).map_err(|_| StoreError::corrupt("floor", text)),
    }
}

/// A confirmation as the database holds it.
#[derive(Deserialize)]
struct StoredConfirmation {
    reason: String,
    network: Option<String>,
    tx_hash: Option<String>,
    ordinal: Option<u32>,
}

pub(super) fn depths(text: &str) -> Found<BTreeMap<Network, Depth>> {
    let stored: BTreeMap<String, StoredDepth> = serde_json::from_str(text).map_err(|_| StoreError::corrupt("depths", text))?;
    stored
        .into_iter()
        .map(|(name, depth)| match depth {
            StoredDepth::Blocks(blocks) => Ok((Network::new(&name), Depth::Blocks(blocks))),
            StoredDepth::Word(word) if word == "final" => Ok((Network::new(&name), Depth::Final)),
            StoredDepth::Word(word) => Err(StoreError::corrupt("depth", word)),
        })
        .collect()
}

fn confirmation(text: &str) -> Found<Confirmation> {
    let bad = || StoreError::corrupt("confirmation", "JSON of another form");
    let stored: StoredConfirmation = serde_json::from_str(text).map_err(|_| bad())?;
    let transfer = match (stored.network, stored.tx_hash, stored.ordinal) {
        (Some(network), Some(tx_hash), Some(ordinal)) => {
            Some((Network::new(&network), TransferKey { tx_hash: tx_hash.parse().map_err(|_| bad())?, ordinal }))
        }
        _ => None,
    };
    Ok(Confirmation { transfer, reason: stored.reason })
}

/// An order's own row; leases and transfers are added by the caller.
/// The purposes of orders as they are written; that of most is not.
pub(super) const OPEN_AMOUNT: &str = "open_amount";
pub(super) const DEPOSITS: &str = "deposits";

pub(super) fn order_row(row: &AnyRow) -> Found<OrderRow> {
    let depths_text: String = row.try_get("depths")?;
    let terms = Terms {
        purpose: match row.try_get::<Option<String>, _>("purpose")?.as_deref() {
            None => Purpose::Payment,
            Some(OPEN_AMOUNT) => Purpose::OpenAmount,
            Some(DEPOSITS) => Purpose::Deposits,
            Some(other) => return Err(StoreError::corrupt("purpose", other)),
        },
        amount: amount(row, "amount")?,
        tolerance: amount(row, "tolerance")?,
        expires_at: time(row, "expires_at")?,
        late_window: Span::from_millis(number(row, "late_window")?),
        accept_late: flag(row, "accept_late")?,
        cooldown: Span::from_millis(number(row, "cooldown")?),
        depths: depths(&depths_text)?,
    };
    let paid_by: Option<String> = row.try_get("paid_by")?;
    let paid = match (time_some(row, "paid_at")?, paid_by.as_deref()) {
        (Some(at), Some("money")) => Some(Paid { at, by: PaidBy::Money, late: flag(row, "paid_late")? }),
        (Some(at), Some("person")) => Some(Paid { at, by: PaidBy::Person, late: flag(row, "paid_late")? }),
        (None, None) => None,
        _ => return Err(StoreError::corrupt("paid_by", "a word of another version")),
    };
    let confirmation_text: Option<String> = row.try_get("confirmation")?;
    let exception: Option<String> = row.try_get("exception")?;
    let current: Option<String> = row.try_get("network")?;
    Ok(OrderRow {
        id: parse(row, "id")?,
        merchant: parse(row, "merchant_id")?,
        livemode: flag(row, "livemode")?,
        created_at: time(row, "created_at")?,
        details: Details {
            user_id: row.try_get("user_id")?,
            plan_id: row.try_get("plan_id")?,
            merchant_order_id: row.try_get("merchant_order_id")?,
            callback_url: row.try_get("callback_url")?,
            redirect_url: row.try_get("redirect_url")?,
            metadata: row.try_get("metadata")?,
            note: row.try_get("note")?,
            payer_chooses: flag(row, "payer_chooses")?,
        },
        cancel_reason: row.try_get("cancel_reason")?,
        order: Order {
            terms,
            facts: Facts {
                paid,
                expired_at: time_some(row, "expired_at")?,
                cancelled_at: time_some(row, "cancelled_at")?,
                confirmation: confirmation_text.as_deref().map(confirmation).transpose()?,
                reverted: flag(row, "reverted")?,
                excess_told: amount(row, "excess_told")?,
            },
            leases: Vec::new(),
            current: current.as_deref().map(Network::new),
            tally: Tally { received: amount(row, "amount_received")?, confirmed: amount(row, "amount_confirmed")? },
            status: named(row, "status", Status::from_name)?,
            exception: exception
                .map(|name| Exception::from_name(&name).ok_or_else(|| StoreError::corrupt("exception", name)))
                .transpose()?,
        },
        addresses: Vec::new(),
        withheld: Vec::new(),
        transfers: Vec::new(),
        version: row.try_get("version")?,
    })
}

/// The marks of blocks, for heads.
#[must_use]
pub fn marks(recent: &[BlockRef]) -> Arc<[Mark]> {
    recent.iter().map(|block| Mark { number: block.number, time: block.time }).collect()
}

/// I4, for tests and `check`: the stored status equals what the stored facts assess to.
#[must_use]
pub fn is_consistent(row: &OrderRow) -> bool {
    order::assess(&row.order.terms, &row.order.facts, &row.payments()) == (row.order.tally, row.order.status, row.order.exception)
}
