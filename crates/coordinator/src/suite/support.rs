//! What the checks share.

use std::sync::Arc;

use quorate_consensus::board::{Board, Outcome, Refusal};
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_consensus::{TxId, Value};
use quorate_engine::{ProposeError, Proposed};
use quorate_testkit::{Cluster, FakeVerifier, NOW, ops};

use crate::api::Coordinator;

/// A handle, as the checks pass it around.
pub(super) type Handle = Arc<dyn Coordinator>;

/// Small, so that reading a log takes several pages.
const PAGE: usize = 7;

/// A node's mirror: replays a store's log and insists that it derives what the
/// store says.
pub(super) struct Mirror {
    pub(super) board: Board,
    pub(super) entries: Vec<BoardEntry>,
}

impl Mirror {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self {
            board: Board::new(Arc::clone(cluster.rules())),
            entries: Vec::new(),
        }
    }

    /// A mirror of everything that a handle shows.
    pub(super) async fn of(cluster: &Cluster, handle: &Handle) -> Self {
        let mut mirror = Self::new(cluster);
        mirror.catch_up(handle).await;
        mirror
    }

    pub(super) async fn catch_up(&mut self, handle: &Handle) {
        loop {
            let after = self.board.revision();
            let page = handle.entries(after, PAGE).await.expect("entries");
            if page.is_empty() {
                return;
            }
            assert!(page.len() <= PAGE, "more entries than asked for");
            for entry in page {
                let derived = self.board.replay(entry.clone(), &FakeVerifier);
                assert_eq!(derived.as_ref(), Ok(&entry), "the store tells other events");
                self.entries.push(entry);
            }
        }
    }

    /// Proposes the table's moves for a ballot until there is none.
    pub(super) async fn move_on(&mut self, handle: &Handle, tx_id: &TxId, now_ms: u64) {
        self.catch_up(handle).await;
        while let Some(next) = self.board.next_move(tx_id, now_ms) {
            applied(handle, ops::advance(tx_id, next.to), now_ms).await;
            self.catch_up(handle).await;
        }
    }
}

/// What the pure board makes of an operation, as a coordinator tells it, and the
/// entry if there is one.
pub(super) fn expected(
    board: &mut Board,
    op: &BoardOp,
    now_ms: u64,
) -> (Result<Proposed, ProposeError>, Option<BoardEntry>) {
    match board.apply(op, now_ms, &FakeVerifier) {
        Ok(Outcome::Applied(entry)) => (Ok(Proposed::Applied(entry.revision)), Some(entry)),
        Ok(Outcome::Unchanged) => (Ok(Proposed::Unchanged(board.revision())), None),
        Err(refusal) => (Err(refusal.into()), None),
    }
}

/// Proposes what must be applied; its revision.
pub(super) async fn applied(handle: &Handle, op: BoardOp, now_ms: u64) -> u64 {
    match handle.propose(op.clone(), now_ms).await {
        Ok(Proposed::Applied(revision)) => revision,
        other => panic!("{op:?} gave {other:?}"),
    }
}

/// Proposes what must be refused; why it was.
pub(super) async fn refused(handle: &Handle, op: BoardOp, now_ms: u64) -> Refusal {
    match handle.propose(op.clone(), now_ms).await {
        Err(ProposeError::Refused(refusal)) => refusal,
        other => panic!("{op:?} gave {other:?}"),
    }
}

/// Records votes of members 0 to t − 1 for one value, one after the other, and
/// moves the ballot to THRESHOLD_REACHED. The time when it is settled.
pub(super) async fn settle(
    handle: &Handle,
    cluster: &Cluster,
    mirror: &mut Mirror,
    tx_id: &TxId,
    value: &Value,
) -> u64 {
    for i in 0..cluster.t() {
        let vote = cluster.vote(i, tx_id, value.clone(), NOW);
        applied(handle, ops::record_vote(vote), NOW).await;
    }
    mirror.move_on(handle, tx_id, NOW).await;
    let ballot = mirror.board.ballot(tx_id).expect("it is open");
    ballot.settled_ms().expect("it reached the threshold")
}

/// Runs tasks at once and gives their results in order.
pub(super) async fn all_at_once<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let running: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(running.len());
    for task in running {
        results.push(task.await.expect("a task of the check failed"));
    }
    results
}
