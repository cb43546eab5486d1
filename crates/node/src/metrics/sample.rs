//! Looks around when somebody asks for the metrics: what is not counted as it happens.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::NodeId;
use quorate_tls::TlsMaterial;
use tokio::sync::watch;

use super::{Meter, number};
use crate::alerts::Alerts;
use crate::clock::wall_ms;
use crate::driver::Pulse;
use crate::feed::Feed;
use crate::health::monitor::expiries;
use crate::mailbox::Mailbox;
use crate::seen::SeenAudit;

/// How long the engine may take to be looked at; then its last numbers stand.
const LOOK: Duration = Duration::from_millis(500);

/// What is looked at.
pub(crate) struct Sampler {
    pub(crate) meter: Arc<Meter>,
    pub(crate) mailbox: Mailbox,
    pub(crate) pulse: watch::Receiver<Pulse>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) audit: Arc<SeenAudit>,
    pub(crate) doors: Arc<quorate_tls::Counters>,
    pub(crate) tls: Arc<TlsMaterial>,
    pub(crate) alerts: Arc<Alerts>,
    /// Takes spans to the collector, if there is one.
    pub(crate) spans: Option<quorate_telemetry::Exporter>,
    /// One at a time: what others count is carried over by difference.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

/// What the engine shows.
struct Seen {
    load: quorate_engine::Load,
    connected: Vec<NodeId>,
    generation: u64,
    is_stopped: bool,
}

impl Sampler {
    /// All metrics as of now, as text.
    pub(crate) async fn export(&self) -> String {
        let _turn = self.turn.lock().await;
        let meter = &self.meter;
        let depth = |queue: &'static str, length: usize| {
            meter.queue_depth.of([queue]).set(number(length));
        };
        // Before the look, which waits there itself.
        depth("driver", self.mailbox.waiting());
        let look = self.mailbox.look(|engine, now| Seen {
            load: engine.load(),
            connected: engine.connected().cloned().collect(),
            generation: engine.generation(),
            is_stopped: engine.signing_stopped(now).is_some(),
        });
        if let Ok(Ok(seen)) = tokio::time::timeout(LOOK, look).await {
            depth("clients", seen.load.requests);
            depth("held_votes", seen.load.held_votes + seen.load.own_votes);
            depth("questions", seen.load.questions);
            depth("transactions", seen.load.transactions);
            raise_to(
                &meter.gossip_duplicates_dropped,
                seen.load.duplicates_dropped,
            );
            meter.gossip_mesh_peers.set(number(seen.load.mesh_peers));
            let mesh = seen.load.mesh;
            for (what, count) in [
                ("pushed", mesh.pushed),
                ("served", mesh.served),
                ("duplicate", mesh.duplicates),
                ("announced", mesh.announced),
                ("requested", mesh.requested),
                ("unanswered", mesh.unanswered),
            ] {
                raise_to(&meter.gossip_statements.of([what]), count);
            }
            self.connected(&seen.connected);
            meter.boot_generation.set(revision(seen.generation));
            meter
                .signing_stopped
                .set(f64::from(u8::from(seen.is_stopped)));
        }
        depth("alerts", self.alerts.waiting());
        meter.queues();
        let in_service = self.pulse.borrow().in_service;
        meter.in_service.set(f64::from(u8::from(in_service)));
        let (believed, projected) = (*self.feed.heads().borrow(), self.audit.known().revision);
        meter.audit_revision.set(revision(projected));
        meter
            .audit_projection_lag
            .set(revision(believed.saturating_sub(projected)));
        raise_to(&meter.handshakes.of(["accepted"]), self.doors.accepted());
        for (why, count) in self.doors.refused() {
            raise_to(&meter.handshakes.of([why]), count);
        }
        if let Some(spans) = self.spans.as_ref().map(quorate_telemetry::Exporter::counts) {
            raise_to(&meter.trace_spans_exported, spans.exported);
            raise_to(&meter.trace_spans_dropped, spans.dropped);
        }
        expiries(&self.tls, meter, wall_ms());
        meter.export()
    }

    fn connected(&self, connected: &[NodeId]) {
        for node_id in &self.meter.members {
            // The node itself has no stream to itself, and no series.
            let label = [node_id.to_string()];
            if connected.contains(node_id) {
                self.meter.peer_connected.of(label).set(1.0);
            } else if self.meter.own.as_ref() != Some(node_id) {
                self.meter.peer_connected.of(label).set(0.0);
            }
        }
    }
}

/// Brings a counter up to what somebody else has counted.
fn raise_to(counter: &quorate_telemetry::metrics::Counter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

fn revision(revision: u64) -> f64 {
    number(usize::try_from(revision).unwrap_or(usize::MAX))
}
