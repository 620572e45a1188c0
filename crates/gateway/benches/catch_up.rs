//! How fast a gateway catches up with TRON: blocks from a local server over HTTP, through the
//! adapter and the follower into the store, beside a bare parse of the same bytes from the same
//! server.
//!
//! The blocks are two recorded ones of mainnet (170 and 281 transactions) in turns, with other
//! numbers, times and ids. One in a hundred pays to a wallet of ours. Arm A is the follower on
//! SQLite with synchronous FULL. Arm B fetches header and infos of the same blocks, as many at
//! once on as many tasks as there are cores, and parses them whole; it proves, matches and stores
//! nothing. Both run in turns, and the server takes its share of the same cores in both.
//!
//!     cargo bench -p tidegate --bench catch_up

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

#[path = "../../chain/benches/bare/mod.rs"]
mod bare;
mod node;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use node::{FIRST, Kind, Node, Pays, TRON_CHAIN, TRON_TOKEN};
use serde::Deserialize;
use serde_json::json;
use tidegate::config::{Config, Overrides, Sources};
use tidegate::gateway::{Gateway, NetworkPart, Wake};
use tidegate::store::{Commit, Migrate, TransferFilter};
use tidegate::{clock, follow, start};
use tidegate_rules::block::Address;
use tidegate_rules::changes::{Changes, NewWallet};
use tidegate_rules::id::WalletId;
use tidegate_rules::wallet::WalletKind;
use tidegate_vault::{MasterKey, OsEntropy};
use tokio::sync::watch;

/// A day of TRON.
const DAY: u64 = 28_800;
const ROUNDS: u64 = 6;
const ROUND_BLOCKS: u64 = DAY / ROUNDS;
/// Connections, chain id, caches: both arms are warm before they are measured.
const WARM_UP_BLOCKS: u64 = 200;
const PAYS_EVERY: u64 = 100;
const OURS: Address = Address([0x5a; 20]);
/// As many as keep two cores and a server on the same machine busy.
const AT_ONCE: usize = 8;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(compare());
}

async fn compare() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(Kind::Tron, Some(Pays { to: OURS, every: PAYS_EVERY })).await;
    // All of them are old, so that the follower catches up to the last.
    let start_ms = u64::try_from(clock::now().millis()).unwrap() - (DAY + 2 * WARM_UP_BLOCKS) * 3_000;
    node.mine(start_ms);
    let gateway = gateway(dir.path(), &node.url).await;
    let part = Arc::clone(gateway.networks().values().next().unwrap());
    let (stop, stopping) = watch::channel(false);
    let follower = tokio::spawn(follow::run(Arc::clone(&gateway), Arc::clone(&part), stopping));
    reached(&gateway, &part, FIRST).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    round(&gateway, &part, &node, &client, WARM_UP_BLOCKS).await;

    println!("a day of TRON in {ROUNDS} rounds of {ROUND_BLOCKS} blocks, in turns");
    let mut rates = (Vec::new(), Vec::new());
    for turn in 1..=ROUNDS {
        let (ours, bare, bytes) = round(&gateway, &part, &node, &client, ROUND_BLOCKS).await;
        let per_s = |took: Duration| ROUND_BLOCKS as f64 / took.as_secs_f64();
        let mib = bytes as f64 / ROUND_BLOCKS as f64 / 1_024.0;
        println!(
            "round {turn}: {:>6.0} blocks/s into the store, {:>6.0} blocks/s bare, {mib:.0} KiB a block, load {}",
            per_s(ours),
            per_s(bare),
            load()
        );
        rates.0.push(per_s(ours));
        rates.1.push(per_s(bare));
    }
    let _ = stop.send(true);
    follower.await.unwrap();

    let filter = TransferFilter { network: Some(part.config.name.clone()), ..TransferFilter::default() };
    let stored = gateway.store.transfers(filter, 1_000).await.unwrap().len() as u64;
    let paid = (FIRST + 1..=node.head()).filter(|number| number.is_multiple_of(PAYS_EVERY)).count() as u64;
    assert_eq!(stored, paid, "every payment is stored, once");
    let ratios: Vec<f64> = rates.0.iter().zip(&rates.1).map(|(ours, bare)| ours / bare).collect();
    let (ours, bare, ratio) = (median(rates.0), median(rates.1), median(ratios));
    println!("\nmedians; {stored} payments found and stored");
    println!("  through the follower into the store {ours:>7.0} blocks/s   a day of TRON in {:.0} s", DAY as f64 / ours);
    println!("  bare parse, from the same server    {bare:>7.0} blocks/s");
    println!("  ratio of a round                    {ratio:>7.2}            (goal: at least 0.60)");
}

/// Arm A, then arm B on the same blocks; how long each took, and how many bytes were read.
async fn round(
    gateway: &Gateway,
    part: &NetworkPart,
    node: &Arc<Node>,
    client: &reqwest::Client,
    blocks: u64,
) -> (Duration, Duration, u64) {
    let (first, time) = (node.head() + 1, part.state().head.unwrap().tip.time.millis());
    for step in 1..=blocks {
        node.mine(u64::try_from(time).unwrap() + step * 3_000);
    }
    let last = node.head();
    let started = Instant::now();
    gateway.signal(Wake::Look);
    reached(gateway, part, last).await;
    let ours = started.elapsed();
    let started = Instant::now();
    let bytes = parse_bare(node, client, first, last).await;
    (ours, started.elapsed(), bytes)
}

/// Returns once this block is stored.
async fn reached(gateway: &Gateway, part: &NetworkPart, number: u64) {
    let mut signals = gateway.listen();
    while part.state().head.is_none_or(|head| head.tip.number < number) {
        let _ = signals.recv().await;
    }
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsing is the measurement")]
struct Block<'a> {
    #[serde(rename = "blockID")]
    id: &'a str,
    #[serde(borrow)]
    block_header: Header<'a>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsing is the measurement")]
struct Header<'a> {
    #[serde(borrow)]
    raw_data: Raw<'a>,
    witness_signature: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "parsing is the measurement")]
struct Raw<'a> {
    number: u64,
    tx_trie_root: &'a str,
    #[serde(rename = "witness_address")]
    witness_address: &'a str,
    parent_hash: &'a str,
    version: u64,
    timestamp: i64,
}

async fn parse_bare(node: &Arc<Node>, client: &reqwest::Client, first: u64, last: u64) -> u64 {
    let (next, bytes) = (Arc::new(AtomicU64::new(first)), Arc::new(AtomicU64::new(0)));
    let transactions = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (node, client, next, bytes) = (Arc::clone(node), client.clone(), Arc::clone(&next), Arc::clone(&bytes));
        let transactions = Arc::clone(&transactions);
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > last {
                    return;
                }
                let header = ask(&client, &node.url, "getblock", json!({ "id_or_num": number.to_string(), "detail": false })).await;
                let block: Block = serde_json::from_slice(&header).unwrap();
                assert_eq!(block.block_header.raw_data.number, number);
                let infos = ask(&client, &node.url, "gettransactioninfobyblocknum", json!({ "num": number })).await;
                let parsed: Vec<bare::TransactionInfo> = serde_json::from_slice(&infos).unwrap();
                transactions.fetch_add(parsed.len(), Ordering::Relaxed);
                bytes.fetch_add((header.len() + infos.len()) as u64, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(transactions.load(Ordering::Relaxed) > 100 * (last - first) as usize);
    bytes.load(Ordering::Relaxed)
}

async fn ask(client: &reqwest::Client, url: &str, call: &str, body: serde_json::Value) -> Vec<u8> {
    let answer = client.post(format!("{url}/wallet/{call}")).json(&body).send().await.unwrap();
    answer.bytes().await.unwrap().into()
}

async fn gateway(dir: &Path, url: &str) -> Arc<Gateway> {
    let file = format!("[networks.tron]\nrpc = [\"{url}\"]\nstart_block = {}\n", FIRST + 1);
    let database = format!("sqlite://{}", dir.join("books.db").display());
    let key = MasterKey::generate(&mut OsEntropy).to_hex();
    let env = |name: &str| match name {
        "DATABASE_URL" => Some(database.clone()),
        "WALLET_MASTER_KEY" => Some(key.to_string()),
        _ => None,
    };
    let config = Config::load(Sources { flags: Overrides::default(), env: &env, file: Some((Path::new("bench.toml"), &file)) }).unwrap();
    assert_eq!((config.networks[0].chain_id, config.networks[0].token.as_str()), (TRON_CHAIN, TRON_TOKEN));
    let gateway = start::gateway(config, Migrate::Yes).await.unwrap();
    let part = gateway.networks().values().next().unwrap();
    let now = clock::now();
    let wallet = NewWallet {
        id: WalletId::new(now, clock::id_bytes()),
        name: "bench_wallet_0001".into(),
        network: part.config.name.clone(),
        address: OURS,
        address_text: part.chain.format_address(&OURS),
        kind: WalletKind::Random,
        sealed_key: Some("v1.00000000.".to_owned() + &"A".repeat(110)),
        source: None,
        tag: "0".repeat(64),
        queue_rank: 0,
        created_at: now,
    };
    assert_eq!(gateway.store.commit(Changes { new_wallets: vec![wallet], ..Changes::default() }).await.unwrap(), Commit::Done);
    gateway
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many wanted a core in the last minute.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}
