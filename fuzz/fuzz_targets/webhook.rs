//! `webhook-signature` headers: three lines of an input are id, signatures and secret, the rest is the
//! body. Nothing verifies but what was signed with the secret, and no other time, id or body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::two;
use tidegate_rules::notify::{RECEIVE_WINDOW, VerifyError, secret_bytes, secret_text, signature, verify};
use tidegate_rules::time::{Span, Time};

const SECRET: &[u8] = b"a secret of the fuzzers, long enough";

fuzz_target!(|data: &[u8]| {
    let Some((id, rest)) = two(data) else { return };
    let Some((signatures, rest)) = two(rest) else { return };
    let Some((secret, body)) = two(rest) else { return };
    let (Ok(id), Ok(signatures), Ok(secret)) = (str::from_utf8(id), str::from_utf8(signatures), str::from_utf8(secret)) else { return };
    if let Some(bytes) = secret_bytes(secret) {
        assert!(bytes.len() >= 16);
        assert_eq!(secret_bytes(&secret_text(&bytes)), Some(bytes));
    }
    let at = i64::from(body.first().copied().unwrap_or(0)) * 1_000_000;
    let now = Time::from_secs(at);
    // Nobody guesses a MAC.
    assert_eq!(verify(SECRET, id, at, body, signatures, now), Err(VerifyError::Mismatch));

    let signed = signature(SECRET, id, at, body);
    // It is found among others, whatever those are.
    for header in [signed.clone(), format!("{signatures} {signed}"), format!("{signed} {signatures}")] {
        assert_eq!(verify(SECRET, id, at, body, &header, now), Ok(()));
    }
    let late = RECEIVE_WINDOW.millis() + 1_000;
    for wrong in [now.plus(Span::from_millis(late)), now.minus(Span::from_millis(late))] {
        assert_eq!(verify(SECRET, id, at, body, &signed, wrong), Err(VerifyError::Stale));
    }
    for (at, id, body) in
        [(at + 1, id.to_owned(), body.to_vec()), (at, format!("{id}x"), body.to_vec()), (at, id.to_owned(), [body, b"x"].concat())]
    {
        assert_eq!(verify(SECRET, &id, at, &body, &signed, Time::from_secs(at)), Err(VerifyError::Mismatch));
    }
    for extreme in [i64::MIN, i64::MAX] {
        let signed = signature(SECRET, id, extreme, body);
        let _ = verify(SECRET, id, extreme, body, &signed, now);
    }
});
