//! Everything known about one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::choice::Value;
use crate::ids::{NodeId, TxId};
use crate::rules::Rules;
use crate::statement::{ObservationBody, Vote};
use crate::wire::{self, BallotState, SignedStatement, ViolationType};

/// A vote as the board recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedVote {
    /// The verified vote.
    pub vote: Vote,
    /// It came after the point of no return or the end (row 14).
    pub late: bool,
}

/// Misbehaviour found in a ballot.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Whose.
    pub node_id: NodeId,
    /// Which.
    pub kind: ViolationType,
    /// When the board saw it: milliseconds since the Unix epoch.
    pub detected_ms: u64,
    /// The statements that prove it, where that can be.
    pub misbehaviour: Option<wire::Misbehaviour>,
}

/// The advisory lease of whoever is submitting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it.
    pub holder: NodeId,
    /// Until when: milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// One transaction on the board.
#[derive(Clone, Debug)]
pub struct Ballot {
    /// The transaction.
    pub tx_id: TxId,
    /// The rules it opened under, and keeps.
    pub rules: Arc<Rules>,
    /// Its state.
    pub state: BallotState,
    /// When it entered that state: milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it opened: milliseconds since the Unix epoch.
    pub opened_ms: u64,
    /// Revision of the board that last changed it.
    pub revision: u64,
    /// One sentence for people: why it is in this state.
    pub reason: String,
    /// The states it went through, oldest first.
    pub path: Vec<wire::StatePassed>,
    /// The first vote of each trustee.
    pub votes: BTreeMap<NodeId, RecordedVote>,
    /// The second, other vote of those who signed two, within the window in which
    /// that proves DOUBLE_VOTING.
    pub second_votes: BTreeMap<NodeId, Vote>,
    /// The value with t votes, from THRESHOLD_REACHED on.
    pub value: Option<Value>,
    /// The reservation in force, from SUBMITTED on.
    pub reservation: Option<wire::Reservation>,
    /// t votes and t decisions, once they are on the board.
    pub certificate: Option<wire::DecisionProof>,
    /// t abort statements, once they are on the board; else empty.
    pub aborts: Vec<SignedStatement>,
    /// What t members observed last.
    pub observed: Option<ObservationBody>,
    /// A submission that t operators gave up.
    pub given_up: bool,
    /// Who is submitting.
    pub lease: Option<Lease>,
    /// The roll was called at the deadline (row 15).
    pub roll_called: bool,
    /// Members that had not voted when it was.
    pub silent: BTreeSet<NodeId>,
    /// Misbehaviour found, oldest first.
    pub violations: Vec<Violation>,
}

/// Whether a state ends a ballot for its voters: nothing but the chain moves it on.
pub fn is_final(state: BallotState) -> bool {
    matches!(
        state,
        BallotState::Confirmed
            | BallotState::Failed
            | BallotState::AbortedByzantine
            | BallotState::AbortedSplit
            | BallotState::AbortedTimeout
    )
}

/// Whether a state is one of the three aborts.
pub fn is_aborted(state: BallotState) -> bool {
    matches!(
        state,
        BallotState::AbortedByzantine | BallotState::AbortedSplit | BallotState::AbortedTimeout
    )
}

impl Ballot {
    /// Votes move it: COLLECTING or THRESHOLD_REACHED.
    pub fn is_open(&self) -> bool {
        matches!(
            self.state,
            BallotState::Collecting | BallotState::ThresholdReached
        )
    }

    /// Recorded votes for each value, without those struck (row 2 under
    /// `outvote`) and those that came late.
    pub fn counts(&self) -> BTreeMap<&Value, usize> {
        unimplemented!()
    }

    /// N − t + 1 members have voted.
    pub fn is_started(&self) -> bool {
        unimplemented!()
    }

    /// The (N − t + 1)-th smallest time signed in the recorded votes, plus the vote
    /// timeout; none while not started. Milliseconds since the Unix epoch.
    pub fn deadline_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// When an unstarted ballot is removed (row 7): when none of its votes could be
    /// recorded any more, that is the latest time signed plus
    /// [`Rules::vote_lifetime_ms`].
    pub fn expires_ms(&self) -> u64 {
        unimplemented!()
    }

    /// When the settle window is over, from THRESHOLD_REACHED on.
    pub fn settled_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// The t votes for the decided value that go into a certificate: the first t by
    /// node_id.
    pub fn deciding_votes(&self) -> Vec<SignedStatement> {
        unimplemented!()
    }
}
