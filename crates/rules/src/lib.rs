//! What a payment gateway decides, and nothing else.
//!
//! Every function here is total and pure: it takes facts and returns decisions. There is no
//! clock, no randomness, no database, no network and no async in this crate, and its manifest
//! proves it. The rest of the program brings facts in and carries decisions out.
//!
//! Start with [`lease::claim`] (whose money is this?), [`order::advance`] (what does it change?)
//! and [`follow::next`] (which blocks may be believed?).

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)
)]

pub mod alert;
pub mod amount;
pub mod audit;
pub mod block;
pub mod books;
pub mod changes;
pub mod follow;
pub mod id;
pub mod lease;
pub mod membership;
pub mod notice;
pub mod notification;
pub mod notify;
pub mod order;
pub mod people;
pub mod risk;
pub mod time;
pub mod totp;
pub mod wallet;
pub mod watch;
pub mod webhook_endpoint;
