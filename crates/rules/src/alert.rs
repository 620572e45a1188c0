//! What an operator should look at, how much it matters, and what becomes of it. An alert is
//! written with its cause; only a person closes it.

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
    /// Money was found that the first reading of its block had missed; it is recorded now.
    TransferMissed,
    /// A network's finality lags or its endpoints disagree: money there waits until it is final.
    NetworkInTrouble,
    /// A large amount waits for a second endpoint to show its block.
    AgreementMissing,
    /// The newest block is older than the network may lag: it takes no new order.
    NetworkBehind,
    /// The newest block's time is ahead of this machine's clock.
    HeadAhead,
    /// The endpoint in use was left for another.
    EndpointLeft,
    /// A wallet holds more or less than the records of its transfers explain.
    BalanceDiffers,
    /// A wallet's address does not match its tag: somebody edited the database.
    AddressTampered,
    /// A webhook was not accepted within its schedule.
    WebhookFailed,
    /// A message to the operator or to a customer was not accepted within its schedule.
    NotificationFailed,
    /// The pool cannot grow.
    PoolExhausted,
    /// Fewer wallets may be leased than the operator wants.
    PoolLow,
    /// Money left a wallet of ours without a sweep of ours.
    MoneyLeft,
    /// Far more came to a wallet than ever before.
    UnusualAmount,
    /// Very many very small transfers came to a wallet in a day.
    DustFlood,
    /// The token's issuer blacklisted a wallet of ours: its money does not move any more.
    AddressBlacklisted,
    /// The token's issuer blacklisted somebody who paid to a wallet of ours.
    PayerBlacklisted,
    /// The token's issuer stopped all of its transfers.
    TokenPaused,
    /// The token's issuer moved it to another contract, which is not followed.
    TokenDeprecated,
    /// The token's issuer destroyed the money of a wallet of ours.
    FundsDestroyed,
    /// A sealed key does not open, or opens to another address than its wallet's.
    KeyDoesNotOpen,
    /// The audit log is not as it was written.
    AuditBroken,
    /// Something was changed that decides where money or notices go, or who decides it.
    CredentialsChanged,
    /// The certificate that browsers see ends soon, has ended, or is not good yet.
    CertificateEnding,
}

names!(AlertKind:
    StrayMoney "stray_money",
    LateMoney "late_money",
    ExpiredUnderpaid "expired_underpaid",
    PaymentReverted "payment_reverted",
    UnreadableLog "unreadable_log",
    NetworkHalted "network_halted",
    RereadDiffers "reread_differs",
    TransferMissed "transfer_missed",
    NetworkInTrouble "network_in_trouble",
    AgreementMissing "agreement_missing",
    NetworkBehind "network_behind",
    HeadAhead "head_ahead",
    EndpointLeft "endpoint_left",
    BalanceDiffers "balance_differs",
    AddressTampered "address_tampered",
    WebhookFailed "webhook_failed",
    NotificationFailed "notification_failed",
    PoolExhausted "pool_exhausted",
    PoolLow "pool_low",
    MoneyLeft "money_left",
    UnusualAmount "unusual_amount",
    DustFlood "dust_flood",
    AddressBlacklisted "address_blacklisted",
    PayerBlacklisted "payer_blacklisted",
    TokenPaused "token_paused",
    TokenDeprecated "token_deprecated",
    FundsDestroyed "funds_destroyed",
    KeyDoesNotOpen "key_does_not_open",
    AuditBroken "audit_broken",
    CredentialsChanged "credentials_changed",
    CertificateEnding "certificate_ending",
);

impl AlertKind {
    /// True for a state of things that can end and begin again: when it does after its alert was
    /// closed, the alert is opened again. The others are about something that happened once.
    #[must_use]
    pub const fn comes_back(self) -> bool {
        matches!(
            self,
            Self::NetworkHalted
                | Self::NetworkInTrouble
                | Self::NetworkBehind
                | Self::HeadAhead
                | Self::EndpointLeft
                | Self::AddressTampered
                | Self::NotificationFailed
                | Self::PoolExhausted
                | Self::PoolLow
                | Self::KeyDoesNotOpen
                | Self::AuditBroken
                | Self::CertificateEnding
        )
    }

    /// False for an alert that is not sent to the operator's receiver of webhooks: it says that a
    /// receiver accepts none, and would call forth itself.
    #[must_use]
    pub const fn is_sent(self) -> bool {
        !matches!(self, Self::WebhookFailed)
    }

    /// How much it matters.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::UnusualAmount | Self::DustFlood | Self::EndpointLeft => Severity::Info,
            Self::StrayMoney
            | Self::LateMoney
            | Self::ExpiredUnderpaid
            | Self::UnreadableLog
            | Self::WebhookFailed
            | Self::NotificationFailed
            | Self::AgreementMissing
            | Self::NetworkBehind
            | Self::HeadAhead
            | Self::PoolLow
            | Self::PayerBlacklisted
            | Self::CredentialsChanged
            | Self::CertificateEnding => Severity::Warning,
            Self::PaymentReverted
            | Self::NetworkHalted
            | Self::RereadDiffers
            | Self::TransferMissed
            | Self::BalanceDiffers
            | Self::NetworkInTrouble
            | Self::AddressTampered
            | Self::PoolExhausted
            | Self::MoneyLeft
            | Self::AddressBlacklisted
            | Self::TokenPaused
            | Self::TokenDeprecated
            | Self::FundsDestroyed
            | Self::KeyDoesNotOpen
            | Self::AuditBroken => Severity::Critical,
        }
    }
}

/// How much an alert matters. Ordered: worse is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing has to be done.
    Info,
    /// Somebody has to decide something, today or tomorrow.
    Warning,
    /// Money, keys or the service are at stake now.
    Critical,
}

names!(Severity: Info "info", Warning "warning", Critical "critical");

/// What became of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertStatus {
    /// Nobody has looked at it.
    Open,
    /// Somebody looks after it.
    Acknowledged,
    /// Done with, for ever.
    Closed,
}

names!(AlertStatus: Open "open", Acknowledged "acknowledged", Closed "closed");

/// An alert does not go from the one status to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an alert does not go from {} to {}; open ones are acknowledged or closed, acknowledged ones closed", .from.name(), .to.name())]
pub struct AlertIllegal {
    /// What it is.
    pub from: AlertStatus,
    /// What was asked for.
    pub to: AlertStatus,
}

impl AlertStatus {
    /// Whether a person may take an alert to `to`: open → acknowledged → closed, or open → closed.
    ///
    /// # Errors
    /// [`AlertIllegal`] for every other step, staying where it is included.
    pub const fn change(self, to: Self) -> Result<(), AlertIllegal> {
        match (self, to) {
            (Self::Open, Self::Acknowledged | Self::Closed) | (Self::Acknowledged, Self::Closed) => Ok(()),
            (Self::Open, Self::Open) | (Self::Acknowledged, Self::Open | Self::Acknowledged) | (Self::Closed, _) => {
                Err(AlertIllegal { from: self, to })
            }
        }
    }
}

/// An alert, and the transfer it is about, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What happened.
    pub kind: AlertKind,
    /// The transfer it is about.
    pub transfer: Option<(Network, TransferKey)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_goes_forward_and_nothing_leaves_closed() {
        let mut legal = Vec::new();
        for from in AlertStatus::ALL {
            for to in AlertStatus::ALL {
                match from.change(*to) {
                    Ok(()) => legal.push(format!("{} → {}", from.name(), to.name())),
                    Err(illegal) => assert_eq!(illegal, AlertIllegal { from: *from, to: *to }),
                }
            }
        }
        assert_eq!(legal, ["open → acknowledged", "open → closed", "acknowledged → closed"]);
    }

    #[test]
    fn names_read_back_and_differ() {
        let names: std::collections::BTreeSet<_> = AlertKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), AlertKind::ALL.len());
        for kind in AlertKind::ALL {
            assert_eq!(AlertKind::from_name(kind.name()), Some(*kind));
        }
        for status in AlertStatus::ALL {
            assert_eq!(AlertStatus::from_name(status.name()), Some(*status));
        }
        for severity in Severity::ALL {
            assert_eq!(Severity::from_name(severity.name()), Some(*severity));
        }
    }

    #[test]
    fn severities() {
        let of = |severity: Severity| {
            AlertKind::ALL.iter().filter(|kind| kind.severity() == severity).map(|kind| kind.name()).collect::<Vec<_>>()
        };
        assert_eq!(of(Severity::Info), ["endpoint_left", "unusual_amount", "dust_flood"]);
        assert_eq!(
            of(Severity::Warning),
            [
                "stray_money",
                "late_money",
                "expired_underpaid",
                "unreadable_log",
                "agreement_missing",
                "network_behind",
                "head_ahead",
                "webhook_failed",
                "notification_failed",
                "pool_low",
                "payer_blacklisted",
                "credentials_changed",
                "certificate_ending"
            ]
        );
        assert!(Severity::Info < Severity::Warning && Severity::Warning < Severity::Critical);
    }
}
