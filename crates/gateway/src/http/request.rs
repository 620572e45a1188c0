//! Reads requests strictly: bodies as JSON with every field known, queries likewise. What is wrong
//! is said with a pointer to it.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::App;
use crate::config::SecretText;
use crate::problem::Problem;

/// The largest body of a request.
const BODY_MAX: usize = 256 * 1024;

/// How long a body may take to arrive: whoever sends it byte by byte holds a place meanwhile.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);

/// How much of a body that is too large is read before its sender is cut off.
const BODY_DISCARD_MAX: usize = 16 * 1024 * 1024;

/// How much of what was sent is repeated in an answer that refuses it.
const ECHO_CHARS_MAX: usize = 1_000;

/// A body and what belongs to it, not yet read as JSON.
pub struct RawBody {
    /// The headers of the request.
    pub headers: HeaderMap,
    /// Method and path, which name the call for idempotency keys.
    pub call: String,
    /// The bytes.
    pub bytes: Bytes,
}

impl FromRequest<App> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let call = format!("{} {}", request.method(), request.uri().path());
        let bytes = tokio::time::timeout(BODY_TIME_MAX, read_body(request)).await.map_err(|_| {
            let detail = format!("the body did not arrive within {} s", BODY_TIME_MAX.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)
        })??;
        Ok(Self { headers, call, bytes })
    }
}

/// The whole body. One that is too large is read on for a while and thrown away: a client that is
/// still writing does not hear an answer.
async fn read_body(request: Request) -> Result<Bytes, Problem> {
    let mut stream = request.into_body().into_data_stream();
    let (mut body, mut length) = (Vec::new(), 0_usize);
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| Problem::malformed("the body ended before it was complete"))?;
        length = length.saturating_add(part.len());
        if length <= BODY_MAX {
            body.extend_from_slice(&part);
        } else if length > BODY_DISCARD_MAX {
            break;
        }
    }
    if length > BODY_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("expected a body of at most {BODY_MAX} bytes")));
    }
    Ok(body.into())
}

impl RawBody {
    /// The body as JSON of a known form. `EMPTY` bodies are read as `{}` where every field is
    /// optional anyway.
    pub fn json<T: DeserializeOwned>(&self, empty: EmptyBody) -> Result<T, Problem> {
        if self.bytes.is_empty() && empty == EmptyBody::MeansNoFields {
            return parse(b"{}");
        }
        let kind = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "expected Content-Type: application/json",
            ));
        }
        parse(&self.bytes)
    }
}

/// A secret in a body.
pub struct Hidden(pub SecretText);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A wrong type must not echo what was sent, which serde's own message would.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(SecretText::new(text))),
            _ => Err(serde::de::Error::custom("expected a string")),
        }
    }
}

/// What an empty body means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyBody {
    /// An error: the call has fields that it needs.
    IsMalformed,
    /// An object without fields.
    MeansNoFields,
}

/// Reads JSON and says what is wrong where.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().clone();
        let error = error.into_inner();
        if !error.is_data() {
            return Problem::malformed(format!("the body is not JSON: {}", position(&error)));
        }
        invalid(&cut(&pointer(&path)), &cut(&error.to_string()))
    })?;
    reader.end().map_err(|error| Problem::malformed(format!("the body is not one JSON document: {}", position(&error))))?;
    Ok(value)
}

/// A text that may be as long as what was sent.
fn cut(text: &str) -> String {
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or("").to_owned();
    format!("{what} at line {}, column {}", error.line(), error.column())
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// What serde says, as a pointer and an expectation.
fn invalid(parent: &str, message: &str) -> Problem {
    let message = message.split(" at line ").next().unwrap_or(message);
    let quoted = |prefix: &str| message.strip_prefix(prefix).and_then(|rest| rest.split('`').next());
    if let Some(field) = quoted("unknown field `") {
        // The path ends at the unknown field itself.
        let at = if parent.ends_with(&format!("/{field}")) { parent.to_owned() } else { format!("{parent}/{field}") };
        let expected = message.split_once("expected ").map_or("no such field", |(_, expected)| expected);
        return Problem::invalid(&at, format!("this field is not known; expected {expected}"));
    }
    if let Some(field) = quoted("missing field `") {
        return Problem::invalid(&format!("{parent}/{field}"), "this field is needed");
    }
    Problem::invalid(if parent.is_empty() { "/" } else { parent }, message)
}

/// A field that may be left out and may not be null.
pub(super) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A field that may be left out, and may be null to clear what is there.
pub(super) fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The id in a path of a `kind` of thing. What is no id names nothing that there is.
pub(super) fn id_in_path<T: FromStr>(kind: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::not_found(kind))
}

/// A query whose every name is known.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        read_query(&parts.uri).map(Self)
    }
}

/// The query of an address.
pub(super) fn read_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    // PostgreSQL text holds no NUL: what asks for one would look like a database that is gone.
    if uri.query().is_some_and(|query| query.contains("%00")) {
        return Err(Problem::invalid("query", "expected text without the NUL character"));
    }
    let Query(query) = Query::<T>::try_from_uri(uri).map_err(|rejection| {
        let text = rejection.body_text();
        let message = text.rsplit(": ").next().unwrap_or(&text).to_owned();
        let name = text.split('`').nth(1).unwrap_or("query").to_owned();
        Problem::invalid(&cut(&name), cut(&message))
    })?;
    Ok(query)
}
