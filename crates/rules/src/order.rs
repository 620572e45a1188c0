//! The life of an order, exactly as the payment rules say it.
//!
//! An order stores its terms, what people decided, that it has been paid or has expired, and its
//! payments; [`assess`] computes everything else. Status is derived, never driven: a
//! reorganisation needs no reverse code. [`advance`] takes one step forward in time and names the
//! events, which are the difference between before and after.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::alert::{Alert, AlertKind};
use crate::amount::{Amount, Raw};
use crate::block::{Address, Network, TransferKey};
use crate::lease::Lease;
use crate::notify::EventType;
use crate::time::{Span, Time};
use crate::wallet::names;

/// A block's height and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Height.
    pub number: u64,
    /// The chain's time of it.
    pub time: Time,
}

/// How deep money must be buried before it is settled. Ordered: deeper is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// This many confirmations, at least one; the block itself is the first.
    Blocks(u32),
    /// The chain itself calls the block final (TRON solidified, EVM `finalized`).
    Final,
}

/// What we know of a network's chain at one moment: only blocks that we applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last block applied: the cursor.
    pub tip: Mark,
    /// The highest tip there ever was. Keeps the settled head from moving back.
    pub peak: u64,
    /// The highest block that the chain itself called final.
    pub finalized: Option<u64>,
    /// What this network demands at least now, whatever an order's terms say.
    pub floor: Option<Depth>,
    /// The applied blocks that are kept, oldest first, consecutive, up to the tip or beyond.
    pub marks: Arc<[Mark]>,
}

impl Head {
    /// The settled head: the highest applied block that meets `depth` and the floor. `None` while
    /// there is none, or when it is older than what is kept.
    ///
    /// Its height never moves back. On a branch that is shorter than the last one was, the block
    /// now at that height is not buried deep enough, so the time is that of the highest one that
    /// is: a block that may yet go proves no deadline passed.
    #[must_use]
    pub fn settled(&self, depth: Depth) -> Option<Mark> {
        let depth = self.floor.map_or(depth, |floor| floor.max(depth));
        let (number, buried) = match depth {
            Depth::Blocks(blocks) => {
                let below = |tip: u64| tip.checked_add(1)?.checked_sub(u64::from(blocks.max(1)));
                (below(self.peak)?, below(self.tip.number)?)
            }
            Depth::Final => (self.finalized?, self.tip.number),
        };
        let number = number.min(self.tip.number);
        Some(Mark { number, time: self.mark(number.min(buried))?.time })
    }

    /// True when a block at `number` is settled: at or below the settled head, and buried deep
    /// enough under the tip of today. The two differ only after a fork to a shorter branch.
    #[must_use]
    pub fn buries(&self, number: u64, depth: Depth) -> bool {
        let depth = self.floor.map_or(depth, |floor| floor.max(depth));
        let deep_enough = match depth {
            Depth::Blocks(blocks) => self.confirmations(number) >= u64::from(blocks.max(1)),
            Depth::Final => true,
        };
        deep_enough && self.settled(depth).is_some_and(|settled| number <= settled.number)
    }

    /// Head − block + 1, and 0 for a block above the tip.
    #[must_use]
    pub fn confirmations(&self, number: u64) -> u64 {
        self.tip.number.checked_sub(number).map_or(0, |above| above.saturating_add(1))
    }

    /// The applied block at a height, if it is kept.
    #[must_use]
    pub fn mark(&self, number: u64) -> Option<Mark> {
        let oldest = self.marks.first()?.number;
        self.marks.get(usize::try_from(number.checked_sub(oldest)?).ok()?).copied()
    }
}

/// The heads of all networks that are followed.
pub type Heads = BTreeMap<Network, Head>;

/// What money to an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Purpose {
    /// To pay the amount, once, in time.
    #[default]
    Payment,
    /// To pay what the payer likes, but the amount at least, once, in time.
    OpenAmount,
    /// To top up: a permanent address, any amount, any number of times. Such an order is pending
    /// until somebody cancels it, and each settled transfer is told by itself.
    Deposits,
}

/// What was agreed when the order was created. A change of configuration never changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What its money is for.
    pub purpose: Purpose,
    /// What the shop asks for; the least of it where the payer says how much.
    pub amount: Amount,
    /// How much less than the amount still pays.
    pub tolerance: Amount,
    /// Money in blocks up to this time is on time.
    pub expires_at: Time,
    /// For how long after that money is late, and still this order's.
    pub late_window: Span,
    /// Whether settled late money that completes the order pays it.
    pub accept_late: bool,
    /// How long a wallet rests after this order's late window.
    pub cooldown: Span,
    /// How deep money must be buried, by network, for this amount.
    pub depths: BTreeMap<Network, Depth>,
}

impl Terms {
    /// What must arrive: the amount less the tolerance, at least one millionth.
    #[must_use]
    pub fn due(&self) -> Amount {
        self.amount.saturating_sub(self.tolerance).max(Amount::from_micros(1))
    }

    /// How deep money must be buried on a network: final where nothing was agreed.
    #[must_use]
    pub fn depth(&self, network: &Network) -> Depth {
        self.depths.get(network).copied().unwrap_or(Depth::Final)
    }

    /// The end of the late window.
    #[must_use]
    pub fn late_until(&self) -> Time {
        self.expires_at.plus(self.late_window)
    }
}

/// How an order came to be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaidBy {
    /// Settled money reached what is due.
    Money,
    /// A person said so, with the transfer named in [`Facts::confirmation`] or with none.
    Person,
}

/// That an order has been paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paid {
    /// When it was decided.
    pub at: Time,
    /// By what.
    pub by: PaidBy,
    /// Whether late money was needed for it.
    pub late: bool,
}

/// A person's word that an order is to be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The transfer that pays it, whatever its time; `None` for the bare word.
    pub transfer: Option<(Network, TransferKey)>,
    /// Why.
    pub reason: String,
}

/// What is stored because it cannot be computed: decisions, and what once was true for ever.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Facts {
    /// That it has been paid.
    pub paid: Option<Paid>,
    /// When it expired.
    pub expired_at: Option<Time>,
    /// When a person cancelled it.
    pub cancelled_at: Option<Time>,
    /// A person's confirmation.
    pub confirmation: Option<Confirmation>,
    /// That the chain took the payment back and has not returned it yet.
    pub reverted: bool,
    /// The highest settled excess that the shop was told of. Where the payer says how much, what there
    /// was when it was paid is told with that.
    pub excess_told: Amount,
}

/// A transfer to a lease of the order, or linked to it by a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Where.
    pub network: Network,
    /// Its name there.
    pub key: TransferKey,
    /// Who paid.
    pub from: Address,
    /// To which address of ours.
    pub to: Address,
    /// Base units.
    pub value: Raw,
    /// The token's decimals there.
    pub decimals: u8,
    /// The block it is in, or was in last.
    pub block: Mark,
    /// Whether it is on the chain now.
    pub standing: bool,
    /// Whether a second reading of its block, made once it was deep enough, showed it again.
    pub proven: bool,
    /// Whether it is settled. Only orphaning takes this back.
    pub settled: bool,
    /// Late money that was counted, and counts wherever in the late window it stands.
    pub promoted: bool,
    /// Linked by a person: counts whatever its time.
    pub by_hand: bool,
    /// Whether it was told of by itself: as `order.late_payment`, or as `deposit.settled`.
    pub late_told: bool,
    /// Its transaction failed: it moved nothing, and is listed so that nobody waits for it. Should
    /// it succeed on another branch, it stands there and has not failed.
    pub failed: bool,
}

/// The state of a payment on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentStatus {
    /// On the chain, not settled.
    Pending,
    /// Settled.
    Confirmed,
    /// Its transaction failed: nothing moved.
    Failed,
    /// Taken off the chain by a reorganisation.
    Orphaned,
}

names!(PaymentStatus: Pending "pending", Confirmed "confirmed", Failed "failed", Orphaned "orphaned");

impl Payment {
    /// Its state on the chain.
    #[must_use]
    pub const fn status(&self) -> PaymentStatus {
        match (self.standing, self.settled) {
            (false, _) if self.failed => PaymentStatus::Failed,
            (false, _) => PaymentStatus::Orphaned,
            (true, true) => PaymentStatus::Confirmed,
            (true, false) => PaymentStatus::Pending,
        }
    }

    fn is_on_time(&self, terms: &Terms) -> bool {
        self.block.time <= terms.expires_at
    }

    /// Whether it belongs into the sums of an order that is not cancelled, as long as it stands.
    fn is_matched(&self, terms: &Terms) -> bool {
        self.by_hand || self.is_on_time(terms) || (self.promoted && self.is_in_window(terms))
    }

    fn is_in_window(&self, terms: &Terms) -> bool {
        self.block.time <= terms.late_until()
    }

    /// True for the payment of this name.
    #[must_use]
    pub fn is(&self, network: &Network, key: TransferKey) -> bool {
        self.network == *network && self.key == key
    }
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waiting for money.
    Pending,
    /// Enough has arrived, not yet settled.
    Confirming,
    /// Paid. Never changes.
    Paid,
    /// Its time passed without enough.
    Expired,
    /// A person cancelled it. Never changes.
    Cancelled,
}

names!(Status: Pending "pending", Confirming "confirming", Paid "paid", Expired "expired", Cancelled "cancelled");

/// What is unusual about an order. When several apply, the last one is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exception {
    /// Something arrived, not enough, and it is not paid.
    Underpaid,
    /// Paid, and more than the amount has settled.
    Overpaid,
    /// Paid through late money, or late money on an expired or cancelled order.
    Late,
    /// Paid by a person's word.
    Manual,
    /// Paid, and the chain took the money back.
    Reverted,
}

names!(Exception: Underpaid "underpaid", Overpaid "overpaid", Late "late", Manual "manual", Reverted "reverted");

/// An order's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// Counted money that stands on the chain now.
    pub received: Amount,
    /// Its settled part.
    pub confirmed: Amount,
}

/// An order, as far as payment goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What was agreed.
    pub terms: Terms,
    /// What happened.
    pub facts: Facts,
    /// The wallets it was lent, in the order they were chosen; at most one a network.
    pub leases: Vec<Lease>,
    /// The network the payer chose last.
    pub current: Option<Network>,
    /// Derived: its money.
    pub tally: Tally,
    /// Derived: where it stands.
    pub status: Status,
    /// Derived: what is unusual.
    pub exception: Option<Exception>,
}

/// Something to tell the shop, and the transfer it is about, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventType,
    /// The one transfer that it is about: of an [`EventType::LatePayment`], and of every event of
    /// [`Purpose::Deposits`].
    pub transfer: Option<(Network, TransferKey)>,
}

/// An order after a step: its new state, its payments, and what to tell whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The order.
    pub order: Order,
    /// Its payments, in the order they were given.
    pub payments: Vec<Payment>,
    /// For the shop, in order.
    pub events: Vec<Event>,
    /// For the operator.
    pub alerts: Vec<Alert>,
}

impl Step {
    fn still(order: &Order, payments: &[Payment]) -> Self {
        Self { order: order.clone(), payments: payments.to_vec(), events: Vec::new(), alerts: Vec::new() }
    }

    fn tell(&mut self, kind: EventType) {
        self.events.push(Event { kind, transfer: None });
    }
}

/// Why a person's wish is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The order is not pending, or its time has passed.
    #[error("the order is not pending any more")]
    NotPending,
    /// Money for the order stands on the chain.
    #[error("money for this order is on the chain already")]
    PaymentInProgress,
    /// The order is paid.
    #[error("the order is paid")]
    AlreadyPaid,
    /// The order has expired.
    #[error("the order has expired")]
    AlreadyExpired,
    /// The order is cancelled.
    #[error("the order is cancelled")]
    AlreadyCancelled,
    /// The transfer counts, or may still count, elsewhere.
    #[error("the transfer is counted for an order already")]
    TransferCounted,
    /// The new time is not later than every clock concerned, or too far ahead.
    #[error("expires_at must be later than now and than every leased network's newest block, and at most 7 days ahead")]
    BadExpiry,
}

/// The longest an order may live, from now on.
pub const EXPIRES_IN_MAX: Span = Span::from_secs(7 * 86_400);

/// A new order, pending, with no lease yet.
#[must_use]
pub fn open(terms: Terms) -> Order {
    Order {
        terms,
        facts: Facts::default(),
        leases: Vec::new(),
        current: None,
        tally: Tally::default(),
        status: Status::Pending,
        exception: None,
    }
}

/// Adds up, exactly, then floors once.
fn sum<'a>(payments: impl Iterator<Item = &'a Payment>) -> Amount {
    // Networks may differ in decimals: add in units of 10⁻³⁶, which is finer than every token.
    const FINEST: u8 = 36;
    let exact = payments.fold(Raw::ZERO, |sum, payment| {
        let shift = FINEST.saturating_sub(payment.decimals);
        sum.saturating_add(payment.value.scaled(shift))
    });
    exact.to_amount_saturating(FINEST)
}

/// Computes an order's money, status and exception from what is stored. Nothing else decides them.
#[must_use]
pub fn assess(terms: &Terms, facts: &Facts, payments: &[Payment]) -> (Tally, Status, Option<Exception>) {
    if facts.cancelled_at.is_some() {
        let late = payments.iter().any(|payment| payment.standing);
        return (Tally::default(), Status::Cancelled, late.then_some(Exception::Late));
    }
    let counted = |payment: &&Payment| payment.standing && payment.is_matched(terms);
    let tally = Tally {
        received: sum(payments.iter().filter(counted)),
        confirmed: sum(payments.iter().filter(counted).filter(|payment| payment.settled)),
    };
    let status = if facts.paid.is_some() {
        Status::Paid
    } else if facts.confirmation.is_some() {
        Status::Confirming
    } else if facts.expired_at.is_some() {
        Status::Expired
    } else if tally.received >= terms.due() && terms.purpose != Purpose::Deposits {
        Status::Confirming
    } else {
        Status::Pending
    };
    let late_money = || payments.iter().any(|payment| payment.standing && !payment.is_matched(terms));
    let exception = match (facts.paid, status) {
        (Some(_), _) if facts.reverted => Some(Exception::Reverted),
        (Some(Paid { by: PaidBy::Person, .. }), _) => Some(Exception::Manual),
        (Some(Paid { late: true, .. }), _) => Some(Exception::Late),
        (Some(_), _) => (tally.confirmed > terms.amount && terms.purpose == Purpose::Payment).then_some(Exception::Overpaid),
        (None, Status::Expired) if late_money() => Some(Exception::Late),
        (None, _) => {
            let some = !tally.received.is_zero() && tally.received < terms.due();
            (some && terms.purpose != Purpose::Deposits).then_some(Exception::Underpaid)
        }
    };
    (tally, status, exception)
}

/// What a payment is to its order now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It counts while it stands.
    Matched,
    /// It came too late and does not count.
    Late,
}

/// What a payment is to its order now.
#[must_use]
pub fn disposition(order: &Order, payment: &Payment) -> Disposition {
    if order.facts.cancelled_at.is_none() && payment.is_matched(&order.terms) { Disposition::Matched } else { Disposition::Late }
}

/// Confirmations of an order: the fewest of its counted payments that stand, 0 without any.
#[must_use]
pub fn confirmations(order: &Order, payments: &[Payment], heads: &Heads) -> u64 {
    payments
        .iter()
        .filter(|payment| payment.standing && disposition(order, payment) == Disposition::Matched)
        .map(|payment| heads.get(&payment.network).map_or(0, |head| head.confirmations(payment.block.number)))
        .min()
        .unwrap_or(0)
}

/// Takes an order forward to what its payments and the heads say now.
///
/// Call it after every block that touches the order, with all of its payments; `now` is the
/// server's clock, which only decides for an order that never leased an address. When the settled
/// head has moved over several heights at once, the order lives through each that matters to it
/// in turn, so that a jump gives the same as a walk.
#[must_use]
pub fn advance(order: &Order, payments: &[Payment], heads: &Heads, now: Time) -> Step {
    let mut step = Step::still(order, payments);
    for heads in stages(order, payments, heads) {
        lapse(&mut step);
        reassess(&mut step);
        // Before anything settles: money in time never waits for that, and the late money of the
        // very block that ends the order's time comes to an expired order, whenever it is proven.
        expire(&mut step, &heads, now);
        settle(&mut step, &heads);
        update(&mut step);
        let told = tell_late(&mut step);
        pay(&mut step, now);
        revert(&mut step);
        alert_late(&mut step, told);
        tell_excess(&mut step);
        tell_deposits(&mut step);
    }
    step
}

/// The views of the heads to live through: for each network, its settled head held at each height
/// where something of this order settles, then the heads as they are.
fn stages(order: &Order, payments: &[Payment], heads: &Heads) -> Vec<Heads> {
    let mut stages = Vec::new();
    for (network, head) in heads {
        let depth = order.terms.depth(network);
        let Some(settled) = head.settled(depth) else { continue };
        let waiting =
            payments.iter().filter(|payment| payment.network == *network && payment.standing && payment.proven && !payment.settled);
        let mut heights: Vec<u64> = waiting.map(|payment| payment.block.number).filter(|height| *height < settled.number).collect();
        heights.sort_unstable();
        heights.dedup();
        for height in heights {
            let mut held = heads.clone();
            if let Some(head) = held.get_mut(network) {
                head.hold_settled_at(height, depth);
            }
            stages.push(held);
        }
    }
    stages.push(heads.clone());
    stages
}

impl Head {
    /// As if the settled head at `depth` were at `height`, everything else unchanged.
    fn hold_settled_at(&mut self, height: u64, depth: Depth) {
        match self.floor.map_or(depth, |floor| floor.max(depth)) {
            Depth::Final => self.finalized = Some(height),
            Depth::Blocks(blocks) => {
                self.peak = height.saturating_add(u64::from(blocks.max(1))).saturating_sub(1);
            }
        }
    }
}

/// Payments that are proven and deep enough become settled; what left the chain is settled no more.
fn settle(step: &mut Step, heads: &Heads) {
    let terms = &step.order.terms;
    for payment in &mut step.payments {
        if !payment.standing {
            payment.settled = false;
            payment.proven = false;
            continue;
        }
        let buried = heads.get(&payment.network).is_some_and(|head| head.buries(payment.block.number, terms.depth(&payment.network)));
        if payment.proven && buried {
            payment.settled = true;
        }
    }
}

/// A confirmation whose transfer left the chain before it settled is void. A transfer that came to
/// an address of the order is judged by its time again; any other is not this order's any more.
fn lapse(step: &mut Step) {
    let order = &mut step.order;
    if order.facts.paid.is_some() {
        return;
    }
    let Some(Confirmation { transfer: Some((network, key)), .. }) = &order.facts.confirmation else { return };
    let linked = step.payments.iter().position(|payment| payment.is(network, *key));
    let Some(payment) = linked.and_then(|index| step.payments.get_mut(index)) else {
        order.facts.confirmation = None;
        return;
    };
    if payment.standing {
        return;
    }
    payment.by_hand = false;
    let ours = order
        .leases
        .iter()
        .any(|lease| lease.network == payment.network && lease.address == payment.to && lease.from < payment.block.number);
    if !ours {
        step.payments.retain(|payment| !payment.is(network, *key));
    }
    order.facts.confirmation = None;
}

/// The standing payment that a person linked.
fn linked<'a>(facts: &Facts, payments: &'a [Payment]) -> Option<&'a Payment> {
    let (network, key) = facts.confirmation.as_ref()?.transfer.as_ref()?;
    payments.iter().find(|payment| payment.is(network, *key) && payment.standing)
}

/// Brings the derived fields up to date and names what the shop should know of the difference.
fn reassess(step: &mut Step) {
    let before = (step.order.tally, step.order.status);
    update(step);
    let order = &step.order;
    match order.status {
        // Confirmed by hand with a transfer that has settled: paid in this very step.
        Status::Confirming if linked(&order.facts, &step.payments).is_some_and(|payment| payment.settled) => {}
        Status::Confirming if before.1 != Status::Confirming => step.tell(EventType::Confirming),
        Status::Pending | Status::Expired
            if order.terms.purpose != Purpose::Deposits
                && order.tally.received > before.0.received
                && order.tally.received < order.terms.due() =>
        {
            step.tell(EventType::Underpaid);
        }
        _ => {}
    }
}

/// I4: the stored status equals `assess` of the stored facts.
fn update(step: &mut Step) {
    let order = &mut step.order;
    (order.tally, order.status, order.exception) = assess(&order.terms, &order.facts, &step.payments);
}

/// Once per late transfer, when it settles, counted or not. Says which ones were told of now.
fn tell_late(step: &mut Step) -> Vec<(Network, TransferKey)> {
    let cancelled = step.order.facts.cancelled_at.is_some();
    let mut told = Vec::new();
    for payment in &mut step.payments {
        let late = cancelled || !(payment.by_hand || payment.is_on_time(&step.order.terms));
        if late && payment.settled && !payment.late_told {
            payment.late_told = true;
            told.push((payment.network.clone(), payment.key));
        }
    }
    let events = told.iter().map(|transfer| Event { kind: EventType::LatePayment, transfer: Some(transfer.clone()) });
    step.events.extend(events);
    told
}

/// Late money is a loose end for the operator, unless it helped to pay.
fn alert_late(step: &mut Step, told: Vec<(Network, TransferKey)>) {
    for (network, key) in told {
        let counts = |payment: &Payment| payment.is(&network, key) && disposition(&step.order, payment) == Disposition::Matched;
        if !step.payments.iter().any(counts) {
            step.alerts.push(Alert { kind: AlertKind::LateMoney, transfer: Some((network, key)) });
        }
    }
}

/// Settled money that reaches what is due pays the order, once for ever. So does the transfer that
/// a person named, once it settles; until then money that came by itself may be first.
fn pay(step: &mut Step, now: Time) {
    let order = &mut step.order;
    if order.facts.paid.is_some() || order.facts.cancelled_at.is_some() || order.terms.purpose == Purpose::Deposits {
        return;
    }
    let due = order.terms.due();
    let (by, late) = if linked(&order.facts, &step.payments).is_some_and(|payment| payment.settled) {
        (PaidBy::Person, false)
    } else if order.tally.confirmed >= due {
        (PaidBy::Money, false)
    } else if order.terms.accept_late
        && matches!(order.status, Status::Pending | Status::Expired)
        && settled_with_late(&order.terms, &step.payments) >= due
    {
        promote_late(&order.terms, &mut step.payments);
        (PaidBy::Money, true)
    } else {
        return;
    };
    order.facts.paid = Some(Paid { at: now, by, late });
    update(step);
    if step.order.terms.purpose == Purpose::OpenAmount {
        step.order.facts.excess_told = step.order.tally.confirmed.saturating_sub(step.order.terms.amount);
    }
    step.tell(EventType::Paid);
}

/// Settled money, on time and late together.
fn settled_with_late(terms: &Terms, payments: &[Payment]) -> Amount {
    let within = |payment: &&Payment| payment.standing && payment.settled && (payment.is_matched(terms) || payment.is_in_window(terms));
    sum(payments.iter().filter(within))
}

/// All settled late money counts from now on.
fn promote_late(terms: &Terms, payments: &mut [Payment]) {
    for payment in payments {
        if payment.standing && payment.settled && !payment.is_matched(terms) && payment.is_in_window(terms) {
            payment.promoted = true;
        }
    }
}

/// The order's time has passed on the settled chain of every network it leased on, and what stands
/// is not enough. An order without a lease has only the server's clock.
fn expire(step: &mut Step, heads: &Heads, now: Time) {
    let order = &mut step.order;
    if order.status != Status::Pending || order.terms.purpose == Purpose::Deposits {
        return;
    }
    let expires_at = order.terms.expires_at;
    let passed = if order.leases.is_empty() {
        now > expires_at
    } else {
        order.leases.iter().all(|lease| {
            let settled = heads.get(&lease.network).and_then(|head| head.settled(order.terms.depth(&lease.network)));
            settled.is_some_and(|settled| settled.time > expires_at)
        })
    };
    if passed {
        order.facts.expired_at = Some(now);
        update(step);
        step.tell(EventType::Expired);
        if !step.order.tally.received.is_zero() {
            step.alerts.push(Alert { kind: AlertKind::ExpiredUnderpaid, transfer: None });
        }
    }
}

/// Marks a paid order whose money left the chain, and clears the mark when settled money is back.
/// Late money that has settled before the loss stands in for it at once.
fn revert(step: &mut Step) {
    let order = &mut step.order;
    let Some(paid) = order.facts.paid else { return };
    let by_hand = paid.by == PaidBy::Person;
    // A bare word has no money behind it that could be taken back.
    if by_hand && order.facts.confirmation.as_ref().is_some_and(|confirmation| confirmation.transfer.is_none()) {
        return;
    }
    let hand = linked(&order.facts, &step.payments).filter(|_| by_hand);
    let due = order.terms.due();
    let lost = order.tally.received < due && hand.is_none();
    if !lost && !order.facts.reverted {
        return;
    }
    let back_without_late = order.tally.confirmed >= due || hand.is_some_and(|payment| payment.settled);
    if back_without_late || settled_with_late(&order.terms, &step.payments) >= due {
        if !back_without_late {
            promote_late(&order.terms, &mut step.payments);
            order.facts.paid = Some(Paid { late: true, ..paid });
        }
        order.facts.reverted = false;
        update(step);
    } else if !order.facts.reverted {
        order.facts.reverted = true;
        update(step);
        step.tell(EventType::PaymentReverted);
        step.alerts.push(Alert { kind: AlertKind::PaymentReverted, transfer: None });
    }
}

/// The shop is told each time the settled excess grows.
fn tell_excess(step: &mut Step) {
    let order = &mut step.order;
    if order.facts.paid.is_none() {
        return;
    }
    let excess = order.tally.confirmed.saturating_sub(order.terms.amount);
    if excess > order.facts.excess_told {
        order.facts.excess_told = excess;
        step.tell(EventType::Overpaid);
    }
}

/// Each deposit is told when it settles. Should the chain take back what was told, somebody has to
/// know; if it settles again it is told again, about the same transfer.
fn tell_deposits(step: &mut Step) {
    if step.order.terms.purpose != Purpose::Deposits || step.order.facts.cancelled_at.is_some() {
        return;
    }
    for payment in &mut step.payments {
        let transfer = Some((payment.network.clone(), payment.key));
        if payment.standing && payment.settled && !payment.late_told {
            payment.late_told = true;
            step.events.push(Event { kind: EventType::DepositSettled, transfer });
        } else if !payment.standing && payment.late_told {
            payment.late_told = false;
            step.events.push(Event { kind: EventType::PaymentReverted, transfer: transfer.clone() });
            step.alerts.push(Alert { kind: AlertKind::PaymentReverted, transfer });
        }
    }
}

/// Makes a network the payer's current choice, for a pending order that is still in time.
///
/// `lease` is used when the order has none on that network yet.
///
/// # Errors
/// [`Refusal::NotPending`] when the order is not pending, or server time or that network's newest
/// block has passed `expires_at`.
pub fn choose(order: &Order, network: &Network, lease: Option<Lease>, newest: Time, now: Time) -> Result<Order, Refusal> {
    if order.status != Status::Pending || now > order.terms.expires_at || newest > order.terms.expires_at {
        return Err(Refusal::NotPending);
    }
    let mut order = order.clone();
    if !order.leases.iter().any(|lease| lease.network == *network) {
        order.leases.push(lease.ok_or(Refusal::NotPending)?);
    }
    order.current = Some(network.clone());
    Ok(order)
}

/// How a person cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// Only while no money for the order stands on the chain.
    IfUntouched,
    /// Even then: an admin's decision.
    Force,
}

/// Cancels an order; again without effect when it is cancelled.
///
/// # Errors
/// Paid and expired orders are never cancelled; one with money on the chain only by force.
pub fn cancel(order: &Order, payments: &[Payment], how: Cancel, now: Time) -> Result<Step, Refusal> {
    let mut step = Step::still(order, payments);
    match order.status {
        Status::Cancelled => return Ok(step),
        Status::Paid => return Err(Refusal::AlreadyPaid),
        Status::Expired => return Err(Refusal::AlreadyExpired),
        Status::Pending | Status::Confirming => {}
    }
    let standing: Vec<_> = payments.iter().filter(|payment| payment.standing).collect();
    if !standing.is_empty() && how == Cancel::IfUntouched {
        return Err(Refusal::PaymentInProgress);
    }
    // What has settled is told and alerted as every late transfer is; the rest is alerted now.
    for payment in standing.into_iter().filter(|payment| !payment.settled) {
        step.alerts.push(Alert { kind: AlertKind::LateMoney, transfer: Some((payment.network.clone(), payment.key)) });
    }
    step.order.facts.cancelled_at = Some(now);
    step.order.facts.confirmation = None;
    update(&mut step);
    step.tell(EventType::Cancelled);
    let told = tell_late(&mut step);
    alert_late(&mut step, told);
    Ok(step)
}

/// A person confirms an order, by bare word or with a transfer.
///
/// `linked` is the transfer to move to this order, already checked to be one of the token to an
/// address of ours that no other order lists or may still count; it counts whatever its time.
///
/// # Errors
/// Paid and cancelled orders are never confirmed; a transfer that counts here already is refused.
pub fn confirm(
    order: &Order,
    payments: &[Payment],
    reason: &str,
    linked: Option<Payment>,
    heads: &Heads,
    now: Time,
) -> Result<Step, Refusal> {
    match order.status {
        Status::Paid => return Err(Refusal::AlreadyPaid),
        Status::Cancelled => return Err(Refusal::AlreadyCancelled),
        Status::Pending | Status::Confirming | Status::Expired => {}
    }
    let mut step = Step::still(order, payments);
    let Some(mut linked) = linked else {
        step.order.facts.confirmation = Some(Confirmation { transfer: None, reason: reason.to_owned() });
        step.order.facts.paid = Some(Paid { at: now, by: PaidBy::Person, late: false });
        update(&mut step);
        step.tell(EventType::Paid);
        return Ok(step);
    };
    let same = |payment: &Payment| payment.is(&linked.network, linked.key);
    if payments.iter().any(|payment| same(payment) && may_count(order, payment)) {
        return Err(Refusal::TransferCounted);
    }
    linked.by_hand = true;
    // Another order's terms may have called it settled sooner.
    linked.settled = false;
    step.order.facts.confirmation = Some(Confirmation { transfer: Some((linked.network.clone(), linked.key)), reason: reason.to_owned() });
    step.payments.retain(|payment| !payment.is(&linked.network, linked.key));
    step.payments.push(linked);
    // By the heads as they are: a transfer that has settled pays without passing `confirming`.
    settle(&mut step, heads);
    Ok(advance(&step.order, &step.payments, heads, now))
}

/// True when a transfer that an order lists counts there, or may still: then no person may move it.
#[must_use]
pub fn may_count(order: &Order, payment: &Payment) -> bool {
    match order.status {
        Status::Pending | Status::Confirming => true,
        Status::Cancelled => false,
        Status::Paid => disposition(order, payment) == Disposition::Matched,
        Status::Expired => disposition(order, payment) == Disposition::Matched || order.terms.accept_late,
    }
}

/// Gives a pending order more time. Money that was late may be on time by it, so the order takes a
/// step; transfers that were stray only because of their time are for the caller to claim again.
///
/// # Errors
/// [`Refusal::NotPending`] unless pending; [`Refusal::BadExpiry`] unless later than before, than
/// `now` and than every leased network's newest block, and at most seven days ahead.
pub fn extend(order: &Order, payments: &[Payment], expires_at: Time, heads: &Heads, now: Time) -> Result<Step, Refusal> {
    if order.status != Status::Pending {
        return Err(Refusal::NotPending);
    }
    let newest = order.leases.iter().filter_map(|lease| heads.get(&lease.network)).map(|head| head.tip.time).max().unwrap_or(now).max(now);
    if expires_at <= order.terms.expires_at || expires_at <= newest || expires_at > now.plus(EXPIRES_IN_MAX) {
        return Err(Refusal::BadExpiry);
    }
    let mut order = order.clone();
    order.terms.expires_at = expires_at;
    Ok(advance(&order, payments, heads, now))
}
