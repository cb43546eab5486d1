//! The audit store on PostgreSQL, which the nodes of many machines share. Every answer
//! is on the server's disk before it is given. While the server is away, every call
//! says so within a bounded time, and after a few at once (see [`BreakerState`]); what
//! was to be projected is projected when it is back.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use deadpool_postgres::Client;
use quorate_consensus::wire::{BallotState, BoardEntry};
use quorate_consensus::{NodeId, TxId};
use quorate_engine::{AuditAnswer, AuditAsk};
use tokio_postgres::error::SqlState;

use crate::archive::{Archived, Horizon};
use crate::change::Batch;
use crate::lineage::Lineage;
use crate::mark::Mark;
use crate::parting::{Losses, LostPast, Parting};
use crate::rows::{
    AccusationRow, BanRow, DecisionRow, Filter, ReputationRow, SubmissionCounts, SubmissionRow,
    SubmissionState, ViolationRow, VoteRow,
};
use crate::seal::Head;
use crate::store::{AuditError, AuditStore};

mod archive;
mod breaker;
mod columns;
mod link;
mod lost;
#[cfg(test)]
mod outage;
mod query;
mod schema;
#[cfg(test)]
mod tests;
mod write;

pub use breaker::BreakerState;

/// How to reach the server, beside the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// PEM file of the CA that signed the server's certificate: then TLS 1.3 is used,
    /// and nothing else will do. None: no TLS, for a server on the same machine.
    pub ca_path: Option<PathBuf>,
    /// Connections at most.
    pub connections: NonZeroUsize,
}

impl Default for Options {
    /// No TLS, 4 connections.
    fn default() -> Self {
        Self {
            ca_path: None,
            connections: NonZeroUsize::MIN.saturating_add(3),
        }
    }
}

/// A handle on the PostgreSQL audit store.
#[derive(Clone)]
pub struct PostgresAudit {
    shared: Arc<Shared>,
}

struct Shared {
    link: link::Link,
    lineage: Lineage,
    /// The tables are there, and they are this cluster's.
    prepared: AtomicBool,
}

impl PostgresAudit {
    /// Makes a handle, and connects to nothing yet: a node starts without its audit
    /// store, and takes votes. The first call that reaches the server prepares the
    /// store as [`Self::open`] does. To be used inside of one Tokio runtime.
    ///
    /// # Errors
    /// [`AuditError::Settings`].
    pub fn new(
        url: &str,
        lineage: impl Into<Lineage>,
        options: &Options,
    ) -> Result<Self, AuditError> {
        Ok(Self {
            shared: Arc::new(Shared {
                link: link::Link::new(url, options)?,
                lineage: lineage.into(),
                prepared: AtomicBool::new(false),
            }),
        })
    }

    /// Opens the store: makes its tables, or brings them to the newest version, and
    /// binds it to the cluster. `lineage` tells whose keys are whose: the genesis as
    /// `Arc<Rules>`, or a [`Lineage`] of several epochs.
    ///
    /// # Errors
    /// [`AuditError::Settings`], [`AuditError::OtherCluster`],
    /// [`AuditError::NewerSchema`], [`AuditError::OldSchema`] when the role of the URL
    /// may not make tables, or [`AuditError::Unavailable`].
    pub async fn open(
        url: &str,
        lineage: impl Into<Lineage>,
        options: &Options,
    ) -> Result<Self, AuditError> {
        let store = Self::new(url, lineage, options)?;
        store.run(async |_| Ok(())).await?;
        Ok(store)
    }

    /// Makes the tables as the role of the URL, who will own them, and lets the role
    /// `node_role` do what a node does: no more, so it can neither change nor delete a
    /// violation. Gives the version of the tables.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn migrate(
        url: &str,
        node_role: Option<&str>,
        options: &Options,
    ) -> Result<u32, AuditError> {
        let link = link::Link::new(url, options)?;
        link.run(async |client: &mut Client| {
            let all = client.transaction().await.map_err(away)?;
            let version = schema::migrate(&all).await?;
            if let Some(role) = node_role {
                schema::grant(&all, role).await?;
            }
            all.commit().await.map_err(away)?;
            Ok(version)
        })
        .await
    }

    /// Whether calls go to the server, or are refused at once because it did not
    /// answer the last ones.
    pub fn breaker(&self) -> BreakerState {
        self.shared.link.breaker()
    }

    /// Works with a connection to a store that is prepared.
    async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        let Shared {
            link,
            lineage,
            prepared,
        } = &*self.shared;
        link.run(async |client: &mut Client| {
            // Twice does no harm.
            if !prepared.load(Ordering::Acquire) {
                let all = client.transaction().await.map_err(away)?;
                schema::migrate(&all).await?;
                schema::enrol(&all, lineage).await?;
                all.commit().await.map_err(away)?;
                prepared.store(true, Ordering::Release);
            }
            work(client).await
        })
        .await
    }
}

/// What the server says when it cannot or will not.
fn away(error: tokio_postgres::Error) -> AuditError {
    let why = link::causes(&error);
    match error.code().is_none_or(passes) {
        true => AuditError::Unavailable(why),
        false => AuditError::Refused(why),
    }
}

/// Whether the trouble passes by itself: of the connection (08), a standby that was
/// not yet promoted (25006), a lost race (40), no room (53), a lock (55), the
/// operator (57), the system (58).
fn passes(code: &SqlState) -> bool {
    let classes = ["08", "40", "53", "55", "57", "58"];
    let of = |class: &&str| code.code().starts_with(*class);
    classes.iter().any(of) || *code == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// Whether a constraint of the tables refused (class 23): then it is no passing
/// trouble.
fn is_constraint(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| code.code().starts_with("23"))
}

/// Milliseconds since the Unix epoch, for what the log gives no time for.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[async_trait]
impl AuditStore for PostgresAudit {
    async fn ask(&self, ask: AuditAsk) -> AuditAnswer {
        let answer = self.run(async |client| write::answer(client, ask, now_ms()).await);
        let answer = answer.await;
        answer.unwrap_or_else(|error| AuditAnswer::Unavailable(error.to_string()))
    }

    async fn mark(&self) -> Result<Mark, AuditError> {
        let read = self.run(async |client| query::cursor(client, false).await);
        read.await.map(|(mark, _)| mark)
    }

    async fn digests(&self, after: u64, limit: u32) -> Result<Vec<(u64, [u8; 32])>, AuditError> {
        self.run(async |client| query::digests(client, after, limit).await)
            .await
    }

    async fn lease(&self, holder: &NodeId, ttl: Duration) -> Result<bool, AuditError> {
        self.run(async |client| write::lease(client, holder.as_str(), ttl).await)
            .await
    }

    async fn project(&self, from: Mark, entries: &[BoardEntry]) -> Result<u64, AuditError> {
        let batch = Batch::new(from.revision, entries, &self.shared.lineage)?;
        self.run(async |client| write::project(client, &from, batch).await)
            .await
    }

    async fn set_aside(&self, parting: Arc<Parting>) -> Result<LostPast, AuditError> {
        self.run(async |client| lost::set_aside(client, &parting, now_ms()).await)
            .await
    }

    async fn losses(&self) -> Result<Losses, AuditError> {
        self.run(async |client| lost::losses(client).await).await
    }

    async fn archivable(&self, horizon: Horizon) -> Result<Archived, AuditError> {
        self.run(async |client| archive::archivable(client, horizon).await)
            .await
    }

    async fn archive(&self, horizon: Horizon, limit: u32) -> Result<Archived, AuditError> {
        self.run(async |client| archive::archive(client, horizon, limit).await)
            .await
    }

    async fn submission(&self, tx_id: &TxId) -> Result<Option<SubmissionRow>, AuditError> {
        self.run(async |client| query::submission(client, tx_id).await)
            .await
    }

    async fn submissions(
        &self,
        state: Option<SubmissionState>,
        limit: u32,
    ) -> Result<Vec<SubmissionRow>, AuditError> {
        self.run(async |client| query::submissions(client, state, limit).await)
            .await
    }

    async fn head(&self) -> Result<Head, AuditError> {
        let read = self.run(async |client| query::cursor(client, false).await);
        read.await.map(|(_, head)| head)
    }

    async fn submission_counts(&self) -> Result<SubmissionCounts, AuditError> {
        self.run(async |client| query::submission_counts(client).await)
            .await
    }

    async fn violations(&self, filter: &Filter) -> Result<Vec<ViolationRow>, AuditError> {
        self.run(async |client| query::violations(client, filter).await)
            .await
    }

    async fn votes(&self, filter: &Filter) -> Result<Vec<VoteRow>, AuditError> {
        self.run(async |client| query::votes(client, filter).await)
            .await
    }

    async fn accusations(&self, filter: &Filter) -> Result<Vec<AccusationRow>, AuditError> {
        self.run(async |client| query::accusations(client, filter).await)
            .await
    }

    async fn bans(&self, node_id: Option<&NodeId>) -> Result<Vec<BanRow>, AuditError> {
        self.run(async |client| query::bans(client, node_id).await)
            .await
    }

    async fn decision(&self, tx_id: &TxId) -> Result<Option<DecisionRow>, AuditError> {
        self.run(async |client| query::decision(client, tx_id).await)
            .await
    }

    async fn reputations(&self) -> Result<Vec<ReputationRow>, AuditError> {
        self.run(async |client| query::reputations(client).await)
            .await
    }

    async fn final_state(&self, tx_id: &TxId) -> Result<Option<BallotState>, AuditError> {
        self.run(async |client| query::final_state(client, tx_id).await)
            .await
    }

    async fn final_states(
        &self,
        after: Option<&TxId>,
        limit: u32,
    ) -> Result<Vec<(TxId, BallotState)>, AuditError> {
        self.run(async |client| query::final_states(client, after, limit).await)
            .await
    }

    fn lineage(&self) -> &Lineage {
        &self.shared.lineage
    }

    fn backend(&self) -> &'static str {
        "postgres"
    }
}
