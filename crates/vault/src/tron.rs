//! Transactions of TRON: reading what they do, and their signed form.
//!
//! A TRON transaction is made elsewhere and comes as protobuf. The messages below have the fields
//! that a plain transfer needs, and no others. Whatever is read is encoded again and must give the
//! same bytes: a field that is not known here (a memo, a permission, a second token) would be lost
//! on the way, and so nothing unread is ever signed.

use prost::Message;
use sha2::{Digest, Sha256};

use crate::sign::{Moves, Reading, Refusal, SignedTransaction, read_transfer};
use crate::wallet::PrivateKey;

/// `protocol.Transaction.raw`.
#[derive(Clone, PartialEq, Message)]
struct Raw {
    #[prost(bytes = "vec", tag = "1")]
    ref_block_bytes: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    ref_block_hash: Vec<u8>,
    #[prost(int64, tag = "8")]
    expiration_ms: i64,
    #[prost(message, repeated, tag = "11")]
    contracts: Vec<Contract>,
    #[prost(int64, tag = "14")]
    timestamp_ms: i64,
    #[prost(int64, tag = "18")]
    fee_limit_sun: i64,
}

/// `protocol.Transaction.Contract`.
#[derive(Clone, PartialEq, Message)]
struct Contract {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    parameter: Option<Parameter>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `protocol.TransferContract`: coins.
#[derive(Clone, PartialEq, Message)]
struct Transfer {
    #[prost(bytes = "vec", tag = "1")]
    owner: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    to: Vec<u8>,
    #[prost(int64, tag = "3")]
    amount_sun: i64,
}

/// `protocol.TriggerSmartContract`: a call that sends nothing along.
#[derive(Clone, PartialEq, Message)]
struct Trigger {
    #[prost(bytes = "vec", tag = "1")]
    owner: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    contract: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    call: Vec<u8>,
}

/// `protocol.Transaction`.
#[derive(Clone, PartialEq, Message)]
struct Transaction {
    #[prost(bytes = "vec", tag = "1")]
    raw_data: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    signatures: Vec<Vec<u8>>,
}

const TRANSFER: (i32, &str) = (1, "type.googleapis.com/protocol.TransferContract");
const TRIGGER: (i32, &str) = (31, "type.googleapis.com/protocol.TriggerSmartContract");

/// The byte that TRON puts before an address.
const ADDRESS_PREFIX: u8 = 0x41;

/// What `raw_data` does, if it spends from `owner`.
pub(crate) fn read(raw_data: &[u8], owner: &[u8; 20]) -> Result<Reading, Refusal> {
    let raw: Raw = decode(raw_data)?;
    let [Contract { kind, parameter: Some(Parameter { type_url, value }) }] = raw.contracts.as_slice() else {
        return Err(Refusal::Unreadable("it is not exactly one contract"));
    };
    let (spender, moves) = match (*kind, type_url.as_str()) {
        TRANSFER => {
            let transfer: Transfer = decode(value)?;
            let amount = sun(transfer.amount_sun)?;
            (transfer.owner, Moves::Coins { to: account(&transfer.to)?, amount })
        }
        TRIGGER => {
            let trigger: Trigger = decode(value)?;
            let (to, amount) = read_transfer(&trigger.call).ok_or(Refusal::Unreadable("its call is not transfer(address,uint256)"))?;
            let token = account(&trigger.contract)?;
            (trigger.owner, Moves::Tokens { token, to, amount })
        }
        _ => return Err(Refusal::Unreadable("its contract is of another type")),
    };
    if account(&spender)? != *owner {
        return Err(Refusal::WrongOwner);
    }
    Ok(Reading { moves, fee: sun(raw.fee_limit_sun)? })
}

/// Signs `raw_data`, whatever it does.
pub(crate) fn sign(raw_data: &[u8], key: &PrivateKey) -> SignedTransaction {
    let hash = Sha256::digest(raw_data).into();
    let signature = key.sign(&hash);
    // Nodes take 0 and 27 for the same parity; 27 is what TronWeb writes.
    let v = signature.parity.saturating_add(27);
    let signature = [signature.r.as_slice(), &signature.s, &[v]].concat();
    let signed = Transaction { raw_data: raw_data.to_vec(), signatures: vec![signature] };
    SignedTransaction { raw: signed.encode_to_vec(), hash }
}

/// Reads a message that says nothing but what its type knows, in the one canonical way.
fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Refusal> {
    M::decode(bytes)
        .ok()
        .filter(|message| message.encode_to_vec() == bytes)
        .ok_or(Refusal::Unreadable("it has fields that the vault does not know"))
}

fn account(bytes: &[u8]) -> Result<[u8; 20], Refusal> {
    bytes
        .strip_prefix(&[ADDRESS_PREFIX])
        .and_then(|address| address.try_into().ok())
        .ok_or(Refusal::Unreadable("an address is not 41 and twenty bytes"))
}

fn sun(amount: i64) -> Result<u128, Refusal> {
    u128::try_from(amount).map_err(|_| Refusal::Unreadable("an amount is negative"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors(file: &str) -> Vec<Value> {
        let mut file: Value = serde_json::from_str(file).unwrap();
        serde_json::from_value(file["vectors"].take()).unwrap()
    }

    fn bytes(vector: &Value, field: &str) -> Vec<u8> {
        hex::decode(vector[field].as_str().unwrap()).unwrap()
    }

    /// What [`read`] says of a vector: `tokens`, `coins`, or why it cannot be read.
    fn reading(raw_data: &[u8], owner: &[u8; 20]) -> String {
        match read(raw_data, owner) {
            Ok(Reading { moves: Moves::Tokens { .. }, .. }) => "tokens".into(),
            Ok(Reading { moves: Moves::Coins { .. }, .. }) => "coins".into(),
            Err(Refusal::Unreadable(why)) => why.into(),
            Err(refusal) => format!("{refusal:?}"),
        }
    }

    const UNKNOWN_FIELDS: &str = "it has fields that the vault does not know";

    #[test]
    fn every_published_signature_is_ours_too() {
        for vector in vectors(include_str!("../tests/vectors/tron_offline_tx_sign.json")) {
            let key = PrivateKey::parse(vector["private_key"].as_str().unwrap()).unwrap();
            let signed = sign(&bytes(&vector, "raw_data_hex"), &key);
            assert_eq!(signed.raw, bytes(&vector, "broadcasthex_transaction"));
            assert_eq!(signed.hash.as_slice(), bytes(&vector, "txID"));
        }
        for vector in vectors(include_str!("../tests/vectors/tron_sign_public_vectors.json")) {
            let raw_data = bytes(&vector, "raw_data_hex");
            assert_eq!(Sha256::digest(&raw_data).as_slice(), bytes(&vector, "txID"));
            let Some(key) = vector["private_key"].as_str() else { continue };
            let signed = sign(&raw_data, &PrivateKey::parse(key).unwrap());
            let mut expected = bytes(&vector, "signature");
            // These libraries write the parity as 0 and 1.
            expected[64] += 27;
            assert!(signed.raw.ends_with(&expected), "{}", vector["name"]);
        }
    }

    #[test]
    fn published_transactions_are_read_or_refused() {
        let expected = [
            ("TransferContract 2 TRX", "coins"),
            ("TransferTrc20", "its call is not transfer(address,uint256)"),
            ("TriggerSmartContract token", UNKNOWN_FIELDS),
            ("tronpy shasta TransferContract", UNKNOWN_FIELDS),
            ("tronpy offline TransferContract", "coins"),
            ("tronpy offline TRC20 transfer", "tokens"),
        ];
        let vectors = vectors(include_str!("../tests/vectors/tron_sign_public_vectors.json"));
        assert_eq!(vectors.len(), expected.len());
        for (vector, (name, expected)) in vectors.iter().zip(expected) {
            assert_eq!(vector["name"], name);
            let raw_data = bytes(vector, "raw_data_hex");
            // The owner is the first address in the only contract of all of these.
            let owner = raw_data.windows(3).position(|w| w == [0x0a, 0x15, 0x41]).unwrap() + 3;
            let owner = raw_data[owner..owner + 20].try_into().unwrap();
            assert_eq!(reading(&raw_data, &owner), expected, "{name}");
        }
    }

    /// The table was worked out by another program that walks the protobuf field by field.
    #[test]
    fn real_transactions_are_read_exactly_or_refused() {
        let table = "
            8a3c4782 1e4d8529 64c89e09 4b750022 421371a0 cf5f5d87               coins
            30257012 bc259120 699ea97e f7a0793e                                 tokens
            8f96aa13 661f1df8 cdbba71a cb7cb2f6 4e4bd0da 9dbf4757 0bfc3962 7df1e546 \
                its call is not transfer(address,uint256)
            9f0f4a9c f4b90147 a2dcece9 e875e49f 9be4d4f3 bc9848e5 38e81b45 666d7792 44d930c0 \
                e057f2ed fe7c8136                       its contract is of another type
            9958ecbf 828376da 10003c17 ba3a696b c9079e77 61a59d83 178e070a 438af015 23367ccd \
                239894ec efc0d19c                       it has fields that the vault does not know";
        let expected = |tx_id: &str| {
            let line = table.lines().find(|line| line.contains(&tx_id[..8])).unwrap().trim();
            let of_8 = |word: &&str| word.len() == 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
            line.split_whitespace().skip_while(of_8).collect::<Vec<_>>().join(" ")
        };
        let vectors = vectors(include_str!("../tests/vectors/tron_mainnet_tx_vectors.json"));
        assert_eq!(vectors.len(), 40);
        for vector in vectors {
            let raw_data = bytes(&vector, "raw_data_hex");
            assert_eq!(Sha256::digest(&raw_data).as_slice(), bytes(&vector, "txID"));
            let owner: [u8; 20] = bytes(&vector, "owner_hex")[1..].try_into().unwrap();
            let tx_id = vector["txID"].as_str().unwrap();
            assert_eq!(reading(&raw_data, &owner), expected(tx_id), "{tx_id}");

            let Ok(read_it) = read(&raw_data, &owner) else { continue };
            assert_eq!(read(&raw_data, &[1; 20]), Err(Refusal::WrongOwner));
            assert_eq!(read_it.fee, u128::from(vector["fee_limit"].as_u64().unwrap_or(0)));
            match read_it.moves {
                Moves::Coins { to, amount } => {
                    assert_eq!(to, bytes(&vector["value"], "to_address")[1..]);
                    assert_eq!(amount, u128::from(vector["value"]["amount"].as_u64().unwrap()));
                }
                Moves::Tokens { token, to, amount } => {
                    assert_eq!(token, bytes(&vector["value"], "contract_address")[1..]);
                    let call = bytes(&vector["value"], "data");
                    assert_eq!([to.as_slice(), &amount].concat(), call[16..]);
                }
            }
        }
    }
}
