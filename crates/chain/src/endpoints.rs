//! The pool of URLs behind a network: which one is asked, when one is rested, what it may cost.
//!
//! The first endpoint of the configuration is used until it fails, then the next, and that one is
//! kept: switching back and forth between nodes that stand at different heights is worse than any
//! of them. An endpoint that answers is left when it lags or when another has been clearly better
//! for a while, and one that was named earlier is returned to when it has been well for a while
//! (`course`). Such a move is made by reading blocks alone, and counts when the read succeeded.
//!
//! One *operation* (the header and the logs of a block, say) stays on one endpoint from its first
//! call to its last, because two nodes never make one consistent answer; when it fails it starts
//! anew on the next endpoint, each one at most once. When it is slow it is begun on a second one as
//! well, and the first whole answer wins; what the other has by then is dropped (`hedge`).
//!
//! Who served which block is remembered (`sources`), so that another is asked when it is read a
//! second time (`opinion`).
//!
//! A URL can hold a provider's key, in its path, its query or a header. None of them may reach a
//! log line, an error or a `Debug` text: endpoints are named by scheme and host alone, and every
//! text that comes back from the other side is searched for them.

mod allowance;
mod breaker;
mod course;
mod heads;
mod hedge;
mod http;
mod latency;
mod look;
mod opinion;
mod score;
mod slot;
mod sources;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tidegate_rules::block::{BlockRef, Network};
use tokio::time::Instant;
use url::Url;

use self::course::{Course, Move, Standing, Switched};
pub use self::course::{LEAVE_AFTER, LEAVE_MARGIN, RETURN_AFTER, RETURN_AFTER_MAX, RETURN_MARGIN, SWITCHES_KEPT};
use self::heads::Heads;
pub use self::heads::{HEAD_HELD, LAG_BLOCKS_MAX, LAG_TIME_MAX};
use self::hedge::Served;
pub(crate) use self::http::suspended_for;
pub use self::opinion::Opinion;
use self::slot::{Errand, Slot};
pub use self::sources::HEIGHTS_MAX;
use self::sources::Sources;
use crate::{EndpointHealth, Error, PoolHealth, SwitchCause};

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
/// The most endpoints that a network may have.
pub const ENDPOINTS_MAX: usize = 64;
/// An operation is never begun a second time, elsewhere, sooner than this.
pub const HEDGE_AFTER_MIN: Duration = Duration::from_secs(1);
/// When it is, on an endpoint of which too little is known to say what is slow.
pub const HEDGE_AFTER_UNKNOWN: Duration = Duration::from_secs(3);
/// No operation is begun a second time on an endpoint that scores below this.
pub const HEDGE_SCORE_MIN: u8 = 50;
/// How often the endpoints that are not in use are asked for their heads.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long the work that such a look is taken beside waits for its end.
pub const LOOK_GRACE: Duration = Duration::from_secs(1);

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
        f.debug_struct("EndpointConfig").field("url", &http::public_name(&self.url)).finish_non_exhaustive()
    }
}

/// Where jitter comes from: any number, each time another.
pub type Jitter = Box<dyn FnMut() -> u64 + Send>;

/// Which endpoint an operation would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The one in use.
    Current,
    /// Any but the one in use; that one too if there is no other.
    Other,
    /// Any but this one, by its place, and the one in use after the others; this one too if there
    /// is no other.
    OtherThan(usize),
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
    /// When our own budget for it allows. Nothing is wrong with it.
    #[error("{0}")]
    Spent(String),
    /// When somebody has changed something: it does not offer the call. Who can do without it asks
    /// in another way, and remembers.
    #[error("{0}")]
    NotOffered(String),
    /// When somebody has changed something: the key is wrong, or the chain.
    #[error("{0}")]
    Permanent(String),
}

impl Failure {
    /// A failure that may be over soon.
    pub fn transient(reason: impl Into<String>) -> Self {
        Self::Transient { reason: reason.into(), rest: None }
    }

    fn is_permanent(&self) -> bool {
        matches!(self, Self::NotOffered(_) | Self::Permanent(_))
    }
}

/// Whether an operation that is slow is begun a second time elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedging {
    /// When it takes longer than nine of ten on that endpoint did.
    WhenSlow,
    /// Never.
    Off,
}

/// The endpoints of one network.
pub struct Endpoints {
    network: Network,
    slots: Vec<Arc<Slot>>,
    course: Mutex<Course>,
    hedging: Hedging,
    /// The block that the current endpoint did not have yet, and since when.
    awaited: Mutex<Option<(u64, Instant)>>,
    /// Who served the blocks that were read.
    sources: Mutex<Sources>,
    /// When the endpoints that are not in use were last looked at.
    looked_at: Mutex<Instant>,
    jitter: Mutex<Jitter>,
}

impl Endpoints {
    /// A pool in order of preference. Slow operations are hedged.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no endpoint or more than [`ENDPOINTS_MAX`], a header is
    /// malformed, or TLS cannot start.
    pub fn new(network: &Network, configs: Vec<EndpointConfig>, jitter: Jitter) -> Result<Self, Error> {
        if configs.is_empty() {
            return Err(Error::Refused(format!("{network}: expected at least one RPC URL, found none")));
        }
        let count = configs.len();
        if count > ENDPOINTS_MAX {
            return Err(Error::Refused(format!("{network}: expected at most {ENDPOINTS_MAX} RPC URLs, found {count}")));
        }
        let (client, heads) = (http::client()?, Arc::new(Mutex::new(Heads::new(count))));
        let mut slots: Vec<Arc<Slot>> = Vec::with_capacity(count);
        for (index, config) in configs.into_iter().enumerate() {
            let mut slot = Slot::new(index, config, client.clone(), Arc::clone(&heads))?;
            // Two keys of one provider look alike, and a switch between them should be readable.
            let namesakes = slots.iter().filter(|other| other.name.split(' ').next() == Some(&slot.name)).count();
            if namesakes > 0 {
                slot.name = format!("{} ({})", slot.name, namesakes.saturating_add(1));
            }
            slots.push(Arc::new(slot));
        }
        let now = Instant::now();
        Ok(Self {
            network: network.clone(),
            slots,
            course: Mutex::new(Course::new(now)),
            hedging: Hedging::WhenSlow,
            awaited: Mutex::new(None),
            sources: Mutex::default(),
            looked_at: Mutex::new(now),
            jitter: Mutex::new(jitter),
        })
    }

    /// The same pool, hedging as said.
    #[must_use]
    pub const fn with_hedging(mut self, hedging: Hedging) -> Self {
        self.hedging = hedging;
        self
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
        let current = self.current();
        match prefer {
            // A second opinion is not hedged: the first one's endpoint might win.
            Prefer::Other | Prefer::OtherThan(_) => Ok(self.attempt(self.order(prefer, current), Hedging::Off, &operation).await?.value),
            Prefer::Current => {
                let served = self.attempt(self.order(prefer, current), self.hedging, &operation).await?;
                self.keep(current, &served);
                Ok(served.value)
            }
        }
    }

    /// Asks the endpoint in use and, where that one does not know, every other. Which endpoint is in
    /// use does not change by that. `None` when all that answered do not know, and at least one did
    /// answer.
    ///
    /// # Errors
    /// As [`Endpoints::run`].
    pub async fn search<T, F, Fut>(&self, ask: F) -> Result<Option<T>, Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<Option<T>, Failure>>,
    {
        let ask = &ask;
        let in_use = |endpoint: Endpoint| async move {
            let index = endpoint.index();
            Ok((index, ask(endpoint).await?))
        };
        let (answered, found) = self.run(Prefer::Current, in_use).await?;
        if found.is_some() || self.count() == 1 {
            return Ok(found);
        }
        let other = |endpoint: Endpoint| async move {
            let unknown = || Failure::Behind("it does not know".into());
            if endpoint.index() == answered {
                return Err(unknown());
            }
            ask(endpoint).await?.ok_or_else(unknown)
        };
        Ok(self.run(Prefer::Other, other).await.ok())
    }

    /// As [`Endpoints::run`], for an operation that reads blocks from `number` upwards, one of each
    /// height, and may find none yet. Who served which is remembered, for
    /// [`Endpoints::second_opinion`]. An endpoint that has had none for [`OVERDUE_AFTER`] while
    /// another has some has fallen behind, and is left for the other. Here too an endpoint is left
    /// that lags or scores clearly below another, and one that was named earlier is returned to.
    ///
    /// # Errors
    /// As [`Endpoints::run`].
    pub async fn run_from<T, F, Fut>(&self, number: u64, operation: F) -> Result<Vec<T>, Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<Vec<T>, Failure>>,
    {
        let current = self.current();
        let moved = match self.consider() {
            Some((chosen, reason)) => self.move_to(chosen, &reason, current, &operation).await?,
            None => None,
        };
        let served = match moved {
            Some(served) => served,
            None => {
                let served = self.attempt(self.order(Prefer::Current, current), self.hedging, &operation).await?;
                self.keep(current, &served);
                served
            }
        };
        if !served.value.is_empty() || !self.is_overdue(number) {
            return Ok(self.remember(number, served));
        }
        let current = self.current();
        let others = self.order(Prefer::Other, current).into_iter().filter(|slot| slot.index != current).collect();
        match self.attempt(others, Hedging::Off, &operation).await {
            Ok(served) if !served.value.is_empty() => {
                let reason = format!("it does not have block {number} yet");
                self.switch(current, served.index, None, SwitchCause::Overdue, &reason);
                Ok(self.remember(number, served))
            }
            // Nobody has it, or nobody can say: the chain itself may be standing still.
            _ => Ok(served.value),
        }
    }

    /// How each endpoint is doing, in the order of the configuration.
    #[must_use]
    pub fn health(&self) -> Vec<EndpointHealth> {
        let now = Instant::now();
        self.slots.iter().map(|slot| slot.health(now)).collect()
    }

    /// Which endpoint is in use, and how it came to that.
    #[must_use]
    pub fn pool_health(&self) -> PoolHealth {
        let course = lock(&self.course);
        let (switches_by_cause, switches) = course.switches(Instant::now());
        let switches_total = switches_by_cause.values().sum();
        PoolHealth { current: course.current(), switches, switches_total, switches_by_cause }
    }

    /// How many endpoints there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.slots.len()
    }

    /// Reads on the endpoint that a move goes to, or where it fails on the others as ever. `None`
    /// when that endpoint was chosen for being ahead and does not have the next block: anybody can
    /// show a high number, to have the blocks is proof.
    async fn move_to<T, F, Fut>(&self, chosen: Move, reason: &str, current: usize, operation: &F) -> Result<Option<Served<Vec<T>>>, Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<Vec<T>, Failure>>,
    {
        let (mut order, others): (Vec<_>, Vec<_>) =
            self.order(Prefer::Current, current).into_iter().partition(|slot| slot.index == chosen.to());
        order.extend(others);
        let served = self.attempt(order, self.hedging, operation).await;
        let is_there = served.as_ref().is_ok_and(|served| served.index == chosen.to());
        let lags = self.slots.get(chosen.to()).is_some_and(|slot| slot.place(Instant::now()).lagging.is_some());
        if !is_there || lags {
            lock(&self.course).stayed(chosen, Instant::now());
        }
        let served = served?;
        if !is_there {
            self.keep(current, &served);
            return Ok(Some(served));
        }
        if matches!(chosen, Move::Lagging { .. }) && served.value.is_empty() {
            return Ok(None);
        }
        if !lags {
            self.switch(current, chosen.to(), Some(chosen), chosen.cause(), reason);
        }
        Ok(Some(served))
    }

    /// Whether to leave the endpoint in use though it answers, and why.
    fn consider(&self) -> Option<(Move, String)> {
        let now = Instant::now();
        let standings: Vec<Standing> = self.slots.iter().map(|slot| slot.standing(now)).collect();
        let mut course = lock(&self.course);
        let chosen = course.consider(&standings, now)?;
        let (from, to) = (self.slots.get(course.current())?, self.slots.get(chosen.to())?);
        let score = |slot: &Slot| standings.get(slot.index).map_or(0, |standing| standing.score);
        let reason = match chosen {
            Move::Lagging { .. } => format!("it is {} blocks behind", from.place(now).behind),
            Move::Better { .. } => {
                format!("its score is {}, that of the other {}: {}", score(from), score(to), from.record(now).complaints())
            }
            Move::Return { .. } => format!("the other is named earlier and well again, with a score of {}", score(to)),
        };
        Some((chosen, reason))
    }

    fn current(&self) -> usize {
        lock(&self.course).current()
    }

    /// Every endpoint once: the preferred ones first, the others as configured, and of those that
    /// are not in use the ones that lag behind the ones that do not.
    fn order(&self, prefer: Prefer, current: usize) -> Vec<Arc<Slot>> {
        let now = Instant::now();
        let (own, others): (Vec<_>, Vec<_>) = self.slots.iter().cloned().partition(|slot| slot.index == current);
        let (lagging, well): (Vec<_>, Vec<_>) = others.into_iter().partition(|slot| slot.place(now).lagging.is_some());
        match prefer {
            Prefer::Current => [own, well, lagging].concat(),
            Prefer::Other => [well, lagging, own].concat(),
            Prefer::OtherThan(index) => {
                let mut order = [well, lagging, own].concat();
                order.sort_by_key(|slot| slot.index == index);
                order
            }
        }
    }

    /// Remembers who served the blocks from `number` upwards.
    fn remember<T>(&self, number: u64, served: Served<Vec<T>>) -> Vec<T> {
        let mut sources = lock(&self.sources);
        (number..).zip(&served.value).for_each(|(number, _)| sources.note(number, served.index));
        served.value
    }

    /// Keeps the endpoint that served in the place of the one that did not.
    fn keep<T>(&self, current: usize, served: &Served<T>) {
        // One that was merely slow this once is not left for it; its score remembers.
        let left = served.reasons.iter().find(|(index, _)| *index == current);
        if let Some((_, reason)) = left.filter(|_| served.index != current) {
            let is_spent = self.slots.get(current).is_some_and(|slot| slot.is_over_budget(Instant::now()));
            let cause = if is_spent { SwitchCause::Budget } else { SwitchCause::Failing };
            self.switch(current, served.index, None, cause, reason);
        }
    }

    fn switch(&self, from: usize, to: usize, by: Option<Move>, cause: SwitchCause, reason: &str) {
        let (Some(left), Some(used)) = (self.slots.get(from), self.slots.get(to)) else { return };
        let switched = Switched::new(left.name.clone(), used.name.clone(), cause, reason.to_owned(), Instant::now());
        if !lock(&self.course).switch(from, to, by, switched) {
            return;
        }
        let (network, from, to) = (&self.network, &left.name, &used.name);
        if matches!(by, Some(Move::Return { .. })) {
            tracing::info!(%network, %from, %to, %reason, "using an endpoint again that was left");
        } else {
            tracing::warn!(%network, %from, %to, %reason, "using another endpoint");
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
    errand: Errand,
    waited_us: Arc<AtomicU64>,
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
        self.slot.quote(text)
    }

    /// Notes the newest block that it shows, by which it is compared with the others.
    pub fn saw_head(&self, head: &BlockRef) {
        self.slot.saw_head(head);
    }

    /// Notes a block that it has, by which a fork is told from a lag.
    pub fn saw_block(&self, block: &BlockRef) {
        self.slot.saw_block(block);
    }

    /// Posts a JSON body and returns the answer's bytes. It costs as many requests as `cost` says
    /// (a batch counts each of its parts, as providers do).
    ///
    /// # Errors
    /// Everything but an answer: refused, silent, too large, over budget. An answer that is an
    /// error in the words of the protocol is an answer.
    pub async fn post<B: Serialize + Sync>(&self, path: &str, body: &B, cost: u32) -> Result<Vec<u8>, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::transient(error.to_string()))?;
        let wait = self.slot.take(cost, self.errand, Instant::now())?;
        if !wait.is_zero() {
            self.waited_us.fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
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

/// The state behind these locks is whole between any two statements, so a panic elsewhere while
/// one was held takes nothing away from it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
