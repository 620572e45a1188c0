//! A payer names the transaction that he paid with. It makes the gateway look, and decides nothing
//! about money.
//!
//! Whoever knows an order's page can ask here, so the answer holds nothing but what concerns that
//! order: money of another order, of nobody, and money that never came near the pool are told in
//! the same words. How often it may be asked is limited, for each order and for all together.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use tidegate_rules::block::Network;
use tidegate_rules::changes::Recorded;
use tidegate_rules::id::OrderId;
use tokio::time::Instant;

use super::App;
use super::pay::{PageQuery, error_page, page, read_form, show};
use super::request::{EmptyBody, Params, RawBody};
use crate::clock;
use crate::gateway::NetworkPart;
use crate::orders;
use crate::pages::{self, HandedIn, Outcome};
use crate::problem::Problem;
use crate::quotes;
use crate::rate::{Limiter, Rate, Together};
use crate::store::OrderRow;
use crate::transactions::{self, Known, Standing};

/// How many hashes may be handed in for one order at once, and when one more.
const ORDER: Rate = Rate { burst: NonZeroU32::new(3).unwrap(), every: Duration::from_secs(10) };

/// How many may be handed in for all orders at once, and when one more. Each may cost an endpoint
/// three calls.
const ALL: Rate = Rate { burst: NonZeroU32::new(20).unwrap(), every: Duration::from_millis(500) };

/// "Not a payment to this order" is never said sooner than this. What is recorded for another order
/// is found faster than what a chain must be asked for, and a watch must not tell them apart.
const FOREIGN_AFTER: Duration = Duration::from_secs(1);

/// How much of what was typed is put back into the page.
const TYPED_MAX: usize = 200;

pub fn routes() -> Router<App> {
    Router::new().route("/pay/{id}/transaction", post(hand_in))
}

/// How often hashes were handed in.
pub struct Tries {
    orders: Limiter<OrderId>,
    all: Limiter<()>,
}

impl Tries {
    /// None, as far as this process knows.
    pub fn new(together: Option<&Together>) -> Self {
        let all = Limiter::new("hashes", ALL, |()| String::new(), together);
        Self { orders: Limiter::new("hashes_order", ORDER, OrderId::to_string, together), all }
    }

    /// Counts a try, or says in how many seconds there may be another.
    async fn count(&self, order: OrderId) -> Result<(), u32> {
        // The order first: whoever tries one without end takes nothing from the others.
        self.orders.count(&order).await?;
        self.all.count(&()).await
    }
}

/// What is handed in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// The order's current network, unless it is named.
    network: Option<String>,
    tx_hash: String,
}

/// What a program is told.
#[derive(Serialize)]
struct Told {
    status: &'static str,
    reason: String,
}

/// Why nothing was found out.
enum Refused {
    /// The order was never lent an address there.
    NoAddress,
    NotAHash(Problem),
    /// In so many seconds it may be tried again.
    TooMany(u32),
    Problem(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoAddress => Self::invalid("/network", "expected a network on which this order has an address"),
            Refused::NotAHash(problem) | Refused::Problem(problem) => problem,
            Refused::TooMany(seconds) => {
                let detail = "too many transactions were handed in; wait, then try again";
                let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
                problem.retry_after_s = Some(seconds);
                problem
            }
        }
    }
}

/// A transaction's hash, from the page's form or as JSON.
async fn hand_in(State(app): State<App>, Path(id): Path<String>, Params(query): Params<PageQuery>, body: RawBody) -> Response {
    let kind = body.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if kind.starts_with("application/x-www-form-urlencoded") {
        by_form(&app, &id, &query, &body).await
    } else {
        by_json(&app, &id, &query, &body).await.unwrap_or_else(Problem::into_response)
    }
}

async fn by_json(app: &App, id: &str, query: &PageQuery, body: &RawBody) -> Result<Response, Problem> {
    let named: Named = body.json(EmptyBody::IsMalformed)?;
    let row = orders::find(&app.gateway, None, id).await?;
    let network = named.network.as_deref().map(Network::new);
    let (part, outcome) = look(app, &row, network.as_ref(), &named.tx_hash).await?;
    let reason = pages::outcome_text(outcome, &part.config.display_name, query.lang(&body.headers));
    Ok(axum::Json(Told { status: outcome.name(), reason }).into_response())
}

async fn by_form(app: &App, id: &str, query: &PageQuery, body: &RawBody) -> Response {
    let lang = query.lang(&body.headers);
    let Ok(named) = read_form::<Named>(body) else {
        return error_page(&Problem::malformed("expected the form fields network and tx_hash"), lang);
    };
    let row = match orders::find(&app.gateway, None, id).await {
        Ok(row) => row,
        Err(problem) => return error_page(&problem, lang),
    };
    let network = named.network.as_deref().map(Network::new).or_else(|| row.order.current.clone());
    let (status, retry_after_s, outcome) = match look(app, &row, network.as_ref(), transaction_in(&named.tx_hash)).await {
        Ok((_, outcome)) => (StatusCode::OK, None, outcome),
        Err(Refused::NoAddress) => (StatusCode::UNPROCESSABLE_ENTITY, None, Outcome::NoAddress),
        Err(Refused::NotAHash(_)) => (StatusCode::OK, None, Outcome::NotAHash),
        Err(Refused::TooMany(seconds)) => (StatusCode::TOO_MANY_REQUESTS, Some(seconds), Outcome::TooMany),
        // The page itself is whole: what could not be asked is said in it.
        Err(Refused::Problem(problem)) if problem.code == "network_unavailable" => (StatusCode::OK, None, Outcome::Unreachable),
        Err(Refused::Problem(problem)) => return error_page(&problem, lang),
    };
    let mut view = match show(&app.gateway, id, None).await {
        Ok(view) => view,
        Err(problem) => return error_page(&problem, lang),
    };
    let typed = named.tx_hash.trim().chars().take(TYPED_MAX).collect();
    view.handed_in = Some(HandedIn { typed, network: network.map(|network| network.to_string()), outcome });
    let html = if query.wants_fragment() { pages::checkout_fragment(&view, lang) } else { pages::checkout(&view, lang) };
    let mut response = page(status, html);
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What people paste is often an explorer's link. The transaction comes last in those.
fn transaction_in(typed: &str) -> &str {
    let typed = typed.trim().trim_end_matches('/');
    typed.rsplit('/').next().unwrap_or(typed)
}

/// Looks for a transaction on a network of the order, its current one unless another is named.
async fn look<'a>(app: &'a App, row: &OrderRow, network: Option<&Network>, hash: &str) -> Result<(&'a NetworkPart, Outcome), Refused> {
    let start = Instant::now();
    let network = network.or(row.order.current.as_ref()).filter(|network| row.order.leases.iter().any(|lease| lease.network == **network));
    let part = network.and_then(|network| app.gateway.networks().get(network)).ok_or(Refused::NoAddress)?;
    let hash = transactions::parse_hash("/tx_hash", hash).map_err(Refused::NotAHash)?;
    app.tries.count(row.id).await.map_err(Refused::TooMany)?;
    let known = quotes::transaction(&app.gateway, part, hash).await?;
    let open = orders::shows_addresses(row, &app.gateway.heads(), clock::now());
    let failed = if open { Outcome::Failed } else { Outcome::FailedOver };
    let outcome = concerning(row.id, &known, part.state().head.map(|head| head.tip.number), failed);
    if outcome == Outcome::Foreign {
        tokio::time::sleep(FOREIGN_AFTER.saturating_sub(start.elapsed())).await;
    }
    Ok((part.as_ref(), outcome))
}

/// What is known of a transaction, as far as it concerns this order. `tip` is the newest block that
/// was read; `failed` is what to say of one that failed.
fn concerning(order: OrderId, known: &Known, tip: Option<u64>, failed: Outcome) -> Outcome {
    match &known.standing {
        Standing::Recorded => {
            let ours = || known.transfers.iter().filter(|transfer| transfer.order == Some(order));
            let counted = ours().find(|transfer| transfer.payment.standing && transfer.recorded == Recorded::Matched);
            match counted {
                Some(transfer) if transfer.payment.settled => Outcome::Confirmed,
                Some(_) => Outcome::Confirming,
                None if ours().any(|transfer| transfer.payment.standing) => Outcome::Late,
                // The chain took it back, and may bring it again.
                None if ours().next().is_some() => Outcome::Waiting,
                None => Outcome::Foreign,
            }
        }
        Standing::Waiting => Outcome::Waiting,
        Standing::Failed(_) => failed,
        // Before its block was read, nobody is told whether it pays to the pool: the payer of
        // another order could not be told apart from a stranger.
        Standing::Foreign | Standing::Unread if known.block.is_some_and(|block| tip.is_none_or(|tip| block > tip)) => Outcome::Unread,
        Standing::Foreign => Outcome::Foreign,
        // Its block should have been read again, and could not be.
        Standing::Unread => Outcome::Unreachable,
        Standing::Unknown => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use tidegate_rules::block::Hash;
    use tidegate_rules::time::Time;

    use super::*;

    fn order(number: u8) -> OrderId {
        OrderId::new(Time::from_millis(1), [number; 10])
    }

    #[tokio::test]
    async fn one_order_is_tried_a_few_times_and_all_together_some_more() {
        let tries = Tries::new(None);
        for _ in 0..ORDER.burst.get() {
            assert_eq!(tries.count(order(0)).await, Ok(()));
        }
        // Each refusal says when; none of them is taken from the others.
        for _ in 0..ALL.burst.get() {
            let wait_s = tries.count(order(0)).await.unwrap_err();
            assert!((1..=10).contains(&wait_s), "{wait_s}");
        }
        let rest = ALL.burst.get() - ORDER.burst.get();
        for number in 1..=u8::try_from(rest).unwrap() {
            assert_eq!(tries.count(order(number)).await, Ok(()), "{number}");
        }
        // A slow machine may have earned some more meanwhile.
        let mut refused = None;
        for number in 100..=255 {
            refused = refused.or(tries.count(order(number)).await.err());
        }
        assert_eq!(refused, Some(1), "all together have an end");
    }

    #[test]
    fn what_pays_another_order_is_told_like_what_pays_nobody() {
        let said = |standing: &Standing, block: Option<u64>, tip: Option<u64>| {
            let known =
                Known { network: Network::new("tron"), hash: Hash([7; 32]), standing: standing.clone(), transfers: Vec::new(), block };
            concerning(order(0), &known, tip, Outcome::Failed)
        };
        // Before its block was read: the pool's addresses are not given away.
        for tip in [None, Some(9)] {
            assert_eq!(said(&Standing::Unread, Some(10), tip), Outcome::Unread);
            assert_eq!(said(&Standing::Foreign, Some(10), tip), Outcome::Unread);
        }
        // After it: what is recorded for others is nothing here.
        assert_eq!(said(&Standing::Recorded, None, Some(10)), Outcome::Foreign);
        assert_eq!(said(&Standing::Foreign, Some(10), Some(10)), Outcome::Foreign);
        assert_eq!(said(&Standing::Unread, Some(10), Some(10)), Outcome::Unreachable, "the block could not be read again");
    }

    #[test]
    fn a_link_to_an_explorer_names_its_transaction() {
        let hash = "0x7c2d4a91b3f05e6680d1c27f3a9b4458e2f6701dd9c3b5a86e41f09b2c7de0f4";
        for typed in [
            hash.to_owned(),
            format!(" {hash}\n"),
            format!("https://etherscan.io/tx/{hash}"),
            format!("https://tronscan.org/#/transaction/{hash}/"),
        ] {
            assert_eq!(transaction_in(&typed), hash, "{typed:?}");
        }
        assert_eq!(transaction_in(""), "");
    }
}
