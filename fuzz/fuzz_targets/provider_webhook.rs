//! Webhooks of payment providers: the first line of an input is a header, the second a JSON pointer and
//! a form of what is signed, the rest the body. Nothing verifies but what was signed; what is sorted is
//! the same JSON; a pointer finds what another reader finds.
#![no_main]

use hmac::{Hmac, KeyInit as _, Mac as _};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sha2::{Sha256, Sha512};
use tidegate::config::SecretText;
use tidegate::providers::{Algorithm, Encoding, HmacScheme, IdIn, Lists, Pointer, Refused, Scheme, Signed, sorted_json, verify};
use tidegate_fuzz::two;
use tidegate_rules::time::Time;

const SECRET: &str = "a secret of the fuzzers, long enough";
const NOW_S: i64 = 1_700_000_000;

fuzz_target!(|data: &[u8]| {
    let Some((header, rest)) = two(data) else { return };
    let Some((line, body)) = two(rest) else { return };
    let (Ok(header), Ok(line)) = (str::from_utf8(header), str::from_utf8(line)) else { return };
    let (pointer, signed) = line.split_once(' ').unwrap_or((line, "{body}"));
    sorting(body);
    finding(pointer, body);
    stripe(header, body);
    nowpayments(header, body);
    if let Some(signed) = Signed::parse(signed) {
        hmac(header, pointer, &signed, body);
    }
});

fn check(scheme: &Scheme, headers: &[(&str, &str)], body: &[u8]) -> Result<String, Refused> {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    verify(scheme, &SecretText::new(SECRET), &header, body, Time::from_secs(NOW_S)).map(|verified| verified.id)
}

/// Signed, whatever its id is.
fn is_signed(found: &Result<String, Refused>) -> bool {
    match found {
        Ok(id) => {
            assert!(!id.is_empty() && id.chars().count() <= 200 && !id.chars().any(char::is_control), "no id to keep: {id:?}");
            true
        }
        Err(refused) => *refused == Refused::Unnamed,
    }
}

fn sha256(parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key length");
    parts.iter().for_each(|part| mac.update(part));
    hex::encode(mac.finalize().into_bytes())
}

fn sha512(content: &[u8]) -> String {
    let mut mac = Hmac::<Sha512>::new_from_slice(SECRET.as_bytes()).expect("any key length");
    mac.update(content);
    hex::encode(mac.finalize().into_bytes())
}

fn sorting(body: &[u8]) {
    let Some(sorted) = sorted_json(body, Lists::AsTheyAre) else { return };
    assert_eq!(sorted_json(sorted.as_bytes(), Lists::AsTheyAre).as_deref(), Some(&*sorted), "sorted twice");
    // Half a surrogate in a text, and a number without an end, are kept as they are and read by nobody.
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        assert_eq!(serde_json::from_str::<Value>(&sorted).ok(), Some(value), "another JSON");
    }
    let objects = sorted_json(body, Lists::AsObjects).expect("it was sorted");
    assert!(sorted_json(objects.as_bytes(), Lists::AsObjects).is_some(), "{objects}");
}

fn finding(pointer: &str, body: &[u8]) {
    let Some(found) = Pointer::parse(pointer).and_then(|pointer| pointer.find(body)) else { return };
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    match value.pointer(pointer) {
        Some(Value::String(text)) => assert_eq!(*text, found),
        Some(number @ Value::Number(_)) => assert_eq!(serde_json::from_str::<Value>(&found).ok().as_ref(), Some(number)),
        other => panic!("{pointer} is {other:?}, found {found}"),
    }
}

fn stripe(header: &str, body: &[u8]) {
    let given = check(&Scheme::Stripe, &[("stripe-signature", header)], body);
    assert_eq!(given, Err(Refused::Unsigned), "nobody guesses a MAC");
    let at = NOW_S.to_string();
    let v1 = sha256(&[at.as_bytes(), b".", body]);
    let has_time = header.split(',').any(|element| element.trim().starts_with("t="));
    let many = header.split(',').count() > 8;
    let found = check(&Scheme::Stripe, &[("stripe-signature", &format!("{header},t={at},v1={v1}"))], body);
    assert!(many || is_signed(&found) != has_time, "{header}: {found:?}");
    let stale = (NOW_S - 301).to_string();
    let v1 = sha256(&[stale.as_bytes(), b".", body]);
    let found = check(&Scheme::Stripe, &[("stripe-signature", &format!("t={stale},v1={v1}"))], body);
    assert_eq!(found, Err(Refused::Unsigned), "stale");
}

fn nowpayments(header: &str, body: &[u8]) {
    let given = check(&Scheme::Nowpayments, &[("x-nowpayments-sig", header)], body);
    assert_eq!(given, Err(Refused::Unsigned), "nobody guesses a MAC");
    for lists in [Lists::AsTheyAre, Lists::AsObjects] {
        let Some(sorted) = sorted_json(body, lists) else { return };
        assert!(is_signed(&check(&Scheme::Nowpayments, &[("x-nowpayments-sig", &sha512(sorted.as_bytes()))], body)));
    }
}

fn hmac(header: &str, pointer: &str, signed: &Signed, body: &[u8]) {
    let id = match Pointer::parse(pointer).filter(|_| !signed.has_id()) {
        Some(pointer) => IdIn::Body(pointer),
        None => IdIn::Header("id".to_owned()),
    };
    let scheme = Scheme::Hmac(HmacScheme {
        header: "signature".to_owned(),
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Hex,
        prefix: String::new(),
        signed: signed.clone(),
        timestamp_header: signed.has_timestamp().then(|| "at".to_owned()),
        id,
    });
    let headers = [("signature", header), ("id", "m1"), ("at", "1700000000")];
    assert_eq!(check(&scheme, &headers, body), Err(Refused::Unsigned), "nobody guesses a MAC");
    // The body alone is signed by a form that has nothing before it.
    if *signed == Signed::body() {
        assert!(is_signed(&check(&scheme, &[("signature", &sha256(&[body])), ("id", "m1")], body)));
    }
}
