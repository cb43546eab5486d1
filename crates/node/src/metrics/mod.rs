//! What a node measures about itself: the list is `quorate-telemetry`'s, here is what
//! feeds it. [`board`] counts what the board's log says, [`stores`] times the stores,
//! [`sample`] looks around when somebody asks for the metrics.

mod board;
pub(crate) mod sample;
pub(crate) mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_consensus::ballot::{STATES, is_final, state_name};
use quorate_consensus::wire::{BoardEntry, ViolationType};
use quorate_consensus::words::violation_word;
use quorate_consensus::{NodeId, Rules};
use quorate_engine::{Answer, Reject, StreamId};
use quorate_telemetry::metrics::{Exporter, Value};
use quorate_telemetry::{Metrics, Stage, StageSink};

use crate::clock::wall_ms;
use crate::exchange::Queue;
use board::OnBoard;

/// What stands for a node that is no member: names that others choose must not become
/// series.
const STRANGER: &str = "other";

/// The metrics of one node, and what it must remember to fill them.
#[derive(Debug)]
pub(crate) struct Meter {
    metrics: Metrics,
    exporter: Exporter,
    members: BTreeSet<NodeId>,
    /// Whose they are; none in tests.
    own: Option<NodeId>,
    /// Milliseconds since the Unix epoch.
    started_ms: u64,
    board: Mutex<OnBoard>,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    up: BTreeMap<StreamId, (Value, Queue)>,
    known: BTreeSet<Value>,
}

impl StageSink for Meter {
    fn passed(&self, stage: Stage, took: Duration) {
        self.metrics.stage(stage, took);
    }
}

impl Deref for Meter {
    type Target = Metrics;

    fn deref(&self) -> &Metrics {
        &self.metrics
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::with(BTreeSet::new())
    }
}

impl Meter {
    /// The metrics of a node under these rules; whatever may be asked for before it
    /// happened is there, at zero.
    pub(crate) fn new(own: &NodeId, rules: &Rules) -> Self {
        let members = rules.members().map(|member| member.node_id.clone());
        let mut meter = Self::with(members.collect());
        meter.own = Some(own.clone());
        for node_id in &meter.members {
            let label = || [node_id.to_string()];
            meter.votes_received.of(label());
            meter.peer_reputation.of(label()).set(1.0);
            meter.member_banned.of(label());
            for kind in KINDS {
                meter
                    .violations
                    .of([node_id.as_str(), violation_word(kind)].map(str::to_owned));
            }
            for kind in ACCUSED {
                meter
                    .accusations
                    .of([node_id.as_str(), violation_word(kind)].map(str::to_owned));
            }
            if node_id != own {
                meter.peer_connected.of(label());
                meter.streams_opened.of(label());
                meter.stream_reconnects.of(label());
                meter.stream_queue_depth.of(label());
            }
        }
        meter.begin();
        meter.rules(rules);
        meter
    }

    fn with(members: BTreeSet<NodeId>) -> Self {
        let (metrics, exporter) = Metrics::new();
        Self {
            metrics,
            exporter,
            members,
            own: None,
            started_ms: wall_ms(),
            board: Mutex::default(),
            streams: Mutex::default(),
        }
    }

    /// Shows at zero what alerts and dashboards ask for: an increase from nothing to one
    /// is none to Prometheus.
    fn begin(&self) {
        for kind in KINDS {
            self.votes_rejected_byzantine.of([violation_word(kind)]);
        }
        for state in STATES {
            self.ballots.of([state_name(state)]);
            self.ballot_moves.of([state_name(state)]);
        }
        for state in STATES.into_iter().filter(|state| is_final(*state)) {
            self.ballot_duration.of([state_name(state)]);
        }
        for state in ["SUBMITTED", "CONFIRMED", "FAILED"] {
            self.blockchain_submissions.of([state]);
        }
        for result in ["accepted", "repeated", "refused", "unanswered"] {
            self.client_votes.of([result]);
        }
        for direction in ["sent", "received"] {
            self.gossip_messages.of([direction]);
        }
        for what in ["calls", "frames", "unstarted"] {
            self.rate_limited.of([what]);
        }
        self.start_time.set(seconds(self.started_ms));
    }

    fn rules(&self, rules: &Rules) {
        self.rules_info.clear();
        let info = self.rules_info.of([
            rules.cluster_name().to_owned(),
            rules.cluster_id().to_string(),
            rules.digest().to_string(),
            rules.total().to_string(),
            rules.threshold().to_string(),
        ]);
        info.set(1.0);
        #[allow(
            clippy::cast_precision_loss,
            reason = "epochs count up from 1, one decision each"
        )]
        self.rules_epoch.set(rules.epoch() as f64);
    }

    /// All of it, as OpenMetrics text.
    pub(crate) fn export(&self) -> String {
        self.exporter.export()
    }

    /// A member's name as a label; [`STRANGER`] for whoever is none.
    pub(crate) fn member(&self, node_id: &str) -> Value {
        match self.members.iter().any(|m| m.as_str() == node_id) {
            true => Value::Owned(node_id.to_owned()),
            false => Value::Borrowed(STRANGER),
        }
    }

    /// Whether an entry of the board's log is news, and not history that was read again.
    pub(crate) fn is_news(&self, entry: &BoardEntry) -> bool {
        entry.time_ms >= self.started_ms
    }

    /// A call was answered with this code.
    pub(crate) fn called(&self, method: &'static str, code: tonic::Code) {
        // As many words as there are codes.
        let code = format!("{code:?}");
        self.calls
            .of([Value::Borrowed(method), Value::Owned(code)])
            .inc();
    }

    /// A client was answered.
    pub(crate) fn answered(&self, result: &Result<Answer, Reject>) {
        let word = match result {
            Ok(answer) if answer.repeated => "repeated",
            Ok(_) => "accepted",
            Err(reject) => {
                if matches!(reject, Reject::SecondChoice { .. }) {
                    self.sign_guard_refusals.inc();
                }
                "refused"
            }
        };
        self.client_votes.of([word]).inc();
    }

    /// A stream came up.
    pub(crate) fn stream_up(&self, stream: StreamId, peer: &NodeId, queue: &Queue) {
        let peer = self.member(peer.as_str());
        let mut streams = self.streams();
        streams.up.insert(stream, (peer.clone(), queue.clone()));
        if !streams.known.insert(peer.clone()) {
            self.stream_reconnects.of([peer.clone()]).inc();
        }
        self.streams_opened.of([peer]).inc();
    }

    /// A stream ended.
    pub(crate) fn stream_down(&self, stream: StreamId) {
        self.streams().up.remove(&stream);
    }

    /// How many frames wait for each peer.
    fn queues(&self) {
        let mut waiting: BTreeMap<Value, usize> = BTreeMap::new();
        let streams = self.streams();
        for peer in &streams.known {
            waiting.insert(peer.clone(), 0);
        }
        for (peer, queue) in streams.up.values() {
            *waiting.entry(peer.clone()).or_default() += queue.len();
        }
        for (peer, frames) in waiting {
            self.stream_queue_depth.of([peer]).set(number(frames));
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every type of violation.
const KINDS: [ViolationType; 7] = [
    ViolationType::DoubleVoting,
    ViolationType::MinorityVote,
    ViolationType::InvalidSignature,
    ViolationType::Malformed,
    ViolationType::Operator,
    ViolationType::SilentFailure,
    ViolationType::NonParticipation,
];

/// Those that a node can accuse of.
const ACCUSED: [ViolationType; 3] = [
    ViolationType::InvalidSignature,
    ViolationType::Malformed,
    ViolationType::Operator,
];

/// A count as a gauge or a histogram takes it.
#[allow(
    clippy::cast_precision_loss,
    reason = "what a node counts is far below 2^53"
)]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}

/// Milliseconds as seconds.
#[allow(
    clippy::cast_precision_loss,
    reason = "times since 1970 are exact up to 2^53 ms"
)]
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// What a node has counted at one moment; every number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Votes of clients that were refused, for whatever reason.
    pub submits_rejected: u64,
    /// Calls refused for want of the right role.
    pub calls_forbidden: u64,
    /// Calls refused by the rate limit.
    pub calls_limited: u64,
    /// Exchange streams that came up.
    pub streams_opened: u64,
    /// Frames that were no frames.
    pub frames_malformed: u64,
    /// Alerts raised.
    pub alerts: u64,
}

impl Meter {
    /// The counts that tests and demonstrations ask for.
    pub(crate) fn counts(&self) -> Counts {
        let members = self.members.iter().map(|m| Value::Owned(m.to_string()));
        let peers = members.chain([Value::Borrowed(STRANGER)]);
        Counts {
            submits_rejected: self.client_votes.of(["refused"]).get(),
            calls_forbidden: self.calls_forbidden.get(),
            calls_limited: self.rate_limited.of(["calls"]).get(),
            streams_opened: peers.map(|p| self.streams_opened.of([p]).get()).sum(),
            frames_malformed: self.gossip_messages_malformed.get(),
            alerts: crate::alerts::Name::ALL
                .iter()
                .map(|name| self.alerts.of([name.word()]).get())
                .sum(),
        }
    }
}
