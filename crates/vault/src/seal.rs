//! Sealing: a secret goes in with what it belongs to, and comes out only for the same.
//!
//! ```text
//! data key   = HMAC-SHA256(subkey, 32 random bytes)      fresh for every seal
//! sealed     = AES-256-GCM(data key, nonce 0, secret, binding)
//! text       = v1.<key id>.<base64 of the random bytes, the ciphertext, the tag>
//! ```
//!
//! A data key seals once, so the nonce can be constant and can never repeat under one key, however
//! many secrets there are.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::hd::DeriveError;
use crate::subkey::{Subkey, VERSION, Vault, framed};

/// Unique, because its key is.
const NONCE: [u8; 12] = [0; 12];

/// The random bytes in front of a ciphertext, and what authenticates it behind.
const SALT_BYTES: usize = 32;
const GCM_TAG_BYTES: usize = 16;

/// A text that the vault made and that may be stored anywhere. `Debug` does not print it.
macro_rules! stored_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// What was stored, as it was stored. It is judged when it is used.
            pub fn from_text(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text to store.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The [`Vault::key_id`](crate::Vault::key_id) it claims, or `None` if it is malformed.
            #[must_use]
            pub fn key_id(&self) -> Option<&str> {
                crate::seal::key_id_of(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}
pub(crate) use stored_text;

stored_text! {
    /// A sealed secret that the rest of the program may open: a webhook secret, a seed, a
    /// password. Never a wallet's key, which is a [`SealedKey`](crate::SealedKey).
    Sealed
}

/// What a secret belongs to. A secret opens only with the binding that it was sealed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding(Vec<u8>);

impl Binding {
    /// The binding of a `kind` of secret to the thing that `parts` name, in their order.
    #[must_use]
    pub fn new(kind: &str, parts: &[&str]) -> Self {
        let mut all = vec![kind.as_bytes()];
        all.extend(parts.iter().map(|part| part.as_bytes()));
        Self(framed(&all))
    }

    /// The binding of a webhook secret to the merchant or the endpoint that it is of.
    #[must_use]
    pub fn webhook_secret(owner_id: &str) -> Self {
        Self::new("webhook-secret", &[owner_id])
    }
}

/// Why a sealed text does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not a sealed text of a version that this program knows, or a piece of it is missing.
    #[error("not a whole sealed text of a known version: truncated, or something else")]
    Malformed,
    /// It was sealed under another master key or salt.
    #[error("sealed under master key {sealed_by}, but the vault is unlocked with {unlocked_with}")]
    OtherKey {
        /// The id of the key that it was sealed under.
        sealed_by: String,
        /// The id of the key in use.
        unlocked_with: String,
    },
    /// It was altered, or it belongs to something else.
    #[error("altered, or sealed for something else")]
    Refused,
    /// It is a seed, and opens, but has no key where one was looked for.
    #[error("the seed opens, but {0}")]
    Derive(#[from] DeriveError),
}

impl Vault {
    /// Seals a secret that is not a wallet's key.
    pub fn seal(&self, secret: &[u8], binding: &Binding, entropy: &mut dyn Entropy) -> Sealed {
        Sealed(self.seal_with(&self.secrets, secret, &binding.0, entropy))
    }

    /// Opens a secret that is not a wallet's key. What comes out is wiped when dropped.
    ///
    /// ```compile_fail,E0308
    /// # use tidegate_vault::{Binding, SealedKey, Vault};
    /// fn leak(vault: &Vault, key: &SealedKey, binding: &Binding) { vault.open(key, binding); }
    /// ```
    ///
    /// # Errors
    /// [`OpenError`], for any other text, binding, master key or salt than it was sealed with.
    pub fn open(&self, sealed: &Sealed, binding: &Binding) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.open_with(&self.secrets, &sealed.0, &binding.0)
    }

    /// Seals a secret anew, for a rotation: `old` is unlocked with the master key that sealed it,
    /// `self` with its successor. What is under the successor already comes back as it is, once it
    /// has been seen to open.
    ///
    /// # Errors
    /// [`OpenError`] as in [`Vault::open`], with the vault of the key that the text names.
    pub fn adopt_secret(&self, old: &Self, sealed: &Sealed, binding: &Binding, entropy: &mut dyn Entropy) -> Result<Sealed, OpenError> {
        if sealed.key_id() == Some(self.key_id()) {
            return self.open(sealed, binding).map(|_| sealed.clone());
        }
        Ok(self.seal(&old.open(sealed, binding)?, binding, entropy))
    }

    /// Seals under a data key below `subkey`.
    pub(crate) fn seal_with(&self, subkey: &Subkey, secret: &[u8], binding: &[u8], entropy: &mut dyn Entropy) -> String {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let message = Payload { msg: secret, aad: binding };
        #[allow(clippy::expect_used, reason = "no secret here comes near the limit of AES-GCM")]
        let boxed = cipher(subkey, &salt).encrypt(&NONCE.into(), message).expect("AES-GCM seals everything below 64 GiB");
        let body = BASE64.encode([salt.as_slice(), &boxed].concat());
        format!("{VERSION}.{}.{body}", self.key_id)
    }

    /// Opens what [`Vault::seal_with`] sealed under the same `subkey`.
    pub(crate) fn open_with(&self, subkey: &Subkey, sealed: &str, binding: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (key_id, body) = split(sealed).ok_or(OpenError::Malformed)?;
        if key_id != self.key_id {
            return Err(OpenError::OtherKey { sealed_by: key_id.to_owned(), unlocked_with: self.key_id.clone() });
        }
        let body = BASE64.decode(body).map_err(|_| OpenError::Malformed)?;
        let (salt, boxed) = body.split_first_chunk().filter(|(_, boxed)| boxed.len() >= GCM_TAG_BYTES).ok_or(OpenError::Malformed)?;
        cipher(subkey, salt)
            .decrypt(&NONCE.into(), Payload { msg: boxed, aad: binding })
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Refused)
    }

    /// The same for a secret of `N` bytes, so that a text which was cut is told from one which was
    /// altered.
    pub(crate) fn open_exactly<const N: usize>(
        &self,
        subkey: &Subkey,
        sealed: &str,
        binding: &[u8],
    ) -> Result<Zeroizing<[u8; N]>, OpenError> {
        let whole = base64::encoded_len(N.saturating_add(SALT_BYTES + GCM_TAG_BYTES), true);
        if split(sealed).map(|(_, body)| body.len()) != whole {
            return Err(OpenError::Malformed);
        }
        let opened = self.open_with(subkey, sealed, binding)?;
        let mut secret = Zeroizing::new([0; N]);
        let fits = opened.len() == N;
        secret.iter_mut().zip(opened.iter()).for_each(|(to, from)| *to = *from);
        fits.then_some(secret).ok_or(OpenError::Malformed)
    }
}

pub(crate) fn cipher(subkey: &Subkey, salt: &[u8; SALT_BYTES]) -> Aes256Gcm {
    Aes256Gcm::new(subkey.derive_from(salt).bytes().into())
}

/// The [`Vault::key_id`] that a text of the vault claims, a tag as well as a sealed text, or `None`
/// if it is none. For a rotation to tell what is still to do; proves nothing.
#[must_use]
pub fn key_id_of(text: &str) -> Option<&str> {
    Some(split(text)?.0)
}

/// The key id and the body of a text of this version.
pub(crate) fn split(text: &str) -> Option<(&str, &str)> {
    let (key_id, body) = text.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')?;
    let is_key_id = key_id.len() == 8 && key_id.bytes().all(|b| b.is_ascii_hexdigit());
    is_key_id.then_some((key_id, body))
}
