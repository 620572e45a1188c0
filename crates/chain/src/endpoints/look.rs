//! Asking endpoints for what they know, beside the work or instead of it: how the ones that are not
//! in use are doing, and which of them show the same block.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use tidegate_rules::block::BlockRef;
use tokio::time::Instant;

use super::slot::{Errand, Run, Slot};
use super::{Endpoint, Endpoints, Failure, LOOK_EVERY, LOOK_GRACE, lock};
use crate::Witnesses;

impl Endpoints {
    /// Does the work, and once in [`LOOK_EVERY`] asks the endpoints that are not in use for their
    /// heads beside it: a lag is seen only by comparing, and an endpoint that has recovered only
    /// by asking. The work is not held up by more than [`LOOK_GRACE`], and a look leaves the
    /// reserve of a budget alone.
    pub async fn looking_around<T, F, Fut>(&self, head: F, work: impl Future<Output = T>) -> T
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<BlockRef, Failure>>,
    {
        if !self.is_time_to_look() {
            return work.await;
        }
        let (work, look) = (pin!(work), pin!(self.look(head)));
        match select(work, look).await {
            Either::Left((done, look)) => {
                // What is not in by then is dropped, and asked again the next time.
                let _ = tokio::time::timeout(LOOK_GRACE, look).await;
                done
            }
            Either::Right(((), work)) => work.await,
        }
    }

    /// Asks every endpoint that may be asked for the header at a block's height, all at once. The
    /// endpoints of one host are one witness: the first of them that has an answer speaks.
    pub async fn witnesses<F, Fut>(&self, block: &BlockRef, header: F) -> Witnesses
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<Option<BlockRef>, Failure>>,
    {
        let mut hosts: Vec<Vec<Arc<Slot>>> = Vec::new();
        for slot in &self.slots {
            let same_host = |host: &&mut Vec<Arc<Slot>>| host.first().is_some_and(|other| other.host == slot.host);
            match hosts.iter_mut().find(same_host) {
                Some(host) => host.push(Arc::clone(slot)),
                None => hosts.push(vec![Arc::clone(slot)]),
            }
        }
        let mut answers: FuturesOrdered<_> = hosts.iter().map(|host| self.testimony(host, &header)).collect();
        let mut witnesses = Witnesses::default();
        while let Some((name, shown)) = answers.next().await {
            let list = match shown {
                Some(shown) if shown == *block => &mut witnesses.same,
                Some(_) => &mut witnesses.other,
                None => &mut witnesses.silent,
            };
            list.push(name);
        }
        witnesses
    }

    /// What a host shows, and who of it said so.
    async fn testimony<F, Fut>(&self, host: &[Arc<Slot>], header: &F) -> (String, Option<BlockRef>)
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<Option<BlockRef>, Failure>>,
    {
        for slot in host {
            let Ok(run) = Run::begin(slot, Errand::Witness, Instant::now()) else { continue };
            if let Some(Some(shown)) = self.judge(run, &header).await {
                return (slot.name.clone(), Some(shown));
            }
        }
        (host.first().map(|slot| slot.name.clone()).unwrap_or_default(), None)
    }

    async fn look<F, Fut>(&self, head: F)
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<BlockRef, Failure>>,
    {
        let (now, current) = (Instant::now(), self.current());
        let others = self.slots.iter().filter(|slot| slot.index != current);
        let runs = others.filter_map(|slot| Run::begin(slot, Errand::Look, now).ok());
        let mut looks: FuturesUnordered<_> = runs.map(|run| self.judge(run, &head)).collect();
        while looks.next().await.is_some() {}
    }

    /// Runs an operation, and holds what comes of it against the endpoint.
    async fn judge<T, F, Fut>(&self, run: Run, operation: &F) -> Option<T>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        match operation(run.endpoint()).await {
            Ok(value) => {
                run.served();
                Some(value)
            }
            Err(failure) => {
                let endpoint = Arc::clone(run.slot());
                let reason = run.failed(&failure, self.jitter());
                tracing::debug!(network = %self.network, endpoint = %endpoint.name, %reason, "an endpoint that was looked at failed");
                None
            }
        }
    }

    fn is_time_to_look(&self) -> bool {
        let now = Instant::now();
        let mut looked_at = lock(&self.looked_at);
        let is_time = self.count() > 1 && now.saturating_duration_since(*looked_at) >= LOOK_EVERY;
        if is_time {
            *looked_at = now;
        }
        is_time
    }
}
