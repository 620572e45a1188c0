//! # Which changes of a wallet's status are legal
//!
//! Every cell, and what follows from all of them together.

use std::collections::BTreeSet;

use tidegate_rules::wallet::{self, Illegal, LeaseFact, RiskLevel, WalletStatus};

const LEASES: [(LeaseFact, &str); 3] = [(LeaseFact::Live, "live"), (LeaseFact::Resting, "resting"), (LeaseFact::Free, "free")];

fn lease(name: &str) -> LeaseFact {
    LEASES.iter().find(|lease| lease.1 == name).unwrap_or_else(|| panic!("a lease that is {name}?")).0
}

fn status(name: &str) -> WalletStatus {
    WalletStatus::from_name(name).unwrap_or_else(|| panic!("a status {name}?"))
}

/// What comes of it, in a word.
fn said(result: Result<WalletStatus, Illegal>) -> &'static str {
    match result {
        Ok(status) => status.name(),
        Err(Illegal::NotByHand) => "NOT_BY_HAND",
        Err(Illegal::Already) => "ALREADY",
        Err(Illegal::InUse) => "IN_USE",
        Err(Illegal::NotFrom { .. }) => "NOT_FROM",
    }
}

#[test]
fn what_a_person_may_ask() {
    let table = "
        is         lease   | available  occupied     cooldown  disabled  frozen  | release
        available  free    | ALREADY    NOT_BY_HAND  cooldown  disabled  frozen  | ALREADY
        available  resting | ALREADY    NOT_BY_HAND  cooldown  disabled  frozen  | ALREADY
        available  live    | ALREADY    NOT_BY_HAND  IN_USE    disabled  frozen  | IN_USE
        occupied   free    | IN_USE     NOT_BY_HAND  IN_USE    disabled  frozen  | IN_USE
        occupied   resting | IN_USE     NOT_BY_HAND  IN_USE    disabled  frozen  | IN_USE
        occupied   live    | IN_USE     NOT_BY_HAND  IN_USE    disabled  frozen  | IN_USE
        cooldown   free    | available  NOT_BY_HAND  ALREADY   disabled  frozen  | available
        cooldown   resting | available  NOT_BY_HAND  ALREADY   disabled  frozen  | available
        cooldown   live    | IN_USE     NOT_BY_HAND  ALREADY   disabled  frozen  | IN_USE
        disabled   free    | available  NOT_BY_HAND  NOT_FROM  ALREADY   frozen  | NOT_FROM
        disabled   resting | cooldown   NOT_BY_HAND  NOT_FROM  ALREADY   frozen  | NOT_FROM
        disabled   live    | occupied   NOT_BY_HAND  NOT_FROM  ALREADY   frozen  | IN_USE
        frozen     free    | available  NOT_BY_HAND  NOT_FROM  disabled  ALREADY | NOT_FROM
        frozen     resting | cooldown   NOT_BY_HAND  NOT_FROM  disabled  ALREADY | NOT_FROM
        frozen     live    | occupied   NOT_BY_HAND  NOT_FROM  disabled  ALREADY | IN_USE";
    let mut lines = table.lines().map(|line| line.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>());
    let asked = lines.find(|line| !line.is_empty()).unwrap()[2..7].to_vec();
    let (mut wrong, mut cells) = (Vec::new(), 0);
    for line in lines {
        let (from, fact) = (status(line[0]), lease(line[1]));
        for (to, expected) in asked.iter().zip(&line[2..7]) {
            cells += 1;
            let got = said(wallet::change(from, status(to), fact));
            if got != *expected {
                wrong.push(format!("{} → {to}, {}: expected {expected}, got {got}", line[0], line[1]));
            }
        }
        let got = said(wallet::release(from, fact));
        if got != line[7] {
            wrong.push(format!("{} released, {}: expected {}, got {got}", line[0], line[1], line[7]));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert_eq!(cells, WalletStatus::ALL.len() * WalletStatus::ALL.len() * LEASES.len());
}

#[test]
fn what_happens_by_itself() {
    let table = "
        is        | lent      lease ends  has rested
        available | occupied  available   available
        occupied  | no        cooldown    occupied
        cooldown  | no        cooldown    available
        disabled  | no        disabled    disabled
        frozen    | no        frozen      frozen";
    let lines: Vec<Vec<_>> = table.lines().skip(2).map(|line| line.split_whitespace().filter(|word| *word != "|").collect()).collect();
    assert_eq!(lines.len(), WalletStatus::ALL.len());
    for line in lines {
        let is = status(line[0]);
        let lent = wallet::leased(is).map_or("no", WalletStatus::name);
        assert_eq!([lent, wallet::lease_ended(is).name(), wallet::rested(is).name()], line[1..], "{}", line[0]);
    }
}

#[test]
fn which_wallets_may_be_leased() {
    let mut may = Vec::new();
    for status in WalletStatus::ALL {
        for risk in RiskLevel::ALL {
            if wallet::may_lease(*status, *risk) {
                may.push((status.name(), risk.name()));
            }
        }
    }
    assert_eq!(may, [("available", "low"), ("available", "watch")]);
}

#[test]
fn refusals_say_what_to_do() {
    let not_from = wallet::change(status("frozen"), status("cooldown"), LeaseFact::Free).unwrap_err();
    assert_eq!(not_from.to_string(), "a wallet does not go from frozen to cooldown by hand");
    assert!(Illegal::InUse.to_string().contains("leased"));
}

/// Where a wallet is, and what its lease says.
type Place = (&'static str, &'static str);

fn names(status: WalletStatus, fact: LeaseFact) -> Place {
    (status.name(), LEASES.iter().find(|lease| lease.0 == fact).unwrap().1)
}

/// Everything that can happen to a wallet next, by a person and by itself.
fn next((is, says): Place) -> Vec<Place> {
    let (is, fact) = (status(is), lease(says));
    let by_hand = WalletStatus::ALL.iter().map(|to| wallet::change(is, *to, fact)).chain([wallet::release(is, fact)]);
    let mut places: Vec<Place> = by_hand
        .filter_map(Result::ok)
        .map(|to| match to {
            // Sent to rest; or a rest cut short, unless it is the end of `disabled` or `frozen`.
            WalletStatus::Cooldown => names(to, LeaseFact::Resting),
            WalletStatus::Available => names(to, LeaseFact::Free),
            _ => names(to, fact),
        })
        .collect();
    match fact {
        LeaseFact::Free => places.extend(wallet::leased(is).map(|to| names(to, LeaseFact::Live))),
        LeaseFact::Live => places.push(names(wallet::lease_ended(is), LeaseFact::Resting)),
        LeaseFact::Resting => places.push(names(wallet::rested(is), LeaseFact::Free)),
    }
    places
}

/// A law: whatever people do, in whatever order, a wallet with a live lease is occupied or out of
/// use, never free, and one that may be lent has rested.
#[test]
fn no_sequence_of_changes_frees_a_wallet_under_a_live_lease() {
    let mut reached = BTreeSet::new();
    let mut ahead = vec![("available", "free")];
    while let Some(place) = ahead.pop() {
        if reached.insert(place) {
            ahead.extend(next(place));
        }
    }
    let reached: Vec<_> = reached.into_iter().map(|(status, lease)| format!("{status} {lease}")).collect();
    assert_eq!(
        reached,
        [
            "available free",
            "cooldown resting",
            "disabled free",
            "disabled live",
            "disabled resting",
            "frozen free",
            "frozen live",
            "frozen resting",
            "occupied live",
        ]
    );
}

/// The same law for people alone, even from places that no wallet should be in.
#[test]
fn nobody_makes_a_wallet_with_a_live_lease_available() {
    for from in WalletStatus::ALL {
        for to in WalletStatus::ALL {
            assert_ne!(wallet::change(*from, *to, LeaseFact::Live), Ok(WalletStatus::Available));
        }
        assert_eq!(wallet::release(*from, LeaseFact::Live), Err(Illegal::InUse));
    }
}
