//! A receiver that hangs delays nobody: a thousand others hear of their orders while it says nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use std::time::Duration;

use serde_json::json;
use tidegate::clock;
use tidegate::store::{Commit, Migrate, Store};
use tidegate_rules::changes::{Changes, NewEvent};
use tidegate_rules::id::{DeliveryId, EventId, OrderId};
use tidegate_rules::notify::EventType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::shop::Shop;
use crate::wait::eventually_within;

const RECEIVERS: usize = 1_000;

/// More than one receiver may have under way at once, many times over.
const FOR_THE_DEAD: usize = 60;

/// More webhooks than are read at once.
const MUCH: usize = 600;

/// A receiver of one webhook, on a port of its own: who it is is scheme, host and port.
async fn receiver(number: usize, heard: Arc<Mutex<BTreeSet<usize>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        if whole_request(&mut stream).await {
            heard.lock().unwrap().insert(number);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
        }
    });
    url
}

/// Reads a request to the end of its body.
async fn whole_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    let mut part = [0; 4_096];
    loop {
        let count = stream.read(&mut part).await.unwrap();
        request.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return false;
            }
            continue;
        };
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        if body.len() >= length.unwrap().parse().unwrap() {
            return true;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_delays_none_of_a_thousand_others() {
    let shop = Shop::open().await;
    // It takes connections and never answers.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead_url = format!("http://{}/", dead.local_addr().unwrap());
    let hanging = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(dead.accept().await.unwrap().0);
        }
    });
    let heard = Arc::new(Mutex::new(BTreeSet::new()));
    let order = async |url: &str| {
        // Without a network nothing is leased, and the event is told all the same.
        shop.api().post("/api/v1/orders", &json!({ "amount": "5", "callback_url": url })).await.expect(201);
    };
    futures_util::future::join_all((0..FOR_THE_DEAD).map(|_| order(&dead_url))).await;
    for group in 0..RECEIVERS / 50 {
        let numbers = group * 50..(group + 1) * 50;
        futures_util::future::join_all(numbers.map(async |number| order(&receiver(number, Arc::clone(&heard)).await).await)).await;
    }
    eventually_within(std::time::Duration::from_secs(120), "everybody else has heard", async || {
        let count = heard.lock().unwrap().len();
        if count == RECEIVERS { Ok(()) } else { Err(format!("{count} of {RECEIVERS}")) }
    })
    .await;
    // Those of the dead wait for it still, all of them. What was heard is noted a moment later.
    eventually_within(std::time::Duration::from_secs(60), "only the dead one's are due", async || {
        let waiting = crate::operator::look(&shop.home, "SELECT COUNT(*) FROM payment_webhooks WHERE status = 'due'").await;
        if waiting == FOR_THE_DEAD.to_string() { Ok(()) } else { Err(waiting) }
    })
    .await;
    hanging.abort();
}

/// One order may have much to tell to a receiver that hangs. It is told one thing at a time, and what
/// waits for that keeps nobody else waiting.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_much_to_tell_delays_no_other() {
    let mut shop = Shop::open().await;
    shop.gateway.kill();
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead_url = format!("http://{}/", dead.local_addr().unwrap());
    let store = Store::open(&shop.home.database_url, 2, Duration::from_secs(30), Migrate::No).await.unwrap();
    let (at, order) = (clock::now(), OrderId::new(clock::now(), clock::id_bytes()));
    let events = (0..MUCH).map(|_| NewEvent {
        id: EventId::new(at, clock::id_bytes()),
        kind: EventType::Underpaid,
        merchant: shop.merchant.id.parse().unwrap(),
        subject: order.into(),
        at,
        body: "{}".to_owned(),
        delivery: Some((DeliveryId::new(at, clock::id_bytes()), dead_url.clone())),
    });
    assert_eq!(store.commit(Changes { events: events.collect(), ..Changes::default() }).await.unwrap(), Commit::Done);
    store.close().await;
    shop.start_again().await;
    let heard = Arc::new(Mutex::new(BTreeSet::new()));
    let url = receiver(1, Arc::clone(&heard)).await;
    shop.api().post("/api/v1/orders", &json!({ "amount": "5", "callback_url": url })).await.expect(201);
    // The dead one is given up after a quarter of a minute each time.
    eventually_within(Duration::from_secs(12), "the other has heard", async || {
        if heard.lock().unwrap().is_empty() { Err("not yet") } else { Ok(()) }
    })
    .await;
}
