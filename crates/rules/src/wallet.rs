//! What a wallet of the pool may be, and which changes of state are legal: [`change`] and
//! [`release`] for what a person asks, [`leased`], [`lease_ended`] and [`rested`] for what the life
//! of a lease does by itself. How far a wallet is trusted stands beside its state, not in it.

use crate::time::{Span, Time};

/// Where a wallet's key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalletKind {
    /// A key made here at random: nobody can have paid to its address before.
    Random,
    /// Derived from a seed. The seed may have been used elsewhere: its address may have a history.
    Hd,
    /// Derived from an extended public key; the private key is not here, and money leaves by its
    /// owner's hand. Its address may have a history.
    Watch,
    /// A key that somebody brought: its address may have a history.
    Imported,
}

/// What may be done with a wallet now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalletStatus {
    /// May be leased to an order.
    Available,
    /// Leased: from the order's creation until its late window is over.
    Occupied,
    /// Resting after a lease.
    Cooldown,
    /// Taken out of use by a person. Money still counts for a live order.
    Disabled,
    /// Taken out of use because something is wrong with it. Money still counts for a live order.
    Frozen,
}

/// How far a wallet is trusted. Ordered: riskier is greater. It rises by itself (see
/// [`crate::risk`]); only a person lowers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RiskLevel {
    /// Nothing is known against it.
    Low,
    /// Somebody should look at it. It is leased as any other.
    Watch,
    /// Not leased: what comes to it may be tainted.
    High,
    /// Not leased, and only a person moves money away from it.
    Blocked,
}

impl RiskLevel {
    /// True when a wallet of this level may be leased, as far as its risk goes.
    #[must_use]
    pub const fn may_lease(self) -> bool {
        matches!(self, Self::Low | Self::Watch)
    }
}

/// What a wallet's last lease says, whatever the wallet's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseFact {
    /// It has not ended.
    Live,
    /// It has ended, and the wallet has not rested for long enough; or a person sent it to rest.
    Resting,
    /// There is none, or the wallet has rested after it.
    Free,
}

/// Why a person may not change a wallet's status so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// A lease makes a wallet occupied, never a person.
    #[error("a wallet becomes occupied by a lease only; ask for another status")]
    NotByHand,
    /// It has that status.
    #[error("the wallet is in that status already")]
    Already,
    /// Its lease has not ended: the order's money may still come.
    #[error("the wallet is leased to an order; wait until its late window is over, or disable it meanwhile")]
    InUse,
    /// There is no way from the one to the other by hand.
    #[error("a wallet does not go from {} to {} by hand", .from.name(), .to.name())]
    NotFrom {
        /// What it is.
        from: WalletStatus,
        /// What was asked for.
        to: WalletStatus,
    },
}

macro_rules! names {
    ($type:ident: $($variant:ident $name:literal),* $(,)?) => {
        impl $type {
            /// Every variant.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in the API and in the database.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The variant of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}
pub(crate) use names;

names!(WalletKind: Random "random", Hd "hd", Watch "watch", Imported "imported");
names!(WalletStatus: Available "available", Occupied "occupied", Cooldown "cooldown", Disabled "disabled", Frozen "frozen");
names!(RiskLevel: Low "low", Watch "watch", High "high", Blocked "blocked");

/// True when a wallet may be leased as far as its status and its risk go.
#[must_use]
pub const fn may_lease(status: WalletStatus, risk: RiskLevel) -> bool {
    leased(status).is_some() && risk.may_lease()
}

/// The status of a wallet that a person asks to be `to`.
///
/// It is `to` itself, but for one case: whoever asks for `available` to end `disabled` or `frozen`
/// gets what the lease says, which may be `occupied` or `cooldown`.
///
/// # Errors
/// The first that applies of [`Illegal::NotByHand`], [`Illegal::Already`], [`Illegal::InUse`] (it
/// would be legal, but for the lease) and [`Illegal::NotFrom`].
pub fn change(from: WalletStatus, to: WalletStatus, lease: LeaseFact) -> Result<WalletStatus, Illegal> {
    use WalletStatus::{Available, Cooldown, Disabled, Frozen, Occupied};
    match (from, to) {
        (_, Occupied) => Err(Illegal::NotByHand),
        _ if from == to => Err(Illegal::Already),
        (_, Disabled | Frozen) => Ok(to),
        (Disabled | Frozen, Available) => Ok(match lease {
            LeaseFact::Live => Occupied,
            LeaseFact::Resting => Cooldown,
            LeaseFact::Free => Available,
        }),
        (Disabled | Frozen, Cooldown) => Err(Illegal::NotFrom { from, to }),
        (Occupied, Available | Cooldown) => Err(Illegal::InUse),
        // No stored wallet is like this; were one, its order's money would be at stake.
        (Available | Cooldown, Available | Cooldown) if lease == LeaseFact::Live => Err(Illegal::InUse),
        (Available | Cooldown, Available | Cooldown) => Ok(to),
    }
}

/// The status of a wallet that a person releases: a cooldown is cut short, and nothing else.
///
/// # Errors
/// [`Illegal::InUse`] under a live lease, whatever the status; else as [`change`] to `available`,
/// and [`Illegal::NotFrom`] for a disabled or frozen wallet.
pub fn release(status: WalletStatus, lease: LeaseFact) -> Result<WalletStatus, Illegal> {
    let to = WalletStatus::Available;
    match status {
        _ if lease == LeaseFact::Live => Err(Illegal::InUse),
        WalletStatus::Disabled | WalletStatus::Frozen => Err(Illegal::NotFrom { from: status, to }),
        WalletStatus::Available | WalletStatus::Occupied | WalletStatus::Cooldown => change(status, to, lease),
    }
}

/// The status of a wallet that is lent to an order; `None` when it may not be.
#[must_use]
pub const fn leased(status: WalletStatus) -> Option<WalletStatus> {
    match status {
        WalletStatus::Available => Some(WalletStatus::Occupied),
        WalletStatus::Occupied | WalletStatus::Cooldown | WalletStatus::Disabled | WalletStatus::Frozen => None,
    }
}

/// The status of a wallet whose lease ended. What a person took out of use stays out of use.
#[must_use]
pub const fn lease_ended(status: WalletStatus) -> WalletStatus {
    match status {
        WalletStatus::Occupied => WalletStatus::Cooldown,
        WalletStatus::Available | WalletStatus::Cooldown | WalletStatus::Disabled | WalletStatus::Frozen => status,
    }
}

/// The status of a wallet that has rested. What a person took out of use stays out of use.
#[must_use]
pub const fn rested(status: WalletStatus) -> WalletStatus {
    match status {
        WalletStatus::Cooldown => WalletStatus::Available,
        WalletStatus::Available | WalletStatus::Occupied | WalletStatus::Disabled | WalletStatus::Frozen => status,
    }
}

/// Where a wallet stands in the queue of those that may be leased: lowest first. Random keys that
/// were never leased come before everything (0), then the longest rested. Every other kind may have
/// been paid to before it came here, so it is never as good as new.
#[must_use]
pub fn queue_rank(kind: WalletKind, ever_leased: bool, rested_since: Time) -> i64 {
    match (kind, ever_leased) {
        (WalletKind::Random, false) => 0,
        _ => rested_since.millis().max(1),
    }
}

/// When a wallet whose lease ended may be leased again, in the time of its own settled chain.
#[must_use]
pub const fn rested_at(lease_ended_at: Time, cooldown: Span) -> Time {
    lease_ended_at.plus(cooldown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_random_wallets_come_first_then_the_longest_rested() {
        let mut queue = [
            ("rested lately", queue_rank(WalletKind::Random, true, Time::from_secs(900))),
            ("imported, new", queue_rank(WalletKind::Imported, false, Time::from_secs(500))),
            ("of a seed, new", queue_rank(WalletKind::Hd, false, Time::from_secs(600))),
            ("watched, new", queue_rank(WalletKind::Watch, false, Time::from_secs(0))),
            ("rested long", queue_rank(WalletKind::Random, true, Time::from_secs(100))),
            ("fresh", queue_rank(WalletKind::Random, false, Time::from_secs(999))),
        ];
        queue.sort_by_key(|entry| entry.1);
        assert_eq!(
            queue.map(|entry| entry.0),
            ["fresh", "watched, new", "rested long", "imported, new", "of a seed, new", "rested lately",]
        );
    }

    #[test]
    fn names_read_back() {
        for status in WalletStatus::ALL {
            assert_eq!(WalletStatus::from_name(status.name()), Some(*status));
        }
        for kind in WalletKind::ALL {
            assert_eq!(WalletKind::from_name(kind.name()), Some(*kind));
        }
        for risk in RiskLevel::ALL {
            assert_eq!(RiskLevel::from_name(risk.name()), Some(*risk));
        }
        assert_eq!(WalletStatus::from_name("leased"), None);
    }
}
