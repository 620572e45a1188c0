//! What bad input gets, and what callers may rely on: every line of the contract's "Errors",
//! idempotency, lists and filters. One gateway on one chain serves each group of cases.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::Answer;
use crate::evm;
use crate::gateway::NETWORK;
use crate::shop::{Order, SHOP_SCOPES, Shop};

const ORDERS: &str = "/api/v1/orders";

/// What is asked as `amount` (as JSON), and what the order then says; `!` is refused with 422.
const AMOUNTS: &str = r#"
    "12.5"             12.500000
    "1"                1.000000
    "1.0"              1.000000
    "0.000001"         0.000001
    "0.10"             0.100000
    "100000"           100000.000000
    "9000000000000"    9000000000000.000000
    "8999999999999.999999"  8999999999999.999999
    "9000000000000.000001"  !
    "9000000000001"    !
    "99999999999999999999999999999999999999999999" !
    "0"                !
    "0.000000"         !
    "-1"               !
    "+1"               !
    "01"               !
    "00.5"             !
    ".5"               !
    "5."               !
    "1.0000001"        !
    "1,5"              !
    "1_000"            !
    "1e3"              !
    "0x10"             !
    " 1"               !
    "1 "               !
    "1\n"              !
    ""                 !
    "NaN"              !
    "Infinity"         !
    "１"               !
    "١"                !
    12.5               !
    12                 !
    true               !
    ["1"]              !
    {"value":"1"}      !
    null               !
"#;

#[tokio::test]
async fn amounts_are_exact_decimal_strings() {
    let shop = Shop::open().await;
    for line in AMOUNTS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (asked, said) = line.rsplit_once(char::is_whitespace).unwrap();
        let body = format!(r#"{{"amount":{},"network":"{NETWORK}"}}"#, asked.trim());
        let answer = shop.api().request(Method::POST, ORDERS).body("application/json", body).send().await;
        if said == "!" {
            answer.some_problem(422);
            answer.points_at("/amount");
        } else {
            assert_eq!(answer.expect(201).json()["amount"], said, "{line}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_wrong_says_where() {
    let shop = Shop::open().await;
    let api = shop.api();
    let long = "x".repeat(5_000);
    // What is sent, the status, and the member that the answer must point at.
    for (body, status, pointer) in [
        (json!({ "network": NETWORK }), 422, Some("/amount")),
        (json!({ "amount": "1", "network": "nowhere" }), 422, Some("/network")),
        (json!({ "amount": "1", "network": "" }), 422, Some("/network")),
        (json!({ "amount": "1", "network": 5 }), 422, Some("/network")),
        (json!({ "amount": "1", "network": NETWORK, "colour": "red" }), 422, Some("/colour")),
        (json!({ "amount": "1", "network": NETWORK, "expires_in": 0 }), 422, Some("/expires_in")),
        (json!({ "amount": "1", "network": NETWORK, "expires_in": -5 }), 422, Some("/expires_in")),
        (json!({ "amount": "1", "network": NETWORK, "expires_in": "60" }), 422, Some("/expires_in")),
        (json!({ "amount": "1", "network": NETWORK, "expires_in": 1.5 }), 422, Some("/expires_in")),
        (json!({ "amount": "1", "network": NETWORK, "expires_in": 7 * 86400 + 1 }), 422, Some("/expires_in")),
        (json!({ "amount": "1", "network": NETWORK, "callback_url": "not a url" }), 422, Some("/callback_url")),
        (json!({ "amount": "1", "network": NETWORK, "callback_url": "ftp://shop.test/" }), 422, Some("/callback_url")),
        (json!({ "amount": "1", "network": NETWORK, "redirect_url": "javascript:alert(1)" }), 422, Some("/redirect_url")),
        (json!({ "amount": "1", "network": NETWORK, "metadata": [] }), 422, Some("/metadata")),
        (json!({ "amount": "1", "network": NETWORK, "metadata": "text" }), 422, Some("/metadata")),
        (json!({ "amount": "1", "network": NETWORK, "user_id": long }), 422, Some("/user_id")),
        (json!({ "amount": "1", "network": NETWORK, "merchant_order_id": "" }), 422, Some("/merchant_order_id")),
        (json!({ "amount": "1", "network": NETWORK, "user_id": "a\u{0}b" }), 422, Some("/user_id")),
        (json!({ "amount": "1", "network": NETWORK, "metadata": { "x": [{ "\u{0}": 1 }] } }), 422, Some("/metadata")),
        // Short as it was sent, and three times as long as it is kept.
        (
            json!({ "amount": "1", "network": NETWORK, "callback_url": format!("http://x.test/{}", "é".repeat(900)) }),
            422,
            Some("/callback_url"),
        ),
        (json!([]), 422, None),
        (json!("order"), 422, None),
        (json!(null), 422, None),
    ] {
        let answer = api.post(ORDERS, &body).await;
        answer.some_problem(status);
        if let Some(pointer) = pointer {
            answer.points_at(pointer);
        }
    }
    // The unknown member is named to the reader, too.
    let answer = api.post(ORDERS, &json!({ "amount": "1", "netwrok": NETWORK })).await;
    assert!(answer.some_problem(422).to_string().contains("netwrok"), "{answer:?}");

    // However much is wrong, the answer is short.
    for body in [json!({ long.repeat(20): 1 }), json!({ "amount": "1", "network": 1, "metadata": long.repeat(20) })] {
        let answer = api.post(ORDERS, &body).await;
        assert!(answer.some_problem(422).to_string().len() < 8_000, "{answer:?}");
    }
    // Six letters that look like an escape are none, and a number comes back as it was.
    for metadata in [r#"{"x":"\\u0000"}"#, r#"{"x":3.3333333333e50}"#] {
        let body = format!(r#"{{"amount":"1","network":"{NETWORK}","metadata":{metadata}}}"#);
        let answer = api.request(Method::POST, ORDERS).body("application/json", &body).send().await;
        assert_eq!(answer.expect(201).json()["metadata"].to_string().replace("e+", "e"), metadata);
    }

    // Not JSON at all is malformed; another type is not taken; too much is cut off.
    let send = async |kind: &str, body: &str| api.request(Method::POST, ORDERS).body(kind, body).send().await;
    let good = format!(r#"{{"amount":"1","network":"{NETWORK}"}}"#);
    for malformed in ["", "{", r#"{"amount":"1""#, "amount=1", r#"{"amount":"1"} extra"#, "\u{0}"] {
        send("application/json", malformed).await.some_problem(400);
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/xml"] {
        send(kind, &good).await.some_problem(415);
    }
    send("application/json; charset=utf-8", &good).await.expect(201);
    let huge = format!(r#"{{"amount":"1","network":"{NETWORK}","metadata":{{"x":"{}"}}}}"#, "x".repeat(4 << 20));
    send("application/json", &huge).await.some_problem(413);

    // A member given twice is refused one way or the other; it is never a coin toss.
    let twice = send("application/json", &format!(r#"{{"amount":"1","amount":"2","network":"{NETWORK}"}}"#)).await;
    assert!([400, 422].contains(&twice.status), "{twice:?}");
}

#[tokio::test]
async fn optional_members_may_be_left_out_or_null() {
    let shop = Shop::open().await;
    let body = json!({ "amount": "1", "network": NETWORK, "user_id": null, "plan_id": null,
        "merchant_order_id": null, "expires_in": null, "callback_url": null, "redirect_url": null });
    let answer = shop.api().post(ORDERS, &body).await;
    // Where a value is needed null is refused, and the optional ones need none. Either reading of
    // a null there must be the same for all: an order, or one complaint a member.
    if answer.status == 201 {
        assert_eq!(answer.json()["user_id"], Value::Null);
    } else {
        answer.some_problem(422);
    }
    shop.api().post(ORDERS, &json!({ "amount": null, "network": NETWORK })).await.points_at("/amount");
}

#[tokio::test]
async fn keys_open_what_they_are_for() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    let api = shop.api();
    let path = format!("{ORDERS}/{}", order.id);
    let good = json!({ "amount": "1", "network": NETWORK });
    assert!(shop.key.starts_with("tg_"), "keys are recognisable");

    // No key, no such key, not even a key: 401, and it says how to do better.
    api.with_key(None).get(&path).await.some_problem(401);
    api.with_key(None).post(ORDERS, &good).await.some_problem(401);
    for key in ["tg_test_0000000000000000000000000000000000000000", "nonsense", &shop.key[..shop.key.len() - 1]] {
        let answer = api.with_key(Some(key)).get(&path).await;
        answer.some_problem(401);
        assert!(!answer.text().contains(key), "the key is echoed: {answer:?}");
        assert!(answer.header("www-authenticate").is_some_and(|how| how.starts_with("Bearer")), "{answer:?}");
    }
    let basic = api.with_key(None).request(Method::GET, &path).header("authorization", "Basic Zm9vOmJhcg==");
    basic.send().await.some_problem(401);

    // A key that is good for something else: 403, which names the missing scope.
    let scoped = |scopes: &[&str]| api.with_key(Some(&shop.home.api_key(&shop.merchant.name, scopes)));
    let reader = scoped(&["orders:read"]);
    reader.get(&path).await.expect(200);
    let refused = reader.post(ORDERS, &good).await;
    assert!(refused.some_problem(403).to_string().contains("orders:write"), "{refused:?}");
    reader.post(&format!("{path}/cancel"), &json!({})).await.some_problem(403);
    let writer = scoped(&["orders:write"]);
    writer.post(ORDERS, &good).await.expect(201);
    let wallets = scoped(&["wallets:read"]);
    wallets.get(&path).await.some_problem(403);
    wallets.get("/api/v1/admin/wallets").await.expect(200);
    let generate = json!({ "network": NETWORK, "count": 1 });
    wallets.post("/api/v1/admin/wallets/generate", &generate).await.some_problem(403);
    reader.get("/api/v1/admin/wallets").await.some_problem(403);
    let admin = scoped(&["admin"]);
    admin.get(&path).await.expect(200);
    admin.post("/api/v1/admin/wallets/generate", &generate).await.expect(201);

    // Another merchant's orders do not exist for us.
    shop.home.merchant("neighbour", &shop.receiver.url);
    let neighbour = api.with_key(Some(&shop.home.api_key("neighbour", SHOP_SCOPES)));
    neighbour.get(&path).await.some_problem(404);
    neighbour.get(&format!("{path}/events")).await.some_problem(404);
    neighbour.post(&format!("{path}/cancel"), &json!({})).await.some_problem(404);
    neighbour.post(&format!("{path}/options"), &json!({ "network": NETWORK })).await.some_problem(404);
    assert_eq!(neighbour.all(ORDERS).await, [] as [Value; 0]);
    assert_eq!(neighbour.all(&format!("{ORDERS}?address={}", order.address_text)).await, [] as [Value; 0]);
    // The same answer as for an order that never was, so that nothing can be learned by asking.
    let (foreign, none) = (neighbour.get(&path).await, neighbour.get(&format!("{ORDERS}/ord_nothing")).await);
    assert_eq!(foreign.json()["code"], none.json()["code"]);
    assert_eq!(
        foreign.json()["detail"].as_str().unwrap().replace(&order.id, ""),
        none.json()["detail"].as_str().unwrap().replace("ord_nothing", "")
    );
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let shop = Shop::open().await;
    let api = shop.api();
    for path in ["/api/v1/nothing", "/api/v1/orders/ord_00000000000000000000000000", "/api/v1/orders/x"] {
        api.get(path).await.some_problem(404);
    }
    for (method, path) in [(Method::DELETE, ORDERS), (Method::PATCH, ORDERS), (Method::PUT, "/api/v1/networks")] {
        let answer = api.request(method, path).send().await;
        answer.some_problem(405);
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{answer:?}");
    }
    // Every answer has a request id, no two the same.
    let mut ids = BTreeSet::new();
    for path in ["/health/live", "/api/v1/networks", "/api/v1/nothing", "/openapi.json", ORDERS] {
        let answer = api.get(path).await;
        let id = answer.header("x-request-id").unwrap_or_default().to_owned();
        assert!(!id.is_empty(), "{answer:?}");
        assert!(ids.insert(id), "{answer:?}");
    }
    // The document describes what is there.
    let document = api.get("/openapi.json").await.expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [ORDERS, "/api/v1/orders/{id}", "/api/v1/orders/{id}/cancel", "/api/v1/orders/{id}/options"] {
        assert!(document["paths"].get(path).is_some(), "{path} is not described");
    }
    let mut docs = api.get("/docs").await;
    if let Some(place) = docs.header("location").map(str::to_owned) {
        docs = api.get(&place).await;
    }
    let docs = docs.expect(200).text();
    assert!(!docs.contains("//cdn") && !docs.contains("https://unpkg"), "the documentation works offline");
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_answer_byte_for_byte() {
    let mut shop = Shop::open().await;
    let body = json!({ "amount": "12.5", "network": NETWORK });
    let ask = async |shop: &Shop, key: &str, body: &Value| {
        shop.api().request(Method::POST, ORDERS).header("Idempotency-Key", key).json(body).send().await
    };
    let first = ask(&shop, "k1", &body).await.expect(201);
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = ask(&shop, "k1", &body).await.expect(201);
    same(&first, &again);
    assert_eq!(again.header("location"), first.header("location"));

    // Another body under the same key is refused; another key or path is another request.
    ask(&shop, "k1", &json!({ "amount": "12.6", "network": NETWORK })).await.problem(409, "idempotency_conflict");
    let other = ask(&shop, "k2", &body).await.expect(201);
    assert_ne!(other.json()["id"], first.json()["id"]);

    // A refusal is an answer, too.
    let refused = ask(&shop, "k3", &json!({ "amount": "-1", "network": NETWORK })).await;
    refused.some_problem(422);
    same(&refused, &ask(&shop, "k3", &json!({ "amount": "-1", "network": NETWORK })).await);

    // Twenty at once make one order.
    let answers = join_all((0..20).map(|_| ask(&shop, "k4", &body))).await;
    let original: Vec<&Answer> = answers.iter().filter(|a| a.header("idempotent-replayed").is_none()).collect();
    assert_eq!(original.len(), 1, "{answers:?}");
    answers.iter().filter(|a| a.header("idempotent-replayed").is_some()).for_each(|a| same(original[0], a));

    // The answer stays what it was: after the order has moved on, and after a kill.
    let order = Order::of(&first.json());
    shop.pay(&order, "12.5").await;
    shop.order_is(&order, "confirming").await;
    same(&first, &ask(&shop, "k1", &body).await);
    shop.restart().await;
    same(&first, &ask(&shop, "k1", &body).await);

    // The key belongs to the merchant: a neighbour's is another.
    shop.home.merchant("neighbour", &shop.receiver.url);
    let neighbour = shop.api().with_key(Some(&shop.home.api_key("neighbour", SHOP_SCOPES)));
    let theirs = neighbour.request(Method::POST, ORDERS).header("Idempotency-Key", "k1").json(&body).send().await;
    assert_ne!(theirs.expect(201).json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn many_at_once_make_one_of_it() {
    let shop = Shop::open().await;

    // One order cancelled by many under one key: one answer, replayed to all others.
    let order = shop.order("12.5").await;
    let cancel = format!("{ORDERS}/{}/cancel", order.id);
    let under = |path: String, key: String, body: Value| {
        let request = shop.api().request(Method::POST, &path).header("Idempotency-Key", &key).json(&body);
        async move { request.send().await }
    };
    let answers = join_all((0..24).map(|_| under(cancel.clone(), "cancel".into(), json!({ "reason": "changed my mind" })))).await;
    let original: Vec<&Answer> = answers.iter().filter(|a| a.header("idempotent-replayed").is_none()).collect();
    assert_eq!(original.len(), 1, "{answers:?}");
    assert_eq!(original[0].status, 200, "{answers:?}");
    answers.iter().filter(|a| a.header("idempotent-replayed").is_some()).for_each(|a| same(original[0], a));

    // One number of the shop's under many keys: one order.
    let body = json!({ "amount": "12.5", "network": NETWORK, "merchant_order_id": "INV-7" });
    let answers = join_all((0..24).map(|n| under(ORDERS.into(), format!("number-{n}"), body.clone()))).await;
    let ids: std::collections::BTreeSet<String> = answers.iter().map(|a| a.json()["id"].as_str().unwrap_or("none").to_owned()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    let statuses: Vec<u16> = answers.iter().map(|a| a.status).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|s| matches!(s, 200 | 201)), "{statuses:?}");
}

#[tokio::test]
async fn whoever_tries_keys_is_slowed_down() {
    let shop = Shop::open().await;
    let wrong = shop.api().with_key(Some("tg_test_00000000000000000000000000000000"));
    let answers = join_all((0..200).map(|_| wrong.get("/api/v1/networks"))).await;
    let refused: Vec<&Answer> = answers.iter().filter(|a| a.status == 429).collect();
    assert!(!refused.is_empty() && answers.iter().all(|a| matches!(a.status, 401 | 429)), "{answers:?}");
    refused[0].problem(429, "rate_limited");
    assert!(refused[0].header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s >= 1)), "{:?}", refused[0]);
    shop.api().get("/api/v1/networks").await.expect(200);
}

#[track_caller]
fn same(first: &Answer, again: &Answer) {
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:?}");
    assert_eq!(again.status, first.status, "{again:?}");
    assert!(again.body == first.body, "not byte for byte:\n{first:?}\n{again:?}");
}

#[tokio::test]
async fn a_merchant_order_id_is_one_order() {
    let shop = Shop::open().await;
    let body = |amount: &str| json!({ "amount": amount, "network": NETWORK, "merchant_order_id": "INV-7" });
    let first = shop.api().post(ORDERS, &body("12.5")).await.expect(201).json();
    for amount in ["12.5", "12.500", "12.500000"] {
        let again = shop.api().post(ORDERS, &body(amount)).await.expect(200).json();
        assert_eq!(again["id"], first["id"], "the same id and amount are the same order");
    }
    shop.api().post(ORDERS, &body("12.6")).await.problem(409, "duplicate_merchant_order");

    // Ten at once are one order: one 201, nine 200.
    let race = json!({ "amount": "3", "network": NETWORK, "merchant_order_id": "INV-8" });
    let api = shop.api();
    let answers = join_all((0..10).map(|_| api.post(ORDERS, &race))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|a| a.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 200, 200, 201], "{answers:?}");
    let ids: BTreeSet<String> = answers.iter().map(|a| a.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(shop.api().all(&format!("{ORDERS}?merchant_order_id=INV-8")).await.len(), 1);

    // Another merchant may use the same id.
    shop.home.merchant("neighbour", &shop.receiver.url);
    let neighbour = shop.api().with_key(Some(&shop.home.api_key("neighbour", SHOP_SCOPES)));
    neighbour.post(ORDERS, &body("99")).await.expect(201);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let shop = Shop::open().await;
    let api = shop.api();
    let mut made = Vec::new();
    for number in 1..=7 {
        let body = json!({ "amount": number.to_string(), "user_id": format!("u{}", number % 2) });
        made.push(shop.order_with(&body).await.id);
    }
    made.reverse();
    let ids = |orders: &[Value]| orders.iter().map(|o| o["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();

    // Newest first; a page at a time gives the same as all at once.
    let page = api.get(&format!("{ORDERS}?limit=3")).await.expect(200).json();
    assert_eq!(ids(page["data"].as_array().unwrap()), made[..3]);
    assert_eq!(ids(&api.all(&format!("{ORDERS}?limit=3")).await), made);
    assert_eq!(ids(&api.all(&format!("{ORDERS}?limit=7")).await), made);
    assert_eq!(ids(&api.all(ORDERS).await), made);

    // A cursor stays where it is while new orders come in.
    let newer = shop.order("8").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = api.get(&format!("{ORDERS}?limit=3&cursor={cursor}")).await.expect(200).json();
    assert_eq!(ids(next["data"].as_array().unwrap()), made[3..6]);
    made.insert(0, newer.id.clone());

    // Filters, alone and together.
    let cancel = format!("{ORDERS}/{}/cancel", made[3]);
    api.post(&cancel, &json!({})).await.expect(200);
    for (filter, expected) in [
        ("status=cancelled", vec![3]),
        ("status=pending", vec![0, 1, 2, 4, 5, 6, 7]),
        ("status=paid", vec![]),
        ("user_id=u1", vec![1, 3, 5, 7]),
        ("user_id=u1&status=pending", vec![1, 5, 7]),
        ("user_id=nobody", vec![]),
        ("network=anvil&amount_min=6", vec![0, 1, 2]),
        ("amount_min=2&amount_max=4.000000", vec![4, 5, 6]),
        ("amount_max=0.5", vec![]),
        ("created_from=2000-01-01T00:00:00Z&user_id=u0", vec![2, 4, 6]),
        ("created_to=2000-01-01T00:00:00Z", vec![]),
        ("created_from=2999-01-01T00:00:00Z", vec![]),
    ] {
        let expected: Vec<String> = expected.iter().map(|&at: &usize| made[at].clone()).collect();
        assert_eq!(ids(&api.all(&format!("{ORDERS}?{filter}&limit=2")).await), expected, "{filter}");
    }
    let address = evm::text(newer.address);
    for form in [address.clone(), newer.address_text.clone(), format!("0x{}", address[2..].to_uppercase())] {
        assert_eq!(ids(&api.all(&format!("{ORDERS}?address={form}")).await), std::slice::from_ref(&newer.id), "{form}");
    }

    // What cannot be a filter is refused, not ignored: a mistyped one must not list everything.
    for query in [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=x",
        "cursor=nonsense",
        "status=lost",
        "amount_min=abc",
        "created_from=yesterday",
        "colour=red",
        "user_id=%00",
        "user_id=a%00b",
        "network=%00",
        "cursor=AA",
    ] {
        let answer = api.get(&format!("{ORDERS}?{query}")).await;
        assert!([400, 422].contains(&answer.status), "{query}: {answer:?}");
        answer.some_problem(answer.status);
    }
}

#[tokio::test]
async fn wallets_are_made_imported_and_listed() {
    const WALLETS: &str = "/api/v1/admin/wallets";
    /// A key of nobody's, and the address it opens (from the shared vectors of Anvil's mnemonic).
    const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
    const ADDRESS: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    let shop = Shop::open().await;
    let api = shop.api();
    let post = async |path: &str, body: Value| api.post(&format!("{WALLETS}{path}"), &body).await;

    let made = post("/generate", json!({ "network": NETWORK, "count": 3, "name_prefix": "till" })).await.expect(201).json();
    let made = made["data"].as_array().unwrap().clone();
    assert_eq!(made.len(), 3);
    for wallet in &made {
        assert!(wallet["id"].as_str().unwrap().starts_with("wal_"), "{wallet}");
        assert!(wallet["name"].as_str().unwrap().starts_with("till"), "{wallet}");
        assert_eq!((&wallet["network"], &wallet["kind"], &wallet["status"]), (&json!(NETWORK), &json!("random"), &json!("available")));
        evm::address(wallet["address"].as_str().unwrap());
        assert!(!wallet.to_string().contains("key"), "{wallet}");
        let path = format!("{WALLETS}/{}", wallet["id"].as_str().unwrap());
        assert_eq!(api.get(&path).await.expect(200).json(), *wallet);
    }
    for (body, pointer) in [
        (json!({ "network": NETWORK, "count": 0 }), "/count"),
        (json!({ "network": NETWORK, "count": 1001 }), "/count"),
        (json!({ "network": NETWORK, "count": "3" }), "/count"),
        (json!({ "network": "nowhere", "count": 1 }), "/network"),
        (json!({ "count": 1 }), "/network"),
        (json!({ "network": NETWORK, "count": 1, "colour": 1 }), "/colour"),
    ] {
        let answer = post("/generate", body).await;
        answer.some_problem(422);
        answer.points_at(pointer);
    }

    let imported = post("/import", json!({ "network": NETWORK, "private_key": KEY, "name": "old till" })).await.expect(201);
    assert!(!imported.text().contains(&KEY[2..]), "the key comes back: {imported:?}");
    let imported = imported.json();
    assert_eq!(imported["address"], ADDRESS);
    assert_eq!(imported["kind"], "imported");
    // The same key, with or without 0x, is the same wallet.
    for key in [KEY, &KEY[2..]] {
        post("/import", json!({ "network": NETWORK, "private_key": key })).await.problem(409, "wallet_exists");
    }
    // Zero, the group's order, too short, no hex: not a key, and never repeated to the caller.
    for bad in [
        "0x0000000000000000000000000000000000000000000000000000000000000000",
        "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        "0x1234567890abcdef",
        "correct horse battery staple",
        "",
    ] {
        let answer = post("/import", json!({ "network": NETWORK, "private_key": bad })).await;
        answer.problem(422, "invalid_private_key");
        assert!(bad.is_empty() || !answer.text().contains(bad), "{answer:?}");
    }

    let listed = api.all(&format!("{WALLETS}?network={NETWORK}&limit=50")).await;
    for wallet in made.iter().chain([&imported]) {
        assert!(listed.contains(wallet), "{wallet} is not listed");
    }
    assert_eq!(api.all(&format!("{WALLETS}?address={ADDRESS}")).await, std::slice::from_ref(&imported));
    assert_eq!(api.all(&format!("{WALLETS}?kind=imported")).await, [imported]);
    api.get(&format!("{WALLETS}/wal_nothing")).await.some_problem(404);
}

#[tokio::test]
async fn options_are_for_open_orders_and_known_networks() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    let path = format!("{ORDERS}/{}/options", order.id);
    let post = async |body: Value| shop.api().post(&path, &body).await;
    post(json!({ "network": "nowhere" })).await.points_at("/network");
    post(json!({})).await.points_at("/network");
    post(json!({ "network": NETWORK, "colour": "red" })).await.points_at("/colour");
    let same = post(json!({ "network": NETWORK })).await.expect(200).json();
    assert_eq!(same["address"], order.address_text, "leased already");

    // Past its time, by the newest head: no more changes of mind.
    shop.anvil.set_next_time(order.deadline_s + 1).await;
    shop.anvil.mine(1).await;
    shop.caught_up().await;
    post(json!({ "network": NETWORK })).await.problem(409, "order_not_pending");
}
