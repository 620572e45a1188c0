//! Tidegate: the program around the pure rules, the vault and the chains.

pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod dev;
pub mod follow;
pub mod gateway;
pub mod http;
pub mod notify;
pub mod orders;
pub mod pages;
pub mod pool;
pub mod problem;
pub mod start;
pub mod store;
