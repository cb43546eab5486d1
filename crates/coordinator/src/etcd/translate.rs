//! Between the keyspace's plain types and etcd's.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, Event, EventType, PutOptions, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};
use quorate_keyspace::{Batch, Change, Guard, KeyValue, Step, Write};

/// The first key after all keys with a prefix.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // A prefix of nothing: all keys.
    vec![0]
}

/// A batch as one transaction: the writes that always happen, and a transaction of
/// its own for each step.
pub(super) fn batch(batch: &Batch, prefix: &str, leases: &[(String, i64)]) -> Txn {
    let always = batch
        .writes
        .iter()
        .map(|write| operation(write, prefix, leases));
    let steps = batch
        .steps
        .iter()
        .map(|(_, one)| TxnOp::txn(step(one, prefix, leases)));
    Txn::new().and_then(always.chain(steps).collect::<Vec<_>>())
}

/// So many writes one transaction of a step holds. etcd takes 128 operations in all
/// transactions that lie in each other: 65 of a batch, and 31 parts of so many.
const MOST_WRITES: usize = 32;

/// A step as a transaction.
pub(super) fn step(step: &Step, prefix: &str, leases: &[(String, i64)]) -> Txn {
    let guards: Vec<_> = step
        .guards
        .iter()
        .map(|guard| compare(guard, prefix))
        .collect();
    let writes = step
        .writes
        .iter()
        .map(|write| operation(write, prefix, leases));
    let writes: Vec<_> = writes.collect();
    if writes.len() <= MOST_WRITES {
        return Txn::new().when(guards).and_then(writes);
    }
    // A ballot that expires moves all its votes. etcd counts the operations of each
    // transaction, and of those above it.
    let parts = writes.chunks(MOST_WRITES);
    let parts = parts.map(|part| TxnOp::txn(Txn::new().and_then(part)));
    Txn::new().when(guards).and_then(parts.collect::<Vec<_>>())
}

fn compare(guard: &Guard, prefix: &str) -> Compare {
    let after = |at: &u64| i64::try_from(at.saturating_add(1)).unwrap_or(i64::MAX);
    match guard {
        Guard::Absent(key) => {
            Compare::create_revision(format!("{prefix}{key}"), CompareOp::Equal, 0)
        }
        Guard::Unchanged(key, at) => {
            Compare::mod_revision(format!("{prefix}{key}"), CompareOp::Less, after(at))
        }
        Guard::AllUnchanged(under, at) => {
            Compare::mod_revision(format!("{prefix}{under}"), CompareOp::Less, after(at))
                .with_prefix()
        }
        Guard::At(key, at) => Compare::mod_revision(
            format!("{prefix}{key}"),
            CompareOp::Equal,
            i64::try_from(*at).unwrap_or(i64::MAX),
        ),
    }
}

fn operation(write: &Write, prefix: &str, leases: &[(String, i64)]) -> TxnOp {
    match write {
        Write::Put { key, value, .. } => {
            let lease = leases.iter().find(|(leased, _)| leased == key);
            let options = lease.map(|(_, id)| PutOptions::new().with_lease(*id));
            TxnOp::put(format!("{prefix}{key}"), value.clone(), options)
        }
        Write::Delete(key) => TxnOp::delete(format!("{prefix}{key}"), None),
        Write::DeleteAll(under) => TxnOp::delete(
            format!("{prefix}{under}"),
            Some(DeleteOptions::new().with_prefix()),
        ),
    }
}

/// The revision of a transaction, and for each step whether its guards held; none if
/// the answer is not one to what was asked.
pub(super) fn outcome(
    answer: &TxnResponse,
    writes: usize,
    steps: usize,
) -> Option<(u64, Vec<bool>)> {
    let revision = u64::try_from(answer.header()?.revision()).ok()?;
    let held = answer
        .op_responses()
        .into_iter()
        .skip(writes)
        .map(|one| match one {
            TxnOpResponse::Txn(one) => Some(one.succeeded()),
            _ => None,
        });
    let held: Vec<_> = held.collect::<Option<_>>()?;
    (held.len() == steps).then_some((revision, held))
}

/// A key of ours; none for one that is no text, which no node wrote.
pub(super) fn key_value(kv: &etcd_client::KeyValue, prefix: &str) -> Option<KeyValue> {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    Some(KeyValue {
        key: kv.key_str().ok()?.strip_prefix(prefix)?.to_owned(),
        value: kv.value().to_vec(),
        create_revision: unsigned(kv.create_revision()),
        mod_revision: unsigned(kv.mod_revision()),
        version: unsigned(kv.version()),
    })
}

/// A change with its revision.
pub(super) fn change(event: &Event, prefix: &str) -> Option<(u64, Change)> {
    let kv = key_value(event.kv()?, prefix)?;
    let revision = kv.mod_revision;
    let change = match event.event_type() {
        EventType::Put => Change::Put(kv),
        EventType::Delete => Change::Delete(kv.key),
    };
    Some((revision, change))
}
