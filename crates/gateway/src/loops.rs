//! The loops that run beside the HTTP server. One that breaks is begun again after a rest, and the
//! health pages and the metrics say so: a follower that is gone must not look like a quiet chain.
//!
//! To begin again is safe: what a loop did is in the store, and it goes on from there as it does
//! after the process was killed. Only that loop rests; one network's trouble does not end the others.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long a loop rests after it broke first.
const REST_MIN: Duration = Duration::from_secs(1);

/// How long it rests at most; the rest doubles each time.
const REST_MAX: Duration = Duration::from_secs(60);

/// A loop that broke and has run this long since is well again.
pub const WELL_AFTER: Duration = Duration::from_secs(60);

/// What is known of every loop.
#[derive(Default)]
pub struct Loops(Mutex<BTreeMap<String, Known>>);

#[derive(Clone, Copy)]
struct Known {
    breaks: u64,
    /// Since when it runs; `None` while it rests.
    since: Option<Instant>,
}

/// How a loop does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopHealth {
    /// What it does, in a word or two: `follow tron`, `webhooks`.
    pub name: String,
    /// How often it broke since the start.
    pub breaks: u64,
    /// False while it rests after it broke, and until it has run for [`WELL_AFTER`] since.
    pub is_well: bool,
}

impl Loops {
    /// How each of them does, by name.
    #[must_use]
    pub fn health(&self) -> Vec<LoopHealth> {
        let is_well = |known: &Known| known.since.is_some_and(|since| known.breaks == 0 || since.elapsed() >= WELL_AFTER);
        self.known().iter().map(|(name, known)| LoopHealth { name: name.clone(), breaks: known.breaks, is_well: is_well(known) }).collect()
    }

    /// Runs a loop until `stop` says so. When it panics, or ends before that, it is begun again after
    /// a rest. `broke` is told each time.
    pub async fn keep<F: Future<Output = ()>>(&self, name: &str, mut stop: watch::Receiver<bool>, begin: impl Fn() -> F, broke: impl Fn()) {
        let mut rest = REST_MIN;
        loop {
            let begun = Instant::now();
            self.note(name, |known| known.since = Some(begun));
            // Nothing of a loop outlives its panic but what it shares with others, and all of that
            // is made for tasks that end anywhere.
            let ended = AssertUnwindSafe(begin()).catch_unwind().await;
            if *stop.borrow() || stop.has_changed().is_err() {
                return;
            }
            self.note(name, |known| *known = Known { breaks: known.breaks.saturating_add(1), since: None });
            broke();
            if begun.elapsed() >= WELL_AFTER {
                rest = REST_MIN;
            }
            // What it said when it panicked is in the log already.
            let how = if ended.is_err() { "panicked" } else { "ended" };
            tracing::error!(r#loop = name, rest_s = rest.as_secs(), "a loop of the gateway {how}; it is begun again after a rest");
            tokio::select! {
                () = sleep(rest) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            rest = rest.saturating_mul(2).min(REST_MAX);
        }
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut Known)) {
        change(self.known().entry(name.to_owned()).or_insert(Known { breaks: 0, since: None }));
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    /// A loop that breaks as often as told, and runs after that.
    async fn frail(left: Arc<AtomicU32>) {
        match left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(1) => {}
            Ok(left) => panic!("{left} times more"),
            Err(_) => std::future::pending().await,
        }
    }

    async fn seen(loops: &Loops, breaks: u64, is_well: bool) {
        let expected = [LoopHealth { name: "frail".to_owned(), breaks, is_well }];
        // With the time standing still, every task that can go on does before a sleep ends.
        for _ in 0..200 {
            if loops.health() == expected {
                return;
            }
            sleep(REST_MIN / 2).await;
        }
        panic!("{:?}, expected {expected:?}", loops.health());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_breaks_is_begun_again_and_shows() {
        let (loops, left) = (Arc::new(Loops::default()), Arc::new(AtomicU32::new(3)));
        let told = Arc::new(AtomicU32::new(0));
        let (stop, stopped) = watch::channel(false);
        let kept = tokio::spawn({
            let (loops, told) = (Arc::clone(&loops), Arc::clone(&told));
            let broke = move || {
                told.fetch_add(1, SeqCst);
            };
            async move { loops.keep("frail", stopped, || frail(Arc::clone(&left)), broke).await }
        });
        // Two panics, then an end of itself: rests of one, two and four seconds.
        let begun = Instant::now();
        for breaks in 1..=3 {
            seen(&loops, breaks, false).await;
        }
        seen(&loops, 3, true).await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(7) + WELL_AFTER && took < Duration::from_secs(9) + WELL_AFTER, "{took:?}");
        assert_eq!(told.load(SeqCst), 3);
        drop(stop);
        kept.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_was_asked_to_stop_did_not_break() {
        let loops = Loops::default();
        let (stop, stopped) = watch::channel(false);
        let waits = {
            let stopped = stopped.clone();
            move || {
                let mut stopped = stopped.clone();
                async move { drop(stopped.wait_for(|stop| *stop).await) }
            }
        };
        let ends = async { stop.send(true).unwrap() };
        tokio::join!(loops.keep("frail", stopped, waits, || panic!("it did not break")), ends);
        assert_eq!(loops.health(), [LoopHealth { name: "frail".to_owned(), breaks: 0, is_well: true }]);
    }
}
