//! # Leases and wallets

use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::id::OrderId;
use tidegate_rules::lease::{self, Claim, Incoming, Window};
use tidegate_rules::order::Mark;
use tidegate_rules::time::{Span, Time};

use crate::table::{check, check_single};

#[test]
fn a_lease_ends_when_the_order_is_over_and_its_window_has_settled() {
    check(
        "A lease ends (to = the settled head then) only when its order is paid, expired or cancelled and the settled head of its network has passed expires_at + late window",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        block 10 @ 30: pays 12.5                        | confirming 12.5 / 0 order.confirming
        block 11                                        | paid 12.5 / 12.5 order.paid
        block 12 @ 150                                  | paid 12.5 / 12.5
        block 13 @ 150                                  | paid 12.5 / 12.5
        show leases                                     | paid 12.5 / 12.5 w1 tron (0, …]
        block 14 @ 151                                  | paid 12.5 / 12.5
        show leases                                     | paid 12.5 / 12.5 w1 tron (0, …]
        block 15                                        | paid 12.5 / 12.5
        show leases                                     | paid 12.5 / 12.5 w1 tron (0, 14]
        ",
    );
    check(
        "each network by its own settled head, and not before the order is over",
        "
        order 12.5 tron,ethereum depth 1 expires 100    | pending 0 / 0
        block tron 10 @ 200                             | pending 0 / 0
        show leases                                     | pending 0 / 0 w1 tron (0, …], w2 ethereum (0, …]
        block ethereum 5 @ 90                           | pending 0 / 0
        cancel                                          | cancelled 0 / 0 order.cancelled
        show leases                                     | cancelled 0 / 0 w1 tron (0, 10], w2 ethereum (0, …]
        block ethereum 6 @ 101                          | cancelled 0 / 0
        show leases                                     | cancelled 0 / 0 w1 tron (0, 10], w2 ethereum (0, 6]
        ",
    );
}

#[test]
fn inside_a_lease_the_blocks_time_decides() {
    check(
        "to never decides: money in time, found under the end of the lease, is still the order's",
        "
        order 12.5 tron depth 1 expires 100 late 20     | pending 0 / 0
        block 9 @ 90                                    | pending 0 / 0
        block 10 @ 121                                  | expired 0 / 0 order.expired
        show leases                                     | expired 0 / 0 w1 tron (0, 10]
        # height 11 is above the end of the lease
        fork 10 @ 95; 11 @ 96: pays 5 as a; 12 @ 110: pays 1 as b | expired late 5 / 5 order.underpaid order.late_payment alert.late_money
        show transfers                                  | expired late 5 / 5 a confirmed matched, b confirmed late
        ",
    );
}

#[test]
fn the_next_lease_of_the_same_wallet() {
    check(
        "Cooldown runs from there on the same chain; for a wallet that was leased, from = the new order's settled head at allocation",
        "
        order a 5 tron depth 2 expires 100 late 20 cooldown 30 | pending 0 / 0
        blocks 10 11 @ 60: pays 5                       | confirming 5 / 0 order.confirming
        block 12 @ 121                                  | paid 5 / 5 order.paid
        block 13 @ 122                                  | paid 5 / 5
        show leases                                     | paid 5 / 5 w1 tron (0, 12]
        # settled at 122: 121 + 30 is not over
        block 14 @ 151                                  | paid 5 / 5
        order b 7 tron depth 2 expires 300 late 20 cooldown 30 | a paid 5 / 5 ; b pending 0 / 0
        show leases b                                   | a paid 5 / 5 ; b pending 0 / 0 w2 tron (0, …]
        block 15 @ 152                                  | a paid 5 / 5 ; b pending 0 / 0
        order c 8 tron depth 2 expires 300              | a paid 5 / 5 ; b pending 0 / 0 ; c pending 0 / 0
        show leases c                                   | a paid 5 / 5 ; b pending 0 / 0 ; c pending 0 / 0 w1 tron (14, …]
        block 16: c pays 8                              | a paid 5 / 5 ; b pending 0 / 0 ; c confirming 8 / 0 c:order.confirming
        block 17                                        | a paid 5 / 5 ; b pending 0 / 0 ; c paid 8 / 8 c:order.paid
        ",
    );
    check(
        "the settled head by the new order's own terms, but never under the end of the last lease",
        "
        order a 5 tron depth 1 expires 100              | pending 0 / 0
        block 10 @ 50                                   | pending 0 / 0
        block 11 @ 101                                  | expired 0 / 0 order.expired
        blocks 12 13                                    | expired 0 / 0
        order b 5 tron depth 3 expires 300              | a expired 0 / 0 ; b pending 0 / 0
        show leases b                                   | a expired 0 / 0 ; b pending 0 / 0 w1 tron (11, …]
        ",
    );
    check(
        "money for the former order never pays the next one",
        "
        order a 5 tron depth 1 expires 100 late 20      | pending 0 / 0
        block 10 @ 50                                   | pending 0 / 0
        block 11 @ 110: pays 5 as x                     | expired late 0 / 0 order.expired order.late_payment alert.late_money
        block 12 @ 121                                  | expired late 0 / 0
        order b 5 tron depth 1 expires 300              | a expired late 0 / 0 ; b pending 0 / 0
        show leases b                                   | a expired late 0 / 0 ; b pending 0 / 0 w1 tron (12, …]
        # the same transfer again, in a block of the new lease: it stays with the order it came for
        fork 11 @ 121; 12; 13: again x                  | a expired late 0 / 0 ; b pending 0 / 0
        show transfers a                                | a expired late 0 / 0 ; b pending 0 / 0 x confirmed late
        ",
    );
}

#[test]
fn a_wallet_with_money_above_its_start_is_not_allocatable() {
    check(
        "A wallet with a standing transfer above that height is not allocatable",
        "
        order a 5 tron depth 3 expires 100              | pending 0 / 0
        block 10 @ 101                                  | pending 0 / 0
        blocks 11 12                                    | expired 0 / 0 order.expired
        blocks 13: wallet w1 gets 4 as x                | expired 0 / 0 stray 4
        order b 5 tron depth 3 expires 300              | a expired 0 / 0 ; b pending 0 / 0
        show leases b                                   | a expired 0 / 0 ; b pending 0 / 0 w2 tron (0, …]
        blocks 14 15                                    | a expired 0 / 0 ; b pending 0 / 0
        order c 5 tron depth 3 expires 300              | a expired 0 / 0 ; b pending 0 / 0 ; c pending 0 / 0
        show leases c                                   | a expired 0 / 0 ; b pending 0 / 0 ; c pending 0 / 0 w1 tron (13, …]
        ",
    );
}

#[test]
fn from_zero_only_for_a_fresh_random_key() {
    check(
        "from = 0 only for a wallet with a random key made here, never leased, without any recorded transfer",
        "
        wallet random tron                              |
        wallet imported tron                            |
        block tron 10 @ 30                              |
        order a 5 tron expires 100                      | pending 0 / 0
        show leases a                                   | pending 0 / 0 w1 tron (0, …]
        order b 5 tron expires 100                      | a pending 0 / 0 ; b pending 0 / 0
        show leases b                                   | a pending 0 / 0 ; b pending 0 / 0 w2 tron (10, …]
        ",
    );
    check(
        "a random key that was paid to before is not fresh",
        "
        wallet random tron                              |
        block tron 10 @ 30: wallet w1 gets 5            | stray 5
        block tron 11                                   |
        order a 5 tron expires 100                      | pending 0 / 0
        show leases a                                   | pending 0 / 0 w1 tron (11, …]
        ",
    );
    check(
        "an imported key is not leased before there is a settled head: its history would be the order's",
        "
        wallet imported tron                            |
        order a 5 tron expires 100                      | pending 0 / 0
        show leases a                                   | pending 0 / 0 w2 tron (0, …]
        ",
    );
    let mark = Some(Mark { number: 70, time: Time::from_secs(700) });
    assert_eq!(lease::start(true, None, None), Some(0));
    assert_eq!(lease::start(true, mark, None), Some(0));
    assert_eq!(lease::start(false, mark, None), Some(70));
    assert_eq!(lease::start(false, mark, Some(80)), Some(80));
    assert_eq!(lease::start(false, mark, Some(60)), Some(70));
    assert_eq!(lease::start(false, None, Some(60)), None);
    assert_eq!(lease::start(false, None, None), None);
}

#[test]
fn random_keys_never_leased_first_then_the_longest_rested() {
    check_single(
        "Allocation: random-key wallets never leased first, then the longest rested",
        "
        order a 5 tron expires 100                      | pending 0 / 0
        order b 5 tron expires 110                      | a pending 0 / 0 ; b pending 0 / 0
        block 10 @ 90                                   | a pending 0 / 0 ; b pending 0 / 0
        block 11 @ 105                                  | a expired 0 / 0 ; b pending 0 / 0 a:order.expired
        block 12 @ 115                                  | a expired 0 / 0 ; b expired 0 / 0 b:order.expired
        wallet random tron                              | a expired 0 / 0 ; b expired 0 / 0
        block 13 @ 120                                  | a expired 0 / 0 ; b expired 0 / 0
        order c 5 tron expires 400                      | a expired 0 / 0 ; b expired 0 / 0 ; c pending 0 / 0
        show leases c                                   | a expired 0 / 0 ; b expired 0 / 0 ; c pending 0 / 0 w3 tron (0, …]
        order d 5 tron expires 400                      | a expired 0 / 0 ; b expired 0 / 0 ; c pending 0 / 0 ; d pending 0 / 0
        show leases d                                   | a expired 0 / 0 ; b expired 0 / 0 ; c pending 0 / 0 ; d pending 0 / 0 w1 tron (13, …]
        ",
    );
}

/// [`lease::claim`] at its boundaries: two leases of one wallet, heights and times.
#[test]
fn claims() {
    let order = |n: u8| OrderId::new(Time::from_secs(1), [n; 10]);
    let secs = Time::from_secs;
    let window = |n, from, expires| Window { order: order(n), from, expires_at: secs(expires), late_window: Span::from_secs(50) };
    let leases = [window(2, 40, 300), window(1, 10, 100)];
    let claim = |number, time, units: u128, from_own| {
        let value = Raw::from_units(units);
        let transfer = Incoming { value, decimals: 6, number, time: secs(time), from_own };
        match lease::claim(&leases, &transfer, Amount::from_micros(100)) {
            Claim::Order(id) => format!("on time for {}", if id == order(1) { 1 } else { 2 }),
            Claim::Late(id) => format!("late for {}", if id == order(1) { 1 } else { 2 }),
            other => format!("{other:?}").to_lowercase(),
        }
    };
    let table = [
        (10, 50, 100, "stray"),
        (10, 50, 99, "dust"),
        (11, 50, 1, "on time for 1"),
        (11, 100, 1, "on time for 1"),
        (11, 101, 1, "late for 1"),
        (11, 150, 1, "late for 1"),
        (11, 151, 100, "stray"),
        (40, 151, 100, "stray"),
        (40, 100, 100, "on time for 1"),
        (41, 100, 100, "on time for 2"),
        (41, 300, 100, "on time for 2"),
        (41, 301, 100, "late for 2"),
        (99, 350, 100, "late for 2"),
        (99, 351, 99, "dust"),
        (99, 351, u128::MAX, "unreadable"),
        (41, 300, 9_000_000_000_000_000_000, "on time for 2"),
        (41, 300, 9_000_000_000_000_000_001, "unreadable"),
    ];
    for (number, time, units, expected) in table {
        assert_eq!(claim(number, time, units, false), expected, "block {number} @ {time}, {units} units");
    }
    assert_eq!(claim(41, 100, 100, true), "own");
    assert_eq!(claim(41, 100, 1, true), "own", "own money is never dust");
}

#[test]
fn may_end_at_its_boundaries() {
    use tidegate_rules::order::Terms;
    let terms = Terms {
        purpose: tidegate_rules::order::Purpose::Payment,
        amount: Amount::from_micros(1),
        tolerance: Amount::ZERO,
        expires_at: Time::from_secs(100),
        late_window: Span::from_secs(50),
        accept_late: false,
        cooldown: Span::ZERO,
        depths: std::collections::BTreeMap::new(),
    };
    let at = |secs| Some(Mark { number: 9, time: Time::from_secs(secs) });
    assert!(!lease::may_end(true, &terms, None));
    assert!(!lease::may_end(true, &terms, at(150)));
    assert!(lease::may_end(true, &terms, at(151)));
    assert!(!lease::may_end(false, &terms, at(151)));
}
