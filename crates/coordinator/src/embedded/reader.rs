//! The reader's thread: serves reads, and notices what other processes append.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use quorate_consensus::wire::BoardEntry;
use tokio::sync::{oneshot, watch};

use super::file::LogFile;
use super::writer::notice_head;
use crate::api::StoreError;

/// A read.
#[derive(Debug)]
pub(super) enum Ask {
    Entries {
        after: u64,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<BoardEntry>, StoreError>>,
    },
    Head {
        reply: oneshot::Sender<Result<u64, StoreError>>,
    },
}

/// Reads a board's file.
#[derive(Debug)]
pub(super) struct Reader {
    log: LogFile,
    notice: Arc<watch::Sender<u64>>,
    poll_every: Duration,
    seen: Option<i64>,
}

impl Reader {
    pub(super) fn new(log: LogFile, notice: Arc<watch::Sender<u64>>, poll_every: Duration) -> Self {
        Self {
            log,
            notice,
            poll_every,
            seen: None,
        }
    }

    /// Serves until all askers are gone.
    pub(super) fn run(mut self, asks: &Receiver<Ask>) {
        let mut next_poll = Instant::now();
        loop {
            let left = next_poll.saturating_duration_since(Instant::now());
            match asks.recv_timeout(left) {
                Ok(ask) => self.serve(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Also between reads, lest a steady reader keep the handle from hearing.
            if Instant::now() >= next_poll {
                self.poll();
                next_poll = Instant::now() + self.poll_every;
            }
        }
    }

    fn serve(&self, ask: Ask) {
        // A failed send means that nobody waits any more.
        match ask {
            Ask::Entries { reply, .. } if reply.is_closed() => {}
            Ask::Entries {
                after,
                limit,
                reply,
            } => drop(reply.send(self.log.entries(after, limit))),
            Ask::Head { reply } => drop(reply.send(self.log.head())),
        }
    }

    /// Looks whether anybody appended something.
    pub(super) fn poll(&mut self) {
        match self.look() {
            Ok(()) => {}
            // The next poll tries again, and whoever reads hears of it.
            Err(error) => tracing::debug!(%error, "board.not_polled"),
        }
    }

    fn look(&mut self) -> Result<(), StoreError> {
        let version = self.log.data_version()?;
        if self.seen != Some(version) {
            notice_head(&self.notice, self.log.head()?);
            self.seen = Some(version);
        }
        Ok(())
    }
}
