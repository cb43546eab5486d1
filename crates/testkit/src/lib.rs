//! For tests only: clusters whose members sign with a fake scheme, fast, pure and
//! the same on every run. [`Cluster`] makes rules and statements, [`ops`] wraps
//! statements into operations on the board. With the feature `servers`, module
//! `servers` starts real servers that die with the test.
//!
//! Nothing here protects anything: who knows a public key can sign with it. Wrong
//! arguments panic, as is right in a test.

mod cluster;
pub mod ops;
mod scheme;
#[cfg(feature = "servers")]
pub mod servers;

pub use cluster::{Cluster, NOW, Options, data, number, tx};
pub use scheme::{FakeVerifier, fake_key, fake_signature};
