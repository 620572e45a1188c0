//! # The audit log tells what was done to it
//!
//! A log of five rows, a line an attack: `what is done | what is found`. The newest hash stands
//! apart, where whoever attacks cannot write it.

use proptest::prelude::*;
use tidegate_rules::audit::{self, Action, Broken, Entry, Fault, GENESIS, Head, Verifier};
use tidegate_rules::time::{Span, Time};

/// Rows and the hashes that are stored with them.
type Log = Vec<(Entry, String)>;

fn entry(seq: u64) -> Entry {
    Entry {
        seq,
        at: Time::from_secs(1_800_000_000).plus(Span::from_secs(seq)),
        actor: "key_7f".into(),
        action: Action::WalletStatus.name().into(),
        subject: format!("wal_{seq}"),
        origin: "203.0.113.7".into(),
        reason: "a customer asked".into(),
        detail: r#"{"from":"available"}"#.into(),
    }
}

fn log(entries: impl IntoIterator<Item = Entry>) -> Log {
    let mut log: Log = entries.into_iter().map(|entry| (entry, String::new())).collect();
    chain(&mut log);
    log
}

/// Makes every hash fit, as whoever may write the whole table can.
fn chain(log: &mut Log) {
    let mut previous = GENESIS.to_owned();
    for (entry, hash) in log {
        *hash = audit::link(&previous, entry);
        previous.clone_from(hash);
    }
}

fn head(log: &Log) -> Head {
    log.last().map_or_else(Head::genesis, |(entry, hash)| Head { seq: entry.seq, hash: hash.clone() })
}

/// Reads the log whole, and compares its end with what is vouched for.
fn read(log: &Log, vouched: &Head) -> Result<(), Broken> {
    audit::verify(log.iter().map(|(entry, hash)| (entry, hash.as_str())))?.reaches(vouched)
}

/// Another text in a field.
fn edit(entry: &mut Entry, field: &str) {
    match field {
        "seq" => entry.seq += 1,
        "at" => entry.at = entry.at.plus(Span::from_millis(1)),
        "actor" => entry.actor.push('x'),
        "action" => entry.action = Action::WalletRename.name().into(),
        "subject" => entry.subject = "wal_9".into(),
        "origin" => entry.origin.clear(),
        "reason" => entry.reason = entry.reason.to_uppercase(),
        "detail" => entry.detail = entry.detail.replace("available", "frozen"),
        // The same bytes, cut at another place.
        "boundary" => entry.subject = format!("{}{}", entry.action.split_off(3), entry.subject),
        _ => panic!("a field {field}?"),
    }
}

fn attack(log: &mut Log, words: &[&str]) {
    let at = |word: &str| word.parse::<usize>().unwrap() - 1;
    match words {
        ["nothing"] => {}
        [done @ .., "and", "every", "hash", "made", "to", "fit"] => {
            attack(log, done);
            chain(log);
        }
        ["edit", row, "hash"] => log[at(row)].1 = log[at(row)].1.to_uppercase(),
        ["edit", row, field] => edit(&mut log[at(row)].0, field),
        ["remove", row] => drop(log.remove(at(row))),
        ["remove", row, "and", "number", "the", "rest", "again"] => {
            log.remove(at(row));
            number_again(log);
        }
        ["swap", one, other] => log.swap(at(one), at(other)),
        ["swap", one, other, "and", "number", "them", "again"] => {
            log.swap(at(one), at(other));
            number_again(log);
        }
        ["insert", "before", row] => log.insert(at(row), (entry(at(row) as u64 + 1), "0".repeat(64))),
        ["insert", "before", row, "and", "number", "the", "rest", "again"] => {
            log.insert(at(row), (entry(99), "0".repeat(64)));
            number_again(log);
        }
        ["repeat", row] => log.insert(at(row) + 1, log[at(row)].clone()),
        ["cut", "after", row] => log.truncate(at(row) + 1),
        ["empty"] => log.clear(),
        ["append", "a", "row"] => {
            let row = entry(log.len() as u64 + 1);
            let hash = audit::link(&log.last().unwrap().1, &row);
            log.push((row, hash));
        }
        _ => panic!("what is {words:?}?"),
    }
}

fn number_again(log: &mut Log) {
    for (seq, (entry, _)) in (1..).zip(log) {
        entry.seq = seq;
    }
}

#[test]
fn whatever_is_done_to_a_row_is_found() {
    let table = "
        nothing                                     | sound
        edit 1 actor                                | 1 edited
        edit 3 at                                   | 3 edited
        edit 3 actor                                | 3 edited
        edit 3 action                               | 3 edited
        edit 3 subject                              | 3 edited
        edit 3 origin                               | 3 edited
        edit 3 reason                               | 3 edited
        edit 3 detail                               | 3 edited
        edit 3 boundary                             | 3 edited
        edit 3 hash                                 | 3 edited
        edit 5 reason                               | 5 edited
        edit 3 seq                                  | 3 missing
        edit 5 seq                                  | 5 missing
        remove 1                                    | 1 missing
        remove 3                                    | 3 missing
        remove 5                                    | 5 missing
        remove 3 and number the rest again          | 3 edited
        swap 2 3                                    | 2 missing
        swap 2 3 and number them again              | 2 edited
        insert before 3                             | 3 edited
        insert before 3 and number the rest again   | 3 edited
        repeat 3                                    | 3 out_of_order
        cut after 3                                 | 4 missing
        empty                                       | 1 missing
        append a row                                | 6 unvouched
        nothing and every hash made to fit          | sound
        edit 1 reason and every hash made to fit    | 5 edited
        edit 5 reason and every hash made to fit    | 5 edited
        remove 3 and number the rest again and every hash made to fit | 5 missing
        insert before 3 and number the rest again and every hash made to fit | 6 unvouched";
    let good = log((1..=5).map(entry));
    let vouched = head(&good);
    let mut wrong = Vec::new();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (done, expected) = line.split_once('|').unwrap();
        let mut log = good.clone();
        attack(&mut log, &done.split_whitespace().collect::<Vec<_>>());
        let got = match read(&log, &vouched) {
            Ok(()) => "sound".to_owned(),
            Err(broken) => format!("{} {}", broken.seq, broken.what.name()),
        };
        if got != expected.trim() {
            wrong.push(format!("{} | {got}, expected {}", done.trim(), expected.trim()));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Computed by a program of its own (Python's hashlib), so that the form that is hashed never
/// changes unseen: a log of today is to be read for years.
#[test]
fn the_hashed_form_stays_as_it_is() {
    let first = Entry {
        seq: 1,
        at: Time::from_millis(1_800_000_000_000),
        actor: "key_7f".into(),
        action: "wallet.export".into(),
        subject: "wal_1".into(),
        origin: "command line".into(),
        reason: "moving to a hardware wallet".into(),
        detail: "{}".into(),
    };
    let second = Entry {
        seq: 2,
        at: Time::from_millis(1_800_000_000_001),
        actor: "mia".into(),
        action: "order.confirm".into(),
        subject: "ord_1".into(),
        origin: "203.0.113.7".into(),
        reason: "paid in the shop – in cash".into(),
        detail: r#"{"was":"pending"}"#.into(),
    };
    let hash = audit::link(GENESIS, &first);
    assert_eq!(hash, "6fe3aebfe923b3f3ca6271e6bcd7db075ab7325b585240c0db7fe30c115fe9fb");
    assert_eq!(audit::link(&hash, &second), "cef0baa09b6f36ae43c31511460e0846e37115fe9bc874bd39973ce64276fed1");
}

#[test]
fn a_log_is_verified_in_parts() {
    let log = log((1..=5).map(entry));
    let mut first = Verifier::new(Head::genesis());
    for (entry, hash) in &log[..3] {
        first.next(entry, hash).unwrap();
    }
    let mut second = Verifier::new(first.head().clone());
    for (entry, hash) in &log[3..] {
        second.next(entry, hash).unwrap();
    }
    assert_eq!(*second.head(), head(&log));

    // A row that does not fit leaves the verifier where it is.
    assert_eq!(second.next(&log[4].0, &log[4].1), Err(Broken { seq: 5, what: Fault::OutOfOrder }));
    assert_eq!(*second.head(), head(&log));
    assert_eq!(audit::verify([]), Ok(Head::genesis()));
}

#[test]
fn what_is_broken_is_said_in_words() {
    let said = |what| Broken { seq: 7, what }.to_string();
    assert_eq!(said(Fault::Missing), "row 7 of the audit log is missing");
    assert_eq!(said(Fault::Edited), "row 7 of the audit log is not as it was written");
    assert_eq!(said(Fault::OutOfOrder), "row 7 of the audit log stands in a wrong place");
    assert_eq!(said(Fault::Unvouched), "row 7 of the audit log follows the newest row that is vouched for");
}

#[test]
fn every_action_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = Action::ALL.iter().map(|action| action.name()).collect();
    assert_eq!(names.len(), Action::ALL.len());
    for action in Action::ALL {
        assert_eq!(Action::from_name(action.name()), Some(*action));
        assert!(action.name().split_once('.').is_some_and(|(about, done)| !about.is_empty() && !done.is_empty()));
    }
}

/// One byte of a row, changed. `place` picks where, modulo how much there is; `to` is what for.
fn edit_a_byte(row: &mut (Entry, String), place: usize, to: u8) {
    let (entry, hash) = row;
    let bit = 1_u64 << (to % 64);
    let texts = [&mut entry.actor, &mut entry.action, &mut entry.subject, &mut entry.origin, &mut entry.reason, &mut entry.detail, hash];
    let mut place = place % (texts.iter().map(|text| text.len()).sum::<usize>() + 2);
    for text in texts {
        if place < text.len() {
            let old = text.as_bytes()[place];
            let new = if to == old { old ^ 1 } else { to };
            text.replace_range(place..=place, &char::from(new & 0x7f).to_string());
            return;
        }
        place -= text.len();
    }
    match place {
        0 => entry.seq ^= bit,
        _ => entry.at = Time::from_millis(entry.at.millis() ^ bit.cast_signed()),
    }
}

prop_compose! {
    fn any_entry()(texts in prop::collection::vec("[ -~]{0,9}", 6), at in any::<i64>()) -> Entry {
        let [actor, action, subject, origin, reason, detail] = texts.try_into().unwrap();
        Entry { seq: 0, at: Time::from_millis(at), actor, action, subject, origin, reason, detail }
    }
}

proptest! {
    #[test]
    fn every_edit_of_a_byte_is_found(entries in prop::collection::vec(any_entry(), 1..6), row: usize, place: usize, to in 0_u8..128) {
        let mut log = log((1..).zip(entries).map(|(seq, entry)| Entry { seq, ..entry }));
        let vouched = head(&log);
        prop_assert_eq!(read(&log, &vouched), Ok(()));

        let row = row % log.len();
        let before = log[row].clone();
        edit_a_byte(&mut log[row], place, to);
        prop_assert_ne!(&before, &log[row]);
        let alone = audit::verify(log.iter().map(|(entry, hash)| (entry, hash.as_str())));
        prop_assert!(alone.is_err(), "found without the head that stands apart");

        // Even when every hash is made to fit, unless it was only a hash that was edited.
        if before.0 != log[row].0 {
            chain(&mut log);
            prop_assert!(read(&log, &vouched).is_err());
        }
    }
}
