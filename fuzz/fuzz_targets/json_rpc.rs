//! Answers of JSON-RPC: to one call, and to a batch of as many calls as the first byte says. What is
//! let through of a batch has one answer for each call, and each belongs to its call.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate_chain::evm::fuzzing::{batch, reply};

fuzz_target!(|data: &[u8]| {
    let Some((size, answer)) = data.split_first() else { return };
    let calls = usize::from(size % 8) + 1;
    if let Ok(Ok(result)) = reply(answer) {
        // Half a surrogate in a text that is passed over is none of ours.
        let Ok(whole) = serde_json::from_slice::<Value>(answer) else { return };
        assert_eq!(serde_json::from_str::<Value>(&result).ok(), whole.get("result").cloned());
    }
    let Ok(Some(told)) = batch(answer, calls) else { return };
    assert_eq!(told.len(), calls);
    let Ok(whole) = serde_json::from_slice::<Vec<Value>>(answer) else { return };
    for (id, result) in told.iter().enumerate() {
        let of_call: Vec<&Value> = whole.iter().filter(|one| one["id"] == id).collect();
        assert_eq!(of_call.len(), 1, "call {id} has {} answers", of_call.len());
        if let Some(result) = result {
            assert_eq!(serde_json::from_str::<Value>(result).ok().as_ref(), of_call[0].get("result"));
        }
    }
});
