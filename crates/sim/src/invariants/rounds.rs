//! Row 13: "a deeper reorganisation undid it" (section 5). What was observed before a
//! conclusion says nothing about what came after: t observations of *this* round.

use std::collections::BTreeMap;

use quorate_consensus::statement::ObservationBody;
use quorate_consensus::wire::board_event::Event;
use quorate_consensus::wire::board_op::Op;

use super::parsed::parse;
use super::{Happening, Invariant, Sort, honest_store};
use crate::world::World;

/// Old observations conclude nothing.
#[derive(Default)]
pub(super) struct Rounds {
    /// How often each transaction was concluded or undone.
    concluded: BTreeMap<String, u32>,
}

impl Invariant for Rounds {
    fn name(&self) -> &'static str {
        "rounds"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        let Happening::Entry { entry, .. } = what else {
            return Ok(());
        };
        let Some(Op::Conclude(op)) = entry.op.as_ref().and_then(|op| op.op.as_ref()) else {
            return Ok(());
        };
        if !honest_store(world) {
            return Ok(());
        }
        let round = self.concluded.entry(op.tx_id.clone()).or_default();
        for signed in &op.observations {
            let parsed = parse::<ObservationBody>(&signed.statement);
            let (header, body) = parsed.map_err(|error| format!("an observation: {error}"))?;
            if body.round != *round {
                return Err(format!(
                    "{} is concluded in round {round} by what {} saw in round {}",
                    op.tx_id, header.node_id, body.round
                ));
            }
        }
        let concludes = |event: &Event| matches!(event, Event::Concluded(_));
        let mut events = entry.events.iter().filter_map(|event| event.event.as_ref());
        *round += u32::from(events.any(concludes));
        Ok(())
    }
}
