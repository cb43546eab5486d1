//! Where decided values go: the [`Chain`] trait, and the embedded hash-chained
//! [`Ledger`] for development and tests.

mod api;
pub mod faults;
mod key;
pub mod ledger;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use api::{Block, BlockTransaction, Chain, ChainError};
pub use key::ChainKey;
pub use ledger::{Ledger, LedgerOptions};
