//! What is asked about chains beside payments: balances and jobs.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Hash, Network};
use tidegate_rules::books::{self, Difference};
use tidegate_rules::id::{JobId, WalletId};
use tidegate_rules::time::Time;

use super::Store;
use super::read::{IN_MAX, Where};
use super::rows::{Found, WalletRow, named, network, number, parse, parse_some, small, time, wallet};

/// What a wallet held once.
#[derive(Clone, Debug)]
pub struct BalanceRow {
    /// The wallet.
    pub wallet: WalletId,
    /// Base units.
    pub value: Raw,
    /// The block that it was read at.
    pub block: u64,
    /// What came by our records up to that block, and what went to another wallet of ours.
    pub records: Option<(Raw, Raw)>,
    /// When.
    pub taken_at: Time,
}

impl BalanceRow {
    /// How the chain differed from the records, where they could be compared.
    #[must_use]
    pub fn difference(&self) -> Option<Difference> {
        self.records.map(|(incoming, outgoing)| books::difference(incoming, outgoing, self.value))
    }
}

/// Long work, and how far it is.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: String,
    /// Whether it runs.
    pub status: JobStatus,
    /// How much is done.
    pub done: u64,
    /// Of how much.
    pub total: u64,
    /// What came of it, as a JSON object.
    pub detail: String,
    /// Since when.
    pub created_at: Time,
    /// When it last said something.
    pub changed_at: Time,
}

/// Whether a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// It does, or its process ended before it did.
    Running,
    /// It is done.
    Done,
    /// It ended before it was done.
    Failed,
}

impl JobStatus {
    /// The word in the API and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Running, Self::Done, Self::Failed].into_iter().find(|status| status.name() == name)
    }
}

/// A transaction that somebody named.
#[derive(Clone, Debug)]
pub struct HintRow {
    /// Its id: network and hash.
    pub id: String,
    /// Where.
    pub network: Network,
    /// Its hash.
    pub hash: Hash,
    /// How often it was looked for.
    pub tries: u32,
}

fn balance(row: &AnyRow) -> Found<BalanceRow> {
    let records = match (parse_some(row, "incoming")?, parse_some(row, "outgoing")?) {
        (Some(incoming), Some(outgoing)) => Some((incoming, outgoing)),
        _ => None,
    };
    Ok(BalanceRow {
        wallet: parse(row, "wallet_id")?,
        value: parse(row, "raw_value")?,
        block: number(row, "block_number")?,
        records,
        taken_at: time(row, "taken_at")?,
    })
}

fn job(row: &AnyRow) -> Found<JobRow> {
    Ok(JobRow {
        id: parse(row, "id")?,
        kind: row.try_get("kind")?,
        status: named(row, "status", JobStatus::from_name)?,
        done: number(row, "done")?,
        total: number(row, "total")?,
        detail: row.try_get("detail")?,
        created_at: time(row, "created_at")?,
        changed_at: time(row, "changed_at")?,
    })
}

/// Wallets that may hold something: those that were paid to, and those that may have a past.
const MAY_HOLD: &str = "(paid_at IS NOT NULL OR kind <> 'random')";

impl Store {
    /// Which block was applied last?
    pub async fn tip(&self, name: &Network) -> Found<Option<u64>> {
        let row = sqlx::query("SELECT tip FROM networks WHERE name = $1").bind(name.as_str()).fetch_optional(&self.readers).await?;
        row.map(|row| number(&row, "tip")).transpose()
    }

    /// The next wallets that may hold something, oldest first.
    pub async fn wallets_to_ask(&self, name: &Network, after: Option<WalletId>, limit: i64) -> Found<Vec<WalletRow>> {
        let sql = format!("SELECT * FROM usdt_wallets WHERE network = $1 AND id > $2 AND {MAY_HOLD} ORDER BY id LIMIT $3");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(name.as_str())
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(wallet).collect()
    }

    /// How many wallets may hold something?
    pub async fn count_to_ask(&self, name: &Network) -> Found<u64> {
        let sql = format!("SELECT COUNT(*) AS count FROM usdt_wallets WHERE network = $1 AND {MAY_HOLD}");
        number(&sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name.as_str()).fetch_one(&self.readers).await?, "count")
    }

    /// Which wallet of this network holds most, as far as was read?
    pub async fn richest_wallet(&self, name: &Network) -> Found<Option<WalletRow>> {
        let row = sqlx::query("SELECT * FROM usdt_wallets WHERE network = $1 AND balance > 0 ORDER BY balance DESC LIMIT 1")
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(wallet).transpose()
    }

    /// What did each of these wallets hold when it was last kept?
    pub async fn last_balances(&self, wallets: &[WalletId]) -> Found<HashMap<WalletId, BalanceRow>> {
        let mut last = HashMap::new();
        for chunk in wallets.chunks(IN_MAX) {
            let mut query = Where::new("SELECT * FROM wallet_balances b");
            query.is_in("wallet_id", chunk.iter().map(ToString::to_string));
            let newest = "AND taken_at = (SELECT MAX(n.taken_at) FROM wallet_balances n WHERE n.wallet_id = b.wallet_id)";
            for row in query.then(newest).fetch(self).await? {
                let row = balance(&row)?;
                last.insert(row.wallet, row);
            }
        }
        Ok(last)
    }

    /// What did a wallet hold before this time, newest first?
    pub async fn balances_of(&self, id: WalletId, before: Time, limit: i64) -> Found<Vec<BalanceRow>> {
        let rows = sqlx::query("SELECT * FROM wallet_balances WHERE wallet_id = $1 AND taken_at < $2 ORDER BY taken_at DESC LIMIT $3")
            .bind(id.to_string())
            .bind(before.millis())
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(balance).collect()
    }

    /// Keeps a new job, unless one of its kind runs; false then.
    pub async fn add_job(&self, row: &JobRow) -> Found<bool> {
        let added = sqlx::query(
            "INSERT INTO jobs (id, kind, status, done, total, detail, created_at, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT DO NOTHING",
        )
        .bind(row.id.to_string())
        .bind(&row.kind)
        .bind(row.status.name())
        .bind(i64::try_from(row.done).unwrap_or(i64::MAX))
        .bind(i64::try_from(row.total).unwrap_or(i64::MAX))
        .bind(&row.detail)
        .bind(row.created_at.millis())
        .bind(row.changed_at.millis())
        .execute(&self.readers)
        .await?;
        Ok(added.rows_affected() == 1)
    }

    /// Claims the job of this kind that runs, if nobody has claimed it or who did has said nothing
    /// since `silent`.
    pub async fn claim_job(&self, kind: &str, holder: &str, silent: Time, now: Time) -> Found<Option<JobRow>> {
        let row = sqlx::query(
            "UPDATE jobs SET claimed_by = $1, changed_at = $2 WHERE kind = $3 AND status = 'running' \
             AND (claimed_by IS NULL OR changed_at < $4) RETURNING *",
        )
        .bind(holder)
        .bind(now.millis())
        .bind(kind)
        .bind(silent.millis())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(job).transpose()
    }

    /// Keeps how far a job is that this process has claimed; false when another has claimed it since.
    pub async fn put_job(&self, row: &JobRow, holder: &str) -> Found<bool> {
        let kept = sqlx::query(
            "UPDATE jobs SET status = $1, done = $2, total = $3, detail = $4, changed_at = $5 WHERE id = $6 AND claimed_by = $7 AND status = 'running'",
        )
        .bind(row.status.name())
        .bind(i64::try_from(row.done).unwrap_or(i64::MAX))
        .bind(i64::try_from(row.total).unwrap_or(i64::MAX))
        .bind(&row.detail)
        .bind(row.changed_at.millis())
        .bind(row.id.to_string())
        .bind(holder)
        .execute(&self.readers)
        .await?;
        Ok(kept.rows_affected() == 1)
    }

    /// Which job is this?
    pub async fn job(&self, id: JobId) -> Found<Option<JobRow>> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = $1").bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(job).transpose()
    }

    /// Which job of this kind runs?
    pub async fn running_job(&self, kind: &str) -> Found<Option<JobRow>> {
        let row = sqlx::query("SELECT * FROM jobs WHERE kind = $1 AND status = 'running'").bind(kind).fetch_optional(&self.readers).await?;
        row.as_ref().map(job).transpose()
    }

    /// Takes in a message that names transactions, all or nothing; false when it was taken before.
    /// What is named already and not done stays where it is in the queue.
    pub async fn put_hints(&self, name: &Network, message: &str, hashes: &[Hash], now: Time) -> Found<bool> {
        let mut transaction = self.readers.begin().await?;
        let new = sqlx::query("INSERT INTO chain_messages (id, received_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
            .bind(format!("{name}/{message}"))
            .bind(now.millis())
            .execute(&mut *transaction)
            .await?;
        if new.rows_affected() == 0 {
            return Ok(false);
        }
        for hash in hashes {
            sqlx::query(
                "INSERT INTO chain_hints (id, network, tx_hash, tries, due_at) VALUES ($1, $2, $3, 0, $4) \
                 ON CONFLICT (id) DO UPDATE SET tries = 0, due_at = excluded.due_at, done_at = NULL WHERE chain_hints.done_at IS NOT NULL",
            )
            .bind(format!("{name}/{hash}"))
            .bind(name.as_str())
            .bind(hash.to_string())
            .bind(now.millis())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Which named transactions are to be looked at now, oldest first?
    pub async fn due_hints(&self, now: Time, limit: i64) -> Found<Vec<HintRow>> {
        let rows = sqlx::query("SELECT * FROM chain_hints WHERE done_at IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $2")
            .bind(now.millis())
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(HintRow {
                    id: row.try_get("id")?,
                    network: network(row, "network")?,
                    hash: parse(row, "tx_hash")?,
                    tries: small(row, "tries")?,
                })
            })
            .collect()
    }

    /// Notes that a named transaction was looked at: done, or to be looked at again then.
    pub async fn put_hint(&self, id: &str, tries: u32, next: Option<Time>, now: Time) -> Found<()> {
        sqlx::query("UPDATE chain_hints SET tries = $1, due_at = COALESCE($2, due_at), done_at = $3, claimed_by = NULL, claimed_until = NULL WHERE id = $4")
            .bind(i64::from(tries))
            .bind(next.map(Time::millis))
            .bind(next.is_none().then_some(now.millis()))
            .bind(id)
            .execute(&self.readers)
            .await?;
        Ok(())
    }
}
