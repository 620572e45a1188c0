//! The gateway over HTTP: which call goes where, and what every answer has.
//!
//! Handlers read the request, ask the rest of the program, and write the answer; nothing is
//! decided here. Whatever is refused is a [`Problem`].

mod api;
mod auth;
mod chain;
mod credentials;
mod customers;
mod docs;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hand_in;
mod health;
mod hooks;
mod idempotency;
mod inbox;
mod limits;
mod login;
mod metrics;
mod notices;
mod orders;
mod pay;
mod people;
mod plans;
mod request;
mod safe;
mod wallets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt as _;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::clock;
use crate::gateway::Gateway;
use crate::people::throttle::Throttle;
use crate::problem::{FieldError, Problem};

pub use auth::{SCOPES, hash_key};
pub use credentials::{KeyPage, KeyView};
pub use docs::document;
pub use metrics::serve as serve_metrics;
pub use people::{UserPage, UserView};
pub use wallets::{WalletPage, WalletView};

/// How long requests under way may take after a stop was asked for.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT: String;
}

/// The name of the request that is being answered.
fn request_id() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// What handlers share.
#[derive(Clone)]
pub struct App {
    gateway: Arc<Gateway>,
    keys: Arc<auth::Keys>,
    offenders: Arc<auth::Offenders>,
    limits: Arc<limits::Limits>,
    throttle: Arc<Throttle>,
    tries: Arc<hand_in::Tries>,
    stop: watch::Receiver<bool>,
}

/// Every call of the gateway.
fn router(app: App) -> Router {
    let (api, document) = docs::routes();
    let (gateway, guarded) = (Arc::clone(&app.gateway), app.clone());
    Router::new()
        .merge(api)
        .merge(health::routes())
        .merge(pay::routes())
        .merge(hand_in::routes())
        .merge(hooks::routes())
        .merge(metrics::routes())
        .with_state(app)
        .merge(docs::pages(document))
        .fallback(|| async { Problem::not_found("page or call") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this call exists with another method; see the Allow header")
        })
        .layer(middleware::from_fn_with_state(guarded, limits::guard))
        .layer(middleware::from_fn_with_state(gateway, around))
}

/// What every answer has: a request id, and a problem in place of a panic.
async fn around(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let id = hex::encode(clock::random::<12>());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let started = tokio::time::Instant::now();
    let scoped = CURRENT.scope(id.clone(), async move {
        // A task of its own turns a panic into an error that can be answered.
        match tokio::spawn(CURRENT.scope(request_id(), next.run(request))).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(request_id = request_id(), %error, "a request broke");
                Problem::internal().into_response()
            }
        }
    });
    let mut response = scoped.await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    let (took, status) = (started.elapsed(), response.status().as_u16());
    gateway.metrics.request(method.as_str(), route.as_ref().map_or("none", MatchedPath::as_str), status, took);
    tracing::debug!(request_id = id, %method, path, status, took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "request");
    response
}

/// A problem as it is sent.
#[derive(Serialize, ToSchema)]
pub struct ProblemBody {
    /// A name for the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:tidegate:problem:invalid_request")]
    kind: String,
    /// The status in words.
    #[schema(example = "Unprocessable Entity")]
    title: String,
    /// The status.
    #[schema(example = 422)]
    status: u16,
    /// What happened and what to do.
    #[schema(example = "/amount: expected at least 1.000000")]
    detail: String,
    /// A stable name for programs.
    #[schema(example = "invalid_request")]
    code: String,
    /// The name of the request, as in the log.
    request_id: String,
    /// What is wrong with which part of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

impl From<&Problem> for ProblemBody {
    fn from(problem: &Problem) -> Self {
        Self {
            kind: format!("urn:tidegate:problem:{}", problem.code),
            title: problem.title().to_owned(),
            status: problem.status.as_u16(),
            detail: problem.detail.clone(),
            code: problem.code.to_owned(),
            request_id: request_id(),
            errors: problem.errors.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&ProblemBody::from(&self)).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Answers until `stop` says so, then lets requests under way finish.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let app = App {
        limits: Arc::new(limits::Limits::new(&gateway.config.limits)),
        gateway,
        keys: Arc::default(),
        offenders: Arc::default(),
        throttle: Arc::default(),
        tries: Arc::default(),
        stop: stop.clone(),
    };
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    // Else what follows a first part, as the first event of a page follows its head, waits until the
    // client has said that the part is there: 40 ms on most systems.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, service).with_graceful_shutdown(stopped(stop.clone()));
    tokio::select! {
        outcome = server.into_future() => outcome,
        () = async { stopped(stop).await; tokio::time::sleep(DRAIN_MAX).await } => Ok(()),
    }
}

/// Ends when a stop is asked for.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
