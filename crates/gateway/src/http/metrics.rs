//! `GET /metrics`: for whoever has an admin key, and on a listener of its own for whoever reaches it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use tidegate_rules::people::Permission;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::auth::Caller;
use super::listen::{self, Door};
use super::{App, around};
use crate::clock;
use crate::gateway::Gateway;
use crate::metrics;
use crate::problem::Problem;

pub fn routes() -> Router<App> {
    Router::new().route("/metrics", get(with_key))
}

async fn with_key(State(app): State<App>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    caller.may(Permission::MetricsRead)?;
    if !app.gateway.config.metrics.enabled {
        return Err(Problem::not_found("page or call"));
    }
    answer(&app.gateway).await
}

async fn answer(gateway: &Gateway) -> Result<impl IntoResponse + use<>, Problem> {
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(gateway, clock::now()).await?))
}

/// Answers on a listener of its own, without a key, until `stop` says so. Whoever can reach it may
/// read it: it is the operator's to choose an address that only his Prometheus reaches.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let open = |State(gateway): State<Arc<Gateway>>| async move { answer(&gateway).await };
    let router = Router::new()
        .route("/metrics", get(open))
        .fallback(|| async { Problem::not_found("page or call here; the metrics are at /metrics") })
        .with_state(Arc::clone(&gateway))
        .layer(middleware::from_fn_with_state(gateway, around));
    listen::serve(listener, Door::Plain, router, stop).await
}
