//! What a wallet should hold by our records, against what the chain says it holds.

use std::fmt;
use std::str::FromStr;

use crate::amount::Raw;
use crate::wallet::WalletKind;

/// How what the chain says differs from what the records add up to, in base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// They agree.
    None,
    /// The chain has so much more: money came that we do not know of.
    More(Raw),
    /// The chain has so much less: money left that we do not know of.
    Less(Raw),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("0"),
            Self::More(more) => write!(f, "+{more}"),
            Self::Less(less) => write!(f, "-{less}"),
        }
    }
}

/// The text is not `0`, `+` or `-` and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 0, or + or - and a number of base units")]
pub struct DifferenceError;

impl FromStr for Difference {
    type Err = DifferenceError;

    fn from_str(text: &str) -> Result<Self, DifferenceError> {
        let raw = |digits: &str| digits.parse().map_err(|_| DifferenceError);
        match text.split_at_checked(1) {
            Some(("0", "")) => Ok(Self::None),
            Some(("+", digits)) => Ok(Self::More(raw(digits)?)),
            Some(("-", digits)) => Ok(Self::Less(raw(digits)?)),
            _ => Err(DifferenceError),
        }
    }
}

/// What the records add up to: what came less what went to another wallet of ours, against what the
/// chain says.
#[must_use]
pub fn difference(incoming: Raw, outgoing: Raw, found: Raw) -> Difference {
    // found - (incoming - outgoing), without going below zero on the way.
    let (has, should) = (found.saturating_add(outgoing), incoming);
    match has.cmp(&should) {
        std::cmp::Ordering::Equal => Difference::None,
        std::cmp::Ordering::Greater => Difference::More(has.saturating_sub(should)),
        std::cmp::Ordering::Less => Difference::Less(should.saturating_sub(has)),
    }
}

/// True for a difference that somebody should look at: one that was not there at the last reading.
///
/// A wallet whose address may have a history holds what came before it was ours: its first reading
/// is where its books begin. A key made here at random has no such past.
#[must_use]
pub fn is_news(kind: WalletKind, before: Option<Difference>, now: Difference) -> bool {
    match before {
        Some(before) => now != before && now != Difference::None,
        None => now != Difference::None && kind == WalletKind::Random,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(value: u64) -> Raw {
        value.to_string().parse().unwrap_or_default()
    }

    #[test]
    fn differences() {
        let table = [
            (100, 0, 100, Difference::None),
            (100, 40, 60, Difference::None),
            (0, 0, 0, Difference::None),
            (100, 0, 130, Difference::More(raw(30))),
            (100, 0, 70, Difference::Less(raw(30))),
            // More went out than came: it was there before the records begin.
            (100, 150, 0, Difference::More(raw(50))),
            (0, 0, 7, Difference::More(raw(7))),
        ];
        for (incoming, outgoing, found, expected) in table {
            assert_eq!(difference(raw(incoming), raw(outgoing), raw(found)), expected, "{incoming} {outgoing} {found}");
        }
    }

    #[test]
    fn a_difference_reads_back() {
        for difference in [Difference::None, Difference::More(raw(7)), Difference::Less(raw(70))] {
            assert_eq!(difference.to_string().parse(), Ok(difference));
        }
        for wrong in ["", "+", "7", "--7", "0 ", "€1"] {
            assert_eq!(wrong.parse::<Difference>(), Err(DifferenceError), "{wrong}");
        }
    }

    #[test]
    fn only_what_changed_is_news() {
        let (none, less, more) = (Difference::None, Difference::Less(raw(5)), Difference::More(raw(5)));
        let table = [
            (WalletKind::Random, None, none, false),
            (WalletKind::Random, None, more, true),
            (WalletKind::Imported, None, more, false),
            (WalletKind::Hd, None, less, false),
            (WalletKind::Random, Some(none), less, true),
            (WalletKind::Watch, Some(none), more, true),
            (WalletKind::Watch, Some(more), more, false),
            (WalletKind::Random, Some(less), more, true),
            // What came back into line is no reason to call.
            (WalletKind::Random, Some(less), none, false),
        ];
        for (kind, before, now, expected) in table {
            assert_eq!(is_news(kind, before, now), expected, "{kind:?} {before:?} {now:?}");
        }
    }
}
