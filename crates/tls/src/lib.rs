//! Certificates, who they name, and the mutually authenticated TLS 1.3 connections
//! made with them. What a method allows to whom is not decided here, and a node
//! certificate alone makes nobody a member: that takes a signed hello.
//!
//! Reading order: [`identity`] is what a certificate says, [`pki`] makes certificates
//! in files, [`material`] is a node's certificates in use, [`listener`] accepts,
//! [`client`] dials, [`outward`] dials servers that are none of ours, [`registry`] ends
//! what must end.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::panic, clippy::expect_used)
)]

pub mod client;
mod connection;
mod error;
pub mod identity;
pub mod listener;
pub mod material;
pub mod outward;
pub mod pki;
mod places;
mod refused;
pub mod registry;
mod stamps;
mod verifier;

pub use client::{
    ClientPaths, ClientTls, DialError, DialOptions, Dialled, ExpectedPeer, connect, connect_any,
    dial, explain,
};
pub use connection::{Connection, PeerInfo};
pub use error::TlsError;
pub use identity::{Identity, IdentityError, Role, Serial};
pub use listener::{Counters, Listener, ListenerOptions};
pub use material::{Expiries, TlsMaterial, TlsPaths};
pub use outward::{OutwardPaths, OutwardTls};
pub use refused::{Refusal, Refused};
pub use registry::Registry;
