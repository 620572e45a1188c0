//! What payment providers say: taken once and only when it is signed, kept for support, and never
//! more than a reason to look at the chain.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};

use crate::api::{Answer, Api};
use crate::gateway::Settings;
use crate::operator::{Operator, look, tamper};
use crate::shop::Shop;
use crate::wait::{eventually, now_s};

const STRIPE_SECRET: &str = "whsec_an_endpoint_secret_of_stripe";
const IPN_SECRET: &str = "an/IPN+secret/of+nowpayments0001";
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "a secret that two share";

/// Every form there is. `timed` signs a time, `plain` does not.
const DOORS: &str = r#"
[payment_webhooks.stripe]
form = "stripe"
secret = "whsec_an_endpoint_secret_of_stripe"
order_pointer = "/data/object/client_reference_id"

[payment_webhooks.nowpayments]
form = "nowpayments"
secret = "an/IPN+secret/of+nowpayments0001"
order_pointer = "/order_id"

[payment_webhooks.standard]
form = "standard"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
tx_hash_pointer = "/hash"
network = "anvil"

[payment_webhooks.timed]
form = "hmac"
secret = "a secret that two share"
header = "X-Signature"
algorithm = "sha512"
encoding = "base64"
timestamp_header = "X-Timestamp"
id_pointer = "/id"
tx_hash_pointer = "/tx/hash"
network = "anvil"
order_pointer = "/order"

[payment_webhooks.plain]
form = "hmac"
secret = "a secret that two share"
header = "X-Hub-Signature-256"
prefix = "sha256="
id_header = "X-Delivery"
"#;

const PROVIDERS: [&str; 5] = ["stripe", "nowpayments", "standard", "timed", "plain"];

/// A shop that by itself would look at the chain once an hour.
async fn patient_shop(adjust: impl FnOnce(&mut Settings)) -> Shop {
    Shop::open_with(|settings| {
        adjust(settings);
        settings.poll_interval = "1h";
        settings.more = DOORS.to_owned();
    })
    .await
}

fn sha256(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
}

fn sha512(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).unwrap();
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
}

/// What a provider sends.
#[derive(Clone)]
struct Message {
    provider: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Message {
    /// A message with this id that says `more`, signed as this provider does, at `at_s`.
    fn new(provider: &'static str, id: &str, at_s: u64, more: &Value) -> Self {
        let mut body = more.as_object().unwrap().clone();
        match provider {
            "nowpayments" => {
                let (payment, status) = id.split_once(':').unwrap_or((id, "finished"));
                body.insert("payment_status".into(), status.into());
                body.insert("payment_id".into(), payment.into());
            }
            "stripe" | "timed" => drop(body.insert("id".into(), id.into())),
            _ => {}
        }
        Self::signed(provider, id, at_s, &Value::Object(body).to_string())
    }

    fn signed(provider: &'static str, id: &str, at_s: u64, body: &str) -> Self {
        let timed = format!("{at_s}.{body}");
        let headers = match provider {
            "stripe" => {
                let v1 = hex::encode(sha256(STRIPE_SECRET.as_bytes(), timed.as_bytes()));
                vec![("stripe-signature", format!("t={at_s},v1={},v1={v1},v0={v1}", "0".repeat(64)))]
            }
            // serde_json's maps are sorted, as the rule wants it.
            "nowpayments" => {
                let sorted = serde_json::from_str::<Value>(body).unwrap().to_string();
                vec![("x-nowpayments-sig", hex::encode(sha512(IPN_SECRET.as_bytes(), sorted.as_bytes())))]
            }
            "standard" => {
                let key = STANDARD.decode(STANDARD_SECRET.trim_start_matches("whsec_")).unwrap();
                let signature = STANDARD.encode(sha256(&key, format!("{id}.{timed}").as_bytes()));
                vec![
                    ("webhook-id", id.to_owned()),
                    ("webhook-timestamp", at_s.to_string()),
                    ("webhook-signature", format!("v1,{signature}")),
                ]
            }
            "timed" => {
                let signature = STANDARD.encode(sha512(OTHER_SECRET.as_bytes(), timed.as_bytes()));
                vec![("x-signature", signature), ("x-timestamp", at_s.to_string())]
            }
            "plain" => {
                let signature = hex::encode(sha256(OTHER_SECRET.as_bytes(), body.as_bytes()));
                vec![("x-hub-signature-256", format!("sha256={signature}")), ("x-delivery", id.to_owned())]
            }
            other => panic!("{other}"),
        };
        Self { provider, headers, body: body.to_owned() }
    }

    async fn send(&self, api: &Api) -> Answer {
        let mut request = api.with_key(None).request(Method::POST, &format!("/webhook/payment/{}", self.provider));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body("application/json", self.body.clone()).send().await
    }

    async fn is_new(&self, api: &Api) {
        assert_eq!(self.send(api).await.expect(202).json(), json!({ "status": "accepted" }));
    }

    async fn was_seen(&self, api: &Api) {
        assert_eq!(self.send(api).await.expect(200).json(), json!({ "status": "seen" }));
    }

    async fn is_unsigned(&self, api: &Api) {
        self.send(api).await.problem(401, "invalid_signature");
    }
}

/// What a message led to, once it has been handled.
async fn handled(shop: &Shop, operator: &Operator, message_id: &str) -> Value {
    eventually(&format!("{message_id} is handled"), async || {
        let all = operator.api(shop).all("/api/v1/admin/payment-webhooks").await;
        let found = all.iter().find(|message| message["message_id"] == message_id && message["handled_at"].is_string());
        found.cloned().ok_or_else(|| format!("{all:?}"))
    })
    .await
}

#[tokio::test]
async fn each_form_is_taken_once_and_only_signed_on_sqlite() {
    each_form_is_taken_once_and_only_signed(patient_shop(|_| ()).await).await;
}

#[tokio::test]
async fn each_form_is_taken_once_and_only_signed_on_postgres() {
    each_form_is_taken_once_and_only_signed(patient_shop(|settings| settings.postgres = true).await).await;
}

async fn each_form_is_taken_once_and_only_signed(mut shop: Shop) {
    let (api, now) = (shop.api(), now_s());
    let operator = Operator::of(&shop);
    let said = json!({ "note": "a b", "n": [1, { "z": 2, "a": 3 }] });
    for provider in PROVIDERS {
        let good = Message::new(provider, "m1", now, &said);
        // Nothing is remembered of what was refused before it.
        let edited = Message { body: good.body.replace("a b", "a c"), ..good.clone() };
        edited.is_unsigned(&api).await;
        Message { headers: Vec::new(), ..good.clone() }.is_unsigned(&api).await;
        for (index, (name, _)) in good.headers.iter().enumerate() {
            let mut headers = good.headers.clone();
            headers[index].1 = format!("1{}", headers[index].1);
            let spoiled = Message { headers, ..good.clone() };
            // An id that nobody signed may be any.
            if *name != "x-delivery" {
                spoiled.is_unsigned(&api).await;
            }
        }
        if !matches!(provider, "nowpayments" | "plain") {
            Message::new(provider, "m1", now - 400, &said).is_unsigned(&api).await;
            Message::new(provider, "m1", now + 400, &said).is_unsigned(&api).await;
        }
        let large = Message::signed(provider, "m1", now, &json!({ "id": "m1", "x": "x".repeat(256 * 1024) }).to_string());
        large.send(&api).await.problem(413, "body_too_large");

        // Ten at once are one.
        let answers = join_all((0..10).map(|_| good.send(&api))).await;
        let mut answers: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        answers.sort_unstable();
        assert_eq!(answers, [&[200; 9][..], &[202]].concat(), "{provider}");
        good.was_seen(&api).await;
        // The same id once more is the same message, whatever it says.
        Message::new(provider, "m1", now_s(), &json!({ "note": "again" })).was_seen(&api).await;
    }
    // Signed, and without a place for its id.
    for provider in ["stripe", "nowpayments", "timed"] {
        Message::signed(provider, "m2", now, "{}").send(&api).await.problem(422, "invalid_request");
    }
    let mut nameless = Message::new("plain", "m2", now, &json!({ "note": "nameless" }));
    nameless.headers.pop();
    nameless.send(&api).await.problem(422, "invalid_request");
    // An id that is not signed makes the same message no new one.
    Message::new("plain", "m2", now, &said).was_seen(&api).await;
    // The next state of the same payment is a message of its own.
    Message::new("nowpayments", "m1:refunded", now, &said).is_new(&api).await;
    Message { provider: "nobody", ..Message::new("plain", "m3", now, &said) }.send(&api).await.problem(404, "not_found");

    // In this process or the next.
    shop.restart().await;
    let api = shop.api();
    for provider in PROVIDERS {
        Message::new(provider, "m1", now_s(), &said).was_seen(&api).await;
    }

    // What support reads.
    api.get("/api/v1/admin/payment-webhooks").await.problem(403, "insufficient_scope");
    api.with_key(None).get("/api/v1/admin/payment-webhooks").await.problem(401, "unauthorized");
    let admin = operator.api(&shop);
    handled(&shop, &operator, "m1:refunded").await;
    let all = admin.all("/api/v1/admin/payment-webhooks?limit=2").await;
    let ids: Vec<&str> = all.iter().map(|message| message["message_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["m1:refunded", "m1", "m1", "m1", "m1:finished", "m1"], "newest first");
    let providers: BTreeSet<&str> = all.iter().map(|message| message["provider"].as_str().unwrap()).collect();
    assert_eq!(providers, BTreeSet::from(PROVIDERS));
    let of_stripe = admin.all("/api/v1/admin/payment-webhooks?provider=stripe").await;
    let [message] = &of_stripe[..] else { panic!("{of_stripe:?}") };
    assert!(message["id"].as_str().unwrap().starts_with("whi_"), "{message}");
    let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["note"], &message["outcome"], &message["order_id"]), (&json!("a b"), &json!("kept"), &Value::Null), "{message}");
    assert_eq!(message["body_bytes"], message["body"].as_str().unwrap().len());
    for query in ["limit=0", "cursor=!", "providers=stripe"] {
        admin.get(&format!("/api/v1/admin/payment-webhooks?{query}")).await.problem(422, "invalid_request");
    }
    let output = shop.gateway.process.output();
    for secret in [STRIPE_SECRET, IPN_SECRET, STANDARD_SECRET, OTHER_SECRET] {
        assert!(!output.contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn a_provider_can_make_us_look_and_no_more() {
    let shop = patient_shop(|_| ()).await;
    let (api, operator) = (shop.api(), Operator::of(&shop));

    // It names the transaction: read from our own endpoint, and credited because the chain has it.
    let first = shop.order("5").await;
    let hash = shop.pay(&first, "5").await;
    assert_eq!(shop.get(&first).await["status"], "pending", "nobody has looked yet");
    Message::new("standard", "msg_1", now_s(), &json!({ "hash": hash })).is_new(&api).await;
    shop.order_is(&first, "confirming").await;
    let message = handled(&shop, &operator, "msg_1").await;
    assert_eq!((&message["outcome"], &message["network"], &message["tx_hash"]), (&json!("looked"), &json!("anvil"), &json!(hash)));

    // It names the order, by the shop's number and by ours.
    let second = shop.order_with(&json!({ "amount": "7", "merchant_order_id": "INV-7" })).await;
    shop.pay(&second, "7").await;
    Message::new("nowpayments", "5077125051", now_s(), &json!({ "order_id": "INV-7", "price_amount": 9.5 })).is_new(&api).await;
    shop.order_is(&second, "confirming").await;
    let message = handled(&shop, &operator, "5077125051:finished").await;
    assert_eq!((&message["outcome"], &message["order_id"]), (&json!("looked"), &json!(second.id)), "{message}");
    let third = shop.order("9").await;
    shop.pay(&third, "9").await;
    let event = json!({ "type": "checkout.session.completed", "data": { "object": { "client_reference_id": third.id } } });
    Message::new("stripe", "evt_1", now_s(), &event).is_new(&api).await;
    shop.order_is(&third, "confirming").await;

    // A lie credits nothing: no such transaction, another one's, no such order, paid without money.
    let fourth = shop.order_with(&json!({ "amount": "11", "merchant_order_id": "INV-11" })).await;
    let nothing = format!("0x{}", "5a".repeat(32));
    for (id, said, outcome) in [
        ("lie_1", json!({ "tx": { "hash": nothing }, "order": fourth.id }), "looked"),
        ("lie_2", json!({ "tx": { "hash": hash }, "order": "INV-11", "status": "paid", "amount": "11" }), "looked"),
        ("lie_3", json!({ "tx": { "hash": "0x12" }, "order": "INV-12" }), "unknown"),
        ("lie_4", json!({ "tx": { "hash": ["0x12"] }, "order": { "id": fourth.id } }), "kept"),
        ("lie_5", json!({ "order": "'; DROP TABLE webhook_inbox; --" }), "unknown"),
    ] {
        Message::new("timed", id, now_s(), &said).is_new(&api).await;
        let message = handled(&shop, &operator, id).await;
        assert_eq!(message["outcome"], outcome, "{message}");
    }
    eventually("each hint was looked at", async || {
        let untried = look(&shop.home, "SELECT tx_hash FROM chain_hints WHERE tries = 0 AND done_at IS NULL").await;
        if untried.is_empty() { Ok(()) } else { Err(untried) }
    })
    .await;
    let seen = shop.get(&fourth).await;
    assert_eq!((&seen["status"], &seen["transfers"], &seen["amount_received"]), (&json!("pending"), &json!([]), &json!("0.000000")));
    let first = shop.get(&first).await;
    assert_eq!((&first["amount_received"], first["transfers"].as_array().unwrap().len()), (&json!("5.000000"), 1), "{first}");
}

#[tokio::test]
async fn what_waits_in_the_inbox_survives_a_kill_and_what_is_old_is_forgotten() {
    let mut shop = patient_shop(|_| ()).await;
    let operator = Operator::of(&shop);
    let order = shop.order_with(&json!({ "amount": "7", "merchant_order_id": "INV-7" })).await;
    Message::new("nowpayments", "1", now_s(), &json!({ "order_id": "INV-7" })).is_new(&shop.api()).await;
    Message::new("stripe", "evt_old", now_s(), &json!({ "text": "€\0".repeat(10_000) })).is_new(&shop.api()).await;
    let old = handled(&shop, &operator, "evt_old").await;
    let (body, bytes) = (old["body"].as_str().unwrap(), old["body_bytes"].as_u64().unwrap());
    assert!(body.len() <= 16 * 1024 && bytes > 60_000, "{} of {bytes} bytes are kept", body.len());

    // As if it had been killed between its answer and its work; and a month later.
    shop.gateway.kill();
    tamper(&shop.home, "UPDATE webhook_inbox SET handled_at = NULL, order_id = NULL, outcome = 'waiting' WHERE provider = 'nowpayments'")
        .await;
    let month_ago_ms = (now_s() - 31 * 86_400) * 1_000;
    tamper(&shop.home, &format!("UPDATE webhook_inbox SET received_at = {month_ago_ms} WHERE provider = 'stripe'")).await;
    shop.start_again().await;
    let message = handled(&shop, &operator, "1:finished").await;
    assert_eq!(message["order_id"], json!(order.id), "{message}");
    eventually("what is old is forgotten", async || {
        let providers = look(&shop.home, "SELECT provider FROM webhook_inbox").await;
        if providers == "nowpayments" { Ok(()) } else { Err(providers) }
    })
    .await;
}
