//! The circuit breaker of one endpoint: closed while it works, open while it rests after a
//! failure, half open when the rest is over.
//!
//! Half open, one operation at a time may try it. Success closes the circuit, failure opens it for
//! longer: an endpoint that is barely back must not be met by everything that waited for it. What
//! was under way when the circuit opened has no say in it any more, except that it may lengthen
//! the rest when the endpoint asked for that.
//!
//! Pure bookkeeping: the time and the chance are arguments.

use std::time::Duration;

use tokio::time::Instant;

use super::{REST_FIRST, REST_MAX};

#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Openings since the last success.
    streak: u32,
    /// How often the circuit has opened: what an older ticket says is out of date.
    openings: u64,
    rest: Option<Rest>,
    /// An operation is trying the endpoint after its rest.
    trial: bool,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    permanent: bool,
}

/// The right to run one operation. It must be handed back by one of `served`, `failed` and `left`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    openings: u64,
    trial: bool,
}

/// Why an operation may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shut {
    /// How long the rest lasts; zero when it is over and another operation is the trial.
    pub(super) left: Duration,
    /// Only a change of configuration can mend what led to the rest.
    pub(super) permanent: bool,
}

/// What went wrong, as far as a rest depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// The least rest that this failure calls for.
    pub(super) asked: Duration,
    pub(super) permanent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open { left: Duration },
    HalfOpen,
}

impl Breaker {
    pub(super) fn phase(&self, now: Instant) -> Phase {
        match &self.rest {
            None => Phase::Closed,
            Some(rest) if rest.until > now => Phase::Open { left: rest.until.saturating_duration_since(now) },
            Some(_) => Phase::HalfOpen,
        }
    }

    /// Openings since the last success: failures in a row.
    pub(super) const fn streak(&self) -> u32 {
        self.streak
    }

    pub(super) fn enter(&mut self, now: Instant) -> Result<Ticket, Shut> {
        if let Some(rest) = &self.rest {
            let left = rest.until.saturating_duration_since(now);
            if !left.is_zero() || self.trial {
                return Err(Shut { left, permanent: rest.permanent });
            }
            self.trial = true;
        }
        Ok(Ticket { openings: self.openings, trial: self.trial })
    }

    pub(super) fn served(&mut self, ticket: Ticket) {
        if ticket.openings == self.openings {
            self.streak = 0;
            self.rest = None;
            self.trial = false;
        }
    }

    pub(super) fn failed(&mut self, ticket: Ticket, fault: Fault, jitter: u64, now: Instant) {
        // Operations that were under way together fail together; that is one failure, not many.
        let first = ticket.openings == self.openings;
        if first {
            self.openings = self.openings.saturating_add(1);
            self.streak = self.streak.saturating_add(1);
            self.trial = false;
        } else if fault.asked.is_zero() {
            return;
        }
        let rest = if first { backoff(self.streak, jitter).max(fault.asked) } else { fault.asked };
        let until = now.checked_add(rest).unwrap_or(now);
        if first || self.rest.as_ref().is_some_and(|rest| rest.until < until) {
            self.rest = Some(Rest { until, permanent: fault.permanent });
        }
    }

    /// The operation ended without a verdict: it was given up, or nobody was to blame.
    pub(super) fn left(&mut self, ticket: Ticket) {
        if ticket.trial && ticket.openings == self.openings {
            self.trial = false;
        }
    }
}

/// One, two, four … times the first rest, up to the most, and up to half of it more by chance, so
/// that many instances do not come back at one moment.
fn backoff(streak: u32, jitter: u64) -> Duration {
    let doublings = streak.saturating_sub(1).min(16);
    let base = REST_FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(REST_MAX);
    let half = u64::try_from(base.as_millis()).unwrap_or(u64::MAX).wrapping_div(2);
    let extra = jitter.checked_rem(half.saturating_add(1)).unwrap_or(0);
    base.saturating_add(Duration::from_millis(extra))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A life, a line a step: `<second> <what> <phase and streak after it>`. Operations have
    /// letters; an upper-case one is refused entry.
    #[tokio::test]
    async fn a_life_of_a_breaker() {
        let table = "
            0   enter a     closed 0
            0   enter b     closed 0
            0   served a    closed 0
            0   enter c     closed 0
            1   failed b    open-1 1
            1   enter D     open-1 1
            1   failed c    open-1 1
            2   enter e     half-open 1
            2   enter F     half-open 1
            2   left e      half-open 1
            2   enter g     half-open 1
            2   failed g    open-2 2
            3   served c    open-1 2
            4   enter h     half-open 2
            4   asked-30 c  open-30 2
            5   asked-9 c   open-29 2
            34  enter I     half-open 2
            34  left h      half-open 2
            34  enter j     half-open 2
            34  enter J     half-open 2
            34  served j    closed 0
            34  enter k     closed 0
            34  asked-5 k   open-5 1
            39  enter l     half-open 1
            39  asked-1 l   open-2 2";
        let start = Instant::now();
        let mut breaker = Breaker::default();
        let mut tickets = std::collections::HashMap::new();
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now = start + Duration::from_secs(words[0].parse().unwrap());
            let letter = words[2];
            let fault = |asked: u64| Fault { asked: Duration::from_secs(asked), permanent: false };
            match words[1].split_once('-').unwrap_or((words[1], "0")) {
                ("enter", _) => match breaker.enter(now) {
                    Ok(ticket) => assert!(tickets.insert(letter, ticket).is_none() && letter == letter.to_lowercase(), "{line}"),
                    Err(_) => assert_eq!(letter, letter.to_uppercase(), "{line}"),
                },
                ("served", _) => breaker.served(tickets[letter]),
                ("left", _) => breaker.left(tickets[letter]),
                (_, asked) => breaker.failed(tickets[letter], fault(asked.parse().unwrap()), 0, now),
            }
            let phase = match breaker.phase(now) {
                Phase::Closed => "closed".to_owned(),
                Phase::Open { left } => format!("open-{}", left.as_secs()),
                Phase::HalfOpen => "half-open".to_owned(),
            };
            assert_eq!((phase.as_str(), breaker.streak().to_string().as_str()), (words[3], words[4]), "{line}");
        }
    }
}
