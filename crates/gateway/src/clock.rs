//! The one place that reads the system clock and, through the vault, the system's randomness.
//! Everything else takes time and randomness as arguments or asks here.

use tidegate_rules::time::Time;
use tidegate_vault::{Entropy as _, OsEntropy};

/// The server's time.
#[must_use]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the one place")]
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Random bytes from the operating system.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsEntropy.fill(&mut bytes);
    bytes
}

/// The millisecond and the count of the last id.
static LAST_ID: std::sync::Mutex<(i64, u16)> = std::sync::Mutex::new((0, 0));

/// The ten bytes that make a new id unique and, within this process, greater than every id before
/// it: the first bits count within a millisecond (RFC 9562 §6.2), the rest is random.
#[must_use]
pub fn id_bytes(at: Time) -> [u8; 10] {
    let mut bytes = random::<10>();
    let mut last = LAST_ID.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = if last.0 == at.millis() { last.1.saturating_add(1) } else { 0 };
    *last = (at.millis(), count);
    // uuid masks the version into the upper half of the first byte and the variant into the upper
    // two bits of the third: count in what is left of the first two bytes.
    let [high, low] = count.to_be_bytes();
    if let [first, second, ..] = &mut bytes {
        (*first, *second) = (high & 0x0f, low);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use tidegate_rules::id::OrderId;

    use super::*;

    #[test]
    fn ids_of_one_millisecond_keep_their_order() {
        let at = Time::from_millis(1_800_000_000_000);
        let ids: Vec<_> = (0..1_000).map(|_| OrderId::new(at, id_bytes(at)).to_string()).collect();
        assert!(ids.is_sorted());
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 1_000);
    }
}
