//! "What it is about to sign is first made durable"; "a node's own vote leaves it only
//! when the board has recorded it" (section 4); "effects: sign this (released only after
//! the guard is durable)" (section 8); "`now` … is refused when it is beyond the reader's
//! clock plus skew"; every reader follows the log "from a revision", entry by entry
//! (section 6).

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::Domain;
use quorate_consensus::statement::{AbortBody, DecisionBody, VoteBody};
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::{Batch, BoardEntry, frame};
use quorate_engine::{Effect, Event as Happens};

use super::parsed::parse;
use super::{Happening, Invariant, Sort};
use crate::world::World;

/// Effects come in the order that the design asks for.
#[derive(Default)]
pub(super) struct Stage {
    /// Statements of all votes that any of the store's boards has recorded.
    recorded: BTreeSet<Vec<u8>>,
    /// The revisions that each machine was shown since its process started.
    shown: BTreeMap<usize, BTreeSet<u64>>,
}

impl Invariant for Stage {
    fn name(&self) -> &'static str {
        "stage"
    }

    fn watches(&self) -> &'static [Sort] {
        &[
            Sort::Entry,
            Sort::Event,
            Sort::Effect,
            Sort::Answered,
            Sort::Started,
        ]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Entry { entry, .. } => {
                for event in &entry.events {
                    if let Some(Event::VoteRecorded(recorded)) = &event.event
                        && let Some(vote) = &recorded.vote
                    {
                        self.recorded.insert(vote.statement.clone());
                    }
                }
                Ok(())
            }
            Happening::Effect { place, effect } => match effect {
                Effect::Sign {
                    domain, statement, ..
                } => is_written(world, *place, *domain, statement),
                Effect::Send { frame, .. } => match &frame.body {
                    Some(frame::Body::Batch(batch)) => self.sends(world, *place, batch),
                    _ => Ok(()),
                },
                Effect::Propose { now_ms, .. } => match world.wall(*place) {
                    wall if wall == *now_ms => Ok(()),
                    wall => Err(format!(
                        "{} asks the board at {now_ms} when its clock shows {wall}",
                        world.node_id(*place)
                    )),
                },
                Effect::Believed { entries } => self.believes(world, *place, entries),
                _ => Ok(()),
            },
            Happening::Event {
                place,
                event: Happens::Entries { entries },
            } => {
                let shown = self.shown.entry(*place).or_default();
                shown.extend(entries.iter().map(|entry| entry.revision));
                Ok(())
            }
            Happening::Started { place } => {
                self.shown.remove(place);
                Ok(())
            }
            Happening::Answered {
                client,
                result: Ok(answer),
            } => match self.recorded.contains(&answer.vote.statement) {
                true => Ok(()),
                false => Err(format!(
                    "client {client} is told that its vote is recorded, and it is not"
                )),
            },
            _ => Ok(()),
        }
    }
}

impl Stage {
    fn believes(&self, world: &World, place: usize, entries: &[BoardEntry]) -> Result<(), String> {
        let latest = world.wall(place) + world.rules().clock_skew_ms();
        let shown = self.shown.get(&place);
        for entry in entries {
            let (name, revision) = (world.node_id(place), entry.revision);
            if entry.time_ms > latest {
                let ahead_ms = entry.time_ms - world.wall(place);
                return Err(format!(
                    "{name} believes revision {revision}, which is {ahead_ms} ms from the future"
                ));
            }
            // Behind a hole everything would get the number of the entry before it.
            if !shown.is_some_and(|shown| shown.contains(&revision)) {
                return Err(format!(
                    "{name} believes revision {revision}, which the store has not shown it"
                ));
            }
        }
        Ok(())
    }

    fn sends(&self, world: &World, place: usize, batch: &Batch) -> Result<(), String> {
        for vote in batch.votes.iter().filter_map(|traced| traced.vote.as_ref()) {
            if self.recorded.contains(&vote.statement) {
                continue;
            }
            let Ok((header, body)) = parse::<VoteBody>(&vote.statement) else {
                return Err(format!("{} sends what is no vote", world.node_id(place)));
            };
            if header.node_id == *world.node_id(place) && !world.is_liar(place) {
                return Err(format!(
                    "{} sends its vote for {} before the board has it",
                    header.node_id, body.tx_id
                ));
            }
        }
        Ok(())
    }
}

/// What is signed was made durable before.
fn is_written(world: &World, place: usize, domain: Domain, statement: &[u8]) -> Result<(), String> {
    let tx_id = match domain {
        Domain::Vote => parse::<VoteBody>(statement).map(|(_, body)| body.tx_id),
        Domain::Decision => parse::<DecisionBody>(statement).map(|(_, body)| body.tx_id),
        Domain::Abort => parse::<AbortBody>(statement).map(|(_, body)| body.tx_id),
        _ => return Ok(()),
    };
    let tx_id = tx_id.map_err(|error| error.to_string())?;
    let entry = world.places()[place].journal().entries.get(&tx_id);
    let written = entry.is_some_and(|entry| match domain {
        Domain::Vote => entry
            .guard
            .as_ref()
            .is_some_and(|(_, bytes)| bytes == statement),
        _ => {
            let verdict = entry.verdict.as_ref();
            verdict.is_some_and(|(kind, bytes)| *kind == domain && bytes == statement)
        }
    });
    match written {
        true => Ok(()),
        false => Err(format!(
            "{} signs a {domain:?} on {tx_id} that its journal does not hold",
            world.node_id(place)
        )),
    }
}
