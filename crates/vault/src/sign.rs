//! Signing: the vault reads a transaction, and signs it only if its purpose allows what it does.
//!
//! The rules are in [`Vault::sign`], in the order in which they refuse. What a transaction does is
//! read from the very bytes that will be signed (`evm`, `tron`); what cannot be read is not signed.

use crate::evm::EvmTransaction;
use crate::seal::{split, stored_text};
use crate::subkey::{VERSION, Vault, framed, same};
use crate::tron;
use crate::wallet::{KeySource, VerifyError, Wallet};

stored_text! {
    /// An address that sweeps may go to, with proof that the vault was asked to seal it.
    SealedDestination
}

/// A transaction to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnsignedTransaction {
    /// For an EVM chain.
    Evm(EvmTransaction),
    /// For TRON.
    Tron {
        /// The protobuf bytes of `Transaction.raw`.
        raw_data: Vec<u8>,
    },
}

/// A transaction that is signed and ready to broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    /// The bytes for `eth_sendRawTransaction`, or for TRON's `broadcasthex`.
    pub raw: Vec<u8>,
    /// What the chain will call it.
    pub hash: [u8; 32],
}

/// What a signature is for, and the limits that hold for it.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    /// The only chain that the transaction may be for.
    pub chain: ChainId,
    /// The most that it may burn as a fee: wei on EVM (gas limit × price), sun on TRON (the fee
    /// limit; bandwidth, at most some TRX, comes on top).
    pub fee_max: u128,
    /// The only thing that it may do.
    pub action: Action<'a>,
}

/// How a transaction is tied to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainId {
    /// TRON. Its transactions name no chain; the block that they refer to ties them to one.
    Tron,
    /// The EVM chain with this EIP-155 id.
    Evm(u64),
}

/// The things that a transaction of ours may do.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// Bring tokens of the wallet home: a `transfer` of this token to this destination.
    Sweep {
        /// The token's contract.
        token: [u8; 20],
        /// Where the sweeps of the wallet's network go.
        destination: &'a SealedDestination,
        /// The most base units that may go, as a big-endian number, if there is a limit.
        amount_max: Option<[u8; 32]>,
    },
    /// Give another wallet of ours on the same network the coins to pay its fees with.
    FundFee {
        /// That wallet.
        to: Wallet<'a>,
        /// The tag of its address.
        tag: &'a str,
        /// The most wei or sun that may go.
        amount_max: u128,
    },
}

/// Why the vault does not sign, in order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is for another chain than its purpose.
    #[error("the transaction is for another chain than its purpose")]
    WrongChain,
    /// It does something that the vault does not know, or says it in an unusual way.
    #[error("the transaction is not a plain token or coin transfer: {0}")]
    Unreadable(&'static str),
    /// It spends from another account than the wallet's.
    #[error("the transaction spends from another account than the wallet's")]
    WrongOwner,
    /// It could burn more than the purpose allows.
    #[error("the transaction's fee may reach {fee}, but {fee_max} is allowed")]
    FeeTooHigh {
        /// The most that it could burn, in wei or sun.
        fee: u128,
        /// The most that it may burn.
        fee_max: u128,
    },
    /// It moves tokens where coins are meant, or coins where tokens are.
    #[error("the transaction moves tokens where its purpose is coins, or the reverse")]
    WrongAction,
    /// It moves another token.
    #[error("the transaction moves another token than its purpose")]
    WrongToken,
    /// The destination of the sweep was not sealed by this vault for the wallet's network.
    #[error("the destination was not sealed here for the wallet's network")]
    DestinationNotSealed,
    /// The wallet to fund is not ours, or not on the same network.
    #[error("the wallet to fund has no valid tag on this network")]
    NotOurs,
    /// It pays another address than its purpose.
    #[error("the transaction pays another address than its purpose")]
    WrongDestination,
    /// It moves more than its purpose allows.
    #[error("the transaction moves more than its purpose allows")]
    AmountTooHigh,
    /// The wallet's key does not open, or is another's.
    #[error(transparent)]
    Key(#[from] VerifyError),
}

/// What a transaction does, read from the bytes that will be signed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) moves: Moves,
    /// The most it can burn: wei or sun.
    pub(crate) fee: u128,
}

/// What a transaction moves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Moves {
    /// Base units of a token, as a big-endian number.
    Tokens { token: [u8; 20], to: [u8; 20], amount: [u8; 32] },
    /// Wei or sun.
    Coins { to: [u8; 20], amount: u128 },
}

impl Vault {
    /// Signs `transaction` with the key of `wallet`, if `purpose` allows all that it does.
    ///
    /// The same transaction gives the same bytes each time, so a crash before they were stored
    /// makes no second transaction (I12). Async, so that the vault can move to another process;
    /// here it does not wait for anything.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies. The key is opened last, for an allowed transaction only.
    pub async fn sign(
        &self,
        wallet: &Wallet<'_>,
        source: &KeySource<'_>,
        transaction: &UnsignedTransaction,
        purpose: &Purpose<'_>,
    ) -> Result<SignedTransaction, Refusal> {
        let reading = match (transaction, purpose.chain) {
            (UnsignedTransaction::Evm(evm), ChainId::Evm(id)) if evm.chain_id == id => evm.read()?,
            (UnsignedTransaction::Tron { raw_data }, ChainId::Tron) => tron::read(raw_data, wallet.address)?,
            _ => return Err(Refusal::WrongChain),
        };
        if reading.fee > purpose.fee_max {
            return Err(Refusal::FeeTooHigh { fee: reading.fee, fee_max: purpose.fee_max });
        }
        self.allow(wallet, &reading.moves, &purpose.action)?;
        let key = self.private_key(wallet, source)?;
        Ok(match transaction {
            UnsignedTransaction::Evm(evm) => evm.sign(&key),
            UnsignedTransaction::Tron { raw_data } => tron::sign(raw_data, &key),
        })
    }

    fn allow(&self, wallet: &Wallet<'_>, moves: &Moves, action: &Action<'_>) -> Result<(), Refusal> {
        match (action, moves) {
            (Action::Sweep { token: expected, destination, amount_max }, Moves::Tokens { token, to, amount }) => {
                if token != expected {
                    return Err(Refusal::WrongToken);
                }
                let home = self.open_destination(wallet.network, destination).ok_or(Refusal::DestinationNotSealed)?;
                if *to != home {
                    return Err(Refusal::WrongDestination);
                }
                if amount_max.is_some_and(|most| *amount > most) {
                    return Err(Refusal::AmountTooHigh);
                }
                Ok(())
            }
            (Action::FundFee { to: ours, tag, amount_max }, Moves::Coins { to, amount }) => {
                if ours.network != wallet.network || !self.verify_tag(ours, tag) {
                    return Err(Refusal::NotOurs);
                }
                if to != ours.address {
                    return Err(Refusal::WrongDestination);
                }
                if amount > amount_max {
                    return Err(Refusal::AmountTooHigh);
                }
                Ok(())
            }
            (Action::Sweep { .. }, Moves::Coins { .. }) | (Action::FundFee { .. }, Moves::Tokens { .. }) => Err(Refusal::WrongAction),
        }
    }

    /// Seals an address as a destination of sweeps on `network`. To be asked only by a person who
    /// has proven who they are: what is sealed here stays valid as long as the master key does.
    #[must_use]
    pub fn seal_destination(&self, network: &str, address: &[u8; 20]) -> SealedDestination {
        let mac = self.destinations.mac(&framed(&[network.as_bytes(), address]));
        let (address, mac) = (hex::encode(address), hex::encode(mac));
        SealedDestination(format!("{VERSION}.{}.{address}.{mac}", self.key_id))
    }

    /// The address in a sealed destination, or `None` unless this vault sealed it for `network`.
    #[must_use]
    pub fn open_destination(&self, network: &str, destination: &SealedDestination) -> Option<[u8; 20]> {
        let (_, body) = split(&destination.0)?;
        let (address, _) = body.split_once('.')?;
        let address = hex::decode_to_array(address).ok()?;
        let expected = self.seal_destination(network, &address);
        same(expected.as_str(), destination.as_str()).then_some(address)
    }
}

/// The selector of `transfer(address,uint256)`.
const TRANSFER: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];

/// Reads the call `transfer(to, amount)`: exactly 68 bytes, and the 12 bytes before the address
/// zero. Wallets that put TRON's `41` there get away with it, but two readings of one call are one
/// too many.
pub(crate) fn read_transfer(call: &[u8]) -> Option<([u8; 20], [u8; 32])> {
    let words = call.strip_prefix(&TRANSFER)?;
    let (padding, words) = words.split_first_chunk::<12>()?;
    let (to, amount) = words.split_first_chunk::<20>()?;
    let amount = <[u8; 32]>::try_from(amount).ok()?;
    (*padding == [0; 12]).then_some((*to, amount))
}
