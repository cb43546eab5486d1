//! The board: a pure state machine, `apply(op, now)`, that every backend orders and
//! every node repeats for itself. It refuses a move that the table does not give.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ballot::Ballot;
use crate::choice::Choice;
use crate::detector::DetectorError;
use crate::ids::{NodeId, RulesDigest, TxId};
use crate::rules::Rules;
use crate::statement::{Accusation, StatementError};
use crate::verifier::Verifier;
use crate::wire::{self, BallotState, BanProof, BoardEntry, BoardOp, ViolationType};

/// The most unstarted ballots that a trustee may have open.
pub const MAX_UNSTARTED: usize = 10_000;

/// What an operation did.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Outcome {
    /// It changed the board; this is its entry in the log.
    Applied(BoardEntry),
    /// The board had it already: the reply to a repeated operation.
    Unchanged,
}

/// Why the board refused an operation; it then changed nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The operation is empty or a field is no good.
    #[error("malformed operation: {0}")]
    Malformed(String),
    /// A statement in it is no good.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Its proof is missing, too small, or proves something else.
    #[error("the proof does not hold: {0}")]
    Unproven(String),
    /// Evidence in it proves nothing.
    #[error(transparent)]
    Evidence(#[from] DetectorError),
    /// No such ballot.
    #[error("there is no ballot {0}")]
    UnknownBallot(TxId),
    /// The trustee is banned.
    #[error("{0} is banned")]
    Banned(NodeId),
    /// No such member.
    #[error("{0} is not a member")]
    UnknownMember(NodeId),
    /// Signed further in the future than the skew.
    #[error("the vote is from {ahead_ms} ms in the future")]
    FromFuture {
        /// By how much.
        ahead_ms: u64,
    },
    /// Signed longer ago than a vote may be recorded.
    #[error("the vote is {age_ms} ms old")]
    TooOld {
        /// How old it is.
        age_ms: u64,
    },
    /// `only_first` was asked, and there is another choice.
    #[error("the board has another choice of this trustee: {choice}")]
    OtherChoice {
        /// The choice recorded.
        choice: Choice,
    },
    /// The ballot was collected; this is how it ended.
    #[error("the ballot ended as {}", .0.as_str_name())]
    Collected(BallotState),
    /// The trustee has too many unstarted ballots.
    #[error("{0} has {MAX_UNSTARTED} unstarted ballots open")]
    TooManyUnstarted(NodeId),
    /// The table does not give this move.
    #[error("the table does not move {} to {}", .from.as_str_name(), .to.as_str_name())]
    IllegalMove {
        /// The state the ballot is in.
        from: BallotState,
        /// The state that was asked for.
        to: BallotState,
    },
    /// A ban that would come before the ballot's own move.
    #[error("ballot {0} has a move to make first")]
    AdvanceFirst(TxId),
    /// Not yet: the settle window or the deadline has not passed.
    #[error("too early by {0} ms")]
    TooEarly(u64),
    /// Not the reservation that rules, tx_id and value give.
    #[error("wrong reservation: {0}")]
    WrongReservation(String),
    /// The node already started with this generation or a later one.
    #[error("generation {found} is not after {current}")]
    StaleGeneration {
        /// On the board.
        current: u64,
        /// In the operation.
        found: u64,
    },
    /// Somebody else holds the lease.
    #[error("{holder} holds the lease until {until_ms}")]
    LeaseHeld {
        /// Who.
        holder: NodeId,
        /// Until when: milliseconds since the Unix epoch.
        until_ms: u64,
    },
}

impl Refusal {
    /// A stable, upper-case reason for machines.
    pub fn reason(&self) -> &'static str {
        unimplemented!()
    }
}

/// Why an entry of a store's log was not believed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// Not the revision that follows.
    #[error("entry {found} does not follow revision {revision}")]
    Gap {
        /// The revision this board stands at.
        revision: u64,
        /// The entry's.
        found: u64,
    },
    /// Its time runs backwards.
    #[error("entry {revision} runs backwards in time")]
    Backwards {
        /// The entry's revision.
        revision: u64,
    },
    /// The pure board refuses what the store accepted.
    #[error("entry {revision} is not justified: {refusal}")]
    Unjustified {
        /// The entry's revision.
        revision: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The entry changes nothing, so it should not be there.
    #[error("entry {revision} changes nothing")]
    NoChange {
        /// The entry's revision.
        revision: u64,
    },
}

/// Why a member is banned.
#[derive(Clone, Debug, PartialEq)]
pub struct Ban {
    /// For what.
    pub kind: ViolationType,
    /// When: milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The proof.
    pub proof: BanProof,
}

/// One member as the board knows it.
#[derive(Clone, Debug, Default)]
pub struct MemberState {
    /// Its ban, while banned.
    pub ban: Option<Ban>,
    /// Thousandths, 0 to 1000.
    pub reputation: u32,
    /// Its latest boot generation; 0 if it never started.
    pub generation: u64,
    /// Votes recorded.
    pub total_votes: u64,
    /// Violations found.
    pub violations: u64,
    /// Decided ballots in a row without its vote.
    pub absences: u32,
    /// Unstarted ballots that it has voted in.
    pub unstarted: usize,
    /// Accusations against it that are not pardoned, by accuser.
    pub accusations: BTreeMap<NodeId, Accusation>,
}

/// The ordered public record.
#[derive(Clone, Debug)]
pub struct Board {
    rules: Arc<Rules>,
    revision: u64,
    time_ms: u64,
    ballots: BTreeMap<TxId, Ballot>,
    collected: BTreeMap<TxId, BallotState>,
    members: BTreeMap<NodeId, MemberState>,
    reserved: BTreeMap<u64, TxId>,
    pardoned: BTreeSet<[u8; 32]>,
}

impl Board {
    /// An empty board under `rules`.
    pub fn new(_rules: Arc<Rules>) -> Self {
        unimplemented!()
    }

    /// Applies one operation at `now_ms` (milliseconds since the Unix epoch; a time
    /// before the board's is raised to it).
    ///
    /// # Errors
    /// [`Refusal`]; the board is then as it was.
    pub fn apply(
        &mut self,
        _op: &BoardOp,
        _now_ms: u64,
        _verifier: &dyn Verifier,
    ) -> Result<Outcome, Refusal> {
        unimplemented!()
    }

    /// Repeats an entry of a store's log and gives the entry as this board derives
    /// it: the store's own events are not believed.
    ///
    /// # Errors
    /// [`ReplayError`]; the board is then as it was.
    pub fn replay(
        &mut self,
        _entry: &BoardEntry,
        _verifier: &dyn Verifier,
    ) -> Result<BoardEntry, ReplayError> {
        unimplemented!()
    }

    /// Revision of the last entry; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Time of the last entry: milliseconds since the Unix epoch.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The rules in force.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The rules with this digest, if the board knows them.
    pub fn rules_by_digest(&self, _digest: &RulesDigest) -> Option<&Arc<Rules>> {
        unimplemented!()
    }

    /// A ballot that was not collected.
    pub fn ballot(&self, tx_id: &TxId) -> Option<&Ballot> {
        self.ballots.get(tx_id)
    }

    /// All ballots that were not collected.
    pub fn ballots(&self) -> impl Iterator<Item = &Ballot> {
        self.ballots.values()
    }

    /// The final state of a ballot that was collected.
    pub fn collected(&self, tx_id: &TxId) -> Option<BallotState> {
        self.collected.get(tx_id).copied()
    }

    /// A member as the board knows it.
    pub fn member(&self, node_id: &NodeId) -> Option<&MemberState> {
        self.members.get(node_id)
    }

    /// Whether a member is banned.
    pub fn is_banned(&self, node_id: &NodeId) -> bool {
        self.members.get(node_id).is_some_and(|m| m.ban.is_some())
    }

    /// Whether a ban by this proof was pardoned.
    pub fn is_pardoned(&self, _proof: &BanProof) -> bool {
        unimplemented!()
    }

    /// The reservation that the next decided ballot gets, for this ballot's value.
    pub fn next_reservation(&self, _ballot: &Ballot) -> Option<wire::Reservation> {
        unimplemented!()
    }

    /// The move that the table gives for a ballot at `now_ms`, if any.
    pub fn next_move(&self, _tx_id: &TxId, _now_ms: u64) -> Option<crate::fsm::Move> {
        unimplemented!()
    }

    /// The vote ledger of one transaction, for people and clients. `attempts` of the
    /// submission is the node's own knowledge and left 0.
    pub fn view(&self, _tx_id: &TxId) -> Option<wire::Ballot> {
        unimplemented!()
    }
}
