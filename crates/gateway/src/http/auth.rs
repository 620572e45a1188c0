//! Who is calling: `Authorization: Bearer tg_…`. Keys are stored as hashes; what is right for a key
//! is kept a few seconds, so that a busy shop costs one look-up.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use sha2::{Digest as _, Sha256};
use tidegate_rules::id::MerchantId;
use tokio::time::Instant;

use super::App;
use crate::problem::Problem;
use crate::store::ApiKeyRow;

/// How long what was read about a key is believed.
const KEPT: Duration = Duration::from_secs(5);

/// How many keys are kept.
const KEPT_MAX: usize = 10_000;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// See orders.
    OrdersRead,
    /// Make and change orders.
    OrdersWrite,
    /// See wallets.
    WalletsRead,
    /// Make and change wallets.
    WalletsWrite,
}

impl Scope {
    const fn name(self) -> &'static str {
        match self {
            Self::OrdersRead => "orders:read",
            Self::OrdersWrite => "orders:write",
            Self::WalletsRead => "wallets:read",
            Self::WalletsWrite => "wallets:write",
        }
    }
}

/// Every scope there is, as a key may be given it.
pub const SCOPES: [&str; 5] = ["orders:read", "orders:write", "wallets:read", "wallets:write", "admin"];

/// What an API key is stored as.
#[must_use]
pub fn hash_key(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// The keys that were looked up lately.
#[derive(Default)]
pub struct Keys(Mutex<HashMap<String, (ApiKeyRow, Instant)>>);

impl Keys {
    fn known(&self, hash: &str) -> Option<ApiKeyRow> {
        let keys = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.get(hash).filter(|(_, at)| at.elapsed() < KEPT).map(|(key, _)| key.clone())
    }

    fn learn(&self, hash: String, key: ApiKeyRow) {
        let mut keys = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if keys.len() >= KEPT_MAX {
            keys.retain(|_, (_, at)| at.elapsed() < KEPT);
        }
        keys.insert(hash, (key, Instant::now()));
    }
}

/// Whoever made the request, by a key that exists.
pub struct Caller(ApiKeyRow);

impl Caller {
    /// The caller's shop.
    pub const fn merchant(&self) -> MerchantId {
        self.0.merchant
    }

    /// Refuses a key without this scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.0.scopes.split(' ').any(|has| has == scope.name() || has == "admin") {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", format!("this call needs a key with the scope {}", scope.name())))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let unauthorized = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        let header = parts.headers.get(AUTHORIZATION).ok_or_else(|| unauthorized("expected the header Authorization: Bearer tg_…"))?;
        let secret = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let secret = secret
            .filter(|secret| secret.starts_with("tg_"))
            .ok_or_else(|| unauthorized("expected the header Authorization: Bearer tg_…"))?;
        let hash = hash_key(secret);
        if let Some(key) = app.keys.known(&hash) {
            return Ok(Self(key));
        }
        let key = app
            .gateway
            .store
            .api_key(&hash)
            .await?
            .ok_or_else(|| unauthorized("this API key is not known here; `tidegate api-key create` makes one"))?;
        app.keys.learn(hash, key.clone());
        Ok(Self(key))
    }
}
