//! `wallet/getblock` in the first line, `gettransactioninfobyblocknum` in the rest: each `Transfer`
//! log of a successful transaction is a transfer, is kept, or moved nothing. None is lost, and no
//! failed transaction pays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate_chain::tron::{format_address, parse_header, parse_infos};
use tidegate_fuzz::{USDT_TRON, check_block, count, two};

fuzz_target!(|data: &[u8]| {
    let Some((header, infos)) = two(data) else { return };
    let Ok(Some(header)) = parse_header(header) else { return };
    let Ok(block) = parse_infos(infos, &header, &USDT_TRON) else { return };
    assert_eq!(block.at, header.at);
    check_block(&block);

    // Half a surrogate in a text that is passed over is none of ours.
    let Ok(infos) = serde_json::from_slice::<Vec<Value>>(infos) else { return };
    assert_eq!(infos.is_empty(), header.is_empty, "silence was taken for emptiness");
    let (hex, base58) = (hex::encode(USDT_TRON.0), format_address(&USDT_TRON));
    let is_token = |log: &&Value| {
        let address = log["address"].as_str().unwrap_or("");
        address.eq_ignore_ascii_case(&hex) || address.eq_ignore_ascii_case(&format!("41{hex}")) || address == base58
    };
    let succeeded = infos.iter().filter(|info| info["receipt"]["result"] == "SUCCESS" && info["result"] != "FAILED");
    let logs: Vec<&Value> = succeeded.filter_map(|info| info["log"].as_array()).flatten().filter(is_token).collect();
    assert_eq!((block.transfers.len(), block.unreadable.len()), count(logs));
});
