//! Many shoppers at once against a gateway on this machine: orders, checkout pages that stay open,
//! polls, lists, cancellations and payments, mixed as a real shop mixes them, and webhooks that are
//! heard and verified. Afterwards the truth: every order that was paid is paid once and was told
//! once, and no wallet was lent to two orders at a time.
//!
//! It stands outside the gateway, as a shop does: it knows the API and nothing of ours. That is why it
//! is none of the crates that make the product (ADR 0001).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it stands outside the gateway's walls: it reads the clock and builds its own client"
)]

mod books;
mod client;
mod dice;
pub mod idle;
pub mod node;
pub mod own;
pub mod pages;
mod pay;
mod receiver;
mod tally;
mod truth;
pub mod usage;
mod visit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::books::Books;
use crate::client::Client;
pub use crate::client::{Target, loopback};
pub use crate::pay::Payer;
use crate::receiver::Receiver;
use crate::tally::{Call, Tally, per_second};
use crate::truth::Truth;
use crate::usage::{Sample, Watch};
use crate::visit::{Shop, visit};

/// Visitors at a time when they come at a rate. More would wait for nothing but each other.
const VISITORS_MAX: usize = 5_000;

/// How often the gateway's processes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How far the gateway's clock may be behind ours for its orders to be found afterwards.
const CLOCK_OFF_MAX_MS: u64 = 86_400_000;

/// How visitors come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many at a time, each followed by the next (a closed loop).
    Clients(u32),
    /// So many a second, however long they take (an open loop).
    PerSecond(u32),
}

/// What a 5xx or a missing answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outages {
    /// A failure of the run.
    Fail,
    /// Expected: something is broken on purpose. The truth counts all the same.
    Expected,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How visitors come.
    pub pace: Pace,
    /// For how long.
    pub lasts: Duration,
    /// The mean pause between two steps of a visitor.
    pub think: Duration,
    /// Pages that are kept open at a time, at most.
    pub pages_max: usize,
    /// How long the last payments may take to settle and to be told.
    pub settle_max: Duration,
    /// Repeats what visitors do.
    pub seed: u64,
    /// What a 5xx is.
    pub outages: Outages,
}

/// Against what.
pub struct Stage {
    /// The gateway.
    pub target: Target,
    /// How payments are made.
    pub payer: Payer,
    /// Its processes, to be watched. May be empty.
    pub pids: Vec<u32>,
}

/// What happened.
pub struct Report {
    seed: u64,
    lasted: Duration,
    visitors: u64,
    turned_away: u64,
    tally: Arc<Tally>,
    truth: Truth,
    pages_to_the_end: u64,
    usage: Option<Value>,
    failures: (u64, u64),
    outages: Outages,
    wrong: (u64, Vec<String>),
}

impl Report {
    /// True when nothing failed and everything is as the shop's books say.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let failed = self.outages == Outages::Fail && (self.failures.0 > 0 || self.failures.1 > 0 || self.turned_away > 0);
        !failed && self.wrong.0 == 0
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "good": self.is_good(), "seed": self.seed, "seconds": self.lasted.as_secs(), "visitors": self.visitors,
            "turned_away": self.turned_away, "calls": self.tally.json(self.lasted), "server_errors": self.failures.0,
            "without_an_answer": self.failures.1, "truth": self.truth.json(), "pages_saw_the_end": self.pages_to_the_end,
            "usage": self.usage, "wrong_count": self.wrong.0, "wrong": self.wrong.1,
        })
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let truth = &self.truth;
        let by_status: Vec<String> = truth.by_status.iter().map(|(status, count)| format!("{count} {status}")).collect();
        let (events, again, refused) = truth.heard;
        let mut text = format!(
            "seed {}, {} visitors in {} s ({} a second)\n\n{}\n\
             orders    {}; {} paid by our own books\n\
             wallets   {} lent, {} of them to more than one order, one after the other\n\
             webhooks  {events} events heard, {again} once more, {refused} with a wrong signature\n\
             pages     {} showed how their order ended\n\
             failures  {} answers of 5xx, {} requests without an answer, {} visitors turned away\n",
            self.seed,
            self.visitors,
            self.lasted.as_secs(),
            per_second(self.visitors, self.lasted),
            self.tally.table(self.lasted),
            by_status.join(", "),
            truth.paid_by_us,
            truth.wallets,
            truth.wallets_lent_again,
            self.pages_to_the_end,
            self.failures.0,
            self.failures.1,
            self.turned_away,
        );
        if truth.unsure > 0 || truth.unanswered > 0 {
            text.push_str(&format!(
                "unknown   {} payments and {} orders whose request was never answered\n",
                truth.unsure, truth.unanswered
            ));
        }
        if let Some(usage) = &self.usage {
            text.push_str(&format!("process   {usage}\n"));
        }
        for wrong in &self.wrong.1 {
            text.push_str(&format!("WRONG     {wrong}\n"));
        }
        text.push_str(&match (self.is_good(), self.wrong.0) {
            (true, _) => "good: every paid order is paid once and was told once, no wallet had two orders at a time\n".to_owned(),
            (false, 0) => "NOT GOOD: requests failed\n".to_owned(),
            (false, count) => format!("NOT GOOD: {count} things are wrong\n"),
        });
        text
    }
}

/// Sends visitors, waits until what they paid is settled, and tells what happened.
///
/// # Errors
/// With a sentence, when the gateway cannot be spoken to at all.
pub async fn load(plan: &Plan, stage: Stage, told: fn(&Sample)) -> Result<Report, String> {
    let client = Client::new(stage.target.clone())?;
    let receiver = Receiver::start(&stage.target.webhook_secret, Arc::clone(&client.tally)).await?;
    let (close, closing) = watch::channel(false);
    let shop = Arc::new(Shop {
        networks: networks(&client, &stage.payer).await?,
        callback_url: receiver.url.clone(),
        run: format!("load-{:x}-{:x}", plan.seed, now_ms()),
        seed: plan.seed,
        think: plan.think,
        pages: Arc::new(Semaphore::new(plan.pages_max)),
        closing,
        books: Books::default(),
        payer: stage.payer,
        client,
    });
    let watch = Watch::start(stage.pids, LOOK_EVERY, told);
    // The gateway's clock may be wrong, on purpose even, and so the times of its orders.
    let since_ms = i64::try_from(now_ms().saturating_sub(CLOCK_OFF_MAX_MS)).unwrap_or(0);
    let since = jiff::Timestamp::from_millisecond(since_ms).unwrap_or_default();
    let began = Instant::now();
    let (visitors, turned_away) = match plan.pace {
        Pace::Clients(count) => (by_clients(&shop, count, began + plan.lasts).await, 0),
        Pace::PerSecond(rate) => at_a_rate(&shop, rate, plan.lasts).await,
    };
    let lasted = began.elapsed();
    until_told(&shop, &receiver, plan.settle_max).await;
    let _ = close.send(true);
    let truth = truth::check(&shop, &receiver, &since.to_string()).await?;
    Ok(Report {
        seed: plan.seed,
        lasted,
        visitors,
        turned_away,
        tally: Arc::clone(&shop.client.tally),
        truth,
        pages_to_the_end: shop.books.pages_to_the_end(),
        usage: usage::trend(&watch.samples()),
        failures: shop.client.tally.failures(),
        outages: plan.outages,
        wrong: shop.books.wrongs(),
    })
}

/// The networks on offer, as far as we can pay on them.
async fn networks(client: &Client, payer: &Payer) -> Result<Vec<String>, String> {
    let quiet = client.uncounted();
    let answer = quiet.send(Call::List, quiet.shop(0, Method::GET, "/api/v1/networks")).await;
    let answer = answer.ok_or(format!("{} does not answer; is a gateway running there?", client.first_url()))?;
    let body = answer.json();
    let rows = body.get("data").and_then(Value::as_array).ok_or(format!("the gateway answered {}: {}", answer.status, answer.text))?;
    let names: Vec<String> = rows.iter().filter_map(|row| row.get("network")?.as_str().map(str::to_owned)).collect();
    let names: Vec<String> = match payer {
        Payer::Panel => names,
        Payer::Chains(chains) => names.into_iter().filter(|name| chains.contains_key(name)).collect(),
    };
    if names.is_empty() { Err("the gateway offers no network that can be paid on".to_owned()) } else { Ok(names) }
}

async fn by_clients(shop: &Arc<Shop>, count: u32, end: Instant) -> u64 {
    let numbers = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let (shop, numbers) = (Arc::clone(shop), Arc::clone(&numbers));
        clients.spawn(async move {
            while Instant::now() < end {
                visit(Arc::clone(&shop), numbers.fetch_add(1, Ordering::Relaxed), Instant::now()).await;
            }
        });
    }
    ended(&mut clients, shop).await;
    numbers.load(Ordering::Relaxed)
}

/// How many came, and how many of them found the shop full.
async fn at_a_rate(shop: &Arc<Shop>, rate: u32, lasts: Duration) -> (u64, u64) {
    let began = Instant::now();
    let step = Duration::from_secs(1) / rate.max(1);
    let room = Arc::new(Semaphore::new(VISITORS_MAX));
    let (mut number, mut turned_away) = (0, 0);
    let mut visitors = JoinSet::new();
    let mut due = began;
    while due < began + lasts {
        tokio::time::sleep_until(due).await;
        match Arc::clone(&room).try_acquire_owned() {
            Ok(place) => {
                let shop = Arc::clone(shop);
                visitors.spawn(async move {
                    visit(shop, number, due).await;
                    drop(place);
                });
            }
            Err(_) => turned_away += 1,
        }
        number += 1;
        due += step;
        while visitors.try_join_next().is_some() {}
    }
    ended(&mut visitors, shop).await;
    (number, turned_away)
}

/// Waits for all; one that panicked is wrong.
async fn ended(tasks: &mut JoinSet<()>, shop: &Arc<Shop>) {
    while let Some(task) = tasks.join_next().await {
        if let Err(error) = task {
            shop.books.wrong(format!("a visitor broke: {error}"));
        }
    }
}

/// Waits until the shop has heard of every order that it knows to be paid.
async fn until_told(shop: &Arc<Shop>, receiver: &Receiver, patience: Duration) {
    let end = Instant::now() + patience;
    let mut waiting: Vec<String> = shop.books.sales().into_values().filter(books::Sale::is_paid).map(|sale| sale.id).collect();
    while Instant::now() < end && !waiting.is_empty() {
        {
            let heard = receiver.heard();
            waiting.retain(|id| !heard.paid.contains_key(id));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let Some(first) = waiting.first() {
        shop.books.wrong(format!("{} paid orders were not told within {} s, {first} is one", waiting.len(), patience.as_secs()));
    }
}

/// Now, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
