//! The threads of a node, and who ends them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Stopped};

/// How long the threads may take to end.
const THREADS_TIME: Duration = Duration::from_secs(5);

/// The runtime, until somebody takes it to end it.
pub(super) type Slot = Arc<Mutex<Threads>>;

/// A node's threads.
pub(super) enum Threads {
    /// They run, and are not handed over yet.
    Starting,
    /// They run.
    Running(Runtime),
    /// Somebody has ended them, or is about to.
    Taken,
}

impl Threads {
    /// Takes them, to end them; while the node starts, nothing changes.
    pub(super) fn take(slot: &Slot) -> Self {
        let mut threads = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match *threads {
            Self::Starting => Self::Starting,
            Self::Running(_) | Self::Taken => std::mem::replace(&mut threads, Self::Taken),
        }
    }
}

/// Ends a node's threads: its tasks are gone when this returns true. False: somebody
/// else ends them.
pub(super) async fn end_threads(slot: &Slot) -> bool {
    let Threads::Running(runtime) = Threads::take(slot) else {
        return false;
    };
    let end = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(THREADS_TIME));
    // A panic in there leaves nothing to be done.
    let _ = end.await;
    true
}

/// How the driver's end ends the node.
pub(super) struct Life {
    pub(super) slot: Slot,
    pub(super) ended: watch::Sender<Option<Stopped>>,
}

impl Life {
    /// Runs the driver; when it ends by itself, the node goes down as in a crash.
    pub(super) async fn run(self, driver: Driver, drained: CancellationToken) {
        let stopped = driver.run().await;
        if stopped == Stopped::Shutdown {
            self.ended.send_replace(Some(stopped));
            drained.cancel();
            return;
        }
        // Not on one of the threads that end.
        let (slot, ended) = (self.slot, self.ended);
        std::thread::spawn(move || {
            loop {
                match Threads::take(&slot) {
                    Threads::Running(runtime) => {
                        runtime.shutdown_timeout(THREADS_TIME);
                        break;
                    }
                    // A node that fails while it starts is not in its slot yet.
                    Threads::Starting => std::thread::sleep(Duration::from_millis(1)),
                    Threads::Taken => break,
                }
            }
            ended.send_replace(Some(stopped));
        });
    }
}
