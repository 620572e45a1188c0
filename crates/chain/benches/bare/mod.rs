//! Everything in an info, borrowed: what a parse without a purpose would do.

#![allow(dead_code, reason = "the fields are parsed, which is the measurement, and never read")]

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionInfo<'a> {
    id: &'a str,
    fee: Option<u64>,
    block_number: u64,
    block_time_stamp: u64,
    #[serde(borrow)]
    contract_result: Vec<&'a str>,
    #[serde(rename = "contract_address")]
    contract_address: Option<&'a str>,
    receipt: Receipt<'a>,
    #[serde(default)]
    log: Vec<Log<'a>>,
    result: Option<&'a str>,
    res_message: Option<&'a str>,
    #[serde(rename = "internal_transactions", default)]
    internal_transactions: Vec<Internal<'a>>,
}

#[derive(Deserialize)]
struct Receipt<'a> {
    energy_usage: Option<u64>,
    energy_fee: Option<u64>,
    energy_usage_total: Option<u64>,
    net_usage: Option<u64>,
    net_fee: Option<u64>,
    #[serde(borrow)]
    result: Option<&'a str>,
    energy_penalty_total: Option<u64>,
}

#[derive(Deserialize)]
struct Log<'a> {
    address: &'a str,
    #[serde(borrow)]
    topics: Vec<&'a str>,
    data: Option<&'a str>,
}

#[derive(Deserialize)]
struct Internal<'a> {
    hash: &'a str,
    caller_address: &'a str,
    #[serde(rename = "transferTo_address")]
    to: &'a str,
    note: &'a str,
}
