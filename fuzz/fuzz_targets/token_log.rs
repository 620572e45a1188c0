//! One log of the token: topics and data as text, one a line, the data last. A transfer that is read
//! is written again and reads the same; a notice's address stands among the log's words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_chain::fuzzing::token_log;
use tidegate_fuzz::{TRANSFER_TOPIC, bare};
use tidegate_rules::notice::TokenNotice;

fuzz_target!(|text: &str| {
    let mut lines: Vec<&str> = text.split('\n').take(8).collect();
    let Some(data) = lines.pop() else { return };
    // Half of all inputs would be logs of nobody: what is not a topic is taken for Transfer.
    let (head, rest) = lines.split_first().map_or((TRANSFER_TOPIC, &[][..]), |(head, rest)| (*head, rest));
    let head = if head.is_empty() { TRANSFER_TOPIC } else { head };
    let topics: Vec<&str> = [head].iter().chain(rest).copied().collect();
    let Some((transfers, unreadable, notices)) = token_log(&topics, data) else { return };
    assert!(transfers.len() + unreadable.len() + notices.len() <= 1, "one log is read as two");
    for transfer in transfers {
        let topic = |address: &[u8; 20]| format!("{:0>64}", hex::encode(address));
        let (from, to) = (topic(&transfer.from.0), topic(&transfer.to.0));
        let again = token_log(&[TRANSFER_TOPIC, &from, &to], &hex::encode(transfer.value.to_be_bytes())).expect("a transfer");
        assert_eq!(again.0, [transfer]);
        assert!(bare(rest[0]).eq_ignore_ascii_case(&from) && bare(rest[1]).eq_ignore_ascii_case(&to), "other parties than the log's");
    }
    let words = format!("{} {data}", rest.join(" ")).to_ascii_lowercase();
    for log in unreadable {
        assert!(log.raw.chars().count() <= 1_024 && log.mentions.len() <= 64);
        for mention in log.mentions {
            assert!(words.contains(&hex::encode(mention.0)), "a mention that is not in the log");
        }
    }
    for notice in notices {
        let address = match notice {
            TokenNotice::Blacklisted(address) | TokenNotice::Unblacklisted(address) => Some(address),
            TokenNotice::FundsDestroyed { address, .. } => Some(address),
            TokenNotice::Deprecated { successor } => Some(successor),
            _ => None,
        };
        assert!(address.is_none_or(|address| words.contains(&hex::encode(address.0))), "a notice of an address that is not in the log");
    }
});
