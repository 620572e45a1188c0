//! How good an endpoint is, from 0 to 100: how often it fails, how long it takes, how far it is
//! behind.
//!
//! Pure bookkeeping in whole numbers: the time is an argument. A score is for choosing and for
//! showing. It never says whether an answer may be believed.

use std::time::Duration;

use tokio::time::Instant;

/// The score of an endpoint that nothing speaks against, and of one that was never asked.
pub(super) const SCORE_MAX: u8 = 100;

/// What each shortcoming costs at its worst; together they are [`SCORE_MAX`].
const FAILURES_COST: u32 = 45;
const MEAN_COST: u32 = 20;
const BOUND_COST: u32 = 15;
const BEHIND_COST: u32 = 20;

/// A mean up to the first costs nothing, from the second on all.
const MEAN_FINE: Duration = Duration::from_millis(300);
const MEAN_WORST: Duration = Duration::from_secs(3);
const BOUND_FINE: Duration = Duration::from_secs(1);
const BOUND_WORST: Duration = Duration::from_secs(6);
/// Heads are seen at different moments: this many blocks are nobody's fault.
const BEHIND_FINE: u64 = 2;
const BEHIND_WORST: u64 = 20;

/// All operations failed, as a share.
const WHOLE: u32 = 1 << 16;
/// A new outcome has this part in the share.
const WEIGHT_DIVISOR: u32 = 8;
/// What is known of failures weighs half after this long, or an endpoint that is not asked any
/// more could never be thought better of.
const FORGET_HALF: Duration = Duration::from_secs(5 * 60);

/// The share of operations that failed; the newer, the heavier.
#[derive(Debug)]
pub(super) struct Failures {
    share: u32,
    as_of: Instant,
}

impl Failures {
    pub(super) const fn none(now: Instant) -> Self {
        Self { share: 0, as_of: now }
    }

    pub(super) fn served(&mut self, now: Instant) {
        self.forget(now);
        self.share = self.share.saturating_sub(self.share.div_ceil(WEIGHT_DIVISOR));
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.forget(now);
        self.share = self.share.saturating_add(WHOLE.saturating_sub(self.share).wrapping_div(WEIGHT_DIVISOR));
    }

    /// The share now, in percent.
    pub(super) fn percent(&self, now: Instant) -> u32 {
        self.at(now).0.saturating_mul(100).wrapping_div(WHOLE)
    }

    fn forget(&mut self, now: Instant) {
        (self.share, self.as_of) = self.at(now);
    }

    fn at(&self, now: Instant) -> (u32, Instant) {
        let passed = now.saturating_duration_since(self.as_of);
        let halvings = u32::try_from(passed.as_secs().checked_div(FORGET_HALF.as_secs()).unwrap_or(0)).unwrap_or(u32::MAX);
        let as_of = self.as_of.checked_add(FORGET_HALF.saturating_mul(halvings)).unwrap_or(now);
        (self.share.checked_shr(halvings).unwrap_or(0), as_of)
    }
}

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Record {
    pub(super) failures_percent: u32,
    pub(super) mean: Option<Duration>,
    pub(super) bound: Option<Duration>,
    pub(super) behind: u64,
}

impl Record {
    pub(super) fn score(&self) -> u8 {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let slow = |time: Option<Duration>, fine: Duration, worst: Duration, cost: u32| {
            time.map_or(0, |time| part(micros(time), micros(fine), micros(worst), cost))
        };
        let costs = [
            part(u64::from(self.failures_percent), 0, 100, FAILURES_COST),
            slow(self.mean, MEAN_FINE, MEAN_WORST, MEAN_COST),
            slow(self.bound, BOUND_FINE, BOUND_WORST, BOUND_COST),
            part(self.behind, BEHIND_FINE, BEHIND_WORST, BEHIND_COST),
        ];
        let cost = costs.iter().fold(0_u32, |sum, cost| sum.saturating_add(*cost));
        SCORE_MAX.saturating_sub(u8::try_from(cost).unwrap_or(SCORE_MAX))
    }

    /// What speaks against it, in words; empty when nothing does.
    pub(super) fn complaints(&self) -> String {
        let mut words = Vec::new();
        if self.failures_percent > 0 {
            words.push(format!("{} % of its answers fail or come too late", self.failures_percent));
        }
        if let Some(mean) = self.mean.filter(|mean| *mean > MEAN_FINE) {
            words.push(format!("it takes {} ms", mean.as_millis()));
        }
        if self.behind > BEHIND_FINE {
            words.push(format!("it is {} blocks behind", self.behind));
        }
        words.join(", ")
    }
}

/// The part of `cost` for a value between what is fine and the worst.
fn part(value: u64, fine: u64, worst: u64, cost: u32) -> u32 {
    let range = worst.saturating_sub(fine).max(1);
    let over = value.saturating_sub(fine).min(range);
    let cost = over.saturating_mul(u64::from(cost)).checked_div(range).unwrap_or(0);
    u32::try_from(cost).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_scores() {
        let table = "
            failures%  mean_ms  bound_ms  behind  score
            0          -        -         0       100
            0          300      1000      2       100
            0          800      -         0       97
            0          3000     -         0       80
            0          900000   -         0       80
            0          300      3500      0       93
            0          3000     6000      0       65
            0          -        -         11      90
            0          -        -         41      80
            12         -        -         0       95
            50         -        -         0       78
            100        -        -         0       55
            100        3000     6000      99      0";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()).skip(1) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let ms = |cell: &str| (cell != "-").then(|| Duration::from_millis(cell.parse().unwrap()));
            let record = Record {
                failures_percent: cells[0].parse().unwrap(),
                mean: ms(cells[1]),
                bound: ms(cells[2]),
                behind: cells[3].parse().unwrap(),
            };
            assert_eq!(record.score().to_string(), cells[4], "{line}");
        }
    }

    /// `x` fails, `.` is served, `~` is five minutes of silence; then the share in percent.
    #[tokio::test]
    async fn the_newer_the_heavier_and_the_past_is_forgotten() {
        let table = [
            ("", 0),
            ("....", 0),
            ("x", 12),
            ("xx", 23),
            ("xxx", 33),
            ("xxxxxxxx", 65),
            ("xxxxxxxx........", 22),
            ("........xxxxxxxx", 65),
            ("xxxxxxxx~", 32),
            ("xxxxxxxx~~~", 8),
            ("x.x.x.x.x.x.x.x.x.x.x.x.x.x.", 45),
        ];
        for (outcomes, expected) in table {
            let mut now = Instant::now();
            let mut failures = Failures::none(now);
            for outcome in outcomes.chars() {
                match outcome {
                    'x' => failures.failed(now),
                    '.' => failures.served(now),
                    _ => now += FORGET_HALF,
                }
            }
            assert_eq!(failures.percent(now), expected, "{outcomes:?}");
        }
        let mut failures = Failures::none(Instant::now());
        failures.failed(Instant::now());
        for _ in 0..200 {
            failures.served(Instant::now());
        }
        assert_eq!(failures.share, 0, "it comes down to nothing");
    }

    #[test]
    fn a_complaint_names_what_costs() {
        let record = Record { failures_percent: 33, mean: Some(Duration::from_millis(2_100)), bound: None, behind: 41 };
        assert_eq!(record.complaints(), "33 % of its answers fail or come too late, it takes 2100 ms, it is 41 blocks behind");
        assert_eq!(Record::default().complaints(), "");
    }
}
