//! # What counts

use crate::table::{check, check_single};

#[test]
fn on_time_is_block_time_up_to_expires_at() {
    check(
        "On time: block time ≤ expires_at",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        block 10 @ 100: pays 5 as x                     | pending underpaid 5 / 0 order.underpaid
        block 11 @ 100: pays 1 as y                     | pending underpaid 6 / 5 order.underpaid
        block 12 @ 101: pays 2 as z                     | pending underpaid 6 / 6
        show transfers                                  | pending underpaid 6 / 6 x confirmed matched, y confirmed matched, z pending late
        ",
    );
}

#[test]
fn on_time_money_counts_when_seen_and_pays_when_settled() {
    check(
        "Counts when seen; pays when settled, even if that is after the deadline",
        "
        order 12.5 tron depth 3 expires 100             | pending 0 / 0
        block 10 @ 100: pays 12.5                       | confirming 12.5 / 0 order.confirming
        block 11 @ 500                                  | confirming 12.5 / 0
        block 12                                        | paid 12.5 / 12.5 order.paid
        ",
    );
}

#[test]
fn late_is_after_expires_at_up_to_the_end_of_the_window() {
    check(
        "Late: expires_at < block time ≤ expires_at + late window; after that stray",
        "
        order 12.5 tron depth 1 expires 100 late 50     | pending 0 / 0
        block 10 @ 101: pays 1 as x                     | expired late 0 / 0 order.expired order.late_payment alert.late_money
        block 11 @ 150: pays 2 as y                     | expired late 0 / 0 order.late_payment alert.late_money
        block 12 @ 151: pays 3 as z                     | expired late 0 / 0 stray 3
        show transfers                                  | expired late 0 / 0 x confirmed late, y confirmed late
        ",
    );
    check(
        "without a late window every block after the deadline is stray",
        "
        order 12.5 tron depth 1 expires 100             | pending 0 / 0
        block 10 @ 100: pays 1                          | pending underpaid 1 / 1 order.underpaid
        block 11 @ 101: pays 2                          | expired underpaid 1 / 1 stray 2 order.expired alert.expired_underpaid
        ",
    );
}

#[test]
fn late_money_pays_only_settled_and_only_when_it_is_enough() {
    check(
        "Counts only under accept_late, only settled, and only once settled on-time plus settled late money reaches due: an expired order",
        "
        order 12.5 tron depth 2 expires 100 late 50 accept | pending 0 / 0
        block 10 @ 90: pays 5 as a                      | pending underpaid 5 / 0 order.underpaid
        block 11 @ 101: pays 5 as b                     | pending underpaid 5 / 5
        block 12                                        | expired late 5 / 5 order.expired order.late_payment alert.expired_underpaid alert.late_money
        block 13: pays 2.5 as c                         | expired late 5 / 5
        show transfers                                  | expired late 5 / 5 a confirmed matched, b confirmed late, c pending late
        block 14                                        | paid late 12.5 / 12.5 order.late_payment order.paid
        show transfers                                  | paid late 12.5 / 12.5 a confirmed matched, b confirmed matched, c confirmed matched
        ",
    );
    check(
        "it is the settled on-time money that counts with it: late money waits for it to settle",
        "
        order 12.5 tron,ethereum depth 3 expires 100 late 50 accept | pending 0 / 0
        block tron 10 @ 90: pays 5                      | pending underpaid 5 / 0 order.underpaid
        block ethereum 5 @ 110: pays 7.5                | pending underpaid 5 / 0
        blocks ethereum 6 7                             | pending underpaid 5 / 0 order.late_payment alert.late_money
        block tron 11                                   | pending underpaid 5 / 0
        block tron 12                                   | paid late 12.5 / 12.5 order.paid
        ",
    );
    check(
        "Then a pending order becomes paid with exception late: pending, when another network still holds expiry back",
        "
        order 12.5 tron,ethereum depth 1 expires 100 late 50 accept | pending 0 / 0
        block ethereum 5 @ 99                           | pending 0 / 0
        block tron 10 @ 110: pays 12.5                  | paid late 12.5 / 12.5 order.late_payment order.paid
        ",
    );
    check(
        "due is the amount less the tolerance, for late money as well",
        "
        order 12.5 tron depth 1 expires 100 late 50 tolerance 0.5 accept | pending 0 / 0
        block 10 @ 101                                  | expired 0 / 0 order.expired
        block 11: pays 11.999999                        | expired late 0 / 0 order.late_payment alert.late_money
        block 12: pays 0.000001                         | paid late 12 / 12 order.late_payment order.paid
        ",
    );
}

#[test]
fn in_every_other_case_late_money_changes_no_status_and_no_amount() {
    check(
        "In every other case late money changes no status and no amount, keeps the disposition late, and raises an alert: accept_late = false",
        "
        order 12.5 tron depth 1 expires 100 late 50     | pending 0 / 0
        block 10 @ 101                                  | expired 0 / 0 order.expired
        block 11: pays 12.5 as x                        | expired late 0 / 0 order.late_payment alert.late_money
        show transfers                                  | expired late 0 / 0 x confirmed late
        ",
    );
    check(
        "order already paid",
        "
        order 12.5 tron depth 1 expires 100 late 50 accept | pending 0 / 0
        block 10 @ 50: pays 12.5                        | paid 12.5 / 12.5 order.confirming order.paid
        block 11 @ 101: pays 12.5 as x                  | paid 12.5 / 12.5 order.late_payment alert.late_money
        show transfers                                  | paid 12.5 / 12.5 p1 confirmed matched, x confirmed late
        ",
    );
    check(
        "order confirming",
        "
        order 12.5 tron,ethereum depth 3 expires 100 late 50 accept | pending 0 / 0
        block tron 10 @ 90: pays 12.5                   | confirming 12.5 / 0 order.confirming
        block ethereum 5 @ 101: pays 12.5               | confirming 12.5 / 0
        blocks ethereum 6 7                             | confirming 12.5 / 0 order.late_payment alert.late_money
        blocks tron 11 12                               | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "confirming, then orphaned: now the late money is needed",
        "
        order 12.5 tron,ethereum depth 3 expires 100 late 50 accept | pending 0 / 0
        block tron 9                                    | pending 0 / 0
        block tron 10 @ 90: pays 12.5                   | confirming 12.5 / 0 order.confirming
        block ethereum 5 @ 101: pays 12.5               | confirming 12.5 / 0
        blocks ethereum 6 7                             | confirming 12.5 / 0 order.late_payment alert.late_money
        fork tron 10 @ 90                               | paid late 12.5 / 12.5 order.paid
        ",
    );
    check(
        "order cancelled",
        "
        order 12.5 tron depth 1 expires 100 late 50 accept | pending 0 / 0
        cancel                                          | cancelled 0 / 0 order.cancelled
        block 10 @ 101: pays 12.5 as x                  | cancelled late 0 / 0 order.late_payment alert.late_money
        show transfers                                  | cancelled late 0 / 0 x confirmed late
        ",
    );
}

#[test]
fn received_is_what_stands_and_confirmed_its_settled_part() {
    check(
        "amount_received is the counted money that stands on the chain now, amount_confirmed its settled part",
        "
        order 12.5 tron depth 2                         | pending 0 / 0
        block 10 @ 30: pays 3 as a                      | pending underpaid 3 / 0 order.underpaid
        block 11: pays 4 as b, pays 1 as c              | pending underpaid 8 / 3 order.underpaid
        fork 11: again c                                | pending underpaid 4 / 3
        show transfers                                  | pending underpaid 4 / 3 a confirmed matched, b orphaned matched, c pending matched
        block 12                                        | pending underpaid 4 / 4
        # the fewest of those that count and stand
        show confirmations                              | pending underpaid 4 / 4 2
        block 13: pays 1                                | pending underpaid 5 / 4 order.underpaid
        show confirmations                              | pending underpaid 5 / 4 1
        blocks 14 15                                    | pending underpaid 5 / 5
        show confirmations                              | pending underpaid 5 / 5 3
        ",
    );
}

#[test]
fn on_time_money_on_a_paid_order_counts() {
    check(
        "On-time money on a paid order, on any of its networks, counts, and may make it overpaid",
        "
        order 12.5 tron,ethereum depth 2 expires 100    | pending 0 / 0
        block tron 10 @ 30: pays 12.5                   | confirming 12.5 / 0 order.confirming
        block tron 11                                   | paid 12.5 / 12.5 order.paid
        block ethereum 5 @ 100: pays 1                  | paid 13.5 / 12.5
        block ethereum 6                                | paid overpaid 13.5 / 13.5 order.overpaid
        block tron 12 @ 100: pays 0.5                   | paid overpaid 14 / 13.5
        block tron 13                                   | paid overpaid 14 / 14 order.overpaid
        ",
    );
    check(
        "money on any of its networks adds up",
        "
        order 12.5 tron,bsc depth 1                     | pending 0 / 0
        block tron 10 @ 30: pays 5                      | pending underpaid 5 / 5 order.underpaid
        block bsc 70 @ 31: pays 7.5                     | paid 12.5 / 12.5 order.confirming order.paid
        ",
    );
}

#[test]
fn base_units_below_a_millionth_add_up() {
    check(
        "Base units below a millionth add up; every tally is the floor of the exact sum",
        "
        order 1 bsc depth 1                             | pending 0 / 0
        block 10 @ 30: pays 0.0000004                   | pending 0 / 0
        block 11: pays 0.0000005                        | pending 0 / 0
        block 12: pays 0.0000001                        | pending underpaid 0.000001 / 0.000001 order.underpaid
        block 13: pays 0.999998999999999999             | pending underpaid 0.999999 / 0.999999 order.underpaid
        block 14: pays 0.000000000000000001             | paid 1 / 1 order.confirming order.paid
        block 15: pays 0.000000999999999999             | paid 1 / 1
        block 16: pays 0.000000000000000001             | paid overpaid 1.000001 / 1.000001 order.overpaid
        ",
    );
    check(
        "over networks with different decimals as well; received and confirmed are each floored once",
        "
        order 2 bsc,tron depth 2                        | pending 0 / 0
        block bsc 10 @ 30: pays 0.0000006               | pending 0 / 0
        block bsc 11: pays 0.0000006                    | pending underpaid 0.000001 / 0 order.underpaid
        block bsc 12                                    | pending underpaid 0.000001 / 0.000001
        block tron 10 @ 40: pays 1.999998               | pending underpaid 1.999999 / 0.000001 order.underpaid
        block tron 11                                   | pending underpaid 1.999999 / 1.999999
        block bsc 13: pays 0.0000008                    | confirming 2 / 1.999999 order.confirming
        block bsc 14                                    | paid 2 / 2 order.paid
        ",
    );
}

#[test]
fn due_is_the_amount_less_the_tolerance() {
    check(
        "Due = amount − underpayment tolerance",
        "
        order 12.5 tron depth 1 tolerance 0.5           | pending 0 / 0
        block 10 @ 30: pays 11.999999                   | pending underpaid 11.999999 / 11.999999 order.underpaid
        block 11: pays 0.000001                         | paid 12 / 12 order.confirming order.paid
        block 12: pays 0.5                              | paid 12.5 / 12.5
        block 13: pays 0.000001                         | paid overpaid 12.500001 / 12.500001 order.overpaid
        ",
    );
    check(
        "a tolerance of everything still wants something",
        "
        order 1 bsc depth 1 tolerance 5                 | pending 0 / 0
        block 10 @ 30: pays 0.0000009                   | pending 0 / 0
        block 11: pays 0.0000001                        | paid 0.000001 / 0.000001 order.confirming order.paid
        ",
    );
}

#[test]
fn money_that_no_order_owns() {
    check(
        "every non-zero transfer to an address of ours is recorded with what became of it: own, dust, stray, unreadable",
        "
        wallet imported tron                            |
        order 12.5 tron depth 1 expires 100 late 50     | pending 0 / 0
        block 10 @ 30: own pays 12.5                    | pending 0 / 0 own 12.5
        block 11: forged wallet w2                      | pending 0 / 0 unreadable
        block 12: wallet w1 gets 0.01                   | pending 0 / 0 stray 0.01
        block 13: wallet w1 gets 0.009999               | pending 0 / 0 dust 0.009999
        # in a lease nothing is too small to count
        block 14: pays 0.000001                         | pending underpaid 0.000001 / 0.000001 order.underpaid
        block 15 @ 151: pays 0.009                      | expired underpaid 0.000001 / 0.000001 dust 0.009 order.expired alert.expired_underpaid
        block 16: own wallet w1 gets 7                  | expired underpaid 0.000001 / 0.000001 own 7
        ",
    );
}

#[test]
fn a_transfer_is_named_by_its_transaction_and_ordinal() {
    check(
        "I3: a transfer (network, tx, ordinal) is stored once; two of one transaction are two",
        "
        order 12.5 tron,ethereum depth 1                | pending 0 / 0
        block tron 10 @ 30: pays 5 as x.0, pays 5 as x.1 | pending underpaid 10 / 10 order.underpaid
        block ethereum 10 @ 31: pays 2.5 as x.0         | paid 12.5 / 12.5 order.confirming order.paid
        show transfers                                  | paid 12.5 / 12.5 x.0 confirmed matched, x.1 confirmed matched, x.0 confirmed matched
        ",
    );
}

/// What the block's time says after a fork is what counts.
#[test]
fn a_fork_may_move_money_over_the_deadline() {
    check(
        "inside a lease the block's time decides: on time in one branch, late in the other",
        "
        order 12.5 tron depth 3 expires 100 late 50 accept | pending 0 / 0
        blocks 9 10 @ 90                                | pending 0 / 0
        block 11 @ 99: pays 12.5 as x                   | confirming 12.5 / 0 order.confirming
        fork 11 @ 110: again x                          | pending 0 / 0
        block 12                                        | pending 0 / 0
        block 13                                        | paid late 12.5 / 12.5 order.expired order.late_payment order.paid
        ",
    );
    check_single(
        "late in one branch, on time in the other",
        "
        order 12.5 tron depth 3 expires 100 late 50     | pending 0 / 0
        blocks 9 10 @ 90                                | pending 0 / 0
        block 11 @ 110: pays 12.5 as x                  | pending 0 / 0
        fork 11 @ 99: again x                           | confirming 12.5 / 0 order.confirming
        blocks 12 13                                    | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "stray in one branch, on time in the other",
        "
        order 12.5 tron depth 3 expires 100             | pending 0 / 0
        blocks 9 10 @ 90                                | pending 0 / 0
        block 11 @ 110: pays 12.5 as x                  | pending 0 / 0 stray 12.5
        fork 11 @ 99: again x                           | confirming 12.5 / 0 order.confirming
        blocks 12 13                                    | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "on time, then beyond the window: listed, but never counted",
        "
        order 12.5 tron depth 3 expires 100 late 50 accept | pending 0 / 0
        blocks 9 10 @ 90                                | pending 0 / 0
        block 11 @ 99: pays 12.5 as x                   | confirming 12.5 / 0 order.confirming
        fork 11 @ 151: again x                          | pending 0 / 0
        block 12                                        | pending 0 / 0
        block 13                                        | expired late 0 / 0 order.expired order.late_payment alert.late_money
        ",
    );
}

#[test]
fn a_fork_emits_nothing_for_what_is_merely_re_included() {
    check(
        "a rewind and the new branch up to the old height are one commit, so a transaction merely re-included emits nothing",
        "
        order 12.5 tron depth 3                         | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 5 as a                      | pending underpaid 5 / 0 order.underpaid
        block 11: pays 7.5 as b                         | confirming 12.5 / 0 order.confirming
        fork 10 @ 30: again b; 11: again a              | confirming 12.5 / 0
        block 12                                        | confirming 12.5 / 7.5
        block 13                                        | paid 12.5 / 12.5 order.paid
        # deeper than settled: fewer confirmations, but nothing to tell
        fork 10 @ 30; 11 12; 13: again a, again b       | paid 12.5 / 0
        block 14                                        | paid 12.5 / 0
        block 15                                        | paid 12.5 / 12.5
        ",
    );
}
