//! "The audit store is a projection" of the board's event log (section 6): its rows are
//! the log's reservations, each the latest of its transaction, and signed bytes are kept
//! for nothing else.

use std::collections::BTreeMap;

use quorate_consensus::wire::Reservation;
use quorate_consensus::wire::board_event::Event;

use super::{Happening, Invariant, Sort, honest_store};
use crate::world::World;

/// The audit tables equal the event log.
#[derive(Default)]
pub(super) struct Audit {
    /// All reservations ever made: by transaction, oldest first.
    reserved: BTreeMap<String, Vec<Reservation>>,
}

impl Invariant for Audit {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Entry]
    }

    fn sees(&mut self, _world: &World, what: &Happening<'_>) -> Result<(), String> {
        if let Happening::Entry { view: 0, entry } = what {
            for event in &entry.events {
                if let Some(Event::Reserved(reserved)) = &event.event {
                    let all = self.reserved.entry(event.tx_id.clone()).or_default();
                    all.extend(reserved.reservation.clone());
                }
            }
        }
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        if !honest_store(world) || world.plan().has_lying_store() {
            return Ok(());
        }
        let audit = world.audit();
        for (tx_id, row) in audit.rows() {
            let all = self.reserved.get(tx_id.as_str());
            if all.is_none_or(|all| !all.contains(row)) {
                return Err(format!("the row of {tx_id} is no reservation: {row:?}"));
            }
        }
        for (tx_id, nonce) in audit.variants().keys() {
            let all = self.reserved.get(tx_id.as_str()).into_iter().flatten();
            if !all.clone().any(|reservation| reservation.nonce == *nonce) {
                return Err(format!(
                    "{tx_id} was signed for nonce {nonce}, not reserved"
                ));
            }
        }
        let read = audit.projected() as usize == world.store().views()[0].log().len();
        for (tx_id, all) in self.reserved.iter().filter(|_| read) {
            let row = audit.rows().iter().find(|(id, _)| id.as_str() == tx_id);
            if row.map(|(_, row)| row) != all.last() {
                return Err(format!(
                    "{tx_id} is reserved as {:?}, and its row is {row:?}",
                    all.last()
                ));
            }
        }
        Ok(())
    }
}
