//! Which blocks may be believed: follows a chain block by block, notices forks, and never skips.
//!
//! [`next`] compares what we applied with what an endpoint shows and says what to do. It asks for
//! one header at a time when it needs more ([`Next::Compare`]), so that it stays pure: the caller
//! fetches, adds the answer and asks again.

use crate::block::BlockRef;
use crate::order::Depth;
use crate::time::Span;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Apply the first `n` of the blocks: they continue our tip without a gap.
    Extend(usize),
    /// Fetch the endpoint's header at this height, add it to `compared` and ask again.
    Compare(u64),
    /// The endpoint is on another branch. Go back to this height, where both agree.
    Rewind(u64),
    /// Nothing to apply: no new block, or the endpoint lags behind us.
    Wait,
    /// Do not go on by ourselves.
    Halt(Halt),
}

/// Why a network stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The fork is older than everything we keep, or than the named limit.
    ForkTooDeep,
    /// The fork would undo a block that the chain itself called final.
    FinalReverted,
}

impl Halt {
    /// The reason in words, for the operator.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ForkTooDeep => "the chain was rewritten below the oldest block that is kept here",
            Self::FinalReverted => "the chain was rewritten below a block that it had called final",
        }
    }
}

/// Says what to do with what an endpoint shows.
///
/// - `recent`: the blocks we applied, oldest first, consecutive, never empty; the last is our tip.
/// - `final_number`: the highest block that the chain called final and we applied.
/// - `blocks`: what the endpoint has above our tip, lowest first; may be empty.
/// - `head`: the endpoint's head, asked when `blocks` is empty; `None` if it was not asked.
/// - `compared`: the endpoint's headers at heights of `recent`, in the order they were asked for.
#[must_use]
pub fn next(recent: &[BlockRef], final_number: Option<u64>, blocks: &[BlockRef], head: Option<&BlockRef>, compared: &[BlockRef]) -> Next {
    let Some(tip) = recent.last() else {
        return Next::Halt(Halt::ForkTooDeep);
    };
    if compared.is_empty() {
        match (blocks.first(), head) {
            (Some(first), _) if continues(tip, first) => return Next::Extend(unbroken(tip, blocks)),
            (Some(first), _) if Some(first.number) != tip.number.checked_add(1) => return Next::Wait,
            // It has the next block, but on another parent: find where the branches part.
            (Some(_), _) => {}
            (None, None) => return Next::Wait,
            (None, Some(head)) => match ours(recent, head.number) {
                Some(same) if same == head => return Next::Wait,
                Some(_) => {}
                // Higher than our tip: its new block will be here in a moment. Lower than what we
                // keep: far behind, or another chain; either way nothing to follow.
                None => return Next::Wait,
            },
        }
    }
    let start = head.map_or(tip.number, |head| head.number.min(tip.number));
    fork_point(recent, final_number, start, compared)
}

/// The block that an endpoint must show for a halted network to go on: the one that the chain called
/// final, or the oldest that is kept. What differs above it is a fork like any other, and our tip may
/// have been lost in one while we stood still.
#[must_use]
pub fn anchor(recent: &[BlockRef], final_number: Option<u64>) -> Option<&BlockRef> {
    final_number.and_then(|number| ours(recent, number)).or_else(|| recent.first())
}

/// True when `child` sits directly on `parent` and time does not run backwards.
fn continues(parent: &BlockRef, child: &BlockRef) -> bool {
    parent.number.checked_add(1) == Some(child.number) && child.parent == parent.hash && child.time >= parent.time
}

/// How many of `blocks` continue `tip` without a gap.
fn unbroken(tip: &BlockRef, blocks: &[BlockRef]) -> usize {
    let mut last = tip;
    let mut count: usize = 0;
    for block in blocks {
        if !continues(last, block) {
            break;
        }
        last = block;
        count = count.saturating_add(1);
    }
    count
}

/// Our block at a height.
fn ours(recent: &[BlockRef], number: u64) -> Option<&BlockRef> {
    let oldest = recent.first()?.number;
    recent.get(usize::try_from(number.checked_sub(oldest)?).ok()?)
}

/// Searches the highest height at which both agree, on the whole header: a hash says nothing about the
/// time that came with it, and a time that was a lie must not stay in the way of every block after it. In growing steps down until one agrees, then
/// by halves between the last two. A fork of depth d costs about 2·log₂ d headers.
fn fork_point(recent: &[BlockRef], final_number: Option<u64>, start: u64, compared: &[BlockRef]) -> Next {
    let oldest = recent.first().map_or(0, |block| block.number);
    // Known so far: agree at `low` (if any), differ at `high`.
    let mut low: Option<u64> = None;
    let mut high: Option<u64> = None;
    for theirs in compared {
        match ours(recent, theirs.number) {
            Some(same) if same == theirs => low = Some(low.map_or(theirs.number, |l| l.max(theirs.number))),
            _ => high = Some(high.map_or(theirs.number, |h| h.min(theirs.number))),
        }
    }
    match (low, high) {
        (Some(low), Some(high)) if high.checked_sub(low) == Some(1) => rewind(low, final_number),
        (Some(low), Some(high)) if high > low => Next::Compare(low.midpoint(high)),
        // Nothing differs at or below its head: it lags, or it contradicts itself. Ask later.
        (Some(_), _) => Next::Wait,
        (None, None) => Next::Compare(start),
        (None, Some(high)) if high <= oldest => Next::Halt(Halt::ForkTooDeep),
        (None, Some(high)) => {
            let step = 1_u64.checked_shl(u32::try_from(compared.len().saturating_sub(1)).unwrap_or(63)).unwrap_or(u64::MAX);
            Next::Compare(high.saturating_sub(step).max(oldest))
        }
    }
}

/// Going back is allowed down to the final block, not below.
fn rewind(to: u64, final_number: Option<u64>) -> Next {
    if final_number.is_some_and(|last| to < last) {
        return Next::Halt(Halt::FinalReverted);
    }
    Next::Rewind(to)
}
/// What a network shows of its own health, as far as settling depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How far the final head is behind the newest block, in block time; `None` where the chain
    /// calls no block final.
    pub final_lag: Option<Span>,
    /// Endpoints show different blocks at one height, and go on doing so.
    pub heads_differ: bool,
}

/// How deep money must be buried at least now, whatever the terms of its order say: until it is
/// final while the network is in trouble, and by the terms alone while it is well.
///
/// It rises at `final_lag_max` and falls again at three quarters of it, so that it does not flutter.
#[must_use]
pub fn floor(before: Option<Depth>, trouble: Trouble, final_lag_max: Span) -> Option<Depth> {
    let lag = trouble.final_lag.unwrap_or(Span::ZERO);
    let bears = if before.is_some() { final_lag_max.millis().saturating_mul(3).wrapping_div(4) } else { final_lag_max.millis() };
    (trouble.heads_differ || lag.millis() > bears).then_some(Depth::Final)
}
