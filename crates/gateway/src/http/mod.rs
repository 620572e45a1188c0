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
mod forwarded;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hand_in;
mod health;
mod hooks;
mod idempotency;
mod inbox;
mod limits;
mod listen;
mod log;
mod login;
mod metrics;
mod notices;
mod orders;
mod pay;
mod people;
mod plans;
mod redirect;
mod request;
mod safe;
mod security;
mod wallets;
mod webhook_endpoints;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::Instrument as _;
use utoipa::ToSchema;

use self::forwarded::{Carried, Peer};
use self::listen::Door;
use crate::clock;
use crate::gateway::Gateway;
use crate::logging::{ACCESS, SPANS};
use crate::people::throttle::Throttle;
use crate::problem::{FieldError, Problem};
use crate::tls::Certificates;

pub use auth::{SCOPES, hash_key};
pub use credentials::{KeyPage, KeyView};
pub use docs::document;
pub use metrics::serve as serve_metrics;
pub use people::{UserPage, UserView};
pub use redirect::serve as serve_redirect;
pub use wallets::{WalletPage, WalletView};
pub use webhook_endpoints::{EndpointView, NewEndpointView};

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
    let (gateway, guarded) = (Arc::clone(&app.gateway), app.clone());
    Router::new()
        .merge(docs::routes())
        .merge(health::routes())
        .merge(pay::routes())
        .merge(hand_in::routes())
        .merge(hooks::routes())
        .merge(metrics::routes())
        .with_state(app)
        .merge(docs::pages())
        .fallback(|| async { Problem::not_found("page or call") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this call exists with another method; see the Allow header")
        })
        .layer(middleware::from_fn_with_state(guarded, limits::guard))
        .layer(middleware::from_fn_with_state(gateway, around))
}

/// What every answer has: a request id, what it says to browsers, and a problem in place of a panic.
async fn around(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let id = hex::encode(clock::random::<12>());
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    let peer = request.extensions().get::<Peer>();
    let carried = peer.map_or(Carried::Http, |peer| forwarded::carried(*peer, request.headers(), &gateway.config.server));
    // Of the highest level, so that a warning has its request id even where `info` is not logged. A path
    // or query may hold what people typed; the route does not.
    let span = tracing::error_span!("request", request_id = id, %method, route);
    let started = tokio::time::Instant::now();
    let in_flight = gateway.metrics.arrived();
    let traced = tracing::debug_span!(
        target: SPANS,
        "request",
        "otel.name" = format!("{method} {route}"),
        "otel.kind" = "server",
        "http.response.status_code" = tracing::field::Empty,
        request_id = id,
    );
    let scoped = CURRENT.scope(id.clone(), async move {
        // A task of its own turns a panic into an error that can be answered.
        match tokio::spawn(CURRENT.scope(request_id(), next.run(request)).in_current_span()).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(%error, "a request broke");
                Problem::internal().into_response()
            }
        }
    });
    let mut response = scoped.instrument(traced.clone()).instrument(span).await;
    traced.record("http.response.status_code", response.status().as_u16());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    security::complete(headers, carried);
    let (took, status) = (started.elapsed(), response.status().as_u16());
    gateway.metrics.answered(method.as_str(), route, status, took);
    drop(in_flight);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if took >= gateway.config.server.slow_request.to_std() {
        tracing::warn!(target: ACCESS, request_id = id, %method, route, status, took_ms, "a request was slow");
    } else if route.starts_with("/health/") || route == "/metrics" {
        // Machines ask for these every few seconds.
        tracing::debug!(target: ACCESS, request_id = id, %method, route, status, took_ms, "request");
    } else {
        tracing::info!(target: ACCESS, request_id = id, %method, route, status, took_ms, "request");
    }
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

/// Answers over plain HTTP until `stop` says so, then lets requests under way finish.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    serve_at(gateway, listener, Door::Plain, stop).await
}

/// The same over https, with this certificate.
///
/// # Errors
/// When the listener breaks.
pub async fn serve_tls(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    certificates: Arc<Certificates>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    serve_at(gateway, listener, Door::Tls(certificates), stop).await
}

async fn serve_at(gateway: Arc<Gateway>, listener: TcpListener, door: Door, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let together = gateway.counts_together();
    let app = App {
        limits: Arc::new(limits::Limits::new(&gateway.config.limits, together.as_ref())),
        gateway,
        keys: Arc::default(),
        offenders: Arc::new(auth::Offenders::new(together.as_ref())),
        throttle: Arc::new(Throttle::new(together.as_ref())),
        tries: Arc::new(hand_in::Tries::new(together.as_ref())),
        stop: stop.clone(),
    };
    tokio::select! {
        outcome = listen::serve(listener, door, router(app), stop.clone()) => outcome,
        () = async { stopped(stop).await; tokio::time::sleep(DRAIN_MAX).await } => Ok(()),
    }
}

/// Ends when a stop is asked for.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
