//! What is asked about the inbox: the messages of payment providers, each once. It is written beside
//! [`Store::commit`], because nothing in it decides about money.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tidegate_rules::block::Network;
use tidegate_rules::id::{InboxId, OrderId};
use tidegate_rules::time::Time;

use super::Store;
use super::read::{Arg, Where};
use super::rows::{Found, named, number, parse, parse_some, time, time_some};

/// What a message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Waiting,
    /// It names a transaction, or an order of ours: the chain is looked at.
    Looked,
    /// It names something, and none of it is ours or can be read.
    Unknown,
    /// It names nothing that is looked for: kept for people.
    Kept,
}

impl Outcome {
    /// The word in the API and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Looked => "looked",
            Self::Unknown => "unknown",
            Self::Kept => "kept",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Waiting, Self::Looked, Self::Unknown, Self::Kept].into_iter().find(|outcome| outcome.name() == name)
    }
}

/// A message that has just come.
#[derive(Clone, Debug)]
pub struct NewInbox {
    /// Its id here.
    pub id: InboxId,
    /// Who sent it, as the configuration names it.
    pub provider: String,
    /// Its id there.
    pub message_id: String,
    /// The hash of what was signed, where the id was not.
    pub digest: Option<String>,
    /// The transaction that it names, and on which network that would be.
    pub transaction: Option<(Network, String)>,
    /// The order that it names: an id of ours or a shop's number.
    pub order_ref: Option<String>,
    /// What it said, as far as that is kept.
    pub body: String,
    /// How many bytes it said.
    pub body_bytes: usize,
    /// When it came.
    pub received_at: Time,
}

/// A message as it is kept.
#[derive(Clone, Debug)]
pub struct InboxRow {
    /// Its id here.
    pub id: InboxId,
    /// Who sent it.
    pub provider: String,
    /// Its id there.
    pub message_id: String,
    /// The transaction that it names.
    pub transaction: Option<(Network, String)>,
    /// The order that it names.
    pub order_ref: Option<String>,
    /// That order, if it is one of ours.
    pub order_id: Option<OrderId>,
    /// What it said, as far as that is kept.
    pub body: String,
    /// How many bytes it said.
    pub body_bytes: u64,
    /// What it led to.
    pub outcome: Outcome,
    /// When it came.
    pub received_at: Time,
    /// When it was handled.
    pub handled_at: Option<Time>,
}

/// Which messages to list.
#[derive(Clone, Debug, Default)]
pub struct InboxFilter {
    /// Of this provider.
    pub provider: Option<String>,
    /// Older than this one: the page after it.
    pub before: Option<String>,
}

fn message(row: &AnyRow) -> Found<InboxRow> {
    let network: Option<String> = row.try_get("network")?;
    let tx_hash: Option<String> = row.try_get("tx_hash")?;
    Ok(InboxRow {
        id: parse(row, "id")?,
        provider: row.try_get("provider")?,
        message_id: row.try_get("message_id")?,
        transaction: network.map(|name| Network::new(&name)).zip(tx_hash),
        order_ref: row.try_get("order_ref")?,
        order_id: parse_some(row, "order_id")?,
        body: row.try_get("body")?,
        body_bytes: number(row, "body_bytes")?,
        outcome: named(row, "outcome", Outcome::from_name)?,
        received_at: time(row, "received_at")?,
        handled_at: time_some(row, "handled_at")?,
    })
}

impl Store {
    /// Takes in a message; false when it was taken before.
    pub async fn put_inbox(&self, new: &NewInbox) -> Found<bool> {
        let (network, tx_hash) = new.transaction.as_ref().map(|(network, hash)| (network.as_str(), hash.as_str())).unzip();
        let inserted = sqlx::query(
            "INSERT INTO webhook_inbox (id, provider, message_id, digest, network, tx_hash, order_ref, body, body_bytes, outcome, received_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        )
        .bind(new.id.to_string())
        .bind(&new.provider)
        .bind(&new.message_id)
        .bind(new.digest.as_deref())
        .bind(network)
        .bind(tx_hash)
        .bind(new.order_ref.as_deref())
        .bind(&new.body)
        .bind(i64::try_from(new.body_bytes).unwrap_or(i64::MAX))
        .bind(Outcome::Waiting.name())
        .bind(new.received_at.millis())
        .execute(&self.readers)
        .await?;
        Ok(inserted.rows_affected() > 0)
    }

    /// Which messages wait, oldest first?
    pub async fn waiting_inbox(&self, limit: i64) -> Found<Vec<InboxRow>> {
        let rows = sqlx::query("SELECT * FROM webhook_inbox WHERE handled_at IS NULL ORDER BY id LIMIT $1")
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(message).collect()
    }

    /// Notes what a message led to.
    pub async fn handled_inbox(&self, id: InboxId, outcome: Outcome, order: Option<OrderId>, now: Time) -> Found<()> {
        sqlx::query("UPDATE webhook_inbox SET outcome = $1, order_id = $2, handled_at = $3 WHERE id = $4")
            .bind(outcome.name())
            .bind(order.map(|id| id.to_string()))
            .bind(now.millis())
            .bind(id.to_string())
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// A page of messages, newest first.
    pub async fn inbox(&self, filter: InboxFilter, limit: i64) -> Found<Vec<InboxRow>> {
        let mut query = Where::new("SELECT * FROM webhook_inbox");
        query.and("provider = ?", filter.provider.map(Arg::Text));
        query.and("id < ?", filter.before.map(Arg::Text));
        query.then(&format!("ORDER BY id DESC LIMIT {limit}")).fetch(self).await?.iter().map(message).collect()
    }
}
