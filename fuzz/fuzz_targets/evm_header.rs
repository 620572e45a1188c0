//! The results of `eth_getBlockByNumber`, `eth_chainId` and `eth_call`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_chain::evm::fuzzing::{bytes, header, quantity};

fuzz_target!(|text: &str| {
    if let Ok(Some(at)) = header(text) {
        let seconds = at.time.secs();
        assert!(seconds >= 0, "time before the epoch");
        let printed =
            format!(r#"{{"number":"{:#x}","hash":"0x{}","parentHash":"0x{}","timestamp":"{seconds:#x}"}}"#, at.number, at.hash, at.parent);
        assert_eq!(header(&printed), Ok(Some(at)));
    }
    if let Ok(number) = quantity(text) {
        assert_eq!(quantity(&format!("\"{number:#x}\"")), Ok(number));
        let text: String = serde_json::from_str(text).expect("it was read");
        let digits = text.strip_prefix("0x").expect("it was read");
        assert!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "no number of JSON-RPC: {text}");
    }
    if let Ok(read) = bytes(text) {
        assert_eq!(bytes(&format!("\"0x{}\"", hex::encode(&read))), Ok(read));
    }
});
