//! Balances of many addresses at one block: by Multicall3 where the chain has it, else by a
//! contract that a node only pretends to create, else one by one.
//!
//! Which of these an endpoint offers is found out once. Whatever the way, all balances are of one
//! block, and the answer says which. Multicall3 tells its own block; the other two are asked at a
//! number. On Arbitrum a contract sees the number of a block of Ethereum, so what Multicall3 says
//! is compared once with the head, and where it is of another chain it is asked at a number, too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tidegate_rules::amount::Raw;
use tidegate_rules::block::Address;

use super::rpc::{Call, Meaning, Told};
use super::{EvmChain, Which, block_call, format_address, hex, no_head, read_header, wire};
use crate::abi;
use crate::balances::{BALANCE_OF, Balances, GET_BLOCK_NUMBER, SINGLE_BALANCES_AT_ONCE, Unanswered};
use crate::balances::{aggregate, deployless, read_aggregate, read_deployless, read_single};
use crate::endpoints::{Endpoint, Failure};

/// Multicall3, at the same address on nearly every chain (github.com/mds1/multicall3).
pub const MULTICALL3: Address =
    Address([0xca, 0x11, 0xbd, 0xe0, 0x59, 0x77, 0xb3, 0x63, 0x11, 0x67, 0x02, 0x88, 0x62, 0xbe, 0x2a, 0x17, 0x39, 0x76, 0xca, 0x11]);

/// Further apart, the head and the block that a contract sees are not of one chain.
const FOREIGN_BLOCKS: u64 = 1_000;

/// How an endpoint gives balances.
#[derive(Debug, Default)]
pub(super) struct BalanceLore {
    multicall: OnceLock<Multicall>,
    /// It does not pretend to create a contract.
    no_deployless: AtomicBool,
}

/// What Multicall3 is on a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Multicall {
    /// There, and it knows which block it is called on.
    Here,
    /// There, and the number that it sees is of another chain's block.
    Foreign,
    Absent,
}

/// The block that calls are made on.
#[derive(Clone, Copy)]
enum At {
    Latest,
    Number(u64),
}

impl At {
    fn tag(self) -> String {
        match self {
            Self::Latest => "latest".into(),
            Self::Number(number) => hex(number),
        }
    }
}

impl EvmChain {
    pub(super) async fn balances_on(&self, endpoint: Endpoint, addresses: &[Address]) -> Result<Balances, Failure> {
        self.prove(&endpoint).await?;
        let mut calls = 0;
        let multicall = self.multicall(&endpoint, &mut calls).await?;
        if multicall == Multicall::Here
            && let Some(found) = self.by_multicall(&endpoint, addresses, At::Latest, &mut calls).await?
        {
            return Ok(found);
        }
        let at = self.head_number(&endpoint, &mut calls).await?;
        if multicall == Multicall::Foreign
            && let Some(found) = self.by_multicall(&endpoint, addresses, At::Number(at), &mut calls).await?
        {
            return Ok(found);
        }
        let no_deployless = self.lore.get(endpoint.index()).map(|lore| &lore.balances.no_deployless);
        let mut refused = None;
        if no_deployless.is_none_or(|no| !no.load(Ordering::Relaxed)) {
            match self.by_creation(&endpoint, addresses, at, &mut calls).await? {
                Ok(values) => return Ok(Balances { at, values, calls }),
                Err(why) => refused = Some(why),
            }
        }
        let values = self.one_by_one(&endpoint, addresses, at, &mut calls).await?;
        // Only now is it known that the endpoint was well and did not like that way of asking.
        if let (Some(no_deployless), Some(Refused::NotOffered)) = (no_deployless, refused) {
            no_deployless.store(true, Ordering::Relaxed);
        }
        Ok(Balances { at, values, calls })
    }

    /// What Multicall3 is here, found out once.
    async fn multicall(&self, endpoint: &Endpoint, calls: &mut u32) -> Result<Multicall, Failure> {
        let known = self.lore.get(endpoint.index()).map(|lore| &lore.balances.multicall);
        if let Some(multicall) = known.and_then(OnceLock::get) {
            return Ok(*multicall);
        }
        let asked = [block_call(Which::Tag("latest")), eth_call(Some(&MULTICALL3), GET_BLOCK_NUMBER, At::Latest)];
        count(calls, asked.len());
        let told = self.rpc.many(endpoint, &asked).await?;
        let [head, number] = told.as_slice() else { return Err(no_head()) };
        let head = read_header(head, Which::Tag("latest"))?.ok_or_else(no_head)?.at.number;
        let number = match number {
            Ok(returned) => wire::read_bytes(returned.get())?.try_into().ok().and_then(|word: [u8; 32]| abi::small(&word)),
            Err(error) if error.is_reverted() => None,
            Err(error) => return Err(error.failure("eth_call")),
        };
        let multicall = match number {
            None => Multicall::Absent,
            Some(number) if number.abs_diff(head) > FOREIGN_BLOCKS => Multicall::Foreign,
            Some(_) => Multicall::Here,
        };
        Ok(known.map_or(multicall, |known| *known.get_or_init(|| multicall)))
    }

    /// `None` when the endpoint does not want to do so much at once.
    async fn by_multicall(&self, endpoint: &Endpoint, addresses: &[Address], at: At, calls: &mut u32) -> Result<Option<Balances>, Failure> {
        let call = eth_call(Some(&MULTICALL3), &aggregate(&MULTICALL3, &self.config.token, addresses), at);
        count(calls, 1);
        let Ok(answer) = accepted(self.rpc.one(endpoint, &call).await?)? else { return Ok(None) };
        match read_aggregate(&answer, addresses.len()) {
            Ok((seen, values)) => {
                let at = if let At::Number(number) = at { number } else { seen };
                Ok(Some(Balances { at, values, calls: *calls }))
            }
            Err(unanswered) => Err(unanswered.failure(addresses, format_address)),
        }
    }

    async fn by_creation(
        &self,
        endpoint: &Endpoint,
        addresses: &[Address],
        at: u64,
        calls: &mut u32,
    ) -> Result<Result<Vec<Raw>, Refused>, Failure> {
        let call = eth_call(None, &deployless(&self.config.token, addresses), At::Number(at));
        count(calls, 1);
        let answer = match accepted(self.rpc.one(endpoint, &call).await?)? {
            Ok(answer) => answer,
            Err(refused) => return Ok(Err(refused)),
        };
        match read_deployless(&answer, addresses.len()) {
            // A node that answers of another block than it was asked for. (A number far off is of
            // another chain's block, and says nothing.)
            Ok((Some(seen), _)) if seen != at && seen.abs_diff(at) <= FOREIGN_BLOCKS => {
                Err(Failure::Behind(format!("asked for balances at block {at}, got some of block {seen}")))
            }
            Ok((_, values)) => Ok(Ok(values)),
            Err(Unanswered::Garbled) => Ok(Err(Refused::NotOffered)),
            Err(unanswered) => Err(unanswered.failure(addresses, format_address)),
        }
    }

    async fn one_by_one(&self, endpoint: &Endpoint, addresses: &[Address], at: u64, calls: &mut u32) -> Result<Vec<Raw>, Failure> {
        count(calls, addresses.len());
        let questions: Vec<(usize, String)> = addresses.iter().map(abi::parameter).enumerate().collect();
        let ask = |(place, parameter): (usize, String)| async move {
            let call = eth_call(Some(&self.config.token), &format!("{BALANCE_OF}{parameter}"), At::Number(at));
            let returned = self.rpc.one(endpoint, &call).await?.map_err(|error| error.failure("eth_call"))?;
            let value = read_single(&wire::read_bytes(returned.get())?);
            value.ok_or_else(|| Unanswered::Token(place).failure(addresses, format_address))
        };
        stream::iter(questions).map(ask).buffered(SINGLE_BALANCES_AT_ONCE).try_collect().await
    }

    async fn head_number(&self, endpoint: &Endpoint, calls: &mut u32) -> Result<u64, Failure> {
        count(calls, 1);
        Ok(self.header_on(endpoint, Which::Tag("latest")).await?.ok_or_else(no_head)?.at.number)
    }
}

/// Why an endpoint did not make a call that asks for much at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It does not do such a thing.
    NotOffered,
    /// It gave up in the middle. The next time it may be quicker.
    TooSlow,
}

/// The bytes of a call that was answered, or that the endpoint refused this call and may well serve
/// a smaller or simpler one. An endpoint that is busy, behind or locked serves none.
fn accepted(told: Told) -> Result<Result<Vec<u8>, Refused>, Failure> {
    match told {
        Ok(returned) => wire::read_bytes(returned.get()).map(Ok),
        Err(error) if !matches!(error.meaning(), Meaning::TooMuch | Meaning::Other) => Err(error.failure("eth_call")),
        Err(error) => {
            let text = error.message.to_ascii_lowercase();
            let slow = ["timeout", "timed out", "time out"].iter().any(|words| text.contains(words));
            Ok(Err(if slow { Refused::TooSlow } else { Refused::NotOffered }))
        }
    }
}

/// A call of a contract, or without `to` the creation of one; `data` is hex without `0x`.
fn eth_call(to: Option<&Address>, data: &str, at: At) -> Call {
    let mut call = json!({ "data": format!("0x{data}") });
    if let (Some(call), Some(to)) = (call.as_object_mut(), to) {
        call.insert("to".into(), Value::from(format_address(to).to_lowercase()));
    }
    Call { method: "eth_call", params: json!([call, at.tag()]) }
}

fn count(calls: &mut u32, more: usize) {
    *calls = calls.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
}
