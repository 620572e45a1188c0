//! The safe over HTTP, for operators: what people do with wallets, alerts, and the audit log.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_rules::alert::{AlertKind, AlertStatus};
use tidegate_rules::id::AlertId;
use tidegate_rules::people::Permission;
use tidegate_rules::wallet::{RiskLevel, WalletStatus};
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, one_more, read_cursor, write_cursor};
use super::auth::{Caller, Scope};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::request::{EmptyBody, Params, RawBody, id_in_path};
use super::wallets::{WalletView, checked_name};
use super::{App, ProblemBody};
use crate::alerts::AlertView;
use crate::people::REASON_MAX;
use crate::problem::Problem;
use crate::safe::{self, Stats, Verdict};
use crate::store::{AlertFilter, AuditFilter, AuditRow, WalletRow};

pub(super) fn checked_reason(reason: &str) -> Result<&str, Problem> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_MAX {
        return Err(Problem::invalid("/reason", format!("expected 1 to {REASON_MAX} characters")));
    }
    // PostgreSQL text holds no NUL.
    if reason.contains('\0') {
        return Err(Problem::invalid("/reason", "expected text without the NUL character"));
    }
    Ok(reason)
}

fn shown(row: &WalletRow) -> (Answer, Kept) {
    (Answer::json(StatusCode::OK, &WalletView::from(row)), Kept::NotYet)
}

/// The state to put a wallet into.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutStatus {
    /// `available`, `cooldown`, `disabled` or `frozen`.
    #[schema(example = "disabled")]
    status: String,
    /// Why. Stands in the audit log.
    #[schema(example = "moved to cold storage")]
    reason: String,
}

/// Put a wallet into another state
#[utoipa::path(post, path = "/api/v1/admin/wallets/{id}/status", tag = "wallets", request_body = PutStatus, params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = WalletView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "illegal_status_change, wallet_in_use", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put_status(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::WalletsWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let asked: PutStatus = body.json(EmptyBody::IsMalformed)?;
        let to = WalletStatus::from_name(&asked.status)
            .ok_or_else(|| Problem::invalid("/status", "expected available, occupied, cooldown, disabled or frozen"))?;
        let row = safe::put_status(&app.gateway, id_in_path("wallet", &id)?, to, checked_reason(&asked.reason)?, &caller.doer()).await?;
        Ok(shown(&row))
    })
    .await
}

/// How far a wallet is trusted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutRisk {
    /// `low`, `watch`, `high` or `blocked`. High and blocked wallets are not leased.
    #[schema(example = "high")]
    risk_level: String,
    /// Why. Stands in the audit log.
    #[schema(example = "paid from a blacklisted address")]
    reason: String,
}

/// Set how far a wallet is trusted
#[utoipa::path(post, path = "/api/v1/admin/wallets/{id}/risk", tag = "wallets", request_body = PutRisk, params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = WalletView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put_risk(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::WalletsWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let asked: PutRisk = body.json(EmptyBody::IsMalformed)?;
        let level = RiskLevel::from_name(&asked.risk_level)
            .ok_or_else(|| Problem::invalid("/risk_level", "expected low, watch, high or blocked"))?;
        let row = safe::put_risk(&app.gateway, id_in_path("wallet", &id)?, level, checked_reason(&asked.reason)?, &caller.doer()).await?;
        Ok(shown(&row))
    })
    .await
}

/// Cut a wallet's rest short
#[utoipa::path(post, path = "/api/v1/admin/wallets/{id}/release", tag = "wallets", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = WalletView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "illegal_status_change, wallet_in_use", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn release(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::WalletsWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let _: NoFields = body.json(EmptyBody::MeansNoFields)?;
        let row = safe::release(&app.gateway, id_in_path("wallet", &id)?, &caller.doer()).await?;
        Ok(shown(&row))
    })
    .await
}

/// A body without fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

/// What a check of a wallet found.
#[derive(Serialize, ToSchema)]
pub struct VerifyView {
    /// The wallet.
    id: String,
    /// True when its key opens, gives its address, and its address has its tag.
    ok: bool,
    /// What is wrong, in words.
    detail: Option<String>,
    /// The wallet now: one that fails is frozen.
    wallet: WalletView,
}

/// Open a wallet's key, derive its address again, and compare
#[utoipa::path(post, path = "/api/v1/admin/wallets/{id}/verify", tag = "wallets", params(("id" = String, Path)),
    responses((status = 200, body = VerifyView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn verify(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsWrite)?;
    let Verdict { wallet, wrong } = safe::verify_one(&app.gateway, id_in_path("wallet", &id)?, &caller.doer()).await?;
    let view = VerifyView { id: wallet.id.to_string(), ok: wrong.is_none(), detail: wrong, wallet: WalletView::from(&wallet) };
    Ok(Answer::json(StatusCode::OK, &view))
}

/// What may be changed of a wallet.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateWallet {
    /// What people call it.
    #[schema(example = "hot-1")]
    name: String,
}

/// Rename a wallet
#[utoipa::path(put, path = "/api/v1/admin/wallets/{id}", tag = "wallets", request_body = UpdateWallet, params(("id" = String, Path)),
    responses((status = 200, body = WalletView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn update_wallet(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsWrite)?;
    let asked: UpdateWallet = body.json(EmptyBody::IsMalformed)?;
    let name = checked_name("/name", Some(asked.name))?.unwrap_or_default();
    let row = safe::rename(&app.gateway, id_in_path("wallet", &id)?, &name, &caller.doer()).await?;
    Ok(Answer::json(StatusCode::OK, &WalletView::from(&row)))
}

/// Count wallets by network and status
#[utoipa::path(get, path = "/api/v1/admin/wallets/stats", tag = "wallets",
    responses((status = 200, body = Stats), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn stats(State(app): State<App>, caller: Caller) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsRead)?;
    Ok(Answer::json(StatusCode::OK, &*safe::stats(&app.gateway).await?))
}

/// A page of alerts.
#[derive(Serialize, ToSchema)]
pub struct AlertPage {
    /// Newest first.
    data: Vec<AlertView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which alerts to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAlerts {
    /// `open`, `acknowledged` or `closed`.
    status: Option<String>,
    /// Of this kind.
    kind: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List alerts, newest first
#[utoipa::path(get, path = "/api/v1/admin/alerts", tag = "safe", params(ListAlerts),
    responses((status = 200, body = AlertPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_alerts(State(app): State<App>, caller: Caller, Params(query): Params<ListAlerts>) -> Result<Answer, Problem> {
    caller.may(Permission::AlertsRead)?;
    let limit = limit(query.limit)?;
    let status = query
        .status
        .map(|name| AlertStatus::from_name(&name).ok_or_else(|| Problem::invalid("status", "expected open, acknowledged or closed")));
    let kind = query.kind.map(|name| {
        let known = || AlertKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        AlertKind::from_name(&name).ok_or_else(|| Problem::invalid("kind", format!("expected one of: {}", known())))
    });
    let filter = AlertFilter { status: status.transpose()?, kind: kind.transpose()?, before: read_cursor(query.cursor)? };
    let mut rows = app
        .gateway
        .store
        .lately(|store| {
            let filter = filter.clone();
            async move { store.alerts(filter, one_more(limit)).await }
        })
        .await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &AlertPage { data: rows.iter().map(AlertView::from).collect(), next_cursor }))
}

/// What a person says about an alert.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertWord {
    /// What was found, or done. Stands in the audit log.
    reason: Option<String>,
}

async fn alert_step(app: App, caller: Caller, id: String, body: RawBody, to: AlertStatus) -> Result<Response, Problem> {
    caller.may(Permission::AlertsWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let asked: AlertWord = body.json(EmptyBody::MeansNoFields)?;
        let reason = asked.reason.as_deref().map(checked_reason).transpose()?;
        let id: AlertId = id_in_path("alert", &id)?;
        let row = safe::alert_step(&app.gateway, id, to, reason, &caller.doer()).await?;
        Ok((Answer::json(StatusCode::OK, &AlertView::from(&row)), Kept::NotYet))
    })
    .await
}

/// Say that somebody looks after an alert
#[utoipa::path(post, path = "/api/v1/admin/alerts/{id}/acknowledge", tag = "safe", request_body = AlertWord, params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = AlertView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn acknowledge_alert(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    alert_step(app, caller, id, body, AlertStatus::Acknowledged).await
}

/// Close an alert
#[utoipa::path(post, path = "/api/v1/admin/alerts/{id}/close", tag = "safe", request_body = AlertWord, params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = AlertView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn close_alert(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    alert_step(app, caller, id, body, AlertStatus::Closed).await
}

/// A row of the audit log.
#[derive(Serialize, ToSchema)]
pub struct AuditView {
    /// Its number, from 1.
    seq: u64,
    /// When.
    at: String,
    /// Who: an API key, a user, somebody at the machine, or the program.
    #[schema(example = "key_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    actor: String,
    /// What.
    #[schema(example = "wallet.status")]
    action: String,
    /// To what.
    subject: String,
    /// From where.
    origin: String,
    /// Why.
    reason: String,
    /// What else there is to know.
    detail: serde_json::Value,
    /// The hash that chains it to the row before.
    hash: String,
}

impl From<&AuditRow> for AuditView {
    fn from(row: &AuditRow) -> Self {
        let entry = &row.entry;
        Self {
            seq: entry.seq,
            at: entry.at.to_string(),
            actor: entry.actor.clone(),
            action: entry.action.clone(),
            subject: entry.subject.clone(),
            origin: entry.origin.clone(),
            reason: entry.reason.clone(),
            detail: serde_json::from_str(&entry.detail).unwrap_or_default(),
            hash: row.hash.clone(),
        }
    }
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub struct AuditPage {
    /// Newest first.
    data: Vec<AuditView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which rows of the audit log to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAudit {
    /// About this id.
    subject: Option<String>,
    /// Of this kind, such as `wallet.status`.
    action: Option<String>,
    /// By this one.
    actor: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Read the audit log, newest first
#[utoipa::path(get, path = "/api/v1/admin/audit", tag = "safe", params(ListAudit),
    responses((status = 200, body = AuditPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_audit(State(app): State<App>, caller: Caller, Params(query): Params<ListAudit>) -> Result<Answer, Problem> {
    caller.may(Permission::AuditRead)?;
    let limit = limit(query.limit)?;
    let before = read_cursor(query.cursor)?
        .map(|cursor| cursor.parse::<u64>().map_err(|_| Problem::invalid("cursor", "expected next_cursor of a page")));
    let filter = AuditFilter { subject: query.subject, action: query.action, actor: query.actor, before: before.transpose()? };
    let mut rows = app
        .gateway
        .store
        .lately(|store| {
            let filter = filter.clone();
            async move { store.audit(filter, one_more(limit)).await }
        })
        .await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.entry.seq));
    Ok(Answer::json(StatusCode::OK, &AuditPage { data: rows.iter().map(AuditView::from).collect(), next_cursor }))
}
