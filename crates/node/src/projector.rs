//! Projects what this node believes into the audit store. One node does it at a time,
//! by a lease in the store; when that node is gone, or cannot, the lease ends and
//! another goes on. The lease is advice: the store compares the cursor, so that of
//! several one wins and none does harm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_audit::parting::find;
use quorate_audit::verify::VerifyError;
use quorate_audit::{AuditError, Mark};
use quorate_consensus::NodeId;
use rand::Rng as _;
use tokio::time::timeout;

use crate::collector::Collector;
use crate::faults::Faults;
use crate::feed::{Feed, FeedError};
use crate::health::beats::{Beats, Loop};
use crate::journal::Reached;
use crate::metrics::Meter;
use crate::seen::SeenAudit;
use crate::traces::Rows;

/// Entries projected in one SQL transaction.
const CHUNK: usize = 256;

/// How long the lease lasts: so long nothing is projected after its holder died.
const LEASE: Duration = Duration::from_secs(5);

/// How often its holder prolongs it.
const PROLONG: Duration = Duration::from_millis(1500);

/// The pause of who has no lease, and after another node was faster all the same: 500
/// ms to 1 s, so that they do not meet again and again.
const LEAST_PAUSE_MS: u64 = 500;
const SPREAD_MS: u64 = 500;

/// How often whoever has the lease archives.
const ARCHIVE_EVERY: Duration = Duration::from_secs(3600);

/// How long archiving may take: it may be much that is old.
const ARCHIVING: Duration = Duration::from_secs(600);

/// The pause after an error.
const AWAY: Duration = Duration::from_secs(1);

/// The pause after an error that needs a person.
const BROKEN: Duration = Duration::from_secs(60);

/// Projects for as long as the node runs.
pub(crate) async fn project(
    feed: Arc<Feed>,
    audit: Arc<SeenAudit>,
    own: NodeId,
    rows: Rows,
    collector: Collector,
    (beats, faults): (Arc<Beats>, Faults),
) {
    let mut heads = feed.heads();
    let mut projector = Projector {
        feed,
        audit,
        own,
        rows,
        meter: collector.meter.clone(),
        collector,
        agreed: false,
        cursor: None,
        prolonged: None,
        archived: None,
    };
    let mut away = false;
    loop {
        faults.pass(Loop::Projector).await;
        beats.moves(Loop::Projector);
        heads.borrow_and_update();
        let mut done = projector.step().await;
        if matches!(done, Ok(Step::Parted)) {
            beats.waits(Loop::Projector, ARCHIVING);
            done = projector.set_aside().await;
        }
        match done {
            Ok(Step::Parted) => {}
            Ok(Step::Projected) => {}
            Ok(Step::UpToDate) => {
                beats.waits(Loop::Projector, ARCHIVING);
                projector.archive().await;
                beats.waits(Loop::Projector, PROLONG);
                match timeout(PROLONG, heads.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    // Look at the store again: it may have been restored.
                    Err(_) => projector.cursor = None,
                }
            }
            Ok(Step::Others) => {
                projector.cursor = None;
                let jitter = rand::rng().random_range(0..SPREAD_MS);
                tokio::time::sleep(Duration::from_millis(LEAST_PAUSE_MS + jitter)).await;
            }
            Err(Halt::Away(why)) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%why, "audit.away: submissions pause, votes are still taken");
                }
                projector.cursor = None;
                tokio::time::sleep(AWAY).await;
                continue;
            }
            Err(Halt::Broken(why)) => {
                tracing::error!(%why, "audit.broken: nothing is projected");
                projector.cursor = None;
                beats.waits(Loop::Projector, BROKEN);
                tokio::time::sleep(BROKEN).await;
                continue;
            }
        }
        if std::mem::take(&mut away) {
            tracing::info!("audit.back");
        }
    }
}

/// What a step did.
enum Step {
    /// A chunk was projected; there may be more.
    Projected,
    /// There is nothing to project.
    UpToDate,
    /// Another node projects.
    Others,
    /// What was projected is not in the log.
    Parted,
}

/// Why a step did not come about.
enum Halt {
    Away(String),
    Broken(String),
}

impl From<FeedError> for Halt {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Store(error) => Self::Away(error.to_string()),
            FeedError::Differs(_) => Self::Broken(error.to_string()),
        }
    }
}

impl From<AuditError> for Halt {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Unavailable(why) => Self::Away(why),
            other => Self::Broken(other.to_string()),
        }
    }
}

struct Projector {
    feed: Arc<Feed>,
    audit: Arc<SeenAudit>,
    own: NodeId,
    rows: Rows,
    meter: Arc<Meter>,
    collector: Collector,
    /// The store was once seen to be a projection of this node's log.
    agreed: bool,
    /// Where the store stands, as far as is known.
    cursor: Option<Mark>,
    /// When the lease was last taken or prolonged.
    prolonged: Option<Instant>,
    /// When this node last archived.
    archived: Option<Instant>,
}

impl Projector {
    async fn step(&mut self) -> Result<Step, Halt> {
        let from = match self.cursor {
            Some(from) => from,
            None => self.audit.mark().await?,
        };
        self.audit.keep().await;
        let believed = self.feed.mark(from.revision);
        let parted = match &believed {
            Some(mark) => mark.contradicts(&from),
            None => self.parted_before(self.feed.head()).await?,
        };
        if parted {
            return Ok(Step::Parted);
        }
        self.agreed |= believed.is_some();
        // Who cannot read the log does not prolong the lease.
        let entries = self.feed.read(from.revision, CHUNK).await?;
        if !self.leads().await? {
            return Ok(Step::Others);
        }
        self.cursor = Some(from);
        let Some(mark) = believed.filter(|_| !entries.is_empty()) else {
            return Ok(Step::UpToDate);
        };
        let entries: Vec<_> = entries.into_iter().map(Arc::unwrap_or_clone).collect();
        let known = self.audit.known();
        let began = Instant::now();
        match self.audit.store().project(mark, &entries).await {
            Ok(revision) => {
                let reached = Reached {
                    past: from.past,
                    revision,
                };
                self.audit.note(reached, known);
                // Entries that were just read are believed.
                self.cursor = self.feed.mark(revision).map(|mark| Mark {
                    past: from.past,
                    ..mark
                });
                self.rows.projected(&entries, began);
                Ok(Step::Projected)
            }
            Err(AuditError::CursorMoved { .. } | AuditError::OtherPast { .. }) => Ok(Step::Others),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the store's past and the log, which ends before where the store stands,
    /// differ already there.
    async fn parted_before(&self, head: u64) -> Result<bool, Halt> {
        let Some(mark) = self.feed.mark(head).filter(|_| head > 0) else {
            return Ok(false);
        };
        let there = self.audit.store().digests(head - 1, 1).await?;
        let there = there.first().map(|(at, digest)| Mark::of(*at, *digest));
        Ok(there.is_some_and(|there| there.contradicts(&mark)))
    }

    /// The board went on without what was projected: sets that aside, so that the log
    /// can be projected on from where the two part. Only a node that believes the board
    /// does it: one that has seen another past waits for `quorate reconcile`.
    async fn set_aside(&mut self) -> Result<Step, Halt> {
        if self.agreed {
            // Since this start others have projected another log: no reconciliation, for
            // nodes do not run then. The two would take turns for ever.
            return Err(Halt::Broken(
                "others project another log than this node reads: see that all nodes use the same board, and start this one again".to_owned(),
            ));
        }
        let mailbox = &self.collector.mailbox;
        let stopped = mailbox.look(|engine, _| engine.is_stopped()).await;
        if stopped.map_err(|error| Halt::Away(error.to_string()))? {
            return Err(Halt::Broken(
                "what was projected is not in the board's log, and this node does not believe the board: run quorate reconcile".to_owned(),
            ));
        }
        if !self.leads().await? {
            return Ok(Step::Others);
        }
        let (feed, store) = (&self.feed, self.audit.store());
        let log = |after| {
            let feed = Arc::clone(feed);
            async move {
                let entries = feed.read(after, CHUNK).await;
                let entries = entries.map_err(|error| error.to_string())?;
                Ok(entries.into_iter().map(Arc::unwrap_or_clone).collect())
            }
        };
        let found = find(store, log).await.map_err(|error| match error {
            VerifyError::Audit(error) => error.into(),
            error => Halt::Away(error.to_string()),
        })?;
        let Some(parting) = found else {
            // Others have done it; or it was projected before stores kept digests.
            return Ok(Step::Others);
        };
        let known = self.audit.known();
        match store.set_aside(Arc::new(parting)).await {
            Ok(past) => {
                tracing::error!(
                    past = past.id,
                    parted_at = past.parted_at,
                    reached = past.reached,
                    "audit.past_set_aside: the board went on without what was projected after parted_at; quorate audit verify names it"
                );
                let reached = Reached {
                    past: past.id,
                    revision: past.parted_at,
                };
                self.audit.note(reached, known);
                self.cursor = None;
                Ok(Step::Projected)
            }
            Err(AuditError::CursorMoved { .. }) => Ok(Step::Others),
            Err(error) => Err(error.into()),
        }
    }

    /// Archives and collects what is old, if that is due.
    async fn archive(&mut self) {
        if self.archived.is_some_and(|at| at.elapsed() < ARCHIVE_EVERY) {
            return;
        }
        self.archived = Some(Instant::now());
        self.collector.round(self.audit.store()).await;
    }

    /// Whether this node has the lease; takes it if it is free.
    async fn leads(&mut self) -> Result<bool, Halt> {
        if self.prolonged.is_some_and(|at| at.elapsed() < PROLONG) {
            return Ok(true);
        }
        let asked = Instant::now();
        let leads = self.audit.store().lease(&self.own, LEASE).await?;
        if leads && self.prolonged.is_none() {
            tracing::debug!(node_id = %self.own, "audit.projects: this node has the lease");
        }
        self.prolonged = leads.then_some(asked);
        self.meter.audit_projecting.set(f64::from(u8::from(leads)));
        Ok(leads)
    }
}
