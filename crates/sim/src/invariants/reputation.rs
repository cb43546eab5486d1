//! "Reputation is an integer of thousandths, starts at 1000, stays in 0–1000, grows by
//! 10 with each good vote, and is a pure function of the board's events" (section 5).

use quorate_consensus::wire::board_event::Event;

use super::ledger::Ledgers;
use super::{Happening, Invariant, Sort};
use crate::world::World;

/// Every member's reputation is what the log's events give.
#[derive(Default)]
pub(super) struct Reputation {
    ledgers: Ledgers,
}

impl Invariant for Reputation {
    fn name(&self) -> &'static str {
        "reputation"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        let Happening::Entry { view, entry } = what else {
            return Ok(());
        };
        let Some(ledger) = self.ledgers.before(world, *view) else {
            return Ok(());
        };
        ledger.take_all(world.rules(), entry);
        for event in &entry.events {
            if let Some(Event::ReputationChanged(changed)) = &event.event {
                let name = &changed.node_id;
                let board = world.store().views()[*view].board();
                let member = quorate_consensus::NodeId::new(name);
                let member = member.ok().and_then(|id| board.member(&id));
                let held = member.map_or(0, |member| member.reputation);
                if held != ledger.reputation(name) {
                    return Err(format!(
                        "{name} has {held} thousandths where the log gives {}",
                        ledger.reputation(name)
                    ));
                }
            }
        }
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        for (index, view) in world.store().views().iter().enumerate() {
            let Some(ledger) = self.ledgers.now(world, index) else {
                continue;
            };
            for member in world.rules().members() {
                let name = &member.node_id;
                let held = view.board().member(name).map(|state| state.reputation);
                let given = ledger.reputation(name.as_str());
                if held != Some(given) {
                    return Err(format!(
                        "{name} has {held:?} thousandths where the log gives {given}"
                    ));
                }
            }
        }
        Ok(())
    }
}
