//! What the board tells, in the log: one event each, with the id of the transaction's
//! trace, which every trustee's node derives alike.

use quorate_consensus::ballot::state_name;
use quorate_consensus::wire::{BoardEntry, board_event};
use quorate_consensus::words::violation_word;
use quorate_consensus::{ClusterId, TxId};
use quorate_telemetry::TraceId;

/// The trace of a transaction as a field of an event; none for what is about no
/// transaction.
pub(crate) fn trace_of(cluster_id: &ClusterId, tx_id: &str) -> Option<String> {
    let tx_id = TxId::new(tx_id).ok()?;
    Some(TraceId::of(cluster_id, &tx_id).to_string())
}

/// Logs what an entry of the board says.
pub(crate) fn tell(cluster_id: &ClusterId, entry: &BoardEntry) {
    use board_event::Event as E;
    for event in &entry.events {
        let (revision, tx_id) = (event.revision, &event.tx_id);
        // Derived only if the event is wanted.
        let trace = || trace_of(cluster_id, tx_id);
        match &event.event {
            Some(E::StateChanged(change)) => tracing::info!(
                revision, %tx_id, trace_id = trace(), from = state_name(change.from()),
                to = state_name(change.to()), row = change.row, reason = %change.reason,
                "ballot.state_changed"
            ),
            Some(E::VoteRecorded(vote)) => tracing::debug!(
                revision, %tx_id, trace_id = trace(), node_id = %vote.node_id, late = vote.late,
                "vote.recorded"
            ),
            Some(E::ViolationFound(found)) => tracing::warn!(
                revision, %tx_id, trace_id = trace(), node_id = %found.node_id,
                kind = violation_word(found.r#type()), "violation.found"
            ),
            Some(E::Banned(banned)) => tracing::warn!(
                revision, node_id = %banned.node_id,
                kind = violation_word(banned.r#type()), "member.banned"
            ),
            Some(E::Unbanned(unbanned)) => {
                tracing::warn!(revision, node_id = %unbanned.node_id, "member.unbanned");
            }
            _ => tracing::trace!(revision, %tx_id, trace_id = trace(), "board.event"),
        }
    }
}
