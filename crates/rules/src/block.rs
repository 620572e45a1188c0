//! What a chain says: blocks and the token transfers in them, the same for every kind of chain.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::amount::Raw;
use crate::notice::TokenNotice;
use crate::time::Time;

/// The name of a network, as the configuration and the API call it (`tron`, `ethereum`, …).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(Arc<str>);

impl Network {
    /// A network by its configured name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Twenty bytes of an account, on TRON (without the leading `41`) and EVM alike. How it is
/// written differs by chain and is not known here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A block's or a transaction's 32-byte hash. Written as 64 lower-case hex digits without `0x`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// The text is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hex digits, with or without 0x")]
pub struct HashError;

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let text = text.strip_prefix("0x").unwrap_or(text);
        // The decoder would take a second 0x.
        if text.len() != 64 {
            return Err(HashError);
        }
        hex::decode_to_array(text).map(Self).map_err(|_| HashError)
    }
}

/// A block's place: enough to compare chains by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Height.
    pub number: u64,
    /// Its own hash.
    pub hash: Hash,
    /// Its parent's hash.
    pub parent: Hash,
    /// The chain's own time of it. Blocks may share a time; time never runs backwards on a chain.
    pub time: Time,
}

/// The name of a transfer for ever, whatever block it is in: its transaction and its rank there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferKey {
    /// The transaction.
    pub tx_hash: Hash,
    /// The 0-based rank, within the transaction, among the token contract's logs whose first topic
    /// is `Transfer`, malformed and zero ones counted too. Unlike a block's log index it survives
    /// a reorganisation.
    pub ordinal: u32,
}

/// A transfer of the watched token that a successful transaction made. Never of value zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Its name.
    pub key: TransferKey,
    /// Who paid, as the log says.
    pub from: Address,
    /// Who was paid.
    pub to: Address,
    /// Base units.
    pub value: Raw,
}

/// A `Transfer` log of the watched token that does not read as one: wrong number of topics, data
/// that is not 32 bytes, dirty upper bytes of an address. The genuine token emits none; whoever
/// sees one should look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name.
    pub key: TransferKey,
    /// The log as it came: the topics and the data as hex, cut to 1,024 characters.
    pub raw: String,
    /// Every address of 20 bytes that the log's topics and data words could mean, so that a log
    /// that concerns one of ours can be told.
    pub mentions: Vec<Address>,
}

/// A block that was read whole: every transfer of the token in it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its place in the chain.
    pub at: BlockRef,
    /// In the order of the chain.
    pub transfers: Vec<Transfer>,
    /// Logs that should have been transfers.
    pub unreadable: Vec<Unreadable>,
    /// What the token contract said of itself, in the order of the chain. Those that do not read
    /// as one are left out: no money is in them, and no block waits for them.
    pub notices: Vec<TokenNotice>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_digits_behind_at_most_one_prefix() {
        let digits = "ab".repeat(32);
        for text in [digits.clone(), format!("0x{digits}"), digits.to_uppercase()] {
            assert_eq!(text.parse(), Ok(Hash([0xab; 32])));
        }
        for text in [format!("0x0x{digits}"), digits[2..].to_owned(), format!("{digits}ab"), format!("0x{}", &digits[2..]), String::new()] {
            assert_eq!(text.parse::<Hash>(), Err(HashError), "{text}");
        }
    }
}
