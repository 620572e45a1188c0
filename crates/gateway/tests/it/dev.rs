//! `tidegate dev` and `tidegate demo`: the whole product in a sandbox, with nothing but the binary.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::gateway::{BINARY, Gateway};
use crate::process::Process;
use crate::receiver::Receiver;
use crate::wait::eventually_within;

/// Nineteen blocks of 0.2 s settle a payment on the slower chain.
pub const PAID_MAX: Duration = Duration::from_secs(45);

/// "About 15 s", on a machine that does other things as well.
const DEMO_MAX: Duration = Duration::from_secs(120);

/// A running sandbox on `data`.
pub struct Sandbox {
    pub gateway: Gateway,
    pub credentials: Value,
}

impl Sandbox {
    pub async fn start(data: &Path) -> Self {
        let mut command = sandboxed("dev", data);
        command.arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0", "--block-time", "0.2"]);
        let gateway = Gateway::start(&mut command).await;
        gateway.ready().await;
        let credentials = std::fs::read(data.join("credentials.json")).unwrap();
        Self { gateway, credentials: serde_json::from_slice(&credentials).unwrap() }
    }

    pub fn text(&self, pointer: &str) -> &str {
        let found = self.credentials.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {pointer} in {}", self.credentials))
    }

    pub fn api(&self) -> Api {
        self.gateway.api(self.text("/api_key"))
    }

    /// Presses a button of the pay panel.
    pub async fn press(&self, order: &Value, network: &str, kind: &str) -> Answer {
        let path = format!("/pay/{}/sandbox", order["id"].as_str().unwrap());
        let form = format!("network={network}&kind={kind}");
        let api = self.api().with_key(None);
        api.request(Method::POST, &path).body("application/x-www-form-urlencoded", form).send().await
    }

    pub async fn pay(&self, order: &Value, network: &str, kind: &str) {
        let answer = self.press(order, network, kind).await;
        assert!((200..400).contains(&answer.status), "{answer:?}");
    }

    pub async fn order_is(&self, order: &Value, status: &str, exception: Value) -> Value {
        let id = order["id"].as_str().unwrap();
        eventually_within(PAID_MAX, &format!("{id} is {status}, {exception}"), async || {
            let now = self.api().order(id).await;
            if now["status"] == status && now["exception"] == exception { Ok(now) } else { Err(now) }
        })
        .await
    }
}

/// A command with an empty environment in an empty directory: the sandbox needs nothing.
fn sandboxed(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.arg(name).env_clear().current_dir(dir);
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

#[tokio::test]
async fn the_sandbox_takes_payments_on_both_chains() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(data.path()).await;
    let receiver = Receiver::start().await;

    // Ready credentials, for the owner of the directory alone.
    let file = std::fs::metadata(data.path().join("credentials.json")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(sandbox.text("/base_url").trim_end_matches('/'), sandbox.gateway.base);
    assert!(sandbox.text("/api_key").starts_with("tg_test_"));
    assert!(sandbox.text("/webhook_secret").starts_with("whsec_"));
    assert!(sandbox.text("/admin/email").contains('@'));
    assert!(sandbox.text("/admin/password").len() >= 8);
    let printed = sandbox.gateway.process.output();
    for word in [&sandbox.gateway.base, "/pay/", "/docs", sandbox.text("/api_key")] {
        assert!(printed.contains(word), "{word} is not printed: {printed}");
    }

    let networks = sandbox.api().get("/api/v1/networks").await.expect(200).json();
    let names: BTreeSet<&str> = networks["data"].as_array().unwrap().iter().map(|n| n["network"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["ethereum", "tron"]));

    for network in names {
        let body = json!({ "amount": "12.5", "network": network, "callback_url": receiver.url });
        let order = sandbox.api().post("/api/v1/orders", &body).await.expect(201).json();
        assert_eq!(order["livemode"], false);
        let id = order["id"].as_str().unwrap();
        let page = sandbox.api().with_key(None).get(&format!("/pay/{id}")).await.expect(200).text();
        assert!(page.contains(order["address"].as_str().unwrap()), "the checkout shows the address");
        sandbox.pay(&order, network, "exact").await;
        let now = sandbox.order_is(&order, "paid", Value::Null).await;
        assert_eq!(now["amount_confirmed"], "12.500000");
        let deliveries = receiver.events(id, &["order.pending", "order.confirming?", "order.paid"]).await;
        for delivery in deliveries {
            delivery.verify(sandbox.text("/webhook_secret")).unwrap();
        }
    }
}

#[tokio::test]
async fn the_panel_pays_less_more_and_late() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(data.path()).await;
    let make = async |body: Value| sandbox.api().post("/api/v1/orders", &body).await.expect(201).json();

    let less = make(json!({ "amount": "12.5", "network": "tron" })).await;
    sandbox.pay(&less, "tron", "less").await;
    sandbox.order_is(&less, "pending", json!("underpaid")).await;

    let more = make(json!({ "amount": "12.5", "network": "ethereum" })).await;
    sandbox.pay(&more, "ethereum", "more").await;
    sandbox.order_is(&more, "paid", json!("overpaid")).await;

    let late = make(json!({ "amount": "12.5", "network": "ethereum", "expires_in": 2 })).await;
    sandbox.order_is(&late, "expired", Value::Null).await;
    sandbox.pay(&late, "ethereum", "late").await;
    sandbox.order_is(&late, "paid", json!("late")).await;

    // What the panel cannot do is refused.
    for (network, kind) in [("tron", "double"), ("nowhere", "exact")] {
        let answer = sandbox.press(&less, network, kind).await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
}

#[tokio::test]
async fn the_sandbox_remembers() {
    let data = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::start(data.path()).await;
    let make = async |sandbox: &Sandbox| {
        let body = json!({ "amount": "3", "network": "ethereum", "expires_in": 86400 });
        sandbox.api().post("/api/v1/orders", &body).await.expect(201).json()
    };
    let (paid, open) = (make(&sandbox).await, make(&sandbox).await);
    sandbox.pay(&paid, "ethereum", "exact").await;
    let mut before = sandbox.order_is(&paid, "paid", Value::Null).await;
    let credentials = sandbox.credentials.clone();
    sandbox.gateway.kill();

    let sandbox = Sandbox::start(data.path()).await;
    for pointer in ["/api_key", "/webhook_secret", "/admin/email", "/admin/password"] {
        assert_eq!(sandbox.credentials.pointer(pointer), credentials.pointer(pointer), "{pointer}");
    }
    let mut now = sandbox.api().order(paid["id"].as_str().unwrap()).await;
    // Another port today, and more blocks.
    for changing in ["/checkout_url", "/confirmations", "/transfers/0/confirmations"] {
        *now.pointer_mut(changing).unwrap() = Value::Null;
        *before.pointer_mut(changing).unwrap() = Value::Null;
    }
    assert_eq!(now, before);
    // The chain goes on as well: an order from before can still be paid.
    sandbox.pay(&open, "ethereum", "exact").await;
    sandbox.order_is(&open, "paid", Value::Null).await;
    make(&sandbox).await;
}

#[tokio::test]
async fn the_sandbox_ends_when_told() {
    let data = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::start(data.path()).await;
    sandbox.gateway.terminate().await;
}

#[tokio::test]
async fn the_demo_shows_it_all_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Process::start("demo", &mut sandboxed("demo", dir.path()));
    let status = demo.exit(DEMO_MAX).await;
    let output = demo.output();
    assert_eq!(status.code(), Some(0), "{output}");
    for word in ["tron", "ethereum", "paid", "expired", "webhook"] {
        assert!(output.to_lowercase().contains(word), "the demo does not show {word}: {output}");
    }
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 0, "the demo leaves files behind");
}
