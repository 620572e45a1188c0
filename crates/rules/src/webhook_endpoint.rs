//! Further receivers of a merchant's webhooks, beside its webhook URL: what is stored of each, and how it
//! changes. Which events one of them hears is decided here, by [`takes`]; nothing here knows a secret
//! that is not sealed.

use crate::id::{EndpointId, MerchantId};
use crate::notify::EventType;
use crate::time::{Span, Time};

/// How many endpoints a merchant may have. Every event is written once for each that takes it.
pub const ENDPOINTS_MAX: usize = 16;

/// How long the row of an endpoint that was removed stays, with its sealed secret: longer than any try
/// by the schedule takes, so that the notice of its own end still reaches it.
pub const REMOVED_KEPT: Span = Span::from_secs(48 * 3_600);

/// Whether somebody who wants the types in `wanted` (words with spaces between them, `None` for all)
/// hears of an event of this type.
#[must_use]
pub fn takes(wanted: Option<&str>, kind: EventType) -> bool {
    wanted.is_none_or(|wanted| wanted.split(' ').any(|one| one == kind.name()))
}

/// A step in the life of an endpoint. What is in the outbox goes where it was to go, but for what a
/// removed one has not taken yet.
#[derive(Clone, Debug)]
pub enum EndpointChange {
    /// It joins. Conflicts where the merchant has [`ENDPOINTS_MAX`] already.
    New(NewEndpoint),
    /// Something about it changes. Conflicts unless the row has the version.
    Put {
        /// Which.
        id: EndpointId,
        /// The version that was read.
        version: i64,
        /// What it is from now on.
        to: EndpointTerms,
    },
    /// Its webhooks are signed with another secret, and for a while with the old one too. Conflicts
    /// unless `old` is what signed.
    ReplaceSecret {
        /// Which.
        id: EndpointId,
        /// The sealed secret that signed until now.
        old: String,
        /// The sealed secret that signs first from now on.
        new: String,
        /// Until when the old one signs too.
        until: Time,
    },
    /// It hears nothing from now on: what it has not taken of the time before is sent no more. Conflicts
    /// where it is gone already.
    Remove {
        /// Which.
        id: EndpointId,
        /// When.
        at: Time,
    },
}

/// What may be changed about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTerms {
    /// Where its webhooks go: http or https.
    pub url: String,
    /// What people say of it.
    pub description: Option<String>,
    /// The types of events that it takes, as words; `None` for all.
    pub events: Option<String>,
    /// Whether it hears of what happens from now on.
    pub state: EndpointState,
}

/// Whether an endpoint hears of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It does.
    Enabled,
    /// It does not, until somebody enables it again.
    Disabled,
}

/// An endpoint that joins.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose.
    pub merchant: MerchantId,
    /// What it is.
    pub terms: EndpointTerms,
    /// Its sealed secret.
    pub secret: String,
    /// Since when.
    pub created_at: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_takes_what_it_names_or_everything() {
        let two = Some("order.paid order.paid_twice");
        assert!(takes(None, EventType::Expired) && takes(two, EventType::Paid));
        assert!(!takes(two, EventType::Expired) && !takes(Some("order.paid_twice"), EventType::Paid) && !takes(Some(""), EventType::Paid));
    }
}
