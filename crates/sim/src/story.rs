//! A readable story of one schedule: who did what at which simulated time.

use crate::invariants::Happening;
use crate::plan::Act;
use crate::world::World;

/// The lines so far.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// In order of time.
    pub lines: Vec<String>,
}

impl Story {
    /// The plan does something.
    pub(crate) fn act(&mut self, world: &World, act: &Act) {
        self.lines.push(format!("{:>8} {act:?}", world.now_ms()));
    }

    /// Something happened.
    pub(crate) fn tell(&mut self, world: &World, what: &Happening<'_>) {
        if let Happening::Entry { entry, .. } = what {
            self.lines.push(format!("{:>8} {entry:?}", world.now_ms()));
        }
    }
}
