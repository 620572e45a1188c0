//! A receiver that hangs delays nobody: a thousand others hear of their orders while it says nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::shop::Shop;
use crate::wait::eventually_within;

const RECEIVERS: usize = 1_000;

/// More than one receiver may have under way at once, many times over.
const FOR_THE_DEAD: usize = 60;

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
