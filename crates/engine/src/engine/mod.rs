//! The engine: state, dispatch, timers. The rest is split by what it is about:
//! [`start`] reads the board and puts the boot generation on it, [`log`] believes
//! entries, [`clients`] takes votes in, [`peers`] speaks on streams, [`intake`] takes
//! in what comes on them, [`addresses`] learns where members are reached, [`versions`]
//! agrees on a protocol version, [`mesh`] says to whom statements go in a large cluster,
//! [`duties`] asks the board for moves, [`verdicts`] signs
//! decisions, aborts, observations and accusations, [`submission`] walks the numbered
//! steps to the chain, [`observer`] looks at it, [`operator`] does what operators ask.
//!
//! Nothing here waits. Each question carries a [`Ticket`]; each transaction has one
//! [`Local`] with what this node alone knows; after every event the transactions it
//! touched are evaluated anew from the mirror of the board, so that a lost reply or
//! a restart needs no special path.

mod addresses;
mod clients;
mod duplicates;
mod duties;
mod intake;
mod load;
mod local;
mod log;
mod mesh;
mod observer;
mod operator;
mod peers;
mod start;
mod submission;
mod verdicts;
mod versions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use quorate_consensus::ballot::is_final;
use quorate_consensus::board::Board;
use quorate_consensus::statement::{self, Body, KeyRole, OperatorActBody, Signed};
use quorate_consensus::{Choice, NodeId, Rules, TxId, Verifier, wire};

use crate::api::{
    Alert, Answer, Durable, Effect, Event, Now, Record, Reject, RequestId, StreamId, Ticket,
};
use duplicates::Duplicates;
pub use load::Load;
use local::Local;
use peers::Stream;
use start::Phase;
pub use versions::{PROTOCOL_MIN, PROTOCOL_VERSION};

/// The least stagger between two ranks, in milliseconds.
const LEAST_STAGGER_MS: u64 = 250;

/// The longest that a transaction waits before it is evaluated again, in
/// milliseconds: a wall clock that jumped is noticed within it.
const LONGEST_NAP_MS: u64 = 60_000;

/// Confirmed transactions that are watched for a deeper reorganisation.
const WATCHED_AFTERWARDS: usize = 256;

/// What an engine is told about itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The trustee that it acts for.
    pub node_id: NodeId,
    /// The rules documents from the genesis to the one in force.
    pub rules_chain: wire::RulesChain,
    /// The rules in force.
    pub rules: Arc<Rules>,
    /// The node holds the vote key; without it only statements signed elsewhere are
    /// taken.
    pub signs_votes: bool,
    /// The node holds the chain key and submits decided values.
    pub submits: bool,
}

/// What a ticket stands for.
#[derive(Clone, Debug)]
enum Pending {
    // What is signed is kept with the question: by the time of the answer the
    // transaction may have come to say something else, and a signature joined to
    // other bytes would condemn this node.
    SignVote(TxId, Vec<u8>),
    SignVerdict(TxId, Vec<u8>),
    SignObservation(TxId, Vec<u8>),
    SignAccusation(NodeId, Vec<u8>),
    SignAct(Vec<u8>),
    SignBoot(Vec<u8>),
    SignHello(StreamId, Vec<u8>),
    SignAddress(Vec<u8>),
    ProposeDuty(Option<(TxId, duties::Duty)>),
    // A vote by the digest of its statement and signature: by the time of the answer
    // another may be on its way.
    ProposeOwnVote(TxId, [u8; 32]),
    ProposeHeld(TxId, [u8; 32]),
    ProposeBoot,
    Lookup(TxId),
    FirstHead,
    SubmissionHead(TxId),
    ObserverLook(TxId),
    Submission(TxId),
}

/// A question under way.
#[derive(Clone, Debug)]
struct Asked {
    what: Pending,
    /// When, on the monotonic clock.
    mono_ms: u64,
    /// What the mirror had reached by then. A store that answers from before that is
    /// older than what this node has seen.
    revision: u64,
}

/// A client that waits.
#[derive(Clone, Debug)]
struct Waiting {
    tx_id: TxId,
    choice: Choice,
    wait: crate::api::Wait,
    repeated: bool,
}

/// Whether this engine signs votes and verdicts.
#[derive(Clone, Debug, PartialEq)]
enum Signing {
    Open,
    /// Until both clocks have reached these times: the guard was lost or is old. The
    /// wall clock alone may jump over the wait.
    Quarantined {
        wall_ms: u64,
        mono_ms: u64,
    },
    /// For good, until an operator mends what is named.
    Stopped(String),
}

/// What wakes the engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Start,
    HeldEntries,
    Members,
    Quarantine,
    Greeting(StreamId),
    Resync(StreamId),
    Mesh,
    Transaction(TxId),
}

/// One trustee.
pub struct Engine {
    config: Config,
    durable: Durable,
    verifier: Arc<dyn Verifier>,
    /// The protocol versions that this engine speaks: least and greatest.
    speaks: (u32, u32),
    addresses: addresses::Addresses,
    /// Peers of whom an operator was told that they speak no common version.
    versionless: BTreeSet<NodeId>,
    board: Board,
    phase: Phase,
    signing: Signing,
    generation: u64,
    tickets: u64,
    pending: BTreeMap<Ticket, Asked>,
    /// The boot statements that this process signed.
    boots: Vec<Vec<u8>>,
    /// Entries from the future, by this node's clock.
    held: VecDeque<wire::BoardEntry>,
    /// The entry from the future that was told of.
    clock_alerted: u64,
    seen_persisted_mono: u64,
    seen_persisted: u64,
    latency_ms: u64,
    streams: BTreeMap<StreamId, Stream>,
    peers: BTreeMap<NodeId, StreamId>,
    /// To whom statements go; none in a cluster where everybody tells everybody.
    mesh: Option<mesh::Statements>,
    /// The boot generations that peers last greeted with, where there is a mesh.
    generations: BTreeMap<NodeId, u64>,
    /// Peers that this node accused: it speaks with them no more.
    refused: BTreeSet<NodeId>,
    accusations: BTreeMap<NodeId, verdicts::OwnAccusation>,
    heard_accusations: BTreeMap<(NodeId, NodeId, i32), wire::SignedStatement>,
    /// What members' operators say, by the member that it is about and by who says it.
    acts: BTreeMap<(NodeId, NodeId), Signed<OperatorActBody>>,
    /// Direct messages that were not acknowledged yet, by their tokens.
    messages: BTreeMap<u64, operator::Sent>,
    messages_sent: u64,
    member_duties: BTreeMap<duties::Duty, u64>,
    locals: BTreeMap<TxId, Local>,
    afterwards: VecDeque<TxId>,
    /// How many votes of each trustee are held.
    held_votes: BTreeMap<NodeId, usize>,
    duplicates: Duplicates,
    requests: BTreeMap<RequestId, Waiting>,
    touched: BTreeSet<TxId>,
    timers: BTreeSet<(u64, Timer)>,
    timer_of: BTreeMap<Timer, u64>,
    out: Vec<Effect>,
}

impl Engine {
    /// An engine after a start, with what its journal kept. The first effects come
    /// from the first [`Event::Tick`].
    pub fn restore(config: Config, durable: Durable, verifier: Arc<dyn Verifier>) -> Self {
        let board = Board::new(config.rules.clone());
        let generation = durable.generation.saturating_add(1);
        Self {
            generation,
            mesh: mesh::mesh_for(&config.rules, &config.node_id, generation),
            seen_persisted: durable.seen,
            durable,
            verifier,
            speaks: (PROTOCOL_MIN, PROTOCOL_VERSION),
            addresses: addresses::Addresses::default(),
            versionless: BTreeSet::new(),
            board,
            phase: Phase::Fresh,
            signing: Signing::Open,
            tickets: 0,
            pending: BTreeMap::new(),
            boots: Vec::new(),
            held: VecDeque::new(),
            clock_alerted: 0,
            seen_persisted_mono: 0,
            latency_ms: 0,
            streams: BTreeMap::new(),
            peers: BTreeMap::new(),
            generations: BTreeMap::new(),
            refused: BTreeSet::new(),
            accusations: BTreeMap::new(),
            heard_accusations: BTreeMap::new(),
            acts: BTreeMap::new(),
            messages: BTreeMap::new(),
            messages_sent: 0,
            member_duties: BTreeMap::new(),
            locals: BTreeMap::new(),
            afterwards: VecDeque::new(),
            held_votes: BTreeMap::new(),
            duplicates: Duplicates::default(),
            requests: BTreeMap::new(),
            touched: BTreeSet::new(),
            timers: BTreeSet::from([(0, Timer::Start)]),
            timer_of: BTreeMap::from([(Timer::Start, 0)]),
            out: Vec::new(),
            config,
        }
    }

    /// Takes one event and gives what is to be done, in order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        match event {
            Event::Tick => self.tick(now),
            Event::Submit { request, submit } => self.submit(now, request, submit),
            Event::Abandon { request } => {
                self.abandon(request);
                self.abandon_message(request);
            }
            Event::Operate { request, act } => self.operate(now, request, act),
            Event::StreamUp {
                stream,
                peer,
                own_certificate,
                peer_certificate,
                challenge,
            } => self.stream_up(
                now,
                stream,
                Stream::new(peer, own_certificate, peer_certificate, challenge),
            ),
            Event::Frame { stream, frame } => self.frame(now, stream, frame),
            Event::BadFrame {
                stream,
                subject_digest,
                why,
            } => self.bad_frame(now, stream, subject_digest, why),
            Event::StreamDown { stream } => self.stream_down(stream),
            Event::QueueFull { stream } => self.queue_full(stream),
            Event::Drained { stream } => self.drained(stream),
            Event::Signed { ticket, result } => self.signed(now, ticket, result),
            Event::Proposed { ticket, result } => self.proposed(now, ticket, result),
            Event::Entries { entries } => self.entries(now, entries),
            Event::Rewritten { revision } => self.rewritten(revision),
            Event::Head { ticket, result } => self.head(now, ticket, result),
            Event::Found { ticket, entry } => self.found(now, ticket, entry),
            Event::Chain { ticket, answer } => self.chain_answered(now, ticket, answer),
            Event::Audit { ticket, answer } => self.audit_answered(now, ticket, answer),
        }
        while let Some(tx_id) = self.touched.pop_first() {
            self.evaluate(now, &tx_id);
        }
        self.announce(now);
        self.flush_mesh();
        std::mem::take(&mut self.out)
    }

    /// When to come back with [`Event::Tick`], on the monotonic clock.
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The revision of the board up to which entries were fed.
    pub fn revision(&self) -> u64 {
        self.held
            .back()
            .map_or_else(|| self.board.revision(), |entry| entry.revision)
    }

    /// The mirror of the board that this engine has derived and believes.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The trustee that this engine acts for.
    pub fn node_id(&self) -> &NodeId {
        &self.config.node_id
    }

    /// The boot generation in use.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The peers with an established stream, ascending by id.
    pub fn connected(&self) -> impl Iterator<Item = &NodeId> + Clone {
        self.peers.keys()
    }

    /// The vote ledger of one transaction, with this node's own knowledge in it.
    pub fn view(&self, tx_id: &TxId) -> Option<wire::Ballot> {
        let mut view = self.board.view(tx_id)?;
        if let (Some(submission), Some(local)) = (&mut view.submission, self.locals.get(tx_id)) {
            submission.attempts = local.submission.attempts;
            if submission.tx_hash.is_empty() {
                submission.tx_hash = local.submission.tx_hash();
            }
        }
        Some(view)
    }

    /// The certificate or abort proof of a transaction, once there is one.
    pub fn proof(&self, tx_id: &TxId) -> Option<wire::Proof> {
        use wire::proof::Kind;
        let ballot = self.board.ballot(tx_id)?;
        let rules = Some(self.config.rules_chain.clone());
        let kind = if let Some(proof) = ballot.certificate.clone() {
            let proof = Some(proof);
            Kind::Certificate(wire::Certificate { rules, proof })
        } else if !ballot.aborts.is_empty() {
            let aborts = ballot.aborts.clone();
            Kind::Abort(wire::AbortProof { rules, aborts })
        } else {
            return None;
        };
        Some(wire::Proof { kind: Some(kind) })
    }

    /// Evidence of every proven lie in a transaction's ballot.
    pub fn evidence(&self, tx_id: &TxId) -> Vec<wire::Evidence> {
        let Some(ballot) = self.board.ballot(tx_id) else {
            return Vec::new();
        };
        let proven = ballot
            .violations
            .iter()
            .filter_map(|v| v.misbehaviour.clone());
        proven
            .map(|misbehaviour| wire::Evidence {
                rules: Some(self.config.rules_chain.clone()),
                misbehaviour: Some(misbehaviour),
            })
            .collect()
    }

    /// The board was read up to its head and the boot generation is on it: the node
    /// is in service.
    pub fn is_in_service(&self) -> bool {
        self.phase == Phase::InService
    }

    /// The engine signs nothing until an operator mends what [`Self::signing_stopped`]
    /// names; a quarantine ends by itself.
    pub fn is_stopped(&self) -> bool {
        matches!(self.signing, Signing::Stopped(_))
    }

    /// Why the engine signs no votes and verdicts at this time, if it does not.
    pub fn signing_stopped(&self, now: Now) -> Option<String> {
        match &self.signing {
            Signing::Open => None,
            Signing::Quarantined { wall_ms, mono_ms } => {
                let wall = wall_ms.saturating_sub(now.wall_ms);
                let left_ms = wall.max(mono_ms.saturating_sub(now.mono_ms));
                (left_ms > 0).then(|| {
                    format!(
                        "the journal of this node was lost or is old: nothing is signed for another {} s",
                        left_ms.div_ceil(1000)
                    )
                })
            }
            Signing::Stopped(why) => Some(why.clone()),
        }
    }

    fn tick(&mut self, now: Now) {
        while let Some((at, timer)) = self.timers.first().cloned() {
            if at > now.mono_ms {
                break;
            }
            self.timers.remove(&(at, timer.clone()));
            self.timer_of.remove(&timer);
            match timer {
                Timer::Start => self.start(now),
                Timer::HeldEntries => self.entries(now, Vec::new()),
                Timer::Members => self.evaluate_members(now),
                Timer::Quarantine => self.end_quarantine(now),
                Timer::Greeting(stream) => self.end_greeting(stream),
                Timer::Resync(stream) => self.resync(now, stream),
                Timer::Mesh => self.tick_mesh(now),
                Timer::Transaction(tx_id) => {
                    self.touched.insert(tx_id);
                }
            }
        }
    }

    /// Sets the one alarm of a timer, to this monotonic time.
    fn wake_at(&mut self, timer: Timer, at: u64) {
        if self.timer_of.get(&timer) == Some(&at) {
            return;
        }
        if let Some(old) = self.timer_of.insert(timer.clone(), at) {
            self.timers.remove(&(old, timer.clone()));
        }
        self.timers.insert((at, timer));
    }

    /// Sets a timer unless it already rings earlier.
    fn wake_by(&mut self, timer: Timer, at: u64) {
        if self.timer_of.get(&timer).is_none_or(|old| *old > at) {
            self.wake_at(timer, at);
        }
    }

    fn unset(&mut self, timer: Timer) {
        if let Some(old) = self.timer_of.remove(&timer) {
            self.timers.remove(&(old, timer));
        }
    }

    fn ask(&mut self, now: Now, what: Pending) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket {
            generation: self.durable.generation.saturating_add(1),
            number: self.tickets,
        };
        let asked = Asked {
            what,
            mono_ms: now.mono_ms,
            revision: self.board.revision(),
        };
        self.pending.insert(ticket, asked);
        ticket
    }

    /// What an answered ticket stood for.
    fn answered(&mut self, ticket: Ticket) -> Option<Asked> {
        self.pending.remove(&ticket)
    }

    fn sign<B: Body>(
        &mut self,
        now: Now,
        pending: impl FnOnce(Vec<u8>) -> Pending,
        rules: &Rules,
        body: &B,
    ) {
        let statement = self.bytes_of(rules, body);
        let pending = pending(statement.clone());
        self.sign_bytes(now, pending, B::KEY, B::DOMAIN, statement);
    }

    fn bytes_of<B: Body>(&self, rules: &Rules, body: &B) -> Vec<u8> {
        statement::bytes_to_sign(rules, &self.config.node_id, body)
    }

    fn sign_bytes(
        &mut self,
        now: Now,
        pending: Pending,
        key: KeyRole,
        domain: quorate_consensus::Domain,
        statement: Vec<u8>,
    ) {
        let ticket = self.ask(now, pending);
        self.out.push(Effect::Sign {
            ticket,
            key,
            domain,
            statement,
        });
    }

    fn propose(&mut self, now: Now, pending: Pending, op: wire::board_op::Op) {
        let ticket = self.ask(now, pending);
        self.out.push(Effect::Propose {
            ticket,
            op: wire::BoardOp { op: Some(op) },
            now_ms: now.wall_ms,
        });
    }

    fn persist(&mut self, record: Record) {
        self.out.push(Effect::Persist(record));
    }

    fn alert(&mut self, alert: Alert) {
        self.out.push(Effect::Alert(alert));
    }

    fn answer(&mut self, request: RequestId, result: Result<Answer, Reject>) {
        self.out.push(Effect::Answer {
            request,
            result: Box::new(result),
        });
    }

    fn touch(&mut self, tx_id: &TxId) {
        self.touched.insert(tx_id.clone());
    }

    fn rules_of(&self, tx_id: &TxId) -> Arc<Rules> {
        match self.board.ballot(tx_id) {
            Some(ballot) => ballot.rules.clone(),
            None => self.board.rules().clone(),
        }
    }

    /// The step between two ranks, in milliseconds: four times what the store needs
    /// to answer, so that a slow store meets no storm.
    fn stagger_ms(&self) -> u64 {
        LEAST_STAGGER_MS.max(4 * self.latency_ms)
    }

    /// This node's place in the order that `subject` gives the members, banned ones
    /// left out; the first acts at once.
    fn rank(&self, subject: &str) -> u64 {
        self.count_unbanned(&self.before(subject))
    }

    /// The same in the order that a transaction gives.
    fn rank_in(&mut self, tx_id: &TxId) -> u64 {
        let known = self.locals.get(tx_id).and_then(|l| l.before.clone());
        let before = known.unwrap_or_else(|| {
            let before: Arc<[NodeId]> = self.before(tx_id.as_str()).into();
            if let Some(local) = self.locals.get_mut(tx_id) {
                local.before = Some(before.clone());
            }
            before
        });
        self.count_unbanned(&before)
    }

    fn count_unbanned(&self, members: &[NodeId]) -> u64 {
        let banned = |node_id: &&NodeId| !self.board.is_banned(node_id);
        members.iter().filter(banned).count() as u64
    }

    /// The members that `subject` puts before this node, banned ones among them.
    fn before(&self, subject: &str) -> Vec<NodeId> {
        let place = |node_id: &NodeId| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(subject.as_bytes());
            hasher.update(&[0]);
            hasher.update(node_id.as_str().as_bytes());
            *hasher.finalize().as_bytes()
        };
        let own = place(&self.config.node_id);
        let members = self.board.rules().members().map(|member| &member.node_id);
        members
            .filter(|node_id| place(node_id) < own)
            .cloned()
            .collect()
    }

    /// Forgets what this node alone knows about a ballot that needs nothing more.
    fn retire(&mut self, tx_id: &TxId) {
        let Some(local) = self.locals.get(tx_id) else {
            return;
        };
        if !local.is_idle() {
            return;
        }
        let Some(ballot) = self.board.ballot(tx_id) else {
            self.drop_local(tx_id);
            return;
        };
        if !is_final(ballot.state) || !ballot.is_proven() {
            return;
        }
        if !ballot.roll_called && ballot.deadline_ms().is_some() {
            return;
        }
        if ballot.reservation.is_none() {
            self.drop_local(tx_id);
        } else if !local.afterwards {
            if let Some(local) = self.locals.get_mut(tx_id) {
                local.afterwards = true;
            }
            self.afterwards.push_back(tx_id.clone());
            if self.afterwards.len() > WATCHED_AFTERWARDS
                && let Some(oldest) = self.afterwards.pop_front()
            {
                let rests = self.board.ballot(&oldest).is_none_or(|b| is_final(b.state));
                match self.locals.get_mut(&oldest) {
                    // Undone meanwhile: it comes back here when it is concluded again.
                    Some(local) if !rests || !local.is_idle() => local.afterwards = false,
                    _ => self.drop_local(&oldest),
                }
            }
        }
    }

    fn drop_local(&mut self, tx_id: &TxId) {
        if let Some(local) = self.locals.remove(tx_id) {
            self.let_go(local.held.iter());
        }
        self.unset(Timer::Transaction(tx_id.clone()));
    }
}
