//! The audit store as one node has seen it. A store that is older than that was
//! restored from a backup, or is another one: `STORE_ROLLBACK`. Its rows come back by
//! the projection, for the log has them all; until then no submission goes on, for
//! what only engines write (the signed variants) is not in the log, and is asked of
//! the chain once the rows are there again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_audit::{AuditError, AuditStore, Mark};
use quorate_engine::{AuditAnswer, AuditAsk};

use crate::alerts::{Alerts, Name};
use crate::journal::{Journal, JournalError, Reached};

/// How often what was seen is made durable: each time keeps the sign guard waiting for
/// the disk. A rollback by less than that is found only while the node runs.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// See the module's head.
pub(crate) struct SeenAudit {
    store: Arc<dyn AuditStore>,
    journal: Arc<Mutex<Journal>>,
    alerts: Arc<Alerts>,
    seen: Mutex<Seen>,
}

struct Seen {
    /// The highest revision that the store was seen to have reached.
    reached: Reached,
    /// What of it is durable, and since when.
    kept: Reached,
    kept_at: Option<Instant>,
    stands: Stands,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// It was not looked at since the start.
    Unknown,
    /// Where it was seen, or further.
    Well,
    /// Before.
    Behind { at: u64 },
}

impl SeenAudit {
    /// Begins with what the journal has kept.
    pub(crate) fn new(
        store: Arc<dyn AuditStore>,
        journal: Arc<Mutex<Journal>>,
        alerts: Arc<Alerts>,
    ) -> Result<Self, JournalError> {
        let reached = locked(&journal).audit_seen()?;
        Ok(Self {
            store,
            journal,
            alerts,
            seen: Mutex::new(Seen {
                reached,
                kept: reached,
                kept_at: None,
                stands: Stands::Unknown,
            }),
        })
    }

    /// The store itself.
    pub(crate) fn store(&self) -> &dyn AuditStore {
        self.store.as_ref()
    }

    /// Where the store stands, and of which log.
    pub(crate) async fn mark(&self) -> Result<Mark, AuditError> {
        let known = self.known();
        let mark = self.store.mark().await?;
        self.note(reached(&mark), known);
        Ok(mark)
    }

    /// The revision at which the store stands.
    pub(crate) async fn cursor(&self) -> Result<u64, AuditError> {
        self.mark().await.map(|mark| mark.revision)
    }

    /// The highest revision that the store was seen to have reached.
    pub(crate) fn known(&self) -> Reached {
        self.lock().reached
    }

    /// Takes notice of where the store stands, and says so if it was further before:
    /// further than what was [`known`](Self::known) before it was asked, for others may
    /// have seen it go on since. When it has lost a past, what was seen of that is no
    /// measure any more.
    pub(crate) fn note(&self, at: Reached, known: Reached) {
        let mut seen = self.lock();
        let before = seen.stands;
        let cursor = at.revision;
        if at.past < seen.reached.past && at.past == known.past {
            // A look from before the past was lost.
            return;
        }
        if at.past > seen.reached.past {
            tracing::warn!(
                cursor,
                past = at.past,
                "audit.past_lost: the audit store goes on without what the board has lost"
            );
            seen.reached = at;
            seen.stands = Stands::Well;
        } else if at.past <= known.past && cursor < known.revision {
            let known = known.revision;
            seen.stands = Stands::Behind { at: cursor };
            if !matches!(before, Stands::Behind { .. }) {
                tracing::error!(
                    cursor,
                    seen = known,
                    "alert.store_rollback: the audit store is older than what this node has seen; it is projected anew, and submissions pause until then"
                );
                self.alerts.raise(
                    Name::StoreRollback,
                    vec![("store", "audit".into())],
                    format!("the audit store stands at revision {cursor}, and was seen at {known}"),
                );
            }
        } else {
            if cursor >= seen.reached.revision {
                seen.reached = at;
            }
            seen.stands = Stands::Well;
            if matches!(before, Stands::Behind { .. }) {
                tracing::warn!(
                    cursor,
                    "audit.caught_up: the audit store is again where it was seen"
                );
            }
        }
    }

    /// Makes durable what was seen, if that is due. It may fail: then less is known
    /// after a restart.
    pub(crate) async fn keep(&self) {
        let reached = {
            let mut seen = self.lock();
            let due = seen.kept_at.is_none_or(|at| at.elapsed() >= KEEP_EVERY);
            if !due || seen.kept == seen.reached {
                return;
            }
            seen.kept_at = Some(Instant::now());
            seen.kept = seen.reached;
            seen.reached
        };
        let journal = Arc::clone(&self.journal);
        let kept = tokio::task::spawn_blocking(move || locked(&journal).keep_audit_seen(reached));
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%error, "audit.not_kept: a rollback may go unnoticed after a restart");
        }
    }

    /// Asks the store, unless it is older than it was.
    pub(crate) async fn ask(&self, ask: AuditAsk) -> AuditAnswer {
        if self.lock().stands == Stands::Unknown
            && let Err(error) = self.cursor().await
        {
            return AuditAnswer::Unavailable(error.to_string());
        }
        let (stands, seen) = {
            let seen = self.lock();
            (seen.stands, seen.reached.revision)
        };
        match stands {
            Stands::Behind { at } => AuditAnswer::Unavailable(format!(
                "STORE_ROLLBACK: the audit store stands at revision {at}, and was seen at {seen}; it is projected anew first"
            )),
            Stands::Unknown | Stands::Well => self.store.ask(ask).await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reached(mark: &Mark) -> Reached {
    Reached {
        past: mark.past,
        revision: mark.revision,
    }
}

fn locked(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use quorate_audit::SqliteAudit;
    use quorate_consensus::NodeId;
    use quorate_consensus::wire::BoardEntry;
    use quorate_testkit::{Cluster, tx};

    use super::*;
    use crate::metrics::Meter;

    fn entry(revision: u64) -> BoardEntry {
        BoardEntry {
            revision,
            ..BoardEntry::default()
        }
    }

    fn at(revision: u64) -> Reached {
        Reached { past: 0, revision }
    }

    #[tokio::test]
    async fn nothing_is_asked_of_a_store_that_is_older_than_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(4, 3);
        let rules = Arc::clone(cluster.rules());
        let own = NodeId::new("node1").unwrap();
        let mut journal = Journal::open(directory.path(), &own, &rules.cluster_id()).unwrap();
        journal.keep_audit_seen(at(2)).unwrap();
        let journal = Arc::new(Mutex::new(journal));
        let store = SqliteAudit::open(directory.path().join("audit.db"), rules).unwrap();
        let meter = Arc::new(Meter::default());
        let alerts = Alerts::new(meter.clone(), own, cluster.rules(), None);
        let audit = SeenAudit::new(Arc::new(store), journal.clone(), Arc::new(alerts)).unwrap();

        let ask = || audit.ask(AuditAsk::Variants { tx_id: tx("a") });
        for _ in 0..2 {
            let AuditAnswer::Unavailable(why) = ask().await else {
                panic!("it was asked");
            };
            assert!(why.contains("STORE_ROLLBACK"), "{why}");
            assert!(why.contains('2'), "{why}");
        }
        assert_eq!(meter.counts().alerts, 1, "told once");

        for revision in 1..=3 {
            let reached = audit
                .store()
                .project(Mark::at(revision - 1), &[entry(revision)])
                .await;
            audit.note(at(reached.unwrap()), audit.known());
            let answer = ask().await;
            match revision {
                1 => assert!(matches!(answer, AuditAnswer::Unavailable(_)), "{answer:?}"),
                _ => assert_eq!(answer, AuditAnswer::Variants(Vec::new())),
            }
        }
        assert_eq!(audit.cursor().await.unwrap(), 3);
        assert_eq!(meter.counts().alerts, 1);
        audit.keep().await;
        assert_eq!(locked(&journal).audit_seen().unwrap(), at(3));
        // While the node runs, it finds out by itself.
        audit.note(at(1), audit.known());
        assert!(matches!(ask().await, AuditAnswer::Unavailable(_)));
        assert_eq!(meter.counts().alerts, 2);
        // A look from before the store went on is no rollback.
        audit.note(at(3), at(3));
        audit.note(at(9), at(3));
        audit.note(at(3), at(3));
        assert_eq!(meter.counts().alerts, 2);
        assert_eq!(ask().await, AuditAnswer::Variants(Vec::new()));

        // It lost a past: it stands before, and that is right.
        let lost = |revision| Reached { past: 1, revision };
        audit.note(lost(2), audit.known());
        assert_eq!(ask().await, AuditAnswer::Variants(Vec::new()));
        assert_eq!(meter.counts().alerts, 2);
        assert_eq!(audit.known(), lost(2));
        audit.note(lost(1), audit.known());
        assert!(matches!(ask().await, AuditAnswer::Unavailable(_)));
        assert_eq!(meter.counts().alerts, 3);
        // Looks from before, and from before it was lost, say nothing.
        audit.note(lost(2), at(9));
        audit.note(at(9), at(9));
        assert_eq!(ask().await, AuditAnswer::Variants(Vec::new()));
        assert_eq!((meter.counts().alerts, audit.known()), (3, lost(2)));
        // A backup from before that is complete when it is where the log is.
        audit.note(at(1), audit.known());
        assert!(matches!(ask().await, AuditAnswer::Unavailable(_)));
        audit.note(at(2), audit.known());
        assert_eq!(ask().await, AuditAnswer::Variants(Vec::new()));
        assert_eq!(audit.known(), at(2));
    }
}
