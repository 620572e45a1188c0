//! Amounts, base units, times, ids and hashes from text: what is read is written in its one form, and
//! that reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_rules::amount::{Amount, Raw};
use tidegate_rules::block::Hash;
use tidegate_rules::id::{AlertId, DeliveryId, EventId, LeaseId, MerchantId, OrderId, SourceId, TransferId, WalletId};
use tidegate_rules::time::{Span, Time};

fuzz_target!(|text: &str| {
    if let Ok(amount) = text.parse::<Amount>() {
        assert!(amount <= Amount::MAX);
        assert_eq!(amount.to_string().parse(), Ok(amount));
        let written = amount.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        assert_eq!(written, format!("{whole}.{fraction:0<6}"), "more or less than was written");
        for decimals in 0..=80 {
            if let Some(raw) = amount.to_raw(decimals) {
                assert_eq!(raw.to_amount(decimals), Some(amount));
            }
        }
    }
    if let Ok(raw) = text.parse::<Raw>() {
        assert_eq!(raw.to_string().parse(), Ok(raw));
        assert_eq!(Raw::from_be_bytes(raw.to_be_bytes()), raw);
        assert!(!text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()), "no plain decimal integer: {text:?}");
        let digits = text.trim_start_matches('0');
        assert_eq!(raw.to_string(), if digits.is_empty() { "0" } else { digits });
        for decimals in [0, 5, 6, 7, 18, 77, 78, 255] {
            let floored = raw.to_amount_saturating(decimals);
            assert!(floored.to_raw(decimals).is_none_or(|back| back <= raw), "rounded up");
            let _ = raw.scaled(decimals);
        }
    }
    if let Ok(time) = text.parse::<Time>() {
        assert_eq!(time.to_string().parse(), Ok(time), "{text}");
        assert!(time.plus(Span::from_millis(u64::MAX)) >= time && time.minus(Span::from_millis(u64::MAX)) <= time);
    }
    if let Ok(hash) = text.parse::<Hash>() {
        assert_eq!(hash.to_string().parse(), Ok(hash));
        let digits = text.strip_prefix("0x").unwrap_or(text);
        assert_eq!(digits.to_ascii_lowercase(), hash.to_string(), "another spelling of a hash");
    }
    macro_rules! ids {
        ($($id:ident)*) => {$(if let Ok(id) = text.parse::<$id>() {
            assert_eq!(id.to_string(), text, "an id has two spellings");
        })*};
    }
    ids!(OrderId WalletId LeaseId MerchantId TransferId EventId DeliveryId AlertId SourceId);
});
