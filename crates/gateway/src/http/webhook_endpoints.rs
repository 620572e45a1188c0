//! Further receivers of a merchant's webhooks over HTTP, for the owner. A secret is shown once, in the
//! answer that made it; what is kept for a replay leaves it out.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tidegate_rules::id::{EndpointId, MerchantId};
use tidegate_rules::people::Permission;
use tidegate_rules::webhook_endpoint::{EndpointState, EndpointTerms};
use utoipa::ToSchema;

use super::api::{cut_page, limit, one_more, read_cursor, text, web_url, write_cursor};
use super::auth::Caller;
use super::credentials::{RotateSecret, events};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::login::Page;
use super::request::{EmptyBody, Params, RawBody, id_in_path, not_null, or_null};
use super::{App, ProblemBody};
use crate::clock;
use crate::config::SecretText;
use crate::credentials;
use crate::notify::Trial;
use crate::problem::Problem;
use crate::store::EndpointRow;
use crate::webhook_endpoints;

/// A further receiver of a merchant's webhooks.
#[derive(Serialize, ToSchema)]
pub struct EndpointView {
    /// Its id.
    #[schema(example = "whe_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// Whose webhooks it hears.
    merchant_id: String,
    /// Where they go.
    #[schema(example = "https://warehouse.example/webhooks/tidegate")]
    url: String,
    /// What people say of it.
    description: Option<String>,
    /// The types of events that it takes; null for all.
    #[schema(example = json!(["order.paid", "order.expired"]))]
    events: Option<Vec<String>>,
    /// Whether it hears of what happens from now on.
    enabled: bool,
    /// Until when the secret before this one signs too.
    old_secret_valid_until: Option<String>,
    /// Since when.
    created_at: String,
}

impl EndpointView {
    /// One line of a table.
    #[must_use]
    pub fn line(&self) -> String {
        let state = if self.enabled { "enabled" } else { "disabled" };
        let events = self.events.as_ref().map_or_else(|| "everything".to_owned(), |events| events.join(" "));
        format!("{:<37} {state:<9} {}  {events}", self.id, self.url)
    }
}

impl From<&EndpointRow> for EndpointView {
    fn from(row: &EndpointRow) -> Self {
        let now = clock::now();
        let until = row.previous_secret.as_ref().map(|(_, until)| *until).filter(|until| now < *until);
        Self {
            id: row.id.to_string(),
            merchant_id: row.merchant.to_string(),
            url: row.terms.url.clone(),
            description: row.terms.description.clone(),
            events: row.terms.events.as_ref().map(|words| words.split_whitespace().map(str::to_owned).collect()),
            enabled: row.terms.state == EndpointState::Enabled,
            old_secret_valid_until: until.map(|until| until.to_string()),
            created_at: row.created_at.to_string(),
        }
    }
}

/// An endpoint and the secret that was made for it.
#[derive(Serialize, ToSchema)]
pub struct NewEndpointView {
    /// The endpoint.
    #[serde(flatten)]
    endpoint: EndpointView,
    /// What signs its webhooks, shown this once; left out in a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_…")]
    secret: Option<String>,
}

impl NewEndpointView {
    /// The endpoint, with its secret where that is shown.
    #[must_use]
    pub fn of(row: &EndpointRow, secret: Option<&SecretText>) -> Self {
        Self { endpoint: EndpointView::from(row), secret: secret.map(|secret| secret.expose().to_owned()) }
    }
}

/// A page of endpoints.
#[derive(Serialize, ToSchema)]
pub struct EndpointPage {
    /// Newest first.
    data: Vec<EndpointView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// The merchant and the endpoint that a path names.
fn both((merchant, endpoint): (String, String)) -> Result<(MerchantId, EndpointId), Problem> {
    Ok((id_in_path("merchant", &merchant)?, id_in_path("webhook endpoint", &endpoint)?))
}

/// List a merchant's webhook endpoints, newest first
///
/// Its `webhook_url` is beside them: see the merchant.
#[utoipa::path(get, path = "/api/v1/admin/merchants/{id}/webhook-endpoints", tag = "credentials", params(("id" = String, Path), Page),
    responses((status = 200, body = EndpointPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_endpoints(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Params(query): Params<Page>,
) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsRead)?;
    let limit = limit(query.limit)?;
    let before = read_cursor(query.cursor)?;
    let merchant = credentials::merchant(&app.gateway.store, id_in_path("merchant", &id)?).await?.id;
    let mut rows = app.gateway.store.endpoints(merchant, before, one_more(limit)).await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &EndpointPage { data: rows.iter().map(EndpointView::from).collect(), next_cursor }))
}

/// Show a webhook endpoint
#[utoipa::path(get, path = "/api/v1/admin/merchants/{id}/webhook-endpoints/{endpoint_id}", tag = "credentials", params(("id" = String, Path), ("endpoint_id" = String, Path)),
    responses((status = 200, body = EndpointView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_endpoint(State(app): State<App>, caller: Caller, Path(path): Path<(String, String)>) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsRead)?;
    let (merchant, id) = both(path)?;
    let row = webhook_endpoints::find(&app.gateway, merchant, id).await?;
    Ok(Answer::json(StatusCode::OK, &EndpointView::from(&row)))
}

/// An endpoint to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddEndpoint {
    /// Where its webhooks go.
    #[schema(example = "https://warehouse.example/webhooks/tidegate")]
    url: String,
    /// What people say of it.
    #[schema(example = "the warehouse")]
    description: Option<String>,
    /// The types of events that it takes, such as `order.paid`; null or left out for all.
    #[schema(example = json!(["order.paid", "order.expired"]))]
    events: Option<Vec<String>>,
    /// Whether it hears of what happens from now on: true unless you say otherwise.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<bool>,
}

fn url(asked: String) -> Result<String, Problem> {
    Ok(web_url("url", Some(asked))?.unwrap_or_default())
}

/// Add a webhook endpoint
///
/// It hears of everything that it takes and that happens from now on, whatever an order's `callback_url`
/// says, each event signed with the endpoint's own secret. A merchant has at most 16. Needs a second
/// factor from whoever is logged in: a fresh code in the header X-TOTP.
#[utoipa::path(post, path = "/api/v1/admin/merchants/{id}/webhook-endpoints", tag = "credentials", request_body = AddEndpoint,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header), ("X-TOTP" = Option<String>, Header)),
    responses((status = 201, body = NewEndpointView, headers(("Location" = String))), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, description = "too_many_endpoints, idempotency_conflict", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn add_endpoint(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: AddEndpoint = body.json(EmptyBody::IsMalformed)?;
        let terms = EndpointTerms {
            url: url(asked.url)?,
            description: text("description", asked.description)?,
            events: events("/events", asked.events)?,
            state: if asked.enabled == Some(false) { EndpointState::Disabled } else { EndpointState::Enabled },
        };
        let merchant = credentials::merchant(&app.gateway.store, id_in_path("merchant", &id)?).await?.id;
        caller.prove(&app, Permission::MerchantsWrite).await?;
        let made = |row: &EndpointRow, secret: Option<&SecretText>| {
            let location = format!("/api/v1/admin/merchants/{merchant}/webhook-endpoints/{}", row.id);
            Answer::json(StatusCode::CREATED, &NewEndpointView::of(row, secret)).at(location)
        };
        let keep = |row: &EndpointRow| keeper.as_ref().map(|keeper| keeper.keep(&made(row, None)));
        let (row, secret) = webhook_endpoints::add(&app.gateway, merchant, &terms, &caller.doer(), keep).await?;
        Ok((made(&row, Some(&secret)), Kept::InItsCommit))
    })
    .await
}

/// What may be changed of an endpoint. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutEndpoint {
    /// Where its webhooks go from now on.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Option<String>)]
    url: Option<String>,
    /// What people say of it; null for nothing.
    #[serde(default, deserialize_with = "or_null")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// The types of events that it takes from now on; null for all.
    #[serde(default, deserialize_with = "or_null")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["order.paid"]))]
    events: Option<Option<Vec<String>>>,
    /// Whether it hears of what happens from now on.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<bool>,
}

/// Change a webhook endpoint
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP. What is in the
/// outbox goes where it was to go; to end that too, remove the endpoint.
#[utoipa::path(put, path = "/api/v1/admin/merchants/{id}/webhook-endpoints/{endpoint_id}", tag = "credentials", request_body = PutEndpoint,
    params(("id" = String, Path), ("endpoint_id" = String, Path), ("X-TOTP" = Option<String>, Header)),
    responses((status = 200, body = EndpointView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put_endpoint(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    body: RawBody,
) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    let asked: PutEndpoint = body.json(EmptyBody::IsMalformed)?;
    let to_url = asked.url.map(url).transpose()?;
    let description = asked.description.map(|said| text("description", said)).transpose()?;
    let wanted = asked.events.map(|names| events("/events", names)).transpose()?;
    let (merchant, id) = both(path)?;
    webhook_endpoints::find(&app.gateway, merchant, id).await?;
    caller.prove(&app, Permission::MerchantsWrite).await?;
    let change = |now: &EndpointTerms| EndpointTerms {
        url: to_url.clone().unwrap_or_else(|| now.url.clone()),
        description: description.clone().unwrap_or_else(|| now.description.clone()),
        events: wanted.clone().unwrap_or_else(|| now.events.clone()),
        state: match asked.enabled {
            None => now.state,
            Some(true) => EndpointState::Enabled,
            Some(false) => EndpointState::Disabled,
        },
    };
    let row = webhook_endpoints::put(&app.gateway, merchant, id, &caller.doer(), change).await?;
    Ok(Answer::json(StatusCode::OK, &EndpointView::from(&row)))
}

/// Remove a webhook endpoint
///
/// Nothing is sent there any more, neither what happens from now on nor what it has not taken yet. Needs
/// a second factor from whoever is logged in: a fresh code in the header X-TOTP.
#[utoipa::path(delete, path = "/api/v1/admin/merchants/{id}/webhook-endpoints/{endpoint_id}", tag = "credentials",
    params(("id" = String, Path), ("endpoint_id" = String, Path), ("X-TOTP" = Option<String>, Header)),
    responses((status = 204), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn remove_endpoint(State(app): State<App>, caller: Caller, Path(path): Path<(String, String)>) -> Result<Response, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    let (merchant, id) = both(path)?;
    webhook_endpoints::find(&app.gateway, merchant, id).await?;
    caller.prove(&app, Permission::MerchantsWrite).await?;
    webhook_endpoints::remove(&app.gateway, merchant, id, &caller.doer()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Give a webhook endpoint another secret
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP. For a while its
/// webhooks carry two signatures, the new one first.
#[utoipa::path(post, path = "/api/v1/admin/merchants/{id}/webhook-endpoints/{endpoint_id}/rotate-secret", tag = "credentials", request_body(content = RotateSecret, description = "May be left out"),
    params(("id" = String, Path), ("endpoint_id" = String, Path), ("Idempotency-Key" = Option<String>, Header), ("X-TOTP" = Option<String>, Header)),
    responses((status = 200, body = NewEndpointView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn rotate_endpoint_secret(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    body: RawBody,
) -> Result<Response, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: RotateSecret = body.json(EmptyBody::MeansNoFields)?;
        let kept = asked.kept()?;
        let (merchant, id) = both(path)?;
        webhook_endpoints::find(&app.gateway, merchant, id).await?;
        caller.prove(&app, Permission::MerchantsWrite).await?;
        let shown = |row: &EndpointRow, secret: Option<&SecretText>| Answer::json(StatusCode::OK, &NewEndpointView::of(row, secret));
        let keep = |row: &EndpointRow| keeper.as_ref().map(|keeper| keeper.keep(&shown(row, None)));
        let (row, secret) = webhook_endpoints::rotate_secret(&app.gateway, merchant, id, kept, &caller.doer(), keep).await?;
        Ok((shown(&row, Some(&secret)), Kept::InItsCommit))
    })
    .await
}

/// What came of a webhook that was sent to see what an endpoint answers.
#[derive(Serialize, ToSchema)]
pub struct TrialView {
    /// The `webhook-id` that it had.
    #[schema(example = "evt_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    webhook_id: String,
    /// Whether it was accepted: any 2xx in time.
    accepted: bool,
    /// When it was sent.
    at: String,
    /// How long the answer took, in milliseconds.
    took_ms: u64,
    /// The status code of the answer, if one came.
    #[schema(example = 204)]
    code: Option<u16>,
    /// Why it was not accepted.
    error: Option<String>,
    /// The beginning of the body that came back; control characters are replaced.
    answer: Option<String>,
}

impl From<Trial> for TrialView {
    fn from(trial: Trial) -> Self {
        Self {
            webhook_id: trial.id.to_string(),
            accepted: trial.error.is_none(),
            at: trial.at.to_string(),
            took_ms: trial.took.millis(),
            code: trial.code,
            error: trial.error,
            answer: trial.answer,
        }
    }
}

/// Send a webhook endpoint a test
///
/// One webhook of the type `webhook.test`, signed as all are, now and once, also while the endpoint is
/// disabled. Its `data` is `{ "endpoint_id", "merchant_id" }`; it is in no list of events. The answer says
/// what the receiver said.
#[utoipa::path(post, path = "/api/v1/admin/merchants/{id}/webhook-endpoints/{endpoint_id}/test", tag = "credentials",
    params(("id" = String, Path), ("endpoint_id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = TrialView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn test_endpoint(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<(String, String)>,
    body: RawBody,
) -> Result<Response, Problem> {
    caller.may(Permission::AllOrdersWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let (merchant, id) = both(path)?;
        let trial = webhook_endpoints::test(&app.gateway, merchant, id, &caller.doer()).await?;
        Ok((Answer::json(StatusCode::OK, &TrialView::from(trial)), Kept::NotYet))
    })
    .await
}
