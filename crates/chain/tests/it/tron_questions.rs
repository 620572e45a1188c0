//! What the TRON adapter is asked beside blocks: balances, one transaction, what one costs, and
//! settled blocks once more. With recorded transactions, and nodes that lag, lie and break.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_chain::tron::{DEPLOYLESS_MAX, parse_address};
use tidegate_chain::{Attempted, BALANCES_MAX, Balances, Basis, Chain, Error, Fee, Outcome, SecondReading, Transaction};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block, BlockRef, Hash};
use tidegate_rules::time::Time;

use crate::server::{Answer, pass};
use crate::tron_node::{TronNode, ZERO_ROOT, chain, make_chain, make_header, reverted, time_of, transfer_info, trx_info};

fn data(name: &str) -> Value {
    let path = format!("{}/tests/data/tron/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn id(number: u64) -> String {
    format!("{number:064x}")
}

/// Four blocks from 101 on: a transfer, nothing, two transfers, a transfer of TRX.
async fn node() -> TronNode {
    let infos = |number: u64| match number {
        101 => vec![transfer_info(number, &id(1), 5)],
        103 => vec![transfer_info(number, &id(3), 6), transfer_info(number, &id(4), 7)],
        104 => vec![trx_info(number, &id(5))],
        _ => vec![],
    };
    let node = TronNode::start(make_chain(101, 4, infos)).await;
    node.with(|state| state.solid = state.head);
    node
}

fn holders(node: &TronNode, count: usize) -> (Vec<Address>, Vec<Raw>) {
    let address = |number: usize| {
        let mut bytes = [0xd0; 20];
        bytes[12..].copy_from_slice(&(number as u64).to_be_bytes());
        Address(bytes)
    };
    let addresses: Vec<Address> = (0..count).map(address).collect();
    let balances = addresses.iter().zip(0..).map(|(address, value)| (hex::encode(address.0), value));
    node.with(|state| state.balances = balances.collect());
    (addresses, (0..count).map(|value| Raw::from_units(value as u128)).collect())
}

fn told<T>(result: &Result<T, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Error::Transient(_)) => "transient",
        Err(Error::Refused(_)) => "refused",
    }
}

#[tokio::test]
async fn five_hundred_balances_are_four_requests_or_as_many_as_it_takes() {
    for (deployless, first, next) in [(true, 4, 4), (false, 502, 501)] {
        let node = node().await;
        let (addresses, values) = holders(&node, BALANCES_MAX + 1);
        node.with(|state| state.deployless = deployless);
        let chain = chain(&[&node]);
        chain.head().await.unwrap();
        for calls in [first, next] {
            node.calls();
            let found = chain.balances(&addresses[1..]).await.unwrap();
            assert_eq!(found, Balances { at: 104, values: values[1..].to_vec(), calls });
            assert_eq!(node.calls(), calls as usize);
        }
        assert_eq!(chain.balances(&[]).await.unwrap(), Balances::default());
        assert_eq!(told(&chain.balances(&addresses).await), "refused");
        assert_eq!(node.calls(), 0);
        assert!(chain.endpoints()[0].available, "what is not offered is no failure");
    }
}

#[tokio::test]
async fn a_balance_that_is_missing_fails_them_all() {
    for deployless in [true, false] {
        let node = node().await;
        let (addresses, _) = holders(&node, DEPLOYLESS_MAX + 5);
        node.with(|state| (state.deployless, state.mute) = (deployless, Some(hex::encode(addresses[202].0))));
        assert_eq!(told(&chain(&[&node]).balances(&addresses).await), "transient", "{deployless}");
    }
}

#[tokio::test]
async fn a_node_that_was_out_of_time_once_is_asked_for_many_again() {
    let node = node().await;
    let (addresses, values) = holders(&node, 20);
    node.with(|state| state.deployless = true);
    let chain = chain(&[&node]);
    // What a node says to a call that it did not finish, and the requests now and the next time.
    let table =
        [("CPU timeout for 'STATICCALL' operation executing", 22, 2), ("Not enough energy for 'STATICCALL' operation executing", 22, 21)];
    for (why, now, next) in table {
        let message = hex::encode(why);
        node.instead(move |asked| {
            let creation = asked.path.contains("triggerconstant") && asked.body.get("contract_address").is_none();
            creation.then(|| Answer::Json(json!({ "result": { "result": true, "message": message }, "constant_result": [""] })))
        });
        let found = chain.balances(&addresses).await.unwrap();
        assert_eq!((found.values, found.calls), (values.clone(), now), "{why}");
        node.with(|state| state.instead = None);
        assert_eq!(chain.balances(&addresses).await.unwrap().calls, next, "{why}");
    }
}

#[tokio::test]
async fn an_answer_of_an_older_block_takes_the_label_back() {
    let node = node().await;
    let (addresses, _) = holders(&node, 1);
    node.instead(|asked| {
        let creation = asked.path.contains("triggerconstant") && asked.body.get("contract_address").is_none();
        let returned = format!("{:064x}{:064x}{:064x}", 102, 1, 0);
        creation.then(|| Answer::Json(json!({ "result": { "result": true }, "constant_result": [returned] })))
    });
    assert_eq!(chain(&[&node]).balances(&addresses).await.unwrap().at, 102);
}

/// Puts an info into a block of the node, with the time of that block.
async fn node_with(info: &Value) -> TronNode {
    let number = info["blockNumber"].as_u64().unwrap();
    let mut header = make_header(number, &"0".repeat(64), &"ab".repeat(32));
    // Without all that goes into its hash a header is believed as it is.
    header["block_header"]["raw_data"].as_object_mut().unwrap().remove("witness_address");
    header["block_header"]["raw_data"]["timestamp"] = info["blockTimeStamp"].clone();
    let node = TronNode::start([(header, json!([info]))]).await;
    node.with(|state| state.infos = BTreeMap::from([(info["id"].as_str().unwrap().to_owned(), info.clone())]));
    node
}

async fn told_of(node: &TronNode, id: &str) -> Option<Transaction> {
    chain(&[node]).transaction(&id.parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_real_transaction_is_read_with_its_sender_and_its_transfer() {
    let info = data("mainnet_gettransactioninfobyid_usdt_661f1df8_visible_true.json");
    let sent = data("mainnet_gettransactionbyid_usdt_661f1df8_visible_true.json");
    let id = info["id"].as_str().unwrap();
    let node = node_with(&info).await;
    node.with(|state| state.sent = BTreeMap::from([(id.to_owned(), sent)]));
    let found = told_of(&node, id).await.unwrap();
    let sender = parse_address("TP4MZM8iDVEfRbtbvcidqVQBt4SQ9Pfi8R");
    assert_eq!((found.outcome, found.from, found.attempted), (Outcome::Succeeded, sender, None));
    assert_eq!(found.block.map(|block| (block.number, block.time)), Some((60_836_289, Time::from_millis(1_713_150_507_000))));
    let transfer = found.transfers[0];
    assert_eq!((transfer.key.ordinal, Some(transfer.from), transfer.value), (0, sender, Raw::from_units(0x8e27_7354)));
    assert_eq!(hex::encode(transfer.to.0), "dc2c107c0f8633d8236daa46d0e640e2c375f6ac");

    // Had it failed, its calldata would tell what it asked for, TRON's prefix in it and all.
    node.with(|state| {
        let info = state.infos.get_mut(id).unwrap();
        info["receipt"]["result"] = json!("OUT_OF_TIME");
    });
    let found = told_of(&node, id).await.unwrap();
    let attempted = Attempted { from: transfer.from, to: transfer.to, value: transfer.value };
    assert_eq!((found.transfers, found.attempted), (vec![], Some(attempted)));
    assert_eq!(found.outcome, Outcome::Failed { reason: "OUT_OF_TIME".into() });

    // And while it waits it is neither.
    node.with(|state| {
        state.infos.clear();
        state.waiting = Some(std::mem::take(&mut state.sent));
    });
    let found = told_of(&node, id).await.unwrap();
    assert_eq!((found.outcome, found.block, found.from, found.attempted), (Outcome::Pending, None, sender, Some(attempted)));
}

#[tokio::test]
async fn real_failures_say_why_in_the_chains_own_words_and_move_nothing() {
    let failed = data("failed_gettransactioninfobyid_captures.json");
    let known = data("mainnet_gettransactioninfobyid_usdt_and_trx.json");
    let synthetic = data("SYNTHETIC_gettransactioninfobyblocknum_adversarial.json");
    let with_logs = synthetic.as_array().unwrap().iter().find(|info| info["receipt"]["result"] == "OUT_OF_TIME" && info["log"].is_array());
    let with_logs = with_logs.unwrap();
    let table: [(&Value, &str, usize); 10] = [
        (&failed["out_of_energy_usdt_mainnet_2024"], "OUT_OF_ENERGY: Not enough energy for 'SSTORE' operation executing: curInvok", 0),
        (&failed["out_of_energy_usdt_mainnet_2026"], "OUT_OF_ENERGY: Not enough energy for 'SSTORE' operation executing: curInvok", 0),
        (&failed["revert_shasta_2023"], "REVERT: REVERT opcode executed", 0),
        (&failed["out_of_time_privatenet_2024"], "OUT_OF_TIME: CPU timeout for 'PUSH2' operation executing", 0),
        (with_logs, "OUT_OF_TIME", 0),
        (&known[0], "", 1),
        (&known[1], "", 1),
        (&known[2], "", 1),
        (&known[3], "", 0),
        (&known[4], "", 0),
    ];
    for (info, expected, transfers) in table {
        let node = node_with(info).await;
        let id = info["id"].as_str().unwrap();
        let found = told_of(&node, id).await.unwrap();
        let reason = match &found.outcome {
            Outcome::Failed { reason } => reason.as_str(),
            Outcome::Succeeded => "",
            Outcome::Pending => panic!("{info}"),
        };
        assert!(reason.starts_with(expected) && reason.is_empty() == expected.is_empty(), "{reason}");
        assert!(reason.len() <= 200 && !reason.contains(char::is_control), "{reason}");
        assert_eq!((found.transfers.len(), found.unreadable.len(), found.from), (transfers, 0, None), "{id}");
    }
}

#[tokio::test]
async fn an_answer_about_a_transaction_that_does_not_fit_together_is_none() {
    let wrong = |change: fn(&mut Value)| {
        let mut info = transfer_info(103, &id(3), 6);
        change(&mut info);
        info
    };
    let table = [
        ("another block's time", wrong(|info| info["blockTimeStamp"] = json!(time_of(102)))),
        ("no time", wrong(|info| _ = info.as_object_mut().unwrap().remove("blockTimeStamp"))),
        ("a block that is not there", wrong(|info| info["blockNumber"] = json!(105))),
        ("another transaction", wrong(|info| info["id"] = json!(id(9)))),
        ("an error", json!({ "Error": "class java.lang.IllegalAccessException : lack of computing resources" })),
        ("something else", json!({ "result": 7 })),
    ];
    for (name, info) in table {
        let node = node().await;
        node.with(|state| state.infos = BTreeMap::from([(id(3), info)]));
        assert_eq!(told(&chain(&[&node]).transaction(&id(3).parse().unwrap()).await), "transient", "{name}");
    }
}

#[tokio::test]
async fn what_waits_is_known_where_a_node_shows_it_and_unknown_elsewhere() {
    let sent = |data: &str| {
        json!({ "txID": id(8), "ret": [{ "contractRet": "SUCCESS" }], "raw_data": { "contract": [{ "type": "TriggerSmartContract",
            "parameter": { "value": { "owner_address": format!("41{}", "cc".repeat(20)),
                "contract_address": "41a614f803b6fd780986a42c78ec9c7f77e6ded13c", "data": data } } }] } })
    };
    let data = format!("23b872dd{:0>64}{:0>64}{:064x}", "aa".repeat(20), format!("41{}", "bb".repeat(20)), 4);
    let (hides, shows) = (node().await, node().await);
    let hash: Hash = id(8).parse().unwrap();
    let alone = chain(&[&hides]);
    for asked in [4, 2] {
        hides.calls();
        assert_eq!(alone.transaction(&hash).await, Ok(None));
        // The first time it is asked for its chain, too, and for what it does not show.
        assert_eq!(hides.calls(), asked);
    }
    assert!(alone.endpoints()[0].available);
    shows.with(|state| state.waiting = Some(BTreeMap::from([(id(8), sent(&data))])));
    let found = chain(&[&hides, &shows]).transaction(&hash).await.unwrap().unwrap();
    let attempted = Attempted { from: Address([0xaa; 20]), to: Address([0xbb; 20]), value: Raw::from_units(4) };
    assert_eq!((found.outcome, found.from, found.attempted), (Outcome::Pending, Some(Address([0xcc; 20])), Some(attempted)));
    for other in ["095ea7b3", "a9059cbb00", ""] {
        shows.with(|state| state.waiting = Some(BTreeMap::from([(id(8), sent(other))])));
        assert_eq!(told_of(&shows, &id(8)).await.unwrap().attempted, None, "{other}");
    }
}

#[tokio::test]
async fn a_fee_is_tried_out_and_priced_by_the_chain() {
    let node = node().await;
    let (addresses, _) = holders(&node, 2);
    let chain = chain(&[&node]);
    let simulated = Fee::Tron {
        energy: 31_895,
        energy_to_new: 64_895,
        bandwidth: 345,
        energy_price: 100,
        bandwidth_price: 1_000,
        burn: 3_534_500,
        burn_to_new: 6_834_500,
        with_energy: 345_000,
        activation: 1_100_000,
        basis: Basis::Simulated,
    };
    assert_eq!(chain.fee(Some(addresses[1])).await.unwrap(), simulated);
    // The first address holds nothing; a node that does not try things out says so in many ways.
    let known = Fee::Tron {
        energy: 64_285,
        energy_to_new: 130_285,
        bandwidth: 345,
        energy_price: 100,
        bandwidth_price: 1_000,
        burn: 6_773_500,
        burn_to_new: 13_373_500,
        with_energy: 345_000,
        activation: 1_100_000,
        basis: Basis::Known,
    };
    assert_eq!(chain.fee(Some(addresses[0])).await.unwrap(), known);
    assert_eq!(chain.fee(None).await.unwrap(), known);
    let silently = json!({ "result": { "result": true }, "energy_used": 500, "constant_result": [""], "transaction": { "ret": [{ "ret": "FAILED" }] } });
    for said in [silently, reverted(), json!({ "result": { "result": true }, "constant_result": [ZERO_ROOT] })] {
        node.instead(move |asked| asked.path.contains("triggerconstant").then(|| Answer::Json(said.clone())));
        assert_eq!(chain.fee(Some(addresses[1])).await.unwrap(), known);
    }
    for said in [json!({}), json!({ "chainParameter": [{ "key": "getEnergyFee", "value": 100 }] }), json!({ "Error": "closed" })] {
        node.instead(move |asked| asked.path.contains("getchainparameters").then(|| Answer::Json(said.clone())));
        assert_eq!(told(&chain.fee(None).await), "transient");
        pass(60).await;
    }
}

async fn read_first(node: &TronNode) -> (Vec<Block>, Vec<BlockRef>) {
    let blocks = chain(&[node]).blocks(101, 50).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.transfers.len()).collect::<Vec<_>>(), [1, 0, 2, 0]);
    let refs = blocks.iter().map(|block| block.at).collect();
    (blocks, refs)
}

#[tokio::test]
async fn a_second_reading_is_of_what_is_solid_and_from_another_endpoint() {
    let (first, second) = (node().await, node().await);
    let (blocks, refs) = read_first(&first).await;
    let same: Vec<_> = blocks.into_iter().map(SecondReading::Same).collect();
    let chain = chain(&[&first, &second]);
    first.calls();
    assert_eq!(chain.second_reading(&refs).await.unwrap(), same);
    let asked = second.server.asked();
    assert_eq!((first.calls(), asked.len()), (0, 1 + 1 + 4 + 1), "its chain, the last header, four blocks, the empty one's header");
    assert!(asked[1..].iter().all(|asked| asked.path.starts_with("/walletsolidity/")));

    // What is not solid there yet is read from the newest view, and its last header twice.
    second.with(|state| state.solid = 102);
    assert_eq!(chain.second_reading(&refs).await.unwrap(), same);
    let paths: Vec<_> = second.server.asked().iter().map(|asked| asked.path.trim_start_matches('/').to_owned()).collect();
    assert_eq!(paths.iter().filter(|path| **path == "wallet/getblock").count(), 3);

    // What it lacks is asked for elsewhere.
    second.with(|state| (state.solid, state.head) = (102, 103));
    assert_eq!(chain.second_reading(&refs).await.unwrap(), same);
    assert_eq!(chain.second_reading(&[]).await.unwrap(), []);
    assert_eq!(told(&chain.second_reading(&[refs[0], refs[2]]).await), "refused");
}

#[tokio::test]
async fn a_second_reading_is_of_the_blocks_asked_for_or_says_what_stands_there() {
    let (ours, other) = (node().await, node().await);
    let (_, refs) = read_first(&ours).await;
    // From 103 on the other node has another branch.
    let branch = make_chain(103, 2, |number| vec![transfer_info(number, &id(number), 9)]);
    other.with(|state| {
        let parent = state.blocks[&102].0["blockID"].as_str().unwrap().to_owned();
        let mut parent = parent;
        for (number, (_, infos)) in (103..).zip(branch) {
            let header = make_header(number, &parent, &"cd".repeat(32));
            parent = header["blockID"].as_str().unwrap().to_owned();
            state.blocks.insert(number, (header, infos));
        }
    });
    let shown = |reading: &SecondReading| match reading {
        SecondReading::Same(block) => format!("{}: {}", block.at.number, block.transfers.len()),
        SecondReading::Replaced(at) => format!("{} replaced {}", at.number, refs.iter().all(|block| block.hash != at.hash)),
    };
    let again = chain(&[&other]).second_reading(&refs).await.unwrap();
    assert_eq!(again.iter().map(shown).collect::<Vec<_>>(), ["101: 1", "102: 0", "103 replaced true", "104 replaced true"]);

    // Silence is no emptiness, and infos of another time are none of this block's.
    type Change = (&'static str, fn(&mut Value));
    let changes: [Change; 3] = [
        ("silent", |infos| *infos = json!([])),
        ("of another block", |infos| infos[0]["blockNumber"] = json!(102)),
        ("of another time", |infos| infos[0]["blockTimeStamp"] = json!(time_of(99))),
    ];
    for (name, change) in changes {
        let node = node().await;
        node.with(|state| change(&mut state.blocks.get_mut(&103).unwrap().1));
        assert_eq!(told(&chain(&[&node]).second_reading(&refs).await), "transient", "{name}");
    }
}
