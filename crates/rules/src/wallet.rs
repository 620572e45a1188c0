//! What a wallet of the pool may be, and which changes of state are legal.

use crate::time::{Span, Time};

/// Where a wallet's key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalletKind {
    /// A key made here at random: nobody can have paid to its address before.
    Random,
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

names!(WalletKind: Random "random", Imported "imported");
names!(WalletStatus: Available "available", Occupied "occupied", Cooldown "cooldown", Disabled "disabled", Frozen "frozen");

/// Where a wallet stands in the queue of those that may be leased: lowest first. Random keys that
/// were never leased come before everything, then the longest rested.
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
            ("rested long", queue_rank(WalletKind::Random, true, Time::from_secs(100))),
            ("fresh", queue_rank(WalletKind::Random, false, Time::from_secs(999))),
        ];
        queue.sort_by_key(|entry| entry.1);
        assert_eq!(queue.map(|entry| entry.0), ["fresh", "rested long", "imported, new", "rested lately"]);
    }

    #[test]
    fn names_read_back() {
        for status in WalletStatus::ALL {
            assert_eq!(WalletStatus::from_name(status.name()), Some(*status));
        }
        assert_eq!(WalletStatus::from_name("leased"), None);
    }
}
