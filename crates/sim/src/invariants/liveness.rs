//! "Every node that sees t re-verifies the ballot and proposes the move … no node is
//! needed for it" (section 4): when the faults stop and t members live, everything that
//! can decide does, everything that cannot is closed by its deadline, and every
//! reservation is confirmed or failed for a stated reason.
//!
//! Asked while the store is honest, no more members lie than decisions bear (N − t, and
//! fewer than t), t honest members are not banned, and an honest one holds the chain key.

use std::collections::BTreeMap;

use quorate_consensus::ballot::{Ballot, is_final};
use quorate_consensus::wire::{BallotState, ChainOutcome};

use super::{Happening, Invariant, Sort, clocks, honest_store};
use crate::plan::Act;
use crate::world::World;

/// A concluded transaction is looked at so often (15 s); and as long again to agree that
/// it was undone.
const NOTICED_MS: u64 = 40_000;

/// A start takes so long at most.
const START_MS: u64 = 10_000;

/// What can end ends.
#[derive(Default)]
pub(super) struct Liveness {
    /// When the chain last took something back.
    undone_ms: Option<u64>,
    /// When each machine's process last started.
    started: BTreeMap<usize, u64>,
}

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Undone, Sort::Started]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Undone(_) => self.undone_ms = Some(world.now_ms()),
            Happening::Started { place } => {
                self.started.insert(*place, world.now_ms());
            }
            _ => {}
        }
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        if !is_asked(world) {
            return Ok(());
        }
        for (index, place) in world.places().iter().enumerate() {
            if world.is_liar(index) {
                continue;
            }
            let name = world.node_id(index);
            // All may have come to rest while one was still down.
            let Some(engine) = place.engine() else {
                continue;
            };
            let since = self.started.get(&index).copied().unwrap_or(0);
            let since = since.max(world.plan().calm_ms);
            if !engine.is_in_service() && world.now_ms() > since + START_MS {
                return Err(format!("{name} is not in service"));
            }
            if engine.is_stopped() {
                let why = engine.signing_stopped(clocks(world, index));
                let why = why.unwrap_or_default();
                return Err(format!("{name} has stopped for good: {why}"));
            }
        }
        for client in world.clients() {
            let mut machines = world.places().iter();
            let runs = machines.any(|p| p.member() == client.node && p.engine().is_some());
            if runs && !client.is_done() && !world.is_liar_member(client.node) {
                return Err(format!(
                    "a client of {} has no answer on {}",
                    world.cluster().node_id(client.node),
                    client.tx.id()
                ));
            }
        }
        for ballot in world.store().views()[0].board().ballots() {
            let fine = self.judge(world, ballot);
            fine.map_err(|why| {
                format!(
                    "{} is {:?} ({}): {why}",
                    ballot.tx_id, ballot.state, ballot.reason
                )
            })?;
        }
        Ok(())
    }
}

impl Liveness {
    fn judge(&self, world: &World, ballot: &Ballot) -> Result<(), String> {
        if !is_final(ballot.state) {
            return Err("it has no end".into());
        }
        if !ballot.is_proven() {
            return Err("its end is not proven".into());
        }
        if ballot.deadline_ms().is_some() && !ballot.roll_called {
            return Err("the roll was not called".into());
        }
        let Some(reservation) = &ballot.reservation else {
            return Ok(());
        };
        let observed = ballot.observed.as_ref().map(|observed| observed.outcome);
        match ballot.state {
            BallotState::Failed => {
                let mut steps = world.plan().steps.iter();
                let reverts =
                    |act: &Act| matches!(act, Act::Revert { tx } if tx.id() == ballot.tx_id);
                let stated = ballot.given_up
                    || (observed == Some(ChainOutcome::Reverted)
                        && steps.any(|step| reverts(&step.act)));
                match stated {
                    true => Ok(()),
                    false => Err(format!("it failed without a reason: {observed:?}")),
                }
            }
            _ => {
                let noticed = |at| world.now_ms() >= at + NOTICED_MS;
                if !self.undone_ms.is_none_or(noticed) {
                    return Ok(());
                }
                let mut mined = world.chain().mined();
                let there = mined.any(|mined| {
                    mined.nonce == reservation.nonce
                        && mined.payload == reservation.payload
                        && mined.succeeded
                });
                match there {
                    true => Ok(()),
                    false => Err("the chain does not show it".into()),
                }
            }
        }
    }
}

/// Whether anything can be asked of this schedule but safety.
pub(super) fn is_asked(world: &World) -> bool {
    let (n, t) = (world.rules().total(), world.rules().threshold());
    if !honest_store(world) || world.plan().has_lying_store() {
        return false;
    }
    let liars = n - world.honest().count();
    let board = world.store().views()[0].board();
    let free = |member: &usize| !board.is_banned(&world.cluster().node_id(*member));
    let free: Vec<usize> = world.honest().filter(free).collect();
    let submitters = world.plan().shape.submitters;
    liars <= (n - t).min(t - 1) && free.len() >= t && free.iter().any(|member| *member < submitters)
}
