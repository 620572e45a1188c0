//! The wallet pool: makes wallets, and lends the longest rested one.
//!
//! A free wallet is taken from a queue read ahead from the store, so that many orders at once
//! never reach for the same one; the store's compare-and-set is what makes it safe (I2), the queue
//! is what makes it fast.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

use tidegate_rules::alert::AlertKind;
use tidegate_rules::block::{Address, Network};
use tidegate_rules::changes::{Changes, KeptAnswer, NewWallet};
use tidegate_rules::id::WalletId;
use tidegate_rules::time::Time;
use tidegate_rules::wallet::{WalletKind, WalletStatus, queue_rank};
use tidegate_vault::OsEntropy;
use tokio::sync::Semaphore;

use crate::clock;
use crate::config;
use crate::gateway::{Gateway, NetworkPart};
use crate::problem::{Problem, RACED};
use crate::store::{Commit, WalletRow};

/// How many free wallets are read ahead: enough that reading is rare, few enough that whoever waits
/// for it hardly notices.
const AHEAD: i64 = 128;

/// The most wallets that one call makes.
pub const GENERATE_MAX: u32 = 1_000;

/// The free wallets of every network, as far as they were read ahead.
pub struct Pool {
    queues: Mutex<HashMap<Network, Queue>>,
    /// One refill or growth at a time: the others wait and then find wallets.
    refill: tokio::sync::Mutex<()>,
    generations: Semaphore,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<WalletRow>,
    taken: HashSet<WalletId>,
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

/// True when a wallet may be leased above `settled`: it has no money above that height. Before
/// anything is settled only a wallet without a past may be.
fn is_lendable(wallet: &WalletRow, settled: Option<u64>) -> bool {
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
        Self { queues: Mutex::default(), refill: tokio::sync::Mutex::default(), generations: Semaphore::new(max_concurrent.max(1)) }
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
            if !self.read_ahead(gateway, part, settled).await? {
                self.grow(gateway, part).await?;
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

    /// Fills the queue from the store; false when there is nothing to lend.
    async fn read_ahead(&self, gateway: &Gateway, part: &NetworkPart, settled: Option<u64>) -> Result<bool, Problem> {
        // Whose lease is being stored now may look free in what is read, and be given back as leased
        // before it is looked at here.
        let taken = self.lock().get(&part.config.name).map(|queue| queue.taken.clone()).unwrap_or_default();
        let free = gateway.store.free_wallets(&part.config.name, AHEAD).await?;
        let mut queues = self.lock();
        let queue = queues.entry(part.config.name.clone()).or_default();
        let is_taken = |wallet: &WalletRow| taken.contains(&wallet.id) || queue.taken.contains(&wallet.id);
        queue.ready = free.into_iter().filter(|wallet| is_lendable(wallet, settled) && !is_taken(wallet)).collect();
        Ok(!queue.ready.is_empty())
    }

    /// Makes a batch of wallets, as many as the limit of the pool leaves room for.
    async fn grow(&self, gateway: &Gateway, part: &NetworkPart) -> Result<(), Problem> {
        let name = &part.config.name;
        let limit = gateway.config.pool.max_wallets;
        let room = limit.saturating_sub(count_of(gateway, name, None).await?);
        if room == 0 {
            let detail = format!("the pool of {name} needs to grow and has reached pool.max_wallets, {limit}");
            let alert = Gateway::alert(AlertKind::PoolExhausted, name.as_str(), detail, clock::now());
            let _ = gateway.store.commit(Changes { alerts: vec![alert], ..Changes::default() }).await?;
            return Err(Problem::unavailable("pool_exhausted", format!("no wallet of {name} is free and the pool may not grow")));
        }
        let batch = gateway.config.pool.batch_size.min(room);
        self.generate(gateway, part, u32::try_from(batch).unwrap_or(GENERATE_MAX).clamp(1, GENERATE_MAX), None, |_| None).await?;
        Ok(())
    }

    /// Makes `count` wallets, all or none. `answer` may keep an answer under an idempotency key in
    /// the same commit.
    ///
    /// # Errors
    /// 409 `concurrent_request` when the idempotency key was used by another request meanwhile.
    pub async fn generate(
        &self,
        gateway: &Gateway,
        part: &NetworkPart,
        count: u32,
        name_prefix: Option<&str>,
        answer: impl FnOnce(&[NewWallet]) -> Option<KeptAnswer>,
    ) -> Result<Vec<NewWallet>, Problem> {
        let _turn = self.generations.acquire().await.map_err(|_| Problem::internal())?;
        let name = &part.config.name;
        let have = count_of(gateway, name, None).await?;
        let at = clock::now();
        let mut wallets = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        for index in 1..=u64::from(count) {
            let index = have.saturating_add(index);
            let label = match name_prefix {
                Some(prefix) => format!("{prefix}{index:04}"),
                None => config::wallet_name(&gateway.config.pool.name_template, name, index),
            };
            let id = WalletId::new(at, clock::id_bytes());
            let made = gateway.vault.generate_wallet(&id.to_string(), name.as_str(), &mut OsEntropy);
            wallets.push(new_wallet(part, id, label, WalletKind::Random, made, at));
            // A batch of a thousand is a tenth of a second of arithmetic: let others run meanwhile.
            if index.is_multiple_of(32) {
                tokio::task::yield_now().await;
            }
        }
        self.store_wallets(gateway, &wallets, answer(&wallets)).await?;
        Ok(wallets)
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
        answer: impl FnOnce(&[NewWallet]) -> Option<KeptAnswer>,
    ) -> Result<NewWallet, Problem> {
        let name = &part.config.name;
        let at = clock::now();
        let id = WalletId::new(at, clock::id_bytes());
        let made = gateway.vault.import_wallet(private_key, &id.to_string(), name.as_str(), &mut OsEntropy).map_err(|error| {
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
        let wallets = [wallet];
        self.store_wallets(gateway, &wallets, answer(&wallets))
            .await
            .map_err(|problem| if problem.status == axum::http::StatusCode::CONFLICT { exists() } else { problem })?;
        let [wallet] = wallets;
        Ok(wallet)
    }

    async fn store_wallets(&self, gateway: &Gateway, wallets: &[NewWallet], answer: Option<KeptAnswer>) -> Result<(), Problem> {
        let changes = Changes { new_wallets: wallets.to_vec(), answer, ..Changes::default() };
        match gateway.store.commit(changes).await? {
            Commit::Done => Ok(()),
            Commit::Conflict => {
                Err(Problem::conflict(RACED, "another request with this idempotency key was first; send it again to get its answer"))
            }
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
        if free < gateway.config.pool.low_watermark { self.grow(gateway, part).await } else { Ok(()) }
    }
}

/// How many wallets of a network there are, of one status or of all.
async fn count_of(gateway: &Gateway, network: &Network, status: Option<WalletStatus>) -> Result<u64, Problem> {
    let counts = gateway.store.wallet_counts().await?;
    let fits = counts.iter().filter(|count| count.network == *network && status.is_none_or(|status| count.status == status));
    Ok(fits.map(|count| u64::try_from(count.count).unwrap_or(0)).sum())
}

fn new_wallet(part: &NetworkPart, id: WalletId, name: String, kind: WalletKind, made: tidegate_vault::NewWallet, at: Time) -> NewWallet {
    let address = Address(made.address);
    NewWallet {
        id,
        name,
        network: part.config.name.clone(),
        address,
        address_text: part.chain.format_address(&address),
        kind,
        sealed_key: made.sealed.as_str().to_owned(),
        tag: made.tag,
        queue_rank: queue_rank(kind, false, at),
        created_at: at,
    }
}
