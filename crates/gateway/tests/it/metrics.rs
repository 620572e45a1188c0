//! `GET /metrics`: who may read it, that Prometheus can, and that it says what the rest says.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tidegate::store::tally::statement;
use tidegate::store::{Migrate, Store};

use crate::anvil::Anvil;
use crate::api::Answer;
use crate::gateway::{Gateway, NETWORK};
use crate::operator::Operator;
use crate::postgres;
use crate::proxy::{Mood, Proxy};
use crate::shop::Shop;
use crate::wait::eventually;

/// The samples of an answer by name and labels as they stand in it. Panics where a line is not in
/// Prometheus' text format, or a family has no help and type.
fn samples(answer: &Answer) -> BTreeMap<String, f64> {
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")), "{answer:?}");
    let (mut samples, mut family) = (BTreeMap::new(), String::new());
    for line in answer.text().lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!((name.starts_with("tidegate_") || name.starts_with("process_")) && !words.is_empty(), "{line}");
            name.clone_into(&mut family);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert!(kind.strip_prefix(&family).is_some_and(|kind| [" gauge", " counter", " histogram"].contains(&kind)), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&family), "{line} is not of {family}");
            let before = samples.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{name} stands there twice");
        }
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_does_can_be_read_as_numbers() {
    let shop = Shop::open().await;
    let operator = Operator::of(&shop);
    let order = shop.order("5").await;
    shop.pay(&order, "5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
    shop.applied(shop.anvil.head().await.number).await;

    shop.api().with_key(None).get("/metrics").await.problem(401, "unauthorized");
    shop.api().get("/metrics").await.problem(403, "insufficient_scope");
    let found = samples(&operator.api(&shop).get("/metrics").await.expect(200));
    let health = shop.health().await;
    let endpoint = health["endpoints"][0]["name"].as_str().unwrap();
    let number = |text: &str| text.parse::<f64>().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for (name, expected) in [
        ("tidegate_database_up".to_owned(), 1.0),
        ("tidegate_orders{status=\"pending\"}".to_owned(), 0.0),
        ("tidegate_events_total{type=\"order.paid\"}".to_owned(), 1.0),
        ("tidegate_loop_well{loop=\"webhooks\"}".to_owned(), 1.0),
        (format!("tidegate_loop_breaks_total{{loop=\"follow {NETWORK}\"}}"), 0.0),
        (format!("tidegate_unsettled_transfers{{network=\"{NETWORK}\"}}"), 0.0),
        (format!("tidegate_wallets_low_watermark{{network=\"{NETWORK}\"}}"), 20.0),
        (format!("tidegate_network_head_block{{network=\"{NETWORK}\"}}"), number(&health["head"].to_string())),
        (format!("tidegate_network_state{{network=\"{NETWORK}\",state=\"following\"}}"), 1.0),
        (format!("tidegate_network_state{{network=\"{NETWORK}\",state=\"halted\"}}"), 0.0),
        (format!("tidegate_network_blocks_behind{{network=\"{NETWORK}\"}}"), 0.0),
        (format!("tidegate_endpoint_in_use{{endpoint=\"{endpoint}\",network=\"{NETWORK}\"}}"), 1.0),
        (format!("tidegate_endpoint_state{{endpoint=\"{endpoint}\",network=\"{NETWORK}\",state=\"available\"}}"), 1.0),
        (format!("tidegate_transfer_seen_seconds_count{{network=\"{NETWORK}\"}}"), 1.0),
        (format!("tidegate_order_paid_seconds_count{{network=\"{NETWORK}\"}}"), 1.0),
        (format!("tidegate_wallets{{network=\"{NETWORK}\",status=\"occupied\"}}"), 1.0),
        ("tidegate_http_requests_total{method=\"POST\",route=\"/api/v1/orders\",status=\"201\"}".to_owned(), 1.0),
        ("tidegate_http_request_duration_seconds_count{method=\"POST\",route=\"/api/v1/orders\"}".to_owned(), 1.0),
        ("tidegate_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"401\"}".to_owned(), 1.0),
        ("tidegate_http_requests_in_flight".to_owned(), 1.0),
    ] {
        assert_eq!(found.get(&name), Some(&expected), "{name} in {found:#?}");
    }
    let build = found.keys().find(|name| name.starts_with("tidegate_build_info{")).unwrap();
    assert!(build.contains("engine=\"sqlite\",rust=\"1.") && build.contains(&format!("version=\"{version}\"")), "{build}");
    for (name, least) in [
        ("tidegate_commit_duration_seconds_count{outcome=\"done\"}", 3.0),
        ("tidegate_database_size_bytes", 4_096.0),
        ("tidegate_disk_free_bytes", 1.0),
        ("tidegate_database_connections{state=\"idle\"}", 1.0),
        ("tidegate_event_sequence", 3.0),
        ("process_resident_memory_bytes", 1_000_000.0),
        ("process_open_fds", 5.0),
        ("process_start_time_seconds", 1_700_000_000.0),
    ] {
        assert!(found.get(name).is_some_and(|value| *value >= least), "{name} in {found:#?}");
    }
    assert!(!found.contains_key("tidegate_redis_up"), "nobody said that there is a Redis");
    let asked = &found[&format!("tidegate_endpoint_calls_total{{endpoint=\"{endpoint}\",network=\"{NETWORK}\"}}")];
    assert!(*asked > 3.0, "{asked} calls");
    assert!(!found.keys().any(|name| name.contains(&order.id)), "a label holds what came from outside: {found:#?}");

    // The same without a key, on an address of its own, and nothing else there.
    let config = shop.home.config_file();
    let serve = ["serve", "--config", config.to_str().unwrap()];
    let mut apart = Gateway::start(shop.home.command(&serve).env("METRICS_ADDR", "127.0.0.1:0")).await;
    let there = |line: &str| line.strip_prefix("metrics on ").map(|url| url.trim().trim_end_matches("/metrics").to_owned());
    let there = apart.process.line("metrics on http://…", there).await;
    let open = shop.api().with_key(None).at(&there);
    assert!(samples(&open.get("/metrics").await.expect(200)).len() > 20);
    open.get("/api/v1/orders").await.problem(404, "not_found");
    operator.api(&shop).at(&apart.base).get("/metrics").await.expect(200);

    let off = Gateway::start(shop.home.command(&serve).env("METRICS_ENABLED", "false").env("METRICS_ADDR", "127.0.0.1:0")).await;
    operator.api(&shop).at(&off.base).get("/metrics").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_endpoint_are_counted_by_their_cause() {
    let anvil = Anvil::start().await;
    let first = Proxy::before(&anvil.url).await;
    let shop = Shop::open_on(anvil, |settings| {
        settings.more_rpc = vec![std::mem::replace(&mut settings.rpc, first.url.clone())];
        settings.network = "requests_per_day = 1000000".to_owned();
    })
    .await;
    let operator = Operator::of(&shop);
    first.is_now(Mood::Broken);
    let failing = format!("tidegate_endpoint_switches_total{{cause=\"failing\",network=\"{NETWORK}\"}}");
    let found = eventually("a change is counted", async || {
        let found = samples(&operator.api(&shop).get("/metrics").await.expect(200));
        if found.contains_key(&failing) { Ok(found) } else { Err(found.len()) }
    })
    .await;
    assert_eq!(found[&failing], 1.0);
    let of_first = |name: &str| {
        let part = format!("tidegate_endpoint_{name}{{endpoint=\"http://localhost");
        *found.iter().find(|(name, _)| name.starts_with(&part)).unwrap_or_else(|| panic!("{part} in {found:#?}")).1
    };
    assert_eq!(of_first("in_use"), 0.0);
    assert!(of_first("failures_total") >= 1.0);
    let left = of_first("requests_left");
    assert!(left < 1_000_000.0 && left > 900_000.0, "{left}");
    assert_eq!(shop.health().await["last_switches"][0]["cause"], "failing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_what_somebody_must_look_after_is_counted() {
    let shop = Shop::open().await;
    let operator = Operator::of(&shop);
    // The receiver refuses, so what is to be told is tried again later.
    shop.receiver.fail_next(1_000);
    let order = shop.order("5").await;
    shop.pay(&order, "5").await;
    shop.settled().await;
    shop.order_is(&order, "paid").await;
    // Money that nobody asked for any more, and an order that waits.
    let cancelled = shop.order("4").await;
    let path = format!("/api/v1/admin/orders/{}/cancel", cancelled.id);
    operator.api(&shop).post(&path, &serde_json::json!({ "reason": "sold out" })).await.expect(200);
    shop.pay(&cancelled, "4").await;
    shop.anvil.mine(2).await;
    operator.alert(&shop, "late_money", "").await;
    shop.order("7").await;
    let samples = eventually("what is open is counted", async || {
        let found = samples(&operator.api(&shop).get("/metrics").await.expect(200));
        let is_counted = found.get("tidegate_orders{status=\"pending\"}") == Some(&1.0)
            && found.get("tidegate_unmatched_transfers{disposition=\"late\"}") == Some(&1.0)
            && found.get("tidegate_webhook_tries_total{outcome=\"failed\"}").is_some_and(|tries| *tries >= 2.0);
        if is_counted { Ok(found) } else { Err(format!("{found:#?}")) }
    })
    .await;
    assert!(samples["tidegate_queue_length{queue=\"webhooks\"}"] >= 2.0, "{samples:#?}");
    assert_eq!(samples["tidegate_queue_length{queue=\"notifications\"}"], 0.0);
    let late = |status: &str| samples[&format!("tidegate_alerts{{kind=\"late_money\",severity=\"warning\",status=\"{status}\"}}")];
    assert_eq!((late("open"), late("acknowledged")), (1.0, 0.0));
}

/// A label never holds what a caller made up, so that nobody can fill Prometheus from outside.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_makes_things_up_adds_no_lines() {
    /// Far above what is there, far below what there would be.
    const LINES_MAX: usize = 1_500;
    let shop = Shop::open().await;
    let operator = Operator::of(&shop);
    let anybody = shop.api().with_key(None);
    let scrape = async || operator.api(&shop).get("/metrics").await.expect(200);
    for round in 0..200 {
        let method = reqwest::Method::from_bytes(format!("BREW{round}").as_bytes()).unwrap();
        anybody.request(method, &format!("/api/v1/orders/ord_{round}")).send().await;
        anybody.get(&format!("/nowhere/{round}")).await.problem(404, "not_found");
        anybody.get(&format!("/pay/ord_{round}")).await;
    }
    let found = samples(&scrape().await);
    let made_up: Vec<&String> =
        found.keys().filter(|name| name.contains("BREW") || name.contains("nowhere") || name.contains("ord_1")).collect();
    assert!(made_up.is_empty(), "{made_up:?}");
    let of =
        |route: &str| found.keys().any(|name| name.starts_with("tidegate_http_requests_total{method=\"other\"") && name.contains(route));
    assert!(of("/api/v1/orders/{id}"), "{found:#?}");
    assert!(found.len() < LINES_MAX, "{} lines", found.len());
}

/// Counting reads indexes that hold what is open, on both engines, however many orders there are.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_comes_from_indexes() {
    const INDEXES: [&str; 9] = [
        "idx_orders_status",
        // By their status or by their time: those that are due are few either way.
        "idx_webhooks_",
        "idx_notifications_due",
        "idx_inbox_waiting",
        "idx_hints_due",
        "idx_alerts_status",
        "idx_transactions_disposition",
        "idx_transactions_unsettled",
        "events",
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", folder.path().join("books.db").display());
    for url in [file, postgres::fresh_database()] {
        let store = Store::open(&url, 2, Duration::from_secs(30), Migrate::Yes).await.unwrap();
        let plan = if url.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement()))).fetch_all(&mut connection).await.unwrap();
            rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("\n")
        } else {
            // A planner that knows the tables to be empty would read them whole.
            postgres::query(&url, &format!("SET enable_seqscan = off; EXPLAIN {}", statement()))
        };
        for index in INDEXES {
            assert!(plan.contains(index), "{index} is not used on {:?}:\n{plan}", store.engine());
        }
        let whole: Vec<&str> =
            plan.lines().filter(|line| line.contains("Seq Scan") || (line.contains("SCAN ") && !line.contains("INDEX"))).collect();
        assert!(whole.is_empty(), "read whole on {:?}: {whole:?}", store.engine());
        assert_eq!(store.tally().await.unwrap().iter().filter(|count| count.n > 0).count(), 0);
        store.close().await;
    }
}
