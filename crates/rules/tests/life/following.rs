//! Which blocks may be believed: small drawn chains for [`follow::next`].
//!
//! A chain is drawn as a word: letter by letter the blocks from height 1 on, equal prefixes are
//! equal blocks. `abcd` and `abxy` share two blocks.

use tidegate_rules::block::{BlockRef, Hash};
use tidegate_rules::follow::{self, Halt, Next};
use tidegate_rules::order::Depth;
use tidegate_rules::time::{Span, Time};

/// The blocks of a drawn chain: a block's hash is made of everything up to it.
fn chain(drawn: &str) -> Vec<BlockRef> {
    let hash = |upto: &str| {
        let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in upto.bytes() {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&sum.to_be_bytes());
        bytes[8..16].copy_from_slice(&(upto.len() as u64).to_be_bytes());
        Hash(bytes)
    };
    (1..=drawn.len())
        .map(|height| BlockRef {
            number: height as u64,
            hash: hash(&drawn[..height]),
            parent: hash(&drawn[..height - 1]),
            time: Time::from_secs(height as i64 * 3),
        })
        .collect()
}

/// Follows to an end, fetching what is asked for, and counts the headers that were fetched.
fn follow(ours: &[BlockRef], fixed: Option<u64>, theirs: &[BlockRef]) -> (Next, usize) {
    let tip = ours.last().expect("a tip").number;
    let above: Vec<BlockRef> = theirs.iter().filter(|block| block.number > tip).copied().collect();
    let head = if above.is_empty() { theirs.last() } else { None };
    let mut compared = Vec::new();
    loop {
        match follow::next(ours, fixed, &above, head, &compared) {
            Next::Compare(height) => {
                assert!(!compared.iter().any(|block: &BlockRef| block.number == height), "asked for {height} twice");
                let oldest = ours[0].number;
                assert!((oldest..=tip).contains(&height), "asked for {height}, which nobody can compare");
                compared.push(*theirs.iter().find(|block| block.number == height).expect("asked for a block that it has"));
            }
            end => return (end, compared.len()),
        }
    }
}

#[track_caller]
fn check(ours: &str, theirs: &str, expected: Next) {
    assert_eq!(follow(&chain(ours), None, &chain(theirs)).0, expected, "ours {ours}, theirs {theirs}");
}

#[test]
fn extends_lags_and_forks() {
    let table = [
        // The endpoint has what comes next.
        ("abc", "abcd", Next::Extend(1)),
        ("abc", "abcdefg", Next::Extend(4)),
        // It stands where we stand, or lags behind us on the same branch.
        ("abc", "abc", Next::Wait),
        ("abcdef", "abc", Next::Wait),
        ("abcdef", "a", Next::Wait),
        // Another branch, as long, longer, shorter.
        ("abc", "abx", Next::Rewind(2)),
        ("abc", "abxy", Next::Rewind(2)),
        ("abcdef", "abcxyzuv", Next::Rewind(3)),
        ("abcdef", "abxy", Next::Rewind(2)),
        ("abcdef", "ax", Next::Rewind(1)),
        // Another chain altogether.
        ("abcdef", "xbcdefgh", Next::Halt(Halt::ForkTooDeep)),
        ("abcdef", "x", Next::Halt(Halt::ForkTooDeep)),
        // The first block we ever applied is replaced.
        ("a", "xy", Next::Halt(Halt::ForkTooDeep)),
    ];
    for (ours, theirs, expected) in table {
        check(ours, theirs, expected);
    }
}

#[test]
fn a_gap_is_waited_out() {
    let (ours, theirs) = (chain("abc"), chain("abcdefg"));
    assert_eq!(follow::next(&ours, None, &theirs[4..], None, &[]), Next::Wait, "it starts above the block we need");
    let holes = [theirs[3], theirs[4], theirs[6]];
    assert_eq!(follow::next(&ours, None, &holes, None, &[]), Next::Extend(2), "only as far as it is unbroken");
    let mixed = [theirs[3], chain("abcdX")[4]];
    assert_eq!(follow::next(&ours, None, &mixed, None, &[]), Next::Extend(2));
    let broken = [theirs[3], chain("abcXe")[4]];
    assert_eq!(follow::next(&ours, None, &broken, None, &[]), Next::Extend(1), "another parent");
    assert_eq!(follow::next(&ours, None, &theirs[1..2], None, &[]), Next::Wait, "below our tip");
    assert_eq!(follow::next(&ours, None, &[], None, &[]), Next::Wait, "nothing is shown");
    assert_eq!(follow::next(&ours, None, &[], Some(&theirs[6]), &[]), Next::Wait, "its new blocks will be here in a moment");
    assert_eq!(follow::next(&[], None, &theirs, None, &[]), Next::Halt(Halt::ForkTooDeep));
}

#[test]
fn time_never_runs_backwards() {
    let ours = chain("abc");
    let mut next = chain("abcd");
    next[3].time = ours[2].time;
    assert_eq!(follow::next(&ours, None, &next[3..], None, &[]), Next::Extend(1), "blocks may share a time");
    next[3].time = Time::from_millis(ours[2].time.millis() - 1);
    assert_eq!(follow(&ours, None, &next).0, Next::Wait, "our own tip stands there: it contradicts itself");
}

#[test]
fn a_time_that_was_a_lie_is_taken_back() {
    let (truth, longer) = (chain("abc"), chain("abcd"));
    let mut ours = truth.clone();
    ours[2].time = Time::from_secs(1_000_000);
    assert_eq!(follow(&ours, None, &longer).0, Next::Rewind(2), "no block continues it");
    assert_eq!(follow(&ours, None, &truth).0, Next::Rewind(2), "nor is it what the chain shows at its height");
    assert_eq!(follow(&ours, Some(3), &longer).0, Next::Halt(Halt::FinalReverted));
}

#[test]
fn goes_back_to_the_final_block_and_not_below() {
    let (ours, theirs) = (chain("abcdef"), chain("abcxyz!"));
    assert_eq!(follow(&ours, Some(2), &theirs).0, Next::Rewind(3));
    assert_eq!(follow(&ours, Some(3), &theirs).0, Next::Rewind(3));
    assert_eq!(follow(&ours, Some(4), &theirs).0, Next::Halt(Halt::FinalReverted));
    assert_eq!(follow(&ours, Some(6), &theirs).0, Next::Halt(Halt::FinalReverted));
}

#[test]
fn an_endpoint_that_contradicts_itself_moves_nothing() {
    let (ours, theirs) = (chain("abcdef"), chain("abcxyz!"));
    // The next block has another parent, but the header at our tip is ours.
    assert_eq!(follow::next(&ours, None, &theirs[6..], None, &ours[5..]), Next::Wait);
    // Different at 2, the same at 5.
    assert_eq!(follow::next(&ours, None, &theirs[6..], None, &[theirs[5], ours[4]]), Next::Rewind(5));
    assert_eq!(follow::next(&ours, None, &theirs[6..], None, &[chain("ax")[1], ours[4]]), Next::Wait);
    // A head that differs, and a header at its height that does not.
    let short = chain("abcx");
    assert_eq!(follow::next(&ours, None, &[], short.last(), &[ours[3]]), Next::Wait);
}

/// A fork of any depth is found with a number of headers that grows with the logarithm of it.
#[test]
fn the_fork_point_costs_a_logarithm() {
    let old = "o".repeat(1_000);
    let ours = chain(&old);
    for depth in [1_usize, 2, 3, 5, 10, 50, 100, 500, 999] {
        let height = 1_000 - depth;
        let most = 2 * (usize::BITS - depth.leading_zeros()) as usize + 2;
        let longer = old[..height].to_owned() + &"n".repeat(depth + 3);
        let (end, asked) = follow(&ours, None, &chain(&longer));
        assert_eq!(end, Next::Rewind(height as u64), "depth {depth}");
        assert!(asked <= most, "depth {depth} cost {asked} headers, more than {most}");
        if depth > 1 {
            let shorter = old[..height].to_owned() + "n";
            let (end, asked) = follow(&ours, None, &chain(&shorter));
            assert_eq!(end, Next::Rewind(height as u64), "shorter, depth {depth}");
            assert!(asked <= most, "shorter, depth {depth} cost {asked} headers, more than {most}");
        }
    }
    let (end, asked) = follow(&ours, None, &chain(&"x".repeat(1_200)));
    assert_eq!(end, Next::Halt(Halt::ForkTooDeep));
    assert!(asked <= 22, "another chain cost {asked} headers");
}

/// What we keep is a window: what is older cannot be compared.
#[test]
fn beyond_the_window() {
    let ours = chain(&"o".repeat(100));
    let window = &ours[60..];
    let fork = |height: usize| chain(&("o".repeat(height) + &"n".repeat(110 - height)));
    assert_eq!(follow(window, None, &fork(61)).0, Next::Rewind(61), "down to the oldest block that is kept");
    assert_eq!(follow(window, None, &fork(60)).0, Next::Halt(Halt::ForkTooDeep));
    assert_eq!(follow(window, None, &fork(10)).0, Next::Halt(Halt::ForkTooDeep));
    assert_eq!(follow(window, None, &ours[..50]).0, Next::Wait, "an endpoint far behind says nothing");
}

/// Every pair of short chains: the answer is the common prefix, or a reason not to go there.
#[test]
fn every_small_fork() {
    for ours in 1..=9_usize {
        for shared in 0..=ours {
            for theirs in shared.max(1)..=11 {
                for fixed in [None, Some(ours as u64 / 2)] {
                    let (a, b) = ("o".repeat(ours), "o".repeat(shared) + &"n".repeat(theirs - shared));
                    let (end, _) = follow(&chain(&a), fixed, &chain(&b));
                    let expected = if theirs == shared && theirs <= ours {
                        Next::Wait
                    } else if shared == ours {
                        Next::Extend(theirs - ours)
                    } else if shared == 0 {
                        Next::Halt(Halt::ForkTooDeep)
                    } else if fixed.is_some_and(|fixed| (shared as u64) < fixed) {
                        Next::Halt(Halt::FinalReverted)
                    } else {
                        Next::Rewind(shared as u64)
                    };
                    assert_eq!(end, expected, "ours {a}, theirs {b}, final {fixed:?}");
                }
            }
        }
    }
}

/// Money waits until it is final while the chain's finality lags or its endpoints disagree.
#[test]
fn the_floor_rises_in_trouble_and_falls_again() {
    let minutes = |minutes: u64| Span::from_secs(minutes * 60);
    let table: [(Option<u64>, bool, &str); 10] = [
        (Some(1), false, "-"),
        (Some(5), false, "-"),
        (Some(6), false, "final"),
        // Not before it is well below.
        (Some(5), false, "final"),
        (Some(4), false, "final"),
        (Some(3), false, "-"),
        (Some(1), true, "final"),
        (Some(1), false, "-"),
        (None, false, "-"),
        (None, true, "final"),
    ];
    let mut floor = None;
    for (step, (lag, heads_differ, expected)) in table.into_iter().enumerate() {
        let trouble = follow::Trouble { final_lag: lag.map(minutes), heads_differ };
        floor = follow::floor(floor, trouble, minutes(5));
        assert_eq!(floor.map_or("-", |_| "final"), expected, "step {step}");
        assert!(floor.is_none_or(|floor| floor == Depth::Final));
    }
}

/// Whoever shows the anchor is on a chain that can be followed without another halt, and whoever does
/// not is not: a halted network resumes exactly when that is so.
#[test]
fn a_chain_that_shows_the_anchor_halts_nobody() {
    let ours = chain(&"o".repeat(20));
    let window = &ours[8..];
    for (fixed, anchor) in [(None, 9), (Some(12), 12), (Some(20), 20), (Some(3), 9)] {
        assert_eq!(follow::anchor(window, fixed).map(|block| block.number), Some(anchor), "final {fixed:?}");
        for shared in 0..=20_usize {
            let theirs = chain(&("o".repeat(shared) + &"n".repeat(24 - shared)));
            let shows = theirs[anchor as usize - 1].hash == ours[anchor as usize - 1].hash;
            let halts = matches!(follow(window, fixed, &theirs).0, Next::Halt(_));
            assert_eq!(shows, !halts, "final {fixed:?}, forked above {shared}");
        }
    }
    assert_eq!(follow::anchor(&[], Some(1)), None);
}
