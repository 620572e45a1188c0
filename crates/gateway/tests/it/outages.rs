//! The ground gives way: the database answers questions and stores nothing, as with a full disk.

use serde_json::json;

use crate::operator::{look, tamper};
use crate::shop::Shop;
use crate::wait::eventually;

/// From now on nothing that happens to a webhook can be stored; new ones can.
const NO_ROOM: &str = "CREATE TRIGGER no_room BEFORE UPDATE ON payment_webhooks BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";

#[tokio::test]
async fn a_webhook_whose_outcome_cannot_be_stored_is_not_sent_again_and_again() {
    let shop = Shop::open().await;
    tamper(&shop.home, NO_ROOM).await;
    let first = shop.order("5").await;
    shop.receiver.event(&first.id, "order.pending").await;
    // Others are heard meanwhile: time enough for a sender that does not pause.
    for _ in 0..5 {
        let other = shop.order("5").await;
        shop.receiver.event(&other.id, "order.pending").await;
    }
    assert_eq!(shop.receiver.deliveries_of(&first.id).len(), 1, "it was accepted, and is sent again");

    // Once there is room, it is noted by itself: nobody hears anything twice.
    tamper(&shop.home, "DROP TRIGGER no_room").await;
    eventually("all six are noted", async || {
        let noted = look(&shop.home, "SELECT status, COUNT(*) FROM payment_webhooks GROUP BY status").await;
        if noted == "delivered|6" { Ok(()) } else { Err(noted) }
    })
    .await;
    assert_eq!(shop.receiver.deliveries().len(), 6);

    // The order is sold as ever.
    let more = shop.api().post("/api/v1/orders", &json!({ "amount": "5", "network": "anvil" })).await.expect(201).json();
    shop.receiver.event(more["id"].as_str().unwrap(), "order.pending").await;
}
