//! "Only open ballots live in memory" (section 8); "bounded queues; a peer that cannot
//! keep up is resynchronised, never waited for" (section 9). What an engine holds is
//! bounded by what is open, and a queue that is full is not written to.

use std::collections::BTreeSet;

use quorate_consensus::wire::frame;
use quorate_engine::{Effect, Event, StreamId};

use super::{Happening, Invariant, Sort, honest_store};
use crate::world::World;

/// Memory, queues and timers are bounded by what is open.
#[derive(Default)]
pub(super) struct Bounded {
    /// Streams whose queues are full.
    full: BTreeSet<(usize, StreamId)>,
}

impl Invariant for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Event, Sort::Effect, Sort::Died]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Event { place, event } => {
                match event {
                    Event::QueueFull { stream } => {
                        self.full.insert((*place, *stream));
                    }
                    // Told of before it stood, it was told of for nothing.
                    Event::StreamUp { stream, .. }
                    | Event::Drained { stream }
                    | Event::StreamDown { stream } => {
                        self.full.remove(&(*place, *stream));
                    }
                    _ => {}
                }
                Ok(())
            }
            Happening::Effect { place, effect } => match effect {
                Effect::Send { stream, frame } => {
                    let batch = matches!(frame.body, Some(frame::Body::Batch(_)));
                    match batch && self.full.contains(&(*place, *stream)) {
                        false => Ok(()),
                        true => Err(format!(
                            "{} writes to a queue that is full",
                            world.node_id(*place)
                        )),
                    }
                }
                Effect::Propose { .. } => judge(world, *place),
                _ => Ok(()),
            },
            Happening::Died { place, .. } => {
                self.full.retain(|(machine, _)| machine != place);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        (0..world.places().len()).try_for_each(|place| judge(world, place))
    }
}

fn judge(world: &World, place: usize) -> Result<(), String> {
    let Some(engine) = world.places()[place].engine() else {
        return Ok(());
    };
    // On a store that lies an engine stops for good, with all that it holds.
    if !honest_store(world) {
        return Ok(());
    }
    let load = engine.load();
    let open = engine.board().ballots().count();
    // A transaction is known because the board has it, a vote for it is on its
    // way there, or a client or the journal is being asked about it.
    let caused = open + load.own_votes + load.held_votes + load.requests + load.questions;
    let bounds = [
        ("transactions", load.transactions, caused),
        // Who streams, and what waits, has an alarm each; and there are four more.
        (
            "timers",
            load.timers,
            load.transactions + 2 * load.streams + 4,
        ),
        ("requests", load.requests, world.clients().len()),
    ];
    for (what, found, most) in bounds {
        if found > most {
            return Err(format!(
                "{} holds {found} {what}, more than {most}: {load:?}, {open} ballots",
                world.node_id(place)
            ));
        }
    }
    Ok(())
}
