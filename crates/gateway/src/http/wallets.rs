//! The wallet pool over HTTP, for operators.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_rules::block::Network;
use tidegate_rules::changes::NewWallet;
use tidegate_rules::id::WalletId;
use tidegate_rules::people::Permission;
use tidegate_rules::wallet::{WalletKind, WalletStatus};
use utoipa::{IntoParams, ToSchema};

use super::api::{cut_page, limit, one_more, read_cursor, write_cursor};
use super::auth::{Caller, Scope};
use super::idempotency::{Answer, Keeper, Kept, answer};
use super::request::{EmptyBody, Hidden, Params, RawBody};
use super::{App, ProblemBody};
use crate::orders::part_named;
use crate::pool::{Batch, GENERATE_MAX};
use crate::problem::Problem;
use crate::store::{WalletFilter, WalletRow};

/// The longest name of a wallet.
const NAME_MAX: usize = 100;

/// A wallet of the pool.
#[derive(Serialize, ToSchema)]
pub struct WalletView {
    /// Its id.
    #[schema(example = "wal_019a5a0fca7e7bd0a3f2c8e1b4d96f70")]
    id: String,
    /// What people call it.
    #[schema(example = "tron_wallet_0001")]
    name: String,
    /// Where it lives.
    #[schema(example = "tron")]
    network: String,
    /// Its address.
    address: String,
    /// `random`, `hd`, `watch` or `imported`.
    kind: String,
    /// `available`, `occupied`, `cooldown`, `disabled` or `frozen`.
    #[schema(example = "available")]
    status: String,
    /// The last balance read, in USDT; null before the first reading.
    balance: Option<String>,
    /// When the balance was read.
    balance_at: Option<String>,
    /// The order it is leased to.
    order_id: Option<String>,
    /// `low`, `watch`, `high` or `blocked`.
    #[schema(example = "low")]
    risk_level: String,
    /// When it joined.
    created_at: String,
    /// When it was leased last.
    last_used_at: Option<String>,
    /// When its key was last opened and found to give this address.
    verified_at: Option<String>,
}

impl WalletView {
    /// One line of a table.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{:<37} {:<28} {:<12} {:<44} {}", self.id, self.name, self.network, self.address, self.status)
    }
}

impl From<&WalletRow> for WalletView {
    fn from(row: &WalletRow) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name.clone(),
            network: row.network.to_string(),
            address: row.address_text.clone(),
            kind: row.kind.name().to_owned(),
            status: row.status.name().to_owned(),
            balance: row.balance.map(|(balance, _)| balance.to_string()),
            balance_at: row.balance.map(|(_, at)| at.to_string()),
            order_id: row.order.map(|order| order.to_string()),
            risk_level: row.risk_level.name().to_owned(),
            created_at: row.created_at.to_string(),
            last_used_at: row.last_used_at.map(|at| at.to_string()),
            verified_at: row.verified_at.map(|at| at.to_string()),
        }
    }
}

impl From<&NewWallet> for WalletView {
    fn from(new: &NewWallet) -> Self {
        Self {
            id: new.id.to_string(),
            name: new.name.clone(),
            network: new.network.to_string(),
            address: new.address_text.clone(),
            kind: new.kind.name().to_owned(),
            status: WalletStatus::Available.name().to_owned(),
            balance: None,
            balance_at: None,
            order_id: None,
            risk_level: "low".to_owned(),
            created_at: new.created_at.to_string(),
            last_used_at: None,
            verified_at: None,
        }
    }
}

/// A page of wallets.
#[derive(Serialize, ToSchema)]
pub struct WalletPage {
    /// Newest first.
    pub data: Vec<WalletView>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<String>,
}

impl WalletPage {
    /// Stored wallets, all on one page.
    pub fn of(rows: &[WalletRow]) -> Self {
        Self { data: rows.iter().map(WalletView::from).collect(), next_cursor: None }
    }

    /// Wallets that were just made.
    pub fn made(wallets: &[NewWallet]) -> Self {
        Self { data: wallets.iter().map(WalletView::from).collect(), next_cursor: None }
    }
}

/// How many wallets to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateWallets {
    /// Where.
    #[schema(example = "tron")]
    network: String,
    /// How many, 1 to 1000.
    #[schema(example = 100)]
    count: u32,
    /// What their names start with, instead of the template of the configuration.
    name_prefix: Option<String>,
    /// `random`, `hd` or `watch`; what the configuration says for the network where it is missing.
    kind: Option<String>,
    /// Which seed or extended public key, by name or id; the newest where it is missing.
    source: Option<String>,
}

pub(super) fn checked_name(pointer: &str, name: Option<String>) -> Result<Option<String>, Problem> {
    match name {
        Some(name) if name.is_empty() || name.chars().count() > NAME_MAX || name.chars().any(char::is_control) => {
            Err(Problem::invalid(pointer, format!("expected 1 to {NAME_MAX} printable characters")))
        }
        other => Ok(other),
    }
}

/// Make wallets, all or none
#[utoipa::path(post, path = "/api/v1/admin/wallets/generate", tag = "wallets", request_body = GenerateWallets, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = WalletPage), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn generate_wallets(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.require(Scope::WalletsWrite)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: GenerateWallets = body.json(EmptyBody::IsMalformed)?;
        let prefix = checked_name("/name_prefix", asked.name_prefix)?;
        let part = part_named(&app.gateway, &Network::new(&asked.network))?;
        if !(1..=GENERATE_MAX).contains(&asked.count) {
            return Err(Problem::invalid("/count", format!("expected 1 to {GENERATE_MAX}")));
        }
        let made = |wallets: &[NewWallet]| Answer::json(StatusCode::CREATED, &WalletPage::made(wallets));
        let keep = |wallets: &[NewWallet]| keeper.as_ref().map(|keeper| keeper.keep(&made(wallets)));
        let kind = asked.kind.map(|name| {
            WalletKind::from_name(&name)
                .filter(|kind| *kind != WalletKind::Imported)
                .ok_or_else(|| Problem::invalid("/kind", "expected random, hd or watch"))
        });
        let batch = Batch { count: asked.count, name_prefix: prefix.as_deref(), kind: kind.transpose()?, source: asked.source.as_deref() };
        let wallets = app.gateway.pool.generate(&app.gateway, part, &batch, &caller.doer(), keep).await?;
        Ok((made(&wallets), Kept::InItsCommit))
    })
    .await
}

/// A wallet to take in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportWallet {
    /// Where.
    #[schema(example = "ethereum")]
    network: String,
    /// 64 hex digits, with or without 0x. Never shown again.
    #[schema(value_type = String)]
    private_key: Hidden,
    /// What to call it.
    name: Option<String>,
}

/// Take in a wallet by its private key
#[utoipa::path(post, path = "/api/v1/admin/wallets/import", tag = "wallets", request_body = ImportWallet, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = WalletView), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, description = "wallet_exists", body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, description = "invalid_private_key, or another field", body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn import_wallet(State(app): State<App>, caller: Caller, body: RawBody) -> Result<Response, Problem> {
    caller.may(Permission::WalletsImport)?;
    answer(&app, &caller, &body, async |keeper: Option<Keeper>| {
        let asked: ImportWallet = body.json(EmptyBody::IsMalformed)?;
        caller.prove(&app, Permission::WalletsImport).await?;
        let name = checked_name("/name", asked.name)?;
        let part = part_named(&app.gateway, &Network::new(&asked.network))?;
        let made = |wallet: &NewWallet| {
            Answer::json(StatusCode::CREATED, &WalletView::from(wallet)).at(format!("/api/v1/admin/wallets/{}", wallet.id))
        };
        let keep = |wallets: &[NewWallet]| keeper.as_ref().zip(wallets.first()).map(|(keeper, wallet)| keeper.keep(&made(wallet)));
        let wallet =
            app.gateway.pool.import(&app.gateway, part, asked.private_key.0.expose(), name.as_deref(), &caller.doer(), keep).await?;
        Ok((made(&wallet), Kept::InItsCommit))
    })
    .await
}

/// Which wallets to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListWallets {
    /// On this network.
    network: Option<String>,
    /// `available`, `occupied`, `cooldown`, `disabled` or `frozen`.
    status: Option<String>,
    /// With this address.
    address: Option<String>,
    /// `random`, `hd`, `watch` or `imported`.
    kind: Option<String>,
    /// How many, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List wallets, newest first
#[utoipa::path(get, path = "/api/v1/admin/wallets", tag = "wallets", params(ListWallets),
    responses((status = 200, body = WalletPage), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list_wallets(State(app): State<App>, caller: Caller, Params(query): Params<ListWallets>) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsRead)?;
    let limit = limit(query.limit)?;
    let status = query.status.map(|name| {
        WalletStatus::from_name(&name)
            .ok_or_else(|| Problem::invalid("status", "expected available, occupied, cooldown, disabled or frozen"))
    });
    let kind = query
        .kind
        .map(|name| WalletKind::from_name(&name).ok_or_else(|| Problem::invalid("kind", "expected random, hd, watch or imported")));
    let filter = WalletFilter {
        network: query.network.map(|network| Network::new(&network)),
        status: status.transpose()?,
        address: query.address,
        kind: kind.transpose()?,
        before: read_cursor(query.cursor)?,
    };
    let mut rows = app
        .gateway
        .store
        .lately(|store| {
            let filter = filter.clone();
            async move { store.wallets(filter, one_more(limit)).await }
        })
        .await?;
    let next_cursor = cut_page(&mut rows, limit).map(|row| write_cursor(&row.id));
    Ok(Answer::json(StatusCode::OK, &WalletPage { data: rows.iter().map(WalletView::from).collect(), next_cursor }))
}

/// Show a wallet
#[utoipa::path(get, path = "/api/v1/admin/wallets/{id}", tag = "wallets", params(("id" = String, Path)),
    responses((status = 200, body = WalletView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get_wallet(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer, Problem> {
    caller.require(Scope::WalletsRead)?;
    let missing = || Problem::not_found("wallet");
    let id: WalletId = id.parse().map_err(|_| missing())?;
    let row = app.gateway.store.wallet(id).await?.ok_or_else(missing)?;
    Ok(Answer::json(StatusCode::OK, &WalletView::from(&row)))
}
