//! The actors of a simulated world: two chains under the test's hand, a gateway as the program
//! runs it, a shop that opens orders, and payers who pay in every way that happens. Knows nothing
//! of what should follow; that is `check`'s business.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tidegate::clock;
use tidegate::config::{Config, KeyText, Kind, NetworkConfig, Overrides, Reconcile, SecretText, Sources, StartBlock, Tier};
use tidegate::credentials::{self, MerchantWish};
use tidegate::gateway::{Gateway, Mode};
use tidegate::orders::{self, Cancelling, Opened, OrderView, Wish};
use tidegate::people::Doer;
use tidegate::problem::Problem;
use tidegate::start;
use tidegate::store::{MerchantRow, Migrate, OrderRow, Side};
use tidegate_chain::Chain;
use tidegate_chain::sandbox::{BranchBlock, Dropped, Faults, LogEntry, Met, SandboxChain, SandboxConfig};
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, Hash, Network, TransferKey};
use tidegate_rules::changes::{Changes, Details};
use tidegate_rules::id::OrderId;
use tidegate_rules::order::{Cancel, Depth, Mark, Purpose, Status};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::WalletKind;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::meddler::{Meddled, Meddler};

/// Blocks that are there before the gateway looks for the first time.
const BLOCKS_BEFORE: u64 = 25;

/// A payer who has no wallet here.
pub const PAYER: Address = Address(*b"a payer of the world");

/// SplitMix64: small, and the same everywhere.
pub struct Random(Cell<u64>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let z = self.0.get();
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 for a bound of 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        all.get(usize::try_from(self.below(u64::try_from(all.len()).unwrap())).unwrap())
    }
}

/// Whose time the gateway's clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The machine's.
    Machine,
    /// That of the chains, and wrong by minutes now and then. One world in a process can have that.
    Chains,
}

/// How wrong the gateway's clock gets, in either direction.
const SKEW_MAX: Span = Span::from_secs(600);

/// The longest time in which the shop is shut and no block comes.
const NIGHT_MAX: Span = Span::from_secs(15 * 86_400);

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Nature {
    pub clock: Clock,
    pub accept_late: bool,
    /// How far the chains' time is behind ours when the world begins.
    pub behind_s: u64,
    pub max_wallets: u64,
    pub batch_size: u64,
}

impl Nature {
    /// What the world of a seed is like, so that the seed says all.
    pub fn of(seed: u64) -> Self {
        let random = Random::new(seed ^ 0x006e_6174_7572_6521);
        Self {
            clock: Clock::Chains,
            accept_late: random.chance(50),
            behind_s: if random.chance(30) { random.below(150) } else { 0 },
            max_wallets: 10_000,
            batch_size: 1 + random.below(6),
        }
    }
}

impl Default for Nature {
    fn default() -> Self {
        Self { clock: Clock::Machine, accept_late: false, behind_s: 0, max_wallets: 10_000, batch_size: 4 }
    }
}

/// A gateway that runs.
pub struct Running {
    pub gateway: Arc<Gateway>,
    pub merchant: MerchantRow,
    loops: JoinHandle<()>,
    /// Its loops end when this goes.
    _stop: watch::Sender<bool>,
}

impl Running {
    /// Ends it wherever it is, without a word to anybody.
    pub async fn kill(self) {
        self.loops.abort();
        let _ = self.loops.await;
    }
}

pub struct World {
    pub random: Random,
    pub chains: BTreeMap<Network, SandboxChain>,
    pub config: Config,
    pub meddler: Meddler,
    pub running: Option<Running>,
    /// A second instance on the same database, now and then.
    pub beside: Option<Running>,
    /// The chains' time.
    pub clock: Time,
    /// Where the gateway began on each network: what is at or below was before it.
    pub first: BTreeMap<Network, u64>,
    /// The highest block that was ever settled at a depth, and the latest time of one: nothing
    /// settles beyond the one, nothing expires beyond the other.
    pub settled: BTreeMap<(Network, Depth), (u64, Time)>,
    /// Every block that a transfer was ever in.
    pub ever: BTreeMap<(Network, TransferKey), Vec<Mark>>,
    pub opened: Vec<OrderId>,
    pub forks: u64,
    pub kills: u64,
    /// Commits at which the process ended: what was in them, on which side, and how often.
    pub crashes: BTreeMap<String, u64>,
    /// Orders whose opening nobody heard of.
    pub unheard: u64,
    pub payments: u64,
    pub skews: u64,
    /// The merchant's webhook secret.
    pub secret: Option<String>,
    /// The latest time that the gateway's clock ever showed.
    pub latest_ours: Time,
    genesis: Time,
    clock_of: Clock,
    skew_ms: i64,
    side: Cell<Side>,
    /// Payments that are made once the chains' time has come.
    appointments: Vec<(Time, Network, Vec<LogEntry>)>,
    hook: Option<String>,
    _folder: tempfile::TempDir,
}

/// What this process's clock is ahead, as it was set.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// What a commit is about, in the names of its parts.
fn contents(changes: &Changes) -> String {
    let parts = [
        (changes.cursor.is_some(), "cursor"),
        (!changes.new_wallets.is_empty(), "new wallets"),
        (!changes.wallets.is_empty(), "wallets"),
        (!changes.new_orders.is_empty(), "new orders"),
        (!changes.orders.is_empty(), "orders"),
        (!changes.new_leases.is_empty(), "new leases"),
        (!changes.ended_leases.is_empty(), "ended leases"),
        (!changes.transfers.is_empty(), "transfers"),
        (!changes.journal.is_empty(), "journal"),
        (!changes.events.is_empty(), "events"),
        (!changes.alerts.is_empty(), "alerts"),
        (!changes.deliveries.is_empty(), "deliveries"),
        (!changes.audit.is_empty(), "audit"),
    ];
    parts.iter().filter(|(is_there, _)| *is_there).map(|(_, name)| *name).collect::<Vec<_>>().join("+")
}

pub fn tron() -> Network {
    Network::new("tron")
}

pub fn ethereum() -> Network {
    Network::new("ethereum")
}

fn network_config(name: &str, kind: Kind, decimals: u8, depth: Depth, tier: Tier) -> NetworkConfig {
    NetworkConfig {
        name: Network::new(name),
        display_name: name.to_owned(),
        kind,
        wallets: WalletKind::Random,
        chain_id: if kind == Kind::Evm {
            SandboxConfig::evm(Time::default(), 0).chain_id
        } else {
            SandboxConfig::tron(Time::default(), 0).chain_id
        },
        rpc: Vec::new(),
        token: String::new(),
        decimals,
        symbol: None,
        confirmations: depth,
        tiers: vec![tier],
        start_block: StartBlock::Latest,
        poll_interval: Span::from_millis(4),
        // Only these blocks are mined when a test wants one.
        max_lag: Span::from_secs(365 * 86_400),
        final_lag_max: Span::from_secs(30 * 86_400),
        min_amount: None,
        max_amount: None,
        agree_above: None,
        reconcile: Reconcile::Settled,
        webhook_secret: None,
        alchemy_signing_key: None,
        range_max: 100,
        requests_per_second: None,
        requests_per_day: None,
    }
}

fn configuration(folder: &Path, nature: Nature) -> Config {
    let flags = Overrides {
        listen: Some("127.0.0.1:1".into()),
        database_url: Some(format!("sqlite://{}", folder.join("books.db").display())),
        ..Overrides::default()
    };
    let mut config = Config::load(Sources { flags, env: &|_| None, file: None }).unwrap();
    config.master_key =
        Some(KeyText { text: SecretText::new("8f2b1c0de5a97364f10c8e7b62d59a43170be4cd88f3625a9b0e17d4c36f5a21"), part2: None });
    let amount = |whole: u64| Amount::from_micros(whole * 1_000_000);
    config.networks = vec![
        network_config("ethereum", Kind::Evm, 18, Depth::Blocks(3), Tier { above: amount(500), depth: Depth::Final }),
        network_config("tron", Kind::Tron, 6, Depth::Blocks(4), Tier { above: amount(500), depth: Depth::Blocks(7) }),
    ];
    config.database.pool_timeout = Span::from_secs(60);
    config.orders.min_expires_in = Span::from_secs(1);
    config.orders.min_amount = Amount::from_micros(1);
    config.orders.underpayment_tolerance = Amount::from_micros(5);
    config.orders.late_window = Span::from_secs(40);
    config.orders.accept_late = nature.accept_late;
    config.pool.batch_size = nature.batch_size;
    config.pool.low_watermark = 2;
    config.pool.max_wallets = nature.max_wallets;
    config.pool.cooldown = Span::from_secs(20);
    config.webhooks.allow_private_targets = true;
    config
}

impl World {
    /// A world whose webhooks go to `hook`, if anywhere. The gateway has not started yet.
    pub fn new(seed: u64, nature: Nature, hook: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = configuration(folder.path(), nature);
        let genesis = clock::now().minus(Span::from_secs(nature.behind_s + BLOCKS_BEFORE * 3));
        let chain = |config: SandboxConfig| SandboxChain::new(config);
        let chains: BTreeMap<Network, SandboxChain> = [
            (ethereum(), chain(SandboxConfig { decimals: 18, final_depth: 8, final_step: 4, ..SandboxConfig::evm(genesis, seed) })),
            (tron(), chain(SandboxConfig::tron(genesis, seed))),
        ]
        .into();
        let mut world = Self {
            random: Random::new(seed),
            clock: genesis,
            chains,
            config,
            meddler: Meddler::default(),
            running: None,
            beside: None,
            first: BTreeMap::new(),
            settled: BTreeMap::new(),
            ever: BTreeMap::new(),
            opened: Vec::new(),
            forks: 0,
            kills: 0,
            crashes: BTreeMap::new(),
            unheard: 0,
            payments: 0,
            skews: 0,
            secret: None,
            latest_ours: clock::now(),
            genesis,
            clock_of: nature.clock,
            skew_ms: 0,
            side: Cell::new(Side::Before),
            appointments: Vec::new(),
            hook,
            _folder: folder,
        };
        for _ in 0..BLOCKS_BEFORE {
            world.clock = world.clock.plus(Span::from_secs(3));
            for chain in world.chains.values() {
                chain.mine(world.clock).unwrap();
            }
        }
        world.first = world.chains.iter().map(|(name, chain)| (name.clone(), chain.tip().number)).collect();
        world.note_settled();
        world
    }

    pub fn chain(&self, network: &Network) -> &SandboxChain {
        &self.chains[network]
    }

    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.running.as_ref().expect("the gateway runs").gateway)
    }

    fn network(&self, network: &Network) -> &NetworkConfig {
        self.config.networks.iter().find(|found| found.name == *network).unwrap()
    }

    /// What the followers say of themselves.
    pub fn failing(&self) -> Vec<String> {
        self.gateway().networks().values().filter_map(|part| part.state().failing).collect()
    }

    fn meddled(&self, chain: &SandboxChain) -> Meddled {
        Meddled { chain: chain.clone(), meddler: self.meddler.clone() }
    }

    /// Another gateway on the same database, as the program makes it.
    pub async fn another(&mut self) -> Running {
        let store = start::open_store(&self.config, Migrate::Yes).await.unwrap();
        let vault = start::unlock(&self.config, &store).await.unwrap();
        let wish = MerchantWish { name: "shop".to_owned(), webhook_url: self.hook.clone() };
        if let Some((_, secret)) = credentials::add_merchant(&store, &vault, wish, &Doer::program(), |_| None).await.unwrap() {
            self.secret = Some(secret.expose().to_owned());
        }
        let merchant = store.merchants().await.unwrap().remove(0);
        let chains: BTreeMap<Network, Arc<dyn Chain>> =
            self.chains.iter().map(|(name, chain)| (name.clone(), Arc::new(self.meddled(chain)) as Arc<dyn Chain>)).collect();
        let gateway = Gateway::new(self.config.clone(), store, vault, Mode::Test, &chains);
        let (stop, stopped) = watch::channel(false);
        let loops = tokio::spawn(Arc::clone(&gateway).run(stopped));
        Running { gateway, merchant, loops, _stop: stop }
    }

    pub async fn start(&mut self) {
        self.running = Some(self.another().await);
    }

    /// The process will end at one of the next commits, or in the moment after it.
    pub fn light_the_fuse(&self) {
        let side = if self.random.chance(50) { Side::Before } else { Side::After };
        let commits = u32::try_from(self.random.below(16)).unwrap();
        self.gateway().store.fuse().light(commits, side);
        self.side.set(side);
    }

    /// Starts the gateway again where it ended at a commit.
    pub async fn after_a_crash(&mut self) {
        let Some(running) = &self.running else {
            // It ended at a commit just when it was killed.
            return self.start().await;
        };
        let Some(at) = running.gateway.store.fuse().blown() else { return };
        *self.crashes.entry(format!("{:?} {}", self.side.get(), contents(&at))).or_default() += 1;
        if self.side.get() == Side::After {
            self.unheard += u64::try_from(at.new_orders.len()).unwrap();
        }
        self.kill().await;
        self.kills -= 1;
        self.start().await;
    }

    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            self.kills += 1;
            running.kill().await;
        }
    }

    /// Waits until every follower knows where it is, so that addresses are lent.
    pub async fn is_open(&self) {
        let gateway = self.gateway();
        crate::wait::eventually("the networks are followed", async || {
            let shut = gateway.networks().values().find(|part| part.open_head(clock::now()).is_err());
            shut.map_or(Ok(()), |part| Err(format!("{}: {:?}", part.config.name, part.state())))
        })
        .await;
    }

    /// Sets the gateway's clock by the chains', and wrong by what it is wrong.
    fn set_clock(&mut self) {
        if self.clock_of == Clock::Chains {
            let machine = clock::now().millis() - AHEAD_MS.load(Ordering::Relaxed);
            let ahead = self.clock.millis() + self.skew_ms - machine;
            AHEAD_MS.store(ahead, Ordering::Relaxed);
            clock::set_ahead_ms(ahead);
        }
        self.latest_ours = self.latest_ours.max(clock::now());
    }

    /// The gateway's clock goes wrong, forwards or back, or is set right.
    pub fn skew(&mut self) {
        let most = SKEW_MAX.millis();
        self.skew_ms =
            if self.random.chance(30) { 0 } else { i64::try_from(self.random.below(2 * most)).unwrap() - i64::try_from(most).unwrap() };
        self.skews += 1;
        self.set_clock();
    }

    /// The gateway's clock is right from now on.
    pub fn set_clock_right(&mut self) {
        self.skew_ms = 0;
        self.set_clock();
    }

    /// Hours or days in which nothing happens anywhere.
    pub fn night(&mut self) {
        self.clock = self.clock.plus(Span::from_millis(self.random.below(NIGHT_MAX.millis())));
        self.set_clock();
    }

    /// How long the world has lived, by its chains.
    pub fn age(&self) -> Span {
        self.clock.since(self.genesis)
    }

    /// One block on a network, some time after the last one of the world.
    pub fn mine(&mut self, network: &Network) {
        // Blocks of TRON come every three seconds, those of Ethereum every twelve.
        let most = if *network == ethereum() && self.clock_of == Clock::Chains { 12_000 } else { 7_000 };
        self.clock = self.clock.plus(Span::from_millis(self.random.below(most)));
        self.set_clock();
        let (due, later) = std::mem::take(&mut self.appointments).into_iter().partition(|(at, ..)| *at < self.clock);
        self.appointments = later;
        for (_, network, logs) in due {
            self.chain(&network).transaction(logs);
        }
        let mined = self.chain(network).mine(self.clock).unwrap();
        self.note_transfers(network, mined.number);
        self.note_settled();
    }

    pub fn mine_all(&mut self, count: u64) {
        for _ in 0..count {
            for network in [tron(), ethereum()] {
                self.mine(&network);
            }
        }
    }

    /// The height that the chain calls final, as the sandbox documents it.
    pub fn final_number(&self, network: &Network) -> u64 {
        let chain = self.chain(network);
        let (tip, config) = (chain.tip().number, chain.config());
        let deep = tip.saturating_sub(config.final_depth);
        deep - deep % config.final_step
    }

    /// The height that has settled at a depth for certain: while the final head may be too far behind
    /// for the follower's liking, it waits until blocks are final, whatever the depth.
    pub fn settled_number(&self, network: &Network, depth: Depth) -> u64 {
        let (chain, last_final) = (self.chain(network), self.final_number(network));
        let lag = chain.tip().time.since(chain.block(last_final).unwrap().at.time).millis();
        // Once it is up, the floor falls at three quarters of what raises it.
        let floor_may_be_up = lag.saturating_mul(4) > self.network(network).final_lag_max.millis().saturating_mul(3);
        match depth {
            Depth::Blocks(blocks) if floor_may_be_up => last_final.min(chain.tip().number + 1 - u64::from(blocks)),
            Depth::Blocks(blocks) => chain.tip().number + 1 - u64::from(blocks),
            Depth::Final => last_final,
        }
    }

    /// The time of [`World::settled_number`].
    pub fn settled_time(&self, network: &Network, depth: Depth) -> Time {
        self.chain(network).block(self.settled_number(network, depth)).unwrap().at.time
    }

    fn note_transfers(&mut self, network: &Network, from: u64) {
        let chain = self.chain(network).clone();
        for block in (from..=chain.tip().number).filter_map(|number| chain.block(number)) {
            let mark = Mark { number: block.at.number, time: block.at.time };
            let keys = block.transfers.iter().map(|transfer| transfer.key).chain(block.unreadable.iter().map(|log| log.key));
            for key in keys {
                self.ever.entry((network.clone(), key)).or_default().push(mark);
            }
        }
    }

    fn note_settled(&mut self) {
        let mut found = Vec::new();
        for (name, chain) in &self.chains {
            let tip = chain.tip().number;
            for depth in [Depth::Blocks(3), Depth::Blocks(4), Depth::Blocks(7), Depth::Final] {
                let number = match depth {
                    Depth::Blocks(blocks) => tip.saturating_add(1).saturating_sub(u64::from(blocks)),
                    Depth::Final => self.final_number(name),
                };
                found.push(((name.clone(), depth), (number, chain.block(number).unwrap().at.time)));
            }
        }
        for (key, (number, time)) in found {
            let most = self.settled.entry(key).or_insert((number, time));
            *most = (most.0.max(number), most.1.max(time));
        }
    }

    /// Replaces the newest blocks of a network, never below what is final: some of the transactions
    /// come again, some elsewhere, some never.
    pub fn fork(&mut self, network: &Network, own: &[Address]) {
        let chain = self.chain(network).clone();
        let tip = chain.tip().number;
        let most = self.settled[&(network.clone(), Depth::Final)].0;
        let room = tip.saturating_sub(most.max(self.first[network])).min(10);
        if room == 0 {
            return;
        }
        let depth = 1 + self.random.below(room);
        let base = chain.block(tip - depth).unwrap().at.time;
        let mut dropped: Vec<Hash> = (tip - depth + 1..=tip)
            .filter_map(|number| chain.block(number))
            .flat_map(|block| {
                let transfers = block.transfers.into_iter().map(|transfer| transfer.key.tx_hash);
                transfers.chain(block.unreadable.into_iter().map(|log| log.key.tx_hash)).collect::<BTreeSet<_>>()
            })
            .collect();
        let span = self.clock.since(base).millis();
        let length = self.random.below(depth + 3);
        let mut times: Vec<u64> = (0..length).map(|_| self.random.below(span + 1)).collect();
        times.sort_unstable();
        let mut branch: Vec<BranchBlock> = times.into_iter().map(|after| BranchBlock::at(base.plus(Span::from_millis(after)))).collect();
        // Mostly all of them are in the new branch; now and then hardly any.
        let again = if self.random.chance(70) { 90 } else { 20 };
        dropped.retain(|_| self.random.chance(again));
        if length > 0 {
            for hash in dropped {
                let index = usize::try_from(self.random.below(length)).unwrap();
                branch[index] = branch[index].clone().again(hash);
            }
            if let Some(to) = self.random.pick(own).filter(|_| self.random.chance(30)) {
                let value = self.units(network, Amount::from_micros(1 + self.random.below(50_000_000)));
                let index = usize::try_from(self.random.below(length)).unwrap();
                branch[index] = branch[index].clone().with(vec![LogEntry::Transfer { from: PAYER, to: *to, value }]);
            }
        }
        let fate = if self.random.chance(70) { Dropped::ReturnToPool } else { Dropped::Vanish };
        self.fork_to(network, depth, branch, fate);
        // A chain that merely lost its newest blocks looks like an endpoint that lags.
        if length == 0 || self.random.chance(80) {
            self.mine(network);
        }
    }

    /// Replaces the newest blocks by this branch.
    pub fn fork_to(&mut self, network: &Network, depth: u64, branch: Vec<BranchBlock>, fate: Dropped) {
        let base = self.chain(network).tip().number - depth;
        self.chain(network).fork(depth, branch, fate).unwrap();
        self.forks += 1;
        self.note_transfers(network, base + 1);
        self.note_settled();
    }

    /// The endpoints are unwell until they are healed.
    pub fn trouble(&self, network: &Network) {
        let (chain, seed) = (self.chain(network), self.random.next());
        let tip = chain.tip().number;
        match self.random.below(10) {
            0..=1 => chain.inject(Faults::mild(seed)),
            2 | 8 | 9 => chain.inject(Faults::lying(seed)),
            3 => chain.inject(Faults::harsh(seed)),
            4 => chain.lag(1 + self.random.below(5)),
            5 => chain.hide_blocks(tip.saturating_sub(self.random.below(3))..=tip + 1),
            6 => chain.limit_per_call(Some(1)),
            _ => chain.stall_final(),
        }
    }

    /// Every fault that was met, on either chain.
    pub fn faults(&self) -> Met {
        let mut all = Met::new();
        for (fault, count) in self.chains.values().flat_map(|chain| chain.met()) {
            *all.entry(fault).or_default() += count;
        }
        all
    }

    pub fn heal(&self) {
        self.chains.values().for_each(SandboxChain::heal);
    }

    pub fn units(&self, network: &Network, amount: Amount) -> Raw {
        amount.to_raw(self.network(network).decimals).unwrap()
    }

    pub fn wish(&self, amount: Amount, network: Option<Network>, expires_in: Span) -> Wish {
        Wish {
            purpose: Purpose::Payment,
            amount,
            network,
            expires_in: Some(expires_in),
            details: Details { metadata: "{}".into(), ..Details::default() },
        }
    }

    /// Opens an order as the shop's request does.
    pub async fn open(&mut self, wish: &Wish) -> Result<OrderView, Problem> {
        let running = self.running.as_ref().expect("the gateway runs");
        match orders::open(&running.gateway, &running.merchant, wish, |_| None).await? {
            Opened::New(view) => {
                self.opened.push(view.id.parse().unwrap());
                Ok(view)
            }
            Opened::Known(view) => panic!("nobody asked for {} before", view.id),
        }
    }

    /// An order of a random kind; refused only for a network that is not there yet.
    pub async fn open_any(&mut self) {
        let whole = 1 + self.random.below(if self.random.chance(20) { 1_500 } else { 60 });
        let amount = Amount::from_micros(whole * 1_000_000 + self.random.below(1_000_000));
        let network = [Some(tron()), Some(ethereum()), None];
        let network = network[usize::try_from(self.random.below(10)).unwrap() % 3].clone();
        let wish = self.wish(amount, network, Span::from_secs(10 + self.random.below(140)));
        match self.open(&wish).await {
            Ok(_) => {}
            Err(problem) if problem.code == "network_unavailable" => {}
            Err(problem) => panic!("an order was refused: {problem:?}"),
        }
    }

    pub async fn row(&self, id: OrderId) -> OrderRow {
        self.gateway().store.order(id).await.unwrap().expect("an order that was opened is there")
    }

    /// One of the orders opened lately.
    pub async fn recent(&self) -> Option<OrderRow> {
        let from = self.opened.len().saturating_sub(10);
        let id = *self.random.pick(&self.opened[from..])?;
        Some(self.row(id).await)
    }

    /// The payer of some order chooses another network, at the same time as whatever comes next.
    pub async fn choose_any(&self) -> Option<JoinHandle<()>> {
        let row = self.recent().await?;
        let network = if self.random.chance(50) { tron() } else { ethereum() };
        let gateway = self.gateway();
        Some(tokio::spawn(async move {
            match orders::choose(&gateway, None, &row.id.to_string(), &network, |_| None).await {
                Ok(_) => {}
                Err(problem) => assert!(matches!(problem.code, "order_not_pending" | "network_unavailable"), "{problem:?}"),
            }
        }))
    }

    /// The shop cancels some order, at the same time as whatever comes next.
    pub async fn cancel_any(&self) -> Option<JoinHandle<()>> {
        let row = self.recent().await?;
        let how = if self.random.chance(50) { Cancel::Force } else { Cancel::IfUntouched };
        let gateway = self.gateway();
        Some(tokio::spawn(async move {
            let asked = Cancelling { merchant: None, reason: Some("a whim"), how, doer: None };
            match orders::cancel(&gateway, &row.id.to_string(), asked, |_| None).await {
                Ok(_) => assert!(!matches!(row.order.status, Status::Paid | Status::Expired)),
                Err(problem) => {
                    assert!(matches!(problem.code, "payment_in_progress" | "order_paid" | "order_expired"), "{problem:?}");
                }
            }
        }))
    }

    /// Somebody pays an order, in one of the ways that people and contracts have.
    pub async fn pay_any(&mut self) {
        let Some(row) = self.recent().await else { return };
        let Some(lease) = self.random.pick(&row.order.leases).cloned() else { return };
        self.payments += 1;
        let network = lease.network.clone();
        let chain = self.chain(&network).clone();
        let own = self.own(&network).await;
        let (amount, to) = (row.order.terms.amount, lease.address);
        let transfer = |value: Raw| LogEntry::Transfer { from: PAYER, to, value };
        let exact = self.units(&network, amount);
        let part = Amount::from_micros(1 + self.random.below(amount.micros()));
        let (some, rest) = (self.units(&network, part), self.units(&network, amount.saturating_sub(part)));
        match self.random.below(20) {
            0..=6 => drop(chain.transaction(vec![transfer(exact)])),
            7 => drop(chain.transaction(vec![transfer(some)])),
            8 => {
                let more = self.units(&network, amount.checked_add(part).unwrap());
                chain.transaction(vec![transfer(more)]);
            }
            // Twice, by a payer who thought that it had failed.
            9 => {
                chain.transaction(vec![transfer(exact)]);
                chain.transaction(vec![transfer(exact)]);
            }
            // In two parts; on ETHEREUM with units that are less than a millionth.
            10 => {
                let odd = if network == ethereum() { some.saturating_sub(Raw::from_units(7)) } else { some };
                chain.transaction(vec![transfer(odd)]);
                chain.transaction(vec![transfer(rest.saturating_add(Raw::from_units(7)))]);
            }
            // A contract pays several at once, with logs that count for nothing between.
            11 | 12 => {
                let token = Address(*b"another token of sb.");
                let mut logs = vec![
                    LogEntry::Transfer { from: PAYER, to, value: Raw::ZERO },
                    transfer(some),
                    LogEntry::OtherToken { token, from: PAYER, to, value: exact },
                    LogEntry::malformed(PAYER, to, exact),
                    transfer(rest),
                ];
                if let Some(other) = self.random.pick(&own) {
                    logs.push(LogEntry::Transfer { from: PAYER, to: *other, value: some });
                }
                chain.transaction(logs);
            }
            13 => drop(chain.failed_transaction(vec![transfer(exact)])),
            14 => drop(chain.transaction(vec![LogEntry::malformed(PAYER, to, exact)])),
            // A forged token moves more than there is.
            15 => drop(chain.transaction(vec![transfer(Raw::from_be_bytes([0xff; 32]))])),
            // Between our own wallets.
            16 => {
                if let Some(from) = self.random.pick(&own) {
                    chain.transaction(vec![LogEntry::Transfer { from: *from, to, value: some }]);
                }
            }
            // After its time: in the late window, or when that is over too.
            _ => {
                let after = Span::from_secs(self.random.below(60));
                let value = if self.random.chance(70) { exact } else { some };
                self.appointments.push((row.order.terms.expires_at.plus(after), network, vec![transfer(value)]));
            }
        }
    }

    /// Money to any address of ours, leased or not.
    pub fn stray(&self, network: &Network, own: &[Address]) {
        if let Some(to) = self.random.pick(own) {
            let most = if self.random.chance(30) { 9_999 } else { 80_000_000 };
            let value = self.units(network, Amount::from_micros(1 + self.random.below(most)));
            self.chain(network).transaction(vec![LogEntry::Transfer { from: PAYER, to: *to, value }]);
        }
    }

    /// Every address of ours on a network.
    pub async fn own(&self, network: &Network) -> Vec<Address> {
        let mut own = self.gateway().store.addresses_since(network, 0).await.unwrap().1;
        own.sort_unstable();
        own
    }

    /// A moment for the followers to be somewhere in the middle of something.
    pub async fn moment(&self) {
        tokio::time::sleep(Duration::from_micros(self.random.below(9_000))).await;
    }
}
