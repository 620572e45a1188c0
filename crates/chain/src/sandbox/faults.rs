//! What goes wrong between a sandbox chain and who reads it: the script of a test, or faults drawn
//! from a seed. Decides what a call sees; the chain itself is never changed here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use tidegate_rules::amount::Raw;
use tidegate_rules::block::{Block, BlockRef, Hash, Transfer};
use tidegate_rules::time::Span;

use super::history::History;
use crate::Error;

/// What spoiled an answer, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The endpoint was away.
    Outage,
    /// The call failed.
    Failed,
    /// The endpoint had been asked too often (429).
    Throttled,
    /// Nothing came, for a while.
    TimedOut,
    /// The endpoint was found to be on another chain.
    WrongChain,
    /// A part was missing, and that was noticed.
    Truncated,
    /// Something was in it twice, and that was noticed.
    Duplicated,
    /// Its blocks did not follow each other, and that was noticed.
    Reordered,
    /// It was of an earlier moment.
    Stale,
    /// The endpoint did not have what its head promised.
    Empty,
    /// It was shorter than asked.
    Short,
    /// It was another chain's, and nothing in it said so.
    Foreign,
    /// A block that was read again showed another transfer than before.
    Altered,
    /// A block was said to be younger than it is.
    Hurried,
}

/// How often each fault was met.
pub type Met = BTreeMap<Fault, u64>;

/// Faults drawn anew for each call, from a seed. Chances are in thousandths.
///
/// Most are what an honest but poor endpoint does, as the adapters tell it on: what they notice is
/// an error, what they cannot notice is the lie itself (`foreign`, `altered`, `hurried`). Forks are not among
/// them: the chain does those, see [`SandboxChain::fork`](super::SandboxChain::fork).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Where the draws begin.
    pub seed: u64,
    /// The call fails.
    pub fail_permille: u16,
    /// The endpoint goes away with this call, for up to `outage_calls_max` calls.
    pub outage_permille: u16,
    /// The longest such outage.
    pub outage_calls_max: u32,
    /// The call sees the chain up to `lag_blocks_max` blocks behind, so the head seems to go back.
    pub lag_permille: u16,
    /// The furthest behind.
    pub lag_blocks_max: u64,
    /// The node does not have what is asked for, though its head says so: `header` and `transaction`
    /// are `None`, `blocks` is empty, `reread` and `second_reading` fail.
    pub missing_permille: u16,
    /// `blocks` gets an answer that is not whole, and fails.
    pub incomplete_permille: u16,
    /// `blocks` gives fewer blocks than asked, at least one.
    pub short_permille: u16,
    /// The call is refused for their number (429).
    pub throttled_permille: u16,
    /// The call gets no answer, and fails after `timeout`.
    pub timeout_permille: u16,
    /// How long a call without an answer takes.
    pub timeout: Duration,
    /// The endpoint says another chain id than expected: asking again will not help, it says.
    pub wrong_chain_permille: u16,
    /// `blocks` gets something twice, and fails.
    pub duplicated_permille: u16,
    /// `blocks` gets blocks that do not follow each other, and fails.
    pub reordered_permille: u16,
    /// A lie: `head`, `header`, `blocks` and `final_head` are those of another chain, as when a
    /// provider's balancer asks the wrong node long after the endpoint has proven its chain. It is
    /// the same other chain each time: as long, at the same times, and empty.
    pub foreign_permille: u16,
    /// A lie: `reread` shows a transfer of another value, or not at all.
    pub altered_permille: u16,
    /// A lie, each time: `blocks` says of its last block that it was made so much later.
    pub hurried: Span,
}

impl Faults {
    /// No fault at all, to begin from.
    #[must_use]
    pub const fn none(seed: u64) -> Self {
        Self {
            seed,
            fail_permille: 0,
            outage_permille: 0,
            outage_calls_max: 0,
            lag_permille: 0,
            lag_blocks_max: 0,
            missing_permille: 0,
            incomplete_permille: 0,
            short_permille: 0,
            throttled_permille: 0,
            timeout_permille: 0,
            timeout: TIMEOUT,
            wrong_chain_permille: 0,
            duplicated_permille: 0,
            reordered_permille: 0,
            foreign_permille: 0,
            altered_permille: 0,
            hurried: Span::ZERO,
        }
    }

    /// A bad day of a public endpoint: about one call in seven goes wrong.
    #[must_use]
    pub const fn mild(seed: u64) -> Self {
        Self {
            fail_permille: 20,
            outage_permille: 2,
            outage_calls_max: 10,
            lag_permille: 40,
            lag_blocks_max: 3,
            missing_permille: 20,
            incomplete_permille: 20,
            short_permille: 50,
            throttled_permille: 20,
            timeout_permille: 4,
            duplicated_permille: 10,
            reordered_permille: 10,
            ..Self::none(seed)
        }
    }

    /// A day that is all bad: about every other call goes wrong.
    #[must_use]
    pub const fn harsh(seed: u64) -> Self {
        Self {
            fail_permille: 100,
            outage_permille: 10,
            outage_calls_max: 40,
            lag_permille: 200,
            lag_blocks_max: 12,
            missing_permille: 100,
            incomplete_permille: 150,
            short_permille: 300,
            throttled_permille: 50,
            timeout_permille: 20,
            duplicated_permille: 50,
            reordered_permille: 50,
            ..Self::none(seed)
        }
    }

    /// An endpoint whose answers are prompt and cannot be trusted.
    #[must_use]
    pub const fn lying(seed: u64) -> Self {
        Self { wrong_chain_permille: 50, foreign_permille: 250, altered_permille: 500, ..Self::mild(seed) }
    }
}

/// How long a drawn call without an answer takes: no real endpoint is given up so soon.
const TIMEOUT: Duration = Duration::from_millis(40);

/// The questions that [`Chain`](crate::Chain) has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Identity,
    Head,
    Header,
    Blocks,
    FinalHead,
    Reread,
    TokenState,
    Balances,
    Transaction,
    Fee,
    SecondReading,
}

/// What is wrong now.
#[derive(Default)]
pub(super) struct Script {
    pub(super) down: bool,
    pub(super) fail_next: u32,
    pub(super) incomplete: u32,
    pub(super) lag: u64,
    pub(super) hidden: Option<RangeInclusive<u64>>,
    pub(super) limit_per_call: Option<u32>,
    drawn: Option<Drawn>,
}

/// What one call sees of the chain.
pub(super) struct View {
    pub(super) lag: u64,
    pub(super) limit: u32,
    hidden: Option<RangeInclusive<u64>>,
    /// It has nothing of what this call asks for.
    pub(super) missing: bool,
    foreign: bool,
    altered: bool,
    hurried: Span,
}

impl View {
    /// True when the node that is asked has the block.
    pub(super) fn has(&self, history: &History, number: u64) -> bool {
        let hidden = self.hidden.as_ref().is_some_and(|numbers| numbers.contains(&number));
        number <= history.shown(self.lag) && !hidden && !self.missing
    }

    /// The header as it is shown.
    pub(super) fn header(&self, at: BlockRef) -> BlockRef {
        if self.foreign { BlockRef { hash: elsewhere(at.hash), parent: elsewhere(at.parent), ..at } } else { at }
    }

    /// The block as it is shown.
    pub(super) fn block(&self, block: Block) -> Block {
        if self.foreign {
            return Block { at: self.header(block.at), transfers: Vec::new(), unreadable: Vec::new(), notices: Vec::new() };
        }
        block
    }

    /// Blocks as they are shown, the last of them with its time.
    pub(super) fn blocks(&self, mut blocks: Vec<Block>) -> Vec<Block> {
        if let Some(last) = blocks.last_mut() {
            last.at.time = last.at.time.plus(self.hurried);
        }
        blocks
    }

    /// The block as it is shown when it is read again.
    pub(super) fn again(&self, mut block: Block) -> Block {
        if self.altered
            && let Some(last) = block.transfers.pop()
            && last.key.ordinal.is_multiple_of(2)
        {
            block.transfers.push(Transfer { value: last.value.saturating_add(Raw::from_units(1)), ..last });
        }
        block
    }
}

/// The hash of the other chain's block at the same height. On TRON its number stays in it.
fn elsewhere(hash: Hash) -> Hash {
    let mut bytes = hash.0;
    bytes.iter_mut().skip(8).for_each(|byte| *byte = !*byte);
    Hash(bytes)
}

/// How a call goes: what it sees, or its failure; and what it waits for first.
pub(super) struct Begun {
    pub(super) view: Result<View, Error>,
    pub(super) wait: Duration,
}

impl Script {
    /// Begins a call: it fails here, or sees the chain as the view says. What it meets is counted.
    pub(super) fn begin(&mut self, method: Method, met: &mut Met) -> Begun {
        let draw = self.drawn.as_mut().map_or_else(Draw::default, Drawn::draw);
        let mut wait = Duration::ZERO;
        let blocks = method == Method::Blocks;
        let transient = |words: &str| Err(Error::Transient(words.into()));
        let (fault, view) = if self.down || draw.down {
            (Some(Fault::Outage), transient("the sandbox is down, as its script says"))
        } else if use_up(&mut self.fail_next) || draw.fail {
            (Some(Fault::Failed), transient("the sandbox failed this call, as its script says"))
        } else if draw.throttled {
            (Some(Fault::Throttled), transient("429: too many requests, as its script says"))
        } else if draw.timeout {
            wait = draw.wait;
            (Some(Fault::TimedOut), transient("the sandbox did not answer in time, as its script says"))
        } else if draw.wrong_chain {
            (Some(Fault::WrongChain), Err(Error::Refused("the sandbox is on another chain, as its script says".into())))
        } else if blocks && (use_up(&mut self.incomplete) || draw.incomplete) {
            (Some(Fault::Truncated), transient("the answer is not whole: transfers are missing"))
        } else if blocks && draw.duplicated {
            (Some(Fault::Duplicated), transient("the answer is not whole: a log stands twice in it"))
        } else if blocks && draw.reordered {
            (Some(Fault::Reordered), transient("the answer is not whole: its blocks do not follow each other"))
        } else {
            (None, Ok(()))
        };
        let view = view.map(|()| View {
            lag: self.lag.saturating_add(draw.lag),
            limit: self.limit_per_call.unwrap_or(u32::MAX).min(draw.limit.unwrap_or(u32::MAX)),
            hidden: self.hidden.clone(),
            missing: draw.missing,
            foreign: draw.foreign && matches!(method, Method::Head | Method::Header | Method::Blocks | Method::FinalHead),
            altered: draw.altered && method == Method::Reread,
            hurried: if blocks { draw.hurried } else { Span::ZERO },
        });
        let seen = view.as_ref().ok().map(|view| {
            let chain = !matches!(method, Method::Identity | Method::TokenState);
            let data = matches!(method, Method::Header | Method::Blocks | Method::Reread);
            [
                (view.lag > 0 && chain, Fault::Stale),
                ((view.missing || view.hidden.is_some()) && data, Fault::Empty),
                (blocks && view.limit < u32::MAX, Fault::Short),
                (view.foreign, Fault::Foreign),
                (view.altered, Fault::Altered),
                (view.hurried > Span::ZERO, Fault::Hurried),
            ]
        });
        let seen = seen.into_iter().flatten().filter(|(met, _)| *met).map(|(_, fault)| fault);
        for fault in fault.into_iter().chain(seen) {
            let count = met.entry(fault).or_default();
            *count = count.saturating_add(1);
        }
        Begun { view, wait }
    }

    pub(super) fn inject(&mut self, faults: Faults) {
        self.drawn = Some(Drawn { faults, state: faults.seed, outage_calls_left: 0 });
    }

    /// True when the next call would find the endpoint away.
    pub(super) fn is_down(&self) -> bool {
        self.down || self.drawn.as_ref().is_some_and(|drawn| drawn.outage_calls_left > 0)
    }
}

/// Takes one from the counter; false when there was none.
fn use_up(counter: &mut u32) -> bool {
    let left = counter.checked_sub(1);
    *counter = left.unwrap_or(0);
    left.is_some()
}

/// What was drawn for one call.
#[derive(Default)]
struct Draw {
    down: bool,
    fail: bool,
    incomplete: bool,
    missing: bool,
    lag: u64,
    limit: Option<u32>,
    throttled: bool,
    timeout: bool,
    wait: Duration,
    wrong_chain: bool,
    duplicated: bool,
    reordered: bool,
    foreign: bool,
    altered: bool,
    hurried: Span,
}

struct Drawn {
    faults: Faults,
    state: u64,
    outage_calls_left: u32,
}

impl Drawn {
    /// Every call draws the same number of times, whatever comes of it: a changed chance then
    /// changes its own faults and moves no others.
    fn draw(&mut self) -> Draw {
        let faults = self.faults;
        let outage = self.chance(faults.outage_permille);
        let outage_calls = self.below(u64::from(faults.outage_calls_max));
        let fail = self.chance(faults.fail_permille);
        let incomplete = self.chance(faults.incomplete_permille);
        let missing = self.chance(faults.missing_permille);
        let lags = self.chance(faults.lag_permille);
        let lag = self.below(faults.lag_blocks_max).saturating_add(1).min(faults.lag_blocks_max);
        let short = self.chance(faults.short_permille);
        let limit = self.below(SHORT_BLOCKS_MAX).saturating_add(1);

        let throttled = self.chance(faults.throttled_permille);
        let timeout = self.chance(faults.timeout_permille);
        let wrong_chain = self.chance(faults.wrong_chain_permille);
        let duplicated = self.chance(faults.duplicated_permille);
        let reordered = self.chance(faults.reordered_permille);
        let foreign = self.chance(faults.foreign_permille);
        let altered = self.chance(faults.altered_permille);

        if outage && self.outage_calls_left == 0 {
            let calls = u32::try_from(outage_calls).unwrap_or(u32::MAX).saturating_add(1);
            self.outage_calls_left = calls.min(faults.outage_calls_max);
        }
        Draw {
            down: use_up(&mut self.outage_calls_left),
            fail,
            incomplete,
            missing,
            lag: if lags { lag } else { 0 },
            limit: if short { u32::try_from(limit).ok() } else { None },
            throttled,
            timeout,
            wait: faults.timeout,
            wrong_chain,
            duplicated,
            reordered,
            foreign,
            altered,
            hurried: faults.hurried,
        }
    }

    fn chance(&mut self, permille: u16) -> bool {
        self.below(1_000) < u64::from(permille)
    }

    /// A number below `bound`; 0 when there is none. That it is not perfectly even does not matter.
    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// SplitMix64, by Sebastiano Vigna (public domain): small, and the same everywhere for ever,
    /// which a crate's generator does not promise.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A drawn short answer has at most this many blocks: few enough that callers notice.
const SHORT_BLOCKS_MAX: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs for the seed 1234567, as published with the algorithm.
        let mut drawn = Drawn { faults: Faults::mild(0), state: 1_234_567, outage_calls_left: 0 };
        let found: Vec<u64> = (0..5).map(|_| drawn.next()).collect();
        assert_eq!(
            found,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn a_changed_chance_moves_no_other_fault() {
        let lags = |faults: Faults| {
            let mut drawn = Drawn { faults, state: faults.seed, outage_calls_left: 0 };
            (0..500).map(|_| drawn.draw().lag).collect::<Vec<_>>()
        };
        let mild = Faults::mild(7);
        assert_eq!(lags(mild), lags(Faults { fail_permille: 900, missing_permille: 0, ..mild }));
        assert_ne!(lags(mild), lags(Faults { seed: 8, ..mild }));
    }
}
