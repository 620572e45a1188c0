//! # Clocks and stalls, where rules decide it
//!
//! Decided elsewhere, and tested there:
//!
//! - the checkout stops showing addresses; `expires_at` without a network uses the newest head of
//!   all active networks; 409, 422 and their codes: `http`;
//! - `order.pending` at creation: the transaction that opens an order;
//! - wallet status, `release`, `disabled` and `frozen`, which may be set by hand: `store` and `http`
//!   ([`tidegate_rules::wallet`] ranks and times them, with its own tests);
//! - "no standing transfer above `from`", "without any recorded transfer": questions to the store
//!   (the world here asks them too, see [`crate::leases`]);
//! - a confirmation's "ours, failed or of another token 422", "several uncounted transfers fit";
//! - raising and recording the floor, the re-read that proves a transfer, a head more than 15 s
//!   ahead, `lag_seconds`, `max_lag`, the operator's command after a halt: the follower.

use crate::table::check;

#[test]
fn the_chain_is_the_orders_clock() {
    check(
        "no new blocks, no expiry: a stalled chain expires nothing, and the payer's money counts when it moves again",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        block 10 @ 60                                   | pending 0 / 0
        clock 100000                                    | pending 0 / 0
        block 11 @ 61: pays 12.5                        | confirming 12.5 / 0 order.confirming
        block 12 @ 100000                               | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "blocks may share a timestamp",
        "
        order 12.5 tron depth 2 expires 100             | pending 0 / 0
        block 10 @ 100; 11 @ 100; 12 @ 100              | pending 0 / 0
        block 13 @ 100: pays 12.5                       | confirming 12.5 / 0 order.confirming
        block 14 @ 100                                  | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "a chain ahead of the server's clock expires by its own time",
        "
        order 12.5 tron depth 1 expires 100             | pending 0 / 0
        block 10 @ 101                                  | expired 0 / 0 order.expired
        clock 50                                        | expired 0 / 0
        ",
    );
}

#[test]
fn after_a_halt_rewind_and_re_decide() {
    check(
        "a halted network resumes at the common ancestor: rewind there, re-decide, follow on",
        "
        order 12.5 tron depth 2 expires 300             | pending 0 / 0
        block 9 @ 20                                    | pending 0 / 0
        block 10 @ 30: pays 12.5 as x                   | confirming 12.5 / 0 order.confirming
        halt tron                                       | confirming 12.5 / 0
        clock 900                                       | confirming 12.5 / 0
        fork 10 @ 200; 11                               | pending 0 / 0
        resume tron                                     | pending 0 / 0
        block 12 @ 250: again x                         | confirming 12.5 / 0 order.confirming
        block 13                                        | paid 12.5 / 12.5 order.paid
        ",
    );
}
