//! What the shop is told, and when: event types, the Standard Webhooks body and signature, and the
//! times of the tries. <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::id::EventId;
use crate::time::{Span, Time};
use crate::wallet::names;

/// What happened: to an order, or to something that an operator should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The order was created.
    Pending,
    /// Money arrived, and it is still below what is due.
    Underpaid,
    /// Enough has arrived; it is not settled yet.
    Confirming,
    /// Enough has settled. Once for ever.
    Paid,
    /// More than the amount has settled.
    Overpaid,
    /// A transfer after the order's time has settled.
    LatePayment,
    /// The order's time passed without enough.
    Expired,
    /// A person cancelled the order.
    Cancelled,
    /// The chain took back money of a paid order.
    PaymentReverted,
    /// A transaction that was to pay the order failed on the chain.
    PaymentFailed,
    /// A deposit to a customer's permanent address has settled.
    DepositSettled,
    /// A paid order made or extended a membership.
    MembershipActivated,
    /// An alert was raised, acknowledged or closed.
    WalletAlert,
}

names!(EventType:
    Pending "order.pending",
    Underpaid "order.underpaid",
    Confirming "order.confirming",
    Paid "order.paid",
    Overpaid "order.overpaid",
    LatePayment "order.late_payment",
    Expired "order.expired",
    Cancelled "order.cancelled",
    PaymentReverted "order.payment_reverted",
    PaymentFailed "order.payment_failed",
    DepositSettled "deposit.settled",
    MembershipActivated "membership.activated",
    WalletAlert "wallet.alert",
);

/// When each try of a delivery is due, after the event.
pub const TRIES: [Span; 10] = [
    Span::ZERO,
    Span::from_secs(5),
    Span::from_secs(5 * 60),
    Span::from_secs(30 * 60),
    Span::from_secs(2 * 3_600),
    Span::from_secs(5 * 3_600),
    Span::from_secs(10 * 3_600),
    Span::from_secs(14 * 3_600),
    Span::from_secs(20 * 3_600),
    Span::from_secs(24 * 3_600),
];

/// When the next try of a delivery is due after `tries` failed ones, never before `now`; `None`
/// once the schedule is used up.
///
/// Tries that were missed (the gateway was down for an hour) are not made up for one by one: the
/// next one is due at once and the rest keep their places.
#[must_use]
pub fn next_try(event_at: Time, tries: u32, now: Time) -> Option<Time> {
    let tries = usize::try_from(tries).ok()?;
    let due = event_at.plus(*TRIES.get(tries)?);
    Some(due.max(now))
}

/// The body of a webhook, fixed at the event and the same in every try.
#[derive(Serialize)]
struct Body<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: Time,
    data: &'a T,
}

/// The fields of the body of a webhook about `data`, to be written as JSON by the caller.
pub fn body<T: Serialize>(kind: EventType, at: Time, data: &T) -> impl Serialize {
    Body { kind: kind.name(), timestamp: at, data }
}

/// The type of what is sent by hand to see whether a receiver works. Nothing happened: it is no
/// [`EventType`], is in no list of events, and no filter names it.
pub const TEST_TYPE: &str = "webhook.test";

/// The fields of the body of such a webhook, to be written as JSON by the caller.
pub fn test_body<T: Serialize>(at: Time, data: &T) -> impl Serialize {
    Body { kind: TEST_TYPE, timestamp: at, data }
}

/// The `webhook-signature` header of a delivery: `v1,` and the base64 of HMAC-SHA256 over
/// `id.timestamp.body`, keyed with the secret's raw bytes. `sent_at_secs` is what the
/// `webhook-timestamp` header says.
#[must_use]
pub fn signature(secret: &[u8], id: &str, sent_at_secs: i64, body: &[u8]) -> String {
    format!("v1,{}", BASE64.encode(mac(secret, id, sent_at_secs, body)))
}

/// Where a webhook's id comes from.
#[must_use]
pub fn webhook_id(event: EventId) -> String {
    event.to_string()
}

/// How far the time of a received webhook may be from ours.
pub const RECEIVE_WINDOW: Span = Span::from_secs(5 * 60);

/// Why a received webhook is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No signature of the header matches.
    #[error("no signature matches the body")]
    Mismatch,
    /// The timestamp is more than five minutes away.
    #[error("the timestamp is more than five minutes from now")]
    Stale,
}

/// Verifies a received webhook: one of the space-separated signatures must match, in constant
/// time, and the timestamp must be within [`RECEIVE_WINDOW`] of now.
///
/// # Errors
/// [`VerifyError`] says which of the two failed.
pub fn verify(secret: &[u8], id: &str, sent_at_secs: i64, body: &[u8], signatures: &str, now: Time) -> Result<(), VerifyError> {
    let expected = mac(secret, id, sent_at_secs, body);
    let matches = signatures
        .split(' ')
        .filter_map(|signature| BASE64.decode(signature.strip_prefix("v1,")?).ok())
        .any(|signature| bool::from(signature.ct_eq(&expected)));
    if !matches {
        return Err(VerifyError::Mismatch);
    }
    let sent_at = Time::from_secs(sent_at_secs);
    if now.since(sent_at).max(sent_at.since(now)) > RECEIVE_WINDOW {
        return Err(VerifyError::Stale);
    }
    Ok(())
}

fn mac(secret: &[u8], id: &str, sent_at_secs: i64, body: &[u8]) -> Vec<u8> {
    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any key length");
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(sent_at_secs.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().to_vec()
}

/// What a webhook secret starts with; the rest is the base64 of its raw bytes.
pub const SECRET_PREFIX: &str = "whsec_";

/// The raw bytes of a `whsec_…` secret.
#[must_use]
pub fn secret_bytes(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.strip_prefix(SECRET_PREFIX)?).ok().filter(|secret| secret.len() >= 16)
}

/// The text of a webhook secret.
#[must_use]
pub fn secret_text(bytes: &[u8]) -> String {
    format!("{SECRET_PREFIX}{}", BASE64.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries (`msg_p5jXN8AQM9LWM0D4loKWxJek`).
    #[test]
    fn signs_as_standard_webhooks_does() {
        let secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, at, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let signed = signature(&secret, id, at, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");

        let now = Time::from_secs(at);
        let both = format!("v1,AAAA {signed}");
        assert_eq!(verify(&secret, id, at, body, &both, now), Ok(()));
        assert_eq!(verify(&secret, id, at, body, &both, now.plus(Span::from_secs(301))), Err(VerifyError::Stale));
        assert_eq!(verify(&secret, id, at, body, &both, now.minus(Span::from_secs(301))), Err(VerifyError::Stale));
        assert_eq!(verify(&secret, id, at, b"{}", &both, now), Err(VerifyError::Mismatch));
        assert_eq!(verify(b"another", id, at, body, &both, now), Err(VerifyError::Mismatch));
        assert_eq!(verify(&secret, id, at, body, "", now), Err(VerifyError::Mismatch));
    }

    #[test]
    fn tries_follow_the_schedule_and_end() {
        let at = Time::from_secs(1_000);
        assert_eq!(next_try(at, 0, at), Some(at));
        assert_eq!(next_try(at, 1, at), Some(at.plus(Span::from_secs(5))));
        assert_eq!(next_try(at, 9, at), Some(at.plus(Span::from_secs(86_400))));
        assert_eq!(next_try(at, 10, at), None);
        let back = at.plus(Span::from_secs(3_600));
        assert_eq!(next_try(at, 1, back), Some(back), "a missed try is due at once");
    }
}
