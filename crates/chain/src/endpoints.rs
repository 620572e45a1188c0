//! The pool of URLs behind a network: which one is asked, when one is rested, what it may cost.
//!
//! The first endpoint of the configuration is used until it fails, then the next, and that one is
//! kept: switching back and forth between nodes that stand at different heights is worse than any
//! of them. One *operation* (the header and the logs of a block, say) stays on one endpoint from
//! its first call to its last, because two nodes never make one consistent answer; when it fails
//! it starts anew on the next endpoint, each one at most once.
//!
//! A URL can hold a provider's key, in its path, its query or a header. None of them may reach a
//! log line, an error or a `Debug` text: endpoints are named by scheme and host alone, and every
//! text that comes back from the other side is searched for them.

mod allowance;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use tidegate_rules::block::Network;
use tokio::time::Instant;
use url::Url;

use self::allowance::Allowance;
use crate::{EndpointHealth, Error};

/// The most that one answer may weigh. A full Ethereum block's receipts are about 2 MB.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long one request may take, unless the configuration says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The first rest after a failure; it doubles with each further failure in a row.
pub const REST_FIRST: Duration = Duration::from_secs(1);
/// The longest rest that repeated failures lead to.
pub const REST_MAX: Duration = Duration::from_secs(60);
/// The rest after a failure that only a change of configuration can mend, such as a wrong key.
pub const REST_PERMANENT: Duration = Duration::from_secs(10 * 60);
/// The rest after a 403 that says nothing more: TronGrid suspends for 30 seconds.
pub const REST_FORBIDDEN: Duration = Duration::from_secs(30);
/// The longest rest that an endpoint may ask for itself.
pub const REST_ASKED_MAX: Duration = Duration::from_secs(60 * 60);
/// After this long without the next block, another endpoint is asked whether it has it.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(60);
/// What is looked at of an answer that is an error.
const ERROR_BYTES_MAX: usize = 4 * 1024;
/// What is shown of a text that the other side wrote.
const EXCERPT_CHARS: usize = 200;
/// Shorter parts of a URL or header are words such as `v3` or `jsonrpc`, not keys.
const SECRET_CHARS_MIN: usize = 8;

/// One URL of a network, as configured.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Where to post to. Paths of the protocol are appended to its path.
    pub url: Url,
    /// Sent with every request, for example `TRON-PRO-API-KEY`.
    pub headers: Vec<(String, String)>,
    /// Above this the pool waits.
    pub requests_per_second: Option<NonZeroU32>,
    /// Above this, in any 24 hours, the endpoint is left alone.
    pub requests_per_day: Option<u64>,
    /// How long one request may take.
    pub timeout: Duration,
}

impl EndpointConfig {
    /// An endpoint without headers and budgets.
    #[must_use]
    pub const fn new(url: Url) -> Self {
        Self { url, headers: Vec::new(), requests_per_second: None, requests_per_day: None, timeout: REQUEST_TIMEOUT }
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig").field("url", &public_name(&self.url)).finish_non_exhaustive()
    }
}

/// Where jitter comes from: any number, each time another.
pub type Jitter = Box<dyn FnMut() -> u64 + Send>;

/// Which endpoint an operation would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The one in use.
    Current,
    /// Any but the one in use, for a second opinion; that one too if there is no other.
    Other,
}

/// Why an endpoint did not serve an operation. The question is: when may it be asked again?
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Soon: it is busy, silent or confused, or its answer was not whole.
    #[error("{reason}")]
    Transient {
        /// In words.
        reason: String,
        /// The least time that it asked to be left alone for.
        rest: Option<Duration>,
    },
    /// At once: it does not have the block yet, or not any more. Nothing is wrong with it.
    #[error("{0}")]
    Behind(String),
    /// When somebody has changed something: the key is wrong, or it does not offer the call.
    #[error("{0}")]
    Permanent(String),
}

impl Failure {
    /// A failure that may be over soon.
    pub fn transient(reason: impl Into<String>) -> Self {
        Self::Transient { reason: reason.into(), rest: None }
    }

    fn is_permanent(&self) -> bool {
        matches!(self, Self::Permanent(_))
    }
}

/// The endpoints of one network.
pub struct Endpoints {
    network: Network,
    slots: Vec<Arc<Slot>>,
    current: AtomicUsize,
    /// The block that the current endpoint did not have yet, and since when.
    awaited: Mutex<Option<(u64, Instant)>>,
    jitter: Mutex<Jitter>,
}

impl Endpoints {
    /// A pool in order of preference.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no endpoint, a header is malformed, or TLS cannot start.
    pub fn new(network: &Network, configs: Vec<EndpointConfig>, jitter: Jitter) -> Result<Self, Error> {
        if configs.is_empty() {
            return Err(Error::Refused(format!("{network}: expected at least one RPC URL, found none")));
        }
        let client = client()?;
        let slots = configs
            .into_iter()
            .enumerate()
            .map(|(index, config)| Slot::new(index, config, client.clone()).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self { network: network.clone(), slots, current: AtomicUsize::new(0), awaited: Mutex::new(None), jitter: Mutex::new(jitter) })
    }

    /// Runs an operation on one endpoint, and anew on the next one when it fails there.
    ///
    /// # Errors
    /// [`Error::Transient`] with every endpoint's reason when all failed or are resting;
    /// [`Error::Refused`] when every one of them failed for good.
    pub async fn run<T, F, Fut>(&self, prefer: Prefer, operation: F) -> Result<T, Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let (slot, value) = self.attempt(self.order(prefer), operation).await?;
        if prefer == Prefer::Current {
            self.keep(slot, "it was not available");
        }
        Ok(value)
    }

    /// As [`Endpoints::run`], for an operation that reads blocks from `number` upwards and may
    /// find none yet. An endpoint that has had none for [`OVERDUE_AFTER`] while another has some
    /// has fallen behind, and is left for the other.
    ///
    /// # Errors
    /// As [`Endpoints::run`].
    pub async fn run_from<T, F, Fut>(&self, number: u64, operation: F) -> Result<Vec<T>, Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<Vec<T>, Failure>>,
    {
        let found = self.run(Prefer::Current, &operation).await?;
        if !found.is_empty() || !self.is_overdue(number) {
            return Ok(found);
        }
        let current = self.current.load(Ordering::Relaxed);
        let others = self.slots.iter().filter(|slot| slot.index != current).cloned().collect();
        match self.attempt(others, operation).await {
            Ok((slot, found)) if !found.is_empty() => {
                self.keep(slot, &format!("it does not have block {number} yet"));
                Ok(found)
            }
            // Nobody has it, or nobody can say: the chain itself may be standing still.
            _ => Ok(found),
        }
    }

    /// How each endpoint is doing, in the order of the configuration.
    #[must_use]
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.slots.iter().map(|slot| slot.health(Instant::now())).collect()
    }

    /// How many endpoints there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.slots.len()
    }

    async fn attempt<T, F, Fut>(&self, order: Vec<Arc<Slot>>, operation: F) -> Result<(usize, T), Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut reasons = Vec::new();
        let mut all_permanent = true;
        for slot in order {
            if let Some(resting) = slot.resting(Instant::now()) {
                reasons.push(format!("{}: {}", slot.name, resting.reason));
                all_permanent &= resting.permanent;
                continue;
            }
            match operation(Endpoint { slot: Arc::clone(&slot) }).await {
                Ok(value) => {
                    slot.served();
                    return Ok((slot.index, value));
                }
                Err(failure) => {
                    let reason = slot.failed(&failure, Instant::now(), self.jitter());
                    tracing::debug!(network = %self.network, endpoint = %slot.name, %reason, "an endpoint failed");
                    reasons.push(format!("{}: {reason}", slot.name));
                    all_permanent &= failure.is_permanent();
                }
            }
        }
        let text = format!("{}: no endpoint served this: {}", self.network, reasons.join("; "));
        Err(if all_permanent && !reasons.is_empty() { Error::Refused(text) } else { Error::Transient(text) })
    }

    /// Every endpoint once, the preferred ones first, the others as configured.
    fn order(&self, prefer: Prefer) -> Vec<Arc<Slot>> {
        let current = self.current.load(Ordering::Relaxed);
        let (mut first, second): (Vec<_>, Vec<_>) = match prefer {
            Prefer::Current => self.slots.iter().cloned().partition(|slot| slot.index == current),
            Prefer::Other => self.slots.iter().cloned().partition(|slot| slot.index != current),
        };
        first.extend(second);
        first
    }

    fn keep(&self, index: usize, cause: &str) {
        let before = self.current.swap(index, Ordering::Relaxed);
        let (Some(from), Some(to)) = (self.slots.get(before), self.slots.get(index)) else { return };
        if before != index {
            let reason = from.lock().last_error.clone().unwrap_or_else(|| cause.to_owned());
            tracing::warn!(network = %self.network, from = %from.name, to = %to.name, %reason, "using another endpoint");
        }
    }

    /// Notes that block `number` is not there yet; true when it is time to ask somebody else.
    fn is_overdue(&self, number: u64) -> bool {
        let now = Instant::now();
        let mut awaited = lock(&self.awaited);
        match *awaited {
            Some((awaiting, since)) if awaiting == number => {
                let overdue = now.saturating_duration_since(since) >= OVERDUE_AFTER;
                if overdue {
                    *awaited = Some((number, now));
                }
                overdue
            }
            _ => {
                *awaited = Some((number, now));
                false
            }
        }
    }

    fn jitter(&self) -> u64 {
        (lock(&self.jitter))()
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").field("network", &self.network).field("health", &self.health()).finish()
    }
}

/// The endpoint that an operation runs on.
#[derive(Clone)]
pub struct Endpoint {
    slot: Arc<Slot>,
}

impl Endpoint {
    /// Scheme and host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.slot.name
    }

    /// Its place in the configuration, for what a protocol learns about it.
    #[must_use]
    pub fn index(&self) -> usize {
        self.slot.index
    }

    /// What it said, fit to be shown: without secrets, in one line, not long.
    #[must_use]
    pub fn quote(&self, text: &str) -> String {
        self.slot.scrub(text)
    }

    /// Posts a JSON body and returns the answer's bytes. It costs as many requests as `cost` says
    /// (a batch counts each of its parts, as providers do).
    ///
    /// # Errors
    /// Everything but an answer: refused, silent, too large, over budget. An answer that is an
    /// error in the words of the protocol is an answer.
    pub async fn post<B: Serialize + Sync>(&self, path: &str, body: &B, cost: u32) -> Result<Vec<u8>, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::transient(error.to_string()))?;
        let wait = self.slot.take(cost, Instant::now())?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        self.slot.post(path, body).await
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.slot.name)
    }
}

/// One endpoint and all that is known about it.
struct Slot {
    index: usize,
    name: String,
    url: Url,
    headers: HeaderMap,
    /// What must never be shown: keys in the URL and in headers.
    secrets: Vec<String>,
    timeout: Duration,
    client: reqwest::Client,
    state: Mutex<State>,
}

struct State {
    allowance: Allowance,
    /// Failures since the last success.
    streak: u32,
    rest: Option<Rest>,
    calls: u64,
    failures: u64,
    last_error: Option<String>,
}

struct Rest {
    until: Instant,
    permanent: bool,
}

/// Why an endpoint is not asked now.
struct Resting {
    reason: String,
    permanent: bool,
}

impl Slot {
    fn new(index: usize, config: EndpointConfig, client: reqwest::Client) -> Result<Self, Error> {
        let name = public_name(&config.url);
        let mut headers = HeaderMap::new();
        for (key, value) in &config.headers {
            let refuse = |_| Error::Refused(format!("{name}: the header {key:?} is not one that HTTP can carry"));
            let key = HeaderName::from_bytes(key.as_bytes()).map_err(|_| refuse(()))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| refuse(()))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let allowance = Allowance::new(config.requests_per_second, config.requests_per_day, Instant::now());
        Ok(Self {
            index,
            secrets: secrets(&config),
            name,
            url: config.url,
            headers,
            timeout: config.timeout,
            client,
            state: Mutex::new(State { allowance, streak: 0, rest: None, calls: 0, failures: 0, last_error: None }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn resting(&self, now: Instant) -> Option<Resting> {
        let mut state = self.lock();
        if let Some(rest) = state.rest.as_ref().filter(|rest| rest.until > now) {
            let seconds = rest.until.saturating_duration_since(now).as_secs().saturating_add(1);
            let cause = state.last_error.as_deref().unwrap_or("a failure");
            let reason = format!("resting for {seconds} s after: {cause}");
            return Some(Resting { reason, permanent: rest.permanent });
        }
        state.allowance.exhausted_for(now).map(|wait| Resting { reason: budget_is_used_up(wait), permanent: false })
    }

    fn take(&self, count: u32, now: Instant) -> Result<Duration, Failure> {
        let mut state = self.lock();
        let wait = state.allowance.take(count, now).map_err(|wait| Failure::Transient { reason: budget_is_used_up(wait), rest: None })?;
        state.calls = state.calls.saturating_add(u64::from(count));
        Ok(wait)
    }

    fn served(&self) {
        let mut state = self.lock();
        state.streak = 0;
        state.rest = None;
    }

    /// Puts the endpoint to rest if it is to blame, and says why without secrets.
    fn failed(&self, failure: &Failure, now: Instant, jitter: u64) -> String {
        let reason = self.scrub(&failure.to_string());
        let asked = match failure {
            Failure::Behind(_) => return reason,
            Failure::Transient { rest, .. } => rest.unwrap_or_default().min(REST_ASKED_MAX),
            Failure::Permanent(_) => REST_PERMANENT,
        };
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        state.last_error = Some(reason.clone());
        // Operations that were under way together fail together; that is one failure, not many.
        let already_resting = state.rest.as_ref().is_some_and(|rest| rest.until > now);
        if !already_resting {
            state.streak = state.streak.saturating_add(1);
        }
        let until = now.checked_add(backoff(state.streak, jitter).max(asked)).unwrap_or(now);
        if state.rest.as_ref().is_none_or(|rest| rest.until < until) {
            state.rest = Some(Rest { until, permanent: failure.is_permanent() });
        }
        reason
    }

    fn health(&self, now: Instant) -> EndpointHealth {
        let available = self.resting(now).is_none();
        let state = self.lock();
        EndpointHealth {
            name: self.name.clone(),
            available,
            calls: state.calls,
            failures: state.failures,
            last_error: state.last_error.clone(),
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
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

    fn scrub(&self, text: &str) -> String {
        // Before the text is cut short: half a key is half a secret.
        excerpt(&self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***")))
    }
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
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Failure::Permanent(reason)
        }
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

/// A `Retry-After` in seconds. One that names a date would need a clock; the back-off does then.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn too_large() -> Failure {
    Failure::transient(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"))
}

fn budget_is_used_up(wait: Duration) -> String {
    format!("its daily budget of requests is used up for {} s", wait.as_secs().saturating_add(1))
}

/// One, two, four … times the first rest, up to the most, and up to half of it more by chance, so
/// that many instances do not come back at one moment.
fn backoff(streak: u32, jitter: u64) -> Duration {
    let doublings = streak.saturating_sub(1).min(16);
    let base = REST_FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(REST_MAX);
    let half = u64::try_from(base.as_millis()).unwrap_or(u64::MAX).wrapping_div(2);
    let extra = jitter.checked_rem(half.saturating_add(1)).unwrap_or(0);
    base.saturating_add(Duration::from_millis(extra))
}

/// A text of the other side, fit for a log line: one line, no control characters, not long.
fn excerpt(text: &str) -> String {
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    line.collect::<Vec<_>>().join(" ").chars().take(EXCERPT_CHARS).collect()
}

/// Scheme, host and port: what may be shown of a URL.
fn public_name(url: &Url) -> String {
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

#[allow(clippy::disallowed_methods, reason = "this is the one place of the crate that makes an HTTP client")]
fn client() -> Result<reqwest::Client, Error> {
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

/// The state behind these locks is whole between any two statements, so a panic elsewhere while
/// one was held takes nothing away from it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
