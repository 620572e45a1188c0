//! How money, addresses, times and QR codes look. Pure text work; nothing here loses a digit.

use std::fmt::Write as _;

use fast_qr::{ECL, QRBuilder};

/// Light modules around a QR code; readers want at least four.
const QR_MARGIN: usize = 4;

/// `"12.500000"` as something to paste into a wallet: `"12.5"`. No digit that says something is
/// dropped; a text that is no decimal stays as it is.
pub(super) fn exact(amount: &str) -> &str {
    match amount.split_once('.') {
        Some(_) => amount.trim_end_matches('0').trim_end_matches('.'),
        None => amount,
    }
}

/// `"12.500000"` as something to read: `"12.50"`, at least two fraction digits, more if they say
/// something.
pub(super) fn display(amount: &str) -> String {
    let exact = exact(amount);
    match exact.split_once('.') {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<2}"),
        None => format!("{exact}.00"),
    }
}

/// A decimal text that stands for nothing.
pub(super) fn is_zero(amount: &str) -> bool {
    amount.bytes().all(|b| matches!(b, b'0' | b'.'))
}

/// The pieces of [`display`] for a large figure: groups of three digits, then the fraction with
/// its point. Put together they are the number again, without separators.
pub(super) fn digit_groups(amount: &str) -> (Vec<String>, String) {
    let shown = display(amount);
    let (whole, fraction) = shown.split_once('.').unwrap_or((&shown, "00"));
    let digits: Vec<char> = whole.chars().collect();
    let groups = digits.rchunks(3).rev().map(|group| group.iter().collect()).collect();
    (groups, format!(".{fraction}"))
}

/// An address cut for the eye: what a careful payer compares first and last, and the middle in
/// groups. Put together the pieces are the address, to the letter.
pub(super) struct AddressGroups {
    pub(super) first: String,
    pub(super) middle: Vec<String>,
    pub(super) last: String,
}

/// Cuts an address into groups of four; `0x` belongs to the first group.
pub(super) fn address_groups(address: &str) -> AddressGroups {
    let letters: Vec<char> = address.chars().collect();
    let first_len = if address.starts_with("0x") { 6 } else { 4 };
    let (first, rest) = letters.split_at(first_len.min(letters.len()));
    let (middle, last) = rest.split_at(rest.len().saturating_sub(4));
    AddressGroups {
        first: first.iter().collect(),
        middle: middle.chunks(4).map(|group| group.iter().collect()).collect(),
        last: last.iter().collect(),
    }
}

/// A transaction hash short enough for a phone: `"7c2d4a91…e0f4"`.
pub(super) fn short_hash(hash: &str) -> String {
    let letters: Vec<char> = hash.chars().collect();
    if letters.len() <= 16 {
        return hash.to_owned();
    }
    let (head, _) = letters.split_at(10);
    let (_, tail) = letters.split_at(letters.len().saturating_sub(4));
    format!("{}…{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

/// RFC 3339 UTC with milliseconds, for machines.
pub(super) fn rfc3339(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// `2026-03-01 12:30 UTC`, for people whose browser runs no script.
pub(super) fn utc(time_ms: i64) -> String {
    match rfc3339(time_ms).split_once('T') {
        Some((date, time)) => format!("{date} {} UTC", time.get(..5).unwrap_or(time)),
        None => String::new(),
    }
}

/// What is left of a time, as `29:41` or `26:03:05`; zero when it is over.
pub(super) fn countdown(left_ms: i64) -> String {
    // Rounded up: the last second shows 00:01, and 00:00 means that it is over.
    let left_s = left_ms.max(0).saturating_add(999).div_euclid(1_000);
    let (hours, minutes, seconds) = (left_s.div_euclid(3_600), left_s.div_euclid(60).rem_euclid(60), left_s.rem_euclid(60));
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes:02}:{seconds:02}") }
}

/// An inline SVG of a QR code, dark on its own white ground so that it reads in dark mode too.
///
/// It holds numbers only, none of the payload's letters, so it is safe to put into a page as it
/// is. Empty when the payload does not fit a QR code.
#[must_use]
pub fn qr_svg(payload: &str) -> String {
    let Ok(code) = QRBuilder::new(payload).ecl(ECL::M).build() else {
        return String::new();
    };
    let side = code.size.saturating_add(QR_MARGIN.saturating_mul(2));
    let mut path = String::new();
    for row in 0..code.size {
        let mut column = 0;
        while column < code.size {
            let run = code[row].iter().skip(column).take_while(|module| module.value()).count();
            if run > 0 {
                let (x, y) = (column.saturating_add(QR_MARGIN), row.saturating_add(QR_MARGIN));
                let _ = write!(path, "M{x} {y}h{run}v1h-{run}z");
            }
            column = column.saturating_add(run.max(1));
        }
    }
    format!(
        "<svg viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\" aria-hidden=\"true\" focusable=\"false\">\
         <path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_trimmed_but_never_rounded() {
        let table = "
            12.500000   12.5        12.50
            12.000000   12          12.00
            100.000000  100         100.00
            0.000001    0.000001    0.000001
            0.100000    0.1         0.10
            12.345678   12.345678   12.345678
            10          10          10.00
            0.000000    0           0.00
            9000000000000.000000    9000000000000   9000000000000.00
            1234567.891000          1234567.891     1234567.891";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let [input, to_copy, to_read] = line.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
            assert_eq!((exact(input), display(input).as_str()), (to_copy, to_read), "{input}");
            let (groups, fraction) = digit_groups(input);
            assert_eq!(groups.concat() + &fraction, to_read, "the groups of {input} are the number");
            assert!(groups.iter().skip(1).all(|group| group.len() == 3), "{input}");
        }
        assert!(is_zero("0.000000") && is_zero("0") && !is_zero("0.000001"));
    }

    #[test]
    fn addresses_and_hashes_keep_their_letters() {
        for address in ["TXYZopYRdj2D9XRtbG411XZZ3kM5VkAeBf", "0x52908400098527886E0F7030069857D2E4169EE7", "T", ""] {
            let cut = address_groups(address);
            assert_eq!(format!("{}{}{}", cut.first, cut.middle.concat(), cut.last), address);
        }
        assert_eq!(address_groups("0x52908400098527886E0F7030069857D2E4169EE7").first, "0x5290");
        assert_eq!(short_hash("7c2d4a91b37c2d4a91b3e0f4"), "7c2d4a91b3…e0f4");
        assert_eq!(short_hash("short"), "short");
    }

    #[test]
    fn times_are_utc_and_countdowns_never_negative() {
        assert_eq!(rfc3339(1_772_368_200_000), "2026-03-01T12:30:00.000Z");
        assert_eq!(utc(1_772_368_200_000), "2026-03-01 12:30 UTC");
        let table = [(0, "00:00"), (-5_000, "00:00"), (1, "00:01"), (59_001, "01:00"), (1_781_000, "29:41"), (93_785_000, "26:03:05")];
        for (left_ms, expected) in table {
            assert_eq!(countdown(left_ms), expected, "{left_ms}");
        }
    }

    #[test]
    fn a_qr_code_is_square_and_carries_no_text_of_its_payload() {
        let svg = qr_svg("TXYZopYRdj2D9XRtbG411XZZ3kM5VkAeBf");
        // Version 3 (29 modules) holds 34 letters at level M; two margins of four make 37.
        assert!(svg.starts_with("<svg viewBox=\"0 0 37 37\""), "{svg}");
        // The top row of the upper left finder pattern.
        assert!(svg.contains("M4 4h7v1h-7z"), "{svg}");
        assert_ne!(svg, qr_svg("TXYZopYRdj2D9XRtbG411XZZ3kM5VkAeBg"), "another address, another code");

        let hostile = qr_svg("\"><script>alert(1)</script>");
        assert!(!hostile.contains("script") && hostile.matches('<').count() == 4, "{hostile}");
        assert_eq!(qr_svg(&"x".repeat(5_000)), "", "what does not fit shows no code");
    }
}
