//! "Every node watches the chain through its own read endpoint and signs what it observed
//! at the asked depth" (section 7, step 8).

use std::collections::BTreeMap;

use quorate_consensus::Domain;
use quorate_consensus::statement::ObservationBody;
use quorate_consensus::wire::ChainOutcome;
use quorate_engine::{ChainAnswer, ChainAsk, Effect, Event, Sighting, Ticket};

use super::parsed::parse;
use super::{Happening, Invariant, Sort};
use crate::world::World;

/// What an engine says of the chain is what its own endpoint showed it.
#[derive(Default)]
pub(super) struct Eyes {
    /// Looks under way, by machine: at which nonce.
    looks: BTreeMap<(usize, Ticket), u64>,
    /// What was shown last, by machine and nonce.
    shown: BTreeMap<(usize, u64), Sighting>,
}

impl Invariant for Eyes {
    fn name(&self) -> &'static str {
        "eyes"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Event, Sort::Effect, Sort::Died]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Effect {
                place,
                effect:
                    Effect::Chain {
                        ticket,
                        ask: ChainAsk::Look { nonce, .. },
                    },
            } => {
                self.looks.insert((*place, *ticket), *nonce);
                Ok(())
            }
            Happening::Event {
                place,
                event: Event::Chain { ticket, answer },
            } => {
                if let Some(nonce) = self.looks.remove(&(*place, *ticket))
                    && let ChainAnswer::Seen(sighting) = answer
                {
                    self.shown.insert((*place, nonce), sighting.clone());
                }
                Ok(())
            }
            Happening::Effect {
                place,
                effect:
                    Effect::Sign {
                        domain: Domain::Observation,
                        statement,
                        ..
                    },
            } => {
                let parsed = parse::<ObservationBody>(statement);
                let (_, body) = parsed.map_err(|error| error.to_string())?;
                let shown = self.shown.get(&(*place, body.nonce));
                match fits(world, *place, &body, shown) {
                    true => Ok(()),
                    false => Err(format!(
                        "{} says {:?} of {}, nonce {}; the chain showed it {shown:?}",
                        world.node_id(*place),
                        body.outcome,
                        body.tx_id,
                        body.nonce
                    )),
                }
            }
            Happening::Died { place, .. } => {
                self.looks.retain(|(asked, _), _| asked != place);
                self.shown.retain(|(asked, _), _| asked != place);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn fits(world: &World, place: usize, body: &ObservationBody, shown: Option<&Sighting>) -> bool {
    let confirmations = u64::from(world.rules().chain().confirmations);
    let engine = world.places()[place].engine();
    let ballot = engine.and_then(|engine| engine.board().ballot(&body.tx_id));
    let Some(ballot) = ballot else { return false };
    let Some(reservation) = &ballot.reservation else {
        return false;
    };
    if reservation.nonce != body.nonce {
        return false;
    }
    match (body.outcome, shown) {
        (ChainOutcome::Undone, Some(Sighting::Included { block_hash, .. })) => {
            *block_hash != body.block_hash
        }
        (ChainOutcome::Undone, Some(_)) => true,
        (
            outcome,
            Some(Sighting::Included {
                tx_hash,
                payload,
                succeeded,
                block_number,
                block_hash,
                depth,
            }),
        ) => {
            let ours = *payload == reservation.payload;
            let same = *tx_hash == body.tx_hash
                && *block_number == body.block_number
                && *block_hash == body.block_hash;
            let holds = match outcome {
                ChainOutcome::Confirmed => ours && *succeeded,
                ChainOutcome::Reverted => ours && !*succeeded,
                ChainOutcome::Cancelled => !ours && ballot.given_up && payload.is_empty(),
                ChainOutcome::NonceTaken => !ours,
                _ => false,
            };
            same && holds && *depth >= confirmations
        }
        _ => false,
    }
}
