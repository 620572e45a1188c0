//! Transactions of EVM chains: reading what they do, and their signed form.

use sha3::{Digest, Keccak256};

use crate::sign::{Moves, Reading, Refusal, SignedTransaction, read_transfer};
use crate::wallet::PrivateKey;

/// A transaction for an EVM chain. It creates no contract and has no access list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvmTransaction {
    /// The EIP-155 id of the chain.
    pub chain_id: u64,
    /// How many transactions the wallet has sent before.
    pub nonce: u64,
    /// The account or contract that is called.
    pub to: [u8; 20],
    /// Wei sent along.
    pub value: u128,
    /// The most gas that it may use.
    pub gas_limit: u64,
    /// What a unit of gas costs.
    pub fees: Fees,
    /// The call, or nothing.
    pub data: Vec<u8>,
}

/// What a unit of gas costs, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fees {
    /// A type 2 transaction.
    Eip1559 {
        /// The most for base fee and tip together.
        max_fee_per_gas: u128,
        /// The most for the tip.
        max_priority_fee_per_gas: u128,
    },
    /// A type 0 transaction, with EIP-155 protection.
    Legacy {
        /// The price.
        gas_price: u128,
    },
}

/// The first byte of a type 2 transaction.
const EIP1559: u8 = 2;

impl EvmTransaction {
    /// What it does.
    pub(crate) fn read(&self) -> Result<Reading, Refusal> {
        let price = match self.fees {
            Fees::Eip1559 { max_fee_per_gas, .. } => max_fee_per_gas,
            Fees::Legacy { gas_price } => gas_price,
        };
        let fee = u128::from(self.gas_limit).checked_mul(price).ok_or(Refusal::Unreadable("its fee is beyond all measure"))?;
        let moves = if self.data.is_empty() {
            Moves::Coins { to: self.to, amount: self.value }
        } else if self.value != 0 {
            return Err(Refusal::Unreadable("it calls a contract and sends coins along"));
        } else {
            let (to, amount) = read_transfer(&self.data).ok_or(Refusal::Unreadable("its call is not transfer(address,uint256)"))?;
            Moves::Tokens { token: self.to, to, amount }
        };
        Ok(Reading { moves, fee })
    }

    /// Signs it, whatever it does.
    pub(crate) fn sign(&self, key: &PrivateKey) -> SignedTransaction {
        let raw = match self.fees {
            Fees::Eip1559 { .. } => {
                let signature = key.sign(&keccak(&self.typed(&self.fields())));
                let mut fields = self.fields();
                fields.number(&[signature.parity]);
                fields.number(&signature.r);
                fields.number(&signature.s);
                self.typed(&fields)
            }
            Fees::Legacy { .. } => {
                let chain_id = u128::from(self.chain_id);
                let mut unsigned = self.fields();
                unsigned.number(&chain_id.to_be_bytes());
                unsigned.number(&[]);
                unsigned.number(&[]);
                let signature = key.sign(&keccak(&unsigned.list()));
                // EIP-155: v = 2 × chain id + 35 + parity.
                let v = chain_id.saturating_mul(2).saturating_add(35 + u128::from(signature.parity));
                let mut fields = self.fields();
                fields.number(&v.to_be_bytes());
                fields.number(&signature.r);
                fields.number(&signature.s);
                fields.list()
            }
        };
        SignedTransaction { hash: keccak(&raw), raw }
    }

    /// The fields that are signed, up to where the two types end differently.
    fn fields(&self) -> Rlp {
        let mut fields = Rlp::default();
        match self.fees {
            Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
                fields.number(&self.chain_id.to_be_bytes());
                fields.number(&self.nonce.to_be_bytes());
                fields.number(&max_priority_fee_per_gas.to_be_bytes());
                fields.number(&max_fee_per_gas.to_be_bytes());
            }
            Fees::Legacy { gas_price } => {
                fields.number(&self.nonce.to_be_bytes());
                fields.number(&gas_price.to_be_bytes());
            }
        }
        fields.number(&self.gas_limit.to_be_bytes());
        fields.bytes(&self.to);
        fields.number(&self.value.to_be_bytes());
        fields.bytes(&self.data);
        if let Fees::Eip1559 { .. } = self.fees {
            fields.empty_list();
        }
        fields
    }

    fn typed(&self, fields: &Rlp) -> Vec<u8> {
        [&[EIP1559], fields.list().as_slice()].concat()
    }
}

fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// The items of an RLP list, encoded one after another.
#[derive(Default)]
struct Rlp(Vec<u8>);

impl Rlp {
    /// Adds a text of bytes. One byte below 128 stands for itself.
    fn bytes(&mut self, bytes: &[u8]) {
        if !matches!(bytes, [0..=0x7f]) {
            header(&mut self.0, 0x80, bytes.len());
        }
        self.0.extend_from_slice(bytes);
    }

    /// Adds a big-endian number: its bytes from the first that is not zero.
    fn number(&mut self, bytes: &[u8]) {
        self.bytes(without_leading_zeros(bytes));
    }

    fn empty_list(&mut self) {
        header(&mut self.0, 0xc0, 0);
    }

    /// The whole list.
    fn list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        header(&mut list, 0xc0, self.0.len());
        list.extend_from_slice(&self.0);
        list
    }
}

/// What stands before `length` bytes of the kind `base`: one byte up to 55, above that the length
/// of the length and the length.
fn header(out: &mut Vec<u8>, base: u8, length: usize) {
    match u8::try_from(length) {
        Ok(short @ 0..=55) => out.push(base | short),
        _ => {
            let length = length.to_be_bytes();
            let length = without_leading_zeros(&length);
            out.push(base.saturating_add(55).saturating_add(length.len() as u8));
            out.extend_from_slice(length);
        }
    }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}
