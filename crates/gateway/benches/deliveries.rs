//! Webhooks a second to a hundred receivers, with all of them alive and with one of them dead: it
//! takes connections and never answers.
//!
//! Each round puts as many webhooks for every receiver into the outbox of a sandbox that stands still,
//! starts it, and takes the time from the first to the last that the other 99 hear. Both arms run in
//! turns in one go; the receivers take their share of the same cores.
//!
//! `cargo bench -p tidegate --bench deliveries`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::disallowed_methods, clippy::float_arithmetic, clippy::print_stdout, reason = "a bench measures time and prints it")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate::clock;
use tidegate::dev::{self, Options, Running};
use tidegate::store::{Commit, Migrate, Store};
use tidegate_rules::changes::{Changes, NewEvent};
use tidegate_rules::id::{EventId, MerchantId, OrderId};
use tidegate_rules::notify::EventType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const RECEIVERS: usize = 100;
const EACH: usize = 50;
const ROUNDS: usize = 5;

/// What the living receivers hear in a round.
const HEARD: usize = (RECEIVERS - 1) * EACH;

/// A dead receiver holds a place for 15 s: whoever waits for it is found out long before.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Alive,
    Dead,
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(compare());
}

async fn compare() {
    let mut rates = (Vec::new(), Vec::new());
    for number in 1..=ROUNDS {
        // The one that comes first changes, so that neither arm has the warmer disk.
        let order = if number % 2 == 0 { [Last::Dead, Last::Alive] } else { [Last::Alive, Last::Dead] };
        for last in order {
            let rate = round(last).await;
            println!("round {number}, {}: {rate:>6.0} webhooks/s", if last == Last::Alive { "all alive" } else { "one dead " });
            if last == Last::Alive { rates.0.push(rate) } else { rates.1.push(rate) }
        }
    }
    let (alive, dead) = (median(&mut rates.0), median(&mut rates.1));
    println!("\nmedian of {ROUNDS} rounds, {RECEIVERS} receivers, {EACH} webhooks each, SQLite synchronous FULL");
    println!("  all alive   {alive:>6.0} /s");
    println!("  one dead    {dead:>6.0} /s");
    println!("  ratio       {:>6.2}     (goal: at least 0.90)", dead / alive);
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Webhooks a second that the receivers hear which are alive in both arms.
async fn round(last: Last) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    // The first start makes the database and the merchant.
    let (stop, sandbox) = start(dir.path()).await;
    finish(&stop, sandbox).await;

    let heard = Arc::new(Mutex::new(Vec::with_capacity(HEARD)));
    let mut urls = Vec::new();
    let mut servers = Vec::new();
    for number in 0..RECEIVERS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}/", listener.local_addr().unwrap()));
        servers.push(match (number, last) {
            (0, Last::Dead) => tokio::spawn(hold(listener)),
            (0, Last::Alive) => tokio::spawn(answer(listener, Arc::default())),
            _ => tokio::spawn(answer(listener, Arc::clone(&heard))),
        });
    }
    fill(&dir.path().join("tidegate.db"), &urls).await;

    let (stop, sandbox) = start(dir.path()).await;
    let began = Instant::now();
    while heard.lock().unwrap().len() < HEARD {
        assert!(began.elapsed() < PATIENCE, "{} of {HEARD} heard", heard.lock().unwrap().len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = {
        let heard = heard.lock().unwrap();
        heard.iter().max().unwrap().duration_since(*heard.iter().min().unwrap())
    };
    servers.iter().for_each(JoinHandle::abort);
    finish(&stop, sandbox).await;
    HEARD as f64 / took.as_secs_f64()
}

async fn start(dir: &Path) -> (watch::Sender<bool>, Running) {
    let (stop, stopping) = watch::channel(false);
    let options =
        Options { data_dir: dir.to_owned(), listen: "127.0.0.1:0".into(), block_time: Duration::from_secs(20), confirmations: (19, 12) };
    (stop, dev::start(options, stopping).await.unwrap())
}

async fn finish(stop: &watch::Sender<bool>, sandbox: Running) {
    let _ = stop.send(true);
    let _ = sandbox.ended.await;
}

/// Puts what is to be told into the outbox, receiver after receiver in turns.
async fn fill(database: &Path, urls: &[String]) {
    let store = Store::open(&format!("sqlite://{}", database.display()), 4, Duration::from_secs(5), Migrate::No).await.unwrap();
    let merchant: MerchantId = store.merchants().await.unwrap()[0].id;
    for _ in 0..EACH {
        let events = urls.iter().map(|url| event(merchant, url)).collect();
        assert_eq!(store.commit(Changes { events, ..Changes::default() }).await.unwrap(), Commit::Done);
    }
}

/// As long as the body of the real event.
fn event(merchant: MerchantId, url: &str) -> NewEvent {
    let now = clock::now();
    let id = EventId::new(now, clock::id_bytes());
    NewEvent {
        id,
        kind: EventType::Pending,
        merchant,
        subject: OrderId::new(now, clock::id_bytes()).into(),
        at: now,
        body: "x".repeat(1_180),
        delivery: Some((id.delivery(), url.to_owned())),
    }
}

/// Takes connections and never answers.
async fn hold(listener: TcpListener) {
    let mut held = Vec::new();
    while let Ok((stream, _)) = listener.accept().await {
        held.push(stream);
    }
}

/// Accepts every webhook, and notes when.
async fn answer(listener: TcpListener, heard: Arc<Mutex<Vec<Instant>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        tokio::spawn(answer_all(stream, Arc::clone(&heard)));
    }
}

async fn answer_all(mut stream: TcpStream, heard: Arc<Mutex<Vec<Instant>>>) {
    let mut request = Vec::with_capacity(4_096);
    while stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {
        let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
        let length: usize = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap();
        if request.len() < head + 4 + length {
            continue;
        }
        request.clear();
        heard.lock().unwrap().push(Instant::now());
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
            return;
        }
    }
}
