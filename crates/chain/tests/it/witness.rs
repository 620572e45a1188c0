//! Independent endpoints are asked whether they show a block: those of one host are one witness.

use serde_json::json;
use tidegate_chain::endpoints::{EndpointConfig, Endpoints, Hedging};
use tidegate_chain::evm::{EvmChain, EvmConfig};
use tidegate_chain::sandbox::{SandboxChain, SandboxConfig};
use tidegate_chain::tron::{TronChain, TronConfig};
use tidegate_chain::{Chain, Witnesses};
use tidegate_rules::block::{BlockRef, Hash, Network};
use tidegate_rules::time::Time;

use crate::evm_node::{self, EvmNode};
use crate::server::{Server, config};
use crate::tron_node::{self, CHAIN_ID, TronNode};

/// The same server under the other name of this machine: another host, as far as a URL tells.
fn by_name(server: &Server) -> EndpointConfig {
    let mut config = config(server);
    config.url.set_host(Some("localhost")).unwrap();
    config
}

fn dead(host: &str) -> EndpointConfig {
    EndpointConfig::new(format!("http://{host}:1").parse().unwrap())
}

fn endpoints(configs: Vec<EndpointConfig>) -> Endpoints {
    Endpoints::new(&Network::new("testnet"), configs, Box::new(|| 0)).unwrap().with_hedging(Hedging::Off)
}

fn names(servers: &[&EndpointConfig]) -> Vec<String> {
    servers.iter().map(|config| format!("http://{}:{}", config.url.host_str().unwrap(), config.url.port().unwrap())).collect()
}

#[tokio::test]
async fn hosts_of_an_evm_network_agree_disagree_or_are_silent() {
    let (one, two) =
        (EvmNode::start(evm_node::make_chain(1, 9, |_| vec![])).await, EvmNode::start(evm_node::make_chain(1, 9, |_| vec![])).await);
    let (first, second, third) = (config(&one.server), by_name(&two.server), dead("127.0.0.2"));
    let chain = EvmChain::new(
        EvmConfig::new(1, evm_node::usdt()),
        endpoints(vec![first.clone(), second.clone(), third.clone(), config(&two.server), by_name(&one.server)]),
    );
    let block = chain.header(7).await.unwrap().unwrap();
    let (first, second, third) = (names(&[&first]), names(&[&second]), names(&[&third]));
    let told = chain.witnesses(&block).await.unwrap();
    assert_eq!(told, Witnesses { same: [first.clone(), second.clone()].concat(), other: vec![], silent: third.clone() });

    two.with(|state| state.blocks.iter_mut().for_each(|block| block.hash = block.hash.replace("b10c", "f04c")));
    let told = chain.witnesses(&block).await.unwrap();
    assert_eq!(told, Witnesses { same: first.clone(), other: second.clone(), silent: third.clone() });

    let switches = chain.pool().switches_total;
    assert_eq!(switches, 0, "to ask is no reason to switch");
}

#[tokio::test]
async fn a_second_endpoint_of_a_host_speaks_when_the_first_cannot() {
    let (lagging, whole) =
        (EvmNode::start(evm_node::make_chain(1, 9, |_| vec![])).await, EvmNode::start(evm_node::make_chain(1, 9, |_| vec![])).await);
    let chain = EvmChain::new(EvmConfig::new(1, evm_node::usdt()), endpoints(vec![config(&lagging.server), config(&whole.server)]));
    let block = chain.header(7).await.unwrap().unwrap();
    lagging.with(|state| state.head = 6);
    let told = chain.witnesses(&block).await.unwrap();
    assert_eq!(told, Witnesses { same: names(&[&config(&whole.server)]), ..Witnesses::default() }, "one host, one witness");
    whole.instead(|_, _| Some(json!({ "error": { "code": -32_000, "message": "out of order" } })));
    let told = chain.witnesses(&block).await.unwrap();
    assert_eq!(told, Witnesses { silent: names(&[&config(&lagging.server)]), ..Witnesses::default() });
}

#[tokio::test]
async fn an_endpoint_on_another_chain_is_no_witness() {
    let (right, wrong) =
        (EvmNode::start(evm_node::make_chain(1, 9, |_| vec![])).await, EvmNode::start(evm_node::make_chain(1, 9, |_| vec![])).await);
    wrong.with(|state| state.chain_id = 5);
    let chain = EvmChain::new(EvmConfig::new(1, evm_node::usdt()), endpoints(vec![config(&right.server), by_name(&wrong.server)]));
    let block = chain.header(7).await.unwrap().unwrap();
    let told = chain.witnesses(&block).await.unwrap();
    let expected = (names(&[&config(&right.server)]), names(&[&by_name(&wrong.server)]));
    assert_eq!((told.same, told.silent, told.other), (expected.0, expected.1, vec![]), "though it shows the very hash");
}

#[tokio::test]
async fn hosts_of_a_tron_network_are_asked_the_same_way() {
    let (one, two) =
        (TronNode::start(tron_node::make_chain(1, 9, |_| vec![])).await, TronNode::start(tron_node::make_chain(1, 5, |_| vec![])).await);
    let config_of = TronConfig { chain_id: CHAIN_ID, token: tron_node::usdt() };
    let chain = TronChain::new(config_of, endpoints(vec![config(&one.server), by_name(&two.server)]));
    let (first, second) = (names(&[&config(&one.server)]), names(&[&by_name(&two.server)]));
    let block = chain.header(5).await.unwrap().unwrap();
    assert_eq!(
        chain.witnesses(&block).await.unwrap(),
        Witnesses { same: [first.clone(), second.clone()].concat(), ..Witnesses::default() }
    );
    let other = BlockRef { hash: Hash([9; 32]), ..block };
    assert_eq!(
        chain.witnesses(&other).await.unwrap(),
        Witnesses { other: [first.clone(), second.clone()].concat(), ..Witnesses::default() }
    );
    let newer = chain.header(7).await.unwrap().unwrap();
    assert_eq!(chain.witnesses(&newer).await.unwrap(), Witnesses { same: first, silent: second, ..Witnesses::default() });
}

#[tokio::test]
async fn the_sandbox_speaks_for_itself() {
    let chain = SandboxChain::new(SandboxConfig::evm(Time::from_secs(1_700_000_000), 1));
    chain.mine(Time::from_secs(1_700_000_012)).unwrap();
    let head = chain.head().await.unwrap();
    let name = || vec!["sandbox".to_owned()];
    assert_eq!(chain.witnesses(&head).await.unwrap(), Witnesses { same: name(), ..Witnesses::default() });
    let other = BlockRef { hash: Hash([9; 32]), ..head };
    assert_eq!(chain.witnesses(&other).await.unwrap(), Witnesses { other: name(), ..Witnesses::default() });
    let younger = BlockRef { time: Time::from_secs(1_700_000_013), ..head };
    assert_eq!(
        chain.witnesses(&younger).await.unwrap(),
        Witnesses { other: name(), ..Witnesses::default() },
        "a hash says nothing of a time"
    );
    let unknown = BlockRef { number: head.number + 1, ..head };
    assert_eq!(chain.witnesses(&unknown).await.unwrap(), Witnesses { silent: name(), ..Witnesses::default() });
}
