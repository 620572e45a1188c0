//! EVM transactions to be signed: what is signed does what its purpose says and nothing else, as a
//! second reader of its RLP sees it.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sha3::{Digest, Keccak256};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tidegate_fuzz::{VAULT, WALLET};
use tidegate_vault::{Action, ChainId, EvmTransaction, Fees, KeySource, Purpose, UnsignedTransaction, Wallet};

const TOKEN: [u8; 20] = [0xaa; 20];
const HOME: [u8; 20] = [0xbb; 20];

/// Mostly what is right, so that some transactions are allowed.
#[derive(Arbitrary, Debug)]
struct Input {
    chain_id: Option<u64>,
    nonce: u64,
    to: Party,
    value: u128,
    no_value: bool,
    gas_limit: u64,
    price: u128,
    tip: Option<u128>,
    call: Call,
    coins: bool,
    amount_max: u128,
    fee_max: u128,
}

#[derive(Arbitrary, Debug)]
enum Party {
    Token,
    Home,
    Ours,
    Other([u8; 20]),
}

impl Party {
    fn address(&self) -> [u8; 20] {
        match self {
            Self::Token => TOKEN,
            Self::Home => HOME,
            Self::Ours => WALLET.address,
            Self::Other(other) => *other,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Call {
    None,
    Transfer { to: Party, amount: u128, padding: Option<u8>, tail: Option<u8> },
    Other(Vec<u8>),
}

impl Call {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Transfer { to, amount, padding, tail } => {
                let mut call = vec![0xa9, 0x05, 0x9c, 0xbb];
                call.extend([padding.unwrap_or(0)]);
                call.extend([0; 11]);
                call.extend(to.address());
                call.extend([0; 16]);
                call.extend(amount.to_be_bytes());
                call.extend(*tail);
                call
            }
            Self::Other(bytes) => bytes.clone(),
        }
    }
}

fuzz_target!(|input: Input| {
    let chain_id = 1;
    let transaction = EvmTransaction {
        chain_id: input.chain_id.unwrap_or(chain_id),
        nonce: input.nonce,
        to: input.to.address(),
        value: if input.no_value { 0 } else { input.value },
        gas_limit: input.gas_limit,
        fees: match input.tip {
            Some(tip) => Fees::Eip1559 { max_fee_per_gas: input.price, max_priority_fee_per_gas: tip },
            None => Fees::Legacy { gas_price: input.price },
        },
        data: input.call.bytes(),
    };
    let destination = VAULT.seal_destination("net", &HOME);
    let mut amount_max = [0; 32];
    amount_max[16..].copy_from_slice(&input.amount_max.to_be_bytes());
    let wallet = Wallet { id: "wal_1", network: "net", address: &WALLET.address };
    let action = if input.coins {
        Action::FundFee { to: wallet, tag: &WALLET.tag, amount_max: input.amount_max }
    } else {
        Action::Sweep { token: TOKEN, destination: &destination, amount_max: Some(amount_max) }
    };
    let purpose = Purpose { chain: ChainId::Evm(chain_id), fee_max: input.fee_max, action };
    let source = KeySource::Sealed(WALLET.sealed.as_ref().expect("a key"));
    let unsigned = UnsignedTransaction::Evm(transaction.clone());
    let Ok(signed) = now(VAULT.sign(&wallet, &source, &unsigned, &purpose)) else { return };
    assert_eq!(now(VAULT.sign(&wallet, &source, &unsigned, &purpose)).as_ref(), Ok(&signed), "two signatures of one transaction");
    assert_eq!(signed.hash, <[u8; 32]>::from(Keccak256::digest(&signed.raw)));

    // What a node would read.
    let typed = signed.raw[0] == 2;
    let mut rest = if typed { &signed.raw[1..] } else { &signed.raw[..] };
    let (list, body) = item(&mut rest);
    assert!(list && rest.is_empty(), "not one list");
    let mut body = body;
    let mut fields = Vec::new();
    while !body.is_empty() {
        fields.push(item(&mut body));
    }
    let number = |at: usize| {
        let (list, bytes) = fields[at];
        assert!(!list && bytes.first() != Some(&0) && bytes.len() <= 32, "no canonical number in field {at}");
        bytes.iter().fold(0_u128, |number, byte| number.checked_mul(256).expect("it fits") + u128::from(*byte))
    };
    let first = if typed { 0 } else { 6 };
    let chain = if typed { number(first) } else { (number(6) - 35) / 2 };
    assert_eq!(chain, u128::from(chain_id), "another chain");
    let at = if typed { 1 } else { 0 };
    assert_eq!(number(at), u128::from(input.nonce));
    let price = number(if typed { 3 } else { 1 });
    let next = if typed { 4 } else { 2 };
    assert!(number(next).checked_mul(price).is_some_and(|fee| fee <= input.fee_max), "the fee is too high");
    let (to, value, data) = (fields[next + 1].1, number(next + 2), fields[next + 3].1);
    if input.coins {
        assert!(to == WALLET.address && value <= input.amount_max && data.is_empty(), "not a funding of fees");
    } else {
        assert!(to == TOKEN && value == 0 && data.len() == 68, "not a sweep");
        assert!(data[4..16] == [0; 12] && data[16..36] == HOME && data[36..] <= amount_max[..], "not home, or too much");
    }
    if typed {
        assert_eq!(fields[8], (true, &[][..]), "an access list");
    }
    assert_eq!(fields.len(), if typed { 12 } else { 9 });
});

/// The next item of an RLP list: whether it is a list, and what is in it.
fn item<'a>(bytes: &mut &'a [u8]) -> (bool, &'a [u8]) {
    let head = bytes[0];
    let (list, start, length) = match head {
        0..=0x7f => (false, 0, 1),
        0x80..=0xb7 => (false, 1, usize::from(head - 0x80)),
        0xb8..=0xbf => long(bytes, head - 0xb7, false),
        0xc0..=0xf7 => (true, 1, usize::from(head - 0xc0)),
        0xf8.. => long(bytes, head - 0xf7, true),
    };
    let item = &bytes[start..start + length];
    assert!(head < 0x80 || length != 1 || item[0] >= 0x80 || list, "a byte in a longer form");
    *bytes = &bytes[start + length..];
    (list, item)
}

fn long(bytes: &[u8], digits: u8, list: bool) -> (bool, usize, usize) {
    let digits = usize::from(digits);
    let length = bytes[1..=digits].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    assert!(length > 55 && bytes[1] != 0, "a length in a longer form");
    (list, 1 + digits, length)
}

/// The vault's futures wait for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("signing waits"),
    }
}
