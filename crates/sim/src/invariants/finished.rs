//! "The board forgets finished ballots in time; the world must not": "a vote for a
//! collected tx_id is answered with its final state and recorded nowhere" (section 6).

use std::collections::BTreeMap;

use quorate_consensus::ballot::{is_aborted, is_final};
use quorate_consensus::statement::VoteBody;
use quorate_consensus::wire::BallotState;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::{Domain, TxId};
use quorate_engine::Effect;

use super::parsed::parse;
use super::{Happening, Invariant, Sort};
use crate::world::World;

/// A finished transaction never starts again.
#[derive(Default)]
pub(super) struct Finished {
    /// By view and transaction: how it ended, and whether it was collected.
    ended: BTreeMap<(usize, String), (BallotState, bool)>,
}

impl Invariant for Finished {
    fn name(&self) -> &'static str {
        "finished"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry, Sort::Effect]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Entry { view, entry } => {
                // A store that was put back has forgotten; its readers have not.
                if world.store().views()[*view].is_forged() {
                    return Ok(());
                }
                for event in &entry.events {
                    self.on_board(*view, &event.tx_id, event.event.as_ref())?;
                }
                Ok(())
            }
            Happening::Effect {
                place,
                effect:
                    Effect::Sign {
                        domain: Domain::Vote,
                        statement,
                        ..
                    },
            } => signs(world, *place, statement),
            _ => Ok(()),
        }
    }
}

impl Finished {
    fn on_board(&mut self, view: usize, tx_id: &str, event: Option<&Event>) -> Result<(), String> {
        if tx_id.is_empty() {
            return Ok(());
        }
        let key = (view, tx_id.to_owned());
        let ended = self.ended.get(&key).copied();
        match (event, ended) {
            (
                Some(
                    Event::VoteRecorded(_)
                    | Event::StateChanged(_)
                    | Event::Reserved(_)
                    | Event::Expired(_),
                ),
                Some((state, true)),
            ) => Err(format!(
                "{tx_id} ended as {state:?}, was collected, and goes on"
            )),
            (Some(Event::StateChanged(changed)), ended) => {
                let back = changed.row == 13 && changed.to() == BallotState::Submitted;
                match ended {
                    Some((state, _)) if is_aborted(state) || !back => Err(format!(
                        "{tx_id} ended as {state:?} and goes to {:?}",
                        changed.to()
                    )),
                    _ => {
                        if is_final(changed.to()) {
                            self.ended.insert(key, (changed.to(), false));
                        } else {
                            self.ended.remove(&key);
                        }
                        Ok(())
                    }
                }
            }
            (Some(Event::Collected(collected)), ended) => match ended {
                Some((state, _)) if state == collected.state() => {
                    self.ended.insert(key, (state, true));
                    Ok(())
                }
                _ => Err(format!(
                    "{tx_id} is collected as {:?} and ended as {ended:?}",
                    collected.state()
                )),
            },
            _ => Ok(()),
        }
    }
}

/// No engine signs a vote on what it knows to be over: its end is on the board and its
/// roll was called. Before that a slow trustee's vote is recorded as late (row 14).
fn signs(world: &World, place: usize, statement: &[u8]) -> Result<(), String> {
    let parsed = parse::<VoteBody>(statement);
    let (_, body) = parsed.map_err(|error| format!("a vote: {error}"))?;
    let tx_id: &TxId = &body.tx_id;
    let place = &world.places()[place];
    let board = place.engine().map(|engine| engine.board());
    let state = board.and_then(|board| match board.ballot(tx_id) {
        Some(ballot) => Some(ballot.state).filter(|state| is_final(*state) && ballot.roll_called),
        None => board.collected(tx_id),
    });
    let noted = place.journal().entries.get(tx_id);
    // What its journal calls ended the board may have taken up again (row 13).
    let noted = noted
        .and_then(|entry| entry.ended)
        .filter(|_| board.is_none_or(|board| board.ballot(tx_id).is_none()));
    match state.or(noted) {
        None => Ok(()),
        Some(state) => Err(format!(
            "a vote for {tx_id} is signed, which ended as {state:?}"
        )),
    }
}
