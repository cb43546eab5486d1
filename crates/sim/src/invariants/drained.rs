//! "Bounded queues; a peer that cannot keep up is resynchronised, never waited for"
//! (section 9): when a queue has room again the peer gets what is open, once, and not
//! all that it has missed.

use std::collections::BTreeMap;

use quorate_consensus::wire::frame;
use quorate_engine::{Effect, Event, StreamId};

use super::{Happening, Invariant, Sort};
use crate::world::World;

/// Batches that a resynchronisation may need beside one for each so many transactions.
const MOST: usize = 1;
const TRANSACTIONS: usize = 32;

/// What follows on a full queue is bounded by what is open.
#[derive(Default)]
pub(super) struct Drained {
    /// By machine: the stream that has just drained, and the batches since.
    sent: BTreeMap<usize, (StreamId, usize)>,
}

impl Invariant for Drained {
    fn name(&self) -> &'static str {
        "drained"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Event, Sort::Effect]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Event { place, event } => {
                self.sent.remove(place);
                if let Event::Drained { stream } = event {
                    self.sent.insert(*place, (*stream, 0));
                }
                Ok(())
            }
            Happening::Effect {
                place,
                effect: Effect::Send { stream, frame },
            } if matches!(frame.body, Some(frame::Body::Batch(_))) => {
                let Some((drained, sent)) = self.sent.get_mut(place) else {
                    return Ok(());
                };
                *sent += usize::from(drained == stream);
                let engine = world.places()[*place].engine();
                let held = engine.map_or(0, |engine| engine.load().transactions);
                match *sent > MOST + held / TRANSACTIONS {
                    true => Err(format!(
                        "{} sends {sent} batches into a queue that was full, for {held} transactions",
                        world.node_id(*place)
                    )),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
