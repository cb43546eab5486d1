//! Reading the keys on, and putting them right.

use quorate_consensus::wire::BoardEntry;
use quorate_engine::{Event, ProposeError};
use quorate_keyspace::{Finding, Step, Taken};

use super::super::store::{Handle, Keys, State, Wants};
use super::super::{Due, World};
use super::{AGAIN_MS, RESTART_MS, Turn};
use crate::invariants::Happening;

impl World {
    pub(super) fn open(&mut self, place: usize) {
        if self.is_away(place) {
            return self.turn(AGAIN_MS, place, Turn::Open);
        }
        let rules = self.cluster.rules().clone();
        let (Some(keys), Some(handle)) = (&self.store.keys, self.places[place].handle.as_mut())
        else {
            return;
        };
        let taken = handle.read_first(rules, keys);
        let state = handle.state;
        self.put_right(place, taken);
        if let State::Opening(readings) = state {
            let wait = 20 << readings.min(4);
            return self.turn(wait, place, Turn::Open);
        }
        let first = self.places[place].handle.as_mut();
        if let Some(ticket) = first.and_then(|handle| handle.first.take()) {
            let wants = Wants::Head(ticket);
            self.turn(0, place, Turn::AskEnd { wants });
        }
        self.look_at_queue(place, 0);
        self.news(place);
    }

    /// A process reads the store on, and gives its engine what is new.
    pub(in crate::world) fn keys_feed(&mut self, index: usize, life: u64) {
        let place = &mut self.places[index];
        if place.life != life {
            return;
        }
        place.feed_due = false;
        let member = place.member;
        let Some(mut handle) = place.handle.take_if(|handle| handle.is_open()) else {
            return;
        };
        if self.faults.store_away(member, self.now) {
            // Its watch breaks, and it tries again when the store is back.
            handle.cut = true;
            self.places[index].handle = Some(handle);
            self.places[index].feed_due = true;
            return self.schedule(500, Due::Feed(index, life));
        }
        let again = self.faults.re_reads.remove(&index);
        handle.cut |= again;
        let from = handle.reader.revision();
        let Some(keys) = &self.store.keys else {
            return;
        };
        let (mut all, by_changes) = handle.follow(keys, again);
        let overlooked = match by_changes && !handle.partial && handle.is_open() {
            true => overlooked(keys, from, handle.reader.revision(), &all),
            false => None,
        };
        let mut say = Vec::new();
        for taken in &mut all {
            handle.hear(std::mem::take(&mut taken.replies));
        }
        handle.go_on(&mut say);
        let state = handle.state;
        let again = handle.cut.then_some(20 << handle.readings.min(4));
        self.places[index].handle = Some(handle);
        if let Some(wait) = again {
            // It reads everything once more.
            self.places[index].feed_due = true;
            self.schedule(wait, Due::Feed(index, life));
        }
        if let Some(key) = overlooked {
            let who = self.places[index].node_id.clone();
            self.fail(
                "tampering",
                format!("{who} has overlooked what was done to {key}"),
            );
        }
        for taken in all {
            self.put_right(index, taken);
        }
        self.tell(index, say);
        self.look_at_queue(index, 0);
        match state {
            State::Incomplete => return self.turn(RESTART_MS, index, Turn::Restart),
            State::Older(_) => return self.older(),
            State::Opening(_) | State::Open => {}
        }
        let place = &self.places[index];
        let (Some(engine), Some(handle)) = (&place.engine, &place.handle) else {
            return;
        };
        let entries = handle.reader.entries(engine.revision(), usize::MAX);
        let entries: Vec<_> = entries.map(|entry| (**entry).clone()).collect();
        let log = self.store.views[0].log();
        let known = |entry: &BoardEntry| {
            let index = usize::try_from(entry.revision).unwrap_or(0);
            index.checked_sub(1).and_then(|index| log.get(index)) == Some(entry)
        };
        if handle.partial && !entries.iter().all(known) {
            self.split = true;
            return;
        }
        if !entries.is_empty() {
            self.feed(index, Event::Entries { entries });
        }
    }

    /// An older copy of the store is in its place. That takes longer than anybody waits
    /// for an answer, so nothing that was asked before is on its way any more.
    pub(in crate::world) fn keys_roll_back(&mut self, entries: usize) {
        self.store.roll_keys_back(entries);
        for place in 0..self.places.len() {
            let handle = self.places[place].handle.as_mut();
            for ticket in handle.map(|h| h.give_up()).unwrap_or_default() {
                let result = Err(ProposeError::Unavailable("no answer for long".into()));
                self.post(0, place, Event::Proposed { ticket, result });
            }
            self.news(place);
        }
    }

    /// Somebody takes the store for an older copy. Where the last record was deleted and
    /// its change compacted away that looks the same, and stalls whoever sees it so.
    fn older(&mut self) {
        let Some(keys) = &self.store.keys else {
            return;
        };
        if keys.incarnation == 0 && !keys.lies.is_empty() {
            self.store.views[0].forged = true;
        }
    }

    fn put_right(&mut self, place: usize, taken: Taken) {
        for finding in &taken.findings {
            self.judge(&Happening::Found { place, finding });
        }
        for step in taken.mending {
            let wait = self.way(place);
            let Some(keys) = &mut self.store.keys else {
                return;
            };
            keys.mending += 1;
            let incarnation = keys.incarnation;
            self.turn(wait, place, Turn::Mend { step, incarnation });
        }
    }

    pub(super) fn mend(&mut self, place: usize, life: u64, step: Step, incarnation: u64) {
        let fails = self.is_away(place) || self.chance(self.plan.noise.store_refuses);
        if fails && self.places[place].life == life {
            // It is owed until the store has answered.
            let turn = Box::new(Turn::Mend { step, incarnation });
            return self.schedule(AGAIN_MS, Due::Keys { place, life, turn });
        }
        let Some(keys) = &mut self.store.keys else {
            return;
        };
        keys.mending -= 1;
        if !fails {
            keys.model.step(&step);
            self.keys_moved();
        }
    }

    // ---- what is left of it

    /// A process is gone, and with it what it knew: where nobody else knows of a record
    /// that was deleted, that record is lost for good.
    pub(in crate::world) fn keys_forgotten(&mut self) {
        let Some(keys) = &self.store.keys else {
            return;
        };
        let known = |key: &String| {
            let mut handles = self.places.iter().filter_map(|place| place.handle.as_ref());
            handles.any(|handle| handle.is_open() && handle.reader.knows(key))
        };
        if !keys.missing.iter().all(known) {
            self.store.views[0].forged = true;
        }
    }

    /// Nothing is being put right, and everybody has read what was done.
    pub(in crate::world) fn keys_rest(&self) -> bool {
        let Some(keys) = &self.store.keys else {
            return true;
        };
        let last = keys.lies.last().map_or(0, |lie| lie.revision);
        let handles = self.places.iter().filter_map(|place| place.handle.as_ref());
        let read = |handle: &Handle| match handle.state {
            State::Open => handle.reader.revision() >= last.min(keys.model.revision()),
            State::Older(_) => true,
            State::Opening(_) | State::Incomplete => false,
        };
        keys.mending == 0 && handles.into_iter().all(|handle| read(handle))
    }
}

/// A key that a reader must have found, who has read change by change between these two
/// revisions, and has not.
fn overlooked(keys: &Keys, from: u64, to: u64, taken: &[Taken]) -> Option<String> {
    let lies = keys.lies.iter();
    let lies = lies.filter(|lie| from < lie.revision && lie.revision <= to);
    let mut wanted = lies.flat_map(|lie| &lie.keys);
    let found = |key: &String| {
        let mut findings = taken.iter().flat_map(|taken| &taken.findings);
        findings.any(|finding: &Finding| finding.key == *key)
    };
    wanted.find(|key| !found(key)).cloned()
}
