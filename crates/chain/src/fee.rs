//! What one transfer of the token costs its sender now, in the coin of the chain. Estimates for
//! people and plans, never the price of anything: whoever sends asks the chain again.

/// The costs of one transfer of the token, as the chain is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fee {
    /// On an EVM network; prices are wei for each unit of gas.
    Evm {
        /// Gas of a transfer to an address that holds some of the token.
        gas: u64,
        /// Gas of a transfer to an address that holds none of it.
        gas_to_new: u64,
        /// The base fee of the next block; 0 on a network with one price for gas (`eth_gasPrice`).
        base_fee: u128,
        /// What those who propose blocks get on top: the middle of what they took lately.
        priority_fee: u128,
        /// What a transaction should offer at most: it stays valid while the base fee doubles.
        max_fee_per_gas: u128,
        /// Wei: [`gas`](Self::Evm::gas) at the base fee and the priority fee.
        cost: u128,
        /// Wei: the same to an address that holds none.
        cost_to_new: u128,
        /// Wei: the most that a transfer can cost at `max_fee_per_gas`, to whomever. Roll-ups charge
        /// for data on Ethereum on top of all three.
        cost_max: u128,
        /// Where the gas is from.
        basis: Basis,
    },
    /// On TRON; a sun is a millionth of a TRX.
    Tron {
        /// Energy of a transfer to an address that holds some of the token, the penalty for a busy
        /// contract included.
        energy: u64,
        /// Energy of a transfer to an address that holds none of it.
        energy_to_new: u64,
        /// Bytes of a signed transfer.
        bandwidth: u64,
        /// Sun for one of energy.
        energy_price: u64,
        /// Sun for one of bandwidth.
        bandwidth_price: u64,
        /// Sun burnt when the sender has neither energy nor bandwidth.
        burn: u64,
        /// Sun burnt, to an address that holds none.
        burn_to_new: u64,
        /// Sun burnt when the sender has energy, staked or delegated, and no bandwidth. An account
        /// has 600 of bandwidth a day for nothing, enough for one transfer.
        with_energy: u64,
        /// Sun to make an address an account. One that only ever got tokens is none, and cannot
        /// send.
        activation: u64,
        /// Where the energy is from.
        basis: Basis,
    },
}

/// Where the size of a transfer is from. Prices are always the chain's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The chain tried the transfer out, from the holder that it was given.
    Simulated,
    /// What such transfers are known to use: there was no holder, or the trial failed.
    Known,
}
