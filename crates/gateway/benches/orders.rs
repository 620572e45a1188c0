//! Durable order creation: over HTTP at 50 clients, against its own ceiling.
//!
//! Arm A is the product: `POST /api/v1/orders` on a sandbox in this process, SQLite with
//! synchronous FULL, every answer after its sync. Arm B is the ceiling: the same statements,
//! grouped the same way by the same writer, prepared beforehand, without HTTP and rules. Both run
//! in turns in one go on the same disk; the load generator takes its share of the same cores.
//!
//! `cargo bench -p tidegate --bench orders`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate::clock;
use tidegate::dev::{self, Options};
use tidegate::store::{Commit, Migrate, Store};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::{Changes, Details, NewEvent, NewLease, NewOrder, NewWallet, WalletChange, WalletMove};
use tidegate_rules::id::{EventId, LeaseId, MerchantId, OrderId, WalletId};
use tidegate_rules::lease::Lease;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{self, Depth, Terms};
use tidegate_rules::time::Span;
use tidegate_rules::wallet::WalletKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

const CLIENTS: usize = 50;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// Enough wallets for every round of either arm.
const WALLETS: usize = 240_000;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(compare());
}

async fn compare() {
    let dir = tempfile::tempdir().unwrap();
    let (stop, stopping) = watch::channel(false);
    let options = Options {
        data_dir: dir.path().join("sandbox"),
        listen: "127.0.0.1:0".into(),
        block_time: Duration::from_secs(20),
        confirmations: (19, 12),
    };
    let sandbox = dev::start(options, stopping).await.unwrap();
    let key = sandbox.credentials.api_key.clone();
    let address = sandbox.credentials.base_url.trim_start_matches("http://").to_owned();
    println!("preparing {WALLETS} wallets for each arm …");
    for _ in 0..WALLETS / 1_000 {
        post(
            &mut TcpStream::connect(&address).await.unwrap(),
            &key,
            "/api/v1/admin/wallets/generate",
            r#"{"network":"tron","count":1000}"#,
        )
        .await;
    }
    let ceiling = Ceiling::prepare(&dir.path().join("ceiling.db")).await;

    let mut rates = (Vec::new(), Vec::new());
    let mut waits = Vec::new();
    for round in 1..=ROUNDS {
        let (orders, mut took) = over_http(&address, &key).await;
        let commits = ceiling.round().await;
        let per_s = |count: usize| count as f64 / ROUND.as_secs_f64();
        println!("round {round}: {:>6.0} orders/s over HTTP, {:>6.0} commits/s ceiling", per_s(orders), per_s(commits));
        rates.0.push(per_s(orders));
        rates.1.push(per_s(commits));
        waits.append(&mut took);
    }
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    let (http, ceiling) = (median(&mut rates.0), median(&mut rates.1));
    println!("\nmedian of {ROUNDS} rounds of {} s, {CLIENTS} clients, SQLite synchronous FULL", ROUND.as_secs());
    println!("  orders over HTTP   {http:>7.0} /s   p50 {:.1} ms   p99 {:.1} ms   max {:.1} ms", at(0.5), at(0.99), at(1.0));
    println!("  ceiling            {ceiling:>7.0} /s");
    println!("  ratio              {:>7.2}     (goal: at least 0.50)", http / ceiling);
    let _ = stop.send(true);
    let _ = sandbox.ended.await;
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One round of arm A: how many orders, and how long each took.
async fn over_http(address: &str, key: &str) -> (usize, Vec<Duration>) {
    let mut clients = tokio::task::JoinSet::new();
    let end = Instant::now() + ROUND;
    for _ in 0..CLIENTS {
        let (address, key) = (address.to_owned(), key.to_owned());
        clients.spawn(async move {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut took = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                post(&mut stream, &key, "/api/v1/orders", r#"{"amount":"12.5","network":"tron","user_id":"42"}"#).await;
                took.push(start.elapsed());
            }
            took
        });
    }
    let mut all = Vec::new();
    while let Some(took) = clients.join_next().await {
        all.append(&mut took.unwrap());
    }
    (all.len(), all)
}

/// The cheapest client there is, so that it takes little of what it measures.
async fn post(stream: &mut TcpStream, key: &str, path: &str, body: &str) {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::with_capacity(4_096);
    loop {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the server hung up");
        let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&answer[..head]).unwrap();
        assert!(text.starts_with("HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
        let length =
            text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap();
        if answer.len() >= head + 4 + length {
            return;
        }
    }
}

/// Arm B: what the database does when nothing else is to do.
struct Ceiling {
    store: Store,
    prepared: Arc<Vec<Changes>>,
    next: Arc<AtomicUsize>,
}

impl Ceiling {
    async fn prepare(path: &Path) -> Self {
        let store = Store::open(&format!("sqlite://{}", path.display()), 4, Duration::from_secs(5), Migrate::Yes).await.unwrap();
        let mut prepared = Vec::with_capacity(WALLETS);
        for batch in 0..WALLETS / 1_000 {
            let wallets: Vec<NewWallet> = (0..1_000).map(|index| wallet(batch * 1_000 + index)).collect();
            prepared.extend(wallets.iter().map(order_on));
            assert_eq!(store.commit(Changes { new_wallets: wallets, ..Changes::default() }).await.unwrap(), Commit::Done);
        }
        Self { store, prepared: Arc::new(prepared), next: Arc::default() }
    }

    async fn round(&self) -> usize {
        let before = self.next.load(Ordering::Relaxed);
        let over = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let (store, prepared, next, over) = (self.store.clone(), Arc::clone(&self.prepared), Arc::clone(&self.next), Arc::clone(&over));
            writers.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let changes = prepared.get(next.fetch_add(1, Ordering::Relaxed)).expect("enough wallets").clone();
                    assert_eq!(store.commit(changes).await.unwrap(), Commit::Done);
                }
            });
        }
        tokio::time::sleep(ROUND).await;
        over.store(true, Ordering::Relaxed);
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        self.next.load(Ordering::Relaxed) - before
    }
}

fn wallet(index: usize) -> NewWallet {
    let now = clock::now();
    let mut address = [0; 20];
    address[..8].copy_from_slice(&(index as u64).to_be_bytes());
    NewWallet {
        id: WalletId::new(now, clock::id_bytes()),
        name: format!("tron_wallet_{index:04}"),
        network: Network::new("tron"),
        address: Address(address),
        address_text: format!("T{index:033}"),
        kind: WalletKind::Random,
        sealed_key: Some("v1.00000000.".to_owned() + &"A".repeat(110)),
        source: None,
        tag: "0".repeat(64),
        queue_rank: 0,
        created_at: now,
    }
}

/// The same change that opening an order stores.
fn order_on(wallet: &NewWallet) -> Changes {
    let now = clock::now();
    let network = Network::new("tron");
    let terms = Terms {
        purpose: tidegate_rules::order::Purpose::Payment,
        amount: Amount::from_micros(12_500_000),
        tolerance: Amount::ZERO,
        expires_at: now.plus(Span::from_secs(1_800)),
        late_window: Span::from_secs(86_400),
        accept_late: true,
        cooldown: Span::from_secs(3_600),
        depths: BTreeMap::from([(network.clone(), Depth::Blocks(19)), (Network::new("ethereum"), Depth::Blocks(12))]),
    };
    let late_until = terms.late_until();
    let id = OrderId::new(now, clock::id_bytes());
    let merchant = MerchantId::new(now, [0; 10]);
    let lease = Lease {
        id: LeaseId::new(now, clock::id_bytes()),
        order: id,
        network: network.clone(),
        wallet: wallet.id,
        address: wallet.address,
        from: 0,
        to: None,
    };
    let mut order = order::open(terms);
    order.current = Some(network);
    order.leases.push(lease.clone());
    let details = Details { user_id: Some("42".into()), metadata: "{}".into(), ..Details::default() };
    Changes {
        wallets: vec![WalletChange { id: wallet.id, version: 1, kind: WalletMove::Lease { order: id, at: now } }],
        new_orders: vec![NewOrder { id, merchant, livemode: false, created_at: now, details, order }],
        new_leases: vec![NewLease { lease, address_text: wallet.address_text.clone(), tag: wallet.tag.clone(), late_until, at: now }],
        // As long as the body of the real event.
        events: vec![NewEvent {
            id: EventId::new(now, clock::id_bytes()),
            kind: EventType::Pending,
            merchant,
            subject: id.into(),
            at: now,
            body: "x".repeat(1_180),
            delivery: None,
        }],
        ..Changes::default()
    }
}
