//! The operator of a shop: his API key, his alerts, his look at the network's health, and the
//! database as somebody sees it who can write to it.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::api::Api;
use crate::gateway::{Home, NETWORK};
use crate::postgres;
use crate::shop::Shop;
use crate::wait::eventually;

/// The scopes of a key that may do everything.
const ALL_SCOPES: &[&str] = &["orders:read", "orders:write", "wallets:read", "wallets:write", "admin"];

pub struct Operator {
    key: String,
}

impl Operator {
    pub fn of(shop: &Shop) -> Self {
        Self { key: shop.home.api_key(&shop.merchant.name, ALL_SCOPES) }
    }

    /// His client. A restarted gateway has another address.
    pub fn api(&self, shop: &Shop) -> Api {
        shop.gateway.api(&self.key)
    }

    /// Alerts of one kind, newest first.
    pub async fn alerts(&self, shop: &Shop, kind: &str) -> Vec<Value> {
        self.api(shop).all(&format!("/api/v1/admin/alerts?kind={kind}")).await
    }

    /// Waits for an alert of this kind that is about something with `part` in its name.
    pub async fn alert(&self, shop: &Shop, kind: &str, part: &str) -> Value {
        eventually(&format!("{kind} about {part}"), async || {
            let seen = self.alerts(shop, kind).await;
            let found = seen.iter().find(|alert| alert["about"].as_str().is_some_and(|about| about.contains(part)));
            found.cloned().ok_or_else(|| format!("{seen:?}"))
        })
        .await
    }
}

impl Shop {
    /// The network as `/health/blockchain` shows it.
    pub async fn health(&self) -> Value {
        self.api().get("/health/blockchain").await.json()["details"][NETWORK].take()
    }

    /// Waits until the network's health has all of these members.
    pub async fn health_is(&self, members: &Value) -> Value {
        eventually(&format!("the network shows {members}"), async || {
            let now = self.health().await;
            let all = members.as_object().unwrap().iter().all(|(name, value)| now[name] == *value);
            if all { Ok(now) } else { Err(now) }
        })
        .await
    }

    /// Waits until this block is applied.
    pub async fn applied(&self, number: u64) {
        eventually(&format!("block {number} is applied"), async || {
            let head = self.health().await["head"].take();
            if head.as_u64() >= Some(number) { Ok(()) } else { Err(head) }
        })
        .await;
    }
}

/// Runs statements on the home's database, as somebody who can write to it.
pub async fn tamper(home: &Home, sql: &str) {
    if home.database_url.starts_with("postgres") {
        postgres::query(&home.database_url, sql);
        return;
    }
    let mut connection = sqlx::SqliteConnection::connect(&home.database_url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.unwrap();
}

/// What a question finds: a line a row, columns divided by `|`.
pub async fn look(home: &Home, sql: &str) -> String {
    if home.database_url.starts_with("postgres") {
        return postgres::query(&home.database_url, sql);
    }
    let mut connection = sqlx::SqliteConnection::connect(&home.database_url).await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.unwrap();
    let cell = |row: &sqlx::sqlite::SqliteRow, index| row.try_get_unchecked::<Option<String>, _>(index).unwrap().unwrap_or_default();
    let line = |row: &sqlx::sqlite::SqliteRow| (0..row.len()).map(|index| cell(row, index)).collect::<Vec<_>>().join("|");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
