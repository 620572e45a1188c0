//! A second opinion on a block that was read before: who is asked, and whose word counts.
//!
//! Whoever served the block is asked last, and alone it is believed only where nobody else answers.

use tidegate_rules::block::BlockRef;

use super::hedge::Refusals;
use super::{Endpoint, Endpoints, Failure, Hedging, Prefer, lock};
use crate::Error;

impl Endpoints {
    /// Reads block `number` a second time, by an operation that is not hedged and moves nobody: on
    /// an endpoint that did not serve it before, the one in use last of those. Where each that
    /// answers did serve it, two are read and `in_both` says what both of them show; where there is
    /// but one, its own. Where nobody is remembered, the first that answers is read.
    ///
    /// # Errors
    /// As [`Endpoints::run`].
    pub async fn second_opinion<T, F, Fut>(&self, number: u64, in_both: impl Fn(T, T) -> T, operation: F) -> Result<T, Error>
    where
        F: Fn(Endpoint) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let served = lock(&self.sources).of(number);
        let mut order = self.order(Prefer::Other, self.current());
        order.sort_by_key(|slot| served.is_some_and(|served| served.includes(slot.index)));
        let mut refusals = Refusals::default();
        let mut own_word = None;
        for slot in order {
            let Some((index, read)) = self.attempt_noting(vec![slot], Hedging::Off, &operation, &mut refusals).await else { continue };
            if served.is_none_or(|served| !served.includes(index)) {
                return Ok(read);
            }
            match own_word.take() {
                None => own_word = Some(read),
                Some(first) => return Ok(in_both(first, read)),
            }
        }
        own_word.ok_or_else(|| refusals.into_error(&self.network))
    }

    /// The blocks in runs that the same endpoints served, each run in one piece.
    #[must_use]
    pub fn in_runs<'a>(&self, blocks: &'a [BlockRef]) -> Vec<&'a [BlockRef]> {
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
