//! The health pages under each fault: a dependency is cut, and all of them are looked at. Whatever
//! hangs, each page is answered, and `/health/live` says 200 throughout.

use std::process::Command;

use serde_json::{Value, json};

use crate::anvil::Anvil;
use crate::api::Api;
use crate::gateway::{Gateway, NETWORK};
use crate::postgres::Server;
use crate::proxy::{Mood, Proxy};
use crate::redis::Redis;
use crate::shop::Shop;
use crate::wait::eventually;

/// How many ask for each page at once while the database hangs: more than it has connections.
const CROWD: usize = 30;

/// The pages as anybody sees them.
struct Pages(Api);

/// What the pages say at one time.
#[derive(Debug)]
struct Seen {
    ready: (u16, Value),
    blockchain: (u16, Value),
}

impl Pages {
    fn of(shop: &Shop) -> Self {
        Self(shop.api().with_key(None))
    }

    async fn look(&self) -> Seen {
        let live = self.0.get("/health/live").await.expect(200).json();
        assert_eq!(live, json!({ "status": "alive" }));
        let read = async |page: &str| {
            let answer = self.0.get(page).await;
            (answer.status, answer.json())
        };
        Seen { ready: read("/health/ready").await, blockchain: read("/health/blockchain").await }
    }

    /// Waits until all of this is so: whether the gateway is ready, its health in one word, and
    /// members of the details by pointers.
    async fn show(&self, ready: bool, health: &str, details: &[(&str, Value)]) -> Seen {
        eventually(&format!("ready: {ready}, {health}, {details:?}"), async || {
            let seen = self.look().await;
            let expected = if ready { (200, "ready") } else { (503, "starting") };
            let is_ready = (seen.ready.0, seen.ready.1["status"].as_str().unwrap()) == expected;
            let code = if health == "unhealthy" { 503 } else { 200 };
            let is_so = seen.blockchain.0 == code && seen.blockchain.1["status"] == health;
            let members = &seen.blockchain.1["details"];
            if is_ready && is_so && details.iter().all(|(pointer, value)| members.pointer(pointer) == Some(value)) {
                Ok(seen)
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
    }
}

/// An order is opened and paid: everything works.
async fn sells(shop: &Shop) {
    let order = eventually("an order is opened", async || {
        let answer = shop.api().post("/api/v1/orders", &json!({ "amount": "3", "network": NETWORK, "expires_in": 3600 })).await;
        if answer.status == 201 { Ok(crate::shop::Order::of(&answer.json())) } else { Err(format!("{answer:?}")) }
    })
    .await;
    shop.pay(&order, "3").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_stopped_and_started_and_hangs_and_goes_on() {
    let mut server = Server::start();
    let url = server.database("shop");
    let mut shop = Shop::open_with(|settings| settings.env.push(("DATABASE_URL", url))).await;
    let config = shop.home.config_file();
    let serve = ["serve", "--config", config.to_str().unwrap()];
    shop.gateway.kill();
    let mut gateway = Gateway::start(shop.home.command(&serve).env("METRICS_ADDR", "127.0.0.1:0")).await;
    let there = |line: &str| line.strip_prefix("metrics on ").map(|url| url.trim().trim_end_matches("/metrics").to_owned());
    let metrics = shop.api().with_key(None).at(&gateway.process.line("metrics on http://…", there).await);
    shop.gateway = gateway;
    let up = async || {
        let text = metrics.get("/metrics").await.expect(200).text();
        text.lines().find_map(|line| line.strip_prefix("tidegate_database_up ").map(str::to_owned)).unwrap()
    };

    let pages = Pages::of(&shop);
    pages.show(true, "healthy", &[("/database", json!({ "status": "healthy" }))]).await;
    sells(&shop).await;

    server.stop();
    let seen = pages.show(false, "unhealthy", &[("/database/status", json!("unhealthy"))]).await;
    assert_eq!(seen.ready.1["database"], "down", "{seen:?}");
    assert!(seen.blockchain.1["details"]["database"]["reason"].is_string(), "{seen:?}");
    assert_eq!(up().await, "0");
    server.start_again();
    pages.show(true, "healthy", &[("/database", json!({ "status": "healthy" }))]).await;
    sells(&shop).await;

    server.hang();
    let silent = json!({ "status": "unhealthy", "reason": "does not answer in time" });
    pages.show(false, "unhealthy", &[("/database", silent)]).await;
    // However many ask, they are answered, and none of them needs a connection for itself.
    let crowd = (0..CROWD).map(|_| pages.look());
    for seen in futures_util::future::join_all(crowd).await {
        assert_eq!((seen.ready.0, seen.blockchain.0), (503, 503), "{seen:?}");
    }
    assert_eq!(up().await, "0");
    server.go_on();
    pages.show(true, "healthy", &[("/database", json!({ "status": "healthy" }))]).await;
    sells(&shop).await;
    assert_eq!(up().await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_that_takes_no_writes_is_not_called_healthy() {
    let mut shop = Shop::open().await;
    // Who ignores SIGXFSZ is refused a write beyond the limit, as on a full disk.
    shop.gateway.kill();
    let inner = shop.home.command(&["serve", "--config", shop.home.config_file().to_str().unwrap()]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().current_dir(shop.home.path());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shop.gateway = Gateway::start(&mut command).await;
    let limit = |bytes: &str| {
        let id = shop.gateway.process.id().to_string();
        let done = Command::new("prlimit").args(["--pid", &id, &format!("--fsize={bytes}:unlimited")]).status().unwrap();
        assert!(done.success());
    };

    let pages = Pages::of(&shop);
    pages.show(true, "healthy", &[]).await;
    sells(&shop).await;
    limit("4096");
    shop.anvil.mine(1).await;
    let full = json!({ "status": "unhealthy", "reason": "takes no writes" });
    let seen = pages.show(false, "unhealthy", &[("/database", full.clone())]).await;
    assert_eq!(seen.ready.1["database"], "down", "{seen:?}");
    // Nothing is written meanwhile, and it is still said.
    pages.show(false, "unhealthy", &[("/database", full)]).await;
    limit("unlimited");
    pages.show(true, "healthy", &[("/database", json!({ "status": "healthy" }))]).await;
    sells(&shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_everything_works_and_the_page_says_so() {
    let mut redis = Redis::start().await;
    let shop = Shop::open_with(|settings| settings.env.push(("REDIS_URL", redis.url()))).await;
    let pages = Pages::of(&shop);
    pages.show(true, "healthy", &[("/redis", json!({ "status": "healthy" }))]).await;
    redis.kill();
    pages.show(true, "degraded", &[("/redis/status", json!("degraded"))]).await;
    sells(&shop).await;
    redis.restart().await;
    pages.show(true, "healthy", &[("/redis", json!({ "status": "healthy" }))]).await;
    redis.hang();
    pages.show(true, "degraded", &[("/redis/status", json!("degraded"))]).await;
    redis.go_on();
    pages.show(true, "healthy", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_lag_fail_and_fall_silent() {
    let anvil = Anvil::start().await;
    let (first, second) = (Proxy::before(&anvil.url).await, Proxy::before(&anvil.url).await);
    let mut shop = Shop::open_on(anvil, |settings| {
        settings.rpc = first.url.clone();
        settings.more_rpc = vec![second.url.clone()];
    })
    .await;
    let pages = Pages::of(&shop);
    let of = |member: &str| format!("/{NETWORK}/{member}");
    pages.show(true, "healthy", &[]).await;

    // One shows no new block: the other is read, and the page says how far the first is behind.
    first.is_now(Mood::Behind(shop.anvil.head().await.number));
    shop.anvil.mine(10).await;
    shop.applied(shop.anvil.head().await.number).await;
    eventually("the page says who lags", async || {
        let now = shop.health().await;
        if now["endpoints"][0]["blocks_behind"].as_u64() > Some(0) { Ok(()) } else { Err(now) }
    })
    .await;
    pages.show(true, "healthy", &[]).await;
    first.is_now(Mood::Honest);

    // Both fail: the network is degraded while its last block is young enough to take orders by.
    let moods = |mood: Mood| {
        first.is_now(mood);
        second.is_now(mood);
    };
    moods(Mood::Broken);
    let seen = pages.show(true, "degraded", &[(&of("status"), json!("degraded")), (&of("following"), json!("following"))]).await;
    assert!(seen.blockchain.1["details"][NETWORK]["last_failure"].is_string(), "{seen:?}");
    moods(Mood::Honest);
    pages.show(true, "healthy", &[(&of("last_failure"), Value::Null)]).await;
    sells(&shop).await;

    // And it does not work at all once that block is too old.
    shop.gateway.kill();
    let config = std::fs::read_to_string(shop.home.config_file()).unwrap();
    shop.home.configure(&config.replace("max_lag = \"1000h\"", "max_lag = \"1s\""));
    shop.start_again().await;
    let pages = Pages::of(&shop);
    pages.show(true, "degraded", &[(&of("status"), json!("degraded")), (&of("following"), json!("lagging"))]).await;
    moods(Mood::Broken);
    pages.show(true, "unhealthy", &[(&of("status"), json!("unhealthy")), (&of("following"), json!("lagging"))]).await;

    // It starts while nobody answers: ready, for it is known why there is no block.
    shop.gateway.kill();
    let home = crate::gateway::Home::new(&crate::gateway::Settings::new(&first.url, shop.tokens.usdt));
    moods(Mood::Broken);
    shop.gateway = home.serve().await;
    let pages = Pages::of(&shop);
    let seen = pages.show(true, "unhealthy", &[(&of("following"), json!("unreachable"))]).await;
    assert_eq!(seen.ready.1["networks"][NETWORK], "unreachable", "{seen:?}");
    moods(Mood::Honest);
    pages.show(true, "healthy", &[(&of("following"), json!("following"))]).await;
    // An endpoint that takes questions and answers none holds up no page.
    moods(Mood::Silent);
    pages.show(true, "degraded", &[(&of("following"), json!("following"))]).await;
}
