//! Addresses as people write them: what is read is written again, and EIP-55's and base58check's
//! forms are the only ones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_chain::{evm, tron};
use tidegate_rules::block::Address;

fuzz_target!(|data: &[u8]| {
    if let Some(bytes) = data.first_chunk::<20>() {
        let address = Address(*bytes);
        let (evm, tron) = (evm::format_address(&address), tron::format_address(&address));
        assert_eq!(evm::parse_address(&evm), Some(address));
        assert_eq!(evm::parse_address(&evm.to_lowercase()), Some(address));
        assert_eq!(tron::parse_address(&tron), Some(address));
        assert_eq!((evm::parse_address(&tron), tron::parse_address(&evm)), (None, None), "one chain's form is another's");
        // The rest is a typing error: where, and what.
        if let [at, typed, ..] = data[20..] {
            let typo = |text: &str| {
                let mut text = text.as_bytes().to_vec();
                let at = usize::from(at) % text.len();
                text[at] = typed & 0x7f;
                String::from_utf8(text).expect("ASCII")
            };
            let mistyped = typo(&tron);
            assert_eq!(tron::parse_address(&mistyped).is_some(), mistyped == tron, "{mistyped} has a right checksum");
        }
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Some(address) = tron::parse_address(text) {
        assert_eq!(tron::format_address(&address), text);
    }
    if let Some(address) = evm::parse_address(text) {
        let written = evm::format_address(&address);
        let one_case = text[2..] == written[2..].to_lowercase() || text[2..] == written[2..].to_uppercase();
        assert!(text == written || one_case, "{text} is not the checksum's mixture");
    }
});
