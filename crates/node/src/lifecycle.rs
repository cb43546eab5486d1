//! A node's life: how it is put together and started here; what holds it and ends it in
//! `handle`.
//!
//! Each node has threads of its own. So several can live in one process, as in
//! `quorate dev`, and a crash takes a node's tasks away at once, as it would a
//! process.

mod handle;
mod threads;

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use quorate_audit::{AuditError, AuditStore};
use quorate_consensus::NodeId;
use quorate_engine::{Config as EngineConfig, Engine};
use quorate_telemetry::StageSink;
use quorate_tls::{Listener, ListenerOptions, Registry};
use tokio::runtime::Builder;
use tokio::sync::{broadcast, oneshot, watch};
use tokio_util::sync::CancellationToken;

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
use crate::mailbox::Mailbox;
use crate::metrics::Meter;
use crate::metrics::sample::Sampler;
use crate::metrics::stores::Timed;
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

pub use handle::NodeHandle;

use handle::Running;
use threads::{Life, Starting, Threads};

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
        let on_them = runtime.handle().clone();
        let threads = Threads::of(runtime);
        let starting = Starting::on(&threads);
        let ended = watch::Sender::new(None);
        let life = Life {
            threads: threads.clone(),
            ended: ended.clone(),
        };
        on_them.spawn(async move {
            // Whoever started it may have gone, and these threads with it.
            let _ = ready.send(assemble(parts, engine, (journal, kept), life).await);
        });
        let running = match started.await {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                threads.end().await;
                return Err(error);
            }
            Err(_) if threads.end().await => {
                return Err(runtime_failed(&"the node's start panicked"));
            }
            // The driver failed meanwhile, and ends them.
            Err(_) => {
                let mut stopped = ended.subscribe();
                let why = match stopped.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Stopped::Failed(why))) => why.clone(),
                    _ => "the node ended while it started".to_owned(),
                };
                return Err(runtime_failed(&why));
            }
        };
        starting.done();
        tracing::info!(%node_id, addr = %running.addr, "node.started");
        Ok(NodeHandle::of(node_id, running, threads, ended.subscribe()))
    }
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
    let feed = Arc::new(Feed::new(parts.coordinator.clone(), rules.cluster_id()));
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
