//! A schedule as data: who the members are, who of them lies, what clients ask and
//! what goes wrong, and when. A plan is drawn from a seed ([`draw`]), written and read
//! as text ([`text`]), and made smaller while it fails alike ([`shrink`]). Running the
//! same plan twice gives the same story to the letter.

use std::collections::BTreeMap;

use quorate_consensus::wire::{DissentPolicy, SilencePolicy};
use quorate_consensus::{Choice, TxId};

use crate::liars::LiarKind;

pub mod draw;
pub mod shrink;
pub mod text;

/// One schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Decides what the plan does not say: every delay and every small misfortune.
    pub seed: u64,
    /// What the board lies in.
    pub board: BoardKind,
    /// The rules.
    pub shape: Shape,
    /// Members that lie, by index (0 is the first).
    pub liars: BTreeMap<usize, LiarKind>,
    /// Small misfortunes that happen all the time.
    pub noise: Noise,
    /// What happens when, in order of time.
    pub steps: Vec<Step>,
    /// When all faults stop: milliseconds from the start. The world is healed, and
    /// runs on until everything that can end has ended.
    pub calm_ms: u64,
}

impl Plan {
    /// The store itself is to lie: it shows what no board gave. What somebody writes into
    /// keys is no such thing, for readers find it and put it right.
    pub fn has_lying_store(&self) -> bool {
        self.steps.iter().any(|step| match step.act {
            Act::RollBack { .. } => true,
            Act::Forge { .. } | Act::Fork { .. } => self.board == BoardKind::Log,
            _ => false,
        })
    }
}

/// What the board lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum BoardKind {
    /// A log that the store keeps.
    #[default]
    Log,
    /// Keys of a model of etcd, of which every reader makes the log for itself.
    Keys,
}

/// The rules of a plan's cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// N, 1 to 100. Those that are drawn have 12 at most.
    pub nodes: usize,
    /// t, 1 to N.
    pub threshold: usize,
    /// What dissent means.
    pub dissent: DissentPolicy,
    /// What silence means.
    pub silence: SilencePolicy,
    /// Milliseconds from a ballot's start to its deadline.
    pub vote_timeout_ms: u64,
    /// Milliseconds from threshold to reservation.
    pub settle_window_ms: u64,
    /// Milliseconds that clocks may differ.
    pub clock_skew_ms: u64,
    /// How deep a chain transaction must lie to be believed.
    pub confirmations: u32,
    /// The first so many members hold the chain key.
    pub submitters: usize,
}

impl Shape {
    /// The id of a member by its index (0 is the first).
    pub fn node_id(&self, index: usize) -> String {
        let nodes = self.nodes;
        text::Member { index, nodes }.to_string()
    }
}

/// Small misfortunes, drawn anew for each message and question. Times are
/// milliseconds, shares are of a thousand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noise {
    /// Least and longest way of a frame.
    pub frame_ms: (u64, u64),
    /// Least and longest way to the store, and back.
    pub store_ms: (u64, u64),
    /// Least and longest way of news from the store.
    pub watch_ms: (u64, u64),
    /// Least and longest time that a key, the journal, the chain and the audit store
    /// take to answer.
    pub answer_ms: (u64, u64),
    /// Batches that are delivered twice.
    pub twice: u32,
    /// Batches that later ones overtake.
    pub overtaken: u32,
    /// Batches, and what is said about them in a large cluster, with which their stream
    /// breaks.
    pub lost: u32,
    /// The same, gone although their stream stands: worse than any real stream, and
    /// never drawn.
    pub vanished: u32,
    /// Replies of the store that are lost after the operation took effect.
    pub reply_lost: u32,
    /// Operations that the store refuses because it is away.
    pub store_refuses: u32,
    /// Chain answers that are lost after the transaction was taken.
    pub chain_lost: u32,
    /// How far the members' clocks are off at the start, at most; less than half the
    /// skew.
    pub clock_off_ms: u64,
}

impl Noise {
    /// Everything arrives, in order, in a millisecond.
    pub const QUIET: Self = Self {
        frame_ms: (1, 1),
        store_ms: (1, 1),
        watch_ms: (1, 1),
        answer_ms: (1, 1),
        twice: 0,
        overtaken: 0,
        lost: 0,
        vanished: 0,
        reply_lost: 0,
        store_refuses: 0,
        chain_lost: 0,
        clock_off_ms: 0,
    };
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When: milliseconds from the start.
    pub at_ms: u64,
    /// What.
    pub act: Act,
}

/// The number of a ballot in its plan; its transaction is `tx-` and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tx(pub u32);

impl Tx {
    /// The transaction's id.
    pub fn id(self) -> TxId {
        quorate_testkit::tx(&format!("tx-{}", self.0))
    }
}

/// What a client hands to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// A choice, for the node to sign.
    Choice,
    /// A vote signed elsewhere, by a clock so many milliseconds off the node's.
    Signed(i64),
}

/// What became of a crashed node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// All that was written is there.
    Kept,
    /// What was not yet made durable is gone.
    Unsynced,
    /// Empty.
    Lost,
    /// As it was at the last [`Act::Backup`] of this node; empty if there was none.
    Restored,
}

/// What happens: a client's or an operator's wish, or a fault. Members are named by
/// index; times are milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A client of member `node` wants this vote recorded; it repeats itself until it
    /// has an answer that repeating does not change.
    Vote {
        /// Whose client.
        node: usize,
        /// On which ballot.
        tx: Tx,
        /// The vote.
        choice: Choice,
        /// Who signs it.
        handed: Handed,
    },
    /// The process of a node dies before it has carried out the `effects`-th effect
    /// from now on (0: at once), and is started again `down_ms` later.
    Crash {
        /// Which node.
        node: usize,
        /// How many effects it still carries out.
        effects: u32,
        /// What is left of its disk.
        disk: Disk,
        /// How long it is down.
        down_ms: u64,
    },
    /// A copy of a node's disk is put away.
    Backup {
        /// Which node.
        node: usize,
    },
    /// All nodes are shut down and started again `for_ms` later.
    Sleep {
        /// For how long.
        for_ms: u64,
    },
    /// Frames between members of `side` and the others are lost.
    Partition {
        /// One side.
        side: Vec<usize>,
        /// For how long.
        for_ms: u64,
    },
    /// As [`Act::Partition`], but `bridge` still hears and is heard by all.
    Bridge {
        /// Who.
        bridge: usize,
        /// One side.
        side: Vec<usize>,
        /// For how long.
        for_ms: u64,
    },
    /// Frames from one member to another are lost, not those back.
    OneWay {
        /// Who is not heard.
        from: usize,
        /// By whom.
        to: usize,
        /// For how long.
        for_ms: u64,
    },
    /// The streams between two members break.
    Break {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// Nothing that a member sends fits into its peers' queues.
    Full {
        /// Who.
        node: usize,
        /// For how long.
        for_ms: u64,
    },
    /// All that a member sends, asks and hears takes so much longer.
    Slow {
        /// Who.
        node: usize,
        /// By how much.
        by_ms: u64,
        /// For how long.
        for_ms: u64,
    },
    /// A member's wall clock jumps.
    Clock {
        /// Whose.
        node: usize,
        /// By how much; back when negative.
        by_ms: i64,
        /// After so long it is put right.
        for_ms: u64,
    },
    /// The store answers nobody, or one member not.
    StoreAway {
        /// Whom; all when none.
        node: Option<usize>,
        /// For how long.
        for_ms: u64,
    },
    /// The store carries operations out and every reply is lost.
    RepliesLost {
        /// For how long.
        for_ms: u64,
    },
    /// A member hears no news from the store.
    WatchLate {
        /// Who.
        node: usize,
        /// For how long.
        for_ms: u64,
    },
    /// A member's watch was compacted: it reads the whole log again. Where the board
    /// lies in keys its watch breaks, and it is told once more what it knows.
    ReRead {
        /// Who.
        node: usize,
    },
    /// The store forgets how it came to be as it is: whoever is behind reads everything.
    /// A log has no such thing.
    Compact,
    /// The audit store answers nobody.
    AuditAway {
        /// For how long.
        for_ms: u64,
    },
    /// The chain endpoint answers nobody, or one member not.
    ChainAway {
        /// Whom; all when none.
        node: Option<usize>,
        /// For how long.
        for_ms: u64,
    },
    /// A member's keys do not sign.
    KeysAway {
        /// Whose.
        node: usize,
        /// For how long.
        for_ms: u64,
    },
    /// The chain drops its last blocks and builds on without them.
    Reorganise {
        /// How many blocks.
        depth: u32,
        /// What was in them is lost, not waiting again.
        drop: bool,
    },
    /// The chain forgets what waits for a block.
    DropWaiting,
    /// The chain takes nothing below this attempt's fee from now on.
    Fee {
        /// The least attempt that is taken.
        attempt: u32,
    },
    /// A stranger with the chain key uses the account's next nonce.
    Stranger,
    /// The chain will revert this transaction.
    Revert {
        /// Which.
        tx: Tx,
    },
    /// t operators give a submission up, and cancel it on the chain.
    GiveUp {
        /// Which.
        tx: Tx,
    },
    /// The cluster's CA has given a liar a certificate that bears another member's
    /// name. With it the liar opens a stream, says hello with its own node key, and
    /// sends a vote with a bad signature. A member that does not lie does no such thing.
    Impostor {
        /// The liar.
        liar: usize,
        /// Whose name the certificate bears.
        name: usize,
        /// To whom the stream goes.
        to: usize,
    },
    /// t operators lift a ban.
    Unban {
        /// Whose.
        node: usize,
    },
    /// A ballot is archived and collected, if the board lets it.
    Collect {
        /// Which.
        tx: Tx,
    },
    /// The store shows an entry that no board gave; into keys somebody writes past all
    /// rules.
    Forge {
        /// What it says.
        what: Forgery,
    },
    /// The store is put back to an earlier snapshot.
    RollBack {
        /// How many entries are lost.
        entries: u32,
    },
    /// From now on the store keeps two boards, and shows the second one to `side`. Keys
    /// do not fork: two stores behind one address are what the model cannot express.
    Fork {
        /// To whom.
        side: Vec<usize>,
    },
}

impl Act {
    /// Something goes wrong: no wish of a client or an operator, and no precaution.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::Vote { .. } | Self::Backup { .. } | Self::Collect { .. } | Self::Unban { .. }
        )
    }
}

/// What a lying store makes up, or somebody writes into keys. Each board has some that
/// mean nothing to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forgery {
    /// A vote with a made-up signature.
    Vote,
    /// A move that the votes do not give.
    Move,
    /// A ban without proof.
    Ban,
    /// A reservation with another payload.
    Reservation,
    /// A certificate without decisions.
    Certificate,
    /// The last entry is taken out and the later ones close the gap; of keys a record
    /// is deleted.
    Deletion,
    /// The events of a good entry are replaced. Keys hold no events.
    Events,
    /// The last entry but one is taken out, and the last one keeps its revision; of
    /// keys the last record but one is deleted.
    Hole,
    /// Keys: counters of votes are raised.
    Count,
    /// Keys: the status of a ballot is set back, or deleted.
    State,
    /// Keys: a member's boot generation is overwritten.
    Member,
    /// Keys: the rules are overwritten.
    Rules,
    /// Keys: the next nonce is overwritten.
    Nonce,
    /// Keys: a ban is deleted.
    Unban,
    /// Keys: a vote is overwritten by its trustee's vote for another value.
    Overwrite,
    /// Keys: a record claims a place in the past.
    Past,
    /// Keys: the key that every transaction writes is deleted.
    Head,
    /// Keys: all of them are deleted.
    Everything,
}
