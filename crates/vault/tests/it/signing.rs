//! Signing: published vectors byte for byte, a table of refusals, and laws.

use proptest::prelude::*;
use serde_json::Value;
use tidegate_vault::{
    Action, ChainId, EvmTransaction, Fees, NewWallet, Purpose, Refusal, SealedDestination, SignedTransaction, UnsignedTransaction, Wallet,
};

use crate::{OTHER, Seeded, VAULT, address, key, text, vectors};

const EVM: &str = "evm";
const TRON: &str = "tron";

fn wallet<'a>(made: &'a NewWallet, network: &'a str) -> Wallet<'a> {
    Wallet { id: "w1", network, address: &made.address }
}

fn import(private_key: &str, network: &str) -> NewWallet {
    VAULT.import_wallet(private_key, "w1", network, &mut Seeded(1)).unwrap()
}

fn sign(made: &NewWallet, network: &str, transaction: &UnsignedTransaction, purpose: &Purpose<'_>) -> Result<SignedTransaction, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(VAULT.sign(&wallet(made, network), &key(made), transaction, purpose))
}

/// The address and the amount in the call `transfer(to, amount)`.
fn transfer_of(call: &[u8]) -> ([u8; 20], [u8; 32]) {
    (call[16..36].try_into().unwrap(), call[36..68].try_into().unwrap())
}

fn evm_transaction(vector: &Value) -> EvmTransaction {
    let number = |field: &str| match &vector["tx"][field] {
        Value::String(text) => text.parse::<u128>().unwrap(),
        number => u128::from(number.as_u64().unwrap()),
    };
    let fees = if number("type") == 2 {
        let max_priority_fee_per_gas = number("maxPriorityFeePerGas");
        Fees::Eip1559 { max_fee_per_gas: number("maxFeePerGas"), max_priority_fee_per_gas }
    } else {
        Fees::Legacy { gas_price: number("gasPrice") }
    };
    EvmTransaction {
        chain_id: number("chainId") as u64,
        nonce: number("nonce") as u64,
        to: address(&text(&vector["tx"], "to").to_lowercase()),
        value: number("value"),
        gas_limit: number("gasLimit") as u64,
        fees,
        data: hex::decode(text(&vector["tx"], "data")).unwrap(),
    }
}

#[test]
fn evm_vectors_are_signed_byte_for_byte() {
    for vector in vectors("evm_signed_tx.json") {
        let made = import(text(&vector, "private_key"), EVM);
        let evm = evm_transaction(&vector);
        let paid = evm.to;
        let ours = Wallet { id: "w2", network: EVM, address: &paid };
        let (tag, destination);
        let action = if evm.data.is_empty() {
            tag = VAULT.tag(&ours);
            Action::FundFee { to: ours, tag: &tag, amount_max: evm.value }
        } else {
            let (to, amount) = transfer_of(&evm.data);
            destination = VAULT.seal_destination(EVM, &to);
            Action::Sweep { token: evm.to, destination: &destination, amount_max: Some(amount) }
        };
        let chain = ChainId::Evm(evm.chain_id);
        let purpose = Purpose { chain, fee_max: 90_000 * 30_000_000_000, action };
        let signed = sign(&made, EVM, &UnsignedTransaction::Evm(evm.clone()), &purpose).unwrap();
        assert_eq!(hex::encode_prefixed(&signed.raw), text(&vector, "raw"));
        assert_eq!(hex::encode_prefixed(signed.hash), text(&vector, "hash"));

        // I12: a crash between signing and storing signs the same transaction again.
        let again = sign(&made, EVM, &UnsignedTransaction::Evm(evm), &purpose).unwrap();
        assert_eq!(again, signed);
    }
}

#[test]
fn tron_vectors_are_signed_byte_for_byte_or_refused() {
    let table = "
        trx_transfer_1sun                   signed
        trx_transfer_15TRX                  signed
        trx_transfer_max_i64                signed
        usdt_transfer_1                     signed
        usdt_transfer_0                     signed
        usdt_transfer_1sun                  signed
        usdt_transfer_u64max                signed
        usdt_transfer_u256max               signed
        usdt_transferFrom_5                 its call is not transfer(address,uint256)
        usdt_approve_max                    its call is not transfer(address,uint256)
        delegate_energy_100TRX              its contract is of another type
        delegate_bandwidth_10TRX            its contract is of another type
        delegate_energy_locked_1200blocks   its contract is of another type
        undelegate_energy_100TRX            its contract is of another type
        freezeV2_energy                     its contract is of another type
        create_account                      its contract is of another type
        trx_transfer_permission_2           it has fields that the vault does not know";
    let lines: Vec<_> = table.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let vectors = vectors("tron_offline_tx_sign.json");
    assert_eq!(lines.len(), vectors.len());

    for (line, vector) in lines.into_iter().zip(vectors) {
        let (name, expected) = line.split_once(' ').unwrap();
        assert_eq!(text(&vector, "name"), name);
        let made = import(text(&vector, "private_key"), TRON);
        let paid = address("41dbd7c53729b3310e1843083000fa84abad996961");
        let ours = Wallet { id: "w2", network: TRON, address: &paid };
        let (tag, destination) = (VAULT.tag(&ours), VAULT.seal_destination(TRON, &paid));
        let action = if name.starts_with("usdt") {
            let token = address("41a614f803b6fd780986a42c78ec9c7f77e6ded13c");
            Action::Sweep { token, destination: &destination, amount_max: None }
        } else {
            Action::FundFee { to: ours, tag: &tag, amount_max: u128::MAX }
        };
        let purpose = Purpose { chain: ChainId::Tron, fee_max: 15_000_000_000, action };
        let raw_data = hex::decode(text(&vector, "raw_data_hex")).unwrap();
        match sign(&made, TRON, &UnsignedTransaction::Tron { raw_data }, &purpose) {
            Ok(signed) => {
                assert_eq!(expected.trim(), "signed", "{name}");
                assert_eq!(hex::encode(&signed.raw), text(&vector, "broadcasthex_transaction"));
                assert_eq!(hex::encode(signed.hash), text(&vector, "txID"));
            }
            Err(Refusal::Unreadable(why)) => assert_eq!(expected.trim(), why, "{name}"),
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

const KEY: &str = "7994d5c6fc7cc7ad39d9164f56962e6915c7532e133cd2f465b6e60f77fd6055";
const TOKEN: [u8; 20] = [0xaa; 20];
const HOME: [u8; 20] = [0xbb; 20];
const ELSEWHERE: [u8; 20] = [0xcc; 20];

fn call(to: &[u8; 20], amount: u8) -> Vec<u8> {
    let mut call = vec![0xa9, 0x05, 0x9c, 0xbb];
    call.extend([0; 12]);
    call.extend(to);
    call.extend([0; 31]);
    call.push(amount);
    call
}

/// A sweep of 100 base units, which costs at most 1,000 wei.
fn evm_sweep() -> EvmTransaction {
    EvmTransaction {
        chain_id: 1,
        nonce: 0,
        to: TOKEN,
        value: 0,
        gas_limit: 100,
        fees: Fees::Eip1559 { max_fee_per_gas: 10, max_priority_fee_per_gas: 1 },
        data: call(&HOME, 100),
    }
}

/// A gift of 100 wei for fees, which costs at most 1,000 wei.
fn evm_fund() -> EvmTransaction {
    EvmTransaction { to: HOME, value: 100, data: vec![], ..evm_sweep() }
}

fn amount(units: u8) -> [u8; 32] {
    let mut amount = [0; 32];
    amount[31] = units;
    amount
}

/// How the vault answers when `wallet w1` of network `evm` signs `evm` as a sweep of at most 100
/// units of [`TOKEN`] to `destination`, for at most 1,000 wei.
fn answer_to_sweep(evm: EvmTransaction, destination: &SealedDestination) -> String {
    let amount_max = Some(amount(100));
    let action = Action::Sweep { token: TOKEN, destination, amount_max };
    answer(evm, action)
}

/// As [`answer_to_sweep`], for a gift of at most 100 wei to `to`.
fn answer_to_fund(evm: EvmTransaction, to: Wallet<'_>, tag: &str) -> String {
    answer(evm, Action::FundFee { to, tag, amount_max: 100 })
}

fn answer(evm: EvmTransaction, action: Action<'_>) -> String {
    let purpose = Purpose { chain: ChainId::Evm(1), fee_max: 1_000, action };
    match sign(&import(KEY, EVM), EVM, &UnsignedTransaction::Evm(evm), &purpose) {
        Ok(_) => "signed".into(),
        Err(Refusal::Unreadable(why)) => why.into(),
        Err(refusal) => format!("{refusal:?}"),
    }
}

#[test]
fn a_sweep_is_a_transfer_of_the_token_to_the_sealed_destination() {
    let home = VAULT.seal_destination(EVM, &HOME);
    let check = |evm: EvmTransaction, expected: &str| {
        assert_eq!(answer_to_sweep(evm, &home), expected);
    };
    check(evm_sweep(), "signed");
    check(EvmTransaction { data: call(&HOME, 99), ..evm_sweep() }, "signed");
    check(EvmTransaction { fees: Fees::Legacy { gas_price: 10 }, ..evm_sweep() }, "signed");

    check(EvmTransaction { chain_id: 56, ..evm_sweep() }, "WrongChain");
    check(EvmTransaction { gas_limit: 101, ..evm_sweep() }, "FeeTooHigh { fee: 1010, fee_max: 1000 }");
    check(EvmTransaction { fees: Fees::Legacy { gas_price: 11 }, ..evm_sweep() }, "FeeTooHigh { fee: 1100, fee_max: 1000 }");
    check(EvmTransaction { fees: Fees::Legacy { gas_price: u128::MAX }, ..evm_sweep() }, "its fee is beyond all measure");
    check(EvmTransaction { value: 1, ..evm_sweep() }, "it calls a contract and sends coins along");
    check(evm_fund(), "WrongAction");
    check(EvmTransaction { to: ELSEWHERE, ..evm_sweep() }, "WrongToken");
    check(EvmTransaction { data: call(&ELSEWHERE, 100), ..evm_sweep() }, "WrongDestination");
    check(EvmTransaction { data: call(&HOME, 101), ..evm_sweep() }, "AmountTooHigh");

    let not_a_transfer = "its call is not transfer(address,uint256)";
    for at in 0..16 {
        let mut dirty = call(&HOME, 100);
        dirty[at] ^= 0x41;
        check(EvmTransaction { data: dirty, ..evm_sweep() }, not_a_transfer);
    }
    for length in 1..68 {
        let data = call(&HOME, 100)[..length].to_vec();
        check(EvmTransaction { data, ..evm_sweep() }, not_a_transfer);
    }
    let mut longer = call(&HOME, 100);
    longer.push(0);
    check(EvmTransaction { data: longer, ..evm_sweep() }, not_a_transfer);
}

#[test]
fn nobody_but_the_vault_seals_a_destination() {
    // Write access to the database alone: every text an attacker could put there.
    let honest = VAULT.seal_destination(EVM, &HOME);
    let (_, mac) = honest.as_str().rsplit_once('.').unwrap();
    let thief = hex::encode(ELSEWHERE);
    let to_thief = EvmTransaction { data: call(&ELSEWHERE, 100), ..evm_sweep() };
    for forged in [
        String::new(),
        thief.clone(),
        format!("v1.{}.{thief}.{mac}", VAULT.key_id()),
        format!("v1.{}.{thief}.", VAULT.key_id()),
        OTHER.seal_destination(EVM, &ELSEWHERE).as_str().to_owned(),
        VAULT.seal_destination(TRON, &ELSEWHERE).as_str().to_owned(),
        VAULT.tag(&Wallet { id: "w9", network: EVM, address: &ELSEWHERE }),
    ] {
        let forged = SealedDestination::from_text(forged);
        assert_eq!(answer_to_sweep(to_thief.clone(), &forged), "DestinationNotSealed");
    }
}

#[test]
fn fee_money_goes_to_a_tagged_wallet_only() {
    let ours = Wallet { id: "w2", network: EVM, address: &HOME };
    let tag = VAULT.tag(&ours);
    assert_eq!(answer_to_fund(evm_fund(), ours, &tag), "signed");

    let dear = EvmTransaction { value: 101, ..evm_fund() };
    assert_eq!(answer_to_fund(dear, ours, &tag), "AmountTooHigh");
    let stray = EvmTransaction { to: ELSEWHERE, ..evm_fund() };
    assert_eq!(answer_to_fund(stray.clone(), ours, &tag), "WrongDestination");
    assert_eq!(answer_to_fund(evm_sweep(), ours, &tag), "WrongAction");

    let thief = Wallet { address: &ELSEWHERE, ..ours };
    assert_eq!(answer_to_fund(stray, thief, &tag), "NotOurs");
    let elsewhere = Wallet { network: TRON, ..ours };
    assert_eq!(answer_to_fund(evm_fund(), elsewhere, &VAULT.tag(&elsewhere)), "NotOurs");
    assert_eq!(answer_to_fund(evm_fund(), ours, &OTHER.tag(&ours)), "NotOurs");
    assert_eq!(answer_to_fund(evm_fund(), ours, ""), "NotOurs");
}

#[test]
fn a_key_signs_for_its_own_wallet_only() {
    let (made, other) = (import(KEY, EVM), VAULT.generate_wallet("w1", EVM, &mut Seeded(9)));
    let swapped = NewWallet { sealed: other.sealed, ..made };
    let home = VAULT.seal_destination(EVM, &HOME);
    let action = Action::Sweep { token: TOKEN, destination: &home, amount_max: None };
    let purpose = Purpose { chain: ChainId::Evm(1), fee_max: 1_000, action };
    let answer = sign(&swapped, EVM, &UnsignedTransaction::Evm(evm_sweep()), &purpose);
    assert!(matches!(answer, Err(Refusal::Key(_))), "{answer:?}");
}

/// A real sweep of TRON's USDT (`usdt_transfer_1`), as raw data.
fn tron_sweep() -> (NewWallet, Vec<u8>) {
    let vector = vectors("tron_offline_tx_sign.json").swap_remove(3);
    let made = import(text(&vector, "private_key"), TRON);
    (made, hex::decode(text(&vector, "raw_data_hex")).unwrap())
}

/// How the vault answers when `made` signs `raw_data` as a sweep of USDT at most 30 TRX dear.
fn answer_to_tron_sweep(made: &NewWallet, raw_data: &[u8], chain: ChainId) -> String {
    let paid = address("41dbd7c53729b3310e1843083000fa84abad996961");
    let token = address("41a614f803b6fd780986a42c78ec9c7f77e6ded13c");
    let destination = VAULT.seal_destination(TRON, &paid);
    let action = Action::Sweep { token, destination: &destination, amount_max: None };
    let purpose = Purpose { chain, fee_max: 30_000_000, action };
    let transaction = UnsignedTransaction::Tron { raw_data: raw_data.to_vec() };
    match sign(made, TRON, &transaction, &purpose) {
        Ok(_) => "signed".into(),
        Err(Refusal::Unreadable(why)) => why.into(),
        Err(refusal) => format!("{refusal:?}"),
    }
}

#[test]
fn a_tron_sweep_is_read_from_its_bytes() {
    let (made, raw) = tron_sweep();
    let check = |raw: &[u8], expected: &str| {
        assert_eq!(answer_to_tron_sweep(&made, raw, ChainId::Tron), expected);
    };
    /// Replaces the one place where `from` stands; both are hex of the same length.
    fn with(raw: &[u8], from: &str, to: &str) -> Vec<u8> {
        let text = hex::encode(raw);
        assert_eq!(text.matches(from).count(), 1, "{from}");
        hex::decode(text.replace(from, to)).unwrap()
    }
    let unknown = "it has fields that the vault does not know";
    check(&raw, "signed");
    assert_eq!(answer_to_tron_sweep(&made, &raw, ChainId::Evm(1)), "WrongChain");

    let dear = with(&raw, "90018087a70e", "90018187a70e");
    check(&dear, "FeeTooHigh { fee: 30000001, fee_max: 30000000 }");
    let negative = with(&raw, "90018087a70e", "9001ffffffffffffffffff01");
    check(&negative, "an amount is negative");
    let thief = with(&raw, "dbd7c53729b3310e1843083000fa84abad996961", &"cc".repeat(20));
    check(&thief, "WrongDestination");
    let token = with(&raw, "41a614f803b6fd780986a42c78ec9c7f77e6ded13c", &format!("41{}", "cc".repeat(20)));
    check(&token, "WrongToken");
    let owner = with(&raw, "415cd0fb0ab3ce40f3051414c604b27756e69e43db", &format!("41{}", "cc".repeat(20)));
    check(&owner, "WrongOwner");
    let prefix = with(&raw, "415cd0fb0ab3ce40f3", "a05cd0fb0ab3ce40f3");
    check(&prefix, "an address is not 41 and twenty bytes");
    let junk = with(&raw, "000000dbd7c53729b3", "000041dbd7c53729b3");
    check(&junk, "its call is not transfer(address,uint256)");

    // The same contract twice: the node would run it once, the vault not at all.
    let contract = hex::encode(&raw)[42..].split_once("70f8efe8").unwrap().0.to_owned();
    let twice = with(&raw, "70f8efe8fded31", &format!("{contract}70f8efe8fded31"));
    check(&twice, "it is not exactly one contract");
    let memo = with(&raw, "40d8c4ecfded31", "40d8c4ecfded31520161");
    check(&memo, unknown);
    let out_of_order = with(&raw, "70f8efe8fded3190018087a70e", "90018087a70e70f8efe8fded31");
    check(&out_of_order, unknown);
    let long_varint = with(&raw, "90018087a70e", "90018087a78e00");
    check(&long_varint, unknown);
    let default_written = with(&raw, "0a0249c1", "0a0249c11800");
    check(&default_written, unknown);
    check(&[], "it is not exactly one contract");
    check(&raw[..raw.len() - 1], unknown);
    check(&[raw.as_slice(), &[0]].concat(), unknown);
}

#[test]
fn no_flipped_byte_takes_a_tron_sweep_elsewhere() {
    let (made, raw) = tron_sweep();
    let at = |what: &str| hex::encode(&raw).find(what).unwrap() / 2;
    let (ref_block, ref_hash) = (at("49c1"), at("05c2475bc7540db7"));
    let (expiration, timestamp) = (at("40d8c4ecfded31") + 1, at("70f8efe8fded31") + 1);
    let (amount, fee) = (at("70f8efe8fded31") - 32, at("90018087a70e") + 2);
    let free = [
        ref_block..ref_block + 2,
        ref_hash..ref_hash + 8,
        expiration..expiration + 6,
        timestamp..timestamp + 6,
        amount..amount + 32,
        fee..fee + 4,
    ];
    for flipped in 0..raw.len() {
        for mask in [0x01, 0x10, 0x80] {
            let mut raw = raw.clone();
            raw[flipped] ^= mask;
            let signed = answer_to_tron_sweep(&made, &raw, ChainId::Tron) == "signed";
            let may_be = free.iter().any(|range| range.contains(&flipped));
            assert!(!signed || may_be, "byte {flipped} ^ {mask:02x} was signed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_evm_sweep_is_signed_exactly_when_it_is_one(
        to_home: bool,
        right_token: bool,
        right_chain: bool,
        units in 90u8..110,
        gas_limit in 0u64..200,
        gas_price in 0u128..20,
        value in 0u128..2,
    ) {
        let evm = EvmTransaction {
            chain_id: if right_chain { 1 } else { 56 },
            to: if right_token { TOKEN } else { ELSEWHERE },
            gas_limit,
            fees: Fees::Legacy { gas_price },
            value,
            data: call(if to_home { &HOME } else { &ELSEWHERE }, units),
            ..evm_sweep()
        };
        let allowed = to_home
            && right_token
            && right_chain
            && units <= 100
            && value == 0
            && u128::from(gas_limit) * gas_price <= 1_000;
        let answer = answer_to_sweep(evm, &VAULT.seal_destination(EVM, &HOME));
        prop_assert_eq!(answer == "signed", allowed, "{}", answer);
    }

    #[test]
    fn no_other_call_is_a_sweep(data: Vec<u8>) {
        let evm = EvmTransaction { data, ..evm_sweep() };
        prop_assert_ne!(answer_to_sweep(evm, &VAULT.seal_destination(EVM, &HOME)), "signed");
    }

    #[test]
    fn no_other_bytes_are_a_tron_sweep(raw_data: Vec<u8>) {
        let (made, _) = tron_sweep();
        prop_assert_ne!(answer_to_tron_sweep(&made, &raw_data, ChainId::Tron), "signed");
    }
}
