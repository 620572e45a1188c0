//! Several endpoints and a chain on a bad day: who is asked, what is believed, how deep money must
//! be buried, and what the operator hears.

use serde_json::{Value, json};

use crate::anvil::Anvil;
use crate::gateway::NETWORK;
use crate::operator::{Operator, look};
use crate::proxy::{Mood, Proxy};
use crate::shop::Shop;
use crate::wait::now_s;

#[tokio::test]
async fn while_finality_lags_money_settles_only_once_it_is_final() {
    // A chain whose clock is behind ours, so that its jumps do not look like a clock gone wrong.
    let start_s = now_s() - 100_000;
    let anvil = Anvil::start_with(&["--no-mining", "--timestamp", &start_s.to_string()]).await;
    let shop = Shop::open_on(anvil, |settings| {
        settings.confirmations = "2".to_owned();
        settings.poll_interval = "50ms";
        settings.network = "final_lag_max = \"1m\"".to_owned();
    })
    .await;
    let operator = Operator::of(&shop);
    let order = shop.order("5").await;
    assert_eq!((&shop.health().await["floor"], &shop.get(&order).await["confirmations_required"]), (&Value::Null, &json!(2)));
    assert_eq!(shop.health().await["status"], "healthy");

    // The final head is two blocks below the tip, and each block a quarter of an hour after the last.
    let mine_late = async |step: u64| {
        shop.anvil.set_next_time(start_s + 10_000 + 900 * step).await;
        shop.anvil.mine(1).await;
    };
    mine_late(1).await;
    let now = shop.health_is(&json!({ "floor": "final" })).await;
    assert_eq!((&now["status"], &now["following"]), (&json!("degraded"), &json!("following")), "{now}");
    assert_eq!(shop.get(&order).await["confirmations_required"], "final");
    let alert = operator.alert(&shop, "network_in_trouble", NETWORK).await;
    assert!(alert["detail"].as_str().unwrap().contains("final head"), "{alert}");

    // Two confirmations would do on a good day.
    shop.send(&order, "5").await;
    mine_late(2).await;
    let paid_in = shop.anvil.head().await.number;
    shop.order_is(&order, "confirming").await;
    mine_late(3).await;
    shop.health_is(&json!({ "head": paid_in + 1, "finalized": paid_in - 1 })).await;
    let now = shop.get(&order).await;
    assert_eq!((&now["status"], &now["confirmations"]), (&json!("confirming"), &json!(2)), "{now}");

    // What another process knows is in the database, and a kill does not lower it.
    assert_eq!(look(&shop.home, "SELECT floor FROM networks").await, "final");

    // It is over: the blocks come quickly again.
    shop.anvil.mine(3).await;
    shop.order_is(&order, "paid").await;
    shop.health_is(&json!({ "floor": null, "status": "healthy" })).await;
    let next = shop.order("6").await;
    assert_eq!(shop.get(&next).await["confirmations_required"], 2);
    shop.pay(&next, "6").await;
    shop.anvil.mine(1).await;
    shop.order_is(&next, "paid").await;
    assert_eq!(operator.alerts(&shop, "network_in_trouble").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_payment_waits_until_two_endpoints_show_its_block() {
    let anvil = Anvil::start().await;
    let witness = Proxy::before(&anvil.url).await;
    let shop = Shop::open_on(anvil, |settings| {
        settings.more_rpc = vec![witness.url.clone()];
        settings.network = "agree_above = \"100\"".to_owned();
    })
    .await;
    let operator = Operator::of(&shop);
    let (small, exact, large) = (shop.order("50").await, shop.order("100").await, shop.order("100.000001").await);
    witness.is_now(Mood::Behind(shop.anvil.head().await.number));
    shop.pay_batch(&[(small.address, "50"), (exact.address, "100"), (large.address, "100.000001")]).await;
    shop.anvil.mine(2).await;
    shop.order_is(&small, "paid").await;
    shop.order_is(&exact, "paid").await;
    let hash = shop.get(&large).await["transfers"][0]["tx_hash"].as_str().unwrap().trim_start_matches("0x").to_owned();
    let alert = operator.alert(&shop, "agreement_missing", &hash).await;
    assert!(alert["detail"].as_str().unwrap().contains("http://localhost"), "{alert}");
    let now = shop.get(&large).await;
    assert_eq!((&now["status"], &now["confirmations"]), (&json!("confirming"), &json!(3)), "{now}");
    witness.is_now(Mood::Honest);
    shop.order_is(&large, "paid").await;
    assert_eq!(operator.alerts(&shop, "agreement_missing").await.len(), 1);

    // It shows another block in that place: one of the two is wrong.
    let contested = shop.order("200").await;
    witness.is_now(Mood::Elsewhere(shop.anvil.head().await.number));
    let hash = shop.pay(&contested, "200").await;
    shop.anvil.mine(2).await;
    let alert = operator.alert(&shop, "agreement_missing", hash.trim_start_matches("0x")).await;
    assert!(alert["detail"].as_str().unwrap().contains("another block in its place"), "{alert}");
    assert_eq!(shop.get(&contested).await["status"], "confirming");
    witness.is_now(Mood::Honest);
    shop.order_is(&contested, "paid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_go_on_when_an_endpoint_dies_and_the_operator_hears_of_it() {
    let anvil = Anvil::start().await;
    let first = Proxy::before(&anvil.url).await;
    let mut shop = Shop::open_on(anvil, |settings| {
        settings.more_rpc = vec![std::mem::replace(&mut settings.rpc, first.url.clone())];
    })
    .await;
    let operator = Operator::of(&shop);
    let now = shop.health().await;
    let names: Vec<&str> = now["endpoints"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!((&now["endpoint"], &now["switches"], names.len()), (&json!(names[0]), &json!(0), 2), "{now}");
    assert!(names[0].starts_with("http://localhost") && names[1].starts_with("http://127.0.0.1"), "{names:?}");

    let order = shop.order("5").await;
    first.is_now(Mood::Broken);
    shop.pay(&order, "5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
    let now = shop.health().await;
    assert_eq!((&now["endpoint"], &now["switches"], &now["status"]), (&json!(names[1]), &json!(1), &json!("healthy")), "{now}");
    let switch = &now["last_switches"][0];
    assert_eq!((&switch["from"], &switch["to"]), (&json!(names[0]), &json!(names[1])), "{now}");
    assert!(switch["reason"].as_str().unwrap().contains("502"), "{now}");
    assert!(now["endpoints"][0]["failures"].as_u64() >= Some(1), "{now}");
    let alert = operator.alert(&shop, "endpoint_left", names[0]).await;
    assert!(alert["detail"].as_str().unwrap().contains("502") && alert["about"].as_str().unwrap().contains(NETWORK), "{alert}");

    // Nothing comes any more, from anybody: no new order, and the operator hears of that, too.
    shop.gateway.kill();
    let config = std::fs::read_to_string(shop.home.config_file()).unwrap();
    shop.home.configure(&config.replace("max_lag = \"1000h\"", "max_lag = \"1s\""));
    shop.start_again().await;
    let alert = operator.alert(&shop, "network_behind", NETWORK).await;
    assert!(alert["detail"].as_str().unwrap().contains("stands still"), "{alert}");
    let now = shop.health().await;
    assert_eq!((&now["following"], &now["status"]), (&json!("lagging"), &json!("degraded")), "{now}");
    shop.api().post("/api/v1/orders", &json!({ "amount": "5", "network": NETWORK })).await.problem(503, "network_unavailable");
}
