//! The shared half of the cache: one connection to Redis, which is never waited for.
//!
//! A task of its own owns the connection. It sends all requests that wait as one, reads their
//! replies, and hands them out. Whoever asks waits at most [`WAIT_MAX`], and only while Redis is
//! known to work: nobody asks it while a reply is overdue. When it says nothing for [`ANSWER_MAX`],
//! refuses, or says what is no reply, it is left alone for a while ([`REST_MIN`], twice as long each
//! time, up to [`REST_MAX`]) and the cache goes on in the process. Connecting, with TLS and a
//! password, happens in the task too, so nobody waits for that either. A change from working to not
//! working, or of the reason, is logged once.
//!
//! Five commands are used besides `AUTH` and `SELECT`: `PING`, `SET` with an end, `GETRANGE` (a
//! `GET` that cannot be flooded) and `PTTL`. For these few a client of our own is shorter than the
//! settings that bound another's.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::wire::{self, Reply};
use super::{Cached, ENTRY_BYTES_MAX};
use crate::config::SecretUrl;

/// The longest that a look-up waits for Redis.
pub const WAIT_MAX: Duration = Duration::from_millis(50);

/// How long replies may take before the connection is given up. A moment's pause of Redis or of
/// this machine is no failure.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long connecting may take, with TLS, password and a first write.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How long Redis is left alone after its first failure.
const REST_MIN: Duration = Duration::from_secs(1);

/// How long it is left alone at most.
const REST_MAX: Duration = Duration::from_secs(10);

/// A connection that lasted this long was a good one: the next rest is a short one again.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// How many requests may wait; one more goes on without Redis.
const QUEUE_MAX: usize = 1_024;

/// How many requests are sent as one.
const BATCH_MAX: usize = 64;

/// The port of a URL that names none.
const PORT: u16 = 6_379;

/// How Redis does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisHealth {
    /// No `REDIS_URL`: caches are kept in the process alone.
    Unused,
    /// It answers and takes what is written.
    Healthy,
    /// It is left alone for now, and why. Caches are kept in the process.
    Degraded(String),
}

/// What the task knows of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Working,
    /// A reply is overdue.
    Late,
    Resting(String),
}

/// What the task is asked.
enum Request {
    Read { key: String, answer: oneshot::Sender<Found> },
    Write { key: String, json: Vec<u8>, left: Duration },
    Ping { answer: oneshot::Sender<()> },
}

impl Request {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Read { answer, .. } => !answer.is_closed(),
            Self::Ping { answer } => !answer.is_closed(),
            Self::Write { .. } => true,
        }
    }
}

/// What stood under a key, and how long it will stand there.
type Found = Option<(Vec<u8>, Duration)>;

/// Redis, as the cache uses it.
pub(super) struct Redis {
    url: SecretUrl,
    prefix: String,
    state: Arc<watch::Sender<State>>,
    queue: OnceLock<mpsc::Sender<Request>>,
}

impl Redis {
    /// Speaks to nobody before the first question.
    pub(super) fn new(url: SecretUrl, prefix: String) -> Self {
        Self { url, prefix, state: Arc::new(watch::Sender::new(State::Starting)), queue: OnceLock::new() }
    }

    /// What another process left under a key, and how old it is. Takes at most [`WAIT_MAX`].
    pub(super) async fn read(&self, kind: Cached, key: &str) -> Option<(Vec<u8>, Duration)> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Read { key: self.key(kind, key), answer })?;
        let (json, left) = timeout(WAIT_MAX, answered).await.ok()?.ok()??;
        // What has no end, or a later one than we set, is not from us.
        Some((json, kind.kept().checked_sub(left)?))
    }

    /// Leaves a value that is `age` old for other processes. Waits for nothing.
    pub(super) fn write(&self, kind: Cached, key: &str, json: Vec<u8>, age: Duration) {
        let left = kind.kept().saturating_sub(age);
        if left.as_millis() > 0 {
            let _ = self.ask(Request::Write { key: self.key(kind, key), json, left });
        }
    }

    /// How Redis does now: asks it. Takes at most twice [`WAIT_MAX`], and about [`CONNECT_MAX`] the
    /// first time.
    pub(super) async fn health(&self) -> RedisHealth {
        self.queue();
        let mut state = self.state.subscribe();
        // The task gives up after CONNECT_MAX, which is heard here a moment later.
        let _ = timeout(CONNECT_MAX.saturating_mul(2), state.wait_for(|state| *state != State::Starting)).await;
        let (answer, answered) = oneshot::channel();
        if self.ask(Request::Ping { answer }).is_some() {
            // The task may be a moment later than we are in finding that no answer comes.
            let changed = async { drop(state.wait_for(|state| *state != State::Working).await) };
            tokio::select! {
                _ = answered => {}
                () = changed => {}
                () = tokio::time::sleep(WAIT_MAX.saturating_mul(2)) => {}
            }
        }
        match self.state.borrow().clone() {
            State::Starting => RedisHealth::Degraded("is still being connected to".to_owned()),
            State::Working => RedisHealth::Healthy,
            State::Late => RedisHealth::Degraded(Trouble::Silent.to_string()),
            State::Resting(reason) => RedisHealth::Degraded(reason),
        }
    }

    fn key(&self, kind: Cached, key: &str) -> String {
        format!("{}:{}:{key}", self.prefix, kind.name())
    }

    /// Hands a request to the task, unless Redis is left alone or has too much to do.
    fn ask(&self, request: Request) -> Option<()> {
        let queue = self.queue();
        if *self.state.borrow() != State::Working {
            return None;
        }
        queue.try_send(request).ok()
    }

    /// The task's queue. The task begins with the first question and ends with this.
    fn queue(&self) -> &mpsc::Sender<Request> {
        self.queue.get_or_init(|| {
            let (queue, requests) = mpsc::channel(QUEUE_MAX);
            let probe = format!("{}:probe", self.prefix);
            tokio::spawn(work(self.url.clone(), probe, Arc::clone(&self.state), requests));
            queue
        })
    }
}

/// Connects, serves, rests, until nobody can ask any more.
async fn work(url: SecretUrl, probe: String, state: Arc<watch::Sender<State>>, mut requests: mpsc::Receiver<Request>) {
    let mut rest = REST_MIN;
    loop {
        let connected = timeout(CONNECT_MAX, Connection::open(&url, &probe)).await;
        let trouble = match connected.unwrap_or(Err(Trouble::Silent)) {
            Err(trouble) => trouble,
            Ok(connection) => {
                tell(&state, State::Working, &url);
                let since = Instant::now();
                let Err(trouble) = serve(connection, &mut requests, &state).await else { return };
                if since.elapsed() >= STEADY_AFTER {
                    rest = REST_MIN;
                }
                trouble
            }
        };
        tell(&state, State::Resting(trouble.to_string()), &url);
        if skip_until(Instant::now().checked_add(rest), &mut requests).await.is_none() {
            return;
        }
        rest = rest.saturating_mul(2).min(REST_MAX);
    }
}

/// Logs a change, once.
fn tell(state: &watch::Sender<State>, now: State, url: &SecretUrl) {
    match state.send_replace(now.clone()) {
        was if was == now => {}
        _ => match now {
            State::Resting(reason) => {
                tracing::warn!(redis = %url, "Redis is left alone for now and caches are kept in the process: it {reason}");
            }
            State::Working => tracing::info!(redis = %url, "Redis answers: caches are shared"),
            State::Starting | State::Late => {}
        },
    }
}

/// Serves requests until the connection fails; `Ok` when nobody can ask any more.
async fn serve(mut connection: Connection, requests: &mut mpsc::Receiver<Request>, state: &watch::Sender<State>) -> Result<(), Trouble> {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while requests.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // Whoever waited too long has gone on without us.
        let wanted = batch.drain(..).filter(Request::is_wanted).collect();
        let exchange = connection.exchange(wanted);
        tokio::pin!(exchange);
        match timeout(WAIT_MAX, &mut exchange).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                state.send_replace(State::Late);
                timeout(ANSWER_MAX, exchange).await.unwrap_or(Err(Trouble::Silent))?;
                state.send_replace(State::Working);
            }
        }
    }
    Ok(())
}

/// Lets requests go unanswered for a while; `None` when nobody can ask any more.
async fn skip_until(end: Option<Instant>, requests: &mut mpsc::Receiver<Request>) -> Option<()> {
    let end = end?;
    loop {
        tokio::select! {
            () = sleep_until(end) => return Some(()),
            request = requests.recv() => drop(request?),
        }
    }
}

/// What is wrong with Redis, in words that go on from "it". Nothing that Redis sent is in them but
/// the code of an error, and nothing that changes from one try to the next.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("does not answer in time")]
    Silent,
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("closed the connection")]
    Closed,
    #[error("cannot be spoken to with TLS: {0}")]
    Tls(String),
    #[error("does not let us in ({0}): look at the user name and the password in REDIS_URL")]
    Password(String),
    #[error("refuses {command} ({code})")]
    Refused { command: &'static str, code: String },
    #[error("answers what Redis would not")]
    NotRedis,
    #[error("cannot be used: REDIS_URL {0}")]
    Url(&'static str),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::NotRedis,
            _ => Self::Closed,
        }
    }
}

/// A connection that was let in and may write.
struct Connection {
    reader: Box<dyn AsyncBufRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    out: Vec<u8>,
}

impl Connection {
    async fn open(url: &SecretUrl, probe: &str) -> Result<Self, Trouble> {
        let url = url.expose();
        // Brackets belong to an IPv6 address in a URL, not to the address.
        let host = url.host_str().ok_or(Trouble::Url("names no host"))?.trim_matches(['[', ']']);
        let database = match url.path().trim_matches('/') {
            "" => None,
            number => Some(number.parse::<u16>().map_err(|_| Trouble::Url("has something else than a database's number after its host"))?),
        };
        let unreachable = |error: io::Error| Trouble::Unreachable(error.to_string());
        let stream = TcpStream::connect((host, url.port().unwrap_or(PORT))).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let mut connection = if url.scheme() == "rediss" {
            Self::of(tls(host, stream).await.map_err(|error| Trouble::Tls(error.to_string()))?)
        } else {
            Self::of(stream)
        };
        if let Some(password) = url.password() {
            let (user, password) = (decoded(url.username()), decoded(password));
            let parts: &[&[u8]] = if user.is_empty() { &[b"AUTH", &password] } else { &[b"AUTH", &user, &password] };
            connection.must("AUTH", parts).await?;
        }
        if let Some(database) = database {
            connection.must("SELECT", &[b"SELECT", database.to_string().as_bytes()]).await?;
        }
        // A copy that takes no writes, or a full one, is of no use.
        connection.must("SET", &[b"SET", probe.as_bytes(), b"1", b"PX", b"1000"]).await?;
        Ok(connection)
    }

    fn of(stream: impl AsyncWrite + tokio::io::AsyncRead + Send + 'static) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader: Box::new(BufReader::new(reader)), writer: Box::new(writer), out: Vec::new() }
    }

    async fn send(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.out).await?;
        self.out.clear();
        self.writer.flush().await
    }

    async fn reply(&mut self) -> Result<Reply, Trouble> {
        // One byte more than an entry may have, to tell one that is too large.
        Ok(wire::reply(&mut self.reader, ENTRY_BYTES_MAX.saturating_add(1)).await?)
    }

    /// Does one command that has to be done.
    async fn must(&mut self, command: &'static str, parts: &[&[u8]]) -> Result<(), Trouble> {
        wire::command(&mut self.out, parts);
        self.send().await?;
        done(command, &self.reply().await?)
    }

    /// Sends requests as one and answers them.
    async fn exchange(&mut self, batch: Vec<Request>) -> Result<(), Trouble> {
        for request in &batch {
            match request {
                Request::Read { key, .. } => {
                    wire::command(&mut self.out, &[b"GETRANGE", key.as_bytes(), b"0", ENTRY_BYTES_MAX.to_string().as_bytes()]);
                    wire::command(&mut self.out, &[b"PTTL", key.as_bytes()]);
                }
                Request::Write { key, json, left } => {
                    wire::command(&mut self.out, &[b"SET", key.as_bytes(), json, b"PX", left.as_millis().to_string().as_bytes()]);
                }
                Request::Ping { .. } => wire::command(&mut self.out, &[b"PING"]),
            }
        }
        self.send().await?;
        for request in batch {
            // Whoever asked may have gone on without us: then nobody takes the answer.
            match request {
                Request::Read { answer, .. } => {
                    let found = self.found().await?;
                    let _ = answer.send(found);
                }
                Request::Write { .. } => done("SET", &self.reply().await?)?,
                Request::Ping { answer } => {
                    done("PING", &self.reply().await?)?;
                    let _ = answer.send(());
                }
            }
        }
        Ok(())
    }

    async fn found(&mut self) -> Result<Found, Trouble> {
        let (json, left) = (self.reply().await?, self.reply().await?);
        let json = match json {
            Reply::Bytes(json) => json.filter(|json| !json.is_empty() && json.len() <= ENTRY_BYTES_MAX),
            // Somebody put another kind of thing under our key: ours will replace it.
            Reply::Refused(code) if code == "WRONGTYPE" => None,
            other => return Err(trouble("GETRANGE", &other)),
        };
        let left = match left {
            Reply::Number(left) => u64::try_from(left).ok().map(Duration::from_millis),
            other => return Err(trouble("PTTL", &other)),
        };
        Ok(json.zip(left))
    }
}

/// Whether a command was done, where the reply is no value.
fn done(command: &'static str, reply: &Reply) -> Result<(), Trouble> {
    if *reply == Reply::Done { Ok(()) } else { Err(trouble(command, reply)) }
}

/// What a reply means that is not the one that was asked for.
fn trouble(command: &'static str, reply: &Reply) -> Trouble {
    match reply {
        Reply::Refused(code) if command == "AUTH" || matches!(code.as_str(), "WRONGPASS" | "NOAUTH") => Trouble::Password(code.clone()),
        Reply::Refused(code) => Trouble::Refused { command, code: code.clone() },
        Reply::Done | Reply::Number(_) | Reply::Bytes(_) => Trouble::NotRedis,
    }
}

async fn tls(host: &str, stream: TcpStream) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    // Another part of the program may have installed it already; there is only one choice anyway.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig::with_platform_verifier().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// What stands in a URL for these bytes.
fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}
