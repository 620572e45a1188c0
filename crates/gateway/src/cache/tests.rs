use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use tokio::sync::Semaphore;
use tokio::time::{advance, sleep};

use super::*;

/// What a key is loaded from: counts how often it is asked, and answers with that count.
#[derive(Clone)]
struct Source {
    calls: Arc<AtomicU32>,
    /// A call takes one before it answers.
    permits: Arc<Semaphore>,
    fails: Arc<std::sync::atomic::AtomicBool>,
}

impl Source {
    /// Answers at once.
    fn open() -> Self {
        let source = Self::closed();
        source.permits.add_permits(1_000_000);
        source
    }

    /// Answers when it is let.
    fn closed() -> Self {
        Self { calls: Arc::default(), permits: Arc::new(Semaphore::new(0)), fails: Arc::default() }
    }

    fn calls(&self) -> u32 {
        self.calls.load(SeqCst)
    }

    fn load(&self) -> impl Future<Output = Result<u32, String>> + Send + 'static {
        let source = self.clone();
        async move {
            let call = source.calls.fetch_add(1, SeqCst) + 1;
            source.permits.acquire().await.unwrap().forget();
            if source.fails.load(SeqCst) { Err(format!("call {call} failed")) } else { Ok(call) }
        }
    }

    async fn get(&self, cache: &Cache, kind: Cached, key: &str) -> Result<(u32, Duration), String> {
        let fetched = cache.get(kind, key, self.load()).await?;
        Ok((*fetched.value, fetched.age))
    }
}

fn cache() -> Cache {
    Cache::new(None, "test")
}

/// Lets every task run until it waits for something.
async fn settle() {
    // The paused clock moves on only when nothing else can.
    sleep(Duration::from_nanos(1)).await;
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn lifetimes_are_those_of_the_plan_and_refreshed_at_four_fifths() {
    let kept = Cached::ALL.map(|kind| (kind.name(), kind.kept().as_secs()));
    assert_eq!(kept, [("balance", 300), ("transaction_status", 60), ("fee", 600), ("pool_stats", 180)]);
    for kind in Cached::ALL {
        assert_eq!(kind.refreshed_after() * 5, kind.kept() * 4, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_given_out_until_its_end_and_refreshed_before() {
    for kind in Cached::ALL {
        let (cache, source) = (cache(), Source::open());
        assert_eq!(source.get(&cache, kind, "a").await, Ok((1, Duration::ZERO)));
        advance(kind.refreshed_after() - SECOND).await;
        assert_eq!(source.get(&cache, kind, "a").await, Ok((1, kind.refreshed_after() - SECOND)));
        settle().await;
        assert_eq!(source.calls(), 1, "{kind:?} was loaded again too early");

        // Past the point: the old value at once, the new one for the next who asks.
        advance(SECOND).await;
        let (old, _) = source.get(&cache, kind, "a").await.unwrap();
        settle().await;
        let (new, age) = source.get(&cache, kind, "a").await.unwrap();
        assert_eq!((old, new, source.calls()), (1, 2, 2), "{kind:?}");
        assert!(age < SECOND, "{kind:?}: a new value is {age:?} old");

        // Nobody asked while it aged: it is not given out any more.
        advance(kind.kept()).await;
        assert_eq!(source.get(&cache, kind, "a").await, Ok((3, Duration::ZERO)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_waited_for_by_nobody_and_made_once() {
    let (cache, source) = (cache(), Source::closed());
    source.permits.add_permits(1);
    source.get(&cache, Cached::Balance, "a").await.unwrap();
    advance(Cached::Balance.refreshed_after()).await;
    for _ in 0..20 {
        assert_eq!(source.get(&cache, Cached::Balance, "a").await.unwrap().0, 1);
        settle().await;
    }
    assert_eq!(source.calls(), 2);
    // The refresh hangs until the value's end: whoever asks then waits for it, and makes no other.
    advance(Cached::Balance.kept()).await;
    let waiting = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.get(&cache, Cached::Balance, "a").await.map(|(value, _)| value) }
    });
    settle().await;
    source.permits.add_permits(1);
    assert_eq!((waiting.await.unwrap(), source.calls()), (Ok(2), 2));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_takes_nothing_away_and_is_not_tried_all_the_time() {
    let (cache, source) = (cache(), Source::open());
    source.get(&cache, Cached::Fee, "a").await.unwrap();
    source.fails.store(true, SeqCst);
    advance(Cached::Fee.refreshed_after()).await;
    for _ in 0..50 {
        assert_eq!(source.get(&cache, Cached::Fee, "a").await.unwrap().0, 1);
        settle().await;
    }
    assert_eq!(source.calls(), 2);
    advance(REFRESH_REST).await;
    assert_eq!(source.get(&cache, Cached::Fee, "a").await.unwrap().0, 1);
    settle().await;
    assert_eq!(source.calls(), 3);
    // At the value's end the failure is told.
    advance(Cached::Fee.kept()).await;
    assert_eq!(source.get(&cache, Cached::Fee, "a").await, Err("call 4 failed".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn look_ups_of_one_key_at_the_same_time_make_one_call() {
    let (cache, source) = (cache(), Source::closed());
    let ask = |key: &'static str| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { source.get(&cache, Cached::Balance, key).await.map(|(value, _)| value) })
    };
    let same: Vec<_> = (0..100).map(|_| ask("a")).collect();
    settle().await;
    assert_eq!(source.calls(), 1);
    let other = ask("b");
    settle().await;
    assert_eq!(source.calls(), 2, "another key waits for nobody");
    source.permits.add_permits(2);
    for asked in same {
        assert_eq!(asked.await.unwrap(), Ok(1));
    }
    assert_eq!(other.await.unwrap(), Ok(2));
    // Another kind is another key.
    source.permits.add_permits(1);
    assert_eq!(source.get(&cache, Cached::Fee, "a").await.unwrap().0, 3);
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_all_who_wait_and_is_not_kept() {
    let (cache, source) = (cache(), Source::closed());
    source.fails.store(true, SeqCst);
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move { source.get(&cache, Cached::Balance, "a").await })
        })
        .collect();
    settle().await;
    source.permits.add_permits(1);
    for asked in asked {
        assert_eq!(asked.await.unwrap(), Err("call 1 failed".to_owned()));
    }
    source.fails.store(false, SeqCst);
    source.permits.add_permits(1);
    assert_eq!(source.get(&cache, Cached::Balance, "a").await.unwrap().0, 2);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_cancels_nobody() {
    let (cache, source) = (cache(), Source::closed());
    let ask = || {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { source.get(&cache, Cached::Balance, "a").await.map(|(value, _)| value) })
    };
    let first = ask();
    settle().await;
    let (second, third) = (ask(), ask());
    settle().await;
    first.abort();
    second.abort();
    assert!(first.await.unwrap_err().is_cancelled() && second.await.unwrap_err().is_cancelled());
    source.permits.add_permits(1);
    assert_eq!((third.await.unwrap(), source.calls()), (Ok(1), 1));
    // Even when all are gone, what was paid for is kept.
    let last = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.get(&cache, Cached::Balance, "b").await }
    });
    settle().await;
    last.abort();
    source.permits.add_permits(1);
    settle().await;
    assert_eq!((source.get(&cache, Cached::Balance, "b").await.unwrap().0, source.calls()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_panics_hurts_its_caller_alone() {
    let (cache, source) = (cache(), Source::open());
    let begun = Arc::new(Semaphore::new(0));
    let broken = tokio::spawn({
        let (cache, begun) = (cache.clone(), Arc::clone(&begun));
        async move {
            let load = async move {
                begun.acquire().await.unwrap().forget();
                assert!(begun.is_closed(), "the load broke");
                Ok::<u32, String>(0)
            };
            cache.get(Cached::Balance, "a", load).await.map(|fetched| *fetched.value)
        }
    });
    settle().await;
    let waiting = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { source.get(&cache, Cached::Balance, "a").await.map(|(value, _)| value) }
    });
    settle().await;
    assert_eq!(source.calls(), 0);
    begun.add_permits(1);
    assert!(broken.await.unwrap_err().is_panic());
    assert_eq!((waiting.await.unwrap(), source.calls()), (Ok(1), 1));
}

#[tokio::test(start_paused = true)]
async fn a_value_is_as_old_as_the_question() {
    let cache = cache();
    let slow = async {
        sleep(SECOND * 7).await;
        Ok::<_, String>(1_u32)
    };
    assert_eq!(cache.get(Cached::Balance, "a", slow).await.unwrap().age, SECOND * 7);
    let source = Source::open();
    assert_eq!(source.get(&cache, Cached::Balance, "a").await, Ok((1, SECOND * 7)));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_answered_and_not_kept() {
    let cache = cache();
    let calls = Arc::new(AtomicU32::new(0));
    for (key, length, calls_after_two) in [
        // Two quotes belong to it.
        ("a".to_owned(), ENTRY_BYTES_MAX - 2, 1),
        ("b".to_owned(), ENTRY_BYTES_MAX - 1, 2),
        ("k".repeat(KEY_BYTES_MAX), 1, 1),
        ("k".repeat(KEY_BYTES_MAX + 1), 1, 2),
    ] {
        calls.store(0, SeqCst);
        for _ in 0..2 {
            let counted = Arc::clone(&calls);
            let load = async move {
                counted.fetch_add(1, SeqCst);
                Ok::<_, String>("x".repeat(length))
            };
            assert_eq!(cache.get(Cached::Balance, &key, load).await.unwrap().value.len(), length);
        }
        assert_eq!(calls.load(SeqCst), calls_after_two, "key of {}, value of {length}", key.len());
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_values_is_bounded_and_the_oldest_go_first() {
    let (cache, source) = (cache(), Source::open());
    source.get(&cache, Cached::Fee, "fee").await.unwrap();
    for number in 0..ENTRIES_MAX {
        if number == ENTRIES_MAX / 2 {
            advance(SECOND).await;
        }
        source.get(&cache, Cached::Balance, &number.to_string()).await.unwrap();
    }
    let full = source.calls();
    source.get(&cache, Cached::Balance, "0").await.unwrap();
    assert_eq!(source.calls(), full, "as many as the limit are kept");
    source.get(&cache, Cached::Balance, "one more").await.unwrap();
    assert_eq!(source.calls(), full + 1);
    // The newer half is whole, and so are other kinds.
    for number in ENTRIES_MAX / 2..ENTRIES_MAX {
        source.get(&cache, Cached::Balance, &number.to_string()).await.unwrap();
    }
    source.get(&cache, Cached::Balance, "one more").await.unwrap();
    source.get(&cache, Cached::Fee, "fee").await.unwrap();
    assert_eq!(source.calls(), full + 1);
    // Asking for all of the older half loads what went: at least what made room.
    for number in 0..ENTRIES_MAX / 2 {
        source.get(&cache, Cached::Balance, &number.to_string()).await.unwrap();
    }
    let again = usize::try_from(source.calls() - full - 1).unwrap();
    assert!((EVICTED..=ENTRIES_MAX / 2).contains(&again), "{again} of the older half were loaded again");
}

#[tokio::test(start_paused = true)]
async fn too_many_loads_at_once_are_their_callers_own() {
    let (cache, source) = (cache(), Source::closed());
    let ask = |key: String| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { source.get(&cache, Cached::Balance, &key).await.map(|(value, _)| value) })
    };
    let shared: Vec<_> = (0..FLIGHTS_MAX).map(|number| ask(number.to_string())).collect();
    settle().await;
    let mut own = vec![ask("more".to_owned()), ask("more".to_owned())];
    settle().await;
    assert_eq!(usize::try_from(source.calls()).unwrap(), FLIGHTS_MAX + 2, "each of these made a call of its own");
    // And ends with its caller.
    own.pop().unwrap().abort();
    source.permits.add_permits(FLIGHTS_MAX + 1);
    for asked in shared.into_iter().chain(own) {
        assert!(asked.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn another_type_under_a_key_is_loaded_and_changes_nothing() {
    let (cache, source) = (cache(), Source::open());
    source.get(&cache, Cached::Balance, "a").await.unwrap();
    let text = cache.get(Cached::Balance, "a", async { Ok::<_, String>("text".to_owned()) }).await.unwrap();
    assert_eq!(*text.value, "text");
    assert_eq!(source.get(&cache, Cached::Balance, "a").await.unwrap().0, 1);
}

#[tokio::test]
async fn without_a_url_redis_is_unused() {
    assert_eq!(cache().redis().await, RedisHealth::Unused);
}
