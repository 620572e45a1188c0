//! Verifies a webhook by the Standard Webhooks scheme: an HMAC-SHA256 over `id.timestamp.body` with
//! the bytes behind `whsec_`, and a timestamp that is near. Uses the raw body, never one that was
//! parsed and written again. This is all of it.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// How far the time of a webhook may be from ours. What is older may have been recorded by somebody.
pub const TOLERANCE_S: u64 = 5 * 60;

/// The bytes of a secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.
#[must_use]
pub fn key(secret: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret.strip_prefix("whsec_")?).ok()
}

/// The id of the event, if one of the signatures is right and the time is near; else answer 401. The
/// id is the same in every try: handle each once.
#[must_use]
pub fn verify(key: &[u8], headers: &HeaderMap, body: &[u8], now_s: u64) -> Option<String> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let (id, sent_at, signatures) = (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    if sent_at.parse::<u64>().ok()?.abs_diff(now_s) > TOLERANCE_S {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(format!("{id}.{sent_at}.").as_bytes());
    mac.update(body);
    // `verify_slice` takes the same time whatever is wrong.
    let is_right = |signature: Vec<u8>| mac.clone().verify_slice(&signature).is_ok();
    let genuine = signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok()).any(is_right);
    genuine.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn the_published_signature_verifies_and_no_other() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let sent = |id: &'static str, at: &'static str, signature: &'static str, body: &str, now_s: u64| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", signature)] {
                headers.insert(name, value.parse().unwrap());
            }
            verify(&key, &headers, body.as_bytes(), now_s)
        };
        let (id, at, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let now = 1_614_265_330;
        assert_eq!(sent(id, at, good, body, now).as_deref(), Some(id));
        assert_eq!(sent(id, at, "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", body, now + 300).as_deref(), Some(id));
        for (what, found) in [
            ("edited", sent(id, at, good, "{}", now)),
            ("another id", sent("msg_2", at, good, body, now)),
            ("another time", sent(id, "1614265331", good, body, now)),
            ("another scheme", sent(id, at, "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", body, now)),
            ("unsigned", sent(id, at, "", body, now)),
            ("stale", sent(id, at, good, body, now + 301)),
            ("early", sent(id, at, good, body, now - 301)),
            ("no time", sent(id, "soon", good, body, now)),
        ] {
            assert_eq!(found, None, "{what}");
        }
        assert_eq!(verify(&key, &HeaderMap::new(), body.as_bytes(), now), None);
    }
}
