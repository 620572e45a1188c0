//! TRON addresses as people write them: base58check of `41` and twenty bytes, 34 characters that
//! begin with `T`.
//!
//! Reading is strict: nothing but this form, checksum verified. Hex forms are the protocol's own
//! and are never accepted from people. Whether an address may be paid to is not decided here.

use sha2::{Digest, Sha256};
use tidegate_rules::block::Address;

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// The first byte of every mainnet and testnet address.
const PREFIX: u8 = 0x41;
/// Prefix, twenty bytes, four of checksum.
const PAYLOAD_BYTES: usize = 25;
/// How many digits 25 bytes beginning with `41` always have.
const TEXT_CHARS: usize = 34;

/// Writes an address: `TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t`.
#[must_use]
pub fn format_address(address: &Address) -> String {
    let mut payload = [0; PAYLOAD_BYTES];
    let (prefix, rest) = payload.split_at_mut(1);
    let (body, sum) = rest.split_at_mut(20);
    prefix.fill(PREFIX);
    body.copy_from_slice(&address.0);
    sum.copy_from_slice(&checksum(&address.0));
    base58(payload)
}

/// Reads an address, or `None` for anything else.
#[must_use]
pub fn parse_address(text: &str) -> Option<Address> {
    if text.len() != TEXT_CHARS {
        return None;
    }
    let payload = unbase58(text)?;
    let (prefix, rest) = payload.split_first()?;
    let (body, sum) = rest.split_first_chunk::<20>()?;
    (*prefix == PREFIX && sum == checksum(body)).then_some(Address(*body))
}

fn checksum(body: &[u8; 20]) -> [u8; 4] {
    let once = Sha256::new().chain_update([PREFIX]).chain_update(body).finalize();
    let twice: [u8; 32] = Sha256::digest(once).into();
    twice.first_chunk().copied().unwrap_or_default()
}

/// Long division by 58, the remainders being the digits from the last one up.
fn base58(mut number: [u8; PAYLOAD_BYTES]) -> String {
    let mut digits = [0_u8; TEXT_CHARS];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u16;
        for byte in &mut number {
            let value = (remainder << 8) | u16::from(*byte);
            *byte = u8::try_from(value.wrapping_div(58)).unwrap_or_default();
            remainder = value.wrapping_rem(58);
        }
        *digit = ALPHABET.get(usize::from(remainder)).copied().unwrap_or_default();
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// Multiplies by 58 and adds each digit; `None` for a foreign character or beyond 25 bytes.
fn unbase58(text: &str) -> Option<[u8; PAYLOAD_BYTES]> {
    let mut number = [0_u8; PAYLOAD_BYTES];
    for digit in text.bytes() {
        let value = ALPHABET.iter().position(|candidate| *candidate == digit)?;
        let mut carry = u16::try_from(value).ok()?;
        for byte in number.iter_mut().rev() {
            let [high, low] = u16::from(*byte).wrapping_mul(58).wrapping_add(carry).to_be_bytes();
            *byte = low;
            carry = u16::from(high);
        }
        (carry == 0).then_some(())?;
    }
    Some(number)
}
