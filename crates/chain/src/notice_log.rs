//! Reads what a token's contract logs beside transfers: freezes, pauses, its end (TetherToken.sol,
//! the contract at 0xdAC17F95…1ec7 on Ethereum, and its sister on TRON).
//!
//! Contracts of this family differ in whether an address is indexed: then it stands among the
//! topics, else in the data. Either way the words come in the order of the event's parameters. A
//! log that has other words than its event is none of the genuine contract's, and is left out.

use tidegate_rules::amount::Raw;
use tidegate_rules::notice::TokenNotice;

use crate::transfer_log::{address, bare, word};

/// An event that a notice is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    AddedBlackList,
    RemovedBlackList,
    DestroyedBlackFunds,
    Pause,
    Unpause,
    Deprecate,
}

/// The first topic of each event: keccak256 of its name and the types of its parameters.
pub(crate) const TOPICS: [(Event, &str); 6] = [
    // AddedBlackList(address)
    (Event::AddedBlackList, "42e160154868087d6bfdc0ca23d96a1c1cfa32f1b72ba9ba27b69b98a0d819dc"),
    // RemovedBlackList(address)
    (Event::RemovedBlackList, "d7e9ec6e6ecd65492dce6bf513cd6867560d49544421d0783ddf06e76c24470c"),
    // DestroyedBlackFunds(address,uint256)
    (Event::DestroyedBlackFunds, "61e6e66b0d6339b2980aecc6ccc0039736791f0ccde9ed512e789a7fbdd698c6"),
    // Pause()
    (Event::Pause, "6985a02210a168e66602d3235cb6db0e70f92b3ba4d376a33c0f3d9434bff625"),
    // Unpause()
    (Event::Unpause, "7805862f689e2f13df9f062ff482ad3ad112aca9e0847911ed832e158c525b33"),
    // Deprecate(address)
    (Event::Deprecate, "cc358699805e9a8b7f77b522628c7cb9abd07d9efb86b6fb616af1609036a99e"),
];

/// The event that a first topic names.
pub(crate) fn event(topic: &str) -> Option<Event> {
    let topic = bare(topic);
    TOPICS.iter().find(|(_, known)| topic.eq_ignore_ascii_case(known)).map(|(event, _)| *event)
}

/// Reads the log of `event`; `topics` and `data` are hex, with or without `0x`.
pub(crate) fn read(event: Event, topics: &[&str], data: &str) -> Option<TokenNotice> {
    let data = bare(data);
    let in_data = data.len().is_multiple_of(64).then(|| data.as_bytes().chunks(64).map(std::str::from_utf8))?;
    let mut words = topics.iter().skip(1).copied().map(Ok).chain(in_data);
    let mut next = || words.next()?.ok();
    let notice = match event {
        Event::AddedBlackList => TokenNotice::Blacklisted(address(next()?)?),
        Event::RemovedBlackList => TokenNotice::Unblacklisted(address(next()?)?),
        Event::DestroyedBlackFunds => TokenNotice::FundsDestroyed { address: address(next()?)?, value: Raw::from_be_bytes(word(next()?)?) },
        Event::Pause => TokenNotice::Paused,
        Event::Unpause => TokenNotice::Unpaused,
        Event::Deprecate => TokenNotice::Deprecated { successor: address(next()?)? },
    };
    words.next().is_none().then_some(notice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer_log::TRANSFER_TOPIC;
    use serde_json::Value;
    use sha3::{Digest, Keccak256};

    fn topic(event: Event) -> &'static str {
        TOPICS.iter().find(|(known, _)| *known == event).unwrap().1
    }

    #[test]
    fn topics_are_those_of_the_vectors_and_the_hashes_of_their_events() {
        let path = format!("{}/tests/data/vectors/abi_selectors_topics.json", env!("CARGO_MANIFEST_DIR"));
        let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let signatures = [
            ("AddedBlackList", "(address)"),
            ("RemovedBlackList", "(address)"),
            ("DestroyedBlackFunds", "(address,uint256)"),
            ("Pause", "()"),
            ("Unpause", "()"),
            ("Deprecate", "(address)"),
        ];
        for ((event, topic), (name, parameters)) in TOPICS.iter().zip(signatures) {
            assert_eq!(format!("{event:?}"), name);
            assert_eq!(vectors["topics"][name], format!("0x{topic}"), "{name}");
            assert_eq!(hex::encode(Keccak256::digest(format!("{name}{parameters}"))), *topic, "{name}");
            assert_eq!(super::event(topic), Some(*event));
            assert_eq!(super::event(&format!("0x{}", topic.to_uppercase())), Some(*event));
        }
        assert_eq!(vectors["topics"]["Transfer"], format!("0x{TRANSFER_TOPIC}"));
        for other in [TRANSFER_TOPIC, "", "0x", &vectors["topics"]["Approval"].as_str().unwrap()[2..]] {
            assert_eq!(super::event(other), None, "{other}");
        }
    }

    #[test]
    fn words_are_read_from_topics_and_data_alike_and_anything_else_is_left_out() {
        use Event::*;
        const A: &str = "000000000000000000000000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        const DIRTY: &str = "000000000000000000000041aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        const TWO: &str = "0000000000000000000000000000000000000000000000000000000000000002";
        let address = tidegate_rules::block::Address([0xaa; 20]);
        let (added, removed) = (TokenNotice::Blacklisted(address), TokenNotice::Unblacklisted(address));
        let destroyed = TokenNotice::FundsDestroyed { address, value: Raw::from_units(2) };
        let deprecated = TokenNotice::Deprecated { successor: address };
        let both = format!("0x{A}{TWO}");
        let prefixed = format!("0x{A}");
        let long = A.repeat(2_000);
        let euro = format!("{}€{}", &A[..31], &A[..30]);
        let table: [(Event, &[&str], &str, Option<TokenNotice>); 25] = [
            (AddedBlackList, &[], A, Some(added)),
            (AddedBlackList, &[], &prefixed, Some(added)),
            (AddedBlackList, &[A], "", Some(added)),
            (AddedBlackList, &[&prefixed], "0x", Some(added)),
            (RemovedBlackList, &[], A, Some(removed)),
            (RemovedBlackList, &[A], "", Some(removed)),
            (DestroyedBlackFunds, &[], &both, Some(destroyed)),
            (DestroyedBlackFunds, &[A], TWO, Some(destroyed)),
            (DestroyedBlackFunds, &[A, TWO], "", Some(destroyed)),
            (Pause, &[], "", Some(TokenNotice::Paused)),
            (Unpause, &[], "0x", Some(TokenNotice::Unpaused)),
            (Deprecate, &[], A, Some(deprecated)),
            (Deprecate, &[A], "0x", Some(deprecated)),
            (AddedBlackList, &[], "", None),
            (AddedBlackList, &[], DIRTY, None),
            (AddedBlackList, &[DIRTY], "", None),
            (AddedBlackList, &[A], TWO, None),
            (AddedBlackList, &[], "0x01", None),
            (AddedBlackList, &[], &A[1..], None),
            (AddedBlackList, &["zz"], "", None),
            (AddedBlackList, &[], &euro, None),
            (DestroyedBlackFunds, &[], A, None),
            (Pause, &[A], "", None),
            (Deprecate, &[], &both, None),
            (RemovedBlackList, &[], &long, None),
        ];
        for (event, words, data, expected) in table {
            let mut topics = vec![topic(event)];
            topics.extend(words);
            assert_eq!(read(event, &topics, data), expected, "{event:?} {words:?} {data:.80}");
        }
        assert_eq!(read(Pause, &[], ""), Some(TokenNotice::Paused), "without topics nothing breaks");
    }
}
