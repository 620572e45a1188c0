//! What the program asks its database all day, with 1,000 orders stored and with 1,000,000, each with
//! its lease, its transfer, two events and a webhook: how long it takes, and how it is found.
//!
//!     cargo bench -p tidegate --bench growth
//!     GROWTH_ORDERS=10000000 cargo bench -p tidegate --bench growth          # about 45 GB on each engine
//!     GROWTH_POSTGRES=postgres://… cargo bench -p tidegate --bench growth    # an empty database of yours
//!     GROWTH_SQLITE=no                                                       # PostgreSQL alone
//!     GROWTH_MOVE=yes                                                        # and moves the SQLite file there

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

use std::time::{Duration, Instant};

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};
use tidegate::store::{Busy, DeliveryFilter, EventFilter, Migrate, OrderFilter, Place, Store, TransferFilter, move_over};
use tidegate_rules::audit::Action;
use tidegate_rules::block::{Network, TransferKey};
use tidegate_rules::changes::{Changes, NewEvent};
use tidegate_rules::id::{DeliveryId, EventId, MerchantId, OrderId, TransferId, WalletId};
use tidegate_rules::notify::EventType;
use tidegate_rules::time::Time;

const FEW: i64 = 1_000;
const MANY: i64 = 1_000_000;

/// Orders go over a quarter of a year, however many there are: as long as webhooks are kept, and so
/// many partitions.
const SPAN_MS: i64 = 90 * 86_400_000;

/// How often each wallet was lent.
const LEASES: i64 = 100;

/// How often each question is asked, after as many to warm up.
const ASKED: u32 = 100;

fn main() {
    sqlx::any::install_default_drivers();
    let many = std::env::var("GROWTH_ORDERS").map_or(MANY, |text| text.parse().unwrap());
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = |name: &str| format!("sqlite:{}", dir.path().join(name).display());
        if std::env::var("GROWTH_SQLITE").as_deref() != Ok("no") {
            compare("SQLite", &sqlite("few.db"), &sqlite("many.db"), many).await;
        }
        let Ok(base) = std::env::var("GROWTH_POSTGRES") else { return };
        let (server, _) = base.rsplit_once('/').unwrap();
        let mut connection = AnyConnection::connect(&base).await.unwrap();
        for name in ["tidegate_few", "tidegate_many", "tidegate_moved"] {
            for text in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
            }
        }
        if std::env::var("GROWTH_MOVE").is_ok() {
            moved(&sqlite("many.db"), &format!("{server}/tidegate_moved")).await;
        }
        compare("PostgreSQL", &format!("{server}/tidegate_few"), &format!("{server}/tidegate_many"), many).await;
    });
}

/// Moves a filled SQLite file to PostgreSQL: rows a second, copied and compared.
async fn moved(from: &str, to: &str) {
    let audit = tidegate::people::Doer::program().did(Action::DatabaseMove, "database", Time::from_millis(0)).with(&serde_json::json!({}));
    let begun = Instant::now();
    let moved =
        move_over(Place { url: from, shown: from }, Place { url: to, shown: to }, &audit, tidegate::clock::now(), |_, _| {}).await.unwrap();
    let took = begun.elapsed().as_secs_f64();
    println!(
        "\nSQLite to PostgreSQL: {} rows copied and compared in {took:.0} s, {:.0} a second",
        moved.rows(),
        moved.rows() as f64 / took
    );
}

async fn compare(engine: &str, few: &str, many: &str, count: i64) {
    let begun = Instant::now();
    let (few, _) = filled(few, FEW).await;
    let (large, size) = filled(many, count).await;
    println!(
        "\n{engine}: {FEW} and {count} orders stored in {:.0} s, {:.1} GB; mean of {ASKED}",
        begun.elapsed().as_secs_f64(),
        size as f64 / 1e9
    );
    for question in QUESTIONS {
        let (small, big) = (ask(&few, question, FEW).await, ask(&large, question, count).await);
        let ratio = big.as_secs_f64() / small.as_secs_f64();
        println!(
            "  {question:<34} {:>7.0} µs with few {:>7.0} µs with many: {ratio:.2} times",
            small.as_secs_f64() * 1e6,
            big.as_secs_f64() * 1e6
        );
    }
    large.close().await;
    few.close().await;
    println!("\n{engine}: how it is found among the {count}");
    let mut connection = AnyConnection::connect(many).await.unwrap();
    let (explain, column) = if engine == "SQLite" { ("EXPLAIN QUERY PLAN", "detail") } else { ("EXPLAIN", "QUERY PLAN") };
    for (name, text) in statements(count) {
        let rows = sqlx::query(AssertSqlSafe(format!("{explain} {text}"))).fetch_all(&mut connection).await.unwrap();
        let lines: Vec<String> = rows.iter().map(|row| row.get(column)).collect();
        let never = lines.iter().filter(|line| line.contains("Scan")).count();
        println!("  {name} ({never} scans)\n    {}", lines.iter().take(8).cloned().collect::<Vec<_>>().join("\n    "));
    }
    connection.close().await.unwrap();
}

const QUESTIONS: [&str; 16] = [
    "an order, whole",
    "a page of orders",
    "an order by the shop's number",
    "transfers by their keys",
    "transfers to settle",
    "is any to settle",
    "transfers of a block",
    "a page of transfers",
    "whose time a wallet was",
    "orders past their time",
    "leases that are over",
    "webhooks that are due",
    "when the next is due",
    "a page of webhooks",
    "events after a place",
    "a commit: an event and its webhook",
];

async fn ask(store: &Store, question: &str, count: i64) -> Duration {
    for number in 0..ASKED {
        one(store, question, count, i64::from(number)).await;
    }
    let begun = Instant::now();
    for number in ASKED..2 * ASKED {
        one(store, question, count, i64::from(number)).await;
    }
    begun.elapsed() / ASKED
}

async fn one(store: &Store, question: &str, count: i64, number: i64) {
    let at = (number * 7_919) % count;
    let tron = Network::new("tron");
    let now = tidegate::clock::now();
    match question {
        "an order, whole" => assert_eq!(store.order(order(at, count)).await.unwrap().unwrap().transfers.len(), 1),
        "a page of orders" => {
            let filter = OrderFilter {
                merchant: Some(merchant()),
                before: Some(order(count - at % 500, count).to_string()),
                ..OrderFilter::default()
            };
            assert_eq!(store.list_orders(filter, 50).await.unwrap().len(), 50);
        }
        "an order by the shop's number" => assert!(store.order_by_merchant_id(merchant(), &format!("INV-{at}")).await.unwrap().is_some()),
        "transfers by their keys" => {
            let keys: Vec<TransferKey> =
                (0..10).map(|more| TransferKey { tx_hash: format!("{:064x}", (at + more) % count).parse().unwrap(), ordinal: 0 }).collect();
            assert_eq!(store.transfers_by_key(&tron, &keys).await.unwrap().len(), 10);
        }
        "transfers to settle" => assert!(store.unsettled(&tron, 1_000_000_000, 100).await.unwrap().is_empty()),
        "is any to settle" => assert!(!store.has_unsettled(&tron).await.unwrap()),
        "transfers of a block" => assert_eq!(store.transfers_between(&tron, at.unsigned_abs(), at.unsigned_abs()).await.unwrap().len(), 1),
        "a page of transfers" => assert_eq!(store.transfers(TransferFilter::default(), 50).await.unwrap().len(), 50),
        "whose time a wallet was" => {
            // In the middle: as many leases before it as after.
            let number = count / 2 + at;
            let height = number.unsigned_abs() + 1;
            assert!(!store.windows(&[wallet(number % (count / LEASES))], height..=height).await.unwrap().is_empty());
        }
        "orders past their time" => assert!(store.orders_past(&tron, now, 100).await.unwrap().is_empty()),
        "leases that are over" => assert!(store.leases_over(&tron, now, 100).await.unwrap().is_empty()),
        "webhooks that are due" => assert!(store.due_deliveries(Time::from_millis(1), &Busy::default(), 100).await.unwrap().is_empty()),
        "when the next is due" => drop(store.next_delivery_at().await.unwrap()),
        "a page of webhooks" => assert_eq!(store.deliveries(DeliveryFilter::default(), 50).await.unwrap().len(), 50),
        "events after a place" => {
            let ours = EventFilter { merchant: Some(merchant()), ..EventFilter::default() };
            assert_eq!(store.events(ours, at, 50).await.unwrap().len(), 50);
        }
        _ => {
            let id = EventId::new(now, tidegate::clock::id_bytes());
            let event = NewEvent {
                id,
                kind: EventType::Paid,
                merchant: merchant(),
                subject: order(at, count).into(),
                at: now,
                body: "{}".into(),
                delivery: Some((DeliveryId::new(now, tidegate::clock::id_bytes()), "https://shop.example/".into())),
            };
            let _ = store.commit(Changes { events: vec![event], ..Changes::default() }).await.unwrap();
        }
    }
}

/// The statements behind some of the questions, with values in them.
fn statements(count: i64) -> Vec<(&'static str, String)> {
    let (order, delivery) = (order(count / 2, count), DeliveryId::new(time(count / 2, count), [0; 10]));
    let transfer = TransferId::new(time(count / 2, count), [0; 10]);
    vec![
        ("an order's transfers", format!("SELECT * FROM blockchain_transactions WHERE order_id = '{order}'")),
        ("a transfer that changes", format!("UPDATE blockchain_transactions SET status = 'confirmed' WHERE id = '{transfer}' AND version = 1")),
        ("transfers to settle", "SELECT * FROM blockchain_transactions WHERE network = 'tron' AND status = 'pending' AND block_number <= 9 ORDER BY block_number, id LIMIT 9".into()),
        ("a page of transfers", "SELECT * FROM blockchain_transactions WHERE 1 = 1 ORDER BY id DESC LIMIT 50".into()),
        ("a webhook that was delivered", format!("UPDATE payment_webhooks SET status = 'delivered' WHERE id = '{delivery}'")),
        ("webhooks that are due", "SELECT w.id, e.body FROM payment_webhooks w JOIN events e ON e.id = w.event_id WHERE w.due_at <= 1 AND w.status = 'due' ORDER BY w.due_at, w.id LIMIT 9".into()),
        ("leases that are over", "SELECT l.* FROM leases l JOIN usdt_payment_orders o ON o.id = l.order_id WHERE l.network = 'tron' AND l.to_height IS NULL AND l.late_until < 9 AND o.status IN ('paid', 'expired', 'cancelled') ORDER BY l.late_until LIMIT 9".into()),
    ]
}

/// When the n-th order was made: the last is made today.
fn time(number: i64, count: i64) -> Time {
    Time::from_millis(first_ms() + number * apart_ms(count))
}

/// The beginning of a day, so that both runs of a day ask the same.
fn first_ms() -> i64 {
    tidegate::clock::now().millis() / 86_400_000 * 86_400_000 - SPAN_MS
}

/// How far apart orders are.
fn apart_ms(count: i64) -> i64 {
    SPAN_MS / count
}

fn merchant() -> MerchantId {
    MerchantId::new(Time::from_millis(1_700_000_000_000), [0; 10])
}

fn order(number: i64, count: i64) -> OrderId {
    OrderId::new(time(number, count), [0; 10])
}

fn wallet(number: i64) -> WalletId {
    WalletId::new(Time::from_millis(number), [0; 10])
}

/// A database with so many orders that are paid, and all that belongs to them; and its size.
async fn filled(url: &str, count: i64) -> (Store, i64) {
    let open = async || Store::open(url, 4, Duration::from_secs(30), Migrate::Yes).await.unwrap();
    // Nobody else is in it while it is filled, so nothing has to be kept twice.
    open().await.close().await;
    let sqlite = url.starts_with("sqlite");
    let mut connection = AnyConnection::connect(&if sqlite { format!("{url}?mode=rwc") } else { url.to_owned() }).await.unwrap();
    let fast = if sqlite {
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000; PRAGMA threads = 2"
    } else {
        "SET synchronous_commit = off; SET maintenance_work_mem = '1GB'"
    };
    sqlx::raw_sql(fast).execute(&mut connection).await.unwrap();
    if !sqlite {
        // As if the program had run all the time, month by month and day by day.
        let mut day = first_ms();
        sqlx::raw_sql("ALTER TABLE payment_webhooks DETACH PARTITION payment_webhooks_before; DROP TABLE payment_webhooks_before; ALTER TABLE blockchain_transactions DETACH PARTITION blockchain_transactions_before; DROP TABLE blockchain_transactions_before")
            .execute(&mut connection)
            .await
            .unwrap();
        let mut partitions = Vec::new();
        while day <= tidegate::clock::now().millis() {
            partitions.push(format!(
                "CREATE TABLE payment_webhooks_{day} PARTITION OF payment_webhooks FOR VALUES FROM ('whd_{day:012x}') TO ('whd_{:012x}')",
                day + 86_400_000
            ));
            day += 86_400_000;
        }
        let mut month = first_ms();
        let end = day;
        while month < end {
            let next = (month + 30 * 86_400_000).min(end);
            partitions.push(format!(
                "CREATE TABLE transactions_{month} PARTITION OF blockchain_transactions FOR VALUES FROM ('tx_{month:012x}') TO ('tx_{next:012x}')"
            ));
            month = next;
        }
        for text in partitions {
            // Those of today and tomorrow are there already.
            let _ = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await;
        }
    }
    let indexes = without_indexes(&mut connection, sqlite).await;
    let (first, apart) = (first_ms(), apart_ms(count));
    let (numbers, hex, hash) = if sqlite {
        (
            format!("WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1)"),
            format!("printf('%012x', {first} + i * {apart})"),
            "printf('%064x', i)",
        )
    } else {
        (
            format!("WITH n (i) AS (SELECT generate_series(0::bigint, {count} - 1))"),
            format!("lpad(to_hex({first} + i * {apart}), 12, '0')"),
            "lpad(to_hex(i), 64, '0')",
        )
    };
    let tail = OrderId::new(Time::from_millis(0), [0; 10]).to_string()[16..].to_owned();
    let id = |prefix: &str| format!("'{prefix}_' || {hex} || '{tail}'");
    let second = |prefix: &str| format!("'{prefix}_' || {hex} || '{}1'", &tail[..19]);
    let (wallets, at) = (count / LEASES, "i");
    let wallet_hex = if sqlite { format!("printf('%012x', i % {wallets})") } else { format!("lpad(to_hex(i % {wallets}), 12, '0')") };
    let wallet = format!("'wal_' || {wallet_hex} || '{tail}'");
    let (shop, zeros, now) = (merchant(), "00".repeat(20), format!("{first} + i * {apart}"));
    let rows = [
        (
            "usdt_payment_orders (id, merchant_id, livemode, status, network, token, amount, amount_received, amount_confirmed, tolerance, expires_at, late_window, \
             accept_late, cooldown, depths, user_id, merchant_order_id, metadata, payer_chooses, created_at, paid_at, paid_by, paid_late, reverted, excess_told, version)",
            format!(
                "{}, '{shop}', 0, 'paid', 'tron', 'USDT', 1000000, 1000000, 1000000, 0, {now}, 0, 1, 0, '{{}}', 'user-' || CAST(i % 1000 AS TEXT), \
                 'INV-' || CAST(i AS TEXT), '{{}}', 0, {now}, {now}, 'money', 0, 0, 0, 1",
                id("ord")
            ),
        ),
        (
            "leases (id, order_id, network, wallet_id, address, address_hex, tag, from_height, to_height, late_until, created_at)",
            format!("{}, {}, 'tron', {wallet}, 'T-' || CAST(i AS TEXT), '{zeros}', '', {at}, {at}, {now}, {now}", id("lea"), id("ord")),
        ),
        ("transfer_keys (network, tx_hash, ordinal, transfer_id)", format!("'tron', {hash}, 0, {}", id("tx"))),
        (
            "blockchain_transactions (id, network, tx_hash, ordinal, block_number, block_hash, block_time, from_address, from_hex, to_address, to_hex, amount, raw_value, \
             decimals, status, disposition, order_id, wallet_id, proven, promoted, by_hand, late_told, seen_at, version)",
            format!(
                "{}, 'tron', {hash}, 0, {at}, {hash}, {now}, 'T-payer', '{zeros}', 'T-' || CAST(i AS TEXT), '{zeros}', 1000000, '1000000', 6, 'confirmed', 'matched', {}, \
                 {wallet}, 1, 0, 0, 0, {now}, 1",
                id("tx"),
                id("ord")
            ),
        ),
        (
            "journal (transfer_id, turn, network, debit, credit, raw_value, at)",
            format!("{}, 1, 'tron', 'a', 'b', '1000000', {now}", id("tx")),
        ),
        (
            "events (id, kind, merchant_id, subject_id, at, body)",
            format!("{}, 'order.pending', '{shop}', {}, {now}, '{{}}'", id("evt"), id("ord")),
        ),
        (
            "events (id, kind, merchant_id, subject_id, at, body)",
            format!("{}, 'order.paid', '{shop}', {}, {now}, '{{}}'", second("evt"), id("ord")),
        ),
        (
            "payment_webhooks (id, event_id, merchant_id, subject_id, url, origin, event_at, status, tries, due_at)",
            format!(
                "{}, {}, '{shop}', {}, 'https://shop.example/', 'https://shop.example', {now}, 'delivered', 1, {now}",
                id("whd"),
                id("evt"),
                id("ord")
            ),
        ),
    ];
    for (into, values) in rows {
        // SQLite wants the common table expression in front.
        let text = if sqlite {
            format!("{numbers} INSERT INTO {into} SELECT {values} FROM n")
        } else {
            format!("INSERT INTO {into} {numbers} SELECT {values} FROM n")
        };
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    }
    for text in indexes {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    }
    sqlx::raw_sql("ANALYZE").execute(&mut connection).await.unwrap();
    let size = if sqlite {
        sqlx::query_scalar("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
            .fetch_one(&mut connection)
            .await
            .unwrap()
    } else {
        sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(&mut connection).await.unwrap()
    };
    connection.close().await.unwrap();
    if let Some(path) = url.strip_prefix("sqlite:") {
        // What the kernel still has to write would be in the way of the first commits.
        std::fs::File::open(path).unwrap().sync_all().unwrap();
    }
    (open().await, size)
}

/// Drops the indexes that are not constraints, and gives the statements that make them again: sorting
/// once is several times faster than putting each row in its place.
async fn without_indexes(connection: &mut AnyConnection, sqlite: bool) -> Vec<String> {
    let text = if sqlite {
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    } else {
        // Those of partitions go and come with their parent's.
        "SELECT c.relname::text, pg_get_indexdef(c.oid) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relnamespace = 'public'::regnamespace \
         AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.conindid = c.oid) AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid)"
    };
    let mut again = Vec::new();
    for row in sqlx::query(text).fetch_all(&mut *connection).await.unwrap() {
        let name: String = row.get(0);
        sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX {name}"))).execute(&mut *connection).await.unwrap();
        again.push(row.get::<String, _>(1).replace(" ON ONLY ", " ON "));
    }
    again
}
