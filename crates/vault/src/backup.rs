//! Backups: a stream of chunks that comes back whole and in order, or not at all.
//!
//! ```text
//! preamble   = v1.<key id>. and 32 random bytes                    fresh for every backup
//! key        = HMAC-SHA256(subkey, the random bytes)
//! chunk      = AES-256-GCM(key, nonce, plain, header in the first chunk, nothing in the others)
//! nonce      = 000000, number of the chunk (eight bytes, big-endian), 01 in the last and 00 before
//! ```
//!
//! This is the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár. A chunk that is missing,
//! twice, elsewhere or after the last one has another nonce and does not open. To open a backup the
//! master key and the salt are needed, so the caller writes the salt in the clear into the header.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Payload};

use crate::entropy::Entropy;
use crate::seal::{OpenError, cipher};
use crate::subkey::{VERSION, Vault};

/// How long a preamble is.
pub const BACKUP_PREAMBLE_BYTES: usize = VERSION.len() + 10 + RANDOM_BYTES;
/// How much of a backup to seal at a time.
pub const BACKUP_CHUNK_BYTES: usize = 1 << 20;
/// How much longer a sealed chunk is than a plain one.
pub const BACKUP_OVERHEAD_BYTES: usize = 16;

const RANDOM_BYTES: usize = 32;

/// Seals a backup, chunk by chunk.
///
/// It has no `Clone`, with which two chunks could be sealed under one nonce.
///
/// ```compile_fail,E0599
/// # use tidegate_vault::BackupSealer;
/// fn copy(sealer: BackupSealer) -> (BackupSealer, BackupSealer) { (sealer.clone(), sealer) }
/// ```
pub struct BackupSealer(Stream);

impl BackupSealer {
    /// Begins a backup, and gives the preamble to write in front of its chunks. `header` is what
    /// the caller writes in the clear: it must be the same when the backup is opened.
    pub fn new(vault: &Vault, header: &[u8], entropy: &mut dyn Entropy) -> (Self, Vec<u8>) {
        let mut random = [0; RANDOM_BYTES];
        entropy.fill(&mut random);
        let preamble = [format!("{VERSION}.{}.", vault.key_id()).as_bytes(), &random].concat();
        (Self(Stream::new(vault, &random, header)), preamble)
    }

    /// Seals the next chunk, [`BACKUP_CHUNK_BYTES`] of it at most. The last one is called so, even
    /// if it is empty; whatever is sealed after it will not open.
    pub fn seal_chunk(&mut self, plain: &[u8], last: bool) -> Vec<u8> {
        let nonce = self.0.nonce(last);
        let message = Payload { msg: plain, aad: &self.0.header };
        #[allow(clippy::expect_used, reason = "no chunk comes near the limit of AES-GCM")]
        let boxed = self.0.cipher.encrypt(&nonce.into(), message).expect("AES-GCM seals everything below 64 GiB");
        self.0.advance(last);
        boxed
    }
}

/// Opens a backup, chunk by chunk.
///
/// ```compile_fail,E0599
/// # use tidegate_vault::BackupOpener;
/// fn copy(opener: BackupOpener) -> (BackupOpener, BackupOpener) { (opener.clone(), opener) }
/// ```
pub struct BackupOpener(Stream);

impl BackupOpener {
    /// Begins to open a backup with its preamble and its header.
    ///
    /// # Errors
    /// [`OpenError`] when the preamble is none, or of another master key or salt. Whether it and the
    /// header were altered is seen with the first chunk.
    pub fn new(vault: &Vault, preamble: &[u8], header: &[u8]) -> Result<Self, OpenError> {
        let (named, random) = preamble.split_last_chunk::<RANDOM_BYTES>().ok_or(OpenError::Malformed)?;
        let named = str::from_utf8(named).ok().and_then(|named| named.strip_suffix('.'));
        let key_id = named.and_then(|named| named.strip_prefix(VERSION)?.strip_prefix('.')).ok_or(OpenError::Malformed)?;
        if key_id.len() != 8 || !key_id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(OpenError::Malformed);
        }
        if key_id != vault.key_id() {
            return Err(OpenError::OtherKey { sealed_by: key_id.to_owned(), unlocked_with: vault.key_id().to_owned() });
        }
        Ok(Self(Stream::new(vault, random, header)))
    }

    /// Opens the next chunk, `last` if nothing follows it. After an error only the same chunk can be
    /// tried again.
    ///
    /// # Errors
    /// [`OpenError::Refused`] for anything but the next chunk of this backup, or when it is the last
    /// one and more follows, or the reverse.
    pub fn open_chunk(&mut self, boxed: &[u8], last: bool) -> Result<Vec<u8>, OpenError> {
        if self.0.ended {
            return Err(OpenError::Refused);
        }
        let nonce = self.0.nonce(last);
        let message = Payload { msg: boxed, aad: &self.0.header };
        let plain = self.0.cipher.decrypt(&nonce.into(), message).map_err(|_| OpenError::Refused)?;
        self.0.advance(last);
        Ok(plain)
    }

    /// True once the last chunk was opened. Until then nothing that came out is a backup: what was
    /// cut off at the end of a chunk opens up to there.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.0.ended
    }
}

/// What both directions do alike.
struct Stream {
    cipher: Aes256Gcm,
    /// Empty after the first chunk.
    header: Vec<u8>,
    number: u64,
    ended: bool,
}

impl Stream {
    fn new(vault: &Vault, random: &[u8; RANDOM_BYTES], header: &[u8]) -> Self {
        Self { cipher: cipher(&vault.backups, random), header: header.to_vec(), number: 0, ended: false }
    }

    fn nonce(&self, last: bool) -> [u8; 12] {
        let [a, b, c, d, e, f, g, h] = self.number.to_be_bytes();
        [0, 0, 0, a, b, c, d, e, f, g, h, u8::from(last)]
    }

    fn advance(&mut self, last: bool) {
        // No disk holds 2⁶⁴ chunks.
        self.number = self.number.saturating_add(1);
        self.header = Vec::new();
        self.ended |= last;
    }
}

impl fmt::Debug for BackupSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupSealer(..)")
    }
}

impl fmt::Debug for BackupOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupOpener(..)")
    }
}
