//! # Exception and events

use crate::table::{check, check_single};

#[test]
fn the_last_exception_is_shown() {
    check(
        "When several apply, the last of underpaid, overpaid, late, manual, reverted is shown: late over underpaid",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        block 10 @ 30: pays 5                           | pending underpaid 5 / 0 order.underpaid
        blocks 11 12 @ 101                              | expired underpaid 5 / 5 order.expired alert.expired_underpaid
        block 13: pays 1                                | expired late 5 / 5
        block 14                                        | expired late 5 / 5 order.late_payment alert.late_money
        ",
    );
    check(
        "late over overpaid",
        "
        order 12.5 tron depth 1 expires 100 late 50 accept | pending 0 / 0
        block 10 @ 30: pays 5                           | pending underpaid 5 / 5 order.underpaid
        block 11 @ 110: pays 20                         | paid late 25 / 25 order.expired order.late_payment order.paid order.overpaid alert.expired_underpaid
        ",
    );
    check(
        "manual over overpaid, reverted over manual",
        "
        order 12.5 tron,ethereum depth 1 expires 100    | pending 0 / 0
        block ethereum 9                                | pending 0 / 0
        block tron 9 @ 200: wallet w1 gets 20 as x      | pending 0 / 0 stray 20
        block tron 10                                   | pending 0 / 0
        confirm with x                                  | paid manual 20 / 20 order.paid order.overpaid
        fork tron 10 @ 210                              | paid manual 20 / 20
        ",
    );
    check(
        "reverted over manual",
        "
        order 12.5 tron,ethereum depth 1 expires 100    | pending 0 / 0
        block tron 9 @ 200                              | pending 0 / 0
        block tron 10: wallet w1 gets 20 as x           | pending 0 / 0 stray 20
        confirm with x                                  | paid manual 20 / 20 order.paid order.overpaid
        fork tron 10 @ 210                              | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        ",
    );
}

#[test]
fn the_exceptions() {
    check(
        "overpaid: paid, and settled counted money exceeds the amount (not: received)",
        "
        order 12.5 tron depth 2                         | pending 0 / 0
        block 10 @ 30: pays 12.5                        | confirming 12.5 / 0 order.confirming
        block 11: pays 1                                | paid 13.5 / 12.5 order.paid
        block 12                                        | paid overpaid 13.5 / 13.5 order.overpaid
        ",
    );
    check(
        "late: late money on an expired or cancelled order, not on one that is pending or paid by money in time",
        "
        order 12.5 tron,ethereum depth 1 expires 100 late 50 | pending 0 / 0
        block tron 10 @ 110: pays 3                     | pending 0 / 0 order.late_payment alert.late_money
        block ethereum 10 @ 90: pays 12.5               | paid 12.5 / 12.5 order.confirming order.paid
        ",
    );
}

#[test]
fn underpaid_each_time_it_rises_and_is_still_below() {
    check(
        "order.underpaid each time amount_received rises and is still below due",
        "
        order 12.5 tron depth 2                         | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 5 as a                      | pending underpaid 5 / 0 order.underpaid
        block 11: pays 1 as b                           | pending underpaid 6 / 5 order.underpaid
        block 12                                        | pending underpaid 6 / 6
        fork 11 @ 40; 12: pays 1 as c                   | pending underpaid 6 / 5
        fork 12                                         | pending underpaid 5 / 5
        block 13: again b                               | pending underpaid 6 / 5 order.underpaid
        block 14: pays 6.5                              | confirming 12.5 / 6 order.confirming
        ",
    );
}

#[test]
fn confirming_on_entering_it() {
    check(
        "order.confirming on entering it, each time",
        "
        order 12.5 tron depth 4                         | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 12.5 as a                   | confirming 12.5 / 0 order.confirming
        block 11: pays 1                                | confirming 13.5 / 0
        fork 10                                         | pending 0 / 0
        block 11: again a                               | confirming 12.5 / 0 order.confirming
        blocks 12..14                                   | paid 12.5 / 12.5 order.paid
        ",
    );
}

#[test]
fn overpaid_each_time_the_excess_grows() {
    check(
        "order.overpaid each time the settled excess grows, after order.paid",
        "
        order 12.5 tron depth 2                         | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 13                          | confirming 13 / 0 order.confirming
        block 11: pays 1                                | paid overpaid 14 / 13 order.paid order.overpaid
        block 12: pays 2 as c                           | paid overpaid 16 / 14 order.overpaid
        block 13                                        | paid overpaid 16 / 16 order.overpaid
        block 14                                        | paid overpaid 16 / 16
        # taken back and returned: the shop knows of it already
        fork 12                                         | paid overpaid 14 / 14
        show confirmations                              | paid overpaid 14 / 14 2
        block 13: again c                               | paid overpaid 16 / 14
        block 14: pays 0.000001                         | paid overpaid 16.000001 / 16
        block 15                                        | paid overpaid 16.000001 / 16.000001 order.overpaid
        ",
    );
    check(
        "one growth for each block that settles, however many settle in one step",
        "
        order 12.5 tron depth 5                         | pending 0 / 0
        block 10 @ 30: pays 12.5                        | confirming 12.5 / 0 order.confirming
        block 11: pays 1, pays 2                        | confirming 15.5 / 0
        block 12: pays 1                                | confirming 16.5 / 0
        blocks 13..16                                   | paid overpaid 16.5 / 16.5 order.paid order.overpaid order.overpaid
        ",
    );
}

#[test]
fn the_other_networks_do_not_disturb_the_order_of_events() {
    check(
        "each growth of the excess, although another network is past the deadline for long",
        "
        order 12.5 tron,ethereum depth 1 expires 100    | pending 0 / 0
        block ethereum 9 @ 101; 10 @ 110; 11 @ 120      | pending 0 / 0
        block tron 10 @ 30: pays 13; 11: pays 2         | paid overpaid 15 / 15 order.confirming order.paid order.overpaid order.overpaid
        ",
    );
    check(
        "expired, then paid late: by the network that moves",
        "
        order 12.5 tron,ethereum depth 1 expires 100 late 50 accept | pending 0 / 0
        block ethereum 9 @ 101; 10 @ 110; 11 @ 120      | pending 0 / 0
        block tron 10 @ 101; 11: pays 5; 12: pays 7.5; 13 | paid late 12.5 / 12.5 order.expired order.late_payment order.late_payment order.paid alert.late_money
        ",
    );
}

#[test]
fn late_payment_once_per_late_transfer_when_it_settles() {
    check(
        "order.late_payment once per late transfer when it settles, counted or not, before the order.paid it causes",
        "
        order 12.5 tron depth 2 expires 100 late 50 accept | pending 0 / 0
        blocks 10 11 @ 101                              | expired 0 / 0 order.expired
        block 12: pays 2, pays 3                        | expired late 0 / 0
        block 13                                        | expired late 0 / 0 order.late_payment order.late_payment alert.late_money alert.late_money
        block 14: pays 7.5                              | expired late 0 / 0
        block 15                                        | paid late 12.5 / 12.5 order.late_payment order.paid
        block 16: pays 1                                | paid late 12.5 / 12.5
        block 17                                        | paid late 12.5 / 12.5 order.late_payment alert.late_money
        ",
    );
    check(
        "once per transfer: not again when it is taken back and returned",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        blocks 10 11 @ 101                              | expired 0 / 0 order.expired
        block 12: pays 2 as x                           | expired late 0 / 0
        block 13                                        | expired late 0 / 0 order.late_payment alert.late_money
        fork 12                                         | expired 0 / 0
        block 13: again x                               | expired late 0 / 0
        block 14                                        | expired late 0 / 0
        show transfers                                  | expired late 0 / 0 x confirmed late
        ",
    );
}

#[test]
fn expired_and_cancelled_once() {
    check(
        "order.paid once for ever; order.expired once; order.cancelled once",
        "
        order a 12.5 tron depth 2 expires 100           | pending 0 / 0
        order b 1 tron depth 2 expires 100              | a pending 0 / 0 ; b pending 0 / 0
        cancel b                                        | a pending 0 / 0 ; b cancelled 0 / 0 b:order.cancelled
        cancel b                                        | a pending 0 / 0 ; b cancelled 0 / 0
        block 9                                         | a pending 0 / 0 ; b cancelled 0 / 0
        blocks 10 11 @ 101                              | a expired 0 / 0 ; b cancelled 0 / 0 a:order.expired
        # a fork takes the settled chain back before the deadline, and the order to it again
        fork 10 @ 90; 11 12                             | a expired 0 / 0 ; b cancelled 0 / 0
        blocks 13 14 @ 101                              | a expired 0 / 0 ; b cancelled 0 / 0
        ",
    );
}

/// One commit for many blocks sees one rise where a walk sees two: the one difference between the
/// ways of being fed.
#[test]
fn a_walk_tells_every_rise() {
    check_single(
        "order.underpaid each time amount_received rises",
        "
        order 12.5 tron depth 3                         | pending 0 / 0
        block 10: pays 5; 11: pays 1; 12: pays 6.5      | confirming 12.5 / 5 order.underpaid order.underpaid order.confirming
        ",
    );
}
