//! What is going wrong, until when; and the plan's acts.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::TxId;
use quorate_testkit::ops;

use super::place::Doom;
use super::{Due, World};
use crate::plan::Act;

/// Until when each fault lasts: milliseconds from the start, by member.
pub(super) struct Faults {
    blocked: BTreeMap<(usize, usize), u64>,
    full: Vec<u64>,
    slow: Vec<(u64, u64)>,
    store_away: Vec<u64>,
    replies_lost: u64,
    watch_late: Vec<u64>,
    audit_away: u64,
    chain_away: Vec<u64>,
    keys_away: Vec<u64>,
    /// Places that read the whole log again.
    pub(super) re_reads: BTreeSet<usize>,
    /// Transactions that the chain will revert.
    pub(super) reverts: BTreeSet<TxId>,
}

impl Faults {
    pub(super) fn new(n: usize) -> Self {
        Self {
            blocked: BTreeMap::new(),
            full: vec![0; n],
            slow: vec![(0, 0); n],
            store_away: vec![0; n],
            replies_lost: 0,
            watch_late: vec![0; n],
            audit_away: 0,
            chain_away: vec![0; n],
            keys_away: vec![0; n],
            re_reads: BTreeSet::new(),
            reverts: BTreeSet::new(),
        }
    }

    pub(super) fn blocked(&self, from: usize, to: usize, now: u64) -> bool {
        self.blocked
            .get(&(from, to))
            .is_some_and(|until| *until > now)
    }

    pub(super) fn full(&self, member: usize, now: u64) -> bool {
        self.full[member] > now
    }

    pub(super) fn slow(&self, member: usize, now: u64) -> u64 {
        let (by_ms, until) = self.slow[member];
        if until > now { by_ms } else { 0 }
    }

    pub(super) fn store_away(&self, member: usize, now: u64) -> bool {
        self.store_away[member] > now
    }

    pub(super) fn replies_lost(&self, now: u64) -> bool {
        self.replies_lost > now
    }

    /// How long news are still held back.
    pub(super) fn watch_late(&self, member: usize, now: u64) -> u64 {
        self.watch_late[member].saturating_sub(now)
    }

    pub(super) fn audit_away(&self, now: u64) -> bool {
        self.audit_away > now
    }

    pub(super) fn chain_away(&self, member: usize, now: u64) -> bool {
        self.chain_away[member] > now
    }

    pub(super) fn keys_away(&self, member: usize, now: u64) -> bool {
        self.keys_away[member] > now
    }

    fn block(&mut self, from: usize, to: usize, until: u64) {
        let blocked = self.blocked.entry((from, to)).or_default();
        *blocked = until.max(*blocked);
    }
}

impl World {
    pub(super) fn act(&mut self, act: &Act) {
        if let Some(mut story) = self.story.take() {
            story.act(self, act);
            self.story = Some(story);
        }
        let now = self.now;
        let n = self.cluster.n();
        match act {
            Act::Vote {
                node,
                tx,
                choice,
                handed,
            } => self.client(*node, *tx, choice.clone(), *handed),
            Act::Crash {
                node,
                effects,
                disk,
                down_ms,
            } => match *effects {
                0 => self.die(*node, *disk, *down_ms),
                effects => {
                    self.places[*node].doom = Some(Doom {
                        effects: effects - 1,
                        disk: *disk,
                        down_ms: *down_ms,
                    });
                }
            },
            Act::Backup { node } => {
                let place = &mut self.places[*node];
                place.backup = place.journal.clone();
            }
            Act::Sleep { for_ms } => {
                for place in 0..self.places.len() {
                    self.die(place, crate::plan::Disk::Kept, *for_ms);
                }
            }
            Act::Partition { side, for_ms } => self.part(side, None, *for_ms),
            Act::Bridge {
                bridge,
                side,
                for_ms,
            } => self.part(side, Some(*bridge), *for_ms),
            Act::OneWay { from, to, for_ms } => self.faults.block(*from, *to, now + for_ms),
            Act::Break { a, b } => self.break_between(*a, *b),
            Act::Full { node, for_ms } => {
                self.faults.full[*node] = now + for_ms;
                self.tell_queues(*node, true);
                self.schedule(*for_ms, Due::Drain(*node));
            }
            Act::Slow {
                node,
                by_ms,
                for_ms,
            } => self.faults.slow[*node] = (*by_ms, now + for_ms),
            Act::Clock {
                node,
                by_ms,
                for_ms,
            } => {
                self.places[*node].clock_jump_ms = *by_ms;
                self.schedule(*for_ms, Due::ClockRight(*node));
            }
            Act::StoreAway { node, for_ms } => {
                for member in (0..n).filter(|member| node.is_none_or(|node| node == *member)) {
                    self.faults.store_away[member] = now + for_ms;
                }
            }
            Act::RepliesLost { for_ms } => self.faults.replies_lost = now + for_ms,
            Act::WatchLate { node, for_ms } => self.faults.watch_late[*node] = now + for_ms,
            Act::ReRead { node } => {
                self.faults.re_reads.insert(*node);
                self.news(*node);
            }
            Act::Compact => self.compact(),
            Act::AuditAway { for_ms } => self.faults.audit_away = now + for_ms,
            Act::ChainAway { node, for_ms } => {
                for member in (0..n).filter(|member| node.is_none_or(|node| node == *member)) {
                    self.faults.chain_away[member] = now + for_ms;
                }
            }
            Act::KeysAway { node, for_ms } => self.faults.keys_away[*node] = now + for_ms,
            Act::Reorganise { depth, drop } => {
                self.advance_chain();
                for change in self.chain.reorganise(*depth, *drop) {
                    self.tell_change(&change);
                }
            }
            Act::DropWaiting => {
                self.advance_chain();
                self.chain.drop_waiting();
            }
            Act::Fee { attempt } => {
                self.advance_chain();
                self.chain.set_fee(*attempt);
            }
            Act::Stranger => {
                self.advance_chain();
                let nonce = self.chain.next_nonce();
                self.chain.transact(nonce, format!("stranger {now}").into());
            }
            // Known from the start.
            Act::Revert { .. } => {}
            Act::GiveUp { tx } => self.give_up(*tx),
            Act::Impostor { liar, name, to } => self.pose(*liar, *name, *to),
            Act::Unban { node } => self.unban(*node),
            Act::Collect { tx } => {
                let op = ops::collect(&tx.id());
                if let Some(op) = op.op {
                    self.operate(op);
                }
            }
            Act::Forge { what } => self.forge(*what),
            Act::RollBack { entries } => self.roll_back(*entries as usize),
            Act::Fork { side } => self.fork(side),
        }
    }

    fn part(&mut self, side: &[usize], bridge: Option<usize>, for_ms: u64) {
        let until = self.now + for_ms;
        let n = self.cluster.n();
        for a in (0..n).filter(|a| side.contains(a) && bridge != Some(*a)) {
            for b in (0..n).filter(|b| !side.contains(b) && bridge != Some(*b)) {
                self.faults.block(a, b, until);
                self.faults.block(b, a, until);
            }
        }
    }

    /// A member's queues may have room again.
    pub(super) fn drain(&mut self, member: usize) {
        if !self.faults.full(member, self.now) {
            self.tell_queues(member, false);
        }
    }

    /// The faults stop: what was cut is joined, what was away is back.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        let n = self.cluster.n();
        let full: Vec<usize> = (0..n).filter(|m| self.faults.full(*m, self.now)).collect();
        let mut calm = Faults::new(n);
        calm.reverts = std::mem::take(&mut self.faults.reverts);
        self.faults = calm;
        self.chain.set_fee(0);
        for member in full {
            self.tell_queues(member, false);
        }
        for place in 0..self.places.len() {
            self.places[place].clock_jump_ms = 0;
            self.places[place].doom = None;
            self.news(place);
            self.retick(place);
        }
        self.schedule(1, Due::Rest);
    }

    /// The chain is told what it will revert, once the payload is known.
    pub(super) fn mark_reverts(&mut self, payload: &[u8]) {
        let board = self.store.views[0].board();
        for tx_id in &self.faults.reverts {
            let reservation = board.ballot(tx_id).and_then(|b| b.reservation.as_ref());
            if reservation.is_some_and(|reservation| reservation.payload == payload) {
                self.chain.reverted.insert(payload.to_vec());
            }
        }
    }
}
