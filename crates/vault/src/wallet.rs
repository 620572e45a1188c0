//! Wallets: making, importing and checking their keys, and the tags on their addresses.
//!
//! A plain key is a [`PrivateKey`], which is private to this crate: it is made, used for one
//! operation and wiped. The same twenty bytes are the address on TRON and on every EVM chain.

use k256::ecdsa::{SigningKey, VerifyingKey};
use sha3::{Digest, Keccak256};
use zeroize::{Zeroize, Zeroizing};

use crate::entropy::Entropy;
use crate::hd::{Coin, SealedSeed};
use crate::seal::{OpenError, key_id_of, stored_text};
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

/// Where the key of a wallet comes from.
#[derive(Clone, Copy, Debug)]
pub enum KeySource<'a> {
    /// From its own sealed text.
    Sealed(&'a SealedKey),
    /// From a seed, at `m/44'/coin'/account'/0/index`.
    Seed {
        /// The seed.
        sealed: &'a SealedSeed,
        /// The id that the seed is bound to.
        seed_id: &'a str,
        /// The second step of the path.
        coin: Coin,
        /// The third.
        account: u32,
        /// The last.
        index: u32,
    },
}

/// What to store of a wallet that was made or imported.
#[derive(Clone, Debug)]
pub struct NewWallet {
    /// Its address, without TRON's leading `41`.
    pub address: [u8; 20],
    /// Its key; `None` where it is derived when it is used, or is not held here at all.
    pub sealed: Option<SealedKey>,
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
    /// The key opens, but it is another address's: the path to it was altered.
    #[error("the wallet's key is of another address: 0x{} is stored, but the key gives 0x{}", hex::encode(.stored), hex::encode(.found))]
    OtherAddress {
        /// The address that is stored.
        stored: [u8; 20],
        /// The address that the key gives.
        found: [u8; 20],
    },
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

    /// What to store of the wallet `id` on `network` whose key is derived when it is used, or is not
    /// held here: its tag. The caller answers for the address.
    #[must_use]
    pub fn watch_wallet(&self, id: &str, network: &str, address: [u8; 20]) -> NewWallet {
        NewWallet { address, sealed: None, tag: self.tag(&Wallet { id, network, address: &address }) }
    }

    /// Checks that a stored wallet is whole: its tag is right, and its key opens and gives its
    /// address.
    ///
    /// # Errors
    /// [`VerifyError`] says which of them fails, and how.
    pub fn verify_wallet(&self, wallet: &Wallet<'_>, source: &KeySource<'_>, tag: &str) -> Result<(), VerifyError> {
        self.verified_key(wallet, source, tag).map(drop)
    }

    /// The private key of a wallet, 64 hex digits, wiped when dropped. This is the one door through
    /// which a key leaves the vault. It is for `tidegate wallet export`, which a person runs on the
    /// command line; nothing that listens on a network may call it.
    ///
    /// # Errors
    /// [`VerifyError`] as in [`Vault::verify_wallet`].
    pub fn export_wallet(&self, wallet: &Wallet<'_>, source: &KeySource<'_>, tag: &str) -> Result<Zeroizing<String>, VerifyError> {
        let key = self.verified_key(wallet, source, tag)?;
        Ok(Zeroizing::new(hex::encode(*key.secret())))
    }

    /// Seals the key of a wallet anew, for a rotation: `old` is unlocked with the master key that
    /// sealed it, `self` with its successor. A key or tag that is under the successor already comes
    /// back as it is, once it has been checked.
    ///
    /// # Errors
    /// [`VerifyError`] as in [`Vault::verify_wallet`], each text with the vault of the key that it
    /// names: nothing doubtful is taken over.
    pub fn adopt_wallet(
        &self,
        old: &Self,
        wallet: &Wallet<'_>,
        sealed: &SealedKey,
        tag: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<NewWallet, VerifyError> {
        let tag = self.adopt_tag(old, wallet, tag)?;
        let source = KeySource::Sealed(sealed);
        let sealed = if sealed.key_id() == Some(self.key_id()) {
            self.private_key(wallet, &source)?;
            sealed.clone()
        } else {
            self.keep_key(&old.private_key(wallet, &source)?, wallet, entropy)
        };
        Ok(NewWallet { address: *wallet.address, sealed: Some(sealed), tag })
    }

    /// Makes the tag of a wallet anew, for a rotation: `old` is unlocked with the master key that it
    /// is under, `self` with its successor. All that a wallet without a key of its own needs. A tag
    /// that is under the successor already comes back as it is, once it has been checked.
    ///
    /// # Errors
    /// [`VerifyError::Tag`] when it is not the tag of this wallet.
    pub fn adopt_tag(&self, old: &Self, wallet: &Wallet<'_>, tag: &str) -> Result<String, VerifyError> {
        let made_by = if key_id_of(tag) == Some(self.key_id()) { self } else { old };
        if made_by.verify_tag(wallet, tag) { Ok(self.tag(wallet)) } else { Err(VerifyError::Tag) }
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

    fn verified_key(&self, wallet: &Wallet<'_>, source: &KeySource<'_>, tag: &str) -> Result<PrivateKey, VerifyError> {
        if !self.verify_tag(wallet, tag) {
            return Err(VerifyError::Tag);
        }
        self.private_key(wallet, source)
    }

    /// The plain key of a wallet. Stays inside the crate.
    pub(crate) fn private_key(&self, wallet: &Wallet<'_>, source: &KeySource<'_>) -> Result<PrivateKey, VerifyError> {
        let key = match *source {
            KeySource::Sealed(sealed) => {
                let secret = self.open_exactly::<32>(&self.wallets, sealed.as_str(), &wallet.binding())?;
                PrivateKey::from_secret(&*secret).map_err(|_| OpenError::Refused)?
            }
            KeySource::Seed { sealed, seed_id, coin, account, index } => self.derived_key(seed_id, sealed, coin, account, index)?,
        };
        let found = key.address();
        if found != *wallet.address {
            return Err(VerifyError::OtherAddress { stored: *wallet.address, found });
        }
        Ok(key)
    }

    fn keep(&self, key: &PrivateKey, id: &str, network: &str, entropy: &mut dyn Entropy) -> NewWallet {
        let address = key.address();
        let wallet = Wallet { id, network, address: &address };
        NewWallet { address, sealed: Some(self.keep_key(key, &wallet, entropy)), tag: self.tag(&wallet) }
    }

    fn keep_key(&self, key: &PrivateKey, wallet: &Wallet<'_>, entropy: &mut dyn Entropy) -> SealedKey {
        SealedKey(self.seal_with(&self.wallets, &*key.secret(), &wallet.binding(), entropy))
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

    pub(crate) fn from_secret(secret: &[u8]) -> Result<Self, InvalidKey> {
        SigningKey::from_slice(secret).map(Self).map_err(|_| InvalidKey::OutOfRange)
    }

    fn secret(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = self.0.to_bytes();
        let secret = Zeroizing::new(bytes.into());
        bytes.zeroize();
        secret
    }

    pub(crate) fn address(&self) -> [u8; 20] {
        address_of(self.0.verifying_key())
    }

    /// Signs deterministically (RFC 6979): one transaction has one signature, however often it is
    /// asked for.
    pub(crate) fn sign(&self, digest: &[u8; 32]) -> Signature {
        let (signature, recovery) = self.0.sign_prehash_recoverable(digest);
        let (r, s) = signature.split_bytes();
        Signature { r: r.into(), s: s.into(), parity: u8::from(recovery.is_y_odd()) }
    }
}

/// The address of a public key, the same on TRON and on every EVM chain.
pub(crate) fn address_of(key: &VerifyingKey) -> [u8; 20] {
    let point = key.to_sec1_point(false);
    // The hash is of the point's two coordinates, without the byte 04 that leads them.
    let hash = Keccak256::digest(point.as_bytes().get(1..).unwrap_or_default());
    let mut address = [0; 20];
    address.iter_mut().zip(hash.iter().skip(12)).for_each(|(to, from)| *to = *from);
    address
}
