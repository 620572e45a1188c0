//! `wallet/getblock`: a header that is let through proves its own number, and reads the same again
//! when its fields are written as a node would.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_chain::tron::parse_header;

fuzz_target!(|data: &[u8]| {
    let Ok(Some(header)) = parse_header(data) else { return };
    let at = header.at;
    assert_eq!(at.hash.0[..8], at.number.to_be_bytes(), "an id of another block");
    let trie = if header.is_empty { "0".repeat(64) } else { "1".repeat(64) };
    // `witness_address` is left out, so the id is not recomputed.
    let printed = format!(
        r#"{{"blockID":"{}","block_header":{{"raw_data":{{"number":{},"timestamp":{},"parentHash":"{}","txTrieRoot":"{trie}","unknown":1}}}}}}"#,
        at.hash,
        at.number,
        at.time.millis(),
        at.parent
    );
    assert_eq!(parse_header(printed.as_bytes()).ok().flatten(), Some(header));
});
