//! Orders over HTTP, for shops.

use std::fmt::Display;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::changes::Details;
use tidegate_rules::order::{Cancel, Purpose, Status};
use tidegate_rules::time::{Span, Time};
use utoipa::{IntoParams, ToSchema};

use super::auth::{Caller, Scope};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::request::{EmptyBody, Params, RawBody};
use super::{App, ProblemBody};
use crate::clock;
use crate::orders::{self, Cancelling, Opened, OrderView, Wish};
use crate::problem::Problem;
use crate::store::OrderFilter;

/// The longest short text of a shop: ids, numbers, reasons.
const TEXT_MAX: usize = 255;

/// The longest URL.
const URL_MAX: usize = 2_048;

/// The longest metadata, as JSON text.
const METADATA_MAX: usize = 16 * 1024;

/// Rows on a page, when nothing is asked for.
const PAGE: u32 = 50;

/// Rows on a page, at most.
const PAGE_MAX: u32 = 200;

/// What a shop asks to be paid.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrder {
    /// Operators only: for which merchant.
    #[schema(ignore)]
    pub(super) merchant_id: Option<String>,
    /// How much, in USDT. Needed, unless the payer says how much: then it is the least, and without it
    /// the least of any order.
    #[schema(example = "12.5", pattern = "^(0|[1-9][0-9]*)(\\.[0-9]{1,6})?$")]
    amount: Option<String>,
    /// The payer says how much: a donation, a top-up. The order is paid by whatever has settled of the
    /// amount or more; `amount_confirmed` says how much that is.
    #[serde(default)]
    open_amount: bool,
    /// On which network. Without it the payer chooses.
    #[schema(example = "tron")]
    network: Option<String>,
    /// The shop's user.
    #[schema(example = "42")]
    user_id: Option<String>,
    /// The plan that is bought.
    plan_id: Option<String>,
    /// The shop's own number, unique for the shop.
    #[schema(example = "INV-1001")]
    merchant_order_id: Option<String>,
    /// How many seconds the payer has.
    #[schema(example = 1800)]
    expires_in: Option<u64>,
    /// Where this order's webhooks go instead of the merchant's address.
    #[schema(example = "https://shop.example/webhooks/tidegate")]
    callback_url: Option<String>,
    /// Where the payer may return to.
    #[schema(example = "https://shop.example/orders/1001")]
    redirect_url: Option<String>,
    /// Anything the shop wants back, as a JSON object.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

/// A key is one merchant's: nobody speaks for another here.
fn refuse_merchant(pointer: &str, asked: Option<&String>) -> Result<(), Problem> {
    match asked {
        Some(_) => Err(Problem::invalid(pointer, "this field is not known here; operators name a merchant under /api/v1/admin/orders")),
        None => Ok(()),
    }
}

/// A short text, not empty.
pub(super) fn text(name: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    match value {
        Some(text) if text.is_empty() || text.chars().count() > TEXT_MAX => {
            Err(Problem::invalid(&format!("/{name}"), format!("expected 1 to {TEXT_MAX} characters")))
        }
        // PostgreSQL text holds no NUL.
        Some(text) if text.contains('\0') => Err(Problem::invalid(&format!("/{name}"), "expected text without the NUL character")),
        other => Ok(other),
    }
}

/// True when a text in it, be it a name, has the NUL character.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// A shop's own JSON object, as it is kept.
pub(super) fn metadata_text(metadata: Map<String, Value>) -> Result<String, Problem> {
    let metadata = Value::Object(metadata);
    let text = metadata.to_string();
    if text.len() > METADATA_MAX {
        return Err(Problem::invalid("/metadata", format!("expected at most {METADATA_MAX} bytes of JSON")));
    }
    if holds_nul(&metadata) {
        return Err(Problem::invalid("/metadata", "expected text without the NUL character"));
    }
    Ok(text)
}

/// An http or https URL.
pub(super) fn web_url(name: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = value else { return Ok(None) };
    let wrong = || Problem::invalid(&format!("/{name}"), format!("expected an http or https URL of at most {URL_MAX} characters"));
    let url = url::Url::parse(&text).map_err(|_| wrong())?;
    let url = url.to_string();
    // It is kept as it is written in full, every foreign letter three times as long.
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) || text.len().max(url.len()) > URL_MAX {
        return Err(wrong());
    }
    Ok(Some(url))
}

/// An amount of money that is more than nothing.
pub(super) fn money(pointer: &str, text: &str) -> Result<Amount, Problem> {
    let amount: Amount = text.parse().map_err(|error| Problem::invalid(pointer, format!("{error}")))?;
    if amount.is_zero() {
        return Err(Problem::invalid(pointer, "expected more than zero"));
    }
    Ok(amount)
}

impl CreateOrder {
    /// What is wished for, every field checked.
    pub(super) fn wish(self, least: Amount) -> Result<Wish, Problem> {
        let metadata = metadata_text(self.metadata.unwrap_or_default())?;
        let payer_chooses = self.network.is_none();
        Ok(Wish {
            purpose: if self.open_amount { Purpose::OpenAmount } else { Purpose::Payment },
            amount: match self.amount {
                Some(amount) => money("/amount", &amount)?,
                None if self.open_amount => least,
                None => return Err(Problem::invalid("/amount", "this field is needed")),
            },
            network: self.network.map(|network| Network::new(&network)),
            expires_in: self.expires_in.map(Span::from_secs),
            details: Details {
                user_id: text("user_id", self.user_id)?,
                plan_id: text("plan_id", self.plan_id)?,
                merchant_order_id: text("merchant_order_id", self.merchant_order_id)?,
                callback_url: web_url("callback_url", self.callback_url)?,
                redirect_url: web_url("redirect_url", self.redirect_url)?,
                metadata,
                note: None,
                payer_chooses,
            },
        })
    }
}

/// Create an order and lease it an address
///
/// The wallet is leased in the same transaction. The same `merchant_order_id` with the same amount
/// gives the same order.
#[utoipa::path(post, path = "/api/v1/orders", tag = "orders", request_body = CreateOrder,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body give the same answer, for 7 days")),
    responses(
        (status = 201, description = "Created", body = OrderView, headers(("Location" = String))),
        (status = 200, description = "This merchant_order_id was used before for the same amount", body = OrderView),
        (status = 400, description = "Not JSON", body = ProblemBody), (status = 401, description = "No or bad key", body = ProblemBody),
        (status = 403, description = "The key lacks orders:write", body = ProblemBody),
        (status = 409, description = "duplicate_merchant_order or idempotency_conflict", body = ProblemBody),
        (status = 413, description = "Body too large", body = ProblemBody), (status = 415, description = "Not application/json", body = ProblemBody),
        (status = 422, description = "A field is not what was expected", body = ProblemBody),
        (status = 503, description = "pool_exhausted, network_unavailable or database_unavailable", body = ProblemBody)))]
pub async fn create_order(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::OrdersWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked = body.json::<CreateOrder>(EmptyBody::IsMalformed)?;
        refuse_merchant("/merchant_id", asked.merchant_id.as_ref())?;
        let wish = asked.wish(app.gateway.config.orders.min_amount)?;
        let merchant = app.gateway.merchant(caller.merchant()?).await?;
        let created = |view: &OrderView| Answer::json(StatusCode::CREATED, view).at(format!("/api/v1/orders/{}", view.id));
        let opened = orders::open(&app.gateway, &merchant, &wish, |view| keeper.as_ref().map(|keeper| keeper.keep(&created(view)))).await?;
        Ok(match opened {
            Opened::New(view) => (created(&view), Kept::InItsCommit),
            Opened::Known(view) => (Answer::json(StatusCode::OK, &view), Kept::NotYet),
        })
    })
    .await
}

/// Show an order
#[utoipa::path(get, path = "/api/v1/orders/{id}", tag = "orders", params(("id" = String, Path)),
    responses((status = 200, body = OrderView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_order(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let row = orders::find(&app.gateway, Some(caller.merchant()?), &id).await?;
    Ok(Answer::json(StatusCode::OK, &orders::view(&app.gateway, &row, &app.gateway.heads())))
}

/// Which orders to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListOrders {
    /// Operators only: of this merchant.
    #[param(ignore)]
    pub(super) merchant_id: Option<String>,
    /// `pending`, `confirming`, `paid`, `expired` or `cancelled`.
    status: Option<String>,
    /// Orders with an address on this network.
    network: Option<String>,
    /// Of this user of the shop.
    user_id: Option<String>,
    /// With this number of the shop.
    merchant_order_id: Option<String>,
    /// With this address.
    address: Option<String>,
    /// With a transfer of this transaction.
    tx_hash: Option<String>,
    /// Created then or later, RFC 3339.
    created_from: Option<String>,
    /// Created then or earlier, RFC 3339.
    created_to: Option<String>,
    /// For at least this.
    amount_min: Option<String>,
    /// For at most this.
    amount_max: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of orders.
#[derive(Serialize, ToSchema)]
pub struct OrderPage {
    /// Newest first.
    data: Vec<OrderView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// The number of rows to show.
pub fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::invalid("limit", format!("expected 1 to {PAGE_MAX}")));
    }
    Ok(limit)
}

/// The id that a cursor stands for.
pub fn read_cursor(cursor: Option<String>) -> Result<Option<String>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let id = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    id.filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(Some)
        .ok_or_else(|| Problem::invalid("cursor", "expected next_cursor of the page before"))
}

/// The cursor that stands for the id, or the place, of the last row of a page.
pub fn write_cursor(id: &impl Display) -> String {
    URL_SAFE_NO_PAD.encode(id.to_string())
}

/// How many rows to read for a page: one more than it shows says that there is another page.
pub fn one_more(limit: u32) -> i64 {
    i64::from(limit).saturating_add(1)
}

/// Cuts what was read to the page that is shown. Its last row, if there is another page after it.
pub fn cut_page<T>(rows: &mut Vec<T>, limit: u32) -> Option<&T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| has_more)
}

/// A time of a query.
pub fn moment(name: &str, text: Option<String>) -> Result<Option<Time>, Problem> {
    text.map(|text| text.parse().map_err(|error| Problem::invalid(name, format!("{error}")))).transpose()
}

impl ListOrders {
    pub(super) fn filter(self) -> Result<(OrderFilter, u32), Problem> {
        let status = self.status.map(|name| {
            Status::from_name(&name).ok_or_else(|| Problem::invalid("status", "expected pending, confirming, paid, expired or cancelled"))
        });
        let amount = |name: &str, text: Option<String>| {
            text.map(|text| text.parse::<Amount>().map_err(|error| Problem::invalid(name, format!("{error}")))).transpose()
        };
        let filter = OrderFilter {
            merchant: None,
            status: status.transpose()?,
            network: self.network.map(|network| Network::new(&network)),
            user_id: self.user_id,
            merchant_order_id: self.merchant_order_id,
            address: self.address,
            tx_hash: self.tx_hash.map(|hash| hash.trim_start_matches("0x").to_ascii_lowercase()),
            created_from: moment("created_from", self.created_from)?,
            created_to: moment("created_to", self.created_to)?,
            amount_min: amount("amount_min", self.amount_min)?,
            amount_max: amount("amount_max", self.amount_max)?,
            before: read_cursor(self.cursor)?,
        };
        Ok((filter, limit(self.limit)?))
    }
}

/// List orders, newest first
#[utoipa::path(get, path = "/api/v1/orders", tag = "orders", params(ListOrders),
    responses((status = 200, body = OrderPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_orders(State(app): State<App>, caller: Caller, Params(query): Params<ListOrders>) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    refuse_merchant("merchant_id", query.merchant_id.as_ref())?;
    let (mut filter, limit) = query.filter()?;
    filter.merchant = Some(caller.merchant()?);
    page_of_orders(&app, filter, limit).await
}

/// A page of orders.
pub(super) async fn page_of_orders(app: &App, mut filter: OrderFilter, limit: u32) -> Result<Answer, Problem> {
    // Any spelling of an address finds it: the chain's own form is what is stored.
    filter.address = filter.address.map(|address| orders::own_spelling(&app.gateway, address));
    let mut rows = app
        .gateway
        .store
        .lately(|store| {
            let filter = filter.clone();
            async move { store.list_orders(filter, one_more(limit)).await }
        })
        .await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    let heads = app.gateway.heads();
    let data = rows.iter().map(|row| orders::view(&app.gateway, row, &heads)).collect();
    Ok(Answer::json(StatusCode::OK, &OrderPage { data, next_cursor }))
}

/// Which network to pay on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChooseOption {
    /// The network.
    #[schema(example = "tron")]
    pub network: String,
}

/// Choose a network for an order
///
/// Leases an address there unless the order has one already. Every address of the order stays
/// watched.
#[utoipa::path(post, path = "/api/v1/orders/{id}/options", tag = "orders", request_body = ChooseOption,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = OrderView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "order_not_pending", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn choose_option(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::OrdersWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let choice: ChooseOption = body.json(EmptyBody::IsMalformed)?;
        let keep = |view: &OrderView| keeper.as_ref().map(|keeper| keeper.keep(&Answer::json(StatusCode::OK, view)));
        let row = orders::choose(&app.gateway, Some(caller.merchant()?), &id, &Network::new(&choice.network), keep).await?;
        Ok((Answer::json(StatusCode::OK, &orders::view(&app.gateway, &row, &app.gateway.heads())), Kept::InItsCommit))
    })
    .await
}

/// Why an order is cancelled.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelOrder {
    /// Why.
    reason: Option<String>,
}

/// Cancel an order
///
/// Again without effect. Refused once money for it stands on the chain.
#[utoipa::path(post, path = "/api/v1/orders/{id}/cancel", tag = "orders", request_body(content = CancelOrder, description = "May be left out"),
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = OrderView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "payment_in_progress, order_paid or order_expired", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn cancel_order(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::OrdersWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: CancelOrder = body.json(EmptyBody::MeansNoFields)?;
        let reason = text("reason", asked.reason)?;
        let keep = |view: &OrderView| keeper.as_ref().map(|keeper| keeper.keep(&Answer::json(StatusCode::OK, view)));
        let asked = Cancelling { merchant: Some(caller.merchant()?), reason: reason.as_deref(), how: Cancel::IfUntouched, doer: None };
        let view = orders::cancel(&app.gateway, &id, asked, keep).await?;
        Ok((Answer::json(StatusCode::OK, &view), Kept::InItsCommit))
    })
    .await
}

/// A network on offer.
#[derive(Serialize, ToSchema)]
pub struct NetworkView {
    /// Its name in orders.
    #[schema(example = "tron")]
    network: String,
    /// `tron` or `evm`.
    kind: String,
    /// EIP-155 chain id, or TRON's.
    chain_id: u64,
    /// The token's contract.
    token: String,
    /// The token's decimals there.
    decimals: u8,
    /// `following`, or why no order can be made there now: `starting`, `unreachable`, `lagging`, `halted`.
    #[schema(example = "following")]
    status: String,
    /// The least order that it takes, in USDT; null where only `orders.min_amount` counts.
    min_amount: Option<String>,
    /// The largest order that it takes, in USDT; null where there is no limit.
    max_amount: Option<String>,
    /// The last block applied.
    head: Option<u64>,
    /// The last block whose money is settled, for an order of the smallest amount.
    settled: Option<u64>,
    /// How old the last applied block is, in seconds.
    lag_seconds: Option<u64>,
}

/// The networks on offer.
#[derive(Serialize, ToSchema)]
pub struct NetworkList {
    /// By name.
    data: Vec<NetworkView>,
}

/// List the networks on offer
#[utoipa::path(get, path = "/api/v1/networks", tag = "networks",
    responses((status = 200, body = NetworkList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_networks(State(app): State<App>, caller: Caller) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let now = clock::now();
    let data = app
        .gateway
        .networks()
        .values()
        .map(|part| {
            let head = part.state().head;
            NetworkView {
                network: part.config.name.to_string(),
                kind: part.config.kind.name().to_owned(),
                chain_id: part.config.chain_id,
                token: part.config.token.clone(),
                decimals: part.config.decimals,
                status: part.health(now).name().to_owned(),
                min_amount: part.config.min_amount.map(|amount| amount.to_string()),
                max_amount: part.config.max_amount.map(|amount| amount.to_string()),
                settled: head.as_ref().and_then(|head| head.settled(part.config.confirmations)).map(|mark| mark.number),
                head: head.map(|head| head.tip.number),
                lag_seconds: part.lag(now).map(Span::secs),
            }
        })
        .collect();
    Ok(Answer::json(StatusCode::OK, &NetworkList { data }))
}
