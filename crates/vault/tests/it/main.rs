//! The vault through its public door: published vectors, tables of what it refuses, and laws.

mod backups;
mod keys;
mod sealing;
mod seeds;
mod signing;

use std::sync::LazyLock;

use serde_json::Value;
use tidegate_vault::{Entropy, KeySource, MasterKey, NewWallet, Salt, Vault};

const MASTER_KEY: &str = "5f3a91c07be244d81690fd2ba7c3e85e0b7d4496f1283acd60e59714bb02d8af";

/// Unlocked once: that is slow on purpose.
static VAULT: LazyLock<Vault> = LazyLock::new(|| unlock(MASTER_KEY, "the salt of the tests"));
static OTHER: LazyLock<Vault> = LazyLock::new(|| unlock("x96jkcB74kTYFpD9K6fD6F4LfUSW8Sg6zWDllxS7Atg", "the salt of the tests"));

fn unlock(master: &str, salt: &str) -> Vault {
    Vault::unlock(&MasterKey::parse(master).unwrap(), &Salt::parse(salt).unwrap()).unwrap()
}

/// Draws the same bytes for the same seed (SplitMix64).
struct Seeded(u64);

impl Entropy for Seeded {
    fn fill(&mut self, buf: &mut [u8]) {
        for byte in buf {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (mixed >> 32) as u8;
        }
    }
}

/// The vectors of a file in `tests/vectors`.
fn vectors(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    serde_json::from_value(file["vectors"].take()).unwrap()
}

/// A text field of a vector.
fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap_or_else(|| panic!("{field} in {vector}"))
}

/// The twenty bytes of an address in hex, with or without `0x`, or with TRON's leading `41`.
fn address(text: &str) -> [u8; 20] {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let digits = if digits.len() == 42 { digits.strip_prefix("41").unwrap() } else { digits };
    hex::decode_to_array(digits).unwrap()
}

/// The key of a wallet that has one of its own.
fn key(made: &NewWallet) -> KeySource<'_> {
    KeySource::Sealed(made.sealed.as_ref().unwrap())
}
