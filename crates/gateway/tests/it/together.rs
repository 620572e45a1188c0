//! Several processes on one database: they count limits together in Redis, and hear of each other
//! through Redis or PostgreSQL. And none of it is missed when Redis dies.
//!
//! Redis is waited for only a moment, so on a machine that stands still a process counts for itself
//! once: what must hold then is that it is soon refused all the same, long before its own limit.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::cache::{Cache, RedisHealth};
use tidegate::config::{Config, Overrides, SecretText, SecretUrl, Sources};
use tidegate::gateway::{Gateway as Program, Wake};
use tidegate::rate::{Limiter, Rate, Together};
use tidegate::signals;
use tidegate::start;
use tidegate::store::Migrate;
use tidegate_rules::id::OrderId;
use tidegate_rules::time::Time;
use tokio::sync::broadcast::Receiver as Signals;
use tokio::sync::watch;

use crate::api::http;
use crate::gateway::{Gateway, Home, NETWORK, Settings};
use crate::redis::Redis;
use crate::shop::{SHOP_SCOPES, Shop};
use crate::wait::eventually;

/// How often each worker of a load asks.
const LOAD_PACE: Duration = Duration::from_millis(20);

/// Five at once, and one more after a time that no test lasts.
const FIVE: Rate = Rate { burst: NonZeroU32::new(5).unwrap(), every: Duration::from_secs(3_600) };

/// Where one process counts, once Redis works for it.
async fn counting(redis: &Redis, installation: &str) -> Together {
    let cache = Cache::new(Some(&SecretUrl::new(redis.url().parse().unwrap())), installation);
    healthy(&cache).await;
    Together::new(cache.shared().unwrap(), SecretText::new("the same in all processes of a database"))
}

async fn healthy(cache: &Cache) {
    eventually("Redis is healthy", async || match cache.redis().await {
        RedisHealth::Healthy => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

fn by_address(what: &'static str, together: Option<&Together>) -> Limiter<IpAddr> {
    Limiter::new(what, FIVE, IpAddr::to_string, together)
}

/// A client that nobody has counted before.
fn somebody() -> IpAddr {
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    IpAddr::from(u32::try_from(0xc000_0200 + KNOWN.fetch_add(1, SeqCst)).unwrap().to_be_bytes())
}

/// How many of ten, asked of these in turn, are let in.
async fn let_in(limiters: &[&Limiter<IpAddr>], who: IpAddr) -> usize {
    let mut let_in = 0;
    for limiter in limiters.iter().cycle().take(10) {
        match limiter.count(&who).await {
            Ok(()) => let_in += 1,
            Err(again_s) => assert!((1..=3_601).contains(&again_s), "{again_s}"),
        }
    }
    let_in
}

#[tokio::test]
async fn two_processes_let_in_no_more_than_one() {
    let redis = Redis::start().await;
    let (first, second) = (counting(&redis, "shop").await, counting(&redis, "shop").await);
    let (one, two) = (by_address("a", Some(&first)), by_address("a", Some(&second)));
    let who = eventually("five are let in by both together", async || {
        let who = somebody();
        let count = let_in(&[&one, &two], who).await;
        if count == 5 { Ok(who) } else { Err(count) }
    })
    .await;
    // A restart forgets nobody. Another limit, somebody else and another installation are not concerned.
    let third = counting(&redis, "shop").await;
    let again = by_address("a", Some(&third));
    eventually("a new process knows who was here", async || if again.count(&who).await.is_err() { Ok(()) } else { Err("let in") }).await;
    by_address("b", Some(&third)).count(&who).await.unwrap();
    again.count(&somebody()).await.unwrap();
    let stranger = counting(&redis, "another shop").await;
    by_address("a", Some(&stranger)).count(&who).await.unwrap();

    // Whoever looks into Redis does not learn who was here, and what is there ends by itself.
    let keys = redis.command(&["KEYS", "*"]);
    let counted: Vec<&str> = keys.lines().filter(|key| key.starts_with("tidegate:1:shop:rate:a:")).collect();
    assert!(!counted.is_empty() && !keys.contains("192.0.2."), "{keys}");
    for key in counted {
        let left: u64 = redis.command(&["PTTL", key]).parse().unwrap();
        assert!((1..=5 * 3_600_000).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn what_is_not_ours_under_a_limit_locks_nobody_out_for_long() {
    let redis = Redis::start().await;
    let together = counting(&redis, "shop").await;
    let limiter = by_address("a", Some(&together));
    let who = somebody();
    limiter.count(&who).await.unwrap();
    let key = redis.command(&["KEYS", "tidegate:1:shop:rate:a:*"]);
    // A time that cannot be is the farthest that can be: full, and room again after one pace.
    for spoil in [vec!["SET", &key, "nonsense"], vec!["SET", &key, ""], vec!["HSET", &key, "a", "b"]] {
        redis.command(&["DEL", &key]);
        redis.command(&spoil);
        let fresh = by_address("a", Some(&together));
        fresh.count(&who).await.unwrap();
        eventually("it is replaced", async || {
            let kept = redis.command(&["GET", &key]);
            if kept.parse::<u64>().is_ok() { Ok(()) } else { Err(kept) }
        })
        .await;
    }
    redis.command(&["SET", &key, "9e300"]);
    let again_s = eventually("it counts as full", async || by_address("a", Some(&together)).count(&who).await.err().ok_or("let in")).await;
    assert!((1..=3_601).contains(&again_s), "{again_s}");
}

#[tokio::test]
async fn without_redis_each_process_counts_at_once_for_itself() {
    let mut redis = Redis::start().await;
    let together = counting(&redis, "shop").await;
    let limiter = by_address("a", Some(&together));
    redis.kill();
    // Whoever was counted before is not given everything again.
    let who = somebody();
    assert_eq!(let_in(&[&limiter], who).await, 5);
    redis.restart().await;
    assert_eq!(let_in(&[&limiter], who).await, 0, "what this process counted stays counted");
}

#[tokio::test]
async fn an_older_acl_costs_the_limits_and_signals_and_nothing_else() {
    let redis = Redis::start().await;
    // What docs/operating.md asked for when Redis was a cache alone.
    let acl = ["ACL", "SETUSER", "tidegate", "on", ">hunter2", "~tidegate:*", "+getrange", "+pttl", "+set", "+ping", "+select"];
    redis.command(&acl);
    let home = Home::new(&Settings::new("http://127.0.0.1:9", [7; 20]));
    let mut command = home.command(&["serve", "--config", home.config_file().to_str().unwrap()]);
    let mut gateway = Gateway::start(command.env("REDIS_URL", redis.url().replace("redis://", "redis://tidegate:hunter2@"))).await;
    let api = gateway.api(&home.api_key("main", SHOP_SCOPES));
    eventually("both are told", async || {
        api.get("/api/v1/orders").await.expect(200);
        let output = gateway.process.output();
        let told = ["does not let us count limits", "are not heard for now"].iter().all(|text| output.contains(text));
        if told { Ok(()) } else { Err(output) }
    })
    .await;
    for _ in 0..20 {
        api.get("/api/v1/orders").await.expect(200);
    }
    let health = api.get("/health/blockchain").await.json();
    assert_eq!(health["details"]["redis"], json!({ "status": "healthy" }), "{health}");
    gateway.terminate().await;
    let output = gateway.process.output();
    let lines = |text: &str| output.lines().filter(|line| line.contains(text)).count();
    assert_eq!((lines("does not let us count limits"), lines("are not heard for now")), (1, 1), "{output}");
    assert!(output.contains("+evalsha") && !output.contains("hunter2") && !output.contains("left alone"), "{output}");
}

/// A home on PostgreSQL whose processes share a Redis, and whose chain is never asked.
fn home_with(redis: &Redis, more: &str) -> Home {
    let mut settings = Settings::new("http://127.0.0.1:9", [7; 20]);
    settings.postgres = true;
    settings.more = more.to_owned();
    settings.env = vec![("REDIS_URL", redis.url())];
    Home::new(&settings)
}

/// Waits until Redis works for a process.
async fn redis_is(gateway: &Gateway, status: &str) {
    let api = gateway.api("").with_key(None);
    eventually(&format!("Redis is {status}"), async || {
        let health = api.get("/health/blockchain").await.json();
        if health["details"]["redis"]["status"] == status { Ok(()) } else { Err(health) }
    })
    .await;
}

/// Tries to log in with a wrong password. True when it was one try too many.
async fn guess(gateway: &Gateway) -> bool {
    let body = json!({ "email": "owner@shop.example", "password": "a wrong password" });
    let answer = gateway.api("").with_key(None).request(reqwest::Method::POST, "/api/v1/auth/login").json(&body).send().await;
    match answer.status {
        401 => false,
        429 => true,
        _ => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn whoever_guesses_is_slowed_down_by_all_processes_and_after_a_restart() {
    let redis = Redis::start().await;
    let home = home_with(&redis, "");
    let (mut one, two) = (home.serve().await, home.serve().await);
    redis_is(&one, "healthy").await;
    redis_is(&two, "healthy").await;
    // Six at once is what an address has for an account; half as many would do no harm.
    for _ in 0..6 {
        guess(&one).await;
    }
    let refused_soon = async |gateway: &Gateway| {
        for _ in 0..4 {
            if guess(gateway).await {
                return true;
            }
        }
        false
    };
    assert!(refused_soon(&two).await, "the other process counts what the first has seen");
    one.terminate().await;
    let one = home.serve().await;
    redis_is(&one, "healthy").await;
    assert!(refused_soon(&one).await, "a restart forgets no guesses");

    // Keys that do not exist: sixty at once.
    let wrong = two.api("tg_test_0000000000000000000000000000000000000000000000");
    let mut refused = 0;
    for _ in 0..60 {
        refused += usize::from(wrong.get("/api/v1/orders").await.status == 429);
    }
    let wrong = wrong.at(&one.base);
    for _ in 0..20 {
        refused += usize::from(wrong.get("/api/v1/orders").await.status == 429);
    }
    assert!(refused > 0, "sixty here and twenty there are too many together");
}

#[tokio::test]
async fn requests_are_counted_by_all_processes_together() {
    let redis = Redis::start().await;
    let home = home_with(&redis, "[limits]\nrequests_per_second = 1\nburst = 60");
    let key = home.api_key("main", SHOP_SCOPES);
    let (one, two) = (home.serve().await, home.serve().await);
    redis_is(&one, "healthy").await;
    redis_is(&two, "healthy").await;
    let (one, two) = (one.api(&key), two.api(&key));
    let (mut asked, mut refused) = (0, None);
    // Neither reaches its own sixty.
    while asked < 100 && refused.is_none() {
        let answer = if asked % 2 == 0 { &one } else { &two }.get("/api/v1/orders").await;
        asked += 1;
        refused = (answer.status != 200).then_some(answer);
    }
    let refused = refused.unwrap_or_else(|| panic!("{asked} were answered by two that may answer sixty"));
    refused.problem(429, "rate_limited");
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1), "{refused:?}");
}

/// The program in this process, on the home's database.
async fn program(home: &Home, redis: Option<&Redis>) -> Arc<Program> {
    let file = home.config_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let env = |name: &str| match name {
        "DATABASE_URL" => Some(home.database_url.clone()),
        "WALLET_MASTER_KEY" => Some(home.master_key.clone()),
        "REDIS_URL" => redis.map(Redis::url),
        _ => None,
    };
    let sources = Sources { flags: Overrides::default(), env: &env, file: Some((&file, &text)) };
    start::gateway(Config::load(sources).unwrap(), Migrate::No).await.unwrap()
}

/// What is heard up to and with `last`, without what only says that all was missed before.
async fn heard_up_to(signals: &mut Signals<Wake>, last: Wake) -> Vec<Wake> {
    let mut heard = Vec::new();
    loop {
        heard.push(tokio::time::timeout(crate::wait::PATIENCE, signals.recv()).await.expect("a signal").unwrap());
        if heard.last() == Some(&last) {
            return heard;
        }
    }
}

/// Two programs on one database hear each other, and nobody hears an echo.
async fn hear_each_other(one: &Arc<Program>, two: &Arc<Program>) {
    static ORDERS: AtomicU64 = AtomicU64::new(1);
    let order = || Wake::Order(OrderId::new(Time::from_secs(i64::try_from(ORDERS.fetch_add(1, SeqCst)).unwrap()), [7; 10]));
    let (mut at_one, mut at_two) = (one.listen(), two.listen());
    // Both listen once each has heard the other.
    for (from, to) in [(one, two), (two, one)] {
        eventually("one hears the other", async || {
            let (mut listener, said) = (to.listen(), order());
            from.signal(said);
            let heard = tokio::time::timeout(Duration::from_millis(500), async { while listener.recv().await.unwrap() != said {} }).await;
            heard.map_err(|_| "nothing yet")
        })
        .await;
    }
    let (asked, answered) = (order(), order());
    one.signal(asked);
    heard_up_to(&mut at_two, asked).await;
    two.signal(answered);
    let at_one = heard_up_to(&mut at_one, answered).await;
    assert_eq!(at_one.iter().filter(|wake| **wake == asked).count(), 1, "what was said comes back to nobody: {at_one:?}");
    assert_eq!(heard_up_to(&mut at_two, answered).await, [answered], "one that is said here is heard here at once, and once");
}

#[tokio::test]
async fn processes_hear_each_other_through_redis_and_again_when_it_is_back() {
    let mut redis = Redis::start().await;
    let home = home_with(&redis, "");
    let (one, two) = (program(&home, Some(&redis)).await, program(&home, Some(&redis)).await);
    let (_stop, stopped) = watch::channel(false);
    for program in [&one, &two] {
        tokio::spawn(signals::run(Arc::clone(program), stopped.clone()));
        healthy(&program.cache).await;
    }
    hear_each_other(&one, &two).await;
    let said = redis.command(&["PUBSUB", "CHANNELS", "*"]);
    assert!(said.starts_with("tidegate:1:") && said.lines().count() == 1, "{said}");
    redis.kill();
    redis.restart().await;
    hear_each_other(&one, &two).await;
}

#[tokio::test]
async fn processes_hear_each_other_through_postgres_without_redis() {
    let mut settings = Settings::new("http://127.0.0.1:9", [7; 20]);
    settings.postgres = true;
    let home = Home::new(&settings);
    let (one, two) = (program(&home, None).await, program(&home, None).await);
    let (_stop, stopped) = watch::channel(false);
    for program in [&one, &two] {
        tokio::spawn(signals::run(Arc::clone(program), stopped.clone()));
    }
    hear_each_other(&one, &two).await;
    let ended = crate::postgres::query(
        &home.database_url,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    );
    assert_eq!(ended, "2", "both listened, and were cut off");
    hear_each_other(&one, &two).await;
}

/// A checkout page that is kept up to date: the orders it was sent.
struct Page {
    answer: reqwest::Response,
    read: String,
}

impl Page {
    async fn open(gateway: &Gateway, id: &str) -> Self {
        let answer = http().get(format!("{}/pay/{id}/events", gateway.base)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Self { answer, read: String::new() }
    }

    /// Waits for an order with this status.
    async fn shows(&mut self, status: &str) {
        loop {
            let found = self
                .read
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .any(|data| serde_json::from_str::<Value>(data).is_ok_and(|order| order["status"] == status));
            if found {
                return;
            }
            let chunk = self.answer.chunk().await.unwrap_or_else(|error| panic!("{error}: {}", self.read));
            self.read.push_str(&String::from_utf8_lossy(&chunk.unwrap_or_else(|| panic!("the page's stream ended: {}", self.read))));
        }
    }
}

async fn a_page_of_another_process(redis: Option<&Redis>) {
    let shop = Shop::open_with(|settings| {
        settings.postgres = true;
        settings.env = redis.map(|redis| ("REDIS_URL", redis.url())).into_iter().collect();
    })
    .await;
    let mut other = shop.home.serve().await;
    other.ready().await;
    let order = shop.order("12.5").await;
    let mut page = Page::open(&other, &order.id).await;
    page.shows("pending").await;
    shop.api().post(&format!("/api/v1/orders/{}/cancel", order.id), &json!({})).await.expect(200);
    page.shows("cancelled").await;
    drop(page);
    other.terminate().await;
}

#[tokio::test]
async fn a_page_of_one_process_shows_what_another_did_through_postgres() {
    a_page_of_another_process(None).await;
}

#[tokio::test]
async fn a_page_of_one_process_shows_what_another_did_through_redis() {
    a_page_of_another_process(Some(&Redis::start().await)).await;
}

#[tokio::test]
async fn a_redis_that_dies_under_load_is_an_error_to_no_client() {
    let mut redis = Redis::start().await;
    let shop = Shop::open_with(|settings| {
        settings.postgres = true;
        settings.env = vec![("REDIS_URL", redis.url())];
    })
    .await;
    let other = shop.home.serve().await;
    other.ready().await;
    redis_is(&shop.gateway, "healthy").await;
    redis_is(&other, "healthy").await;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = [shop.api(), other.api(&shop.key), shop.api(), other.api(&shop.key)]
        .into_iter()
        .map(|api| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let (mut answers, mut pace) = (0_u32, tokio::time::interval(LOAD_PACE));
                while !stop.load(SeqCst) {
                    api.get("/api/v1/orders").await.expect(200);
                    api.get("/api/v1/admin/wallets/stats").await.expect(200);
                    api.post("/api/v1/orders", &json!({ "amount": "1", "network": NETWORK })).await.expect(201);
                    answers += 3;
                    pace.tick().await;
                }
                answers
            })
        })
        .collect();
    for _ in 0..2 {
        redis.kill();
        redis_is(&shop.gateway, "degraded").await;
        redis_is(&other, "degraded").await;
        redis.restart().await;
        redis_is(&shop.gateway, "healthy").await;
        redis_is(&other, "healthy").await;
    }
    redis.hang();
    redis_is(&other, "degraded").await;
    redis.go_on();
    redis_is(&shop.gateway, "healthy").await;
    redis_is(&other, "healthy").await;
    stop.store(true, SeqCst);
    for worker in load {
        // A worker's own assertions fail here.
        assert!(worker.await.unwrap() > 0);
    }
    // It is as useful as before.
    let before = redis.carried_out("evalsha");
    shop.api().get("/api/v1/orders").await.expect(200);
    eventually("limits are counted in Redis again", async || {
        shop.api().get("/api/v1/orders").await.expect(200);
        let now = redis.carried_out("evalsha");
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
}
