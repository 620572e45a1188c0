//! The payer's pages: the checkout in every state an order can be in, and the error pages.
//!
//! A page is a pure function of a [`CheckoutView`] and a [`Lang`]. The HTTP layer fills the view;
//! nothing here reads a clock, a database or a header, and no money is added up: every figure
//! arrives as text. The state is decided once, in [`phase`], and shown by one template; the
//! script only fetches the same fragment again. All text is escaped by askama; what goes in as
//! markup is the QR code, which holds numbers only.

mod show;
mod text;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use askama::Template;

pub use show::qr_svg;
use text::{Text, fill};

/// The script of the checkout, served at [`js_url`].
pub const CHECKOUT_JS: &str = include_str!("../../assets/checkout.js");

/// The style of all pages here, served at [`css_url`].
pub const CHECKOUT_CSS: &str = include_str!("../../assets/checkout.css");

/// The policy these pages are written for: nothing inline, nothing from elsewhere.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Below this, the page warns that a withdrawal from an exchange may come too late.
const SOON_MS: i64 = 5 * 60 * 1_000;

/// The longest amount that fits a phone in the largest letters.
const FIGURE_LEN: usize = 8;

/// The version in an asset's address: a hash of its content, so that it may be cached for ever.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "run by the compiler, which stops at either")]
const fn content_version(content: &str) -> u64 {
    // FNV-1a. It tells versions apart; it protects nothing.
    let bytes = content.as_bytes();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Where the pages look for [`CHECKOUT_JS`]: `/assets/checkout.js?v=<hash>`.
#[must_use]
pub fn js_url() -> String {
    const VERSION: u64 = content_version(CHECKOUT_JS);
    format!("/assets/checkout.js?v={VERSION:016x}")
}

/// Where the pages look for [`CHECKOUT_CSS`]: `/assets/checkout.css?v=<hash>`.
#[must_use]
pub fn css_url() -> String {
    const VERSION: u64 = content_version(CHECKOUT_CSS);
    format!("/assets/checkout.css?v={VERSION:016x}")
}

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Simplified Chinese.
    Zh,
}

impl Lang {
    /// The language that `?lang=` asks for, else the one that `Accept-Language` prefers among
    /// ours, else English.
    #[must_use]
    pub fn choose(query: Option<&str>, accept_language: Option<&str>) -> Self {
        if let Some(lang) = query.and_then(Self::of_tag) {
            return lang;
        }
        let mut best: Option<(u16, Self)> = None;
        for range in accept_language.unwrap_or_default().split(',') {
            let (tag, params) = range.split_once(';').unwrap_or((range, ""));
            let Some(lang) = Self::of_tag(tag) else { continue };
            let weight = quality(params);
            // The first of equals wins: that is the reader's order.
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, lang));
            }
        }
        best.map_or(Self::En, |(_, lang)| lang)
    }

    /// The value of `?lang=` for this language.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    /// The language of a tag such as `zh-Hans-CN`.
    fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split(['-', '_']).next().unwrap_or_default();
        match primary.to_ascii_lowercase().as_str() {
            "en" => Some(Self::En),
            "zh" => Some(Self::Zh),
            _ => None,
        }
    }
}

/// The weight in thousandths of `q=0.8`; what is missing counts full, what is nonsense nothing.
fn quality(params: &str) -> u16 {
    let Some(value) = params.trim().strip_prefix("q=") else { return 1_000 };
    let (whole, fraction) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    match whole {
        "1" => 1_000,
        "0" if fraction.len() <= 3 => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

/// What an order is, as the contract names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Money is awaited.
    Pending,
    /// Enough has arrived, not yet settled.
    Confirming,
    /// Settled.
    Paid,
    /// The chain has passed its time without enough money.
    Expired,
    /// Called off.
    Cancelled,
}

/// What is unusual about an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// Something arrived, not enough.
    Underpaid,
    /// More arrived than asked.
    Overpaid,
    /// Money came after the time.
    Late,
    /// A person confirmed it.
    Manual,
    /// Paid, then undone by the chain.
    Reverted,
}

/// How many confirmations an order needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Required {
    /// This many.
    Number(u32),
    /// As many as make it final.
    Final,
}

/// What has become of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStatus {
    /// In a block, not yet settled.
    Pending,
    /// Settled.
    Confirmed,
    /// Its transaction failed.
    Failed,
    /// Its block is no longer part of the chain.
    Orphaned,
}

/// One transfer to an address of the order.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The transaction's hash, in full; the page shortens it and copies all of it.
    pub tx_hash: String,
    /// The network's name for people.
    pub network: String,
    /// In token, a decimal string.
    pub amount: String,
    /// What has become of it.
    pub status: TransferStatus,
    /// How many blocks stand on it, its own included.
    pub confirmations: u64,
}

/// Why a network cannot be chosen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It has not stored its first cursor.
    Starting,
    /// It is more than `max_lag` behind.
    Lagging,
    /// It stands still or cannot be reached.
    Halted,
    /// The pool has no free wallet and cannot grow.
    NoAddress,
}

/// A network that the payer may choose.
#[derive(Clone, Debug)]
pub struct NetworkOption {
    /// Its name in the configuration; posted to `/pay/{id}/options`.
    pub network: String,
    /// Its name for people, such as `TRON (TRC-20)`.
    pub display_name: String,
    /// The payer's choice now.
    pub current: bool,
    /// `None` when it can be chosen, or is fine if it is the current one.
    pub unavailable: Option<Unavailable>,
}

/// What a form answered, shown once above the page's content.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The network of this display name could not be chosen.
    NetworkUnavailable(String),
    /// The order takes no choice any more (`order_not_pending`).
    OptionsClosed,
}

/// A network on which the order has an address.
#[derive(Clone, Debug)]
pub struct LeasedNetwork {
    /// Its name in the configuration; posted to `/pay/{id}/transaction`.
    pub network: String,
    /// Its name for people.
    pub display_name: String,
    /// The payer's choice now.
    pub current: bool,
}

/// What was found out about a transaction that a payer handed in, as far as it concerns his order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It pays the order, and is settled.
    Confirmed,
    /// It pays the order, and is not settled yet.
    Confirming,
    /// It came after the order had ended, and does not count.
    Late,
    /// It waits for a block.
    Waiting,
    /// It is in a block that was not read yet, whoever it pays.
    Unread,
    /// It failed; the order still awaits money.
    Failed,
    /// It failed; the order awaits money no more.
    FailedOver,
    /// It pays nothing to this order, whoever else it may pay.
    Foreign,
    /// The network does not know it.
    Unknown,
    /// What was typed is no hash.
    NotAHash,
    /// The order has no address on that network.
    NoAddress,
    /// There were too many tries.
    TooMany,
    /// The network cannot be asked now.
    Unreachable,
}

impl Outcome {
    /// The word for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Confirming => "confirming",
            Self::Late => "late",
            Self::Waiting => "waiting",
            Self::Unread => "unread",
            Self::Failed | Self::FailedOver => "failed",
            Self::Foreign => "foreign",
            Self::Unknown => "unknown",
            Self::NotAHash => "not_a_hash",
            Self::NoAddress => "no_address",
            Self::TooMany => "too_many",
            Self::Unreachable => "unreachable",
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Self::Confirmed => Tone::Done,
            Self::Confirming | Self::Waiting | Self::Unread => Tone::Work,
            _ => Tone::Care,
        }
    }
}

/// A transaction that the payer handed in, and the answer.
#[derive(Clone, Debug)]
pub struct HandedIn {
    /// What he typed.
    pub typed: String,
    /// The name of the network in the configuration, if there is one.
    pub network: Option<String>,
    /// The answer.
    pub outcome: Outcome,
}

/// The sandbox's "pay" panel; only `tidegate dev` fills it.
#[derive(Clone, Debug)]
pub struct SandboxPanel {
    /// The network that the buttons pay on, `None` before one is chosen.
    pub network: Option<SandboxNetwork>,
}

/// A simulated network.
#[derive(Clone, Debug)]
pub struct SandboxNetwork {
    /// Its name, posted to `/pay/{id}/sandbox`.
    pub network: String,
    /// Its name for people.
    pub display_name: String,
}

/// Everything that a checkout page shows. Amounts are decimal strings in token with six fraction
/// digits, as in the API; times are milliseconds since the epoch.
#[derive(Clone, Debug)]
pub struct CheckoutView {
    /// `ord_…`
    pub order_id: String,
    /// The shop's name.
    pub merchant_name: String,
    /// False puts a "test mode" banner on the page.
    pub livemode: bool,
    /// The order's status.
    pub status: Status,
    /// What is unusual about it.
    pub exception: Option<Exception>,
    /// The token's symbol.
    pub token: String,
    /// What the order asks for; the least of it where the payer says how much.
    pub amount: String,
    /// The payer says how much.
    pub open_amount: bool,
    /// The counted money that stands on the chain (`amount_received`).
    pub received: String,
    /// What is still to pay to reach what is due, never below zero.
    pub remaining: String,
    /// What was paid beyond the amount, never below zero.
    pub excess: String,
    /// All money that stands on the chain for this order, counted or not (late money too).
    pub recorded: String,
    /// The current network's name for people, `None` before a choice.
    pub network: Option<String>,
    /// Where to pay; `None` when it may not be shown. The page hides it by itself when
    /// `server_time_ms` has reached `expires_at_ms`, and in every state but pending.
    pub address: Option<String>,
    /// A link that opens a wallet (EIP-681 and the like); shown only with a scheme known here.
    pub payment_uri: Option<String>,
    /// What the QR code holds; the plain address, since support for anything else is uneven.
    pub qr_payload: Option<String>,
    /// The networks of this order: all that may be chosen, or the one it was made for.
    pub options: Vec<NetworkOption>,
    /// The networks on which it was ever lent an address.
    pub leased: Vec<LeasedNetwork>,
    /// The least among the counted transfers.
    pub confirmations: u64,
    /// What the order needs; `None` without a network.
    pub confirmations_required: Option<Required>,
    /// Every transfer to its addresses.
    pub transfers: Vec<Transfer>,
    /// When it was made.
    pub created_at_ms: i64,
    /// Until when it may be paid.
    pub expires_at_ms: i64,
    /// Until when a late payment is still recorded for this order.
    pub late_until_ms: i64,
    /// The server's time as this page is made.
    pub server_time_ms: i64,
    /// A leased network's head has passed `expires_at`, whatever the server's time says.
    pub chain_past_expiry: bool,
    /// The shop's page; linked only when it is http or https.
    pub redirect_url: Option<String>,
    /// What a form answered.
    pub notice: Option<Notice>,
    /// What the payer handed in, and what was found out about it.
    pub handed_in: Option<HandedIn>,
    /// The sandbox's panel.
    pub sandbox: Option<SandboxPanel>,
}

/// Why there is no order to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 404
    NotFound,
    /// 429
    TooManyRequests,
    /// 503; the page tries again by itself.
    Unavailable,
    /// 500
    Internal,
}

/// The whole checkout page.
#[must_use]
pub fn checkout(view: &CheckoutView, lang: Lang) -> String {
    let content = fragment(view, lang);
    let t = content.t;
    let page = CheckoutPage {
        t,
        css_url: css_url(),
        js_url: js_url(),
        pay_to: t.pay_to.split_once("{merchant}").unwrap_or((t.pay_to, "")),
        // Without script a page that may still change asks for itself again.
        refresh: content.live,
        content,
    };
    rendered(page.render())
}

/// The part of the page that changes: what the script swaps in.
#[must_use]
pub fn checkout_fragment(view: &CheckoutView, lang: Lang) -> String {
    rendered(fragment(view, lang).render())
}

/// What a payer is told about a transaction on the network of this display name.
#[must_use]
pub fn outcome_text(outcome: Outcome, network: &str, lang: Lang) -> String {
    let t = text::of(lang);
    let text = match outcome {
        Outcome::Confirmed => t.handed_confirmed,
        Outcome::Confirming => t.handed_confirming,
        Outcome::Late => t.handed_late,
        Outcome::Waiting => t.handed_waiting,
        Outcome::Unread => t.handed_unread,
        Outcome::Failed => t.handed_failed,
        Outcome::FailedOver => t.handed_failed_over,
        Outcome::Foreign => t.handed_foreign,
        Outcome::Unknown => t.handed_unknown,
        Outcome::NotAHash => t.handed_not_a_hash,
        Outcome::NoAddress => t.handed_no_address,
        Outcome::TooMany => t.handed_too_many,
        Outcome::Unreachable => t.handed_unreachable,
    };
    fill(text, &[("network", network)])
}

/// The page for an order that does not exist.
#[must_use]
pub fn not_found(lang: Lang) -> String {
    error_page(lang, ErrorKind::NotFound, None)
}

/// A page that says what went wrong and what to do, without any detail of why.
#[must_use]
pub fn error_page(lang: Lang, kind: ErrorKind, request_id: Option<&str>) -> String {
    let t = text::of(lang);
    let (title, lead) = match kind {
        ErrorKind::NotFound => (t.not_found_title, t.not_found_lead),
        ErrorKind::TooManyRequests => (t.busy_title, t.busy_lead),
        ErrorKind::Unavailable => (t.unavailable_title, t.unavailable_lead),
        ErrorKind::Internal => (t.internal_title, t.internal_lead),
    };
    let refresh = kind == ErrorKind::Unavailable;
    rendered(ErrorPage { t, css_url: css_url(), title, lead, refresh, request_id }.render())
}

/// The text of a template. Writing into a string cannot fail; should it ever, a blank page that
/// the payer loads again is better than a panic.
fn rendered(result: askama::Result<String>) -> String {
    result.unwrap_or_default()
}

/// Where a payer is: the one place that decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No network chosen yet.
    Choose,
    /// Waiting for money.
    Pay,
    /// Some money is there, the rest is awaited.
    PayRest,
    /// In time, but the address may not be shown (its wallet was taken out of use).
    Paused,
    /// The time is over, the settled chain has not passed it yet.
    Closing,
    /// As above, but there is no chain to wait for.
    ClosingUnchosen,
    Confirming,
    Paid,
    PaidOver,
    PaidLate,
    PaidManual,
    /// Paid, then undone by the chain.
    PaidReverted,
    Expired,
    ExpiredPart,
    ExpiredLate,
    /// Some on time, some late.
    ExpiredMixed,
    Cancelled,
    CancelledMoney,
}

/// Decides where the payer is.
fn phase(view: &CheckoutView) -> Phase {
    let time_over = view.server_time_ms >= view.expires_at_ms || view.chain_past_expiry;
    let money = !show::is_zero(&view.recorded);
    match (view.status, view.exception) {
        (Status::Pending, _) if time_over && view.network.is_none() => Phase::ClosingUnchosen,
        (Status::Pending, _) if time_over => Phase::Closing,
        (Status::Pending, _) if view.network.is_none() => Phase::Choose,
        (Status::Pending, _) if view.address.is_none() => Phase::Paused,
        (Status::Pending, _) if !show::is_zero(&view.received) => Phase::PayRest,
        (Status::Pending, _) => Phase::Pay,
        (Status::Confirming, _) => Phase::Confirming,
        (Status::Paid, Some(Exception::Reverted)) => Phase::PaidReverted,
        (Status::Paid, Some(Exception::Manual)) => Phase::PaidManual,
        (Status::Paid, Some(Exception::Late)) => Phase::PaidLate,
        (Status::Paid, Some(Exception::Overpaid)) => Phase::PaidOver,
        (Status::Paid, _) => Phase::Paid,
        (Status::Expired, _) if money && show::is_zero(&view.received) => Phase::ExpiredLate,
        (Status::Expired, Some(Exception::Late)) if money => Phase::ExpiredMixed,
        (Status::Expired, _) if money => Phase::ExpiredPart,
        (Status::Expired, _) => Phase::Expired,
        (Status::Cancelled, _) if money => Phase::CancelledMoney,
        (Status::Cancelled, _) => Phase::Cancelled,
    }
}

/// The colour and the sign of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    /// The payer's turn.
    Wait,
    /// The chain's turn.
    Work,
    Done,
    /// The payer should read this.
    Care,
    /// Over, nothing lost.
    Quiet,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Work => "work",
            Self::Done => "done",
            Self::Care => "care",
            Self::Quiet => "quiet",
        }
    }
}

/// What the page says first, and what it says happens next.
struct Words {
    tone: Tone,
    /// 1 pay, 2 confirm, 3 done, 0 for a state that is on no such way.
    step: u8,
    title: &'static str,
    lead: String,
    more: Vec<String>,
}

/// The sentences of a phase.
fn words(view: &CheckoutView, phase: Phase, t: &'static Text) -> Words {
    let money = |amount: &str| format!("{} {}", show::display(amount), view.token);
    let late_until = show::utc(view.late_until_ms);
    let values = [
        ("amount", money(&view.amount)),
        ("received", money(&view.received)),
        ("remaining", money(&view.remaining)),
        ("excess", money(&view.excess)),
        ("recorded", money(&view.recorded)),
        ("network", view.network.clone().unwrap_or_default()),
        ("time", late_until),
    ];
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let say = |tone, step, title, lead: &str, more: &[&str]| Words {
        tone,
        step,
        title,
        lead: fill(lead, &values),
        more: more.iter().map(|text| fill(text, &values)).collect(),
    };
    let missed = view.late_until_ms > view.server_time_ms;
    match phase {
        Phase::Choose => say(Tone::Wait, 1, t.choose_title, t.choose_lead, &[]),
        Phase::Pay if view.open_amount => say(Tone::Wait, 1, t.pay_title, t.pay_lead_open, &[]),
        Phase::Pay => say(Tone::Wait, 1, t.pay_title, t.pay_lead, &[]),
        Phase::PayRest => say(Tone::Care, 1, t.underpaid_title, t.underpaid_lead, &[]),
        Phase::Paused => say(Tone::Care, 1, t.paused_title, t.paused_lead, &[t.paused_more]),
        Phase::Closing if show::is_zero(&view.received) => say(Tone::Work, 1, t.closing_title, t.closing_lead, &[]),
        Phase::Closing => say(Tone::Work, 1, t.closing_title, t.closing_lead, &[t.closing_part]),
        Phase::ClosingUnchosen => say(Tone::Quiet, 0, t.closing_unchosen_title, t.closing_unchosen_lead, &[]),
        Phase::Confirming => say(Tone::Work, 2, t.confirming_title, t.confirming_lead, &[t.confirming_close]),
        Phase::Paid => say(Tone::Done, 3, t.paid_title, t.paid_lead, &[t.paid_close]),
        Phase::PaidOver => say(Tone::Done, 3, t.paid_title, t.overpaid_lead, &[t.overpaid_more]),
        Phase::PaidLate => say(Tone::Done, 3, t.paid_title, t.late_lead, &[t.paid_close]),
        Phase::PaidManual => say(Tone::Done, 3, t.paid_title, t.manual_lead, &[t.paid_close]),
        Phase::PaidReverted => say(Tone::Work, 0, t.reverted_title, t.reverted_lead, &[t.reverted_more]),
        Phase::Expired if missed => say(Tone::Quiet, 0, t.expired_title, t.expired_lead, &[t.expired_sent, t.expired_again]),
        Phase::Expired => say(Tone::Quiet, 0, t.expired_title, t.expired_lead, &[t.expired_again]),
        Phase::ExpiredPart => say(Tone::Care, 0, t.expired_money_title, t.expired_part_lead, &[t.money_next]),
        Phase::ExpiredLate => say(Tone::Care, 0, t.expired_money_title, t.expired_late_lead, &[t.money_next]),
        Phase::ExpiredMixed => say(Tone::Care, 0, t.expired_money_title, t.expired_mixed_lead, &[t.money_next]),
        Phase::Cancelled => say(Tone::Quiet, 0, t.cancelled_title, t.cancelled_lead, &[t.expired_again]),
        Phase::CancelledMoney => say(Tone::Care, 0, t.cancelled_money_title, t.cancelled_money_lead, &[t.money_next]),
    }
}

/// The three steps with the payer at `at`; the last one is done as soon as it is reached.
fn steps(at: u8, t: &'static Text) -> Vec<Step> {
    let step = |(number, name)| Step { number, name, done: number < at || at == 3, now: number == at };
    let names = [(1, t.step_pay), (2, t.step_confirm), (3, t.step_done)];
    if at == 0 { Vec::new() } else { names.into_iter().map(step).collect() }
}

/// Prepares what the template shows.
fn fragment(view: &CheckoutView, lang: Lang) -> Fragment<'_> {
    let t = text::of(lang);
    let phase = phase(view);
    let words = words(view, phase, t);
    let live = matches!(view.status, Status::Pending | Status::Confirming);
    let asks_for_money = matches!(phase, Phase::Pay | Phase::PayRest);
    let may_choose = matches!(phase, Phase::Choose | Phase::Pay | Phase::PayRest | Phase::Paused);
    let left_ms = view.expires_at_ms.saturating_sub(view.server_time_ms);
    let money = |amount: &str| format!("{} {}", show::display(amount), view.token);
    let to_pay = if phase == Phase::PayRest { &view.remaining } else { &view.amount };
    let network = view.network.as_deref().unwrap_or_default();
    let named = [("network", network), ("token", view.token.as_str()), ("amount", &money(to_pay))].map(|(k, v)| (k, v.to_owned()));
    let named: Vec<(&str, &str)> = named.iter().map(|(name, value)| (*name, value.as_str())).collect();

    let pay = if asks_for_money { view.address.as_deref() } else { None }.map(|address| {
        let (groups, fraction) = show::digit_groups(to_pay);
        Pay {
            address,
            cut: show::address_groups(address),
            amount_copy: show::exact(to_pay),
            long: show::display(to_pay).len() > FIGURE_LEN,
            amount_groups: groups,
            amount_fraction: fraction,
            rest: (phase == Phase::PayRest).then(|| (money(&view.amount), money(&view.received))),
            qr_svg: view.qr_payload.as_deref().map(qr_svg).unwrap_or_default(),
            // The link carries the whole amount: it would ask for too much when only the rest is due.
            wallet_uri: view.payment_uri.as_deref().filter(|uri| phase == Phase::Pay && opens_wallet(uri)),
            warnings: [t.warn_network, if view.open_amount { t.warn_least } else { t.warn_fee }, t.warn_time]
                .map(|text| fill(text, &named)),
        }
    });

    let trouble = matches!(phase, Phase::Pay | Phase::PayRest | Phase::Closing | Phase::Confirming)
        && view.options.iter().any(|option| option.current && is_trouble(option.unavailable));
    let notice = match &view.notice {
        Some(Notice::NetworkUnavailable(name)) => Some(fill(t.network_switch_failed, &[("network", name)])),
        Some(Notice::OptionsClosed) => Some(t.options_closed.to_owned()),
        None => trouble.then(|| fill(t.network_trouble, &named)),
    };
    let answer = view.handed_in.as_ref().map(|handed| {
        let named = handed.network.as_deref().and_then(|name| view.leased.iter().find(|leased| leased.network == name));
        let network = named.map_or(network, |named| named.display_name.as_str());
        Answer { tone: handed.outcome.tone().class(), text: outcome_text(handed.outcome, network, lang) }
    });
    let none_available = view.options.iter().all(|option| option.unavailable.is_some());
    let options: Vec<OptionRow<'_>> = view
        .options
        .iter()
        .map(|option| OptionRow {
            network: &option.network,
            display_name: &option.display_name,
            current: option.current,
            // A network chosen before stays its order's, so the current one never reads as shut.
            unavailable: option.unavailable.filter(|_| !option.current).map(|why| unavailable_text(why, t)),
        })
        .collect();

    let confirming = (phase == Phase::Confirming).then(|| match view.confirmations_required {
        Some(Required::Number(required)) => Progress {
            bar: Some((view.confirmations.min(required.into()), required)),
            text: fill(
                t.confirmations,
                &[("done", &view.confirmations.min(required.into()).to_string()), ("required", &required.to_string())],
            ),
        },
        Some(Required::Final) | None => Progress { bar: None, text: t.confirmations_final.to_owned() },
    });
    let sandbox_network = view.sandbox.as_ref().and_then(|panel| panel.network.as_ref());
    let sandbox_network = sandbox_network.map_or("", |network| network.display_name.as_str());
    let paid = words.step == 3;
    let document_title = fill(
        if paid { t.document_title_paid } else { t.document_title },
        &[("amount", &money(&view.amount)), ("merchant", &view.merchant_name)],
    );
    // What a screen reader hears when the state changes: not the countdown, not each block.
    let announce = match &notice {
        Some(notice) => format!("{} {} {notice}", words.title, words.lead),
        None => format!("{} {}", words.title, words.lead),
    };
    let paid_amount = match phase {
        Phase::Paid | Phase::PaidOver | Phase::PaidLate | Phase::Confirming => Some(&view.received),
        Phase::PaidManual => Some(&view.amount),
        _ => None,
    };

    Fragment {
        v: view,
        t,
        lang: lang.code(),
        live,
        paid,
        document_title,
        announce,
        server_time: show::rfc3339(view.server_time_ms),
        countdown: may_choose.then(|| show::countdown(left_ms)),
        soon: may_choose && left_ms < SOON_MS,
        figure: paid_amount.map(|amount| money(amount)),
        amount: money(&view.amount),
        expires_at: (show::rfc3339(view.expires_at_ms), show::utc(view.expires_at_ms)),
        created_at: (show::rfc3339(view.created_at_ms), show::utc(view.created_at_ms)),
        steps: steps(words.step, t),
        words,
        notice,
        hand_in: (may_hand_in(phase) && !view.leased.is_empty()).then(|| hand_in(view)),
        answer,
        pay,
        choose: phase == Phase::Choose,
        none_available,
        change: may_choose && phase != Phase::Choose && options.len() > 1,
        change_lead: fill(t.change_lead, &named),
        options,
        confirming,
        transfers: view.transfers.iter().map(|transfer| transfer_row(transfer, view, t)).collect(),
        sandbox_kinds: [("exact", t.sandbox_exact), ("less", t.sandbox_less), ("more", t.sandbox_more), ("late", t.sandbox_late)],
        sandbox_lead: fill(t.sandbox_lead, &[("network", sandbox_network)]),
        shop_url: view.redirect_url.as_deref().filter(|url| is_web(url)),
    }
}

/// True where a payer may have paid and see nothing of it.
const fn may_hand_in(phase: Phase) -> bool {
    match phase {
        Phase::Pay
        | Phase::PayRest
        | Phase::Paused
        | Phase::Closing
        | Phase::Expired
        | Phase::ExpiredPart
        | Phase::ExpiredLate
        | Phase::ExpiredMixed => true,
        Phase::Choose
        | Phase::ClosingUnchosen
        | Phase::Confirming
        | Phase::Paid
        | Phase::PaidOver
        | Phase::PaidLate
        | Phase::PaidManual
        | Phase::PaidReverted
        | Phase::Cancelled
        | Phase::CancelledMoney => false,
    }
}

/// The form for a transaction's hash, as it was filled in last.
fn hand_in(view: &CheckoutView) -> HandIn<'_> {
    let handed = view.handed_in.as_ref();
    let named = handed.and_then(|handed| handed.network.as_deref());
    let known = named.filter(|name| view.leased.iter().any(|leased| leased.network == *name));
    let row = |leased: &'_ LeasedNetwork| known.map_or(leased.current, |name| leased.network == name);
    HandIn {
        typed: handed.map_or("", |handed| handed.typed.as_str()),
        networks: view.leased.iter().map(|leased| (leased, row(leased))).collect(),
    }
}

/// True for an `http` or `https` address: anything else a merchant stored is not linked.
fn is_web(url: &str) -> bool {
    let has = |scheme: &str| {
        let head = url.get(..scheme.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(scheme)) && url.len() > scheme.len()
    };
    let plain = !url.chars().any(|c| c.is_control() || c.is_whitespace());
    plain && (has("https://") || has("http://"))
}

/// True for a link that a wallet may open. A bare address is no link.
fn opens_wallet(uri: &str) -> bool {
    ["ethereum:", "tron:", "https://link.trustwallet.com/"].iter().any(|start| uri.starts_with(start))
}

/// A network without free wallets still sees what is sent to it.
fn is_trouble(unavailable: Option<Unavailable>) -> bool {
    matches!(unavailable, Some(Unavailable::Starting | Unavailable::Lagging | Unavailable::Halted))
}

/// Why a network cannot be chosen, in words.
fn unavailable_text(why: Unavailable, t: &'static Text) -> &'static str {
    match why {
        Unavailable::Starting => t.network_starting,
        Unavailable::Lagging => t.network_lagging,
        Unavailable::Halted => t.network_halted,
        Unavailable::NoAddress => t.network_full,
    }
}

/// One line of the list of transfers.
fn transfer_row<'a>(transfer: &'a Transfer, view: &CheckoutView, t: &'static Text) -> TransferRow<'a> {
    let (tone, status) = match transfer.status {
        TransferStatus::Pending => (Tone::Work, t.transfer_pending),
        TransferStatus::Confirmed => (Tone::Done, t.transfer_confirmed),
        TransferStatus::Failed => (Tone::Quiet, t.transfer_failed),
        TransferStatus::Orphaned => (Tone::Quiet, t.transfer_orphaned),
    };
    let counts = matches!(transfer.status, TransferStatus::Pending);
    TransferRow {
        tx_hash: &transfer.tx_hash,
        short: show::short_hash(&transfer.tx_hash),
        network: &transfer.network,
        amount: format!("{} {}", show::display(&transfer.amount), view.token),
        tone: tone.class(),
        status,
        count: counts.then(|| fill(t.transfer_pending_count, &[("done", &transfer.confirmations.to_string())])),
    }
}

/// The frame around a fragment.
#[derive(Template)]
#[template(path = "checkout.html")]
struct CheckoutPage<'a> {
    t: &'static Text,
    css_url: String,
    js_url: String,
    /// What stands before and after the shop's name.
    pay_to: (&'static str, &'static str),
    refresh: bool,
    content: Fragment<'a>,
}

/// What changes.
#[derive(Template)]
#[template(path = "checkout_fragment.html")]
struct Fragment<'a> {
    v: &'a CheckoutView,
    t: &'static Text,
    lang: &'static str,
    words: Words,
    /// Empty for a state that is on no such way.
    steps: Vec<Step>,
    /// Something may still happen by itself.
    live: bool,
    paid: bool,
    document_title: String,
    announce: String,
    server_time: String,
    countdown: Option<String>,
    soon: bool,
    /// The amount in large letters where nothing is left to pay.
    figure: Option<String>,
    amount: String,
    expires_at: (String, String),
    created_at: (String, String),
    notice: Option<String>,
    hand_in: Option<HandIn<'a>>,
    answer: Option<Answer>,
    pay: Option<Pay<'a>>,
    choose: bool,
    none_available: bool,
    change: bool,
    change_lead: String,
    options: Vec<OptionRow<'a>>,
    confirming: Option<Progress>,
    transfers: Vec<TransferRow<'a>>,
    sandbox_lead: String,
    sandbox_kinds: [(&'static str, &'static str); 4],
    shop_url: Option<&'a str>,
}

/// One step of the way.
struct Step {
    number: u8,
    name: &'static str,
    done: bool,
    now: bool,
}

/// Where and how much to pay.
struct Pay<'a> {
    address: &'a str,
    cut: show::AddressGroups,
    amount_copy: &'a str,
    /// Too long for the large letters on a phone.
    long: bool,
    amount_groups: Vec<String>,
    amount_fraction: String,
    /// Total and arrived, when only the rest is asked for.
    rest: Option<(String, String)>,
    qr_svg: String,
    wallet_uri: Option<&'a str>,
    warnings: [String; 3],
}

/// The form for the hash of a transaction.
struct HandIn<'a> {
    typed: &'a str,
    /// Each with whether it is the one that is picked.
    networks: Vec<(&'a LeasedNetwork, bool)>,
}

/// What was found out about a transaction.
struct Answer {
    tone: &'static str,
    text: String,
}

/// One network to choose.
struct OptionRow<'a> {
    network: &'a str,
    display_name: &'a str,
    current: bool,
    unavailable: Option<&'static str>,
}

/// How far the confirmations are; without a bar there is no telling.
struct Progress {
    bar: Option<(u64, u32)>,
    text: String,
}

/// One transfer.
struct TransferRow<'a> {
    tx_hash: &'a str,
    short: String,
    network: &'a str,
    amount: String,
    tone: &'static str,
    status: &'static str,
    count: Option<String>,
}

/// A page without an order.
#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    t: &'static Text,
    css_url: String,
    title: &'static str,
    lead: &'static str,
    refresh: bool,
    request_id: Option<&'a str>,
}
