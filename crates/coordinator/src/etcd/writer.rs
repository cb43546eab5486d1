//! Sends what waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::wire::BoardOp;
use quorate_engine::{ProposeError, Proposed};
use quorate_keyspace::{Ask, Batch, OpId, Reply, Verdict};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Options;
use super::connection::Sent;
use super::shared::Shared;
use crate::api::StoreError;

type Answer = Result<Proposed, ProposeError>;

/// After trouble an operation is sent again after this pause.
const PAUSE: Duration = Duration::from_millis(20);

/// An operation that waits to be sent, or sent again.
#[derive(Debug)]
pub(super) struct Job {
    ask: Ask,
    reply: oneshot::Sender<Answer>,
    /// The board was read to the end after this was asked: what it says is the answer.
    fresh: bool,
    /// It was sent, and nobody knows whether it took effect.
    doubtful: bool,
}

impl Job {
    pub(super) fn new(id: OpId, op: BoardOp, now_ms: u64, reply: oneshot::Sender<Answer>) -> Self {
        Self {
            ask: Ask { id, op, now_ms },
            reply,
            fresh: false,
            doubtful: false,
        }
    }

    fn answer(self, answer: Answer) {
        // A failed send means that nobody waits any more.
        drop(self.reply.send(answer));
    }
}

/// Groups and sends.
pub(super) struct Writer {
    shared: Arc<Shared>,
    max_batch: usize,
    in_flight: Arc<Semaphore>,
    back: mpsc::Sender<Job>,
    returned: mpsc::Receiver<Job>,
    queue: VecDeque<Job>,
    room: usize,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, options: &Options) -> Self {
        let (back, returned) = mpsc::channel(options.queue.max(1));
        Self {
            shared,
            max_batch: options.max_batch.clamp(1, 64),
            in_flight: Arc::new(Semaphore::new(options.in_flight.max(1))),
            back,
            returned,
            queue: VecDeque::new(),
            room: options.queue.max(1),
        }
    }

    /// Works until all proposers are gone.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            if self.queue.is_empty() {
                tokio::select! {
                    job = jobs.recv() => match job {
                        Some(job) => self.queue.push_back(job),
                        None => return,
                    },
                    Some(job) = self.returned.recv() => self.queue.push_back(job),
                }
            }
            // While all transactions are on their way, what comes in waits together.
            let Ok(permit) = Arc::clone(&self.in_flight).acquire_owned().await else {
                return;
            };
            while let Ok(job) = self.returned.try_recv() {
                self.queue.push_back(job);
            }
            while self.queue.len() < self.room {
                match jobs.try_recv() {
                    Ok(job) => self.queue.push_back(job),
                    Err(_) => break,
                }
            }
            self.queue.retain(|job| !job.reply.is_closed());
            let (batch, sent) = self.plan();
            if sent.is_empty() {
                continue;
            }
            let (shared, back) = (Arc::clone(&self.shared), self.back.clone());
            tokio::spawn(async move {
                carry_out(&shared, &batch, sent, &back).await;
                drop(permit);
            });
        }
    }

    /// Takes what travels together off the queue, and answers what needs no sending.
    fn plan(&mut self) -> (Batch, Vec<Job>) {
        // Some behind those that fill a transaction: not all can travel together.
        let looked = self.queue.len().min(2 * self.max_batch);
        let jobs: Vec<Job> = self.queue.drain(..looked).collect();
        let asks: Vec<&Ask> = jobs.iter().map(|job| &job.ask).collect();
        let (planned, revision) = {
            let reader = self.shared.reader();
            (
                reader.plan(&asks, self.max_batch),
                reader.board().revision(),
            )
        };
        let mut jobs: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
        let mut stale = Vec::new();
        for (place, verdict) in planned.settled {
            let Some(job) = jobs.get_mut(place).and_then(Option::take) else {
                continue;
            };
            match (job.fresh, verdict) {
                (false, _) => stale.push(job),
                (true, Verdict::Unchanged) => {
                    job.answer(Ok(Proposed::Unchanged(revision)));
                }
                (true, verdict) if job.doubtful && !verdict.is_certain(&job.ask.op) => {
                    job.answer(Err(unknown(
                        "it was sent before, and etcd did not say what became of it",
                    )));
                }
                (true, Verdict::Refused(refusal)) => job.answer(Err(refusal.into())),
            }
        }
        let mut sent = Vec::new();
        for (place, _) in &planned.batch.steps {
            sent.extend(jobs.get_mut(*place).and_then(Option::take));
        }
        // In the order in which they came, before those that came later.
        for job in jobs.into_iter().flatten().rev() {
            self.queue.push_front(job);
        }
        if !stale.is_empty() {
            tokio::spawn(read_then_return(
                Arc::clone(&self.shared),
                stale,
                self.back.clone(),
            ));
        }
        (planned.batch, sent)
    }
}

fn unknown(why: impl Into<String>) -> ProposeError {
    StoreError::Unavailable(why.into()).into()
}

/// Reads the board to the end, so that what it says of these operations is true of a
/// moment after they were asked.
async fn read_then_return(shared: Arc<Shared>, jobs: Vec<Job>, back: mpsc::Sender<Job>) {
    let read = shared.sync().await;
    for mut job in jobs {
        match &read {
            Ok(_) => {
                job.fresh = true;
                // Closed only when the handle is gone.
                drop(back.send(job).await);
            }
            Err(error) => job.answer(Err(error.clone().into())),
        }
    }
}

/// Sends a batch and waits until it was read back.
async fn carry_out(shared: &Arc<Shared>, batch: &Batch, jobs: Vec<Job>, back: &mpsc::Sender<Job>) {
    let heard: Vec<_> = jobs.iter().map(|job| shared.expect(job.ask.id)).collect();
    match shared.connection.commit(batch).await {
        Sent::Done { revision, held } => {
            let read = shared.read_to(revision).await;
            for ((mut job, mut hear), held) in jobs.into_iter().zip(heard).zip(held) {
                shared.expect_no_more(job.ask.id);
                match (hear.try_recv(), &read) {
                    (Ok(reply), _) => job.answer(told(reply)),
                    (Err(_), Err(error)) => job.answer(Err(error.clone().into())),
                    (Err(_), Ok(())) => {
                        // A guard did not hold: what it depends on changed. Or it was
                        // written and is not there: then the board says why.
                        job.fresh = held;
                        drop(back.send(job).await);
                    }
                }
            }
        }
        Sent::Refused(why) => {
            for job in jobs {
                shared.expect_no_more(job.ask.id);
                job.answer(Err(unknown(why.clone())));
            }
        }
        Sent::Unknown(why) => {
            tracing::debug!(%why, "etcd.unknown_outcome");
            tokio::time::sleep(PAUSE).await;
            for (mut job, mut hear) in jobs.into_iter().zip(heard) {
                shared.expect_no_more(job.ask.id);
                match hear.try_recv() {
                    Ok(reply) => job.answer(told(reply)),
                    Err(_) => {
                        job.doubtful = true;
                        job.fresh = false;
                        drop(back.send(job).await);
                    }
                }
            }
        }
    }
}

fn told(reply: Reply) -> Answer {
    match reply {
        Reply::Applied(revision) => Ok(Proposed::Applied(revision)),
        Reply::Unchanged(revision) => Ok(Proposed::Unchanged(revision)),
        Reply::Refused(refusal) => Err(refusal.into()),
    }
}
