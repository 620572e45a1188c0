//! A payer names the transaction that he paid with, on a real Ethereum node: what he is told, what
//! follows from it, and what he is never told. One order takes three hashes at once, so no story
//! hands in more than that.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::evm::{self, Arg};
use crate::gateway::NETWORK;
use crate::shop::{Order, Shop};

/// A hash that no transaction has.
const NOBODYS: &str = "0x00000000000000000000000000000000000000000000000000000000000000aa";

/// The payer has no key.
fn payer(shop: &Shop) -> Api {
    shop.api().with_key(None)
}

async fn hand_in(shop: &Shop, order: &Order, body: &Value) -> Answer {
    payer(shop).post(&format!("/pay/{}/transaction", order.id), body).await
}

/// Hands a hash in as a program does; gives the word, and the whole answer in words.
async fn named(shop: &Shop, order: &Order, hash: &str) -> (String, String) {
    let told = hand_in(shop, order, &json!({ "tx_hash": hash })).await.expect(200).json();
    let members: Vec<&String> = told.as_object().unwrap().keys().collect();
    assert_eq!(members, ["reason", "status"], "and nothing else: {told}");
    (told["status"].as_str().unwrap().to_owned(), told["reason"].as_str().unwrap().to_owned())
}

/// Hands a hash in as the page's form does.
async fn filled_in(shop: &Shop, order: &Order, lang: &str, form: &str) -> Answer {
    let path = format!("/pay/{}/transaction?lang={lang}", order.id);
    payer(shop).request(Method::POST, &path).body("application/x-www-form-urlencoded", form).send().await
}

#[tokio::test]
async fn a_payment_is_found_by_its_hash() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    let hash = shop.send(&order, "12.5").await;
    assert_eq!(named(&shop, &order, &hash).await.0, "waiting");

    // Nothing was decided: the money comes with its block, and counts as ever.
    assert_eq!(shop.get(&order).await["transfers"], json!([]));
    shop.anvil.mine(1).await;
    shop.order_is(&order, "confirming").await;
    // In any spelling, and the network may be named.
    let spelled = hash.trim_start_matches("0x").to_uppercase();
    let told = hand_in(&shop, &order, &json!({ "tx_hash": spelled, "network": NETWORK })).await.expect(200).json();
    assert_eq!(told["status"], "confirming", "{told}");
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
    let (status, reason) = named(&shop, &order, &hash).await;
    assert_eq!((status.as_str(), reason.contains("it counts")), ("confirmed", true), "{reason}");
    shop.events(&order, &["order.pending", "order.confirming?", "order.paid"]).await;
}

#[tokio::test]
async fn money_after_the_time_is_told_to_be_late() {
    let shop = Shop::open().await;
    let order = shop.order_with(&json!({ "amount": "12.5", "expires_in": 60 })).await;
    shop.pay(&order, "12.5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
    shop.anvil.set_next_time(order.deadline_s + 10).await;
    let late = shop.pay(&order, "3").await;
    shop.anvil.mine(2).await;
    shop.events(&order, &["order.pending", "order.confirming?", "order.paid", "order.late_payment"]).await;
    assert_eq!(named(&shop, &order, &late).await.0, "late");
}

#[tokio::test]
async fn a_failed_transaction_is_told_listed_and_announced_once() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    // An account without any of the token: the transfer is mined, and fails.
    let transfer = evm::call("transfer(address,uint256)", &[Arg::Address(order.address), Arg::Uint(shop.units("12.5"))]);
    let hash = shop.anvil.send(shop.anvil.accounts[5], Some(shop.tokens.usdt), &transfer).await;
    shop.anvil.mine(1).await;
    assert!(!shop.anvil.succeeded(&hash).await);
    shop.caught_up().await;
    assert_eq!(shop.get(&order).await["transfers"], json!([]), "it left no log: nobody has seen it");

    let (status, reason) = named(&shop, &order, &hash).await;
    assert_eq!(status, "failed");
    assert!(reason.contains("moved no money. Please pay again"), "{reason}");
    let now = shop.get(&order).await;
    let transfers = now["transfers"].as_array().unwrap();
    assert_eq!(transfers.len(), 1, "{now}");
    assert_eq!((&transfers[0]["tx_hash"], &transfers[0]["status"]), (&json!(hash), &json!("failed")), "{now}");
    assert_eq!((&now["status"], &now["amount_received"]), (&json!("pending"), &json!("0.000000")), "{now}");
    let events = shop.events(&order, &["order.pending", "order.payment_failed"]).await;
    assert_eq!(events[1]["data"]["transfers"][0]["status"], "failed");

    // The page says it too. Once more changes nothing, and the order can still be paid.
    let page = filled_in(&shop, &order, "zh", &format!("network={NETWORK}&tx_hash={hash}")).await.expect(200).text();
    assert!(page.contains("请重新付款") && page.contains("交易失败，资金未转移"), "{page}");
    assert_eq!(named(&shop, &order, &hash).await.0, "failed");
    shop.pay(&order, "12.5").await;
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["transfers"].as_array().unwrap().len(), 2, "{now}");
    shop.events(&order, &["order.pending", "order.payment_failed", "order.confirming?", "order.paid"]).await;
}

#[tokio::test]
async fn a_page_is_no_window_on_other_orders() {
    let shop = Shop::open().await;
    let (asking, other) = (shop.order("12.5").await, shop.order("7.77").await);
    let of_another = shop.pay(&other, "7.77").await;
    let transfer = evm::call("transfer(address,uint256)", &[Arg::Address([0x77; 20]), Arg::Uint(shop.units("7.77"))]);
    let of_nobody = shop.anvil.send(shop.anvil.accounts[1], Some(shop.tokens.usdt), &transfer).await;
    shop.anvil.mine(2).await;
    shop.order_is(&other, "paid").await;
    shop.caught_up().await;

    let start = Instant::now();
    let answer = named(&shop, &asking, &of_another).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "what is found in the books is told as slowly as what a chain is asked for");
    assert_eq!(answer, named(&shop, &asking, &of_nobody).await);
    assert_eq!(answer.0, "foreign");
    let page = filled_in(&shop, &asking, "en", &format!("tx_hash={of_another}")).await.expect(200).text();
    assert!(page.contains(&answer.1), "{page}");
    for secret in [&other.id, &other.address_text, "7.77"] {
        assert!(!page.contains(secret), "{secret} is in {page}");
    }
    shop.events(&asking, &["order.pending"]).await;

    // Support sees whose it is.
    let support = shop.gateway.api(&shop.home.api_key(&shop.merchant.name, &["admin"]));
    let known = support.get(&format!("/api/v1/admin/transactions/{NETWORK}/{of_another}")).await.expect(200).json();
    assert_eq!((&known["status"], &known["transfers"][0]["order_id"]), (&json!("recorded"), &json!(other.id)), "{known}");
}

#[tokio::test]
async fn what_cannot_be_looked_up_is_refused_with_the_reason() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    for (body, pointer) in [
        (json!({ "tx_hash": "abc" }), "/tx_hash"),
        (json!({ "tx_hash": "" }), "/tx_hash"),
        (json!({ "tx_hash": format!("{NOBODYS}00") }), "/tx_hash"),
        (json!({ "network": NETWORK }), "/tx_hash"),
        (json!({ "tx_hash": NOBODYS, "amount": "12.5" }), "/amount"),
        (json!({ "tx_hash": NOBODYS, "network": "tron" }), "/network"),
    ] {
        let answer = hand_in(&shop, &order, &body).await;
        answer.problem(422, "invalid_request");
        answer.points_at(pointer);
    }
    // Before the payer has chosen a network, nothing can have been paid.
    let unchosen = shop.api().post("/api/v1/orders", &json!({ "amount": "12.5" })).await.expect(201).json();
    let path = format!("/pay/{}/transaction", unchosen["id"].as_str().unwrap());
    payer(&shop).post(&path, &json!({ "tx_hash": NOBODYS })).await.points_at("/network");
    payer(&shop).post("/pay/ord_nothing/transaction", &json!({ "tx_hash": NOBODYS })).await.problem(404, "not_found");
    payer(&shop).get(&format!("/pay/{}/transaction", order.id)).await.problem(405, "method_not_allowed");

    // The page says what is wrong with what was typed, and shows it as text.
    let page = filled_in(&shop, &order, "en", "tx_hash=%3Cscript%3E%22").await.expect(200).text();
    assert!(page.contains("This is not a transaction hash") && page.contains("value=\"&#60;script&#62;&#34;\""), "{page}");
    let page = filled_in(&shop, &order, "zh", &format!("network=tron&tx_hash={NOBODYS}")).await.expect(422).text();
    assert!(page.contains("该订单在此网络上没有收款地址"), "{page}");

    // None of that was a try. Three are; then the order has to wait, and no other order does.
    for _ in 0..2 {
        assert_eq!(named(&shop, &order, NOBODYS).await.0, "unknown");
    }
    let link = format!("tx_hash=https%3A%2F%2Fetherscan.io%2Ftx%2F{NOBODYS}");
    let page = filled_in(&shop, &order, "en", &link).await.expect(200);
    assert!(page.text().contains("does not know this transaction"), "{page:?}");
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")), "{page:?}");
    let seconds = |answer: &Answer| answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    let refused = hand_in(&shop, &order, &json!({ "tx_hash": NOBODYS })).await;
    refused.problem(429, "rate_limited");
    assert!(seconds(&refused).is_some_and(|seconds| (1..=10).contains(&seconds)), "{refused:?}");
    let refused = filled_in(&shop, &order, "zh", &format!("tx_hash={NOBODYS}")).await.expect(429);
    assert!(refused.text().contains("查询次数过多") && seconds(&refused).is_some(), "{refused:?}");
    let next = shop.order("12.5").await;
    assert_eq!(named(&shop, &next, NOBODYS).await.0, "unknown");
}

#[tokio::test]
async fn a_chain_that_does_not_answer_is_said_to_be_silent() {
    let mut shop = Shop::open().await;
    let order = shop.order("12.5").await;
    shop.anvil.stop();
    hand_in(&shop, &order, &json!({ "tx_hash": NOBODYS })).await.problem(503, "network_unavailable");
    let page = filled_in(&shop, &order, "en", &format!("tx_hash={NOBODYS}")).await.expect(200).text();
    assert!(page.contains("cannot be asked right now"), "{page}");
}
