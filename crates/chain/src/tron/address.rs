//! TRON addresses as people write them: base58check of `41` and twenty bytes, 34 characters that
//! begin with `T`.
//!
//! Reading is strict: nothing but this form, checksum verified. Hex forms are the protocol's own
//! and are never accepted from people. Whether an address may be paid to is not decided here.

use sha2::{Digest, Sha256};
use tidegate_rules::block::Address;

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
    bs58::encode(payload).into_string()
}

/// Reads an address, or `None` for anything else.
#[must_use]
pub fn parse_address(text: &str) -> Option<Address> {
    if text.len() != TEXT_CHARS {
        return None;
    }
    let mut payload = [0; PAYLOAD_BYTES];
    let length = bs58::decode(text).onto(&mut payload).ok()?;
    (length == PAYLOAD_BYTES).then_some(())?;
    let (prefix, rest) = payload.split_first()?;
    let (body, sum) = rest.split_first_chunk::<20>()?;
    (*prefix == PREFIX && sum == checksum(body)).then_some(Address(*body))
}

fn checksum(body: &[u8; 20]) -> [u8; 4] {
    let once = Sha256::new().chain_update([PREFIX]).chain_update(body).finalize();
    let twice: [u8; 32] = Sha256::digest(once).into();
    twice.first_chunk().copied().unwrap_or_default()
}
