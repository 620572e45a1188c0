//! Whatever an order, its wallet and its transfers are, they come back as they were stored.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use tidegate::clock::id_bytes;
use tidegate::store::{Store, TransferRow};
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, Hash, Network, TransferKey};
use tidegate_rules::changes::{Changes, Details, NewLease, NewOrder, OrderChange, Recorded, TransferChange};
use tidegate_rules::id::{MerchantId, WalletId};
use tidegate_rules::order::{self, Confirmation, Depth, Exception, Facts, Mark, Order, Paid, PaidBy, Payment, Status, Tally, Terms};
use tidegate_rules::time::{Span, Time};

use super::{Ground, at, done, hash, micros, new_lease, new_order, new_transfer, new_wallet, tron};

contract!(orders_come_back_as_they_were_stored,);

/// Everything an order is made of, as wild as the types allow.
#[derive(Clone, Debug)]
struct Written {
    terms: Terms,
    details: Details,
    livemode: bool,
    later: Order,
    cancel_reason: Option<String>,
    leases: Vec<(u64, Option<u64>)>,
    payments: Vec<(Payment, Recorded, Option<String>)>,
}

/// PostgreSQL's texts hold every character but NUL, which the API refuses.
fn text() -> impl Strategy<Value = String> {
    "[^\\x00]{0,20}"
}

fn time() -> impl Strategy<Value = Time> {
    any::<i64>().prop_map(Time::from_millis)
}

fn amount() -> impl Strategy<Value = Amount> {
    (0..=Amount::MAX.micros()).prop_map(micros)
}

/// Heights and spans as far as the database's 64 bits with a sign go.
fn long() -> impl Strategy<Value = u64> {
    0..=i64::MAX.unsigned_abs()
}

fn depth() -> impl Strategy<Value = Depth> {
    option::of(any::<u32>()).prop_map(|blocks| blocks.map_or(Depth::Final, Depth::Blocks))
}

fn network() -> impl Strategy<Value = Network> {
    "[a-z][a-z0-9_-]{0,15}".prop_map(|name| Network::new(&name))
}

fn any_terms() -> impl Strategy<Value = Terms> {
    (amount(), amount(), time(), long(), any::<bool>(), long(), btree_map(network(), depth(), 0..4)).prop_map(
        |(amount, tolerance, expires_at, late_window, accept_late, cooldown, depths)| Terms {
            purpose: tidegate_rules::order::Purpose::Payment,
            amount,
            tolerance,
            expires_at,
            late_window: Span::from_millis(late_window),
            accept_late,
            cooldown: Span::from_millis(cooldown),
            depths,
        },
    )
}

fn any_details() -> impl Strategy<Value = Details> {
    let optional = || option::of(text());
    ((optional(), optional(), optional(), optional()), (optional(), text(), optional(), any::<bool>())).prop_map(
        |((user_id, plan_id, merchant_order_id, callback_url), (redirect_url, metadata, note, payer_chooses))| Details {
            user_id,
            plan_id,
            merchant_order_id,
            callback_url,
            redirect_url,
            metadata,
            note,
            payer_chooses,
        },
    )
}

fn key() -> impl Strategy<Value = TransferKey> {
    (any::<[u8; 32]>(), any::<u32>()).prop_map(|(hash, ordinal)| TransferKey { tx_hash: Hash(hash), ordinal })
}

fn facts() -> impl Strategy<Value = Facts> {
    let paid = option::of((time(), any::<bool>(), any::<bool>()))
        .prop_map(|paid| paid.map(|(at, by_money, late)| Paid { at, by: if by_money { PaidBy::Money } else { PaidBy::Person }, late }));
    let confirmation = option::of((option::of((network(), key())), text()))
        .prop_map(|confirmation| confirmation.map(|(transfer, reason)| Confirmation { transfer, reason }));
    (paid, option::of(time()), option::of(time()), confirmation, any::<bool>(), amount()).prop_map(
        |(paid, expired_at, cancelled_at, confirmation, reverted, excess_told)| Facts {
            paid,
            expired_at,
            cancelled_at,
            confirmation,
            reverted,
            excess_told,
        },
    )
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    (0..all.len()).prop_map(move |index| all[index])
}

fn any_payment() -> impl Strategy<Value = Payment> {
    let state = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let value = proptest::prop_oneof![
        any::<[u8; 32]>(),
        Just([0xff; 32]),
        Just([0; 32]),
        any::<u8>().prop_map(|last| {
            let mut word = [0; 32];
            word[31] = last;
            word
        })
    ];
    (network(), key(), any::<[u8; 20]>(), any::<[u8; 20]>(), value, any::<u8>(), long(), time(), state).prop_map(
        |(network, key, from, to, value, decimals, number, time, (standing, proven, settled, promoted, by_hand, late_told))| Payment {
            network,
            key,
            from: Address(from),
            to: Address(to),
            value: Raw::from_be_bytes(value),
            decimals,
            block: Mark { number, time },
            standing,
            proven,
            // Only what stands is settled.
            settled: settled && standing,
            promoted,
            by_hand,
            late_told,
            failed: false,
        },
    )
}

fn written() -> impl Strategy<Value = Written> {
    const STATUS: &[Status] = Status::ALL;
    let later = (facts(), one_of(STATUS), option::of(one_of(Exception::ALL)), (amount(), amount()), option::of(network()), time());
    let payments = vec((any_payment(), one_of(Recorded::ALL), option::of(text())), 0..4);
    let leases = vec((long(), option::of(long())), 0..4);
    ((any_terms(), any_details(), any::<bool>()), later, option::of(text()), leases, payments).prop_map(
        |(
            (terms, details, livemode),
            (facts, status, exception, (received, confirmed), current, expires_at),
            cancel_reason,
            leases,
            payments,
        )| {
            let tally = Tally { received, confirmed };
            let later =
                Order { terms: Terms { expires_at, ..terms.clone() }, facts, leases: Vec::new(), current, tally, status, exception };
            Written { terms, details, livemode, later, cancel_reason, leases, payments }
        },
    )
}

async fn orders_come_back_as_they_were_stored(ground: Ground) {
    let store = ground.open().await;
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&written(), |written| {
            runtime.block_on(comes_back(&store, written));
            Ok(())
        })
    })
    .unwrap();
}

async fn comes_back(store: &Store, written: Written) {
    // The shrinker stores the same numbers again: a merchant of its own keeps them apart.
    let merchant = MerchantId::new(at(0), id_bytes());
    let mut new = NewOrder { merchant, livemode: written.livemode, details: written.details, ..new_order() };
    new.order = Order { current: written.later.current.clone(), ..order::open(written.terms) };
    let leases: Vec<(NewLease, Option<u64>)> =
        written.leases.iter().map(|(from, to)| (new_lease(new.id, &new_wallet(&tron()), *from), *to)).collect();
    done(
        store,
        Changes {
            new_orders: vec![new.clone()],
            new_leases: leases.iter().map(|(lease, _)| lease.clone()).collect(),
            ..Changes::default()
        },
    )
    .await;
    let mut expected = new.order.clone();
    expected.leases = leases.iter().map(|(lease, _)| lease.lease.clone()).collect();
    let addresses: Vec<(String, String)> = leases.iter().map(|(lease, _)| (lease.address_text.clone(), lease.tag.clone())).collect();
    let found = store.order(new.id).await.unwrap().unwrap();
    assert_eq!(found.order, expected);
    assert_eq!((found.merchant, found.livemode, found.created_at), (merchant, new.livemode, new.created_at));
    assert_eq!((&found.details, &found.addresses), (&new.details, &addresses));
    assert_eq!((found.version, found.cancel_reason, found.transfers.len()), (1, None, 0));

    // Then it takes a step, with all its payments; two rounds, so that stored rows change too.
    let transfers: Vec<TransferChange> = written
        .payments
        .into_iter()
        .map(|(payment, recorded, raw_log)| {
            let payment = Payment { key: TransferKey { tx_hash: hash(), ..payment.key }, ..payment };
            let wallet = raw_log.as_ref().map(|_| WalletId::new(at(0), id_bytes()));
            TransferChange { recorded, raw_log, wallet, ..new_transfer(payment, Some(new.id)) }
        })
        .collect();
    let first: Vec<TransferChange> = transfers
        .iter()
        .map(|transfer| {
            let payment = Payment {
                standing: true,
                proven: false,
                settled: false,
                promoted: false,
                by_hand: false,
                late_told: false,
                failed: false,
                ..transfer.payment.clone()
            };
            TransferChange { payment, recorded: Recorded::Matched, ..transfer.clone() }
        })
        .collect();
    done(store, Changes { transfers: first, ..Changes::default() }).await;
    let later = Order { leases: expected.leases.clone(), ..written.later };
    let again = transfers.iter().map(|transfer| TransferChange { version: Some(1), ..transfer.clone() }).collect();
    done(
        store,
        Changes {
            orders: vec![OrderChange {
                id: new.id,
                version: 1,
                order: later.clone(),
                cancel_reason: written.cancel_reason.clone(),
                edited: None,
            }],
            ended_leases: leases.iter().filter_map(|(lease, to)| Some((lease.lease.clone(), (*to)?))).collect(),
            transfers: again,
            ..Changes::default()
        },
    )
    .await;
    let mut expected = later;
    for (lease, (_, to)) in expected.leases.iter_mut().zip(&leases) {
        lease.to = *to;
    }
    let found = store.order(new.id).await.unwrap().unwrap();
    assert_eq!(found.order, expected);
    assert_eq!((found.version, &found.cancel_reason, &found.details), (2, &written.cancel_reason, &new.details));
    let mut sorted: Vec<&TransferChange> = transfers.iter().collect();
    sorted.sort_by_key(|transfer| (transfer.payment.block.number, transfer.id));
    assert_eq!(found.transfers.len(), sorted.len());
    for (found, stored) in found.transfers.iter().zip(sorted) {
        same_transfer(found, stored);
        assert_eq!(found.version, 2);
    }
}

fn same_transfer(found: &TransferRow, stored: &TransferChange) {
    assert_eq!((found.id, &found.payment, found.block_hash), (stored.id, &stored.payment, stored.block_hash));
    assert_eq!((found.recorded, found.order, found.wallet), (stored.recorded, stored.order, stored.wallet));
    assert_eq!((&found.address_texts, found.seen_at), (&stored.address_texts, stored.seen_at));
}
