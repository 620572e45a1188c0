//! How much the process writes into its log, for the owner.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::Changes;
use tidegate_rules::people::Permission;
use utoipa::ToSchema;

use super::auth::Caller;
use super::idempotency::Answer;
use super::request::{EmptyBody, RawBody};
use super::safe::checked_reason;
use super::{App, ProblemBody};
use crate::clock;
use crate::config;
use crate::logging::{self, Levels};
use crate::problem::Problem;

/// The longest levels that are taken, in characters.
const LEVEL_MAX: usize = 500;

/// How much the process that answers writes into its log.
#[derive(Serialize, ToSchema)]
pub struct LogLevelView {
    /// Now.
    #[schema(example = "debug")]
    level: String,
    /// After a restart: `LOG_LEVEL` or `[log] level`.
    #[schema(example = "info")]
    configured: String,
}

impl From<Levels> for LogLevelView {
    fn from(levels: Levels) -> Self {
        Self { level: levels.now, configured: levels.configured }
    }
}

/// How much to write.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutLogLevel {
    /// error, warn, info, debug or trace, also per target, such as `info,tidegate::follow=debug`.
    #[schema(example = "debug")]
    level: String,
    /// Why. Stands in the audit log.
    #[schema(example = "looking for a slow query")]
    reason: String,
}

/// Show how much is logged
#[utoipa::path(get, path = "/api/v1/admin/log-level", tag = "log",
    responses((status = 200, body = LogLevelView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_log_level(caller: Caller) -> Result<Answer, Problem> {
    caller.may(Permission::Everything)?;
    shown()
}

/// Log more or less
///
/// From now on, by the process that answers, until it ends. A row in the audit log says so.
#[utoipa::path(put, path = "/api/v1/admin/log-level", tag = "log", request_body = PutLogLevel,
    responses((status = 200, body = LogLevelView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put_log_level(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Answer, Problem> {
    caller.may(Permission::Everything)?;
    let asked: PutLogLevel = body.json(EmptyBody::IsMalformed)?;
    if asked.level.chars().count() > LEVEL_MAX {
        return Err(Problem::invalid("/level", format!("expected at most {LEVEL_MAX} characters")));
    }
    let wrong = |what: String| Problem::invalid("/level", what);
    let level = config::log_level(&asked.level).map_err(wrong)?;
    logging::check(&level)
        .map_err(|found| wrong(format!("expected levels per target, such as \"info,hyper_util=warn\", found {found}")))?;
    let reason = checked_reason(&asked.reason)?;
    let before = logging::levels().ok_or_else(Problem::internal)?;
    let audit = caller.doer().did(Action::LogLevel, "log", clock::now()).because(reason);
    let audit = audit.with(&json!({ "from": before.now, "to": level }));
    let _ = app.gateway.store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    if !logging::set_level(&level) {
        return Err(Problem::internal());
    }
    shown()
}

fn shown() -> Result<Answer, Problem> {
    let levels = logging::levels().ok_or_else(Problem::internal)?;
    Ok(Answer::json(StatusCode::OK, &LogLevelView::from(levels)))
}
