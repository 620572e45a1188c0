//! What providers say about transactions: believed only as a reason to look, and worth it, because
//! the gateway looks at once.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::api::{Answer, Api};
use crate::gateway::{NETWORK, Settings};
use crate::operator::look;
use crate::shop::Shop;
use crate::wait::{eventually, now_s};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ALCHEMY_KEY: &str = "whsec_a_key_of_alchemy";

/// A shop that by itself would look at the chain once an hour.
async fn patient_shop(adjust: impl FnOnce(&mut Settings)) -> Shop {
    Shop::open_with(|settings| {
        adjust(settings);
        settings.poll_interval = "1h";
        settings.network = format!("webhook_secret = \"{SECRET}\"\nalchemy_signing_key = \"{ALCHEMY_KEY}\"");
    })
    .await
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// A message in our own form, signed at `at_s`.
async fn own(api: &Api, network: &str, id: &str, at_s: u64, body: &str) -> Answer {
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let signature = STANDARD.encode(hmac(&key, &[format!("{id}.{at_s}.").as_bytes(), body.as_bytes()]));
    signed(
        api,
        network,
        &[("webhook-id", id), ("webhook-timestamp", &at_s.to_string()), ("webhook-signature", &format!("v1,{signature}"))],
        body,
    )
    .await
}

async fn alchemy(api: &Api, id: &str, hashes: &[&str]) -> Answer {
    let now: jiff::Timestamp = jiff::Timestamp::from_second(i64::try_from(now_s()).unwrap()).unwrap();
    let activity: Vec<Value> =
        hashes.iter().map(|hash| json!({ "hash": hash, "value": 12.5, "asset": "USDT", "category": "token" })).collect();
    let body = json!({ "webhookId": "wh_1", "id": id, "createdAt": now.to_string(), "type": "ADDRESS_ACTIVITY",
        "event": { "network": "ETH_MAINNET", "activity": activity } })
    .to_string();
    let signature = hex::encode(hmac(ALCHEMY_KEY.as_bytes(), &[body.as_bytes()]));
    signed(api, NETWORK, &[("x-alchemy-signature", &signature)], &body).await
}

async fn signed(api: &Api, network: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = api.with_key(None).request(Method::POST, &format!("/webhook/blockchain/{network}"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body("application/json", body).send().await
}

fn naming(hash: &str) -> String {
    json!({ "tx_hash": hash }).to_string()
}

/// What is in the queue, by hash: done or not.
async fn queue(shop: &Shop) -> BTreeMap<String, bool> {
    let rows = look(&shop.home, "SELECT tx_hash, done_at FROM chain_hints ORDER BY tx_hash").await;
    rows.lines().filter_map(|row| row.split_once('|')).map(|(hash, done)| (hash.to_owned(), !done.is_empty())).collect()
}

#[tokio::test]
async fn a_hint_makes_the_gateway_look_at_once() {
    let mut shop = patient_shop(|_| ()).await;
    let api = shop.api();

    // A payment that is some blocks above what was read, named in our own form.
    let order = shop.order("5").await;
    shop.anvil.mine(3).await;
    let hash = shop.pay(&order, "5").await;
    assert_eq!(shop.get(&order).await["status"], "pending", "nobody has looked yet");
    let sent = own(&api, NETWORK, "msg_1", now_s(), &naming(&hash)).await.expect(202);
    assert_eq!(sent.json(), json!({ "status": "accepted" }));
    shop.order_is(&order, "confirming").await;
    eventually("the hint is done", async || {
        let queue = queue(&shop).await;
        if queue.values().all(|done| *done) { Ok(()) } else { Err(format!("{queue:?}")) }
    })
    .await;

    // The same once more says nothing new, in this process or the next.
    assert_eq!(own(&api, NETWORK, "msg_1", now_s(), &naming(&hash)).await.expect(200).json(), json!({ "status": "seen" }));
    shop.restart().await;
    let api = shop.api();
    own(&api, NETWORK, "msg_1", now_s(), &naming(&hash)).await.expect(200);

    // In Alchemy's form, with several at once.
    let other = shop.order("7").await;
    let second = shop.pay(&other, "7").await;
    alchemy(&api, "whevt_1", &[&second, &hash]).await.expect(202);
    shop.order_is(&other, "confirming").await;
    alchemy(&api, "whevt_1", &[&second, &hash]).await.expect(200);
    let now = shop.get(&other).await;
    assert_eq!(now["transfers"].as_array().unwrap().len(), 1, "{now}");
}

#[tokio::test]
async fn a_hint_is_only_as_good_as_its_signature_and_credits_nothing_on_sqlite() {
    a_hint_is_only_as_good_as_its_signature(patient_shop(|_| ()).await).await;
}

#[tokio::test]
async fn a_hint_is_only_as_good_as_its_signature_and_credits_nothing_on_postgres() {
    a_hint_is_only_as_good_as_its_signature(patient_shop(|settings| settings.postgres = true).await).await;
}

async fn a_hint_is_only_as_good_as_its_signature(shop: Shop) {
    let (api, now) = (shop.api(), now_s());
    let order = shop.order("5").await;
    let hash = format!("0x{}", "5a".repeat(32));
    let body = naming(&hash);

    // Signed by somebody else, for something else, too long ago, or not at all.
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let signature =
        |id: &str, at: u64, body: &str| format!("v1,{}", STANDARD.encode(hmac(&key, &[format!("{id}.{at}.{body}").as_bytes()])));
    let (at, old, ahead) = (now.to_string(), (now - 400).to_string(), (now + 400).to_string());
    let good = signature("msg_9", now, &body);
    let stale = signature("msg_9", now - 400, &body);
    let early = signature("msg_9", now + 400, &body);
    for headers in [
        &[][..],
        &[("webhook-id", "msg_9"), ("webhook-timestamp", at.as_str())],
        &[("webhook-timestamp", at.as_str()), ("webhook-signature", good.as_str())],
        &[("webhook-id", "msg_8"), ("webhook-timestamp", at.as_str()), ("webhook-signature", good.as_str())],
        &[("webhook-id", "msg_9"), ("webhook-timestamp", old.as_str()), ("webhook-signature", good.as_str())],
        &[("webhook-id", "msg_9"), ("webhook-timestamp", old.as_str()), ("webhook-signature", stale.as_str())],
        &[("webhook-id", "msg_9"), ("webhook-timestamp", ahead.as_str()), ("webhook-signature", early.as_str())],
        &[("webhook-id", "msg_9"), ("webhook-timestamp", "soon"), ("webhook-signature", good.as_str())],
        &[("webhook-id", "msg_9"), ("webhook-timestamp", at.as_str()), ("webhook-signature", "v1,AAAA")],
        &[("x-alchemy-signature", "00")],
        &[("x-alchemy-signature", "")],
    ] {
        signed(&api, NETWORK, headers, &body).await.problem(401, "invalid_signature");
    }
    for wrong in ["", "{}", "[]", r#"{"tx_hash":"0x12"}"#, r#"{"tx_hash":12}"#] {
        own(&api, NETWORK, "msg_2", now, wrong).await.problem(422, "invalid_request");
    }
    own(&api, "nowhere", "msg_3", now, &body).await.problem(404, "not_found");
    assert_eq!((queue(&shop).await, look(&shop.home, "SELECT count(*) FROM chain_messages").await), (BTreeMap::new(), "0".to_owned()));

    // Well signed, and the chain has no such transaction: it is looked for again later, and nobody
    // is paid.
    own(&api, NETWORK, "msg_4", now, &body).await.expect(202);
    eventually("the hint was looked at", async || {
        let tries = look(&shop.home, "SELECT tries FROM chain_hints").await;
        if tries == "1" { Ok(()) } else { Err(tries) }
    })
    .await;
    let seen = shop.get(&order).await;
    assert_eq!((&seen["status"], &seen["transfers"]), (&json!("pending"), &json!([])), "{seen}");
    assert_eq!(queue(&shop).await, BTreeMap::from([(hash.trim_start_matches("0x").to_owned(), false)]));
}

#[tokio::test]
async fn a_network_without_a_secret_takes_no_hints() {
    let shop = Shop::open().await;
    own(&shop.api(), NETWORK, "msg_1", now_s(), &naming(&format!("0x{}", "5a".repeat(32)))).await.problem(404, "not_found");
}
