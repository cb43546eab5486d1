//! What is kept of one ballot while its spans are composed: a few words for each vote
//! that is on its way, nothing of one that has arrived.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use quorate_consensus::wire::BallotState;
use quorate_consensus::{Choice, NodeId};
use quorate_engine::StreamId;
use quorate_telemetry::span::{Attributes, SpanEvent};
use quorate_telemetry::{Span, SpanId, TraceContext};

/// Votes on their way that are followed in one ballot, beside one for each member: a
/// peer that makes votes up gets no memory for them.
const SPARE_TRACKS: usize = 16;

/// What is remembered of a ballot's way, and told at its end.
const PASSED: usize = 64;

/// How a vote came to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A client handed it in.
    Client,
    /// A peer sent it.
    Stream(StreamId),
    /// The board had it first.
    Board,
}

/// One vote on its way.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) voter: NodeId,
    pub(super) choice: Choice,
    /// Its span `vote.receive`.
    pub(super) receive: SpanId,
    pub(super) way: Way,
    /// The peer that sent it.
    pub(super) from: Option<Arc<str>>,
    pub(super) began: Instant,
    /// What the caller said it belongs to.
    pub(super) link: Option<TraceContext>,
    /// What hangs under it, finished.
    pub(super) spans: Vec<Span>,
    pub(super) events: Vec<SpanEvent>,
    /// Proposals of it that are not answered yet.
    pub(super) asked: usize,
    /// When the last of them was.
    pub(super) answered: Option<Instant>,
    /// At which revision the board took this node's proposal.
    pub(super) applied: Option<u64>,
    /// When this node's mirror had it, and at which revision.
    pub(super) counted: Option<(Instant, u64)>,
    /// Why it came to nothing, or what it proved.
    pub(super) failed: Option<Arc<str>>,
}

impl Track {
    /// Nothing more is to come.
    pub(super) fn is_done(&self) -> bool {
        self.asked == 0 && (self.counted.is_some() || self.failed.is_some())
    }
}

/// One submission on its way.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) began: Instant,
    pub(super) events: Vec<SpanEvent>,
    /// How often this process sent it.
    pub(super) sent: usize,
    /// Signed forms that were there when it began: somebody was here before.
    pub(super) found: usize,
    /// The signed bytes, to know them again.
    pub(super) raws: Vec<Vec<u8>>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Ballot {
    /// The root span.
    pub(super) root: TraceContext,
    pub(super) tx: Arc<str>,
    /// Its spans are exported as they come; else they are kept back until it ends.
    pub(super) shown: bool,
    /// The board opened it at this time: milliseconds since the Unix epoch. What is
    /// under the root may go out.
    pub(super) opened_ms: Option<u64>,
    pub(super) state: BallotState,
    /// The board's votes.
    pub(super) voters: BTreeMap<NodeId, Choice>,
    pub(super) tracks: Vec<Track>,
    pub(super) submission: Option<Submission>,
    /// When it came to its state: milliseconds since the Unix epoch.
    pub(super) since_ms: u64,
    /// States it came to, and what else the board says of its way to the chain.
    pub(super) path: Vec<SpanEvent>,
    /// Spans kept back.
    pub(super) held: Vec<Span>,
    /// When to say next that it waits, on the monotonic clock, and the pause after
    /// that: milliseconds.
    pub(super) waits: Option<(u64, u64)>,
}

impl Ballot {
    pub(super) fn new(root: TraceContext, tx: Arc<str>, shown: bool) -> Self {
        Self {
            root,
            tx,
            shown,
            opened_ms: None,
            state: BallotState::Unspecified,
            voters: BTreeMap::new(),
            tracks: Vec::new(),
            submission: None,
            since_ms: 0,
            path: Vec::new(),
            held: Vec::new(),
            waits: None,
        }
    }

    pub(super) fn track(&mut self, voter: &NodeId, choice: &Choice) -> Option<&mut Track> {
        let mut tracks = self.tracks.iter_mut();
        tracks.find(|track| track.voter == *voter && track.choice == *choice)
    }

    /// The board has this very vote.
    pub(super) fn has(&self, voter: &NodeId, choice: &Choice) -> bool {
        self.voters.get(voter) == Some(choice)
    }

    /// What the board says of it.
    pub(super) fn passes(&mut self, at_ms: u64, name: &'static str, attributes: Attributes) {
        // Leases may come and go for as long as a submission is stuck.
        if self.path.len() < PASSED {
            self.path.push(SpanEvent {
                at_ns: at_ms.saturating_mul(1_000_000),
                name,
                attributes,
            });
        }
    }

    /// There is room for one more vote on its way.
    pub(super) fn has_room(&self, members: usize) -> bool {
        self.tracks.len() < members + SPARE_TRACKS
    }
}

/// The names that attributes are full of, each once in memory.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<NodeId, Arc<str>>);

/// Names in a list; beyond, the number tells.
const LISTED: usize = 32;

impl Names {
    pub(super) fn of(&mut self, node_id: &NodeId) -> Arc<str> {
        if let Some(name) = self.0.get(node_id) {
            return name.clone();
        }
        let name: Arc<str> = node_id.as_str().into();
        self.0.insert(node_id.clone(), name.clone());
        name
    }

    pub(super) fn list<'a>(&mut self, ids: impl Iterator<Item = &'a NodeId>) -> Vec<Arc<str>> {
        ids.take(LISTED).map(|id| self.of(id)).collect()
    }
}
