//! Blocks that are read a second time: whose word counts. An endpoint that lies, or is confused,
//! must not be the one that confirms what it said itself.

use std::time::Duration;

use serde_json::json;
use tidegate_chain::endpoints::{Endpoint, EndpointConfig, Endpoints, Opinion};
use tidegate_chain::evm::EvmChain;
use tidegate_chain::{Chain, Error, SecondReading};
use tidegate_rules::block::{Block, BlockRef, Network};
use tokio::time::sleep;

use crate::evm_node::{self, EvmNode, bloom_of, log, token_bloom};
use crate::server::{Answer, pass};
use crate::tron_node::{self, TronNode, transfer_info};

fn values(block: &Block) -> String {
    let values: Vec<_> = block.transfers.iter().map(|transfer| transfer.value.to_string()).collect();
    format!("{}:{}", block.at.number, values.join("+"))
}

/// What comes of reading a block again: its transfers, that another stands there, or an error.
fn told(again: &Result<Option<Block>, Error>) -> String {
    match again {
        Ok(Some(block)) => values(block),
        Ok(None) => "another".into(),
        Err(Error::Transient(_)) => "transient".into(),
        Err(Error::Refused(_)) => "refused".into(),
    }
}

/// Four blocks from 11 on, each with a transfer of its number.
async fn honest() -> EvmNode {
    EvmNode::start(evm_node::make_chain(11, 4, |number| vec![number])).await
}

/// The same four, and a transfer of 99 that nobody made in each of these.
async fn lying(heights: &[u64]) -> EvmNode {
    let node = honest().await;
    node.with(|state| {
        for block in state.blocks.iter_mut().filter(|block| heights.contains(&block.number)) {
            let invented = log(block.number, 9, &format!("0x{}", "9".repeat(64)), 99);
            block.logs.push(invented);
            block.bloom = token_bloom();
        }
    });
    node
}

/// Answers 503 to whatever it is asked, in the words of JSON-RPC.
fn break_down(node: &EvmNode) {
    node.instead(|_, _| Some(json!({ "error": { "code": 429, "message": "too many requests" } })));
}

/// Lets it answer again, and ends its rest.
async fn recover(node: &EvmNode) {
    node.with(|state| state.instead = None);
    pass(60).await;
    node.calls();
}

async fn read(chain: &EvmChain, number: u64) -> BlockRef {
    chain.blocks(number, 1).await.unwrap()[0].at
}

#[tokio::test]
async fn who_served_a_block_is_asked_last_whoever_is_in_use() {
    let (liar, other) = (lying(&[13]).await, honest().await);
    let chain = evm_node::chain(&[&liar, &other]);
    let block = read(&chain, 13).await;
    break_down(&liar);
    let next = read(&chain, 14).await;
    assert_eq!(chain.pool().current, 1);
    recover(&liar).await;

    assert_eq!(told(&chain.reread(&block).await), "13:13");
    assert_eq!(liar.calls(), Vec::<String>::new(), "it is not asked to confirm itself");
    let again = chain.second_reading(&[block]).await.unwrap();
    assert!(matches!(&again[..], [SecondReading::Same(block)] if values(block) == "13:13"), "{again:?}");
    assert_eq!(liar.calls(), Vec::<String>::new());

    // What the other one served is confirmed by this one, and asked about on its own.
    assert_eq!(told(&chain.reread(&next).await), "14:14");
    assert_eq!(liar.calls(), ["getBlockByNumber", "getBlockReceipts"]);
    other.calls();
    assert_eq!(chain.second_reading(&[block, next]).await.unwrap().len(), 2);
    assert_eq!((liar.calls().len(), other.calls().len()), (2, 2));

    // Where nobody else answers, its word is all there is: by another method.
    break_down(&other);
    assert_eq!(told(&chain.reread(&block).await), "13:13+99");
}

#[tokio::test]
async fn who_served_a_tron_block_is_asked_last_whoever_is_in_use() {
    let blocks = tron_node::make_chain(101, 2, |number| vec![transfer_info(number, &format!("{number:064x}"), number)]);
    let (liar, other) = (TronNode::start(blocks.clone()).await, TronNode::start(blocks).await);
    for node in [&liar, &other] {
        node.with(|state| state.solid = 102);
    }
    let invented = transfer_info(101, &"9".repeat(64), 99);
    liar.with(|state| state.blocks.get_mut(&101).unwrap().1.as_array_mut().unwrap().push(invented));
    let chain = tron_node::chain(&[&liar, &other]);
    let block = chain.blocks(101, 1).await.unwrap()[0].at;
    liar.instead(|_| Some(Answer::Status(503, &[], String::new())));
    chain.blocks(102, 1).await.unwrap();
    assert_eq!(chain.pool().current, 1);
    liar.with(|state| state.instead = None);
    pass(60).await;
    liar.calls();
    assert_eq!(told(&chain.reread(&block).await), "101:101");
    let again = chain.second_reading(&[block]).await.unwrap();
    assert!(matches!(&again[..], [SecondReading::Same(block)] if values(block) == "101:101"), "{again:?}");
    assert_eq!(liar.calls(), 0, "it is not asked to confirm itself");
    other.instead(|_| Some(Answer::Status(503, &[], String::new())));
    assert_eq!(told(&chain.reread(&block).await), "101:101+99", "as ever where it is the only one");
}

/// A hedge that won, or a move to another endpoint: the pool knows who it was.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_served_a_block_is_asked_last_too() {
    let config = |name: &str| EndpointConfig::new(format!("http://{name}.invalid").parse().unwrap());
    let pool = Endpoints::new(&Network::new("testnet"), vec![config("slow"), config("quick")], Box::new(|| 0)).unwrap();
    let slow = |endpoint: Endpoint| async move {
        sleep(Duration::from_secs(if endpoint.index() == 0 { 10 } else { 1 })).await;
        Ok(vec![endpoint.index(); 2])
    };
    assert_eq!((pool.run_from(7, slow).await.unwrap(), pool.pool_health().current), (vec![1, 1], 0));
    let who = |endpoint: Endpoint| async move { Ok(Opinion::For(endpoint.index())) };
    for (number, first) in [(7, 0), (8, 0), (9, 1)] {
        assert_eq!(pool.second_opinion(number, |_, second| second, who).await.unwrap(), first, "{number}");
    }
}

/// Logs that came in answer to a doubt are the word of whoever gave that answer.
#[tokio::test]
async fn who_answered_a_doubt_does_not_confirm_its_answer() {
    let (first, liar) = (honest().await, lying(&[13]).await);
    for node in [&first, &liar] {
        node.with(|state| {
            state.blocks[2].bloom = token_bloom();
            state.blocks[2].logs.retain(|log| log["data"] != format!("0x{:064x}", 13));
        });
    }
    let chain = evm_node::chain(&[&first, &liar]);
    let block = chain.blocks(13, 1).await.unwrap().remove(0);
    assert_eq!(values(&block), "13:99", "it is seen");
    assert_eq!(told(&chain.reread(&block.at).await), "13:", "and not confirmed");

    let third = honest().await;
    third.with(|state| (state.blocks[2].logs.clear(), state.blocks[2].bloom = bloom_of(&[])));
    let chain = evm_node::chain(&[&first, &liar, &third]);
    chain.blocks(13, 1).await.unwrap();
    liar.calls();
    assert_eq!(told(&chain.reread(&block.at).await), "13:");
    assert_eq!(liar.calls(), Vec::<String>::new(), "one that had no part in it is enough");
}

/// A bloom filter may allow what is not there: that asks for a second look, not for the liar's word.
#[tokio::test]
async fn who_served_a_block_does_not_settle_a_doubt_about_it() {
    let (liar, other) = (lying(&[13]).await, honest().await);
    for node in [&liar, &other] {
        node.with(|state| state.blocks[2].logs.retain(|log| log["data"] != format!("0x{:064x}", 13)));
    }
    let chain = evm_node::chain(&[&liar, &other]);
    let block = chain.blocks(13, 1).await.unwrap().remove(0);
    assert_eq!(values(&block), "13:99", "it is seen");
    liar.calls();
    assert_eq!(told(&chain.reread(&block.at).await), "13:");
    assert_eq!((liar.calls().len(), other.calls().len()), (0, 4));
}

/// A payer may have a block read once more, by naming a transaction in it: by then another endpoint
/// is in use, and who lied the first time must not pass for a stranger.
#[tokio::test]
async fn what_two_endpoints_served_is_confirmed_by_a_third_or_by_both() {
    let (liar, other, third) = (lying(&[13]).await, honest().await, honest().await);
    for nodes in [vec![&liar, &other], vec![&liar, &other, &third]] {
        let chain = evm_node::chain(&nodes);
        let block = read(&chain, 13).await;
        break_down(&liar);
        chain.blocks(13, 1).await.unwrap();
        recover(&liar).await;
        other.calls();
        third.calls();
        assert_eq!(told(&chain.reread(&block).await), "13:13");
        let asked = [&liar, &other, &third].map(|node| node.calls().is_empty());
        assert_eq!(asked, if nodes.len() == 2 { [false, false, true] } else { [true, true, false] });
        let again = chain.second_reading(&[block]).await.unwrap();
        assert!(matches!(&again[..], [SecondReading::Same(block)] if values(block) == "13:13"), "{again:?}");
    }
}

/// After a restart nobody is remembered: any but the one in use.
#[tokio::test]
async fn where_nobody_is_remembered_another_than_the_one_in_use_is_asked() {
    let (used, other) = (honest().await, honest().await);
    let block = read(&evm_node::chain(&[&used]), 13).await;
    let chain = evm_node::chain(&[&used, &other]);
    used.calls();
    assert_eq!(told(&chain.reread(&block).await), "13:13");
    assert_eq!((used.calls().len(), other.calls().len()), (0, 3));
}

/// The honest chain up to `fork`, and another branch above it.
async fn forked(fork: u64) -> EvmNode {
    let node = honest().await;
    leave(&node, fork);
    node
}

/// Goes on on another branch above `fork`.
fn leave(node: &EvmNode, fork: u64) {
    node.with(|state| {
        for block in state.blocks.iter_mut().filter(|block| block.number > fork) {
            block.hash = block.hash.replace("b10c", "f04c");
            block.logs.iter_mut().for_each(|log| log["blockHash"] = json!(block.hash));
            if block.number > fork + 1 {
                block.parent = block.parent.replace("b10c", "f04c");
            }
        }
    });
}

fn short(reading: &SecondReading) -> String {
    match reading {
        SecondReading::Same(block) => values(block),
        SecondReading::Replaced(at) => format!("{}!", at.number),
    }
}

/// What comes of reading blocks 13 and 11 to 14 again on a chain over these nodes, whose first has
/// served them, or that has just been started; and that nobody is blamed for it.
async fn again(nodes: &[&EvmNode], started: bool) -> (String, String) {
    let chain = evm_node::chain(nodes);
    let refs = [11, 12, 13, 14].map(|number| evm_node::make_chain(number, 1, |_| vec![])[0].clone());
    let refs = refs.map(|block| BlockRef {
        number: block.number,
        hash: block.hash.parse().unwrap(),
        parent: block.parent.parse().unwrap(),
        time: tidegate_rules::time::Time::default(),
    });
    if !started {
        chain.blocks(11, 50).await.unwrap();
    }
    let reread = told(&chain.reread(&refs[2]).await);
    let second: Vec<String> = chain.second_reading(&refs).await.unwrap().iter().map(short).collect();
    let health = chain.endpoints();
    assert!(health.iter().all(|endpoint| endpoint.failures == 0 && endpoint.available), "{health:?}");
    (reread, second.join(" "))
}

/// An endpoint that stands on a dead branch has no say where another one, that did not serve the
/// block, shows it.
#[tokio::test]
async fn one_endpoint_on_a_dead_branch_keeps_nothing_from_settling() {
    let whole = ("13:13".to_owned(), "11:11 12:12 13:13 14:14".to_owned());
    let (first, dead, third) = (honest().await, forked(12).await, honest().await);
    assert_eq!(again(&[&first, &dead, &third], false).await, whole);
    assert_eq!(again(&[&first, &dead, &third], true).await, whole, "nobody is remembered: two show it");

    let calls = |node: &EvmNode| node.calls().iter().filter(|call| *call == "getBlockReceipts").count();
    calls(&first);
    calls(&third);
    assert_eq!(again(&[&first, &dead, &third], false).await, whole);
    assert_eq!((calls(&first), calls(&third)), (0, 1), "the word of one that did not serve it is enough");
    assert_eq!(again(&[&first, &third, &dead], false).await, whole);
}

/// A liar can invent a block as well as a log: against another endpoint its own word is nothing.
#[tokio::test]
async fn who_served_a_block_is_not_believed_against_another() {
    let gone = ("another".to_owned(), "11:11 12:12 13! 14!".to_owned());
    let (liar, other) = (honest().await, forked(12).await);
    assert_eq!(again(&[&liar, &other], false).await, gone);
    assert_eq!(again(&[&liar, &other], true).await, gone, "nor when nobody is remembered");
}

/// The chain has left the block, and all say so: that is no error, and no failure of anybody.
#[tokio::test]
async fn a_block_that_was_reorganised_is_gone_for_all() {
    let nodes = [honest().await, honest().await, honest().await];
    for count in [1, 2, 3] {
        let nodes: Vec<&EvmNode> = nodes[..count].iter().collect();
        nodes.iter().for_each(|node| node.with(|state| state.blocks = evm_node::make_chain(11, 4, |number| vec![number])));
        let chain = evm_node::chain(&nodes);
        let refs: Vec<BlockRef> = chain.blocks(11, 50).await.unwrap().iter().map(|block| block.at).collect();
        nodes.iter().for_each(|node| leave(node, 12));
        assert_eq!(told(&chain.reread(&refs[2]).await), "another", "{count}");
        let second = chain.second_reading(&refs).await.unwrap();
        assert_eq!(second.iter().map(short).collect::<Vec<_>>().join(" "), "11:11 12:12 13! 14!", "{count}");
        assert!(chain.endpoints().iter().all(|endpoint| endpoint.failures == 0), "{count}");
        // One that lacks the block, and one that does not answer, change nothing about it.
        if let [_, second, ..] = nodes[..] {
            second.with(|state| state.head = 12);
            assert_eq!(told(&chain.reread(&refs[2]).await), "another", "{count}");
            break_down(second);
            assert_eq!(told(&chain.reread(&refs[2]).await), "another", "{count}");
            recover(second).await;
            second.with(|state| state.head = 14);
        }
    }
}

/// An endpoint whose empty answer its own header speaks against is not the last word either.
#[tokio::test]
async fn an_answer_that_stays_doubtful_is_compared_with_another() {
    let (first, blind, third) = (honest().await, honest().await, honest().await);
    blind.instead(|method, _| match method {
        "eth_getBlockReceipts" => Some(json!({ "error": { "code": -32_601, "message": "method not found" } })),
        "eth_getLogs" => Some(json!({ "result": [] })),
        _ => None,
    });
    for (nodes, expected) in [(vec![&first, &blind, &third], "13:13"), (vec![&first, &blind], "13:")] {
        let chain = evm_node::chain(&nodes);
        let block = read(&chain, 13).await;
        assert_eq!(told(&chain.reread(&block).await), expected);
    }
}

#[tokio::test]
async fn a_tron_endpoint_on_a_dead_branch_keeps_nothing_from_settling() {
    let chain_of = |count| tron_node::make_chain(101, count, |number| vec![transfer_info(number, &format!("{number:064x}"), number)]);
    let (first, dead, third) = (TronNode::start(chain_of(3)).await, TronNode::start(chain_of(3)).await, TronNode::start(chain_of(3)).await);
    // From 102 on it has stood still on another branch.
    dead.with(|state| {
        let mut parent = state.blocks[&101].0["blockID"].as_str().unwrap().to_owned();
        for number in [102, 103] {
            let header = tron_node::make_header(number, &parent, &"cd".repeat(32));
            parent = header["blockID"].as_str().unwrap().to_owned();
            state.blocks.get_mut(&number).unwrap().0 = header;
        }
    });
    for solid in [0, 103] {
        for node in [&first, &dead, &third] {
            node.with(|state| state.solid = solid);
        }
        for (nodes, reread, second) in
            [(vec![&first, &dead, &third], "102:102", "101:101 102:102 103:103"), (vec![&first, &dead], "another", "101:101 102! 103!")]
        {
            let chain = tron_node::chain(&nodes);
            let refs: Vec<BlockRef> = chain.blocks(101, 50).await.unwrap().iter().map(|block| block.at).collect();
            assert_eq!(told(&chain.reread(&refs[1]).await), reread);
            let again = chain.second_reading(&refs).await.unwrap();
            assert_eq!(again.iter().map(short).collect::<Vec<_>>().join(" "), second);
            assert!(chain.endpoints().iter().all(|endpoint| endpoint.failures == 0));
        }
    }
}
