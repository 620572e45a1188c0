//! Merchants and API keys over HTTP, for operators. A secret is shown once, in the answer that made
//! it; what is kept for a replay leaves it out.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tidegate_rules::id::{KeyId, MerchantId};
use tidegate_rules::people::Permission;
use tidegate_rules::time::{Span, Time};
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, one_more, read_cursor, web_url, write_cursor};
use super::auth::{Caller, SCOPES};
use super::events::event_type;
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::login::Page;
use super::request::{EmptyBody, Params, RawBody, id_in_path, or_null};
use super::wallets::checked_name;
use super::{App, ProblemBody};
use crate::clock;
use crate::config::{IpRange, SecretText};
use crate::credentials::{self, KeyWish, MerchantPut, MerchantWish, OLD_SECRET_KEPT, OLD_SECRET_KEPT_MAX};
use crate::gateway::Gateway;
use crate::problem::Problem;
use crate::start::MAIN_MERCHANT;
use crate::store::{ApiKeyRow, MerchantRow};

/// How many addresses and networks a key may be used from.
const RANGES_MAX: usize = 32;

/// A merchant: a shop of the owner.
#[derive(Serialize, ToSchema)]
pub struct MerchantView {
    /// Its id.
    #[schema(example = "mer_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// Its name.
    #[schema(example = "main")]
    name: String,
    /// Where its webhooks go, unless an order says otherwise.
    webhook_url: Option<String>,
    /// The types of events that go there, and to the callback URLs of its orders; null for all. Its webhook
    /// endpoints have their own.
    webhook_events: Option<Vec<String>>,
    /// Until when the secret before this one signs too.
    old_secret_valid_until: Option<String>,
    /// Since when.
    created_at: String,
}

impl From<&MerchantRow> for MerchantView {
    fn from(row: &MerchantRow) -> Self {
        let now = clock::now();
        let until = row.previous_secret.as_ref().map(|(_, until)| *until).filter(|until| now < *until);
        Self {
            id: row.id.to_string(),
            name: row.name.clone(),
            webhook_url: row.webhook_url.clone(),
            webhook_events: row.webhook_events.as_ref().map(|words| words.split_whitespace().map(str::to_owned).collect()),
            old_secret_valid_until: until.map(|until| until.to_string()),
            created_at: row.created_at.to_string(),
        }
    }
}

/// A merchant and the webhook secret that was made for it.
#[derive(Serialize, ToSchema)]
pub struct NewMerchantView {
    /// The merchant.
    #[serde(flatten)]
    merchant: MerchantView,
    /// What signs its webhooks, shown this once; left out in a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_…")]
    webhook_secret: Option<String>,
}

impl NewMerchantView {
    fn of(row: &MerchantRow, secret: Option<&SecretText>) -> Self {
        Self { merchant: MerchantView::from(row), webhook_secret: secret.map(|secret| secret.expose().to_owned()) }
    }
}

/// A page of merchants.
#[derive(Serialize, ToSchema)]
pub struct MerchantPage {
    /// Newest first.
    data: Vec<MerchantView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// List the merchants, newest first
#[utoipa::path(get, path = "/api/v1/admin/merchants", tag = "credentials", params(Page),
    responses((status = 200, body = MerchantPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_merchants(State(app): State<App>, caller: Caller, Params(query): Params<Page>) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsRead)?;
    let limit = limit(query.limit)?;
    let mut rows = app.gateway.store.merchant_page(read_cursor(query.cursor)?, one_more(limit)).await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &MerchantPage { data: rows.iter().map(MerchantView::from).collect(), next_cursor }))
}

/// Show a merchant
#[utoipa::path(get, path = "/api/v1/admin/merchants/{id}", tag = "credentials", params(("id" = String, Path)),
    responses((status = 200, body = MerchantView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_merchant(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsRead)?;
    let row = credentials::merchant(&app.gateway.store, id_in_path("merchant", &id)?).await?;
    Ok(Answer::json(StatusCode::OK, &MerchantView::from(&row)))
}

/// A merchant to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMerchant {
    /// Its name, unique.
    #[schema(example = "my-shop")]
    name: String,
    /// Where its webhooks go.
    #[schema(example = "https://shop.example/webhooks/tidegate")]
    webhook_url: Option<String>,
}

fn name_taken() -> Problem {
    Problem::conflict("merchant_exists", "there is a merchant of this name already")
}

/// Add a merchant
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP.
#[utoipa::path(post, path = "/api/v1/admin/merchants", tag = "credentials", request_body = AddMerchant, params(("Idempotency-Key" = Option<String>, Header), ("X-TOTP" = Option<String>, Header)),
    responses((status = 201, body = NewMerchantView, headers(("Location" = String))), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 409, description = "merchant_exists", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn add_merchant(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: AddMerchant = body.json(EmptyBody::IsMalformed)?;
        let name = checked_name("/name", Some(asked.name))?.unwrap_or_default();
        let wish = MerchantWish { name, webhook_url: web_url("webhook_url", asked.webhook_url)? };
        if app.gateway.store.merchants().await?.iter().any(|row| row.name == wish.name) {
            return Err(name_taken());
        }
        caller.prove(&app, Permission::MerchantsWrite).await?;
        let made = |row: &MerchantRow, secret: Option<&SecretText>| {
            Answer::json(StatusCode::CREATED, &NewMerchantView::of(row, secret)).at(format!("/api/v1/admin/merchants/{}", row.id))
        };
        let keep = |row: &MerchantRow| keeper.as_ref().map(|keeper| keeper.keep(&made(row, None)));
        let Gateway { store, vault, .. } = &*app.gateway;
        let (row, secret) = credentials::add_merchant(store, vault, wish, &caller.doer(), keep).await?.ok_or_else(name_taken)?;
        Ok((made(&row, Some(&secret)), Kept::InItsCommit))
    })
    .await
}

/// Types of events, each one known and named once, as words; null stays null, which means all.
pub(super) fn events(pointer: &str, names: Option<Vec<String>>) -> Result<Option<String>, Problem> {
    let Some(names) = names else { return Ok(None) };
    let mut wanted = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        let kind = event_type(&pointer, name)?;
        if wanted.contains(&kind.name()) {
            return Err(Problem::invalid(&pointer, format!("{name:?} is named twice")));
        }
        wanted.push(kind.name());
    }
    Ok(Some(wanted.join(" ")))
}

/// What may be changed of a merchant. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutMerchant {
    /// Another name. `main` keeps its own.
    name: Option<String>,
    /// Where its webhooks go from now on; null is nowhere.
    #[serde(default, deserialize_with = "or_null")]
    #[schema(value_type = Option<String>)]
    webhook_url: Option<Option<String>>,
    /// The types of events that go there, such as `order.paid`; null for all. `GET /api/v1/events` has
    /// all of them in any case.
    #[serde(default, deserialize_with = "or_null")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["order.paid", "order.expired"]))]
    webhook_events: Option<Option<Vec<String>>>,
}

/// Change a merchant
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP. What is in the
/// outbox goes where it was to go.
#[utoipa::path(put, path = "/api/v1/admin/merchants/{id}", tag = "credentials", request_body = PutMerchant, params(("id" = String, Path), ("X-TOTP" = Option<String>, Header)),
    responses((status = 200, body = MerchantView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, description = "merchant_exists, main_merchant", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put_merchant(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Answer, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    let asked: PutMerchant = body.json(EmptyBody::IsMalformed)?;
    let put = MerchantPut {
        name: checked_name("/name", asked.name)?,
        webhook_url: asked.webhook_url.map(|url| web_url("webhook_url", url)).transpose()?,
        webhook_events: asked.webhook_events.map(|names| events("/webhook_events", names)).transpose()?,
    };
    let row = credentials::merchant(&app.gateway.store, id_in_path("merchant", &id)?).await?;
    caller.prove(&app, Permission::MerchantsWrite).await?;
    let row = credentials::put_merchant(&app.gateway.store, row, put, &caller.doer()).await?;
    app.gateway.forget_merchants();
    Ok(Answer::json(StatusCode::OK, &MerchantView::from(&row)))
}

/// How a webhook secret is replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateSecret {
    /// For how many seconds the old one signs too: 24 hours unless you say otherwise, at most 30 days.
    #[schema(example = 86400)]
    old_valid_for: Option<u64>,
}

impl RotateSecret {
    /// For how long the old one signs too.
    pub(super) fn kept(&self) -> Result<Span, Problem> {
        let kept = self.old_valid_for.map_or(OLD_SECRET_KEPT, Span::from_secs);
        if kept > OLD_SECRET_KEPT_MAX {
            return Err(Problem::invalid("/old_valid_for", format!("expected at most {} seconds", OLD_SECRET_KEPT_MAX.secs())));
        }
        Ok(kept)
    }
}

/// Give a merchant another webhook secret
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP. For a while
/// webhooks carry two signatures, the new one first.
#[utoipa::path(post, path = "/api/v1/admin/merchants/{id}/rotate-secret", tag = "credentials", request_body(content = RotateSecret, description = "May be left out"),
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header), ("X-TOTP" = Option<String>, Header)),
    responses((status = 200, body = NewMerchantView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn rotate_secret(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::MerchantsWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: RotateSecret = body.json(EmptyBody::MeansNoFields)?;
        let kept = asked.kept()?;
        let id = credentials::merchant(&app.gateway.store, id_in_path("merchant", &id)?).await?.id;
        caller.prove(&app, Permission::MerchantsWrite).await?;
        let shown = |row: &MerchantRow, secret: Option<&SecretText>| Answer::json(StatusCode::OK, &NewMerchantView::of(row, secret));
        let keep = |row: &MerchantRow| keeper.as_ref().map(|keeper| keeper.keep(&shown(row, None)));
        let (row, secret) = credentials::rotate_secret(&app.gateway, id, kept, &caller.doer(), keep).await?;
        Ok((shown(&row, Some(&secret)), Kept::InItsCommit))
    })
    .await
}

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
pub struct KeyView {
    /// Its id.
    #[schema(example = "key_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// Whose.
    merchant_id: String,
    /// What people call it.
    name: Option<String>,
    /// What it may do.
    #[schema(example = json!(["orders:read", "orders:write"]))]
    scopes: Vec<String>,
    /// For real money?
    livemode: bool,
    /// The addresses and networks it may be used from; empty for all.
    allowed_ips: Vec<String>,
    /// Since when.
    created_at: String,
    /// Until when it is good; null for as long as nobody ends it.
    expires_at: Option<String>,
    /// When it was used last; up to a minute old.
    last_used_at: Option<String>,
    /// Since when it is void.
    revoked_at: Option<String>,
}

impl KeyView {
    /// One line of a table.
    #[must_use]
    pub fn line(&self) -> String {
        let state = match (&self.revoked_at, &self.expires_at) {
            (Some(at), _) => format!("void since {at}"),
            (None, Some(at)) => format!("until {at}"),
            (None, None) => "good".to_owned(),
        };
        format!(
            "{:<37} {:<37} {:<40} {:<33} {}",
            self.id,
            self.merchant_id,
            self.scopes.join(" "),
            state,
            self.name.as_deref().unwrap_or("-")
        )
    }
}

impl From<&ApiKeyRow> for KeyView {
    fn from(row: &ApiKeyRow) -> Self {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Self {
            id: row.id.to_string(),
            merchant_id: row.merchant.to_string(),
            name: row.name.clone(),
            scopes: words(&row.scopes),
            livemode: row.livemode,
            allowed_ips: words(&row.allowed_ips),
            created_at: row.created_at.to_string(),
            expires_at: row.expires_at.map(|at| at.to_string()),
            last_used_at: row.last_used_at.map(|at| at.to_string()),
            revoked_at: row.revoked_at.map(|at| at.to_string()),
        }
    }
}

/// A new API key with its secret.
#[derive(Serialize, ToSchema)]
pub struct NewKeyView {
    /// The key.
    #[serde(flatten)]
    key: KeyView,
    /// The key itself, shown this once; left out in a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "tg_live_…")]
    secret: Option<String>,
}

/// A page of API keys.
#[derive(Serialize, ToSchema)]
pub struct KeyPage {
    /// Newest first.
    pub data: Vec<KeyView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which API keys to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListKeys {
    /// Of this merchant.
    merchant_id: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List the API keys, newest first, those that have ended too
#[utoipa::path(get, path = "/api/v1/admin/api-keys", tag = "credentials", params(ListKeys),
    responses((status = 200, body = KeyPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_keys(State(app): State<App>, caller: Caller, Params(query): Params<ListKeys>) -> Result<Answer, Problem> {
    caller.may(Permission::KeysRead)?;
    let limit = limit(query.limit)?;
    let of = query
        .merchant_id
        .map(|id| id.parse::<MerchantId>().map_err(|_| Problem::invalid("merchant_id", "expected the id of a merchant, mer_…")));
    let before = read_cursor(query.cursor)?;
    let mut rows = app.gateway.store.api_keys(of.transpose()?, before, one_more(limit)).await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &KeyPage { data: rows.iter().map(KeyView::from).collect(), next_cursor }))
}

/// An API key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddKey {
    /// Whose; the merchant `main` unless you say otherwise.
    merchant_id: Option<String>,
    /// What people call it.
    #[schema(example = "shop backend")]
    name: Option<String>,
    /// `orders:read`, `orders:write`, `wallets:read`, `wallets:write`, `admin`.
    #[schema(example = json!(["orders:read", "orders:write"]))]
    scopes: Vec<String>,
    /// Until when it is good.
    #[schema(example = "2027-01-01T00:00:00Z")]
    expires_at: Option<String>,
    /// The addresses and networks it may be used from; without them it may be used from everywhere.
    #[schema(example = json!(["203.0.113.7", "2001:db8::/48"]))]
    allowed_ips: Option<Vec<String>>,
}

impl AddKey {
    fn scopes(&self) -> Result<Vec<String>, Problem> {
        let wrong = |at: &str| Problem::invalid(at, format!("expected one of: {}", SCOPES.join(", ")));
        if self.scopes.is_empty() {
            return Err(wrong("/scopes"));
        }
        if let Some(index) = self.scopes.iter().position(|scope| !SCOPES.contains(&scope.as_str())) {
            return Err(wrong(&format!("/scopes/{index}")));
        }
        // In the order in which they are told, and each once.
        Ok(SCOPES.iter().filter(|known| self.scopes.iter().any(|scope| scope == *known)).map(|scope| (*scope).to_owned()).collect())
    }

    fn expiry(&self, now: Time) -> Result<Option<Time>, Problem> {
        let Some(text) = &self.expires_at else { return Ok(None) };
        let until: Time = text.parse().map_err(|error| Problem::invalid("/expires_at", format!("{error}")))?;
        if until > now { Ok(Some(until)) } else { Err(Problem::invalid("/expires_at", "expected a time to come")) }
    }

    fn ranges(&self) -> Result<Vec<IpRange>, Problem> {
        let ranges = self.allowed_ips.as_deref().unwrap_or_default();
        // An empty list says that nobody may use it, and would mean that everybody may.
        if self.allowed_ips.is_some() && ranges.is_empty() || ranges.len() > RANGES_MAX {
            return Err(Problem::invalid(
                "/allowed_ips",
                format!("expected 1 to {RANGES_MAX} addresses or networks; leave it out for all"),
            ));
        }
        let read = |(index, text): (usize, &String)| {
            let wrong = |()| Problem::invalid(&format!("/allowed_ips/{index}"), "expected an address or a network such as 10.0.0.0/8");
            text.parse::<IpRange>().map_err(wrong)
        };
        ranges.iter().enumerate().map(read).collect()
    }
}

/// Make an API key
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP.
#[utoipa::path(post, path = "/api/v1/admin/api-keys", tag = "credentials", request_body = AddKey, params(("Idempotency-Key" = Option<String>, Header), ("X-TOTP" = Option<String>, Header)),
    responses((status = 201, body = NewKeyView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn add_key(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::KeysWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: AddKey = body.json(EmptyBody::IsMalformed)?;
        let merchants = app.gateway.store.merchants().await?;
        let merchant = merchants.iter().find(|row| match &asked.merchant_id {
            Some(id) => row.id.to_string() == *id,
            None => row.name == MAIN_MERCHANT,
        });
        let merchant = merchant.ok_or_else(|| Problem::invalid("/merchant_id", "expected the id of a merchant, mer_…"))?;
        let wish = KeyWish {
            merchant: merchant.id,
            scopes: asked.scopes()?,
            livemode: app.gateway.livemode,
            expires_at: asked.expiry(clock::now())?,
            allowed_ips: asked.ranges()?,
            name: checked_name("/name", asked.name)?,
        };
        caller.prove(&app, Permission::KeysWrite).await?;
        let made =
            |row: &ApiKeyRow, secret: Option<String>| Answer::json(StatusCode::CREATED, &NewKeyView { key: KeyView::from(row), secret });
        let keep = |row: &ApiKeyRow| keeper.as_ref().map(|keeper| keeper.keep(&made(row, None)));
        let (row, secret) = credentials::add_api_key(&app.gateway.store, wish, &caller.doer(), keep).await?;
        Ok((made(&row, Some(secret.expose().to_owned())), Kept::InItsCommit))
    })
    .await
}

/// End an API key
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP. Other processes
/// of the same database follow within five seconds.
#[utoipa::path(delete, path = "/api/v1/admin/api-keys/{id}", tag = "credentials", params(("id" = String, Path), ("X-TOTP" = Option<String>, Header)),
    responses((status = 204), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn revoke_key(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Permission::KeysWrite)?;
    let id: KeyId = id_in_path("API key", &id)?;
    caller.prove(&app, Permission::KeysWrite).await?;
    credentials::revoke_api_key(&app.gateway.store, id, &caller.doer()).await?;
    app.keys.forget(id);
    Ok(StatusCode::NO_CONTENT.into_response())
}
