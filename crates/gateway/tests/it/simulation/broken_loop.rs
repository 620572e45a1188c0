//! A follower that panics in the middle of a block: the pages say so at once, and it is begun again
//! and books the money.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::http;
use tidegate_rules::order::Status;
use tidegate_rules::time::Span;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::check::Memory;
use super::world::{Nature, tron};
use super::{calm, pay, rest, whole};
use crate::api::Api;
use crate::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_panics_shows_and_is_begun_again() {
    let mut world = calm(Nature::default()).await;
    let wish = world.wish(whole(10), Some(tron()), Span::from_secs(600));
    let order = world.open(&wish).await.unwrap().id.parse().unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pages = Api::new(&format!("http://{}", listener.local_addr().unwrap()), "").with_key(None);
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(http::serve(Arc::clone(&world.gateway()), listener, stopped));
    let before = pages.get("/health/blockchain").await.expect(200).json();
    assert_eq!((&before["status"], &before["details"]["loops"]), (&json!("healthy"), &json!({ "status": "healthy" })), "{before}");
    assert_eq!(pages.get("/health/ready").await.expect(200).json()["loops"]["follow tron"], "running");

    world.meddler.next(async { panic!("on purpose, in the middle of a block") });
    pay(&world, order, &tron(), 10).await;
    world.mine(&tron());
    let now: Value = eventually("the pages say that the follower broke", async || {
        let now = pages.get("/health/blockchain").await.expect(200).json();
        if now["details"]["loops"]["status"] == "healthy" { Err(now) } else { Ok(now) }
    })
    .await;
    assert_eq!(now["details"]["loops"], json!({ "status": "degraded", "broken": { "follow tron": 1 } }), "{now}");
    assert_eq!(now["status"], "degraded", "{now}");
    assert_eq!(now["details"]["ethereum"]["status"], "healthy", "the other network goes on: {now}");
    let ready = pages.get("/health/ready").await.expect(200).json();
    assert_eq!((&ready["loops"]["follow tron"], &ready["loops"]["follow ethereum"]), (&json!("broken"), &json!("running")), "{ready}");
    pages.get("/health/live").await.expect(200);

    // It rests, is begun again, and finds what it had not stored.
    world.mine_all(8);
    rest(&world, &mut Memory::default(), "begun again").await;
    assert_eq!(world.row(order).await.order.status, Status::Paid);
    let now = pages.get("/health/blockchain").await.expect(200).json();
    assert_eq!(now["details"]["loops"]["broken"]["follow tron"], 1, "for a minute it still shows: {now}");
    assert_eq!(now["details"]["tron"]["last_failure"], Value::Null, "{now}");
    stop.send(true).unwrap();
    server.await.unwrap().unwrap();
}
