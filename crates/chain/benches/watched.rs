//! How fast a million transfers are matched against a million watched addresses, and what those
//! weigh: the set that the followers use, beside the same set with the standard hasher and beside a
//! search in a sorted list, the smallest form there is.
//!
//!     cargo bench -p tidegate-chain --bench watched
//!
//! One transfer in eight goes to a watched address. All run in one process, in turns; medians are
//! compared.

#![allow(
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement reads the clock, divides and prints"
)]

use std::collections::HashSet;
use std::hint::black_box;
use std::time::Instant;

use sha3::{Digest, Keccak256};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Hash, Transfer, TransferKey};
use tidegate_rules::watch::Watched;

const WATCHED: u64 = 1_000_000;
const TRANSFERS: u64 = 1_000_000;
const ROUNDS: usize = 15;

fn main() {
    let before = resident_bytes();
    let mut watched = Watched::default();
    watched.extend((0..WATCHED).map(address));
    let weight = resident_bytes() - before;
    assert_eq!(watched.len() as u64, WATCHED);
    let standard: HashSet<Address> = (0..WATCHED).map(address).collect();
    let mut sorted: Vec<Address> = (0..WATCHED).map(address).collect();
    sorted.sort_unstable();
    let transfers: Vec<Transfer> = (0..TRANSFERS).map(transfer).collect();

    let (mut ours, mut theirs, mut search) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(per_second(&transfers, |to| watched.contains(to)));
        theirs.push(per_second(&transfers, |to| standard.contains(to)));
        search.push(per_second(&transfers, |to| sorted.binary_search(to).is_ok()));
    }
    let (ours, theirs, search) = (median(ours), median(theirs), median(search));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    println!("{TRANSFERS} transfers against {WATCHED} addresses, medians of {ROUNDS} rounds (load {load})");
    println!("  watched set       {:>6.1} million/s   {:>5.1} MiB", ours / 1e6, weight as f64 / 1_048_576.0);
    println!("  standard hasher   {:>6.1} million/s   ratio {:.2}", theirs / 1e6, ours / theirs);
    println!("  sorted list       {:>6.1} million/s   ratio {:.2}", search / 1e6, ours / search);
}

fn per_second(transfers: &[Transfer], is_ours: impl Fn(&Address) -> bool) -> f64 {
    let started = Instant::now();
    let found = black_box(transfers).iter().filter(|transfer| is_ours(&transfer.to)).count();
    let took = started.elapsed().as_secs_f64();
    assert_eq!(black_box(found) as u64, TRANSFERS / 8);
    TRANSFERS as f64 / took
}

/// Spread like real ones.
fn address(n: u64) -> Address {
    let digest = Keccak256::digest(n.to_be_bytes());
    Address(*digest.first_chunk().unwrap())
}

fn transfer(n: u64) -> Transfer {
    // Far apart in the set, as the payers' order is not the wallets'.
    let to = if n.is_multiple_of(8) { address(n * 7_919 % WATCHED) } else { address(WATCHED + n) };
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    Transfer { key: TransferKey { tx_hash: Hash(hash), ordinal: 0 }, from: Address([0xaa; 20]), to, value: Raw::from_units(12_500_000) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Resident pages of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * 4_096)
}
