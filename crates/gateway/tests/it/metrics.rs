//! `GET /metrics`: who may read it, that Prometheus can, and that it says what the rest says.

use std::collections::BTreeMap;

use crate::anvil::Anvil;
use crate::api::Answer;
use crate::gateway::{Gateway, NETWORK};
use crate::operator::Operator;
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
            assert!(name.starts_with("tidegate_") && !words.is_empty(), "{line}");
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
        (format!("tidegate_build_info{{version=\"{version}\"}}"), 1.0),
        (format!("tidegate_network_head_block{{network=\"{NETWORK}\"}}"), number(&health["head"].to_string())),
        (format!("tidegate_network_state{{network=\"{NETWORK}\",state=\"following\"}}"), 1.0),
        (format!("tidegate_network_state{{network=\"{NETWORK}\",state=\"halted\"}}"), 0.0),
        (format!("tidegate_network_blocks_behind{{network=\"{NETWORK}\"}}"), 0.0),
        (format!("tidegate_endpoint_in_use{{endpoint=\"{endpoint}\",network=\"{NETWORK}\"}}"), 1.0),
        (format!("tidegate_endpoint_state{{endpoint=\"{endpoint}\",network=\"{NETWORK}\",state=\"available\"}}"), 1.0),
        (format!("tidegate_transfer_seen_seconds_count{{network=\"{NETWORK}\"}}"), 1.0),
        (format!("tidegate_order_paid_seconds_count{{network=\"{NETWORK}\"}}"), 1.0),
        (format!("tidegate_wallets{{network=\"{NETWORK}\",status=\"occupied\"}}"), 1.0),
        ("tidegate_http_request_duration_seconds_count{method=\"POST\",route=\"/api/v1/orders\",status=\"201\"}".to_owned(), 1.0),
        ("tidegate_http_request_duration_seconds_count{method=\"GET\",route=\"/metrics\",status=\"401\"}".to_owned(), 1.0),
    ] {
        assert_eq!(found.get(&name), Some(&expected), "{name} in {found:#?}");
    }
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
