//! One transaction by its hash: its receipt, its call, and the header of the block that the
//! receipt names.
//!
//! A receipt counts only where its block is the one at that height on the same endpoint: receipts
//! of blocks that were left behind are served for a while, too.

use serde_json::json;
use tidegate_rules::block::Hash;

use super::rpc::{Call, Meaning, Told};
use super::wire::{self, moved};
use super::{EvmChain, Which};
use crate::endpoints::{Endpoint, Failure};
use crate::transaction::{Outcome, Transaction, attempted};

impl EvmChain {
    pub(super) async fn transaction_on(&self, endpoint: Endpoint, hash: Hash) -> Result<Option<Transaction>, Failure> {
        self.prove(&endpoint).await?;
        let params = json!([format!("0x{hash}")]);
        let calls = [RECEIPT, BY_HASH].map(|method| Call { method, params: params.clone() });
        let told = self.rpc.many(&endpoint, &calls).await?;
        let [receipt, call] = told.as_slice() else { return Err(Failure::transient("two answers were expected")) };
        let receipt = known(receipt, RECEIPT)?.map(|text| wire::Receipt::read(text, hash)).transpose()?.flatten();
        let call = known(call, BY_HASH)?.map(|text| wire::Sent::read(text, hash)).transpose()?.flatten();
        let asked_for = || {
            let call = call.as_ref().filter(|call| call.to == Some(self.config.token))?;
            attempted(call.from, &call.data)
        };
        let Some(receipt) = receipt else {
            let Some(call) = &call else { return Ok(None) };
            if let Some(number) = call.block {
                return Err(Failure::Behind(format!("it has no receipt yet of a transaction in block {number}")));
            }
            let (transfers, unreadable) = (Vec::new(), Vec::new());
            let (from, attempted) = (Some(call.from), asked_for());
            return Ok(Some(Transaction { hash, outcome: Outcome::Pending, block: None, from, transfers, unreadable, attempted }));
        };
        let header = self.header_on(&endpoint, Which::Number(receipt.number)).await?;
        let header = header.ok_or_else(|| Failure::Behind(format!("it does not have block {}", receipt.number)))?;
        if header.at.hash != receipt.block {
            return Err(moved(receipt.number));
        }
        let found = receipt.found(&header, &self.config.token)?;
        let outcome = if receipt.succeeded {
            Outcome::Succeeded
        } else {
            // A receipt gives no reason. Whoever reverts gets the rest of the gas back.
            let all = call.as_ref().is_some_and(|call| call.gas == receipt.gas_used);
            let reason = if all { "status 0, all of its gas was used" } else { "status 0, reverted" };
            Outcome::Failed { reason: reason.into() }
        };
        Ok(Some(Transaction {
            hash,
            block: Some(header.at),
            from: Some(receipt.from),
            transfers: found.transfers,
            unreadable: found.unreadable,
            attempted: if receipt.succeeded { None } else { asked_for() },
            outcome,
        }))
    }
}

const RECEIPT: &str = "eth_getTransactionReceipt";
const BY_HASH: &str = "eth_getTransactionByHash";

/// The text of an answer; `None` where an endpoint says in words that it does not know this one.
fn known<'a>(told: &'a Told, method: &str) -> Result<Option<&'a str>, Failure> {
    match told {
        Ok(result) => Ok(Some(result.get())),
        Err(error) if error.meaning() != Meaning::Busy && error.message.to_ascii_lowercase().contains("not found") => Ok(None),
        Err(error) => Err(error.failure(method)),
    }
}
