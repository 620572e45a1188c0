//! What a token contract says of its own state, beside transfers: whom its issuer has frozen, and
//! whether it still works.

use crate::amount::Raw;
use crate::block::Address;

/// An act of the token's issuer that can take money out of reach, or give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenNotice {
    /// This address can no longer send the token. It can still be paid.
    Blacklisted(Address),
    /// It can send again.
    Unblacklisted(Address),
    /// The issuer took away what a blacklisted address held. No transfer shows it.
    FundsDestroyed {
        /// Whose money it was.
        address: Address,
        /// Base units.
        value: Raw,
    },
    /// Nobody can send the token.
    Paused,
    /// Everybody who is not blacklisted can send it again.
    Unpaused,
    /// The contract hands its work to another one; transfers may be logged there from now on.
    Deprecated {
        /// The other contract.
        successor: Address,
    },
}
