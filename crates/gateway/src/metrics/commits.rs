//! What is counted of commits: how long they take, how they end, and what they bring.

use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramVec, IntCounterVec};
use tidegate_rules::changes::{Changes, DeliveryState};
use tidegate_rules::notify::EventType;

use super::{counter, histogram};
use crate::store::{Commit, StoreError};

/// Seconds; one sync of a disk is a few milliseconds, and slow from a second on.
const BUCKETS: [f64; 11] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What is counted of commits.
pub struct Commits {
    took: HistogramVec,
    events: IntCounterVec,
    tries: IntCounterVec,
}

/// What a commit brings, kept until it is known whether it was stored.
#[derive(Default)]
pub struct Brought {
    events: Vec<EventType>,
    tries_accepted: u64,
    tries_failed: u64,
}

impl Default for Commits {
    fn default() -> Self {
        let took = histogram(
            "commit_duration_seconds",
            "How long commits took, waiting for their turn included: stored (done), overtaken by another (conflict), or failed",
            &["outcome"],
            &BUCKETS,
        );
        let events = counter("events_total", "Events that this process has committed", &["type"]);
        let tries = counter("webhook_tries_total", "Tries of webhooks by their outcome", &["outcome"]);
        // A counter that is there from the start shows its first step, too.
        for outcome in ["done", "conflict", "failed"] {
            let _ = took.with_label_values(&[outcome]);
        }
        for kind in EventType::ALL {
            let _ = events.with_label_values(&[kind.name()]);
        }
        for outcome in ["accepted", "failed"] {
            let _ = tries.with_label_values(&[outcome]);
        }
        Self { took, events, tries }
    }
}

impl Brought {
    /// Reads it off the changes.
    #[must_use]
    pub fn of(changes: &Changes) -> Self {
        let accepted = changes.deliveries.iter().filter(|delivery| delivery.state == DeliveryState::Delivered).count();
        Self {
            events: changes.events.iter().map(|event| event.kind).collect(),
            tries_accepted: u64::try_from(accepted).unwrap_or(u64::MAX),
            tries_failed: u64::try_from(changes.deliveries.len().saturating_sub(accepted)).unwrap_or(u64::MAX),
        }
    }
}

/// How a commit ended, in one word: `done`, `conflict` or `failed`.
#[must_use]
pub const fn word(outcome: &Result<Commit, StoreError>) -> &'static str {
    match outcome {
        Ok(Commit::Done) => "done",
        Ok(Commit::Conflict) => "conflict",
        Err(_) => "failed",
    }
}

impl Commits {
    /// Counts a commit that has ended.
    pub fn ended(&self, outcome: &Result<Commit, StoreError>, brought: &Brought, took: Duration) {
        let outcome = word(outcome);
        self.took.with_label_values(&[outcome]).observe(took.as_secs_f64());
        if outcome != "done" {
            return;
        }
        for kind in &brought.events {
            self.events.with_label_values(&[kind.name()]).inc();
        }
        self.tries.with_label_values(&["accepted"]).inc_by(brought.tries_accepted);
        self.tries.with_label_values(&["failed"]).inc_by(brought.tries_failed);
    }

    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        [self.took.collect(), self.events.collect(), self.tries.collect()].concat()
    }
}
