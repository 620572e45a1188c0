//! One endpoint and all that is known about it, and an operation under way on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidegate_rules::block::BlockRef;
use tokio::time::Instant;

use super::allowance::Allowance;
use super::breaker::{Breaker, Fault, Phase, Shut, Ticket};
use super::course::Standing;
use super::heads::{Heads, Place, Step};
use super::http::{Http, public_name};
use super::latency::Latency;
use super::score::{Failures, Record};
use super::{
    Endpoint, EndpointConfig, Failure, HEDGE_AFTER_MIN, HEDGE_AFTER_UNKNOWN, HEDGE_SCORE_MIN, REST_ASKED_MAX, REST_PERMANENT, lock,
};
use crate::{EndpointHealth, EndpointState, Error};

pub(super) struct Slot {
    pub(super) index: usize,
    pub(super) name: String,
    /// Two endpoints of one host are not independent.
    pub(super) host: String,
    http: Http,
    heads: Arc<Mutex<Heads>>,
    state: Mutex<State>,
}

struct State {
    allowance: Allowance,
    breaker: Breaker,
    outcomes: Failures,
    /// Single requests: what an endpoint is compared by.
    requests: Latency,
    /// Whole operations: what a hedge waits for.
    operations: Latency,
    calls: u64,
    failures: u64,
    hedges: u64,
    hedges_won: u64,
    last_error: Option<String>,
}

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// It is needed.
    Read,
    /// It may be done sooner here than where it was begun.
    Hedge,
    /// To know how the endpoint is doing.
    Look,
    /// To hear whether it agrees.
    Witness,
}

impl Errand {
    /// It is done for speed or knowledge, and leaves the reserve of a budget alone.
    const fn leaves_reserve(self) -> bool {
        matches!(self, Self::Hedge | Self::Look)
    }

    /// It takes as long as what a hedge waits for.
    const fn is_timed(self) -> bool {
        matches!(self, Self::Read | Self::Hedge)
    }
}

/// Why an endpoint is not asked now.
pub(super) struct Resting {
    pub(super) reason: String,
    pub(super) permanent: bool,
}

impl Slot {
    pub(super) fn new(index: usize, config: EndpointConfig, client: reqwest::Client, heads: Arc<Mutex<Heads>>) -> Result<Self, Error> {
        let now = Instant::now();
        let allowance = Allowance::new(config.requests_per_second, config.requests_per_day, now);
        let (name, host) = (public_name(&config.url), config.url.host_str().unwrap_or("?").to_lowercase());
        let state = State {
            allowance,
            breaker: Breaker::default(),
            outcomes: Failures::none(now),
            requests: Latency::default(),
            operations: Latency::default(),
            calls: 0,
            failures: 0,
            hedges: 0,
            hedges_won: 0,
            last_error: None,
        };
        Ok(Self { index, name, host, http: Http::new(config, client)?, heads, state: Mutex::new(state) })
    }

    /// True while its daily budget is used up.
    pub(super) fn is_over_budget(&self, now: Instant) -> bool {
        self.lock().allowance.exhausted_for(now).is_some()
    }

    /// The right to run an operation here, or why not.
    fn enter(&self, errand: Errand, now: Instant) -> Result<Ticket, Resting> {
        let mut state = self.lock();
        if let Some(wait) = state.allowance.exhausted_for(now) {
            return Err(Resting { reason: budget_is_used_up(wait), permanent: false });
        }
        if errand.leaves_reserve() && !state.allowance.may_spare(1, now) {
            return Err(Resting { reason: BUDGET_IS_KEPT.into(), permanent: false });
        }
        state.breaker.enter(now).map_err(|Shut { left, permanent }| {
            let cause = state.last_error.as_deref().unwrap_or("a failure");
            let reason = if left.is_zero() {
                format!("another operation is trying it after: {cause}")
            } else {
                format!("resting for {} s after: {cause}", left.as_secs().saturating_add(1))
            };
            Resting { reason, permanent }
        })
    }

    /// Takes requests from the budgets and says how long to wait first.
    pub(super) fn take(&self, count: u32, errand: Errand, now: Instant) -> Result<Duration, Failure> {
        let mut state = self.lock();
        if errand.leaves_reserve() && !state.allowance.may_spare(count, now) {
            return Err(Failure::Spent(BUDGET_IS_KEPT.into()));
        }
        let wait = state.allowance.take(count, now).map_err(|wait| Failure::Spent(budget_is_used_up(wait)))?;
        state.calls = state.calls.saturating_add(u64::from(count));
        Ok(wait)
    }

    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let timed = Timed { slot: self, started: Instant::now(), ended: false };
        let answer = self.http.post(path, body).await;
        timed.end(answer.is_ok());
        answer
    }

    pub(super) fn saw_head(&self, head: &BlockRef) {
        let step = lock(&self.heads).saw_head(self.index, head, Instant::now());
        if step != Step::On {
            tracing::debug!(endpoint = %self.name, number = head.number, hash = %head.hash, ?step, "a head that does not follow");
        }
    }

    pub(super) fn saw_block(&self, block: &BlockRef) {
        lock(&self.heads).saw_block(self.index, block);
    }

    pub(super) fn quote(&self, text: &str) -> String {
        self.http.scrub(text)
    }

    pub(super) fn place(&self, now: Instant) -> Place {
        lock(&self.heads).place(self.index, now)
    }

    pub(super) fn record(&self, now: Instant) -> Record {
        let behind = self.place(now).behind;
        self.lock().record(behind, now)
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        let score = self.record(now).score();
        let usable = self.lock().state(now).1;
        Standing { usable, lagging: self.place(now).lagging.is_some(), score }
    }

    /// When an operation that began here just now is worth beginning elsewhere.
    pub(super) fn hedge_after(&self, now: Instant) -> Duration {
        let bound = self.lock().operations.bound(now);
        bound.unwrap_or(HEDGE_AFTER_UNKNOWN).max(HEDGE_AFTER_MIN).min(self.http.timeout)
    }

    /// True when a hedge may begin here: it is well, and its budgets bear it.
    pub(super) fn takes_hedges(&self, now: Instant) -> bool {
        let standing = self.standing(now);
        let mut state = self.lock();
        let closed = state.breaker.phase(now) == Phase::Closed;
        closed && !standing.lagging && standing.score >= HEDGE_SCORE_MIN && state.allowance.may_spare(1, now)
    }

    /// An operation that began here was done elsewhere sooner.
    pub(super) fn was_outrun(&self, now: Instant) {
        self.lock().outcomes.failed(now);
    }

    pub(super) fn won_a_hedge(&self) {
        let mut state = self.lock();
        state.hedges_won = state.hedges_won.saturating_add(1);
    }

    pub(super) fn health(&self, now: Instant) -> EndpointHealth {
        let place = self.place(now);
        let mut state = self.lock();
        let (phase, available) = state.state(now);
        let record = state.record(place.behind, now);
        let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        EndpointHealth {
            name: self.name.clone(),
            available,
            state: phase,
            score: record.score(),
            head: place.head,
            head_age: place.seen,
            behind: place.behind,
            lagging_for: place.lagging,
            calls: state.calls,
            failures: state.failures,
            failures_in_row: state.breaker.streak(),
            latency_mean_ms: ms(record.mean),
            latency_bound_ms: ms(record.bound),
            requests_left: state.allowance.left(now),
            hedges: state.hedges,
            hedges_won: state.hedges_won,
            last_error: state.last_error.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Whether it may be asked: in detail, and in short.
    fn state(&mut self, now: Instant) -> (EndpointState, bool) {
        let exhausted = self.allowance.exhausted_for(now);
        match (self.breaker.phase(now), exhausted) {
            (Phase::Open { left }, _) => (EndpointState::Resting { left }, false),
            (_, Some(left)) => (EndpointState::OverBudget { left }, false),
            (Phase::HalfOpen, None) => (EndpointState::HalfOpen, true),
            (Phase::Closed, None) => (EndpointState::Available, true),
        }
    }

    fn record(&self, behind: u64, now: Instant) -> Record {
        Record { failures_percent: self.outcomes.percent(now), mean: self.requests.mean(now), bound: self.requests.bound(now), behind }
    }
}

/// An operation under way on an endpoint. Given up, it still leaves its mark: how long it had
/// taken by then, and that the endpoint may be tried by another.
pub(super) struct Run {
    slot: Arc<Slot>,
    errand: Errand,
    ticket: Ticket,
    started: Instant,
    /// What of the time was spent waiting for our own budget, in microseconds.
    waited_us: Arc<AtomicU64>,
    judged: bool,
}

impl Run {
    pub(super) fn begin(slot: &Arc<Slot>, errand: Errand, now: Instant) -> Result<Self, Resting> {
        let ticket = slot.enter(errand, now)?;
        if errand == Errand::Hedge {
            let mut state = slot.lock();
            state.hedges = state.hedges.saturating_add(1);
        }
        Ok(Self { slot: Arc::clone(slot), errand, ticket, started: now, waited_us: Arc::default(), judged: false })
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { slot: Arc::clone(&self.slot), errand: self.errand, waited_us: Arc::clone(&self.waited_us) }
    }

    pub(super) const fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub(super) const fn errand(&self) -> Errand {
        self.errand
    }

    /// Reads how long it has waited for our own budget, also after it has begun.
    pub(super) fn waited(&self) -> Waited {
        Waited(Arc::clone(&self.waited_us))
    }

    pub(super) fn served(mut self) {
        self.judged = true;
        let now = Instant::now();
        let mut state = self.slot.lock();
        state.breaker.served(self.ticket);
        state.outcomes.served(now);
        if self.errand.is_timed() {
            state.operations.note(self.took(now), now);
        }
    }

    /// Puts the endpoint to rest if it is to blame, and says why without secrets.
    pub(super) fn failed(mut self, failure: &Failure, jitter: u64) -> String {
        self.judged = true;
        let now = Instant::now();
        let reason = self.slot.http.scrub(&failure.to_string());
        let mut state = self.slot.lock();
        let asked = match failure {
            Failure::Behind(_) | Failure::Spent(_) => {
                state.breaker.left(self.ticket);
                return reason;
            }
            Failure::Transient { rest, .. } => rest.unwrap_or_default().min(REST_ASKED_MAX),
            Failure::NotOffered(_) | Failure::Permanent(_) => REST_PERMANENT,
        };
        state.failures = state.failures.saturating_add(1);
        state.last_error = Some(reason.clone());
        state.outcomes.failed(now);
        state.breaker.failed(self.ticket, Fault { asked, permanent: failure.is_permanent() }, jitter, now);
        reason
    }

    fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started).saturating_sub(self.waited().get())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.judged {
            return;
        }
        let now = Instant::now();
        let mut state = self.slot.lock();
        state.breaker.left(self.ticket);
        if self.errand == Errand::Look {
            // A look is given up only when its answer has not come in good time.
            state.outcomes.failed(now);
        }
        if self.errand.is_timed() {
            state.operations.note_at_least(self.took(now), now);
        }
    }
}

pub(super) struct Waited(Arc<AtomicU64>);

impl Waited {
    pub(super) fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// A request under way. One that is given up took at least as long as it had by then.
struct Timed<'a> {
    slot: &'a Slot,
    started: Instant,
    ended: bool,
}

impl Timed<'_> {
    fn end(mut self, answered: bool) {
        self.ended = true;
        let now = Instant::now();
        let took = now.saturating_duration_since(self.started);
        // A refusal is quick; only an answer, or the whole wait for one, says how long answers take.
        if answered || took >= self.slot.http.timeout {
            self.slot.lock().requests.note(took, now);
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let now = Instant::now();
            self.slot.lock().requests.note_at_least(now.saturating_duration_since(self.started), now);
        }
    }
}

const BUDGET_IS_KEPT: &str = "what is left of its budget is kept for what is needed";

fn budget_is_used_up(wait: Duration) -> String {
    format!("its daily budget of requests is used up for {} s", wait.as_secs().saturating_add(1))
}
