//! The program's parts in one place, and what runs beside the HTTP server.
//!
//! [`Gateway`] holds the store, the vault, the networks and the pool. Its loops (a follower for
//! each network, the notifier, the keeper of the pool) meet in the store; besides that there is
//! only [`Wake`], a signal that says "look again".

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use tidegate_chain::Chain;
use tidegate_rules::alert::AlertKind;
use tidegate_rules::block::Network;
use tidegate_rules::changes::NewAlert;
use tidegate_rules::id::{AlertId, EventId, MerchantId, OrderId};
use tidegate_rules::order::{Head, Heads};
use tidegate_rules::time::{Span, Time};
use tidegate_vault::{Binding, Sealed};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::balances;
use crate::cache::Cache;
use crate::clock;
use crate::config::{Config, NetworkConfig, Reconcile, SecretText};
use crate::dev::Sandbox;
use crate::duties::{self, Duties, Duty};
use crate::follow;
use crate::hints;
use crate::inbox;
use crate::keyring::Keyring;
use crate::loops::Loops;
use crate::metrics::Metrics;
use crate::notices;
use crate::notices::outlets::Outlets;
use crate::notify;
use crate::orders;
use crate::pool::Pool;
use crate::problem::Problem;
use crate::quotes;
use crate::rate::Together;
use crate::retention;
use crate::safe;
use crate::signals;
use crate::store::{EndpointRow, MerchantRow, Store, StoreError};

/// How many signals a slow listener may miss before it is told that it missed some.
const WAKE_BACKLOG: usize = 1_024;

/// Rounds of looking for orders without an address, for each look at the pool and at old keys.
const ROUNDS_PER_CLEANING: u32 = 6;

/// "Look again": something was committed. Carries no facts; those are in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// An order changed.
    Order(OrderId),
    /// A network's cursor moved: confirmations count up.
    Head,
    /// A webhook may be due.
    Delivery,
    /// A chain may have a block that was not read yet.
    Look,
    /// A message to the operator or to a customer may be due.
    Notice,
    /// A payment provider said something.
    Inbox,
    /// There is long work to do.
    Job,
}

/// The program.
pub struct Gateway {
    /// What the operator wants.
    pub config: Config,
    /// The memory.
    pub store: Store,
    /// The secrets.
    pub vault: Keyring,
    /// The free wallets.
    pub pool: Pool,
    /// Answers that are good for a while, for showing.
    pub cache: Cache,
    /// What is counted, for Prometheus.
    pub metrics: Metrics,
    /// How the loops do that run beside the HTTP server.
    pub loops: Loops,
    /// The ways out of messages to people.
    pub outlets: Outlets,
    /// What this process does of the work that one at a time does.
    pub duties: Duties,
    /// False on the sandbox and on testnets.
    pub livemode: bool,
    /// The simulated chains, where `tidegate dev` runs them.
    pub sandbox: Option<Sandbox>,
    /// Places for calls for balances.
    pub balance_calls: Semaphore,
    networks: BTreeMap<Network, Arc<NetworkPart>>,
    merchants: RwLock<HashMap<MerchantId, MerchantRow>>,
    wake: broadcast::Sender<Wake>,
    /// What began in this process.
    said: broadcast::Sender<Wake>,
}

/// What the gateway is for.
pub enum Mode {
    /// Real money.
    Live,
    /// Testnets.
    Test,
    /// Simulated chains in this process.
    Sandbox(Sandbox),
}

/// A network: its configuration, its chain, and what its follower knows.
pub struct NetworkPart {
    /// What the operator wants.
    pub config: NetworkConfig,
    /// The chain.
    pub chain: Arc<dyn Chain>,
    state: RwLock<FollowState>,
}

/// What the follower of a network last knew.
#[derive(Clone, Debug, Default)]
pub struct FollowState {
    /// What was applied; `None` until the first cursor is stored.
    pub head: Option<Head>,
    /// The time of the newest block that an endpoint showed.
    pub newest: Option<Time>,
    /// Up to where the second reader has compared.
    pub reconciled: Option<u64>,
    /// Why the network stands still, if it does.
    pub halted: Option<String>,
    /// Why the last step failed, if it did.
    pub failing: Option<String>,
}

/// How a network does, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkHealth {
    /// No cursor stored yet, and no failure either.
    Starting,
    /// No cursor stored yet, because no endpoint answers.
    Unreachable,
    /// Following, close enough behind.
    Following,
    /// Following, too far behind to lease addresses.
    Lagging,
    /// Stopped: the chain was rewritten too deep.
    Halted,
}

impl NetworkHealth {
    /// Every one of them.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Unreachable, Self::Following, Self::Lagging, Self::Halted];

    /// The word in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Unreachable => "unreachable",
            Self::Following => "following",
            Self::Lagging => "lagging",
            Self::Halted => "halted",
        }
    }
}

impl NetworkPart {
    /// What the follower last knew.
    #[must_use]
    pub fn state(&self) -> FollowState {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Tells everybody what the follower knows now.
    pub fn tell(&self, change: impl FnOnce(&mut FollowState)) {
        change(&mut self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// How far the last applied block is behind the server's time; `None` before the first.
    #[must_use]
    pub fn lag(&self, now: Time) -> Option<Span> {
        self.state().head.map(|head| now.since(head.tip.time))
    }

    /// How it does.
    #[must_use]
    pub fn health(&self, now: Time) -> NetworkHealth {
        let state = self.state();
        match (&state.head, state.halted.is_some()) {
            (_, true) => NetworkHealth::Halted,
            (None, false) if state.failing.is_some() => NetworkHealth::Unreachable,
            (None, false) => NetworkHealth::Starting,
            (Some(head), false) if now.since(head.tip.time) > self.config.max_lag => NetworkHealth::Lagging,
            (Some(_), false) => NetworkHealth::Following,
        }
    }

    /// What was applied, if addresses may be leased on this network now.
    ///
    /// # Errors
    /// 503 `network_unavailable` while it is starting, halted or too far behind.
    pub fn open_head(&self, now: Time) -> Result<Head, Problem> {
        let why = match self.health(now) {
            NetworkHealth::Following => {
                if let Some(head) = self.state().head {
                    return Ok(head);
                }
                "has no block yet"
            }
            NetworkHealth::Starting => "is starting",
            NetworkHealth::Unreachable => "cannot be reached",
            NetworkHealth::Lagging => "is too far behind",
            NetworkHealth::Halted => "is halted",
        };
        Err(Problem::unavailable("network_unavailable", format!("{} {why}; try again later or choose another network", self.config.name)))
    }
}

impl Gateway {
    /// Puts the parts together. `chains` holds one for each network of the configuration.
    #[must_use]
    pub fn new(config: Config, store: Store, vault: Keyring, mode: Mode, chains: &BTreeMap<Network, Arc<dyn Chain>>) -> Arc<Self> {
        let (livemode, sandbox) = match mode {
            Mode::Live => (true, None),
            Mode::Test => (false, None),
            Mode::Sandbox(sandbox) => (false, Some(sandbox)),
        };
        let networks = config
            .networks
            .iter()
            .filter_map(|network| {
                let chain = chains.get(&network.name)?.clone();
                Some((network.name.clone(), Arc::new(NetworkPart { config: network.clone(), chain, state: RwLock::default() })))
            })
            .collect();
        let pool = Pool::new(config.pool.max_concurrent);
        // Names the database to Redis: the same for all its processes, and nobody else's.
        let cache = Cache::new(config.redis_url.as_ref(), &vault.fingerprint(b"installation"));
        let outlets = Outlets::new(&config.notifications);
        Arc::new(Self {
            duties: Duties::new(store.is_shared()),
            outlets,
            config,
            store,
            vault,
            cache,
            metrics: Metrics::default(),
            loops: Loops::default(),
            pool,
            livemode,
            sandbox,
            balance_calls: Semaphore::new(balances::AT_ONCE_MAX),
            networks,
            merchants: RwLock::default(),
            wake: broadcast::channel(WAKE_BACKLOG).0,
            said: broadcast::channel(WAKE_BACKLOG).0,
        })
    }

    /// The networks, by name.
    #[must_use]
    pub const fn networks(&self) -> &BTreeMap<Network, Arc<NetworkPart>> {
        &self.networks
    }

    /// What every follower knows now.
    #[must_use]
    pub fn heads(&self) -> Heads {
        self.networks.iter().filter_map(|(name, part)| Some((name.clone(), part.state().head?))).collect()
    }

    /// Says "look again", to this process and to the others of its database.
    pub fn signal(&self, wake: Wake) {
        // Nobody listening is fine.
        let _ = self.wake.send(wake);
        let _ = self.said.send(wake);
    }

    /// Says what another process has said. It goes no further.
    pub fn relay(&self, wake: Wake) {
        let _ = self.wake.send(wake);
    }

    /// What is said in this process, for the others.
    #[must_use]
    pub fn said(&self) -> broadcast::Receiver<Wake> {
        self.said.subscribe()
    }

    /// Where limits are counted together with the other processes of the database; `None` without
    /// Redis.
    #[must_use]
    pub fn counts_together(&self) -> Option<Together> {
        let naming = SecretText::new(self.vault.fingerprint(b"limits"));
        Some(Together::new(self.cache.shared()?, naming))
    }

    /// Listens to the signals.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Wake> {
        self.wake.subscribe()
    }

    /// A merchant. They are few and change rarely, so they are kept for a round of the
    /// housekeeper; a new one is found by looking again.
    ///
    /// # Errors
    /// When the store does not answer, or there is no such merchant.
    pub async fn merchant(&self, id: MerchantId) -> Result<MerchantRow, StoreError> {
        if let Some(merchant) = self.known_merchant(id) {
            return Ok(merchant);
        }
        let rows = self.store.merchants().await?;
        *self.merchants.write().unwrap_or_else(std::sync::PoisonError::into_inner) = rows.into_iter().map(|row| (row.id, row)).collect();
        self.known_merchant(id).ok_or_else(|| StoreError::Corrupt { what: "a merchant", value: id.to_string() })
    }

    /// Looks again for merchants when one is asked for next: another process may have changed one.
    pub fn forget_merchants(&self) {
        self.merchants.write().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    fn known_merchant(&self, id: MerchantId) -> Option<MerchantRow> {
        self.merchants.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).cloned()
    }

    /// Opens a merchant's webhook secret.
    ///
    /// # Errors
    /// In words, without the secret.
    pub fn webhook_secret(&self, merchant: &MerchantRow) -> Result<Zeroizing<Vec<u8>>, String> {
        self.open_secret(&merchant.id.to_string(), &merchant.webhook_secret)
    }

    /// Opens every secret that signs a merchant's webhooks now, the newest first. An old one that
    /// does not open holds nothing up.
    ///
    /// # Errors
    /// In words, without the secrets.
    pub fn signing_secrets(&self, merchant: &MerchantRow, now: Time) -> Result<Vec<Zeroizing<Vec<u8>>>, String> {
        self.open_secrets(&merchant.id.to_string(), &merchant.webhook_secret, merchant.previous_secret.as_ref(), now)
    }

    /// Opens every secret that signs an endpoint's webhooks now, the newest first. An old one that does
    /// not open holds nothing up.
    ///
    /// # Errors
    /// In words, without the secrets.
    pub fn endpoint_secrets(&self, endpoint: &EndpointRow, now: Time) -> Result<Vec<Zeroizing<Vec<u8>>>, String> {
        self.open_secrets(&endpoint.id.to_string(), &endpoint.secret, endpoint.previous_secret.as_ref(), now)
    }

    fn open_secrets(
        &self,
        owner: &str,
        sealed: &str,
        previous: Option<&(String, Time)>,
        now: Time,
    ) -> Result<Vec<Zeroizing<Vec<u8>>>, String> {
        let mut secrets = vec![self.open_secret(owner, sealed)?];
        if let Some((sealed, _)) = previous.filter(|(_, until)| now < *until) {
            match self.open_secret(owner, sealed) {
                Ok(secret) => secrets.push(secret),
                Err(error) => tracing::warn!("signed with the new secret alone: {error}"),
            }
        }
        Ok(secrets)
    }

    /// `owner` is the id of the merchant or the endpoint that the secret is of.
    fn open_secret(&self, owner: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        self.vault
            .open(&Sealed::from_text(sealed), &Binding::webhook_secret(owner))
            .map_err(|error| format!("the webhook secret of {owner} does not open: {error}"))
    }

    /// An alert, ready to be stored with its cause.
    #[must_use]
    pub fn alert(kind: AlertKind, about: impl Into<String>, detail: impl Into<String>, at: Time) -> NewAlert {
        let (about, detail) = (about.into(), detail.into());
        match kind {
            // These name people: who came from where, whom a message was for. The alert itself says so.
            AlertKind::CredentialsChanged | AlertKind::NotificationFailed => {
                tracing::warn!(alert = kind.name(), about, "alert raised, the alert itself says about whom");
            }
            _ => tracing::warn!(alert = kind.name(), about, "alert raised: {detail}"),
        }
        NewAlert { id: AlertId::new(at, clock::id_bytes()), event: EventId::new(at, clock::id_bytes()), kind, about, detail, at }
    }

    /// Runs everything that runs beside the HTTP server, until `stop` says so.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) {
        let mut loops = JoinSet::new();
        if self.store.is_shared() {
            self.keep(&mut loops, &stop, "duties", duties::run);
        }
        if self.store.is_shared() || self.cache.shared().is_some() {
            self.keep(&mut loops, &stop, "signals", signals::run);
        }
        for (name, part) in &self.networks {
            let followed = Arc::clone(part);
            self.keep_following(&mut loops, &stop, name, move |gateway, stop| follow::run(gateway, Arc::clone(&followed), stop));
            if part.config.reconcile != Reconcile::Off {
                let compared = Arc::clone(part);
                let again = move |gateway, stop| follow::reconcile(gateway, Arc::clone(&compared), stop);
                self.keep(&mut loops, &stop, format!("second_reader {name}"), again);
            }
        }
        self.keep(&mut loops, &stop, "webhooks", notify::run);
        if !self.config.notifications.channels().is_empty() {
            self.keep(&mut loops, &stop, "notifications", notices::run);
        }
        self.keep(&mut loops, &stop, "hints", hints::run);
        self.keep(&mut loops, &stop, "payment_webhooks", inbox::run);
        self.keep(&mut loops, &stop, "watch_networks", follow::watch_networks);
        self.keep(&mut loops, &stop, "fees", quotes::keep_fees);
        if self.config.balances.sync_every != Span::ZERO {
            self.keep(&mut loops, &stop, "balances", balances::run);
        }
        self.keep(&mut loops, &stop, "jobs", balances::run_jobs);
        self.keep(&mut loops, &stop, "retention", retention::run);
        self.keep(&mut loops, &stop, "keys", keep_safe);
        self.keep(&mut loops, &stop, "house", keep_house);
        while loops.join_next().await.is_some() {}
        duties::leave(&self).await;
    }

    /// Runs a loop, and begins it again when it breaks.
    fn keep<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        loops: &mut JoinSet<()>,
        stop: &watch::Receiver<bool>,
        name: impl Into<String>,
        begin: impl Fn(Arc<Self>, watch::Receiver<bool>) -> F + Send + Sync + 'static,
    ) {
        let (gateway, stop, name) = (Arc::clone(self), stop.clone(), name.into());
        loops.spawn(async move {
            gateway.loops.keep(&name, stop.clone(), || begin(Arc::clone(&gateway), stop.clone()), || ()).await;
        });
    }

    /// The same for a follower: its network shows that nobody follows it.
    fn keep_following<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        loops: &mut JoinSet<()>,
        stop: &watch::Receiver<bool>,
        network: &Network,
        begin: impl Fn(Arc<Self>, watch::Receiver<bool>) -> F + Send + Sync + 'static,
    ) {
        let (gateway, stop, network) = (Arc::clone(self), stop.clone(), network.clone());
        loops.spawn(async move {
            let broke = || {
                if let Some(part) = gateway.networks.get(&network) {
                    part.tell(|state| state.failing = Some("the follower broke and is begun again".to_owned()));
                }
            };
            gateway.loops.keep(&format!("follow {network}"), stop.clone(), || begin(Arc::clone(&gateway), stop.clone()), broke).await;
        });
    }
}

/// Checks every key and the audit log: a while after the start, then daily.
async fn keep_safe(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut wait = safe::FIRST_CHECK;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        // Keys are looked at by one process for all.
        let here = gateway.duties.hold(&Duty::House).is_here();
        tokio::select! {
            () = safe::check_all(&gateway), if here => {}
            () = std::future::ready(()), if !here => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        wait = safe::CHECK_EVERY;
    }
}

/// What needs doing now and then: the pool's watermark, orders without an address, old keys.
async fn keep_house(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut rounds: u32 = 0;
    let mut duties = gateway.duties.watch();
    loop {
        gateway.forget_merchants();
        let here = gateway.duties.hold(&Duty::House).is_here();
        if here && rounds.is_multiple_of(ROUNDS_PER_CLEANING) {
            gateway.pool.keep(&gateway).await;
            if let Err(error) = gateway.store.forget_old(clock::now()).await {
                tracing::warn!(%error, "old answers could not be forgotten");
            }
        }
        rounds = if here { rounds.wrapping_add(1) } else { 0 };
        if here && let Err(error) = orders::expire_unleased(&gateway).await {
            tracing::warn!(%error, "orders without an address could not be expired");
        }
        tokio::select! {
            () = tokio::time::sleep(orders::UNLEASED_CHECK.to_std()) => {}
            _ = duties.changed() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
