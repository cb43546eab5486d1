//! "Operations carry an id, so that a retry after a lost reply is the same operation"
//! (section 6): what an engine is told of its operation is what became of it, however
//! often it was sent. Asked where the board lies in keys.

use std::collections::BTreeMap;

use quorate_keyspace::{OpId, Reply};

use super::{Happening, Invariant, Sort, honest_store};
use crate::world::World;

/// An answer is the answer to what was asked.
#[derive(Default)]
pub(super) struct Answered {
    /// The entries that operations became.
    recorded: BTreeMap<OpId, u64>,
    /// Operations that were told to be refused.
    refused: BTreeMap<OpId, String>,
}

impl Invariant for Answered {
    fn name(&self) -> &'static str {
        "answered"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Told, Sort::Recorded]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Recorded { id, revision } => {
                self.recorded.insert(*id, *revision);
                match self.refused.get(id) {
                    Some(refusal) if honest_store(world) => Err(format!(
                        "revision {revision} is an operation that was told to be refused: {refusal}"
                    )),
                    _ => Ok(()),
                }
            }
            Happening::Told { place, id, reply } if honest_store(world) => {
                // A reader that lacks a record judges otherwise until it starts again.
                if !world.places()[*place].reads_whole() {
                    return Ok(());
                }
                if let Reply::Refused(refusal) = reply {
                    self.refused.insert(*id, refusal.to_string());
                }
                let name = world.node_id(*place);
                match (reply, self.recorded.get(id)) {
                    (Reply::Applied(told), Some(revision)) if told == revision => Ok(()),
                    (Reply::Unchanged(_) | Reply::Refused(_), None) => Ok(()),
                    // The board had it then; a sending of it arrived after that.
                    (Reply::Unchanged(told), Some(revision)) if revision > told => Ok(()),
                    (told, revision) => Err(format!(
                        "{name} is told {told:?} of an operation that is in the log at {revision:?}"
                    )),
                }
            }
            _ => Ok(()),
        }
    }
}
