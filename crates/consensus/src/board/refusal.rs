//! Why the board says no.

use crate::ballot::state_name;
use crate::board::MAX_UNSTARTED;
use crate::choice::Choice;
use crate::detector::DetectorError;
use crate::ids::{NodeId, TxId};
use crate::statement::StatementError;
use crate::wire::BallotState;

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
    #[error("the ballot ended as {}", state_name(*.0))]
    Collected(BallotState),
    /// The trustee has too many unstarted ballots.
    #[error("{0} has {MAX_UNSTARTED} unstarted ballots open")]
    TooManyUnstarted(NodeId),
    /// The table does not give this move.
    #[error("the table does not move {} to {}", state_name(*.from), state_name(*.to))]
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
        match self {
            Self::Malformed(_) => "MALFORMED_OPERATION",
            Self::Statement(error) => error.reason(),
            Self::Unproven(_) => "UNPROVEN",
            Self::Evidence(DetectorError::Statement(error)) => error.reason(),
            Self::Evidence(_) => "EVIDENCE_PROVES_NOTHING",
            Self::UnknownBallot(_) => "UNKNOWN_BALLOT",
            Self::Banned(_) => "BANNED",
            Self::UnknownMember(_) => "UNKNOWN_MEMBER",
            Self::FromFuture { .. } => "VOTE_FROM_FUTURE",
            Self::TooOld { .. } => "VOTE_TOO_OLD",
            Self::OtherChoice { .. } => "OTHER_CHOICE",
            Self::Collected(_) => "BALLOT_COLLECTED",
            Self::TooManyUnstarted(_) => "TOO_MANY_UNSTARTED",
            Self::IllegalMove { .. } => "ILLEGAL_MOVE",
            Self::AdvanceFirst(_) => "ADVANCE_FIRST",
            Self::TooEarly(_) => "TOO_EARLY",
            Self::WrongReservation(_) => "WRONG_RESERVATION",
            Self::StaleGeneration { .. } => "STALE_GENERATION",
            Self::LeaseHeld { .. } => "LEASE_HELD",
        }
    }
}
