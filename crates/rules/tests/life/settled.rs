//! # Settled

use crate::table::check;

#[test]
fn n_confirmations_is_height_at_most_head_minus_n_plus_one() {
    check(
        "N confirmations is height ≤ head − N + 1; the highest block we have applied that meets the order's own terms",
        "
        order 12.5 tron depth 3                         | pending 0 / 0
        block 10 @ 30: pays 12.5                        | confirming 12.5 / 0 order.confirming
        show settled                                    | confirming 12.5 / 0 tron none of 10
        block 11                                        | confirming 12.5 / 0
        show confirmations                              | confirming 12.5 / 0 2
        block 12                                        | paid 12.5 / 12.5 order.paid
        show settled                                    | paid 12.5 / 12.5 tron 10 @ 30 of 12
        show confirmations                              | paid 12.5 / 12.5 3
        ",
    );
    check(
        "the block itself is the first confirmation",
        "
        order 12.5 tron depth 1                         | pending 0 / 0
        block 10 @ 30: pays 12.5                        | paid 12.5 / 12.5 order.confirming order.paid
        ",
    );
}

#[test]
fn final_is_the_nodes_final_head() {
    check(
        "final is the node's final head, but never above the cursor",
        "
        order 12.5 tron depth final                     | pending 0 / 0
        block 10 @ 30: pays 12.5                        | confirming 12.5 / 0 order.confirming
        blocks 11..40                                   | confirming 12.5 / 0
        final tron 9                                    | confirming 12.5 / 0
        final tron 10                                   | paid 12.5 / 12.5 order.paid
        final tron 99                                   | paid 12.5 / 12.5
        show settled                                    | paid 12.5 / 12.5 tron 40 @ 120 of 40
        ",
    );
    check(
        "the chain calls it final before we have applied it: the cursor decides",
        "
        order 12.5 tron depth final expires 100         | pending 0 / 0
        block 10 @ 30                                   | pending 0 / 0
        final tron 50                                   | pending 0 / 0
        show settled                                    | pending 0 / 0 tron 10 @ 30 of 10
        block 11 @ 33: pays 12.5                        | paid 12.5 / 12.5 order.confirming order.paid
        ",
    );
}

#[test]
fn the_networks_floor() {
    check(
        "meets the order's own terms and the network's recorded floor: raised, it holds back; what has settled stays settled",
        "
        order 12.5 tron depth 2                         | pending 0 / 0
        block 10 @ 30: pays 5                           | pending underpaid 5 / 0 order.underpaid
        block 11                                        | pending underpaid 5 / 5
        floor tron 4                                    | pending underpaid 5 / 5
        block 12: pays 7.5                              | confirming 12.5 / 5 order.confirming
        blocks 13 14                                    | confirming 12.5 / 5
        block 15                                        | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "a floor below the terms changes nothing, one that falls lets go, and final is deeper than any number",
        "
        order 12.5 tron depth 3                         | pending 0 / 0
        floor tron 1                                    | pending 0 / 0
        block 10 @ 30: pays 5                           | pending underpaid 5 / 0 order.underpaid
        block 11                                        | pending underpaid 5 / 0
        block 12                                        | pending underpaid 5 / 5
        floor tron final                                | pending underpaid 5 / 5
        blocks 13..19                                   | pending underpaid 5 / 5
        block 20: pays 7.5                              | confirming 12.5 / 5 order.confirming
        blocks 21..25                                   | confirming 12.5 / 5
        floor tron 5                                    | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "a floor that holds the settled head back holds expiry back too",
        "
        order 12.5 tron depth 1 expires 100             | pending 0 / 0
        blocks 10 11 @ 96                               | pending 0 / 0
        floor tron 3                                    | pending 0 / 0
        block 12 @ 200                                  | pending 0 / 0
        block 13                                        | pending 0 / 0
        block 14                                        | expired 0 / 0 order.expired
        ",
    );
}

#[test]
fn it_never_moves_back() {
    check(
        "it is stored and never moves back: not on a shorter branch either, and it is never above the cursor",
        "
        order 12.5 tron depth 3 expires 900             | pending 0 / 0
        blocks 10..20                                   | pending 0 / 0
        show settled                                    | pending 0 / 0 tron 18 @ 54 of 20
        fork 17 @ 60; 18                                | pending 0 / 0
        show settled                                    | pending 0 / 0 tron 18 @ 48 of 18
        fork 17 @ 60                                    | pending 0 / 0
        show settled                                    | pending 0 / 0 tron 17 @ 45 of 17
        blocks 18..20                                   | pending 0 / 0
        show settled                                    | pending 0 / 0 tron 18 @ 63 of 20
        block 21                                        | pending 0 / 0
        show settled                                    | pending 0 / 0 tron 19 @ 66 of 21
        ",
    );
    check(
        "money on a shorter branch needs its confirmations there, although its height is settled",
        "
        order 12.5 tron depth 3 expires 900             | pending 0 / 0
        blocks 10..20                                   | pending 0 / 0
        fork 17 @ 60: pays 12.5                         | confirming 12.5 / 0 order.confirming
        block 18                                        | confirming 12.5 / 0
        block 19                                        | paid 12.5 / 12.5 order.paid
        ",
    );
}

/// The height stays, but a block with too few confirmations must not prove that time has passed.
#[test]
fn a_shorter_branch_expires_nothing_by_shallow_blocks() {
    check(
        "I5: an order expires only when the settled chain has passed its deadline; N confirmations is height ≤ head − N + 1",
        "
        order 12.5 tron depth 5 expires 100             | pending 0 / 0
        blocks 10..30                                   | pending 0 / 0
        show settled                                    | pending 0 / 0 tron 26 @ 78 of 30
        # one block past the deadline, with one confirmation, at a height that was settled
        fork 20 @ 101                                   | pending 0 / 0
        # the old branch comes back, and the payer paid there in time
        fork 20 @ 60: pays 12.5; 21..24                 | paid 12.5 / 12.5 order.confirming order.paid
        ",
    );
}

#[test]
fn all_of_it_uses_the_settled_head() {
    check(
        "expiry, late money, the end of a lease and the start of the next all use it",
        "
        order 12.5 tron depth 4 expires 100 late 50 accept  | pending 0 / 0
        block 10 @ 99                                   | pending 0 / 0
        block 11                                        | pending 0 / 0
        block 12                                        | pending 0 / 0
        block 13: pays 12.5                             | pending 0 / 0
        block 14                                        | expired late 0 / 0 order.expired
        block 15 @ 151                                  | expired late 0 / 0
        block 16                                        | paid late 12.5 / 12.5 order.late_payment order.paid
        block 17                                        | paid late 12.5 / 12.5
        show leases                                     | paid late 12.5 / 12.5 w1 tron (0, …]
        block 18                                        | paid late 12.5 / 12.5
        show leases                                     | paid late 12.5 / 12.5 w1 tron (0, 15]
        ",
    );
}
