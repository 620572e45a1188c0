//! Reads one `Transfer` log, the same on TRON and EVM: three topics and one word of data; and
//! collects a block's transfers and notices as their logs are found.
//!
//! It is strict because the genuine token is: its logs have exactly this shape. Whatever differs
//! is kept as [`Unreadable`] with everything it could mean, so that nothing is lost and nothing
//! is guessed. Which logs are the token's, and in which transactions, is decided before.

use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block, BlockRef, Hash, Transfer, TransferKey, Unreadable};
use tidegate_rules::notice::TokenNotice;

use crate::notice_log::{self, Event};

/// `keccak256("Transfer(address,address,uint256)")`, the first topic of every such log.
pub(crate) const TRANSFER_TOPIC: &str = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// What is kept of an unreadable log's text.
const RAW_CHARS_MAX: usize = 1_024;
/// How many addresses an unreadable log is searched for.
const MENTIONS_MAX: usize = 64;

/// Which of the token's logs concern us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Transfer,
    Notice(Event),
}

impl Kind {
    /// By the first topic; `None` for the many others, approvals above all.
    pub(crate) fn of(topics: &[&str]) -> Option<Self> {
        let topic = topics.first()?;
        if bare(topic).eq_ignore_ascii_case(TRANSFER_TOPIC) {
            return Some(Self::Transfer);
        }
        notice_log::event(topic).map(Self::Notice)
    }
}

/// The transfers and notices of a block as they are found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How many `Transfer` logs were taken in, whatever became of them.
    pub(crate) logs: usize,
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) unreadable: Vec<Unreadable>,
    pub(crate) notices: Vec<TokenNotice>,
}

impl Found {
    /// Takes in a log of the transaction; `topics` and `data` are hex, with or without `0x`.
    /// `ordinal` is that of the transaction's next transfer; a notice takes none. A transfer of
    /// nothing is dropped (anybody can make the token emit one in anybody's name), but its
    /// ordinal stays taken. A notice that does not read as one is dropped: only the issuer can
    /// make the token emit one, and no money is lost with it.
    pub(crate) fn push(&mut self, kind: Kind, tx_hash: Hash, ordinal: &mut u32, topics: &[&str], data: &str) {
        if let Kind::Notice(event) = kind {
            self.notices.extend(notice_log::read(event, topics, data));
            return;
        }
        let key = TransferKey { tx_hash, ordinal: *ordinal };
        *ordinal = ordinal.saturating_add(1);
        self.logs = self.logs.saturating_add(1);
        match read(key, topics, data) {
            Some(transfer) if transfer.value.is_zero() => {}
            Some(transfer) => self.transfers.push(transfer),
            None => self.unreadable.push(unreadable(key, topics, data)),
        }
    }

    /// All of it, in its place.
    pub(crate) fn into_block(self, at: BlockRef) -> Block {
        Block { at, transfers: self.transfers, unreadable: self.unreadable, notices: self.notices }
    }
}

fn read(key: TransferKey, topics: &[&str], data: &str) -> Option<Transfer> {
    let [_, from, to] = topics else { return None };
    Some(Transfer { key, from: address(from)?, to: address(to)?, value: Raw::from_be_bytes(word(data)?) })
}

pub(crate) fn word(text: &str) -> Option<[u8; 32]> {
    let digits = bare(text);
    // The decoder would take a second 0x.
    (digits.len() == 64).then_some(())?;
    hex::decode_to_array(digits).ok()
}

/// An address fills the low twenty bytes of its word; anything above them is not one.
pub(crate) fn address(text: &str) -> Option<Address> {
    let word = word(text)?;
    let (upper, lower) = word.split_first_chunk::<12>()?;
    (*upper == [0; 12]).then_some(())?;
    lower.try_into().ok().map(Address)
}

fn unreadable(key: TransferKey, topics: &[&str], data: &str) -> Unreadable {
    let raw = format!("topics {} data {}", topics.join(","), data);
    let mut mentions = Vec::new();
    for text in topics.iter().skip(1).chain([&data]) {
        for word in hex::decode(bare(text)).unwrap_or_default().chunks(32).take(MENTIONS_MAX) {
            if let Some(lower) = word.last_chunk::<20>()
                && *lower != [0; 20]
                && !mentions.contains(&Address(*lower))
            {
                mentions.push(Address(*lower));
            }
        }
    }
    mentions.truncate(MENTIONS_MAX);
    Unreadable { key, raw: raw.chars().take(RAW_CHARS_MAX).collect(), mentions }
}

pub(crate) fn bare(text: &str) -> &str {
    text.strip_prefix("0x").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_a_transfer_or_nothing_or_kept_whole() {
        const A: &str = "000000000000000000000000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        const B: &str = "000000000000000000000000bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
        const DIRTY: &str = "000000000000000000000041bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
        const ONE: &str = "0000000000000000000000000000000000000000000000000000000000000001";
        const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
        const ALL: &str = "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
        let long = ONE.repeat(400);
        let twice = format!("0x0x{ONE}");
        let table: [(&str, &[&str], &str, &str); 13] = [
            ("plain", &[A, B], ONE, "transfer 1"),
            ("to itself", &[A, A], ONE, "transfer 1"),
            (
                "more than any token has",
                &[A, B],
                ALL,
                "transfer 115792089237316195423570985008687907853269984665640564039457584007913129639935",
            ),
            ("nothing", &[A, B], ZERO, "dropped"),
            ("indexed value, as an NFT's", &[A, B, ONE], "", "unreadable, 3 mentions"),
            ("no recipient", &[A], ONE, "unreadable, 2 mentions"),
            ("no data", &[A, B], "", "unreadable, 2 mentions"),
            ("short data", &[A, B], "0x01", "unreadable, 2 mentions"),
            ("long data", &[A, B], &long, "unreadable, 3 mentions"),
            ("dirty recipient", &[A, DIRTY], ONE, "unreadable, 3 mentions"),
            ("dirty sender of nothing", &[DIRTY, A], ZERO, "unreadable, 2 mentions"),
            ("not hex", &[A, "zz"], ONE, "unreadable, 2 mentions"),
            ("two prefixes", &[A, B], &twice, "unreadable, 3 mentions"),
        ];
        for (name, parties, data, expected) in table {
            let mut topics = vec![TRANSFER_TOPIC];
            topics.extend(parties);
            let mut found = Found::default();
            assert_eq!(Kind::of(&topics), Some(Kind::Transfer));
            found.push(Kind::Transfer, Hash([1; 32]), &mut 0, &topics, data);
            let told = match (found.transfers.as_slice(), found.unreadable.as_slice()) {
                ([transfer], []) => format!("transfer {}", transfer.value),
                ([], [unreadable]) => {
                    assert!(unreadable.raw.len() <= RAW_CHARS_MAX);
                    format!("unreadable, {} mentions", unreadable.mentions.len())
                }
                ([], []) => "dropped".into(),
                _ => unreachable!(),
            };
            assert_eq!(told, expected, "{name}");
        }
    }
}
