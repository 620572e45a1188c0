//! What providers say about transactions: a hint that there is something to look at, and nothing
//! more.
//!
//! A hint is believed to come from who signed it, and kept in a queue, each once. What it names is
//! read from our own endpoints; it never credits anything. A network without any hint loses
//! nothing, because every block is read anyway.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use tidegate_rules::block::{Hash, Network};
use tidegate_rules::notify::{self, RECEIVE_WINDOW};
use tidegate_rules::time::{Span, Time};
use tokio::sync::watch;

use crate::clock;
use crate::gateway::{Gateway, Wake};
use crate::signals::heard;
use crate::store::{HintRow, Queue};
use crate::transactions::{self, Standing};

/// The most transactions that one message may name.
pub const NAMED_MAX: usize = 200;

/// Hints looked at in one round.
const ROUND_MAX: i64 = 32;

/// How long to wait at most before looking again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// When a transaction that was not there yet is looked for again, after it was named.
const TRIES: [Span; 6] = [
    Span::from_secs(5),
    Span::from_secs(30),
    Span::from_secs(2 * 60),
    Span::from_secs(10 * 60),
    Span::from_secs(3_600),
    Span::from_secs(6 * 3_600),
];

/// A message that was signed by who may send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id, unique for its sender.
    pub id: String,
    /// The transactions that it names.
    pub hashes: Vec<Hash>,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its signature is missing or wrong, or it is too old: 401.
    #[error("the signature is missing, wrong, or more than five minutes old")]
    Unsigned,
    /// It is signed and does not read as a message: 422.
    #[error("expected {{ \"tx_hash\": \"…\" }} with a hash of 64 hex digits")]
    Unreadable,
}

/// Our own form: the headers of Standard Webhooks, and a body that names one transaction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    tx_hash: String,
}

/// Reads a message in our own form.
///
/// # Errors
/// [`Refused`] says what to answer.
pub fn read_own(secret: &[u8], (id, timestamp, signatures): (&str, &str, &str), body: &[u8], now: Time) -> Result<Message, Refused> {
    let sent_at = timestamp.parse().map_err(|_| Refused::Unsigned)?;
    notify::verify(secret, id, sent_at, body, signatures, now).map_err(|_| Refused::Unsigned)?;
    let own: Own = serde_json::from_slice(body).map_err(|_| Refused::Unreadable)?;
    let hash = own.tx_hash.to_ascii_lowercase().parse().map_err(|_| Refused::Unreadable)?;
    Ok(Message { id: format!("own:{id}"), hashes: vec![hash] })
}

/// An Alchemy webhook of type `ADDRESS_ACTIVITY`, as far as it matters here.
#[derive(Deserialize)]
struct Alchemy {
    id: String,
    #[serde(rename = "createdAt")]
    created_at: String,
    #[serde(default)]
    event: AlchemyEvent,
}

#[derive(Default, Deserialize)]
struct AlchemyEvent {
    #[serde(default)]
    activity: Vec<AlchemyActivity>,
}

#[derive(Deserialize)]
struct AlchemyActivity {
    hash: String,
}

/// Reads an Alchemy webhook: `X-Alchemy-Signature` is the hex of HMAC-SHA256 over the raw body,
/// keyed with the signing key's text; the body says when it was made.
/// <https://www.alchemy.com/docs/reference/notify-api-quickstart>
///
/// # Errors
/// [`Refused`] says what to answer.
pub fn read_alchemy(signing_key: &[u8], signature: &str, body: &[u8], now: Time) -> Result<Message, Refused> {
    let mut mac = Hmac::<Sha256>::new_from_slice(signing_key).map_err(|_| Refused::Unsigned)?;
    mac.update(body);
    let expected: [u8; 32] = mac.finalize().into_bytes().into();
    let given = hex::decode(signature.trim()).unwrap_or_default();
    if !bool::from(given.ct_eq(&expected)) {
        return Err(Refused::Unsigned);
    }
    let message: Alchemy = serde_json::from_slice(body).map_err(|_| Refused::Unreadable)?;
    let made: Time = message.created_at.parse().map_err(|_| Refused::Unreadable)?;
    if now.since(made).max(made.since(now)) > RECEIVE_WINDOW {
        return Err(Refused::Unsigned);
    }
    let mut hashes: Vec<Hash> = message.event.activity.iter().filter_map(|one| one.hash.to_ascii_lowercase().parse().ok()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.truncate(NAMED_MAX);
    Ok(Message { id: format!("alchemy:{}", message.id), hashes })
}

/// Puts a message into the queue; false when it was there already.
///
/// # Errors
/// When the store does not answer: then the sender tries again.
pub async fn take(gateway: &Gateway, network: &Network, message: &Message) -> Result<bool, crate::store::StoreError> {
    let taken = gateway.store.put_hints(network, &message.id, &message.hashes, clock::now()).await?;
    if taken {
        gateway.signal(Wake::Look);
    }
    Ok(taken)
}

/// Looks at what is in the queue, until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut signals = gateway.listen();
    loop {
        if let Err(error) = look_at_due(&gateway).await {
            tracing::warn!(%error, "hints could not be read");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = heard(&mut signals, |wake| *wake == Wake::Look) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn look_at_due(gateway: &Arc<Gateway>) -> Result<(), crate::store::StoreError> {
    for hint in gateway.store.due_hints(clock::now(), ROUND_MAX).await? {
        // Another process may look at it.
        if gateway.store.claim(Queue::Hints, std::slice::from_ref(&hint.id), gateway.duties.holder()).await?.is_empty() {
            continue;
        }
        let next = look_at(gateway, &hint).await;
        gateway.store.put_hint(&hint.id, hint.tries.saturating_add(1), next, clock::now()).await?;
    }
    Ok(())
}

/// Looks at one; when to look again, if it is not done.
async fn look_at(gateway: &Arc<Gateway>, hint: &HintRow) -> Option<Time> {
    // A network that was removed from the configuration has nobody to ask.
    let part = gateway.networks().get(&hint.network)?;
    let again = || TRIES.get(usize::try_from(hint.tries).ok()?).map(|pause| clock::now().plus(*pause));
    match transactions::look(gateway, part, hint.hash).await {
        Ok(known) => match known.standing {
            Standing::Recorded | Standing::Failed(_) | Standing::Foreign => None,
            // What is in a block that comes next is read without us.
            Standing::Unread => None,
            Standing::Waiting | Standing::Unknown => again(),
        },
        Err(problem) => {
            tracing::warn!(network = %hint.network, tx_hash = %hint.hash, code = problem.code, "a hint could not be looked at: {}", problem.detail);
            again()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "661f1df8402c1ee3bd7e43f3de9f0e9b5c53c3e8e5e1d1a35e3c3f8f8f0b1234";

    fn alchemy(key: &str, created_at: &str, hashes: &[&str]) -> (String, Vec<u8>) {
        let activity: Vec<_> = hashes.iter().map(|hash| serde_json::json!({ "hash": hash, "value": 12.5, "category": "token" })).collect();
        let body = serde_json::json!({ "webhookId": "wh_1", "id": "whevt_1", "createdAt": created_at, "type": "ADDRESS_ACTIVITY",
            "event": { "network": "ETH_MAINNET", "activity": activity } })
        .to_string()
        .into_bytes();
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(&body);
        (hex::encode(mac.finalize().into_bytes()), body)
    }

    #[test]
    fn an_alchemy_webhook_names_its_transactions() {
        let now: Time = "2026-11-26T10:00:00.000Z".parse().unwrap();
        let prefixed = format!("0x{}", HASH.to_uppercase());
        let (signature, body) = alchemy("whsec_key", "2026-11-26T09:58:00.000Z", &[&prefixed, HASH, "0x12", "no hash"]);
        let read = |key: &str, signature: &str, body: &[u8], now: Time| read_alchemy(key.as_bytes(), signature, body, now);
        assert_eq!(
            read("whsec_key", &signature, &body, now),
            Ok(Message { id: "alchemy:whevt_1".into(), hashes: vec![HASH.parse().unwrap()] })
        );
        let mut edited = body.clone();
        let last = edited.len() - 2;
        edited[last] ^= 1;
        let table = [
            ("another key", read("other", &signature, &body, now)),
            ("edited", read("whsec_key", &signature, &edited, now)),
            ("no signature", read("whsec_key", "", &body, now)),
            ("half a signature", read("whsec_key", &signature[..32], &body, now)),
            ("not hex", read("whsec_key", "zz", &body, now)),
            ("stale", read("whsec_key", &signature, &body, now.plus(Span::from_secs(181)))),
            ("from tomorrow", read("whsec_key", &signature, &body, now.minus(Span::from_secs(500)))),
        ];
        for (what, found) in table {
            assert_eq!(found, Err(Refused::Unsigned), "{what}");
        }
        let (signature, body) = alchemy("whsec_key", "yesterday", &[HASH]);
        assert_eq!(read("whsec_key", &signature, &body, now), Err(Refused::Unreadable));
    }

    #[test]
    fn our_own_form_names_one_transaction() {
        let now = Time::from_secs(1_700_000_000);
        let secret = b"0123456789abcdef";
        let read = |id: &str, body: &str, at: i64, now: Time| {
            let signature = notify::signature(secret, "msg_1", at, body.as_bytes());
            read_own(secret, (id, &at.to_string(), &signature), body.as_bytes(), now)
        };
        let good = format!(r#"{{"tx_hash":"0x{HASH}"}}"#);
        assert_eq!(read("msg_1", &good, 1_700_000_000, now).map(|message| message.hashes), Ok(vec![HASH.parse().unwrap()]));
        assert_eq!(read("msg_2", &good, 1_700_000_000, now), Err(Refused::Unsigned), "another id");
        assert_eq!(read("msg_1", &good, 1_700_000_000, now.plus(Span::from_secs(301))), Err(Refused::Unsigned), "stale");
        for wrong in [r#"{"tx_hash":"0x12"}"#, r#"{"tx_hash":7}"#, r#"{"tx_hash":"x","more":1}"#, "[]", ""] {
            assert_eq!(read("msg_1", wrong, 1_700_000_000, now), Err(Refused::Unreadable), "{wrong}");
        }
    }
}
