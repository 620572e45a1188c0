//! The credentials of shops: merchants with the secrets that sign their webhooks, and API keys. Each
//! change is stored with its row in the audit log, and told to the owner where it came over HTTP. An
//! API key is stored as a hash, a webhook secret sealed.

use std::fmt::Display;

use serde_json::json;
use tidegate_rules::audit::Action;
use tidegate_rules::changes::{Changes, KeptAnswer, NewApiKey, NewMerchant};
use tidegate_rules::id::{KeyId, MerchantId};
use tidegate_rules::notify::secret_text;
use tidegate_rules::people::PeopleChange;
use tidegate_rules::time::{Span, Time};
use tidegate_vault::{Binding, OsEntropy};

use crate::clock;
use crate::config::{IpRange, SecretText};
use crate::gateway::Gateway;
use crate::http;
use crate::keyring::Keyring;
use crate::orders::refuse_if_answered;
use crate::people::Doer;
use crate::problem::Problem;
use crate::start::MAIN_MERCHANT;
use crate::store::{ApiKeyRow, Commit, MerchantRow, Store};

/// How long a webhook secret that was replaced signs beside the new one, unless somebody says
/// otherwise, and at most.
pub const OLD_SECRET_KEPT: Span = Span::from_secs(24 * 3_600);
/// The most of it.
pub const OLD_SECRET_KEPT_MAX: Span = Span::from_secs(30 * 86_400);

/// How often a decision is made again after somebody else's commit was first.
const ATTEMPTS: usize = 8;

/// A merchant to add.
#[derive(Clone, Debug)]
pub struct MerchantWish {
    /// Its name, unique.
    pub name: String,
    /// Where its webhooks go.
    pub webhook_url: Option<String>,
}

/// A new webhook secret of a merchant or an endpoint, by its id: plain, to be shown once, and sealed.
pub(crate) fn new_secret(keys: &Keyring, owner: impl Display) -> (SecretText, String) {
    let secret = SecretText::new(secret_text(&clock::random::<24>()));
    let binding = Binding::webhook_secret(&owner.to_string());
    let sealed = keys.current().seal(secret.expose().as_bytes(), &binding, &mut OsEntropy);
    (secret, sealed.as_str().to_owned())
}

/// Adds a merchant with a new webhook secret: the row and the secret, or `None` when the name is
/// taken.
///
/// # Errors
/// When the store does not answer.
pub async fn add_merchant(
    store: &Store,
    keys: &Keyring,
    wish: MerchantWish,
    doer: &Doer,
    keep: impl FnOnce(&MerchantRow) -> Option<KeptAnswer>,
) -> Result<Option<(MerchantRow, SecretText)>, Problem> {
    let at = clock::now();
    let id = MerchantId::new(at, clock::id_bytes());
    let (secret, sealed) = new_secret(keys, id);
    let MerchantWish { name, webhook_url } = wish;
    let row = MerchantRow { id, name, webhook_url, webhook_events: None, webhook_secret: sealed, previous_secret: None, created_at: at };
    let changes = Changes {
        new_merchants: vec![NewMerchant {
            id,
            name: row.name.clone(),
            webhook_url: row.webhook_url.clone(),
            webhook_secret: row.webhook_secret.clone(),
            created_at: at,
        }],
        audit: vec![doer.did(Action::MerchantCreate, id, at).with(&json!({ "name": row.name, "webhook_url": row.webhook_url }))],
        alerts: doer.notice(Action::MerchantCreate, id, &format!("a new merchant, {}", row.name), at).into_iter().collect(),
        answer: keep(&row),
        ..Changes::default()
    };
    let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
    if store.commit(changes).await? == Commit::Done {
        return Ok(Some((row, secret)));
    }
    refuse_if_answered(store, scope).await?;
    Ok(None)
}

/// What is to change about a merchant.
#[derive(Clone, Debug, Default)]
pub struct MerchantPut {
    /// Another name.
    pub name: Option<String>,
    /// Where webhooks go from now on, if that changes; nowhere is a place too.
    pub webhook_url: Option<Option<String>>,
    /// Which events go there, as words, if that changes; `None` in it for all.
    pub webhook_events: Option<Option<String>>,
}

/// Changes a merchant. What is in the outbox goes where it was to go.
///
/// # Errors
/// 409 `merchant_exists` when the name is taken, `main_merchant` for another name of that one.
pub async fn put_merchant(store: &Store, row: MerchantRow, put: MerchantPut, doer: &Doer) -> Result<MerchantRow, Problem> {
    let at = clock::now();
    let mut changes = Changes::default();
    let mut after = row.clone();
    if let Some(name) = put.name.filter(|name| *name != row.name) {
        if row.name == MAIN_MERCHANT {
            return Err(Problem::conflict("main_merchant", "the merchant main is the owner and keeps its name"));
        }
        changes.people.push(PeopleChange::RenameMerchant { id: row.id, name: name.clone() });
        changes.audit.push(doer.did(Action::MerchantUpdate, row.id, at).with(&json!({ "name": { "from": row.name, "to": name } })));
        after.name = name;
    }
    if let Some(url) = put.webhook_url.filter(|url| *url != row.webhook_url) {
        let (from, to) = (row.webhook_url.as_deref().unwrap_or("nowhere"), url.as_deref().unwrap_or("nowhere"));
        let what = format!("webhooks of {} went to {from} and go to {to} now", row.name);
        changes.alerts.extend(doer.notice(Action::MerchantUpdate, row.id, &what, at));
        changes.audit.push(doer.did(Action::MerchantUpdate, row.id, at).with(&json!({ "from": row.webhook_url, "to": url })));
        changes.webhook_urls.push((row.id, url.clone()));
        after.webhook_url = url;
    }
    if let Some(events) = put.webhook_events.filter(|events| *events != row.webhook_events) {
        let what = format!("{} is told of {} by webhook now", row.name, events.as_deref().unwrap_or("everything"));
        changes.alerts.extend(doer.notice(Action::MerchantUpdate, row.id, &what, at));
        changes.audit.push(doer.did(Action::MerchantUpdate, row.id, at).with(&json!({ "webhook_events": [row.webhook_events, events] })));
        changes.webhook_events.push((row.id, events.clone()));
        after.webhook_events = events;
    }
    if changes.audit.is_empty() {
        return Ok(row);
    }
    match store.commit(changes).await? {
        Commit::Done => Ok(after),
        Commit::Conflict => Err(Problem::conflict("merchant_exists", "there is a merchant of this name already")),
    }
}

/// The merchant with this id, read anew.
///
/// # Errors
/// 404.
pub async fn merchant(store: &Store, id: MerchantId) -> Result<MerchantRow, Problem> {
    let rows = store.merchants().await?;
    rows.into_iter().find(|row| row.id == id).ok_or_else(|| Problem::not_found("merchant"))
}

/// Gives a merchant another webhook secret. For a while webhooks carry both signatures, the new one
/// first, so that the shop can change over without losing one.
///
/// # Errors
/// 404, 503.
pub async fn rotate_secret(
    gateway: &Gateway,
    id: MerchantId,
    kept: Span,
    doer: &Doer,
    keep: impl Fn(&MerchantRow) -> Option<KeptAnswer>,
) -> Result<(MerchantRow, SecretText), Problem> {
    for _ in 0..ATTEMPTS {
        let row = merchant(&gateway.store, id).await?;
        let at = clock::now();
        let until = at.plus(kept);
        let (secret, sealed) = new_secret(&gateway.vault, id);
        let after =
            MerchantRow { webhook_secret: sealed.clone(), previous_secret: Some((row.webhook_secret.clone(), until)), ..row.clone() };
        let what = format!("webhooks of {} are signed with another secret; the old one signs too until {until}", row.name);
        let changes = Changes {
            people: vec![PeopleChange::ReplaceSecret { merchant: id, old: row.webhook_secret, new: sealed, until }],
            audit: vec![doer.did(Action::MerchantSecretRotate, id, at).with(&json!({ "old_valid_until": until.to_string() }))],
            alerts: doer.notice(Action::MerchantSecretRotate, id, &what, at).into_iter().collect(),
            answer: keep(&after),
            ..Changes::default()
        };
        let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
        if gateway.store.commit(changes).await? == Commit::Done {
            gateway.forget_merchants();
            return Ok((after, secret));
        }
        refuse_if_answered(&gateway.store, scope).await?;
    }
    Err(Problem::unavailable("busy", "the merchant changes all the time; try again"))
}

/// An API key to make.
#[derive(Clone, Debug)]
pub struct KeyWish {
    /// Whose.
    pub merchant: MerchantId,
    /// What people call it.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// For real money?
    pub livemode: bool,
    /// Until when it is good.
    pub expires_at: Option<Time>,
    /// Where it may be used from; nothing is everywhere.
    pub allowed_ips: Vec<IpRange>,
}

/// Makes an API key: its row and the secret, which is stored only as a hash.
///
/// # Errors
/// When the store does not answer.
pub async fn add_api_key(
    store: &Store,
    wish: KeyWish,
    doer: &Doer,
    keep: impl FnOnce(&ApiKeyRow) -> Option<KeptAnswer>,
) -> Result<(ApiKeyRow, SecretText), Problem> {
    let at = clock::now();
    let id = KeyId::new(at, clock::id_bytes());
    let KeyWish { merchant, name, scopes, livemode, expires_at, allowed_ips } = wish;
    let secret = SecretText::new(format!("tg_{}_{}", if livemode { "live" } else { "test" }, hex::encode(clock::random::<32>())));
    let ranges: Vec<String> = allowed_ips.iter().map(ToString::to_string).collect();
    let row = ApiKeyRow {
        id,
        merchant,
        scopes: scopes.join(" "),
        livemode,
        name,
        allowed_ips: ranges.join(" "),
        created_at: at,
        expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    let key = NewApiKey {
        id,
        merchant,
        secret_hash: http::hash_key(secret.expose()),
        scopes: row.scopes.clone(),
        livemode,
        name: row.name.clone(),
        expires_at,
        allowed_ips: row.allowed_ips.clone(),
        created_at: at,
    };
    let detail = json!({
        "merchant": merchant.to_string(), "scopes": scopes, "name": row.name, "allowed_ips": ranges,
        "expires_at": expires_at.map(|at| at.to_string()),
    });
    let what = format!("a key of {merchant} that may {}", row.scopes);
    let changes = Changes {
        new_api_keys: vec![key],
        audit: vec![doer.did(Action::ApiKeyCreate, id, at).with(&detail)],
        alerts: doer.notice(Action::ApiKeyCreate, id, &what, at).into_iter().collect(),
        answer: keep(&row),
        ..Changes::default()
    };
    let scope = changes.answer.as_ref().map(|answer| answer.scope.clone());
    if store.commit(changes).await? == Commit::Done {
        return Ok((row, secret));
    }
    refuse_if_answered(store, scope).await?;
    Err(Problem::unavailable("busy", "the key could not be stored; try again"))
}

/// Ends an API key. Another process of this database follows within five seconds.
///
/// # Errors
/// 404 for a key that never was; one that has ended stays so.
pub async fn revoke_api_key(store: &Store, id: KeyId, doer: &Doer) -> Result<(), Problem> {
    let row = store.api_key_by_id(id).await?.ok_or_else(|| Problem::not_found("API key"))?;
    if row.revoked_at.is_some() {
        return Ok(());
    }
    let at = clock::now();
    let changes = Changes {
        people: vec![PeopleChange::RevokeKey { id, at }],
        audit: vec![doer.did(Action::ApiKeyRevoke, id, at).with(&json!({ "merchant": row.merchant.to_string(), "scopes": row.scopes }))],
        alerts: doer.notice(Action::ApiKeyRevoke, id, "the key is void", at).into_iter().collect(),
        ..Changes::default()
    };
    // A conflict says that somebody else ended it: that is what was asked for.
    let _ = store.commit(changes).await?;
    Ok(())
}
