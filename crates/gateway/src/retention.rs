//! What keeps the database from growing for ever, once at the start and then every ten minutes:
//! partitions are made for the time to come, and what is old enough leaves.
//!
//! How old that is, the operator says (`[retention]`, `balances.keep`). Money never leaves.

use std::sync::Arc;
use std::time::Duration;

use tidegate_rules::time::{Span, Time};
use tokio::sync::watch;

use crate::clock;
use crate::duties::Duty;
use crate::gateway::Gateway;
use crate::store::{LEAVE_ROWS, Leaving};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(600);

/// How many batches of one kind leave in a round: what waits for years goes in days, not at once.
const BATCHES_MAX: usize = 200;

/// The rest between two batches, for those who wait to write.
const REST: Duration = Duration::from_millis(50);

/// Looks again and again, until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut duties = gateway.duties.watch();
    loop {
        // Done by one process for all.
        let here = gateway.duties.hold(&Duty::House).is_here();
        tokio::select! {
            () = tend(&gateway, clock::now()), if here => {}
            _ = stop.wait_for(|stop| *stop) => return,
            () = std::future::ready(()), if !here => {}
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = duties.changed() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// One round. What fails is said in the log and tried again in the next.
async fn tend(gateway: &Gateway, now: Time) {
    let retention = &gateway.config.retention;
    for what in Leaving::ALL {
        let keep = match what {
            Leaving::Balances => gateway.config.balances.keep,
            Leaving::Webhooks | Leaving::Attempts => retention.webhooks,
        };
        if keep == Span::ZERO {
            continue;
        }
        let mut left: usize = 0;
        for _ in 0..BATCHES_MAX {
            match gateway.store.let_leave(what, now.minus(keep), retention.archive_dir.as_deref(), now).await {
                Ok(count) => {
                    left = left.saturating_add(count);
                    if count < LEAVE_ROWS {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(table = what.table(), %error, "old rows could not leave");
                    break;
                }
            }
            tokio::time::sleep(REST).await;
        }
        if left > 0 {
            tracing::info!(table = what.table(), rows = left, "old rows left the database");
        }
    }
    // After rows have left: what they leave empty goes in the same round.
    if let Err(error) = gateway.store.tend_partitions(now).await {
        tracing::warn!(%error, "partitions could not be tended; the next round does it");
    }
}
