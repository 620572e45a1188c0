//! How long making an order, reading it and a page of orders take with 1,000 orders stored and with
//! 1,000,000, filter by filter and in turns, and how the database finds a page.
//!
//!     cargo bench -p tidegate --bench lists
//!     LISTS_POSTGRES=postgres://… cargo bench -p tidegate --bench lists     # an empty database of yours

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

mod order;

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _};
use tidegate::store::{Commit, Migrate, OrderFilter, Store};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::id::{MerchantId, OrderId};
use tidegate_rules::order::Status;
use tidegate_rules::time::Time;

const FEW: i64 = 1_000;
const MANY: i64 = 1_000_000;

/// When the first order was made; one comes every second.
const FIRST_MS: i64 = 1_700_000_000_000;

/// Pages of each kind that are read, after as many to warm up.
const PAGES: u32 = 200;

/// Orders that are made, and read.
const MADE: usize = 2_000;

fn main() {
    sqlx::any::install_default_drivers();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("sqlite://{}", dir.path().join(name).display());
        compare("SQLite", &url("few.db"), &url("many.db")).await;
        if let Ok(base) = std::env::var("LISTS_POSTGRES") {
            let mut connection = sqlx::AnyConnection::connect(&base).await.unwrap();
            for name in ["tidegate_few", "tidegate_many"] {
                for text in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
                    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
                }
            }
            let (server, _) = base.rsplit_once('/').unwrap();
            compare("PostgreSQL", &format!("{server}/tidegate_few"), &format!("{server}/tidegate_many")).await;
        }
    });
}

async fn compare(engine: &str, few: &str, many: &str) {
    let filling = Instant::now();
    let few = filled(few, FEW).await;
    let many = filled(many, MANY).await;
    println!("\n{engine}: {FEW} and {MANY} orders stored in {:.0} s; a page of 50, mean of {PAGES}", filling.elapsed().as_secs_f64());
    let line = |name: &str, small: Duration, large: Duration| {
        println!(
            "  {name:<28} {:>8.0} µs with few {:>8.0} µs with many: ratio {:.2}",
            small.as_secs_f64() * 1e6,
            large.as_secs_f64() * 1e6,
            small.as_secs_f64() / large.as_secs_f64()
        );
    };
    let (small, large) = made(&few, &many).await;
    line("an order made", small, large);
    let (small, large) = read(&few, &many, |turn, count| count - 1 - turn * 7_919 % FEW).await;
    line("one of the last 1,000 read", small, large);
    let (small, large) = read(&few, &many, |turn, count| turn * 7_919 % count).await;
    line("any order read", small, large);
    for (name, filter) in filters() {
        let (small, large) = (filter(FEW), filter(MANY));
        let (mut few_took, mut many_took) = (Duration::ZERO, Duration::ZERO);
        for page in 0..2 * PAGES {
            let warm = page >= PAGES;
            for (store, filter, took) in [(&few, &small, &mut few_took), (&many, &large, &mut many_took)] {
                let begun = Instant::now();
                store.list_orders(filter.clone(), 50).await.unwrap();
                *took += if warm { begun.elapsed() } else { Duration::ZERO };
            }
        }
        line(name, few_took / PAGES, many_took / PAGES);
    }
    println!("  (goal: at least 0.90)\n\n{engine}: how a page of the {MANY} is found");
    for (name, filter) in filters() {
        let plan = many.explain_orders(filter(MANY), 50).await.unwrap();
        println!("  {name}\n    {}", plan.join("\n    "));
    }
}

/// A filter by its name, for a table of so many orders.
type Filter = fn(i64) -> OrderFilter;

fn filters() -> [(&'static str, Filter); 10] {
    let none = |_| OrderFilter { merchant: Some(merchant()), ..OrderFilter::default() };
    [
        ("the newest", none),
        ("from the middle on", |count| OrderFilter { before: Some(id(count / 2)), ..base() }),
        ("status (1 in 10)", |_| OrderFilter { status: Some(Status::Expired), ..base() }),
        ("network (1 in 20)", |_| OrderFilter { network: Some(Network::new("bsc")), ..base() }),
        ("user", |_| OrderFilter { user_id: Some("user-0".into()), ..base() }),
        ("merchant_order_id", |_| OrderFilter { merchant_order_id: Some("INV-500".into()), ..base() }),
        ("address", |_| OrderFilter { address: Some("T-500".into()), ..base() }),
        ("created in an hour", |count| OrderFilter {
            created_from: Some(Time::from_millis(FIRST_MS + count / 2 * 1_000)),
            created_to: Some(Time::from_millis(FIRST_MS + (count / 2 + 3_600) * 1_000)),
            ..base()
        }),
        ("exact amount", |_| OrderFilter {
            amount_min: Some(Amount::from_micros(1_000_000)),
            amount_max: Some(Amount::from_micros(1_000_000)),
            ..base()
        }),
        ("amount from 1", |_| OrderFilter { amount_min: Some(Amount::from_micros(1_000_000)), ..base() }),
    ]
}

fn base() -> OrderFilter {
    OrderFilter { merchant: Some(merchant()), ..OrderFilter::default() }
}

fn merchant() -> MerchantId {
    MerchantId::new(Time::from_millis(FIRST_MS), [0; 10])
}

fn id(number: i64) -> String {
    OrderId::new(Time::from_millis(FIRST_MS + number * 1_000), [0; 10]).to_string()
}

/// The mean time of making an order, in turns.
async fn made(few: &Store, many: &Store) -> (Duration, Duration) {
    let (small, large) = (order::prepared(few, MADE).await, order::prepared(many, MADE).await);
    let mut took = [Duration::ZERO; 2];
    for orders in small.into_iter().zip(large) {
        for (at, store, order) in [(0, few, orders.0), (1, many, orders.1)] {
            let begun = Instant::now();
            assert_eq!(store.commit(order).await.unwrap(), Commit::Done);
            took[at] += begun.elapsed();
        }
    }
    (took[0] / MADE as u32, took[1] / MADE as u32)
}

/// The mean time of reading stored orders, in turns; `which` says the number of the next. All of them
/// have been read once before.
async fn read(few: &Store, many: &Store, which: fn(i64, i64) -> i64) -> (Duration, Duration) {
    let mut took = [Duration::ZERO; 2];
    for turn in 0..2 * MADE as i64 {
        for (at, store, count) in [(0, few, FEW), (1, many, MANY)] {
            let id = id(which(turn % MADE as i64, count)).parse().unwrap();
            let begun = Instant::now();
            assert!(store.order(id).await.unwrap().is_some());
            took[at] += if turn < MADE as i64 { Duration::ZERO } else { begun.elapsed() };
        }
    }
    (took[0] / MADE as u32, took[1] / MADE as u32)
}

/// A database with so many orders of one merchant: a thousand for each user and each amount, so that
/// pages are full in both; a number of its own each, one lease each.
async fn filled(url: &str, count: i64) -> Store {
    let store = Store::open(url, 4, Duration::from_secs(30), Migrate::Yes).await.unwrap();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    let sqlite = url.starts_with("sqlite");
    // The time of an order is in its id, as 48 bits of milliseconds.
    let (numbers, hex) = if sqlite {
        (
            format!("WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1)"),
            "printf('%012x', {} + i * 1000)",
        )
    } else {
        (format!("WITH n (i) AS (SELECT generate_series(0::bigint, {count} - 1))"), "lpad(to_hex({} + i * 1000), 12, '0')")
    };
    let time = hex.replace("{}", &FIRST_MS.to_string());
    let tail = id(0).split_at(4 + 12).1.to_owned();
    let number = "CAST(i AS TEXT)";
    let groups = (count / 1_000).max(1);
    let orders = format!(
        "INSERT INTO usdt_payment_orders (id, merchant_id, livemode, status, network, token, amount, amount_received, amount_confirmed, tolerance, expires_at, \
         late_window, accept_late, cooldown, depths, user_id, merchant_order_id, metadata, payer_chooses, created_at, paid_late, expired_at, reverted, excess_told, version) \
         {numbers} SELECT 'ord_' || {time} || '{tail}', '{}', 0, CASE i % 10 WHEN 0 THEN 'expired' ELSE 'cancelled' END, CASE i % 20 WHEN 3 THEN 'bsc' ELSE 'tron' END, \
         'USDT', 1000000 + i % {groups}, 0, 0, 0, {FIRST_MS} + i * 1000, 0, 1, 0, '{{}}', 'user-' || CAST(i % {groups} AS TEXT), 'INV-' || {number}, '{{}}', 0, {FIRST_MS} + i * 1000, 0, \
         {FIRST_MS}, 0, 0, 1 FROM n",
        merchant()
    );
    let leases = format!(
        "INSERT INTO leases (id, order_id, network, wallet_id, address, address_hex, tag, from_height, to_height, late_until, created_at) \
         {numbers} SELECT 'lea_' || {time} || '{tail}', 'ord_' || {time} || '{tail}', CASE i % 20 WHEN 3 THEN 'bsc' ELSE 'tron' END, 'wal_' || {time} || '{tail}', \
         'T-' || {number}, '{}', '', 1, 2, 0, 0 FROM n",
        "00".repeat(20)
    );
    // SQLite wants the common table expression in front.
    let in_front = |text: String| {
        let (insert, rest) = text.split_once(numbers.as_str()).unwrap();
        format!("{numbers} {insert} {rest}")
    };
    let cancelled = "UPDATE usdt_payment_orders SET cancelled_at = 1 WHERE status = 'cancelled'".to_owned();
    for text in [in_front(orders), in_front(leases), cancelled, "ANALYZE".to_owned()] {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    store
}
