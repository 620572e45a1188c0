//! A door for the fuzz targets in `fuzz/`. `cargo fuzz` alone compiles it.

use super::wire;
use crate::endpoints::Failure;

/// The answer to `triggerconstantcontract`: what the contract returned, or why it did not, and
/// whether that was the contract's own doing.
///
/// # Errors
/// As for the adapter.
pub fn constant(answer: &[u8]) -> Result<Result<Vec<u8>, (String, bool)>, Failure> {
    Ok(wire::parse_constant(answer)?.map_err(|why| {
        let reverted = wire::is_reverted(&why);
        (why, reverted)
    }))
}
