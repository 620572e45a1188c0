//! The process is killed with `kill -9` at random moments while orders are made, paid and
//! announced; it starts again on the same data, many times. Afterwards the books must be exact:
//! every order there once and paid once with what was sent to it, no wallet given to two orders,
//! every event delivered. `TIDEGATE_SEED` repeats a run's choices.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::anvil::Anvil;
use crate::api::Api;
use crate::evm;
use crate::gateway::{NETWORK, Settings};
use crate::receiver::Delivery;
use crate::shop::{Order, Shop};
use crate::wait::{eventually_within, now_s};

/// The load ends when the kills are done, or after this.
const LOAD_MAX: Duration = Duration::from_secs(150);

/// After the last start, everything must be settled and delivered within this.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// A shop waits no longer for an answer before it asks again.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Fewer are no load to speak of.
const ORDERS_MIN: usize = 20;

/// Orders stop here, should the machine be fast.
const ORDERS_MAX: usize = 400;

#[tokio::test]
async fn books_are_exact_after_many_kills_on_sqlite() {
    books_are_exact(|_| (), 15).await;
}

#[tokio::test]
async fn books_are_exact_after_many_kills_on_postgres() {
    books_are_exact(|settings| settings.postgres = true, 6).await;
}

/// What we did, to be compared with what the gateway says.
#[derive(Default)]
pub struct Ledger {
    /// By merchant_order_id: the order as first answered, its amount, the transactions to it.
    pub orders: RefCell<BTreeMap<String, Sent>>,
}

pub struct Sent {
    pub order: Order,
    pub amount: String,
    pub transactions: BTreeSet<String>,
}

async fn books_are_exact(adjust: impl FnOnce(&mut Settings), kills: u32) {
    let seed = std::env::var("TIDEGATE_SEED").map_or_else(|_| now_s(), |seed| seed.parse().unwrap());
    println!("seed {seed}: repeat with TIDEGATE_SEED={seed}");
    let random = Random(Cell::new(seed));
    let mut shop = Shop::open_with(adjust).await;
    shop.receiver.fail_next(3);
    let ledger = Ledger::default();

    let done = Cell::new(false);
    let base = RefCell::new(shop.gateway.base.clone());
    let api = shop.api();
    let number = Cell::new(0);
    let start = Instant::now();
    let mut killed = 0;
    {
        // What the load needs of the shop, so that the killer may hold the process meanwhile.
        let Shop { anvil, tokens, home, gateway, .. } = &mut shop;
        let (anvil, token) = (&*anvil, tokens.usdt);
        let customer = async || {
            while !done.get() && number.get() < ORDERS_MAX {
                number.set(number.get() + 1);
                let name = format!("k-{seed}-{}", number.get());
                let micros = 1_000_000 + u128::from(random.below(99_000_000));
                let amount = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
                let order = make_order(&api, || base.borrow().clone(), &name, &amount).await;
                let sent = pay(anvil, token, order, amount, micros, &random).await;
                ledger.orders.borrow_mut().insert(name, sent);
            }
        };
        let miner = async {
            while !done.get() {
                anvil.mine(1).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let killer = async {
            while killed < kills && start.elapsed() < LOAD_MAX {
                // The random moment is what is tested here; nothing is waited for.
                tokio::time::sleep(Duration::from_millis(100 + random.below(1900))).await;
                gateway.kill();
                killed += 1;
                *gateway = home.serve().await;
                base.borrow_mut().clone_from(&gateway.base);
            }
            // A slow machine has made few orders by then: it goes on for a while.
            eventually_within(SETTLE_MAX, "there was a load to speak of", async || {
                let made = ledger.orders.borrow().len();
                if made > ORDERS_MIN { Ok(()) } else { Err(made) }
            })
            .await;
            done.set(true);
        };
        join(join(miner, killer), join_all((0..4).map(|_| customer()))).await;
    }
    let made = ledger.orders.borrow().len();
    println!("{killed} kills, {made} orders in {:?}", start.elapsed());
    assert!(killed >= kills.min(5), "only {killed} kills: the process starts too slowly");

    // One more kill with everything sent, then peace.
    shop.anvil.mine(1).await;
    shop.restart().await;
    shop.anvil.mine(5).await;
    exact(&shop, &shop.api(), &ledger.orders.into_inner()).await;
}

/// Pays an order, every third in two parts.
pub async fn pay(anvil: &Anvil, token: evm::Address, order: Order, amount: String, micros: u128, random: &Random) -> Sent {
    let parts = match random.below(3) {
        0 => vec![micros / 3, micros - micros / 3],
        _ => vec![micros],
    };
    let mut transactions = BTreeSet::new();
    for part in parts {
        let args = [evm::Arg::Address(order.address), evm::Arg::Uint(part)];
        let call = evm::call("transfer(address,uint256)", &args);
        transactions.insert(anvil.send(anvil.accounts[1], Some(token), &call).await);
    }
    Sent { order, amount, transactions }
}

/// The gateway says exactly what we did, and the shop has heard all of it.
pub async fn exact(shop: &Shop, api: &Api, ledger: &BTreeMap<String, Sent>) {
    eventually_within(SETTLE_MAX, "every order is paid", async || {
        let open: Vec<_> = api.all("/api/v1/orders?limit=200").await.into_iter().filter(|o| o["status"] != "paid").collect();
        if open.is_empty() { Ok(()) } else { Err(format!("{} open, such as {}", open.len(), open[0])) }
    })
    .await;

    // Every order exists once, with exactly what was sent to it, on a wallet of its own.
    let listed = api.all("/api/v1/orders?limit=200").await;
    let names: BTreeSet<&str> = listed.iter().map(|o| o["merchant_order_id"].as_str().unwrap()).collect();
    assert_eq!(names.len(), listed.len(), "an order was made twice");
    assert_eq!(names, ledger.keys().map(String::as_str).collect(), "orders that nobody made, or lost ones");
    let mut wallets = HashMap::new();
    for now in &listed {
        let sent = &ledger[now["merchant_order_id"].as_str().unwrap()];
        assert_eq!(now["id"], sent.order.id, "two answers for one order: {now}");
        assert_eq!(now["address"], sent.order.address_text, "{now}");
        for member in ["amount", "amount_received", "amount_confirmed"] {
            assert_eq!(now[member], sent.amount, "{member} of {now}");
        }
        assert!(now["exception"].is_null(), "{now}");
        let transfers = now["transfers"].as_array().unwrap();
        let hashes: BTreeSet<String> = transfers.iter().map(|t| t["tx_hash"].as_str().unwrap().to_owned()).collect();
        assert_eq!(hashes, sent.transactions, "{now}");
        assert_eq!(transfers.len(), sent.transactions.len(), "a transfer is counted twice: {now}");
        let other = wallets.insert(now["wallet_id"].clone(), now["id"].clone());
        assert!(other.is_none(), "{} leased to {other:?} and {}", now["wallet_id"], now["id"]);
        let on_chain = shop.anvil.balance(shop.tokens.usdt, sent.order.address).await;
        assert_eq!(on_chain, evm::units(&sent.amount, 6), "the test's own books: {now}");
    }

    // Every event that the gateway knows of has arrived; each order was announced paid once.
    for sent in ledger.values() {
        let id = &sent.order.id;
        let path = format!("/api/v1/orders/{id}/events");
        let known = api.get(&path).await.expect(200).json();
        let known: BTreeSet<String> = known["data"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect();
        let arrived = eventually_within(SETTLE_MAX, "every event has arrived", async || {
            let arrived = shop.receiver.deliveries_of(id);
            let ids: BTreeSet<String> = arrived.iter().map(|d| d.id.clone()).collect();
            let missing: Vec<&String> = known.difference(&ids).collect();
            if missing.is_empty() { Ok(arrived) } else { Err(format!("{id} lacks {missing:?} of {known:?}")) }
        })
        .await;
        announced_once(id, &arrived, &shop.merchant.webhook_secret);
    }
}

/// Creates an order through kills: the same idempotency key until there is an answer.
pub async fn make_order(api: &Api, base: impl Fn() -> String, name: &str, amount: &str) -> Order {
    let body = json!({ "amount": amount, "network": NETWORK, "merchant_order_id": name, "expires_in": 86400 });
    eventually_within(SETTLE_MAX, &format!("order {name} is made"), async || {
        let api = api.at(&base());
        let request = api.request(Method::POST, "/api/v1/orders").header("Idempotency-Key", name).json(&body);
        // A process that stands still does not answer; another may.
        match tokio::time::timeout(ANSWER_MAX, request.try_send()).await {
            Err(_) => Err("no answer in time".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(answer)) if answer.status == 503 => Err(answer.text()),
            Ok(Ok(answer)) => Ok(Order::of(&answer.expect(201).json())),
        }
    })
    .await
}

/// One event for the creation, one for the payment; deliveries of one event are all alike.
fn announced_once(order_id: &str, deliveries: &[Delivery], secret: &str) {
    let mut kinds: HashMap<String, BTreeSet<&str>> = HashMap::new();
    let mut bodies: HashMap<&str, &[u8]> = HashMap::new();
    for delivery in deliveries {
        delivery.verify(secret).unwrap_or_else(|error| panic!("{error}: {delivery:?}"));
        kinds.entry(delivery.kind()).or_default().insert(&delivery.id);
        let body = bodies.entry(&delivery.id).or_insert(&delivery.body);
        assert_eq!(*body, delivery.body, "the body of {} changed", delivery.id);
    }
    for kind in ["order.pending", "order.paid"] {
        let ids = kinds.get(kind).map_or(0, BTreeSet::len);
        assert_eq!(ids, 1, "{order_id} has {ids} {kind} events: {kinds:?}");
    }
}

/// Random enough for choosing moments, and the same again from the same seed (splitmix64).
pub struct Random(pub Cell<u64>);

impl Random {
    pub fn below(&self, limit: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
