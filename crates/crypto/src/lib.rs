//! Signatures and the files that hold keys: one verification predicate for the
//! whole cluster, signing keys that do not leak, member records, and the genesis
//! rules document made from them.
//!
//! Reading order: [`verify`] is the predicate, [`cache`] remembers what it said,
//! [`key`] signs, [`mod@file`] is how anything gets to disk, [`member`] and [`genesis`]
//! are what a cluster starts from.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::panic, clippy::expect_used)
)]

pub mod cache;
pub mod file;
pub mod genesis;
pub mod key;
pub mod member;
pub mod verify;

pub use cache::CachedVerifier;
pub use file::FileError;
pub use genesis::{GenesisError, GenesisParams, init_rules, make_genesis, read_genesis};
pub use key::{KeyError, SigningKey};
pub use member::{MemberError, make_member_record, read_member, write_member};
pub use verify::{Ed25519Verifier, VerifyItem, verify_batch};
