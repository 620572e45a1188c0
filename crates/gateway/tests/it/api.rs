//! A client of the HTTP interface, and answers that explain themselves when they surprise.

use std::fmt;
use std::sync::Once;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

/// A bare HTTP client. Every call to localhost ends, one way or the other.
pub fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder().timeout(Duration::from_secs(30)).redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

/// A client of one gateway with one key.
#[derive(Clone)]
pub struct Api {
    pub base: String,
    http: reqwest::Client,
    key: Option<String>,
}

impl Api {
    pub fn new(base: &str, key: &str) -> Self {
        Self { base: base.to_owned(), http: http(), key: Some(key.to_owned()) }
    }

    /// The same gateway with another key, or none.
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self { key: key.map(str::to_owned), ..self.clone() }
    }

    /// The same key at another address: a restarted process has another port.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// A request with the key, to be filled in further.
    pub fn request(&self, method: Method, path: &str) -> Request {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        Request { said: format!("{method} {path}"), request }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).send().await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path).json(body).send().await
    }

    /// The order as it stands.
    pub async fn order(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/orders/{id}")).await.expect(200).json()
    }

    /// Every item of a list, page by page.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let page = match &cursor {
                None => self.get(path).await,
                Some(cursor) => self.get(&format!("{path}{join}cursor={cursor}")).await,
            };
            let page = page.expect(200).json();
            items.extend(page["data"].as_array().unwrap_or_else(|| panic!("no list: {page}")).clone());
            match &page["next_cursor"] {
                Value::Null => return items,
                Value::String(next) => {
                    assert_ne!(Some(next), cursor.as_ref(), "a cursor that goes nowhere");
                    cursor = Some(next.clone());
                }
                other => panic!("next_cursor is {other}"),
            }
        }
    }
}

/// A request on its way.
pub struct Request {
    said: String,
    request: reqwest::RequestBuilder,
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(mut self, content_type: &str, body: impl Into<String>) -> Self {
        let body = body.into();
        self.said = format!("{} {body:.300}", self.said);
        self.request = self.request.header(CONTENT_TYPE, content_type).body(body);
        self
    }

    /// Sends it; no answer at all fails the test.
    pub async fn send(self) -> Answer {
        let said = self.said.clone();
        self.try_send().await.unwrap_or_else(|error| panic!("{said}: no answer: {error:?}"))
    }

    /// Sends it; the process may be dead just now.
    pub async fn try_send(self) -> reqwest::Result<Answer> {
        let answer = self.request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { said: self.said, status, headers, body: answer.bytes().await?.to_vec() })
    }
}

/// What came back. Its `Debug` shows request and answer: put it into every panic.
pub struct Answer {
    said: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// Checks the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Checks that this is a complete problem of RFC 9457 with this status and code; gives it.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.some_problem(status);
        assert_eq!(problem["code"], code, "{self:?}");
        problem
    }

    /// Checks that this is a complete problem with this status, whatever its code.
    #[track_caller]
    pub fn some_problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "content type {kind}: {self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        for member in ["type", "title", "detail", "code", "request_id"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "no {member}: {self:?}");
        }
        let code = problem["code"].as_str().unwrap();
        assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{self:?}");
        assert_eq!(self.header("x-request-id"), problem["request_id"].as_str(), "{self:?}");
        // The place where a leak would show: what a panic, a driver or a path looks like.
        let text = self.text();
        for leak in ["panicked", "sqlx", "SELECT ", "crates/", ".rs:", "RUST_BACKTRACE"] {
            assert!(!text.contains(leak), "{leak:?} leaks: {self:?}");
        }
        problem
    }

    /// Checks that `errors[]` points at `pointer`.
    #[track_caller]
    pub fn points_at(&self, pointer: &str) {
        let problem = self.json();
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors[]: {self:?}"));
        assert!(
            errors.iter().any(|e| e["pointer"] == pointer && e["message"].as_str().is_some_and(|m| !m.is_empty())),
            "nothing points at {pointer}: {self:?}"
        );
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  asked    {}\n  answered {} {:?}\n  {}", self.said, self.status, self.headers, self.text())
    }
}
