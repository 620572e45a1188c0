//! Carries a [`Changes`] out, statement by statement, inside a transaction that somebody else
//! began. Every statement that can meet somebody else's change checks the version it was decided
//! on; the first that does not find it ends the whole with [`Commit::Conflict`].

use serde_json::{Map, Value, json};
use sqlx::any::AnyArguments;
use sqlx::{Any, AnyConnection, Row as _};
use tidegate_rules::amount::Amount;
use tidegate_rules::audit;
use tidegate_rules::block::{BlockRef, Network};
use tidegate_rules::changes::{
    AlertChange, Changes, Cursor, DeliveryChange, DeliveryState, Derivation, JournalEntry, KeptAnswer, NewAlert, NewApiKey, NewAudit,
    NewBalance, NewEvent, NewLease, NewMerchant, NewOrder, NewPeriod, NewSource, NewWallet, OrderChange, Reconciled, Reseal, SealedIn,
    TransferChange, WalletChange, WalletMove,
};
use tidegate_rules::id::{EventId, MerchantId};
use tidegate_rules::lease::Lease;
use tidegate_rules::membership;
use tidegate_rules::notify::{self, EventType};
use tidegate_rules::order::{Depth, Facts, PaidBy, Purpose, Terms};
use tidegate_rules::time::Time;
use tidegate_rules::webhook_endpoint::takes;

use super::instances::{self, claim_text};
use super::notices;
use super::rows::{DEPOSITS, OPEN_AMOUNT, parse};
use super::safe::alert;
use super::webhook_endpoints::{self, Outgoing};
use super::{Commit, Engine, StoreError, people};
use crate::alerts::AlertView;
use crate::plans::ActivatedView;
use crate::start::MAIN_MERCHANT;

pub(super) type Applied = Result<Commit, sqlx::Error>;

/// Stops with `Conflict` unless the change took place.
macro_rules! must {
    ($outcome:expr) => {
        if $outcome.await? == Commit::Conflict {
            return Ok(Commit::Conflict);
        }
    };
}

/// Carries out all of a group. `Conflict` means that one of them met another's change, or that two
/// of them want the same row: whoever began the transaction rolls it back.
pub(super) async fn apply(db: &mut AnyConnection, engine: Engine, group: &[&Changes]) -> Applied {
    for fence in group.iter().filter_map(|changes| changes.fence.as_ref()) {
        must!(instances::pass(db, engine, fence));
    }
    // What can meet another's change comes first: a conflict then costs least.
    for cursor in group.iter().filter_map(|changes| changes.cursor.as_ref()) {
        must!(move_cursor(db, cursor));
    }
    for (network, version) in group.iter().filter_map(|changes| changes.applied.as_ref()) {
        must!(is_at(db, engine, network, *version));
    }
    for reconciled in group.iter().filter_map(|changes| changes.reconciled.as_ref()) {
        must!(move_second_reader(db, reconciled));
    }
    must!(change_wallets(db, &all(group, |changes| &changes.wallets)));
    for change in all(group, |changes| &changes.orders) {
        must!(change_order(db, change));
    }
    for change in all(group, |changes| &changes.transfers) {
        must!(record_transfer(db, change));
    }
    for derivation in all(group, |changes| &changes.derivations) {
        must!(move_index(db, derivation));
    }
    insert_wallets(db, &all(group, |changes| &changes.new_wallets)).await?;
    insert_orders(db, &all(group, |changes| &changes.new_orders)).await?;
    for (lease, to) in all(group, |changes| &changes.ended_leases) {
        must!(end_lease(db, lease, *to));
    }
    insert_leases(db, &all(group, |changes| &changes.new_leases)).await?;
    insert_balances(db, &all(group, |changes| &changes.balances)).await?;
    insert_journal(db, &all(group, |changes| &changes.journal)).await?;
    if engine == Engine::Postgres {
        lock_events(db, group).await?;
    }
    insert_events(db, &all(group, |changes| &changes.events)).await?;
    for period in all(group, |changes| &changes.new_periods) {
        insert_period(db, period).await?;
    }
    for step in group.iter().filter_map(|changes| changes.told.as_ref()) {
        must!(notices::move_mark(db, step));
    }
    notices::insert_notices(db, &all(group, |changes| &changes.new_notices)).await?;
    for change in all(group, |changes| &changes.notices) {
        must!(notices::change_notice(db, change));
    }
    for change in all(group, |changes| &changes.templates) {
        notices::change_template(db, change).await?;
    }
    // Before webhook addresses change: that one changed is told where it went until now.
    for alert in all(group, |changes| &changes.alerts) {
        insert_alert(db, alert).await?;
    }
    for change in all(group, |changes| &changes.deliveries) {
        change_delivery(db, change).await?;
    }
    insert_sources(db, &all(group, |changes| &changes.new_sources)).await?;
    insert_merchants(db, &all(group, |changes| &changes.new_merchants)).await?;
    for (merchant, url) in all(group, |changes| &changes.webhook_urls) {
        must!(put_webhook_url(db, *merchant, url.as_deref()));
    }
    for (merchant, events) in all(group, |changes| &changes.webhook_events) {
        must!(put_webhook_events(db, *merchant, events.as_deref()));
    }
    for change in all(group, |changes| &changes.endpoints) {
        must!(webhook_endpoints::change(db, change));
    }
    insert_api_keys(db, &all(group, |changes| &changes.new_api_keys)).await?;
    for change in all(group, |changes| &changes.people) {
        must!(people::change(db, change));
    }
    must!(reseal(db, &all(group, |changes| &changes.reseals)));
    for change in all(group, |changes| &changes.alert_changes) {
        must!(change_alert(db, change));
    }
    let audit = all(group, |changes| &changes.audit);
    if !audit.is_empty() {
        append_audit(db, &audit).await?;
    }
    for answer in group.iter().filter_map(|changes| changes.answer.as_ref()) {
        keep_answer(db, answer).await?;
    }
    Ok(Commit::Done)
}

/// PostgreSQL: takes the lock that lets everybody see events whole.
async fn lock_events(db: &mut AnyConnection, group: &[&Changes]) -> Result<(), sqlx::Error> {
    let lock = if group.iter().any(|changes| !changes.endpoints.is_empty()) {
        // What is being told now has read the endpoints as they were: it commits first.
        "SELECT pg_advisory_xact_lock($1)"
    } else if group.iter().any(|changes| tells(changes)) {
        // Numbers are given here and become visible at the commit. Whoever lists events waits until
        // nobody is in between, or he would miss the one that comes late (I10).
        "SELECT pg_advisory_xact_lock_shared($1)"
    } else {
        return Ok(());
    };
    sqlx::query(lock).bind(EVENTS_LOCK).execute(db).await?;
    Ok(())
}

/// Held on PostgreSQL by all who number events, alone by who changes endpoints, and for a moment alone by
/// who lists events (any number will do).
pub(super) const EVENTS_LOCK: i64 = 0x7469_6465_6576_6e74;

/// Whether any of it may write an event.
const fn tells(changes: &Changes) -> bool {
    !(changes.events.is_empty() && changes.alerts.is_empty() && changes.alert_changes.is_empty() && changes.new_periods.is_empty())
}

/// The rows of one kind of the whole group.
fn all<'a, T>(group: &[&'a Changes], rows: impl Fn(&'a Changes) -> &'a Vec<T>) -> Vec<&'a T> {
    group.iter().flat_map(|changes| rows(changes)).collect()
}

pub(super) type Statement<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// How many rows one statement writes at most. A power of two, like every number of rows below, so
/// that few texts are prepared and each is met again.
const ROWS_MAX: usize = 64;

/// Writes rows with few statements: each costs a hand-over to the database, which is more than the
/// row itself. `text` makes a statement of its rows: `($1, $2), ($3, $4)`. How many rows the
/// statements wrote.
pub(super) async fn write_rows<T>(
    db: &mut AnyConnection,
    rows: &[&T],
    row: &str,
    text: impl Fn(&str) -> String,
    bind: impl Fn(Statement<'static>, &T) -> Statement<'static>,
) -> Result<u64, sqlx::Error> {
    write_rows_by(ROWS_MAX, db, rows, row, text, bind).await
}

/// The same, with at most so many rows in a statement.
pub(super) async fn write_rows_by<T>(
    most_rows: usize,
    db: &mut AnyConnection,
    rows: &[&T],
    row: &str,
    text: impl Fn(&str) -> String,
    bind: impl Fn(Statement<'static>, &T) -> Statement<'static>,
) -> Result<u64, sqlx::Error> {
    let mut written: u64 = 0;
    let mut rest = rows;
    while let Some(most) = rest.len().checked_ilog2() {
        let (now, later) = rest.split_at_checked(1_usize.checked_shl(most).unwrap_or(1).min(most_rows)).unwrap_or((rest, &[]));
        let text = text(&placeholders(db.backend_name(), row, now.len()));
        let statement = now.iter().fold(sqlx::query(sqlx::AssertSqlSafe(text)), |statement, row| bind(statement, row));
        written = written.saturating_add(statement.execute(&mut *db).await?.rows_affected());
        rest = later;
    }
    Ok(written)
}

/// `(?, ?)` twice is `(?, ?), (?, ?)` for SQLite and `($1, $2), ($3, $4)` for PostgreSQL. SQLite would
/// take numbers too, but the driver looks each of them up among all others.
fn placeholders(backend: &str, row: &str, rows: usize) -> String {
    if backend == <sqlx::Sqlite as sqlx::Database>::NAME {
        return vec![row; rows].join(",");
    }
    let mut text = String::with_capacity(rows.saturating_mul(row.len()).saturating_mul(4));
    let mut number: u32 = 0;
    for index in 0..rows {
        if index > 0 {
            text.push(',');
        }
        for (part, piece) in row.split('?').enumerate() {
            if part > 0 {
                number = number.saturating_add(1);
                text.push('$');
                text.push_str(&number.to_string());
            }
            text.push_str(piece);
        }
    }
    text
}

/// `Done` when exactly one row changed.
pub(super) fn one(result: &sqlx::any::AnyQueryResult) -> Commit {
    if result.rows_affected() == 1 { Commit::Done } else { Commit::Conflict }
}

/// A height as the database holds it.
pub(super) fn height(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An amount as the database holds it. `Amount::MAX` fits; sums are capped there.
fn micros(amount: Amount) -> i64 {
    i64::try_from(amount.micros()).unwrap_or(i64::MAX)
}

fn millis(time: Option<Time>) -> Option<i64> {
    time.map(Time::millis)
}

async fn move_cursor(db: &mut AnyConnection, cursor: &Cursor) -> Applied {
    let network = cursor.network.as_str();
    let moved = match cursor.version {
        Some(version) => sqlx::query(
            "UPDATE networks SET tip = $1, peak = $2, finalized = $3, halted = $4, floor = $5, version = version + 1 WHERE name = $6 AND version = $7",
        )
        .bind(height(cursor.tip))
        .bind(height(cursor.peak))
        .bind(cursor.finalized.map(height))
        .bind(&cursor.halted)
        .bind(cursor.floor.map(depth_text))
        .bind(network)
        .bind(version)
        .execute(&mut *db)
        .await?,
        None => {
            sqlx::query("INSERT INTO networks (name, tip, peak, finalized, halted, floor, version) VALUES ($1, $2, $3, $4, $5, $6, 1)")
                .bind(network)
                .bind(height(cursor.tip))
                .bind(height(cursor.peak))
                .bind(cursor.finalized.map(height))
                .bind(&cursor.halted)
                .bind(cursor.floor.map(depth_text))
                .execute(&mut *db)
                .await?
        }
    };
    if one(&moved) == Commit::Conflict {
        return Ok(Commit::Conflict);
    }
    if let Some(to) = cursor.rewind_to {
        sqlx::query("DELETE FROM blocks WHERE network = $1 AND number > $2").bind(network).bind(height(to)).execute(&mut *db).await?;
        // What stands there now was not compared by the second reader.
        sqlx::query("UPDATE second_readers SET compared = $1 WHERE network = $2 AND compared > $1")
            .bind(height(to))
            .bind(network)
            .execute(&mut *db)
            .await?;
    }
    let blocks: Vec<&BlockRef> = cursor.blocks.iter().collect();
    write_rows(
        db,
        &blocks,
        "(?,?,?,?,?)",
        |rows| format!("INSERT INTO blocks (network, number, hash, parent, time) VALUES {rows}"),
        |statement, block| {
            statement
                .bind(network)
                .bind(height(block.number))
                .bind(block.hash.to_string())
                .bind(block.parent.to_string())
                .bind(block.time.millis())
        },
    )
    .await?;
    if let Some(below) = cursor.forget_below {
        sqlx::query("DELETE FROM blocks WHERE network = $1 AND number < $2").bind(network).bind(height(below)).execute(&mut *db).await?;
    }
    Ok(Commit::Done)
}

async fn move_second_reader(db: &mut AnyConnection, step: &Reconciled) -> Applied {
    let moved = match step.from {
        None => {
            sqlx::query("INSERT INTO second_readers (network, compared) VALUES ($1, $2)")
                .bind(step.network.as_str())
                .bind(height(step.to))
                .execute(db)
                .await?
        }
        Some(from) => {
            sqlx::query("UPDATE second_readers SET compared = $1 WHERE network = $2 AND compared = $3")
                .bind(height(step.to))
                .bind(step.network.as_str())
                .bind(height(from))
                .execute(db)
                .await?
        }
    };
    Ok(one(&moved))
}

/// The epoch is counted up first: on PostgreSQL that row's lock makes other inserts of the network
/// wait, so epochs become visible in their order.
async fn insert_wallets(db: &mut AnyConnection, wallets: &[&NewWallet]) -> Result<(), sqlx::Error> {
    let mut networks: Vec<&str> = wallets.iter().map(|wallet| wallet.network.as_str()).collect();
    networks.sort_unstable();
    networks.dedup();
    for network in networks {
        let epoch: i64 = sqlx::query_scalar(
            "INSERT INTO wallet_epochs (network, epoch) VALUES ($1, 1) ON CONFLICT (network) DO UPDATE SET epoch = wallet_epochs.epoch + 1 RETURNING epoch",
        )
        .bind(network)
        .fetch_one(&mut *db)
        .await?;
        let of_network: Vec<&NewWallet> = wallets.iter().filter(|wallet| wallet.network.as_str() == network).copied().collect();
        write_rows(
            db,
            &of_network,
            "(?,?,?,?,?,?,'available',?,?,'low',?,0,?,?,?,?,1)",
            |rows| {
                format!(
                    "INSERT INTO usdt_wallets (id, name, network, address, address_hex, kind, status, sealed_key, tag, risk_level, queue_rank, ever_leased, \
                     epoch, source_id, derive_index, created_at, version) VALUES {rows}"
                )
            },
            |statement, wallet| {
                statement
                    .bind(wallet.id.to_string())
                    .bind(wallet.name.as_str())
                    .bind(wallet.network.as_str())
                    .bind(wallet.address_text.as_str())
                    .bind(hex::encode(wallet.address.0))
                    .bind(wallet.kind.name())
                    .bind(wallet.sealed_key.as_deref())
                    .bind(wallet.tag.as_str())
                    .bind(wallet.queue_rank)
                    .bind(epoch)
                    .bind(wallet.source.map(|(source, _)| source.to_string()))
                    .bind(wallet.source.map(|(_, index)| i64::from(index)))
                    .bind(wallet.created_at.millis())
            },
        )
        .await?;
    }
    Ok(())
}

/// Leases come many at a time, the other moves one by one.
async fn change_wallets(db: &mut AnyConnection, changes: &[&WalletChange]) -> Applied {
    let (leases, others): (Vec<&WalletChange>, Vec<&WalletChange>) =
        changes.iter().copied().partition(|change| matches!(change.kind, WalletMove::Lease { .. }));
    let leased = write_rows(
        db,
        &leases,
        "(CAST(? AS TEXT),CAST(? AS BIGINT),CAST(? AS TEXT),CAST(? AS BIGINT))",
        |rows| {
            format!(
                "UPDATE usdt_wallets SET status = 'occupied', ever_leased = 1, order_id = asked.column3, last_used_at = asked.column4, \
                 version = usdt_wallets.version + 1 FROM (VALUES {rows}) AS asked \
                 WHERE usdt_wallets.id = asked.column1 AND usdt_wallets.version = asked.column2 AND usdt_wallets.status = 'available'"
            )
        },
        |statement, change| {
            let WalletMove::Lease { order, at } = &change.kind else { return statement };
            statement.bind(change.id.to_string()).bind(change.version).bind(order.to_string()).bind(at.millis())
        },
    )
    .await?;
    if usize::try_from(leased) != Ok(leases.len()) {
        return Ok(Commit::Conflict);
    }
    for change in others {
        must!(change_wallet(db, change));
    }
    Ok(Commit::Done)
}

async fn change_wallet(db: &mut AnyConnection, change: &WalletChange) -> Applied {
    let id = change.id.to_string();
    let result = match &change.kind {
        // Written above, many at a time.
        WalletMove::Lease { .. } => return Ok(Commit::Done),
        WalletMove::Rest { status, leased_to, until } => {
            sqlx::query("UPDATE usdt_wallets SET status = $1, leased_to = $2, rested_at = $3, order_id = NULL, version = version + 1 WHERE id = $4 AND version = $5")
                .bind(status.name())
                .bind(height(*leased_to))
                .bind(until.millis())
                .bind(id)
                .bind(change.version)
                .execute(db)
                .await?
        }
        WalletMove::Return { status, queue_rank } => {
            sqlx::query("UPDATE usdt_wallets SET status = $1, queue_rank = $2, version = version + 1 WHERE id = $3 AND version = $4 AND status = 'cooldown'")
                .bind(status.name())
                .bind(*queue_rank)
                .bind(id)
                .bind(change.version)
                .execute(db)
                .await?
        }
        WalletMove::Put { status, queue_rank, rested_at } => {
            sqlx::query("UPDATE usdt_wallets SET status = $1, queue_rank = $2, rested_at = COALESCE($3, rested_at), version = version + 1 WHERE id = $4 AND version = $5")
                .bind(status.name())
                .bind(*queue_rank)
                .bind(millis(*rested_at))
                .bind(id)
                .bind(change.version)
                .execute(db)
                .await?
        }
        WalletMove::Risk(level) => {
            sqlx::query("UPDATE usdt_wallets SET risk_level = $1, version = version + 1 WHERE id = $2 AND version = $3")
                .bind(level.name())
                .bind(id)
                .bind(change.version)
                .execute(db)
                .await?
        }
        WalletMove::Rename(name) => {
            sqlx::query("UPDATE usdt_wallets SET name = $1, version = version + 1 WHERE id = $2 AND version = $3")
                .bind(name)
                .bind(id)
                .bind(change.version)
                .execute(db)
                .await?
        }
        WalletMove::PaidAt(number) => {
            sqlx::query("UPDATE usdt_wallets SET paid_at = CASE WHEN paid_at IS NULL OR paid_at < $1 THEN $1 ELSE paid_at END, version = version + 1 WHERE id = $2 AND version = $3")
                .bind(height(*number))
                .bind(id)
                .bind(change.version)
                .execute(db)
                .await?
        }
    };
    Ok(one(&result))
}

/// A depth as one word: `19`, `final`.
pub(super) fn depth_text(depth: Depth) -> String {
    match depth {
        Depth::Blocks(blocks) => blocks.to_string(),
        Depth::Final => "final".to_owned(),
    }
}

/// The terms' depths as JSON: `{"tron":19,"ethereum":"final"}`.
fn depths(terms: &Terms) -> String {
    let depth = |depth: &Depth| match depth {
        Depth::Blocks(blocks) => json!(blocks),
        Depth::Final => json!("final"),
    };
    let map: Map<String, Value> = terms.depths.iter().map(|(network, found)| (network.to_string(), depth(found))).collect();
    Value::Object(map).to_string()
}

/// A person's confirmation as JSON.
fn confirmation(facts: &Facts) -> Option<String> {
    facts.confirmation.as_ref().map(|confirmation| match &confirmation.transfer {
        None => json!({ "reason": confirmation.reason }).to_string(),
        Some((network, key)) => {
            json!({ "reason": confirmation.reason, "network": network.as_str(), "tx_hash": key.tx_hash.to_string(), "ordinal": key.ordinal }).to_string()
        }
    })
}

async fn insert_orders(db: &mut AnyConnection, orders: &[&NewOrder]) -> Result<(), sqlx::Error> {
    write_rows(
        db,
        orders,
        "(?,?,?,?,?,'USDT',?,0,0,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,0,0,0,1)",
        |rows| {
            format!(
                "INSERT INTO usdt_payment_orders (id, merchant_id, livemode, status, network, token, amount, amount_received, amount_confirmed, tolerance, \
                 expires_at, late_window, accept_late, cooldown, depths, user_id, plan_id, merchant_order_id, callback_url, redirect_url, metadata, created_at, \
                 payer_chooses, note, purpose, paid_late, reverted, excess_told, version) VALUES {rows}"
            )
        },
        |statement, new| {
            let (order, terms, details) = (&new.order, &new.order.terms, &new.details);
            statement
                .bind(new.id.to_string())
                .bind(new.merchant.to_string())
                .bind(i64::from(new.livemode))
                .bind(order.status.name())
                .bind(order.current.as_ref().map(|network| network.as_str()))
                .bind(micros(terms.amount))
                .bind(micros(terms.tolerance))
                .bind(terms.expires_at.millis())
                .bind(i64::try_from(terms.late_window.millis()).unwrap_or(i64::MAX))
                .bind(i64::from(terms.accept_late))
                .bind(i64::try_from(terms.cooldown.millis()).unwrap_or(i64::MAX))
                .bind(depths(terms))
                .bind(details.user_id.as_deref())
                .bind(details.plan_id.as_deref())
                .bind(details.merchant_order_id.as_deref())
                .bind(details.callback_url.as_deref())
                .bind(details.redirect_url.as_deref())
                .bind(details.metadata.as_str())
                .bind(new.created_at.millis())
                .bind(i64::from(details.payer_chooses))
                .bind(details.note.as_deref())
                .bind(match terms.purpose {
                    Purpose::Payment => None,
                    Purpose::OpenAmount => Some(OPEN_AMOUNT),
                    Purpose::Deposits => Some(DEPOSITS),
                })
        },
    )
    .await?;
    Ok(())
}

async fn change_order(db: &mut AnyConnection, change: &OrderChange) -> Applied {
    let (order, facts) = (&change.order, &change.order.facts);
    let result = sqlx::query(
        "UPDATE usdt_payment_orders SET status = $1, exception = $2, network = $3, amount_received = $4, amount_confirmed = $5, expires_at = $6, depths = $7, \
         paid_at = $8, paid_by = $9, paid_late = $10, expired_at = $11, cancelled_at = $12, confirmation = $13, reverted = $14, excess_told = $15, \
         cancel_reason = COALESCE($16, cancel_reason), version = version + 1 WHERE id = $17 AND version = $18",
    )
    .bind(order.status.name())
    .bind(order.exception.map(|exception| exception.name()))
    .bind(order.current.as_ref().map(|network| network.as_str()))
    .bind(micros(order.tally.received))
    .bind(micros(order.tally.confirmed))
    .bind(order.terms.expires_at.millis())
    .bind(depths(&order.terms))
    .bind(millis(facts.paid.map(|paid| paid.at)))
    .bind(facts.paid.map(|paid| match paid.by {
        PaidBy::Money => "money",
        PaidBy::Person => "person",
    }))
    .bind(i64::from(facts.paid.is_some_and(|paid| paid.late)))
    .bind(millis(facts.expired_at))
    .bind(millis(facts.cancelled_at))
    .bind(confirmation(facts))
    .bind(i64::from(facts.reverted))
    .bind(micros(facts.excess_told))
    .bind(change.cancel_reason.as_deref())
    .bind(change.id.to_string())
    .bind(change.version)
    .execute(&mut *db)
    .await?;
    if let Some(details) = change.edited.as_ref().filter(|_| one(&result) == Commit::Done) {
        sqlx::query("UPDATE usdt_payment_orders SET callback_url = $1, metadata = $2, note = $3 WHERE id = $4")
            .bind(details.callback_url.as_deref())
            .bind(details.metadata.as_str())
            .bind(details.note.as_deref())
            .bind(change.id.to_string())
            .execute(db)
            .await?;
    }
    Ok(one(&result))
}

async fn insert_leases(db: &mut AnyConnection, leases: &[&NewLease]) -> Result<(), sqlx::Error> {
    write_rows(
        db,
        leases,
        "(?,?,?,?,?,?,?,?,?,?)",
        |rows| {
            format!("INSERT INTO leases (id, order_id, network, wallet_id, address, address_hex, tag, from_height, late_until, created_at) VALUES {rows}")
        },
        |statement, new| {
            let lease = &new.lease;
            statement
                .bind(lease.id.to_string())
                .bind(lease.order.to_string())
                .bind(lease.network.as_str())
                .bind(lease.wallet.to_string())
                .bind(new.address_text.as_str())
                .bind(hex::encode(lease.address.0))
                .bind(new.tag.as_str())
                .bind(height(lease.from))
                .bind(new.late_until.millis())
                .bind(new.at.millis())
        },
    )
    .await?;
    Ok(())
}

/// The history, and the newest on the wallet itself. Nothing is decided on it, so no version is
/// compared and none is counted up.
async fn insert_balances(db: &mut AnyConnection, balances: &[&NewBalance]) -> Result<(), sqlx::Error> {
    let snapshots: Vec<&NewBalance> = balances.iter().filter(|balance| balance.is_snapshot).copied().collect();
    write_rows(
        db,
        &snapshots,
        "(?,?,?,?,?,?,?)",
        |rows| {
            format!(
                "INSERT INTO wallet_balances (id, wallet_id, raw_value, block_number, taken_at, incoming, outgoing) VALUES {rows} \
                 ON CONFLICT DO NOTHING"
            )
        },
        |statement, balance| {
            statement
                .bind(format!("{}/{}", balance.wallet, balance.at.millis()))
                .bind(balance.wallet.to_string())
                .bind(balance.value.to_string())
                .bind(height(balance.block))
                .bind(balance.at.millis())
                .bind(balance.records.map(|(incoming, _)| incoming.to_string()))
                .bind(balance.records.map(|(_, outgoing)| outgoing.to_string()))
        },
    )
    .await?;
    write_rows(
        db,
        balances,
        "(CAST(? AS TEXT),CAST(? AS BIGINT),CAST(? AS BIGINT),CAST(? AS TEXT))",
        |rows| {
            format!(
                "UPDATE usdt_wallets SET balance = asked.column2, balance_at = asked.column3, opening = COALESCE(opening, asked.column4) FROM (VALUES {rows}) AS asked \
                 WHERE usdt_wallets.id = asked.column1"
            )
        },
        |statement, balance| {
            statement
                .bind(balance.wallet.to_string())
                .bind(micros(balance.amount))
                .bind(balance.at.millis())
                .bind(balance.opening.map(|opening| opening.to_string()))
        },
    )
    .await?;
    Ok(())
}

async fn insert_journal(db: &mut AnyConnection, entries: &[&JournalEntry]) -> Result<(), sqlx::Error> {
    write_rows(
        db,
        entries,
        "(?,?,?,?,?,?,?)",
        |rows| format!("INSERT INTO journal (transfer_id, turn, network, debit, credit, raw_value, at) VALUES {rows}"),
        |statement, entry| {
            statement
                .bind(entry.transfer.to_string())
                .bind(entry.turn)
                .bind(entry.network.as_str())
                .bind(entry.debit.as_str())
                .bind(entry.credit.as_str())
                .bind(entry.value.to_string())
                .bind(entry.at.millis())
        },
    )
    .await?;
    Ok(())
}

/// Goes on only while a network is where it was read, and keeps it there until the commit is over.
async fn is_at(db: &mut AnyConnection, engine: Engine, network: &Network, version: i64) -> Applied {
    let text = match engine {
        Engine::Postgres => "SELECT version FROM networks WHERE name = $1 AND version = $2 FOR SHARE",
        Engine::Sqlite => "SELECT version FROM networks WHERE name = $1 AND version = $2",
    };
    let found = sqlx::query(text).bind(network.as_str()).bind(version).fetch_optional(db).await?;
    Ok(if found.is_some() { Commit::Done } else { Commit::Conflict })
}

async fn end_lease(db: &mut AnyConnection, lease: &Lease, to: u64) -> Applied {
    let result = sqlx::query("UPDATE leases SET to_height = $1 WHERE id = $2 AND to_height IS NULL")
        .bind(height(to))
        .bind(lease.id.to_string())
        .execute(db)
        .await?;
    Ok(one(&result))
}

/// Writes down anew what a transfer moves, from whom and to whom.
async fn rewrite_transfer(db: &mut AnyConnection, change: &TransferChange, amount: Amount) -> Result<(), sqlx::Error> {
    let payment = &change.payment;
    sqlx::query(
        "UPDATE blockchain_transactions SET from_address = $1, from_hex = $2, to_address = $3, to_hex = $4, amount = $5, raw_value = $6, wallet_id = $7 WHERE id = $8",
    )
    .bind(&change.address_texts.0)
    .bind(hex::encode(payment.from.0))
    .bind(&change.address_texts.1)
    .bind(hex::encode(payment.to.0))
    .bind(micros(amount))
    .bind(payment.value.to_string())
    .bind(change.wallet.map(|wallet| wallet.to_string()))
    .bind(change.id.to_string())
    .execute(db)
    .await?;
    Ok(())
}

async fn record_transfer(db: &mut AnyConnection, change: &TransferChange) -> Applied {
    let payment = &change.payment;
    let amount = payment.value.to_amount_saturating(payment.decimals);
    if let Some(version) = change.version {
        if change.rewritten {
            rewrite_transfer(db, change, amount).await?;
        }
        let result = sqlx::query(
            "UPDATE blockchain_transactions SET block_number = $1, block_hash = $2, block_time = $3, status = $4, disposition = $5, order_id = $6, \
             proven = $7, promoted = $8, by_hand = $9, late_told = $10, version = version + 1 WHERE id = $11 AND version = $12",
        )
        .bind(height(payment.block.number))
        .bind(change.block_hash.to_string())
        .bind(payment.block.time.millis())
        .bind(payment.status().name())
        .bind(change.recorded.name())
        .bind(change.order.map(|order| order.to_string()))
        .bind(i64::from(payment.proven))
        .bind(i64::from(payment.promoted))
        .bind(i64::from(payment.by_hand))
        .bind(i64::from(payment.late_told))
        .bind(change.id.to_string())
        .bind(version)
        .execute(db)
        .await?;
        return Ok(one(&result));
    }
    sqlx::query("INSERT INTO transfer_keys (network, tx_hash, ordinal, transfer_id) VALUES ($1, $2, $3, $4)")
        .bind(payment.network.as_str())
        .bind(payment.key.tx_hash.to_string())
        .bind(i64::from(payment.key.ordinal))
        .bind(change.id.to_string())
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO blockchain_transactions (id, network, tx_hash, ordinal, block_number, block_hash, block_time, from_address, from_hex, to_address, to_hex, \
         amount, raw_value, decimals, status, disposition, order_id, wallet_id, proven, promoted, by_hand, late_told, raw_log, seen_at, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, 1)",
    )
    .bind(change.id.to_string())
    .bind(payment.network.as_str())
    .bind(payment.key.tx_hash.to_string())
    .bind(i64::from(payment.key.ordinal))
    .bind(height(payment.block.number))
    .bind(change.block_hash.to_string())
    .bind(payment.block.time.millis())
    .bind(&change.address_texts.0)
    .bind(hex::encode(payment.from.0))
    .bind(&change.address_texts.1)
    .bind(hex::encode(payment.to.0))
    .bind(micros(amount))
    .bind(payment.value.to_string())
    .bind(i64::from(payment.decimals))
    .bind(payment.status().name())
    .bind(change.recorded.name())
    .bind(change.order.map(|order| order.to_string()))
    .bind(change.wallet.map(|wallet| wallet.to_string()))
    .bind(i64::from(payment.proven))
    .bind(i64::from(payment.promoted))
    .bind(i64::from(payment.by_hand))
    .bind(i64::from(payment.late_told))
    .bind(change.raw_log.as_deref())
    .bind(change.seen_at.millis())
    .execute(db)
    .await?;
    Ok(Commit::Done)
}

/// I10: an event is written with its cause, and so are its deliveries.
async fn insert_events(db: &mut AnyConnection, events: &[&NewEvent]) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    insert_untold(db, events).await?;
    let mut outgoing: Vec<Outgoing<'_>> = events.iter().filter_map(|event| of_merchant(event)).collect();
    outgoing.extend(webhook_endpoints::fan_out(db, events).await?);
    let outgoing: Vec<&Outgoing<'_>> = outgoing.iter().collect();
    write_rows(
        db,
        &outgoing,
        "(?,?,?,?,?,?,?,'due',0,?,?)",
        |rows| {
            format!(
                "INSERT INTO payment_webhooks (id, event_id, merchant_id, subject_id, url, origin, event_at, status, tries, due_at, endpoint_id) \
                 VALUES {rows}"
            )
        },
        |statement, Outgoing { id, event, url, endpoint }| {
            statement
                .bind(id.to_string())
                .bind(event.id.to_string())
                .bind(event.merchant.to_string())
                .bind(event.subject.to_string())
                .bind(url.clone())
                .bind(origin(url))
                .bind(event.at.millis())
                .bind(event.at.millis())
                .bind(endpoint.clone())
        },
    )
    .await?;
    Ok(())
}

/// The delivery to the merchant's URL, or to the order's.
fn of_merchant(event: &NewEvent) -> Option<Outgoing<'_>> {
    let (id, url) = event.delivery.as_ref()?;
    Some(Outgoing { id: *id, event, url: url.clone(), endpoint: None })
}

/// Events that are listed, and sent to nobody.
async fn insert_untold(db: &mut AnyConnection, events: &[&NewEvent]) -> Result<(), sqlx::Error> {
    write_rows(
        db,
        events,
        "(?,?,?,?,?,?)",
        |rows| format!("INSERT INTO events (id, kind, merchant_id, subject_id, at, body) VALUES {rows}"),
        |statement, event| {
            statement
                .bind(event.id.to_string())
                .bind(event.kind.name())
                .bind(event.merchant.to_string())
                .bind(event.subject.to_string())
                .bind(event.at.millis())
                .bind(event.body.as_str())
        },
    )
    .await?;
    Ok(())
}

/// Scheme, host and port: who a receiver is.
fn origin(url: &str) -> String {
    url::Url::parse(url).map_or_else(|_| url.to_owned(), |url| url.origin().ascii_serialization())
}

async fn insert_sources(db: &mut AnyConnection, sources: &[&NewSource]) -> Result<(), sqlx::Error> {
    for source in sources {
        sqlx::query("INSERT INTO key_sources (id, kind, name, network, account, sealed, xpub, mac, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(source.id.to_string())
            .bind(source.kind.name())
            .bind(&source.name)
            .bind(source.network.as_ref().map(Network::as_str))
            .bind(i64::from(source.account))
            .bind(source.sealed.as_deref())
            .bind(source.xpub.as_deref())
            .bind(source.mac.as_deref())
            .bind(source.created_at.millis())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

async fn insert_merchants(db: &mut AnyConnection, merchants: &[&NewMerchant]) -> Result<(), sqlx::Error> {
    for merchant in merchants {
        sqlx::query("INSERT INTO merchants (id, name, webhook_url, webhook_secret, created_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(merchant.id.to_string())
            .bind(&merchant.name)
            .bind(merchant.webhook_url.as_deref())
            .bind(&merchant.webhook_secret)
            .bind(merchant.created_at.millis())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

async fn put_webhook_events(db: &mut AnyConnection, merchant: MerchantId, events: Option<&str>) -> Applied {
    let changed =
        sqlx::query("UPDATE merchants SET webhook_events = $1 WHERE id = $2").bind(events).bind(merchant.to_string()).execute(db).await?;
    Ok(one(&changed))
}

async fn put_webhook_url(db: &mut AnyConnection, merchant: MerchantId, url: Option<&str>) -> Applied {
    let changed =
        sqlx::query("UPDATE merchants SET webhook_url = $1 WHERE id = $2").bind(url).bind(merchant.to_string()).execute(db).await?;
    Ok(one(&changed))
}

async fn insert_api_keys(db: &mut AnyConnection, keys: &[&NewApiKey]) -> Result<(), sqlx::Error> {
    for key in keys {
        sqlx::query("INSERT INTO api_keys (id, merchant_id, secret_hash, scopes, livemode, created_at, name, expires_at, allowed_ips) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(key.id.to_string())
            .bind(key.merchant.to_string())
            .bind(&key.secret_hash)
            .bind(&key.scopes)
            .bind(i64::from(key.livemode))
            .bind(key.created_at.millis())
            .bind(key.name.as_deref())
            .bind(millis(key.expires_at))
            .bind(&key.allowed_ips)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Table, id column and column of a place.
pub(super) const fn place(place: SealedIn) -> (&'static str, &'static str, &'static str) {
    match place {
        SealedIn::WalletKey => ("usdt_wallets", "id", "sealed_key"),
        SealedIn::WalletTag => ("usdt_wallets", "id", "tag"),
        SealedIn::LeaseTag => ("leases", "id", "tag"),
        SealedIn::Seed => ("key_sources", "id", "sealed"),
        SealedIn::SourceMac => ("key_sources", "id", "mac"),
        SealedIn::WebhookSecret => ("merchants", "id", "webhook_secret"),
        SealedIn::PreviousSecret => ("merchants", "id", "previous_secret"),
        SealedIn::EndpointSecret => ("webhook_endpoints", "id", "secret"),
        SealedIn::PreviousEndpointSecret => ("webhook_endpoints", "id", "previous_secret"),
        SealedIn::TotpSecret => ("users", "id", "totp_secret"),
        SealedIn::Setting => ("settings", "name", "value"),
    }
}

/// Puts new texts in the place of old ones, many at a time.
async fn reseal(db: &mut AnyConnection, reseals: &[&Reseal]) -> Applied {
    let mut rest = reseals.to_vec();
    rest.sort_by_key(|reseal| reseal.place);
    for group in rest.chunk_by(|a, b| a.place == b.place) {
        let Some(first) = group.first() else { continue };
        let (table, id, column) = place(first.place);
        let changed = write_rows(
            db,
            group,
            "(CAST(? AS TEXT),CAST(? AS TEXT),CAST(? AS TEXT))",
            |rows| {
                format!(
                    "UPDATE {table} SET {column} = asked.column3 FROM (VALUES {rows}) AS asked \
                     WHERE {table}.{id} = asked.column1 AND {table}.{column} = asked.column2"
                )
            },
            |statement, reseal| statement.bind(reseal.id.as_str()).bind(reseal.old.as_str()).bind(reseal.new.as_str()),
        )
        .await?;
        if usize::try_from(changed) != Ok(group.len()) {
            return Ok(Commit::Conflict);
        }
    }
    Ok(Commit::Done)
}

/// A source's index moves from where the caller saw it, so that two callers never use the same.
async fn move_index(db: &mut AnyConnection, derivation: &Derivation) -> Applied {
    let moved = if derivation.from == 0 {
        sqlx::query("INSERT INTO derivations (source_id, network, next_index) VALUES ($1, $2, $3)")
            .bind(derivation.source.to_string())
            .bind(derivation.network.as_str())
            .bind(i64::from(derivation.to))
            .execute(db)
            .await?
    } else {
        sqlx::query("UPDATE derivations SET next_index = $1 WHERE source_id = $2 AND network = $3 AND next_index = $4")
            .bind(i64::from(derivation.to))
            .bind(derivation.source.to_string())
            .bind(derivation.network.as_str())
            .bind(i64::from(derivation.from))
            .execute(db)
            .await?
    };
    Ok(one(&moved))
}

/// Appends to the hash chain. The lock on the one row of `audit_head` puts writers in line.
pub(super) async fn append_audit(db: &mut AnyConnection, rows: &[&NewAudit]) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, $1) ON CONFLICT (id) DO NOTHING")
        .bind(audit::GENESIS)
        .execute(&mut *db)
        .await?;
    let head = sqlx::query("UPDATE audit_head SET seq = seq + $1 WHERE id = 1 RETURNING seq, hash")
        .bind(i64::try_from(rows.len()).unwrap_or(i64::MAX))
        .fetch_one(&mut *db)
        .await?;
    let last: i64 = head.try_get("seq")?;
    let mut hash: String = head.try_get("hash")?;
    let first = last.saturating_sub(i64::try_from(rows.len()).unwrap_or(0)).saturating_add(1);
    for (seq, row) in (first..).zip(rows) {
        let entry = audit_entry(seq, row);
        hash = audit::link(&hash, &entry);
        sqlx::query("INSERT INTO audit_log (seq, at, actor, action, subject, origin, reason, detail, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(seq)
            .bind(row.at.millis())
            .bind(&row.actor)
            .bind(row.action.name())
            .bind(&row.subject)
            .bind(&row.origin)
            .bind(&row.reason)
            .bind(&row.detail)
            .bind(&hash)
            .execute(&mut *db)
            .await?;
    }
    sqlx::query("UPDATE audit_head SET hash = $1 WHERE id = 1").bind(&hash).execute(db).await?;
    Ok(())
}

fn audit_entry(seq: i64, row: &NewAudit) -> audit::Entry {
    audit::Entry {
        seq: u64::try_from(seq).unwrap_or(0),
        at: row.at,
        actor: row.actor.clone(),
        action: row.action.name().to_owned(),
        subject: row.subject.clone(),
        origin: row.origin.clone(),
        reason: row.reason.clone(),
        detail: row.detail.clone(),
    }
}

async fn change_alert(db: &mut AnyConnection, change: &AlertChange) -> Applied {
    let result = sqlx::query(
        "UPDATE alerts SET status = $1, changed_at = $2, changed_by = $3, reason = COALESCE($4, reason) WHERE id = $5 AND status = $6",
    )
    .bind(change.to.name())
    .bind(change.at.millis())
    .bind(&change.by)
    .bind(change.reason.as_deref())
    .bind(change.id.to_string())
    .bind(change.from.name())
    .execute(&mut *db)
    .await?;
    if one(&result) == Commit::Done {
        tell_alert(db, &change.id.to_string(), change.event, change.at).await?;
    }
    Ok(one(&result))
}

/// The same thing raises one alert, however often it is seen. What comes back after its alert was
/// closed opens it again. Only an alert that is open now and was not before is told.
async fn insert_alert(db: &mut AnyConnection, alert: &NewAlert) -> Result<(), sqlx::Error> {
    let opened: Option<String> = sqlx::query_scalar(
        "INSERT INTO alerts (id, kind, about, detail, status, created_at) VALUES ($1, $2, $3, $4, 'open', $5) \
         ON CONFLICT (kind, about) DO UPDATE SET status = 'open', detail = excluded.detail WHERE alerts.status = 'closed' AND $6 = 1 \
         RETURNING id",
    )
    .bind(alert.id.to_string())
    .bind(alert.kind.name())
    .bind(&alert.about)
    .bind(&alert.detail)
    .bind(alert.at.millis())
    .bind(i64::from(alert.kind.comes_back()))
    .fetch_optional(&mut *db)
    .await?;
    match opened {
        Some(id) => tell_alert(db, &id, alert.event, alert.at).await,
        None => Ok(()),
    }
}

/// Adds to a membership, once for an order. A plan that is not ours is the shop's own word and means
/// nothing here.
async fn insert_period(db: &mut AnyConnection, new: &NewPeriod) -> Result<(), sqlx::Error> {
    // Takes the plan's row, so that two orders of one user come one after the other.
    let plan = sqlx::query("UPDATE plans SET version = version WHERE id = $1 AND merchant_id = $2 RETURNING name, duration_days")
        .bind(&new.plan)
        .bind(new.merchant.to_string())
        .fetch_optional(&mut *db)
        .await?;
    let Some(plan) = plan else { return Ok(()) };
    let until: Option<i64> = sqlx::query_scalar(
        "SELECT MAX(ends_at) FROM membership_periods WHERE merchant_id = $1 AND user_id = $2 AND plan_id = $3 AND withdrawn_at IS NULL",
    )
    .bind(new.merchant.to_string())
    .bind(&new.user)
    .bind(&new.plan)
    .fetch_one(&mut *db)
    .await?;
    let days = u32::try_from(plan.try_get::<i64, _>("duration_days")?).unwrap_or(0);
    let (starts_at, ends_at) = membership::period(new.at, until.map(Time::from_millis), days);
    let added = sqlx::query(
        "INSERT INTO membership_periods (order_id, merchant_id, user_id, plan_id, starts_at, ends_at, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (order_id) DO NOTHING",
    )
    .bind(new.order.to_string())
    .bind(new.merchant.to_string())
    .bind(&new.user)
    .bind(&new.plan)
    .bind(starts_at.millis())
    .bind(ends_at.millis())
    .bind(new.at.millis())
    .execute(&mut *db)
    .await?;
    if one(&added) == Commit::Conflict {
        return Ok(());
    }
    let name: String = plan.try_get("name")?;
    let view = ActivatedView::new(new, &name, starts_at, ends_at);
    let told = NewEvent {
        id: new.event,
        kind: EventType::MembershipActivated,
        merchant: new.merchant,
        subject: new.order.into(),
        at: new.at,
        body: serde_json::to_string(&notify::body(EventType::MembershipActivated, new.at, &view)).unwrap_or_default(),
        delivery: new.url.clone().map(|url| (new.event.delivery(), url)),
    };
    insert_events(db, &[&told]).await
}

/// The event of an alert as it stands now, for the merchant `main`, who is the owner.
async fn tell_alert(db: &mut AnyConnection, id: &str, event: EventId, at: Time) -> Result<(), sqlx::Error> {
    let owner = sqlx::query("SELECT id, webhook_url, webhook_events FROM merchants WHERE name = $1")
        .bind(MAIN_MERCHANT)
        .fetch_optional(&mut *db)
        .await?;
    // Before the first start there is nobody to tell.
    let Some(owner) = owner else { return Ok(()) };
    let row = sqlx::query("SELECT * FROM alerts WHERE id = $1").bind(id).fetch_one(&mut *db).await?;
    let unreadable = |error: StoreError| sqlx::Error::Decode(error.to_string().into());
    let alert = alert(&row).map_err(unreadable)?;
    let is_wanted = takes(owner.try_get::<Option<String>, _>("webhook_events")?.as_deref(), EventType::WalletAlert);
    let url = owner.try_get::<Option<String>, _>("webhook_url")?.filter(|_| is_wanted);
    let told = NewEvent {
        id: event,
        kind: EventType::WalletAlert,
        merchant: parse(&owner, "id").map_err(unreadable)?,
        subject: alert.id.into(),
        at,
        body: serde_json::to_string(&notify::body(EventType::WalletAlert, at, &AlertView::from(&alert))).unwrap_or_default(),
        delivery: url.map(|url| (event.delivery(), url)),
    };
    if alert.kind.is_sent() { insert_events(db, &[&told]).await } else { insert_untold(db, &[&told]).await }
}

async fn change_delivery(db: &mut AnyConnection, change: &DeliveryChange) -> Result<(), sqlx::Error> {
    let (status, due_at) = match change.state {
        DeliveryState::Delivered => ("delivered", None),
        DeliveryState::Due(at) => ("due", Some(at.millis())),
        DeliveryState::Failed => ("failed", None),
    };
    sqlx::query(
        "UPDATE payment_webhooks SET status = $1, tries = $2, due_at = COALESCE($3, due_at), last_code = $4, last_error = $5, last_tried_at = $6, \
         before_status = NULL, before_due_at = NULL, claimed_by = NULL, claimed_until = NULL WHERE id = $7 AND COALESCE(claimed_by, '') = $8",
    )
    .bind(status)
    .bind(i64::from(change.tries))
    .bind(due_at)
    .bind(change.code.map(i64::from))
    .bind(change.error.as_deref())
    .bind(change.at.millis())
    .bind(change.id.to_string())
    .bind(claim_text(change.claim.as_deref()))
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "INSERT INTO webhook_attempts (delivery_id, number, at, took_ms, url, code, error, answer) \
         SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, $4, $5, $6, $7 FROM webhook_attempts WHERE delivery_id = $1",
    )
    .bind(change.id.to_string())
    .bind(change.at.millis())
    .bind(i64::try_from(change.took.millis()).unwrap_or(i64::MAX))
    .bind(&change.url)
    .bind(change.code.map(i64::from))
    .bind(change.error.as_deref())
    .bind(change.answer.as_deref())
    .execute(db)
    .await?;
    Ok(())
}

async fn keep_answer(db: &mut AnyConnection, answer: &KeptAnswer) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO idempotency_keys (scope, body_mac, status, location, body, created_at) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(&answer.scope)
        .bind(&answer.body_mac)
        .bind(i64::from(answer.status))
        .bind(answer.location.as_deref())
        .bind(&answer.body)
        .bind(answer.at.millis())
        .execute(db)
        .await?;
    Ok(())
}
