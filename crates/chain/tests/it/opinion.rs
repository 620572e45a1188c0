//! Blocks that are read a second time: whose word counts. An endpoint that lies, or is confused,
//! must not be the one that confirms what it said itself.

use std::time::Duration;

use serde_json::json;
use tidegate_chain::endpoints::{Endpoint, EndpointConfig, Endpoints};
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
    let who = |endpoint: Endpoint| async move { Ok(endpoint.index()) };
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
