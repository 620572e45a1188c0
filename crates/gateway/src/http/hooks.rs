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
use crate::problem::Problem;

pub fn routes() -> Router<App> {
    Router::new().route("/webhook/blockchain/{network}", post(from_chain))
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
    let (status, word) = match hints::take(&app.gateway, &network, &message).await? {
        true => (StatusCode::ACCEPTED, "accepted"),
        false => (StatusCode::OK, "seen"),
    };
    Ok((status, axum::Json(json!({ "status": word }))).into_response())
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
