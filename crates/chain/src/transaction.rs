//! One transaction by its hash: what became of it, what it moved and, where it moved nothing, what
//! it was meant to move. The words that TRON and EVM share.
//!
//! Only logs are money. What a transaction asked for is read from its calldata, so that a person
//! can be told why nothing came; it must never count.

use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, BlockRef, Hash, Transfer, Unreadable};

/// What is kept of the reason that a chain gives for a failure.
pub const REASON_CHARS_MAX: usize = 200;

/// A transaction as an endpoint knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its hash, the one asked for.
    pub hash: Hash,
    /// What became of it.
    pub outcome: Outcome,
    /// The block that it is in; `None` while it waits for one. A reorganisation can put it into
    /// another one, or into none.
    pub block: Option<BlockRef>,
    /// Who sent it, where the endpoint says so. That need not be who paid: a contract may have.
    pub from: Option<Address>,
    /// The token's transfers in it, with the ordinals that reading the block gives them. None
    /// unless it succeeded.
    pub transfers: Vec<Transfer>,
    /// Logs that should have been transfers. None unless it succeeded.
    pub unreadable: Vec<Unreadable>,
    /// The transfer of the token that a pending or failed transaction asked the token for, by its
    /// calldata. It moved nothing. `None` when it succeeded, and when it asked for something else.
    pub attempted: Option<Attempted>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in no block that the endpoint shows.
    Pending,
    /// It is in a block and did nothing but cost its fee.
    Failed {
        /// Why, in the chain's own words: `REVERT: REVERT opcode executed`. One line, at most
        /// [`REASON_CHARS_MAX`] characters.
        reason: String,
    },
    /// It is in a block and did what its logs say.
    Succeeded,
}

/// A transfer that a transaction asked for and, so far, did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// Who was to pay.
    pub from: Address,
    /// Who was to be paid.
    pub to: Address,
    /// Base units.
    pub value: Raw,
}

/// `transfer(address,uint256)` and `transferFrom(address,address,uint256)`.
const TRANSFER: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];
const TRANSFER_FROM: [u8; 4] = [0x23, 0xb8, 0x72, 0xdd];

/// The transfer that a call of the token by `sender` asks for; `None` for any other call, and for
/// one that is cut short. What follows the last word is ignored, as contracts ignore it.
pub(crate) fn attempted(sender: Address, calldata: &[u8]) -> Option<Attempted> {
    let (selector, words) = calldata.split_first_chunk::<4>()?;
    match (selector, words.as_chunks::<32>().0) {
        (&TRANSFER, [to, value, ..]) => Some(Attempted { from: sender, to: address(to)?, value: Raw::from_be_bytes(*value) }),
        (&TRANSFER_FROM, [from, to, value, ..]) => {
            Some(Attempted { from: address(from)?, to: address(to)?, value: Raw::from_be_bytes(*value) })
        }
        _ => None,
    }
}

/// An address in calldata. TRON's tools often leave their `41` in front of its twenty bytes (23 of
/// 79 transfers in a block of mainnet do), and the token does not mind.
fn address(word: &[u8; 32]) -> Option<Address> {
    let (upper, lower) = word.split_last_chunk::<20>()?;
    let (first, rest) = upper.split_last()?;
    (matches!(first, 0 | 0x41) && rest.iter().all(|byte| *byte == 0)).then_some(Address(*lower))
}

/// Words of the chain, fit to be shown: one line, not long.
pub(crate) fn reason(words: &str) -> String {
    let words = words.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calldata_asks_for_a_transfer_or_for_something_else() {
        const SENDER: Address = Address([0xcc; 20]);
        let word = |byte: &str| format!("{:0>64}", byte.repeat(20));
        let (a, b) = (word("aa"), word("bb"));
        let tron_b = b.replacen("00bb", "41bb", 1);
        let value = format!("{:064x}", 7);
        let table = [
            ("transfer", format!("a9059cbb{b}{value}"), "cc>bb 7"),
            ("transferFrom", format!("23b872dd{a}{b}{value}"), "aa>bb 7"),
            ("with TRON's prefix", format!("a9059cbb{tron_b}{value}"), "cc>bb 7"),
            ("from with TRON's prefix", format!("23b872dd{}{b}{value}", word("aa").replacen("00aa", "41aa", 1)), "aa>bb 7"),
            ("with more behind it", format!("a9059cbb{b}{value}{a}ff"), "cc>bb 7"),
            ("another prefix", format!("a9059cbb{}{value}", b.replacen("00bb", "42bb", 1)), ""),
            ("dirt further up", format!("a9059cbb{}{value}", b.replacen("0000", "4100", 1)), ""),
            ("cut short", format!("a9059cbb{b}{}", &value[2..]), ""),
            ("approve", format!("095ea7b3{b}{value}"), ""),
            ("three bytes", "a9059c".into(), ""),
            ("nothing", String::new(), ""),
        ];
        for (name, data, expected) in table {
            let found = attempted(SENDER, &hex::decode(data).unwrap());
            let side = |address: Address| hex::encode(&address.0[..1]);
            let found = found.map(|found| format!("{}>{} {}", side(found.from), side(found.to), found.value));
            assert_eq!(found.unwrap_or_default(), expected, "{name}");
        }
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(reason("OUT_OF_ENERGY:\u{1b}[2J not\r\n enough\u{0}energy "), "OUT_OF_ENERGY: [2J not enough energy");
        assert_eq!(reason(&"é".repeat(1_000)).chars().count(), REASON_CHARS_MAX);
    }
}
