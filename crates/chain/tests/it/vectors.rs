//! Addresses against published vectors.

use serde_json::Value;
use tidegate_chain::{evm, tron};
use tidegate_rules::block::Address;

fn data(name: &str) -> Value {
    let path = format!("{}/tests/data/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn tron_hex(text: &str) -> Address {
    Address(hex::decode_to_array(text.strip_prefix("41").unwrap()).unwrap())
}

#[test]
fn tron_addresses_are_read_strictly_and_written_back() {
    let vectors = data("tron_address_validation_strict.json");
    for valid in items(&vectors["valid"]) {
        let address = tron_hex(text(valid, "hex41"));
        assert_eq!(tron::parse_address(text(valid, "input")), Some(address), "{valid}");
        assert_eq!(tron::format_address(&address), text(valid, "input"));
    }
    for invalid in items(&vectors["invalid"]) {
        assert_eq!(tron::parse_address(text(invalid, "input")), None, "{invalid}");
    }
    let one_off = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6";
    for last in "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".chars().filter(|c| *c != 't') {
        assert_eq!(tron::parse_address(&format!("{one_off}{last}")), None);
    }
    assert_eq!(tron::parse_address(&"z".repeat(34)), None, "more than 25 bytes");
}

#[test]
fn an_address_is_the_same_twenty_bytes_on_both_kinds_of_chain() {
    for vector in items(&data("tron_hex_base58.json")["vectors"]) {
        let address = tron_hex(text(vector, "hex41"));
        assert_eq!(tron::format_address(&address), text(vector, "base58"));
        assert_eq!(evm::format_address(&address), text(vector, "evm"));
        assert_eq!(evm::parse_address(text(vector, "evm")), Some(address));
    }
    for vector in items(&data("key_to_address.json")["vectors"]) {
        let address = tron_hex(text(vector, "tron_hex"));
        assert_eq!(tron::parse_address(text(vector, "tron_base58")), Some(address));
        assert_eq!(evm::format_address(&address), text(vector, "evm_checksum"));
    }
}

#[test]
fn evm_addresses_have_one_case_or_the_right_mixture() {
    let vectors = data("eip55.json");
    for vector in items(&vectors["valid"]) {
        let (lower, mixed) = (text(vector, "lower"), text(vector, "checksum"));
        let address = evm::parse_address(lower).unwrap();
        assert_eq!(evm::format_address(&address), mixed);
        let upper = format!("0x{}", lower[2..].to_uppercase());
        assert_eq!(evm::parse_address(mixed), Some(address));
        assert_eq!(evm::parse_address(&upper), Some(address));
    }
    for vector in items(&vectors["other"]) {
        // Without 0x it could be a bare hash or a TRON hex form; ethers takes it, we do not.
        assert_eq!(evm::parse_address(text(vector, "input")), None, "{vector}");
    }
    for wrong in ["", "0x", "0x0x98f797a6af91ea770ab3a99d89c17a3a46d14c", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"] {
        assert_eq!(evm::parse_address(wrong), None, "{wrong}");
    }
}

proptest::proptest! {
    #[test]
    fn every_address_survives_being_written(bytes: [u8; 20]) {
        let address = Address(bytes);
        proptest::prop_assert_eq!(tron::parse_address(&tron::format_address(&address)), Some(address));
        proptest::prop_assert_eq!(evm::parse_address(&evm::format_address(&address)), Some(address));
    }
}
