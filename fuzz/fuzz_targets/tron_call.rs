//! `triggerconstantcontract`, and what is read of the bytes that a view returned.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_chain::fuzzing::views;
use tidegate_chain::tron::fuzzing::constant;

fuzz_target!(|data: &[u8]| {
    if let Ok(Ok(returned)) = constant(data) {
        check(&returned);
    }
    check(data);
});

fn check(answer: &[u8]) {
    let (symbol, decimals, flag) = views(answer);
    if let Some(symbol) = symbol {
        assert!(!symbol.is_empty() && symbol.chars().count() <= 64 && !symbol.chars().any(char::is_control));
    }
    let word = |n: u8| [&[0; 31][..], &[n]].concat();
    if let Some(decimals) = decimals {
        assert_eq!(answer, word(decimals), "another spelling of a number");
    }
    if let Some(flag) = flag {
        assert_eq!(answer, word(u8::from(flag)), "another spelling of a flag");
    }
}
