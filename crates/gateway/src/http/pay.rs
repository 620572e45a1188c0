//! The payer's side: the checkout page, its live updates, the choice of a network, and in the
//! sandbox the buttons that pay. No key is needed; who knows an order's id may see and pay it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::Stream;
use serde::Deserialize;
use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::order::{Depth, Exception, Heads, PaymentStatus, Status};
use tidegate_rules::time::Time;
use tokio::sync::broadcast::error::RecvError;
use tracing::Instrument as _;

use super::auth::ClientAddress;
use super::limits::Place;
use super::request::{EmptyBody, Params, RawBody};
use super::{App, api, request_id, stopped};
use crate::clock;
use crate::dev::PayKind;
use crate::gateway::{Gateway, NetworkHealth, NetworkPart, Wake};
use crate::orders;
use crate::pages::{self, CheckoutView, ErrorKind, Lang, LeasedNetwork, NetworkOption, Notice, SandboxNetwork, SandboxPanel, Unavailable};
use crate::problem::Problem;
use crate::store::OrderRow;

/// How often a page's connection shows that it lives.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// How often an order is read again without a signal: another process may have changed it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub fn routes() -> Router<App> {
    Router::new()
        .route("/pay/{id}", get(checkout))
        .route("/pay/{id}/options", post(choose))
        .route("/pay/{id}/events", get(events))
        .route("/pay/{id}/sandbox", post(pay_in_sandbox))
        .route("/assets/checkout.js", get(|| asset("text/javascript; charset=utf-8", pages::CHECKOUT_JS)))
        .route("/assets/checkout.css", get(|| asset("text/css; charset=utf-8", pages::CHECKOUT_CSS)))
}

/// A file whose address changes with its content.
async fn asset(kind: &'static str, content: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")], content)
}

/// How a page is asked for.
#[derive(Deserialize)]
pub struct PageQuery {
    lang: Option<String>,
    fragment: Option<String>,
}

impl PageQuery {
    /// The language of the answer.
    pub fn lang(&self, headers: &HeaderMap) -> Lang {
        Lang::choose(self.lang.as_deref(), headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()))
    }

    /// True for the part of the page that changes, alone.
    pub const fn wants_fragment(&self) -> bool {
        self.fragment.is_some()
    }
}

/// A page with its policy.
pub fn page(status: StatusCode, html: String) -> Response {
    let mut response = (status, Html(html)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(pages::CONTENT_SECURITY_POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What went wrong, as a page.
pub fn error_page(problem: &Problem, lang: Lang) -> Response {
    let kind = match problem.status {
        StatusCode::NOT_FOUND => return page(problem.status, pages::not_found(lang)),
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::TooManyRequests,
        StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    page(problem.status, pages::error_page(lang, kind, Some(&request_id())))
}

/// The checkout page, right in every state an order can be in.
async fn checkout(State(app): State<App>, Path(id): Path<String>, Params(query): Params<PageQuery>, headers: HeaderMap) -> Response {
    let lang = query.lang(&headers);
    match show(&app.gateway, &id, None).await {
        Ok(view) if query.wants_fragment() => page(StatusCode::OK, pages::checkout_fragment(&view, lang)),
        Ok(view) => page(StatusCode::OK, pages::checkout(&view, lang)),
        Err(problem) => error_page(&problem, lang),
    }
}

/// What the page of an order shows now.
pub async fn show(gateway: &Gateway, id: &str, notice: Option<Notice>) -> Result<CheckoutView, Problem> {
    let row = orders::find(gateway, None, id).await?;
    let merchant = gateway.merchant(row.merchant).await?;
    Ok(checkout_view(gateway, &row, &merchant.name, notice, clock::now()))
}

/// Everything that the page shows.
fn checkout_view(gateway: &Gateway, row: &OrderRow, merchant: &str, notice: Option<Notice>, now: Time) -> CheckoutView {
    let heads = gateway.heads();
    let public = orders::public_view(gateway, row, &heads, now);
    let order = &row.order;
    let terms = &order.terms;
    let standing = |transfer: &&crate::store::TransferRow| transfer.payment.standing;
    let recorded = row.transfers.iter().filter(standing).fold(Amount::ZERO, |sum, transfer| {
        let amount = transfer.payment.value.to_amount_saturating(transfer.payment.decimals);
        sum.checked_add(amount).unwrap_or(Amount::MAX)
    });
    let current = order.current.as_ref().and_then(|network| gateway.networks().get(network));
    let name_of =
        |network: &Network| gateway.networks().get(network).map_or_else(|| network.to_string(), |part| part.config.display_name.clone());
    CheckoutView {
        order_id: public.id,
        merchant_name: merchant.to_owned(),
        livemode: public.livemode,
        status: match order.status {
            Status::Pending => pages::Status::Pending,
            Status::Confirming => pages::Status::Confirming,
            Status::Paid => pages::Status::Paid,
            Status::Expired => pages::Status::Expired,
            Status::Cancelled => pages::Status::Cancelled,
        },
        exception: order.exception.map(|exception| match exception {
            Exception::Underpaid => pages::Exception::Underpaid,
            Exception::Overpaid => pages::Exception::Overpaid,
            Exception::Late => pages::Exception::Late,
            Exception::Manual => pages::Exception::Manual,
            Exception::Reverted => pages::Exception::Reverted,
        }),
        token: public.token,
        amount: public.amount,
        open_amount: public.open_amount,
        received: public.amount_received,
        remaining: terms.amount.saturating_sub(order.tally.received).to_string(),
        excess: order.tally.received.saturating_sub(terms.amount).to_string(),
        recorded: recorded.to_string(),
        network: order.current.as_ref().map(name_of),
        qr_payload: public.address.clone(),
        address: public.address,
        payment_uri: public.payment_uri,
        options: network_options(gateway, row, now),
        leased: leased_networks(gateway, row),
        confirmations: public.confirmations,
        confirmations_required: order.current.as_ref().map(|network| match orders::demanded(order, network, &heads) {
            Depth::Blocks(blocks) => pages::Required::Number(blocks),
            Depth::Final => pages::Required::Final,
        }),
        transfers: row
            .transfers
            .iter()
            .zip(public.transfers)
            .map(|(transfer, shown)| pages::Transfer {
                tx_hash: shown.tx_hash,
                network: name_of(&transfer.payment.network),
                amount: shown.amount,
                status: match transfer.payment.status() {
                    PaymentStatus::Pending => pages::TransferStatus::Pending,
                    PaymentStatus::Confirmed => pages::TransferStatus::Confirmed,
                    PaymentStatus::Failed => pages::TransferStatus::Failed,
                    PaymentStatus::Orphaned => pages::TransferStatus::Orphaned,
                },
                confirmations: shown.confirmations,
            })
            .collect(),
        created_at_ms: row.created_at.millis(),
        expires_at_ms: terms.expires_at.millis(),
        late_until_ms: terms.late_until().millis(),
        server_time_ms: now.millis(),
        chain_past_expiry: is_past_expiry(row, &heads),
        redirect_url: public.redirect_url,
        notice,
        handed_in: None,
        sandbox: gateway.sandbox.as_ref().map(|_| SandboxPanel {
            network: current
                .map(|part| SandboxNetwork { network: part.config.name.to_string(), display_name: part.config.display_name.clone() }),
        }),
    }
}

/// True once a leased network's head has passed the order's end.
fn is_past_expiry(row: &OrderRow, heads: &Heads) -> bool {
    row.order.leases.iter().filter_map(|lease| heads.get(&lease.network)).any(|head| head.tip.time > row.order.terms.expires_at)
}

/// The networks that the payer may choose: all that take the amount, unless the shop chose one.
fn network_options(gateway: &Gateway, row: &OrderRow, now: Time) -> Vec<NetworkOption> {
    let option = |part: &NetworkPart| NetworkOption {
        network: part.config.name.to_string(),
        display_name: part.config.display_name.clone(),
        current: row.order.current.as_ref() == Some(&part.config.name),
        unavailable: match part.health(now) {
            NetworkHealth::Following => None,
            NetworkHealth::Starting => Some(Unavailable::Starting),
            NetworkHealth::Lagging => Some(Unavailable::Lagging),
            NetworkHealth::Halted | NetworkHealth::Unreachable => Some(Unavailable::Halted),
        },
    };
    let is_current = |part: &NetworkPart| row.order.current.as_ref() == Some(&part.config.name);
    let may_choose = |part: &NetworkPart| row.details.payer_chooses && part.config.takes(row.order.terms.amount);
    gateway.networks().values().filter(|part| is_current(part) || may_choose(part)).map(|part| option(part)).collect()
}

/// The networks on which the order was ever lent an address.
fn leased_networks(gateway: &Gateway, row: &OrderRow) -> Vec<LeasedNetwork> {
    let leased = |network: &Network| row.order.leases.iter().any(|lease| lease.network == *network);
    let shown = |part: &NetworkPart| LeasedNetwork {
        network: part.config.name.to_string(),
        display_name: part.config.display_name.clone(),
        current: row.order.current.as_ref() == Some(&part.config.name),
    };
    gateway.networks().values().filter(|part| leased(&part.config.name)).map(|part| shown(part)).collect()
}

/// The payer's choice, from the page's form or as JSON.
async fn choose(State(app): State<App>, Path(id): Path<String>, Params(query): Params<PageQuery>, body: RawBody) -> Response {
    let kind = body.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return match choose_by_json(&app, &id, &body).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        };
    }
    let lang = query.lang(&body.headers);
    let Ok(form) = read_form::<api::ChooseOption>(&body) else {
        return error_page(&Problem::malformed("expected the form field network"), lang);
    };
    let network = Network::new(&form.network);
    let notice = match choose_as_payer(&app.gateway, &id, &network).await {
        Ok(_) => return back_to(&id, lang),
        Err(problem) if problem.status == StatusCode::CONFLICT => Notice::OptionsClosed,
        Err(problem) if problem.status == StatusCode::NOT_FOUND => return error_page(&problem, lang),
        Err(_) => {
            Notice::NetworkUnavailable(app.gateway.networks().get(&network).map_or(form.network, |part| part.config.display_name.clone()))
        }
    };
    match show(&app.gateway, &id, Some(notice)).await {
        Ok(view) => page(StatusCode::OK, pages::checkout(&view, lang)),
        Err(problem) => error_page(&problem, lang),
    }
}

async fn choose_by_json(app: &App, id: &str, body: &RawBody) -> Result<Response, Problem> {
    let choice: api::ChooseOption = body.json(EmptyBody::IsMalformed)?;
    let row = choose_as_payer(&app.gateway, id, &Network::new(&choice.network)).await?;
    Ok(axum::Json(orders::public_view(&app.gateway, &row, &app.gateway.heads(), clock::now())).into_response())
}

/// A payer chooses only where the shop left the choice to him.
async fn choose_as_payer(gateway: &Gateway, id: &str, network: &Network) -> Result<OrderRow, Problem> {
    let row = orders::find(gateway, None, id).await?;
    if !row.details.payer_chooses && row.order.current.as_ref() != Some(network) {
        return Err(Problem::conflict("network_fixed", "the shop chose the network of this order"));
    }
    orders::choose(gateway, None, id, network, |_| None).await
}

/// The fields of a form.
pub fn read_form<T: serde::de::DeserializeOwned>(body: &RawBody) -> Result<T, Problem> {
    let text = std::str::from_utf8(&body.bytes).map_err(|_| Problem::malformed("the form is not UTF-8"))?;
    let uri = format!("/?{text}").parse().map_err(|_| Problem::malformed("the form cannot be read"))?;
    let query = axum::extract::Query::<T>::try_from_uri(&uri).map_err(|rejection| Problem::invalid("form", rejection.body_text()))?;
    Ok(query.0)
}

/// Back to the page, so that loading it again posts nothing.
fn back_to(id: &str, lang: Lang) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/pay/{id}?lang={}", lang.code())) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// A button of the sandbox's pay panel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SandboxForm {
    network: String,
    kind: String,
}

/// Pays on the simulated chain; only where there is one.
async fn pay_in_sandbox(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(query): Params<PageQuery>,
    body: RawBody,
) -> Result<Response, Problem> {
    let sandbox = app.gateway.sandbox.as_ref().ok_or_else(|| Problem::not_found("page or call"))?;
    let form = read_form::<SandboxForm>(&body)?;
    let kind = PayKind::from_name(&form.kind).ok_or_else(|| Problem::invalid("/kind", "expected exact, less, more or late"))?;
    let row = orders::find(&app.gateway, None, &id).await?;
    sandbox.pay(&app.gateway, &row, &Network::new(&form.network), kind)?;
    Ok(back_to(&id, query.lang(&body.headers)))
}

/// The order as it changes: a snapshot first, then whenever something happens.
async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = orders::find(&app.gateway, None, &id).await?;
    let after = match headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        Some(last) => app.gateway.store.event_seq(last).await?,
        None => None,
    };
    let place = app.limits.stream(address)?;
    let keep_alive = KeepAlive::new().interval(COMMENT_EVERY).text("");
    Ok(Sse::new(live(app, row, after, place)).keep_alive(keep_alive).into_response())
}

/// What a page's connection has sent.
struct Sent {
    seq: i64,
    last_id: String,
    data: String,
}

/// The events of a page's connection. Each carries the whole public order, so a page that missed
/// some is right again with the next; the id is that of the last event of the order. The place is
/// free again when the page goes.
fn live(app: App, row: OrderRow, after: Option<i64>, place: Place) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let signals = app.gateway.listen();
    let sent = Sent { seq: after.unwrap_or(0), last_id: String::new(), data: String::new() };
    // The answer has begun when this is read, and its request is over.
    let span = tracing::Span::current();
    futures_util::stream::unfold((app, row, signals, sent, place), move |(app, mut row, mut signals, mut sent, place)| {
        let next = async move {
            loop {
                let stop = stopped(app.stop.clone());
                match snapshot(&app.gateway, &mut row, &mut sent).await {
                    Ok(Some(event)) => return Some((Ok(event), (app, row, signals, sent, place))),
                    Ok(None) => {}
                    Err(problem) => tracing::warn!(order = %row.id, code = problem.code, "a checkout page could not be updated"),
                }
                let id = row.id;
                let concerns = async {
                    loop {
                        match signals.recv().await {
                            Ok(Wake::Order(order)) if order == id => return,
                            Ok(Wake::Head) | Err(RecvError::Lagged(_)) => return,
                            Ok(_) => {}
                            Err(RecvError::Closed) => std::future::pending::<()>().await,
                        }
                    }
                };
                tokio::select! {
                    () = concerns => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = stop => return None,
                }
            }
        };
        next.instrument(span.clone())
    })
}

/// The order as an event, if it differs from what was sent last.
async fn snapshot(gateway: &Gateway, row: &mut OrderRow, sent: &mut Sent) -> Result<Option<sse::Event>, Problem> {
    let new_events = gateway.store.order_events(row.id, sent.seq).await?;
    if let Some(last) = new_events.last() {
        sent.seq = last.seq;
        sent.last_id.clone_from(&last.id);
    }
    if let Some(now) = gateway.store.order(row.id).await? {
        *row = now;
    }
    let data = serde_json::to_string(&orders::public_view(gateway, row, &gateway.heads(), clock::now())).unwrap_or_default();
    if data == sent.data {
        return Ok(None);
    }
    sent.data.clone_from(&data);
    let event = sse::Event::default().event("order").data(data);
    Ok(Some(if sent.last_id.is_empty() { event } else { event.id(&sent.last_id) }))
}
