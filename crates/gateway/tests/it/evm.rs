//! What a payer's wallet knows: the ABI of the calls we make, RLP, and how to sign a transaction.
//! Written anew here, so that the program is not checked with its own code.

use k256::ecdsa::{RecoveryId, Signature, SigningKey};
use sha3::{Digest, Keccak256};

/// A 20-byte address.
pub type Address = [u8; 20];

/// Reads `0x` and 40 hex digits, in any case.
pub fn address(text: &str) -> Address {
    let bytes = hex::decode(text).unwrap_or_else(|error| panic!("address {text:?}: {error}"));
    bytes.try_into().unwrap_or_else(|_| panic!("{text:?} is not an address"))
}

/// Lower-case text of an address.
pub fn text(address: Address) -> String {
    format!("0x{}", hex::encode(address))
}

pub fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// One argument of a call.
pub enum Arg<'a> {
    Address(Address),
    Uint(u128),
    Addresses(&'a [Address]),
    Uints(&'a [u128]),
}

/// Calldata: the selector of `signature`, then the arguments.
pub fn call(signature: &str, args: &[Arg<'_>]) -> Vec<u8> {
    let mut data = keccak(signature.as_bytes())[..4].to_vec();
    data.extend(arguments(args));
    data
}

/// Arguments alone, as behind a constructor's bytecode.
pub fn arguments(args: &[Arg<'_>]) -> Vec<u8> {
    let mut head = Vec::new();
    let mut tail = Vec::new();
    let offset = |tail: &[u8]| uint(u128::try_from(args.len() * 32 + tail.len()).unwrap());
    for arg in args {
        match arg {
            Arg::Address(address) => head.extend(word(*address)),
            Arg::Uint(value) => head.extend(uint(*value)),
            Arg::Addresses(list) => {
                head.extend(offset(&tail));
                tail.extend(uint(list.len() as u128));
                list.iter().for_each(|address| tail.extend(word(*address)));
            }
            Arg::Uints(list) => {
                head.extend(offset(&tail));
                tail.extend(uint(list.len() as u128));
                list.iter().for_each(|value| tail.extend(uint(*value)));
            }
        }
    }
    head.extend(tail);
    head
}

fn word(address: Address) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&address);
    word
}

fn uint(value: u128) -> [u8; 32] {
    let mut word = [0; 32];
    word[16..].copy_from_slice(&value.to_be_bytes());
    word
}

/// What an EIP-1559 transaction says.
pub struct Unsigned {
    pub chain_id: u64,
    pub nonce: u64,
    pub to: Address,
    pub data: Vec<u8>,
    pub gas: u64,
}

/// A payer with a private key of his own.
pub struct Payer {
    key: SigningKey,
}

impl Payer {
    pub fn new(private_key: &str) -> Self {
        Self { key: SigningKey::from_slice(&hex::decode(private_key).unwrap()).unwrap() }
    }

    pub fn address(&self) -> Address {
        let point = self.key.verifying_key().to_sec1_point(false);
        keccak(&point.as_bytes()[1..])[12..].try_into().unwrap()
    }

    /// The signed bytes for `eth_sendRawTransaction`.
    pub fn sign(&self, tx: &Unsigned) -> Vec<u8> {
        const GWEI: u64 = 1_000_000_000;
        let mut fields = vec![
            rlp_uint(tx.chain_id),
            rlp_uint(tx.nonce),
            rlp_uint(GWEI),
            rlp_uint(100 * GWEI),
            rlp_uint(tx.gas),
            rlp_bytes(&tx.to),
            rlp_uint(0),
            rlp_bytes(&tx.data),
            rlp_list(&[]),
        ];
        let digest = keccak(&typed(&fields));
        let (signature, parity): (Signature, RecoveryId) = self.key.sign_prehash_recoverable(&digest);
        let (r, s) = signature.split_bytes();
        fields.extend([rlp_uint(u64::from(parity.is_y_odd())), rlp_bytes(trim(&r)), rlp_bytes(trim(&s))]);
        typed(&fields)
    }
}

/// The envelope of EIP-2718 for a transaction of EIP-1559: type 2, then the fields.
fn typed(fields: &[Vec<u8>]) -> Vec<u8> {
    [vec![2], rlp_list(fields)].concat()
}

fn rlp_uint(value: u64) -> Vec<u8> {
    rlp_bytes(trim(&value.to_be_bytes()))
}

/// RLP writes integers without leading zeros.
fn trim(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

fn rlp_bytes(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [byte] if *byte < 0x80 => vec![*byte],
        _ => [rlp_length(0x80, bytes.len()), bytes.to_vec()].concat(),
    }
}

fn rlp_list(items: &[Vec<u8>]) -> Vec<u8> {
    let body = items.concat();
    [rlp_length(0xc0, body.len()), body].concat()
}

fn rlp_length(base: u8, length: usize) -> Vec<u8> {
    if length < 56 {
        return vec![base + u8::try_from(length).unwrap()];
    }
    let bytes = length.to_be_bytes();
    let digits = trim(&bytes);
    [vec![base + 55 + u8::try_from(digits.len()).unwrap()], digits.to_vec()].concat()
}

/// An amount in base units of a token with `decimals`, from a decimal text.
pub fn units(amount: &str, decimals: usize) -> u128 {
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    assert!(fraction.len() <= decimals, "{amount} is finer than {decimals} decimals");
    format!("{whole}{fraction:0<decimals$}").parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_become_base_units() {
        assert_eq!(units("12.5", 6), 12_500_000);
        assert_eq!(units("0.000001", 6), 1);
        assert_eq!(units("3", 18), 3_000_000_000_000_000_000);
    }

    #[test]
    fn rlp_is_that_of_the_yellow_paper() {
        assert_eq!(rlp_bytes(b"dog"), b"\x83dog");
        assert_eq!(rlp_list(&[rlp_bytes(b"cat"), rlp_bytes(b"dog")]), b"\xc8\x83cat\x83dog");
        assert_eq!(rlp_bytes(b""), b"\x80");
        assert_eq!(rlp_uint(0), b"\x80");
        assert_eq!(rlp_uint(15), b"\x0f");
        assert_eq!(rlp_uint(1024), b"\x82\x04\x00");
        let long = b"Lorem ipsum dolor sit amet, consectetur adipisicing elit";
        assert_eq!(rlp_bytes(long)[..2], [0xb8, 0x38]);
    }

    #[test]
    fn a_key_has_the_address_everybody_knows() {
        assert_eq!(text(Payer::new(crate::anvil::PAYER_KEY).address()), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    }
}
