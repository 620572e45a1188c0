//! Which endpoints served the blocks of which heights, so that none is taken at its own word for
//! what it served.
//!
//! All that served a height are remembered, not the last alone: a payer can have a block read once
//! more, by naming a transaction in it. Hashes are not, so that after a fork those of both branches
//! count: one too many asks once more, one too few lets a liar confirm itself.

use std::collections::BTreeMap;

use super::ENDPOINTS_MAX;

/// How many heights are remembered, the highest ones: twice what a follower keeps.
pub const HEIGHTS_MAX: usize = 16_384;

/// A set of endpoints fits a word.
const _: () = assert!(ENDPOINTS_MAX <= 64);

#[derive(Debug, Default)]
pub(super) struct Sources {
    /// A bit for each endpoint, by its place.
    by_height: BTreeMap<u64, u64>,
}

impl Sources {
    /// Notes that this endpoint served a block of this height.
    pub(super) fn note(&mut self, number: u64, index: usize) {
        *self.by_height.entry(number).or_default() |= bit(index);
        if self.by_height.len() > HEIGHTS_MAX {
            self.by_height.pop_first();
        }
    }

    /// Who served it; `None` when nobody is remembered.
    pub(super) fn of(&self, number: u64) -> Option<ServedBy> {
        self.by_height.get(&number).copied().map(ServedBy)
    }
}

/// The endpoints that served a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServedBy(u64);

impl ServedBy {
    pub(super) fn includes(self, index: usize) -> bool {
        self.0 & bit(index) != 0
    }
}

fn bit(index: usize) -> u64 {
    u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_served_a_height_are_remembered_and_the_highest_heights_alone() {
        let mut sources = Sources::default();
        let last = u64::try_from(HEIGHTS_MAX).unwrap();
        for number in 0..=last {
            sources.note(number, 1);
        }
        sources.note(last, ENDPOINTS_MAX - 1);
        assert_eq!((sources.by_height.len(), sources.of(0), sources.of(1)), (HEIGHTS_MAX, None, Some(ServedBy(2))));
        let served: Vec<usize> = (0..=ENDPOINTS_MAX).filter(|index| sources.of(last).unwrap().includes(*index)).collect();
        assert_eq!(served, [1, ENDPOINTS_MAX - 1]);
        // A block of long ago, read again, is in nobody's place.
        sources.note(0, 1);
        assert_eq!((sources.by_height.len(), sources.of(0), sources.of(1)), (HEIGHTS_MAX, None, Some(ServedBy(2))));
    }
}
