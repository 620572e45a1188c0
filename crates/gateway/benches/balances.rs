//! What it takes to read balances: 1,000 wallets synchronised, and 50 people who ask at once, in a
//! gateway that follows Anvil (scripts/install-test-tools) with Multicall3 where it is on every
//! chain.
//!
//! A server between the two counts the `eth_call`s, counts how many are under way at once, and
//! answers each [`FAR`] later, as a node elsewhere would. Beside the synchronisation the same
//! balances are asked for one by one, ten at once; beside the 50 at once, 50 in turn.
//!
//!     cargo bench -p tidegate --bench balances

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::serve::ListenerExt as _;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};
use tidegate::config::{Config, Overrides, Sources};
use tidegate::gateway::{Gateway, NetworkPart};
use tidegate::store::{Commit, Migrate, WalletFilter, WalletRow};
use tidegate::{balances, clock, follow, quotes, start};
use tidegate_chain::evm::MULTICALL3;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::Address;
use tidegate_rules::changes::{Changes, NewWallet};
use tidegate_rules::id::WalletId;
use tidegate_rules::wallet::WalletKind;
use tidegate_vault::{MasterKey, OsEntropy};
use tokio::sync::watch;

const WALLETS: usize = 1_000;
const AT_ONCE: usize = 50;
const ROUNDS: usize = 5;
/// How much later an answer comes than from a node on this machine.
const FAR: Duration = Duration::from_millis(20);
const SUPPLY: u64 = 1_000_000;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let anvil = Anvil::start().await;
    let token = anvil.token().await;
    anvil.multicall3().await;
    let meter = Meter::before(&anvil.url).await;
    let dir = tempfile::tempdir().unwrap();
    let gateway = gateway(dir.path(), &meter.url, &token).await;
    let part = Arc::clone(gateway.networks().values().next().unwrap());
    let (stop, stopping) = watch::channel(false);
    let follower = tokio::spawn(follow::run(Arc::clone(&gateway), Arc::clone(&part), stopping));
    while part.state().head.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let filter = WalletFilter { network: Some(part.config.name.clone()), ..WalletFilter::default() };
    let wallets = gateway.store.wallets(filter, WALLETS as i64).await.unwrap();
    assert_eq!(wallets.len(), WALLETS);

    // An endpoint is asked once whether it has Multicall3.
    balances::read(&gateway, &part, &wallets[..1], Duration::from_secs(30)).await.unwrap();
    let mut synced = Vec::new();
    let mut single = Vec::new();
    for _ in 0..ROUNDS {
        synced.push(sync(&gateway, &part, &wallets, &meter).await);
        single.push(one_by_one(&meter, &token, &wallets).await);
    }
    println!("{WALLETS} wallets, medians of {ROUNDS} rounds, each call {} ms away (load {})", FAR.as_millis(), load());
    tell("synchronised", &mut synced);
    tell("one by one, ten at once", &mut single);
    println!("  goal: at most 2 calls, and never more than 10 under way\n");

    let (mut together, mut in_turn) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Others each time, or they would be kept.
        let others: Vec<Address> = (0..2 * AT_ONCE).map(|place| address(1_000_000 + round * 2 * AT_ONCE + place)).collect();
        let (now, later) = others.split_at(AT_ONCE);
        meter.reset();
        let started = Instant::now();
        let asked = now.iter().map(|address| quotes::balance(&gateway, &part, *address));
        for quote in futures_util::future::join_all(asked).await {
            assert_eq!(quote.unwrap().value, Raw::from_units(0));
        }
        together.push(meter.read(started));
        meter.reset();
        let started = Instant::now();
        for address in later {
            quotes::balance(&gateway, &part, *address).await.unwrap();
        }
        in_turn.push(meter.read(started));
    }
    meter.reset();
    let started = Instant::now();
    let same = (0..AT_ONCE).map(|_| quotes::balance(&gateway, &part, address(9_999_999)));
    assert!(futures_util::future::join_all(same).await.iter().all(Result::is_ok));
    let mut same = vec![meter.read(started)];
    println!("{AT_ONCE} people who ask for balances of different addresses, medians of {ROUNDS} rounds (load {})", load());
    tell("at once", &mut together);
    tell("in turn", &mut in_turn);
    tell("all for one address, at once", &mut same);
    println!("  goal: never more than 10 under way");
    let _ = stop.send(true);
    follower.await.unwrap();
}

async fn sync(gateway: &Gateway, part: &NetworkPart, wallets: &[WalletRow], meter: &Meter) -> Reading {
    meter.reset();
    let started = Instant::now();
    let (synced, _) = balances::sync(gateway, part, wallets, |_| {}).await.unwrap();
    let reading = meter.read(started);
    assert_eq!((synced.wallets, synced.differing, synced.unknown), (WALLETS as u64, 0, 0));
    reading
}

/// What the same costs without Multicall3: `balanceOf` for each.
async fn one_by_one(meter: &Meter, token: &str, wallets: &[WalletRow]) -> Reading {
    let client = &self::client();
    meter.reset();
    let started = Instant::now();
    let asked = wallets.iter().map(|wallet| async move {
        let data = format!("0x70a08231{:0>64}", hex::encode(wallet.address.0));
        rpc(client, &meter.url, "eth_call", json!([{ "to": token, "data": data }, "latest"])).await
    });
    let answers: Vec<Value> = stream::iter(asked).buffered(balances::AT_ONCE_MAX).collect().await;
    assert!(answers.iter().all(|answer| answer.as_str().is_some_and(|word| word.len() == 66)));
    meter.read(started)
}

fn tell(name: &str, readings: &mut [Reading]) {
    readings.sort_by_key(|reading| reading.took);
    let middle = readings[readings.len() / 2];
    let calls = readings.iter().map(|reading| reading.calls).max().unwrap_or(0);
    let most = readings.iter().map(|reading| reading.most).max().unwrap_or(0);
    println!("  {name:<28} {calls:>5} calls   {:>7.0} ms   {most:>2} under way at most", middle.took.as_secs_f64() * 1_000.0);
}

/// What a meter has seen.
#[derive(Clone, Copy)]
struct Reading {
    took: Duration,
    calls: u64,
    most: u64,
}

/// A server before a node that counts its calls.
struct Meter {
    url: String,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    under_way: AtomicU64,
    most: AtomicU64,
}

impl Meter {
    async fn before(node: &str) -> Self {
        let counts = Arc::<Counts>::default();
        let (counting, node) = (Arc::clone(&counts), node.to_owned());
        let client = self::client();
        let handle = move |body: Bytes| {
            let (counts, client, node) = (Arc::clone(&counting), client.clone(), node.clone());
            async move {
                let calls = body.windows(8).filter(|window| window == b"eth_call").count() as u64;
                counts.calls.fetch_add(calls, Ordering::SeqCst);
                let now = counts.under_way.fetch_add(calls, Ordering::SeqCst) + calls;
                counts.most.fetch_max(now, Ordering::SeqCst);
                if calls > 0 {
                    tokio::time::sleep(FAR).await;
                }
                let answer = client.post(node).header("content-type", "application/json").body(body).send().await.unwrap();
                let answer = answer.bytes().await.unwrap();
                counts.under_way.fetch_sub(calls, Ordering::SeqCst);
                answer
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
        Self { url, counts }
    }

    fn reset(&self) {
        self.counts.calls.store(0, Ordering::SeqCst);
        self.counts.most.store(0, Ordering::SeqCst);
    }

    fn read(&self, started: Instant) -> Reading {
        let (calls, most) = (self.counts.calls.load(Ordering::SeqCst), self.counts.most.load(Ordering::SeqCst));
        Reading { took: started.elapsed(), calls, most }
    }
}

struct Anvil {
    url: String,
    client: reqwest::Client,
    process: Child,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Anvil {
    async fn start() -> Self {
        // The client first: a node that was started and not kept would run on.
        let client = self::client();
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/node_modules");
        let program = std::env::var_os("TIDEGATE_ANVIL").map(PathBuf::from);
        let program = program.unwrap_or_else(|| tools.join("@foundry-rs/anvil-linux-amd64/bin/anvil"));
        let mut command = Command::new(&program);
        command.args(["--port", "0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("no {program:?} ({error}): run scripts/install-test-tools"));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("Listening on ").map(str::to_owned)).unwrap();
        // Whoever stops reading stops the node, in the end.
        std::thread::spawn(move || lines.for_each(drop));
        Self { url: format!("http://{address}"), client, process }
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        rpc(&self.client, &self.url, method, params).await
    }

    async fn deploy(&self, code: &str) -> String {
        let accounts = self.rpc("eth_accounts", json!([])).await;
        let call = json!({ "from": accounts[0], "data": format!("0x{code}"), "gas": "0x7a1200" });
        let hash = self.rpc("eth_sendTransaction", json!([call])).await;
        self.rpc("evm_mine", json!([])).await;
        let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt["contractAddress"].as_str().unwrap().to_owned()
    }

    async fn token(&self) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contracts/TestTether.json");
        let artifact: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let code = artifact["bytecode"].as_str().unwrap().trim_start_matches("0x");
        self.deploy(&format!("{code}{SUPPLY:064x}{:064x}", 6)).await
    }

    /// Puts Multicall3 where it is on every chain.
    async fn multicall3(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chain/tests/data/evm/multicall3_creation.hex");
        let made = self.deploy(std::fs::read_to_string(path).unwrap().trim_end()).await;
        let code = self.rpc("eth_getCode", json!([made, "latest"])).await;
        self.rpc("anvil_setCode", json!([format!("0x{}", hex::encode(MULTICALL3.0)), code])).await;
    }
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn rpc(client: &reqwest::Client, url: &str, method: &str, params: Value) -> Value {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let mut answer: Value = client.post(url).json(&call).send().await.unwrap().json().await.unwrap();
    assert!(answer.get("error").is_none(), "{call}: {answer}");
    answer["result"].take()
}

async fn gateway(dir: &Path, url: &str, token: &str) -> Arc<Gateway> {
    let file = format!(
        "[networks.anvil]\nkind = \"evm\"\nchain_id = 31337\nrpc = [\"{url}\"]\ntoken = \"{token}\"\ndecimals = 6\nconfirmations = 1\n"
    );
    let database = format!("sqlite://{}", dir.join("books.db").display());
    let key = MasterKey::generate(&mut OsEntropy).to_hex();
    let env = |name: &str| match name {
        "DATABASE_URL" => Some(database.clone()),
        "WALLET_MASTER_KEY" => Some(key.to_string()),
        _ => None,
    };
    let config = Config::load(Sources { flags: Overrides::default(), env: &env, file: Some((Path::new("bench.toml"), &file)) }).unwrap();
    let gateway = start::gateway(config, Migrate::Yes).await.unwrap();
    let part = gateway.networks().values().next().unwrap();
    let new_wallets = (0..WALLETS).map(|index| wallet(part, index)).collect();
    assert_eq!(gateway.store.commit(Changes { new_wallets, ..Changes::default() }).await.unwrap(), Commit::Done);
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

/// How many wanted a core in the last minute.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}
