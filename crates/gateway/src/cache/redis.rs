//! What processes of one database share: one connection to Redis, which is never waited for. The
//! cache leaves its values there, limits are counted in it ([`rate`]), and signals go through it
//! ([`channel`]).
//!
//! A task of its own makes the connection and nobody waits for that; the crate `redis` carries the
//! requests of all who ask over it. Whoever asks waits at most [`WAIT_MAX`], and only while Redis is
//! known to work: the first who waits in vain tells all others, and nobody asks while a reply is
//! overdue. When Redis says nothing for [`ANSWER_MAX`] more, refuses, or says what is no reply, it is
//! left alone for a while ([`REST_MIN`], twice as long each time, up to [`REST_MAX`]) and the cache
//! goes on in the process. A change from working to not working, or of the reason, is logged once.
//!
//! The crate's own time limits are off, so that there is one set of them. The cache uses five commands
//! besides `AUTH` and `SELECT`: `PING`, `SET` with an end, `GETRANGE` (a `GET` that cannot be flooded)
//! and `PTTL`. A Redis that allows these and nothing else is a good one: what it does not allow is
//! done without it ([`Right`]).

mod channel;
mod rate;

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo, RedisError, ServerError, Value, cmd, pipe,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Cached, ENTRY_BYTES_MAX};
use crate::config::SecretUrl;

pub use self::channel::Subscription;

/// The longest that a look-up waits for Redis.
pub const WAIT_MAX: Duration = Duration::from_millis(50);

/// How long an overdue reply may take before the connection is given up. A moment's pause of Redis
/// or of this machine is no failure.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long connecting may take, with TLS, password and a first write.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How long Redis is left alone after its first failure.
const REST_MIN: Duration = Duration::from_secs(1);

/// How long it is left alone at most.
const REST_MAX: Duration = Duration::from_secs(10);

/// A connection that lasted this long was a good one: the next rest is a short one again.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// How many requests may be under way; one more goes on without Redis.
const REQUESTS_MAX: usize = 1_024;

/// How long Redis is not asked again for what it does not allow.
const FORBIDDEN_REST: Duration = Duration::from_secs(10);

/// The longest code of an error that is shown, such as `WRONGPASS`.
const CODE_BYTES_MAX: usize = 24;

/// How Redis does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisHealth {
    /// No `REDIS_URL`: each process caches and counts for itself.
    Unused,
    /// It answers and takes what is written.
    Healthy,
    /// It is left alone for now, and why. Each process caches and counts for itself.
    Degraded(String),
}

/// What is known of Redis.
#[derive(Clone)]
enum State {
    Starting,
    Working(MultiplexedConnection),
    /// A reply is overdue.
    Late(MultiplexedConnection),
    Resting(String),
}

/// What stood under a key, and how long it will stand there.
type Found = Option<(Vec<u8>, Duration)>;

/// Redis, as the program uses it.
pub struct Redis {
    prefix: String,
    link: Arc<Link>,
    /// The task that connects. It ends with this.
    keeper: OnceLock<JoinSet<()>>,
}

impl Redis {
    /// Speaks to nobody before the first question.
    pub(super) fn new(url: SecretUrl, prefix: String) -> Self {
        let link = Link {
            url,
            state: watch::Sender::new(State::Starting),
            requests: Semaphore::new(REQUESTS_MAX),
            counting: Right::new("count limits for all processes together", "+evalsha +eval +get +set +time"),
            saying: Right::new("pass signals between processes", "&tidegate:* +publish"),
        };
        Self { prefix, link: Arc::new(link), keeper: OnceLock::new() }
    }

    /// What another process left under a key, and how old it is. Takes at most [`WAIT_MAX`].
    pub(super) async fn read(&self, kind: Cached, key: &str) -> Option<(Vec<u8>, Duration)> {
        let key = self.key(kind, key);
        let (json, left) = self.link().ask(|connection| read(connection, key)).await??;
        // What has no end, or a later one than we set, is not from us.
        Some((json, kind.kept().checked_sub(left)?))
    }

    /// Leaves a value that is `age` old for other processes. Waits for nothing.
    pub(super) fn write(&self, kind: Cached, key: &str, json: &[u8], age: Duration) {
        let left = kind.kept().saturating_sub(age);
        if left.as_millis() > 0 {
            let (link, set) = (Arc::clone(self.link()), set(&self.key(kind, key), json, left));
            tokio::spawn(async move { link.ask(|connection| done(connection, "SET", set)).await });
        }
    }

    /// How Redis does now: asks it. Takes at most [`WAIT_MAX`], and about [`CONNECT_MAX`] the first
    /// time.
    pub(super) async fn health(&self) -> RedisHealth {
        let link = self.link();
        let mut state = link.state.subscribe();
        // The keeper gives up after CONNECT_MAX, which is heard here a moment later.
        let known = state.wait_for(|state| !matches!(state, State::Starting));
        drop(timeout(CONNECT_MAX.saturating_mul(2), known).await);
        link.ask(|connection| done(connection, "PING", cmd("PING"))).await;
        match &*link.state.borrow() {
            State::Starting => RedisHealth::Degraded("is still being connected to".to_owned()),
            State::Working(_) => RedisHealth::Healthy,
            State::Late(_) => RedisHealth::Degraded(Trouble::Silent.to_string()),
            State::Resting(reason) => RedisHealth::Degraded(reason.clone()),
        }
    }

    fn key(&self, kind: Cached, key: &str) -> String {
        format!("{}:{}:{key}", self.prefix, kind.name())
    }

    /// The connection, which somebody takes care of from the first question on.
    fn link(&self) -> &Arc<Link> {
        self.keeper.get_or_init(|| {
            let mut keeper = JoinSet::new();
            keeper.spawn(keep(Arc::clone(&self.link), format!("{}:probe", self.prefix)));
            keeper
        });
        &self.link
    }
}

/// The connection as all see it who use it.
struct Link {
    url: SecretUrl,
    state: watch::Sender<State>,
    requests: Semaphore,
    counting: Right,
    saying: Right,
}

/// Something that a Redis may not do for us although it does the rest: the ACL of our user may be
/// older than this program. Says so once, goes on without, and asks again later.
struct Right {
    /// Goes after "Redis does not let us".
    what: &'static str,
    /// Goes after `ACL SETUSER tidegate`.
    needs: &'static str,
    refused_at: Mutex<Option<Instant>>,
}

impl Right {
    const fn new(what: &'static str, needs: &'static str) -> Self {
        Self { what, needs, refused_at: Mutex::new(None) }
    }

    /// False for a while after a refusal.
    fn is_open(&self) -> bool {
        let refused_at = *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.is_none_or(|at| at.elapsed() >= FORBIDDEN_REST)
    }

    fn granted(&self) {
        *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn refused(&self, url: &SecretUrl, code: &str) {
        let known = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now());
        if known.is_none() {
            let (what, needs) = (self.what, self.needs);
            tracing::warn!(redis = %url, code, "Redis does not let us {what}: each process does without; `ACL SETUSER` its user {needs}");
        }
    }
}

impl Link {
    /// Asks Redis something, unless it is left alone or has too much to do. Takes at most
    /// [`WAIT_MAX`], and tells the others when that was in vain.
    async fn ask<T, F: Future<Output = Result<T, Trouble>>>(&self, request: impl FnOnce(MultiplexedConnection) -> F) -> Option<T> {
        let State::Working(connection) = self.state.borrow().clone() else { return None };
        let _place = self.requests.try_acquire().ok()?;
        match timeout(WAIT_MAX, request(connection)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(trouble)) => {
                self.rest(&trouble);
                None
            }
            Err(_) => {
                self.state.send_if_modified(|state| match state {
                    State::Working(connection) => {
                        *state = State::Late(connection.clone());
                        true
                    }
                    _ => false,
                });
                None
            }
        }
    }

    fn work(&self, connection: MultiplexedConnection) {
        self.state.send_replace(State::Working(connection));
        tracing::info!(redis = %self.url, "Redis answers: caches, limits and signals are shared");
    }

    /// Has Redis left alone. Says so once.
    fn rest(&self, trouble: &Trouble) {
        let reason = trouble.to_string();
        let is_new = self.state.send_if_modified(|state| match state {
            State::Resting(known) if *known == reason => false,
            _ => {
                *state = State::Resting(reason.clone());
                true
            }
        });
        if is_new {
            tracing::warn!(redis = %self.url, "Redis is left alone for now and each process caches and counts for itself: it {reason}");
        }
    }

    /// Waits for a connection to fail. Where a reply is overdue, another question is asked for which
    /// nobody waits: its reply comes after the overdue one.
    async fn failed(&self) {
        let mut states = self.state.subscribe();
        loop {
            let Ok(State::Late(connection)) = states.wait_for(|state| !matches!(state, State::Working(_))).await.map(|state| state.clone())
            else {
                return;
            };
            match timeout(ANSWER_MAX, done(connection, "PING", cmd("PING"))).await.unwrap_or(Err(Trouble::Silent)) {
                Ok(()) => self.state.send_if_modified(|state| match state {
                    State::Late(connection) => {
                        *state = State::Working(connection.clone());
                        true
                    }
                    _ => false,
                }),
                Err(trouble) => return self.rest(&trouble),
            };
        }
    }
}

/// Connects, waits until the connection fails, rests, and so on.
async fn keep(link: Arc<Link>, probe: String) {
    let mut rest = REST_MIN;
    loop {
        match timeout(CONNECT_MAX, connect(&link.url, &probe)).await.unwrap_or(Err(Trouble::Silent)) {
            Err(trouble) => link.rest(&trouble),
            Ok(connection) => {
                link.work(connection);
                let since = Instant::now();
                link.failed().await;
                if since.elapsed() >= STEADY_AFTER {
                    rest = REST_MIN;
                }
            }
        }
        sleep(rest).await;
        rest = rest.saturating_mul(2).min(REST_MAX);
    }
}

/// What is wrong with Redis, in words that go on from "it". Nothing that Redis sent is in them but
/// the code of an error, and nothing that changes from one try to the next.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nothing came.
    #[error("does not answer in time")]
    Silent,
    /// There is no connection.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// There was one.
    #[error("closed the connection")]
    Closed,
    /// Certificates or protocol.
    #[error("cannot be spoken to with TLS: {0}")]
    Tls(String),
    /// User or password, and the code of the error.
    #[error("does not let us in ({0}): look at the user name and the password in REDIS_URL")]
    Password(String),
    /// It does not do what was asked.
    #[error("refuses {command} ({code})")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// The code of the error.
        code: String,
    },
    /// Something else listens there.
    #[error("answers what Redis would not")]
    NotRedis,
    /// The URL has something that is not understood.
    #[error("cannot be used: REDIS_URL {0}")]
    Url(&'static str),
}

impl Trouble {
    /// Why there is no connection. Nothing was sent yet that Redis could repeat.
    fn connecting(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::InvalidClientConfig => Self::UNSUPPORTED,
            ErrorKind::Io if !is_tls(error) => Self::Unreachable(error.to_string()),
            _ => Self::Tls(error.to_string()),
        }
    }

    const UNSUPPORTED: Self = Self::Url("has something in it that is not supported: rediss://USER:PASSWORD@HOST:PORT/DATABASE is");
}

/// A connection that was good fails. The crate's words are not kept: they may repeat what was sent.
impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        if error.kind() == ErrorKind::Parse { Self::NotRedis } else { Self::Closed }
    }
}

/// Whether an error of a stream is one of TLS, or of the certificates for it. The crate has no kind
/// for it.
fn is_tls(error: &RedisError) -> bool {
    let cause = error.source().and_then(|error| error.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    cause.is_some_and(|cause| match cause.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().is_some_and(|error| error.is::<rustls::Error>()),
        None => true,
    })
}

/// A connection that was let in and may write.
async fn connect(url: &SecretUrl, probe: &str) -> Result<MultiplexedConnection, Trouble> {
    // Another part of the program may have installed it already; there is only one choice anyway.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = url.expose();
    let database = url.path().trim_matches('/');
    if !database.is_empty() && database.parse::<u16>().is_err() {
        return Err(Trouble::Url("has something else than a database's number after its host"));
    }
    let info = url.clone().into_connection_info().map_err(|_| Trouble::UNSUPPORTED)?;
    let login = info.redis_settings().clone();
    // The crate would keep the code of a refusal to itself, so logging in is left to us.
    let info = info.set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = Client::open(info).map_err(|_| Trouble::UNSUPPORTED)?;
    let limits =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None).set_pipeline_buffer_size(REQUESTS_MAX);
    let connected = client.get_multiplexed_async_connection_with_config(&limits).await;
    let connection = connected.map_err(|error| Trouble::connecting(&error))?;
    if let Some(password) = login.password() {
        let mut auth = cmd("AUTH");
        if let Some(user) = login.username() {
            auth.arg(user);
        }
        done(connection.clone(), "AUTH", auth.arg(password).clone()).await?;
    }
    if login.db() != 0 {
        done(connection.clone(), "SELECT", cmd("SELECT").arg(login.db()).clone()).await?;
    }
    // A copy that takes no writes, or a full one, is of no use.
    done(connection.clone(), "SET", set(probe, b"1", Duration::from_secs(1))).await?;
    Ok(connection)
}

fn set(key: &str, value: &[u8], left: Duration) -> Cmd {
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    cmd("SET").arg(key).arg(value).arg("PX").arg(left_ms).clone()
}

/// Has a command done whose reply is no value.
async fn done(mut connection: MultiplexedConnection, name: &'static str, command: Cmd) -> Result<(), Trouble> {
    match connection.send_packed_command(&command).await? {
        Value::Okay | Value::SimpleString(_) => Ok(()),
        other => Err(unexpected(name, &other)),
    }
}

async fn read(mut connection: MultiplexedConnection, key: String) -> Result<Found, Trouble> {
    let mut both = pipe();
    both.cmd("GETRANGE").arg(&key).arg(0).arg(ENTRY_BYTES_MAX);
    both.cmd("PTTL").arg(&key);
    let replies = connection.send_packed_commands(&both, 0, both.len()).await?;
    let [json, left] = <[Value; 2]>::try_from(replies).map_err(|_| Trouble::NotRedis)?;
    let json = match json {
        // One byte more than an entry may have was asked for, to tell one that is too large.
        Value::BulkString(json) => Some(json).filter(|json| !json.is_empty() && json.len() <= ENTRY_BYTES_MAX),
        Value::Nil => None,
        // Somebody put another kind of thing under our key: ours will replace it.
        Value::ServerError(error) if error.code() == "WRONGTYPE" => None,
        other => return Err(unexpected("GETRANGE", &other)),
    };
    let left = match left {
        Value::Int(left) => u64::try_from(left).ok().map(Duration::from_millis),
        other => return Err(unexpected("PTTL", &other)),
    };
    Ok(json.zip(left))
}

/// What a reply means that is not the one that was asked for.
fn unexpected(command: &'static str, reply: &Value) -> Trouble {
    let Value::ServerError(error) = reply else { return Trouble::NotRedis };
    let code = code_of(error);
    if command == "AUTH" || matches!(code.as_str(), "WRONGPASS" | "NOAUTH") {
        Trouble::Password(code)
    } else {
        Trouble::Refused { command, code }
    }
}

/// The first word of an error, if it is a code: Redis repeats in errors what it was sent, and that
/// may be the password.
fn code_of(error: &ServerError) -> String {
    if is_code(error.code()) { error.code() } else { "ERR" }.to_owned()
}

fn is_code(word: &str) -> bool {
    !word.is_empty() && word.len() <= CODE_BYTES_MAX && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_error_only_its_code_is_told() {
        let password = "does not let us in (WRONGPASS): look at the user name and the password in REDIS_URL";
        for (command, sent, told) in [
            ("AUTH", "-WRONGPASS invalid username-password pair\r\n", password),
            ("GETRANGE", "-WRONGPASS invalid username-password pair\r\n", password),
            ("SELECT", "-ERR unknown command `AUTH`, with args beginning with: `hunter2`\r\n", "refuses SELECT (ERR)"),
            ("SET", "-hunter2 is what you sent\r\n", "refuses SET (ERR)"),
            ("SET", "-HUNTERTWOHUNTERTWOHUNTERTWO\r\n", "refuses SET (ERR)"),
            ("SET", "-READONLY You can't write against a read only replica.\r\n", "refuses SET (READONLY)"),
            ("SET", "-\r\n", "refuses SET (ERR)"),
            ("PING", "$7\r\nhunter2\r\n", "answers what Redis would not"),
            ("PING", "*1\r\n+PONG\r\n", "answers what Redis would not"),
        ] {
            let reply = ::redis::parse_redis_value(sent.as_bytes()).unwrap();
            assert_eq!(unexpected(command, &reply).to_string(), told, "{sent:?}");
        }
    }
}
