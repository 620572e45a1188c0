//! How much is answered: so many requests a second for a key and for an address, and so many at the
//! same time for all, of which one address has at most half. What is too much is told so, with the time to come again, before it costs
//! anything. The health pages are always answered. The requests a second are counted together with the
//! other processes of the database, where there is Redis ([`crate::rate`]); what is done at the same
//! time is each process's own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

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
    places: Places,
    streams: Places,
}

/// Places for all. One address of a client has at most half of them, so that nobody alone can keep
/// everybody else out by beginning what he does not end.
struct Places {
    free: Arc<Semaphore>,
    most: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place, for as long as this lives.
pub struct Place {
    _free: OwnedSemaphorePermit,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
    who: IpAddr,
}

impl Places {
    fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), most: count.div_ceil(2), held: Arc::default() }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let who = network_of(address);
        let free = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(who).or_default();
        if *count >= self.most {
            return None;
        }
        *count = count.saturating_add(1);
        drop(held);
        Some(Place { _free: free, held: Arc::clone(&self.held), who })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = held.entry(self.who) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Limits {
    /// The limits of a configuration.
    pub fn new(limits: &config::Limits, together: Option<&Together>) -> Self {
        let number = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let rate = Rate::per_second(number(limits.requests_per_second), number(limits.burst));
        Self {
            keys: Limiter::new("key", rate, KeyId::to_string, together),
            addresses: Limiter::new("address", rate, IpAddr::to_string, together),
            places: Places::new(usize::try_from(limits.concurrent_requests).unwrap_or(Semaphore::MAX_PERMITS)),
            streams: Places::new(STREAMS_MAX),
        }
    }

    /// Counts a request with a key that exists.
    pub async fn key(&self, id: KeyId) -> Result<(), Problem> {
        self.keys.count(&id).await.map_err(|again_s| too_many("this key", again_s))
    }

    /// A place for a stream of events, for as long as it is kept.
    pub fn stream(&self, address: IpAddr) -> Result<Place, Problem> {
        self.streams.take(address).ok_or_else(|| busy("too many pages are being kept up to date at this moment; reload"))
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
    let address = address_of(&app, &parts);
    if let Err(problem) = app.limits.address(address).await {
        return problem.into_response();
    }
    let Some(_place) = app.limits.places.take(address) else {
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
    fn nobody_alone_has_more_than_half_and_a_stream_that_ends_makes_room() {
        let limits = Limits::new(&config::Limits { requests_per_second: 1, burst: 1, concurrent_requests: 1 }, None);
        let [one, neighbour, other, third]: [IpAddr; 4] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let mut streams: Vec<Place> = (0..STREAMS_MAX / 2).map(|_| limits.stream(one).unwrap()).collect();
        let refused = limits.stream(neighbour).err().unwrap();
        assert_eq!((refused.code, refused.retry_after_s), ("busy", Some(BUSY_AGAIN_S)));
        streams.extend((0..STREAMS_MAX / 2).map(|_| limits.stream(other).unwrap()));
        assert!(limits.stream(third).is_err(), "all are taken");
        streams.pop();
        assert!(limits.stream(one).is_err(), "it was not his");
        assert!(limits.stream(third).is_ok());
        streams.clear();
        assert!(limits.streams.held.lock().unwrap().is_empty(), "nobody is remembered who holds none");
        // Of one place somebody has it.
        assert!(limits.places.take(one).is_some());
    }
}
