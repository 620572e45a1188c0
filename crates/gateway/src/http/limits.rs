//! How much is answered: so many requests a second for a key and for an address, and so many at the
//! same time for all. What is too much is told so, with the time to come again, before it costs
//! anything. The health pages are always answered.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use tidegate_rules::id::KeyId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::App;
use super::auth::address_of;
use crate::config;
use crate::people::throttle::network_of;
use crate::problem::Problem;

/// Those who have been quiet are forgotten when this many are known, and looked for once in so many
/// requests: looking costs more than counting.
const KNOWN_MAX: usize = 10_000;
const REQUESTS_PER_CLEANING: u64 = 4_096;

/// Streams of events that are open at the same time: each asks the store when something happens.
const STREAMS_MAX: usize = 2_000;

/// When to come again while everything is in use.
const BUSY_AGAIN_S: u32 = 1;

/// How much is answered.
pub struct Limits {
    keys: DefaultKeyedRateLimiter<KeyId>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    places: Semaphore,
    streams: Arc<Semaphore>,
    counted: AtomicU64,
}

impl Limits {
    /// The limits of a configuration.
    pub fn new(limits: &config::Limits) -> Self {
        let per_second = |number: u32| Quota::per_second(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
        let quota = per_second(limits.requests_per_second).allow_burst(NonZeroU32::new(limits.burst).unwrap_or(NonZeroU32::MIN));
        Self {
            keys: RateLimiter::hashmap(quota),
            addresses: RateLimiter::hashmap(quota),
            places: Semaphore::new(usize::try_from(limits.concurrent_requests).unwrap_or(Semaphore::MAX_PERMITS)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            counted: AtomicU64::new(0),
        }
    }

    /// Forgets who was quiet, now and then.
    fn clean(&self) {
        if !self.counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(REQUESTS_PER_CLEANING) {
            return;
        }
        if self.addresses.len() >= KNOWN_MAX {
            self.addresses.retain_recent();
        }
        if self.keys.len() >= KNOWN_MAX {
            self.keys.retain_recent();
        }
    }

    /// Counts a request with a key that exists.
    pub fn key(&self, id: KeyId) -> Result<(), Problem> {
        count(&self.keys, &id, "this key")
    }

    /// A place for a stream of events, for as long as it is kept.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| busy("too many pages are being kept up to date at this moment; reload"))
    }

    fn address(&self, address: IpAddr) -> Result<(), Problem> {
        count(&self.addresses, &network_of(address), "this address")
    }
}

fn count<K: std::hash::Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: &K, whose: &str) -> Result<(), Problem> {
    limiter.check_key(key).map_err(|until: NotUntil<_>| {
        let wait = until.wait_time_from(DefaultClock::default().now());
        let detail = format!("too many requests with {whose}; wait, and send them more slowly");
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        problem.retry_after_s = Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1));
        problem
    })
}

fn busy(detail: &str) -> Problem {
    let mut problem = Problem::unavailable("busy", detail);
    problem.retry_after_s = Some(BUSY_AGAIN_S);
    problem
}

/// Lets a request in while there is room. It holds its place until the answer begins: a stream of
/// events holds none.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/health/") {
        return next.run(request).await;
    }
    app.limits.clean();
    let (parts, body) = request.into_parts();
    if let Err(problem) = app.limits.address(address_of(&app, &parts)) {
        return problem.into_response();
    }
    let Ok(_place) = app.limits.places.try_acquire() else {
        return busy("too many requests are being answered at this moment; try again").into_response();
    };
    next.run(Request::from_parts(parts, body)).await
}

#[cfg(test)]
mod tests {
    use tidegate_rules::time::Time;

    use super::*;

    #[test]
    fn a_key_has_its_burst_and_takes_nothing_from_another() {
        let limits = Limits::new(&config::Limits { requests_per_second: 1, burst: 3, concurrent_requests: 1 });
        let (one, other) = (KeyId::new(Time::from_secs(1), [1; 10]), KeyId::new(Time::from_secs(1), [2; 10]));
        for _ in 0..3 {
            assert!(limits.key(one).is_ok());
        }
        let refused = limits.key(one).unwrap_err();
        assert_eq!((refused.status, refused.code), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
        assert!(refused.retry_after_s.is_some_and(|seconds| seconds >= 1));
        assert!(limits.key(other).is_ok());
    }

    #[test]
    fn a_stream_that_ends_makes_room() {
        let limits = Limits::new(&config::Limits { requests_per_second: 1, burst: 1, concurrent_requests: 1 });
        let mut streams: Vec<OwnedSemaphorePermit> = (0..STREAMS_MAX).map(|_| limits.stream().unwrap()).collect();
        let refused = limits.stream().unwrap_err();
        assert_eq!((refused.code, refused.retry_after_s), ("busy", Some(BUSY_AGAIN_S)));
        streams.pop();
        assert!(limits.stream().is_ok());
    }
}
