//! One request by HTTP: how it is sent, how large its answer may be, what its status means, and
//! what may be shown of all that.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use url::Url;

use super::{ANSWER_BYTES_MAX, EndpointConfig, Failure, REST_FORBIDDEN};
use crate::Error;

/// What is looked at of an answer that is an error.
const ERROR_BYTES_MAX: usize = 4 * 1024;
/// What is shown of a text that the other side wrote.
const EXCERPT_CHARS: usize = 200;
/// Shorter parts of a URL or header are words such as `v3` or `jsonrpc`, not keys.
const SECRET_CHARS_MIN: usize = 8;

/// Where requests go, and what is sent with each.
pub(super) struct Http {
    url: Url,
    headers: HeaderMap,
    /// What must never be shown: keys in the URL and in headers.
    secrets: Vec<String>,
    pub(super) timeout: Duration,
    client: reqwest::Client,
}

impl Http {
    pub(super) fn new(config: EndpointConfig, client: reqwest::Client) -> Result<Self, Error> {
        let name = public_name(&config.url);
        let mut headers = HeaderMap::new();
        for (key, value) in &config.headers {
            let refuse = |_| Error::Refused(format!("{name}: the header {key:?} is not one that HTTP can carry"));
            let key = HeaderName::from_bytes(key.as_bytes()).map_err(|_| refuse(()))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| refuse(()))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(Self { secrets: secrets(&config), url: config.url, headers, timeout: config.timeout, client })
    }

    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let mut url = self.url.clone();
        if !path.is_empty() {
            url.set_path(&format!("{}/{path}", self.url.path().trim_end_matches('/')));
        }
        let request = self
            .client
            .post(url)
            .headers(self.headers.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .timeout(self.timeout)
            .body(body);
        let mut response = request.send().await.map_err(|error| self.broken(error))?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        if response.content_length().is_some_and(|bytes| bytes > ANSWER_BYTES_MAX as u64) {
            return Err(too_large());
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if answer.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(too_large());
            }
            answer.extend_from_slice(&chunk);
        }
        judge(status, retry_after, answer)
    }

    pub(super) fn scrub(&self, text: &str) -> String {
        // Before the text is cut short: half a key is half a secret.
        excerpt(&self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***")))
    }

    fn broken(&self, error: reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure::transient(format!("no answer within {:?}", self.timeout));
        }
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Failure::transient(text)
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the one place of the crate that makes an HTTP client")]
pub(super) fn client() -> Result<reqwest::Client, Error> {
    // Another part of the program may have installed it already; there is only one choice anyway.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        // A redirect could carry a key to somebody else.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .build()
        .map_err(|error| Error::Refused(format!("TLS cannot start: {}", error.without_url())))
}

/// What a status means. Some JSON-RPC providers say what is wrong with a call under a 400, 413 or
/// 500; that is an answer, and its words say more than its number. Nothing else is: an empty
/// object under a 500 must never be read as "there is no such block".
fn judge(status: StatusCode, retry_after: Option<Duration>, answer: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let explained = matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INTERNAL_SERVER_ERROR);
    if status.is_success() || (explained && is_json_rpc(&answer)) {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(answer.get(..ERROR_BYTES_MAX).unwrap_or(&answer));
    let reason = if text.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {text}") };
    let rest = retry_after.max(suspended_for(&text));
    Err(match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Failure::NotOffered(reason),
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED => Failure::Permanent(reason),
        StatusCode::FORBIDDEN => Failure::Transient { reason, rest: rest.or(Some(REST_FORBIDDEN)) },
        _ => Failure::Transient { reason, rest },
    })
}

fn is_json_rpc(answer: &[u8]) -> bool {
    matches!(answer.trim_ascii_start().first(), Some(b'{' | b'[')) && answer.windows(9).any(|bytes| bytes == b"\"jsonrpc\"")
}

/// TronGrid's own way of saying `Retry-After`: "the query server is suspended for 30s".
pub(crate) fn suspended_for(text: &str) -> Option<Duration> {
    let (_, rest) = text.split_once("suspended for ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(Some(rest), |end| rest.get(..end))?;
    digits.parse().ok().map(Duration::from_secs)
}

/// How long a `Retry-After` asks to wait: seconds, or a date (RFC 9110, 10.2.3). A date is held
/// against the `Date` of the same answer, so it is the server's own clock that both are read from.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let asked = httpdate::parse_http_date(text).ok()?;
    let said = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()?;
    // A date that has passed asks for nothing.
    asked.duration_since(said).ok()
}

fn too_large() -> Failure {
    Failure::transient(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"))
}

/// A text of the other side, fit for a log line: one line, no control characters, not long.
fn excerpt(text: &str) -> String {
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    line.collect::<Vec<_>>().join(" ").chars().take(EXCERPT_CHARS).collect()
}

/// Scheme, host and port: what may be shown of a URL.
pub(super) fn public_name(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| format!("{}://{host}", url.scheme()), |port| format!("{}://{host}:{port}", url.scheme()))
}

fn secrets(config: &EndpointConfig) -> Vec<String> {
    let mut secrets: Vec<String> = config.url.path_segments().into_iter().flatten().map(str::to_owned).collect();
    secrets.extend(config.url.query_pairs().map(|(_, value)| value.into_owned()));
    secrets.extend(config.url.password().map(str::to_owned));
    secrets.push(config.url.username().to_owned());
    secrets.extend(config.headers.iter().map(|(_, value)| value.clone()));
    secrets.retain(|secret| secret.len() >= SECRET_CHARS_MIN);
    // A long one first: a short one may be a part of it.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}
