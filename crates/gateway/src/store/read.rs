//! What the program asks the store. Every read is named after its question.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row as _};
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::{Address, BlockRef, Hash, Network, TransferKey};
use tidegate_rules::changes::{Details, Recorded};
use tidegate_rules::id::{DeliveryId, LeaseId, MerchantId, OrderId, TransferId, WalletId};
use tidegate_rules::lease::{Lease, Window};
use tidegate_rules::order::{
    self, Confirmation, Depth, Exception, Facts, Mark, Order, Paid, PaidBy, Payment, PaymentStatus, Status, Tally, Terms,
};
use tidegate_rules::time::{Span, Time};
use tidegate_rules::wallet::{WalletKind, WalletStatus};

use super::apply::height;
use super::{Store, StoreError};

type Found<T> = Result<T, StoreError>;

/// How many values one `IN (…)` holds.
const IN_MAX: usize = 500;

/// A merchant.
#[derive(Clone, Debug)]
pub struct MerchantRow {
    /// Its id.
    pub id: MerchantId,
    /// Its name.
    pub name: String,
    /// Where its webhooks go.
    pub webhook_url: Option<String>,
    /// Its webhook secret, sealed.
    pub webhook_secret: String,
}

/// An API key.
#[derive(Clone, Debug)]
pub struct ApiKeyRow {
    /// Its id.
    pub id: String,
    /// Whose.
    pub merchant: MerchantId,
    /// What it may do, space separated.
    pub scopes: String,
}

/// Where the follower of a network is.
#[derive(Clone, Debug)]
pub struct NetworkRow {
    /// The network.
    pub name: Network,
    /// The highest tip there ever was.
    pub peak: u64,
    /// The highest final height.
    pub finalized: Option<u64>,
    /// Why it is halted.
    pub halted: Option<String>,
    /// The row's version.
    pub version: i64,
    /// The blocks that are kept, oldest first; the last is the tip. Never empty.
    pub recent: Vec<BlockRef>,
}

/// A wallet of the pool.
#[derive(Clone, Debug)]
pub struct WalletRow {
    /// Its id.
    pub id: WalletId,
    /// What people call it.
    pub name: String,
    /// Where it lives.
    pub network: Network,
    /// Its address.
    pub address: Address,
    /// Its address as people write it.
    pub address_text: String,
    /// Where its key comes from.
    pub kind: WalletKind,
    /// What may be done with it now.
    pub status: WalletStatus,
    /// The MAC over (id, network, address).
    pub tag: String,
    /// Restricts its use.
    pub risk_level: String,
    /// Whether it was ever leased.
    pub ever_leased: bool,
    /// Where its last lease ended.
    pub leased_to: Option<u64>,
    /// The highest block with a recorded transfer to it.
    pub paid_at: Option<u64>,
    /// The order it is leased to.
    pub order: Option<OrderId>,
    /// Since when.
    pub created_at: Time,
    /// When it was leased last.
    pub last_used_at: Option<Time>,
    /// The row's version.
    pub version: i64,
}

/// How many wallets of a network have a status.
#[derive(Clone, Debug)]
pub struct WalletCount {
    /// The network.
    pub network: Network,
    /// The status.
    pub status: WalletStatus,
    /// How many.
    pub count: i64,
}

/// A recorded transfer.
#[derive(Clone, Debug)]
pub struct TransferRow {
    /// Its id here.
    pub id: TransferId,
    /// The transfer and its state.
    pub payment: Payment,
    /// The hash of its block.
    pub block_hash: Hash,
    /// What became of it.
    pub recorded: Recorded,
    /// Its order.
    pub order: Option<OrderId>,
    /// Its wallet.
    pub wallet: Option<WalletId>,
    /// Both addresses as people write them: from, to.
    pub address_texts: (String, String),
    /// When it was first seen.
    pub seen_at: Time,
    /// The row's version.
    pub version: i64,
}

/// An order with everything that belongs to it.
#[derive(Clone, Debug)]
pub struct OrderRow {
    /// Its id.
    pub id: OrderId,
    /// Whose.
    pub merchant: MerchantId,
    /// Real money?
    pub livemode: bool,
    /// When it was created.
    pub created_at: Time,
    /// What the shop says.
    pub details: Details,
    /// Why a person cancelled it.
    pub cancel_reason: Option<String>,
    /// The order.
    pub order: Order,
    /// Of each lease, in the order of `order.leases`: the address as people write it, and its tag.
    pub addresses: Vec<(String, String)>,
    /// Its transfers, oldest first.
    pub transfers: Vec<TransferRow>,
    /// The row's version.
    pub version: i64,
}

impl OrderRow {
    /// Its payments alone.
    #[must_use]
    pub fn payments(&self) -> Vec<Payment> {
        self.transfers.iter().map(|transfer| transfer.payment.clone()).collect()
    }
}

/// An event.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// Its place in the order of commits.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// What happened.
    pub kind: String,
    /// When.
    pub at: Time,
    /// The body of its webhook.
    pub body: String,
}

/// A delivery whose next try is due.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The event's id, which is the `webhook-id`.
    pub event_id: String,
    /// What happened.
    pub kind: String,
    /// Whose secret signs it.
    pub merchant: MerchantId,
    /// Which order it is about.
    pub order: OrderId,
    /// Where to.
    pub url: String,
    /// Who the receiver is.
    pub origin: String,
    /// When it happened.
    pub event_at: Time,
    /// Tries made.
    pub tries: u32,
    /// The body.
    pub body: String,
}

/// An answer kept under an idempotency key.
#[derive(Clone, Debug)]
pub struct KeptAnswerRow {
    /// The MAC of the request's body.
    pub body_mac: String,
    /// The status code.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

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
enum Arg {
    Text(String),
    Number(i64),
}

/// A `WHERE` that grows: the one text that is put together at run time. Values only ever go in as
/// arguments.
struct Where {
    sql: String,
    args: Vec<Arg>,
}

impl Where {
    fn new(select: &str) -> Self {
        Self { sql: format!("{select} WHERE 1 = 1"), args: Vec::new() }
    }

    /// ` AND …` with `?` standing for the value.
    fn and(&mut self, condition: &str, value: Option<Arg>) {
        let Some(value) = value else { return };
        self.args.push(value);
        let placeholder = format!("${}", self.args.len());
        self.sql.push_str(" AND ");
        self.sql.push_str(&condition.replace('?', &placeholder));
    }

    fn is_in(&mut self, column: &str, values: impl Iterator<Item = String>) {
        let mut placeholders = Vec::new();
        for value in values {
            self.args.push(Arg::Text(value));
            placeholders.push(format!("${}", self.args.len()));
        }
        self.sql.push_str(&format!(" AND {column} IN ({})", placeholders.join(", ")));
    }

    fn then(mut self, rest: &str) -> Self {
        self.sql.push(' ');
        self.sql.push_str(rest);
        self
    }

    async fn fetch(self, store: &Store) -> Found<Vec<AnyRow>> {
        let mut query: Query<'_, Any, AnyArguments> = sqlx::query(AssertSqlSafe(self.sql));
        for arg in self.args {
            query = match arg {
                Arg::Text(text) => query.bind(text),
                Arg::Number(number) => query.bind(number),
            };
        }
        Ok(query.fetch_all(&store.readers).await?)
    }
}

/// Reads a column that is written as text.
fn parse<T: FromStr>(row: &AnyRow, column: &'static str) -> Found<T> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::corrupt(column, text))
}

fn parse_some<T: FromStr>(row: &AnyRow, column: &'static str) -> Found<Option<T>> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| StoreError::corrupt(column, text))).transpose()
}

fn named<T>(row: &AnyRow, column: &'static str, from_name: fn(&str) -> Option<T>) -> Found<T> {
    let text: String = row.try_get(column)?;
    from_name(&text).ok_or_else(|| StoreError::corrupt(column, text))
}

fn number(row: &AnyRow, column: &'static str) -> Found<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| StoreError::corrupt(column, value))
}

fn number_some(row: &AnyRow, column: &'static str) -> Found<Option<u64>> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(|value| u64::try_from(value).map_err(|_| StoreError::corrupt(column, value))).transpose()
}

fn time(row: &AnyRow, column: &'static str) -> Found<Time> {
    Ok(Time::from_millis(row.try_get(column)?))
}

fn time_some(row: &AnyRow, column: &'static str) -> Found<Option<Time>> {
    let value: Option<i64> = row.try_get(column)?;
    Ok(value.map(Time::from_millis))
}

fn amount(row: &AnyRow, column: &'static str) -> Found<Amount> {
    Ok(Amount::from_micros(number(row, column)?))
}

fn flag(row: &AnyRow, column: &'static str) -> Found<bool> {
    let value: i64 = row.try_get(column)?;
    Ok(value != 0)
}

fn network(row: &AnyRow, column: &'static str) -> Found<Network> {
    let name: String = row.try_get(column)?;
    Ok(Network::new(&name))
}

fn address(row: &AnyRow, column: &'static str) -> Found<Address> {
    let text: String = row.try_get(column)?;
    hex::decode_to_array(&text).map(Address).map_err(|_| StoreError::corrupt(column, text))
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

    /// Adds a merchant; false when the name is taken.
    pub async fn add_merchant(&self, merchant: &MerchantRow, at: Time) -> Found<bool> {
        let added = sqlx::query("INSERT INTO merchants (id, name, webhook_url, webhook_secret, created_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING")
            .bind(merchant.id.to_string())
            .bind(&merchant.name)
            .bind(merchant.webhook_url.as_deref())
            .bind(&merchant.webhook_secret)
            .bind(at.millis())
            .execute(&self.readers)
            .await?;
        Ok(added.rows_affected() == 1)
    }

    /// Which merchants are there?
    pub async fn merchants(&self) -> Found<Vec<MerchantRow>> {
        let rows = sqlx::query("SELECT id, name, webhook_url, webhook_secret FROM merchants ORDER BY id").fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                Ok(MerchantRow {
                    id: parse(row, "id")?,
                    name: row.try_get("name")?,
                    webhook_url: row.try_get("webhook_url")?,
                    webhook_secret: row.try_get("webhook_secret")?,
                })
            })
            .collect()
    }

    /// Adds an API key by the hash of its secret.
    pub async fn add_api_key(&self, key: &ApiKeyRow, secret_hash: &str, livemode: bool, at: Time) -> Found<()> {
        sqlx::query("INSERT INTO api_keys (id, merchant_id, secret_hash, scopes, livemode, created_at) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(&key.id)
            .bind(key.merchant.to_string())
            .bind(secret_hash)
            .bind(&key.scopes)
            .bind(i64::from(livemode))
            .bind(at.millis())
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// Whose key hashes to this?
    pub async fn api_key(&self, secret_hash: &str) -> Found<Option<ApiKeyRow>> {
        let row = sqlx::query("SELECT id, merchant_id, scopes FROM api_keys WHERE secret_hash = $1")
            .bind(secret_hash)
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| Ok(ApiKeyRow { id: row.try_get("id")?, merchant: parse(&row, "merchant_id")?, scopes: row.try_get("scopes")? }))
            .transpose()
    }

    /// Where is the follower of this network? `None` for one never seen.
    pub async fn network(&self, name: &Network) -> Found<Option<NetworkRow>> {
        let Some(row) = sqlx::query("SELECT peak, finalized, halted, version FROM networks WHERE name = $1")
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
        let recent = blocks
            .iter()
            .map(|row| {
                Ok(BlockRef {
                    number: number(row, "number")?,
                    hash: parse(row, "hash")?,
                    parent: parse(row, "parent")?,
                    time: time(row, "time")?,
                })
            })
            .collect::<Found<Vec<_>>>()?;
        if recent.is_empty() {
            return Err(StoreError::corrupt("a network without blocks", name));
        }
        Ok(Some(NetworkRow {
            name: name.clone(),
            peak: number(&row, "peak")?,
            finalized: number_some(&row, "finalized")?,
            halted: row.try_get("halted")?,
            version: row.try_get("version")?,
            recent,
        }))
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

    /// Which wallets may be leased next, longest rested first?
    pub async fn free_wallets(&self, name: &Network, limit: i64) -> Found<Vec<WalletRow>> {
        let rows = sqlx::query(
            "SELECT * FROM usdt_wallets WHERE network = $1 AND status = 'available' AND risk_level = 'low' ORDER BY queue_rank, id LIMIT $2",
        )
        .bind(name.as_str())
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

    /// Whose time is money to these wallets? Every lease they ever had, by wallet.
    pub async fn windows(&self, wallets: &[WalletId]) -> Found<HashMap<WalletId, Vec<Window>>> {
        let mut windows: HashMap<WalletId, Vec<Window>> = HashMap::new();
        for chunk in wallets.chunks(IN_MAX) {
            let mut query = Where::new(
                "SELECT l.wallet_id, l.order_id, l.from_height, o.expires_at, o.late_window FROM leases l JOIN usdt_payment_orders o ON o.id = l.order_id",
            );
            query.is_in("l.wallet_id", chunk.iter().map(ToString::to_string));
            for row in query.fetch(self).await? {
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

    /// A page of orders, newest first.
    pub async fn list_orders(&self, filter: OrderFilter, limit: i64) -> Found<Vec<OrderRow>> {
        let text = |value: Option<String>| value.map(Arg::Text);
        let mut query = Where::new("SELECT o.* FROM usdt_payment_orders o");
        query.and("o.merchant_id = ?", filter.merchant.map(|merchant| Arg::Text(merchant.to_string())));
        query.and("o.status = ?", filter.status.map(|status| Arg::Text(status.name().into())));
        query.and(
            "EXISTS (SELECT 1 FROM leases l WHERE l.order_id = o.id AND l.network = ?)",
            filter.network.map(|network| Arg::Text(network.to_string())),
        );
        query.and("o.user_id = ?", text(filter.user_id));
        query.and("o.merchant_order_id = ?", text(filter.merchant_order_id));
        query.and("EXISTS (SELECT 1 FROM leases l WHERE l.order_id = o.id AND l.address = ?)", text(filter.address));
        query.and("EXISTS (SELECT 1 FROM blockchain_transactions t WHERE t.order_id = o.id AND t.tx_hash = ?)", text(filter.tx_hash));
        query.and("o.created_at >= ?", filter.created_from.map(|time| Arg::Number(time.millis())));
        query.and("o.created_at <= ?", filter.created_to.map(|time| Arg::Number(time.millis())));
        query.and("o.amount >= ?", filter.amount_min.map(|amount| Arg::Number(i64::try_from(amount.micros()).unwrap_or(i64::MAX))));
        query.and("o.amount <= ?", filter.amount_max.map(|amount| Arg::Number(i64::try_from(amount.micros()).unwrap_or(i64::MAX))));
        query.and("o.id < ?", text(filter.before));
        let rows = query.then(&format!("ORDER BY o.id DESC LIMIT {limit}")).fetch(self).await?;
        let mut orders = self.whole(&rows).await?;
        orders.sort_by_key(|order| std::cmp::Reverse(order.id));
        Ok(orders)
    }

    /// Adds leases and transfers to rows of orders.
    async fn whole(&self, rows: &[AnyRow]) -> Found<Vec<OrderRow>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut orders = rows.iter().map(order_row).collect::<Found<Vec<_>>>()?;
        let index: HashMap<OrderId, usize> = orders.iter().enumerate().map(|(index, order)| (order.id, index)).collect();
        let ids = || orders_ids(&index);
        let mut query = Where::new("SELECT * FROM leases");
        query.is_in("order_id", ids());
        for row in query.then("ORDER BY id").fetch(self).await? {
            let lease = lease(&row)?;
            if let Some(order) = index.get(&lease.order).and_then(|index| orders.get_mut(*index)) {
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
        let rows = sqlx::query("SELECT seq, id, kind, at, body FROM events WHERE order_id = $1 AND seq > $2 ORDER BY seq")
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

    /// Which deliveries are due, oldest first, leaving out receivers that are busy?
    pub async fn due_deliveries(&self, now: Time, busy: &[String], limit: i64) -> Found<Vec<DueDelivery>> {
        let mut query = Where::new(
            "SELECT w.id, w.event_id, w.merchant_id, w.order_id, w.url, w.origin, w.event_at, w.tries, e.kind, e.body FROM payment_webhooks w JOIN events e ON e.id = w.event_id",
        );
        query.and("w.due_at <= ?", Some(Arg::Number(now.millis())));
        query.sql.push_str(" AND w.status = 'due'");
        if !busy.is_empty() {
            let placeholders: Vec<String> = busy
                .iter()
                .map(|origin| {
                    query.args.push(Arg::Text(origin.clone()));
                    format!("${}", query.args.len())
                })
                .collect();
            query.sql.push_str(&format!(" AND w.origin NOT IN ({})", placeholders.join(", ")));
        }
        let rows = query.then(&format!("ORDER BY w.due_at, w.id LIMIT {limit}")).fetch(self).await?;
        rows.iter()
            .map(|row| {
                Ok(DueDelivery {
                    id: parse(row, "id")?,
                    event_id: row.try_get("event_id")?,
                    kind: row.try_get("kind")?,
                    merchant: parse(row, "merchant_id")?,
                    order: parse(row, "order_id")?,
                    url: row.try_get("url")?,
                    origin: row.try_get("origin")?,
                    event_at: time(row, "event_at")?,
                    tries: u32::try_from(number(row, "tries")?).unwrap_or(u32::MAX),
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

/// The ids of an index, as text.
fn orders_ids(index: &HashMap<OrderId, usize>) -> impl Iterator<Item = String> {
    index.keys().map(ToString::to_string)
}

fn wallet(row: &AnyRow) -> Found<WalletRow> {
    Ok(WalletRow {
        id: parse(row, "id")?,
        name: row.try_get("name")?,
        network: network(row, "network")?,
        address: address(row, "address_hex")?,
        address_text: row.try_get("address")?,
        kind: named(row, "kind", WalletKind::from_name)?,
        status: named(row, "status", WalletStatus::from_name)?,
        tag: row.try_get("tag")?,
        risk_level: row.try_get("risk_level")?,
        ever_leased: flag(row, "ever_leased")?,
        leased_to: number_some(row, "leased_to")?,
        paid_at: number_some(row, "paid_at")?,
        order: parse_some(row, "order_id")?,
        created_at: time(row, "created_at")?,
        last_used_at: time_some(row, "last_used_at")?,
        version: row.try_get("version")?,
    })
}

fn lease(row: &AnyRow) -> Found<Lease> {
    Ok(Lease {
        id: parse::<LeaseId>(row, "id")?,
        order: parse(row, "order_id")?,
        network: network(row, "network")?,
        wallet: parse(row, "wallet_id")?,
        address: address(row, "address_hex")?,
        from: number(row, "from_height")?,
        to: number_some(row, "to_height")?,
    })
}

fn transfer(row: &AnyRow) -> Found<TransferRow> {
    let status: String = row.try_get("status")?;
    let status = PaymentStatus::from_name(&status).ok_or_else(|| StoreError::corrupt("status", status))?;
    Ok(TransferRow {
        id: parse(row, "id")?,
        payment: Payment {
            network: network(row, "network")?,
            key: TransferKey {
                tx_hash: parse(row, "tx_hash")?,
                ordinal: u32::try_from(number(row, "ordinal")?).map_err(|_| StoreError::corrupt("ordinal", "a number above 32 bits"))?,
            },
            from: address(row, "from_hex")?,
            to: address(row, "to_hex")?,
            value: parse(row, "raw_value")?,
            decimals: u8::try_from(number(row, "decimals")?).map_err(|_| StoreError::corrupt("decimals", "a number above 8 bits"))?,
            block: Mark { number: number(row, "block_number")?, time: time(row, "block_time")? },
            standing: status != PaymentStatus::Orphaned,
            proven: flag(row, "proven")?,
            settled: status == PaymentStatus::Confirmed,
            promoted: flag(row, "promoted")?,
            by_hand: flag(row, "by_hand")?,
            late_told: flag(row, "late_told")?,
        },
        block_hash: parse(row, "block_hash")?,
        recorded: named(row, "disposition", Recorded::from_name)?,
        order: parse_some(row, "order_id")?,
        wallet: parse_some(row, "wallet_id")?,
        address_texts: (row.try_get("from_address")?, row.try_get("to_address")?),
        seen_at: time(row, "seen_at")?,
        version: row.try_get("version")?,
    })
}

fn event(row: &AnyRow) -> Found<EventRow> {
    Ok(EventRow {
        seq: row.try_get("seq")?,
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        at: time(row, "at")?,
        body: row.try_get("body")?,
    })
}

/// A depth as the database holds it.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredDepth {
    Blocks(u32),
    Word(String),
}

/// A confirmation as the database holds it.
#[derive(Deserialize)]
struct StoredConfirmation {
    reason: String,
    network: Option<String>,
    tx_hash: Option<String>,
    ordinal: Option<u32>,
}

fn depths(text: &str) -> Found<BTreeMap<Network, Depth>> {
    let stored: BTreeMap<String, StoredDepth> = serde_json::from_str(text).map_err(|_| StoreError::corrupt("depths", text))?;
    stored
        .into_iter()
        .map(|(name, depth)| match depth {
            StoredDepth::Blocks(blocks) => Ok((Network::new(&name), Depth::Blocks(blocks))),
            StoredDepth::Word(word) if word == "final" => Ok((Network::new(&name), Depth::Final)),
            StoredDepth::Word(word) => Err(StoreError::corrupt("depth", word)),
        })
        .collect()
}

fn confirmation(text: &str) -> Found<Confirmation> {
    let bad = || StoreError::corrupt("confirmation", "JSON of another form");
    let stored: StoredConfirmation = serde_json::from_str(text).map_err(|_| bad())?;
    let transfer = match (stored.network, stored.tx_hash, stored.ordinal) {
        (Some(network), Some(tx_hash), Some(ordinal)) => {
            Some((Network::new(&network), TransferKey { tx_hash: tx_hash.parse().map_err(|_| bad())?, ordinal }))
        }
        _ => None,
    };
    Ok(Confirmation { transfer, reason: stored.reason })
}

/// An order's own row; leases and transfers are added by the caller.
fn order_row(row: &AnyRow) -> Found<OrderRow> {
    let depths_text: String = row.try_get("depths")?;
    let terms = Terms {
        amount: amount(row, "amount")?,
        tolerance: amount(row, "tolerance")?,
        expires_at: time(row, "expires_at")?,
        late_window: Span::from_millis(number(row, "late_window")?),
        accept_late: flag(row, "accept_late")?,
        cooldown: Span::from_millis(number(row, "cooldown")?),
        depths: depths(&depths_text)?,
    };
    let paid_by: Option<String> = row.try_get("paid_by")?;
    let paid = match (time_some(row, "paid_at")?, paid_by.as_deref()) {
        (Some(at), Some("money")) => Some(Paid { at, by: PaidBy::Money, late: flag(row, "paid_late")? }),
        (Some(at), Some("person")) => Some(Paid { at, by: PaidBy::Person, late: flag(row, "paid_late")? }),
        (None, None) => None,
        _ => return Err(StoreError::corrupt("paid_by", "a word of another version")),
    };
    let confirmation_text: Option<String> = row.try_get("confirmation")?;
    let exception: Option<String> = row.try_get("exception")?;
    let current: Option<String> = row.try_get("network")?;
    Ok(OrderRow {
        id: parse(row, "id")?,
        merchant: parse(row, "merchant_id")?,
        livemode: flag(row, "livemode")?,
        created_at: time(row, "created_at")?,
        details: Details {
            user_id: row.try_get("user_id")?,
            plan_id: row.try_get("plan_id")?,
            merchant_order_id: row.try_get("merchant_order_id")?,
            callback_url: row.try_get("callback_url")?,
            redirect_url: row.try_get("redirect_url")?,
            metadata: row.try_get("metadata")?,
            note: row.try_get("note")?,
            payer_chooses: flag(row, "payer_chooses")?,
        },
        cancel_reason: row.try_get("cancel_reason")?,
        order: Order {
            terms,
            facts: Facts {
                paid,
                expired_at: time_some(row, "expired_at")?,
                cancelled_at: time_some(row, "cancelled_at")?,
                confirmation: confirmation_text.as_deref().map(confirmation).transpose()?,
                reverted: flag(row, "reverted")?,
                excess_told: amount(row, "excess_told")?,
            },
            leases: Vec::new(),
            current: current.as_deref().map(Network::new),
            tally: Tally { received: amount(row, "amount_received")?, confirmed: amount(row, "amount_confirmed")? },
            status: named(row, "status", Status::from_name)?,
            exception: exception
                .map(|name| Exception::from_name(&name).ok_or_else(|| StoreError::corrupt("exception", name)))
                .transpose()?,
        },
        addresses: Vec::new(),
        transfers: Vec::new(),
        version: row.try_get("version")?,
    })
}

/// The marks of blocks, for heads.
#[must_use]
pub fn marks(recent: &[BlockRef]) -> Arc<[Mark]> {
    recent.iter().map(|block| Mark { number: block.number, time: block.time }).collect()
}

/// I4, for tests and `check`: the stored status equals what the stored facts assess to.
#[must_use]
pub fn is_consistent(row: &OrderRow) -> bool {
    order::assess(&row.order.terms, &row.order.facts, &row.payments()) == (row.order.tally, row.order.status, row.order.exception)
}
