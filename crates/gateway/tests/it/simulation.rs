//! Months of a shop's life in a minute, from a seed: the gateway that ships, on chains that fork,
//! fail, lag and lie, with a shop that opens orders and payers who pay in every way, under a clock
//! that goes wrong, killed in the middle of anything or ended between two commits, and started
//! again. After each tick the followers come to rest, and the books are held against the chains
//! themselves (see [`check`]).
//!
//! Each such world has a process of its own, because it has a clock of its own; [`many`] runs them
//! and adds up what they saw. `TIDEGATE_SEED=n` runs the world of one seed again, and
//! `scripts/simulate` runs as many as one likes. The seed decides what happens on the chains and to
//! the program; when a follower looks is up to the machine, so a seed that failed may need to run a
//! few times to fail again.

mod broken_loop;
mod check;
mod many;
mod meddler;
mod world;

use std::time::Duration;

use futures_util::future::join_all;
use tidegate::orders::{self, Cancelling};
use tidegate::people::Doer;
use tidegate::problem::Problem;
use tidegate::safe;
use tidegate::store::{AlertFilter, AuditFilter};
use tidegate_chain::sandbox::{BranchBlock, Dropped, Faults, LogEntry};
use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, Network, TransferKey};
use tidegate_rules::id::OrderId;
use tidegate_rules::order::{Cancel, Exception, Status};
use tidegate_rules::risk;
use tidegate_rules::time::Span;
use tidegate_rules::wallet::{RiskLevel, WalletStatus};

use self::check::Memory;
use self::world::{Nature, PAYER, World, ethereum, tron};
use crate::receiver::Receiver;
use crate::wait::eventually_within;

/// How many ticks a world lives, unless `TIDEGATE_TICKS` says otherwise.
const TICKS: u64 = 30;

/// How long the followers may take to come to rest. Failures make them pause for seconds.
const REST_MAX: Duration = Duration::from_secs(60);

/// The world of the seed in `TIDEGATE_SEED`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_world_of_a_seed() {
    let Ok(seed) = std::env::var("TIDEGATE_SEED") else { return };
    live(seed.parse().expect("TIDEGATE_SEED is a number")).await;
}

async fn live(seed: u64) {
    let ticks = std::env::var("TIDEGATE_TICKS").map_or(TICKS, |ticks| ticks.parse().expect("TIDEGATE_TICKS is a number"));
    let receiver = Receiver::start().await;
    let mut world = World::new(seed, Nature::of(seed), Some(receiver.url.clone()));
    let mut memory = Memory::default();
    world.start().await;
    world.is_open().await;
    for tick in 0..ticks {
        if world.random.chance(20) {
            receiver.fail_next(u32::try_from(world.random.below(4)).unwrap());
        }
        act(&mut world).await;
        rest_of(&mut world, &mut memory, &format!("seed {seed}, tick {tick}")).await;
    }

    // Everything comes to its end.
    world.set_clock_right();
    // Orders end, then their leases, then the rest of their wallets.
    for _ in 0..4 {
        world.mine_all(30);
        rest_of(&mut world, &mut memory, &format!("seed {seed}, the end")).await;
    }
    all_is_over(&world).await;
    all_is_told(&mut world, &receiver).await;
    check::deliveries(&world, &receiver.deliveries()).await;
    check::secrets(&world).await;
    let seen = check::seen(&world).await;
    let faults: u64 = world.faults().values().sum();
    many::say(seed, ticks, &world, &seen);
    let happened = seen.paid > 0 && seen.expired > 0 && seen.orders > 20 && world.forks > 3 && faults > 0;
    assert!(happened || ticks < TICKS, "a dull world: {seen:?}");
}

/// What happens in a tick.
async fn act(world: &mut World) {
    let troubled = world.random.chance(60);
    if troubled {
        let network = if world.random.chance(50) { tron() } else { ethereum() };
        world.trouble(&network);
    }
    if world.random.chance(20) {
        world.skew();
    }
    if world.random.chance(40) {
        world.light_the_fuse();
    }
    for _ in 0..6 + world.random.below(6) {
        // Who waits for a process that has ended hears nothing; the rest of the step is nobody's.
        let fuse = world.gateway().store.fuse().clone();
        tokio::select! {
            biased;
            () = step(world) => {}
            () = fuse.wait() => {}
        }
        world.after_a_crash().await;
        if troubled {
            // A follower that failed pauses; let it fail more than once.
            tokio::time::sleep(Duration::from_millis(world.random.below(40))).await;
        }
    }
    if world.random.chance(15) {
        world.night();
    }
    world.mine(&tron());
    world.mine(&ethereum());
    world.heal();
}

async fn step(world: &mut World) {
    let network = if world.random.chance(50) { tron() } else { ethereum() };
    let mut at_once = None;
    match world.random.below(20) {
        0..=3 => world.open_any().await,
        4 => at_once = world.choose_any().await,
        5 if world.random.chance(50) => at_once = world.cancel_any().await,
        6..=11 => world.pay_any().await,
        12 => {
            let own = world.own(&network).await;
            world.stray(&network, &own);
        }
        13 | 14 => {
            let own = world.own(&network).await;
            world.fork(&network, &own);
        }
        15 if world.random.chance(40) => {
            world.kill().await;
            for _ in 0..world.random.below(4) {
                world.mine(&network);
            }
            world.start().await;
        }
        // Another instance comes while the first is still at it; later one of the two is gone.
        16 if world.random.chance(50) => match world.beside.take() {
            None => world.beside = Some(world.another().await),
            Some(second) if world.random.chance(50) => second.kill().await,
            Some(second) => {
                world.kill().await;
                world.running = Some(second);
            }
        },
        _ => {}
    }
    if at_once.is_some() || world.random.chance(60) {
        world.mine(&network);
    }
    world.moment().await;
    if let Some(task) = at_once {
        task.await.unwrap();
    }
}

/// As [`rest`], for a process that may still end at a commit.
async fn rest_of(world: &mut World, memory: &mut Memory, when: &str) {
    eventually_within(REST_MAX, &format!("{when}: the books are right"), async || {
        world.after_a_crash().await;
        let wrong = check::all(world, memory).await;
        wrong.map_err(|wrong| format!("{wrong}; failing: {:?}", world.failing()))
    })
    .await;
}

/// Waits until the followers have nothing left to do and everything is as it must be.
async fn rest(world: &World, memory: &mut Memory, when: &str) {
    eventually_within(REST_MAX, &format!("{when}: the books are right"), async || {
        let wrong = check::all(world, memory).await;
        wrong.map_err(|wrong| format!("{wrong}; failing: {:?}", world.failing()))
    })
    .await;
}

/// Long after the last payment: nobody waits, nothing is unsettled, every wallet is free.
async fn all_is_over(world: &World) {
    eventually_within(REST_MAX, "all is over", async || {
        let store = world.gateway().store.clone();
        for id in &world.opened {
            let row = world.row(*id).await;
            let over = matches!(row.order.status, Status::Paid | Status::Expired | Status::Cancelled);
            let waits_for_our_clock = row.order.leases.is_empty();
            if !over && !waits_for_our_clock {
                return Err(format!("{id} is {:?}", row.order.status));
            }
        }
        for network in [tron(), ethereum()] {
            let tip = world.chain(&network).tip().number;
            let deep = tip.min(world.final_number(&network));
            if let Some(left) = store.unsettled(&network, deep, 1).await.unwrap().first() {
                return Err(format!("unsettled: {left:?}"));
            }
        }
        let counts = store.wallet_counts().await.unwrap();
        match counts.iter().find(|count| !matches!(count.status, WalletStatus::Available | WalletStatus::Frozen)) {
            Some(count) => Err(format!("{} wallets of {} are {}", count.count, count.network, count.status.name())),
            None => Ok(()),
        }
    })
    .await;
}

/// I10: every event reached the shop, under its own id, whatever was killed meanwhile.
async fn all_is_told(world: &mut World, receiver: &Receiver) {
    eventually_within(REST_MAX, "every event was delivered", async || {
        world.after_a_crash().await;
        // What was refused is tried again later, by the clock.
        world.night();
        let store = world.gateway().store.clone();
        let told: std::collections::BTreeSet<String> = receiver.deliveries().into_iter().map(|delivery| delivery.id).collect();
        for id in &world.opened {
            for event in store.order_events(*id, 0).await.unwrap() {
                if !told.contains(&event.id) {
                    return Err(format!("{} of {id} is not delivered", event.kind));
                }
            }
        }
        match store.next_delivery_at().await.unwrap() {
            Some(at) => Err(format!("a delivery is due at {at}")),
            None => Ok(()),
        }
    })
    .await;
}

/// A world at rest, without faults, for one story.
async fn calm(nature: Nature) -> World {
    let mut world = World::new(77, nature, None);
    world.start().await;
    world.is_open().await;
    world
}

fn whole(amount: u64) -> Amount {
    Amount::from_micros(amount * 1_000_000)
}

async fn open(world: &mut World, amount: u64, network: &Network) -> OrderId {
    let wish = world.wish(whole(amount), Some(network.clone()), Span::from_secs(600));
    world.open(&wish).await.unwrap().id.parse().unwrap()
}

async fn pay(world: &World, order: OrderId, network: &Network, amount: u64) -> tidegate_rules::block::Hash {
    let row = world.row(order).await;
    let lease = row.order.leases.iter().find(|lease| lease.network == *network).unwrap();
    let value = world.units(network, whole(amount));
    world.chain(network).transaction(vec![LogEntry::Transfer { from: PAYER, to: lease.address, value }])
}

async fn kinds(world: &World, order: OrderId) -> Vec<String> {
    world.gateway().store.order_events(order, 0).await.unwrap().into_iter().map(|event| event.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_orders_at_once_get_a_hundred_wallets_from_a_pool_that_grows() {
    let mut world = calm(Nature::default()).await;
    let gateway = world.gateway();
    let merchant = world.running.as_ref().unwrap().merchant.clone();
    let wish = world.wish(whole(5), Some(tron()), Span::from_secs(600));
    let opening = (0..100).map(|_| {
        let (gateway, merchant, wish) = (gateway.clone(), merchant.clone(), wish.clone());
        tokio::spawn(async move { orders::open(&gateway, &merchant, &wish, |_| None).await })
    });
    for opened in join_all(opening).await {
        let orders::Opened::New(view) = opened.unwrap().expect("the pool grows") else { panic!("an order was known") };
        world.opened.push(view.id.parse().unwrap());
    }
    let mut wallets = std::collections::BTreeSet::new();
    for id in &world.opened {
        assert!(wallets.insert(world.row(*id).await.order.leases[0].wallet), "a wallet was lent twice");
    }
    assert_eq!(wallets.len(), 100);
    world.mine_all(2);
    rest(&world, &mut Memory::default(), "a hundred at once").await;
}

/// The shop leases wallets while a follower books money to them: before the money, after it, and in
/// between, where nobody can say who is first.
#[tokio::test(flavor = "multi_thread")]
async fn money_that_meets_the_lease_of_its_wallet_has_one_owner() {
    let mut world = calm(Nature { batch_size: 8, ..Nature::default() }).await;
    let mut memory = Memory::default();
    let (mut matched, mut stray) = (0, 0);
    for round in 0..25 {
        // How many orders there are when the money comes; none at all until it is booked in the last.
        let (before, booked_first) = (round % 5, round % 5 == 4);
        // Whoever is next in the queue is paid now. Money that has not settled would keep a wallet
        // from being lent, so that of the last round does first.
        for _ in 0..8 {
            world.mine(&tron());
        }
        rest(&world, &mut memory, &format!("round {round}, before")).await;
        open(&mut world, 3, &tron()).await;
        let free = world.gateway().store.free_wallets(&tron(), Some(u64::MAX), 4).await.unwrap();
        let value = world.units(&tron(), whole(2));
        let sent = free.iter().map(|wallet| {
            let log = LogEntry::Transfer { from: PAYER, to: wallet.address, value };
            TransferKey { tx_hash: world.chain(&tron()).transaction(vec![log]), ordinal: 0 }
        });
        let sent: Vec<_> = sent.collect();
        if booked_first {
            world.mine(&tron());
            rest(&world, &mut memory, &format!("round {round}, booked")).await;
        }
        let (gateway, merchant) = (world.gateway(), world.running.as_ref().unwrap().merchant.clone());
        let wish = world.wish(whole(3), Some(tron()), Span::from_secs(600));
        let (told, mut opened) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            for _ in 0..3 {
                let _ = told.send(orders::open(&gateway, &merchant, &wish, |_| None).await);
            }
        });
        let mut there = 0;
        if !booked_first {
            while there < before {
                heard(&mut world, opened.recv().await);
                there += 1;
            }
            world.moment().await;
            world.mine(&tron());
        }
        while let Some(outcome) = opened.recv().await {
            heard(&mut world, Some(outcome));
            there += 1;
        }
        assert_eq!(there, 3, "round {round}");
        world.mine(&tron());
        rest(&world, &mut memory, &format!("round {round}")).await;
        let booked = world.gateway().store.transfers_by_key(&tron(), &sent).await.unwrap();
        assert_eq!(booked.len(), sent.len(), "round {round}");
        let owned = booked.iter().filter(|transfer| transfer.order.is_some()).count();
        matched += owned;
        stray += booked.len() - owned;
    }
    // Of every five rounds three have one, two and three orders before the money for certain, one has
    // all of its money booked first, and what became of the rest is known to nobody beforehand.
    println!("{matched} wallets were leased before their money came, {stray} after that or not at all");
    assert!(matched >= 5 * (1 + 2 + 3), "only {matched} of the 30 wallets that were leased first have their money");
    assert!(stray >= 5 * 3, "only {stray} of the 15 wallets that were paid first were left alone");
}

fn heard(world: &mut World, outcome: Option<Result<orders::Opened, Problem>>) {
    let orders::Opened::New(view) = outcome.expect("three are opened").expect("there are wallets") else { panic!("an order was known") };
    world.opened.push(view.id.parse().unwrap());
}

/// The same, at the worst moment of all: the follower has found that nobody leases the wallet, and
/// has not yet said so. The lease is first, so the money is its order's.
#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_is_leased_while_its_money_is_read_has_its_money() {
    let mut world = calm(Nature::default()).await;
    open(&mut world, 3, &tron()).await;
    let wallet = world.gateway().store.free_wallets(&tron(), Some(u64::MAX), 1).await.unwrap().remove(0);
    let (gateway, merchant) = (world.gateway(), world.running.as_ref().unwrap().merchant.clone());
    let wish = world.wish(whole(3), Some(tron()), Span::from_secs(600));
    let (told, opened) = tokio::sync::oneshot::channel();
    world.meddler.next(async move {
        let outcome = orders::open(&gateway, &merchant, &wish, |_| None).await;
        let _ = told.send(outcome);
    });
    let value = world.units(&tron(), whole(3));
    world.chain(&tron()).transaction(vec![LogEntry::Transfer { from: PAYER, to: wallet.address, value }]);
    world.mine(&tron());
    let opened = tokio::time::timeout(REST_MAX, opened).await.expect("the follower reads the money").unwrap();
    let orders::Opened::New(view) = opened.unwrap() else { panic!("an order was known") };
    let order: OrderId = view.id.parse().unwrap();
    world.opened.push(order);
    world.mine_all(8);
    rest(&world, &mut Memory::default(), "leased in between").await;
    let row = world.row(order).await;
    assert_eq!((row.order.leases[0].wallet, row.order.leases[0].from, row.order.status), (wallet.id, 0, Status::Paid));
}

/// A follower finds late money for a pending order, which changes nothing of the order; before it
/// says so the shop cancels. Both are right by what they read, and the order must show both.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_cancelled_while_its_late_money_is_read_shows_the_money() {
    let mut world = calm(Nature::default()).await;
    world.mine_all(4);
    // Its time begins at the newest block that the follower knows.
    rest(&world, &mut Memory::default(), "ready").await;
    let wish = world.wish(whole(10), Some(tron()), Span::from_secs(5));
    let order: OrderId = world.open(&wish).await.unwrap().id.parse().unwrap();
    let expires_at = world.row(order).await.order.terms.expires_at;
    let gateway = world.gateway();
    world.meddler.next(async move {
        let asked = Cancelling { merchant: None, reason: None, how: Cancel::IfUntouched, doer: None };
        orders::cancel(&gateway, &order.to_string(), asked, |_| None).await.unwrap();
    });
    pay(&world, order, &tron(), 10).await;
    world.clock = expires_at.plus(Span::from_secs(1));
    world.mine(&tron());
    eventually_within(REST_MAX, "the shop cancelled", async || if world.meddler.is_done() { Ok(()) } else { Err("not yet") }).await;
    rest(&world, &mut Memory::default(), "cancelled in between").await;
    world.mine_all(8);
    rest(&world, &mut Memory::default(), "settled").await;
    let row = world.row(order).await;
    assert_eq!((row.order.status, row.order.exception), (Status::Cancelled, Some(Exception::Late)));
    assert_eq!(kinds(&world, order).await, ["order.pending", "order.cancelled", "order.late_payment"]);
}

/// Money that leaves without us, a flood of dust, an unusual amount, and what the token's issuer
/// does: each is an alert, and where it speaks against a wallet the wallet is restricted at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_against_a_wallet_restricts_it_and_is_told() {
    let mut world = calm(Nature::default()).await;
    let store = world.gateway().store.clone();
    let told = async |kind: AlertKind| {
        let filter = AlertFilter { kind: Some(kind), ..AlertFilter::default() };
        store.alerts(filter, 200).await.unwrap().len()
    };
    for _ in 0..5 {
        open(&mut world, 3, &tron()).await;
    }
    let wallets = store.wallets_after(None, 500).await.unwrap();
    let wallets: Vec<_> = wallets.into_iter().filter(|row| row.network == tron()).take(5).collect();
    let unit = world.units(&tron(), Amount::from_micros(1));
    assert_eq!(unit.to_string(), "1", "a millionth is a base unit on TRON");
    let transfer = |from: Address, to: Address, micros: u64| LogEntry::Transfer { from, to, value: Raw::from_units(u128::from(micros)) };
    let chain = world.chain(&tron()).clone();
    // Who will be blacklisted paid to the fourth.
    let payer = Address([0xbb; 20]);
    chain.transaction(vec![transfer(payer, wallets[3].address, 2_000_000)]);
    chain.transaction(vec![transfer(PAYER, wallets[2].address, 3_000_000)]);
    chain.transaction(vec![transfer(wallets[0].address, PAYER, 1_000_000)]);
    for _ in 0..=risk::DUST_FLOOD_ABOVE {
        chain.transaction(vec![transfer(PAYER, wallets[1].address, 1)]);
    }
    for _ in 0..risk::UNUSUAL_AFTER {
        chain.transaction(vec![transfer(PAYER, wallets[4].address, 5_000_000)]);
    }
    world.mine(&tron());
    let told_once = async |kind: AlertKind| {
        eventually_within(REST_MAX, kind.name(), async || match told(kind).await {
            1 => Ok(()),
            found => Err(format!("{found} alerts")),
        })
        .await;
    };
    for kind in [AlertKind::MoneyLeft, AlertKind::DustFlood] {
        told_once(kind).await;
    }
    chain.transaction(vec![transfer(PAYER, wallets[4].address, 90_000_000_000)]);
    chain.blacklist(wallets[2].address);
    chain.blacklist(payer);
    chain.blacklist(Address([0xcc; 20]));
    chain.pause();
    world.mine(&tron());
    for kind in [AlertKind::AddressBlacklisted, AlertKind::PayerBlacklisted, AlertKind::UnusualAmount, AlertKind::TokenPaused] {
        told_once(kind).await;
    }
    world.mine_all(8);
    let row = async |n: usize| store.wallet(wallets[n].id).await.unwrap().unwrap();
    let found = [row(0).await, row(1).await, row(2).await, row(3).await, row(4).await];
    let found: Vec<_> = found.iter().map(|row| (row.status == WalletStatus::Frozen, row.risk_level)).collect();
    let expected = [
        (true, RiskLevel::Blocked),
        (false, RiskLevel::Watch),
        (true, RiskLevel::Blocked),
        (false, RiskLevel::High),
        (false, RiskLevel::Low),
    ];
    assert_eq!(found, expected);
    let audit = store.audit(AuditFilter { actor: Some("tidegate".into()), ..AuditFilter::default() }, 200).await.unwrap();
    let changes = audit.iter().filter(|row| row.entry.action == "wallet.risk" || row.entry.action == "wallet.status").count();
    assert_eq!(changes, 6, "{audit:?}");

    // A notice that was missed is found by asking, once a day.
    let gateway = world.gateway();
    let lowered = safe::put_risk(&gateway, wallets[2].id, RiskLevel::Low, "a test", &Doer::program()).await.unwrap();
    assert_eq!(lowered.risk_level, RiskLevel::Low);
    safe::check_all(&gateway).await;
    assert_eq!(row(2).await.risk_level, RiskLevel::Blocked);
}

/// Money of which two readings differ is seen and does not pay, whatever its depth. Somebody is told,
/// once, and when a later reading shows it as it was first read it pays.
#[tokio::test(flavor = "multi_thread")]
async fn money_that_is_not_there_when_it_is_read_again_does_not_pay() {
    let mut world = calm(Nature::default()).await;
    let order = open(&mut world, 10, &tron()).await;
    let none = Faults { altered_permille: 1_000, ..Faults::none(1) };
    world.chain(&tron()).inject(none);
    pay(&world, order, &tron(), 10).await;
    world.mine_all(12);
    let told = async |world: &World| {
        let filter = AlertFilter { kind: Some(AlertKind::RereadDiffers), ..AlertFilter::default() };
        world.gateway().store.alerts(filter, 10).await.unwrap().len()
    };
    eventually_within(REST_MAX, "somebody is told", async || if told(&world).await > 0 { Ok(()) } else { Err("nobody yet") }).await;
    let before = world.chain(&tron()).calls().reread;
    eventually_within(REST_MAX, "it is read again and again", async || {
        let now = world.chain(&tron()).calls().reread;
        if now > before + 5 { Ok(()) } else { Err(format!("{now} readings")) }
    })
    .await;
    assert_eq!((told(&world).await, world.row(order).await.order.status), (1, Status::Confirming));
    assert_eq!(kinds(&world, order).await, ["order.pending", "order.confirming"]);

    world.heal();
    rest(&world, &mut Memory::default(), "an honest reading").await;
    assert_eq!(world.row(order).await.order.status, Status::Paid);
}

/// An endpoint that shows another chain for a while halts a network. A small fork in that time, which
/// takes our tip for ever, must not keep it halted.
#[tokio::test(flavor = "multi_thread")]
async fn a_halt_ends_though_the_chain_forked_meanwhile() {
    let mut world = calm(Nature::default()).await;
    let mut memory = Memory::default();
    for _ in 0..25 {
        world.mine(&tron());
    }
    world.mine(&ethereum());
    rest(&world, &mut memory, "ready").await;
    let order = open(&mut world, 10, &tron()).await;
    let paid = pay(&world, order, &tron(), 10).await;
    world.mine(&tron());
    rest(&world, &mut memory, "paid").await;

    world.chain(&tron()).inject(Faults { foreign_permille: 1_000, ..Faults::none(1) });
    world.mine(&tron());
    eventually_within(REST_MAX, "the network is halted", async || {
        let row = world.gateway().store.network(&tron()).await.unwrap().unwrap();
        row.halted.map(drop).ok_or("not yet")
    })
    .await;
    let time = world.chain(&tron()).tip().time;
    world.fork_to(&tron(), 3, vec![BranchBlock::at(time), BranchBlock::at(time).again(paid)], Dropped::ReturnToPool);
    world.mine(&tron());
    world.heal();
    rest(&world, &mut memory, "it resumed").await;
    world.mine_all(8);
    rest(&world, &mut memory, "settled").await;
    assert_eq!(kinds(&world, order).await, ["order.pending", "order.confirming", "order.paid"]);
}

/// A fork of one network says nothing about another, whatever the heights are.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_takes_no_money_of_another_network() {
    let mut world = calm(Nature::default()).await;
    let mut memory = Memory::default();
    // TRON is far ahead in height.
    for _ in 0..30 {
        world.mine(&tron());
    }
    rest(&world, &mut memory, "ready").await;
    let order = open(&mut world, 10, &tron()).await;
    orders::choose(&world.gateway(), None, &order.to_string(), &ethereum(), |_| None).await.unwrap();
    pay(&world, order, &tron(), 4).await;
    let other = pay(&world, order, &ethereum(), 6).await;
    world.mine_all(1);
    rest(&world, &mut memory, "paid in two parts").await;
    assert_eq!(world.row(order).await.order.status, Status::Confirming);

    let time = world.chain(&ethereum()).tip().time;
    let branch = vec![BranchBlock::at(time).again(other), BranchBlock::at(time)];
    world.fork_to(&ethereum(), 1, branch, Dropped::ReturnToPool);
    rest(&world, &mut memory, "after the fork").await;
    world.mine_all(8);
    rest(&world, &mut memory, "settled").await;
    assert_eq!(kinds(&world, order).await, ["order.pending", "order.underpaid", "order.confirming", "order.paid"]);
}

/// What a transaction moves may depend on the block that it is in: a swap pays another amount on another
/// branch, or somebody else. What it is on the branch that stays counts, in the books too.
#[tokio::test(flavor = "multi_thread")]
async fn money_that_is_another_on_the_new_branch_counts_as_it_is_there() {
    let mut world = calm(Nature::default()).await;
    let mut memory = Memory::default();
    world.mine_all(4);
    let (first, second) = (open(&mut world, 10, &tron()).await, open(&mut world, 20, &tron()).await);
    let paid = pay(&world, first, &tron(), 10).await;
    world.mine(&tron());
    rest(&world, &mut memory, "paid").await;
    assert_eq!(world.row(first).await.order.status, Status::Confirming);

    let to = |row: tidegate::store::OrderRow| row.order.leases[0].address;
    let (to_first, to_second) = (to(world.row(first).await), to(world.row(second).await));
    let transfer = |to, amount| vec![LogEntry::Transfer { from: PAYER, to, value: world.units(&tron(), whole(amount)) }];
    let (nine, twenty) = (transfer(to_first, 9), transfer(to_second, 20));
    let time = world.chain(&tron()).tip().time;
    world.fork_to(&tron(), 1, vec![BranchBlock::at(time).again_with(paid, nine), BranchBlock::at(time)], Dropped::Vanish);
    rest(&world, &mut memory, "another amount").await;
    let row = world.row(first).await;
    assert_eq!((row.order.status, row.transfers.len()), (Status::Pending, 1));
    pay(&world, first, &tron(), 1).await;
    for _ in 0..6 {
        world.mine(&tron());
    }
    world.mine_all(1);
    rest(&world, &mut memory, "the rest was paid").await;
    assert_eq!(world.row(first).await.order.status, Status::Paid);

    // Settled and booked, and then it was for somebody else all the time.
    let time = world.chain(&tron()).tip().time;
    let mut branch: Vec<BranchBlock> = (0..12).map(|_| BranchBlock::at(time)).collect();
    branch[1] = branch[1].clone().again_with(paid, twenty);
    world.fork_to(&tron(), 9, branch, Dropped::ReturnToPool);
    rest(&world, &mut memory, "another receiver").await;
    world.mine_all(8);
    rest(&world, &mut memory, "settled").await;
    let (first, second) = (world.row(first).await, world.row(second).await);
    assert_eq!((first.order.exception, first.transfers.len()), (Some(Exception::Reverted), 1));
    assert_eq!((second.order.status, second.transfers.len()), (Status::Paid, 1));
}

/// A customer's deposit that was told and is another one on the new branch, or somebody else's, is taken
/// back by an event before the other is told: a shop that adds up has what is on the chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_that_is_another_on_the_new_branch_is_taken_back_first() {
    let mut world = calm(Nature::default()).await;
    world.mine_all(8);
    let merchant = world.running.as_ref().unwrap().merchant.clone();
    let mut addresses = Vec::new();
    for user in ["one", "two"] {
        orders::deposit::give(&world.gateway(), &merchant, user, &tron(), |_| None).await.map(drop).unwrap();
        let row = world.gateway().store.deposit_orders(merchant.id, user, Some(&tron())).await.unwrap().remove(0);
        addresses.push((row.id, row.order.leases[0].address));
    }
    let [(one, to_one), (two, to_two)] = [addresses[0], addresses[1]];
    let told = async |world: &World, id, expected: &[&str]| {
        eventually_within(REST_MAX, &format!("{expected:?}"), async || {
            let found = kinds(world, id).await;
            if found == expected { Ok(()) } else { Err(format!("{found:?}; failing: {:?}", world.failing())) }
        })
        .await;
    };
    let transfer = |world: &World, to, amount| vec![LogEntry::Transfer { from: PAYER, to, value: world.units(&tron(), whole(amount)) }];
    let paid = world.chain(&tron()).transaction(transfer(&world, to_one, 100));
    for _ in 0..8 {
        world.mine(&tron());
    }
    told(&world, one, &["deposit.settled"]).await;

    let replace = |world: &mut World, logs| {
        let (tip, before) = (world.chain(&tron()).tip(), world.chain(&tron()).find(&paid).unwrap());
        let mut branch: Vec<BranchBlock> = (0..12).map(|_| BranchBlock::at(tip.time)).collect();
        branch[1] = branch[1].clone().again_with(paid, logs);
        world.fork_to(&tron(), tip.number - before.number + 1, branch, Dropped::ReturnToPool);
    };
    let fifty = transfer(&world, to_one, 50);
    replace(&mut world, fifty);
    told(&world, one, &["deposit.settled", "order.payment_reverted", "deposit.settled"]).await;
    assert_eq!(world.row(one).await.transfers[0].payment.value, world.units(&tron(), whole(50)));

    let elsewhere = transfer(&world, to_two, 50);
    replace(&mut world, elsewhere);
    told(&world, two, &["deposit.settled"]).await;
    told(&world, one, &["deposit.settled", "order.payment_reverted", "deposit.settled", "order.payment_reverted"]).await;
    assert_eq!((world.row(one).await.transfers.len(), world.row(two).await.transfers.len()), (0, 1));
}

/// An endpoint says of new blocks that they are younger than they are. Far ahead of our clock they are set
/// aside, because another shows them otherwise; a little ahead they are taken, and taken back as soon
/// as the truth does not fit on top of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_a_lie_stops_no_network() {
    let mut world = calm(Nature::default()).await;
    let mut memory = Memory::default();
    world.mine_all(4);
    rest(&world, &mut memory, "ready").await;
    let order = open(&mut world, 10, &tron()).await;
    pay(&world, order, &tron(), 10).await;
    let tip = async |world: &World| world.gateway().store.network(&tron()).await.unwrap().unwrap().recent.last().copied().unwrap();
    let before = tip(&world).await;
    let hurried = |secs| Faults { hurried: Span::from_secs(secs), ..Faults::none(1) };

    world.chain(&tron()).inject(hurried(3_600));
    world.mine(&tron());
    let asked = world.chain(&tron()).calls().blocks;
    eventually_within(REST_MAX, "it is read again and again", async || {
        let now = world.chain(&tron()).calls().blocks;
        if now > asked + 5 { Ok(()) } else { Err(format!("{now} readings")) }
    })
    .await;
    assert_eq!(tip(&world).await, before, "what is denied is not applied");

    world.chain(&tron()).inject(hurried(9));
    eventually_within(REST_MAX, "the lie is taken", async || {
        let now = tip(&world).await;
        if now.number > before.number && now.time > world.chain(&tron()).tip().time { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    world.heal();
    world.mine_all(8);
    rest(&world, &mut memory, "the truth").await;
    assert_eq!(world.row(order).await.order.status, Status::Paid);
}

/// An endpoint that lacks a block of the new branch for a moment takes no payment back.
#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_not_all_there_yet_reverts_nothing() {
    let mut world = calm(Nature::default()).await;
    let mut memory = Memory::default();
    world.mine_all(4);
    let order = open(&mut world, 10, &tron()).await;
    let paid = pay(&world, order, &tron(), 10).await;
    for _ in 0..6 {
        world.mine(&tron());
    }
    world.mine_all(1);
    rest(&world, &mut memory, "paid").await;
    assert_eq!(world.row(order).await.order.status, Status::Paid);

    // The payment is in the branch too, in a block that cannot be had for a while. The search for
    // the fork does not happen to ask for it.
    let tip = world.chain(&tron()).tip();
    let mut branch: Vec<BranchBlock> = (0..9).map(|_| BranchBlock::at(tip.time)).collect();
    branch[5] = branch[5].clone().again(paid);
    world.chain(&tron()).hide_blocks(tip.number - 2..=tip.number - 2);
    world.fork_to(&tron(), 8, branch, Dropped::Vanish);
    tokio::time::sleep(Duration::from_millis(400)).await;
    world.heal();
    rest(&world, &mut memory, "after the fork").await;
    assert_eq!(kinds(&world, order).await, ["order.pending", "order.confirming", "order.paid"]);
    assert_eq!(world.row(order).await.order.exception, None);
}

/// Money that had settled and comes again long after the order's time is still the order's, as late
/// money: booked back, and booked again.
#[tokio::test(flavor = "multi_thread")]
async fn money_that_comes_again_after_its_time_is_late_money_of_its_order() {
    let mut world = calm(Nature::default()).await;
    let mut memory = Memory::default();
    world.mine_all(4);
    let wish = world.wish(whole(10), Some(tron()), Span::from_secs(90));
    let order: OrderId = world.open(&wish).await.unwrap().id.parse().unwrap();
    let paid = pay(&world, order, &tron(), 10).await;
    for _ in 0..6 {
        world.mine(&tron());
    }
    world.mine_all(1);
    rest(&world, &mut memory, "paid").await;
    assert_eq!(world.row(order).await.order.status, Status::Paid);
    let late = world.row(order).await.order.terms.late_until().plus(Span::from_secs(1));
    world.clock = late;
    let branch = (0..9).map(|n| if n == 8 { BranchBlock::at(late).again(paid) } else { BranchBlock::at(late) }).collect();
    world.fork_to(&tron(), 8, branch, Dropped::Vanish);
    rest(&world, &mut memory, "taken back").await;
    assert_eq!(world.row(order).await.order.exception, Some(Exception::Reverted));
    world.mine_all(10);
    rest(&world, &mut memory, "settled again").await;
    let row = world.row(order).await;
    assert_eq!((row.order.status, row.order.exception), (Status::Paid, Some(Exception::Reverted)));
    assert_eq!(row.transfers.len(), 1, "it is still this order's");
}

/// A pool that may grow by less than a batch grows by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_grows_to_its_limit_and_not_beyond() {
    let mut world = calm(Nature { batch_size: 4, max_wallets: 10, ..Nature::default() }).await;
    for _ in 0..10 {
        open(&mut world, 3, &tron()).await;
    }
    let wish = world.wish(whole(3), Some(tron()), Span::from_secs(600));
    assert_eq!(world.open(&wish).await.unwrap_err().code, "pool_exhausted");
    assert_eq!(world.own(&tron()).await.len(), 10);
}

/// Two instances read ahead in the same queue of free wallets: neither refuses an order because
/// the other was first.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_an_old_queue_still_opens_orders() {
    let mut world = calm(Nature { batch_size: 100, ..Nature::default() }).await;
    let first = world.running.take().unwrap();
    let second = world.another().await;
    world.running = Some(second);
    world.is_open().await;
    // The second reads ahead, then the first takes what the second has read.
    open(&mut world, 3, &tron()).await;
    let wish = world.wish(whole(3), Some(tron()), Span::from_secs(600));
    for _ in 0..40 {
        let opened = orders::open(&first.gateway, &first.merchant, &wish, |_| None).await;
        assert!(opened.is_ok(), "{:?}", opened.err());
    }
    for _ in 0..3 {
        open(&mut world, 3, &tron()).await;
    }
    first.kill().await;
    world.mine_all(1);
    rest(&world, &mut Memory::default(), "two instances").await;
}
