//! Reads settled blocks again: all logs of the token by range, topics unnamed, two requests for a
//! whole chain of blocks. Another endpoint than those that served them is asked, should there be
//! one; else one that did, by this other way, and one of the blocks by its receipts. (All of
//! them would be gigabytes a day. Blocks that hold money of ours are read by receipts anyway, by
//! [`Chain::reread`](crate::Chain::reread).)
//!
//! One header proves them all: each block names its parent by hash, so where the last of them
//! stands, all of them stand. It is asked for together with the logs, and looked at first.

use serde_json::json;
use tidegate_rules::block::BlockRef;

use super::rpc::{Call, Meaning};
use super::wire::{self, Header};
use super::{EvmChain, Which, block_call, format_address, hex, read_header};
use crate::endpoints::{Endpoint, Failure, Opinion};
use crate::second_reading::{SecondReading, opinion, same};

impl EvmChain {
    pub(super) async fn second_reading_on(&self, endpoint: Endpoint, blocks: &[BlockRef]) -> Result<Opinion<Vec<SecondReading>>, Failure> {
        let endpoint = &endpoint;
        self.prove(endpoint).await?;
        let is_source = blocks.first().is_some_and(|block| self.endpoints.may_have_served(block.number, endpoint.index()));
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
                return self.after_a_fork(endpoint, read, left).await.map(opinion);
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
        if is_source {
            self.sample(endpoint, &mut read).await?;
        }
        Ok(opinion(read))
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

    /// Reads one of the blocks by its receipts, which are not found by the endpoint's index of logs,
    /// and puts what they hold in its place. Which one, nobody knows beforehand: its hash says so.
    async fn sample(&self, endpoint: &Endpoint, read: &mut [SecondReading]) -> Result<(), Failure> {
        let Some(SecondReading::Same(last)) = read.last() else { return Ok(()) };
        let chance = last.at.hash.0.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let place = chance.checked_rem(u64::try_from(read.len()).unwrap_or(1)).and_then(|place| usize::try_from(place).ok());
        let Some(SecondReading::Same(block)) = place.and_then(|place| read.get_mut(place)) else { return Ok(()) };
        if let Some(found) = self.receipts_of(endpoint, &Header::known(block.at)).await? {
            *block = found.into_block(block.at);
        }
        Ok(())
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
