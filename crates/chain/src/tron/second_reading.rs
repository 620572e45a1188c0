//! Reads settled blocks again, from the view of what is solid where that has them: one request a
//! block that has transactions, two for one that has none.
//!
//! Infos hold no block hash. One header proves them all: each block names its parent by hash, so
//! where the last of them stands, all of them stand. What is solid cannot change; where the full
//! view had to be asked, the last header is looked at once more at the end.

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tidegate_rules::block::{Block, BlockRef};

use super::wire::{self, Header};
use super::{AT_ONCE, TronChain, View, parse_infos};
use crate::endpoints::{Endpoint, Failure, Opinion};
use crate::second_reading::{SecondReading, opinion, same};

impl TronChain {
    pub(super) async fn second_reading_on(&self, endpoint: Endpoint, blocks: &[BlockRef]) -> Result<Opinion<Vec<SecondReading>>, Failure> {
        self.prove(&endpoint).await?;
        let Some(last) = blocks.last() else { return Ok(Opinion::For(Vec::new())) };
        let solid = self.in_solid(&endpoint, self.second_reading_in(&endpoint, View::Solid, blocks, last)).await?;
        let read = match solid {
            Some(read) => Some(read),
            None => self.second_reading_in(&endpoint, View::Full, blocks, last).await?,
        };
        read.map(opinion).ok_or_else(|| lacks(last))
    }

    /// `None` where the last of the blocks is not in this view.
    async fn second_reading_in(
        &self,
        endpoint: &Endpoint,
        view: View,
        blocks: &[BlockRef],
        last: &BlockRef,
    ) -> Result<Option<Vec<SecondReading>>, Failure> {
        let Some(stands) = self.numbered(endpoint, view, last.number).await? else { return Ok(None) };
        let (whole, replaced) = if stands.at.hash == last.hash {
            (blocks, Vec::new())
        } else {
            let headers = (0..blocks.len()).map(|place| async move {
                let block = blocks.get(place).unwrap_or(last);
                Ok(self.numbered(endpoint, view, block.number).await?.ok_or_else(|| lacks(block))?.at)
            });
            let now: Vec<BlockRef> = stream::iter(headers).buffered(AT_ONCE).try_collect().await?;
            let (whole, _) = blocks.split_at_checked(same(blocks, &now)).unwrap_or((blocks, &[]));
            (whole, now.get(whole.len()..).unwrap_or_default().to_vec())
        };
        let read = (0..whole.len()).map(|place| async move {
            let block = whole.get(place).unwrap_or(last);
            self.read_again(endpoint, view, block).await.map(SecondReading::Same)
        });
        let mut read: Vec<SecondReading> = stream::iter(read).buffered(AT_ONCE).try_collect().await?;
        if let (View::Full, Some(last)) = (view, whole.last()) {
            let still = self.numbered(endpoint, view, last.number).await?;
            if still.is_none_or(|header| header.at.hash != last.hash) {
                return Err(moved(last));
            }
        }
        read.extend(replaced.into_iter().map(SecondReading::Replaced));
        Ok(Some(read))
    }

    async fn read_again(&self, endpoint: &Endpoint, view: View, block: &BlockRef) -> Result<Block, Failure> {
        let request = json!({ "num": block.number });
        let answer = endpoint.post(&view.path("gettransactioninfobyblocknum"), &request, 1).await?;
        let header = if wire::is_empty_list(&answer) {
            // Silence: only the header tells whether there was anything to say.
            let header = self.numbered(endpoint, view, block.number).await?.ok_or_else(|| lacks(block))?;
            if header.at.hash != block.hash {
                return Err(moved(block));
            }
            header
        } else {
            Header { at: *block, is_empty: false }
        };
        parse_infos(&answer, &header, &self.config.token)
    }
}

fn lacks(block: &BlockRef) -> Failure {
    Failure::Behind(format!("it does not have block {}", block.number))
}

fn moved(block: &BlockRef) -> Failure {
    Failure::Behind(format!("block {} changed while it was read", block.number))
}
