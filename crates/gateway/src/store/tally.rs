//! How many there are of what somebody has to wait for, or look after: for the metrics.
//!
//! Each figure is found through an index by what is open, so that counting costs as much as there is
//! open, with a thousand orders stored and with a million. Orders that are done with are not counted
//! here: they are counted as they are done, by their events.

use sqlx::{AssertSqlSafe, Row as _};

use super::Store;
use super::rows::Found;

/// What is counted, and the statement that counts it. Each gives the same four columns: what it is,
/// two labels, how many, and since when the oldest waits (milliseconds since 1970).
pub const COUNTS: [&str; 9] = [
    "SELECT 'orders' AS what, status AS label, '' AS label2, COUNT(*) AS n, CAST(NULL AS BIGINT) AS oldest \
     FROM usdt_payment_orders WHERE status IN ('pending', 'confirming') GROUP BY status",
    "SELECT 'queue', 'webhooks', '', COUNT(*), MIN(due_at) FROM payment_webhooks WHERE status = 'due'",
    "SELECT 'queue', 'notifications', '', COUNT(*), MIN(due_at) FROM payment_notifications WHERE status = 'due'",
    "SELECT 'queue', 'payment_webhooks', '', COUNT(*), MIN(received_at) FROM webhook_inbox WHERE handled_at IS NULL",
    "SELECT 'queue', 'hints', '', COUNT(*), MIN(due_at) FROM chain_hints WHERE done_at IS NULL",
    "SELECT 'alerts', kind, status, COUNT(*), CAST(NULL AS BIGINT) FROM alerts WHERE status IN ('open', 'acknowledged') GROUP BY kind, status",
    "SELECT 'unmatched', disposition, '', COUNT(*), CAST(NULL AS BIGINT) FROM blockchain_transactions \
     WHERE disposition IN ('late', 'stray', 'unreadable') GROUP BY disposition",
    "SELECT 'unsettled', network, '', COUNT(*), CAST(NULL AS BIGINT) FROM blockchain_transactions WHERE status = 'pending' GROUP BY network",
    "SELECT 'events', '', '', COALESCE(MAX(seq), 0), CAST(NULL AS BIGINT) FROM events",
];

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The first column of [`COUNTS`].
    pub what: String,
    /// A status, a kind, a network or the name of a queue.
    pub label: String,
    /// The status of an alert; else empty.
    pub label2: String,
    /// How many.
    pub n: i64,
    /// Since when the oldest waits, or from when on the next one is due: milliseconds since 1970.
    pub oldest: Option<i64>,
}

/// The statement that counts everything at once.
#[must_use]
pub fn statement() -> String {
    COUNTS.join(" UNION ALL ")
}

impl Store {
    /// How many there are of everything that is open?
    pub async fn tally(&self) -> Found<Vec<Count>> {
        let rows = sqlx::query(AssertSqlSafe(statement())).fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                Ok(Count {
                    what: row.try_get("what")?,
                    label: row.try_get("label")?,
                    label2: row.try_get("label2")?,
                    n: row.try_get("n")?,
                    oldest: row.try_get("oldest")?,
                })
            })
            .collect()
    }

    /// Connections that are open, how many of them are free, and how many there may be.
    #[must_use]
    pub fn connections(&self) -> (u32, usize, u32) {
        (self.readers.size(), self.readers.num_idle(), self.readers.options().get_max_connections())
    }
}
