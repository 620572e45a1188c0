//! Several receivers of one merchant's webhooks: each hears what it asked for, signed with a secret of its
//! own, and is in nobody's way.

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::Api;
use crate::gateway::{Gateway, Home, Settings};
use crate::operator::tamper;
use crate::receiver::{Delivery, Receiver};
use crate::wait::eventually;

/// A gateway whose chain is never asked: orders without a network need none.
struct Desk {
    home: Home,
    gateway: Gateway,
    api: Api,
    main: String,
}

/// An endpoint as it was made.
struct Endpoint {
    id: String,
    path: String,
    secret: String,
}

impl Desk {
    async fn open(webhook_url: &str) -> Self {
        let home = Home::new(&Settings::new("http://127.0.0.1:9", [7; 20]));
        home.json(&["merchant", "update", "main", "--webhook-url", webhook_url]);
        let main = home.json(&["merchant", "show", "main"])["id"].as_str().unwrap().to_owned();
        let key = home.api_key("main", &["admin"]);
        let gateway = home.serve().await;
        let api = gateway.api(&key);
        Self { home, gateway, api, main }
    }

    fn list(&self) -> String {
        format!("/api/v1/admin/merchants/{}/webhook-endpoints", self.main)
    }

    async fn endpoint(&self, body: &Value) -> Endpoint {
        let made = self.api.post(&self.list(), body).await.expect(201);
        let path = made.header("location").unwrap().to_owned();
        let made = made.json();
        let text = |member: &str| made[member].as_str().unwrap_or_else(|| panic!("no {member}: {made}")).to_owned();
        assert!(text("id").starts_with("whe_") && text("secret").starts_with("whsec_"), "{made}");
        assert_eq!(path, format!("{}/{}", self.list(), text("id")));
        Endpoint { id: text("id"), path, secret: text("secret") }
    }

    async fn put(&self, endpoint: &Endpoint, body: &Value) -> Value {
        self.api.request(Method::PUT, &endpoint.path).json(body).send().await.expect(200).json()
    }

    /// An order without a network: its events are told all the same.
    async fn order(&self, body: Value) -> String {
        self.api.post("/api/v1/orders", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned()
    }

    async fn cancel(&self, order: &str) {
        self.api.post(&format!("/api/v1/orders/{order}/cancel"), &json!({})).await.expect(200);
    }

    /// What there is of deliveries to an endpoint about something.
    async fn deliveries(&self, endpoint: &Endpoint, subject: &str) -> Vec<Value> {
        self.api.all(&format!("/api/v1/admin/webhook-deliveries?endpoint_id={}&subject_id={subject}", endpoint.id)).await
    }

    /// The types of them, oldest first.
    async fn kinds(&self, endpoint: &Endpoint, subject: &str) -> Vec<String> {
        self.deliveries(endpoint, subject).await.iter().rev().map(|delivery| delivery["type"].as_str().unwrap().to_owned()).collect()
    }
}

fn signed_by(deliveries: &[Delivery], endpoint: &Endpoint) {
    for delivery in deliveries {
        delivery.verify(&endpoint.secret).unwrap_or_else(|error| panic!("{error}: {delivery:?}"));
    }
}

#[tokio::test]
async fn each_endpoint_hears_what_it_asked_for_signed_with_a_secret_of_its_own() {
    let (usual, all, few, callback) = (Receiver::start().await, Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let desk = Desk::open(&usual.url).await;
    let merchant_secret = desk.home.json(&["merchant", "show", "main"])["webhook_secret"].as_str().unwrap().to_owned();
    let everything = desk.endpoint(&json!({ "url": all.url, "description": "the books" })).await;
    let ends = desk.endpoint(&json!({ "url": few.url, "events": ["order.cancelled", "order.expired"] })).await;
    let shown = desk.api.get(&everything.path).await.expect(200).json();
    assert_eq!((&shown["description"], &shown["events"], &shown["enabled"]), (&json!("the books"), &Value::Null, &json!(true)));
    assert_eq!(shown.get("secret"), None, "a secret is shown once");

    let first = desk.order(json!({ "amount": "5" })).await;
    desk.cancel(&first).await;
    let heard = all.events(&first, &["order.pending", "order.cancelled"]).await;
    signed_by(&heard, &everything);
    let told = few.events(&first, &["order.cancelled"]).await;
    signed_by(&told, &ends);
    for delivery in usual.events(&first, &["order.pending", "order.cancelled"]).await {
        delivery.verify(&merchant_secret).unwrap();
        assert!(delivery.verify(&everything.secret).is_err() && delivery.verify(&ends.secret).is_err());
    }
    assert!(told[0].verify(&everything.secret).is_err(), "a secret is one endpoint's");
    let same = heard.iter().find(|delivery| delivery.kind() == "order.cancelled").unwrap();
    assert_eq!((&same.id, &same.body), (&told[0].id, &told[0].body), "one event, whoever hears of it");
    assert_eq!(desk.kinds(&ends, &first).await, ["order.cancelled"], "nothing else is written down for it");

    // A callback URL is in the place of the merchant's URL alone.
    let second = desk.order(json!({ "amount": "5", "callback_url": callback.url })).await;
    callback.events(&second, &["order.pending"]).await;
    all.events(&second, &["order.pending"]).await;
    assert!(usual.deliveries_of(&second).is_empty());

    // Disabled it hears nothing new; with another filter and another URL it hears that there.
    assert_eq!(desk.put(&everything, &json!({ "enabled": false, "description": null })).await["description"], Value::Null);
    let third = desk.order(json!({ "amount": "5" })).await;
    assert!(desk.kinds(&everything, &third).await.is_empty());
    let moved = desk.put(&everything, &json!({ "enabled": true, "url": few.url, "events": ["order.cancelled"] })).await;
    assert_eq!((&moved["url"], &moved["events"]), (&json!(few.url), &json!(["order.cancelled"])));
    desk.cancel(&third).await;
    eventually("both are told at one address", async || {
        let told = few.deliveries_of(&third);
        let by = |endpoint: &Endpoint| told.iter().any(|delivery| delivery.verify(&endpoint.secret).is_ok());
        if by(&everything) && by(&ends) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    assert_eq!(desk.kinds(&everything, &third).await, ["order.cancelled"]);
    let log = desk.gateway.process.output();
    assert!(![&everything.secret, &ends.secret].iter().any(|secret| log.contains(*secret)));
}

#[tokio::test]
async fn endpoints_are_made_listed_and_refused_with_a_reason() {
    let desk = Desk::open("http://127.0.0.1:9/").await;
    for (body, pointer) in [
        (json!({ "url": "gopher://x" }), "/url"),
        (json!({ "url": "http://x.example", "events": ["order.eaten"] }), "/events/0"),
        (json!({ "url": "http://x.example", "events": ["order.paid", "order.paid"] }), "/events/1"),
        (json!({ "url": "http://x.example", "description": "" }), "/description"),
        (json!({ "url": "http://x.example", "enabled": null }), "/enabled"),
        (json!({ "url": "http://x.example", "secret": "mine" }), "/secret"),
    ] {
        desk.api.post(&desk.list(), &body).await.points_at(pointer);
    }
    let body = json!({ "url": "http://127.0.0.1:9/one", "enabled": false });
    let make = async || desk.api.request(Method::POST, &desk.list()).header("idempotency-key", "one").json(&body).send().await.expect(201);
    let (made, replay) = (make().await.json(), make().await);
    assert_eq!((&replay.json()["id"], replay.json().get("secret")), (&made["id"], None));
    assert_eq!((&made["enabled"], made["secret"].is_string()), (&json!(false), true));
    for number in 1..16 {
        desk.endpoint(&json!({ "url": format!("http://127.0.0.1:9/{number}") })).await;
    }
    let full = desk.api.post(&desk.list(), &json!({ "url": "http://127.0.0.1:9/more" })).await.problem(409, "too_many_endpoints");
    assert!(full["detail"].as_str().unwrap().contains("at most 16"), "{full}");
    let listed = desk.api.all(&format!("{}?limit=7", desk.list())).await;
    assert_eq!((listed.len(), &listed[15]["id"], listed[0].get("secret")), (16, &made["id"], None));

    // Of another merchant, or nowhere.
    let id = made["id"].as_str().unwrap();
    let shop = desk.home.merchant("shop", "http://127.0.0.1:9/");
    let elsewhere = format!("/api/v1/admin/merchants/{}/webhook-endpoints", shop.id);
    assert_eq!(desk.api.get(&elsewhere).await.expect(200).json()["data"], json!([]));
    for path in [format!("{elsewhere}/{id}"), format!("{}/whe_1", desk.list()), desk.list().replace("mer_", "mer_0")] {
        desk.api.get(&path).await.problem(404, "not_found");
    }
    desk.api.request(Method::DELETE, &format!("{elsewhere}/{id}")).send().await.problem(404, "not_found");
    let shop_key = desk.gateway.api(&desk.home.api_key("shop", &["orders:read", "orders:write"]));
    shop_key.get(&elsewhere).await.problem(403, "insufficient_scope");
}

/// One of two hangs on the first event of an order: the other hears of the second meanwhile.
#[tokio::test]
async fn an_endpoint_that_hangs_delays_no_other() {
    let (dead, good) = (Receiver::start().await, Receiver::start().await);
    dead.hang();
    let desk = Desk::open("").await;
    let hangs = desk.endpoint(&json!({ "url": dead.url })).await;
    desk.endpoint(&json!({ "url": good.url })).await;
    // On a machine that stands still the hanging try may end first: then it is seen at another order.
    for _ in 0..5 {
        let order = desk.order(json!({ "amount": "5" })).await;
        dead.events(&order, &["order.pending"]).await;
        desk.cancel(&order).await;
        good.events(&order, &["order.pending", "order.cancelled"]).await;
        let waiting = desk.deliveries(&hangs, &order).await;
        if waiting.iter().all(|delivery| delivery["status"] == "due" && delivery["last_tried_at"].is_null()) {
            return;
        }
    }
    panic!("the other heard of the second event only when the first try had ended, five times");
}

#[tokio::test]
async fn a_secret_is_changed_without_losing_a_webhook_and_outlives_the_master_key() {
    let receiver = Receiver::start().await;
    let mut desk = Desk::open("").await;
    let old = desk.endpoint(&json!({ "url": receiver.url })).await;
    let rotate = format!("{}/rotate-secret", old.path);
    desk.api.post(&rotate, &json!({ "old_valid_for": 2_592_001 })).await.points_at("/old_valid_for");
    let changed = desk.api.post(&rotate, &json!({ "old_valid_for": 3_600 })).await.expect(200).json();
    assert!(changed["old_secret_valid_until"].is_string(), "{changed}");
    let new = Endpoint { secret: changed["secret"].as_str().unwrap().to_owned(), id: old.id.clone(), path: old.path.clone() };
    assert_ne!(new.secret, old.secret);
    let order = desk.order(json!({ "amount": "5" })).await;
    let heard = receiver.events(&order, &["order.pending"]).await;
    signed_by(&heard, &old);
    signed_by(&heard, &new);

    // Everything under another master key, and then a copy of that.
    desk.gateway.terminate().await;
    let key = desk.home.new_key();
    let config = desk.home.config_file();
    let mut rotate_all = desk.home.command(&["key", "rotate", "--config", config.to_str().unwrap()]);
    rotate_all.env("WALLET_MASTER_KEY", &key).env("WALLET_MASTER_KEY_PREVIOUS", &desk.home.master_key);
    crate::gateway::Done::of(&mut rotate_all).succeeded();
    desk.home.master_key = key;
    let file = desk.home.path().join("copy.backup");
    desk.home.json(&["backup", file.to_str().unwrap()]);
    desk.home.database_url = format!("sqlite://{}", desk.home.path().join("restored.db").display());
    desk.home.json(&["restore", file.to_str().unwrap()]);
    desk.gateway = desk.home.serve().await;
    desk.api = desk.api.at(&desk.gateway.base);
    let order = desk.order(json!({ "amount": "5" })).await;
    let heard = receiver.events(&order, &["order.pending"]).await;
    signed_by(&heard, &old);
    signed_by(&heard, &new);

    // Without mercy for the old one.
    let last = desk.api.post(&rotate, &json!({ "old_valid_for": 0 })).await.expect(200).json();
    assert_eq!(last["old_secret_valid_until"], Value::Null);
    desk.cancel(&order).await;
    let told = receiver.event(&order, "order.cancelled").await;
    told.verify(last["secret"].as_str().unwrap()).unwrap();
    assert!(told.verify(&new.secret).is_err() && told.signature.split(' ').count() == 1, "{}", told.signature);
}

#[tokio::test]
async fn a_removed_endpoint_hears_of_its_end_and_of_nothing_else() {
    let receiver = Receiver::start().await;
    let desk = Desk::open("").await;
    let gone = desk.endpoint(&json!({ "url": receiver.url })).await;
    receiver.fail_next(1);
    let order = desk.order(json!({ "amount": "5" })).await;
    let due = eventually("it was tried", async || {
        let seen = desk.deliveries(&gone, &order).await;
        if seen.len() == 1 && seen[0]["tries"] == 1 { Ok(seen[0].clone()) } else { Err(json!(seen)) }
    })
    .await;
    assert_eq!((&due["status"], &due["endpoint_id"]), (&json!("due"), &json!(gone.id)));
    // Not before the next try is far away: the schedule's third is five minutes after the event.
    tamper(&desk.home, "UPDATE payment_webhooks SET due_at = due_at + 3600000 WHERE status = 'due'").await;
    desk.api.request(Method::DELETE, &gone.path).send().await.expect(204);
    let told = eventually("it is told of its end", async || {
        let names_it = |told: &Delivery| {
            told.kind() == "wallet.alert" && told.json()["data"]["detail"].as_str().unwrap().contains("webhook_endpoint.delete")
        };
        receiver.deliveries().into_iter().find(names_it).ok_or("not yet")
    })
    .await;
    told.verify(&gone.secret).unwrap();
    desk.cancel(&order).await;
    let listed = desk.deliveries(&gone, &order).await;
    assert_eq!(listed.len(), 1, "nothing new is written down for it: {listed:?}");
    assert_eq!((&listed[0]["status"], &listed[0]["last_error"]), (&json!("failed"), &json!("the endpoint was removed")));
    let retry = format!("/api/v1/admin/webhook-deliveries/{}/retry", due["id"].as_str().unwrap());
    desk.api.post(&retry, &json!({})).await.problem(409, "endpoint_removed");
    let again = json!({ "from": "2026-01-01T00:00:00Z", "endpoint_id": gone.id });
    assert_eq!(desk.api.post("/api/v1/admin/webhook-deliveries/retry", &again).await.expect(202).json()["count"], 0);
    for method in [Method::GET, Method::DELETE] {
        desk.api.request(method, &gone.path).send().await.problem(404, "not_found");
    }
    assert_eq!(desk.api.get(&desk.list()).await.expect(200).json()["data"], json!([]));
    let audit = desk.api.all(&format!("/api/v1/admin/audit?subject={}", gone.id)).await;
    assert_eq!(audit.iter().map(|row| row["action"].clone()).collect::<Vec<_>>(), ["webhook_endpoint.delete", "webhook_endpoint.create"]);
    assert_eq!(receiver.kinds_of(&order), ["order.pending"], "the one try before");
}

#[tokio::test]
async fn one_endpoint_is_sent_to_again_and_each_that_misses_an_event_is_told_of() {
    let (one, two) = (Receiver::start().await, Receiver::start().await);
    let desk = Desk::open("").await;
    let first = desk.endpoint(&json!({ "url": one.url })).await;
    let second = desk.endpoint(&json!({ "url": two.url })).await;
    let order = desk.order(json!({ "amount": "5" })).await;
    one.events(&order, &["order.pending"]).await;
    two.events(&order, &["order.pending"]).await;
    let sent = desk.deliveries(&second, &order).await.remove(0);
    desk.api.post(&format!("/api/v1/admin/webhook-deliveries/{}/retry", sent["id"].as_str().unwrap()), &json!({})).await.expect(202);
    let again = eventually("it arrives again", async || {
        let seen = two.deliveries_of(&order);
        if seen.len() == 2 { Ok(seen) } else { Err(seen.len()) }
    })
    .await;
    signed_by(&again, &second);
    assert_eq!(one.deliveries_of(&order).len(), 1, "the other is left alone");

    // Both miss one through the whole schedule: an alert each.
    one.fail_next(1_000);
    two.fail_next(1_000);
    let order = desk.order(json!({ "amount": "5" })).await;
    for endpoint in [&first, &second] {
        eventually("it was tried", async || {
            let seen = desk.deliveries(endpoint, &order).await;
            if seen[0]["tries"] == 1 { Ok(()) } else { Err(json!(seen)) }
        })
        .await;
    }
    tamper(&desk.home, &format!("UPDATE payment_webhooks SET tries = 9, due_at = 0 WHERE subject_id = '{order}'")).await;
    let alerts = eventually("both are told of", async || {
        let seen = desk.api.all("/api/v1/admin/alerts?kind=webhook_failed").await;
        if seen.len() == 2 { Ok(seen) } else { Err(json!(seen)) }
    })
    .await;
    for endpoint in [&first, &second] {
        assert!(alerts.iter().any(|alert| alert["about"].as_str().unwrap().ends_with(&endpoint.id)), "{alerts:?}");
    }
}

#[tokio::test]
async fn a_test_shows_what_the_receiver_answers() {
    let receiver = Receiver::start().await;
    let desk = Desk::open("").await;
    let endpoint = desk.endpoint(&json!({ "url": receiver.url, "events": ["order.paid"], "enabled": false })).await;
    let test = format!("{}/test", endpoint.path);
    let said = desk.api.post(&test, &json!({})).await.expect(200).json();
    assert_eq!((&said["accepted"], &said["code"], &said["error"]), (&json!(true), &json!(204), &Value::Null), "{said}");
    let heard = receiver.first("webhook.test").await;
    heard.verify(&endpoint.secret).unwrap();
    assert_eq!(said["webhook_id"], json!(heard.id));
    assert_eq!(heard.json()["data"], json!({ "endpoint_id": endpoint.id, "merchant_id": desk.main }));

    receiver.fail_next(1);
    let said = desk.api.post(&test, &json!({})).await.expect(200).json();
    assert_eq!((&said["accepted"], &said["code"]), (&json!(false), &json!(500)), "{said}");
    assert!(said["error"].as_str().unwrap().contains("500"), "{said}");
    desk.put(&endpoint, &json!({ "url": "http://127.0.0.1:9/" })).await;
    let said = desk.api.post(&test, &json!({})).await.expect(200).json();
    assert_eq!((&said["accepted"], &said["code"], said["error"].is_string()), (&json!(false), &Value::Null, true), "{said}");
    // It is no event, and is not tried again.
    assert!(desk.api.all(&format!("/api/v1/admin/webhook-deliveries?endpoint_id={}", endpoint.id)).await.is_empty());
    let events = desk.api.get("/api/v1/events").await.expect(200).json();
    assert!(events["data"].as_array().unwrap().iter().all(|event| event["type"] != "webhook.test"), "{events}");
    let audit = desk.api.all("/api/v1/admin/audit?action=webhook_endpoint.test").await;
    assert_eq!(audit.len(), 3);
}

#[tokio::test]
async fn endpoints_are_kept_on_the_command_line_too() {
    let receiver = Receiver::start().await;
    let desk = Desk::open("").await;
    let endpoint = |args: &[&str]| desk.home.json(&[&["merchant", "endpoint"], args].concat());
    let added = endpoint(&["add", "main", "--url", &receiver.url, "--event", "order.cancelled", "--description", "the books"]);
    assert_eq!((&added["description"], &added["events"]), (&json!("the books"), &json!(["order.cancelled"])), "{added}");
    let text = |member: &str| added[member].as_str().unwrap().to_owned();
    let made = Endpoint { path: format!("{}/{}", desk.list(), text("id")), id: text("id"), secret: text("secret") };
    // A gateway that runs beside it sends there at once.
    let order = desk.order(json!({ "amount": "5" })).await;
    desk.cancel(&order).await;
    signed_by(&receiver.events(&order, &["order.cancelled"]).await, &made);

    let changed = endpoint(&["rotate-secret", &made.id, "--old-valid-for", "60"]);
    assert!(changed["secret"].is_string() && changed["old_secret_valid_until"].is_string(), "{changed}");
    let updated = endpoint(&["update", &made.id, "--all-events", "--disable"]);
    assert_eq!((&updated["events"], &updated["enabled"], updated.get("secret")), (&Value::Null, &json!(false), None));
    assert_eq!(endpoint(&["list", "main"])["data"], json!([updated]));
    for (args, words) in [
        (vec!["add", "main", "--url", "gopher://x"], "http or https"),
        (vec!["add", "main", "--url", "http://x.example", "--event", "order.eaten"], "order.paid"),
        (vec!["add", "nobody", "--url", "http://x.example"], "expected a merchant"),
        (vec!["remove", "whe_00000000000000000000000000000000"], "expected the id of an endpoint"),
    ] {
        let refused = desk.home.run(&[&["merchant", "endpoint"], args.as_slice()].concat());
        assert!(refused.code != Some(0) && refused.stderr.contains(words), "{refused:?}");
    }
    assert_eq!(endpoint(&["remove", &made.id])["ok"], true);
    assert_eq!(endpoint(&["list", "main"])["data"], json!([]));
    // Whoever has the server is not told of what he does there; the log says it.
    assert!(desk.api.all("/api/v1/admin/alerts?kind=credentials_changed").await.is_empty());
    assert_eq!(desk.api.all(&format!("/api/v1/admin/audit?subject={}", made.id)).await.len(), 4);
}
