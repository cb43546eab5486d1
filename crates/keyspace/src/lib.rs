//! The board laid out over a key-value store with revisions, such as etcd: which
//! keys an operation compares and puts, and what the keys that are read back mean.
//! Pure: no client, no clock, no async.
//!
//! # The log is the keys
//!
//! Every accepted operation is one *record*: a key that is created once and never
//! overwritten (a vote under `votes/`, everything else under `log/`). The store's
//! revision of a record's creation, and its place in its transaction, put all
//! records into one order that every reader sees alike. What the records mean is the
//! pure board's business: a reader applies them in that order to a
//! [`Board`](quorate_consensus::board::Board) of its own, and numbers those that
//! changed it. So the store decides nothing: a record that the board refuses is no
//! part of the log, and is removed.
//!
//! All other keys are *views* for people and for guards: what is in force at the
//! moment, readable with `etcdctl`. No reader believes one; each derives what a view
//! must say, and puts it right when it says something else.
//!
//! # No lock, no leader
//!
//! A vote needs its own key to be absent and nothing more, so votes of many nodes
//! pass each other without waiting. Whatever depends on votes (a move, a
//! reservation, a ban) names the keys that it was derived from and the revision at
//! which they were read: the store refuses it when one of them changed since.
//!
//! # A store that lies
//!
//! A reader keeps what it has believed. What vanishes or is overwritten is put back,
//! with the place in the order that it had; what appears with a place in the past is
//! removed; each is a [`Finding`].

mod attempt;
mod batch;
mod follow;
mod kv;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod names;
mod plan;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod view;

pub use attempt::{Attempt, Next};
pub use batch::{Ask, Batch, Deferred, Planned, Verdict};
pub use follow::{Mark, Past, Resume, UpTo};
pub use kv::{Change, Guard, KeyValue, Step, Write};
pub use reader::{Finding, Reader, Reply, Taken, What};
pub use record::{OpId, Position, Record};
