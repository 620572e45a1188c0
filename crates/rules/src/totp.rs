//! Time-based one-time passwords (RFC 6238) as authenticator apps make them: six digits, HMAC-SHA-1,
//! steps of thirty seconds. The time comes in as an argument, and so does the last step that was
//! used: a code is good once.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

use crate::time::Time;

/// How long a code is shown, in seconds.
pub const STEP_S: u64 = 30;

/// How many digits a code has.
pub const DIGITS: u32 = 6;

/// How many bytes a new secret has, as RFC 4226 recommends for HMAC-SHA-1.
pub const SECRET_BYTES: usize = 20;

/// How many steps a clock may be off, either way.
const DRIFT_STEPS: u64 = 1;

/// The step that a time is in.
#[must_use]
pub fn step(now: Time) -> u64 {
    u64::try_from(now.secs()).unwrap_or(0).div_euclid(STEP_S)
}

/// The code of a step (RFC 4226 §5.3).
#[must_use]
pub fn code(secret: &[u8], step: u64) -> String {
    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("any key length");
    mac.update(&step.to_be_bytes());
    let mac: [u8; 20] = mac.finalize().into_bytes().into();
    let offset = usize::from(mac.last().copied().unwrap_or(0) & 0x0f);
    let word = mac.get(offset..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let number = (word & 0x7fff_ffff).checked_rem(10_u32.pow(DIGITS)).unwrap_or(0);
    format!("{number:06}")
}

/// The step of the code that was shown, if it is one of now that was not used: later than `used`, in
/// constant time.
#[must_use]
pub fn verify(secret: &[u8], shown: &str, now: Time, used: u64) -> Option<u64> {
    let current = step(now);
    let steps = current.saturating_sub(DRIFT_STEPS)..=current.saturating_add(DRIFT_STEPS);
    steps.fold(None, |found, step| {
        let fits: bool = code(secret, step).as_bytes().ct_eq(shown.as_bytes()).into();
        if fits && step > used { Some(step) } else { found }
    })
}

/// A secret as people type it into an app: base32 (RFC 4648) without padding.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(bytes.len().saturating_mul(8).div_ceil(5));
    for chunk in bytes.chunks(5) {
        let mut bits = [0_u8; 8];
        bits.iter_mut().skip(3).zip(chunk).for_each(|(to, from)| *to = *from);
        let bits = u64::from_be_bytes(bits);
        let letters = chunk.len().saturating_mul(8).div_ceil(5);
        for place in 0..letters {
            let shift = u32::try_from(place).unwrap_or(0).saturating_mul(5);
            let index = 35_u32.checked_sub(shift).and_then(|shift| bits.checked_shr(shift)).unwrap_or(0) & 0x1f;
            let letter = usize::try_from(index).ok().and_then(|index| LETTERS.get(index)).copied().unwrap_or(b'A');
            text.push(char::from(letter));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, SHA-1, the last six of its eight digits.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        let table = "
            59          287082
            1111111109  081804
            1111111111  050471
            1234567890  005924
            2000000000  279037
            20000000000 353130";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (seconds, expected) = line.split_once(' ').unwrap();
            let now = Time::from_secs(seconds.parse().unwrap());
            assert_eq!(code(b"12345678901234567890", step(now)), expected.trim(), "{line}");
        }
    }

    /// RFC 4226, appendix D.
    #[test]
    fn codes_are_those_of_rfc_4226() {
        let expected = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (count, expected) in (0..).zip(expected) {
            assert_eq!(code(b"12345678901234567890", count), expected);
        }
    }

    #[test]
    fn a_code_is_good_once_and_for_a_step_either_way() {
        let (secret, now) = (b"12345678901234567890", Time::from_secs(1_234_567_890));
        let current = step(now);
        for (off, good) in [(-2_i64, false), (-1, true), (0, true), (1, true), (2, false)] {
            let of = current.checked_add_signed(off).unwrap();
            let expected = good.then_some(of);
            assert_eq!(verify(secret, &code(secret, of), now, 0), expected, "{off}");
        }
        let shown = code(secret, current);
        assert_eq!(verify(secret, &shown, now, current), None, "a replay");
        assert_eq!(verify(secret, &shown, now, current - 1), Some(current));
        assert_eq!(verify(secret, &code(secret, current - 1), now, current), None, "an older one after it");
        for wrong in ["", "000000", "00592", "0059244", "abcdef"] {
            assert_eq!(verify(secret, wrong, now, 0), None, "{wrong}");
        }
    }

    /// RFC 4648, section 10, without padding.
    #[test]
    fn secrets_are_written_in_base32() {
        let table = [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foob", "MZXW6YQ"), ("fooba", "MZXW6YTB")];
        for (bytes, expected) in table.into_iter().chain([("foobar", "MZXW6YTBOI")]) {
            assert_eq!(base32(bytes.as_bytes()), expected);
        }
    }
}
