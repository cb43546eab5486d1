//! The queue of one stream, between the driver, which never waits, and the task that
//! writes to the stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_consensus::wire::{Frame, Goodbye, frame};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many frames wait for a peer before further ones are dropped.
pub(crate) const CAPACITY: usize = 1024;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// It waits to be sent.
    Yes,
    /// It was dropped, and the queue was not full before: the engine must know.
    NowFull,
    /// It was dropped, as others before.
    Dropped,
    /// The stream has ended.
    Gone,
}

/// Whether frames are dropped. Held while the queue is looked at and this is set: were a
/// queue emptied between the two, nobody would ever say that it has drained.
#[derive(Clone, Debug, Default)]
struct Full(Arc<Mutex<bool>>);

impl Full {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    frames: mpsc::Sender<Frame>,
    full: Full,
    closing: CancellationToken,
}

/// The writer's end.
pub(crate) struct Waiting {
    pub(crate) frames: mpsc::Receiver<Frame>,
    full: Full,
    /// The stream is to be closed once what waits is written.
    pub(crate) closing: CancellationToken,
}

pub(crate) fn queue() -> (Queue, Waiting) {
    queue_of(CAPACITY)
}

fn queue_of(capacity: usize) -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(capacity);
    let full = Full::default();
    let closing = CancellationToken::new();
    let queue = Queue {
        frames: sender,
        full: full.clone(),
        closing: closing.clone(),
    };
    let waiting = Waiting {
        frames: receiver,
        full,
        closing,
    };
    (queue, waiting)
}

impl Queue {
    /// Puts a frame in, or drops it. Between [`Enqueued::NowFull`] and the moment
    /// that [`Waiting::has_drained`] everything is dropped, so that the peer misses
    /// one stretch and not many.
    pub(crate) fn offer(&self, frame: Frame) -> Enqueued {
        let mut full = self.full.lock();
        if *full {
            return Enqueued::Dropped;
        }
        match self.frames.try_send(frame) {
            Ok(()) => Enqueued::Yes,
            Err(mpsc::error::TrySendError::Closed(_)) => Enqueued::Gone,
            Err(mpsc::error::TrySendError::Full(_)) => {
                *full = true;
                Enqueued::NowFull
            }
        }
    }

    /// How many frames wait.
    pub(crate) fn len(&self) -> usize {
        self.frames.max_capacity() - self.frames.capacity()
    }

    /// Says goodbye, if there is room, and closes the stream.
    pub(crate) fn close(self, goodbye: Goodbye) {
        let body = Some(frame::Body::Goodbye(goodbye));
        // Without room the peer goes without a goodbye.
        let _ = self.frames.try_send(Frame { body });
        self.closing.cancel();
    }
}

impl Waiting {
    /// Whether the queue was full and has room again; asked after frames were taken
    /// out. Then the driver's frames are taken again.
    pub(crate) fn has_drained(&self) -> bool {
        let mut full = self.full.lock();
        let drained = *full && self.frames.len() * 2 <= self.frames.max_capacity();
        *full &= !drained;
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_until_it_has_drained() {
        let (queue, mut waiting) = queue_of(4);
        for _ in 0..4 {
            assert_eq!(queue.offer(Frame::default()), Enqueued::Yes);
        }
        assert!(!waiting.has_drained());
        assert_eq!(queue.offer(Frame::default()), Enqueued::NowFull);
        assert_eq!(queue.offer(Frame::default()), Enqueued::Dropped);
        waiting.frames.try_recv().unwrap();
        assert!(!waiting.has_drained(), "still more than half");
        assert_eq!(queue.offer(Frame::default()), Enqueued::Dropped);
        waiting.frames.try_recv().unwrap();
        assert!(waiting.has_drained());
        assert!(!waiting.has_drained(), "said once");
        assert_eq!(queue.offer(Frame::default()), Enqueued::Yes);
    }

    #[test]
    fn closing_says_goodbye_last() {
        let (queue, mut waiting) = queue_of(4);
        queue.offer(Frame::default());
        queue.clone().close(Goodbye::default());
        assert!(waiting.closing.is_cancelled());
        assert_eq!(waiting.frames.try_recv().unwrap(), Frame::default());
        let last = waiting.frames.try_recv().unwrap();
        assert!(matches!(last.body, Some(frame::Body::Goodbye(_))));
        drop(waiting);
        assert_eq!(queue.offer(Frame::default()), Enqueued::Gone);
    }
}
