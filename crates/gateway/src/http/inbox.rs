//! The inbox over HTTP, for operators: what payment providers said, and what came of it.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_rules::people::Permission;
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, one_more, read_cursor, write_cursor};
use super::auth::Caller;
use super::idempotency::Answer;
use super::request::Params;
use super::{App, ProblemBody};
use crate::problem::Problem;
use crate::store::{InboxFilter, InboxRow};

/// A message of a payment provider.
#[derive(Serialize, ToSchema)]
pub struct InboxView {
    /// Its id here.
    #[schema(example = "whi_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// Who sent it: the name of its table in the configuration.
    #[schema(example = "stripe")]
    provider: String,
    /// Its id there.
    #[schema(example = "evt_1NG8Du2eZvKYlo2CUI79vXWy")]
    message_id: String,
    /// What came of it: `waiting`, `looked` (it names a transaction or an order of ours, and the
    /// chain is looked at), `unknown` (it names something that is not ours or does not read), `kept`.
    #[schema(example = "looked")]
    outcome: &'static str,
    /// The network of the transaction that it names.
    network: Option<String>,
    /// That transaction, as it was named.
    tx_hash: Option<String>,
    /// The order that it names, as it was named.
    order_reference: Option<String>,
    /// That order, if it is one of ours.
    order_id: Option<String>,
    /// The body, as text; at most 16 KiB of it.
    body: String,
    /// How many bytes the body had.
    body_bytes: u64,
    /// When it came.
    received_at: String,
    /// When it was handled.
    handled_at: Option<String>,
}

impl From<InboxRow> for InboxView {
    fn from(row: InboxRow) -> Self {
        let (network, tx_hash) = row.transaction.map(|(network, hash)| (network.to_string(), hash)).unzip();
        Self {
            id: row.id.to_string(),
            provider: row.provider,
            message_id: row.message_id,
            outcome: row.outcome.name(),
            network,
            tx_hash,
            order_reference: row.order_ref,
            order_id: row.order_id.map(|id| id.to_string()),
            body: row.body,
            body_bytes: row.body_bytes,
            received_at: row.received_at.to_string(),
            handled_at: row.handled_at.map(|at| at.to_string()),
        }
    }
}

/// A page of messages.
#[derive(Serialize, ToSchema)]
pub struct InboxPage {
    /// Newest first.
    data: Vec<InboxView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which messages to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListInbox {
    /// Of this provider.
    provider: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List what payment providers said, newest first
///
/// Messages are forgotten after 30 days.
#[utoipa::path(get, path = "/api/v1/admin/payment-webhooks", tag = "inbox", params(ListInbox),
    responses((status = 200, body = InboxPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_payment_webhooks(State(app): State<App>, caller: Caller, Params(query): Params<ListInbox>) -> Result<Answer, Problem> {
    caller.may(Permission::AllOrdersRead)?;
    let limit = limit(query.limit)?;
    let filter = InboxFilter { provider: query.provider, before: read_cursor(query.cursor)? };
    let mut rows = app
        .gateway
        .store
        .lately(|store| {
            let filter = filter.clone();
            async move { store.inbox(filter, one_more(limit)).await }
        })
        .await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &InboxPage { data: rows.into_iter().map(InboxView::from).collect(), next_cursor }))
}
