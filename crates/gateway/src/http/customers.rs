//! Customers' permanent deposit addresses over HTTP.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_rules::block::Network;
use utoipa::ToSchema;

use super::api::text;
use super::auth::{Caller, Scope};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::request::{EmptyBody, RawBody};
use super::{App, ProblemBody};
use crate::orders::deposit::{self, DepositAddress, Given};
use crate::problem::Problem;

/// Where an address is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveAddress {
    /// On which network.
    #[schema(example = "tron")]
    network: String,
}

/// A customer's addresses.
#[derive(Serialize, ToSchema)]
pub struct AddressList {
    /// One for each network that was asked for, the first given first.
    data: Vec<DepositAddress>,
    /// Always null: a customer has an address for each network at most.
    next_cursor: Option<String>,
}

/// Give a customer a permanent deposit address
///
/// Always the same for the same customer and network. Whatever comes to it is told as
/// `deposit.settled` once it has settled, each deposit by itself.
#[utoipa::path(post, path = "/api/v1/customers/{user_id}/addresses", tag = "customers", request_body = GiveAddress,
    params(("user_id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, description = "Given now", body = DepositAddress), (status = 200, description = "The customer has it already", body = DepositAddress),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 409, description = "idempotency_conflict", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, description = "pool_exhausted or network_unavailable", body = ProblemBody)))]
pub async fn give_address(State(app): State<App>, caller: Caller, Path(user): Path<String>, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::OrdersWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: GiveAddress = body.json(EmptyBody::IsMalformed)?;
        let user = text("user_id", Some(user))?.unwrap_or_default();
        let merchant = app.gateway.merchant(caller.merchant()?).await?;
        let keep = |given: &DepositAddress| keeper.as_ref().map(|keeper| keeper.keep(&Answer::json(StatusCode::CREATED, given)));
        Ok(match deposit::give(&app.gateway, &merchant, &user, &Network::new(&asked.network), keep).await? {
            Given::New(given) => (Answer::json(StatusCode::CREATED, &given), Kept::InItsCommit),
            Given::Known(given) => (Answer::json(StatusCode::OK, &given), Kept::NotYet),
        })
    })
    .await
}

/// List a customer's permanent deposit addresses, with every deposit
#[utoipa::path(get, path = "/api/v1/customers/{user_id}/addresses", tag = "customers", params(("user_id" = String, Path)),
    responses((status = 200, body = AddressList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_addresses(State(app): State<App>, caller: Caller, Path(user): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let user = text("user_id", Some(user))?.unwrap_or_default();
    let rows = app.gateway.store.deposit_orders(caller.merchant()?, &user, None).await?;
    let data = rows.iter().map(|row| deposit::address_view(&app.gateway, row)).collect();
    Ok(Answer::json(StatusCode::OK, &AddressList { data, next_cursor: None }))
}
