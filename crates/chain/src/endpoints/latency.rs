//! How long an endpoint takes: a weighted mean, and a bound that nine of ten stay below.
//!
//! In whole microseconds. What is long ago says nothing about now and is forgotten at once.

use std::time::Duration;

use tokio::time::Instant;

/// The bound is read from this many of the newest times.
const SAMPLES: usize = 32;
/// With fewer there is no bound.
const SAMPLES_MIN: usize = 8;
/// A new time has this part in the mean.
const WEIGHT_DIVISOR: u64 = 8;
/// After this long without a new one, what was measured counts no more.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, Default)]
pub(super) struct Latency {
    mean_us: u64,
    recent_us: [u64; SAMPLES],
    /// How many of them are there, and where the next one goes.
    filled: usize,
    next: usize,
    last: Option<Instant>,
}

impl Latency {
    pub(super) fn note(&mut self, took: Duration, now: Instant) {
        if !self.is_fresh(now) {
            *self = Self::default();
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let kept = self.mean_us.saturating_sub(self.mean_us.wrapping_div(WEIGHT_DIVISOR));
        self.mean_us = if self.filled == 0 { took_us } else { kept.saturating_add(took_us.wrapping_div(WEIGHT_DIVISOR)) };
        if let Some(place) = self.recent_us.get_mut(self.next) {
            *place = took_us;
        }
        self.next = self.next.wrapping_add(1).checked_rem(SAMPLES).unwrap_or(0);
        self.filled = self.filled.saturating_add(1).min(SAMPLES);
        self.last = Some(now);
    }

    /// Notes one that was given up after so long. It says something only where it was slow.
    pub(super) fn note_at_least(&mut self, took: Duration, now: Instant) {
        if self.mean(now).is_none_or(|mean| took > mean) {
            self.note(took, now);
        }
    }

    /// The mean; the newer, the heavier.
    pub(super) fn mean(&self, now: Instant) -> Option<Duration> {
        (self.filled > 0 && self.is_fresh(now)).then(|| Duration::from_micros(self.mean_us))
    }

    /// Nine of ten were not longer. `None` until there is enough to tell.
    pub(super) fn bound(&self, now: Instant) -> Option<Duration> {
        if self.filled < SAMPLES_MIN || !self.is_fresh(now) {
            return None;
        }
        let mut sorted: Vec<u64> = self.recent_us.iter().take(self.filled).copied().collect();
        sorted.sort_unstable();
        let ninth_tenth = self.filled.saturating_mul(9).wrapping_div(10);
        sorted.get(ninth_tenth).map(|us| Duration::from_micros(*us))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) < STALE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in milliseconds as they came, then the mean and the bound in milliseconds.
    #[tokio::test]
    async fn mean_and_bound() {
        let table = [
            ("nothing", Vec::new(), None, None),
            ("one", vec![80], Some(80), None),
            ("seven are too few for a bound", vec![80; 7], Some(80), None),
            ("eight", vec![80; 8], Some(80), Some(80)),
            ("one slow in thirty-two is no rule", [vec![80; 31], vec![8_000]].concat(), Some(1_070), Some(80)),
            ("four slow in thirty-two are", [vec![80; 28], vec![800; 4]].concat(), Some(377), Some(800)),
            ("what is old is pushed out", [vec![9_000; 32], vec![80; 32]].concat(), Some(204), Some(80)),
        ];
        let now = Instant::now();
        for (name, times, mean, bound) in table {
            let mut latency = Latency::default();
            for ms in times {
                latency.note(Duration::from_millis(ms), now);
            }
            let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap());
            assert_eq!((ms(latency.mean(now)), ms(latency.bound(now))), (mean, bound), "{name}");
            assert_eq!((latency.mean(now + STALE_AFTER), latency.bound(now + STALE_AFTER)), (None, None), "{name}, later");
        }
    }

    #[tokio::test]
    async fn what_was_given_up_early_says_nothing() {
        let now = Instant::now();
        let mut latency = Latency::default();
        for (took, expected) in [(100, 100), (20, 100), (180, 110)] {
            latency.note_at_least(Duration::from_millis(took), now);
            assert_eq!(latency.mean(now), Some(Duration::from_millis(expected)), "{took}");
        }
    }

    #[tokio::test]
    async fn after_a_silence_it_starts_anew() {
        let start = Instant::now();
        let mut latency = Latency::default();
        for _ in 0..32 {
            latency.note(Duration::from_secs(9), start);
        }
        let later = start + STALE_AFTER;
        latency.note(Duration::from_millis(50), later);
        assert_eq!((latency.mean(later), latency.bound(later)), (Some(Duration::from_millis(50)), None));
    }
}
