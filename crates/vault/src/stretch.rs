//! Argon2id: what people choose becomes a key or a hash, slowly on purpose.

use argon2::{Algorithm, Argon2, Block, Params, Version};

/// Blocks of memory are asked for in at least this many KiB, of which only those that are used exist.
/// glibc maps what is larger than 32 MiB by itself and gives it back when it is freed. Freeing less
/// than that would, for the rest of the process, make it keep up to twice as much of everything that
/// is freed, and before 2.38 it would not even find such blocks again.
const MAPPED_KIB: usize = 33 * 1_024;

/// What a stretched text costs whoever guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// KiB of memory, 8 for each lane or more.
    pub memory_kib: u32,
    /// How often all of it is gone over, at least once.
    pub passes: u32,
    /// Parts of the memory that could be filled at the same time, at least one. They are filled one
    /// after the other here.
    pub lanes: u32,
}

impl Cost {
    /// The OWASP baseline for Argon2id: 19 MiB, two passes, one lane. Some tens of milliseconds.
    ///
    /// Source: OWASP Password Storage Cheat Sheet, "Argon2id".
    pub const BASELINE: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
}

/// Nothing was derived: the cost or a length is outside of what Argon2 knows, or memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Argon2id failed: not enough memory, or parameters out of its range")]
pub struct StretchError;

/// Fills `out` with what Argon2id version 0x13 derives from a secret and a salt.
///
/// # Errors
/// [`StretchError`] for a cost, salt (under 8 bytes) or `out` (under 4 bytes) that Argon2 refuses, and
/// when memory is short.
pub fn stretch(secret: &[u8], salt: &[u8], cost: Cost, out: &mut [u8]) -> Result<(), StretchError> {
    let Cost { memory_kib, passes, lanes } = cost;
    let params = Params::new(memory_kib, passes, lanes, Some(out.len())).map_err(|_| StretchError)?;
    // A block is one KiB.
    let count = params.block_count();
    let mut blocks = Vec::new();
    blocks.try_reserve_exact(count.max(MAPPED_KIB)).map_err(|_| StretchError)?;
    blocks.resize(count, Block::default());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(secret, salt, out, blocks.as_mut_slice())
        .map_err(|_| StretchError)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the reference implementation (P-H-C/phc-winner-argon2, src/test.c, Argon2id 0x13).
    #[test]
    fn it_derives_what_the_reference_derives() {
        let vectors = [
            (Cost { memory_kib: 65_536, passes: 2, lanes: 1 }, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"),
            (Cost { memory_kib: 256, passes: 2, lanes: 1 }, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"),
            (Cost { memory_kib: 256, passes: 2, lanes: 2 }, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"),
        ];
        for (cost, expected) in vectors {
            let mut found = [0; 32];
            stretch(b"password", b"somesalt", cost, &mut found).unwrap();
            assert_eq!(hex::encode(found), expected, "{cost:?}");
        }
    }

    #[test]
    fn what_argon2_does_not_take_is_refused() {
        let mut out = [0; 32];
        let none = Cost { memory_kib: 0, ..Cost::BASELINE };
        assert_eq!(stretch(b"password", b"somesalt", none, &mut out), Err(StretchError));
        assert_eq!(stretch(b"password", b"salt", Cost::BASELINE, &mut out), Err(StretchError));
        assert_eq!(stretch(b"password", b"somesalt", Cost::BASELINE, &mut []), Err(StretchError));
    }
}
