//! How long a membership lasts: what a paid order adds to it.

use crate::time::{Span, Time};

/// The longest a plan may run, in days: ten years.
pub const DURATION_DAYS_MAX: u32 = 3_650;

/// From when to when an order that is paid now makes a membership. It begins where what the user
/// has already ends, so that nobody loses days by paying early; a gap before it stays a gap.
///
/// - `lasts_until`: the end of what the user has of this plan, be it in the past.
#[must_use]
pub fn period(paid_at: Time, lasts_until: Option<Time>, duration_days: u32) -> (Time, Time) {
    let starts_at = lasts_until.map_or(paid_at, |until| until.max(paid_at));
    (starts_at, starts_at.plus(Span::from_secs(u64::from(duration_days).saturating_mul(86_400))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paid at, the end of what there is, days; from when to when. In days.
    #[test]
    fn a_period_follows_what_there_is_and_never_begins_in_the_past() {
        let table = "
            10  -   30  10 40
            10  10  30  10 40
            10  9   30  10 40
            10  25  30  25 55
            10  400 1   400 401";
        let day = |text: &str| Time::from_secs(text.parse::<i64>().unwrap() * 86_400);
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let until = (cells[1] != "-").then(|| day(cells[1]));
            assert_eq!(period(day(cells[0]), until, cells[2].parse().unwrap()), (day(cells[3]), day(cells[4])), "{line}");
        }
    }
}
