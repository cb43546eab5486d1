//! What clients hand in and what they are told.

use quorate_consensus::ballot::state_name;
use quorate_consensus::board::Refusal;
use quorate_consensus::statement::StatementError;
use quorate_consensus::wire::{self, BallotState};
use quorate_consensus::{Choice, NodeId, TxId};

/// How far a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Until the board has recorded the vote.
    Recorded,
    /// Until the ballot is SUBMITTED or final.
    Decided,
    /// Until the ballot is CONFIRMED, FAILED or aborted.
    Confirmed,
}

/// What a client hands in.
#[derive(Clone, Debug, PartialEq)]
pub enum Handed {
    /// A choice that the node signs.
    Choice(Choice),
    /// A vote signed by the trustee's vote key elsewhere.
    Statement(wire::SignedStatement),
}

/// A Submit call.
#[derive(Clone, Debug, PartialEq)]
pub struct Submit {
    /// The transaction; may be absent when a statement is handed in.
    pub tx_id: Option<TxId>,
    /// The vote.
    pub handed: Handed,
    /// How far to wait.
    pub wait: Wait,
}

/// What a submitted vote came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The ballot after the vote.
    pub ballot: wire::Ballot,
    /// The vote as the board has it.
    pub vote: wire::SignedStatement,
    /// It was there already.
    pub repeated: bool,
}

/// Why a client's request was refused. Each has a stable reason; the driver makes
/// gRPC statuses of them in one table.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Reject {
    /// A field of the request holds what it must not.
    #[error("{field}: {detail}")]
    Invalid {
        /// The field's name in the .proto file.
        field: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// The statement handed in is no good.
    #[error("the statement is refused: {0}")]
    Statement(#[from] StatementError),
    /// The statement is another trustee's.
    #[error("this node takes votes of {own} only; this one is {found}'s: hand it to its own node")]
    OtherTrustee {
        /// This node's trustee.
        own: NodeId,
        /// The statement's.
        found: NodeId,
    },
    /// The time signed is too far from this node's clock.
    #[error(
        "the vote is {off_ms} ms off this node's clock, more than the {limit_ms} ms allowed: check the clock and sign again"
    )]
    ClockOff {
        /// How far; negative is the past.
        off_ms: i64,
        /// The limit.
        limit_ms: u64,
    },
    /// The sign guard holds another choice of this trustee.
    #[error(
        "this trustee has already chosen {first} for {tx_id}: a trustee never signs two choices"
    )]
    SecondChoice {
        /// The transaction.
        tx_id: TxId,
        /// The first choice.
        first: Choice,
    },
    /// The ballot is over.
    #[error("the ballot {tx_id} is closed: it ended as {}", state_name(*.state))]
    BallotClosed {
        /// The transaction.
        tx_id: TxId,
        /// How it ended.
        state: BallotState,
    },
    /// This trustee is banned.
    #[error("trustee {node_id} is banned for {reason}")]
    Banned {
        /// The trustee.
        node_id: NodeId,
        /// For what.
        reason: String,
    },
    /// The ballot was removed before it started; whoever waited is told.
    #[error("the ballot {tx_id} never started and has expired")]
    Expired {
        /// The transaction.
        tx_id: TxId,
    },
    /// Not now: unknown whether the vote was recorded; repeating it is safe.
    #[error("not now: {why}; repeat the same in {retry_ms} ms")]
    Unavailable {
        /// A stable, upper-case reason.
        reason: &'static str,
        /// For people.
        why: String,
        /// When to try again, in milliseconds.
        retry_ms: u64,
    },
    /// The board refused the vote for a reason of its own.
    #[error("the board refused the vote: {0}")]
    Refused(Refusal),
}
