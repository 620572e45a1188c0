//! The shop's own listener: it verifies every webhook and remembers which events it heard of each
//! order.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tidegate_example_shop::webhook;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::now_ms;
use crate::tally::{Call, Tally};

/// What was heard.
#[derive(Default)]
pub struct Heard {
    /// The ids of the events that were heard.
    ids: HashSet<String>,
    /// The ids of the `order.paid` of each order.
    pub paid: HashMap<String, BTreeSet<String>>,
    /// Deliveries whose event had been heard before.
    pub again: u64,
    /// Deliveries whose signature was wrong or whose body did not read.
    pub refused: u64,
}

impl Heard {
    /// How many events were heard.
    #[must_use]
    pub fn events(&self) -> usize {
        self.ids.len()
    }
}

struct Shop {
    key: Vec<u8>,
    heard: Mutex<Heard>,
    tally: Arc<Tally>,
}

/// A listener until it is dropped.
pub struct Receiver {
    /// Where webhooks go.
    pub url: String,
    shop: Arc<Shop>,
    server: JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free port of this machine.
    ///
    /// # Errors
    /// With a sentence, when the secret does not read or no port is free.
    pub async fn start(secret: &str, tally: Arc<Tally>) -> Result<Self, String> {
        let key = webhook::key(secret).ok_or("expected a webhook_secret of whsec_ and base64")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let url = format!("http://{}/webhooks", listener.local_addr().map_err(|error| error.to_string())?);
        let shop = Arc::new(Shop { key, heard: Mutex::default(), tally });
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shop));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, shop, server })
    }

    /// What was heard so far.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.shop.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(shop): State<Arc<Shop>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let now_ms = now_ms();
    let event_id = webhook::verify(&shop.key, &headers, &body, now_ms / 1_000);
    let event: Option<Value> = serde_json::from_slice(&body).ok();
    let mut heard = shop.heard.lock().unwrap_or_else(PoisonError::into_inner);
    let (Some(event_id), Some(event)) = (event_id, event) else {
        heard.refused += 1;
        return StatusCode::UNAUTHORIZED;
    };
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/type") == "order.paid" {
        heard.paid.entry(text("/data/id").to_owned()).or_default().insert(event_id.clone());
    }
    if heard.ids.insert(event_id) {
        let sent_at: Option<jiff::Timestamp> = text("/timestamp").parse().ok();
        let sent_ms = sent_at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(now_ms);
        shop.tally.answered(Call::Webhook, 204, Duration::from_millis(now_ms.saturating_sub(sent_ms)));
    } else {
        heard.again += 1;
    }
    StatusCode::NO_CONTENT
}
