//! The entries of the board's log that this node believes, for watchers and for the
//! audit projection. The latest lie in memory as the engine derived them; older ones
//! are read from the coordinator again and held against a digest of what was derived,
//! so that a store cannot tell watchers what the engine never believed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use quorate_audit::mark::{self, Mark};
use quorate_consensus::wire::BoardEntry;
use quorate_consensus::{ClusterId, TxId};
use quorate_coordinator::{Coordinator, StoreError};
use tokio::sync::watch;

/// How many entries are kept in memory.
const RECENT: usize = 4096;

/// Why entries could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store shows something else than what was believed.
    #[error("entry {0} in the store is not the one that this node believed")]
    Differs(u64),
}

/// See the module's head.
pub(crate) struct Feed {
    coordinator: Arc<dyn Coordinator>,
    known: Mutex<Known>,
    head: watch::Sender<u64>,
    /// The digest before the first entry.
    first: [u8; 32],
    recent: usize,
}

#[derive(Default)]
struct Known {
    /// Of entry 1, 2, 3 and so on.
    digests: Vec<[u8; 16]>,
    /// Of the log up to entry 1, 2, 3 and so on, as the audit store keeps it.
    marks: Vec<[u8; 32]>,
    recent: VecDeque<Arc<BoardEntry>>,
    first_of: HashMap<Box<str>, u64>,
}

fn digest(entry: &BoardEntry) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(&entry.encode_to_vec()).as_bytes()[..16]);
    short
}

impl Feed {
    pub(crate) fn new(coordinator: Arc<dyn Coordinator>, cluster_id: ClusterId) -> Self {
        Self {
            first: mark::first(cluster_id),
            coordinator,
            known: Mutex::default(),
            head: watch::Sender::new(0),
            recent: RECENT,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change below is a push: a panic between two leaves nothing half done
        // that a reader could see as believed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes entries that the engine believes, in order.
    pub(crate) fn push(&self, entries: Vec<BoardEntry>) {
        let mut known = self.known();
        let mut head = None;
        for entry in entries {
            if entry.revision != known.digests.len() as u64 + 1 {
                tracing::error!(
                    revision = entry.revision,
                    known = known.digests.len(),
                    "feed.gap: the engine believed entries out of order"
                );
                continue;
            }
            known.digests.push(digest(&entry));
            let before = known.marks.last().unwrap_or(&self.first);
            let mark = mark::next(before, &entry);
            known.marks.push(mark);
            for event in entry.events.iter().filter(|e| !e.tx_id.is_empty()) {
                if !known.first_of.contains_key(&*event.tx_id) {
                    known
                        .first_of
                        .insert(event.tx_id.as_str().into(), entry.revision);
                }
            }
            head = Some(entry.revision);
            known.recent.push_back(Arc::new(entry));
            if known.recent.len() > self.recent {
                known.recent.pop_front();
            }
        }
        drop(known);
        if let Some(head) = head {
            self.head.send_replace(head);
        }
    }

    /// Changes when more is believed: the last revision believed.
    pub(crate) fn heads(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The mark of the log at a revision; none where nothing is believed yet.
    pub(crate) fn mark(&self, revision: u64) -> Option<Mark> {
        let digest = match revision.checked_sub(1) {
            None => self.first,
            Some(index) => *self.known().marks.get(usize::try_from(index).ok()?)?,
        };
        Some(Mark::of(revision, digest))
    }

    /// The last revision believed.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// The revision in which a transaction first occurred.
    pub(crate) fn first_of(&self, tx_id: &TxId) -> Option<u64> {
        self.known().first_of.get(tx_id.as_str()).copied()
    }

    /// Believed entries after revision `after`, in order, at most `limit`; empty when
    /// there are none yet.
    pub(crate) async fn read(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<BoardEntry>>, FeedError> {
        let (head, oldest) = {
            let known = self.known();
            let oldest = known.recent.front().map_or(u64::MAX, |e| e.revision);
            if after.saturating_add(1) >= oldest {
                let skip = usize::try_from(after.saturating_add(1) - oldest).unwrap_or(usize::MAX);
                return Ok(known
                    .recent
                    .iter()
                    .skip(skip)
                    .take(limit)
                    .cloned()
                    .collect());
            }
            (known.digests.len() as u64, oldest)
        };
        if after >= head {
            return Ok(Vec::new());
        }
        let most = usize::try_from(oldest.min(head + 1) - after - 1).unwrap_or(limit);
        let entries = self.coordinator.entries(after, limit.min(most)).await?;
        let known = self.known();
        for (entry, expected) in entries.iter().zip(after + 1..) {
            let index = usize::try_from(expected - 1).unwrap_or(usize::MAX);
            let believed = known.digests.get(index);
            if entry.revision != expected || believed != Some(&digest(entry)) {
                return Err(FeedError::Differs(expected));
            }
        }
        Ok(entries.into_iter().map(Arc::new).collect())
    }
}

#[cfg(test)]
mod tests {
    use quorate_consensus::wire::{BoardEvent, BoardOp};
    use quorate_engine::{ProposeError, Proposed};

    use super::*;

    /// A log that is what it is.
    struct Fixed(Vec<BoardEntry>);

    #[tonic::async_trait]
    impl Coordinator for Fixed {
        async fn propose(&self, _: BoardOp, _: u64) -> Result<Proposed, ProposeError> {
            Err(ProposeError::Unavailable("fixed".into()))
        }

        async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
            let after = usize::try_from(after).unwrap();
            Ok(self.0.iter().skip(after).take(limit).cloned().collect())
        }

        async fn head(&self) -> Result<u64, StoreError> {
            Ok(self.0.len() as u64)
        }

        fn watch(&self) -> watch::Receiver<u64> {
            watch::channel(0).1
        }

        fn backend(&self) -> &'static str {
            "fixed"
        }
    }

    fn entry(revision: u64) -> BoardEntry {
        BoardEntry {
            revision,
            time_ms: revision,
            op: None,
            events: vec![BoardEvent {
                revision,
                tx_id: format!("tx{}", revision / 3),
                ..BoardEvent::default()
            }],
        }
    }

    fn feed(store: Vec<BoardEntry>, recent: usize) -> Feed {
        let mut feed = Feed::new(Arc::new(Fixed(store)), ClusterId([7; 32]));
        feed.recent = recent;
        feed
    }

    async fn revisions(feed: &Feed, after: u64, limit: usize) -> Vec<u64> {
        let entries = feed.read(after, limit).await.unwrap();
        entries.iter().map(|entry| entry.revision).collect()
    }

    #[tokio::test]
    async fn it_reads_from_memory_and_from_the_store_alike_and_never_beyond_what_is_believed() {
        // The store has more than the engine believes yet.
        let feed = feed((1..=12).map(entry).collect(), 4);
        assert!(revisions(&feed, 0, 5).await.is_empty());
        feed.push((1..=10).map(entry).collect());
        assert_eq!(*feed.heads().borrow(), 10);
        let mut after = 0;
        let mut all = Vec::new();
        loop {
            let some = revisions(&feed, after, 4).await;
            let Some(last) = some.last() else { break };
            after = *last;
            all.extend(some);
        }
        assert_eq!(all, (1..=10).collect::<Vec<_>>());
        assert_eq!(revisions(&feed, 8, 100).await, [9, 10]);
        assert!(revisions(&feed, 10, 100).await.is_empty());
        assert!(revisions(&feed, u64::MAX, 100).await.is_empty());
        let mark = (1..=2).fold([7; 32], |before, at| mark::next(&before, &entry(at)));
        assert_eq!(feed.mark(2), Some(Mark::of(2, mark)));
        assert_eq!(feed.mark(0), Some(Mark::of(0, [7; 32])));
        assert!(feed.mark(10).is_some() && feed.mark(11).is_none());
        assert_eq!(feed.first_of(&TxId::new("tx1").unwrap()), Some(3));
        assert_eq!(feed.first_of(&TxId::new("tx9").unwrap()), None);
    }

    #[tokio::test]
    async fn a_store_cannot_show_what_was_not_believed() {
        let mut store: Vec<_> = (1..=10).map(entry).collect();
        store[1].events[0].tx_id = "made-up".into();
        let feed = feed(store, 4);
        feed.push((1..=10).map(entry).collect());
        assert!(matches!(feed.read(0, 5).await, Err(FeedError::Differs(2))));
        assert_eq!(revisions(&feed, 2, 5).await, [3, 4, 5, 6]);
    }

    #[tokio::test]
    async fn entries_out_of_order_are_not_taken() {
        let feed = feed(Vec::new(), 4);
        feed.push(vec![entry(1), entry(3), entry(2)]);
        assert_eq!(revisions(&feed, 0, 5).await, [1, 2]);
    }
}
