//! Liars on the stage: they are cued, and what they say is carried out.

use quorate_consensus::statement::KeyRole;
use quorate_consensus::wire::{BoardEntry, frame};
use quorate_consensus::{Choice, Domain, TxId};
use quorate_testkit::Cluster;

use super::{Due, World};
use crate::invariants::Happening;
use crate::liars::{Cue, Keys, Lie, Stage};

struct TestKeys<'a> {
    cluster: &'a Cluster,
    member: usize,
}

impl Keys for TestKeys<'_> {
    fn sign(&self, role: KeyRole, domain: Domain, statement: &[u8]) -> Vec<u8> {
        let signed = self
            .cluster
            .sign(self.member, role, domain, statement.to_vec());
        signed.signature
    }
}

impl World {
    pub(super) fn start_liar(&mut self, place: usize) {
        self.cue(place, Cue::Start);
    }

    pub(super) fn wake_liar(&mut self, place: usize, at: u64) {
        if self.places[place].wake_at == Some(at) {
            self.places[place].wake_at = None;
            self.cue(place, Cue::Wake);
        }
    }

    pub(super) fn cue_asked(&mut self, place: usize, tx_id: TxId, choice: &Choice) {
        let tx_id = &tx_id;
        self.cue(place, Cue::Asked { tx_id, choice });
    }

    pub(super) fn cue_met(&mut self, place: usize, other: usize) {
        let peer = &self.places[other].node_id.clone();
        self.cue(place, Cue::Met { peer });
    }

    pub(super) fn cue_heard(&mut self, place: usize, other: usize, body: &frame::Body) {
        let peer = &self.places[other].node_id.clone();
        self.cue(place, Cue::Heard { peer, body });
    }

    pub(super) fn cue_entry(&mut self, place: usize, entry: &BoardEntry) {
        self.cue(place, Cue::Entries(std::slice::from_ref(entry)));
    }

    fn cue(&mut self, index: usize, cue: Cue<'_>) {
        // When the faults stop liars go on lying, but for those that never tire.
        let Some(mut liar) = self.places[index].liar.take() else {
            return;
        };
        let dice = self.rng.u64(..);
        let place = &self.places[index];
        let keys = TestKeys {
            cluster: &self.cluster,
            member: place.member,
        };
        let stage = Stage {
            me: &place.node_id,
            rules: self.cluster.rules(),
            now_ms: self.wall(index),
            board: Some(self.store.views[place.view].board()),
            keys: &keys,
            dice,
        };
        let lies = liar.cue(&stage, cue);
        self.places[index].liar = Some(liar);
        for lie in lies {
            self.judge(&Happening::Lied {
                place: index,
                lie: &lie,
            });
            self.tell_lie(index, lie);
        }
    }

    fn tell_lie(&mut self, place: usize, lie: Lie) {
        match lie {
            Lie::Say { to, body } => {
                if let Some(stream) = self.stream_to(place, &to) {
                    self.say(stream, body);
                }
            }
            Lie::Garble { to, bytes } => {
                if let Some(stream) = self.stream_to(place, &to) {
                    self.garble(stream, &bytes);
                }
            }
            Lie::Propose { op, now_ms } => self.lie_to_board(place, op, now_ms),
            Lie::Transact { nonce, payload } => {
                // Only who holds the chain key can send anything.
                if self.places[place].member < self.plan.shape.submitters {
                    self.advance_chain();
                    self.chain.transact(nonce, payload);
                }
            }
            Lie::Wake { in_ms } => {
                let in_ms = in_ms.max(1);
                let at = self.now_ms() + in_ms;
                let alarm = &mut self.places[place].wake_at;
                if alarm.is_none_or(|due| due > at) {
                    *alarm = Some(at);
                    self.schedule(in_ms, Due::Wake(place, at));
                }
            }
        }
    }
}
