//! # Deposits, and orders whose payer says how much
//!
//! A permanent address is an order without an amount or an end: nothing pays it, nothing ends it, and
//! each deposit is told when it settles.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, Hash, Network, TransferKey};
use tidegate_rules::order::{self, Depth, Exception, Head, Heads, Mark, Order, Payment, Purpose, Status, Step, Terms};
use tidegate_rules::time::{Span, Time};

fn tron() -> Network {
    Network::new("tron")
}

fn address() -> Order {
    of(Purpose::Deposits, Amount::ZERO)
}

fn of(purpose: Purpose, amount: Amount) -> Order {
    order::open(Terms {
        purpose,
        amount,
        tolerance: Amount::ZERO,
        expires_at: Time::from_secs(253_402_300_799),
        late_window: Span::ZERO,
        accept_late: false,
        cooldown: Span::ZERO,
        depths: BTreeMap::from([(tron(), Depth::Blocks(3))]),
    })
}

/// A transfer of so many millionths in this block, its block read a second time.
fn deposit(ordinal: u32, number: u64, micros: u128) -> Payment {
    Payment {
        network: tron(),
        key: TransferKey { tx_hash: Hash([7; 32]), ordinal },
        from: Address([1; 20]),
        to: Address([2; 20]),
        value: Raw::from_units(micros),
        decimals: 6,
        block: mark(number),
        standing: true,
        proven: true,
        settled: false,
        promoted: false,
        by_hand: false,
        late_told: false,
        failed: false,
    }
}

fn mark(number: u64) -> Mark {
    Mark { number, time: Time::from_secs(i64::try_from(number).unwrap() * 3) }
}

fn heads(tip: u64) -> Heads {
    let marks: Arc<[Mark]> = (1..=tip).map(mark).collect();
    Heads::from([(tron(), Head { tip: mark(tip), peak: tip, finalized: None, floor: None, marks })])
}

fn told(step: &Step) -> Vec<(&'static str, u32)> {
    step.events.iter().map(|event| (event.kind.name(), event.transfer.as_ref().unwrap().1.ordinal)).collect()
}

#[test]
fn each_deposit_is_told_once_when_it_settles_and_nothing_pays_the_address() {
    let (now, start) = (Time::from_secs(1), address());
    let seen = order::advance(&start, &[deposit(0, 10, 5_000_000), deposit(1, 11, 1)], &heads(11), now);
    assert_eq!(told(&seen), [], "money that has not settled says nothing");
    assert_eq!(
        (seen.order.status, seen.order.exception, seen.order.tally.received),
        (Status::Pending, None, Amount::from_micros(5_000_001))
    );

    let first = order::advance(&seen.order, &seen.payments, &heads(12), now);
    assert_eq!(told(&first), [("deposit.settled", 0)]);
    let both = order::advance(&first.order, &first.payments, &heads(500), now);
    assert_eq!(told(&both), [("deposit.settled", 1)]);
    assert_eq!((both.order.status, both.order.tally.confirmed), (Status::Pending, Amount::from_micros(5_000_001)));
    let still = order::advance(&both.order, &both.payments, &heads(1_000_000), Time::from_secs(200_000_000_000));
    assert_eq!((told(&still), still.order == both.order), (vec![], true), "a permanent address has no end");
}

/// Whatever the payer likes, but the least of it: paid once, by all that has settled by then. What
/// settles later is told as each excess is; there is no exception in it.
#[test]
fn an_order_without_an_amount_is_paid_by_what_comes() {
    let now = Time::from_secs(1);
    let kinds = |step: &Step| step.events.iter().map(|event| event.kind.name()).collect::<Vec<_>>();
    let start = of(Purpose::OpenAmount, Amount::from_micros(1_000_000));
    let little = order::advance(&start, &[deposit(0, 10, 400_000)], &heads(10), now);
    assert_eq!((kinds(&little), little.order.exception), (vec!["order.underpaid"], Some(Exception::Underpaid)));
    let mut payments = little.payments.clone();
    payments.push(deposit(1, 11, 5_000_000));
    let enough = order::advance(&little.order, &payments, &heads(11), now);
    assert_eq!((kinds(&enough), enough.order.status), (vec!["order.confirming"], Status::Confirming));
    let paid = order::advance(&enough.order, &enough.payments, &heads(20), now);
    assert_eq!((kinds(&paid), paid.order.status, paid.order.exception), (vec!["order.paid"], Status::Paid, None));
    assert_eq!(paid.order.tally.confirmed, Amount::from_micros(5_400_000));

    let mut payments = paid.payments.clone();
    payments.push(deposit(2, 21, 100_000));
    let more = order::advance(&paid.order, &payments, &heads(30), now);
    assert_eq!((kinds(&more), more.order.exception), (vec!["order.overpaid"], None));
    assert_eq!(kinds(&order::advance(&more.order, &more.payments, &heads(40), now)), [""; 0]);
}

#[test]
fn a_deposit_that_the_chain_takes_back_is_told_and_told_again_when_it_returns() {
    let now = Time::from_secs(1);
    let settled = order::advance(&address(), &[deposit(0, 10, 5_000_000)], &heads(12), now);
    let mut gone = settled.payments.clone();
    (gone[0].standing, gone[0].settled, gone[0].proven) = (false, false, false);
    let lost = order::advance(&settled.order, &gone, &heads(12), now);
    assert_eq!(told(&lost), [("order.payment_reverted", 0)]);
    assert_eq!(lost.alerts.iter().map(|alert| alert.kind).collect::<Vec<_>>(), [AlertKind::PaymentReverted]);
    assert_eq!(lost.order.tally.received, Amount::ZERO);
    assert_eq!(told(&order::advance(&lost.order, &lost.payments, &heads(13), now)), [], "once");

    let mut back = lost.payments.clone();
    (back[0].standing, back[0].proven, back[0].block) = (true, true, mark(13));
    let again = order::advance(&lost.order, &back, &heads(15), now);
    assert_eq!(told(&again), [("deposit.settled", 0)], "it is the same transfer by its name");
}
