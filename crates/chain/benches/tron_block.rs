//! How fast a TRON block of about 1 MB is read and matched against a million watched addresses,
//! beside a bare parse of the same bytes, and what the million addresses weigh.
//!
//!     cargo bench -p tidegate-chain --bench tron_block
//!
//! Both arms run in one process, in turns, so that a busy machine slows both; medians are
//! compared. The goals are a ratio of at least 0.5 and at most 65 MiB.

#![allow(
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement reads the clock, divides and prints"
)]

mod bare;

use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::time::Instant;

use tidegate_chain::tron::{Header, parse_address, parse_infos};
use tidegate_rules::block::{BlockRef, Hash};
use tidegate_rules::time::Time;

const BLOCK_BYTES: usize = 1_000_000;
const NUMBER: u64 = 69_316_562;
const TIME: i64 = 1_738_601_505_000;
const WATCHED: u64 = 1_000_000;
const ROUNDS: usize = 15;
const BLOCKS_A_ROUND: u32 = 40;

fn main() {
    let before = resident_bytes();
    let mut watched: Watched = Watched::with_capacity_and_hasher(WATCHED as usize, BuildHasherDefault::default());
    watched.extend((0..WATCHED).map(address));
    let weight = resident_bytes() - before;

    measure("as blocks are: much in them is not ours", &block(300, BLOCK_BYTES), &watched);
    measure("the worst: a block full of USDT transfers", &block(1_300, 0), &watched);
    println!("watched addresses  {:>7.1} MiB for a million  (goal: at most 65)", weight as f64 / 1_048_576.0);
}

fn measure(name: &str, answer: &[u8], watched: &Watched) {
    let token = parse_address("TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t").unwrap();
    let hash = Hash([1; 32]);
    let at = BlockRef { number: NUMBER, hash, parent: hash, time: Time::from_millis(TIME) };
    let header = Header { at, is_empty: false };

    let ours = || {
        let transfers = parse_infos(answer, &header, &token).unwrap().transfers;
        (transfers.len(), transfers.iter().filter(|transfer| watched.contains(&transfer.to.0)).count())
    };
    let bare = || serde_json::from_slice::<Vec<bare::TransactionInfo>>(answer).unwrap().len();
    let (transfers, mine) = ours();
    println!("{name}: {} bytes, {} infos, {transfers} transfers, {mine} of them to us", answer.len(), bare());

    let (mut read, mut parse) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        read.push(blocks_per_second(|| _ = black_box(ours())));
        parse.push(blocks_per_second(|| _ = black_box(bare())));
    }
    let (read, parse) = (median(read), median(parse));
    println!("  read and matched {read:>7.0} blocks/s");
    println!("  bare serde_json  {parse:>7.0} blocks/s");
    println!("  ratio            {:>7.2}  (goal: at least 0.50)", read / parse);
}

fn blocks_per_second(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..BLOCKS_A_ROUND {
        work();
    }
    f64::from(BLOCKS_A_ROUND) / start.elapsed().as_secs_f64()
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

/// The n-th watched address. A multiplication spreads them as real ones are spread.
fn address(n: u64) -> [u8; 20] {
    let mut bytes = [0; 20];
    let mixed = u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    bytes[..16].copy_from_slice(&mixed.to_be_bytes());
    bytes[12..].copy_from_slice(&(n ^ 0x5555).to_be_bytes());
    bytes
}

/// A block's infos in the shape of genuine ones: four in five move USDT, the others TRX; padded
/// with internal transactions, as a swap has them, up to `bytes`.
fn block(infos: u32, bytes: usize) -> Vec<u8> {
    let mut infos: Vec<String> = (0..infos).map(info).collect();
    let padding = format!(
        r#"{{"hash":"{}","caller_address":"41{}","transferTo_address":"41{}","callValueInfo":[{{}}],"note":"63616c6c"}}"#,
        "7f".repeat(32),
        "3c".repeat(20),
        "5d".repeat(20)
    );
    let missing = bytes.saturating_sub(infos.iter().map(String::len).sum());
    let each = missing / infos.len() / padding.len();
    for info in &mut infos {
        info.pop();
        *info = format!(r#"{info},"internal_transactions":[{}]}}"#, vec![padding.as_str(); each].join(","));
    }
    format!("[{}]", infos.join(",")).into_bytes()
}

fn info(n: u32) -> String {
    let id = format!("{n:08x}").repeat(8);
    if n.is_multiple_of(5) {
        return format!(
            r#"{{"id":"{id}","blockNumber":{NUMBER},"blockTimeStamp":{TIME},"contractResult":[""],"receipt":{{"net_usage":283}}}}"#
        );
    }
    // One recipient in eight is watched.
    let to = if n % 10 == 1 { address(u64::from(n)) } else { address(WATCHED + u64::from(n)) };
    format!(
        r#"{{"id":"{id}","fee":26420100,"blockNumber":{NUMBER},"blockTimeStamp":{TIME},"contractResult":["{}"],"contract_address":"41a614f803b6fd780986a42c78ec9c7f77e6ded13c","receipt":{{"energy_usage":4475,"energy_fee":26420100,"energy_usage_total":130285,"net_usage":345,"result":"SUCCESS","energy_penalty_total":100635}},"log":[{{"address":"a614f803b6fd780986a42c78ec9c7f77e6ded13c","topics":["ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef","0000000000000000000000006e3b44b96104b26f84057974a1f0c9880f7c9b13","000000000000000000000000{}"],"data":"{:064x}"}}]}}"#,
        "0".repeat(64),
        hex::encode(to),
        1_000 + u64::from(n),
    )
}

type Watched = hashbrown::HashSet<[u8; 20], BuildHasherDefault<EightBytes>>;

/// Addresses are hashes themselves: eight of their bytes are a good one. The array's length is
/// written before them, and forgotten.
#[derive(Default)]
struct EightBytes(u64);

impl Hasher for EightBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
