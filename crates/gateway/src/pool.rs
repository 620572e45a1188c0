//! The wallet pool: makes wallets, and lends the longest rested one.
//!
//! A free wallet is taken from a queue read ahead from the store, so that many orders at once
//! never reach for the same one; the store's compare-and-set is what makes it safe (I2), the queue
//! is what makes it fast.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::json;
use tidegate_rules::alert::AlertKind;
use tidegate_rules::audit::Action;
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::{Changes, KeptAnswer, NewWallet};
use tidegate_rules::id::WalletId;
use tidegate_rules::time::Time;
use tidegate_rules::wallet::{WalletKind, WalletStatus, may_lease, queue_rank};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clock;
use crate::config;
use crate::gateway::{Gateway, NetworkPart};
use crate::orders::refuse_if_raced;
use crate::people::Doer;
use crate::problem::Problem;
use crate::safe;
use crate::sources;
use crate::store::{Commit, WalletRow};

/// How many free wallets are read ahead: enough that reading is rare, few enough that whoever waits
/// for it hardly notices.
const AHEAD: i64 = 128;

/// How long after an order lost its wallet to another process wallets are taken in an order drawn by
/// chance.
const CONTENDED_FOR: Duration = Duration::from_secs(60);

/// How often a batch is made again after another one took its indexes.
const ATTEMPTS: usize = 8;

/// The most wallets that one call makes.
pub const GENERATE_MAX: u32 = 1_000;

/// The free wallets of every network, as far as they were read ahead.
pub struct Pool {
    queues: Mutex<HashMap<Network, Queue>>,
    /// One refill or growth at a time: the others wait and then find wallets.
    refill: tokio::sync::Mutex<()>,
    generations: Semaphore,
    derivations: tokio::sync::Mutex<()>,
}

/// Wallets to make.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// How many, 1 to [`GENERATE_MAX`].
    pub count: u32,
    /// What their names start with, instead of the template of the configuration.
    pub name_prefix: Option<&'a str>,
    /// Where their keys come from, instead of what the configuration says for the network.
    pub kind: Option<WalletKind>,
    /// Which seed or extended public key, by name or id; the newest where none is named.
    pub source: Option<&'a str>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<WalletRow>,
    taken: HashSet<WalletId>,
    /// Until when another process is taken to lend wallets of this network too. Each then takes what it
    /// read in an order of its own: all that begin with the longest rested reach for the same one, and
    /// one alone gets it.
    contended: Option<Instant>,
}

/// A wallet that nobody else in this process will be offered while this lives. Keep it until the
/// commit that leases the wallet is over.
pub struct Taken<'a> {
    /// The wallet.
    pub wallet: WalletRow,
    pool: &'a Pool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(queue) = self.pool.lock().get_mut(&self.wallet.network) {
            queue.taken.remove(&self.wallet.id);
        }
    }
}

/// True when a wallet may be leased above `settled`: neither its status nor its risk forbids it, and
/// it has no money above that height. Before anything is settled only a wallet without a past may be.
fn is_lendable(wallet: &WalletRow, settled: Option<u64>) -> bool {
    if !may_lease(wallet.status, wallet.risk_level) {
        return false;
    }
    is_fresh(wallet) || settled.is_some_and(|settled| wallet.paid_at.is_none_or(|paid_at| paid_at <= settled))
}

/// True for a key made here that was never leased and never received anything: nobody can have
/// paid to it before.
pub fn is_fresh(wallet: &WalletRow) -> bool {
    wallet.kind == WalletKind::Random && !wallet.ever_leased && wallet.paid_at.is_none()
}

impl Pool {
    /// An empty pool. At most `max_concurrent` calls generate wallets at once.
    #[must_use]
    pub fn new(max_concurrent: usize) -> Self {
        Self {
            queues: Mutex::default(),
            refill: tokio::sync::Mutex::default(),
            generations: Semaphore::new(max_concurrent.max(1)),
            derivations: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Network, Queue>> {
        self.queues.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes the next free wallet; grows the pool on the spot when there is none.
    ///
    /// # Errors
    /// 503 `pool_exhausted` when the pool may not grow any more.
    pub async fn take(&self, gateway: &Gateway, part: &NetworkPart, settled: Option<u64>) -> Result<Taken<'_>, Problem> {
        if let Some(taken) = self.pop(&part.config.name, settled) {
            return Ok(taken);
        }
        let _one_at_a_time = self.refill.lock().await;
        loop {
            if let Some(taken) = self.pop(&part.config.name, settled) {
                return Ok(taken);
            }
            if self.read_ahead(gateway, part, settled).await? {
                continue;
            }
            let name = &part.config.name;
            // New wallets that may have a past cannot be lent either before anything is settled.
            if settled.is_none() && part.config.wallets != WalletKind::Random {
                return Err(Problem::unavailable("network_unavailable", format!("nothing of {name} is settled yet; try again later")));
            }
            if let Err(problem) = self.grow(gateway, part).await {
                let detail = format!("an order got no wallet of {name}, and the pool could not grow: {}", problem.detail);
                raise(gateway, AlertKind::PoolExhausted, name, detail).await?;
                return Err(Problem::unavailable("pool_exhausted", format!("no wallet of {name} is free and the pool may not grow")));
            }
        }
    }

    fn pop(&self, network: &Network, settled: Option<u64>) -> Option<Taken<'_>> {
        let mut queues = self.lock();
        let queue = queues.get_mut(network)?;
        while let Some(wallet) = queue.ready.pop_front() {
            if is_lendable(&wallet, settled) && queue.taken.insert(wallet.id) {
                return Some(Taken { wallet, pool: self });
            }
        }
        None
    }

    /// Forgets what was read ahead: a wallet of it had changed. Another process may have lent the
    /// rest too.
    pub fn forget(&self, network: &Network) {
        if let Some(queue) = self.lock().get_mut(network) {
            queue.ready.clear();
        }
    }

    /// As [`Pool::forget`], after an order found that its wallet had changed.
    pub fn lost(&self, gateway: &Gateway, network: &Network) {
        if let Some(queue) = self.lock().get_mut(network) {
            queue.ready.clear();
            queue.contended = if gateway.store.is_shared() { Instant::now().checked_add(CONTENDED_FOR) } else { None };
        }
    }

    /// Fills the queue from the store; false when there is nothing to lend.
    async fn read_ahead(&self, gateway: &Gateway, part: &NetworkPart, settled: Option<u64>) -> Result<bool, Problem> {
        // Whose lease is being stored now may look free in what is read, and be given back as leased
        // before it is looked at here.
        let taken = self.lock().get(&part.config.name).map(|queue| queue.taken.clone()).unwrap_or_default();
        // Those that are taken still look free, and must not be all that is read.
        let limit = AHEAD.saturating_add(i64::try_from(taken.len()).unwrap_or(i64::MAX));
        let free = gateway.store.free_wallets(&part.config.name, settled, limit).await?;
        let mut queues = self.lock();
        let queue = queues.entry(part.config.name.clone()).or_default();
        let is_taken = |wallet: &WalletRow| taken.contains(&wallet.id) || queue.taken.contains(&wallet.id);
        let mut ready: Vec<WalletRow> = free.into_iter().filter(|wallet| is_lendable(wallet, settled) && !is_taken(wallet)).collect();
        if queue.contended.is_some_and(|until| Instant::now() < until) {
            // Those that are as good as new stay before all others.
            ready.sort_by_cached_key(|wallet| (!is_fresh(wallet), clock::random::<8>()));
        }
        queue.ready = ready.into();
        Ok(!queue.ready.is_empty())
    }

    /// Makes a batch of wallets, as many as the limit of the pool leaves room for. Why it could not
    /// is what the operator is told.
    async fn grow(&self, gateway: &Gateway, part: &NetworkPart) -> Result<(), Problem> {
        let name = &part.config.name;
        let limit = gateway.config.pool.max_wallets;
        let room = limit.saturating_sub(count_of(gateway, name, None).await?);
        if room == 0 {
            return Err(Problem::unavailable("pool_exhausted", format!("the pool of {name} has reached pool.max_wallets, {limit}")));
        }
        let batch = gateway.config.pool.batch_size.min(room);
        let batch = Batch { count: u32::try_from(batch).unwrap_or(GENERATE_MAX).clamp(1, GENERATE_MAX), ..Batch::default() };
        self.generate(gateway, part, &batch, &Doer::program(), |_| None).await?;
        Ok(())
    }

    /// Makes wallets, all or none. `answer` may keep an answer under an idempotency key in the same
    /// commit.
    ///
    /// # Errors
    /// 422 when there is no source for that kind, 409 `concurrent_request` when the idempotency key
    /// was used by another request meanwhile.
    pub async fn generate(
        &self,
        gateway: &Gateway,
        part: &NetworkPart,
        batch: &Batch<'_>,
        doer: &Doer,
        answer: impl Fn(&[NewWallet]) -> Option<KeptAnswer>,
    ) -> Result<Vec<NewWallet>, Problem> {
        let _turn = self.generations.acquire().await.map_err(|_| Problem::internal())?;
        let name = &part.config.name;
        safe::refuse_strange_key(gateway).await?;
        let kind = batch.kind.unwrap_or(part.config.wallets);
        let source = match kind {
            WalletKind::Random => None,
            WalletKind::Hd | WalletKind::Watch => Some(sources::choose(gateway, part, kind, batch.source).await?),
            WalletKind::Imported => {
                return Err(Problem::invalid("/kind", "expected random, hd or watch; an imported wallet brings its key"));
            }
        };
        // Those that derive go one after the other: they would want the same indexes.
        let _alone = if source.is_some() { Some(self.derivations.lock().await) } else { None };
        for _ in 0..ATTEMPTS {
            let have = count_of(gateway, name, None).await?;
            let at = clock::now();
            let ids: Vec<WalletId> = (0..batch.count).map(|_| WalletId::new(at, clock::id_bytes())).collect();
            let (mut wallets, derivation) = match &source {
                None => (make_random(gateway, part, &ids, at).await, None),
                Some(source) => {
                    let (made, derivation) = sources::derive(gateway, part, source, &ids).await?;
                    let wallet = |(id, (index, made)): (&WalletId, (u32, sources::Derived))| NewWallet {
                        sealed_key: None,
                        source: Some((source.id, index)),
                        ..blank(part, *id, kind, made.address, made.tag, at)
                    };
                    (ids.iter().zip(made).map(wallet).collect(), Some(derivation))
                }
            };
            for (number, wallet) in (1_u64..).zip(&mut wallets) {
                let index = have.saturating_add(number);
                wallet.name = match batch.name_prefix {
                    Some(prefix) => format!("{prefix}{index:04}"),
                    None => config::wallet_name(&gateway.config.pool.name_template, name, index),
                };
            }
            let detail =
                json!({ "count": batch.count, "kind": kind.name(), "source": source.as_ref().map(|source| source.id.to_string()) });
            let answer = answer(&wallets);
            let scope = answer.as_ref().map(|answer| answer.scope.clone());
            let changes = Changes {
                new_wallets: wallets.clone(),
                derivations: derivation.into_iter().collect(),
                audit: vec![doer.did(Action::WalletGenerate, name, at).with(&detail)],
                answer,
                ..Changes::default()
            };
            match gateway.store.commit(changes).await? {
                Commit::Done => return Ok(wallets),
                // It was the same request; or another process derived from the same index.
                Commit::Conflict => refuse_if_raced(gateway, scope).await?,
            }
        }
        Err(Problem::unavailable("busy", "too many wallets are being made at once; try again"))
    }

    /// Takes in a wallet by its private key.
    ///
    /// # Errors
    /// 422 `invalid_private_key`, 409 `wallet_exists`. Neither says anything about the key.
    pub async fn import(
        &self,
        gateway: &Gateway,
        part: &NetworkPart,
        private_key: &str,
        label: Option<&str>,
        doer: &Doer,
        answer: impl FnOnce(&[NewWallet]) -> Option<KeptAnswer>,
    ) -> Result<NewWallet, Problem> {
        let name = &part.config.name;
        let at = clock::now();
        let id = WalletId::new(at, clock::id_bytes());
        let made = gateway.vault.import_wallet(private_key, &id.to_string(), name.as_str()).map_err(|error| {
            let mut problem = Problem::invalid("/private_key", error.to_string());
            problem.code = "invalid_private_key";
            problem
        })?;
        let exists = || Problem::conflict("wallet_exists", format!("the pool of {name} has the wallet of this key already"));
        if !gateway.store.wallets_at(name, &[Address(made.address)]).await?.is_empty() {
            return Err(exists());
        }
        let index = count_of(gateway, name, None).await?.saturating_add(1);
        let label = label.map_or_else(|| config::wallet_name(&gateway.config.pool.name_template, name, index), str::to_owned);
        let wallet = new_wallet(part, id, label, WalletKind::Imported, made, at);
        let detail = json!({ "network": name.as_str(), "address": wallet.address_text });
        let changes = Changes {
            new_wallets: vec![wallet.clone()],
            audit: vec![doer.did(Action::WalletImport, id, at).with(&detail)],
            alerts: doer.notice(Action::WalletImport, id, "a wallet whose key is known elsewhere", at).into_iter().collect(),
            answer: answer(std::slice::from_ref(&wallet)),
            ..Changes::default()
        };
        match gateway.store.commit(changes).await? {
            Commit::Done => Ok(wallet),
            Commit::Conflict => Err(exists()),
        }
    }

    /// Keeps every network's pool above its watermark, in the background.
    pub async fn keep(&self, gateway: &Gateway) {
        for part in gateway.networks().values() {
            if let Err(problem) = self.keep_one(gateway, part).await {
                tracing::warn!(network = %part.config.name, code = problem.code, "the pool could not be kept: {}", problem.detail);
            }
        }
    }

    async fn keep_one(&self, gateway: &Gateway, part: &NetworkPart) -> Result<(), Problem> {
        let free = count_of(gateway, &part.config.name, Some(WalletStatus::Available)).await?;
        let watermark = gateway.config.pool.low_watermark;
        if free >= watermark {
            return Ok(());
        }
        if let Err(problem) = self.grow(gateway, part).await {
            let name = &part.config.name;
            let detail = format!(
                "{free} wallets of {name} are free, pool.low_watermark is {watermark}, and the pool could not grow: {}",
                problem.detail
            );
            raise(gateway, AlertKind::PoolLow, name, detail).await?;
            return Err(problem);
        }
        Ok(())
    }
}

async fn raise(gateway: &Gateway, kind: AlertKind, network: &Network, detail: String) -> Result<(), Problem> {
    let alert = Gateway::alert(kind, network.as_str(), detail, clock::now());
    let _ = gateway.store.commit(Changes { alerts: vec![alert], ..Changes::default() }).await?;
    Ok(())
}

/// Wallets with keys of their own. A thousand take a tenth of a second of arithmetic: others run
/// meanwhile.
async fn make_random(gateway: &Gateway, part: &NetworkPart, ids: &[WalletId], at: Time) -> Vec<NewWallet> {
    let mut wallets = Vec::with_capacity(ids.len());
    for id in ids {
        let made = gateway.vault.generate_wallet(&id.to_string(), part.config.name.as_str());
        wallets.push(new_wallet(part, *id, String::new(), WalletKind::Random, made, at));
        if wallets.len().is_multiple_of(32) {
            tokio::task::yield_now().await;
        }
    }
    wallets
}

/// How many wallets of a network there are, of one status or of all.
async fn count_of(gateway: &Gateway, network: &Network, status: Option<WalletStatus>) -> Result<u64, Problem> {
    let counts = gateway.store.wallet_counts().await?;
    let fits = counts.iter().filter(|count| count.network == *network && status.is_none_or(|status| count.status == status));
    Ok(fits.map(|count| u64::try_from(count.count).unwrap_or(0)).sum())
}

fn new_wallet(part: &NetworkPart, id: WalletId, name: String, kind: WalletKind, made: tidegate_vault::NewWallet, at: Time) -> NewWallet {
    let sealed_key = made.sealed.map(|sealed| sealed.as_str().to_owned());
    NewWallet { name, sealed_key, ..blank(part, id, kind, made.address, made.tag, at) }
}

/// A wallet without a name and a key.
fn blank(part: &NetworkPart, id: WalletId, kind: WalletKind, address: [u8; 20], tag: String, at: Time) -> NewWallet {
    let address = Address(address);
    NewWallet {
        id,
        name: String::new(),
        network: part.config.name.clone(),
        address,
        address_text: part.chain.format_address(&address),
        kind,
        sealed_key: None,
        source: None,
        tag,
        queue_rank: queue_rank(kind, false, at),
        created_at: at,
    }
}
