//! Orders over HTTP, for operators: those of every merchant, and what a person decides about one.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_rules::block::Network;
use tidegate_rules::id::MerchantId;
use tidegate_rules::order::Cancel;
use tidegate_rules::people::Permission;
use utoipa::ToSchema;

use super::api::{CreateOrder, ListOrders, OrderPage, metadata_text, moment, page_of_orders, text, web_url};
use super::auth::Caller;
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::request::{EmptyBody, Params, RawBody, not_null, or_null};
use super::safe::checked_reason;
use super::{App, ProblemBody};
use crate::gateway::Gateway;
use crate::orders::{self, Cancelling, Edit, Named, Opened, OrderView};
use crate::problem::Problem;
use crate::start::MAIN_MERCHANT;
use crate::store::MerchantRow;
use crate::transactions;

/// The longest note, in characters.
const NOTE_MAX: usize = 2_000;

/// What is asked to be paid, and for which merchant.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the form of `CreateOrder` with the field that operators alone may use, for the document")]
pub struct AdminCreateOrder {
    #[serde(flatten)]
    order: CreateOrder,
    /// For which merchant; `main` without it.
    #[schema(example = "mer_019a5a0fca7e7bd0a3f2c8e1b4d96f71")]
    merchant_id: Option<String>,
}

/// A merchant by id.
pub(super) async fn merchant_named(gateway: &Gateway, pointer: &str, id: &str) -> Result<MerchantRow, Problem> {
    let unknown = || Problem::invalid(pointer, "expected the id of a merchant, such as mer_…");
    let id: MerchantId = id.parse().map_err(|_| unknown())?;
    gateway.store.merchants().await?.into_iter().find(|merchant| merchant.id == id).ok_or_else(unknown)
}

/// The owner's own.
pub(super) async fn main_merchant(gateway: &Gateway) -> Result<MerchantRow, Problem> {
    gateway.store.merchants().await?.into_iter().find(|merchant| merchant.name == MAIN_MERCHANT).ok_or_else(Problem::internal)
}

/// Create an order for any merchant
#[utoipa::path(post, path = "/api/v1/admin/orders", tag = "orders", request_body = AdminCreateOrder,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, description = "Created", body = OrderView, headers(("Location" = String))), (status = 200, description = "This merchant_order_id was used before for the same amount", body = OrderView),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 409, description = "duplicate_merchant_order or idempotency_conflict", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn admin_create_order(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::AllOrdersWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let mut asked = body.json::<CreateOrder>(EmptyBody::IsMalformed)?;
        let merchant = match asked.merchant_id.take() {
            Some(id) => merchant_named(&app.gateway, "/merchant_id", &id).await?,
            None => main_merchant(&app.gateway).await?,
        };
        let wish = asked.wish(app.gateway.config.orders.min_amount)?;
        let created = |view: &OrderView| Answer::json(StatusCode::CREATED, view).at(format!("/api/v1/admin/orders/{}", view.id));
        let opened = orders::open(&app.gateway, &merchant, &wish, |view| keeper.as_ref().map(|keeper| keeper.keep(&created(view)))).await?;
        Ok(match opened {
            Opened::New(view) => (created(&view), Kept::InItsCommit),
            Opened::Known(view) => (Answer::json(StatusCode::OK, &view), Kept::NotYet),
        })
    })
    .await
}

/// List the orders of every merchant, newest first
#[utoipa::path(get, path = "/api/v1/admin/orders", tag = "orders", params(ListOrders, ("merchant_id" = Option<String>, Query, description = "Of this merchant")),
    responses((status = 200, body = OrderPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn admin_list_orders(State(app): State<App>, caller: Caller, Params(mut query): Params<ListOrders>) -> Result<Answer, Problem> {
    caller.may(Permission::AllOrdersRead)?;
    let merchant =
        query.merchant_id.take().map(|id| id.parse().map_err(|_| Problem::invalid("merchant_id", "expected mer_…"))).transpose()?;
    let (mut filter, limit) = query.filter()?;
    filter.merchant = merchant;
    page_of_orders(&app, filter, limit).await
}

/// Show any merchant's order
#[utoipa::path(get, path = "/api/v1/admin/orders/{id}", tag = "orders", params(("id" = String, Path)),
    responses((status = 200, body = OrderView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn admin_get_order(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.may(Permission::AllOrdersRead)?;
    let row = orders::find(&app.gateway, None, &id).await?;
    Ok(Answer::json(StatusCode::OK, &orders::view(&app.gateway, &row, &app.gateway.heads())))
}

/// What to change of an order. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateOrder {
    /// Later than before, than now and than the newest block of every network it leased on, and at
    /// most 7 days ahead; only while the order is pending.
    #[schema(example = "2026-11-23T09:00:00.000Z")]
    #[serde(default, deserialize_with = "not_null")]
    expires_at: Option<String>,
    /// The shop's own JSON object, instead of the one there is.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "not_null")]
    metadata: Option<Map<String, Value>>,
    /// Where this order's webhooks go from now on; null for the merchant's address.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "or_null")]
    callback_url: Option<Option<String>>,
    /// The operator's note; null for none.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "or_null")]
    note: Option<Option<String>>,
}

impl UpdateOrder {
    fn edit(self) -> Result<Edit, Problem> {
        let note = match self.note {
            Some(Some(note)) if note.chars().count() > NOTE_MAX || note.contains('\0') => {
                return Err(Problem::invalid("/note", format!("expected at most {NOTE_MAX} characters, none of them NUL")));
            }
            note => note.map(|note| note.filter(|note| !note.is_empty())),
        };
        let edit = Edit {
            expires_at: moment("/expires_at", self.expires_at)?,
            metadata: self.metadata.map(metadata_text).transpose()?,
            callback_url: self.callback_url.map(|url| web_url("callback_url", url)).transpose()?,
            note,
        };
        if edit.expires_at.is_none() && edit.metadata.is_none() && edit.callback_url.is_none() && edit.note.is_none() {
            return Err(Problem::invalid("/", "expected at least one of expires_at, metadata, callback_url and note"));
        }
        Ok(edit)
    }
}

/// Change an order: more time, metadata, callback URL, note
#[utoipa::path(put, path = "/api/v1/admin/orders/{id}", tag = "orders", request_body = UpdateOrder, params(("id" = String, Path)),
    responses((status = 200, body = OrderView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "order_not_pending or invalid_expires_at", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn admin_update_order(State(app): State<App>, caller: Caller, Path(id): Path<String>, body: RawBody) -> Result<Answer, Problem> {
    caller.may(Permission::AllOrdersWrite)?;
    let edit = body.json::<UpdateOrder>(EmptyBody::IsMalformed)?.edit()?;
    let view = orders::edit(&app.gateway, &id, &edit, &caller.doer()).await?;
    Ok(Answer::json(StatusCode::OK, &view))
}

/// A person's word that an order is to be paid.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmOrder {
    /// Why. Stands in the audit log.
    #[schema(example = "paid by hand to the old address, see ticket 4711")]
    reason: String,
    /// The transaction that pays it. It is read from the chain; once it has settled the order is
    /// paid, whatever its amount. Without it the order is paid at once.
    tx_hash: Option<String>,
    /// On which network; the order's current one without it.
    network: Option<String>,
    /// Which of the transaction's transfers, where several fit.
    ordinal: Option<u32>,
}

/// Confirm an order by hand
#[utoipa::path(post, path = "/api/v1/admin/orders/{id}/confirm", tag = "orders", request_body = ConfirmOrder, params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = OrderView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "order_paid, order_cancelled, transfer_already_counted, transaction_pending", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, description = "The transaction failed, is unknown, ours, or of another token", body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn admin_confirm_order(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, Problem> {
    caller.may(Permission::AllOrdersWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: ConfirmOrder = body.json(EmptyBody::IsMalformed)?;
        let reason = checked_reason(&asked.reason)?;
        let named = match &asked.tx_hash {
            Some(hash) => Some(Named {
                network: asked.network.as_deref().map(Network::new),
                hash: transactions::parse_hash("/tx_hash", hash)?,
                ordinal: asked.ordinal,
            }),
            None if asked.network.is_some() || asked.ordinal.is_some() => {
                return Err(Problem::invalid("/tx_hash", "this field is needed with network or ordinal"));
            }
            None => None,
        };
        let keep = |view: &OrderView| keeper.as_ref().map(|keeper| keeper.keep(&Answer::json(StatusCode::OK, view)));
        let view = orders::confirm(&app.gateway, &id, reason, named.as_ref(), &caller.doer(), keep).await?;
        Ok((Answer::json(StatusCode::OK, &view), Kept::InItsCommit))
    })
    .await
}

/// Why an operator cancels an order.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminCancelOrder {
    /// Why. Stands in the audit log.
    #[schema(example = "ordered twice")]
    reason: String,
    /// Cancel although money for it stands on the chain, which is never counted then.
    #[serde(default)]
    force: bool,
}

/// Cancel any merchant's order
#[utoipa::path(post, path = "/api/v1/admin/orders/{id}/cancel", tag = "orders", request_body = AdminCancelOrder, params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = OrderView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "payment_in_progress, order_paid or order_expired", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn admin_cancel_order(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: RawBody,
) -> Result<Response, Problem> {
    caller.may(Permission::AllOrdersWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: AdminCancelOrder = body.json(EmptyBody::IsMalformed)?;
        let reason = text("reason", Some(checked_reason(&asked.reason)?.to_owned()))?;
        let how = if asked.force { Cancel::Force } else { Cancel::IfUntouched };
        let doer = caller.doer();
        let keep = |view: &OrderView| keeper.as_ref().map(|keeper| keeper.keep(&Answer::json(StatusCode::OK, view)));
        let asked = Cancelling { merchant: None, reason: reason.as_deref(), how, doer: Some(&doer) };
        let view = orders::cancel(&app.gateway, &id, asked, keep).await?;
        Ok((Answer::json(StatusCode::OK, &view), Kept::InItsCommit))
    })
    .await
}
