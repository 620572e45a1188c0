//! One key becomes many: the [`Vault`], and how it is unlocked.
//!
//! ```text
//! root       = Argon2id(master key, salt)
//! subkey     = HMAC-SHA256(root, label)          one for every use, so that no two uses mix
//! ```
//!
//! Argon2id is there for the operator whose key is worse than it looks; the labels are the format
//! and never change.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::master::{MasterKey, Salt};
use crate::stretch::{Cost, stretch};

/// The version that every text of the vault starts with. A new format gets a new one.
pub(crate) const VERSION: &str = "v1";

/// Bytes that name a generation of the master key.
const KEY_ID_BYTES: usize = 4;

/// The unlocked vault. Shared by reference or `Arc`; every method takes `&self`.
///
/// It has no `Clone`, nothing prints its keys, and they are wiped when it is dropped.
///
/// ```compile_fail,E0308
/// fn copy(vault: &tidegate_vault::Vault) -> tidegate_vault::Vault { vault.clone() }
/// ```
/// ```compile_fail,E0277
/// fn text(vault: &tidegate_vault::Vault) { serde_json::to_string(vault); }
/// ```
#[derive(ZeroizeOnDrop)]
pub struct Vault {
    #[zeroize(skip)]
    pub(crate) key_id: String,
    pub(crate) wallets: Subkey,
    pub(crate) secrets: Subkey,
    pub(crate) tags: Subkey,
    pub(crate) destinations: Subkey,
    pub(crate) seeds: Subkey,
    pub(crate) backups: Subkey,
    fingerprints: Subkey,
    check: Subkey,
}

/// The vault could not be unlocked: there are no 19 MiB of memory to derive its keys in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not enough memory to derive the vault's keys (19 MiB are needed)")]
pub struct UnlockError;

impl Vault {
    /// Derives all keys. Slow on purpose: once per start.
    ///
    /// Any master key and salt unlock a vault; [`Vault::verify_check`] tells whether it is the
    /// right one.
    ///
    /// # Errors
    /// [`UnlockError`] when memory is short.
    pub fn unlock(master: &MasterKey, salt: &Salt) -> Result<Self, UnlockError> {
        let mut root = Subkey(Box::new([0; 32]));
        stretch(master.bytes(), salt.bytes(), Cost::BASELINE, root.0.as_mut_slice()).map_err(|_| UnlockError)?;
        let id = root.mac(b"tidegate/v1/key-id");
        Ok(Self {
            key_id: id.iter().take(KEY_ID_BYTES).map(|byte| format!("{byte:02x}")).collect(),
            wallets: root.derive("tidegate/v1/seal-wallet"),
            secrets: root.derive("tidegate/v1/seal-secret"),
            tags: root.derive("tidegate/v1/address-tag"),
            destinations: root.derive("tidegate/v1/destination"),
            seeds: root.derive("tidegate/v1/seal-seed"),
            backups: root.derive("tidegate/v1/backup"),
            fingerprints: root.derive("tidegate/v1/fingerprint"),
            check: root.derive("tidegate/v1/check"),
        })
    }

    /// The short name of this generation of the master key: 8 hex digits, in every text that the
    /// vault makes, so that a rotation can tell what is still to do.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// A text to store beside the secrets, by which a later start knows its master key and salt.
    #[must_use]
    pub fn check_value(&self) -> String {
        self.authenticate(&self.check, b"")
    }

    /// True when `stored` is the check value of this master key and salt.
    #[must_use]
    pub fn verify_check(&self, stored: &str) -> bool {
        same(&self.check_value(), stored)
    }

    /// A keyed fingerprint of `bytes`, 64 hex digits: equal for equal bytes, and without the
    /// master key no way to guess them. For the bodies of idempotent requests.
    #[must_use]
    pub fn fingerprint(&self, bytes: &[u8]) -> String {
        hex::encode(self.fingerprints.mac(bytes))
    }

    /// `v1.<key id>.<MAC of message>`.
    pub(crate) fn authenticate(&self, key: &Subkey, message: &[u8]) -> String {
        format!("{VERSION}.{}.{}", self.key_id, hex::encode(key.mac(message)))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A secret key for one use. On the heap, so that moving it leaves no copy behind.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Subkey(Box<[u8; 32]>);

impl Subkey {
    /// HMAC-SHA256.
    pub(crate) fn mac(&self, message: &[u8]) -> [u8; 32] {
        mac(&self.0, message)
    }

    fn derive(&self, label: &str) -> Self {
        self.derive_from(label.as_bytes())
    }

    /// The key below this one that `message` names.
    pub(crate) fn derive_from(&self, message: &[u8]) -> Self {
        Self(Box::new(self.mac(message)))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// HMAC-SHA256.
pub(crate) fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // HMAC fills a short key up with zeros to a block. Done here, it is a length that the
    // compiler knows, and no error is left to handle.
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// `parts` as one message: each with its length (eight bytes, big-endian) in front, so that no
/// two lists make the same message.
pub(crate) fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::new();
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

/// Compares in a time that does not depend on where the two differ.
pub(crate) fn same(expected: &str, found: &str) -> bool {
    expected.as_bytes().ct_eq(found.as_bytes()).into()
}
