//! What was asked, what came back and how long it took. Times are kept in buckets no wider than a
//! thirty-second of their value, so a long run takes no more memory than a short one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

/// What visitors, shops and payers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `POST /api/v1/orders`.
    Create,
    /// The same again with the same idempotency key.
    CreateAgain,
    /// `GET /pay/{id}`.
    Checkout,
    /// `POST /pay/{id}/options`.
    Choose,
    /// `GET /pay/{id}/events`, until its first event.
    Stream,
    /// `GET /api/v1/orders/{id}`.
    Read,
    /// `GET /api/v1/orders?…`.
    List,
    /// `GET /api/v1/events`.
    Events,
    /// `POST /api/v1/orders/{id}/cancel`.
    Cancel,
    /// `POST /pay/{id}/sandbox`: the pay panel of the sandbox.
    Panel,
    /// A webhook: from the time of its event until the shop has it.
    Webhook,
}

impl Call {
    /// What people read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create order",
            Self::CreateAgain => "create again",
            Self::Checkout => "checkout page",
            Self::Choose => "choose network",
            Self::Stream => "page stream",
            Self::Read => "read order",
            Self::List => "list orders",
            Self::Events => "list events",
            Self::Cancel => "cancel order",
            Self::Panel => "sandbox pays",
            Self::Webhook => "webhook heard",
        }
    }
}

/// Times below this many microseconds have a bucket each.
const EXACT_BELOW_US: u64 = 64;

/// How many buckets each doubling of the time has.
const BUCKETS_PER_DOUBLING: u64 = 32;

/// How times are spread.
#[derive(Clone, Default)]
pub struct Spread {
    buckets: BTreeMap<u64, u64>,
    count: u64,
    max_us: u64,
}

impl Spread {
    /// Notes a time.
    pub fn add(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        *self.buckets.entry(bucket_top(us)).or_default() += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The time in microseconds that so many of a hundred did not exceed, rounded up to its bucket.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> u64 {
        let wanted = self.count.saturating_mul(percent).div_ceil(100);
        let mut seen = 0;
        for (top, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return (*top).min(self.max_us);
            }
        }
        self.max_us
    }
}

/// The largest time that shares a bucket with this one.
fn bucket_top(us: u64) -> u64 {
    if us < EXACT_BELOW_US {
        return us;
    }
    let width = 1_u64 << (us.ilog2() - BUCKETS_PER_DOUBLING.ilog2());
    (us / width).saturating_mul(width).saturating_add(width - 1)
}

/// How one call did.
#[derive(Clone, Default)]
struct Row {
    times: Spread,
    /// By status and, where something is refused, by the `code` of the problem.
    answers: BTreeMap<(u16, String), u64>,
    broken: u64,
}

/// How all calls did. The lock is held for a few instructions and never while anything waits.
#[derive(Default)]
pub struct Tally {
    rows: Mutex<BTreeMap<Call, Row>>,
}

impl Tally {
    fn rows(&self) -> std::sync::MutexGuard<'_, BTreeMap<Call, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an answer.
    pub fn answered(&self, call: Call, status: u16, took: Duration) {
        self.refused(call, status, "", took);
    }

    /// Notes an answer that has the `code` of a problem.
    pub fn refused(&self, call: Call, status: u16, code: &str, took: Duration) {
        let mut rows = self.rows();
        let row = rows.entry(call).or_default();
        row.times.add(took);
        *row.answers.entry((status, code.to_owned())).or_default() += 1;
    }

    /// Notes that no answer came.
    pub fn broke(&self, call: Call, took: Duration) {
        let mut rows = self.rows();
        let row = rows.entry(call).or_default();
        row.times.add(took);
        row.broken += 1;
    }

    /// How many calls were answered with 5xx, and how many not at all.
    #[must_use]
    pub fn failures(&self) -> (u64, u64) {
        let rows = self.rows();
        let all = rows.values().flat_map(|row| &row.answers);
        let server_errors = all.filter(|((status, _), _)| *status >= 500).map(|(_, count)| count).sum();
        (server_errors, rows.values().map(|row| row.broken).sum())
    }

    /// One line for each call, for people.
    #[must_use]
    pub fn table(&self, over: Duration) -> String {
        let mut text = format!(
            "  {:<15} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}   answers\n",
            "call", "count", "per s", "p50 ms", "p95 ms", "p99 ms", "max ms"
        );
        for (call, row) in self.rows().iter() {
            let mut answers: Vec<String> = row.answers.iter().map(|(answer, count)| format!("{count}×{}", named(answer))).collect();
            if row.broken > 0 {
                answers.push(format!("{} without an answer", row.broken));
            }
            let [p50, p95, p99] = [50, 95, 99].map(|percent| ms(row.times.percentile_us(percent)));
            text.push_str(&format!(
                "  {:<15} {:>8} {:>8} {p50:>9} {p95:>9} {p99:>9} {:>9}   {}\n",
                call.name(),
                row.times.count,
                per_second(row.times.count, over),
                ms(row.times.max_us),
                answers.join(", ")
            ));
        }
        text
    }

    /// The same for machines.
    #[must_use]
    pub fn json(&self, over: Duration) -> Value {
        let row = |(call, row): (&Call, &Row)| {
            json!({
                "call": call.name(), "count": row.times.count, "per_second": per_second(row.times.count, over),
                "p50_us": row.times.percentile_us(50), "p95_us": row.times.percentile_us(95),
                "p99_us": row.times.percentile_us(99), "max_us": row.times.max_us,
                "answers": row.answers.iter().map(|(answer, count)| (named(answer), json!(count))).collect::<serde_json::Map<_, _>>(),
                "broken": row.broken,
            })
        };
        self.rows().iter().map(row).collect()
    }
}

/// `200`, or `503 busy`.
fn named((status, code): &(u16, String)) -> String {
    format!("{status} {code}").trim_end().to_owned()
}

/// Microseconds as milliseconds with one digit behind the point.
#[must_use]
pub fn ms(us: u64) -> String {
    tenths(us.div_ceil(100))
}

/// How many a second, with one digit behind the point.
#[must_use]
pub fn per_second(count: u64, over: Duration) -> String {
    let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX).max(1);
    tenths(count.saturating_mul(10_000) / over_ms)
}

fn tenths(number: u64) -> String {
    format!("{}.{}", number / 10, number % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_thirty_second() {
        let mut spread = Spread::default();
        for us in 1..=100_000 {
            spread.add(Duration::from_micros(us));
        }
        for (percent, exact) in [(50, 50_000), (95, 95_000), (99, 99_000), (100, 100_000)] {
            let found = spread.percentile_us(percent);
            assert!((exact..=exact + exact / 32).contains(&found), "p{percent}: {found}, exactly {exact}");
        }
        assert!(spread.buckets.len() < 500, "{} buckets", spread.buckets.len());
    }

    #[test]
    fn a_server_error_and_a_broken_connection_are_failures() {
        let tally = Tally::default();
        for status in [200, 404, 500] {
            tally.answered(Call::Read, status, Duration::from_millis(1));
        }
        tally.refused(Call::Read, 503, "busy", Duration::from_millis(1));
        tally.broke(Call::Create, Duration::from_secs(1));
        assert_eq!(tally.failures(), (2, 1));
        assert!(tally.table(Duration::from_secs(2)).contains("1×503 busy"));
    }
}
