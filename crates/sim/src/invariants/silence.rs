//! "Deadline passed: members without a vote: SILENT_FAILURE, unless more than N − t are
//! absent: that is an outage, and nobody's fault" (section 5, row 15).

use quorate_consensus::wire::ViolationType;
use quorate_consensus::wire::board_event::Event;

use super::ledger::Ledgers;
use super::{Happening, Invariant, Sort};
use crate::world::World;

/// Nobody is marked silent in an outage, before the deadline, or having voted.
#[derive(Default)]
pub(super) struct Silence {
    ledgers: Ledgers,
}

impl Invariant for Silence {
    fn name(&self) -> &'static str {
        "silence"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        let Happening::Entry { view, entry } = what else {
            return Ok(());
        };
        let rules = world.rules();
        let Some(ledger) = self.ledgers.before(world, *view) else {
            return Ok(());
        };
        let silent = entry.events.iter().filter_map(|event| match &event.event {
            Some(Event::ViolationFound(found))
                if found.r#type() == ViolationType::SilentFailure =>
            {
                Some((&event.tx_id, &found.node_id))
            }
            _ => None,
        });
        for (tx_id, name) in silent {
            let Some(ballot) = ledger.ballots.get(tx_id) else {
                return Err(format!("{name} is silent in {tx_id}, which is no ballot"));
            };
            let absent = rules.members().map(|member| member.node_id.as_str());
            let absent = absent.filter(|name| !ballot.votes.contains_key(*name));
            let absent = absent.filter(|name| !ledger.banned.contains(*name)).count();
            let most = rules.total() - rules.threshold();
            if absent > most {
                return Err(format!(
                    "{name} is marked silent in {tx_id} while {absent} are absent, more than {most}"
                ));
            }
            if ballot.votes.contains_key(name) {
                return Err(format!("{name} has voted in {tx_id} and is marked silent"));
            }
            match ballot.deadline_ms(rules) {
                Some(deadline) if deadline <= entry.time_ms => {}
                deadline => {
                    return Err(format!(
                        "{name} is marked silent in {tx_id} at {}, before its deadline {deadline:?}",
                        entry.time_ms
                    ));
                }
            }
        }
        ledger.take_all(rules, entry);
        Ok(())
    }
}
