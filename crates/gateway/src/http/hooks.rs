//! Webhooks that come in from providers: verified over the raw body, queued, answered at once.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::json;
use tidegate_rules::block::Network;
use tidegate_rules::notify::secret_bytes;

use super::App;
use super::request::RawBody;
use crate::clock;
use crate::config::NetworkConfig;
use crate::hints::{self, Message, Refused};
use crate::inbox;
use crate::problem::Problem;
use crate::providers;

pub fn routes() -> Router<App> {
    Router::new().route("/webhook/blockchain/{network}", post(from_chain)).route("/webhook/payment/{provider}", post(from_provider))
}

/// A message that is new.
fn accepted() -> Response {
    (StatusCode::ACCEPTED, axum::Json(json!({ "status": "accepted" }))).into_response()
}

/// A message that was taken before.
fn seen() -> Response {
    (StatusCode::OK, axum::Json(json!({ "status": "seen" }))).into_response()
}

/// A payment provider says something: 202 when it is new, 200 when it was said before, 401 when its
/// signature is bad, missing or stale. It is kept and looked at later; nothing is credited.
async fn from_provider(State(app): State<App>, Path(name): Path<String>, body: RawBody) -> Result<Response, Problem> {
    let door = app.gateway.config.payment_webhooks.get(&name).ok_or_else(|| Problem::not_found("page or call"))?;
    let now = clock::now();
    let verified = providers::verify(&door.scheme, &door.secret, &|name| text(&body.headers, name), &body.bytes, now);
    let verified = verified.map_err(|refused| match refused {
        providers::Refused::Unsigned => Problem::new(StatusCode::UNAUTHORIZED, "invalid_signature", refused.to_string()),
        providers::Refused::Unnamed => Problem::invalid("/", refused.to_string()),
    })?;
    let taken = inbox::take(&app.gateway, door, verified, &body.bytes, now).await?;
    Ok(if taken { accepted() } else { seen() })
}

/// A provider says that there may be something on a chain: 202 when it is new, 200 when it was said
/// before, 401 when its signature is bad, missing or stale.
async fn from_chain(State(app): State<App>, Path(name): Path<String>, body: RawBody) -> Result<Response, Problem> {
    let network = Network::new(&name);
    let part = app.gateway.networks().get(&network).filter(|part| {
        let config = &part.config;
        config.webhook_secret.is_some() || config.alchemy_signing_key.is_some()
    });
    let part = part.ok_or_else(|| Problem::not_found("page or call"))?;
    let message = read(&part.config, &body).map_err(|refused| match refused {
        Refused::Unsigned => Problem::new(StatusCode::UNAUTHORIZED, "invalid_signature", refused.to_string()),
        Refused::Unreadable => Problem::invalid("/tx_hash", refused.to_string()),
    })?;
    let taken = hints::take(&app.gateway, &network, &message).await?;
    Ok(if taken { accepted() } else { seen() })
}

fn read(config: &NetworkConfig, body: &RawBody) -> Result<Message, Refused> {
    let now = clock::now();
    let header = |name: &str| text(&body.headers, name);
    if let (Some(signature), Some(key)) = (header("x-alchemy-signature"), &config.alchemy_signing_key) {
        return hints::read_alchemy(key.expose().as_bytes(), signature, &body.bytes, now);
    }
    let secret = config.webhook_secret.as_ref().and_then(|secret| secret_bytes(secret.expose())).ok_or(Refused::Unsigned)?;
    let (id, timestamp, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    match (id, timestamp, signature) {
        (Some(id), Some(timestamp), Some(signature)) if id.len() <= ID_MAX => {
            hints::read_own(&secret, (id, timestamp, signature), &body.bytes, now)
        }
        _ => Err(Refused::Unsigned),
    }
}

/// The longest id of a message.
const ID_MAX: usize = 200;

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
