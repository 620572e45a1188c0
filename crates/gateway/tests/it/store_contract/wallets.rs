//! Wallets: one lease at a time, their epoch, their order, their lists, and what they held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use tidegate::clock::id_bytes;
use tidegate::store::{Commit, Leaving, WalletFilter};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::{
    Changes, Derivation, NewBalance, NewLease, NewOrder, NewWallet, Recorded, TransferChange, WalletChange, WalletMove,
};
use tidegate_rules::id::{LeaseId, OrderId, SourceId, WalletId};
use tidegate_rules::order::{Facts, Order, Paid, PaidBy, Payment, Status};
use tidegate_rules::time::Time;
use tidegate_rules::wallet::{RiskLevel, WalletKind, WalletStatus, lease_ended, may_lease};

use super::{
    Ground, add_order, add_wallets, at, done, lend, micros, new_lease, new_order, new_transfer, new_wallet, order_change, payment, raw,
    refused, tron,
};

contract!(
    an_index_is_used_once_and_never_goes_back,
    risky_wallets_are_not_offered,
    i2_a_wallet_has_one_live_lease,
    wallets_appear_with_their_epoch_and_none_is_skipped,
    free_wallets_come_fresh_first_then_longest_rested,
    a_wallet_is_lent_rests_and_returns,
    pages_of_wallets_are_stable_and_filters_fit,
    what_wallets_held_is_kept_and_forgotten,
    only_what_moved_counts_against_the_chain,
);

async fn an_index_is_used_once_and_never_goes_back(ground: Ground) {
    let store = ground.open().await;
    let source = SourceId::new(at(0), id_bytes());
    assert_eq!(store.next_index(source, &tron()).await.unwrap(), 0);
    let derive = |from: u32, to: u32| {
        let wallets = (from..to).map(|index| NewWallet {
            source: Some((source, index)),
            sealed_key: None,
            kind: WalletKind::Hd,
            ..new_wallet(&tron())
        });
        Changes {
            new_wallets: wallets.collect(),
            derivations: vec![Derivation { source, network: tron(), from, to }],
            ..Changes::default()
        }
    };
    // Ten ask for the same ten indexes: one gets them.
    let race = join_all((0..10).map(|_| {
        let (store, changes) = (store.clone(), derive(0, 10));
        tokio::spawn(async move { store.commit(changes).await.unwrap() })
    }))
    .await;
    assert_eq!(race.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count(), 1);
    assert_eq!(store.next_index(source, &tron()).await.unwrap(), 10);
    assert_eq!(store.next_index(source, &Network::new("ethereum")).await.unwrap(), 0, "every network counts for itself");
    assert_eq!(store.commit(derive(5, 8)).await.unwrap(), Commit::Conflict);
    assert_eq!(store.commit(derive(10, 11)).await.unwrap(), Commit::Done);
    let mut indexes: Vec<u32> = store.wallets_after(None, 100).await.unwrap().iter().map(|row| row.source.unwrap().1).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, (0..11).collect::<Vec<u32>>(), "no gap and nothing twice");
}

async fn risky_wallets_are_not_offered(ground: Ground) {
    let store = ground.open().await;
    let wallets = add_wallets(&store, 4).await;
    for (wallet, level) in wallets.iter().zip(RiskLevel::ALL) {
        let change = WalletChange { id: wallet.id, version: 1, kind: WalletMove::Risk(*level) };
        done(&store, Changes { wallets: vec![change], ..Changes::default() }).await;
    }
    let free = store.free_wallets(&wallets[0].network, Some(u64::MAX), 10).await.unwrap();
    let mut levels: Vec<&str> = free.iter().map(|row| row.risk_level.name()).collect();
    levels.sort_unstable();
    assert_eq!(levels, ["low", "watch"]);
    assert!(free.iter().all(|row| may_lease(row.status, row.risk_level)));

    // A lease that ends leaves a frozen wallet frozen.
    let (id, rest) = (wallets[0].id, |version| WalletChange {
        id: wallets[0].id,
        version,
        kind: WalletMove::Rest { status: lease_ended(WalletStatus::Frozen), leased_to: 9, until: at(99) },
    });
    let put = |status, version| WalletChange { id, version, kind: WalletMove::Put { status, queue_rank: 5, rested_at: None } };
    done(&store, Changes { wallets: vec![put(WalletStatus::Frozen, 2)], ..Changes::default() }).await;
    done(&store, Changes { wallets: vec![rest(3)], ..Changes::default() }).await;
    assert_eq!(store.wallet(id).await.unwrap().unwrap().status, WalletStatus::Frozen);
}

async fn i2_a_wallet_has_one_live_lease(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 1).await.remove(0);
    let (first, second) = (new_order(), new_order());
    let leases = [new_lease(first.id, &wallet, 0), new_lease(second.id, &wallet, 50)];
    let with = |order: &NewOrder, lease: &NewLease| Changes {
        new_orders: vec![order.clone()],
        new_leases: vec![lease.clone()],
        ..Changes::default()
    };
    done(&store, with(&first, &leases[0])).await;
    // Even where nobody looks at the wallet's own row, the index stands in the way.
    refused(&store, with(&second, &leases[1])).await;
    assert!(store.order(second.id).await.unwrap().is_none());

    done(&store, Changes { ended_leases: vec![(leases[0].lease.clone(), 40)], ..Changes::default() }).await;
    refused(&store, Changes { ended_leases: vec![(leases[0].lease.clone(), 41)], ..Changes::default() }).await;
    assert_eq!(store.order(first.id).await.unwrap().unwrap().order.leases[0].to, Some(40), "it ended once");
    done(&store, with(&second, &leases[1])).await;
    let owners = async |blocks| -> Vec<(OrderId, u64)> {
        let found = store.windows(&[wallet.id], blocks).await.unwrap().remove(&wallet.id).unwrap_or_default();
        found.iter().map(|window| (window.order, window.from)).collect()
    };
    let both = [(first.id, 0), (second.id, 50)];
    // A lease takes what is in blocks above the height where it begins.
    assert_eq!(owners(0..=0).await, []);
    assert_eq!(owners(0..=50).await, both[..1], "what begins with the last block is not read");
    assert_eq!(owners(50..=50).await, both[..1]);
    assert_eq!(owners(50..=51).await, both);
    assert_eq!(owners(51..=51).await, both[1..], "what came before is not read");
    assert_eq!(owners(0..=u64::MAX).await, both);

    // Of two that began at one height the one that has time comes last, whatever made its id.
    let third = new_order();
    let mut lease = new_lease(third.id, &wallet, 50);
    lease.lease.id = LeaseId::new(at(0), id_bytes());
    done(&store, Changes { ended_leases: vec![(leases[1].lease.clone(), 50)], ..Changes::default() }).await;
    done(&store, with(&third, &lease)).await;
    assert_eq!(owners(51..=51).await, [(second.id, 50), (third.id, 50)]);
}

/// A wallet is visible together with its epoch. A reader that asks "what is new" while many add
/// wallets, some of whose commits fail, ends with exactly all of them.
async fn wallets_appear_with_their_epoch_and_none_is_skipped(ground: Ground) {
    let store = ground.open().await;
    let duplicate = add_wallets(&store, 1).await.remove(0);
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, over) = (store.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let (mut epoch, mut seen, mut steps) = (0, Vec::new(), 0);
                loop {
                    let last = over.load(Ordering::SeqCst);
                    let (newest, addresses) = store.addresses_since(&tron(), epoch).await.unwrap();
                    assert!(newest >= epoch, "the epoch went back from {epoch} to {newest}");
                    steps += usize::from(newest > epoch);
                    epoch = newest;
                    seen.extend(addresses);
                    if last {
                        return (seen, steps);
                    }
                }
            })
        })
        .collect();
    let writers = (0..24).map(|n| {
        let (store, duplicate) = (store.clone(), duplicate.clone());
        tokio::spawn(async move {
            let mut added = Vec::new();
            for round in 0..6 {
                let mut wallets: Vec<NewWallet> = (0..=(n + round) % 3).map(|_| new_wallet(&tron())).collect();
                // A wallet of another network in the same commit, and now and then one too many.
                wallets.push(new_wallet(&Network::new("ethereum")));
                let spoiled = (n * 7 + round) % 5 == 0;
                if spoiled {
                    wallets.push(NewWallet { id: WalletId::new(at(0), id_bytes()), ..duplicate.clone() });
                }
                let ours = wallets.iter().filter(|wallet| wallet.network == tron()).map(|wallet| wallet.address).collect::<Vec<_>>();
                // Two that wait for each other on two networks are told to try again.
                loop {
                    let outcome = store.commit(Changes { new_wallets: wallets.clone(), ..Changes::default() }).await.unwrap();
                    if outcome == Commit::Done {
                        assert!(!spoiled);
                        added.extend(ours);
                        break;
                    }
                    if spoiled {
                        break;
                    }
                }
            }
            added
        })
    });
    let mut expected: Vec<Address> = vec![duplicate.address];
    for added in join_all(writers).await {
        expected.extend(added.unwrap());
    }
    over.store(true, Ordering::SeqCst);
    expected.sort_unstable();
    for reader in readers {
        let (mut seen, steps) = reader.await.unwrap();
        assert!(steps > 3, "the reader saw the set grow {steps} times: nothing was concurrent");
        seen.sort_unstable();
        assert!(seen == expected, "seen {} addresses, expected {}", seen.len(), expected.len());
    }
    // Read from the start, the same.
    let (_, mut all) = store.addresses_since(&tron(), 0).await.unwrap();
    all.sort_unstable();
    assert_eq!(all, expected);
    assert_eq!(store.addresses_since(&Network::new("bsc"), 0).await.unwrap(), (0, Vec::new()));
}

async fn free_wallets_come_fresh_first_then_longest_rested(ground: Ground) {
    let store = ground.open().await;
    let ranked = |rank: i64, kind: WalletKind| NewWallet { queue_rank: rank, kind, ..new_wallet(&tron()) };
    let rested = ranked(at(100).millis(), WalletKind::Imported);
    let (fresh, fresh_too) = (ranked(0, WalletKind::Random), ranked(0, WalletKind::Random));
    let long_rested = ranked(at(50).millis(), WalletKind::Imported);
    let elsewhere = new_wallet(&Network::new("ethereum"));
    let new_wallets = vec![rested.clone(), fresh.clone(), elsewhere, long_rested.clone(), fresh_too.clone()];
    done(&store, Changes { new_wallets, ..Changes::default() }).await;
    let free =
        async |limit: i64| store.free_wallets(&tron(), Some(u64::MAX), limit).await.unwrap().into_iter().map(|w| w.id).collect::<Vec<_>>();
    assert_eq!(free(10).await, [fresh.id, fresh_too.id, long_rested.id, rested.id]);
    assert_eq!(free(1).await, [fresh.id]);

    // Lent, it is not offered; returned, it is last.
    let order = new_order();
    done(&store, Changes { wallets: vec![lend(fresh.id, 1, order.id)], ..Changes::default() }).await;
    assert_eq!(free(10).await, [fresh_too.id, long_rested.id, rested.id]);
    let rest =
        WalletChange { id: fresh.id, version: 2, kind: WalletMove::Rest { status: WalletStatus::Cooldown, leased_to: 90, until: at(200) } };
    done(&store, Changes { wallets: vec![rest], ..Changes::default() }).await;
    assert_eq!(free(10).await.len(), 3, "one that rests is not offered");
    let back = WalletChange {
        id: fresh.id,
        version: 3,
        kind: WalletMove::Return { status: WalletStatus::Available, queue_rank: at(201).millis() },
    };
    done(&store, Changes { wallets: vec![back], ..Changes::default() }).await;
    assert_eq!(free(10).await, [fresh_too.id, long_rested.id, rested.id, fresh.id]);
}

async fn a_wallet_is_lent_rests_and_returns(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 2).await.remove(0);
    let order = add_order(&store).await;
    let lease = new_lease(order.id, &wallet, 0);
    let row = async || store.wallet(wallet.id).await.unwrap().unwrap();
    let step = async |changes: Changes| store.commit(changes).await.unwrap();
    let wallet_move =
        |version: i64, kind: WalletMove| Changes { wallets: vec![WalletChange { id: wallet.id, version, kind }], ..Changes::default() };
    let made = row().await;
    assert_eq!((made.status, made.ever_leased, made.version), (WalletStatus::Available, false, 1));
    assert_eq!((made.leased_to, made.paid_at, made.order, made.last_used_at), (None, None, None, None));
    assert_eq!(
        (made.address, made.address_text, made.tag, made.kind),
        (wallet.address, wallet.address_text.clone(), wallet.tag.clone(), wallet.kind)
    );

    // Money to an idle wallet is noted; the mark only ever rises.
    for number in [30, 20] {
        let version = row().await.version;
        assert_eq!(step(wallet_move(version, WalletMove::PaidAt(number))).await, Commit::Done);
    }
    assert_eq!((row().await.paid_at, row().await.version), (Some(30), 3));

    let lent = Changes { new_leases: vec![lease.clone()], ..wallet_move(3, WalletMove::Lease { order: order.id, at: at(1) }) };
    assert_eq!(step(lent).await, Commit::Done);
    let found = row().await;
    assert_eq!(
        (found.status, found.order, found.ever_leased, found.last_used_at),
        (WalletStatus::Occupied, Some(order.id), true, Some(at(1)))
    );
    // It is not lent twice, and does not return without having rested.
    assert_eq!(step(wallet_move(4, WalletMove::Lease { order: order.id, at: at(2) })).await, Commit::Conflict);
    assert_eq!(step(wallet_move(4, WalletMove::Return { status: WalletStatus::Available, queue_rank: 1 })).await, Commit::Conflict);

    // A lease is over when its order is, and its late window too.
    let over = async |second: i64| store.leases_over(&tron(), at(second), 10).await.unwrap();
    assert!(over(9_999).await.is_empty(), "its order is pending");
    let paid = Order {
        status: Status::Paid,
        facts: Facts { paid: Some(Paid { at: at(9), by: PaidBy::Money, late: false }), ..Facts::default() },
        ..order.order.clone()
    };
    assert_eq!(step(Changes { orders: vec![order_change(order.id, 1, paid)], ..Changes::default() }).await, Commit::Done);
    assert!(over(1_500).await.is_empty(), "the settled chain is at the end of the window, not past it");
    assert_eq!(over(1_501).await, std::slice::from_ref(&lease.lease));
    assert!(store.leases_over(&Network::new("ethereum"), at(9_999), 10).await.unwrap().is_empty());

    let rests = Changes {
        ended_leases: vec![(lease.lease.clone(), 77)],
        ..wallet_move(4, WalletMove::Rest { status: WalletStatus::Cooldown, leased_to: 77, until: at(2_000) })
    };
    assert_eq!(step(rests).await, Commit::Done);
    assert!(over(9_999).await.is_empty());
    let found = row().await;
    assert_eq!((found.status, found.order, found.leased_to), (WalletStatus::Cooldown, None, Some(77)));
    let rested = async |second: i64| store.rested_wallets(&tron(), at(second), 10).await.unwrap().len();
    assert_eq!((rested(2_000).await, rested(2_001).await), (0, 1));
    assert_eq!(step(wallet_move(5, WalletMove::Lease { order: order.id, at: at(2) })).await, Commit::Conflict, "it rests");
    assert_eq!(step(wallet_move(5, WalletMove::Return { status: WalletStatus::Available, queue_rank: 5 })).await, Commit::Done);
    assert_eq!((row().await.status, rested(9_999).await), (WalletStatus::Available, 0));
    assert_eq!(step(wallet_move(6, WalletMove::Lease { order: order.id, at: at(3) })).await, Commit::Done);

    let counts = store.wallet_counts().await.unwrap();
    let mut counts: Vec<(&str, i64)> = counts.iter().map(|count| (count.status.name(), count.count)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [("available", 1), ("occupied", 1)]);
}

async fn pages_of_wallets_are_stable_and_filters_fit(ground: Ground) {
    let store = ground.open().await;
    let mut made = add_wallets(&store, 15).await;
    let imported = NewWallet { kind: WalletKind::Imported, ..new_wallet(&Network::new("ethereum")) };
    done(&store, Changes { new_wallets: vec![imported.clone()], ..Changes::default() }).await;
    made.push(imported.clone());
    done(&store, Changes { wallets: vec![lend(made[3].id, 1, new_order().id)], ..Changes::default() }).await;
    let mut expected: Vec<WalletId> = made.iter().map(|wallet| wallet.id).collect();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let (mut seen, mut before): (Vec<WalletId>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.wallets(WalletFilter { before, ..WalletFilter::default() }, 4).await.unwrap();
        seen.extend(page.iter().map(|wallet| wallet.id));
        let Some(last) = page.last() else { break };
        before = Some(last.id.to_string());
        let newer = NewWallet { id: WalletId::new(at(10_000), id_bytes()), ..new_wallet(&Network::new("bsc")) };
        done(&store, Changes { new_wallets: vec![newer], ..Changes::default() }).await;
    }
    assert_eq!(seen, expected);
    let find = async |filter: WalletFilter| store.wallets(filter, 50).await.unwrap().into_iter().map(|w| w.id).collect::<Vec<_>>();
    assert_eq!(find(WalletFilter { kind: Some(WalletKind::Imported), ..WalletFilter::default() }).await, [imported.id]);
    assert_eq!(find(WalletFilter { network: Some(Network::new("ethereum")), ..WalletFilter::default() }).await, [imported.id]);
    assert_eq!(find(WalletFilter { status: Some(WalletStatus::Occupied), ..WalletFilter::default() }).await, [made[3].id]);
    assert_eq!(find(WalletFilter { address: Some(made[7].address_text.clone()), ..WalletFilter::default() }).await, [made[7].id]);
}

fn balance(wallet: WalletId, value: u128, second: i64) -> NewBalance {
    NewBalance {
        wallet,
        value: raw(value),
        amount: micros(u64::try_from(value).unwrap()),
        block: 10,
        records: Some((raw(value), raw(0))),
        at: at(second),
        opening: None,
        is_snapshot: true,
    }
}

async fn what_wallets_held_is_kept_and_forgotten(ground: Ground) {
    let store = ground.open().await;
    let wallets = add_wallets(&store, 3).await;
    let [one, two, never] = [wallets[0].id, wallets[1].id, wallets[2].id];
    let unread = NewBalance { records: None, ..balance(two, 9, 12) };
    let balances = vec![balance(one, 5, 10), balance(one, 7, 20), balance(two, 8, 11), unread];
    done(&store, Changes { balances, ..Changes::default() }).await;
    // The same again is told to the list and not to the history.
    let again = NewBalance { is_snapshot: false, ..balance(one, 7, 30) };
    done(&store, Changes { balances: vec![again], ..Changes::default() }).await;

    let last = store.last_balances(&[one, two, never]).await.unwrap();
    let shown: BTreeMap<WalletId, (Raw, bool, Time)> =
        last.values().map(|row| (row.wallet, (row.value, row.difference().is_some(), row.taken_at))).collect();
    assert_eq!(shown, [(one, (raw(7), true, at(20))), (two, (raw(9), false, at(12)))].into());
    let shown = async |id: WalletId| store.wallet(id).await.unwrap().unwrap().balance;
    assert_eq!((shown(one).await, shown(never).await), (Some((micros(7), at(30))), None));
    assert_eq!(store.richest_wallet(&tron()).await.unwrap().map(|wallet| wallet.id), Some(two));
    let values = async |before: i64, limit: i64| -> Vec<Raw> {
        store.balances_of(one, at(before), limit).await.unwrap().iter().map(|row| row.value).collect()
    };
    assert_eq!((values(100, 10).await, values(100, 1).await, values(20, 10).await), (vec![raw(7), raw(5)], vec![raw(7)], vec![raw(5)]));
    assert_eq!(store.let_leave(Leaving::Balances, at(20), None, at(40)).await.unwrap(), 3);
    assert_eq!(values(100, 10).await, [raw(7)]);
    assert_eq!(shown(two).await, Some((micros(9), at(12))), "the newest stays on the wallet");
}

/// What came and what went to another wallet of ours, up to a block: pending and settled money, not
/// what failed, left the chain, or could not be read.
async fn only_what_moved_counts_against_the_chain(ground: Ground) {
    let store = ground.open().await;
    let wallets = add_wallets(&store, 2).await;
    let make = |to: usize, number: u64, value: u128, recorded: Recorded, change: &dyn Fn(&mut Payment)| {
        let mut payment = Payment { value: raw(value), ..payment(wallets[to].address, number) };
        change(&mut payment);
        TransferChange { recorded, wallet: Some(wallets[to].id), ..new_transfer(payment, None) }
    };
    let transfers = vec![
        make(0, 10, 1, Recorded::Stray, &|_| ()),
        make(0, 11, 20, Recorded::Stray, &|payment| payment.settled = true),
        make(0, 12, 300, Recorded::Stray, &|payment| payment.standing = false),
        make(0, 12, 4_000, Recorded::Stray, &|payment| (payment.standing, payment.failed) = (false, true)),
        make(0, 12, 50_000, Recorded::Unreadable, &|_| ()),
        make(0, 13, 600_000, Recorded::Late, &|_| ()),
        make(1, 12, 7, Recorded::Own, &|payment| payment.from = wallets[0].address),
        make(1, 12, 80, Recorded::Own, &|payment| {
            (payment.from, payment.network) = (wallets[0].address, Network::new("ethereum"));
        }),
    ];
    done(&store, Changes { transfers, ..Changes::default() }).await;
    let rows = [store.wallet(wallets[0].id).await.unwrap().unwrap(), store.wallet(wallets[1].id).await.unwrap().unwrap()];
    let sums = store.movements(&tron(), &rows[..1], 12).await.unwrap();
    assert_eq!(sums, [(wallets[0].id, (raw(21), raw(7)))].into());
    let sums = store.movements(&tron(), &rows[..1], 13).await.unwrap();
    assert_eq!(sums[&wallets[0].id], (raw(600_021), raw(7)));
    assert!(store.movements(&tron(), &rows[..1], 9).await.unwrap().is_empty());
}
