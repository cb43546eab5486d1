//! Processes: where they run, how they start and die.

use std::sync::Arc;

use quorate_engine::{Config, Engine, Event};
use quorate_testkit::FakeVerifier;

use super::{Due, Journal, Place, World};
use crate::invariants::Happening;
use crate::liars::Beside;
use crate::plan::Disk;

impl World {
    pub(super) fn install(&mut self, member: usize, second: bool) {
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
            handle: None,
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

    pub(super) fn start(&mut self, index: usize) {
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
        place.engine = Some(Box::new(Engine::restore(
            config,
            durable,
            Arc::new(FakeVerifier),
        )));
        self.judge(&Happening::Started { place: index });
        self.keys_start(index);
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
        if matches!(disk, Disk::Lost | Disk::Restored) {
            self.forgetful.insert(self.places[index].member);
        }
        self.judge(&Happening::Died { place: index, disk });
        if let Err(detail) = self.places[index].lose(disk) {
            self.fail("stage", detail);
        }
        self.keys_forgotten();
        self.lose_streams(index);
        self.schedule(down_ms.max(1), Due::Start(index));
    }
}
