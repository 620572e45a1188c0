//! TRON nodes that do not serve the view of what is solid: an own java-tron serves it on another
//! port. Blocks are read again all the same, and what is final is learned in another way.

use serde_json::{Value, json};
use tidegate_chain::tron::TronChain;
use tidegate_chain::{Chain, Error, SecondReading};
use tidegate_rules::block::{Block, BlockRef};

use crate::server::{Answer, pass};
use crate::tron_node::{TronNode, chain, make_chain, make_header, transfer_info};

/// What Jetty says of a path outside of its context.
const NOT_FOUND: &str = "<html><head><title>Error 404 Not Found</title></head><body><h2>HTTP ERROR 404 Not Found</h2></body></html>";

/// Three blocks from 101 on with a transfer each, the first two of them solid.
async fn node() -> TronNode {
    let node = TronNode::start(make_chain(101, 3, |number| vec![transfer_info(number, &format!("{number:064x}"), number)])).await;
    node.with(|state| state.solid = 102);
    node
}

/// Such a node on the port of a full node: it answers so to all paths that begin with one of these.
fn lacking(node: &TronNode, paths: &'static [&'static str], answer: Answer) {
    node.instead(move |asked| paths.iter().any(|path| asked.path.starts_with(path)).then(|| answer.clone()));
}

fn not_found() -> Answer {
    Answer::Status(404, &[], NOT_FOUND.into())
}

/// How often it was asked for the view of what is solid, and how often for what it says of itself.
fn asked(node: &TronNode) -> (usize, usize) {
    let asked = node.server.asked();
    let count = |path: &str| asked.iter().filter(|asked| asked.path.starts_with(path)).count();
    (count("/walletsolidity/"), count("/wallet/getnodeinfo"))
}

async fn read(chain: &TronChain) -> Vec<Block> {
    let blocks = chain.blocks(101, 50).await.unwrap();
    assert_eq!(blocks.len(), 3);
    blocks
}

fn told(result: &Result<Option<BlockRef>, Error>) -> String {
    match result {
        Ok(Some(block)) => block.number.to_string(),
        Ok(None) => "none".into(),
        Err(error) if error.is_transient() => "transient".into(),
        Err(_) => "refused".into(),
    }
}

#[tokio::test]
async fn a_node_without_the_solid_view_settles_by_its_full_view() {
    let own = node().await;
    lacking(&own, &["/walletsolidity/"], not_found());
    let chain = chain(&[&own]);
    let blocks = read(&chain).await;
    let refs: Vec<BlockRef> = blocks.iter().map(|block| block.at).collect();
    asked(&own);
    let same: Vec<SecondReading> = blocks.iter().cloned().map(SecondReading::Same).collect();
    for expected in [(1, 1), (0, 1)] {
        assert_eq!(chain.final_head().await.unwrap(), Some(refs[1]));
        assert_eq!(chain.reread(&refs[1]).await.unwrap().as_ref(), Some(&blocks[1]));
        assert_eq!(chain.second_reading(&refs).await.unwrap(), same);
        assert_eq!(asked(&own), expected, "it is asked for that view once");
    }
    let health = &chain.endpoints()[0];
    assert_eq!((health.failures, health.available), (0, true));
}

/// It is learned by whichever question is the first one.
#[tokio::test]
async fn a_second_reading_finds_out_that_there_is_no_solid_view() {
    let refs: Vec<BlockRef> = read(&chain(&[&node().await])).await.iter().map(|block| block.at).collect();
    for second in [false, true] {
        let own = node().await;
        // Headers of that view, but not the infos: the operator has switched one call off.
        let closed = Answer::Status(404, &[], r#"{"Error":"this API is unavailable due to config"}"#.into());
        lacking(&own, &["/walletsolidity/gettransactioninfobyblocknum"], closed);
        let chain = chain(&[&own]);
        if second {
            assert_eq!(chain.second_reading(&refs[..2]).await.unwrap().len(), 2);
        } else {
            assert!(chain.reread(&refs[1]).await.unwrap().is_some());
        }
        let health = &chain.endpoints()[0];
        assert_eq!((health.failures, health.available), (0, true));
    }
}

#[tokio::test]
async fn another_endpoint_says_what_is_final_where_the_one_in_use_does_not() {
    let (own, other) = (node().await, node().await);
    lacking(&own, &["/walletsolidity/", "/wallet/getnodeinfo"], not_found());
    assert_eq!(told(&chain(&[&own]).final_head().await), "none", "alone nobody knows");
    let chain = chain(&[&own, &other]);
    asked(&own);
    for expected in [(1, 1), (0, 0)] {
        assert_eq!(told(&chain.final_head().await), "102");
        assert_eq!(asked(&own), expected);
    }
    let health = chain.endpoints();
    assert!(health.iter().all(|endpoint| endpoint.failures == 0 && endpoint.available), "{health:?}");
    assert_eq!((chain.pool().current, chain.pool().switches_total), (0, 0), "and it stays the one in use");

    other.instead(|_| Some(Answer::Status(503, &[], String::new())));
    assert_eq!(told(&chain.final_head().await), "none", "who is away holds nothing up");
}

/// Only a path that is not there is a view that is not offered. An endpoint that is busy, or wants
/// another key, is left as ever, and asked for the view again.
#[tokio::test]
async fn whatever_else_a_node_answers_is_a_failure() {
    for (status, learned) in [(404, true), (405, true), (401, false), (403, false), (429, false), (500, false), (503, false)] {
        let own = node().await;
        let chain = chain(&[&own]);
        read(&chain).await;
        lacking(&own, &["/walletsolidity/"], Answer::Status(status, &[], NOT_FOUND.into()));
        let found = told(&chain.final_head().await);
        assert_eq!(found == "102", learned, "{status}: {found}");
        assert_eq!(chain.endpoints()[0].available, learned, "{status}");
        own.with(|state| state.instead = None);
        pass(600).await;
        asked(&own);
        assert_eq!(told(&chain.final_head().await), "102", "{status}");
        assert_eq!(asked(&own), if learned { (0, 1) } else { (1, 0) }, "{status}");
    }

    // One that has nothing at all is broken, and nothing is learned of it.
    let broken = node().await;
    let chain = chain(&[&broken]);
    read(&chain).await;
    broken.instead(|_| Some(not_found()));
    assert_eq!(told(&chain.final_head().await), "refused");
    assert!(!chain.endpoints()[0].available);
    broken.with(|state| state.instead = None);
    pass(600).await;
    asked(&broken);
    assert_eq!((told(&chain.final_head().await), asked(&broken)), ("102".into(), (1, 0)));
}

/// What a node says of itself is believed for a block that it shows under the same hash.
#[tokio::test]
async fn a_solid_block_is_one_that_the_node_shows() {
    let (known, other) = (make_chain(101, 3, |_| vec![]), make_header(102, &"0".repeat(64), &"ab".repeat(32)));
    let says = |number: u64, header: &Value| json!({ "solidityBlock": format!("Num:{number},ID:{}", header["blockID"].as_str().unwrap()) });
    let table = [
        (says(102, &known[1].0), "102", true),
        (says(103, &known[2].0), "103", true),
        (json!({ "solidityBlock": "" }), "none", true),
        (json!({ "block": "Num:103,ID:00" }), "none", true),
        // Behind a balancer another node may be the one that is asked for the block.
        (says(104, &known[2].0), "none", true),
        (says(102, &known[2].0), "none", true),
        (says(102, &other), "none", true),
        (json!({ "solidityBlock": "102" }), "transient", false),
        (json!({ "solidityBlock": "Num:102,ID:00" }), "transient", false),
        (json!({ "solidityBlock": "Num:-1,ID:00" }), "transient", false),
        (json!({ "Error": "class java.lang.IllegalAccessException : lack of computing resources" }), "transient", false),
        (json!([]), "transient", false),
    ];
    for (said, expected, available) in table {
        let own = TronNode::start(known.clone()).await;
        let (name, said) = (said.to_string(), Answer::Json(said));
        own.instead(move |asked| match asked.path.as_str() {
            "/wallet/getnodeinfo" => Some(said.clone()),
            path => path.starts_with("/walletsolidity/").then(not_found),
        });
        let chain = chain(&[&own]);
        assert_eq!(told(&chain.final_head().await), expected, "{name}");
        assert_eq!(chain.endpoints()[0].available, available, "{name}");
    }
}
