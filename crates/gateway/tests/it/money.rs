//! What the gateway says about transactions, balances and fees, and what it notices when money is
//! where the books do not have it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::anvil::{Anvil, PAYER_KEY};
use crate::dev::Sandbox;
use crate::evm::{self, Arg};
use crate::gateway::{Home, NETWORK};
use crate::operator::{Operator, look};
use crate::proxy::{Mood, Proxy};
use crate::shop::{Order, Shop};
use crate::wait::eventually;

/// A token transfer by `from`, whoever that is, mined.
async fn transfer(shop: &Shop, from: evm::Address, to: evm::Address, amount: &str) -> String {
    let call = evm::call("transfer(address,uint256)", &[Arg::Address(to), Arg::Uint(shop.units(amount))]);
    let hash = shop.anvil.send(from, Some(shop.tokens.usdt), &call).await;
    shop.anvil.mine(1).await;
    hash
}

/// Somebody has a pool wallet's key and spends what is on it.
async fn steal(shop: &Shop, wallet: &Order, amount: &str) {
    let from = evm::text(wallet.address);
    shop.anvil.rpc("anvil_impersonateAccount", json!([from])).await;
    shop.anvil.rpc("anvil_setBalance", json!([from, "0xde0b6b3a7640000"])).await;
    let hash = transfer(shop, wallet.address, shop.anvil.accounts[5], amount).await;
    assert!(shop.anvil.succeeded(&hash).await);
}

fn hashes(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().map(|row| row["tx_hash"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn transactions_are_listed_by_every_filter_and_page_by_page_on_sqlite() {
    transactions_are_listed(Shop::open().await).await;
}

#[tokio::test]
async fn transactions_are_listed_by_every_filter_and_page_by_page_on_postgres() {
    transactions_are_listed(Shop::open_with(|settings| settings.postgres = true).await).await;
}

async fn transactions_are_listed(shop: Shop) {
    let operator = Operator::of(&shop);
    let api = operator.api(&shop);
    let (paid, other) = (shop.order("5").await, shop.order("7").await);
    let first = shop.pay(&paid, "5").await;
    let second = shop.pay(&other, "1").await;
    let third = shop.pay(&other, "6").await;
    shop.anvil.mine(2).await;
    shop.order_is(&other, "paid").await;
    shop.order_is(&paid, "paid").await;
    let fourth = shop.pay(&other, "0.5").await;
    eventually("the fourth is seen", async || {
        let count = api.all("/api/v1/admin/transactions").await.len();
        if count == 4 { Ok(()) } else { Err(count) }
    })
    .await;

    let list = api.get(&format!("/api/v1/admin/transactions?tx_hash={second}")).await.expect(200).json();
    let row = &list["data"][0];
    for (member, expected) in [
        ("network", json!(NETWORK)),
        ("tx_hash", json!(second)),
        ("amount", json!("1.000000")),
        ("raw_value", json!("1000000")),
        ("status", json!("confirmed")),
        ("disposition", json!("matched")),
        ("order_id", json!(other.id)),
        ("wallet_id", json!(other.wallet_id)),
        ("to", json!(other.address_text)),
    ] {
        assert_eq!(row[member], expected, "{member} of {row}");
    }
    let (time, all) = (row["block_time"].as_str().unwrap(), [&first, &second, &third, &fourth]);
    let (before, after) = ("2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
    for (filter, expected) in [
        (String::new(), &all[..]),
        (format!("network={NETWORK}"), &all[..]),
        ("network=tron".to_owned(), &[]),
        ("disposition=matched".to_owned(), &all[..]),
        ("disposition=stray".to_owned(), &[]),
        ("status=confirmed".to_owned(), &all[..3]),
        ("status=pending".to_owned(), &all[3..]),
        ("status=failed".to_owned(), &[]),
        (format!("address={}", other.address_text), &all[1..]),
        (format!("address={}", other.address_text.to_lowercase()), &all[1..]),
        (format!("order_id={}", paid.id), &all[..1]),
        (format!("tx_hash={}", second.to_uppercase().replace("0X", "0x")), &all[1..2]),
        (format!("from={before}&to={after}"), &all[..]),
        (format!("from={after}"), &[]),
        (format!("to={before}"), &[]),
        (format!("from={time}&to={time}&tx_hash={second}"), &all[1..2]),
    ] {
        let found = api.all(&format!("/api/v1/admin/transactions?{filter}")).await;
        assert_eq!(hashes(&found), expected.iter().map(|hash| (*hash).clone()).collect(), "{filter}");
    }
    for wrong in
        ["disposition=gone", "status=lost", "order_id=ord_1", "tx_hash=0x12", "from=yesterday", "limit=0", "limit=201", "cursor=%21", "x=1"]
    {
        api.get(&format!("/api/v1/admin/transactions?{wrong}")).await.some_problem(422);
    }

    // Pages of one, the last seen first, nothing twice and nothing left out; of a wallet, too.
    let paged = api.all("/api/v1/admin/transactions?limit=1").await;
    let order: Vec<&str> = paged.iter().map(|row| row["tx_hash"].as_str().unwrap()).collect();
    assert_eq!(order, [&fourth, &third, &second, &first]);
    let of_wallet = api.all(&format!("/api/v1/admin/wallets/{}/transactions?limit=2", other.wallet_id)).await;
    assert_eq!(hashes(&of_wallet), hashes(&paged[..3]));
    api.get("/api/v1/admin/wallets/wal_0/transactions").await.problem(404, "not_found");
    let shops = shop.api();
    shops.get("/api/v1/admin/transactions").await.some_problem(403);
    shops.get(&format!("/api/v1/admin/transactions/{NETWORK}/{first}")).await.some_problem(403);
    shops.get(&format!("/api/v1/admin/wallets/{}/transactions", other.wallet_id)).await.expect(200);
    let weak = api.with_key(Some(&shop.home.api_key("shop", &["orders:read"])));
    weak.get(&format!("/api/v1/admin/wallets/{}/transactions", other.wallet_id)).await.some_problem(403);
}

#[tokio::test]
async fn a_transaction_is_explained_whatever_became_of_it() {
    let shop = Shop::open().await;
    let operator = Operator::of(&shop);
    let api = operator.api(&shop);
    let order = shop.order("5").await;
    let about = async |hash: &str| api.get(&format!("/api/v1/admin/transactions/{NETWORK}/{hash}")).await.expect(200).json();

    // In no block yet.
    let hash = shop.send(&order, "5").await;
    let said = about(&hash).await;
    assert_eq!((&said["status"], &said["transfers"], &said["block_number"]), (&json!("waiting"), &json!([]), &Value::Null), "{said}");
    // Recorded: what the minute-old answer said does not hide it.
    shop.anvil.mine(3).await;
    shop.order_is(&order, "paid").await;
    let said = about(&hash).await;
    assert_eq!((&said["status"], &said["transfers"][0]["order_id"]), (&json!("recorded"), &json!(order.id)), "{said}");
    assert_eq!((&said["tx_hash"], &said["network"]), (&json!(hash), &json!(NETWORK)));

    // A transfer of money that its sender does not have: nobody is paid, and nobody waits for it.
    let unlucky = shop.order("9").await;
    let failed = transfer(&shop, shop.anvil.accounts[7], unlucky.address, "9").await;
    assert!(!shop.anvil.succeeded(&failed).await);
    let block = shop.anvil.head().await.number;
    let said = about(&failed).await;
    assert_eq!((&said["status"], &said["block_number"]), (&json!("failed"), &json!(block)), "{said}");
    let row = &said["transfers"][0];
    assert_eq!((&row["status"], &row["amount"], &row["order_id"]), (&json!("failed"), &json!("9.000000"), &json!(unlucky.id)), "{said}");
    about(&failed).await;
    let now = shop.get(&unlucky).await;
    assert_eq!((&now["status"], &now["amount_received"]), (&json!("pending"), &json!("0.000000")), "{now}");
    assert_eq!((&now["transfers"][0]["tx_hash"], &now["transfers"][0]["status"]), (&json!(failed), &json!("failed")), "{now}");
    assert_eq!(hashes(&api.all("/api/v1/admin/transactions?status=failed").await), [failed].into());
    // The order goes on as if nothing had been.
    shop.pay(&unlucky, "9").await;
    shop.anvil.mine(2).await;
    let now = shop.order_is(&unlucky, "paid").await;
    assert_eq!(now["amount_confirmed"], "9.000000", "{now}");
    // It is paid: what fails after that is recorded, and no news for the shop.
    let vain = transfer(&shop, shop.anvil.accounts[7], unlucky.address, "1").await;
    let said = about(&vain).await;
    assert_eq!((&said["status"], &said["transfers"][0]["status"]), (&json!("failed"), &json!("failed")), "{said}");
    let told = format!("SELECT count(*) FROM events WHERE kind = 'order.payment_failed' AND subject_id = '{}'", unlucky.id);
    assert_eq!(look(&shop.home, &told).await, "1");
    shop.events(&unlucky, &["order.pending", "order.payment_failed", "order.confirming", "order.paid"]).await;

    // Somebody else's money, and a transaction of no token at all.
    let foreign = transfer(&shop, shop.anvil.accounts[1], shop.anvil.accounts[2], "1").await;
    assert_eq!(about(&foreign).await["status"], "foreign");
    let fake = evm::call("transfer(address,uint256)", &[Arg::Address(order.address), Arg::Uint(1)]);
    let fake = shop.anvil.send(shop.anvil.accounts[1], Some(shop.tokens.fake), &fake).await;
    shop.anvil.mine(1).await;
    assert_eq!(about(&fake).await["status"], "foreign");
    let nowhere = format!("0x{}", "5a".repeat(32));
    let said = about(&nowhere).await;
    assert_eq!((&said["status"], &said["tx_hash"]), (&json!("unknown"), &json!(nowhere)), "{said}");
    assert_eq!(about(&nowhere[2..].to_uppercase()).await["status"], "unknown", "written as on the other kind of chain");

    for (path, status) in [(format!("{NETWORK}/0x1234"), 422), (format!("{NETWORK}/zz"), 422), (format!("nowhere/{nowhere}"), 404)] {
        api.get(&format!("/api/v1/admin/transactions/{path}")).await.some_problem(status);
    }
}

async fn synced(api: &crate::api::Api, wallet: &str) -> Value {
    api.post(&format!("/api/v1/admin/wallets/{wallet}/sync"), &json!({})).await.expect(200).json()
}

#[tokio::test]
async fn balances_are_read_kept_and_held_against_the_books_on_sqlite() {
    balances_are_read(Shop::open().await).await;
}

#[tokio::test]
async fn balances_are_read_kept_and_held_against_the_books_on_postgres() {
    balances_are_read(Shop::open_with(|settings| settings.postgres = true).await).await;
}

async fn balances_are_read(shop: Shop) {
    let operator = Operator::of(&shop);
    let api = operator.api(&shop);
    let (full, other) = (shop.order("5").await, shop.order("7").await);
    shop.pay(&full, "5").await;
    shop.pay(&other, "7").await;
    shop.anvil.mine(2).await;
    shop.order_is(&full, "paid").await;
    shop.order_is(&other, "paid").await;

    // Any address: valid or not, ours or not, and what it holds.
    let address = async |text: &str| api.get(&format!("/api/v1/addresses/{NETWORK}/{text}")).await.expect(200).json();
    let foreign = evm::text(shop.anvil.accounts[2]);
    let (mixed, small) = (full.address_text.as_str(), full.address_text.to_lowercase());
    let flipped: String = mixed
        .chars()
        .enumerate()
        .map(|(place, letter)| if place > 1 && letter.is_ascii_uppercase() { letter.to_ascii_lowercase() } else { letter })
        .collect();
    let half_flipped = mixed
        .char_indices()
        .rfind(|(_, letter)| letter.is_ascii_uppercase())
        .map(|(place, letter)| format!("{}{}{}", &mixed[..place], letter.to_ascii_lowercase(), &mixed[place + 1..]));
    assert_eq!(flipped, small);
    assert_eq!(address(mixed).await, json!({ "valid": true, "normalized": mixed, "own": true }));
    assert_eq!(address(&small).await, json!({ "valid": true, "normalized": mixed, "own": true }));
    assert_eq!(address(&foreign).await["own"], false);
    if let Some(wrong) = half_flipped.filter(|text| *text != small) {
        assert_eq!(address(&wrong).await["valid"], false, "{wrong}");
    }
    for wrong in ["0x12", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"] {
        assert_eq!(address(wrong).await, json!({ "valid": false, "normalized": null, "own": false }));
        api.get(&format!("/api/v1/addresses/{NETWORK}/{wrong}/balance")).await.problem(422, "invalid_request");
    }
    api.get(&format!("/api/v1/addresses/nowhere/{foreign}")).await.some_problem(404);
    let balance = async |text: &str| api.get(&format!("/api/v1/addresses/{NETWORK}/{text}/balance")).await.expect(200).json();
    let held = balance(&foreign).await;
    assert_eq!((&held["balance"], &held["raw_value"]), (&json!("1000000.000000"), &json!("1000000000000")), "{held}");
    transfer(&shop, shop.anvil.accounts[2], shop.anvil.accounts[3], "1").await;
    assert_eq!(balance(&foreign).await, held, "kept for a while");

    // One wallet, and what its lists say.
    let now = synced(&api, &full.wallet_id).await;
    assert_eq!(now["balance"], "5.000000", "{now}");
    assert!(now["balance_at"].is_string(), "{now}");
    let kept = api.all(&format!("/api/v1/admin/wallets/{}/balances", full.wallet_id)).await;
    assert_eq!((kept.len(), &kept[0]["raw_value"], &kept[0]["explained"]), (1, &json!("5000000"), &json!(true)), "{kept:?}");
    synced(&api, &full.wallet_id).await;
    assert_eq!(api.all(&format!("/api/v1/admin/wallets/{}/balances", full.wallet_id)).await.len(), 1, "nothing changed, nothing kept");
    api.post("/api/v1/admin/wallets/wal_0/sync", &json!({})).await.some_problem(404);
    let weak = api.with_key(Some(&shop.home.api_key("shop", &["wallets:read"])));
    weak.post(&format!("/api/v1/admin/wallets/{}/sync", full.wallet_id), &json!({})).await.some_problem(403);

    // All of them, as a job.
    let started = api.post("/api/v1/admin/wallets/sync", &json!({})).await.expect(202);
    let place = started.header("location").unwrap().to_owned();
    let job = eventually("the job is done", async || {
        let job = api.get(&place).await.expect(200).json();
        if job["status"] == "done" { Ok(job) } else { Err(job) }
    })
    .await;
    assert_eq!((&job["id"], &job["kind"]), (&started.json()["id"], &json!("wallet_sync")), "{job}");
    assert_eq!((&job["done"], &job["total"]), (&json!(2), &json!(2)), "{job}");
    assert_eq!(job["detail"], json!({ "wallets": 2, "differing": 0, "unknown": 0, "silent_networks": 0 }), "{job}");
    api.post("/api/v1/admin/wallets/sync", &json!({ "network": "nowhere" })).await.some_problem(422);
    api.get("/api/v1/admin/jobs/job_0").await.some_problem(404);
    assert_eq!(books(&shop.home), (Some(0), json!({ "ok": true, "wallets": 2, "unknown": 0, "silent_networks": 0, "differing": [] })));
    assert_eq!(operator.alerts(&shop, "balance_differs").await, Vec::<Value>::new());

    // Money goes that we did not send, and money comes that no Transfer told of.
    steal(&shop, &full, "2").await;
    let now = synced(&api, &full.wallet_id).await;
    assert_eq!(now["balance"], "3.000000", "{now}");
    let alert = operator.alert(&shop, "balance_differs", &full.wallet_id).await;
    assert!(alert["detail"].as_str().unwrap().contains("2.000000 less"), "{alert}");
    synced(&api, &full.wallet_id).await;
    let synced_all = shop.home.run(&["wallet", "sync", "--network", NETWORK, "--json"]);
    assert_eq!(synced_all.code, Some(1), "{synced_all:?}");
    assert_eq!(operator.alerts(&shop, "balance_differs").await.len(), 1, "told once");
    let (code, report) = books(&shop.home);
    assert_eq!((code, &report["ok"]), (Some(1), &json!(false)), "{report}");
    let differing = &report["differing"];
    assert_eq!(differing.as_array().unwrap().len(), 1, "{report}");
    assert_eq!(
        (&differing[0]["id"], &differing[0]["balance"], &differing[0]["by_records"]),
        (&json!(full.wallet_id), &json!("3.000000"), &json!("5.000000"))
    );
    let told = shop.home.run(&["check", "--books"]);
    assert!(told.code == Some(1) && told.stdout.contains(&full.wallet_id) && told.stdout.contains("1 differ"), "{told:?}");
    let one = shop.home.run(&["wallet", "sync", &other.wallet_id, "--json"]).succeeded();
    assert_eq!(serde_json::from_str::<Value>(&one.stdout).unwrap()["wallets"], 1, "{one:?}");

    // A further loss is news again.
    steal(&shop, &full, "1").await;
    synced(&api, &full.wallet_id).await;
    assert_eq!(operator.alerts(&shop, "balance_differs").await.len(), 2);
    let explained: Vec<Value> = api
        .all(&format!("/api/v1/admin/wallets/{}/balances?limit=1", full.wallet_id))
        .await
        .iter()
        .map(|row| row["explained"].clone())
        .collect();
    assert_eq!(explained, [false, false, true]);
}

/// `check --books --json`: its exit code and what it printed.
fn books(home: &Home) -> (Option<i32>, Value) {
    let done = home.run(&["check", "--books", "--json"]);
    let report = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    (done.code, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_is_not_started_again() {
    let anvil = Anvil::start().await;
    let node = Proxy::before(&anvil.url).await;
    let shop = Shop::open_on(anvil, |settings| settings.rpc = node.url.clone()).await;
    let operator = Operator::of(&shop);
    let api = operator.api(&shop);
    let order = shop.order("5").await;
    shop.pay(&order, "5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&order, "paid").await;

    node.is_now(Mood::Silent);
    let start = async || api.post("/api/v1/admin/wallets/sync", &json!({ "network": NETWORK })).await.expect(202).json();
    let (first, second) = (start().await, start().await);
    assert_eq!((&first["id"], &first["status"]), (&second["id"], &json!("running")), "{first} {second}");
    assert_eq!((&second["done"], &second["total"]), (&json!(0), &json!(1)), "{second}");
    node.is_now(Mood::Honest);
    let place = format!("/api/v1/admin/jobs/{}", first["id"].as_str().unwrap());
    eventually("the job is done", async || {
        let job = api.get(&place).await.expect(200).json();
        if job["status"] == "done" && job["done"] == 1 { Ok(()) } else { Err(job) }
    })
    .await;
    assert_ne!(start().await["id"], first["id"], "what is done is done");
}

#[tokio::test]
async fn a_wallet_that_had_a_life_before_is_no_reason_for_an_alert() {
    let shop = Shop::open().await;
    let operator = Operator::of(&shop);
    let file = shop.home.path().join("key");
    std::fs::write(&file, PAYER_KEY).unwrap();
    let imported = shop.home.json(&["wallet", "import", "--network", NETWORK, "--name", "old", "--file", file.to_str().unwrap()]);
    let id = imported["id"].as_str().unwrap_or_else(|| panic!("{imported}"));
    let held = synced(&operator.api(&shop), id).await;
    assert_eq!(held["balance"], "1998000000.000000", "{held}");
    synced(&operator.api(&shop), id).await;
    assert_eq!(operator.alerts(&shop, "balance_differs").await, Vec::<Value>::new());
    // Its books begin there; what is missing from then on is missed.
    let books = shop.home.json(&["check", "--books"]);
    assert_eq!((&books["ok"], &books["differing"]), (&json!(true), &json!([])), "{books}");
}

#[tokio::test]
async fn what_a_transfer_costs_is_told_on_every_kind_of_chain() {
    let shop = Shop::open().await;
    let api = shop.api();
    let fee = api.get(&format!("/api/v1/networks/{NETWORK}/fee")).await.expect(200).json();
    let number = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).parse::<u128>().unwrap();
    assert_eq!((&fee["network"], &fee["unit"], &fee["tron"]), (&json!(NETWORK), &json!("wei"), &Value::Null), "{fee}");
    let gas = fee["evm"]["gas"].as_u64().unwrap();
    assert!((21_000..200_000).contains(&gas) && fee["evm"]["gas_to_new"].as_u64() >= Some(gas), "{fee}");
    let price = number(&fee["evm"]["base_fee"]) + number(&fee["evm"]["priority_fee"]);
    assert_eq!(number(&fee["cost"]), u128::from(gas) * price, "{fee}");
    assert!(number(&fee["cost"]) > 0 && number(&fee["evm"]["cost_max"]) >= number(&fee["cost"]), "{fee}");
    shop.anvil.mine(3).await;
    assert_eq!(api.get(&format!("/api/v1/networks/{NETWORK}/fee")).await.expect(200).json(), fee, "kept for a while");
    api.get("/api/v1/networks/nowhere/fee").await.some_problem(404);
    api.with_key(None).get(&format!("/api/v1/networks/{NETWORK}/fee")).await.some_problem(401);
    api.request(Method::POST, &format!("/api/v1/networks/{NETWORK}/fee")).send().await.some_problem(405);

    let data = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(data.path()).await;
    let fee = sandbox.api().get("/api/v1/networks/tron/fee").await.expect(200).json();
    assert_eq!((&fee["unit"], &fee["evm"]), (&json!("sun"), &Value::Null), "{fee}");
    let part = |name: &str| u128::from(fee["tron"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {fee}")));
    let cost = part("energy") * part("energy_price") + part("bandwidth") * part("bandwidth_price");
    assert_eq!(number(&fee["cost"]), cost, "{fee}");
    assert!(number(&fee["cost_to_new"]) > cost && part("cost_with_energy") < cost, "{fee}");
}
