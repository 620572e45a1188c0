//! The query of `GET /api/v1/orders`, cursors among it: what is taken can be asked of either database.
#![no_main]

use axum::http::Uri;
use libfuzzer_sys::fuzz_target;
use tidegate::http::fuzzing::{cursor, order_query};

fuzz_target!(|text: &str| {
    let Ok(uri) = format!("/api/v1/orders?{text}").parse::<Uri>() else { return };
    match order_query(&uri) {
        Ok((filter, limit)) => {
            assert!((1..=200).contains(&limit));
            let network = filter.network.map(|network| network.to_string());
            let texts = [network, filter.user_id, filter.merchant_order_id, filter.address, filter.tx_hash, filter.before.clone()];
            // PostgreSQL's texts hold no NUL: the query would fail there.
            assert!(!texts.into_iter().flatten().any(|text| text.contains('\0')), "NUL reaches the database");
            if let Some(id) = filter.before {
                let again = format!("/api/v1/orders?cursor={}", cursor(&id).expect("a cursor")).parse().expect("a URI");
                assert_eq!(order_query(&again).expect("our own cursor").0.before, Some(id));
            }
        }
        Err(problem) => {
            assert_eq!(problem.status.as_u16(), 422, "{problem:?}");
            let told = problem.detail.len() + problem.errors.iter().map(|error| error.pointer.len() + error.message.len()).sum::<usize>();
            assert!(told <= 8_192, "an answer of {told} bytes to a query of {}", text.len());
        }
    }
});
