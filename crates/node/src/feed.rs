//! The entries of the board's log that this node believes, for watchers and for the
//! audit projection. The latest lie in memory as the engine derived them; older ones
//! are read from the coordinator again and held against a digest of what was derived,
//! so that a store cannot tell watchers what the engine never believed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use quorate_consensus::TxId;
use quorate_consensus::wire::BoardEntry;
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
}

#[derive(Default)]
struct Known {
    /// Of entry 1, 2, 3 and so on.
    digests: Vec<[u8; 16]>,
    recent: VecDeque<Arc<BoardEntry>>,
    first_of: HashMap<Box<str>, u64>,
}

fn digest(entry: &BoardEntry) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(&entry.encode_to_vec()).as_bytes()[..16]);
    short
}

impl Feed {
    pub(crate) fn new(coordinator: Arc<dyn Coordinator>) -> Self {
        Self {
            coordinator,
            known: Mutex::default(),
            head: watch::Sender::new(0),
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
            for event in entry.events.iter().filter(|e| !e.tx_id.is_empty()) {
                if !known.first_of.contains_key(&*event.tx_id) {
                    known
                        .first_of
                        .insert(event.tx_id.as_str().into(), entry.revision);
                }
            }
            head = Some(entry.revision);
            known.recent.push_back(Arc::new(entry));
            if known.recent.len() > RECENT {
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
