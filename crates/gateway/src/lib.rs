//! Tidegate: the program around the pure rules, the vault and the chains.

pub mod clock;
pub mod store;
