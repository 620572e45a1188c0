//! What the safe asks the store: sources of keys, sealed texts, the audit log, alerts.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};
use tidegate_rules::alert::{AlertKind, AlertStatus};
use tidegate_rules::amount::Amount;
use tidegate_rules::audit;
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::SealedIn;
use tidegate_rules::id::{AlertId, SourceId, WalletId};
use tidegate_rules::risk::History;
use tidegate_rules::time::Time;
use tidegate_rules::wallet::WalletKind;

use super::apply::place;
use super::read::{Arg, IN_MAX, Where};
use super::rows::{Found, WalletRow, amount, named, number, parse, small, time, time_some, wallet};
use super::{Store, StoreError};

/// A seed, or an extended public key, that wallets are derived from.
#[derive(Clone, Debug)]
pub struct SourceRow {
    /// Its id.
    pub id: SourceId,
    /// [`WalletKind::Hd`] or [`WalletKind::Watch`].
    pub kind: WalletKind,
    /// What people call it.
    pub name: String,
    /// The one network of an extended public key.
    pub network: Option<Network>,
    /// The hardened account number of BIP-44.
    pub account: u32,
    /// The sealed seed.
    pub sealed: Option<tidegate_vault::SealedSeed>,
    /// The extended public key of the account.
    pub xpub: Option<String>,
    /// The MAC that binds the extended public key to this source.
    pub mac: Option<String>,
    /// Since when.
    pub created_at: Time,
}

/// A row of the audit log and the hash that chains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// What was done.
    pub entry: audit::Entry,
    /// The hash of this row and, through it, of every row before.
    pub hash: String,
}

/// Which rows of the audit log to list.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// About this.
    pub subject: Option<String>,
    /// Of this kind.
    pub action: Option<String>,
    /// By this one.
    pub actor: Option<String>,
    /// Before this number: the page after it.
    pub before: Option<u64>,
}

/// An alert.
#[derive(Clone, Debug)]
pub struct AlertRow {
    /// Its id.
    pub id: AlertId,
    /// What happened.
    pub kind: AlertKind,
    /// To what.
    pub about: String,
    /// In words.
    pub detail: String,
    /// What became of it.
    pub status: AlertStatus,
    /// Since when.
    pub created_at: Time,
    /// When a person last dealt with it.
    pub changed_at: Option<Time>,
    /// Who.
    pub changed_by: Option<String>,
    /// What they said.
    pub reason: Option<String>,
}

/// Which alerts to list.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// With this status.
    pub status: Option<AlertStatus>,
    /// Of this kind.
    pub kind: Option<AlertKind>,
    /// Older than this one: the page after it.
    pub before: Option<String>,
}

fn source(row: &AnyRow) -> Found<SourceRow> {
    Ok(SourceRow {
        id: parse(row, "id")?,
        kind: named(row, "kind", WalletKind::from_name)?,
        name: row.try_get("name")?,
        network: row.try_get::<Option<String>, _>("network")?.map(|name| Network::new(&name)),
        account: small(row, "account")?,
        sealed: row.try_get::<Option<String>, _>("sealed")?.map(tidegate_vault::SealedSeed::from_text),
        xpub: row.try_get("xpub")?,
        mac: row.try_get("mac")?,
        created_at: time(row, "created_at")?,
    })
}

fn audit_row(row: &AnyRow) -> Found<AuditRow> {
    Ok(AuditRow {
        entry: audit::Entry {
            seq: number(row, "seq")?,
            at: time(row, "at")?,
            actor: row.try_get("actor")?,
            action: row.try_get("action")?,
            subject: row.try_get("subject")?,
            origin: row.try_get("origin")?,
            reason: row.try_get("reason")?,
            detail: row.try_get("detail")?,
        },
        hash: row.try_get("hash")?,
    })
}

pub(super) fn alert(row: &AnyRow) -> Found<AlertRow> {
    Ok(AlertRow {
        id: parse(row, "id")?,
        kind: named(row, "kind", AlertKind::from_name)?,
        about: row.try_get("about")?,
        detail: row.try_get("detail")?,
        status: named(row, "status", AlertStatus::from_name)?,
        created_at: time(row, "created_at")?,
        changed_at: time_some(row, "changed_at")?,
        changed_by: row.try_get("changed_by")?,
        reason: row.try_get("reason")?,
    })
}

impl Store {
    /// Stores a setting, whatever was there.
    pub async fn set_setting(&self, name: &str, value: &str) -> Found<()> {
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
            .bind(name)
            .bind(value)
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// Which schema does the database have?
    pub async fn schema(&self) -> Found<i64> {
        Ok(sqlx::query_scalar("SELECT MAX(version) FROM schema_versions").fetch_one(&self.readers).await?)
    }

    /// Writes a consistent copy of an SQLite database into an empty file, while it is in use.
    pub async fn copy_into(&self, path: &std::path::Path) -> Found<()> {
        sqlx::query("VACUUM INTO $1").bind(path.display().to_string()).execute(&self.readers).await?;
        Ok(())
    }

    /// Whether an SQLite file is whole.
    pub async fn check_integrity(&self) -> Found<()> {
        let said: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&self.readers).await?;
        if said == "ok" { Ok(()) } else { Err(StoreError::corrupt("pages", said)) }
    }

    /// Moves everything from the WAL into the one file of an SQLite database.
    pub async fn settle_into_one_file(&self) -> Found<()> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.readers).await?;
        Ok(())
    }

    /// Which sources of keys are there, oldest first?
    pub async fn sources(&self) -> Found<Vec<SourceRow>> {
        sqlx::query("SELECT * FROM key_sources ORDER BY id").fetch_all(&self.readers).await?.iter().map(source).collect()
    }

    /// What is the next index of this source on this network?
    pub async fn next_index(&self, id: SourceId, name: &Network) -> Found<u32> {
        let row = sqlx::query("SELECT next_index FROM derivations WHERE source_id = $1 AND network = $2")
            .bind(id.to_string())
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map_or(Ok(0), |row| small(&row, "next_index"))
    }

    /// The next wallets by their ids, oldest first: a walk through all of them.
    pub async fn wallets_after(&self, after: Option<WalletId>, limit: i64) -> Found<Vec<WalletRow>> {
        let rows = sqlx::query("SELECT * FROM usdt_wallets WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(wallet).collect()
    }

    /// Which wallets received something, the last ones first?
    pub async fn wallets_with_money(&self, name: &Network, limit: i64) -> Found<Vec<WalletRow>> {
        let rows = sqlx::query("SELECT * FROM usdt_wallets WHERE network = $1 AND paid_at IS NOT NULL ORDER BY paid_at DESC LIMIT $2")
            .bind(name.as_str())
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(wallet).collect()
    }

    /// How many wallets are there in all?
    pub async fn wallet_count(&self) -> Found<u64> {
        let row = sqlx::query("SELECT COUNT(*) AS count FROM usdt_wallets").fetch_one(&self.readers).await?;
        number(&row, "count")
    }

    /// Notes that these wallets were found whole.
    pub async fn mark_verified(&self, wallets: &[WalletId], at: Time) -> Found<()> {
        let (Some(first), Some(last)) = (wallets.first(), wallets.last()) else { return Ok(()) };
        sqlx::query("UPDATE usdt_wallets SET verified_at = $1 WHERE id >= $2 AND id <= $3 AND status <> 'frozen'")
            .bind(at.millis())
            .bind(first.to_string())
            .bind(last.to_string())
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// Which texts in this place are not under the master key of this id? Row and text, in the
    /// order of the rows.
    pub async fn sealed_by_others(&self, place_: SealedIn, key_id: &str, after: &str, limit: i64) -> Found<Vec<(String, String)>> {
        let (table, id, column) = place(place_);
        let wanted = if place_ == SealedIn::Setting { " AND name LIKE 'sealed\\_%' ESCAPE '\\'" } else { "" };
        let sql = format!(
            "SELECT {id} AS id, {column} AS text FROM {table} WHERE {id} > $1 AND {column} IS NOT NULL AND {column} NOT LIKE $2{wanted} ORDER BY {id} LIMIT $3"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(after).bind(format!("v1.{key_id}.%")).bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("text")?))).collect()
    }

    /// Which wallet does each of these leases lend?
    pub async fn wallets_of_leases(&self, leases: &[String]) -> Found<Vec<(String, WalletId)>> {
        let mut query = Where::new("SELECT id, wallet_id FROM leases");
        query.is_in("id", leases.iter().cloned());
        query.fetch(self).await?.iter().map(|row| Ok((row.try_get("id")?, parse(row, "wallet_id")?))).collect()
    }

    /// Which wallets are these?
    pub async fn wallets_by_id(&self, ids: &[String]) -> Found<Vec<WalletRow>> {
        let mut query = Where::new("SELECT * FROM usdt_wallets");
        query.is_in("id", ids.iter().cloned());
        query.fetch(self).await?.iter().map(wallet).collect()
    }

    /// What came to these wallets before? Dust is counted from `dust_since` on; transfers between
    /// wallets of ours are left out.
    pub async fn histories(&self, wallets: &[WalletId], dust_below: Amount, dust_since: Time) -> Found<HashMap<WalletId, History>> {
        let dust = i64::try_from(dust_below.micros()).unwrap_or(i64::MAX);
        let mut histories = HashMap::new();
        for chunk in wallets.chunks(IN_MAX) {
            let mut query = Where::new(&format!(
                "SELECT wallet_id, COUNT(CASE WHEN amount >= {dust} THEN 1 END) AS incoming, MAX(amount) AS largest, \
                 COUNT(CASE WHEN amount < {dust} AND block_time > {since} THEN 1 END) AS dust FROM blockchain_transactions",
                since = dust_since.millis()
            ));
            query.is_in("wallet_id", chunk.iter().map(ToString::to_string));
            for row in query.then("AND disposition NOT IN ('own', 'unreadable') GROUP BY wallet_id").fetch(self).await? {
                let incoming = small(&row, "incoming")?;
                let largest = if incoming == 0 { Amount::ZERO } else { amount(&row, "largest")? };
                histories.insert(parse(&row, "wallet_id")?, History { incoming, largest, dust: small(&row, "dust")? });
            }
        }
        Ok(histories)
    }

    /// Which wallets did this address pay to, and when last, in block time?
    pub async fn paid_by(&self, name: &Network, payer: &Address) -> Found<Vec<(WalletRow, Time)>> {
        let rows = sqlx::query(
            "SELECT wallet_id, MAX(block_time) AS paid_at FROM blockchain_transactions \
             WHERE network = $1 AND from_hex = $2 AND wallet_id IS NOT NULL AND status <> 'orphaned' GROUP BY wallet_id",
        )
        .bind(name.as_str())
        .bind(hex::encode(payer.0))
        .fetch_all(&self.readers)
        .await?;
        let mut paid: HashMap<String, Time> = HashMap::new();
        for row in &rows {
            paid.insert(row.try_get("wallet_id")?, time(row, "paid_at")?);
        }
        let ids: Vec<String> = paid.keys().take(IN_MAX).cloned().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let wallets = self.wallets_by_id(&ids).await?;
        Ok(wallets.into_iter().filter_map(|row| Some((paid.get(&row.id.to_string()).copied()?, row))).map(|(at, row)| (row, at)).collect())
    }

    /// A page of the audit log, newest first.
    pub async fn audit(&self, filter: AuditFilter, limit: i64) -> Found<Vec<AuditRow>> {
        let mut query = Where::new("SELECT * FROM audit_log");
        query.and("subject = ?", filter.subject.map(Arg::Text));
        query.and("action = ?", filter.action.map(Arg::Text));
        query.and("actor = ?", filter.actor.map(Arg::Text));
        query.and("seq < ?", filter.before.map(|before| Arg::Number(i64::try_from(before).unwrap_or(i64::MAX))));
        query.then(&format!("ORDER BY seq DESC LIMIT {limit}")).fetch(self).await?.iter().map(audit_row).collect()
    }

    /// The audit log from a number on, oldest first.
    pub async fn audit_after(&self, seq: u64, limit: i64) -> Found<Vec<AuditRow>> {
        let rows = sqlx::query("SELECT * FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(i64::try_from(seq).unwrap_or(i64::MAX))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(audit_row).collect()
    }

    /// Where does the audit log end? Number and hash, `None` while it is empty.
    pub async fn audit_head(&self) -> Found<Option<(u64, String)>> {
        let row = sqlx::query("SELECT seq, hash FROM audit_head WHERE id = 1").fetch_optional(&self.readers).await?;
        row.map(|row| Ok((number(&row, "seq")?, row.try_get("hash")?))).transpose()
    }

    /// A page of alerts, newest first.
    pub async fn alerts(&self, filter: AlertFilter, limit: i64) -> Found<Vec<AlertRow>> {
        let mut query = Where::new("SELECT * FROM alerts");
        query.and("status = ?", filter.status.map(|status| Arg::Text(status.name().into())));
        query.and("kind = ?", filter.kind.map(|kind| Arg::Text(kind.name().into())));
        query.and("id < ?", filter.before.map(Arg::Text));
        query.then(&format!("ORDER BY id DESC LIMIT {limit}")).fetch(self).await?.iter().map(alert).collect()
    }

    /// Which alert is this?
    pub async fn alert(&self, id: AlertId) -> Found<Option<AlertRow>> {
        let row = sqlx::query("SELECT * FROM alerts WHERE id = $1").bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(alert).transpose()
    }
}
