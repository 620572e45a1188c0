//! Passwords: Argon2id, slow on purpose, and never many at once. Each takes 19 MiB while it lasts,
//! so a burst of log-ins waits in line, and what is too much is told to come again.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use subtle::ConstantTimeEq as _;
use tidegate_vault::{Cost, stretch};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::clock;
use crate::config::SecretText;
use crate::problem::Problem;

/// The fewest characters of a password that somebody chooses.
pub const CHARS_MIN: usize = 12;

/// The most bytes of a password.
pub const BYTES_MAX: usize = 1_024;

/// What a password costs that is hashed now.
const COST: Cost = Cost::BASELINE;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// How many passwords are hashed at once.
const AT_ONCE_MAX: usize = 4;

/// How long one waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Places for hashing: they bound this process's memory, so they are the process's.
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

/// Whether a password may be chosen.
///
/// # Errors
/// 422 for one that is too short or too long.
pub fn check(pointer: &str, password: &SecretText) -> Result<(), Problem> {
    let text = password.expose();
    if text.chars().count() < CHARS_MIN || text.len() > BYTES_MAX {
        return Err(Problem::invalid(pointer, format!("expected at least {CHARS_MIN} characters and at most {BYTES_MAX} bytes")));
    }
    Ok(())
}

/// A password that nobody guesses: 120 random bits in groups of letters and digits.
#[must_use]
pub fn generate() -> SecretText {
    let letters = tidegate_rules::totp::base32(&clock::random::<15>()).to_lowercase();
    let mut text = Zeroizing::new(String::new());
    for (place, letter) in letters.chars().enumerate() {
        if place > 0 && place.is_multiple_of(5) {
            text.push('-');
        }
        text.push(letter);
    }
    SecretText::new(text.as_str())
}

/// The hash of a password, with its parameters, to be stored.
///
/// # Errors
/// 503 `busy` when too many are hashed already.
pub async fn hash(password: SecretText) -> Result<String, Problem> {
    let salt = clock::random::<SALT_BYTES>();
    let made = in_turn(move || derive(&password, &salt, COST).map(|hash| text(&salt, &hash))).await?;
    made.ok_or_else(Problem::internal)
}

/// Whether a password is the one of a stored hash. Without a hash it is not, and takes as long.
///
/// # Errors
/// 503 `busy` when too many are hashed already.
pub async fn fits(password: SecretText, stored: Option<SecretText>) -> Result<bool, Problem> {
    if password.expose().len() > BYTES_MAX {
        return Ok(false);
    }
    in_turn(move || {
        let known = stored.as_ref().and_then(|stored| read(stored.expose()));
        let (salt, expected, cost) = known.unwrap_or_else(|| (vec![0; SALT_BYTES], vec![0; HASH_BYTES], COST));
        let found = derive(&password, &salt, cost);
        stored.is_some() && found.is_some_and(|found| found.as_slice().ct_eq(&expected).into())
    })
    .await
}

/// Does something slow where it blocks nobody, once there is a place.
async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let busy = || Problem::unavailable("busy", "too many people are logging in at this moment; try again in a few seconds");
    let place = tokio::time::timeout(WAIT_MAX, PLACES.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
    let done = tokio::task::spawn_blocking(work).await;
    drop(place);
    done.map_err(|error| {
        tracing::error!(%error, "a password could not be hashed");
        Problem::internal()
    })
}

fn derive(password: &SecretText, salt: &[u8], cost: Cost) -> Option<Zeroizing<[u8; HASH_BYTES]>> {
    let mut hash = Zeroizing::new([0; HASH_BYTES]);
    stretch(password.expose().as_bytes(), salt, cost, hash.as_mut_slice()).ok().map(|()| hash)
}

/// The form that everybody uses for Argon2.
fn text(salt: &[u8], hash: &[u8; HASH_BYTES]) -> String {
    let Cost { memory_kib, passes, lanes } = COST;
    format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}", BASE64.encode(salt), BASE64.encode(hash))
}

/// Salt, hash and cost of such a text. One that costs more than a few of ours is not believed.
fn read(text: &str) -> Option<(Vec<u8>, Vec<u8>, Cost)> {
    const FACTOR_MAX: u32 = 8;
    let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
    let mut numbers = parts.next()?.split(',');
    let mut number = |name: &str, most: u32| {
        let found: u32 = numbers.next()?.strip_prefix(name)?.parse().ok()?;
        (1..=most).contains(&found).then_some(found)
    };
    let cost = Cost {
        memory_kib: number("m=", COST.memory_kib.saturating_mul(FACTOR_MAX))?,
        passes: number("t=", COST.passes.saturating_mul(FACTOR_MAX))?,
        lanes: number("p=", COST.lanes.saturating_mul(FACTOR_MAX))?,
    };
    let (salt, hash) = (BASE64.decode(parts.next()?).ok()?, BASE64.decode(parts.next()?).ok()?);
    (parts.next().is_none() && hash.len() == HASH_BYTES).then_some((salt, hash, cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_hash_and_no_other() {
        let password = SecretText::new("correct horse battery");
        let stored = hash(password.clone()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(!stored.contains("horse"));
        let stored = SecretText::new(stored);
        assert!(fits(password.clone(), Some(stored.clone())).await.unwrap());
        assert!(!fits(SecretText::new("correct horse batterz"), Some(stored.clone())).await.unwrap());
        assert!(!fits(password.clone(), None).await.unwrap());
        for damaged in ["", "$argon2id$v=19$m=19456,t=2,p=1$AAAA", &stored.expose().replace("m=19456", "m=99999999")] {
            assert!(!fits(password.clone(), Some(SecretText::new(damaged))).await.unwrap(), "{damaged}");
        }
        assert!(!fits(SecretText::new("x".repeat(BYTES_MAX + 1)), Some(stored)).await.unwrap());
    }

    /// What was hashed with other parameters is still read, and what is no such hash is not.
    #[test]
    fn hashes_of_other_parameters_are_read() {
        let salt = BASE64.encode([7_u8; SALT_BYTES]);
        let hash = BASE64.encode([9_u8; HASH_BYTES]);
        let (read_salt, read_hash, cost) = read(&format!("$argon2id$v=19$m=65536,t=3,p=4${salt}${hash}")).unwrap();
        assert_eq!((read_salt, read_hash), (vec![7; SALT_BYTES], vec![9; HASH_BYTES]));
        assert_eq!((cost.memory_kib, cost.passes, cost.lanes), (65_536, 3, 4));
        for wrong in ["$argon2i$v=19$m=65536,t=3,p=4$", "$argon2id$v=19$t=3,m=65536,p=4$", "$argon2id$v=16$m=65536,t=3,p=4$"] {
            assert!(read(&format!("{wrong}{salt}${hash}")).is_none(), "{wrong}");
        }
    }

    #[test]
    fn generated_passwords_may_be_chosen_and_differ() {
        let (one, other) = (generate(), generate());
        assert_ne!(one.expose(), other.expose());
        assert!(check("/password", &one).is_ok());
        assert_eq!(one.expose().len(), 28, "{}", one.expose());
        assert!(check("/password", &SecretText::new("short")).is_err());
    }
}
