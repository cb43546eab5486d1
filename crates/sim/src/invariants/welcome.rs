//! "Lifting a ban takes t such acts" (section 5), and then it is lifted: whoever is
//! neither banned nor accused by a node is welcome there, after a restart too.

use super::{Happening, Invariant, Sort, honest_store};
use crate::world::World;

/// Nobody is refused without a ban or an accusation.
#[derive(Default)]
pub(super) struct Welcome;

impl Invariant for Welcome {
    fn name(&self) -> &'static str {
        "welcome"
    }

    fn watches(&self) -> &'static [Sort] {
        &[]
    }

    fn sees(&mut self, _world: &World, _what: &Happening<'_>) -> Result<(), String> {
        Ok(())
    }

    fn ends(&mut self, world: &World) -> Result<(), String> {
        if !honest_store(world) {
            return Ok(());
        }
        let board = world.store().views()[0].board();
        for (index, place) in world.places().iter().enumerate() {
            let own = world.node_id(index);
            let Some(engine) = place.engine() else {
                continue;
            };
            let is_behind = engine.board().revision() < board.revision();
            // A banned member's accusations reach the board no more.
            if world.is_liar(index) || is_behind || board.is_banned(own) {
                continue;
            }
            for refused in place.unwelcome() {
                let accused = board.member(refused);
                let accused = accused.is_some_and(|m| m.accusations.contains_key(own));
                if !accused && !board.is_banned(refused) {
                    return Err(format!(
                        "{own} refuses {refused}, which it has not accused and nobody has banned"
                    ));
                }
            }
        }
        Ok(())
    }
}
