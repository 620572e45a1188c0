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

/// What is spent for speed or for looking, not for need, leaves this part of a day's budget.
const RESERVE_DIVISOR: u64 = 5;

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

    /// True when `count` requests could go out at once and the day's reserve were still whole.
    pub(super) fn may_spare(&mut self, count: u32, now: Instant) -> bool {
        let pace = self.pace.as_ref().is_none_or(|pace| pace.wait(count, now).is_zero());
        pace && self.day.as_mut().is_none_or(|day| {
            let reserve = day.budget.wrapping_div(RESERVE_DIVISOR);
            day.left(now) >= reserve.saturating_add(u64::from(count))
        })
    }

    /// What is left of the day's budget; `None` without one.
    pub(super) fn left(&mut self, now: Instant) -> Option<u64> {
        self.day.as_mut().map(|day| day.left(now))
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
        let wait = self.wait(count, now);
        self.paid_until = self.after(count, now);
        wait
    }

    fn wait(&self, count: u32, now: Instant) -> Duration {
        self.after(count, now).saturating_duration_since(now).saturating_sub(BURST)
    }

    /// Until when requests will have been paid for with `count` more.
    fn after(&self, count: u32, now: Instant) -> Instant {
        let from = self.paid_until.max(now);
        from.checked_add(self.each.saturating_mul(count)).unwrap_or(from)
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
        let mut used = self.used();
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

    fn left(&mut self, now: Instant) -> u64 {
        self.turn(now);
        self.budget.saturating_sub(self.used())
    }

    fn used(&self) -> u64 {
        self.used.iter().fold(0, |sum, used| sum.saturating_add(*used))
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

    #[tokio::test]
    async fn what_is_not_needed_leaves_a_fifth_of_the_day() {
        let start = Instant::now();
        let mut allowance = allowance(10, 100, start);
        assert_eq!((allowance.left(start), allowance.may_spare(10, start)), (Some(100), true));
        assert!(!allowance.may_spare(11, start), "it never waits");
        assert_eq!(allowance.take(80, start), Ok(Duration::from_secs(7)));
        let later = start + HOUR;
        assert_eq!((allowance.left(later), allowance.may_spare(1, later)), (Some(20), false));
        assert_eq!(allowance.take(20, later), Ok(Duration::from_secs(1)), "what is needed may have the rest");
        assert_eq!(allowance.left(later), Some(0));
        let unmetered = &mut super::tests::allowance(0, 0, start);
        assert_eq!((unmetered.left(start), unmetered.may_spare(1_000, start)), (None, true));
    }
}
