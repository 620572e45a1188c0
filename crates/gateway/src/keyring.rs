//! The vaults of this process: one, or two while the master key is being changed.
//!
//! Every text that a vault made names its key. While a rotation is under way some are still under
//! the previous key: those are read with it, and everything new is made with the current one.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tidegate_vault::{
    Binding, Branch, Coin, InvalidKey, KeySource, NewWallet, OpenError, OsEntropy, Sealed, SealedSeed, Vault, VerifyError, Wallet,
    key_id_of,
};
use zeroize::Zeroizing;

/// The vaults of this process.
pub struct Keyring {
    current: Vault,
    previous: Option<Vault>,
    fingerprints: Zeroizing<Vec<u8>>,
}

/// The name of the setting that holds the sealed key of fingerprints.
pub const FINGERPRINT_KEY: &str = "sealed_fingerprint_key";

/// What a sealed setting is bound to.
#[must_use]
pub fn setting_binding(name: &str) -> Binding {
    Binding::new("setting", &[name])
}

impl Keyring {
    /// Puts the vaults together. `fingerprints` is the opened key of fingerprints, which is sealed
    /// like everything else, so that it outlives a change of the master key.
    #[must_use]
    pub const fn new(current: Vault, previous: Option<Vault>, fingerprints: Zeroizing<Vec<u8>>) -> Self {
        Self { current, previous, fingerprints }
    }

    /// The vault that makes everything new.
    #[must_use]
    pub const fn current(&self) -> &Vault {
        &self.current
    }

    /// The vault of the key that is being left, while it is.
    #[must_use]
    pub const fn previous(&self) -> Option<&Vault> {
        self.previous.as_ref()
    }

    /// The vault that made this text; the current one for a text that names no key of ours.
    #[must_use]
    pub fn of(&self, text: &str) -> &Vault {
        let made_by = key_id_of(text);
        self.previous.as_ref().filter(|previous| made_by == Some(previous.key_id())).unwrap_or(&self.current)
    }

    /// A keyed fingerprint of bytes, 64 hex digits: equal for equal bytes, and nothing to guess
    /// them by. Outlives a change of the master key.
    #[must_use]
    pub fn fingerprint(&self, bytes: &[u8]) -> String {
        #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.fingerprints).expect("HMAC takes keys of every length");
        mac.update(bytes);
        hex::encode(mac.finalize().into_bytes())
    }

    /// True when `tag` is the tag of this wallet.
    #[must_use]
    pub fn verify_tag(&self, wallet: &Wallet<'_>, tag: &str) -> bool {
        self.of(tag).verify_tag(wallet, tag)
    }

    /// Makes a wallet with a random key.
    #[must_use]
    pub fn generate_wallet(&self, id: &str, network: &str) -> NewWallet {
        self.current.generate_wallet(id, network, &mut OsEntropy)
    }

    /// Makes a wallet from a private key.
    ///
    /// # Errors
    /// [`InvalidKey`] when the text is none.
    pub fn import_wallet(&self, private_key: &str, id: &str, network: &str) -> Result<NewWallet, InvalidKey> {
        self.current.import_wallet(private_key, id, network, &mut OsEntropy)
    }

    /// Opens a secret that is not a wallet's key.
    ///
    /// # Errors
    /// [`OpenError`] for any other text or binding than it was sealed with.
    pub fn open(&self, sealed: &Sealed, binding: &Binding) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.of(sealed.as_str()).open(sealed, binding)
    }

    /// The branch of a seed that a network's wallets are on, and the vault it is of.
    ///
    /// # Errors
    /// [`OpenError`] when the seed does not open.
    pub fn open_branch(&self, seed_id: &str, sealed: &SealedSeed, coin: Coin, account: u32) -> Result<Branch, OpenError> {
        self.of(sealed.as_str()).open_branch(seed_id, sealed, coin, account)
    }

    /// Checks that a stored wallet is whole.
    ///
    /// # Errors
    /// [`VerifyError`] says what is wrong.
    pub fn verify_wallet(&self, wallet: &Wallet<'_>, source: &KeySource<'_>, tag: &str) -> Result<(), VerifyError> {
        if !self.verify_tag(wallet, tag) {
            return Err(VerifyError::Tag);
        }
        let vault = self.of(sealed_by(source));
        // Halfway through a rotation a tag may be a step ahead of its key.
        vault.verify_wallet(wallet, source, &vault.tag(wallet))
    }

    /// A wallet's private key as hex, for `tidegate wallet export` alone.
    ///
    /// # Errors
    /// [`VerifyError`] for a wallet that is not whole.
    pub fn export_wallet(&self, wallet: &Wallet<'_>, source: &KeySource<'_>, tag: &str) -> Result<Zeroizing<String>, VerifyError> {
        if !self.verify_tag(wallet, tag) {
            return Err(VerifyError::Tag);
        }
        let vault = self.of(sealed_by(source));
        vault.export_wallet(wallet, source, &vault.tag(wallet))
    }
}

/// The sealed text that a key comes from.
fn sealed_by<'a>(source: &KeySource<'a>) -> &'a str {
    match source {
        KeySource::Sealed(key) => key.as_str(),
        KeySource::Seed { sealed, .. } => sealed.as_str(),
    }
}
