//! What the program asks the store. Every read is named after its question.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row as _};
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, BlockRef, Hash, Network, TransferKey};
use tidegate_rules::changes::Recorded;
use tidegate_rules::id::{EndpointId, MerchantId, OrderId, Subject, TransferId, WalletId};
use tidegate_rules::lease::{Lease, Window};
use tidegate_rules::order::{Depth, PaymentStatus, Status};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::{WalletKind, WalletStatus};

use super::apply::height;
use super::events::state;
use super::instances::unclaimed_deliveries;
use super::rows::{
    Busy, DueDelivery, EventRow, Found, KeptAnswerRow, NetworkRow, OrderRow, TransferRow, WalletCount, WalletRow, address, depth_of,
    depths, event, lease, named, network, number, number_some, order_row, parse, parse_some, time, time_some, transfer, wallet,
};
use super::{Engine, Store, StoreError};

/// How many values one `IN (…)` holds.
pub(super) const IN_MAX: usize = 500;

/// How many of a network's blocks somebody who only looks on keeps. More than a follower does, so that
/// what the one knows the other does too.
const RECENT_MAX: usize = 16_384;

/// Which orders to list.
#[derive(Clone, Debug, Default)]
pub struct OrderFilter {
    /// One merchant's.
    pub merchant: Option<MerchantId>,
    /// With this status.
    pub status: Option<Status>,
    /// That leased an address on this network.
    pub network: Option<Network>,
    /// Of this user of the shop.
    pub user_id: Option<String>,
    /// With this number of the shop.
    pub merchant_order_id: Option<String>,
    /// That leased this address.
    pub address: Option<String>,
    /// With a transfer of this transaction.
    pub tx_hash: Option<String>,
    /// Created then or later.
    pub created_from: Option<Time>,
    /// Created then or earlier.
    pub created_to: Option<Time>,
    /// For at least this.
    pub amount_min: Option<Amount>,
    /// For at most this.
    pub amount_max: Option<Amount>,
    /// Older than this one: the page after it.
    pub before: Option<String>,
}

impl OrderFilter {
    /// The one query, without its limit.
    fn query(self, engine: Engine) -> Where {
        let text = |value: Option<String>| value.map(Arg::Text);
        let number = |amount: Amount| Arg::Number(i64::try_from(amount.micros()).unwrap_or(i64::MAX));
        let exact = self.amount_min.filter(|amount| Some(*amount) == self.amount_max);
        let names_few = self.user_id.is_some() || self.address.is_some() || self.tx_hash.is_some() || exact.is_some();
        let is_named = names_few || self.merchant_order_id.is_some();
        // What is not to lead is hidden from a planner without statistics.
        let aside = |another_leads: bool| another_leads && engine == Engine::Sqlite;
        // An order leases once on a network, so its leases there are the orders themselves.
        let leads = self.network.is_some() && !is_named && self.status.is_none();
        let mut query = Where::new(if leads {
            "SELECT o.* FROM leases n JOIN usdt_payment_orders o ON o.id = n.order_id"
        } else {
            "SELECT o.* FROM usdt_payment_orders o"
        });
        let network = self.network.map(|network| Arg::Text(network.to_string()));
        query.and(
            if leads { "n.network = ?" } else { "EXISTS (SELECT 1 FROM leases l WHERE l.order_id = o.id AND l.network = ?)" },
            network,
        );
        query.and(
            if aside(names_few || leads) { "COALESCE(o.merchant_id, '') = ?" } else { "o.merchant_id = ?" },
            self.merchant.map(|merchant| Arg::Text(merchant.to_string())),
        );
        query.and(
            if aside(is_named) { "COALESCE(o.status, '') = ?" } else { "o.status = ?" },
            self.status.map(|status| Arg::Text(status.name().into())),
        );
        query.and("o.user_id = ?", text(self.user_id));
        query.and("o.merchant_order_id = ?", text(self.merchant_order_id));
        query.and("o.id IN (SELECT l.order_id FROM leases l WHERE l.address = ?)", text(self.address));
        query.and("o.id IN (SELECT t.order_id FROM blockchain_transactions t WHERE t.tx_hash = ?)", text(self.tx_hash));
        // An id begins with the time of its making.
        let id = if leads { "n.order_id" } else { "o.id" };
        let bound = |time: Time, byte: u8| Arg::Text(OrderId::new(time, [byte; 10]).to_string());
        query.and(&format!("{id} >= ?"), self.created_from.map(|time| bound(time, 0)));
        query.and(&format!("{id} <= ?"), self.created_to.map(|time| bound(time, u8::MAX)));
        query.and("o.amount = ?", exact.map(number));
        if exact.is_none() {
            query.and("o.amount >= ?", self.amount_min.map(number));
            query.and("o.amount <= ?", self.amount_max.map(number));
        }
        query.and(&format!("{id} < ?"), text(self.before));
        query.then(&format!("AND COALESCE(o.purpose, '') <> 'deposits' ORDER BY {id} DESC"))
    }
}

/// Which wallets to list.
#[derive(Clone, Debug, Default)]
pub struct WalletFilter {
    /// On this network.
    pub network: Option<Network>,
    /// With this status.
    pub status: Option<WalletStatus>,
    /// With this address.
    pub address: Option<String>,
    /// Of this kind.
    pub kind: Option<WalletKind>,
    /// Older than this one: the page after it.
    pub before: Option<String>,
}

/// A value for a placeholder.
#[derive(Clone)]
pub(super) enum Arg {
    Text(String),
    Number(i64),
}

/// A `WHERE` that grows: the one text that is put together at run time. Values only ever go in as
/// arguments.
pub(super) struct Where {
    sql: String,
    args: Vec<Arg>,
}

impl Where {
    pub(super) fn new(select: &str) -> Self {
        Self { sql: format!("{select} WHERE 1 = 1"), args: Vec::new() }
    }

    /// ` AND …` with `?` standing for the value.
    pub(super) fn and(&mut self, condition: &str, value: Option<Arg>) {
        let Some(value) = value else { return };
        self.args.push(value);
        let placeholder = format!("${}", self.args.len());
        self.sql.push_str(" AND ");
        self.sql.push_str(&condition.replace('?', &placeholder));
    }

    pub(super) fn is_in(&mut self, column: &str, values: impl Iterator<Item = String>) {
        let list = self.list(values);
        self.sql.push_str(&format!(" AND {column} IN ({list})"));
    }

    /// Leaves out these; none leaves out nothing.
    fn is_not_in(&mut self, column: &str, values: impl Iterator<Item = String>) {
        let list = self.list(values);
        if !list.is_empty() {
            self.sql.push_str(&format!(" AND {column} NOT IN ({list})"));
        }
    }

    fn list(&mut self, values: impl Iterator<Item = String>) -> String {
        let mut placeholders = Vec::new();
        for value in values {
            self.args.push(Arg::Text(value));
            placeholders.push(format!("${}", self.args.len()));
        }
        placeholders.join(", ")
    }

    pub(super) fn then(mut self, rest: &str) -> Self {
        self.sql.push(' ');
        self.sql.push_str(rest);
        self
    }

    pub(super) async fn fetch(self, store: &Store) -> Found<Vec<AnyRow>> {
        let mut query: Query<'_, Any, AnyArguments> = sqlx::query(AssertSqlSafe(self.sql));
        for arg in self.args {
            query = match arg {
                Arg::Text(text) => query.bind(text),
                Arg::Number(number) => query.bind(number),
            };
        }
        Ok(query.fetch_all(&store.readers).await?)
    }

    /// How the database would do it, in its own words.
    pub(super) async fn explain(mut self, store: &Store) -> Found<Vec<String>> {
        let (explain, column) = match store.engine {
            Engine::Sqlite => ("EXPLAIN QUERY PLAN ", "detail"),
            Engine::Postgres => ("EXPLAIN ", "QUERY PLAN"),
        };
        self.sql.insert_str(0, explain);
        self.fetch(store).await?.iter().map(|row| Ok(row.try_get(column)?)).collect()
    }
}

impl Store {
    /// A setting of the installation.
    pub async fn setting(&self, name: &str) -> Found<Option<String>> {
        Ok(sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(&self.readers).await?)
    }

    /// Stores a setting unless it is there, and says what is there then.
    pub async fn setting_or(&self, name: &str, value: &str) -> Found<String> {
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(value)
            .execute(&self.readers)
            .await?;
        self.setting(name).await?.ok_or_else(|| StoreError::corrupt("setting", name))
    }

    /// Where is the follower of this network? `None` for one never seen.
    pub async fn network(&self, name: &Network) -> Found<Option<NetworkRow>> {
        let Some(row) = sqlx::query("SELECT peak, finalized, halted, floor, version FROM networks WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?
        else {
            return Ok(None);
        };
        let blocks = sqlx::query("SELECT number, hash, parent, time FROM blocks WHERE network = $1 ORDER BY number")
            .bind(name.as_str())
            .fetch_all(&self.readers)
            .await?;
        let recent = blocks.iter().map(block).collect::<Found<Vec<_>>>()?;
        if recent.is_empty() {
            return Err(StoreError::corrupt("a network without blocks", name));
        }
        Ok(Some(NetworkRow {
            name: name.clone(),
            peak: number(&row, "peak")?,
            finalized: number_some(&row, "finalized")?,
            halted: row.try_get("halted")?,
            floor: row.try_get::<Option<String>, _>("floor")?.map(|text| depth_of(&text)).transpose()?,
            version: row.try_get("version")?,
            recent,
        }))
    }

    /// Which of the kept blocks are these?
    pub async fn blocks(&self, name: &Network, from: u64, to: u64) -> Found<Vec<BlockRef>> {
        let rows = sqlx::query(
            "SELECT number, hash, parent, time FROM blocks WHERE network = $1 AND number >= $2 AND number <= $3 ORDER BY number",
        )
        .bind(name.as_str())
        .bind(height(from))
        .bind(height(to))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(block).collect()
    }

    /// Where is the follower of this network, for somebody who knows where it was? What has not changed
    /// since then is not read again.
    pub async fn network_after(&self, known: NetworkRow) -> Found<Option<NetworkRow>> {
        let version: Option<i64> = sqlx::query_scalar("SELECT version FROM networks WHERE name = $1")
            .bind(known.name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        if version == Some(known.version) {
            return Ok(Some(known));
        }
        let Some(tip) = known.recent.last().copied() else { return self.network(&known.name).await };
        // In one statement with the row, so that both are of one moment.
        let rows = sqlx::query(
            "SELECT n.peak, n.finalized, n.halted, n.floor, n.version, n.tip, b.number, b.hash, b.parent, b.time FROM networks n \
             JOIN blocks b ON b.network = n.name AND b.number >= $1 WHERE n.name = $2 ORDER BY b.number",
        )
        .bind(height(tip.number))
        .bind(known.name.as_str())
        .fetch_all(&self.readers)
        .await?;
        let new = rows.iter().map(block).collect::<Found<Vec<_>>>()?;
        let (Some(row), Some(first)) = (rows.first(), new.first()) else { return self.network(&known.name).await };
        if first.hash != tip.hash {
            // Our branch was replaced.
            return self.network(&known.name).await;
        }
        let mut recent = known.recent;
        recent.extend(new.into_iter().skip(1));
        recent.drain(..recent.len().saturating_sub(RECENT_MAX));
        Ok(Some(NetworkRow {
            name: known.name,
            peak: number(row, "peak")?,
            finalized: number_some(row, "finalized")?,
            halted: row.try_get("halted")?,
            floor: row.try_get::<Option<String>, _>("floor")?.map(|text| depth_of(&text)).transpose()?,
            version: row.try_get("version")?,
            recent,
        }))
    }

    /// Up to where was this network read a second time?
    pub async fn reconciled(&self, name: &Network) -> Found<Option<u64>> {
        let row =
            sqlx::query("SELECT compared FROM second_readers WHERE network = $1").bind(name.as_str()).fetch_optional(&self.readers).await?;
        row.map(|row| number(&row, "compared")).transpose()
    }

    /// Which wallets joined after this epoch? The new epoch and their addresses.
    pub async fn addresses_since(&self, name: &Network, epoch: i64) -> Found<(i64, Vec<Address>)> {
        let newest: Option<i64> = sqlx::query_scalar("SELECT epoch FROM wallet_epochs WHERE network = $1")
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        let newest = newest.unwrap_or(0);
        if newest == epoch {
            return Ok((epoch, Vec::new()));
        }
        let rows = sqlx::query("SELECT address_hex FROM usdt_wallets WHERE network = $1 AND epoch > $2 AND epoch <= $3")
            .bind(name.as_str())
            .bind(epoch)
            .bind(newest)
            .fetch_all(&self.readers)
            .await?;
        let addresses = rows.iter().map(|row| address(row, "address_hex")).collect::<Found<Vec<_>>>()?;
        Ok((newest, addresses))
    }

    /// Which wallets may be leased next above this settled height, longest rested first? Those that
    /// have money above it may not; nor may, before anything is settled, any that is not as good as new.
    pub async fn free_wallets(&self, name: &Network, settled: Option<u64>, limit: i64) -> Found<Vec<WalletRow>> {
        let rows = sqlx::query(
            "SELECT * FROM usdt_wallets WHERE network = $1 AND status = 'available' AND risk_level IN ('low', 'watch') \
             AND COALESCE(paid_at, CASE WHEN queue_rank = 0 THEN -1 ELSE 0 END) <= $2 ORDER BY queue_rank, id LIMIT $3",
        )
        .bind(name.as_str())
        .bind(settled.map_or(-1, height))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(wallet).collect()
    }

    /// Which wallets' cooldown is over at this time of their settled chain?
    pub async fn rested_wallets(&self, name: &Network, settled: Time, limit: i64) -> Found<Vec<WalletRow>> {
        let rows = sqlx::query(
            "SELECT * FROM usdt_wallets WHERE network = $1 AND status = 'cooldown' AND rested_at < $2 ORDER BY rested_at LIMIT $3",
        )
        .bind(name.as_str())
        .bind(settled.millis())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(wallet).collect()
    }

    /// Which wallet is this?
    pub async fn wallet(&self, id: WalletId) -> Found<Option<WalletRow>> {
        let row = sqlx::query("SELECT * FROM usdt_wallets WHERE id = $1").bind(id.to_string()).fetch_optional(&self.readers).await?;
        row.as_ref().map(wallet).transpose()
    }

    /// Which wallets have these addresses?
    pub async fn wallets_at(&self, name: &Network, addresses: &[Address]) -> Found<Vec<WalletRow>> {
        let mut wallets = Vec::new();
        for chunk in addresses.chunks(IN_MAX) {
            let mut query = Where::new("SELECT * FROM usdt_wallets");
            query.and("network = ?", Some(Arg::Text(name.to_string())));
            query.is_in("address_hex", chunk.iter().map(|address| hex::encode(address.0)));
            for row in query.fetch(self).await? {
                wallets.push(wallet(&row)?);
            }
        }
        Ok(wallets)
    }

    /// A page of wallets, newest first.
    pub async fn wallets(&self, filter: WalletFilter, limit: i64) -> Found<Vec<WalletRow>> {
        let mut query = Where::new("SELECT * FROM usdt_wallets");
        query.and("network = ?", filter.network.map(|network| Arg::Text(network.to_string())));
        query.and("status = ?", filter.status.map(|status| Arg::Text(status.name().into())));
        query.and("address = ?", filter.address.map(Arg::Text));
        query.and("kind = ?", filter.kind.map(|kind| Arg::Text(kind.name().into())));
        query.and("id < ?", filter.before.map(Arg::Text));
        let rows = query.then(&format!("ORDER BY id DESC LIMIT {limit}")).fetch(self).await?;
        rows.iter().map(wallet).collect()
    }

    /// How many wallets of each network have each status?
    pub async fn wallet_counts(&self) -> Found<Vec<WalletCount>> {
        let rows = sqlx::query("SELECT network, status, COUNT(*) AS count FROM usdt_wallets GROUP BY network, status")
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(WalletCount {
                    network: network(row, "network")?,
                    status: named(row, "status", WalletStatus::from_name)?,
                    count: row.try_get("count")?,
                })
            })
            .collect()
    }

    /// Whose is money to these wallets in these blocks? Of each wallet the lease that was the newest below
    /// the first of them, and those that began below the last; of two that began at one height the later
    /// last.
    pub async fn windows(&self, wallets: &[WalletId], blocks: RangeInclusive<u64>) -> Found<HashMap<WalletId, Vec<Window>>> {
        let mut windows: HashMap<WalletId, Vec<Window>> = HashMap::new();
        for chunk in wallets.chunks(IN_MAX) {
            let places: Vec<String> = (0..chunk.len()).map(|at| format!("(${})", at.saturating_add(3))).collect();
            let text = format!(
                "WITH w (id) AS (VALUES {}) SELECT l.wallet_id, l.order_id, l.from_height, o.expires_at, o.late_window \
                 FROM w JOIN leases l ON l.wallet_id = w.id AND l.from_height >= COALESCE( \
                     (SELECT MAX(p.from_height) FROM leases p WHERE p.wallet_id = w.id AND p.from_height < $1), 0) AND l.from_height < $2 \
                 JOIN usdt_payment_orders o ON o.id = l.order_id \
                 ORDER BY l.from_height, CASE WHEN l.to_height = l.from_height THEN 0 ELSE 1 END, l.id",
                places.join(", ")
            );
            let query = sqlx::query(AssertSqlSafe(text)).bind(height(*blocks.start())).bind(height(*blocks.end()));
            let query = chunk.iter().fold(query, |query, wallet| query.bind(wallet.to_string()));
            for row in query.fetch_all(&self.readers).await? {
                windows.entry(parse(&row, "wallet_id")?).or_default().push(Window {
                    order: parse(&row, "order_id")?,
                    from: number(&row, "from_height")?,
                    expires_at: time(&row, "expires_at")?,
                    late_window: Span::from_millis(number(&row, "late_window")?),
                });
            }
        }
        Ok(windows)
    }

    /// Which of these transfers are recorded already?
    pub async fn transfers_by_key(&self, name: &Network, keys: &[TransferKey]) -> Found<Vec<TransferRow>> {
        let mut hashes: Vec<Hash> = keys.iter().map(|key| key.tx_hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let mut found = Vec::new();
        for chunk in hashes.chunks(IN_MAX) {
            let mut query = Where::new("SELECT * FROM blockchain_transactions");
            query.is_in("tx_hash", chunk.iter().map(ToString::to_string));
            query.and("network = ?", Some(Arg::Text(name.to_string())));
            for row in query.fetch(self).await? {
                found.push(transfer(&row)?);
            }
        }
        Ok(found)
    }

    /// Which recorded transfers stand in blocks above this height?
    pub async fn transfers_above(&self, name: &Network, above: u64) -> Found<Vec<TransferRow>> {
        let rows = sqlx::query("SELECT * FROM blockchain_transactions WHERE network = $1 AND block_number > $2 AND status <> 'orphaned' ORDER BY block_number, id")
            .bind(name.as_str())
            .bind(height(above))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(transfer).collect()
    }

    /// Which recorded transfers stand in these blocks?
    pub async fn transfers_between(&self, name: &Network, from: u64, to: u64) -> Found<Vec<TransferRow>> {
        let rows = sqlx::query("SELECT * FROM blockchain_transactions WHERE network = $1 AND block_number >= $2 AND block_number <= $3 AND status <> 'orphaned' ORDER BY block_number, id")
            .bind(name.as_str())
            .bind(height(from))
            .bind(height(to))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(transfer).collect()
    }

    /// Which transfers wait to be settled, in blocks up to this height, oldest first?
    pub async fn unsettled(&self, name: &Network, up_to: u64, limit: i64) -> Found<Vec<TransferRow>> {
        let rows = sqlx::query("SELECT * FROM blockchain_transactions WHERE network = $1 AND status = 'pending' AND block_number <= $2 ORDER BY block_number, id LIMIT $3")
            .bind(name.as_str())
            .bind(height(up_to))
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(transfer).collect()
    }

    /// Does any transfer of this network wait to be settled?
    pub async fn has_unsettled(&self, name: &Network) -> Found<bool> {
        let row = sqlx::query("SELECT id FROM blockchain_transactions WHERE network = $1 AND status = 'pending' LIMIT 1")
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_some())
    }

    /// How deep must money be buried on this network, by what those orders were made with that are open,
    /// have a wallet there, or have money there that has not settled?
    pub async fn agreed_depths(&self, name: &Network) -> Found<Vec<Depth>> {
        let rows = sqlx::query(
            "SELECT depths FROM usdt_payment_orders WHERE status IN ('pending', 'confirming') \
             UNION SELECT o.depths FROM leases l JOIN usdt_payment_orders o ON o.id = l.order_id WHERE l.network = $1 AND l.to_height IS NULL \
             UNION SELECT o.depths FROM blockchain_transactions t JOIN usdt_payment_orders o ON o.id = t.order_id \
             WHERE t.network = $1 AND t.status = 'pending'",
        )
        .bind(name.as_str())
        .fetch_all(&self.readers)
        .await?;
        let mut found = Vec::new();
        for row in &rows {
            found.extend(depths(row.try_get("depths")?)?.get(name).copied());
        }
        Ok(found)
    }

    /// How often was each of these transfers booked?
    pub async fn journal_turns(&self, transfers: &[TransferId]) -> Found<HashMap<TransferId, i64>> {
        let mut turns = HashMap::new();
        for chunk in transfers.chunks(IN_MAX) {
            let mut query = Where::new("SELECT transfer_id, COUNT(*) AS turns FROM journal");
            query.is_in("transfer_id", chunk.iter().map(ToString::to_string));
            for row in query.then("GROUP BY transfer_id").fetch(self).await? {
                turns.insert(parse(&row, "transfer_id")?, row.try_get("turns")?);
            }
        }
        Ok(turns)
    }

    /// Which pending orders that leased an address here are past this time?
    pub async fn orders_past(&self, name: &Network, time: Time, limit: i64) -> Found<Vec<OrderId>> {
        let rows = sqlx::query(
            "SELECT o.id FROM usdt_payment_orders o WHERE o.status = 'pending' AND o.expires_at < $1 \
             AND EXISTS (SELECT 1 FROM leases l WHERE l.order_id = o.id AND l.network = $2) ORDER BY o.expires_at LIMIT $3",
        )
        .bind(time.millis())
        .bind(name.as_str())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| parse(row, "id")).collect()
    }

    /// Which pending orders without any lease are past this time?
    pub async fn unleased_orders_past(&self, time: Time, limit: i64) -> Found<Vec<OrderId>> {
        let rows = sqlx::query(
            "SELECT o.id FROM usdt_payment_orders o WHERE o.status = 'pending' AND o.expires_at < $1 AND o.network IS NULL \
             AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.order_id = o.id) ORDER BY o.expires_at LIMIT $2",
        )
        .bind(time.millis())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| parse(row, "id")).collect()
    }

    /// Which live leases belong to orders that are over, and their late window too at this time of
    /// the settled chain? The lease and its order's cooldown.
    pub async fn leases_over(&self, name: &Network, settled: Time, limit: i64) -> Found<Vec<Lease>> {
        let rows = sqlx::query(
            "SELECT l.* FROM leases l JOIN usdt_payment_orders o ON o.id = l.order_id \
             WHERE l.network = $1 AND l.to_height IS NULL AND l.late_until < $2 AND o.status IN ('paid', 'expired', 'cancelled') ORDER BY l.late_until LIMIT $3",
        )
        .bind(name.as_str())
        .bind(settled.millis())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(lease).collect()
    }

    /// One order, whole.
    pub async fn order(&self, id: OrderId) -> Found<Option<OrderRow>> {
        Ok(self.orders(&[id]).await?.pop())
    }

    /// These orders, whole, in no particular order.
    pub async fn orders(&self, ids: &[OrderId]) -> Found<Vec<OrderRow>> {
        let mut orders = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(IN_MAX) {
            let mut query = Where::new("SELECT * FROM usdt_payment_orders");
            query.is_in("id", chunk.iter().map(ToString::to_string));
            let rows = query.fetch(self).await?;
            orders.append(&mut self.whole(&rows).await?);
        }
        Ok(orders)
    }

    /// The order with this number of the shop's.
    pub async fn order_by_merchant_id(&self, merchant: MerchantId, number: &str) -> Found<Option<OrderRow>> {
        let rows = sqlx::query("SELECT * FROM usdt_payment_orders WHERE merchant_id = $1 AND merchant_order_id = $2")
            .bind(merchant.to_string())
            .bind(number)
            .fetch_all(&self.readers)
            .await?;
        Ok(self.whole(&rows).await?.pop())
    }

    /// A customer's permanent addresses, as the orders that they are; on one network, or all.
    pub async fn deposit_orders(&self, merchant: MerchantId, user: &str, name: Option<&Network>) -> Found<Vec<OrderRow>> {
        let mut query = Where::new("SELECT * FROM usdt_payment_orders");
        query.and("merchant_id = ?", Some(Arg::Text(merchant.to_string())));
        query.and("user_id = ?", Some(Arg::Text(user.to_owned())));
        query.and("network = ?", name.map(|name| Arg::Text(name.to_string())));
        let rows = query.then("AND purpose = 'deposits' ORDER BY id").fetch(self).await?;
        let mut orders = self.whole(&rows).await?;
        orders.sort_by_key(|order| order.id);
        Ok(orders)
    }

    /// A page of orders, newest first.
    ///
    /// Each filter has an index that yields a page without reading what is not on it. Where several
    /// are given, the one that leaves fewest rows leads: the others are kept from the planner, which
    /// on SQLite knows nothing of how many rows there are.
    pub async fn list_orders(&self, filter: OrderFilter, limit: i64) -> Found<Vec<OrderRow>> {
        let rows = filter.query(self.engine).then(&format!("LIMIT {limit}")).fetch(self).await?;
        let mut orders = self.whole(&rows).await?;
        orders.sort_by_key(|order| std::cmp::Reverse(order.id));
        Ok(orders)
    }

    /// How the database would look for such a page, in its own words: for whoever tends the indexes.
    pub async fn explain_orders(&self, filter: OrderFilter, limit: i64) -> Found<Vec<String>> {
        filter.query(self.engine).then(&format!("LIMIT {limit}")).explain(self).await
    }

    /// Adds leases and transfers to rows of orders.
    async fn whole(&self, rows: &[AnyRow]) -> Found<Vec<OrderRow>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut orders = rows.iter().map(order_row).collect::<Found<Vec<_>>>()?;
        let index: HashMap<OrderId, usize> = orders.iter().enumerate().map(|(index, order)| (order.id, index)).collect();
        let ids = || orders_ids(&index);
        let mut query =
            Where::new("SELECT l.*, COALESCE(w.status, '') AS wallet_status FROM leases l LEFT JOIN usdt_wallets w ON w.id = l.wallet_id");
        query.is_in("l.order_id", ids());
        for row in query.then("ORDER BY l.id").fetch(self).await? {
            let lease = lease(&row)?;
            if let Some(order) = index.get(&lease.order).and_then(|index| orders.get_mut(*index)) {
                let status: String = row.try_get("wallet_status")?;
                let is_set_aside = [WalletStatus::Frozen, WalletStatus::Disabled].iter().any(|aside| aside.name() == status);
                if lease.to.is_none() && is_set_aside {
                    order.withheld.push(lease.wallet);
                }
                order.addresses.push((row.try_get("address")?, row.try_get("tag")?));
                order.order.leases.push(lease);
            }
        }
        let mut query = Where::new("SELECT * FROM blockchain_transactions");
        query.is_in("order_id", orders_ids(&index));
        for row in query.then("ORDER BY block_number, id").fetch(self).await? {
            let transfer = transfer(&row)?;
            if let Some(order) = transfer.order.and_then(|id| index.get(&id)).and_then(|index| orders.get_mut(*index)) {
                order.transfers.push(transfer);
            }
        }
        Ok(orders)
    }

    /// The events of an order after a place in the order of commits.
    pub async fn order_events(&self, id: OrderId, after: i64) -> Found<Vec<EventRow>> {
        let rows = sqlx::query("SELECT * FROM events WHERE subject_id = $1 AND seq > $2 ORDER BY seq")
            .bind(id.to_string())
            .bind(after)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(event).collect()
    }

    /// The place of an event in the order of commits.
    pub async fn event_seq(&self, id: &str) -> Found<Option<i64>> {
        Ok(sqlx::query_scalar("SELECT seq FROM events WHERE id = $1").bind(id).fetch_optional(&self.readers).await?)
    }

    /// Which deliveries are due, oldest first, leaving out what is busy?
    pub async fn due_deliveries(&self, now: Time, busy: &Busy, limit: i64) -> Found<Vec<DueDelivery>> {
        let mut query = Where::new(
            "SELECT w.id, w.event_id, w.merchant_id, w.subject_id, w.url, w.origin, w.event_at, w.tries, w.before_status, w.before_due_at, w.endpoint_id, e.kind, e.body FROM payment_webhooks w JOIN events e ON e.id = w.event_id",
        );
        query.and("w.due_at <= ?", Some(Arg::Number(now.millis())));
        query.sql.push_str(" AND w.status = 'due'");
        if self.is_shared() {
            query.sql.push_str(&unclaimed_deliveries());
        }
        let pair = |(subject, endpoint): &(Subject, Option<EndpointId>)| {
            format!("{subject} {}", endpoint.map(|id| id.to_string()).unwrap_or_default())
        };
        query.is_not_in("w.origin", busy.origins.iter().cloned());
        query.is_not_in("w.subject_id || ' ' || COALESCE(w.endpoint_id, '')", busy.subjects.iter().map(pair));
        let rows = query.then(&format!("ORDER BY w.due_at, w.id LIMIT {limit}")).fetch(self).await?;
        rows.iter()
            .map(|row| {
                Ok(DueDelivery {
                    id: parse(row, "id")?,
                    event_id: row.try_get("event_id")?,
                    kind: row.try_get("kind")?,
                    merchant: parse(row, "merchant_id")?,
                    endpoint: parse_some(row, "endpoint_id")?,
                    subject: parse(row, "subject_id")?,
                    url: row.try_get("url")?,
                    origin: row.try_get("origin")?,
                    event_at: time(row, "event_at")?,
                    tries: u32::try_from(number(row, "tries")?).unwrap_or(u32::MAX),
                    before: match (row.try_get::<Option<String>, _>("before_status")?, time_some(row, "before_due_at")?) {
                        (Some(status), at) => Some(state(&status, at.unwrap_or_default())?),
                        (None, _) => None,
                    },
                    body: row.try_get("body")?,
                })
            })
            .collect()
    }

    /// When is the next delivery due?
    pub async fn next_delivery_at(&self) -> Found<Option<Time>> {
        let at: Option<i64> =
            sqlx::query_scalar("SELECT MIN(due_at) FROM payment_webhooks WHERE status = 'due'").fetch_one(&self.readers).await?;
        Ok(at.map(Time::from_millis))
    }

    /// What was answered under this idempotency key?
    pub async fn kept_answer(&self, scope: &str) -> Found<Option<KeptAnswerRow>> {
        let row = sqlx::query("SELECT body_mac, status, location, body FROM idempotency_keys WHERE scope = $1")
            .bind(scope)
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(KeptAnswerRow {
                body_mac: row.try_get("body_mac")?,
                status: u16::try_from(number(&row, "status")?).unwrap_or(500),
                location: row.try_get("location")?,
                body: row.try_get("body")?,
            })
        })
        .transpose()
    }

    /// Which alerts are open, newest first? Kind and what each is about.
    pub async fn open_alerts(&self, limit: i64) -> Found<Vec<(String, String)>> {
        let rows = sqlx::query("SELECT kind, about FROM alerts WHERE status = 'open' ORDER BY id DESC LIMIT $1")
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok((row.try_get("kind")?, row.try_get("about")?))).collect()
    }

    /// The books: what each account holds in base units, by (network, account).
    pub async fn balances(&self) -> Found<BTreeMap<(Network, String), Raw>> {
        let rows = sqlx::query("SELECT network, debit, credit, raw_value FROM journal ORDER BY transfer_id, turn")
            .fetch_all(&self.readers)
            .await?;
        let mut debits: BTreeMap<(Network, String), Raw> = BTreeMap::new();
        let mut credits: BTreeMap<(Network, String), Raw> = BTreeMap::new();
        for row in &rows {
            let value: Raw = parse(row, "raw_value")?;
            for (side, column) in [(&mut debits, "debit"), (&mut credits, "credit")] {
                let sum = side.entry((network(row, "network")?, row.try_get(column)?)).or_default();
                *sum = sum.saturating_add(value);
            }
        }
        for (account, credit) in credits {
            let sum = debits.entry(account).or_default();
            *sum = sum.saturating_sub(credit);
        }
        Ok(debits)
    }
}

/// Which recorded transfers to list.
#[derive(Clone, Debug, Default)]
pub struct TransferFilter {
    /// On this network.
    pub network: Option<Network>,
    /// What became of them.
    pub recorded: Option<Recorded>,
    /// In this state on the chain.
    pub status: Option<PaymentStatus>,
    /// To this address, as people write it.
    pub address: Option<String>,
    /// To this wallet.
    pub wallet: Option<WalletId>,
    /// Of this order.
    pub order: Option<String>,
    /// Of this transaction.
    pub tx_hash: Option<Hash>,
    /// In blocks from this time on.
    pub from: Option<Time>,
    /// In blocks up to this time.
    pub to: Option<Time>,
    /// Older than this one: the page after it.
    pub before: Option<String>,
}

impl Store {
    /// A page of recorded transfers, the last seen first.
    pub async fn transfers(&self, filter: TransferFilter, limit: i64) -> Found<Vec<TransferRow>> {
        let mut query = Where::new("SELECT * FROM blockchain_transactions");
        query.and("network = ?", filter.network.map(|network| Arg::Text(network.to_string())));
        query.and("disposition = ?", filter.recorded.map(|recorded| Arg::Text(recorded.name().into())));
        query.and("status = ?", filter.status.map(|status| Arg::Text(status.name().into())));
        query.and("to_address = ?", filter.address.map(Arg::Text));
        query.and("wallet_id = ?", filter.wallet.map(|wallet| Arg::Text(wallet.to_string())));
        query.and("order_id = ?", filter.order.map(Arg::Text));
        query.and("tx_hash = ?", filter.tx_hash.map(|hash| Arg::Text(hash.to_string())));
        query.and("block_time >= ?", filter.from.map(|from| Arg::Number(from.millis())));
        query.and("block_time <= ?", filter.to.map(|to| Arg::Number(to.millis())));
        query.and("id < ?", filter.before.map(Arg::Text));
        query.then(&format!("ORDER BY id DESC LIMIT {limit}")).fetch(self).await?.iter().map(transfer).collect()
    }

    /// What came to these wallets, and what went from one of ours to another, in blocks up to a
    /// height: for comparing with the chain. Orphaned and unreadable ones are left out.
    pub async fn movements(&self, name: &Network, wallets: &[WalletRow], up_to: u64) -> Found<HashMap<WalletId, (Raw, Raw)>> {
        let mut sums: HashMap<WalletId, (Raw, Raw)> = HashMap::new();
        let by_hex: HashMap<String, WalletId> = wallets.iter().map(|wallet| (hex::encode(wallet.address.0), wallet.id)).collect();
        let columns = "SELECT wallet_id, from_hex, raw_value FROM blockchain_transactions";
        for chunk in wallets.chunks(IN_MAX) {
            let mut incoming = Where::new(columns);
            incoming.is_in("wallet_id", chunk.iter().map(|wallet| wallet.id.to_string()));
            let counted = format!("AND status IN ('pending', 'confirmed') AND disposition <> 'unreadable' AND block_number <= {up_to}");
            for row in incoming.then(&counted).fetch(self).await? {
                let sum = sums.entry(parse(&row, "wallet_id")?).or_default();
                sum.0 = sum.0.saturating_add(parse(&row, "raw_value")?);
            }
            let mut outgoing = Where::new(columns);
            outgoing.and("network = ?", Some(Arg::Text(name.to_string())));
            outgoing.is_in("from_hex", chunk.iter().map(|wallet| hex::encode(wallet.address.0)));
            for row in outgoing.then(&format!("{counted} AND disposition = 'own'")).fetch(self).await? {
                let Some(wallet) = by_hex.get(&row.try_get::<String, _>("from_hex")?) else { continue };
                let sum = sums.entry(*wallet).or_default();
                sum.1 = sum.1.saturating_add(parse(&row, "raw_value")?);
            }
        }
        Ok(sums)
    }
}

/// The ids of an index, as text.
fn orders_ids(index: &HashMap<OrderId, usize>) -> impl Iterator<Item = String> {
    index.keys().map(ToString::to_string)
}

fn block(row: &AnyRow) -> Found<BlockRef> {
    Ok(BlockRef { number: number(row, "number")?, hash: parse(row, "hash")?, parent: parse(row, "parent")?, time: time(row, "time")? })
}
