//! Several `serve` processes on one PostgreSQL database. Any of them answers; each network is followed
//! by one; when that one is killed, paused or stopped another goes on, and what the paused one still
//! believes is not written. `TIDEGATE_SEED` repeats a run's choices.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use tokio::time::Instant;

use crate::gateway::{Gateway, Home, NETWORK, Settings};
use crate::kill::{self, Ledger, Random};
use crate::postgres::{self, Server};
use crate::shop::{Order, Shop};
use crate::wait::{eventually, eventually_within, now_s};

/// A duty that nobody renews is free after five seconds; on a busy machine all takes longer.
const TAKE_OVER_MAX: Duration = Duration::from_secs(60);

/// The load ends after this at the latest.
const LOAD_MAX: Duration = Duration::from_secs(60);

/// Orders stop here, should the machine be fast.
const ORDERS_MAX: usize = 120;

/// The one of these processes that follows the network: its log says when it began.
async fn leader(instances: &[&Gateway]) -> usize {
    let began = |gateway: &Gateway| {
        let output = gateway.process.output();
        let of_follow = |text: &str| output.lines().filter(|line| line.contains("follow anvil") && line.contains(text)).count();
        of_follow("this process does it") > of_follow("another process does it")
    };
    eventually_within(TAKE_OVER_MAX, "one process follows", async || {
        let following: Vec<usize> = instances.iter().enumerate().filter(|(_, gateway)| began(gateway)).map(|(index, _)| index).collect();
        if let [one] = following[..] { Ok(one) } else { Err(format!("{following:?}")) }
    })
    .await
}

fn on_postgres(settings: &mut Settings) {
    settings.postgres = true;
}

/// The order, as this process says.
async fn is(gateway: &Gateway, key: &str, order: &Order, status: &str) {
    eventually_within(TAKE_OVER_MAX, &format!("{} is {status}", order.id), async || {
        let now = gateway.api(key).order(&order.id).await;
        if now["status"] == status { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn two_processes_are_one_gateway() {
    let shop = Shop::open_with(on_postgres).await;
    let second = shop.home.serve().await;
    second.ready().await;
    let both = [&shop.gateway, &second];
    let leads = leader(&both).await;
    let (leading, other) = (both[leads], both[1 - leads]);
    // The wallet is made, and the order opened, where the network is not followed.
    let api = other.api(&shop.key);
    let mut orders = Vec::new();
    for amount in ["12.5", "3", "4"] {
        let body = json!({ "amount": amount, "network": NETWORK, "expires_in": 3600 });
        orders.push((Order::of(&api.post("/api/v1/orders", &body).await.expect(201).json()), amount));
    }
    for (order, amount) in &orders {
        shop.pay(order, amount).await;
    }
    for (order, _) in &orders {
        is(other, &shop.key, order, "confirming").await;
    }
    shop.anvil.mine(3).await;
    for (order, _) in &orders {
        is(leading, &shop.key, order, "paid").await;
        is(other, &shop.key, order, "paid").await;
        shop.events(order, &["order.pending", "order.confirming?", "order.paid"]).await;
    }
    // Nothing was in anybody's way, so each was sent once, by one of them.
    let mut times: HashMap<String, usize> = HashMap::new();
    for delivery in shop.receiver.deliveries() {
        *times.entry(delivery.id).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    // Confirmations count up on both.
    let head =
        async |gateway: &Gateway| gateway.api("").with_key(None).get("/health/blockchain").await.json()["details"][NETWORK]["head"].clone();
    let tip = shop.anvil.head().await.number;
    for gateway in both {
        eventually("both know the head", async || {
            let known = head(gateway).await;
            if known == tip { Ok(()) } else { Err(format!("{known} of {tip}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_process_that_ends_in_order_gives_its_duties_up() {
    let mut shop = Shop::open_with(on_postgres).await;
    assert_eq!(leader(&[&shop.gateway]).await, 0);
    let order = shop.order("5").await;
    shop.gateway.terminate().await;
    let held = postgres::query(&shop.home.database_url, "SELECT count(*), max(held_until) FROM duties");
    assert_eq!(held, "2|0", "nobody has to wait for its term");
    shop.pay(&order, "5").await;
    shop.anvil.mine(3).await;
    shop.start_again().await;
    is(&shop.gateway, &shop.key, &order, "paid").await;
}

#[tokio::test]
async fn a_follower_that_was_paused_writes_nothing_when_it_comes_back() {
    let shop = Shop::open_with(on_postgres).await;
    let second = shop.home.serve().await;
    second.ready().await;
    assert_eq!(leader(&[&shop.gateway, &second]).await, 0);
    let (before, during) = (shop.order("5").await, shop.order("7").await);
    shop.pay(&before, "5").await;
    is(&second, &shop.key, &before, "confirming").await;
    shop.gateway.process.pause();
    shop.send(&during, "7").await;
    shop.anvil.mine(4).await;
    is(&second, &shop.key, &before, "paid").await;
    is(&second, &shop.key, &during, "paid").await;
    shop.gateway.process.go_on();
    eventually_within(TAKE_OVER_MAX, "the first has noticed", async || {
        let output = shop.gateway.process.output();
        let noticed = output.lines().any(|line| line.contains("follow anvil") && line.contains("another process does it"));
        if noticed { Ok(()) } else { Err(output) }
    })
    .await;
    let after = shop.order("2").await;
    shop.pay(&after, "2").await;
    shop.anvil.mine(3).await;
    for order in [&before, &during, &after] {
        is(&shop.gateway, &shop.key, order, "paid").await;
        shop.events(order, &["order.pending", "order.confirming?", "order.paid"]).await;
    }
    assert_eq!(leader(&[&shop.gateway, &second]).await, 1);
}

#[tokio::test]
async fn a_follower_that_is_paused_in_the_middle_of_a_commit_holds_nobody_up() {
    let shop = Shop::open_with(on_postgres).await;
    let second = shop.home.serve().await;
    second.ready().await;
    assert_eq!(leader(&[&shop.gateway, &second]).await, 0);
    let order = shop.order("5").await;
    // Commits go as far as the note of their id, which is the last thing before the end.
    let url = &shop.home.database_url;
    sqlx::any::install_default_drivers();
    let mut keeper = sqlx::AnyConnection::connect(url).await.unwrap();
    keeper.execute("BEGIN; LOCK TABLE commits IN ACCESS EXCLUSIVE MODE").await.unwrap();
    shop.pay(&order, "5").await;
    let waiting = "SELECT count(*) FROM pg_locks d JOIN pg_locks c ON c.pid = d.pid WHERE d.relation = 'duties'::regclass \
                   AND d.mode = 'RowShareLock' AND d.granted AND c.relation = 'commits'::regclass AND NOT c.granted";
    eventually("the follower is in the middle of a commit", async || match postgres::query(url, waiting).as_str() {
        "0" => Err("not yet"),
        _ => Ok(()),
    })
    .await;
    shop.gateway.process.pause();
    keeper.execute("ROLLBACK").await.unwrap();
    // Now it holds the fence of its duty, and does not go on.
    shop.anvil.mine(3).await;
    is(&second, &shop.key, &order, "paid").await;
    shop.gateway.process.go_on();
    is(&shop.gateway, &shop.key, &order, "paid").await;
    assert_eq!(leader(&[&shop.gateway, &second]).await, 1);
    shop.events(&order, &["order.pending", "order.confirming?", "order.paid"]).await;
}

#[tokio::test]
async fn lists_are_read_from_a_replica_as_long_as_it_is_well() {
    let server = Server::start();
    let url = server.database("shop");
    let mut replica = server.replica();
    let elsewhere = replica.url_of(&url);
    let shop = Shop::open_with(|settings| {
        settings.database_url = Some(url.clone());
        settings.env.push(("DATABASE_REPLICA_URL", elsewhere.clone()));
    })
    .await;
    let api = shop.api();
    let count = async || api.get("/api/v1/orders").await.expect(200).json()["data"].as_array().unwrap().len();
    let listed = async |expected: usize| {
        eventually_within(TAKE_OVER_MAX, &format!("{expected} orders are listed"), async || match count().await {
            found if found == expected => Ok(()),
            found => Err(found),
        })
        .await;
    };
    let said = async |times: usize, text: &str| {
        eventually_within(TAKE_OVER_MAX, text, async || {
            count().await;
            let output = shop.gateway.process.output();
            if output.matches(text).count() >= times { Ok(()) } else { Err(output) }
        })
        .await;
    };
    said(1, "lists are read from the replica").await;
    shop.order("5").await;
    listed(1).await;

    // What the replica does not know is not listed: it is the one that is asked.
    replica.query(&elsewhere, "SELECT pg_wal_replay_pause()").unwrap();
    eventually("the replica stands still", async || match replica.query(&elsewhere, "SELECT pg_get_wal_replay_pause_state()") {
        Ok(state) if state == "paused" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let second = shop.order("6").await;
    assert_eq!(count().await, 1);
    assert_eq!(api.order(&second.id).await["id"], second.id, "an order by its id comes from the database itself");
    // Until it is too far behind.
    said(1, "the read replica is left alone for a while: it is").await;
    listed(2).await;
    replica.query(&elsewhere, "SELECT pg_wal_replay_resume()").unwrap();
    said(2, "lists are read from the replica").await;
    // Gone, nobody notices.
    replica.crash();
    for _ in 0..3 {
        assert_eq!(count().await, 2);
    }
    said(2, "the read replica is left alone for a while").await;
    replica.start_again();
    said(3, "lists are read from the replica").await;
}

#[tokio::test]
async fn books_are_exact_whatever_happens_to_three_processes_and_their_database() {
    let seed = std::env::var("TIDEGATE_SEED").map_or_else(|_| now_s(), |seed| seed.parse().unwrap());
    println!("seed {seed}: repeat with TIDEGATE_SEED={seed}");
    let random = Random(Cell::new(seed));
    let mut server = Server::start();
    let url = server.database("shop");
    let mut shop = Shop::open_with(|settings| settings.database_url = Some(url.clone())).await;
    let mut others = vec![shop.home.serve().await, shop.home.serve().await];
    shop.receiver.fail_next(3);
    let ledger = Ledger::default();
    let bases = RefCell::new(std::iter::once(&shop.gateway).chain(&others).map(|gateway| gateway.base.clone()).collect::<Vec<_>>());
    let (done, number) = (Cell::new(false), Cell::new(0));
    let (api, start) = (shop.api(), Instant::now());
    let mut take_overs: Vec<(&str, Duration)> = Vec::new();
    {
        let Shop { anvil, tokens, home, gateway, .. } = &mut shop;
        let (anvil, token) = (&*anvil, tokens.usdt);
        let any_base = || {
            let bases = bases.borrow();
            bases[usize::try_from(random.below(3)).unwrap()].clone()
        };
        let customer = async || {
            while !done.get() && number.get() < ORDERS_MAX {
                number.set(number.get() + 1);
                let name = format!("i-{seed}-{}", number.get());
                let micros = 1_000_000 + u128::from(random.below(99_000_000));
                let amount = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
                let order = kill::make_order(&api, any_base, &name, &amount).await;
                let sent = kill::pay(anvil, token, order, amount, micros, &random).await;
                ledger.orders.borrow_mut().insert(name, sent);
            }
        };
        let miner = async {
            while !done.get() {
                anvil.mine(1).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let trouble = async {
            let mut instances: Vec<&mut Gateway> = std::iter::once(gateway).chain(&mut others).collect();
            // Each kind of trouble for the one that follows, then some for anybody.
            for turn in 0..7 {
                if start.elapsed() > LOAD_MAX {
                    break;
                }
                // The random moment is what is tested here; nothing is waited for.
                tokio::time::sleep(Duration::from_millis(300 + random.below(1500))).await;
                let holder = server.query(&url, &format!("SELECT holder FROM duties WHERE name = 'follow {NETWORK}'")).unwrap_or_default();
                let leads = instances.iter().position(|gateway| !holder.is_empty() && gateway.process.output().contains(&holder));
                let target = if turn < 3 { leads.unwrap_or(0) } else { usize::try_from(random.below(3)).unwrap() };
                let is_leader = leads == Some(target);
                let since = Instant::now();
                let kind = match turn {
                    0 => "killed",
                    1 => "paused",
                    2 => "stopped",
                    3 => "database",
                    _ => ["killed", "paused", "stopped"][usize::try_from(random.below(3)).unwrap()],
                };
                println!("{:?}: {kind} {target}, which {}", start.elapsed(), if is_leader { "follows" } else { "looks on" });
                match kind {
                    "killed" => instances[target].kill(),
                    "paused" => instances[target].process.pause(),
                    "stopped" => instances[target].terminate().await,
                    _ => {
                        server.crash();
                        tokio::time::sleep(Duration::from_millis(random.below(2000))).await;
                        server.start_again();
                    }
                }
                if is_leader && kind != "database" {
                    eventually_within(TAKE_OVER_MAX, "another follows", async || {
                        let sql = format!("SELECT holder FROM duties WHERE name = 'follow {NETWORK}' AND held_until > 0");
                        let now = server.query(&url, &sql)?;
                        if now.is_empty() || now == holder { Err(now) } else { Ok(()) }
                    })
                    .await;
                    take_overs.push((kind, since.elapsed()));
                }
                match kind {
                    "paused" => instances[target].process.go_on(),
                    "database" => {}
                    _ => {
                        *instances[target] = home.serve().await;
                        bases.borrow_mut()[target].clone_from(&instances[target].base);
                    }
                }
            }
            done.set(true);
        };
        join(join(miner, trouble), join_all((0..4).map(|_| customer()))).await;
    }
    let made = ledger.orders.borrow().len();
    println!("{made} orders in {:?}; the network was taken over: {take_overs:?}", start.elapsed());
    assert!(made > 0 && take_overs.len() >= 2, "nothing to speak of happened");

    shop.anvil.mine(5).await;
    kill::exact(&shop, &shop.api(), &ledger.orders.into_inner()).await;
}

/// A new network of which no endpoint answers is out of reach for whoever only looks on, too.
#[tokio::test]
async fn a_network_that_nobody_reaches_keeps_no_process_from_being_ready() {
    let mut settings = Settings::new("http://127.0.0.1:9", [1; 20]);
    settings.postgres = true;
    let home = Home::new(&settings);
    let (one, two) = (home.serve().await, home.serve().await);
    one.ready().await;
    two.ready().await;
}
