//! A simulated chain that ships in the binary: `tidegate dev`, `tidegate demo` and every simulation
//! test run on it, behind the same [`Chain`] as the real ones.
//!
//! A [`SandboxChain`] is a cheap handle; its clones are the same chain. One hand writes the chain
//! (it queues transactions, mines and forks), the other reads it through [`Chain`] and meets the
//! faults that a script or a seed put there. Faults change what is shown and never the chain
//! itself, so [`SandboxChain::tip`] and [`SandboxChain::block`] always tell a test what is true.
//!
//! It must not read a clock, draw randomness or move by itself: the same calls give the same
//! hashes, byte for byte. The keeper of the process mines.
//!
//! With [`SandboxChain::open`] the blocks outlive the process. Pending transactions do not: a
//! transfer that was queued and not mined when the process ended never happened.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)
)]

mod faults;
mod file;
mod history;

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block, BlockRef, Hash};
use tidegate_rules::notice::TokenNotice;
use tidegate_rules::time::{Span, Time};
use tokio::sync::watch;

pub use self::faults::{Fault, Faults, Met};

use self::faults::{Begun, Method, Script, View};
use self::file::BlockFile;
use self::history::{History, Outcome};
use crate::balances::check_addresses;
use crate::second_reading::check_blocks;
use crate::{
    Balances, Basis, Chain, EndpointHealth, EndpointState, Error, Fee, Identity, PoolHealth, SecondReading, TokenState, Transaction,
    Witnesses, check_state_addresses,
};

/// Blocks that stay readable when the chain is opened from a file, and after a trim.
pub const BLOCKS_KEPT: usize = 2_000;

/// Blocks held at most; mining above it trims the chain to [`BLOCKS_KEPT`], keeping the numbering.
pub const BLOCKS_HELD_MAX: usize = 100_000;

/// Where [`SandboxChain::faucet`] pays from. It has no key.
pub const FAUCET: Address = Address(*b"tidegate sandbox tap");

/// The token of [`SandboxConfig::tron`] and [`SandboxConfig::evm`].
pub const TOKEN: Address = Address(*b"tidegate sandbox usd");

/// The name of its one endpoint.
const NAME: &str = "sandbox";

/// Which kind of real chain is played: how addresses are written and how blocks get their hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flavour {
    /// Addresses as `T…`; the first 8 bytes of a block hash are its number.
    Tron,
    /// Addresses as EIP-55.
    Evm,
}

/// What a sandbox chain is. Two with equal configurations and equal calls are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// The kind of chain that is played.
    pub flavour: Flavour,
    /// What [`Chain::identity`] says. On TRON its low 32 bits end the genesis hash, as on the real one.
    pub chain_id: u64,
    /// The watched token's contract.
    pub token: Address,
    /// What the contract says its symbol is.
    pub symbol: String,
    /// What the contract says its decimals are.
    pub decimals: u8,
    /// The time of block 0.
    pub genesis_time: Time,
    /// Tells chains apart that are otherwise configured alike.
    pub seed: u64,
    /// A block is final once this many stand above it.
    pub final_depth: u64,
    /// The final head moves in steps of this many blocks: 1 on TRON, an epoch on Ethereum.
    pub final_step: u64,
}

impl SandboxConfig {
    /// A chain like TRON: solid 18 blocks behind the head, USDT with 6 decimals.
    #[must_use]
    pub fn tron(genesis_time: Time, seed: u64) -> Self {
        Self {
            flavour: Flavour::Tron,
            chain_id: 0x5449_4445,
            token: TOKEN,
            symbol: "USDT".into(),
            decimals: 6,
            genesis_time,
            seed,
            final_depth: 18,
            final_step: 1,
        }
    }

    /// A chain like Ethereum: finalized 64 to 95 blocks behind the head, in epochs of 32.
    #[must_use]
    pub fn evm(genesis_time: Time, seed: u64) -> Self {
        Self {
            flavour: Flavour::Evm,
            chain_id: 0x0054_4944,
            token: TOKEN,
            symbol: "USDT".into(),
            decimals: 6,
            genesis_time,
            seed,
            final_depth: 64,
            final_step: 32,
        }
    }
}

/// One log of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// A transfer of the watched token. Of value zero it takes its ordinal and is not reported.
    Transfer {
        /// Who pays.
        from: Address,
        /// Who is paid.
        to: Address,
        /// Base units.
        value: Raw,
    },
    /// A transfer of another contract: it takes no ordinal and is not reported.
    OtherToken {
        /// The other contract.
        token: Address,
        /// Who pays.
        from: Address,
        /// Who is paid.
        to: Address,
        /// Base units.
        value: Raw,
    },
    /// Any log of the watched token, as raw as on a real chain. It is read by the same rules: with
    /// `Transfer` as the first topic and anything else amiss it is unreadable.
    Token {
        /// The topics; the first names the event.
        topics: Vec<[u8; 32]>,
        /// The data.
        data: Vec<u8>,
    },
    /// What the watched token says of itself, as its contract on a chain of this flavour logs it.
    Notice(TokenNotice),
}

impl LogEntry {
    /// A `Transfer` log of the watched token that does not read as one, because the upper bytes of
    /// the recipient are dirty. It still mentions both addresses.
    #[must_use]
    pub fn malformed(from: Address, to: Address, value: Raw) -> Self {
        let mut dirty = history::word(&to);
        if let Some(first) = dirty.first_mut() {
            *first = 0x41;
        }
        Self::Token { topics: vec![history::TRANSFER_TOPIC, history::word(&from), dirty], data: value.to_be_bytes().to_vec() }
    }
}

/// A block of a branch that [`SandboxChain::fork`] puts in place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchBlock {
    time: Time,
    transactions: Vec<BranchTransaction>,
}

/// A transaction of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum BranchTransaction {
    /// Seen on this branch first.
    New(Vec<LogEntry>),
    /// One that the fork drops, or that waits in the pool; with other logs, if any are given.
    Again(Hash, Option<Vec<LogEntry>>),
}

impl BranchBlock {
    /// A block without transactions. Its time is raised to its parent's if it is below that.
    #[must_use]
    pub const fn at(time: Time) -> Self {
        Self { time, transactions: Vec::new() }
    }

    /// Adds a new transaction that succeeds.
    #[must_use]
    pub fn with(mut self, logs: Vec<LogEntry>) -> Self {
        self.transactions.push(BranchTransaction::New(logs));
        self
    }

    /// Includes again a transaction that the fork drops or that waits in the pool: same hash, same
    /// ordinals.
    #[must_use]
    pub fn again(mut self, tx_hash: Hash) -> Self {
        self.transactions.push(BranchTransaction::Again(tx_hash, None));
        self
    }

    /// As [`BranchBlock::again`], but with what it does on this branch: what a contract moves may
    /// depend on the block that it is called in.
    #[must_use]
    pub fn again_with(mut self, tx_hash: Hash, logs: Vec<LogEntry>) -> Self {
        self.transactions.push(BranchTransaction::Again(tx_hash, Some(logs)));
        self
    }
}

/// What becomes of the transactions of dropped blocks that the new branch does not include.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// They wait again, before all others, and the next mined block has them.
    ReturnToPool,
    /// They never happened.
    Vanish,
}

/// How often each question was asked, answered or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// [`Chain::identity`].
    pub identity: u64,
    /// [`Chain::head`].
    pub head: u64,
    /// [`Chain::header`].
    pub header: u64,
    /// [`Chain::blocks`].
    pub blocks: u64,
    /// [`Chain::final_head`].
    pub final_head: u64,
    /// [`Chain::reread`].
    pub reread: u64,
    /// [`Chain::token_state`].
    pub token_state: u64,
    /// [`Chain::balances`].
    pub balances: u64,
    /// [`Chain::transaction`].
    pub transaction: u64,
    /// [`Chain::fee`].
    pub fee: u64,
    /// [`Chain::second_reading`].
    pub second_reading: u64,
}

impl Calls {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let reading = [self.identity, self.head, self.header, self.blocks, self.final_head, self.reread, self.second_reading];
        let asking = [self.token_state, self.balances, self.transaction, self.fee];
        reading.into_iter().chain(asking).fold(0, u64::saturating_add)
    }

    /// Those made after `earlier` was counted.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            identity: self.identity.saturating_sub(earlier.identity),
            head: self.head.saturating_sub(earlier.head),
            header: self.header.saturating_sub(earlier.header),
            blocks: self.blocks.saturating_sub(earlier.blocks),
            final_head: self.final_head.saturating_sub(earlier.final_head),
            reread: self.reread.saturating_sub(earlier.reread),
            token_state: self.token_state.saturating_sub(earlier.token_state),
            balances: self.balances.saturating_sub(earlier.balances),
            transaction: self.transaction.saturating_sub(earlier.transaction),
            fee: self.fee.saturating_sub(earlier.fee),
            second_reading: self.second_reading.saturating_sub(earlier.second_reading),
        }
    }

    fn count(&mut self, method: Method) {
        let counter = match method {
            Method::Identity => &mut self.identity,
            Method::Head => &mut self.head,
            Method::Header => &mut self.header,
            Method::Blocks => &mut self.blocks,
            Method::FinalHead => &mut self.final_head,
            Method::Reread => &mut self.reread,
            Method::TokenState => &mut self.token_state,
            Method::Balances => &mut self.balances,
            Method::Transaction => &mut self.transaction,
            Method::Fee => &mut self.fee,
            Method::SecondReading => &mut self.second_reading,
        };
        *counter = counter.saturating_add(1);
    }
}

/// What a transfer costs on the simulated chain, always: what one cost on TRON at the end of 2025,
/// and one on Ethereum when gas is a gwei. Nobody pays it; balances of coin are not simulated.
fn fee_of(flavour: Flavour) -> Fee {
    match flavour {
        Flavour::Tron => Fee::Tron {
            energy: 64_285,
            energy_to_new: 130_285,
            bandwidth: 345,
            energy_price: 100,
            bandwidth_price: 1_000,
            burn: 6_773_500,
            burn_to_new: 13_373_500,
            with_energy: 345_000,
            activation: 1_100_000,
            basis: Basis::Known,
        },
        Flavour::Evm => Fee::Evm {
            gas: 46_073,
            gas_to_new: 63_173,
            base_fee: 900_000_000,
            priority_fee: 100_000_000,
            max_fee_per_gas: 1_900_000_000,
            cost: 46_073_000_000_000,
            cost_to_new: 63_173_000_000_000,
            cost_max: 171_000_000_000_000,
            basis: Basis::Known,
        },
    }
}

/// A handle on a simulated chain. Its clones are the same chain.
#[derive(Clone)]
pub struct SandboxChain {
    inner: Arc<Inner>,
}

struct Inner {
    config: SandboxConfig,
    state: Mutex<State>,
    shown: watch::Sender<u64>,
}

struct State {
    history: History,
    script: Script,
    file: Option<BlockFile>,
    calls: Calls,
    met: Met,
    failures: u64,
    last_error: Option<String>,
}

/// Building and moving the chain.
impl SandboxChain {
    /// A new chain in memory, with block 0 on it.
    #[must_use]
    pub fn new(config: SandboxConfig) -> Self {
        let history = History::new(&config);
        Self::build(config, history, None)
    }

    /// The chain kept at `path`, or a new one that is kept there from now on. A chain that is found
    /// keeps its own seed, genesis and blocks, of which the last [`BLOCKS_KEPT`] stay readable; a
    /// last line that was torn by a crash is dropped: its block was never shown to anybody.
    ///
    /// # Errors
    /// The file cannot be read or written, is damaged before its last line, or is of a chain with
    /// another flavour, chain id, token or decimals.
    pub fn open(config: SandboxConfig, path: &Path) -> io::Result<Self> {
        let mut history = file::read(path, &config)?.unwrap_or_else(|| History::new(&config));
        history.keep_last(BLOCKS_KEPT);
        let file = BlockFile::create(path, &config, &history)?;
        Ok(Self::build(config, history, Some(file)))
    }

    fn build(config: SandboxConfig, history: History, file: Option<BlockFile>) -> Self {
        let shown = watch::Sender::new(history.tip().number);
        let script = Script::default();
        let state = State { history, script, file, calls: Calls::default(), met: Met::new(), failures: 0, last_error: None };
        Self { inner: Arc::new(Inner { config, state: Mutex::new(state), shown }) }
    }

    /// Queues a transfer of the watched token. The sender need not own it: balances are counted and
    /// never refused. It fails if the sender is blacklisted or the token paused when it is mined.
    pub fn transfer(&self, from: Address, to: Address, value: Raw) -> Hash {
        self.transaction(vec![LogEntry::Transfer { from, to, value }])
    }

    /// Queues a transfer from [`FAUCET`].
    pub fn faucet(&self, to: Address, value: Raw) -> Hash {
        self.transfer(FAUCET, to, value)
    }

    /// Queues one transaction that succeeds, with these logs in this order, unless the token refuses
    /// one of its transfers.
    pub fn transaction(&self, logs: Vec<LogEntry>) -> Hash {
        self.lock().history.queue(logs, Outcome::Succeeded)
    }

    /// Queues a transaction that fails yet carries logs, as TRON's out-of-time ones do. None of them
    /// counts.
    pub fn failed_transaction(&self, logs: Vec<LogEntry>) -> Hash {
        self.lock().history.queue(logs, Outcome::Failed)
    }

    /// Queues that the issuer freezes an address: what it sends from then on fails, what it is paid
    /// does not.
    pub fn blacklist(&self, address: Address) -> Hash {
        self.notice(TokenNotice::Blacklisted(address))
    }

    /// Queues that the issuer lets it go again.
    pub fn unblacklist(&self, address: Address) -> Hash {
        self.notice(TokenNotice::Unblacklisted(address))
    }

    /// Queues that the issuer takes away what the address holds now, without a transfer. Unlike the
    /// real contract it does not ask whether the address is blacklisted.
    pub fn destroy_black_funds(&self, address: Address) -> Hash {
        let value = self.balance(&address);
        self.notice(TokenNotice::FundsDestroyed { address, value })
    }

    /// Queues that the issuer stops every transfer.
    pub fn pause(&self) -> Hash {
        self.notice(TokenNotice::Paused)
    }

    /// Queues that transfers go on.
    pub fn unpause(&self) -> Hash {
        self.notice(TokenNotice::Unpaused)
    }

    /// Queues that the contract hands its work to another one. Its own transfers go on.
    pub fn deprecate(&self, successor: Address) -> Hash {
        self.notice(TokenNotice::Deprecated { successor })
    }

    fn notice(&self, notice: TokenNotice) -> Hash {
        self.transaction(vec![LogEntry::Notice(notice)])
    }

    /// Seals a block with all that waits. Its time is `time`, or its parent's if that is later. With
    /// a file, the block is on disk before anybody can see it.
    ///
    /// # Errors
    /// The file cannot be written; then nothing was mined and all still waits.
    pub fn mine(&self, time: Time) -> io::Result<BlockRef> {
        let mut state = self.lock();
        state.mine(&self.inner.config, time)?;
        self.announce(&state);
        Ok(state.history.tip())
    }

    /// Seals `count` blocks, each `every` after the one before it. Returns the tip.
    ///
    /// # Errors
    /// As [`SandboxChain::mine`]; the blocks mined before the failure stay.
    pub fn mine_many(&self, count: u64, every: Span) -> io::Result<BlockRef> {
        for _ in 0..count {
            // The lock is let go between blocks, so that readers are not shut out of a long run.
            let time = self.tip().time.plus(every);
            self.mine(time)?;
        }
        Ok(self.tip())
    }

    /// Replaces the last `depth` blocks by `branch`, which may be longer, equal, shorter or empty, in
    /// one step. Even an empty block of the branch has another hash than the one it replaces. Blocks
    /// that were final can be replaced too: no honest chain does it, and a test may want it.
    ///
    /// # Errors
    /// The file cannot be written, `depth` reaches below the oldest block held, or the branch
    /// includes [again](BranchBlock::again) what was neither dropped nor waits. Nothing was changed.
    pub fn fork(&self, depth: u64, branch: Vec<BranchBlock>, dropped: Dropped) -> io::Result<BlockRef> {
        let mut state = self.lock();
        let plan = state.history.plan_fork(depth, branch, dropped)?;
        if let Some(file) = &mut state.file {
            file.append_fork(plan.above, &plan.blocks)?;
        }
        state.history.apply_fork(plan);
        self.announce(&state);
        Ok(state.history.tip())
    }
}

/// Looking at the chain past every fault. None of these counts as a call.
impl SandboxChain {
    /// The configuration that this handle was made with.
    #[must_use]
    pub fn config(&self) -> &SandboxConfig {
        &self.inner.config
    }

    /// The newest block that there is.
    #[must_use]
    pub fn tip(&self) -> BlockRef {
        self.lock().history.tip()
    }

    /// The block that there is at a height; `None` above the tip and below the window held.
    #[must_use]
    pub fn block(&self, number: u64) -> Option<Block> {
        self.lock().history.block(number)
    }

    /// The block that has the transaction; `None` while it waits, after it vanished, and below the
    /// window held.
    #[must_use]
    pub fn find(&self, tx_hash: &Hash) -> Option<BlockRef> {
        self.lock().history.find(tx_hash)
    }

    /// The transactions that wait for a block, in order.
    #[must_use]
    pub fn pending(&self) -> Vec<Hash> {
        self.lock().history.pending()
    }

    /// What the mined blocks moved to an address less what they moved from it, at least zero.
    #[must_use]
    pub fn balance(&self, address: &Address) -> Raw {
        self.lock().history.balance(address)
    }

    /// The calls counted so far, over all clones.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.lock().calls
    }

    /// The number of the head as it is shown, which wakes its receiver with every block, fork and
    /// change of [`SandboxChain::lag`]. A fork of equal length wakes too.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.shown.subscribe()
    }
}

/// The script: faults that last until they are used up or ended. [`SandboxChain::heal`] ends all.
impl SandboxChain {
    /// Every call fails from now on, [`Error::Transient`], until [`SandboxChain::end_outage`].
    pub fn begin_outage(&self) {
        self.lock().script.down = true;
    }

    /// Ends what [`SandboxChain::begin_outage`] began.
    pub fn end_outage(&self) {
        self.lock().script.down = false;
    }

    /// The next `calls` calls fail, [`Error::Transient`], whatever they ask.
    pub fn fail_next(&self, calls: u32) {
        self.lock().script.fail_next = calls;
    }

    /// The next `calls` calls of [`Chain::blocks`] get an answer from the node that lacks transfers.
    /// The trait promises whole answers, so they fail as [`Error::Transient`].
    pub fn incomplete(&self, calls: u32) {
        self.lock().script.incomplete = calls;
    }

    /// What is shown is this many blocks behind the tip; 0 shows all again.
    pub fn lag(&self, blocks: u64) {
        let mut state = self.lock();
        state.script.lag = blocks;
        self.announce(&state);
    }

    /// The node says it does not have these blocks, though its head may be above them: their headers
    /// are `None`, [`Chain::blocks`] ends before them and a re-read fails.
    pub fn hide_blocks(&self, numbers: RangeInclusive<u64>) {
        self.lock().script.hidden = Some(numbers);
    }

    /// Ends what [`SandboxChain::hide_blocks`] began.
    pub fn show_blocks(&self) {
        self.lock().script.hidden = None;
    }

    /// [`Chain::blocks`] gives at most this many blocks a call, whatever it is asked; `None` ends it.
    pub fn limit_per_call(&self, blocks: Option<u32>) {
        self.lock().script.limit_per_call = blocks;
    }

    /// The final head stops moving while blocks go on.
    pub fn stall_final(&self) {
        self.lock().history.stall_final();
    }

    /// The final head moves again, at once to where it would be.
    pub fn resume_final(&self) {
        self.lock().history.resume_final();
    }

    /// Faults from a seed: each call from now on draws its own. The same calls in the same order
    /// meet the same faults.
    pub fn inject(&self, faults: Faults) {
        self.lock().script.inject(faults);
    }

    /// How often each fault was met so far, healed ones too.
    #[must_use]
    pub fn met(&self) -> Met {
        self.lock().met.clone()
    }

    /// Ends every fault, scripted and drawn, a stalled final head too.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.script = Script::default();
        state.history.resume_final();
        self.announce(&state);
    }
}

impl SandboxChain {
    /// A panic in a test's other thread must not hide the test's own message, and no step here
    /// leaves the state half changed; so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, state: &State) {
        self.inner.shown.send_replace(state.history.shown(state.script.lag));
    }

    /// One question: counts it, lets the script spoil it, and answers it from what is shown.
    async fn ask<T>(&self, method: Method, answer: impl FnOnce(&History, &View) -> Result<T, Error>) -> Result<T, Error> {
        let (result, wait) = {
            let mut state = self.lock();
            let state = &mut *state;
            state.calls.count(method);
            let Begun { view, wait } = state.script.begin(method, &mut state.met);
            let result = view.and_then(|view| answer(&state.history, &view));
            if let Err(error) = &result {
                state.failures = state.failures.saturating_add(1);
                state.last_error = Some(error.to_string());
            }
            (result, wait)
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        result
    }
}

impl State {
    fn mine(&mut self, config: &SandboxConfig, time: Time) -> io::Result<()> {
        // Before the new block: should the disk be full, nothing was mined and the old file, which
        // has more blocks, still stands.
        if self.history.len() >= BLOCKS_HELD_MAX {
            self.history.keep_last(BLOCKS_KEPT);
            if let Some(file) = &mut self.file {
                file.rewrite(config, &self.history)?;
            }
        }
        let sealed = self.history.seal_pool(time);
        if let Some(file) = &mut self.file {
            file.append_block(&sealed)?;
        }
        self.history.extend_with_pool(sealed);
        Ok(())
    }
}

#[async_trait]
impl Chain for SandboxChain {
    async fn identity(&self) -> Result<Identity, Error> {
        let SandboxConfig { chain_id, symbol, decimals, .. } = &self.inner.config;
        self.ask(Method::Identity, |_, _| Ok(Identity { chain_id: *chain_id, symbol: symbol.clone(), decimals: *decimals })).await
    }

    async fn head(&self) -> Result<BlockRef, Error> {
        self.ask(Method::Head, |history, view| {
            history.at(history.shown(view.lag)).map(|at| view.header(at)).ok_or_else(|| Error::Transient("the sandbox has no head".into()))
        })
        .await
    }

    async fn header(&self, number: u64) -> Result<Option<BlockRef>, Error> {
        self.ask(Method::Header, |history, view| {
            Ok(if view.has(history, number) { history.at(number).map(|at| view.header(at)) } else { None })
        })
        .await
    }

    async fn blocks(&self, from: u64, limit: u32) -> Result<Vec<Block>, Error> {
        self.ask(Method::Blocks, |history, view| {
            let wanted = usize::try_from(limit.min(view.limit)).unwrap_or(usize::MAX);
            let shown = (from..=history.shown(view.lag))
                .take(wanted)
                .map_while(|number| view.has(history, number).then(|| history.block(number).map(|block| view.block(block))).flatten());
            Ok(view.blocks(shown.collect()))
        })
        .await
    }

    async fn final_head(&self) -> Result<Option<BlockRef>, Error> {
        self.ask(Method::FinalHead, |history, view| Ok(history.final_head(view.lag).map(|at| view.header(at)))).await
    }

    async fn reread(&self, block: &BlockRef) -> Result<Option<Block>, Error> {
        self.ask(Method::Reread, |history, view| {
            // A block that this node lacks is not a block that was replaced: that would say that
            // settled money is gone.
            let found = if view.has(history, block.number) { history.block(block.number) } else { None };
            let found = found.ok_or_else(|| Error::Transient(format!("the sandbox does not have block {}", block.number)))?;
            Ok((found.at.hash == block.hash).then(|| view.again(found)))
        })
        .await
    }

    async fn token_state(&self, addresses: &[Address]) -> Result<TokenState, Error> {
        self.ask(Method::TokenState, |history, view| {
            check_state_addresses(addresses)?;
            let standing = history.standing(history.shown(view.lag));
            Ok(TokenState {
                paused: Some(standing.paused),
                deprecated: Some(standing.deprecated),
                blacklisted: addresses.iter().filter(|address| standing.blacklisted.contains(*address)).copied().collect(),
            })
        })
        .await
    }

    async fn balances(&self, addresses: &[Address]) -> Result<Balances, Error> {
        check_addresses(addresses)?;
        if addresses.is_empty() {
            return Ok(Balances::default());
        }
        self.ask(Method::Balances, |history, view| {
            let at = history.shown(view.lag);
            Ok(Balances { at, values: history.balances(addresses, at), calls: 1 })
        })
        .await
    }

    async fn transaction(&self, hash: &Hash) -> Result<Option<Transaction>, Error> {
        self.ask(Method::Transaction, |history, view| {
            let found = if view.missing { None } else { history.transaction_by_hash(hash) };
            let Some((transaction, block)) = found else { return Ok(None) };
            // A node that lags has not seen the block: there the transaction waits still.
            let block = block.filter(|block| block.number <= history.shown(view.lag));
            if let Some(block) = block.filter(|block| !view.has(history, block.number)) {
                return Err(Error::Transient(format!("the sandbox does not have block {}", block.number)));
            }
            let SandboxConfig { flavour, token, .. } = &self.inner.config;
            Ok(Some(history::show(transaction, block, *flavour, token)))
        })
        .await
    }

    async fn fee(&self, _: Option<Address>) -> Result<Fee, Error> {
        self.ask(Method::Fee, |_, _| Ok(fee_of(self.inner.config.flavour))).await
    }

    async fn second_reading(&self, blocks: &[BlockRef]) -> Result<Vec<SecondReading>, Error> {
        check_blocks(blocks)?;
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(Method::SecondReading, |history, view| {
            let read = |block: &BlockRef| {
                let found = if view.has(history, block.number) { history.block(block.number) } else { None };
                let found = found.ok_or_else(|| Error::Transient(format!("the sandbox does not have block {}", block.number)))?;
                Ok(if found.at.hash == block.hash { SecondReading::Same(found) } else { SecondReading::Replaced(found.at) })
            };
            blocks.iter().map(read).collect()
        })
        .await
    }

    fn format_address(&self, address: &Address) -> String {
        match self.inner.config.flavour {
            Flavour::Tron => crate::tron::format_address(address),
            Flavour::Evm => crate::evm::format_address(address),
        }
    }

    fn parse_address(&self, text: &str) -> Option<Address> {
        match self.inner.config.flavour {
            Flavour::Tron => crate::tron::parse_address(text),
            Flavour::Evm => crate::evm::parse_address(text),
        }
    }

    async fn witnesses(&self, block: &BlockRef) -> Result<Witnesses, Error> {
        let mut witnesses = Witnesses::default();
        let list = match self.header(block.number).await {
            Ok(Some(shown)) if shown == *block => &mut witnesses.same,
            Ok(Some(_)) => &mut witnesses.other,
            Ok(None) | Err(_) => &mut witnesses.silent,
        };
        list.push(NAME.into());
        Ok(witnesses)
    }

    fn endpoints(&self) -> Vec<EndpointHealth> {
        let state = self.lock();
        let available = !state.script.is_down();
        vec![EndpointHealth {
            name: NAME.into(),
            available,
            state: if available { EndpointState::Available } else { EndpointState::Resting { left: std::time::Duration::ZERO } },
            score: if available { 100 } else { 0 },
            calls: state.calls.total(),
            failures: state.failures,
            last_error: state.last_error.clone(),
            ..EndpointHealth::default()
        }]
    }

    fn pool(&self) -> PoolHealth {
        PoolHealth::default()
    }
}
