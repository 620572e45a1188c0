//! Opening a database: what is in it, who may migrate it, and the names that others rely on.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tidegate::store::{Busy, Engine, Migrate, OrderRow, Store, StoreError};
use tidegate_rules::changes::{Changes, TransferChange};
use tidegate_rules::notify::EventType;
use tidegate_rules::time::{Span, Time};

use super::{
    Ground, add_wallets, address, answer, at, blocks, cursor, done, lend, new_event, new_lease, new_order, new_transfer, payment, tron,
    with_delivery,
};

contract!(
    a_store_that_is_opened_again_has_everything,
    a_database_is_not_migrated_unasked,
    two_that_open_an_empty_database_at_once_both_may,
    the_names_that_others_rely_on_are_there,
);

async fn a_store_that_is_opened_again_has_everything(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 1).await.remove(0);
    let order = new_order();
    let transfer = new_transfer(payment(wallet.address, 7), Some(order.id));
    let changes = Changes {
        cursor: Some(cursor(None, blocks(None, 5, 3))),
        new_orders: vec![order.clone()],
        wallets: vec![lend(wallet.id, 1, order.id)],
        new_leases: vec![new_lease(order.id, &wallet, 0)],
        transfers: vec![transfer.clone()],
        events: vec![with_delivery(new_event(order.id, EventType::Pending), "https://shop.example/")],
        answer: Some(answer("scope", "body")),
        ..Changes::default()
    };
    done(&store, changes).await;
    let whole = async |store: &Store| {
        let order: OrderRow = store.order(order.id).await.unwrap().unwrap();
        let network = store.network(&tron()).await.unwrap().unwrap();
        let events: Vec<(i64, String)> =
            store.order_events(order.id, 0).await.unwrap().into_iter().map(|event| (event.seq, event.id)).collect();
        let due = store.due_deliveries(at(99), &Busy::default(), 9).await.unwrap();
        (
            format!("{:?}", (order, store.wallet(wallet.id).await.unwrap())),
            format!("{:?}", (network, events, due)),
            store.addresses_since(&tron(), 0).await.unwrap(),
            store.kept_answer("scope").await.unwrap().map(|kept| kept.body),
        )
    };
    let before = whole(&store).await;
    // While the first is still open, as another process; after it was dropped; after it was closed.
    let second = ground.try_open(Migrate::No).await.unwrap();
    assert_eq!(whole(&second).await, before);
    drop(store);
    add_wallets(&second, 1).await;
    second.close().await;
    let third = ground.open().await;
    assert_eq!(whole(&third).await.0, before.0);
    assert_eq!(third.addresses_since(&tron(), 0).await.unwrap().1.len(), 2);
    // Events go on counting where they were.
    done(&third, Changes { events: vec![new_event(order.id, EventType::Paid)], ..Changes::default() }).await;
    let events = third.order_events(order.id, 0).await.unwrap();
    assert!(events[0].seq < events[1].seq);
    third.ping().await.unwrap();
}

async fn a_database_is_not_migrated_unasked(ground: Ground) {
    let refusal = async || match ground.try_open(Migrate::No).await {
        Err(StoreError::Open(why)) => why,
        Err(other) => panic!("refused with {other}"),
        Ok(_) => panic!("an empty database was opened"),
    };
    for _ in 0..2 {
        let why = refusal().await;
        assert!(why.contains("tidegate migrate"), "{why}");
    }
    ground.open().await.close().await;
    ground.try_open(Migrate::No).await.unwrap().close().await;

    // A database of a newer binary is refused by an older one, whoever asks.
    ground.look("INSERT INTO schema_versions (version, name) VALUES (9999, 'from the future')").await;
    for migrate in [Migrate::No, Migrate::Yes] {
        let why = ground.try_open(migrate).await.err().unwrap().to_string();
        assert!(why.contains("9999") && why.contains("newer tidegate"), "{why}");
    }
}

async fn two_that_open_an_empty_database_at_once_both_may(ground: Ground) {
    let openings = join_all((0..8).map(|_| ground.try_open(Migrate::Yes))).await;
    let stores: Vec<Store> = openings.into_iter().map(|opened| opened.unwrap()).collect();
    assert_eq!(
        ground.look("SELECT name FROM schema_versions").await,
        [
            "first",
            "safe",
            "chains",
            "orders",
            "notices",
            "people",
            "doors",
            "endpoints",
            "instances",
            "growth",
            "leases_by_height",
            "forgetting"
        ]
    );
    // Each of them writes, and all read the same.
    for store in &stores {
        add_wallets(store, 2).await;
    }
    for store in &stores {
        assert_eq!(store.addresses_since(&tron(), 0).await.unwrap().1.len(), 2 * stores.len());
    }
}

async fn the_names_that_others_rely_on_are_there(ground: Ground) {
    let store = ground.open().await;
    let (tables, views, indexes) = match store.engine() {
        Engine::Sqlite => (
            "SELECT name FROM sqlite_master WHERE type = 'table'",
            "SELECT name FROM sqlite_master WHERE type = 'view'",
            "SELECT name || '|' || sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        ),
        Engine::Postgres => (
            "SELECT CAST(tablename AS TEXT) FROM pg_catalog.pg_tables WHERE schemaname = 'public'",
            "SELECT CAST(viewname AS TEXT) FROM pg_catalog.pg_views WHERE schemaname = 'public'",
            "SELECT indexname || '|' || indexdef FROM pg_catalog.pg_indexes WHERE schemaname = 'public'",
        ),
    };
    let found = ground.look(tables).await;
    for table in
        ["usdt_wallets", "usdt_payment_orders", "blockchain_transactions", "payment_webhooks", "wallet_balances", "payment_notifications"]
    {
        assert!(found.iter().any(|name| name == table), "no table {table} in {found:?}");
    }
    assert_eq!(ground.look(views).await, ["recent_transactions"]);
    let found = ground.look(indexes).await;
    let found: BTreeMap<&str, &str> = found.iter().filter_map(|line| line.split_once('|')).collect();
    for (index, is_partial) in [
        ("idx_wallets_status_network", false),
        ("idx_wallets_available_network", true),
        ("idx_orders_status_expires", true),
        ("idx_orders_pending_user", true),
        ("idx_transactions_address_time", false),
        ("idx_balances_wallet_time", false),
        // I2 stands on this one.
        ("idx_leases_live_wallet", true),
    ] {
        let sql = found.get(index).unwrap_or_else(|| panic!("no index {index} in {found:?}"));
        assert_eq!(sql.contains("WHERE"), is_partial, "{sql}");
    }
    assert!(found["idx_leases_live_wallet"].contains("UNIQUE"));
    assert!(found["idx_orders_status_expires"].contains("pending"));
    assert!(found["idx_orders_pending_user"].contains("pending"));

    // The view shows what was seen in the last thirty days.
    let now = tidegate::clock::now();
    let day = Span::from_secs(86_400);
    let month = (0..30).fold(now, |time, _| time.minus(day));
    let seen = |seen_at: Time| TransferChange { seen_at, ..new_transfer(payment(address(), 7), None) };
    let (recent, old) = (seen(month.plus(day)), seen(month.minus(day)));
    done(&store, Changes { transfers: vec![recent.clone(), old], ..Changes::default() }).await;
    assert_eq!(ground.look("SELECT id FROM recent_transactions").await, [recent.id.to_string()]);
}
