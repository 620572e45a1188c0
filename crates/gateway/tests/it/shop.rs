//! A shop open for business: a chain with a token, a gateway that follows it, a listener for its
//! webhooks, a merchant and his key.

use serde_json::{Value, json};

use crate::anvil::{Anvil, PAYER_KEY, Tokens};
use crate::api::Api;
use crate::evm::{self, Address, Arg, Payer};
use crate::gateway::{Gateway, Home, Merchant, NETWORK, Settings};
use crate::receiver::Receiver;
use crate::wait::eventually;

/// Scopes of a key that may do all that a shop does.
pub const SHOP_SCOPES: &[&str] = &["orders:read", "orders:write", "wallets:read", "wallets:write"];

pub struct Shop {
    pub anvil: Anvil,
    pub tokens: Tokens,
    pub decimals: usize,
    pub home: Home,
    pub gateway: Gateway,
    pub receiver: Receiver,
    pub merchant: Merchant,
    pub key: String,
}

impl Shop {
    /// A shop with the usual settings: 3 confirmations, late money accepted.
    pub async fn open() -> Self {
        Self::open_with(|_| ()).await
    }

    pub async fn open_with(adjust: impl FnOnce(&mut Settings)) -> Self {
        let anvil = Anvil::start().await;
        Self::open_on(anvil, adjust).await
    }

    pub async fn open_on(anvil: Anvil, adjust: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(&anvil.url, [0; 20]);
        adjust(&mut settings);
        let tokens = anvil.deploy_tokens(settings.decimals).await;
        settings.token = tokens.usdt;
        let home = Home::new(&settings);
        let receiver = Receiver::start().await;
        let merchant = home.merchant("shop", &receiver.url);
        let key = home.api_key(&merchant.name, SHOP_SCOPES);
        let gateway = home.serve().await;
        gateway.ready().await;
        Self { anvil, tokens, decimals: settings.decimals, home, gateway, receiver, merchant, key }
    }

    pub fn api(&self) -> Api {
        self.gateway.api(&self.key)
    }

    /// Kills the process and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.gateway.kill();
        self.start_again().await;
    }

    /// Starts a killed process again on the same data.
    pub async fn start_again(&mut self) {
        self.gateway = self.home.serve().await;
        self.gateway.ready().await;
    }

    /// An order for this amount, on the one network, open for an hour.
    pub async fn order(&self, amount: &str) -> Order {
        self.order_with(&json!({ "amount": amount })).await
    }

    /// An order with these members; network and an hour's time are added where missing.
    pub async fn order_with(&self, body: &Value) -> Order {
        let mut body = body.clone();
        for (member, usual) in [("network", json!(NETWORK)), ("expires_in", json!(3600))] {
            if body.get(member).is_none() {
                body[member] = usual;
            }
        }
        Order::of(&self.api().post("/api/v1/orders", &body).await.expect(201).json())
    }

    pub async fn get(&self, order: &Order) -> Value {
        self.api().order(&order.id).await
    }

    /// Sends what a customer pays, from an unlocked account. It waits for the next block.
    pub async fn send(&self, to: &Order, amount: &str) -> String {
        let data = evm::call("transfer(address,uint256)", &[Arg::Address(to.address), Arg::Uint(self.units(amount))]);
        self.anvil.send(self.anvil.accounts[1], Some(self.tokens.usdt), &data).await
    }

    /// Sends it and mines it into the next block.
    pub async fn pay(&self, to: &Order, amount: &str) -> String {
        let hash = self.send(to, amount).await;
        self.anvil.mine(1).await;
        assert!(self.anvil.succeeded(&hash).await, "the payment itself failed");
        hash
    }

    /// A payment signed with a private key, as a wallet does it. Not yet sent.
    pub async fn signed(&self, to: &Order, amount: &str) -> Vec<u8> {
        let payer = Payer::new(PAYER_KEY);
        self.anvil.sign_transfer(&payer, self.tokens.usdt, to.address, self.units(amount)).await
    }

    /// Pays several at once, in this order, in one transaction and one block.
    pub async fn pay_batch(&self, payments: &[(Address, &str)]) -> String {
        let to: Vec<Address> = payments.iter().map(|(to, _)| *to).collect();
        let values: Vec<u128> = payments.iter().map(|(_, amount)| self.units(amount)).collect();
        let call =
            evm::call("pay(address,address[],uint256[])", &[Arg::Address(self.tokens.usdt), Arg::Addresses(&to), Arg::Uints(&values)]);
        self.call_batch(&call).await
    }

    /// Calls the batch contract, mined into the next block.
    pub async fn call_batch(&self, call: &[u8]) -> String {
        let hash = self.anvil.send(self.anvil.accounts[1], Some(self.tokens.batch), call).await;
        self.anvil.mine(1).await;
        hash
    }

    pub fn units(&self, amount: &str) -> u128 {
        evm::units(amount, self.decimals)
    }

    /// A small order that is in time whatever the test did to the chain's clock.
    async fn marker(&self) -> Order {
        self.order_with(&json!({ "amount": "0.01", "expires_in": 7 * 86_400 })).await
    }

    /// Waits until the gateway has read every block there is: blocks are applied in order, so a
    /// small order paid now is seen only after all of them. For tests that must show that
    /// something was seen and did *not* count. Mines one block.
    pub async fn caught_up(&self) {
        let marker = self.marker().await;
        self.pay(&marker, "0.01").await;
        self.order_is(&marker, "confirming").await;
    }

    /// [`caught_up`](Self::caught_up), and all but the newest two blocks are settled, too.
    pub async fn settled(&self) {
        let marker = self.marker().await;
        self.pay(&marker, "0.01").await;
        self.anvil.mine(2).await;
        self.order_is(&marker, "paid").await;
    }

    /// Waits for the order to have this status; gives the order.
    pub async fn order_is(&self, order: &Order, status: &str) -> Value {
        self.order_has(order, &json!({ "status": status })).await
    }

    /// Waits for the order to have all of these members; gives the order.
    pub async fn order_has(&self, order: &Order, members: &Value) -> Value {
        eventually(&format!("{} has {members}", order.id), async || {
            let now = self.get(order).await;
            let all = members.as_object().unwrap().iter().all(|(name, value)| now[name] == *value);
            if all { Ok(now) } else { Err(now) }
        })
        .await
    }

    /// Waits until the order's events are exactly these, checks every delivery of them, and gives
    /// their bodies, one an event, in the order in which they happened.
    pub async fn events(&self, order: &Order, kinds: &[&str]) -> Vec<Value> {
        let mut deliveries = self.receiver.events(&order.id, kinds).await;
        for delivery in &deliveries {
            assert!(delivery.id.starts_with("evt_"), "{delivery:?}");
            delivery.verify(&self.merchant.webhook_secret).unwrap_or_else(|error| panic!("{error}: {delivery:?}"));
            let body = delivery.json();
            let members: Vec<&String> = body.as_object().unwrap().keys().collect();
            assert_eq!(members, ["data", "timestamp", "type"], "{delivery:?}");
            // Retries of an event repeat its first body byte for byte.
            let first = deliveries.iter().find(|other| other.id == delivery.id).unwrap();
            assert_eq!(first.body, delivery.body);
        }
        deliveries.sort_by(|a, b| a.id.cmp(&b.id));
        deliveries.dedup_by(|a, b| a.id == b.id);
        deliveries.iter().map(crate::receiver::Delivery::json).collect()
    }
}

/// The parts of an order that never change.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: String,
    pub address: Address,
    /// As the gateway writes it.
    pub address_text: String,
    pub wallet_id: String,
    /// The last second that is on time, chain time.
    pub deadline_s: u64,
}

impl Order {
    /// Reads an order that has an address.
    pub fn of(order: &Value) -> Self {
        let text = |member: &str| order[member].as_str().unwrap_or_else(|| panic!("no {member}: {order}")).to_owned();
        Self {
            id: text("id"),
            address: evm::address(&text("address")),
            address_text: text("address"),
            wallet_id: text("wallet_id"),
            deadline_s: seconds(&text("expires_at")),
        }
    }
}

/// Whole seconds of an RFC 3339 time in UTC with milliseconds, which is checked to be that.
pub fn seconds(time: &str) -> u64 {
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{time} is not UTC with milliseconds");
    let time: jiff::Timestamp = time.parse().unwrap();
    u64::try_from(time.as_second()).unwrap()
}

/// A second as the API writes it.
pub fn rfc3339(second: u64) -> String {
    let time = jiff::Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
    time.to_string().replace('Z', ".000Z")
}
