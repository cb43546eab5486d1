//! What one trustee decides to do, as a pure state machine: events in, effects out.
//! No clock, no randomness, no socket, no file, no async; the real node and the
//! simulator drive the same code.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::panic, clippy::expect_used)
)]

pub mod api;
mod engine;

pub use api::*;
pub use engine::{Config, Engine, Load, PROTOCOL_MIN, PROTOCOL_VERSION};
pub use quorate_gossip::Counts as MeshCounts;
