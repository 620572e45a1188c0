//! What the process writes of itself: one JSON object a line, with the request that caused it and what
//! it is about; how much, which can be changed; and what never stands in it.

use std::io::Write as _;

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use crate::gateway::{Home, NETWORK, Settings};
use crate::mail::{MailServer, PASSWORD as MAIL_PASSWORD, USER as MAIL_USER};
use crate::shop::{SHOP_SCOPES, Shop};
use crate::wait::{eventually, now_s, until_clock_passes};

/// What stderr had, a JSON object a line. Whole only once the process has ended.
fn lines(output: &str) -> Vec<Value> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("! "));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn in_json(settings: &mut Settings) {
    settings.env.push(("LOG_FORMAT", "json".to_owned()));
}

/// A home whose chain is never asked.
fn home_with(more: &str) -> Home {
    let mut settings = Settings { more: more.to_owned(), ..Settings::new("http://127.0.0.1:9", [7; 20]) };
    in_json(&mut settings);
    Home::new(&settings)
}

#[tokio::test]
async fn every_line_that_a_request_causes_has_its_id() {
    let mut shop = Shop::open_with(in_json).await;
    let body = json!({ "amount": "12.5", "network": NETWORK });
    let answer = shop.api().post("/api/v1/orders", &body).await.expect(201);
    let (id, order) = (answer.header("x-request-id").unwrap().to_owned(), answer.json());
    let typed = "/api/v1/orders?user_id=typed-into-the-query";
    let listed = shop.api().get(typed).await.expect(200).header("x-request-id").unwrap().to_owned();
    let lost = shop.api().get("/pay-typed-into-the-path").await;
    let problem = lost.problem(404, "not_found");
    shop.gateway.terminate().await;
    let output = shop.gateway.process.output();
    let lines = lines(&output);
    assert!(lines.iter().all(|line| ["timestamp", "level", "target", "message"].iter().all(|name| line[name].is_string())), "{output}");

    let access = |id: &str| {
        let of_it: Vec<&Value> = lines.iter().filter(|line| line["request_id"] == *id && line["message"] == "request").collect();
        assert_eq!(of_it.len(), 1, "one line a request: {of_it:?}");
        let line = of_it[0];
        assert!(line["took_ms"].is_u64() && line["target"] == "tidegate::access" && line["level"] == "INFO", "{line}");
        (line["method"].clone(), line["route"].clone(), line["status"].clone())
    };
    assert_eq!(access(&id), (json!("POST"), json!("/api/v1/orders"), json!(201)));
    assert_eq!(access(&listed), (json!("GET"), json!("/api/v1/orders"), json!(200)));
    assert_eq!(access(problem["request_id"].as_str().unwrap()), (json!("GET"), json!("none"), json!(404)));
    assert!(!output.contains("typed-into"), "what somebody typed into an address is not logged: {output}");
    // A health page is asked for every few seconds.
    assert!(!lines.iter().any(|line| line["route"] == "/health/ready"), "{output}");

    let opened = lines.iter().find(|line| line["message"] == "order opened").unwrap_or_else(|| panic!("{output}"));
    assert_eq!((&opened["order"], &opened["network"]), (&order["id"], &json!(NETWORK)));
    assert_eq!((&opened["span"]["request_id"], &opened["span"]["route"]), (&json!(id), &json!("/api/v1/orders")));
}

#[tokio::test]
async fn what_is_slow_is_a_warning() {
    let home = home_with("[server]\nslow_request = \"1ms\"\n\n[database]\nslow_query = \"1ms\"");
    let key = home.api_key("main", &["admin"]);
    let mut gateway = home.serve().await;
    let api = gateway.api(&key);
    // Somebody else writes to the database for a while, so a write of ours has to wait.
    let mut other = sqlx::SqliteConnection::connect(&home.database_url).await.unwrap();
    let id = eventually("a slow request and a slow statement are told", async || {
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        let api = api.clone();
        let asked = tokio::spawn(async move { api.post("/api/v1/admin/merchants", &json!({ "name": format!("shop {}", now_s()) })).await });
        until_clock_passes(now_s() + 1).await;
        other.execute("COMMIT").await.unwrap();
        let answer = asked.await.unwrap().expect(201);
        let output = gateway.process.output();
        let id = answer.header("x-request-id").unwrap().to_owned();
        let told =
            output.contains("slow statement") && output.lines().any(|line| line.contains(&id) && line.contains("a request was slow"));
        if told { Ok(id) } else { Err(output) }
    })
    .await;
    other.close().await.unwrap();
    gateway.terminate().await;
    let lines = lines(&gateway.process.output());
    let request = lines.iter().find(|line| line["request_id"] == *id && line["message"] == "a request was slow").unwrap();
    assert_eq!((&request["level"], &request["route"]), (&json!("WARN"), &json!("/api/v1/admin/merchants")));
    assert!(request["took_ms"].as_u64() >= Some(1), "{request}");
    assert!(!lines.iter().any(|line| line["request_id"] == *id && line["message"] == "request"), "a slow request has one line too");
    let statement = lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.starts_with("slow statement"))).unwrap();
    assert_eq!(statement["level"], "WARN", "{statement}");
}

#[tokio::test]
async fn the_level_is_changed_while_the_program_runs() {
    let home = home_with("");
    let (key, shop_key) = (home.api_key("main", &["admin"]), home.api_key("main", SHOP_SCOPES));
    let mut gateway = home.serve().await;
    let (admin, shop) = (gateway.api(&key), gateway.api(&shop_key));
    let path = "/api/v1/admin/log-level";
    let put = async |body: Value| admin.request(reqwest::Method::PUT, path).json(&body).send().await;
    assert_eq!(admin.get(path).await.expect(200).json(), json!({ "level": "info", "configured": "info" }));

    for (body, pointer, word) in [
        (json!({ "level": "loud", "reason": "to see" }), "/level", "expected error, warn, info, debug or trace"),
        (json!({ "level": "", "reason": "to see" }), "/level", "expected error, warn, info, debug or trace"),
        (json!({ "level": "info,a[b=debug", "reason": "to see" }), "/level", "expected levels per target"),
        (json!({ "level": format!("{}info", "info,".repeat(200)), "reason": "to see" }), "/level", "at most 500 characters"),
        (json!({ "level": "debug", "reason": " " }), "/reason", "expected 1 to"),
    ] {
        let refused = put(body).await;
        let problem = refused.problem(422, "invalid_request");
        refused.points_at(pointer);
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
    }
    shop.get(path).await.problem(403, "insufficient_scope");
    assert_eq!(admin.get(path).await.json()["level"], "info", "what is refused changes nothing");

    let health = gateway.api("").with_key(None);
    let unseen = health.get("/health/live").await.header("x-request-id").unwrap().to_owned();
    let changed = put(json!({ "level": "Debug", "reason": "following a payment" })).await.expect(200).json();
    assert_eq!(changed, json!({ "level": "debug", "configured": "info" }));
    let seen = health.get("/health/live").await.header("x-request-id").unwrap().to_owned();
    put(json!({ "level": "info,tidegate::access=warn", "reason": "too much" })).await.expect(200);
    let quiet = shop.get("/api/v1/orders").await.header("x-request-id").unwrap().to_owned();

    let rows = admin.all("/api/v1/admin/audit?action=log.level").await;
    let told: Vec<_> = rows.iter().rev().map(|row| (row["reason"].clone(), row["detail"].clone())).collect();
    assert_eq!(
        told,
        [
            (json!("following a payment"), json!({ "from": "info", "to": "debug" })),
            (json!("too much"), json!({ "from": "debug", "to": "info,tidegate::access=warn" })),
        ]
    );
    gateway.terminate().await;
    let lines = lines(&gateway.process.output());
    let has_line = |id: &str| lines.iter().any(|line| line["request_id"] == *id);
    assert_eq!([has_line(&unseen), has_line(&seen), has_line(&quiet)], [false, true, false]);

    let again = home.serve().await;
    assert_eq!(again.api(&key).get(path).await.json(), json!({ "level": "info", "configured": "info" }), "until a restart");
}

#[tokio::test]
async fn nothing_secret_and_nothing_personal_is_logged_at_any_level() {
    const RPC_KEY: &str = "0123456789-key-in-the-path-of-an-endpoint";
    let mail = MailServer::start().await;
    let mut shop = Shop::open_with(|settings| {
        in_json(settings);
        settings.env.extend([("LOG_LEVEL", "trace".to_owned()), ("SMTP_PASSWORD", MAIL_PASSWORD.to_owned())]);
        settings.rpc = format!("{}/?key={RPC_KEY}", settings.rpc);
        settings.more = format!(
            "[notifications]\nevents = [\"order.pending\"]\ncustomers = true\ncustomer_events = [\"order.pending\"]\n\
             [notifications.smtp]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\nusername = \"{MAIL_USER}\"\n\
             from = \"The shop <pay@example.com>\"\nto = [\"busy-8@operator.example\"]\nper_minute = 6000\n",
            mail.port
        );
    })
    .await;
    let admin = shop.gateway.api(&shop.home.api_key("main", &["admin"]));
    let (mail_address, password) = ("owner-of-all@shop.example", "a password that is never logged");
    let file = shop.home.path().join("password");
    std::fs::File::create(&file).unwrap().write_all(password.as_bytes()).unwrap();
    let add = ["user", "add", "--email", mail_address, "--role", "owner", "--password-file", file.to_str().unwrap()];
    shop.home.json(&add);

    // People come in, or do not.
    let log_in = async |email: &str, password: &str| {
        let body = json!({ "email": email, "password": password });
        shop.api().with_key(None).request(reqwest::Method::POST, "/api/v1/auth/login").json(&body).send().await
    };
    let entered = log_in(mail_address, password).await.expect(200);
    let cookie = entered.header("set-cookie").unwrap().split(['=', ';']).nth(1).unwrap().to_owned();
    let csrf = entered.json()["csrf_token"].as_str().unwrap().to_owned();
    log_in("nobody.known@shop.example", "a password with a typing error").await.some_problem(401);
    admin.post("/api/v1/admin/users", &json!({ "email": "new.colleague@shop.example", "role": "viewer" })).await.expect(201);

    // An order with all that a shop may know of its customer, whose mailbox is refused.
    let body = json!({
        "amount": "12.5",
        "user_id": "user-ann-4711",
        "metadata": { "email": "refused@customer.example", "name": "Ann Customer", "street": "12 Nowhere Lane" },
    });
    let order = shop.order_with(&body).await;
    let found = shop.api().get("/api/v1/orders?user_id=user-ann-4711").await.expect(200).json();
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
    let put = json!({ "note": "called Ann at noon" });
    let path = format!("/api/v1/admin/orders/{}", order.id);
    admin.request(reqwest::Method::PUT, &path).json(&put).send().await.expect(200);
    shop.pay(&order, "12.5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
    eventually("both mails were tried", async || {
        let rows = admin.all("/api/v1/admin/notifications").await;
        let tried = rows.iter().filter(|row| row["tries"].as_u64() >= Some(1) && row["error"].is_string()).count();
        if tried >= 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    shop.gateway.terminate().await;
    let output = shop.gateway.process.output();
    for told in ["notification not taken", "alert raised", "TRACE", &order.id] {
        assert!(output.contains(told), "{told} is not in the log, so this test looks in the wrong place");
    }

    let lower = output.to_lowercase();
    let never = [
        ("a user's address", mail_address),
        ("an operator's address", "busy-8@operator"),
        ("the address of somebody unknown", "nobody.known"),
        ("the address of a new user", "new.colleague"),
        ("a customer's address", "refused@"),
        ("a customer's name", "ann customer"),
        ("a customer's street", "nowhere lane"),
        ("a customer's id", "user-ann-4711"),
        ("a note", "ann at noon"),
        ("a password", password),
        ("a mistyped password", "typing error"),
        ("the password of the mail server", MAIL_PASSWORD),
        ("a session", &cookie),
        ("a token against forgery", &csrf),
        ("an API key", &shop.key),
        ("the webhook secret", &shop.merchant.webhook_secret),
        ("the master key", &shop.home.master_key),
        ("an endpoint's key", RPC_KEY),
    ];
    for (what, text) in never {
        let found = lower.lines().find(|line| line.contains(&text.to_lowercase()));
        assert!(found.is_none(), "{what} is logged: {found:?}");
    }
}
