//! `tidegate demo`: the proof in a quarter of a minute. It runs a sandbox of its own, creates orders
//! over HTTP, pays them on both simulated chains, shows the confirmations, receives the signed
//! webhooks on a listener of its own and verifies them, lets one order expire, and ends with a
//! table of what happened. Everything in between is what a shop would do; nothing is faked here.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidegate_rules::notify::{secret_bytes, verify};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::say;
use crate::clock;
use crate::dev::{self, Credentials};
use crate::orders::OrderView;
use crate::start::Sorry;

/// The demo fails if it has not ended by then.
const LASTS_MAX: Duration = Duration::from_secs(60);

/// What happens in the demo: name, network, amount, seconds to pay, and the panel's button.
const STORY: [(&str, &str, &str, u64, Option<&str>); 5] = [
    ("paid on TRON", "tron", "12.5", 120, Some("exact")),
    ("paid on Ethereum", "ethereum", "99.99", 120, Some("exact")),
    ("too much", "tron", "20", 120, Some("more")),
    ("too little, then the rest", "ethereum", "50", 120, Some("less")),
    ("never paid", "tron", "5", 3, None),
];

/// What each order of the story must become.
const ENDS: [(&str, Option<&str>); 5] = [("paid", None), ("paid", None), ("paid", Some("overpaid")), ("paid", None), ("expired", None)];

/// The webhooks that came: by order, the types in the order of arrival, and how many verified.
#[derive(Default)]
struct Mailbox {
    by_order: BTreeMap<String, Vec<String>>,
    verified: usize,
    refused: usize,
}

#[derive(Clone)]
struct Shop {
    secret: Arc<Vec<u8>>,
    mailbox: Arc<Mutex<Mailbox>>,
}

/// What a shop's endpoint does: verify, then believe.
async fn receive(State(shop): State<Shop>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let sent_at = header("webhook-timestamp").parse().unwrap_or(0);
    let genuine = verify(&shop.secret, header("webhook-id"), sent_at, &body, header("webhook-signature"), clock::now());
    let mut mailbox = shop.mailbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if genuine.is_err() {
        mailbox.refused = mailbox.refused.saturating_add(1);
        return StatusCode::UNAUTHORIZED;
    }
    mailbox.verified = mailbox.verified.saturating_add(1);
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let order = text(event.get("data").and_then(|data| data.get("id")));
    mailbox.by_order.entry(order).or_default().push(text(event.get("type")));
    StatusCode::NO_CONTENT
}

/// Runs the demo; the exit code tells whether everything happened as it must.
///
/// # Errors
/// With a sentence, when the sandbox cannot start.
pub async fn run() -> Result<ExitCode, Sorry> {
    let started = Instant::now();
    let dir = std::env::temp_dir().join(format!("tidegate-demo-{}", hex::encode(clock::random::<8>())));
    let (stop, stopping) = watch::channel(false);
    let outcome = tokio::time::timeout(LASTS_MAX, tell(&dir, stopping)).await;
    let _ = stop.send(true);
    let _ = std::fs::remove_dir_all(&dir);
    let ok = outcome.map_err(|_| Sorry(format!("the demo did not end within {} s", LASTS_MAX.as_secs())))??;
    say(&format!("\n{} in {} s", if ok { "Everything happened as it must," } else { "SOMETHING IS WRONG," }, started.elapsed().as_secs()));
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn tell(dir: &std::path::Path, stopping: watch::Receiver<bool>) -> Result<bool, Sorry> {
    say("A sandbox with simulated TRON and Ethereum starts on a free port …");
    let options = dev::Options {
        data_dir: dir.to_owned(),
        listen: "127.0.0.1:0".into(),
        block_time: Duration::from_millis(400),
        confirmations: (19, 12),
    };
    let running = dev::start(options, stopping.clone()).await?;
    let client = Client::new(running.credentials.clone())?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let callback = format!("http://{}/webhooks", listener.local_addr()?);
    let secret =
        secret_bytes(&running.credentials.webhook_secret).ok_or_else(|| Sorry::new("the sandbox's webhook secret does not read"))?;
    let shop = Shop { secret: Arc::new(secret), mailbox: Arc::default() };
    let router = Router::new().route("/webhooks", post(receive)).with_state(shop.clone());
    let mut ending = stopping;
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(async move { drop(ending.wait_for(|stop| *stop).await) }).await;
    });

    client.until_ready().await?;
    say("Five orders are created over HTTP, paid on the simulated chains, and watched:\n");
    let bars = MultiProgress::new();
    let style =
        ProgressStyle::with_template("  {prefix:<26} {bar:24} {pos:>2}/{len:<2} {msg}").map_err(|error| Sorry(error.to_string()))?;
    let mut orders = Vec::new();
    for (name, network, amount, expires_in, button) in STORY {
        let order = client.create(network, amount, expires_in, &callback).await?;
        if let Some(button) = button {
            client.press(&order.id, network, button).await?;
        }
        let bar = bars.add(ProgressBar::new(0).with_style(style.clone()).with_prefix(name));
        orders.push((order, bar));
    }
    let rest_paid = &mut false;
    loop {
        let mut over = true;
        for ((order, bar), (_, network, ..)) in orders.iter_mut().zip(STORY) {
            *order = client.get(&order.id).await?;
            show(order, bar);
            if order.exception.as_deref() == Some("underpaid") && !*rest_paid && order.status == "pending" {
                client.press(&order.id, network, "exact").await?;
                *rest_paid = true;
            }
            over &= matches!(order.status.as_str(), "paid" | "expired");
        }
        if over && has_all_webhooks(&shop, &orders) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (_, bar) in &orders {
        bar.finish();
    }
    Ok(table(&orders, &shop))
}

/// One order's line while it lasts.
fn show(order: &OrderView, bar: &ProgressBar) {
    let needed = match &order.confirmations_required {
        Some(crate::orders::Required::Blocks(blocks)) => u64::from(*blocks),
        _ => 1,
    };
    bar.set_length(needed);
    bar.set_position(if order.status == "paid" { needed } else { order.confirmations.min(needed) });
    let exception = order.exception.as_deref().map(|exception| format!(", {exception}")).unwrap_or_default();
    bar.set_message(format!("{}{exception}", order.status));
}

/// The last webhook of every order has come.
fn has_all_webhooks(shop: &Shop, orders: &[(OrderView, ProgressBar)]) -> bool {
    let mailbox = shop.mailbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    orders.iter().all(|(order, _)| {
        let last = match (order.status.as_str(), order.exception.as_deref()) {
            ("paid", Some("overpaid")) => "order.overpaid",
            ("paid", _) => "order.paid",
            _ => "order.expired",
        };
        mailbox.by_order.get(&order.id).is_some_and(|types| types.iter().any(|kind| kind == last))
    })
}

/// What happened, and whether it is what must happen.
fn table(orders: &[(OrderView, ProgressBar)], shop: &Shop) -> bool {
    let mailbox = shop.mailbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    say(&format!("\n  {:<26} {:<9} {:>12} {:>12}  {:<18} {}", "order", "network", "asked", "received", "became", "signed webhooks"));
    let mut ok = mailbox.refused == 0;
    for (((order, _), (name, network, ..)), (status, exception)) in orders.iter().zip(STORY).zip(ENDS) {
        let became = order.exception.as_ref().map_or_else(|| order.status.clone(), |exception| format!("{}, {exception}", order.status));
        let types = mailbox.by_order.get(&order.id).cloned().unwrap_or_default();
        let told: Vec<&str> = types.iter().map(|kind| kind.trim_start_matches("order.")).collect();
        say(&format!("  {name:<26} {network:<9} {:>12} {:>12}  {became:<18} {}", order.amount, order.amount_received, told.join(" ")));
        ok &= order.status == status && order.exception.as_deref() == exception;
        ok &= types.iter().filter(|kind| *kind == "order.paid").count() == usize::from(status == "paid");
    }
    say(&format!("\n  {} webhooks received, every signature verified, {} refused", mailbox.verified, mailbox.refused));
    ok
}

/// A shop's own few calls.
struct Client {
    http: reqwest::Client,
    credentials: Credentials,
}

impl Client {
    #[allow(clippy::disallowed_methods, reason = "the demo is a shop: it is outside of the gateway")]
    fn new(credentials: Credentials) -> Result<Self, Sorry> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).redirect(reqwest::redirect::Policy::none()).build();
        Ok(Self { http: http.map_err(|error| Sorry(error.to_string()))?, credentials })
    }

    async fn until_ready(&self) -> Result<(), Sorry> {
        let url = format!("{}/health/ready", self.credentials.base_url);
        loop {
            if self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn create(&self, network: &str, amount: &str, expires_in: u64, callback: &str) -> Result<OrderView, Sorry> {
        let body = json!({ "amount": amount, "network": network, "expires_in": expires_in, "callback_url": callback });
        let request = self.http.post(format!("{}/api/v1/orders", self.credentials.base_url)).json(&body);
        self.order(request).await
    }

    async fn get(&self, id: &str) -> Result<OrderView, Sorry> {
        self.order(self.http.get(format!("{}/api/v1/orders/{id}", self.credentials.base_url))).await
    }

    async fn order(&self, request: reqwest::RequestBuilder) -> Result<OrderView, Sorry> {
        let answer = request.bearer_auth(&self.credentials.api_key).send().await.map_err(|error| Sorry(error.to_string()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| Sorry(error.to_string()))?;
        if !status.is_success() {
            return Err(Sorry(format!("the gateway answered {status}: {text}")));
        }
        serde_json::from_str(&text).map_err(|error| Sorry(format!("the gateway's answer does not read: {error}")))
    }

    /// Presses a button of the checkout page's sandbox panel.
    async fn press(&self, id: &str, network: &str, kind: &str) -> Result<(), Sorry> {
        let url = format!("{}/pay/{id}/sandbox", self.credentials.base_url);
        let form = format!("network={network}&kind={kind}");
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        let answer = request.send().await.map_err(|error| Sorry(error.to_string()))?;
        if answer.status().is_redirection() { Ok(()) } else { Err(Sorry(format!("the pay panel answered {}", answer.status()))) }
    }
}
