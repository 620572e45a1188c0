//! Doors for the fuzz targets in `fuzz/` to what both kinds of chain read alike. `cargo fuzz` alone
//! compiles them; they add nothing to what they open.

use tidegate_rules::block::{Hash, Transfer, Unreadable};
use tidegate_rules::notice::TokenNotice;

use crate::abi;
use crate::transfer_log::{Found, Kind};

/// The answers of a token's views: `symbol()`, `decimals()`, and one of yes or no.
#[must_use]
pub fn views(answer: &[u8]) -> (Option<String>, Option<u8>, Option<bool>) {
    (abi::symbol(answer), abi::decimals(answer), abi::flag(answer))
}

/// What one log of the token is read as; `None` for a log that does not concern us.
#[must_use]
pub fn token_log(topics: &[&str], data: &str) -> Option<(Vec<Transfer>, Vec<Unreadable>, Vec<TokenNotice>)> {
    let mut found = Found::default();
    found.push(Kind::of(topics)?, Hash([7; 32]), &mut 0, topics, data);
    Some((found.transfers, found.unreadable, found.notices))
}
