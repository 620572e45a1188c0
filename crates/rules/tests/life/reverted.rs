//! # Reverted

use crate::table::check;

#[test]
fn marked_when_orphaning_leaves_its_standing_money_below_due() {
    check(
        "an order paid with fewer than final blocks is marked reverted when orphaning leaves its standing money below due, with order.payment_reverted and an alert; it stays paid",
        "
        order 12.5 tron depth 1                         | pending 0 / 0
        blocks 8 9                                      | pending 0 / 0
        block 10 @ 30: pays 12 as a                     | pending underpaid 12 / 12 order.underpaid
        block 11: pays 0.5 as b                         | paid 12.5 / 12.5 order.confirming order.paid
        fork 11                                         | paid reverted 12 / 12 order.payment_reverted alert.payment_reverted
        show transfers                                  | paid reverted 12 / 12 a confirmed matched, b orphaned matched
        # more of the same loss is no new loss
        fork 10 @ 30; 11                                | paid reverted 0 / 0
        ",
    );
    check(
        "not while what stands still reaches due, settled or not",
        "
        order 12.5 tron depth 2 tolerance 0.5           | pending 0 / 0
        blocks 8 9                                      | pending 0 / 0
        block 10 @ 30: pays 12 as a                     | confirming 12 / 0 order.confirming
        block 11: pays 0.5 as b                         | paid 12.5 / 12 order.paid
        fork 11                                         | paid 12 / 12
        fork 10 @ 30; 11: pays 12                       | paid 12 / 0
        ",
    );
}

#[test]
fn never_for_a_bare_manual_confirmation() {
    check(
        "(never for a bare manual confirmation)",
        "
        order 12.5 tron depth 1                         | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 5 as a                      | pending underpaid 5 / 5 order.underpaid
        confirm                                         | paid manual 5 / 5 order.paid
        block 11: pays 10                               | paid manual 15 / 15 order.overpaid
        fork 10                                         | paid manual 0 / 0
        ",
    );
    check(
        "but for one by a transfer, when that is taken back: the rest does not reach due",
        "
        order 12.5 tron depth 1 expires 100             | pending 0 / 0
        block 9 @ 90                                    | pending 0 / 0
        block 10 @ 95: pays 5 as a                      | pending underpaid 5 / 5 order.underpaid
        block 11 @ 200                                  | expired underpaid 5 / 5 order.expired alert.expired_underpaid
        block 12: pays 3 as x                           | expired underpaid 5 / 5 stray 3
        confirm with x                                  | paid manual 8 / 8 order.paid
        # what else there is may come and go
        fork 10 @ 95; 11 @ 200; 12: again x             | paid manual 3 / 3
        fork 12                                         | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        block 13: again x                               | paid manual 3 / 3
        ",
    );
    check(
        "its return clears the mark once it has settled",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        block 11 @ 200                                  | pending 0 / 0
        block 12: wallet w1 gets 3 as x                 | expired 0 / 0 stray 3 order.expired
        block 13                                        | expired 0 / 0
        confirm with x                                  | paid manual 3 / 3 order.paid
        fork 12; 13                                     | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        block 14: again x                               | paid reverted 3 / 0
        block 15                                        | paid manual 3 / 3
        ",
    );
}

#[test]
fn cleared_when_settled_money_reaches_due_again() {
    check(
        "The mark is cleared when settled money on its leases reaches due again. No second order.paid; a new loss sends the event again",
        "
        order 12.5 tron depth 2 expires 900             | pending 0 / 0
        blocks 8 9                                      | pending 0 / 0
        block 10 @ 30: pays 12.5 as a                   | confirming 12.5 / 0 order.confirming
        block 11                                        | paid 12.5 / 12.5 order.paid
        fork 10; 11                                     | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        block 12: again a                               | paid reverted 12.5 / 0
        block 13                                        | paid 12.5 / 12.5
        fork 12; 13                                     | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        block 14: pays 6 as b                           | paid reverted 6 / 0
        block 15: pays 7 as c                           | paid reverted 13 / 6
        block 16                                        | paid overpaid 13 / 13 order.overpaid
        ",
    );
}

#[test]
fn late_money_clears_it_and_then_counts() {
    check(
        "on time or late (the late part then counts; exception late if it was needed), whatever accept_late says",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        blocks 8 9                                      | pending 0 / 0
        block 10 @ 30: pays 12.5 as a                   | confirming 12.5 / 0 order.confirming
        block 11                                        | paid 12.5 / 12.5 order.paid
        fork 10 @ 90: pays 5 as b; 11                   | paid reverted 5 / 5 order.payment_reverted alert.payment_reverted
        block 12 @ 150: pays 7.5 as c                   | paid reverted 5 / 5
        block 13 @ 150: pays 1 as d                     | paid late 12.5 / 12.5 order.late_payment
        show transfers                                  | paid late 12.5 / 12.5 a orphaned matched, b confirmed matched, c confirmed matched, d pending late
        block 14 @ 151: pays 9                          | paid late 12.5 / 12.5 stray 9 order.late_payment alert.late_money
        ",
    );
    check(
        "late money that is too little leaves the mark",
        "
        order 12.5 tron depth 1 expires 100 late 50     | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 12.5                        | paid 12.5 / 12.5 order.confirming order.paid
        fork 10 @ 90                                    | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        block 11 @ 110: pays 12                         | paid reverted 0 / 0 order.late_payment alert.late_money
        block 12: pays 0.5                              | paid late 12.5 / 12.5 order.late_payment
        ",
    );
    check(
        "settled late money that was there before the loss stands in for it at once: its money is not below due",
        "
        order 12.5 tron,ethereum depth 1 expires 100 late 50 | pending 0 / 0
        block tron 9                                    | pending 0 / 0
        block tron 10 @ 30: pays 12.5                   | paid 12.5 / 12.5 order.confirming order.paid
        block ethereum 10 @ 110: pays 12.5 as x         | paid 12.5 / 12.5 order.late_payment alert.late_money
        fork tron 10 @ 30                               | paid late 12.5 / 12.5
        ",
    );
}

#[test]
fn promoted_money_taken_back_and_returned() {
    check(
        "late money that paid the order, taken back and returned",
        "
        order 12.5 tron depth 2 expires 100 late 50 accept | pending 0 / 0
        blocks 10 11 @ 101                              | expired 0 / 0 order.expired
        block 12: pays 12.5 as x                        | expired late 0 / 0
        block 13                                        | paid late 12.5 / 12.5 order.late_payment order.paid
        fork 12; 13                                     | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        block 14: again x                               | paid reverted 12.5 / 0
        block 15                                        | paid late 12.5 / 12.5
        # beyond its window it is not this order's money any more
        fork 14 @ 151: again x; 15                      | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        show transfers                                  | paid reverted 0 / 0 x confirmed late
        ",
    );
}

#[test]
fn re_included_with_fewer_confirmations_is_not_reverted() {
    check(
        "Merely fewer confirmations after re-inclusion is not reverted",
        "
        order 12.5 tron depth 3 expires 100 late 50     | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 12.5 as a                   | confirming 12.5 / 0 order.confirming
        blocks 11 12                                    | paid 12.5 / 12.5 order.paid
        fork 10 @ 40; 11; 12: again a                   | paid 12.5 / 0
        show transfers                                  | paid 12.5 / 0 a pending matched
        show confirmations                              | paid 12.5 / 0 1
        blocks 13 14                                    | paid 12.5 / 12.5
        ",
    );
    check(
        "re-included after the deadline it is late money: reverted until it settles",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 12.5 as a                   | confirming 12.5 / 0 order.confirming
        block 11                                        | paid 12.5 / 12.5 order.paid
        fork 10 @ 110: again a; 11                      | paid late 12.5 / 12.5 order.payment_reverted order.late_payment alert.payment_reverted
        ",
    );
}
