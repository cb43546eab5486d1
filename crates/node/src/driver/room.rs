//! What the driver does while the journal cannot be written for want of room: it waits
//! with all that the records stand before, refuses votes at once, and goes on by itself
//! when there is room. Nothing was signed or sent that is not durable, and nothing that
//! was acknowledged is lost; whoever waited is told to repeat.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use quorate_engine::{Event, Record, Reject};
use tracing::Span;

use super::{Driver, Stopped};
use crate::mailbox::Message;
use crate::metrics::number;

/// The pause between two tries.
const AGAIN: Duration = Duration::from_millis(500);

/// The most messages that are put by. Beyond that their senders wait.
const MOST_HELD: usize = 4096;

impl Driver {
    /// Makes records durable; while there is no room, it waits.
    pub(super) async fn commit(&mut self, records: Vec<Record>) -> Result<(), Stopped> {
        if records.is_empty() {
            return Ok(());
        }
        let meter = self.ports.meter.clone();
        meter
            .batch_size
            .of(["journal"])
            .observe(number(records.len()));
        let records = std::sync::Arc::new(records);
        let mut told = false;
        loop {
            let began = std::time::Instant::now();
            let (journal, batch) = (self.journal.clone(), records.clone());
            let committed = tokio::task::spawn_blocking(move || {
                journal
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .commit(&batch)
            });
            let committed = committed.await;
            meter.journal_commit_duration.took(began.elapsed());
            let error = match committed {
                Ok(Ok(())) if told => {
                    tracing::info!("node.room: the journal can be written again");
                    self.set_room(true);
                    return Ok(());
                }
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.is_want_of_room() => error.to_string(),
                Ok(Err(error)) => return Err(Stopped::Failed(error.to_string())),
                Err(error) => return Err(Stopped::Failed(error.to_string())),
            };
            if !std::mem::replace(&mut told, true) {
                tracing::error!(%error, "node.no_room: votes are refused until there is room");
                self.set_room(false);
            }
            self.refuse_all();
            self.wait_for_room().await?;
        }
    }

    fn set_room(&self, room: bool) {
        self.pulse.send_modify(|pulse| pulse.room = room);
    }

    /// Tells all clients that wait to repeat.
    fn refuse_all(&mut self) {
        for (request, client) in self.clients.drain() {
            let reject = no_room();
            self.traces.answered(request, Some(&reject));
            let refused = Err(reject);
            self.ports.meter.answered(&refused);
            // The client may have gone.
            let _ = client.send(refused);
            let span = Span::current();
            self.own.push_back((Event::Abandon { request }, span));
        }
    }

    /// Takes what comes until it is time to try again: answers what can be answered,
    /// and puts by what is the engine's.
    async fn wait_for_room(&mut self) -> Result<(), Stopped> {
        let again = tokio::time::sleep(AGAIN);
        tokio::pin!(again);
        loop {
            let full = self.held.len() >= MOST_HELD;
            let message = tokio::select! {
                () = &mut again => return Ok(()),
                message = self.inbox.recv(), if !full => message,
            };
            match message {
                Some(Message::Submit(handover, _)) => {
                    // The client may have gone.
                    let _ = handover.answer.send(Err(no_room()));
                }
                Some(Message::Look(look)) => look(&self.engine, self.clock.now()),
                Some(Message::Waiting(answer)) => {
                    let _ = answer.send(self.clients.len());
                }
                Some(Message::Goodbye(done)) => self.goodbye(done),
                // What is not durable was not acknowledged: it may be left.
                Some(Message::Stop) => return Err(Stopped::Shutdown),
                Some(Message::Fatal(why)) => return Err(Stopped::Failed(why)),
                Some(other) => self.held.push_back(other),
                None => return Err(Stopped::Shutdown),
            }
        }
    }

    /// Moves what was put by into a batch; true when there was some.
    pub(super) fn take_held(
        held: &mut VecDeque<Message>,
        batch: &mut Vec<Message>,
        most: usize,
    ) -> bool {
        let count = held.len().min(most);
        batch.extend(held.drain(..count));
        count > 0
    }
}

/// What a client is told meanwhile.
pub(crate) fn no_room() -> Reject {
    Reject::Unavailable {
        reason: "NO_ROOM",
        why:
            "the disk of this node's data_dir is full: make room there, the node goes on by itself"
                .to_owned(),
        retry_ms: 1000,
    }
}
