//! One unit of change: everything that must be stored together or not at all.
//!
//! The store applies a [`Changes`] in one transaction. Rows that existed before carry the version
//! they were read at; if any of them has moved on meanwhile nothing is applied and the caller
//! reads and decides again.

use crate::alert::{AlertKind, AlertStatus};
use crate::amount::{Amount, Raw};
use crate::audit::Action;
use crate::block::{Address, BlockRef, Hash, Network};
use crate::books::Difference;
use crate::id::{AlertId, DeliveryId, EventId, KeyId, MerchantId, NoticeId, OrderId, SourceId, Subject, TransferId, WalletId};
use crate::lease::{Claim, Lease};
use crate::notification::{Channel, Language, Topic};
use crate::notify::EventType;
use crate::order::{Depth, Order, Payment};
use crate::people::PeopleChange;
use crate::time::{Span, Time};
use crate::wallet::{RiskLevel, WalletKind, WalletStatus, names};
use crate::webhook_endpoint::EndpointChange;

/// What must be stored together. Empty by default.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// On behalf of which duty this is written.
    pub fence: Option<Fence>,
    /// Where the follower of a network is now.
    pub cursor: Option<Cursor>,
    /// Stored only while a network is where it was read: its version.
    pub applied: Option<(Network, i64)>,
    /// Up to where a network was read a second time.
    pub reconciled: Option<Reconciled>,
    /// New wallets.
    pub new_wallets: Vec<NewWallet>,
    /// Wallets that are taken, returned or paid to.
    pub wallets: Vec<WalletChange>,
    /// New orders.
    pub new_orders: Vec<NewOrder>,
    /// Orders that took a step.
    pub orders: Vec<OrderChange>,
    /// New leases, of new and of old orders.
    pub new_leases: Vec<NewLease>,
    /// Leases that end, and the settled height they end at.
    pub ended_leases: Vec<(Lease, u64)>,
    /// Transfers seen, or seen again in another state.
    pub transfers: Vec<TransferChange>,
    /// What wallets hold.
    pub balances: Vec<NewBalance>,
    /// Entries of the books.
    pub journal: Vec<JournalEntry>,
    /// What happened, for the shop.
    pub events: Vec<NewEvent>,
    /// What paid orders add to memberships.
    pub new_periods: Vec<NewPeriod>,
    /// What happened, for the operator.
    pub alerts: Vec<NewAlert>,
    /// Tries of deliveries.
    pub deliveries: Vec<DeliveryChange>,
    /// New sources of keys.
    pub new_sources: Vec<NewSource>,
    /// New merchants.
    pub new_merchants: Vec<NewMerchant>,
    /// Where webhooks of merchants go from now on.
    pub webhook_urls: Vec<(MerchantId, Option<String>)>,
    /// Which events go to the receivers of merchants from now on, as words; `None` for all.
    pub webhook_events: Vec<(MerchantId, Option<String>)>,
    /// Further receivers of merchants' webhooks.
    pub endpoints: Vec<EndpointChange>,
    /// New API keys.
    pub new_api_keys: Vec<NewApiKey>,
    /// People, their sessions and their credentials.
    pub people: Vec<PeopleChange>,
    /// Sealed texts that another master key seals now.
    pub reseals: Vec<Reseal>,
    /// Indexes that wallets were derived at.
    pub derivations: Vec<Derivation>,
    /// Alerts that a person dealt with.
    pub alert_changes: Vec<AlertChange>,
    /// Up to which event messages were made.
    pub told: Option<Told>,
    /// New messages to the operator and to customers.
    pub new_notices: Vec<NewNotice>,
    /// Tries of messages.
    pub notices: Vec<NoticeChange>,
    /// Texts of messages that a person changed.
    pub templates: Vec<TemplateChange>,
    /// What people did, for the audit log.
    pub audit: Vec<NewAudit>,
    /// The answer to keep under an idempotency key.
    pub answer: Option<KeptAnswer>,
}

/// The right to write on behalf of a duty that one process at a time holds. Conflicts once another
/// process has taken the duty over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The duty.
    pub duty: String,
    /// How often it was taken over when the writer took it.
    pub number: i64,
}

/// What a paid order adds to a membership, if its plan is one of ours. The store finds out from when
/// to when, and tells it as an event (`membership.activated`) in the same commit; an order adds once,
/// however often it is asked to.
#[derive(Clone, Debug)]
pub struct NewPeriod {
    /// The order.
    pub order: OrderId,
    /// Whose shop.
    pub merchant: MerchantId,
    /// The shop's user.
    pub user: String,
    /// The plan.
    pub plan: String,
    /// When the order was paid.
    pub at: Time,
    /// The id of the event.
    pub event: EventId,
    /// Where the event goes.
    pub url: Option<String>,
}

/// A step of the second reader of a network. Conflicts unless it is at `from`.
#[derive(Clone, Debug)]
pub struct Reconciled {
    /// The network.
    pub network: Network,
    /// The last block that was compared before; `None` for the first step.
    pub from: Option<u64>,
    /// The last block that is compared now.
    pub to: u64,
}

/// What a wallet holds, as the chain says.
#[derive(Clone, Debug)]
pub struct NewBalance {
    /// The wallet.
    pub wallet: WalletId,
    /// Base units.
    pub value: Raw,
    /// Whole millionths of it, for lists.
    pub amount: Amount,
    /// The block that it was read at.
    pub block: u64,
    /// What came by our records up to that block, and what went to another wallet of ours; `None`
    /// while the block was not applied here yet.
    pub records: Option<(Raw, Raw)>,
    /// When.
    pub at: Time,
    /// What a wallet with a past held, beside our records, when it was read first: its books begin
    /// there.
    pub opening: Option<Difference>,
    /// Whether it is kept in the history, too: nothing is gained by keeping what did not change.
    pub is_snapshot: bool,
}

/// A seed, or an extended public key, that wallets are derived from.
#[derive(Clone, Debug)]
pub struct NewSource {
    /// Its id.
    pub id: SourceId,
    /// [`WalletKind::Hd`] or [`WalletKind::Watch`].
    pub kind: WalletKind,
    /// What people call it, unique.
    pub name: String,
    /// The one network of an extended public key; a seed serves all.
    pub network: Option<Network>,
    /// The hardened account number of BIP-44.
    pub account: u32,
    /// The sealed seed.
    pub sealed: Option<String>,
    /// The extended public key of the account.
    pub xpub: Option<String>,
    /// The MAC that binds the extended public key to this source.
    pub mac: Option<String>,
    /// Since when.
    pub created_at: Time,
}

/// A merchant that joins.
#[derive(Clone, Debug)]
pub struct NewMerchant {
    /// Its id.
    pub id: MerchantId,
    /// Its name, unique.
    pub name: String,
    /// Where its webhooks go.
    pub webhook_url: Option<String>,
    /// Its sealed webhook secret.
    pub webhook_secret: String,
    /// Since when.
    pub created_at: Time,
}

/// An API key, by the hash of its secret.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub merchant: MerchantId,
    /// The SHA-256 of the whole key.
    pub secret_hash: String,
    /// What it may do, space separated.
    pub scopes: String,
    /// For real money?
    pub livemode: bool,
    /// What people call it.
    pub name: Option<String>,
    /// Until when it is good.
    pub expires_at: Option<Time>,
    /// The addresses and networks it may be used from, space separated; empty for all.
    pub allowed_ips: String,
    /// Since when.
    pub created_at: Time,
}

/// Which column a sealed text, or a MAC, stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealedIn {
    /// A wallet's key.
    WalletKey,
    /// A wallet's tag.
    WalletTag,
    /// The copy of a wallet's tag on a lease.
    LeaseTag,
    /// A seed.
    Seed,
    /// The MAC of an extended public key.
    SourceMac,
    /// A merchant's webhook secret.
    WebhookSecret,
    /// The webhook secret that a merchant had before.
    PreviousSecret,
    /// The secret of a further receiver of webhooks.
    EndpointSecret,
    /// The secret that such a receiver had before.
    PreviousEndpointSecret,
    /// The secret of somebody's second factor.
    TotpSecret,
    /// A setting of the installation.
    Setting,
}

/// A sealed text under another master key. Conflicts unless `old` stands there.
#[derive(Clone, Debug)]
pub struct Reseal {
    /// Where.
    pub place: SealedIn,
    /// In the row with this id (the name, of a setting).
    pub id: String,
    /// What stands there.
    pub old: String,
    /// What is to stand there.
    pub new: String,
}

/// The next index of a source of keys on a network moves on. Conflicts unless it is `from`.
#[derive(Clone, Debug)]
pub struct Derivation {
    /// The source.
    pub source: SourceId,
    /// The network.
    pub network: Network,
    /// The first index that was used now.
    pub from: u32,
    /// The next one to use.
    pub to: u32,
}

/// A step of an alert, told as an event in the same commit. Conflicts unless the alert is in `from`.
#[derive(Clone, Debug)]
pub struct AlertChange {
    /// The alert.
    pub id: AlertId,
    /// The id of its event.
    pub event: EventId,
    /// What it was.
    pub from: AlertStatus,
    /// What it is.
    pub to: AlertStatus,
    /// Who says so.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub at: Time,
}

/// What somebody did. The store chains it to what was done before (see [`crate::audit`]).
#[derive(Clone, Debug)]
pub struct NewAudit {
    /// When.
    pub at: Time,
    /// Who: an API key, or a user of the machine.
    pub actor: String,
    /// What.
    pub action: Action,
    /// To what: an id.
    pub subject: String,
    /// From where: an address, or `command line`.
    pub origin: String,
    /// Why, in the words of whoever did it.
    pub reason: String,
    /// What else there is to know, as a JSON object. Never a secret.
    pub detail: String,
}

/// A move of a network's cursor.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// The network.
    pub network: Network,
    /// The version of the network's row; `None` makes the row.
    pub version: Option<i64>,
    /// Blocks above this height are forgotten first: the branch that was left.
    pub rewind_to: Option<u64>,
    /// Blocks applied, lowest first.
    pub blocks: Vec<BlockRef>,
    /// Blocks below this height are not needed any more.
    pub forget_below: Option<u64>,
    /// The last applied height after this change.
    pub tip: u64,
    /// The highest tip there ever was.
    pub peak: u64,
    /// The highest final height.
    pub finalized: Option<u64>,
    /// How deep money must be buried at least, while the network is in trouble.
    pub floor: Option<Depth>,
    /// Why the network is halted, if it is.
    pub halted: Option<String>,
}

/// A wallet that joins the pool.
#[derive(Clone, Debug)]
pub struct NewWallet {
    /// Its id.
    pub id: WalletId,
    /// What people call it.
    pub name: String,
    /// Where it lives.
    pub network: Network,
    /// Its address.
    pub address: Address,
    /// Its address as people on this chain write it.
    pub address_text: String,
    /// Where its key comes from.
    pub kind: WalletKind,
    /// The sealed key, of a random or imported one.
    pub sealed_key: Option<String>,
    /// What it is derived from, and its index there.
    pub source: Option<(SourceId, u32)>,
    /// The MAC over (id, network, address).
    pub tag: String,
    /// Its place in the queue of the free.
    pub queue_rank: i64,
    /// Since when.
    pub created_at: Time,
}

/// A change of a wallet that was read at `version`.
#[derive(Clone, Debug)]
pub struct WalletChange {
    /// The wallet.
    pub id: WalletId,
    /// The version it was read at.
    pub version: i64,
    /// What happens to it.
    pub kind: WalletMove,
}

/// What happens to a wallet.
#[derive(Clone, Debug)]
pub enum WalletMove {
    /// Lent to an order.
    Lease {
        /// The order.
        order: OrderId,
        /// When.
        at: Time,
    },
    /// Its lease ended: it rests until a time of its settled chain.
    Rest {
        /// What it is now: see [`crate::wallet::lease_ended`].
        status: WalletStatus,
        /// The height its lease ended at.
        leased_to: u64,
        /// When it may be leased again, in chain time.
        until: Time,
    },
    /// It has rested.
    Return {
        /// What it is now: see [`crate::wallet::rested`].
        status: WalletStatus,
        /// Its place in the queue of the free.
        queue_rank: i64,
    },
    /// Money arrived in this block: it is not lent again before that block is settled.
    PaidAt(u64),
    /// A person, or an alarm, put it into another state.
    Put {
        /// Into this one.
        status: WalletStatus,
        /// Its place in the queue of the free.
        queue_rank: i64,
        /// Until when it rests, where it was sent to rest now.
        rested_at: Option<Time>,
    },
    /// How far it is trusted.
    Risk(RiskLevel),
    /// It is called something else.
    Rename(String),
}

impl WalletMove {
    /// The status that the move leads to, where it changes it.
    #[must_use]
    pub const fn status(&self) -> Option<WalletStatus> {
        match self {
            Self::Lease { .. } => Some(WalletStatus::Occupied),
            Self::Rest { status, .. } | Self::Return { status, .. } | Self::Put { status, .. } => Some(*status),
            Self::PaidAt(_) | Self::Risk(_) | Self::Rename(_) => None,
        }
    }
}

/// What a shop says about an order; decides nothing about payment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Details {
    /// The shop's user.
    pub user_id: Option<String>,
    /// The plan to activate.
    pub plan_id: Option<String>,
    /// The shop's own number, unique per merchant.
    pub merchant_order_id: Option<String>,
    /// Where webhooks go instead of the merchant's address.
    pub callback_url: Option<String>,
    /// Where the payer may return to.
    pub redirect_url: Option<String>,
    /// The shop's own JSON object, as text.
    pub metadata: String,
    /// The operator's note.
    pub note: Option<String>,
    /// Whether the shop left the choice of network to the payer.
    pub payer_chooses: bool,
}

/// An order that is created.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// Its id.
    pub id: OrderId,
    /// Whose it is.
    pub merchant: MerchantId,
    /// Real money?
    pub livemode: bool,
    /// When.
    pub created_at: Time,
    /// What the shop says.
    pub details: Details,
    /// The order.
    pub order: Order,
}

/// An order that took a step.
#[derive(Clone, Debug)]
pub struct OrderChange {
    /// The order.
    pub id: OrderId,
    /// The version it was read at.
    pub version: i64,
    /// Its state now.
    pub order: Order,
    /// Why a person cancelled it, where one did now.
    pub cancel_reason: Option<String>,
    /// What decides nothing, where a person changed any of it: callback URL, metadata and note.
    pub edited: Option<Details>,
}

/// A lease and the tag of its wallet's address.
#[derive(Clone, Debug)]
pub struct NewLease {
    /// The lease.
    pub lease: Lease,
    /// The wallet's address as people on this chain write it.
    pub address_text: String,
    /// The MAC over (wallet, network, address).
    pub tag: String,
    /// When the order's late window ends.
    pub late_until: Time,
    /// Since when.
    pub at: Time,
}

/// What became of a transfer, as it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recorded {
    /// Counts for its order.
    Matched,
    /// Came too late for its order and does not count.
    Late,
    /// No order owns it.
    Stray,
    /// As stray, and very small.
    Dust,
    /// Between wallets of ours.
    Own,
    /// Cannot be read.
    Unreadable,
}

names!(Recorded:
    Matched "matched",
    Late "late",
    Stray "stray",
    Dust "dust",
    Own "own",
    Unreadable "unreadable",
);

impl Recorded {
    /// What is recorded of a transfer that was claimed so, and for which order.
    #[must_use]
    pub const fn of(claim: Claim) -> (Option<OrderId>, Self) {
        match claim {
            Claim::Order(order) => (Some(order), Self::Matched),
            Claim::Late(order) => (Some(order), Self::Late),
            Claim::Stray => (None, Self::Stray),
            Claim::Dust => (None, Self::Dust),
            Claim::Own => (None, Self::Own),
            Claim::Unreadable => (None, Self::Unreadable),
        }
    }
}

/// A transfer, new or in a new state.
#[derive(Clone, Debug)]
pub struct TransferChange {
    /// Its id here.
    pub id: TransferId,
    /// The version it was read at; `None` for a new one.
    pub version: Option<i64>,
    /// The transfer and its state.
    pub payment: Payment,
    /// The hash of the block it is in, or was in last.
    pub block_hash: Hash,
    /// What became of it.
    pub recorded: Recorded,
    /// The order it belongs to.
    pub order: Option<OrderId>,
    /// The wallet it went to; `None` for an unreadable one that names none of ours.
    pub wallet: Option<WalletId>,
    /// Both addresses as people on this chain write them: from, to.
    pub address_texts: (String, String),
    /// It moves something else than before, or to somebody else: on another branch a transaction may.
    pub rewritten: bool,
    /// The raw log of an unreadable one.
    pub raw_log: Option<String>,
    /// When it was first seen.
    pub seen_at: Time,
}

/// A double entry: `value` moves from one account to another. Append-only: a correction is an
/// entry the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The transfer it records.
    pub transfer: TransferId,
    /// Which entry about this transfer: 0, then one more for every correction.
    pub turn: i64,
    /// Where.
    pub network: Network,
    /// The account that has more after it.
    pub debit: String,
    /// The account that has less after it.
    pub credit: String,
    /// Base units.
    pub value: Raw,
    /// When.
    pub at: Time,
}

/// An event, its body, and where it goes.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its id; also the `webhook-id`.
    pub id: EventId,
    /// What happened.
    pub kind: EventType,
    /// Whose.
    pub merchant: MerchantId,
    /// To what.
    pub subject: Subject,
    /// When.
    pub at: Time,
    /// The body of its webhook, fixed now.
    pub body: String,
    /// Where it is delivered to, if anywhere. The store adds the merchant's endpoints that take it.
    pub delivery: Option<(DeliveryId, String)>,
}

/// An alert. Where it is a new one, or opens a closed one again, the store tells it as an event
/// (`wallet.alert`) in the same commit.
#[derive(Clone, Debug)]
pub struct NewAlert {
    /// Its id, unless the same thing has an alert already.
    pub id: AlertId,
    /// The id of its event.
    pub event: EventId,
    /// What happened.
    pub kind: AlertKind,
    /// What it is about, as a text that is the same whenever the same thing is meant: one alert
    /// each.
    pub about: String,
    /// In words.
    pub detail: String,
    /// When.
    pub at: Time,
}

/// The outcome of a try of a delivery.
#[derive(Clone, Debug)]
pub struct DeliveryChange {
    /// The delivery.
    pub id: DeliveryId,
    /// Who had claimed it, where that is needed. Nothing but the try itself is noted if somebody else
    /// has claimed it since.
    pub claim: Option<String>,
    /// Tries made, this one included.
    pub tries: u32,
    /// What it is now.
    pub state: DeliveryState,
    /// The status code of the answer, if one came.
    pub code: Option<u16>,
    /// The failure in words, if it failed.
    pub error: Option<String>,
    /// When.
    pub at: Time,
    /// Where it was sent to.
    pub url: String,
    /// How long the answer took.
    pub took: Span,
    /// The beginning of the body that came back.
    pub answer: Option<String>,
}

/// What becomes of a delivery after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// Accepted.
    Delivered,
    /// To be tried again then.
    Due(Time),
    /// The schedule is used up.
    Failed,
}

/// Where the making of messages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldMark {
    /// The last event, by its place in the order of commits.
    pub seq: i64,
    /// The end of the last digest.
    pub digest_until: Time,
}

/// A step of the making of messages, with the messages it makes. Conflicts unless it is at `from`.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Where it was; `None` for the first step.
    pub from: Option<ToldMark>,
    /// Where it is.
    pub to: ToldMark,
}

/// A message to the operator or to a customer, as it will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNotice {
    /// Its id.
    pub id: NoticeId,
    /// What it is about.
    pub topic: Topic,
    /// The event that it tells, if it tells one.
    pub event: Option<String>,
    /// The order that it is about, if it is about one.
    pub order: Option<String>,
    /// How it travels.
    pub channel: Channel,
    /// To whom, as the channel addresses people.
    pub recipient: String,
    /// In which language.
    pub language: Language,
    /// Its subject; empty where the channel has none.
    pub subject: String,
    /// Its text.
    pub body: String,
    /// When it was made; it is due at once.
    pub at: Time,
}

/// The outcome of a try of a message, or a person's wish for another.
#[derive(Clone, Debug)]
pub struct NoticeChange {
    /// The message.
    pub id: NoticeId,
    /// Who had claimed it, where that is needed. Changes nothing if somebody else has claimed it since.
    pub claim: Option<String>,
    /// Tries made, this one included.
    pub tries: u32,
    /// What it is now.
    pub state: NoticeState,
    /// The failure in words, if it failed.
    pub error: Option<String>,
    /// When.
    pub at: Time,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeState {
    /// Accepted.
    Sent,
    /// To be tried again then.
    Due(Time),
    /// Not tried any more.
    Failed,
    /// A person wants it tried again now, from the start. Conflicts when it was sent.
    Again,
}

/// A text of messages, or its return to the one that it came with.
#[derive(Clone, Debug)]
pub struct TemplateChange {
    /// Of this topic.
    pub topic: Topic,
    /// On this channel.
    pub channel: Channel,
    /// In this language.
    pub language: Language,
    /// Subject and body; `None` for those that it came with.
    pub text: Option<(String, String)>,
    /// When.
    pub at: Time,
}

/// An answer that is kept under an idempotency key.
#[derive(Clone, Debug)]
pub struct KeptAnswer {
    /// Merchant, method, path and key, in one text.
    pub scope: String,
    /// The MAC of the request's body.
    pub body_mac: String,
    /// The status code.
    pub status: u16,
    /// The `Location` header, if there was one.
    pub location: Option<String>,
    /// The body.
    pub body: String,
    /// When.
    pub at: Time,
}
