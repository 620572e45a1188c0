//! What several targets need: how an input falls into parts, a vault that is the same in each run,
//! and a second, independent reading of what the adapters count.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::Value;
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block};
use tidegate_vault::{Entropy, MasterKey, NewWallet, Salt, Vault};

/// The token of the seeds: USDT on Ethereum, USDT on TRON.
pub const USDT_EVM: Address = Address(hex_20(b"dac17f958d2ee523a2206206994597c13d831ec7"));
pub const USDT_TRON: Address = Address(hex_20(b"a614f803b6fd780986a42c78ec9c7f77e6ded13c"));

pub const TRANSFER_TOPIC: &str = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

const fn hex_20(digits: &[u8; 40]) -> [u8; 20] {
    const fn value(digit: u8) -> u8 {
        if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 }
    }
    let mut bytes = [0; 20];
    let mut at = 0;
    while at < 20 {
        bytes[at] = value(digits[2 * at]) << 4 | value(digits[2 * at + 1]);
        at += 1;
    }
    bytes
}

/// The first line of an input, and the rest: two answers in one input.
pub fn two(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((&data[..end], &data[end + 1..]))
}

/// What must be true of every block that an adapter lets through.
pub fn check_block(block: &Block) {
    let mut keys = HashSet::new();
    let all = block.transfers.iter().map(|transfer| transfer.key).chain(block.unreadable.iter().map(|log| log.key));
    for key in all {
        assert!(keys.insert(key), "{key:?} is twice in block {}", block.at.number);
    }
    assert!(block.transfers.iter().all(|transfer| !transfer.value.is_zero()), "a transfer of nothing");
    for log in &block.unreadable {
        assert!(log.raw.chars().count() <= 1_024 && log.mentions.len() <= 64, "an unreadable log is kept without a limit");
    }
    let mut sum = Raw::ZERO;
    for transfer in &block.transfers {
        let before = sum;
        sum = sum.saturating_add(transfer.value);
        assert!(sum >= before && sum >= transfer.value, "a sum went down");
        for decimals in [0, 2, 6, 18, 77, 255] {
            let amount = sum.to_amount_saturating(decimals);
            assert!(amount <= tidegate_rules::amount::Amount::MAX);
        }
    }
}

/// How many readable transfers of something, and how many other `Transfer` logs but those of
/// nothing, these logs of a token hold: counted on the JSON itself, by other means than the adapters'.
pub fn count<'a>(logs: impl IntoIterator<Item = &'a Value>) -> (usize, usize) {
    let (mut transfers, mut others) = (0, 0);
    for log in logs {
        let topics: Vec<&str> = log["topics"].as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(Value::as_str).collect();
        if !topics.first().is_some_and(|topic| bare(topic).eq_ignore_ascii_case(TRANSFER_TOPIC)) {
            continue;
        }
        let data = log["data"].as_str().unwrap_or("");
        let word = |text: &str| {
            (bare(text).len() == 64 && bare(text).bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| bare(text).to_owned())
        };
        let address = |text: &str| word(text).filter(|word| word.starts_with(&"0".repeat(24)));
        let good = topics.len() == 3 && address(topics[1]).is_some() && address(topics[2]).is_some();
        match word(data).filter(|_| good) {
            Some(value) if value.bytes().all(|digit| digit == b'0') => {}
            Some(_) => transfers += 1,
            None => others += 1,
        }
    }
    (transfers, others)
}

/// Twenty bytes of hex as an address of the token is recognised, whatever its prefix looks like.
pub fn is_address(text: &str, digits: &str) -> bool {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text).eq_ignore_ascii_case(digits)
}

pub fn bare(text: &str) -> &str {
    text.strip_prefix("0x").unwrap_or(text)
}

/// Unlocked once: that is slow on purpose.
pub static VAULT: LazyLock<Vault> = LazyLock::new(|| {
    let key = MasterKey::parse("5f3a91c07be244d81690fd2ba7c3e85e0b7d4496f1283acd60e59714bb02d8af").expect("a key");
    Vault::unlock(&key, &Salt::parse("the salt of the fuzzers").expect("a salt")).expect("19 MiB")
});

/// The private key of [`WALLET`]: the text that must never be seen.
pub const PRIVATE_KEY: &str = "b71c71a67e1177ad4e901695e1b4b9ee17ae16c6668d313eac2f96dbcda3f291";

/// The wallet `wal_1` on `net`.
pub static WALLET: LazyLock<NewWallet> =
    LazyLock::new(|| VAULT.import_wallet(PRIVATE_KEY, "wal_1", "net", &mut Counting(1)).expect("a key"));

/// Draws the same bytes in each run.
pub struct Counting(pub u8);

impl Entropy for Counting {
    fn fill(&mut self, buf: &mut [u8]) {
        for byte in buf {
            self.0 = self.0.wrapping_mul(197).wrapping_add(31);
            *byte = self.0;
        }
    }
}
