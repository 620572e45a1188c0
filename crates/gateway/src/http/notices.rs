//! Messages to people over HTTP, for operators: what was sent, a test of a channel, the texts.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_rules::id::{NoticeId, OrderId};
use tidegate_rules::notification::{Channel, NoticeStatus, Topic};
use tidegate_rules::people::Permission;
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, one_more, read_cursor, write_cursor};
use super::auth::{Caller, Scope};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::request::{EmptyBody, Params, RawBody};
use super::{App, ProblemBody};
use crate::notices::by_hand::{self, TemplateNow};
use crate::notices::template;
use crate::problem::Problem;
use crate::store::{NoticeFilter, NoticeRow};

/// A message to the operator or to a customer.
#[derive(Serialize, ToSchema)]
pub struct NotificationView {
    /// Its id.
    #[schema(example = "ntf_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// What it is about.
    #[schema(example = "order.paid")]
    event: String,
    /// `operator` or `customer`.
    audience: String,
    /// `smtp`, `telegram` or `sms`.
    channel: String,
    /// To whom.
    #[schema(example = "ops@example.com")]
    recipient: String,
    /// `en` or `zh`.
    language: String,
    /// Its subject; empty where the channel has none.
    subject: String,
    /// Its text.
    body: String,
    /// `due`, `sent` or `failed`.
    status: String,
    /// How often it was tried.
    tries: u32,
    /// The order that it is about.
    order_id: Option<String>,
    /// The event that it tells.
    event_id: Option<String>,
    /// Why the last try failed.
    error: Option<String>,
    /// When it was made.
    created_at: String,
    /// When it is tried next; null once it is done with.
    due_at: Option<String>,
    /// When it was tried last.
    last_tried_at: Option<String>,
}

impl From<&NoticeRow> for NotificationView {
    fn from(row: &NoticeRow) -> Self {
        Self {
            id: row.id.to_string(),
            event: row.topic.event().to_owned(),
            audience: row.topic.audience().name().to_owned(),
            channel: row.channel.name().to_owned(),
            recipient: row.recipient.clone(),
            language: row.language.name().to_owned(),
            subject: row.subject.clone(),
            body: row.body.clone(),
            status: row.status.name().to_owned(),
            tries: row.tries,
            order_id: row.order.clone(),
            event_id: row.event.clone(),
            error: row.last_error.clone(),
            created_at: row.created_at.to_string(),
            due_at: (row.status == NoticeStatus::Due).then(|| row.due_at.to_string()),
            last_tried_at: row.last_tried_at.map(|at| at.to_string()),
        }
    }
}

/// A page of messages.
#[derive(Serialize, ToSchema)]
pub struct NotificationPage {
    /// Newest first.
    data: Vec<NotificationView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which messages to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListNotifications {
    /// `due`, `sent` or `failed`.
    status: Option<String>,
    /// `smtp`, `telegram` or `sms`.
    channel: Option<String>,
    /// About this, as templates are named: `order.paid` for operators, `customer.order.paid` for customers.
    topic: Option<String>,
    /// About this order.
    order_id: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

fn topic(pointer: &str, name: &str) -> Result<Topic, Problem> {
    let known = || Topic::ALL.iter().map(|topic| topic.name()).collect::<Vec<_>>().join(", ");
    Topic::from_name(name).ok_or_else(|| Problem::invalid(pointer, format!("expected one of: {}", known())))
}

fn channel(pointer: &str, name: &str) -> Result<Channel, Problem> {
    Channel::from_name(name).ok_or_else(|| Problem::invalid(pointer, "expected smtp, telegram or sms"))
}

/// List messages to operators and customers, newest first
#[utoipa::path(get, path = "/api/v1/admin/notifications", tag = "notifications", params(ListNotifications),
    responses((status = 200, body = NotificationPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_notifications(
    State(app): State<App>,
    caller: Caller,
    Params(query): Params<ListNotifications>,
) -> Result<Answer, Problem> {
    caller.may(Permission::AlertsRead)?;
    let limit = limit(query.limit)?;
    let status =
        query.status.map(|name| NoticeStatus::from_name(&name).ok_or_else(|| Problem::invalid("status", "expected due, sent or failed")));
    let order = query.order_id.map(|id| id.parse::<OrderId>().map_err(|error| Problem::invalid("order_id", error.to_string())));
    let filter = NoticeFilter {
        status: status.transpose()?,
        channel: query.channel.map(|name| channel("channel", &name)).transpose()?,
        topic: query.topic.map(|name| topic("topic", &name)).transpose()?,
        order: order.transpose()?.map(|id| id.to_string()),
        before: read_cursor(query.cursor)?,
    };
    let mut rows = app
        .gateway
        .store
        .lately(|store| {
            let filter = filter.clone();
            async move { store.notices(filter, one_more(limit)).await }
        })
        .await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &NotificationPage { data: rows.iter().map(NotificationView::from).collect(), next_cursor }))
}

/// A channel to try.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestNotification {
    /// `smtp`, `telegram` or `sms`.
    #[schema(example = "smtp")]
    channel: String,
    /// To whom; the first operator of the configuration without it.
    #[schema(example = "ops@example.com")]
    to: Option<String>,
}

/// How the test went.
#[derive(Serialize, ToSchema)]
pub struct TestedView {
    /// Which channel.
    channel: String,
    /// To whom.
    to: String,
    /// Whether the channel took the message.
    ok: bool,
    /// What went wrong, in words.
    detail: Option<String>,
}

/// Send a test message, and say what happened
#[utoipa::path(post, path = "/api/v1/admin/notifications/test", tag = "notifications", request_body = TestNotification, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "Tried. `ok` says whether the channel took it", body = TestedView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, description = "channel_not_configured", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 429, description = "The channel sends no more than so many a minute", body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn test_notification(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::Admin)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let asked: TestNotification = body.json(EmptyBody::IsMalformed)?;
        let channel = channel("/channel", &asked.channel)?;
        let tested = by_hand::test(&app.gateway, channel, asked.to.as_deref(), &caller.doer()).await?;
        let view = TestedView { channel: channel.name().to_owned(), to: tested.to, ok: tested.failure.is_none(), detail: tested.failure };
        Ok((Answer::json(StatusCode::OK, &view), Kept::NotYet))
    })
    .await
}

/// A body without fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

/// Send a message that was not sent now, with all its tries before it again
#[utoipa::path(post, path = "/api/v1/admin/notifications/{id}/retry", tag = "notifications", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = NotificationView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "notification_sent", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn retry_notification(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, Problem> {
    caller.may(Permission::AlertsWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let _: NoFields = body.json(EmptyBody::MeansNoFields)?;
        let id: NoticeId = id.parse().map_err(|_| Problem::not_found("notification"))?;
        let row = by_hand::retry(&app.gateway, id, &caller.doer()).await?;
        Ok((Answer::json(StatusCode::OK, &NotificationView::from(&row)), Kept::NotYet))
    })
    .await
}

/// A text of messages.
#[derive(Serialize, ToSchema)]
pub struct TemplateView {
    /// What it is about: `order.paid` for operators, `customer.order.paid` for customers.
    #[schema(example = "customer.order.paid")]
    event: String,
    /// `smtp`, `telegram` or `sms`.
    channel: String,
    /// `en` or `zh`.
    language: String,
    /// The subject; empty where the channel has none.
    #[schema(example = "Your order {{reference}} is paid")]
    subject: String,
    /// The text.
    body: String,
    /// True for the one that the program brings.
    is_default: bool,
    /// Since when it is another.
    changed_at: Option<String>,
    /// The names that it may use; of an order `metadata.NAME` too.
    placeholders: Vec<String>,
}

impl From<&TemplateNow> for TemplateView {
    fn from(now: &TemplateNow) -> Self {
        Self {
            event: now.topic.name().to_owned(),
            channel: now.channel.name().to_owned(),
            language: now.language.name().to_owned(),
            subject: now.subject.clone(),
            body: now.body.clone(),
            is_default: now.changed_at.is_none(),
            changed_at: now.changed_at.map(|at| at.to_string()),
            placeholders: template::known(now.topic).into_iter().map(str::to_owned).collect(),
        }
    }
}

/// Every text.
#[derive(Serialize, ToSchema)]
pub struct TemplateList {
    /// By event, channel and language.
    data: Vec<TemplateView>,
}

/// List the texts of messages
#[utoipa::path(get, path = "/api/v1/admin/notification-templates", tag = "notifications",
    responses((status = 200, body = TemplateList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_templates(State(app): State<App>, caller: Caller) -> Result<Answer, Problem> {
    caller.require(Scope::Admin)?;
    let all = by_hand::templates(&app.gateway.store).await?;
    Ok(Answer::json(StatusCode::OK, &TemplateList { data: all.iter().map(TemplateView::from).collect() }))
}

/// A new text.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutTemplate {
    /// The subject, for mail.
    #[serde(default)]
    #[schema(example = "Your order {{reference}} is paid")]
    subject: String,
    /// The text.
    #[schema(example = "Thank you, {{metadata.name}}. {{amount_confirmed}} {{token}} have arrived.")]
    body: String,
}

/// Put a text in the place of another
#[utoipa::path(put, path = "/api/v1/admin/notification-templates/{event}/{channel}/{language}", tag = "notifications", request_body = PutTemplate, params(("event" = String, Path), ("channel" = String, Path), ("language" = String, Path)),
    responses((status = 200, body = TemplateView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, description = "The text uses a name that is not known, or is too long", body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put_template(
    State(app): State<App>,
    caller: Caller,
    Path((event, channel, language)): Path<(String, String, String)>,
    body: RawBody,
) -> Result<Answer, Problem> {
    caller.require(Scope::Admin)?;
    let which = by_hand::named(&event, &channel, &language)?;
    let asked: PutTemplate = body.json(EmptyBody::IsMalformed)?;
    let now = by_hand::put_template(&app.gateway, which, &asked.subject, &lines(&asked.body), &caller.doer()).await?;
    Ok(Answer::json(StatusCode::OK, &TemplateView::from(&now)))
}

/// Take a text back to the one that the program brings
#[utoipa::path(delete, path = "/api/v1/admin/notification-templates/{event}/{channel}/{language}", tag = "notifications", params(("event" = String, Path), ("channel" = String, Path), ("language" = String, Path)),
    responses((status = 200, description = "The text that is used now", body = TemplateView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn delete_template(
    State(app): State<App>,
    caller: Caller,
    Path((event, channel, language)): Path<(String, String, String)>,
) -> Result<Answer, Problem> {
    caller.require(Scope::Admin)?;
    let which = by_hand::named(&event, &channel, &language)?;
    let now = by_hand::delete_template(&app.gateway, which, &caller.doer()).await?;
    Ok(Answer::json(StatusCode::OK, &TemplateView::from(&now)))
}

/// A text to look at before it is used.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewTemplate {
    /// What it is about, as in the list.
    #[schema(example = "customer.order.paid")]
    event: String,
    /// `smtp`, `telegram` or `sms`.
    #[schema(example = "smtp")]
    channel: String,
    /// The subject, for mail.
    #[serde(default)]
    #[schema(example = "Your order {{reference}} is paid")]
    subject: String,
    /// The text.
    #[schema(example = "Thank you, {{metadata.name}}. {{amount_confirmed}} {{token}} have arrived.")]
    body: String,
}

/// A text, filled in.
#[derive(Serialize, ToSchema)]
pub struct PreviewView {
    /// The subject.
    #[schema(example = "Your order INV-1001 is paid")]
    subject: String,
    /// The text.
    #[schema(example = "Thank you, Ann. 12 USDT have arrived.")]
    body: String,
}

/// Show how a text reads, filled in with a sample; nothing is kept
#[utoipa::path(post, path = "/api/v1/admin/notification-templates/preview", tag = "notifications", request_body = PreviewTemplate,
    responses((status = 200, body = PreviewView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, description = "The text uses a name that is not known, or is too long", body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn preview_template(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Answer, Problem> {
    caller.require(Scope::Admin)?;
    let asked: PreviewTemplate = body.json(EmptyBody::IsMalformed)?;
    let which = (topic("/event", &asked.event)?, channel("/channel", &asked.channel)?);
    let (subject, body) = by_hand::preview(&app.gateway.config, which, &asked.subject, &lines(&asked.body))?;
    Ok(Answer::json(StatusCode::OK, &PreviewView { subject, body }))
}

/// A text whose lines end as ours do.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}
