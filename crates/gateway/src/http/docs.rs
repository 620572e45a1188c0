//! The OpenAPI document, made from the calls themselves, and a page to read it offline.

use axum::Router;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use super::{App, ProblemBody, api, chain, inbox, safe, wallets};

/// What the document says besides its calls.
#[derive(OpenApi)]
#[openapi(
    info(title = "Tidegate", description = "A self-hosted USDT payment gateway: TRON, Ethereum and other EVM networks.\n\nAmounts are decimal strings in USDT, times RFC 3339 UTC. Errors are RFC 9457 problems with a stable `code`. Every answer has `X-Request-Id`.", license(name = "MIT OR Apache-2.0")),
    components(schemas(ProblemBody)),
    modifiers(&Bearer),
    security(("api_key" = [])),
    tags(
        (name = "orders", description = "What shops do"),
        (name = "networks", description = "What is on offer"),
        (name = "chains", description = "What came to the pool, for operators"),
        (name = "wallets", description = "The wallet pool, for operators"),
        (name = "safe", description = "Alerts and the audit log, for operators"),
        (name = "inbox", description = "What payment providers said, for operators")
    )
)]
struct Document;

/// API keys as bearer tokens.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some("An API key: `tg_live_…` or `tg_test_…`, made by `tidegate api-key create`".into());
        document.components.get_or_insert_default().add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// The calls and the document that describes them.
pub fn routes() -> (Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(api::create_order, api::list_orders))
        .routes(routes!(api::get_order))
        .routes(routes!(api::order_events))
        .routes(routes!(api::choose_option))
        .routes(routes!(api::cancel_order))
        .routes(routes!(api::list_networks))
        .routes(routes!(wallets::generate_wallets))
        .routes(routes!(wallets::import_wallet))
        .routes(routes!(wallets::list_wallets))
        .routes(routes!(wallets::get_wallet, safe::update_wallet))
        .routes(routes!(safe::stats))
        .routes(routes!(safe::put_status))
        .routes(routes!(safe::put_risk))
        .routes(routes!(safe::release))
        .routes(routes!(safe::verify))
        .routes(routes!(chain::sync_wallet))
        .routes(routes!(chain::sync_wallets))
        .routes(routes!(chain::wallet_balances))
        .routes(routes!(chain::wallet_transactions))
        .routes(routes!(chain::get_job))
        .routes(routes!(chain::list_transactions))
        .routes(routes!(chain::get_transaction))
        .routes(routes!(chain::check_address))
        .routes(routes!(chain::address_balance))
        .routes(routes!(chain::network_fee))
        .routes(routes!(safe::list_alerts))
        .routes(routes!(safe::acknowledge_alert))
        .routes(routes!(safe::close_alert))
        .routes(routes!(safe::list_audit))
        .routes(routes!(inbox::list_payment_webhooks))
        .split_for_parts()
}

/// `/openapi.json` and `/docs`.
pub fn pages(document: utoipa::openapi::OpenApi) -> Router {
    Router::new().merge(SwaggerUi::new("/docs").url("/openapi.json", document))
}

/// The OpenAPI document as JSON.
#[must_use]
pub fn document() -> String {
    routes().1.to_pretty_json().unwrap_or_default()
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
            assert!(call.text.contains("\nAuthorization: Bearer {{key}}\n"), "{asked} has no key");
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
            let known: BTreeSet<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
            assert!(sent.is_subset(&known) && names(&schema["required"]).is_subset(&sent), "{asked} sends {sent:?} of {known:?}");
            assert!(call.text.contains("\nContent-Type: application/json\n"), "{asked} has no content type");
        }
    }
}
