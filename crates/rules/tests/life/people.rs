//! # People

use crate::table::check;

#[test]
fn options() {
    check(
        "Options: a network is leased once; one already leased becomes current again without a new lease",
        "
        order 12.5 none expires 100                     | pending 0 / 0
        show facts                                      | pending 0 / 0 current none
        choose tron                                     | pending 0 / 0
        choose ethereum                                 | pending 0 / 0
        show facts                                      | pending 0 / 0 current ethereum
        choose tron                                     | pending 0 / 0
        show facts                                      | pending 0 / 0 current tron
        show leases                                     | pending 0 / 0 w1 tron (0, …], w2 ethereum (0, …]
        # all stay watched
        block ethereum 10 @ 30: pays 12.5               | paid 12.5 / 12.5 order.confirming order.paid
        choose tron                                     | paid 12.5 / 12.5 refused NotPending
        ",
    );
    check(
        "409 order_not_pending also once server time … has passed expires_at",
        "
        order 12.5 tron expires 100                     | pending 0 / 0
        clock 100                                       | pending 0 / 0
        choose ethereum                                 | pending 0 / 0
        clock 101                                       | pending 0 / 0
        choose tron                                     | pending 0 / 0 refused NotPending
        choose bsc                                      | pending 0 / 0 refused NotPending
        show leases                                     | pending 0 / 0 w1 tron (0, …], w2 ethereum (0, …]
        ",
    );
    check(
        "once an order has its first lease, the chain is its clock",
        "
        order 12.5 none expires 100                     | pending 0 / 0
        clock 100                                       | pending 0 / 0
        choose tron                                     | pending 0 / 0
        clock 500                                       | pending 0 / 0
        block tron 10 @ 100: pays 12.5                  | paid 12.5 / 12.5 order.confirming order.paid
        ",
    );
}

/// A chain's clock may run ahead of ours; the world's own clock follows the blocks, so this asks
/// the rule itself.
#[test]
fn options_when_the_networks_newest_head_is_past() {
    use std::collections::BTreeMap;
    use tidegate_rules::amount::Amount;
    use tidegate_rules::block::Network;
    use tidegate_rules::order::{self, Refusal, Terms};
    use tidegate_rules::time::{Span, Time};

    let terms = Terms {
        purpose: tidegate_rules::order::Purpose::Payment,
        amount: Amount::from_micros(1),
        tolerance: Amount::ZERO,
        expires_at: Time::from_secs(100),
        late_window: Span::ZERO,
        accept_late: false,
        cooldown: Span::ZERO,
        depths: BTreeMap::new(),
    };
    let mut order = order::open(terms);
    let tron = Network::new("tron");
    let choose = |order: &order::Order, newest, now| {
        order::choose(order, &tron, None, Time::from_secs(newest), Time::from_secs(now)).map(|order| order.current)
    };
    order.leases.push(tidegate_rules::lease::Lease {
        id: tidegate_rules::id::LeaseId::new(Time::from_secs(1), [1; 10]),
        order: tidegate_rules::id::OrderId::new(Time::from_secs(1), [1; 10]),
        network: tron.clone(),
        wallet: tidegate_rules::id::WalletId::new(Time::from_secs(1), [1; 10]),
        address: tidegate_rules::block::Address([1; 20]),
        from: 0,
        to: None,
    });
    assert_eq!(choose(&order, 100, 100), Ok(Some(tron.clone())), "passed means after, not at");
    assert_eq!(choose(&order, 101, 50), Err(Refusal::NotPending), "that network's newest head has passed expires_at");
    assert_eq!(choose(&order, 50, 101), Err(Refusal::NotPending), "server time has passed expires_at");
    order.leases.clear();
    assert_eq!(choose(&order, 50, 50), Err(Refusal::NotPending), "no lease to be had");
}

#[test]
fn put_expires_at() {
    check(
        "PUT expires_at: only while pending, only to later than server time and every leased network's head, at most 7 days ahead; else 409",
        "
        order 12.5 tron,ethereum depth 2 expires 100    | pending 0 / 0
        block tron 10 @ 50                              | pending 0 / 0
        block ethereum 10 @ 120                         | pending 0 / 0
        clock 60                                        | pending 0 / 0
        extend 90                                       | pending 0 / 0 refused BadExpiry
        extend 100                                      | pending 0 / 0 refused BadExpiry
        extend 120                                      | pending 0 / 0 refused BadExpiry
        extend 121                                      | pending 0 / 0
        clock 130                                       | pending 0 / 0
        extend 130                                      | pending 0 / 0 refused BadExpiry
        extend 604931                                   | pending 0 / 0 refused BadExpiry
        extend 604930                                   | pending 0 / 0
        block tron 11 @ 70000: pays 12.5                | confirming 12.5 / 0 order.confirming
        extend 604931                                   | confirming 12.5 / 0 refused NotPending
        ",
    );
    check(
        "a head that runs ahead of the server, on a network it did not lease, does not matter",
        "
        order 12.5 tron expires 100                     | pending 0 / 0
        block ethereum 10 @ 500                         | pending 0 / 0
        clock 60                                        | pending 0 / 0
        extend 99                                       | pending 0 / 0 refused BadExpiry
        extend 100                                      | pending 0 / 0 refused BadExpiry
        extend 101                                      | pending 0 / 0
        ",
    );
    check(
        "it is still later than every clock: expired orders stay expired",
        "
        order 12.5 tron expires 100                     | pending 0 / 0
        block tron 10 @ 101                             | expired 0 / 0 order.expired
        extend 500                                      | expired 0 / 0 refused NotPending
        ",
    );
    check(
        "what was late or stray by time is on time then, and I4 holds at once",
        "
        order 12.5 tron,ethereum depth 2 expires 100 late 20 | pending 0 / 0
        block tron 10 @ 110: pays 5 as a                | pending 0 / 0
        block tron 11 @ 130: pays 2 as b                | pending 0 / 0 stray 2 order.late_payment alert.late_money
        extend 300                                      | pending underpaid 7 / 5 order.underpaid order.underpaid
        block tron 12 @ 300: pays 5.5                   | confirming 12.5 / 7 order.confirming
        block tron 13                                   | paid 12.5 / 12.5 order.paid
        ",
    );
}

#[test]
fn cancel() {
    check(
        "Cancel: 409 payment_in_progress when any transfer to the order, on time or late, stands on the chain",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        block 9                                         | pending 0 / 0
        block 10 @ 30: pays 0.000001                    | pending underpaid 0.000001 / 0 order.underpaid
        cancel                                          | pending underpaid 0.000001 / 0 refused PaymentInProgress
        # taken off the chain, it stands in nobody's way
        fork 10 @ 30                                    | pending 0 / 0
        cancel                                          | cancelled 0 / 0 order.cancelled
        ",
    );
    check(
        "… or late",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        block 10 @ 110: pays 1                          | pending 0 / 0
        cancel                                          | pending 0 / 0 refused PaymentInProgress
        ",
    );
    check(
        "Only an admin's force cancels then; never paid or expired (409)",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        block 10 @ 101                                  | pending 0 / 0
        block 11                                        | expired 0 / 0 order.expired
        cancel                                          | expired 0 / 0 refused AlreadyExpired
        force cancel                                    | expired 0 / 0 refused AlreadyExpired
        ",
    );
    check(
        "At cancellation the amounts become 0.000000 and all its transfers, earlier and later, become late, never counted, with an alert",
        "
        order 12.5 tron depth 2 expires 100 late 50 accept | pending 0 / 0
        block 10 @ 30: pays 5 as a                      | pending underpaid 5 / 0 order.underpaid
        block 11: pays 7.5 as b                         | confirming 12.5 / 5 order.confirming
        force cancel                                    | cancelled late 0 / 0 order.cancelled order.late_payment alert.late_money alert.late_money
        show transfers                                  | cancelled late 0 / 0 a confirmed late, b pending late
        block 12: pays 3 as c                           | cancelled late 0 / 0 order.late_payment alert.late_money
        block 13                                        | cancelled late 0 / 0 order.late_payment alert.late_money
        block 14 @ 110: pays 20 as d                    | cancelled late 0 / 0
        block 15 @ 151: pays 4                          | cancelled late 0 / 0 stray 4 order.late_payment alert.late_money
        show transfers                                  | cancelled late 0 / 0 a confirmed late, b confirmed late, c confirmed late, d confirmed late
        ",
    );
    check(
        "A payment mined before but read after the cancel is the same case",
        "
        order 12.5 tron depth 1 expires 100 late 50     | pending 0 / 0
        clock 90                                        | pending 0 / 0
        cancel                                          | cancelled 0 / 0 order.cancelled
        block 10 @ 30: pays 12.5 as a                   | cancelled late 0 / 0 order.late_payment alert.late_money
        show transfers                                  | cancelled late 0 / 0 a confirmed late
        ",
    );
}

#[test]
fn confirm_by_bare_word() {
    check(
        "Confirm: without tx_hash: paid at once, exception manual; paid or cancelled 409",
        "
        order 12.5 tron depth 3 expires 100             | pending 0 / 0
        block 10 @ 30: pays 5                           | pending underpaid 5 / 0 order.underpaid
        confirm                                         | paid manual 5 / 0 order.paid
        confirm                                         | paid manual 5 / 0 refused AlreadyPaid
        # Later on-time money counts and may make it overpaid
        block 11: pays 7.500001                         | paid manual 12.500001 / 0
        blocks 12 13                                    | paid manual 12.500001 / 12.500001 order.overpaid
        ",
    );
    check(
        "paid at once, from confirming as well",
        "
        order 12.5 tron depth 3 expires 100             | pending 0 / 0
        block 10 @ 30: pays 12.5                        | confirming 12.5 / 0 order.confirming
        confirm                                         | paid manual 12.5 / 0 order.paid
        blocks 11 12                                    | paid manual 12.5 / 12.5
        ",
    );
}

#[test]
fn confirm_with_a_transfer() {
    check(
        "that transfer alone moves to this order and counts whatever its time; once settled, the order is paid with manual even if the sum is below due",
        "
        order a 12.5 tron depth 2 expires 100           | pending 0 / 0
        order b 9 tron depth 2 expires 100 late 50      | a pending 0 / 0 ; b pending 0 / 0
        block 10 @ 101                                  | a pending 0 / 0 ; b pending 0 / 0
        block 11 @ 110: b pays 3 as x, b pays 4 as y    | a expired 0 / 0 ; b expired late 0 / 0 a:order.expired b:order.expired
        confirm a with x                                | a confirming underpaid 3 / 0 ; b expired late 0 / 0 a:order.confirming
        show transfers a                                | a confirming underpaid 3 / 0 ; b expired late 0 / 0 x pending matched
        show transfers b                                | a confirming underpaid 3 / 0 ; b expired late 0 / 0 y pending late
        block 12                                        | a paid manual 3 / 3 ; b expired late 0 / 0 a:order.paid b:order.late_payment alert.late_money
        ",
    );
    check(
        "once settled by this order's terms, not by those of the order that it came from",
        "
        order a 5 tron depth 1 expires 100 late 50      | pending 0 / 0
        order b 5 tron depth 3 expires 900              | a pending 0 / 0 ; b pending 0 / 0
        block 10 @ 101: a pays 5 as x                   | a expired late 0 / 0 ; b pending 0 / 0 a:order.expired a:order.late_payment alert.late_money
        confirm b with x                                | a expired 0 / 0 ; b confirming 5 / 0 b:order.confirming
        block 11                                        | a expired 0 / 0 ; b confirming 5 / 0
        block 12                                        | a expired 0 / 0 ; b paid manual 5 / 5 b:order.paid
        ",
    );
    check(
        "confirming by a person's word does not expire, and on-time money still counts",
        "
        order 12.5 tron,ethereum depth 3 expires 100    | pending 0 / 0
        block tron 9 @ 110: wallet w1 gets 3 as x       | pending 0 / 0 stray 3
        confirm with x                                  | confirming underpaid 3 / 0 order.confirming
        block ethereum 10 @ 100: pays 5                 | confirming underpaid 8 / 0
        blocks ethereum 11 12 13 @ 500                  | confirming underpaid 8 / 5
        blocks tron 10 11                               | paid manual 8 / 8 order.paid
        ",
    );
    check(
        "settled counted money that reaches due pays it before the named transfer has settled",
        "
        order 12.5 tron,ethereum depth 3 expires 100    | pending 0 / 0
        block tron 9 @ 90                               | pending 0 / 0
        block tron 10 @ 110: wallet w1 gets 3 as x      | pending 0 / 0 stray 3
        confirm with x                                  | confirming underpaid 3 / 0 order.confirming
        block ethereum 10 @ 100: pays 12.5              | confirming 15.5 / 0
        blocks ethereum 11 12                           | paid 15.5 / 12.5 order.paid
        blocks tron 11 12                               | paid overpaid 15.5 / 15.5 order.overpaid
        ",
    );
    check(
        "paid by its own money, reverted when that is lost, although the named transfer stands",
        "
        order 12.5 tron,ethereum depth 3 expires 100    | pending 0 / 0
        block tron 10 @ 110: wallet w1 gets 3 as x      | pending 0 / 0 stray 3
        confirm with x                                  | confirming underpaid 3 / 0 order.confirming
        block ethereum 9 @ 90                           | confirming underpaid 3 / 0
        block ethereum 10 @ 100: pays 12.5              | confirming 15.5 / 0
        blocks ethereum 11 12                           | paid 15.5 / 12.5 order.paid
        fork ethereum 10 @ 100; 11 12                   | paid reverted 3 / 0 order.payment_reverted alert.payment_reverted
        ",
    );
}

#[test]
fn a_confirmation_lapses_with_its_transfer() {
    check(
        "If it is orphaned first, the confirmation lapses and the status is assessed as before",
        "
        order 12.5 tron depth 3 expires 100 late 50     | pending 0 / 0
        block 9 @ 90                                    | pending 0 / 0
        block 10 @ 101                                  | pending 0 / 0
        block 11 @ 102                                  | pending 0 / 0
        block 12: pays 12.5 as x                        | expired late 0 / 0 order.expired
        confirm with x                                  | confirming 12.5 / 0 order.confirming
        fork 12                                         | expired 0 / 0
        show transfers                                  | expired 0 / 0 x orphaned late
        show facts                                      | expired 0 / 0 current tron, expired
        # back again, it is what it was: late
        block 13: again x                               | expired late 0 / 0
        blocks 14 15                                    | expired late 0 / 0 order.late_payment alert.late_money
        ",
    );
    check(
        "order.late_payment once per late transfer, also after a confirmation that lapsed",
        "
        order 12.5 tron depth 2 expires 100 late 50     | pending 0 / 0
        block 10 @ 101                                  | pending 0 / 0
        block 11                                        | expired 0 / 0 order.expired
        block 12: pays 2 as x                           | expired late 0 / 0
        block 13                                        | expired late 0 / 0 order.late_payment alert.late_money
        fork 12; 13: again x                            | expired late 0 / 0
        confirm with x                                  | confirming underpaid 2 / 0 order.confirming
        fork 13                                         | expired 0 / 0
        block 14: again x                               | expired late 0 / 0
        block 15                                        | expired late 0 / 0
        show transfers                                  | expired late 0 / 0 x confirmed late
        ",
    );
    check(
        "merely re-included it lapses not",
        "
        order 12.5 tron depth 3 expires 100 late 50     | pending 0 / 0
        block 9 @ 101                                   | pending 0 / 0
        blocks 10 11                                    | expired 0 / 0 order.expired
        block 12: pays 12.5 as x                        | expired late 0 / 0
        confirm with x                                  | confirming 12.5 / 0 order.confirming
        fork 11: again x; 12                            | confirming 12.5 / 0
        block 13                                        | paid manual 12.5 / 12.5 order.paid
        ",
    );
    check(
        "as before: money to an address that the order never had is not its own when it comes back",
        "
        wallet imported tron                            |
        order 12.5 tron depth 3 expires 900             | pending 0 / 0
        block 9 @ 30                                    | pending 0 / 0
        block 10: wallet w1 gets 12.5 as x              | pending 0 / 0 stray 12.5
        confirm with x                                  | confirming 12.5 / 0 order.confirming
        fork 10                                         | pending 0 / 0
        block 11: again x                               | pending 0 / 0
        show transfers                                  | pending 0 / 0
        blocks 12..20                                   | pending 0 / 0
        ",
    );
    check(
        "assessed as before: pending, with what it has",
        "
        wallet imported tron                            |
        order 12.5 tron depth 2 expires 900             | pending 0 / 0
        block 9 @ 30: pays 5                            | pending underpaid 5 / 0 order.underpaid
        block 10: wallet w1 gets 1 as x                 | pending underpaid 5 / 5 stray 1
        confirm with x                                  | confirming underpaid 6 / 5 order.confirming
        fork 10                                         | pending underpaid 5 / 5
        block 11: pays 7.5                              | confirming 12.5 / 5 order.confirming
        block 12                                        | paid 12.5 / 12.5 order.paid
        ",
    );
    check(
        "lapsed and past its time, it expires in that very step",
        "
        order 12.5 tron,ethereum depth 3 expires 100    | pending 0 / 0
        blocks ethereum 7 8 9 @ 500                     | pending 0 / 0
        block tron 9 @ 101                              | pending 0 / 0
        block tron 10 @ 110: wallet w1 gets 3 as x      | pending 0 / 0 stray 3
        confirm with x                                  | confirming underpaid 3 / 0 order.confirming
        block ethereum 10 @ 510                         | confirming underpaid 3 / 0
        block ethereum 11                               | confirming underpaid 3 / 0
        fork tron 10 @ 110; 11; 12                      | expired 0 / 0 order.expired
        ",
    );
}

#[test]
fn transfer_already_counted() {
    check(
        "A transfer that any pending or confirming order lists, … is 409 transfer_already_counted",
        "
        order a 5 tron,ethereum depth 2 expires 100 late 50 | pending 0 / 0
        order b 5 tron depth 2 expires 900              | a pending 0 / 0 ; b pending 0 / 0
        block tron 10 @ 110: a pays 1 as x, b pays 2 as y | a pending 0 / 0 ; b pending underpaid 2 / 0 b:order.underpaid
        confirm b with x                                | a pending 0 / 0 ; b pending underpaid 2 / 0 refused TransferCounted
        confirm b with y                                | a pending 0 / 0 ; b pending underpaid 2 / 0 refused TransferCounted
        confirm a with x                                | a pending 0 / 0 ; b pending underpaid 2 / 0 refused TransferCounted
        ",
    );
    check(
        "… that has been counted, …",
        "
        order a 5 tron depth 1 expires 100              | pending 0 / 0
        order b 5 tron depth 1 expires 900              | a pending 0 / 0 ; b pending 0 / 0
        block tron 10 @ 50: a pays 5 as x               | a paid 5 / 5 ; b pending 0 / 0 a:order.confirming a:order.paid
        confirm b with x                                | a paid 5 / 5 ; b pending 0 / 0 refused TransferCounted
        ",
    );
    check(
        "… by an expired order too, …",
        "
        order a 5 tron depth 1 expires 100              | pending 0 / 0
        order b 5 tron depth 1 expires 900              | a pending 0 / 0 ; b pending 0 / 0
        block tron 10 @ 50: a pays 4 as x               | a pending underpaid 4 / 4 ; b pending 0 / 0 a:order.underpaid
        block tron 11 @ 101                             | a expired underpaid 4 / 4 ; b pending 0 / 0 a:order.expired alert.expired_underpaid
        confirm b with x                                | a expired underpaid 4 / 4 ; b pending 0 / 0 refused TransferCounted
        ",
    );
    check(
        "… or that an expired order may still count under accept_late",
        "
        order a 5 tron depth 1 expires 100 late 50 accept | pending 0 / 0
        order b 5 tron depth 1 expires 900              | a pending 0 / 0 ; b pending 0 / 0
        block tron 10 @ 101: a pays 4 as x              | a expired late 0 / 0 ; b pending 0 / 0 a:order.expired a:order.late_payment alert.late_money
        confirm b with x                                | a expired late 0 / 0 ; b pending 0 / 0 refused TransferCounted
        ",
    );
    check(
        "late money of a paid, cancelled or expired order that will not count it may be moved",
        "
        order a 5 tron depth 1 expires 100 late 50      | pending 0 / 0
        order b 5 tron depth 1 expires 900              | a pending 0 / 0 ; b pending 0 / 0
        block tron 10 @ 50: a pays 5                    | a paid 5 / 5 ; b pending 0 / 0 a:order.confirming a:order.paid
        block tron 11 @ 110: a pays 5 as x              | a paid 5 / 5 ; b pending 0 / 0 a:order.late_payment alert.late_money
        confirm b with x                                | a paid 5 / 5 ; b paid manual 5 / 5 b:order.paid
        confirm b with x                                | a paid 5 / 5 ; b paid manual 5 / 5 refused AlreadyPaid
        ",
    );
    check(
        "of a cancelled order",
        "
        order a 5 tron depth 1 expires 100 late 50      | pending 0 / 0
        order b 5 tron depth 1 expires 900              | a pending 0 / 0 ; b pending 0 / 0
        cancel a                                        | a cancelled 0 / 0 ; b pending 0 / 0 a:order.cancelled
        block tron 11 @ 90: a pays 5 as x               | a cancelled late 0 / 0 ; b pending 0 / 0 a:order.late_payment alert.late_money
        confirm b with x                                | a cancelled 0 / 0 ; b paid manual 5 / 5 b:order.paid
        ",
    );
}
