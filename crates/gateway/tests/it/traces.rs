//! Traces over OTLP, with the feature `otlp`: what a collector gets. `scripts/check-otlp` runs it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;

use crate::shop::Shop;
use crate::wait::eventually;

/// A collector that keeps what it is sent, by batches as they came.
struct Collector {
    url: String,
    batches: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    async fn start() -> Self {
        let batches: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let take = |State(batches): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| async move { batches.lock().unwrap().push(body) };
        let app = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&batches));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, batches }
    }

    /// True when a batch holds this text. Texts stand in protobuf as they are.
    fn has(&self, text: &str) -> bool {
        self.batches.lock().unwrap().iter().any(|batch| batch.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_requests_commits_and_webhooks_and_no_secret() {
    let collector = Collector::start().await;
    let mut shop = Shop::open_with(|settings| {
        settings.env.push(("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone()));
        settings.env.push(("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()));
    })
    .await;
    let order = shop.order("5").await;
    eventually("the collector has spans of all kinds", async || {
        let missing: Vec<&str> = ["tidegate", "POST /api/v1/orders", "commit", "webhook", "http.response.status_code"]
            .into_iter()
            .filter(|text| !collector.has(text))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    for secret in [shop.key.as_str(), &shop.home.master_key, &shop.merchant.webhook_secret, &order.id] {
        assert!(!collector.has(secret), "{secret} was sent to the collector");
    }
    shop.gateway.terminate().await;
}
