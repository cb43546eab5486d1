//! "A node that re-derived an abort signs an abort statement, and never both an abort
//! and a decision for one tx_id" (section 5); "a process that sees a newer generation of
//! itself stops signing" (section 4).

use std::collections::BTreeMap;

use quorate_consensus::ballot::is_aborted;
use quorate_consensus::statement::{AbortBody, DecisionBody};
use quorate_consensus::wire::{AbortReason, BallotState};
use quorate_consensus::{Domain, TxId};
use quorate_engine::Effect;

use super::parsed::parse;
use super::{Happening, Invariant, Sort, clocks, honest_store};
use crate::world::World;

/// What a node signs is what its own mirror of the board gives, and is one thing.
#[derive(Default)]
pub(super) struct Verdicts {
    /// By member and transaction: the kind that it has signed.
    said: BTreeMap<(usize, TxId), Domain>,
}

impl Invariant for Verdicts {
    fn name(&self) -> &'static str {
        "verdicts"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Effect]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Effect {
                place,
                effect: Effect::Sign {
                    domain, statement, ..
                },
            } if matches!(domain, Domain::Vote | Domain::Decision | Domain::Abort) => {
                let fine = self.signs(world, *place, *domain, statement);
                fine.map_err(|why| format!("{} {why}", world.node_id(*place)))
            }
            _ => Ok(()),
        }
    }
}

impl Verdicts {
    fn signs(
        &mut self,
        world: &World,
        place: usize,
        domain: Domain,
        statement: &[u8],
    ) -> Result<(), String> {
        let Some(engine) = world.places()[place].engine() else {
            return Err("signs and is not there".into());
        };
        if let Some(why) = engine.signing_stopped(clocks(world, place)) {
            return Err(format!("signs a {domain:?} although {why}"));
        }
        if !engine.is_in_service() {
            return Err(format!("signs a {domain:?} before it is in service"));
        }
        let board = engine.board();
        let tx_id = match domain {
            Domain::Decision => {
                let parsed = parse::<DecisionBody>(statement);
                let (_, body) = parsed.map_err(|error| error.to_string())?;
                let justified = board.ballot(&body.tx_id).is_some_and(|ballot| {
                    let reserved = matches!(
                        ballot.state,
                        BallotState::Submitted | BallotState::Confirmed | BallotState::Failed
                    );
                    reserved
                        && body.reservation.is_some()
                        && ballot.reservation == body.reservation
                        && ballot.value.as_ref() == Some(&body.value)
                });
                if !justified {
                    return Err(format!("decides {}, which its board does not", body.tx_id));
                }
                body.tx_id
            }
            Domain::Abort => {
                let parsed = parse::<AbortBody>(statement);
                let (_, body) = parsed.map_err(|error| error.to_string())?;
                let state = board.ballot(&body.tx_id).map(|ballot| ballot.state);
                let reason = match state {
                    Some(state) if !is_aborted(state) => None,
                    Some(BallotState::AbortedByzantine) => Some(AbortReason::Byzantine),
                    Some(BallotState::AbortedSplit) => Some(AbortReason::Split),
                    Some(_) => Some(AbortReason::Timeout),
                    None => None,
                };
                if reason != Some(body.reason) {
                    return Err(format!(
                        "says that {} is dead, where its board has {state:?}",
                        body.tx_id
                    ));
                }
                body.tx_id
            }
            _ => return Ok(()),
        };
        // Two machines of one trustee are a liar, and so, beside a lying store, is a
        // trustee that lost its memory.
        let member = world.places()[place].member();
        let forgot = world.has_forgotten(member) && !honest_store(world);
        let first = self.said.entry((member, tx_id.clone())).or_insert(domain);
        if *first != domain && !forgot && !world.is_liar_member(member) {
            return Err(format!("signs {first:?} and {domain:?} for {tx_id}"));
        }
        Ok(())
    }
}
