//! The blocks of a sandbox chain: sealing, forking, reading. What happened, without file or fault.
//!
//! A block keeps its transactions' logs as a node does, and they are read by the code that reads the
//! real chains' logs, so an odd log is odd here in the same way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use ruint::aliases::U256;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block, BlockRef, Hash};
use tidegate_rules::notice::TokenNotice;
use tidegate_rules::time::Time;

use super::{BranchBlock, BranchTransaction, Dropped, Flavour, LogEntry, SandboxConfig};
use crate::Attempted;
use crate::notice_log::{self, Event};
use crate::transfer_log::{Found, Kind};

/// keccak256 of `Transfer(address,address,uint256)`.
pub(super) const TRANSFER_TOPIC: [u8; 32] = [
    0xdd, 0xf2, 0x52, 0xad, 0x1b, 0xe2, 0xc8, 0x9b, 0x69, 0xc2, 0xb0, 0x68, 0xfc, 0x37, 0x8d, 0xaa, 0x95, 0x2b, 0xa7, 0xf1, 0x63, 0xc4,
    0xa1, 0x16, 0x28, 0xf5, 0x5a, 0x4d, 0xf5, 0x23, 0xb3, 0xef,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Succeeded,
    Failed,
    /// It would have succeeded, but the token did not let it: the sender is blacklisted, or the
    /// token paused. On another branch it may succeed yet.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) contract: Address,
    pub(super) topics: Vec<[u8; 32]>,
    pub(super) data: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) hash: Hash,
    pub(super) outcome: Outcome,
    pub(super) logs: Vec<Log>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) at: BlockRef,
    /// Which fork made it, 0 for none: it makes an empty block differ from the one it replaces.
    pub(super) branch: u64,
    /// The transactions ever queued until then, so that a reopened chain repeats no hash.
    pub(super) nonce: u64,
    pub(super) transactions: Vec<Transaction>,
}

/// All that ever moved to and from an address. Two sums that wrap rather than one balance that
/// stops at zero, because a fork must be able to take every movement back exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) received: U256,
    pub(super) sent: U256,
}

/// How the token stands: what its notices have led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) paused: bool,
    pub(super) deprecated: bool,
    pub(super) blacklisted: BTreeSet<Address>,
}

impl Standing {
    fn apply(&mut self, notice: &TokenNotice) {
        match notice {
            TokenNotice::Blacklisted(address) => _ = self.blacklisted.insert(*address),
            TokenNotice::Unblacklisted(address) => _ = self.blacklisted.remove(address),
            TokenNotice::FundsDestroyed { .. } => {}
            TokenNotice::Paused => self.paused = true,
            TokenNotice::Unpaused => self.paused = false,
            TokenNotice::Deprecated { .. } => self.deprecated = true,
        }
    }

    /// True when the token lets no such log happen: its sender is frozen, or everybody is.
    fn refuses(&self, log: &Log, token: &Address) -> bool {
        let by_the_frozen = || self.blacklisted.iter().any(|address| log.topics.get(1) == Some(&word(address)));
        log.contract == *token && log.topics.first() == Some(&TRANSFER_TOPIC) && (self.paused || by_the_frozen())
    }

    /// What becomes of transactions that are put into a block in this order.
    fn execute(&mut self, transactions: &mut [Transaction], token: &Address) {
        for transaction in transactions.iter_mut().filter(|transaction| transaction.outcome != Outcome::Failed) {
            let refused = transaction.logs.iter().any(|log| self.refuses(log, token));
            transaction.outcome = if refused { Outcome::Refused } else { Outcome::Succeeded };
            // Nearly all are transfers and nothing else; they need not be read to know it.
            if transaction.logs.iter().any(|log| log.topics.first() != Some(&TRANSFER_TOPIC)) {
                found_in(std::slice::from_ref(transaction), token).notices.iter().for_each(|notice| self.apply(notice));
            }
        }
    }
}

/// What cannot be told from the blocks that are held.
pub(super) struct Start {
    pub(super) genesis: BlockRef,
    pub(super) nonce: u64,
    pub(super) branch: u64,
    pub(super) settled: Option<u64>,
    /// Before the first block held.
    pub(super) accounts: BTreeMap<Address, Account>,
    /// Before the first block held.
    pub(super) standing: Standing,
}

pub(super) struct History {
    flavour: Flavour,
    token: Address,
    final_depth: u64,
    final_step: u64,
    genesis: BlockRef,
    /// Consecutive and, except while it is read from a file, never empty.
    blocks: VecDeque<Sealed>,
    pool: Vec<Transaction>,
    nonce: u64,
    branch: u64,
    /// The final height. A fork to a shorter branch does not move it back while it names a block.
    settled: Option<u64>,
    stalled: bool,
    accounts: BTreeMap<Address, Account>,
    /// Before the first block held.
    standing: Standing,
    /// In the blocks held, each with its block's height.
    notices: VecDeque<(u64, TokenNotice)>,
}

/// A fork, thought through and not yet done.
pub(super) struct Fork {
    /// The block that both branches stand on.
    pub(super) above: u64,
    pub(super) blocks: Vec<Sealed>,
    pool: Vec<Transaction>,
}

impl History {
    /// A chain with block 0 alone.
    pub(super) fn new(config: &SandboxConfig) -> Self {
        let at = genesis(config);
        let start = Start { genesis: at, nonce: 0, branch: 0, settled: None, accounts: BTreeMap::new(), standing: Standing::default() };
        let mut history = Self::resume(config, start);
        history.extend(Sealed { at, branch: 0, nonce: 0, transactions: Vec::new() });
        history
    }

    /// A chain that is about to get its oldest block back, by [`History::extend`].
    pub(super) fn resume(config: &SandboxConfig, start: Start) -> Self {
        Self {
            flavour: config.flavour,
            token: config.token,
            final_depth: config.final_depth,
            final_step: config.final_step.max(1),
            genesis: start.genesis,
            blocks: VecDeque::new(),
            pool: Vec::new(),
            nonce: start.nonce,
            branch: start.branch,
            settled: start.settled,
            stalled: false,
            accounts: start.accounts,
            standing: start.standing,
            notices: VecDeque::new(),
        }
    }

    /// What a file needs beside the blocks.
    pub(super) fn start(&self) -> Start {
        let mut accounts = self.accounts.clone();
        for sealed in self.blocks.iter().rev() {
            undo(&mut accounts, sealed, &self.token);
        }
        Start {
            genesis: self.genesis,
            nonce: self.nonce,
            branch: self.branch,
            settled: self.settled,
            accounts,
            standing: self.standing.clone(),
        }
    }

    pub(super) fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        self.blocks.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn tip(&self) -> BlockRef {
        self.blocks.back().map_or(self.genesis, |sealed| sealed.at)
    }

    fn oldest(&self) -> u64 {
        self.blocks.front().map_or(self.genesis.number, |sealed| sealed.at.number)
    }

    /// The height of the head for one who is `lag` blocks behind, never below the oldest held.
    pub(super) fn shown(&self, lag: u64) -> u64 {
        self.tip().number.saturating_sub(lag).max(self.oldest())
    }

    fn get(&self, number: u64) -> Option<&Sealed> {
        let index = number.checked_sub(self.oldest())?;
        self.blocks.get(usize::try_from(index).ok()?)
    }

    pub(super) fn at(&self, number: u64) -> Option<BlockRef> {
        self.get(number).map(|sealed| sealed.at)
    }

    pub(super) fn block(&self, number: u64) -> Option<Block> {
        self.get(number).map(|sealed| read(sealed, &self.token))
    }

    pub(super) fn find(&self, tx_hash: &Hash) -> Option<BlockRef> {
        let has = |sealed: &&Sealed| sealed.transactions.iter().any(|transaction| transaction.hash == *tx_hash);
        self.blocks.iter().rev().find(has).map(|sealed| sealed.at)
    }

    pub(super) fn pending(&self) -> Vec<Hash> {
        self.pool.iter().map(|transaction| transaction.hash).collect()
    }

    pub(super) fn balance(&self, address: &Address) -> Raw {
        let account = self.accounts.get(address).copied().unwrap_or_default();
        Raw::from_be_bytes(account.received.saturating_sub(account.sent).to_be_bytes())
    }

    /// What addresses held after the block at a height, which is held, in their order.
    pub(super) fn balances(&self, addresses: &[Address], number: u64) -> Vec<Raw> {
        let mut accounts: BTreeMap<Address, Account> =
            addresses.iter().map(|address| (*address, self.accounts.get(address).copied().unwrap_or_default())).collect();
        for sealed in self.blocks.iter().rev().take_while(|sealed| sealed.at.number > number) {
            for (address, received, sent) in movements(&found_in(&sealed.transactions, &self.token)) {
                if let Some(account) = accounts.get_mut(&address) {
                    account.received = account.received.wrapping_sub(received);
                    account.sent = account.sent.wrapping_sub(sent);
                }
            }
        }
        let held = |account: Account| Raw::from_be_bytes(account.received.saturating_sub(account.sent).to_be_bytes());
        addresses.iter().map(|address| held(accounts.get(address).copied().unwrap_or_default())).collect()
    }

    /// The transaction, and the block that it is in; `None` for one that never was, that vanished, and
    /// that is below the window held.
    pub(super) fn transaction_by_hash(&self, hash: &Hash) -> Option<(&Transaction, Option<BlockRef>)> {
        let mined =
            self.blocks.iter().rev().flat_map(|sealed| sealed.transactions.iter().map(|transaction| (transaction, Some(sealed.at))));
        let waiting = self.pool.iter().map(|transaction| (transaction, None));
        mined.chain(waiting).find(|(transaction, _)| transaction.hash == *hash)
    }

    /// How the token stood after the block at a height, which is held.
    pub(super) fn standing(&self, number: u64) -> Standing {
        let mut standing = self.standing.clone();
        for (_, notice) in self.notices.iter().take_while(|(at, _)| *at <= number) {
            standing.apply(notice);
        }
        standing
    }

    /// The final block as one sees it who is `lag` blocks behind. `None` too when it is no longer
    /// held: less than the truth, which is the safe side.
    pub(super) fn final_head(&self, lag: u64) -> Option<BlockRef> {
        let settled = self.settled?;
        let number = if lag == 0 { settled } else { settled.min(self.final_below(self.shown(lag))?) };
        self.at(number)
    }

    pub(super) fn stall_final(&mut self) {
        self.stalled = true;
    }

    pub(super) fn resume_final(&mut self) {
        self.stalled = false;
        self.settle();
    }

    /// The final height under a head at `number`.
    fn final_below(&self, number: u64) -> Option<u64> {
        let deep = number.checked_sub(self.final_depth)?;
        deep.checked_sub(deep.checked_rem(self.final_step)?)
    }

    fn settle(&mut self) {
        if !self.stalled {
            self.settled = self.settled.max(self.final_below(self.tip().number));
        }
    }

    /// Lets go of the oldest blocks. Their heights stay counted and their money stays where it went.
    pub(super) fn keep_last(&mut self, count: usize) {
        let excess = self.blocks.len().saturating_sub(count.max(1));
        self.blocks.drain(..excess);
        let oldest = self.oldest();
        while let Some((_, notice)) = self.notices.pop_front_if(|(number, _)| *number < oldest) {
            self.standing.apply(&notice);
        }
    }

    pub(super) fn queue(&mut self, logs: Vec<LogEntry>, outcome: Outcome) -> Hash {
        let transaction = self.transaction(self.nonce, logs, outcome);
        let hash = transaction.hash;
        self.nonce = self.nonce.saturating_add(1);
        self.pool.push(transaction);
        hash
    }

    fn transaction(&self, nonce: u64, logs: Vec<LogEntry>, outcome: Outcome) -> Transaction {
        let logs: Vec<Log> = logs.into_iter().map(|entry| log(entry, self.flavour, &self.token)).collect();
        let mut bytes = b"tidegate sandbox transaction".to_vec();
        bytes.extend(self.genesis.hash.0);
        bytes.extend(nonce.to_be_bytes());
        write_contents(&mut bytes, outcome, &logs);
        Transaction { hash: Hash(Sha256::digest(&bytes).into()), outcome, logs }
    }

    /// The next block with all that waits, not yet on the chain.
    pub(super) fn seal_pool(&self, time: Time) -> Sealed {
        let (tip, mut transactions) = (self.tip(), self.pool.clone());
        self.standing(tip.number).execute(&mut transactions, &self.token);
        seal(self.flavour, &tip, self.branch, self.nonce, time, transactions)
    }

    /// Puts on the chain what [`History::seal_pool`] sealed.
    pub(super) fn extend_with_pool(&mut self, sealed: Sealed) {
        self.pool.clear();
        self.extend(sealed);
    }

    /// Puts a block on the chain.
    pub(super) fn extend(&mut self, sealed: Sealed) {
        self.nonce = self.nonce.max(sealed.nonce);
        let notices = apply(&mut self.accounts, &sealed, &self.token);
        self.notices.extend(notices.into_iter().map(|notice| (sealed.at.number, notice)));
        self.blocks.push_back(sealed);
        self.settle();
    }

    /// True when the block is what this chain would have sealed here. The first block of a window
    /// has no parent to compare with.
    pub(super) fn fits(&self, sealed: &Sealed) -> bool {
        let hash = block_hash(self.flavour, &sealed.at, sealed.branch, &sealed.transactions);
        let genesis = sealed.at.number == 0 && sealed.at == self.genesis;
        let linked = self.blocks.back().is_none_or(|tip| {
            tip.at.number.checked_add(1) == Some(sealed.at.number) && tip.at.hash == sealed.at.parent && tip.at.time <= sealed.at.time
        });
        linked && (genesis || hash == sealed.at.hash)
    }

    /// Puts these blocks in place of all above a height that is held. False when that height is not
    /// held or a block does not fit; the chain is then not to be used.
    pub(super) fn replace(&mut self, above: u64, blocks: Vec<Sealed>) -> bool {
        if self.get(above).is_none() {
            return false;
        }
        while let Some(sealed) = self.blocks.pop_back_if(|sealed| sealed.at.number > above) {
            undo(&mut self.accounts, &sealed, &self.token);
        }
        while self.notices.pop_back_if(|(number, _)| *number > above).is_some() {}
        // Even an empty branch counts, so that what is mined next differs from what it replaces.
        self.branch = self.branch.saturating_add(1);
        for sealed in blocks {
            if !self.fits(&sealed) {
                return false;
            }
            self.extend(sealed);
        }
        // A final height above the tip names no block.
        self.settled = self.settled.map(|number| number.min(self.tip().number));
        true
    }

    pub(super) fn plan_fork(&self, depth: u64, branch: Vec<BranchBlock>, fate: Dropped) -> io::Result<Fork> {
        let refuse = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let base = self.tip().number.checked_sub(depth).and_then(|number| self.at(number));
        let base = base.ok_or_else(|| refuse(format!("a fork of {depth} blocks reaches below the oldest block held")))?;

        let above = self.blocks.iter().filter(|sealed| sealed.at.number > base.number);
        let mut dropped: Vec<Transaction> = above.flat_map(|sealed| sealed.transactions.clone()).collect();
        let mut pool = self.pool.clone();
        let (branch_number, mut nonce) = (self.branch.saturating_add(1), self.nonce);
        let mut standing = self.standing(base.number);
        let mut blocks: Vec<Sealed> = Vec::with_capacity(branch.len());
        for block in branch {
            let mut transactions = Vec::with_capacity(block.transactions.len());
            for wanted in block.transactions {
                transactions.push(match wanted {
                    BranchTransaction::New(logs) => {
                        let transaction = self.transaction(nonce, logs, Outcome::Succeeded);
                        nonce = nonce.saturating_add(1);
                        transaction
                    }
                    BranchTransaction::Again(hash, logs) => {
                        let before = take(&mut dropped, &hash).or_else(|| take(&mut pool, &hash));
                        let before = before.ok_or_else(|| refuse(format!("transaction {hash} was neither dropped nor waits")))?;
                        match logs {
                            None => before,
                            Some(logs) => Transaction { hash, ..self.transaction(nonce, logs, Outcome::Succeeded) },
                        }
                    }
                });
            }
            standing.execute(&mut transactions, &self.token);
            let parent = blocks.last().map_or(base, |sealed| sealed.at);
            blocks.push(seal(self.flavour, &parent, branch_number, nonce, block.time, transactions));
        }
        if fate == Dropped::ReturnToPool {
            dropped.append(&mut pool);
            pool = dropped;
        }
        Ok(Fork { above: base.number, blocks, pool })
    }

    pub(super) fn apply_fork(&mut self, fork: Fork) {
        let fits = self.replace(fork.above, fork.blocks);
        debug_assert!(fits, "a planned fork fits the chain that it was planned on");
        self.pool = fork.pool;
    }
}

/// An address as the 32-byte word that a topic holds.
pub(super) fn word(address: &Address) -> [u8; 32] {
    let mut word = [0; 32];
    for (byte, from) in word.iter_mut().skip(12).zip(address.0) {
        *byte = from;
    }
    word
}

fn take(transactions: &mut Vec<Transaction>, hash: &Hash) -> Option<Transaction> {
    let index = transactions.iter().position(|transaction| transaction.hash == *hash)?;
    Some(transactions.remove(index))
}

fn log(entry: LogEntry, flavour: Flavour, token: &Address) -> Log {
    let transfer = |contract: Address, from: &Address, to: &Address, value: Raw| Log {
        contract,
        topics: vec![TRANSFER_TOPIC, word(from), word(to)],
        data: value.to_be_bytes().to_vec(),
    };
    match entry {
        LogEntry::Transfer { from, to, value } => transfer(*token, &from, &to, value),
        LogEntry::OtherToken { token, from, to, value } => transfer(token, &from, &to, value),
        LogEntry::Token { topics, data } => Log { contract: *token, topics, data },
        LogEntry::Notice(notice) => notice_log(&notice, flavour, token),
    }
}

/// A notice as a contract of this family logs it: TRON's with the address indexed, Ethereum's in
/// the data. That both are read is part of the play.
fn notice_log(notice: &TokenNotice, flavour: Flavour, token: &Address) -> Log {
    let (event, address, value) = match notice {
        TokenNotice::Blacklisted(address) => (Event::AddedBlackList, Some(address), None),
        TokenNotice::Unblacklisted(address) => (Event::RemovedBlackList, Some(address), None),
        TokenNotice::FundsDestroyed { address, value } => (Event::DestroyedBlackFunds, Some(address), Some(value)),
        TokenNotice::Paused => (Event::Pause, None, None),
        TokenNotice::Unpaused => (Event::Unpause, None, None),
        TokenNotice::Deprecated { successor } => (Event::Deprecate, Some(successor), None),
    };
    let topic = notice_log::TOPICS.iter().find(|(known, _)| *known == event);
    let mut topics: Vec<[u8; 32]> = topic.and_then(|(_, topic)| hex::decode_to_array(topic).ok()).into_iter().collect();
    let mut data = Vec::new();
    match (flavour, address.map(word)) {
        (Flavour::Tron, Some(address)) => topics.push(address),
        (Flavour::Evm, Some(address)) => data.extend(address),
        (_, None) => {}
    }
    data.extend(value.iter().flat_map(|value| value.to_be_bytes()));
    Log { contract: *token, topics, data }
}

fn genesis(config: &SandboxConfig) -> BlockRef {
    let mut bytes = b"tidegate sandbox genesis".to_vec();
    bytes.push(match config.flavour {
        Flavour::Tron => 0,
        Flavour::Evm => 1,
    });
    bytes.extend(config.chain_id.to_be_bytes());
    bytes.extend(config.token.0);
    bytes.push(config.decimals);
    bytes.extend(config.seed.to_be_bytes());
    bytes.extend(config.genesis_time.millis().to_be_bytes());
    let mut hash = numbered(config.flavour, 0, Sha256::digest(&bytes).into());
    if config.flavour == Flavour::Tron {
        // TRON's chain id is the end of its genesis block's id; ours must not contradict itself.
        for (byte, from) in hash.0.iter_mut().rev().zip(config.chain_id.to_le_bytes()).take(4) {
            *byte = from;
        }
    }
    BlockRef { number: 0, hash, parent: Hash([0; 32]), time: config.genesis_time }
}

fn seal(flavour: Flavour, parent: &BlockRef, branch: u64, nonce: u64, time: Time, transactions: Vec<Transaction>) -> Sealed {
    let mut at =
        BlockRef { number: parent.number.saturating_add(1), hash: Hash([0; 32]), parent: parent.hash, time: time.max(parent.time) };
    at.hash = block_hash(flavour, &at, branch, &transactions);
    Sealed { at, branch, nonce, transactions }
}

/// The hash of everything in a block but its hash.
fn block_hash(flavour: Flavour, at: &BlockRef, branch: u64, transactions: &[Transaction]) -> Hash {
    let mut bytes = b"tidegate sandbox block".to_vec();
    bytes.extend(at.parent.0);
    bytes.extend(at.number.to_be_bytes());
    bytes.extend(at.time.millis().to_be_bytes());
    bytes.extend(branch.to_be_bytes());
    for transaction in transactions {
        bytes.extend(transaction.hash.0);
        write_contents(&mut bytes, transaction.outcome, &transaction.logs);
    }
    numbered(flavour, at.number, Sha256::digest(&bytes).into())
}

/// Lengths stand before what they measure, so that no two contents have the same bytes.
fn write_contents(bytes: &mut Vec<u8>, outcome: Outcome, logs: &[Log]) {
    bytes.push(match outcome {
        Outcome::Succeeded => 1,
        Outcome::Failed => 0,
        Outcome::Refused => 2,
    });
    bytes.extend(logs.len().to_be_bytes());
    for log in logs {
        bytes.extend(log.contract.0);
        bytes.extend(log.topics.len().to_be_bytes());
        bytes.extend(log.topics.iter().flatten());
        bytes.extend(log.data.len().to_be_bytes());
        bytes.extend(&log.data);
    }
}

/// A TRON block's id begins with its number.
fn numbered(flavour: Flavour, number: u64, digest: [u8; 32]) -> Hash {
    let mut hash = digest;
    if flavour == Flavour::Tron {
        for (byte, from) in hash.iter_mut().zip(number.to_be_bytes()) {
            *byte = from;
        }
    }
    Hash(hash)
}

/// A transaction as the trait shows it, in the block that it is in. The sandbox's transactions have
/// no sender of their own: who pays first in it stands for that.
pub(super) fn show(transaction: &Transaction, block: Option<BlockRef>, flavour: Flavour, token: &Address) -> crate::Transaction {
    let first = transaction.logs.iter().find(|log| log.contract == *token).and_then(asked_for);
    let outcome = match (block, transaction.outcome, flavour) {
        (None, ..) => crate::Outcome::Pending,
        (_, Outcome::Succeeded, _) => crate::Outcome::Succeeded,
        (_, Outcome::Failed, Flavour::Tron) => crate::Outcome::Failed { reason: "OUT_OF_TIME".into() },
        (_, Outcome::Refused, Flavour::Tron) => crate::Outcome::Failed { reason: "REVERT".into() },
        (_, Outcome::Failed | Outcome::Refused, Flavour::Evm) => crate::Outcome::Failed { reason: "status 0, reverted".into() },
    };
    let succeeded = outcome == crate::Outcome::Succeeded;
    let found = if succeeded { found_in(std::slice::from_ref(transaction), token) } else { Found::default() };
    crate::Transaction {
        hash: transaction.hash,
        outcome,
        block,
        from: first.map(|first| first.from),
        transfers: found.transfers,
        unreadable: found.unreadable,
        attempted: first.filter(|_| !succeeded),
    }
}

/// The transfer that a log is, or would have been.
fn asked_for(log: &Log) -> Option<Attempted> {
    let [TRANSFER_TOPIC, from, to] = log.topics.as_slice() else { return None };
    let party = |word: &[u8; 32]| {
        let (upper, lower) = word.split_last_chunk::<20>()?;
        upper.iter().all(|byte| *byte == 0).then_some(Address(*lower))
    };
    let value = log.data.as_slice().try_into().ok().map(Raw::from_be_bytes)?;
    Some(Attempted { from: party(from)?, to: party(to)?, value })
}

/// A block as the trait shows it.
fn read(sealed: &Sealed, token: &Address) -> Block {
    found_in(&sealed.transactions, token).into_block(sealed.at)
}

/// Failed transactions have no say; ordinals count every `Transfer` log of the token, the zero and
/// the unreadable too.
fn found_in(transactions: &[Transaction], token: &Address) -> Found {
    let mut found = Found::default();
    for transaction in transactions.iter().filter(|transaction| transaction.outcome == Outcome::Succeeded) {
        let mut ordinal = 0;
        for log in transaction.logs.iter().filter(|log| log.contract == *token) {
            let topics: Vec<String> = log.topics.iter().map(hex::encode).collect();
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            if let Some(kind) = Kind::of(&topics) {
                found.push(kind, transaction.hash, &mut ordinal, &topics, &hex::encode(&log.data));
            }
        }
    }
    found
}

/// Books every clean movement of the token in a block; what it says of itself is given back.
fn apply(accounts: &mut BTreeMap<Address, Account>, sealed: &Sealed, token: &Address) -> Vec<TokenNotice> {
    let found = found_in(&sealed.transactions, token);
    for (address, received, sent) in movements(&found) {
        let account = accounts.entry(address).or_default();
        account.received = account.received.wrapping_add(received);
        account.sent = account.sent.wrapping_add(sent);
    }
    found.notices
}

fn undo(accounts: &mut BTreeMap<Address, Account>, sealed: &Sealed, token: &Address) {
    for (address, received, sent) in movements(&found_in(&sealed.transactions, token)) {
        let account = accounts.entry(address).or_default();
        account.received = account.received.wrapping_sub(received);
        account.sent = account.sent.wrapping_sub(sent);
    }
}

/// What each movement adds to an address: received, and sent. Destroyed funds are sent to nobody.
fn movements(found: &Found) -> impl Iterator<Item = (Address, U256, U256)> {
    let number = |value: Raw| U256::from_be_bytes(value.to_be_bytes());
    let transfers = found.transfers.iter().flat_map(move |transfer| {
        let value = number(transfer.value);
        [(transfer.from, U256::ZERO, value), (transfer.to, value, U256::ZERO)]
    });
    let destroyed = found.notices.iter().filter_map(move |notice| match notice {
        TokenNotice::FundsDestroyed { address, value } => Some((*address, U256::ZERO, number(*value))),
        _ => None,
    });
    transfers.chain(destroyed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_is_the_hash_of_the_event() {
        let digest: [u8; 32] = sha3::Keccak256::digest(b"Transfer(address,address,uint256)").into();
        assert_eq!(TRANSFER_TOPIC, digest);
    }
}
