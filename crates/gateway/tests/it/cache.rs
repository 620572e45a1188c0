//! The cache with a real Redis, and with what only listens where Redis should be. Nothing here
//! measures the machine's time: it counts how often a source was asked, and what Redis was asked.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::cache::{Cache, Cached, ENTRY_BYTES_MAX, RedisHealth, WAIT_MAX};
use tidegate::config::SecretUrl;

use crate::anvil::Anvil;
use crate::gateway::{Gateway, Home, NETWORK, Settings};
use crate::redis::Redis;
use crate::wait::eventually;

const KIND: Cached = Cached::Balance;

/// How often each worker of a load asks.
const LOAD_PACE: Duration = Duration::from_millis(20);

/// A process that uses the cache: its cache, and how often it asked the source.
#[derive(Clone)]
struct User {
    name: &'static str,
    cache: Cache,
    calls: Arc<AtomicU32>,
}

impl User {
    fn new(name: &'static str, url: &str) -> Self {
        Self::of("shop", name, url)
    }

    fn of(installation: &str, name: &'static str, url: &str) -> Self {
        let url = SecretUrl::new(url.parse().unwrap());
        Self { name, cache: Cache::new(Some(&url), installation), calls: Arc::default() }
    }

    /// Asks for a key. Tells who loaded it: the value is its loader's name.
    async fn ask(&self, key: &str) -> (String, Duration) {
        let (name, calls) = (self.name, Arc::clone(&self.calls));
        let load = async move {
            calls.fetch_add(1, SeqCst);
            Ok::<_, String>(name.to_owned())
        };
        let fetched = self.cache.get(KIND, key, load).await.unwrap();
        ((*fetched.value).clone(), fetched.age)
    }

    fn calls(&self) -> u32 {
        self.calls.load(SeqCst)
    }

    /// Waits until Redis works for this process.
    async fn healthy(&self) {
        eventually("Redis is healthy", async || match self.cache.redis().await {
            RedisHealth::Healthy => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Waits until Redis is left alone, and gives the reason.
    async fn degraded(&self) -> String {
        eventually("Redis is degraded", async || match self.cache.redis().await {
            RedisHealth::Degraded(reason) => Ok(reason),
            other => Err(format!("{other:?}")),
        })
        .await
    }
}

/// Waits until one process gives out what the other loaded, and gives the key. On a machine that
/// stands still for a moment Redis is not waited for, so one try proves nothing.
async fn shares(one: &User, other: &User) -> String {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    eventually("a value is shared", async || {
        let key = format!("shared {}", KEYS.fetch_add(1, SeqCst));
        one.ask(&key).await;
        // The value is on its way while it is given out.
        one.cache.redis().await;
        let before = other.calls();
        let (loaded_by, _) = other.ask(&key).await;
        if other.calls() > before {
            return Err(format!("{} loaded it itself", other.name));
        }
        assert_eq!(loaded_by, one.name);
        Ok(key)
    })
    .await
}

#[tokio::test]
async fn what_one_process_loaded_another_gives_out() {
    let redis = Redis::start().await;
    let (one, two, stranger) =
        (User::new("one", &redis.url()), User::new("two", &redis.url()), User::of("other", "stranger", &redis.url()));
    for user in [&one, &two, &stranger] {
        user.healthy().await;
    }
    let key = shares(&one, &two).await;
    shares(&two, &one).await;
    let stored = format!("tidegate:1:shop:balance:{key}");
    assert_eq!(redis.command(&["GET", &stored]), "\"one\"");
    let left: u64 = redis.command(&["PTTL", &stored]).parse().unwrap();
    assert!((1..=300_000).contains(&left), "{left} ms are left");
    // Another installation sees nothing of it.
    assert_eq!(stranger.ask(&key).await.0, "stranger");

    // A value is as old as its time in Redis says, whose process ever takes it.
    eventually("a late process takes the value with its age, and refreshes it", async || {
        redis.command(&["SET", &stored, "\"one\"", "PX", "20000"]);
        let late = User::new("late", &redis.url());
        late.healthy().await;
        let (loaded_by, age) = late.ask(&key).await;
        if loaded_by != "one" {
            return Err(loaded_by);
        }
        assert!(age >= Duration::from_secs(280) && age < Duration::from_secs(300), "{age:?}");
        // It is past the point of refreshing. The value in Redis is no younger: the source is asked.
        assert_eq!(late.ask(&key).await.0, "one");
        eventually("the source is asked", async || if late.calls() == 1 { Ok(()) } else { Err(late.calls()) }).await;
        late.cache.redis().await;
        let found = redis.command(&["GET", &stored]);
        if found == "\"late\"" { Ok(()) } else { Err(found) }
    })
    .await;
    let left: u64 = redis.command(&["PTTL", &stored]).parse().unwrap();
    assert!(left > 240_000, "{left} ms are left");
}

#[tokio::test]
async fn a_refresh_takes_what_another_process_has_refreshed() {
    let redis = Redis::start().await;
    eventually("the new value is given out", async || {
        let user = User::new("user", &redis.url());
        user.healthy().await;
        redis.command(&["SET", "tidegate:1:shop:balance:a", "\"old\"", "PX", "30000"]);
        let first = user.ask("a").await.0;
        redis.command(&["SET", "tidegate:1:shop:balance:a", "\"new\"", "PX", "299000"]);
        let beside = user.ask("a").await.0;
        let mut then = String::new();
        for _ in 0..20 {
            user.cache.redis().await;
            then = user.ask("a").await.0;
        }
        let seen = [first.as_str(), &beside, &then];
        if seen == ["old", "old", "new"] && user.calls() == 0 { Ok(()) } else { Err(format!("{seen:?}, {} calls", user.calls())) }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_ours_under_our_key_is_a_miss_and_is_replaced() {
    let redis = Redis::start().await;
    let large = format!("\"{}\"", "x".repeat(ENTRY_BYTES_MAX));
    let huge = "x".repeat(120_000);
    let stored = "tidegate:1:shop:balance:a";
    let garbage: [&[&str]; 9] = [
        &["SET", stored, "not JSON", "PX", "100000"],
        &["SET", stored, "\"user", "PX", "100000"],
        &["SET", stored, "{\"another\": \"type\"}", "PX", "100000"],
        &["SET", stored, "", "PX", "100000"],
        &["SET", stored, &large, "PX", "100000"],
        &["SET", stored, &huge, "PX", "100000"],
        // Good, but without an end, or with a later one than we set.
        &["SET", stored, "\"for ever\""],
        &["SET", stored, "\"too long\"", "PX", "900000"],
        &["LPUSH", stored, "a", "list"],
    ];
    for command in garbage {
        redis.command(&["DEL", stored]);
        redis.command(command);
        let user = User::new("user", &redis.url());
        user.healthy().await;
        assert_eq!((user.ask("a").await.0.as_str(), user.calls()), ("user", 1), "{command:.80?}");
        eventually("our value stands there instead", async || match redis.command(&["GETRANGE", stored, "0", "50"]).as_str() {
            "\"user\"" => Ok(()),
            other => {
                // Where Redis was not waited for, the next process writes.
                let next = User::new("user", &redis.url());
                next.healthy().await;
                next.ask("a").await;
                Err(format!("{other} after {command:.80?}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_redis_that_dies_and_comes_back_fails_nobody() {
    let mut redis = Redis::start().await;
    let (one, two) = (User::new("one", &redis.url()), User::new("two", &redis.url()));
    one.healthy().await;
    two.healthy().await;
    shares(&one, &two).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|worker| {
            let (user, stop) = (one.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut asked = 0_u32;
                let mut pace = tokio::time::interval(LOAD_PACE);
                while !stop.load(SeqCst) {
                    assert_eq!(user.ask(&format!("load {worker} {asked}")).await.0, "one");
                    asked += 1;
                    pace.tick().await;
                }
                asked
            })
        })
        .collect();
    for _ in 0..2 {
        redis.kill();
        let reason = two.degraded().await;
        assert!(reason.contains("closed the connection") || reason.contains("cannot be reached") || reason.contains("in time"), "{reason}");
        one.degraded().await;
        // What is in the process is still there.
        two.ask("kept").await;
        let calls = two.calls();
        two.ask("kept").await;
        assert_eq!(two.calls(), calls);
        redis.restart().await;
        one.healthy().await;
        two.healthy().await;
    }
    stop.store(true, SeqCst);
    let mut asked = 0;
    for worker in load {
        // A worker's own assertions fail here.
        asked += worker.await.unwrap();
    }
    assert!(asked > 0);
    shares(&two, &one).await;
}

#[tokio::test]
async fn a_redis_that_hangs_is_asked_once_and_then_left_alone() {
    let redis = Redis::start().await;
    let user = User::new("user", &redis.url());
    user.healthy().await;
    let before = redis.carried_out("getrange");
    redis.hang();
    // From here on time passes only while everybody waits.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    for number in 0..300 {
        assert_eq!(user.ask(&format!("key {number}")).await.0, "user");
    }
    let waited = start.elapsed();
    assert!(waited >= WAIT_MAX && waited < WAIT_MAX * 3, "300 look-ups waited {waited:?} for Redis");
    tokio::time::resume();
    assert_eq!(user.calls(), 300, "every value came from the source");
    let reason = user.degraded().await;
    assert_eq!(reason, "does not answer in time");
    redis.go_on();
    // What was sent before is carried out now: the one question, and none of the 299 others.
    user.healthy().await;
    let asked = redis.carried_out("getrange") - before;
    assert!(asked <= 1, "Redis was asked {asked} times while it hung");
}

/// Listens, says `greeting` to whoever comes, and counts them.
fn listener(greeting: &'static str) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counted.fetch_add(1, SeqCst);
            if !greeting.is_empty() {
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(greeting.as_bytes());
            }
            open.push(stream);
        }
    });
    (url, count)
}

#[tokio::test]
async fn what_listens_where_redis_should_be_is_left_alone() {
    for (greeting, reason) in [
        ("", "does not answer in time"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "answers what Redis would not"),
        // The client waits for the rest.
        ("$999999999\r\n", "does not answer in time"),
        ("*1\r\n+OK\r\n", "answers what Redis would not"),
        (":1\r\n", "answers what Redis would not"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "refuses SET (LOADING)"),
    ] {
        let (url, connections) = listener(greeting);
        let user = User::new("user", &url);
        for number in 0..200 {
            assert_eq!(user.ask(&format!("key {number}")).await.0, "user");
        }
        assert_eq!(user.degraded().await, reason, "{greeting:?}");
        for number in 200..400 {
            user.ask(&format!("key {number}")).await;
        }
        assert_eq!(user.calls(), 400);
        let connections = connections.load(SeqCst);
        // One for the first question; more only where the test itself took seconds.
        assert!((1..10).contains(&connections), "{connections} connections for 400 questions");
    }
}

#[tokio::test]
async fn a_password_is_needed_and_never_shown() {
    let secret = "hunter2/with@signs:and%";
    let encoded = "hunter2%2Fwith%40signs%3Aand%25";
    let redis = Redis::with_password(
        secret,
        // What docs/operating.md says that Tidegate needs.
        &["--user", "tidegate", "on", ">of-tidegate", "~tidegate:*", "+getrange", "+pttl", "+set", "+ping", "+select"],
    )
    .await;
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}/0", redis.port);
    for (login, reason) in [
        ("", Some("NOAUTH")),
        (":wrong-hunter2@", Some("WRONGPASS")),
        ("nobody:hunter2@", Some("WRONGPASS")),
        (&format!(":{encoded}@"), None),
        (&format!("default:{encoded}@"), None),
        ("tidegate:of-tidegate@", None),
    ] {
        let user = User::new("user", &url(login));
        match reason {
            None => user.healthy().await,
            Some(code) => {
                let reason = user.degraded().await;
                assert!(reason.contains(code) && reason.contains("REDIS_URL") && !reason.contains("hunter2"), "{reason}");
            }
        }
        assert_eq!(user.ask("key").await.0, "user", "{login}");
        redis.command(&["FLUSHALL"]);
    }
    let (one, two) = (User::new("one", &url("tidegate:of-tidegate@")), User::new("two", &url("tidegate:of-tidegate@")));
    one.healthy().await;
    two.healthy().await;
    shares(&one, &two).await;
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_not_used() {
    let copy = Redis::start_with(&["--replicaof", "127.0.0.1 1"]).await;
    assert_eq!(User::new("user", &copy.url()).degraded().await, "refuses SET (READONLY)");
    let full = Redis::start_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    assert_eq!(User::new("user", &full.url()).degraded().await, "refuses SET (OOM)");
    let good = Redis::start().await;
    for (path, reason) in
        [("/99", "refuses SELECT (ERR)"), ("/name", "cannot be used: REDIS_URL has something else than a database's number after its host")]
    {
        assert_eq!(User::new("user", &format!("{}{path}", good.url())).degraded().await, reason);
    }
    // Another database of the same server.
    let user = User::new("user", &format!("{}/3", good.url()));
    user.healthy().await;
    let mut tries = 0;
    eventually("the value is in database 3", async || {
        tries += 1;
        user.ask(&format!("{tries}")).await;
        user.cache.redis().await;
        let found = good.command(&["-n", "3", "EXISTS", &format!("tidegate:1:shop:balance:{tries}")]);
        if found == "1" { Ok(()) } else { Err(found) }
    })
    .await;
}

async fn health(gateway: &Gateway) -> Value {
    gateway.api("").with_key(None).get("/health/blockchain").await.expect(200).json()
}

#[tokio::test]
async fn the_program_says_how_redis_does_and_works_without_it() {
    let anvil = Anvil::start().await;
    let tokens = anvil.deploy_tokens(6).await;
    let home = Home::new(&Settings::new(&anvil.url, tokens.usdt));
    let mut redis = Redis::with_password("hunter2", &[]).await;
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
    let config = home.config_file();
    let with_redis = |args: &[&str]| {
        let mut command = home.command(&[args, &["--config", config.to_str().unwrap()]].concat());
        command.env("REDIS_URL", &url);
        command
    };
    let done = crate::gateway::Done::of(&mut with_redis(&["check"])).succeeded();
    let line = done.stdout.lines().find(|line| line.contains(" redis ")).unwrap_or_else(|| panic!("{done:?}")).to_owned();
    assert!(line.starts_with("ok") && line.contains(&redis.port.to_string()), "{line}");
    assert!(!home.run(&["check"]).succeeded().stdout.contains(" redis "), "without REDIS_URL there is nothing to say");

    let mut gateway = Gateway::start(&mut with_redis(&["serve"])).await;
    gateway.ready().await;
    let key = home.api_key("main", &["orders:write", "wallets:read", "wallets:write"]);
    let api = gateway.api(&key);
    let wallets = json!({ "network": NETWORK, "count": 3 });
    api.post("/api/v1/admin/wallets/generate", &wallets).await.expect(201);
    eventually("all is healthy", async || {
        let health = health(&gateway).await;
        if health["status"] == "healthy" && health["details"]["redis"] == json!({ "status": "healthy" }) { Ok(()) } else { Err(health) }
    })
    .await;
    // A second process gives out the first one's numbers, with the time of their counting.
    let stats_of = async |gateway: &Gateway| gateway.api(&key).get("/api/v1/admin/wallets/stats").await.expect(200).json();
    eventually("two processes share the numbers of the pool", async || {
        redis.command(&["FLUSHALL"]);
        let first = Gateway::start(&mut with_redis(&["serve"])).await;
        let counted = stats_of(&first).await;
        api.post("/api/v1/admin/wallets/generate", &wallets).await.expect(201);
        let second = Gateway::start(&mut with_redis(&["serve"])).await;
        let given_out = stats_of(&second).await;
        if given_out == counted { Ok(()) } else { Err(format!("{counted} and {given_out}")) }
    })
    .await;

    let stats = stats_of(&gateway).await;
    redis.kill();
    for _ in 0..3 {
        eventually("Redis is degraded, and so is the whole", async || {
            let health = health(&gateway).await;
            let redis = &health["details"]["redis"];
            let is_told = redis["status"] == "degraded" && redis["reason"].is_string();
            if is_told && health["status"] == "degraded" { Ok(()) } else { Err(health) }
        })
        .await;
        api.post("/api/v1/orders", &json!({ "amount": "1", "network": NETWORK })).await.expect(201);
        assert_eq!(api.get("/api/v1/admin/wallets/stats").await.expect(200).json(), stats, "what is in the process stays");
    }
    let done = crate::gateway::Done::of(&mut with_redis(&["check"]));
    let line = done.stdout.lines().find(|line| line.contains(" redis ")).unwrap_or_else(|| panic!("{done:?}"));
    assert!(done.code == Some(1) && line.starts_with("BAD") && line.contains("cannot be reached"), "{done:?}");

    redis.restart().await;
    eventually("Redis is healthy again", async || {
        let health = health(&gateway).await;
        if health["status"] == "healthy" { Ok(()) } else { Err(health) }
    })
    .await;
    gateway.terminate().await;
    let output = gateway.process.output();
    // A change is logged, not a call: closed, then out of reach, then back.
    let lines = |text: &str| output.lines().filter(|line| line.contains(text)).count();
    assert!((1..=3).contains(&lines("Redis is left alone")), "{output}");
    assert!((2..=4).contains(&lines("Redis answers")), "{output}");
    assert!(!output.contains("hunter2") && !done.output().contains("hunter2"), "{output}");
}

#[tokio::test]
async fn trouble_with_redis_is_logged_once_and_not_at_each_try() {
    let (url, connections) = listener("HTTP/1.1 400 Bad Request\r\n\r\n");
    let home = Home::new(&Settings::new("http://127.0.0.1:1", [7; 20]));
    let config = home.config_file();
    let mut command = home.command(&["serve", "--config", config.to_str().unwrap()]);
    command.env("REDIS_URL", url.replace("redis://", "redis://:hunter2@"));
    let mut gateway = Gateway::start(&mut command).await;
    let api = gateway.api("").with_key(None);
    eventually("Redis was tried again and again", async || {
        // No network works here, so the whole is unhealthy; Redis is not.
        let health = api.get("/health/blockchain").await.json();
        assert_eq!(health["details"]["redis"], json!({ "status": "degraded", "reason": "answers what Redis would not" }));
        let tries = connections.load(SeqCst);
        if tries >= 3 { Ok(()) } else { Err(tries) }
    })
    .await;
    gateway.terminate().await;
    let output = gateway.process.output();
    let lines: Vec<&str> = output.lines().filter(|line| line.contains("Redis")).collect();
    assert!(matches!(lines[..], [line] if line.contains("left alone") && line.contains("answers what Redis would not")), "{lines:?}");
    assert!(!output.contains("hunter2"), "{output}");
}

#[tokio::test]
async fn redis_is_spoken_to_with_tls_where_its_certificate_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let tls_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tls = ["--tls-port", &tls_port.to_string(), "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
    let redis = Redis::start_with(&tls).await;

    let anvil = Anvil::start().await;
    let tokens = anvil.deploy_tokens(6).await;
    let home = Home::new(&Settings::new(&anvil.url, tokens.usdt));
    let config = home.config_file();
    for (host, port, trusted, expected) in [
        ("localhost", tls_port, true, "answers and takes what is written"),
        ("127.0.0.1", tls_port, true, "answers and takes what is written"),
        ("localhost", tls_port, false, "cannot be spoken to with TLS"),
        // Redis without TLS waits for more.
        ("localhost", redis.port, true, "does not answer in time"),
    ] {
        let mut command = home.command(&["check", "--config", config.to_str().unwrap()]);
        command.env("REDIS_URL", format!("rediss://{host}:{port}"));
        if trusted {
            command.env("SSL_CERT_FILE", &cert);
        }
        // A machine with too much to do may not connect in time at first.
        eventually(&format!("{host}:{port}, trusted: {trusted}: {expected}"), async || {
            let done = crate::gateway::Done::of(&mut command);
            let line = done.stdout.lines().find(|line| line.contains(" redis ")).unwrap_or_else(|| panic!("{done:?}"));
            if line.contains(expected) { Ok(()) } else { Err(line.to_owned()) }
        })
        .await;
    }
}
