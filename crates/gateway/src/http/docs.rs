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
