//! The audit store: the durable SQL record of what the cluster did. Two things write
//! to it: the submission fences that an engine asks for before it sends anything
//! ([`AuditStore::ask`]), and the projection of the board's log
//! ([`AuditStore::project`]), whose rows and reached revision go into one SQL
//! transaction, so that a stopped database loses nothing and a restart repeats
//! nothing.

pub mod archive;
mod aside;
mod change;
mod evidence;
mod fence;
mod lineage;
pub mod mark;
mod page;
pub mod parting;
pub mod postgres;
pub mod rows;
pub mod seal;
pub mod sqlite;
mod store;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod time;
pub mod verify;

pub use lineage::Lineage;
pub use mark::Mark;
pub use postgres::PostgresAudit;
pub use rows::SubmissionCounts;
pub use sqlite::SqliteAudit;
pub use store::{AuditError, AuditStore};
