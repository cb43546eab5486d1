//! For tests only: a coordinator whose faults the test commands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_engine::{ProposeError, Proposed};
use tokio::sync::watch;

use crate::api::{Coordinator, StoreError};

/// Hands everything on to another coordinator, but for the faults that a test asks
/// for. Clones share the faults.
#[derive(Clone, Debug)]
pub struct Faulty<C> {
    inner: C,
    faults: Arc<Mutex<Faults>>,
    notice: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Faults {
    away: bool,
    lost_requests: usize,
    lost_replies: usize,
    shown_up_to: Option<u64>,
}

impl<C: Coordinator> Faulty<C> {
    /// A wrapper without a fault yet.
    ///
    /// # Panics
    /// Outside of a tokio runtime: it forwards what `inner` gives to watchers.
    pub fn new(inner: C) -> Self {
        let mut heads = inner.watch();
        let head = *heads.borrow_and_update();
        let notice = Arc::new(watch::Sender::new(head));
        let forward = Arc::downgrade(&notice);
        tokio::spawn(async move {
            while heads.changed().await.is_ok() {
                let Some(notice) = forward.upgrade() else {
                    return;
                };
                notice.send_replace(*heads.borrow_and_update());
            }
        });
        Self {
            inner,
            faults: Arc::default(),
            notice,
        }
    }

    /// The coordinator behind, without faults.
    pub fn inner(&self) -> &C {
        &self.inner
    }

    /// From now on every call fails and has no effect, or no longer.
    pub fn set_away(&self, away: bool) {
        self.faults().away = away;
    }

    /// The next `count` proposals get lost on their way: no effect, no answer.
    pub fn lose_requests(&self, count: usize) {
        self.faults().lost_requests = count;
    }

    /// The next `count` proposals that get through take effect, but their answers
    /// get lost.
    pub fn lose_replies(&self, count: usize) {
        self.faults().lost_replies = count;
    }

    /// Shows no entry after revision `last` until [`Faulty::release_entries`]: this
    /// node's view of the log stands still. [`Coordinator::head`] does not lie.
    pub fn hold_entries_after(&self, last: u64) {
        self.faults().shown_up_to = Some(last);
    }

    /// Shows all entries again, and wakes the watchers.
    pub fn release_entries(&self) {
        self.faults().shown_up_to = None;
        self.notice.send_modify(|_| {});
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reachable(&self) -> Result<(), StoreError> {
        if self.faults().away {
            return Err(StoreError::Unavailable("a test took it away".into()));
        }
        Ok(())
    }
}

fn take_one(count: &mut usize) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}

#[async_trait]
impl<C: Coordinator> Coordinator for Faulty<C> {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        self.reachable()?;
        if take_one(&mut self.faults().lost_requests) {
            return Err(ProposeError::Unavailable("a test lost the request".into()));
        }
        let answer = self.inner.propose(op, now_ms).await;
        if take_one(&mut self.faults().lost_replies) {
            return Err(ProposeError::Unavailable("a test lost the reply".into()));
        }
        answer
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        self.reachable()?;
        let mut entries = self.inner.entries(after, limit).await?;
        if let Some(last) = self.faults().shown_up_to {
            entries.retain(|entry| entry.revision <= last);
        }
        Ok(entries)
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.reachable()?;
        self.inner.head().await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.notice.subscribe()
    }

    fn backend(&self) -> &'static str {
        self.inner.backend()
    }
}

#[cfg(test)]
mod tests {
    use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops, tx};

    use super::*;
    use crate::Embedded;

    #[tokio::test]
    async fn faults_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(5, 4);
        let path = directory.path().join("board.db");
        let rules = Arc::clone(cluster.rules());
        let board = Embedded::open(path, rules, Arc::new(FakeVerifier)).unwrap();
        let board = Faulty::new(board);
        let vote = |i| ops::record_vote(cluster.vote(i, &tx("a"), number(1), NOW));
        let unavailable = |answer| matches!(answer, Err(ProposeError::Unavailable(_)));

        board.lose_requests(1);
        assert!(unavailable(board.propose(vote(0), NOW).await));
        assert_eq!(board.head().await, Ok(0));
        board.lose_replies(1);
        assert!(unavailable(board.propose(vote(0), NOW).await));
        assert_eq!(board.head().await, Ok(1));
        let answer = board.propose(vote(0), NOW).await;
        assert_eq!(answer, Ok(Proposed::Unchanged(1)));

        board.set_away(true);
        assert!(unavailable(board.propose(vote(1), NOW).await));
        assert!(board.head().await.is_err() && board.entries(0, 1).await.is_err());
        board.set_away(false);

        board.hold_entries_after(1);
        let mut watch = board.watch();
        let answer = board.propose(vote(1), NOW).await;
        assert_eq!(answer, Ok(Proposed::Applied(2)));
        assert_eq!(board.head().await, Ok(2));
        assert_eq!(board.entries(0, 9).await.unwrap().len(), 1);
        let woken = watch.wait_for(|head| *head == 2).await;
        drop(woken.unwrap());
        board.release_entries();
        watch.changed().await.unwrap();
        assert_eq!(board.entries(0, 9).await.unwrap().len(), 2);
    }
}
