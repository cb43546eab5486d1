//! The board in etcd: production.
//!
//! What an operation compares and puts, and what the keys mean, is
//! [`quorate_keyspace`]'s business, which is pure; here is the client. Two tasks
//! share a [`Reader`](quorate_keyspace::Reader): the *follower* reads all keys once
//! and then the changes, and puts right what somebody else tampered with; the
//! *writer* sends what waits, in transactions of up to 64 operations, several on
//! their way at once, and a lone one at once. An operation is answered when the
//! follower has read it back and the board has accepted it: what etcd says of a
//! transaction is believed only as far as that it is worth looking.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_consensus::{Rules, Verifier};
use quorate_engine::{ProposeError, Proposed};
use quorate_keyspace::{Ask, Finding, OpId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::api::{Coordinator, MemberStatus, StoreError, Tampering};

mod connection;
mod follower;
mod members;
mod shared;
#[cfg(feature = "suite")]
mod testing;
mod translate;
mod writer;

use connection::Connection;
pub use connection::{Dial, Plain, User};
use shared::Shared;
#[cfg(feature = "suite")]
pub use testing::{outcome, transaction};
use writer::{Job, Writer};

/// How a handle works; the defaults fit a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where etcd's members are: `http://host:port` or `https://host:port`. They are
    /// tried in this order; the next one when one does not answer.
    pub endpoints: Vec<String>,
    /// What all keys begin with, with a slash at the end.
    pub prefix: String,
    /// Who we are to etcd, if it asks.
    pub user: Option<User>,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long a proposal, or a reading, may take with all its repetitions; after it
    /// nobody knows whether a proposal took effect.
    pub propose_timeout: Duration,
    /// The most operations in one transaction: 1 to 64 (etcd's default limit is 128
    /// writes in one place of a transaction).
    pub max_batch: usize,
    /// The most transactions on their way at once; at least 1.
    pub in_flight: usize,
    /// The most proposals that wait; a further one waits for room. At least 1.
    pub queue: usize,
}

impl Options {
    /// The defaults for these endpoints and the cluster of this name: 2 s a request,
    /// 10 s a proposal, 64 operations, 4 on their way, 1024 waiting.
    pub fn new(endpoints: Vec<String>, cluster_name: &str) -> Self {
        Self {
            endpoints,
            prefix: format!("/quorate/{cluster_name}/"),
            user: None,
            request_timeout: Duration::from_secs(2),
            propose_timeout: Duration::from_secs(10),
            max_batch: 64,
            in_flight: 4,
            queue: 1024,
        }
    }
}

/// A handle on the board in etcd. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Etcd {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    propose_timeout: Duration,
    ids: Ids,
    tasks: Vec<JoinHandle<()>>,
}

/// Makes names for attempts that no other handle makes.
#[derive(Debug)]
struct Ids {
    handle: [u8; 8],
    next: std::sync::atomic::AtomicU64,
}

impl Ids {
    fn new() -> Result<Self, StoreError> {
        let mut handle = [0; 8];
        getrandom::fill(&mut handle)
            .map_err(|error| StoreError::Unavailable(format!("no random numbers: {error}")))?;
        Ok(Self {
            handle,
            next: std::sync::atomic::AtomicU64::new(1),
        })
    }

    fn next(&self) -> OpId {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.handle);
        id[8..].copy_from_slice(&number.to_be_bytes());
        OpId(id)
    }
}

impl Etcd {
    /// Connects and reads the whole board. `rules` is the genesis that the board
    /// starts from; `verifier` checks whatever is read or proposed; `dial` opens
    /// connections ([`Plain`] without TLS).
    ///
    /// # Errors
    /// [`StoreError::OtherCluster`] when another cluster of the same name lies under
    /// the prefix; [`StoreError::Unavailable`] when no member answers.
    pub async fn open(
        options: Options,
        rules: Arc<Rules>,
        verifier: Arc<dyn Verifier>,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, StoreError> {
        let connection = Arc::new(Connection::new(&options, dial)?);
        let shared = Arc::new(Shared::new(
            connection,
            rules,
            verifier,
            options.propose_timeout,
        ));
        follower::first_reading(&shared, options.propose_timeout).await?;
        let (jobs, waiting) = mpsc::channel(options.queue.max(1));
        let writer = Writer::new(Arc::clone(&shared), &options);
        let tasks = vec![
            tokio::spawn(follower::run(Arc::clone(&shared))),
            tokio::spawn(writer.run(waiting)),
        ];
        Ok(Self {
            shared,
            jobs,
            propose_timeout: options.propose_timeout,
            ids: Ids::new()?,
            tasks,
        })
    }

    /// What somebody did to the store that no node does: found, and where that can be
    /// put right. A receiver that is slow misses the oldest.
    pub fn findings(&self) -> broadcast::Receiver<Finding> {
        self.shared.findings()
    }

    /// The version of the etcd member that answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn server_version(&self) -> Result<String, StoreError> {
        self.shared.connection.version().await
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // What was on its way does not wait for the follower for ever.
        self.shared.close();
    }
}

#[async_trait]
impl Coordinator for Etcd {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        if let Some(error) = self.shared.done_for() {
            return Err(error.into());
        }
        let (reply, answer) = oneshot::channel();
        let id = self.ids.next();
        let job = Job::new(&self.shared, Ask::new(id, op, now_ms), reply);
        let asked = async {
            if self.jobs.send(job).await.is_err() {
                return Err(StoreError::Closed.into());
            }
            answer.await.unwrap_or(Err(StoreError::Closed.into()))
        };
        match tokio::time::timeout(self.propose_timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unavailable(format!(
                "etcd did not answer within {:?}; last trouble: {}",
                self.propose_timeout,
                self.shared.connection.last_trouble()
            ))
            .into()),
        }
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        let entries = self.shared.entries(after, limit);
        if !entries.is_empty() || limit == 0 {
            return Ok(entries);
        }
        // None may be given only when there are none.
        self.shared.sync().await?;
        Ok(self.shared.entries(after, limit))
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.shared.sync().await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.heads()
    }

    fn tampering(&self) -> Option<broadcast::Receiver<Tampering>> {
        Some(self.shared.tampering())
    }

    fn backend(&self) -> &'static str {
        "etcd"
    }

    async fn members(&self) -> Vec<MemberStatus> {
        self.shared.connection.members().await
    }
}
