//! Where a simulation ends the process: between two commits, at a place that it can choose.
//!
//! A fuse that has blown lets nothing more happen: every commit after it waits for ever, as it would
//! for a process that is gone, until whoever lit the fuse drops the tasks. Nothing of the program
//! lights one, and one that is not lit costs a look at an atomic number.

use std::future::pending;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_rules::changes::Changes;
use tokio::sync::watch;

/// On which side of a commit the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing of it is stored.
    Before,
    /// All of it is stored, and whoever asked for it never hears so.
    After,
}

/// A fuse that is not lit, in the place of the commits that are left.
const UNLIT: i64 = -1;
/// One that has blown.
const BLOWN: i64 = -2;

/// Ends the process of a store. Clones are the same fuse.
#[derive(Clone, Debug)]
pub struct Fuse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Commits that are still let through, [`UNLIT`] or [`BLOWN`].
    left: AtomicI64,
    side: Mutex<Side>,
    /// The commit at which it blew.
    at: watch::Sender<Option<Changes>>,
}

impl Default for Fuse {
    fn default() -> Self {
        Self(Arc::new(Inner { left: AtomicI64::new(UNLIT), side: Mutex::new(Side::Before), at: watch::Sender::new(None) }))
    }
}

impl Fuse {
    /// Lets `commits` more commits through and ends the process at the one after them.
    pub fn light(&self, commits: u32, side: Side) {
        *self.0.side.lock().unwrap_or_else(PoisonError::into_inner) = side;
        self.0.left.store(i64::from(commits), Ordering::SeqCst);
    }

    /// The commit at which the process ended, if it did.
    #[must_use]
    pub fn blown(&self) -> Option<Changes> {
        self.0.at.borrow().clone()
    }

    /// Waits until the process has ended.
    pub async fn wait(&self) {
        let mut at = self.0.at.subscribe();
        let _ = at.wait_for(Option::is_some).await;
    }

    /// Before a commit is carried out. Says whether the process ends once it is; never comes back
    /// from one that must not be stored.
    pub(super) async fn before(&self, changes: &Changes) -> bool {
        let left = &self.0.left;
        let step = |left: i64| if left > UNLIT { Some(if left == 0 { UNLIT } else { left.saturating_sub(1) }) } else { None };
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step) {
            Ok(0) => {
                let side = *self.0.side.lock().unwrap_or_else(PoisonError::into_inner);
                if side == Side::After {
                    return true;
                }
                self.blow(changes.clone());
            }
            Ok(_) | Err(UNLIT) => return false,
            Err(_) => {}
        }
        pending().await
    }

    /// After a commit was carried out. Never comes back in a process that has ended.
    pub(super) async fn after(&self, last: Option<Changes>) {
        if let Some(changes) = last {
            self.blow(changes);
        }
        if self.0.left.load(Ordering::SeqCst) == BLOWN {
            pending::<()>().await;
        }
    }

    fn blow(&self, at: Changes) {
        self.0.left.store(BLOWN, Ordering::SeqCst);
        self.0.at.send_replace(Some(at));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// What becomes of a commit: `stored`, `stored, unheard`, or `lost`.
    fn commit(fuse: &Fuse) -> &'static str {
        let changes = Changes::default();
        let Some(ends) = fuse.before(&changes).now_or_never() else { return "lost" };
        match fuse.after(ends.then_some(changes)).now_or_never() {
            Some(()) => "stored",
            None => "stored, unheard",
        }
    }

    #[test]
    fn a_process_ends_before_or_after_the_commit_that_was_named() {
        for (side, at) in [(Side::Before, "lost"), (Side::After, "stored, unheard")] {
            let fuse = Fuse::default();
            assert_eq!([commit(&fuse), commit(&fuse)], ["stored"; 2]);
            fuse.light(2, side);
            assert_eq!([(); 5].map(|()| commit(&fuse)), ["stored", "stored", at, "lost", "lost"], "{side:?}");
            assert!(fuse.blown().is_some() && fuse.wait().now_or_never().is_some());
        }
    }
}
