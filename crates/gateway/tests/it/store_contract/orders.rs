//! Orders: their numbers, their lists, and a hundred at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tidegate::clock::id_bytes;
use tidegate::store::{Commit, OrderFilter, Store};
use tidegate_rules::block::{Address, Network, TransferKey};
use tidegate_rules::changes::{Changes, NewLease, NewOrder, TransferChange};
use tidegate_rules::id::{LeaseId, MerchantId, OrderId, TransferId, WalletId};
use tidegate_rules::lease::Lease;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{Depth, Order, Status};

use super::{
    Ground, add_wallets, at, done, entry, hash, lend, merchant_id, micros, new_event, new_lease, new_order, new_transfer, new_wallet,
    order_change, payment, raw, refused, tron,
};

contract!(
    a_shops_number_is_used_once_per_merchant,
    orders_past_their_time_are_found,
    how_deep_open_orders_want_to_be_buried_is_known,
    pages_of_orders_are_stable_and_filters_fit,
    long_lists_are_asked_in_parts,
    a_hundred_orders_at_once_lease_a_hundred_wallets,
);

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
                let free = store.free_wallets(&tron(), Some(u64::MAX), 8).await.unwrap();
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
    assert!(store.free_wallets(&tron(), Some(u64::MAX), 1).await.unwrap().is_empty());
}

async fn how_deep_open_orders_want_to_be_buried_is_known(ground: Ground) {
    let store = ground.open().await;
    assert!(store.agreed_depths(&tron()).await.unwrap().is_empty());
    let with = |depths: &[(Network, Depth)]| {
        let mut order = new_order();
        order.order.terms.depths = depths.iter().cloned().collect();
        order
    };
    let ethereum = Network::new("ethereum");
    let shallow = with(&[(tron(), Depth::Blocks(3)), (ethereum.clone(), Depth::Final)]);
    let orders = vec![shallow.clone(), with(&[(tron(), Depth::Blocks(19))]), with(&[(tron(), Depth::Blocks(19))])];
    done(&store, Changes { new_orders: orders, ..Changes::default() }).await;
    let depths = async |network: &Network| store.agreed_depths(network).await.unwrap().into_iter().collect::<BTreeSet<_>>();
    assert_eq!(depths(&tron()).await, [Depth::Blocks(3), Depth::Blocks(19)].into());
    assert_eq!(depths(&ethereum).await, [Depth::Final].into());
    // Nobody waits for one that is over.
    let over = Order { status: Status::Expired, ..shallow.order.clone() };
    done(&store, Changes { orders: vec![order_change(shallow.id, 1, over)], ..Changes::default() }).await;
    assert_eq!((depths(&tron()).await, depths(&ethereum).await), ([Depth::Blocks(19)].into(), BTreeSet::new()));
}
