//! Rows that are old enough to leave: snapshots of balances, and webhooks that are done with their
//! tries. They go to a file first where the operator wants one, and are deleted after that.
//!
//! A row is deleted only as it was written: what was changed in between stays for the next round. A
//! file is whole and on the disk before its rows are deleted; one that is left of a round that was
//! killed is written again, by the same name, for its first row is still the oldest. Money never
//! leaves: orders, transfers, the journal, events and leases are no business of this file.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};
use sqlx::any::{AnyRow, AnyTypeInfoKind};
use sqlx::{AnyConnection, AssertSqlSafe, Column as _, Connection as _, Row as _, TypeInfo as _, ValueRef as _};
use tidegate_rules::id::DeliveryId;
use tidegate_rules::time::Time;

use super::{Store, StoreError};
use crate::archive;

/// How many rows leave together: one file, one transaction, which others wait for.
pub const LEAVE_ROWS: usize = 2_000;

/// How many values one `IN (…)` holds.
const IN_MAX: usize = 500;

/// What may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// What wallets held.
    Balances,
    /// Webhooks that were delivered or given up, and that nobody wants to be sent again.
    Webhooks,
    /// The tries of webhooks that have left.
    Attempts,
}

impl Leaving {
    /// All, in the order in which they must leave: a try is kept as long as its webhook.
    pub const ALL: [Self; 3] = [Self::Balances, Self::Webhooks, Self::Attempts];

    /// The table.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Balances => "wallet_balances",
            Self::Webhooks => "payment_webhooks",
            Self::Attempts => "webhook_attempts",
        }
    }

    /// The key, of one or two columns.
    const fn key(self) -> &'static [&'static str] {
        match self {
            Self::Balances => &["id"],
            Self::Webhooks => &["id"],
            Self::Attempts => &["delivery_id", "number"],
        }
    }

    /// Which rows, with the one value that it needs.
    fn condition(self, before: Time) -> (&'static str, Bound) {
        // An id begins with the time of its event.
        let id = || Bound::Text(DeliveryId::new(before, [0; 10]).to_string());
        match self {
            Self::Balances => ("taken_at < $1", Bound::Number(before.millis())),
            Self::Webhooks => ("id < $1 AND status IN ('delivered', 'failed') AND before_status IS NULL", id()),
            Self::Attempts => {
                ("delivery_id < $1 AND NOT EXISTS (SELECT 1 FROM payment_webhooks w WHERE w.id = webhook_attempts.delivery_id)", id())
            }
        }
    }

    const fn order(self) -> &'static str {
        match self {
            Self::Balances => "taken_at, id",
            Self::Webhooks => "id",
            Self::Attempts => "delivery_id, number",
        }
    }
}

enum Bound {
    Text(String),
    Number(i64),
}

/// A row as it goes to the file.
fn object(row: &AnyRow) -> Result<Value, StoreError> {
    let mut object = Map::new();
    for column in row.columns() {
        let place = column.ordinal();
        let raw = row.try_get_raw(place)?;
        let kind = raw.type_info().into_owned();
        let value = if raw.is_null() {
            Value::Null
        } else {
            match kind.kind() {
                AnyTypeInfoKind::BigInt | AnyTypeInfoKind::Integer | AnyTypeInfoKind::SmallInt => row.try_get::<i64, _>(place)?.into(),
                AnyTypeInfoKind::Text => row.try_get::<String, _>(place)?.into(),
                _ => return Err(StoreError::corrupt("a column of a kind that is not known", kind.name())),
            }
        };
        object.insert(column.name().to_owned(), value);
    }
    Ok(Value::Object(object))
}

impl Store {
    /// Lets the oldest rows of a kind leave that are older than `before`, at most [`LEAVE_ROWS`]: to a
    /// file below `dir`, if there is one, and out of the database. How many left; fewer than that
    /// means that no more are old enough.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer or the file cannot be written; nothing was
    /// deleted then.
    pub async fn let_leave(&self, what: Leaving, before: Time, dir: Option<&Path>, now: Time) -> Result<usize, StoreError> {
        let rows = self.oldest(what, before).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let file = match dir {
            None => None,
            Some(dir) => {
                let name = file_name(what, &rows);
                let (dir, rows) = (dir.to_owned(), rows.clone());
                let (path, table) = (name.clone(), what.table());
                let written = tokio::task::spawn_blocking(move || archive::write(&dir, &path, &rows)).await;
                let digest = written.map_err(std::io::Error::other).and_then(|written| written);
                let digest = digest.map_err(|error| {
                    StoreError::Open(format!(
                        "the archive of {table} cannot be written: {error}; nothing was deleted, look at retention.archive_dir"
                    ))
                })?;
                Some((name, digest))
            }
        };
        let mut connection = self.readers.acquire().await?;
        let mut transaction = connection.begin().await?;
        let deleted = delete(&mut transaction, what, before, &rows).await?;
        let expected: HashSet<String> = rows.iter().map(Value::to_string).collect();
        if deleted != expected {
            // Somebody changed one of them since they were read.
            transaction.rollback().await?;
            return Ok(rows.len());
        }
        if let Some((name, digest)) = file {
            sqlx::query(
                "INSERT INTO archives (file, table_name, row_count, sha256, made_at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (file) DO UPDATE SET row_count = excluded.row_count, sha256 = excluded.sha256, made_at = excluded.made_at",
            )
            .bind(name)
            .bind(what.table())
            .bind(i64::try_from(rows.len()).unwrap_or(i64::MAX))
            .bind(digest)
            .bind(now.millis())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(rows.len())
    }

    async fn oldest(&self, what: Leaving, before: Time) -> Result<Vec<Value>, StoreError> {
        let (condition, bound) = what.condition(before);
        let text = format!("SELECT * FROM {} WHERE {condition} ORDER BY {} LIMIT {LEAVE_ROWS}", what.table(), what.order());
        let query = sqlx::query(AssertSqlSafe(text));
        let query = match bound {
            Bound::Text(text) => query.bind(text),
            Bound::Number(number) => query.bind(number),
        };
        query.fetch_all(&self.readers).await?.iter().map(object).collect()
    }
}

/// Deletes these rows, if they still may leave. What was deleted, as it was.
async fn delete(db: &mut AnyConnection, what: Leaving, before: Time, rows: &[Value]) -> Result<HashSet<String>, StoreError> {
    let mut deleted = HashSet::with_capacity(rows.len());
    for chunk in rows.chunks(IN_MAX) {
        let (condition, bound) = what.condition(before);
        let mut place: usize = 1;
        let mut tuple = || {
            let cells: Vec<String> = what
                .key()
                .iter()
                .map(|column| {
                    place = place.saturating_add(1);
                    let kind = if *column == "number" { "BIGINT" } else { "TEXT" };
                    format!("CAST(${place} AS {kind})")
                })
                .collect();
            format!("({})", cells.join(", "))
        };
        let tuples: Vec<String> = chunk.iter().map(|_| tuple()).collect();
        let tuples = if what.key().len() == 1 { tuples.join(", ") } else { format!("VALUES {}", tuples.join(", ")) };
        let text = format!("DELETE FROM {} WHERE {condition} AND ({}) IN ({tuples}) RETURNING *", what.table(), what.key().join(", "));
        let mut query = sqlx::query(AssertSqlSafe(text));
        query = match bound {
            Bound::Text(text) => query.bind(text),
            Bound::Number(number) => query.bind(number),
        };
        for value in chunk.iter().flat_map(|row| what.key().iter().filter_map(|column| row.get(*column))) {
            query = match value.as_i64() {
                Some(number) => query.bind(number),
                None => query.bind(value.as_str().unwrap_or_default().to_owned()),
            };
        }
        for row in query.fetch_all(&mut *db).await? {
            deleted.insert(object(&row)?.to_string());
        }
    }
    Ok(deleted)
}

/// `payment_webhooks/whd_….jsonl.gz`: after the first row, so that a round that is repeated writes the
/// same file.
fn file_name(what: Leaving, rows: &[Value]) -> String {
    let part = |column: &&str| match rows.first().and_then(|row| row.get(*column)) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let key = what.key().iter().map(part).collect::<Vec<_>>().join("-");
    let safe: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' }).collect();
    format!("{}/{safe}.jsonl.gz", what.table())
}
