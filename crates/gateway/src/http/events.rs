//! What happened, over HTTP: everything of a merchant in the order of commits, the story of one order,
//! and what became of the webhooks that told it.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::DeliveryState;
use tidegate_rules::id::{DeliveryId, EndpointId, MerchantId};
use tidegate_rules::notify::EventType;
use tidegate_rules::people::Permission;
use tidegate_rules::time::Time;
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, moment, one_more, read_cursor, write_cursor};
use super::auth::{Caller, Scope};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::request::{EmptyBody, Params, RawBody};
use super::{App, ProblemBody};
use crate::clock;
use crate::gateway::Wake;
use crate::orders::{self, hash_text};
use crate::problem::Problem;
use crate::store::{AttemptRow, AuditFilter, DeliveryFilter, DeliveryRow, EventFilter, EventRow, OrderRow};
use crate::transactions;

/// The most rows of the audit log that an order's story shows.
const AUDIT_MAX: i64 = 200;

/// The most failed deliveries that are sent again by one call.
const RESEND_MAX: i64 = 1_000;

/// One thing that happened.
#[derive(Serialize, ToSchema)]
pub struct EventView {
    /// Its id, which is also the `webhook-id`.
    #[schema(example = "evt_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// Its place in the order of commits: ask for what comes after the last one that you have.
    #[schema(example = 1042)]
    sequence: i64,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "order.paid")]
    kind: String,
    /// When.
    timestamp: String,
    /// What it is about, as it was then: the `data` of the webhook.
    #[schema(value_type = Object)]
    data: Value,
}

impl From<EventRow> for EventView {
    fn from(event: EventRow) -> Self {
        let body: Value = serde_json::from_str(&event.body).unwrap_or_default();
        Self {
            id: event.id,
            sequence: event.seq,
            kind: event.kind,
            timestamp: event.at.to_string(),
            data: body.get("data").cloned().unwrap_or_default(),
        }
    }
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub struct EventPage {
    /// Oldest first, in the order of commits.
    data: Vec<EventView>,
    /// The `sequence` to ask for with `after` next; null while there is nothing more.
    next_cursor: Option<String>,
}

/// Which events to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListEvents {
    /// Those after this `sequence`, or after the event of this id; without it, from the first.
    after: Option<String>,
    /// Of this type, such as `order.paid`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
}

/// List everything that happened, in the order of commits
///
/// For whoever missed webhooks: keep the `sequence` of the last event that you handled, and ask for
/// what comes after it. Handle each `id` once, whether it comes by webhook or by this list.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(ListEvents),
    responses((status = 200, body = EventPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_events(State(app): State<App>, caller: Caller, Params(query): Params<ListEvents>) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let limit = limit(query.limit)?;
    let kind = query.kind.map(|name| event_type("type", &name)).transpose()?;
    let after = place(&app, query.after).await?;
    let filter = EventFilter { merchant: Some(caller.merchant()?), order: None, kind };
    let (rows, next_cursor) = page(&app, filter, after, limit).await?;
    Ok(Answer::json(StatusCode::OK, &EventPage { data: rows.into_iter().map(EventView::from).collect(), next_cursor }))
}

/// The place in the order of commits that `after` names: a sequence, or the id of an event.
async fn place(app: &App, after: Option<String>) -> Result<i64, Problem> {
    let expected = || Problem::invalid("after", "expected the sequence or the id of an event");
    match after {
        None => Ok(0),
        Some(id) if id.starts_with("evt_") => app.gateway.store.event_seq(&id).await?.ok_or_else(expected),
        Some(number) => number.parse::<i64>().ok().filter(|number| *number >= 0).ok_or_else(expected),
    }
}

/// A page of events, and the sequence that asks for the next.
async fn page(app: &App, filter: EventFilter, after: i64, limit: u32) -> Result<(Vec<EventRow>, Option<String>), Problem> {
    let mut rows = app.gateway.store.events(filter, after, one_more(limit)).await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| row.seq.to_string());
    Ok((rows, next_cursor))
}

/// One thing that happened, to whichever merchant.
#[derive(Serialize, ToSchema)]
pub struct AnyEventView {
    #[serde(flatten)]
    event: EventView,
    /// Whose.
    #[schema(example = "mer_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    merchant_id: String,
    /// The order, permanent address or alert that it is about.
    #[schema(example = "ord_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    subject_id: String,
}

impl From<EventRow> for AnyEventView {
    fn from(row: EventRow) -> Self {
        Self { merchant_id: row.merchant.to_string(), subject_id: row.subject.clone(), event: EventView::from(row) }
    }
}

/// A page of everybody's events.
#[derive(Serialize, ToSchema)]
pub struct AnyEventPage {
    /// Oldest first, in the order of commits.
    data: Vec<AnyEventView>,
    /// The `sequence` to ask for with `after` next; null while there is nothing more.
    next_cursor: Option<String>,
}

/// Which of everybody's events to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAnyEvents {
    /// Those after this `sequence`, or after the event of this id; without it, from the first.
    after: Option<String>,
    /// Of this type, such as `order.paid`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of this merchant.
    merchant_id: Option<String>,
    /// About this order, or this permanent address.
    order_id: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
}

/// List everything that happened to anybody, in the order of commits
///
/// As `GET /api/v1/events`, for operators: across merchants, with whose each event is and what it is
/// about.
#[utoipa::path(get, path = "/api/v1/admin/events", tag = "events", params(ListAnyEvents),
    responses((status = 200, body = AnyEventPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn admin_list_events(State(app): State<App>, caller: Caller, Params(query): Params<ListAnyEvents>) -> Result<Answer, Problem> {
    caller.may(Permission::AllOrdersRead)?;
    let limit = limit(query.limit)?;
    let order = |text: String| text.parse().map_err(|_| Problem::invalid("order_id", "expected an order's id, such as ord_…"));
    let filter = EventFilter {
        merchant: query.merchant_id.map(|text| merchant_id("merchant_id", &text)).transpose()?,
        order: query.order_id.map(order).transpose()?,
        kind: query.kind.map(|name| event_type("type", &name)).transpose()?,
    };
    let after = place(&app, query.after).await?;
    let (rows, next_cursor) = page(&app, filter, after, limit).await?;
    Ok(Answer::json(StatusCode::OK, &AnyEventPage { data: rows.into_iter().map(AnyEventView::from).collect(), next_cursor }))
}

pub(super) fn event_type(pointer: &str, name: &str) -> Result<EventType, Problem> {
    let known = || EventType::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    EventType::from_name(name).ok_or_else(|| Problem::invalid(pointer, format!("expected one of: {}", known())))
}

/// A fact or a decision in the story of an order.
#[derive(Serialize, ToSchema)]
pub struct StoryView {
    /// When it became known here.
    at: String,
    /// `event`, `transfer` or `person`.
    #[schema(example = "transfer")]
    kind: String,
    /// The event's type, the transfer's status, or the action in the audit log.
    #[schema(example = "confirmed")]
    what: String,
    /// In words: why.
    #[schema(example = "paid to the order's address in time, or late and accepted")]
    cause: String,
    /// What it is about: an event's id, a transaction, or who did it.
    about: String,
}

/// What happened to an order.
#[derive(Serialize, ToSchema)]
pub struct EventList {
    /// Its events, oldest first.
    data: Vec<EventView>,
    /// Its whole story, oldest first: events, transfers with what became of them and why, and what
    /// people did.
    timeline: Vec<StoryView>,
    /// Always null: an order has few events.
    next_cursor: Option<String>,
}

/// Show what happened to an order
#[utoipa::path(get, path = "/api/v1/orders/{id}/events", tag = "orders", params(("id" = String, Path)),
    responses((status = 200, body = EventList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn order_events(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let row = orders::find(&app.gateway, Some(caller.merchant()?), &id).await?;
    story(&app, &row).await
}

/// Show what happened to any merchant's order
#[utoipa::path(get, path = "/api/v1/admin/orders/{id}/events", tag = "orders", params(("id" = String, Path)),
    responses((status = 200, body = EventList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn admin_order_events(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.may(Permission::AllOrdersRead)?;
    let row = orders::find(&app.gateway, None, &id).await?;
    story(&app, &row).await
}

async fn story(app: &App, row: &OrderRow) -> Result<Answer, Problem> {
    let events = app.gateway.store.order_events(row.id, 0).await?;
    let filter = AuditFilter { subject: Some(row.id.to_string()), ..AuditFilter::default() };
    let deeds = app.gateway.store.audit(filter, AUDIT_MAX).await?;
    let mut told: Vec<(Time, StoryView)> = Vec::new();
    let mut tell = |at: Time, kind: &str, what: &str, cause: &str, about: String| {
        let (kind, what, cause) = (kind.to_owned(), what.to_owned(), cause.to_owned());
        told.push((at, StoryView { at: at.to_string(), kind, what, cause, about }));
    };
    for transfer in &row.transfers {
        let payment = &transfer.payment;
        let hash = hash_text(&app.gateway, &payment.network, payment.key.tx_hash);
        let about = format!("{} {hash}/{} in block {}", payment.network, payment.key.ordinal, payment.block.number);
        tell(transfer.seen_at, "transfer", payment.status().name(), transactions::why(transfer), about);
    }
    for deed in deeds {
        // Whoever has the order's key sees that an operator acted, not from where.
        let known = Action::from_name(&deed.entry.action).is_some();
        tell(deed.entry.at, "person", if known { &deed.entry.action } else { "other" }, &deed.entry.reason, deed.entry.actor.clone());
    }
    for event in &events {
        tell(event.at, "event", &event.kind, event_cause(&event.kind), event.id.clone());
    }
    told.sort_by_key(|(at, _)| *at);
    let data = events.into_iter().map(EventView::from).collect();
    let timeline = told.into_iter().map(|(_, told)| told).collect();
    Ok(Answer::json(StatusCode::OK, &EventList { data, timeline, next_cursor: None }))
}

/// Why an event happens, in words.
fn event_cause(kind: &str) -> &'static str {
    match EventType::from_name(kind) {
        Some(EventType::Pending) => "the order was created",
        Some(EventType::Underpaid) => "money arrived, and it is still below what is due",
        Some(EventType::Confirming) => "enough has arrived and is not settled yet",
        Some(EventType::Paid) => "enough has settled, or a person confirmed it",
        Some(EventType::Overpaid) => "more than the amount has settled",
        Some(EventType::LatePayment) => "a transfer after the order's time has settled",
        Some(EventType::Expired) => "the settled chain of every network it leased on has passed its time without enough",
        Some(EventType::Cancelled) => "a person cancelled it",
        Some(EventType::PaymentReverted) => "the chain took back money of the paid order",
        Some(EventType::PaymentFailed) => "a transaction that was to pay it failed on the chain",
        Some(EventType::DepositSettled) => "a deposit to a permanent address has settled",
        Some(EventType::MembershipActivated) => "the paid order made or extended a membership",
        Some(EventType::WalletAlert) | None => "",
    }
}

/// A delivery of an event to a receiver.
#[derive(Serialize, ToSchema)]
pub struct DeliveryView {
    /// Its id.
    #[schema(example = "whd_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// The event, which is the `webhook-id`.
    event_id: String,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "order.paid")]
    kind: String,
    /// Whose.
    merchant_id: String,
    /// The order or alert that it is about.
    subject_id: String,
    /// Where it goes. A query, which may hold a secret, is left out.
    url: String,
    /// The webhook endpoint that it goes to; null for the merchant's `webhook_url`, or the order's
    /// `callback_url`.
    endpoint_id: Option<String>,
    /// `due`, `delivered` or `failed`.
    #[schema(example = "delivered")]
    status: String,
    /// Tries by the schedule.
    tries: u32,
    /// When it is tried next, while it is due.
    next_try_at: Option<String>,
    /// The status code of the last answer.
    last_code: Option<u16>,
    /// Why the last try failed.
    last_error: Option<String>,
    /// When the last try was made.
    last_tried_at: Option<String>,
    /// When it happened.
    event_at: String,
}

impl From<&DeliveryRow> for DeliveryView {
    fn from(row: &DeliveryRow) -> Self {
        Self {
            id: row.id.to_string(),
            event_id: row.event_id.clone(),
            kind: row.kind.clone(),
            merchant_id: row.merchant.to_string(),
            subject_id: row.subject.clone(),
            url: row.url.split(['?', '#']).next().unwrap_or_default().to_owned(),
            endpoint_id: row.endpoint.map(|id| id.to_string()),
            status: match row.state {
                DeliveryState::Due(_) => "due",
                DeliveryState::Delivered => "delivered",
                DeliveryState::Failed => "failed",
            }
            .to_owned(),
            tries: row.tries,
            next_try_at: match row.state {
                DeliveryState::Due(at) => Some(at.to_string()),
                DeliveryState::Delivered | DeliveryState::Failed => None,
            },
            last_code: row.last_code,
            last_error: row.last_error.clone(),
            last_tried_at: row.last_tried_at.map(|at| at.to_string()),
            event_at: row.event_at.to_string(),
        }
    }
}

/// One try of a delivery.
#[derive(Serialize, ToSchema)]
pub struct AttemptView {
    /// 1 for the first.
    number: u32,
    /// When it was sent.
    at: String,
    /// How long it took, in milliseconds.
    took_ms: u64,
    /// The status code of the answer, if one came.
    code: Option<u16>,
    /// Why it failed.
    error: Option<String>,
    /// The beginning of the body that came back; control characters are replaced.
    answer: Option<String>,
}

impl From<AttemptRow> for AttemptView {
    fn from(row: AttemptRow) -> Self {
        Self {
            number: row.number,
            at: row.at.to_string(),
            took_ms: row.took.millis(),
            code: row.code,
            error: row.error,
            answer: row.answer,
        }
    }
}

/// A delivery with what was sent and what came back.
#[derive(Serialize, ToSchema)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    delivery: DeliveryView,
    /// The body that is sent, the same in every try.
    request_body: String,
    /// Every try, oldest first.
    attempts: Vec<AttemptView>,
}

/// A page of deliveries.
#[derive(Serialize, ToSchema)]
pub struct DeliveryPage {
    /// Newest first.
    data: Vec<DeliveryView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which deliveries to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListDeliveries {
    /// `due`, `delivered` or `failed`.
    status: Option<String>,
    /// Of this merchant.
    merchant_id: Option<String>,
    /// About this order or alert.
    subject_id: Option<String>,
    /// Of this event.
    event_id: Option<String>,
    /// To this webhook endpoint.
    endpoint_id: Option<String>,
    /// Of events from this time on, RFC 3339.
    from: Option<String>,
    /// Of events up to this time, RFC 3339.
    to: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

fn merchant_id(pointer: &str, text: &str) -> Result<MerchantId, Problem> {
    text.parse().map_err(|_| Problem::invalid(pointer, "expected a merchant's id, such as mer_…"))
}

fn endpoint_id(pointer: &str, text: &str) -> Result<EndpointId, Problem> {
    text.parse().map_err(|_| Problem::invalid(pointer, "expected a webhook endpoint's id, such as whe_…"))
}

/// List outgoing webhooks and what became of them, newest first
#[utoipa::path(get, path = "/api/v1/admin/webhook-deliveries", tag = "events", params(ListDeliveries),
    responses((status = 200, body = DeliveryPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_deliveries(State(app): State<App>, caller: Caller, Params(query): Params<ListDeliveries>) -> Result<Answer, Problem> {
    caller.may(Permission::AllOrdersRead)?;
    let limit = limit(query.limit)?;
    let status = query.status.map(|status| match status.as_str() {
        "due" | "delivered" | "failed" => Ok(status),
        _ => Err(Problem::invalid("status", "expected due, delivered or failed")),
    });
    let filter = DeliveryFilter {
        status: status.transpose()?,
        merchant: query.merchant_id.map(|text| merchant_id("merchant_id", &text)).transpose()?,
        subject: query.subject_id,
        event: query.event_id,
        endpoint: query.endpoint_id.map(|text| endpoint_id("endpoint_id", &text)).transpose()?,
        from: moment("from", query.from)?,
        to: moment("to", query.to)?,
        before: read_cursor(query.cursor)?,
    };
    let mut rows = app
        .gateway
        .store
        .lately(|store| {
            let filter = filter.clone();
            async move { store.deliveries(filter, one_more(limit)).await }
        })
        .await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &DeliveryPage { data: rows.iter().map(DeliveryView::from).collect(), next_cursor }))
}

async fn delivery(app: &App, id: &str) -> Result<DeliveryRow, Problem> {
    let missing = || Problem::not_found("delivery");
    let id: DeliveryId = id.parse().map_err(|_| missing())?;
    app.gateway.store.delivery(id).await?.ok_or_else(missing)
}

/// Show an outgoing webhook with every try
#[utoipa::path(get, path = "/api/v1/admin/webhook-deliveries/{id}", tag = "events", params(("id" = String, Path)),
    responses((status = 200, body = DeliveryDetail), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_delivery(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.may(Permission::AllOrdersRead)?;
    let row = delivery(&app, &id).await?;
    let attempts = app.gateway.store.attempts(row.id).await?;
    let detail = DeliveryDetail {
        delivery: DeliveryView::from(&row),
        request_body: row.body.clone(),
        attempts: attempts.into_iter().map(AttemptView::from).collect(),
    };
    Ok(Answer::json(StatusCode::OK, &detail))
}

/// Send an outgoing webhook again
///
/// Now and once, whatever its status; the tries of its schedule are kept.
#[utoipa::path(post, path = "/api/v1/admin/webhook-deliveries/{id}/retry", tag = "events", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = DeliveryView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, description = "endpoint_removed, idempotency_conflict", body = ProblemBody), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn retry_delivery(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::AllOrdersWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let row = delivery(&app, &id).await?;
        if app.gateway.store.send_again(&[row.id], clock::now()).await? == 0 {
            return Err(Problem::conflict(
                "endpoint_removed",
                "the endpoint that this went to was removed: nothing is sent there any more",
            ));
        }
        app.gateway.signal(Wake::Delivery);
        let row = delivery(&app, &id).await?;
        Ok((Answer::json(StatusCode::ACCEPTED, &DeliveryView::from(&row)), Kept::NotYet))
    })
    .await
}

/// Which failed webhooks to send again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resend {
    /// Of events from this time on, RFC 3339.
    #[schema(example = "2026-11-23T08:00:00.000Z")]
    from: String,
    /// Of events up to this time, RFC 3339; now without it.
    to: Option<String>,
    /// Of this merchant alone.
    merchant_id: Option<String>,
    /// To this webhook endpoint alone.
    endpoint_id: Option<String>,
}

/// How many are sent again.
#[derive(Serialize, ToSchema)]
pub struct Resent {
    /// So many are due now. Those of endpoints that were removed are not.
    count: u64,
    /// There are more than one call takes: call again.
    more: bool,
}

/// Send every failed webhook of a time again
#[utoipa::path(post, path = "/api/v1/admin/webhook-deliveries/retry", tag = "events", request_body = Resend, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Resent), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn retry_deliveries(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::AllOrdersWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let asked: Resend = body.json(EmptyBody::IsMalformed)?;
        let now = clock::now();
        let filter = DeliveryFilter {
            status: Some("failed".to_owned()),
            merchant: asked.merchant_id.map(|text| merchant_id("/merchant_id", &text)).transpose()?,
            endpoint: asked.endpoint_id.map(|text| endpoint_id("/endpoint_id", &text)).transpose()?,
            from: moment("/from", Some(asked.from))?,
            to: moment("/to", asked.to)?.or(Some(now)),
            ..DeliveryFilter::default()
        };
        let rows = app.gateway.store.deliveries(filter, RESEND_MAX.saturating_add(1)).await?;
        let ids: Vec<DeliveryId> = rows.iter().map(|row| row.id).take(usize::try_from(RESEND_MAX).unwrap_or(0)).collect();
        let count = app.gateway.store.send_again(&ids, now).await?;
        app.gateway.signal(Wake::Delivery);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        Ok((Answer::json(StatusCode::ACCEPTED, &Resent { count, more: rows.len() > ids.len() }), Kept::NotYet))
    })
    .await
}
