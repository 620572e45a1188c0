//! The words of a seed: BIP-39, with its English list.
//!
//! ```text
//! words    = the entropy and the first bits of its SHA-256, eleven bits a word
//! seed     = PBKDF2-HMAC-SHA512(words, "mnemonic" + passphrase, 2048 rounds)
//! ```
//!
//! Words are for people to write down. The vault stores the seed, never the words.

use std::fmt;

use hmac::digest::FixedOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::Entropy;

/// The list of BIP-39, in its order.
const ENGLISH: &str = include_str!("english.txt");

/// Every word stands for so many bits.
const WORD_BITS: u32 = 11;
/// 24 words: 32 bytes and one of checksum.
const PACKED_BYTES: usize = 33;
/// 24 words of at most eight letters, and what is between them.
const TEXT_BYTES_MAX: usize = 24 * 9;

const ROUNDS: u32 = 2048;

/// The words of a new seed, to be shown once and written down.
///
/// It has no `Clone`, `Debug` does not print it, and it is wiped when dropped.
///
/// ```compile_fail,E0599
/// # use tidegate_vault::Words;
/// fn copy(words: Words) -> (Words, Words) { (words.clone(), words) }
/// ```
/// ```compile_fail,E0277
/// # use tidegate_vault::Words;
/// fn text(words: &Words) { serde_json::to_string(words); }
/// ```
/// ```compile_fail,E0277
/// # use tidegate_vault::Words;
/// fn text(words: &Words) -> String { words.to_string() }
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Words(String);

impl Words {
    /// The 24 words, with a space between them.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Draws 24 words.
    pub(crate) fn draw(entropy: &mut dyn Entropy) -> Self {
        let mut packed = Zeroizing::new([0; PACKED_BYTES]);
        let (secret, check) = packed.split_at_mut(32);
        entropy.fill(secret);
        check.fill(check_byte(secret));
        let mut words = Self(String::with_capacity(TEXT_BYTES_MAX));
        let text = &mut words.0;
        let mut place = 0_u16;
        for (at, bit) in packed.iter().flat_map(|byte| bits(u16::from(*byte), 8)).enumerate() {
            place = (place << 1) | u16::from(bit);
            if at % 11 == 10 {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(ENGLISH.lines().nth(usize::from(place)).unwrap_or_default());
                place = 0;
            }
        }
        words
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Words(..)")
    }
}

/// Why a text is not the words of a seed. Says where, and never repeats a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWords {
    /// There are too few or too many.
    #[error("expected 12, 15, 18, 21 or 24 words, found {0}")]
    Count(usize),
    /// One of them is not on the list.
    #[error("word {position} is not on the English list of BIP-39: look for a typing error")]
    Unknown {
        /// Which one, counted from 1.
        position: usize,
    },
    /// All are on the list, but they do not belong together.
    #[error("the words do not fit together (wrong checksum): one is another word, or two are swapped")]
    Checksum,
}

/// The seed of 12 to 24 words, in any case and with any white space between them.
pub(crate) fn seed_of(words: &str, passphrase: &str) -> Result<Zeroizing<[u8; 64]>, InvalidWords> {
    let words = sentence(words)?;
    let mut salt = Zeroizing::new(b"mnemonic".to_vec());
    // Reserved before it is filled: a text that grows leaves copies behind.
    salt.reserve_exact(passphrase.nfkd().map(char::len_utf8).sum());
    for c in passphrase.nfkd() {
        salt.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(stretch(words.as_bytes(), &salt))
}

/// The words as BIP-39 spells them, if their checksum is right.
fn sentence(words: &str) -> Result<Zeroizing<String>, InvalidWords> {
    let count = words.split_whitespace().count();
    // How many bytes were drawn, and which bits of the byte after them are their checksum.
    let (drawn, mask) = match count {
        12 => (16, 0xf0),
        15 => (20, 0xf8),
        18 => (24, 0xfc),
        21 => (28, 0xfe),
        24 => (32, 0xff),
        other => return Err(InvalidWords::Count(other)),
    };
    let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
    let mut places = Zeroizing::new(Vec::with_capacity(count));
    for (position, word) in (1..).zip(words.split_whitespace()) {
        let known = (0_u16..).zip(ENGLISH.lines()).find(|(_, known)| known.eq_ignore_ascii_case(word));
        let (place, known) = known.ok_or(InvalidWords::Unknown { position })?;
        places.push(place);
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(known);
    }
    let mut packed = Zeroizing::new([0_u8; PACKED_BYTES]);
    let mut bytes = packed.iter_mut();
    let mut gathered = 0_u8;
    for (at, bit) in places.iter().flat_map(|place| bits(*place, WORD_BITS)).chain([false; 7]).enumerate() {
        gathered = (gathered << 1) | u8::from(bit);
        // Seven bits more than there are fill up the last byte, or are left over.
        if at % 8 == 7
            && let Some(byte) = bytes.next()
        {
            *byte = gathered;
        }
    }
    let (secret, check) = packed.split_at_checked(drawn).unwrap_or_default();
    if check.first() != Some(&(check_byte(secret) & mask)) {
        return Err(InvalidWords::Checksum);
    }
    Ok(text)
}

fn check_byte(secret: &[u8]) -> u8 {
    Sha256::digest(secret).first().copied().unwrap_or_default()
}

/// The last `count` bits of a number, from the highest.
fn bits(number: u16, count: u32) -> impl Iterator<Item = bool> {
    (0..count).rev().map(move |at| number.wrapping_shr(at) & 1 == 1)
}

/// PBKDF2-HMAC-SHA512, of which one block is the whole seed.
fn stretch(words: &[u8], salt: &[u8]) -> Zeroizing<[u8; 64]> {
    let keyed = keyed(words);
    let mut round = finish(keyed.clone().chain_update(salt).chain_update(1_u32.to_be_bytes()));
    let mut seed = round.clone();
    for _ in 1..ROUNDS {
        round = finish(keyed.clone().chain_update(*round));
        seed.iter_mut().zip(round.iter()).for_each(|(to, from)| *to ^= from);
    }
    seed
}

/// HMAC-SHA512 with a key of any length, which is not a block's: HMAC hashes a longer one and fills
/// a shorter one up with zeros. Done here, no error is left to handle.
pub(crate) fn keyed(key: &[u8]) -> Hmac<Sha512> {
    let mut block = Zeroizing::new([0; 128]);
    if key.len() > block.len() {
        let hashed: Zeroizing<[u8; 64]> = Zeroizing::new(Sha512::digest(key).into());
        block.iter_mut().zip(hashed.iter()).for_each(|(to, from)| *to = *from);
    } else {
        block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    }
    Hmac::new((&*block).into())
}

/// What the HMAC comes to.
pub(crate) fn finish(mac: Hmac<Sha512>) -> Zeroizing<[u8; 64]> {
    let mut out = Zeroizing::new([0; 64]);
    mac.finalize_into((&mut *out).into());
    out
}
