//! Money: [`Amount`] in millionths of a token, and [`Raw`], the exact base units of a chain.
//!
//! Nothing here rounds silently and no float exists in this crate. A transfer keeps its exact
//! base-unit value; sums are made of exact values and floored once, at the end, so that units
//! below a millionth add up instead of vanishing one transfer at a time.

use std::fmt;
use std::str::FromStr;

use ruint::aliases::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Fraction digits of an [`Amount`]: a unit is a millionth of a token.
pub const AMOUNT_DECIMALS: u8 = 6;

/// Millionths in one whole token.
const UNIT: u64 = 1_000_000;

/// An amount of a token in millionths, on every network, whatever the token's own decimals are.
///
/// Written as a decimal string: `"12.5"` in, always six fraction digits out (`"12.500000"`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(u64);

/// Why a text is not an [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The text is not digits with at most six fraction digits.
    #[error("expected a decimal string with at most 6 fraction digits, such as \"12.5\"")]
    Malformed,
    /// The text is a number, but above [`Amount::MAX`].
    #[error("expected at most 9000000000000 (nine trillion)")]
    TooLarge,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The most that an order may ask for: 9,000,000,000,000 tokens. It fits an `i64`, so a
    /// database column can hold it.
    pub const MAX: Self = Self(9_000_000_000_000 * UNIT);

    /// An amount of `micros` millionths.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The amount in millionths.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// True for nothing at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` above `u64::MAX` millionths.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, never below zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This amount in base units of a token with `decimals`, exactly.
    ///
    /// `None` when the token has fewer than six decimals and the amount does not fit its grid, or
    /// when the result is beyond 256 bits.
    #[must_use]
    pub fn to_raw(self, decimals: u8) -> Option<Raw> {
        let micros = U256::from(self.0);
        let raw = if decimals >= AMOUNT_DECIMALS {
            micros.checked_mul(pow10(decimals.checked_sub(AMOUNT_DECIMALS)?)?)?
        } else {
            let grid = pow10(AMOUNT_DECIMALS.checked_sub(decimals)?)?;
            let (quotient, remainder) = (micros.checked_div(grid)?, micros.checked_rem(grid)?);
            if !remainder.is_zero() {
                return None;
            }
            quotient
        };
        Some(Raw(raw))
    }
}

/// `10^exponent`, or `None` beyond 256 bits.
fn pow10(exponent: u8) -> Option<U256> {
    U256::from(10).checked_pow(U256::from(exponent))
}

impl FromStr for Amount {
    type Err = AmountError;

    /// Reads `^(0|[1-9][0-9]*)(\.[0-9]{1,6})?$`, up to [`Amount::MAX`].
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (whole, fraction) = match text.split_once('.') {
            None => (text, None),
            Some((whole, fraction)) => (whole, Some(fraction)),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
            return Err(AmountError::Malformed);
        }
        if let Some(fraction) = fraction
            && (!digits(fraction) || fraction.len() > usize::from(AMOUNT_DECIMALS))
        {
            return Err(AmountError::Malformed);
        }
        let whole: u64 = whole.parse().map_err(|_| AmountError::TooLarge)?;
        let fraction: u64 = format!("{:0<6}", fraction.unwrap_or("0")).parse().map_err(|_| AmountError::Malformed)?;
        let amount = whole.checked_mul(UNIT).and_then(|micros| micros.checked_add(fraction)).map(Self).ok_or(AmountError::TooLarge)?;
        if amount > Self::MAX {
            return Err(AmountError::TooLarge);
        }
        Ok(amount)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::arithmetic_side_effects, reason = "the divisor is a non-zero constant")]
        let (whole, fraction) = (self.0 / UNIT, self.0 % UNIT);
        write!(f, "{whole}.{fraction:06}")
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An exact value in a token's base units, as the chain's log says it (0 to 2²⁵⁶ − 1).
///
/// Its text is a plain decimal integer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Raw(U256);

impl Raw {
    /// Nothing.
    pub const ZERO: Self = Self(U256::ZERO);

    /// The value of a 32-byte big-endian word, as an ABI-encoded `uint256`.
    #[must_use]
    pub const fn from_be_bytes(word: [u8; 32]) -> Self {
        Self(U256::from_be_bytes(word))
    }

    /// The 32-byte big-endian word of this value.
    #[must_use]
    pub const fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// A value of `units` base units.
    #[must_use]
    pub fn from_units(units: u128) -> Self {
        Self(U256::from(units))
    }

    /// True for nothing at all.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The sum, never above 2²⁵⁶ − 1. Only a forged token reaches that, and a sum that stays at
    /// the top is still far above every amount that could be asked for.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, never below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This value times `10^digits`, never above 2²⁵⁶ − 1.
    #[must_use]
    pub fn scaled(self, digits: u8) -> Self {
        pow10(digits).map_or(self, |factor| Self(self.0.saturating_mul(factor)))
    }

    /// The whole millionths in this value for a token with `decimals`, rounded down.
    ///
    /// `None` above [`Amount::MAX`]: no real token moves that much.
    #[must_use]
    pub fn to_amount(self, decimals: u8) -> Option<Amount> {
        let micros = if decimals >= AMOUNT_DECIMALS {
            self.0.checked_div(pow10(decimals.checked_sub(AMOUNT_DECIMALS)?)?)?
        } else {
            self.0.checked_mul(pow10(AMOUNT_DECIMALS.checked_sub(decimals)?)?)?
        };
        let amount = Amount(u64::try_from(micros).ok()?);
        (amount <= Amount::MAX).then_some(amount)
    }

    /// As [`Raw::to_amount`], but [`Amount::MAX`] where that says `None`.
    #[must_use]
    pub fn to_amount_saturating(self, decimals: u8) -> Amount {
        self.to_amount(decimals).unwrap_or(Amount::MAX)
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Raw {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        // The parser would take an empty text for nothing, and digits with underscores between them.
        if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(AmountError::Malformed);
        }
        U256::from_str_radix(text, 10).map(Self).map_err(|_| AmountError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_decimal_strings() {
        let table = "
            0           0.000000
            1           1.000000
            12.5        12.500000
            0.000001    0.000001
            9000000000000           9000000000000.000000
            9000000000000.000000    9000000000000.000000
            9000000000000.000001    too large
            99999999999999999999    too large
            -1          malformed
            +1          malformed
            01          malformed
            1.          malformed
            .5          malformed
            1.0000001   malformed
            1e3         malformed
            1,000       malformed
            ١           malformed
            1.2.3       malformed";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (input, expected) = line.split_once(char::is_whitespace).unwrap();
            let found = match input.parse::<Amount>() {
                Ok(amount) => amount.to_string(),
                Err(AmountError::Malformed) => "malformed".into(),
                Err(AmountError::TooLarge) => "too large".into(),
            };
            assert_eq!(found, expected.trim(), "{input}");
        }
        assert_eq!("".parse::<Amount>(), Err(AmountError::Malformed));
    }

    #[test]
    fn base_units_convert_exactly_and_floor_once() {
        let one = Amount::from_micros(UNIT);
        assert_eq!(one.to_raw(6).unwrap().to_string(), "1000000");
        assert_eq!(one.to_raw(18).unwrap().to_string(), "1000000000000000000");
        assert_eq!(one.to_raw(2).unwrap().to_string(), "100");
        assert_eq!(Amount::from_micros(1).to_raw(2), None, "a millionth does not fit cents");

        let dust: Raw = "999999999999".parse().unwrap();
        assert_eq!(dust.to_amount(18).unwrap(), Amount::ZERO);
        let sum = dust.saturating_add("1".parse().unwrap());
        assert_eq!(sum.to_amount(18).unwrap(), Amount::from_micros(1), "parts below a millionth add up");

        let forged = Raw::from_be_bytes([0xff; 32]);
        assert_eq!(forged.to_amount(6), None);
        assert_eq!(forged.saturating_add(forged), forged);
    }

    #[test]
    fn base_units_are_read_from_plain_digits_alone() {
        let most = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        for text in ["0", "1", "1700000000", most] {
            assert_eq!(text.parse::<Raw>().unwrap().to_string(), text);
        }
        let beyond = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
        for text in ["", "_", "1_000", "+1", "-1", " 1", "1 ", "0x1", "1.0", "١", beyond] {
            assert_eq!(text.parse::<Raw>(), Err(AmountError::Malformed), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_amount_survives_its_text_and_its_base_units(micros in 0..=Amount::MAX.micros(), decimals in 6u8..=24) {
            let amount = Amount::from_micros(micros);
            proptest::prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
            proptest::prop_assert_eq!(amount.to_raw(decimals).unwrap().to_amount(decimals), Some(amount));
        }
    }
}
