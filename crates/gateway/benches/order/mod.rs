//! Wallets and orders as the gateway stores them, made beforehand for benches.

use std::collections::BTreeMap;

use tidegate::clock;
use tidegate::store::{Commit, Store};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::{Changes, Details, NewEvent, NewLease, NewOrder, NewWallet, WalletChange, WalletMove};
use tidegate_rules::id::{EventId, LeaseId, MerchantId, OrderId, WalletId};
use tidegate_rules::lease::Lease;
use tidegate_rules::notify::EventType;
use tidegate_rules::order::{self, Depth, Terms};
use tidegate_rules::time::Span;
use tidegate_rules::wallet::WalletKind;

/// Stores so many wallets, and gives for each the change that opens an order on it.
pub async fn prepared(store: &Store, count: usize) -> Vec<Changes> {
    let mut prepared = Vec::with_capacity(count);
    for batch in 0..count / 1_000 {
        let wallets: Vec<NewWallet> = (0..1_000).map(|index| wallet(batch * 1_000 + index)).collect();
        prepared.extend(wallets.iter().map(order_on));
        assert_eq!(store.commit(Changes { new_wallets: wallets, ..Changes::default() }).await.unwrap(), Commit::Done);
    }
    prepared
}

fn wallet(index: usize) -> NewWallet {
    let now = clock::now();
    let mut address = [0; 20];
    address[..8].copy_from_slice(&(index as u64).to_be_bytes());
    NewWallet {
        id: WalletId::new(now, clock::id_bytes()),
        name: format!("tron_wallet_{index:04}"),
        network: Network::new("tron"),
        address: Address(address),
        address_text: format!("T{index:033}"),
        kind: WalletKind::Random,
        sealed_key: Some("v1.00000000.".to_owned() + &"A".repeat(110)),
        source: None,
        tag: "0".repeat(64),
        queue_rank: 0,
        created_at: now,
    }
}

/// The same change that opening an order stores.
fn order_on(wallet: &NewWallet) -> Changes {
    let now = clock::now();
    let network = Network::new("tron");
    let terms = Terms {
        purpose: tidegate_rules::order::Purpose::Payment,
        amount: Amount::from_micros(12_500_000),
        tolerance: Amount::ZERO,
        expires_at: now.plus(Span::from_secs(1_800)),
        late_window: Span::from_secs(86_400),
        accept_late: true,
        cooldown: Span::from_secs(3_600),
        depths: BTreeMap::from([(network.clone(), Depth::Blocks(19)), (Network::new("ethereum"), Depth::Blocks(12))]),
    };
    let late_until = terms.late_until();
    let id = OrderId::new(now, clock::id_bytes());
    let merchant = MerchantId::new(now, [0; 10]);
    let lease = Lease {
        id: LeaseId::new(now, clock::id_bytes()),
        order: id,
        network: network.clone(),
        wallet: wallet.id,
        address: wallet.address,
        from: 0,
        to: None,
    };
    let mut order = order::open(terms);
    order.current = Some(network);
    order.leases.push(lease.clone());
    let details = Details { user_id: Some("42".into()), metadata: "{}".into(), ..Details::default() };
    Changes {
        wallets: vec![WalletChange { id: wallet.id, version: 1, kind: WalletMove::Lease { order: id, at: now } }],
        new_orders: vec![NewOrder { id, merchant, livemode: false, created_at: now, details, order }],
        new_leases: vec![NewLease { lease, address_text: wallet.address_text.clone(), tag: wallet.tag.clone(), late_until, at: now }],
        // As long as the body of the real event.
        events: vec![NewEvent {
            id: EventId::new(now, clock::id_bytes()),
            kind: EventType::Pending,
            merchant,
            subject: id.into(),
            at: now,
            body: "x".repeat(1_180),
            delivery: None,
        }],
        ..Changes::default()
    }
}
