//! What is asked about chains over HTTP: transactions, balances, fees, addresses.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_rules::block::Network;
use tidegate_rules::changes::Recorded;
use tidegate_rules::id::{JobId, OrderId};
use tidegate_rules::order::PaymentStatus;
use tidegate_rules::people::Permission;
use tidegate_rules::time::Time;
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, moment, one_more, read_cursor, write_cursor};
use super::auth::{Caller, Scope};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::request::{EmptyBody, Params, RawBody, id_in_path};
use super::wallets::WalletView;
use super::{App, ProblemBody};
use crate::balances;
use crate::clock;
use crate::gateway::{Gateway, NetworkPart};
use crate::orders::{self, TransferView, hash_text, transfer_view};
use crate::problem::Problem;
use crate::quotes::{self, FeeQuote};
use crate::store::{BalanceRow, JobRow, JobStatus, TransferFilter, TransferRow};
use crate::transactions::{self, Known};

/// The network that a path names.
fn part_in_path<'a>(gateway: &'a Gateway, name: &str) -> Result<&'a Arc<NetworkPart>, Problem> {
    gateway.networks().get(&Network::new(name)).ok_or_else(|| Problem::not_found("network"))
}

/// A transfer to an address of the pool, and what became of it.
#[derive(Serialize, ToSchema)]
pub struct TransactionView {
    #[serde(flatten)]
    transfer: TransferView,
    /// `matched`, `late`, `stray`, `dust`, `own` or `unreadable`.
    #[schema(example = "stray")]
    disposition: String,
    /// Why it counts, or does not.
    reason: String,
    /// The order that it belongs to.
    order_id: Option<String>,
    /// The wallet that it went to.
    wallet_id: Option<String>,
    /// The time of its block.
    block_time: String,
}

impl TransactionView {
    fn of(gateway: &Gateway, row: &TransferRow) -> Self {
        Self {
            transfer: transfer_view(gateway, row, &gateway.heads()),
            disposition: row.recorded.name().to_owned(),
            reason: transactions::why(row).to_owned(),
            order_id: row.order.map(|order| order.to_string()),
            wallet_id: row.wallet.map(|wallet| wallet.to_string()),
            block_time: row.payment.block.time.to_string(),
        }
    }
}

/// A page of transfers.
#[derive(Serialize, ToSchema)]
pub struct TransactionPage {
    /// The last seen first.
    data: Vec<TransactionView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which transfers to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListTransactions {
    /// On this network.
    network: Option<String>,
    /// `matched`, `late`, `stray`, `dust`, `own` or `unreadable`.
    disposition: Option<String>,
    /// `pending`, `confirmed`, `failed` or `orphaned`.
    status: Option<String>,
    /// To this address.
    address: Option<String>,
    /// Of this order.
    order_id: Option<String>,
    /// Of this transaction.
    tx_hash: Option<String>,
    /// In blocks from this time on, RFC 3339.
    from: Option<String>,
    /// In blocks up to this time, RFC 3339.
    to: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl ListTransactions {
    fn filter(self, gateway: &Gateway) -> Result<(TransferFilter, u32), Problem> {
        let recorded = self.disposition.map(|name| {
            Recorded::from_name(&name)
                .ok_or_else(|| Problem::invalid("disposition", "expected matched, late, stray, dust, own or unreadable"))
        });
        let status = self.status.map(|name| {
            PaymentStatus::from_name(&name).ok_or_else(|| Problem::invalid("status", "expected pending, confirmed, failed or orphaned"))
        });
        let order = self
            .order_id
            .map(|text| text.parse::<OrderId>().map_err(|_| Problem::invalid("order_id", "expected an order's id, such as ord_…")));
        let filter = TransferFilter {
            network: self.network.map(|network| Network::new(&network)),
            recorded: recorded.transpose()?,
            status: status.transpose()?,
            address: self.address.map(|address| orders::own_spelling(gateway, address)),
            wallet: None,
            order: order.transpose()?.map(|order| order.to_string()),
            tx_hash: self.tx_hash.map(|hash| transactions::parse_hash("tx_hash", &hash)).transpose()?,
            from: moment("from", self.from)?,
            to: moment("to", self.to)?,
            before: read_cursor(self.cursor)?,
        };
        Ok((filter, limit(self.limit)?))
    }
}

async fn page(app: &App, filter: TransferFilter, limit: u32) -> Result<Answer, Problem> {
    let mut rows = app
        .gateway
        .store
        .lately(|store| {
            let filter = filter.clone();
            async move { store.transfers(filter, one_more(limit)).await }
        })
        .await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    let data = rows.iter().map(|row| TransactionView::of(&app.gateway, row)).collect();
    Ok(Answer::json(StatusCode::OK, &TransactionPage { data, next_cursor }))
}

/// List every transfer to an address of the pool, the last seen first
#[utoipa::path(get, path = "/api/v1/admin/transactions", tag = "chains", params(ListTransactions),
    responses((status = 200, body = TransactionPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_transactions(State(app): State<App>, caller: Caller, Params(query): Params<ListTransactions>) -> Result<Answer, Problem> {
    caller.may(Permission::TransactionsRead)?;
    let (filter, limit) = query.filter(&app.gateway)?;
    page(&app, filter, limit).await
}

/// How many transfers to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List the transfers to a wallet, the last seen first
#[utoipa::path(get, path = "/api/v1/admin/wallets/{id}/transactions", tag = "wallets", params(("id" = String, Path), Page),
    responses((status = 200, body = TransactionPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn wallet_transactions(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Params(query): Params<Page>,
) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsRead)?;
    let id = id_in_path("wallet", &id)?;
    app.gateway.store.wallet(id).await?.ok_or_else(|| Problem::not_found("wallet"))?;
    let filter = TransferFilter { wallet: Some(id), before: read_cursor(query.cursor)?, ..TransferFilter::default() };
    page(&app, filter, limit(query.limit)?).await
}

/// What is known of a transaction.
#[derive(Serialize, ToSchema)]
pub struct KnownView {
    /// Where.
    #[schema(example = "tron")]
    network: String,
    /// Its hash.
    tx_hash: String,
    /// `recorded`, `waiting` (for a block), `unread` (its block comes next), `failed`, `foreign`
    /// (pays nothing to the pool) or `unknown`.
    #[schema(example = "recorded")]
    status: String,
    /// The same in words.
    reason: String,
    /// Its block, where the chain was asked just now.
    block_number: Option<u64>,
    /// Its transfers to addresses of the pool.
    transfers: Vec<TransactionView>,
}

impl KnownView {
    fn of(gateway: &Gateway, known: &Known) -> Self {
        Self {
            network: known.network.to_string(),
            tx_hash: hash_text(gateway, &known.network, known.hash),
            status: known.standing.name().to_owned(),
            reason: known.standing.to_string(),
            block_number: known.block,
            transfers: known.transfers.iter().map(|row| TransactionView::of(gateway, row)).collect(),
        }
    }
}

/// Show a transaction; one that is not recorded is read from the chain
///
/// What it pays to the pool and was missed is taken in; one that failed is recorded as failed.
#[utoipa::path(get, path = "/api/v1/admin/transactions/{network}/{tx_hash}", tag = "chains", params(("network" = String, Path), ("tx_hash" = String, Path)),
    responses((status = 200, body = KnownView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_transaction(
    State(app): State<App>,
    caller: Caller,
    Path((network, hash)): Path<(String, String)>,
) -> Result<Answer, Problem> {
    caller.may(Permission::TransactionsRead)?;
    let part = part_in_path(&app.gateway, &network)?;
    let hash = transactions::parse_hash("tx_hash", &hash)?;
    let known = quotes::transaction(&app.gateway, part, hash).await?;
    Ok(Answer::json(StatusCode::OK, &KnownView::of(&app.gateway, &known)))
}

/// What an address holds.
#[derive(Serialize, ToSchema)]
pub struct BalanceView {
    /// In USDT, whole millionths.
    #[schema(example = "12.500000")]
    balance: String,
    /// The exact number of base units.
    #[schema(example = "12500000")]
    raw_value: String,
    /// The block that it was read at.
    block_number: u64,
    /// When.
    balance_at: String,
}

/// Whether a text is an address, and whose.
#[derive(Serialize, ToSchema)]
pub struct AddressView {
    /// True for an address of this network, its checksum included.
    valid: bool,
    /// As this network writes it.
    normalized: Option<String>,
    /// True for one of the pool.
    own: bool,
}

/// Check an address
#[utoipa::path(get, path = "/api/v1/addresses/{network}/{address}", tag = "networks", params(("network" = String, Path), ("address" = String, Path)),
    responses((status = 200, body = AddressView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn check_address(
    State(app): State<App>,
    caller: Caller,
    Path((network, address)): Path<(String, String)>,
) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let part = part_in_path(&app.gateway, &network)?;
    let found = part.chain.parse_address(&address);
    let own = match found {
        Some(address) => !app.gateway.store.wallets_at(&part.config.name, &[address]).await?.is_empty(),
        None => false,
    };
    let normalized = found.map(|address| part.chain.format_address(&address));
    Ok(Answer::json(StatusCode::OK, &AddressView { valid: found.is_some(), normalized, own }))
}

/// Read what any address holds; kept for 300 s
#[utoipa::path(get, path = "/api/v1/addresses/{network}/{address}/balance", tag = "networks", params(("network" = String, Path), ("address" = String, Path)),
    responses((status = 200, body = BalanceView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn address_balance(
    State(app): State<App>,
    caller: Caller,
    Path((network, address)): Path<(String, String)>,
) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let part = part_in_path(&app.gateway, &network)?;
    let address = part
        .chain
        .parse_address(&address)
        .ok_or_else(|| Problem::invalid("address", format!("expected an address of {}, with a right checksum", part.config.name)))?;
    let balance = quotes::balance(&app.gateway, part, address).await?;
    let view = BalanceView {
        balance: balance.value.to_amount_saturating(part.config.decimals).to_string(),
        raw_value: balance.value.to_string(),
        block_number: balance.block,
        balance_at: balance.at.to_string(),
    };
    Ok(Answer::json(StatusCode::OK, &view))
}

/// What one transfer of the token costs its sender; kept for 600 s
#[utoipa::path(get, path = "/api/v1/networks/{network}/fee", tag = "networks", params(("network" = String, Path)),
    responses((status = 200, body = FeeQuote), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn network_fee(State(app): State<App>, caller: Caller, Path(network): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::OrdersRead)?;
    let part = part_in_path(&app.gateway, &network)?;
    Ok(Answer::json(StatusCode::OK, &*quotes::fee(&app.gateway, part).await?))
}

/// Read what a wallet holds now, and compare it with the records
#[utoipa::path(post, path = "/api/v1/admin/wallets/{id}/sync", tag = "wallets", params(("id" = String, Path)),
    responses((status = 200, body = WalletView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn sync_wallet(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsWrite)?;
    let missing = || Problem::not_found("wallet");
    let row = app.gateway.store.wallet(id_in_path("wallet", &id)?).await?.ok_or_else(missing)?;
    let part = app
        .gateway
        .networks()
        .get(&row.network)
        .ok_or_else(|| Problem::unavailable("network_unavailable", format!("{} is not configured", row.network)))?;
    balances::sync(&app.gateway, part, std::slice::from_ref(&row), |_| {}).await?;
    let row = app.gateway.store.wallet(row.id).await?.ok_or_else(missing)?;
    Ok(Answer::json(StatusCode::OK, &WalletView::from(&row)))
}

/// Which wallets to read.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncWallets {
    /// Of this network alone.
    #[schema(example = "tron")]
    network: Option<String>,
}

/// Long work, and how far it is.
#[derive(Serialize, ToSchema)]
pub struct JobView {
    /// Its id.
    #[schema(example = "job_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// What it does.
    #[schema(example = "wallet_sync")]
    kind: String,
    /// `running`, `done`, `failed`, or `interrupted` when its process ended before it did.
    status: String,
    /// How much is done.
    done: u64,
    /// Of how much.
    total: u64,
    /// What came of it.
    #[schema(value_type = Object)]
    detail: Value,
    /// Since when.
    created_at: String,
    /// When it last said something.
    changed_at: String,
}

impl JobView {
    fn of(row: &JobRow, now: Time) -> Self {
        let silent = row.status == JobStatus::Running && now.since(row.changed_at) > balances::JOB_SILENT_MAX;
        Self {
            id: row.id.to_string(),
            kind: row.kind.clone(),
            status: if silent { "interrupted" } else { row.status.name() }.to_owned(),
            done: row.done,
            total: row.total,
            detail: serde_json::from_str(&row.detail).unwrap_or_default(),
            created_at: row.created_at.to_string(),
            changed_at: row.changed_at.to_string(),
        }
    }
}

/// Read what every wallet that may hold something holds, in the background
#[utoipa::path(post, path = "/api/v1/admin/wallets/sync", tag = "wallets", request_body = SyncWallets, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, description = "Under way; a second call gives the same job", body = JobView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn sync_wallets(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::WalletsWrite)?;
    answer(&app, &caller, &body, async |_: Option<Keeper>| {
        let asked: SyncWallets = body.json(EmptyBody::MeansNoFields)?;
        let parts = match asked.network {
            Some(name) => vec![Arc::clone(orders::part_named(&app.gateway, &Network::new(&name))?)],
            None => app.gateway.networks().values().cloned().collect(),
        };
        let job = balances::start_job(&app.gateway, parts).await?;
        let view = JobView::of(&job, clock::now());
        Ok((Answer::json(StatusCode::ACCEPTED, &view).at(format!("/api/v1/admin/jobs/{}", view.id)), Kept::NotYet))
    })
    .await
}

/// Show how far a job is
#[utoipa::path(get, path = "/api/v1/admin/jobs/{id}", tag = "wallets", params(("id" = String, Path)),
    responses((status = 200, body = JobView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_job(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsRead)?;
    let missing = || Problem::not_found("job");
    let id: JobId = id.parse().map_err(|_| missing())?;
    let row = app.gateway.store.job(id).await?.ok_or_else(missing)?;
    Ok(Answer::json(StatusCode::OK, &JobView::of(&row, clock::now())))
}

/// What a wallet held.
#[derive(Serialize, ToSchema)]
pub struct SnapshotView {
    /// In USDT, whole millionths.
    #[schema(example = "12.500000")]
    balance: String,
    /// The exact number of base units.
    raw_value: String,
    /// The block that it was read at.
    block_number: u64,
    /// When.
    balance_at: String,
    /// What the records of its transfers explained then; null where its block was not read yet.
    explained: Option<bool>,
}

/// A page of snapshots.
#[derive(Serialize, ToSchema)]
pub struct SnapshotPage {
    /// Newest first.
    data: Vec<SnapshotView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

/// List what a wallet held, newest first
#[utoipa::path(get, path = "/api/v1/admin/wallets/{id}/balances", tag = "wallets", params(("id" = String, Path), Page),
    responses((status = 200, body = SnapshotPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn wallet_balances(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Params(query): Params<Page>,
) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsRead)?;
    let wallet = app.gateway.store.wallet(id_in_path("wallet", &id)?).await?.ok_or_else(|| Problem::not_found("wallet"))?;
    let decimals = app.gateway.networks().get(&wallet.network).map_or(6, |part| part.config.decimals);
    let limit = limit(query.limit)?;
    let before = read_cursor(query.cursor)?
        .map(|text| text.parse().map(Time::from_millis).map_err(|_| Problem::invalid("cursor", "expected next_cursor of the page before")))
        .transpose()?
        .unwrap_or(Time::from_millis(i64::MAX));
    let mut rows = app.gateway.store.balances_of(wallet.id, before, one_more(limit)).await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.taken_at.millis()));
    let view = |row: &BalanceRow| SnapshotView {
        balance: row.value.to_amount_saturating(decimals).to_string(),
        raw_value: row.value.to_string(),
        block_number: row.block,
        balance_at: row.taken_at.to_string(),
        explained: row.difference().map(|difference| difference == tidegate_rules::books::Difference::None),
    };
    Ok(Answer::json(StatusCode::OK, &SnapshotPage { data: rows.iter().map(view).collect(), next_cursor }))
}
