//! The board on one SQLite file, shared by the nodes and processes of one machine.
//!
//! Each handle has two threads. The *writer* takes all proposals that wait, and in
//! one transaction catches up with what others appended, applies them to its own
//! [`Board`](quorate_consensus::board::Board) and appends what changed it; only
//! after the commit (write-ahead log, `synchronous = FULL`) does anybody hear an
//! answer. The *reader* serves reads from a connection of its own and notices what
//! other processes appended.
//!
//! The file is trusted: who can write it can stall the nodes that share it, so
//! entries that come from the file are replayed for their meaning, but their
//! signatures are not verified again. They were verified when they were proposed,
//! and every node verifies them once more before it believes them. That keeps a
//! start fast.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_consensus::{Rules, Verifier};
use quorate_engine::{ProposeError, Proposed};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{Coordinator, StoreError};

mod file;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use file::LogFile;
use reader::{Ask, Reader};
use writer::{Job, Writer};

/// How a handle works; the defaults fit a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long to wait while another process holds the file.
    pub busy_wait: Duration,
    /// How often to look whether other processes appended something.
    pub poll_every: Duration,
    /// The most proposals in one commit; at least 1.
    pub max_batch: usize,
    /// The most proposals that wait for the writer; a further one waits for room.
    /// At least 1.
    pub queue: usize,
}

impl Default for Options {
    /// 5 s, 10 ms, 256, 1024.
    fn default() -> Self {
        Self {
            busy_wait: Duration::from_secs(5),
            poll_every: Duration::from_millis(10),
            max_batch: 256,
            queue: 1024,
        }
    }
}

/// A handle on the embedded board. Several may be open on one file, in one process
/// or in several. Dropping the handle ends its threads once what waits is answered.
#[derive(Debug)]
pub struct Embedded {
    jobs: mpsc::Sender<Job>,
    asks: blocking::Sender<Ask>,
    head: watch::Receiver<u64>,
    path: PathBuf,
    // Closed by the threads' ends: nothing is ever sent.
    ended: mpsc::Receiver<()>,
}

impl Embedded {
    /// Opens the board at `path` with [`Options::default`], and makes it if there
    /// is none. `rules` is the genesis that the board starts from; `verifier` checks
    /// what is proposed through this handle.
    ///
    /// Blocks on the disk and replays the log: in async code, call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// [`StoreError`]: another cluster's file, a newer program's, a damaged one, or
    /// one that cannot be opened now.
    pub fn open(
        path: impl AsRef<Path>,
        rules: Arc<Rules>,
        verifier: Arc<dyn Verifier>,
    ) -> Result<Self, StoreError> {
        Self::open_with(path, rules, verifier, Options::default())
    }

    /// [`Embedded::open`] with other options.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_with(
        path: impl AsRef<Path>,
        rules: Arc<Rules>,
        verifier: Arc<dyn Verifier>,
        options: Options,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let log = LogFile::open(path, &rules.cluster_id(), options.busy_wait)?;
        let reading = LogFile::open(path, &rules.cluster_id(), options.busy_wait)?;
        let (jobs, waiting) = mpsc::channel(options.queue.max(1));
        let (asks, asked) = blocking::channel();
        let (notice, head) = watch::channel(0);
        let notice = Arc::new(notice);
        let (end, ended) = mpsc::channel(1);

        let writer = Writer::new(log, rules, verifier, Arc::clone(&notice))?;
        let mut reader = Reader::new(reading, notice, options.poll_every);
        reader.poll();
        let writer_end = end.clone();
        start("board-writer", move || {
            writer.run(waiting, options.max_batch.max(1));
            drop(writer_end);
        })?;
        start("board-reader", move || {
            reader.run(&asked);
            drop(end);
        })?;
        Ok(Self {
            jobs,
            asks,
            head,
            path: path.to_owned(),
            ended,
        })
    }

    /// Where the board lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers what waits, then closes the file; returns when both threads ended.
    pub async fn close(self) {
        let Self {
            jobs,
            asks,
            mut ended,
            ..
        } = self;
        drop((jobs, asks));
        while ended.recv().await.is_some() {}
    }

    /// Runs something on the writer's connection, to bring about a disk's faults.
    #[cfg(test)]
    async fn on_writer(&self, act: impl FnOnce(&rusqlite::Connection) + Send + 'static) {
        let (done, wait) = oneshot::channel();
        let act = Box::new(move |connection: &rusqlite::Connection| {
            act(connection);
            done.send(()).expect("the test waits");
        });
        assert!(self.jobs.send(Job::Act(act)).await.is_ok());
        wait.await.expect("the writer lives");
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map(drop)
        .map_err(|e| StoreError::Unavailable(format!("no thread for the {name}: {e}")))
}

#[async_trait]
impl Coordinator for Embedded {
    async fn propose(&self, op: BoardOp, now_ms: u64) -> Result<Proposed, ProposeError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Propose { op, now_ms, reply };
        if self.jobs.send(job).await.is_err() {
            return Err(StoreError::Closed.into());
        }
        answer.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    async fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Entries {
            after,
            limit,
            reply,
        };
        self.asks.send(ask).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn head(&self) -> Result<u64, StoreError> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Head { reply };
        self.asks.send(ask).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    fn backend(&self) -> &'static str {
        "embedded"
    }
}
