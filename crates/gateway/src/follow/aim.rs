//! When to look for the next block: soon after it should be there, and seldom before.
//!
//! The times of the blocks say how far apart they come (the rhythm). When one can be had here is
//! learned from the looks themselves, by this machine's monotonic clock: its wall clock may be wrong,
//! and an endpoint may show blocks late. The aim moves a little earlier with each block that is
//! found at the first look, and back to where the block was after a look in vain. So it stays close
//! behind the blocks, at the price of one look in vain for every forty blocks or so.
//!
//! Nothing here is for catching up, and nothing for chains whose blocks come faster than the poll
//! interval, or without a rhythm, or so seldom that a block out of turn would wait too long: those
//! are looked at once in an interval, and so is a chain that stands still.

use std::time::Duration;

use tidegate_rules::block::BlockRef;
use tokio::time::Instant;

/// Blocks whose times tell the rhythm: many, since an EVM block's time is a whole second.
const RHYTHM_BLOCKS: usize = 128;

/// Fewer tell nothing.
const RHYTHM_BLOCKS_MIN: usize = 3;

/// Looks for one block. The second, for one that is late, comes a sixteenth of the rhythm after the
/// first, and each pause is twice the one before. After that the block is missing, and the next is
/// aimed at.
const LOOKS_PER_BLOCK: u32 = 4;
const LATE_FIRST: u32 = 16;

/// After so many looks in vain the rhythm is lost: back to the poll interval until a block comes.
const LOOKS_IN_VAIN_MAX: u32 = 2 * LOOKS_PER_BLOCK;

/// The longest rhythm that is aimed at, in poll intervals: a block out of turn waits so long.
const RHYTHM_POLLS_MAX: u32 = 4;

/// How much earlier the aim is with each block that was there: this part of the rhythm while
/// nothing is known of when blocks come, …
const SEARCH: u32 = 8;

/// … and later this part for the first, twice that for the second, and so on.
const CREEP: u32 = 16_384;

/// What a look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// New blocks; they are applied, and there should be no more.
    Found,
    /// Nothing that was not there before.
    Nothing,
}

/// Where the next look is aimed at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Aim {
    /// When the block that was looked for should have been there; `None` before the first look.
    at: Option<Instant>,
    /// Looks in vain since then.
    misses: u32,
    /// Blocks in a row that were there at the first look since the last that was not.
    hits: u32,
    /// It has been too early once, so it is about right.
    is_found: bool,
}

impl Aim {
    /// When to look next, after a look that began at `looked`. `None` where nothing can be aimed at:
    /// once in `poll`, then.
    pub(super) fn next(&mut self, look: Look, looked: Instant, rhythm: Option<Duration>, poll: Duration) -> Option<Instant> {
        let aimed_at = poll..=poll.saturating_mul(RHYTHM_POLLS_MAX);
        let Some(rhythm) = rhythm.filter(|rhythm| aimed_at.contains(rhythm) && !rhythm.is_zero()) else {
            *self = Self::default();
            return None;
        };
        let at = self.at.unwrap_or(looked);
        match look {
            Look::Found => {
                let looks_before = self.looks_before();
                let late = looked.saturating_duration_since(at);
                let is_lost = self.misses >= LOOKS_IN_VAIN_MAX;
                let at = if looks_before == 0 && !is_lost && late < part(rhythm, 4) {
                    self.hits = self.hits.saturating_add(1);
                    let earlier = if self.is_found { part(rhythm, CREEP).saturating_mul(self.hits) } else { part(rhythm, SEARCH) };
                    // Somebody may have told us to look before it was time.
                    let at = at.min(looked);
                    at.checked_sub(earlier).unwrap_or(at)
                } else {
                    // The longer it was looked for in vain, the less is known of when it came.
                    self.is_found = looks_before == 1 && !is_lost;
                    self.hits = 0;
                    looked
                };
                self.misses = 0;
                self.aim(at, rhythm)
            }
            Look::Nothing if looked < at => self.at,
            Look::Nothing => {
                let pause = part(rhythm, LATE_FIRST).saturating_mul(1_u32.checked_shl(self.looks_before()).unwrap_or(1));
                self.misses = self.misses.saturating_add(1);
                self.at = Some(at);
                if self.misses >= LOOKS_IN_VAIN_MAX {
                    None
                } else if self.looks_before() > 0 {
                    looked.checked_add(pause)
                } else {
                    self.aim(at, rhythm)
                }
            }
        }
    }

    /// Looks in vain for the block that is looked for now.
    const fn looks_before(&self) -> u32 {
        self.misses % LOOKS_PER_BLOCK
    }

    /// The block after the one at `at`.
    fn aim(&mut self, at: Instant, rhythm: Duration) -> Option<Instant> {
        self.at = at.checked_add(rhythm);
        self.at
    }
}

fn part(of: Duration, parts: u32) -> Duration {
    of.checked_div(parts).unwrap_or(Duration::ZERO)
}

/// How far apart the newest blocks came: the mean, without the gaps where one was missing. `None`
/// while there are too few of them, or where one in eight does not keep to it.
pub(super) fn rhythm(recent: &[BlockRef]) -> Option<Duration> {
    let newest = recent.get(recent.len().saturating_sub(RHYTHM_BLOCKS)..)?;
    let mut gaps: Vec<u64> = newest.array_windows().map(|[older, newer]| newer.time.since(older.time).millis()).collect();
    if gaps.len() < RHYTHM_BLOCKS_MIN {
        return None;
    }
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied()?;
    let usual = || gaps.iter().copied().filter(|gap| *gap < median.saturating_mul(2));
    let mean = usual().fold(0, u64::saturating_add).checked_div(usual().count() as u64)?;
    let regular = gaps.iter().filter(|gap| gap.abs_diff(mean).saturating_mul(2) <= mean).count();
    (regular.saturating_mul(8) >= gaps.len().saturating_mul(7)).then(|| Duration::from_millis(mean))
}

#[cfg(test)]
mod tests {
    use tidegate_rules::block::Hash;
    use tidegate_rules::time::Time;

    use super::*;

    const POLL: Duration = Duration::from_secs(3);

    /// Follows a chain whose blocks can be had at these times (in ms, from a moment on), beginning
    /// `phase_ms` later: how long after its appearance each block was found, and how many looks were
    /// in vain.
    fn follow(appear_ms: &[u64], rhythm_ms: u64, phase_ms: u64) -> (Vec<u64>, usize) {
        let origin = Instant::now();
        let since = |at: Instant| u64::try_from((at - origin).as_millis()).unwrap();
        let (mut aim, mut now) = (Aim::default(), origin + Duration::from_millis(phase_ms));
        let (mut delays, mut in_vain) = (Vec::new(), 0);
        let mut left = appear_ms;
        while let Some((appears, later)) = left.split_first() {
            let look = if since(now) >= *appears { Look::Found } else { Look::Nothing };
            if look == Look::Found {
                delays.push(since(now) - appears);
                left = later;
            } else {
                in_vain += 1;
            }
            let next = aim.next(look, now, Some(Duration::from_millis(rhythm_ms)), POLL).unwrap_or(now + POLL);
            // A timer is late, and a pass takes a moment.
            now = next.max(now) + Duration::from_millis(2);
        }
        (delays, in_vain)
    }

    fn mean(delays: &[u64]) -> u64 {
        delays.iter().sum::<u64>() / delays.len() as u64
    }

    #[test]
    fn blocks_are_found_soon_and_seldom_looked_for_in_vain() {
        for phase_ms in (0..3_000).step_by(100) {
            let appear: Vec<u64> = (1..=400).map(|slot| slot * 3_000).collect();
            let (delays, in_vain) = follow(&appear, 3_000, phase_ms);
            let settled = &delays[16..];
            assert!(mean(settled) < 3_000 / 16, "a mean of {} ms at {phase_ms}", mean(settled));
            assert!(*settled.iter().max().unwrap() < 3_000 / 4, "at most {:?} ms at {phase_ms}", settled.iter().max());
            assert!(in_vain <= 400 / 25, "{in_vain} looks in vain at {phase_ms}");
        }
    }

    #[test]
    fn late_and_missing_blocks_do_not_lose_the_rhythm() {
        // Each block up to 150 ms late, each twenty-third slot without one.
        let slots = (1..=460_u64).filter(|slot| !slot.is_multiple_of(23));
        let appear: Vec<u64> = slots.map(|slot| slot * 3_000 + slot * 7_919 % 150).collect();
        let (delays, in_vain) = follow(&appear, 3_000, 1_700);
        let settled = &delays[16..];
        assert!(mean(settled) < 3_000 / 8, "a mean of {} ms", mean(settled));
        assert!(*settled.iter().max().unwrap() < 3_000 / 2, "at most {:?} ms", settled.iter().max());
        // Four for each block that never came, and few beside.
        assert!(in_vain <= 20 * 4 + 60, "{in_vain} looks in vain");
    }

    #[test]
    fn a_chain_that_stands_still_is_looked_at_once_in_an_interval() {
        let (delays, in_vain) = follow(&[3_000, 6_000, 3_006_000, 3_009_000], 3_000, 0);
        assert!((990..1_015).contains(&in_vain), "{in_vain}");
        assert!(delays[2] < 3_100, "{delays:?}");
    }

    #[test]
    fn a_look_that_somebody_asked_for_changes_nothing() {
        let (mut aim, now, rhythm) = (Aim::default(), Instant::now(), Some(Duration::from_secs(12)));
        let next = aim.next(Look::Found, now, rhythm, POLL);
        assert_eq!(aim.next(Look::Nothing, now + Duration::from_secs(1), rhythm, POLL), next);
    }

    #[test]
    fn what_has_no_rhythm_near_the_interval_is_not_aimed_at() {
        for (rhythm_ms, is_aimed_at) in [(0, false), (750, false), (3_000, true), (12_000, true), (60_000, false)] {
            let next = Aim::default().next(Look::Found, Instant::now(), Some(Duration::from_millis(rhythm_ms)), POLL);
            assert_eq!(next.is_some(), is_aimed_at, "{rhythm_ms}");
        }
        assert_eq!(Aim::default().next(Look::Found, Instant::now(), None, POLL), None);
    }

    #[test]
    fn the_rhythm_is_the_usual_gap() {
        // The gaps between blocks in ms, and the rhythm.
        let table: [(&[i64], Option<u64>); 6] = [
            (&[3_000, 3_000], None),
            (&[3_000, 3_000, 3_000], Some(3_000)),
            // A slot without a block.
            (&[3_000, 3_000, 3_000, 3_000, 6_000, 3_000, 3_000, 3_000], Some(3_000)),
            // Whole seconds.
            (&[2_000, 2_000, 2_000, 2_000, 3_000], Some(2_200)),
            // Several blocks in a second.
            (&[0, 0, 0, 1_000], None),
            // Mined by hand.
            (&[1_000, 9_000, 4_000, 1_000, 20_000, 2_000, 7_000], None),
        ];
        for (gaps, expected) in table {
            let ends = gaps.iter().scan(0, |end, gap| {
                *end += gap;
                Some(*end)
            });
            let block = |(number, time): (u64, i64)| {
                let hash = Hash([0; 32]);
                BlockRef { number, hash, parent: hash, time: Time::from_millis(time) }
            };
            let recent: Vec<BlockRef> = (0..).zip([0].into_iter().chain(ends)).map(block).collect();
            assert_eq!(rhythm(&recent), expected.map(Duration::from_millis), "{gaps:?}");
        }
    }
}
