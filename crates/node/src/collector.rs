//! Collection: a ballot that ended long ago leaves the board, once the audit store has
//! what people may still ask for. How it ended stays on the board, in every journal and
//! in `submission_keys` for good, so it never starts again.
//!
//! The node that projects does it, every hour; of several that do it at once one is
//! first, and the board refuses nothing that it has done already.

use std::sync::Arc;

use quorate_audit::archive::{Archived, Horizon, archive_all};
use quorate_audit::{AuditError, AuditStore};
use quorate_consensus::TxId;
use quorate_consensus::ballot::is_final;
use quorate_consensus::board::RETENTION_MS;
use quorate_consensus::wire::{BallotState, BoardOp, CollectOp, board_op::Op};
use quorate_coordinator::Coordinator;
use quorate_engine::{Engine, ProposeError};

use crate::alerts::{Alerts, Name};
use crate::clock::Clock;
use crate::mailbox::{Gone, Mailbox};
use crate::metrics::Meter;

/// Ballots collected in one round: the board has other things to do.
const MOST: usize = 1_000;

/// Why collecting stopped; it goes on at the next round.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    /// The audit store.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The board's store.
    #[error(transparent)]
    Board(#[from] ProposeError),
    /// The node ends.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// Archives and collects.
pub(crate) struct Collector {
    pub(crate) mailbox: Mailbox,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) clock: Clock,
    pub(crate) meter: Arc<Meter>,
    pub(crate) alerts: Arc<Alerts>,
}

impl Collector {
    /// One round: old rows of the audit store into its archive, then old ballots off the
    /// board.
    pub(crate) async fn round(&self, audit: &dyn AuditStore) {
        let now_ms = self.clock.wall_ms();
        match archive_all(audit, Horizon::at(now_ms)).await {
            Ok(done) if done == Archived::default() => {}
            Ok(Archived { submissions, votes }) => {
                tracing::info!(submissions, votes, "audit.archived");
            }
            Err(error) => {
                return self.failed(&format!("old rows were not archived: {error}"));
            }
        }
        match self.collect(audit, now_ms).await {
            Ok(0) | Err(CollectError::Gone(_)) => {}
            Ok(ballots) => tracing::info!(ballots, "board.collected"),
            Err(error) => self.failed(&format!("old ballots stay on the board: {error}")),
        }
    }

    fn failed(&self, detail: &str) {
        tracing::warn!(detail, "alert.collection_failed");
        self.meter.collection_failures.inc();
        let about = self.alerts.this_node();
        self.alerts.raise(Name::CollectionFailed, about, detail);
    }

    /// Collects what is due at `now_ms`, milliseconds since the Unix epoch; gives how
    /// many ballots left the board.
    async fn collect(&self, audit: &dyn AuditStore, now_ms: u64) -> Result<usize, CollectError> {
        let due = self.mailbox.look(move |engine, _| due(engine, now_ms));
        let mut collected = 0;
        for (tx_id, state) in due.await? {
            if !is_archived(audit, &tx_id, state).await? {
                continue;
            }
            let op = BoardOp {
                op: Some(Op::Collect(CollectOp {
                    tx_id: tx_id.to_string(),
                })),
            };
            match self.coordinator.propose(op, now_ms).await {
                Ok(_) => collected += 1,
                // Undone by the chain meanwhile, for instance.
                Err(ProposeError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(collected)
    }
}

/// Nothing is missing from these ballots, and nobody waits for anything of theirs.
fn due(engine: &Engine, now_ms: u64) -> Vec<(TxId, BallotState)> {
    let ballots = engine.board().ballots().filter(|ballot| {
        is_final(ballot.state)
            && ballot.is_proven()
            && ballot.roll_called
            && ballot.since_ms.saturating_add(RETENTION_MS) <= now_ms
    });
    let due = ballots.map(|ballot| (ballot.tx_id.clone(), ballot.state));
    due.take(MOST).collect()
}

/// The record knows how it ended, and has the proof.
async fn is_archived(
    audit: &dyn AuditStore,
    tx_id: &TxId,
    state: BallotState,
) -> Result<bool, AuditError> {
    if audit.final_state(tx_id).await? != Some(state) {
        return Ok(false);
    }
    let decision = audit.decision(tx_id).await?;
    Ok(decision.is_some_and(|row| row.certificate.is_some()))
}
