//! How a payer pays: with the button of a sandbox, or on a chain that this program keeps.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::time::Instant;

use crate::client::Client;
use crate::node::Node;
use crate::tally::Call;
use crate::visit::Part;

/// How payments are made.
pub enum Payer {
    /// `POST /pay/{id}/sandbox` of `tidegate dev`.
    Panel,
    /// On a chain of our own, by the network's name.
    Chains(BTreeMap<String, Node>),
}

impl Payer {
    /// True when a payment may be any amount: the panel knows only what an order still misses.
    #[must_use]
    pub const fn pays_by_amount(&self) -> bool {
        matches!(self, Self::Chains(_))
    }

    /// Pays a part of an order; false when it is not known whether it was paid.
    #[allow(clippy::too_many_arguments, reason = "a payment is all of these")]
    pub async fn pay(&self, client: &Client, turn: u64, id: &str, network: &str, address: &str, micros: u64, part: Part) -> bool {
        match self {
            Self::Chains(chains) => chains.get(network).map(|node| node.pay(address, micros)).is_some(),
            Self::Panel => {
                let kind = match part {
                    Part::Less => "less",
                    Part::Rest => "exact",
                    Part::More => "more",
                };
                let press = client
                    .payer(turn, Method::POST, &format!("/pay/{id}/sandbox"))
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(format!("network={network}&kind={kind}"));
                // Sent once: sent again, it would pay again.
                client.send_due(Call::Panel, press, Instant::now()).await.is_some_and(|answer| answer.status == 303)
            }
        }
    }
}
