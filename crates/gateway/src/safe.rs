//! What people do with the pool, and what the program checks of it by itself: states, risk,
//! integrity, alerts, the audit log. Each change is stored together with its row in the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_chain::STATE_ADDRESSES_MAX;
use tidegate_rules::alert::{AlertKind, AlertStatus};
use tidegate_rules::audit::{Action, Head, Verifier};
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::{AlertChange, Changes, NewAlert, NewAudit, WalletChange, WalletMove};
use tidegate_rules::id::{AlertId, EventId, MerchantId, SourceId, WalletId};
use tidegate_rules::time::Time;
use tidegate_rules::wallet::{self, Illegal, LeaseFact, RiskLevel, WalletStatus, queue_rank};
use tidegate_vault::{KeySource, OsEntropy, Sealed, Vault, Wallet};
use utoipa::ToSchema;

use crate::cache::Cached;
use crate::clock;
use crate::gateway::{Gateway, NetworkPart};
use crate::keyring::setting_binding;
use crate::people::Doer;
use crate::problem::Problem;
use crate::sources::{self, Branch};
use crate::start::{Sorry, VAULT_CHECK};
use crate::store::{AlertRow, Commit, SourceRow, Store, StoreError, WalletRow};

/// How often a decision is made again after somebody else's commit was first.
const ATTEMPTS: usize = 8;

/// How many wallets are read for one step of a check of all.
const STEP: i64 = 500;

/// How long after the start the whole pool and the audit log are checked first.
pub const FIRST_CHECK: Duration = Duration::from_secs(600);

/// How often they are checked after that.
pub const CHECK_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// The setting that vouches for the end of the audit log, sealed.
const AUDIT_ANCHOR: &str = "sealed_audit_anchor";

/// What a wallet's lease says of it.
fn lease_fact(gateway: &Gateway, row: &WalletRow) -> LeaseFact {
    if row.order.is_some() {
        return LeaseFact::Live;
    }
    // The chain's time, as the follower that returns rested wallets goes by.
    let chain = gateway.heads().get(&row.network).map(|head| head.tip.time);
    match row.rested_at {
        Some(until) if chain.unwrap_or_else(clock::now) <= until => LeaseFact::Resting,
        _ => LeaseFact::Free,
    }
}

fn refused(illegal: Illegal) -> Problem {
    let code = if illegal == Illegal::InUse { "wallet_in_use" } else { "illegal_status_change" };
    Problem::conflict(code, illegal.to_string())
}

/// Reads a wallet, decides, and stores the change with its row in the log, until nobody else was
/// first.
async fn change(
    gateway: &Gateway,
    id: WalletId,
    decide: impl Fn(&WalletRow, Time) -> Result<(WalletMove, NewAudit), Problem>,
) -> Result<WalletRow, Problem> {
    for _ in 0..ATTEMPTS {
        let row = gateway.store.wallet(id).await?.ok_or_else(|| Problem::not_found("wallet"))?;
        let (kind, audit) = decide(&row, clock::now())?;
        let changes = Changes { wallets: vec![WalletChange { id, version: row.version, kind }], audit: vec![audit], ..Changes::default() };
        if gateway.store.commit(changes).await? == Commit::Done {
            gateway.pool.forget(&row.network);
            return gateway.store.wallet(id).await?.ok_or_else(|| Problem::not_found("wallet"));
        }
    }
    Err(Problem::unavailable("busy", "the wallet changes all the time; try again"))
}

fn put(gateway: &Gateway, row: &WalletRow, status: WalletStatus, now: Time) -> WalletMove {
    let rested_at = match (row.status, status) {
        // Sent to rest by hand: for as long as after an order.
        (WalletStatus::Available, WalletStatus::Cooldown) => Some(now.plus(gateway.config.pool.cooldown)),
        // Its rest is cut short.
        (_, WalletStatus::Available) => Some(Time::from_millis(0)),
        _ => None,
    };
    WalletMove::Put { status, queue_rank: queue_rank(row.kind, row.ever_leased, now), rested_at }
}

/// Puts a wallet into another state by hand.
///
/// # Errors
/// 409 `illegal_status_change` or `wallet_in_use`, 404.
pub async fn put_status(gateway: &Gateway, id: WalletId, to: WalletStatus, reason: &str, doer: &Doer) -> Result<WalletRow, Problem> {
    change(gateway, id, |row, now| {
        let becomes = wallet::change(row.status, to, lease_fact(gateway, row)).map_err(refused)?;
        let detail = json!({ "from": row.status.name(), "asked": to.name(), "to": becomes.name() });
        Ok((put(gateway, row, becomes, now), doer.did(Action::WalletStatus, id, now).because(reason).with(&detail)))
    })
    .await
}

/// Cuts a wallet's rest short.
///
/// # Errors
/// As [`put_status`].
pub async fn release(gateway: &Gateway, id: WalletId, doer: &Doer) -> Result<WalletRow, Problem> {
    change(gateway, id, |row, now| {
        let becomes = wallet::release(row.status, lease_fact(gateway, row)).map_err(refused)?;
        let detail = json!({ "from": row.status.name(), "to": becomes.name() });
        Ok((put(gateway, row, becomes, now), doer.did(Action::WalletRelease, id, now).with(&detail)))
    })
    .await
}

/// Says how far a wallet is trusted.
///
/// # Errors
/// 404.
pub async fn put_risk(gateway: &Gateway, id: WalletId, to: RiskLevel, reason: &str, doer: &Doer) -> Result<WalletRow, Problem> {
    change(gateway, id, |row, now| {
        let detail = json!({ "from": row.risk_level.name(), "to": to.name() });
        Ok((WalletMove::Risk(to), doer.did(Action::WalletRisk, id, now).because(reason).with(&detail)))
    })
    .await
}

/// Calls a wallet something else.
///
/// # Errors
/// 404.
pub async fn rename(gateway: &Gateway, id: WalletId, name: &str, doer: &Doer) -> Result<WalletRow, Problem> {
    change(gateway, id, |row, now| {
        let detail = json!({ "from": row.name, "to": name });
        Ok((WalletMove::Rename(name.to_owned()), doer.did(Action::WalletRename, id, now).with(&detail)))
    })
    .await
}

/// The pool in numbers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// When they were counted; they are kept for three minutes.
    counted_at: String,
    /// One entry for each network.
    networks: Vec<NetworkStats>,
}

/// The wallets of a network in numbers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkStats {
    /// The network.
    #[schema(example = "tron")]
    network: String,
    /// All of them.
    total: i64,
    /// By status.
    status: BTreeMap<String, i64>,
}

impl Stats {
    /// Network, status, and how many wallets there are.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        self.networks.iter().flat_map(|one| {
            let name = one.network.as_str();
            one.status.iter().map(move |(status, count)| (name, status.as_str(), *count))
        })
    }
}

/// How many wallets of each network have each status? Counted at most every three minutes.
///
/// # Errors
/// When the store does not answer.
pub async fn stats(gateway: &Gateway) -> Result<Arc<Stats>, Problem> {
    let count = count(gateway.store.clone(), gateway.networks().keys().cloned().collect());
    Ok(gateway.cache.get(Cached::PoolStats, "all", count).await?.value)
}

async fn count(store: Store, networks: Vec<Network>) -> Result<Stats, Problem> {
    let counted_at = clock::now().to_string();
    let none = || WalletStatus::ALL.iter().map(|status| (status.name().to_owned(), 0)).collect();
    let mut counts: BTreeMap<String, BTreeMap<String, i64>> = networks.iter().map(|name| (name.to_string(), none())).collect();
    for count in store.lately(|store| async move { store.wallet_counts().await }).await? {
        counts.entry(count.network.to_string()).or_default().insert(count.status.name().to_owned(), count.count);
    }
    let networks = counts.into_iter().map(|(network, status)| NetworkStats { network, total: status.values().sum(), status }).collect();
    Ok(Stats { counted_at, networks })
}

/// What a check of a wallet found.
pub struct Verdict {
    /// The wallet, as it is now.
    pub wallet: WalletRow,
    /// What is wrong, in words.
    pub wrong: Option<String>,
}

/// Opens keys to check them: sources are opened once.
struct Checker<'a> {
    gateway: &'a Gateway,
    sources: HashMap<SourceId, SourceRow>,
    branches: HashMap<(SourceId, String), Branch>,
}

impl<'a> Checker<'a> {
    async fn new(gateway: &'a Gateway) -> Result<Self, StoreError> {
        let sources = gateway.store.sources().await?.into_iter().map(|source| (source.id, source)).collect();
        Ok(Self { gateway, sources, branches: HashMap::new() })
    }

    /// What is wrong with a wallet: its spelling, its tag, its key.
    fn wrong(&mut self, row: &WalletRow) -> Option<String> {
        let id = row.id.to_string();
        let bound = Wallet { id: &id, network: row.network.as_str(), address: &row.address.0 };
        let part = self.gateway.networks().get(&row.network);
        if part.is_some_and(|part| part.chain.format_address(&row.address) != row.address_text) {
            return Some("the stored address and its text differ: the row was altered".to_owned());
        }
        if let Some(sealed) = &row.sealed_key {
            return self.gateway.vault.verify_wallet(&bound, &KeySource::Sealed(sealed), &row.tag).err().map(|error| error.to_string());
        }
        if !self.gateway.vault.verify_tag(&bound, &row.tag) {
            return Some("the address has no valid tag: it was not made here, or the row was altered".to_owned());
        }
        let Some((source_id, index)) = row.source else { return Some("the wallet has neither a key nor a source of keys".to_owned()) };
        // Without its network nobody knows which branch of the seed it is on.
        let part = part?;
        let Some(source) = self.sources.get(&source_id) else { return Some(format!("its source {source_id} is missing")) };
        let branch = match self.branches.entry((source_id, row.network.to_string())) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => match Branch::open(self.gateway, part, source) {
                Ok(branch) => entry.insert(branch),
                Err(_) => return Some(format!("its source {} does not open", source.name)),
            },
        };
        (branch.address(index) != Some(row.address)).then(|| format!("index {index} of {} gives another address", source.name))
    }
}

/// Checks one wallet; one that fails is frozen, with an alert.
///
/// # Errors
/// 404, or when the store does not answer.
pub async fn verify_one(gateway: &Gateway, id: WalletId, doer: &Doer) -> Result<Verdict, Problem> {
    let row = gateway.store.wallet(id).await?.ok_or_else(|| Problem::not_found("wallet"))?;
    let wrong = Checker::new(gateway).await?.wrong(&row);
    let now = clock::now();
    let audit = doer.did(Action::WalletVerify, id, now).with(&json!({ "ok": wrong.is_none(), "detail": wrong }));
    let _ = gateway.store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    match &wrong {
        Some(wrong) => freeze(gateway, &row, wrong).await?,
        None => gateway.store.mark_verified(&[id], now).await?,
    }
    let wallet = gateway.store.wallet(id).await?.ok_or_else(|| Problem::not_found("wallet"))?;
    Ok(Verdict { wallet, wrong })
}

/// Takes a wallet that is not whole out of use, with an alert.
async fn freeze(gateway: &Gateway, row: &WalletRow, wrong: &str) -> Result<(), Problem> {
    let detail = format!("wallet {} ({}, {}): {wrong}; it is frozen", row.name, row.network, row.address_text);
    let mut alert = Some(Gateway::alert(AlertKind::KeyDoesNotOpen, row.id.to_string(), detail, clock::now()));
    let mut row = Some(row.clone());
    for _ in 0..ATTEMPTS {
        let Some(found) = row.take() else { return Ok(()) };
        let now = clock::now();
        let alerts: Vec<NewAlert> = alert.iter().cloned().collect();
        let changes = if found.status == WalletStatus::Frozen {
            Changes { alerts, ..Changes::default() }
        } else {
            let detail = json!({ "from": found.status.name(), "to": "frozen" });
            let kind = put(gateway, &found, WalletStatus::Frozen, now);
            Changes {
                wallets: vec![WalletChange { id: found.id, version: found.version, kind }],
                audit: vec![Doer::program().did(Action::WalletStatus, found.id, now).because(wrong).with(&detail)],
                alerts,
                ..Changes::default()
            }
        };
        if gateway.store.commit(changes).await? == Commit::Done {
            gateway.pool.forget(&found.network);
            alert = None;
            break;
        }
        row = gateway.store.wallet(found.id).await?;
    }
    if alert.is_some() { Err(Problem::unavailable("busy", "the wallet changes all the time; try again")) } else { Ok(()) }
}

/// Refuses what only the master key of this database may do: it may have been changed while this process
/// runs with the one before. What it seals would be lost with that key, and every wallet look tampered
/// with.
///
/// # Errors
/// 503 `busy` under another key than this process has.
pub async fn refuse_strange_key(gateway: &Gateway) -> Result<(), Problem> {
    let Some(check) = gateway.store.setting(VAULT_CHECK).await? else { return Ok(()) };
    let is_ours = |vault: &Vault| vault.verify_check(&check);
    if is_ours(gateway.vault.current()) || gateway.vault.previous().is_some_and(is_ours) {
        return Ok(());
    }
    tracing::error!("the master key of this database was changed: restart this process with the new one");
    Err(Problem::unavailable("busy", "the master key was changed while this process runs with the one before; restart it with the new one"))
}

/// Checks every wallet of the networks in use. `progress` hears how many are done and how many
/// there are. Those that fail, with what is wrong.
///
/// # Errors
/// When the store does not answer.
pub async fn verify_all(gateway: &Gateway, mut progress: impl FnMut(u64, u64)) -> Result<Vec<Verdict>, Problem> {
    refuse_strange_key(gateway).await?;
    let total = gateway.store.wallet_count().await?;
    let mut checker = Checker::new(gateway).await?;
    let (mut after, mut done, mut bad) = (None, 0_u64, Vec::new());
    loop {
        let rows = gateway.store.wallets_after(after, STEP).await?;
        let Some(last) = rows.last() else { return Ok(bad) };
        after = Some(last.id);
        for row in &rows {
            if let Some(wrong) = checker.wrong(row) {
                freeze(gateway, row, &wrong).await?;
                let wallet = gateway.store.wallet(row.id).await?.unwrap_or_else(|| row.clone());
                bad.push(Verdict { wallet, wrong: Some(wrong) });
            }
            done = done.saturating_add(1);
            if done.is_multiple_of(16) {
                progress(done, total);
                tokio::task::yield_now().await;
            }
        }
        let whole: Vec<WalletId> = rows.iter().map(|row| row.id).filter(|id| !bad.iter().any(|verdict| verdict.wallet.id == *id)).collect();
        gateway.store.mark_verified(&whole, clock::now()).await?;
        progress(done, total.max(done));
    }
}

/// Checks the audit log from its first row to its last, against its end and against what the vault
/// vouched for last. How many rows there are, or what is wrong.
///
/// # Errors
/// When the store does not answer.
pub async fn verify_audit(gateway: &Gateway) -> Result<Result<u64, String>, StoreError> {
    // What was vouched for first, for another check may vouch for more meanwhile; then the end, for rows
    // that are added meanwhile come after it.
    let anchor = match anchor(gateway).await? {
        Ok(anchor) => anchor,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let head = gateway.store.audit_head().await?.map_or_else(Head::genesis, |(seq, hash)| Head { seq, hash });
    let mut verifier = Verifier::new(Head::genesis());
    let mut anchored = anchor.is_none();
    'all: loop {
        let rows = gateway.store.audit_after(verifier.head().seq, STEP).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            if verifier.head().seq >= head.seq {
                break 'all;
            }
            if let Err(broken) = verifier.next(&row.entry, &row.hash) {
                return Ok(Err(broken.to_string()));
            }
            if let Some(anchor) = anchor.as_ref().filter(|anchor| anchor.seq == row.entry.seq) {
                if anchor.hash != row.hash {
                    return Ok(Err(format!(
                        "the audit log was rewritten up to row {}: it is not the one that was vouched for",
                        anchor.seq
                    )));
                }
                anchored = true;
            }
        }
    }
    if let Err(broken) = verifier.head().reaches(&head) {
        return Ok(Err(broken.to_string()));
    }
    if !anchored {
        return Ok(Err(format!("the audit log ends at row {} and was longer once: rows were cut off its end", head.seq)));
    }
    set_anchor(gateway, &head).await?;
    Ok(Ok(head.seq))
}

/// The end of the log that the vault vouched for last: whoever can write to the database alone can
/// rewrite the log, but not this.
async fn anchor(gateway: &Gateway) -> Result<Result<Option<Head>, String>, StoreError> {
    let Some(sealed) = gateway.store.setting(AUDIT_ANCHOR).await? else { return Ok(Ok(None)) };
    let opened = gateway.vault.open(&Sealed::from_text(sealed), &setting_binding(AUDIT_ANCHOR));
    let text = opened.ok().and_then(|text| String::from_utf8(text.to_vec()).ok());
    let head = text
        .as_deref()
        .and_then(|text| text.split_once(' '))
        .and_then(|(seq, hash)| Some(Head { seq: seq.parse().ok()?, hash: hash.to_owned() }));
    Ok(head.map(Some).ok_or_else(|| "what vouches for the audit log does not open: it was altered".to_owned()))
}

async fn set_anchor(gateway: &Gateway, head: &Head) -> Result<(), StoreError> {
    let text = format!("{} {}", head.seq, head.hash);
    let sealed = gateway.vault.current().seal(text.as_bytes(), &setting_binding(AUDIT_ANCHOR), &mut OsEntropy);
    gateway.store.set_setting(AUDIT_ANCHOR, sealed.as_str()).await
}

/// The daily check of the pool and the audit log, by the program itself.
pub async fn check_all(gateway: &Gateway) {
    match verify_all(gateway, |_, _| {}).await {
        Ok(bad) if bad.is_empty() => tracing::info!("every wallet's key opens and gives its address"),
        Ok(bad) => tracing::error!(wallets = bad.len(), "wallets are not whole; they are frozen"),
        Err(problem) => tracing::warn!(code = problem.code, "the wallets could not be checked: {}", problem.detail),
    }
    for part in gateway.networks().values() {
        match ask_issuer(gateway, part).await {
            Ok(()) => {}
            Err(what) => tracing::warn!(network = %part.config.name, "what the token's issuer says could not be asked: {what}"),
        }
    }
    match verify_audit(gateway).await {
        Ok(Ok(rows)) => tracing::info!(rows, "the audit log is whole"),
        Ok(Err(wrong)) => {
            let alert = Gateway::alert(AlertKind::AuditBroken, "audit log", wrong, clock::now());
            if let Err(error) = gateway.store.commit(Changes { alerts: vec![alert], ..Changes::default() }).await {
                tracing::error!(%error, "the alert could not be stored");
            }
        }
        Err(error) => tracing::warn!(%error, "the audit log could not be checked"),
    }
}

/// How many of the wallets that received something last are asked for on the issuer's blacklist.
const ASKED_MAX: i64 = 1_000;

/// Asks the token itself what its events may have said while nobody listened: is it paused,
/// deprecated, are wallets of ours on its blacklist?
async fn ask_issuer(gateway: &Gateway, part: &NetworkPart) -> Result<(), String> {
    let name = &part.config.name;
    let rows = gateway.store.wallets_with_money(name, ASKED_MAX).await.map_err(|error| error.to_string())?;
    let now = clock::now();
    let mut alerts = Vec::new();
    let mut groups: Vec<&[WalletRow]> = rows.chunks(STATE_ADDRESSES_MAX).collect();
    if groups.is_empty() {
        groups.push(&[]);
    }
    for (index, group) in groups.into_iter().enumerate() {
        let addresses: Vec<Address> = group.iter().map(|row| row.address).collect();
        let state = part.chain.token_state(&addresses).await.map_err(|error| error.to_string())?;
        if index == 0 {
            for (kind, is_so, what) in [
                (AlertKind::TokenPaused, state.paused, "says that all transfers are stopped"),
                (AlertKind::TokenDeprecated, state.deprecated, "says that it was replaced by another contract"),
            ] {
                if is_so == Some(true) {
                    alerts.push(Gateway::alert(kind, name.as_str(), format!("the token {} of {name} {what}", part.config.token), now));
                }
            }
        }
        for row in group.iter().filter(|row| state.blacklisted.contains(&row.address) && row.risk_level != RiskLevel::Blocked) {
            let why = format!("wallet {} ({}) is on the blacklist of the token's issuer", row.name, row.address_text);
            alerts.push(Gateway::alert(AlertKind::AddressBlacklisted, row.id.to_string(), why.clone(), now));
            let blocked = change(gateway, row.id, |row, now| {
                let detail = json!({ "from": row.risk_level.name(), "to": RiskLevel::Blocked.name() });
                Ok((WalletMove::Risk(RiskLevel::Blocked), Doer::program().did(Action::WalletRisk, row.id, now).because(&why).with(&detail)))
            });
            let _ = blocked.await.map_err(|problem| problem.detail)?;
        }
    }
    if !alerts.is_empty() {
        let _ = gateway.store.commit(Changes { alerts, ..Changes::default() }).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Takes an alert a step on.
///
/// # Errors
/// 404; 409 `illegal_alert_change` for a step back.
pub async fn alert_step(gateway: &Gateway, id: AlertId, to: AlertStatus, reason: Option<&str>, doer: &Doer) -> Result<AlertRow, Problem> {
    for _ in 0..ATTEMPTS {
        let row = gateway.store.alert(id).await?.ok_or_else(|| Problem::not_found("alert"))?;
        row.status.change(to).map_err(|illegal| Problem::conflict("illegal_alert_change", illegal.to_string()))?;
        let at = clock::now();
        let action = if to == AlertStatus::Closed { Action::AlertClose } else { Action::AlertAcknowledge };
        let changes = Changes {
            alert_changes: vec![AlertChange {
                id,
                event: EventId::new(at, clock::id_bytes()),
                from: row.status,
                to,
                by: doer.actor.clone(),
                reason: reason.map(str::to_owned),
                at,
            }],
            audit: vec![doer.did(action, id, at).because(reason.unwrap_or_default()).with(&json!({ "kind": row.kind.name() }))],
            ..Changes::default()
        };
        if gateway.store.commit(changes).await? == Commit::Done {
            return gateway.store.alert(id).await?.ok_or_else(|| Problem::not_found("alert"));
        }
    }
    Err(Problem::unavailable("busy", "the alert changes all the time; try again"))
}

/// Opens a wallet's private key for the command line, the one door it has, and says so in the log
/// first.
///
/// # Errors
/// For a wallet without a key here, and one that is not whole.
pub async fn export(gateway: &Gateway, id: WalletId, reason: &str, doer: &Doer) -> Result<zeroize::Zeroizing<String>, Sorry> {
    let row = gateway.store.wallet(id).await?.ok_or_else(|| Sorry(format!("there is no wallet {id}")))?;
    let text = row.id.to_string();
    let bound = Wallet { id: &text, network: row.network.as_str(), address: &row.address.0 };
    let source = match row.source {
        Some((source, _)) => gateway.store.sources().await?.into_iter().find(|found| found.id == source),
        None => None,
    };
    let seed_id = source.as_ref().map(|source| source.id.to_string()).unwrap_or_default();
    let key = match (&row.sealed_key, &source, row.source) {
        (Some(sealed), ..) => KeySource::Sealed(sealed),
        (None, Some(SourceRow { sealed: Some(sealed), account, .. }), Some((_, index))) => {
            let part = gateway.networks().get(&row.network).ok_or_else(|| Sorry(format!("network {} is not configured", row.network)))?;
            KeySource::Seed { sealed, seed_id: &seed_id, coin: sources::coin(part.config.kind), account: *account, index }
        }
        _ => return Err(Sorry(format!("wallet {id} is watch-only: its key was never here"))),
    };
    let audit = doer.did(Action::WalletExport, id, clock::now()).because(reason).with(&json!({ "address": row.address_text }));
    let _ = gateway.store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    gateway.vault.export_wallet(&bound, &key, &row.tag).map_err(|error| Sorry(error.to_string()))
}

/// Writes down that a merchant's webhook secret is about to be shown.
///
/// # Errors
/// When the store does not answer: then nothing is shown.
pub async fn secret_shown(gateway: &Gateway, merchant: MerchantId, doer: &Doer) -> Result<(), Sorry> {
    let audit = doer.did(Action::MerchantSecretShown, merchant, clock::now()).alone();
    let _ = gateway.store.commit(Changes { audit: vec![audit], ..Changes::default() }).await?;
    Ok(())
}
