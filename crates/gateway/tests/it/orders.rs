//! Orders as an operator and support meet them: seen across merchants, changed, cancelled, confirmed;
//! what happened, in order; webhooks that are sent again; plans and memberships.

use serde_json::{Value, json};

use crate::api::Api;
use crate::gateway::NETWORK;
use crate::operator::{Operator, look, tamper};
use crate::shop::{Order, SHOP_SCOPES, Shop};
use crate::wait::eventually;

impl Shop {
    /// A wallet of the pool that nobody leases: its id, and its address as an order would have it.
    async fn free_wallet(&self, api: &Api) -> Order {
        let wallets = api.all("/api/v1/admin/wallets?status=available").await;
        let wallet = wallets.first().unwrap_or_else(|| panic!("no free wallet"));
        let order =
            json!({ "id": "none", "address": wallet["address"], "wallet_id": wallet["id"], "expires_at": "2100-01-01T00:00:00.000Z" });
        Order::of(&order)
    }
}

fn kinds(events: &Value) -> Vec<&str> {
    events["data"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_operator_sees_and_changes_the_orders_of_every_merchant() {
    let shop = Shop::open().await;
    let operator = Operator::of(&shop);
    let api = operator.api(&shop);
    let other = shop.home.merchant("other", "http://127.0.0.1:9/");
    let order = shop.order("5").await;
    let body = json!({ "amount": "7", "network": NETWORK, "merchant_id": other.id });
    let others = api.post("/api/v1/admin/orders", &body).await.expect(201);
    let location = others.header("location").unwrap().to_owned();
    let others = others.json();
    assert_eq!((&others["merchant_id"], location), (&json!(other.id), format!("/api/v1/admin/orders/{}", others["id"].as_str().unwrap())));
    let main = api.post("/api/v1/admin/orders", &json!({ "amount": "8" })).await.expect(201).json();
    assert!(main["merchant_id"] != json!(shop.merchant.id) && main["merchant_id"] != json!(other.id), "without a name it is for main");
    api.post("/api/v1/admin/orders", &json!({ "amount": "8", "merchant_id": "mer_1" })).await.points_at("/merchant_id");
    shop.api().post("/api/v1/orders", &body).await.points_at("/merchant_id");

    let listed = |orders: Vec<Value>| orders.iter().map(|order| order["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let all = listed(api.all("/api/v1/admin/orders").await);
    assert_eq!(all, [main["id"].as_str().unwrap(), others["id"].as_str().unwrap(), &order.id]);
    let of_other = listed(api.all(&format!("/api/v1/admin/orders?merchant_id={}", other.id)).await);
    assert_eq!(of_other, [others["id"].as_str().unwrap()]);
    api.get("/api/v1/orders?merchant_id=mer_1").await.points_at("merchant_id");
    shop.api().get(&location_of(&others)).await.problem(403, "insufficient_scope");
    shop.api().get(&format!("/api/v1/orders/{}", others["id"].as_str().unwrap())).await.problem(404, "not_found");

    // What decides nothing changes at any time, more time only while it is pending.
    let path = format!("/api/v1/admin/orders/{}", order.id);
    let put = async |body: Value| api.request(reqwest::Method::PUT, &path).json(&body).send().await;
    put(json!({})).await.problem(422, "invalid_request");
    put(json!({ "metadata": null })).await.problem(422, "invalid_request");
    put(json!({ "amount": "6" })).await.points_at("/amount");
    let changed = put(json!({ "note": "called", "metadata": { "a": 1.50 }, "callback_url": shop.receiver.url })).await.expect(200).json();
    assert_eq!((&changed["note"], &changed["metadata"], &changed["status"]), (&json!("called"), &json!({ "a": 1.50 }), &json!("pending")));
    let cleared = put(json!({ "note": null, "callback_url": null })).await.expect(200).json();
    assert_eq!((&cleared["note"], &cleared["callback_url"], &cleared["metadata"]), (&Value::Null, &Value::Null, &json!({ "a": 1.50 })));
    put(json!({ "expires_at": changed["created_at"] })).await.problem(409, "invalid_expires_at");
    put(json!({ "expires_at": "2100-01-01T00:00:00Z" })).await.problem(409, "invalid_expires_at");
    let later = crate::wait::now_s() + 6 * 86_400;
    let later = crate::shop::rfc3339(later);
    assert_eq!(put(json!({ "expires_at": later })).await.expect(200).json()["expires_at"], later);
    let rows = api.all(&format!("/api/v1/admin/audit?subject={}", order.id)).await;
    assert_eq!(rows.iter().map(|row| row["action"].as_str().unwrap()).collect::<Vec<_>>(), ["order.update"; 3]);

    shop.api()
        .post(&format!("/api/v1/admin/orders/{}/cancel", order.id), &json!({ "reason": "no" }))
        .await
        .problem(403, "insufficient_scope");
    shop.pay(&order, "2").await;
    shop.order_has(&order, &json!({ "exception": "underpaid" })).await;
    let cancel = format!("{path}/cancel");
    api.post(&cancel, &json!({ "reason": "twice" })).await.problem(409, "payment_in_progress");
    api.post(&cancel, &json!({})).await.points_at("/reason");
    let cancelled = api.post(&cancel, &json!({ "reason": "twice", "force": true })).await.expect(200).json();
    let shown = (&cancelled["status"], &cancelled["exception"], &cancelled["amount_received"]);
    assert_eq!(shown, (&json!("cancelled"), &json!("late"), &json!("0.000000")));
    put(json!({ "expires_at": later })).await.problem(409, "order_not_pending");
    put(json!({ "note": "refunded by hand" })).await.expect(200);
    let story = api.get(&format!("{path}/events")).await.expect(200).json();
    assert_eq!(kinds(&story), ["order.pending", "order.underpaid", "order.cancelled"]);
    let told: Vec<(&str, &str)> =
        story["timeline"].as_array().unwrap().iter().map(|told| (told["kind"].as_str().unwrap(), told["what"].as_str().unwrap())).collect();
    for expected in [("transfer", "pending"), ("person", "order.cancel"), ("person", "order.update"), ("event", "order.cancelled")] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
}

fn location_of(order: &Value) -> String {
    format!("/api/v1/admin/orders/{}", order["id"].as_str().unwrap())
}

#[tokio::test]
async fn a_network_takes_orders_within_its_limits() {
    let shop = Shop::open_with(|settings| settings.network = "min_amount = \"5\"\nmax_amount = \"100\"".to_owned()).await;
    let api = shop.api();
    for (amount, said) in [("4.999999", "at least 5.000000"), ("100.000001", "at most 100.000000")] {
        let answer = api.post("/api/v1/orders", &json!({ "amount": amount, "network": NETWORK })).await;
        answer.points_at("/amount");
        assert!(answer.text().contains(said), "{answer:?}");
        api.post("/api/v1/orders", &json!({ "amount": amount })).await.points_at("/amount");
    }
    for amount in ["5", "100"] {
        api.post("/api/v1/orders", &json!({ "amount": amount, "network": NETWORK })).await.expect(201);
    }
    let network = api.get("/api/v1/networks").await.expect(200).json()["data"][0].clone();
    assert_eq!((&network["min_amount"], &network["max_amount"]), (&json!("5.000000"), &json!("100.000000")));
}

#[tokio::test]
async fn an_operator_confirms_an_order_by_his_word_or_by_a_transaction() {
    let shop = Shop::open().await;
    let api = Operator::of(&shop).api(&shop);
    let confirm = async |order: &Order, body: Value| api.post(&format!("/api/v1/admin/orders/{}/confirm", order.id), &body).await;

    let word = shop.order("5").await;
    confirm(&word, json!({})).await.points_at("/reason");
    confirm(&word, json!({ "reason": "cash", "ordinal": 0 })).await.points_at("/tx_hash");
    let paid = confirm(&word, json!({ "reason": "cash" })).await.expect(200).json();
    assert_eq!((&paid["status"], &paid["exception"], &paid["amount_confirmed"]), (&json!("paid"), &json!("manual"), &json!("0.000000")));
    shop.events(&word, &["order.pending", "order.paid"]).await;
    confirm(&word, json!({ "reason": "again" })).await.problem(409, "order_paid");

    // Paid to a wallet that is nobody's: the money moves to the order, and settles as all money does.
    let (order, wallet) = (shop.order("5").await, shop.free_wallet(&api).await);
    let hash = shop.pay(&wallet, "4").await;
    shop.caught_up().await;
    let confirming = confirm(&order, json!({ "reason": "wrong address", "tx_hash": hash })).await.expect(200).json();
    let shown = (&confirming["status"], &confirming["amount_received"], &confirming["transfers"][0]["tx_hash"]);
    assert_eq!(shown, (&json!("confirming"), &json!("4.000000"), &json!(hash)));
    let elsewhere = shop.order("5").await;
    confirm(&elsewhere, json!({ "reason": "r", "tx_hash": hash })).await.problem(409, "transfer_already_counted");
    shop.anvil.mine(3).await;
    let paid = shop.order_is(&order, "paid").await;
    assert_eq!((&paid["exception"], &paid["amount_confirmed"]), (&json!("manual"), &json!("4.000000")));
    confirm(&elsewhere, json!({ "reason": "r", "tx_hash": hash })).await.problem(409, "transfer_already_counted");

    // Settled before: paid at once, and the books follow the money.
    let (order, wallet) = (elsewhere, shop.free_wallet(&api).await);
    let hash = shop.pay(&wallet, "6").await;
    shop.settled().await;
    let account = "SELECT COALESCE(SUM(CAST(raw_value AS INTEGER) * CASE WHEN credit = '{}' THEN 1 ELSE -1 END), 0) FROM journal WHERE '{}' IN (debit, credit)";
    let holds = async |name: &str| look(&shop.home, &account.replace("{}", name)).await;
    let unmatched = holds("unmatched").await;
    let paid = confirm(&order, json!({ "reason": "r", "tx_hash": hash, "network": NETWORK })).await.expect(200).json();
    assert_eq!((&paid["status"], &paid["exception"]), (&json!("paid"), &json!("manual")));
    let now: i64 = holds("unmatched").await.parse().unwrap();
    assert_eq!(unmatched.parse::<i64>().unwrap() - now, 6_000_000, "the stray money has an owner");
    assert_eq!(holds(&format!("order:{}", order.id)).await, "6000000");
    let row = &api.all(&format!("/api/v1/admin/audit?subject={}", order.id)).await[0];
    assert_eq!((&row["action"], &row["reason"], &row["detail"]["ordinal"]), (&json!("order.confirm"), &json!("r"), &json!(0)));

    // What pays nobody here.
    let order = shop.order("5").await;
    let unknown = format!("0x{}", "ab".repeat(32));
    for (hash, words) in [(unknown.as_str(), "no endpoint"), ("0x12", "")] {
        let answer = confirm(&order, json!({ "reason": "r", "tx_hash": hash })).await;
        answer.points_at("/tx_hash");
        assert!(answer.text().contains(words), "{answer:?}");
    }
    let data = crate::evm::call("transfer(address,uint256)", &[crate::evm::Arg::Address([9; 20]), crate::evm::Arg::Uint(1)]);
    let foreign = shop.anvil.send(shop.anvil.accounts[1], Some(shop.tokens.usdt), &data).await;
    confirm(&order, json!({ "reason": "r", "tx_hash": foreign })).await.problem(409, "transaction_pending");
    shop.anvil.mine(1).await;
    confirm(&order, json!({ "reason": "r", "tx_hash": foreign })).await.points_at("/tx_hash");

    // Several transfers of one transaction: which is meant has to be said.
    let two = (shop.free_wallet(&api).await.address, "1");
    let hash = shop.pay_batch(&[two, (two.0, "2")]).await;
    shop.caught_up().await;
    let answer = confirm(&order, json!({ "reason": "r", "tx_hash": hash })).await;
    answer.points_at("/ordinal");
    assert!(answer.text().contains("one of 0, 1") || answer.text().contains("one of 1, 0"), "{answer:?}");
    let confirming = confirm(&order, json!({ "reason": "r", "tx_hash": hash, "ordinal": 1 })).await.expect(200).json();
    assert_eq!((&confirming["status"], &confirming["amount_received"]), (&json!("confirming"), &json!("2.000000")));
    shop.api().post(&format!("/api/v1/orders/{}/cancel", order.id), &json!({})).await.problem(409, "payment_in_progress");
}

#[tokio::test]
async fn everything_that_happened_is_listed_in_its_order() {
    let shop = Shop::open().await;
    let other = shop.home.merchant("other", "http://127.0.0.1:9/");
    let other = shop.gateway.api(&shop.home.api_key(&other.name, SHOP_SCOPES));
    let (one, two) = (shop.order("5").await, shop.order("6").await);
    other.post("/api/v1/orders", &json!({ "amount": "7" })).await.expect(201);
    shop.pay(&two, "6").await;
    shop.anvil.mine(2).await;
    shop.order_is(&two, "paid").await;
    let api = shop.api();
    let listed = api.get("/api/v1/events").await.expect(200).json();
    assert_eq!(kinds(&listed), ["order.pending", "order.pending", "order.confirming", "order.paid"]);
    let (events, next) = (listed["data"].as_array().unwrap(), &listed["next_cursor"]);
    assert_eq!((&events[0]["data"]["id"], &events[3]["data"]["id"], next), (&json!(one.id), &json!(two.id), &Value::Null));
    let sequences: Vec<i64> = events.iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
    assert!(sequences.windows(2).all(|two| two[0] < two[1]), "{sequences:?}");

    // In pages, from a sequence or from an id, and by type.
    let mut after = String::from("0");
    let mut walked = Vec::new();
    loop {
        let page = api.get(&format!("/api/v1/events?limit=1&after={after}")).await.expect(200).json();
        walked.extend(page["data"].as_array().unwrap().iter().map(|event| event["id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(walked, events.iter().map(|event| event["id"].clone()).collect::<Vec<_>>());
    let rest = api.get(&format!("/api/v1/events?after={}", events[1]["id"].as_str().unwrap())).await.expect(200).json();
    assert_eq!(kinds(&rest), ["order.confirming", "order.paid"]);
    assert_eq!(kinds(&api.get("/api/v1/events?type=order.paid").await.expect(200).json()), ["order.paid"]);
    assert_eq!(kinds(&other.get("/api/v1/events").await.expect(200).json()), ["order.pending"]);
    api.get("/api/v1/events?type=order.eaten").await.points_at("type");
    for wrong in ["-1", "x", "evt_0123"] {
        api.get(&format!("/api/v1/events?after={wrong}")).await.points_at("after");
    }

    // The same for an operator, across merchants.
    let admin = Operator::of(&shop).api(&shop);
    let everybody = async |query: &str| admin.get(&format!("/api/v1/admin/events?{query}")).await.expect(200).json();
    let all = everybody("").await;
    let of_shop = |event: &&Value| event["merchant_id"] == json!(shop.merchant.id);
    let ours: Vec<Value> = all["data"].as_array().unwrap().iter().filter(of_shop).cloned().collect();
    let is_same =
        |(ours, theirs): (&Value, &Value)| ["id", "sequence", "type", "timestamp", "data"].iter().all(|name| ours[name] == theirs[name]);
    assert!(ours.len() == events.len() && ours.iter().zip(events).all(is_same), "{all}");
    assert_eq!((&ours[0]["subject_id"], all["data"].as_array().unwrap().len()), (&json!(one.id), 5), "{all}");
    assert_eq!(everybody(&format!("merchant_id={}", shop.merchant.id)).await["data"], json!(ours));
    let of_two = everybody(&format!("order_id={}", two.id)).await;
    assert_eq!(kinds(&of_two), ["order.pending", "order.confirming", "order.paid"]);
    assert_eq!(kinds(&everybody(&format!("order_id={}&type=order.paid&merchant_id={}", two.id, shop.merchant.id)).await), ["order.paid"]);
    assert_eq!(kinds(&everybody("type=order.pending&limit=2").await), ["order.pending", "order.pending"]);
    let page = everybody("limit=4").await;
    assert_eq!(everybody(&format!("after={}", page["next_cursor"].as_str().unwrap())).await["data"], json!([all["data"][4]]));
    for (query, pointer) in
        [("merchant_id=main", "merchant_id"), ("order_id=alr_1", "order_id"), ("type=order.eaten", "type"), ("after=x", "after")]
    {
        admin.get(&format!("/api/v1/admin/events?{query}")).await.points_at(pointer);
    }
    api.get("/api/v1/admin/events").await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn a_webhook_is_looked_at_and_sent_again() {
    let shop = Shop::open().await;
    let api = Operator::of(&shop).api(&shop);
    shop.receiver.fail_next(1);
    let order = shop.order("5").await;
    let deliveries = async |query: &str| api.all(&format!("/api/v1/admin/webhook-deliveries?subject_id={}{query}", order.id)).await;
    let first = eventually("it was tried", async || {
        let seen = deliveries("").await;
        if seen.len() == 1 && seen[0]["tries"] == 1 { Ok(seen[0].clone()) } else { Err(json!(seen)) }
    })
    .await;
    assert_eq!((&first["status"], &first["type"], &first["last_code"]), (&json!("due"), &json!("order.pending"), &json!(500)));
    let path = format!("/api/v1/admin/webhook-deliveries/{}", first["id"].as_str().unwrap());
    api.post(&format!("{path}/retry"), &json!({})).await.expect(202);
    let sent = eventually("it was sent again", async || {
        let now = api.get(&path).await.expect(200).json();
        if now["status"] == "delivered" { Ok(now) } else { Err(now) }
    })
    .await;
    let attempts = sent["attempts"].as_array().unwrap();
    assert_eq!(
        attempts.iter().map(|attempt| (&attempt["number"], &attempt["code"])).collect::<Vec<_>>(),
        [(&json!(1), &json!(500)), (&json!(2), &json!(204))]
    );
    assert_eq!(sent["tries"], 1, "what was asked for is beside the schedule");
    let received = shop.receiver.deliveries_of(&order.id);
    assert!(received.len() == 2 && received.iter().all(|delivery| delivery.id == first["event_id"]), "{received:?}");
    assert_eq!(sent["request_body"], String::from_utf8(received[0].body.clone()).unwrap());
    assert!(deliveries("&status=failed").await.is_empty());

    // One that was delivered is sent again too, and stays delivered when that fails.
    shop.receiver.fail_next(1);
    api.post(&format!("{path}/retry"), &json!({})).await.expect(202);
    eventually("it failed once more", async || {
        let now = api.get(&path).await.expect(200).json();
        if now["attempts"].as_array().unwrap().len() == 3 { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(api.get(&path).await.expect(200).json()["status"], "delivered");

    // Everything that failed in a time.
    crate::operator::tamper(&shop.home, "UPDATE payment_webhooks SET status = 'failed'").await;
    let again = "/api/v1/admin/webhook-deliveries/retry";
    api.post(again, &json!({ "from": "yesterday" })).await.points_at("/from");
    let none = api.post(again, &json!({ "from": "2100-01-01T00:00:00Z" })).await.expect(202).json();
    assert_eq!(none, json!({ "count": 0, "more": false }));
    let one = api.post(again, &json!({ "from": "2026-01-01T00:00:00Z", "merchant_id": shop.merchant.id })).await.expect(202).json();
    assert_eq!(one, json!({ "count": 1, "more": false }));
    eventually("it arrives", async || {
        let seen = shop.receiver.deliveries_of(&order.id).len();
        if seen == 4 { Ok(()) } else { Err(seen) }
    })
    .await;
    // Only what the merchant wants to hear of is sent; everything is listed.
    let merchant = format!("/api/v1/admin/merchants/{}", shop.merchant.id);
    let put = async |body: Value| api.request(reqwest::Method::PUT, &merchant).json(&body).send().await;
    put(json!({ "webhook_events": ["order.eaten"] })).await.points_at("/webhook_events/0");
    put(json!({ "webhook_events": ["order.paid", "order.paid"] })).await.points_at("/webhook_events/1");
    let narrowed = put(json!({ "webhook_events": ["order.paid", "order.cancelled"] })).await.expect(200).json();
    assert_eq!(narrowed["webhook_events"], json!(["order.paid", "order.cancelled"]));
    let quiet = shop.order("5").await;
    shop.api().post(&format!("/api/v1/orders/{}/cancel", quiet.id), &json!({})).await.expect(200);
    shop.receiver.events(&quiet.id, &["order.cancelled"]).await;
    let listed = shop.api().get(&format!("/api/v1/orders/{}/events", quiet.id)).await.expect(200).json();
    assert_eq!(kinds(&listed), ["order.pending", "order.cancelled"]);
    assert_eq!(put(json!({ "webhook_events": null })).await.expect(200).json()["webhook_events"], Value::Null);
    api.get("/api/v1/admin/webhook-deliveries/whd_1").await.problem(404, "not_found");
    shop.api().get("/api/v1/admin/webhook-deliveries").await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn a_paid_order_makes_and_extends_a_membership_once() {
    let mut shop = Shop::open().await;
    let operator = Operator::of(&shop);
    let api = operator.api(&shop);
    // Without plans a shop may say what it likes.
    shop.order_with(&json!({ "amount": "5", "plan_id": "anything" })).await;
    let plan = json!({ "id": "gold", "merchant_id": shop.merchant.id, "name": "Gold", "price": "5", "duration_days": 30 });
    let made = api.post("/api/v1/admin/plans", &plan).await.expect(201).json();
    assert_eq!((&made["id"], &made["price"], &made["active"]), (&json!("gold"), &json!("5.000000"), &json!(true)));
    api.post("/api/v1/admin/plans", &plan).await.problem(409, "plan_exists");
    api.post("/api/v1/admin/plans", &json!({ "name": "x", "price": "5", "duration_days": 0 })).await.points_at("/duration_days");
    let wrong = shop.api().post("/api/v1/orders", &json!({ "amount": "5", "plan_id": "silver", "user_id": "42" })).await;
    wrong.points_at("/plan_id");
    shop.api().post("/api/v1/orders", &json!({ "amount": "5", "plan_id": "gold" })).await.points_at("/user_id");

    let membership = async |shop: &Shop| shop.api().get("/api/v1/users/42/membership").await.expect(200).json();
    assert_eq!(membership(&shop).await["active"], false);
    let buy = json!({ "amount": "5", "plan_id": "gold", "user_id": "42" });
    let (first, second) = (shop.order_with(&buy).await, shop.order_with(&buy).await);
    shop.pay_batch(&[(first.address, "5"), (second.address, "5")]).await;
    shop.anvil.mine(2).await;
    shop.order_is(&first, "paid").await;
    shop.order_is(&second, "paid").await;
    let now = membership(&shop).await;
    assert_eq!((&now["active"], &now["plan_id"], now["periods"].as_array().unwrap().len()), (&json!(true), &json!("gold"), 2), "{now}");
    let (later, earlier) = (&now["periods"][0], &now["periods"][1]);
    assert_eq!((&later["starts_at"], &now["expires_at"]), (&earlier["ends_at"], &later["ends_at"]), "one follows the other: {now}");
    let days = crate::shop::seconds(now["expires_at"].as_str().unwrap()) - crate::shop::seconds(earlier["starts_at"].as_str().unwrap());
    assert_eq!(days, 60 * 86_400);
    let told = shop.receiver.first("membership.activated").await.json();
    assert_eq!((&told["data"]["user_id"], &told["data"]["plan_id"]), (&json!("42"), &json!("gold")), "{told}");

    // A scan reads the payment again and a restart replays nothing.
    shop.restart().await;
    let tip = shop.anvil.head().await.number.to_string();
    shop.home.run(&["scan", "--network", NETWORK, "--from", "5", "--to", &tip]).succeeded();
    assert_eq!(membership(&shop).await, now);

    // A plan that is not sold any more still counts for what was bought before.
    let api = operator.api(&shop);
    let third = shop.order_with(&buy).await;
    let put = api.request(reqwest::Method::PUT, "/api/v1/admin/plans/gold").json(&json!({ "active": false, "name": "Old" })).send().await;
    assert_eq!(put.expect(200).json()["name"], "Old");
    shop.api().post("/api/v1/orders", &buy).await.points_at("/plan_id");
    shop.pay(&third, "5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&third, "paid").await;
    assert_eq!(membership(&shop).await["periods"].as_array().unwrap().len(), 3);
    let withdraw = format!("/api/v1/admin/orders/{}/membership/withdraw", third.id);
    api.post(&withdraw, &json!({})).await.points_at("/reason");
    let taken = api.post(&withdraw, &json!({ "reason": "charged back" })).await.expect(200).json();
    assert!(taken["withdrawn_at"].is_string(), "{taken}");
    assert_eq!(membership(&shop).await["expires_at"], now["expires_at"]);
    let others = shop.home.merchant("other", "http://127.0.0.1:9/");
    let others = shop.gateway.api(&shop.home.api_key(&others.name, SHOP_SCOPES));
    assert_eq!(others.get("/api/v1/users/42/membership").await.expect(200).json()["periods"], json!([]));
}

#[tokio::test]
async fn an_order_without_an_amount_is_paid_by_what_comes() {
    let shop = Shop::open().await;
    shop.api().post("/api/v1/orders", &json!({ "network": NETWORK })).await.points_at("/amount");
    let least = shop.api().post("/api/v1/orders", &json!({ "open_amount": true })).await.expect(201).json();
    assert_eq!((&least["open_amount"], &least["network"]), (&json!(true), &Value::Null));
    let order = shop.order_with(&json!({ "open_amount": true, "amount": "5" })).await;
    let opened = shop.get(&order).await;
    assert_eq!((&opened["amount"], &opened["open_amount"]), (&json!("5.000000"), &json!(true)));
    assert!(!opened["payment_uri"].as_str().unwrap().contains("uint256"), "{opened}");
    let page = shop.api().with_key(None).get(&format!("/pay/{}?lang=en", order.id)).await.expect(200).text();
    assert!(page.contains("At least") && page.contains("as much as you like"), "{page}");
    shop.pay(&order, "4").await;
    shop.order_has(&order, &json!({ "exception": "underpaid" })).await;
    shop.pay(&order, "38").await;
    shop.anvil.mine(2).await;
    let paid = shop.order_is(&order, "paid").await;
    assert_eq!((&paid["exception"], &paid["amount_confirmed"]), (&Value::Null, &json!("42.000000")));
    shop.pay(&order, "1").await;
    shop.anvil.mine(2).await;
    shop.events(&order, &["order.pending", "order.underpaid", "order.confirming", "order.paid", "order.overpaid"]).await;
    let more = shop.get(&order).await;
    assert_eq!((&more["exception"], &more["amount_confirmed"]), (&Value::Null, &json!("43.000000")));
}

#[tokio::test]
async fn a_customer_has_one_address_for_ever_and_each_deposit_is_told() {
    let mut shop = Shop::open().await;
    let path = "/api/v1/customers/42/addresses";
    let given = shop.api().post(path, &json!({ "network": NETWORK })).await.expect(201).json();
    let known = shop.api().post(path, &json!({ "network": NETWORK })).await.expect(200).json();
    assert_eq!((&given["address"], &given["user_id"], &given["deposits"]), (&known["address"], &json!("42"), &json!([])));
    shop.api().post(path, &json!({ "network": "moon" })).await.points_at("/network");
    shop.api().post(path, &json!({})).await.points_at("/network");
    let asked = (0..8).map(|_| {
        let api = shop.api();
        tokio::spawn(
            async move { api.post("/api/v1/customers/43/addresses", &json!({ "network": NETWORK })).await.json()["address"].clone() },
        )
    });
    let mut addresses = std::collections::BTreeSet::new();
    for asked in asked.collect::<Vec<_>>() {
        addresses.insert(asked.await.unwrap().as_str().unwrap().to_owned());
    }
    assert_eq!(addresses.len(), 1, "however many ask at once");

    let mut of_order = given.clone();
    of_order["expires_at"] = json!("2100-01-01T00:00:00.000Z");
    let address = Order::of(&of_order);
    shop.pay_batch(&[(address.address, "5"), (address.address, "0.000001")]).await;
    shop.anvil.mine(2).await;
    let one = async |shop: &Shop| shop.api().get(path).await.expect(200).json()["data"][0].clone();
    let settled = eventually("both deposits settle", async || {
        let now = one(&shop).await;
        if now["amount_confirmed"] == "5.000001" { Ok(now) } else { Err(now) }
    })
    .await;
    let deposits = settled["deposits"].as_array().unwrap();
    assert_eq!(deposits.iter().map(|deposit| &deposit["status"]).collect::<Vec<_>>(), ["confirmed", "confirmed"]);
    shop.restart().await;
    shop.pay(&address, "7").await;
    shop.anvil.mine(2).await;
    let events = eventually("three deposits are told", async || {
        let events = shop.api().get("/api/v1/events?type=deposit.settled").await.expect(200).json();
        if events["data"].as_array().unwrap().len() == 3 { Ok(events) } else { Err(events) }
    })
    .await;
    let told: Vec<(&Value, &Value)> =
        events["data"].as_array().unwrap().iter().map(|event| (&event["data"]["user_id"], &event["data"]["amount"])).collect();
    assert_eq!(told, [(&json!("42"), &json!("5.000000")), (&json!("42"), &json!("0.000001")), (&json!("42"), &json!("7.000000"))]);
    let named: std::collections::BTreeSet<&str> =
        events["data"].as_array().unwrap().iter().map(|event| event["data"]["id"].as_str().unwrap()).collect();
    assert!(named.len() == 3 && named.iter().all(|id| id.starts_with("tx_")), "{named:?}");
    let delivery = shop.receiver.first("deposit.settled").await;
    delivery.verify(&shop.merchant.webhook_secret).unwrap();

    // It is no order to anybody.
    let id = given["id"].as_str().unwrap();
    shop.api().get(&format!("/api/v1/orders/{id}")).await.problem(404, "not_found");
    assert_eq!(shop.api().get("/api/v1/orders").await.expect(200).json()["data"], json!([]));
    assert_eq!(shop.api().get(&format!("/pay/{id}")).await.status, 404);
    let wallets = Operator::of(&shop).api(&shop).all("/api/v1/admin/wallets?status=occupied").await;
    assert_eq!(wallets.len(), 2, "an address is lent for good");
    assert_eq!(shop.home.json(&["check", "--books"])["differing"], json!([]));
}

/// A wallet of a seed may have a past, so none can be lent before anything of the chain has settled;
/// making more of them helps nobody.
#[tokio::test]
async fn a_pool_of_a_seed_does_not_grow_while_nothing_has_settled() {
    let shop = Shop::open_with(|settings| settings.network = "wallets = 'hd'".to_owned()).await;
    shop.home.json(&["wallet", "seed", "main", "--yes"]);
    let body = json!({ "amount": "5", "network": NETWORK, "expires_in": 3600 });
    for _ in 0..3 {
        let refused = shop.api().post("/api/v1/orders", &body).await.expect(503).json();
        assert_eq!(refused["code"], "network_unavailable", "{refused}");
    }
    let sources = shop.home.json(&["wallet", "sources"]);
    let made = sources["data"][0]["next_index"][NETWORK].as_u64().unwrap_or(0);
    assert!(made <= 500, "{made} wallets were made for three orders that got none");
    shop.anvil.mine(4).await;
    eventually("an order gets a wallet", async || {
        let answer = shop.api().post("/api/v1/orders", &body).await;
        if answer.status == 201 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

/// An order is as deep as it was made: who asks for more afterwards asks it of later ones.
#[tokio::test]
async fn an_order_keeps_the_depth_that_it_was_made_with() {
    let mut shop = Shop::open().await;
    let order = shop.order("5").await;
    shop.gateway.kill();
    let toml = std::fs::read_to_string(shop.home.config_file()).unwrap();
    assert!(toml.contains("confirmations = 3"), "{toml}");
    shop.home.configure(&toml.replace("confirmations = 3", "confirmations = 60"));
    shop.start_again().await;
    shop.pay(&order, "5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
    let later = shop.get(&shop.order("5").await).await;
    assert_eq!(later["confirmations_required"], 60, "{later}");
}

/// Nobody is sent to a wallet that was frozen or disabled; what is sent there all the same counts.
#[tokio::test]
async fn a_wallet_that_is_set_aside_is_shown_to_nobody() {
    let shop = Shop::open().await;
    let operator = Operator::of(&shop);
    let api = operator.api(&shop);
    let order = shop.order("5").await;
    let address = shop.get(&order).await["address"].as_str().unwrap().to_owned();
    let wallet = shop.get(&order).await["wallet_id"].as_str().unwrap().to_owned();
    let put = async |status: &str| {
        let body = json!({ "status": status, "reason": "its key may be known" });
        api.post(&format!("/api/v1/admin/wallets/{wallet}/status"), &body).await.expect(200);
    };
    for status in ["frozen", "disabled"] {
        put(status).await;
        let shown = shop.get(&order).await;
        assert_eq!(
            (&shown["address"], &shown["payment_uri"], &shown["payment_options"][0]["address"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        let page = shop.api().with_key(None).get(&format!("/pay/{}", order.id)).await.expect(200).text();
        assert!(!page.contains(&address), "{status}: the page sends people there");
        put("available").await;
        assert_eq!(shop.get(&order).await["address"], address.as_str(), "{status} no more");
    }
    put("frozen").await;
    shop.pay(&order, "5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
}

/// A shop that repeats a call whose answer it has lost hears of its order, whatever would be said of a
/// new one by now.
#[tokio::test]
async fn a_known_number_is_answered_before_a_new_order_is_judged() {
    let mut shop = Shop::open().await;
    let body = json!({ "amount": "5", "network": NETWORK, "expires_in": 3600, "merchant_order_id": "INV-1" });
    let made = shop.api().post("/api/v1/orders", &body).await.expect(201).json();
    shop.gateway.kill();
    let toml = std::fs::read_to_string(shop.home.config_file()).unwrap();
    shop.home.configure(&toml.replace(&format!("[networks.{NETWORK}]"), &format!("[networks.{NETWORK}]\nmin_amount = \"6\"")));
    shop.start_again().await;
    let again = shop.api().post("/api/v1/orders", &body).await.expect(200).json();
    assert_eq!(again["id"], made["id"]);
    let new = json!({ "amount": "5", "network": NETWORK, "merchant_order_id": "INV-2" });
    shop.api().post("/api/v1/orders", &new).await.expect(422);
}

/// Wallets that somebody edited in the database are passed over, however many they are.
#[tokio::test]
async fn an_order_passes_over_wallets_that_were_tampered_with() {
    let mut shop = Shop::open().await;
    shop.gateway.kill();
    // More than are read ahead.
    shop.home.json(&["wallet", "generate", "--network", NETWORK, "--count", "150"]);
    tamper(&shop.home, "UPDATE usdt_wallets SET tag = 'another' WHERE status = 'available'").await;
    shop.start_again().await;
    let order = shop.order("5").await;
    assert!(shop.get(&order).await["address"].is_string());
    let alerts = Operator::of(&shop).api(&shop).all("/api/v1/admin/alerts?kind=address_tampered").await;
    assert!(!alerts.is_empty());
}
