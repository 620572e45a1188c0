//! Further receivers of merchants' webhooks: what is asked about them, how they change, and which of
//! them an event goes to.
//!
//! [`fan_out`] runs inside the transaction that writes the event, so no cache is between an endpoint and
//! what happens: SQLite has one writer, and on PostgreSQL whoever changes an endpoint waits for all who
//! are writing events, and they for him. What commits after an endpoint was added goes there.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};
use tidegate_rules::changes::NewEvent;
use tidegate_rules::id::{DeliveryId, EndpointId, MerchantId};
use tidegate_rules::time::Time;
use tidegate_rules::webhook_endpoint::{ENDPOINTS_MAX, EndpointChange, EndpointState, EndpointTerms, NewEndpoint, REMOVED_KEPT, takes};

use super::apply::{Applied, one};
use super::read::{Arg, IN_MAX, Where};
use super::rows::{Found, flag, parse, time, time_some};
use super::{Commit, Store};
use crate::clock;

/// Why a delivery to an endpoint that is gone has failed.
pub const REMOVED: &str = "the endpoint was removed";

/// A further receiver of a merchant's webhooks.
#[derive(Clone, Debug)]
pub struct EndpointRow {
    /// Its id.
    pub id: EndpointId,
    /// Whose.
    pub merchant: MerchantId,
    /// What may be changed about it.
    pub terms: EndpointTerms,
    /// Its secret, sealed.
    pub secret: String,
    /// The secret it had before, sealed, and until when that signs too.
    pub previous_secret: Option<(String, Time)>,
    /// Since when.
    pub created_at: Time,
    /// Since when it hears nothing any more.
    pub removed_at: Option<Time>,
    /// The row's version.
    pub version: i64,
}

fn endpoint(row: &AnyRow) -> Found<EndpointRow> {
    let previous = match (row.try_get::<Option<String>, _>("previous_secret")?, time_some(row, "previous_until")?) {
        (Some(secret), Some(until)) => Some((secret, until)),
        _ => None,
    };
    Ok(EndpointRow {
        id: parse(row, "id")?,
        merchant: parse(row, "merchant_id")?,
        terms: EndpointTerms {
            url: row.try_get("url")?,
            description: row.try_get("description")?,
            events: row.try_get("events")?,
            state: if flag(row, "enabled")? { EndpointState::Enabled } else { EndpointState::Disabled },
        },
        secret: row.try_get("secret")?,
        previous_secret: previous,
        created_at: time(row, "created_at")?,
        removed_at: time_some(row, "removed_at")?,
        version: row.try_get("version")?,
    })
}

impl Store {
    /// Which endpoint is this? One that was removed is found for a while.
    pub async fn endpoint(&self, id: EndpointId) -> Found<Option<EndpointRow>> {
        let row = sqlx::query("SELECT * FROM webhook_endpoints WHERE id = $1").bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(endpoint).transpose()
    }

    /// A page of a merchant's endpoints, newest first.
    pub async fn endpoints(&self, of: MerchantId, before: Option<String>, limit: i64) -> Found<Vec<EndpointRow>> {
        let mut query = Where::new("SELECT * FROM webhook_endpoints");
        query.and("merchant_id = ?", Some(Arg::Text(of.to_string())));
        query.and("id < ?", before.map(Arg::Text));
        let rows = query.then(&format!("AND removed_at IS NULL ORDER BY id DESC LIMIT {limit}")).fetch(self).await?;
        rows.iter().map(endpoint).collect()
    }

    /// Forgets endpoints that were removed long ago, and previous secrets that sign no more.
    pub(super) async fn forget_endpoints(&self, now: Time) -> Found<()> {
        let long_ago = now.minus(REMOVED_KEPT).millis();
        sqlx::query("DELETE FROM webhook_endpoints WHERE removed_at < $1").bind(long_ago).execute(&self.readers).await?;
        sqlx::query("UPDATE webhook_endpoints SET previous_secret = NULL, previous_until = NULL WHERE previous_until < $1")
            .bind(now.millis())
            .execute(&self.readers)
            .await?;
        Ok(())
    }
}

/// A delivery to be written beside its event.
pub(super) struct Outgoing<'a> {
    /// Its id.
    pub id: DeliveryId,
    /// The event.
    pub event: &'a NewEvent,
    /// Where it goes.
    pub url: String,
    /// To which endpoint; `None` for the merchant's URL, or the order's.
    pub endpoint: Option<String>,
}

/// The deliveries of events to the endpoints that take them.
pub(super) async fn fan_out<'a>(db: &mut AnyConnection, events: &[&'a NewEvent]) -> Result<Vec<Outgoing<'a>>, sqlx::Error> {
    let mut merchants: Vec<MerchantId> = events.iter().map(|event| event.merchant).collect();
    merchants.sort_unstable();
    merchants.dedup();
    let mut outgoing = Vec::new();
    for chunk in merchants.chunks(IN_MAX) {
        let names: Vec<String> = (1..=chunk.len()).map(|number| format!("${number}")).collect();
        let sql = format!(
            "SELECT id, merchant_id, url, events FROM webhook_endpoints WHERE merchant_id IN ({}) AND enabled = 1 AND removed_at IS NULL ORDER BY id",
            names.join(", ")
        );
        let query = chunk.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, merchant| query.bind(merchant.to_string()));
        for row in query.fetch_all(&mut *db).await? {
            let (owner, wanted): (String, Option<String>) = (row.try_get("merchant_id")?, row.try_get("events")?);
            let (id, url): (String, String) = (row.try_get("id")?, row.try_get("url")?);
            let taken = events.iter().filter(|event| event.merchant.to_string() == owner && takes(wanted.as_deref(), event.kind));
            outgoing.extend(taken.map(|event| Outgoing {
                id: DeliveryId::new(event.at, clock::id_bytes()),
                event,
                url: url.clone(),
                endpoint: Some(id.clone()),
            }));
        }
    }
    Ok(outgoing)
}

/// Carries out one change of an endpoint.
pub(super) async fn change(db: &mut AnyConnection, change: &EndpointChange) -> Applied {
    let changed = match change {
        EndpointChange::New(new) => return insert(db, new).await,
        EndpointChange::Remove { id, at } => return remove(db, *id, *at).await,
        EndpointChange::Put { id, version, to } => {
            sqlx::query(
                "UPDATE webhook_endpoints SET url = $1, description = $2, events = $3, enabled = $4, version = version + 1 \
                 WHERE id = $5 AND version = $6 AND removed_at IS NULL",
            )
            .bind(&to.url)
            .bind(to.description.as_deref())
            .bind(to.events.as_deref())
            .bind(i64::from(to.state == EndpointState::Enabled))
            .bind(id.to_string())
            .bind(*version)
            .execute(db)
            .await?
        }
        EndpointChange::ReplaceSecret { id, old, new, until } => {
            sqlx::query(
                "UPDATE webhook_endpoints SET secret = $1, previous_secret = secret, previous_until = $2, version = version + 1 \
                 WHERE id = $3 AND secret = $4 AND removed_at IS NULL",
            )
            .bind(new)
            .bind(until.millis())
            .bind(id.to_string())
            .bind(old)
            .execute(db)
            .await?
        }
    };
    Ok(one(&changed))
}

async fn insert(db: &mut AnyConnection, new: &NewEndpoint) -> Applied {
    let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM webhook_endpoints WHERE merchant_id = $1 AND removed_at IS NULL")
        .bind(new.merchant.to_string())
        .fetch_one(&mut *db)
        .await?;
    if usize::try_from(there).is_ok_and(|there| there >= ENDPOINTS_MAX) {
        return Ok(Commit::Conflict);
    }
    sqlx::query(
        "INSERT INTO webhook_endpoints (id, merchant_id, url, description, events, secret, enabled, created_at, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1)",
    )
    .bind(new.id.to_string())
    .bind(new.merchant.to_string())
    .bind(&new.terms.url)
    .bind(new.terms.description.as_deref())
    .bind(new.terms.events.as_deref())
    .bind(&new.secret)
    .bind(i64::from(new.terms.state == EndpointState::Enabled))
    .bind(new.created_at.millis())
    .execute(db)
    .await?;
    Ok(Commit::Done)
}

/// What happened before the removal and was not taken is sent no more. What the removal itself tells, if
/// it is told here, has its time and stays.
async fn remove(db: &mut AnyConnection, id: EndpointId, at: Time) -> Applied {
    let removed = sqlx::query("UPDATE webhook_endpoints SET removed_at = $1, version = version + 1 WHERE id = $2 AND removed_at IS NULL")
        .bind(at.millis())
        .bind(id.to_string())
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "UPDATE payment_webhooks SET status = CASE WHEN before_status = 'delivered' THEN 'delivered' ELSE 'failed' END, last_error = $1, \
         before_status = NULL, before_due_at = NULL WHERE endpoint_id = $2 AND status = 'due' AND event_at < $3",
    )
    .bind(REMOVED)
    .bind(id.to_string())
    .bind(at.millis())
    .execute(db)
    .await?;
    Ok(one(&removed))
}
