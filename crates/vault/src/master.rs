//! What the operator holds: the [`MasterKey`] and the [`Salt`].
//!
//! Both come from outside as text. No error here repeats any of it.

use std::cmp::Ordering;
use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::Entropy;
use crate::subkey::mac;

/// The one secret that is not in the database: 32 bytes that lead to all others.
///
/// It has no `Clone`, nothing prints it, and it is wiped when dropped.
///
/// ```compile_fail,E0599
/// # let key = tidegate_vault::MasterKey::generate(&mut tidegate_vault::OsEntropy);
/// let copy = key.clone();
/// ```
/// ```compile_fail,E0277
/// # let key = tidegate_vault::MasterKey::generate(&mut tidegate_vault::OsEntropy);
/// let text = serde_json::to_string(&key);
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MasterKey(Box<[u8; 32]>);

/// Why a text is not a master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// There is no text.
    #[error("the master key is empty; `tidegate key new` makes a good one")]
    Empty,
    /// The text is neither form.
    #[error(
        "expected a master key of 64 hex digits, or base64 of 32 bytes; \
         `tidegate key new` makes a good one"
    )]
    Malformed,
    /// The bytes are too regular to be random.
    #[error(
        "this master key was not drawn at random (it repeats, counts or is typed text); \
         `tidegate key new` makes a good one"
    )]
    Weak,
    /// The two parts of a key are the same.
    #[error("the two parts of the master key are the same; `tidegate key new` makes two that differ")]
    SameParts,
}

/// Standard base64 that does not mind whether the padding is there.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Of 32 random bytes about 30 are distinct; fewer than this many never happens.
const DISTINCT_BYTES_MIN: usize = 16;

/// Part of the format: it never changes.
const PARTS_LABEL: &[u8; 17] = b"tidegate/v1/parts";

impl MasterKey {
    /// Reads 64 hex digits, or standard base64 (padded or not) of 32 bytes, with white space
    /// around it.
    ///
    /// # Errors
    /// [`MasterKeyError::Weak`] for bytes that nobody drew at random; the others for other texts.
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(MasterKeyError::Empty);
        }
        let mut key = Self(Box::new([0; 32]));
        if text.len() == 64 {
            hex::decode_to_slice(text, key.0.as_mut_slice()).map_err(|_| MasterKeyError::Malformed)?;
        } else {
            let mut decoded = Zeroizing::new([0; 64]);
            let length = BASE64.decode_slice(text, decoded.as_mut_slice()).map_err(|_| MasterKeyError::Malformed)?;
            let bytes = decoded.get(..length).filter(|bytes| bytes.len() == 32);
            key.0.copy_from_slice(bytes.ok_or(MasterKeyError::Malformed)?);
        }
        if is_weak(&key.0) { Err(MasterKeyError::Weak) } else { Ok(key) }
    }

    /// A new key, for `tidegate key new`.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut key = Self(Box::new([0; 32]));
        entropy.fill(key.0.as_mut_slice());
        key
    }

    /// The key of two parts that two people hold, or two places: each is a text as in
    /// [`MasterKey::parse`], and one without the other is worth nothing.
    ///
    /// ```text
    /// key = HMAC-SHA256(lower part, "tidegate/v1/parts" + higher part)
    /// ```
    ///
    /// The parts are put in the order of their bytes, so it does not matter which is given first.
    ///
    /// # Errors
    /// As in [`MasterKey::parse`] for the first part that is wrong, and
    /// [`MasterKeyError::SameParts`]. To tell which part is wrong, parse each.
    pub fn combine(a: &str, b: &str) -> Result<Self, MasterKeyError> {
        let (a, b) = (Self::parse(a)?, Self::parse(b)?);
        let (lower, higher) = match a.0.cmp(&b.0) {
            Ordering::Less => (a, b),
            Ordering::Greater => (b, a),
            Ordering::Equal => return Err(MasterKeyError::SameParts),
        };
        let message = Zeroizing::new([PARTS_LABEL.as_slice(), higher.0.as_slice()].concat());
        Ok(Self(Box::new(mac(&lower.0, &message))))
    }

    /// Two parts of a new key, each as 64 hex digits, for `tidegate key new` to print once.
    pub fn generate_parts(entropy: &mut dyn Entropy) -> (Zeroizing<String>, Zeroizing<String>) {
        (Self::generate(entropy).to_hex(), Self::generate(entropy).to_hex())
    }

    /// The key as 64 hex digits, for `tidegate key new` to print once.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// True for bytes that were typed, counted or repeated instead of drawn.
fn is_weak(key: &[u8; 32]) -> bool {
    let mut seen = [false; 256];
    for byte in key {
        if let Some(seen) = seen.get_mut(usize::from(*byte)) {
            *seen = true;
        }
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    let mut steps = key.iter().zip(key.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    let first_step = steps.next();
    let (left, right) = key.split_at(16);

    distinct < DISTINCT_BYTES_MIN
        || steps.all(|step| Some(step) == first_step)
        || left == right
        || key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}

/// Makes two installations with the same master key different. Not secret, but it must not change:
/// with another salt nothing opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salt(Vec<u8>);

/// The text is no salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a salt of 16 to 64 bytes, as plain text or as hex")]
pub struct SaltError;

const SALT_BYTES_MIN: usize = 16;
const SALT_BYTES_MAX: usize = 64;

impl Salt {
    /// Reads 16 to 64 bytes: hex if all of the text is that, plain text otherwise. White space
    /// around it does not count.
    ///
    /// # Errors
    /// [`SaltError`] when it is shorter or longer.
    pub fn parse(text: &str) -> Result<Self, SaltError> {
        let text = text.trim();
        let allowed = |bytes: &Vec<u8>| (SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&bytes.len());
        let decoded = if text.starts_with("0x") { None } else { hex::decode(text).ok() };
        decoded.filter(allowed).or_else(|| Some(text.as_bytes().to_vec()).filter(allowed)).map(Self).ok_or(SaltError)
    }

    /// A new salt of 16 bytes.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = vec![0; SALT_BYTES_MIN];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// The form to store, which [`Salt::parse`] reads back.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(&self.0)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
