//! Reads blocks that were applied already once more, and takes in what was missed: for `tidegate
//! scan`, for the reconciler, and for a transaction that somebody names by its hash.
//!
//! Nothing that is known changes, so reading a range twice is the same as once. The cursor does not
//! move. What is found is claimed, proven and settled as if it had been seen in time.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use tidegate_rules::alert::AlertKind;
use tidegate_rules::audit::Action;
use tidegate_rules::block::{Block, BlockRef, Transfer};
use tidegate_rules::changes::Changes;
use tidegate_rules::id::OrderId;

use super::work::Work;
use super::{ATTEMPTS, CATCH_UP_BLOCKS, Follower, Trouble, head_of};
use crate::clock;
use crate::gateway::{Gateway, NetworkPart};
use crate::people::Doer;
use crate::start::Sorry;
use crate::store::{Commit, NetworkRow, StoreError, TransferRow, marks};

/// What reading a range again found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Blocks read.
    pub blocks: u64,
    /// Transfers to addresses of ours in them.
    pub transfers: u64,
    /// Those that were not recorded, or not as they stand on the chain, and are now.
    pub mended: u64,
}

/// Reads the blocks from `from` to `to`, both included, once more. `progress` hears how many are
/// done.
///
/// # Errors
/// When nothing was followed yet, the range is empty or ends above what was applied, an endpoint
/// does not answer or shows another chain than ours, or the store does not answer.
pub async fn scan(
    gateway: &Arc<Gateway>,
    part: &Arc<NetworkPart>,
    from: u64,
    to: u64,
    mut progress: impl FnMut(u64),
) -> Result<Scanned, Sorry> {
    let name = &part.config.name;
    let row = gateway.store.network(name).await?.ok_or_else(|| {
        Sorry(format!("{name} was never followed: start `tidegate serve` first, which reads from the head of the chain on"))
    })?;
    let tip = row.recent.last().map_or(0, |block| block.number);
    if from > to || to > tip {
        return Err(Sorry(format!(
            "expected --from not above --to, and --to not above {tip}, the last block that was applied; blocks above it are read by `tidegate serve`"
        )));
    }
    read_heads(gateway).await?;
    let mut follower = Follower::new(Arc::clone(gateway), Arc::clone(part));
    follower.identify().await.map_err(|trouble| Sorry(trouble.to_string()))?;
    let mut scanned = Scanned::default();
    let mut next = from;
    while next <= to {
        let wanted = u32::try_from(to.saturating_sub(next).saturating_add(1)).unwrap_or(CATCH_UP_BLOCKS).min(CATCH_UP_BLOCKS);
        let blocks = part.chain.blocks(next, wanted).await.map_err(|error| Sorry(error.to_string()))?;
        let Some(last) = blocks.last().map(|block| block.at.number) else {
            return Err(Sorry(format!("no endpoint of {name} has block {next}; try again later: what was read so far is stored")));
        };
        let (found, mended) = follower.take_again(&row, &blocks).await.map_err(|trouble| Sorry(trouble.to_string()))?;
        scanned.blocks = scanned.blocks.saturating_add(u64::try_from(blocks.len()).unwrap_or(0));
        (scanned.transfers, scanned.mended) = (scanned.transfers.saturating_add(found), scanned.mended.saturating_add(mended));
        next = last.saturating_add(1);
        progress(scanned.blocks);
    }
    Ok(scanned)
}

/// Takes a network back to a block that both branches have, and reads what the chain shows above it,
/// in one commit. The tip after it.
///
/// # Errors
/// When the block is not kept or an endpoint shows another one at that height, when the network was
/// never followed, or when an endpoint or the store does not answer.
pub async fn resume_at(gateway: &Arc<Gateway>, part: &Arc<NetworkPart>, ancestor: u64, reason: &str, doer: &Doer) -> Result<u64, Sorry> {
    let name = &part.config.name;
    let mut row = gateway.store.network(name).await?.ok_or_else(|| Sorry(format!("{name} was never followed")))?;
    let ours = row.recent.iter().find(|block| block.number == ancestor).copied().ok_or_else(|| {
        let (first, last) = (row.recent.first().map_or(0, |block| block.number), row.recent.last().map_or(0, |block| block.number));
        Sorry(format!("--ancestor: expected one of the blocks that are kept, {first} to {last}, found {ancestor}"))
    })?;
    let shown = part.chain.header(ancestor).await.map_err(|error| Sorry(error.to_string()))?;
    if shown.is_none_or(|shown| shown.hash != ours.hash) {
        let found = shown.map_or_else(|| "none".to_owned(), |shown| shown.hash.to_string());
        return Err(Sorry(format!(
            "block {ancestor} is {} here and {found} at the endpoints: it is on one branch only; name a lower one",
            ours.hash
        )));
    }
    read_heads(gateway).await?;
    let mut follower = Follower::new(Arc::clone(gateway), Arc::clone(part));
    follower.identify().await.map_err(|trouble| Sorry(trouble.to_string()))?;
    let head = part.chain.head().await.map_err(|error| Sorry(error.to_string()))?;
    row.halted = None;
    row.finalized = row.finalized.map(|known| known.min(ancestor));
    let branch = follower.branch(&row, ancestor, head.number).await.map_err(|trouble| Sorry(trouble.to_string()))?;
    let detail = json!({ "ancestor": ancestor, "hash": ours.hash.to_string(), "blocks": branch.len() });
    // The word of whoever decides comes first: what follows may be killed half way and is done again.
    let audit = doer.did(Action::NetworkResume, name, clock::now()).because(reason).with(&detail);
    let _ = gateway.store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    follower.apply(&mut row, Some(ancestor), &branch).await.map_err(|trouble| Sorry(trouble.to_string()))?;
    Ok(row.recent.last().map_or(ancestor, |tip| tip.number))
}

/// Tells a gateway that does not follow what the store knows of every network: orders are judged by
/// the heads of all of theirs.
async fn read_heads(gateway: &Gateway) -> Result<(), StoreError> {
    for (name, part) in gateway.networks() {
        if part.state().head.is_none()
            && let Some(row) = gateway.store.network(name).await?
        {
            part.tell(|state| state.head = head_of(&row, marks(&row.recent)));
        }
    }
    Ok(())
}

impl Follower {
    /// Takes in what these applied blocks hold and the store does not. How many transfers to
    /// addresses of ours they hold, and how many of them were taken in.
    pub(super) async fn take_again(&mut self, row: &NetworkRow, blocks: &[Block]) -> Result<(u64, u64), Trouble> {
        for block in blocks {
            is_ours(row, &block.at).map_err(Trouble::Mismatch)?;
        }
        for _ in 0..ATTEMPTS {
            self.learn_addresses(&row.name).await?;
            let mut work = Work::gather(self, row, None, blocks).await?;
            let watched = &self.watched;
            let found = blocks.iter().flat_map(|block| &block.transfers).filter(|transfer| watched.contains(&transfer.to)).count();
            let missed: Vec<Block> = blocks.iter().filter_map(|block| self.missed(&work, block)).collect();
            let mended = missed.iter().map(|block| block.transfers.len()).fold(0, usize::saturating_add);
            let counts = (u64::try_from(found).unwrap_or(0), u64::try_from(mended).unwrap_or(0));
            if missed.is_empty() {
                return Ok(counts);
            }
            // As it is now: while the blocks were read they may have left the chain. If they do after
            // this, the commit is refused.
            let row = self.gateway.store.network(&row.name).await?.ok_or(StoreError::Lost)?;
            for block in &missed {
                is_ours(&row, &block.at).map_err(Trouble::Mismatch)?;
            }
            let now = clock::now();
            let mut heads = self.gateway.heads();
            if let Some(head) = head_of(&row, marks(&row.recent)) {
                // A follower of this process may know more than the row that was read.
                heads.entry(row.name.clone()).or_insert(head);
            }
            let mut changes = Changes { applied: Some((row.name.clone(), row.version)), ..Changes::default() };
            let mut touched: BTreeSet<OrderId> = BTreeSet::new();
            for block in &missed {
                touched.extend(work.take_block(self, block, now));
                changes.alerts.extend(block.transfers.iter().map(|transfer| {
                    let about = format!("{} {}/{}", row.name, transfer.key.tx_hash, transfer.key.ordinal);
                    let detail = format!("block {} was read again and holds a transfer that was not recorded; it is now", block.at.number);
                    Gateway::alert(AlertKind::TransferMissed, about, detail, now)
                }));
            }
            work.step(&self.gateway, &touched, &heads, now, &mut changes).await?;
            work.finish(&self.gateway, now, &mut changes).await?;
            let woken: Vec<OrderId> = changes.orders.iter().map(|change| change.id).collect();
            match self.commit(changes).await? {
                Commit::Done => {
                    self.wake(woken, true);
                    return Ok(counts);
                }
                Commit::Conflict => {}
            }
        }
        Err(StoreError::Lost.into())
    }

    /// What of a block is not recorded as it stands there; `None` where nothing is missing.
    fn missed(&self, work: &Work, block: &Block) -> Option<Block> {
        let is_missed = |transfer: &&Transfer| self.watched.contains(&transfer.to) && !stands(work.known(transfer.key), &block.at);
        let transfers: Vec<Transfer> = block.transfers.iter().filter(is_missed).cloned().collect();
        (!transfers.is_empty()).then(|| Block { at: block.at, transfers, unreadable: Vec::new(), notices: Vec::new() })
    }
}

/// True for a transfer that is recorded in this very block.
fn stands(known: Option<&TransferRow>, at: &BlockRef) -> bool {
    known.is_some_and(|row| row.payment.standing && row.block_hash == at.hash)
}

/// A block is ours if it is the one that was applied at its height. What is older than the kept
/// blocks is far below what a chain rewrites.
fn is_ours(row: &NetworkRow, at: &BlockRef) -> Result<(), String> {
    let oldest = row.recent.first().map_or(0, |block| block.number);
    let index = at.number.checked_sub(oldest).and_then(|index| usize::try_from(index).ok());
    match index {
        None => Ok(()),
        Some(index) if row.recent.get(index).is_some_and(|ours| ours.hash == at.hash) => Ok(()),
        Some(_) => Err(format!("block {} is not the one that was applied: an endpoint shows another branch; try again later", at.number)),
    }
}
