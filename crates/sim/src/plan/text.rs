//! Plans as text: one line for each thing that is said, `#` begins a comment, empty
//! lines mean nothing. What is printed is read back the same.
//!
//! First the cluster, in any order; only `nodes` must be there, and be the first:
//!
//! ```text
//! nodes 5               # N
//! board keys            # what the board lies in; log if left out
//! threshold 4           # t; two thirds of N, rounded up, if left out
//! dissent abort         # or outvote
//! silence mark          # or ban
//! timeout 5000          # vote timeout, in milliseconds, as all times
//! settle 50             # settle window
//! skew 200              # clock skew
//! confirmations 1
//! submitters 5          # the first so many hold the chain key; all if left out
//! seed 17               # 0 if left out
//! liar node3 equivocator
//! noise frame 1..20 lost 5   # what differs from quiet: see Noise
//! calm 9000             # when the faults stop; 500 after the last step if left out
//! ```
//!
//! Then the steps, each `at` its time:
//!
//! ```text
//! at 1200 vote node1 tx-3 42
//! at 1200 vote node2 tx-3 0x00ff signed +150
//! at 1300 vote node4 tx-3 abstain
//! at 1400 crash node3 after 12 unsynced down 500   # or kept, lost, restored
//! at 1500 partition node1,node2 for 1000
//! ```
//!
//! The other steps read alike: see [`Act`]'s `Display`, and `golden/` for examples.

use std::fmt;

use quorate_consensus::wire::{DissentPolicy, SilencePolicy};
use quorate_consensus::{Choice, Value};

use super::{Act, BoardKind, Disk, Forgery, Handed, Noise, Plan, Shape, Step, Tx};

mod read;

/// Why a text is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PlanTextError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line of a plan's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Another word than could stand there.
    #[error("{found:?} must be {right}")]
    Unexpected {
        /// The word.
        found: String,
        /// What would be right.
        right: String,
    },
    /// The line ends too early.
    #[error("something is missing: {right} comes next")]
    Missing {
        /// What would come next.
        right: String,
    },
    /// The line goes on.
    #[error("the line is complete before {found:?}")]
    Surplus {
        /// The first word too many.
        found: String,
    },
    /// Said twice.
    #[error("{0} was said before: say it once")]
    Twice(String),
    /// The number of nodes must be known before anything else is read.
    #[error("the first line must be `nodes` and a number from 1 to 100")]
    NodesFirst,
}

/// The id of a member by its index, as the cluster of so many nodes has it.
pub(crate) struct Member {
    /// From 0.
    pub(crate) index: usize,
    /// N.
    pub(crate) nodes: usize,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.nodes.to_string().len();
        write!(f, "node{:0width$}", self.index + 1)
    }
}

/// Members, or `nobody`.
struct Side<'a> {
    side: &'a [usize],
    nodes: usize,
}

impl fmt::Display for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.side.is_empty() {
            return f.write_str("nobody");
        }
        for (position, index) in self.side.iter().copied().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            let nodes = self.nodes;
            write!(f, "{}", Member { index, nodes })?;
        }
        Ok(())
    }
}

impl fmt::Display for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tx-{}", self.0)
    }
}

impl Disk {
    const ALL: &[Self] = &[Self::Kept, Self::Unsynced, Self::Lost, Self::Restored];

    /// Its name in a plan's text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Unsynced => "unsynced",
            Self::Lost => "lost",
            Self::Restored => "restored",
        }
    }
}

impl Forgery {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Vote,
        Self::Move,
        Self::Ban,
        Self::Reservation,
        Self::Certificate,
        Self::Deletion,
        Self::Events,
        Self::Hole,
        Self::Count,
        Self::State,
        Self::Member,
        Self::Rules,
        Self::Nonce,
        Self::Unban,
        Self::Overwrite,
        Self::Past,
        Self::Head,
        Self::Everything,
    ];

    /// Its name in a plan's text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Move => "move",
            Self::Ban => "ban",
            Self::Reservation => "reservation",
            Self::Certificate => "certificate",
            Self::Deletion => "deletion",
            Self::Events => "events",
            Self::Hole => "hole",
            Self::Count => "count",
            Self::State => "state",
            Self::Member => "member",
            Self::Rules => "rules",
            Self::Nonce => "nonce",
            Self::Unban => "unban",
            Self::Overwrite => "overwrite",
            Self::Past => "past",
            Self::Head => "head",
            Self::Everything => "everything",
        }
    }
}

impl BoardKind {
    /// Both.
    pub const ALL: &[Self] = &[Self::Log, Self::Keys];

    /// Its name in a plan's text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Keys => "keys",
        }
    }
}

fn dissent_name(policy: DissentPolicy) -> &'static str {
    match policy {
        DissentPolicy::Outvote => "outvote",
        _ => "abort",
    }
}

fn silence_name(policy: SilencePolicy) -> &'static str {
    match policy {
        SilencePolicy::Ban => "ban",
        _ => "mark",
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nodes {}", self.nodes)?;
        writeln!(f, "threshold {}", self.threshold)?;
        writeln!(f, "dissent {}", dissent_name(self.dissent))?;
        writeln!(f, "silence {}", silence_name(self.silence))?;
        writeln!(f, "timeout {}", self.vote_timeout_ms)?;
        writeln!(f, "settle {}", self.settle_window_ms)?;
        writeln!(f, "skew {}", self.clock_skew_ms)?;
        writeln!(f, "confirmations {}", self.confirmations)?;
        writeln!(f, "submitters {}", self.submitters)
    }
}

impl fmt::Display for Noise {
    /// What differs from [`Noise::QUIET`], each after a blank.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quiet = Self::QUIET;
        let spans = [
            ("frame", self.frame_ms, quiet.frame_ms),
            ("store", self.store_ms, quiet.store_ms),
            ("watch", self.watch_ms, quiet.watch_ms),
            ("answer", self.answer_ms, quiet.answer_ms),
        ];
        for (name, (least, most), usual) in spans {
            if (least, most) != usual {
                write!(f, " {name} {least}..{most}")?;
            }
        }
        let numbers = [
            ("twice", u64::from(self.twice)),
            ("overtaken", self.overtaken.into()),
            ("lost", self.lost.into()),
            ("vanished", self.vanished.into()),
            ("reply-lost", self.reply_lost.into()),
            ("store-refuses", self.store_refuses.into()),
            ("chain-lost", self.chain_lost.into()),
            ("clock-off", self.clock_off_ms),
        ];
        for (name, number) in numbers {
            if number != 0 {
                write!(f, " {name} {number}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.shape.nodes;
        write!(f, "{}", self.shape)?;
        writeln!(f, "board {}", self.board.name())?;
        writeln!(f, "seed {}", self.seed)?;
        for (index, kind) in &self.liars {
            let index = *index;
            writeln!(f, "liar {} {}", Member { index, nodes }, kind.name())?;
        }
        if self.noise != Noise::QUIET {
            writeln!(f, "noise{}", self.noise)?;
        }
        writeln!(f, "calm {}", self.calm_ms)?;
        for Step { at_ms, act } in &self.steps {
            writeln!(f, "at {at_ms} {}", act.text(nodes))?;
        }
        Ok(())
    }
}

impl Act {
    /// The act in words, as a plan of so many nodes has it.
    pub fn text(&self, nodes: usize) -> impl fmt::Display + '_ {
        ActText { act: self, nodes }
    }
}

struct ActText<'a> {
    act: &'a Act,
    nodes: usize,
}

impl ActText<'_> {
    fn member(&self, index: usize) -> Member {
        let nodes = self.nodes;
        Member { index, nodes }
    }

    fn side<'a>(&self, side: &'a [usize]) -> Side<'a> {
        let nodes = self.nodes;
        Side { side, nodes }
    }

    /// Something that is away for all, or from one member only.
    fn away(
        &self,
        f: &mut fmt::Formatter<'_>,
        what: &str,
        node: Option<usize>,
        for_ms: u64,
    ) -> fmt::Result {
        write!(f, "{what} away")?;
        if let Some(node) = node {
            write!(f, " from {}", self.member(node))?;
        }
        write!(f, " for {for_ms}")
    }
}

impl fmt::Display for ActText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |index: usize| self.member(index);
        match self.act {
            Act::Vote {
                node,
                tx,
                choice,
                handed,
            } => {
                write!(f, "vote {} {tx} ", id(*node))?;
                match choice {
                    Choice::Abstention => f.write_str("abstain")?,
                    Choice::Value(Value::Number(number)) => write!(f, "{number}")?,
                    Choice::Value(value) => write!(f, "{value}")?,
                }
                match handed {
                    Handed::Choice => Ok(()),
                    Handed::Signed(off_ms) => write!(f, " signed {off_ms:+}"),
                }
            }
            Act::Crash {
                node,
                effects,
                disk,
                down_ms,
            } => {
                write!(f, "crash {}", id(*node))?;
                if *effects > 0 {
                    write!(f, " after {effects}")?;
                }
                write!(f, " {} down {down_ms}", disk.name())
            }
            Act::Backup { node } => write!(f, "backup {}", id(*node)),
            Act::Sleep { for_ms } => write!(f, "sleep for {for_ms}"),
            Act::Partition { side, for_ms } => {
                write!(f, "partition {} for {for_ms}", self.side(side))
            }
            Act::Bridge {
                bridge,
                side,
                for_ms,
            } => {
                let (bridge, side) = (id(*bridge), self.side(side));
                write!(f, "bridge {bridge} side {side} for {for_ms}")
            }
            Act::OneWay { from, to, for_ms } => {
                write!(f, "one-way {} to {} for {for_ms}", id(*from), id(*to))
            }
            Act::Break { a, b } => write!(f, "break {} {}", id(*a), id(*b)),
            Act::Full { node, for_ms } => write!(f, "full {} for {for_ms}", id(*node)),
            Act::Slow {
                node,
                by_ms,
                for_ms,
            } => write!(f, "slow {} by {by_ms} for {for_ms}", id(*node)),
            Act::Clock {
                node,
                by_ms,
                for_ms,
            } => write!(f, "clock {} by {by_ms:+} for {for_ms}", id(*node)),
            Act::StoreAway { node, for_ms } => self.away(f, "store", *node, *for_ms),
            Act::RepliesLost { for_ms } => write!(f, "replies lost for {for_ms}"),
            Act::WatchLate { node, for_ms } => {
                write!(f, "watch late {} for {for_ms}", id(*node))
            }
            Act::ReRead { node } => write!(f, "re-read {}", id(*node)),
            Act::Compact => f.write_str("compact"),
            Act::AuditAway { for_ms } => self.away(f, "audit", None, *for_ms),
            Act::ChainAway { node, for_ms } => self.away(f, "chain", *node, *for_ms),
            Act::KeysAway { node, for_ms } => self.away(f, "keys", Some(*node), *for_ms),
            Act::Reorganise { depth, drop: false } => write!(f, "reorganise {depth}"),
            Act::Reorganise { depth, drop: true } => write!(f, "reorganise {depth} lost"),
            Act::DropWaiting => f.write_str("drop waiting"),
            Act::Fee { attempt } => write!(f, "fee {attempt}"),
            Act::Stranger => f.write_str("stranger"),
            Act::Revert { tx } => write!(f, "revert {tx}"),
            Act::GiveUp { tx } => write!(f, "give up {tx}"),
            Act::Impostor { liar, name, to } => {
                let (liar, name, to) = (id(*liar), id(*name), id(*to));
                write!(f, "impostor {liar} as {name} to {to}")
            }
            Act::Unban { node } => write!(f, "unban {}", id(*node)),
            Act::Collect { tx } => write!(f, "collect {tx}"),
            Act::Forge { what } => write!(f, "forge {}", what.name()),
            Act::RollBack { entries } => write!(f, "roll back {entries}"),
            Act::Fork { side } => write!(f, "fork {}", self.side(side)),
        }
    }
}
