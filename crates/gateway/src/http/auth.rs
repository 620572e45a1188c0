//! Who is calling: `Authorization: Bearer tg_…`. Keys are stored as hashes; what is right for a key
//! is kept a few seconds, so that a busy shop costs one look-up. Whoever keeps trying keys that do
//! not exist is slowed down by address.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use tidegate_rules::id::MerchantId;
use tokio::time::Instant;

use super::App;
use crate::config::IpRange;
use crate::people::Doer;
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
    /// Everything.
    Admin,
}

impl Scope {
    const fn name(self) -> &'static str {
        match self {
            Self::OrdersRead => "orders:read",
            Self::OrdersWrite => "orders:write",
            Self::WalletsRead => "wallets:read",
            Self::WalletsWrite => "wallets:write",
            Self::Admin => "admin",
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

/// How many keys that do not exist one address may try at once; one more each second after that.
const BAD_KEYS_MAX: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// Addresses are forgotten when this many are known and they have been quiet.
const OFFENDERS_MAX: usize = 10_000;

/// The addresses that tried keys which do not exist.
pub struct Offenders(DefaultKeyedRateLimiter<IpAddr>);

impl Default for Offenders {
    fn default() -> Self {
        Self(RateLimiter::hashmap(Quota::per_second(NonZeroU32::MIN).allow_burst(BAD_KEYS_MAX)))
    }
}

impl Offenders {
    /// Counts a bad key against an address: 401, or 429 once there were too many.
    fn refuse(&self, address: IpAddr, detail: &str) -> Problem {
        if self.0.len() >= OFFENDERS_MAX {
            self.0.retain_recent();
        }
        match self.0.check_key(&address) {
            Ok(()) => Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail),
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                let mut problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limited",
                    "too many requests with keys that do not exist; wait, then use a right one",
                );
                problem.retry_after_s = Some(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1));
                problem
            }
        }
    }
}

/// Whose request this is: the peer, or where it is a proxy that is trusted, the last address in
/// `X-Forwarded-For` that is none.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpRange]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|range| range.contains(*address));
    if !is_trusted(&peer) {
        return peer;
    }
    let said = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<IpAddr> = said.flat_map(|value| value.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
    hops.into_iter().rev().find(|hop| !is_trusted(hop)).unwrap_or(peer)
}

/// Whoever made the request, by a key that exists.
pub struct Caller {
    key: ApiKeyRow,
    address: IpAddr,
}

impl Caller {
    /// The caller's shop.
    pub const fn merchant(&self) -> MerchantId {
        self.key.merchant
    }

    /// Who this is, for the audit log.
    pub fn doer(&self) -> Doer {
        Doer { actor: self.key.id.clone(), origin: self.address.to_string() }
    }

    /// Refuses a key without this scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.key.scopes.split(' ').any(|has| has == scope.name() || has == "admin") {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", format!("this call needs a key with the scope {}", scope.name())))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        const EXPECTED: &str = "expected the header Authorization: Bearer tg_…";
        let missing = || Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", EXPECTED);
        let header = parts.headers.get(AUTHORIZATION).ok_or_else(missing)?;
        let secret = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let secret = secret.filter(|secret| secret.starts_with("tg_")).ok_or_else(missing)?;
        let hash = hash_key(secret);
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
        let address = client_address(peer, &parts.headers, &app.gateway.config.server.trusted_proxies);
        if let Some(key) = app.keys.known(&hash) {
            return Ok(Self { key, address });
        }
        let Some(key) = app.gateway.store.api_key(&hash).await? else {
            return Err(app.offenders.refuse(address, "this API key is not known here; `tidegate api-key create` makes one"));
        };
        app.keys.learn(hash, key.clone());
        Ok(Self { key, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_bad_keys_are_slowed_down_by_address() {
        let offenders = Offenders::default();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..BAD_KEYS_MAX.get() {
            assert_eq!(offenders.refuse(one, "").status, StatusCode::UNAUTHORIZED);
        }
        let refused = offenders.refuse(one, "");
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.retry_after_s.is_some_and(|seconds| seconds >= 1));
        assert_eq!(offenders.refuse(other, "").status, StatusCode::UNAUTHORIZED, "others are not concerned");
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let trusted: Vec<IpRange> = vec!["10.0.0.0/8".parse().unwrap()];
        let table = "
            203.0.113.9 | 198.51.100.1                    | 203.0.113.9
            10.0.0.1    | 198.51.100.1                    | 198.51.100.1
            10.0.0.1    | 192.0.2.66, 198.51.100.1        | 198.51.100.1
            10.0.0.1    | 192.0.2.66, 198.51.100.1, 10.9.9.9 | 198.51.100.1
            10.0.0.1    | nonsense                        | 10.0.0.1";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut cells = line.split('|').map(str::trim);
            let (peer, said, expected) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", said.parse().unwrap());
            assert_eq!(client_address(peer.parse().unwrap(), &headers, &trusted).to_string(), expected, "{line}");
        }
    }
}
