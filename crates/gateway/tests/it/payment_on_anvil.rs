//! A shop's life on a real Ethereum node: every way in which money arrives, and every way in which
//! it seems to. The chain stands still unless a test moves it, so each step can be looked at.
//!
//! Three confirmations are asked for: money in block N is settled when block N + 2 is there.

use serde_json::{Value, json};

use crate::evm::{self, Arg};
use crate::gateway::{NETWORK, PUBLIC_URL};
use crate::receiver::Receiver;
use crate::shop::{Order, Shop, seconds};
use crate::wait::{eventually, now_s, until_clock_passes};

#[tokio::test]
async fn an_exact_payment_is_seen_confirmed_and_announced() {
    let shop = Shop::open().await;
    let body = json!({ "amount": "12.5", "network": NETWORK, "user_id": "42",
        "merchant_order_id": "INV-1001", "metadata": { "cart": [1, 2] } });
    let answer = shop.api().post("/api/v1/orders", &body).await.expect(201);
    let created = answer.json();
    let order = Order::of(&created);
    assert_eq!(answer.header("location"), Some(format!("/api/v1/orders/{}", order.id).as_str()));
    for (member, expected) in [
        ("merchant_id", json!(shop.merchant.id)),
        ("status", json!("pending")),
        ("exception", Value::Null),
        ("network", json!(NETWORK)),
        ("token", json!("USDT")),
        ("amount", json!("12.500000")),
        ("amount_received", json!("0.000000")),
        ("amount_confirmed", json!("0.000000")),
        ("user_id", json!("42")),
        ("plan_id", Value::Null),
        ("merchant_order_id", json!("INV-1001")),
        ("confirmations", json!(0)),
        ("confirmations_required", json!(3)),
        ("checkout_url", json!(format!("{PUBLIC_URL}/pay/{}", order.id))),
        ("callback_url", Value::Null),
        ("redirect_url", Value::Null),
        ("metadata", json!({ "cart": [1, 2] })),
        ("note", Value::Null),
        ("paid_at", Value::Null),
        ("cancelled_at", Value::Null),
        ("transfers", json!([])),
    ] {
        assert_eq!(created[member], expected, "{member} of {created}");
    }
    let uri = created["payment_uri"].as_str().unwrap().to_lowercase();
    for part in ["ethereum:", &evm::text(shop.tokens.usdt), "@31337/transfer", &evm::text(order.address), "uint256=12500000"] {
        assert!(uri.contains(part), "no {part} in {uri}");
    }
    assert_eq!(
        created["payment_options"],
        json!([{ "network": NETWORK, "address": order.address_text, "wallet_id": order.wallet_id,
            "payment_uri": created["payment_uri"] }])
    );
    let open_s = seconds(created["expires_at"].as_str().unwrap()) - seconds(created["created_at"].as_str().unwrap());
    assert!((1799..=1801).contains(&open_s), "open for {open_s} s; the default is 30 minutes");

    // A wallet signs the payment; in its block it is seen, and counts.
    let hash = shop.anvil.send_raw(&shop.signed(&order, "12.5").await).await;
    shop.anvil.mine(1).await;
    let head = shop.anvil.head().await;
    let now = shop.order_is(&order, "confirming").await;
    assert_eq!(now["confirmations"], 1, "{now}");
    assert_eq!(now["amount_received"], "12.500000");
    assert_eq!(now["amount_confirmed"], "0.000000");
    let transfer = &now["transfers"][0];
    assert!(transfer["id"].as_str().unwrap().starts_with("tx_"));
    for (member, expected) in [
        ("network", json!(NETWORK)),
        ("tx_hash", json!(hash)),
        ("ordinal", json!(0)),
        ("block_number", json!(head.number)),
        ("amount", json!("12.500000")),
        ("raw_value", json!("12500000")),
        ("status", json!("pending")),
        ("confirmations", json!(1)),
    ] {
        assert_eq!(transfer[member], expected, "{member} of {transfer}");
    }
    assert_eq!(evm::address(transfer["from"].as_str().unwrap()), shop.anvil.accounts[0]);
    assert_eq!(evm::address(transfer["to"].as_str().unwrap()), order.address);

    // One block more is not enough; the third settles it.
    shop.anvil.mine(1).await;
    let now = shop.order_has(&order, &json!({ "confirmations": 2 })).await;
    assert_eq!(now["status"], "confirming", "{now}");
    shop.anvil.mine(1).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["exception"], Value::Null);
    assert_eq!(now["amount_received"], "12.500000");
    assert_eq!(now["amount_confirmed"], "12.500000");
    assert_eq!(now["confirmations"], 3);
    assert_eq!(now["transfers"][0]["status"], "confirmed");
    seconds(now["paid_at"].as_str().unwrap());

    // The shop hears of each step once, signed with its secret, with the order as it was then.
    let events = shop.events(&order, &["order.pending", "order.confirming", "order.paid"]).await;
    assert_eq!(events[0]["data"]["status"], "pending");
    assert_eq!(events[0]["data"]["amount_received"], "0.000000");
    assert_eq!(events[1]["data"]["status"], "confirming");
    assert_eq!(events[1]["data"]["amount_received"], "12.500000");
    assert_eq!(events[2]["data"], now, "the paid event carries the order itself");

    // And finds it again by what it knows.
    for filter in [
        format!("tx_hash={hash}"),
        format!("address={}", order.address_text),
        "merchant_order_id=INV-1001".to_owned(),
        "status=paid".to_owned(),
    ] {
        let found = shop.api().all(&format!("/api/v1/orders?{filter}")).await;
        assert_eq!(found, std::slice::from_ref(&now), "{filter}");
    }
}

#[tokio::test]
async fn a_part_and_the_rest_make_a_payment() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    shop.pay(&order, "5").await;
    let now = shop.order_has(&order, &json!({ "amount_received": "5.000000" })).await;
    assert_eq!((&now["status"], &now["exception"]), (&json!("pending"), &json!("underpaid")));
    shop.anvil.mine(2).await;
    let now = shop.order_has(&order, &json!({ "amount_confirmed": "5.000000" })).await;
    assert_eq!(now["status"], "pending", "settled, but not enough: {now}");

    shop.pay(&order, "7.5").await;
    let now = shop.order_is(&order, "confirming").await;
    assert_eq!(now["confirmations"], 1, "the youngest transfer decides: {now}");
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["exception"], Value::Null);
    assert_eq!(now["amount_confirmed"], "12.500000");
    assert_eq!(now["transfers"].as_array().unwrap().len(), 2);
    shop.events(&order, &["order.pending", "order.underpaid", "order.confirming?", "order.paid"]).await;
}

#[tokio::test]
async fn too_much_is_paid_and_then_overpaid() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    shop.pay(&order, "15").await;
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["exception"], "overpaid");
    assert_eq!(now["amount_confirmed"], "15.000000");
    let kinds = ["order.pending", "order.confirming?", "order.paid", "order.overpaid"];
    let events = shop.events(&order, &kinds).await;
    assert_eq!(events.last().unwrap()["data"]["amount_confirmed"], "15.000000");

    // More still, in time: the excess grows, and is announced again.
    shop.pay(&order, "1").await;
    shop.anvil.mine(2).await;
    shop.order_has(&order, &json!({ "amount_confirmed": "16.000000", "status": "paid" })).await;
    shop.events(&order, &[&kinds[..], &["order.overpaid"]].concat()).await;
}

#[tokio::test]
async fn the_last_second_is_on_time() {
    let shop = Shop::open().await;
    let order = shop.order_with(&json!({ "amount": "12.5", "expires_in": 60 })).await;
    shop.anvil.set_next_time(order.deadline_s).await;
    shop.pay(&order, "12.5").await;
    shop.order_is(&order, "confirming").await;
    // The chain passes the deadline while the money settles: it stays this order's.
    shop.anvil.set_next_time(order.deadline_s + 100).await;
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["exception"], Value::Null);
    shop.events(&order, &["order.pending", "order.confirming", "order.paid"]).await;
}

#[tokio::test]
async fn money_after_the_deadline_pays_when_the_shop_accepts_it() {
    let shop = Shop::open().await;
    let order = shop.order_with(&json!({ "amount": "12.5", "expires_in": 60 })).await;
    shop.anvil.set_next_time(order.deadline_s + 1).await;
    shop.anvil.mine(3).await;
    let now = shop.order_is(&order, "expired").await;
    assert_eq!(now["exception"], Value::Null);

    let hash = shop.pay(&order, "12.5").await;
    shop.caught_up().await;
    let now = shop.get(&order).await;
    assert_eq!(now["status"], "expired", "late money counts only when settled: {now}");
    assert_eq!(now["amount_received"], "0.000000");
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["exception"], "late");
    assert_eq!(now["amount_received"], "12.500000");
    assert_eq!(now["amount_confirmed"], "12.500000");
    assert_eq!(now["transfers"][0]["tx_hash"], hash);
    shop.events(&order, &["order.pending", "order.expired", "order.late_payment", "order.paid"]).await;
}

#[tokio::test]
async fn money_after_the_deadline_is_only_shown_when_the_shop_does_not_accept_it() {
    let shop = Shop::open_with(|settings| settings.orders = "accept_late = false".to_owned()).await;
    let order = shop.order_with(&json!({ "amount": "12.5", "expires_in": 60 })).await;
    shop.anvil.set_next_time(order.deadline_s + 1).await;
    shop.anvil.mine(3).await;
    shop.order_is(&order, "expired").await;
    let hash = shop.pay(&order, "12.5").await;
    shop.anvil.mine(2).await;
    shop.events(&order, &["order.pending", "order.expired", "order.late_payment"]).await;
    let now = shop.get(&order).await;
    assert_eq!((&now["status"], &now["exception"]), (&json!("expired"), &json!("late")));
    assert_eq!(now["amount_received"], "0.000000");
    assert_eq!(now["amount_confirmed"], "0.000000");
    assert_eq!(now["transfers"][0]["tx_hash"], hash, "shown on the order all the same: {now}");
    assert_eq!(now["paid_at"], Value::Null);
}

#[tokio::test]
async fn an_order_expires_by_the_settled_chain_and_not_by_the_clock() {
    let shop = Shop::open().await;
    let order = shop.order_with(&json!({ "amount": "12.5", "expires_in": 1 })).await;
    // Our clock passes the deadline, the chain stands still: nothing expires.
    until_clock_passes(order.deadline_s + 2).await;
    assert_eq!(shop.get(&order).await["status"], "pending");

    // Money in a block with a time before the deadline, read long after: on time.
    shop.anvil.set_next_time(order.deadline_s).await;
    shop.pay(&order, "2.5").await;
    shop.order_has(&order, &json!({ "amount_received": "2.500000", "exception": "underpaid" })).await;

    // The head passes the deadline, the settled chain does not yet.
    shop.anvil.set_next_time(order.deadline_s + 1).await;
    shop.anvil.mine(1).await;
    shop.order_has(&order, &json!({ "confirmations": 2, "status": "pending" })).await;
    shop.anvil.mine(1).await;
    shop.order_has(&order, &json!({ "confirmations": 3, "status": "pending" })).await;
    shop.anvil.mine(1).await;
    let now = shop.order_is(&order, "expired").await;
    assert_eq!(now["exception"], "underpaid", "what it holds stays in the books");
    assert_eq!(now["amount_confirmed"], "2.500000");
    shop.events(&order, &["order.pending", "order.underpaid", "order.expired"]).await;
}

#[tokio::test]
async fn downtime_expires_nobody_who_paid() {
    let mut shop = Shop::open().await;
    let order = shop.order_with(&json!({ "amount": "12.5", "expires_in": 60 })).await;
    shop.gateway.kill();
    shop.anvil.set_next_time(order.deadline_s).await;
    shop.pay(&order, "12.5").await;
    shop.anvil.set_next_time(order.deadline_s + 1000).await;
    shop.anvil.mine(50).await;
    shop.start_again().await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["exception"], Value::Null);
    let events = shop.events(&order, &["order.pending", "order.confirming?", "order.paid"]).await;
    assert_eq!(events.last().unwrap()["data"]["status"], "paid");
}

#[tokio::test]
async fn one_transaction_pays_two_orders() {
    let shop = Shop::open().await;
    let (a, b) = (shop.order("12.5").await, shop.order("7").await);
    assert_ne!(a.address, b.address, "two orders, two wallets");
    let hash = shop.pay_batch(&[(b.address, "7"), ([0x77; 20], "1"), (a.address, "12.5")]).await;
    assert!(shop.anvil.succeeded(&hash).await);
    shop.anvil.mine(2).await;
    for (order, amount, ordinal) in [(&b, "7.000000", 0), (&a, "12.500000", 2)] {
        let now = shop.order_is(order, "paid").await;
        assert_eq!(now["amount_confirmed"], amount);
        let transfer = &now["transfers"][0];
        assert_eq!((&transfer["tx_hash"], &transfer["ordinal"]), (&json!(hash), &json!(ordinal)));
        shop.events(order, &["order.pending", "order.confirming?", "order.paid"]).await;
    }
}

#[tokio::test]
async fn one_transaction_pays_an_order_twice() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    // The same value twice: told apart by their place in the transaction alone.
    shop.pay_batch(&[(order.address, "6.25"), (order.address, "6.25")]).await;
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["exception"], Value::Null);
    let transfers = now["transfers"].as_array().unwrap();
    let mut ordinals: Vec<u64> = transfers.iter().map(|t| t["ordinal"].as_u64().unwrap()).collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, [0, 1], "{now}");
    assert_eq!(shop.anvil.balance(shop.tokens.usdt, order.address).await, 12_500_000);
}

#[tokio::test]
async fn a_look_alike_token_is_nothing() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    let transfer = evm::call("transfer(address,uint256)", &[Arg::Address(order.address), Arg::Uint(12_500_000)]);
    let shout = evm::call("shout(address,address,uint256)", &[Arg::Address([0x99; 20]), Arg::Address(order.address), Arg::Uint(u128::MAX)]);
    for call in [transfer, shout] {
        let hash = shop.anvil.send(shop.anvil.accounts[2], Some(shop.tokens.fake), &call).await;
        shop.anvil.mine(1).await;
        assert!(shop.anvil.succeeded(&hash).await);
    }
    shop.settled().await;
    untouched(&shop, &order).await;
    pays_normally(&shop, &order).await;
}

#[tokio::test]
async fn a_transfer_that_was_taken_back_is_nothing() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    let call =
        |signature: &str| evm::call(signature, &[Arg::Address(shop.tokens.usdt), Arg::Address(order.address), Arg::Uint(12_500_000)]);
    // The whole transaction fails; a part of it is taken back; the payer has nothing to send.
    let failed = shop.call_batch(&call("payThenRevert(address,address,uint256)")).await;
    assert!(!shop.anvil.succeeded(&failed).await);
    let in_vain = shop.call_batch(&call("payInVain(address,address,uint256)")).await;
    assert!(shop.anvil.succeeded(&in_vain).await);
    let transfer = evm::call("transfer(address,uint256)", &[Arg::Address(order.address), Arg::Uint(12_500_000)]);
    let poor = shop.anvil.send(shop.anvil.accounts[5], Some(shop.tokens.usdt), &transfer).await;
    shop.anvil.mine(1).await;
    assert!(!shop.anvil.succeeded(&poor).await);

    shop.settled().await;
    untouched(&shop, &order).await;
    pays_normally(&shop, &order).await;
}

#[tokio::test]
async fn zero_is_nothing_but_keeps_its_place() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    shop.pay(&order, "0").await;
    shop.settled().await;
    untouched(&shop, &order).await;

    // Zeros come before the money in one transaction: they count for its ordinal only.
    let hash = shop.pay_batch(&[(order.address, "0"), ([0x77; 20], "0"), (order.address, "12.5")]).await;
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    let transfers = now["transfers"].as_array().unwrap();
    assert_eq!(transfers.len(), 1, "{now}");
    assert_eq!((&transfers[0]["tx_hash"], &transfers[0]["ordinal"]), (&json!(hash), &json!(2)));
}

#[tokio::test]
async fn odd_logs_of_the_token_stop_nothing() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    let call = evm::call(
        "oddThenPay(address,address,uint256)",
        &[Arg::Address(shop.tokens.usdt), Arg::Address(order.address), Arg::Uint(12_500_000)],
    );
    let hash = shop.call_batch(&call).await;
    assert!(shop.anvil.succeeded(&hash).await);
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["amount_confirmed"], "12.500000");
    let honest: Vec<&Value> = now["transfers"].as_array().unwrap().iter().filter(|t| t["amount"] == "12.500000").collect();
    assert_eq!(honest.len(), 1, "{now}");
    assert_eq!(honest[0]["ordinal"], 4, "the four odd logs before it have their places: {now}");
}

#[tokio::test]
async fn a_reorg_takes_a_payment_back_silently_and_it_may_come_again() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    let raw = shop.signed(&order, "12.5").await;
    let hash = shop.anvil.send_raw(&raw).await;
    shop.anvil.mine(2).await;
    shop.order_has(&order, &json!({ "status": "confirming", "confirmations": 2 })).await;

    // Both blocks are replaced by empty ones, and the chain grows on from there.
    shop.anvil.reorg(2, &[]).await;
    assert_eq!(shop.anvil.receipt(&hash).await, None);
    shop.anvil.mine(1).await;
    let now = shop.order_is(&order, "pending").await;
    assert_eq!(now["amount_received"], "0.000000");
    assert_eq!(now["exception"], Value::Null);
    assert_eq!(now["transfers"][0]["status"], "orphaned", "orphaned transfers stay listed: {now}");
    // Two settled blocks later it is still unpaid: nothing was kept of the lost branch.
    shop.settled().await;
    assert_eq!(shop.get(&order).await["status"], "pending");
    let silent = ["order.pending", "order.confirming"];
    shop.events(&order, &silent).await;

    // The same signed transaction is mined after all, in another block.
    assert_eq!(shop.anvil.send_raw(&raw).await, hash);
    shop.anvil.mine(3).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["amount_confirmed"], "12.500000");
    let transfers = now["transfers"].as_array().unwrap();
    let standing: Vec<&Value> = transfers.iter().filter(|t| t["status"] == "confirmed").collect();
    assert_eq!(standing.len(), 1, "{now}");
    assert_eq!(standing[0]["tx_hash"], hash);
    // Entering confirming again is a new event; being paid happens once.
    shop.events(&order, &[&silent[..], &["order.confirming?", "order.paid"]].concat()).await;
}

#[tokio::test]
async fn a_reorg_that_keeps_the_payment_says_nothing() {
    let shop = Shop::open().await;
    let order = shop.order("12.5").await;
    let raw = shop.signed(&order, "12.5").await;
    let hash = shop.anvil.send_raw(&raw).await;
    shop.anvil.mine(2).await;
    let before = shop.order_has(&order, &json!({ "status": "confirming", "confirmations": 2 })).await;

    // The new branch holds the same transaction one block later; its identity stays.
    shop.anvil.reorg(2, &[(&raw, 1)]).await;
    shop.anvil.mine(1).await;
    let block = before["transfers"][0]["block_number"].as_u64().unwrap();
    let now = eventually("the transfer has moved to its new block", async || {
        let now = shop.get(&order).await;
        let moved = now["transfers"].as_array().unwrap().iter().any(|t| t["block_number"] == block + 1 && t["status"] == "pending");
        if moved { Ok(now) } else { Err(now) }
    })
    .await;
    assert_eq!(now["status"], "confirming", "{now}");
    assert_eq!(now["amount_received"], "12.500000", "not counted twice: {now}");
    shop.anvil.mine(1).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["amount_confirmed"], "12.500000");
    assert!(now["transfers"].as_array().unwrap().iter().all(|t| t["tx_hash"] == hash), "{now}");
    shop.events(&order, &["order.pending", "order.confirming", "order.paid"]).await;
}

#[tokio::test]
async fn a_killed_process_catches_up_with_three_hundred_blocks() {
    let mut shop = Shop::open().await;
    let (before, middle, last) = (shop.order("1").await, shop.order("2").await, shop.order("3").await);
    shop.pay(&before, "1").await;
    shop.order_is(&before, "confirming").await;
    shop.gateway.kill();

    shop.anvil.mine(100).await;
    shop.pay(&middle, "2").await;
    shop.anvil.mine(198).await;
    shop.pay(&last, "3").await;
    shop.start_again().await;

    shop.order_is(&before, "paid").await;
    shop.order_is(&middle, "paid").await;
    shop.order_has(&last, &json!({ "status": "confirming", "confirmations": 1 })).await;
    shop.anvil.mine(2).await;
    shop.order_is(&last, "paid").await;
    for order in [&before, &middle, &last] {
        shop.events(order, &["order.pending", "order.confirming?", "order.paid"]).await;
    }
}

#[tokio::test]
async fn a_reorg_during_downtime_is_found_at_the_start() {
    let mut shop = Shop::open().await;
    let order = shop.order("12.5").await;
    shop.anvil.send_raw(&shop.signed(&order, "12.5").await).await;
    shop.anvil.mine(1).await;
    shop.order_is(&order, "confirming").await;
    shop.gateway.kill();
    shop.anvil.reorg(1, &[]).await;
    shop.anvil.mine(20).await;
    shop.start_again().await;
    let now = shop.order_is(&order, "pending").await;
    assert_eq!(now["amount_received"], "0.000000");
    pays_normally(&shop, &order).await;
}

#[tokio::test]
async fn late_money_on_a_paid_order_changes_nothing() {
    let shop = Shop::open().await;
    let order = shop.order_with(&json!({ "amount": "12.5", "expires_in": 60 })).await;
    shop.pay(&order, "12.5").await;
    shop.anvil.mine(2).await;
    let paid = shop.order_is(&order, "paid").await;
    shop.anvil.set_next_time(order.deadline_s + 10).await;
    shop.pay(&order, "3").await;
    shop.anvil.mine(2).await;
    shop.events(&order, &["order.pending", "order.confirming?", "order.paid", "order.late_payment"]).await;
    let now = shop.get(&order).await;
    for member in ["status", "exception", "amount_received", "amount_confirmed", "paid_at"] {
        assert_eq!(now[member], paid[member], "{member}: {now}");
    }
    assert_eq!(now["transfers"].as_array().unwrap().len(), 2, "but it is shown: {now}");
}

#[tokio::test]
async fn cancelling_is_for_orders_without_money() {
    let shop = Shop::open().await;
    let cancel = async |order: &Order| {
        let path = format!("/api/v1/orders/{}/cancel", order.id);
        shop.api().post(&path, &json!({ "reason": "changed my mind" })).await
    };

    // Money stands on the chain, settled or not: too late to cancel.
    let held = shop.order("12.5").await;
    shop.pay(&held, "1").await;
    shop.order_has(&held, &json!({ "amount_received": "1.000000" })).await;
    cancel(&held).await.problem(409, "payment_in_progress");
    shop.pay(&held, "11.5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&held, "paid").await;
    cancel(&held).await.some_problem(409);

    // No money: cancelled, and again the same answer.
    let order = shop.order("12.5").await;
    let first = cancel(&order).await.expect(200).json();
    assert_eq!(first["status"], "cancelled");
    seconds(first["cancelled_at"].as_str().unwrap());
    assert_eq!(cancel(&order).await.expect(200).json(), first);

    // Money for it afterwards is shown, never counted.
    shop.pay(&order, "12.5").await;
    shop.anvil.mine(2).await;
    shop.events(&order, &["order.pending", "order.cancelled", "order.late_payment"]).await;
    let now = shop.get(&order).await;
    assert_eq!((&now["status"], &now["exception"]), (&json!("cancelled"), &json!("late")));
    assert_eq!(now["amount_received"], "0.000000");
    assert_eq!(now["transfers"].as_array().unwrap().len(), 1, "{now}");
}

#[tokio::test]
async fn the_payer_may_choose_the_network() {
    let shop = Shop::open().await;
    let created = shop.api().post("/api/v1/orders", &json!({ "amount": "12.5" })).await.expect(201).json();
    for member in ["network", "address", "wallet_id", "confirmations_required"] {
        assert_eq!(created[member], Value::Null, "{member} of {created}");
    }
    assert_eq!(created["payment_options"], json!([]));
    let path = format!("/api/v1/orders/{}/options", created["id"].as_str().unwrap());
    let chosen = shop.api().post(&path, &json!({ "network": NETWORK })).await.expect(200).json();
    let again = shop.api().post(&path, &json!({ "network": NETWORK })).await.expect(200).json();
    assert_eq!(chosen["address"], again["address"], "leased once");
    assert_eq!(again["payment_options"].as_array().unwrap().len(), 1);
    let order = Order::of(&chosen);
    pays_normally(&shop, &order).await;
    shop.api().post(&path, &json!({ "network": NETWORK })).await.problem(409, "order_not_pending");
}

#[tokio::test]
async fn a_token_with_eighteen_decimals_is_counted_exactly() {
    let shop = Shop::open_with(|settings| settings.decimals = 18).await;
    let order = shop.order("12.5").await;
    // Base units below a millionth add up: two halves of the last millionth make it whole.
    shop.pay(&order, "12.4999995").await;
    shop.anvil.mine(2).await;
    let now = shop.order_has(&order, &json!({ "amount_confirmed": "12.499999" })).await;
    assert_eq!((&now["status"], &now["exception"]), (&json!("pending"), &json!("underpaid")));
    assert_eq!(now["transfers"][0]["raw_value"], "12499999500000000000");
    shop.pay(&order, "0.0000005").await;
    shop.anvil.mine(2).await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["amount_confirmed"], "12.500000");
    assert_eq!(now["exception"], Value::Null);
}

#[tokio::test]
async fn final_means_what_the_node_calls_final() {
    // Anvil calls the block two below its head final.
    let shop = Shop::open_with(|settings| settings.confirmations = "\"final\"".to_owned()).await;
    let order = shop.order("12.5").await;
    assert_eq!(shop.get(&order).await["confirmations_required"], "final");
    shop.pay(&order, "12.5").await;
    shop.order_is(&order, "confirming").await;
    shop.anvil.mine(1).await;
    let now = shop.order_has(&order, &json!({ "confirmations": 2 })).await;
    assert_eq!(now["status"], "confirming", "{now}");
    shop.anvil.mine(1).await;
    shop.order_is(&order, "paid").await;
}

#[tokio::test]
async fn more_money_needs_more_confirmations() {
    let shop = Shop::open_with(|settings| {
        settings.more = format!("[[networks.{NETWORK}.confirmation_tiers]]\nabove = \"100\"\nconfirmations = 6\n");
    })
    .await;
    let (small, large) = (shop.order("100").await, shop.order("100.000001").await);
    assert_eq!(shop.get(&small).await["confirmations_required"], 3);
    assert_eq!(shop.get(&large).await["confirmations_required"], 6);
    shop.pay_batch(&[(small.address, "100"), (large.address, "100.000001")]).await;
    shop.anvil.mine(4).await;
    shop.order_is(&small, "paid").await;
    shop.order_has(&large, &json!({ "status": "confirming", "confirmations": 5 })).await;
    shop.anvil.mine(1).await;
    shop.order_is(&large, "paid").await;
}

#[tokio::test]
async fn a_delivery_that_failed_is_tried_again_with_the_same_body() {
    let shop = Shop::open().await;
    shop.receiver.fail_next(1);
    let order = shop.order("12.5").await;
    let retried = eventually("the first event is tried again and arrives", async || {
        let seen = shop.receiver.deliveries_of(&order.id);
        if seen.len() >= 2 { Ok(seen) } else { Err(seen.len()) }
    })
    .await;
    let (first, second) = (&retried[0], &retried[1]);
    assert_eq!((first.answered, second.answered), (500, 204));
    assert_eq!(first.id, second.id, "an event keeps its id");
    assert_eq!(first.body, second.body, "and its body");
    // From the event on: a busy machine may be late with the first try, and not with the second.
    let waited_s = second.timestamp.parse::<u64>().unwrap() - seconds(first.json()["timestamp"].as_str().unwrap());
    assert!((4..=15).contains(&waited_s), "the second try comes 5 s after the event, not {waited_s}");
    shop.events(&order, &["order.pending"]).await;
}

#[tokio::test]
async fn a_dead_receiver_delays_no_other() {
    let shop = Shop::open().await;
    let dead = Receiver::start().await;
    dead.hang();
    let mut stuck = Vec::new();
    for _ in 0..20 {
        stuck.push(shop.order_with(&json!({ "amount": "1", "callback_url": dead.url })).await);
    }
    dead.event(&stuck[0].id, "order.pending").await;
    let start_s = now_s();
    let order = shop.order("12.5").await;
    shop.events(&order, &["order.pending"]).await;
    assert!(now_s() - start_s < 5, "took {} s beside a dead receiver", now_s() - start_s);
    assert!(shop.receiver.deliveries_of(&stuck[0].id).is_empty(), "callback_url replaces the merchant's");
}

#[tokio::test]
async fn events_that_were_never_taken_survive_a_kill() {
    let mut shop = Shop::open().await;
    let order = shop.order("12.5").await;
    shop.events(&order, &["order.pending"]).await;
    shop.pay(&order, "12.5").await;
    shop.order_is(&order, "confirming").await;
    shop.anvil.mine(2).await;
    // Killed the moment it is paid, whether or not the news got out.
    shop.order_is(&order, "paid").await;
    shop.restart().await;
    shop.events(&order, &["order.pending", "order.confirming?", "order.paid"]).await;
}

/// Nothing has happened to the order: no money, no event but its creation.
async fn untouched(shop: &Shop, order: &Order) {
    let now = shop.get(order).await;
    for (member, expected) in
        [("status", json!("pending")), ("exception", Value::Null), ("amount_received", json!("0.000000")), ("transfers", json!([]))]
    {
        assert_eq!(now[member], expected, "{member} of {now}");
    }
    shop.events(order, &["order.pending"]).await;
}

/// An order for 12.5 that has seen strange things can still be paid.
async fn pays_normally(shop: &Shop, order: &Order) {
    shop.pay(order, "12.5").await;
    shop.anvil.mine(2).await;
    let now = shop.order_is(order, "paid").await;
    assert_eq!(now["amount_confirmed"], "12.500000");
    assert_eq!(now["exception"], Value::Null);
}
