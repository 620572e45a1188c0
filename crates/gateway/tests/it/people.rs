//! People and keys, and how much is answered: log-in, second factors, roles, API keys with their
//! limits, webhook secrets that change, and what happens when too much is asked.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_rules::time::Time;
use tidegate_rules::totp;
use tokio::io::AsyncWriteExt as _;

use crate::api::{Answer, Api};
use crate::gateway::{Gateway, Home, NETWORK, Settings};
use crate::receiver::Receiver;
use crate::wait::{eventually, eventually_within, now_s, until_clock_passes};

const PASSWORD: &str = "correct horse battery staple";

/// A home whose chain is never asked: nothing here depends on blocks.
fn home() -> Home {
    home_with("")
}

fn home_with(more: &str) -> Home {
    Home::new(&Settings { more: more.to_owned(), ..Settings::new("http://127.0.0.1:9", [7; 20]) })
}

/// Adds somebody with the password of these tests.
fn add(home: &Home, email: &str, role: &str) -> Value {
    let file = home.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    home.json(&["user", "add", "--email", email, "--role", role, "--password-file", file.to_str().unwrap()])
}

/// Somebody who is logged in, as a browser is: a cookie and the token beside it.
#[derive(Clone)]
struct Browser {
    api: Api,
    cookie: String,
    csrf: String,
}

async fn try_log_in(gateway: &Gateway, body: &Value) -> Answer {
    gateway.api("").with_key(None).request(Method::POST, "/api/v1/auth/login").header("user-agent", "a browser").json(body).send().await
}

impl Browser {
    async fn log_in(gateway: &Gateway, email: &str) -> Self {
        Self::of(gateway, &try_log_in(gateway, &json!({ "email": email, "password": PASSWORD })).await.expect(200))
    }

    fn of(gateway: &Gateway, answer: &Answer) -> Self {
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let csrf = answer.json()["csrf_token"].as_str().unwrap().to_owned();
        Self { api: gateway.api("").with_key(None), cookie, csrf }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, totp: Option<&str>) -> Answer {
        let mut request = self.api.request(method, path).header("cookie", &self.cookie).header("x-csrf-token", &self.csrf);
        if let Some(code) = totp {
            request = request.header("x-totp", code);
        }
        match body {
            Some(body) => request.json(body).send().await,
            None => request.send().await,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, Some(body), None).await
    }
}

/// An authenticator app.
struct App {
    secret: Vec<u8>,
}

impl App {
    /// Reads the secret as a person types it.
    fn of(base32: &str) -> Self {
        let bits: String =
            base32.bytes().map(|letter| format!("{:05b}", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(char::from(letter)).unwrap())).collect();
        let bytes = bits.as_bytes().chunks_exact(8);
        Self { secret: bytes.map(|bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap()).collect() }
    }

    /// The code of a step, counted from now. Waits for the beginning of a step first, so that three
    /// of them stay good for a while.
    async fn codes(&self) -> [String; 3] {
        if now_s() % totp::STEP_S > 12 {
            until_clock_passes(now_s() - now_s() % totp::STEP_S + totp::STEP_S - 1).await;
        }
        let current = totp::step(Time::from_secs(i64::try_from(now_s()).unwrap()));
        [current - 1, current, current + 1].map(|step| totp::code(&self.secret, step))
    }
}

/// What the audit log says, oldest first.
async fn audit(admin: &Api, action: &str) -> Vec<Value> {
    let mut rows = admin.all(&format!("/api/v1/admin/audit?action={action}")).await;
    rows.reverse();
    rows
}

#[tokio::test]
async fn somebody_logs_in_looks_around_and_goes() {
    let home = home();
    let added = add(&home, " Owner@Shop.Example", "owner");
    assert_eq!((&added["email"], &added["role"], added.get("password")), (&json!("owner@shop.example"), &json!("owner"), None), "{added}");
    let made = home.json(&["user", "add", "--email", "viewer@shop.example", "--role", "viewer"]);
    assert!(made["password"].as_str().is_some_and(|made| made.len() >= 20), "{made}");
    assert_eq!(home.json(&["user", "list"])["data"].as_array().unwrap().len(), 2);
    let admin = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;

    let wrong = json!({ "email": "owner@shop.example", "password": "not this one at all" });
    let refused = try_log_in(&gateway, &wrong).await.problem(401, "invalid_credentials");
    let nobody = try_log_in(&gateway, &json!({ "email": "nobody@shop.example", "password": PASSWORD })).await;
    assert_eq!(nobody.problem(401, "invalid_credentials")["detail"], refused["detail"], "both are told the same");
    try_log_in(&gateway, &json!({ "email": "owner@shop.example", "password": 7 })).await.points_at("/password");

    let answer = try_log_in(&gateway, &json!({ "email": "OWNER@shop.example", "password": PASSWORD })).await.expect(200);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-tidegate="), "{cookie}");
    for part in ["Path=/", "HttpOnly", "SameSite=Strict", "Secure", "Max-Age=43200"] {
        assert!(cookie.split("; ").any(|found| found == part), "{part}: {cookie}");
    }
    let owner = Browser::of(&gateway, &answer);
    let said = owner.get("/api/v1/auth/session").await.expect(200).json();
    assert_eq!((&said["user"]["id"], &said["csrf_token"]), (&added["id"], &json!(owner.csrf)), "{said}");
    assert_eq!(said["user"]["second_factor"], false);
    owner.get("/api/v1/admin/wallets").await.expect(200);
    owner.get("/api/v1/networks").await.expect(200);
    owner.get("/api/v1/orders").await.problem(403, "needs_api_key");

    // Another site has the cookie sent, and no token.
    let change = owner.api.request(Method::POST, "/api/v1/auth/logout").header("cookie", &owner.cookie);
    change.send().await.problem(403, "csrf_token_required");
    let change = owner.api.request(Method::POST, "/api/v1/auth/logout").header("cookie", &owner.cookie).header("x-csrf-token", "00");
    change.send().await.problem(403, "csrf_token_required");

    let second = Browser::log_in(&gateway, "owner@shop.example").await;
    let sessions = owner.get("/api/v1/auth/sessions").await.expect(200).json();
    let current: Vec<bool> = sessions["data"].as_array().unwrap().iter().map(|one| one["current"].as_bool().unwrap()).collect();
    assert_eq!(current, [false, true], "{sessions}");
    assert_eq!((&sessions["data"][0]["user_agent"], &sessions["data"][0]["address"]), (&json!("a browser"), &json!("127.0.0.1")));
    let other = format!("/api/v1/auth/sessions/{}", sessions["data"][0]["id"].as_str().unwrap());
    let viewer = try_log_in(&gateway, &json!({ "email": "viewer@shop.example", "password": made["password"] })).await.expect(200);
    let viewer = Browser::of(&gateway, &viewer);
    viewer.ask(Method::DELETE, &other, None, None).await.problem(404, "not_found");
    owner.ask(Method::DELETE, &other, None, None).await.expect(204);
    second.get("/api/v1/auth/session").await.problem(401, "unauthorized");
    owner.get("/api/v1/auth/session").await.expect(200);

    // Another password ends every other session.
    let third = Browser::log_in(&gateway, "owner@shop.example").await;
    let new = "another horse battery staple";
    owner.post("/api/v1/auth/password", &json!({ "old": "wrong", "new": new })).await.problem(403, "wrong_password");
    owner.post("/api/v1/auth/password", &json!({ "old": PASSWORD, "new": "short" })).await.points_at("/new");
    owner.post("/api/v1/auth/password", &json!({ "old": PASSWORD, "new": new })).await.expect(204);
    third.get("/api/v1/auth/session").await.problem(401, "unauthorized");
    try_log_in(&gateway, &json!({ "email": "owner@shop.example", "password": PASSWORD })).await.problem(401, "invalid_credentials");

    let gone = owner.post("/api/v1/auth/logout", &json!({})).await.expect(204);
    assert!(gone.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")), "{gone:?}");
    owner.get("/api/v1/auth/session").await.problem(401, "unauthorized");

    let admin = gateway.api(&admin);
    admin.get("/api/v1/auth/session").await.problem(403, "needs_session");
    let failed = audit(&admin, "user.login_failed").await;
    let subjects: Vec<&str> = failed.iter().map(|row| row["subject"].as_str().unwrap()).collect();
    let id = added["id"].as_str().unwrap();
    assert_eq!(subjects, [id, "unknown", id], "{failed:?}");
    assert_eq!(audit(&admin, "user.login").await.len(), 4);
    assert_eq!(audit(&admin, "user.password").await[0]["actor"], added["id"]);
    let log = gateway.process.output();
    for secret in [PASSWORD, new, &owner.csrf, owner.cookie.split_once('=').unwrap().1, made["password"].as_str().unwrap()] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn wrong_passwords_are_slowed_down_and_lock_nobody_else_out() {
    let home = home();
    add(&home, "owner@shop.example", "owner");
    add(&home, "viewer@shop.example", "viewer");
    let gateway = home.serve().await;
    let wrong = json!({ "email": "owner@shop.example", "password": "guess after guess after guess" });
    let mut tries = 0;
    let refused = loop {
        let answer = try_log_in(&gateway, &wrong).await;
        if answer.status == 429 {
            break answer;
        }
        answer.problem(401, "invalid_credentials");
        tries += 1;
        assert!(tries < 20, "nobody stops the guesser");
    };
    refused.problem(429, "rate_limited");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{refused:?}");
    try_log_in(&gateway, &json!({ "email": "Owner@shop.example ", "password": PASSWORD })).await.problem(429, "rate_limited");
    Browser::log_in(&gateway, "viewer@shop.example").await;
    // It is over by itself.
    eventually_within(Duration::from_secs(60), "the owner comes in again", async || {
        let answer = try_log_in(&gateway, &json!({ "email": "owner@shop.example", "password": PASSWORD })).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status) }
    })
    .await;
}

/// The most memory that a process ever had, in KiB.
fn memory_peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_burst_of_log_ins_takes_the_memory_of_four() {
    let home = home();
    let gateway = home.serve().await;
    let before = memory_peak_kib(gateway.process.id());
    let guesses = (0..60).map(|n| {
        let body = json!({ "email": format!("somebody{n}@shop.example"), "password": PASSWORD });
        let gateway = &gateway;
        async move { try_log_in(gateway, &body).await.status }
    });
    let answers = futures_util::future::join_all(guesses).await;
    let count = |status| answers.iter().filter(|found| **found == status).count();
    assert!(count(401) >= 30 && count(401) + count(429) == 60 && count(429) > 0, "{answers:?}");
    let grown = memory_peak_kib(gateway.process.id()) - before;
    assert!(grown < 4 * 19_456 + 40_000, "{grown} KiB more for thirty passwords");
}

#[tokio::test]
async fn a_second_factor_is_needed_and_good_once() {
    let mut home = home();
    let id = add(&home, "owner@shop.example", "owner")["id"].as_str().unwrap().to_owned();
    let admin = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let owner = Browser::log_in(&gateway, "owner@shop.example").await;
    let (users, friend) = ("/api/v1/admin/users", json!({ "email": "friend@shop.example", "role": "support" }));
    let told = owner.post(users, &friend).await.problem(403, "second_factor_required");
    assert!(told["detail"].as_str().unwrap().contains("/api/v1/auth/totp"), "{told}");

    owner.post("/api/v1/auth/totp/confirm", &json!({ "code": "123456" })).await.problem(409, "totp_not_offered");
    let offer = owner.post("/api/v1/auth/totp", &json!({})).await.expect(200).json();
    let secret = offer["secret"].as_str().unwrap();
    assert_eq!(secret.len(), 32, "{offer}");
    let uri = format!("otpauth://totp/Tidegate:owner%40shop.example?secret={secret}&issuer=Tidegate");
    assert_eq!(offer["otpauth_uri"], json!(uri));
    let app = App::of(secret);
    let elsewhere = Browser::log_in(&gateway, "owner@shop.example").await;
    let [before, now, after] = app.codes().await;
    owner.post("/api/v1/auth/totp/confirm", &json!({ "code": "000000" })).await.problem(403, "second_factor_invalid");
    owner.post("/api/v1/auth/totp/confirm", &json!({ "code": before })).await.expect(204);
    owner.post("/api/v1/auth/totp", &json!({})).await.problem(409, "totp_enabled");
    elsewhere.get("/api/v1/auth/session").await.problem(401, "unauthorized");

    // A change: without a code, with one that was used, with a fresh one, and the same again. What
    // is refused for want of a code is asked again under the same key.
    let ask = async |code: Option<&str>| {
        let request = owner.api.request(Method::POST, users).header("cookie", &owner.cookie).header("x-csrf-token", &owner.csrf);
        let request = request.header("idempotency-key", "friend").header("x-totp", code.unwrap_or_default());
        request.json(&friend).send().await
    };
    owner.post(users, &friend).await.problem(403, "second_factor_required");
    ask(None).await.problem(403, "second_factor_invalid");
    ask(Some(&before)).await.problem(403, "second_factor_invalid");
    let made = ask(Some(&now)).await.expect(201);
    let password = made.json()["password"].as_str().unwrap().to_owned();
    assert!(made.header("location").is_some_and(|at| at.ends_with(made.json()["id"].as_str().unwrap())), "{made:?}");
    let replay = ask(Some(&now)).await.expect(201);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_eq!((&replay.json()["id"], replay.json().get("password")), (&made.json()["id"], None), "{replay:?}");
    assert!(!replay.text().contains(&password));
    owner
        .ask(Method::POST, users, Some(&json!({ "email": "third@shop.example", "role": "viewer" })), Some(&now))
        .await
        .problem(403, "second_factor_invalid");

    // Log-in asks for it too, and takes none twice.
    let with = |code: Option<&str>| json!({ "email": "owner@shop.example", "password": PASSWORD, "totp": code });
    try_log_in(&gateway, &with(None)).await.problem(401, "totp_required");
    try_log_in(&gateway, &with(Some(&now))).await.problem(401, "invalid_totp");
    Browser::of(&gateway, &try_log_in(&gateway, &with(Some(&after))).await.expect(200));
    let log = gateway.process.output();
    assert!(!log.contains(secret) && !log.contains(&password));
    drop(gateway);

    // It survives a change of the master key, and goes with a reset on the server.
    let new_key = home.new_key();
    let old_key = std::mem::replace(&mut home.master_key, new_key);
    let config = home.config_file();
    let mut rotate = home.command(&["key", "rotate", "--config", config.to_str().unwrap()]);
    crate::gateway::Done::of(rotate.env("WALLET_MASTER_KEY_PREVIOUS", &old_key)).succeeded();
    let gateway = home.serve().await;
    until_clock_passes(now_s() - now_s() % totp::STEP_S + totp::STEP_S - 1).await;
    let [_, _, fresh] = app.codes().await;
    let owner = Browser::of(&gateway, &try_log_in(&gateway, &with(Some(&fresh))).await.expect(200));
    let reset = home.json(&["user", "reset", "--email", "owner@shop.example"]);
    assert_eq!(reset["second_factor"], false, "{reset}");
    owner.get("/api/v1/auth/session").await.problem(401, "unauthorized");
    try_log_in(&gateway, &json!({ "email": "owner@shop.example", "password": reset["password"] })).await.expect(200);
    let admin = gateway.api(&admin);
    assert_eq!(audit(&admin, "totp.enable").await[0]["actor"], json!(id));
    assert_eq!(home.run(&["audit", "verify"]).succeeded().code, Some(0));
}

/// Every call of operators, and the permission it needs.
const CALLS: &str = "
    GET    /api/v1/networks                                 orders.read
    GET    /api/v1/networks/anvil/fee                       orders.read
    GET    /api/v1/addresses/anvil/x                        orders.read
    GET    /api/v1/addresses/anvil/x/balance                orders.read
    GET    /api/v1/admin/orders                             all_orders.read
    GET    /api/v1/admin/orders/x                           all_orders.read
    GET    /api/v1/admin/orders/x/events                    all_orders.read
    GET    /api/v1/admin/events                             all_orders.read
    POST   /api/v1/admin/orders                             all_orders.write
    PUT    /api/v1/admin/orders/x                           all_orders.write
    POST   /api/v1/admin/orders/x/confirm                   all_orders.write
    POST   /api/v1/admin/orders/x/cancel                    all_orders.write
    POST   /api/v1/admin/orders/x/membership/withdraw       all_orders.write
    GET    /api/v1/admin/webhook-deliveries                 all_orders.read
    GET    /api/v1/admin/webhook-deliveries/x               all_orders.read
    POST   /api/v1/admin/webhook-deliveries/x/retry         all_orders.write
    POST   /api/v1/admin/webhook-deliveries/retry           all_orders.write
    GET    /api/v1/admin/plans                              merchants.read
    GET    /api/v1/admin/plans/x                            merchants.read
    POST   /api/v1/admin/plans                              merchants.write
    PUT    /api/v1/admin/plans/x                            merchants.write
    GET    /api/v1/admin/payment-webhooks                   all_orders.read
    GET    /api/v1/admin/notifications                      alerts.read
    POST   /api/v1/admin/notifications/x/retry              alerts.write
    POST   /api/v1/admin/notifications/test                 everything
    GET    /api/v1/admin/notification-templates             everything
    POST   /api/v1/admin/notification-templates/preview     everything
    PUT    /api/v1/admin/notification-templates/x/smtp/en   everything
    DELETE /api/v1/admin/notification-templates/x/smtp/en   everything
    GET    /api/v1/admin/transactions                       transactions.read
    GET    /api/v1/admin/transactions/anvil/x               transactions.read
    GET    /api/v1/admin/jobs/x                             wallets.read
    GET    /api/v1/admin/wallets                            wallets.read
    GET    /api/v1/admin/wallets/x                          wallets.read
    GET    /api/v1/admin/wallets/x/balances                 wallets.read
    GET    /api/v1/admin/wallets/x/transactions             wallets.read
    GET    /api/v1/admin/wallets/stats                      wallets.read
    POST   /api/v1/admin/wallets/generate                   wallets.write
    POST   /api/v1/admin/wallets/import                     wallets.import
    POST   /api/v1/admin/wallets/sync                       wallets.write
    PUT    /api/v1/admin/wallets/x                          wallets.write
    POST   /api/v1/admin/wallets/x/status                   wallets.write
    POST   /api/v1/admin/wallets/x/risk                     wallets.write
    POST   /api/v1/admin/wallets/x/release                  wallets.write
    POST   /api/v1/admin/wallets/x/verify                   wallets.write
    POST   /api/v1/admin/wallets/x/sync                     wallets.write
    GET    /api/v1/admin/alerts                             alerts.read
    POST   /api/v1/admin/alerts/x/acknowledge               alerts.write
    POST   /api/v1/admin/alerts/x/close                     alerts.write
    GET    /api/v1/admin/audit                              audit.read
    GET    /api/v1/admin/log-level                          everything
    PUT    /api/v1/admin/log-level                          everything
    GET    /metrics                                         metrics.read
    GET    /api/v1/admin/merchants                          merchants.read
    GET    /api/v1/admin/merchants/x                        merchants.read
    POST   /api/v1/admin/merchants                          merchants.write
    PUT    /api/v1/admin/merchants/x                        merchants.write
    POST   /api/v1/admin/merchants/x/rotate-secret          merchants.write
    GET    /api/v1/admin/merchants/x/webhook-endpoints      merchants.read
    GET    /api/v1/admin/merchants/x/webhook-endpoints/x    merchants.read
    POST   /api/v1/admin/merchants/x/webhook-endpoints      merchants.write
    PUT    /api/v1/admin/merchants/x/webhook-endpoints/x    merchants.write
    DELETE /api/v1/admin/merchants/x/webhook-endpoints/x    merchants.write
    POST   /api/v1/admin/merchants/x/webhook-endpoints/x/rotate-secret   merchants.write
    POST   /api/v1/admin/merchants/x/webhook-endpoints/x/test            all_orders.write
    GET    /api/v1/admin/api-keys                           keys.read
    POST   /api/v1/admin/api-keys                           keys.write
    DELETE /api/v1/admin/api-keys/x                         keys.write
    GET    /api/v1/admin/users                              users.read
    GET    /api/v1/admin/users/x                            users.read
    POST   /api/v1/admin/users                              users.write
    PUT    /api/v1/admin/users/x                            users.write
    DELETE /api/v1/admin/users/x                            users.write";

#[tokio::test]
async fn each_role_may_call_what_the_table_says() {
    use tidegate_rules::people::{Permission, Role};
    let home = home();
    let roles = Role::ALL;
    for role in roles {
        add(&home, &format!("{}@shop.example", role.name()), role.name());
    }
    let gateway = home.serve().await;
    let mut cells = 0;
    for role in roles {
        let browser = Browser::log_in(&gateway, &format!("{}@shop.example", role.name())).await;
        for line in CALLS.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let permission = Permission::from_name(words[2]).unwrap_or_else(|| panic!("{line}"));
            let method: Method = words[0].parse().unwrap();
            // A body that is refused as soon as somebody reads it: nothing is changed here.
            let body = (method != Method::GET && method != Method::DELETE).then(|| json!({ "no such field": 1 }));
            let answer = browser.ask(method, words[1], body.as_ref(), None).await;
            if role.may(permission) {
                assert!(!matches!(answer.status, 401 | 403 | 429 | 500), "{} may {line}: {answer:?}", role.name());
            } else {
                answer.problem(403, "role_not_allowed");
            }
            cells += 1;
        }
    }
    assert_eq!(cells, 4 * 73);
    // No call of operators is left out of the table, and every call says that it may be too much.
    let document = gateway.api("").with_key(None).get("/openapi.json").await.expect(200).json();
    let operations = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    for operation in operations.filter(|operation| operation.get("responses").is_some()) {
        let answers = operation["responses"].as_object().unwrap();
        assert!(["429", "503"].iter().all(|status| answers.contains_key(*status)), "{operation}");
    }
    let mut missing = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/api/v1/admin/") {
            continue;
        }
        for method in item.as_object().unwrap().keys() {
            let named = CALLS.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|words| {
                let fits = |(asked, said): (&str, &str)| said.starts_with('{') || asked == said;
                words.len() == 3
                    && words[0].eq_ignore_ascii_case(method)
                    && words[1].split('/').count() == path.split('/').count()
                    && words[1].split('/').zip(path.split('/')).all(fits)
            });
            if !named {
                missing.push(format!("{method} {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "add to CALLS, with the permission each needs: {missing:#?}");
}

#[tokio::test]
async fn what_decides_where_money_goes_needs_a_second_factor() {
    let home = home();
    add(&home, "owner@shop.example", "owner");
    let gateway = home.serve().await;
    let owner = Browser::log_in(&gateway, "owner@shop.example").await;
    let main = owner.get("/api/v1/admin/merchants").await.expect(200).json()["data"][0]["id"].as_str().unwrap().to_owned();
    let me = owner.get("/api/v1/auth/session").await.json()["user"]["id"].as_str().unwrap().to_owned();
    let key = format!("key_{}", "0".repeat(32));
    let admin = gateway.api(&home.api_key("main", &["admin"]));
    let endpoints = format!("/api/v1/admin/merchants/{main}/webhook-endpoints");
    let made = admin.post(&endpoints, &json!({ "url": "https://owner.example" })).await.expect(201);
    let endpoint = made.header("location").unwrap().to_owned();
    let (merchant, user) = (format!("/api/v1/admin/merchants/{main}"), format!("/api/v1/admin/users/{me}"));
    for (method, path, body) in [
        (Method::POST, "/api/v1/admin/merchants".to_owned(), Some(json!({ "name": "shop" }))),
        (Method::PUT, merchant.clone(), Some(json!({ "webhook_url": "https://thief.example" }))),
        (Method::POST, format!("{merchant}/rotate-secret"), None),
        (Method::POST, endpoints.clone(), Some(json!({ "url": "https://thief.example" }))),
        (Method::PUT, endpoint.clone(), Some(json!({ "url": "https://thief.example" }))),
        (Method::DELETE, endpoint.clone(), None),
        (Method::POST, format!("{endpoint}/rotate-secret"), None),
        (Method::POST, "/api/v1/admin/api-keys".to_owned(), Some(json!({ "scopes": ["admin"] }))),
        (Method::DELETE, format!("/api/v1/admin/api-keys/{key}"), None),
        (Method::POST, "/api/v1/admin/users".to_owned(), Some(json!({ "email": "thief@shop.example", "role": "owner" }))),
        (Method::PUT, user.clone(), Some(json!({ "password": "a password of a thief" }))),
        (Method::DELETE, user, None),
        (Method::POST, "/api/v1/admin/wallets/import".to_owned(), Some(json!({ "network": NETWORK, "private_key": "11".repeat(32) }))),
    ] {
        owner.ask(method, &path, body.as_ref(), None).await.problem(403, "second_factor_required");
    }
    assert_eq!(owner.get(&merchant).await.json()["webhook_url"], Value::Null);
    assert_eq!(owner.get(&endpoints).await.json()["data"], json!([owner.get(&endpoint).await.expect(200).json()]));
    assert_eq!(owner.get(&endpoint).await.json()["url"], "https://owner.example/");
    assert_eq!(owner.get("/api/v1/admin/users").await.json()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn api_keys_have_a_time_a_place_and_an_end() {
    let receiver = Receiver::start().await;
    let home = home();
    home.json(&["merchant", "update", "main", "--webhook-url", &receiver.url]);
    let main = home.json(&["merchant", "show", "main"]);
    let admin = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let admin = gateway.api(&admin);
    let keys = "/api/v1/admin/api-keys";
    for (body, pointer) in [
        (json!({ "scopes": [] }), "/scopes"),
        (json!({ "scopes": ["orders:read", "everything"] }), "/scopes/1"),
        (json!({ "scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z" }), "/expires_at"),
        (json!({ "scopes": ["admin"], "expires_at": "tomorrow" }), "/expires_at"),
        (json!({ "scopes": ["admin"], "allowed_ips": [] }), "/allowed_ips"),
        (json!({ "scopes": ["admin"], "allowed_ips": ["10.0.0.0/8", "10.0.0.0/99"] }), "/allowed_ips/1"),
        (json!({ "scopes": ["admin"], "merchant_id": "mer_nobody" }), "/merchant_id"),
        (json!({ "scopes": ["admin"], "name": "" }), "/name"),
    ] {
        let refused = admin.post(keys, &body).await;
        refused.problem(422, "invalid_request");
        refused.points_at(pointer);
    }

    let soon = Time::from_secs(i64::try_from(now_s() + 3).unwrap());
    let body = json!({ "name": "till", "scopes": ["orders:write", "orders:read"], "expires_at": soon.to_string(), "allowed_ips": ["127.0.0.0/8"] });
    let make = async || admin.request(Method::POST, keys).header("idempotency-key", "till").json(&body).send().await.expect(201);
    let made = make().await.json();
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("tg_test_"), "{made}");
    assert_eq!(
        (&made["merchant_id"], &made["name"], &made["scopes"]),
        (&main["id"], &json!("till"), &json!(["orders:read", "orders:write"]))
    );
    assert_eq!((&made["allowed_ips"], &made["expires_at"]), (&json!(["127.0.0.0/8"]), &json!(soon.to_string())));
    let replay = make().await;
    assert_eq!((replay.json()["id"].clone(), replay.json().get("secret").cloned()), (made["id"].clone(), None));

    let till = gateway.api(&secret);
    till.get("/api/v1/orders").await.expect(200);
    till.get("/api/v1/admin/wallets").await.problem(403, "insufficient_scope");
    until_clock_passes(now_s() + 3).await;
    let expired = till.get("/api/v1/orders").await.problem(401, "unauthorized");
    assert!(expired["detail"].as_str().unwrap().contains("expired"), "{expired}");

    let elsewhere = admin.post(keys, &json!({ "scopes": ["orders:read"], "allowed_ips": ["192.0.2.0/24", "2001:db8::/32"] })).await;
    let elsewhere = gateway.api(elsewhere.expect(201).json()["secret"].as_str().unwrap());
    elsewhere.get("/api/v1/orders").await.problem(403, "origin_not_allowed");

    let lost = admin.post(keys, &json!({ "scopes": ["orders:read"] })).await.expect(201).json();
    let path = format!("{keys}/{}", lost["id"].as_str().unwrap());
    let lost = gateway.api(lost["secret"].as_str().unwrap());
    lost.get("/api/v1/orders").await.expect(200);
    eventually("the last use is noted", async || {
        let listed = admin.get(keys).await.json()["data"][0].clone();
        if listed["last_used_at"].is_string() { Ok(()) } else { Err(listed) }
    })
    .await;
    admin.request(Method::DELETE, &path).send().await.expect(204);
    lost.get("/api/v1/orders").await.problem(401, "unauthorized");
    admin.request(Method::DELETE, &path).send().await.expect(204);
    admin.request(Method::DELETE, &format!("{keys}/key_nothing")).send().await.problem(404, "not_found");

    // Ended on the command line: a running gateway follows within five seconds.
    let last =
        home.json(&["api-key", "create", "--merchant", "main", "--scope", "orders:read", "--name", "last", "--allow-from", "127.0.0.1"]);
    let caller = gateway.api(last["secret"].as_str().unwrap());
    caller.get("/api/v1/orders").await.expect(200);
    home.json(&["api-key", "revoke", last["id"].as_str().unwrap()]);
    eventually_within(Duration::from_secs(6), "the key is void", async || {
        let answer = caller.get("/api/v1/orders").await;
        if answer.status == 401 { Ok(()) } else { Err(answer.status) }
    })
    .await;
    let listed = home.json(&["api-key", "list", "--merchant", "main"]);
    assert_eq!(listed["data"].as_array().unwrap().len(), 5, "{listed}");
    assert!(listed["data"][0]["revoked_at"].is_string() && !listed.to_string().contains(&secret), "{listed}");

    // The owner heard of what came over HTTP.
    let told = admin.all("/api/v1/admin/alerts?kind=credentials_changed").await;
    assert_eq!(told.len(), 4, "three were made, one was ended: {told:#?}");
    let event = receiver.first("wallet.alert").await;
    event.verify(main["webhook_secret"].as_str().unwrap()).unwrap();
    assert_eq!(audit(&admin, "api_key.revoke").await.len(), 2);
    assert!(!gateway.process.output().contains(&secret));
}

#[tokio::test]
async fn a_webhook_secret_is_changed_without_losing_a_webhook() {
    let (receiver, second) = (Receiver::start().await, Receiver::start().await);
    let home = home();
    home.json(&["merchant", "update", "main", "--webhook-url", &receiver.url]);
    let old = home.json(&["merchant", "show", "main"]);
    let (id, old) = (old["id"].as_str().unwrap(), old["webhook_secret"].as_str().unwrap());
    let admin = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let admin = gateway.api(&admin);
    let path = format!("/api/v1/admin/merchants/{id}");

    // The change itself is told, and signed with both.
    let changed = admin.post(&format!("{path}/rotate-secret"), &json!({ "old_valid_for": 3600 })).await.expect(200).json();
    let new = changed["webhook_secret"].as_str().unwrap();
    assert!(new.starts_with("whsec_") && new != old, "{changed}");
    assert!(changed["old_secret_valid_until"].is_string(), "{changed}");
    let told = eventually("the owner is told", async || receiver.deliveries().first().cloned().ok_or("nothing yet")).await;
    assert!(told.json()["data"]["detail"].as_str().unwrap().contains("merchant.secret_rotate"), "{told:?}");
    told.verify(old).unwrap();
    told.verify(new).unwrap();
    assert_eq!(told.signature.split(' ').count(), 2, "{}", told.signature);
    assert_eq!(admin.get(&path).await.json().get("webhook_secret"), None, "it is shown once");

    // Without mercy for the old one, and to another address: the notice of that goes to the address
    // before it.
    admin.post(&format!("{path}/rotate-secret"), &json!({ "old_valid_for": 2_592_001 })).await.points_at("/old_valid_for");
    let last = admin.post(&format!("{path}/rotate-secret"), &json!({ "old_valid_for": 0 })).await.expect(200).json();
    let last = last["webhook_secret"].as_str().unwrap();
    admin.request(Method::PUT, &path).json(&json!({ "webhook_url": "gopher://x" })).send().await.points_at("/webhook_url");
    admin.request(Method::PUT, &path).json(&json!({ "webhook_url": second.url })).send().await.expect(200);
    let told = eventually("the old address is told", async || {
        let names_it =
            |told: &crate::receiver::Delivery| told.json()["data"]["detail"].as_str().is_some_and(|text| text.contains(&second.url));
        receiver.deliveries().into_iter().find(names_it).ok_or("not yet")
    })
    .await;
    told.verify(last).unwrap();
    assert!(told.verify(new).is_err() && told.signature.split(' ').count() == 1, "{}", told.signature);

    admin.request(Method::PUT, &path).json(&json!({ "name": "other" })).send().await.problem(409, "main_merchant");
    let shop = admin.post("/api/v1/admin/merchants", &json!({ "name": "shop", "webhook_url": second.url })).await.expect(201);
    assert!(shop.json()["webhook_secret"].as_str().unwrap().starts_with("whsec_"), "{shop:?}");
    admin.post("/api/v1/admin/merchants", &json!({ "name": "shop" })).await.problem(409, "merchant_exists");
    let shop = shop.header("location").unwrap().to_owned();
    let put = admin.request(Method::PUT, &shop).json(&json!({ "name": "till", "webhook_url": null })).send().await.expect(200).json();
    assert_eq!((&put["name"], &put["webhook_url"]), (&json!("till"), &Value::Null));
    assert_eq!(admin.all("/api/v1/admin/merchants?limit=1").await.len(), 2);
    let log = gateway.process.output();
    assert!(![old, new, last].iter().any(|secret| log.contains(secret)));
}

#[tokio::test]
async fn an_owner_is_always_left_to_log_in() {
    let home = home();
    let owner = add(&home, "owner@shop.example", "owner");
    let admin = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let admin = gateway.api(&admin);
    let path = format!("/api/v1/admin/users/{}", owner["id"].as_str().unwrap());
    let put = async |body: Value| admin.request(Method::PUT, &path).json(&body).send().await;
    put(json!({ "role": "operator" })).await.problem(409, "last_owner");
    put(json!({ "status": "disabled" })).await.problem(409, "last_owner");
    put(json!({ "role": "king" })).await.points_at("/role");
    put(json!({ "second_factor": true })).await.points_at("/second_factor");
    admin.request(Method::DELETE, &path).send().await.problem(409, "last_owner");
    admin.post("/api/v1/admin/users", &json!({ "email": "OWNER@shop.example", "role": "owner" })).await.problem(409, "user_exists");
    admin.post("/api/v1/admin/users", &json!({ "email": "nobody", "role": "owner" })).await.points_at("/email");
    admin.post("/api/v1/admin/users", &json!({ "email": "two@shop.example", "role": "owner", "password": PASSWORD })).await.expect(201);

    // Kept out, he is out at once, whatever session he has.
    let browser = Browser::log_in(&gateway, "owner@shop.example").await;
    browser.get("/api/v1/auth/session").await.expect(200);
    put(json!({ "status": "disabled" })).await.expect(200);
    browser.get("/api/v1/auth/session").await.problem(401, "unauthorized");
    try_log_in(&gateway, &json!({ "email": "owner@shop.example", "password": PASSWORD })).await.problem(401, "invalid_credentials");
    admin.request(Method::DELETE, &path).send().await.expect(204);
    admin.get(&path).await.problem(404, "not_found");
    assert_eq!(admin.all("/api/v1/admin/users").await.len(), 1);
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_again() {
    let home = home_with("[limits]\nrequests_per_second = 1\nburst = 8\n");
    let key = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let api = gateway.api(&key);
    let answers = futures_util::future::join_all((0..40).map(|_| api.get("/api/v1/networks"))).await;
    let (good, refused): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!((8..=20).contains(&good.len()), "{} were answered", good.len());
    for answer in &refused {
        answer.problem(429, "rate_limited");
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{answer:?}");
    }
    for path in ["/health/live", "/health/ready", "/health/blockchain"] {
        assert_ne!(api.get(path).await.status, 429, "{path}");
    }
    eventually("there is room again", async || {
        let answer = api.get("/api/v1/networks").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status) }
    })
    .await;
}

#[tokio::test]
async fn a_full_house_says_so_and_goes_on() {
    let home = home_with("[limits]\nconcurrent_requests = 2\n");
    let key = home.api_key("main", &["admin"]);
    let gateway = home.serve().await;
    let api = gateway.api(&key);
    // Two who begin a request and do not end it have both places.
    let address = gateway.base.trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST /api/v1/admin/wallets/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let busy = eventually("the house is full", async || {
        let answer = api.get("/api/v1/networks").await;
        if answer.status == 503 { Ok(answer) } else { Err(answer.status) }
    })
    .await;
    busy.problem(503, "busy");
    assert_eq!(busy.header("retry-after"), Some("1"));
    api.get("/health/live").await.expect(200);
    drop(slow);
    eventually("there is room again", async || {
        let answer = api.get("/api/v1/networks").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status) }
    })
    .await;
}

#[tokio::test]
async fn the_sandbox_has_an_owner_who_can_log_in() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = crate::dev::Sandbox::start(folder.path()).await;
    let credentials = json!({ "email": sandbox.text("/admin/email"), "password": sandbox.text("/admin/password") });
    let answer = try_log_in(&sandbox.gateway, &credentials).await.expect(200);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("tidegate=") && !cookie.contains("Secure"), "over plain http: {cookie}");
    assert_eq!(answer.json()["user"]["role"], "owner");
    let owner = Browser::of(&sandbox.gateway, &answer);
    // There is nothing to lose here: no second factor is asked for.
    owner.post("/api/v1/admin/api-keys", &json!({ "scopes": ["orders:read"] })).await.expect(201);
}
