//! What the tasks of a handle share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use quorate_consensus::wire::BoardEntry;
use quorate_consensus::{Rules, Verifier};
use quorate_keyspace::{Change, Finding, KeyValue, OpId, Reader, Reply, Step, Taken, UpTo, What};
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::connection::Connection;
use crate::api::{StoreError, Tampering};

/// How long to wait for the follower before another member is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pauses between two tries to read where the log ends.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// How many steps that put things right are kept while they cannot be sent.
const OWED: usize = 1024;

/// How many findings a slow receiver may be behind.
const FINDINGS: usize = 256;

pub(super) struct Shared {
    pub(super) connection: Arc<Connection>,
    rules: Arc<Rules>,
    verifier: Arc<dyn Verifier>,
    /// How long to try.
    patience: Duration,
    /// Never held across an `.await`.
    reader: Mutex<Reader>,
    waiting: Mutex<HashMap<OpId, oneshot::Sender<Reply>>>,
    /// The store's revision up to which everything was read.
    read: watch::Sender<u64>,
    /// The log's head.
    head: watch::Sender<u64>,
    findings: broadcast::Sender<Finding>,
    tampering: broadcast::Sender<Tampering>,
    /// What was found before anybody could ask.
    tampering_at_first: Mutex<Option<broadcast::Receiver<Tampering>>>,
    /// What puts things right and could not be sent yet.
    owed: Mutex<VecDeque<Step>>,
    /// Set for good when the store turned out to be another than the one that was read
    /// (an engine has followed what was read, so only a new start can read another), or
    /// when the handle is dropped.
    done_for: OnceLock<StoreError>,
    /// Tells the follower that somebody has waited for long for what it reads: perhaps
    /// the member that it listens to hangs.
    pub(super) anew: Notify,
    /// Tells the follower that the store is perhaps an older copy.
    pub(super) doubt: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        connection: Arc<Connection>,
        rules: Arc<Rules>,
        verifier: Arc<dyn Verifier>,
        patience: Duration,
    ) -> Self {
        let reader = Reader::new(Arc::clone(&rules), Arc::clone(&verifier));
        let (tampering, at_first) = broadcast::channel(FINDINGS);
        Self {
            connection,
            rules,
            verifier,
            patience,
            reader: Mutex::new(reader),
            waiting: Mutex::default(),
            read: watch::Sender::new(0),
            head: watch::Sender::new(0),
            findings: broadcast::Sender::new(FINDINGS),
            tampering,
            tampering_at_first: Mutex::new(Some(at_first)),
            owed: Mutex::default(),
            done_for: OnceLock::new(),
            anew: Notify::new(),
            doubt: Notify::new(),
        }
    }

    pub(super) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    pub(super) fn verifier(&self) -> &dyn Verifier {
        self.verifier.as_ref()
    }

    /// The reader. A panic while it is held is a bug that leaves it as it was: the
    /// board checks everything before it changes.
    pub(super) fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads everything as if for the first time.
    pub(super) fn read_first(&self, revision: u64, all: Vec<KeyValue>) -> Taken {
        let mut reader = Reader::new(Arc::clone(&self.rules), Arc::clone(&self.verifier));
        let taken = reader.take_all(revision, all);
        *self.reader() = reader;
        taken
    }

    /// Takes in what one transaction of the store changed.
    pub(super) fn take(&self, revision: u64, changes: Vec<Change>) -> Taken {
        let mut reader = self.reader();
        let taken = reader.take(revision, changes);
        self.stop_if_incomplete(&taken);
        taken
    }

    /// From now on this is what was read, by taking this in.
    pub(super) fn replace(&self, read: Reader, taken: &Taken) {
        let mut reader = self.reader();
        *reader = read;
        self.stop_if_incomplete(taken);
    }

    /// What was read is not the whole log, so nothing may be planned on it. Called while
    /// the reader is held: whoever plans looks at [`Shared::done_for`] and holds it, too.
    fn stop_if_incomplete(&self, taken: &Taken) {
        let incomplete = |finding: &&Finding| finding.what == What::Incomplete;
        if let Some(finding) = taken.findings.iter().find(incomplete) {
            let why = format!("STORE_TAMPERING: {finding}: start this node again");
            // A second such finding says nothing more.
            let _ = self.done_for.set(StoreError::Unavailable(why));
        }
    }

    /// The store is an older copy: what it shows is taken in for its head alone, which
    /// tells the engine that it must stop, and from now on this handle shows and takes
    /// nothing more. What this node believed is in its journal.
    pub(super) fn roll_back(&self, revision: u64, all: Vec<KeyValue>) {
        let mut older = Reader::new(Arc::clone(&self.rules), Arc::clone(&self.verifier));
        drop(older.take_all(revision, all));
        let head = older.board().revision();
        let mut reader = self.reader();
        // Only the follower calls this, and it stops then.
        let _ = self.done_for.set(StoreError::Older { head });
        *reader = older;
    }

    /// The handle is gone: whoever still waits for what would be read hears of it.
    pub(super) fn close(&self) {
        let _ = self.done_for.set(StoreError::Closed);
    }

    /// Why nothing more is shown or taken: the store is another one than was read, or
    /// nobody reads any more.
    pub(super) fn done_for(&self) -> Option<StoreError> {
        self.done_for.get().cloned()
    }

    /// Does what was read, and gives what puts things right.
    pub(super) fn publish(&self, taken: Taken) -> Vec<Step> {
        let (read, head) = {
            let reader = self.reader();
            (reader.revision(), reader.board().revision())
        };
        for finding in taken.findings {
            self.tell(&finding);
            // Without a receiver nobody hears of it here.
            drop(self.findings.send(finding));
        }
        if !taken.replies.is_empty() {
            let mut waiting = self.waiting();
            for (id, reply) in taken.replies {
                if let Some(waiter) = waiting.remove(&id) {
                    drop(waiter.send(reply));
                }
            }
        }
        self.head
            .send_if_modified(|known| std::mem::replace(known, head) != head);
        self.read.send_replace(read);
        taken.mending
    }

    /// Tells whoever asks for [`Coordinator::tampering`](crate::Coordinator::tampering).
    pub(super) fn tell(&self, finding: &Finding) {
        tracing::debug!(%finding, "etcd.finding");
        // An older copy is the engine's to find and to tell.
        if !matches!(finding.what, What::RolledBack { .. }) {
            // Without a receiver it is in the log only.
            drop(self.tampering.send(Tampering {
                key: finding.key.clone(),
                detail: finding.to_string(),
            }));
        }
    }

    pub(super) fn tampering(&self) -> broadcast::Receiver<Tampering> {
        let at_first = self.tampering_at_first.lock();
        let at_first = at_first.unwrap_or_else(PoisonError::into_inner).take();
        at_first.unwrap_or_else(|| self.tampering.subscribe())
    }

    /// What is owed, and these steps behind it; nothing is owed from then on.
    pub(super) fn owed(&self, steps: Vec<Step>) -> VecDeque<Step> {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owed = std::mem::take(&mut *owed);
        owed.extend(steps);
        owed
    }

    /// Keeps what could not be sent.
    pub(super) fn owe(&self, mut steps: VecDeque<Step>) {
        steps.truncate(OWED);
        *self.owed.lock().unwrap_or_else(PoisonError::into_inner) = steps;
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<OpId, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on what is read back of this attempt is kept.
    pub(super) fn expect(self: &Arc<Self>, id: OpId) -> Expected {
        let (told, hear) = oneshot::channel();
        self.waiting().insert(id, told);
        Expected {
            shared: Arc::clone(self),
            id,
            hear,
        }
    }

    /// Waits until everything up to a revision of the store was read.
    pub(super) async fn read_to(&self, revision: u64) -> Result<(), StoreError> {
        let mut read = self.read.subscribe();
        loop {
            // Then the follower has stopped, and nothing more is read.
            if let Some(error) = self.done_for() {
                return Err(error);
            }
            match tokio::time::timeout(PATIENCE, read.wait_for(|at| *at >= revision)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => return Err(StoreError::Closed),
                // The member that the follower listens to may hang.
                Err(_) => self.anew.notify_one(),
            }
        }
    }

    /// What is answered once nothing more is read: of an older copy the head, which tells
    /// the engine that it must stop; of anything else why.
    fn last_word(&self) -> Option<Result<u64, StoreError>> {
        Some(match self.done_for()? {
            StoreError::Older { head } => Ok(head),
            error => Err(error),
        })
    }

    /// Reads up to everything that was answered to anybody before this was called;
    /// gives the log's head. Tries for a while.
    pub(super) async fn sync(&self) -> Result<u64, StoreError> {
        if let Some(last_word) = self.last_word() {
            return last_word;
        }
        let patience = self.patience;
        let read = async {
            let mut pause = PAUSE.0;
            while let Err(error) = self.read_to_the_end().await {
                if self.done_for().is_some() {
                    break;
                }
                if error == StoreError::Closed {
                    return Err(error);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            Ok(())
        };
        let read = tokio::time::timeout(patience, read).await;
        read.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!(
                "not read within {patience:?}; last trouble: {}",
                self.connection.last_trouble()
            )))
        })?;
        match self.last_word() {
            Some(last_word) => last_word,
            None => Ok(self.reader().board().revision()),
        }
    }

    async fn read_to_the_end(&self) -> Result<(), StoreError> {
        let mark = self.reader().mark();
        let head = self.connection.head().await?;
        let target = match mark.read_up_to(head.key.as_ref(), head.store) {
            UpTo::OlderCopy => {
                // The follower finds out, and stops.
                self.doubt.notify_one();
                let mut read = self.read.subscribe();
                let stopped = read.wait_for(|_| self.done_for.get().is_some());
                return stopped.await.map(drop).map_err(|_| StoreError::Closed);
            }
            UpTo::HeadWritten => self.connection.touch_head().await?,
            UpTo::Revision(revision) => revision,
        };
        self.read_to(target).await
    }

    pub(super) fn entries(&self, after: u64, limit: usize) -> Vec<BoardEntry> {
        if self.done_for.get().is_some() {
            return Vec::new();
        }
        let entries: Vec<_> = self.reader().entries(after, limit).cloned().collect();
        // The copies are made without the reader held.
        entries
            .iter()
            .map(|entry| BoardEntry::clone(entry))
            .collect()
    }

    pub(super) fn heads(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(super) fn findings(&self) -> broadcast::Receiver<Finding> {
        self.findings.subscribe()
    }
}

/// What is read back of an attempt, for as long as this is kept.
#[derive(Debug)]
pub(super) struct Expected {
    shared: Arc<Shared>,
    id: OpId,
    hear: oneshot::Receiver<Reply>,
}

impl Expected {
    /// What was read back since this was asked last, if anything.
    pub(super) fn heard(&mut self) -> Option<Reply> {
        self.hear.try_recv().ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.id);
    }
}
