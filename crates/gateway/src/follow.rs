//! Follows one network: reads blocks, gives money its owner, settles it, ends leases.
//!
//! What a block means is decided in `rules`; this module brings the facts and stores what follows,
//! the cursor with the money in one commit (I6). It has two passes. [`Follower::advance`] applies
//! new blocks, or a new branch in place of an old one. [`Follower::settle`] looks at what has become
//! deep enough: it reads such blocks a second time before their money counts as settled, lets
//! orders expire, ends leases and rests wallets. Killed anywhere, it goes on where the last commit
//! was.

mod again;
mod aim;
mod reconcile;
mod suspect;
mod trouble;
mod work;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_rules::alert::AlertKind;
use tidegate_rules::block::{Address, Block, BlockRef, Hash, Network, Transfer, TransferKey};
use tidegate_rules::changes::{Changes, Cursor, Fence, WalletChange, WalletMove};
use tidegate_rules::follow::{self, Next};
use tidegate_rules::id::{OrderId, WalletId};
use tidegate_rules::lease;
use tidegate_rules::order::{Depth, Head, Mark, Payment, Status};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet;
use tidegate_rules::watch::Watched;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::aim::{Aim, Look};
use crate::clock;
use crate::config::StartBlock;
use crate::duties::Duty;
use crate::gateway::{Gateway, NetworkPart, Wake};
use crate::metrics::Told;
use crate::orders::mark;
use crate::signals::heard;
use crate::start;
use crate::store::{Commit, NetworkRow, OrderRow, StoreError, WalletRow, marks};

pub use again::{Scanned, resume_at, scan};
pub use reconcile::run as reconcile;
pub use trouble::{AHEAD_MAX, watch as watch_networks};
use work::recorded_of;
pub use work::transfer_change;
pub(crate) use work::{Linked, Work};

/// The most blocks that are read in one go while catching up.
const CATCH_UP_BLOCKS: u32 = 100;

/// Blocks of a network that are kept for comparing branches and for the time of settled heads. A
/// fork deeper than this halts the network.
const BLOCKS_KEPT: usize = 8_192;

/// Kept blocks above [`BLOCKS_KEPT`] before the oldest are forgotten.
const FORGET_STEP: usize = 512;

/// Every so many polls without a new block the endpoint's head is compared with ours.
const EMPTY_POLLS_PER_COMPARISON: u32 = 5;

/// How often the final head is asked for when no money waits for it: once in so many polls.
const POLLS_PER_FINAL: u64 = 20;

/// Leases and wallets looked at in one settle pass.
const SETTLE_MAX: i64 = 500;

/// Unsettled transfers, and orders past their time, looked at in one settle pass. Those that wait
/// for more depth, or for another network, stay among them: this must be above how many of those
/// there can be at once.
const WAITING_MAX: i64 = 10_000;

/// Blocks read a second time in one settle pass.
const REREADS_MAX: usize = 16;

/// How often a pass is decided again after somebody else's commit was first.
const ATTEMPTS: usize = 5;

/// The longest pause after failures.
const PAUSE_MAX: Span = Span::from_secs(30);

/// How often the depths of orders are looked up anew.
const DEPTHS_EVERY: Duration = Duration::from_secs(600);

/// How long one look may take. A hundred blocks are read within a minute; a database whose machine was
/// switched off in the middle of an answer says nothing for ever.
const PASS_MAX: Duration = Duration::from_secs(300);

/// Why a pass ended early. It is made again after a pause; nothing was stored.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Chain(#[from] tidegate_chain::Error),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Mismatch(String),
    #[error("it took longer than {} s and was given up", PASS_MAX.as_secs())]
    TookTooLong,
}

/// What to do after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// There is more to do now.
    GoOn,
    /// Look again when the next block should be there, or after the poll interval.
    Rest,
}

/// Follows a network until `stop` says so.
pub async fn run(gateway: Arc<Gateway>, part: Arc<NetworkPart>, mut stop: watch::Receiver<bool>) {
    let mut follower = Follower::new(gateway, part);
    let mut failures: u32 = 0;
    let mut signals = follower.gateway.listen();
    let mut duties = follower.gateway.duties.watch();
    let duty = Duty::Follow(follower.part.config.name.clone());
    loop {
        let hold = follower.gateway.duties.hold(&duty);
        if !hold.is_here() {
            follower.forget();
            failures = 0;
            tokio::select! {
                // One that never ends is begun again.
                _ = tokio::time::timeout(PASS_MAX, follower.look_on()) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(follower.part.config.poll_interval.to_std()) => {}
                _ = duties.changed() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            continue;
        }
        if follower.fence != hold.fence() {
            // Taken over a moment ago: from the store, which may be ahead of what was looked at.
            follower.forget();
            follower.fence = hold.fence();
        }
        let (looked, tip) = (Instant::now(), follower.tip());
        let looked_in_time = tokio::time::timeout(PASS_MAX, follower.pass()).await;
        let pause = match looked_in_time.unwrap_or(Err(Trouble::TookTooLong)) {
            Ok(then) => {
                failures = 0;
                follower.part.tell(|state| state.failing = None);
                match then {
                    Then::GoOn => Duration::ZERO,
                    Then::Rest => follower.until_next_look(looked, tip),
                }
            }
            // What failed is somebody else's by now.
            Err(_) if !follower.gateway.duties.hold(&duty).is_here() => continue,
            Err(trouble) => {
                tracing::warn!(network = %follower.part.config.name, failures, "following failed: {trouble}");
                follower.part.tell(|state| state.failing = Some(trouble.to_string()));
                // What was read before may be out of date: start from the store again.
                follower.forget();
                let poll = follower.part.config.poll_interval.millis().max(100);
                let pause = poll.saturating_mul(1_u64.checked_shl(failures.min(10)).unwrap_or(1));
                failures = failures.saturating_add(1);
                Span::from_millis(pause).min(PAUSE_MAX).to_std()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Somebody knows of a block; after a failure the pause is kept all the same.
            () = heard(&mut signals, |wake| *wake == Wake::Look), if failures == 0 => follower.told = true,
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// The follower of one network.
struct Follower {
    gateway: Arc<Gateway>,
    part: Arc<NetworkPart>,
    /// Goes with everything that is written, where another process could follow too.
    fence: Option<Fence>,
    /// Where we are, as stored; `None` before it was read.
    row: Option<NetworkRow>,
    /// Where another process was when we looked on.
    seen: Option<NetworkRow>,
    watched: Watched,
    epoch: i64,
    empty_polls: u32,
    /// Somebody knows of a block, which may be some blocks above our tip.
    told: bool,
    /// When the next block should be there.
    aim: Aim,
    /// The blocks after those that are being applied, while catching up.
    ahead: Option<Ahead>,
    final_asked: Option<Instant>,
    /// The newest final block that an endpoint showed, whether we applied it or not.
    final_shown: Option<BlockRef>,
    /// When the endpoints were last compared, and how often in a row they showed different blocks.
    compared: Option<Instant>,
    differed: u32,
    /// The chain and its token have shown to be those of the configuration.
    identified: bool,
    /// The least depth that any order has which may still get money, and when it was looked up. Orders
    /// keep the depth that they were made with, whatever the configuration asks for now.
    shallowest: Option<(Depth, Instant)>,
    /// Which block waiting for its second reading comes first.
    reread_turn: usize,
    /// Transfers that a second reading did not show, and that were reported.
    differing: HashSet<TransferKey>,
}

impl Follower {
    /// One that knows nothing yet.
    fn new(gateway: Arc<Gateway>, part: Arc<NetworkPart>) -> Self {
        Self {
            gateway,
            part,
            fence: None,
            row: None,
            seen: None,
            watched: Watched::default(),
            epoch: 0,
            empty_polls: 0,
            told: false,
            aim: Aim::default(),
            ahead: None,
            final_asked: None,
            final_shown: None,
            compared: None,
            differed: 0,
            identified: false,
            shallowest: None,
            reread_turn: 0,
            differing: HashSet::new(),
        }
    }

    /// Starts from the store again.
    fn forget(&mut self) {
        self.row = None;
        self.ahead = None;
        self.shallowest = None;
        self.aim = Aim::default();
    }

    /// Learns from the store how far another process follows.
    async fn look_on(&mut self) {
        let name = &self.part.config.name;
        let before = self.seen.as_ref().map(|seen| seen.version);
        let found = match self.seen.take() {
            Some(seen) => self.gateway.store.network_after(seen).await,
            None => self.gateway.store.network(name).await,
        };
        match found {
            Ok(Some(row)) => {
                if before != Some(row.version) {
                    self.publish(&row);
                }
                self.part.tell(|state| state.failing = None);
                self.seen = Some(row);
            }
            // Nobody has stored a block of it yet: where no endpoint answers, nobody will.
            Ok(None) => {
                let failing = self.part.chain.head().await.err().map(|error| error.to_string());
                self.part.tell(|state| state.failing = failing);
            }
            Err(error) => {
                tracing::warn!(network = %name, %error, "how far the network is followed could not be read");
                self.part.tell(|state| state.failing = Some(error.to_string()));
            }
        }
    }

    /// Stores what a pass decided, on behalf of the duty.
    async fn commit(&self, changes: Changes) -> Result<Commit, StoreError> {
        self.gateway.store.commit(Changes { fence: self.fence.clone(), ..changes }).await
    }

    /// The highest block that is applied.
    fn tip(&self) -> Option<u64> {
        self.row.as_ref()?.recent.last().map(|tip| tip.number)
    }

    /// How long to rest after a pass that began at `looked`, when `tip` was the highest block.
    fn until_next_look(&mut self, looked: Instant, tip: Option<u64>) -> Duration {
        let poll = self.part.config.poll_interval.to_std();
        let Some(row) = self.row.as_ref().filter(|row| row.halted.is_none()) else { return poll };
        let look = match (self.tip() == tip, self.empty_polls) {
            (false, _) => Look::Found,
            (true, 1..) => Look::Nothing,
            // Blocks that could not be applied.
            (true, 0) => return poll,
        };
        let next = self.aim.next(look, looked, aim::rhythm(&row.recent), poll);
        next.map_or(poll, |next| next.saturating_duration_since(Instant::now()))
    }

    /// Learns of the wallets that joined since the last time.
    async fn learn_addresses(&mut self, network: &Network) -> Result<(), StoreError> {
        let (epoch, new) = self.gateway.store.addresses_since(network, self.epoch).await?;
        self.epoch = epoch;
        self.watched.extend(new);
        Ok(())
    }

    /// A network that did not answer at the start is checked before its first block is believed.
    async fn identify(&mut self) -> Result<(), Trouble> {
        if !self.identified {
            let found = self.part.chain.identity().await?;
            if let Some(wrong) = start::mismatch(&self.part.config, &found) {
                return Err(Trouble::Mismatch(wrong));
            }
            self.identified = true;
        }
        Ok(())
    }

    /// One look at the chain and everything that follows from it.
    async fn pass(&mut self) -> Result<Then, Trouble> {
        self.identify().await?;
        let row = match self.row.take() {
            Some(row) => row,
            None => self.resume().await?,
        };
        let mut row = if row.halted.is_some() {
            // `tidegate resume` may have taken it back to a block that both branches have.
            let stored = self.resume().await?;
            match self.try_to_leave_halt(stored).await? {
                Ok(row) => row,
                Err(halted) => {
                    self.row = Some(halted);
                    return Ok(Then::Rest);
                }
            }
        } else {
            row
        };
        let then = self.advance(&mut row).await?;
        self.ask_final(&mut row).await?;
        self.look_around(&mut row).await?;
        let settled = self.settle(&row).await?;
        self.row = Some(row);
        Ok(if settled == Then::GoOn { Then::GoOn } else { then })
    }

    /// Where the store says we are; on first contact, where the configuration says to start.
    async fn resume(&mut self) -> Result<NetworkRow, Trouble> {
        let name = &self.part.config.name;
        if let Some(row) = self.gateway.store.network(name).await? {
            self.publish(&row);
            return Ok(row);
        }
        let first = match self.part.config.start_block {
            StartBlock::Latest => self.part.chain.head().await?,
            StartBlock::Number(number) => {
                let before = number.saturating_sub(1);
                let header = self.part.chain.header(before).await?;
                header.ok_or_else(|| {
                    tidegate_chain::Error::Transient(format!("block {before}, the one before start_block, is not there yet"))
                })?
            }
        };
        let cursor = Cursor {
            network: name.clone(),
            version: None,
            rewind_to: None,
            blocks: vec![first],
            forget_below: None,
            tip: first.number,
            peak: first.number,
            finalized: None,
            floor: None,
            halted: None,
        };
        // A conflict means that another process was first; either way the store knows now.
        let _ = self.commit(Changes { cursor: Some(cursor), ..Changes::default() }).await?;
        let row = self.gateway.store.network(name).await?.ok_or(StoreError::Lost)?;
        tracing::info!(network = %name, block = first.number, "following from here");
        self.publish(&row);
        Ok(row)
    }

    /// Tells everybody what is applied.
    fn publish(&self, row: &NetworkRow) {
        let head = head_of(row, marks(&row.recent));
        self.part.tell(|state| {
            state.newest = state.newest.max(head.as_ref().map(|head| head.tip.time));
            state.head = head;
            state.halted.clone_from(&row.halted);
        });
        self.gateway.signal(Wake::Head);
    }

    /// A halted network resumes by itself when an endpoint shows what may not change as we know it.
    async fn try_to_leave_halt(&self, mut row: NetworkRow) -> Result<Result<NetworkRow, NetworkRow>, Trouble> {
        if row.halted.is_none() {
            return Ok(Ok(row));
        }
        let Some(anchor) = follow::anchor(&row.recent, row.finalized).copied() else { return Ok(Err(row)) };
        let shown = self.part.chain.header(anchor.number).await?;
        if shown.is_none_or(|shown| shown != anchor) {
            return Ok(Err(row));
        }
        tracing::warn!(network = %row.name, block = anchor.number, "the chain shows our final block again: following on");
        self.store_halt(&mut row, None).await?;
        Ok(Ok(row))
    }

    /// Stores why the network is halted, or that it is not any more.
    async fn store_halt(&self, row: &mut NetworkRow, halted: Option<String>) -> Result<(), Trouble> {
        row.halted = halted;
        let mut changes = Changes { cursor: Some(cursor(row, None, Vec::new(), None)), ..Changes::default() };
        if let Some(reason) = &row.halted {
            let tip = row.recent.last().map_or(0, |tip| tip.number);
            changes.alerts.push(Gateway::alert(AlertKind::NetworkHalted, format!("{} at {tip}", row.name), reason.clone(), clock::now()));
        }
        if self.commit(changes).await? == Commit::Conflict {
            return Err(StoreError::Lost.into());
        }
        row.version = row.version.saturating_add(1);
        self.publish(row);
        Ok(())
    }

    /// Reads what is above our tip and applies it, or finds the branch that replaces ours.
    async fn advance(&mut self, row: &mut NetworkRow) -> Result<Then, Trouble> {
        let chain = Arc::clone(&self.part.chain);
        let Some(tip) = row.recent.last().copied() else { return Err(StoreError::Lost.into()) };
        let limit = if self.told || self.is_behind(row) { CATCH_UP_BLOCKS } else { 1 };
        let blocks = self.read(tip.number.saturating_add(1), limit).await?;
        self.told &= u32::try_from(blocks.len()).is_ok_and(|count| count >= limit);
        let refs: Vec<BlockRef> = blocks.iter().map(|block| block.at).collect();
        let head = if refs.is_empty() {
            self.empty_polls = self.empty_polls.saturating_add(1);
            if !self.empty_polls.is_multiple_of(EMPTY_POLLS_PER_COMPARISON) {
                return Ok(Then::Rest);
            }
            Some(chain.head().await?)
        } else {
            self.empty_polls = 0;
            None
        };
        if let Some(newest) = refs.last().or(head.as_ref()).map(|block| block.time) {
            self.part.tell(|state| state.newest = state.newest.max(Some(newest)));
        }
        let mut compared = Vec::new();
        loop {
            match follow::next(&row.recent, row.finalized, &refs, head.as_ref(), &compared) {
                Next::Wait => return Ok(Then::Rest),
                Next::Compare(number) => match chain.header(number).await? {
                    Some(header) if header.number == number => compared.push(header),
                    _ => return Ok(Then::Rest),
                },
                Next::Extend(count) => {
                    let new = self.undenied(&row.name, blocks.get(..count).unwrap_or_default()).await;
                    if new.is_empty() {
                        return Ok(Then::Rest);
                    }
                    self.apply(row, None, new).await?;
                    return Ok(if self.told || self.is_behind(row) { Then::GoOn } else { Then::Rest });
                }
                Next::Rewind(to) => {
                    let shown = refs.last().or(head.as_ref()).map_or(0, |block| block.number);
                    let branch = self.branch(row, to, shown).await?;
                    if self.undenied(&row.name, &branch).await.len() < branch.len() {
                        return Ok(Then::Rest);
                    }
                    tracing::warn!(network = %row.name, from = tip.number, to, new = branch.len(), "the chain was rewritten: following the new branch");
                    self.apply(row, Some(to), &branch).await?;
                    return Ok(Then::GoOn);
                }
                Next::Halt(halt) => {
                    self.store_halt(row, Some(halt.reason().to_owned())).await?;
                    return Ok(Then::Rest);
                }
            }
        }
    }

    /// These blocks, up to the first that is ahead of our clock if somebody shows another in its place.
    /// Where nobody does, it is our clock that is wrong, and the chain is followed.
    async fn undenied<'a>(&self, network: &Network, blocks: &'a [Block]) -> &'a [Block] {
        let ahead = clock::now().plus(AHEAD_MAX);
        let Some((index, block)) = blocks.iter().enumerate().find(|(_, block)| block.at.time > ahead) else { return blocks };
        match self.part.chain.witnesses(&block.at).await {
            Ok(witnesses) if !witnesses.other.is_empty() => {
                let others = witnesses.other.join(", ");
                tracing::warn!(%network, block = block.at.number, others, "a block from the future is set aside");
                blocks.get(..index).unwrap_or_default()
            }
            _ => blocks,
        }
    }

    /// True when the last applied block is older than the chain's rhythm explains: there should be
    /// more to read now.
    fn is_behind(&self, row: &NetworkRow) -> bool {
        let Some(tip) = row.recent.last() else { return false };
        let back = row.recent.len().saturating_sub(17);
        let rhythm = row.recent.get(back).map_or(0, |old| {
            let blocks = tip.number.saturating_sub(old.number).max(1);
            tip.time.since(old.time).millis().checked_div(blocks).unwrap_or(0)
        });
        // After an empty answer there is nothing to catch up with, whatever the clock says.
        self.empty_polls == 0
            && clock::now().since(tip.time).millis() > rhythm.saturating_mul(2).max(self.part.config.poll_interval.millis())
    }

    /// The new branch above the fork point, as far as it exists, at least up to the old height if
    /// it is that long: a transaction that is merely re-included must not look gone in between.
    ///
    /// `shown` is the highest block of it that an endpoint showed: it must go that far.
    async fn branch(&self, row: &NetworkRow, fork: u64, shown: u64) -> Result<Vec<Block>, Trouble> {
        let old_tip = row.recent.last().map_or(fork, |tip| tip.number);
        let kept: Vec<BlockRef> = row.recent.iter().filter(|block| block.number <= fork).copied().collect();
        let mut branch: Vec<Block> = Vec::new();
        loop {
            let next = branch.last().map_or(fork, |block| block.at.number).saturating_add(1);
            if next > old_tip {
                return Ok(branch);
            }
            let wanted = u32::try_from(old_tip.saturating_sub(next)).unwrap_or(CATCH_UP_BLOCKS).saturating_add(1).min(CATCH_UP_BLOCKS);
            let mut more = self.part.chain.blocks(next, wanted).await?;
            let known: Vec<BlockRef> = kept.iter().copied().chain(branch.iter().map(|block| block.at)).collect();
            let refs: Vec<BlockRef> = more.iter().map(|block| block.at).collect();
            match follow::next(&known, row.finalized, &refs, None, &[]) {
                Next::Extend(count) => {
                    more.truncate(count);
                    branch.append(&mut more);
                }
                // The branch ends here for now.
                _ if refs.is_empty() && next > shown => return Ok(branch),
                _ if refs.is_empty() => {
                    return Err(tidegate_chain::Error::Transient(format!("block {next} of the new branch cannot be had yet")).into());
                }
                // It changed under our hands: find the fork again from the start.
                _ => {
                    return Err(
                        tidegate_chain::Error::Transient("the chain was rewritten again while its new branch was read".into()).into()
                    );
                }
            }
        }
    }

    /// Blocks from this height upwards. While catching up the next ones are read meanwhile, so that
    /// reading and applying go on side by side. What was read ahead may be out of date by the time it
    /// is wanted: it has to continue our tip like every other answer.
    async fn read(&mut self, from: u64, limit: u32) -> Result<Vec<Block>, Trouble> {
        let ahead = self.ahead.take().filter(|ahead| ahead.from == from);
        let blocks = match ahead {
            // What failed, or found nothing, is asked again.
            Some(mut ahead) => match (&mut ahead.reading).await {
                Ok(Ok(blocks)) if !blocks.is_empty() => blocks,
                _ => self.part.chain.blocks(from, limit).await?,
            },
            None => self.part.chain.blocks(from, limit).await?,
        };
        if limit > 1 && u32::try_from(blocks.len()).is_ok_and(|count| count >= limit) {
            let (chain, next) = (Arc::clone(&self.part.chain), from.saturating_add(u64::from(limit)));
            let reading = tokio::spawn(async move { chain.blocks(next, limit).await });
            self.ahead = Some(Ahead { from: next, reading });
        }
        Ok(blocks)
    }

    /// Asks for the final head: often while something waits for it, rarely otherwise.
    async fn ask_final(&mut self, row: &mut NetworkRow) -> Result<(), Trouble> {
        let pause = Span::from_millis(self.part.config.poll_interval.millis().saturating_mul(POLLS_PER_FINAL)).to_std();
        let rested = self.final_asked.is_none_or(|asked| asked.elapsed() > pause);
        let waits = self.part.config.deepest() == Depth::Final && self.gateway.store.has_unsettled(&row.name).await?;
        if !waits && !rested {
            return Ok(());
        }
        self.final_asked = Some(Instant::now());
        let Some(shown) = self.part.chain.final_head().await? else { return Ok(()) };
        self.final_shown = Some(shown);
        // Final is believed only for a block that we applied ourselves.
        let ours = row.recent.iter().rev().find(|block| block.number == shown.number);
        if ours.is_some_and(|ours| *ours == shown) && row.finalized.is_none_or(|known| known < shown.number) {
            row.finalized = Some(shown.number);
            self.publish(row);
        }
        Ok(())
    }

    /// Applies blocks on top of `rewind_to`, or of the tip, in one commit with everything that
    /// follows from them.
    async fn apply(&mut self, row: &mut NetworkRow, rewind_to: Option<u64>, blocks: &[Block]) -> Result<(), Trouble> {
        for _ in 0..ATTEMPTS {
            // After the blocks were fetched and before they are matched: a wallet made a moment ago
            // is never missed.
            self.learn_addresses(&row.name).await?;

            let mut work = Work::gather(self, row, rewind_to, blocks).await?;
            let recent = recent_after(row, rewind_to, blocks);
            let old_tip = row.recent.last().map_or(0, |tip| tip.number);
            let peak = blocks.last().map_or(row.peak, |block| block.at.number.max(row.peak));
            let mut after = NetworkRow { recent, peak, ..row.clone() };
            let all_marks = marks(&after.recent);
            let now = clock::now();
            let mut heads = self.gateway.heads();
            let mut changes = Changes::default();
            work.orphan_above(&row.name, rewind_to);
            let told = work.told_of_other_money(&row.name, blocks);
            if let Some(head) = head_of(&after, Arc::clone(&all_marks)).filter(|_| !told.is_empty()) {
                heads.insert(row.name.clone(), head);
                work.step(&self.gateway, &told, &heads, now, &mut changes).await?;
                heads = self.gateway.heads();
            }
            let mut touched: BTreeSet<OrderId> = work.orphaned_orders();
            for block in blocks {
                touched.extend(work.take_block(self, block, now));
                // Of a branch that replaces another, only what stands at the old height counts.
                let replayed = rewind_to.is_some() && block.at.number < old_tip;
                if replayed {
                    continue;
                }
                let tip = mark(&block.at);
                heads.insert(
                    row.name.clone(),
                    Head { tip, peak: row.peak.max(tip.number), finalized: row.finalized, floor: row.floor, marks: Arc::clone(&all_marks) },
                );
                work.step(&self.gateway, &std::mem::take(&mut touched), &heads, now, &mut changes).await?;
            }
            // A branch that is shorter than what it replaces.
            if !touched.is_empty() {
                if let Some(head) = head_of(&after, Arc::clone(&all_marks)) {
                    heads.insert(row.name.clone(), head);
                }
                work.step(&self.gateway, &touched, &heads, now, &mut changes).await?;
            }
            work.finish(&self.gateway, now, &mut changes).await?;
            suspect::suspect(self, blocks, now, &mut changes).await?;
            changes.cursor = Some(cursor(row, rewind_to, blocks.iter().map(|block| block.at).collect(), forget(&mut after)));
            let woken: Vec<OrderId> = changes.orders.iter().map(|change| change.id).collect();
            let notify = !changes.events.is_empty() || !changes.alerts.is_empty();
            let told = Told::of(&changes, now);
            match self.commit(changes).await? {
                Commit::Done => {
                    self.gateway.metrics.committed(&told);
                    after.version = row.version.saturating_add(1);
                    *row = after;
                    self.publish(row);
                    self.wake(woken, notify);
                    return Ok(());
                }
                Commit::Conflict => {
                    let stored = self.gateway.store.network(&row.name).await?;
                    if stored.is_none_or(|stored| stored.version != row.version) {
                        return Err(StoreError::Lost.into());
                    }
                }
            }
        }
        Err(StoreError::Lost.into())
    }

    fn wake(&self, orders: Vec<OrderId>, notify: bool) {
        for order in orders {
            self.gateway.signal(Wake::Order(order));
        }
        if notify {
            self.gateway.signal(Wake::Delivery);
        }
    }

    /// Settles what is deep enough, lets orders expire, ends leases, returns wallets.
    async fn settle(&mut self, row: &NetworkRow) -> Result<Then, Trouble> {
        let gateway = Arc::clone(&self.gateway);
        let store = &gateway.store;
        let part = Arc::clone(&self.part);
        let config = &part.config;
        let Some(head) = head_of(row, marks(&row.recent)) else { return Ok(Then::Rest) };
        let shallowest = match self.shallowest {
            Some((depth, looked)) if looked.elapsed() < DEPTHS_EVERY => depth,
            _ => {
                let depth = store.agreed_depths(&row.name).await?.into_iter().fold(config.shallowest(), Ord::min);
                self.shallowest = Some((depth, Instant::now()));
                depth
            }
        };
        // Nothing of any order can be settled above this.
        let Some(settled) = head.settled(shallowest) else { return Ok(Then::Rest) };
        let now = clock::now();
        let mut heads = self.gateway.heads();
        heads.insert(row.name.clone(), head.clone());
        let mut changes = Changes::default();

        let mut work = Work::default();
        let waiting = store.unsettled(&row.name, settled.number, WAITING_MAX).await?;
        let mut ids: Vec<OrderId> = waiting.iter().filter_map(|transfer| transfer.order).collect();
        ids.extend(store.orders_past(&row.name, settled.time, WAITING_MAX).await?);
        ids.sort_unstable();
        ids.dedup();
        work.load_orders(store.orders(&ids).await?);
        work.load_loose(waiting);
        let full = self.prove(row, &head, &mut work, now, &mut changes).await?;
        work.settle_loose(&head, config.deepest());
        work.step(&self.gateway, &ids.into_iter().collect(), &heads, now, &mut changes).await?;
        work.finish(&self.gateway, now, &mut changes).await?;
        self.end_leases(&head, settled, &mut changes).await?;
        for wallet in store.rested_wallets(&row.name, settled.time, SETTLE_MAX).await? {
            let (status, queue_rank) = (wallet::rested(wallet.status), wallet::queue_rank(wallet.kind, true, settled.time));
            changes.wallets.push(WalletChange { id: wallet.id, version: wallet.version, kind: WalletMove::Return { status, queue_rank } });
        }

        let idle = changes.orders.is_empty()
            && changes.transfers.is_empty()
            && changes.alerts.is_empty()
            && changes.wallets.is_empty()
            && changes.ended_leases.is_empty();
        if idle {
            return Ok(Then::Rest);
        }
        let woken: Vec<OrderId> = changes.orders.iter().map(|change| change.id).collect();
        let notify = !changes.events.is_empty() || !changes.alerts.is_empty();
        let told = Told::of(&changes, now);
        match self.commit(changes).await? {
            Commit::Done => {
                self.gateway.metrics.committed(&told);
                self.wake(woken, notify);
                Ok(if full { Then::GoOn } else { Then::Rest })
            }
            // Somebody changed one of the orders meanwhile: look again at once.
            Commit::Conflict => Ok(Then::GoOn),
        }
    }

    /// Reads blocks that are deep enough a second time, and marks the transfers that are there
    /// again. True when there is more to read.
    async fn prove(&mut self, row: &NetworkRow, head: &Head, work: &mut Work, now: Time, changes: &mut Changes) -> Result<bool, Trouble> {
        let deep: Vec<_> = work.deep_unproven(head, &row.name, self.part.config.deepest()).into_iter().collect();
        let more = deep.len() > REREADS_MAX;
        // In turns, so that blocks which never read right do not keep the others waiting.
        let first = if more { self.reread_turn.checked_rem(deep.len()).unwrap_or(0) } else { 0 };
        self.reread_turn = first.saturating_add(REREADS_MAX);
        let (before, from) = deep.split_at(first);
        for ((number, hash), keys) in from.iter().chain(before).take(REREADS_MAX) {
            let (number, hash) = (*number, *hash);
            let known = row.recent.iter().rev().find(|block| block.number == number && block.hash == hash).copied();
            let block = known.unwrap_or(BlockRef { number, hash, parent: Hash([0; 32]), time: Time::default() });
            let again = match self.part.chain.reread(&block).await {
                Ok(Some(again)) => again,
                Ok(None) => {
                    tracing::warn!(network = %row.name, number, "a settled block has another hash now: its money is not settled");
                    let large = |key: &TransferKey| work.known(*key).is_some_and(|known| self.needs_agreement(known.payment.value));
                    let large: Vec<TransferKey> = keys.iter().copied().filter(large).collect();
                    self.tell_of_disagreement(&block, &large, "an endpoint shows another block in its place", changes, now);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(network = %row.name, number, %error, "a settled block could not be read again: its money waits");
                    continue;
                }
            };
            // The block as it was read now is whole, and of the same hash.
            let agreed = self.is_agreed(&again.at, &again, changes, now).await;
            let shown: HashMap<TransferKey, &Transfer> = again.transfers.iter().map(|transfer| (transfer.key, transfer)).collect();
            let unreadable: BTreeSet<TransferKey> = again.unreadable.iter().map(|log| log.key).collect();
            for key in keys.iter().copied() {
                if !agreed && shown.get(&key).is_some_and(|transfer| self.needs_agreement(transfer.value)) {
                    continue;
                }
                let there = work.prove(&row.name, key, |payment| {
                    unreadable.contains(&key)
                        || shown.get(&key).is_some_and(|transfer| {
                            transfer.to == payment.to && transfer.from == payment.from && transfer.value == payment.value
                        })
                });
                if !there && self.differing.insert(key) {
                    let about = format!("{} {}/{}", row.name, key.tx_hash, key.ordinal);
                    let detail = format!(
                        "block {number} was read again after it was deep enough, and this transfer is not in it as it was; it stays unsettled and is read again"
                    );
                    changes.alerts.push(Gateway::alert(AlertKind::RereadDiffers, about, detail, now));
                }
            }
        }
        Ok(more)
    }

    /// Leases of orders that are over end once their late window has settled; their wallets rest.
    async fn end_leases(&self, head: &Head, settled: Mark, changes: &mut Changes) -> Result<(), Trouble> {
        let store = &self.gateway.store;
        let name = &self.part.config.name;
        let over = store.leases_over(name, settled.time, SETTLE_MAX).await?;
        if over.is_empty() {
            return Ok(());
        }
        let ids: Vec<OrderId> = over.iter().map(|lease| lease.order).collect();
        let orders: HashMap<OrderId, OrderRow> = store.orders(&ids).await?.into_iter().map(|order| (order.id, order)).collect();
        let addresses: Vec<Address> = over.iter().map(|lease| lease.address).collect();
        let wallets: HashMap<WalletId, WalletRow> =
            store.wallets_at(name, &addresses).await?.into_iter().map(|wallet| (wallet.id, wallet)).collect();
        for lease in over {
            let (Some(order), Some(wallet)) = (orders.get(&lease.order), wallets.get(&lease.wallet)) else { continue };
            let is_over = matches!(order.order.status, Status::Paid | Status::Expired | Status::Cancelled);
            let own_settled = head.settled(order.order.terms.depth(name));
            if let Some(mark) = own_settled.filter(|_| lease::may_end(is_over, &order.order.terms, own_settled)) {
                let until = wallet::rested_at(mark.time, order.order.terms.cooldown);
                changes.wallets.push(WalletChange {
                    id: wallet.id,
                    version: wallet.version,
                    kind: WalletMove::Rest { status: wallet::lease_ended(wallet.status), leased_to: mark.number, until },
                });
                changes.ended_leases.push((lease, mark.number));
            }
        }
        Ok(())
    }
}

/// Blocks that are being read before they are wanted.
struct Ahead {
    from: u64,
    reading: JoinHandle<Result<Vec<Block>, tidegate_chain::Error>>,
}

impl Drop for Ahead {
    /// Nobody wants them any more.
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// What a stored row says of the chain.
fn head_of(row: &NetworkRow, marks: Arc<[Mark]>) -> Option<Head> {
    let tip = row.recent.last()?;
    Some(Head { tip: mark(tip), peak: row.peak, finalized: row.finalized, floor: row.floor, marks })
}

/// The kept blocks after a step.
fn recent_after(row: &NetworkRow, rewind_to: Option<u64>, blocks: &[Block]) -> Vec<BlockRef> {
    let kept = row.recent.iter().filter(|block| rewind_to.is_none_or(|to| block.number <= to));
    kept.copied().chain(blocks.iter().map(|block| block.at)).collect()
}

/// Forgets the oldest kept blocks once there are enough more than needed.
fn forget(row: &mut NetworkRow) -> Option<u64> {
    let surplus = row.recent.len().checked_sub(BLOCKS_KEPT)?;
    if surplus < FORGET_STEP {
        return None;
    }
    row.recent.drain(..surplus);
    row.recent.first().map(|block| block.number)
}

/// A move of the cursor from a stored row.
fn cursor(row: &NetworkRow, rewind_to: Option<u64>, blocks: Vec<BlockRef>, forget_below: Option<u64>) -> Cursor {
    let tip = blocks.last().map(|block| block.number).or(rewind_to).unwrap_or_else(|| row.recent.last().map_or(0, |tip| tip.number));
    Cursor {
        network: row.name.clone(),
        version: Some(row.version),
        rewind_to,
        tip,
        peak: row.peak.max(tip),
        finalized: row.finalized,
        floor: row.floor,
        halted: row.halted.clone(),
        blocks,
        forget_below,
    }
}

/// Puts an order's payments, as a person's decision left them, into its row and the changes.
pub fn take_payments(row: &mut OrderRow, payments: Vec<Payment>, changes: &mut Changes) {
    for (transfer, payment) in row.transfers.iter_mut().zip(payments) {
        let recorded = recorded_of(&row.order, &payment);
        if transfer.payment != payment || transfer.recorded != recorded {
            transfer.payment = payment;
            transfer.recorded = recorded;
            changes.transfers.push(transfer_change(transfer, None));
        }
    }
}
