//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// How long a condition may take. Far above what any needs: reaching it means failure, and a
/// busy machine must not.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// Looks until `look` says `Ok`, and gives that back. `Err` says what was seen instead; after
/// [`PATIENCE`] the test fails with the last of these.
pub async fn eventually<T, E: Display>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// [`eventually`] with another patience.
pub async fn eventually_within<T, E: Display>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > patience => {
                panic!("after {patience:?} still not: {what}\nlast seen: {seen}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Seconds since 1970, by this machine's clock.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Waits until this machine's clock has passed `deadline_s`. The one wait for a time: some
/// promises are about time passing while nothing else happens.
pub async fn until_clock_passes(deadline_s: u64) {
    while now_s() <= deadline_s {
        tokio::time::sleep(PAUSE).await;
    }
}
