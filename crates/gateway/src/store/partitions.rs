//! The tables of PostgreSQL that are divided by time: transfers by month, balances by week, webhooks
//! by day. On SQLite they are one each.
//!
//! Transfers and webhooks are divided by the id, which begins with the time of its making, so that a
//! row that is looked for by its id is in one partition and the database knows which (ADR 0017). What
//! must be there once for ever (`transfer_keys`, `events`) is not divided. A default partition takes
//! what no other does, so that no row is ever refused; the next round moves it where it belongs.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tidegate_rules::id::{DeliveryId, TransferId};
use tidegate_rules::time::Time;

use super::{Engine, Store, StoreError};

/// Held by whoever makes or takes away partitions (any number will do).
const PARTITIONS_LOCK: i64 = 0x7469_6465_7061_7274;

/// How a table is divided.
struct Division {
    table: &'static str,
    column: &'static str,
    /// What stands before the time in the column, in hex; without it the column is the time.
    prefix: Option<&'static str>,
    period: Period,
    /// How many partitions there are for the time to come.
    ahead: i32,
    /// What the primary key is.
    key: &'static str,
}

#[derive(Clone, Copy)]
enum Period {
    Month,
    Week,
    Day,
}

const DIVISIONS: [Division; 3] = [
    Division {
        table: "blockchain_transactions",
        column: "id",
        prefix: Some(TransferId::PREFIX),
        period: Period::Month,
        ahead: 2,
        key: "id",
    },
    Division { table: "wallet_balances", column: "taken_at", prefix: None, period: Period::Week, ahead: 4, key: "id, taken_at" },
    Division { table: "payment_webhooks", column: "id", prefix: Some(DeliveryId::PREFIX), period: Period::Day, ahead: 7, key: "id" },
];

impl Period {
    /// The day on which the period of this time begins, and so many periods later.
    fn start(self, at: Time, later: i32) -> Option<Date> {
        let day = Timestamp::from_millisecond(at.millis()).ok()?.to_zoned(TimeZone::UTC).date();
        match self {
            Self::Month => day.first_of_month().checked_add(later.months()).ok(),
            Self::Week => {
                let since_monday = day.weekday().since(Weekday::Monday);
                day.checked_sub(i32::from(since_monday).days()).ok()?.checked_add(later.weeks()).ok()
            }
            Self::Day => day.checked_add(later.days()).ok(),
        }
    }
}

impl Division {
    /// The value of the column at the beginning of a day, as it stands in SQL and in the catalogue.
    fn bound(&self, day: Date) -> Option<String> {
        let millis = day.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
        Some(match self.prefix {
            Some(prefix) => format!("'{prefix}{millis:012x}'"),
            None => format!("'{millis}'"),
        })
    }

    fn name(&self, day: Date) -> String {
        match self.period {
            Period::Month => format!("{}_{:04}_{:02}", self.table, day.year(), day.month()),
            Period::Week | Period::Day => format!("{}_{:04}_{:02}_{:02}", self.table, day.year(), day.month(), day.day()),
        }
    }
}

/// A partition, and where it ends: as [`Division::bound`]; `None` for the default one.
struct Partition {
    name: String,
    end: Option<String>,
}

/// Divides the tables of a database that was not: what there is becomes the first partition as it is,
/// with its indexes, and no row is copied.
pub(super) async fn divide(db: &mut AnyConnection, now: Time) -> Result<(), StoreError> {
    // It stands on one of the tables, and is made again as it was.
    let view: String = sqlx::query_scalar("SELECT pg_get_viewdef(CAST('recent_transactions' AS regclass))").fetch_one(&mut *db).await?;
    run(db, "DROP VIEW recent_transactions").await?;
    for division in &DIVISIONS {
        divide_table(db, division, now).await?;
    }
    run(db, &format!("CREATE VIEW recent_transactions AS {view}")).await?;
    // Tries are looked for by the id of their delivery: both must be in the same order.
    run(db, "ALTER TABLE webhook_attempts ALTER COLUMN delivery_id TYPE TEXT COLLATE \"C\"").await
}

async fn run(db: &mut AnyConnection, text: &str) -> Result<(), StoreError> {
    db.execute(AssertSqlSafe(text.to_owned())).await?;
    Ok(())
}

async fn divide_table(db: &mut AnyConnection, division: &Division, now: Time) -> Result<(), StoreError> {
    let Division { table, column, key, .. } = division;
    let first = format!("{table}_before");
    let rows = sqlx::query(
        "SELECT CAST(c.relname AS TEXT) AS name, pg_get_indexdef(i.indexrelid) AS text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         WHERE i.indrelid = CAST(CAST($1 AS TEXT) AS regclass) AND NOT i.indisprimary ORDER BY c.relname",
    )
    .bind(*table)
    .fetch_all(&mut *db)
    .await?;
    // Ids are compared byte by byte, whatever the language of the database.
    if division.prefix.is_some() {
        run(db, &format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE TEXT COLLATE \"C\"")).await?;
    }
    run(db, &format!("ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")).await?;
    let mut indexes = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = row.try_get("name")?;
        run(db, &format!("ALTER INDEX {name} RENAME TO {name}_before")).await?;
        indexes.push(row.try_get::<String, _>("text")?);
    }
    run(db, &format!("ALTER TABLE {table} RENAME TO {first}")).await?;
    run(db, &format!("ALTER TABLE {first} ADD PRIMARY KEY ({key})")).await?;
    run(db, &format!("CREATE TABLE {table} (LIKE {first} INCLUDING DEFAULTS) PARTITION BY RANGE ({column})")).await?;
    run(db, &format!("ALTER TABLE {table} ADD PRIMARY KEY ({key})")).await?;
    for text in indexes {
        run(db, &text).await?;
    }
    run(db, &format!("CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")).await?;
    let end = division.period.start(now, 1).and_then(|day| division.bound(day)).ok_or_else(no_such_time)?;
    // What a clock that was ahead has dated later does not belong into the first.
    run(db, &format!("WITH later AS (DELETE FROM {first} WHERE {column} >= {end} RETURNING *) INSERT INTO {table} SELECT * FROM later"))
        .await?;
    run(db, &format!("ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ({end})")).await?;
    make_ahead(db, division, now).await
}

fn no_such_time() -> StoreError {
    StoreError::Open("the clock of this machine shows a year that no calendar has: set it".to_owned())
}

async fn partitions(db: &mut AnyConnection, division: &Division) -> Result<Vec<Partition>, StoreError> {
    let rows = sqlx::query(
        "SELECT CAST(c.relname AS TEXT) AS name, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = CAST(CAST($1 AS TEXT) AS regclass) ORDER BY c.relname",
    )
    .bind(division.table)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let bound: String = row.try_get("bound")?;
            let end = bound.rsplit_once("TO (").map(|(_, end)| end.trim_end_matches(')').to_owned());
            Ok(Partition { name: row.try_get("name")?, end })
        })
        .collect()
}

/// Makes what is missing of the partitions of this period and of those to come.
async fn make_ahead(db: &mut AnyConnection, division: &Division, now: Time) -> Result<(), StoreError> {
    let there = partitions(db, division).await?;
    // All bounds of a table have the same length, so their texts are in their order.
    let first_end = there.iter().find(|partition| partition.name.ends_with("_before")).and_then(|partition| partition.end.clone());
    for later in 0..=division.ahead {
        let (Some(day), Some(next)) = (division.period.start(now, later), division.period.start(now, later.saturating_add(1))) else {
            continue;
        };
        let (Some(from), Some(to)) = (division.bound(day), division.bound(next)) else { continue };
        let name = division.name(day);
        if there.iter().any(|partition| partition.name == name) || first_end.as_ref().is_some_and(|end| from < *end) {
            continue;
        }
        let Division { table, column, .. } = division;
        run(db, &format!("CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS)")).await?;
        // So that no row that belongs into the new one comes after the others have been moved.
        run(db, &format!("LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE")).await?;
        run(
            db,
            &format!(
                "WITH found AS (DELETE FROM {table}_default WHERE {column} >= {from} AND {column} < {to} RETURNING *) INSERT INTO {name} SELECT * FROM found"
            ),
        )
        .await?;
        run(db, &format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})")).await?;
    }
    Ok(())
}

/// Takes away the partitions of times that are over and of which every row has left.
async fn take_away(db: &mut AnyConnection, division: &Division, now: Time) -> Result<(), StoreError> {
    let Some(over) = division.period.start(now, -1).and_then(|day| division.bound(day)) else { return Ok(()) };
    for Partition { name, end } in partitions(db, division).await? {
        if end.is_none_or(|end| end > over) || !is_empty(db, &name).await? {
            continue;
        }
        // In the order in which whoever reads takes them: the other way round each waits for the other.
        run(db, &format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", division.table)).await?;
        run(db, &format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")).await?;
        if is_empty(db, &name).await? {
            run(db, &format!("ALTER TABLE {} DETACH PARTITION {name}", division.table)).await?;
            run(db, &format!("DROP TABLE {name}")).await?;
            tracing::info!(partition = name, "an empty partition was taken away");
        }
    }
    Ok(())
}

async fn is_empty(db: &mut AnyConnection, name: &str) -> Result<bool, StoreError> {
    Ok(!sqlx::query_scalar::<_, bool>(AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 FROM {name})"))).fetch_one(db).await?)
}

/// What is done with a divided table.
#[derive(Clone, Copy)]
enum Work {
    MakeAhead,
    TakeAway,
}

impl Store {
    /// Makes the partitions of the time to come and takes away those that are over and empty. Nothing
    /// to do on SQLite. One table that somebody holds is left for the next round.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer, or a table was held for too long.
    pub async fn tend_partitions(&self, now: Time) -> Result<(), StoreError> {
        if self.engine == Engine::Sqlite {
            return Ok(());
        }
        let mut outcome = Ok(());
        let mut connection = self.readers.acquire().await?;
        // One after the other, each in a transaction of its own: they lock the parts of a table in
        // different orders.
        for (division, work) in DIVISIONS.iter().flat_map(|division| [(division, Work::MakeAhead), (division, Work::TakeAway)]) {
            let tended = async {
                let mut transaction = connection.begin().await?;
                // Whoever writes waits behind us while we wait for somebody else.
                transaction.execute("SET LOCAL lock_timeout = '2s'").await?;
                sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(PARTITIONS_LOCK).execute(&mut *transaction).await?;
                match work {
                    Work::MakeAhead => make_ahead(&mut transaction, division, now).await?,
                    Work::TakeAway => take_away(&mut transaction, division, now).await?,
                }
                transaction.commit().await?;
                Ok(())
            };
            outcome = outcome.and(tended.await);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_begins_with_its_month_week_or_day() {
        // Thursday, 31 December 2026, a moment before midnight.
        let now: Time = "2026-12-31T23:59:59.999Z".parse().unwrap();
        let [transfers, balances, webhooks] = &DIVISIONS;
        let begins = |division: &Division, later| {
            let day = division.period.start(now, later).unwrap();
            (division.name(day), division.bound(day).unwrap())
        };
        assert_eq!(begins(transfers, 0), ("blockchain_transactions_2026_12".into(), "'tx_01a22ee6b000'".into()));
        assert_eq!(begins(transfers, 2).0, "blockchain_transactions_2027_02");
        assert_eq!(begins(balances, 0), ("wallet_balances_2026_12_28".into(), "'1798416000000'".into()));
        assert_eq!(begins(balances, 1).0, "wallet_balances_2027_01_04");
        assert_eq!(begins(webhooks, 1).0, "payment_webhooks_2027_01_01");
        let id = TransferId::new("2026-12-01T00:00:00.000Z".parse().unwrap(), [0; 10]).to_string();
        assert!(format!("'{id}'") > begins(transfers, 0).1 && format!("'{id}'") < begins(transfers, 1).1);
    }
}
