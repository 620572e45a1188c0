//! Black-box tests: the real `tidegate` process on real ground (Anvil, SQLite, PostgreSQL,
//! Redis, Chromium), driven from outside through what `docs/api.md` promises and nothing else.
//!
//! First come the actors: [`anvil`] a chain, [`gateway`] the program under test, [`receiver`] a
//! shop's webhook listener, [`api`] a client, [`postgres`] a database server, [`redis`] a cache,
//! [`mail`] a mail server, [`certificates`] an authority, [`shop`] all of them set up together. Then the stories, one module a subject. No test sleeps to
//! let something happen: it waits for what it wants to see ([`wait::eventually`]) and fails with the
//! last thing it saw. Every process has a port of its own choosing, a directory of its own, and dies
//! with its test.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test stands outside the walls: it reads the clock, makes its own randomness and speaks bare HTTP"
)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "what a failed test saw (seeds, answers, process output) is printed for its reader"
)]
#![allow(missing_docs, unreachable_pub, reason = "nothing here is a public interface")]
#![allow(
    clippy::needless_pass_by_value,
    clippy::large_futures,
    clippy::result_large_err,
    reason = "tests favour short calls over copies saved"
)]

mod anvil;
mod api;
mod certificates;
mod evm;
mod gateway;
mod mail;
mod operator;
mod postgres;
mod process;
mod proxy;
mod receiver;
mod redis;
mod shop;
mod wait;

mod api_docs;
mod api_errors;
mod cache;
mod checkout_browser;
mod checkout_hash;
mod deploy;
mod dev;
mod doors;
mod endpoints;
mod example_shop;
mod growth;
mod headers;
mod health;
mod hints;
mod instances;
mod kill;
mod load;
mod log;
mod many_receivers;
mod metrics;
mod money;
mod monitoring;
mod moving;
mod notices;
mod orders;
mod outages;
mod payment_on_anvil;
mod payment_on_postgres;
mod people;
mod safe;
mod scan;
mod simulation;
mod start;
mod store_contract;
mod tls;
mod together;
mod tools;
#[cfg(feature = "otlp")]
mod traces;
mod webhook_endpoints;
