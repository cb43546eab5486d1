//! What holds a running node: questions to it, and its two ends, with a drain and
//! without.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_consensus::NodeId;
use quorate_engine::Engine;
use quorate_telemetry::{ExportCounts, Exporter};
use quorate_tls::Registry;
use quorate_tls::material::OwnCertificate;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::threads::Threads;
use crate::certificates::Certificates;
use crate::driver::{Pulse, Stopped};
use crate::feed::Feed;
use crate::health::Readiness;
use crate::kept::Kept;
use crate::mailbox::{Mailbox, Message};
use crate::metrics::{Counts, Meter};

/// How long waiting clients may still be answered when the node drains.
const CLIENTS_TIME: Duration = Duration::from_secs(3);

/// How long goodbyes and last responses may take.
const FAREWELL_TIME: Duration = Duration::from_secs(5);

/// How long the last spans may take to leave.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// What a handle needs to know of a running node.
pub(super) struct Running {
    pub(super) addr: SocketAddr,
    pub(super) mailbox: Mailbox,
    pub(super) pulse: watch::Receiver<Pulse>,
    pub(super) exporter: Option<Exporter>,
    pub(super) meter: Arc<Meter>,
    pub(super) readiness: watch::Receiver<Readiness>,
    pub(super) health_addr: Option<SocketAddr>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) doors: Arc<quorate_tls::Counters>,
    pub(super) registry: Registry,
    pub(super) feed: Arc<Feed>,
    pub(super) kept: Arc<Kept>,
    pub(super) stopping: CancellationToken,
    pub(super) ending: CancellationToken,
    /// Cancelled when an operator wants the node to drain.
    pub(super) drain: CancellationToken,
    /// Held while it drains; true once it has.
    pub(super) draining: tokio::sync::Mutex<bool>,
    /// The driver has ended as it was asked to.
    pub(super) drained: CancellationToken,
    /// The last call has ended.
    pub(super) served: CancellationToken,
}

/// A running node. Dropping it is as a crash, and nobody waits for its threads: they let
/// go of the data directory a moment later. [`NodeHandle::kill`] waits.
pub struct NodeHandle {
    node_id: NodeId,
    running: Arc<Running>,
    threads: Threads,
    ended: watch::Receiver<Option<Stopped>>,
    _gone: DropGuard,
}

impl NodeHandle {
    /// That of a node which runs on these threads. As long as it is there, an operator
    /// may have the node drained.
    pub(super) fn of(
        node_id: NodeId,
        running: Running,
        threads: Threads,
        ended: watch::Receiver<Option<Stopped>>,
    ) -> Self {
        let running = Arc::new(running);
        let gone = CancellationToken::new();
        tokio::spawn(drain_when_asked(
            node_id.clone(),
            Arc::downgrade(&running),
            threads.clone(),
            gone.clone(),
        ));
        Self {
            node_id,
            running,
            threads,
            ended,
            _gone: gone.drop_guard(),
        }
    }

    /// The trustee it acts for.
    pub fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.running.addr
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        self.running.meter.counts()
    }

    /// Where it serves health and metrics, if it does.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.running.health_addr
    }

    /// How it was found at the last look.
    pub fn readiness(&self) -> Readiness {
        self.running.readiness.borrow().clone()
    }

    /// Waits until a look at the node finds what is wanted; none when the node ended
    /// before.
    pub async fn until_found(&self, wanted: impl Fn(&Readiness) -> bool) -> Option<Readiness> {
        let mut readiness = self.running.readiness.clone();
        let found = readiness.wait_for(|found| wanted(found)).await;
        found.ok().map(|found| found.clone())
    }

    /// What its own certificate in use says.
    pub fn certificate(&self) -> OwnCertificate {
        self.running.certificates.tls.own()
    }

    /// Reads the certificates again now, as the node does by itself when a file changes.
    ///
    /// # Errors
    /// Why they were not taken; those in use stay in use, unless its own certificate is
    /// revoked: then it takes nobody any more.
    pub async fn reload_certificates(&self) -> Result<(), String> {
        self.running.certificates.reload().await
    }

    /// What became of its spans; none when traces are off.
    pub fn span_counts(&self) -> Option<ExportCounts> {
        self.running.exporter.as_ref().map(Exporter::counts)
    }

    /// Connections that it accepted.
    pub fn accepted_connections(&self) -> u64 {
        self.running.doors.accepted()
    }

    /// Connections that it refused, by a stable word for why.
    pub fn refused_connections(&self) -> BTreeMap<&'static str, u64> {
        self.running.doors.refused()
    }

    /// Whether it is in service now.
    pub fn is_in_service(&self) -> bool {
        self.running.pulse.borrow().in_service
    }

    /// Waits until it is in service; false if it ended before.
    pub async fn in_service(&self) -> bool {
        let mut pulse = self.running.pulse.clone();
        pulse.wait_for(|pulse| pulse.in_service).await.is_ok()
    }

    /// Looks at the engine between two events; none when the node has ended.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let mailbox = &self.running.mailbox;
        mailbox.look(|engine, _| look(engine)).await.ok()
    }

    /// Waits until a look at the engine gives something; none when the node ended
    /// before. It looks after every change of the board, and every 50 ms besides, for
    /// streams come and go without one.
    pub async fn until<T: Send + 'static>(
        &self,
        look: impl Fn(&Engine) -> Option<T> + Clone + Send + 'static,
    ) -> Option<T> {
        let running = &self.running;
        running.mailbox.until(&running.pulse, look).await.ok()
    }

    /// Waits until the node has ended by itself, and tells why: a fault, or something
    /// that must not fail; all its tasks are gone then. Or an operator has it drained:
    /// [`NodeHandle::shutdown`] then waits for the rest.
    pub async fn stopped(&self) -> Stopped {
        let mut ended = self.ended.clone();
        let stopped = ended.wait_for(Option::is_some).await;
        stopped
            .ok()
            .and_then(|s| s.clone())
            .unwrap_or(Stopped::Crash)
    }

    /// Drains and ends, within 30 s: takes nothing new, answers clients that wait (or
    /// tells them to repeat), says goodbye to peers, and leaves all that was
    /// acknowledged durable.
    pub async fn shutdown(self) {
        drain(&self.node_id, &self.running, &self.threads).await;
    }

    /// Ends at once, as a crash does: nothing is flushed, nobody is told. Its tasks
    /// are gone and its data directory is free when this returns.
    pub async fn kill(self) {
        if !self.threads.end().await {
            // It was ending by itself.
            self.stopped().await;
        }
    }
}

/// Drains the node when an operator asks for it, unless its handle is gone before.
async fn drain_when_asked(
    node_id: NodeId,
    running: Weak<Running>,
    threads: Threads,
    gone: CancellationToken,
) {
    // Held by nobody meanwhile: the last handle's drop must free the data directory.
    let Some(asked) = running.upgrade().map(|running| running.drain.clone()) else {
        return;
    };
    tokio::select! {
        () = asked.cancelled() => {}
        () = gone.cancelled() => return,
    }
    if let Some(running) = running.upgrade() {
        drain(&node_id, &running, &threads).await;
    }
}

/// See [`NodeHandle::shutdown`]; who comes second waits for the first.
async fn drain(node_id: &NodeId, running: &Running, threads: &Threads) {
    let mut drained = running.draining.lock().await;
    if *drained {
        return;
    }
    tracing::info!(%node_id, "node.draining");
    running.stopping.cancel();
    let clients = async {
        while let Ok(1..) = running.mailbox.ask(Message::Waiting).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(CLIENTS_TIME, clients).await;
    running.ending.cancel();
    let farewell = async {
        let _ = running.mailbox.ask(Message::Goodbye).await;
        // Who still waits hears that the node stops.
        let _ = running.mailbox.send(Message::Stop).await;
        running.drained.cancelled().await;
        running.served.cancelled().await;
        // What this node has seen can then be put back from here.
        let head = *running.feed.heads().borrow();
        running.kept.reaches(head).await;
    };
    if tokio::time::timeout(FAREWELL_TIME, farewell).await.is_err() {
        tracing::debug!(open = running.registry.len(), "node.connections_cut");
    }
    running.registry.cancel_where(|_| true);
    if let Some(exporter) = &running.exporter {
        exporter.flush(FLUSH_TIME).await;
    }
    threads.end().await;
    *drained = true;
    tracing::info!(%node_id, "node.stopped");
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.threads.leave();
    }
}
