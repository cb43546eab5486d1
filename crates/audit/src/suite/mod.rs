//! The suite that every audit store passes. A backend brings a [`Builder`]; nothing
//! here knows what kind of SQL lies below.

use std::sync::Arc;

use async_trait::async_trait;
use quorate_consensus::Rules;

use crate::store::{AuditError, AuditStore};

mod archive;
mod board;
mod fences;
mod forks;
mod projection;
pub(crate) mod script;
mod tampering;
mod trail;

/// Makes stores for the suite.
#[async_trait]
pub trait Builder: Send + Sync {
    /// A fresh place for a store, empty, shared with no other.
    async fn place(&self) -> Box<dyn Place>;
}

/// Where one store lies; it goes with the value.
#[async_trait]
pub trait Place: Send + Sync {
    /// Another handle on the store.
    async fn open(&self, rules: Arc<Rules>) -> Result<Arc<dyn AuditStore>, AuditError>;

    /// Runs one statement of SQL past the store, as somebody who owns the database can.
    async fn sql(&self, statement: &str) -> Result<(), String>;

    /// Takes away what stops the owner from changing violations, as an owner can.
    async fn unlock(&self);
}

/// Runs every test of the suite, one after the other, each in a place of its own.
///
/// # Panics
/// When the backend does not behave; the message says where.
pub async fn run_all(builder: &dyn Builder) {
    projection::run_all(builder).await;
    trail::run_all(builder).await;
    fences::run_all(builder).await;
    forks::run_all(builder).await;
    board::run_all(builder).await;
    tampering::run_all(builder).await;
    archive::run_all(builder).await;
}
