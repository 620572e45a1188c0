//! A slow operation is begun on a second endpoint: when, where, at what price, and who wins.
//!
//! Most operations here are futures of tokio's clock, which stands still until all wait for it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tidegate_chain::EndpointState;
use tidegate_chain::endpoints::{Endpoint, EndpointConfig, Endpoints, Failure, HEDGE_AFTER_MIN, Hedging, Prefer};
use tidegate_rules::block::{BlockRef, Hash, Network};
use tidegate_rules::time::Time;
use tokio::time::{Instant, sleep};

use crate::server::{Answer, Server, config};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A pool of endpoints that nobody posts to.
fn unreachable(count: usize, timeout: Duration) -> Endpoints {
    let config = |index: usize| EndpointConfig {
        timeout,
        ..EndpointConfig::new(format!("http://{}.invalid", ["first", "second", "third"][index]).parse().unwrap())
    };
    Endpoints::new(&Network::new("testnet"), (0..count).map(config).collect(), Box::new(|| 0)).unwrap()
}

/// An operation that takes so long on each endpoint and says where it was done; those that end
/// with a time in `bad` fail.
async fn take(pool: &Endpoints, ms: &[u64], bad: &[usize]) -> Result<usize, tidegate_chain::Error> {
    let operation = |endpoint: Endpoint| async move {
        sleep(MS(ms[endpoint.index()])).await;
        if bad.contains(&endpoint.index()) { Err(Failure::transient("it is bad")) } else { Ok(endpoint.index()) }
    };
    pool.run(Prefer::Current, operation).await
}

fn hedges(pool: &Endpoints) -> Vec<(u64, u64)> {
    pool.health().iter().map(|health| (health.hedges, health.hedges_won)).collect()
}

/// How long the first endpoint took lately (ms, ten times), its time-out, how long it takes now and
/// how long the second does; then who wins and after how long.
#[tokio::test(start_paused = true)]
async fn the_delay_comes_from_the_endpoints_own_history() {
    let table = "
        history  timeout  now    second  winner  after
        -        15000    10000  50      1       3050
        -        15000    2999   50      0       2999
        100      15000    10000  50      1       1050
        100      15000    999    50      0       999
        2000     15000    10000  50      1       2050
        2000     15000    1999   50      0       1999
        9000     5000     10000  50      1       5050
        -        500      10000  50      1       550
        100      15000    10000  8999    1       9999
        100      15000    10000  9001    0       10000";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()).skip(1) {
        let cells: Vec<u64> = line.split_whitespace().map(|cell| cell.parse().unwrap_or(0)).collect();
        let mut pool = unreachable(2, MS(cells[1])).with_hedging(Hedging::Off);
        for _ in 0..if cells[0] > 0 { 10 } else { 0 } {
            take(&pool, &[cells[0], 0], &[]).await.unwrap();
        }
        pool = pool.with_hedging(Hedging::WhenSlow);
        let start = Instant::now();
        let winner = take(&pool, &[cells[2], cells[3]], &[]).await.unwrap();
        assert_eq!((winner as u64, start.elapsed()), (cells[4], MS(cells[5])), "{line}");
        let begun = u64::from(cells[2] > 3_000);
        assert_eq!(hedges(&pool), [(0, 0), (begun, cells[4])], "{line}");
        assert_eq!((pool.pool_health().current, pool.pool_health().switches_total), (0, 0), "{line}: slow once is no switch");
    }
}

#[tokio::test(start_paused = true)]
async fn switched_off_nothing_is_begun_twice() {
    let pool = unreachable(2, MS(15_000)).with_hedging(Hedging::Off);
    assert_eq!(take(&pool, &[14_000, 50], &[]).await.unwrap(), 0);
    assert_eq!(hedges(&pool), [(0, 0), (0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn each_side_stays_on_its_endpoint_and_the_loser_is_dropped() {
    struct Step(Arc<Mutex<Vec<String>>>, usize);
    impl Drop for Step {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(format!("{} ends", self.1));
        }
    }
    let pool = unreachable(3, MS(15_000));
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let operation = |endpoint: Endpoint| {
        let log = Arc::clone(&log);
        async move {
            let _step = Step(Arc::clone(&log), endpoint.index());
            for call in 1..=4 {
                log.lock().unwrap().push(format!("{} call {call}", endpoint.index()));
                sleep(MS(if endpoint.index() == 0 { 1_400 } else { 100 })).await;
            }
            Ok(endpoint.index())
        }
    };
    assert_eq!(pool.run(Prefer::Current, operation).await.unwrap(), 1);
    let expected =
        ["0 call 1", "0 call 2", "0 call 3", "1 call 1", "1 call 2", "1 call 3", "1 call 4", "1 ends", "0 ends"].map(str::to_owned);
    assert_eq!(*log.lock().unwrap(), expected);
    assert!(pool.health().iter().all(|health| health.available && health.failures == 0), "being slow is no failure");
}

#[tokio::test(start_paused = true)]
async fn one_side_may_fail_while_the_other_goes_on() {
    let pool = unreachable(2, MS(15_000));
    assert_eq!(take(&pool, &[5_000, 100], &[1]).await.unwrap(), 0, "the hedge failed, and the first one was waited for");
    assert_eq!((pool.health()[1].failures, pool.health()[1].state), (1, EndpointState::HalfOpen), "and its failure is its own");
    let pool = unreachable(3, MS(15_000));
    assert_eq!(take(&pool, &[4_000, 2_000, 0], &[0]).await.unwrap(), 1, "the hedge was under way when the first one failed");
    let switches = pool.pool_health().switches;
    assert_eq!((switches.len(), switches[0].reason.as_str()), (1, "it is bad"), "and that is a reason to stay there");
    let pool = unreachable(3, MS(15_000));
    assert_eq!(take(&pool, &[4_000, 2_000, 10], &[0, 1]).await.unwrap(), 2, "both failed: the next one, once");
}

#[tokio::test(start_paused = true)]
async fn a_second_opinion_is_not_hedged() {
    let pool = unreachable(2, MS(15_000));
    let operation = |endpoint: Endpoint| async move {
        sleep(MS(if endpoint.index() == 1 { 9_000 } else { 1 })).await;
        Ok(endpoint.index())
    };
    assert_eq!(pool.run(Prefer::Other, operation).await.unwrap(), 1);
    assert_eq!(hedges(&pool), [(0, 0), (0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_to_an_endpoint_that_is_well() {
    let slow = |pool: Endpoints| async move {
        let winner = take(&pool, &[10_000, 50, 50], &[]).await.unwrap();
        (winner, hedges(&pool)[1..].iter().map(|(begun, _)| *begun).collect::<Vec<_>>())
    };
    assert_eq!(slow(unreachable(3, MS(15_000))).await, (1, vec![1, 0]), "the next one");

    let pool = unreachable(3, MS(15_000));
    let break_second =
        |endpoint: Endpoint| async move { if endpoint.index() == 1 { Err(Failure::Permanent("no key".into())) } else { Ok(()) } };
    pool.run(Prefer::Other, break_second).await.unwrap();
    assert_eq!(slow(pool).await, (2, vec![0, 1]), "not one that rests");

    let pool = unreachable(3, MS(15_000));
    pool.run(Prefer::Other, |endpoint| async move { if endpoint.index() == 1 { Err(Failure::transient("once")) } else { Ok(()) } })
        .await
        .unwrap();
    sleep(MS(1_000)).await;
    assert_eq!(slow(pool).await, (2, vec![0, 1]), "nor one that has just rested");

    let pool = unreachable(3, MS(15_000));
    let head = |endpoint: Endpoint| async move {
        let number = if endpoint.index() == 1 { 100 } else { 141 };
        let hash = |number: u8| Hash([number; 32]);
        let time = Time::from_secs(1_700_000_000 + 12 * i64::from(number));
        endpoint.saw_head(&BlockRef { number: number.into(), hash: hash(number), parent: hash(number - 1), time });
        if endpoint.index() == 2 { Ok(()) } else { Err(Failure::Behind("go on".into())) }
    };
    pool.run(Prefer::Other, head).await.unwrap();
    assert_eq!(slow(pool).await, (2, vec![0, 1]), "nor one that lags");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_always_outrun_is_left_for_its_score() {
    let pool = unreachable(2, MS(15_000));
    let operation = |endpoint: Endpoint| async move {
        sleep(MS(if endpoint.index() == 0 { 14_000 } else { 50 })).await;
        Ok(vec![endpoint.index()])
    };
    let mut winners = 0;
    while pool.pool_health().switches_total == 0 {
        assert_eq!(pool.run_from(7, operation).await.unwrap(), [1]);
        winners += 1;
        assert!(winners < 100, "it is never left");
    }
    let (switch, health) = (&pool.pool_health().switches[0], pool.health());
    assert!(switch.reason.starts_with("its score is ") && switch.reason.contains("come too late"), "{switch:?}");
    assert!(health[0].score + 25 <= health[1].score, "{health:?}");
    assert!(winners > 8, "but not for a few slow answers: {winners}");
}

/// Lets a second endpoint with a budget of ten a day spend some, and tells how many are left after
/// a slow operation whose hedge posts twice.
async fn left_after_a_hedge(spent: u32) -> (u64, Option<u64>, u64) {
    let metered = Server::start(|_| Answer::Text("{}".into())).await;
    let first = EndpointConfig { timeout: MS(100), ..EndpointConfig::new("http://first.invalid".parse().unwrap()) };
    let second = EndpointConfig { requests_per_day: Some(10), ..config(&metered) };
    let pool = Endpoints::new(&Network::new("testnet"), vec![first, second], Box::new(|| 0)).unwrap();
    for _ in 0..spent {
        pool.run(Prefer::Other, |endpoint: Endpoint| async move { endpoint.post("", &json!({}), 1).await }).await.unwrap();
    }
    // The first one answers when the hedge has ended, or could not begin.
    let (ended, gate) = (tokio::sync::Notify::new(), Instant::now() + MS(if spent < 8 { 5_000 } else { 300 }));
    let operation = |endpoint: Endpoint| {
        let ended = &ended;
        async move {
            if endpoint.index() == 0 {
                tokio::time::timeout_at(gate, ended.notified()).await.ok();
                sleep(MS(50)).await;
                return Ok(());
            }
            for _ in 0..2 {
                let told = endpoint.post("", &json!({}), 1).await;
                told.inspect_err(|_| ended.notify_one())?;
            }
            Ok(())
        }
    };
    pool.run(Prefer::Current, operation).await.unwrap();
    let health = &pool.health()[1];
    assert_eq!((health.failures, health.available), (0, true), "our own budget is not its failure");
    (health.hedges, health.requests_left, health.hedges_won)
}

#[tokio::test]
async fn a_hedge_leaves_the_reserve_of_a_daily_budget_alone() {
    assert_eq!(left_after_a_hedge(0).await, (1, Some(8), 1));
    assert_eq!(left_after_a_hedge(6).await, (1, Some(2), 1), "down to the reserve");
    assert_eq!(left_after_a_hedge(7).await, (1, Some(2), 0), "and no further, even when it has begun");
    assert_eq!(left_after_a_hedge(8).await, (0, Some(2), 0), "nor does it begin there");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_covered_for_within_a_second_or_so() {
    let answers = AtomicUsize::new(0);
    let first = Server::start(move |_| match answers.fetch_add(1, Ordering::Relaxed) {
        0..10 => Answer::Text("first".into()),
        _ => Answer::Silence,
    });
    let (first, second) = (first.await, Server::start(|_| Answer::Text("second".into())).await);
    let pool = Endpoints::new(&Network::new("testnet"), vec![config(&first), config(&second)], Box::new(|| 0)).unwrap();
    let ask = || pool.run(Prefer::Current, |endpoint: Endpoint| async move { endpoint.post("", &json!({}), 1).await });
    for _ in 0..10 {
        assert_eq!(ask().await.unwrap(), b"first");
    }
    let start = Instant::now();
    assert_eq!(ask().await.unwrap(), b"second");
    // Its time-out is five seconds.
    assert!((HEDGE_AFTER_MIN..MS(4_000)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!((hedges(&pool)[1], pool.health()[0].failures, second.asked().len()), ((1, 1), 0, 1));
    assert!(pool.health()[0].score < pool.health()[1].score);
}

#[tokio::test]
async fn our_own_pace_is_not_the_endpoints_slowness() {
    let (paced, other) = (Server::start(|_| Answer::Text("{}".into())).await, Server::start(|_| Answer::Text("{}".into())).await);
    let first = EndpointConfig { requests_per_second: NonZeroU32::new(2), timeout: MS(900), ..config(&paced) };
    let pool = Endpoints::new(&Network::new("testnet"), vec![first, config(&other)], Box::new(|| 0)).unwrap();
    let asked = AtomicUsize::new(0);
    let operation = |endpoint: Endpoint| {
        asked.fetch_add(1, Ordering::Relaxed);
        async move { endpoint.post("", &json!({}), 4).await }
    };
    let start = Instant::now();
    pool.run(Prefer::Current, operation).await.unwrap();
    assert!(start.elapsed() >= MS(1_000), "it waited for its pace");
    assert_eq!((asked.load(Ordering::Relaxed), hedges(&pool)[1]), (1, (0, 0)), "and nobody else was asked");
}
