//! The ways out: a mail server, Telegram, an SMS gateway. Each takes one message at a time, no more
//! of them a minute than it may, and says why it did not take one. No secret is in what it says.

mod sms;
mod smtp;
mod telegram;

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tidegate_rules::notification::Channel;
use tidegate_rules::time::Span;

use crate::config::{Notifications, SecretText};

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a whole try may take.
const TRY_MAX: Duration = Duration::from_secs(30);

/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How much of an answer is repeated to people, in characters.
const ECHO_MAX: usize = 200;

/// A message, ready to go.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Names it for ever: the same in every try.
    pub id: &'a str,
    /// To whom, as the channel addresses people.
    pub to: &'a str,
    /// Its subject; empty where the channel has none.
    pub subject: &'a str,
    /// Its text.
    pub body: &'a str,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words, for the operator.
    pub reason: String,
    /// Whether another try makes sense.
    pub hope: Hope,
}

/// Whether another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hope {
    /// It does.
    Later,
    /// It does, but not before so long.
    NotBefore(Span),
    /// This recipient is refused for good.
    Refused,
}

impl Failure {
    fn later(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hope: Hope::Later }
    }

    /// The same without what must not be seen, whoever said it.
    fn without(mut self, secret: &SecretText) -> Self {
        let secret = secret.expose();
        if !secret.is_empty() {
            self.reason = self.reason.replace(secret, "…");
        }
        self
    }
}

/// A way out and how often it may be used.
struct Outlet<T> {
    way: Result<T, String>,
    pace: DefaultDirectRateLimiter,
}

impl<T> Outlet<T> {
    fn new(way: Result<T, String>, per_minute: NonZeroU32) -> Self {
        // Evenly: a burst of one.
        let quota = Quota::per_minute(per_minute).allow_burst(NonZeroU32::MIN);
        Self { way, pace: RateLimiter::direct(quota) }
    }

    fn way(&self) -> Result<&T, Failure> {
        self.way.as_ref().map_err(Failure::later)
    }
}

/// Every way out that is configured.
pub struct Outlets {
    smtp: Option<Outlet<smtp::Way>>,
    telegram: Option<Outlet<telegram::Way>>,
    sms: Option<Outlet<sms::Way>>,
}

impl Outlets {
    /// Prepares what is configured. What cannot be prepared says so when it is used.
    #[must_use]
    pub fn new(config: &Notifications) -> Self {
        Self {
            smtp: config.smtp.as_ref().map(|smtp| Outlet::new(smtp::Way::new(smtp), smtp.per_minute)),
            telegram: config.telegram.as_ref().map(|telegram| Outlet::new(telegram::Way::new(telegram), telegram.per_minute)),
            sms: config.sms.as_ref().map(|sms| Outlet::new(sms::Way::new(sms), sms.per_minute)),
        }
    }

    /// Takes a place in a channel's minute.
    ///
    /// # Errors
    /// How long to wait until there is one.
    pub fn take_place(&self, channel: Channel) -> Result<(), Duration> {
        let pace = match channel {
            Channel::Smtp => self.smtp.as_ref().map(|outlet| &outlet.pace),
            Channel::Telegram => self.telegram.as_ref().map(|outlet| &outlet.pace),
            Channel::Sms => self.sms.as_ref().map(|outlet| &outlet.pace),
        };
        let Some(pace) = pace else { return Ok(()) };
        pace.check().map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Hands a message in.
    ///
    /// # Errors
    /// [`Failure`] says why it was not taken.
    pub async fn send(&self, channel: Channel, letter: Letter<'_>) -> Result<(), Failure> {
        let sending = async {
            match channel {
                Channel::Smtp => self.smtp.as_ref().ok_or_else(|| not_configured(channel))?.way()?.send(letter).await,
                Channel::Telegram => self.telegram.as_ref().ok_or_else(|| not_configured(channel))?.way()?.send(letter).await,
                Channel::Sms => self.sms.as_ref().ok_or_else(|| not_configured(channel))?.way()?.send(letter).await,
            }
        };
        match tokio::time::timeout(TRY_MAX, Box::pin(sending)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::later(format!("not done within {} s", TRY_MAX.as_secs()))),
        }
    }
}

fn not_configured(channel: Channel) -> Failure {
    Failure::later(format!("[notifications.{}] is not configured", channel.name()))
}

/// A client that follows no redirects, which would take a secret elsewhere, and uses no proxy of
/// the environment.
#[allow(clippy::disallowed_methods, reason = "messages have their own client with its own limits")]
fn client() -> Result<reqwest::Client, String> {
    // Says so if another provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_MAX)
        .timeout(TRY_MAX)
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| format!("the HTTP client could not be made: {error}"))
}

/// The innermost cause of a failed request, without its URL, which may hold a secret.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::eq(cause, std::ptr::from_ref(error).cast::<reqwest::Error>()) {
        "the request failed".to_owned()
    } else {
        cause.to_string()
    }
}

/// The beginning of an answer's body.
async fn read(mut answer: reqwest::Response) -> String {
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES_MAX {
        let Ok(Some(part)) = answer.chunk().await else { break };
        body.extend_from_slice(&part);
    }
    body.truncate(ANSWER_BYTES_MAX);
    String::from_utf8_lossy(&body).into_owned()
}

/// As much of a text as is repeated to people, on one line.
fn echo(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ECHO_MAX).collect()
}
