//! The one place that reads the system clock and, through the vault, the system's randomness.
//! Everything else takes time and randomness as arguments or asks here.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use tidegate_rules::time::Time;
use tidegate_vault::{Entropy as _, OsEntropy};

/// How far the time of this process is ahead of the machine's, in milliseconds.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// Sets the clock of this process ahead of the machine's, or behind it: for a simulation that lives
/// through months in a minute, and through clocks that go wrong. Nothing of the program calls it.
pub fn set_ahead_ms(ahead_ms: i64) {
    AHEAD_MS.store(ahead_ms, Ordering::Relaxed);
}

/// The server's time.
#[must_use]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the one place")]
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(AHEAD_MS.load(Ordering::Relaxed)))
}

/// Random bytes from the operating system.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsEntropy.fill(&mut bytes);
    bytes
}

/// Counts the ids of this process.
static IDS: AtomicU32 = AtomicU32::new(0);

/// The ten bytes that make a new id unique and, within this process, greater than every id made
/// before it for the same millisecond: the first 26 bits count (RFC 9562 §6.2), the rest is random.
#[must_use]
pub fn id_bytes() -> [u8; 10] {
    let random = random::<6>();
    let count = IDS.fetch_add(1, Ordering::Relaxed);
    // The id's version takes the upper half of the first byte, its variant two bits of the third.
    let [a, b, c, d] = (count & 0x03ff_ffff).to_be_bytes();
    let spread = [(a << 2) | (b >> 6), (b << 2) | (c >> 6), c & 0x3f, d];
    let mut bytes = [0; 10];
    let (counted, rest) = bytes.split_at_mut(4);
    counted.copy_from_slice(&spread);
    rest.copy_from_slice(&random);
    bytes
}

#[cfg(test)]
mod tests {
    use tidegate_rules::id::OrderId;

    use super::*;

    #[test]
    fn ids_of_one_millisecond_keep_their_order() {
        let at = Time::from_millis(1_800_000_000_000);
        let ids: Vec<_> = (0..20_000).map(|_| OrderId::new(at, id_bytes()).to_string()).collect();
        assert!(ids.is_sorted());
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 20_000);
    }
}
