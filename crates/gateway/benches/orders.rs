//! Orders made and read, durably: over HTTP at 50 clients, against the same statements bare.
//!
//! Arm A is the product: `tidegate serve` as a process of its own, `POST /api/v1/orders` and
//! `GET /api/v1/orders/{id}`, every order after its sync. Arm B is the ceiling: the same statements,
//! made beforehand, by the same store with as many tasks, without HTTP and rules. Both run in turns in
//! one go on the same disk; the load generator takes its share of the same cores.
//!
//!     cargo bench -p tidegate --bench orders
//!     ORDERS_POSTGRES=postgres://… cargo bench -p tidegate --bench orders     # an empty database of yours

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

mod order;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _};
use tidegate::store::{Commit, Migrate, Store};
use tidegate_load::own::Own;
use tidegate_rules::changes::Changes;
use tidegate_rules::id::OrderId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CLIENTS: usize = 50;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// Reading is as fast in a shorter time.
const READING: Duration = Duration::from_secs(1);
/// Enough wallets for every round of either arm.
const SQLITE_WALLETS: usize = 240_000;
const POSTGRES_WALLETS: usize = 90_000;
/// From one block to the next: following is not what is measured.
const BLOCK_TIME: Duration = Duration::from_secs(20);
/// One of the networks of the gateway that is started.
const NETWORK: &str = "ethereum-like";

fn main() {
    sqlx::any::install_default_drivers();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| format!("sqlite://{}", dir.path().join(name).display());
        compare("SQLite, synchronous FULL", &file("product.db"), &file("ceiling.db"), SQLITE_WALLETS).await;
        let Ok(base) = std::env::var("ORDERS_POSTGRES") else { return };
        let mut connection = sqlx::AnyConnection::connect(&base).await.unwrap();
        for name in ["tidegate_product", "tidegate_ceiling"] {
            for text in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
            }
        }
        let (server, _) = base.rsplit_once('/').unwrap();
        let url = |name: &str| format!("{server}/{name}");
        compare("PostgreSQL", &url("tidegate_product"), &url("tidegate_ceiling"), POSTGRES_WALLETS).await;
    });
}

async fn compare(engine: &str, product: &str, ceiling: &str, wallets: usize) {
    println!("{engine}: preparing {wallets} wallets for each arm …");
    let (own, stage) = Own::serve(Path::new(env!("CARGO_BIN_EXE_tidegate")), 1, Some(product), BLOCK_TIME).await.unwrap();
    let product = Product { address: stage.target.urls[0].trim_start_matches("http://").to_owned(), key: stage.target.api_key.clone() };
    let made = format!(r#"{{"network":"{NETWORK}","count":1000}}"#);
    let mut stream = TcpStream::connect(&product.address).await.unwrap();
    for _ in 0..wallets / 1_000 {
        product.ask(&mut stream, "POST /api/v1/admin/wallets/generate", &made).await;
    }
    // As many connections as the product has.
    let store = Store::open(ceiling, 10, Duration::from_secs(5), Migrate::Yes).await.unwrap();
    let ceiling = Ceiling { prepared: Arc::new(order::prepared(&store, wallets).await), store, next: Arc::default() };

    let mut making = Rates::default();
    let mut reading = Rates::default();
    for round in 1..=ROUNDS {
        let ids = making.add(round, "made", ROUND, product.make().await, ceiling.make().await);
        reading.add(round, "read", READING, product.read(ids).await, ceiling.read().await);
    }
    println!("\n{engine}: median of {ROUNDS} rounds, {CLIENTS} clients");
    making.tell("made", "     (goal: at least 0.50)");
    reading.tell("read", "");
    drop(own);
}

/// How often something was done, how long each time took, and what came of it.
struct Done<T> {
    took: Vec<Duration>,
    made: Vec<T>,
}

/// Both arms, round by round.
#[derive(Default)]
struct Rates {
    product: Vec<f64>,
    ceiling: Vec<f64>,
    waits: Vec<Duration>,
}

impl Rates {
    fn add<T>(&mut self, round: usize, what: &str, lasted: Duration, product: Done<T>, ceiling: usize) -> Vec<T> {
        let per_s = |count: usize| count as f64 / lasted.as_secs_f64();
        self.product.push(per_s(product.took.len()));
        self.ceiling.push(per_s(ceiling));
        println!("round {round}: {:>6.0} {what} a second over HTTP, {:>6.0} bare", per_s(product.took.len()), per_s(ceiling));
        self.waits.extend(product.took);
        product.made
    }

    fn tell(&mut self, what: &str, goal: &str) {
        self.waits.sort_unstable();
        let at = |share: f64| self.waits[((self.waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
        let waits = format!("p50 {:.1} ms   p99 {:.1} ms   max {:.1} ms", at(0.5), at(0.99), at(1.0));
        let (product, ceiling) = (median(&mut self.product), median(&mut self.ceiling));
        println!("  {what} over HTTP   {product:>7.0} /s   {waits}");
        println!("  {what} bare        {ceiling:>7.0} /s");
        println!("  ratio            {:>7.2}{goal}", product / ceiling);
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Arm A: the gateway.
#[derive(Clone)]
struct Product {
    address: String,
    key: String,
}

impl Product {
    /// One round of orders, and their ids.
    async fn make(&self) -> Done<String> {
        let body = format!(r#"{{"amount":"12.5","network":"{NETWORK}","user_id":"42"}}"#);
        self.clients(ROUND, move |_| ("POST /api/v1/orders".to_owned(), body.clone())).await
    }

    /// One round of the same orders read.
    async fn read(&self, ids: Vec<String>) -> Done<String> {
        self.clients(READING, move |number| (format!("GET /api/v1/orders/{}", ids[number % ids.len()]), String::new())).await
    }

    /// So many clients, each asking again as soon as it was answered.
    async fn clients(&self, lasts: Duration, request: impl Fn(usize) -> (String, String) + Clone + Send + 'static) -> Done<String> {
        let mut clients = JoinSet::new();
        let end = Instant::now() + lasts;
        for client in 0..CLIENTS {
            let (product, request) = (self.clone(), request.clone());
            clients.spawn(async move {
                let mut stream = TcpStream::connect(&product.address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut done = Done { took: Vec::new(), made: Vec::new() };
                while Instant::now() < end {
                    let (what, body) = request(client + done.took.len() * CLIENTS);
                    let begun = Instant::now();
                    let answer = product.ask(&mut stream, &what, &body).await;
                    done.took.push(begun.elapsed());
                    // The id comes first in an order.
                    done.made.push(answer.split('"').nth(3).unwrap().to_owned());
                }
                done
            });
        }
        let mut all = Done { took: Vec::new(), made: Vec::new() };
        while let Some(done) = clients.join_next().await {
            let done = done.unwrap();
            all.took.extend(done.took);
            all.made.extend(done.made);
        }
        all
    }

    /// The cheapest client there is, so that it takes little of what it measures.
    async fn ask(&self, stream: &mut TcpStream, what: &str, body: &str) -> String {
        let request = format!(
            "{what} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::with_capacity(4_096);
        loop {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the server hung up");
            let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&answer[..head]).unwrap();
            assert!(text.starts_with("HTTP/1.1 20"), "{}", String::from_utf8_lossy(&answer));
            let length = text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            let end = head + 4 + length.unwrap_or(0_usize);
            if answer.len() >= end {
                return String::from_utf8(answer.split_off(head + 4)).unwrap();
            }
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
    async fn make(&self) -> usize {
        let before = self.next.load(Ordering::Relaxed);
        let (prepared, next) = (Arc::clone(&self.prepared), Arc::clone(&self.next));
        self.tasks(ROUND, move |store, _| {
            let changes = prepared.get(next.fetch_add(1, Ordering::Relaxed)).expect("enough wallets").clone();
            async move { assert_eq!(store.commit(changes).await.unwrap(), Commit::Done) }
        })
        .await;
        self.next.load(Ordering::Relaxed) - before
    }

    async fn read(&self) -> usize {
        let made = self.next.load(Ordering::Relaxed);
        let ids: Arc<Vec<OrderId>> = Arc::new(self.prepared[..made].iter().map(|changes| changes.new_orders[0].id).collect());
        self.tasks(READING, move |store, number| {
            let id = ids[ids.len() - 1 - number % ids.len()];
            async move { assert!(store.order(id).await.unwrap().is_some()) }
        })
        .await
    }

    /// So many tasks, each beginning again as soon as it is done: how often that was.
    async fn tasks<F: Future<Output = ()> + Send>(
        &self,
        lasts: Duration,
        work: impl Fn(Store, usize) -> F + Clone + Send + 'static,
    ) -> usize {
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for task in 0..CLIENTS {
            let (store, over, work) = (self.store.clone(), Arc::clone(&over), work.clone());
            tasks.spawn(async move {
                let mut count = 0;
                while !over.load(Ordering::Relaxed) {
                    work(store.clone(), task + count * CLIENTS).await;
                    count += 1;
                }
                count
            });
        }
        tokio::time::sleep(lasts).await;
        over.store(true, Ordering::Relaxed);
        let mut count = 0;
        while let Some(done) = tasks.join_next().await {
            count += done.unwrap();
        }
        count
    }
}
