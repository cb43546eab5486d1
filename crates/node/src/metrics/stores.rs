//! Times what the stores are asked: a thin wrapper round each of them, so that every
//! backend is measured alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_audit::archive::{Archived, Horizon};
use quorate_audit::parting::{Losses, LostPast, Parting};
use quorate_audit::rows::{
    AccusationRow, BanRow, DecisionRow, Filter, ReputationRow, SubmissionRow, SubmissionState,
    ViolationRow, VoteRow,
};
use quorate_audit::seal::Head;
use quorate_audit::{AuditError, AuditStore, Lineage, Mark, SubmissionCounts};
use quorate_chain::{Block, Chain, ChainError};
use quorate_consensus::wire::{BallotState, BoardEntry, BoardOp};
use quorate_consensus::{NodeId, TxId};
use quorate_coordinator::{Coordinator, MemberStatus, StoreError, Tampering};
use quorate_engine::{
    AuditAnswer, AuditAsk, ChainAnswer, ChainAsk, ProposeError, Proposed, SendOutcome,
};
use quorate_telemetry::metrics::{Histogram, Many};
use tokio::sync::broadcast;
use tokio::sync::watch;

use super::{Meter, number};

/// A store with a watch on it.
pub(crate) struct Timed<S: ?Sized> {
    inner: Arc<S>,
    meter: Arc<Meter>,
}

impl<S: ?Sized> Timed<S> {
    pub(crate) fn new(inner: Arc<S>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

async fn timed<T>(
    family: &Many<Histogram, 2>,
    operation: &'static str,
    outcome: impl FnOnce(&T) -> &'static str,
    asked: impl Future<Output = T>,
) -> T {
    let began = Instant::now();
    let answer = asked.await;
    let outcome = outcome(&answer);
    family.of([operation, outcome]).took(began.elapsed());
    answer
}

fn of_proposal(result: &Result<Proposed, ProposeError>) -> &'static str {
    match result {
        Ok(Proposed::Applied(_) | Proposed::Unchanged(_)) => "ok",
        Err(ProposeError::Refused(_)) => "refused",
        Err(ProposeError::Unavailable(_)) => "unavailable",
        Err(ProposeError::OlderStore { .. }) => "error",
    }
}

fn of_reading<T>(result: &Result<T, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) if error.is_passing() => "unavailable",
        Err(_) => "error",
    }
}

fn of_audit<T>(result: &Result<T, AuditError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(AuditError::CursorMoved { .. }) => "refused",
        Err(AuditError::Unavailable(_)) => "unavailable",
        Err(_) => "error",
    }
}

#[tonic::async_trait]
impl<S: Coordinator + ?Sized> Coordinator for Timed<S> {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        let asked = self.inner.propose(op, now_ms);
        let family = &self.meter.etcd_operation_duration;
        timed(family, "propose", of_proposal, asked).await
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        let asked = self.inner.entries(after, limit);
        let family = &self.meter.etcd_operation_duration;
        let read = timed(family, "entries", of_reading, asked).await;
        if let Ok(entries) = &read
            && !entries.is_empty()
        {
            let size = number(entries.len());
            self.meter.batch_size.of(["entries"]).observe(size);
        }
        read
    }

    async fn head(&self) -> Result<u64, StoreError> {
        let family = &self.meter.etcd_operation_duration;
        timed(family, "head", of_reading, self.inner.head()).await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.inner.watch()
    }

    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn tampering(&self) -> Option<broadcast::Receiver<Tampering>> {
        self.inner.tampering()
    }

    async fn members(&self) -> Vec<MemberStatus> {
        self.inner.members().await
    }
}

/// What the chain was asked.
fn chain_operation(ask: &ChainAsk) -> &'static str {
    match ask {
        ChainAsk::Look { .. } => "look",
        ChainAsk::Prepare { .. } => "prepare",
        ChainAsk::Send { .. } => "send",
    }
}

fn of_chain(answer: &ChainAnswer) -> &'static str {
    match answer {
        ChainAnswer::Seen(_) | ChainAnswer::Prepared(_) => "ok",
        ChainAnswer::Sent(SendOutcome::Accepted) => "ok",
        ChainAnswer::Sent(SendOutcome::NonceTooLow | SendOutcome::Underpriced) => "refused",
        ChainAnswer::Sent(SendOutcome::Unknown(_)) => "unknown",
        ChainAnswer::Unavailable(_) => "unavailable",
    }
}

#[tonic::async_trait]
impl<S: Chain + ?Sized> Chain for Timed<S> {
    async fn ask(&self, ask: ChainAsk) -> ChainAnswer {
        let operation = chain_operation(&ask);
        let family = &self.meter.chain_operation_duration;
        timed(family, operation, of_chain, self.inner.ask(ask)).await
    }

    async fn recent_blocks(&self, limit: usize) -> Result<Vec<Block>, ChainError> {
        let outcome = |result: &Result<Vec<Block>, ChainError>| match result {
            Ok(_) => "ok",
            Err(ChainError::Unavailable(_)) => "unavailable",
            Err(_) => "error",
        };
        let family = &self.meter.chain_operation_duration;
        let asked = self.inner.recent_blocks(limit);
        timed(family, "recent_blocks", outcome, asked).await
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
}

/// What the audit store was asked about a submission.
fn audit_operation(ask: &AuditAsk) -> &'static str {
    match ask {
        AuditAsk::Pending { .. } => "pending",
        AuditAsk::Variant { .. } => "variant",
        AuditAsk::Variants { .. } => "variants",
        AuditAsk::Attempted { .. } => "attempted",
    }
}

fn of_answer(answer: &AuditAnswer) -> &'static str {
    match answer {
        AuditAnswer::Done | AuditAnswer::Variants(_) => "ok",
        AuditAnswer::Conflict(_) => "refused",
        AuditAnswer::Unavailable(_) => "unavailable",
    }
}

/// Methods that are handed through, timed under their own name.
macro_rules! audit_methods {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $value:ty;)*) => {
        #[tonic::async_trait]
        impl<S: AuditStore + ?Sized> AuditStore for Timed<S> {
            async fn ask(&self, ask: AuditAsk) -> AuditAnswer {
                let operation = audit_operation(&ask);
                let family = &self.meter.audit_operation_duration;
                timed(family, operation, of_answer, self.inner.ask(ask)).await
            }

            async fn project(&self, from: Mark, entries: &[BoardEntry]) -> Result<u64, AuditError> {
                let family = &self.meter.audit_operation_duration;
                let asked = self.inner.project(from, entries);
                let reached = timed(family, "project", of_audit, asked).await;
                if reached.is_ok() {
                    let size = number(entries.len());
                    self.meter.batch_size.of(["projection"]).observe(size);
                }
                reached
            }

            fn backend(&self) -> &'static str {
                self.inner.backend()
            }

            fn lineage(&self) -> &Lineage {
                self.inner.lineage()
            }

            $(async fn $name(&self $(, $arg: $type)*) -> Result<$value, AuditError> {
                let family = &self.meter.audit_operation_duration;
                let asked = self.inner.$name($($arg),*);
                timed(family, stringify!($name), of_audit, asked).await
            })*
        }
    };
}

audit_methods! {
    fn mark(&self) -> Mark;
    fn digests(&self, after: u64, limit: u32) -> Vec<(u64, [u8; 32])>;
    fn set_aside(&self, parting: Arc<Parting>) -> LostPast;
    fn losses(&self) -> Losses;
    fn lease(&self, holder: &NodeId, ttl: Duration) -> bool;
    fn archivable(&self, horizon: Horizon) -> Archived;
    fn archive(&self, horizon: Horizon, limit: u32) -> Archived;
    fn submission(&self, tx_id: &TxId) -> Option<SubmissionRow>;
    fn submissions(&self, state: Option<SubmissionState>, limit: u32) -> Vec<SubmissionRow>;
    fn submission_counts(&self) -> SubmissionCounts;
    fn head(&self) -> Head;
    fn violations(&self, filter: &Filter) -> Vec<ViolationRow>;
    fn votes(&self, filter: &Filter) -> Vec<VoteRow>;
    fn accusations(&self, filter: &Filter) -> Vec<AccusationRow>;
    fn bans(&self, node_id: Option<&NodeId>) -> Vec<BanRow>;
    fn decision(&self, tx_id: &TxId) -> Option<DecisionRow>;
    fn reputations(&self) -> Vec<ReputationRow>;
    fn final_state(&self, tx_id: &TxId) -> Option<BallotState>;
    fn final_states(&self, after: Option<&TxId>, limit: u32) -> Vec<(TxId, BallotState)>;
}
