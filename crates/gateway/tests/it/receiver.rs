//! A shop's webhook listener: records what arrives, checks signatures by itself (Standard
//! Webhooks, written anew here), and can be unwell on demand.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::wait::{eventually_within, now_s};

/// How far a signature's time may be off, as the scheme recommends.
const TOLERANCE_S: u64 = 5 * 60;

/// How long to wait for events: long enough for the first retry, 5 s after the event.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(45);

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub body: Vec<u8>,
    /// What we answered, or 0 when we let it hang.
    pub answered: u16,
}

impl Delivery {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap_or_else(|| panic!("no type: {self:?}")).to_owned()
    }

    /// The order that the event is about.
    pub fn order_id(&self) -> String {
        self.json()["data"]["id"].as_str().unwrap_or_default().to_owned()
    }

    /// Checks the signature with the merchant's secret.
    pub fn verify(&self, secret: &str) -> Result<(), String> {
        verify(secret, &self.id, &self.timestamp, &self.signature, &self.body, now_s())
    }
}

fn verify(secret: &str, id: &str, timestamp: &str, signatures: &str, body: &[u8], now_s: u64) -> Result<(), String> {
    let key = secret.strip_prefix("whsec_").ok_or("the secret does not begin with whsec_")?;
    let key = STANDARD.decode(key).map_err(|error| format!("the secret is not base64: {error}"))?;
    let sent_s: u64 = timestamp.parse().map_err(|_| format!("timestamp {timestamp:?}"))?;
    if sent_s.abs_diff(now_s) > TOLERANCE_S {
        return Err(format!("sent at {sent_s}, now {now_s}"));
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    if signatures.split(' ').any(|signature| signature == expected) {
        Ok(())
    } else {
        Err(format!("signed {signatures:?}, expected {expected}"))
    }
}

#[derive(Default)]
struct Mood {
    deliveries: Vec<Delivery>,
    failures_left: u32,
    hangs: bool,
}

/// A listener on a port of its own.
pub struct Receiver {
    /// Where webhooks go.
    pub url: String,
    mood: Arc<Mutex<Mood>>,
    server: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let mood = Arc::new(Mutex::new(Mood::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let shared = Arc::clone(&mood);
        let app = Router::new().fallback(async move |headers: HeaderMap, body: Bytes| answer(&shared, &headers, &body).await);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, mood, server }
    }

    /// Answers 500 to the next `count` requests.
    pub fn fail_next(&self, count: u32) {
        self.mood.lock().unwrap().failures_left = count;
    }

    /// From now on accepts requests and never answers.
    pub fn hang(&self) {
        self.mood.lock().unwrap().hangs = true;
    }

    /// Everything so far, in order of arrival.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.mood.lock().unwrap().deliveries.clone()
    }

    /// What has arrived for an order, retries included.
    pub fn deliveries_of(&self, order_id: &str) -> Vec<Delivery> {
        self.deliveries().into_iter().filter(|delivery| delivery.order_id() == order_id).collect()
    }

    /// The kinds of an order's events in the order in which they happened. Ids sort by time, so
    /// this is their order whatever order the deliveries took.
    pub fn kinds_of(&self, order_id: &str) -> Vec<String> {
        let deliveries = self.deliveries_of(order_id);
        let events: BTreeSet<(String, String)> = deliveries.iter().map(|delivery| (delivery.id.clone(), delivery.kind())).collect();
        events.into_iter().map(|(_, kind)| kind).collect()
    }

    /// Waits until an order's events are exactly these, one of each, in this order; gives the
    /// deliveries in order of arrival. One that ends in `?` may be missing: an order whose money
    /// is settled by the time it is first seen need not pass through confirming.
    pub async fn events(&self, order_id: &str, kinds: &[&str]) -> Vec<Delivery> {
        eventually_within(PATIENCE, &format!("{order_id} has sent {kinds:?}"), async || {
            let seen = self.kinds_of(order_id);
            assert!(seen.len() <= kinds.len(), "{order_id} sent {seen:?}, expected {kinds:?}");
            if fits(&seen, kinds) { Ok(self.deliveries_of(order_id)) } else { Err(format!("{seen:?}")) }
        })
        .await
    }

    /// Waits for the first event of this kind, whatever it is about.
    pub async fn first(&self, kind: &str) -> Delivery {
        eventually_within(PATIENCE, &format!("somebody has sent {kind}"), async || {
            self.deliveries().into_iter().find(|delivery| delivery.kind() == kind).ok_or_else(|| "nobody".to_owned())
        })
        .await
    }

    /// Waits for at least one event of this kind.
    pub async fn event(&self, order_id: &str, kind: &str) -> Delivery {
        eventually_within(PATIENCE, &format!("{order_id} has sent {kind}"), async || {
            let found = self.deliveries_of(order_id).into_iter().find(|d| d.kind() == kind);
            found.ok_or_else(|| format!("{:?}", self.kinds_of(order_id)))
        })
        .await
    }
}

/// Are these the expected kinds? One that ends in `?` may be missing.
fn fits(seen: &[String], kinds: &[&str]) -> bool {
    let Some((kind, later)) = kinds.split_first() else { return seen.is_empty() };
    let (needed, kind) = kind.strip_suffix('?').map_or((true, *kind), |kind| (false, kind));
    match seen.split_first() {
        Some((first, rest)) if first == kind => fits(rest, later),
        _ => !needed && fits(seen, later),
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(mood: &Mutex<Mood>, headers: &HeaderMap, body: &Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or("?").to_owned()).unwrap_or_default();
    let status = {
        let mut mood = mood.lock().unwrap();
        let status = if mood.hangs {
            None
        } else if mood.failures_left > 0 {
            mood.failures_left -= 1;
            Some(StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            Some(StatusCode::NO_CONTENT)
        };
        mood.deliveries.push(Delivery {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
            body: body.to_vec(),
            answered: status.map_or(0, |status| status.as_u16()),
        });
        status
    };
    match status {
        Some(status) => status,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http;

    /// The example of the Standard Webhooks specification.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: &str = "1614265330";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_published_signature_verifies_and_no_other() {
        let now = 1_614_265_330;
        let check = |id: &str, signature: &str, body: &[u8], now| verify(SECRET, id, TIMESTAMP, signature, body, now).is_ok();
        assert!(check(ID, SIGNATURE, BODY, now));
        assert!(check(ID, &format!("v1,AAAA {SIGNATURE}"), BODY, now), "several are allowed");
        assert!(!check(ID, SIGNATURE, br#"{"test": 2432232315}"#, now), "another body");
        assert!(!check("msg_other", SIGNATURE, BODY, now), "another id");
        assert!(!check(ID, &SIGNATURE.replace("v1,", "v2,"), BODY, now), "another scheme");
        assert!(!check(ID, SIGNATURE, BODY, now + 301), "too old");
    }

    #[tokio::test]
    async fn it_records_fails_and_hangs_as_told() {
        let receiver = Receiver::start().await;
        let post = async |kind: &str| {
            let body = format!(r#"{{"type":"{kind}","data":{{"id":"ord_1"}}}}"#);
            http()
                .post(&receiver.url)
                .header("webhook-id", format!("evt_{kind}"))
                .body(body)
                .timeout(std::time::Duration::from_millis(500))
                .send()
                .await
                .map(|a| a.status().as_u16())
        };
        receiver.fail_next(1);
        assert_eq!(post("a").await.unwrap(), 500);
        assert_eq!(post("a").await.unwrap(), 204);
        assert_eq!(post("b").await.unwrap(), 204);
        receiver.hang();
        assert!(post("c").await.unwrap_err().is_timeout());
        assert_eq!(receiver.kinds_of("ord_1"), ["a", "b", "c"]);
        assert_eq!(receiver.deliveries_of("ord_1").len(), 4);
        assert_eq!(receiver.events("ord_1", &["a", "x?", "b", "c?"]).await.len(), 4);
    }
}
