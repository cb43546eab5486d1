//! The world of one schedule: machines with real engines, a store with a pure board, a
//! model chain, clients, liars, and a queue of what is due. Time passes only here.
//!
//! `process` starts and kills, `effects` carries out what engines want, `faults` makes
//! things go wrong, `net` carries frames, `clients` ask, `liars` lie; `place`, `store`,
//! `chain` and `audit` are what there is, and `look` is what may be asked about it.
//! Whatever is asked of the store goes through `board`.

pub mod audit;
mod board;
pub mod chain;
mod clients;
mod effects;
mod faults;
mod keys;
mod liars;
mod log;
mod look;
mod net;
mod place;
mod process;
pub mod store;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use fastrand::Rng;
use quorate_consensus::wire::{BoardOp, RulesChain, RulesLink};
use quorate_engine::{Effect, Engine, Event, Ticket};
use quorate_testkit::Cluster;

use crate::hunt::panics::{self, PANIC};
use crate::invariants::{Happening, Invariant, Sort};
use crate::liars::Beside;
use crate::plan::{Act, Plan};
use crate::story::Story;

use audit::Audit;
use chain::Chain;
pub use clients::Client;
use faults::Faults;
use net::Net;
pub use place::{Journal, Place};
use store::Store;

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
    /// Something is due between a machine and the keys.
    Keys {
        place: usize,
        life: u64,
        turn: Box<keys::Turn>,
    },
    /// The plan's next step.
    Step(usize),
    /// A client asks again.
    Client(usize, u64),
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
    Mail(Box<net::Mail>),
    /// A clock is put right.
    ClockRight(usize),
    /// The faults are over.
    Calm,
    /// Does the world rest?
    Rest,
}

/// Small, for a heap moves what is in it about.
struct Queued {
    at: u64,
    number: u64,
    /// Where what is due waits.
    place: usize,
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
    /// What is due, each at the place that the queue names; none at those that are free.
    waiting: Vec<Option<Due>>,
    free: Vec<usize>,
    number: u64,
    pub(super) rng: Rng,
    invariants: Vec<Box<dyn Invariant>>,
    /// Which of them watch each sort of happening, in their order.
    watching: Vec<Vec<usize>>,
    failure: Option<Failure>,
    events: u64,
    fingerprint: u64,
    calm: bool,
    /// Members that lost what they had written. What of it never reached the board
    /// nobody has, and nobody can remind them of; where the store has lost it, too,
    /// nobody can remind them of anything.
    forgetful: BTreeSet<usize>,
    /// A reader that read less than there was has told its engine so: from here on there
    /// are two logs, and nothing can be said.
    split: bool,
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
        let watch = |sort: &Sort| {
            let watches = |index: &usize| invariants[*index].watches().contains(sort);
            (0..invariants.len()).filter(watches).collect()
        };
        let watching = Sort::ALL.iter().map(watch).collect();
        let target = cluster.rules().chain();
        let chain = Chain::new(target.first_nonce, target.confirmations);
        Self {
            now: 0,
            places: Vec::new(),
            store: Store::new(plan.board, cluster.rules().clone()),
            chain,
            audit: Audit::default(),
            net: Net::default(),
            faults: Faults::new(cluster.n()),
            clients: Vec::new(),
            cancellations: Vec::new(),
            requests: 0,
            request_of: BTreeMap::new(),
            queue: BinaryHeap::new(),
            waiting: Vec::new(),
            free: Vec::new(),
            number: 0,
            rng: Rng::with_seed(plan.seed),
            invariants,
            watching,
            failure: None,
            forgetful: BTreeSet::new(),
            events: 0,
            fingerprint: plan.seed,
            calm: false,
            split: false,
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
        let board = self.store.views[0].board();
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
        while self.failure.is_none() && !self.split {
            let Some(next) = self.queue.pop() else { break };
            if next.at > end {
                break;
            }
            self.now = self.now.max(next.at);
            self.fingerprint = mix(self.fingerprint ^ next.number, next.at);
            self.free.push(next.place);
            let Some(due) = self.waiting[next.place].take() else {
                continue;
            };
            if let (true, Due::Rest) = (self.calm, &due) {
                self.cancel();
                if self.rests() {
                    break;
                }
                self.schedule(REST_MS, Due::Rest);
                continue;
            }
            self.happen(due);
        }
        if self.failure.is_none() && !self.split {
            self.end();
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
        let alive = self.is_live() && self.keys_rest();
        alive
            && self.store.views.iter().all(|view| {
                view.board().ballots().all(|ballot| {
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
        if self.store.views.len() > 1
            || view.is_forged()
            || self.plan.liars.len() > (n - t).min(t - 1)
        {
            return false;
        }
        let signs = |member: &usize| {
            let place = &self.places[*member];
            let stopped = place.engine.as_deref().is_some_and(Engine::is_stopped);
            !stopped && !view.board().is_banned(&place.node_id)
        };
        let able: Vec<usize> = self.honest().filter(signs).collect();
        able.len() >= t && able.iter().any(|i| *i < self.plan.shape.submitters)
    }

    fn may_answer(&self, client: &Client) -> bool {
        let stopped = |place: &Place| place.engine.as_deref().is_none_or(Engine::is_stopped);
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
            Due::Feed(place, life) => self.feed_on(place, life),
            Due::Propose {
                place,
                life,
                ticket,
                op,
                now_ms,
            } => self.reaches_board(place, life, ticket, &op, now_ms),
            Due::Keys { place, life, turn } => self.keys_turn(place, life, *turn),
            Due::Step(index) => {
                let plan = self.plan.clone();
                self.act(&plan.steps[index].act);
            }
            Due::Client(index, at) => self.client_due(index, at),
            Due::Dial(a, b) => self.dial(a, b),
            Due::Hangup(stream) => self.hang_up(stream),
            Due::Drain(place) => self.drain(place),
            Due::Start(place) => self.start(place),
            Due::Wake(place, at) => self.wake_liar(place, at),
            Due::Mail(mail) => self.deliver_to_liar(*mail),
            Due::ClockRight(place) => {
                self.places[place].clock_jump_ms = 0;
                self.retick(place);
            }
            Due::Calm => self.calm_down(),
            Due::Rest => {}
        }
    }

    fn schedule(&mut self, in_ms: u64, due: Due) {
        self.schedule_at(self.now + in_ms, due);
    }

    fn schedule_at(&mut self, at: u64, due: Due) {
        self.number += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        self.waiting[place] = Some(due);
        self.queue.push(Queued {
            at,
            number: self.number,
            place,
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
        let watching = std::mem::take(&mut self.watching);
        for index in watching.get(what.sort() as usize).into_iter().flatten() {
            let invariant = &mut invariants[*index];
            if let Err(detail) = invariant.sees(self, what) {
                self.fail(invariant.name(), detail);
            }
        }
        self.watching = watching;
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
        let Some(at) = place.engine.as_deref().and_then(Engine::next_wake) else {
            return;
        };
        let at = at.max(self.now);
        if place.tick_at.is_none_or(|due| due > at) {
            place.tick_at = Some(at);
            self.schedule_at(at, Due::Tick(index, at));
        }
    }
}

/// Stirs a number into a digest.
fn mix(digest: u64, number: u64) -> u64 {
    let stirred = (digest ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    stirred ^ (stirred >> 29)
}
