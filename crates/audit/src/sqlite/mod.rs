//! The audit store on one SQLite file, which the nodes and processes of one machine
//! may share. Every answer is on the disk before it is given (write-ahead log,
//! `synchronous = FULL`). Each handle has one connection; it is used on threads where
//! blocking is allowed, by one task at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use quorate_consensus::wire::{BallotState, BoardEntry};
use quorate_consensus::{NodeId, TxId};
use quorate_engine::{AuditAnswer, AuditAsk};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tokio::sync::Mutex;

use crate::archive::{Archived, Horizon};
use crate::lineage::Lineage;
use crate::mark::{self, Mark};
use crate::parting::{Losses, LostPast, Parting};
use crate::rows::{
    AccusationRow, BanRow, DecisionRow, Filter, ReputationRow, SubmissionCounts, SubmissionRow,
    SubmissionState, ViolationRow, VoteRow,
};
use crate::seal::Head;
use crate::store::{AuditError, AuditStore};

mod archive;
mod columns;
mod lost;
mod query;
mod schema;
#[cfg(test)]
mod tests;
mod write;

/// How long to wait while another process holds the file.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// A handle on the SQLite audit store.
#[derive(Clone)]
pub struct SqliteAudit {
    connection: Arc<Mutex<Connection>>,
    lineage: Arc<Lineage>,
    path: PathBuf,
    /// Told of every change carried out, before the transaction ends.
    #[cfg(test)]
    step: Option<Arc<dyn Fn(write::Step) + Send + Sync>>,
}

impl SqliteAudit {
    /// Opens the store at `path`, and makes it if there is none. `lineage` tells whose
    /// keys are whose: the genesis as `Arc<Rules>`, or a [`Lineage`] of several epochs.
    ///
    /// Blocks on the disk: in async code, call it where blocking is allowed.
    ///
    /// # Errors
    /// [`AuditError::OtherCluster`], [`AuditError::NewerSchema`], or
    /// [`AuditError::Unavailable`].
    pub fn open(path: impl AsRef<Path>, lineage: impl Into<Lineage>) -> Result<Self, AuditError> {
        let (path, lineage) = (path.as_ref(), lineage.into());
        let mut connection = connect(path).map_err(|error| {
            AuditError::Unavailable(format!("{} cannot be opened: {error}", path.display()))
        })?;
        schema::migrate(&mut connection)?;
        enrol(&mut connection, &lineage)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            lineage: Arc::new(lineage),
            path: path.to_owned(),
            #[cfg(test)]
            step: None,
        })
    }

    /// Where the store lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Works with the connection where blocking is allowed. What has begun is finished
    /// even if nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, AuditError> {
        let mut connection = Arc::clone(&self.connection).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || work(&mut connection)).await;
        done.unwrap_or_else(|error| Err(AuditError::Unavailable(error.to_string())))
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_WAIT)?;
    // Turning the log on needs the whole file for a moment, and SQLite does not always
    // wait for that by itself.
    let begun = Instant::now();
    while let Err(error) = connection.pragma_update(None, "journal_mode", "WAL") {
        let busy = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        if !busy || begun.elapsed() > BUSY_WAIT {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(10));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Binds the store to the cluster and gives every member its row.
fn enrol(connection: &mut Connection, lineage: &Lineage) -> Result<(), AuditError> {
    let all = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(away)?;
    let own = lineage.cluster_id();
    let found: Option<Vec<u8>> = all
        .query_row("SELECT cluster_id FROM audit_cursor", [], |row| row.get(0))
        .optional()
        .map_err(away)?;
    match found {
        None => {
            all.execute(
                "INSERT INTO audit_cursor (only_row, revision, cluster_id, violations,
                     violations_hash, digest)
                 VALUES (1, ?1, ?2, 0, ?3, ?4)",
                params![
                    columns::Wide(0),
                    own.as_bytes(),
                    Head::before_all(own).hash,
                    mark::first(own),
                ],
            )
            .map_err(away)?;
        }
        Some(found) if found == own.as_bytes() => {}
        Some(found) => {
            let found = hex::encode(found);
            return Err(AuditError::OtherCluster { found, own });
        }
    }
    for member in lineage.members() {
        all.execute(
            "INSERT INTO node_reputation (peer_id, node_id, reputation_score) VALUES (?1, ?2, 1.0)
             ON CONFLICT (peer_id) DO NOTHING",
            params![member.peer_id.as_bytes(), member.node_id.as_str()],
        )
        .map_err(away)?;
    }
    all.commit().map_err(away)
}

/// What SQLite says when it cannot, or will not for a reason that passes.
fn away(error: rusqlite::Error) -> AuditError {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => {
            AuditError::Corrupt(error.to_string())
        }
        error => AuditError::Unavailable(error.to_string()),
    }
}

/// Whether a constraint of the tables refused: then it is no passing trouble.
fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// Milliseconds since the Unix epoch, for what the log gives no time for.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[async_trait]
impl AuditStore for SqliteAudit {
    async fn ask(&self, ask: AuditAsk) -> AuditAnswer {
        let answer = self
            .run(move |connection| write::answer(connection, ask, now_ms()))
            .await;
        answer.unwrap_or_else(|error| AuditAnswer::Unavailable(error.to_string()))
    }

    async fn mark(&self) -> Result<Mark, AuditError> {
        self.run(|connection| query::mark(connection)).await
    }

    async fn digests(&self, after: u64, limit: u32) -> Result<Vec<(u64, [u8; 32])>, AuditError> {
        self.run(move |connection| query::digests(connection, after, limit))
            .await
    }

    async fn lease(&self, holder: &NodeId, ttl: Duration) -> Result<bool, AuditError> {
        let holder = holder.clone();
        self.run(move |connection| write::lease(connection, &holder, ttl, now_ms()))
            .await
    }

    async fn project(&self, from: Mark, entries: &[BoardEntry]) -> Result<u64, AuditError> {
        let (entries, lineage) = (entries.to_vec(), Arc::clone(&self.lineage));
        #[cfg(test)]
        let step = self.step.clone();
        self.run(move |connection| {
            let told = |_step: write::Step| {
                #[cfg(test)]
                step.iter().for_each(|step| step(_step));
            };
            write::project(connection, &lineage, &from, &entries, &told)
        })
        .await
    }

    async fn set_aside(&self, parting: Arc<Parting>) -> Result<LostPast, AuditError> {
        self.run(move |connection| lost::set_aside(connection, &parting, now_ms()))
            .await
    }

    async fn losses(&self) -> Result<Losses, AuditError> {
        self.run(|connection| lost::losses(connection)).await
    }

    async fn archivable(&self, horizon: Horizon) -> Result<Archived, AuditError> {
        self.run(move |connection| archive::archivable(connection, horizon))
            .await
    }

    async fn archive(&self, horizon: Horizon, limit: u32) -> Result<Archived, AuditError> {
        self.run(move |connection| archive::archive(connection, horizon, limit))
            .await
    }

    async fn submission(&self, tx_id: &TxId) -> Result<Option<SubmissionRow>, AuditError> {
        let tx_id = tx_id.clone();
        self.run(move |connection| query::submission(connection, &tx_id))
            .await
    }

    async fn submissions(
        &self,
        state: Option<SubmissionState>,
        limit: u32,
    ) -> Result<Vec<SubmissionRow>, AuditError> {
        self.run(move |connection| query::submissions(connection, state, limit))
            .await
    }

    async fn submission_counts(&self) -> Result<SubmissionCounts, AuditError> {
        self.run(|connection| query::submission_counts(connection))
            .await
    }

    async fn violations(&self, filter: &Filter) -> Result<Vec<ViolationRow>, AuditError> {
        let filter = filter.clone();
        self.run(move |connection| query::violations(connection, &filter))
            .await
    }

    async fn votes(&self, filter: &Filter) -> Result<Vec<VoteRow>, AuditError> {
        let filter = filter.clone();
        self.run(move |connection| query::votes(connection, &filter))
            .await
    }

    async fn accusations(&self, filter: &Filter) -> Result<Vec<AccusationRow>, AuditError> {
        let filter = filter.clone();
        self.run(move |connection| query::accusations(connection, &filter))
            .await
    }

    async fn head(&self) -> Result<Head, AuditError> {
        self.run(|connection| query::head(connection)).await
    }

    async fn bans(&self, node_id: Option<&NodeId>) -> Result<Vec<BanRow>, AuditError> {
        let node_id = node_id.cloned();
        self.run(move |connection| query::bans(connection, node_id.as_ref()))
            .await
    }

    async fn decision(&self, tx_id: &TxId) -> Result<Option<DecisionRow>, AuditError> {
        let tx_id = tx_id.clone();
        self.run(move |connection| query::decision(connection, &tx_id))
            .await
    }

    async fn reputations(&self) -> Result<Vec<ReputationRow>, AuditError> {
        self.run(|connection| query::reputations(connection)).await
    }

    async fn final_state(&self, tx_id: &TxId) -> Result<Option<BallotState>, AuditError> {
        let tx_id = tx_id.clone();
        self.run(move |connection| query::final_state(connection, &tx_id))
            .await
    }

    async fn final_states(
        &self,
        after: Option<&TxId>,
        limit: u32,
    ) -> Result<Vec<(TxId, BallotState)>, AuditError> {
        let after = after.cloned();
        self.run(move |connection| query::final_states(connection, after.as_ref(), limit))
            .await
    }

    fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    fn backend(&self) -> &'static str {
        "sqlite"
    }
}
