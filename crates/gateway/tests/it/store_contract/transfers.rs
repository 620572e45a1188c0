//! Transfers and the books: stored once, found by every question, forgotten with their branch.

use std::collections::BTreeSet;

use tidegate::clock::id_bytes;
use tidegate::store::TransferRow;
use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{BlockRef, Network, TransferKey};
use tidegate_rules::changes::{Changes, Cursor, JournalEntry, Reconciled, TransferChange};
use tidegate_rules::id::{OrderId, TransferId};
use tidegate_rules::order::{Depth, Mark, Payment};

use super::{
    Ground, add_order, add_wallets, address, at, blocks, cursor, done, entry, hash, new_alert, new_transfer, payment, raw, refused, tron,
};

contract!(
    i3_a_transfer_is_stored_once,
    a_transfer_that_moves_something_else_now_is_written_anew,
    transfers_are_found_by_every_question,
    the_books_are_sums_of_entries,
    a_rewind_forgets_the_branch,
    a_second_reader_moves_from_where_it_was,
);

async fn i3_a_transfer_is_stored_once(ground: Ground) {
    let store = ground.open().await;
    let first = new_transfer(payment(address(), 7), None);
    let key = first.payment.key;
    done(&store, Changes { transfers: vec![first.clone()], ..Changes::default() }).await;
    let again = |network: &Network, key: TransferKey| {
        let payment = Payment { network: network.clone(), key, block: Mark { number: 9, time: at(30) }, ..first.payment.clone() };
        Changes { transfers: vec![new_transfer(payment, None)], ..Changes::default() }
    };
    refused(&store, again(&tron(), key)).await;
    // Another log of the transaction, and the same name on another chain, are other transfers.
    done(&store, again(&tron(), TransferKey { ordinal: 1, ..key })).await;
    done(&store, again(&Network::new("ethereum"), key)).await;
    assert_eq!(store.transfers_by_key(&tron(), &[key]).await.unwrap().len(), 2);
    assert_eq!(store.transfers_by_key(&Network::new("ethereum"), &[key]).await.unwrap().len(), 1);
    // Twice in one commit is refused as well.
    let (twice, one) = (hash(), payment(address(), 8));
    let named = |_| new_transfer(Payment { key: TransferKey { tx_hash: twice, ordinal: 0 }, ..one.clone() }, None);
    refused(&store, Changes { transfers: (0..2).map(named).collect(), ..Changes::default() }).await;
    assert!(store.transfers_by_key(&tron(), &[TransferKey { tx_hash: twice, ordinal: 0 }]).await.unwrap().is_empty());
}

async fn transfers_are_found_by_every_question(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    let other = Network::new("ethereum");
    let make = |number: u64, change: &dyn Fn(&mut Payment)| {
        let mut payment = payment(address(), number);
        change(&mut payment);
        new_transfer(payment, Some(order.id))
    };
    let pending = make(10, &|_| ());
    let settled = make(11, &|payment| payment.settled = true);
    let orphaned = make(12, &|payment| payment.standing = false);
    let newest = make(13, &|_| ());
    let elsewhere = make(12, &|payment| payment.network = other.clone());
    let transfers = vec![pending.clone(), settled.clone(), orphaned.clone(), newest.clone(), elsewhere.clone()];
    done(&store, Changes { transfers, ..Changes::default() }).await;
    let ids = |rows: Vec<TransferRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();

    assert_eq!(ids(store.transfers_above(&tron(), 10).await.unwrap()), [settled.id, newest.id], "above, and standing");
    assert_eq!(ids(store.transfers_above(&other, 0).await.unwrap()), [elsewhere.id]);
    assert_eq!(ids(store.unsettled(&tron(), 12, 10).await.unwrap()), [pending.id], "up to the height, and pending");
    assert_eq!(ids(store.unsettled(&tron(), 13, 10).await.unwrap()), [pending.id, newest.id]);
    assert_eq!(ids(store.unsettled(&tron(), 13, 1).await.unwrap()), [pending.id], "the oldest first");
    let keys = [settled.payment.key, orphaned.payment.key, elsewhere.payment.key];
    let found: BTreeSet<TransferId> = ids(store.transfers_by_key(&tron(), &keys).await.unwrap()).into_iter().collect();
    assert_eq!(found, [settled.id, orphaned.id].into(), "orphaned ones too, of this network only");
    assert_eq!(store.order(order.id).await.unwrap().unwrap().transfers.len(), 5, "an order has the money of all networks");

    // Moved from one order to another, and to none.
    let second = add_order(&store).await;
    let moved = |version: i64, order: Option<OrderId>| TransferChange { version: Some(version), order, ..pending.clone() };
    done(&store, Changes { transfers: vec![moved(1, Some(second.id))], ..Changes::default() }).await;
    assert_eq!(ids(store.order(second.id).await.unwrap().unwrap().transfers), [pending.id]);
    done(&store, Changes { transfers: vec![moved(2, None)], ..Changes::default() }).await;
    assert!(store.order(second.id).await.unwrap().unwrap().transfers.is_empty());
    assert_eq!(store.order(order.id).await.unwrap().unwrap().transfers.len(), 4);
}

async fn the_books_are_sums_of_entries(ground: Ground) {
    let store = ground.open().await;
    assert!(store.balances().await.unwrap().is_empty());
    let id = || TransferId::new(at(5), id_bytes());
    let (corrected, other) = (id(), id());
    // More than 64 and than 128 bits hold, as EVM tokens with 18 decimals may.
    let huge: Raw = "340282366920938463463374607431768211456000000".parse().unwrap();
    let elsewhere = JournalEntry { network: Network::new("ethereum"), ..entry(id(), 0, ("wallet:a", "unmatched"), raw(9)) };
    let journal = vec![
        entry(corrected, 0, ("wallet:a", "order:1"), raw(1_000)),
        entry(corrected, 1, ("order:1", "wallet:a"), raw(1_000)),
        entry(corrected, 2, ("wallet:a", "order:2"), raw(1_000)),
        entry(other, 0, ("wallet:a", "order:1"), huge),
        entry(id(), 0, ("wallet:b", "wallet:a"), raw(400)),
        elsewhere,
    ];
    done(&store, Changes { journal, ..Changes::default() }).await;
    let turns = store.journal_turns(&[corrected, other, id()]).await.unwrap();
    assert_eq!(turns, [(corrected, 3), (other, 1)].into());
    refused(&store, Changes { journal: vec![entry(corrected, 2, ("wallet:a", "order:2"), raw(1))], ..Changes::default() }).await;
    let books = store.balances().await.unwrap();
    let account = |network: &str, name: &str| books[&(Network::new(network), name.to_owned())];
    assert_eq!(account("tron", "wallet:a"), huge.saturating_add(raw(600)));
    assert_eq!(account("tron", "wallet:b"), raw(400));
    assert_eq!(account("ethereum", "wallet:a"), raw(9));
}

async fn a_second_reader_moves_from_where_it_was(ground: Ground) {
    let store = ground.open().await;
    let step = |from: Option<u64>, to: u64| Changes { reconciled: Some(Reconciled { network: tron(), from, to }), ..Changes::default() };
    assert_eq!(store.reconciled(&tron()).await.unwrap(), None);
    done(&store, step(None, 10)).await;
    refused(&store, step(None, 12)).await;
    refused(&store, step(Some(9), 12)).await;
    done(&store, step(Some(10), 12)).await;
    assert_eq!(store.reconciled(&tron()).await.unwrap(), Some(12));
    assert_eq!(store.reconciled(&Network::new("ethereum")).await.unwrap(), None);
    // Whoever lost stores nothing of what it found either.
    refused(&store, Changes { alerts: vec![new_alert(AlertKind::RereadDiffers, "block 11")], ..step(Some(10), 11) }).await;
    assert_eq!(ground.look("SELECT about FROM alerts").await, Vec::<String>::new());

    // A fork below its place takes it back: what stands there now was not compared. One above does not.
    let first = blocks(None, 5, 10);
    done(&store, Changes { cursor: Some(cursor(None, first.clone())), ..Changes::default() }).await;
    for (version, to, place) in [(1, 13, 12), (2, 9, 9)] {
        let back = Cursor { rewind_to: Some(to), tip: to, ..cursor(Some(version), Vec::new()) };
        done(&store, Changes { cursor: Some(back), ..Changes::default() }).await;
        assert_eq!(store.reconciled(&tron()).await.unwrap(), Some(place));
    }
    refused(&store, step(Some(12), 14)).await;
}

async fn a_rewind_forgets_the_branch(ground: Ground) {
    let store = ground.open().await;
    let first = blocks(None, 5, 6);
    done(&store, Changes { cursor: Some(Cursor { finalized: Some(6), ..cursor(None, first.clone()) }), ..Changes::default() }).await;
    let found = store.network(&tron()).await.unwrap().unwrap();
    assert_eq!((found.recent, found.peak, found.finalized, found.halted, found.version), (first.clone(), 10, Some(6), None, 1));
    // The same heights on top without going back are refused: a branch is never mixed with another.
    refused(&store, Changes { cursor: Some(cursor(Some(1), blocks(first.get(2), 8, 2))), ..Changes::default() }).await;

    let branch = blocks(first.get(2), 8, 2);
    let rewound =
        Cursor { rewind_to: Some(7), peak: 10, floor: Some(Depth::Final), halted: Some("why".into()), ..cursor(Some(1), branch.clone()) };
    done(&store, Changes { cursor: Some(rewound), ..Changes::default() }).await;
    let kept: Vec<BlockRef> = first[..3].iter().chain(&branch).copied().collect();
    let found = store.network(&tron()).await.unwrap().unwrap();
    assert_eq!((found.recent, found.peak, found.floor, found.halted.as_deref()), (kept.clone(), 10, Some(Depth::Final), Some("why")));

    let next = blocks(branch.last(), 10, 1);
    let forgetting = Cursor { forget_below: Some(7), ..cursor(Some(2), next.clone()) };
    done(&store, Changes { cursor: Some(forgetting), ..Changes::default() }).await;
    let kept: Vec<BlockRef> = kept[2..].iter().chain(&next).copied().collect();
    assert_eq!(store.network(&tron()).await.unwrap().unwrap().recent, kept);
    // Back without anything new.
    let back = Cursor { rewind_to: Some(8), tip: 8, ..cursor(Some(3), Vec::new()) };
    done(&store, Changes { cursor: Some(back), ..Changes::default() }).await;
    assert_eq!(store.network(&tron()).await.unwrap().unwrap().recent, kept[..2]);
}

async fn a_transfer_that_moves_something_else_now_is_written_anew(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 1).await.remove(0);
    let first = new_transfer(payment(address(), 7), None);
    done(&store, Changes { transfers: vec![first.clone()], ..Changes::default() }).await;
    let other = Payment { from: address(), to: wallet.address, value: raw(99), ..first.payment.clone() };
    let texts = ("from".to_owned(), "to".to_owned());
    let change =
        TransferChange { version: Some(1), payment: other.clone(), wallet: Some(wallet.id), address_texts: texts.clone(), ..first };
    let stored = async || store.transfers_above(&tron(), 0).await.unwrap().remove(0);
    // Where nothing says so, what it moves stays.
    done(&store, Changes { transfers: vec![change.clone()], ..Changes::default() }).await;
    assert_ne!(stored().await.payment.value, other.value);
    done(&store, Changes { transfers: vec![TransferChange { version: Some(2), rewritten: true, ..change.clone() }], ..Changes::default() })
        .await;
    let row = stored().await;
    assert_eq!((row.payment.from, row.payment.to, row.payment.value), (other.from, other.to, other.value));
    assert_eq!((row.wallet, row.address_texts), (Some(wallet.id), texts));
    refused(&store, Changes { transfers: vec![TransferChange { version: Some(2), rewritten: true, ..change }], ..Changes::default() })
        .await;
}
