//! Who is calling: `Authorization: Bearer tg_…`, or the cookie of a session. Keys and sessions are
//! stored as hashes; what is right for a key is kept a few seconds, so that a busy shop costs one
//! look-up. Whoever keeps trying what does not exist is slowed down by address.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use sha2::{Digest as _, Sha256};
use tidegate_rules::id::{KeyId, MerchantId};
use tidegate_rules::people::Permission;
use tidegate_rules::time::Time;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::App;
use super::forwarded::{Peer, client_address};
use crate::clock;
use crate::config::{IpRange, SecretText};
use crate::people::throttle::network_of;
use crate::people::{Doer, login};
use crate::problem::Problem;
use crate::rate::{Limiter, Rate, Together};
use crate::store::{ApiKeyRow, SessionRow, UserRow};

/// How long what was read about a key is believed.
const KEPT: Duration = Duration::from_secs(5);

/// How many keys are kept.
const KEPT_MAX: usize = 10_000;

/// What a key may do. People have roles instead: [`Permission`] is finer.
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

/// A key that was looked up lately, ready to be used.
struct Known {
    row: ApiKeyRow,
    /// Where it may be used from; nothing is everywhere.
    ranges: Vec<IpRange>,
    /// When it was last noted that it is used, in milliseconds.
    noted_ms: AtomicI64,
}

impl Known {
    fn of(row: ApiKeyRow) -> Result<Self, Problem> {
        let ranges: Result<Vec<IpRange>, ()> = row.allowed_ips.split_whitespace().map(str::parse).collect();
        // A list that does not read must not mean everywhere.
        let ranges = ranges.map_err(|()| {
            tracing::error!(key = %row.id, "the allowed networks of an API key do not read");
            Problem::internal()
        })?;
        let noted_ms = AtomicI64::new(row.last_used_at.map_or(i64::MIN, Time::millis));
        Ok(Self { row, ranges, noted_ms })
    }

    /// Whether it may be used now and from there.
    fn check(&self, address: IpAddr, now: Time) -> Result<(), Problem> {
        if let Some(expired) = self.row.expires_at.filter(|until| now >= *until) {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                format!("this API key expired at {expired}; make a new one"),
            ));
        }
        if self.ranges.is_empty() || self.ranges.iter().any(|range| range.contains(address)) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", format!("this API key may not be used from {address}")))
    }

    /// True once in a while: then it is noted that the key is used.
    fn is_to_be_noted(&self, now: Time) -> bool {
        let noted = self.noted_ms.load(Ordering::Relaxed);
        let is_due = now.millis().saturating_sub(noted) >= NOTED_EVERY_MS;
        is_due && self.noted_ms.compare_exchange(noted, now.millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// How often it is noted that a key is used.
const NOTED_EVERY_MS: i64 = 60_000;

/// The keys that were looked up lately.
#[derive(Default)]
pub struct Keys(Mutex<HashMap<String, (Arc<Known>, Instant)>>);

impl Keys {
    fn known(&self, hash: &str) -> Option<Arc<Known>> {
        let keys = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.get(hash).filter(|(_, at)| at.elapsed() < KEPT).map(|(key, _)| Arc::clone(key))
    }

    fn learn(&self, hash: String, key: Arc<Known>) {
        let mut keys = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if keys.len() >= KEPT_MAX {
            keys.retain(|_, (_, at)| at.elapsed() < KEPT);
        }
        keys.insert(hash, (key, Instant::now()));
    }

    /// Forgets a key, so that its end is known at once.
    pub fn forget(&self, id: KeyId) {
        let mut keys = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.retain(|_, (key, _)| key.row.id != id);
    }
}

/// How many keys that do not exist one address may try at once; one more each second after that.
const BAD_KEYS_MAX: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// The addresses that tried keys which do not exist. Counted together with the other processes of the
/// database, where there is Redis.
pub struct Offenders(Limiter<IpAddr>);

impl Offenders {
    /// None, as far as this process knows.
    pub fn new(together: Option<&Together>) -> Self {
        Self(Limiter::new("bad_key", Rate::per_second(NonZeroU32::MIN, BAD_KEYS_MAX), IpAddr::to_string, together))
    }

    /// Counts a bad key against an address: 401, or 429 once there were too many.
    async fn refuse(&self, address: IpAddr, detail: &str) -> Problem {
        match self.0.count(&network_of(address)).await {
            Ok(()) => Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail),
            Err(again_s) => {
                Problem::too_many("too many requests with keys or sessions that do not exist; wait, then use a right one", again_s)
            }
        }
    }
}

/// Whoever made the request: an API key that exists, or somebody who is logged in.
pub struct Caller {
    who: Who,
    address: IpAddr,
}

enum Who {
    Key(Arc<Known>),
    Person(Box<Person>),
}

/// Somebody who is logged in.
pub struct Person {
    /// Who.
    pub user: UserRow,
    /// The session.
    pub session: SessionRow,
    /// What is in the cookie.
    pub token: SecretText,
    /// The code of the second factor that came with the request.
    totp: Option<String>,
}

/// The scope that an API key needs for what people have a permission for.
const fn scope_for(permission: Permission) -> Scope {
    match permission {
        Permission::OrdersRead => Scope::OrdersRead,
        Permission::OrdersWrite => Scope::OrdersWrite,
        Permission::WalletsRead => Scope::WalletsRead,
        Permission::WalletsWrite | Permission::WalletsImport => Scope::WalletsWrite,
        Permission::AllOrdersRead
        | Permission::AllOrdersWrite
        | Permission::TransactionsRead
        | Permission::AlertsRead
        | Permission::AlertsWrite
        | Permission::AuditRead
        | Permission::MetricsRead
        | Permission::MerchantsRead
        | Permission::MerchantsWrite
        | Permission::KeysRead
        | Permission::KeysWrite
        | Permission::UsersRead
        | Permission::UsersWrite
        | Permission::Everything => Scope::Admin,
    }
}

/// The permission that people need for what an API key has a scope for.
const fn permission_for(scope: Scope) -> Permission {
    match scope {
        Scope::OrdersRead => Permission::OrdersRead,
        Scope::OrdersWrite => Permission::OrdersWrite,
        Scope::WalletsRead => Permission::WalletsRead,
        Scope::WalletsWrite => Permission::WalletsWrite,
        Scope::Admin => Permission::Everything,
    }
}

impl Caller {
    /// The caller's shop.
    ///
    /// # Errors
    /// 403 for somebody who is logged in: a person belongs to no shop.
    pub fn merchant(&self) -> Result<MerchantId, Problem> {
        match &self.who {
            Who::Key(key) => Ok(key.row.merchant),
            Who::Person(_) => {
                let detail = "this call is a shop's: use an API key of the shop, or the call under /api/v1/admin";
                Err(Problem::new(StatusCode::FORBIDDEN, "needs_api_key", detail))
            }
        }
    }

    /// Whose idempotency keys these are: a shop's, or a person's.
    pub fn scope_of_keys(&self) -> String {
        match &self.who {
            Who::Key(key) => key.row.merchant.to_string(),
            Who::Person(person) => person.user.id.to_string(),
        }
    }

    /// Who this is, for the audit log.
    pub fn doer(&self) -> Doer {
        let actor = match &self.who {
            Who::Key(key) => key.row.id.to_string(),
            Who::Person(person) => person.user.id.to_string(),
        };
        Doer { actor, origin: self.address.to_string() }
    }

    /// Refuses a key without this scope, and somebody whose role does not allow what it stands for.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        self.has(scope, permission_for(scope))
    }

    /// Refuses somebody whose role does not allow this, and a key without the scope it needs.
    pub fn may(&self, permission: Permission) -> Result<(), Problem> {
        self.has(scope_for(permission), permission)
    }

    fn has(&self, scope: Scope, permission: Permission) -> Result<(), Problem> {
        let refused = |code, detail| Err(Problem::new(StatusCode::FORBIDDEN, code, detail));
        match &self.who {
            Who::Key(key) if key.row.scopes.split(' ').any(|has| has == scope.name() || has == "admin") => Ok(()),
            Who::Key(_) => refused("insufficient_scope", format!("this call needs a key with the scope {}", scope.name())),
            Who::Person(person) if person.user.role.may(permission) => Ok(()),
            Who::Person(person) => {
                let detail =
                    format!("this call needs the permission {}, which the role {} has not", permission.name(), person.user.role.name());
                refused("role_not_allowed", detail)
            }
        }
    }

    /// Asks a person for a second factor where this permission needs one, and uses it up. A key has
    /// none: what it changes is told to the owner.
    pub async fn prove(&self, app: &App, permission: Permission) -> Result<(), Problem> {
        match &self.who {
            Who::Person(person) if permission.needs_proof() => {
                login::prove(&app.gateway, &app.throttle, &person.user, person.totp.as_deref()).await
            }
            _ => Ok(()),
        }
    }

    /// Somebody who is logged in.
    ///
    /// # Errors
    /// 403 for an API key.
    pub fn person(&self) -> Result<&Person, Problem> {
        match &self.who {
            Who::Person(person) => Ok(person),
            Who::Key(_) => {
                Err(Problem::new(StatusCode::FORBIDDEN, "needs_session", "this call is for people who are logged in, not for API keys"))
            }
        }
    }
}

/// The address that a request came from.
pub fn address_of(app: &App, parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.address);
    client_address(peer, &parts.headers, &app.gateway.config.server)
}

/// The address that a request came from, for a handler that wants to know it.
pub struct ClientAddress(pub IpAddr);

impl FromRequestParts<App> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(address_of(app, parts)))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let address = address_of(app, parts);
        let who = match parts.headers.get(AUTHORIZATION) {
            Some(header) => Who::Key(key_of(app, header, address).await?),
            None => Who::Person(Box::new(person_of(app, parts, address).await?)),
        };
        Ok(Self { who, address })
    }
}

const EXPECTED: &str = "expected the header Authorization: Bearer tg_…, or the cookie of a session";

async fn key_of(app: &App, header: &HeaderValue, address: IpAddr) -> Result<Arc<Known>, Problem> {
    let secret = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let secret = secret.filter(|secret| secret.starts_with("tg_"));
    let secret = secret.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", EXPECTED))?;
    let hash = hash_key(secret);
    let key = match app.keys.known(&hash) {
        Some(key) => key,
        None => {
            let Some(row) = app.gateway.store.api_key(&hash).await? else {
                return Err(app.offenders.refuse(address, "this API key is not known here; `tidegate api-key create` makes one").await);
            };
            let key = Arc::new(Known::of(row)?);
            app.keys.learn(hash, Arc::clone(&key));
            key
        }
    };
    let now = clock::now();
    key.check(address, now)?;
    app.limits.key(key.row.id).await?;
    if key.is_to_be_noted(now) {
        let (gateway, id) = (Arc::clone(&app.gateway), key.row.id);
        // Nobody waits for it.
        let note = async move {
            if let Err(error) = gateway.store.key_used(id, now).await {
                tracing::warn!(%error, key = %id, "the last use of an API key could not be noted");
            }
        };
        tokio::spawn(note.in_current_span());
    }
    Ok(key)
}

/// Whoever is logged in. What changes something carries the token that only a page of ours knows.
async fn person_of(app: &App, parts: &Parts, address: IpAddr) -> Result<Person, Problem> {
    let token = session_cookie(app, &parts.headers).ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", EXPECTED))?;
    let Some((user, session)) = login::session_of(&app.gateway, &token).await? else {
        return Err(app.offenders.refuse(address, "this session has ended; log in again").await);
    };
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let is_safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe && !header("x-csrf-token").is_some_and(|shown| login::is_csrf_token(&token, shown)) {
        let detail = "expected the header X-CSRF-Token with the csrf_token of this session";
        return Err(Problem::new(StatusCode::FORBIDDEN, "csrf_token_required", detail));
    }
    Ok(Person { totp: header("x-totp").map(str::to_owned), user, session, token })
}

/// The name of the cookie. Over https the browser itself sees to it that no other host sets it.
pub fn cookie_name(app: &App) -> &'static str {
    if is_https(app) { "__Host-tidegate" } else { "tidegate" }
}

/// Whether browsers reach the gateway over https.
pub fn is_https(app: &App) -> bool {
    app.gateway.config.server.is_https()
}

fn session_cookie(app: &App, headers: &HeaderMap) -> Option<SecretText> {
    let name = cookie_name(app);
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut named = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(found, _)| *found == name);
    let (_, token) = named.next()?;
    // The cookie is 64 hex digits; anything else is not looked up.
    let whole = token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| SecretText::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn too_many_bad_keys_are_slowed_down_by_address() {
        let offenders = Offenders::new(None);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..BAD_KEYS_MAX.get() {
            assert_eq!(offenders.refuse(one, "").await.status, StatusCode::UNAUTHORIZED);
        }
        let refused = offenders.refuse(one, "").await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.retry_after_s.is_some_and(|seconds| seconds >= 1));
        assert_eq!(offenders.refuse(other, "").await.status, StatusCode::UNAUTHORIZED, "others are not concerned");
    }

    #[test]
    fn a_key_is_good_for_its_time_and_its_networks() {
        let at = Time::from_secs;
        let row = ApiKeyRow {
            id: KeyId::new(at(1), [1; 10]),
            merchant: MerchantId::new(at(1), [1; 10]),
            scopes: "orders:read".into(),
            livemode: false,
            name: None,
            allowed_ips: "192.0.2.0/24 2001:db8::1".into(),
            created_at: at(1),
            expires_at: Some(at(100)),
            last_used_at: None,
            revoked_at: None,
        };
        let key = Known::of(row.clone()).unwrap();
        let code = |address: &str, now| key.check(address.parse().unwrap(), at(now)).err().map(|problem| problem.code);
        assert_eq!(code("192.0.2.9", 99), None);
        assert_eq!(code("2001:db8::1", 99), None);
        assert_eq!(code("198.51.100.1", 99), Some("origin_not_allowed"));
        assert_eq!(code("192.0.2.9", 100), Some("unauthorized"));
        assert!(Known::of(ApiKeyRow { allowed_ips: "192.0.2.0/99".into(), ..row }).is_err(), "a damaged list is not everywhere");

        assert!(key.is_to_be_noted(at(100)));
        assert!(!key.is_to_be_noted(at(159)));
        assert!(key.is_to_be_noted(at(160)));
    }

    #[test]
    fn scopes_and_permissions_agree() {
        for scope in [Scope::OrdersRead, Scope::OrdersWrite, Scope::WalletsRead, Scope::WalletsWrite, Scope::Admin] {
            assert_eq!(scope_for(permission_for(scope)), scope);
        }
    }
}
