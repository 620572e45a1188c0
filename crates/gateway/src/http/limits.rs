//! How much is answered: so many requests a second for a key and for an address, and so many at the
//! same time for all. What is too much is told so, with the time to come again, before it costs
//! anything. The health pages are always answered. The requests a second are counted together with the
//! other processes of the database, where there is Redis ([`crate::rate`]); what is done at the same
//! time is each process's own.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tidegate_rules::id::KeyId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::App;
use super::auth::address_of;
use crate::config;
use crate::people::throttle::network_of;
use crate::problem::Problem;
use crate::rate::{Limiter, Rate, Together};

/// Streams of events that are open at the same time: each asks the store when something happens.
const STREAMS_MAX: usize = 2_000;

/// When to come again while everything is in use.
const BUSY_AGAIN_S: u32 = 1;

/// How much is answered.
pub struct Limits {
    keys: Limiter<KeyId>,
    addresses: Limiter<IpAddr>,
    places: Semaphore,
    streams: Arc<Semaphore>,
}

impl Limits {
    /// The limits of a configuration.
    pub fn new(limits: &config::Limits, together: Option<&Together>) -> Self {
        let number = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let rate = Rate::per_second(number(limits.requests_per_second), number(limits.burst));
        Self {
            keys: Limiter::new("key", rate, KeyId::to_string, together),
            addresses: Limiter::new("address", rate, IpAddr::to_string, together),
            places: Semaphore::new(usize::try_from(limits.concurrent_requests).unwrap_or(Semaphore::MAX_PERMITS)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// Counts a request with a key that exists.
    pub async fn key(&self, id: KeyId) -> Result<(), Problem> {
        self.keys.count(&id).await.map_err(|again_s| too_many("this key", again_s))
    }

    /// A place for a stream of events, for as long as it is kept.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| busy("too many pages are being kept up to date at this moment; reload"))
    }

    async fn address(&self, address: IpAddr) -> Result<(), Problem> {
        self.addresses.count(&network_of(address)).await.map_err(|again_s| too_many("this address", again_s))
    }
}

fn too_many(whose: &str, again_s: u32) -> Problem {
    Problem::too_many(format!("too many requests with {whose}; wait, and send them more slowly"), again_s)
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
    let (parts, body) = request.into_parts();
    if let Err(problem) = app.limits.address(address_of(&app, &parts)).await {
        return problem.into_response();
    }
    let Ok(_place) = app.limits.places.try_acquire() else {
        return busy("too many requests are being answered at this moment; try again").into_response();
    };
    next.run(Request::from_parts(parts, body)).await
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use tidegate_rules::time::Time;

    use super::*;

    #[tokio::test]
    async fn a_key_has_its_burst_and_takes_nothing_from_another() {
        let limits = Limits::new(&config::Limits { requests_per_second: 1, burst: 3, concurrent_requests: 1 }, None);
        let (one, other) = (KeyId::new(Time::from_secs(1), [1; 10]), KeyId::new(Time::from_secs(1), [2; 10]));
        for _ in 0..3 {
            assert!(limits.key(one).await.is_ok());
        }
        let refused = limits.key(one).await.unwrap_err();
        assert_eq!((refused.status, refused.code), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
        assert!(refused.retry_after_s.is_some_and(|seconds| seconds >= 1));
        assert!(limits.key(other).await.is_ok());
    }

    #[test]
    fn a_stream_that_ends_makes_room() {
        let limits = Limits::new(&config::Limits { requests_per_second: 1, burst: 1, concurrent_requests: 1 }, None);
        let mut streams: Vec<OwnedSemaphorePermit> = (0..STREAMS_MAX).map(|_| limits.stream().unwrap()).collect();
        let refused = limits.stream().unwrap_err();
        assert_eq!((refused.code, refused.retry_after_s), ("busy", Some(BUSY_AGAIN_S)));
        streams.pop();
        assert!(limits.stream().is_ok());
    }
}
