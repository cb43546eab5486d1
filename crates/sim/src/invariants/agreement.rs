//! "A node that re-derived an abort signs an abort statement, and never both an abort
//! and a decision for one tx_id: t of them prove the transaction dead" (section 5); "so
//! even a store that shows different boards to different nodes gets one licence at most"
//! (section 7).
//!
//! Judged is not what anybody has put together but what a stranger *could*: from all
//! decisions and aborts ever signed, by anyone, no two proofs that contradict each
//! other. That is asked while the store is honest and fewer than t members lie, and of
//! a lying store while fewer than 2t − N do; beyond that it cannot be had. Beside a lying
//! store a trustee that lost its disk counts as a liar: nothing else remembers for it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::statement::{AbortBody, DecisionBody, Header, StatementError};
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{SignedStatement, frame};
use quorate_consensus::{Domain, NodeId, TxId};
use quorate_engine::Effect;

use super::parsed::parse;
use super::{Happening, Invariant, Sort, is_binding, verified};
use crate::liars::Lie;
use crate::world::World;

/// No two proofs that contradict each other.
#[derive(Default)]
pub(super) struct Agreement {
    decided: BTreeMap<TxId, Vec<(DecisionBody, BTreeSet<NodeId>)>>,
    dead: BTreeMap<TxId, BTreeSet<NodeId>>,
    /// Reserved once more because a stranger took the nonce.
    anew: BTreeSet<TxId>,
}

impl Invariant for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry, Sort::Effect, Sort::Lied]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Effect {
                effect: Effect::Sign {
                    domain, statement, ..
                },
                ..
            } => match domain {
                Domain::Decision => self.decision(world, parse(statement)),
                Domain::Abort => self.abort(world, parse(statement)),
                _ => Ok(()),
            },
            Happening::Lied { lie, .. } => self.lied(world, lie),
            Happening::Entry { entry, .. } => {
                for event in &entry.events {
                    if let Some(Event::Reserved(reserved)) = &event.event
                        && reserved.anew
                        && let Ok(tx_id) = TxId::new(&event.tx_id)
                    {
                        self.anew.insert(tx_id);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Agreement {
    fn lied(&mut self, world: &World, lie: &Lie) -> Result<(), String> {
        let (decisions, aborts): (&[SignedStatement], &[SignedStatement]) = match lie {
            Lie::Say {
                body: frame::Body::Batch(batch),
                ..
            } => (&batch.decisions, &batch.aborts),
            Lie::Propose { op, .. } => match &op.op {
                Some(Op::Certify(op)) => (&op.decisions, &[]),
                Some(Op::ProveAbort(op)) => (&[], &op.aborts),
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        // What does not verify is worth nothing to a stranger.
        for signed in decisions {
            if verified::<DecisionBody>(world, signed).is_ok() {
                self.decision(world, parse(&signed.statement))?;
            }
        }
        for signed in aborts {
            if verified::<AbortBody>(world, signed).is_ok() {
                self.abort(world, parse(&signed.statement))?;
            }
        }
        Ok(())
    }

    fn decision(
        &mut self,
        world: &World,
        parsed: Result<(Header, DecisionBody), StatementError>,
    ) -> Result<(), String> {
        let (header, body) = parsed.map_err(|error| format!("a decision: {error}"))?;
        let tx_id = body.tx_id.clone();
        let decided = self.decided.entry(tx_id.clone()).or_default();
        match decided.iter_mut().find(|(known, _)| *known == body) {
            Some((_, by)) => {
                if !by.insert(header.node_id) {
                    return Ok(());
                }
            }
            None => decided.push((body, BTreeSet::from([header.node_id]))),
        }
        self.judge(world, &tx_id)
    }

    fn abort(
        &mut self,
        world: &World,
        parsed: Result<(Header, AbortBody), StatementError>,
    ) -> Result<(), String> {
        let (header, body) = parsed.map_err(|error| format!("an abort: {error}"))?;
        let by = self.dead.entry(body.tx_id.clone()).or_default();
        match by.insert(header.node_id) {
            true => self.judge(world, &body.tx_id),
            false => Ok(()),
        }
    }

    fn judge(&self, world: &World, tx_id: &TxId) -> Result<(), String> {
        let t = world.rules().threshold();
        if !is_binding(world) {
            return Ok(());
        }
        let enough = self.decided.get(tx_id).into_iter().flatten();
        let mut enough = enough.filter(|(_, by)| by.len() >= t);
        let Some((first, by)) = enough.next() else {
            return Ok(());
        };
        if let Some(dead) = self.dead.get(tx_id).filter(|dead| dead.len() >= t) {
            return Err(format!(
                "{tx_id} is decided, as {by:?} say, and dead, as {dead:?} say"
            ));
        }
        let contradicts = |(other, _): &&(DecisionBody, BTreeSet<NodeId>)| {
            other.value != first.value || !self.anew.contains(tx_id)
        };
        match enough.find(contradicts) {
            None => Ok(()),
            Some((other, others)) => Err(format!(
                "{tx_id} has two certificates: {} with {:?} by {by:?}, {} with {:?} by {others:?}",
                first.value, first.reservation, other.value, other.reservation
            )),
        }
    }
}
