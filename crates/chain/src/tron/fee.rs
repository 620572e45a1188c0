//! What a transfer costs: the energy of a trial, and the prices that the chain's committee has set.

use serde_json::json;
use tidegate_rules::block::Address;

use super::{TronChain, View, no_head, wire};
use crate::abi;
use crate::endpoints::{Endpoint, Failure};
use crate::fee::{Basis, Fee};

/// Energy of a transfer of USDT on TRON to an address that holds some, and to one that holds none:
/// receipts of mainnet in 2025, when the penalty for a busy contract was at its most.
pub const ENERGY: u64 = 64_285;
/// See [`ENERGY`].
pub const ENERGY_TO_NEW: u64 = 130_285;
/// Bytes of a signed transfer of a token: `net_usage` in the receipts of mainnet.
pub const BANDWIDTH: u64 = 345;

impl TronChain {
    pub(super) async fn fee_on(&self, endpoint: Endpoint, holder: Option<Address>) -> Result<Fee, Failure> {
        self.prove(&endpoint).await?;
        let answer = endpoint.post(&View::Full.path("getchainparameters"), &json!({}), 1).await?;
        let prices = wire::parse_prices(&answer)?;
        let simulated = match holder {
            Some(holder) => self.transfer_energy(&endpoint, holder).await?,
            None => None,
        };
        let (energy, energy_to_new) = simulated.unwrap_or((ENERGY, ENERGY_TO_NEW));
        let sums = || {
            let with_energy = BANDWIDTH.checked_mul(prices.bandwidth)?;
            let burn = energy.checked_mul(prices.energy)?.checked_add(with_energy)?;
            Some((with_energy, burn, energy_to_new.checked_mul(prices.energy)?.checked_add(with_energy)?))
        };
        let (with_energy, burn, burn_to_new) = sums().ok_or_else(|| Failure::transient("prices beyond any number"))?;
        Ok(Fee::Tron {
            energy,
            energy_to_new,
            bandwidth: BANDWIDTH,
            energy_price: prices.energy,
            bandwidth_price: prices.bandwidth,
            burn,
            burn_to_new,
            with_energy,
            activation: prices.activation,
            basis: if simulated.is_some() { Basis::Simulated } else { Basis::Known },
        })
    }

    /// The energy of a transfer of one base unit from the holder to itself, which changes two
    /// balances as any other does, and to somebody who cannot hold any. `None` when the token does
    /// not let them through.
    async fn transfer_energy(&self, endpoint: &Endpoint, holder: Address) -> Result<Option<(u64, u64)>, Failure> {
        let head = self.newest(endpoint, View::Full).await?.ok_or_else(no_head)?;
        let (_, newcomer) = head.at.hash.0.split_last_chunk::<20>().ok_or_else(no_head)?;
        let Some(energy) = self.energy_of_transfer(endpoint, holder, holder).await? else { return Ok(None) };
        let to_new = self.energy_of_transfer(endpoint, holder, Address(*newcomer)).await?;
        Ok(to_new.map(|to_new| (energy, to_new)))
    }

    async fn energy_of_transfer(&self, endpoint: &Endpoint, from: Address, to: Address) -> Result<Option<u64>, Failure> {
        let request = json!({
            "owner_address": format!("41{}", hex::encode(from.0)),
            "contract_address": format!("41{}", hex::encode(self.config.token.0)),
            "function_selector": "transfer(address,uint256)",
            "parameter": format!("{}{}", abi::parameter(&to), abi::number(1)),
            "visible": false,
        });
        let answer = endpoint.post(&View::Full.path("triggerconstantcontract"), &request, 1).await?;
        // That it returns false means nothing: TRON's USDT does when all is well.
        Ok(wire::parse_energy(&answer)?.filter(|energy| *energy > 0))
    }
}
