//! A database that grows old: one of the first schema goes through every migration with all it has
//! and the program runs on it, what is old enough leaves for files, and PostgreSQL's tables are
//! divided by time without anybody noticing.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tidegate::store::{Leaving, Migrate, Store};
use tidegate_rules::id::{DeliveryId, TransferId};
use tidegate_rules::time::{Span, Time};

use crate::gateway::{Home, Settings};
use crate::operator::{look, tamper};
use crate::wait::eventually;

const FIRST: &str = include_str!("../../migrations/0001_first.sql");

/// When the first version ran: the ninth of October 2025.
const THEN: i64 = 1_760_000_000_000;

/// The end of every id of then.
const TAIL: &str = "70008000000000000001";

fn home(postgres: bool) -> Home {
    // Beside the process, in its own directory.
    let more = "[retention]\narchive_dir = \"archive\"\n".to_owned();
    Home::unmigrated(&Settings { postgres, more, ..Settings::new("http://127.0.0.1:9", [7; 20]) })
}

async fn store(home: &Home) -> Store {
    Store::open(&home.database_url, 4, Duration::from_secs(30), Migrate::Yes).await.unwrap()
}

/// An id of then: of the same time, whatever its kind.
fn id(prefix: &str) -> String {
    format!("{prefix}_{THEN:012x}{TAIL}")
}

/// A database as the first version left it: one order that was paid, and what belongs to it.
async fn first_schema(home: &Home) {
    let (serial, now) = if home.database_url.starts_with("postgres") {
        ("BIGSERIAL PRIMARY KEY", "CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT)")
    } else {
        std::fs::write(home.path().join("books.db"), "").unwrap();
        ("INTEGER PRIMARY KEY AUTOINCREMENT", "CAST(unixepoch('subsec') * 1000 AS INTEGER)")
    };
    tamper(home, &FIRST.replace("{serial}", serial).replace("{now}", now)).await;
    let hash = "ab".repeat(32);
    let address = "11".repeat(20);
    let [merchant, wallet, order, lease, transfer, event, delivery, alert] =
        ["mer", "wal", "ord", "lea", "tx", "evt", "whd", "alr"].map(id);
    let later = delivery.replace(TAIL, "70008000000000000002");
    let rows = format!(
        "CREATE TABLE schema_versions (version BIGINT PRIMARY KEY, name TEXT NOT NULL);
         INSERT INTO schema_versions VALUES (1, 'first');
         INSERT INTO merchants VALUES ('{merchant}', 'old-shop', NULL, 'v1.x', {THEN});
         INSERT INTO api_keys VALUES ('{key}', '{merchant}', 'hash', 'orders:read', 1, {THEN});
         INSERT INTO wallet_epochs VALUES ('anvil', 1);
         INSERT INTO usdt_wallets VALUES ('{wallet}', 'w', 'anvil', '0x{address}', '{address}', 'random', 'cooldown', 'v1.x', 'tag', 'low', 5, 1, 9, 7, {THEN}, NULL, 1, {THEN}, {THEN}, 3);
         INSERT INTO usdt_payment_orders (id, merchant_id, livemode, status, network, token, amount, amount_received, amount_confirmed, tolerance, expires_at,
           late_window, accept_late, cooldown, depths, merchant_order_id, metadata, payer_chooses, created_at, paid_at, paid_by, paid_late, reverted, excess_told, version)
           VALUES ('{order}', '{merchant}', 0, 'paid', 'anvil', 'USDT', 12500000, 12500000, 12500000, 0, {THEN}, 0, 1, 0, '{{\"anvil\":3}}', 'INV-1', '{{}}', 0, {THEN}, {THEN}, 'money', 0, 0, 0, 4);
         INSERT INTO leases VALUES ('{lease}', '{order}', 'anvil', '{wallet}', '0x{address}', '{address}', 'tag', 1, 9, {THEN}, {THEN});
         INSERT INTO transfer_keys VALUES ('anvil', '{hash}', 0, '{transfer}');
         INSERT INTO blockchain_transactions VALUES ('{transfer}', 'anvil', '{hash}', 0, 7, '{hash}', {THEN}, '0x{address}', '{address}', '0x{address}', '{address}',
           12500000, '12500000', 6, 'confirmed', 'matched', '{order}', '{wallet}', 1, 0, 0, 0, NULL, {THEN}, 2);
         INSERT INTO journal VALUES ('{transfer}', 1, 'anvil', 'a', 'b', '12500000', {THEN});
         INSERT INTO events (id, kind, merchant_id, order_id, at, body) VALUES ('{event}', 'order.paid', '{merchant}', '{order}', {THEN}, '{{}}');
         INSERT INTO payment_webhooks VALUES ('{delivery}', '{event}', '{merchant}', '{order}', 'http://127.0.0.1:9/', 'http://127.0.0.1:9', {THEN}, 'delivered', 1, {THEN}, 200, NULL, {THEN});
         INSERT INTO payment_webhooks VALUES ('{later}', '{event}', '{merchant}', '{order}', 'http://127.0.0.1:9/', 'http://127.0.0.1:9', {THEN}, 'due', 3, 9000000000000, 500, 'no', {THEN});
         INSERT INTO idempotency_keys VALUES ('scope', 'mac', 201, NULL, '{{}}', {THEN});
         INSERT INTO alerts VALUES ('{alert}', 'pool_low', 'anvil', 'few', 'open', {THEN});
         INSERT INTO wallet_balances VALUES ('{wallet}/{THEN}', '{wallet}', '12500000', 7, {THEN});
         INSERT INTO settings VALUES ('something', 'old')",
        key = id("key"),
    );
    tamper(home, &rows).await;
}

/// Every table of the first schema that has rows, and how many.
async fn counts(home: &Home) -> Vec<(String, String)> {
    let mut counts = Vec::new();
    for name in FIRST.lines().filter_map(|line| line.strip_prefix("CREATE TABLE ")).filter_map(|rest| rest.split(' ').next()) {
        counts.push((name.to_owned(), look(home, &format!("SELECT COUNT(*) FROM {name}")).await));
    }
    counts
}

async fn an_old_database_grows_up(postgres: bool) {
    let home = home(postgres);
    first_schema(&home).await;
    let before = counts(&home).await;
    assert!(home.run(&["check"]).output().contains("has schema 1"), "nothing is migrated in passing");
    home.run(&["migrate"]).succeeded();
    assert_eq!(counts(&home).await, before, "no row is lost and none is added");
    if postgres {
        for table in ["blockchain_transactions", "wallet_balances", "payment_webhooks"] {
            let first = look(&home, &format!("SELECT DISTINCT tableoid::regclass FROM {table}")).await;
            assert_eq!(first, format!("{table}_before"), "what there was is the first partition");
        }
    }

    let key = home.api_key("old-shop", &["orders:read", "admin"]);
    let mut gateway = home.serve().await;
    let api = gateway.api(&key);
    let order = api.get(&format!("/api/v1/orders/{}", id("ord"))).await.expect(200).json();
    assert_eq!((order["status"].as_str(), order["merchant_order_id"].as_str()), (Some("paid"), Some("INV-1")), "{order}");
    assert_eq!(order["transfers"].as_array().map(Vec::len), Some(1), "{order}");
    let transfers = api.get("/api/v1/admin/transactions").await.expect(200).json();
    assert_eq!(transfers["data"].as_array().map(Vec::len), Some(1), "{transfers}");

    // What is done and old leaves for files; what is due, and money, stays.
    let left = "SELECT COUNT(*) FROM archives WHERE table_name IN ('payment_webhooks', 'wallet_balances')";
    eventually("two files are written", async || {
        let found = look(&home, left).await;
        if found == "2" { Ok(()) } else { Err(found) }
    })
    .await;
    assert_eq!(look(&home, "SELECT status FROM payment_webhooks").await, "due");
    assert_eq!(look(&home, "SELECT COUNT(*) FROM wallet_balances").await, "0");
    for table in ["usdt_payment_orders", "blockchain_transactions", "journal", "events", "transfer_keys", "leases"] {
        assert_eq!(look(&home, &format!("SELECT COUNT(*) FROM {table}")).await, "1", "{table}");
    }
    let rows = read_archives(&home, &home.path().join("archive")).await;
    let delivered = rows.iter().find(|row| row["id"] == id("whd").as_str()).unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!(
        (&delivered["status"], &delivered["last_code"], &delivered["subject_id"]),
        (&"delivered".into(), &200.into(), &id("ord").into())
    );
    assert_eq!(rows.len(), 2, "{rows:?}");
    gateway.terminate().await;
}

#[tokio::test]
async fn a_database_of_the_first_schema_grows_up_on_sqlite() {
    an_old_database_grows_up(false).await;
}

#[tokio::test]
async fn a_database_of_the_first_schema_grows_up_on_postgres() {
    an_old_database_grows_up(true).await;
}

/// Every row of every file that the database knows of; each file is as it was written.
async fn read_archives(home: &Home, dir: &Path) -> Vec<Value> {
    let mut rows = Vec::new();
    for line in look(home, "SELECT file, row_count, sha256 FROM archives ORDER BY file").await.lines() {
        let parts: Vec<&str> = line.split('|').collect();
        let bytes = std::fs::read(dir.join(parts[0])).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), parts[2], "{line}");
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        let before = rows.len();
        rows.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        assert_eq!((rows.len() - before).to_string(), parts[1], "{line}");
    }
    rows
}

/// A webhook of so many days after then.
fn webhook(day: i64, status: &str, before: &str) -> String {
    let at = THEN + day * 86_400_000;
    let id = DeliveryId::new(Time::from_millis(at), [1; 10]);
    format!(
        "INSERT INTO payment_webhooks (id, event_id, merchant_id, subject_id, url, origin, event_at, status, tries, due_at, before_status) \
         VALUES ('{id}', 'evt', 'mer', 'ord', 'https://shop.example/', 'https://shop.example', {at}, '{status}', 1, {at}, {before});
         INSERT INTO webhook_attempts (delivery_id, number, at, took_ms, url) VALUES ('{id}', 1, {at}, 5, 'https://shop.example/'), ('{id}', 2, {at}, 5, 'https://shop.example/');"
    )
}

async fn only_what_is_done_and_old_leaves(postgres: bool) {
    let home = home(postgres);
    let store = store(&home).await;
    let rows: String =
        [webhook(0, "delivered", "NULL"), webhook(1, "due", "NULL"), webhook(2, "failed", "NULL"), webhook(3, "delivered", "'failed'")]
            .concat();
    tamper(&home, &(rows + &webhook(9, "delivered", "NULL"))).await;
    let day = |days: i64| Time::from_millis(THEN + days * 86_400_000 + 1);
    let archive = home.path().join("archive");

    // A folder that cannot be written deletes nothing.
    std::fs::write(&archive, "a file in its place").unwrap();
    let error = store.let_leave(Leaving::Webhooks, day(5), Some(&archive), day(9)).await.unwrap_err().to_string();
    assert!(error.contains("nothing was deleted") && error.contains("retention.archive_dir"), "{error}");
    assert_eq!(look(&home, "SELECT COUNT(*) FROM payment_webhooks").await, "5");
    std::fs::remove_file(&archive).unwrap();

    // What a round left that was killed before it deleted is written again, whole.
    let first = DeliveryId::new(Time::from_millis(THEN), [1; 10]);
    let left_over = archive.join(format!("payment_webhooks/{first}.jsonl.gz"));
    std::fs::create_dir_all(left_over.parent().unwrap()).unwrap();
    for name in [left_over.clone(), left_over.with_extension("gz.partial")] {
        std::fs::write(name, "half of something").unwrap();
    }
    assert_eq!(
        store.let_leave(Leaving::Attempts, day(5), Some(&archive), day(9)).await.unwrap(),
        0,
        "a try is kept as long as its webhook"
    );
    assert_eq!(store.let_leave(Leaving::Webhooks, day(5), Some(&archive), day(9)).await.unwrap(), 2);
    assert_eq!(store.let_leave(Leaving::Webhooks, day(5), Some(&archive), day(9)).await.unwrap(), 0, "once");
    assert_eq!(store.let_leave(Leaving::Attempts, day(5), Some(&archive), day(9)).await.unwrap(), 4);
    let kept = "SELECT status FROM payment_webhooks ORDER BY id";
    assert_eq!(look(&home, kept).await, "due\ndelivered\ndelivered", "due, to be sent again, and not old enough");
    assert_eq!(look(&home, "SELECT COUNT(*) FROM webhook_attempts").await, "6");
    let rows = read_archives(&home, &archive).await;
    let of = |table: &str| rows.iter().filter(|row| row.get(table).is_some()).count();
    assert_eq!((of("event_id"), of("delivery_id")), (2, 4), "{rows:?}");
    assert!(!left_over.with_extension("gz.partial").exists());
    store.close().await;
}

#[tokio::test]
async fn only_what_is_done_and_old_leaves_on_sqlite() {
    only_what_is_done_and_old_leaves(false).await;
}

#[tokio::test]
async fn only_what_is_done_and_old_leaves_on_postgres() {
    only_what_is_done_and_old_leaves(true).await;
}

#[tokio::test]
async fn tables_are_divided_by_time_and_nobody_is_refused() {
    let home = home(true);
    let store = store(&home).await;
    let now = tidegate::clock::now();
    let partition = async |table: &str, id: &str| look(&home, &format!("SELECT tableoid::regclass FROM {table} WHERE id = '{id}'")).await;
    let names =
        async || look(&home, "SELECT relname FROM pg_class WHERE relname LIKE 'payment_webhooks_2%' AND relkind = 'r' ORDER BY 1").await;
    let ahead = names().await;
    assert_eq!(ahead.lines().count(), 7, "a week of days to come: {ahead}");

    // Long before, today, and so late that there is no partition yet: all are taken in.
    let days = |days: u64| now.plus(Span::from_secs(days * 86_400));
    let put = async |at: Time, status: &str| {
        let id = DeliveryId::new(at, [9; 10]).to_string();
        let text = webhook(0, status, "NULL");
        let one = text.split(';').next().unwrap().replace(&DeliveryId::new(Time::from_millis(THEN), [1; 10]).to_string(), &id);
        tamper(&home, &one).await;
        id
    };
    let (early, today, late) = (put(Time::from_millis(THEN), "delivered").await, put(now, "due").await, put(days(40), "delivered").await);
    assert_eq!(partition("payment_webhooks", &early).await, "payment_webhooks_before");
    assert_eq!(partition("payment_webhooks", &today).await, "payment_webhooks_before");
    assert_eq!(partition("payment_webhooks", &late).await, "payment_webhooks_default");

    // Its partition is made when its time comes, and the row goes there.
    store.tend_partitions(days(39)).await.unwrap();
    let moved = partition("payment_webhooks", &late).await;
    assert!(moved.starts_with("payment_webhooks_2"), "{moved}");
    store.tend_partitions(days(39)).await.unwrap();
    assert_eq!(look(&home, "SELECT COUNT(*) FROM payment_webhooks").await, "3");
    let next = names().await;
    assert!(!next.contains(ahead.lines().next().unwrap()), "days that are over and empty are taken away: {next}");
    assert_eq!(next.lines().count(), 8, "{next}");

    // Rows leave, and then their partition does; the others stay.
    let again = put(days(39), "due").await;
    assert_eq!(store.let_leave(Leaving::Webhooks, days(60), None, days(60)).await.unwrap(), 2);
    store.tend_partitions(days(60)).await.unwrap();
    let last = names().await;
    assert!(!last.contains(&moved) && last.contains(&partition("payment_webhooks", &again).await), "{moved} is gone: {last}");
    assert_eq!(partition("payment_webhooks", &today).await, "payment_webhooks_before", "what is due stays");

    // A row that is named by its id is looked for in one partition.
    let id = TransferId::new(days(31), [1; 10]);
    for text in [
        format!("UPDATE blockchain_transactions SET proven = 1 WHERE id = '{id}' AND version = 1"),
        format!("UPDATE payment_webhooks SET tries = 1 WHERE id = '{late}'"),
    ] {
        let plan = look(&home, &format!("EXPLAIN {text}")).await;
        assert_eq!(plan.lines().filter(|line| line.contains("Scan")).count(), 1, "{plan}");
    }
    store.close().await;
}
