//! A header in the first line, the result of `eth_getBlockReceipts` in the rest: the transfers of all
//! transactions that did not fail, all of the same block.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate_chain::evm::fuzzing::receipts;
use tidegate_fuzz::{USDT_EVM, check_block, count, is_address, two};

fuzz_target!(|text: &str| {
    let Some((header, answer)) = two(text.as_bytes()) else { return };
    let (Ok(header), Ok(answer)) = (str::from_utf8(header), str::from_utf8(answer)) else { return };
    let Ok(Some(block)) = receipts(header, answer, &USDT_EVM) else { return };
    check_block(&block);

    // Half a surrogate in a text that is passed over is none of ours.
    let (Ok(told), Ok(head)) = (serde_json::from_str::<Vec<Value>>(answer), serde_json::from_str::<Value>(header)) else { return };
    let transactions = head["transactions"].as_array().map(Vec::len);
    assert!(transactions.is_none_or(|transactions| transactions == told.len()), "receipts are missing");
    let token = hex::encode(USDT_EVM.0);
    let succeeded = told.iter().filter(|receipt| receipt["status"] != "0x0").filter_map(|receipt| receipt["logs"].as_array());
    let of_token = |log: &&Value| is_address(log["address"].as_str().unwrap_or(""), &token);
    assert_eq!((block.transfers.len(), block.unreadable.len()), count(succeeded.flatten().filter(of_token)));
});
