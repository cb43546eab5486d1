//! The threads of a node, and who ends them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Stopped};

/// How long the threads may take to end.
const THREADS_TIME: Duration = Duration::from_secs(5);

/// A node's threads, until somebody takes them to end them.
#[derive(Clone)]
pub(super) struct Threads(Arc<Mutex<Option<Runtime>>>);

impl Threads {
    pub(super) fn of(runtime: Runtime) -> Self {
        Self(Arc::new(Mutex::new(Some(runtime))))
    }

    fn take(&self) -> Option<Runtime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends them: the node's tasks are gone when this returns true. False: somebody else
    /// ends them.
    pub(super) async fn end(&self) -> bool {
        let Some(runtime) = self.take() else {
            return false;
        };
        let end = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(THREADS_TIME));
        // A panic in there leaves nothing to be done.
        let _ = end.await;
        true
    }

    /// Ends them, and waits for nothing.
    pub(super) fn leave(&self) {
        if let Some(runtime) = self.take() {
            runtime.shutdown_background();
        }
    }
}

/// The threads of a node that starts: they end when whoever starts it gives up. (A runtime
/// must not be dropped where others wait for it, so it is nobody's local.)
pub(super) struct Starting(Option<Threads>);

impl Starting {
    pub(super) fn on(threads: &Threads) -> Self {
        Self(Some(threads.clone()))
    }

    /// The node has started: its handle ends them.
    pub(super) fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(threads) = &self.0 {
            threads.leave();
        }
    }
}

/// How the driver's end ends the node.
pub(super) struct Life {
    pub(super) threads: Threads,
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
        std::thread::spawn(move || {
            if let Some(runtime) = self.threads.take() {
                runtime.shutdown_timeout(THREADS_TIME);
            }
            self.ended.send_replace(Some(stopped));
        });
    }
}
