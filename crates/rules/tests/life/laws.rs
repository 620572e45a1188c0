//! Laws: random shop life, checked at every step by [`crate::world`], and the same life under every
//! way of being fed.
//!
//! A failure prints its seed; `LIFE_SEED=… cargo test -p tidegate-rules --test life laws` plays it
//! again. `LIFE_CASES` plays more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{BuildHasher as _, RandomState};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::Network;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{Cancel, Depth, Exception, Payment, Terms};
use tidegate_rules::time::{Span, Time};

use crate::world::{Ask, Feed, Sim, Tx, What, World, key};

/// One thing that happens. Orders and transfers are picked by number, modulo how many there are.
#[derive(Clone, Debug)]
enum Act {
    Open { amount: u64, networks: usize, depth: Option<u32>, expires_in: u64, late: u64, accept: bool, tolerance: u64 },
    Blocks { net: usize, blocks: Vec<New> },
    Fork { net: usize, back: u64, blocks: Vec<New> },
    Finalize { net: usize, back: u64 },
    Floor { net: usize, depth: u32 },
    Halt { net: usize },
    Resume { net: usize },
    Clock { by: u64 },
    Choose { order: usize, net: usize },
    Cancel { order: usize, force: bool },
    Confirm { order: usize, with: Option<usize> },
    Extend { order: usize, by: u64 },
}

/// A block to come: how long after its parent, and what is in it.
#[derive(Clone, Debug)]
struct New {
    after: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    /// To the lease of an order; `units` base units of a token with 6 decimals.
    Pay { order: usize, units: u64, from_own: bool },
    /// A transfer that left the chain comes back.
    Again { pick: usize },
}

const NETS: [&str; 2] = ["tron", "ethereum"];

fn net(index: usize) -> Network {
    Network::new(NETS[index % NETS.len()])
}

fn entry() -> impl Strategy<Value = Entry> {
    let units = prop_oneof![Just(10_000_000), Just(5_000_000), Just(3_000_000), Just(12_000_000), Just(1), 1..20_000_000_u64];
    prop_oneof![
        4 => (any::<usize>(), units, prop::bool::weighted(0.05)).prop_map(|(order, units, from_own)| Entry::Pay { order, units, from_own }),
        2 => any::<usize>().prop_map(|pick| Entry::Again { pick }),
    ]
}

fn blocks(most: usize) -> impl Strategy<Value = Vec<New>> {
    let after = prop_oneof![6 => Just(3_u64), 2 => Just(0_u64), 2 => 1..40_u64];
    let block = (after, prop::collection::vec(entry(), 0..3)).prop_map(|(after, entries)| New { after, entries });
    prop::collection::vec(block, 1..=most)
}

fn act() -> impl Strategy<Value = Act> {
    let depth = prop_oneof![Just(None), Just(Some(1)), Just(Some(2)), Just(Some(3)), Just(Some(5))];
    let open = (0..4_usize, depth, 10..120_u64, prop_oneof![Just(0_u64), Just(30)], any::<bool>(), prop_oneof![Just(0_u64), Just(500_000)]);
    let open = open.prop_map(|(networks, depth, expires_in, late, accept, tolerance)| Act::Open {
        amount: 10_000_000,
        networks,
        depth,
        expires_in,
        late,
        accept,
        tolerance,
    });
    let order = any::<usize>();
    prop_oneof![
        3 => open,
        12 => (any::<usize>(), blocks(6)).prop_map(|(net, blocks)| Act::Blocks { net, blocks }),
        6 => (any::<usize>(), 1..8_u64, blocks(8)).prop_map(|(net, back, blocks)| Act::Fork { net, back, blocks }),
        2 => (any::<usize>(), 0..6_u64).prop_map(|(net, back)| Act::Finalize { net, back }),
        1 => (any::<usize>(), 0..5_u32).prop_map(|(net, depth)| Act::Floor { net, depth }),
        1 => any::<usize>().prop_map(|net| Act::Halt { net }),
        1 => any::<usize>().prop_map(|net| Act::Resume { net }),
        1 => (1..200_u64).prop_map(|by| Act::Clock { by }),
        1 => (order, any::<usize>()).prop_map(|(order, net)| Act::Choose { order, net }),
        1 => (order, any::<bool>()).prop_map(|(order, force)| Act::Cancel { order, force }),
        2 => (order, prop::option::weighted(0.8, any::<usize>())).prop_map(|(order, with)| Act::Confirm { order, with }),
        1 => (order, 1..300_u64).prop_map(|(order, by)| Act::Extend { order, by }),
    ]
}

struct Player {
    world: World,
    names: usize,
}

impl Player {
    fn new(feed: Feed, reuse: bool) -> Self {
        let mut world = World::new(feed);
        world.reuse = reuse;
        for name in NETS {
            let blocks = (1..=8).map(|number| Sim { number, time: Time::from_secs(3), hash: number, txs: Vec::new() }).collect();
            world.blocks(&Network::new(name), blocks);
        }
        for _ in 0..100 {
            world.fresh_hash();
        }
        Self { world, names: 0 }
    }

    fn play(&mut self, act: &Act) {
        let world = &mut self.world;
        let pick = |order: &usize| (!world.orders.is_empty()).then(|| order % world.orders.len());
        match act {
            Act::Open { amount, networks, depth, expires_in, late, accept, tolerance } => {
                if world.orders.len() >= 5 {
                    return;
                }
                let depth = depth.map_or(Depth::Final, Depth::Blocks);
                let terms = Terms {
                    purpose: tidegate_rules::order::Purpose::Payment,
                    amount: Amount::from_micros(*amount),
                    tolerance: Amount::from_micros(*tolerance),
                    expires_at: world.now.plus(Span::from_secs(*expires_in)),
                    late_window: Span::from_secs(*late),
                    accept_late: *accept,
                    cooldown: Span::from_secs(20),
                    depths: NETS.iter().map(|name| (Network::new(name), depth)).collect(),
                };
                let networks = (0..2).filter(|bit| (networks >> bit) & 1 == 1).map(net).collect();
                let name = format!("o{}", world.orders.len());
                world.open(Ask { name, terms, networks });
            }
            Act::Blocks { net: at, blocks } => self.grow(&net(*at), None, blocks),
            Act::Fork { net: at, back, blocks } => {
                let chain = world.chain(&net(*at));
                let tip = chain.tip().unwrap().number;
                let lowest = chain.finalized.unwrap_or(1).max(6) + 1;
                let from = tip.saturating_sub(back - 1).max(lowest);
                if from <= tip {
                    self.grow(&net(*at), Some(from), blocks);
                }
            }
            Act::Finalize { net: at, back } => {
                let tip = world.chain(&net(*at)).tip().unwrap().number;
                world.finalize(&net(*at), tip.saturating_sub(*back));
            }
            Act::Floor { net: at, depth } => world.floor(&net(*at), (*depth > 0).then_some(Depth::Blocks(*depth))),
            Act::Halt { net: at } => world.chain(&net(*at)).halted = true,
            Act::Resume { net: at } => {
                world.chain(&net(*at)).halted = false;
                world.advance();
                world.settle();
            }
            Act::Clock { by } => {
                world.now = world.now.plus(Span::from_secs(*by));
                world.advance();
                world.settle();
            }
            Act::Choose { order, net: at } => {
                if let Some(order) = pick(order) {
                    world.choose(order, &net(*at));
                }
            }
            Act::Cancel { order, force } => {
                if let Some(order) = pick(order) {
                    world.cancel(order, if *force { Cancel::Force } else { Cancel::IfUntouched });
                }
            }
            Act::Confirm { order, with: None } => {
                if let Some(order) = pick(order) {
                    world.confirm(order, None);
                }
            }
            Act::Confirm { order, with: Some(with) } => {
                let standing =
                    world.records.iter().filter(|(_, record)| record.standing && !matches!(record.what, What::Own | What::Unreadable));
                let ids: Vec<_> = standing.map(|(id, _)| id.clone()).collect();
                if let (Some(order), false) = (pick(order), ids.is_empty()) {
                    world.confirm(order, Some(ids[with % ids.len()].clone()));
                }
            }
            Act::Extend { order, by } => {
                if let Some(order) = pick(order) {
                    let at = world.orders[order].order.terms.expires_at.plus(Span::from_secs(*by));
                    world.extend(order, at);
                }
            }
        }
    }

    fn grow(&mut self, network: &Network, from: Option<u64>, blocks: &[New]) {
        let world = &mut self.world;
        if world.chain(network).halted {
            return;
        }
        let parent = match from {
            Some(from) => world.chain(network).applied.iter().rfind(|block| block.number < from).unwrap().clone(),
            None => world.chain(network).tip().unwrap().clone(),
        };
        // Off the chain now, or by this fork.
        let gone = |record: &crate::world::Record| !record.standing || from.is_some_and(|from| record.block.number >= from);
        let mut gone: Vec<Tx> =
            world.records.iter().filter(|(id, record)| id.0 == *network && gone(record)).map(|(_, record)| record.tx.clone()).collect();
        let leased: Vec<usize> = (0..world.orders.len()).filter_map(|order| world.leased(order, network)).collect();
        let (mut number, mut time) = (parent.number, parent.time);
        let mut run = Vec::new();
        for block in blocks {
            number += 1;
            time = time.plus(Span::from_secs(block.after));
            let mut txs = Vec::new();
            for entry in &block.entries {
                match entry {
                    Entry::Again { pick } if !gone.is_empty() => txs.push(gone.remove(pick % gone.len())),
                    Entry::Pay { order, units, from_own } if !leased.is_empty() => {
                        self.names += 1;
                        let name = format!("p{}", self.names);
                        let wallet = leased[order % leased.len()];
                        txs.push(Tx { key: key(&name), name, wallet, value: Raw::from_units(u128::from(*units)), from_own: *from_own });
                    }
                    _ => {}
                }
            }
            run.push(Sim { number, time, hash: world.fresh_hash(), txs });
        }
        match from {
            Some(_) => world.fork(network, run),
            None => world.blocks(network, run),
        }
    }
}

/// Everything that is stored about the orders, without what only the server's clock or the place
/// of a commit decides.
#[derive(Clone, Debug, PartialEq)]
struct Store {
    orders: Vec<(String, Vec<Payment>, Vec<String>)>,
    alerts: Vec<Vec<String>>,
    transfers: BTreeMap<String, (bool, What)>,
}

fn store(world: &World) -> Store {
    let orders = world.orders.iter().map(|entry| {
        let (order, facts) = (&entry.order, &entry.order.facts);
        let text = format!(
            "{} {:?} {:?} {:?}; paid {:?}, expired {}, cancelled {}, {:?}, reverted {}, told {:?}; until {}",
            entry.name,
            order.tally,
            order.status,
            order.exception,
            facts.paid.map(|paid| (paid.by, paid.late)),
            facts.expired_at.is_some(),
            facts.cancelled_at.is_some(),
            facts.confirmation,
            facts.reverted,
            facts.excess_told,
            order.terms.expires_at,
        );
        let mut payments = entry.payments.clone();
        payments.sort_by(|a, b| (&a.network, a.key).cmp(&(&b.network, b.key)));
        (text, payments, entry.events.clone())
    });
    let transfers = world.records.values().map(|record| (record.tx.name.clone(), (record.standing, record.what)));
    let alerts = world.orders.iter().map(|entry| entry.alerts.clone());
    Store { orders: orders.collect(), alerts: alerts.collect(), transfers: transfers.collect() }
}

/// Plays random lives, and prints the seed of a life that broke a law.
fn for_lives<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Debug,
{
    let seed: u64 = match std::env::var("LIFE_SEED") {
        Ok(seed) => seed.parse().expect("LIFE_SEED is a number"),
        Err(_) => RandomState::new().hash_one("a life"),
    };
    let cases = std::env::var("LIFE_CASES").map_or(cases, |cases| cases.parse().expect("LIFE_CASES is a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 3_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(failure) = runner.run(&strategy, test) {
        panic!("LIFE_SEED={seed}\n{failure}");
    }
}

fn life() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..30)
}

/// The world asserts the laws of every step: no money lost or counted twice, I2, I3, I4, I5, I7,
/// I9, paid once and only for settled money or a person's word, a step said twice is said once,
/// the settled head never moves back, wallets that are leased again.
#[test]
fn every_step_is_lawful() {
    for_lives(300, life(), |acts| {
        let mut player = Player::new(Feed::Single, true);
        for act in &acts {
            player.play(act);
        }
        Ok(())
    });
}

/// One by one, proven late, in one commit, twice, or rewound and replayed: the same store.
#[test]
fn every_way_of_being_fed_gives_the_same_store() {
    for_lives(120, life(), |acts| {
        let mut stores = Vec::new();
        for feed in Feed::ALL {
            let mut player = Player::new(feed, false);
            for act in &acts {
                player.play(act);
            }
            stores.push(store(&player.world));
        }
        for (feed, other) in Feed::ALL.iter().zip(&stores) {
            let (mut walk, mut other) = (stores[0].clone(), other.clone());
            // Only one commit for many blocks may skip over a rise; see `a_walk_tells_every_rise`.
            if feed.is_batch() {
                for store in [&mut walk, &mut other] {
                    store.orders.iter_mut().for_each(|order| order.2.retain(|event| event != "order.underpaid"));
                }
            }
            prop_assert_eq!(&walk, &other, "fed {:?}", feed);
        }
        Ok(())
    });
}

/// The lives are worth living: everything that can happen to an order does.
#[test]
fn lives_meet_everything() {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        let mut player = Player::new(Feed::Single, true);
        for act in life().new_tree(&mut runner).expect("a life").current() {
            player.play(&act);
            for entry in &player.world.orders {
                seen.extend(entry.order.exception.map(|exception| exception.name().to_owned()));
                seen.extend(entry.events.iter().map(|event| event.split(' ').next().unwrap_or_default().to_owned()));
                seen.extend(entry.payments.iter().filter(|payment| payment.promoted).map(|_| "promoted".to_owned()));
                seen.extend(entry.payments.iter().filter(|payment| payment.by_hand).map(|_| "by hand".to_owned()));
                seen.extend(entry.order.leases.iter().filter(|lease| lease.from > 0).map(|_| "a wallet leased again".to_owned()));
                let back = entry.events.iter().any(|event| event == "order.payment_reverted") && !entry.order.facts.reverted;
                seen.extend(back.then(|| "reverted and back".to_owned()));
            }
        }
    }
    let exceptions = Exception::ALL.iter().map(|exception| exception.name());
    // Told outside an order's steps: when it is opened, of transactions that failed, of memberships and
    // of alerts. Deposits are no part of these lives.
    let elsewhere =
        [EventType::Pending, EventType::PaymentFailed, EventType::DepositSettled, EventType::MembershipActivated, EventType::WalletAlert];
    let events = EventType::ALL.iter().filter(|kind| !elsewhere.contains(kind)).map(|kind| kind.name());
    for wanted in exceptions.chain(events).chain(["promoted", "by hand", "a wallet leased again", "reverted and back"]) {
        assert!(seen.contains(wanted), "no life met {wanted}; they met {seen:?}");
    }
}

/// What an order holds, told apart from the code under test: straight from the chain. Without
/// people and without `accept_late`, it is the sum of what came in time to its leases.
#[test]
fn without_people_the_books_are_the_chain() {
    let plain = prop::collection::vec(
        act().prop_filter_map("people", |act| match act {
            Act::Open { amount, networks, depth, expires_in, late, tolerance, .. } => {
                Some(Act::Open { amount, networks, depth, expires_in, late, tolerance, accept: false })
            }
            Act::Blocks { .. } | Act::Fork { .. } | Act::Finalize { .. } | Act::Floor { .. } | Act::Clock { .. } => Some(act),
            _ => None,
        }),
        1..30,
    );
    for_lives(200, plain, |acts| {
        let mut player = Player::new(Feed::Single, false);
        for act in &acts {
            player.play(act);
            let world = &player.world;
            for (index, entry) in world.orders.iter().enumerate() {
                let mut expected = 0;
                for (network, chain) in &world.chains {
                    let Some(wallet) = world.leased(index, network) else { continue };
                    let blocks = chain.applied.iter().filter(|block| block.time <= entry.order.terms.expires_at);
                    let paid = blocks.flat_map(|block| &block.txs).filter(|tx| tx.wallet == wallet && !tx.from_own);
                    expected += paid.map(|tx| tx.value.to_amount(6).unwrap().micros()).sum::<u64>();
                }
                let promoted = entry.payments.iter().any(|payment| payment.promoted);
                prop_assert!(promoted || entry.order.tally.received.micros() == expected, "{}: {expected} came in time", entry.name);
            }
        }
        Ok(())
    });
}
