//! The trait that every audit store implements.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_consensus::wire::{BallotState, BoardEntry};
use quorate_consensus::{ClusterId, NodeId, TxId};
use quorate_engine::{AuditAnswer, AuditAsk};

use crate::archive::{Archived, Horizon};
use crate::lineage::Lineage;
use crate::mark::Mark;
use crate::parting::{Losses, LostPast, Parting};
use crate::rows::{
    AccusationRow, BanRow, DecisionRow, Filter, ReputationRow, SubmissionCounts, SubmissionRow,
    SubmissionState, ViolationRow, VoteRow,
};
use crate::seal::Head;

/// Why the audit store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Somebody else projected meanwhile; nothing was written. Read the log on from
    /// here.
    #[error("the audit cursor stands at revision {found}, not where the projection began")]
    CursorMoved {
        /// Where it stands.
        found: u64,
    },
    /// The log is not the one that the store is a projection of; nothing was written.
    /// What was projected and is not in the log has to be set aside first.
    #[error(
        "the audit record is of another log than the board's: they part at revision {revision} or before"
    )]
    OtherPast {
        /// Where the store stands.
        revision: u64,
    },
    /// The entries are not the ones that follow the cursor; nothing was written.
    #[error("entry {found} does not follow revision {revision}")]
    Gap {
        /// The revision before it.
        revision: u64,
        /// The entry's.
        found: u64,
    },
    /// The log and the rows contradict each other; nothing was written. Somebody wrote
    /// to the store, or the log is another one.
    #[error("the audit record contradicts the board's log: {0}; run quorate reconcile")]
    Contradiction(String),
    /// The store is another cluster's.
    #[error("the audit store belongs to cluster {found}, not to {own}: give this cluster its own")]
    OtherCluster {
        /// The store's.
        found: String,
        /// This node's.
        own: ClusterId,
    },
    /// A newer version of the software made the tables.
    #[error("the audit store has schema version {found}; this software knows {known}: upgrade it")]
    NewerSchema {
        /// The store's.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// The tables are older than this software needs, and this role may not change
    /// them.
    #[error(
        "the audit store has schema version {found}, and {known} is needed: let its owner run quorate audit migrate"
    )]
    OldSchema {
        /// The store's; 0 for none.
        found: u32,
        /// The one needed.
        known: u32,
    },
    /// How to reach the store is not said right.
    #[error("{0}")]
    Settings(String),
    /// A row holds what it must not.
    #[error("the audit store holds a bad row: {0}")]
    Corrupt(String),
    /// The store answers, and will not do it, however often it is asked: the role may
    /// not, or the database is not there. Somebody has to mend that.
    #[error("the audit store refuses: {0}")]
    Refused(String),
    /// The store is away or busy; unknown whether it took effect. Ask again.
    #[error("the audit store is away: {0}")]
    Unavailable(String),
}

/// The durable SQL record. Every handle may be used by many tasks at once, and many
/// handles (in many processes) may share one store.
#[async_trait]
pub trait AuditStore: Send + Sync + 'static {
    /// Answers an engine: the fences of a submission. What is answered
    /// [`AuditAnswer::Done`] is durable.
    ///
    /// A PENDING row for a tx_id that has one with a *lower* nonce of the same account
    /// is answered [`AuditAnswer::Unavailable`]: a reservation made anew takes effect
    /// here once the board's log says so, and not by anybody's asking.
    async fn ask(&self, ask: AuditAsk) -> AuditAnswer;

    /// Where the projection stands: the revision reached, 0 before the first, and of
    /// which log.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    async fn mark(&self) -> Result<Mark, AuditError>;

    /// The board's revision that the projection has reached; 0 before the first.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    async fn cursor(&self) -> Result<u64, AuditError> {
        self.mark().await.map(|mark| mark.revision)
    }

    /// The digests over the projected log up to each revision after `after`, ascending,
    /// at most `limit`. The first that are known may come later.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    async fn digests(&self, after: u64, limit: u32) -> Result<Vec<(u64, [u8; 32])>, AuditError>;

    /// Takes the lease on the projection for `ttl` from now, or prolongs it; false while
    /// somebody else has it. Advice that spares work, never a right: the cursor is
    /// compared all the same. The time is the store's.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    async fn lease(&self, holder: &NodeId, ttl: Duration) -> Result<bool, AuditError>;

    /// Writes what the entries after `from` mean, and the revision reached, in one SQL
    /// transaction; gives that revision. The entries must be ones that the caller
    /// believes.
    ///
    /// # Errors
    /// [`AuditError::CursorMoved`] unless the cursor stands at the revision of `from`;
    /// [`AuditError::OtherPast`] when what was projected up to there is known, and is
    /// another log;
    /// [`AuditError::Gap`] unless the entries follow it without a gap;
    /// [`AuditError::Contradiction`] when a fence refuses them;
    /// [`AuditError::Unavailable`].
    async fn project(&self, from: Mark, entries: &[BoardEntry]) -> Result<u64, AuditError>;

    /// Sets aside what was projected of a past that the board has lost, in one SQL
    /// transaction: then the store stands where the pasts part. Nothing is deleted:
    /// rows are moved to `lost_rows`, or named there; how transactions ended, signed
    /// variants and violations stay where they are.
    ///
    /// # Errors
    /// [`AuditError::CursorMoved`] unless the store stands where it was when
    /// [`find`](crate::parting::find) looked at it; [`AuditError::Unavailable`].
    async fn set_aside(&self, parting: Arc<Parting>) -> Result<LostPast, AuditError>;

    /// What was set aside.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn losses(&self) -> Result<Losses, AuditError>;

    /// How many rows lie beyond the horizon and are not archived.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    async fn archivable(&self, horizon: Horizon) -> Result<Archived, AuditError>;

    /// Archives rows beyond the horizon, of at most `limit` transactions, in one SQL
    /// transaction. Nothing archived: nothing is left.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    async fn archive(&self, horizon: Horizon, limit: u32) -> Result<Archived, AuditError>;

    /// The submission of a transaction, archived or not, unless it was set aside.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn submission(&self, tx_id: &TxId) -> Result<Option<SubmissionRow>, AuditError>;

    /// Submissions in one state, or in any, not archived; the latest first, at most
    /// `limit`.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn submissions(
        &self,
        state: Option<SubmissionState>,
        limit: u32,
    ) -> Result<Vec<SubmissionRow>, AuditError>;

    /// How many submissions are PENDING, and how many are archived. Counts rows: ask it
    /// seldom.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`].
    async fn submission_counts(&self) -> Result<SubmissionCounts, AuditError>;

    /// The last violation, and the seal that it must have.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn head(&self) -> Result<Head, AuditError>;

    /// Violations, oldest first; those of a lost past too.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn violations(&self, filter: &Filter) -> Result<Vec<ViolationRow>, AuditError>;

    /// Votes that are neither archived nor set aside, oldest first.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn votes(&self, filter: &Filter) -> Result<Vec<VoteRow>, AuditError>;

    /// Accusations that are not of a lost past, oldest first; [`Filter::node_id`] is the accused.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn accusations(&self, filter: &Filter) -> Result<Vec<AccusationRow>, AuditError>;

    /// Bans, of one member or of all, oldest first; those that were lifted too, and not
    /// those of a lost past.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn bans(&self, node_id: Option<&NodeId>) -> Result<Vec<BanRow>, AuditError>;

    /// How the votes of a transaction came out.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn decision(&self, tx_id: &TxId) -> Result<Option<DecisionRow>, AuditError>;

    /// The reputation of every key that was ever a member's, ascending by node_id.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn reputations(&self) -> Result<Vec<ReputationRow>, AuditError>;

    /// How a transaction ended; kept for good, whatever was archived or collected.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn final_state(&self, tx_id: &TxId) -> Result<Option<BallotState>, AuditError>;

    /// How all transactions after `after` ended, ascending by tx_id, at most `limit`:
    /// what a node that lost its journal reads before it votes.
    ///
    /// # Errors
    /// [`AuditError::Unavailable`] or [`AuditError::Corrupt`].
    async fn final_states(
        &self,
        after: Option<&TxId>,
        limit: u32,
    ) -> Result<Vec<(TxId, BallotState)>, AuditError>;

    /// Whose keys are whose.
    fn lineage(&self) -> &Lineage;

    /// Which backend this is: "sqlite", "postgres".
    fn backend(&self) -> &'static str;
}
