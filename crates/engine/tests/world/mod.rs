//! Engines, a board and a model chain in memory, driven by a queue of events: time
//! passes only here.
#![allow(dead_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use quorate_consensus::board::{Board, Outcome};
use quorate_consensus::wire::{
    self, BallotState, BoardEntry, Frame, RulesChain, RulesLink, SignedStatement,
};
use quorate_consensus::{Address, Choice, Domain, NodeId, TxId};
use quorate_engine::{
    Alert, Answer, AuditAnswer, AuditAsk, ChainAnswer, ChainAsk, Config, Durable, Effect, Engine,
    Event, Handed, JournalEntry, Now, OperatorAct, Prepared, Proposed, Record, Reject, RequestId,
    SendOutcome, Sighting, StreamId, Submit, Wait,
};
use quorate_testkit::{Cluster, FakeVerifier, NOW, tx};

/// How long every answer and every frame takes, in milliseconds.
const HOP_MS: u64 = 1;

/// One transaction on the model chain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OnChain {
    pub(crate) payload: Vec<u8>,
    pub(crate) tx_hash: Vec<u8>,
    pub(crate) block: u64,
    pub(crate) succeeded: bool,
}

/// A chain with one account.
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) included: BTreeMap<u64, OnChain>,
    pub(crate) head: u64,
    /// Send answers that are lost after the transaction was taken.
    pub(crate) lose_answers: u32,
    pub(crate) refuse: bool,
    /// Variants below this attempt pay too little.
    pub(crate) least_attempt: u8,
}

/// What survives a crash of a node.
#[derive(Clone, Default)]
pub(crate) struct Journal {
    durable: Durable,
    entries: BTreeMap<TxId, JournalEntry>,
    pub(crate) addresses: BTreeMap<NodeId, SignedStatement>,
}

impl Journal {
    fn commit(&mut self, record: Record) {
        match record {
            Record::Generation {
                generation,
                acknowledged,
            } => {
                self.durable.generation = generation;
                self.durable.acknowledged = acknowledged;
            }
            Record::Guard {
                tx_id,
                choice,
                statement,
            } => {
                let entry = self.entries.entry(tx_id).or_default();
                if let Some((first, _)) = &entry.guard {
                    assert_eq!(*first, choice, "the guard was overwritten");
                }
                entry.guard = Some((choice, statement));
            }
            Record::Verdict {
                tx_id,
                domain,
                statement,
            } => {
                let entry = self.entries.entry(tx_id).or_default();
                if let Some((first, _)) = &entry.verdict {
                    assert_eq!(*first, domain, "a decision and an abort");
                }
                entry.verdict = Some((domain, statement));
            }
            Record::Final { tx_id, state } => {
                self.entries.entry(tx_id).or_default().ended = Some(state);
            }
            Record::Address { node_id, signed } => {
                self.addresses.insert(node_id, signed);
            }
            Record::Seen { revision } => {
                assert!(revision >= self.durable.seen);
                self.durable.seen = revision;
            }
        }
    }
}

/// One place for an engine.
pub(crate) struct Node {
    pub(crate) engine: Option<Engine>,
    pub(crate) journal: Journal,
    pub(crate) alerts: Vec<Alert>,
    pub(crate) refused: BTreeSet<NodeId>,
    /// Where it says that it is reached, if it says so.
    pub(crate) advertises: Option<Address>,
    /// Where its driver would dial the others.
    pub(crate) reaches: BTreeMap<NodeId, Address>,
    /// The protocol versions that it speaks, if not all.
    pub(crate) speaks: Option<(u32, u32)>,
    pub(crate) incarnation: u64,
    pub(crate) clock_off_ms: i64,
    pub(crate) frozen: bool,
}

type Crash = Box<dyn FnMut(usize, &Effect) -> bool>;

/// Everything.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) nodes: Vec<Node>,
    pub(crate) board: Board,
    pub(crate) log: Vec<BoardEntry>,
    pub(crate) chain: Chain,
    pub(crate) rows: BTreeMap<TxId, wire::Reservation>,
    pub(crate) variants: BTreeMap<TxId, Vec<(u32, Prepared)>>,
    pub(crate) answers: BTreeMap<u64, Result<Answer, Reject>>,
    /// Answers to operators.
    pub(crate) operated: BTreeMap<u64, Result<(), Reject>>,
    /// Direct messages that were shown: at which node, from whom, what.
    pub(crate) messages: Vec<(usize, NodeId, Vec<u8>)>,
    /// Called before each effect is carried out; true crashes the node there.
    pub(crate) crash: Option<Crash>,
    pub(crate) effects: u64,
    pub(crate) refusals: Vec<String>,
    pub(crate) board_away: bool,
    /// How long a signature takes, in milliseconds, and how many fail from now on.
    pub(crate) sign_ms: u64,
    /// How long the journal takes to answer, in milliseconds.
    pub(crate) lookup_ms: u64,
    /// How long the chain takes to answer each node's looks, the board to answer a
    /// proposal, and to say where it ends, in milliseconds.
    pub(crate) look_ms: Vec<u64>,
    pub(crate) propose_ms: u64,
    pub(crate) head_ms: u64,
    pub(crate) failing_signatures: u32,
    /// Which signatures of which domain were made by whom, by transaction-less bytes.
    pub(crate) signed: Vec<(usize, Domain, Vec<u8>)>,
    mono: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize, u64)>>,
    events: BTreeMap<u64, Event>,
    number: u64,
    links: BTreeMap<u64, (usize, usize, u64)>,
    cut: BTreeSet<(usize, usize)>,
    /// Streams that a test holds the other end of: frames that came out.
    pub(crate) tapped: BTreeMap<u64, Vec<Frame>>,
    /// The protocol versions that a test's hellos name.
    pub(crate) tap_speaks: (u32, u32),
}

impl World {
    /// All nodes started, connected and in service.
    pub(crate) fn new(cluster: Cluster) -> Self {
        let mut world = Self::silent(cluster);
        for i in 0..world.nodes.len() {
            world.start(i);
        }
        world.until(|w| {
            w.nodes
                .iter()
                .all(|n| n.engine.as_ref().unwrap().is_in_service())
        });
        world.connect_all();
        world.run(50);
        world
    }

    /// No node started.
    pub(crate) fn silent(cluster: Cluster) -> Self {
        let nodes = (0..cluster.n())
            .map(|_| Node {
                engine: None,
                journal: Journal::default(),
                alerts: Vec::new(),
                refused: BTreeSet::new(),
                advertises: None,
                reaches: BTreeMap::new(),
                speaks: None,
                incarnation: 0,
                clock_off_ms: 0,
                frozen: false,
            })
            .collect();
        Self {
            board: Board::new(cluster.rules().clone()),
            look_ms: vec![HOP_MS; cluster.n()],
            cluster,
            nodes,
            log: Vec::new(),
            chain: Chain::default(),
            rows: BTreeMap::new(),
            variants: BTreeMap::new(),
            answers: BTreeMap::new(),
            operated: BTreeMap::new(),
            messages: Vec::new(),
            crash: None,
            effects: 0,
            refusals: Vec::new(),
            board_away: false,
            sign_ms: HOP_MS,
            lookup_ms: HOP_MS,
            propose_ms: HOP_MS,
            head_ms: HOP_MS,
            failing_signatures: 0,
            signed: Vec::new(),
            mono: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            number: 0,
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            tapped: BTreeMap::new(),
            tap_speaks: (1, 1),
        }
    }

    pub(crate) fn wall(&self) -> u64 {
        NOW + self.mono
    }

    pub(crate) fn now(&self, i: usize) -> Now {
        Now {
            wall_ms: self
                .wall()
                .saturating_add_signed(self.nodes[i].clock_off_ms),
            mono_ms: self.mono,
        }
    }

    pub(crate) fn engine(&self, i: usize) -> &Engine {
        self.nodes[i].engine.as_ref().expect("the node runs")
    }

    fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn post(&mut self, delay: u64, i: usize, event: Event) {
        let number = self.number();
        self.events.insert(number, event);
        let incarnation = self.nodes[i].incarnation;
        self.queue
            .push(Reverse((self.mono + delay, number, i, incarnation)));
    }

    pub(crate) fn start(&mut self, i: usize) {
        let config = Config {
            node_id: self.cluster.node_id(i),
            rules_chain: RulesChain {
                links: vec![RulesLink {
                    document: self.cluster.rules().document().to_vec(),
                    justification: None,
                }],
            },
            rules: self.cluster.rules().clone(),
            signs_votes: true,
            submits: true,
        };
        let node = &mut self.nodes[i];
        node.incarnation += 1;
        node.refused.clear();
        let durable = node.journal.durable;
        node.reaches.clear();
        let mut engine = Engine::restore(config, durable, Arc::new(FakeVerifier))
            .remembering(node.journal.addresses.values().cloned());
        if let Some(address) = node.advertises.clone() {
            engine = engine.advertising(address);
        }
        if let Some((least, greatest)) = node.speaks {
            engine = engine.speaking(least, greatest);
        }
        node.engine = Some(engine);
        self.post(0, i, Event::Tick);
    }

    /// The process is gone; what was made durable stays.
    pub(crate) fn kill(&mut self, i: usize) {
        self.nodes[i].engine = None;
        self.nodes[i].incarnation += 1;
        let mine: Vec<_> = self
            .links
            .iter()
            .filter(|(_, (owner, ..))| *owner == i)
            .map(|(id, (_, other, twin))| (*id, *other, *twin))
            .collect();
        for (id, other, twin) in mine {
            self.links.remove(&id);
            if self.links.remove(&twin).is_some() {
                let stream = StreamId(twin);
                self.post(HOP_MS, other, Event::StreamDown { stream });
            }
        }
    }

    /// Killed, started and connected again.
    pub(crate) fn restart(&mut self, i: usize) {
        self.kill(i);
        self.start(i);
        for j in 0..self.nodes.len() {
            if j != i {
                self.connect(i, j);
            }
        }
    }

    /// The same with the disk lost.
    pub(crate) fn restart_without_disk(&mut self, i: usize) {
        self.nodes[i].journal = Journal::default();
        self.restart(i);
    }

    pub(crate) fn connect_all(&mut self) {
        for i in 0..self.nodes.len() {
            for j in i + 1..self.nodes.len() {
                self.connect(i, j);
            }
        }
    }

    pub(crate) fn connect(&mut self, i: usize, j: usize) {
        if self.nodes[i].engine.is_none() || self.nodes[j].engine.is_none() {
            return;
        }
        let (a, b) = (self.number(), self.number());
        self.links.insert(a, (i, j, b));
        self.links.insert(b, (j, i, a));
        for (owner, other, id) in [(i, j, a), (j, i, b)] {
            let event = Event::StreamUp {
                stream: StreamId(id),
                peer: self.cluster.node_id(other),
                own_certificate: [owner as u8 + 1; 32],
                peer_certificate: [other as u8 + 1; 32],
                challenge: *blake3::hash(&id.to_be_bytes()).as_bytes(),
            };
            self.post(HOP_MS, owner, event);
        }
    }

    /// A stream to node `i` whose other end, in the name of member `peer`, is the
    /// test's own.
    pub(crate) fn tap(&mut self, i: usize, peer: usize) -> StreamId {
        let id = self.number();
        self.tapped.insert(id, Vec::new());
        let event = Event::StreamUp {
            stream: StreamId(id),
            peer: self.cluster.node_id(peer),
            own_certificate: [i as u8 + 1; 32],
            peer_certificate: [0xee; 32],
            challenge: *blake3::hash(&id.to_be_bytes()).as_bytes(),
        };
        self.post(HOP_MS, i, event);
        self.run(5);
        StreamId(id)
    }

    /// The same under the certificates and the challenge of a stream that was recorded
    /// between two nodes.
    pub(crate) fn tap_as_recorded(
        &mut self,
        i: usize,
        peer: usize,
        challenge: [u8; 32],
    ) -> StreamId {
        let id = self.number();
        self.tapped.insert(id, Vec::new());
        let event = Event::StreamUp {
            stream: StreamId(id),
            peer: self.cluster.node_id(peer),
            own_certificate: [i as u8 + 1; 32],
            peer_certificate: [peer as u8 + 1; 32],
            challenge,
        };
        self.post(HOP_MS, i, event);
        self.run(5);
        StreamId(id)
    }

    /// A tapped stream on which the hello was said as member `peer`.
    pub(crate) fn tap_as_member(&mut self, i: usize, peer: usize) -> StreamId {
        let stream = self.tap(i, peer);
        self.greet(i, peer, stream);
        self.run(5);
        stream
    }

    /// Says all that a greeting needs on a tapped stream, in one go.
    pub(crate) fn greet(&mut self, i: usize, peer: usize, stream: StreamId) {
        let nonce = vec![7; 32];
        self.say(
            i,
            stream,
            wire::frame::Body::Challenge(wire::Challenge { nonce }),
        );
        let hello = self.hello(i, peer, stream);
        self.say(i, stream, wire::frame::Body::Hello(hello));
    }

    /// The hello that answers node `i`'s challenge on a tapped stream.
    pub(crate) fn hello(&self, i: usize, peer: usize, stream: StreamId) -> wire::Hello {
        let body = quorate_consensus::statement::HelloBody {
            generation: 1,
            protocol_min: self.tap_speaks.0,
            protocol_max: self.tap_speaks.1,
            own_certificate: [0xee; 32],
            peer_certificate: [i as u8 + 1; 32],
            challenge: *blake3::hash(&stream.0.to_be_bytes()).as_bytes(),
        };
        wire::Hello {
            hello: Some(self.cluster.say(peer, &body)),
        }
    }

    /// Puts a frame into node `i` on a tapped stream.
    pub(crate) fn say(&mut self, i: usize, stream: StreamId, body: wire::frame::Body) {
        let frame = Frame { body: Some(body) };
        self.post(HOP_MS, i, Event::Frame { stream, frame });
    }

    /// Puts votes into node `i` on a tapped stream.
    pub(crate) fn say_votes(&mut self, i: usize, stream: StreamId, votes: Vec<SignedStatement>) {
        let votes = votes
            .into_iter()
            .map(|vote| wire::TracedVote {
                vote: Some(vote),
                traceparent: String::new(),
            })
            .collect();
        let batch = wire::Batch {
            votes,
            ..wire::Batch::default()
        };
        self.say(i, stream, wire::frame::Body::Batch(batch));
    }

    /// Why a tapped stream was closed, if it was.
    pub(crate) fn goodbye(&self, stream: StreamId) -> Option<wire::GoodbyeReason> {
        self.tapped[&stream.0]
            .iter()
            .find_map(|frame| match &frame.body {
                Some(wire::frame::Body::Goodbye(goodbye)) => Some(goodbye.reason()),
                _ => None,
            })
    }

    /// Frames between two nodes are lost from now on.
    pub(crate) fn cut(&mut self, i: usize, j: usize) {
        self.cut.insert((i.min(j), i.max(j)));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn submit(
        &mut self,
        i: usize,
        tx_id: &TxId,
        choice: impl Into<Choice>,
        wait: Wait,
    ) -> u64 {
        let submit = Submit {
            tx_id: Some(tx_id.clone()),
            handed: Handed::Choice(choice.into()),
            wait,
        };
        self.hand_in(i, submit)
    }

    pub(crate) fn hand_in(&mut self, i: usize, submit: Submit) -> u64 {
        let number = self.number();
        let request = RequestId(number);
        self.post(0, i, Event::Submit { request, submit });
        number
    }

    pub(crate) fn operate(&mut self, i: usize, act: OperatorAct) -> u64 {
        let number = self.number();
        let request = RequestId(number);
        self.post(0, i, Event::Operate { request, act });
        number
    }

    /// The answer to a request that must have come.
    pub(crate) fn answer(&self, request: u64) -> &Result<Answer, Reject> {
        self.answers.get(&request).expect("an answer has come")
    }

    pub(crate) fn state(&self, tx_id: &TxId) -> Option<BallotState> {
        self.board.ballot(tx_id).map(|ballot| ballot.state)
    }

    /// Applies an operation as another writer of the store would.
    pub(crate) fn write(&mut self, op: &wire::BoardOp) -> Result<Outcome, String> {
        let outcome = self
            .board
            .apply(op, self.wall(), &FakeVerifier)
            .map_err(|refusal| refusal.to_string())?;
        if let Outcome::Applied(entry) = &outcome {
            self.log.push(entry.clone());
            self.publish();
        }
        Ok(outcome)
    }

    /// The store is put back to its first entries.
    pub(crate) fn put_back_store(&mut self, entries: usize) {
        self.board = Board::new(self.cluster.rules().clone());
        self.log.truncate(entries);
        for entry in &self.log {
            self.board.replay(entry.clone(), &FakeVerifier).unwrap();
        }
    }

    fn publish(&mut self) {
        // What the projection of the log into the audit store does.
        for event in self.log.iter().flat_map(|entry| &entry.events) {
            if let Some(wire::board_event::Event::Reserved(reserved)) = &event.event
                && reserved.anew
                && let Some(reservation) = &reserved.reservation
            {
                self.rows.insert(tx(&event.tx_id), reservation.clone());
            }
        }
        for i in 0..self.nodes.len() {
            let Some(engine) = &self.nodes[i].engine else {
                continue;
            };
            let from = engine.revision() as usize;
            if from < self.log.len() && !self.nodes[i].frozen {
                let entries = self.log[from..].to_vec();
                self.post(HOP_MS, i, Event::Entries { entries });
            }
        }
    }

    /// Runs for so many milliseconds.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.mono + ms;
        while self.step(end) {}
        self.mono = end;
    }

    /// Runs until the condition holds, for at most ten minutes of the world's time.
    pub(crate) fn until(&mut self, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.mono + 600_000;
        while !holds(self) {
            assert!(self.step(end), "nothing happens any more: {}", self.story());
        }
    }

    /// What the log says, for a failed test.
    pub(crate) fn story(&self) -> String {
        let mut story = String::new();
        for entry in &self.log {
            story += &format!("\n{} {:?}", entry.revision, entry.op);
        }
        story
    }

    /// Does what comes next, if it comes before `end`.
    fn step(&mut self, end: u64) -> bool {
        let wake = (0..self.nodes.len())
            .filter(|i| !self.nodes[*i].frozen)
            .filter_map(|i| Some((self.nodes[i].engine.as_ref()?.next_wake()?, i)))
            .min();
        let next = self.queue.peek().map(|Reverse((at, ..))| *at);
        match (next, wake) {
            (Some(at), wake) if wake.is_none_or(|(w, _)| at <= w) && at <= end => {
                let Some(Reverse((at, number, i, incarnation))) = self.queue.pop() else {
                    return false;
                };
                self.mono = self.mono.max(at);
                let event = self.events.remove(&number).expect("posted");
                if self.nodes[i].incarnation == incarnation {
                    self.feed(i, event);
                }
                true
            }
            (_, Some((at, i))) if at <= end => {
                self.mono = self.mono.max(at);
                self.feed(i, Event::Tick);
                true
            }
            _ => false,
        }
    }

    fn feed(&mut self, i: usize, event: Event) {
        let now = self.now(i);
        let Some(engine) = &mut self.nodes[i].engine else {
            return;
        };
        let effects = engine.handle(now, event);
        for effect in effects {
            self.effects += 1;
            if let Some(mut crash) = self.crash.take() {
                let dies = crash(i, &effect);
                self.crash = Some(crash);
                if dies {
                    self.kill(i);
                    return;
                }
            }
            self.carry_out(i, effect);
        }
    }

    fn carry_out(&mut self, i: usize, effect: Effect) {
        match effect {
            Effect::Persist(record) => self.nodes[i].journal.commit(record),
            Effect::Lookup { ticket, tx_id } => {
                let entry = self.nodes[i].journal.entries.get(&tx_id).cloned();
                let entry = entry.unwrap_or_default();
                self.post(self.lookup_ms, i, Event::Found { ticket, entry });
            }
            Effect::Sign {
                ticket,
                key,
                domain,
                statement,
            } => {
                let signed = self.cluster.sign(i, key, domain, statement.clone());
                let result = if self.failing_signatures > 0 {
                    self.failing_signatures -= 1;
                    Err("away".into())
                } else {
                    self.signed.push((i, domain, statement));
                    Ok(signed.signature)
                };
                self.post(self.sign_ms, i, Event::Signed { ticket, result });
            }
            Effect::Propose { ticket, op, now_ms } => {
                let result = if self.board_away {
                    Err(quorate_engine::ProposeError::Unavailable("away".into()))
                } else {
                    match self.board.apply(&op, now_ms, &FakeVerifier) {
                        Ok(Outcome::Applied(entry)) => {
                            let revision = entry.revision;
                            self.log.push(entry);
                            self.publish();
                            Ok(Proposed::Applied(revision))
                        }
                        Ok(Outcome::Unchanged) => Ok(Proposed::Unchanged(self.board.revision())),
                        Err(refusal) => {
                            self.refusals.push(refusal.to_string());
                            Err(refusal.into())
                        }
                    }
                };
                self.post(self.propose_ms, i, Event::Proposed { ticket, result });
            }
            Effect::ReadHead { ticket } => {
                let result = Ok(self.board.revision());
                self.post(self.head_ms, i, Event::Head { ticket, result });
                self.publish();
            }
            Effect::Chain { ticket, ask } => {
                let delay = match ask {
                    ChainAsk::Look { .. } => self.look_ms[i],
                    _ => HOP_MS,
                };
                let answer = self.chain(ask);
                self.post(delay, i, Event::Chain { ticket, answer });
            }
            Effect::Audit { ticket, ask } => {
                let answer = self.audit(ask);
                self.post(HOP_MS, i, Event::Audit { ticket, answer });
            }
            Effect::Send { stream, frame } => self.deliver(i, stream, frame),
            Effect::Close { stream, goodbye } => {
                let body = wire::frame::Body::Goodbye(goodbye);
                let frame = Frame { body: Some(body) };
                self.deliver(i, stream, frame);
                if let Some((_, other, twin)) = self.links.remove(&stream.0) {
                    self.links.remove(&twin);
                    let stream = StreamId(twin);
                    self.post(HOP_MS + 1, other, Event::StreamDown { stream });
                }
            }
            Effect::Admit { node_id, welcome } => {
                if welcome {
                    self.nodes[i].refused.remove(&node_id);
                } else {
                    self.nodes[i].refused.insert(node_id);
                }
            }
            Effect::Reach { node_id, address } => {
                self.nodes[i].reaches.insert(node_id, address);
            }
            Effect::Answer { request, result } => {
                let again = self.answers.insert(request.0, *result);
                assert!(again.is_none(), "two answers to one request");
            }
            Effect::Operated { request, result } => {
                let again = self.operated.insert(request.0, result);
                assert!(again.is_none(), "two answers to one request");
            }
            Effect::Message { from, data } => self.messages.push((i, from, data)),
            Effect::Believed { .. } => {}
            Effect::Alert(alert) => self.nodes[i].alerts.push(alert),
        }
    }

    fn deliver(&mut self, i: usize, stream: StreamId, frame: Frame) {
        if let Some(frames) = self.tapped.get_mut(&stream.0) {
            frames.push(frame);
            return;
        }
        let Some((_, other, twin)) = self.links.get(&stream.0).copied() else {
            return;
        };
        if !self.cut.contains(&(i.min(other), i.max(other))) {
            let stream = StreamId(twin);
            self.post(HOP_MS, other, Event::Frame { stream, frame });
        }
    }

    fn chain(&mut self, ask: ChainAsk) -> ChainAnswer {
        match ask {
            ChainAsk::Look { nonce, .. } => {
                let head = self.chain.head;
                let seen = match self.chain.included.get(&nonce) {
                    None => Sighting::Nothing,
                    Some(found) => Sighting::Included {
                        tx_hash: found.tx_hash.clone(),
                        payload: found.payload.clone(),
                        succeeded: found.succeeded,
                        block_number: found.block,
                        block_hash: found.block.to_be_bytes().to_vec(),
                        depth: head - found.block + 1,
                    },
                };
                ChainAnswer::Seen(seen)
            }
            ChainAsk::Prepare {
                reservation,
                attempt,
            } => {
                let mut raw = reservation.nonce.to_be_bytes().to_vec();
                raw.push(attempt as u8);
                raw.extend(&reservation.payload);
                ChainAnswer::Prepared(Prepared {
                    tx_hash: blake3::hash(&raw).as_bytes().to_vec(),
                    raw,
                })
            }
            ChainAsk::Send { raw } => {
                if self.chain.refuse {
                    return ChainAnswer::Unavailable("away".into());
                }
                let nonce = u64::from_be_bytes(raw[..8].try_into().unwrap());
                if self.chain.included.contains_key(&nonce) {
                    return ChainAnswer::Sent(SendOutcome::NonceTooLow);
                }
                if raw[8] < self.chain.least_attempt {
                    return ChainAnswer::Sent(SendOutcome::Underpriced);
                }
                self.chain.head += 1;
                let sent = OnChain {
                    payload: raw[9..].to_vec(),
                    tx_hash: blake3::hash(&raw).as_bytes().to_vec(),
                    block: self.chain.head,
                    succeeded: true,
                };
                self.chain.included.insert(nonce, sent);
                if self.chain.lose_answers > 0 {
                    self.chain.lose_answers -= 1;
                    return ChainAnswer::Sent(SendOutcome::Unknown("lost".into()));
                }
                ChainAnswer::Sent(SendOutcome::Accepted)
            }
        }
    }

    fn audit(&mut self, ask: AuditAsk) -> AuditAnswer {
        match ask {
            AuditAsk::Pending {
                tx_id, reservation, ..
            } => {
                let row = self.rows.entry(tx_id).or_insert(reservation.clone());
                if *row == reservation {
                    AuditAnswer::Done
                } else {
                    AuditAnswer::Conflict("another reservation".into())
                }
            }
            AuditAsk::Variant {
                tx_id,
                attempt,
                prepared,
                ..
            } => {
                let variants = self.variants.entry(tx_id).or_default();
                if !variants.contains(&(attempt, prepared.clone())) {
                    variants.push((attempt, prepared));
                }
                AuditAnswer::Done
            }
            AuditAsk::Variants { tx_id } => {
                AuditAnswer::Variants(self.variants.get(&tx_id).cloned().unwrap_or_default())
            }
            AuditAsk::Attempted { .. } => AuditAnswer::Done,
        }
    }
}
