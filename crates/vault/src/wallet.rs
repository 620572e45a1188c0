//! Wallets: making, importing and checking their keys, and the tags on their addresses.
//!
//! A plain key is a [`PrivateKey`], which is private to this crate: it is made, used for one
//! operation and wiped. The same twenty bytes are the address on TRON and on every EVM chain.

use k256::ecdsa::SigningKey;
use sha3::{Digest, Keccak256};
use zeroize::{Zeroize, Zeroizing};

use crate::entropy::Entropy;
use crate::seal::{OpenError, stored_text};
use crate::subkey::{Vault, framed, same};

stored_text! {
    /// The sealed private key of a wallet. Nothing opens it but [`Vault::sign`] and the checks.
    SealedKey
}

/// The wallet that a key, a tag or a signature belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wallet<'a> {
    /// Its id in the database.
    pub id: &'a str,
    /// The name of its network.
    pub network: &'a str,
    /// Its address, without TRON's leading `41`.
    pub address: &'a [u8; 20],
}

impl Wallet<'_> {
    fn binding(&self) -> Vec<u8> {
        framed(&[self.id.as_bytes(), self.network.as_bytes(), self.address])
    }
}

/// What to store of a wallet that was made or imported.
#[derive(Clone, Debug)]
pub struct NewWallet {
    /// Its address, without TRON's leading `41`.
    pub address: [u8; 20],
    /// Its key.
    pub sealed: SealedKey,
    /// The tag that lets its address be shown, see [`Vault::tag`].
    pub tag: String,
}

/// Why a text is not a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text is not 64 hex digits.
    #[error("expected a private key of 64 hex digits, with or without 0x")]
    Malformed,
    /// The number is zero, or not below the order of secp256k1.
    #[error("not a private key of secp256k1: the number is zero or too large")]
    OutOfRange,
}

/// Why a stored wallet is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The tag is not of this wallet and address.
    #[error("the address has no valid tag: it was not made here, or the row was altered")]
    Tag,
    /// The key does not open for this wallet.
    #[error("the wallet's key does not open: {0}")]
    Key(#[from] OpenError),
}

impl Vault {
    /// Makes the wallet `id` on `network`.
    pub fn generate_wallet(&self, id: &str, network: &str, entropy: &mut dyn Entropy) -> NewWallet {
        self.keep(&PrivateKey::generate(entropy), id, network, entropy)
    }

    /// Makes the wallet `id` on `network` from a private key: 64 hex digits, with or without `0x`.
    ///
    /// # Errors
    /// [`InvalidKey`] when the text is none.
    pub fn import_wallet(&self, private_key: &str, id: &str, network: &str, entropy: &mut dyn Entropy) -> Result<NewWallet, InvalidKey> {
        Ok(self.keep(&PrivateKey::parse(private_key)?, id, network, entropy))
    }

    /// Checks that a stored wallet is whole: its tag is right, and its key opens and gives its
    /// address.
    ///
    /// # Errors
    /// [`VerifyError`] says which of them fails.
    pub fn verify_wallet(&self, wallet: &Wallet<'_>, sealed: &SealedKey, tag: &str) -> Result<(), VerifyError> {
        self.verified_key(wallet, sealed, tag).map(drop)
    }

    /// Seals the key of a wallet anew, for a rotation: `old` is unlocked with the master key that
    /// sealed it, `self` with its successor.
    ///
    /// # Errors
    /// [`VerifyError`] as in [`Vault::verify_wallet`] on `old`: nothing doubtful is taken over.
    pub fn adopt_wallet(
        &self,
        old: &Self,
        wallet: &Wallet<'_>,
        sealed: &SealedKey,
        tag: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<NewWallet, VerifyError> {
        let key = old.verified_key(wallet, sealed, tag)?;
        Ok(self.keep(&key, wallet.id, wallet.network, entropy))
    }

    /// The tag of a wallet's address. Nobody without the master key can make one, so a stored
    /// address with a valid tag is one of ours.
    #[must_use]
    pub fn tag(&self, wallet: &Wallet<'_>) -> String {
        self.authenticate(&self.tags, &wallet.binding())
    }

    /// True when `tag` is the tag of this wallet. To ask before an address is shown or handed out.
    #[must_use]
    pub fn verify_tag(&self, wallet: &Wallet<'_>, tag: &str) -> bool {
        same(&self.tag(wallet), tag)
    }

    fn verified_key(&self, wallet: &Wallet<'_>, sealed: &SealedKey, tag: &str) -> Result<PrivateKey, VerifyError> {
        if !self.verify_tag(wallet, tag) {
            return Err(VerifyError::Tag);
        }
        Ok(self.private_key(wallet, sealed)?)
    }

    /// The plain key of a wallet. Stays inside the crate.
    pub(crate) fn private_key(&self, wallet: &Wallet<'_>, sealed: &SealedKey) -> Result<PrivateKey, OpenError> {
        let secret = self.open_with(&self.wallets, sealed.as_str(), &wallet.binding())?;
        PrivateKey::from_secret(&secret).ok().filter(|key| key.address() == *wallet.address).ok_or(OpenError::Refused)
    }

    fn keep(&self, key: &PrivateKey, id: &str, network: &str, entropy: &mut dyn Entropy) -> NewWallet {
        let address = key.address();
        let wallet = Wallet { id, network, address: &address };
        let sealed = self.seal_with(&self.wallets, &*key.secret(), &wallet.binding(), entropy);
        NewWallet { address, sealed: SealedKey(sealed), tag: self.tag(&wallet) }
    }
}

/// A plain private key. Wiped when dropped.
pub(crate) struct PrivateKey(SigningKey);

/// A signature of a 32-byte digest, with `s` in the lower half of its range.
pub(crate) struct Signature {
    pub(crate) r: [u8; 32],
    pub(crate) s: [u8; 32],
    /// Which of the two points with this `r` was meant: 0 or 1.
    pub(crate) parity: u8,
}

impl PrivateKey {
    pub(crate) fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        // One draw in 2¹²⁸ is not a key; then draw again.
        loop {
            entropy.fill(secret.as_mut_slice());
            if let Ok(key) = Self::from_secret(&*secret) {
                return key;
            }
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut secret = Zeroizing::new([0; 32]);
        // The decoder would take a second 0x.
        if digits.len() != 64 || hex::decode_to_slice(digits, secret.as_mut_slice()).is_err() {
            return Err(InvalidKey::Malformed);
        }
        Self::from_secret(&*secret)
    }

    fn from_secret(secret: &[u8]) -> Result<Self, InvalidKey> {
        SigningKey::from_slice(secret).map(Self).map_err(|_| InvalidKey::OutOfRange)
    }

    fn secret(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = self.0.to_bytes();
        let secret = Zeroizing::new(bytes.into());
        bytes.zeroize();
        secret
    }

    pub(crate) fn address(&self) -> [u8; 20] {
        let point = self.0.verifying_key().to_sec1_point(false);
        // The hash is of the point's two coordinates, without the byte 04 that leads them.
        let hash = Keccak256::digest(point.as_bytes().get(1..).unwrap_or_default());
        let mut address = [0; 20];
        address.iter_mut().zip(hash.iter().skip(12)).for_each(|(to, from)| *to = *from);
        address
    }

    /// Signs deterministically (RFC 6979): one transaction has one signature, however often it is
    /// asked for.
    pub(crate) fn sign(&self, digest: &[u8; 32]) -> Signature {
        let (signature, recovery) = self.0.sign_prehash_recoverable(digest);
        let (r, s) = signature.split_bytes();
        Signature { r: r.into(), s: s.into(), parity: u8::from(recovery.is_y_odd()) }
    }
}
