//! A door for the fuzz targets in `fuzz/`. `cargo fuzz` alone compiles it.

use tidegate_rules::block::Hash;

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

/// The answer to `getnodeinfo`: height and hash of the newest block that the node holds solid.
///
/// # Errors
/// As for the adapter.
pub fn solid(answer: &[u8]) -> Result<Option<(u64, Hash)>, Failure> {
    wire::parse_solid(answer)
}
