//! A node's life: start, service, drain, and the two ways to end without one.
//!
//! Each node has threads of its own. So several can live in one process, as in
//! `quorate dev`, and a crash takes a node's tasks away at once, as it would a
//! process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use quorate_audit::{AuditError, AuditStore};
use quorate_consensus::NodeId;
use quorate_engine::{Config as EngineConfig, Engine};
use quorate_telemetry::{ExportCounts, Exporter, StageSink};
use quorate_tls::material::OwnCertificate;
use quorate_tls::{Listener, ListenerOptions, Registry};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{broadcast, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::alerts::Alerts;
use crate::certificates::{self, Certificates};
use crate::clock::{Clock, wall_ms};
use crate::collector::Collector;
use crate::driver::{Driver, Ports, Pulse, Stopped};
use crate::exchange::{Admission, Dialler, Roster, Sessions};
use crate::feed::Feed;
use crate::follower;
use crate::health::Readiness;
use crate::health::beats::Beats;
use crate::health::http::Server as HealthServer;
use crate::health::monitor::{Monitor, ask_the_driver};
use crate::journal::Journal;
use crate::kept::{Kept, keep};
use crate::mailbox::{Mailbox, Message};
use crate::metrics::sample::Sampler;
use crate::metrics::stores::Timed;
use crate::metrics::{Counts, Meter};
use crate::network::Distant;
use crate::operator::Operators;
use crate::parts::{Parts, StartError};
use crate::peer_clocks::{InTime, PeerClocks, Whereabouts};
use crate::prewarm::Prewarmer;
use crate::projector;
use crate::seen::SeenAudit;
use crate::server;
use crate::service::{Api, GateRules, Quota};
use crate::strangers;
use crate::traces::{Rows, Traces};

/// How long waiting clients may still be answered when the node drains.
const CLIENTS_TIME: Duration = Duration::from_secs(3);

/// How long goodbyes and last responses may take.
const FAREWELL_TIME: Duration = Duration::from_secs(5);

/// How long the last spans may take to leave.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// How long the threads may take to end.
const THREADS_TIME: Duration = Duration::from_secs(5);

/// Direct messages that a watcher may be behind before it misses some.
const MESSAGES: usize = 64;

/// Starts nodes.
pub struct Node;

impl Node {
    /// Starts a node; it listens when this returns, and is in service once it has
    /// read the board ([`NodeHandle::in_service`]).
    ///
    /// # Errors
    /// [`StartError`], for instance when another process uses the data directory.
    pub async fn start(parts: Parts) -> Result<NodeHandle, StartError> {
        parts.check()?;
        let rules = parts.rules()?.clone();
        let (dir, node_id) = (parts.data_dir.clone(), parts.node_id.clone());
        let (own, cluster_id) = (node_id.clone(), rules.cluster_id());
        let runtime_failed = |e: &dyn std::fmt::Display| StartError::Runtime(e.to_string());
        let opened = tokio::task::spawn_blocking(move || {
            let journal = Journal::open(&dir, &own, &cluster_id)?;
            let durable = (journal.durable()?, journal.addresses()?);
            let kept = Kept::open(&dir)?;
            Ok::<_, StartError>((journal, durable, kept))
        });
        let (mut journal, (durable, addresses), kept) =
            opened.await.map_err(|e| runtime_failed(&e))??;
        let config = EngineConfig {
            node_id: node_id.clone(),
            rules_chain: parts.rules_chain.clone(),
            rules,
            signs_votes: parts.vote_key.is_some(),
            submits: parts.submits,
        };
        let mut engine =
            Engine::restore(config, durable, parts.verifier.clone()).remembering(addresses);
        match parts.advertised() {
            Some(address) => engine = engine.advertising(address),
            None => tracing::warn!(
                "network.not_advertised: set node.advertise_addr, so that the others learn where this node is"
            ),
        }
        if let Some((least, greatest)) = parts.speaks {
            engine = engine.speaking(least, greatest);
        }
        let known: Vec<_> = engine.addresses().map(|(id, _)| id.clone()).collect();
        let forgotten = tokio::task::spawn_blocking(move || {
            journal.keep_addresses_of(&known)?;
            Ok::<_, StartError>(journal)
        });
        let journal = forgotten.await.map_err(|e| runtime_failed(&e))??;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("quorate-{node_id}"))
            .enable_all()
            .build()
            .map_err(|e| runtime_failed(&e))?;
        let (ready, started) = oneshot::channel();
        let slot = Arc::new(Mutex::new(Threads::Starting));
        let ended = watch::Sender::new(None);
        let life = Life {
            slot: slot.clone(),
            ended: ended.clone(),
        };
        runtime.spawn(async move {
            // Whoever started it may have gone; then the handle is dropped, and with
            // it this runtime.
            let _ = ready.send(assemble(parts, engine, (journal, kept), life).await);
        });
        let running = started.await;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Threads::Running(runtime);
        let running = match running {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                end_threads(&slot).await;
                return Err(error);
            }
            Err(_) => {
                end_threads(&slot).await;
                return Err(runtime_failed(&"the node's start panicked"));
            }
        };
        tracing::info!(%node_id, addr = %running.addr, "node.started");
        let running = Arc::new(running);
        let gone = CancellationToken::new();
        tokio::spawn(drain_when_asked(
            node_id.clone(),
            Arc::downgrade(&running),
            slot.clone(),
            gone.clone(),
        ));
        Ok(NodeHandle {
            node_id,
            running,
            runtime: slot,
            ended: ended.subscribe(),
            _gone: gone.drop_guard(),
        })
    }
}

/// The runtime, until somebody takes it to end it.
type Slot = Arc<Mutex<Threads>>;

/// A node's threads.
enum Threads {
    /// They run, and are not handed over yet.
    Starting,
    /// They run.
    Running(Runtime),
    /// Somebody has ended them, or is about to.
    Taken,
}

impl Threads {
    /// Takes them, to end them; while the node starts, nothing changes.
    fn take(slot: &Slot) -> Self {
        let mut threads = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match *threads {
            Self::Starting => Self::Starting,
            Self::Running(_) | Self::Taken => std::mem::replace(&mut threads, Self::Taken),
        }
    }
}

/// Ends a node's threads: its tasks are gone when this returns true. False: somebody
/// else ends them.
async fn end_threads(slot: &Slot) -> bool {
    let Threads::Running(runtime) = Threads::take(slot) else {
        return false;
    };
    let end = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(THREADS_TIME));
    // A panic in there leaves nothing to be done.
    let _ = end.await;
    true
}

/// How the driver's end ends the node.
struct Life {
    slot: Slot,
    ended: watch::Sender<Option<Stopped>>,
}

impl Life {
    /// Runs the driver; when it ends by itself, the node goes down as in a crash.
    async fn run(self, driver: Driver, drained: CancellationToken) {
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

/// What a handle needs to know of a running node.
struct Running {
    addr: SocketAddr,
    mailbox: Mailbox,
    pulse: watch::Receiver<Pulse>,
    exporter: Option<Exporter>,
    meter: Arc<Meter>,
    readiness: watch::Receiver<Readiness>,
    health_addr: Option<SocketAddr>,
    certificates: Arc<Certificates>,
    doors: Arc<quorate_tls::Counters>,
    registry: Registry,
    feed: Arc<Feed>,
    kept: Arc<Kept>,
    stopping: CancellationToken,
    ending: CancellationToken,
    /// Cancelled when an operator wants the node to drain.
    drain: CancellationToken,
    /// Held while it drains; true once it has.
    draining: tokio::sync::Mutex<bool>,
    /// The driver has ended as it was asked to.
    drained: CancellationToken,
    /// The last call has ended.
    served: CancellationToken,
}

/// Puts a node together on its own threads.
async fn assemble(
    mut parts: Parts,
    engine: Engine,
    (journal, kept): (Journal, Kept),
    life: Life,
) -> Result<Running, StartError> {
    let rules = parts.rules()?.clone();
    let clock = Clock::start(parts.faults.clock_ahead_ms);
    let (mailbox, inbox) = Mailbox::new();
    let registry = Registry::new();
    let meter = Arc::new(Meter::new(&parts.node_id, &rules));
    parts.coordinator = Distant::over(parts.coordinator, parts.faults.network.as_ref());
    measure(&mut parts, &meter);
    let chain = parts.chain.clone();
    let alerts = Arc::new(Alerts::new(
        meter.clone(),
        parts.node_id.clone(),
        &rules,
        parts.telemetry.alert_webhook.take(),
    ));
    let beats = Arc::new(Beats::new(parts.health_limits.silence));
    let watched = (beats.clone(), parts.faults.clone());
    let admission = Admission::new(registry.clone()).behind(parts.faults.network.clone());
    let admission = Arc::new(admission);
    tokio::spawn(admission.clone().obey_network());
    let roster = Arc::new(Roster::default());
    let (stopping, ending) = (CancellationToken::new(), CancellationToken::new());
    let tls = parts.tls.client();
    let skew_ms = rules.clock_skew_ms();
    let others = rules.members().map(|member| member.node_id.clone());
    let others: Vec<_> = others.filter(|id| *id != parts.node_id).collect();
    let peers = Whereabouts {
        members: others.clone(),
        bootstrap: parts.peers.clone(),
        roster: roster.clone(),
    };
    let clocks = PeerClocks::start(clock, skew_ms, &tls, peers, &stopping);
    parts.coordinator = Arc::new(InTime {
        inner: parts.coordinator,
        clocks: clocks.clone(),
    });
    let feed = Arc::new(Feed::new(parts.coordinator.clone()));
    let prewarmer = Prewarmer::new(&parts.rules, parts.verifier);
    let listener = listen(parts.listener, &parts.tls, &registry)?;
    let doors = listener.counters();
    let addr = listener.local_addr().map_err(|e| StartError::Listen {
        addr: "the given socket".to_owned(),
        reason: e.to_string(),
    })?;

    let journal = Arc::new(Mutex::new(journal));
    let kept = Arc::new(kept);
    let audit = look_at(parts.audit, &journal, &alerts).await?;

    let stages: Arc<dyn StageSink> = meter.clone();
    let exporter = parts.telemetry.exporter(&parts.node_id, &rules);
    let traces = Traces::new(
        parts.node_id.clone(),
        rules.clone(),
        stages.clone(),
        parts.telemetry.traces(),
        rand::random(),
    );
    let rows = Rows::new(
        &parts.node_id,
        rules.cluster_id(),
        stages,
        parts.telemetry.traces().zip(exporter.clone()),
        rand::random(),
    );
    let (beat, pulse) = watch::channel(Pulse::default());
    let messages = broadcast::Sender::new(MESSAGES);
    let next_request = Arc::new(AtomicU64::new(1));
    let drain = CancellationToken::new();
    let ports = Ports {
        coordinator: parts.coordinator.clone(),
        audit: audit.clone(),
        chain: chain.clone(),
        vote_key: parts.vote_key.map(Arc::new),
        node_key: Arc::new(parts.node_key),
        feed: feed.clone(),
        admission: admission.clone(),
        messages: messages.clone(),
        roster: roster.clone(),
        exporter: exporter.clone(),
        meter: meter.clone(),
        alerts: alerts.clone(),
        faults: parts.faults,
    };
    let channel = (mailbox.clone(), inbox);
    let driver = Driver::new(engine, journal, clock, ports, traces, channel, beat);
    let drained = CancellationToken::new();
    tokio::spawn(life.run(driver, drained.clone()));

    let sessions = Sessions::new(
        parts.node_id.clone(),
        mailbox.clone(),
        prewarmer.clone(),
        admission.clone(),
        meter.clone(),
        parts.limits.frames_per_sec,
        stopping.clone(),
    );
    let sessions = Arc::new(sessions.with_roster(roster));
    let api = Arc::new(Api {
        rules_chain: parts.rules_chain.clone(),
        rules: rules.clone(),
        own: parts.node_id.clone(),
        mailbox: mailbox.clone(),
        feed: feed.clone(),
        audit: audit.clone(),
        meter: meter.clone(),
        clock,
        clocks: clocks.clone(),
        pulse: pulse.clone(),
        quota: Quota::new(parts.limits.unstarted_per_client),
        stopping: stopping.clone(),
        ending: ending.clone(),
        next_request: next_request.clone(),
        messages,
    });
    let gate = Arc::new(GateRules::new(
        parts.node_id.clone(),
        rules.cluster_name().to_owned(),
        admission,
        &parts.limits,
        meter.clone(),
        clock,
    ));
    let (look, readiness) = watch::channel(Readiness::default());
    let monitor = Monitor {
        limits: parts.health_limits,
        beats: beats.clone(),
        mailbox: mailbox.clone(),
        pulse: pulse.clone(),
        coordinator: parts.coordinator.clone(),
        audit: audit.clone(),
        chain: chain.clone(),
        tls: parts.tls.clone(),
        meter: meter.clone(),
        alerts: alerts.clone(),
        clocks,
        stopping: stopping.clone(),
    };
    tokio::spawn(monitor.run(look));
    let strangers = strangers::Watch {
        rules: rules.clone(),
        chain: chain.clone(),
        coordinator: parts.coordinator.clone(),
        mailbox: mailbox.clone(),
        pulse: pulse.clone(),
        alerts: alerts.clone(),
    };
    tokio::spawn(strangers.run());
    tokio::spawn(ask_the_driver(
        beats.clone(),
        mailbox.clone(),
        parts.health_limits.every,
    ));
    let sampler = Sampler {
        meter: meter.clone(),
        mailbox: mailbox.clone(),
        pulse: pulse.clone(),
        feed: feed.clone(),
        audit: audit.clone(),
        doors: doors.clone(),
        tls: parts.tls.clone(),
        alerts: alerts.clone(),
        spans: exporter.clone(),
        turn: tokio::sync::Mutex::default(),
    };
    let health_addr = match parts.health {
        None => None,
        Some(socket) => Some(serve_health(socket, &parts.node_id, &readiness, sampler)?),
    };
    let operators = Operators {
        own: parts.node_id.clone(),
        rules: rules.clone(),
        rules_chain: parts.rules_chain,
        mailbox: mailbox.clone(),
        next_request,
        pulse: pulse.clone(),
        readiness: readiness.clone(),
        audit: audit.clone(),
        tls: parts.tls.clone(),
        registry: registry.clone(),
        addr,
        health_addr,
        started_ms: wall_ms(),
        coordinator: parts.coordinator.backend(),
        chain: chain.kind(),
        log: parts.log,
        drain: drain.clone(),
    };
    let served = CancellationToken::new();
    let server = server::serve(
        listener,
        api,
        operators,
        sessions.clone(),
        gate,
        readiness.clone(),
        stopping.clone(),
    );
    let last = served.clone();
    tokio::spawn(async move {
        server.await;
        last.cancel();
    });

    tokio::spawn(follower::follow(
        parts.coordinator.clone(),
        prewarmer,
        mailbox.clone(),
        kept.clone(),
        watched.clone(),
    ));
    if let Some(found) = parts.coordinator.tampering() {
        tokio::spawn(follower::watch_tampering(found, mailbox.clone()));
    }
    tokio::spawn(keep(feed.clone(), kept.clone()));
    tokio::spawn(projector::project(
        feed.clone(),
        audit,
        parts.node_id,
        rows,
        Collector {
            mailbox: mailbox.clone(),
            coordinator: parts.coordinator.clone(),
            clock,
            meter: meter.clone(),
            alerts: alerts.clone(),
        },
        watched.clone(),
    ));
    let dialler = Dialler {
        members: others,
        sessions,
        tls: parts.tls.client(),
        registry: registry.clone(),
    };
    dialler.start(&parts.peers);
    let certificates = Arc::new(Certificates {
        tls: parts.tls,
        registry: registry.clone(),
        meter: meter.clone(),
        alerts,
    });
    tokio::spawn(certificates::watch(certificates.clone(), watched));
    Ok(Running {
        addr,
        mailbox,
        pulse,
        exporter,
        meter,
        readiness,
        health_addr,
        certificates,
        doors,
        registry,
        feed,
        kept,
        stopping,
        ending,
        drain,
        draining: tokio::sync::Mutex::new(false),
        drained,
        served,
    })
}

/// Looks at the audit store once, for what no waiting mends. A node whose audit store
/// is away starts all the same, and takes votes.
async fn look_at(
    audit: Arc<dyn AuditStore>,
    journal: &Arc<Mutex<Journal>>,
    alerts: &Arc<Alerts>,
) -> Result<Arc<SeenAudit>, StartError> {
    let backend = audit.backend();
    let audit = SeenAudit::new(audit, journal.clone(), alerts.clone())?;
    match audit.cursor().await {
        Ok(cursor) => tracing::debug!(backend, cursor, "audit.opened"),
        Err(AuditError::Unavailable(why)) => {
            tracing::warn!(%why, "audit.away: submissions pause, votes are still taken");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Arc::new(audit))
}

fn listen(
    socket: std::net::TcpListener,
    tls: &Arc<quorate_tls::TlsMaterial>,
    registry: &Registry,
) -> Result<Listener, StartError> {
    let listener = socket
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(socket));
    let listener = listener.map_err(|e| StartError::Listen {
        addr: "the given socket".to_owned(),
        reason: e.to_string(),
    })?;
    let options = ListenerOptions::default();
    Ok(Listener::over(
        listener,
        tls.clone(),
        registry.clone(),
        options,
    ))
}

/// Puts a watch on the stores, and says who this is.
fn measure(parts: &mut Parts, meter: &Arc<Meter>) {
    let info = meter.node_info.of([
        parts.node_id.to_string(),
        env!("CARGO_PKG_VERSION").to_owned(),
        parts.coordinator.backend().to_owned(),
        parts.audit.backend().to_owned(),
        parts.chain.kind().to_owned(),
    ]);
    info.set(1.0);
    parts.coordinator = Arc::new(Timed::new(parts.coordinator.clone(), meter.clone()));
    parts.audit = Arc::new(Timed::new(parts.audit.clone(), meter.clone()));
    parts.chain = Arc::new(Timed::new(parts.chain.clone(), meter.clone()));
}

/// Serves health and metrics; gives where.
fn serve_health(
    socket: std::net::TcpListener,
    node_id: &NodeId,
    readiness: &watch::Receiver<Readiness>,
    sampler: Sampler,
) -> Result<SocketAddr, StartError> {
    let served = HealthServer::over(socket, node_id.clone(), readiness.clone(), sampler);
    let served = served.and_then(|server| Ok((server.addr()?, server)));
    let (addr, server) = served.map_err(|e| StartError::Listen {
        addr: "the given socket for health".to_owned(),
        reason: e.to_string(),
    })?;
    tokio::spawn(server.serve());
    Ok(addr)
}

/// A running node. Dropping it is as a crash.
pub struct NodeHandle {
    node_id: NodeId,
    running: Arc<Running>,
    runtime: Slot,
    ended: watch::Receiver<Option<Stopped>>,
    _gone: DropGuard,
}

impl NodeHandle {
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
        drain(&self.node_id, &self.running, &self.runtime).await;
    }

    /// Ends at once, as a crash does: nothing is flushed, nobody is told. Its tasks
    /// are gone and its data directory is free when this returns.
    pub async fn kill(self) {
        if !end_threads(&self.runtime).await {
            // It was ending by itself.
            self.stopped().await;
        }
    }
}

/// Drains the node when an operator asks for it, unless its handle is gone before.
async fn drain_when_asked(
    node_id: NodeId,
    running: Weak<Running>,
    slot: Slot,
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
        drain(&node_id, &running, &slot).await;
    }
}

/// See [`NodeHandle::shutdown`]; who comes second waits for the first.
async fn drain(node_id: &NodeId, running: &Running, slot: &Slot) {
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
    end_threads(slot).await;
    *drained = true;
    tracing::info!(%node_id, "node.stopped");
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        if let Threads::Running(runtime) = Threads::take(&self.runtime) {
            runtime.shutdown_background();
        }
    }
}

/// Waits until this process is asked to end: SIGTERM or Ctrl-C.
///
/// # Errors
/// When the operating system lets nobody listen for signals.
pub async fn termination() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
