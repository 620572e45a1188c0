//! How payment providers sign what they send, by their documented rules: which bytes are signed,
//! with what, and what makes a message the same as one before. Pure: no store, no clock.
//!
//! Nothing here believes what a message says. That it is signed makes it a hint (see
//! [`crate::inbox`]), never money.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use tidegate_rules::notify::{self, RECEIVE_WINDOW};
use tidegate_rules::time::Time;

use crate::config::SecretText;

/// The longest text that is taken out of a message, in characters: an id, a hash, an order's number.
pub const TEXT_MAX: usize = 200;

/// How many signatures of one header are looked at.
const SIGNATURES_MAX: usize = 16;

/// How deep JSON may be nested where its names are sorted. Each level is read once more, for whoever
/// sends it.
const DEPTH_MAX: u8 = 8;

/// Seconds since 1970 above this are milliseconds: the year 5138.
const SECONDS_MAX: i64 = 100_000_000_000;

/// How a provider signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// An HMAC in a header, as configured.
    Hmac(HmacScheme),
    /// Standard Webhooks: `webhook-signature: v1,<base64>` over `id.timestamp.body`.
    /// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
    Standard,
    /// `Stripe-Signature: t=…,v1=…`, see [`verify`].
    Stripe,
    /// `x-nowpayments-sig`, see [`verify`].
    Nowpayments,
}

/// An HMAC in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacScheme {
    /// The header with the signature.
    pub header: String,
    /// The hash.
    pub algorithm: Algorithm,
    /// How the signature is written.
    pub encoding: Encoding,
    /// What stands before it in the header, such as `sha256=`.
    pub prefix: String,
    /// What is signed.
    pub signed: Signed,
    /// The header that says when it was sent. Without one, a message is told from its repetition by
    /// its id alone.
    pub timestamp_header: Option<String>,
    /// Where its id is.
    pub id: IdIn,
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hex digits of either case.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// Where the id of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdIn {
    /// In a header.
    Header(String),
    /// In the JSON body.
    Body(Pointer),
}

/// What is signed: texts around `{timestamp}`, `{id}` and, last, `{body}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Words(String),
    Timestamp,
    Id,
    Body,
}

impl Signed {
    /// The body alone.
    #[must_use]
    pub fn body() -> Self {
        Self(vec![Piece::Body])
    }

    /// The time, a dot, the body.
    #[must_use]
    pub fn timestamp_and_body() -> Self {
        Self(vec![Piece::Timestamp, Piece::Words(".".to_owned()), Piece::Body])
    }

    /// Reads a form such as `{timestamp}.{body}`. The body is signed once, and everything that goes
    /// before it is named; else `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((words, tail)) = rest.split_once('{') {
            let (name, tail) = tail.split_once('}')?;
            if !words.is_empty() {
                pieces.push(Piece::Words(words.to_owned()));
            }
            pieces.push(match name {
                "timestamp" => Piece::Timestamp,
                "id" => Piece::Id,
                "body" => Piece::Body,
                _ => return None,
            });
            rest = tail;
        }
        let bodies = pieces.iter().filter(|piece| **piece == Piece::Body).count();
        let stray = pieces.iter().any(|piece| matches!(piece, Piece::Words(words) if words.contains('}')));
        (rest.is_empty() && !stray && bodies == 1 && pieces.last() == Some(&Piece::Body)).then_some(Self(pieces))
    }

    /// True when the time is part of what is signed.
    #[must_use]
    pub fn has_timestamp(&self) -> bool {
        self.0.contains(&Piece::Timestamp)
    }

    /// True when the id, where it is in a header, is part of what is signed.
    #[must_use]
    pub fn has_id(&self) -> bool {
        self.0.contains(&Piece::Id)
    }
}

/// A JSON pointer (RFC 6901) to one text or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/data/id`. It is not empty and at most sixteen steps long.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const STEPS_MAX: usize = 16;
        let steps: Vec<String> = text.strip_prefix('/')?.split('/').map(unescaped).collect::<Option<_>>()?;
        (steps.len() <= STEPS_MAX).then_some(Self(steps))
    }

    /// The text or the number that it points to, as it stands in the body; `None` for anything else,
    /// for what is too long or holds control characters, and where a name is there twice.
    #[must_use]
    pub fn find(&self, body: &[u8]) -> Option<String> {
        let mut at: &RawValue = serde_json::from_slice(body).ok()?;
        for step in &self.0 {
            at = match at.get().as_bytes().first()? {
                b'{' => members(at.get())?.into_iter().find(|(name, _)| name == step)?.1,
                b'[' => {
                    let items: Vec<&RawValue> = serde_json::from_str(at.get()).ok()?;
                    // RFC 6901: no sign, no leading zero.
                    let index: usize = step.parse().ok().filter(|index: &usize| index.to_string() == *step)?;
                    *items.get(index)?
                }
                _ => return None,
            };
        }
        let text = match at.get().as_bytes().first()? {
            b'"' => serde_json::from_str(at.get()).ok()?,
            b'-' | b'0'..=b'9' => at.get().to_owned(),
            _ => return None,
        };
        plain(text)
    }
}

/// `~1` is `/` and `~0` is `~`, and nothing else begins with `~`.
fn unescaped(step: &str) -> Option<String> {
    let escapes = step.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    escapes.then(|| step.replace("~1", "/").replace("~0", "~"))
}

/// A text that may be kept and shown.
fn plain(text: String) -> Option<String> {
    let fits = (1..=TEXT_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then_some(text)
}

/// A message whose signature is right and whose time is near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its id, unique for its sender.
    pub id: String,
    /// The hash of what was signed, where its id was not: another id makes the same message no new
    /// one.
    pub digest: Option<String>,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its signature is missing or wrong, or it is too old: 401.
    #[error("the signature is missing, wrong, or more than five minutes old")]
    Unsigned,
    /// It is signed and has no id: 422.
    #[error("expected an id of 1 to {TEXT_MAX} characters where the configuration says it is")]
    Unnamed,
}

/// Verifies a message, each signature in constant time, and a time within five minutes of `now`
/// where the provider signs one. `header` gives the first header of a name.
///
/// - **Stripe**: HMAC-SHA256 over `{t}.{body}` in hex, keyed with the text of the endpoint's secret;
///   of several `v1` one must match, other schemes are ignored. Its id is the event's.
///   <https://docs.stripe.com/webhooks#verify-manually>
/// - **NOWPayments**: HMAC-SHA512 in hex over the body written without spaces and with the names of
///   every object sorted. Numbers and texts stay as they are. Of lists the documented Node.js example
///   makes objects with the names `0`, `1`, …, and the PHP example leaves them alone: either is
///   accepted. There is no time in it, so a repetition is known by `payment_id` and
///   `payment_status` (of a payout: `id` and `status`) alone.
///   <https://documenter.getpostman.com/view/7907941/S1a32n38>,
///   <https://nowpayments.zendesk.com/hc/en-us/articles/21395546303389-IPN-and-how-to-setup>
///
/// # Errors
/// [`Refused`] says what to answer.
pub fn verify<'a>(
    scheme: &Scheme,
    secret: &SecretText,
    header: &dyn Fn(&str) -> Option<&'a str>,
    body: &[u8],
    now: Time,
) -> Result<Verified, Refused> {
    match scheme {
        Scheme::Hmac(scheme) => verify_hmac(scheme, secret, header, body, now),
        Scheme::Standard => verify_standard(secret, header, body, now),
        Scheme::Stripe => {
            verify_stripe(secret, header("stripe-signature").ok_or(Refused::Unsigned)?, body, now)?;
            let id = Pointer(vec!["id".to_owned()]).find(body).ok_or(Refused::Unnamed)?;
            Ok(Verified { id, digest: None })
        }
        Scheme::Nowpayments => {
            verify_nowpayments(secret, header("x-nowpayments-sig").ok_or(Refused::Unsigned)?, body)?;
            let text = |name: &str| Pointer(vec![name.to_owned()]).find(body);
            let named = text("payment_id").zip(text("payment_status")).or_else(|| text("id").zip(text("status")));
            let (id, status) = named.ok_or(Refused::Unnamed)?;
            Ok(Verified { id: plain(format!("{id}:{status}")).ok_or(Refused::Unnamed)?, digest: None })
        }
    }
}

fn verify_hmac<'a>(
    scheme: &HmacScheme,
    secret: &SecretText,
    header: &dyn Fn(&str) -> Option<&'a str>,
    body: &[u8],
    now: Time,
) -> Result<Verified, Refused> {
    let given = header(&scheme.header).and_then(|text| text.trim().strip_prefix(&scheme.prefix)).ok_or(Refused::Unsigned)?;
    let timestamp = match &scheme.timestamp_header {
        Some(name) => header(name).ok_or(Refused::Unsigned)?,
        None => "",
    };
    let id = match &scheme.id {
        IdIn::Header(name) => header(name).and_then(|id| plain(id.trim().to_owned())),
        IdIn::Body(_) => None,
    };
    let mut content = Vec::with_capacity(body.len().saturating_add(TEXT_MAX));
    for piece in &scheme.signed.0 {
        content.extend_from_slice(match piece {
            Piece::Words(words) => words.as_bytes(),
            Piece::Timestamp => timestamp.as_bytes(),
            Piece::Id => id.as_deref().ok_or(Refused::Unsigned)?.as_bytes(),
            Piece::Body => body,
        });
    }
    if !is_mac(scheme.algorithm, secret, &[&content], &decoded(scheme.encoding, given)) {
        return Err(Refused::Unsigned);
    }
    if scheme.timestamp_header.is_some() && !moment(timestamp).is_some_and(|sent_at| is_near(sent_at, now)) {
        return Err(Refused::Unsigned);
    }
    let (id, digest) = match &scheme.id {
        IdIn::Body(pointer) => (pointer.find(body), None),
        IdIn::Header(_) if scheme.signed.has_id() => (id, None),
        IdIn::Header(_) => (id, Some(hex::encode(Sha256::digest(&content)))),
    };
    Ok(Verified { id: id.ok_or(Refused::Unnamed)?, digest })
}

fn verify_standard<'a>(secret: &SecretText, header: &dyn Fn(&str) -> Option<&'a str>, body: &[u8], now: Time) -> Result<Verified, Refused> {
    let key = notify::secret_bytes(secret.expose()).ok_or(Refused::Unsigned)?;
    let id = header("webhook-id").ok_or(Refused::Unsigned)?;
    let sent_at = header("webhook-timestamp").and_then(|text| text.parse().ok()).ok_or(Refused::Unsigned)?;
    let signatures = header("webhook-signature").ok_or(Refused::Unsigned)?;
    notify::verify(&key, id, sent_at, body, signatures, now).map_err(|_| Refused::Unsigned)?;
    Ok(Verified { id: plain(id.to_owned()).ok_or(Refused::Unnamed)?, digest: None })
}

fn verify_stripe(secret: &SecretText, header: &str, body: &[u8], now: Time) -> Result<(), Refused> {
    let elements = || header.split(',').filter_map(|element| element.trim().split_once('='));
    let mut times = elements().filter(|(name, _)| *name == "t").map(|(_, value)| value);
    // Two times would leave open which of them is signed.
    let (Some(sent_at), None) = (times.next(), times.next()) else { return Err(Refused::Unsigned) };
    let signatures = elements().filter(|(name, _)| *name == "v1").map(|(_, value)| value);
    let content: [&[u8]; 3] = [sent_at.as_bytes(), b".", body];
    let mut matches = false;
    for signature in signatures.take(SIGNATURES_MAX) {
        matches |= is_mac(Algorithm::Sha256, secret, &content, &decoded(Encoding::Hex, signature));
    }
    let near = sent_at.parse().is_ok_and(|seconds| is_near(Time::from_secs(seconds), now));
    if matches && near { Ok(()) } else { Err(Refused::Unsigned) }
}

fn verify_nowpayments(secret: &SecretText, signature: &str, body: &[u8]) -> Result<(), Refused> {
    let given = decoded(Encoding::Hex, signature);
    if given.len() != Sha512::output_size() {
        return Err(Refused::Unsigned);
    }
    let has_lists = body.contains(&b'[');
    for lists in [Lists::AsTheyAre, Lists::AsObjects].into_iter().filter(|lists| *lists == Lists::AsTheyAre || has_lists) {
        let sorted = sorted_json(body, lists).ok_or(Refused::Unsigned)?;
        if is_mac(Algorithm::Sha512, secret, &[sorted.as_bytes()], &given) {
            return Ok(());
        }
    }
    Err(Refused::Unsigned)
}

/// A signature's bytes; none where it does not read, which match no MAC.
fn decoded(encoding: Encoding, text: &str) -> Vec<u8> {
    let text = text.trim();
    match encoding {
        // `hex` would pass over a prefix.
        Encoding::Hex if text.starts_with("0x") => Vec::new(),
        Encoding::Hex => hex::decode(text).unwrap_or_default(),
        Encoding::Base64 => BASE64.decode(text).unwrap_or_default(),
    }
}

/// True when `given` is the MAC of these parts, in a time that does not tell how much of it is.
fn is_mac(algorithm: Algorithm, secret: &SecretText, parts: &[&[u8]], given: &[u8]) -> bool {
    let key = secret.expose().as_bytes();
    let expected = match algorithm {
        Algorithm::Sha256 => Hmac::<Sha256>::new_from_slice(key).map(|mut mac| {
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes().to_vec()
        }),
        Algorithm::Sha512 => Hmac::<Sha512>::new_from_slice(key).map(|mut mac| {
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes().to_vec()
        }),
    };
    expected.is_ok_and(|expected| bool::from(given.ct_eq(&expected)))
}

/// When a message says that it was sent: seconds or milliseconds since 1970, or RFC 3339.
fn moment(text: &str) -> Option<Time> {
    match text.trim().parse::<i64>() {
        Ok(seconds) if seconds < SECONDS_MAX => Some(Time::from_secs(seconds)),
        Ok(millis) => Some(Time::from_millis(millis)),
        Err(_) => text.trim().parse().ok(),
    }
}

fn is_near(sent_at: Time, now: Time) -> bool {
    now.since(sent_at).max(sent_at.since(now)) <= RECEIVE_WINDOW
}

/// What becomes of lists where the names of objects are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// Nothing.
    AsTheyAre,
    /// They become objects whose names count up from 0.
    AsObjects,
}

/// JSON without spaces and with the names of each object in order; its numbers and texts stay as they
/// are. `None` for what is not JSON in UTF-8, is nested too deep, or has a name twice.
#[must_use]
pub fn sorted_json(body: &[u8], lists: Lists) -> Option<String> {
    let value: &RawValue = serde_json::from_slice(body).ok()?;
    let mut sorted = String::with_capacity(body.len());
    sort_into(&mut sorted, value, lists, DEPTH_MAX)?;
    Some(sorted)
}

fn sort_into(out: &mut String, value: &RawValue, lists: Lists, depth_left: u8) -> Option<()> {
    let depth_left = depth_left.checked_sub(1)?;
    let text = value.get();
    let (named, ends) = match text.as_bytes().first()? {
        b'{' => {
            let mut members = members(text)?;
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            let named = members.into_iter().map(|(name, value)| Some((Some(serde_json::to_string(&name).ok()?), value)));
            (named.collect::<Option<Vec<_>>>()?, ('{', '}'))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let name = |index: usize| (lists == Lists::AsObjects).then(|| format!("\"{index}\""));
            let named = items.into_iter().enumerate().map(|(index, value)| (name(index), value)).collect();
            (named, if lists == Lists::AsObjects { ('{', '}') } else { ('[', ']') })
        }
        _ => {
            out.push_str(text);
            return Some(());
        }
    };
    out.push(ends.0);
    for (index, (name, value)) in named.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if let Some(name) = name {
            out.push_str(&name);
            out.push(':');
        }
        sort_into(out, value, lists, depth_left)?;
    }
    out.push(ends.1);
    Some(())
}

/// The members of an object, each value as it stands; `None` where a name is there twice: readers
/// differ in which of the two they believe.
fn members(text: &str) -> Option<Vec<(String, &RawValue)>> {
    let Members(members) = serde_json::from_str(text).ok()?;
    let mut names: Vec<&String> = members.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let twice = names.iter().zip(names.iter().skip(1)).any(|(a, b)| a == b);
    (!twice).then_some(members)
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_700_000_000;

    fn secret(text: &str) -> SecretText {
        SecretText::new(text)
    }

    /// Headers as `name: value` lines.
    fn check(scheme: &Scheme, key: &str, headers: &str, body: &str, now_s: i64) -> Result<Verified, Refused> {
        let headers: Vec<(String, &str)> =
            headers.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, value)| (name.to_lowercase(), value)).collect();
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name.to_lowercase()).map(|(_, value)| *value);
        verify(scheme, &secret(key), &header, body.as_bytes(), Time::from_secs(now_s))
    }

    fn id(text: &str) -> Result<Verified, Refused> {
        Ok(Verified { id: text.to_owned(), digest: None })
    }

    fn hex_mac(algorithm: Algorithm, key: &str, content: &str) -> String {
        match algorithm {
            Algorithm::Sha256 => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
                mac.update(content.as_bytes());
                hex::encode(mac.finalize().into_bytes())
            }
            Algorithm::Sha512 => {
                let mut mac = Hmac::<Sha512>::new_from_slice(key.as_bytes()).unwrap();
                mac.update(content.as_bytes());
                hex::encode(mac.finalize().into_bytes())
            }
        }
    }

    /// The event and the header of the tests of Stripe's own library for .NET (`EventUtilityTest`).
    const STRIPE_BODY: &str = r#"{
  "id": "evt_123",
  "object": "event",
  "account": "acct_123",
  "api_version": "2017-05-25",
  "created": 1533204620,
  "data": {
    "object": {
      "id": "ii_123",
      "object": "invoiceitem",
      "amount": 1000,
      "currency": "usd",
      "customer": "cus_123",
      "date": 1533204620,
      "description": "Test Invoice Item",
      "discountable": false,
      "invoice": "in_123",
      "livemode": false,
      "metadata": {},
      "period": {
        "start": 1533204620,
        "end": 1533204620
      },
      "plan": null,
      "proration": false,
      "quantity": null,
      "subscription": null
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": {
    "id": "req_123",
    "idempotency_key": "idempotency-key-123"
  },
  "type": "invoiceitem.created"
}
"#;
    const STRIPE_V1: &str = "f0bdba6d4eacbd8ad8a3bbadd7248e633ec1477f7899c124c51b39405fa36613";
    const STRIPE_V0: &str = "63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";
    const STRIPE_T: i64 = 1_533_204_620;

    #[test]
    fn stripe_signs_as_its_own_library_does() {
        // Time; header; what is found. `V1` and `V0` stand for the published signatures.
        let table = "
            0     t=1533204620,v1=V1,v0=V0            evt_123
            300   t=1533204620,v1=V1                  evt_123
            -300  t=1533204620,v1=V1                  evt_123
            0     t=1533204620,v1=00,v1=V1            evt_123
            0     v1=V1,t=1533204620                  evt_123
            0     t=1533204620,v2=V0,v1=V1,x          evt_123
            301   t=1533204620,v1=V1                  unsigned
            -301  t=1533204620,v1=V1                  unsigned
            0     t=1533204621,v1=V1                  unsigned
            0     t=01533204620,v1=V1                 unsigned
            0     t=1533204620,v0=V1                  unsigned
            0     t=1533204620,v1=V0                  unsigned
            0     t=1533204620,v1=0xV1                unsigned
            0     t=1533204620,t=1533204620,v1=V1     unsigned
            0     t=1533204620                        unsigned
            0     v1=V1                               unsigned
            0     t=,v1=                              unsigned
            0     V1                                  unsigned";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let [later, header, expected] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            let headers = format!("Stripe-Signature: {}", header.replace("V1", STRIPE_V1).replace("V0", STRIPE_V0));
            let now = STRIPE_T + later.parse::<i64>().unwrap();
            let expected = if expected == "unsigned" { Err(Refused::Unsigned) } else { id(expected) };
            assert_eq!(check(&Scheme::Stripe, "webhook_secret", &headers, STRIPE_BODY, now), expected, "{line}");
        }
        let good = format!("Stripe-Signature: t={STRIPE_T},v1={STRIPE_V1}");
        let edited = STRIPE_BODY.replace("1000", "9000");
        assert_eq!(check(&Scheme::Stripe, "webhook_secret", &good, &edited, STRIPE_T), Err(Refused::Unsigned));
        assert_eq!(check(&Scheme::Stripe, "another_secret", &good, STRIPE_BODY, STRIPE_T), Err(Refused::Unsigned));
        assert_eq!(check(&Scheme::Stripe, "webhook_secret", "", STRIPE_BODY, STRIPE_T), Err(Refused::Unsigned));
        let headers = format!("Stripe-Signature: t={NOW_S},v1={}", hex_mac(Algorithm::Sha256, "k", &format!("{NOW_S}.[]")));
        assert_eq!(check(&Scheme::Stripe, "k", &headers, "[]", NOW_S), Err(Refused::Unnamed), "signed, and no event");
    }

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn standard_webhooks_are_signed_as_its_libraries_do() {
        let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (at, body) = (1_614_265_330, r#"{"test": 2432232314}"#);
        let headers = "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek
            webhook-timestamp: 1614265330
            webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(check(&Scheme::Standard, key, headers, body, at), id("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        for (what, headers, body, now) in [
            ("stale", headers.to_owned(), body, at + 301),
            ("early", headers.to_owned(), body, at - 301),
            ("edited", headers.to_owned(), "{}", at),
            ("another id", headers.replace("msg_p", "msg_q"), body, at),
            ("another time", headers.replace("330", "331"), body, at),
            ("no signature", headers.replace("webhook-signature", "x"), body, at),
            ("no id", headers.replace("webhook-id", "x"), body, at),
            ("no time", headers.replace("webhook-timestamp", "x"), body, at),
        ] {
            assert_eq!(check(&Scheme::Standard, key, &headers, body, now), Err(Refused::Unsigned), "{what}");
        }
    }

    /// Made with the lines of NOWPayments' documentation for Node.js: `JSON.stringify(sortObject(params))`
    /// under HMAC-SHA512.
    const IPN_SECRET: &str = "IPN-secret-of-the-tests-0123456";
    const IPN_BODY: &str = r#"{"payment_id":5077125051,"payment_status":"finished","pay_address":"TNDFkiSmBQorNFacb3735q8MnT29sn8BLn","price_amount":170.00000001,"price_currency":"usd","pay_amount":1e-7,"actually_paid":12.5,"order_id":"INV-1001","order_description":"Späti: 2 × \"Tee\" / grün","fee":{"withdrawalFee":0,"currency":"usdttrc20","depositFee":0.09853637216235617,"serviceFee":0},"payin_extra_id":null,"payment_extra_ids":null}"#;
    const IPN_SIGNATURE: &str =
        "19f5bbe4eada056178a62b26b78dc7b5eca14eda1bdc51fd9f8ced2f49f959ce37193579cf07b22396e6922417278d11e16d2d0003ec4791d00c9ab171af76cd";
    const IPN_WITH_LISTS: &str = r#"{"payment_id":1,"payment_status":"waiting","b":[{"z":1,"a":[]},2]}"#;
    const IPN_WITH_LISTS_SIGNATURE: &str =
        "ca4aff93db58fd89e8fdb64fd96a86a1398715604e8455797ecd6ef5796debd37965db41aa00969765953341de3b87e5ff59dd0ec6311474dada640163e55581";

    #[test]
    fn nowpayments_signs_the_sorted_body() {
        let check = |key: &str, signature: &str, body: &str| {
            check(&Scheme::Nowpayments, key, &format!("x-nowpayments-sig: {signature}"), body, NOW_S)
        };
        assert_eq!(check(IPN_SECRET, IPN_SIGNATURE, IPN_BODY), id("5077125051:finished"));
        assert_eq!(check(IPN_SECRET, &IPN_SIGNATURE.to_uppercase(), IPN_BODY), id("5077125051:finished"));
        assert_eq!(check(IPN_SECRET, IPN_WITH_LISTS_SIGNATURE, IPN_WITH_LISTS), id("1:waiting"));
        // The same in another order and with spaces is the same message.
        let spaced = IPN_BODY.replace("{\"payment_id\":5077125051,", "{ ").replace("null}", "null, \"payment_id\" : 5077125051\n}");
        assert_eq!(check(IPN_SECRET, IPN_SIGNATURE, &spaced), id("5077125051:finished"));
        // A list that was left alone, as the documentation's PHP does.
        let php = hex_mac(Algorithm::Sha512, IPN_SECRET, r#"{"b":[{"a":[],"z":1},2],"payment_id":1,"payment_status":"waiting"}"#);
        assert_eq!(check(IPN_SECRET, &php, IPN_WITH_LISTS), id("1:waiting"));
        for (what, key, signature, body) in [
            ("another key", "other", IPN_SIGNATURE, IPN_BODY.to_owned()),
            ("another number", IPN_SECRET, IPN_SIGNATURE, IPN_BODY.replace("12.5", "12.50")),
            ("a number written otherwise", IPN_SECRET, IPN_SIGNATURE, IPN_BODY.replace("1e-7", "0.0000001")),
            ("a nested value", IPN_SECRET, IPN_SIGNATURE, IPN_BODY.replace("usdttrc20", "usdterc20")),
            ("more", IPN_SECRET, IPN_SIGNATURE, IPN_BODY.replace("null}", "null,\"x\":1}")),
            ("a name twice", IPN_SECRET, IPN_SIGNATURE, IPN_BODY.replace("null}", "null,\"payment_id\":5077125051}")),
            ("no JSON", IPN_SECRET, IPN_SIGNATURE, "payment_id=1".to_owned()),
            ("half a signature", IPN_SECRET, &IPN_SIGNATURE[..64], IPN_BODY.to_owned()),
            ("no signature", IPN_SECRET, "", IPN_BODY.to_owned()),
        ] {
            assert_eq!(check(key, signature, &body), Err(Refused::Unsigned), "{what}");
        }
        let payout = r#"{"batch_withdrawal_id":"987","id":"123","status":"CREATING"}"#;
        assert_eq!(check("k", &hex_mac(Algorithm::Sha512, "k", payout), payout), id("123:CREATING"));
        assert_eq!(check("k", &hex_mac(Algorithm::Sha512, "k", "{}"), "{}"), Err(Refused::Unnamed));
    }

    #[test]
    fn names_are_sorted_and_nothing_else_changes() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (body, expected) in [
            (r#" { "b" : 1.50 , "a" : [ 1e5 , { "d":"\u0041\/" , "c":-0 } ] } "#, Some(r#"{"a":[1e5,{"c":-0,"d":"\u0041\/"}],"b":1.50}"#)),
            ("18446744073709551617", Some("18446744073709551617")),
            (r#"{"\u0061":1,"\"":2}"#, Some(r#"{"\"":2,"a":1}"#)),
            (r#"{"a":1,"\u0061":2}"#, None),
            (r#"{"a":{"b":1,"b":1}}"#, None),
            ("{} {}", None),
            ("{\"a\":1", None),
            ("", None),
            (&deep(8), Some(&*deep(8))),
            (&deep(9), None),
            (&deep(100_000), None),
        ] {
            assert_eq!(sorted_json(body.as_bytes(), Lists::AsTheyAre).as_deref(), expected, "{body:.40}");
        }
        assert_eq!(sorted_json(b"[1,[],{\"b\":[0]}]", Lists::AsObjects).as_deref(), Some(r#"{"0":1,"1":{},"2":{"b":{"0":0}}}"#));
        assert_eq!(sorted_json(b"{\"a\":\"\xff\"}", Lists::AsTheyAre), None);
    }

    fn scheme(header: &str, signed: &str, timestamp_header: Option<&str>, id: IdIn) -> HmacScheme {
        HmacScheme {
            header: header.to_owned(),
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
            prefix: String::new(),
            signed: Signed::parse(signed).unwrap(),
            timestamp_header: timestamp_header.map(str::to_owned),
            id,
        }
    }

    /// The test values of <https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries>.
    #[test]
    fn a_plain_hmac_as_github_publishes_it() {
        let (key, body) = ("It's a Secret to Everybody", "Hello, World!");
        let mut github = scheme("X-Hub-Signature-256", "{body}", None, IdIn::Header("X-GitHub-Delivery".into()));
        github.prefix = "sha256=".into();
        let headers = "X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17
            X-GitHub-Delivery: 72d3162e";
        let digest = Some("dffd6021bb2bd5b0af676290809ec3a53191dd81c7f70a4b28688a362182986f".to_owned());
        let found = check(&Scheme::Hmac(github.clone()), key, headers, body, NOW_S);
        assert_eq!(found, Ok(Verified { id: "72d3162e".into(), digest }), "the id is not signed, so the content counts too");
        for (what, headers, body) in [
            ("another body", headers.to_owned(), "Hello, World?"),
            ("no prefix", headers.replace("sha256=", ""), body),
            ("another prefix", headers.replace("sha256=", "sha1="), body),
            ("no header", headers.replace("Hub", "Pub"), body),
        ] {
            assert_eq!(check(&Scheme::Hmac(github.clone()), key, &headers, body, NOW_S), Err(Refused::Unsigned), "{what}");
        }
        let unnamed = headers.replace("Delivery", "Other");
        assert_eq!(check(&Scheme::Hmac(github), key, &unnamed, body, NOW_S), Err(Refused::Unnamed));
    }

    /// The example of <https://docs.slack.dev/authentication/verifying-requests-from-slack>.
    #[test]
    fn a_signed_time_as_slack_publishes_it() {
        let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let mut slack =
            scheme("X-Slack-Signature", "v0:{timestamp}:{body}", Some("X-Slack-Request-Timestamp"), IdIn::Header("X-Id".into()));
        slack.prefix = "v0=".into();
        let headers = "X-Slack-Signature: v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503
            X-Slack-Request-Timestamp: 1531420618
            X-Id: 1";
        let check = |headers: &str, now| check(&Scheme::Hmac(slack.clone()), "8f742231b10e8888abcd99yyyzzz85a5", headers, body, now);
        assert_eq!(check(headers, 1_531_420_618 + 300).map(|found| found.id), Ok("1".into()));
        assert_eq!(check(headers, 1_531_420_618 + 301), Err(Refused::Unsigned));
        assert_eq!(check(headers, 1_531_420_618 - 301), Err(Refused::Unsigned));
        assert_eq!(check(&headers.replace("0618", "0619"), 1_531_420_618), Err(Refused::Unsigned));
        assert_eq!(check(&headers.replace("Timestamp", "T"), 1_531_420_618), Err(Refused::Unsigned));
    }

    #[test]
    fn an_hmac_in_other_forms() {
        let key = "a key of some length";
        let mut odd = scheme("sig", "{id}|{timestamp}|{body}", Some("at"), IdIn::Header("id".into()));
        (odd.algorithm, odd.encoding) = (Algorithm::Sha512, Encoding::Base64);
        let sign = |content: &str| BASE64.encode(hex::decode(hex_mac(Algorithm::Sha512, key, content)).unwrap());
        // The time as it is written; whether it is near.
        for (at, near) in [
            ("1700000000", true),
            ("1700000000000", true),
            ("2023-11-14T22:13:20Z", true),
            ("1699999699", false),
            ("1700000301000", false),
            ("-1700000000", false),
            ("9223372036854775807", false),
            ("now", false),
        ] {
            let headers = format!("sig: {}\nat: {at}\nid: m1", sign(&format!("m1|{at}|body")));
            let expected = if near { id("m1") } else { Err(Refused::Unsigned) };
            assert_eq!(check(&Scheme::Hmac(odd.clone()), key, &headers, "body", NOW_S), expected, "{at}");
            let renamed = headers.replace("id: m1", "id: m2");
            assert_eq!(check(&Scheme::Hmac(odd.clone()), key, &renamed, "body", NOW_S), Err(Refused::Unsigned));
        }
        let inside = Scheme::Hmac(scheme("sig", "{body}", None, IdIn::Body(Pointer::parse("/data/0/id").unwrap())));
        let sent = |body: &str| check(&inside, key, &format!("sig: {}", hex_mac(Algorithm::Sha256, key, body)), body, NOW_S);
        assert_eq!(sent(r#"{"data":[{"id":18446744073709551617}]}"#), id("18446744073709551617"), "a large number keeps its digits");
        assert_eq!(sent(r#"{"data":[{"id":"x"}]}"#), id("x"));
        for body in
            [r#"{"data":[]}"#, r#"{"data":[{"id":null}]}"#, r#"{"data":[{"id":""}]}"#, r#"{"data":[{"id":"\u0000"}]}"#, "data=1", ""]
        {
            assert_eq!(sent(body), Err(Refused::Unnamed), "{body}");
        }
    }

    #[test]
    fn what_is_signed_is_written_with_names() {
        for (text, expected) in [
            ("{body}", "body"),
            ("{timestamp}.{body}", "timestamp.body"),
            ("v0:{timestamp}:{id}{body}", "v0:timestamp:idbody"),
            ("{id}.{body}", "id.body"),
            ("", "-"),
            ("{timestamp}", "-"),
            ("{body}.{timestamp}", "-"),
            ("{body}{body}", "-"),
            ("{body}x", "-"),
            ("{Body}", "-"),
            ("}{body}", "-"),
            ("{{body}", "-"),
            ("{body", "-"),
        ] {
            let show = |signed: Signed| {
                let piece = |piece: &Piece| match piece {
                    Piece::Words(words) => words.clone(),
                    Piece::Timestamp => "timestamp".to_owned(),
                    Piece::Id => "id".to_owned(),
                    Piece::Body => "body".to_owned(),
                };
                signed.0.iter().map(piece).collect::<String>()
            };
            assert_eq!(Signed::parse(text).map_or_else(|| "-".to_owned(), show), expected, "{text}");
        }
    }

    #[test]
    fn pointers_find_texts_and_numbers() {
        let body = r#"{"a":{"b/c":["x",{"~":-1.50e3}]},"":"empty","n":null,"t":true,"long":"LONG","dup":{"k":1,"k":2}}"#
            .replace("LONG", &"x".repeat(201));
        for (pointer, expected) in [
            ("/a/b~1c/0", Some("x")),
            ("/a/b~1c/1/~0", Some("-1.50e3")),
            ("/", Some("empty")),
            ("/a/b~1c/00", None),
            ("/a/b~1c/+0", None),
            ("/a/b~1c/2", None),
            ("/a", None),
            ("/n", None),
            ("/t", None),
            ("/long", None),
            ("/dup/k", None),
            ("/x", None),
            ("/a/b~1c/0/0", None),
        ] {
            let pointer_ = Pointer::parse(pointer).unwrap();
            assert_eq!(pointer_.find(body.as_bytes()).as_deref(), expected, "{pointer}");
        }
        for wrong in ["", "a", "a/b", "/a~", "/~2", "/~~01", &"/x".repeat(17)] {
            assert_eq!(Pointer::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Pointer::parse("/a").unwrap().find(b"[1"), None);
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Pointer::parse("/0/0").unwrap().find(deep.as_bytes()), None);
    }
}
