//! The pool: which endpoint is asked, when it is rested, what it may cost, what it may say.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tidegate_chain::Error;
use tidegate_chain::endpoints::{Endpoint, EndpointConfig, Endpoints, Failure, Prefer};
use tidegate_rules::block::Network;
use tokio::time::Instant;

use crate::server::{Answer, Server, config, pass, pool};

/// The operation of these tests: post, and believe anything that is not `"bad"`.
async fn ask(endpoint: Endpoint) -> Result<String, Failure> {
    let answer = endpoint.post("ask", &json!({}), 1).await?;
    match String::from_utf8(answer).unwrap() {
        text if text == "bad" => Err(Failure::transient("it is bad")),
        text => Ok(text),
    }
}

async fn saying(text: &'static str) -> Server {
    Server::start(move |_| Answer::Text(text.into())).await
}

/// A server that says these things one after another, and the last one for ever.
async fn saying_in_turn(answers: Vec<Answer>) -> Server {
    let next = AtomicUsize::new(0);
    Server::start(move |_| answers[next.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)].clone()).await
}

#[tokio::test]
async fn the_first_is_used_until_it_fails_and_then_the_next_is_kept() {
    let first = saying_in_turn(vec![Answer::Text("a".into()), Answer::Text("bad".into()), Answer::Text("a".into())]).await;
    let second = saying("b").await;
    let pool = pool(&[&first, &second]);
    assert_eq!(pool.run(Prefer::Current, ask).await.unwrap(), "a");
    assert_eq!(pool.run(Prefer::Current, ask).await.unwrap(), "b", "the operation starts anew elsewhere");
    pass(60).await;
    assert_eq!(pool.run(Prefer::Current, ask).await.unwrap(), "b", "what works is kept");
    assert_eq!(pool.run(Prefer::Other, ask).await.unwrap(), "a", "a second opinion comes from elsewhere");
    assert_eq!(pool.run(Prefer::Current, ask).await.unwrap(), "b", "and changes nothing");
    let health = pool.health();
    assert_eq!((health[0].calls, health[0].failures, health[0].available), (3, 1, true));
    assert_eq!((health[1].calls, health[1].failures, health[1].last_error.as_deref()), (3, 0, None));
}

#[tokio::test]
async fn with_one_endpoint_a_second_opinion_is_its_own() {
    let only = saying("a").await;
    assert_eq!(pool(&[&only]).run(Prefer::Other, ask).await.unwrap(), "a");
}

/// What each kind of failure leads to: how long the endpoint rests (to the second), and whether
/// asking again later may help.
#[tokio::test]
async fn every_failure_has_its_rest() {
    use Answer::{Silence, Status, Text};
    const DATE: (&str, &str) = ("date", "Wed, 21 Oct 2026 07:27:30 GMT");
    const SUSPENDED: &str = r#"{"Error":"The key exceeds the frequency limit(30), and the query server is suspended for 45s"}"#;
    let table = [
        ("bad content", Text("bad".into()), 1, "transient"),
        ("429", Status(429, &[], String::new()), 1, "transient"),
        ("429 with Retry-After", Status(429, &[("retry-after", "17")], String::new()), 17, "transient"),
        ("503 with Retry-After", Status(503, &[("retry-after", "5")], String::new()), 5, "transient"),
        ("Retry-After as a date", Status(503, &[DATE, ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], String::new()), 30, "transient"),
        ("in the old way", Status(503, &[DATE, ("retry-after", "Wednesday, 21-Oct-26 07:28:00 GMT")], String::new()), 30, "transient"),
        (
            "as a date that has passed",
            Status(503, &[DATE, ("retry-after", "Wed, 21 Oct 2026 07:27:00 GMT")], String::new()),
            1,
            "transient",
        ),
        ("as no date", Status(503, &[DATE, ("retry-after", "tomorrow")], String::new()), 1, "transient"),
        (
            "as a date beside none",
            Status(503, &[("date", "?"), ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], String::new()),
            1,
            "transient",
        ),
        ("Retry-After of a year", Status(429, &[("retry-after", "31536000")], String::new()), 3_600, "transient"),
        ("bare 403", Status(403, &[], String::new()), 30, "transient"),
        ("TronGrid's 403", Status(403, &[], SUSPENDED.into()), 45, "transient"),
        ("500", Status(500, &[], "oops".into()), 1, "transient"),
        ("a redirect", Status(302, &[("location", "http://127.0.0.1:1/")], String::new()), 1, "transient"),
        ("too large a body", Text("x".repeat(33 << 20)), 1, "transient"),
        ("silence", Silence, 1, "transient"),
        ("401", Status(401, &[], r#"{"Error":"ApiKey not exists"}"#.into()), 600, "refused"),
        ("404", Status(404, &[], r#"{"Error":"this API is unavailable due to config"}"#.into()), 600, "refused"),
    ];
    for (name, answer, rest, expected) in table {
        let server = Server::start(move |_| answer.clone()).await;
        let mut config = config(&server);
        config.timeout = std::time::Duration::from_millis(300);
        let pool = Endpoints::new(&Network::new("testnet"), vec![config], Box::new(|| 0)).unwrap();
        for attempt in ["first", "while it rests"] {
            let told = match pool.run(Prefer::Current, ask).await {
                Ok(_) => "served",
                Err(Error::Transient(_)) => "transient",
                Err(Error::Refused(_)) => "refused",
            };
            assert_eq!(told, expected, "{name}, {attempt}");
        }
        assert_eq!(server.asked().len(), 1, "{name}: a resting endpoint is not asked");
        if rest > 1 {
            pass(rest - 1).await;
            assert!(!pool.health()[0].available, "{name}: rests {rest} s");
        }
        pass(1).await;
        assert!(pool.health()[0].available, "{name}: rests no longer than {rest} s");
    }
}

#[tokio::test]
async fn rests_double_up_to_a_minute_and_one_success_ends_them() {
    let answers = [vec![Answer::Text("bad".into()); 8], vec![Answer::Text("ok".into()), Answer::Text("bad".into())]];
    let server = saying_in_turn(answers.concat()).await;
    let pool = Endpoints::new(&Network::new("testnet"), vec![config(&server)], Box::new(|| 0)).unwrap();
    for rest in [1, 2, 4, 8, 16, 32, 60, 60] {
        pool.run(Prefer::Current, ask).await.unwrap_err();
        if rest > 1 {
            pass(rest - 1).await;
            assert!(!pool.health()[0].available, "{rest}");
        }
        pass(1).await;
    }
    assert_eq!(pool.run(Prefer::Current, ask).await.unwrap(), "ok");
    pool.run(Prefer::Current, ask).await.unwrap_err();
    pass(1).await;
    assert!(pool.health()[0].available, "the doubling starts anew");
}

#[tokio::test]
async fn jitter_lengthens_a_rest_by_up_to_half() {
    let server = saying("bad").await;
    let pool = Endpoints::new(&Network::new("testnet"), vec![config(&server)], Box::new(|| 500)).unwrap();
    pool.run(Prefer::Current, ask).await.unwrap_err();
    pass(1).await;
    assert!(!pool.health()[0].available);
    pass(1).await;
    assert!(pool.health()[0].available);
}

#[tokio::test]
async fn when_all_fail_every_reason_is_told_and_only_all_permanent_is_refused() {
    let bad = saying("bad").await;
    let locked = Server::start(|_| Answer::Status(401, &[], "no such key".into())).await;
    let pool = pool(&[&bad, &locked]);
    let error = pool.run(Prefer::Current, ask).await.unwrap_err();
    assert!(error.is_transient(), "the first may recover");
    let text = error.to_string();
    assert!(text.contains("it is bad") && text.contains("no such key"), "{text}");
    assert_eq!((bad.asked().len(), locked.asked().len()), (1, 1), "each at most once");

    let error = pool.run(Prefer::Current, ask).await.unwrap_err().to_string();
    assert!(error.contains("resting"), "{error}");
    assert_eq!((bad.asked().len(), locked.asked().len()), (0, 0));
}

#[tokio::test]
async fn an_endpoint_that_is_merely_behind_is_not_rested() {
    let server = saying("a").await;
    let pool = pool(&[&server]);
    let behind = |_| async { Err::<(), _>(Failure::Behind("it does not have block 7".into())) };
    assert!(pool.run(Prefer::Current, behind).await.unwrap_err().is_transient());
    assert_eq!((pool.health()[0].available, pool.health()[0].failures), (true, 0));
}

#[tokio::test]
async fn an_endpoint_that_stays_behind_while_another_goes_on_is_left() {
    let (stuck, alive) = (saying("").await, saying("x").await);
    let pool = pool(&[&stuck, &alive]);
    let read = |endpoint: Endpoint| async move {
        let answer = endpoint.post("", &json!({}), 1).await?;
        Ok(answer)
    };
    let found = async |number| pool.run_from(number, read).await.unwrap().len();
    assert_eq!(found(7).await, 0);
    pass(59).await;
    assert_eq!((found(7).await, alive.asked().len()), (0, 0), "a slow block is no reason");
    pass(1).await;
    assert_eq!(found(7).await, 1, "the other one has it");
    stuck.asked();
    assert_eq!((found(8).await, stuck.asked().len()), (1, 0), "and is kept");
}

#[tokio::test]
async fn a_chain_that_stands_still_everywhere_changes_nothing() {
    let (first, second) = (saying("").await, Server::start(|_| Answer::Status(500, &[], String::new())).await);
    let pool = pool(&[&first, &second]);
    let read = |endpoint: Endpoint| async move { endpoint.post("", &json!({}), 1).await };
    for _ in 0..5 {
        assert_eq!(pool.run_from(7, read).await, Ok(vec![]));
        pass(30).await;
    }
    assert_eq!(first.asked().len(), 5);
    assert_eq!(second.asked().len(), 2, "asked once a minute, no more");
}

#[tokio::test]
async fn a_daily_budget_moves_the_work_to_the_next_endpoint() {
    let (metered, free) = (saying("metered").await, saying("free").await);
    let mut first = config(&metered);
    first.requests_per_day = Some(3);
    let pool = Endpoints::new(&Network::new("testnet"), vec![first, config(&free)], Box::new(|| 0)).unwrap();
    for expected in ["metered", "metered", "metered", "free", "free"] {
        assert_eq!(pool.run(Prefer::Current, ask).await.unwrap(), expected);
    }
    assert!(!pool.health()[0].available);
    assert_eq!(metered.asked().len(), 3);
    pass(24 * 3_600).await;
    assert!(pool.health()[0].available);
}

#[tokio::test]
async fn a_pace_is_kept_by_waiting() {
    let server = saying("a").await;
    let mut paced = config(&server);
    paced.requests_per_second = NonZeroU32::new(20);
    let pool = Endpoints::new(&Network::new("testnet"), vec![paced], Box::new(|| 0)).unwrap();
    let start = Instant::now();
    for _ in 0..25 {
        pool.run(Prefer::Current, ask).await.unwrap();
    }
    // Twenty at once, and five more at fifty milliseconds each.
    assert!(start.elapsed() >= std::time::Duration::from_millis(240), "{:?}", start.elapsed());
}

#[tokio::test]
async fn keys_are_sent_and_never_shown() {
    const PATH_KEY: &str = "0123456789abcdef0123456789abcdef";
    const QUERY_KEY: &str = "query-secret-4711";
    const HEADER_KEY: &str = "11111111-2222-3333-4444-555555555555";
    let echo = Server::start(|asked| {
        let header = asked.headers["tron-pro-api-key"].to_str().unwrap();
        Answer::Status(500, &[], format!("no project {} for {header} or {QUERY_KEY}", asked.path))
    })
    .await;
    let with_keys = |base: &str| {
        let url = format!("{base}/v3/{PATH_KEY}?apikey={QUERY_KEY}").parse().unwrap();
        let mut config = EndpointConfig::new(url);
        config.headers.push(("TRON-PRO-API-KEY".into(), HEADER_KEY.into()));
        config
    };
    // The second one does not exist: reqwest's own errors like to show the whole URL.
    let configs = vec![with_keys(echo.url.as_str().trim_end_matches('/')), with_keys("http://localhost:1")];
    let mut shown = format!("{configs:?}");
    let pool = Endpoints::new(&Network::new("testnet"), configs, Box::new(|| 0)).unwrap();
    shown += &pool.run(Prefer::Current, ask).await.unwrap_err().to_string();
    shown += &format!("{pool:?} {:?}", pool.health());
    for secret in [PATH_KEY, QUERY_KEY, HEADER_KEY] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("no project /v3/***/ask for *** or ***"), "{shown}");
    assert!(shown.contains("http://localhost:1"), "{shown}");
    assert_eq!(echo.asked()[0].path, format!("/v3/{PATH_KEY}/ask"));
}

#[tokio::test]
async fn a_pool_without_endpoints_or_with_a_bad_header_is_refused() {
    let new = |configs| Endpoints::new(&Network::new("testnet"), configs, Box::new(|| 0)).unwrap_err();
    assert!(matches!(new(vec![]), Error::Refused(_)));
    let mut config = EndpointConfig::new("https://example.org".parse().unwrap());
    config.headers.push(("X-Key".into(), "secret\nvalue".into()));
    let error = new(vec![config]);
    assert!(matches!(error, Error::Refused(_)) && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn operations_that_fail_together_count_as_one_failure_for_the_rest() {
    let server = saying("bad").await;
    let pool = Arc::new(pool(&[&server]));
    let barrier = Arc::new(tokio::sync::Barrier::new(8));
    let together = (0..8).map(|_| {
        let (pool, barrier) = (Arc::clone(&pool), Arc::clone(&barrier));
        tokio::spawn(async move {
            let operation = |endpoint| {
                let barrier = Arc::clone(&barrier);
                async move {
                    barrier.wait().await;
                    ask(endpoint).await
                }
            };
            pool.run(Prefer::Current, operation).await
        })
    });
    for task in together.collect::<Vec<_>>() {
        task.await.unwrap().unwrap_err();
    }
    pass(1).await;
    assert!(pool.health()[0].available, "a second, not two to the eighth");
}
