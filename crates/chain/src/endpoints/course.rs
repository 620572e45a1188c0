//! Which endpoint is in use, when it is left though it answers, and the list of such changes.
//!
//! The one in use is kept: switching back and forth between nodes that stand at different heights
//! is worse than any of them. It is left when it lags, or when its score has stayed clearly below
//! another's. An endpoint that the operator named earlier is returned to once it has been well
//! for a while, because that is the one he pays for, or runs himself, and chose with care; a return
//! that fails or does not last makes the next one wait twice as long.
//!
//! Pure bookkeeping: the time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::{Switch, SwitchCause};

/// An endpoint is left when another's score is higher by this much …
pub const LEAVE_MARGIN: u8 = 25;
/// … for this long.
pub const LEAVE_AFTER: Duration = Duration::from_secs(30);
/// An endpoint that was named earlier is returned to no sooner than this after the last switch.
pub const RETURN_AFTER: Duration = Duration::from_secs(10 * 60);
/// The longest wait that returns which did not last lead to.
pub const RETURN_AFTER_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// A score may be this much lower and the endpoint is returned to all the same.
pub const RETURN_MARGIN: u8 = 10;
/// How many of the newest switches are kept to be shown.
pub const SWITCHES_KEPT: usize = 16;

/// How an endpoint stands when it is chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// It may be asked at all.
    pub(super) usable: bool,
    pub(super) lagging: bool,
    pub(super) score: u8,
}

impl Standing {
    const fn is_well(self) -> bool {
        self.usable && !self.lagging
    }
}

/// A move away from an endpoint that answers. It is tried; what comes of it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// To one that does not lag as this one does.
    Lagging { to: usize },
    /// To one that has scored better for a while.
    Better { to: usize },
    /// To one that was named earlier.
    Return { to: usize },
}

impl Move {
    pub(super) const fn to(self) -> usize {
        match self {
            Self::Lagging { to } | Self::Better { to } | Self::Return { to } => to,
        }
    }

    pub(super) const fn cause(self) -> SwitchCause {
        match self {
            Self::Lagging { .. } => SwitchCause::Lagging,
            Self::Better { .. } => SwitchCause::Score,
            Self::Return { .. } => SwitchCause::Return,
        }
    }
}

#[derive(Debug)]
pub(super) struct Course {
    current: usize,
    since: Instant,
    /// Since when another has been clearly better.
    worse_since: Option<Instant>,
    returned_at: Option<Instant>,
    return_after: Duration,
    switches: VecDeque<Switched>,
    totals: BTreeMap<SwitchCause, u64>,
}

/// From where, to where, and why.
#[derive(Clone, Debug)]
pub(super) struct Switched {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) cause: SwitchCause,
    pub(super) reason: String,
    at: Instant,
}

impl Switched {
    pub(super) const fn new(from: String, to: String, cause: SwitchCause, reason: String, at: Instant) -> Self {
        Self { from, to, cause, reason, at }
    }
}

impl Course {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            current: 0,
            since: now,
            worse_since: None,
            returned_at: None,
            return_after: RETURN_AFTER,
            switches: VecDeque::new(),
            totals: BTreeMap::new(),
        }
    }

    pub(super) const fn current(&self) -> usize {
        self.current
    }

    /// Where to go from the one in use, if anywhere. Standings are in the order of preference.
    pub(super) fn consider(&mut self, standings: &[Standing], now: Instant) -> Option<Move> {
        let own = *standings.get(self.current)?;
        let others = || standings.iter().copied().enumerate().filter(|(index, other)| *index != self.current && other.is_well());
        let best = others().max_by_key(|(index, other)| (other.score, std::cmp::Reverse(*index)));
        let worse_since = best
            .filter(|(_, best)| best.score >= own.score.saturating_add(LEAVE_MARGIN))
            .map(|(to, _)| (to, self.worse_since.unwrap_or(now)));
        let lagging = others().next().filter(|_| own.lagging).map(|(to, _)| Move::Lagging { to });
        let better =
            worse_since.filter(|(_, since)| now.saturating_duration_since(*since) >= LEAVE_AFTER).map(|(to, _)| Move::Better { to });
        let returns = now.saturating_duration_since(self.since) >= self.return_after;
        let back = others()
            .find(|(index, other)| returns && *index < self.current && other.score.saturating_add(RETURN_MARGIN) >= own.score)
            .map(|(to, _)| Move::Return { to });
        self.worse_since = worse_since.map(|(_, since)| since);
        lagging.or(better).or(back)
    }

    /// Notes that a move was tried and led nowhere: the next return waits twice as long, from now.
    pub(super) fn stayed(&mut self, tried: Move, now: Instant) {
        if matches!(tried, Move::Return { .. }) {
            self.since = now;
            self.return_after = self.return_after.saturating_mul(2).min(RETURN_AFTER_MAX);
        }
    }

    /// Notes that `to` is in use now. `from` is what was in use when the operation began: somebody
    /// else may have switched meanwhile, and then nothing changes. True when something did.
    pub(super) fn switch(&mut self, from: usize, to: usize, by: Option<Move>, switched: Switched) -> bool {
        if self.current != from || from == to {
            return false;
        }
        let now = switched.at;
        if matches!(by, Some(Move::Return { .. })) {
            self.returned_at = Some(now);
        } else if let Some(returned_at) = self.returned_at.take() {
            let lasted = now.saturating_duration_since(returned_at) >= self.return_after;
            self.return_after = if lasted { RETURN_AFTER } else { self.return_after.saturating_mul(2).min(RETURN_AFTER_MAX) };
        }
        self.current = to;
        self.since = now;
        self.worse_since = None;
        let total = self.totals.entry(switched.cause).or_default();
        *total = total.saturating_add(1);
        if self.switches.len() >= SWITCHES_KEPT {
            self.switches.pop_front();
        }
        self.switches.push_back(switched);
        true
    }

    /// How many switches there were by their cause, and the newest ones, the newest first.
    pub(super) fn switches(&self, now: Instant) -> (BTreeMap<SwitchCause, u64>, Vec<Switch>) {
        let shown = |switched: &Switched| Switch {
            from: switched.from.clone(),
            to: switched.to.clone(),
            cause: switched.cause,
            reason: switched.reason.clone(),
            age: now.saturating_duration_since(switched.at),
        };
        (self.totals.clone(), self.switches.iter().rev().map(shown).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second, how the endpoints stand (a score, `-` not usable, `~` lagging), what is done
    /// about it, and who is in use after that.
    #[tokio::test]
    async fn when_an_endpoint_is_left_and_returned_to() {
        let table = "
            0      100  100  100   stay      0
            10     70   90   94    stay      0
            11     70   90   95    stay      0
            30     70   90   94    stay      0
            40     60   95   95    stay      0
            69     60   95   95    stay      0
            70     60   95   95    better-1  1
            100    100  90   100   stay      1
            669    100  90   100   stay      1
            670    -    90   100   stay      1
            680    ~90  90   100   stay      1
            690    79   90   100   stay      1
            700    80   90   100   return-0  0
            701    ~100 100  100   lagging-1 1
            702    ~100 ~100 100   lagging-2 2
            703    ~100 ~100 ~100  stay      2
            1400   100  100  100   stay      2
            1902   -    100  100   return-1  1
            1903   100  100  100   stay      1
            3102   100  100  100   return-0  0
            9000   ~0   100  100   lagging-1 1
            9599   100  100  100   stay      1
            9600   100  100  100   return-0  0";
        let start = Instant::now();
        let mut course = Course::new(start);
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now = start + Duration::from_secs(words[0].parse().unwrap());
            let standing = |word: &&str| Standing {
                usable: *word != "-",
                lagging: word.starts_with('~'),
                score: word.trim_start_matches('~').parse().unwrap_or(0),
            };
            let standings: Vec<Standing> = words[1..4].iter().map(standing).collect();
            let chosen = course.consider(&standings, now);
            let said = match chosen {
                None => "stay".to_owned(),
                Some(Move::Lagging { to }) => format!("lagging-{to}"),
                Some(Move::Better { to }) => format!("better-{to}"),
                Some(Move::Return { to }) => format!("return-{to}"),
            };
            assert_eq!(said, words[4], "{line}");
            if let Some(chosen) = chosen {
                let from = course.current();
                let switched = Switched::new(from.to_string(), chosen.to().to_string(), chosen.cause(), said, now);
                assert!(course.switch(from, chosen.to(), Some(chosen), switched), "{line}");
            }
            assert_eq!(course.current().to_string(), words[5], "{line}");
        }
    }

    #[tokio::test]
    async fn an_operation_that_began_before_a_switch_does_not_undo_it() {
        let now = Instant::now();
        let mut course = Course::new(now);
        let switched = || Switched::new("a".into(), "b".into(), SwitchCause::Failing, "why".into(), now);
        assert!(course.switch(0, 1, None, switched()));
        assert!(!course.switch(0, 2, None, switched()));
        assert_eq!((course.current(), course.switches(now).0), (1, BTreeMap::from([(SwitchCause::Failing, 1)])));
    }

    #[tokio::test]
    async fn only_the_newest_switches_are_kept_and_all_are_counted() {
        let start = Instant::now();
        let mut course = Course::new(start);
        for number in 0..100_usize {
            let (from, to) = (number % 2, (number + 1) % 2);
            let at = start + Duration::from_secs(number as u64);
            let cause = if number < 70 { SwitchCause::Failing } else { SwitchCause::Overdue };
            assert!(course.switch(from, to, None, Switched::new(from.to_string(), to.to_string(), cause, number.to_string(), at)));
        }
        let (totals, switches) = course.switches(start + Duration::from_secs(100));
        let expected = BTreeMap::from([(SwitchCause::Failing, 70), (SwitchCause::Overdue, 30)]);
        assert_eq!((totals, switches.len()), (expected, SWITCHES_KEPT));
        assert_eq!((switches[0].reason.as_str(), switches[0].age), ("99", Duration::from_secs(1)));
    }
}
