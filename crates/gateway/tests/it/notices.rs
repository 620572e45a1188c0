//! Messages to the operator and to customers: by a real mail server, and by local stand-ins for
//! Telegram and an SMS gateway. What is due is sent, once, whatever ends the process; what is put off
//! is tried again; no channel waits for another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::Api;
use crate::gateway::{Home, Settings};
use crate::mail::{MailServer, PASSWORD, USER};
use crate::operator::{Operator, look, tamper};
use crate::shop::Shop;
use crate::wait::eventually;

const BOT_TOKEN: &str = "4242:bot-token_of-a-test";
const SMS_SECRET: &str = "sms-secret-of-a-test";

/// A request that a stand-in took.
#[derive(Clone, Debug)]
struct Taken {
    at: Instant,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

impl Taken {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A local server that answers everything alike, and keeps it.
struct StandIn {
    url: String,
    taken: Arc<Mutex<Vec<Taken>>>,
    answer: Arc<Mutex<(StatusCode, String)>>,
    server: tokio::task::JoinHandle<()>,
}

impl StandIn {
    async fn start(body: &str) -> Self {
        let (taken, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new((StatusCode::OK, body.to_owned()))));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = (Arc::clone(&taken), Arc::clone(&answer));
        let app = Router::new().fallback(async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let body = String::from_utf8_lossy(&body).into_owned();
            shared.0.lock().unwrap().push(Taken { at: Instant::now(), method, uri, headers, body });
            shared.1.lock().unwrap().clone()
        });
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, taken, answer, server }
    }

    async fn telegram() -> Self {
        Self::start(r#"{"ok":true,"result":{"message_id":1}}"#).await
    }

    fn answers(&self, status: StatusCode, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits for so many requests.
    async fn takes(&self, count: usize) -> Vec<Taken> {
        eventually(&format!("{count} requests"), async || {
            let taken = self.taken();
            if taken.len() >= count { Ok(taken) } else { Err(format!("{taken:?}")) }
        })
        .await
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn smtp(mail: &MailServer, more: &str) -> String {
    format!(
        "[notifications.smtp]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\nusername = \"{USER}\"\n\
         from = \"The shop <pay@example.com>\"\nto = [\"ops@example.com\"]\nper_minute = 6000\n{more}\n",
        mail.port
    )
}

fn telegram(stand_in: &StandIn, per_minute: u32) -> String {
    format!("[notifications.telegram]\nchat_id = \"-100200\"\napi_url = \"{}\"\nper_minute = {per_minute}\n", stand_in.url)
}

fn sms(stand_in: &StandIn) -> String {
    format!(
        "[notifications.sms]\nurl = \"{}/send\"\nheaders = {{ Authorization = \"Bearer {{secret}}\" }}\naccepted = \"queued\"\n\
         to = [\"+49 151 1234567\"]\nper_minute = 6000\n",
        stand_in.url
    )
}

fn secrets() -> Vec<(&'static str, String)> {
    vec![("SMTP_PASSWORD", PASSWORD.into()), ("TELEGRAM_BOT_TOKEN", BOT_TOKEN.into()), ("SMS_SECRET", SMS_SECRET.into())]
}

/// The secrets of these tables, and of no others: of those something would be said.
fn told_by(settings: &mut Settings, tables: &[String]) {
    let text = tables.concat();
    let wants = |name: &str| match name {
        "SMTP_PASSWORD" => text.contains("username = "),
        "TELEGRAM_BOT_TOKEN" => text.contains("[notifications.telegram]"),
        _ => text.contains("{secret}"),
    };
    settings.env = secrets().into_iter().filter(|(name, _)| wants(name)).collect();
    settings.more = text;
}

/// Every message, as the API shows it.
async fn listed(api: &Api, filter: &str) -> Vec<Value> {
    api.all(&format!("/api/v1/admin/notifications?{filter}")).await
}

/// Waits until the messages that a filter finds are as many, and all have this status.
async fn all_are(api: &Api, filter: &str, count: usize, status: &str) -> Vec<Value> {
    eventually(&format!("{count} of {filter} are {status}"), async || {
        let rows = listed(api, filter).await;
        if rows.len() == count && rows.iter().all(|row| row["status"] == status) { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await
}

/// Nothing of what the gateway says or keeps shows a secret.
async fn no_secret_shows(shop: &Shop) {
    let mut seen = shop.gateway.process.output();
    for table in ["payment_notifications", "audit_log", "alerts", "events"] {
        seen.push_str(&look(&shop.home, &format!("SELECT * FROM {table}")).await);
    }
    for secret in [PASSWORD, BOT_TOKEN, SMS_SECRET] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
}

#[tokio::test]
async fn a_paid_order_is_told_on_every_channel_on_sqlite() {
    a_paid_order_is_told_on_every_channel(|_| ()).await;
}

#[tokio::test]
async fn a_paid_order_is_told_on_every_channel_on_postgres() {
    a_paid_order_is_told_on_every_channel(|settings| settings.postgres = true).await;
}

async fn a_paid_order_is_told_on_every_channel(adjust: impl FnOnce(&mut Settings)) {
    let (mail, bot, phones) = (MailServer::start().await, StandIn::telegram().await, StandIn::start(r#"{"state":"queued"}"#).await);
    let shop = Shop::open_with(|settings| {
        adjust(settings);
        let own = "[notifications]\ncustomers = true\nalerts = \"off\"\n".to_owned();
        told_by(settings, &[own, smtp(&mail, ""), telegram(&bot, 6_000), sms(&phones)]);
        settings.env.push(("LOG_LEVEL", "trace,sqlx=warn".to_owned()));
    })
    .await;
    let api = Operator::of(&shop).api(&shop);
    let text = json!({ "subject": "{{metadata.name}}：订单 {{reference}} 已支付", "body": "{{metadata.name}}，谢谢。\n{{amount_confirmed}} {{token}}\n" });
    put(&api, "customer.order.paid/smtp/zh", &text).await.expect(200);

    let order = shop
        .order_with(&json!({ "amount": "12.5", "merchant_order_id": "INV-7",
            "metadata": { "name": "安\r\nBcc: victim@example.com", "email": "ann@example.com", "phone": "+49 (151) 7654321", "language": "zh-CN" } }))
        .await;
    shop.pay(&order, "12.5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;

    // The operator, in English, as the program says it.
    let told = mail.mail_to("ops@example.com").await;
    assert_eq!(told.subject(), "Order INV-7 is paid: 12.5 USDT");
    for line in
        [format!("Order: {}", order.id), "Your number: INV-7".to_owned(), "Settled: 12.5 USDT".to_owned(), "Status: paid".to_owned()]
    {
        assert!(told.text().contains(&line), "{line} is not in {told:?}");
    }
    assert_eq!(told.header("to"), Some("ops@example.com"));
    assert!(told.header("from").unwrap().contains("pay@example.com"), "{told:?}");
    assert_eq!((told.0["user"].as_str(), told.header("auto-submitted")), (Some(USER), Some("auto-generated")));

    // The customer, in Chinese, as the operator wrote it; what the shop passed on stays in its line.
    let thanks = mail.mail_to("ann@example.com").await;
    assert_eq!(thanks.subject(), "安  Bcc: victim@example.com：订单 INV-7 已支付");
    assert_eq!(thanks.text().replace("\r\n", "\n").trim_end(), "安  Bcc: victim@example.com，谢谢。\n12.5 USDT");
    assert_eq!((thanks.header("bcc"), thanks.header("cc")), (None, None));
    assert!(mail.mails().iter().all(|mail| !mail.to().contains(&"victim@example.com")));

    let message = &bot.takes(1).await[0];
    assert_eq!(message.uri.path(), format!("/bot{BOT_TOKEN}/sendMessage"));
    let said = message.json();
    assert_eq!((&said["chat_id"], said.get("parse_mode")), (&json!("-100200"), None));
    assert!(said["text"].as_str().unwrap().starts_with("Order INV-7 is paid: 12.5 USDT\n\n"), "{said}");

    let texts = phones.takes(2).await;
    assert!(texts.iter().all(|text| text.method == Method::POST && text.uri.path() == "/send"));
    assert!(texts.iter().all(|text| text.headers["authorization"] == format!("Bearer {SMS_SECRET}")));
    let to = |number: &str| texts.iter().map(Taken::json).find(|text| text["to"] == number).unwrap_or_else(|| panic!("{texts:?}"));
    assert_eq!(to("+491511234567")["text"], "Order INV-7 is paid: 12.5 USDT");
    let link = shop.get(&order).await["checkout_url"].as_str().unwrap().to_owned();
    assert_eq!(to("+491517654321")["text"], format!("您的订单 INV-7 已支付 {link}"));

    // Five in all, each once, and what is listed of them.
    let rows = all_are(&api, &format!("order_id={}", order.id), 5, "sent").await;
    let shown = |channel: &str, audience: &str| rows.iter().find(|row| row["channel"] == channel && row["audience"] == audience).unwrap();
    let row = shown("smtp", "customer");
    for (member, expected) in [
        ("event", json!("order.paid")),
        ("recipient", json!("ann@example.com")),
        ("language", json!("zh")),
        ("tries", json!(1)),
        ("error", Value::Null),
        ("due_at", Value::Null),
    ] {
        assert_eq!(row[member], expected, "{member} of {row}");
    }
    assert_eq!(shown("telegram", "operator")["recipient"], "-100200");
    assert_eq!(listed(&api, "channel=sms&topic=customer.order.paid&limit=1").await.len(), 1);
    assert_eq!(listed(&api, "status=failed").await.len(), 0);
    for wrong in ["status=lost", "channel=post", "topic=order", "order_id=1", "limit=0", "x=1"] {
        api.get(&format!("/api/v1/admin/notifications?{wrong}")).await.some_problem(422);
    }
    shop.api().get("/api/v1/admin/notifications").await.some_problem(403);
    let id = row["id"].as_str().unwrap();
    api.post(&format!("/api/v1/admin/notifications/{id}/retry"), &json!({})).await.problem(409, "notification_sent");
    no_secret_shows(&shop).await;
    assert_eq!((mail.mails().len(), bot.taken().len(), phones.taken().len()), (2, 1, 2));
}

#[tokio::test]
async fn what_waits_is_sent_after_a_kill_and_what_was_before_is_not_told() {
    let bot = StandIn::telegram().await;
    let mut shop = Shop::open().await;
    let before = shop.order("1").await;
    shop.gateway.kill();

    // One a minute: the first goes, the others wait.
    let configure = |shop: &Shop, per_minute| {
        let mut settings = Settings::new(&shop.anvil.url, shop.tokens.usdt);
        told_by(
            &mut settings,
            &["[notifications]\nevents = [\"order.pending\"]\nalerts = \"off\"\n".to_owned(), telegram(&bot, per_minute)],
        );
        shop.home.configure(&settings.toml());
        settings.env
    };
    shop.home.env = configure(&shop, 1);
    shop.start_again().await;
    let api = Operator::of(&shop).api(&shop);
    eventually("the beginning is marked", async || {
        let mark = look(&shop.home, "SELECT seq FROM notice_mark").await;
        if mark.is_empty() { Err(mark) } else { Ok(()) }
    })
    .await;
    let orders = [shop.order("2").await, shop.order("3").await, shop.order("4").await];
    bot.takes(1).await;
    all_are(&api, "status=due", 2, "due").await;
    all_are(&api, "status=sent", 1, "sent").await;
    shop.gateway.kill();
    assert_eq!(bot.taken().len(), 1);

    shop.home.env = configure(&shop, 6_000);
    shop.start_again().await;
    let api = Operator::of(&shop).api(&shop);
    all_are(&api, "", 3, "sent").await;
    let texts: Vec<String> = bot.taken().iter().map(|taken| taken.json()["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts.len(), 3, "each once: {texts:?}");
    for (text, order) in texts.iter().zip(&orders) {
        assert!(text.contains(&order.id), "in their order: {texts:?}");
    }
    assert!(!texts.iter().any(|text| text.contains(&before.id)), "{texts:?}");
}

#[tokio::test]
async fn what_is_put_off_is_tried_again_and_a_wrong_address_is_not() {
    let mail = MailServer::start().await;
    let shop = Shop::open_with(|settings| {
        let own = "[notifications]\nevents = [\"order.pending\"]\ncustomers = true\ncustomer_events = [\"order.pending\"]\n".to_owned();
        let table = smtp(&mail, "").replace("ops@example.com", "busy-1@example.com");
        told_by(settings, &[own, table]);
    })
    .await;
    let operator = Operator::of(&shop);
    let api = operator.api(&shop);
    let order = shop.order_with(&json!({ "amount": "5", "metadata": { "email": "refused@example.com" } })).await;

    let filter = format!("order_id={}&topic=order.pending", order.id);
    let row = eventually("it was put off", async || {
        let rows = listed(&api, &filter).await;
        rows.iter().find(|row| row["tries"] == 1).cloned().ok_or_else(|| format!("{rows:?}"))
    })
    .await;
    assert_eq!(row["status"], "due");
    assert!(row["error"].as_str().unwrap().contains("Busy, come back later"), "{row}");
    let (tried, due) =
        (crate::shop::seconds(row["last_tried_at"].as_str().unwrap()), crate::shop::seconds(row["due_at"].as_str().unwrap()));
    assert!((59..=61).contains(&(due - tried)), "{row}");
    assert!(mail.mails().is_empty());

    // The minute passes.
    tamper(&shop.home, "UPDATE payment_notifications SET due_at = due_at - 60000 WHERE status = 'due'").await;
    let row = all_are(&api, &filter, 1, "sent").await.remove(0);
    assert_eq!((&row["tries"], &row["error"]), (&json!(2), &Value::Null), "{row}");
    assert_eq!(mail.mail_to("busy-1@example.com").await.subject(), format!("New order {}: 5 USDT", order.id));

    // Who has no mailbox gets no second try, and the operator is not woken for it.
    let refused = all_are(&api, &format!("order_id={}&topic=customer.order.pending", order.id), 1, "failed").await.remove(0);
    assert_eq!(refused["tries"], 1, "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("No such mailbox here"), "{refused}");
    assert!(operator.alerts(&shop, "notification_failed").await.is_empty());

    // Unless a person wants one.
    let id = refused["id"].as_str().unwrap();
    let again = api.post(&format!("/api/v1/admin/notifications/{id}/retry"), &json!({})).await.expect(200).json();
    assert_eq!((&again["status"], &again["tries"]), (&json!("due"), &json!(0)));
    all_are(&api, "topic=customer.order.pending", 1, "failed").await;
    let audit = api.all("/api/v1/admin/audit?action=notification.retry").await;
    assert_eq!((audit.len(), &audit[0]["subject"]), (1, &json!(id)));
    api.post("/api/v1/admin/notifications/ntf_1/retry", &json!({})).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_dead_mail_server_delays_nobody_and_is_told_by_another_channel() {
    let bot = StandIn::telegram().await;
    // Takes connections and says nothing.
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = dead.local_addr().unwrap().port();
    let shop = Shop::open_with(|settings| {
        let own = "[notifications]\nevents = [\"order.pending\"]\n".to_owned();
        let table = format!("[notifications.smtp]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"none\"\nfrom = \"a@example.com\"\nto = [\"ops@example.com\"]\n");
        told_by(settings, &[own, table, telegram(&bot, 6_000)]);
    })
    .await;
    let api = Operator::of(&shop).api(&shop);
    let orders = [shop.order("1").await, shop.order("2").await, shop.order("3").await];
    let taken = bot.takes(3).await;
    assert!(taken.iter().zip(&orders).all(|(taken, order)| taken.body.contains(&order.id)), "{taken:?}");
    let waiting = listed(&api, "channel=smtp").await;
    assert!(waiting.len() == 3 && waiting.iter().all(|row| row["status"] == "due"), "{waiting:?}");

    // Its last try fails, too: the operator hears of it where something is heard.
    drop(dead);
    let last = "UPDATE payment_notifications SET tries = 5, due_at = last_tried_at WHERE channel = 'smtp' AND status = 'due' AND last_tried_at > 0";
    eventually("Telegram tells that mail fails", async || {
        tamper(&shop.home, last).await;
        let taken = bot.taken();
        let told = taken.iter().any(|taken| taken.body.contains("notification_failed") && taken.body.contains("smtp"));
        if told { Ok(()) } else { Err(format!("{taken:?}")) }
    })
    .await;
    let failed = listed(&api, "channel=smtp&topic=wallet.alert").await;
    assert!(failed.is_empty(), "a channel is not told by itself that it fails: {failed:?}");
}

#[tokio::test]
async fn a_channel_sends_no_faster_than_it_may() {
    let bot = StandIn::telegram().await;
    let shop = Shop::open_with(|settings| {
        told_by(settings, &["[notifications]\nevents = [\"order.pending\"]\n".to_owned(), telegram(&bot, 60)]);
    })
    .await;
    for amount in ["1", "2", "3", "4"] {
        shop.order(amount).await;
    }
    let taken = bot.takes(4).await;
    // Three pauses of a second. How long each request took on its way is not the same.
    let took = taken[3].at - taken[0].at;
    assert!(took > Duration::from_millis(2_500), "four in {took:?}, with 60 a minute");
    // A test is one of them.
    let api = Operator::of(&shop).api(&shop);
    let busy = eventually("a test comes too soon", async || {
        let answer = api.post("/api/v1/admin/notifications/test", &json!({ "channel": "telegram" })).await;
        if answer.status == 429 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    busy.problem(429, "rate_limited");
    assert!(busy.header("retry-after").is_some(), "{busy:?}");
}

#[tokio::test]
async fn a_channel_is_tried_by_hand_and_says_what_is_wrong() {
    let (mail, bot) = (MailServer::start().await, StandIn::telegram().await);
    let mut shop = Shop::open_with(|settings| told_by(settings, &[smtp(&mail, ""), telegram(&bot, 6_000)])).await;
    let api = Operator::of(&shop).api(&shop);
    let call = "/api/v1/admin/notifications/test";
    let tested = api.post(call, &json!({ "channel": "smtp" })).await.expect(200).json();
    assert_eq!(tested, json!({ "channel": "smtp", "to": "ops@example.com", "ok": true, "detail": null }));
    assert_eq!(mail.mail_to("ops@example.com").await.subject(), "Tidegate: this is a test");
    let refused = api.post(call, &json!({ "channel": "smtp", "to": "refused@example.com" })).await.expect(200).json();
    assert_eq!(refused["ok"], false);
    assert!(refused["detail"].as_str().unwrap().contains("No such mailbox here"), "{refused}");
    bot.answers(StatusCode::UNAUTHORIZED, &format!(r#"{{"ok":false,"error_code":401,"description":"Unauthorized: {BOT_TOKEN}"}}"#));
    let refused = api.post(call, &json!({ "channel": "telegram" })).await.expect(200).json();
    assert_eq!((&refused["ok"], &refused["detail"]), (&json!(false), &json!("Telegram answered 401 Unauthorized: Unauthorized: …")));

    api.post(call, &json!({ "channel": "sms" })).await.problem(409, "channel_not_configured");
    for (body, pointer) in [
        (json!({ "channel": "post" }), "/channel"),
        (json!({ "channel": "smtp", "to": "nobody" }), "/to"),
        (json!({ "channel": "smtp", "to": "a@example.com\nBcc: b@example.com" }), "/to"),
        (json!({ "channel": "telegram", "to": "me" }), "/to"),
        (json!({}), "/channel"),
    ] {
        let answer = api.post(call, &body).await;
        answer.problem(422, "invalid_request");
        answer.points_at(pointer);
    }
    shop.api().post(call, &json!({ "channel": "smtp" })).await.some_problem(403);
    let audit = api.all("/api/v1/admin/audit?action=notification.test").await;
    assert_eq!((audit.len(), &audit[0]["subject"], &audit[2]["detail"]["ok"]), (3, &json!("telegram"), &json!(true)));

    // The same from the shell.
    let done = shop.home.json(&["notify", "test", "--channel", "smtp", "--to", "me@example.com"]);
    assert_eq!(done, json!({ "ok": true, "channel": "smtp", "to": "me@example.com", "detail": null }));
    mail.mail_to("me@example.com").await;

    // A wrong password is told, and not shown.
    shop.home.env = vec![("SMTP_PASSWORD", "hunter2 hunter2".to_owned()), ("TELEGRAM_BOT_TOKEN", BOT_TOKEN.to_owned())];
    let done = shop.home.run(&["notify", "test", "--channel", "smtp"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("535") && done.stderr.contains("Authentication credentials invalid"), "{done:?}");
    assert!(!done.output().contains("hunter2"), "{done:?}");
    no_secret_shows(&shop).await;
}

/// A request to the SMS gateway for each way of asking it, and what it says when it took none.
#[tokio::test(flavor = "multi_thread")]
async fn an_sms_gateway_is_asked_as_it_is_configured() {
    let phones = StandIn::start("").await;
    let settings = Settings::new("http://127.0.0.1:9", [7; 20]);
    let mut home = Home::new(&settings);
    home.env = vec![("SMS_SECRET", SMS_SECRET.to_owned())];
    let json = r#"body = '{"m":{"to":"{to}","t":"{text}"},"key":"{secret}"}'"#;
    // What is configured beside the address; the gateway's answer; method, address, type and the
    // beginning of the body; what is said.
    let table = [
        (
            "?to={to}&t={text}&k={secret}",
            "method = 'GET'",
            "ok",
            "GET /send?to=%2B4915112345678&t=Tidegate%3A%20this%20is%20a%20test&k=S - ",
            "",
        ),
        ("", json, "ok", r#"POST /send application/json {"m":{"to":"+4915112345678","t":"Tidegate: this is a test"},"key":"S"}"#, ""),
        (
            "?k={secret}",
            "body = 'to={to}&text={text}'",
            "ok",
            "POST /send?k=S application/x-www-form-urlencoded to=%2B4915112345678&text=Tidegate%3A%20this%20is%20a%20test",
            "",
        ),
        (
            "",
            "body = '<sms to=\"{to}\" key=\"{secret}\">{text}</sms>'",
            "ok",
            "POST /send application/xml <sms to=\"+4915112345678\" key=\"S\">Tidegate",
            "",
        ),
        (
            "",
            "body = '{to} {text}'\nheaders = { Content-Type = 'text/plain', X-Key = '{secret}' }",
            "ok",
            "POST /send text/plain +4915112345678 Tidegate: this is a test",
            "",
        ),
        (
            "?{secret}",
            "accepted = 'queued'",
            "no credit left for S",
            "POST /send?S application/json ",
            "the SMS gateway answered 200 OK: no credit left for …",
        ),
    ];
    for (number, (query, lines, answer, asked, said)) in table.into_iter().enumerate() {
        let full = |text: &str| {
            text.replace("=S", &format!("={SMS_SECRET}"))
                .replace("?S ", &format!("?{SMS_SECRET} "))
                .replace("\"S\"", &format!("\"{SMS_SECRET}\""))
        };
        home.configure(&format!("{}[notifications.sms]\nurl = '{}/send{query}'\n{lines}\n", settings.toml(), phones.url));
        phones.answers(StatusCode::OK, &answer.replace(" S", &format!(" {SMS_SECRET}")));
        let done = home.run(&["notify", "test", "--channel", "sms", "--to", "+49 151 12345678"]);
        assert_eq!((done.code, done.stderr.contains(said)), (Some(i32::from(!said.is_empty())), true), "{lines}: {done:?}");
        assert!(!done.output().contains(SMS_SECRET), "{done:?}");
        let taken = phones.takes(number + 1).await[number].clone();
        let kind = taken.headers.get("content-type").map_or("-", |kind| kind.to_str().unwrap());
        let found = format!("{} {} {kind} {}", taken.method, taken.uri, taken.body);
        assert!(found.starts_with(&full(asked)), "{lines}: {found}");
    }
    // Out of order.
    phones.answers(StatusCode::BAD_GATEWAY, "<h1>later</h1>");
    let done = home.run(&["notify", "test", "--channel", "sms", "--to", "+49 151 12345678"]);
    assert!(done.code == Some(1) && done.stderr.contains("502 Bad Gateway: <h1>later</h1>"), "{done:?}");
    let done = home.run(&["notify", "test", "--channel", "sms"]);
    assert!(done.code == Some(1) && done.stderr.contains("names no operator in `to`"), "{done:?}");
}

#[tokio::test]
async fn telegram_says_when_to_come_back() {
    let bot = StandIn::telegram().await;
    let shop = Shop::open_with(|settings| {
        told_by(settings, &["[notifications]\nevents = [\"order.pending\"]\n".to_owned(), telegram(&bot, 6_000)]);
    })
    .await;
    let api = Operator::of(&shop).api(&shop);
    let answer = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 90","parameters":{"retry_after":90}}"#;
    bot.answers(StatusCode::TOO_MANY_REQUESTS, answer);
    shop.order("1").await;
    let row = eventually("it was put off", async || {
        let rows = listed(&api, "status=due").await;
        rows.iter().find(|row| row["tries"] == 1).cloned().ok_or_else(|| format!("{rows:?}"))
    })
    .await;
    assert_eq!(row["error"], "Telegram answered 429 Too Many Requests: Too Many Requests: retry after 90");
    let (tried, due) =
        (crate::shop::seconds(row["last_tried_at"].as_str().unwrap()), crate::shop::seconds(row["due_at"].as_str().unwrap()));
    assert!((89..=91).contains(&(due - tried)), "{row}");
}

#[tokio::test]
async fn mail_is_sent_over_tls_to_a_server_that_can_be_told() {
    let keys = tempfile::tempdir().unwrap();
    let (key, cert) = (keys.path().join("key.pem"), keys.path().join("cert.pem"));
    let openssl =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    let made = std::process::Command::new("openssl")
        .args(openssl)
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let (key, cert) = (key.to_str().unwrap(), cert.to_str().unwrap());
    let shop = Shop::open().await;
    let mut home = shop.home;
    for (security, tls) in [("starttls", "0"), ("tls", "1")] {
        let mail = MailServer::with(&[("MAIL_KEY", key), ("MAIL_CERT", cert), ("MAIL_TLS", tls)]).await;
        let mut settings = Settings::new(&shop.anvil.url, shop.tokens.usdt);
        settings.more = format!(
            "[notifications.smtp]\nhost = \"localhost\"\nport = {}\nsecurity = \"{security}\"\nfrom = \"a@example.com\"\nto = [\"ops@example.com\"]\n",
            mail.port
        );
        home.configure(&settings.toml());
        // Nobody vouches for it.
        home.env = Vec::new();
        let done = home.run(&["notify", "test", "--channel", "smtp"]);
        assert_eq!(done.code, Some(1), "{security}: {done:?}");
        assert!(done.stderr.to_lowercase().contains("certificate"), "{security}: {done:?}");
        assert!(mail.mails().is_empty(), "{security}");
        home.env = vec![("SSL_CERT_FILE", cert.to_owned())];
        home.run(&["notify", "test", "--channel", "smtp"]).succeeded();
        assert_eq!(mail.mail_to("ops@example.com").await.0["secure"], true, "{security}");
    }
    // Where the server offers none, nothing is said in the open.
    let open = MailServer::with(&[]).await;
    let mut settings = Settings::new(&shop.anvil.url, shop.tokens.usdt);
    settings.more = format!(
        "[notifications.smtp]\nhost = \"localhost\"\nport = {}\nsecurity = \"starttls\"\nfrom = \"a@example.com\"\nto = [\"ops@example.com\"]\n",
        open.port
    );
    home.configure(&settings.toml());
    assert_eq!(home.run(&["notify", "test", "--channel", "smtp"]).code, Some(1));
    assert!(open.mails().is_empty());
}

async fn put(api: &Api, which: &str, text: &Value) -> crate::api::Answer {
    api.request(Method::PUT, &format!("/api/v1/admin/notification-templates/{which}")).json(text).send().await
}

#[tokio::test]
async fn texts_are_listed_changed_looked_at_and_taken_back() {
    let shop = Shop::open().await;
    let api = Operator::of(&shop).api(&shop);
    let list = "/api/v1/admin/notification-templates";
    let all = api.get(list).await.expect(200).json();
    let all = all["data"].as_array().unwrap();
    let of = |all: &[Value], event: &str, channel: &str, language: &str| {
        all.iter().find(|one| one["event"] == event && one["channel"] == channel && one["language"] == language).cloned()
    };
    let brought = of(all, "order.paid", "smtp", "en").unwrap();
    assert_eq!(
        (&brought["subject"], &brought["is_default"]),
        (&json!("Order {{reference}} is paid: {{amount_confirmed}} {{token}}"), &json!(true))
    );
    assert!(of(all, "customer.order.paid", "sms", "zh").is_some() && of(all, "customer.order.paid", "telegram", "en").is_none());
    assert!(of(all, "digest", "telegram", "zh").unwrap()["placeholders"].as_array().unwrap().contains(&json!("orders_paid")));

    // Looked at first.
    let preview = format!("{list}/preview");
    let shown = api
        .post(&preview, &json!({ "event": "customer.order.paid", "channel": "smtp", "subject": "{{reference}}", "body": "Hi {{metadata.name}},\r\n{{amount}}" }))
        .await
        .expect(200)
        .json();
    assert_eq!(shown, json!({ "subject": "INV-1001", "body": "Hi Ann,\n12.5" }));

    // What is wrong is named, with what is known, and changes nothing.
    let wrong = api.post(&preview, &json!({ "event": "order.paid", "channel": "sms", "body": "{{order_di}}" })).await;
    let problem = wrong.problem(422, "invalid_request");
    wrong.points_at("/body");
    let detail = problem["detail"].as_str().unwrap();
    for word in ["{{order_di}} is not known", "did you mean order_id?", "checkout_url", "metadata.NAME"] {
        assert!(detail.contains(word), "{word} is not in {detail}");
    }
    for (which, text, pointer) in [
        ("order.paid/smtp/en", json!({ "subject": "{{nobody}}", "body": "x" }), "/subject"),
        ("order.paid/smtp/en", json!({ "subject": "a\nb", "body": "x" }), "/subject"),
        ("order.paid/smtp/en", json!({ "body": "x" }), "/subject"),
        ("order.paid/sms/en", json!({ "subject": "x", "body": "x" }), "/subject"),
        ("order.paid/sms/en", json!({ "body": "{{#if}}" }), "/body"),
        ("order.paid/sms/en", json!({ "body": "{{order_id" }), "/body"),
        ("order.paid/sms/en", json!({ "body": "" }), "/body"),
        ("order.paid/sms/en", json!({ "text": "x" }), "/text"),
    ] {
        let answer = put(&api, which, &text).await;
        answer.problem(422, "invalid_request");
        answer.points_at(pointer);
    }
    for nowhere in ["order.pad/smtp/en", "order.paid/post/en", "order.paid/smtp/de", "customer.order.paid/telegram/en"] {
        put(&api, nowhere, &json!({ "subject": "x", "body": "x" })).await.problem(404, "not_found");
    }
    assert_eq!(of(api.get(list).await.json()["data"].as_array().unwrap(), "order.paid", "smtp", "en"), Some(brought.clone()));

    let changed =
        put(&api, "order.paid/smtp/en", &json!({ "subject": "Paid {{amount}}", "body": "{{order_id}}" })).await.expect(200).json();
    assert_eq!((&changed["subject"], &changed["is_default"]), (&json!("Paid {{amount}}"), &json!(false)));
    put(&api, "order.paid/smtp/en", &json!({ "subject": "Paid", "body": "{{order_id}}" })).await.expect(200);
    let back = api.request(Method::DELETE, &format!("{list}/order.paid/smtp/en")).send().await.expect(200).json();
    assert_eq!(back, brought);
    let audit = api.all("/api/v1/admin/audit?subject=order.paid/smtp/en").await;
    let actions: Vec<&str> = audit.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["notification_template.delete", "notification_template.put", "notification_template.put"]);
    assert_eq!(audit[1]["detail"]["before"]["subject"], "Paid {{amount}}");

    let shops = shop.api();
    shops.get(list).await.some_problem(403);
    shops.post(&preview, &json!({ "event": "order.paid", "channel": "sms", "body": "x" })).await.some_problem(403);
    put(&shops, "order.paid/sms/en", &json!({ "body": "x" })).await.some_problem(403);
    shops.request(Method::DELETE, &format!("{list}/order.paid/sms/en")).send().await.some_problem(403);
}

#[tokio::test]
async fn alerts_and_digests_are_told_to_the_operator() {
    let bot = StandIn::telegram().await;
    let shop = Shop::open_with(|settings| {
        let own = "[notifications]\nlanguage = \"zh\"\nevents = []\ndigest = \"daily\"\ndigest_at = \"00:00\"\n".to_owned();
        told_by(settings, &[own, telegram(&bot, 6_000)]);
    })
    .await;
    let operator = Operator::of(&shop);
    let order = shop.order("5").await;
    shop.api().post(&format!("/api/v1/orders/{}/cancel", order.id), &json!({})).await.expect(200);
    shop.pay(&order, "5").await;
    shop.anvil.mine(3).await;
    let alert = operator.alert(&shop, "late_money", "").await;
    let text = bot.takes(1).await[0].json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("[warning] late_money：") && text.contains(alert["id"].as_str().unwrap()), "{text}");

    // What a person does with it is no news to them.
    let id = alert["id"].as_str().unwrap();
    operator.api(&shop).post(&format!("/api/v1/admin/alerts/{id}/close"), &json!({})).await.expect(200);

    // Three midnights ago the last one ended.
    tamper(&shop.home, "UPDATE notice_mark SET digest_until = digest_until - 259200000").await;
    let text = bot.takes(2).await[1].json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("Tidegate：已支付 0 笔，共 0 USDT") && text.contains("未处理告警：0"), "{text}");
    let digests = all_are(&operator.api(&shop), "topic=digest", 1, "sent").await;
    assert_eq!((&digests[0]["order_id"], &digests[0]["event_id"]), (&Value::Null, &Value::Null));
}
