//! What the store promises, written once and held against both engines: SQLite in a file and a
//! real PostgreSQL server. Everything goes through [`Store`]'s public door; bare SQL only looks at
//! the schema. Each scenario is one test an engine, on a database of its own.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tidegate::clock::id_bytes;
use tidegate::store::{Commit, Migrate, Store, StoreError};
use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, BlockRef, Hash, Network, TransferKey};
use tidegate_rules::changes::{
    Changes, Cursor, Details, JournalEntry, KeptAnswer, NewAlert, NewEvent, NewLease, NewMerchant, NewOrder, NewWallet, OrderChange,
    Recorded, TransferChange, WalletChange, WalletMove,
};
use tidegate_rules::id::{AlertId, DeliveryId, EventId, LeaseId, MerchantId, OrderId, TransferId, WalletId};
use tidegate_rules::lease::Lease;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{self, Depth, Mark, Order, Payment, Terms};
use tidegate_rules::people::PeopleChange;
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::WalletKind;

use crate::postgres;

/// One test for each scenario and engine.
macro_rules! contract {
    ($($scenario:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                super::$scenario(crate::store_contract::Ground::sqlite()).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                super::$scenario(crate::store_contract::Ground::postgres()).await;
            })*
        }
    };
}

mod alerts;
mod commits;
mod events;
mod messages;
mod orders;
mod people;
mod round_trip;
mod schema;
mod transfers;
mod wallets;
mod webhooks;
mod work;

/// A database for one test.
struct Ground {
    url: String,
    /// Removed with the test.
    _folder: Option<tempfile::TempDir>,
}

impl Ground {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite:{}", folder.path().join("books.db").display()), _folder: Some(folder) }
    }

    fn postgres() -> Self {
        Self { url: postgres::fresh_database(), _folder: None }
    }

    async fn try_open(&self, migrate: Migrate) -> Result<Store, StoreError> {
        Store::open(&self.url, 10, Duration::from_secs(30), migrate).await
    }

    async fn open(&self) -> Store {
        self.try_open(Migrate::Yes).await.unwrap()
    }

    /// The first column of what bare SQL finds.
    async fn look(&self, sql: &str) -> Vec<String> {
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// A moment of the tests, in seconds after their beginning.
fn at(second: i64) -> Time {
    Time::from_secs(1_800_000_000 + second)
}

fn tron() -> Network {
    Network::new("tron")
}

fn merchant_id() -> MerchantId {
    MerchantId::new(at(0), [7; 10])
}

fn micros(micros: u64) -> Amount {
    Amount::from_micros(micros)
}

fn raw(units: u128) -> Raw {
    Raw::from_units(units)
}

/// Twenty bytes that no other call gives.
fn address() -> Address {
    let (mut bytes, random) = ([0; 20], id_bytes());
    bytes[..10].copy_from_slice(&random);
    Address(bytes)
}

fn hash() -> Hash {
    let (mut bytes, random) = ([0; 32], id_bytes());
    bytes[..10].copy_from_slice(&random);
    Hash(bytes)
}

fn new_wallet(network: &Network) -> NewWallet {
    let address = address();
    NewWallet {
        id: WalletId::new(at(0), id_bytes()),
        name: "a wallet".into(),
        network: network.clone(),
        address,
        address_text: format!("T{address:?}"),
        kind: WalletKind::Random,
        sealed_key: Some("sealed".into()),
        source: None,
        tag: format!("tag of {address:?}"),
        queue_rank: 0,
        created_at: at(0),
    }
}

fn terms(amount: Amount) -> Terms {
    Terms {
        purpose: tidegate_rules::order::Purpose::Payment,
        amount,
        tolerance: Amount::ZERO,
        expires_at: at(900),
        late_window: Span::from_secs(600),
        accept_late: false,
        cooldown: Span::from_secs(300),
        depths: [(tron(), Depth::Blocks(19))].into(),
    }
}

fn new_order() -> NewOrder {
    NewOrder {
        id: OrderId::new(at(1), id_bytes()),
        merchant: merchant_id(),
        livemode: false,
        created_at: at(1),
        details: Details { metadata: "{}".into(), ..Details::default() },
        order: order::open(terms(micros(12_500_000))),
    }
}

fn new_lease(order: OrderId, wallet: &NewWallet, from: u64) -> NewLease {
    NewLease {
        lease: Lease {
            id: LeaseId::new(at(1), id_bytes()),
            order,
            network: wallet.network.clone(),
            wallet: wallet.id,
            address: wallet.address,
            from,
            to: None,
        },
        address_text: wallet.address_text.clone(),
        tag: wallet.tag.clone(),
        late_until: at(1_500),
        at: at(1),
    }
}

fn payment(to: Address, number: u64) -> Payment {
    Payment {
        network: tron(),
        key: TransferKey { tx_hash: hash(), ordinal: 0 },
        from: address(),
        to,
        value: raw(12_500_000),
        decimals: 6,
        block: Mark { number, time: at(10) },
        standing: true,
        proven: false,
        settled: false,
        promoted: false,
        by_hand: false,
        late_told: false,
        failed: false,
    }
}

fn new_transfer(payment: Payment, order: Option<OrderId>) -> TransferChange {
    TransferChange {
        id: TransferId::new(at(10), id_bytes()),
        version: None,
        payment,
        block_hash: hash(),
        recorded: if order.is_some() { Recorded::Matched } else { Recorded::Stray },
        order,
        wallet: None,
        address_texts: ("Tfrom".into(), "Tto".into()),
        rewritten: false,
        raw_log: None,
        seen_at: at(11),
    }
}

fn new_event(order: OrderId, kind: EventType) -> NewEvent {
    NewEvent {
        id: EventId::new(at(2), id_bytes()),
        kind,
        merchant: merchant_id(),
        subject: order.into(),
        at: at(2),
        body: format!(r#"{{"type":"{}"}}"#, kind.name()),
        delivery: None,
    }
}

fn with_delivery(mut event: NewEvent, url: &str) -> NewEvent {
    event.delivery = Some((DeliveryId::new(event.at, id_bytes()), url.to_owned()));
    event
}

fn new_merchant(name: &str, webhook_url: Option<&str>) -> NewMerchant {
    NewMerchant {
        id: MerchantId::new(at(0), id_bytes()),
        name: name.into(),
        webhook_url: webhook_url.map(str::to_owned),
        webhook_secret: "sealed".into(),
        created_at: at(1),
    }
}

fn new_alert(kind: AlertKind, about: &str) -> NewAlert {
    NewAlert {
        id: AlertId::new(at(3), id_bytes()),
        event: EventId::new(at(3), id_bytes()),
        kind,
        about: about.into(),
        detail: "in words".into(),
        at: at(3),
    }
}

fn answer(scope: &str, body: &str) -> KeptAnswer {
    KeptAnswer {
        scope: scope.into(),
        body_mac: "mac".into(),
        status: 201,
        location: Some("/api/v1/orders/ord_1".into()),
        body: body.into(),
        at: at(4),
    }
}

fn entry(transfer: TransferId, turn: i64, accounts: (&str, &str), value: Raw) -> JournalEntry {
    JournalEntry { transfer, turn, network: tron(), debit: accounts.0.into(), credit: accounts.1.into(), value, at: at(5) }
}

/// Blocks of a branch, the first on top of `parent`.
fn blocks(parent: Option<&BlockRef>, first: u64, count: u64) -> Vec<BlockRef> {
    let mut parent = parent.map_or(Hash([0; 32]), |block| block.hash);
    (first..first + count)
        .map(|number| {
            let block = BlockRef { number, hash: hash(), parent, time: at(i64::try_from(number).unwrap() * 3) };
            parent = block.hash;
            block
        })
        .collect()
}

fn cursor(version: Option<i64>, blocks: Vec<BlockRef>) -> Cursor {
    let tip = blocks.last().map_or(0, |block| block.number);
    Cursor {
        network: tron(),
        version,
        rewind_to: None,
        blocks,
        forget_below: None,
        tip,
        peak: tip,
        finalized: None,
        floor: None,
        halted: None,
    }
}

fn order_change(id: OrderId, version: i64, order: Order) -> OrderChange {
    OrderChange { id, version, order, cancel_reason: None, edited: None }
}

fn lend(wallet: WalletId, version: i64, order: OrderId) -> WalletChange {
    WalletChange { id: wallet, version, kind: WalletMove::Lease { order, at: at(1) } }
}

async fn done(store: &Store, changes: Changes) {
    assert_eq!(store.commit(changes).await.unwrap(), Commit::Done);
}

async fn refused(store: &Store, changes: Changes) {
    assert_eq!(store.commit(changes).await.unwrap(), Commit::Conflict);
}

/// Wallets, orders, and events alone, which most scenarios begin with.
async fn add_wallets(store: &Store, count: usize) -> Vec<NewWallet> {
    let wallets: Vec<NewWallet> = (0..count).map(|_| new_wallet(&tron())).collect();
    done(store, Changes { new_wallets: wallets.clone(), ..Changes::default() }).await;
    wallets
}

async fn add_order(store: &Store) -> NewOrder {
    let order = new_order();
    done(store, Changes { new_orders: vec![order.clone()], ..Changes::default() }).await;
    order
}

fn people(people: Vec<PeopleChange>) -> Changes {
    Changes { people, ..Changes::default() }
}
