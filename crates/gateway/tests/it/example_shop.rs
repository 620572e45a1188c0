//! The example shop of `examples/shop` against the sandbox: what integrators copy does what it says.

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_example_shop::{Credentials, serve};
use tidegate_rules::notify::{secret_bytes, signature};
use tokio::net::TcpListener;

use crate::api::{Answer, Api};
use crate::dev::{PAID_MAX, Sandbox};
use crate::wait::{eventually_within, now_s};

#[tokio::test]
async fn the_example_shop_sells_and_believes_no_forgery() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(data.path()).await;
    let credentials = Credentials::read(&data.path().join("credentials.json")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shop = Api::new(&format!("http://{}", listener.local_addr().unwrap()), "").with_key(None);
    let server = tokio::spawn(serve(credentials, listener));

    // Two products; the button is pressed twice and makes one order.
    let front = shop.get("/").await.expect(200).text();
    let buttons: Vec<&str> = front.split("action=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let [tea, hosting] = buttons[..] else { panic!("{front}") };
    let checkout = press(&shop, tea).await;
    assert_eq!(press(&shop, tea).await, checkout, "a double click makes a second order");
    assert_ne!(press(&shop, hosting).await, checkout);
    let id = checkout.rsplit('/').next().unwrap();
    let cart = tea.rsplit('/').next().unwrap();
    let order = sandbox.api().order(id).await;
    assert_eq!((&order["amount"], &order["merchant_order_id"]), (&json!("4.500000"), &json!(cart)), "{order}");
    assert_eq!(order["redirect_url"], format!("{}/orders/{cart}", shop.base));

    let page = shop.get(&format!("/orders/{cart}")).await.expect(200).text();
    assert!(page.contains("Not paid yet: pending") && page.contains(&checkout), "{page}");
    shop.get("/orders/0123").await.expect(404);
    for wrong in ["/buy/car/0123".to_owned(), "/buy/tea/0123".to_owned(), format!("/buy/hosting/{cart}")] {
        shop.request(Method::POST, &wrong).send().await.expect(502);
    }

    // Somebody says that it was paid.
    let body = json!({ "type": "order.paid", "timestamp": "2026-11-26T10:00:00.000Z", "data": order }).to_string();
    let at = now_s().to_string();
    for headers in [
        &[][..],
        &[("webhook-id", "evt_1"), ("webhook-timestamp", at.as_str())],
        &[
            ("webhook-id", "evt_1"),
            ("webhook-timestamp", at.as_str()),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
    ] {
        say(&shop, headers, &body).await.expect(401);
    }
    let page = shop.get(&format!("/orders/{cart}")).await.expect(200).text();
    assert!(page.contains("Not paid yet"), "{page}");

    // What is signed is taken, twice as well; only `order.paid` means paid.
    let secret = secret_bytes(sandbox.text("/webhook_secret")).unwrap();
    let body = body.replace("order.paid", "order.confirming");
    let signed = signature(&secret, "evt_2", at.parse().unwrap(), body.as_bytes());
    for _ in 0..2 {
        say(&shop, &[("webhook-id", "evt_2"), ("webhook-timestamp", &at), ("webhook-signature", &signed)], &body).await.expect(204);
    }
    let page = shop.get(&format!("/orders/{cart}")).await.expect(200).text();
    assert!(page.contains("Not paid yet"), "{page}");

    // The payer chooses a network and pays.
    let payer = sandbox.api().with_key(None);
    payer.post(&format!("/pay/{id}/options"), &json!({ "network": "ethereum" })).await.expect(200);
    sandbox.pay(&order, "ethereum", "exact").await;
    eventually_within(PAID_MAX, "the shop says paid", async || {
        let page = shop.get(&format!("/orders/{cart}")).await.expect(200).text();
        if page.contains("Paid. Thank you!") { Ok(()) } else { Err(page) }
    })
    .await;
    assert_eq!(sandbox.order_is(&order, "paid", Value::Null).await["amount_confirmed"], "4.500000");
    server.abort();
}

/// Presses a button of the shop; where it leads.
async fn press(shop: &Api, action: &str) -> String {
    let answer = shop.request(Method::POST, action).send().await.expect(303);
    answer.header("location").unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

async fn say(shop: &Api, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = shop.request(Method::POST, "/webhooks");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body("application/json", body).send().await
}
