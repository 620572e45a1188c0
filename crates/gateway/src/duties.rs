//! What one process at a time does, where several run on one database: following a network, and
//! keeping house.
//!
//! Every process asks for every duty once a second, and holds those that nobody else holds; a
//! process that has not renewed a duty for [`TERM`] has lost it to whoever asks next. What is
//! written on behalf of a duty carries its fence, so one that was paused and comes back writes
//! nothing. A SQLite file has one process: it holds everything, and asks nobody.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidegate_rules::block::Network;
use tidegate_rules::changes::Fence;
use tidegate_rules::time::Span;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock;
use crate::gateway::{Gateway, Wake};
use crate::store::presence;

/// How long a duty is held without being renewed. As long as it takes at most until another process
/// follows a network whose follower was killed, but for [`RENEW`].
pub const TERM: Span = Span::from_secs(5);

/// How often duties are renewed, and asked for.
const RENEW: Duration = Duration::from_secs(1);

/// What one process at a time does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Follow a network, and read what has settled a second time.
    Follow(Network),
    /// Everything that is done now and then for all.
    House,
}

impl Duty {
    /// Its name in the database.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Follow(network) => format!("follow {network}"),
            Self::House => "house".to_owned(),
        }
    }
}

/// How a process stands to a duty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody else can hold it.
    Alone,
    /// It holds it; what it writes on its behalf carries this.
    Held(Fence),
    /// Another process holds it, or this one has not asked yet.
    Elsewhere,
}

impl Hold {
    /// Whether this process does it.
    #[must_use]
    pub const fn is_here(&self) -> bool {
        !matches!(self, Self::Elsewhere)
    }

    /// What goes with every change on behalf of the duty.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        match self {
            Self::Held(fence) => Some(fence.clone()),
            Self::Alone | Self::Elsewhere => None,
        }
    }
}

/// The duties of this process.
pub struct Duties {
    holder: String,
    is_shared: bool,
    held: RwLock<HashMap<String, (Fence, Instant)>>,
    /// Counts up with every duty that is taken or lost.
    changes: watch::Sender<u64>,
}

impl Duties {
    /// Of a process that has asked for nothing yet.
    #[must_use]
    pub fn new(is_shared: bool) -> Self {
        Self { holder: hex::encode(clock::random::<8>()), is_shared, held: RwLock::default(), changes: watch::Sender::new(0) }
    }

    /// The name of this process among those on the database.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// What a row of a queue that this process claims has to say of it.
    #[must_use]
    pub fn claim(&self) -> Option<String> {
        self.is_shared.then(|| self.holder.clone())
    }

    /// How this process stands to a duty now. The answer is good for less than a [`TERM`]: the fence
    /// decides.
    #[must_use]
    pub fn hold(&self, duty: &Duty) -> Hold {
        if !self.is_shared {
            return Hold::Alone;
        }
        match self.held.read().unwrap_or_else(PoisonError::into_inner).get(&duty.name()) {
            Some((fence, until)) if Instant::now() < *until => Hold::Held(fence.clone()),
            _ => Hold::Elsewhere,
        }
    }

    /// Hears of every duty that is taken or lost.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes in what the database said to a question that was asked at `asked`.
    fn learn(&self, fences: Vec<Fence>, asked: Instant) {
        let until = asked.checked_add(TERM.to_std()).unwrap_or(asked);
        let now_held: HashMap<String, (Fence, Instant)> = fences.into_iter().map(|fence| (fence.duty.clone(), (fence, until))).collect();
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let taken = now_held.values().filter(|(fence, _)| held.get(&fence.duty).is_none_or(|(known, _)| known != fence));
        let lost = held.keys().filter(|duty| !now_held.contains_key(*duty));
        let own = presence(&self.holder);
        let mut changed = false;
        for (fence, _) in taken.filter(|(fence, _)| fence.duty != own) {
            tracing::info!(duty = fence.duty, holder = self.holder, fence = fence.number, "this process does it from now on");
            changed = true;
        }
        for duty in lost.filter(|duty| **duty != own) {
            tracing::warn!(duty, "another process does it from now on");
            changed = true;
        }
        *held = now_held;
        drop(held);
        if changed {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// Takes and renews duties until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    if !gateway.store.is_shared() {
        return;
    }
    let duties = gateway.networks().keys().cloned().map(Duty::Follow).chain([Duty::House]);
    let presence = presence(gateway.duties.holder());
    let names: Vec<String> = duties.map(|duty| duty.name()).chain([presence]).collect();
    let mut known = false;
    loop {
        let asked = Instant::now();
        match gateway.store.take_duties(&names, gateway.duties.holder(), TERM).await {
            Ok(fences) => {
                gateway.duties.learn(fences, asked);
                if !known {
                    // Before its presence was known it could claim nothing.
                    known = true;
                    [Wake::Delivery, Wake::Notice, Wake::Inbox, Wake::Look, Wake::Job].into_iter().for_each(|wake| gateway.signal(wake));
                }
            }
            // What was held is held until its term is over.
            Err(error) => tracing::warn!(%error, "duties could not be renewed"),
        }
        tokio::select! {
            () = tokio::time::sleep(RENEW) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Gives up what this process holds, once nothing of it is done any more: another process goes on at
/// once.
pub async fn leave(gateway: &Gateway) {
    if gateway.store.is_shared()
        && let Err(error) = gateway.store.leave_duties(gateway.duties.holder()).await
    {
        tracing::warn!(%error, "duties could not be given up; another process takes them over in a moment");
    }
}
