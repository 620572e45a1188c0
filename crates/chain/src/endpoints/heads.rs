//! Where the endpoints of a network stand: the newest head each one has shown, and whether one
//! that fell back lags or has followed a fork.
//!
//! The hash tells. A head whose hash was seen before is a block of the chain that is known: its
//! endpoint lags, and is set aside while another is ahead. Another hash at a height that is known
//! is a fork: nobody's fault, and followed (the gateway goes back).
//!
//! Pure bookkeeping: the time is an argument. Nothing here decides what is on the chain.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_rules::block::{BlockRef, Hash};
use tidegate_rules::time::Span;
use tokio::time::Instant;

/// An endpoint is set aside when another is ahead of it by more than this many blocks …
pub const LAG_BLOCKS_MAX: u64 = 5;
/// … and by more than this much of the chain's own time: on a fast chain a few blocks are nothing.
pub const LAG_TIME_MAX: Span = Span::from_secs(15);
/// How long a head that was seen counts for comparing, and how long an endpoint stays set aside
/// without being looked at.
pub const HEAD_HELD: Duration = Duration::from_secs(3 * 60);
/// A head this old may still be compared with one that is seen now. Shorter than
/// [`LAG_TIME_MAX`], so that nobody lags merely because he was not asked.
const HEAD_FRESH: Duration = Duration::from_secs(10);
/// How many blocks, by height and hash, are remembered to tell a fork from a lag.
const KNOWN_MAX: usize = 512;

/// What a head meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is the first one, the same, or further.
    On,
    /// It is lower than before, on the same chain as far as is known.
    Back,
    /// It is on another branch than what was known at its height.
    Fork,
}

/// Where one endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) head: Option<BlockRef>,
    /// How long ago it was seen.
    pub(super) seen: Duration,
    /// How many blocks it was behind the best head known when it was last compared.
    pub(super) behind: u64,
    /// How long it has been behind by more than is borne, while another was ahead.
    pub(super) lagging: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Heads {
    seen: Vec<Option<Seen>>,
    known: VecDeque<(u64, Hash)>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    head: BlockRef,
    at: Instant,
    /// The highest head that it has shown on the branch it is on.
    highest: BlockRef,
    /// The head is on a branch that was not known before.
    forked: bool,
    behind: u64,
    lagging_since: Option<Instant>,
}

impl Heads {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { seen: vec![None; endpoints], known: VecDeque::new() }
    }

    /// Notes the newest head of an endpoint.
    pub(super) fn saw_head(&mut self, index: usize, head: &BlockRef, now: Instant) -> Step {
        let before = self.seen.get(index).copied().flatten();
        let forked = self.is_known(head.number) && !self.knows(head.number, head.hash);
        let step = match before {
            _ if forked => Step::Fork,
            Some(before) if head.number < before.head.number => Step::Back,
            _ => Step::On,
        };
        let highest = before.map(|before| before.highest).filter(|highest| !forked && highest.number > head.number).unwrap_or(*head);
        let (behind, lagging_since) = before.map_or((0, None), |before| (before.behind, before.lagging_since));
        if let Some(seen) = self.seen.get_mut(index) {
            *seen = Some(Seen { head: *head, at: now, highest, forked, behind, lagging_since });
        }
        self.remember(head);
        self.compare(now);
        step
    }

    /// Notes a block that an endpoint has, wherever it is.
    pub(super) fn saw_block(&mut self, index: usize, block: &BlockRef) {
        let forked = self.is_known(block.number) && !self.knows(block.number, block.hash);
        if let Some(seen) = self.seen.get_mut(index).and_then(Option::as_mut).filter(|_| forked) {
            // What it showed above that height was of the branch that it has left.
            if seen.highest.number >= block.number {
                seen.highest = *block;
            }
        }
        self.remember(block);
    }

    /// Remembers a block and its parent.
    fn remember(&mut self, block: &BlockRef) {
        for known in [(block.number.checked_sub(1), block.parent), (Some(block.number), block.hash)] {
            let (Some(number), hash) = known else { continue };
            if self.knows(number, hash) {
                continue;
            }
            if self.known.len() >= KNOWN_MAX {
                self.known.pop_front();
            }
            self.known.push_back((number, hash));
        }
    }

    pub(super) fn place(&self, index: usize, now: Instant) -> Place {
        let Some(seen) = self.seen.get(index).copied().flatten() else { return Place::default() };
        let age = now.saturating_duration_since(seen.at);
        let lagging = seen.lagging_since.filter(|_| age < HEAD_HELD).map(|since| now.saturating_duration_since(since));
        Place { head: Some(seen.head), seen: age, behind: seen.behind, lagging }
    }

    /// Compares every endpoint that was just seen with the best of those that still count.
    fn compare(&mut self, now: Instant) {
        let age = |seen: &Seen| now.saturating_duration_since(seen.at);
        let count: Vec<(usize, BlockRef)> = self
            .seen
            .iter()
            .enumerate()
            .filter_map(|(index, seen)| seen.as_ref().filter(|seen| age(seen) < HEAD_HELD).map(|seen| (index, seen.highest)))
            .collect();
        for (index, seen) in self.seen.iter_mut().enumerate() {
            let Some(seen) = seen.as_mut().filter(|seen| age(seen) < HEAD_FRESH) else { continue };
            let head = seen.head;
            let best = count.iter().map(|(_, highest)| highest.number).max().unwrap_or(head.number);
            let ahead = |highest: &BlockRef| {
                highest.number.saturating_sub(head.number) > LAG_BLOCKS_MAX && highest.time.since(head.time) > LAG_TIME_MAX
            };
            let lags = !seen.forked && count.iter().any(|(other, highest)| *other != index && ahead(highest));
            seen.behind = if seen.forked { 0 } else { best.saturating_sub(head.number) };
            seen.lagging_since = if lags { seen.lagging_since.or(Some(now)) } else { None };
        }
    }

    fn is_known(&self, number: u64) -> bool {
        self.known.iter().any(|(known, _)| *known == number)
    }

    fn knows(&self, number: u64, hash: Hash) -> bool {
        self.known.contains(&(number, hash))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_rules::time::Time;

    use super::*;

    /// Block `number` of a branch. Branches part after `fork`, a chain makes a block in 12 s.
    fn block(number: u64, branch: char, fork: u64) -> BlockRef {
        let hash = |number: u64| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            hash[31] = if number <= fork { b'.' } else { branch as u8 };
            Hash(hash)
        };
        let time = Time::from_secs(1_700_000_000 + 12 * i64::try_from(number).unwrap());
        BlockRef { number, hash: hash(number), parent: hash(number.saturating_sub(1)), time }
    }

    /// A line a sighting: `<second> <endpoint> <height><branch> <what it meant>`, then for both
    /// endpoints how far behind they are; `!` is set aside. Branches part after block 100.
    #[tokio::test]
    async fn a_fork_is_followed_and_a_lag_is_set_aside() {
        let table = "
            0    a  95x   on    0 0
            1    b  95x   on    0 0
            13   a  96x   on    0 0
            14   b  90x   back  0 6!
            15   b  96x   on    0 0
            20   a  101x  on    0 5
            21   b  96x   on    0 5
            30   a  102x  on    0 6!
            31   b  102x  on    0 0
            40   a  101y  fork  0 0
            45   b  102x  on    0 0
            50   a  102y  fork  0 0
            51   a  110y  on    0 8!
            55   b  101x  back  0 9!
            56   b  110y  on    0 0
            60   a  108y  back  2 0
            200  a  150y  on    0 0
            201  b  110y  on    0 40!";
        let start = Instant::now();
        let mut heads = Heads::new(2);
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now = start + Duration::from_secs(words[0].parse().unwrap());
            let (number, branch) = words[2].split_at(words[2].len() - 1);
            let head = block(number.parse().unwrap(), branch.chars().next().unwrap(), 100);
            // A follower reads what is below the head, so heights are known.
            for below in head.number.saturating_sub(9)..head.number {
                if words[1] == "a" && words[3] == "on" {
                    heads.saw_block(0, &block(below, branch.chars().next().unwrap(), 100));
                }
            }
            let step = heads.saw_head(usize::from(words[1] == "b"), &head, now);
            assert_eq!(format!("{step:?}").to_lowercase(), words[3], "{line}");
            for (index, expected) in words[4..].iter().enumerate() {
                let place = heads.place(index, now);
                let mark = if place.lagging.is_some() { "!" } else { "" };
                assert_eq!(format!("{}{mark}", place.behind), *expected, "{line}: endpoint {index}");
            }
        }
        let later = |seconds| heads.place(1, start + Duration::from_secs(seconds)).lagging;
        assert_eq!(later(231), Some(Duration::from_secs(30)), "since when");
        assert_eq!(later(201 + HEAD_HELD.as_secs()), None, "nobody is set aside for ever by one look");
    }

    #[tokio::test]
    async fn on_a_fast_chain_a_few_blocks_are_nothing() {
        let now = Instant::now();
        let mut heads = Heads::new(2);
        let fast = |number: u64| BlockRef { time: Time::from_millis(1_700_000_000_000 + 250 * number as i64), ..block(number, 'x', 0) };
        heads.saw_head(0, &fast(1_060), now);
        heads.saw_head(1, &fast(1_000), now);
        assert_eq!((heads.place(1, now).behind, heads.place(1, now).lagging), (60, None), "exactly fifteen seconds");
        heads.saw_head(0, &fast(1_061), now);
        assert!(heads.place(1, now).lagging.is_some());
    }

    #[tokio::test]
    async fn an_endpoint_that_was_not_asked_lately_does_not_lag() {
        let start = Instant::now();
        let mut heads = Heads::new(2);
        heads.saw_head(1, &block(100, 'x', 0), start);
        let later = start + Duration::from_secs(120);
        heads.saw_head(0, &block(110, 'x', 0), later);
        assert_eq!((heads.place(1, later).behind, heads.place(1, later).lagging), (0, None));
        assert_eq!(heads.place(1, later).seen, Duration::from_secs(120));
    }

    #[tokio::test]
    async fn alone_nobody_is_set_aside() {
        let now = Instant::now();
        let mut heads = Heads::new(1);
        heads.saw_head(0, &block(100, 'x', 0), now);
        assert_eq!(heads.saw_head(0, &block(60, 'x', 0), now), Step::Back);
        assert_eq!((heads.place(0, now).behind, heads.place(0, now).lagging), (40, None));
    }

    #[tokio::test]
    async fn a_deep_fork_is_followed_while_it_grows_and_is_a_lag_when_it_stands() {
        let start = Instant::now();
        let mut heads = Heads::new(2);
        for number in 100..=120 {
            heads.saw_head(0, &block(number, 'x', 100), start);
        }
        heads.saw_head(1, &block(120, 'x', 100), start);
        for (second, number, lagging) in [(1, 108, false), (2, 109, false), (3, 110, false), (4, 110, true)] {
            let now = start + Duration::from_secs(second);
            heads.saw_head(0, &block(number, 'y', 100), now);
            assert_eq!(heads.place(0, now).lagging.is_some(), lagging, "{number} after {second} s");
        }
    }

    #[tokio::test]
    async fn a_fork_that_is_met_below_the_head_is_no_lag_either() {
        let now = Instant::now();
        let mut heads = Heads::new(1);
        heads.saw_head(0, &block(105, 'x', 100), now);
        heads.saw_block(0, &block(104, 'y', 100));
        heads.saw_block(0, &block(103, 'y', 100));
        assert_eq!(heads.saw_head(0, &block(104, 'y', 100), now), Step::Back);
        assert_eq!(heads.place(0, now).behind, 0);
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let mut heads = Heads::new(1);
        for number in 0..5_000 {
            heads.saw_head(0, &block(number, 'x', 0), Instant::now());
            heads.saw_block(0, &block(number, 'y', 0));
        }
        assert_eq!(heads.known.len(), KNOWN_MAX);
    }
}
