//! `tidegate dev`: the whole product in a sandbox, in one process, without network, keys or
//! configuration. The chains are simulated ([`tidegate_chain::sandbox`]); everything else is what
//! `serve` runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_chain::Chain;
use tidegate_chain::sandbox::{SandboxChain, SandboxConfig};
use tidegate_rules::amount::Amount;
use tidegate_rules::block::Network;
use tidegate_rules::order::Depth;
use tidegate_rules::people::Role;
use tidegate_rules::time::Span;
use tidegate_rules::wallet::WalletKind;
use tidegate_vault::{MasterKey, OsEntropy};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clock;
use crate::config::{Config, KeyText, Kind, NetworkConfig, Overrides, Reconcile, SecretText, Sources, StartBlock};
use crate::credentials::{self, KeyWish};
use crate::gateway::{Gateway, Mode};
use crate::http;
use crate::keyring::Keyring;
use crate::orders;
use crate::people::{Doer, users};
use crate::problem::Problem;
use crate::start::{self, Sorry};
use crate::store::{Migrate, OrderRow, Store};

/// How many requests a second the sandbox takes from one key or address: more than it can answer.
const SANDBOX_REQUESTS_PER_SECOND: u32 = 1_000_000;

/// How the sandbox is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it keeps its files.
    pub data_dir: PathBuf,
    /// Where it listens.
    pub listen: String,
    /// How far apart its blocks are.
    pub block_time: Duration,
    /// How many confirmations its orders need on TRON and on Ethereum.
    pub confirmations: (u32, u32),
}

/// What an integrator needs, as `credentials.json` holds it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// Where the gateway answers.
    pub base_url: String,
    /// A key that may do everything.
    pub api_key: String,
    /// What webhooks are signed with.
    pub webhook_secret: String,
    /// For the operators' pages.
    pub admin: Admin,
}

/// A log-in of the operators' pages.
#[derive(Clone, Serialize, Deserialize)]
pub struct Admin {
    /// The name.
    pub email: String,
    /// The password.
    pub password: String,
}

/// A button of the sandbox's pay panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayKind {
    /// What is still missing.
    Exact,
    /// A tenth less, as an exchange that deducts its fee.
    Less,
    /// A tenth more.
    More,
    /// The exact amount, in the first block after the order's time.
    Late,
}

impl PayKind {
    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "exact" => Some(Self::Exact),
            "less" => Some(Self::Less),
            "more" => Some(Self::More),
            "late" => Some(Self::Late),
            _ => None,
        }
    }
}

/// The simulated chains of this process.
pub struct Sandbox {
    chains: BTreeMap<Network, SandboxChain>,
}

impl Sandbox {
    /// Pays an order on its simulated chain; in the next block, or after its time.
    ///
    /// # Errors
    /// 422 when the order has no address on that network.
    pub fn pay(&self, gateway: &Gateway, row: &OrderRow, network: &Network, kind: PayKind) -> Result<(), Problem> {
        let lease = row.order.leases.iter().find(|lease| lease.network == *network);
        let (Some(lease), Some(chain)) = (lease, self.chains.get(network)) else {
            return Err(Problem::invalid("/network", "expected a network that this order has an address on"));
        };
        let decimals = orders::part_named(gateway, network)?.config.decimals;
        let terms = &row.order.terms;
        let missing = terms.amount.saturating_sub(row.order.tally.received);
        let exact = if missing.is_zero() { terms.amount } else { missing };
        let tenth = Amount::from_micros(exact.micros().div_euclid(10).max(1));
        let amount = match kind {
            PayKind::Exact | PayKind::Late => exact,
            PayKind::Less => exact.saturating_sub(tenth),
            PayKind::More => exact.checked_add(tenth).unwrap_or(exact),
        };
        let value = amount.to_raw(decimals).ok_or_else(Problem::internal)?;
        let (chain, address) = (chain.clone(), lease.address);
        if kind != PayKind::Late {
            chain.faucet(address, value);
            return Ok(());
        }
        let expires_at = terms.expires_at;
        tokio::spawn(async move {
            let mut heads = chain.subscribe();
            // The transfer waits for a block after the order's time, as a slow exchange would.
            while chain.tip().time <= expires_at {
                if heads.changed().await.is_err() {
                    return;
                }
            }
            chain.faucet(address, value);
        });
        Ok(())
    }
}

/// A sandbox that answers.
pub struct Running {
    /// What an integrator needs.
    pub credentials: Credentials,
    /// Ends when the sandbox does.
    pub ended: tokio::task::JoinHandle<Result<(), Sorry>>,
}

/// Starts the sandbox and answers as soon as it does.
///
/// # Errors
/// With a sentence about the directory or the address.
pub async fn start(options: Options, stop: watch::Receiver<bool>) -> Result<Running, Sorry> {
    let dir = &options.data_dir;
    std::fs::create_dir_all(dir)
        .map_err(|error| Sorry(format!("--data-dir {}: {error}; choose a directory that can be written", dir.display())))?;
    let lock = take_lock(dir)?;
    let listener = TcpListener::bind(&options.listen)
        .await
        .map_err(|error| Sorry(format!("--listen {}: {error}; choose a free address such as 127.0.0.1:0", options.listen)))?;
    let address = listener.local_addr()?;
    let base_url = format!("http://{address}");

    let mut config = configuration(&options, address)?;
    config.master_key = Some(KeyText { text: master_key(dir)?, part2: None });
    let store = start::open_store(&config, Migrate::Yes).await?;
    let vault = start::unlock(&config, &store).await?;
    let chains = open_chains(dir)?;
    let credentials = ready_credentials(dir, &store, &vault, base_url).await?;
    let sandbox = Sandbox { chains: chains.clone() };
    let dynamic: BTreeMap<Network, Arc<dyn Chain>> =
        chains.iter().map(|(name, chain)| (name.clone(), Arc::new(chain.clone()) as Arc<dyn Chain>)).collect();
    let gateway = Gateway::new(config, store, vault, Mode::Sandbox(sandbox), &dynamic);
    for chain in chains.into_values() {
        tokio::spawn(mine(chain, options.block_time, stop.clone()));
    }
    let running = Arc::clone(&gateway);
    let ended = tokio::spawn(async move {
        let loops = tokio::spawn(Arc::clone(&running).run(stop.clone()));
        let outcome = http::serve(running, listener, stop).await;
        let _ = loops.await;
        drop(lock);
        outcome.map_err(Sorry::from)
    });
    Ok(Running { credentials, ended })
}

/// One sandbox at a time in a directory.
fn take_lock(dir: &Path) -> Result<File, Sorry> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    file.try_lock().map_err(|_| Sorry(format!("{} is in use by another tidegate; stop it or choose another --data-dir", dir.display())))?;
    Ok(file)
}

/// The sandbox's configuration: the defaults, on simulated networks.
fn configuration(options: &Options, address: std::net::SocketAddr) -> Result<Config, Sorry> {
    let flags = Overrides {
        listen: Some(address.to_string()),
        database_url: Some(format!("sqlite://{}", options.data_dir.join("tidegate.db").display())),
        ..Overrides::default()
    };
    let mut config = Config::load(Sources { flags, env: &|_| None, file: None })?;
    // Whoever tries how much it can do is not held up.
    config.limits.requests_per_second = SANDBOX_REQUESTS_PER_SECOND;
    config.limits.burst = SANDBOX_REQUESTS_PER_SECOND;
    let (tron, ethereum) = options.confirmations;
    let network = |name: &str, display_name: &str, kind: Kind, confirmations: u32| NetworkConfig {
        name: Network::new(name),
        display_name: display_name.to_owned(),
        kind,
        wallets: WalletKind::Random,
        chain_id: sandbox_config(kind).chain_id,
        rpc: Vec::new(),
        token: token_text(kind),
        decimals: sandbox_config(kind).decimals,
        symbol: None,
        confirmations: Depth::Blocks(confirmations),
        tiers: Vec::new(),
        start_block: StartBlock::Latest,
        poll_interval: Span::from_millis(u64::try_from(options.block_time.as_millis()).unwrap_or(1_000).clamp(20, 500)),
        max_lag: Span::from_secs(120),
        final_lag_max: Span::from_secs(3_600),
        min_amount: None,
        max_amount: None,
        agree_above: None,
        reconcile: Reconcile::Settled,
        webhook_secret: None,
        alchemy_signing_key: None,
        range_max: 100,
        requests_per_second: None,
        requests_per_day: None,
    };
    config.networks =
        vec![network("ethereum", "Ethereum (ERC-20)", Kind::Evm, ethereum), network("tron", "TRON (TRC-20)", Kind::Tron, tron)];
    config.orders.min_expires_in = Span::from_secs(1);
    config.orders.min_amount = Amount::from_micros(1);
    config.webhooks.allow_private_targets = true;
    Ok(config)
}

fn sandbox_config(kind: Kind) -> SandboxConfig {
    let now = clock::now();
    let seed = u64::from_ne_bytes(clock::random());
    match kind {
        Kind::Tron => SandboxConfig::tron(now, seed),
        Kind::Evm => SandboxConfig::evm(now, seed),
    }
}

/// The simulated token's contract, as people on the chain write it.
fn token_text(kind: Kind) -> String {
    let token = sandbox_config(kind).token;
    match kind {
        Kind::Tron => tidegate_chain::tron::format_address(&token),
        Kind::Evm => tidegate_chain::evm::format_address(&token),
    }
}

fn open_chains(dir: &Path) -> Result<BTreeMap<Network, SandboxChain>, Sorry> {
    [("ethereum", Kind::Evm), ("tron", Kind::Tron)]
        .into_iter()
        .map(|(name, kind)| {
            let path = dir.join(format!("chain-{name}.jsonl"));
            let chain = SandboxChain::open(sandbox_config(kind), &path).map_err(|error| Sorry(format!("{}: {error}", path.display())))?;
            Ok((Network::new(name), chain))
        })
        .collect()
}

/// Makes blocks at the chain's rhythm.
async fn mine(chain: SandboxChain, every: Duration, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let chain = chain.clone();
        // A block is synced to disk before anybody sees it.
        match tokio::task::spawn_blocking(move || chain.mine(clock::now())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "the simulated chain could not keep its block"),
            Err(error) => tracing::error!(%error, "the simulated chain broke"),
        }
    }
}

/// The sandbox's own master key, made on first use.
fn master_key(dir: &Path) -> Result<SecretText, Sorry> {
    let path = dir.join("master.key");
    if !path.exists() {
        write_secret(&path, MasterKey::generate(&mut OsEntropy).to_hex().as_bytes())?;
    }
    Ok(SecretText::new(std::fs::read_to_string(&path)?))
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_secret(path: &Path, content: &[u8]) -> Result<(), Sorry> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let draft = path.with_extension("new");
    let _ = std::fs::remove_file(&draft);
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    Ok(())
}

/// When a password was written into the credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    /// At an earlier start. One that was changed since stays changed.
    Before,
    /// At this start.
    Now,
}

/// The user that the credentials name, as an owner.
async fn ensure_admin(store: &Store, admin: &Admin, given: Given) -> Result<(), Sorry> {
    let password = SecretText::new(admin.password.clone());
    match store.user_by_email(&admin.email).await? {
        None => {
            let wish = users::Wish { email: admin.email.clone(), role: Role::Owner, password };
            users::add(store, wish, &Doer::program(), |_| None).await?;
        }
        Some(user) if given == Given::Now => {
            let put = users::Put { password: Some(password), second_factor: users::Factor::Goes, ..users::Put::default() };
            users::put(store, user.id, put, &Doer::program()).await?;
        }
        Some(_) => {}
    }
    Ok(())
}

/// The credentials of the sandbox: those of the last start where they still fit, else new ones.
async fn ready_credentials(dir: &Path, store: &Store, vault: &Keyring, base_url: String) -> Result<Credentials, Sorry> {
    let path = dir.join("credentials.json");
    let known: Option<Credentials> = std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
    start::ensure_main_merchant(store, vault).await?;
    let merchants = store.merchants().await?;
    let main = merchants
        .iter()
        .find(|merchant| merchant.name == start::MAIN_MERCHANT)
        .ok_or_else(|| Sorry::new("the merchant main is missing"))?;
    let key_fits = match &known {
        Some(known) => store.api_key(&http::hash_key(&known.api_key)).await?.is_some(),
        None => false,
    };
    let mut credentials = match known {
        Some(known) if key_fits => known,
        _ => {
            let scopes = vec!["admin".to_owned()];
            let wish = KeyWish { merchant: main.id, name: None, scopes, livemode: false, expires_at: None, allowed_ips: Vec::new() };
            let (_, api_key) = credentials::add_api_key(store, wish, &Doer::program(), |_| None).await?;
            Credentials {
                base_url: String::new(),
                api_key: api_key.expose().to_owned(),
                webhook_secret: String::new(),
                admin: Admin { email: "owner@tidegate.local".to_owned(), password: hex::encode(clock::random::<12>()) },
            }
        }
    };
    ensure_admin(store, &credentials.admin, if key_fits { Given::Before } else { Given::Now }).await?;
    let binding = tidegate_vault::Binding::webhook_secret(&main.id.to_string());
    let secret =
        vault.open(&tidegate_vault::Sealed::from_text(main.webhook_secret.clone()), &binding).map_err(|error| Sorry(error.to_string()))?;
    credentials.webhook_secret = String::from_utf8_lossy(&secret).into_owned();
    credentials.base_url = base_url;
    let text = serde_json::to_string_pretty(&credentials).unwrap_or_default();
    write_secret(&path, text.as_bytes())?;
    Ok(credentials)
}
