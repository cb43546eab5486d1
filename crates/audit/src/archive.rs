//! What is old enough for the archive. Archiving moves rows to tables beside, so that
//! those in daily use stay small; nothing is lost, and how a transaction ended stays
//! in `submission_keys` for good.

use crate::store::{AuditError, AuditStore};

const DAY_MS: u64 = 24 * 3_600_000;

/// Confirmed submissions stay 30 days.
const SUBMISSION_DAYS: u64 = 30;

/// Votes stay 90 days.
const VOTE_DAYS: u64 = 90;

/// Times before which rows are archived, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Submissions that were confirmed before.
    pub confirmed_before_ms: u64,
    /// Votes that were recorded before, of transactions that have ended.
    pub voted_before_ms: u64,
}

impl Horizon {
    /// At a time, in milliseconds since the Unix epoch: 30 days for submissions, 90 for
    /// votes.
    pub fn at(now_ms: u64) -> Self {
        let before = |days| now_ms.saturating_sub(days * DAY_MS);
        Self {
            confirmed_before_ms: before(SUBMISSION_DAYS),
            voted_before_ms: before(VOTE_DAYS),
        }
    }
}

/// How many rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// Of `blockchain_submissions`.
    pub submissions: u64,
    /// Of `vote_history`.
    pub votes: u64,
}

/// Transactions archived in one SQL transaction, so that a projection never waits long.
const BATCH: u32 = 500;

/// Archives everything beyond the horizon, some at a time.
///
/// # Errors
/// [`AuditError::Unavailable`]; what was archived until then is.
pub async fn archive_all(store: &dyn AuditStore, horizon: Horizon) -> Result<Archived, AuditError> {
    let mut sum = Archived::default();
    loop {
        let some = store.archive(horizon, BATCH).await?;
        if some == Archived::default() {
            return Ok(sum);
        }
        sum.submissions += some.submissions;
        sum.votes += some.votes;
    }
}

/// The columns of a submission, in the archive too.
pub(crate) const SUBMISSION_COLUMNS: &str = "tx_id, value, data, state, account, nonce, tx_hash, payload, submitted_at, confirmed_at, block_number, attempts";

/// The columns of a vote, in the archive too.
pub(crate) const VOTE_COLUMNS: &str = "tx_id, node_id, peer_id, public_key, value, data, abstained, late, expired, statement, signature, received_at";
