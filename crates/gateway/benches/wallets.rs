//! The pool: making wallets against the bare key limit, lending from a million against lending from
//! a thousand, a new master key for a hundred thousand, and what a start reads of a million.
//!
//! `cargo bench -p tidegate --bench wallets`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k256::ecdsa::SigningKey;
use sha3::{Digest as _, Keccak256};
use tidegate::clock;
use tidegate::config::{Config, Overrides, Sources};
use tidegate::gateway::Gateway;
use tidegate::people::Doer;
use tidegate::pool::Batch;
use tidegate::store::{Commit, Migrate, Store};
use tidegate::{rotate, safe, start};
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::{Changes, NewWallet, WalletChange, WalletMove};
use tidegate_rules::id::{OrderId, WalletId};
use tidegate_rules::wallet::{WalletKind, WalletStatus};
use tidegate_rules::watch::Watched;
use tidegate_vault::{MasterKey, OsEntropy};

const MADE: u32 = 100_000;
const LENT: usize = 900;
const ROUNDS: usize = 5;

const FILE: &str = r#"
[networks.bench]
kind = "evm"
chain_id = 1
rpc = ["http://127.0.0.1:9"]
token = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
decimals = 6
confirmations = 12
[pool]
max_wallets = 2000000
"#;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (MasterKey::generate(&mut OsEntropy).to_hex(), MasterKey::generate(&mut OsEntropy).to_hex());
    let gateway = gateway(dir.path(), &first, None).await;
    let part = gateway.networks().values().next().unwrap();

    println!("making {MADE} wallets in batches of 1000, and as many bare keys, in turns …");
    let (mut ours, mut bare) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..MADE / 1_000 {
        let started = Instant::now();
        let batch = Batch { count: 1_000, ..Batch::default() };
        gateway.pool.generate(&gateway, part, &batch, &Doer::program(), |_| None).await.unwrap();
        ours += started.elapsed();
        let started = Instant::now();
        for _ in 0..1_000 {
            let _ = std::hint::black_box(bare_key());
        }
        bare += started.elapsed();
    }
    let rate = |took: Duration| f64::from(MADE) / took.as_secs_f64();
    println!("  made, sealed, stored  {:>8.0} /s", rate(ours));
    println!("  bare keys             {:>8.0} /s and core", rate(bare));
    println!("  ratio                 {:>8.2}      (goal: at least 0.50)\n", rate(ours) / rate(bare));

    let started = Instant::now();
    let bad = safe::verify_all(&gateway, |_, _| {}).await.unwrap();
    println!("all {MADE} verified in {:.1} s, {} bad", started.elapsed().as_secs_f64(), bad.len());
    drop(gateway);

    let gateway = self::gateway(dir.path(), &second, Some(&first)).await;
    let started = Instant::now();
    let rotated = rotate::rotate(&gateway, &Doer::program(), |_| {}).await.unwrap();
    let took = started.elapsed().as_secs_f64();
    println!("a new master key for {MADE} wallets: {} texts in {took:.1} s, {:.0} wallets/s\n", rotated.texts, f64::from(MADE) / took);
    drop(gateway);

    println!("filling two pools, of 1,000 and of 1,000,000 wallets …");
    let (small, large) = (pool(&dir.path().join("small.db"), 1_000).await, pool(&dir.path().join("large.db"), 1_000_000).await);
    let mut rates = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rates.0.push(lend(&small).await);
        rates.1.push(lend(&large).await);
    }
    let (small, large_rate) = (median(&mut rates.0), median(&mut rates.1));
    println!("  lent from 1,000       {small:>8.0} /s");
    println!("  lent from 1,000,000   {large_rate:>8.0} /s");
    println!("  ratio                 {:>8.2}      (goal: at least 0.90)\n", large_rate / small);
    large.close().await;

    let started = Instant::now();
    let store = open(&dir.path().join("large.db")).await;
    let (_, addresses) = store.addresses_since(&Network::new("bench"), 0).await.unwrap();
    let mut watched = Watched::default();
    watched.extend(addresses);
    println!("a start reads {} addresses in {:.1} s", watched.len(), started.elapsed().as_secs_f64());
}

async fn gateway(dir: &Path, key: &str, previous: Option<&str>) -> Arc<Gateway> {
    let url = format!("sqlite://{}", dir.join("pool.db").display());
    let env = |name: &str| match name {
        "DATABASE_URL" => Some(url.clone()),
        "WALLET_MASTER_KEY" => Some(key.to_owned()),
        "WALLET_MASTER_KEY_PREVIOUS" => previous.map(str::to_owned),
        _ => None,
    };
    let config = Config::load(Sources { flags: Overrides::default(), env: &env, file: Some((Path::new("bench.toml"), FILE)) }).unwrap();
    start::gateway(config, Migrate::Yes).await.unwrap()
}

/// A key drawn, its public point, its address: what cannot be done with less.
fn bare_key() -> [u8; 32] {
    let key = loop {
        if let Ok(key) = SigningKey::from_slice(&clock::random::<32>()) {
            break key;
        }
    };
    let point = key.verifying_key().to_sec1_point(false);
    Keccak256::digest(&point.as_bytes()[1..]).into()
}

async fn open(path: &Path) -> Store {
    Store::open(&format!("sqlite://{}", path.display()), 4, Duration::from_secs(5), Migrate::Yes).await.unwrap()
}

async fn pool(path: &Path, count: usize) -> Store {
    let store = open(path).await;
    for batch in 0..count / 1_000 {
        let wallets = (0..1_000).map(|index| wallet(batch * 1_000 + index)).collect();
        assert_eq!(store.commit(Changes { new_wallets: wallets, ..Changes::default() }).await.unwrap(), Commit::Done);
    }
    store
}

fn wallet(index: usize) -> NewWallet {
    let now = clock::now();
    let mut address = [0; 20];
    // Spread like real ones.
    address.copy_from_slice(&Keccak256::digest(index.to_be_bytes())[..20]);
    NewWallet {
        id: WalletId::new(now, clock::id_bytes()),
        name: format!("bench_wallet_{index:04}"),
        network: Network::new("bench"),
        address: Address(address),
        address_text: format!("0x{}", hex::encode(address)),
        kind: WalletKind::Random,
        sealed_key: Some("v1.00000000.".to_owned() + &"A".repeat(110)),
        source: None,
        tag: "0".repeat(64),
        queue_rank: 0,
        created_at: now,
    }
}

/// Lends wallets as the pool does, 128 read ahead, and gives them back. How many in a second.
async fn lend(store: &Store) -> f64 {
    let (mut lent, started) = (Vec::new(), Instant::now());
    while lent.len() < LENT {
        for row in store.free_wallets(&Network::new("bench"), Some(u64::MAX), 128).await.unwrap() {
            let order = OrderId::new(clock::now(), clock::id_bytes());
            let change = WalletChange { id: row.id, version: row.version, kind: WalletMove::Lease { order, at: clock::now() } };
            assert_eq!(store.commit(Changes { wallets: vec![change], ..Changes::default() }).await.unwrap(), Commit::Done);
            lent.push((row.id, row.version + 1));
            if lent.len() == LENT {
                break;
            }
        }
    }
    let took = started.elapsed();
    for chunk in lent.chunks(100) {
        let back = chunk.iter().flat_map(|(id, version)| {
            [
                WalletChange {
                    id: *id,
                    version: *version,
                    kind: WalletMove::Rest { status: WalletStatus::Cooldown, leased_to: 1, until: clock::now() },
                },
                WalletChange { id: *id, version: version + 1, kind: WalletMove::Return { status: WalletStatus::Available, queue_rank: 0 } },
            ]
        });
        assert_eq!(store.commit(Changes { wallets: back.collect(), ..Changes::default() }).await.unwrap(), Commit::Done);
    }
    LENT as f64 / took.as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
