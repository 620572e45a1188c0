//! What one commit promises: all or nothing, from where it was read, once.

use futures_util::future::join_all;
use tidegate::clock::id_bytes;
use tidegate::store::Commit;
use tidegate_rules::alert::AlertKind;
use tidegate_rules::changes::{Changes, Cursor, NewWallet, Reseal, SealedIn, TransferChange, WalletChange, WalletMove};
use tidegate_rules::id::{OrderId, WalletId};
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{Exception, Order};

use super::{
    Ground, add_order, add_wallets, answer, at, blocks, cursor, done, entry, lend, new_alert, new_event, new_lease, new_order,
    new_transfer, new_wallet, order_change, payment, raw, refused, tron, with_delivery,
};

contract!(
    a_commit_is_all_or_nothing,
    versions_are_compared_and_set,
    of_many_who_read_the_same_version_one_wins,
    one_that_is_in_the_way_spoils_no_other,
    sealed_texts_change_only_where_the_old_one_stands,
    what_was_read_of_a_chain_is_stored_while_it_stands,
    an_answer_is_kept_once_and_read_back,
);

/// I6: cursor, wallets, orders, leases, transfers, journal, events and the answer move together.
/// Whichever part meets somebody else's change, nothing of the rest is stored.
async fn a_commit_is_all_or_nothing(ground: Ground) {
    let store = ground.open().await;
    let taken = add_wallets(&store, 1).await.remove(0);
    let old = add_order(&store).await;
    let old_transfer = new_transfer(payment(taken.address, 3), None);
    let old_event = new_event(old.id, EventType::Pending);
    done(
        &store,
        Changes {
            transfers: vec![old_transfer.clone()],
            journal: vec![entry(old_transfer.id, 0, ("wallet:old", "unmatched"), raw(1))],
            events: vec![old_event.clone()],
            wallets: vec![lend(taken.id, 1, old.id)],
            new_leases: vec![new_lease(old.id, &taken, 0)],
            answer: Some(answer("used", "first")),
            ..Changes::default()
        },
    )
    .await;
    let epoch = store.addresses_since(&tron(), 0).await.unwrap().0;

    let wallet = new_wallet(&tron());
    let order = new_order();
    let transfer = new_transfer(payment(wallet.address, 7), Some(order.id));
    let event = with_delivery(new_event(order.id, EventType::Pending), "https://shop.example/hook");
    let old_row = store.order(old.id).await.unwrap().unwrap();
    let whole = Changes {
        cursor: Some(cursor(None, blocks(None, 5, 3))),
        new_wallets: vec![wallet.clone()],
        wallets: vec![WalletChange { id: taken.id, version: 2, kind: WalletMove::PaidAt(9) }],
        new_orders: vec![order.clone()],
        orders: vec![order_change(old.id, 1, Order { exception: Some(Exception::Underpaid), ..old_row.order.clone() })],
        new_leases: vec![new_lease(order.id, &wallet, 0)],
        transfers: vec![transfer.clone()],
        journal: vec![entry(transfer.id, 0, ("wallet:new", "order:new"), raw(5))],
        events: vec![event.clone()],
        alerts: vec![new_alert(AlertKind::StrayMoney, "a thing")],
        answer: Some(answer("fresh", "second")),
        ..Changes::default()
    };

    // The part that conflicts, from first to last.
    type Spoil<'a> = Box<dyn Fn(&mut Changes) + 'a>;
    let spoiled: Vec<(&str, Spoil<'_>)> = vec![
        ("the network's version", Box::new(|changes| changes.cursor.as_mut().unwrap().version = Some(1))),
        ("a wallet's version", Box::new(|changes| changes.wallets[0].version = 1)),
        ("an order's version", Box::new(|changes| changes.orders[0].version = 2)),
        ("a transfer's name", Box::new(|changes| changes.transfers[0].payment.key = old_transfer.payment.key)),
        ("a wallet's address", Box::new(|changes| changes.new_wallets[0].address = taken.address)),
        ("an ended lease", Box::new(|changes| changes.ended_leases.push((new_lease(old.id, &taken, 0).lease, 8)))),
        ("a leased wallet", Box::new(|changes| changes.new_leases.push(new_lease(order.id, &taken, 0)))),
        ("a turn of the journal", Box::new(|changes| changes.journal[0].transfer = old_transfer.id)),
        ("an event's id", Box::new(|changes| changes.events[0].id = old_event.id)),
        ("an idempotency key", Box::new(|changes| changes.answer = Some(answer("used", "second")))),
    ];
    for (what, spoil) in spoiled {
        let mut changes = whole.clone();
        spoil(&mut changes);
        assert_eq!(store.commit(changes).await.unwrap(), Commit::Conflict, "{what}");
        assert!(store.network(&tron()).await.unwrap().is_none(), "{what}: the cursor moved");
        assert!(store.wallet(wallet.id).await.unwrap().is_none(), "{what}: the wallet joined");
        assert_eq!(store.addresses_since(&tron(), 0).await.unwrap().0, epoch, "{what}: the epoch moved");
        assert_eq!(store.wallet(taken.id).await.unwrap().unwrap().version, 2, "{what}: the wallet changed");
        assert!(store.order(order.id).await.unwrap().is_none(), "{what}: the order is there");
        assert_eq!(store.order(old.id).await.unwrap().unwrap().version, 1, "{what}: the order changed");
        assert!(store.windows(&[wallet.id], 0..=u64::MAX).await.unwrap().is_empty(), "{what}: the lease is there");
        assert_eq!(store.transfers_above(&tron(), 0).await.unwrap().len(), 1, "{what}: the transfer is there");
        assert_eq!(store.journal_turns(&[transfer.id]).await.unwrap().len(), 0, "{what}: the entry is there");
        assert!(store.order_events(order.id, 0).await.unwrap().is_empty(), "{what}: the event is there");
        assert_eq!(store.next_delivery_at().await.unwrap(), None, "{what}: the delivery is there");
        assert!(store.open_alerts(10).await.unwrap().is_empty(), "{what}: the alert is there");
        assert!(store.kept_answer("fresh").await.unwrap().is_none(), "{what}: the answer is there");
        assert_eq!(store.kept_answer("used").await.unwrap().unwrap().body, "first");
    }

    // The same, unspoiled, is stored whole.
    done(&store, whole).await;
    assert_eq!(store.network(&tron()).await.unwrap().unwrap().recent.len(), 3);
    assert_eq!(store.wallet(taken.id).await.unwrap().unwrap().paid_at, Some(9));
    assert_eq!(store.order(old.id).await.unwrap().unwrap().order.exception, Some(Exception::Underpaid));
    let stored = store.order(order.id).await.unwrap().unwrap();
    assert_eq!((stored.order.leases.len(), stored.transfers.len()), (1, 1));
    assert_eq!(store.order_events(order.id, 0).await.unwrap().len(), 1);
    assert_eq!(store.next_delivery_at().await.unwrap(), Some(at(2)));
    assert_eq!(store.kept_answer("fresh").await.unwrap().unwrap().body, "second");
}

async fn versions_are_compared_and_set(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 1).await.remove(0);
    let order = add_order(&store).await;
    let transfer = new_transfer(payment(wallet.address, 7), Some(order.id));
    let chain = blocks(None, 5, 1);
    done(&store, Changes { transfers: vec![transfer.clone()], cursor: Some(cursor(None, chain.clone())), ..Changes::default() }).await;
    // A network is made once.
    refused(&store, Changes { cursor: Some(cursor(None, blocks(None, 9, 1))), ..Changes::default() }).await;

    let order_to = |version| Changes { orders: vec![order_change(order.id, version, order.order.clone())], ..Changes::default() };
    let wallet_to =
        |version| Changes { wallets: vec![WalletChange { id: wallet.id, version, kind: WalletMove::PaidAt(7) }], ..Changes::default() };
    let transfer_to =
        |version| Changes { transfers: vec![TransferChange { version: Some(version), ..transfer.clone() }], ..Changes::default() };
    let network_to = |version| Changes { cursor: Some(Cursor { tip: 5, ..cursor(Some(version), Vec::new()) }), ..Changes::default() };
    let kinds: [&dyn Fn(i64) -> Changes; 4] = [&order_to, &wallet_to, &transfer_to, &network_to];
    for kind in kinds {
        refused(&store, kind(0)).await;
        refused(&store, kind(2)).await;
        done(&store, kind(1)).await;
        refused(&store, kind(1)).await;
        done(&store, kind(2)).await;
        refused(&store, kind(2)).await;
    }
    assert_eq!(store.order(order.id).await.unwrap().unwrap().version, 3);
    assert_eq!(store.order(order.id).await.unwrap().unwrap().transfers[0].version, 3);
    assert_eq!(store.wallet(wallet.id).await.unwrap().unwrap().version, 3);
    assert_eq!(store.network(&tron()).await.unwrap().unwrap().version, 3);

    // What is not there cannot be changed.
    let nobody = OrderId::new(at(1), id_bytes());
    refused(&store, Changes { orders: vec![order_change(nobody, 1, order.order.clone())], ..Changes::default() }).await;
    refused(&store, Changes { wallets: vec![lend(WalletId::new(at(1), id_bytes()), 1, nobody)], ..Changes::default() }).await;
}

async fn of_many_who_read_the_same_version_one_wins(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    for version in 1..=5 {
        let tries = (0..16).map(|n| {
            let (store, order) = (store.clone(), order.clone());
            tokio::spawn(async move {
                let changes = Changes {
                    orders: vec![order_change(order.id, version, order.order.clone())],
                    events: vec![new_event(order.id, EventType::Underpaid)],
                    alerts: vec![new_alert(AlertKind::LateMoney, &format!("{version} by {n}"))],
                    ..Changes::default()
                };
                store.commit(changes).await.unwrap()
            })
        });
        let won = join_all(tries).await.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count();
        assert_eq!(won, 1, "of those who read version {version}");
    }
    assert_eq!(store.order(order.id).await.unwrap().unwrap().version, 6);
    assert_eq!(store.order_events(order.id, 0).await.unwrap().len(), 5, "one event for each that won");
    assert_eq!(store.open_alerts(100).await.unwrap().len(), 5);
}

/// Requests that arrive together may be written together. Each stands for itself all the same, and
/// those that are refused leave nothing, wherever in the group they are.
async fn one_that_is_in_the_way_spoils_no_other(ground: Ground) {
    let store = ground.open().await;
    let old = add_order(&store).await;
    for round in 0..4 {
        let requests = (0..90).map(|n| {
            let (store, stale) = (store.clone(), order_change(old.id, 77, old.order.clone()));
            tokio::spawn(async move {
                let order = new_order();
                let is_refused = (n + round) % 9 == 0;
                let changes = Changes {
                    new_orders: vec![order.clone()],
                    orders: if n % 2 == 0 && is_refused { vec![stale] } else { Vec::new() },
                    events: vec![new_event(order.id, EventType::Pending)],
                    // The last thing that is written.
                    answer: is_refused.then(|| answer("taken", "again")),
                    ..Changes::default()
                };
                (order.id, is_refused, store.commit(changes).await.unwrap())
            })
        });
        if round == 0 {
            done(&store, Changes { answer: Some(answer("taken", "first")), ..Changes::default() }).await;
        }
        for outcome in join_all(requests).await {
            let (id, is_refused, commit) = outcome.unwrap();
            assert_eq!(commit, if is_refused { Commit::Conflict } else { Commit::Done });
            assert_eq!(store.order(id).await.unwrap().is_none(), is_refused);
            assert_eq!(store.order_events(id, 0).await.unwrap().len(), usize::from(!is_refused), "no event is lost, none is told twice");
        }
    }
    assert_eq!(store.order(old.id).await.unwrap().unwrap().version, 1);
    assert_eq!(store.kept_answer("taken").await.unwrap().unwrap().body, "first");
}

async fn sealed_texts_change_only_where_the_old_one_stands(ground: Ground) {
    let store = ground.open().await;
    let sealed =
        |n: usize| NewWallet { sealed_key: Some(format!("v1.aaaaaaaa.{n}")), tag: format!("v1.aaaaaaaa.tag{n}"), ..new_wallet(&tron()) };
    let wallets: Vec<NewWallet> = (0..70).map(sealed).collect();
    done(&store, Changes { new_wallets: wallets.clone(), ..Changes::default() }).await;
    let found = store.sealed_by_others(SealedIn::WalletKey, "bbbbbbbb", "", 1_000).await.unwrap();
    assert_eq!(found.len(), 70);
    let reseals: Vec<Reseal> = found
        .iter()
        .map(|(id, old)| Reseal { place: SealedIn::WalletKey, id: id.clone(), old: old.clone(), new: old.replace("aaaaaaaa", "bbbbbbbb") })
        .collect();
    done(&store, Changes { reseals: reseals[..69].to_vec(), ..Changes::default() }).await;
    let left = store.sealed_by_others(SealedIn::WalletKey, "bbbbbbbb", "", 1_000).await.unwrap();
    assert_eq!(left, [found[69].clone()]);
    // A second rotation that read the same rows stores nothing, not even what it could.
    assert_eq!(store.commit(Changes { reseals: reseals[60..].to_vec(), ..Changes::default() }).await.unwrap(), Commit::Conflict);
    assert_eq!(store.sealed_by_others(SealedIn::WalletKey, "bbbbbbbb", "", 1_000).await.unwrap(), left);
    assert_eq!(store.sealed_by_others(SealedIn::WalletTag, "aaaaaaaa", "", 10).await.unwrap(), []);
}

async fn an_answer_is_kept_once_and_read_back(ground: Ground) {
    let store = ground.open().await;
    let body = "{\"id\":\"ord_1\",\"note\":\"ünïcode 💶 'quoted' \\u0000\"}";
    let kept = answer("mer_1 POST /api/v1/orders key-1", body);
    done(&store, Changes { answer: Some(kept.clone()), ..Changes::default() }).await;
    refused(&store, Changes { answer: Some(answer(&kept.scope, "another")), ..Changes::default() }).await;
    for _ in 0..2 {
        let found = store.kept_answer(&kept.scope).await.unwrap().unwrap();
        assert_eq!((found.status, found.body, found.location, found.body_mac), (201, body.into(), kept.location.clone(), "mac".into()));
    }
    assert!(store.kept_answer("mer_1 POST /api/v1/orders key-2").await.unwrap().is_none());

    const DAY_S: i64 = 86_400;
    store.forget_old(at(4 + 7 * DAY_S)).await.unwrap();
    assert!(store.kept_answer(&kept.scope).await.unwrap().is_some(), "seven days are not over");
    store.forget_old(at(5 + 7 * DAY_S)).await.unwrap();
    assert!(store.kept_answer(&kept.scope).await.unwrap().is_none());
    done(&store, Changes { answer: Some(kept), ..Changes::default() }).await;
}

async fn what_was_read_of_a_chain_is_stored_while_it_stands(ground: Ground) {
    let store = ground.open().await;
    let read =
        |version| Changes { applied: Some((tron(), version)), alerts: vec![new_alert(AlertKind::StrayMoney, "a")], ..Changes::default() };
    refused(&store, read(1)).await;
    done(&store, Changes { cursor: Some(cursor(None, blocks(None, 5, 2))), ..Changes::default() }).await;
    let row = store.network(&tron()).await.unwrap().unwrap();
    done(&store, read(row.version)).await;
    let next = blocks(row.recent.last(), 7, 1);
    done(&store, Changes { cursor: Some(cursor(Some(row.version), next)), ..Changes::default() }).await;
    refused(&store, read(row.version)).await;
    done(&store, read(row.version + 1)).await;
}
