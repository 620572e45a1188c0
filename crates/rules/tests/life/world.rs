//! A small gateway in memory: chains that fork, the state that is stored, and a feeder that does
//! what the real follower does with `tidegate-rules`. It has no opinions about money of its own,
//! but it checks the laws that must hold after every single step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, Hash, Network, TransferKey};
use tidegate_rules::id::{LeaseId, OrderId, WalletId};
use tidegate_rules::lease::{self, Claim, Incoming, Lease, Window};
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{
    self, Cancel, Confirmation, Depth, Disposition, Head, Heads, Mark, Order, PaidBy, Payment, Refusal, Status, Step, Terms,
};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::{self, WalletKind};

/// The ways of being fed. All of them must lead to the same store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// Block by block, each followed by a settle pass.
    Single,
    /// Block by block, but one settle pass at the end of the run.
    LateProof,
    /// The whole run in one commit, then one settle pass.
    Batch,
    /// The whole run in one commit, with everything proven in it that is deep enough. A new
    /// branch is proven after it was applied, as always.
    Prompt,
    /// Block by block, each block and each settle pass twice.
    Twice,
    /// Block by block, then the last blocks are rewound and replayed unchanged.
    Replay,
}

impl Feed {
    pub(crate) const ALL: [Self; 6] = [Self::Single, Self::LateProof, Self::Batch, Self::Prompt, Self::Twice, Self::Replay];

    /// One commit for many blocks.
    pub(crate) fn is_batch(self) -> bool {
        matches!(self, Self::Batch | Self::Prompt)
    }
}

/// A transfer as a chain holds it.
#[derive(Clone, Debug)]
pub(crate) struct Tx {
    pub(crate) name: String,
    pub(crate) key: TransferKey,
    pub(crate) wallet: usize,
    pub(crate) value: Raw,
    pub(crate) from_own: bool,
}

/// A block of a simulated chain.
#[derive(Clone, Debug)]
pub(crate) struct Sim {
    pub(crate) number: u64,
    pub(crate) time: Time,
    pub(crate) hash: u64,
    pub(crate) txs: Vec<Tx>,
}

impl Sim {
    fn mark(&self) -> Mark {
        Mark { number: self.number, time: self.time }
    }
}

#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) applied: Vec<Sim>,
    peak: u64,
    pub(crate) finalized: Option<u64>,
    floor: Option<Depth>,
    pub(crate) halted: bool,
    /// By depth, the highest settled head ever seen: it must never move back.
    seen: BTreeMap<Depth, u64>,
}

impl Chain {
    pub(crate) fn tip(&self) -> Option<&Sim> {
        self.applied.last()
    }

    fn head(&self) -> Option<Head> {
        let marks: Arc<[Mark]> = self.applied.iter().map(Sim::mark).collect();
        Some(Head { tip: *marks.last()?, peak: self.peak, finalized: self.finalized, floor: self.floor, marks })
    }
}

/// An order with its rows.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) id: OrderId,
    pub(crate) order: Order,
    pub(crate) payments: Vec<Payment>,
    pub(crate) events: Vec<String>,
    pub(crate) alerts: Vec<String>,
}

pub(crate) struct Wallet {
    pub(crate) name: String,
    pub(crate) network: Network,
    kind: WalletKind,
    /// When its last lease ended, or it was made, by its own settled chain.
    rested_since: Time,
    cooldown: Span,
}

/// The stored row of a transfer.
pub(crate) struct Record {
    pub(crate) tx: Tx,
    pub(crate) block: Mark,
    hash: u64,
    pub(crate) standing: bool,
    pub(crate) what: What,
    late_told: bool,
    settled: bool,
}

/// What became of a transfer; what an order lists stays with that order, unless a person moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Listed(usize),
    Stray,
    Dust,
    Own,
    Unreadable,
}

pub(crate) struct World {
    pub(crate) feed: Feed,
    /// Whether rested wallets are leased again. Off, every lease has a fresh wallet of its own.
    pub(crate) reuse: bool,
    pub(crate) now: Time,
    pub(crate) chains: BTreeMap<Network, Chain>,
    pub(crate) orders: Vec<Entry>,
    pub(crate) wallets: Vec<Wallet>,
    pub(crate) records: BTreeMap<(Network, TransferKey), Record>,
    /// What happened since somebody last looked, in order.
    pub(crate) told: Vec<String>,
    hashes: u64,
}

/// What a new order asks for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) name: String,
    pub(crate) terms: Terms,
    pub(crate) networks: Vec<Network>,
}

/// Money below this that no order owns is dust.
pub(crate) const DUST_BELOW: Amount = Amount::from_micros(10_000);

/// Decimals of the token on a network: `bsc` has 18, the others 6.
pub(crate) fn decimals(network: &Network) -> u8 {
    if network.as_str() == "bsc" { 18 } else { 6 }
}

fn address(wallet: usize) -> Address {
    let mut bytes = [0xaa; 20];
    bytes[..8].copy_from_slice(&(wallet as u64).to_be_bytes());
    Address(bytes)
}

fn random(index: usize) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
    bytes
}

/// The key of a transfer called `name`, or `name.ordinal`.
pub(crate) fn key(name: &str) -> TransferKey {
    let (tx, ordinal) = name.split_once('.').unwrap_or((name, "0"));
    let mut hash = [0; 32];
    hash[..tx.len()].copy_from_slice(tx.as_bytes());
    TransferKey { tx_hash: Hash(hash), ordinal: ordinal.parse().expect("an ordinal") }
}

impl World {
    pub(crate) fn new(feed: Feed) -> Self {
        Self {
            feed,
            reuse: true,
            now: Time::from_secs(0),
            chains: BTreeMap::new(),
            orders: Vec::new(),
            wallets: Vec::new(),
            records: BTreeMap::new(),
            told: Vec::new(),
            hashes: 0,
        }
    }

    pub(crate) fn heads(&self) -> Heads {
        let running = self.chains.iter().filter(|(_, chain)| !chain.halted);
        running.filter_map(|(network, chain)| Some((network.clone(), chain.head()?))).collect()
    }

    pub(crate) fn chain(&mut self, network: &Network) -> &mut Chain {
        self.chains.entry(network.clone()).or_default()
    }

    /// A hash that no block had before.
    pub(crate) fn fresh_hash(&mut self) -> u64 {
        self.hashes += 1;
        self.hashes
    }

    pub(crate) fn find(&self, name: &str) -> usize {
        self.orders.iter().position(|entry| entry.name == name).unwrap_or_else(|| panic!("no order {name}"))
    }

    /// The wallet an order leases on a network.
    pub(crate) fn leased(&self, index: usize, network: &Network) -> Option<usize> {
        let lease = self.orders[index].order.leases.iter().find(|lease| lease.network == *network)?;
        (0..self.wallets.len()).find(|wallet| address(*wallet) == lease.address)
    }

    // What people do

    pub(crate) fn open(&mut self, ask: Ask) {
        let id = OrderId::new(self.now, random(self.orders.len()));
        let order = order::open(ask.terms);
        self.orders.push(Entry { name: ask.name, id, order, payments: Vec::new(), events: Vec::new(), alerts: Vec::new() });
        let index = self.orders.len() - 1;
        for network in &ask.networks {
            let lease = self.allocate(index, network);
            let order = order::choose(&self.orders[index].order, network, Some(lease), self.now, self.now);
            self.orders[index].order = order.expect("a new order may choose");
        }
    }

    pub(crate) fn choose(&mut self, index: usize, network: &Network) {
        let leased = self.leased(index, network).is_some();
        let newest = self.heads().get(network).map_or(self.now, |head| head.tip.time);
        // The refusals come first, with a lease that costs nothing; the wallet is taken after.
        let probe = Lease {
            id: LeaseId::new(self.now, random(0)),
            order: self.orders[index].id,
            network: network.clone(),
            wallet: WalletId::new(self.now, random(0)),
            address: address(usize::MAX),
            from: 0,
            to: None,
        };
        match order::choose(&self.orders[index].order, network, Some(probe), newest, self.now) {
            Err(refusal) => self.refuse(refusal),
            Ok(order) if leased => self.orders[index].order = order,
            Ok(_) => {
                let lease = self.allocate(index, network);
                self.orders[index].order = order::choose(&self.orders[index].order, network, Some(lease), newest, self.now).unwrap();
            }
        }
        self.check();
    }

    pub(crate) fn cancel(&mut self, index: usize, how: Cancel) {
        let entry = &self.orders[index];
        match order::cancel(&entry.order, &entry.payments, how, self.now) {
            Ok(step) => self.take(index, step),
            Err(refusal) => self.refuse(refusal),
        }
        self.settle();
    }

    /// Confirms, by bare word or with a recorded transfer.
    pub(crate) fn confirm(&mut self, index: usize, with: Option<(Network, TransferKey)>) {
        let mut owner = None;
        let linked = with.map(|id| {
            let record = &self.records[&id];
            if let What::Listed(other) = record.what {
                owner = Some(other);
            }
            Payment { settled: record.settled, ..payment(&id.0, record) }
        });
        if let (Some(other), Some(linked)) = (owner.filter(|other| *other != index), &linked) {
            let other = &self.orders[other];
            let mut listed = other.payments.iter().filter(|payment| payment.key == linked.key && payment.network == linked.network);
            if listed.any(|payment| order::may_count(&other.order, payment)) {
                return self.refuse(Refusal::TransferCounted);
            }
        }
        let id = linked.as_ref().map(|linked| (linked.network.clone(), linked.key));
        let linked = linked.map(|mut linked| {
            let depth = self.orders[index].order.terms.depth(&linked.network);
            // Read from the chain now: proven if it is deep enough for this order.
            linked.proven = self.heads().get(&linked.network).is_some_and(|head| head.buries(linked.block.number, depth));
            linked
        });
        let entry = &self.orders[index];
        match order::confirm(&entry.order, &entry.payments, "a reason", linked, &self.heads(), self.now) {
            Ok(step) => {
                if let Some(id) = id {
                    if let Some(other) = owner.filter(|other| *other != index) {
                        self.orders[other].payments.retain(|payment| (&payment.network, payment.key) != (&id.0, id.1));
                    }
                    self.records.get_mut(&id).unwrap().what = What::Listed(index);
                }
                self.take(index, step);
            }
            Err(refusal) => self.refuse(refusal),
        }
        self.advance();
        self.settle();
    }

    pub(crate) fn extend(&mut self, index: usize, expires_at: Time) {
        let entry = &self.orders[index];
        match order::extend(&entry.order, &entry.payments, expires_at, &self.heads(), self.now) {
            Ok(step) => {
                self.take(index, step);
                self.reclaim();
            }
            Err(refusal) => self.refuse(refusal),
        }
        self.advance();
        self.settle();
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.told.push(format!("refused {refusal:?}"));
    }

    // Wallets and leases

    pub(crate) fn add_wallet(&mut self, network: &Network, kind: WalletKind) -> usize {
        let name = format!("w{}", self.wallets.len() + 1);
        self.wallets.push(Wallet { name, network: network.clone(), kind, rested_since: self.now, cooldown: Span::ZERO });
        self.wallets.len() - 1
    }

    fn leases_of(&self, wallet: usize) -> impl Iterator<Item = (usize, &Lease)> {
        let all = self.orders.iter().enumerate().flat_map(|(index, entry)| entry.order.leases.iter().map(move |lease| (index, lease)));
        all.filter(move |(_, lease)| lease.address == address(wallet))
    }

    /// What the store does: the first wallet of the queue that has rested, else a new one.
    fn allocate(&mut self, index: usize, network: &Network) -> Lease {
        let depth = self.orders[index].order.terms.depth(network);
        let settled = self.heads().get(network).and_then(|head| head.settled(depth));
        let start = |wallet: usize| {
            let row = &self.wallets[wallet];
            let mut leases = self.leases_of(wallet).peekable();
            let leased = leases.peek().is_some();
            let records = || self.records.values().filter(|record| record.tx.wallet == wallet);
            let fresh = row.kind == WalletKind::Random && !leased && records().next().is_none();
            if leases.any(|(_, lease)| lease.to.is_none()) {
                return None;
            }
            let rested = wallet::rested_at(row.rested_since, row.cooldown);
            if leased && settled.is_none_or(|mark| mark.time < rested) {
                return None;
            }
            let last_to = self.leases_of(wallet).filter_map(|(_, lease)| lease.to).max();
            let from = lease::start(fresh, settled, last_to)?;
            let clean = !records().any(|record| record.standing && record.block.number > from);
            clean.then(|| (wallet::queue_rank(row.kind, leased, row.rested_since), wallet, from))
        };
        let rows = 0..self.wallets.len();
        let best = rows.filter(|wallet| self.reuse && self.wallets[*wallet].network == *network).filter_map(start).min();
        let (wallet, from) = match best {
            Some((_, wallet, from)) => (wallet, from),
            None => (self.add_wallet(network, WalletKind::Random), 0),
        };
        Lease {
            id: LeaseId::new(self.now, random(wallet)),
            order: self.orders[index].id,
            network: network.clone(),
            wallet: WalletId::new(self.now, random(wallet)),
            address: address(wallet),
            from,
            to: None,
        }
    }

    fn end_leases(&mut self) {
        let heads = self.heads();
        for entry in &mut self.orders {
            let over = matches!(entry.order.status, Status::Paid | Status::Expired | Status::Cancelled);
            for lease in entry.order.leases.iter_mut().filter(|lease| lease.to.is_none()) {
                let settled = heads.get(&lease.network).and_then(|head| head.settled(entry.order.terms.depth(&lease.network)));
                if !lease::may_end(over, &entry.order.terms, settled) {
                    continue;
                }
                let settled = settled.expect("a lease ends by a settled head");
                lease.to = Some(settled.number);
                let wallet = (0..self.wallets.len()).find(|wallet| address(*wallet) == lease.address).unwrap();
                self.wallets[wallet].rested_since = settled.time;
                self.wallets[wallet].cooldown = entry.order.terms.cooldown;
            }
        }
    }

    // What the chain does

    /// A run of new blocks, by the feed's way.
    pub(crate) fn blocks(&mut self, network: &Network, run: Vec<Sim>) {
        match self.feed {
            Feed::Batch | Feed::Prompt => {
                self.apply(network, &run, None);
                self.settle();
            }
            Feed::LateProof => {
                for block in run {
                    self.apply(network, &[block], None);
                }
                self.settle();
            }
            Feed::Single | Feed::Replay => {
                for block in run {
                    self.apply(network, &[block], None);
                    self.settle();
                }
            }
            Feed::Twice => {
                for block in run {
                    self.apply(network, std::slice::from_ref(&block), None);
                    for tx in &block.txs {
                        self.see(network, &block, tx);
                    }
                    self.advance();
                    self.settle();
                    self.settle();
                }
            }
        }
        if self.feed == Feed::Replay {
            self.replay(network);
        }
    }

    fn replay(&mut self, network: &Network) {
        let chain = self.chain(network);
        let fixed = chain.finalized.unwrap_or(0);
        let again: Vec<Sim> = chain.applied.iter().rev().take(4).filter(|block| block.number > fixed).cloned().collect();
        let again: Vec<Sim> = again.into_iter().rev().collect();
        let Some(first) = again.first() else { return };
        if first.number > self.chain(network).applied[0].number {
            self.apply(network, &again, Some(first.number));
            self.settle();
        }
    }

    /// A fork: the new branch up to the old height is one commit with the rewind, whatever the
    /// feed; what is above it follows by the feed's way.
    pub(crate) fn fork(&mut self, network: &Network, branch: Vec<Sim>) {
        let old = self.chain(network).tip().expect("a chain to fork").number;
        let from = branch[0].number;
        assert!(self.chain(network).finalized.is_none_or(|fixed| from > fixed), "a fork below the final block halts instead");
        let (below, above): (Vec<_>, Vec<_>) = branch.into_iter().partition(|block| block.number <= old);
        self.apply(network, &below, Some(from));
        self.settle();
        if !above.is_empty() {
            self.blocks(network, above);
        }
    }

    pub(crate) fn finalize(&mut self, network: &Network, number: u64) {
        let chain = self.chain(network);
        chain.finalized = chain.finalized.max(Some(number));
        self.advance();
        self.settle();
    }

    pub(crate) fn floor(&mut self, network: &Network, floor: Option<Depth>) {
        let chain = self.chain(network);
        chain.floor = floor;
        // A floor that rises holds the settled head back; this is the one thing that does.
        chain.seen.clear();
        self.advance();
        self.settle();
    }

    /// One commit: rewind, the new blocks, and what follows for every order.
    fn apply(&mut self, network: &Network, blocks: &[Sim], rewind: Option<u64>) {
        if let Some(from) = rewind {
            let chain = self.chain(network);
            let keep = chain.applied.partition_point(|block| block.number < from);
            for tx in chain.applied.split_off(keep).iter().flat_map(|block| &block.txs) {
                let record = self.records.get_mut(&(network.clone(), tx.key)).expect("every transfer has a row");
                record.standing = false;
                if let What::Listed(index) = record.what {
                    let payments = &mut self.orders[index].payments;
                    payments.iter_mut().filter(|payment| (&payment.network, payment.key) == (network, tx.key)).for_each(|payment| {
                        payment.standing = false;
                    });
                }
            }
        }
        for block in blocks {
            let chain = self.chain(network);
            if let Some(tip) = chain.tip() {
                assert!(tip.number + 1 == block.number && tip.time <= block.time, "{} does not follow {}", block.number, tip.number);
            }
            chain.applied.push(block.clone());
            chain.peak = chain.peak.max(block.number);
            self.now = self.now.max(block.time);
            for tx in &block.txs {
                self.see(network, block, tx);
            }
        }
        if self.feed == Feed::Prompt && rewind.is_none() {
            self.prove();
        }
        self.advance();
    }

    /// A transfer in a block: a new row, or an old one that stands again.
    fn see(&mut self, network: &Network, block: &Sim, tx: &Tx) {
        let id = (network.clone(), tx.key);
        let claimed = self.claim(network, block.mark(), tx);
        let Some(record) = self.records.get_mut(&id) else {
            let record = Record {
                tx: tx.clone(),
                block: block.mark(),
                hash: block.hash,
                standing: true,
                what: claimed,
                late_told: false,
                settled: false,
            };
            if let What::Listed(index) = claimed {
                self.orders[index].payments.push(payment(network, &record));
            } else {
                self.told.push(stray(network, &record));
            }
            self.records.insert(id, record);
            return;
        };
        let moved = record.hash != block.hash;
        (record.block, record.hash, record.standing) = (block.mark(), block.hash, true);
        if let What::Listed(index) = record.what {
            let payments = &mut self.orders[index].payments;
            let payment = payments.iter_mut().find(|payment| (&payment.network, payment.key) == (network, tx.key)).expect("listed");
            (payment.block, payment.standing) = (block.mark(), true);
            if moved {
                // Another block: it has to settle there anew.
                (payment.settled, payment.proven) = (false, false);
            }
        } else if record.what != claimed {
            record.what = claimed;
            if let What::Listed(index) = claimed {
                self.orders[index].payments.push(payment(network, record));
            } else {
                self.told.push(stray(network, record));
            }
        }
    }

    fn claim(&self, network: &Network, block: Mark, tx: &Tx) -> What {
        let window = |index: usize, lease: &Lease| {
            let terms = &self.orders[index].order.terms;
            Window { order: self.orders[index].id, from: lease.from, expires_at: terms.expires_at, late_window: terms.late_window }
        };
        let windows: Vec<Window> = self.leases_of(tx.wallet).map(|(index, lease)| window(index, lease)).collect();
        let incoming =
            Incoming { value: tx.value, decimals: decimals(network), number: block.number, time: block.time, from_own: tx.from_own };
        match lease::claim(&windows, &incoming, DUST_BELOW) {
            Claim::Order(id) | Claim::Late(id) => What::Listed(self.orders.iter().position(|entry| entry.id == id).unwrap()),
            Claim::Stray => What::Stray,
            Claim::Dust => What::Dust,
            Claim::Own => What::Own,
            Claim::Unreadable => What::Unreadable,
        }
    }

    /// After a deadline moved, money that nobody owned may have an owner.
    fn reclaim(&mut self) {
        let loose = self.records.iter().filter(|(_, record)| record.standing && !matches!(record.what, What::Listed(_)));
        let loose: Vec<_> = loose.map(|(id, record)| (id.clone(), record.block, record.tx.clone())).collect();
        for (id, block, tx) in loose {
            if let What::Listed(index) = self.claim(&id.0, block, &tx) {
                let record = self.records.get_mut(&id).unwrap();
                record.what = What::Listed(index);
                self.orders[index].payments.push(payment(&id.0, record));
            }
        }
    }

    /// What the gateway does for every order concerned; here, for all.
    pub(crate) fn advance(&mut self) {
        let heads = self.heads();
        for index in 0..self.orders.len() {
            let entry = &self.orders[index];
            let step = order::advance(&entry.order, &entry.payments, &heads, self.now);
            self.take(index, step);
        }
        self.check();
    }

    /// The settle pass: what is deep enough is read a second time, then leases end.
    pub(crate) fn settle(&mut self) {
        self.prove();
        self.advance();
        self.end_leases();
        self.check();
    }

    fn prove(&mut self) {
        let heads = self.heads();
        for entry in &mut self.orders {
            for payment in entry.payments.iter_mut().filter(|payment| payment.standing) {
                let depth = entry.order.terms.depth(&payment.network);
                if heads.get(&payment.network).is_some_and(|head| head.buries(payment.block.number, depth)) {
                    payment.proven = true;
                }
            }
        }
    }

    // Laws

    /// Stores a step, after making sure that it is a lawful one.
    fn take(&mut self, index: usize, step: Step) {
        let heads = self.heads();
        let several = self.orders.len() > 1;
        let entry = &self.orders[index];
        let (before, after) = (&entry.order, &step.order);
        let name = &entry.name;

        // I4
        let derived = order::assess(&after.terms, &after.facts, &step.payments);
        assert_eq!((after.tally, after.status, after.exception), derived, "{name}: the stored status is not what the facts say");
        // I7
        if matches!(before.status, Status::Paid | Status::Cancelled) {
            assert_eq!(after.status, before.status, "{name}: paid and cancelled never change");
        }
        assert!(before.facts.paid.is_none() || after.facts.paid.is_some(), "{name}: having been paid is for ever");
        assert!(before.facts.expired_at.is_none() || after.facts.expired_at == before.facts.expired_at, "{name}: expired once");
        for old in entry.payments.iter().filter(|payment| payment.settled && payment.standing) {
            let new = step.payments.iter().find(|payment| payment.network == old.network && payment.key == old.key);
            assert!(new.is_some_and(|new| new.settled || new.by_hand), "{name}: a settled transfer went back while it stood");
        }
        let gone = step.payments.iter().filter(|payment| !payment.standing);
        assert!(gone.clone().all(|payment| !payment.settled && !payment.proven), "{name}: what left the chain has to settle anew");
        // A step said twice is said once.
        let again = order::advance(after, &step.payments, &heads, self.now);
        assert_eq!(again.events, [], "{name}: a second step with the same inputs tells something");
        assert_eq!(again.alerts, [], "{name}: a second step with the same inputs alerts");
        assert!(again.order == *after && again.payments == step.payments, "{name}: a second step changed something");

        for event in &step.events {
            match event.kind {
                EventType::Paid => {
                    let paid = after.facts.paid.expect("paid");
                    let enough = after.tally.confirmed >= after.terms.due();
                    let word = matches!(&after.facts.confirmation, Some(Confirmation { transfer: None, .. }));
                    let linked = matches!(&after.facts.confirmation, Some(Confirmation { transfer: Some(id), .. })
                        if step.payments.iter().any(|payment| payment.key == id.1 && payment.settled));
                    let lawful = enough || (paid.by == PaidBy::Person && (word || linked));
                    assert!(lawful, "{name}: success without settled money or a person's word");
                }
                EventType::Expired => self.assert_expired(after, &heads),
                _ => {}
            }
        }

        let entry = &mut self.orders[index];
        for event in step.events {
            let name = event.kind.name().to_owned();
            let once = matches!(event.kind, EventType::Paid | EventType::Expired | EventType::Cancelled);
            assert!(!once || !entry.events.contains(&name), "{name} twice");
            let tag = match &event.transfer {
                Some((_, key)) => format!("{name} {}", key.tx_hash),
                None => name.clone(),
            };
            assert!(event.kind != EventType::LatePayment || !entry.events.contains(&tag), "{tag} twice");
            entry.events.push(tag);
            self.told.push(if several { format!("{}:{name}", entry.name) } else { name });
        }
        for alert in step.alerts {
            let about = alert.transfer.map_or(String::new(), |(network, key)| format!(" {network} {}", key.tx_hash));
            entry.alerts.push(format!("{}{about}", alert.kind.name()));
            self.told.push(format!("alert.{}", alert.kind.name()));
        }
        for payment in &step.payments {
            let record = self.records.get_mut(&(payment.network.clone(), payment.key)).expect("a row");
            (record.late_told, record.settled) = (payment.late_told, payment.settled);
        }
        // A payment that the order lists no more belongs to whoever its next block says.
        for gone in entry.payments.iter().filter(|old| !step.payments.iter().any(|new| new.key == old.key && new.network == old.network)) {
            let record = self.records.get_mut(&(gone.network.clone(), gone.key)).expect("a row");
            assert!(!record.standing, "only what left the chain may leave its order");
            record.what = What::Stray;
        }
        (entry.order, entry.payments) = (step.order, step.payments);
    }

    /// I5, in words of its own: the block that is deep enough under the tip of today is past the
    /// deadline, on every network the order leased.
    fn assert_expired(&self, order: &Order, heads: &Heads) {
        if order.leases.is_empty() {
            assert!(self.now > order.terms.expires_at, "expired before its time");
        }
        for lease in &order.leases {
            let head = heads.get(&lease.network).expect("an order never expires while a network of its is away");
            let depth = order.terms.depth(&lease.network);
            let deep = match head.floor.map_or(depth, |floor| floor.max(depth)) {
                Depth::Blocks(blocks) => (head.tip.number + 1).checked_sub(u64::from(blocks)),
                Depth::Final => head.finalized.map(|number| number.min(head.tip.number)),
            };
            let time = deep.and_then(|number| head.mark(number)).map(|mark| mark.time);
            assert!(time > Some(order.terms.expires_at), "expired by a block that is not settled on {}", lease.network);
        }
    }

    /// What must be true of the whole store at any time.
    pub(crate) fn check(&mut self) {
        // I2
        let mut live = BTreeSet::new();
        for entry in &self.orders {
            for lease in entry.order.leases.iter().filter(|lease| lease.to.is_none()) {
                assert!(live.insert(lease.address), "two live leases of one wallet");
            }
        }
        // I9: every transfer on a chain has one row, and nothing else stands.
        let mut standing = 0;
        for (network, chain) in &self.chains {
            for block in &chain.applied {
                for tx in &block.txs {
                    let record = &self.records[&(network.clone(), tx.key)];
                    assert!(record.standing && record.block == block.mark(), "the row of {} is not where the chain has it", tx.name);
                    standing += 1;
                }
            }
        }
        assert_eq!(standing, self.records.values().filter(|record| record.standing).count(), "rows of transfers that are nowhere");
        // I3: listed by the one order its row names, in the same block, and by no other.
        let mut listed = BTreeSet::new();
        for (index, entry) in self.orders.iter().enumerate() {
            let mut exact = U::default();
            for payment in &entry.payments {
                let id = (payment.network.clone(), payment.key);
                let record = &self.records[&id];
                assert!(listed.insert(id), "{} is listed twice", record.tx.name);
                assert_eq!(record.what, What::Listed(index), "{} is listed by the wrong order", record.tx.name);
                assert_eq!((payment.standing, payment.block), (record.standing, record.block), "{} differs from its row", record.tx.name);
                let terms = &entry.order.terms;
                let late = payment.block.time > terms.expires_at;
                let in_window = payment.block.time <= terms.late_until();
                let counts = entry.order.status != Status::Cancelled && (!late || payment.by_hand || (payment.promoted && in_window));
                let matched = order::disposition(&entry.order, payment) == Disposition::Matched;
                assert_eq!(counts, matched, "{} of {}", record.tx.name, entry.name);
                if !payment.by_hand {
                    let lease = entry.order.leases.iter().find(|lease| lease.address == payment.to && lease.network == payment.network);
                    assert!(lease.is_some(), "{} counts for an order that never had the address", record.tx.name);
                }
                if counts && payment.standing {
                    exact.add(payment.value, payment.decimals);
                }
            }
            assert_eq!(entry.order.tally.received, exact.floor(), "{}: money lost or counted twice", entry.name);
            assert!(entry.order.tally.confirmed <= entry.order.tally.received, "{}: settled money that does not stand", entry.name);
        }
        for (id, record) in &self.records {
            assert_eq!(matches!(record.what, What::Listed(_)), listed.contains(id), "{} is nobody's", record.tx.name);
        }
        // The settled head never moves back, but is never above the cursor.
        for chain in self.chains.values_mut() {
            let Some(head) = chain.head() else { continue };
            for depth in [Depth::Blocks(1), Depth::Blocks(2), Depth::Blocks(3), Depth::Blocks(5), Depth::Final] {
                let Some(settled) = head.settled(depth).map(|mark| mark.number) else {
                    let Depth::Blocks(blocks) = head.floor.map_or(depth, |floor| floor.max(depth)) else { continue };
                    assert!(head.tip.number + 1 < u64::from(blocks) + head.marks[0].number, "no settled head, though it is kept");
                    continue;
                };
                let most = chain.seen.entry(depth).or_insert(0);
                assert!(settled <= head.tip.number, "settled above the cursor");
                assert!(settled >= (*most).min(head.tip.number), "the settled head moved back");
                *most = settled.max(*most);
            }
        }
    }
}

/// The exact sum of base units, apart from the code under test: 10⁻¹⁸ in two halves.
#[derive(Default)]
struct U {
    micros: u128,
    below: u128,
}

impl U {
    const PER_MICRO: u128 = 1_000_000_000_000;

    fn add(&mut self, value: Raw, decimals: u8) {
        let units: u128 = value.to_string().parse().expect("a real amount");
        match decimals {
            6 => self.micros += units,
            18 => {
                self.micros += units / Self::PER_MICRO;
                self.below += units % Self::PER_MICRO;
            }
            _ => unreachable!("networks here have 6 or 18 decimals"),
        }
    }

    fn floor(&self) -> Amount {
        Amount::from_micros(u64::try_from(self.micros + self.below / Self::PER_MICRO).expect("a real amount"))
    }
}

fn payment(network: &Network, record: &Record) -> Payment {
    Payment {
        network: network.clone(),
        key: record.tx.key,
        from: Address([0xee; 20]),
        to: address(record.tx.wallet),
        value: record.tx.value,
        decimals: decimals(network),
        block: record.block,
        standing: record.standing,
        proven: false,
        settled: false,
        promoted: false,
        by_hand: false,
        late_told: record.late_told,
        failed: false,
    }
}

fn stray(network: &Network, record: &Record) -> String {
    let what = match record.what {
        What::Stray => "stray",
        What::Dust => "dust",
        What::Own => "own",
        What::Unreadable => return "unreadable".to_owned(),
        What::Listed(_) => unreachable!("an order has it"),
    };
    format!("{what} {}", short(record.tx.value.to_amount(decimals(network)).expect("readable")))
}

/// An amount without needless zeros.
pub(crate) fn short(amount: Amount) -> String {
    amount.to_string().trim_end_matches('0').trim_end_matches('.').to_owned()
}
