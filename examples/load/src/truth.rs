//! Afterwards: is what the gateway says what the shop did? Reads every order and every `order.paid`
//! of the run, and holds them against the shop's books and what its receiver heard.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reqwest::Method;
use serde_json::{Value, json};

use crate::books::{Books, Sale, micros};
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
    let orders = pages(&client, &format!("/api/v1/orders?created_from={since}"), "cursor").await?;
    let told = paid_events(&client).await?;
    Ok(compare(&shop.books, &shop.run, &orders, &told, &receiver.heard()))
}

/// The ids of the `order.paid` of each order.
type PaidEvents = HashMap<String, BTreeSet<String>>;

/// The comparison itself: `orders` as the list shows them, `told` as `/api/v1/events` does.
fn compare(books: &Books, run: &str, orders: &[Value], told: &PaidEvents, heard: &Heard) -> Truth {
    let sales = books.sales();
    let mut truth = Truth::default();
    let mut numbers = BTreeSet::new();
    let mut found = BTreeSet::new();
    let mut live: HashMap<&str, &str> = HashMap::new();
    let mut lent: HashMap<&str, Vec<Lent>> = HashMap::new();
    for order in orders {
        let text = |name: &str| order.get(name).and_then(Value::as_str).unwrap_or_default();
        let (id, number) = (text("id"), text("merchant_order_id"));
        if !number.starts_with(&format!("{run}-")) {
            continue;
        }
        if !numbers.insert(number) {
            books.wrong(format!("{number} has two orders, one is {id}"));
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
                    books.wrong(format!("{wallet} is lent to {id} and to {other} at once"));
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
        is_as_sold(books, &mut truth, order, sale);
        is_told_once(books, sale, text("status"), told.get(id), heard);
    }
    for id in sales.keys().filter(|id| !found.contains(id.as_str())) {
        books.wrong(format!("{id} was sold and is not in the list"));
    }
    truth.wallets = lent.len();
    for (wallet, leases) in &mut lent {
        leases.sort_by(|a, b| a.from.cmp(&b.from));
        truth.wallets_lent_again += usize::from(leases.len() > 1);
        for pair in leases.windows(2) {
            if let [one, next] = pair
                && one.until > next.from
            {
                books.wrong(format!("{wallet} was lent to {} before {} was over", next.order, one.order));
            }
        }
    }
    if heard.refused > 0 {
        books.wrong(format!("{} webhooks had no right signature", heard.refused));
    }
    truth.heard = (heard.events(), heard.again, heard.refused);
    truth
}

/// The order's status and amounts are what the shop's books say.
fn is_as_sold(books: &Books, truth: &mut Truth, order: &Value, sale: &Sale) {
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
            books.wrong(format!("{} was paid {} millionths and is {status} with {}", sale.id, sale.paid, text("amount_received")));
        }
        let exception = if sale.paid > sale.amount { Some("overpaid") } else { None };
        if order.get("exception").and_then(Value::as_str) != exception {
            books.wrong(format!("{} has the exception {}, expected {exception:?}", sale.id, text("exception")));
        }
    } else if status == "paid" || received != Some(sale.paid) {
        books.wrong(format!(
            "{} was not paid in full ({} millionths) and is {status} with {}",
            sale.id,
            sale.paid,
            text("amount_received")
        ));
    }
}

/// A paid order has one `order.paid`, and the shop heard just that one; any other has none.
fn is_told_once(books: &Books, sale: &Sale, status: &str, told: Option<&BTreeSet<String>>, heard: &Heard) {
    let none = BTreeSet::new();
    let (told, heard) = (told.unwrap_or(&none), heard.paid.get(&sale.id).unwrap_or(&none));
    let expected = usize::from(status == "paid");
    if told.len() != expected || heard != told {
        books.wrong(format!("{} is {status}, has {} order.paid, and the shop heard {}", sale.id, told.len(), heard.len()));
    }
}

/// The ids of all `order.paid`, by order.
async fn paid_events(client: &Client) -> Result<PaidEvents, String> {
    let mut by_order = PaidEvents::new();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two orders of one wallet, one after the other, both paid and told.
    struct Day {
        books: Books,
        orders: Vec<Value>,
        told: PaidEvents,
        heard: Heard,
    }

    fn order(id: &str, number: u64, from: &str, until: &str) -> Value {
        json!({ "id": id, "merchant_order_id": format!("run-{number}"), "status": "paid", "exception": null,
            "amount_received": "5.000000", "created_at": from, "paid_at": until, "cancelled_at": null,
            "expires_at": "2026-11-26T13:00:00.000Z", "payment_options": [{ "wallet_id": "wal_1" }] })
    }

    impl Day {
        fn good() -> Self {
            let books = Books::default();
            let (mut told, mut heard) = (PaidEvents::new(), Heard::default());
            for id in ["ord_1", "ord_2"] {
                books.sold(Sale::new(id.to_owned(), 5_000_000));
                books.pays(id, 5_000_000);
                let events = BTreeSet::from([format!("evt_{id}")]);
                told.insert(id.to_owned(), events.clone());
                heard.paid.insert(id.to_owned(), events);
            }
            let orders = vec![
                order("ord_2", 2, "2026-11-26T12:10:00.000Z", "2026-11-26T12:20:00.000Z"),
                order("ord_1", 1, "2026-11-26T12:00:00.000Z", "2026-11-26T12:05:00.000Z"),
            ];
            Self { books, orders, told, heard }
        }

        /// What is found wrong with it.
        fn wrongs(&self) -> Vec<String> {
            compare(&self.books, "run", &self.orders, &self.told, &self.heard);
            self.books.wrongs().1
        }
    }

    #[track_caller]
    fn is_found(spoil: impl FnOnce(&mut Day), part: &str) {
        let mut day = Day::good();
        spoil(&mut day);
        let wrongs = day.wrongs();
        assert!(wrongs.iter().any(|wrong| wrong.contains(part)), "{part:?} is not in {wrongs:?}");
    }

    #[test]
    fn a_good_day_is_good() {
        let day = Day::good();
        assert_eq!(day.wrongs(), Vec::<String>::new());
        let truth = compare(&day.books, "run", &day.orders, &day.told, &day.heard);
        assert_eq!((truth.paid_by_us, truth.wallets, truth.wallets_lent_again), (2, 1, 1));
    }

    #[test]
    fn money_that_is_lost_or_counted_wrongly_is_found() {
        is_found(|day| day.orders[0]["status"] = json!("pending"), "ord_2 was paid 5000000 millionths and is pending");
        is_found(
            |day| day.orders[0]["amount_received"] = json!("10.000000"),
            "ord_2 was paid 5000000 millionths and is paid with 10.000000",
        );
        is_found(|day| day.books.pays("ord_1", 1), "ord_1 was paid 5000001 millionths");
        is_found(|day| day.orders[0]["exception"] = json!("late"), "ord_2 has the exception late");
        is_found(
            |day| {
                day.books.sold(Sale::new("ord_3".to_owned(), 5_000_000));
                day.orders.push(order("ord_3", 3, "2026-11-26T12:30:00.000Z", "2026-11-26T12:40:00.000Z"));
            },
            "ord_3 was not paid in full (0 millionths) and is paid",
        );
    }

    #[test]
    fn orders_that_are_missing_or_twice_there_are_found() {
        is_found(|day| drop(day.orders.pop()), "ord_1 was sold and is not in the list");
        is_found(|day| day.orders[0]["merchant_order_id"] = json!("run-1"), "run-1 has two orders");
        is_found(|day| day.books.sold(Sale::new("ord_1".to_owned(), 1)), "ord_1 was given to two visitors");
    }

    #[test]
    fn what_is_not_told_or_told_twice_is_found() {
        let twice = |events: &mut PaidEvents| assert!(events.get_mut("ord_1").unwrap().insert("evt_again".to_owned()));
        is_found(|day| drop(day.heard.paid.remove("ord_1")), "ord_1 is paid, has 1 order.paid, and the shop heard 0");
        is_found(|day| twice(&mut day.heard.paid), "the shop heard 2");
        is_found(|day| twice(&mut day.told), "ord_1 is paid, has 2 order.paid");
        is_found(|day| day.heard.refused = 1, "1 webhooks had no right signature");
    }

    #[test]
    fn a_wallet_with_two_orders_at_a_time_is_found() {
        is_found(|day| day.orders[0]["created_at"] = json!("2026-11-26T12:04:59.999Z"), "was lent to ord_2 before ord_1 was over");
        let pending = |day: &mut Day| day.orders.iter_mut().for_each(|order| order["status"] = json!("pending"));
        is_found(pending, "wal_1 is lent to ord_1 and to ord_2 at once");
    }
}
