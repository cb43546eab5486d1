//! What must always hold, one file each, with the sentence of the design that asks for
//! it. An invariant sees everything that happens in a world, and judges; it knows more
//! than any member could, and tells nobody.

use quorate_consensus::statement::Body;
use quorate_consensus::wire::{self, BoardEntry, SignedStatement};
use quorate_consensus::{NodeId, Verifier};
use quorate_engine::{Answer, Effect, Event, Now, Reject};
use quorate_keyspace::{Finding, OpId, Reply};

use quorate_testkit::FakeVerifier;

use crate::liars::Lie;
use crate::plan::Disk;
use crate::world::World;
use crate::world::chain::Mined;
use parsed::parse;

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
    /// A reader of keys found something that no node does.
    Found {
        /// Where it runs.
        place: usize,
        /// What.
        finding: &'a Finding,
    },
    /// An engine is about to be told what became of its operation on the keys.
    Told {
        /// Where it runs.
        place: usize,
        /// The operation's name.
        id: OpId,
        /// What it is told.
        reply: &'a Reply,
    },
    /// An operation's record got into the log that the keys hold.
    Recorded {
        /// The operation's name.
        id: OpId,
        /// Its entry.
        revision: u64,
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

/// What sort of happening it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// [`Happening::Entry`].
    Entry,
    /// [`Happening::Event`].
    Event,
    /// [`Happening::Effect`].
    Effect,
    /// [`Happening::Lied`].
    Lied,
    /// [`Happening::Answered`].
    Answered,
    /// [`Happening::Found`].
    Found,
    /// [`Happening::Told`].
    Told,
    /// [`Happening::Recorded`].
    Recorded,
    /// [`Happening::Mined`].
    Mined,
    /// [`Happening::Undone`].
    Undone,
    /// [`Happening::Died`].
    Died,
    /// [`Happening::Started`].
    Started,
}

impl Sort {
    /// All of them, each at the place that its number gives it.
    pub const ALL: &[Self] = &[
        Self::Entry,
        Self::Event,
        Self::Effect,
        Self::Lied,
        Self::Answered,
        Self::Found,
        Self::Told,
        Self::Recorded,
        Self::Mined,
        Self::Undone,
        Self::Died,
        Self::Started,
    ];
}

impl Happening<'_> {
    /// Its sort.
    pub fn sort(&self) -> Sort {
        match self {
            Self::Entry { .. } => Sort::Entry,
            Self::Event { .. } => Sort::Event,
            Self::Effect { .. } => Sort::Effect,
            Self::Lied { .. } => Sort::Lied,
            Self::Answered { .. } => Sort::Answered,
            Self::Found { .. } => Sort::Found,
            Self::Told { .. } => Sort::Told,
            Self::Recorded { .. } => Sort::Recorded,
            Self::Mined(_) => Sort::Mined,
            Self::Undone(_) => Sort::Undone,
            Self::Died { .. } => Sort::Died,
            Self::Started { .. } => Sort::Started,
        }
    }
}

/// Something that must always hold. Errors say what broke it.
pub trait Invariant: Send {
    /// Its name: that of its file.
    fn name(&self) -> &'static str;

    /// The sorts of happenings that it is shown: there are many, and most invariants
    /// judge few of them.
    fn watches(&self) -> &'static [Sort];

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
mod parsed;
#[cfg(test)]
mod tests;

/// The store keeps one board and shows it as it is.
fn honest_store(world: &World) -> bool {
    let views = world.store().views();
    views.len() == 1 && views.iter().all(|view| !view.is_forged())
}

/// Whether statements bind at all: while the store is honest and fewer than t members
/// lie, and on a lying store while fewer than 2t − N do. There a trustee that lost its
/// disk counts as a liar: nothing else remembers for it.
fn is_binding(world: &World) -> bool {
    let (n, t) = (world.rules().total(), world.rules().threshold());
    let liars = n - world.honest().count();
    if honest_store(world) {
        return liars < t;
    }
    let forgetful = (0..n).filter(|member| world.has_forgotten(*member));
    let forgetful = forgetful.filter(|member| !world.is_liar_member(*member));
    liars + forgetful.count() + n < 2 * t
}

/// Who says what, if the signature is good. Put together here from parts, lest the
/// judge believe what the accused does.
fn verified<B: Body + Clone + 'static>(
    world: &World,
    signed: &SignedStatement,
) -> Result<(NodeId, B), String> {
    let parsed = parse::<B>(&signed.statement);
    let (header, body) = parsed.map_err(|error| error.to_string())?;
    let rules = world.rules();
    if header.cluster_id != rules.cluster_id() || header.rules_digest != rules.digest() {
        return Err(format!("{} signed under other rules", header.node_id));
    }
    let Some(member) = world.cluster().index(&header.node_id) else {
        return Err(format!("{} is no member", header.node_id));
    };
    let key = world.cluster().key(member, B::KEY);
    match FakeVerifier.verify(key, B::DOMAIN, &signed.statement, &signed.signature) {
        true => Ok((header.node_id, body)),
        false => Err(format!("the signature of {} is not good", header.node_id)),
    }
}

/// The two clocks of a machine.
fn clocks(world: &World, place: usize) -> Now {
    Now {
        wall_ms: world.wall(place),
        mono_ms: world.now_ms(),
    }
}

/// Whom an entry of the board bans.
fn banned_by(entry: &BoardEntry) -> impl Iterator<Item = &str> {
    entry.events.iter().filter_map(|event| match &event.event {
        Some(wire::board_event::Event::Banned(banned)) => Some(banned.node_id.as_str()),
        _ => None,
    })
}

macro_rules! invariants {
    ($($module:ident $type:ident,)*) => {
        $(mod $module;)*

        /// A fresh set of all invariants.
        pub fn all() -> Vec<Box<dyn Invariant>> {
            vec![$(Box::<$module::$type>::default()),*]
        }

        /// Their names, and what they are written as.
        #[cfg(test)]
        const SOURCES: &[(&str, &str)] =
            &[$((stringify!($module), include_str!(concat!(stringify!($module), ".rs")))),*];
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
    pardoned Pardoned,
    rounds Rounds,
    afresh Afresh,
    drained Drained,
    lawful Lawful,
    welcome Welcome,
    caught Caught,
    acknowledged Acknowledged,
    burned Burned,
    order Order,
    audit Audit,
    answered Answered,
    tampering Tampering,
    bounded Bounded,
    liveness Liveness,
}
