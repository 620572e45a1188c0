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

use futures_util::future::join_all;
use tidegate_rules::block::Network;
use tidegate_rules::changes::Fence;
use tidegate_rules::time::Span;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::clock;
use crate::gateway::{Gateway, Wake};
use crate::store::{StoreError, presence};

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

    /// Takes in what the database said to a question about a duty that was asked at `asked`.
    fn learn(&self, duty: &str, fence: Option<Fence>, asked: Instant) {
        let until = asked.checked_add(TERM.to_std()).unwrap_or(asked);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let before = match &fence {
            Some(fence) => held.insert(duty.to_owned(), (fence.clone(), until)),
            None => held.remove(duty),
        };
        drop(held);
        if before.as_ref().map(|(fence, _)| fence) == fence.as_ref() || duty == presence(&self.holder) {
            return;
        }
        match fence {
            Some(fence) => tracing::info!(duty, holder = self.holder, fence = fence.number, "this process does it from now on"),
            None => tracing::warn!(duty, "another process does it from now on"),
        }
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Takes and renews duties until `stop` says so: each by itself, for a commit holds the row of its duty,
/// and one that takes long must not keep this process from renewing the others.
pub async fn run(gateway: Arc<Gateway>, stop: watch::Receiver<bool>) {
    if !gateway.store.is_shared() {
        return;
    }
    let duties = gateway.networks().keys().cloned().map(Duty::Follow).chain([Duty::House]);
    let names = duties.map(|duty| duty.name()).chain([presence(gateway.duties.holder())]);
    join_all(names.map(|name| renew(Arc::clone(&gateway), name, stop.clone()))).await;
}

async fn renew(gateway: Arc<Gateway>, name: String, mut stop: watch::Receiver<bool>) {
    let is_presence = name == presence(gateway.duties.holder());
    let mut known = false;
    loop {
        let asked = Instant::now();
        let taking = gateway.store.take_duties(std::slice::from_ref(&name), gateway.duties.holder(), TERM);
        // After a term the answer is good for nothing, and from a machine that was switched off none comes.
        match timeout(TERM.to_std(), taking).await.unwrap_or(Err(StoreError::Lost)) {
            Ok(fences) => {
                gateway.duties.learn(&name, fences.into_iter().next(), asked);
                if is_presence && !known {
                    // Before its presence was known it could claim nothing.
                    known = true;
                    [Wake::Delivery, Wake::Notice, Wake::Inbox, Wake::Look, Wake::Job].into_iter().for_each(|wake| gateway.signal(wake));
                }
            }
            // What was held is held until its term is over. Told once, not of every duty.
            Err(error) if is_presence => tracing::warn!(%error, "duties could not be renewed"),
            Err(error) => tracing::debug!(%error, duty = name, "a duty could not be renewed"),
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
