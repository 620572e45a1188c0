//! Answers that are good for a while, so that a page opened twice asks a chain or the database once.
//!
//! Values are kept in the process and, where `REDIS_URL` is set, in Redis too, for other processes
//! of the same database. Redis is a convenience: dead, slow or wrong it costs a look-up at most
//! [`WAIT_MAX`] and then nothing, and no value is lost with it ([`redis`]).
//!
//! **Money is never decided from this cache.** What is here was true some minutes ago, and whoever
//! can write to Redis can write anything under our keys. It is for showing: balances, fees,
//! numbers of the pool. Payments are counted from blocks alone.
//!
//! Two processes may load the same key at the same time; the later one's value stays. Why the map is
//! our own and the client of Redis is not: `docs/adr/0013-cache-in-process-and-redis.md`.

mod redis;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;

pub use self::redis::{Redis, RedisHealth, Subscription, Trouble, WAIT_MAX};
use crate::config::SecretUrl;
use crate::metrics::{Lookup, Lookups};

/// Stands in every key in Redis. To be raised when a value means something else than before, so
/// that an old and a new process may share one Redis.
const FORMAT: u32 = 1;

/// How many values of one kind are kept in the process.
pub const ENTRIES_MAX: usize = 10_000;

/// The part of a full shelf that makes room at once: looking for what is oldest is work.
const EVICTED: usize = ENTRIES_MAX / 8;

/// The largest value that is kept, as JSON.
pub const ENTRY_BYTES_MAX: usize = 8 * 1_024;

/// The longest key under which a value is kept.
pub const KEY_BYTES_MAX: usize = 256;

/// How many loads of one kind may be under way for whoever asks; one more is its caller's alone.
pub const FLIGHTS_MAX: usize = 1_024;

/// How long after a refresh that failed the next one is tried.
pub const REFRESH_REST: Duration = Duration::from_secs(5);

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cached {
    /// What an address holds.
    Balance,
    /// How a transaction does.
    TransactionStatus,
    /// What a network takes for a transfer.
    Fee,
    /// The pool in numbers.
    PoolStats,
}

impl Cached {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Balance, Self::TransactionStatus, Self::Fee, Self::PoolStats];

    /// The word in Redis' keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::TransactionStatus => "transaction_status",
            Self::Fee => "fee",
            Self::PoolStats => "pool_stats",
        }
    }

    /// How old a value may be when it is given out.
    #[must_use]
    pub const fn kept(self) -> Duration {
        match self {
            Self::Balance => Duration::from_secs(300),
            Self::TransactionStatus => Duration::from_secs(60),
            Self::Fee => Duration::from_secs(600),
            Self::PoolStats => Duration::from_secs(180),
        }
    }

    /// The age from which a value that is asked for is loaded again beside the answer: 80 % of
    /// [`Cached::kept`].
    #[must_use]
    pub const fn refreshed_after(self) -> Duration {
        match self {
            Self::Balance => Duration::from_secs(240),
            Self::TransactionStatus => Duration::from_secs(48),
            Self::Fee => Duration::from_secs(480),
            Self::PoolStats => Duration::from_secs(144),
        }
    }
}

/// A value and how old it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Fetched<T> {
    /// The value.
    pub value: Arc<T>,
    /// How long ago it was asked for at its source, by this process or another. At most
    /// [`Cached::kept`], unless the source itself took longer to answer.
    pub age: Duration,
}

/// The cache. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Default)]
struct Inner {
    balances: Mutex<Shelf>,
    transactions: Mutex<Shelf>,
    fees: Mutex<Shelf>,
    stats: Mutex<Shelf>,
    redis: Option<Arc<Redis>>,
    lookups: Lookups,
}

/// The values of one kind, and what is being loaded.
#[derive(Default)]
struct Shelf {
    kept: HashMap<String, Kept>,
    flights: HashMap<String, watch::Receiver<Option<Landed>>>,
}

/// A value of a type that whoever asks for its key knows.
#[derive(Clone)]
struct Kept {
    value: Arc<dyn Any + Send + Sync>,
    /// It is as old as the question that it answered.
    asked_at: Instant,
    /// How old it was then: it may have come from another process.
    age_then: Duration,
    no_refresh_before: Instant,
}

/// What became of a load.
#[derive(Clone)]
enum Landed {
    Value(Kept),
    Error(Arc<dyn Any + Send + Sync>),
}

/// What there is under a key.
enum Place {
    Good(Kept),
    /// Still good, to be loaded again.
    Aging(Kept, Flight),
    Underway(watch::Receiver<Option<Landed>>),
    Missing(Flight),
    /// Nothing, and too much is under way.
    Crowded,
}

/// What a load is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Answer,
    Refresh,
}

/// A load under way: whoever holds this does it. Ends the waiting of all others when dropped.
struct Flight {
    inner: Arc<Inner>,
    kind: Cached,
    key: String,
    purpose: Purpose,
    landing: watch::Sender<Option<Landed>>,
}

impl Cache {
    /// An empty cache. `installation` names what is shared in Redis: processes with the same name
    /// share their values, others do not see them. Speaks to nobody before the first question.
    #[must_use]
    pub fn new(redis_url: Option<&SecretUrl>, installation: &str) -> Self {
        let redis = redis_url.map(|url| Arc::new(Redis::new(url.clone(), format!("tidegate:{FORMAT}:{installation}"))));
        Self(Arc::new(Inner { redis, ..Inner::default() }))
    }

    /// The value of a key: kept, or what `load` finds at its source.
    ///
    /// `load` is not touched while the value is good. It runs in a task of its own, once for all who
    /// ask for the key meanwhile, and to its end even if all of them go away: so it must end by
    /// itself. From [`Cached::refreshed_after`] on the kept value is given out at once and `load`
    /// runs beside it. A key stands for one type of value and of error.
    ///
    /// # Errors
    /// Those of `load`, to everybody who waits for it. They are not kept.
    pub async fn get<T, E, F>(&self, kind: Cached, key: &str, load: F) -> Result<Fetched<T>, E>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        loop {
            match self.0.place(kind, key) {
                Place::Good(kept) => match kept.fetched() {
                    Some(fetched) => {
                        self.0.lookups.ended(kind, Lookup::Hit);
                        return Ok(fetched);
                    }
                    None => break,
                },
                Place::Aging(kept, flight) => {
                    let Some(fetched) = kept.fetched() else { break };
                    self.0.lookups.ended(kind, Lookup::Hit);
                    drop(tokio::spawn(flight.run(load).in_current_span()));
                    return Ok(fetched);
                }
                Place::Missing(flight) => return joined(tokio::spawn(flight.run(load).in_current_span())).await,
                Place::Underway(mut landing) => {
                    let landed = match landing.wait_for(Option::is_some).await {
                        Ok(landed) => landed.clone(),
                        // Its load panicked: ours may do better.
                        Err(_) => continue,
                    };
                    match landed {
                        Some(Landed::Value(kept)) => match kept.fetched() {
                            Some(fetched) => {
                                self.0.lookups.ended(kind, Lookup::Joined);
                                return Ok(fetched);
                            }
                            None => break,
                        },
                        Some(Landed::Error(error)) => match error.downcast_ref::<E>() {
                            Some(error) => return Err(error.clone()),
                            None => break,
                        },
                        None => {}
                    }
                }
                Place::Crowded => break,
            }
        }
        self.0.lookups.ended(kind, Lookup::Miss);
        let asked_at = Instant::now();
        let value = load.await?;
        Ok(Fetched { value: Arc::new(value), age: asked_at.elapsed() })
    }

    /// The connection to Redis, for what else processes share through it.
    #[must_use]
    pub fn shared(&self) -> Option<Arc<Redis>> {
        self.0.redis.clone()
    }

    /// How look-ups ended.
    #[must_use]
    pub fn lookups(&self) -> &Lookups {
        &self.0.lookups
    }

    /// How Redis does; asks it. Takes at most [`WAIT_MAX`], and about two seconds the first time.
    pub async fn redis(&self) -> RedisHealth {
        match &self.0.redis {
            Some(redis) => redis.health().await,
            None => RedisHealth::Unused,
        }
    }
}

/// The outcome of a load, or its panic.
async fn joined<T, E>(load: tokio::task::JoinHandle<Result<Fetched<T>, E>>) -> Result<Fetched<T>, E> {
    match load.await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this call with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Inner {
    fn shelf(&self, kind: Cached) -> MutexGuard<'_, Shelf> {
        let shelf = match kind {
            Cached::Balance => &self.balances,
            Cached::TransactionStatus => &self.transactions,
            Cached::Fee => &self.fees,
            Cached::PoolStats => &self.stats,
        };
        // A shelf is whole between any two statements.
        shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(self: &Arc<Self>, kind: Cached, key: &str) -> Place {
        let mut shelf = self.shelf(kind);
        let kept = shelf.kept.get(key).filter(|kept| kept.age() < kind.kept()).cloned();
        match (kept, shelf.flights.get(key)) {
            (Some(kept), flight) => {
                let aging = kept.age() >= kind.refreshed_after() && kept.no_refresh_before <= Instant::now();
                if aging && flight.is_none() && shelf.flights.len() < FLIGHTS_MAX {
                    Place::Aging(kept, self.flight(&mut shelf, kind, key, Purpose::Refresh))
                } else {
                    Place::Good(kept)
                }
            }
            (None, Some(flight)) => Place::Underway(flight.clone()),
            (None, None) if shelf.flights.len() < FLIGHTS_MAX && key.len() <= KEY_BYTES_MAX => {
                Place::Missing(self.flight(&mut shelf, kind, key, Purpose::Answer))
            }
            (None, None) => Place::Crowded,
        }
    }

    fn flight(self: &Arc<Self>, shelf: &mut Shelf, kind: Cached, key: &str, purpose: Purpose) -> Flight {
        let (landing, landed) = watch::channel(None);
        shelf.flights.insert(key.to_owned(), landed);
        Flight { inner: Arc::clone(self), kind, key: key.to_owned(), purpose, landing }
    }
}

impl Flight {
    /// Finds the value in Redis or at its source, keeps it, and tells all who wait.
    async fn run<T, E, F>(self, load: F) -> Result<Fetched<T>, E>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, E>> + Send,
    {
        let asked_at = Instant::now();
        if let Some((value, age)) = self.shared::<T>().await {
            let kept = Kept { value: Arc::clone(&value) as _, asked_at, age_then: age, no_refresh_before: asked_at };
            self.inner.shelf(self.kind).keep(&self.key, &kept);
            self.landing.send_replace(Some(Landed::Value(kept)));
            self.inner.lookups.ended(self.kind, Lookup::Shared);
            return Ok(Fetched { value, age });
        }
        self.inner.lookups.ended(self.kind, Lookup::Miss);
        let asked_at = Instant::now();
        match load.await {
            Ok(value) => {
                let json = serde_json::to_vec(&value).ok().filter(|json| json.len() <= ENTRY_BYTES_MAX);
                let value = Arc::new(value);
                let kept = Kept { value: Arc::clone(&value) as _, asked_at, age_then: Duration::ZERO, no_refresh_before: asked_at };
                if json.is_some() {
                    self.inner.shelf(self.kind).keep(&self.key, &kept);
                }
                let age = kept.age();
                self.landing.send_replace(Some(Landed::Value(kept)));
                if let (Some(redis), Some(json)) = (&self.inner.redis, json) {
                    redis.write(self.kind, &self.key, &json, age);
                }
                Ok(Fetched { value, age })
            }
            Err(error) => {
                if let Some(kept) = self.inner.shelf(self.kind).kept.get_mut(&self.key) {
                    kept.no_refresh_before = Instant::now().checked_add(REFRESH_REST).unwrap_or(kept.no_refresh_before);
                }
                self.landing.send_replace(Some(Landed::Error(Arc::new(error.clone()))));
                Err(error)
            }
        }
    }

    /// What another process left in Redis, if it is of any use.
    async fn shared<T: DeserializeOwned>(&self) -> Option<(Arc<T>, Duration)> {
        let (json, age) = self.inner.redis.as_ref()?.read(self.kind, &self.key).await?;
        let good_for = match self.purpose {
            Purpose::Answer => self.kind.kept(),
            Purpose::Refresh => self.kind.refreshed_after(),
        };
        let value = serde_json::from_slice(&json).ok().filter(|_| age < good_for)?;
        Some((Arc::new(value), age))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.inner.shelf(self.kind).flights.remove(&self.key);
    }
}

impl Kept {
    fn age(&self) -> Duration {
        self.age_then.saturating_add(self.asked_at.elapsed())
    }

    /// The value, if it is of this type.
    fn fetched<T: Send + Sync + 'static>(&self) -> Option<Fetched<T>> {
        let value = Arc::clone(&self.value).downcast().ok()?;
        Some(Fetched { value, age: self.age() })
    }
}

impl Shelf {
    fn keep(&mut self, key: &str, kept: &Kept) {
        if self.kept.len() >= ENTRIES_MAX && !self.kept.contains_key(key) {
            self.make_room();
        }
        self.kept.insert(key.to_owned(), kept.clone());
    }

    /// Lets the oldest values go.
    fn make_room(&mut self) {
        let mut ages: Vec<Duration> = self.kept.values().map(Kept::age).collect();
        ages.sort_unstable_by(|one, other| other.cmp(one));
        let oldest = ages.get(EVICTED).copied().unwrap_or_default();
        let mut left = EVICTED;
        // Of those that are equally old only as many as needed.
        self.kept.retain(|_, kept| {
            let goes = left > 0 && kept.age() >= oldest;
            left = left.saturating_sub(usize::from(goes));
            !goes
        });
    }
}
