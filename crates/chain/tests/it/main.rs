//! The adapters against nodes that behave as real nodes do, over real HTTP on port 0.
//!
//! Nothing here sleeps to wait for something. Where time must pass, the test moves tokio's clock.

mod anvil;
mod choice;
mod endpoints;
mod evm;
mod evm_node;
mod evm_questions;
mod hedge;
mod opinion;
mod server;
mod tron;
mod tron_node;
mod tron_questions;
mod tron_solid;
mod vectors;
mod witness;
