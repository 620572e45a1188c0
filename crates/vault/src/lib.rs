//! The room in which secrets are made, sealed, opened and used. No private key leaves it but through
//! one door, [`Vault::export_wallet`], which is for a person at the command line.
//!
//! The gateway holds a [`Vault`], unlocked once with the [`MasterKey`], and texts that are safe in
//! a database: [`SealedKey`]s of wallets, [`SealedSeed`]s that many wallets come from, [`Sealed`]
//! other secrets, [`SealedDestination`]s and address tags. The vault assumes that whoever attacks can read and write that database, and
//! promises what this is then worth:
//!
//! - *Nothing can be read.* Every secret is sealed under a key of its own that only the master key
//!   leads to, and a plain wallet key exists here for one operation and is wiped (I11).
//! - *Nothing can be moved.* Each text is bound to what it belongs to, so that a row copied over
//!   another does not open, and an address that the vault did not make carries no valid tag.
//! - *Nothing can be sent elsewhere.* [`Vault::sign`] takes no digest. It reads the transaction,
//!   refuses what its [`Purpose`] does not allow, and sweeps only to a destination that the vault
//!   itself sealed.
//!
//! It promises nothing against someone who reads this process's memory or gives it a false
//! configuration. Wiping covers everything stored here; short-lived copies that the compiler makes
//! on the stack are beyond its reach.
//!
//! The files, in the order to audit them: `entropy`, `master`, `stretch` (Argon2id), `subkey` (one key becomes many),
//! `seal` (other secrets), `backup` (streams), `wallet` (keys, addresses, tags), `words` and `hd`
//! (seeds, and the wallets that come from them), `xpub` (accounts whose keys are elsewhere), `sign`
//! (what may be signed), and the two forms of a transaction, `evm` and `tron`. This crate has no clock, no file, no network and
//! none of the other crates of this workspace.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)
)]
#![deny(missing_docs)]

mod backup;
mod entropy;
mod evm;
mod hd;
mod master;
mod seal;
mod sign;
mod stretch;
mod subkey;
mod tron;
mod wallet;
mod words;
mod xpub;

pub use backup::{BACKUP_CHUNK_BYTES, BACKUP_OVERHEAD_BYTES, BACKUP_PREAMBLE_BYTES, BackupOpener, BackupSealer};
pub use entropy::{Entropy, OsEntropy};
pub use evm::{EvmTransaction, Fees};
pub use hd::{Branch, Coin, DeriveError, PublicBranch, SealedSeed};
pub use master::{MasterKey, MasterKeyError, Salt, SaltError};
pub use seal::{Binding, OpenError, Sealed, key_id_of};
pub use sign::{Action, ChainId, Purpose, Refusal, SealedDestination, SignedTransaction, UnsignedTransaction};
pub use stretch::{Cost, StretchError, stretch};
pub use subkey::{UnlockError, Vault};
pub use wallet::{InvalidKey, KeySource, NewWallet, SealedKey, VerifyError, Wallet};
pub use words::{InvalidWords, Words};
pub use xpub::{AccountXpub, InvalidXpub};
