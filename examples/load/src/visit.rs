//! What one visitor of a shop does, from the order to the payment, as the dice have it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::books::{Books, Ending, Sale, micros};
use crate::client::{Answer, Client};
use crate::dice::Dice;
use crate::pay::Payer;
use crate::tally::Call;

/// How many users the shop has.
const USERS: u64 = 500;

/// Of a hundred visitors so many: choose the network at the checkout, press *Buy* twice, keep the page
/// open, and make somebody in the shop look at its lists.
const CHOOSES_AT_CHECKOUT: u64 = 20;
const PRESSES_TWICE: u64 = 5;
const KEEPS_THE_PAGE: u64 = 50;
const LISTS: u64 = 10;

/// How long the order of somebody who goes away lives, in seconds; that of others lives as long as a
/// payment may take.
const LEFT_EXPIRES_IN_S: u64 = 5;
const EXPIRES_IN_S: u64 = 3_600;

/// The most of a stream that is kept while an event is not whole.
const EVENT_BYTES_MAX: usize = 64 * 1_024;

/// What all visitors share.
pub struct Shop {
    /// Speaks to the gateway.
    pub client: Client,
    /// What was sold.
    pub books: Books,
    /// How payments are made.
    pub payer: Payer,
    /// The networks that are on offer.
    pub networks: Vec<String>,
    /// Where webhooks go.
    pub callback_url: String,
    /// In every number of this run, so that no other run has the same.
    pub run: String,
    /// Makes the dice.
    pub seed: u64,
    /// The mean pause between two steps of a visitor.
    pub think: Duration,
    /// Room for pages that are kept open.
    pub pages: Arc<Semaphore>,
    /// True once all pages are to be closed.
    pub closing: watch::Receiver<bool>,
}

impl Shop {
    async fn pause(&self, dice: &mut Dice) {
        let mean = u64::try_from(self.think.as_millis()).unwrap_or(u64::MAX);
        if mean > 0 {
            tokio::time::sleep(Duration::from_millis(dice.below(mean.saturating_mul(2)))).await;
        }
    }
}

/// One visit. `due` is when the visitor came.
pub async fn visit(shop: Arc<Shop>, number: u64, due: Instant) {
    let mut dice = Dice::new(shop.seed, number);
    let ending = Ending::drawn(&mut dice);
    let network = if dice.percent(CHOOSES_AT_CHECKOUT) { None } else { dice.choose(&shop.networks).cloned() };
    let cents = 500 + dice.below(50_000);
    let wish = json!({
        "amount": format!("{}.{:02}", cents / 100, cents % 100),
        "network": network,
        "user_id": format!("user-{}", dice.below(USERS)),
        "merchant_order_id": format!("{}-{number}", shop.run),
        "expires_in": if ending == Ending::Leaves { LEFT_EXPIRES_IN_S } else { EXPIRES_IN_S },
        "callback_url": shop.callback_url,
        "metadata": { "cart": number },
    });
    let Some(sale) = buy(&shop, &mut dice, number, wish, due).await else { return };
    let id = sale.id.clone();
    let chosen = network.is_some();
    shop.books.sold(sale);

    shop.pause(&mut dice).await;
    shop.client.send(Call::Checkout, shop.client.payer(dice.below(1_000), Method::GET, &format!("/pay/{id}"))).await;
    let Some((network, address)) = address(&shop, &mut dice, &id, network).await else { return };
    if !chosen {
        shop.books.chose(&id);
    }
    if dice.percent(KEEPS_THE_PAGE)
        && let Ok(place) = Arc::clone(&shop.pages).try_acquire_owned()
    {
        tokio::spawn(keep_page(Arc::clone(&shop), id.clone(), dice.below(1_000), place));
    }
    shop.pause(&mut dice).await;
    read(&shop, &mut dice, &id).await;
    if dice.percent(LISTS) {
        look_through(&shop, &mut dice).await;
    }
    shop.pause(&mut dice).await;
    match ending {
        Ending::Leaves => {}
        Ending::Cancels => {
            let cancel = || shop.client.shop(number, Method::POST, &format!("/api/v1/orders/{id}/cancel")).json(&json!({}));
            if let Some(answer) = shop.client.persist(Call::Cancel, Instant::now(), cancel).await
                && !answer.is_good()
            {
                shop.books.wrong(format!("{id} is not cancelled: {} {}", answer.status, answer.text));
            }
        }
        Ending::Pays | Ending::PaysMore | Ending::PaysInParts => {
            pay(&shop, &mut dice, &id, &network, &address, ending).await;
            read(&shop, &mut dice, &id).await;
        }
    }
}

/// Makes the order, and perhaps makes it twice: it must be the same one.
async fn buy(shop: &Arc<Shop>, dice: &mut Dice, number: u64, wish: Value, due: Instant) -> Option<Sale> {
    let create = |turn: u64| {
        let key = format!("{}-{number}", shop.run);
        shop.client.shop(turn, Method::POST, "/api/v1/orders").header("Idempotency-Key", key).json(&wish)
    };
    let first = shop.client.persist(Call::Create, due, || create(number));
    let answers = if dice.percent(PRESSES_TWICE) {
        let (first, again) = tokio::join!(first, shop.client.persist(Call::CreateAgain, Instant::now(), || create(number + 1)));
        [first, again]
    } else {
        [first.await, None]
    };
    let mut known: Option<Answer> = None;
    for answer in answers.into_iter().flatten() {
        if !answer.is_good() {
            shop.books.wrong(format!("order {}-{number} is refused: {} {}", shop.run, answer.status, answer.text));
            return None;
        }
        if known.as_ref().is_some_and(|known| known.text != answer.text) {
            shop.books.wrong(format!("order {}-{number}: one idempotency key has two answers", shop.run));
        }
        known = Some(answer);
    }
    let order = known?.json();
    let text = |name: &str| order.get(name).and_then(Value::as_str).map(str::to_owned);
    let (Some(id), Some(amount)) = (text("id"), text("amount").as_deref().and_then(micros)) else {
        shop.books.wrong(format!("order {}-{number}: the answer has no id or amount", shop.run));
        return None;
    };
    Some(Sale::new(id, amount))
}

/// The address to pay to; the payer chooses a network if the shop did not.
async fn address(shop: &Arc<Shop>, dice: &mut Dice, id: &str, network: Option<String>) -> Option<(String, String)> {
    let order = match network {
        Some(_) => read(shop, dice, id).await?,
        None => {
            let wish = json!({ "network": dice.choose(&shop.networks)? });
            let choose = |turn: u64| shop.client.payer(turn, Method::POST, &format!("/pay/{id}/options")).json(&wish);
            let turn = dice.below(1_000);
            let answer = shop.client.persist(Call::Choose, Instant::now(), || choose(turn)).await?;
            // Whoever waited for a gateway that was away may come too late to choose.
            if answer.status == 409 {
                return None;
            }
            answer.json()
        }
    };
    let text = |name: &str| order.get(name).and_then(Value::as_str).map(str::to_owned);
    let found = text("network").zip(text("address"));
    if found.is_none() {
        shop.books.wrong(format!("{id} has no address: {order}"));
    }
    found
}

async fn read(shop: &Arc<Shop>, dice: &mut Dice, id: &str) -> Option<Value> {
    let turn = dice.below(1_000);
    let read = || shop.client.shop(turn, Method::GET, &format!("/api/v1/orders/{id}"));
    let answer = shop.client.persist(Call::Read, Instant::now(), read).await?;
    if !answer.is_good() {
        shop.books.wrong(format!("{id} does not read: {} {}", answer.status, answer.text));
        return None;
    }
    Some(answer.json())
}

/// Somebody in the shop looks for something.
async fn look_through(shop: &Arc<Shop>, dice: &mut Dice) {
    let lists = [
        "status=pending&limit=50".to_owned(),
        "status=paid&limit=50".to_owned(),
        format!("user_id=user-{}", dice.below(USERS)),
        format!("network={}&limit=20", dice.choose(&shop.networks).map_or("", String::as_str)),
        format!("amount_min={}&limit=20", 100 + dice.below(400)),
    ];
    let filter = dice.choose(&lists).map_or("", String::as_str);
    shop.client.send(Call::List, shop.client.shop(dice.below(1_000), Method::GET, &format!("/api/v1/orders?{filter}"))).await;
    let events = "/api/v1/events?type=order.paid&limit=50";
    shop.client.send(Call::Events, shop.client.shop(dice.below(1_000), Method::GET, events)).await;
}

/// Pays in one part or in two, and notes beforehand what is paid.
async fn pay(shop: &Arc<Shop>, dice: &mut Dice, id: &str, network: &str, address: &str, ending: Ending) {
    let Some(amount) = shop.books.amount(id) else { return };
    let parts = match ending {
        Ending::PaysMore => vec![Part::More],
        Ending::PaysInParts => vec![Part::Less, Part::Rest],
        _ => vec![Part::Rest],
    };
    let mut missing = amount;
    for part in parts {
        let tenth = (amount / 10).max(1);
        let sum = match part {
            Part::Less => missing.saturating_sub(tenth),
            Part::Rest => missing,
            Part::More => missing.saturating_add(tenth),
        };
        // The pay panel pays what is missing of what was seen, so it waits until the part is seen.
        if missing != amount && !shop.payer.pays_by_amount() && !is_seen(shop, dice, id).await {
            return;
        }
        shop.books.pays(id, sum);
        let turn = dice.below(1_000);
        if !shop.payer.pay(&shop.client, turn, id, network, address, sum, part).await {
            shop.books.lost_sight(id);
            return;
        }
        missing = missing.saturating_sub(sum);
    }
}

/// A part of a payment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A tenth less than is missing.
    Less,
    /// What is missing.
    Rest,
    /// A tenth more.
    More,
}

/// How often an order is looked at, and the pause between, until its first part is seen.
const LOOKS_MAX: u32 = 120;
const LOOK_AGAIN: Duration = Duration::from_millis(500);

async fn is_seen(shop: &Arc<Shop>, dice: &mut Dice, id: &str) -> bool {
    for _ in 0..LOOKS_MAX {
        let Some(order) = read(shop, dice, id).await else { return false };
        if order.get("exception").and_then(Value::as_str) == Some("underpaid") {
            return true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    shop.books.wrong(format!("{id}: the first part of its payment was not seen within a minute"));
    false
}

/// Keeps a checkout page open until it shows an end, the connection breaks, or all pages close. The
/// time until the first event is counted.
async fn keep_page(shop: Arc<Shop>, id: String, turn: u64, place: OwnedSemaphorePermit) {
    let started = Instant::now();
    let request = shop.client.payer(turn, Method::GET, &format!("/pay/{id}/events"));
    let Some(mut response) = shop.client.open(request).await else {
        shop.client.tally.broke(Call::Stream, started.elapsed());
        return;
    };
    let status = response.status().as_u16();
    let mut closing = shop.closing.clone();
    let mut unread = Vec::new();
    let mut is_first = true;
    loop {
        let part = tokio::select! {
            part = response.chunk() => part,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let Ok(Some(part)) = part else { break };
        unread.extend_from_slice(&part);
        let Some(end) = unread.windows(2).rposition(|pair| pair == b"\n\n") else {
            if unread.len() > EVENT_BYTES_MAX {
                shop.books.wrong(format!("{id}: an event of its page does not end"));
                break;
            }
            continue;
        };
        if is_first {
            shop.client.tally.answered(Call::Stream, status, started.elapsed());
            is_first = false;
        }
        let rest = unread.split_off(end + 2);
        let shown = String::from_utf8_lossy(&unread).into_owned();
        unread = rest;
        if ["paid", "expired", "cancelled"].iter().any(|end| shown.contains(&format!("\"status\":\"{end}\""))) {
            shop.books.page_saw_the_end();
            break;
        }
    }
    if is_first && status != 200 {
        shop.client.tally.answered(Call::Stream, status, started.elapsed());
    }
    drop(place);
}
