//! What a transfer costs: the gas of a trial, and the prices of the last blocks (EIP-1559), or one
//! price where the chain has no others.

use std::sync::atomic::Ordering;

use serde_json::json;
use tidegate_rules::block::Address;

use super::rpc::{Call, Meaning, Told};
use super::wire::{self, FeeHistory};
use super::{EvmChain, Which, format_address, hex, no_head};
use crate::abi;
use crate::endpoints::{Endpoint, Failure};
use crate::fee::{Basis, Fee};

/// Gas of a transfer of USDT on Ethereum to an address that holds none: a receipt of mainnet.
pub const GAS_TO_NEW: u64 = 63_173;
/// What a token's first balance at an address costs above a change of one: setting a slot is
/// 20,000, changing it 2,900 (EIP-2200, EIP-2929).
pub const GAS_OF_FIRST_BALANCE: u64 = 17_100;
/// Gas that a transfer of the token may be given: well above what any of them uses.
pub const GAS_LIMIT: u64 = 90_000;
/// How many blocks the prices are taken from.
const FEE_BLOCKS: u64 = 20;
/// A priority fee below this is raised to it, wei for each unit of gas: 0.001 gwei.
const PRIORITY_FEE_MIN: u128 = 1_000_000;
/// What Polygon's block producers want at least: 30 gwei (maticnetwork/matic.js#373).
const PRIORITY_FEE_MIN_POLYGON: u128 = 30_000_000_000;
const POLYGON: u64 = 137;

impl EvmChain {
    pub(super) async fn fee_on(&self, endpoint: Endpoint, holder: Option<Address>) -> Result<Fee, Failure> {
        self.prove(&endpoint).await?;
        let estimated = match holder {
            Some(holder) => self.transfer_gas(&endpoint, holder).await?,
            None => None,
        };
        let (gas_to_new, basis) = estimated.map_or((GAS_TO_NEW, Basis::Known), |gas| (gas, Basis::Simulated));
        let gas = gas_to_new.saturating_sub(GAS_OF_FIRST_BALANCE);
        let (base_fee, priority_fee) = match self.fee_history(&endpoint).await? {
            Some((base, Some(tip))) => (base, self.raised(tip)),
            Some((base, None)) => (base, self.raised(self.price(&endpoint, "eth_maxPriorityFeePerGas").await?.unwrap_or(0))),
            // One price for all (BSC, and whoever does not offer the history): it is all tip.
            None => {
                let price = self.price(&endpoint, "eth_gasPrice").await?;
                (0, price.ok_or_else(|| Failure::transient("it does not say what gas costs"))?)
            }
        };
        let sums = || {
            let now = base_fee.checked_add(priority_fee)?;
            let max_fee_per_gas = base_fee.checked_mul(2)?.checked_add(priority_fee)?;
            let cost_max = max_fee_per_gas.checked_mul(gas_to_new.max(GAS_LIMIT).into())?;
            Some((max_fee_per_gas, now.checked_mul(gas.into())?, now.checked_mul(gas_to_new.into())?, cost_max))
        };
        let (max_fee_per_gas, cost, cost_to_new, cost_max) = sums().ok_or_else(|| Failure::transient("prices beyond any number"))?;
        Ok(Fee::Evm { gas, gas_to_new, base_fee, priority_fee, max_fee_per_gas, cost, cost_to_new, cost_max, basis })
    }

    /// The gas of a transfer of one base unit from the holder to somebody who cannot hold any;
    /// `None` when the token does not let it through.
    async fn transfer_gas(&self, endpoint: &Endpoint, holder: Address) -> Result<Option<u64>, Failure> {
        let head = self.header_on(endpoint, Which::Tag("latest")).await?.ok_or_else(no_head)?;
        let (_, newcomer) = head.at.hash.0.split_last_chunk::<20>().ok_or_else(no_head)?;
        let data = format!("{TRANSFER}{}{}", abi::parameter(&Address(*newcomer)), abi::number(1));
        let call = json!([{ "from": format_address(&holder), "to": format_address(&self.config.token), "data": data }]);
        match self.rpc.one(endpoint, &Call { method: "eth_estimateGas", params: call }).await? {
            Ok(gas) => wire::read_quantity(gas.get()).map(Some),
            // A holder that is frozen or has nothing, or an endpoint that does not try things out.
            Err(error) if error.is_reverted() || matches!(error.meaning(), Meaning::Other | Meaning::NotOffered) => Ok(None),
            Err(error) => Err(error.failure("eth_estimateGas")),
        }
    }

    /// The base fee of the next block and the middle tip of the last ones, where anybody paid one;
    /// `None` where there is no such thing.
    async fn fee_history(&self, endpoint: &Endpoint) -> Result<Option<(u128, Option<u128>)>, Failure> {
        let not_offered = self.lore.get(endpoint.index()).map(|lore| &lore.no_fee_history);
        if not_offered.is_some_and(|no| no.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let params = json!([hex(FEE_BLOCKS), "latest", [50]]);
        match self.rpc.one(endpoint, &Call { method: "eth_feeHistory", params }).await? {
            Ok(history) => Ok(FeeHistory::read(history.get())?.map(|history| (history.next_base_fee, history.tip))),
            Err(error) if error.meaning() == Meaning::NotOffered => {
                if let Some(not_offered) = not_offered {
                    not_offered.store(true, Ordering::Relaxed);
                }
                Ok(None)
            }
            Err(error) if error.meaning() == Meaning::Other => Ok(None),
            Err(error) => Err(error.failure("eth_feeHistory")),
        }
    }

    /// One price; `None` where it is not offered.
    async fn price(&self, endpoint: &Endpoint, method: &'static str) -> Result<Option<u128>, Failure> {
        let told: Told = self.rpc.one(endpoint, &Call { method, params: json!([]) }).await?;
        match told {
            Ok(price) => wire::read_price(price.get()).map(Some),
            Err(error) if matches!(error.meaning(), Meaning::NotOffered | Meaning::Other) => Ok(None),
            Err(error) => Err(error.failure(method)),
        }
    }

    fn raised(&self, tip: u128) -> u128 {
        tip.max(if self.config.chain_id == POLYGON { PRIORITY_FEE_MIN_POLYGON } else { PRIORITY_FEE_MIN })
    }
}

/// The selector of `transfer(address,uint256)`.
const TRANSFER: &str = "0xa9059cbb";
