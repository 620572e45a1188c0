//! The OpenAPI document, made from the calls themselves, and a page to read it offline.

use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    App, ProblemBody, api, chain, credentials, customers, events, inbox, log, login, notices, orders, people, plans, safe, security,
    wallets, webhook_endpoints,
};

/// What the document says besides its calls.
#[derive(OpenApi)]
#[openapi(
    info(title = "Tidegate", description = "A self-hosted USDT payment gateway: TRON, Ethereum and other EVM networks.\n\nAmounts are decimal strings in USDT, times RFC 3339 UTC. Errors are RFC 9457 problems with a stable `code`. Every answer has `X-Request-Id`.", license(name = "MIT OR Apache-2.0")),
    components(schemas(ProblemBody)),
    modifiers(&Doors),
    security(("api_key" = []), ("session" = [])),
    tags(
        (name = "orders", description = "What shops do"),
        (name = "events", description = "What happened, and the webhooks that told it"),
        (name = "customers", description = "Permanent deposit addresses"),
        (name = "plans", description = "What is sold for a time, and who has it"),
        (name = "networks", description = "What is on offer"),
        (name = "chains", description = "What came to the pool, for operators"),
        (name = "wallets", description = "The wallet pool, for operators"),
        (name = "safe", description = "Alerts and the audit log, for operators"),
        (name = "notifications", description = "Messages to operators and customers, for operators"),
        (name = "credentials", description = "Merchants and API keys, for the owner"),
        (name = "people", description = "Log-in, sessions, second factors and users"),
        (name = "inbox", description = "What payment providers said, for operators"),
        (name = "log", description = "How much is logged, for the owner")
    )
)]
struct Document;

/// API keys as bearer tokens, and sessions of people.
struct Doors;

impl Modify for Doors {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some("An API key: `tg_live_…` or `tg_test_…`, made by `tidegate api-key create`".into());
        let cookie = ApiKeyValue::with_description(
            "__Host-tidegate",
            "The cookie of a session (`tidegate` over plain http), set by `POST /api/v1/auth/login`. What changes something needs the header X-CSRF-Token too",
        );
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// Adds what every call may answer.
fn limited(document: &mut utoipa::openapi::OpenApi) {
    let answer = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
        ResponseBuilder::new().description(description).content("application/problem+json", content).build()
    };
    let operations = document
        .paths
        .paths
        .values_mut()
        .flat_map(|item| [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().filter_map(Option::as_mut));
    for operation in operations {
        let answers = &mut operation.responses.responses;
        let too_many = || RefOr::T(answer("rate_limited: too many requests with this key or from this address; see Retry-After"));
        answers.entry("429".to_owned()).or_insert_with(too_many);
        if operation.request_body.is_some() {
            answers.entry("408".to_owned()).or_insert_with(|| RefOr::T(answer("body_too_slow: the body did not arrive in time")));
        }
        answers.entry("503".to_owned()).or_insert_with(|| RefOr::T(answer("busy, or the database does not answer; see Retry-After")));
    }
}

/// What answers the calls. What describes them is dropped, one by one: all of it together would take
/// more memory than the rest of a gateway that has nothing to do.
pub fn routes() -> Router<App> {
    let mut router = Router::new();
    calls(&mut |(_, paths, methods)| {
        for path in paths.paths.keys() {
            router = std::mem::take(&mut router).route(path, methods.clone());
        }
    });
    router
}

/// What describes the calls.
fn described() -> utoipa::openapi::OpenApi {
    let mut router = OpenApiRouter::with_openapi(Document::openapi());
    calls(&mut |call| router = std::mem::take(&mut router).routes(call));
    let mut document = router.into_openapi();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        operations.into_iter().flatten().for_each(name_problems);
    }
    limited(&mut document);
    document
}

/// Whatever is refused is a problem, which has a type of its own.
fn name_problems(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if status.starts_with(['4', '5'])
            && let Some(content) = response.content.swap_remove("application/json")
        {
            response.content.insert("application/problem+json".into(), content);
        }
    }
}

/// Gives every call to `add`, one after the other.
fn calls(add: &mut dyn FnMut(UtoipaMethodRouter<App>)) {
    add(routes!(api::create_order, api::list_orders));
    add(routes!(api::get_order));
    add(routes!(events::order_events));
    add(routes!(api::choose_option));
    add(routes!(api::cancel_order));
    add(routes!(orders::admin_create_order, orders::admin_list_orders));
    add(routes!(orders::admin_get_order, orders::admin_update_order));
    add(routes!(events::admin_order_events));
    add(routes!(orders::admin_confirm_order));
    add(routes!(orders::admin_cancel_order));
    add(routes!(events::list_events));
    add(routes!(events::admin_list_events));
    add(routes!(events::list_deliveries));
    add(routes!(events::get_delivery));
    add(routes!(events::retry_delivery));
    add(routes!(events::retry_deliveries));
    add(routes!(customers::give_address, customers::list_addresses));
    add(routes!(plans::create_plan, plans::list_plans));
    add(routes!(plans::get_plan, plans::update_plan));
    add(routes!(plans::get_membership));
    add(routes!(plans::withdraw_membership));
    add(routes!(api::list_networks));
    add(routes!(wallets::generate_wallets));
    add(routes!(wallets::import_wallet));
    add(routes!(wallets::list_wallets));
    add(routes!(wallets::get_wallet, safe::update_wallet));
    add(routes!(safe::stats));
    add(routes!(safe::put_status));
    add(routes!(safe::put_risk));
    add(routes!(safe::release));
    add(routes!(safe::verify));
    add(routes!(chain::sync_wallet));
    add(routes!(chain::sync_wallets));
    add(routes!(chain::wallet_balances));
    add(routes!(chain::wallet_transactions));
    add(routes!(chain::get_job));
    add(routes!(chain::list_transactions));
    add(routes!(chain::get_transaction));
    add(routes!(chain::check_address));
    add(routes!(chain::address_balance));
    add(routes!(chain::network_fee));
    add(routes!(safe::list_alerts));
    add(routes!(safe::acknowledge_alert));
    add(routes!(safe::close_alert));
    add(routes!(safe::list_audit));
    add(routes!(notices::list_notifications));
    add(routes!(notices::test_notification));
    add(routes!(notices::retry_notification));
    add(routes!(notices::list_templates));
    add(routes!(notices::preview_template));
    add(routes!(notices::put_template, notices::delete_template));
    add(routes!(credentials::list_merchants, credentials::add_merchant));
    add(routes!(credentials::get_merchant, credentials::put_merchant));
    add(routes!(credentials::rotate_secret));
    add(routes!(webhook_endpoints::list_endpoints, webhook_endpoints::add_endpoint));
    add(routes!(webhook_endpoints::get_endpoint, webhook_endpoints::put_endpoint, webhook_endpoints::remove_endpoint));
    add(routes!(webhook_endpoints::rotate_endpoint_secret));
    add(routes!(webhook_endpoints::test_endpoint));
    add(routes!(credentials::list_keys, credentials::add_key));
    add(routes!(credentials::revoke_key));
    add(routes!(people::list_users, people::add_user));
    add(routes!(people::get_user, people::put_user, people::remove_user));
    add(routes!(login::log_in));
    add(routes!(login::log_out));
    add(routes!(login::get_session));
    add(routes!(login::list_sessions));
    add(routes!(login::end_session));
    add(routes!(login::begin_totp, login::drop_totp));
    add(routes!(login::confirm_totp));
    add(routes!(login::put_password));
    add(routes!(inbox::list_payment_webhooks));
    add(routes!(log::get_log_level, log::put_log_level));
}

/// The document as it was looked at last. Tests hold it against the calls, so no call changes unseen.
const SNAPSHOT: &str = include_str!("../../../../docs/openapi.json");

/// `/openapi.json` and `/docs`.
pub fn pages() -> Router {
    let document = || async { ([(CONTENT_TYPE, "application/json")], SNAPSHOT) };
    Router::new()
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")))
        .route("/openapi.json", get(document))
        .layer(middleware::from_fn(security::docs))
}

/// The OpenAPI document as JSON, made from the calls.
#[must_use]
pub fn document() -> String {
    described().to_pretty_json().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const HTTP_FILE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tidegate.http"));

    /// A request of the file: its method, its path without the query, and its body.
    struct Call {
        method: String,
        path: String,
        text: &'static str,
        body: Option<Value>,
    }

    fn calls() -> Vec<Call> {
        let read = |text: &'static str| {
            let mut lines = text.lines().skip(1);
            let (method, url) = lines.next().unwrap().split_once(' ').unwrap();
            let path = url.strip_prefix("{{base}}").unwrap_or_else(|| panic!("{url} does not begin with {{{{base}}}}"));
            let body = text.split_once("\n\n").map(|(_, rest)| rest.trim()).filter(|body| !body.is_empty());
            let body = body.map(|body| serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {body}")));
            Call { method: method.to_lowercase(), path: path.split('?').next().unwrap().to_owned(), text, body }
        };
        HTTP_FILE.split("\n### ").skip(1).map(read).collect()
    }

    /// The steps of a path; what is filled in is the same under any name.
    fn shape(path: &str) -> String {
        path.split('/').map(|step| if step.contains('{') { "{}" } else { step }).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn the_document_changes_only_on_purpose() {
        let made = document();
        let differs = made.lines().zip(SNAPSHOT.lines()).position(|(now, before)| now != before);
        let where_it_differs = differs.map_or(0, |line| line + 1);
        assert!(
            format!("{made}\n") == SNAPSHOT,
            "the calls no longer are what docs/openapi.json says, from its line {where_it_differs} on; make it anew with \
             `cargo run -- openapi > docs/openapi.json` and read in `git diff` what changes for those who use the API"
        );
    }

    #[test]
    fn the_http_file_has_every_call_and_no_other() {
        let document: Value = serde_json::from_str(&document()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                documented.insert(format!("{method} {}", shape(path)));
            }
        }
        let in_file: Vec<String> = calls().iter().map(|call| format!("{} {}", call.method, shape(&call.path))).collect();
        let once: BTreeSet<String> = in_file.iter().cloned().collect();
        assert_eq!(in_file.len(), once.len(), "a call is there twice");
        let missing: Vec<&String> = documented.difference(&once).collect();
        let unknown: Vec<&String> = once.difference(&documented).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "docs/tidegate.http: add {missing:?}, take out {unknown:?}");
    }

    #[test]
    fn the_http_file_sends_what_the_calls_take() {
        let document: Value = serde_json::from_str(&document()).unwrap();
        let names =
            |list: &Value| list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<BTreeSet<_>>();
        for call in calls() {
            let asked = format!("{} {}", call.method, call.path);
            // Who logs in has a cookie, which the client keeps.
            let by_session = call.path.starts_with("/api/v1/auth/");
            assert!(by_session || call.text.contains("\nAuthorization: Bearer {{key}}\n"), "{asked} has no key");
            for name in call.text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
                assert!(HTTP_FILE.contains(&format!("\n@{name} = ")), "{asked}: @{name} is not defined");
            }
            let (_, methods) = document["paths"].as_object().unwrap().iter().find(|(path, _)| shape(path) == shape(&call.path)).unwrap();
            let operation = &methods[&call.method];
            let wanted = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let Some(schema) = wanted.as_str().and_then(|path| document.pointer(path.trim_start_matches('#'))) else {
                assert!(call.body.is_none(), "{asked} takes no body");
                continue;
            };
            let sent: BTreeSet<String> =
                call.body.as_ref().and_then(Value::as_object).into_iter().flat_map(|body| body.keys().cloned()).collect();
            // A form may be put together from others.
            let parts: Vec<&Value> = match schema["allOf"].as_array() {
                Some(parts) => {
                    parts.iter().map(|part| part["$ref"].as_str().map_or(part, |path| document.pointer(&path[1..]).unwrap())).collect()
                }
                None => vec![schema],
            };
            let known: BTreeSet<String> = parts.iter().flat_map(|part| part["properties"].as_object().unwrap().keys().cloned()).collect();
            let needed: BTreeSet<String> = parts.iter().flat_map(|part| names(&part["required"])).collect();
            assert!(sent.is_subset(&known) && needed.is_subset(&sent), "{asked} sends {sent:?} of {known:?}");
            assert!(call.text.contains("\nContent-Type: application/json\n"), "{asked} has no content type");
        }
    }
}
