//! What every backend offers.

use std::sync::Arc;

use async_trait::async_trait;
use quorate_consensus::ClusterId;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_engine::{ProposeError, Proposed};
use tokio::sync::broadcast;

/// Why a store could not be read or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else held the store for longer than this handle waits.
    #[error("the store is busy: another process holds it; try again")]
    Busy,
    /// No room to write.
    #[error("the disk is full: make room, the store goes on by itself")]
    Full,
    /// The store may be read but not written.
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// It cannot be reached at the moment.
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// It is an older copy of what was read from it before, and takes nothing more.
    #[error("STORE_ROLLBACK: the store is an older copy, which ends at revision {head}")]
    Older {
        /// Where the older copy's log ends.
        head: u64,
    },
    /// It belongs to another cluster.
    #[error("the store belongs to cluster {found}, not to {expected}: use another data directory")]
    OtherCluster {
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        expected: ClusterId,
    },
    /// A newer version of this program wrote it.
    #[error(
        "the store has schema version {found}, this program knows versions up to {known}: use a newer program"
    )]
    NewerSchema {
        /// The store's.
        found: u64,
        /// The newest that this program knows.
        known: u64,
    },
    /// It holds what no board can have written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The handle was closed, or gave up after a bug.
    #[error("the coordinator was closed, or its thread failed: see the log")]
    Closed,
}

impl StoreError {
    /// Whether trying again later may help.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Full | Self::ReadOnly(_) | Self::Unavailable(_)
        )
    }
}

impl From<StoreError> for ProposeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Older { head } => Self::OlderStore { head },
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// What somebody did to the store that no node does, found and, where that can be, put
/// right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tampering {
    /// Where in the store.
    pub key: String,
    /// What was found there and what was done about it, for people; names the key.
    pub detail: String,
}

/// How one member of a store that consists of several is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Where it is, as the configuration names it.
    pub endpoint: String,
    /// What is wrong with it, for people; none when it answers and knows a leader.
    pub trouble: Option<String>,
    /// Bytes that it uses of its quota, as far as it tells.
    pub used_bytes: Option<u64>,
    /// Its quota in bytes, as far as it tells.
    pub quota_bytes: Option<u64>,
}

/// Puts operations on the board into one order.
///
/// Every handle on one store, in whichever process, sees the same entries in the
/// same order. An operation that was answered with [`Proposed`] is durable and in
/// the log (and in [`Coordinator::head`]) of every handle from then on.
#[async_trait]
pub trait Coordinator: Send + Sync + 'static {
    /// Orders one operation at `now_ms` (milliseconds since the Unix epoch; a time
    /// before the board's is raised to it). Cheap to call concurrently: the backend
    /// groups what waits. Repeating is safe: the board knows what it has.
    ///
    /// # Errors
    /// [`ProposeError::Refused`] when the board refuses it, which leaves no entry;
    /// [`ProposeError::Unavailable`] when it is unknown whether it took effect.
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError>;

    /// The entries after revision `after`, in order and without a gap, at most
    /// `limit` of them; a backend may give fewer than there are, but none only when
    /// there are none.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError>;

    /// The log's head, linearizably: at least the revision of every proposal that
    /// was answered, to anybody, before this was called. 0 for an empty log.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn head(&self) -> Result<u64, StoreError>;

    /// Wakes when the head may have moved, also by other processes. The number is
    /// the last head that this handle noticed: a hint, unlike [`Coordinator::head`].
    /// Do not keep what `borrow` gives: it stops the backend.
    fn watch(&self) -> tokio::sync::watch::Receiver<u64>;

    /// What is found out about the store's tampering, from the opening on for who asks
    /// first. None for a backend that nobody else can write to without being found by
    /// the entries themselves. Who is slow misses the oldest.
    fn tampering(&self) -> Option<broadcast::Receiver<Tampering>> {
        None
    }

    /// The backend's name as the configuration knows it.
    fn backend(&self) -> &'static str;

    /// How the store's members are, each asked by itself; none for a store that has no
    /// members. Returns within the time that the backend gives one request.
    async fn members(&self) -> Vec<MemberStatus> {
        Vec::new()
    }
}

#[async_trait]
impl<C: Coordinator + ?Sized> Coordinator for Arc<C> {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        (**self).propose(op, now_ms).await
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        (**self).entries(after, limit).await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        (**self).head().await
    }

    fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        (**self).watch()
    }

    fn tampering(&self) -> Option<broadcast::Receiver<Tampering>> {
        (**self).tampering()
    }

    fn backend(&self) -> &'static str {
        (**self).backend()
    }

    async fn members(&self) -> Vec<MemberStatus> {
        (**self).members().await
    }
}
