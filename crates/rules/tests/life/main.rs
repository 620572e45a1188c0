//! The whole life of orders, as text tables: one line a step, the expectation at the line's end.
//!
//! The tables follow `payment-rules` sentence by sentence. [`world`] is a small simulated gateway
//! that does what the real follower does and checks the laws at every step; [`table`] is the
//! language of the tables; each table runs under every way of being fed.

mod clocks;
mod counts;
mod deposits;
mod events;
mod following;
mod laws;
mod leases;
mod people;
mod reverted;
mod settled;
mod status;
mod table;
mod world;
