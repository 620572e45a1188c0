//! One transaction by its hash: its info, its call, and the header of the block that the info
//! names.
//!
//! An info holds no block hash. Height and time must be those of the header, and a block of another
//! branch at the same height has another producer, so nearly always another time.

use std::sync::atomic::Ordering;

use serde_json::json;
use tidegate_rules::block::Hash;

use super::wire::{self, Executions, Sent};
use super::{TronChain, View};
use crate::endpoints::{Endpoint, Failure};
use crate::transaction::{Outcome, Transaction, attempted};

impl TronChain {
    pub(super) async fn transaction_on(&self, endpoint: Endpoint, hash: Hash) -> Result<Option<Transaction>, Failure> {
        self.prove(&endpoint).await?;
        let request = json!({ "value": hash.to_string() });
        let answer = endpoint.post(&View::Full.path("gettransactioninfobyid"), &request, 1).await?;
        let executed = wire::parse_info(&answer, hash, &self.config.token)?;
        let answer = endpoint.post(&View::Full.path("gettransactionbyid"), &request, 1).await?;
        let mut sent = wire::parse_sent(&answer, hash, &self.config.token)?;
        if executed.is_none() && sent.is_none() {
            sent = self.waiting(&endpoint, hash).await?;
        }
        let attempted = || sent.as_ref().and_then(|sent| attempted(sent.owner?, sent.to_token.as_ref()?));
        let from = sent.as_ref().and_then(|sent| sent.owner);
        let Some(executed) = executed else {
            let (transfers, unreadable) = (Vec::new(), Vec::new());
            let outcome = Outcome::Pending;
            let pending = Transaction { hash, outcome, block: None, from, transfers, unreadable, attempted: attempted() };
            return Ok(sent.is_some().then_some(pending));
        };
        let number = executed.number;
        let header = self.numbered(&endpoint, View::Full, number).await?;
        let header = header.ok_or_else(|| Failure::Behind(format!("it does not have block {number}")))?;
        if header.at.time != executed.time {
            return Err(Failure::Behind(format!("block {number} changed while it was read")));
        }
        let (outcome, attempted) = match executed.outcome {
            Executions::Succeeded => (Outcome::Succeeded, None),
            Executions::Failed(reason) => (Outcome::Failed { reason: endpoint.quote(&reason) }, attempted()),
        };
        let (transfers, unreadable) = (executed.found.transfers, executed.found.unreadable);
        Ok(Some(Transaction { hash, outcome, block: Some(header.at), from, transfers, unreadable, attempted }))
    }

    /// What waits for a block is kept apart (java-tron GetTransactionFromPendingServlet), and not
    /// every endpoint shows it: then it is unknown until it is in a block.
    async fn waiting(&self, endpoint: &Endpoint, hash: Hash) -> Result<Option<Sent>, Failure> {
        let none_shown = self.lore.get(endpoint.index()).map(|lore| &lore.no_pending);
        if none_shown.is_some_and(|none| none.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let request = json!({ "value": hash.to_string() });
        let answer = endpoint.post(&View::Full.path("gettransactionfrompending"), &request, 1).await;
        match answer.and_then(|answer| wire::parse_sent(&answer, hash, &self.config.token)) {
            Err(Failure::NotOffered(_)) => {
                if let Some(none) = none_shown {
                    none.store(true, Ordering::Relaxed);
                }
                Ok(None)
            }
            told => told,
        }
    }
}
