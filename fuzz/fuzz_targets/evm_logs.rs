//! The headers of consecutive blocks as a JSON array in the first line, the result of `eth_getLogs`
//! in the rest: every log of the token that is let through is of one of the headers, and each is a
//! transfer, is kept, or moved nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use tidegate_chain::evm::fuzzing::blocks;
use tidegate_fuzz::{USDT_EVM, bare, check_block, count, is_address, two};

fuzz_target!(|data: &[u8]| {
    let Some((headers, logs)) = two(data) else { return };
    let (Ok(headers), Ok(logs)) = (serde_json::from_slice::<Vec<&RawValue>>(headers), str::from_utf8(logs)) else { return };
    let headers: Vec<&str> = headers.iter().take(16).map(|header| header.get()).collect();
    let Ok(Some(blocks)) = blocks(&headers, logs, &USDT_EVM) else { return };
    assert_eq!(blocks.len(), headers.len());
    blocks.iter().for_each(check_block);

    // Half a surrogate in a text that is passed over is none of ours.
    let Ok(logs) = serde_json::from_str::<Vec<Value>>(logs) else { return };
    let token = hex::encode(USDT_EVM.0);
    for block in &blocks {
        let here = |log: &&Value| {
            is_address(log["address"].as_str().unwrap_or(""), &token)
                && bare(log["blockHash"].as_str().unwrap_or("")).eq_ignore_ascii_case(&block.at.hash.to_string())
        };
        let logs: Vec<&Value> = logs.iter().filter(here).collect();
        assert!(!logs.iter().any(|log| log["removed"] == true && count([*log]) != (0, 0)), "a removed log was taken");
        assert_eq!((block.transfers.len(), block.unreadable.len()), count(logs), "block {}", block.at.number);
    }
});
