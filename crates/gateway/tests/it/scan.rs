//! What was missed is found again: by `tidegate scan`, and by the second reader by itself. The
//! database loses a payment by somebody's hand; the chain still has it.

use serde_json::{Value, json};

use crate::gateway::{Home, NETWORK, Settings};
use crate::operator::{Operator, look, tamper};
use crate::shop::{Order, Shop};
use crate::wait::eventually;

/// Takes an order's money out of the books, as if its block had been read badly.
async fn lose_the_money_of(shop: &Shop, order: &Order) {
    let ids = format!("(SELECT id FROM blockchain_transactions WHERE order_id = '{}')", order.id);
    let sql = format!(
        "DELETE FROM journal WHERE transfer_id IN {ids}; DELETE FROM transfer_keys WHERE transfer_id IN {ids}; \
         DELETE FROM blockchain_transactions WHERE order_id = '{id}'; \
         UPDATE usdt_payment_orders SET status = 'pending', amount_received = 0, amount_confirmed = 0, paid_at = NULL, paid_by = NULL, \
         version = version + 1 WHERE id = '{id}'",
        id = order.id
    );
    tamper(&shop.home, &sql).await;
    let now = look(&shop.home, &format!("SELECT status, amount_received FROM usdt_payment_orders WHERE id = '{}'", order.id)).await;
    assert_eq!(now, "pending|0");
}

/// Everything that a second scan must leave alone.
async fn books(home: &Home) -> String {
    let mut books = String::new();
    for sql in [
        "SELECT * FROM blockchain_transactions ORDER BY id",
        "SELECT * FROM transfer_keys ORDER BY tx_hash, ordinal",
        "SELECT * FROM journal ORDER BY transfer_id, turn",
        "SELECT id, status, version FROM usdt_payment_orders ORDER BY id",
        "SELECT id, kind, about, status FROM alerts ORDER BY id",
        "SELECT id, kind FROM events ORDER BY seq",
        "SELECT * FROM networks",
    ] {
        books += &look(home, sql).await;
        books += "\n--\n";
    }
    books
}

fn scan(home: &Home, from: u64, to: u64) -> Value {
    home.json(&["scan", "--network", NETWORK, "--from", &from.to_string(), "--to", &to.to_string()])
}

#[tokio::test]
async fn a_scan_finds_what_was_missed_and_changes_nothing_else_on_sqlite() {
    a_scan_finds_what_was_missed(|_| ()).await;
}

#[tokio::test]
async fn a_scan_finds_what_was_missed_and_changes_nothing_else_on_postgres() {
    a_scan_finds_what_was_missed(|settings| settings.postgres = true).await;
}

async fn a_scan_finds_what_was_missed(adjust: impl FnOnce(&mut Settings)) {
    let mut shop = Shop::open_with(|settings| {
        settings.network = "reconcile = \"off\"".to_owned();
        adjust(settings);
    })
    .await;
    let operator = Operator::of(&shop);
    let first = shop.anvil.head().await.number;
    let (missed, kept) = (shop.order("5").await, shop.order("7").await);
    let hash = shop.pay(&missed, "5").await;
    shop.pay(&kept, "7").await;
    shop.anvil.mine(2).await;
    shop.order_is(&missed, "paid").await;
    shop.order_is(&kept, "paid").await;
    let tip = shop.anvil.head().await.number;

    // Beside a gateway that runs: it takes over what was found and settles it.
    lose_the_money_of(&shop, &missed).await;
    assert_eq!(scan(&shop.home, first, tip), json!({ "blocks": tip - first + 1, "transfers": 2, "mended": 1 }));
    let now = shop.order_is(&missed, "paid").await;
    assert_eq!((&now["amount_confirmed"], &now["transfers"][0]["tx_hash"]), (&json!("5.000000"), &json!(hash)), "{now}");
    let alert = operator.alert(&shop, "transfer_missed", hash.trim_start_matches("0x")).await;
    assert_eq!(alert["severity"], "critical", "{alert}");
    assert_eq!(operator.alerts(&shop, "transfer_missed").await.len(), 1);

    // Without one: what was found waits in the database for the next that runs.
    shop.gateway.terminate().await;
    lose_the_money_of(&shop, &missed).await;
    let found = scan(&shop.home, first, tip);
    assert_eq!((&found["transfers"], &found["mended"]), (&json!(2), &json!(1)), "{found}");
    let before = books(&shop.home).await;
    let found = scan(&shop.home, first, tip);
    assert_eq!((&found["transfers"], &found["mended"]), (&json!(2), &json!(0)), "{found}");
    assert_eq!(books(&shop.home).await, before, "a second scan changes nothing");
    shop.start_again().await;
    shop.order_is(&missed, "paid").await;
    assert_eq!(scan(&shop.home, first, tip)["mended"], 0);

    // What cannot be scanned is refused, with what was expected.
    let (high, low, above) = (tip.to_string(), first.to_string(), (tip + 1).to_string());
    for (network, from, to, word) in [
        (NETWORK, high.as_str(), low.as_str(), "expected --from not above --to"),
        (NETWORK, low.as_str(), above.as_str(), tip.to_string().as_str()),
        ("nowhere", low.as_str(), high.as_str(), NETWORK),
    ] {
        let refused = shop.home.run(&["scan", "--network", network, "--from", from, "--to", to]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(word), "no {word} in {refused:?}");
    }
    let fresh = Home::new(&Settings::new(&shop.anvil.url, shop.tokens.usdt));
    let refused = fresh.run(&["scan", "--network", NETWORK, "--from", "1", "--to", "2"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("never followed"), "{refused:?}");
}

/// The last block that the second reader has compared, by the database.
async fn compared(shop: &Shop) -> u64 {
    look(&shop.home, "SELECT compared FROM second_readers").await.parse().unwrap_or(0)
}

async fn compared_is(shop: &Shop, number: u64) {
    eventually(&format!("the second reader has compared {number}"), async || {
        let now = compared(shop).await;
        if now == number { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn the_second_reader_finds_what_was_missed_and_what_is_not_on_the_chain_on_sqlite() {
    the_second_reader_finds(Shop::open().await).await;
}

#[tokio::test]
async fn the_second_reader_finds_what_was_missed_and_what_is_not_on_the_chain_on_postgres() {
    the_second_reader_finds(Shop::open_with(|settings| settings.postgres = true).await).await;
}

async fn the_second_reader_finds(mut shop: Shop) {
    let operator = Operator::of(&shop);
    let order = shop.order("5").await;
    let hash = shop.pay(&order, "5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
    let settled = shop.anvil.head().await.number - 2;

    // While the gateway is down the books lose a payment and gain one that never was.
    shop.gateway.kill();
    let invented = "ab".repeat(32);
    let columns = "network, block_number, block_hash, block_time, from_address, from_hex, to_address, to_hex, amount, raw_value, decimals, \
                   status, wallet_id, proven, promoted, by_hand, late_told, raw_log, seen_at, version";
    let sql = format!(
        "INSERT INTO blockchain_transactions (id, tx_hash, ordinal, disposition, {columns}) SELECT 'tx_{}', '{invented}', 0, 'stray', \
         {columns} FROM blockchain_transactions WHERE order_id = '{}'; \
         INSERT INTO transfer_keys (network, tx_hash, ordinal, transfer_id) VALUES ('{NETWORK}', '{invented}', 0, 'tx_{}'); \
         DELETE FROM second_readers",
        "0".repeat(32),
        order.id,
        "0".repeat(32)
    );
    tamper(&shop.home, &sql).await;
    lose_the_money_of(&shop, &order).await;
    shop.start_again().await;
    let now = shop.order_is(&order, "paid").await;
    assert_eq!(now["transfers"][0]["tx_hash"], hash);
    operator.alert(&shop, "transfer_missed", hash.trim_start_matches("0x")).await;
    let alert = operator.alert(&shop, "reread_differs", &invented).await;
    assert!(alert["detail"].as_str().unwrap().contains("not in it"), "{alert}");
    compared_is(&shop, settled).await;
    assert_eq!(shop.health().await["reconciled"], settled);
    assert_eq!(operator.alerts(&shop, "transfer_missed").await.len() + operator.alerts(&shop, "reread_differs").await.len(), 2);

    // Its place survives a kill: it goes on above it, and below nothing is read again.
    shop.anvil.mine(4).await;
    shop.applied(settled + 6).await;
    shop.gateway.kill();
    let place = compared(&shop).await;
    lose_the_money_of(&shop, &order).await;
    shop.start_again().await;
    compared_is(&shop, settled + 4).await;
    assert!(place >= settled, "it was at {place}");
    assert_eq!(shop.get(&order).await["status"], "pending", "what was compared already is not read again");

    // Off, it does nothing, wherever it was.
    shop.gateway.kill();
    tamper(&shop.home, "DELETE FROM second_readers").await;
    let config = std::fs::read_to_string(shop.home.config_file()).unwrap();
    shop.home.configure(&config.replace("max_lag =", "reconcile = \"off\"\nmax_lag ="));
    shop.start_again().await;
    shop.settled().await;
    assert_eq!((compared(&shop).await, shop.get(&order).await["status"].clone()), (0, json!("pending")));
    assert_eq!(shop.health().await["reconciled"], Value::Null);
}

/// How far below the tip the last final block of this chain is.
const FINAL_BELOW_TIP: u64 = 2;

/// A shop whose network is halted by a fork below a final block. Gives the highest block that both
/// branches have.
async fn halted(depth: u64) -> (Shop, Operator, u64) {
    let shop = Shop::open_with(|settings| settings.poll_interval = "50ms").await;
    let operator = Operator::of(&shop);
    shop.anvil.mine(depth + 2).await;
    let tip = shop.anvil.head().await.number;
    shop.health_is(&json!({ "head": tip, "finalized": tip - FINAL_BELOW_TIP })).await;
    shop.anvil.reorg(depth, &[]).await;
    let now = shop.health_is(&json!({ "following": "halted" })).await;
    assert!(now["halted"].as_str().unwrap().contains("final") && now["status"] == "unhealthy", "{now}");
    operator.alert(&shop, "network_halted", NETWORK).await;
    (shop, operator, tip - depth)
}

#[tokio::test]
async fn a_halted_network_goes_on_from_a_block_that_both_branches_have() {
    let (mut shop, operator, common) = halted(6).await;
    let resume = |ancestor: u64, more: &[&str]| {
        let ancestor = ancestor.to_string();
        let args = ["resume", "--network", NETWORK, "--ancestor", &ancestor, "--reason", "compared with two explorers"];
        shop.home.run(&[&args, more].concat())
    };
    let refused = resume(common, &[]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--yes"), "{refused:?}");
    for (ancestor, word) in [(common + 1, "one branch only"), (common + 1_000, "blocks that are kept")] {
        let refused = resume(ancestor, &["--yes"]);
        assert!(refused.code == Some(1) && refused.stderr.contains(word), "no {word}: {refused:?}");
    }
    assert_eq!(shop.health().await["following"], "halted");
    assert_eq!(operator.api(&shop).all("/api/v1/admin/audit?action=network.resume").await, Vec::<Value>::new());

    let done = resume(common, &["--yes", "--json"]).succeeded();
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&said["ok"], &said["ancestor"]), (&json!(true), &json!(common)), "{said}");

    // The gateway that runs goes on by itself, and takes orders and money again.
    shop.health_is(&json!({ "following": "following", "halted": null })).await;
    let order = shop.order("3").await;
    shop.pay(&order, "3").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;
    let log = operator.api(&shop).all("/api/v1/admin/audit?action=network.resume").await;
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!((&log[0]["subject"], &log[0]["reason"]), (&json!(NETWORK), &json!("compared with two explorers")));
    assert_eq!(log[0]["detail"]["ancestor"], common);
    shop.restart().await;
    assert_eq!(shop.health().await["following"], "following");
    assert_eq!(shop.home.json(&["audit", "verify"])["ok"], true);
}
