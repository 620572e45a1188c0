//! # What a movement says about a wallet
//!
//! One wallet's statement, a line a step: `step | what is to be seen then`. Seen is `calm`, or the
//! alerts of the step; then, where it has changed, the wallet's risk and `frozen`.
//!
//! ```text
//! DAY TIME gets AMOUNT [times N]            from somebody else; below 0.01 is dust
//! DAY TIME sends UNITS [signed]             to anybody; signed: by a sweep of ours
//! DAY TIME issuer ACT ours|payer|stranger   ACT: blacklists, unblacklists, destroys
//! DAY TIME issuer pauses|unpauses|deprecates
//! lowered                                   a person sets the risk to low, and unfreezes
//! ```

use std::collections::HashSet;

use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, Hash, Transfer, TransferKey};
use tidegate_rules::id::WalletId;
use tidegate_rules::notice::TokenNotice;
use tidegate_rules::risk::{self, History, Verdict, Whose};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::{RiskLevel, WalletKind};

const OURS: Address = Address([1; 20]);
const THEIRS: Address = Address([2; 20]);

struct Wallet {
    kind: WalletKind,
    risk: RiskLevel,
    frozen: bool,
    earlier: Vec<(Time, Amount)>,
}

impl Wallet {
    fn step(&mut self, step: &str) -> String {
        if step == "lowered" {
            (self.risk, self.frozen) = (RiskLevel::Low, false);
            return "calm".into();
        }
        let words: Vec<_> = step.split_whitespace().collect();
        let at: Time = format!("2026-03-{:0>2}T{}:00Z", words[0], words[1]).parse().unwrap();
        let verdict = match words[2..] {
            ["gets", amount] => self.gets(at, amount),
            ["gets", amount, "times", times] => {
                let verdicts: Vec<_> = (0..times.parse::<usize>().unwrap()).map(|_| self.gets(at, amount)).collect();
                verdicts.into_iter().reduce(|before, next| if before == Verdict::default() { next } else { before }).unwrap()
            }
            ["sends", units] => self.sends(units, Hash([7; 32])),
            ["sends", units, "signed"] => self.sends(units, Hash([9; 32])),
            ["issuer", act] => notice(act, THEIRS, Whose::Stranger),
            ["issuer", act, "ours"] => notice(act, OURS, Whose::Ours),
            ["issuer", act, "payer"] => notice(act, THEIRS, Whose::Payer),
            ["issuer", act, "stranger"] => notice(act, THEIRS, Whose::Stranger),
            _ => panic!("what is `{step}`?"),
        };
        let mut seen: Vec<_> = verdict.alerts.iter().map(|kind| kind.name()).collect();
        let risk = verdict.risk.map_or(self.risk, |to| risk::raise(self.risk, to));
        if risk != self.risk {
            seen.push(risk.name());
        }
        if verdict.freeze && !self.frozen {
            seen.push("frozen");
        }
        (self.risk, self.frozen) = (risk, self.frozen || verdict.freeze);
        if seen.is_empty() { "calm".into() } else { seen.join(" ") }
    }

    fn gets(&mut self, at: Time, amount: &str) -> Verdict {
        let (amount, dust_below) = (amount.parse().unwrap(), "0.01".parse().unwrap());
        let history = History::of(self.earlier.iter().copied(), at, dust_below);
        self.earlier.push((at, amount));
        risk::incoming(&history, amount, dust_below)
    }

    fn sends(&self, units: &str, tx_hash: Hash) -> Verdict {
        let transfer = Transfer { key: TransferKey { tx_hash, ordinal: 0 }, from: OURS, to: THEIRS, value: units.parse().unwrap() };
        risk::outgoing(self.kind, &transfer, &HashSet::from([Hash([8; 32]), Hash([9; 32])]))
    }
}

fn notice(act: &str, address: Address, whose: Whose) -> Verdict {
    let notice = match act {
        "blacklists" => TokenNotice::Blacklisted(address),
        "unblacklists" => TokenNotice::Unblacklisted(address),
        "destroys" => TokenNotice::FundsDestroyed { address, value: Raw::from_units(5) },
        "pauses" => TokenNotice::Paused,
        "unpauses" => TokenNotice::Unpaused,
        "deprecates" => TokenNotice::Deprecated { successor: address },
        _ => panic!("the issuer {act}?"),
    };
    risk::notice(&notice, whose)
}

#[track_caller]
fn check(sentence: &str, kind: WalletKind, table: &str) {
    let mut wallet = Wallet { kind, risk: RiskLevel::Low, frozen: false, earlier: Vec::new() };
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (step, seen) = line.split_once('|').unwrap();
        let step = step.trim();
        expected.push(format!("{step} | {}", seen.trim()));
        got.push(format!("{step} | {}", wallet.step(step)));
    }
    assert!(expected == got, "\n{sentence}\nexpected\n{}\n\ngot\n{}\n", expected.join("\n"), got.join("\n"));
}

#[test]
fn an_amount_is_unusual_beside_what_came_before() {
    check(
        "more than ten times the largest of at least five, and more than 1,000",
        WalletKind::Random,
        "
        1 10:00 gets 200            | calm
        2 10:00 gets 50             | calm
        3 10:00 gets 20             | calm
        4 10:00 gets 20             | calm
        5 10:00 gets 20             | calm
        6 10:00 gets 2000           | calm
        6 11:00 gets 20000.000001   | unusual_amount
        6 12:00 gets 20000.000001   | calm
        ",
    );
    check(
        "the first five are compared with nothing",
        WalletKind::Random,
        "
        1 10:00 gets 1              | calm
        2 10:00 gets 1              | calm
        3 10:00 gets 1              | calm
        4 10:00 gets 1              | calm
        5 10:00 gets 5000           | calm
        ",
    );
    check(
        "small money is never unusual, however much more than before it is",
        WalletKind::Random,
        "
        1 10:00 gets 1 times 5      | calm
        2 10:00 gets 999            | calm
        3 10:00 gets 1000           | calm
        3 10:00 gets 10000.000001   | unusual_amount
        ",
    );
    check(
        "five are enough, and exactly the limit of dust is not dust",
        WalletKind::Random,
        "
        1 10:00 gets 0.01 times 5   | calm
        2 10:00 gets 1000.000001    | unusual_amount
        ",
    );
    check(
        "exactly 1,000 is small",
        WalletKind::Random,
        "
        1 10:00 gets 1 times 5      | calm
        2 10:00 gets 1000           | calm
        ",
    );
    check(
        "dust is nothing to compare with",
        WalletKind::Random,
        "
        1 10:00 gets 0.001 times 9  | calm
        2 10:00 gets 50 times 4     | calm
        3 10:00 gets 9000           | calm
        ",
    );
    check(
        "a wallet that saw the largest there is finds nothing unusual",
        WalletKind::Random,
        "
        1 10:00 gets 9000000000000 times 5  | calm
        2 10:00 gets 9000000000000          | calm
        ",
    );
}

#[test]
fn a_flood_of_dust_is_counted_in_a_day_of_block_time() {
    check(
        "more than twenty within 24 hours; the wallet is watched from then on",
        WalletKind::Random,
        "
        1 10:00 gets 0.001 times 20     | calm
        1 11:00 gets 0.01               | calm
        1 12:00 gets 0.009999           | dust_flood watch
        1 13:00 gets 0                  | dust_flood
        2 09:59 gets 0.001              | dust_flood
        2 10:00 gets 0.001              | calm
        ",
    );
    check(
        "exactly 24 hours is outside, a minute less is not",
        WalletKind::Random,
        "
        1 10:00 gets 0.001              | calm
        1 10:01 gets 0.001 times 19     | calm
        2 10:00 gets 0.001              | calm
        2 10:00 gets 0.001              | dust_flood watch
        ",
    );
    check(
        "a person's word is not the last one while it goes on",
        WalletKind::Random,
        "
        1 10:00 gets 0.001 times 21     | dust_flood watch
        lowered                         | calm
        1 10:00 gets 0.001              | dust_flood watch
        ",
    );
}

#[test]
fn a_flood_is_one_alert_a_day() {
    let wallet = WalletId::new(Time::from_secs(5), [7; 10]);
    let at = |text: &str| risk::flood_about(wallet, text.parse().unwrap());
    assert_eq!(at("2026-03-01T00:00:00Z"), format!("{wallet} 2026-03-01"));
    assert_eq!(at("2026-03-01T00:00:00Z"), at("2026-03-01T23:59:59.999Z"));
    assert_ne!(at("2026-03-01T23:59:59.999Z"), at("2026-03-02T00:00:00Z"));
}

#[test]
fn money_leaves_by_our_sweeps_only() {
    for kind in [WalletKind::Random, WalletKind::Hd, WalletKind::Imported] {
        check(
            "a key that signs elsewhere too is not ours alone any more",
            kind,
            "
            1 10:00 gets 20             | calm
            1 11:00 sends 5 signed      | calm
            1 12:00 sends 0             | calm
            1 13:00 sends 1             | money_left blocked frozen
            1 14:00 sends 9             | money_left
            lowered                     | calm
            1 15:00 sends 9             | money_left blocked frozen
            ",
        );
    }
    check(
        "the owner of a watched wallet moves its money; that is told, and no more",
        WalletKind::Watch,
        "
        1 10:00 sends 5             | money_left
        1 11:00 sends 0             | calm
        1 12:00 sends 5 signed      | calm
        ",
    );
}

#[test]
fn what_the_issuer_says() {
    check(
        "our own address",
        WalletKind::Random,
        "
        1 10:00 issuer blacklists ours      | address_blacklisted blocked frozen
        2 10:00 issuer destroys ours        | funds_destroyed
        3 10:00 issuer unblacklists ours    | calm
        ",
    );
    check(
        "money destroyed without a word before",
        WalletKind::Random,
        "
        1 10:00 issuer destroys ours        | funds_destroyed blocked frozen
        ",
    );
    check(
        "somebody who paid here, and somebody who did not",
        WalletKind::Imported,
        "
        1 10:00 issuer blacklists stranger  | calm
        1 11:00 issuer destroys stranger    | calm
        1 12:00 issuer blacklists payer     | payer_blacklisted high
        2 10:00 issuer unblacklists payer   | calm
        3 10:00 issuer destroys payer       | payer_blacklisted
        4 10:00 issuer unblacklists stranger | calm
        ",
    );
    check(
        "the whole token",
        WalletKind::Random,
        "
        1 10:00 issuer pauses               | token_paused
        1 11:00 issuer unpauses             | calm
        1 12:00 issuer deprecates           | token_deprecated
        ",
    );
}

#[test]
fn risk_only_rises_by_itself() {
    check(
        "what is worse stays",
        WalletKind::Random,
        "
        1 10:00 gets 0.001 times 21         | dust_flood watch
        1 11:00 issuer blacklists payer     | payer_blacklisted high
        1 12:00 gets 0.001                  | dust_flood
        1 13:00 sends 5                     | money_left blocked frozen
        1 14:00 issuer blacklists payer     | payer_blacklisted
        1 15:00 issuer unblacklists ours    | calm
        ",
    );
    for current in RiskLevel::ALL {
        for to in RiskLevel::ALL {
            let raised = risk::raise(*current, *to);
            assert!(raised >= *current && raised >= *to && (raised == *current || raised == *to));
        }
    }
}

#[test]
fn a_payer_is_remembered_for_ninety_days() {
    let paid_at = Time::from_secs(1_000);
    let last = paid_at.plus(risk::PAYER_RECENT);
    assert_eq!(Whose::payer(paid_at, last), Whose::Payer);
    assert_eq!(Whose::payer(paid_at, last.plus(Span::from_millis(1))), Whose::Stranger);
    assert_eq!(Whose::payer(last, paid_at), Whose::Payer, "paid in a later block of the same pass");
}

#[test]
fn a_notice_concerns_an_address_or_the_token() {
    let value = Raw::from_units(1);
    assert_eq!(risk::concerns(&TokenNotice::Blacklisted(OURS)), Some(OURS));
    assert_eq!(risk::concerns(&TokenNotice::Unblacklisted(OURS)), Some(OURS));
    assert_eq!(risk::concerns(&TokenNotice::FundsDestroyed { address: OURS, value }), Some(OURS));
    for notice in [TokenNotice::Paused, TokenNotice::Unpaused, TokenNotice::Deprecated { successor: OURS }] {
        assert_eq!(risk::concerns(&notice), None);
    }
}

#[test]
fn nothing_is_the_default() {
    assert_eq!(Verdict::default(), Verdict { alerts: Vec::<AlertKind>::new(), risk: None, freeze: false });
}
