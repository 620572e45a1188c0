//! Tidegate: the program around the pure rules, the vault and the chains.
//!
//! The parts are put together in [`start`] and live in [`gateway::Gateway`]; [`follow`] is where
//! money is seen, [`orders`] where it is asked for, [`notify`] where shops are told.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)
)]

pub mod alerts;
pub mod archive;
pub mod backup;
pub mod balances;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod demo;
pub mod dev;
pub mod duties;
pub mod follow;
pub mod gateway;
pub mod hints;
pub mod http;
pub mod inbox;
pub mod keyring;
pub mod logging;
pub mod loops;
pub mod metrics;
pub mod notices;
pub mod notify;
pub mod orders;
mod outcome;
pub mod pages;
pub mod people;
pub mod plans;
pub mod pool;
pub mod problem;
pub mod providers;
pub mod quotes;
pub mod rate;
pub mod retention;
pub mod rotate;
pub mod safe;
pub mod signals;
pub mod single_flight;
pub mod sources;
pub mod start;
pub mod store;
pub mod tls;
#[cfg(feature = "otlp")]
pub mod traces;
pub mod transactions;
pub mod webhook_endpoints;
