//! Where decided values go: the [`Chain`] trait, and the embedded hash-chained ledger
//! for development and tests.

mod api;

pub use api::{Block, BlockTransaction, Chain, ChainError};
