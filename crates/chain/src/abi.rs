//! Reads what a token contract says of itself: the ABI-encoded answers to `symbol()`,
//! `decimals()` and views of yes or no. The first two are claims of the contract's author; they
//! are compared, never trusted. And the words that all ABI-encoded bytes are made of.

use tidegate_rules::block::Address;

/// Longer symbols are cut: the genuine ones are four letters.
const SYMBOL_CHARS_MAX: usize = 64;

/// `symbol()`: an ABI `string`, or a `bytes32` filled up with zeros as contracts before 2018 say
/// it. `None` for anything else, and for an empty one.
pub(crate) fn symbol(answer: &[u8]) -> Option<String> {
    let text = match answer.split_first_chunk::<32>() {
        Some((word, [])) => word.split(|byte| *byte == 0).next()?,
        Some((_, rest)) => {
            let (length, text) = rest.split_first_chunk::<32>()?;
            text.get(..usize::try_from(small(length)?).ok()?)?
        }
        None => return None,
    };
    let text = std::str::from_utf8(text).ok()?;
    let shown: String = text.chars().filter(|c| !c.is_control()).take(SYMBOL_CHARS_MAX).collect();
    (!shown.is_empty()).then_some(shown)
}

/// `decimals()`: one word below 256.
pub(crate) fn decimals(answer: &[u8]) -> Option<u8> {
    u8::try_from(small(answer.try_into().ok()?)?).ok()
}

/// A `bool`: one word, 0 or 1. `None` for anything else, as a contract without the view may say.
pub(crate) fn flag(answer: &[u8]) -> Option<bool> {
    match small(answer.try_into().ok()?)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// An address as the hex digits of a call's parameter, without `0x`.
pub(crate) fn parameter(address: &Address) -> String {
    format!("{:0>64}", hex::encode(address.0))
}

/// A number as the hex digits of a word, without `0x`.
pub(crate) fn number(value: usize) -> String {
    format!("{value:064x}")
}

/// Bytes that are read in words, at offsets that the other side chose: nothing beyond the end.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a>(pub(crate) &'a [u8]);

/// One word of them.
#[derive(Clone, Copy)]
pub(crate) struct Word(pub(crate) [u8; 32]);

impl Words<'_> {
    /// All from an offset on.
    pub(crate) fn skip(self, bytes: usize) -> Option<Self> {
        self.0.get(bytes..).map(Self)
    }

    /// The word at an offset.
    pub(crate) fn at(self, bytes: usize) -> Option<Word> {
        self.0.get(bytes..)?.first_chunk().copied().map(Word)
    }
}

impl Word {
    /// An offset, a length or a yes and no.
    pub(crate) fn index(self) -> Option<usize> {
        usize::try_from(small(&self.0)?).ok()
    }
}

pub(crate) fn small(word: &[u8; 32]) -> Option<u64> {
    let (upper, lower) = word.split_last_chunk::<8>()?;
    upper.iter().all(|byte| *byte == 0).then_some(u64::from_be_bytes(*lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_comes_as_a_string_or_as_a_word() {
        let word = |text: &str| format!("{:0<64}", hex::encode(text));
        let number = |n: u64| format!("{n:064x}");
        let string = |text: &str| number(32) + &number(text.len() as u64) + &word(text);
        let table = [
            (string("USDT"), Some("USDT")),
            (string("USD₮0"), Some("USD₮0")),
            (word("MKR"), Some("MKR")),
            (string("a\u{7}b\nc"), Some("abc")),
            (string(""), None),
            (word(""), None),
            (number(32) + &number(1 << 40), None),
            (number(32) + &"f".repeat(64), None),
            (String::new(), None),
            ("00".into(), None),
        ];
        for (answer, expected) in table {
            assert_eq!(symbol(&hex::decode(&answer).unwrap()).as_deref(), expected, "{answer}");
        }
    }

    #[test]
    fn a_flag_is_one_word_of_0_or_1() {
        let word = |n: u64| format!("{n:064x}");
        let table = [
            (word(0), Some(false)),
            (word(1), Some(true)),
            (word(2), None),
            ("f".repeat(64), None),
            (word(1) + &word(1), None),
            ("01".into(), None),
            (String::new(), None),
        ];
        for (answer, expected) in table {
            assert_eq!(flag(&hex::decode(&answer).unwrap()), expected, "{answer}");
        }
        assert_eq!(parameter(&Address([0xab; 20])), "000000000000000000000000".to_owned() + &"ab".repeat(20));
    }

    #[test]
    fn decimals_fit_a_byte() {
        let table = [(format!("{:064x}", 18), Some(18)), (format!("{:064x}", 256), None), (String::new(), None)];
        for (answer, expected) in table {
            assert_eq!(decimals(&hex::decode(&answer).unwrap()), expected, "{answer}");
        }
    }
}
