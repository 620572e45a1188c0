//! Reads settled blocks again. Another endpoint than the one that read them first is asked for all
//! logs of the token by range, topics unnamed: two requests for a whole chain of blocks. The
//! endpoint that read them first, should there be no other, is asked for the receipts of each block
//! instead, which are not found by its index of logs: one request a block.
//!
//! One header proves them all: each block names its parent by hash, so where the last of them
//! stands, all of them stand. It is asked for together with the logs, and looked at first.

use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tidegate_rules::block::BlockRef;

use super::rpc::{Call, Meaning};
use super::wire::{self, Header};
use super::{EvmChain, Which, block_call, format_address, hex, read_header};
use crate::endpoints::{Endpoint, Failure};
use crate::second_reading::{SecondReading, same};
use crate::transfer_log::Found;

/// How many blocks' receipts are under way at once: a full block has megabytes of them.
const RECEIPTS_AT_ONCE: usize = 4;

impl EvmChain {
    pub(super) async fn second_reading_on(&self, endpoint: Endpoint, blocks: &[BlockRef]) -> Result<Vec<SecondReading>, Failure> {
        let endpoint = &endpoint;
        self.prove(endpoint).await?;
        let is_first_reader = self.first_reader.load(Ordering::Relaxed) == endpoint.index();
        if is_first_reader && let Some(read) = self.by_receipts(endpoint, blocks).await? {
            return Ok(read);
        }
        let mut read = Vec::with_capacity(blocks.len());
        let mut left = blocks;
        while !left.is_empty() {
            let range = self.lore.get(endpoint.index()).map(|lore| &lore.range);
            let size = range.map_or(1, super::Learned::get).min(u32::try_from(left.len()).unwrap_or(u32::MAX));
            let (now, later) = left.split_at_checked(size as usize).unwrap_or((left, &[]));
            let [first, ..] = now else { break };
            let last = now.last().unwrap_or(first);
            let calls = [self.token_logs_call(first, last), block_call(Which::Number(last.number))];
            let told = self.rpc.many(endpoint, &calls).await?;
            let [logs, header] = told.as_slice() else { return Err(wire::moved(last.number)) };
            let stands = read_header(header, Which::Number(last.number))?.ok_or_else(|| lacks(last))?;
            if stands.at.hash != last.hash {
                return self.after_a_fork(endpoint, read, left).await;
            }
            match logs {
                Err(error) if error.meaning() == Meaning::TooMuch && size > 1 => {
                    if let Some(range) = range {
                        range.refused(size);
                    }
                    continue;
                }
                Err(error) => return Err(error.failure("eth_getLogs")),
                Ok(logs) => {
                    let headers: Vec<Header> = now.iter().copied().map(Header::known).collect();
                    let found = wire::read_logs(logs.get(), &headers, &self.config.token)?;
                    read.extend(now.iter().zip(found).map(|(at, found)| SecondReading::Same(found.into_block(*at))));
                }
            }
            if let Some(range) = range {
                range.served(size);
            }
            left = later;
        }
        Ok(read)
    }

    /// The last of the blocks that are left is no longer there: which of them are, and what stands
    /// in the place of the others. Those that are there are read one by one, which is rare.
    async fn after_a_fork(
        &self,
        endpoint: &Endpoint,
        mut read: Vec<SecondReading>,
        left: &[BlockRef],
    ) -> Result<Vec<SecondReading>, Failure> {
        let calls: Vec<Call> = left.iter().map(|block| block_call(Which::Number(block.number))).collect();
        let told = self.rpc.many(endpoint, &calls).await?;
        let header = |(told, block): (_, &BlockRef)| read_header(told, Which::Number(block.number))?.ok_or_else(|| lacks(block));
        let now: Vec<Header> = told.iter().zip(left).map(header).collect::<Result<_, Failure>>()?;
        let refs: Vec<BlockRef> = now.iter().map(|header| header.at).collect();
        let (whole, replaced) = now.split_at_checked(same(left, &refs)).unwrap_or((&now, &[]));
        for header in whole {
            let logs = self.rpc.one(endpoint, &self.all_logs_call(header)).await?;
            read.push(SecondReading::Same(self.read_logs_of(&logs, header)?.into_block(header.at)));
        }
        read.extend(replaced.iter().map(|header| SecondReading::Replaced(header.at)));
        Ok(read)
    }

    /// `None` where the endpoint does not offer receipts of whole blocks, or a block has changed.
    async fn by_receipts(&self, endpoint: &Endpoint, blocks: &[BlockRef]) -> Result<Option<Vec<SecondReading>>, Failure> {
        let Some(last) = blocks.last() else { return Ok(Some(Vec::new())) };
        let stands = self.header_on(endpoint, Which::Number(last.number)).await?.ok_or_else(|| lacks(last))?;
        if stands.at.hash != last.hash {
            return Ok(None);
        }
        let headers: Vec<Header> = blocks.iter().copied().map(Header::known).collect();
        let headers = &headers;
        let read = (0..headers.len()).map(|place| async move {
            let header = headers.get(place).ok_or_else(|| lacks(last))?;
            self.receipts_of(endpoint, header).await
        });
        let found: Vec<Option<Found>> = stream::iter(read).buffered(RECEIPTS_AT_ONCE).try_collect().await?;
        let same = |(at, found): (&BlockRef, Option<Found>)| found.map(|found| SecondReading::Same(found.into_block(*at)));
        Ok(blocks.iter().zip(found).map(same).collect())
    }

    /// Every log of the token in these blocks.
    fn token_logs_call(&self, first: &BlockRef, last: &BlockRef) -> Call {
        let token = format_address(&self.config.token).to_lowercase();
        let filter = json!([{ "fromBlock": hex(first.number), "toBlock": hex(last.number), "address": token }]);
        Call { method: "eth_getLogs", params: filter }
    }
}

fn lacks(block: &BlockRef) -> Failure {
    Failure::Behind(format!("it does not have block {}", block.number))
}
