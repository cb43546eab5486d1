//! The writer's thread: group commit.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use quorate_consensus::board::{Board, Outcome, Refusal};
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_consensus::{Domain, PublicKey, Rules, Verifier};
use quorate_engine::{ProposeError, Proposed};
use tokio::sync::{mpsc, oneshot, watch};

use super::file::{self, LogFile, MAX_COLUMN};
use crate::api::StoreError;

type Reply = Result<Proposed, ProposeError>;

/// After other processes appended something, this many commits leave them a gap.
const CROWDED_FOR: u32 = 16;

/// The gap: long enough for a waiting process to wake and begin.
const GAP: Duration = Duration::from_micros(150);

/// Work for the writer.
pub(super) enum Job {
    Propose {
        op: BoardOp,
        now_ms: u64,
        reply: oneshot::Sender<Reply>,
    },
    #[cfg(test)]
    Act(Box<dyn FnOnce(&rusqlite::Connection) + Send>),
}

/// Accepts every signature. For the replay of entries from the file only, whose
/// signatures were verified before they were written: see [`super`].
struct TrustFile;

impl Verifier for TrustFile {
    fn verify(&self, _: &PublicKey, _: Domain, _: &[u8], _: &[u8]) -> bool {
        true
    }

    fn is_sound_key(&self, _: &PublicKey) -> bool {
        true
    }
}

/// Appends to a board's file.
pub(super) struct Writer {
    log: LogFile,
    rules: Arc<Rules>,
    verifier: Arc<dyn Verifier>,
    notice: Arc<watch::Sender<u64>>,
    /// The board as the file has it; none after a commit that failed: then it is
    /// rebuilt from the file.
    board: Option<Board>,
    /// The last commit failed.
    troubled: bool,
    /// How many more commits leave a gap for others.
    crowded: u32,
}

impl Writer {
    /// Replays the file.
    pub(super) fn new(
        log: LogFile,
        rules: Arc<Rules>,
        verifier: Arc<dyn Verifier>,
        notice: Arc<watch::Sender<u64>>,
    ) -> Result<Self, StoreError> {
        let mut board = Board::new(Arc::clone(&rules));
        file::each_after(log.connection(), 0, |entry| replay(&mut board, entry))?;
        Ok(Self {
            log,
            rules,
            verifier,
            notice,
            board: Some(board),
            troubled: false,
            crowded: 0,
        })
    }

    /// Works until all proposers are gone.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>, max_batch: usize) {
        let mut batch = Vec::with_capacity(max_batch);
        while jobs.blocking_recv_many(&mut batch, max_batch) > 0 {
            let (ops, mut replies) = self.sort(&mut batch);
            match self.commit(&ops) {
                Ok(answers) => {
                    for (reply, answer) in replies.into_iter().zip(answers) {
                        // A failed send means that nobody waits any more.
                        drop(reply.send(answer));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "board.not_written");
                    // Whoever else waits would wait for the same failure.
                    while let Ok(job) = jobs.try_recv() {
                        batch.push(job);
                    }
                    replies.extend(self.sort(&mut batch).1);
                    for reply in replies {
                        drop(reply.send(Err(error.clone().into())));
                    }
                }
            }
            if self.crowded > 0 {
                self.crowded -= 1;
                thread::sleep(GAP);
            }
        }
    }

    fn sort(&self, batch: &mut Vec<Job>) -> (Vec<(BoardOp, u64)>, Vec<oneshot::Sender<Reply>>) {
        let (mut ops, mut replies) = (Vec::new(), Vec::new());
        for job in batch.drain(..) {
            match job {
                Job::Propose { op, now_ms, reply } => {
                    ops.push((op, now_ms));
                    replies.push(reply);
                }
                #[cfg(test)]
                Job::Act(act) => act(self.log.connection()),
            }
        }
        (ops, replies)
    }

    /// Applies and appends; when this returns, all of it is durable or nothing.
    fn commit(&mut self, ops: &[(BoardOp, u64)]) -> Result<Vec<Reply>, StoreError> {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let transaction = self.log.begin()?;
        // From here on an error leaves no board, unless the last commit failed too:
        // then a copy spares the replay of the whole file at every further try.
        let troubled = std::mem::replace(&mut self.troubled, true);
        let fresh = || Board::new(Arc::clone(&self.rules));
        let mut board = self.board.take().unwrap_or_else(fresh);
        let head = file::head(&transaction)?;
        if head < board.revision() {
            let revision = board.revision();
            tracing::warn!(head, revision, "board.went_back: its file is an older one");
            board = fresh();
        }
        let mut foreign = false;
        file::each_after(&transaction, board.revision(), |entry| {
            foreign = true;
            replay(&mut board, entry)
        })?;
        self.board = troubled.then(|| board.clone());

        let mut answers = Vec::with_capacity(ops.len());
        for (op, now_ms) in ops {
            let answer = match order(&mut board, op, *now_ms, &*self.verifier) {
                Ok(Outcome::Applied(entry)) => {
                    let revision = entry.revision;
                    file::append(&transaction, entry)?;
                    Ok(Proposed::Applied(revision))
                }
                Ok(Outcome::Unchanged) => Ok(Proposed::Unchanged(board.revision())),
                Err(refusal) => Err(refusal.into()),
            };
            answers.push(answer);
        }
        transaction.commit()?;
        if foreign {
            self.crowded = CROWDED_FOR;
        }
        notice_head(&self.notice, board.revision());
        self.board = Some(board);
        self.troubled = false;
        Ok(answers)
    }
}

fn order(
    board: &mut Board,
    op: &BoardOp,
    now_ms: u64,
    verifier: &dyn Verifier,
) -> Result<Outcome, Refusal> {
    if now_ms > MAX_COLUMN {
        let why = format!("time {now_ms} is beyond what the store can hold");
        return Err(Refusal::Malformed(why));
    }
    board.apply(op, now_ms, verifier)
}

fn replay(board: &mut Board, entry: BoardEntry) -> Result<(), StoreError> {
    match board.replay(entry, &TrustFile) {
        Ok(_) => Ok(()),
        Err(error) => Err(StoreError::Corrupt(error.to_string())),
    }
}

/// Tells watchers of a head, unless they have heard of a later one.
pub(super) fn notice_head(notice: &watch::Sender<u64>, head: u64) {
    notice.send_if_modified(|known| {
        let moved = head > *known;
        *known = head.max(*known);
        moved
    });
}
