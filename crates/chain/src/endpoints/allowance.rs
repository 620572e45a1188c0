//! What an endpoint may still be asked: so many requests a second, so many in any 24 hours.
//!
//! Pure bookkeeping: the time is an argument. A daily budget holds for *every* window of 24
//! hours, because nobody here knows at which hour a provider starts its day.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// A daily budget is counted in this many slices, so an hour's use is forgotten a day later.
const SLICES: usize = 24;
const SLICE: Duration = Duration::from_secs(60 * 60);

/// A burst may be as large as the requests of this much time.
const BURST: Duration = Duration::from_secs(1);

/// The two budgets of one endpoint; both are optional.
#[derive(Debug)]
pub(super) struct Allowance {
    pace: Option<Pace>,
    day: Option<Day>,
}

impl Allowance {
    pub(super) fn new(per_second: Option<NonZeroU32>, per_day: Option<u64>, now: Instant) -> Self {
        Self {
            pace: per_second
                .map(|rate| Pace { each: Duration::from_secs(1).checked_div(rate.get()).unwrap_or(Duration::ZERO), paid_until: now }),
            day: per_day.map(|budget| Day { budget, used: [0; SLICES], slice: 0, slice_start: now }),
        }
    }

    /// Takes `count` requests. `Ok` says how long to wait first, `Err` how long the day's budget
    /// stays used up; then nothing was taken.
    pub(super) fn take(&mut self, count: u32, now: Instant) -> Result<Duration, Duration> {
        if let Some(day) = &mut self.day {
            day.take(count, now)?;
        }
        Ok(self.pace.as_mut().map_or(Duration::ZERO, |pace| pace.take(count, now)))
    }

    /// How long the day's budget stays used up; `None` while there is some left.
    pub(super) fn exhausted_for(&mut self, now: Instant) -> Option<Duration> {
        self.day.as_mut().and_then(|day| day.exhausted_for(1, now))
    }
}

/// A token bucket, kept as the time until which requests have been paid for.
#[derive(Debug)]
struct Pace {
    each: Duration,
    paid_until: Instant,
}

impl Pace {
    fn take(&mut self, count: u32, now: Instant) -> Duration {
        let from = self.paid_until.max(now);
        self.paid_until = from.checked_add(self.each.saturating_mul(count)).unwrap_or(from);
        self.paid_until.saturating_duration_since(now).saturating_sub(BURST)
    }
}

/// A ring of hours and what was used in each.
#[derive(Debug)]
struct Day {
    budget: u64,
    used: [u64; SLICES],
    slice: usize,
    slice_start: Instant,
}

impl Day {
    fn take(&mut self, count: u32, now: Instant) -> Result<(), Duration> {
        match self.exhausted_for(u64::from(count), now) {
            Some(rest) => Err(rest),
            None => {
                if let Some(used) = self.used.get_mut(self.slice) {
                    *used = used.saturating_add(u64::from(count));
                }
                Ok(())
            }
        }
    }

    /// How long until `count` more may be used, to the slice. A count above the whole budget is
    /// let through on an empty ring, or it would wait for ever.
    fn exhausted_for(&mut self, count: u64, now: Instant) -> Option<Duration> {
        self.turn(now);
        let mut used: u64 = self.used.iter().fold(0, |sum, used| sum.saturating_add(*used));
        if used == 0 || used.saturating_add(count) <= self.budget {
            return None;
        }
        let mut wait = SLICE.saturating_sub(now.saturating_duration_since(self.slice_start));
        // The slice after the current one is the oldest; the current one is forgotten last.
        for age in 1..=SLICES {
            let oldest = self.slice.wrapping_add(age).checked_rem(SLICES).unwrap_or(0);
            used = used.saturating_sub(self.used.get(oldest).copied().unwrap_or(0));
            if used.saturating_add(count) <= self.budget {
                break;
            }
            wait = wait.saturating_add(SLICE);
        }
        Some(wait)
    }

    fn turn(&mut self, now: Instant) {
        // After a whole day of silence every slice is clear; there is no need to count further.
        for _ in 0..SLICES {
            if now.saturating_duration_since(self.slice_start) < SLICE {
                return;
            }
            self.slice = self.slice.wrapping_add(1).checked_rem(SLICES).unwrap_or(0);
            self.slice_start = self.slice_start.checked_add(SLICE).unwrap_or(now);
            if let Some(used) = self.used.get_mut(self.slice) {
                *used = 0;
            }
        }
        self.slice_start = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn allowance(per_second: u32, per_day: u64, now: Instant) -> Allowance {
        Allowance::new(NonZeroU32::new(per_second), (per_day > 0).then_some(per_day), now)
    }

    #[tokio::test]
    async fn a_second_allows_a_burst_and_then_keeps_the_pace() {
        let start = Instant::now();
        let mut allowance = allowance(10, 0, start);
        for _ in 0..10 {
            assert_eq!(allowance.take(1, start), Ok(Duration::ZERO));
        }
        assert_eq!(allowance.take(1, start), Ok(Duration::from_millis(100)));
        assert_eq!(allowance.take(5, start), Ok(Duration::from_millis(600)), "a batch costs its size");
        assert_eq!(allowance.take(1, start + Duration::from_secs(60)), Ok(Duration::ZERO), "silence refills");
    }

    #[tokio::test]
    async fn a_day_counts_whatever_hour_it_starts_at() {
        let start = Instant::now();
        let mut allowance = allowance(0, 100, start);
        assert_eq!(allowance.take(60, start), Ok(Duration::ZERO));
        assert_eq!(allowance.take(40, start + 10 * HOUR), Ok(Duration::ZERO));
        assert_eq!(allowance.take(1, start + 10 * HOUR), Err(14 * HOUR), "the first sixty are a day old then");
        assert_eq!(allowance.exhausted_for(start + 23 * HOUR), Some(HOUR));
        assert_eq!(allowance.exhausted_for(start + 24 * HOUR), None);
        assert_eq!(allowance.take(61, start + 24 * HOUR), Err(10 * HOUR));
        assert_eq!(allowance.take(60, start + 24 * HOUR), Ok(Duration::ZERO));
        assert_eq!(allowance.take(100, start + 1_000 * HOUR), Ok(Duration::ZERO), "after silence all is free");
        assert_eq!(allowance.take(100, start + 1_023 * HOUR), Err(HOUR));
    }

    #[tokio::test]
    async fn a_request_larger_than_the_budget_is_not_stuck_for_ever() {
        let start = Instant::now();
        let mut allowance = allowance(0, 10, start);
        assert_eq!(allowance.take(50, start), Ok(Duration::ZERO));
        assert!(allowance.take(1, start).is_err());
    }
}
