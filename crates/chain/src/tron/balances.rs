//! Balances of many addresses: by a contract that the node only pretends to create, else one by
//! one.
//!
//! `triggerconstantcontract` without a contract simulates a creation (java-tron
//! `Wallet.triggerConstantContract`), on the newest block and on no other; nothing says of which
//! block an answer is. So the head is asked for before, and that is the block that no balance is
//! older than.

use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::Address;

use super::{TronChain, View, format_address, no_head, wire};
use crate::abi;
use crate::balances::{Balances, SINGLE_BALANCES_AT_ONCE, Unanswered, deployless, read_deployless, read_single};
use crate::endpoints::{Endpoint, Failure};

/// How many balances one simulated creation reads: a node gives a call 80 ms.
pub const DEPLOYLESS_MAX: usize = 200;

impl TronChain {
    pub(super) async fn balances_on(&self, endpoint: Endpoint, addresses: &[Address]) -> Result<Balances, Failure> {
        self.prove(&endpoint).await?;
        let head = self.newest(&endpoint, View::Full).await?.ok_or_else(no_head)?;
        let mut found = Balances { at: head.at.number, values: Vec::with_capacity(addresses.len()), calls: 1 };
        let no_deployless = self.lore.get(endpoint.index()).map(|lore| &lore.no_deployless);
        for some in addresses.chunks(DEPLOYLESS_MAX) {
            let untried = no_deployless.is_none_or(|no| !no.load(Ordering::Relaxed));
            if untried {
                match self.by_creation(&endpoint, some, &mut found).await? {
                    Created::Answered => continue,
                    Created::TooSlow => self.one_by_one(&endpoint, some, &mut found).await?,
                    Created::NotOffered => {
                        self.one_by_one(&endpoint, some, &mut found).await?;
                        // Only now is it known that the node was well and did not like that way.
                        if let Some(no_deployless) = no_deployless {
                            no_deployless.store(true, Ordering::Relaxed);
                        }
                    }
                }
            } else {
                self.one_by_one(&endpoint, some, &mut found).await?;
            }
        }
        Ok(found)
    }

    async fn by_creation(&self, endpoint: &Endpoint, addresses: &[Address], found: &mut Balances) -> Result<Created, Failure> {
        let request = json!({
            "owner_address": format!("41{}", hex::encode([0; 20])),
            "data": deployless(&self.config.token, addresses),
            "visible": false,
        });
        found.calls = found.calls.saturating_add(1);
        let answer = endpoint.post(&View::Full.path("triggerconstantcontract"), &request, 1).await?;
        let returned = match wire::parse_constant(&answer) {
            Ok(Ok(returned)) => returned,
            Ok(Err(why)) if is_out_of_time(&why) => return Ok(Created::TooSlow),
            Ok(Err(_)) => return Ok(Created::NotOffered),
            // Old nodes, and some in front of nodes, want a contract's address to be there.
            Err(Failure::Transient { reason, .. }) if reason.contains("contract_address") => return Ok(Created::NotOffered),
            Err(failure) => return Err(failure),
        };
        match read_deployless(&returned, addresses.len()) {
            Ok((seen, values)) => {
                // A node that stands behind the one that told the head: older than promised.
                found.at = seen.map_or(found.at, |seen| seen.min(found.at));
                found.values.extend(values);
                Ok(Created::Answered)
            }
            Err(Unanswered::Garbled) => Ok(Created::NotOffered),
            Err(unanswered) => Err(unanswered.failure(addresses, format_address)),
        }
    }

    async fn one_by_one(&self, endpoint: &Endpoint, addresses: &[Address], found: &mut Balances) -> Result<(), Failure> {
        found.calls = found.calls.saturating_add(u32::try_from(addresses.len()).unwrap_or(u32::MAX));
        let questions: Vec<(usize, String)> = addresses.iter().map(abi::parameter).enumerate().collect();
        let ask = |(place, parameter): (usize, String)| async move {
            let returned = self.constant(endpoint, "balanceOf(address)", &parameter).await?;
            let returned = returned.map_err(|why| Failure::transient(format!("balanceOf(address): {why}")))?;
            read_single(&returned).ok_or_else(|| Unanswered::Token(place).failure(addresses, format_address))
        };
        let values: Vec<Raw> = stream::iter(questions).map(ask).buffered(SINGLE_BALANCES_AT_ONCE).try_collect().await?;
        found.values.extend(values);
        Ok(())
    }
}

/// What became of a simulated creation.
enum Created {
    Answered,
    /// The node's time for a call was up. The next time it may be quicker.
    TooSlow,
    NotOffered,
}

/// The words of java-tron's VM (Program.Exception) for a call that took too long.
fn is_out_of_time(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    ["timeout", "time out", "out of time"].iter().any(|words| why.contains(words))
}
