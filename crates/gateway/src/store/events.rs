//! What happened, in the order of commits, and what became of the webhooks that told it.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tidegate_rules::changes::DeliveryState;
use tidegate_rules::id::{DeliveryId, EndpointId, MerchantId, OrderId};
use tidegate_rules::notify::EventType;
use tidegate_rules::time::{Span, Time};

use super::apply::EVENTS_LOCK;
use super::read::{Arg, IN_MAX, Where};
use super::rows::{Found, event, number, number_some, parse, parse_some, small, time, time_some};
use super::{Engine, EventRow, Store, StoreError};

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// One merchant's; everybody's without it.
    pub merchant: Option<MerchantId>,
    /// About this order.
    pub order: Option<OrderId>,
    /// Of this type.
    pub kind: Option<EventType>,
}

impl EventFilter {
    /// The one query, without its limit. The narrowest filter leads: the others are kept from SQLite's
    /// planner, which knows nothing of how many rows there are.
    fn query(self, engine: Engine, after: i64, horizon: i64) -> Where {
        let aside = |another_leads: bool| another_leads && engine == Engine::Sqlite;
        let (by_order, by_merchant) = (self.order.is_some(), self.merchant.is_some());
        let mut query = Where::new("SELECT * FROM events");
        query.and("subject_id = ?", self.order.map(|order| Arg::Text(order.to_string())));
        query.and(
            if aside(by_order) { "COALESCE(merchant_id, '') = ?" } else { "merchant_id = ?" },
            self.merchant.map(|merchant| Arg::Text(merchant.to_string())),
        );
        query.and(
            if aside(by_order || by_merchant) { "COALESCE(kind, '') = ?" } else { "kind = ?" },
            self.kind.map(|kind| Arg::Text(kind.name().into())),
        );
        query.and("seq > ?", Some(Arg::Number(after)));
        query.and("seq <= ?", Some(Arg::Number(horizon)));
        query.then("ORDER BY seq")
    }
}

/// Which deliveries to list.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// `due`, `delivered` or `failed`.
    pub status: Option<String>,
    /// Of this merchant.
    pub merchant: Option<MerchantId>,
    /// About this order or alert.
    pub subject: Option<String>,
    /// Of this event.
    pub event: Option<String>,
    /// To this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Of events from this time on.
    pub from: Option<Time>,
    /// Of events up to this time.
    pub to: Option<Time>,
    /// Older than this one: the page after it.
    pub before: Option<String>,
}

/// A delivery as it is shown.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    /// Its id.
    pub id: DeliveryId,
    /// The event's id.
    pub event_id: String,
    /// What happened.
    pub kind: String,
    /// Whose.
    pub merchant: MerchantId,
    /// What it is about, by its id.
    pub subject: String,
    /// Where to.
    pub url: String,
    /// To which endpoint; `None` for the merchant's URL, or the order's.
    pub endpoint: Option<EndpointId>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Tries by the schedule.
    pub tries: u32,
    /// The status code of the last answer.
    pub last_code: Option<u16>,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// When the last try was made.
    pub last_tried_at: Option<Time>,
    /// When it happened.
    pub event_at: Time,
    /// The body.
    pub body: String,
}

/// One try of a delivery.
#[derive(Clone, Debug)]
pub struct AttemptRow {
    /// 1 for the first.
    pub number: u32,
    /// When it was sent.
    pub at: Time,
    /// How long it took.
    pub took: Span,
    /// The status code of the answer, if one came.
    pub code: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
    /// The beginning of the body that came back.
    pub answer: Option<String>,
}

/// How far the ids of an event and of what is told of it may be apart.
const MINUTE: Span = Span::from_secs(60);

/// The time that an id begins with.
fn made_at(id: &str) -> Option<Time> {
    let (_, id) = id.split_once('_')?;
    i64::from_str_radix(id.get(..12)?, 16).ok().map(Time::from_millis)
}

/// PostgreSQL's code for a lock that was not had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

const DELIVERIES: &str = "SELECT w.id, w.event_id, w.merchant_id, w.subject_id, w.url, w.status, w.due_at, w.tries, w.last_code, w.last_error, \
     w.last_tried_at, w.event_at, w.endpoint_id, e.kind, e.body FROM payment_webhooks w JOIN events e ON e.id = w.event_id";

impl Store {
    /// The place of the newest event before which none is missing: all that are numbered lower are
    /// committed, or never will be. Waits a moment for who is writing, if there is one after `after`.
    pub async fn events_horizon(&self, after: i64) -> Found<i64> {
        const NEWEST: &str = "SELECT COALESCE(MAX(seq), 0) FROM events";
        let newest: i64 = sqlx::query_scalar(NEWEST).fetch_one(&self.readers).await?;
        // SQLite numbers events one commit after the other.
        if newest <= after || self.engine == Engine::Sqlite {
            return Ok(newest);
        }
        let mut transaction = self.readers.begin().await?;
        // Who writes next waits for this, so it may not take long.
        sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *transaction).await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(EVENTS_LOCK).execute(&mut *transaction).await?;
        let horizon = sqlx::query_scalar(NEWEST).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(horizon)
    }

    /// Events after a place in the order of commits, in that order. None that is committed later has a
    /// place among them.
    pub async fn events(&self, filter: EventFilter, after: i64, limit: i64) -> Found<Vec<EventRow>> {
        let horizon = match self.events_horizon(after).await {
            // Somebody has been writing for longer than is waited for: what is new is listed the next time.
            Err(StoreError::Database(sqlx::Error::Database(error))) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => after,
            other => other?,
        };
        filter.query(self.engine, after, horizon).then(&format!("LIMIT {limit}")).fetch(self).await?.iter().map(event).collect()
    }

    /// How the database would look for such a page, in its own words: for whoever tends the indexes.
    pub async fn explain_events(&self, filter: EventFilter, limit: i64) -> Found<Vec<String>> {
        filter.query(self.engine, 0, i64::MAX).then(&format!("LIMIT {limit}")).explain(self).await
    }

    /// A page of deliveries, newest first.
    pub async fn deliveries(&self, filter: DeliveryFilter, limit: i64) -> Found<Vec<DeliveryRow>> {
        let mut query = Where::new(DELIVERIES);
        query.and("w.status = ?", filter.status.map(Arg::Text));
        query.and("w.merchant_id = ?", filter.merchant.map(|merchant| Arg::Text(merchant.to_string())));
        query.and("w.subject_id = ?", filter.subject.map(Arg::Text));
        query.and("w.endpoint_id = ?", filter.endpoint.map(|endpoint| Arg::Text(endpoint.to_string())));
        // An id begins with the time of its event.
        let bound = |time: Time, byte: u8| Arg::Text(DeliveryId::new(time, [byte; 10]).to_string());
        let around = filter.event.as_deref().and_then(made_at);
        query.and("w.id >= ?", around.map(|time| bound(time.minus(MINUTE), 0)));
        query.and("w.id <= ?", around.map(|time| bound(time.plus(MINUTE), u8::MAX)));
        query.and("w.event_id = ?", filter.event.map(Arg::Text));
        query.and("w.id >= ?", filter.from.map(|time| bound(time, 0)));
        query.and("w.id <= ?", filter.to.map(|time| bound(time, u8::MAX)));
        query.and("w.id < ?", filter.before.map(Arg::Text));
        query.then(&format!("ORDER BY w.id DESC LIMIT {limit}")).fetch(self).await?.iter().map(delivery).collect()
    }

    /// Which delivery is this?
    pub async fn delivery(&self, id: DeliveryId) -> Found<Option<DeliveryRow>> {
        let mut query = Where::new(DELIVERIES);
        query.and("w.id = ?", Some(Arg::Text(id.to_string())));
        query.fetch(self).await?.first().map(delivery).transpose()
    }

    /// Every try of a delivery, oldest first.
    pub async fn attempts(&self, id: DeliveryId) -> Found<Vec<AttemptRow>> {
        let rows =
            sqlx::query("SELECT number, at, took_ms, code, error, answer FROM webhook_attempts WHERE delivery_id = $1 ORDER BY number")
                .bind(id.to_string())
                .fetch_all(&self.readers)
                .await?;
        rows.iter()
            .map(|row| {
                Ok(AttemptRow {
                    number: small(row, "number")?,
                    at: time(row, "at")?,
                    took: Span::from_millis(number(row, "took_ms")?),
                    code: code(row, "code")?,
                    error: row.try_get("error")?,
                    answer: row.try_get("answer")?,
                })
            })
            .collect()
    }

    /// Makes deliveries due now, beside their schedules: what they were is kept, and comes back when
    /// the try fails. How many: one to an endpoint that was removed is not.
    pub async fn send_again(&self, ids: &[DeliveryId], now: Time) -> Found<usize> {
        let mut count: usize = 0;
        for chunk in ids.chunks(IN_MAX) {
            let mut query = Where::new(&format!(
                "UPDATE payment_webhooks SET before_status = COALESCE(before_status, status), before_due_at = COALESCE(before_due_at, due_at), \
                 status = 'due', due_at = {}",
                now.millis()
            ));
            query.is_in("id", chunk.iter().map(ToString::to_string));
            let there = "SELECT 1 FROM webhook_endpoints e WHERE e.id = endpoint_id AND e.removed_at IS NULL";
            let changed = query.then(&format!("AND (endpoint_id IS NULL OR EXISTS ({there})) RETURNING id")).fetch(self).await?;
            count = count.saturating_add(changed.len());
        }
        Ok(count)
    }
}

fn code(row: &AnyRow, column: &'static str) -> Found<Option<u16>> {
    Ok(number_some(row, column)?.and_then(|code| u16::try_from(code).ok()))
}

/// Where a delivery stands, by its columns.
pub(super) fn state(status: &str, due_at: Time) -> Found<DeliveryState> {
    match status {
        "due" => Ok(DeliveryState::Due(due_at)),
        "delivered" => Ok(DeliveryState::Delivered),
        "failed" => Ok(DeliveryState::Failed),
        other => Err(StoreError::corrupt("status", other)),
    }
}

fn delivery(row: &AnyRow) -> Found<DeliveryRow> {
    Ok(DeliveryRow {
        id: parse(row, "id")?,
        event_id: row.try_get("event_id")?,
        kind: row.try_get("kind")?,
        merchant: parse(row, "merchant_id")?,
        subject: row.try_get("subject_id")?,
        url: row.try_get("url")?,
        endpoint: parse_some(row, "endpoint_id")?,
        state: state(&row.try_get::<String, _>("status")?, time(row, "due_at")?)?,
        tries: small(row, "tries")?,
        last_code: code(row, "last_code")?,
        last_error: row.try_get("last_error")?,
        last_tried_at: time_some(row, "last_tried_at")?,
        event_at: time(row, "event_at")?,
        body: row.try_get("body")?,
    })
}
