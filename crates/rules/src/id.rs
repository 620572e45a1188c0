//! Typed ids: a prefix and a UUIDv7, sortable by the time they were made.
//!
//! Time and randomness come in as arguments, so the same inputs make the same id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::time::Time;

/// The text is not an id of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an id such as {0}01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct IdError(&'static str);

/// A UUIDv7 from a time and ten random bytes (RFC 9562 §5.7).
fn v7(at: Time, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(at.millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id from a time and ten random bytes.
            #[must_use]
            pub fn new(at: Time, random: [u8; 10]) -> Self {
                Self(v7(at, random))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let id = text.strip_prefix($prefix).ok_or(IdError($prefix))?;
                // Only the form that we write: another spelling of the same id would defeat
                // look-ups by text.
                let simple = id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if !simple {
                    return Err(IdError($prefix));
                }
                Uuid::try_parse(id).map(Self).map_err(|_| IdError($prefix))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A merchant: one shop of the owner.
    MerchantId "mer_";
    /// A payment order.
    OrderId "ord_";
    /// A wallet of the pool.
    WalletId "wal_";
    /// A lease of a wallet to an order.
    LeaseId "lea_";
    /// A transfer on a chain, as recorded here.
    TransferId "tx_";
    /// An event; also the `webhook-id` of its deliveries.
    EventId "evt_";
    /// A delivery of an event to a receiver.
    DeliveryId "whd_";
    /// An alert for the operator.
    AlertId "alr_";
    /// An API key.
    KeyId "key_";
    /// Long work that somebody asked for.
    JobId "job_";
    /// A seed or an extended public key that wallets are derived from.
    SourceId "src_";
    /// A message to the operator or to a customer.
    NoticeId "ntf_";
    /// Somebody who may log in.
    UserId "usr_";
    /// A log-in that goes on.
    SessionId "ses_";
    /// A message of a payment provider.
    InboxId "whi_";
    /// A further receiver of a merchant's webhooks.
    EndpointId "whe_";
}

macro_rules! subjects {
    ($($(#[$doc:meta])* $variant:ident $id:ident;)*) => {
        /// What an event is about, by its id.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Subject {
            $($(#[$doc])* $variant($id),)*
        }

        $(impl From<$id> for Subject {
            fn from(id: $id) -> Self {
                Self::$variant(id)
            }
        })*

        impl fmt::Display for Subject {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$variant(id) => id.fmt(f),)* }
            }
        }

        impl FromStr for Subject {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                $(if text.starts_with($id::PREFIX) {
                    return text.parse().map(Self::$variant);
                })*
                Err(IdError("ord_"))
            }
        }
    };
}

subjects! {
    /// An order.
    Order OrderId;
    /// An alert.
    Alert AlertId;
}

impl EventId {
    /// The id of an event's only delivery, where none is drawn for it: the same time and chance.
    #[must_use]
    pub const fn delivery(self) -> DeliveryId {
        DeliveryId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let early = OrderId::new(Time::from_millis(1_000), [0xff; 10]);
        let late = OrderId::new(Time::from_millis(1_001), [0; 10]);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert!(early.to_string().starts_with("ord_"));
    }

    #[test]
    fn a_subject_is_told_by_its_prefix() {
        let (order, alert) = (OrderId::new(Time::from_millis(1), [1; 10]), AlertId::new(Time::from_millis(1), [2; 10]));
        for subject in [Subject::from(order), Subject::from(alert)] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        assert!(WalletId::new(Time::from_millis(1), [3; 10]).to_string().parse::<Subject>().is_err());
    }

    #[test]
    fn only_our_own_spelling_is_an_id() {
        let id = OrderId::new(Time::from_millis(1_000), [7; 10]).to_string();
        for wrong in [id.to_uppercase(), id.replace("ord_", "wal_"), format!("{id}0"), format!("{id} "), "ord_".into()] {
            assert!(wrong.parse::<OrderId>().is_err(), "{wrong}");
        }
    }
}
