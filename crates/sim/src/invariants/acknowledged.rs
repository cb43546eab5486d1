//! "Nothing acknowledged is lost" (section 12): a vote that a client was told of stays on
//! the board until row 7 removes its ballot or the ballot is collected.

use std::collections::BTreeSet;

use quorate_consensus::wire::board_event::Event;

use super::{Happening, Invariant, Sort, honest_store};
use crate::world::World;

/// Acknowledged votes survive.
#[derive(Default)]
pub(super) struct Acknowledged {
    /// Transactions whose ballots were removed, and when.
    removed: BTreeSet<String>,
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, _world: &World, what: &Happening<'_>) -> Result<(), String> {
        if let Happening::Entry { entry, .. } = what {
            for event in &entry.events {
                if let Some(Event::Expired(_) | Event::Collected(_)) = &event.event {
                    self.removed.insert(event.tx_id.clone());
                }
            }
        }
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        if !honest_store(world) {
            return Ok(());
        }
        let board = world.store().views()[0].board();
        for client in world.clients() {
            let Some((_, answer)) = &client.acknowledged else {
                continue;
            };
            let tx_id = client.tx.id();
            if self.removed.contains(tx_id.as_str()) {
                continue;
            }
            let node_id = world.cluster().node_id(client.node);
            let ballot = board.ballot(&tx_id);
            let recorded = ballot.and_then(|ballot| ballot.votes.get(&node_id));
            if recorded.is_none_or(|recorded| recorded.vote.signed != answer.vote) {
                return Err(format!(
                    "the vote of {node_id} on {tx_id} was acknowledged and is not on the board"
                ));
            }
        }
        Ok(())
    }
}
