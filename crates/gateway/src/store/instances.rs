//! Several processes on one PostgreSQL database: who does what of the work that one at a time does,
//! and who works on which row of a queue. A SQLite file has one process, which does it all.
//!
//! Both are leases in time by the database's clock, the same for everybody. A duty also has a fence,
//! a number that counts up with every take-over: a process that was paused and believes that it
//! still holds a duty writes nothing, because [`Store::commit`] looks at the fence in the same
//! transaction.

use std::collections::HashSet;

use sqlx::{AnyConnection, Row as _};
use tidegate_rules::changes::Fence;
use tidegate_rules::time::Span;

use super::apply::Applied;
use super::rows::Found;
use super::{Commit, Engine, Store};

/// How long a claimed row is left alone, as long as the process that claimed it is there. Longer than
/// any one try takes.
const CLAIM: Span = Span::from_secs(120);

/// How long a process that is gone is remembered.
const GONE: Span = Span::from_secs(86_400);

/// Now, by the database's clock, in milliseconds.
const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// A queue whose rows are worked on one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Outgoing webhooks.
    Deliveries,
    /// Messages to people.
    Notices,
    /// Transactions that somebody named.
    Hints,
    /// What payment providers said.
    Inbox,
}

impl Queue {
    const fn table(self) -> &'static str {
        match self {
            Self::Deliveries => "payment_webhooks",
            Self::Notices => "payment_notifications",
            Self::Hints => "chain_hints",
            Self::Inbox => "webhook_inbox",
        }
    }

    /// What is true of a row that waits, at the database's time.
    fn waits(self) -> String {
        match self {
            Self::Deliveries | Self::Notices => format!("status = 'due' AND due_at <= {NOW} + {CLOCKS_DIFFER}"),
            Self::Hints => format!("done_at IS NULL AND due_at <= {NOW} + {CLOCKS_DIFFER}"),
            Self::Inbox => "handled_at IS NULL".to_owned(),
        }
    }
}

/// A row is due by the clock of a process and claimed by the database's; they may differ a little, in
/// milliseconds.
const CLOCKS_DIFFER: i64 = 2_000;

/// The duty that a process alone has: to be there. What it claimed is free once it is not renewed.
#[must_use]
pub fn presence(holder: &str) -> String {
    format!("{PRESENCE}{holder}")
}

/// Whose presence is renewed for longer than this is not there: it ended, and then the clock of the
/// database was set back.
const PRESENCE_MAX: Span = Span::from_secs(900);

/// What stands before the holder in the name of a presence.
const PRESENCE: &str = "process ";

/// What is true of a row that nobody who is there has claimed. `row` is what stands before its columns.
fn unclaimed(row: &str) -> String {
    format!(
        "({row}claimed_until IS NULL OR {row}claimed_until < {NOW} OR NOT EXISTS (SELECT 1 FROM duties d \
         WHERE d.name = '{PRESENCE}' || {row}claimed_by AND d.held_until BETWEEN {NOW} AND {NOW} + {}))",
        PRESENCE_MAX.millis()
    )
}

impl Store {
    /// Whether other processes may work on this database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.engine == Engine::Postgres
    }

    /// Takes or renews these duties for so long, as far as nobody else holds them. Nobody holds one for
    /// longer than a term: where it says so, the clock of the database was set back since. The fences of
    /// those that are held now.
    pub async fn take_duties(&self, duties: &[String], holder: &str, term: Span) -> Found<Vec<Fence>> {
        if duties.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<String> = (0..duties.len()).map(|index| format!("(${}, $1, 1, {NOW} + $2)", index.saturating_add(3))).collect();
        let sql = format!(
            "INSERT INTO duties (name, holder, fence, held_until) VALUES {} ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, \
             held_until = excluded.held_until, fence = duties.fence + CASE WHEN duties.holder = excluded.holder THEN 0 ELSE 1 END \
             WHERE duties.holder = excluded.holder OR duties.held_until < {NOW} OR duties.held_until > {NOW} + 2 * $2 RETURNING name, fence",
            rows.join(", ")
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(holder).bind(i64::try_from(term.millis()).unwrap_or(i64::MAX));
        let rows = duties.iter().fold(query, |query, duty| query.bind(duty)).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(Fence { duty: row.try_get("name")?, number: row.try_get("fence")? })).collect()
    }

    /// Gives up every duty of this holder, and with its presence what it has claimed, so that others can
    /// take all of it at once.
    pub async fn leave_duties(&self, holder: &str) -> Found<()> {
        sqlx::query("DELETE FROM duties WHERE name = $1").bind(presence(holder)).execute(&self.readers).await?;
        sqlx::query("UPDATE duties SET held_until = 0 WHERE holder = $1").bind(holder).execute(&self.readers).await?;
        Ok(())
    }

    /// Forgets the processes that are long gone.
    pub(super) async fn forget_processes(&self) -> Found<()> {
        if self.is_shared() {
            let sql = format!("DELETE FROM duties WHERE name LIKE '{PRESENCE}%' AND held_until < {NOW} - {}", GONE.millis());
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&self.readers).await?;
        }
        Ok(())
    }

    /// Claims those of these rows that wait and that nobody else has claimed, and says which: none, as
    /// long as the presence of this process is not known. Where no other process can be, all of them.
    pub async fn claim(&self, queue: Queue, ids: &[String], holder: &str) -> Found<HashSet<String>> {
        if !self.is_shared() || ids.is_empty() {
            return Ok(ids.iter().cloned().collect());
        }
        let (table, waits, unclaimed) = (queue.table(), queue.waits(), unclaimed(""));
        let places: Vec<String> = (0..ids.len()).map(|index| format!("${}", index.saturating_add(2))).collect();
        let sql = format!(
            "UPDATE {table} SET claimed_by = $1, claimed_until = {NOW} + {} WHERE id IN (SELECT id FROM {table} WHERE id IN ({}) AND {waits} \
             AND {unclaimed} AND EXISTS (SELECT 1 FROM duties p WHERE p.name = '{PRESENCE}' || $1 AND p.held_until >= {NOW}) \
             FOR UPDATE SKIP LOCKED) RETURNING id",
            CLAIM.millis(),
            places.join(", ")
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(holder);
        let rows = ids.iter().fold(query, |query, id| query.bind(id)).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }
}

/// Leaves out the deliveries that another process works on. The claim itself decides; this spares
/// asking for what would not be given.
pub(super) fn unclaimed_deliveries() -> String {
    format!(" AND {}", unclaimed("w."))
}

/// The text that a claim has in the database: of none, nothing.
pub(super) fn claim_text(claim: Option<&str>) -> &str {
    claim.unwrap_or_default()
}

/// Holds the fence for the length of a transaction: whoever wants to take the duty over waits, and
/// who has taken it over ends this one.
pub(super) async fn pass(db: &mut AnyConnection, engine: Engine, fence: &Fence) -> Applied {
    if engine == Engine::Sqlite {
        return Ok(Commit::Done);
    }
    let held = sqlx::query("SELECT fence FROM duties WHERE name = $1 AND fence = $2 FOR SHARE")
        .bind(&fence.duty)
        .bind(fence.number)
        .fetch_optional(db)
        .await?;
    Ok(if held.is_some() { Commit::Done } else { Commit::Conflict })
}
