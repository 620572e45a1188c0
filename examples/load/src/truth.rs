//! Afterwards: is what the gateway says what the shop did? Reads every order and every `order.paid`
//! of the run, and holds them against the shop's books and what its receiver heard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::MutexGuard;

use reqwest::Method;
use serde_json::{Value, json};

use crate::books::{Sale, micros};
use crate::client::Client;
use crate::receiver::{Heard, Receiver};
use crate::tally::Call;
use crate::visit::Shop;

/// Rows on a page of a list.
const PAGE: usize = 200;

/// What was found.
#[derive(Default)]
pub struct Truth {
    /// Orders of this run by what became of them.
    pub by_status: BTreeMap<String, u64>,
    /// Orders that were paid by the shop's own books.
    pub paid_by_us: u64,
    /// Orders whose payment was sent and never answered: whether they are paid is not known here.
    pub unsure: u64,
    /// Orders that exist though their creation was never answered.
    pub unanswered: u64,
    /// Wallets that were lent.
    pub wallets: usize,
    /// Of these, lent to more than one order, one after the other.
    pub wallets_lent_again: usize,
    /// Webhooks: events heard, deliveries of an event that was heard before, refused signatures.
    pub heard: (usize, u64, u64),
}

impl Truth {
    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "orders": self.by_status, "paid_by_us": self.paid_by_us, "unsure": self.unsure, "unanswered": self.unanswered,
            "wallets": self.wallets, "wallets_lent_again": self.wallets_lent_again,
            "webhooks": { "events": self.heard.0, "heard_again": self.heard.1, "refused": self.heard.2 },
        })
    }
}

/// One lease of a wallet as far as an order shows it: from its creation until it was paid or
/// cancelled or its time was over. Times are RFC 3339 in one form, so texts sort as times.
struct Lent {
    from: String,
    until: String,
    order: String,
}

/// Compares. What is wrong is noted in the shop's books.
///
/// # Errors
/// With a sentence, when the gateway does not answer.
pub async fn check(shop: &Shop, receiver: &Receiver, since: &str) -> Result<Truth, String> {
    let client = shop.client.uncounted();
    let sales = shop.books.sales();
    let mut truth = Truth::default();
    let orders = pages(&client, &format!("/api/v1/orders?created_from={since}"), "cursor").await?;
    let told = paid_events(&client).await?;
    let heard = receiver.heard();

    let mut numbers = BTreeSet::new();
    let mut found = BTreeSet::new();
    let mut live: HashMap<&str, &str> = HashMap::new();
    let mut lent: HashMap<&str, Vec<Lent>> = HashMap::new();
    for order in &orders {
        let text = |name: &str| order.get(name).and_then(Value::as_str).unwrap_or_default();
        let (id, number) = (text("id"), text("merchant_order_id"));
        if !number.starts_with(&format!("{}-", shop.run)) {
            continue;
        }
        if !numbers.insert(number) {
            shop.books.wrong(format!("{number} has two orders, one is {id}"));
        }
        *truth.by_status.entry(text("status").to_owned()).or_default() += 1;
        found.insert(id);
        let wallets: Vec<&str> = order
            .get("payment_options")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|option| option.get("wallet_id")?.as_str())
            .collect();
        if matches!(text("status"), "pending" | "confirming") {
            for wallet in &wallets {
                if let Some(other) = live.insert(wallet, id) {
                    shop.books.wrong(format!("{wallet} is lent to {id} and to {other} at once"));
                }
            }
        }
        let Some(sale) = sales.get(id) else {
            truth.unanswered += 1;
            continue;
        };
        if !sale.chosen_later {
            let ends = ["paid_at", "cancelled_at", "expires_at"].map(text);
            let until = ends.into_iter().filter(|end| !end.is_empty()).min().unwrap_or_default().to_owned();
            for wallet in &wallets {
                let lease = Lent { from: text("created_at").to_owned(), until: until.clone(), order: id.to_owned() };
                lent.entry(wallet).or_default().push(lease);
            }
        }
        is_as_sold(shop, &mut truth, order, sale);
        is_told_once(shop, sale, text("status"), told.get(id), &heard);
    }
    for id in sales.keys().filter(|id| !found.contains(id.as_str())) {
        shop.books.wrong(format!("{id} was sold and is not in the list"));
    }
    truth.wallets = lent.len();
    for (wallet, leases) in &mut lent {
        leases.sort_by(|a, b| a.from.cmp(&b.from));
        truth.wallets_lent_again += usize::from(leases.len() > 1);
        for pair in leases.windows(2) {
            if let [one, next] = pair
                && one.until > next.from
            {
                shop.books.wrong(format!("{wallet} was lent to {} before {} was over", next.order, one.order));
            }
        }
    }
    if heard.refused > 0 {
        shop.books.wrong(format!("{} webhooks had no right signature", heard.refused));
    }
    truth.heard = (heard.events(), heard.again, heard.refused);
    Ok(truth)
}

/// The order's status and amounts are what the shop's books say.
fn is_as_sold(shop: &Shop, truth: &mut Truth, order: &Value, sale: &Sale) {
    let text = |name: &str| order.get(name).and_then(Value::as_str).unwrap_or_default();
    let received = micros(text("amount_received"));
    if sale.unsure {
        truth.unsure += 1;
        return;
    }
    let status = text("status");
    if sale.is_paid() {
        truth.paid_by_us += 1;
        if status != "paid" || received != Some(sale.paid) {
            shop.books.wrong(format!("{} was paid {} millionths and is {status} with {}", sale.id, sale.paid, text("amount_received")));
        }
        let exception = if sale.paid > sale.amount { Some("overpaid") } else { None };
        if order.get("exception").and_then(Value::as_str) != exception {
            shop.books.wrong(format!("{} has the exception {}, expected {exception:?}", sale.id, text("exception")));
        }
    } else if status == "paid" || received != Some(sale.paid) {
        shop.books.wrong(format!(
            "{} was not paid in full ({} millionths) and is {status} with {}",
            sale.id,
            sale.paid,
            text("amount_received")
        ));
    }
}

/// A paid order has one `order.paid`, and the shop heard just that one; any other has none.
fn is_told_once(shop: &Shop, sale: &Sale, status: &str, told: Option<&BTreeSet<String>>, heard: &MutexGuard<'_, Heard>) {
    let none = BTreeSet::new();
    let (told, heard) = (told.unwrap_or(&none), heard.paid.get(&sale.id).unwrap_or(&none));
    let expected = usize::from(status == "paid");
    if told.len() != expected || heard != told {
        shop.books.wrong(format!("{} is {status}, has {} order.paid, and the shop heard {}", sale.id, told.len(), heard.len()));
    }
}

/// The ids of all `order.paid`, by order.
async fn paid_events(client: &Client) -> Result<HashMap<String, BTreeSet<String>>, String> {
    let mut by_order: HashMap<String, BTreeSet<String>> = HashMap::new();
    for event in pages(client, "/api/v1/events?type=order.paid", "after").await? {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        by_order.entry(text("/data/id")).or_default().insert(text("/id"));
    }
    Ok(by_order)
}

/// All rows of a list. `next` is the parameter that asks for the next page.
async fn pages(client: &Client, path: &str, next: &str) -> Result<Vec<Value>, String> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = format!("{path}&limit={PAGE}{cursor}");
        let ask = || client.shop(0, Method::GET, &page);
        let answer = client.persist(Call::List, tokio::time::Instant::now(), ask).await.ok_or(format!("{page}: no answer"))?;
        if !answer.is_good() {
            return Err(format!("{page}: {} {}", answer.status, answer.text));
        }
        let mut body = answer.json();
        if let Some(data) = body.get_mut("data").and_then(Value::as_array_mut) {
            rows.append(data);
        }
        match body.get("next_cursor").and_then(Value::as_str) {
            Some(value) => cursor = format!("&{next}={value}"),
            None => return Ok(rows),
        }
    }
}
