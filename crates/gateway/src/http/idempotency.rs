//! `Idempotency-Key`: the same key with the same body gives the same answer byte for byte.
//!
//! The answer is stored in the commit that it reports, so a crash between the two cannot happen.
//! Of a body only a MAC is kept.

use std::future::Future;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tidegate_rules::changes::{Changes, KeptAnswer};

use super::auth::Caller;
use super::request::RawBody;
use super::{App, ProblemBody};
use crate::clock;
use crate::people::login::{PROOF_NEEDED, PROOF_WRONG};
use crate::problem::{Problem, RACED};
use crate::store::Commit;

/// The longest key.
const KEY_MAX: usize = 255;

/// An answer before it is sent.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// An answer with a JSON body.
    pub fn json(status: StatusCode, body: &impl serde::Serialize) -> Self {
        Self { status, location: None, body: serde_json::to_string(body).unwrap_or_default() }
    }

    /// The same with a `Location`.
    pub fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let kind = if self.status.is_success() { "application/json" } else { "application/problem+json" };
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(location) = self.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

/// An idempotency key in use: makes the row that keeps an answer.
#[derive(Clone)]
pub struct Keeper {
    scope: String,
    body_mac: String,
}

impl Keeper {
    /// The row that keeps this answer.
    pub fn keep(&self, answer: &Answer) -> KeptAnswer {
        KeptAnswer {
            scope: self.scope.clone(),
            body_mac: self.body_mac.clone(),
            status: answer.status.as_u16(),
            location: answer.location.clone(),
            body: answer.body.clone(),
            at: clock::now(),
        }
    }
}

/// Whether an answer was stored in the commit that it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was.
    InItsCommit,
    /// Nothing was committed: it is stored now.
    NotYet,
}

/// Answers a POST: replays what was answered under its key, or does the work and keeps the answer.
pub async fn answer<F, W>(app: &App, caller: &Caller, body: &RawBody, work: W) -> Result<Response, Problem>
where
    F: Future<Output = Result<(Answer, Kept), Problem>>,
    W: FnOnce(Option<Keeper>) -> F,
{
    let Some(header) = body.headers.get("idempotency-key") else {
        return Ok(work(None).await?.0.into_response());
    };
    let key = header.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_MAX);
    let key = key.ok_or_else(|| Problem::invalid("Idempotency-Key", format!("expected 1 to {KEY_MAX} visible ASCII characters")))?;
    let keeper =
        Keeper { scope: format!("{} {} {key}", caller.scope_of_keys(), body.call), body_mac: app.gateway.vault.fingerprint(&body.bytes) };
    if let Some(replay) = replay(app, &keeper).await? {
        return replay;
    }
    let outcome = work(Some(keeper.clone())).await;
    let (answer, kept) = match outcome {
        Ok(done) => done,
        Err(problem) if problem.code == RACED => {
            return replay(app, &keeper).await?.unwrap_or(Err(problem));
        }
        // Worth trying again: not the answer for ever.
        Err(problem) if problem.status == StatusCode::TOO_MANY_REQUESTS || problem.status.is_server_error() => return Err(problem),
        // The same request comes again with a second factor, or its twin was first and used the code.
        Err(problem) if [PROOF_NEEDED, PROOF_WRONG].contains(&problem.code) => {
            return replay(app, &keeper).await?.unwrap_or(Err(problem));
        }
        Err(problem) => (Answer::json(problem.status, &ProblemBody::from(&problem)), Kept::NotYet),
    };
    if kept == Kept::NotYet {
        let changes = Changes { answer: Some(keeper.keep(&answer)), ..Changes::default() };
        if app.gateway.store.commit(changes).await? == Commit::Conflict
            && let Some(replay) = replay(app, &keeper).await?
        {
            return replay;
        }
    }
    Ok(answer.into_response())
}

/// What was answered under this key before, if anything.
async fn replay(app: &App, keeper: &Keeper) -> Result<Option<Result<Response, Problem>>, Problem> {
    let Some(kept) = app.gateway.store.kept_answer(&keeper.scope).await? else { return Ok(None) };
    if kept.body_mac != keeper.body_mac {
        let detail = "this Idempotency-Key was used with another body; use a new key for a new request";
        return Ok(Some(Err(Problem::conflict("idempotency_conflict", detail))));
    }
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Answer { status, location: kept.location, body: kept.body }.into_response();
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    Ok(Some(Ok(response)))
}
