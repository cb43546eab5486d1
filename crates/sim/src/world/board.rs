//! What the world asks of the board, whichever the plan names: here alone it matters
//! which one that is.

use quorate_consensus::wire::BoardOp;
use quorate_engine::{Event, Ticket};

use super::{Due, World};
use crate::plan::Forgery;

impl World {
    /// An engine asks for an operation.
    pub(super) fn ask_board(&mut self, place: usize, ticket: Ticket, op: BoardOp, now_ms: u64) {
        if self.store.keys.is_some() {
            return self.keys_propose(place, ticket, op, now_ms);
        }
        let late = self.places[place].lag_ms;
        let wait = self.span(self.plan.noise.store_ms) + self.lag(place) + late;
        self.log_propose(place, Some(ticket), op, now_ms, wait);
    }

    /// A liar asks for an operation, and waits for no answer.
    pub(super) fn lie_to_board(&mut self, place: usize, op: BoardOp, now_ms: u64) {
        let wait = self.span(self.plan.noise.store_ms);
        self.log_propose(place, None, op, now_ms, wait);
    }

    /// An operation reaches the store.
    pub(super) fn reaches_board(
        &mut self,
        place: usize,
        life: u64,
        ticket: Option<Ticket>,
        op: &BoardOp,
        now_ms: u64,
    ) {
        match self.store.keys {
            Some(_) => self.keys_operate(op, now_ms),
            None => self.proposed(place, life, ticket, op, now_ms),
        }
    }

    /// An engine asks where the log ends.
    pub(super) fn ask_head(&mut self, place: usize, ticket: Ticket) {
        if self.store.keys.is_some() {
            self.keys_head(place, ticket);
        } else {
            let wait = 2 * self.span(self.plan.noise.store_ms) + self.lag(place);
            let result = self.log_head(place);
            self.post(wait, place, Event::Head { ticket, result });
        }
        self.news(place);
    }

    /// A machine will read the board on.
    pub(super) fn news(&mut self, place: usize) {
        if self.places[place].feed_due || self.places[place].engine.is_none() {
            return;
        }
        self.places[place].feed_due = true;
        let late = self.faults.watch_late(self.places[place].member, self.now);
        let wait = self.span(self.plan.noise.watch_ms) + self.lag(place) + late;
        let life = self.places[place].life;
        self.schedule(wait, Due::Feed(place, life));
    }

    /// A machine reads the board on.
    pub(super) fn feed_on(&mut self, place: usize, life: u64) {
        match self.store.keys {
            Some(_) => self.keys_feed(place, life),
            None => self.log_feed(place, life),
        }
    }

    /// An operator's own hand on the board: carried out at once, whatever is away.
    pub(super) fn operate_now(&mut self, op: &BoardOp) {
        let wall = self.true_wall();
        if self.store.keys.is_some() {
            return self.keys_operate(op, wall);
        }
        // What the board refuses is of no effect.
        let _ = self.log_apply(0, op, wall);
    }

    /// The store shows what no board gave.
    pub(super) fn forge(&mut self, what: Forgery) {
        match self.store.keys {
            Some(_) => self.keys_forge(what),
            None => self.log_forge(what),
        }
    }

    /// The store forgets how it came to be as it is.
    pub(super) fn compact(&mut self) {
        if let Some(keys) = &mut self.store.keys {
            keys.model.compact();
        }
    }

    /// The store is put back to an earlier snapshot: so many entries are lost.
    pub(super) fn roll_back(&mut self, entries: usize) {
        if self.store.keys.is_none() {
            return self.log_roll_back(entries);
        }
        self.keys_roll_back(entries);
    }

    /// From now on the store keeps two boards, and shows the second one to `side`.
    pub(super) fn fork(&mut self, side: &[usize]) {
        if self.store.keys.is_none() {
            self.log_fork(side);
        }
    }
}
