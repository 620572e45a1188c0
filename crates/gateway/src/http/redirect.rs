//! The plain listener beside a TLS one: it sends browsers to the https address and answers nothing
//! else.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::around;
use super::listen::{self, Door};
use crate::gateway::Gateway;
use crate::problem::Problem;

/// Answers until `stop` says so.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let router = Router::new().fallback(to_https).with_state(Arc::clone(&gateway)).layer(middleware::from_fn_with_state(gateway, around));
    listen::serve(listener, Door::Plain, router, stop).await
}

/// Where the same is over https. A program that sends a key in the open is not helped along: it would
/// go on doing so.
async fn to_https(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let origin = gateway.config.server.origin();
    let is_page = matches!(*request.method(), Method::GET | Method::HEAD) && !request.headers().contains_key(AUTHORIZATION);
    if !is_page {
        let detail = format!("expected this call at {origin}; an API key that came here could be read on its way: replace it");
        return Problem::new(StatusCode::FORBIDDEN, "https_required", detail).into_response();
    }
    let place = request.uri().path_and_query().map_or("/", |place| place.as_str());
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    match HeaderValue::from_str(&format!("{origin}{place}")) {
        Ok(location) => drop(response.headers_mut().insert(LOCATION, location)),
        Err(_) => return Problem::malformed("the address of this request cannot be read").into_response(),
    }
    response
}
