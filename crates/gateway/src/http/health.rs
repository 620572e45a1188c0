//! Is it alive, is it ready, and how do its chains do? Each page is answered within a few seconds
//! whatever the database, Redis or a chain does: the database has [`ANSWER_MAX`](crate::store::ANSWER_MAX),
//! Redis its own limit, and of chains only what is known is told.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tidegate_chain::EndpointHealth;
use tidegate_rules::time::{Span, Time};

use super::App;
use crate::cache::RedisHealth;
use crate::clock;
use crate::follow::AHEAD_MAX;
use crate::gateway::{Gateway, NetworkHealth, NetworkPart};
use crate::loops::LoopHealth;
use crate::orders;

pub fn routes() -> Router<App> {
    Router::new().route("/health/live", get(live)).route("/health/ready", get(ready)).route("/health/blockchain", get(blockchain))
}

/// Alive, whatever its dependencies do.
async fn live() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Ready once the database answers and every network has stored its first cursor, or is known to be
/// out of reach.
async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let now = clock::now();
    let database = app.gateway.store.health().await.is_healthy();
    let networks: Map<String, Value> =
        app.gateway.networks().iter().map(|(name, part)| (name.to_string(), json!(part.health(now).name()))).collect();
    let started = app.gateway.networks().values().all(|part| part.health(now) != NetworkHealth::Starting);
    let ready = database && started;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(
            json!({ "status": if ready { "ready" } else { "starting" }, "database": if database { "up" } else { "down" }, "networks": networks, "loops": loops(&app.gateway) }),
        ),
    )
}

/// The loops that run beside this server: `running`, or `broken` for a while after they broke.
fn loops(gateway: &Gateway) -> Value {
    let named = |name: String, is_well: bool| (name, json!(if is_well { "running" } else { "broken" }));
    gateway.loops.health().into_iter().map(|one| named(one.name, one.is_well)).collect::<Map<String, Value>>().into()
}

/// How each chain and the database do.
async fn blockchain(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let now = clock::now();
    let database = app.gateway.store.health().await;
    let mut details: Map<String, Value> =
        app.gateway.networks().iter().map(|(name, part)| (name.to_string(), network(part, now))).collect();
    let grade = |value: &Value| {
        value.get("status").and_then(Value::as_str).map_or(2, |status| match status {
            "healthy" => 0,
            "degraded" => 1,
            _ => 2,
        })
    };
    let grades: Vec<u8> = details.values().map(grade).collect();
    let redis = app.gateway.cache.redis().await;
    let redis_rests = matches!(redis, RedisHealth::Degraded(_));
    details.insert(
        "redis".into(),
        match redis {
            RedisHealth::Unused => json!({ "status": "unused" }),
            RedisHealth::Healthy => json!({ "status": "healthy" }),
            RedisHealth::Degraded(reason) => json!({ "status": "degraded", "reason": reason }),
        },
    );
    details.insert(
        "database".into(),
        match database.reason() {
            None => json!({ "status": "healthy" }),
            Some(reason) => json!({ "status": "unhealthy", "reason": reason }),
        },
    );
    let broken: Vec<LoopHealth> = app.gateway.loops.health().into_iter().filter(|one| !one.is_well).collect();
    details.insert(
        "loops".into(),
        match broken.as_slice() {
            [] => json!({ "status": "healthy" }),
            _ => {
                let breaks: Map<String, Value> = broken.iter().map(|one| (one.name.clone(), json!(one.breaks))).collect();
                json!({ "status": "degraded", "broken": breaks })
            }
        },
    );
    // One chain's trouble does not hide the others: unhealthy is when none works. Without Redis
    // everything works.
    let status = match (database.is_healthy(), grades.iter().min(), grades.iter().max()) {
        (false, ..) | (true, Some(2), _) => "unhealthy",
        (true, _, Some(0) | None) if !redis_rests && broken.is_empty() => "healthy",
        _ => "degraded",
    };
    let code = if status == "unhealthy" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(json!({ "status": status, "details": details })))
}

fn network(part: &NetworkPart, now: Time) -> Value {
    let state = part.state();
    let health = part.health(now);
    let ahead = state.newest.is_some_and(|newest| newest > now.plus(AHEAD_MAX));
    let failing = state.failing.is_some();
    let in_trouble = state.head.as_ref().is_some_and(|head| head.floor.is_some());
    let status = match health {
        NetworkHealth::Following if ahead || failing || in_trouble => "degraded",
        NetworkHealth::Following => "healthy",
        // Too far behind, and nobody shows a block: this does not mend itself by reading on.
        NetworkHealth::Lagging if failing => "unhealthy",
        NetworkHealth::Starting | NetworkHealth::Lagging => "degraded",
        NetworkHealth::Unreachable | NetworkHealth::Halted => "unhealthy",
    };
    let endpoints: Vec<Value> = part.chain.endpoints().iter().map(endpoint).collect();
    let pool = part.chain.pool();
    let switches: Vec<Value> = pool
        .switches
        .iter()
        .map(|switch| json!({ "from": switch.from, "to": switch.to, "cause": switch.cause.name(), "reason": switch.reason, "at": before(now, switch.age) }))
        .collect();
    let in_use = endpoints.get(pool.current).and_then(|endpoint| endpoint.get("name")).cloned();
    let floor = state.head.as_ref().and_then(|head| head.floor);
    json!({
        "status": status,
        "following": health.name(),
        "head": state.head.as_ref().map(|head| head.tip.number),
        "finalized": state.head.as_ref().and_then(|head| head.finalized),
        "lag_seconds": part.lag(now).map(Span::secs),
        "halted": state.halted,
        "last_failure": state.failing,
        "floor": floor.map(orders::Required::from),
        "reconciled": state.reconciled,
        "endpoint": in_use,
        "switches": pool.switches_total,
        "last_switches": switches,
        "endpoints": endpoints,
    })
}

/// An endpoint by scheme and host; a key of a provider is in neither.
fn endpoint(endpoint: &EndpointHealth) -> Value {
    json!({
        "name": endpoint.name,
        "available": endpoint.available,
        "state": endpoint.state.name(),
        "score": endpoint.score,
        "head": endpoint.head.map(|head| head.number),
        "blocks_behind": endpoint.behind,
        "lagging_seconds": endpoint.lagging_for.map(|lagging| lagging.as_secs()),
        "calls": endpoint.calls,
        "failures": endpoint.failures,
        "failures_in_row": endpoint.failures_in_row,
        "latency_ms": endpoint.latency_mean_ms,
        "latency_p90_ms": endpoint.latency_bound_ms,
        "requests_left_today": endpoint.requests_left,
        "hedges": endpoint.hedges,
        "hedges_won": endpoint.hedges_won,
        "last_error": endpoint.last_error,
    })
}

/// The time so long before now.
fn before(now: Time, age: Duration) -> String {
    now.minus(Span::from_millis(u64::try_from(age.as_millis()).unwrap_or(0))).to_string()
}
