//! What chains say to whoever asks, kept for a while: the balance of any address, the fate of a
//! transaction, what a transfer costs. For people to look at; no money is decided on it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_chain::{Basis, Fee};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Address, Hash};
use tidegate_rules::time::Time;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::balances;
use crate::cache::Cached;
use crate::clock;
use crate::gateway::{Gateway, NetworkPart};
use crate::problem::Problem;
use crate::transactions::{self, Known, Standing};

/// What an address held when it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BalanceQuote {
    /// Base units, as text: they may be more than JSON's numbers hold.
    raw: String,
    /// The block that it was read at.
    pub block: u64,
    at_ms: i64,
}

/// A balance and when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Base units.
    pub value: Raw,
    /// The block that it was read at.
    pub block: u64,
    /// When.
    pub at: Time,
}

/// What any address holds: at most five minutes old.
///
/// # Errors
/// 503 when it is not kept and no endpoint answers.
pub async fn balance(gateway: &Arc<Gateway>, part: &Arc<NetworkPart>, address: Address) -> Result<Balance, Problem> {
    let key = format!("{}/{}", part.config.name, hex::encode(address.0));
    let load = {
        let (gateway, part) = (Arc::clone(gateway), Arc::clone(part));
        async move {
            let (value, block) = balances::of_address(&gateway, &part, address).await?;
            Ok::<_, Problem>(BalanceQuote { raw: value.to_string(), block, at_ms: clock::now().millis() })
        }
    };
    let quote = gateway.cache.get(Cached::Balance, &key, load).await?.value;
    let value = quote.raw.parse().map_err(|_| Problem::internal())?;
    Ok(Balance { value, block: quote.block, at: Time::from_millis(quote.at_ms) })
}

/// What the chain said of a transaction that is not recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Said {
    standing: Standing,
    block: Option<u64>,
}

/// What is known of a transaction. What is recorded is told as it is now; what the chain says of
/// another is at most a minute old.
///
/// # Errors
/// 503 when it is not kept and no endpoint answers.
pub async fn transaction(gateway: &Arc<Gateway>, part: &Arc<NetworkPart>, hash: Hash) -> Result<Known, Problem> {
    if let Some(known) = transactions::known(gateway, part, hash).await? {
        return Ok(known);
    }
    let key = format!("{}/{hash}", part.config.name);
    let load = {
        let (gateway, part) = (Arc::clone(gateway), Arc::clone(part));
        async move {
            let known = transactions::look(&gateway, &part, hash).await?;
            Ok::<_, Problem>(Said { standing: known.standing, block: known.block })
        }
    };
    let said = gateway.cache.get(Cached::TransactionStatus, &key, Box::pin(load)).await?.value;
    if let Some(known) = transactions::known(gateway, part, hash).await? {
        return Ok(known);
    }
    let transfers = transactions::recorded(gateway, part, hash).await?;
    Ok(Known { network: part.config.name.clone(), hash, standing: said.standing.clone(), transfers, block: said.block })
}

/// What one transfer of the token costs its sender now, in the coin of the chain. An estimate.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeeQuote {
    /// Where.
    #[schema(example = "tron")]
    network: String,
    /// When it was asked for.
    at: String,
    /// `simulated` where the chain tried a transfer out, `known` where its size is what such
    /// transfers are known to use.
    #[schema(example = "simulated")]
    basis: String,
    /// What it costs, in the coin's smallest unit (sun, wei), to an address that holds some of the
    /// token.
    #[schema(example = "6773500")]
    cost: String,
    /// The same to an address that holds none of it.
    #[schema(example = "13373500")]
    cost_to_new: String,
    /// The coin's smallest unit: `sun` (a millionth of a TRX) or `wei`.
    #[schema(example = "sun")]
    unit: String,
    /// On TRON.
    tron: Option<TronFee>,
    /// On EVM networks.
    evm: Option<EvmFee>,
}

/// The parts of a fee on TRON; prices and costs are sun.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TronFee {
    /// Energy of a transfer to an address that holds some of the token.
    energy: u64,
    /// Energy of a transfer to an address that holds none of it.
    energy_to_new: u64,
    /// Bytes of a signed transfer.
    bandwidth: u64,
    /// For one of energy.
    energy_price: u64,
    /// For one of bandwidth.
    bandwidth_price: u64,
    /// What is burnt when the energy is delegated: bandwidth alone.
    cost_with_energy: u64,
    /// To make an address an account; one that only ever got tokens cannot send before.
    activation: u64,
}

/// The parts of a fee on an EVM network; prices are wei for each unit of gas, as text.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EvmFee {
    /// Gas of a transfer to an address that holds some of the token.
    gas: u64,
    /// Gas of a transfer to an address that holds none of it.
    gas_to_new: u64,
    /// The base fee of the next block; 0 on a network with one price.
    base_fee: String,
    /// What goes to whoever proposes the block.
    priority_fee: String,
    /// What a transaction should offer at most.
    max_fee_per_gas: String,
    /// The most that a transfer can cost at that, in wei.
    cost_max: String,
}

/// What a transfer costs: at most ten minutes old.
///
/// # Errors
/// 503 when it is not kept and no endpoint answers.
pub async fn fee(gateway: &Arc<Gateway>, part: &Arc<NetworkPart>) -> Result<Arc<FeeQuote>, Problem> {
    let load = {
        let (gateway, part) = (Arc::clone(gateway), Arc::clone(part));
        async move {
            let holder = gateway.store.richest_wallet(&part.config.name).await?.map(|wallet| wallet.address);
            match part.chain.fee(holder).await {
                Ok(fee) => Ok(quote(&part, &fee, clock::now())),
                Err(error) => {
                    tracing::warn!(network = %part.config.name, %error, "the fee could not be asked for");
                    let detail = format!("{} could not be asked what a transfer costs; try again later", part.config.name);
                    Err(Problem::unavailable("network_unavailable", detail))
                }
            }
        }
    };
    Ok(gateway.cache.get(Cached::Fee, part.config.name.as_str(), load).await?.value)
}

fn quote(part: &NetworkPart, fee: &Fee, at: Time) -> FeeQuote {
    let name = |basis: &Basis| match basis {
        Basis::Simulated => "simulated",
        Basis::Known => "known",
    };
    let (basis, cost, cost_to_new, unit, tron, evm) = match fee {
        Fee::Tron {
            energy,
            energy_to_new,
            bandwidth,
            energy_price,
            bandwidth_price,
            burn,
            burn_to_new,
            with_energy,
            activation,
            basis,
        } => {
            let parts = TronFee {
                energy: *energy,
                energy_to_new: *energy_to_new,
                bandwidth: *bandwidth,
                energy_price: *energy_price,
                bandwidth_price: *bandwidth_price,
                cost_with_energy: *with_energy,
                activation: *activation,
            };
            (name(basis), burn.to_string(), burn_to_new.to_string(), "sun", Some(parts), None)
        }
        Fee::Evm { gas, gas_to_new, base_fee, priority_fee, max_fee_per_gas, cost, cost_to_new, cost_max, basis } => {
            let parts = EvmFee {
                gas: *gas,
                gas_to_new: *gas_to_new,
                base_fee: base_fee.to_string(),
                priority_fee: priority_fee.to_string(),
                max_fee_per_gas: max_fee_per_gas.to_string(),
                cost_max: cost_max.to_string(),
            };
            (name(basis), cost.to_string(), cost_to_new.to_string(), "wei", None, Some(parts))
        }
    };
    let (network, at) = (part.config.name.to_string(), at.to_string());
    FeeQuote { network, at, basis: basis.to_owned(), cost, cost_to_new, unit: unit.to_owned(), tron, evm }
}

/// Asks what transfers cost before anybody does, so that nobody waits for it, until `stop` says so.
pub async fn keep_fees(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    loop {
        for part in gateway.networks().values() {
            // One that does not answer says so when it is asked for.
            let _ = fee(&gateway, part).await;
        }
        tokio::select! {
            () = tokio::time::sleep(Cached::Fee.refreshed_after()) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
