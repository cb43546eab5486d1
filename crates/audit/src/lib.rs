//! The audit store: the durable SQL record of what the cluster did. Two things write
//! to it: the submission fences that an engine asks for before it sends anything
//! ([`AuditStore::ask`]), and the projection of the board's log
//! ([`AuditStore::project`]), whose rows and reached revision go into one SQL
//! transaction, so that a stopped database loses nothing and a restart repeats
//! nothing.

pub mod rows;
mod store;

pub use store::{AuditError, AuditStore};
