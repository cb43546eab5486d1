//! The world of one schedule: machines with real engines, a store with a pure board, a
//! model chain, clients, liars, and a queue of what is due. Time passes only here.
//!
//! `faults` makes things go wrong, `net` carries frames, `clients` ask, `liars` lie;
//! `place`, `store`, `chain` and `audit` are what there is.

pub mod audit;
pub mod chain;
mod clients;
mod faults;
mod liars;
mod net;
mod place;
pub mod store;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use fastrand::Rng;
use quorate_consensus::wire::{BoardOp, RulesChain, RulesLink};
use quorate_consensus::{NodeId, Rules};
use quorate_engine::{
    ChainAnswer, ChainAsk, Config, Effect, Engine, Event, Now, ProposeError, Proposed, SendOutcome,
    Ticket,
};
use quorate_testkit::{Cluster, FakeVerifier, NOW};

use crate::hunt::panics::{self, PANIC};
use crate::invariants::{Happening, Invariant};
use crate::liars::Beside;
use crate::plan::{Act, Disk, Plan};
use crate::story::Story;

use audit::Audit;
use chain::{Chain, Change};
pub use clients::Client;
use faults::Faults;
use net::Net;
pub use place::{Journal, Place};
use store::Store;

/// A lost reply is noticed after so long.
const REPLY_MS: u64 = 2_000;

/// A world in which nothing need be decided is watched for so long after the faults.
const UNSURE_MS: u64 = 30_000;

/// How often a world that is calm is asked whether it rests.
const REST_MS: u64 = 250;

/// What is due.
#[derive(Debug)]
enum Due {
    /// An event for the engine of a place, in one life of its process.
    Event(usize, u64, Box<Event>),
    /// An engine's timer may ring.
    Tick(usize, u64),
    /// A machine reads the store's log on.
    Feed(usize, u64),
    /// An operation reaches the store.
    Propose {
        place: usize,
        life: u64,
        ticket: Option<Ticket>,
        op: Box<BoardOp>,
        now_ms: u64,
    },
    /// The plan's next step.
    Step(usize),
    /// A client asks again.
    Client(usize),
    /// Two machines try to connect.
    Dial(usize, usize),
    /// A stream is found to be broken.
    Hangup(u64),
    /// A queue may have room again.
    Drain(usize),
    /// A machine's process starts.
    Start(usize),
    /// A liar is woken.
    Wake(usize, u64),
    /// A liar's frame-level business.
    Mail(net::Mail),
    /// A clock is put right.
    ClockRight(usize),
    /// The faults are over.
    Calm,
    /// Does the world rest?
    Rest,
}

struct Queued {
    at: u64,
    number: u64,
    due: Due,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    // The earliest is the greatest, for the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What broke, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The invariant's name.
    pub invariant: &'static str,
    /// What it says.
    pub detail: String,
    /// Milliseconds from the start.
    pub at_ms: u64,
}

/// What a schedule came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What broke, if anything did.
    pub failure: Option<Failure>,
    /// Ballots that the store's board saw, finished or not.
    pub ballots: u64,
    /// Events that engines were given.
    pub events: u64,
    /// Milliseconds that passed in the world.
    pub took_ms: u64,
    /// A digest of all that happened: equal plans have equal ones.
    pub fingerprint: u64,
}

/// Everything.
pub struct World {
    plan: Arc<Plan>,
    cluster: Arc<Cluster>,
    pub(super) rules_chain: RulesChain,
    now: u64,
    pub(super) places: Vec<Place>,
    pub(super) store: Store,
    pub(super) chain: Chain,
    pub(super) audit: Audit,
    net: Net,
    faults: Faults,
    pub(super) clients: Vec<Client>,
    /// Nonces of submissions that were given up.
    cancellations: Vec<u64>,
    requests: u64,
    request_of: BTreeMap<u64, usize>,
    queue: BinaryHeap<Queued>,
    number: u64,
    pub(super) rng: Rng,
    invariants: Vec<Box<dyn Invariant>>,
    failure: Option<Failure>,
    events: u64,
    fingerprint: u64,
    calm: bool,
    pub(super) story: Option<Story>,
}

impl World {
    /// The world of a plan, watched by these invariants.
    pub fn new(
        plan: Arc<Plan>,
        cluster: Arc<Cluster>,
        invariants: Vec<Box<dyn Invariant>>,
        story: Option<Story>,
    ) -> Self {
        let links = vec![RulesLink {
            document: cluster.rules().document().to_vec(),
            justification: None,
        }];
        let target = cluster.rules().chain();
        let chain = Chain::new(target.first_nonce, target.confirmations);
        Self {
            now: 0,
            places: Vec::new(),
            store: Store::new(cluster.rules().clone()),
            chain,
            audit: Audit::default(),
            net: Net::default(),
            faults: Faults::new(cluster.n()),
            clients: Vec::new(),
            cancellations: Vec::new(),
            requests: 0,
            request_of: BTreeMap::new(),
            queue: BinaryHeap::new(),
            number: 0,
            rng: Rng::with_seed(plan.seed),
            invariants,
            failure: None,
            events: 0,
            fingerprint: plan.seed,
            calm: false,
            story,
            rules_chain: RulesChain { links },
            plan,
            cluster,
        }
    }

    /// Machines stand, processes start, the plan's steps are due.
    fn settle_in(&mut self) {
        for member in 0..self.cluster.n() {
            self.install(member, false);
        }
        // The second machine of each twin stands behind all first ones.
        let twins = self.plan.liars.iter();
        let twins = twins.filter(|(_, kind)| kind.beside() == Beside::Twins);
        let twins: Vec<usize> = twins.map(|(member, _)| *member).collect();
        for member in twins {
            self.install(member, true);
        }
        let plan = self.plan.clone();
        for (index, step) in plan.steps.iter().enumerate() {
            self.schedule(step.at_ms, Due::Step(index));
            if let Act::Revert { tx } = step.act {
                self.faults.reverts.insert(tx.id());
            }
        }
        for place in 0..self.places.len() {
            self.start(place);
        }
        for a in 0..self.places.len() {
            for b in a + 1..self.places.len() {
                self.schedule(1, Due::Dial(a, b));
            }
        }
        self.schedule(plan.calm_ms, Due::Calm);
    }

    /// Runs to the end. A panic is a failure like others, and the story goes so far.
    pub fn run(mut self) -> (Outcome, Option<Story>) {
        let aloud = self.story.is_some();
        if let Err(said) = panics::caught(aloud, || self.live()) {
            self.fail(PANIC, said);
        }
        let board = &self.store.views[0].board;
        let outcome = Outcome {
            ballots: board.ballots().count() as u64,
            events: self.events,
            took_ms: self.now,
            fingerprint: self.fingerprint,
            failure: self.failure,
        };
        (outcome, self.story)
    }

    fn live(&mut self) {
        self.settle_in();
        let shape = &self.plan.shape;
        // The longest that anything lasts by itself, and as much again: a vote's
        // lifetime, quarantine, lease patience, the pauses between retries.
        let lifetime = shape.vote_timeout_ms + 4 * shape.clock_skew_ms;
        let end = self.plan.calm_ms + 4 * lifetime + 300_000;
        while self.failure.is_none() {
            let Some(next) = self.queue.pop() else { break };
            if next.at > end {
                break;
            }
            self.now = self.now.max(next.at);
            self.fingerprint = mix(self.fingerprint ^ next.number, next.at);
            if let (true, Due::Rest) = (self.calm, &next.due) {
                self.cancel();
                if self.rests() {
                    break;
                }
                self.schedule(REST_MS, Due::Rest);
                continue;
            }
            self.happen(next.due);
        }
        if std::env::var_os("SIMDBG").is_some() {
            self.dbg();
        }
        if self.failure.is_none() {
            self.end();
        }
    }

    fn dbg(&self) {
        println!(
            "chain next {} {:?}",
            self.chain.next_nonce(),
            self.chain
                .mined()
                .map(|m| (m.nonce, m.block, m.foreign, m.payload.len()))
                .collect::<Vec<_>>()
        );
        for e in &self.store.views[0].log {
            if let Some(quorate_consensus::wire::board_op::Op::Reserve(r)) =
                &e.op.as_ref().unwrap().op
            {
                println!(
                    "reserve {} {} {:?}",
                    e.time_ms - NOW,
                    r.tx_id,
                    r.reservation.as_ref().unwrap().nonce
                );
            }
            if let Some(quorate_consensus::wire::board_op::Op::Conclude(r)) =
                &e.op.as_ref().unwrap().op
            {
                println!("conclude {} {} {:?}", e.time_ms - NOW, r.tx_id, e.events);
            }
        }
        for c in &self.clients {
            if !c.is_done() {
                println!("client waits {:?} {:?} {:?}", c.node, c.tx, c.choice);
            }
        }
        for b in self.store.views[0].board.ballots() {
            println!(
                "ballot {} {:?} votes {} cert {} aborts {} called {} since {} {}",
                b.tx_id,
                b.state,
                b.votes.len(),
                b.certificate.is_some(),
                b.aborts.len(),
                b.roll_called,
                b.since_ms - NOW,
                b.reason
            );
        }
        for (i, p) in self.places.iter().enumerate() {
            if let Some(e) = &p.engine {
                println!(
                    "place {i} rev {} of {} in service {} signing {:?} connected {:?} alerts {:?}",
                    e.board().revision(),
                    self.store.views[p.view].log.len(),
                    e.is_in_service(),
                    e.signing_stopped(self.now_of(p)),
                    e.connected().map(|n| n.to_string()).collect::<Vec<_>>(),
                    p.alerts
                );
            }
        }
    }

    fn end(&mut self) {
        let mut invariants = std::mem::take(&mut self.invariants);
        for invariant in &mut invariants {
            if let Err(detail) = invariant.ends(self) {
                self.fail(invariant.name(), detail);
            }
        }
        self.invariants = invariants;
    }

    /// All that can end has ended.
    fn rests(&self) -> bool {
        if !self.is_live() && self.now >= self.plan.calm_ms + UNSURE_MS {
            return true;
        }
        let asking = self.clients.iter().any(|client| {
            !client.is_done() && !self.is_liar_member(client.node) && self.may_answer(client)
        });
        if asking {
            return false;
        }
        let alive = self.is_live();
        alive
            && self.store.views.iter().all(|view| {
                view.board.ballots().all(|ballot| {
                    let called = ballot.roll_called || ballot.deadline_ms().is_none();
                    quorate_consensus::ballot::is_final(ballot.state)
                        && called
                        && ballot.is_proven()
                })
            })
    }

    /// What can be decided must be decided once the faults are over: the store is
    /// honest, no more members lie than decisions bear, t others are not banned and
    /// may sign, and one of those that hold the chain key is among them.
    pub fn is_live(&self) -> bool {
        let view = &self.store.views[0];
        let (n, t) = (self.cluster.n(), self.rules().threshold());
        if self.store.views.len() > 1 || view.forged || self.plan.liars.len() > (n - t).min(t - 1) {
            return false;
        }
        let signs = |member: &usize| {
            let place = &self.places[*member];
            let stopped = place.engine.as_ref().is_some_and(|engine| {
                let why = engine.signing_stopped(self.now_of(place));
                why.is_some_and(|why| !why.starts_with("the journal"))
            });
            !stopped && !view.board.is_banned(&place.node_id)
        };
        let able: Vec<usize> = self.honest().filter(signs).collect();
        able.len() >= t && able.iter().any(|i| *i < self.plan.shape.submitters)
    }

    fn may_answer(&self, client: &Client) -> bool {
        let stopped = |place: &Place| {
            place.engine.as_ref().is_none_or(|engine| {
                let now = self.now_of(place);
                let quarantined = engine.signing_stopped(now);
                quarantined.is_some_and(|why| !why.starts_with("the journal"))
            })
        };
        let mut machines = self.places.iter().filter(|p| p.member == client.node);
        machines.any(|place| !stopped(place))
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Event(place, life, event) => {
                if self.places[place].life == life {
                    self.feed(place, *event);
                }
            }
            Due::Tick(place, at) => {
                if self.places[place].tick_at == Some(at) {
                    self.places[place].tick_at = None;
                    self.feed(place, Event::Tick);
                }
            }
            Due::Feed(place, life) => self.read_log(place, life),
            Due::Propose {
                place,
                life,
                ticket,
                op,
                now_ms,
            } => self.proposed(place, life, ticket, &op, now_ms),
            Due::Step(index) => {
                let plan = self.plan.clone();
                self.act(&plan.steps[index].act);
            }
            Due::Client(index) => self.ask_again(index),
            Due::Dial(a, b) => self.dial(a, b),
            Due::Hangup(stream) => self.hang_up(stream),
            Due::Drain(place) => self.drain(place),
            Due::Start(place) => self.start(place),
            Due::Wake(place, at) => self.wake_liar(place, at),
            Due::Mail(mail) => self.deliver_to_liar(mail),
            Due::ClockRight(place) => {
                self.places[place].clock_jump_ms = 0;
                self.retick(place);
            }
            Due::Calm => self.calm_down(),
            Due::Rest => {}
        }
    }

    // ---- what invariants may ask

    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The members and their keys.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        self.cluster.rules()
    }

    /// Milliseconds from the start.
    pub fn now_ms(&self) -> u64 {
        self.now
    }

    /// The true time: milliseconds since the Unix epoch.
    pub fn true_wall(&self) -> u64 {
        NOW + self.now
    }

    /// The wall clock of a machine.
    pub fn wall(&self, place: usize) -> u64 {
        self.now_of(&self.places[place]).wall_ms
    }

    fn now_of(&self, place: &Place) -> Now {
        let off_ms = place.clock_off_ms + place.clock_jump_ms;
        Now {
            wall_ms: self.true_wall().saturating_add_signed(off_ms),
            mono_ms: self.now,
        }
    }

    /// The machines; member `i`'s first is at index `i`.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The id of a machine's member.
    pub fn node_id(&self, place: usize) -> &NodeId {
        &self.places[place].node_id
    }

    /// A machine's member lies.
    pub fn is_liar(&self, place: usize) -> bool {
        self.is_liar_member(self.places[place].member)
    }

    /// A member lies.
    pub fn is_liar_member(&self, member: usize) -> bool {
        self.plan.liars.contains_key(&member)
    }

    /// A member, by id, lies.
    pub fn is_liar_id(&self, node_id: &NodeId) -> bool {
        let member = self.cluster.index(node_id);
        member.is_some_and(|member| self.is_liar_member(member))
    }

    /// The members that do not lie.
    pub fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.cluster.n()).filter(|member| !self.is_liar_member(*member))
    }

    /// The store's boards.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The audit store.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The clients so far.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// The faults are over.
    pub fn is_calm(&self) -> bool {
        self.calm
    }

    // ---- time and events

    fn schedule(&mut self, in_ms: u64, due: Due) {
        self.number += 1;
        self.queue.push(Queued {
            at: self.now + in_ms,
            number: self.number,
            due,
        });
    }

    fn post(&mut self, in_ms: u64, place: usize, event: Event) {
        let life = self.places[place].life;
        self.schedule(in_ms, Due::Event(place, life, Box::new(event)));
    }

    /// A number from a span, both ends included.
    fn span(&mut self, (least, most): (u64, u64)) -> u64 {
        if least >= most {
            return least;
        }
        self.rng.u64(least..=most)
    }

    /// True so often in a thousand.
    fn chance(&mut self, share: u32) -> bool {
        share > 0 && !self.calm && self.rng.u32(0..1000) < share
    }

    /// By how much all that a machine hears and says takes longer. What a late liar
    /// says is late once more: see `Place::lag_ms`.
    fn lag(&self, place: usize) -> u64 {
        self.faults.slow(self.places[place].member, self.now)
    }

    pub(super) fn judge(&mut self, what: &Happening<'_>) {
        let mut invariants = std::mem::take(&mut self.invariants);
        for invariant in &mut invariants {
            if let Err(detail) = invariant.sees(self, what) {
                self.fail(invariant.name(), detail);
            }
        }
        self.invariants = invariants;
        if let Some(mut story) = self.story.take() {
            story.tell(self, what);
            self.story = Some(story);
        }
    }

    fn fail(&mut self, invariant: &'static str, detail: String) {
        if self.failure.is_none() {
            let at_ms = self.now;
            self.failure = Some(Failure {
                invariant,
                detail,
                at_ms,
            });
        }
    }

    fn feed(&mut self, index: usize, event: Event) {
        let Some(mut engine) = self.places[index].engine.take() else {
            return;
        };
        self.events += 1;
        self.judge(&Happening::Event {
            place: index,
            event: &event,
        });
        let now = self.now_of(&self.places[index]);
        let effects = engine.handle(now, event);
        self.places[index].engine = Some(engine);
        self.fingerprint = mix(self.fingerprint, effects.len() as u64);
        for effect in effects {
            if let Some(doom) = self.places[index].doom {
                if doom.effects == 0 {
                    self.die(index, doom.disk, doom.down_ms);
                    return;
                }
                self.places[index].doom = Some(place::Doom {
                    effects: doom.effects - 1,
                    ..doom
                });
            }
            if !matches!(effect, Effect::Persist(_)) {
                self.sync(index);
            }
            self.judge(&Happening::Effect {
                place: index,
                effect: &effect,
            });
            if self.failure.is_some() {
                return;
            }
            self.carry_out(index, effect);
        }
        // A process that is doomed dies before the disk has caught up.
        if self.places[index].doom.is_none_or(|doom| doom.effects > 0) {
            self.sync(index);
        }
        self.retick(index);
    }

    fn sync(&mut self, place: usize) {
        if let Err(detail) = self.places[place].sync() {
            self.fail("stage", detail);
        }
    }

    fn retick(&mut self, index: usize) {
        let place = &mut self.places[index];
        let Some(at) = place.engine.as_ref().and_then(Engine::next_wake) else {
            return;
        };
        let at = at.max(self.now);
        if place.tick_at.is_none_or(|due| due > at) {
            place.tick_at = Some(at);
            self.number += 1;
            self.queue.push(Queued {
                at,
                number: self.number,
                due: Due::Tick(index, at),
            });
        }
    }

    // ---- processes

    fn install(&mut self, member: usize, second: bool) {
        let kind = self.plan.liars.get(&member).copied();
        let beside = kind.map_or(Beside::Engine, |kind| kind.beside());
        let most = i64::try_from(self.plan.noise.clock_off_ms).unwrap_or(0);
        let clock_off_ms = match most {
            0 => 0,
            most => self.rng.i64(-most..=most),
        };
        self.places.push(Place {
            member,
            node_id: self.cluster.node_id(member),
            engine: None,
            runs_engine: beside != Beside::Nothing,
            liar: kind.filter(|_| !second).map(|kind| kind.make()),
            life: 0,
            journal: Journal::default(),
            unsynced: Vec::new(),
            backup: Journal::default(),
            doom: None,
            clock_off_ms,
            clock_jump_ms: 0,
            tick_at: None,
            feed_due: false,
            wake_at: None,
            view: 0,
            alerts: Vec::new(),
            lag_ms: match beside {
                Beside::LateEngine(lag_ms) => lag_ms,
                _ => 0,
            },
            unwelcome: Default::default(),
        });
    }

    fn start(&mut self, index: usize) {
        let place = &mut self.places[index];
        if place.engine.is_some() {
            return;
        }
        if !place.runs_engine {
            self.start_liar(index);
            return;
        }
        // It takes every lease, and does nothing with it.
        let kind = self.plan.liars.get(&place.member);
        let hog = kind == Some(&crate::liars::LiarKind::LeaseHog);
        let config = Config {
            node_id: place.node_id.clone(),
            rules_chain: self.rules_chain.clone(),
            rules: self.cluster.rules().clone(),
            signs_votes: true,
            submits: place.member < self.plan.shape.submitters && !hog,
        };
        place.life += 1;
        place.unsynced.clear();
        let durable = place.journal.durable;
        place.engine = Some(Engine::restore(config, durable, Arc::new(FakeVerifier)));
        self.judge(&Happening::Started { place: index });
        self.feed(index, Event::Tick);
        if self.places[index].liar.is_some() {
            self.start_liar(index);
        }
        for other in 0..self.places.len() {
            if other != index {
                let (a, b) = (index.min(other), index.max(other));
                self.schedule(2, Due::Dial(a, b));
            }
        }
    }

    pub(super) fn die(&mut self, index: usize, disk: Disk, down_ms: u64) {
        if self.places[index].engine.is_none() {
            return;
        }
        self.judge(&Happening::Died { place: index, disk });
        if let Err(detail) = self.places[index].lose(disk) {
            self.fail("stage", detail);
        }
        self.lose_streams(index);
        self.schedule(down_ms.max(1), Due::Start(index));
    }

    // ---- effects

    fn carry_out(&mut self, place: usize, effect: Effect) {
        let lag = self.lag(place);
        match effect {
            Effect::Persist(record) => self.places[place].unsynced.push(record),
            Effect::Lookup { ticket, tx_id } => {
                let entry = self.places[place].journal.entries.get(&tx_id).cloned();
                let entry = entry.unwrap_or_default();
                let wait = self.span(self.plan.noise.answer_ms);
                self.post(wait, place, Event::Found { ticket, entry });
            }
            Effect::Sign {
                ticket,
                key,
                domain,
                statement,
            } => {
                let member = self.places[place].member;
                let result = if self.faults.keys_away(member, self.now) {
                    Err("the key is away".into())
                } else {
                    Ok(self.cluster.sign(member, key, domain, statement).signature)
                };
                let wait = self.span(self.plan.noise.answer_ms) + lag;
                self.post(wait, place, Event::Signed { ticket, result });
            }
            Effect::Propose { ticket, op, now_ms } => {
                let late = self.places[place].lag_ms;
                let wait = self.span(self.plan.noise.store_ms) + lag + late;
                let life = self.places[place].life;
                self.schedule(
                    wait,
                    Due::Propose {
                        place,
                        life,
                        ticket: Some(ticket),
                        op: Box::new(op),
                        now_ms,
                    },
                );
            }
            Effect::ReadHead { ticket } => {
                let wait = 2 * self.span(self.plan.noise.store_ms) + lag;
                let away = self.faults.store_away(self.places[place].member, self.now);
                let view = self.places[place].view;
                let result = match away {
                    true => Err("the store is away".into()),
                    false => Ok(self.store.views[view].log.len() as u64),
                };
                self.post(wait, place, Event::Head { ticket, result });
                self.news(place);
            }
            Effect::Chain { ticket, ask } => {
                let answer = self.ask_chain(place, ask);
                let wait = match answer {
                    ChainAnswer::Sent(SendOutcome::Unknown(_)) => REPLY_MS,
                    _ => self.span(self.plan.noise.answer_ms),
                };
                self.post(wait + lag, place, Event::Chain { ticket, answer });
            }
            Effect::Audit { ticket, ask } => {
                let answer = match self.faults.audit_away(self.now) {
                    true => quorate_engine::AuditAnswer::Unavailable("away".into()),
                    false => {
                        self.audit.project(&self.store.views[0].log);
                        self.audit.answer(ask)
                    }
                };
                let wait = self.span(self.plan.noise.answer_ms) + lag;
                self.post(wait, place, Event::Audit { ticket, answer });
            }
            Effect::Send { stream, frame } => self.send(place, stream, frame),
            Effect::Close { stream, goodbye } => self.close(place, stream, goodbye),
            Effect::Admit { node_id, welcome } => self.admit(place, node_id, welcome),
            Effect::Answer { request, result } => self.answered(request, *result),
            Effect::Believed { .. } => {}
            Effect::Alert(alert) => self.places[place].alerts.push(alert),
        }
    }

    // ---- the store

    /// A machine will read the log on.
    fn news(&mut self, place: usize) {
        if self.places[place].feed_due || self.places[place].engine.is_none() {
            return;
        }
        self.places[place].feed_due = true;
        let late = self.faults.watch_late(self.places[place].member, self.now);
        let wait = self.span(self.plan.noise.watch_ms) + self.lag(place) + late;
        let life = self.places[place].life;
        self.schedule(wait, Due::Feed(place, life));
    }

    fn read_log(&mut self, index: usize, life: u64) {
        let place = &mut self.places[index];
        if place.life != life {
            return;
        }
        place.feed_due = false;
        let Some(engine) = &place.engine else { return };
        if self.faults.store_away(place.member, self.now) {
            // It reads again when the store is back.
            place.feed_due = true;
            self.schedule(500, Due::Feed(index, life));
            return;
        }
        let log = &self.store.views[place.view].log;
        let mut from = usize::try_from(engine.revision()).unwrap_or(usize::MAX);
        if self.faults.re_reads.remove(&index) {
            // What it has believed already it gets once more.
            from = 0;
        }
        let entries = log.get(from..).unwrap_or_default().to_vec();
        if !entries.is_empty() {
            self.feed(index, Event::Entries { entries });
        }
    }

    fn proposed(
        &mut self,
        place: usize,
        life: u64,
        ticket: Option<Ticket>,
        op: &BoardOp,
        now_ms: u64,
    ) {
        let member = self.places[place].member;
        let away =
            self.faults.store_away(member, self.now) || self.chance(self.plan.noise.store_refuses);
        let result = match away {
            true => Err(ProposeError::Unavailable("the store is away".into())),
            false => {
                let view = self.places[place].view;
                self.apply(view, op, now_ms)
            }
        };
        let lost = !away
            && (self.faults.replies_lost(self.now) || self.chance(self.plan.noise.reply_lost));
        let Some(ticket) = ticket.filter(|_| self.places[place].life == life) else {
            return;
        };
        let (wait, result) = match lost {
            true => (
                REPLY_MS,
                Err(ProposeError::Unavailable("no reply came".into())),
            ),
            false => (self.span(self.plan.noise.store_ms), result),
        };
        let wait = wait + self.lag(place);
        self.post(wait, place, Event::Proposed { ticket, result });
    }

    /// The store carries an operation out, and tells the news.
    pub(super) fn apply(
        &mut self,
        view: usize,
        op: &BoardOp,
        now_ms: u64,
    ) -> Result<Proposed, ProposeError> {
        // A store whose clock is right takes nothing from further in the future than
        // clocks may differ.
        let latest = self.true_wall() + self.rules().clock_skew_ms();
        match self.store.apply(view, op, now_ms.min(latest)) {
            Ok(Some(revision)) => {
                let entry = self.store.views[view].log.last().cloned();
                if let Some(entry) = entry {
                    self.fingerprint = mix(self.fingerprint, entry.time_ms);
                    self.judge(&Happening::Entry {
                        view,
                        entry: &entry,
                    });
                    if !self.faults.audit_away(self.now) && view == 0 {
                        self.audit.project(&self.store.views[0].log);
                    }
                    for place in 0..self.places.len() {
                        if self.places[place].view == view {
                            self.news(place);
                            self.cue_entry(place, &entry);
                        }
                    }
                }
                Ok(Proposed::Applied(revision))
            }
            Ok(None) => {
                let revision = self.store.views[view].log.len() as u64;
                Ok(Proposed::Unchanged(revision))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    // ---- the chain

    pub(super) fn advance_chain(&mut self) {
        for change in self.chain.advance(self.now) {
            self.tell_change(&change);
        }
    }

    fn tell_change(&mut self, change: &Change) {
        match change {
            Change::Mined(mined) => self.judge(&Happening::Mined(mined)),
            Change::Undone(mined) => self.judge(&Happening::Undone(mined)),
        }
    }

    fn ask_chain(&mut self, place: usize, ask: ChainAsk) -> ChainAnswer {
        self.advance_chain();
        let member = self.places[place].member;
        let sends = matches!(ask, ChainAsk::Send { .. });
        let prepares = matches!(ask, ChainAsk::Prepare { .. });
        if !prepares && self.faults.chain_away(member, self.now) {
            return ChainAnswer::Unavailable("the endpoint is away".into());
        }
        if let ChainAsk::Prepare { reservation, .. } = &ask {
            self.mark_reverts(&reservation.payload);
        }
        let answer = self.chain.answer(ask);
        if sends && self.chance(self.plan.noise.chain_lost) {
            return ChainAnswer::Sent(SendOutcome::Unknown("no answer came".into()));
        }
        answer
    }
}

/// Stirs a number into a digest.
fn mix(digest: u64, number: u64) -> u64 {
    let stirred = (digest ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    stirred ^ (stirred >> 29)
}
