//! Puts a gateway together from its configuration: opens the database, unlocks the vault, reaches
//! the chains, and refuses with a sentence that says what to change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_chain::endpoints::{EndpointConfig, Endpoints};
use tidegate_chain::evm::{self, EvmChain, EvmConfig};
use tidegate_chain::tron::{self, TronChain, TronConfig};
use tidegate_chain::{Chain, Identity};
use tidegate_rules::block::Network;
use tidegate_vault::{MasterKey, OsEntropy, Salt, Sealed, Vault};
use zeroize::Zeroizing;

use crate::clock;
use crate::config::{self, Config, KeyText, Kind, NetworkConfig};
use crate::credentials::{self, MerchantWish};
use crate::gateway::{Gateway, Mode};
use crate::keyring::{FINGERPRINT_KEY, Keyring, setting_binding};
use crate::people::Doer;
use crate::store::{Migrate, Store};

/// The merchant that exists from the start.
pub const MAIN_MERCHANT: &str = "main";

/// How long a network may take to say what it is before the gateway starts without it.
const IDENTITY_MAX: Duration = Duration::from_secs(10);

/// Why a command cannot go on, as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Sorry(pub String);

impl Sorry {
    /// A sentence.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

macro_rules! sorry_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Sorry {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        }
    )*};
}
sorry_from!(crate::config::ConfigError, crate::store::StoreError, crate::tls::CertificateError, std::io::Error, tidegate_chain::Error);

impl From<crate::problem::Problem> for Sorry {
    fn from(problem: crate::problem::Problem) -> Self {
        Self(problem.detail)
    }
}

/// Opens the database of the configuration.
///
/// # Errors
/// With a sentence about the URL, the file, the server or the schema.
pub async fn open_store(config: &Config, migrate: Migrate) -> Result<Store, Sorry> {
    let config::Database { url, replica, pool_size, pool_timeout, slow_query } = &config.database;
    let store = Store::open_watched(&url.expose(), *pool_size, pool_timeout.to_std(), slow_query.to_std(), migrate).await?;
    Ok(match replica {
        Some(replica) => store.with_replica(replica.expose().as_str(), *pool_size)?,
        None => store,
    })
}

/// Unlocks the vaults: the master key of the configuration (and the one that is being left), the
/// salt of the configuration or of the database, and the check value that tells whether they are
/// those of this database.
///
/// # Errors
/// For a missing, weak or wrong key or salt.
pub async fn unlock(config: &Config, store: &Store) -> Result<Keyring, Sorry> {
    let current = vault(config, store, config.master_key.as_ref().ok_or_else(|| Sorry::new(NO_MASTER_KEY))?, "WALLET_MASTER_KEY").await?;
    let previous = match &config.previous_key {
        Some(key) => Some(vault(config, store, key, "WALLET_MASTER_KEY_PREVIOUS").await?),
        None => None,
    };
    let check = store.setting_or(VAULT_CHECK, &current.check_value()).await?;
    let is_current = current.verify_check(&check);
    let is_previous = previous.as_ref().is_some_and(|previous| previous.verify_check(&check));
    if !is_current && !is_previous {
        let which = match (config.salt.is_some(), previous.is_some()) {
            (true, _) => "WALLET_MASTER_KEY or ENCRYPTION_SALT is",
            (false, true) => "neither WALLET_MASTER_KEY nor WALLET_MASTER_KEY_PREVIOUS is",
            (false, false) => "WALLET_MASTER_KEY is",
        };
        let not = if which.starts_with("neither") { "" } else { "not " };
        return Err(Sorry(format!(
            "{which} {not}the one that this database was made with: expected the key it was first started with; nothing can be opened with another"
        )));
    }
    let fingerprints = fingerprint_key(store, &current, previous.as_ref()).await?;
    Ok(Keyring::new(current, previous, fingerprints))
}

/// The setting that tells which master key and salt a database is under.
pub const VAULT_CHECK: &str = "vault_check";

async fn vault(config: &Config, store: &Store, key: &KeyText, name: &str) -> Result<Vault, Sorry> {
    let salt = match &config.salt {
        Some(_) => String::new(),
        None => store.setting_or(ENCRYPTION_SALT, &Salt::generate(&mut OsEntropy).to_hex()).await?,
    };
    unlock_with(config, &salt, key, name).await
}

/// The vault of the configured key and a salt that is kept elsewhere than in an open database. A
/// configured salt goes before it.
///
/// # Errors
/// For a missing or weak key, or a salt that is none.
pub async fn vault_of(config: &Config, stored_salt: &str) -> Result<Vault, Sorry> {
    unlock_with(config, stored_salt, config.master_key.as_ref().ok_or_else(|| Sorry::new(NO_MASTER_KEY))?, "WALLET_MASTER_KEY").await
}

async fn unlock_with(config: &Config, stored_salt: &str, key: &KeyText, name: &str) -> Result<Vault, Sorry> {
    let wrong = |error: tidegate_vault::MasterKeyError| Sorry(format!("{name}: {error}"));
    let key = match &key.part2 {
        Some(part2) => MasterKey::combine(key.text.expose(), part2.expose()).map_err(wrong)?,
        None => MasterKey::parse(key.text.expose()).map_err(wrong)?,
    };
    let salt = match &config.salt {
        Some(salt) => Salt::parse(salt.expose()).map_err(|error| Sorry(format!("ENCRYPTION_SALT: {error}")))?,
        None => Salt::parse(stored_salt).map_err(|error| Sorry(format!("the stored salt: {error}; was ENCRYPTION_SALT set then?")))?,
    };
    // Argon2 takes a moment of one core.
    tokio::task::spawn_blocking(move || Vault::unlock(&key, &salt))
        .await
        .map_err(|error| Sorry(error.to_string()))?
        .map_err(|error| Sorry(error.to_string()))
}

/// The setting that holds the salt, where the configuration has none.
pub const ENCRYPTION_SALT: &str = "encryption_salt";

/// The key of fingerprints: made at the first start, kept sealed.
async fn fingerprint_key(store: &Store, current: &Vault, previous: Option<&Vault>) -> Result<Zeroizing<Vec<u8>>, Sorry> {
    let binding = setting_binding(FINGERPRINT_KEY);
    let fresh = current.seal(&clock::random::<32>(), &binding, &mut OsEntropy);
    let sealed = Sealed::from_text(store.setting_or(FINGERPRINT_KEY, fresh.as_str()).await?);
    let vault = previous.filter(|previous| sealed.key_id() == Some(previous.key_id())).unwrap_or(current);
    vault.open(&sealed, &binding).map_err(|error| Sorry(format!("the setting {FINGERPRINT_KEY} does not open: {error}")))
}

/// Whether the master key is the one of this database, without binding a new database to it.
///
/// # Errors
/// As [`unlock`].
pub async fn check_key(config: &Config, store: &Store) -> Result<&'static str, Sorry> {
    if store.setting(VAULT_CHECK).await?.is_some() {
        unlock(config, store).await?;
        return Ok("opens this database");
    }
    let key = config.master_key.as_ref().ok_or_else(|| Sorry::new(NO_MASTER_KEY))?;
    let parsed = match &key.part2 {
        Some(part2) => MasterKey::combine(key.text.expose(), part2.expose()),
        None => MasterKey::parse(key.text.expose()),
    };
    parsed.map_err(|error| Sorry(format!("WALLET_MASTER_KEY: {error}")))?;
    Ok("is a good one; the first start binds this database to it")
}

/// What to do without a master key.
const NO_MASTER_KEY: &str = "WALLET_MASTER_KEY is missing: expected 64 hex digits or the base64 of 32 bytes; run `tidegate key new`, keep the key safe, and set WALLET_MASTER_KEY or WALLET_MASTER_KEY_FILE";

/// A chain for every network of the configuration. Speaks to nobody yet.
///
/// # Errors
/// For a token address that is none of its chain.
pub fn chains(config: &Config) -> Result<BTreeMap<Network, Arc<dyn Chain>>, Sorry> {
    config.networks.iter().map(|network| Ok((network.name.clone(), chain(network)?))).collect()
}

fn chain(network: &NetworkConfig) -> Result<Arc<dyn Chain>, Sorry> {
    let endpoints = network
        .rpc
        .iter()
        .map(|rpc| EndpointConfig {
            headers: rpc.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
            requests_per_second: rpc.requests_per_second.or(network.requests_per_second),
            requests_per_day: rpc.requests_per_day.or(network.requests_per_day),
            ..EndpointConfig::new(rpc.url.expose().clone())
        })
        .collect();
    let jitter = Box::new(|| u64::from_ne_bytes(clock::random()));
    let endpoints = Endpoints::new(&network.name, endpoints, jitter)?;
    let bad_token = |expected: &str| Sorry(format!("networks.{}.token: expected {expected}, found {:?}", network.name, network.token));
    Ok(match network.kind {
        Kind::Evm => {
            let token = evm::parse_address(&network.token)
                .ok_or_else(|| bad_token("a contract address of 0x and 40 hex digits with a right checksum"))?;
            Arc::new(EvmChain::new(EvmConfig { range_max: network.range_max, ..EvmConfig::new(network.chain_id, token) }, endpoints))
        }
        Kind::Tron => {
            let token =
                tron::parse_address(&network.token).ok_or_else(|| bad_token("a contract address of 34 characters that starts with T"))?;
            Arc::new(TronChain::new(TronConfig { chain_id: network.chain_id, token }, endpoints))
        }
    })
}

/// What is wrong with what a network says of itself, as a sentence.
#[must_use]
pub fn mismatch(network: &NetworkConfig, found: &Identity) -> Option<String> {
    let name = &network.name;
    if found.chain_id != network.chain_id {
        return Some(format!(
            "networks.{name}.chain_id is {}, but its endpoints are on chain {}: change chain_id or rpc",
            network.chain_id, found.chain_id
        ));
    }
    if found.decimals != network.decimals {
        return Some(format!(
            "networks.{name}.decimals is {}, but the contract {} says {}: change decimals or token",
            network.decimals, network.token, found.decimals
        ));
    }
    let is_meant = network.symbol.as_ref().map_or_else(|| is_usdt(&found.symbol), |symbol| *symbol == found.symbol);
    if !is_meant {
        let expected = network.symbol.as_deref().unwrap_or("USDT");
        return Some(format!(
            "networks.{name}.token is {}, which calls itself {:?}, expected {expected:?}: change token, or set symbol to what it says if that is the token you mean",
            network.token, found.symbol
        ));
    }
    None
}

/// True for the names that Tether's dollar goes by: USDT, USDt, USD₮, and the same with a 0 behind it,
/// as the contracts are called that were upgraded in place on some networks.
fn is_usdt(symbol: &str) -> bool {
    let plain = symbol.replace('₮', "T").to_uppercase();
    matches!(plain.as_str(), "USDT" | "USDT0")
}

/// Asks every network what it is. One that does not answer now is reported by its health later;
/// one that is not what the configuration says refuses the start.
async fn check_identities(config: &Config, chains: &BTreeMap<Network, Arc<dyn Chain>>) -> Result<(), Sorry> {
    let mut asking = tokio::task::JoinSet::new();
    for network in &config.networks {
        let Some(chain) = chains.get(&network.name).cloned() else { continue };
        let network = network.clone();
        asking.spawn(async move { (tokio::time::timeout(IDENTITY_MAX, chain.identity()).await, network) });
    }
    while let Some(asked) = asking.join_next().await {
        let (answer, network) = asked.map_err(|error| Sorry(error.to_string()))?;
        match answer {
            Ok(Ok(found)) => {
                if let Some(wrong) = mismatch(&network, &found) {
                    return Err(Sorry(wrong));
                }
            }
            Ok(Err(error)) if !error.is_transient() => return Err(Sorry(format!("networks.{}: {error}", network.name))),
            Ok(Err(error)) => tracing::warn!(network = %network.name, %error, "the network does not answer; starting without it"),
            Err(_) => tracing::warn!(network = %network.name, "the network does not answer in time; starting without it"),
        }
    }
    Ok(())
}

/// A gateway against real networks, ready to run.
///
/// # Errors
/// With a sentence that says what to change.
pub async fn gateway(config: Config, migrate: Migrate) -> Result<Arc<Gateway>, Sorry> {
    let store = open_store(&config, migrate).await?;
    let vault = unlock(&config, &store).await?;
    ensure_main_merchant(&store, &vault).await?;
    let chains = chains(&config)?;
    let mode = if is_live(&config) { Mode::Live } else { Mode::Test };
    // The vault has what it needs of them.
    let config = Config { master_key: None, previous_key: None, salt: None, ..config };
    Ok(Gateway::new(config, store, vault, mode, &chains))
}

/// As [`gateway`], and every network that answers is what the configuration says.
///
/// # Errors
/// With a sentence that says what to change.
pub async fn checked_gateway(config: Config, migrate: Migrate) -> Result<Arc<Gateway>, Sorry> {
    let gateway = gateway(config, migrate).await?;
    let chains = gateway.networks().iter().map(|(name, part)| (name.clone(), Arc::clone(&part.chain))).collect();
    // Connects to Redis, so that the log says from the start how it does; nothing depends on it.
    let (checked, _) = tokio::join!(check_identities(&gateway.config, &chains), gateway.cache.redis());
    checked?;
    Ok(gateway)
}

/// True when any network's token is worth money.
#[must_use]
pub fn is_live(config: &Config) -> bool {
    config.networks.iter().any(NetworkConfig::is_live)
}

/// The merchant `main` exists from the start.
///
/// # Errors
/// When the store does not answer.
pub async fn ensure_main_merchant(store: &Store, keys: &Keyring) -> Result<(), Sorry> {
    if store.merchants().await?.iter().any(|merchant| merchant.name == MAIN_MERCHANT) {
        return Ok(());
    }
    // Another process may be first: then its merchant is the one.
    let wish = MerchantWish { name: MAIN_MERCHANT.to_owned(), webhook_url: None };
    credentials::add_merchant(store, keys, wish, &Doer::program(), |_| None).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_usdt;

    #[test]
    fn the_names_of_usdt() {
        for symbol in ["USDT", "USDt", "USD₮", "USDT0", "USD₮0"] {
            assert!(is_usdt(symbol), "{symbol}");
        }
        for symbol in ["USDC", "USDT.e", "USDT1", "", "USD", " USDT", "UЅDT"] {
            assert!(!is_usdt(symbol), "{symbol}");
        }
    }
}
