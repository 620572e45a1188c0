//! Blocks that have settled, read a second time by a way that stands on its own: what is asked for
//! and what comes of it.

use std::iter;

use tidegate_rules::block::{Block, BlockRef};

use crate::Error;
use crate::endpoints::Opinion;

/// The most blocks that one call of [`Chain::second_reading`](crate::Chain::second_reading) takes.
pub const SECOND_READING_MAX: usize = 100;

/// What a second look at a block has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecondReading {
    /// The block with the hash that was asked for, read whole.
    Same(Block),
    /// Another block stands at that height now: this one. No endpoint shows the one asked for, but
    /// such as served it.
    Replaced(BlockRef),
}

/// Blocks are proven together, by the hash of the last, so they must be a chain.
pub(crate) fn check_blocks(blocks: &[BlockRef]) -> Result<(), Error> {
    if blocks.len() > SECOND_READING_MAX {
        let count = blocks.len();
        return Err(Error::Refused(format!("expected at most {SECOND_READING_MAX} blocks to read again, found {count}")));
    }
    let broken = blocks.array_windows().find(|[one, next]| one.number.checked_add(1) != Some(next.number) || one.hash != next.parent);
    match broken {
        None => Ok(()),
        Some([one, next]) => {
            Err(Error::Refused(format!("expected a chain of blocks to read again, found {} after {}", next.number, one.number)))
        }
    }
}

/// How many of the blocks, from the first on, are still the ones that stand there. Above the first
/// that is not, none can be.
pub(crate) fn same(blocks: &[BlockRef], now: &[BlockRef]) -> usize {
    blocks.iter().zip(now).take_while(|(block, now)| block.hash == now.hash).count()
}

/// For the blocks where all of them are still there.
pub(crate) fn opinion(read: Vec<SecondReading>) -> Opinion<Vec<SecondReading>> {
    let all = read.iter().all(|reading| matches!(reading, SecondReading::Same(_)));
    if all { Opinion::For(read) } else { Opinion::Against(read) }
}

/// What two readings of one block both show; `None` where it is no longer there for one of them.
pub(crate) fn in_both(one: Option<Block>, other: Option<Block>) -> Option<Block> {
    one.zip(other).map(|(one, other)| shared(one, &other))
}

fn shared(mut one: Block, other: &Block) -> Block {
    one.transfers.retain(|transfer| other.transfers.contains(transfer));
    one.unreadable.retain(|log| other.unreadable.contains(log));
    one.notices.retain(|notice| other.notices.contains(notice));
    one
}

/// The same of a chain of blocks.
pub(crate) fn in_both_of_each(one: Vec<SecondReading>, other: Vec<SecondReading>) -> Vec<SecondReading> {
    let both = |pair: (SecondReading, SecondReading)| match pair {
        (SecondReading::Same(one), SecondReading::Same(other)) => SecondReading::Same(shared(one, &other)),
        (SecondReading::Same(_), replaced) | (replaced, _) => replaced,
    };
    iter::zip(one, other).map(both).collect()
}
