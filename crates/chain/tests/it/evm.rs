//! The EVM adapter: providers with limits, nodes that lag, lie and break, and hostile logs.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_chain::evm::{EvmChain, EvmConfig};
use tidegate_chain::{Chain, Error, STATE_ADDRESSES_MAX, TokenState};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Block, BlockRef, Hash};
use tidegate_rules::notice::TokenNotice;
use tidegate_rules::time::Time;

use crate::evm_node::{EvmNode, Token, bloom_of, chain, hash_of, hex, log, make_chain, token_bloom, topic, usdt};
use crate::server::{Answer, Server, pass, pool};

fn values(blocks: &[Block]) -> String {
    let of = |block: &Block| {
        let values: Vec<_> = block.transfers.iter().map(|transfer| transfer.value.to_string()).collect();
        format!("{}:{}", block.at.number, values.join("+"))
    };
    blocks.iter().map(of).collect::<Vec<_>>().join(" ")
}

/// The blocks, or one word for why there are none.
fn told(result: &Result<Vec<Block>, Error>) -> String {
    match result {
        Ok(blocks) => values(blocks),
        Err(Error::Transient(_)) => "transient".into(),
        Err(Error::Refused(_)) => "refused".into(),
    }
}

/// Four blocks from 11 on: one transfer, none, two, one.
async fn small_node() -> EvmNode {
    let transfers = |number| match number {
        11 => vec![1],
        13 => vec![2, 3],
        14 => vec![4],
        _ => vec![],
    };
    EvmNode::start(make_chain(11, 4, transfers)).await
}

const WHOLE: &str = "11:1 12: 13:2+3 14:4";

/// A chain that has shown its chain id, so that only the calls of interest are counted.
async fn proven(nodes: &[&EvmNode]) -> EvmChain {
    let chain = chain(nodes);
    chain.head().await.unwrap();
    for node in nodes {
        node.calls();
    }
    chain
}

#[tokio::test]
async fn two_calls_a_block_at_the_tip_and_one_when_there_is_none() {
    let node = small_node().await;
    let chain = proven(&[&node]).await;
    for limit in [1, 50] {
        assert_eq!(values(&chain.blocks(14, limit).await.unwrap()), "14:4");
        assert_eq!(node.calls(), ["getBlockByNumber", "getLogs"], "limit {limit}");
        assert_eq!(chain.blocks(15, limit).await.unwrap(), []);
        assert_eq!(node.calls(), ["getBlockByNumber"], "limit {limit}");
    }
    assert_eq!(chain.blocks(11, 0).await.unwrap(), []);
    let block = &chain.blocks(13, 1).await.unwrap()[0];
    let expected: (Hash, Hash) = (hash_of(13).parse().unwrap(), hash_of(12).parse().unwrap());
    assert_eq!((block.at.hash, block.at.parent), expected);
    assert_eq!(block.at.time, Time::from_secs(1_700_000_000 + 12 * 13));
}

#[tokio::test]
async fn catching_up_gives_what_single_blocks_give_for_fewer_calls() {
    let node = EvmNode::start(make_chain(1, 120, |number| (0..number % 4).collect())).await;
    let chain = proven(&[&node]).await;
    let together = chain.blocks(1, 500).await.unwrap();
    assert_eq!(together.len(), 120);
    assert!(node.calls().len() <= 2 * 120);
    let mut one_by_one = Vec::new();
    for number in 1..=120 {
        one_by_one.extend(chain.blocks(number, 1).await.unwrap());
    }
    assert_eq!(together, one_by_one);
    assert!(node.calls().len() <= 2 * 120);
    assert_eq!(values(&chain.blocks(119, 50).await.unwrap()), "119:1+2 120:");
    assert_eq!(node.calls().len(), 2 * 2, "two new blocks, four calls");
}

/// Each provider's own refusal of a range, as captured. The blocks come whole all the same, and
/// what was learned spares the next call most of the refusals.
#[tokio::test]
async fn every_providers_limit_is_found_and_kept_to() {
    let path = format!("{}/tests/data/evm/provider_error_captures.json", env!("CARGO_MANIFEST_DIR"));
    let captures: BTreeMap<String, Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (name, capture) in captures.iter().filter(|(name, _)| *name != "geth_future_range_2026_spec") {
        let node = EvmNode::start(make_chain(1, 100, |number| vec![number])).await;
        node.with(|state| state.range_max = Some((7, capture["error"].clone())));
        let chain = proven(&[&node]).await;
        let refusals = |calls: &[String], blocks: usize| {
            let ranges = calls.iter().filter(|call| *call == "getLogs").count();
            ranges.saturating_sub(blocks.div_ceil(7))
        };
        let first = chain.blocks(1, 50).await.unwrap();
        assert_eq!(first.len(), 50, "{name}");
        assert!(refusals(&node.calls(), 50) >= 3, "{name}: 50, 25, 12 were too many");
        let second = chain.blocks(51, 50).await.unwrap();
        assert_eq!(second.len(), 50, "{name}");
        assert!(first.iter().chain(&second).all(|block| block.transfers.len() == 1), "{name}");
        assert!(node.calls().len() <= 2 * 50, "{name}");
        assert!(chain.endpoints()[0].available, "{name}: a limit is not a failure");
    }
}

#[tokio::test]
async fn a_provider_that_bears_no_range_at_all_is_asked_block_by_block() {
    let node = small_node().await;
    let refusal = json!({ "code": -32_602, "message": "query exceeds max results 20000" });
    node.with(|state| state.range_max = Some((0, refusal)));
    assert_eq!(values(&chain(&[&node]).blocks(11, 50).await.unwrap()), WHOLE);
}

/// Some providers put the same words under another status, and take no batches.
#[tokio::test]
async fn an_error_of_the_protocol_may_come_under_any_status() {
    for status in [400, 413, 500] {
        let node = EvmNode::start(make_chain(1, 50, |number| vec![number])).await;
        let refusal = json!({ "code": -32_602, "message": "query exceeds max block range 7" });
        node.with(|state| (state.range_max, state.batch_max, state.error_status) = (Some((7, refusal)), 0, status));
        let chain = chain(&[&node]);
        assert_eq!(chain.blocks(1, 50).await.unwrap().len(), 50, "{status}");
        assert_eq!(chain.final_head().await.unwrap(), None, "{status}");
        assert!(chain.endpoints()[0].available, "{status}");
    }
}

#[tokio::test]
async fn batches_are_made_as_small_as_the_endpoint_wants_them() {
    for batch_max in [0, 1, 2, 3, 1_000] {
        let node = EvmNode::start(make_chain(1, 60, |number| vec![number])).await;
        node.with(|state| state.batch_max = batch_max);
        let chain = chain(&[&node]);
        let blocks = chain.blocks(1, 60).await.unwrap();
        assert_eq!(blocks.len(), 60, "batches of at most {batch_max}");
        assert!(blocks.iter().all(|block| block.transfers[0].value.to_string() == block.at.number.to_string()));
        assert!(chain.endpoints()[0].available);
    }
}

/// A node (or the one behind the same load balancer) that has the headers but not yet the logs:
/// `[]` from it is never "nothing happened".
#[tokio::test]
async fn stale_answers_are_never_empty_blocks() {
    // The node that answers for the logs does not have the last header.
    let node = small_node().await;
    node.instead(|method, params| match method {
        "eth_getLogs" => Some(json!({ "result": [] })),
        "eth_getBlockByNumber" if params[0] == hex(14) => Some(json!({ "result": null })),
        _ => None,
    });
    assert_eq!(told(&chain(&[&node]).blocks(11, 50).await), "transient");
    node.instead(|method, params| {
        let range = !params[0]["fromBlock"].is_null();
        (method == "eth_getLogs" && range).then(|| {
            json!({ "error": { "code": -32_602,
            "message": "block range extends beyond current head block" } })
        })
    });
    let chain = chain(&[&node]);
    assert_eq!(told(&chain.blocks(11, 3).await), "transient");
    assert!(chain.endpoints()[0].available, "it merely lags");

    // besu#8007: nothing for a block hash that it does not know. The bloom filter tells.
    let (besu, geth) = (small_node().await, small_node().await);
    besu.instead(|method, _| (method == "eth_getLogs").then(|| json!({ "result": [] })));
    assert_eq!(values(&crate::evm_node::chain(&[&besu, &geth]).blocks(13, 1).await.unwrap()), "13:2+3");
    assert_eq!(values(&crate::evm_node::chain(&[&besu, &geth]).blocks(11, 50).await.unwrap()), WHOLE);
}

#[tokio::test]
async fn an_empty_answer_that_the_bloom_filter_doubts_is_asked_for_twice() {
    let twice = EvmNode::start(make_chain(1, 3, |_| vec![])).await;
    let chain = proven(&[&twice]).await;
    let calls = async |bloom: String| {
        twice.with(|state| state.blocks.iter_mut().for_each(|block| block.bloom = bloom.clone()));
        assert_eq!(values(&chain.blocks(3, 1).await.unwrap()), "3:", "a second empty answer is believed");
        twice.calls().len()
    };
    assert_eq!(calls(token_bloom()).await, 3);
    assert_eq!(calls("0x".to_owned() + &"f".repeat(512)).await, 3);
    assert_eq!(calls(bloom_of(&[])).await, 2, "a chain that does not fill its filters");
    assert_eq!(calls(bloom_of(&[crate::evm_node::TOPIC])).await, 2, "another token's transfers");
    assert_eq!(calls("0x".into()).await, 2);

    let zero = EvmNode::start(make_chain(1, 1, |_| vec![5])).await;
    zero.with(|state| state.blocks[0].bloom = bloom_of(&[]));
    assert_eq!(values(&crate::evm_node::chain(&[&zero]).blocks(1, 1).await.unwrap()), "1:5", "logs need no filter");

    // Transfers of nothing are logs all the same.
    let dust = EvmNode::start(make_chain(1, 1, |_| vec![0])).await;
    let chain = proven(&[&dust]).await;
    assert_eq!(values(&chain.blocks(1, 1).await.unwrap()), "1:");
    assert_eq!(dust.calls().len(), 2);
}

/// What a first endpoint may do to an answer; the second is whole. Single blocks and ranges alike
/// come from the second, and a single endpoint's word is not taken.
#[tokio::test]
async fn answers_that_contradict_their_headers_are_void() {
    type Spoil = fn(&mut Vec<Value>);
    let table: [(&str, Spoil); 8] = [
        ("a log of another block at that height", |logs| logs[0]["blockHash"] = json!(hash_of(99))),
        ("a log of another height", |logs| logs[0]["blockNumber"] = json!("0x63")),
        ("a pending log", |logs| logs[0]["blockHash"] = Value::Null),
        ("a removed log", |logs| logs[0]["removed"] = json!(true)),
        ("a log twice", |logs| logs.push(logs[0].clone())),
        ("no log index", |logs| logs[0]["logIndex"] = Value::Null),
        ("not a hash", |logs| logs[0]["transactionHash"] = json!("0x12")),
        ("not a log", |logs| logs.push(json!("log"))),
    ];
    for (name, spoil) in table {
        for (from, limit, expected) in [(13, 1, "13:2+3"), (11, 50, WHOLE)] {
            let (broken, whole) = (small_node().await, small_node().await);
            broken.with(|state| state.blocks.iter_mut().filter(|block| block.number == 13).for_each(|block| spoil(&mut block.logs)));
            assert_eq!(told(&chain(&[&broken]).blocks(from, limit).await), "transient", "{name}, alone");
            assert_eq!(told(&chain(&[&broken, &whole]).blocks(from, limit).await), expected, "{name}");
        }
    }
}

/// What a first endpoint may say instead of an answer.
#[tokio::test]
async fn every_kind_of_breakage_leads_to_the_next_endpoint() {
    let error = |code: i64, message: &str| json!({ "error": { "code": code, "message": message } });
    let table = [
        json!({}),
        json!({ "result": "0x1" }),
        json!({ "result": { "number": "0xe" } }),
        error(-32_005, "daily request count exceeded, request rate limited"),
        error(-32_000, "missing trie node"),
        error(-32_601, "the method does not exist"),
        error(429, "Your app has exceeded its compute units per second capacity"),
    ];
    for said in table {
        for method in ["eth_getBlockByNumber", "eth_getLogs"] {
            for (from, limit, expected) in [(14, 1, "14:4"), (11, 50, WHOLE)] {
                let (broken, whole) = (small_node().await, small_node().await);
                let chain = proven(&[&broken, &whole]).await;
                let instead = said.clone();
                broken.instead(move |called, _| (called == method).then(|| instead.clone()));
                assert_eq!(told(&chain.blocks(from, limit).await), expected, "{said} to {method}");
                let health = chain.endpoints();
                assert_eq!((health[0].available, health[1].failures), (false, 0), "{said} to {method}");
            }
        }
    }
    let whole = small_node().await;
    for garbage in ["", "[]", "[{}]", "null", "<html>", "{\"jsonrpc\":\"2.0\",\"id\":1,\"resu"] {
        let broken = Server::start(move |_| Answer::Text(garbage.into())).await;
        let chain = EvmChain::new(EvmConfig::new(1, usdt()), pool(&[&broken, &whole.server]));
        assert_eq!(told(&chain.blocks(11, 50).await), WHOLE, "{garbage}");
    }
}

#[tokio::test]
async fn a_reorganisation_while_reading_is_asked_again_or_cut_off() {
    // Between the headers and the logs: the last header has changed when they come.
    let node = small_node().await;
    let chain = proven(&[&node]).await;
    let other = json!({ "result": { "number": hex(14), "hash": hash_of(99), "parentHash": hash_of(13),
        "timestamp": "0x1", "transactions": [] } });
    node.instead(move |method, params| (method == "eth_getBlockByNumber" && params[0] == hex(14)).then(|| other.clone()));
    assert_eq!(told(&chain.blocks(11, 50).await), "transient");
    assert!(chain.endpoints()[0].available, "the chain moved; that is nobody's fault");

    // Between two headers: what stands before is whole.
    let node = small_node().await;
    node.with(|state| state.blocks[2].parent = hash_of(98));
    assert_eq!(told(&crate::evm_node::chain(&[&node]).blocks(11, 50).await), "11:1 12:");
}

/// Behind a balancer the newest head may come from one node and the headers from another, which does
/// not have the first of them yet: nothing is passed over.
#[tokio::test]
async fn blocks_begin_with_the_one_asked_for_or_there_are_none() {
    let node = small_node().await;
    let chain = proven(&[&node]).await;
    for (missing, from, expected) in [(11, 11, ""), (13, 13, ""), (12, 11, "11:1"), (13, 11, "11:1 12:"), (13, 14, "14:4")] {
        node.instead(move |_, params| (params[0] == hex(missing)).then(|| json!({ "result": null })));
        assert_eq!(told(&chain.blocks(from, 50).await), expected, "without {missing}");
    }
    assert_eq!((chain.endpoints()[0].failures, chain.endpoints()[0].available), (0, true), "it merely lags");
}

#[tokio::test]
async fn ordinals_are_ranks_within_the_transaction() {
    let node = EvmNode::start(make_chain(21, 1, |_| vec![])).await;
    let (one, two) = (format!("0x{}", "1".repeat(64)), format!("0x{}", "2".repeat(64)));
    let other_token = |mut log: Value| {
        log["address"] = json!("0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");
        log
    };
    let with = |mut log: Value, key: &str, value: Value| {
        log[key] = value;
        log
    };
    let short = json!([crate::evm_node::TOPIC, format!("0x{:064x}", 7)]);
    let dirty = json!([crate::evm_node::TOPIC, format!("0x{:064x}", 7), format!("0x{}", "4".repeat(64))]);
    let approval = json!(["0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925"]);
    let mut logs = vec![
        log(21, 3, &one, 10),
        other_token(log(21, 4, &one, 99)),
        with(log(21, 5, &one, 99), "topics", approval),
        log(21, 6, &one, 0),
        with(log(21, 7, &one, 99), "topics", short),
        with(log(21, 8, &one, 99), "topics", dirty),
        with(log(21, 9, &one, 99), "data", json!("0x")),
        log(21, 10, &one, 11),
        log(21, 12, &two, 12),
    ];
    // A provider may give them in any order.
    logs.reverse();
    node.with(|state| state.blocks[0].logs = logs);
    for reading in ["by hash", "by receipts"] {
        let chain = chain(&[&node]);
        let block = chain.blocks(21, 1).await.unwrap().remove(0);
        let block = if reading == "by hash" { block } else { chain.reread(&block.at).await.unwrap().unwrap() };
        let mut lines: Vec<String> =
            block.transfers.iter().map(|t| format!("{} {} transfer {}", &t.key.tx_hash.to_string()[..1], t.key.ordinal, t.value)).collect();
        let unreadable = block.unreadable.iter();
        lines.extend(unreadable.map(|log| format!("{} {} unreadable", &log.key.tx_hash.to_string()[..1], log.key.ordinal)));
        lines.sort();
        let expected = ["1 0 transfer 10", "1 2 unreadable", "1 3 unreadable", "1 4 unreadable", "1 5 transfer 11", "2 0 transfer 12"];
        assert_eq!(lines, expected, "{reading}");
    }
}

#[tokio::test]
async fn a_second_reading_is_by_receipts_from_another_endpoint() {
    let (first, second) = (small_node().await, small_node().await);
    let chain = proven(&[&first, &second]).await;
    let block = chain.blocks(13, 1).await.unwrap().remove(0);
    first.calls();
    assert_eq!(chain.reread(&block.at).await.unwrap().as_ref(), Some(&block));
    assert_eq!((first.calls().len(), second.calls()), (0, vec!["chainId".into(), "getBlockByNumber".into(), "getBlockReceipts".into()]));

    // Not every receipt of the block: not an answer. The first endpoint's is.
    let partial = json!({ "result": [second.with(|state| state.blocks[2].receipts()[0].clone())] });
    second.instead(move |method, _| (method == "eth_getBlockReceipts").then(|| partial.clone()));
    assert_eq!(chain.reread(&block.at).await.unwrap().as_ref(), Some(&block));
    pass(60).await;

    // Not offered: logs by hash, and the question is not asked again.
    second.instead(|method, _| {
        let error = json!({ "code": -32_601, "message": "the method eth_getBlockReceipts does not exist/is not available" });
        (method == "eth_getBlockReceipts").then(|| json!({ "error": error }))
    });
    for expected in [vec!["getBlockByNumber", "getBlockReceipts", "getLogs"], vec!["getBlockByNumber", "getLogs"]] {
        second.calls();
        assert_eq!(chain.reread(&block.at).await.unwrap().as_ref(), Some(&block));
        assert_eq!(second.calls(), expected);
    }

    // Where those are left out it is asked in another way, and the endpoint that served the block is
    // not asked to say more.
    second.instead(|method, _| match method {
        "eth_getBlockReceipts" => Some(json!({ "error": { "code": -32_000, "message": "internal error" } })),
        "eth_getLogs" => Some(json!({ "result": [] })),
        _ => None,
    });
    first.calls();
    second.calls();
    assert_eq!(chain.reread(&block.at).await.unwrap().unwrap().transfers, []);
    assert_eq!((first.calls().len(), second.calls()), (0, vec!["getBlockByNumber".into(), "getLogs".into(), "getLogs".into()]));
    second.instead(|method, params| (method == "eth_getLogs" && !params[0]["topics"].is_null()).then(|| json!({ "result": [] })));
    assert_eq!(chain.reread(&block.at).await.unwrap().as_ref(), Some(&block), "a list of topics that it does not understand");

    assert_eq!(chain.reread(&BlockRef { hash: Hash([7; 32]), ..block.at }).await.unwrap(), None);
    second.with(|state| state.head = 12);
    assert_eq!(chain.reread(&block.at).await.unwrap().as_ref(), Some(&block), "the first has it still");
    first.with(|state| state.head = 12);
    assert!(chain.reread(&block.at).await.unwrap_err().is_transient());
    assert!(chain.endpoints().iter().all(|endpoint| endpoint.available), "which is nobody's fault");
}

#[tokio::test]
async fn the_final_block_is_the_tags_or_none_yet() {
    let node = small_node().await;
    let chain = chain(&[&node]);
    assert_eq!(chain.final_head().await.unwrap(), None, "-39001");
    node.instead(|_, params| (params[0] == "finalized").then(|| json!({ "result": null })));
    assert_eq!(chain.final_head().await.unwrap(), None);
    let text = json!({ "error": { "code": -32_000, "message": "finalized block not found" } });
    node.instead(move |_, params| (params[0] == "finalized").then(|| text.clone()));
    assert_eq!(chain.final_head().await.unwrap(), None);
    node.with(|state| (state.instead, state.finalized) = (None, Some(12)));
    assert_eq!(chain.final_head().await.unwrap().map(|block| block.number), Some(12));
    assert_eq!(chain.header(14).await.unwrap().map(|block| block.number), Some(14));
    assert_eq!(chain.header(15).await.unwrap(), None);
    assert_eq!(chain.head().await.unwrap().number, 14);
}

#[tokio::test]
async fn a_token_says_who_it_is_or_is_refused() {
    let node = small_node().await;
    node.with(|state| state.chain_id = 56);
    let chain = chain(&[&node]);
    let identity = chain.identity().await.unwrap();
    assert_eq!((identity.chain_id, identity.symbol.as_str(), identity.decimals), (56, "USDT", 6));
    let error = chain.head().await.unwrap_err();
    assert!(matches!(&error, Error::Refused(text) if text.contains("expected chain id 1, found 56")), "{error}");

    let node = small_node().await;
    let chain = crate::evm_node::chain(&[&node]);
    let old = format!("0x{:0<64}", hex::encode("USDT"));
    node.instead(move |_, params| (params[0]["data"] == "0x95d89b41").then(|| json!({ "result": old })));
    assert_eq!(chain.identity().await.unwrap().symbol, "USDT", "as bytes32");
    let reverted = json!({ "error": { "code": 3, "message": "execution reverted", "data": "0x" } });
    for (said, expected) in [(json!({ "result": "0x" }), "there is no code at this address"), (reverted, "execution reverted")] {
        node.instead(move |method, _| (method == "eth_call").then(|| said.clone()));
        match chain.identity().await {
            Err(Error::Refused(text)) => {
                assert!(text.contains(expected) && text.contains("0xdAC17F958D2ee523a2206206994597C13D831ec7"), "{text}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        assert!(chain.endpoints()[0].available, "the endpoint is not to blame");
    }
}

const FROZEN: Address = Address([0xcc; 20]);
const OTHER: Address = Address([0xdd; 20]);

fn word(byte: &str) -> String {
    format!("{:0>64}", byte.repeat(20))
}

/// A log of the token in block 13: the event by its name, its arguments as topics and as data.
fn notice_log(index: u64, transaction: &str, event: &str, topics: &[&str], data: &str) -> Value {
    let mut all = vec![topic(event)];
    all.extend(topics.iter().map(|topic| json!(format!("0x{topic}"))));
    let mut log = log(13, index, transaction, 0);
    log["topics"] = all.into();
    log["data"] = json!(format!("0x{data}"));
    log
}

/// A chain of three blocks from 12 on; these are the logs of the one in the middle.
async fn node_with(logs: Vec<Value>) -> EvmNode {
    let node = EvmNode::start(make_chain(12, 3, |number| if number == 13 { vec![1] } else { vec![] })).await;
    node.with(|state| (state.blocks[1].logs, state.filters) = (logs, true));
    node
}

fn tx(digit: &str) -> String {
    format!("0x{}", digit.repeat(64))
}

#[tokio::test]
async fn what_the_token_says_of_itself_comes_with_its_transfers() {
    let (c, d, nine) = (word("cc"), word("dd"), format!("{:064x}", 9));
    let mut approval = log(13, 3, &tx("1"), 99);
    approval["topics"][0] = json!("0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925");
    let mut logs = vec![
        notice_log(1, &tx("1"), "AddedBlackList", &[], &c),
        log(13, 2, &tx("1"), 5),
        approval,
        notice_log(4, &tx("1"), "Pause", &[], ""),
        log(13, 5, &tx("1"), 0),
        notice_log(6, &tx("1"), "Unpause", &[], ""),
        log(13, 7, &tx("1"), 6),
        notice_log(8, &tx("2"), "DestroyedBlackFunds", &[], &format!("{c}{nine}")),
        notice_log(9, &tx("2"), "DestroyedBlackFunds", &[&d], &nine),
        notice_log(10, &tx("3"), "RemovedBlackList", &[&c], ""),
        notice_log(11, &tx("4"), "Deprecate", &[], &d),
    ];
    let expected = [
        TokenNotice::Blacklisted(FROZEN),
        TokenNotice::Paused,
        TokenNotice::Unpaused,
        TokenNotice::FundsDestroyed { address: FROZEN, value: Raw::from_units(9) },
        TokenNotice::FundsDestroyed { address: OTHER, value: Raw::from_units(9) },
        TokenNotice::Unblacklisted(FROZEN),
        TokenNotice::Deprecated { successor: OTHER },
    ];
    // A provider may give them in any order, and the adapter puts them into that of the chain.
    logs.reverse();
    let node = node_with(logs).await;
    let chain = proven(&[&node]).await;
    let alone = chain.blocks(13, 1).await.unwrap();
    assert_eq!(node.calls(), ["getBlockByNumber", "getLogs"], "not a call more than transfers need");
    let range = chain.blocks(12, 50).await.unwrap();
    let again = chain.reread(&alone[0].at).await.unwrap().unwrap();
    assert!(node.calls().contains(&"getBlockReceipts".to_owned()));
    assert_eq!(range[0].notices, []);
    for (name, block) in [("alone", &alone[0]), ("in a range", &range[1]), ("by receipts", &again)] {
        assert_eq!(block.notices, expected, "{name}");
        let transfers: Vec<_> = block.transfers.iter().map(|t| (t.key.ordinal, t.value.to_string())).collect();
        assert_eq!(transfers, [(0, "5".to_owned()), (2, "6".to_owned())], "{name}: a notice takes no ordinal");
    }
}

/// What is not the token's word is not heard, and what cannot be read keeps no block back. The node
/// takes filters lightly here, so that the adapter must look itself.
#[tokio::test]
async fn notices_that_are_forged_or_malformed_are_left_out() {
    let (c, d) = (word("cc"), word("dd"));
    let mut forged = notice_log(1, &tx("1"), "AddedBlackList", &[], &c);
    forged["address"] = json!("0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");
    let table = [
        ("genuine", notice_log(1, &tx("1"), "AddedBlackList", &[], &c), 1),
        ("of another contract", forged, 0),
        ("no address", notice_log(1, &tx("1"), "AddedBlackList", &[], ""), 0),
        ("two addresses", notice_log(1, &tx("1"), "RemovedBlackList", &[&c, &d], ""), 0),
        ("an address too many", notice_log(1, &tx("1"), "Deprecate", &[&c], &d), 0),
        ("a dirty address", notice_log(1, &tx("1"), "AddedBlackList", &[], &"f".repeat(64)), 0),
        ("half a word", notice_log(1, &tx("1"), "DestroyedBlackFunds", &[&c], "0102"), 0),
        ("not hex", notice_log(1, &tx("1"), "AddedBlackList", &["zz"], ""), 0),
        ("a pause with a word", notice_log(1, &tx("1"), "Pause", &[], &c), 0),
    ];
    for (name, notice, expected) in table {
        let node = node_with(vec![notice, log(13, 2, &tx("2"), 5)]).await;
        node.with(|state| state.filters = false);
        let chain = chain(&[&node]);
        let alone = chain.blocks(13, 1).await.unwrap().remove(0);
        let range = chain.blocks(12, 50).await.unwrap().remove(1);
        let again = chain.reread(&alone.at).await.unwrap().unwrap();
        for block in [alone, range, again] {
            assert_eq!(block.notices.len(), expected, "{name}");
            assert_eq!((block.transfers.len(), block.unreadable.len()), (1, 0), "{name}: the money comes all the same");
        }
    }
}

/// No node should show logs of a failed transaction; one that does is not believed.
#[tokio::test]
async fn a_failed_transactions_notices_are_left_out() {
    let node = node_with(vec![notice_log(1, &tx("1"), "AddedBlackList", &[], &word("cc")), log(13, 2, &tx("2"), 5)]).await;
    let chain = chain(&[&node]);
    let block = chain.blocks(13, 1).await.unwrap().remove(0);
    let mut receipts = node.with(|state| state.blocks[1].receipts());
    for (status, expected) in [("0x1", 1), ("0x0", 0)] {
        receipts[0]["status"] = json!(status);
        let said = json!({ "result": receipts });
        node.instead(move |method, _| (method == "eth_getBlockReceipts").then(|| said.clone()));
        let again = chain.reread(&block.at).await.unwrap().unwrap();
        assert_eq!((again.notices.len(), again.transfers.len()), (expected, 1), "{status}");
    }
}

/// A notice is held to the same proof as a transfer: it must stand in the block that it is said to.
#[tokio::test]
async fn a_notice_that_contradicts_its_header_voids_the_answer() {
    let notice = notice_log(1, &tx("1"), "AddedBlackList", &[], &word("cc"));
    for (key, value) in [("removed", json!(true)), ("blockHash", json!(hash_of(99))), ("blockNumber", json!("0x63"))] {
        let mut moved = notice.clone();
        moved[key] = value;
        let node = node_with(vec![moved, log(13, 2, &tx("2"), 5)]).await;
        assert_eq!(told(&chain(&[&node]).blocks(13, 1).await), "transient", "{key}");
        assert_eq!(told(&chain(&[&node]).blocks(12, 50).await), "transient", "{key}");
    }
}

/// Providers that do not know what a list in the place of a topic means hide no money.
#[tokio::test]
async fn a_list_of_topics_that_is_not_understood_hides_no_transfer() {
    let logs = vec![notice_log(1, &tx("1"), "AddedBlackList", &[], &word("cc")), log(13, 2, &tx("2"), 5)];

    // Nothing matches a list: the bloom filter tells, and the second question has no topics.
    let blind = node_with(logs.clone()).await;
    blind.instead(|method, params| (method == "eth_getLogs" && !params[0]["topics"].is_null()).then(|| json!({ "result": [] })));
    for (from, limit) in [(13, 1), (12, 50)] {
        let blocks = chain(&[&blind]).blocks(from, limit).await.unwrap();
        let block = blocks.iter().find(|block| block.at.number == 13).unwrap();
        assert_eq!((values(std::slice::from_ref(block)), block.notices.len()), ("13:5".into(), 1));
    }

    // Only the first of the list is looked at: that is Transfer.
    let hasty = node_with(logs).await;
    let transfer = log(13, 2, &tx("2"), 5);
    hasty.instead(move |method, params| {
        assert!(params[0]["topics"].is_null() || params[0]["topics"][0][0] == crate::evm_node::TOPIC);
        (method == "eth_getLogs").then(|| json!({ "result": [transfer] }))
    });
    let block = chain(&[&hasty]).blocks(13, 1).await.unwrap().remove(0);
    assert_eq!((block.transfers.len(), block.notices.len()), (1, 0));
}

/// A block with notices alone has a filter that may speak of transfers; asking twice loses nothing.
#[tokio::test]
async fn a_block_of_notices_alone_keeps_them_through_a_doubt() {
    let node = node_with(vec![notice_log(1, &tx("1"), "AddedBlackList", &[], &word("cc"))]).await;
    for hidden in ["none", "the first time", "the second time"] {
        node.instead(move |method, params| {
            let second = params[0]["topics"].is_null();
            let hides = method == "eth_getLogs" && ((hidden == "the first time" && !second) || (hidden == "the second time" && second));
            hides.then(|| json!({ "result": [] }))
        });
        let block = chain(&[&node]).blocks(13, 1).await.unwrap().remove(0);
        assert_eq!(block.notices, [TokenNotice::Blacklisted(FROZEN)], "hidden: {hidden}");
    }
}

#[tokio::test]
async fn a_token_is_asked_how_it_stands() {
    let node = small_node().await;
    let chain = proven(&[&node]).await;
    let all = TokenState { paused: Some(false), deprecated: Some(false), blacklisted: vec![] };
    assert_eq!(chain.token_state(&[]).await.unwrap(), all);
    assert_eq!(node.calls(), ["call", "call"]);
    assert_eq!(chain.token_state(&[FROZEN, OTHER]).await.unwrap(), all);
    assert_eq!(node.calls().len(), 4);

    let token = Token { paused: true, deprecated: true, blacklisted: vec!["cc".repeat(20), "07".repeat(20)] };
    node.with(|state| state.token = Some(token));
    let many: Vec<Address> = (1..=49).map(|byte| Address([byte; 20])).chain([FROZEN]).collect();
    let told = chain.token_state(&many).await.unwrap();
    assert_eq!(told, TokenState { paused: Some(true), deprecated: Some(true), blacklisted: vec![Address([7; 20]), FROZEN] });
    node.calls();
    assert!(matches!(chain.token_state(&[FROZEN; STATE_ADDRESSES_MAX + 1]).await, Err(Error::Refused(_))));
    assert_eq!(node.calls().len(), 0);

    // BSC's token has no such views; some contracts answer whatever they are asked.
    node.with(|state| state.token = None);
    assert_eq!(chain.token_state(&[FROZEN]).await.unwrap(), TokenState::default());
    for said in ["0x".to_owned(), format!("0x{:064x}", 6), format!("0x{}", "0".repeat(128))] {
        node.instead(move |method, _| (method == "eth_call").then(|| json!({ "result": said })));
        assert_eq!(chain.token_state(&[FROZEN]).await.unwrap(), TokenState::default());
    }
    assert!(chain.endpoints()[0].available);

    // A node that cannot say must not be taken for a token that says no.
    for (code, message) in [(-32_000, "missing trie node"), (-32_000, "execution aborted (timeout = 5s)"), (429, "too many requests")] {
        let (broken, whole) = (small_node().await, small_node().await);
        whole.with(|state| state.token = Some(Token { blacklisted: vec!["cc".repeat(20)], ..Token::default() }));
        broken.instead(move |_, params| {
            let asked = params[0]["data"].as_str().is_some_and(|data| data.starts_with("0xe47d6060"));
            asked.then(|| json!({ "error": { "code": code, "message": message } }))
        });
        let alone = crate::evm_node::chain(&[&broken]).token_state(&[FROZEN]).await;
        assert!(alone.unwrap_err().is_transient(), "{message}");
        let told = crate::evm_node::chain(&[&broken, &whole]).token_state(&[FROZEN]).await.unwrap();
        assert_eq!(told.blacklisted, [FROZEN], "{message}");
    }
}
