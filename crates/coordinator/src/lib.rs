//! What keeps the board: the [`Coordinator`] trait and its backends.
//!
//! A backend does one thing, it puts operations into one order that everybody sees
//! alike. What an operation means is the pure board's business
//! ([`quorate_consensus::board`]), and no reader has to believe a backend: each node
//! replays the log for itself.

mod api;
pub mod embedded;
pub mod etcd;
#[cfg(feature = "suite")]
pub mod suite;
pub mod testing;

pub use api::{Coordinator, MemberStatus, StoreError, Tampering};
pub use embedded::Embedded;
pub use etcd::Etcd;
