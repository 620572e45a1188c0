//! How an order looks from outside: to its shop, whole, and to its payer, without what the shop keeps
//! to itself. An address is shown only if it is still the one its wallet was made with.

use serde::{Deserialize, Serialize};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::{Hash, Network};
use tidegate_rules::id::OrderId;
use tidegate_rules::lease::Lease;
use tidegate_rules::order::{self, Depth, Exception, Heads, Purpose, Status};
use tidegate_rules::time::Time;
use tidegate_vault::Wallet;
use utoipa::ToSchema;

use crate::config::Kind;
use crate::gateway::{Gateway, NetworkPart};
use crate::store::{OrderRow, TransferRow};

/// An order as shops see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderView {
    /// Its id.
    #[schema(example = "ord_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    pub id: String,
    /// Whose it is.
    #[schema(example = "mer_019a5a0fca7e7bd0a3f2c8e1b4d96f71")]
    pub merchant_id: String,
    /// Real money, or the sandbox.
    pub livemode: bool,
    /// `pending`, `confirming`, `paid`, `expired` or `cancelled`.
    #[schema(example = "pending")]
    pub status: String,
    /// `underpaid`, `overpaid`, `late`, `manual`, `reverted`, or null.
    pub exception: Option<String>,
    /// The network the payer chose, or null before the choice.
    #[schema(example = "tron")]
    pub network: Option<String>,
    /// What is paid with.
    #[schema(example = "USDT")]
    pub token: String,
    /// What the shop asks for; the least of it where the payer says how much.
    #[schema(example = "12.500000")]
    pub amount: String,
    /// The payer says how much.
    pub open_amount: bool,
    /// Counted money that stands on the chain now.
    #[schema(example = "0.000000")]
    pub amount_received: String,
    /// Its settled part.
    #[schema(example = "0.000000")]
    pub amount_confirmed: String,
    /// Where to pay on the chosen network.
    pub address: Option<String>,
    /// The wallet of that address.
    pub wallet_id: Option<String>,
    /// The shop's user.
    pub user_id: Option<String>,
    /// The plan it buys.
    pub plan_id: Option<String>,
    /// The shop's own number.
    pub merchant_order_id: Option<String>,
    /// The fewest confirmations of its counted transfers.
    pub confirmations: u64,
    /// How many are needed: an integer, or `"final"`; null before a network is chosen.
    #[schema(example = 19)]
    pub confirmations_required: Option<Required>,
    /// The page for the payer.
    pub checkout_url: String,
    /// A link that wallets understand.
    pub payment_uri: Option<String>,
    /// Every address the order was lent. All of them are watched.
    pub payment_options: Vec<PaymentOption>,
    /// Where this order's webhooks go instead of the merchant's address.
    pub callback_url: Option<String>,
    /// Where the payer may return to.
    pub redirect_url: Option<String>,
    /// The shop's own JSON object.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// The operator's note.
    pub note: Option<String>,
    /// When it was created.
    #[schema(example = "2026-11-23T08:00:00.000Z")]
    pub created_at: String,
    /// Money in blocks up to this time is on time.
    pub expires_at: String,
    /// When it was paid.
    pub paid_at: Option<String>,
    /// When it was cancelled.
    pub cancelled_at: Option<String>,
    /// Every transfer to its addresses, oldest first.
    pub transfers: Vec<TransferView>,
}

/// Confirmations needed: a number, or `"final"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Required {
    /// So many.
    Blocks(u32),
    /// The word `final`.
    Word(String),
}

impl From<Depth> for Required {
    fn from(depth: Depth) -> Self {
        match depth {
            Depth::Blocks(blocks) => Self::Blocks(blocks),
            Depth::Final => Self::Word("final".into()),
        }
    }
}

/// An address the order was lent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PaymentOption {
    /// Where.
    pub network: String,
    /// The address; null if it fails its integrity check, then an alert says so.
    pub address: Option<String>,
    /// Its wallet.
    pub wallet_id: String,
    /// A link that wallets understand.
    pub payment_uri: Option<String>,
}

/// A transfer to an address of the order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransferView {
    /// Its id here.
    pub id: String,
    /// Where.
    pub network: String,
    /// The transaction, as the chain's explorers write it.
    pub tx_hash: String,
    /// Its rank within the transaction.
    pub ordinal: u32,
    /// The block it is in, or was in last.
    pub block_number: u64,
    /// Who paid.
    pub from: String,
    /// To which address.
    pub to: String,
    /// Whole millionths.
    #[schema(example = "12.500000")]
    pub amount: String,
    /// Base units, exactly.
    #[schema(example = "12500000")]
    pub raw_value: String,
    /// `pending`, `confirmed` or `orphaned`.
    #[schema(example = "pending")]
    pub status: String,
    /// Head − block + 1; 0 when it is orphaned.
    pub confirmations: u64,
    /// When it was first seen.
    pub seen_at: String,
}

/// An order as a payer may see it: nothing of what the shop keeps to itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PublicOrder {
    /// Its id.
    pub id: String,
    /// Real money, or the sandbox.
    pub livemode: bool,
    /// As in the order.
    pub status: String,
    /// As in the order.
    pub exception: Option<String>,
    /// As in the order.
    pub network: Option<String>,
    /// As in the order.
    pub token: String,
    /// As in the order.
    pub amount: String,
    /// As in the order.
    pub open_amount: bool,
    /// As in the order.
    pub amount_received: String,
    /// As in the order.
    pub amount_confirmed: String,
    /// Null once the time for paying is over.
    pub address: Option<String>,
    /// As in the order.
    pub confirmations: u64,
    /// As in the order.
    #[schema(value_type = Option<Object>)]
    pub confirmations_required: Option<Required>,
    /// As in the order.
    pub checkout_url: String,
    /// Null once the time for paying is over.
    pub payment_uri: Option<String>,
    /// Empty once the time for paying is over.
    pub payment_options: Vec<PaymentOption>,
    /// As in the order.
    pub redirect_url: Option<String>,
    /// As in the order.
    pub created_at: String,
    /// As in the order.
    pub expires_at: String,
    /// As in the order.
    pub paid_at: Option<String>,
    /// As in the order.
    pub cancelled_at: Option<String>,
    /// As in the order.
    pub transfers: Vec<TransferView>,
}

/// True while a payer may be shown an address: the order is pending, and neither the server's time
/// nor a leased network's head has passed its end.
#[must_use]
pub fn shows_addresses(row: &OrderRow, heads: &Heads, now: Time) -> bool {
    let ends = row.order.terms.expires_at;
    let newest = row.order.leases.iter().filter_map(|lease| heads.get(&lease.network)).map(|head| head.tip.time).max();
    row.order.status == Status::Pending && now <= ends && newest.is_none_or(|newest| newest <= ends)
}

/// An order as a payer may see it.
#[must_use]
pub fn public_view(gateway: &Gateway, row: &OrderRow, heads: &Heads, now: Time) -> PublicOrder {
    let open = shows_addresses(row, heads, now);
    let view = view(gateway, row, heads);
    PublicOrder {
        id: view.id,
        livemode: view.livemode,
        status: view.status,
        exception: view.exception,
        network: view.network,
        token: view.token,
        amount: view.amount,
        open_amount: view.open_amount,
        amount_received: view.amount_received,
        amount_confirmed: view.amount_confirmed,
        address: view.address.filter(|_| open),
        confirmations: view.confirmations,
        confirmations_required: view.confirmations_required,
        checkout_url: view.checkout_url,
        payment_uri: view.payment_uri.filter(|_| open),
        payment_options: if open { view.payment_options } else { Vec::new() },
        redirect_url: view.redirect_url,
        created_at: view.created_at,
        expires_at: view.expires_at,
        paid_at: view.paid_at,
        cancelled_at: view.cancelled_at,
        transfers: view.transfers,
    }
}

/// An order as the shop sees it.
#[must_use]
pub fn view(gateway: &Gateway, row: &OrderRow, heads: &Heads) -> OrderView {
    let order = &row.order;
    let rest = order.terms.amount.saturating_sub(order.tally.received);
    let asked = if rest.is_zero() { order.terms.amount } else { rest };
    // A link with an amount would ask for the least.
    let asked = (order.terms.purpose == Purpose::Payment).then_some(asked);
    let options: Vec<PaymentOption> = order
        .leases
        .iter()
        .zip(&row.addresses)
        .map(|(lease, (text, tag))| {
            // Write access to the database alone must not redirect payers, and nobody is sent to a wallet
            // that was set aside.
            let is_shown = genuine_address(gateway, lease, text, tag) && !row.withheld.contains(&lease.wallet);
            PaymentOption {
                network: lease.network.to_string(),
                address: is_shown.then(|| text.clone()),
                wallet_id: lease.wallet.to_string(),
                payment_uri: gateway.networks().get(&lease.network).filter(|_| is_shown).map(|part| payment_uri(part, text, asked)),
            }
        })
        .collect();
    let current = options.iter().find(|option| order.current.as_ref().is_some_and(|network| network.as_str() == option.network));
    let payments = row.payments();
    let time = |time: Time| time.to_string();
    OrderView {
        id: row.id.to_string(),
        merchant_id: row.merchant.to_string(),
        livemode: row.livemode,
        status: order.status.name().to_owned(),
        exception: order.exception.map(|exception: Exception| exception.name().to_owned()),
        network: order.current.as_ref().map(ToString::to_string),
        token: "USDT".to_owned(),
        amount: order.terms.amount.to_string(),
        open_amount: order.terms.purpose == Purpose::OpenAmount,
        amount_received: order.tally.received.to_string(),
        amount_confirmed: order.tally.confirmed.to_string(),
        address: current.and_then(|option| option.address.clone()),
        wallet_id: current.map(|option| option.wallet_id.clone()),
        user_id: row.details.user_id.clone(),
        plan_id: row.details.plan_id.clone(),
        merchant_order_id: row.details.merchant_order_id.clone(),
        confirmations: order::confirmations(order, &payments, heads),
        confirmations_required: order.current.as_ref().map(|network| demanded(order, network, heads).into()),
        checkout_url: checkout_url(gateway, row.id),
        payment_uri: current.and_then(|option| option.payment_uri.clone()),
        callback_url: row.details.callback_url.clone(),
        redirect_url: row.details.redirect_url.clone(),
        metadata: serde_json::from_str(&row.details.metadata).unwrap_or_default(),
        note: row.details.note.clone(),
        created_at: time(row.created_at),
        expires_at: time(order.terms.expires_at),
        paid_at: order.facts.paid.map(|paid| time(paid.at)),
        cancelled_at: order.facts.cancelled_at.map(time),
        transfers: row.transfers.iter().map(|transfer| transfer_view(gateway, transfer, heads)).collect(),
        payment_options: options,
    }
}

/// How deep money must be buried now: as the order's terms say, or deeper while its network is in
/// trouble.
pub fn demanded(order: &order::Order, network: &Network, heads: &Heads) -> Depth {
    let depth = order.terms.depth(network);
    heads.get(network).and_then(|head| head.floor).map_or(depth, |floor| floor.max(depth))
}

/// A recorded transfer as the API shows it.
pub fn transfer_view(gateway: &Gateway, transfer: &TransferRow, heads: &Heads) -> TransferView {
    let payment = &transfer.payment;
    let confirmations = heads.get(&payment.network).filter(|_| payment.standing).map_or(0, |head| head.confirmations(payment.block.number));
    TransferView {
        id: transfer.id.to_string(),
        network: payment.network.to_string(),
        tx_hash: hash_text(gateway, &payment.network, payment.key.tx_hash),
        ordinal: payment.key.ordinal,
        block_number: payment.block.number,
        from: transfer.address_texts.0.clone(),
        to: transfer.address_texts.1.clone(),
        amount: payment.value.to_amount_saturating(payment.decimals).to_string(),
        raw_value: payment.value.to_string(),
        status: payment.status().name().to_owned(),
        confirmations,
        seen_at: transfer.seen_at.to_string(),
    }
}

/// A transaction's hash as people on its chain write it.
pub fn hash_text(gateway: &Gateway, network: &Network, hash: Hash) -> String {
    match gateway.networks().get(network).map(|part| part.config.kind) {
        Some(Kind::Evm) => format!("0x{hash}"),
        _ => hash.to_string(),
    }
}

/// True when an address is the one its wallet was made with, in both spellings.
fn genuine_address(gateway: &Gateway, lease: &Lease, text: &str, tag: &str) -> bool {
    let id = lease.wallet.to_string();
    let wallet = Wallet { id: &id, network: lease.network.as_str(), address: &lease.address.0 };
    let spelled = gateway.networks().get(&lease.network).is_none_or(|part| part.chain.format_address(&lease.address) == text);
    spelled && gateway.vault.verify_tag(&wallet, tag)
}

/// The page for the payer.
fn checkout_url(gateway: &Gateway, id: OrderId) -> String {
    format!("{}/pay/{id}", gateway.config.server.origin())
}

/// A link that wallets understand: EIP-681 on EVM; TRON has no standard, so the widespread form.
fn payment_uri(part: &NetworkPart, address: &str, amount: Option<Amount>) -> String {
    let config = &part.config;
    match config.kind {
        Kind::Evm => {
            let units = amount.map(|amount| format!("&uint256={}", amount.to_raw(config.decimals).unwrap_or_default()));
            format!("ethereum:{}@{}/transfer?address={address}{}", config.token, config.chain_id, units.unwrap_or_default())
        }
        Kind::Tron => {
            let amount = amount.map(|amount| format!("&amount={amount}")).unwrap_or_default();
            format!("tron:{address}?token={}{amount}", config.token)
        }
    }
}
