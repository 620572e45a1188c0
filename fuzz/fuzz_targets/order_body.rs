//! The body of `POST /api/v1/orders`: what is taken is within its limits and is kept as it was sent,
//! and what is refused is refused briefly.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate::http::fuzzing::order_body;
use tidegate_rules::amount::Amount;

fuzz_target!(|data: &[u8]| {
    match order_body(data) {
        Ok(wish) => {
            let Ok(sent) = serde_json::from_slice::<Value>(data) else { return };
            assert!(!wish.amount.is_zero() && wish.amount <= Amount::MAX);
            assert_eq!(sent["amount"].as_str().and_then(|text| text.parse().ok()), Some(wish.amount));
            let details = wish.details;
            for (name, text) in
                [("user_id", &details.user_id), ("plan_id", &details.plan_id), ("merchant_order_id", &details.merchant_order_id)]
            {
                assert_eq!(sent[name].as_str(), text.as_deref(), "{name} is not what was sent");
                assert!(text.as_ref().is_none_or(|text| (1..=255).contains(&text.chars().count()) && !text.contains('\0')));
            }
            for url in [details.callback_url, details.redirect_url].into_iter().flatten() {
                assert!(url.starts_with("http://") || url.starts_with("https://"), "{url}");
                assert!(url.len() <= 2_048, "an address of {} characters", url.len());
            }
            assert!(details.metadata.len() <= 16 * 1024);
            let metadata: Value = serde_json::from_str(&details.metadata).expect("JSON");
            let expected =
                sent.get("metadata").filter(|metadata| !metadata.is_null()).cloned().unwrap_or_else(|| Value::Object(Default::default()));
            assert_eq!(metadata, expected, "metadata came back as something else");
            assert_eq!(wish.network.is_none(), details.payer_chooses);
        }
        Err(problem) => {
            assert!(matches!(problem.status.as_u16(), 400 | 422), "{problem:?}");
            let told = problem.detail.len() + problem.errors.iter().map(|error| error.pointer.len() + error.message.len()).sum::<usize>();
            assert!(told <= 8_192, "an answer of {told} bytes to a body of {}", data.len());
            // What is refused for a NUL has one.
            if problem.detail.contains("NUL") {
                let Ok(sent) = serde_json::from_slice::<Value>(data) else { return };
                assert!(holds_nul(&sent), "no NUL is in it: {sent}");
            }
        }
    }
});

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        _ => false,
    }
}
