//! The same program on PostgreSQL: the route of a payment, and a kill in the middle of it. What
//! the store promises on both engines is the contract suite's business; this shows that the whole
//! process works there.

use serde_json::json;

use crate::gateway::Settings;
use crate::postgres;
use crate::shop::Shop;

fn on_postgres(settings: &mut Settings) {
    settings.postgres = true;
}

#[tokio::test]
async fn a_payment_on_postgres_from_order_to_webhook() {
    let shop = Shop::open_with(on_postgres).await;
    let (exact, parts) = (shop.order("12.5").await, shop.order("8").await);
    shop.pay(&exact, "12.5").await;
    shop.pay(&parts, "3").await;
    shop.order_is(&exact, "confirming").await;
    shop.order_has(&parts, &json!({ "status": "pending", "exception": "underpaid" })).await;
    shop.pay(&parts, "5").await;
    shop.anvil.mine(2).await;
    shop.order_is(&exact, "paid").await;
    shop.order_is(&parts, "paid").await;
    shop.events(&exact, &["order.pending", "order.confirming?", "order.paid"]).await;
    shop.events(&parts, &["order.pending", "order.underpaid", "order.confirming?", "order.paid"]).await;

    // The names that others rely on are there.
    let url = &shop.home.database_url;
    for table in [
        "usdt_wallets",
        "usdt_payment_orders",
        "blockchain_transactions",
        "payment_webhooks",
        "wallet_balances",
        "payment_notifications",
        "recent_transactions",
    ] {
        postgres::query(url, &format!("SELECT * FROM {table} LIMIT 1"));
    }
    assert_eq!(postgres::query(url, "SELECT count(*) FROM usdt_payment_orders"), "2");
}

#[tokio::test]
async fn a_payment_on_postgres_through_a_kill() {
    let mut shop = Shop::open_with(on_postgres).await;
    let order = shop.order("12.5").await;
    shop.pay(&order, "12.5").await;
    shop.order_is(&order, "confirming").await;
    shop.gateway.kill();
    shop.anvil.mine(300).await;
    shop.start_again().await;
    shop.order_is(&order, "paid").await;
    shop.events(&order, &["order.pending", "order.confirming?", "order.paid"]).await;
}
