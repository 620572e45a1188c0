//! Extended public keys of accounts as people hand them over: `xpub…`, the base58check form of
//! BIP-32.
//!
//! Reading is strict, and above all it takes nothing private: a key that spends was sent by mistake,
//! and no error repeats any of it.

use std::fmt;

use k256::PublicKey;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::hd::{DeriveError, PublicBranch, PublicNode};

/// An account's extended public key, `m/44'/coin'/account'`. `Debug` prints its fingerprint alone.
#[derive(Clone)]
pub struct AccountXpub {
    /// The fingerprint of `m/44'/coin'`.
    pub(crate) parent: [u8; 4],
    /// The account, hardened.
    pub(crate) number: u32,
    pub(crate) node: PublicNode,
}

/// Why a text is not an account's extended public key. Repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidXpub {
    /// It is private: an extended private key, a private key, or the words of a seed.
    #[error(
        "this looks like a private key or the words of a seed, which nobody should ever send: whoever saw it can spend. \
         Give the account's public key, which begins with xpub"
    )]
    Private,
    /// It is not base58check of 82 bytes.
    #[error("expected an extended public key: xpub and 107 characters more, without typing errors")]
    Malformed,
    /// It is for something else than mainnet's plain form.
    #[error("expected an extended public key that begins with xpub: this one is another network's, or of another kind of address")]
    Version,
    /// It is not an account's.
    #[error("expected the key of an account (m/44'/195'/0' on TRON, m/44'/60'/0' on EVM chains), {0} steps below the seed instead of 3")]
    Depth(u8),
    /// Its last step is not hardened.
    #[error("expected the key of an account, whose last step is hardened (m/44'/195'/0' on TRON, m/44'/60'/0' on EVM chains)")]
    NotHardened,
    /// Its key is no point of secp256k1.
    #[error("the key in this xpub is none of secp256k1")]
    NoKey,
}

/// `xpub`, after base58.
const VERSION: u32 = 0x0488_b21e;
/// Steps from the seed to an account.
const DEPTH: u8 = 3;
const HARDENED: u32 = 1 << 31;

impl AccountXpub {
    /// Reads `xpub…`, with white space around it.
    ///
    /// # Errors
    /// [`InvalidXpub`] for every other text, and for the key of anything but an account.
    pub fn parse(text: &str) -> Result<Self, InvalidXpub> {
        let text = text.trim();
        if is_private(text) {
            return Err(InvalidXpub::Private);
        }
        let bytes = unbase58(text).ok_or(InvalidXpub::Malformed)?;
        let (payload, sum) = bytes.split_last_chunk::<4>().ok_or(InvalidXpub::Malformed)?;
        if *sum != checksum(payload) {
            return Err(InvalidXpub::Malformed);
        }
        let mut fields = Fields(payload);
        let (version, [depth], parent, number) = (fields.take()?, fields.take()?, fields.take()?, fields.take()?);
        let (chain_code, key): ([u8; 32], [u8; 33]) = (fields.take()?, fields.take()?);
        let number = u32::from_be_bytes(number);
        if u32::from_be_bytes(version) != VERSION {
            return Err(InvalidXpub::Version);
        }
        if depth != DEPTH {
            return Err(InvalidXpub::Depth(depth));
        }
        if number < HARDENED {
            return Err(InvalidXpub::NotHardened);
        }
        // SEC 1 knows more ways to write a point in 33 bytes than BIP-32 does.
        let point = PublicKey::from_sec1_bytes(&key).ok().filter(|point| *point.to_sec1_bytes() == key).ok_or(InvalidXpub::NoKey)?;
        Ok(Self { parent, number, node: PublicNode { key: point, chain_code: Zeroizing::new(chain_code) } })
    }

    /// The branch that payments come to, its child 0.
    ///
    /// # Errors
    /// [`DeriveError::NoKey`] for one account in 2¹²⁷.
    pub fn branch(&self) -> Result<PublicBranch, DeriveError> {
        self.node.child(0).map(PublicBranch)
    }

    /// The text that [`AccountXpub::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (version, number) = (VERSION.to_be_bytes(), self.number.to_be_bytes());
        let key = self.node.key.to_sec1_bytes();
        let payload = [version.as_slice(), &[DEPTH], &self.parent, &number, &*self.node.chain_code, &key].concat();
        base58check(&payload)
    }
}

impl fmt::Debug for AccountXpub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountXpub({})", hex::encode(self.node.fingerprint()))
    }
}

/// True for what nobody should send: `xprv…` and its like, 64 hex digits, or a list of words.
fn is_private(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    text.get(1..4).is_some_and(|kind| kind.eq_ignore_ascii_case("prv"))
        || (digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        || text.split_whitespace().nth(11).is_some()
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], InvalidXpub> {
        let (field, rest) = self.0.split_first_chunk().ok_or(InvalidXpub::Malformed)?;
        self.0 = rest;
        Ok(*field)
    }
}

/// An extended key and its checksum.
const BYTES: usize = 82;
/// How many digits they have, for every version in use.
const CHARS: usize = 111;

fn checksum(payload: &[u8]) -> [u8; 4] {
    let twice: [u8; 32] = Sha256::digest(Sha256::digest(payload)).into();
    twice.first_chunk().copied().unwrap_or_default()
}

fn base58check(payload: &[u8]) -> String {
    bs58::encode([payload, &checksum(payload)].concat()).into_string()
}

/// `None` for a foreign character or another length.
fn unbase58(text: &str) -> Option<[u8; BYTES]> {
    (text.len() == CHARS).then_some(())?;
    let mut number = [0_u8; BYTES];
    (bs58::decode(text).onto(&mut number).ok()? == BYTES).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of `abandon … about` at `m/44'/195'/0'`.
    const XPUB: &str = "xpub6D1AabNHCupeiLM65ZR9UStMhJ1vCpyV4XbZdyhMZBiJXALQtmn9p42VTQckoHVn8WNqS7dqnJokZHAHcHGoaQgmv8D45oNUKx6DZMNZBCd";

    fn with(at: usize, bytes: &[u8]) -> String {
        let mut payload = unbase58(XPUB).unwrap()[..78].to_vec();
        payload[at..at + bytes.len()].copy_from_slice(bytes);
        base58check(&payload)
    }

    fn refused(text: &str) -> InvalidXpub {
        let error = AccountXpub::parse(text).unwrap_err();
        assert!(text.len() < 12 || !error.to_string().contains(text), "an error repeats {text}");
        error
    }

    #[test]
    fn nothing_but_the_public_key_of_an_account_is_read() {
        assert_eq!(AccountXpub::parse(&format!(" {XPUB}\n")).unwrap().to_text(), XPUB);
        assert_eq!(with(0, &[]), XPUB);
        for (depth, text) in [0, 2, 4, 5, 255].map(|depth| (depth, with(4, &[depth]))) {
            assert_eq!(refused(&text), InvalidXpub::Depth(depth));
        }
        assert_eq!(refused(&with(9, &0_u32.to_be_bytes())), InvalidXpub::NotHardened);
        assert_eq!(refused(&with(9, &(HARDENED - 1).to_be_bytes())), InvalidXpub::NotHardened);
        AccountXpub::parse(&with(9, &u32::MAX.to_be_bytes())).unwrap();
        // 02 and 5 is no point; 04 begins a longer form, 05 another short one, 00 a private key.
        let no_point = [[2].as_slice(), &[0; 31], &[5]].concat();
        for key in [&no_point, [0].as_slice(), &[4], &[5]] {
            assert_eq!(refused(&with(45, key)), InvalidXpub::NoKey);
        }
        // ypub, zpub, tpub and a version that nobody uses.
        for version in [0x049d_7cb2_u32, 0x04b2_4746, 0x0435_87cf, 0x0488_b21f] {
            assert_eq!(refused(&with(0, &version.to_be_bytes())), InvalidXpub::Version);
        }
    }

    #[test]
    fn what_is_private_is_refused_as_such() {
        let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        let key = "b5a4cea271ff424d7c31dc12a3e43e401df7a40d7412a15750f3f0b6b5449a28";
        // xprv, yprv, zprv and tprv.
        let versions = [0x0488_ade4_u32, 0x049d_7878, 0x04b2_430c, 0x0435_8394];
        for text in versions.map(|version| with(0, &version.to_be_bytes())) {
            assert_eq!(refused(&text), InvalidXpub::Private, "{text}");
            assert_eq!(refused(&text[..50]), InvalidXpub::Private, "{text}");
        }
        for text in [words, key, &format!("0x{key}"), "XPRV9z1pB5qPN"] {
            assert_eq!(refused(text), InvalidXpub::Private);
        }
        assert!(InvalidXpub::Private.to_string().contains("xpub"));
    }

    #[test]
    fn a_typing_error_is_seen() {
        for at in 0..XPUB.len() {
            let mut typed = XPUB.to_owned();
            typed.replace_range(at..=at, if &XPUB[at..=at] == "8" { "9" } else { "8" });
            assert_eq!(refused(&typed), InvalidXpub::Malformed, "{typed}");
            assert_eq!(refused(&XPUB[..at]), InvalidXpub::Malformed);
        }
        for longer in [format!("{XPUB}1"), format!("1{XPUB}"), XPUB.replace('5', "0"), "z".repeat(CHARS)] {
            assert_eq!(refused(&longer), InvalidXpub::Malformed);
        }
    }

    #[test]
    fn nothing_prints_it_whole() {
        let account = AccountXpub::parse(XPUB).unwrap();
        for shown in [format!("{account:?}"), format!("{:?}", account.branch().unwrap())] {
            assert!(shown.len() < 30 && shown.ends_with(')'), "{shown}");
        }
    }
}
