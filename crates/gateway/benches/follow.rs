//! What following costs and how soon a payment is seen, in two whole gateways on SQLite beside each
//! other: one watches 10 addresses on each network, the other 1,000,000.
//!
//! **Calls** to a TRON and an EVM node over the same blocks; both gateways' nodes make their blocks
//! at the same moments, and nobody is paid in them. **Delay** from the moment a block is served to
//! the commit that holds its transfer, on networks that pay one of the few in every block, and
//! whose blocks come at different moments. Time runs [`SPEED`] times as fast as on TRON (3 s) and
//! Ethereum (12 s), and so do the intervals of the presets; what the gateway does on clocks of its
//! own (the second reader's rest of 15 s) does not.
//!
//!     cargo bench -p tidegate --bench follow

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

mod node;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use node::{EVM_CHAIN, EVM_TOKEN, Kind, Node, Pays, TRON_CHAIN, TRON_TOKEN};
use sha3::{Digest, Keccak256};
use tidegate::config::{Config, Overrides, Sources};
use tidegate::gateway::{Gateway, NetworkPart};
use tidegate::store::{Commit, Migrate, TransferFilter};
use tidegate::{clock, start};
use tidegate_rules::block::Address;
use tidegate_rules::changes::{Changes, NewWallet};
use tidegate_rules::id::WalletId;
use tidegate_rules::wallet::WalletKind;
use tidegate_vault::{MasterKey, OsEntropy};
use tokio::sync::{broadcast, watch};

/// Time runs so many times as fast.
const SPEED: u32 = 4;
const FEW: usize = 10;
const MANY: usize = 1_000_000;
/// Networks of each kind whose delay is measured.
const PHASES: u32 = 4;
/// Before anything is measured: the followers find the rhythm.
const WARM_UP: Duration = Duration::from_secs(24);
const MEASURED: Duration = Duration::from_secs(48);

impl Kind {
    /// The times between blocks and between looks, as the presets have them for TRON and Ethereum.
    fn times(self) -> (Duration, Duration) {
        let (block, poll) = match self {
            Self::Tron => (3, 3),
            Self::Evm => (12, 4),
        };
        (Duration::from_secs(block) / SPEED, Duration::from_secs(poll) / SPEED)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tron => "tron",
            Self::Evm => "evm",
        }
    }
}

/// A node, and the network of a gateway that asks it.
struct Network {
    name: String,
    kind: Kind,
    node: Arc<Node>,
    /// How much later its blocks come than those of others.
    phase: Duration,
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let dir = tempfile::tempdir().unwrap();
    let mut few = Vec::new();
    let mut many = Vec::new();
    for kind in [Kind::Tron, Kind::Evm] {
        few.push(Network::start(kind, kind.name().to_owned(), None, Duration::ZERO).await);
        many.push(Network::start(kind, kind.name().to_owned(), None, Duration::ZERO).await);
        for phase in 0..PHASES {
            let pays = Pays { to: address(0), every: 1 };
            few.push(Network::start(kind, format!("{}-{phase}", kind.name()), Some(pays), kind.times().0 * phase / PHASES).await);
        }
    }
    println!("storing {FEW} and {MANY} wallets for each network …");
    let filling = Instant::now();
    let gateways = [gateway(&dir.path().join("few.db"), &few, FEW).await, gateway(&dir.path().join("many.db"), &many, MANY).await];
    println!("  took {:.0} s", filling.elapsed().as_secs_f64());

    // Blocks begin on a whole second, as they do on Ethereum.
    let now_ms = u64::try_from(clock::now().millis()).unwrap();
    tokio::time::sleep(Duration::from_millis(1_000 - now_ms % 1_000)).await;
    let (begun, begun_ms) = (tokio::time::Instant::now(), (now_ms / 1_000 + 1) * 1_000);
    let mut mining = tokio::task::JoinSet::new();
    for network in few.iter().chain(&many) {
        let (node, period, phase) = (Arc::clone(&network.node), network.kind.times().0, network.phase);
        node.mine(begun_ms);
        mining.spawn(async move {
            for step in 1.. {
                tokio::time::sleep_until(begun + period * step + phase).await;
                node.mine(begun_ms + period.as_millis() as u64 * u64::from(step));
            }
        });
    }
    let (stop, stopping) = watch::channel(false);
    let seen: Vec<Seen> = gateways.iter().map(watch_commits).collect();
    let running: Vec<_> = gateways.iter().map(|gateway| tokio::spawn(Arc::clone(gateway).run(stopping.clone()))).collect();

    tokio::time::sleep_until(begun + WARM_UP + Kind::Tron.times().0 / 2).await;
    println!("{} s of blocks at {SPEED} times their speed, after {} s of warming up …", MEASURED.as_secs(), WARM_UP.as_secs());
    let all = || few.iter().chain(&many);
    let firsts: Vec<u64> = all().map(|network| network.node.head() + 1).collect();
    all().for_each(|network| drop(network.node.calls()));
    tokio::time::sleep_until(begun + WARM_UP + MEASURED + Kind::Tron.times().0 / 2).await;
    let lasts: Vec<u64> = all().map(|network| network.node.head()).collect();
    let calls: Vec<BTreeMap<String, u64>> = all().map(|network| network.node.calls()).collect();
    // The last of them are still on their way.
    tokio::time::sleep(Kind::Evm.times().0).await;
    mining.abort_all();
    let _ = stop.send(true);
    for ended in running {
        ended.await.unwrap();
    }

    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\ncalls a minute of the chain's time, over the same blocks (load {})", load.split(' ').next().unwrap_or_default());
    for (place, network) in many.iter().enumerate() {
        let beside = few.iter().position(|other| other.name == network.name).unwrap();
        tell_calls(network, lasts[beside] + 1 - firsts[beside], &calls[beside], &calls[few.len() + place]);
    }
    println!("\ndelay from a block's being served to the commit that holds it, in block times");
    for kind in [Kind::Tron, Kind::Evm] {
        let mut delays = Vec::new();
        for (place, network) in few.iter().enumerate().filter(|(_, network)| network.kind == kind && network.name != kind.name()) {
            let part = &gateways[0].networks()[&tidegate_rules::block::Network::new(&network.name)];
            holds_payments(&gateways[0], part, firsts[place], lasts[place]).await;
            delays.extend(delays_of(network, &seen[0], firsts[place], lasts[place]));
        }
        tell_delays(&format!("{}, {PHASES} networks, paid in each block", kind.name()), delays);
        let place = many.iter().position(|network| network.kind == kind).unwrap();
        let delays = delays_of(&many[place], &seen[1], firsts[few.len() + place], lasts[few.len() + place]);
        tell_delays(&format!("{}, {MANY} addresses", kind.name()), delays);
    }
    println!("  goals: a mean of at most 0.50, a p99 of at most 1.00");
}

impl Network {
    async fn start(kind: Kind, name: String, pays: Option<Pays>, phase: Duration) -> Self {
        Self { name, kind, node: Node::start(kind, pays).await, phase }
    }
}

fn tell_calls(network: &Network, blocks: u64, few: &BTreeMap<String, u64>, many: &BTreeMap<String, u64>) {
    let minutes = MEASURED.as_secs_f64() * f64::from(SPEED) / 60.0;
    let total = |calls: &BTreeMap<String, u64>| calls.values().sum::<u64>() as f64 / minutes;
    let names: std::collections::BTreeSet<&String> = few.keys().chain(many.keys()).collect();
    let parts: Vec<String> = names
        .iter()
        .map(|name| format!("{name} {}/{}", few.get(*name).copied().unwrap_or(0), many.get(*name).copied().unwrap_or(0)))
        .collect();
    println!(
        "  {:<5} {:>6.1} with {FEW} addresses, {:>6.1} with {MANY}: ratio {:.3} (goal: 1)   {blocks} blocks: {}",
        network.name,
        total(few),
        total(many),
        total(many) / total(few),
        parts.join(", ")
    );
}

/// When each block of a network was first seen to be stored.
type Seen = Arc<Mutex<BTreeMap<String, BTreeMap<u64, Instant>>>>;

/// The follower says so after each commit.
fn watch_commits(gateway: &Arc<Gateway>) -> Seen {
    let seen = Seen::default();
    let (gateway, told) = (Arc::clone(gateway), Arc::clone(&seen));
    let mut signals = gateway.listen();
    tokio::spawn(async move {
        while !matches!(signals.recv().await, Err(broadcast::error::RecvError::Closed)) {
            let now = Instant::now();
            let mut told = told.lock().unwrap();
            for (name, part) in gateway.networks() {
                let Some(head) = part.state().head else { continue };
                let blocks = told.entry(name.to_string()).or_default();
                let from = blocks.last_key_value().map_or(head.tip.number, |(number, _)| number + 1);
                blocks.extend((from..=head.tip.number).map(|number| (number, now)));
            }
        }
    });
    seen
}

/// In block times.
fn delays_of(network: &Network, seen: &Seen, first: u64, last: u64) -> Vec<f64> {
    let seen = seen.lock().unwrap();
    let period = network.kind.times().0.as_secs_f64();
    let delay = |number: u64| (seen[&network.name][&number] - network.node.served(number).unwrap()).as_secs_f64() / period;
    (first..=last).map(delay).collect()
}

fn tell_delays(name: &str, mut delays: Vec<f64>) {
    delays.sort_by(f64::total_cmp);
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    println!("  {name:<36} mean {mean:.2}   p50 {:.2}   p99 {:.2}   max {:.2}   ({} blocks)", at(0.5), at(0.99), at(1.0), delays.len());
}

/// A delay counts only if the payment is stored with its block.
async fn holds_payments(gateway: &Gateway, part: &NetworkPart, first: u64, last: u64) {
    let filter = TransferFilter { network: Some(part.config.name.clone()), ..TransferFilter::default() };
    let stored = gateway.store.transfers(filter, 10_000).await.unwrap();
    let paid = (first..=last).filter(|number| stored.iter().any(|row| row.payment.block.number == *number)).count() as u64;
    assert_eq!(paid, last + 1 - first, "{} stored each payment", part.config.name);
}

async fn gateway(path: &Path, networks: &[Network], wallets: usize) -> Arc<Gateway> {
    let mut file = String::new();
    for network in networks {
        let (chain, token) = match network.kind {
            Kind::Tron => (TRON_CHAIN, TRON_TOKEN),
            Kind::Evm => (EVM_CHAIN, EVM_TOKEN),
        };
        let (name, kind, url, poll) = (&network.name, network.kind.name(), &network.node.url, network.kind.times().1.as_millis());
        let text = format!(
            "[networks.{name}]\nkind = \"{kind}\"\nchain_id = {chain}\nrpc = [\"{url}\"]\ntoken = \"{token}\"\ndecimals = 6\nconfirmations = 12\npoll_interval = \"{poll}ms\"\n"
        );
        file.push_str(&if name == "tron" { text.replace("kind = \"tron\"\n", "") } else { text });
    }
    write!(file, "[pool]\nmax_wallets = 10000000\nlow_watermark = {FEW}\n").unwrap();
    let database = format!("sqlite://{}", path.display());
    let key = MasterKey::generate(&mut OsEntropy).to_hex();
    let env = |name: &str| match name {
        "DATABASE_URL" => Some(database.clone()),
        "WALLET_MASTER_KEY" => Some(key.to_string()),
        _ => None,
    };
    let config = Config::load(Sources { flags: Overrides::default(), env: &env, file: Some((Path::new("bench.toml"), &file)) }).unwrap();
    let gateway = start::gateway(config, Migrate::Yes).await.unwrap();
    for part in gateway.networks().values() {
        for first in (0..wallets).step_by(1_000) {
            let new_wallets = (first..wallets.min(first + 1_000)).map(|index| wallet(part, index)).collect();
            assert_eq!(gateway.store.commit(Changes { new_wallets, ..Changes::default() }).await.unwrap(), Commit::Done);
        }
    }
    gateway
}

fn wallet(part: &NetworkPart, index: usize) -> NewWallet {
    let now = clock::now();
    NewWallet {
        id: WalletId::new(now, clock::id_bytes()),
        name: format!("bench_wallet_{index:04}"),
        network: part.config.name.clone(),
        address: address(index),
        address_text: part.chain.format_address(&address(index)),
        kind: WalletKind::Random,
        sealed_key: Some("v1.00000000.".to_owned() + &"A".repeat(110)),
        source: None,
        tag: "0".repeat(64),
        queue_rank: 0,
        created_at: now,
    }
}

/// Spread like real ones.
fn address(index: usize) -> Address {
    let mut address = [0; 20];
    address.copy_from_slice(&Keccak256::digest(index.to_be_bytes())[..20]);
    Address(address)
}
