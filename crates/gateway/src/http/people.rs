//! The users of the gateway over HTTP, for the owner.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tidegate_rules::id::UserId;
use tidegate_rules::people::{Permission, Role, UserStatus};
use utoipa::ToSchema;

use super::api::{cut_page, limit, one_more, read_cursor, write_cursor};
use super::auth::Caller;
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::login::Page;
use super::request::{EmptyBody, Hidden, Params, RawBody};
use super::{App, ProblemBody};
use crate::people::password;
use crate::people::users::{self, Factor, Put, Wish};
use crate::problem::Problem;
use crate::store::UserRow;

/// Somebody who may log in.
#[derive(Serialize, ToSchema)]
pub struct UserView {
    /// The id.
    #[schema(example = "usr_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    pub id: String,
    /// The name to log in with.
    #[schema(example = "owner@shop.example")]
    email: String,
    /// `owner`, `operator`, `support` or `viewer`.
    #[schema(example = "owner")]
    role: String,
    /// `active` or `disabled`.
    #[schema(example = "active")]
    status: String,
    /// Whether a second factor is in use.
    second_factor: bool,
    /// Since when.
    created_at: String,
    /// When he came in last.
    last_login_at: Option<String>,
}

impl UserView {
    /// One line of a table.
    #[must_use]
    pub fn line(&self) -> String {
        let factor = if self.second_factor { "second factor" } else { "-" };
        format!("{:<37} {:<9} {:<9} {:<14} {}", self.id, self.role, self.status, factor, self.email)
    }
}

impl From<&UserRow> for UserView {
    fn from(row: &UserRow) -> Self {
        Self {
            id: row.id.to_string(),
            email: row.email.clone(),
            role: row.role.name().to_owned(),
            status: row.status.name().to_owned(),
            second_factor: row.second_factor().is_some(),
            created_at: row.created_at.to_string(),
            last_login_at: row.last_login_at.map(|at| at.to_string()),
        }
    }
}

/// A page of users.
#[derive(Serialize, ToSchema)]
pub struct UserPage {
    /// Newest first.
    pub data: Vec<UserView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Somebody new, and where the gateway made the password, that.
#[derive(Serialize, ToSchema)]
pub struct NewUserView {
    /// Who.
    #[serde(flatten)]
    user: UserView,
    /// The password that was made, shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

fn user_id(text: &str) -> Result<UserId, Problem> {
    text.parse().map_err(|_| Problem::not_found("user"))
}

fn role(name: &str) -> Result<Role, Problem> {
    Role::from_name(name).ok_or_else(|| Problem::invalid("/role", "expected owner, operator, support or viewer"))
}

/// List the users, newest first
#[utoipa::path(get, path = "/api/v1/admin/users", tag = "people", params(Page),
    responses((status = 200, body = UserPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_users(State(app): State<App>, caller: Caller, Params(query): Params<Page>) -> Result<Answer, Problem> {
    caller.may(Permission::UsersRead)?;
    let limit = limit(query.limit)?;
    let mut rows = app.gateway.store.users(read_cursor(query.cursor)?, one_more(limit)).await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &UserPage { data: rows.iter().map(UserView::from).collect(), next_cursor }))
}

/// Show a user
#[utoipa::path(get, path = "/api/v1/admin/users/{id}", tag = "people", params(("id" = String, Path)),
    responses((status = 200, body = UserView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_user(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.may(Permission::UsersRead)?;
    let row = app.gateway.store.user(user_id(&id)?).await?.ok_or_else(|| Problem::not_found("user"))?;
    Ok(Answer::json(StatusCode::OK, &UserView::from(&row)))
}

/// Somebody to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddUser {
    /// The e-mail address: the name to log in with.
    #[schema(example = "support@shop.example")]
    email: String,
    /// `owner`, `operator`, `support` or `viewer`.
    #[schema(example = "support")]
    role: String,
    /// At least 12 characters. Without it one is made and shown once.
    #[schema(value_type = Option<String>)]
    password: Option<Hidden>,
}

/// Add a user
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP.
#[utoipa::path(post, path = "/api/v1/admin/users", tag = "people", request_body = AddUser, params(("Idempotency-Key" = Option<String>, Header), ("X-TOTP" = Option<String>, Header)),
    responses((status = 201, body = NewUserView, headers(("Location" = String))), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 409, description = "user_exists", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn add_user(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::UsersWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: AddUser = body.json(EmptyBody::IsMalformed)?;
        let role = role(&asked.role)?;
        users::checked_email("/email", &asked.email)?;
        caller.prove(&app, Permission::UsersWrite).await?;
        let made = if asked.password.is_none() { Some(password::generate()) } else { None };
        let password = asked.password.map(|given| given.0).or_else(|| made.clone()).ok_or_else(Problem::internal)?;
        let shown = |row: &UserRow, password: Option<String>| {
            let view = NewUserView { user: UserView::from(row), password };
            Answer::json(StatusCode::CREATED, &view).at(format!("/api/v1/admin/users/{}", row.id))
        };
        // What is kept for a replay leaves the secret out.
        let keep = |row: &UserRow| keeper.as_ref().map(|keeper| keeper.keep(&shown(row, None)));
        let row = users::add(&app.gateway.store, Wish { email: asked.email, role, password }, &caller.doer(), keep).await?;
        Ok((shown(&row, made.map(|made| made.expose().to_owned())), Kept::InItsCommit))
    })
    .await
}

/// What may be changed of a user. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutUser {
    /// `owner`, `operator`, `support` or `viewer`.
    role: Option<String>,
    /// `active` or `disabled`.
    status: Option<String>,
    /// Another password, at least 12 characters; the user's sessions end.
    #[schema(value_type = Option<String>)]
    password: Option<Hidden>,
    /// `false` takes the second factor away, for somebody who lost the device; the user's sessions end.
    second_factor: Option<bool>,
}

/// Change a user
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP.
#[utoipa::path(put, path = "/api/v1/admin/users/{id}", tag = "people", request_body = PutUser, params(("id" = String, Path), ("X-TOTP" = Option<String>, Header)),
    responses((status = 200, body = UserView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, description = "last_owner", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put_user(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Answer, Problem> {
    caller.may(Permission::UsersWrite)?;
    let asked: PutUser = body.json(EmptyBody::IsMalformed)?;
    let id = user_id(&id)?;
    let status = asked
        .status
        .as_deref()
        .map(|name| UserStatus::from_name(name).ok_or_else(|| Problem::invalid("/status", "expected active or disabled")));
    let second_factor = match asked.second_factor {
        None => Factor::Stays,
        Some(false) => Factor::Goes,
        Some(true) => return Err(Problem::invalid("/second_factor", "expected false: whoever it is for enrols one himself")),
    };
    let put = Put {
        role: asked.role.as_deref().map(role).transpose()?,
        status: status.transpose()?,
        password: asked.password.map(|given| given.0),
        second_factor,
    };
    caller.prove(&app, Permission::UsersWrite).await?;
    let row = users::put(&app.gateway.store, id, put, &caller.doer()).await?;
    Ok(Answer::json(StatusCode::OK, &UserView::from(&row)))
}

/// Remove a user
///
/// Needs a second factor from whoever is logged in: a fresh code in the header X-TOTP. The audit log
/// keeps what he did.
#[utoipa::path(delete, path = "/api/v1/admin/users/{id}", tag = "people", params(("id" = String, Path), ("X-TOTP" = Option<String>, Header)),
    responses((status = 204), (status = 401, body = ProblemBody),
        (status = 403, description = "insufficient_scope, role_not_allowed, second_factor_required, second_factor_invalid", body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, description = "last_owner", body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn remove_user(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Permission::UsersWrite)?;
    let id = user_id(&id)?;
    caller.prove(&app, Permission::UsersWrite).await?;
    users::remove(&app.gateway.store, id, &caller.doer()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
