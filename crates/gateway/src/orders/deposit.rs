//! Permanent deposit addresses: one for each customer on each network, for topping up accounts. An
//! address is an order without an amount or an end, so money to it goes the way of all money.

use serde::Serialize;
use tidegate_rules::amount::Amount;
use tidegate_rules::block::{Network, TransferKey};
use tidegate_rules::changes::{Changes, Details, KeptAnswer, NewEvent, NewOrder};
use tidegate_rules::id::OrderId;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{self, Purpose, Terms};
use tidegate_rules::time::{Span, Time};
use utoipa::ToSchema;

use super::{ATTEMPTS, TransferView, lend, part_named, refuse_if_raced, transfer_view, view};
use crate::clock;
use crate::gateway::Gateway;
use crate::problem::Problem;
use crate::store::{Commit, MerchantRow, OrderRow};

/// The end of a permanent address: the last second of the year 9999, the latest that RFC 3339 writes.
const NEVER: Time = Time::from_secs(253_402_300_799);

/// A customer's permanent address.
#[derive(Serialize, ToSchema)]
pub struct DepositAddress {
    /// Its id.
    #[schema(example = "ord_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    pub id: String,
    /// The shop's customer.
    #[schema(example = "42")]
    user_id: String,
    /// Where.
    #[schema(example = "tron")]
    network: String,
    /// The address; null if it fails its integrity check, then an alert says so.
    address: Option<String>,
    /// Its wallet.
    wallet_id: Option<String>,
    /// How deep a deposit must be buried: an integer, or `"final"`.
    #[schema(example = 19)]
    confirmations_required: Option<super::Required>,
    /// Everything that came and stands on the chain.
    #[schema(example = "0.000000")]
    amount_received: String,
    /// Its settled part: the sum of its `deposit.settled`.
    #[schema(example = "0.000000")]
    amount_confirmed: String,
    /// Since when.
    created_at: String,
    /// Every deposit, oldest first.
    deposits: Vec<TransferView>,
}

/// An address as it is shown.
#[must_use]
pub fn address_view(gateway: &Gateway, row: &OrderRow) -> DepositAddress {
    let seen = view(gateway, row, &gateway.heads());
    DepositAddress {
        id: seen.id,
        user_id: seen.user_id.unwrap_or_default(),
        network: seen.network.unwrap_or_default(),
        address: seen.address,
        wallet_id: seen.wallet_id,
        confirmations_required: seen.confirmations_required,
        amount_received: seen.amount_received,
        amount_confirmed: seen.amount_confirmed,
        created_at: seen.created_at,
        deposits: seen.transfers,
    }
}

/// A deposit, as its event tells it.
#[derive(Serialize, ToSchema)]
pub struct DepositView {
    /// The shop's customer.
    user_id: String,
    /// The address's id.
    address_id: String,
    /// The transfer. Its `id` names the deposit for ever: credit each once, whatever comes twice.
    #[serde(flatten)]
    transfer: TransferView,
}

/// The event of one deposit, with its delivery beside it.
pub(super) fn event(
    gateway: &Gateway,
    row: &OrderRow,
    merchant: &MerchantRow,
    (kind, network, key): (EventType, &Network, TransferKey),
    at: Time,
) -> NewEvent {
    let found = row.transfers.iter().find(|transfer| transfer.payment.is(network, key));
    let told = found.map(|transfer| DepositView {
        user_id: row.details.user_id.clone().unwrap_or_default(),
        address_id: row.id.to_string(),
        transfer: transfer_view(gateway, transfer, &gateway.heads()),
    });
    super::event(row, merchant, kind, &told, at)
}

/// An address that was asked for.
pub enum Given {
    /// It is new.
    New(DepositAddress),
    /// The customer has it already.
    Known(DepositAddress),
}

/// Gives a customer his address on a network: always the same.
///
/// # Errors
/// 422 for an unknown network, 503 `network_unavailable` and `pool_exhausted`.
pub async fn give(
    gateway: &Gateway,
    merchant: &MerchantRow,
    user: &str,
    network: &Network,
    keep: impl Fn(&DepositAddress) -> Option<KeptAnswer>,
) -> Result<Given, Problem> {
    let part = part_named(gateway, network)?;
    for _ in 0..ATTEMPTS {
        let now = clock::now();
        if let Some(row) = gateway.store.deposit_orders(merchant.id, user, Some(network)).await?.first() {
            return Ok(Given::Known(address_view(gateway, row)));
        }
        let head = part.open_head(now)?;
        let mut row = OrderRow {
            id: OrderId::new(now, clock::id_bytes()),
            merchant: merchant.id,
            livemode: gateway.livemode,
            created_at: now,
            details: Details { user_id: Some(user.to_owned()), metadata: "{}".into(), ..Details::default() },
            cancel_reason: None,
            order: order::open(terms(gateway, part.config.deepest(), network)),
            addresses: Vec::new(),
            withheld: Vec::new(),
            transfers: Vec::new(),
            version: 1,
        };
        let mut changes = Changes::default();
        let _taken = lend(gateway, part, &head, &mut row, &mut changes, now).await?;
        row.order.current = Some(network.clone());
        changes.new_orders.push(NewOrder {
            id: row.id,
            merchant: merchant.id,
            livemode: row.livemode,
            created_at: now,
            details: row.details.clone(),
            order: row.order.clone(),
        });
        let given = address_view(gateway, &row);
        changes.answer = keep(&given);
        let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
        match gateway.store.commit(changes).await? {
            Commit::Done => {
                tracing::info!(order = %row.id, merchant = %merchant.id, %network, "permanent address given");
                return Ok(Given::New(given));
            }
            Commit::Conflict => refuse_if_raced(gateway, scope).await?,
        }
        gateway.pool.lost(gateway, network);
    }
    Err(Problem::unavailable("busy", "too many addresses at once; try again"))
}

/// Without an amount there is no tier: as deep as the largest order has to be.
fn terms(gateway: &Gateway, depth: order::Depth, network: &Network) -> Terms {
    Terms {
        purpose: Purpose::Deposits,
        amount: Amount::ZERO,
        tolerance: Amount::ZERO,
        expires_at: NEVER,
        late_window: Span::ZERO,
        accept_late: false,
        cooldown: gateway.config.pool.cooldown,
        depths: std::iter::once((network.clone(), depth)).collect(),
    }
}
