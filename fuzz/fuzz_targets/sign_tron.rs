//! TRON transactions to be signed, as protobuf: a good one with changes, or any bytes. What is signed
//! does what its purpose says and nothing else, as a second reader of its fields sees it.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tidegate_fuzz::{VAULT, WALLET};
use tidegate_vault::{Action, ChainId, KeySource, Purpose, UnsignedTransaction, Wallet};

const TOKEN: [u8; 20] = [0xaa; 20];
const HOME: [u8; 20] = [0xbb; 20];
const FEE_MAX: u128 = 100_000_000;
const AMOUNT_MAX: u64 = 1_000_000_000;

#[derive(Arbitrary, Debug)]
struct Input {
    coins: bool,
    good: Option<(u64, u64)>,
    changes: Vec<(u16, Change)>,
    any: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Set(u8),
    Insert(Vec<u8>),
    Remove,
    Repeat(u8),
}

fn field(number: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, u64::from(number) << 3 | u64::from(kind));
    if kind == 2 {
        varint(&mut out, value.len() as u64);
    }
    out.extend_from_slice(value);
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, value);
    out
}

fn account(address: [u8; 20]) -> Vec<u8> {
    [&[0x41][..], &address].concat()
}

fn good(coins: bool, amount: u64, fee: u64) -> Vec<u8> {
    let owner = field(1, 2, &account(WALLET.address));
    let (kind, url, value) = if coins {
        (1, "TransferContract", [owner, field(2, 2, &account(WALLET.address)), field(3, 0, &number(amount))].concat())
    } else {
        let call = [&[0xa9, 0x05, 0x9c, 0xbb][..], &[0; 12], &HOME, &[0; 24], &amount.to_be_bytes()].concat();
        (31, "TriggerSmartContract", [owner, field(2, 2, &account(TOKEN)), field(4, 2, &call)].concat())
    };
    let url = format!("type.googleapis.com/protocol.{url}");
    let parameter = [field(1, 2, url.as_bytes()), field(2, 2, &value)].concat();
    let contract = [field(1, 0, &[kind]), field(2, 2, &parameter)].concat();
    let mut raw = [field(1, 2, &[1, 2]), field(4, 2, &[3; 8]), field(8, 0, &number(1_800_000_000_000)), field(11, 2, &contract)].concat();
    raw.extend(field(14, 0, &number(1_800_000_000_000)));
    if fee > 0 {
        raw.extend(field(18, 0, &number(fee)));
    }
    raw
}

fuzz_target!(|input: Input| {
    let mut raw_data = match input.good {
        Some((amount, fee)) => good(input.coins, amount >> 30, fee >> 36),
        None => input.any,
    };
    for (at, change) in input.changes.into_iter().take(4) {
        let at = usize::from(at) % raw_data.len().max(1);
        match change {
            Change::Set(byte) if at < raw_data.len() => raw_data[at] = byte,
            Change::Insert(bytes) => drop(raw_data.splice(at..at, bytes)),
            Change::Remove if at < raw_data.len() => drop(raw_data.remove(at)),
            Change::Repeat(length) => {
                let piece = raw_data[at..raw_data.len().min(at + usize::from(length))].to_vec();
                raw_data.extend(piece);
            }
            _ => {}
        }
    }
    let destination = VAULT.seal_destination("net", &HOME);
    let mut amount_max = [0; 32];
    amount_max[24..].copy_from_slice(&AMOUNT_MAX.to_be_bytes());
    let wallet = Wallet { id: "wal_1", network: "net", address: &WALLET.address };
    let action = if input.coins {
        Action::FundFee { to: wallet, tag: &WALLET.tag, amount_max: u128::from(AMOUNT_MAX) }
    } else {
        Action::Sweep { token: TOKEN, destination: &destination, amount_max: Some(amount_max) }
    };
    let purpose = Purpose { chain: ChainId::Tron, fee_max: FEE_MAX, action };
    let source = KeySource::Sealed(WALLET.sealed.as_ref().expect("a key"));
    let unsigned = UnsignedTransaction::Tron { raw_data: raw_data.clone() };
    let Ok(signed) = now(VAULT.sign(&wallet, &source, &unsigned, &purpose)) else { return };
    assert_eq!(now(VAULT.sign(&wallet, &source, &unsigned, &purpose)).as_ref(), Ok(&signed), "two signatures of one transaction");

    // What a node would read.
    let outer = fields(&signed.raw);
    assert_eq!(outer.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2], "not one transaction with one signature");
    assert_eq!((outer[0].1.bytes(), outer[1].1.bytes().len()), (&raw_data[..], 65));
    let raw = fields(&raw_data);
    assert!(raw.iter().all(|(number, _)| [1, 4, 8, 11, 14, 18].contains(number)), "a field that means something else");
    assert!(u128::from(one(&raw, 18).map_or(0, Value::number)) <= FEE_MAX, "the fee is too high");
    let contract = fields(one(&raw, 11).expect("a contract").bytes());
    assert!(contract.iter().all(|(number, _)| [1, 2].contains(number)), "a field that means something else");
    let parameter = fields(one(&contract, 2).expect("a parameter").bytes());
    let value = fields(one(&parameter, 2).expect("a value").bytes());
    let bytes = |number: u64| one(&value, number).map_or(&[][..], Value::bytes);
    let kind = one(&contract, 1).map_or(0, Value::number);
    assert_eq!(bytes(1), account(WALLET.address), "another owner");
    if input.coins {
        assert_eq!(kind, 1);
        assert!(value.iter().all(|(number, _)| [1, 2, 3].contains(number)));
        assert_eq!(bytes(2), account(WALLET.address));
        assert!(one(&value, 3).map_or(0, Value::number) <= AMOUNT_MAX, "too much");
    } else {
        assert_eq!(kind, 31);
        assert!(value.iter().all(|(number, _)| [1, 2, 4].contains(number)), "coins or a second token go along");
        assert_eq!(bytes(2), account(TOKEN));
        let call = bytes(4);
        assert!(call.len() == 68 && call[..16] == [&[0xa9, 0x05, 0x9c, 0xbb][..], &[0; 12]].concat() && call[16..36] == HOME);
        assert!(call[36..] <= amount_max[..], "too much");
    }
});

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => panic!("bytes where a number belongs"),
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => panic!("a number where bytes belong"),
        }
    }
}

/// The fields of a message in their order.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes);
        let value = match key & 7 {
            0 => Value::Number(read_varint(&mut bytes)),
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)).expect("a length");
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(value)
            }
            other => panic!("wire type {other} was signed"),
        };
        found.push((key >> 3, value));
    }
    found
}

/// The only value of a field; twice would be read in two ways.
fn one<'a>(fields: &[(u64, Value<'a>)], number: u64) -> Option<Value<'a>> {
    let mut all = fields.iter().filter(|(found, _)| *found == number).map(|(_, value)| *value);
    let value = all.next();
    assert!(all.next().is_none(), "field {number} was signed twice");
    value
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for at in 0..10 {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number without an end was signed")
}

/// The vault's futures wait for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("signing waits"),
    }
}
