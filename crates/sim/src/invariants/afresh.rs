//! "Read the reservation again (linearizable), then ask the chain …: ours → 8" before each
//! sending (section 7, step 6): what was read before it was signed may be old by now.

use std::collections::BTreeSet;

use quorate_engine::{ChainAsk, Effect};

use super::{Happening, Invariant, Sort};
use crate::world::World;
use crate::world::chain::read;

/// The board's head is read between signing and sending, and before each further sending.
#[derive(Default)]
pub(super) struct Afresh {
    /// By machine and nonce: signed or sent since the head was last read.
    stale: BTreeSet<(usize, u64)>,
}

impl Invariant for Afresh {
    fn name(&self) -> &'static str {
        "afresh"
    }

    fn watches(&self) -> &'static [Sort] {
        &[Sort::Effect, Sort::Died]
    }

    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Effect { place, effect } => match effect {
                Effect::ReadHead { .. } => self.stale.retain(|(of, _)| of != place),
                Effect::Chain { ask, .. } => match ask {
                    ChainAsk::Prepare { reservation, .. } => {
                        self.stale.insert((*place, reservation.nonce));
                    }
                    ChainAsk::Send { raw } => {
                        let nonce = read(raw).map_or(0, |(nonce, ..)| nonce);
                        if !self.stale.insert((*place, nonce)) {
                            return Err(format!(
                                "{} sends nonce {nonce} and has not read the board's head again",
                                world.node_id(*place)
                            ));
                        }
                    }
                    ChainAsk::Look { .. } => {}
                },
                _ => {}
            },
            Happening::Died { place, .. } => self.stale.retain(|(of, _)| of != place),
            _ => {}
        }
        Ok(())
    }
}
