//! The gateway as it is spoken to: where it answers, with which key, and each request timed and
//! counted. Load goes to this machine alone.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, Url};
use serde_json::Value;
use tokio::time::Instant;

use crate::tally::{Call, Tally};

/// The longest that an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How often a request is sent again after 503 or no answer, and the pause before it: a database may
/// be away for a minute.
const AGAIN_MAX: u32 = 60;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// One gateway, or several processes of one database.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where they answer, without a path.
    pub urls: Vec<String>,
    /// A key with the scope `admin`.
    pub api_key: String,
    /// What webhooks are signed with.
    pub webhook_secret: String,
}

/// Sends requests to a target.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    target: Arc<Target>,
    /// How all requests did.
    pub tally: Arc<Tally>,
}

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// True for 2xx.
    #[must_use]
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Refuses every address but those of this machine.
///
/// # Errors
/// With a sentence that says what was expected.
pub fn loopback(url: &str) -> Result<String, String> {
    let refused = || format!("--url {url}: expected http://127.0.0.1:PORT; load is sent to this machine only");
    let parsed = Url::parse(url).map_err(|_| refused())?;
    let plain = parsed.scheme() == "http" && parsed.host_str() == Some("127.0.0.1") && parsed.path() == "/";
    if !plain || !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
        return Err(refused());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

impl Client {
    /// A client with an empty tally.
    ///
    /// # Errors
    /// With a sentence, when one of the addresses is not of this machine or there is none.
    pub fn new(target: Target) -> Result<Self, String> {
        if target.urls.is_empty() {
            return Err("expected at least one --url".to_owned());
        }
        for url in &target.urls {
            loopback(url)?;
        }
        // Fails if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = builder.connect_timeout(ANSWER_MAX).build().map_err(|error| error.to_string())?;
        Ok(Self { http, target: Arc::new(target), tally: Arc::default() })
    }

    /// The same client, whose requests are no part of the figures.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self { tally: Arc::default(), ..self.clone() }
    }

    /// Where one of the processes answers; each number has its own.
    fn url(&self, turn: u64, path: &str) -> String {
        let count = u64::try_from(self.target.urls.len()).unwrap_or(1).max(1);
        let index = usize::try_from(turn % count).unwrap_or(0);
        format!("{}{path}", self.target.urls.get(index).map_or("", String::as_str))
    }

    /// The first process's address.
    #[must_use]
    pub fn first_url(&self) -> String {
        self.url(0, "")
    }

    /// A request with the shop's key, to the process whose turn it is.
    pub fn shop(&self, turn: u64, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(turn, path)).bearer_auth(&self.target.api_key)
    }

    /// A request of a payer, who has no key.
    pub fn payer(&self, turn: u64, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(turn, path))
    }

    /// Sends once. None when there was no answer.
    pub async fn send(&self, call: Call, request: RequestBuilder) -> Option<Answer> {
        self.send_due(call, request, Instant::now()).await
    }

    /// The same for a request that was due at that time: if it was sent late, that was waiting too.
    pub async fn send_due(&self, call: Call, request: RequestBuilder, due: Instant) -> Option<Answer> {
        let whole = async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            Some(Answer { status, text: response.text().await.ok()? })
        };
        let answer = tokio::time::timeout(ANSWER_MAX, whole).await.ok().flatten();
        match &answer {
            Some(answer) => {
                let problem = if answer.is_good() { Value::Null } else { answer.json() };
                let code = problem.get("code").and_then(Value::as_str).unwrap_or_default();
                self.tally.refused(call, answer.status, code, due.elapsed());
            }
            None => self.tally.broke(call, due.elapsed()),
        }
        answer
    }

    /// Sends until there is an answer that is no 5xx, as a shop does with an idempotency key. None when
    /// there was none after [`AGAIN_MAX`] tries. `request` makes it for each try.
    pub async fn persist(&self, call: Call, due: Instant, request: impl Fn() -> RequestBuilder) -> Option<Answer> {
        let mut due = due;
        for _ in 0..AGAIN_MAX {
            match self.send_due(call, request(), due).await {
                Some(answer) if answer.status < 500 => return Some(answer),
                _ => tokio::time::sleep(AGAIN_AFTER).await,
            }
            due = Instant::now();
        }
        None
    }

    /// Opens a stream of events; the time until its head is not counted here.
    pub async fn open(&self, request: RequestBuilder) -> Option<Response> {
        tokio::time::timeout(ANSWER_MAX, request.send()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_goes_to_this_machine_only() {
        for good in ["http://127.0.0.1:8001", "http://127.0.0.1:8001/"] {
            assert_eq!(loopback(good).as_deref(), Ok("http://127.0.0.1:8001"));
        }
        let bad = [
            "https://127.0.0.1:8001",
            "http://localhost:8001",
            "http://127.0.0.1.example.com",
            "http://127.0.0.1@example.com",
            "http://user@127.0.0.1:8001",
            "http://127.0.0.2:8001",
            "http://10.0.0.1:8001",
            "http://[::1]:8001",
            "http://127.0.0.1:8001/api",
            "127.0.0.1:8001",
        ];
        for url in bad {
            let refused = loopback(url).unwrap_err();
            assert!(refused.contains("this machine only") && refused.contains(url), "{refused}");
        }
    }
}
