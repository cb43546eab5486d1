//! What must always hold, one file each, with the sentence of the design that asks for
//! it. An invariant sees everything that happens in a world, and judges; it knows more
//! than any member could, and tells nobody.

use quorate_consensus::wire::BoardEntry;
use quorate_engine::{Answer, Effect, Event, Now, Reject};

use crate::liars::Lie;
use crate::plan::Disk;
use crate::world::World;
use crate::world::chain::Mined;

/// What an invariant is shown.
#[derive(Debug)]
pub enum Happening<'a> {
    /// The store's board took an operation. Lying stores keep several boards; an
    /// honest one has view 0 only. (What a lying store forges is not shown here.)
    Entry {
        /// Which of the store's boards.
        view: usize,
        /// Its new entry.
        entry: &'a BoardEntry,
    },
    /// An engine is about to be given an event.
    Event {
        /// Where it runs: an index of [`World::places`].
        place: usize,
        /// The event.
        event: &'a Event,
    },
    /// An engine's effect is about to be carried out.
    Effect {
        /// Where it runs.
        place: usize,
        /// The effect.
        effect: &'a Effect,
    },
    /// A liar does something.
    Lied {
        /// Where it lives.
        place: usize,
        /// What it does.
        lie: &'a Lie,
    },
    /// A client heard an answer; it asks again unless that is final.
    Answered {
        /// Which: an index of [`World::clients`].
        client: usize,
        /// The answer.
        result: &'a Result<Answer, Reject>,
    },
    /// The chain put a transaction into a block.
    Mined(&'a Mined),
    /// The chain took a transaction out of its last blocks.
    Undone(&'a Mined),
    /// A process died.
    Died {
        /// Where.
        place: usize,
        /// What is left of its disk.
        disk: Disk,
    },
    /// A process started.
    Started {
        /// Where.
        place: usize,
    },
}

/// Something that must always hold. Errors say what broke it.
pub trait Invariant: Send {
    /// Its name: that of its file.
    fn name(&self) -> &'static str;

    /// Judges one happening, before it has any effect but on the store's boards, which
    /// already hold a new entry.
    fn sees(&mut self, world: &World, what: &Happening<'_>) -> Result<(), String>;

    /// Judges the end: all faults are over and the world has come to rest, or its time
    /// is up.
    fn ends(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}

mod ledger;

/// The store keeps one board and shows it as it is.
fn honest_store(world: &World) -> bool {
    let views = world.store().views();
    views.len() == 1 && views.iter().all(|view| !view.is_forged())
}

/// The two clocks of a machine.
fn clocks(world: &World, place: usize) -> Now {
    Now {
        wall_ms: world.wall(place),
        mono_ms: world.now_ms(),
    }
}

macro_rules! invariants {
    ($($module:ident $type:ident,)*) => {
        $(mod $module;)*

        /// A fresh set of all invariants.
        pub fn all() -> Vec<Box<dyn Invariant>> {
            vec![$(Box::<$module::$type>::default()),*]
        }
    };
}

invariants! {
    agreement Agreement,
    threshold Threshold,
    once Once,
    innocent Innocent,
    guard Guard,
    verdicts Verdicts,
    finished Finished,
    stage Stage,
    eyes Eyes,
    table Table,
    silence Silence,
    reputation Reputation,
    proven_bans ProvenBans,
    caught Caught,
    acknowledged Acknowledged,
    burned Burned,
    order Order,
    audit Audit,
    bounded Bounded,
    liveness Liveness,
}
