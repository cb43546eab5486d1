//! The driver of one engine: it carries the engine's effects out with tonic, the
//! coordinator, SQL, the chain and the clock, and holds no rule of its own.
//!
//! Reading order: [`config`] and [`parts`] are what a node is made from, [`lifecycle`]
//! starts and ends it, `driver` is the loop around the engine, [`exchange`] the streams
//! between nodes, `service` what clients call, `operator` what operators do, [`status`] the table of errors,
//! [`journal`] what must never be forgotten, `kept` what was believed,
//! [`mod@reconcile`] how a board that lost some of it gets it back, [`health`] and
//! [`alerts`] what the node says about itself.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::panic, clippy::expect_used)
)]

pub mod alerts;
mod certificates;
mod clock;
mod collector;
pub mod config;
mod driver;
pub mod exchange;
mod faults;
mod feed;
mod follower;
pub mod health;
pub mod journal;
mod kept;
pub mod lifecycle;
mod mailbox;
mod metrics;
mod network;
mod operator;
pub mod parts;
mod peer_clocks;
mod prewarm;
mod projector;
pub mod reconcile;
pub mod record;
mod seen;
mod server;
mod service;
pub mod status;
pub mod stores;
mod strangers;
mod told;
mod traces;

pub use config::{Config, ConfigError};
pub use driver::Stopped;
pub use faults::{Faults, Freezer, OnEffect, Verdict};
pub use health::beats::Loop;
pub use health::{Cause, HealthLimits, Readiness};
pub use lifecycle::{Node, NodeHandle};
pub use metrics::Counts;
pub use network::{Hurt, Network};
pub use parts::{Limits, Parts, StartError};
