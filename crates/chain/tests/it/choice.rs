//! Which endpoint is in use: how one comes back after a rest, when one is left though it answers,
//! when the operator's first is returned to, and what is told of all that.

use std::time::Duration;

use serde_json::json;
use tidegate_chain::endpoints::{
    ENDPOINTS_MAX, Endpoint, EndpointConfig, Endpoints, Failure, HEDGE_AFTER_UNKNOWN, Hedging, Prefer, SWITCHES_KEPT,
};
use tidegate_chain::{Chain, EndpointState, Error};
use tidegate_rules::block::{BlockRef, Hash, Network};
use tidegate_rules::time::Time;
use tokio::sync::Notify;
use tokio::time::{Instant, advance};

use crate::evm_node::{self, EvmNode, make_chain};
use crate::server::{Answer, Server, config, pass, pool};
use crate::tron_node::{self, TronNode};

fn unreachable(count: usize) -> Endpoints {
    let config = |index: usize| EndpointConfig::new(format!("http://{}.invalid", ["first", "second", "third"][index]).parse().unwrap());
    Endpoints::new(&Network::new("testnet"), (0..count).map(config).collect(), Box::new(|| 0)).unwrap().with_hedging(Hedging::Off)
}

/// Says where it was done; fails where it is told to.
async fn on(pool: &Endpoints, bad: &[usize]) -> Result<usize, Error> {
    let operation = |endpoint: Endpoint| async move {
        if bad.contains(&endpoint.index()) { Err(Failure::transient("it is bad")) } else { Ok(vec![endpoint.index()]) }
    };
    Ok(pool.run_from(7, operation).await?[0])
}

async fn seconds(count: u64) {
    advance(Duration::from_secs(count)).await;
}

fn block(number: u8) -> BlockRef {
    let hash = |number: u8| Hash([number; 32]);
    BlockRef {
        number: number.into(),
        hash: hash(number),
        parent: hash(number - 1),
        time: Time::from_secs(1_700_000_000 + 12 * i64::from(number)),
    }
}

#[tokio::test(start_paused = true)]
async fn after_its_rest_an_endpoint_is_tried_by_one_operation_at_a_time() {
    let pool = unreachable(1);
    on(&pool, &[0]).await.unwrap_err();
    on(&pool, &[0]).await.unwrap_err();
    assert_eq!(pool.health()[0].state, EndpointState::Resting { left: Duration::from_secs(1) });
    seconds(1).await;
    assert_eq!((pool.health()[0].state, pool.health()[0].available), (EndpointState::HalfOpen, true));

    let answer = Notify::new();
    let mut trial = Box::pin(pool.run(Prefer::Current, |_| async {
        answer.notified().await;
        Err::<(), _>(Failure::transient("still bad"))
    }));
    tokio::select! { biased; _ = &mut trial => panic!("it has no answer yet"), () = std::future::ready(()) => {} }
    for _ in 0..3 {
        let refused = on(&pool, &[]).await.unwrap_err();
        assert!(refused.is_transient() && refused.to_string().contains("another operation is trying it after: it is bad"), "{refused}");
    }
    answer.notify_one();
    trial.await.unwrap_err();
    assert_eq!(pool.health()[0].state, EndpointState::Resting { left: Duration::from_secs(2) }, "it rests longer");
    assert_eq!(pool.health()[0].failures_in_row, 2);

    seconds(2).await;
    let mut given_up = Box::pin(pool.run(Prefer::Current, |_| std::future::pending::<Result<(), Failure>>()));
    tokio::select! { biased; _ = &mut given_up => panic!("it has no answer"), () = std::future::ready(()) => {} }
    on(&pool, &[]).await.unwrap_err();
    drop(given_up);
    assert_eq!(on(&pool, &[]).await, Ok(0), "a trial that was given up lets another in");
    assert_eq!((pool.health()[0].state, pool.health()[0].failures_in_row), (EndpointState::Available, 0));
}

#[tokio::test]
async fn every_switch_has_its_reason_without_the_key() {
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    let locked = Server::start(|_| Answer::Status(401, &[], format!("no project {KEY}"))).await;
    let other = Server::start(|_| Answer::Text("{}".into())).await;
    let mut first = config(&locked);
    first.url.set_path(&format!("v3/{KEY}"));
    let pool = Endpoints::new(&Network::new("testnet"), vec![first, config(&other)], Box::new(|| 0)).unwrap();
    pool.run(Prefer::Current, |endpoint: Endpoint| async move { endpoint.post("", &json!({}), 1).await }).await.unwrap();
    pass(5).await;
    let told = pool.pool_health();
    let (health, switch) = (pool.health(), &told.switches[0]);
    assert_eq!((told.current, told.switches_total, told.switches.len()), (1, 1, 1));
    assert_eq!((&switch.from, &switch.to), (&health[0].name, &health[1].name));
    assert_eq!(switch.reason, "HTTP 401 Unauthorized: no project ***");
    assert_eq!(switch.age.as_secs(), 5);
    assert!(!format!("{told:?} {health:?} {pool:?}").contains(KEY));
}

#[tokio::test(start_paused = true)]
async fn the_list_of_switches_is_bounded_and_the_count_is_not() {
    let pool = unreachable(2);
    for round in 0..40 {
        assert_eq!(on(&pool, &[round % 2]).await, Ok((round + 1) % 2));
        seconds(60).await;
    }
    let told = pool.pool_health();
    assert_eq!((told.switches.len(), told.switches_total), (SWITCHES_KEPT, 40));
    assert_eq!((told.switches[0].to.as_str(), told.switches[0].age.as_secs()), ("http://first.invalid", 60), "the newest first");
}

#[tokio::test(start_paused = true)]
async fn the_operators_first_endpoint_is_returned_to_when_it_is_well() {
    let pool = unreachable(3);
    assert_eq!(on(&pool, &[0, 1]).await, Ok(2));
    seconds(599).await;
    assert_eq!(on(&pool, &[]).await, Ok(2), "not at once");
    seconds(1).await;
    assert_eq!(on(&pool, &[0]).await, Ok(2), "and not when it fails: who is in use serves");
    assert_eq!((pool.pool_health().current, pool.health()[0].failures), (2, 2));
    seconds(1_199).await;
    assert_eq!(on(&pool, &[]).await, Ok(2), "the next try waits twice as long");
    seconds(1).await;
    assert_eq!(on(&pool, &[]).await, Ok(0));
    let told = pool.pool_health();
    assert_eq!((told.current, told.switches_total), (0, 2));
    assert!(told.switches[0].reason.contains("named earlier and well again"), "{told:?}");

    assert_eq!(on(&pool, &[0]).await, Ok(1), "that was too early");
    seconds(2_399).await;
    assert_eq!(on(&pool, &[]).await, Ok(1), "so the next return waits twice as long again");
    seconds(1).await;
    assert_eq!(on(&pool, &[]).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_return_to_a_silent_endpoint_costs_no_more_than_a_hedge() {
    let pool = unreachable(2).with_hedging(Hedging::WhenSlow);
    assert_eq!(on(&pool, &[0]).await, Ok(1));
    seconds(600).await;
    let silent = |endpoint: Endpoint| async move {
        if endpoint.index() == 0 {
            std::future::pending::<()>().await;
        }
        Ok(vec![endpoint.index()])
    };
    let start = Instant::now();
    assert_eq!(pool.run_from(7, silent).await.unwrap(), [1]);
    assert_eq!((start.elapsed(), pool.pool_health().current), (HEDGE_AFTER_UNKNOWN, 1));
    for _ in 0..10 {
        seconds(60).await;
        let start = Instant::now();
        assert_eq!(pool.run_from(7, silent).await.unwrap(), [1]);
        assert_eq!(start.elapsed(), Duration::ZERO, "and is not tried again at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_high_head_alone_moves_nobody() {
    let pool = unreachable(2);
    // The second one shows a head far ahead, and has no block of it.
    let look = |endpoint: Endpoint| async move {
        let head = block(if endpoint.index() == 1 { 200 } else { 100 });
        endpoint.saw_head(&head);
        Ok(if endpoint.index() == 1 { vec![] } else { vec![head] })
    };
    pool.run(Prefer::Other, look).await.unwrap();
    for _ in 0..10 {
        assert_eq!(pool.run_from(100, look).await.unwrap().len(), 1, "the blocks come all the same");
        seconds(5).await;
    }
    assert!(pool.health()[0].lagging_for.is_some());
    assert_eq!((pool.pool_health().current, pool.pool_health().switches_total), (0, 0));
}

/// Two EVM nodes on one chain; the first one goes on, but 41 blocks behind.
#[tokio::test]
async fn a_node_that_lags_is_set_aside_and_a_node_that_forks_is_not() {
    let (behind, ahead) = (EvmNode::start(make_chain(1, 200, |_| vec![])).await, EvmNode::start(make_chain(1, 200, |_| vec![])).await);
    behind.with(|state| state.head = 100);
    ahead.with(|state| state.head = 141);
    let chain = evm_node::chain(&[&behind, &ahead]);
    assert_eq!(chain.blocks(96, 20).await.unwrap().len(), 5);
    assert_eq!((chain.endpoints()[1].head, ahead.calls().len()), (None, 0), "nobody has looked yet");
    pass(60).await;
    behind.with(|state| state.head = 105);
    ahead.with(|state| state.head = 146);
    assert_eq!(chain.blocks(101, 20).await.unwrap().len(), 5);
    assert_eq!(ahead.calls(), ["chainId", "getBlockByNumber"], "a look costs two requests at first and then one");
    let health = chain.endpoints();
    assert_eq!((health[0].behind, health[0].head.unwrap().number, health[0].lagging_for.is_some()), (41, 105, true));
    assert_eq!((health[1].behind, health[1].head.unwrap().time), (0, Time::from_secs(1_700_000_000 + 12 * 146)));
    assert!(health[0].score < health[1].score && health[0].available, "{health:?}");

    assert_eq!(chain.blocks(106, 20).await.unwrap().len(), 20, "the other one has them");
    let told = chain.pool();
    assert_eq!((told.current, told.switches_total, told.switches[0].reason.as_str()), (1, 1, "it is 41 blocks behind"));

    // The one in use goes back to a lower block, of another hash: that is the chain, not the node.
    assert_eq!(chain.blocks(126, 40).await.unwrap().len(), 21);
    ahead.with(|state| {
        state.head = 144;
        for block in state.blocks.iter_mut().filter(|block| block.number >= 143) {
            block.hash = block.hash.replace("b10c", "f04c");
            block.parent = if block.number == 143 { block.parent.clone() } else { block.parent.replace("b10c", "f04c") };
        }
    });
    assert_eq!(chain.header(144).await.unwrap().unwrap().hash.to_string()[..4], *"f04c");
    assert_eq!(chain.head().await.unwrap().number, 144);
    let health = chain.endpoints();
    assert_eq!((health[1].behind, health[1].lagging_for, chain.pool().current), (0, None, 1), "followed");
}

#[tokio::test]
async fn a_tron_node_that_lags_is_set_aside_too() {
    let blocks = tron_node::make_chain(1, 100, |_| vec![]);
    let (behind, ahead) = (TronNode::start(blocks.clone()).await, TronNode::start(blocks).await);
    behind.with(|state| state.head = 50);
    let chain = tron_node::chain(&[&behind, &ahead]);
    assert_eq!(chain.blocks(50, 5).await.map(|blocks| blocks.len()), Ok(1));
    pass(60).await;
    behind.with(|state| state.head = 51);
    assert_eq!(chain.blocks(51, 5).await.map(|blocks| blocks.len()), Ok(1));
    assert_eq!((chain.endpoints()[0].behind, chain.endpoints()[1].behind), (49, 0));
    assert_eq!(chain.blocks(52, 5).await.map(|blocks| blocks.len()), Ok(5));
    assert_eq!(chain.pool().switches[0].reason, "it is 49 blocks behind");
}

#[tokio::test]
async fn a_look_finds_who_has_recovered_and_holds_nobody_up() {
    let (used, idle) = (EvmNode::start(make_chain(1, 200, |_| vec![])).await, EvmNode::start(make_chain(1, 200, |_| vec![])).await);
    let silent = Server::start(|_| Answer::Silence).await;
    let chain = tidegate_chain::evm::EvmChain::new(
        tidegate_chain::evm::EvmConfig::new(1, evm_node::usdt()),
        pool(&[&used.server, &idle.server, &silent]),
    );
    let stopped = Instant::now();
    idle.instead(|_, _| Some(json!({ "error": { "code": -32_000, "message": "out of order" } })));
    for (state, latency) in [(EndpointState::HalfOpen, false), (EndpointState::Available, true)] {
        pass(60).await;
        chain.blocks(200, 5).await.unwrap();
        let before = chain.endpoints()[1].state;
        pass(2).await;
        let health = chain.endpoints();
        assert_eq!(health[1].state, state, "{before:?}");
        assert_eq!((health[1].head.is_some(), chain.pool().switches_total), (latency, 0));
        assert!(health[2].latency_mean_ms >= Some(900), "{:?}", health[2]);
        assert!((health[2].failures, health[2].available) == (0, true) && health[2].score < 100, "too late: {:?}", health[2]);
        idle.with(|state| state.instead = None);
    }
    // Two minutes and four seconds were moved on, and each look may have cost its grace.
    let took = stopped.elapsed() - Duration::from_secs(124);
    assert!(took < Duration::from_secs(8), "{took:?}: the silent one held the work up");
}

#[tokio::test]
async fn a_look_leaves_the_reserve_of_a_daily_budget_alone() {
    let (used, idle) = (EvmNode::start(make_chain(1, 9, |_| vec![])).await, EvmNode::start(make_chain(1, 9, |_| vec![])).await);
    let metered = EndpointConfig { requests_per_day: Some(10), ..config(&idle.server) };
    let pool = Endpoints::new(&Network::new("testnet"), vec![config(&used.server), metered], Box::new(|| 0)).unwrap();
    let chain = tidegate_chain::evm::EvmChain::new(tidegate_chain::evm::EvmConfig::new(1, evm_node::usdt()), pool);
    for _ in 0..20 {
        pass(60).await;
        chain.blocks(9, 5).await.unwrap();
    }
    assert_eq!((idle.calls().len(), chain.endpoints()[1].requests_left), (8, Some(2)));
}

#[tokio::test]
async fn what_health_says_of_an_endpoint_at_work() {
    let server =
        Server::start(|asked| if asked.body["bad"] == true { Answer::Status(500, &[], "oops".into()) } else { Answer::Text("{}".into()) })
            .await;
    let metered = EndpointConfig { requests_per_day: Some(100), ..config(&server) };
    let pool = Endpoints::new(&Network::new("testnet"), vec![metered, config(&server)], Box::new(|| 0)).unwrap();
    let post = async |bad: bool| {
        pool.run(Prefer::Current, |endpoint: Endpoint| async move { endpoint.post("", &json!({ "bad": bad }), 2).await }).await
    };
    let fresh = &pool.health()[0];
    assert_eq!((fresh.score, fresh.latency_mean_ms, fresh.requests_left, fresh.state), (100, None, Some(100), EndpointState::Available));
    for _ in 0..10 {
        post(false).await.unwrap();
    }
    post(true).await.unwrap_err();
    let health = pool.health();
    assert_eq!((health[0].calls, health[0].failures, health[0].failures_in_row, health[0].requests_left), (22, 1, 1, Some(78)));
    assert_eq!(health[0].score, 95, "an eighth failed");
    assert!(health[0].latency_mean_ms.is_some() && health[0].latency_bound_ms.is_some(), "{:?}", health[0]);
    assert_eq!(health[1].latency_bound_ms, None, "one failure says nothing");
    assert_eq!(health[1].name, format!("{} (2)", health[0].name), "two keys of one provider can be told apart");
}

#[tokio::test]
async fn a_pool_has_a_most() {
    let config = || EndpointConfig::new("https://example.org".parse().unwrap());
    let new = |count: usize| Endpoints::new(&Network::new("testnet"), (0..count).map(|_| config()).collect(), Box::new(|| 0));
    assert_eq!(new(ENDPOINTS_MAX).unwrap().count(), ENDPOINTS_MAX);
    assert!(matches!(new(ENDPOINTS_MAX + 1), Err(Error::Refused(_))));
}
