//! What the EVM adapter is asked beside blocks: balances, one transaction, what one costs, and
//! settled blocks once more. On local nodes that have the ways of many providers, and break.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use serde_json::{Value, json};
use tidegate_chain::endpoints::{EndpointConfig, Endpoints};
use tidegate_chain::evm::{EvmChain, EvmConfig, GAS_TO_NEW};
use tidegate_chain::{Attempted, BALANCES_MAX, Balances, Basis, Chain, Error, Fee, Outcome, SECOND_READING_MAX, SecondReading};
use tidegate_chain::{SINGLE_BALANCES_AT_ONCE, Transaction};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block, BlockRef, Hash, Network};

use crate::evm_node::{EvmNode, USDT, bloom_of, chain, hash_of, hex, log, make_chain, usdt};

async fn node() -> EvmNode {
    EvmNode::start(make_chain(11, 4, |number| if number == 13 { vec![2, 3] } else { vec![number] })).await
}

/// Addresses, of which the one numbered `n` holds `n`.
fn holders(node: &EvmNode, count: usize) -> (Vec<Address>, Vec<Raw>) {
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
async fn a_thousand_balances_are_two_requests_and_whatever_is_there_serves() {
    // What there is, the requests of the first 500 and of the next, and what they were.
    let table: [(&str, Option<u64>, bool, u32, u32); 4] = [
        ("Multicall3", Some(0), true, 3, 1),
        ("Multicall3 that sees another chain's blocks", Some(20_000_000), true, 4, 2),
        ("creations", None, true, 4, 2),
        ("nothing", None, false, 504, 501),
    ];
    for (name, multicall, deployless, first, next) in table {
        let node = node().await;
        let (addresses, values) = holders(&node, 2 * BALANCES_MAX);
        node.with(|state| (state.multicall, state.deployless) = (multicall, deployless));
        let chain = chain(&[&node]);
        chain.head().await.unwrap();
        for (half, calls) in [(0, first), (1, next)] {
            let range = half * BALANCES_MAX..(half + 1) * BALANCES_MAX;
            node.calls();
            let found = chain.balances(&addresses[range.clone()]).await.unwrap();
            assert_eq!(found, Balances { at: 14, values: values[range].to_vec(), calls }, "{name}");
            assert_eq!(node.calls().len(), calls as usize, "{name}");
        }
        assert_eq!(chain.balances(&[]).await.unwrap(), Balances::default(), "{name}");
        assert_eq!(told(&chain.balances(&addresses[..=BALANCES_MAX]).await), "refused", "{name}");
        assert_eq!(node.calls(), Vec::<String>::new(), "{name}");
        assert!(chain.endpoints()[0].available, "{name}: what is not offered is no failure");
    }
}

#[tokio::test]
async fn a_balance_that_is_missing_fails_them_all() {
    for (multicall, deployless) in [(Some(0), true), (Some(20_000_000), true), (None, true), (None, false)] {
        let node = node().await;
        let (addresses, _) = holders(&node, 20);
        node.with(|state| (state.multicall, state.deployless, state.mute) = (multicall, deployless, Some(hex::encode(addresses[17].0))));
        let error = chain(&[&node]).balances(&addresses).await.unwrap_err();
        let whose = tidegate_chain::evm::format_address(&addresses[17]);
        assert!(error.is_transient() && error.to_string().contains(&whose), "{multicall:?} {deployless}: {error}");
    }
    // A node that answers for another block, is busy, or breaks off: no balance and no other way.
    let table: [(&str, Value); 4] = [
        ("of another block", json!({ "result": format!("0x{:064x}{:064x}{:064x}", 13, 1, 7) })),
        ("busy", json!({ "error": { "code": 429, "message": "too many requests" } })),
        ("without that block", json!({ "error": { "code": -32_000, "message": "header not found" } })),
        ("not hex", json!({ "result": "0xzz" })),
    ];
    for (name, said) in table {
        let node = node().await;
        let (addresses, _) = holders(&node, 1);
        node.with(|state| state.deployless = true);
        node.instead(move |method, params| (method == "eth_call" && params[0]["to"].is_null()).then(|| said.clone()));
        assert_eq!(told(&chain(&[&node]).balances(&addresses).await), "transient", "{name}");
        assert_eq!(node.calls().iter().filter(|call| *call == "call").count(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_node_that_was_too_slow_once_is_asked_for_many_again() {
    // What a node says to the creation, and the requests of that time and of the next.
    for (message, now, next) in [("execution aborted (timeout = 5s)", 24, 2), ("contract creation is not allowed", 24, 21)] {
        let node = node().await;
        let (addresses, values) = holders(&node, 20);
        node.with(|state| state.deployless = true);
        node.instead(move |method, params| {
            let creation = method == "eth_call" && params[0]["to"].is_null();
            creation.then(|| json!({ "error": { "code": -32_000, "message": message } }))
        });
        let chain = chain(&[&node]);
        let found = chain.balances(&addresses).await.unwrap();
        assert_eq!((found.values, found.calls), (values, now), "{message}");
        node.with(|state| state.instead = None);
        assert_eq!(chain.balances(&addresses).await.unwrap().calls, next, "{message}");
    }
}

/// A server that keeps every `balanceOf` waiting until ten of them are there.
#[tokio::test]
async fn one_by_one_means_ten_at_once_and_no_more() {
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let barrier = Arc::new(tokio::sync::Barrier::new(SINGLE_BALANCES_AT_ONCE));
    let (now, peak) = (Arc::clone(&under_way), Arc::clone(&most));
    let handle = move |body: String| {
        let (now, peak, barrier) = (Arc::clone(&now), Arc::clone(&peak), Arc::clone(&barrier));
        async move {
            let call: Value = serde_json::from_str(&body).unwrap();
            let answer = |call: &Value| {
                let result = match call["method"].as_str().unwrap() {
                    "eth_chainId" => json!("0x1"),
                    "eth_getBlockByNumber" => make_chain(11, 1, |_| vec![])[0].header(),
                    _ if call["params"][0]["to"] == USDT => {
                        assert_eq!(call["params"][1], "0xb", "all at the one block");
                        json!(format!("0x{:064x}", 5))
                    }
                    _ => json!("0x"),
                };
                json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })
            };
            if call["params"][0]["to"] == USDT {
                peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                barrier.wait().await;
                now.fetch_sub(1, Ordering::Relaxed);
            }
            match call.as_array() {
                Some(calls) => calls.iter().map(answer).collect::<Value>().to_string(),
                None => answer(&call).to_string(),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
    let pool = Endpoints::new(&Network::new("testnet"), vec![EndpointConfig::new(url)], Box::new(|| 0)).unwrap();
    let chain = EvmChain::new(EvmConfig::new(1, usdt()), pool);
    let found = chain.balances(&[Address([3; 20]); 3 * SINGLE_BALANCES_AT_ONCE]).await.unwrap();
    assert_eq!((found.at, found.values), (11, vec![Raw::from_units(5); 30]));
    assert_eq!(most.load(Ordering::Relaxed), SINGLE_BALANCES_AT_ONCE);
}

const SENDER: Address = Address([0xaa; 20]);
const SHOP: Address = Address([0xbb; 20]);

/// Transaction 2 of block 13, with the receipt that says what became of it.
fn known_transaction(node: &EvmNode, status: &str) -> Hash {
    let name = format!("0x{:062x}{:02x}", 13, 1);
    let logs = json!([log(13, 1, &name, 3), log(13, 2, &name, 4)]);
    let receipt = json!({ "transactionHash": name, "blockHash": hash_of(13), "blockNumber": hex(13), "from": format!("0x{}", "aa".repeat(20)),
        "gasUsed": "0xb41d", "status": status, "logs": logs });
    let data = format!("0xa9059cbb{:0>64}{:064x}", "bb".repeat(20), 9);
    let sent = json!({ "hash": name, "from": format!("0x{}", "aa".repeat(20)), "to": USDT, "input": data, "gas": "0x15f90",
        "blockNumber": hex(13), "blockHash": hash_of(13) });
    node.with(|state| {
        state.receipts.insert(name.clone(), receipt);
        state.sent.insert(name.clone(), sent);
    });
    name.parse().unwrap()
}

fn values(transaction: &Transaction) -> Vec<(u32, String)> {
    transaction.transfers.iter().map(|transfer| (transfer.key.ordinal, transfer.value.to_string())).collect()
}

#[tokio::test]
async fn a_transaction_is_what_its_receipt_says_in_the_block_that_stands() {
    let node = node().await;
    let hash = known_transaction(&node, "0x1");
    let chain = chain(&[&node]);
    let found = chain.transaction(&hash).await.unwrap().unwrap();
    assert_eq!(values(&found), [(0, "3".into()), (1, "4".into())]);
    assert_eq!((found.outcome, found.block.unwrap().number, found.from, found.attempted), (Outcome::Succeeded, 13, Some(SENDER), None));
    assert_eq!(chain.transaction(&Hash([9; 32])).await, Ok(None));

    // Failed, it has moved nothing, whatever logs there are.
    let attempted = Some(Attempted { from: SENDER, to: SHOP, value: Raw::from_units(9) });
    for (gas, expected) in [("0x15f90", "status 0, reverted"), ("0xb41d", "status 0, all of its gas was used")] {
        known_transaction(&node, "0x0");
        node.with(|state| state.sent.values_mut().for_each(|sent| sent["gas"] = gas.into()));
        let found = chain.transaction(&hash).await.unwrap().unwrap();
        assert_eq!((values(&found), found.attempted), (vec![], attempted));
        assert_eq!(found.outcome, Outcome::Failed { reason: expected.into() });
    }

    // It waits: there is no receipt, and the transaction names no block.
    node.with(|state| {
        state.receipts.clear();
        state.sent.values_mut().for_each(|sent| sent["blockNumber"] = Value::Null);
    });
    let found = chain.transaction(&hash).await.unwrap().unwrap();
    assert_eq!((found.outcome, found.block, found.attempted), (Outcome::Pending, None, attempted));
    // A call of another contract asks the token for nothing.
    node.with(|state| state.sent.values_mut().for_each(|sent| sent["to"] = json!(hash_of(1)[..42])));
    assert_eq!(chain.transaction(&hash).await.unwrap().unwrap().attempted, None);
}

#[tokio::test]
async fn an_answer_about_a_transaction_that_does_not_fit_together_is_none() {
    let of_another = format!("0x{}", "5".repeat(64));
    type Change = (&'static str, Box<dyn Fn(&mut Value, &mut Value)>);
    let other = of_another.clone();
    let table: Vec<Change> = vec![
        ("another block's hash", Box::new(|receipt, _| receipt["blockHash"] = json!(hash_of(12)))),
        ("a block that is not there", Box::new(|receipt, _| receipt["blockNumber"] = json!("0xff"))),
        ("another transaction's receipt", Box::new(move |receipt, _| receipt["transactionHash"] = json!(of_another))),
        ("another transaction's log", Box::new(move |receipt, _| receipt["logs"][1]["transactionHash"] = json!(other))),
        ("a log of another block", Box::new(|receipt, _| receipt["logs"][1]["blockHash"] = json!(hash_of(12)))),
        ("no status", Box::new(|receipt, _| receipt["status"] = Value::Null)),
        ("another transaction", Box::new(|_, sent| sent["hash"] = json!(hash_of(4)))),
        ("in a block, without a receipt", Box::new(|receipt, _| *receipt = Value::Null)),
        ("not an object", Box::new(|receipt, _| *receipt = json!([]))),
    ];
    for (name, change) in table {
        let node = node().await;
        let hash = known_transaction(&node, "0x1");
        let key = format!("0x{hash}");
        node.with(|state| change(state.receipts.get_mut(&key).unwrap(), state.sent.get_mut(&key).unwrap()));
        assert_eq!(told(&chain(&[&node]).transaction(&hash).await), "transient", "{name}");
    }
}

#[tokio::test]
async fn every_endpoint_is_asked_before_a_transaction_is_unknown_and_none_is_left_for_it() {
    let (first, second, third) = (node().await, node().await, node().await);
    let hash = known_transaction(&third, "0x1");
    let chain = chain(&[&first, &second, &third]);
    assert_eq!(chain.transaction(&hash).await.unwrap().unwrap().outcome, Outcome::Succeeded);
    assert_eq!(chain.transaction(&Hash([9; 32])).await, Ok(None));
    first.calls();
    chain.head().await.unwrap();
    assert_eq!(first.calls(), ["getBlockByNumber"], "it stays the one in use");
    assert!(chain.endpoints().iter().all(|endpoint| endpoint.available));
    // One that answers and does not know it is enough; none that answers is not.
    for node in [&second, &third] {
        node.instead(|_, _| Some(json!({ "error": { "code": 429, "message": "too many requests" } })));
    }
    assert_eq!(chain.transaction(&Hash([9; 32])).await, Ok(None));
    first.instead(|_, _| Some(json!({ "error": { "code": 429, "message": "too many requests" } })));
    assert_eq!(told(&chain.transaction(&Hash([9; 32])).await), "transient");
}

/// What a node says of prices, and what comes of it: base fee, priority fee, most, basis.
#[tokio::test]
async fn a_fee_is_made_of_the_last_blocks_or_of_one_price() {
    let history = |base: &[&str], tips: &[&str]| {
        let tips: Vec<[&str; 1]> = tips.iter().map(|tip| [*tip]).collect();
        json!({ "result": { "oldestBlock": "0x1", "baseFeePerGas": base, "reward": tips, "gasUsedRatio": [] } })
    };
    let not_offered = json!({ "error": { "code": -32_601, "message": "the method eth_feeHistory does not exist/is not available" } });
    let gwei = |number: u128| number * 1_000_000_000;
    let table = [
        ("as on Ethereum", history(&["0x1", "0x3b9aca00"], &["0x77359400", "0x3b9aca00", "0xb2d05e00"]), (gwei(1), gwei(2), gwei(4))),
        ("tips of nothing", history(&["0x1", "0x3b9aca00"], &["0x0", "0x0"]), (gwei(1), gwei(7), gwei(9))),
        ("no tips", json!({ "result": { "baseFeePerGas": ["0x3b9aca00"], "reward": null } }), (gwei(1), gwei(7), gwei(9))),
        ("tiny tips", history(&["0x3b9aca00"], &["0x1"]), (gwei(1), 1_000_000, gwei(2) + 1_000_000)),
        ("one price", not_offered, (0, gwei(5), gwei(5))),
        ("no base fee", json!({ "result": { "baseFeePerGas": [] } }), (0, gwei(5), gwei(5))),
    ];
    for (name, said, expected) in table {
        let node = node().await;
        let gas: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(65_000));
        let estimate = Arc::clone(&gas);
        node.instead(move |method, params| match method {
            "eth_feeHistory" => {
                assert_eq!(*params, json!(["0x14", "latest", [50]]));
                Some(said.clone())
            }
            "eth_maxPriorityFeePerGas" => Some(json!({ "result": "0x1a13b8600" })),
            "eth_gasPrice" => Some(json!({ "result": "0x12a05f200" })),
            "eth_estimateGas" => Some(match estimate.load(Ordering::Relaxed) {
                0 => json!({ "error": { "code": 3, "message": "execution reverted" } }),
                gas => json!({ "result": format!("{gas:#x}") }),
            }),
            _ => None,
        });
        let chain = chain(&[&node]);
        for (holder, estimate, to_new, known) in [
            (Some(SENDER), 65_000, 65_000, Basis::Simulated),
            (Some(SENDER), 0, GAS_TO_NEW, Basis::Known),
            (None, 65_000, GAS_TO_NEW, Basis::Known),
        ] {
            gas.store(estimate, Ordering::Relaxed);
            let fee = chain.fee(holder).await.unwrap();
            let Fee::Evm { gas, gas_to_new, base_fee, priority_fee, max_fee_per_gas, cost, cost_to_new, cost_max, basis } = fee else {
                panic!("{fee:?}")
            };
            assert_eq!((base_fee, priority_fee, max_fee_per_gas), expected, "{name}");
            assert_eq!((gas, gas_to_new, basis), (to_new - 17_100, to_new, known), "{name}");
            let price = base_fee + priority_fee;
            assert_eq!((cost, cost_to_new), (u128::from(gas) * price, u128::from(to_new) * price), "{name}");
            assert_eq!(cost_max, 90_000 * max_fee_per_gas, "{name}");
        }
        assert!(chain.endpoints()[0].available, "{name}");
    }
    // Nobody says what gas costs, or it is beyond any number: no fee.
    for price in [json!({ "error": { "code": -32_000, "message": "oops" } }), json!({ "result": format!("0x{}", "f".repeat(32)) })] {
        let node = node().await;
        node.instead(move |method, _| method.starts_with("eth_gasPrice").then(|| price.clone()));
        assert_eq!(told(&chain(&[&node]).fee(None).await), "transient");
    }
}

/// The blocks, and a chain over these nodes that has read them from the first.
async fn read_first(nodes: &[&EvmNode]) -> (EvmChain, Vec<Block>) {
    let chain = chain(nodes);
    let blocks = chain.blocks(11, 50).await.unwrap();
    assert_eq!(blocks.len(), 4);
    for node in nodes {
        chain.second_reading(&[]).await.unwrap();
        node.calls();
    }
    (chain, blocks)
}

fn refs(blocks: &[Block]) -> Vec<BlockRef> {
    blocks.iter().map(|block| block.at).collect()
}

#[tokio::test]
async fn a_second_reading_comes_from_another_endpoint_or_from_another_place() {
    let (first, second) = (node().await, node().await);
    let (chain, blocks) = read_first(&[&first, &second]).await;
    let refs = refs(&blocks);
    let same: Vec<_> = blocks.iter().cloned().map(SecondReading::Same).collect();
    assert_eq!(chain.second_reading(&refs).await.unwrap(), same);
    assert_eq!((first.calls().len(), second.calls()), (0, vec!["chainId".into(), "getBlockByNumber".into(), "getLogs".into()]));
    assert_eq!(chain.second_reading(&refs[1..2]).await.unwrap(), same[1..2]);
    assert_eq!(second.calls().len(), 2);

    // A range that is too large is halved.
    second.with(|state| state.range_max = Some((3, json!({ "code": -32_000, "message": "max block range" }))));
    assert_eq!(chain.second_reading(&refs).await.unwrap(), same);

    // The other endpoint is away: the one that read them first is asked by range, and for the
    // receipts of one of them.
    second.instead(|_, _| Some(json!({ "error": { "code": 429, "message": "too many requests" } })));
    assert_eq!(chain.second_reading(&refs).await.unwrap(), same);
    assert_eq!(first.calls(), ["getBlockByNumber", "getLogs", "getBlockReceipts"]);

    // Where that has none, its logs by range, without topics.
    first.instead(|method, params| {
        assert!(method != "eth_getLogs" || params[0]["topics"].is_null());
        (method == "eth_getBlockReceipts").then(|| json!({ "error": { "code": -32_601, "message": "method not found" } }))
    });
    for _ in 0..2 {
        assert_eq!(chain.second_reading(&refs).await.unwrap(), same);
    }
}

#[tokio::test]
async fn a_second_reading_shows_what_the_first_one_missed_and_what_is_gone() {
    let (first, second) = (node().await, node().await);
    first.with(|state| {
        state.blocks[1].logs.clear();
        state.blocks[1].bloom = bloom_of(&[]);
    });
    let (chain, blocks) = read_first(&[&first, &second]).await;
    let known = refs(&blocks);
    let again = chain.second_reading(&known).await.unwrap();
    let SecondReading::Same(missed) = &again[1] else { panic!("{again:?}") };
    assert_eq!((blocks[1].transfers.len(), missed.transfers.len()), (0, 1));

    // The last two were replaced on the other endpoint.
    second.with(|state| {
        for place in [2, 3] {
            state.blocks[place].hash = hash_of(100 + place as u64);
            state.blocks[place].logs.clear();
        }
        state.blocks[3].parent = hash_of(102);
    });
    let again = chain.second_reading(&known).await.unwrap();
    let shown = |reading: &SecondReading| match reading {
        SecondReading::Same(block) => format!("{}: {}", block.at.number, block.transfers.len()),
        SecondReading::Replaced(at) => format!("{} is {}", at.number, &at.hash.to_string()[60..]),
    };
    assert_eq!(again.iter().map(shown).collect::<Vec<_>>(), ["11: 1", "12: 1", "13 is 0066", "14 is 0067"]);

    // It does not have the last one yet: asked elsewhere.
    second.with(|state| state.head = 13);
    assert!(matches!(chain.second_reading(&known).await.unwrap()[3], SecondReading::Same(_)), "the first has it");
    first.with(|state| state.head = 13);
    assert_eq!(told(&chain.second_reading(&known).await), "transient");
}

#[tokio::test]
async fn what_cannot_be_proven_together_is_not_read_together() {
    let node = node().await;
    let (chain, blocks) = read_first(&[&node]).await;
    let known = refs(&blocks);
    let strange = BlockRef { parent: Hash([1; 32]), ..known[1] };
    for (name, asked) in [
        ("a gap", vec![known[0], known[2]]),
        ("backwards", vec![known[1], known[0]]),
        ("not its child", vec![known[0], strange]),
        ("too many", vec![known[0]; SECOND_READING_MAX + 1]),
    ] {
        assert_eq!(told(&chain.second_reading(&asked).await), "refused", "{name}");
    }
    assert_eq!(node.calls(), Vec::<String>::new());
}
