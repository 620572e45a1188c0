//! What must be true of the books once the followers have come to rest, held against the chains
//! themselves. Nothing here asks the gateway's own rules who owns what: the ownership of money is
//! worked out anew from the leases and the chains' blocks.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection as _, Row as _};
use tidegate::clock;
use tidegate::safe;
use tidegate::store::{self, AlertFilter, OrderFilter, OrderRow};
use tidegate_rules::alert::AlertKind;
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, BlockRef, Network, TransferKey};
use tidegate_rules::id::OrderId;
use tidegate_rules::notify::{secret_bytes, verify};
use tidegate_rules::order::{Mark, Status};
use tidegate_rules::time::Time;
use tidegate_rules::wallet::{RiskLevel, WalletStatus};

use super::world::{PAYER, World};
use crate::receiver::Delivery;

/// What was seen before, so that what may never change can be held to it.
#[derive(Default)]
pub struct Memory {
    status: BTreeMap<OrderId, Status>,
}

/// How often each thing happened: a world in which nothing happens proves nothing.
#[allow(dead_code, reason = "printed for the reader")]
#[derive(Default, Debug)]
pub struct Seen {
    pub orders: usize,
    pub paid: usize,
    pub paid_late: usize,
    pub expired: usize,
    pub cancelled: usize,
    pub reverted: usize,
    pub overpaid: usize,
    pub transfers: BTreeMap<String, usize>,
    pub blocks: usize,
    pub wallets: usize,
    pub released: usize,
}

/// A lease as it is stored, of any order.
struct Lease {
    order: OrderId,
    network: Network,
    wallet: String,
    address: Address,
    from: u64,
    to: Option<u64>,
    late_until: i64,
}

/// A stored transfer, orphaned ones too.
struct Stored {
    id: String,
    block: (u64, String, i64),
    value: Raw,
    status: String,
    disposition: String,
    order: Option<String>,
    promoted: bool,
}

/// What the chains say became of a transfer.
struct True {
    at: BlockRef,
    from: Address,
    to: Address,
    value: Raw,
}

/// Everything that is stored, and everything that is true.
struct Books {
    orders: BTreeMap<OrderId, OrderRow>,
    leases: Vec<Lease>,
    stored: BTreeMap<(Network, TransferKey), Stored>,
    truth: BTreeMap<(Network, TransferKey), True>,
    journal: Vec<(String, i64, String, String, Raw)>,
    alerts: BTreeSet<(String, String)>,
    events: BTreeMap<String, Vec<String>>,
}

/// Says what is not as it must be, if anything is. While the followers work, that may be so; once
/// they rest, it is a bug.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

async fn all_orders(world: &World) -> Vec<OrderRow> {
    world.gateway().store.list_orders(OrderFilter::default(), 100_000).await.unwrap()
}

fn hex_address(text: &str) -> Address {
    let bytes: Vec<u8> = (0..20).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect();
    Address(bytes.try_into().unwrap())
}

fn height(number: i64) -> u64 {
    u64::try_from(number).unwrap()
}

impl Books {
    async fn read(world: &World) -> Self {
        let url = world.config.database.url.expose();
        let mut db = sqlx::AnyConnection::connect(&url).await.unwrap();
        let leases = sqlx::query(
            "SELECT order_id, network, wallet_id, address_hex, from_height, to_height, late_until FROM leases \
             ORDER BY from_height, to_height IS NULL, to_height, id",
        )
        .fetch_all(&mut db)
        .await
        .unwrap()
        .iter()
        .map(|row| Lease {
            order: row.get::<String, _>(0).parse().unwrap(),
            network: Network::new(&row.get::<String, _>(1)),
            wallet: row.get(2),
            address: hex_address(&row.get::<String, _>(3)),
            from: height(row.get(4)),
            to: row.get::<Option<i64>, _>(5).map(height),
            late_until: row.get(6),
        })
        .collect();
        let rows = sqlx::query(
            "SELECT network, tx_hash, ordinal, id, block_number, block_hash, block_time, raw_value, status, disposition, order_id, promoted FROM blockchain_transactions",
        )
        .fetch_all(&mut db)
        .await
        .unwrap();
        let count = rows.len();
        let stored: BTreeMap<_, _> = rows
            .iter()
            .map(|row| {
                let key = TransferKey {
                    tx_hash: row.get::<String, _>(1).parse().unwrap(),
                    ordinal: u32::try_from(row.get::<i64, _>(2)).unwrap(),
                };
                let stored = Stored {
                    id: row.get(3),
                    block: (height(row.get(4)), row.get(5), row.get(6)),
                    value: row.get::<String, _>(7).parse().unwrap(),
                    status: row.get(8),
                    disposition: row.get(9),
                    order: row.get(10),
                    promoted: row.get::<i64, _>(11) == 1,
                };
                ((Network::new(&row.get::<String, _>(0)), key), stored)
            })
            .collect();
        assert_eq!(stored.len(), count, "I3: a transfer is stored twice");
        let journal = sqlx::query("SELECT transfer_id, turn, debit, credit, raw_value FROM journal ORDER BY transfer_id, turn")
            .fetch_all(&mut db)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get::<String, _>(4).parse().unwrap()))
            .collect();
        let alerts = sqlx::query("SELECT kind, about FROM alerts").fetch_all(&mut db).await.unwrap();
        let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in sqlx::query("SELECT subject_id, kind FROM events ORDER BY seq").fetch_all(&mut db).await.unwrap() {
            events.entry(row.get(0)).or_default().push(row.get(1));
        }
        db.close().await.unwrap();

        let mut truth = BTreeMap::new();
        for (name, chain) in &world.chains {
            let own: BTreeSet<Address> = world.own(name).await.into_iter().collect();
            for number in world.first[name] + 1..=chain.tip().number {
                let block = chain.block(number).unwrap();
                for transfer in block.transfers.iter().filter(|transfer| own.contains(&transfer.to)) {
                    let found = True { at: block.at, from: transfer.from, to: transfer.to, value: transfer.value };
                    truth.insert((name.clone(), transfer.key), found);
                }
                for log in block.unreadable {
                    let Some(to) = log.mentions.iter().find(|address| own.contains(*address)).copied() else { continue };
                    truth.insert((name.clone(), log.key), True { at: block.at, from: Address([0; 20]), to, value: Raw::ZERO });
                }
            }
        }
        let orders = all_orders(world).await.into_iter().map(|order| (order.id, order)).collect();
        Self { orders, leases, stored, truth, journal, alerts: alerts.iter().map(|row| (row.get(0), row.get(1))).collect(), events }
    }
}

/// Checks everything once; `Err` says the first thing that is not so.
pub async fn all(world: &World, memory: &mut Memory) -> Result<(), String> {
    let gateway = world.gateway();
    // I8: the stored blocks are the chain's own, without a gap, up to its tip.
    for (name, chain) in &world.chains {
        let row = gateway.store.network(name).await.unwrap().ok_or("no cursor yet")?;
        ensure!(row.halted.is_none(), "{name} is halted: {:?}", row.halted);
        let tip = row.recent.last().unwrap();
        ensure!(*tip == chain.tip(), "{name} is at {} and the chain at {}", tip.number, chain.tip().number);
        ensure!(row.recent.windows(2).all(|two| two[0].hash == two[1].parent && two[0].number + 1 == two[1].number), "I8: a gap on {name}");
        ensure!(row.recent.iter().all(|block| chain.block(block.number).unwrap().at == *block), "I8: another branch on {name}");
        ensure!(row.recent[0].number == world.first[name], "I8: {name} begins at {}", row.recent[0].number);
        ensure!(row.peak >= tip.number, "the peak of {name} is below its tip");
    }
    limits(world).await?;
    let books = Books::read(world).await;
    let owners = owners(world, &books)?;
    transfers(world, &books, &owners)?;
    orders(world, &books, &owners)?;
    leases(world, &books).await?;
    journal(&books, &owners)?;
    events(world, &books)?;
    history(&books, memory);
    Ok(())
}

/// I13: what has a limit keeps it.
async fn limits(world: &World) -> Result<(), String> {
    let store = world.gateway().store.clone();
    for name in world.chains.keys() {
        let kept = store.network(name).await.unwrap().map_or(0, |row| row.recent.len());
        ensure!(kept < BLOCKS_KEPT_MAX, "I13: {kept} blocks of {name} are kept");
        let wallets = u64::try_from(world.own(name).await.len()).unwrap();
        ensure!(wallets <= world.config.pool.max_wallets, "I13: {name} has {wallets} wallets");
    }
    // What only somebody who edits the database can bring about.
    for kind in [AlertKind::AddressTampered, AlertKind::KeyDoesNotOpen, AlertKind::AuditBroken] {
        let told = store.alerts(AlertFilter { kind: Some(kind), ..AlertFilter::default() }, 1).await.unwrap();
        ensure!(told.is_empty(), "nobody touched the database: {told:?}");
    }
    Ok(())
}

/// I11: nowhere in the database's files stands a secret as it is, and every key opens for its wallet.
pub async fn secrets(world: &World) {
    safe::check_all(&world.gateway()).await;
    limits(world).await.unwrap();
    let master = world.config.master_key.as_ref().unwrap().text.expose().to_owned();
    let raw: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&master[2 * n..2 * n + 2], 16).unwrap()).collect();
    let secret = world.secret.clone().expect("the shop was made");
    let bytes = secret_bytes(&secret).unwrap();
    let path = world.config.database.url.expose();
    let path = path.trim_start_matches("sqlite:");
    let mut read = 0;
    for ending in ["", "-wal"] {
        let Ok(file) = std::fs::read(format!("{path}{ending}")) else { continue };
        read += file.len();
        for needle in [master.as_bytes(), &raw, secret.as_bytes(), &bytes] {
            assert!(!file.windows(needle.len()).any(|found| found == needle), "I11: a secret stands in {path}{ending}");
        }
    }
    assert!(read > 100_000, "the database was not found at {path}");
}

/// I10: whatever was sent under an event's id, however often, is what was stored with the event, and
/// is signed with the shop's secret.
pub async fn deliveries(world: &World, sent: &[Delivery]) {
    let mut db = sqlx::AnyConnection::connect(&world.config.database.url.expose()).await.unwrap();
    let rows = sqlx::query("SELECT id, body FROM events").fetch_all(&mut db).await.unwrap();
    db.close().await.unwrap();
    let bodies: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let key = secret_bytes(world.secret.as_ref().unwrap()).unwrap();
    for delivery in sent {
        let stored = bodies.get(&delivery.id).unwrap_or_else(|| panic!("I10: {} was sent and never happened", delivery.id));
        assert_eq!(stored.as_bytes(), delivery.body, "I10: {} was sent as something else", delivery.id);
        let at: i64 = delivery.timestamp.parse().unwrap();
        verify(&key, &delivery.id, at, &delivery.body, &delivery.signature, Time::from_secs(at)).unwrap();
    }
}

/// What the follower keeps of a chain, and what it may have beyond that before it forgets.
const BLOCKS_KEPT_MAX: usize = 8_192 + 512 + 100;

/// Whose a transfer is, and as what it is to be recorded.
type Owner = (Option<OrderId>, &'static str);

fn decimals(world: &World, network: &Network) -> u8 {
    world.chain(network).config().decimals
}

/// Whose a transfer was when it was first seen in this block, by the leases; nobody's if `None`.
fn claimed(books: &Books, network: &Network, to: Address, block: Mark) -> Option<OrderId> {
    let leases = books.leases.iter();
    let lease = leases.filter(|lease| lease.network == *network && lease.address == to && lease.from < block.number);
    let row = &books.orders[&lease.max_by_key(|lease| lease.from)?.order];
    (block.time <= row.order.terms.late_until()).then_some(row.id)
}

/// Who owns each transfer that is on a chain, worked out anew. It keeps the owner that it had when
/// it was first seen; after a fork that may have been in any of the blocks that it ever was in.
fn owners(world: &World, books: &Books) -> Result<BTreeMap<(Network, TransferKey), Owner>, String> {
    let mut owners = BTreeMap::new();
    for (name, real) in &books.truth {
        let (network, _) = name;
        let Some(stored) = books.stored.get(name) else { return Err(format!("I9: {name:?} in block {} is not recorded", real.at.number)) };
        let amount = real.value.to_amount(decimals(world, network));
        let is_readable = amount.is_some() && !real.value.is_zero();
        let is_own = real.from != PAYER;
        let possible: Vec<Option<OrderId>> = match (is_readable, is_own) {
            (true, false) => world.ever[name].iter().map(|block| claimed(books, network, real.to, *block)).collect(),
            _ => vec![None],
        };
        let owner = possible.iter().find(|owner| owner.map(|order| order.to_string()) == stored.order);
        let Some(owner) = owner.copied() else {
            let seen = &world.ever[name];
            return Err(format!(
                "I9: {name:?} in {seen:?} is one's of {possible:?}, recorded as {} of {:?}",
                stored.disposition, stored.order
            ));
        };
        let recorded_as = match owner.map(|id| &books.orders[&id].order) {
            Some(order) if order.status == Status::Cancelled => "late",
            Some(order) if real.at.time <= order.terms.expires_at => "matched",
            Some(order) if stored.promoted && real.at.time <= order.terms.late_until() => "matched",
            Some(_) => "late",
            None if !is_readable => "unreadable",
            None if is_own => "own",
            None if amount.is_some_and(|amount| amount < world.config.pool.dust_below) => "dust",
            None => "stray",
        };
        owners.insert(name.clone(), (owner, recorded_as));
    }
    Ok(owners)
}

/// I9: every transfer to an address of ours that is on a chain is recorded as what it is, and
/// nothing else stands.
fn transfers(world: &World, books: &Books, owners: &BTreeMap<(Network, TransferKey), Owner>) -> Result<(), String> {
    for (name, real) in &books.truth {
        let (stored, (order, disposition)) = (&books.stored[name], owners[name]);
        let block = (real.at.number, real.at.hash.to_string(), real.at.time.millis());
        ensure!(stored.status != "orphaned", "I9: {name:?} is on the chain in block {} and recorded as orphaned", real.at.number);
        ensure!(stored.block == block, "I9: {name:?} is in {block:?}, recorded in {:?}", stored.block);
        ensure!(stored.value == real.value, "I9: {name:?} moves {}, recorded {}", real.value, stored.value);
        ensure!(
            (stored.order.clone(), stored.disposition.as_str()) == (order.map(|order| order.to_string()), disposition),
            "I9: {name:?} in block {} is {disposition} of {order:?}, recorded as {} of {:?}",
            real.at.number,
            stored.disposition,
            stored.order
        );
        let (network, key) = name;
        let config = world.config.networks.iter().find(|found| found.name == *network).unwrap();
        let depth = order.map_or(config.deepest(), |order| books.orders[&order].order.terms.depth(network));
        if real.at.number <= world.settled_number(network, depth) {
            ensure!(stored.status == "confirmed", "{name:?} in block {} is deep enough and {}", real.at.number, stored.status);
        }
        if stored.status == "confirmed" {
            let most = world.settled[&(network.clone(), depth)].0;
            ensure!(real.at.number <= most, "{name:?} in block {} settled above {most}", real.at.number);
        }
        // Unmatched money is a row and an alert.
        let about = format!("{network} {}/{}", key.tx_hash, key.ordinal);
        let alert = match disposition {
            "stray" => Some("stray_money"),
            "unreadable" => Some("unreadable_log"),
            _ => None,
        };
        if let Some(kind) = alert {
            ensure!(books.alerts.contains(&(kind.to_owned(), about.clone())), "I9: {disposition} {about} has no alert");
        }
        // What once counted and comes again too late was alerted as money that was taken back.
        if let (Some(order), "late", "confirmed", false) = (order, disposition, stored.status.as_str(), stored.promoted) {
            let alert = ("late_money".to_owned(), format!("{order} {about}"));
            ensure!(books.alerts.contains(&alert), "late money without an alert: {alert:?}");
        }
    }
    for (name, stored) in &books.stored {
        let gone = !books.truth.contains_key(name) && stored.disposition != "unreadable";
        ensure!(!gone || stored.status == "orphaned", "{name:?} is not on the chain and recorded as {}", stored.status);
        if gone {
            ensure!(!stored.promoted || stored.order.is_some(), "{name:?} is promoted and nobody's");
        }
    }
    Ok(())
}

/// Adds up in units of 10⁻¹⁸, which every value here fits.
fn total<'a>(world: &World, parts: impl Iterator<Item = (&'a Network, Raw)>) -> Amount {
    let sum = parts.fold(Raw::ZERO, |sum, (network, value)| sum.saturating_add(value.scaled(18 - decimals(world, network))));
    sum.to_amount(18).unwrap()
}

fn orders(world: &World, books: &Books, owners: &BTreeMap<(Network, TransferKey), Owner>) -> Result<(), String> {
    for id in &world.opened {
        ensure!(books.orders.contains_key(id), "I6: {id} was opened and is not there");
    }
    for row in books.orders.values() {
        let (id, order, terms) = (row.id, &row.order, &row.order.terms);
        ensure!(store::is_consistent(row), "I4: {id} is stored as {:?} {:?} {:?}", order.tally, order.status, order.exception);
        let counted = |is_confirmed: bool| {
            let mine = owners.iter().filter(|(_, owner)| **owner == (Some(id), "matched"));
            let mine = mine.filter(|(name, _)| !is_confirmed || books.stored[*name].status == "confirmed");
            total(world, mine.map(|(name, _)| (&name.0, books.truth[name].value)))
        };
        let (received, confirmed) = (counted(false), counted(true));
        ensure!(order.tally.received == received, "{id}: {received} arrived, recorded {}", order.tally.received);
        ensure!(order.tally.confirmed == confirmed, "{id}: {confirmed} settled, recorded {}", order.tally.confirmed);

        let passed = |depths: &dyn Fn(&Network) -> Time| {
            !order.leases.is_empty() && order.leases.iter().all(|lease| depths(&lease.network) > terms.expires_at)
        };
        // I5: it expired only when the settled chain of every network it leased on was past its time.
        if order.facts.expired_at.is_some() {
            let latest = |network: &Network| world.settled[&(network.clone(), terms.depth(network))].1;
            ensure!(order.leases.is_empty() || passed(&latest), "I5: {id} expired and no settled chain is past {}", terms.expires_at);
            ensure!(!order.leases.is_empty() || world.latest_ours.max(clock::now()) > terms.expires_at, "I5: {id} expired before its time");
        }
        if order.facts.paid.is_some() && !order.facts.reverted {
            ensure!(received >= terms.due(), "{id} is paid with {received} of {} and not marked", terms.due());
        }
        // Nothing that was due is left undone.
        if matches!(order.status, Status::Pending | Status::Confirming) {
            ensure!(confirmed < terms.due(), "{id} is {:?} though {confirmed} settled", order.status);
        }
        if order.status == Status::Pending {
            let settled_now = |network: &Network| world.settled_time(network, terms.depth(network));
            ensure!(!passed(&settled_now), "{id} is pending though its time has settled");
        }
        // Late money that settles and completes an order pays it where that was agreed.
        if terms.accept_late && matches!(order.status, Status::Pending | Status::Expired) {
            let own = Some(id);
            let in_window = |name: &(Network, TransferKey)| books.truth[name].at.time <= terms.late_until();
            let is_settled = |name: &(Network, TransferKey)| books.stored[name].status == "confirmed";
            let mine = owners.iter().filter(|(name, owner)| owner.0 == own && in_window(name) && is_settled(name));
            let all = total(world, mine.map(|(name, _)| (&name.0, books.truth[name].value)));
            ensure!(all < terms.due(), "{id} is {:?} though {all} settled, late money included", order.status);
        }
    }
    Ok(())
}

/// I2, and that wallets follow their leases.
async fn leases(world: &World, books: &Books) -> Result<(), String> {
    let mut by_wallet: BTreeMap<&str, Vec<&Lease>> = BTreeMap::new();
    for lease in &books.leases {
        by_wallet.entry(&lease.wallet).or_default().push(lease);
    }
    let gateway = world.gateway();
    for (wallet, leases) in &by_wallet {
        let live: Vec<_> = leases.iter().filter(|lease| lease.to.is_none()).collect();
        ensure!(live.len() <= 1, "I2: {wallet} has {} live leases", live.len());
        // From the first block only for a wallet that nobody could know; each after the one before. One
        // that ended where it began comes before the next that begins there, whatever the ids say: a
        // wrong clock made them.
        for (earlier, later) in leases.iter().zip(leases.iter().skip(1)) {
            let before = earlier.to.is_some_and(|to| to <= later.from);
            ensure!(before, "{wallet}: a lease from {} begins inside another, from {} to {:?}", later.from, earlier.from, earlier.to);
            ensure!(later.from > 0, "{wallet} was leased before and is leased from 0");
        }
        let row = gateway.store.wallet(wallet.parse().unwrap()).await.unwrap().unwrap();
        let leased_to = live.first().map(|lease| lease.order);
        ensure!(row.order == leased_to, "{wallet} says it is leased to {:?}, and {leased_to:?} has it", row.order);
        match row.status {
            // Its money left without us; that lies over whatever its lease says.
            WalletStatus::Frozen => {
                let filter = AlertFilter { kind: Some(AlertKind::MoneyLeft), ..AlertFilter::default() };
                let told = gateway.store.alerts(filter, 200).await.unwrap();
                ensure!(told.iter().any(|alert| alert.detail.contains(&row.address_text)), "{wallet} is frozen and nobody was told why");
                ensure!(row.risk_level == RiskLevel::Blocked, "{wallet} is frozen and trusted: {:?}", row.risk_level);
            }
            status => ensure!((status == WalletStatus::Occupied) == leased_to.is_some(), "{wallet} is {status:?}"),
        }
        for lease in live {
            let order = &books.orders[&lease.order].order;
            let over = matches!(order.status, Status::Paid | Status::Expired | Status::Cancelled);
            let settled = world.settled_time(&lease.network, order.terms.depth(&lease.network));
            let ends = over && settled.millis() > lease.late_until && settled > order.terms.late_until();
            ensure!(!ends, "the lease of {wallet} to {} is over and lives", lease.order);
        }
        for lease in leases.iter().filter(|lease| lease.to.is_some()) {
            let order = &books.orders[&lease.order].order;
            let latest = world.settled[&(lease.network.clone(), order.terms.depth(&lease.network))];
            ensure!(latest.1 > order.terms.late_until(), "the lease of {wallet} to {} ended inside its late window", lease.order);
            ensure!(lease.to.is_some_and(|to| to <= latest.0), "the lease of {wallet} ended above what is settled");
        }
    }
    // An order leases once a network.
    for row in books.orders.values() {
        let networks: BTreeSet<&Network> = row.order.leases.iter().map(|lease| &lease.network).collect();
        ensure!(networks.len() == row.order.leases.len(), "{} has two leases on a network", row.id);
    }
    Ok(())
}

/// The books hold what is settled, account by account, and nothing else.
fn journal(books: &Books, owners: &BTreeMap<(Network, TransferKey), Owner>) -> Result<(), String> {
    let mut net: BTreeMap<(&str, &str), i128> = BTreeMap::new();
    let mut turns: BTreeMap<&str, i64> = BTreeMap::new();
    for (transfer, turn, debit, credit, value) in &books.journal {
        let next = turns.entry(transfer).or_default();
        ensure!(*turn == *next, "the journal of {transfer} goes from turn {next} to {turn}");
        *next += 1;
        let units: i128 =
            value.to_string().parse().map_err(|_| format!("the journal of {transfer} holds {value}, which no token moves"))?;
        *net.entry((transfer, debit)).or_default() += units;
        *net.entry((transfer, credit)).or_default() -= units;
    }
    net.retain(|_, sum| *sum != 0);
    for (name, stored) in &books.stored {
        let mine: BTreeMap<&str, i128> =
            net.iter().filter(|((transfer, _), _)| *transfer == stored.id).map(|((_, account), sum)| (*account, *sum)).collect();
        let booked = stored.status == "confirmed" && stored.disposition != "unreadable";
        if !booked {
            ensure!(mine.is_empty(), "{name:?} is {} {}, and the books hold {mine:?}", stored.status, stored.disposition);
            continue;
        }
        let units: i128 = stored.value.to_string().parse().unwrap();
        let wallet: Vec<i128> = mine.iter().filter(|(account, _)| account.starts_with("wallet:")).map(|(_, sum)| *sum).collect();
        let source = match owners.get(name).copied().unwrap_or((None, "")) {
            (_, "own") => None,
            (Some(order), _) => Some(format!("order:{order}")),
            _ => Some("unmatched".to_owned()),
        };
        match source {
            Some(source) => {
                ensure!(wallet == [units], "{name:?} moved {units}, and the books hold {mine:?}");
                ensure!(mine.get(source.as_str()) == Some(&-units), "{name:?} came from {source}, and the books hold {mine:?}");
                ensure!(mine.len() == 2, "{name:?}: the books hold {mine:?}");
            }
            None => ensure!(wallet.iter().sum::<i128>() == 0 && wallet.len() != 1, "{name:?} is our own, and the books hold {mine:?}"),
        }
    }
    Ok(())
}

/// I10: what happened is told, once where it happens once.
fn events(world: &World, books: &Books) -> Result<(), String> {
    for row in books.orders.values() {
        let told = books.events.get(&row.id.to_string()).map_or(&[][..], Vec::as_slice);
        let count = |kind: &str| told.iter().filter(|found| *found == kind).count();
        let facts = &row.order.facts;
        ensure!(told.first().is_some_and(|first| first == "order.pending"), "{} was told as {told:?}", row.id);
        for (kind, times) in [
            ("order.pending", 1),
            ("order.paid", usize::from(facts.paid.is_some())),
            ("order.expired", usize::from(facts.expired_at.is_some())),
            ("order.cancelled", usize::from(facts.cancelled_at.is_some())),
        ] {
            ensure!(count(kind) == times, "I10: {} sent {kind} {} times, expected {times}: {told:?}", row.id, count(kind));
        }
        ensure!(!facts.reverted || count("order.payment_reverted") > 0, "{} is reverted and said nothing: {told:?}", row.id);
        let excess = row.order.tally.confirmed.saturating_sub(row.order.terms.amount);
        let overpaid = facts.paid.is_some() && !excess.is_zero();
        ensure!(!overpaid || count("order.overpaid") > 0, "{} is overpaid and said nothing: {told:?}", row.id);
    }
    let known: BTreeSet<String> = books.orders.keys().map(ToString::to_string).collect();
    ensure!(books.events.keys().all(|order| known.contains(order)), "an event about an order that is not there");
    ensure!(world.opened.len() <= books.orders.len(), "orders are missing");
    Ok(())
}

/// What never changes did not: a bug at once, followers at rest or not.
fn history(books: &Books, memory: &mut Memory) {
    for row in books.orders.values() {
        let now = row.order.status;
        let before = memory.status.insert(row.id, now);
        let allowed = match before {
            Some(Status::Paid) => now == Status::Paid,
            Some(Status::Cancelled) => now == Status::Cancelled,
            Some(Status::Expired) => matches!(now, Status::Expired | Status::Paid),
            _ => true,
        };
        assert!(allowed, "I7: {} was {before:?} and is {now:?}", row.id);
    }
}

pub async fn seen(world: &World) -> Seen {
    let books = Books::read(world).await;
    let count = |test: &dyn Fn(&OrderRow) -> bool| books.orders.values().filter(|row| test(row)).count();
    let mut transfers: BTreeMap<String, usize> = BTreeMap::new();
    for stored in books.stored.values() {
        *transfers.entry(format!("{} {}", stored.status, stored.disposition)).or_default() += 1;
    }
    Seen {
        orders: books.orders.len(),
        paid: count(&|row| row.order.facts.paid.is_some()),
        paid_late: count(&|row| row.order.facts.paid.is_some_and(|paid| paid.late)),
        expired: count(&|row| row.order.status == Status::Expired),
        cancelled: count(&|row| row.order.status == Status::Cancelled),
        reverted: count(&|row| books.events[&row.id.to_string()].iter().any(|kind| kind == "order.payment_reverted")),
        overpaid: count(&|row| books.events[&row.id.to_string()].iter().any(|kind| kind == "order.overpaid")),
        transfers,
        blocks: usize::try_from(world.chains.values().map(|chain| chain.tip().number).sum::<u64>()).unwrap(),
        wallets: books.leases.iter().map(|lease| &lease.wallet).collect::<BTreeSet<_>>().len(),
        released: books.leases.iter().filter(|lease| lease.to.is_some()).count(),
    }
}
