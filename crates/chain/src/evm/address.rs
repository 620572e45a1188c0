//! EVM addresses as people write them: `0x` and forty hex digits, whose case is a checksum
//! (EIP-55).
//!
//! Reading accepts digits all of one case, which carry no checksum, and the one right mixture.

use sha3::{Digest, Keccak256};
use tidegate_rules::block::Address;

/// Writes an address with its checksum: `0xdAC17F958D2ee523a2206206994597C13D831ec7`.
#[must_use]
pub fn format_address(address: &Address) -> String {
    let lower = hex::encode(address.0);
    let hash = hex::encode(Keccak256::digest(lower.as_bytes()));
    // A letter is upper-case where the digit of the hash at its place is 8 or more.
    let digits = lower.chars().zip(hash.chars()).map(|(digit, hash)| match hash {
        '8'..='9' | 'a'..='f' => digit.to_ascii_uppercase(),
        _ => digit,
    });
    "0x".chars().chain(digits).collect()
}

/// Reads an address, or `None` for anything else, a wrong checksum included.
#[must_use]
pub fn parse_address(text: &str) -> Option<Address> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40)?;
    let address = Address(hex::decode_to_array(digits).ok()?);
    let one_case = !digits.bytes().any(|b| b.is_ascii_uppercase()) || !digits.bytes().any(|b| b.is_ascii_lowercase());
    (one_case || format_address(&address) == text).then_some(address)
}
