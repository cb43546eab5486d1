//! Composes the spans of a transaction's trace from what passes through the driver,
//! and measures the stages, also when nothing is exported. Facts go in, each with its
//! time; finished spans come out. It asks nobody, waits for nobody, and keeps only
//! what is on its way: votes and submissions of ballots that are open.
//!
//! | span | from | until |
//! |---|---|---|
//! | `decision` | the board's time of opening | the same: it is there at once |
//! | `vote.receive` | the vote is here | this node's mirror of the board has it |
//! | `vote.validate` | its signature waits for verification | it is verified |
//! | `vote.store` | this node proposes it | the store has answered |
//! | `vote.count` | its entry was read from the log | the mirror counts it |
//! | `byzantine.check` | the mirror takes the entries up | all are held against what was signed before |
//! | `vote.aggregate` | | the ballot's votes are counted by value |
//! | `threshold.check` | | the table was asked for the next move |
//! | `board.*` | this node proposes a move | the store has answered |
//! | `submission.lock` | this node proposes the reservation, or asks for the lease | the store has answered |
//! | `submission.submit` | the first bytes are about to be signed, or were found signed | the chain's word is on the board |
//! | `submission.persist` | the audit store is asked to write | it has |
//! | `ballot.waiting` | the ballot came to its state | nothing moved for 2 s, 8 s, and so on |
//! | `violation`, `member.banned` | the board's time | |
//! | `stream.closed` | a liar's stream is closed | |
//! | `decision.closed` | the board's time of opening | the board's time of the end |

mod ballot;
mod board;
mod chain;
mod lies;
mod rows;
#[cfg(test)]
mod tests;
mod vote;
mod waits;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_consensus::{Choice, ClusterId, NodeId, Rules, TxId};
use quorate_engine::{RequestId, StreamId, Ticket};
use quorate_telemetry::span::Voice;
use quorate_telemetry::{Span, SpanId, SpanIds, Stage, StageSink, TraceContext};

use ballot::{Ballot, Names};
pub(crate) use rows::Rows;

/// Transactions that are followed before the board knows them, and after they ended:
/// so many, the oldest go first.
const UNOPENED: usize = 1024;
const ENDED: usize = 1024;

/// Spans kept back in one ballot, and in all of them.
const HELD_OF_ONE: usize = 512;
const HELD: usize = 16_384;

/// How soon it is said that a ballot waits, and how seldom at last: milliseconds.
const WAITS_MS: u64 = 2_000;
const WAITS_LONGEST_MS: u64 = 300_000;

/// Streams that were closed lately, should they turn out to be a liar's.
const CLOSED: usize = 32;

/// Ballots in which one trustee lied, the latest.
const LIES: usize = 4;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    /// The share of transactions, 0 to 1.
    pub(crate) ratio: f64,
    /// Votes' values are shown too. Those that prove a lie always are.
    pub(crate) values: bool,
}

/// When something came in, and when its signatures were verified, together with how
/// many others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) read: Instant,
    pub(crate) checked: Instant,
    pub(crate) together: usize,
}

impl Arrival {
    /// Now, and nothing to verify.
    pub(crate) fn now() -> Self {
        let now = Instant::now();
        Self {
            read: now,
            checked: now,
            together: 1,
        }
    }
}

/// One vote among all.
type VoteKey = (TxId, NodeId, Choice);

/// A question under way.
#[derive(Debug)]
struct Question {
    span: SpanId,
    began: Instant,
    what: Asked,
}

#[derive(Debug)]
enum Asked {
    /// To record a vote.
    Vote(VoteKey),
    /// A move of a ballot.
    Board {
        tx_id: TxId,
        name: &'static str,
        step: &'static str,
    },
    /// The audit store.
    Audit { tx_id: TxId, step: &'static str },
    /// The chain.
    Chain { tx_id: TxId, step: &'static str },
}

/// When the engine handled what it handled last.
#[derive(Clone, Copy, Debug)]
struct Handled {
    began: Instant,
    ended: Instant,
}

/// See the module's head.
pub(crate) struct Traces {
    own: NodeId,
    cluster_id: ClusterId,
    rules: Arc<Rules>,
    stages: Arc<dyn StageSink>,
    settings: Option<Settings>,
    ids: SpanIds,
    /// A moment on both clocks.
    anchor: (Instant, u64),
    names: Names,
    ballots: HashMap<TxId, Ballot>,
    unopened: VecDeque<TxId>,
    ended: VecDeque<TxId>,
    held: usize,
    waits: BTreeSet<(u64, TxId)>,
    questions: HashMap<Ticket, Question>,
    requests: HashMap<RequestId, VoteKey>,
    /// Signed transactions of submissions under way.
    raws: HashMap<Vec<u8>, TxId>,
    streams: HashMap<StreamId, NodeId>,
    closed: VecDeque<(Instant, NodeId, Arc<str>)>,
    lies: HashMap<NodeId, VecDeque<TxId>>,
    entries: Option<Arrival>,
    handled: Handled,
    /// The first vote of the batch that was verified at this time.
    batch: Option<(Instant, TraceContext)>,
    live: bool,
    ready: Vec<Vec<Span>>,
}

impl Traces {
    /// `seed` makes this process's span ids its own; without settings it only measures.
    pub(crate) fn new(
        own: NodeId,
        rules: Arc<Rules>,
        stages: Arc<dyn StageSink>,
        settings: Option<Settings>,
        seed: u64,
    ) -> Self {
        let now = Instant::now();
        Self {
            own,
            cluster_id: rules.cluster_id(),
            rules,
            stages,
            settings,
            ids: SpanIds::new(seed),
            anchor: (now, wall_ns()),
            names: Names::default(),
            ballots: HashMap::new(),
            unopened: VecDeque::new(),
            ended: VecDeque::new(),
            held: 0,
            waits: BTreeSet::new(),
            questions: HashMap::new(),
            requests: HashMap::new(),
            raws: HashMap::new(),
            streams: HashMap::new(),
            closed: VecDeque::new(),
            lies: HashMap::new(),
            entries: None,
            handled: Handled {
                began: now,
                ended: now,
            },
            batch: None,
            live: false,
            ready: Vec::new(),
        }
    }

    /// Spans that are finished, in groups that belong together.
    pub(crate) fn take_ready(&mut self) -> Vec<Vec<Span>> {
        std::mem::take(&mut self.ready)
    }

    /// The engine handled an event between these two moments.
    pub(crate) fn handled(&mut self, began: Instant, ended: Instant) {
        self.handled = Handled { began, ended };
        // The wall clock may have been set.
        if ended.duration_since(self.anchor.0) > Duration::from_secs(1) {
            self.anchor = (Instant::now(), wall_ns());
        }
    }

    /// Entries came from the log; the engine handles them next.
    pub(crate) fn entries(&mut self, arrival: Arrival) {
        self.entries = Some(arrival);
    }

    fn is_on(&self) -> bool {
        self.settings.is_some() && self.live
    }

    fn shows_values(&self) -> bool {
        self.settings.is_some_and(|settings| settings.values)
    }

    fn measure(&self, stage: Stage, from: Instant, until: Instant) {
        self.stages
            .passed(stage, until.saturating_duration_since(from));
    }

    fn ns(&self, at: Instant) -> u64 {
        let (anchor, wall_ns) = self.anchor;
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        match at.checked_duration_since(anchor) {
            Some(after) => wall_ns.saturating_add(nanos(after)),
            None => wall_ns.saturating_sub(nanos(anchor.duration_since(at))),
        }
    }

    /// The ballot of a transaction; a new one if it is not followed.
    fn ballot(&mut self, tx_id: &TxId) -> &mut Ballot {
        if !self.ballots.contains_key(tx_id) {
            let root = TraceContext::decision(&self.cluster_id, tx_id);
            let shown = self
                .settings
                .is_some_and(|settings| root.trace_id.is_sampled(settings.ratio));
            self.unopened.push_back(tx_id.clone());
            while self.unopened.len() > UNOPENED {
                let Some(oldest) = self.unopened.pop_front() else {
                    break;
                };
                let opened = |ballot: &Ballot| ballot.opened_ms.is_some();
                if !self.ballots.get(&oldest).is_some_and(opened) {
                    self.forget(&oldest);
                }
            }
            let ballot = Ballot::new(root, tx_id.as_str().into(), shown);
            self.ballots.insert(tx_id.clone(), ballot);
        }
        self.ballots.entry(tx_id.clone()).or_insert_with(|| {
            // It was inserted above.
            let root = TraceContext::decision(&self.cluster_id, tx_id);
            Ballot::new(root, tx_id.as_str().into(), false)
        })
    }

    fn forget(&mut self, tx_id: &TxId) {
        if let Some(ballot) = self.ballots.remove(tx_id) {
            self.held -= ballot.held.len();
            if let Some((at, _)) = ballot.waits {
                self.waits.remove(&(at, tx_id.clone()));
            }
            for raw in ballot.submission.iter().flat_map(|s| &s.raws) {
                self.raws.remove(raw);
            }
        }
    }

    /// A span of this node, with what all of them say.
    fn span(
        &mut self,
        parent: TraceContext,
        tx: &Arc<str>,
        (span_id, name): (SpanId, &'static str),
        (from, until): (Instant, Instant),
    ) -> Span {
        let times = (self.ns(from), self.ns(until));
        let own = self.own.clone();
        let own = self.names.of(&own);
        Span::new(parent, span_id, name, times)
            .with("quorate.tx_id", tx.clone())
            .with("quorate.node_id", own)
    }

    /// A span of what the board says: the same on every node.
    fn common(
        &self,
        tx_id: &TxId,
        (name, revision, index): (&'static str, u64, u64),
        (start_ms, end_ms): (u64, u64),
    ) -> Span {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        let root = TraceContext::decision(&self.cluster_id, tx_id);
        let span_id = SpanId::on_board(&self.cluster_id, tx_id, (name, revision, index));
        let mut span = Span::new(root, span_id, name, (ns(start_ms), ns(end_ms)))
            .with("quorate.tx_id", tx_id.to_string())
            .with("quorate.revision", revision);
        span.voice = Voice::Cluster;
        span
    }

    /// Lets finished spans of a ballot go, or keeps them back.
    fn emit(&mut self, tx_id: &TxId, spans: Vec<Span>) {
        if spans.is_empty() || self.settings.is_none() {
            return;
        }
        let Some(ballot) = self.ballots.get_mut(tx_id) else {
            return;
        };
        if ballot.shown {
            self.ready.push(spans);
        } else if ballot.held.len() + spans.len() <= HELD_OF_ONE && self.held + spans.len() <= HELD
        {
            self.held += spans.len();
            ballot.held.extend(spans);
        }
    }

    /// From now on all spans of this ballot go out, and those kept back first.
    fn show(&mut self, tx_id: &TxId) {
        if let Some(ballot) = self.ballots.get_mut(tx_id)
            && !ballot.shown
        {
            ballot.shown = true;
            let held = std::mem::take(&mut ballot.held);
            self.held -= held.len();
            if !held.is_empty() {
                self.ready.push(held);
            }
        }
    }
}

fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
