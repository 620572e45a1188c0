//! What an operator should look at. An alert is written with its cause.

use crate::block::{Network, TransferKey};
use crate::wallet::names;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertKind {
    /// Money arrived that no order owns.
    StrayMoney,
    /// Money arrived after its order's time and was not counted.
    LateMoney,
    /// An order expired holding money that is not enough.
    ExpiredUnderpaid,
    /// The chain took back money of a paid order.
    PaymentReverted,
    /// A `Transfer` log of the token could not be read.
    UnreadableLog,
    /// A network stopped: its chain was rewritten too deep.
    NetworkHalted,
    /// The settled re-read of a block does not show money that was seen in it.
    RereadDiffers,
    /// A wallet's address does not match its tag: somebody edited the database.
    AddressTampered,
    /// A webhook was not accepted within its schedule.
    WebhookFailed,
    /// The pool cannot grow.
    PoolExhausted,
}

names!(AlertKind:
    StrayMoney "stray_money",
    LateMoney "late_money",
    ExpiredUnderpaid "expired_underpaid",
    PaymentReverted "payment_reverted",
    UnreadableLog "unreadable_log",
    NetworkHalted "network_halted",
    RereadDiffers "reread_differs",
    AddressTampered "address_tampered",
    WebhookFailed "webhook_failed",
    PoolExhausted "pool_exhausted",
);

/// An alert, and the transfer it is about, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What happened.
    pub kind: AlertKind,
    /// The transfer it is about.
    pub transfer: Option<(Network, TransferKey)>,
}
