//! What the store promises, written once and held against both engines: SQLite in a file and a
//! real PostgreSQL server. Everything goes through [`Store`]'s public door; bare SQL only looks at
//! the schema. Each scenario is one test an engine, on a database of its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tidegate::clock::id_bytes;
use tidegate::store::{
    AlertFilter, AuditFilter, Commit, DeliveryFilter, Engine, EventFilter, JobRow, JobStatus, Leaving, Migrate, NoticeFilter, OrderFilter,
    OrderRow, Queue, Store, StoreError, TransferRow, WalletFilter, presence,
};
use tidegate_rules::alert::{AlertKind, AlertStatus};
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::audit::{self, Action};
use tidegate_rules::block::{Address, BlockRef, Hash, Network, TransferKey};
use tidegate_rules::changes::{
    AlertChange, Changes, Cursor, DeliveryChange, DeliveryState, Derivation, Details, Fence, JournalEntry, KeptAnswer, NewAlert, NewApiKey,
    NewAudit, NewBalance, NewEvent, NewLease, NewMerchant, NewNotice, NewOrder, NewWallet, NoticeChange, NoticeState, OrderChange,
    Reconciled, Recorded, Reseal, SealedIn, TemplateChange, Told, ToldMark, TransferChange, WalletChange, WalletMove,
};
use tidegate_rules::id::{
    AlertId, DeliveryId, EndpointId, EventId, JobId, KeyId, LeaseId, MerchantId, NoticeId, OrderId, SessionId, SourceId, TransferId,
    UserId, WalletId,
};
use tidegate_rules::lease::Lease;
use tidegate_rules::notification::{Channel, Language, NoticeStatus, Topic};
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{self, Confirmation, Depth, Exception, Facts, Mark, Order, Paid, PaidBy, Payment, Status, Tally, Terms};
use tidegate_rules::people::{NewSession, NewUser, PeopleChange, Role, UserMove, UserStatus};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::{RiskLevel, WalletKind, WalletStatus, lease_ended, may_lease};
use tidegate_rules::webhook_endpoint::{ENDPOINTS_MAX, EndpointChange, EndpointState, EndpointTerms, NewEndpoint, REMOVED_KEPT};

use crate::postgres;

/// One test for each scenario and engine.
macro_rules! contract {
    ($($scenario:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                super::$scenario(super::Ground::sqlite()).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() {
                super::$scenario(super::Ground::postgres()).await;
            })*
        }
    };
}

contract!(
    a_commit_is_all_or_nothing,
    versions_are_compared_and_set,
    of_many_who_read_the_same_version_one_wins,
    one_that_is_in_the_way_spoils_no_other,
    the_audit_log_is_one_chain_however_many_write_it,
    an_index_is_used_once_and_never_goes_back,
    an_alert_takes_a_step_from_where_it_was,
    an_alert_is_told_to_the_owner_once_for_each_step,
    sealed_texts_change_only_where_the_old_one_stands,
    risky_wallets_are_not_offered,
    i2_a_wallet_has_one_live_lease,
    i3_a_transfer_is_stored_once,
    a_shops_number_is_used_once_per_merchant,
    an_answer_is_kept_once_and_read_back,
    i10_events_keep_the_order_of_commits,
    events_are_found_by_whose_they_are_by_order_and_by_type,
    every_filter_of_events_has_an_index,
    deliveries_come_due_and_busy_receivers_are_left_out,
    one_alert_for_one_thing,
    wallets_appear_with_their_epoch_and_none_is_skipped,
    free_wallets_come_fresh_first_then_longest_rested,
    a_wallet_is_lent_rests_and_returns,
    orders_come_back_as_they_were_stored,
    transfers_are_found_by_every_question,
    orders_past_their_time_are_found,
    pages_of_orders_are_stable_and_filters_fit,
    pages_of_wallets_are_stable_and_filters_fit,
    long_lists_are_asked_in_parts,
    the_books_are_sums_of_entries,
    a_rewind_forgets_the_branch,
    a_hundred_orders_at_once_lease_a_hundred_wallets,
    a_store_that_is_opened_again_has_everything,
    a_database_is_not_migrated_unasked,
    two_that_open_an_empty_database_at_once_both_may,
    settings_merchants_and_keys_are_kept,
    users_change_from_where_they_were_read,
    an_owner_is_always_left,
    a_code_is_used_once,
    sessions_begin_are_listed_and_end,
    a_webhook_secret_is_replaced_where_it_stands,
    an_event_goes_to_every_endpoint_that_takes_it,
    endpoints_change_from_where_they_were_read,
    a_removed_endpoint_takes_nothing_but_the_notice_of_it,
    what_wallets_held_is_kept_and_forgotten,
    only_what_moved_counts_against_the_chain,
    a_second_reader_moves_from_where_it_was,
    a_job_is_one_processs_until_it_is_silent,
    a_row_of_a_queue_is_claimed_by_one,
    a_message_is_taken_once_and_its_hints_come_due,
    notices_are_made_once_and_come_due_by_channel,
    no_event_is_told_before_one_with_a_smaller_number,
    a_digest_counts_what_happened_in_its_time,
    the_names_that_others_rely_on_are_there,
);

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

/// I6: cursor, wallets, orders, leases, transfers, journal, events and the answer move together.
/// Whichever part meets somebody else's change, nothing of the rest is stored.
async fn a_commit_is_all_or_nothing(ground: Ground) {
    let store = ground.open().await;
    let taken = add_wallets(&store, 1).await.remove(0);
    let old = add_order(&store).await;
    let old_transfer = new_transfer(payment(taken.address, 3), None);
    let old_event = new_event(old.id, EventType::Pending);
    done(
        &store,
        Changes {
            transfers: vec![old_transfer.clone()],
            journal: vec![entry(old_transfer.id, 0, ("wallet:old", "unmatched"), raw(1))],
            events: vec![old_event.clone()],
            wallets: vec![lend(taken.id, 1, old.id)],
            new_leases: vec![new_lease(old.id, &taken, 0)],
            answer: Some(answer("used", "first")),
            ..Changes::default()
        },
    )
    .await;
    let epoch = store.addresses_since(&tron(), 0).await.unwrap().0;

    let wallet = new_wallet(&tron());
    let order = new_order();
    let transfer = new_transfer(payment(wallet.address, 7), Some(order.id));
    let event = with_delivery(new_event(order.id, EventType::Pending), "https://shop.example/hook");
    let old_row = store.order(old.id).await.unwrap().unwrap();
    let whole = Changes {
        cursor: Some(cursor(None, blocks(None, 5, 3))),
        new_wallets: vec![wallet.clone()],
        wallets: vec![WalletChange { id: taken.id, version: 2, kind: WalletMove::PaidAt(9) }],
        new_orders: vec![order.clone()],
        orders: vec![order_change(old.id, 1, Order { exception: Some(Exception::Underpaid), ..old_row.order.clone() })],
        new_leases: vec![new_lease(order.id, &wallet, 0)],
        transfers: vec![transfer.clone()],
        journal: vec![entry(transfer.id, 0, ("wallet:new", "order:new"), raw(5))],
        events: vec![event.clone()],
        alerts: vec![new_alert(AlertKind::StrayMoney, "a thing")],
        answer: Some(answer("fresh", "second")),
        ..Changes::default()
    };

    // The part that conflicts, from first to last.
    type Spoil<'a> = Box<dyn Fn(&mut Changes) + 'a>;
    let spoiled: Vec<(&str, Spoil<'_>)> = vec![
        ("the network's version", Box::new(|changes| changes.cursor.as_mut().unwrap().version = Some(1))),
        ("a wallet's version", Box::new(|changes| changes.wallets[0].version = 1)),
        ("an order's version", Box::new(|changes| changes.orders[0].version = 2)),
        ("a transfer's name", Box::new(|changes| changes.transfers[0].payment.key = old_transfer.payment.key)),
        ("a wallet's address", Box::new(|changes| changes.new_wallets[0].address = taken.address)),
        ("an ended lease", Box::new(|changes| changes.ended_leases.push((new_lease(old.id, &taken, 0).lease, 8)))),
        ("a leased wallet", Box::new(|changes| changes.new_leases.push(new_lease(order.id, &taken, 0)))),
        ("a turn of the journal", Box::new(|changes| changes.journal[0].transfer = old_transfer.id)),
        ("an event's id", Box::new(|changes| changes.events[0].id = old_event.id)),
        ("an idempotency key", Box::new(|changes| changes.answer = Some(answer("used", "second")))),
    ];
    for (what, spoil) in spoiled {
        let mut changes = whole.clone();
        spoil(&mut changes);
        assert_eq!(store.commit(changes).await.unwrap(), Commit::Conflict, "{what}");
        assert!(store.network(&tron()).await.unwrap().is_none(), "{what}: the cursor moved");
        assert!(store.wallet(wallet.id).await.unwrap().is_none(), "{what}: the wallet joined");
        assert_eq!(store.addresses_since(&tron(), 0).await.unwrap().0, epoch, "{what}: the epoch moved");
        assert_eq!(store.wallet(taken.id).await.unwrap().unwrap().version, 2, "{what}: the wallet changed");
        assert!(store.order(order.id).await.unwrap().is_none(), "{what}: the order is there");
        assert_eq!(store.order(old.id).await.unwrap().unwrap().version, 1, "{what}: the order changed");
        assert!(store.windows(&[wallet.id], 0..=u64::MAX).await.unwrap().is_empty(), "{what}: the lease is there");
        assert_eq!(store.transfers_above(&tron(), 0).await.unwrap().len(), 1, "{what}: the transfer is there");
        assert_eq!(store.journal_turns(&[transfer.id]).await.unwrap().len(), 0, "{what}: the entry is there");
        assert!(store.order_events(order.id, 0).await.unwrap().is_empty(), "{what}: the event is there");
        assert_eq!(store.next_delivery_at().await.unwrap(), None, "{what}: the delivery is there");
        assert!(store.open_alerts(10).await.unwrap().is_empty(), "{what}: the alert is there");
        assert!(store.kept_answer("fresh").await.unwrap().is_none(), "{what}: the answer is there");
        assert_eq!(store.kept_answer("used").await.unwrap().unwrap().body, "first");
    }

    // The same, unspoiled, is stored whole.
    done(&store, whole).await;
    assert_eq!(store.network(&tron()).await.unwrap().unwrap().recent.len(), 3);
    assert_eq!(store.wallet(taken.id).await.unwrap().unwrap().paid_at, Some(9));
    assert_eq!(store.order(old.id).await.unwrap().unwrap().order.exception, Some(Exception::Underpaid));
    let stored = store.order(order.id).await.unwrap().unwrap();
    assert_eq!((stored.order.leases.len(), stored.transfers.len()), (1, 1));
    assert_eq!(store.order_events(order.id, 0).await.unwrap().len(), 1);
    assert_eq!(store.next_delivery_at().await.unwrap(), Some(at(2)));
    assert_eq!(store.kept_answer("fresh").await.unwrap().unwrap().body, "second");
}

async fn versions_are_compared_and_set(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 1).await.remove(0);
    let order = add_order(&store).await;
    let transfer = new_transfer(payment(wallet.address, 7), Some(order.id));
    let chain = blocks(None, 5, 1);
    done(&store, Changes { transfers: vec![transfer.clone()], cursor: Some(cursor(None, chain.clone())), ..Changes::default() }).await;
    // A network is made once.
    refused(&store, Changes { cursor: Some(cursor(None, blocks(None, 9, 1))), ..Changes::default() }).await;

    let order_to = |version| Changes { orders: vec![order_change(order.id, version, order.order.clone())], ..Changes::default() };
    let wallet_to =
        |version| Changes { wallets: vec![WalletChange { id: wallet.id, version, kind: WalletMove::PaidAt(7) }], ..Changes::default() };
    let transfer_to =
        |version| Changes { transfers: vec![TransferChange { version: Some(version), ..transfer.clone() }], ..Changes::default() };
    let network_to = |version| Changes { cursor: Some(Cursor { tip: 5, ..cursor(Some(version), Vec::new()) }), ..Changes::default() };
    let kinds: [&dyn Fn(i64) -> Changes; 4] = [&order_to, &wallet_to, &transfer_to, &network_to];
    for kind in kinds {
        refused(&store, kind(0)).await;
        refused(&store, kind(2)).await;
        done(&store, kind(1)).await;
        refused(&store, kind(1)).await;
        done(&store, kind(2)).await;
        refused(&store, kind(2)).await;
    }
    assert_eq!(store.order(order.id).await.unwrap().unwrap().version, 3);
    assert_eq!(store.order(order.id).await.unwrap().unwrap().transfers[0].version, 3);
    assert_eq!(store.wallet(wallet.id).await.unwrap().unwrap().version, 3);
    assert_eq!(store.network(&tron()).await.unwrap().unwrap().version, 3);

    // What is not there cannot be changed.
    let nobody = OrderId::new(at(1), id_bytes());
    refused(&store, Changes { orders: vec![order_change(nobody, 1, order.order.clone())], ..Changes::default() }).await;
    refused(&store, Changes { wallets: vec![lend(WalletId::new(at(1), id_bytes()), 1, nobody)], ..Changes::default() }).await;
}

async fn of_many_who_read_the_same_version_one_wins(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    for version in 1..=5 {
        let tries = (0..16).map(|n| {
            let (store, order) = (store.clone(), order.clone());
            tokio::spawn(async move {
                let changes = Changes {
                    orders: vec![order_change(order.id, version, order.order.clone())],
                    events: vec![new_event(order.id, EventType::Underpaid)],
                    alerts: vec![new_alert(AlertKind::LateMoney, &format!("{version} by {n}"))],
                    ..Changes::default()
                };
                store.commit(changes).await.unwrap()
            })
        });
        let won = join_all(tries).await.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count();
        assert_eq!(won, 1, "of those who read version {version}");
    }
    assert_eq!(store.order(order.id).await.unwrap().unwrap().version, 6);
    assert_eq!(store.order_events(order.id, 0).await.unwrap().len(), 5, "one event for each that won");
    assert_eq!(store.open_alerts(100).await.unwrap().len(), 5);
}

/// Requests that arrive together may be written together. Each stands for itself all the same, and
/// those that are refused leave nothing, wherever in the group they are.
async fn one_that_is_in_the_way_spoils_no_other(ground: Ground) {
    let store = ground.open().await;
    let old = add_order(&store).await;
    for round in 0..4 {
        let requests = (0..90).map(|n| {
            let (store, stale) = (store.clone(), order_change(old.id, 77, old.order.clone()));
            tokio::spawn(async move {
                let order = new_order();
                let is_refused = (n + round) % 9 == 0;
                let changes = Changes {
                    new_orders: vec![order.clone()],
                    orders: if n % 2 == 0 && is_refused { vec![stale] } else { Vec::new() },
                    events: vec![new_event(order.id, EventType::Pending)],
                    // The last thing that is written.
                    answer: is_refused.then(|| answer("taken", "again")),
                    ..Changes::default()
                };
                (order.id, is_refused, store.commit(changes).await.unwrap())
            })
        });
        if round == 0 {
            done(&store, Changes { answer: Some(answer("taken", "first")), ..Changes::default() }).await;
        }
        for outcome in join_all(requests).await {
            let (id, is_refused, commit) = outcome.unwrap();
            assert_eq!(commit, if is_refused { Commit::Conflict } else { Commit::Done });
            assert_eq!(store.order(id).await.unwrap().is_none(), is_refused);
            assert_eq!(store.order_events(id, 0).await.unwrap().len(), usize::from(!is_refused), "no event is lost, none is told twice");
        }
    }
    assert_eq!(store.order(old.id).await.unwrap().unwrap().version, 1);
    assert_eq!(store.kept_answer("taken").await.unwrap().unwrap().body, "first");
}

fn done_by(actor: &str) -> NewAudit {
    NewAudit {
        at: at(1),
        actor: actor.into(),
        action: Action::WalletStatus,
        subject: "wal_1".into(),
        origin: "127.0.0.1".into(),
        reason: "because".into(),
        detail: "{}".into(),
    }
}

async fn the_audit_log_is_one_chain_however_many_write_it(ground: Ground) {
    let store = ground.open().await;
    assert_eq!(store.audit_head().await.unwrap(), None);
    let writers = (0..40).map(|n| {
        let store = store.clone();
        let audit = (0..=n % 3).map(|_| done_by(&format!("key_{n}"))).collect();
        tokio::spawn(async move {
            // On PostgreSQL those that meet at the head of the chain try again.
            while store.commit(Changes { audit: Vec::clone(&audit), ..Changes::default() }).await.unwrap() == Commit::Conflict {}
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let rows = store.audit_after(0, 1_000).await.unwrap();
    let head = audit::verify(rows.iter().map(|row| (&row.entry, row.hash.as_str()))).unwrap();
    assert_eq!((rows.len(), Some((head.seq, head.hash))), (79, store.audit_head().await.unwrap()));

    // Newest first, by who did it.
    let filter = AuditFilter { actor: Some("key_2".into()), before: Some(80), ..AuditFilter::default() };
    let page = store.audit(filter, 2).await.unwrap();
    assert_eq!(page.len(), 2);
    assert!(page.iter().all(|row| row.entry.actor == "key_2") && page[0].entry.seq > page[1].entry.seq);

    // What is not stored leaves no row.
    let stale = WalletChange { id: WalletId::new(at(0), id_bytes()), version: 7, kind: WalletMove::Risk(RiskLevel::High) };
    let both = Changes { wallets: vec![stale], audit: vec![done_by("nobody")], ..Changes::default() };
    assert_eq!(store.commit(both).await.unwrap(), Commit::Conflict);
    assert_eq!(store.audit_head().await.unwrap().unwrap().0, 79);
}

async fn an_index_is_used_once_and_never_goes_back(ground: Ground) {
    let store = ground.open().await;
    let source = SourceId::new(at(0), id_bytes());
    assert_eq!(store.next_index(source, &tron()).await.unwrap(), 0);
    let derive = |from: u32, to: u32| {
        let wallets = (from..to).map(|index| NewWallet {
            source: Some((source, index)),
            sealed_key: None,
            kind: WalletKind::Hd,
            ..new_wallet(&tron())
        });
        Changes {
            new_wallets: wallets.collect(),
            derivations: vec![Derivation { source, network: tron(), from, to }],
            ..Changes::default()
        }
    };
    // Ten ask for the same ten indexes: one gets them.
    let race = join_all((0..10).map(|_| {
        let (store, changes) = (store.clone(), derive(0, 10));
        tokio::spawn(async move { store.commit(changes).await.unwrap() })
    }))
    .await;
    assert_eq!(race.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count(), 1);
    assert_eq!(store.next_index(source, &tron()).await.unwrap(), 10);
    assert_eq!(store.next_index(source, &Network::new("ethereum")).await.unwrap(), 0, "every network counts for itself");
    assert_eq!(store.commit(derive(5, 8)).await.unwrap(), Commit::Conflict);
    assert_eq!(store.commit(derive(10, 11)).await.unwrap(), Commit::Done);
    let mut indexes: Vec<u32> = store.wallets_after(None, 100).await.unwrap().iter().map(|row| row.source.unwrap().1).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, (0..11).collect::<Vec<u32>>(), "no gap and nothing twice");
}

async fn an_alert_takes_a_step_from_where_it_was(ground: Ground) {
    let store = ground.open().await;
    done(&store, Changes { alerts: vec![new_alert(AlertKind::StrayMoney, "tx 1")], ..Changes::default() }).await;
    let row = store.alerts(AlertFilter::default(), 10).await.unwrap().remove(0);
    assert_eq!((row.status, row.changed_by.clone()), (AlertStatus::Open, None));
    let step = |from: AlertStatus, to: AlertStatus| Changes {
        alert_changes: vec![AlertChange {
            id: row.id,
            event: EventId::new(at(9), id_bytes()),
            from,
            to,
            by: "key_1".into(),
            reason: Some("looked".into()),
            at: at(9),
        }],
        ..Changes::default()
    };
    assert_eq!(store.commit(step(AlertStatus::Acknowledged, AlertStatus::Closed)).await.unwrap(), Commit::Conflict);
    assert_eq!(store.commit(step(AlertStatus::Open, AlertStatus::Closed)).await.unwrap(), Commit::Done);
    let row = store.alert(row.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.changed_by.as_deref(), row.reason.as_deref()), (AlertStatus::Closed, Some("key_1"), Some("looked")));
    let open = AlertFilter { status: Some(AlertStatus::Open), ..AlertFilter::default() };
    assert!(store.alerts(open.clone(), 10).await.unwrap().is_empty());

    // What happened once stays closed; a state of things that begins again opens its alert again.
    let again = |kind| Changes { alerts: vec![new_alert(kind, "tx 1")], ..Changes::default() };
    done(&store, again(AlertKind::StrayMoney)).await;
    done(&store, again(AlertKind::PoolExhausted)).await;
    let row = store.alerts(open.clone(), 10).await.unwrap().remove(0);
    assert_eq!(row.kind, AlertKind::PoolExhausted);
    let close = AlertChange {
        id: row.id,
        event: EventId::new(at(9), id_bytes()),
        from: AlertStatus::Open,
        to: AlertStatus::Closed,
        by: "key_1".into(),
        reason: None,
        at: at(9),
    };
    done(&store, Changes { alert_changes: vec![close], ..Changes::default() }).await;
    assert!(store.alerts(open.clone(), 10).await.unwrap().is_empty());
    done(&store, again(AlertKind::PoolExhausted)).await;
    assert_eq!(store.alerts(open, 10).await.unwrap().len(), 1);
}

async fn an_alert_is_told_to_the_owner_once_for_each_step(ground: Ground) {
    let store = ground.open().await;
    let raise = |kind| Changes { alerts: vec![new_alert(kind, "tx 1")], ..Changes::default() };
    done(&store, raise(AlertKind::DustFlood)).await;
    assert!(store.due_deliveries(at(99), &[], 10).await.unwrap().is_empty(), "there is no owner yet");
    let owner = new_merchant("main", Some("https://owner.example/hook"));
    done(&store, Changes { new_merchants: vec![owner.clone()], ..Changes::default() }).await;

    // Raised, seen again, closed, and back: what changed is told, with the alert as it is then.
    done(&store, raise(AlertKind::PoolLow)).await;
    done(&store, raise(AlertKind::PoolLow)).await;
    let row = store.alerts(AlertFilter::default(), 10).await.unwrap().remove(0);
    let close = AlertChange {
        id: row.id,
        event: EventId::new(at(4), id_bytes()),
        from: AlertStatus::Open,
        to: AlertStatus::Closed,
        by: "key_1".into(),
        reason: Some("grown".into()),
        at: at(4),
    };
    done(&store, Changes { alert_changes: vec![close], ..Changes::default() }).await;
    done(&store, raise(AlertKind::PoolLow)).await;
    // That a receiver accepts nothing is not sent to a receiver.
    done(&store, raise(AlertKind::WebhookFailed)).await;

    let due = store.due_deliveries(at(99), &[], 10).await.unwrap();
    let mut told = Vec::new();
    for delivery in &due {
        assert_eq!((delivery.kind.as_str(), delivery.merchant, delivery.subject), ("wallet.alert", owner.id, row.id.into()));
        assert_eq!(delivery.url, "https://owner.example/hook");
        let body: serde_json::Value = serde_json::from_str(&delivery.body).unwrap();
        let text = |member: &str| body["data"][member].as_str().unwrap_or("-").to_owned();
        assert_eq!((text("id"), text("severity"), body["type"].as_str()), (row.id.to_string(), "warning".into(), Some("wallet.alert")));
        told.push(format!("{} {} {}", text("kind"), text("status"), text("reason")));
    }
    told.sort_unstable();
    assert_eq!(told, ["pool_low closed grown", "pool_low open -", "pool_low open grown"]);
}

async fn sealed_texts_change_only_where_the_old_one_stands(ground: Ground) {
    let store = ground.open().await;
    let sealed =
        |n: usize| NewWallet { sealed_key: Some(format!("v1.aaaaaaaa.{n}")), tag: format!("v1.aaaaaaaa.tag{n}"), ..new_wallet(&tron()) };
    let wallets: Vec<NewWallet> = (0..70).map(sealed).collect();
    done(&store, Changes { new_wallets: wallets.clone(), ..Changes::default() }).await;
    let found = store.sealed_by_others(SealedIn::WalletKey, "bbbbbbbb", "", 1_000).await.unwrap();
    assert_eq!(found.len(), 70);
    let reseals: Vec<Reseal> = found
        .iter()
        .map(|(id, old)| Reseal { place: SealedIn::WalletKey, id: id.clone(), old: old.clone(), new: old.replace("aaaaaaaa", "bbbbbbbb") })
        .collect();
    done(&store, Changes { reseals: reseals[..69].to_vec(), ..Changes::default() }).await;
    let left = store.sealed_by_others(SealedIn::WalletKey, "bbbbbbbb", "", 1_000).await.unwrap();
    assert_eq!(left, [found[69].clone()]);
    // A second rotation that read the same rows stores nothing, not even what it could.
    assert_eq!(store.commit(Changes { reseals: reseals[60..].to_vec(), ..Changes::default() }).await.unwrap(), Commit::Conflict);
    assert_eq!(store.sealed_by_others(SealedIn::WalletKey, "bbbbbbbb", "", 1_000).await.unwrap(), left);
    assert_eq!(store.sealed_by_others(SealedIn::WalletTag, "aaaaaaaa", "", 10).await.unwrap(), []);
}

async fn risky_wallets_are_not_offered(ground: Ground) {
    let store = ground.open().await;
    let wallets = add_wallets(&store, 4).await;
    for (wallet, level) in wallets.iter().zip(RiskLevel::ALL) {
        let change = WalletChange { id: wallet.id, version: 1, kind: WalletMove::Risk(*level) };
        done(&store, Changes { wallets: vec![change], ..Changes::default() }).await;
    }
    let free = store.free_wallets(&wallets[0].network, 10).await.unwrap();
    let mut levels: Vec<&str> = free.iter().map(|row| row.risk_level.name()).collect();
    levels.sort_unstable();
    assert_eq!(levels, ["low", "watch"]);
    assert!(free.iter().all(|row| may_lease(row.status, row.risk_level)));

    // A lease that ends leaves a frozen wallet frozen.
    let (id, rest) = (wallets[0].id, |version| WalletChange {
        id: wallets[0].id,
        version,
        kind: WalletMove::Rest { status: lease_ended(WalletStatus::Frozen), leased_to: 9, until: at(99) },
    });
    let put = |status, version| WalletChange { id, version, kind: WalletMove::Put { status, queue_rank: 5, rested_at: None } };
    done(&store, Changes { wallets: vec![put(WalletStatus::Frozen, 2)], ..Changes::default() }).await;
    done(&store, Changes { wallets: vec![rest(3)], ..Changes::default() }).await;
    assert_eq!(store.wallet(id).await.unwrap().unwrap().status, WalletStatus::Frozen);
}

async fn i2_a_wallet_has_one_live_lease(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 1).await.remove(0);
    let (first, second) = (new_order(), new_order());
    let leases = [new_lease(first.id, &wallet, 0), new_lease(second.id, &wallet, 50)];
    let with = |order: &NewOrder, lease: &NewLease| Changes {
        new_orders: vec![order.clone()],
        new_leases: vec![lease.clone()],
        ..Changes::default()
    };
    done(&store, with(&first, &leases[0])).await;
    // Even where nobody looks at the wallet's own row, the index stands in the way.
    refused(&store, with(&second, &leases[1])).await;
    assert!(store.order(second.id).await.unwrap().is_none());

    done(&store, Changes { ended_leases: vec![(leases[0].lease.clone(), 40)], ..Changes::default() }).await;
    refused(&store, Changes { ended_leases: vec![(leases[0].lease.clone(), 41)], ..Changes::default() }).await;
    assert_eq!(store.order(first.id).await.unwrap().unwrap().order.leases[0].to, Some(40), "it ended once");
    done(&store, with(&second, &leases[1])).await;
    let owners = async |blocks| -> Vec<(OrderId, u64)> {
        let found = store.windows(&[wallet.id], blocks).await.unwrap().remove(&wallet.id).unwrap_or_default();
        found.iter().map(|window| (window.order, window.from)).collect()
    };
    let both = [(first.id, 0), (second.id, 50)];
    // A lease takes what is in blocks above the height where it begins.
    assert_eq!(owners(0..=0).await, []);
    assert_eq!(owners(0..=50).await, both[..1], "what begins with the last block is not read");
    assert_eq!(owners(50..=50).await, both[..1]);
    assert_eq!(owners(50..=51).await, both);
    assert_eq!(owners(51..=51).await, both[1..], "what came before is not read");
    assert_eq!(owners(0..=u64::MAX).await, both);

    // Of two that began at one height the one that has time comes last, whatever made its id.
    let third = new_order();
    let mut lease = new_lease(third.id, &wallet, 50);
    lease.lease.id = LeaseId::new(at(0), id_bytes());
    done(&store, Changes { ended_leases: vec![(leases[1].lease.clone(), 50)], ..Changes::default() }).await;
    done(&store, with(&third, &lease)).await;
    assert_eq!(owners(51..=51).await, [(second.id, 50), (third.id, 50)]);
}

async fn i3_a_transfer_is_stored_once(ground: Ground) {
    let store = ground.open().await;
    let first = new_transfer(payment(address(), 7), None);
    let key = first.payment.key;
    done(&store, Changes { transfers: vec![first.clone()], ..Changes::default() }).await;
    let again = |network: &Network, key: TransferKey| {
        let payment = Payment { network: network.clone(), key, block: Mark { number: 9, time: at(30) }, ..first.payment.clone() };
        Changes { transfers: vec![new_transfer(payment, None)], ..Changes::default() }
    };
    refused(&store, again(&tron(), key)).await;
    // Another log of the transaction, and the same name on another chain, are other transfers.
    done(&store, again(&tron(), TransferKey { ordinal: 1, ..key })).await;
    done(&store, again(&Network::new("ethereum"), key)).await;
    assert_eq!(store.transfers_by_key(&tron(), &[key]).await.unwrap().len(), 2);
    assert_eq!(store.transfers_by_key(&Network::new("ethereum"), &[key]).await.unwrap().len(), 1);
    // Twice in one commit is refused as well.
    let (twice, one) = (hash(), payment(address(), 8));
    let named = |_| new_transfer(Payment { key: TransferKey { tx_hash: twice, ordinal: 0 }, ..one.clone() }, None);
    refused(&store, Changes { transfers: (0..2).map(named).collect(), ..Changes::default() }).await;
    assert!(store.transfers_by_key(&tron(), &[TransferKey { tx_hash: twice, ordinal: 0 }]).await.unwrap().is_empty());
}

async fn a_shops_number_is_used_once_per_merchant(ground: Ground) {
    let store = ground.open().await;
    let numbered = |merchant: MerchantId, number: Option<&str>| {
        let mut order = NewOrder { merchant, ..new_order() };
        order.details.merchant_order_id = number.map(str::to_owned);
        order
    };
    let (ours, theirs) = (merchant_id(), MerchantId::new(at(0), [8; 10]));
    let first = numbered(ours, Some("A-1"));
    let one = |order: NewOrder| Changes { new_orders: vec![order], ..Changes::default() };
    done(&store, one(first.clone())).await;
    refused(&store, one(numbered(ours, Some("A-1")))).await;
    done(&store, one(numbered(theirs, Some("A-1")))).await;
    done(&store, one(numbered(ours, Some("a-1")))).await;
    done(&store, one(numbered(ours, Some("")))).await;
    for _ in 0..2 {
        done(&store, one(numbered(ours, None))).await;
    }
    let found = store.order_by_merchant_id(ours, "A-1").await.unwrap().unwrap();
    assert_eq!(found.id, first.id);
    assert!(store.order_by_merchant_id(ours, "A-2").await.unwrap().is_none());

    let race = (0..12).map(|_| {
        let store = store.clone();
        let order = numbered(ours, Some("raced"));
        tokio::spawn(async move { store.commit(Changes { new_orders: vec![order], ..Changes::default() }).await.unwrap() })
    });
    let won = join_all(race).await.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count();
    assert_eq!(won, 1);
}

async fn an_answer_is_kept_once_and_read_back(ground: Ground) {
    let store = ground.open().await;
    let body = "{\"id\":\"ord_1\",\"note\":\"ünïcode 💶 'quoted' \\u0000\"}";
    let kept = answer("mer_1 POST /api/v1/orders key-1", body);
    done(&store, Changes { answer: Some(kept.clone()), ..Changes::default() }).await;
    refused(&store, Changes { answer: Some(answer(&kept.scope, "another")), ..Changes::default() }).await;
    for _ in 0..2 {
        let found = store.kept_answer(&kept.scope).await.unwrap().unwrap();
        assert_eq!((found.status, found.body, found.location, found.body_mac), (201, body.into(), kept.location.clone(), "mac".into()));
    }
    assert!(store.kept_answer("mer_1 POST /api/v1/orders key-2").await.unwrap().is_none());

    const DAY_S: i64 = 86_400;
    store.forget_old(at(4 + 7 * DAY_S)).await.unwrap();
    assert!(store.kept_answer(&kept.scope).await.unwrap().is_some(), "seven days are not over");
    store.forget_old(at(5 + 7 * DAY_S)).await.unwrap();
    assert!(store.kept_answer(&kept.scope).await.unwrap().is_none());
    done(&store, Changes { answer: Some(kept), ..Changes::default() }).await;
}

async fn i10_events_keep_the_order_of_commits(ground: Ground) {
    let store = ground.open().await;
    let orders = [add_order(&store).await, add_order(&store).await, add_order(&store).await];
    let tasks = orders.iter().map(|order| {
        let (store, id) = (store.clone(), order.id);
        tokio::spawn(async move {
            let mut told = Vec::new();
            for round in 0..15_u32 {
                // Two in one commit, then one alone, all of the same millisecond.
                let count = if round.is_multiple_of(2) { 2 } else { 1 };
                let events: Vec<NewEvent> = (0..count).map(|_| new_event(id, EventType::Underpaid)).collect();
                told.extend(events.iter().map(|event| event.id.to_string()));
                done(&store, Changes { events, ..Changes::default() }).await;
            }
            (id, told)
        })
    });
    let mut places = HashSet::new();
    for told in join_all(tasks).await {
        let (id, told) = told.unwrap();
        let found = store.order_events(id, 0).await.unwrap();
        assert_eq!(found.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), told);
        assert!(found.is_sorted_by(|a, b| a.seq < b.seq));
        assert!(found.iter().all(|event| places.insert(event.seq)), "a place was given twice");
        let middle = &found[7];
        assert_eq!(store.event_seq(&middle.id).await.unwrap(), Some(middle.seq));
        let after: Vec<String> = store.order_events(id, middle.seq).await.unwrap().into_iter().map(|event| event.id).collect();
        assert_eq!(after, told[8..]);
    }
    assert_eq!(store.event_seq("evt_unknown").await.unwrap(), None);
    let known = new_event(orders[0].id, EventType::Paid);
    done(&store, Changes { events: vec![known.clone()], ..Changes::default() }).await;
    refused(&store, Changes { events: vec![NewEvent { subject: orders[1].id.into(), ..known }], ..Changes::default() }).await;
}

async fn events_are_found_by_whose_they_are_by_order_and_by_type(ground: Ground) {
    let store = ground.open().await;
    let (one, two) = (add_order(&store).await, add_order(&store).await);
    let other = MerchantId::new(at(0), [8; 10]);
    let events = vec![
        new_event(one.id, EventType::Pending),
        NewEvent { merchant: other, ..new_event(two.id, EventType::Pending) },
        new_event(one.id, EventType::Paid),
        NewEvent { merchant: other, ..new_event(two.id, EventType::Paid) },
    ];
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    for event in events {
        done(&store, Changes { events: vec![event], ..Changes::default() }).await;
    }
    let places: Vec<i64> = store.events(EventFilter::default(), 0, 10).await.unwrap().into_iter().map(|event| event.seq).collect();
    let (all, paid) = (EventFilter::default(), Some(EventType::Paid));
    for (filter, after, expected) in [
        (all.clone(), 0, vec![0, 1, 2, 3]),
        (all.clone(), places[1], vec![2, 3]),
        (EventFilter { kind: paid, ..all.clone() }, 0, vec![2, 3]),
        (EventFilter { kind: paid, ..all.clone() }, places[2], vec![3]),
        (EventFilter { merchant: Some(other), ..all.clone() }, 0, vec![1, 3]),
        (EventFilter { merchant: Some(other), kind: paid, ..all.clone() }, 0, vec![3]),
        (EventFilter { order: Some(one.id), ..all.clone() }, 0, vec![0, 2]),
        (EventFilter { order: Some(one.id), merchant: Some(merchant_id()), kind: paid }, 0, vec![2]),
        (EventFilter { order: Some(one.id), merchant: Some(other), kind: None }, 0, vec![]),
    ] {
        let found = store.events(filter.clone(), after, 10).await.unwrap();
        let expected: Vec<&String> = expected.into_iter().map(|index: usize| &ids[index]).collect();
        assert_eq!(found.iter().map(|event| &event.id).collect::<Vec<_>>(), expected, "{filter:?} after {after}");
        assert!(found.iter().all(|event| event.merchant == if event.subject == one.id.to_string() { merchant_id() } else { other }));
    }
    assert_eq!(store.events(all, 0, 3).await.unwrap().len(), 3);
}

/// PostgreSQL prefers to read an empty table whole, so it is asked for what it would do otherwise. Of
/// several filters it chooses by what it knows of the rows, which is nothing here: any index will do.
async fn every_filter_of_events_has_an_index(ground: Ground) {
    if ground.url.starts_with("postgres") {
        let name = ground.url.rsplit('/').next().unwrap();
        postgres::query(
            &ground.url,
            &format!("ALTER DATABASE {name} SET enable_seqscan = off; ALTER DATABASE {name} SET enable_bitmapscan = off"),
        );
    }
    let store = ground.open().await;
    let all = EventFilter::default();
    let (merchant, order, kind) = (Some(merchant_id()), Some(new_order().id), Some(EventType::Paid));
    for (name, filter, index) in [
        ("nothing", all.clone(), "PRIMARY KEY|events_pkey"),
        ("merchant", EventFilter { merchant, ..all.clone() }, "idx_events_merchant "),
        ("type", EventFilter { kind, ..all.clone() }, "idx_events_kind"),
        (
            "type of a merchant",
            EventFilter { merchant, kind, ..all.clone() },
            "idx_events_merchant (|idx_events_merchant on|idx_events_kind on",
        ),
        ("order", EventFilter { order, ..all.clone() }, "idx_events_order"),
        ("order of a merchant", EventFilter { order, merchant, ..all.clone() }, "idx_events_order|idx_events_merchant on"),
        ("everything", EventFilter { order, merchant, kind }, "idx_events_order|idx_events_merchant on|idx_events_kind on"),
    ] {
        let plan = store.explain_events(filter, 50).await.unwrap().join("; ");
        assert!(index.split('|').any(|index| plan.contains(index)), "{name}: {plan}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("Sort"), "{name} is sorted: {plan}");
    }
}

/// On PostgreSQL a number is given before the commit that shows it: whoever lists events waits for the
/// lower one, and does not go on behind its back.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_events_waits_for_the_number_that_is_given_and_not_committed() {
    let ground = Ground::postgres();
    let store = ground.open().await;
    let order = add_order(&store).await;
    let slow = new_event(order.id, EventType::Underpaid);
    let mut other = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!(
        "SELECT pg_advisory_xact_lock_shared(8388346167610994292); \
         INSERT INTO events (id, kind, merchant_id, subject_id, at, body) VALUES ('{}', 'order.underpaid', '{}', '{}', 1, '{{}}')",
        slow.id,
        merchant_id(),
        order.id
    )))
    .execute(&mut *transaction)
    .await
    .unwrap();
    let quick = new_event(order.id, EventType::Paid);
    done(&store, Changes { events: vec![quick.clone()], ..Changes::default() }).await;
    let listing = tokio::spawn({
        let store = store.clone();
        async move { store.events(EventFilter::default(), 0, 10).await.unwrap() }
    });
    // The lister stands in line before the other goes on.
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut watcher = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    crate::wait::eventually("the list waits", async || {
        let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(waits)).fetch_one(&mut watcher).await.unwrap();
        if waiting == 1 && !listing.is_finished() { Ok(()) } else { Err(waiting) }
    })
    .await;
    transaction.commit().await.unwrap();
    let listed: Vec<String> = listing.await.unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(listed, [slow.id.to_string(), quick.id.to_string()]);
}

async fn deliveries_come_due_and_busy_receivers_are_left_out(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    assert_eq!(store.next_delivery_at().await.unwrap(), None);
    let told = |second: i64, url: &str| {
        let event = new_event(order.id, EventType::Paid);
        with_delivery(NewEvent { at: at(second), ..event }, url)
    };
    let shop = ["https://a.example/one", "https://a.example/two?x=1", "https://a.example:8443/", "https://b.example/hook"];
    let events: Vec<NewEvent> = shop.iter().zip([30, 10, 20, 40]).map(|(url, second)| told(second, url)).collect();
    done(&store, Changes { events: events.clone(), ..Changes::default() }).await;
    assert_eq!(store.next_delivery_at().await.unwrap(), Some(at(10)));

    let due = async |second: i64, busy: &[&str], limit: i64| {
        let busy: Vec<String> = busy.iter().map(|origin| (*origin).to_owned()).collect();
        let found = store.due_deliveries(at(second), &busy, limit).await.unwrap();
        found.into_iter().map(|delivery| delivery.url).collect::<Vec<_>>()
    };
    assert!(due(9, &[], 10).await.is_empty());
    assert_eq!(due(10, &[], 10).await, [shop[1]], "due at its very moment");
    assert_eq!(due(99, &[], 10).await, [shop[1], shop[2], shop[0], shop[3]], "oldest first");
    assert_eq!(due(99, &[], 2).await, [shop[1], shop[2]]);
    assert_eq!(due(99, &["https://a.example"], 10).await, [shop[2], shop[3]], "a receiver is scheme, host and port");
    assert_eq!(due(99, &["https://a.example", "https://a.example:8443", "https://b.example"], 10).await.len(), 0);

    let first = store.due_deliveries(at(99), &[], 1).await.unwrap().remove(0);
    assert_eq!((first.id, first.event_id.clone()), (events[1].delivery.clone().unwrap().0, events[1].id.to_string()));
    assert_eq!((first.body.as_str(), first.kind.as_str(), first.tries), (events[1].body.as_str(), "order.paid", 0));
    assert_eq!((first.merchant, first.subject, first.event_at), (merchant_id(), order.id.into(), at(10)));
    let tried = |index: usize, tries: u32, state: DeliveryState| DeliveryChange {
        id: events[index].delivery.clone().unwrap().0,
        claim: None,
        tries,
        state,
        code: Some(500),
        error: Some("no".into()),
        at: at(50),
        url: "https://a.example/hook".into(),
        took: Span::from_millis(120),
        answer: Some("try later".into()),
    };
    let changes = vec![tried(1, 1, DeliveryState::Due(at(55))), tried(2, 1, DeliveryState::Delivered), tried(0, 10, DeliveryState::Failed)];
    done(&store, Changes { deliveries: changes, ..Changes::default() }).await;
    assert_eq!(store.next_delivery_at().await.unwrap(), Some(at(40)));
    assert_eq!(due(54, &[], 10).await, [shop[3]]);
    assert_eq!(due(55, &[], 10).await, [shop[3], shop[1]]);
    assert_eq!(store.due_deliveries(at(55), &[], 10).await.unwrap()[1].tries, 1);

    // Every try is kept, and what somebody asks to send again is due now and remembers what it was.
    let (failed, waiting) = (events[0].delivery.clone().unwrap().0, events[1].delivery.clone().unwrap().0);
    let attempts = store.attempts(failed).await.unwrap();
    assert_eq!(attempts.len(), 1);
    let attempt = &attempts[0];
    assert_eq!((attempt.number, attempt.code, attempt.took.millis(), attempt.answer.as_deref()), (1, Some(500), 120, Some("try later")));
    store.send_again(&[failed, waiting], at(60)).await.unwrap();
    store.send_again(&[failed], at(61)).await.unwrap();
    let again = store.due_deliveries(at(61), &[], 10).await.unwrap();
    let before = |id: DeliveryId| again.iter().find(|delivery| delivery.id == id).unwrap().before;
    assert_eq!((before(failed), before(waiting)), (Some(DeliveryState::Failed), Some(DeliveryState::Due(at(55)))));
    let back = vec![tried(0, 10, DeliveryState::Failed), tried(1, 1, DeliveryState::Due(at(55)))];
    done(&store, Changes { deliveries: back, ..Changes::default() }).await;
    assert_eq!(store.attempts(failed).await.unwrap().iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    let filter = DeliveryFilter { status: Some("failed".into()), ..DeliveryFilter::default() };
    let shown = store.deliveries(filter, 10).await.unwrap();
    assert_eq!(shown.iter().map(|row| (row.id, row.state, row.tries)).collect::<Vec<_>>(), [(failed, DeliveryState::Failed, 10)]);
    assert!(store.due_deliveries(at(61), &[], 10).await.unwrap().iter().all(|delivery| delivery.before.is_none()));
}

async fn one_alert_for_one_thing(ground: Ground) {
    let store = ground.open().await;
    for about in ["a", "b", "a"] {
        done(&store, Changes { alerts: vec![new_alert(AlertKind::StrayMoney, about)], ..Changes::default() }).await;
    }
    done(&store, Changes { alerts: vec![new_alert(AlertKind::LateMoney, "a")], ..Changes::default() }).await;
    let open = store.open_alerts(10).await.unwrap();
    let pairs: Vec<(&str, &str)> = open.iter().map(|(kind, about)| (kind.as_str(), about.as_str())).collect();
    assert_eq!(pairs, [("late_money", "a"), ("stray_money", "b"), ("stray_money", "a")]);
    assert_eq!(store.open_alerts(1).await.unwrap().len(), 1);
}

/// A wallet is visible together with its epoch. A reader that asks "what is new" while many add
/// wallets, some of whose commits fail, ends with exactly all of them.
async fn wallets_appear_with_their_epoch_and_none_is_skipped(ground: Ground) {
    let store = ground.open().await;
    let duplicate = add_wallets(&store, 1).await.remove(0);
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, over) = (store.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let (mut epoch, mut seen, mut steps) = (0, Vec::new(), 0);
                loop {
                    let last = over.load(Ordering::SeqCst);
                    let (newest, addresses) = store.addresses_since(&tron(), epoch).await.unwrap();
                    assert!(newest >= epoch, "the epoch went back from {epoch} to {newest}");
                    steps += usize::from(newest > epoch);
                    epoch = newest;
                    seen.extend(addresses);
                    if last {
                        return (seen, steps);
                    }
                }
            })
        })
        .collect();
    let writers = (0..24).map(|n| {
        let (store, duplicate) = (store.clone(), duplicate.clone());
        tokio::spawn(async move {
            let mut added = Vec::new();
            for round in 0..6 {
                let mut wallets: Vec<NewWallet> = (0..=(n + round) % 3).map(|_| new_wallet(&tron())).collect();
                // A wallet of another network in the same commit, and now and then one too many.
                wallets.push(new_wallet(&Network::new("ethereum")));
                let spoiled = (n * 7 + round) % 5 == 0;
                if spoiled {
                    wallets.push(NewWallet { id: WalletId::new(at(0), id_bytes()), ..duplicate.clone() });
                }
                let ours = wallets.iter().filter(|wallet| wallet.network == tron()).map(|wallet| wallet.address).collect::<Vec<_>>();
                // Two that wait for each other on two networks are told to try again.
                loop {
                    let outcome = store.commit(Changes { new_wallets: wallets.clone(), ..Changes::default() }).await.unwrap();
                    if outcome == Commit::Done {
                        assert!(!spoiled);
                        added.extend(ours);
                        break;
                    }
                    if spoiled {
                        break;
                    }
                }
            }
            added
        })
    });
    let mut expected: Vec<Address> = vec![duplicate.address];
    for added in join_all(writers).await {
        expected.extend(added.unwrap());
    }
    over.store(true, Ordering::SeqCst);
    expected.sort_unstable();
    for reader in readers {
        let (mut seen, steps) = reader.await.unwrap();
        assert!(steps > 3, "the reader saw the set grow {steps} times: nothing was concurrent");
        seen.sort_unstable();
        assert!(seen == expected, "seen {} addresses, expected {}", seen.len(), expected.len());
    }
    // Read from the start, the same.
    let (_, mut all) = store.addresses_since(&tron(), 0).await.unwrap();
    all.sort_unstable();
    assert_eq!(all, expected);
    assert_eq!(store.addresses_since(&Network::new("bsc"), 0).await.unwrap(), (0, Vec::new()));
}

async fn free_wallets_come_fresh_first_then_longest_rested(ground: Ground) {
    let store = ground.open().await;
    let ranked = |rank: i64, kind: WalletKind| NewWallet { queue_rank: rank, kind, ..new_wallet(&tron()) };
    let rested = ranked(at(100).millis(), WalletKind::Imported);
    let (fresh, fresh_too) = (ranked(0, WalletKind::Random), ranked(0, WalletKind::Random));
    let long_rested = ranked(at(50).millis(), WalletKind::Imported);
    let elsewhere = new_wallet(&Network::new("ethereum"));
    let new_wallets = vec![rested.clone(), fresh.clone(), elsewhere, long_rested.clone(), fresh_too.clone()];
    done(&store, Changes { new_wallets, ..Changes::default() }).await;
    let free = async |limit: i64| store.free_wallets(&tron(), limit).await.unwrap().into_iter().map(|w| w.id).collect::<Vec<_>>();
    assert_eq!(free(10).await, [fresh.id, fresh_too.id, long_rested.id, rested.id]);
    assert_eq!(free(1).await, [fresh.id]);

    // Lent, it is not offered; returned, it is last.
    let order = new_order();
    done(&store, Changes { wallets: vec![lend(fresh.id, 1, order.id)], ..Changes::default() }).await;
    assert_eq!(free(10).await, [fresh_too.id, long_rested.id, rested.id]);
    let rest =
        WalletChange { id: fresh.id, version: 2, kind: WalletMove::Rest { status: WalletStatus::Cooldown, leased_to: 90, until: at(200) } };
    done(&store, Changes { wallets: vec![rest], ..Changes::default() }).await;
    assert_eq!(free(10).await.len(), 3, "one that rests is not offered");
    let back = WalletChange {
        id: fresh.id,
        version: 3,
        kind: WalletMove::Return { status: WalletStatus::Available, queue_rank: at(201).millis() },
    };
    done(&store, Changes { wallets: vec![back], ..Changes::default() }).await;
    assert_eq!(free(10).await, [fresh_too.id, long_rested.id, rested.id, fresh.id]);
}

async fn a_wallet_is_lent_rests_and_returns(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 2).await.remove(0);
    let order = add_order(&store).await;
    let lease = new_lease(order.id, &wallet, 0);
    let row = async || store.wallet(wallet.id).await.unwrap().unwrap();
    let step = async |changes: Changes| store.commit(changes).await.unwrap();
    let wallet_move =
        |version: i64, kind: WalletMove| Changes { wallets: vec![WalletChange { id: wallet.id, version, kind }], ..Changes::default() };
    let made = row().await;
    assert_eq!((made.status, made.ever_leased, made.version), (WalletStatus::Available, false, 1));
    assert_eq!((made.leased_to, made.paid_at, made.order, made.last_used_at), (None, None, None, None));
    assert_eq!(
        (made.address, made.address_text, made.tag, made.kind),
        (wallet.address, wallet.address_text.clone(), wallet.tag.clone(), wallet.kind)
    );

    // Money to an idle wallet is noted; the mark only ever rises.
    for number in [30, 20] {
        let version = row().await.version;
        assert_eq!(step(wallet_move(version, WalletMove::PaidAt(number))).await, Commit::Done);
    }
    assert_eq!((row().await.paid_at, row().await.version), (Some(30), 3));

    let lent = Changes { new_leases: vec![lease.clone()], ..wallet_move(3, WalletMove::Lease { order: order.id, at: at(1) }) };
    assert_eq!(step(lent).await, Commit::Done);
    let found = row().await;
    assert_eq!(
        (found.status, found.order, found.ever_leased, found.last_used_at),
        (WalletStatus::Occupied, Some(order.id), true, Some(at(1)))
    );
    // It is not lent twice, and does not return without having rested.
    assert_eq!(step(wallet_move(4, WalletMove::Lease { order: order.id, at: at(2) })).await, Commit::Conflict);
    assert_eq!(step(wallet_move(4, WalletMove::Return { status: WalletStatus::Available, queue_rank: 1 })).await, Commit::Conflict);

    // A lease is over when its order is, and its late window too.
    let over = async |second: i64| store.leases_over(&tron(), at(second), 10).await.unwrap();
    assert!(over(9_999).await.is_empty(), "its order is pending");
    let paid = Order {
        status: Status::Paid,
        facts: Facts { paid: Some(Paid { at: at(9), by: PaidBy::Money, late: false }), ..Facts::default() },
        ..order.order.clone()
    };
    assert_eq!(step(Changes { orders: vec![order_change(order.id, 1, paid)], ..Changes::default() }).await, Commit::Done);
    assert!(over(1_500).await.is_empty(), "the settled chain is at the end of the window, not past it");
    assert_eq!(over(1_501).await, std::slice::from_ref(&lease.lease));
    assert!(store.leases_over(&Network::new("ethereum"), at(9_999), 10).await.unwrap().is_empty());

    let rests = Changes {
        ended_leases: vec![(lease.lease.clone(), 77)],
        ..wallet_move(4, WalletMove::Rest { status: WalletStatus::Cooldown, leased_to: 77, until: at(2_000) })
    };
    assert_eq!(step(rests).await, Commit::Done);
    assert!(over(9_999).await.is_empty());
    let found = row().await;
    assert_eq!((found.status, found.order, found.leased_to), (WalletStatus::Cooldown, None, Some(77)));
    let rested = async |second: i64| store.rested_wallets(&tron(), at(second), 10).await.unwrap().len();
    assert_eq!((rested(2_000).await, rested(2_001).await), (0, 1));
    assert_eq!(step(wallet_move(5, WalletMove::Lease { order: order.id, at: at(2) })).await, Commit::Conflict, "it rests");
    assert_eq!(step(wallet_move(5, WalletMove::Return { status: WalletStatus::Available, queue_rank: 5 })).await, Commit::Done);
    assert_eq!((row().await.status, rested(9_999).await), (WalletStatus::Available, 0));
    assert_eq!(step(wallet_move(6, WalletMove::Lease { order: order.id, at: at(3) })).await, Commit::Done);

    let counts = store.wallet_counts().await.unwrap();
    let mut counts: Vec<(&str, i64)> = counts.iter().map(|count| (count.status.name(), count.count)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [("available", 1), ("occupied", 1)]);
}

/// Everything an order is made of, as wild as the types allow.
#[derive(Clone, Debug)]
struct Written {
    terms: Terms,
    details: Details,
    livemode: bool,
    later: Order,
    cancel_reason: Option<String>,
    leases: Vec<(u64, Option<u64>)>,
    payments: Vec<(Payment, Recorded, Option<String>)>,
}

/// PostgreSQL's texts hold every character but NUL, which the API refuses.
fn text() -> impl Strategy<Value = String> {
    "[^\\x00]{0,20}"
}

fn time() -> impl Strategy<Value = Time> {
    any::<i64>().prop_map(Time::from_millis)
}

fn amount() -> impl Strategy<Value = Amount> {
    (0..=Amount::MAX.micros()).prop_map(micros)
}

/// Heights and spans as far as the database's 64 bits with a sign go.
fn long() -> impl Strategy<Value = u64> {
    0..=i64::MAX.unsigned_abs()
}

fn depth() -> impl Strategy<Value = Depth> {
    option::of(any::<u32>()).prop_map(|blocks| blocks.map_or(Depth::Final, Depth::Blocks))
}

fn network() -> impl Strategy<Value = Network> {
    "[a-z][a-z0-9_-]{0,15}".prop_map(|name| Network::new(&name))
}

fn any_terms() -> impl Strategy<Value = Terms> {
    (amount(), amount(), time(), long(), any::<bool>(), long(), btree_map(network(), depth(), 0..4)).prop_map(
        |(amount, tolerance, expires_at, late_window, accept_late, cooldown, depths)| Terms {
            purpose: tidegate_rules::order::Purpose::Payment,
            amount,
            tolerance,
            expires_at,
            late_window: Span::from_millis(late_window),
            accept_late,
            cooldown: Span::from_millis(cooldown),
            depths,
        },
    )
}

fn any_details() -> impl Strategy<Value = Details> {
    let optional = || option::of(text());
    ((optional(), optional(), optional(), optional()), (optional(), text(), optional(), any::<bool>())).prop_map(
        |((user_id, plan_id, merchant_order_id, callback_url), (redirect_url, metadata, note, payer_chooses))| Details {
            user_id,
            plan_id,
            merchant_order_id,
            callback_url,
            redirect_url,
            metadata,
            note,
            payer_chooses,
        },
    )
}

fn key() -> impl Strategy<Value = TransferKey> {
    (any::<[u8; 32]>(), any::<u32>()).prop_map(|(hash, ordinal)| TransferKey { tx_hash: Hash(hash), ordinal })
}

fn facts() -> impl Strategy<Value = Facts> {
    let paid = option::of((time(), any::<bool>(), any::<bool>()))
        .prop_map(|paid| paid.map(|(at, by_money, late)| Paid { at, by: if by_money { PaidBy::Money } else { PaidBy::Person }, late }));
    let confirmation = option::of((option::of((network(), key())), text()))
        .prop_map(|confirmation| confirmation.map(|(transfer, reason)| Confirmation { transfer, reason }));
    (paid, option::of(time()), option::of(time()), confirmation, any::<bool>(), amount()).prop_map(
        |(paid, expired_at, cancelled_at, confirmation, reverted, excess_told)| Facts {
            paid,
            expired_at,
            cancelled_at,
            confirmation,
            reverted,
            excess_told,
        },
    )
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    (0..all.len()).prop_map(move |index| all[index])
}

fn any_payment() -> impl Strategy<Value = Payment> {
    let state = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let value = proptest::prop_oneof![
        any::<[u8; 32]>(),
        Just([0xff; 32]),
        Just([0; 32]),
        any::<u8>().prop_map(|last| {
            let mut word = [0; 32];
            word[31] = last;
            word
        })
    ];
    (network(), key(), any::<[u8; 20]>(), any::<[u8; 20]>(), value, any::<u8>(), long(), time(), state).prop_map(
        |(network, key, from, to, value, decimals, number, time, (standing, proven, settled, promoted, by_hand, late_told))| Payment {
            network,
            key,
            from: Address(from),
            to: Address(to),
            value: Raw::from_be_bytes(value),
            decimals,
            block: Mark { number, time },
            standing,
            proven,
            // Only what stands is settled.
            settled: settled && standing,
            promoted,
            by_hand,
            late_told,
            failed: false,
        },
    )
}

fn written() -> impl Strategy<Value = Written> {
    const STATUS: &[Status] = Status::ALL;
    let later = (facts(), one_of(STATUS), option::of(one_of(Exception::ALL)), (amount(), amount()), option::of(network()), time());
    let payments = vec((any_payment(), one_of(Recorded::ALL), option::of(text())), 0..4);
    let leases = vec((long(), option::of(long())), 0..4);
    ((any_terms(), any_details(), any::<bool>()), later, option::of(text()), leases, payments).prop_map(
        |(
            (terms, details, livemode),
            (facts, status, exception, (received, confirmed), current, expires_at),
            cancel_reason,
            leases,
            payments,
        )| {
            let tally = Tally { received, confirmed };
            let later =
                Order { terms: Terms { expires_at, ..terms.clone() }, facts, leases: Vec::new(), current, tally, status, exception };
            Written { terms, details, livemode, later, cancel_reason, leases, payments }
        },
    )
}

async fn orders_come_back_as_they_were_stored(ground: Ground) {
    let store = ground.open().await;
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&written(), |written| {
            runtime.block_on(comes_back(&store, written));
            Ok(())
        })
    })
    .unwrap();
}

async fn comes_back(store: &Store, written: Written) {
    // The shrinker stores the same numbers again: a merchant of its own keeps them apart.
    let merchant = MerchantId::new(at(0), id_bytes());
    let mut new = NewOrder { merchant, livemode: written.livemode, details: written.details, ..new_order() };
    new.order = Order { current: written.later.current.clone(), ..order::open(written.terms) };
    let leases: Vec<(NewLease, Option<u64>)> =
        written.leases.iter().map(|(from, to)| (new_lease(new.id, &new_wallet(&tron()), *from), *to)).collect();
    done(
        store,
        Changes {
            new_orders: vec![new.clone()],
            new_leases: leases.iter().map(|(lease, _)| lease.clone()).collect(),
            ..Changes::default()
        },
    )
    .await;
    let mut expected = new.order.clone();
    expected.leases = leases.iter().map(|(lease, _)| lease.lease.clone()).collect();
    let addresses: Vec<(String, String)> = leases.iter().map(|(lease, _)| (lease.address_text.clone(), lease.tag.clone())).collect();
    let found = store.order(new.id).await.unwrap().unwrap();
    assert_eq!(found.order, expected);
    assert_eq!((found.merchant, found.livemode, found.created_at), (merchant, new.livemode, new.created_at));
    assert_eq!((&found.details, &found.addresses), (&new.details, &addresses));
    assert_eq!((found.version, found.cancel_reason, found.transfers.len()), (1, None, 0));

    // Then it takes a step, with all its payments; two rounds, so that stored rows change too.
    let transfers: Vec<TransferChange> = written
        .payments
        .into_iter()
        .map(|(payment, recorded, raw_log)| {
            let payment = Payment { key: TransferKey { tx_hash: hash(), ..payment.key }, ..payment };
            let wallet = raw_log.as_ref().map(|_| WalletId::new(at(0), id_bytes()));
            TransferChange { recorded, raw_log, wallet, ..new_transfer(payment, Some(new.id)) }
        })
        .collect();
    let first: Vec<TransferChange> = transfers
        .iter()
        .map(|transfer| {
            let payment = Payment {
                standing: true,
                proven: false,
                settled: false,
                promoted: false,
                by_hand: false,
                late_told: false,
                failed: false,
                ..transfer.payment.clone()
            };
            TransferChange { payment, recorded: Recorded::Matched, ..transfer.clone() }
        })
        .collect();
    done(store, Changes { transfers: first, ..Changes::default() }).await;
    let later = Order { leases: expected.leases.clone(), ..written.later };
    let again = transfers.iter().map(|transfer| TransferChange { version: Some(1), ..transfer.clone() }).collect();
    done(
        store,
        Changes {
            orders: vec![OrderChange {
                id: new.id,
                version: 1,
                order: later.clone(),
                cancel_reason: written.cancel_reason.clone(),
                edited: None,
            }],
            ended_leases: leases.iter().filter_map(|(lease, to)| Some((lease.lease.clone(), (*to)?))).collect(),
            transfers: again,
            ..Changes::default()
        },
    )
    .await;
    let mut expected = later;
    for (lease, (_, to)) in expected.leases.iter_mut().zip(&leases) {
        lease.to = *to;
    }
    let found = store.order(new.id).await.unwrap().unwrap();
    assert_eq!(found.order, expected);
    assert_eq!((found.version, &found.cancel_reason, &found.details), (2, &written.cancel_reason, &new.details));
    let mut sorted: Vec<&TransferChange> = transfers.iter().collect();
    sorted.sort_by_key(|transfer| (transfer.payment.block.number, transfer.id));
    assert_eq!(found.transfers.len(), sorted.len());
    for (found, stored) in found.transfers.iter().zip(sorted) {
        same_transfer(found, stored);
        assert_eq!(found.version, 2);
    }
}

fn same_transfer(found: &TransferRow, stored: &TransferChange) {
    assert_eq!((found.id, &found.payment, found.block_hash), (stored.id, &stored.payment, stored.block_hash));
    assert_eq!((found.recorded, found.order, found.wallet), (stored.recorded, stored.order, stored.wallet));
    assert_eq!((&found.address_texts, found.seen_at), (&stored.address_texts, stored.seen_at));
}

async fn transfers_are_found_by_every_question(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    let other = Network::new("ethereum");
    let make = |number: u64, change: &dyn Fn(&mut Payment)| {
        let mut payment = payment(address(), number);
        change(&mut payment);
        new_transfer(payment, Some(order.id))
    };
    let pending = make(10, &|_| ());
    let settled = make(11, &|payment| payment.settled = true);
    let orphaned = make(12, &|payment| payment.standing = false);
    let newest = make(13, &|_| ());
    let elsewhere = make(12, &|payment| payment.network = other.clone());
    let transfers = vec![pending.clone(), settled.clone(), orphaned.clone(), newest.clone(), elsewhere.clone()];
    done(&store, Changes { transfers, ..Changes::default() }).await;
    let ids = |rows: Vec<TransferRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();

    assert_eq!(ids(store.transfers_above(&tron(), 10).await.unwrap()), [settled.id, newest.id], "above, and standing");
    assert_eq!(ids(store.transfers_above(&other, 0).await.unwrap()), [elsewhere.id]);
    assert_eq!(ids(store.unsettled(&tron(), 12, 10).await.unwrap()), [pending.id], "up to the height, and pending");
    assert_eq!(ids(store.unsettled(&tron(), 13, 10).await.unwrap()), [pending.id, newest.id]);
    assert_eq!(ids(store.unsettled(&tron(), 13, 1).await.unwrap()), [pending.id], "the oldest first");
    let keys = [settled.payment.key, orphaned.payment.key, elsewhere.payment.key];
    let found: BTreeSet<TransferId> = ids(store.transfers_by_key(&tron(), &keys).await.unwrap()).into_iter().collect();
    assert_eq!(found, [settled.id, orphaned.id].into(), "orphaned ones too, of this network only");
    assert_eq!(store.order(order.id).await.unwrap().unwrap().transfers.len(), 5, "an order has the money of all networks");

    // Moved from one order to another, and to none.
    let second = add_order(&store).await;
    let moved = |version: i64, order: Option<OrderId>| TransferChange { version: Some(version), order, ..pending.clone() };
    done(&store, Changes { transfers: vec![moved(1, Some(second.id))], ..Changes::default() }).await;
    assert_eq!(ids(store.order(second.id).await.unwrap().unwrap().transfers), [pending.id]);
    done(&store, Changes { transfers: vec![moved(2, None)], ..Changes::default() }).await;
    assert!(store.order(second.id).await.unwrap().unwrap().transfers.is_empty());
    assert_eq!(store.order(order.id).await.unwrap().unwrap().transfers.len(), 4);
}

async fn orders_past_their_time_are_found(ground: Ground) {
    let store = ground.open().await;
    let wallets = add_wallets(&store, 2).await;
    // Ends at 900 s.
    let (leased, paid, unleased) = (new_order(), new_order(), new_order());
    let leases = vec![new_lease(leased.id, &wallets[0], 0), new_lease(paid.id, &wallets[1], 0)];
    let new_orders = vec![leased.clone(), paid.clone(), unleased.clone()];
    done(&store, Changes { new_orders, new_leases: leases, ..Changes::default() }).await;
    let is_paid = Order { status: Status::Paid, ..paid.order.clone() };
    done(&store, Changes { orders: vec![order_change(paid.id, 1, is_paid)], ..Changes::default() }).await;
    let past = async |network: &str, second: i64| store.orders_past(&Network::new(network), at(second), 10).await.unwrap();
    assert!(past("tron", 900).await.is_empty());
    assert_eq!(past("tron", 901).await, [leased.id]);
    assert!(past("ethereum", 901).await.is_empty());
    assert!(store.unleased_orders_past(at(900), 10).await.unwrap().is_empty());
    assert_eq!(store.unleased_orders_past(at(901), 10).await.unwrap(), [unleased.id]);
    let chosen = Order { current: Some(tron()), ..unleased.order.clone() };
    let lease = new_lease(unleased.id, &new_wallet(&tron()), 0);
    done(&store, Changes { orders: vec![order_change(unleased.id, 1, chosen)], new_leases: vec![lease], ..Changes::default() }).await;
    assert!(store.unleased_orders_past(at(901), 10).await.unwrap().is_empty());
    assert_eq!(past("tron", 901).await.len(), 2);
}

/// The ids of an order's list, one page after the other; `between` happens after each page.
async fn all_pages(store: &Store, filter: OrderFilter, limit: i64, between: impl AsyncFn()) -> Vec<OrderId> {
    let (mut seen, mut before): (Vec<OrderId>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.list_orders(OrderFilter { before, ..filter.clone() }, limit).await.unwrap();
        seen.extend(page.iter().map(|order| order.id));
        match page.last() {
            Some(last) => before = Some(last.id.to_string()),
            None => return seen,
        }
        between().await;
    }
}

async fn pages_of_orders_are_stable_and_filters_fit(ground: Ground) {
    let store = ground.open().await;
    let theirs = MerchantId::new(at(0), [8; 10]);
    let mut made: Vec<NewOrder> = Vec::new();
    for n in 0..23_i64 {
        let mut order = NewOrder { created_at: at(n), ..new_order() };
        order.id = OrderId::new(at(n), id_bytes());
        order.merchant = if n % 4 == 0 { theirs } else { merchant_id() };
        order.order.terms.amount = micros(1_000_000 * u64::try_from(n).unwrap());
        order.details.user_id = Some(format!("user {}", n % 3));
        order.details.merchant_order_id = Some(format!("N-{n}"));
        made.push(order);
    }
    done(&store, Changes { new_orders: made.clone(), ..Changes::default() }).await;
    let wallet = add_wallets(&store, 1).await.remove(0);
    let transfer = new_transfer(payment(wallet.address, 7), Some(made[9].id));
    let expired = Order { status: Status::Expired, ..made[9].order.clone() };
    done(
        &store,
        Changes {
            new_leases: vec![new_lease(made[9].id, &wallet, 0)],
            orders: vec![order_change(made[9].id, 1, expired)],
            transfers: vec![transfer.clone()],
            ..Changes::default()
        },
    )
    .await;
    let fits = |test: &dyn Fn(&NewOrder) -> bool| {
        let mut ids: Vec<OrderId> = made.iter().filter(|order| test(order)).map(|order| order.id).collect();
        ids.reverse();
        ids
    };

    // New orders that come in between the pages are on none of them, and push nothing over an edge.
    for limit in [1, 7, 22, 23, 100] {
        let newer = async || {
            let late = NewOrder { id: OrderId::new(at(10_000), id_bytes()), created_at: at(10_000), ..new_order() };
            done(&store, Changes { new_orders: vec![late], ..Changes::default() }).await;
        };
        let of_old = OrderFilter { created_to: Some(at(100)), ..OrderFilter::default() };
        assert_eq!(all_pages(&store, of_old, limit, newer).await, fits(&|_| true), "pages of {limit}");
        let newest = OrderId::new(at(9_999), [0; 10]).to_string();
        let unfiltered = OrderFilter { before: Some(newest), ..OrderFilter::default() };
        let page = store.list_orders(unfiltered, 100).await.unwrap();
        assert_eq!(page.iter().map(|order| order.id).collect::<Vec<_>>(), fits(&|_| true));
    }

    let old = || OrderFilter { created_to: Some(at(100)), ..OrderFilter::default() };
    let leased = made[9].id;
    let table: Vec<(&str, OrderFilter, Vec<OrderId>)> = vec![
        ("merchant", OrderFilter { merchant: Some(theirs), ..old() }, fits(&|order| order.merchant == theirs)),
        ("status", OrderFilter { status: Some(Status::Expired), ..old() }, vec![leased]),
        ("pending", OrderFilter { status: Some(Status::Pending), ..old() }, fits(&|order| order.id != leased)),
        ("network", OrderFilter { network: Some(tron()), ..old() }, vec![leased]),
        ("no network", OrderFilter { network: Some(Network::new("bsc")), ..old() }, vec![]),
        (
            "user",
            OrderFilter { user_id: Some("user 1".into()), ..old() },
            fits(&|order| order.details.user_id.as_deref() == Some("user 1")),
        ),
        ("number", OrderFilter { merchant_order_id: Some("N-5".into()), ..old() }, vec![made[5].id]),
        ("address", OrderFilter { address: Some(wallet.address_text.clone()), ..old() }, vec![leased]),
        ("transaction", OrderFilter { tx_hash: Some(transfer.payment.key.tx_hash.to_string()), ..old() }, vec![leased]),
        ("no transaction", OrderFilter { tx_hash: Some(hash().to_string()), ..old() }, vec![]),
        ("from", OrderFilter { created_from: Some(at(20)), ..old() }, fits(&|order| order.created_at >= at(20))),
        ("to", OrderFilter { created_to: Some(at(3)), ..old() }, fits(&|order| order.created_at <= at(3))),
        (
            "least",
            OrderFilter { amount_min: Some(micros(20_000_000)), ..old() },
            fits(&|order| order.order.terms.amount >= micros(20_000_000)),
        ),
        (
            "most",
            OrderFilter { amount_max: Some(micros(2_000_000)), ..old() },
            fits(&|order| order.order.terms.amount <= micros(2_000_000)),
        ),
        (
            "several",
            OrderFilter { merchant: Some(merchant_id()), user_id: Some("user 0".into()), status: Some(Status::Expired), ..old() },
            vec![leased],
        ),
        ("a text that is SQL", OrderFilter { user_id: Some("' OR 1=1 --".into()), ..old() }, vec![]),
    ];
    for (what, filter, expected) in table {
        for limit in [2, 50] {
            assert_eq!(all_pages(&store, filter.clone(), limit, async || ()).await, expected, "{what}, pages of {limit}");
        }
    }
}

/// Each filter alone finds its page by an index, in the order of the page. SQLite says so whatever the
/// tables hold; what PostgreSQL does with a million rows is in the bench `lists`.
#[tokio::test]
async fn every_filter_of_orders_has_an_index() {
    let ground = Ground::sqlite();
    let store = ground.open().await;
    let some = OrderFilter::default;
    let text = || Some("x".to_owned());
    let table = [
        ("nothing", some(), "PRIMARY|autoindex|idx_orders_merchant"),
        ("merchant", OrderFilter { merchant: Some(merchant_id()), ..some() }, "idx_orders_merchant "),
        ("status", OrderFilter { status: Some(Status::Expired), ..some() }, "idx_orders_status"),
        (
            "status of a merchant",
            OrderFilter { status: Some(Status::Paid), merchant: Some(merchant_id()), ..some() },
            "idx_orders_merchant_status",
        ),
        ("network", OrderFilter { network: Some(tron()), merchant: Some(merchant_id()), ..some() }, "idx_leases_network_order"),
        ("user", OrderFilter { user_id: text(), merchant: Some(merchant_id()), ..some() }, "idx_orders_user"),
        ("number", OrderFilter { merchant_order_id: text(), merchant: Some(merchant_id()), ..some() }, "idx_orders_merchant_order_id"),
        ("number, any merchant's", OrderFilter { merchant_order_id: text(), ..some() }, "idx_orders_number"),
        ("address", OrderFilter { address: text(), merchant: Some(merchant_id()), ..some() }, "idx_leases_address"),
        ("transaction", OrderFilter { tx_hash: text(), merchant: Some(merchant_id()), ..some() }, "idx_transactions_tx_hash"),
        (
            "created",
            OrderFilter { created_from: Some(at(1)), created_to: Some(at(9)), merchant: Some(merchant_id()), ..some() },
            "idx_orders_merchant ",
        ),
        (
            "amount",
            OrderFilter { amount_min: Some(micros(5)), amount_max: Some(micros(5)), merchant: Some(merchant_id()), ..some() },
            "idx_orders_amount",
        ),
    ];
    for (name, filter, index) in table {
        let plan = store.explain_orders(filter, 50).await.unwrap().join("; ");
        assert!(index.split('|').any(|index| plan.contains(index)), "{name}: {plan}");
        // By a few names the rows are few, and may be sorted.
        let is_named = matches!(name, "address" | "transaction" | "number, any merchant's" | "number");
        assert!(is_named || !plan.contains("TEMP B-TREE"), "{name} is sorted: {plan}");
    }
}

async fn pages_of_wallets_are_stable_and_filters_fit(ground: Ground) {
    let store = ground.open().await;
    let mut made = add_wallets(&store, 15).await;
    let imported = NewWallet { kind: WalletKind::Imported, ..new_wallet(&Network::new("ethereum")) };
    done(&store, Changes { new_wallets: vec![imported.clone()], ..Changes::default() }).await;
    made.push(imported.clone());
    done(&store, Changes { wallets: vec![lend(made[3].id, 1, new_order().id)], ..Changes::default() }).await;
    let mut expected: Vec<WalletId> = made.iter().map(|wallet| wallet.id).collect();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let (mut seen, mut before): (Vec<WalletId>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.wallets(WalletFilter { before, ..WalletFilter::default() }, 4).await.unwrap();
        seen.extend(page.iter().map(|wallet| wallet.id));
        let Some(last) = page.last() else { break };
        before = Some(last.id.to_string());
        let newer = NewWallet { id: WalletId::new(at(10_000), id_bytes()), ..new_wallet(&Network::new("bsc")) };
        done(&store, Changes { new_wallets: vec![newer], ..Changes::default() }).await;
    }
    assert_eq!(seen, expected);
    let find = async |filter: WalletFilter| store.wallets(filter, 50).await.unwrap().into_iter().map(|w| w.id).collect::<Vec<_>>();
    assert_eq!(find(WalletFilter { kind: Some(WalletKind::Imported), ..WalletFilter::default() }).await, [imported.id]);
    assert_eq!(find(WalletFilter { network: Some(Network::new("ethereum")), ..WalletFilter::default() }).await, [imported.id]);
    assert_eq!(find(WalletFilter { status: Some(WalletStatus::Occupied), ..WalletFilter::default() }).await, [made[3].id]);
    assert_eq!(find(WalletFilter { address: Some(made[7].address_text.clone()), ..WalletFilter::default() }).await, [made[7].id]);
}

/// Above the 500 values that one statement holds.
async fn long_lists_are_asked_in_parts(ground: Ground) {
    const MANY: usize = 1_201;
    let store = ground.open().await;
    let wallets = add_wallets(&store, MANY).await;
    let orders: Vec<NewOrder> = (0..MANY).map(|_| new_order()).collect();
    let transfers: Vec<TransferChange> =
        wallets.iter().zip(&orders).map(|(wallet, order)| new_transfer(payment(wallet.address, 7), Some(order.id))).collect();
    let leases: Vec<NewLease> = wallets.iter().zip(&orders).map(|(wallet, order)| new_lease(order.id, wallet, 0)).collect();
    let journal = transfers.iter().map(|transfer| entry(transfer.id, 0, ("wallet:a", "unmatched"), raw(3))).collect();
    done(&store, Changes { new_orders: orders.clone(), new_leases: leases, transfers: transfers.clone(), journal, ..Changes::default() })
        .await;

    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    let found = store.orders(&ids).await.unwrap();
    assert_eq!(found.iter().map(|order| order.id).collect::<BTreeSet<_>>(), ids.into_iter().collect());
    assert!(found.iter().all(|order| order.transfers.len() == 1 && order.order.leases.len() == 1));
    let addresses: Vec<Address> = wallets.iter().map(|wallet| wallet.address).collect();
    assert_eq!(store.wallets_at(&tron(), &addresses).await.unwrap().len(), MANY);
    let wallet_ids: Vec<WalletId> = wallets.iter().map(|wallet| wallet.id).collect();
    assert_eq!(store.windows(&wallet_ids, 0..=1).await.unwrap().len(), MANY);
    let keys: Vec<TransferKey> = transfers.iter().map(|transfer| transfer.payment.key).collect();
    assert_eq!(store.transfers_by_key(&tron(), &keys).await.unwrap().len(), MANY);
    let transfer_ids: Vec<TransferId> = transfers.iter().map(|transfer| transfer.id).collect();
    assert_eq!(store.journal_turns(&transfer_ids).await.unwrap().values().sum::<i64>(), i64::try_from(MANY).unwrap());
    assert!(store.orders(&[]).await.unwrap().is_empty());
    assert!(store.wallets_at(&tron(), &[]).await.unwrap().is_empty());
    assert!(store.transfers_by_key(&tron(), &[]).await.unwrap().is_empty());
}

async fn the_books_are_sums_of_entries(ground: Ground) {
    let store = ground.open().await;
    assert!(store.balances().await.unwrap().is_empty());
    let id = || TransferId::new(at(5), id_bytes());
    let (corrected, other) = (id(), id());
    // More than 64 and than 128 bits hold, as EVM tokens with 18 decimals may.
    let huge: Raw = "340282366920938463463374607431768211456000000".parse().unwrap();
    let elsewhere = JournalEntry { network: Network::new("ethereum"), ..entry(id(), 0, ("wallet:a", "unmatched"), raw(9)) };
    let journal = vec![
        entry(corrected, 0, ("wallet:a", "order:1"), raw(1_000)),
        entry(corrected, 1, ("order:1", "wallet:a"), raw(1_000)),
        entry(corrected, 2, ("wallet:a", "order:2"), raw(1_000)),
        entry(other, 0, ("wallet:a", "order:1"), huge),
        entry(id(), 0, ("wallet:b", "wallet:a"), raw(400)),
        elsewhere,
    ];
    done(&store, Changes { journal, ..Changes::default() }).await;
    let turns = store.journal_turns(&[corrected, other, id()]).await.unwrap();
    assert_eq!(turns, [(corrected, 3), (other, 1)].into());
    refused(&store, Changes { journal: vec![entry(corrected, 2, ("wallet:a", "order:2"), raw(1))], ..Changes::default() }).await;
    let books = store.balances().await.unwrap();
    let account = |network: &str, name: &str| books[&(Network::new(network), name.to_owned())];
    assert_eq!(account("tron", "wallet:a"), huge.saturating_add(raw(600)));
    assert_eq!(account("tron", "wallet:b"), raw(400));
    assert_eq!(account("ethereum", "wallet:a"), raw(9));
}

fn balance(wallet: WalletId, value: u128, second: i64) -> NewBalance {
    NewBalance {
        wallet,
        value: raw(value),
        amount: micros(u64::try_from(value).unwrap()),
        block: 10,
        records: Some((raw(value), raw(0))),
        at: at(second),
        opening: None,
        is_snapshot: true,
    }
}

async fn what_wallets_held_is_kept_and_forgotten(ground: Ground) {
    let store = ground.open().await;
    let wallets = add_wallets(&store, 3).await;
    let [one, two, never] = [wallets[0].id, wallets[1].id, wallets[2].id];
    let unread = NewBalance { records: None, ..balance(two, 9, 12) };
    let balances = vec![balance(one, 5, 10), balance(one, 7, 20), balance(two, 8, 11), unread];
    done(&store, Changes { balances, ..Changes::default() }).await;
    // The same again is told to the list and not to the history.
    let again = NewBalance { is_snapshot: false, ..balance(one, 7, 30) };
    done(&store, Changes { balances: vec![again], ..Changes::default() }).await;

    let last = store.last_balances(&[one, two, never]).await.unwrap();
    let shown: BTreeMap<WalletId, (Raw, bool, Time)> =
        last.values().map(|row| (row.wallet, (row.value, row.difference().is_some(), row.taken_at))).collect();
    assert_eq!(shown, [(one, (raw(7), true, at(20))), (two, (raw(9), false, at(12)))].into());
    let shown = async |id: WalletId| store.wallet(id).await.unwrap().unwrap().balance;
    assert_eq!((shown(one).await, shown(never).await), (Some((micros(7), at(30))), None));
    assert_eq!(store.richest_wallet(&tron()).await.unwrap().map(|wallet| wallet.id), Some(two));
    let values = async |before: i64, limit: i64| -> Vec<Raw> {
        store.balances_of(one, at(before), limit).await.unwrap().iter().map(|row| row.value).collect()
    };
    assert_eq!((values(100, 10).await, values(100, 1).await, values(20, 10).await), (vec![raw(7), raw(5)], vec![raw(7)], vec![raw(5)]));
    assert_eq!(store.let_leave(Leaving::Balances, at(20), None, at(40)).await.unwrap(), 3);
    assert_eq!(values(100, 10).await, [raw(7)]);
    assert_eq!(shown(two).await, Some((micros(9), at(12))), "the newest stays on the wallet");
}

/// What came and what went to another wallet of ours, up to a block: pending and settled money, not
/// what failed, left the chain, or could not be read.
async fn only_what_moved_counts_against_the_chain(ground: Ground) {
    let store = ground.open().await;
    let wallets = add_wallets(&store, 2).await;
    let make = |to: usize, number: u64, value: u128, recorded: Recorded, change: &dyn Fn(&mut Payment)| {
        let mut payment = Payment { value: raw(value), ..payment(wallets[to].address, number) };
        change(&mut payment);
        TransferChange { recorded, wallet: Some(wallets[to].id), ..new_transfer(payment, None) }
    };
    let transfers = vec![
        make(0, 10, 1, Recorded::Stray, &|_| ()),
        make(0, 11, 20, Recorded::Stray, &|payment| payment.settled = true),
        make(0, 12, 300, Recorded::Stray, &|payment| payment.standing = false),
        make(0, 12, 4_000, Recorded::Stray, &|payment| (payment.standing, payment.failed) = (false, true)),
        make(0, 12, 50_000, Recorded::Unreadable, &|_| ()),
        make(0, 13, 600_000, Recorded::Late, &|_| ()),
        make(1, 12, 7, Recorded::Own, &|payment| payment.from = wallets[0].address),
        make(1, 12, 80, Recorded::Own, &|payment| {
            (payment.from, payment.network) = (wallets[0].address, Network::new("ethereum"));
        }),
    ];
    done(&store, Changes { transfers, ..Changes::default() }).await;
    let rows = [store.wallet(wallets[0].id).await.unwrap().unwrap(), store.wallet(wallets[1].id).await.unwrap().unwrap()];
    let sums = store.movements(&tron(), &rows[..1], 12).await.unwrap();
    assert_eq!(sums, [(wallets[0].id, (raw(21), raw(7)))].into());
    let sums = store.movements(&tron(), &rows[..1], 13).await.unwrap();
    assert_eq!(sums[&wallets[0].id], (raw(600_021), raw(7)));
    assert!(store.movements(&tron(), &rows[..1], 9).await.unwrap().is_empty());
}

async fn a_second_reader_moves_from_where_it_was(ground: Ground) {
    let store = ground.open().await;
    let step = |from: Option<u64>, to: u64| Changes { reconciled: Some(Reconciled { network: tron(), from, to }), ..Changes::default() };
    assert_eq!(store.reconciled(&tron()).await.unwrap(), None);
    done(&store, step(None, 10)).await;
    refused(&store, step(None, 12)).await;
    refused(&store, step(Some(9), 12)).await;
    done(&store, step(Some(10), 12)).await;
    assert_eq!(store.reconciled(&tron()).await.unwrap(), Some(12));
    assert_eq!(store.reconciled(&Network::new("ethereum")).await.unwrap(), None);
    // Whoever lost stores nothing of what it found either.
    refused(&store, Changes { alerts: vec![new_alert(AlertKind::RereadDiffers, "block 11")], ..step(Some(10), 11) }).await;
    assert_eq!(ground.look("SELECT about FROM alerts").await, Vec::<String>::new());

    // A fork below its place takes it back: what stands there now was not compared. One above does not.
    let first = blocks(None, 5, 10);
    done(&store, Changes { cursor: Some(cursor(None, first.clone())), ..Changes::default() }).await;
    for (version, to, place) in [(1, 13, 12), (2, 9, 9)] {
        let back = Cursor { rewind_to: Some(to), tip: to, ..cursor(Some(version), Vec::new()) };
        done(&store, Changes { cursor: Some(back), ..Changes::default() }).await;
        assert_eq!(store.reconciled(&tron()).await.unwrap(), Some(place));
    }
    refused(&store, step(Some(12), 14)).await;
}

async fn a_job_is_one_processs_until_it_is_silent(ground: Ground) {
    let store = ground.open().await;
    let mut job = JobRow {
        id: JobId::new(at(0), id_bytes()),
        kind: "wallet_sync".into(),
        status: JobStatus::Running,
        done: 0,
        total: 7,
        detail: "{}".into(),
        created_at: at(0),
        changed_at: at(0),
    };
    assert!(store.add_job(&job).await.unwrap());
    let second = JobRow { id: JobId::new(at(1), id_bytes()), ..job.clone() };
    assert!(!store.add_job(&second).await.unwrap(), "one of a kind at a time");
    assert!(store.add_job(&JobRow { kind: "another".into(), id: JobId::new(at(3), id_bytes()), ..second.clone() }).await.unwrap());
    assert_eq!(store.running_job("wallet_sync").await.unwrap().map(|job| job.id), Some(job.id));
    let claim =
        async |who: &str, silent: i64, now: i64| store.claim_job("wallet_sync", who, at(silent), at(now)).await.unwrap().map(|job| job.id);
    assert!(!store.put_job(&job, "one").await.unwrap(), "nobody has claimed it");
    assert_eq!(claim("one", 0, 10).await, Some(job.id));
    assert_eq!(claim("two", 9, 11).await, None);
    (job.done, job.changed_at) = (3, at(50));
    assert!(store.put_job(&job, "one").await.unwrap());
    assert_eq!(claim("two", 50, 51).await, None);
    assert_eq!(claim("two", 51, 60).await, Some(job.id), "silent for too long: its process is gone");
    assert!(!store.put_job(&job, "one").await.unwrap(), "another has it now");
    (job.status, job.done, job.detail) = (JobStatus::Done, 7, r#"{"wallets":7}"#.into());
    assert!(store.put_job(&job, "two").await.unwrap());
    assert_eq!(claim("one", 99, 99).await, None);
    assert_eq!(store.running_job("wallet_sync").await.unwrap().map(|job| job.id), None);
    assert!(store.add_job(&JobRow { id: JobId::new(at(2), id_bytes()), ..second }).await.unwrap());
    let found = store.job(job.id).await.unwrap().unwrap();
    assert_eq!((found.status, found.done, found.total, found.detail), (JobStatus::Done, 7, 7, job.detail));
    assert_eq!((found.created_at, found.changed_at), (at(0), at(50)));
}

async fn a_row_of_a_queue_is_claimed_by_one(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    // By the database's clock: long due.
    let long_ago = Time::from_secs(1_000_000);
    let events: Vec<NewEvent> = (0..40)
        .map(|_| with_delivery(NewEvent { at: long_ago, ..new_event(order.id, EventType::Paid) }, "https://a.example/hook"))
        .collect();
    done(&store, Changes { events: events.clone(), ..Changes::default() }).await;
    let ids: Vec<String> = events.iter().map(|event| event.delivery.clone().unwrap().0.to_string()).collect();

    if store.is_shared() {
        assert!(store.claim(Queue::Deliveries, &ids, "nobody").await.unwrap().is_empty(), "whoever claims has to be there");
        for name in ["process 0", "process 1", "process 2", "process 3", "another"] {
            store.take_duties(&[presence(name)], name, Span::from_secs(600)).await.unwrap();
        }
    }
    let claims = (0..4).map(|number| {
        let (store, ids) = (store.clone(), ids.clone());
        tokio::spawn(async move { store.claim(Queue::Deliveries, &ids, &format!("process {number}")).await.unwrap() })
    });
    let claimed: Vec<_> = join_all(claims).await.into_iter().map(Result::unwrap).collect();
    if !store.is_shared() {
        // A file has one process: it asks nobody.
        assert!(claimed.iter().all(|claimed| claimed.len() == ids.len()));
        return;
    }
    assert_eq!(claimed.iter().map(HashSet::len).sum::<usize>(), ids.len(), "each has gone to one");
    let all: HashSet<&String> = claimed.iter().flatten().collect();
    assert_eq!(all.len(), ids.len());
    assert!(store.due_deliveries(at(0), &[], 100).await.unwrap().is_empty(), "what is claimed is not offered");

    // What one says who has no claim on it (any more) changes nothing but the list of tries.
    let owner = claimed.iter().position(|claimed| claimed.contains(&ids[0])).unwrap();
    let outcome = |number: usize, state: DeliveryState| DeliveryChange {
        id: events[0].delivery.clone().unwrap().0,
        claim: Some(format!("process {number}")),
        tries: 1,
        state,
        code: Some(200),
        error: None,
        at: at(1),
        url: "https://a.example/hook".into(),
        took: Span::from_millis(1),
        answer: None,
    };
    let status = async || ground.look(&format!("SELECT status FROM payment_webhooks WHERE id = '{}'", ids[0])).await;
    let tried = |number: usize, state| Changes { deliveries: vec![outcome(number, state)], ..Changes::default() };
    done(&store, tried((owner + 1) % 4, DeliveryState::Failed)).await;
    assert_eq!(status().await, ["due"]);
    done(&store, tried(owner, DeliveryState::Delivered)).await;
    assert_eq!(status().await, ["delivered"]);
    assert!(store.claim(Queue::Deliveries, &ids[..1], "another").await.unwrap().is_empty(), "it does not wait any more");

    // A claim ends with the presence of its process, and by itself.
    let (gone, left) = ((owner + 1) % 4, ids.len() - 1);
    store.leave_duties(&format!("process {gone}")).await.unwrap();
    assert_eq!(store.due_deliveries(at(0), &[], 100).await.unwrap().len(), claimed[gone].len());
    assert_eq!(store.claim(Queue::Deliveries, &ids, "another").await.unwrap(), claimed[gone]);
    ground.look("UPDATE payment_webhooks SET claimed_until = 0 RETURNING id").await;
    assert_eq!(store.claim(Queue::Deliveries, &ids, "another").await.unwrap().len(), left);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duty_has_one_holder_and_its_fence_keeps_out_the_one_before() {
    let ground = Ground::postgres();
    let store = ground.open().await;
    let duties = ["follow tron".to_owned(), "house".to_owned()];
    let take = async |holder: &str, term: u64| {
        let mut fences = store.take_duties(&duties, holder, Span::from_secs(term)).await.unwrap();
        fences.sort_by(|a, b| a.duty.cmp(&b.duty));
        fences.into_iter().map(|fence| fence.number).collect::<Vec<_>>()
    };
    assert_eq!(take("one", 600).await, [1, 1]);
    assert_eq!(take("two", 600).await, [0; 0]);
    assert_eq!(take("one", 600).await, [1, 1], "renewed");
    let write = async |number: i64| {
        let wallets = vec![new_wallet(&tron())];
        let fence = Some(Fence { duty: duties[0].clone(), number });
        store.commit(Changes { fence, new_wallets: wallets, ..Changes::default() }).await.unwrap()
    };
    assert_eq!(write(1).await, Commit::Done);
    // Not renewed in time: whoever asks next has it, and the one before writes nothing.
    assert_eq!(take("one", 0).await, [1, 1]);
    crate::wait::eventually("the term is over", async || match take("two", 600).await.as_slice() {
        [2, 2] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!((write(1).await, write(2).await), (Commit::Conflict, Commit::Done));
    assert_eq!(ground.look("SELECT CAST(COUNT(*) AS TEXT) FROM usdt_wallets").await, ["2"]);
    // Given up, it is free at once.
    store.leave_duties("two").await.unwrap();
    assert_eq!(take("one", 600).await, [3, 3]);

    // A take-over waits for what is being written on behalf of the duty.
    store.leave_duties("one").await.unwrap();
    let mut writer = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    sqlx::query("BEGIN").execute(&mut writer).await.unwrap();
    sqlx::query("SELECT fence FROM duties WHERE name = 'follow tron' AND fence = 3 FOR SHARE").fetch_one(&mut writer).await.unwrap();
    let taker = tokio::spawn({
        let (store, duties) = (store.clone(), duties.clone());
        async move { store.take_duties(&duties, "four", Span::from_secs(600)).await.unwrap() }
    });
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
    crate::wait::eventually("the take-over waits", async || {
        let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&mut writer).await.unwrap();
        if waiting > 0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    assert!(!taker.is_finished());
    sqlx::query("COMMIT").execute(&mut writer).await.unwrap();
    assert_eq!(taker.await.unwrap().len(), 2);
    assert_eq!((write(3).await, write(4).await), (Commit::Conflict, Commit::Done));
}

async fn a_message_is_taken_once_and_its_hints_come_due(ground: Ground) {
    let store = ground.open().await;
    let (first, second) = (hash(), hash());
    let due = async |second: i64| -> BTreeSet<Hash> {
        store.due_hints(at(second), 10).await.unwrap().into_iter().map(|hint| hint.hash).collect()
    };
    assert!(store.put_hints(&tron(), "own:1", &[first, second], at(10)).await.unwrap());
    assert!(!store.put_hints(&tron(), "own:1", &[hash()], at(11)).await.unwrap(), "said before");
    assert_eq!((due(9).await, due(10).await), (BTreeSet::new(), [first, second].into()));

    // One is looked for again later; another message that names it does not change that.
    let hint = store.due_hints(at(10), 10).await.unwrap().into_iter().find(|hint| hint.hash == first).unwrap();
    assert_eq!((hint.tries, &hint.network), (0, &tron()));
    store.put_hint(&hint.id, 1, Some(at(40)), at(12)).await.unwrap();
    assert!(store.put_hints(&tron(), "own:2", &[first], at(13)).await.unwrap());
    assert_eq!((due(39).await, due(40).await), ([second].into(), [first, second].into()));
    // What is done is looked at again when it is named again, as if for the first time.
    store.put_hint(&hint.id, 2, None, at(41)).await.unwrap();
    assert_eq!(due(100).await, [second].into());
    assert!(store.put_hints(&tron(), "own:3", &[first], at(50)).await.unwrap());
    let again = store.due_hints(at(50), 10).await.unwrap().into_iter().find(|hint| hint.hash == first).unwrap();
    assert_eq!(again.tries, 0);
    // The same id of another network's sender is another message; of many at once, one is first.
    assert!(store.put_hints(&Network::new("ethereum"), "own:1", &[first], at(51)).await.unwrap());
    assert_eq!(store.due_hints(at(60), 1).await.unwrap().len(), 1);
    let new = [hash()];
    let (name, at) = (tron(), at(52));
    let taken = join_all((0..20).map(|_| store.put_hints(&name, "own:4", &new, at))).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 1);
}

fn new_notice(event: &NewEvent, channel: Channel, second: i64) -> NewNotice {
    NewNotice {
        id: NoticeId::new(at(second), id_bytes()),
        topic: Topic::Paid,
        event: Some(event.id.to_string()),
        order: Some(event.subject.to_string()),
        channel,
        recipient: "ops@example.com".into(),
        language: Language::Chinese,
        subject: "订单".into(),
        body: "已支付\n".into(),
        at: at(second),
    }
}

async fn notices_are_made_once_and_come_due_by_channel(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    let mark = |seq, second| ToldMark { seq, digest_until: at(second) };
    assert_eq!((store.told_mark().await.unwrap(), store.events_horizon(0).await.unwrap()), (None, 0));
    let begin = || Changes { told: Some(Told { from: None, to: mark(0, 1) }), ..Changes::default() };
    done(&store, begin()).await;
    refused(&store, begin()).await;

    let event = new_event(order.id, EventType::Paid);
    done(&store, Changes { events: vec![event.clone()], ..Changes::default() }).await;
    let seq = store.events_horizon(0).await.unwrap();
    let (mail, chat) = (new_notice(&event, Channel::Smtp, 10), new_notice(&event, Channel::Telegram, 20));
    let step = |from, to, new_notices: &[&NewNotice]| {
        let new_notices = new_notices.iter().map(|notice| (*notice).clone()).collect();
        Changes { told: Some(Told { from: Some(from), to }), new_notices, ..Changes::default() }
    };
    refused(&store, step(mark(0, 2), mark(seq, 2), &[&mail])).await;
    refused(&store, step(mark(1, 1), mark(seq, 1), &[&mail])).await;
    assert!(store.notices(NoticeFilter::default(), 9).await.unwrap().is_empty(), "all or nothing");
    done(&store, step(mark(0, 1), mark(seq, 1), &[&mail, &chat])).await;
    refused(&store, step(mark(0, 1), mark(seq, 1), &[])).await;
    let twice = NewNotice { id: NoticeId::new(at(11), id_bytes()), ..mail.clone() };
    refused(&store, step(mark(seq, 1), mark(seq, 2), &[&twice])).await;
    assert_eq!(store.told_mark().await.unwrap(), Some(mark(seq, 1)));

    // Due by channel, and only from its time on.
    assert!(store.due_notices(Channel::Smtp, at(9), 9).await.unwrap().is_empty());
    let due = store.due_notices(Channel::Smtp, at(10), 9).await.unwrap();
    assert_eq!(due.len(), 1);
    let row = &due[0];
    assert_eq!(
        (row.id, row.topic, row.channel, row.language, row.status),
        (mail.id, Topic::Paid, Channel::Smtp, Language::Chinese, NoticeStatus::Due)
    );
    assert_eq!((&row.event, &row.order, &row.recipient), (&mail.event, &mail.order, &mail.recipient));
    assert_eq!((row.subject.as_str(), row.body.as_str(), row.tries, row.created_at, row.due_at), ("订单", "已支付\n", 0, at(10), at(10)));
    assert_eq!(store.next_notice_at(Channel::Telegram).await.unwrap(), Some(at(20)));
    assert_eq!(store.next_notice_at(Channel::Sms).await.unwrap(), None);

    let change = |id, tries, state, error: Option<&str>| {
        let change = NoticeChange { id, claim: None, tries, state, error: error.map(str::to_owned), at: at(30) };
        Changes { notices: vec![change], ..Changes::default() }
    };
    done(&store, change(mail.id, 1, NoticeState::Due(at(90)), Some("busy"))).await;
    assert!(store.due_notices(Channel::Smtp, at(89), 9).await.unwrap().is_empty());
    assert_eq!(store.next_notice_at(Channel::Smtp).await.unwrap(), Some(at(90)));
    done(&store, change(mail.id, 6, NoticeState::Failed, Some("gone"))).await;
    let row = store.notice(mail.id).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.tries, row.last_error.as_deref(), row.last_tried_at),
        (NoticeStatus::Failed, 6, Some("gone"), Some(at(30)))
    );
    done(&store, change(mail.id, 0, NoticeState::Again, None)).await;
    assert_eq!(store.due_notices(Channel::Smtp, at(30), 9).await.unwrap()[0].tries, 0);
    done(&store, change(mail.id, 1, NoticeState::Sent, None)).await;
    refused(&store, change(mail.id, 0, NoticeState::Again, None)).await;
    assert_eq!(store.next_notice_at(Channel::Smtp).await.unwrap(), None);

    // Listed, newest first, page by page.
    let list = async |filter: NoticeFilter| store.notices(filter, 1).await.unwrap().iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(list(NoticeFilter::default()).await, [chat.id]);
    assert_eq!(list(NoticeFilter { before: Some(chat.id.to_string()), ..NoticeFilter::default() }).await, [mail.id]);
    assert_eq!(list(NoticeFilter { status: Some(NoticeStatus::Sent), ..NoticeFilter::default() }).await, [mail.id]);
    assert_eq!(list(NoticeFilter { channel: Some(Channel::Telegram), ..NoticeFilter::default() }).await, [chat.id]);
    assert!(list(NoticeFilter { topic: Some(Topic::Expired), ..NoticeFilter::default() }).await.is_empty());
    assert_eq!(list(NoticeFilter { order: Some(order.id.to_string()), ..NoticeFilter::default() }).await, [chat.id]);

    // Forgotten after ninety days, but for what is still to be sent.
    let ninety_days = Span::from_secs(90 * 86_400);
    store.forget_old(at(10).plus(ninety_days)).await.unwrap();
    assert!(store.notice(mail.id).await.unwrap().is_some());
    store.forget_old(at(40).plus(ninety_days)).await.unwrap();
    assert!(store.notice(mail.id).await.unwrap().is_none() && store.notice(chat.id).await.unwrap().is_some());

    // A text is written over, and taken back.
    let text = |text: Option<&str>, second| {
        let text = text.map(|text| (text.to_owned(), "body".to_owned()));
        let change = TemplateChange { topic: Topic::Paid, channel: Channel::Smtp, language: Language::English, text, at: at(second) };
        Changes { templates: vec![change], ..Changes::default() }
    };
    let texts =
        async || -> Vec<(String, Time)> { store.templates().await.unwrap().into_iter().map(|row| (row.subject, row.changed_at)).collect() };
    done(&store, text(Some("one"), 1)).await;
    done(&store, text(Some("two"), 2)).await;
    assert_eq!(texts().await, [("two".to_owned(), at(2))]);
    done(&store, text(None, 3)).await;
    assert!(texts().await.is_empty());
}

/// On PostgreSQL a number is drawn before the commit, and one that was rolled back is missing for
/// ever: whoever lists waits for a writer and not for a number.
async fn no_event_is_told_before_one_with_a_smaller_number(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    let told =
        async |after: i64| -> Vec<String> { store.events_to_tell(after, 9).await.unwrap().into_iter().map(|event| event.id).collect() };
    let events: Vec<NewEvent> = (0..4).map(|_| new_event(order.id, EventType::Underpaid)).collect();
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    let commit = async |index: usize| done(&store, Changes { events: vec![events[index].clone()], ..Changes::default() }).await;
    commit(0).await;
    assert_eq!(told(0).await, ids[..1]);
    if store.engine() == Engine::Postgres {
        // Somebody else writes, slowly: what comes after it waits.
        let mut slow = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT pg_advisory_xact_lock_shared(8388346167610994292)").execute(&mut slow).await.unwrap();
        let insert = format!(
            "INSERT INTO events (id, kind, merchant_id, subject_id, at, body) VALUES ('{}', 'order.underpaid', '{}', '{}', 1, '{{}}')",
            ids[1],
            merchant_id(),
            order.id
        );
        sqlx::query(AssertSqlSafe(insert)).execute(&mut slow).await.unwrap();
        commit(2).await;
        assert!(store.events_to_tell(1, 9).await.is_err(), "nobody is told behind somebody who writes");
        sqlx::query("COMMIT").execute(&mut slow).await.unwrap();
        // A number that nobody ever shows.
        sqlx::query("SELECT nextval(pg_get_serial_sequence('events', 'seq'))").execute(&mut slow).await.unwrap();
        slow.close().await.unwrap();
    } else {
        commit(1).await;
        commit(2).await;
    }
    assert_eq!(told(1).await, ids[1..3]);
    commit(3).await;
    let after = store.events_to_tell(1, 9).await.unwrap().iter().filter(|event| ids[1..3].contains(&event.id)).map(|event| event.seq).max();
    assert_eq!(told(after.unwrap()).await, ids[3..]);
    assert!(told(store.events_horizon(0).await.unwrap()).await.is_empty());
}

async fn a_digest_counts_what_happened_in_its_time(ground: Ground) {
    let store = ground.open().await;
    let mut orders = Vec::new();
    for amount in [1_500_000, 2_250_000, 9_000_000] {
        let mut order = new_order();
        order.order.tally.confirmed = micros(amount);
        done(&store, Changes { new_orders: vec![order.clone()], ..Changes::default() }).await;
        done(&store, Changes { orders: vec![order_change(order.id, 1, order.order)], ..Changes::default() }).await;
        orders.push(order.id);
    }
    let event =
        |order: OrderId, kind, second| NewEvent { id: EventId::new(at(second), id_bytes()), at: at(second), ..new_event(order, kind) };
    let events = vec![
        event(orders[0], EventType::Paid, 99),
        event(orders[0], EventType::Paid, 100),
        event(orders[1], EventType::Paid, 150),
        event(orders[1], EventType::Overpaid, 150),
        event(orders[2], EventType::Expired, 199),
        event(orders[2], EventType::Paid, 200),
    ];
    done(&store, Changes { events, ..Changes::default() }).await;
    let counts = store.count_events(at(100), at(200)).await.unwrap();
    let counts: Vec<(&str, u64)> = counts.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(counts, [("order.expired", 1), ("order.overpaid", 1), ("order.paid", 2)]);
    assert_eq!(store.amount_paid(at(100), at(200)).await.unwrap(), micros(3_750_000));
    assert_eq!(store.amount_paid(at(300), at(400)).await.unwrap(), Amount::ZERO);
    assert_eq!(store.count_open_alerts().await.unwrap(), 0);
}

async fn a_rewind_forgets_the_branch(ground: Ground) {
    let store = ground.open().await;
    let first = blocks(None, 5, 6);
    done(&store, Changes { cursor: Some(Cursor { finalized: Some(6), ..cursor(None, first.clone()) }), ..Changes::default() }).await;
    let found = store.network(&tron()).await.unwrap().unwrap();
    assert_eq!((found.recent, found.peak, found.finalized, found.halted, found.version), (first.clone(), 10, Some(6), None, 1));
    // The same heights on top without going back are refused: a branch is never mixed with another.
    refused(&store, Changes { cursor: Some(cursor(Some(1), blocks(first.get(2), 8, 2))), ..Changes::default() }).await;

    let branch = blocks(first.get(2), 8, 2);
    let rewound =
        Cursor { rewind_to: Some(7), peak: 10, floor: Some(Depth::Final), halted: Some("why".into()), ..cursor(Some(1), branch.clone()) };
    done(&store, Changes { cursor: Some(rewound), ..Changes::default() }).await;
    let kept: Vec<BlockRef> = first[..3].iter().chain(&branch).copied().collect();
    let found = store.network(&tron()).await.unwrap().unwrap();
    assert_eq!((found.recent, found.peak, found.floor, found.halted.as_deref()), (kept.clone(), 10, Some(Depth::Final), Some("why")));

    let next = blocks(branch.last(), 10, 1);
    let forgetting = Cursor { forget_below: Some(7), ..cursor(Some(2), next.clone()) };
    done(&store, Changes { cursor: Some(forgetting), ..Changes::default() }).await;
    let kept: Vec<BlockRef> = kept[2..].iter().chain(&next).copied().collect();
    assert_eq!(store.network(&tron()).await.unwrap().unwrap().recent, kept);
    // Back without anything new.
    let back = Cursor { rewind_to: Some(8), tip: 8, ..cursor(Some(3), Vec::new()) };
    done(&store, Changes { cursor: Some(back), ..Changes::default() }).await;
    assert_eq!(store.network(&tron()).await.unwrap().unwrap().recent, kept[..2]);
}

async fn a_hundred_orders_at_once_lease_a_hundred_wallets(ground: Ground) {
    const ORDERS: usize = 100;
    let store = ground.open().await;
    add_wallets(&store, ORDERS).await;
    let tasks = (0..ORDERS).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let order = new_order();
            let mut conflicts = 0_usize;
            loop {
                let free = store.free_wallets(&tron(), 8).await.unwrap();
                // Each reaches into the same few that come first.
                let wallet = &free[n % free.len()];
                let lease = Lease {
                    id: LeaseId::new(at(1), id_bytes()),
                    order: order.id,
                    network: tron(),
                    wallet: wallet.id,
                    address: wallet.address,
                    from: 0,
                    to: None,
                };
                let changes = Changes {
                    new_orders: vec![order.clone()],
                    wallets: vec![lend(wallet.id, wallet.version, order.id)],
                    new_leases: vec![NewLease {
                        lease,
                        address_text: wallet.address_text.clone(),
                        tag: wallet.tag.clone(),
                        late_until: at(1_500),
                        at: at(1),
                    }],
                    events: vec![new_event(order.id, EventType::Pending)],
                    ..Changes::default()
                };
                match store.commit(changes).await.unwrap() {
                    Commit::Done => return (order.id, conflicts),
                    Commit::Conflict => conflicts += 1,
                }
            }
        })
    });
    let (mut wallets, mut conflicts) = (BTreeSet::new(), 0);
    for leased in join_all(tasks).await {
        let (id, met) = leased.unwrap();
        conflicts += met;
        let order = store.order(id).await.unwrap().unwrap();
        assert_eq!(order.order.leases.len(), 1);
        assert!(wallets.insert(order.order.leases[0].wallet), "a wallet was lent twice");
        assert_eq!(store.order_events(id, 0).await.unwrap().len(), 1);
        assert_eq!(store.wallet(order.order.leases[0].wallet).await.unwrap().unwrap().order, Some(id));
    }
    assert_eq!(wallets.len(), ORDERS);
    assert!(conflicts > 0, "nobody was in anybody's way: this tested nothing");
    assert!(store.free_wallets(&tron(), 1).await.unwrap().is_empty());
}

async fn a_store_that_is_opened_again_has_everything(ground: Ground) {
    let store = ground.open().await;
    let wallet = add_wallets(&store, 1).await.remove(0);
    let order = new_order();
    let transfer = new_transfer(payment(wallet.address, 7), Some(order.id));
    let changes = Changes {
        cursor: Some(cursor(None, blocks(None, 5, 3))),
        new_orders: vec![order.clone()],
        wallets: vec![lend(wallet.id, 1, order.id)],
        new_leases: vec![new_lease(order.id, &wallet, 0)],
        transfers: vec![transfer.clone()],
        events: vec![with_delivery(new_event(order.id, EventType::Pending), "https://shop.example/")],
        answer: Some(answer("scope", "body")),
        ..Changes::default()
    };
    done(&store, changes).await;
    let whole = async |store: &Store| {
        let order: OrderRow = store.order(order.id).await.unwrap().unwrap();
        let network = store.network(&tron()).await.unwrap().unwrap();
        let events: Vec<(i64, String)> =
            store.order_events(order.id, 0).await.unwrap().into_iter().map(|event| (event.seq, event.id)).collect();
        let due = store.due_deliveries(at(99), &[], 9).await.unwrap();
        (
            format!("{:?}", (order, store.wallet(wallet.id).await.unwrap())),
            format!("{:?}", (network, events, due)),
            store.addresses_since(&tron(), 0).await.unwrap(),
            store.kept_answer("scope").await.unwrap().map(|kept| kept.body),
        )
    };
    let before = whole(&store).await;
    // While the first is still open, as another process; after it was dropped; after it was closed.
    let second = ground.try_open(Migrate::No).await.unwrap();
    assert_eq!(whole(&second).await, before);
    drop(store);
    add_wallets(&second, 1).await;
    second.close().await;
    let third = ground.open().await;
    assert_eq!(whole(&third).await.0, before.0);
    assert_eq!(third.addresses_since(&tron(), 0).await.unwrap().1.len(), 2);
    // Events go on counting where they were.
    done(&third, Changes { events: vec![new_event(order.id, EventType::Paid)], ..Changes::default() }).await;
    let events = third.order_events(order.id, 0).await.unwrap();
    assert!(events[0].seq < events[1].seq);
    third.ping().await.unwrap();
}

async fn a_database_is_not_migrated_unasked(ground: Ground) {
    let refusal = async || match ground.try_open(Migrate::No).await {
        Err(StoreError::Open(why)) => why,
        Err(other) => panic!("refused with {other}"),
        Ok(_) => panic!("an empty database was opened"),
    };
    for _ in 0..2 {
        let why = refusal().await;
        assert!(why.contains("tidegate migrate"), "{why}");
    }
    ground.open().await.close().await;
    ground.try_open(Migrate::No).await.unwrap().close().await;

    // A database of a newer binary is refused by an older one, whoever asks.
    ground.look("INSERT INTO schema_versions (version, name) VALUES (9999, 'from the future')").await;
    for migrate in [Migrate::No, Migrate::Yes] {
        let why = ground.try_open(migrate).await.err().unwrap().to_string();
        assert!(why.contains("9999") && why.contains("newer tidegate"), "{why}");
    }
}

async fn two_that_open_an_empty_database_at_once_both_may(ground: Ground) {
    let openings = join_all((0..8).map(|_| ground.try_open(Migrate::Yes))).await;
    let stores: Vec<Store> = openings.into_iter().map(|opened| opened.unwrap()).collect();
    assert_eq!(
        ground.look("SELECT name FROM schema_versions").await,
        ["first", "safe", "chains", "orders", "notices", "people", "doors", "endpoints", "instances", "growth", "leases_by_height"]
    );
    // Each of them writes, and all read the same.
    for store in &stores {
        add_wallets(store, 2).await;
    }
    for store in &stores {
        assert_eq!(store.addresses_since(&tron(), 0).await.unwrap().1.len(), 2 * stores.len());
    }
}

async fn settings_merchants_and_keys_are_kept(ground: Ground) {
    let store = ground.open().await;
    assert_eq!(store.setting("salt").await.unwrap(), None);
    let race = join_all((0..8).map(|n| {
        let store = store.clone();
        async move { store.setting_or("salt", &format!("salt {n}")).await.unwrap() }
    }))
    .await;
    assert!(race.iter().all(|found| *found == race[0]), "two salts: {race:?}");
    assert_eq!(store.setting("salt").await.unwrap().as_ref(), race.first());

    let merchant = |name: &str| new_merchant(name, Some("https://shop.example/hook"));
    let main = merchant("main");
    let add = async |merchant: NewMerchant| store.commit(Changes { new_merchants: vec![merchant], ..Changes::default() }).await.unwrap();
    assert_eq!(add(main.clone()).await, Commit::Done);
    assert_eq!(add(merchant("main")).await, Commit::Conflict, "the name is taken");
    assert_eq!(add(merchant("second")).await, Commit::Done);
    let found = store.merchants().await.unwrap();
    assert_eq!((found.len(), found[0].id, found[0].webhook_url.clone()), (2, main.id, main.webhook_url.clone()));

    let key = NewApiKey {
        id: KeyId::new(at(0), id_bytes()),
        merchant: main.id,
        secret_hash: "hash".into(),
        scopes: "orders:read orders:write".into(),
        livemode: true,
        name: Some("shop backend".into()),
        expires_at: Some(at(900)),
        allowed_ips: "10.0.0.0/8 192.0.2.1/32".into(),
        created_at: at(1),
    };
    let add = async |key: NewApiKey| store.commit(Changes { new_api_keys: vec![key], ..Changes::default() }).await.unwrap();
    assert_eq!(add(key.clone()).await, Commit::Done);
    assert_eq!(add(NewApiKey { id: KeyId::new(at(0), id_bytes()), ..key.clone() }).await, Commit::Conflict);
    let found = store.api_key("hash").await.unwrap().unwrap();
    assert_eq!((found.id, found.merchant, found.scopes), (key.id, main.id, key.scopes.clone()));
    assert_eq!((found.name, found.expires_at, found.allowed_ips), (key.name.clone(), key.expires_at, key.allowed_ips.clone()));
    assert_eq!((found.livemode, found.last_used_at, found.revoked_at), (true, None, None));
    assert!(store.api_key("another hash").await.unwrap().is_none());

    store.key_used(key.id, at(5)).await.unwrap();
    store.key_used(key.id, at(4)).await.unwrap();
    let bare = NewApiKey {
        id: KeyId::new(at(1), id_bytes()),
        merchant: MerchantId::new(at(0), id_bytes()),
        secret_hash: "bare".into(),
        name: None,
        expires_at: None,
        allowed_ips: String::new(),
        ..key.clone()
    };
    assert_eq!(add(bare.clone()).await, Commit::Done);
    let page = store.api_keys(None, None, 10).await.unwrap();
    assert_eq!(page.iter().map(|row| (row.id, row.last_used_at)).collect::<Vec<_>>(), [(bare.id, None), (key.id, Some(at(5)))]);
    let ids = |rows: Vec<tidegate::store::ApiKeyRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(store.api_keys(Some(main.id), None, 10).await.unwrap()), [key.id]);
    assert_eq!(ids(store.api_keys(None, Some(bare.id.to_string()), 10).await.unwrap()), [key.id]);

    let revoke = Changes { people: vec![PeopleChange::RevokeKey { id: key.id, at: at(9) }], ..Changes::default() };
    done(&store, revoke.clone()).await;
    refused(&store, revoke).await;
    assert!(store.api_key("hash").await.unwrap().is_none(), "a key that was revoked is none");
    assert_eq!(store.api_key_by_id(key.id).await.unwrap().unwrap().revoked_at, Some(at(9)));
    assert!(store.api_key("bare").await.unwrap().is_some());
}

fn new_user(email: &str, role: Role) -> NewUser {
    NewUser { id: UserId::new(at(1), id_bytes()), email: email.into(), role, password_hash: "$argon2id$".into(), created_at: at(1) }
}

async fn add_user(store: &Store, email: &str, role: Role) -> NewUser {
    let user = new_user(email, role);
    done(store, people(vec![PeopleChange::NewUser(user.clone())])).await;
    user
}

fn people(people: Vec<PeopleChange>) -> Changes {
    Changes { people, ..Changes::default() }
}

fn user_change(id: UserId, version: i64, kind: UserMove) -> Changes {
    people(vec![PeopleChange::User { id, version, kind }])
}

async fn users_change_from_where_they_were_read(ground: Ground) {
    let store = ground.open().await;
    let support = add_user(&store, "support@shop.example", Role::Support).await;
    let owner = add_user(&store, "owner@shop.example", Role::Owner).await;
    refused(&store, people(vec![PeopleChange::NewUser(new_user("owner@shop.example", Role::Viewer))])).await;
    let found = store.user_by_email("owner@shop.example").await.unwrap().unwrap();
    assert_eq!((found.id, found.role, found.status, found.version), (owner.id, Role::Owner, UserStatus::Active, 1));
    assert_eq!((found.totp.is_none(), found.last_login_at, found.password_hash.expose()), (true, None, "$argon2id$"));
    assert!(store.user_by_email("nobody@shop.example").await.unwrap().is_none());
    let ids = |rows: Vec<tidegate::store::UserRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(store.users(None, 10).await.unwrap()), [owner.id, support.id]);
    assert_eq!(ids(store.users(Some(owner.id.to_string()), 10).await.unwrap()), [support.id]);

    done(&store, user_change(support.id, 1, UserMove::Put { role: Role::Operator, status: UserStatus::Disabled })).await;
    refused(&store, user_change(support.id, 1, UserMove::Password("other".into()))).await;
    done(&store, user_change(support.id, 2, UserMove::Password("other".into()))).await;
    let found = store.user(support.id).await.unwrap().unwrap();
    assert_eq!((found.role, found.status, found.password_hash.expose(), found.version), (Role::Operator, UserStatus::Disabled, "other", 3));
    done(&store, user_change(support.id, 3, UserMove::Remove)).await;
    assert!(store.user(support.id).await.unwrap().is_none());
}

async fn an_owner_is_always_left(ground: Ground) {
    let store = ground.open().await;
    // Nobody was an owner: nothing is lost by a change.
    let viewer = add_user(&store, "viewer@shop.example", Role::Viewer).await;
    done(&store, user_change(viewer.id, 1, UserMove::Put { role: Role::Support, status: UserStatus::Active })).await;
    let one = add_user(&store, "one@shop.example", Role::Owner).await;
    assert_eq!(store.owners_besides(one.id).await.unwrap(), 0);
    refused(&store, user_change(one.id, 1, UserMove::Remove)).await;
    refused(&store, user_change(one.id, 1, UserMove::Put { role: Role::Operator, status: UserStatus::Active })).await;
    refused(&store, user_change(one.id, 1, UserMove::Put { role: Role::Owner, status: UserStatus::Disabled })).await;
    assert!(store.user(one.id).await.unwrap().is_some());

    // Two owners who remove each other at the same moment, again and again: one is left.
    for round in 0..10 {
        let other = add_user(&store, &format!("other{round}@shop.example"), Role::Owner).await;
        let third = add_user(&store, &format!("third{round}@shop.example"), Role::Owner).await;
        let version = store.user(one.id).await.unwrap().unwrap().version;
        done(&store, user_change(one.id, version, UserMove::Put { role: Role::Owner, status: UserStatus::Active })).await;
        let gone = [(one.id, version + 1), (other.id, 1), (third.id, 1)].map(|(id, version)| {
            let store = store.clone();
            let demoted = UserMove::Put { role: Role::Viewer, status: UserStatus::Active };
            tokio::spawn(async move { store.commit(user_change(id, version, demoted)).await.unwrap() })
        });
        let gone = join_all(gone).await.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count();
        let left = store.users(None, 100).await.unwrap().into_iter().filter(|row| row.role == Role::Owner).count();
        assert!(left >= 1 && gone + left == 3, "round {round}: {gone} went, {left} are left");
        let row = store.user(one.id).await.unwrap().unwrap();
        done(&store, user_change(one.id, row.version, UserMove::Put { role: Role::Owner, status: UserStatus::Active })).await;
        for row in store.users(None, 100).await.unwrap().into_iter().filter(|row| row.id != one.id && row.role == Role::Owner) {
            done(&store, user_change(row.id, row.version, UserMove::Remove)).await;
        }
    }
}

async fn a_code_is_used_once(ground: Ground) {
    let store = ground.open().await;
    let user = add_user(&store, "owner@shop.example", Role::Owner).await;
    let used = |step| people(vec![PeopleChange::TotpUsed { user: user.id, step }]);
    refused(&store, used(5)).await;
    done(&store, user_change(user.id, 1, UserMove::OfferTotp("v1.aaaaaaaa.sealed".into()))).await;
    refused(&store, used(5)).await;
    let found = store.user(user.id).await.unwrap().unwrap();
    assert!(found.second_factor().is_none() && found.totp.is_some(), "offered, not in use");
    done(&store, user_change(user.id, 2, UserMove::ConfirmTotp(10))).await;
    let found = store.user(user.id).await.unwrap().unwrap();
    assert_eq!(found.second_factor().map(|totp| (totp.secret.as_str(), totp.step)), Some(("v1.aaaaaaaa.sealed", 10)));
    refused(&store, user_change(user.id, 3, UserMove::OfferTotp("v1.aaaaaaaa.another".into()))).await;
    refused(&store, used(9)).await;
    refused(&store, used(10)).await;
    let race = join_all((0..8).map(|_| store.commit(used(11)))).await;
    assert_eq!(race.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Commit::Done).count(), 1, "of many at once one");
    assert_eq!(store.user(user.id).await.unwrap().unwrap().version, 3, "a code does not make what was read old");

    let found = store.sealed_by_others(SealedIn::TotpSecret, "bbbbbbbb", "", 10).await.unwrap();
    assert_eq!(found, [(user.id.to_string(), "v1.aaaaaaaa.sealed".to_owned())]);
    done(&store, user_change(user.id, 3, UserMove::DropTotp)).await;
    assert!(store.user(user.id).await.unwrap().unwrap().totp.is_none());
    assert_eq!(store.sealed_by_others(SealedIn::TotpSecret, "bbbbbbbb", "", 10).await.unwrap(), []);
}

async fn sessions_begin_are_listed_and_end(ground: Ground) {
    let store = ground.open().await;
    let user = add_user(&store, "owner@shop.example", Role::Owner).await;
    let other = add_user(&store, "viewer@shop.example", Role::Viewer).await;
    let session = |of: &NewUser, n: i64| NewSession {
        id: SessionId::new(at(n), id_bytes()),
        user: of.id,
        token_hash: format!("hash {} {n}", of.id),
        address: format!("192.0.2.{n}"),
        agent: "a browser".into(),
        created_at: at(n),
        expires_at: at(1_000 + n),
    };
    let sessions: Vec<NewSession> = (1..=4).map(|n| session(&user, n)).collect();
    for new in sessions.iter().chain([&session(&other, 9)]) {
        done(&store, people(vec![PeopleChange::NewSession(new.clone())])).await;
    }
    assert_eq!(store.user(user.id).await.unwrap().unwrap().last_login_at, Some(at(4)));
    let found = store.session(&sessions[1].token_hash, at(5)).await.unwrap().unwrap();
    assert_eq!((found.id, found.user, found.address, found.agent), (sessions[1].id, user.id, "192.0.2.2".into(), "a browser".into()));
    assert_eq!((found.created_at, found.seen_at, found.expires_at), (at(2), at(2), at(1_002)));
    assert!(store.session(&sessions[1].token_hash, at(1_002)).await.unwrap().is_none(), "its time is over");
    assert!(store.session("another hash", at(5)).await.unwrap().is_none());
    store.session_seen(sessions[1].id, at(7)).await.unwrap();
    store.session_seen(sessions[1].id, at(6)).await.unwrap();
    assert_eq!(store.session(&sessions[1].token_hash, at(8)).await.unwrap().unwrap().seen_at, at(7));

    let listed = async |now, before: Option<String>| {
        let rows = store.sessions(user.id, now, before, 10).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(|n| sessions[n].id);
    assert_eq!(listed(at(5), None).await, [d, c, b, a]);
    assert_eq!(listed(at(5), Some(c.to_string())).await, [b, a]);
    assert_eq!(listed(at(1_002), None).await, [d, c]);

    let end = |of: UserId| people(vec![PeopleChange::EndSession { id: b, user: of, at: at(8) }]);
    refused(&store, end(other.id)).await;
    done(&store, end(user.id)).await;
    refused(&store, end(user.id)).await;
    assert!(store.session(&sessions[1].token_hash, at(9)).await.unwrap().is_none());
    done(&store, people(vec![PeopleChange::EndSessions { user: user.id, but: Some(c), at: at(8) }])).await;
    assert_eq!(listed(at(9), None).await, [c]);
    assert!(store.session(&session(&other, 9).token_hash, at(9)).await.unwrap().is_some(), "others are not concerned");

    // Where somebody came in from is known after the session ended, and forgotten later.
    assert!(store.came_from(user.id, "192.0.2.2").await.unwrap());
    assert!(!store.came_from(other.id, "192.0.2.2").await.unwrap());
    store.forget_old(at(31 * 86_400)).await.unwrap();
    assert!(!store.came_from(user.id, "192.0.2.2").await.unwrap());

    // Nobody comes in who was kept out a moment ago, and nobody stays who is gone.
    done(&store, user_change(other.id, 1, UserMove::Put { role: Role::Viewer, status: UserStatus::Disabled })).await;
    refused(&store, people(vec![PeopleChange::NewSession(session(&other, 10))])).await;
    done(&store, user_change(other.id, 2, UserMove::Remove)).await;
    assert!(store.sessions(other.id, at(9), None, 10).await.unwrap().is_empty());
}

async fn a_webhook_secret_is_replaced_where_it_stands(ground: Ground) {
    let store = ground.open().await;
    let main = new_merchant("main", None);
    done(&store, Changes { new_merchants: vec![main.clone(), new_merchant("second", None)], ..Changes::default() }).await;
    let replace = |old: &str, new: &str, until| {
        people(vec![PeopleChange::ReplaceSecret { merchant: main.id, old: old.into(), new: new.into(), until }])
    };
    let secrets = async || {
        let row = store.merchants().await.unwrap().into_iter().find(|row| row.id == main.id).unwrap();
        (row.webhook_secret, row.previous_secret)
    };
    assert_eq!(secrets().await, ("sealed".into(), None));
    refused(&store, replace("another", "v1.aaaaaaaa.new", at(100))).await;
    done(&store, replace("sealed", "v1.aaaaaaaa.new", at(100))).await;
    assert_eq!(secrets().await, ("v1.aaaaaaaa.new".into(), Some(("sealed".into(), at(100)))));
    done(&store, replace("v1.aaaaaaaa.new", "v1.aaaaaaaa.newer", at(200))).await;
    assert_eq!(secrets().await, ("v1.aaaaaaaa.newer".into(), Some(("v1.aaaaaaaa.new".into(), at(200)))));
    let sealed = store.sealed_by_others(SealedIn::PreviousSecret, "bbbbbbbb", "", 10).await.unwrap();
    assert_eq!(sealed, [(main.id.to_string(), "v1.aaaaaaaa.new".to_owned())]);
    store.forget_old(at(199)).await.unwrap();
    assert!(secrets().await.1.is_some());
    store.forget_old(at(201)).await.unwrap();
    assert_eq!(secrets().await, ("v1.aaaaaaaa.newer".into(), None));

    refused(&store, people(vec![PeopleChange::RenameMerchant { id: main.id, name: "second".into() }])).await;
    done(&store, people(vec![PeopleChange::RenameMerchant { id: main.id, name: "first".into() }])).await;
    let page = store.merchant_page(None, 10).await.unwrap();
    assert_eq!(page.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["second", "first"]);
    assert_eq!(store.merchant_page(Some(page[0].id.to_string()), 10).await.unwrap().len(), 1);
}

fn new_endpoint(merchant: MerchantId, url: &str, events: Option<&str>) -> NewEndpoint {
    NewEndpoint {
        id: EndpointId::new(at(1), id_bytes()),
        merchant,
        terms: EndpointTerms {
            url: url.into(),
            description: Some("of the tests".into()),
            events: events.map(str::to_owned),
            state: EndpointState::Enabled,
        },
        secret: "v1.aaaaaaaa.one".into(),
        created_at: at(1),
    }
}

fn endpoints(changes: Vec<EndpointChange>) -> Changes {
    Changes { endpoints: changes, ..Changes::default() }
}

/// What is due of an event: where to, and to which endpoint.
async fn due_of(store: &Store, event: &NewEvent) -> BTreeSet<(String, Option<EndpointId>)> {
    let due = store.due_deliveries(at(9_999), &[], 1_000).await.unwrap();
    due.into_iter().filter(|delivery| delivery.event_id == event.id.to_string()).map(|delivery| (delivery.url, delivery.endpoint)).collect()
}

async fn an_event_goes_to_every_endpoint_that_takes_it(ground: Ground) {
    let store = ground.open().await;
    let order = add_order(&store).await;
    let all = new_endpoint(merchant_id(), "https://all.example/", None);
    let paid = new_endpoint(merchant_id(), "https://paid.example/", Some("order.expired order.paid"));
    let mut off = new_endpoint(merchant_id(), "https://off.example/", None);
    off.terms.state = EndpointState::Disabled;
    let other = new_endpoint(MerchantId::new(at(0), [8; 10]), "https://other.example/", None);
    for endpoint in [&all, &paid, &off, &other] {
        done(&store, endpoints(vec![EndpointChange::New(endpoint.clone())])).await;
    }
    let to = |endpoint: &NewEndpoint| (endpoint.terms.url.clone(), Some(endpoint.id));

    // Two of one commit, one of them with a URL of its own beside.
    let pending = with_delivery(new_event(order.id, EventType::Pending), "https://shop.example/");
    let settled = new_event(order.id, EventType::Paid);
    done(&store, Changes { events: vec![pending.clone(), settled.clone()], ..Changes::default() }).await;
    assert_eq!(due_of(&store, &pending).await, [("https://shop.example/".to_owned(), None), to(&all)].into());
    assert_eq!(due_of(&store, &settled).await, [to(&all), to(&paid)].into());
    let foreign = NewEvent { merchant: other.merchant, ..new_event(order.id, EventType::Paid) };
    done(&store, Changes { events: vec![foreign.clone()], ..Changes::default() }).await;
    assert_eq!(due_of(&store, &foreign).await, [to(&other)].into());
    let of_all = store.deliveries(DeliveryFilter { endpoint: Some(all.id), ..DeliveryFilter::default() }, 10).await.unwrap();
    let told: Vec<_> = of_all.iter().map(|delivery| (delivery.endpoint, delivery.event_id.clone())).collect();
    assert_eq!(told, [(Some(all.id), settled.id.to_string()), (Some(all.id), pending.id.to_string())]);

    // An event that is refused goes nowhere.
    refused(&store, Changes { events: vec![settled.clone()], ..Changes::default() }).await;
    assert_eq!(due_of(&store, &settled).await.len(), 2);

    // Alerts are told to the owner's, but for the one that a receiver accepts nothing.
    let owner = new_merchant("main", None);
    done(&store, Changes { new_merchants: vec![owner.clone()], ..Changes::default() }).await;
    let ops = new_endpoint(owner.id, "https://ops.example/", Some("wallet.alert"));
    done(&store, endpoints(vec![EndpointChange::New(ops.clone())])).await;
    let raise = |kind| Changes { alerts: vec![new_alert(kind, "tx 1")], ..Changes::default() };
    done(&store, raise(AlertKind::WebhookFailed)).await;
    done(&store, raise(AlertKind::PoolLow)).await;
    let of_ops = store.deliveries(DeliveryFilter { endpoint: Some(ops.id), ..DeliveryFilter::default() }, 10).await.unwrap();
    assert_eq!(of_ops.iter().map(|delivery| delivery.body.contains("pool_low")).collect::<Vec<_>>(), [true]);
}

async fn endpoints_change_from_where_they_were_read(ground: Ground) {
    let store = ground.open().await;
    let made = new_endpoint(merchant_id(), "https://one.example/", None);
    done(&store, endpoints(vec![EndpointChange::New(made.clone())])).await;
    let row = store.endpoint(made.id).await.unwrap().unwrap();
    assert_eq!((row.merchant, &row.terms, row.secret.as_str(), row.version), (merchant_id(), &made.terms, "v1.aaaaaaaa.one", 1));
    let to = EndpointTerms {
        url: "https://two.example/".into(),
        description: None,
        events: Some("order.paid".into()),
        state: EndpointState::Disabled,
    };
    let put = |version| endpoints(vec![EndpointChange::Put { id: made.id, version, to: to.clone() }]);
    refused(&store, put(2)).await;
    done(&store, put(1)).await;
    refused(&store, put(1)).await;
    assert_eq!(store.endpoint(made.id).await.unwrap().unwrap().terms, to);

    let replace = |old: &str, new: &str, until| {
        endpoints(vec![EndpointChange::ReplaceSecret { id: made.id, old: old.into(), new: new.into(), until }])
    };
    let secrets = async || {
        let row = store.endpoint(made.id).await.unwrap().unwrap();
        (row.secret, row.previous_secret)
    };
    refused(&store, replace("another", "v1.aaaaaaaa.two", at(100))).await;
    done(&store, replace("v1.aaaaaaaa.one", "v1.aaaaaaaa.two", at(100))).await;
    assert_eq!(secrets().await, ("v1.aaaaaaaa.two".into(), Some(("v1.aaaaaaaa.one".into(), at(100)))));
    // Both are found by whoever changes the master key.
    for (place, old) in [(SealedIn::EndpointSecret, "v1.aaaaaaaa.two"), (SealedIn::PreviousEndpointSecret, "v1.aaaaaaaa.one")] {
        let found = store.sealed_by_others(place, "bbbbbbbb", "", 10).await.unwrap();
        assert_eq!(found, [(made.id.to_string(), old.to_owned())]);
        let reseal = Reseal { place, id: made.id.to_string(), old: old.into(), new: old.replace("aaaaaaaa", "bbbbbbbb") };
        done(&store, Changes { reseals: vec![reseal], ..Changes::default() }).await;
        assert!(store.sealed_by_others(place, "bbbbbbbb", "", 10).await.unwrap().is_empty());
    }
    store.forget_old(at(101)).await.unwrap();
    assert_eq!(secrets().await, ("v1.bbbbbbbb.two".into(), None));

    // As many as there may be, and not one more, whoever else adds at the same moment.
    let adding = join_all((0..ENDPOINTS_MAX + 3).map(|n| {
        let (store, endpoint) = (store.clone(), new_endpoint(merchant_id(), &format!("https://{n}.example/"), None));
        async move { store.commit(endpoints(vec![EndpointChange::New(endpoint)])).await.unwrap() }
    }))
    .await;
    assert_eq!(adding.iter().filter(|outcome| **outcome == Commit::Done).count(), ENDPOINTS_MAX - 1);
    let page = store.endpoints(merchant_id(), None, 100).await.unwrap();
    assert!(page.len() == ENDPOINTS_MAX && page.is_sorted_by(|a, b| a.id > b.id), "{page:?}");
    let rest = store.endpoints(merchant_id(), Some(page[9].id.to_string()), 100).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.id).collect::<Vec<_>>(), page[10..].iter().map(|row| row.id).collect::<Vec<_>>());
    let elsewhere = new_endpoint(MerchantId::new(at(0), [8; 10]), "https://other.example/", None);
    done(&store, endpoints(vec![EndpointChange::New(elsewhere)])).await;
}

async fn a_removed_endpoint_takes_nothing_but_the_notice_of_it(ground: Ground) {
    let store = ground.open().await;
    let owner = new_merchant("main", None);
    done(&store, Changes { new_merchants: vec![owner.clone()], ..Changes::default() }).await;
    let order = add_order(&store).await;
    let gone = new_endpoint(owner.id, "https://gone.example/", None);
    let stays = new_endpoint(owner.id, "https://stays.example/", None);
    done(&store, endpoints(vec![EndpointChange::New(gone.clone()), EndpointChange::New(stays.clone())])).await;
    let event = |kind| NewEvent { merchant: owner.id, ..new_event(order.id, kind) };
    let (before, taken, after) = (event(EventType::Pending), event(EventType::Confirming), event(EventType::Paid));
    done(&store, Changes { events: vec![before.clone(), taken.clone()], ..Changes::default() }).await;
    // One that was taken is being sent again.
    let of_taken = |endpoint| DeliveryFilter { endpoint: Some(endpoint), event: Some(taken.id.to_string()), ..DeliveryFilter::default() };
    let sent = store.deliveries(of_taken(gone.id), 1).await.unwrap().remove(0);
    let outcome = DeliveryChange {
        id: sent.id,
        claim: None,
        tries: 1,
        state: DeliveryState::Delivered,
        code: Some(204),
        error: None,
        at: at(2),
        url: sent.url.clone(),
        took: Span::ZERO,
        answer: None,
    };
    done(&store, Changes { deliveries: vec![outcome], ..Changes::default() }).await;
    assert_eq!(store.send_again(&[sent.id], at(2)).await.unwrap(), 1);

    let remove = || Changes {
        endpoints: vec![EndpointChange::Remove { id: gone.id, at: at(3) }],
        alerts: vec![new_alert(AlertKind::CredentialsChanged, "it is removed")],
        ..Changes::default()
    };
    done(&store, remove()).await;
    refused(&store, remove()).await;
    done(&store, Changes { events: vec![after.clone()], ..Changes::default() }).await;
    assert_eq!(store.endpoints(owner.id, None, 10).await.unwrap().iter().map(|row| row.id).collect::<Vec<_>>(), [stays.id]);
    let of_gone = store.deliveries(DeliveryFilter { endpoint: Some(gone.id), ..DeliveryFilter::default() }, 10).await.unwrap();
    let told: BTreeSet<(String, String)> = of_gone.iter().map(|row| (row.kind.clone(), format!("{:?}", row.state))).collect();
    let expected = [("order.pending", "Failed"), ("order.confirming", "Delivered"), ("wallet.alert", &format!("Due({:?})", at(3)))];
    assert_eq!(told, expected.map(|(kind, state)| (kind.to_owned(), state.to_owned())).into());
    let failed = of_gone.iter().find(|row| row.kind == "order.pending").unwrap();
    assert_eq!((failed.last_error.as_deref(), store.send_again(&[failed.id], at(4)).await.unwrap()), (Some("the endpoint was removed"), 0));
    for event in [&before, &after] {
        assert_eq!(due_of(&store, event).await, [(stays.terms.url.clone(), Some(stays.id))].into());
    }

    // Its row is kept as long as the notice may be tried, and a place is free at once.
    store.forget_old(at(3).plus(REMOVED_KEPT)).await.unwrap();
    assert_eq!(store.endpoint(gone.id).await.unwrap().unwrap().removed_at, Some(at(3)));
    store.forget_old(at(4).plus(REMOVED_KEPT)).await.unwrap();
    assert!(store.endpoint(gone.id).await.unwrap().is_none());
}

/// On PostgreSQL who adds an endpoint and who writes events wait for each other, so that what commits
/// after the endpoint is there goes to it.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_there_for_whatever_commits_after_it() {
    let ground = Ground::postgres();
    let store = ground.open().await;
    let order = add_order(&store).await;
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut watcher = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    let mut one_waits = async |what: &str| {
        crate::wait::eventually(what, async || {
            let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(waits)).fetch_one(&mut watcher).await.unwrap();
            if waiting == 1 { Ok(()) } else { Err(waiting) }
        })
        .await;
    };
    let mut other = sqlx::AnyConnection::connect(&ground.url).await.unwrap();
    const LOCK: i64 = 8_388_346_167_610_994_292;

    // Somebody writes an event: the endpoint comes after it.
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(LOCK).execute(&mut *transaction).await.unwrap();
    let endpoint = new_endpoint(merchant_id(), "https://all.example/", None);
    let adding = tokio::spawn({
        let (store, endpoint) = (store.clone(), endpoint.clone());
        async move { done(&store, endpoints(vec![EndpointChange::New(endpoint)])).await }
    });
    one_waits("the endpoint waits for the event").await;
    transaction.commit().await.unwrap();
    adding.await.unwrap();

    // Somebody adds an endpoint: the event comes after it, and goes there.
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await.unwrap();
    let second = EndpointId::new(at(1), id_bytes());
    sqlx::raw_sql(AssertSqlSafe(format!(
        "INSERT INTO webhook_endpoints (id, merchant_id, url, secret, enabled, created_at, version) \
         VALUES ('{second}', '{}', 'https://second.example/', 's', 1, 1, 1)",
        merchant_id()
    )))
    .execute(&mut *transaction)
    .await
    .unwrap();
    let event = new_event(order.id, EventType::Paid);
    let telling = tokio::spawn({
        let (store, event) = (store.clone(), event.clone());
        async move { done(&store, Changes { events: vec![event], ..Changes::default() }).await }
    });
    one_waits("the event waits for the endpoint").await;
    transaction.commit().await.unwrap();
    telling.await.unwrap();
    let told: BTreeSet<EndpointId> = due_of(&store, &event).await.into_iter().filter_map(|(_, endpoint)| endpoint).collect();
    assert_eq!(told, [endpoint.id, second].into());
}

async fn the_names_that_others_rely_on_are_there(ground: Ground) {
    let store = ground.open().await;
    let (tables, views, indexes) = match store.engine() {
        Engine::Sqlite => (
            "SELECT name FROM sqlite_master WHERE type = 'table'",
            "SELECT name FROM sqlite_master WHERE type = 'view'",
            "SELECT name || '|' || sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        ),
        Engine::Postgres => (
            "SELECT CAST(tablename AS TEXT) FROM pg_catalog.pg_tables WHERE schemaname = 'public'",
            "SELECT CAST(viewname AS TEXT) FROM pg_catalog.pg_views WHERE schemaname = 'public'",
            "SELECT indexname || '|' || indexdef FROM pg_catalog.pg_indexes WHERE schemaname = 'public'",
        ),
    };
    let found = ground.look(tables).await;
    for table in
        ["usdt_wallets", "usdt_payment_orders", "blockchain_transactions", "payment_webhooks", "wallet_balances", "payment_notifications"]
    {
        assert!(found.iter().any(|name| name == table), "no table {table} in {found:?}");
    }
    assert_eq!(ground.look(views).await, ["recent_transactions"]);
    let found = ground.look(indexes).await;
    let found: BTreeMap<&str, &str> = found.iter().filter_map(|line| line.split_once('|')).collect();
    for (index, is_partial) in [
        ("idx_wallets_status_network", false),
        ("idx_wallets_available_network", true),
        ("idx_orders_status_expires", true),
        ("idx_orders_pending_user", true),
        ("idx_transactions_address_time", false),
        ("idx_balances_wallet_time", false),
        // I2 stands on this one.
        ("idx_leases_live_wallet", true),
    ] {
        let sql = found.get(index).unwrap_or_else(|| panic!("no index {index} in {found:?}"));
        assert_eq!(sql.contains("WHERE"), is_partial, "{sql}");
    }
    assert!(found["idx_leases_live_wallet"].contains("UNIQUE"));
    assert!(found["idx_orders_status_expires"].contains("pending"));
    assert!(found["idx_orders_pending_user"].contains("pending"));

    // The view shows what was seen in the last thirty days.
    let now = tidegate::clock::now();
    let day = Span::from_secs(86_400);
    let month = (0..30).fold(now, |time, _| time.minus(day));
    let seen = |seen_at: Time| TransferChange { seen_at, ..new_transfer(payment(address(), 7), None) };
    let (recent, old) = (seen(month.plus(day)), seen(month.minus(day)));
    done(&store, Changes { transfers: vec![recent.clone(), old], ..Changes::default() }).await;
    assert_eq!(ground.look("SELECT id FROM recent_transactions").await, [recent.id.to_string()]);
}
