//! # Status

use crate::table::check;

#[test]
fn pending_confirming_paid() {
    check(
        "pending → confirming when counted money reaches due; → paid when settled counted money reaches due",
        "
        order 12.5 tron depth 3 expires 100 late 50     | pending 0 / 0
        block 10 @ 30: pays 5                           | pending underpaid 5 / 0 order.underpaid
        block 11 @ 33: pays 7.5                         | confirming 12.5 / 0 order.confirming
        block 12                                        | confirming 12.5 / 5
        block 13                                        | paid 12.5 / 12.5 order.paid
        block 14                                        | paid 12.5 / 12.5
        ",
    );
    check(
        "a millionth below is below",
        "
        order 12.5 tron depth 1                         | pending 0 / 0
        block 10 @ 30: pays 12.499999                   | pending underpaid 12.499999 / 12.499999 order.underpaid
        ",
    );
}

#[test]
fn back_to_pending_when_orphaned() {
    check(
        "back to pending when orphaning takes it below (silently)",
        "
        order 12.5 tron depth 3                         | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10: pays 5 as a                           | pending underpaid 5 / 0 order.underpaid
        block 11: pays 7.5 as b                         | confirming 12.5 / 0 order.confirming
        fork 11                                         | pending underpaid 5 / 0
        fork 10                                         | pending 0 / 0
        block 11: again a                               | pending underpaid 5 / 0 order.underpaid
        block 12: again b                               | confirming 12.5 / 0 order.confirming
        block 13                                        | confirming 12.5 / 5
        block 14                                        | paid 12.5 / 12.5 order.paid
        ",
    );
}

#[test]
fn expired_when_the_settled_head_of_every_leased_network_is_past() {
    check(
        "expired: the settled head of every leased network is past expires_at: past, not at",
        "
        order 12.5 tron depth 1 expires 100             | pending 0 / 0
        block 10 @ 100                                  | pending 0 / 0
        block 11 @ 100                                  | pending 0 / 0
        block 12 @ 101                                  | expired 0 / 0 order.expired
        ",
    );
    check(
        "the settled head, not the newest",
        "
        order 12.5 tron depth 3 expires 100             | pending 0 / 0
        blocks 10 @ 101                                 | pending 0 / 0
        block 11                                        | pending 0 / 0
        block 12                                        | expired 0 / 0 order.expired
        ",
    );
    check(
        "of every leased network; one that it never leased does not matter, and the server's clock neither",
        "
        order 12.5 tron,ethereum depth 1 expires 100    | pending 0 / 0
        block bsc 5 @ 500                               | pending 0 / 0
        clock 900                                       | pending 0 / 0
        block tron 10 @ 101                             | pending 0 / 0
        block ethereum 10 @ 100                         | pending 0 / 0
        block ethereum 11 @ 101                         | expired 0 / 0 order.expired
        ",
    );
}

#[test]
fn standing_on_time_money_that_reaches_due_does_not_expire() {
    check(
        "An order whose standing on-time money reaches due does not expire: it stays confirming until settled",
        "
        order 12.5 tron,ethereum depth 5 expires 100    | pending 0 / 0
        block ethereum 10 @ 500                         | pending 0 / 0
        blocks ethereum 11..14                          | pending 0 / 0
        block tron 10 @ 100: pays 12.5                  | confirming 12.5 / 0 order.confirming
        block tron 11 @ 500                             | confirming 12.5 / 0
        blocks tron 12 13                               | confirming 12.5 / 0
        block tron 14                                   | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "or until orphaning takes it below",
        "
        order 12.5 tron depth 3 expires 100             | pending 0 / 0
        blocks 9..11 @ 60                               | pending 0 / 0
        block 12 @ 100: pays 12.5                       | confirming 12.5 / 0 order.confirming
        block 13 @ 200                                  | confirming 12.5 / 0
        fork 12 @ 101; 13                               | pending 0 / 0
        block 14                                        | expired 0 / 0 order.expired
        ",
    );
    check(
        "or until orphaning takes it below: then it expires in that very step",
        "
        order 12.5 tron,ethereum depth 3 expires 100    | pending 0 / 0
        blocks ethereum 10..12 @ 500                    | pending 0 / 0
        blocks tron 9 @ 100                             | pending 0 / 0
        block tron 10 @ 100: pays 12.5                  | confirming 12.5 / 0 order.confirming
        fork tron 10 @ 101; 11 12                       | expired 0 / 0 order.expired
        ",
    );
}

#[test]
fn what_an_expired_order_holds() {
    check(
        "What an expired order holds stays in the books as matched, exception underpaid, with an alert",
        "
        order 12.5 tron depth 1 expires 100             | pending 0 / 0
        block 10 @ 30: pays 5 as a                      | pending underpaid 5 / 5 order.underpaid
        block 11 @ 101                                  | expired underpaid 5 / 5 order.expired alert.expired_underpaid
        show transfers                                  | expired underpaid 5 / 5 a confirmed matched
        ",
    );
}

#[test]
fn expired_to_paid_by_settled_late_money() {
    check(
        "Expired → paid only by settled late money under accept_late, …",
        "
        order 12.5 tron depth 2 expires 100 late 50 accept | pending 0 / 0
        block 10 @ 101                                  | pending 0 / 0
        block 11                                        | expired 0 / 0 order.expired
        block 12 @ 150: pays 12.5                       | expired late 0 / 0
        block 13                                        | paid late 12.5 / 12.5 order.late_payment order.paid
        show facts                                      | paid late 12.5 / 12.5 current tron, expired, paid
        ",
    );
}

#[test]
fn expired_to_paid_by_on_time_money_found_later() {
    check(
        "… by settled on-time money found later (whatever accept_late says), …",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        blocks 8 9 @ 90                                 | pending 0 / 0
        block 10 @ 101                                  | pending 0 / 0
        block 11                                        | expired 0 / 0 order.expired
        # a fork that is deeper than settled brings money into the past
        fork 9 @ 95: pays 12.5; 10; 11                  | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "it pays when it is settled, and is told of while it is too little",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        blocks 7 8 9 @ 80                               | pending 0 / 0
        blocks 10 @ 101                                 | pending 0 / 0
        block 11                                        | expired 0 / 0 order.expired
        fork 9 @ 90: pays 2.5 as a                      | expired underpaid 2.5 / 0 order.underpaid
        block 10 @ 95: pays 10 as b                     | expired 12.5 / 2.5
        block 11 @ 101                                  | paid 12.5 / 12.5 order.paid
        ",
    );
}

#[test]
fn expired_to_paid_by_a_persons_confirmation() {
    check(
        "… or by a person's confirmation",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        blocks 10 11 @ 101                              | expired 0 / 0 order.expired
        confirm                                         | paid manual 0 / 0 order.paid
        ",
    );
    check(
        "(through confirming when its transfer is not settled)",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        blocks 10 11 @ 101                              | expired 0 / 0 order.expired
        block 12: pays 12.5 as x                        | expired 0 / 0 stray 12.5
        confirm with x                                  | confirming 12.5 / 0 order.confirming
        block 13                                        | paid manual 12.5 / 12.5 order.paid
        ",
    );
    check(
        "and not through confirming when it is",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        blocks 10 11 @ 101                              | expired 0 / 0 order.expired
        block 12: pays 12.5 as x                        | expired 0 / 0 stray 12.5
        block 13                                        | expired 0 / 0
        confirm with x                                  | paid manual 12.5 / 12.5 order.paid
        ",
    );
}

#[test]
fn paid_and_cancelled_never_change() {
    check(
        "Paid never changes",
        "
        order 12.5 tron depth 1 expires 100 late 50     | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 12.5                        | paid 12.5 / 12.5 order.confirming order.paid
        cancel                                          | paid 12.5 / 12.5 refused AlreadyPaid
        force cancel                                    | paid 12.5 / 12.5 refused AlreadyPaid
        confirm                                         | paid 12.5 / 12.5 refused AlreadyPaid
        extend 200                                      | paid 12.5 / 12.5 refused NotPending
        fork 10 @ 30                                    | paid reverted 0 / 0 order.payment_reverted alert.payment_reverted
        block 11 @ 500                                  | paid reverted 0 / 0
        ",
    );
    check(
        "Cancelled never changes, not even by confirmation",
        "
        order 12.5 tron depth 1 expires 100 late 50 accept | pending 0 / 0
        cancel                                          | cancelled 0 / 0 order.cancelled
        cancel                                          | cancelled 0 / 0
        block 10 @ 30: pays 12.5 as x                   | cancelled late 0 / 0 order.late_payment alert.late_money
        confirm                                         | cancelled late 0 / 0 refused AlreadyCancelled
        confirm with x                                  | cancelled late 0 / 0 refused AlreadyCancelled
        extend 200                                      | cancelled late 0 / 0 refused NotPending
        block 11 @ 120: pays 12.5                       | cancelled late 0 / 0 order.late_payment alert.late_money
        block 12 @ 500                                  | cancelled late 0 / 0
        ",
    );
}

#[test]
fn nothing_goes_back_from_confirmed_except_by_being_orphaned() {
    check(
        "No transfer goes back from confirmed except by being orphaned: a raised floor, a shorter branch above it",
        "
        order 12.5 tron depth 3                         | pending 0 / 0
        blocks 10 @ 30: pays 5 as a                     | pending underpaid 5 / 0 order.underpaid
        blocks 11 12 13                                 | pending underpaid 5 / 5
        floor tron 9                                    | pending underpaid 5 / 5
        fork 11                                         | pending underpaid 5 / 5
        show transfers                                  | pending underpaid 5 / 5 a confirmed matched
        fork 11 @ 40: pays 1 as b                       | pending underpaid 6 / 5 order.underpaid
        ",
    );
}

#[test]
fn an_order_without_a_lease_expires_by_the_servers_clock() {
    check(
        "An order that never leased an address expires by the server's clock",
        "
        order 12.5 none expires 100                     | pending 0 / 0
        block tron 10 @ 90                              | pending 0 / 0
        clock 100                                       | pending 0 / 0
        clock 101                                       | expired 0 / 0 order.expired
        ",
    );
}

#[test]
fn a_halted_network_holds_its_orders() {
    check(
        "An order waiting for a halted network stays pending until that network returns; money on its other networks goes on counting",
        "
        order 12.5 tron,ethereum depth 1 expires 100 late 50 | pending 0 / 0
        block tron 10 @ 90: pays 2                      | pending underpaid 2 / 2 order.underpaid
        halt tron                                       | pending underpaid 2 / 2
        block ethereum 10 @ 95: pays 5                  | pending underpaid 7 / 7 order.underpaid
        block ethereum 11 @ 101                         | pending underpaid 7 / 7
        clock 5000                                      | pending underpaid 7 / 7
        resume tron                                     | pending underpaid 7 / 7
        block tron 11 @ 101                             | expired underpaid 7 / 7 order.expired alert.expired_underpaid
        ",
    );
    check(
        "money on its other networks pays it",
        "
        order 12.5 tron,ethereum depth 1 expires 100 late 50 accept | pending 0 / 0
        block tron 10 @ 90                              | pending 0 / 0
        halt tron                                       | pending 0 / 0
        block ethereum 11 @ 120: pays 12.5              | paid late 12.5 / 12.5 order.late_payment order.paid
        ",
    );
    check(
        "or a person cancels it",
        "
        order 12.5 tron depth 1 expires 100             | pending 0 / 0
        block tron 10 @ 90                              | pending 0 / 0
        halt tron                                       | pending 0 / 0
        clock 5000                                      | pending 0 / 0
        cancel                                          | cancelled 0 / 0 order.cancelled
        ",
    );
    check(
        "money that stood when the network halted does not settle meanwhile",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        block 10 @ 90: pays 12.5                        | confirming 12.5 / 0 order.confirming
        halt tron                                       | confirming 12.5 / 0
        clock 5000                                      | confirming 12.5 / 0
        resume tron                                     | confirming 12.5 / 0
        block 11 @ 5001                                 | paid 12.5 / 12.5 order.paid
        ",
    );
}
