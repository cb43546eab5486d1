//! Sends what waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quorate_engine::{ProposeError, Proposed};
use quorate_keyspace::{Ask, Attempt, Batch, Next, Reply};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Options;
use super::connection::Sent;
use super::shared::{Expected, Shared};
use crate::api::StoreError;

type Answer = Result<Proposed, ProposeError>;

/// How many transactions may have been carried out and not been read back yet, for each
/// that may be on its way. Reading back takes etcd no work that a further transaction
/// would have to wait for.
const UNREAD: usize = 4;

/// After trouble an operation is sent again after this pause.
const PAUSE: Duration = Duration::from_millis(20);

/// An operation that waits to be sent, or sent again. What becomes of it is
/// [`Attempt`]'s to say.
#[derive(Debug)]
pub(super) struct Job {
    attempt: Attempt,
    /// From now until it is answered: what is read back while it waits to be sent again
    /// is its answer like any other.
    expected: Expected,
    reply: oneshot::Sender<Answer>,
}

impl Job {
    pub(super) fn new(shared: &Arc<Shared>, ask: Ask, reply: oneshot::Sender<Answer>) -> Self {
        Self {
            expected: shared.expect(ask.id()),
            attempt: Attempt::new(ask),
            reply,
        }
    }

    fn answer(self, answer: Answer) {
        // A failed send means that nobody waits any more.
        drop(self.reply.send(answer));
    }

    /// Answers it, or gives it back.
    fn go_on(self, next: Next) -> Option<Self> {
        match next {
            Next::Answer(reply) => self.answer(told(reply)),
            Next::Unknown => self.answer(Err(unknown(
                "it was sent before, and etcd did not say what became of it",
            ))),
            Next::Read | Next::Again => return Some(self),
        }
        None
    }
}

/// Groups and sends.
pub(super) struct Writer {
    shared: Arc<Shared>,
    max_batch: usize,
    in_flight: Arc<Semaphore>,
    unread: Arc<Semaphore>,
    back: mpsc::Sender<Job>,
    returned: mpsc::Receiver<Job>,
    queue: VecDeque<Job>,
    room: usize,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, options: &Options) -> Self {
        let (back, returned) = mpsc::channel(options.queue.max(1));
        let in_flight = options.in_flight.max(1);
        Self {
            shared,
            max_batch: options.max_batch.clamp(1, 64),
            in_flight: Arc::new(Semaphore::new(in_flight)),
            unread: Arc::new(Semaphore::new(in_flight * UNREAD)),
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
            let unread = Arc::clone(&self.unread).acquire_owned().await;
            let in_flight = Arc::clone(&self.in_flight).acquire_owned().await;
            let (Ok(unread), Ok(in_flight)) = (unread, in_flight) else {
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
                let carried_out = shared.connection.commit(&batch).await;
                drop(in_flight);
                let again = read_back(&shared, carried_out, sent).await;
                // Before anything is given back: the writer makes room only once it has
                // such a permit.
                drop(unread);
                for job in again {
                    // Closed only when the handle is gone.
                    drop(back.send(job).await);
                }
            });
        }
    }

    /// Takes what travels together off the queue, and answers what needs no sending.
    fn plan(&mut self) -> (Batch, Vec<Job>) {
        // Some behind those that fill a transaction: not all can travel together.
        let looked = self.queue.len().min(2 * self.max_batch);
        let mut jobs: Vec<Job> = Vec::with_capacity(looked);
        for mut job in self.queue.drain(..looked) {
            // It may have been read back while it waited to be sent again.
            match job.expected.heard() {
                Some(reply) => job.answer(told(reply)),
                None => jobs.push(job),
            }
        }
        let asks: Vec<&Ask> = jobs.iter().map(|job| job.attempt.ask()).collect();
        let planned = {
            let reader = self.shared.reader();
            // Looked at while the reader is held: it may be an older copy's by now.
            match self.shared.done_for() {
                Some(error) => Err(error),
                None => Ok((
                    reader.plan(&asks, self.max_batch),
                    reader.board().revision(),
                )),
            }
        };
        let (planned, revision) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                for job in jobs.into_iter().chain(self.queue.drain(..)) {
                    job.answer(Err(error.clone().into()));
                }
                return (Batch::default(), Vec::new());
            }
        };
        let mut jobs: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
        let mut stale = Vec::new();
        for (place, verdict) in planned.settled {
            let Some(job) = jobs.get_mut(place).and_then(Option::take) else {
                continue;
            };
            let next = job.attempt.settled(verdict, revision);
            stale.extend(job.go_on(next));
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
                job.attempt.was_read();
                // Closed only when the handle is gone.
                drop(back.send(job).await);
            }
            Err(error) => job.answer(Err(error.clone().into())),
        }
    }
}

/// Waits until a batch that was sent was read back, and answers; gives what has to be
/// sent again.
async fn read_back(shared: &Arc<Shared>, carried_out: Sent, jobs: Vec<Job>) -> Vec<Job> {
    let mut again = Vec::new();
    match carried_out {
        Sent::Done { revision, held } => {
            let read = shared.read_to(revision).await;
            for (mut job, held) in jobs.into_iter().zip(held) {
                let heard = job.expected.heard();
                if let (None, Err(error)) = (&heard, &read) {
                    job.answer(Err(error.clone().into()));
                    continue;
                }
                let next = job.attempt.carried_out(held, heard);
                again.extend(job.go_on(next));
            }
        }
        Sent::Refused(why) => {
            for job in jobs {
                job.answer(Err(unknown(why.clone())));
            }
        }
        Sent::Unknown(why) => {
            tracing::debug!(%why, "etcd.unknown_outcome");
            tokio::time::sleep(PAUSE).await;
            for mut job in jobs {
                let heard = job.expected.heard();
                let next = job.attempt.unheard(heard);
                again.extend(job.go_on(next));
            }
        }
    }
    again
}

fn told(reply: Reply) -> Answer {
    match reply {
        Reply::Applied(revision) => Ok(Proposed::Applied(revision)),
        Reply::Unchanged(revision) => Ok(Proposed::Unchanged(revision)),
        Reply::Refused(refusal) => Err(refusal.into()),
    }
}
