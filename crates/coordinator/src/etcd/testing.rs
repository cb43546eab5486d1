//! For the test that holds the model of etcd against the real one: a batch as this
//! client sends it, and what it makes of the answer.

use etcd_client::{Txn, TxnResponse};
use quorate_keyspace::Batch;

use super::translate;

/// The batch as one transaction.
pub fn transaction(batch: &Batch, prefix: &str) -> Txn {
    translate::batch(batch, prefix, &[])
}

/// The revision, and for each step whether its guards held.
pub fn outcome(answer: &TxnResponse, batch: &Batch) -> Option<(u64, Vec<bool>)> {
    translate::outcome(answer, batch.writes.len(), batch.steps.len())
}
