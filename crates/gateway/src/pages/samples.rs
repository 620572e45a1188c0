//! One order in every state that the checkout knows: for the tests, and to look at.

use super::*;

/// 2026-03-01 12:00 UTC, when every sample order is made.
pub(super) const CREATED_MS: i64 = 1_772_366_400_000;
pub(super) const TRON_ADDRESS: &str = "TXYZopYRdj2D9XRtbG411XZZ3kM5VkAeBf";
pub(super) const EVM_ADDRESS: &str = "0x52908400098527886E0F7030069857D2E4169EE7";
const MINUTE_MS: i64 = 60_000;

fn option(network: &str, display_name: &str, current: bool, unavailable: Option<Unavailable>) -> NetworkOption {
    NetworkOption { network: network.into(), display_name: display_name.into(), current, unavailable }
}

fn leased(network: &str, display_name: &str, current: bool) -> LeasedNetwork {
    LeasedNetwork { network: network.into(), display_name: display_name.into(), current }
}

fn transfer(amount: &str, status: TransferStatus, confirmations: u64) -> Transfer {
    Transfer {
        tx_hash: "7c2d4a91b3f05e6680d1c27f3a9b4458e2f6701dd9c3b5a86e41f09b2c7de0f4".into(),
        network: "TRON (TRC-20)".into(),
        amount: amount.into(),
        status,
        confirmations,
    }
}

/// A pending order of 12.5 USDT on TRON, two minutes old.
pub(super) fn pending() -> CheckoutView {
    CheckoutView {
        order_id: "ord_01jqvt5m8kqf3w9z7c2hx4b6dn".into(),
        merchant_name: "Harbour Hosting".into(),
        livemode: true,
        status: Status::Pending,
        exception: None,
        token: "USDT".into(),
        amount: "12.500000".into(),
        open_amount: false,
        received: "0.000000".into(),
        remaining: "12.500000".into(),
        excess: "0.000000".into(),
        recorded: "0.000000".into(),
        network: Some("TRON (TRC-20)".into()),
        address: Some(TRON_ADDRESS.into()),
        payment_uri: Some(TRON_ADDRESS.into()),
        qr_payload: Some(TRON_ADDRESS.into()),
        options: vec![
            option("tron", "TRON (TRC-20)", true, None),
            option("ethereum", "Ethereum (ERC-20)", false, None),
            option("bsc", "BNB Smart Chain (BEP-20)", false, Some(Unavailable::Lagging)),
        ],
        leased: vec![leased("tron", "TRON (TRC-20)", true)],
        confirmations: 0,
        confirmations_required: Some(Required::Number(19)),
        transfers: vec![],
        created_at_ms: CREATED_MS,
        expires_at_ms: CREATED_MS + 30 * MINUTE_MS,
        late_until_ms: CREATED_MS + 30 * MINUTE_MS + 24 * 60 * MINUTE_MS,
        server_time_ms: CREATED_MS + 2 * MINUTE_MS,
        chain_past_expiry: false,
        redirect_url: Some("https://shop.example/orders/1001".into()),
        notice: None,
        handed_in: None,
        sandbox: None,
    }
}

/// The payer says how much: one USDT at least.
pub(super) fn open_amount() -> CheckoutView {
    CheckoutView { open_amount: true, amount: "1.000000".into(), remaining: "1.000000".into(), ..pending() }
}

/// Nothing chosen yet.
pub(super) fn unchosen() -> CheckoutView {
    let mut view =
        CheckoutView { network: None, address: None, payment_uri: None, qr_payload: None, confirmations_required: None, ..pending() };
    view.options.iter_mut().for_each(|option| option.current = false);
    view.leased.clear();
    view
}

/// A hash was handed in: a sample's, on TRON.
pub(super) fn handed_in(view: CheckoutView, outcome: Outcome) -> CheckoutView {
    let typed = "7c2d4a91b3f05e6680d1c27f3a9b4458e2f6701dd9c3b5a86e41f09b2c7de0f4".into();
    CheckoutView { handed_in: Some(HandedIn { typed, network: Some("tron".into()), outcome }), ..view }
}

/// Leased on TRON first, then on Ethereum, where it is to be paid now.
pub(super) fn moved() -> CheckoutView {
    CheckoutView { leased: vec![leased("ethereum", "Ethereum (ERC-20)", true), leased("tron", "TRON (TRC-20)", false)], ..on_ethereum() }
}

fn on_ethereum() -> CheckoutView {
    let mut view = CheckoutView {
        network: Some("Ethereum (ERC-20)".into()),
        address: Some(EVM_ADDRESS.into()),
        payment_uri: Some(format!(
            "ethereum:0xdAC17F958D2ee523a2206206994597C13D831ec7@1/transfer?address={EVM_ADDRESS}&uint256=12345678910000"
        )),
        qr_payload: Some(EVM_ADDRESS.into()),
        amount: "12345678.910000".into(),
        remaining: "12345678.910000".into(),
        confirmations_required: Some(Required::Final),
        ..pending()
    };
    view.options.iter_mut().for_each(|option| option.current = option.network == "ethereum");
    view.leased = vec![leased("ethereum", "Ethereum (ERC-20)", true)];
    view
}

fn with_money(status: Status, exception: Option<Exception>, received: &str, transfers: Vec<Transfer>) -> CheckoutView {
    CheckoutView {
        status,
        exception,
        received: received.into(),
        recorded: received.into(),
        remaining: "0.000000".into(),
        transfers,
        ..pending()
    }
}

fn after_expiry(view: CheckoutView) -> CheckoutView {
    CheckoutView { server_time_ms: view.expires_at_ms + 3 * MINUTE_MS, ..view }
}

/// 12.3 of 12.5 has arrived.
pub(super) fn underpaid() -> CheckoutView {
    CheckoutView {
        remaining: "0.200000".into(),
        ..with_money(Status::Pending, Some(Exception::Underpaid), "12.300000", vec![transfer("12.300000", TransferStatus::Pending, 3)])
    }
}

/// Seven of nineteen confirmations.
pub(super) fn confirming() -> CheckoutView {
    CheckoutView {
        confirmations: 7,
        ..with_money(Status::Confirming, None, "12.500000", vec![transfer("12.500000", TransferStatus::Pending, 7)])
    }
}

/// Settled.
pub(super) fn paid(exception: Option<Exception>) -> CheckoutView {
    with_money(Status::Paid, exception, "12.500000", vec![transfer("12.500000", TransferStatus::Confirmed, 25)])
}

/// Everything came after the time.
pub(super) fn late() -> CheckoutView {
    let transfers = vec![transfer("12.500000", TransferStatus::Confirmed, 25)];
    CheckoutView { recorded: "12.500000".into(), ..with_money(Status::Expired, Some(Exception::Late), "0.000000", transfers) }
}

/// Every state by name, and whether its page may show an address.
pub(super) fn all() -> Vec<(&'static str, CheckoutView, bool)> {
    let sandbox = |network: Option<&str>| {
        Some(SandboxPanel {
            network: network.map(|name| SandboxNetwork { network: name.to_lowercase(), display_name: format!("{name} (sandbox)") }),
        })
    };
    let none = || vec![];
    let confirmed = |amount: &str| vec![transfer(amount, TransferStatus::Confirmed, 25)];
    let mut nothing_to_choose = unchosen();
    nothing_to_choose.options.iter_mut().for_each(|option| option.unavailable = Some(Unavailable::Halted));
    let mut trouble = pending();
    trouble.options.iter_mut().for_each(|option| option.unavailable = Some(Unavailable::Lagging));
    let one_network = CheckoutView { options: vec![option("tron", "TRON (TRC-20)", true, None)], ..pending() };
    let paused = CheckoutView { address: None, qr_payload: None, payment_uri: None, ..pending() };
    let reorganised = vec![
        transfer("12.500000", TransferStatus::Orphaned, 0),
        transfer("12.500000", TransferStatus::Failed, 0),
        transfer("12.500000", TransferStatus::Pending, 1),
    ];
    vec![
        ("pay-open-amount", open_amount(), true),
        ("choose", unchosen(), false),
        ("choose-none-available", nothing_to_choose, false),
        ("choose-failed", CheckoutView { notice: Some(Notice::NetworkUnavailable("Ethereum (ERC-20)".into())), ..unchosen() }, false),
        ("pay", pending(), true),
        ("pay-one-network", one_network, true),
        ("pay-ethereum-large", on_ethereum(), true),
        ("pay-soon", CheckoutView { server_time_ms: CREATED_MS + 27 * MINUTE_MS, ..pending() }, true),
        ("pay-network-trouble", trouble, true),
        ("pay-underpaid", underpaid(), true),
        ("pay-paused", paused, false),
        ("handed-foreign", handed_in(pending(), Outcome::Foreign), true),
        ("handed-waiting", handed_in(moved(), Outcome::Waiting), true),
        ("handed-confirming", handed_in(confirming(), Outcome::Confirming), false),
        ("handed-late", after_expiry(handed_in(late(), Outcome::Late)), false),
        ("pay-sandbox", CheckoutView { livemode: false, sandbox: sandbox(Some("Tron")), ..pending() }, true),
        ("choose-sandbox", CheckoutView { livemode: false, sandbox: sandbox(None), ..unchosen() }, false),
        ("closing", after_expiry(pending()), false),
        ("closing-part", after_expiry(underpaid()), false),
        ("closing-by-chain", CheckoutView { chain_past_expiry: true, ..pending() }, false),
        ("closing-unchosen", after_expiry(unchosen()), false),
        ("confirming", confirming(), false),
        ("confirming-final", CheckoutView { confirmations_required: Some(Required::Final), ..confirming() }, false),
        ("confirming-reorg", CheckoutView { confirmations: 1, transfers: reorganised, ..confirming() }, false),
        ("paid", paid(None), false),
        (
            "paid-over",
            CheckoutView {
                excess: "0.500000".into(),
                ..with_money(Status::Paid, Some(Exception::Overpaid), "13.000000", confirmed("13.000000"))
            },
            false,
        ),
        ("paid-late", after_expiry(paid(Some(Exception::Late))), false),
        ("paid-manual", with_money(Status::Paid, Some(Exception::Manual), "0.000000", none()), false),
        (
            "paid-reverted",
            with_money(Status::Paid, Some(Exception::Reverted), "0.000000", vec![transfer("12.500000", TransferStatus::Orphaned, 0)]),
            false,
        ),
        ("expired", after_expiry(with_money(Status::Expired, None, "0.000000", none())), false),
        ("expired-part", after_expiry(with_money(Status::Expired, Some(Exception::Underpaid), "12.300000", confirmed("12.300000"))), false),
        ("expired-late", after_expiry(late()), false),
        (
            "expired-mixed",
            after_expiry(CheckoutView {
                recorded: "12.400000".into(),
                ..with_money(Status::Expired, Some(Exception::Late), "12.300000", confirmed("12.300000"))
            }),
            false,
        ),
        ("cancelled", with_money(Status::Cancelled, None, "0.000000", none()), false),
        (
            "cancelled-money",
            CheckoutView {
                recorded: "12.500000".into(),
                ..with_money(Status::Cancelled, Some(Exception::Late), "0.000000", confirmed("12.500000"))
            },
            false,
        ),
        ("hostile", hostile(), true),
    ]
}

/// An order whose every text tries to break out of the page.
pub(super) fn hostile() -> CheckoutView {
    let evil = "\"'><script>alert(1)</script>{{7*7}}\u{202e}";
    let mut view = underpaid();
    view.order_id = evil.into();
    view.merchant_name = format!("{evil} {}", "A very long name of a shop ".repeat(4));
    view.token = evil.into();
    view.amount = evil.into();
    view.received = evil.into();
    view.remaining = evil.into();
    view.network = Some(evil.into());
    view.address = Some(evil.into());
    view.payment_uri = Some(format!("ethereum:{evil}"));
    view.qr_payload = Some(evil.into());
    view.redirect_url = Some(format!("javascript:alert(1)//{evil}"));
    view.notice = Some(Notice::NetworkUnavailable(evil.into()));
    view.options = vec![option(evil, evil, false, None), option(evil, evil, true, None)];
    view.leased = vec![leased(evil, evil, true), leased("other", evil, false)];
    view.handed_in = Some(HandedIn { typed: evil.into(), network: Some(evil.into()), outcome: Outcome::Unknown });
    view.sandbox = Some(SandboxPanel { network: Some(SandboxNetwork { network: evil.into(), display_name: evil.into() }) });
    for transfer in &mut view.transfers {
        transfer.tx_hash = evil.into();
        transfer.network = evil.into();
        transfer.amount = evil.into();
    }
    view
}
