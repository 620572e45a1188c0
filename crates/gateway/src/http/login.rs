//! Coming in over HTTP: log-in, sessions, passwords and second factors of whoever asks. The pages of
//! the operators use these calls, and no others.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{SET_COOKIE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tidegate_rules::id::SessionId;
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, one_more, read_cursor, write_cursor};
use super::auth::{Caller, address_of, cookie_name, is_https};
use super::idempotency::Answer;
use super::people::UserView;
use super::request::{EmptyBody, Hidden, Params, RawBody};
use super::{App, ProblemBody};
use crate::clock;
use crate::people::login::{self, Attempt, LoggedIn, SESSION_MAX};
use crate::people::users::{self, Own};
use crate::problem::Problem;
use crate::store::SessionRow;

/// Where a request comes from, and with which program.
pub struct Origin {
    address: std::net::IpAddr,
    agent: String,
}

impl FromRequestParts<App> for Origin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Self { address: address_of(app, parts), agent })
    }
}

/// Who wants to come in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    /// The e-mail address.
    #[schema(example = "owner@shop.example")]
    email: String,
    /// The password.
    #[schema(value_type = String)]
    password: Hidden,
    /// A code of the second factor, for an account that has one.
    #[schema(example = "123456")]
    totp: Option<String>,
}

/// Somebody who is in.
#[derive(Serialize, ToSchema)]
pub struct SessionAnswer {
    /// Who.
    user: UserView,
    /// To be sent in the header X-CSRF-Token with every call that changes something.
    csrf_token: String,
    /// When the session ends by itself.
    expires_at: String,
}

/// Log in
///
/// Sets the cookie of a session. `Idempotency-Key` has no effect on this call.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "people", request_body = LogIn, security(()),
    responses((status = 200, body = SessionAnswer, headers(("Set-Cookie" = String))), (status = 400, body = ProblemBody),
        (status = 401, description = "invalid_credentials, totp_required or invalid_totp", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 429, description = "Too many tries; Retry-After says when the next may come", body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn log_in(State(app): State<App>, from: Origin, body: RawBody) -> Result<Response, Problem> {
    let asked: LogIn = body.json(EmptyBody::IsMalformed)?;
    let attempt =
        Attempt { email: &asked.email, password: asked.password.0, totp: asked.totp.as_deref(), address: from.address, agent: &from.agent };
    let LoggedIn { user, token, expires_at } = login::log_in(&app.gateway, &app.throttle, attempt).await?;
    let view = SessionAnswer { user: UserView::from(&user), csrf_token: login::csrf_token(&token), expires_at: expires_at.to_string() };
    with_cookie(&app, Answer::json(StatusCode::OK, &view), token.expose(), SESSION_MAX.secs())
}

/// The answer with the cookie of a session; an empty one that lives no second takes it away.
fn with_cookie(app: &App, answer: Answer, token: &str, seconds: u64) -> Result<Response, Problem> {
    let secure = if is_https(app) { "; Secure" } else { "" };
    let cookie = format!("{}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}", cookie_name(app));
    let mut cookie = HeaderValue::try_from(cookie).map_err(|_| Problem::internal())?;
    cookie.set_sensitive(true);
    let mut response = answer.into_response();
    response.headers_mut().insert(SET_COOKIE, cookie);
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An answer without a body.
fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Log out
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "people",
    responses((status = 204), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn log_out(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    let person = caller.person()?;
    login::end_session(&app.gateway, person.user.id, person.session.id, &caller.doer()).await?;
    let mut response = with_cookie(&app, Answer { status: StatusCode::NO_CONTENT, location: None, body: String::new() }, "", 0)?;
    response.headers_mut().remove("content-type");
    Ok(response)
}

/// Show who is logged in
#[utoipa::path(get, path = "/api/v1/auth/session", tag = "people",
    responses((status = 200, body = SessionAnswer), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_session(caller: Caller) -> Result<Response, Problem> {
    let person = caller.person()?;
    let view = SessionAnswer {
        user: UserView::from(&person.user),
        csrf_token: login::csrf_token(&person.token),
        expires_at: person.session.expires_at.to_string(),
    };
    let mut response = Answer::json(StatusCode::OK, &view).into_response();
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A session.
#[derive(Serialize, ToSchema)]
pub struct SessionView {
    /// Its id.
    #[schema(example = "ses_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// True for the one that asks.
    current: bool,
    /// From which address it was begun.
    address: String,
    /// With which program.
    user_agent: String,
    /// Since when.
    created_at: String,
    /// When it was used last; up to a minute old.
    last_seen_at: String,
    /// When it ends by itself.
    expires_at: String,
}

impl SessionView {
    fn of(row: &SessionRow, current: SessionId) -> Self {
        Self {
            id: row.id.to_string(),
            current: row.id == current,
            address: row.address.clone(),
            user_agent: row.agent.clone(),
            created_at: row.created_at.to_string(),
            last_seen_at: row.seen_at.to_string(),
            expires_at: row.expires_at.to_string(),
        }
    }
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
pub struct SessionPage {
    /// Newest first.
    data: Vec<SessionView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// How many, 1 to 200.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// List one's own sessions, newest first
#[utoipa::path(get, path = "/api/v1/auth/sessions", tag = "people", params(Page),
    responses((status = 200, body = SessionPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_sessions(State(app): State<App>, caller: Caller, Params(query): Params<Page>) -> Result<Answer, Problem> {
    let person = caller.person()?;
    let limit = limit(query.limit)?;
    let before = read_cursor(query.cursor)?;
    let mut rows = app.gateway.store.sessions(person.user.id, clock::now(), before, one_more(limit)).await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    let data = rows.iter().map(|row| SessionView::of(row, person.session.id)).collect();
    Ok(Answer::json(StatusCode::OK, &SessionPage { data, next_cursor }))
}

/// End one of one's own sessions
#[utoipa::path(delete, path = "/api/v1/auth/sessions/{id}", tag = "people", params(("id" = String, Path)),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn end_session(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let id: SessionId = id.parse().map_err(|_| Problem::not_found("session"))?;
    login::end_session(&app.gateway, caller.person()?.user.id, id, &caller.doer()).await?;
    Ok(done())
}

/// A second factor that is offered.
#[derive(Serialize, ToSchema)]
pub struct TotpOffer {
    /// For the QR code that an authenticator app reads.
    #[schema(example = "otpauth://totp/Tidegate:owner%40shop.example?secret=…&issuer=Tidegate")]
    otpauth_uri: String,
    /// The secret in base32, to be typed in. Shown this once.
    secret: String,
}

/// Begin with a second factor
///
/// It counts once a code of it was confirmed. Beginning again offers another one.
#[utoipa::path(post, path = "/api/v1/auth/totp", tag = "people",
    responses((status = 200, body = TotpOffer), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 409, description = "totp_enabled", body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn begin_totp(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    let offer = users::offer_totp(&app.gateway, &caller.person()?.user).await?;
    let view = TotpOffer { otpauth_uri: offer.uri.to_string(), secret: offer.secret.to_string() };
    let mut response = Answer::json(StatusCode::OK, &view).into_response();
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A code of a second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TotpCode {
    /// Six digits.
    #[schema(example = "123456")]
    code: String,
}

/// Confirm a second factor
///
/// Every other session ends.
#[utoipa::path(post, path = "/api/v1/auth/totp/confirm", tag = "people", request_body = TotpCode,
    responses((status = 204), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, description = "second_factor_invalid, csrf_token_required", body = ProblemBody),
        (status = 409, description = "totp_not_offered", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn confirm_totp(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    let person = caller.person()?;
    let asked: TotpCode = body.json(EmptyBody::IsMalformed)?;
    let own = Own { user: &person.user, session: person.session.id, doer: &caller.doer() };
    users::confirm_totp(&app.gateway, &app.throttle, own, &asked.code).await?;
    Ok(done())
}

/// Remove one's own second factor, with a last code of it
#[utoipa::path(delete, path = "/api/v1/auth/totp", tag = "people", request_body = TotpCode,
    responses((status = 204), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, description = "second_factor_invalid, csrf_token_required", body = ProblemBody),
        (status = 409, description = "totp_not_enabled", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn drop_totp(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    let person = caller.person()?;
    let asked: TotpCode = body.json(EmptyBody::IsMalformed)?;
    let own = Own { user: &person.user, session: person.session.id, doer: &caller.doer() };
    users::drop_totp(&app.gateway, &app.throttle, own, &asked.code).await?;
    Ok(done())
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutPassword {
    /// The one in use.
    #[schema(value_type = String)]
    old: Hidden,
    /// The one to use, at least 12 characters.
    #[schema(value_type = String)]
    new: Hidden,
}

/// Change one's own password
///
/// Every other session ends.
#[utoipa::path(post, path = "/api/v1/auth/password", tag = "people", request_body = PutPassword,
    responses((status = 204), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, description = "wrong_password, csrf_token_required", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put_password(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    let person = caller.person()?;
    let asked: PutPassword = body.json(EmptyBody::IsMalformed)?;
    let own = Own { user: &person.user, session: person.session.id, doer: &caller.doer() };
    users::change_password(&app.gateway, &app.throttle, own, asked.old.0, asked.new.0).await?;
    Ok(done())
}
