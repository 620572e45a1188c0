//! An operation on one endpoint after the other until one serves it; and when one is slow, on a
//! second one beside it.
//!
//! The second one (a hedge) is begun once for an operation at most, only where all is well and the
//! budgets bear it. Each side stays on its own endpoint. The first whole answer wins, the other
//! side is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidegate_rules::block::Network;
use tokio::time::Instant;

use super::slot::{Errand, Run, Slot, Waited};
use super::{Endpoint, Endpoints, Failure, Hedging};
use crate::Error;

/// An operation that was served.
pub(super) struct Served<T> {
    pub(super) index: usize,
    pub(super) value: T,
    /// Why others did not serve it, by their places.
    pub(super) reasons: Vec<(usize, String)>,
}

/// How long to wait for the operation that was begun first.
struct Patience {
    began: Instant,
    delay: Duration,
    waited: Waited,
}

impl Patience {
    fn ends_at(&self) -> Instant {
        // Waiting for our own budget is not the endpoint's slowness.
        self.began.checked_add(self.delay.saturating_add(self.waited.get())).unwrap_or(self.began)
    }
}

/// Why nobody served it so far.
pub(super) struct Refusals {
    reasons: Vec<(usize, String)>,
    texts: Vec<String>,
    all_permanent: bool,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { reasons: Vec::new(), texts: Vec::new(), all_permanent: true }
    }
}

impl Refusals {
    fn add(&mut self, slot: &Slot, reason: String, permanent: bool) {
        self.texts.push(format!("{}: {reason}", slot.name));
        self.reasons.push((slot.index, reason));
        self.all_permanent &= permanent;
    }

    pub(super) fn into_error(self, network: &Network) -> Error {
        let text = format!("{network}: no endpoint served this: {}", self.texts.join("; "));
        if self.all_permanent && !self.texts.is_empty() { Error::Refused(text) } else { Error::Transient(text) }
    }
}

impl Endpoints {
    /// Runs an operation on the endpoints in this order, each at most once.
    pub(super) async fn attempt<T, F, Fut>(&self, order: Vec<Arc<Slot>>, hedging: Hedging, operation: &F) -> Result<Served<T>, Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut refusals = Refusals::default();
        match self.attempt_noting(order, hedging, operation, &mut refusals).await {
            Some((index, value)) => Ok(Served { index, value, reasons: refusals.reasons }),
            None => Err(refusals.into_error(&self.network)),
        }
    }

    /// As [`Endpoints::attempt`]: by whose place, what was served, and in `refusals` why others did
    /// not serve it.
    pub(super) async fn attempt_noting<T, F, Fut>(
        &self,
        order: Vec<Arc<Slot>>,
        hedging: Hedging,
        operation: &F,
        refusals: &mut Refusals,
    ) -> Option<(usize, T)>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut waiting = VecDeque::from(order);
        let mut under_way = FuturesUnordered::new();
        let start = |run: Run| {
            let asked = operation(run.endpoint());
            async move { (run, asked.await) }
        };
        let mut may_hedge = hedging == Hedging::WhenSlow;
        let mut patience: Option<Patience> = None;
        // The one that a hedge runs beside.
        let mut slow: Option<Arc<Slot>> = None;
        loop {
            if under_way.is_empty() {
                let slot = waiting.pop_front()?;
                let now = Instant::now();
                match Run::begin(&slot, Errand::Read, now) {
                    Err(resting) => refusals.add(&slot, resting.reason, resting.permanent),
                    Ok(run) => {
                        let patient = || Patience { began: now, delay: slot.hedge_after(now), waited: run.waited() };
                        patience = may_hedge.then(patient);
                        slow = Some(slot);
                        under_way.push(start(run));
                    }
                }
                continue;
            }
            let outcome = match &patience {
                None => under_way.next().await,
                Some(patience) => tokio::time::timeout_at(patience.ends_at(), under_way.next()).await.unwrap_or(None),
            };
            let Some((run, told)) = outcome else {
                // The time is up, unless it was spent on our own pace meanwhile.
                if patience.as_ref().is_none_or(|patience| patience.ends_at() <= Instant::now()) {
                    patience = None;
                    if let Some(run) = begin_hedge(&mut waiting) {
                        may_hedge = false;
                        under_way.push(start(run));
                    }
                }
                continue;
            };
            let (slot, errand) = (Arc::clone(run.slot()), run.errand());
            match told {
                Ok(value) => {
                    run.served();
                    if errand == Errand::Hedge {
                        slot.won_a_hedge();
                        if let Some(slow) = slow {
                            slow.was_outrun(Instant::now());
                        }
                    }
                    return Some((slot.index, value));
                }
                Err(failure) => {
                    let reason = run.failed(&failure, self.jitter());
                    tracing::debug!(network = %self.network, endpoint = %slot.name, %reason, "an endpoint failed");
                    refusals.add(&slot, reason, failure.is_permanent());
                    slow = slow.filter(|slow| slow.index != slot.index);
                }
            }
        }
    }
}

/// Begins a hedge on the first endpoint that is well and whose budgets bear it.
fn begin_hedge(waiting: &mut VecDeque<Arc<Slot>>) -> Option<Run> {
    let now = Instant::now();
    let place = waiting.iter().position(|slot| slot.takes_hedges(now))?;
    Run::begin(&waiting.remove(place)?, Errand::Hedge, now).ok()
}
