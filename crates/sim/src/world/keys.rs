//! The board as keys: every process reads the store for itself, sends transactions that
//! are late or whose answers are lost, and puts right what it finds wrong. When each of
//! this happens is decided here; what is done then, [`Handle`] asks of the product.

use quorate_consensus::wire::BoardOp;
use quorate_engine::{Event, ProposeError, Proposed, Ticket};
use quorate_keyspace::{Batch, Guard, KeyValue, Mark, Step, UpTo, Write, names};

use super::effects::REPLY_MS;
use super::store::{Handle, Keys, News, Say, State, Wants, proposed};
use super::{Due, World, mix};
use crate::invariants::Happening;
use crate::plan::Disk;

mod lies;
mod reading;

/// A store that was away is tried again after so long.
const AGAIN_MS: u64 = 200;

/// After trouble an operation is sent again after this pause.
const PAUSE_MS: u64 = 50;

/// An operation is given up after so long: nobody knows what becomes of it.
const PATIENCE_MS: u64 = 10_000;

/// Whoever has to start again does so after this.
const RESTART_MS: u64 = 1_000;

/// What a process is about to do with the keys, or what reaches the store.
#[derive(Debug)]
pub(super) enum Turn {
    /// Reads everything for the first time.
    Open,
    /// Looks at what waits to be sent.
    Plan,
    /// A transaction reaches the store; `stuck` says that it was on its way for so long
    /// that its sender has given it up.
    Commit {
        flight: u64,
        batch: Batch,
        stuck: bool,
        /// The store that it was sent to.
        incarnation: u64,
    },
    /// The store's answer comes back.
    Told {
        flight: u64,
        revision: u64,
        held: Vec<bool>,
    },
    /// No answer came back.
    Unheard { flight: u64 },
    /// The question where the log ends reaches the store.
    AskEnd { wants: Wants },
    /// Its answer comes back: to a reader that stood at the mark.
    End {
        wants: Wants,
        mark: Mark,
        revision: u64,
        head: Option<KeyValue>,
    },
    /// What puts something right reaches the store.
    Mend {
        step: Step,
        /// The store that it was sent to.
        incarnation: u64,
    },
    /// An operation has waited for long enough.
    Expire(Ticket),
    /// A lease ends, unless it was taken again since this revision.
    LeaseEnds { key: String, revision: u64 },
    /// A process that read too little starts again.
    Restart,
}

impl World {
    fn turn(&mut self, in_ms: u64, place: usize, turn: Turn) {
        let life = self.places[place].life;
        self.schedule(
            in_ms,
            Due::Keys {
                place,
                life,
                turn: Box::new(turn),
            },
        );
    }

    /// How long it takes a machine to the store, or back.
    fn way(&mut self, place: usize) -> u64 {
        self.span(self.plan.noise.store_ms) + self.lag(place)
    }

    fn is_away(&self, place: usize) -> bool {
        let member = self.places[place].member;
        self.faults.store_away(member, self.now)
    }

    pub(super) fn keys_turn(&mut self, place: usize, life: u64, turn: Turn) {
        // What has left a process reaches the store whatever becomes of the process.
        match turn {
            Turn::Commit {
                flight,
                batch,
                stuck,
                incarnation,
            } => {
                let now = self.store.keys.as_ref().map(Keys::incarnation);
                if now == Some(incarnation) {
                    self.commit(place, life, flight, batch, stuck);
                }
                return;
            }
            Turn::LeaseEnds { key, revision } => return self.lease_ends(key, revision),
            Turn::Mend { step, incarnation } => {
                let now = self.store.keys.as_ref().map(Keys::incarnation);
                if now == Some(incarnation) {
                    self.mend(place, life, step, incarnation);
                }
                return;
            }
            _ => {}
        }
        if self.places[place].life != life {
            return;
        }
        let Some(handle) = self.places[place].handle.as_mut() else {
            return;
        };
        let mut say = Vec::new();
        match turn {
            Turn::Open => return self.open(place),
            Turn::Plan => {
                handle.due = false;
                return self.send_batches(place);
            }
            Turn::Told {
                flight,
                revision,
                held,
            } => {
                handle.carried_out(flight, revision, held);
                handle.go_on(&mut say);
            }
            Turn::Unheard { flight } => {
                handle.unheard(flight, &mut say);
                handle.go_on(&mut say);
            }
            Turn::AskEnd { wants } => return self.ask_end(place, wants),
            Turn::End {
                wants,
                mark,
                revision,
                head,
            } => return self.end_is(place, wants, &mark, revision, head.as_ref()),
            Turn::Expire(ticket) => {
                if handle.expire(ticket) {
                    let result = Err(ProposeError::Unavailable("no answer for long".into()));
                    self.post(0, place, Event::Proposed { ticket, result });
                }
                return;
            }
            Turn::Restart => return self.die(place, Disk::Kept, RESTART_MS),
            Turn::Commit { .. } | Turn::LeaseEnds { .. } | Turn::Mend { .. } => return,
        }
        self.tell(place, say);
        self.look_at_queue(place, PAUSE_MS);
    }

    // ---- asking

    /// A process starts: it opens the store.
    pub(super) fn keys_start(&mut self, place: usize) {
        if self.store.keys.is_none() {
            return;
        }
        let life = self.places[place].life;
        let handle = Handle::new(self.cluster.rules().clone(), place, life);
        self.places[place].handle = Some(Box::new(handle));
        let wait = 2 * self.way(place);
        self.turn(wait, place, Turn::Open);
    }

    /// An engine asks for an operation.
    pub(super) fn keys_propose(&mut self, place: usize, ticket: Ticket, op: BoardOp, now_ms: u64) {
        // A time from further in the future than clocks may differ would hold everybody
        // up: whoever can write can do that, and nothing else.
        let latest = self.true_wall() + self.rules().clock_skew_ms();
        let late = self.places[place].lag_ms;
        let Some(handle) = self.places[place].handle.as_mut() else {
            return;
        };
        if let Some(error) = handle.done_for() {
            let result = Err(error);
            return self.post(1, place, Event::Proposed { ticket, result });
        }
        handle.ask(ticket, op, now_ms.min(latest));
        self.turn(PATIENCE_MS, place, Turn::Expire(ticket));
        self.look_at_queue(place, late);
    }

    /// An engine asks where the log ends.
    pub(super) fn keys_head(&mut self, place: usize, ticket: Ticket) {
        let Some(state) = self.places[place].handle.as_ref().map(|h| h.state) else {
            return;
        };
        let wait = self.way(place);
        let result = match state {
            State::Open if !self.is_away(place) => {
                let wants = Wants::Head(ticket);
                return self.turn(wait, place, Turn::AskEnd { wants });
            }
            // Before it has read the board no engine runs: it hears when that is done.
            State::Opening(_) => {
                if let Some(handle) = self.places[place].handle.as_mut() {
                    handle.first = Some(ticket);
                }
                return;
            }
            State::Older(head) => Ok(head),
            _ => Err("the store is away".into()),
        };
        self.post(wait, place, Event::Head { ticket, result });
    }

    fn look_at_queue(&mut self, place: usize, in_ms: u64) {
        let handle = self.places[place].handle.as_mut();
        let Some(handle) = handle.filter(|handle| handle.may_send() && !handle.due) else {
            return;
        };
        handle.due = true;
        self.turn(in_ms, place, Turn::Plan);
    }

    fn send_batches(&mut self, place: usize) {
        let mut say = Vec::new();
        while let Some(handle) = self.places[place].handle.as_mut().filter(|h| h.may_send()) {
            let Some((flight, batch)) = handle.plan(&mut say) else {
                continue;
            };
            let wait = self.way(place);
            let incarnation = self.store.keys.as_ref().map_or(0, Keys::incarnation);
            let turn = Turn::Commit {
                flight,
                batch,
                stuck: false,
                incarnation,
            };
            self.turn(wait, place, turn);
        }
        self.tell(place, say);
    }

    /// Tells an engine what its handle has to say.
    fn tell(&mut self, place: usize, say: Vec<Say>) {
        for say in say {
            // The log's news may come before or after.
            let wait = self.rng.u64(0..3);
            match say {
                Say::Proposed(ticket, id, answer) => {
                    if let Ok(reply) = &answer {
                        self.judge(&Happening::Told { place, id, reply });
                    }
                    let result: Result<Proposed, ProposeError> = answer.and_then(proposed);
                    self.post(wait, place, Event::Proposed { ticket, result });
                }
                Say::Head(ticket, head) => {
                    let result = Ok(head);
                    self.post(wait, place, Event::Head { ticket, result });
                }
                Say::Read(group) => {
                    let wants = Wants::Jobs(group);
                    let wait = self.way(place);
                    self.turn(wait, place, Turn::AskEnd { wants });
                }
            }
        }
    }

    // ---- at the store

    fn commit(&mut self, place: usize, life: u64, flight: u64, batch: Batch, stuck: bool) {
        let unheard = |world: &mut Self, in_ms| {
            let turn = Box::new(Turn::Unheard { flight });
            world.schedule(in_ms, Due::Keys { place, life, turn });
        };
        let refuses = !stuck && self.chance(self.plan.noise.store_refuses);
        if self.is_away(place) || refuses {
            if !stuck {
                let wait = self.way(place);
                unheard(self, wait);
            }
            return;
        }
        let lost = self.faults.replies_lost(self.now) || self.chance(self.plan.noise.reply_lost);
        if lost && !stuck && self.rng.bool() {
            // It arrives all the same, when its sender has long sent it again.
            let wait = REPLY_MS / 4 + self.rng.u64(0..2 * REPLY_MS);
            unheard(self, REPLY_MS);
            let turn = Turn::Commit {
                flight,
                batch,
                stuck: true,
                incarnation: self.store.keys.as_ref().map_or(0, Keys::incarnation),
            };
            let turn = Box::new(turn);
            return self.schedule(wait, Due::Keys { place, life, turn });
        }
        let Some(keys) = &mut self.store.keys else {
            return;
        };
        let held = keys.model.commit(&batch);
        let revision = keys.model.revision();
        for ((_, step), held) in batch.steps.iter().zip(&held) {
            if *held {
                self.lease(step, revision);
            }
        }
        self.keys_moved();
        if stuck {
            return;
        }
        if lost {
            return unheard(self, REPLY_MS);
        }
        let wait = self.way(place);
        let turn = Turn::Told {
            flight,
            revision,
            held,
        };
        let turn = Box::new(turn);
        self.schedule(wait, Due::Keys { place, life, turn });
    }

    /// A key that lives for a while only.
    fn lease(&mut self, step: &Step, revision: u64) {
        for write in &step.writes {
            if let Write::Put {
                key,
                ttl_ms: Some(ttl_ms),
                ..
            } = write
            {
                let key = key.clone();
                self.turn(*ttl_ms, 0, Turn::LeaseEnds { key, revision });
            }
        }
    }

    fn lease_ends(&mut self, key: String, revision: u64) {
        if let Some(keys) = &mut self.store.keys {
            keys.model.step(&Step {
                guards: vec![Guard::At(key.clone(), revision)],
                writes: vec![Write::Delete(key)],
            });
        }
        self.keys_moved();
    }

    fn ask_end(&mut self, place: usize, wants: Wants) {
        if self.is_away(place) {
            // An engine asks again by itself.
            if let Wants::Jobs(_) = wants {
                self.turn(AGAIN_MS, place, Turn::AskEnd { wants });
            }
            return;
        }
        let wait = self.way(place);
        let (Some(keys), Some(handle)) = (&self.store.keys, &self.places[place].handle) else {
            return;
        };
        let turn = Turn::End {
            wants,
            mark: handle.reader.mark(),
            revision: keys.model.revision(),
            head: keys.model.get(names::HEAD).cloned(),
        };
        self.turn(wait, place, turn);
    }

    /// Where the log ends is known: it is read up to there.
    fn end_is(
        &mut self,
        place: usize,
        wants: Wants,
        mark: &Mark,
        revision: u64,
        head: Option<&KeyValue>,
    ) {
        let up_to = match mark.read_up_to(head, revision) {
            UpTo::Revision(revision) => revision,
            UpTo::HeadWritten => {
                let Some(keys) = &mut self.store.keys else {
                    return;
                };
                keys.model.write(&[Write::put(names::HEAD, "")]);
                let revision = keys.model.revision();
                self.keys_moved();
                revision
            }
            UpTo::OlderCopy => {
                if let Some(handle) = self.places[place].handle.as_mut() {
                    handle.cut = true;
                }
                // Until it has found out.
                u64::MAX
            }
        };
        let mut say = Vec::new();
        if let Some(handle) = self.places[place].handle.as_mut() {
            handle.wait(up_to, wants);
            handle.go_on(&mut say);
        }
        self.tell(place, say);
        self.look_at_queue(place, 0);
        self.news(place);
    }

    /// Something was written: whoever has read everything knows what it means, and the
    /// others are told.
    pub(super) fn keys_moved(&mut self) {
        loop {
            match self.store.read_keys() {
                Ok(None) => break,
                Ok(Some(News::Recorded(id, revision))) => {
                    self.judge(&Happening::Recorded { id, revision });
                }
                Ok(Some(News::Entry(entry))) => {
                    self.fingerprint = mix(self.fingerprint, entry.time_ms);
                    let entry = &entry;
                    self.judge(&Happening::Entry { view: 0, entry });
                    if !self.faults.audit_away(self.now) {
                        self.audit.project(self.store.views[0].log());
                    }
                    for place in 0..self.places.len() {
                        self.cue_entry(place, entry);
                    }
                }
                Err(detail) => return self.fail("stage", detail),
            }
        }
        self.split |= self.store.keys.as_ref().is_some_and(|keys| keys.lost);
        for place in 0..self.places.len() {
            self.news(place);
        }
    }

    /// An operation of somebody who is at the store and has read everything.
    pub(super) fn keys_operate(&mut self, op: &BoardOp, now_ms: u64) {
        let latest = self.true_wall() + self.rules().clock_skew_ms();
        let Some(keys) = &mut self.store.keys else {
            return;
        };
        let batch = keys.carry_out(op, now_ms.min(latest));
        let revision = keys.model.revision();
        for (_, step) in &batch.steps {
            self.lease(step, revision);
        }
        self.keys_moved();
    }
}
