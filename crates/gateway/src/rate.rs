//! How often something may happen: so many at once, and one more after each while. Counted in this
//! process and, where there is Redis, together with the other processes of the database, so that two
//! of them let in no more than one and a restart forgets nobody.
//!
//! What is too much for this process alone is too much for all, and costs no question to Redis. A
//! Redis that does not answer in time is one voice less: the process then counts for itself, at once
//! and without an error.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::cache::Redis;
use crate::config::SecretText;

/// Those who have been quiet are forgotten when this many are known, and looked for once in so many
/// counts: looking costs more than counting.
const KNOWN_MAX: usize = 10_000;
const COUNTS_PER_CLEANING: u64 = 4_096;

/// How many bytes of a hash stand for whoever is counted. Two who met in 16 would share a limit.
const NAME_BYTES: usize = 16;

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// So many at once.
    pub burst: NonZeroU32,
    /// One more after each such while; at least a microsecond.
    pub every: Duration,
}

impl Rate {
    /// So many a second, evenly, of which `burst` may come at once.
    #[must_use]
    pub fn per_second(number: NonZeroU32, burst: NonZeroU32) -> Self {
        let every = Duration::from_secs(1).checked_div(number.get()).unwrap_or(Duration::from_secs(1));
        Self { burst, every: every.max(Duration::from_micros(1)) }
    }
}

/// Where processes count together.
#[derive(Clone)]
pub struct Together {
    redis: Arc<Redis>,
    naming: SecretText,
}

impl Together {
    /// In this Redis. Addresses and accounts are named there by a hash under `naming`, so that
    /// whoever looks into Redis does not learn who was here.
    #[must_use]
    pub const fn new(redis: Arc<Redis>, naming: SecretText) -> Self {
        Self { redis, naming }
    }

    /// How long whoever is counted must wait; `None` where Redis does not tell.
    async fn count(&self, what: &str, who: &str, rate: Rate) -> Option<Duration> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.naming.expose().as_bytes()).ok()?;
        mac.update(what.as_bytes());
        mac.update(&[0]);
        mac.update(who.as_bytes());
        let hash = hex::encode(mac.finalize().into_bytes().get(..NAME_BYTES)?);
        self.redis.count(&format!("{what}:{hash}"), rate.every, rate.burst).await
    }
}

/// A rate for each of many, who are told apart by `K`.
pub struct Limiter<K: Clone + Eq + Hash> {
    what: &'static str,
    rate: Rate,
    /// The text that stands for somebody.
    text: fn(&K) -> String,
    own: DefaultKeyedRateLimiter<K>,
    counted: AtomicU64,
    together: Option<Together>,
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    /// `what` is limited, a name of its own in Redis. `text` is different for everybody who is.
    #[must_use]
    pub fn new(what: &'static str, rate: Rate, text: fn(&K) -> String, together: Option<&Together>) -> Self {
        // A pace of zero is the only one that is refused.
        let pace = Quota::with_period(rate.every).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
        let own = RateLimiter::hashmap(pace.allow_burst(rate.burst));
        Self { what, rate, text, own, counted: AtomicU64::new(0), together: together.cloned() }
    }

    /// Counts one more. Waits for Redis at most [`WAIT_MAX`](crate::cache::WAIT_MAX).
    ///
    /// # Errors
    /// In how many seconds there may be another, at least 1, when there were too many.
    pub async fn count(&self, who: &K) -> Result<(), u32> {
        if self.counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(COUNTS_PER_CLEANING) && self.own.len() >= KNOWN_MAX {
            self.own.retain_recent();
        }
        self.own.check_key(who).map_err(|until| again_s(until.wait_time_from(DefaultClock::default().now())))?;
        let Some(together) = &self.together else { return Ok(()) };
        match together.count(self.what, &(self.text)(who), self.rate).await {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(again_s(wait)),
        }
    }
}

/// Whole seconds after which there is room again.
fn again_s(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1)
}
