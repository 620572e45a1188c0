//! One seed becomes many wallets: BIP-32 along the paths of BIP-44.
//!
//! ```text
//! wallet   = m / 44' / coin' / account' / 0 / index        coin 195 on TRON, 60 on EVM chains
//! ```
//!
//! Of such a wallet the database holds the path and a tag, and no key: that is derived from the
//! sealed seed each time it is used. Addresses need no key at all. They are derived from the public
//! half of the branch, which is why a [`Branch`] can stay open.

use std::fmt;
use std::ops::Add;

use hmac::Mac;
use k256::elliptic_curve::PrimeField;
use k256::{ProjectivePoint, PublicKey, Scalar, SecretKey};
use ripemd::Ripemd160;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::Entropy;
use crate::seal::{OpenError, stored_text};
use crate::subkey::{Vault, framed};
use crate::wallet::{NewWallet, PrivateKey, VerifyError, Wallet, address_of};
use crate::words::{InvalidWords, Words, finish, keyed, seed_of};
use crate::xpub::AccountXpub;

stored_text! {
    /// The sealed seed of many wallets, bound to its id. Nothing opens it but the vault itself.
    SealedSeed
}

/// Whose addresses a branch is for: the second step of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coin {
    /// TRON: `195'`.
    Tron,
    /// Every EVM chain: `60'`.
    Evm,
}

impl Coin {
    /// Its number in SLIP-44.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Tron => 195,
            Self::Evm => 60,
        }
    }
}

/// Why there is no key or address at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The number of the account or wallet is 2³¹ or more.
    #[error("{0} is no number of an account or wallet: they end at 2147483647")]
    OutOfRange(u32),
    /// Of 2¹²⁷ places one has no key. BIP-32 goes on with the next index.
    #[error("there is no key at this place of its path: go on with the next index")]
    NoKey,
}

/// What tells a hardened step from a plain one, which public keys can take too.
const HARDENED: u32 = 1 << 31;

impl Vault {
    /// Draws a seed, and gives the 24 words it can be restored from: to be shown once.
    pub fn generate_seed(&self, seed_id: &str, entropy: &mut dyn Entropy) -> (Words, SealedSeed) {
        loop {
            let words = Words::draw(entropy);
            // Words that were drawn here always are words.
            if let Ok(sealed) = self.import_seed(words.as_str(), "", seed_id, entropy) {
                return (words, sealed);
            }
        }
    }

    /// Seals the seed of 12, 15, 18, 21 or 24 English words. Another passphrase is another seed; an
    /// empty one is none.
    ///
    /// # Errors
    /// [`InvalidWords`] says where they are wrong.
    pub fn import_seed(&self, words: &str, passphrase: &str, seed_id: &str, entropy: &mut dyn Entropy) -> Result<SealedSeed, InvalidWords> {
        Ok(self.keep_seed(&*seed_of(words, passphrase)?, seed_id, entropy))
    }

    /// True when these are the words of a sealed seed: to ask whether they were written down right.
    ///
    /// # Errors
    /// [`OpenError`] when the seed does not open.
    pub fn words_match(&self, sealed: &SealedSeed, seed_id: &str, words: &str, passphrase: &str) -> Result<bool, OpenError> {
        let seed = self.open_seed(sealed, seed_id)?;
        Ok(seed_of(words, passphrase).is_ok_and(|found| found.ct_eq(&*seed).into()))
    }

    /// Seals a seed anew, for a rotation: `old` is unlocked with the master key that sealed it,
    /// `self` with its successor. What is under the successor already comes back as it is, once it
    /// has been seen to open.
    ///
    /// # Errors
    /// [`OpenError`] when it does not open.
    pub fn adopt_seed(&self, old: &Self, seed_id: &str, sealed: &SealedSeed, entropy: &mut dyn Entropy) -> Result<SealedSeed, OpenError> {
        if sealed.key_id() == Some(self.key_id()) {
            return self.open_seed(sealed, seed_id).map(|_| sealed.clone());
        }
        Ok(self.keep_seed(&*old.open_seed(sealed, seed_id)?, seed_id, entropy))
    }

    /// Opens the branch `m/44'/coin'/account'/0` of a seed.
    ///
    /// # Errors
    /// [`OpenError`] when the seed does not open, or has no such branch.
    pub fn open_branch(&self, seed_id: &str, sealed: &SealedSeed, coin: Coin, account: u32) -> Result<Branch, OpenError> {
        let (_, account) = self.open_account(seed_id, sealed, coin, account)?;
        Ok(Branch(PublicBranch(account.public()?.child(0)?)))
    }

    /// The extended public key (`xpub…`) of an account of a seed, `m/44'/coin'/account'`. Whoever
    /// has it sees every address of the account, and can spend from none.
    ///
    /// # Errors
    /// [`OpenError`] when the seed does not open, or has no such account.
    pub fn account_xpub(&self, seed_id: &str, sealed: &SealedSeed, coin: Coin, account: u32) -> Result<String, OpenError> {
        let (parent, node) = self.open_account(seed_id, sealed, coin, account)?;
        let node = node.public()?;
        Ok(AccountXpub { parent: parent.public()?.fingerprint(), number: account | HARDENED, node }.to_text())
    }

    /// The plain key at the end of a path. Stays inside the crate.
    pub(crate) fn derived_key(
        &self,
        seed_id: &str,
        sealed: &SealedSeed,
        coin: Coin,
        account: u32,
        index: u32,
    ) -> Result<PrivateKey, OpenError> {
        let (_, account) = self.open_account(seed_id, sealed, coin, account)?;
        let node = account.child(0)?.child(plain(index)?)?;
        PrivateKey::from_secret(&*node.key).map_err(|_| DeriveError::NoKey.into())
    }

    /// The nodes `m/44'/coin'` and `m/44'/coin'/account'`.
    fn open_account(&self, seed_id: &str, sealed: &SealedSeed, coin: Coin, account: u32) -> Result<(PrivateNode, PrivateNode), OpenError> {
        let seed = self.open_seed(sealed, seed_id)?;
        let coin = PrivateNode::root(&*seed)?.child(44 | HARDENED)?.child(coin.number() | HARDENED)?;
        let account = coin.child(plain(account)? | HARDENED)?;
        Ok((coin, account))
    }

    fn open_seed(&self, sealed: &SealedSeed, seed_id: &str) -> Result<Zeroizing<[u8; 64]>, OpenError> {
        self.open_exactly(&self.seeds, sealed.as_str(), &seed_binding(seed_id))
    }

    fn keep_seed(&self, seed: &[u8], seed_id: &str, entropy: &mut dyn Entropy) -> SealedSeed {
        SealedSeed(self.seal_with(&self.seeds, seed, &seed_binding(seed_id), entropy))
    }
}

fn seed_binding(seed_id: &str) -> Vec<u8> {
    framed(&[seed_id.as_bytes()])
}

/// The number of an account or wallet, which the flag of hardened steps does not fit into.
fn plain(number: u32) -> Result<u32, DeriveError> {
    if number < HARDENED { Ok(number) } else { Err(DeriveError::OutOfRange(number)) }
}

/// An open branch of a seed, `m/44'/coin'/account'/0`: makes and checks many wallets.
///
/// It holds no private key, for an address needs none. All the same it has no `Clone`, `Debug` prints
/// nothing of it, and its chain code is wiped: with one private key of the branch it gives them all.
///
/// ```compile_fail,E0599
/// # use tidegate_vault::Branch;
/// fn copy(branch: Branch) -> (Branch, Branch) { (branch.clone(), branch) }
/// ```
/// ```compile_fail,E0277
/// # use tidegate_vault::Branch;
/// fn text(branch: &Branch) { serde_json::to_string(branch); }
/// ```
pub struct Branch(PublicBranch);

impl Branch {
    /// The address of the wallet `index`.
    ///
    /// # Errors
    /// [`DeriveError`] when there is none.
    pub fn address(&self, index: u32) -> Result<[u8; 20], DeriveError> {
        self.0.address(index)
    }

    /// Makes the wallet `wallet_id` on `network` from the key at `index`.
    ///
    /// # Errors
    /// [`DeriveError`] when there is none.
    pub fn derive(&self, vault: &Vault, index: u32, wallet_id: &str, network: &str) -> Result<NewWallet, DeriveError> {
        Ok(vault.watch_wallet(wallet_id, network, self.address(index)?))
    }

    /// Checks that a stored wallet is the one at `index`. For many wallets: [`Vault::verify_wallet`]
    /// opens the seed for each.
    ///
    /// # Errors
    /// [`VerifyError`] says what is wrong.
    pub fn verify(&self, vault: &Vault, wallet: &Wallet<'_>, index: u32, tag: &str) -> Result<(), VerifyError> {
        if !vault.verify_tag(wallet, tag) {
            return Err(VerifyError::Tag);
        }
        let found = self.address(index).map_err(OpenError::Derive)?;
        if found != *wallet.address {
            return Err(VerifyError::OtherAddress { stored: *wallet.address, found });
        }
        Ok(())
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Branch(..)")
    }
}

/// The addresses of an account whose keys are elsewhere. `Debug` prints its fingerprint.
#[derive(Clone)]
pub struct PublicBranch(pub(crate) PublicNode);

impl PublicBranch {
    /// The address of the wallet `index`.
    ///
    /// # Errors
    /// [`DeriveError`] when there is none.
    pub fn address(&self, index: u32) -> Result<[u8; 20], DeriveError> {
        Ok(address_of(&self.0.child(plain(index)?)?.key.into()))
    }
}

impl fmt::Debug for PublicBranch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicBranch({})", hex::encode(self.0.fingerprint()))
    }
}

/// An extended private key. On the heap, so that moving it leaves no copy behind.
#[derive(Zeroize, ZeroizeOnDrop)]
struct PrivateNode {
    key: Box<[u8; 32]>,
    chain_code: Box<[u8; 32]>,
}

impl PrivateNode {
    /// `m`.
    fn root(seed: &[u8]) -> Result<Self, DeriveError> {
        let both = finish(keyed(b"Bitcoin seed").chain_update(seed));
        let (key, chain_code) = halves(&both);
        let node = Self { key: Box::new(*key), chain_code: Box::new(*chain_code) };
        node.secret()?;
        Ok(node)
    }

    /// The child of this number, hardened if it has the flag.
    fn child(&self, number: u32) -> Result<Self, DeriveError> {
        let mac = keyed(&*self.chain_code);
        let mac = if number < HARDENED {
            mac.chain_update(self.secret()?.public_key().to_sec1_bytes())
        } else {
            mac.chain_update([0]).chain_update(*self.key)
        };
        let both = finish(mac.chain_update(number.to_be_bytes()));
        let (tweak, chain_code) = halves(&both);
        let sum = Zeroizing::new(scalar(tweak)?.add(&*scalar(&self.key)?));
        let mut bytes = sum.to_bytes();
        let node = Self { key: Box::new(bytes.into()), chain_code: Box::new(*chain_code) };
        bytes.zeroize();
        // The sum may be zero, which is no key.
        node.secret()?;
        Ok(node)
    }

    fn public(&self) -> Result<PublicNode, DeriveError> {
        Ok(PublicNode { key: self.secret()?.public_key(), chain_code: Zeroizing::new(*self.chain_code) })
    }

    fn secret(&self) -> Result<SecretKey, DeriveError> {
        SecretKey::from_slice(&*self.key).map_err(|_| DeriveError::NoKey)
    }
}

/// An extended public key.
#[derive(Clone)]
pub(crate) struct PublicNode {
    pub(crate) key: PublicKey,
    pub(crate) chain_code: Zeroizing<[u8; 32]>,
}

impl PublicNode {
    /// The child of this number, which is not hardened.
    pub(crate) fn child(&self, number: u32) -> Result<Self, DeriveError> {
        let mac = keyed(&*self.chain_code).chain_update(self.key.to_sec1_bytes());
        let both = finish(mac.chain_update(number.to_be_bytes()));
        let (tweak, chain_code) = halves(&both);
        let point = Add::add(ProjectivePoint::mul_by_generator(&*scalar(tweak)?), self.key.to_projective());
        let key = PublicKey::from_affine(point.to_affine()).map_err(|_| DeriveError::NoKey)?;
        Ok(Self { key, chain_code: Zeroizing::new(*chain_code) })
    }

    /// The name that BIP-32 gives a key.
    pub(crate) fn fingerprint(&self) -> [u8; 4] {
        let hash: [u8; 20] = Ripemd160::digest(Sha256::digest(self.key.to_sec1_bytes())).into();
        hash.first_chunk().copied().unwrap_or_default()
    }
}

/// A number below the order of secp256k1.
fn scalar(bytes: &[u8; 32]) -> Result<Zeroizing<Scalar>, DeriveError> {
    Option::from(Scalar::from_repr((*bytes).into())).map(Zeroizing::new).ok_or(DeriveError::NoKey)
}

/// Key and chain code.
fn halves(both: &[u8; 64]) -> (&[u8; 32], &[u8; 32]) {
    const NONE: &[u8; 32] = &[0; 32];
    (both.first_chunk().unwrap_or(NONE), both.last_chunk().unwrap_or(NONE))
}
