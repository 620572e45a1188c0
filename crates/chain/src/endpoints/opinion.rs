//! A second opinion on a block that was read before: who is asked, and whose word counts.
//!
//! Whoever served the block is asked last, and alone it is believed only where nobody else answers:
//! it may have invented the block as well as what is in it. One that shows another block in its
//! place may stand on a dead branch, and is not the last word either.

use tidegate_rules::block::BlockRef;

use super::hedge::Refusals;
use super::{Endpoint, Endpoints, Failure, Hedging, Prefer, lock};
use crate::Error;

/// What an endpoint says of a block that was read before, or of a chain of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opinion<T> {
    /// It shows the block, and this is in it.
    For(T),
    /// It shows another one in its place, or itself speaks against what it says is in it.
    Against(T),
}

impl Endpoints {
    /// Reads block `number` a second time, by an operation that is not hedged and moves nobody. The
    /// first endpoint that is for it and did not serve it before decides; the one in use is asked
    /// last of those. Of those that did serve it, two must be for it, and `in_both` says what both
    /// show; or one, where no other answers. Where nobody is remembered, the first that is for it
    /// decides, unless one before was against it: then two must be for it.
    ///
    /// Where that is nobody, the first that was against it is heard.
    ///
    /// # Errors
    /// As [`Endpoints::run`], when no endpoint answered.
    pub async fn second_opinion<T, F, Fut>(&self, number: u64, in_both: impl Fn(T, T) -> T, operation: F) -> Result<T, Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<Opinion<T>, Failure>>,
    {
        let served = lock(&self.sources).of(number);
        let mut order = self.order(Prefer::Other, self.current());
        order.sort_by_key(|slot| served.is_some_and(|served| served.includes(slot.index)));
        let (mut refusals, mut order) = (Refusals::default(), order.into_iter());
        let (mut own_word, mut against) = (None, None);
        while let Some(slot) = order.next() {
            let may_be_own = served.is_none_or(|served| served.includes(slot.index));
            if may_be_own && against.is_some() && own_word.is_none() && order.len() == 0 {
                // Whatever it says, there would be nobody to second it.
                break;
            }
            let Some((_, opinion)) = self.attempt_noting(vec![slot], Hedging::Off, &operation, &mut refusals).await else { continue };
            let read = match opinion {
                Opinion::For(read) => read,
                Opinion::Against(shown) => {
                    against = against.or(Some(shown));
                    continue;
                }
            };
            if !may_be_own || (served.is_none() && against.is_none()) {
                return Ok(read);
            }
            match own_word.take() {
                None => own_word = Some(read),
                Some(first) => return Ok(in_both(first, read)),
            }
        }
        against.or(own_word).ok_or_else(|| refusals.into_error(&self.network))
    }

    /// As [`Endpoints::second_opinion`], on a chain of blocks: in runs that the same endpoints served.
    ///
    /// # Errors
    /// As there, for the first run that nobody answered.
    pub async fn second_opinions<'a, T, F, Fut>(
        &self,
        blocks: &'a [BlockRef],
        in_both: impl Fn(Vec<T>, Vec<T>) -> Vec<T>,
        operation: F,
    ) -> Result<Vec<T>, Error>
    where
        F: Fn(Endpoint, &'a [BlockRef]) -> Fut,
        Fut: Future<Output = Result<Opinion<Vec<T>>, Failure>>,
    {
        let mut read = Vec::with_capacity(blocks.len());
        for run in self.in_runs(blocks) {
            let Some(first) = run.first() else { continue };
            read.extend(self.second_opinion(first.number, &in_both, |endpoint| operation(endpoint, run)).await?);
        }
        Ok(read)
    }

    /// The blocks in runs that the same endpoints served, each run in one piece.
    fn in_runs<'a>(&self, blocks: &'a [BlockRef]) -> Vec<&'a [BlockRef]> {
        let sources = lock(&self.sources);
        blocks.chunk_by(|one, next| sources.of(one.number) == sources.of(next.number)).collect()
    }

    /// Whether this endpoint served block `number` before, as far as anybody remembers: true where
    /// nobody does.
    #[must_use]
    pub fn may_have_served(&self, number: u64, index: usize) -> bool {
        lock(&self.sources).of(number).is_none_or(|served| served.includes(index))
    }

    /// Notes that what was read of block `number` came from this endpoint. [`Endpoints::run_from`]
    /// notes so itself.
    pub fn note_source(&self, number: u64, index: usize) {
        lock(&self.sources).note(number, index);
    }
}
