//! The pure heart of Quorate: what a vote, a ballot, a rules document, a proof and
//! the board mean. No clock, no randomness, no socket, no file, no async; hashes
//! are computed here, signatures come in through [`Verifier`].
//!
//! Reading order: [`ids`] and [`choice`] are the words, [`statement`] what somebody
//! signed, [`rules`] who may decide, [`ballot`] one transaction's votes, [`fsm`] the
//! table of moves, [`detector`] what proves a lie, [`board`] the ordered record,
//! [`proof`] what a stranger can check offline, [`batch`] what peers say to each other,
//! [`words`] what people read.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::panic, clippy::expect_used)
)]

mod address;
pub mod ballot;
pub mod batch;
pub mod board;
pub mod choice;
pub mod detector;
pub mod fsm;
pub mod ids;
pub mod proof;
pub mod rules;
pub mod statement;
mod verifier;
pub mod words;

pub use address::{Address, AddressError};
pub use choice::{Choice, Value};
pub use ids::{ClusterId, NodeId, PeerId, RulesDigest, TxId};
pub use quorate_wire::v1 as wire;
pub use rules::Rules;
pub use verifier::{Domain, PublicKey, Verifier};
