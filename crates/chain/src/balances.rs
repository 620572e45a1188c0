//! What addresses hold of the token, many at once: the calls that ask it and their answers, the
//! same on TRON and EVM. Everything here is pure; which way an endpoint is asked is not decided
//! here.
//!
//! Money follows from these numbers, so an answer counts only with every balance in it. A token
//! that did not answer for one address, an answer that is short, a call that gave up: none of them
//! is a balance of zero.

use tidegate_rules::amount::Raw;
use tidegate_rules::block::Address;

use crate::Error;
use crate::abi::{self, Words, number, parameter};
use crate::endpoints::Failure;

/// The most addresses that one call of [`Chain::balances`](crate::Chain::balances) takes.
pub const BALANCES_MAX: usize = 500;
/// How many requests are under way at once where an endpoint answers for one address at a time.
pub const SINGLE_BALANCES_AT_ONCE: usize = 10;

/// `aggregate3((address,bool,bytes)[])` of Multicall3 (mds1/multicall3, `src/Multicall3.sol`).
const AGGREGATE3: &str = "82ad56cb";
/// `getBlockNumber()` of Multicall3.
pub(crate) const GET_BLOCK_NUMBER: &str = "42cbb15c";
/// `balanceOf(address)`.
pub(crate) const BALANCE_OF: &str = "70a08231";

/// What addresses hold, as one answer says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balances {
    /// The number of the block that they were read at. EVM: all of them at exactly this one. TRON
    /// answers with the newest state only and, for more than 200 addresses, in several answers:
    /// there none is older than this block, and some may be newer. 0 when nothing was asked.
    pub at: u64,
    /// Base units, in the order of the addresses.
    pub values: Vec<Raw>,
    /// How many requests it took, those included that find out, once for each endpoint, which ways
    /// of asking it offers. A batch counts each of its parts.
    pub calls: u32,
}

/// Why an answer is not the balances that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The token did not answer, or not with a number, for the address at this place.
    Token(usize),
    /// It is no answer to this question at all.
    Garbled,
}

impl Unanswered {
    /// As a failure of the endpoint that said it; `name` writes an address as people do.
    pub(crate) fn failure(self, addresses: &[Address], name: impl Fn(&Address) -> String) -> Failure {
        Failure::transient(match self {
            Self::Token(place) => {
                let whose = addresses.get(place).map_or_else(|| "an address".to_owned(), name);
                format!("the token gave no balance for {whose}")
            }
            Self::Garbled => "expected balances, found an answer that is none, or not all of them".to_owned(),
        })
    }
}

pub(crate) fn check_addresses(addresses: &[Address]) -> Result<(), Error> {
    if addresses.len() <= BALANCES_MAX {
        return Ok(());
    }
    Err(Error::Refused(format!("expected at most {BALANCES_MAX} addresses to ask the balances of, found {}", addresses.len())))
}

/// The answer to `balanceOf`: one word and nothing else.
pub(crate) fn read_single(answer: &[u8]) -> Option<Raw> {
    answer.try_into().ok().map(Raw::from_be_bytes)
}

/// The call data, as hex digits, of a contract that is created for this one question:
/// `contracts/Balances.sol` and its arguments. Nothing is deployed; a node only simulates it.
pub(crate) fn deployless(token: &Address, addresses: &[Address]) -> String {
    let mut data = include_str!("../contracts/Balances.hex").trim_end().to_owned();
    data += &parameter(token);
    data += &number(64);
    data += &number(addresses.len());
    addresses.iter().for_each(|address| data += &parameter(address));
    data
}

/// What that contract returned: the number of the block as it saw it, where that is one, and the
/// balances, which are as many as were asked for.
pub(crate) fn read_deployless(answer: &[u8], asked: usize) -> Result<(Option<u64>, Vec<Raw>), Unanswered> {
    let ([block, count, values @ ..], []) = answer.as_chunks::<32>() else { return Err(Unanswered::Garbled) };
    let count = abi::small(count).and_then(|count| usize::try_from(count).ok()).ok_or(Unanswered::Garbled)?;
    match () {
        () if count != values.len() || count > asked => Err(Unanswered::Garbled),
        () if count < asked => Err(Unanswered::Token(count)),
        () => Ok((abi::small(block), values.iter().copied().map(Raw::from_be_bytes).collect())),
    }
}

/// The call data of Multicall3, as hex digits: its own `getBlockNumber()`, then one `balanceOf` for
/// each address. Each may fail without failing the others, so that the one that did can be named.
pub(crate) fn aggregate(multicall: &Address, token: &Address, addresses: &[Address]) -> String {
    let mut calls = vec![inner_call(multicall, GET_BLOCK_NUMBER)];
    calls.extend(addresses.iter().map(|address| inner_call(token, &format!("{BALANCE_OF}{}", parameter(address)))));
    let mut data = format!("{AGGREGATE3}{}{}", number(32), number(calls.len()));
    let mut offset = calls.len().saturating_mul(32);
    for call in &calls {
        data += &number(offset);
        offset = offset.saturating_add(call.len().wrapping_div(2));
    }
    data + &calls.concat()
}

/// One `Call3`: the target, that it may fail, and its data, filled up to whole words.
fn inner_call(target: &Address, data: &str) -> String {
    let bytes = data.len().wrapping_div(2);
    let width = data.len().next_multiple_of(64);
    format!("{}{}{}{}{data:0<width$}", parameter(target), number(1), number(96), number(bytes))
}

/// What Multicall3 returned: the number of the block as it saw it, and the balances.
pub(crate) fn read_aggregate(answer: &[u8], asked: usize) -> Result<(u64, Vec<Raw>), Unanswered> {
    let results = inner_results(answer, asked.saturating_add(1)).ok_or(Unanswered::Garbled)?;
    let [block, values @ ..] = results.as_slice() else { return Err(Unanswered::Garbled) };
    let block = block.as_ref().and_then(abi::small).ok_or(Unanswered::Garbled)?;
    let value = |(place, value): (usize, &Option<[u8; 32]>)| value.map(Raw::from_be_bytes).ok_or(Unanswered::Token(place));
    Ok((block, values.iter().enumerate().map(value).collect::<Result<_, _>>()?))
}

/// The `Result[]` of `aggregate3`: `None` in a place whose call failed or did not return one word,
/// `None` as a whole when it is not such a list, of this length.
fn inner_results(answer: &[u8], expected: usize) -> Option<Vec<Option<[u8; 32]>>> {
    let answer = Words(answer);
    let list = answer.at(0)?.index()?;
    let offsets = answer.skip(list)?.skip(32)?;
    if answer.skip(list)?.at(0)?.index()? != expected {
        return None;
    }
    let result = |place: usize| {
        let result = offsets.skip(offsets.at(place.checked_mul(32)?)?.index()?)?;
        let succeeded = result.at(0)?.index()?;
        let returned = result.skip(result.at(32)?.index()?)?;
        let bytes = returned.at(0)?.index()?;
        Some((succeeded == 1 && bytes == 32).then(|| returned.at(32).map(|word| word.0)).flatten())
    };
    (0..expected).map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha3::{Digest, Keccak256};

    const TOKEN: Address = Address([0xee; 20]);

    #[test]
    fn selectors_are_the_hashes_of_their_functions() {
        let table = [
            (AGGREGATE3, "aggregate3((address,bool,bytes)[])"),
            (GET_BLOCK_NUMBER, "getBlockNumber()"),
            (BALANCE_OF, "balanceOf(address)"),
        ];
        for (selector, function) in table {
            assert_eq!(hex::encode(Keccak256::digest(function)).get(..8), Some(selector), "{function}");
        }
    }

    fn words(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| [[0; 24].as_slice(), &number.to_be_bytes()].concat()).collect()
    }

    /// A name, an answer, and what it says.
    type Case = (&'static str, Vec<u8>, Result<&'static [u64], Unanswered>);

    #[test]
    fn an_answer_without_every_balance_is_none() {
        let units = |numbers: &[u64]| numbers.iter().map(|number| Raw::from_units((*number).into())).collect::<Vec<_>>();
        let table: [Case; 9] = [
            ("both", words(&[7, 2, 30, 0]), Ok(&[30, 0])),
            ("the token answered for one", words(&[7, 1, 30]), Err(Unanswered::Token(1))),
            ("the token answered for none", words(&[7, 0]), Err(Unanswered::Token(0))),
            ("fewer than it says", words(&[7, 2, 30]), Err(Unanswered::Garbled)),
            ("more than it says", words(&[7, 1, 30, 40]), Err(Unanswered::Garbled)),
            ("more than asked", words(&[7, 3, 30, 40, 50]), Err(Unanswered::Garbled)),
            ("cut short", words(&[7, 2, 30, 40])[..100].to_vec(), Err(Unanswered::Garbled)),
            ("code of some contract", vec![0x60; 64], Err(Unanswered::Garbled)),
            ("nothing", Vec::new(), Err(Unanswered::Garbled)),
        ];
        for (name, answer, expected) in table {
            assert_eq!(read_deployless(&answer, 2), expected.map(|values| (Some(7), units(values))), "{name}");
        }

        // The list of Multicall3 with two addresses, and what is wrong with it.
        let good = words(&[32, 3, 96, 224, 352, 1, 64, 32, 7, 1, 64, 32, 30, 1, 64, 32, 0]);
        let with = |place: usize, number: u64| {
            let mut answer = good.clone();
            answer[place * 32..][..32].copy_from_slice(&words(&[number]));
            answer
        };
        let table: [Case; 12] = [
            ("both", good.clone(), Ok(&[30, 0])),
            ("the first call failed", with(9, 0), Err(Unanswered::Token(0))),
            ("success is neither yes nor no", with(13, 2), Err(Unanswered::Token(1))),
            ("the second returned nothing", with(15, 0), Err(Unanswered::Token(1))),
            ("the second returned too much", with(15, 64), Err(Unanswered::Token(1))),
            ("no number of a block", with(5, 0), Err(Unanswered::Garbled)),
            ("fewer results", with(1, 2), Err(Unanswered::Garbled)),
            ("more results", with(1, 4), Err(Unanswered::Garbled)),
            ("a list beyond the end", with(0, 1 << 40), Err(Unanswered::Garbled)),
            ("a result beyond the end", with(4, u64::MAX), Err(Unanswered::Garbled)),
            ("cut short", good[..good.len() - 32].to_vec(), Err(Unanswered::Token(1))),
            ("nothing", Vec::new(), Err(Unanswered::Garbled)),
        ];
        for (name, answer, expected) in table {
            assert_eq!(read_aggregate(&answer, 2), expected.map(|values| (7, units(values))), "{name}");
        }
    }

    #[test]
    fn the_calls_are_abi_encoded() {
        let data = aggregate(&Address([0xca; 20]), &TOKEN, &[Address([1; 20])]);
        let (selector, words) = data.split_at(8);
        let words: Vec<_> = words.as_bytes().chunks(64).map(|word| std::str::from_utf8(word).unwrap().trim_start_matches('0')).collect();
        assert_eq!(selector, AGGREGATE3);
        let (multicall, token) = ("ca".repeat(20), "ee".repeat(20));
        let (first, second) = (format!("{GET_BLOCK_NUMBER:0<64}"), format!("{BALANCE_OF}{:0<24}{}", "", "01".repeat(16)));
        let end = format!("{:0<64}", "01".repeat(4));
        let expected = ["20", "2", "40", "e0", &multicall, "1", "60", "4", &first, &token, "1", "60", "24", &second, end.as_str()];
        let expected: Vec<_> = expected.iter().map(|word| word.trim_start_matches('0')).collect();
        assert_eq!(words, expected);
    }
}
