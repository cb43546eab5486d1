//! Everything known about one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use litemap::LiteMap;

use crate::choice::{Choice, Value};
use crate::ids::{NodeId, TxId};
use crate::rules::Rules;
use crate::statement::{ObservationBody, Vote};
use crate::wire::{self, BallotState, SignedStatement, ViolationType};
use crate::words::without;

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
#[derive(Clone, Debug, PartialEq)]
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
    pub votes: LiteMap<NodeId, RecordedVote>,
    /// The second, other vote of those who signed two, within the window in which
    /// that proves DOUBLE_VOTING.
    pub second_votes: LiteMap<NodeId, Vote>,
    /// Those of them whose votes are struck: under `outvote`, who showed the second
    /// vote while the ballot was open.
    pub struck: BTreeSet<NodeId>,
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
    /// How often the submission was concluded or undone; observations name it, so
    /// that old ones cannot be used again.
    pub round: u32,
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

/// Every state that a ballot can be in.
pub const STATES: [BallotState; 8] = [
    BallotState::Collecting,
    BallotState::ThresholdReached,
    BallotState::Submitted,
    BallotState::Confirmed,
    BallotState::Failed,
    BallotState::AbortedByzantine,
    BallotState::AbortedSplit,
    BallotState::AbortedTimeout,
];

/// A state as people know it: without the prefix that protobuf wants. Others of its kind
/// are in [`crate::words`].
pub fn state_name(state: BallotState) -> &'static str {
    without("BALLOT_STATE_", state.as_str_name())
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

    /// Its certificate or its abort proof is on the board.
    pub fn is_proven(&self) -> bool {
        self.certificate.is_some() || !self.aborts.is_empty()
    }

    /// The votes that count: neither struck (row 2 under `outvote`) nor late.
    /// Abstentions are among them.
    pub fn counted_votes(&self) -> impl Iterator<Item = &Vote> {
        self.votes
            .iter()
            .filter(|(node_id, recorded)| !recorded.late && !self.struck.contains(*node_id))
            .map(|(_, recorded)| &recorded.vote)
    }

    /// Recorded votes for each value, without those struck (row 2 under
    /// `outvote`) and those that came late.
    pub fn counts(&self) -> BTreeMap<&Value, usize> {
        let mut counts = BTreeMap::new();
        for vote in self.counted_votes() {
            if let Choice::Value(value) = &vote.body.choice {
                *counts.entry(value).or_default() += 1;
            }
        }
        counts
    }

    /// The value with the most counted votes, the smallest among equals, and how
    /// many it has.
    pub fn leading(&self) -> Option<(&Value, usize)> {
        let mut leading = None;
        for (value, count) in self.counts() {
            if leading.is_none_or(|(_, most)| count > most) {
                leading = Some((value, count));
            }
        }
        leading
    }

    /// Members of the ballot's rules without a recorded vote, ascending.
    pub fn without_vote(&self) -> impl Iterator<Item = &NodeId> {
        self.rules
            .members()
            .map(|member| &member.node_id)
            .filter(|node_id| !self.votes.contains_key(*node_id))
    }

    /// N − t + 1 members have voted.
    pub fn is_started(&self) -> bool {
        self.votes.len() >= self.rules.starters()
    }

    /// The (N − t + 1)-th smallest time signed in the recorded votes, plus the vote
    /// timeout; none while not started. Milliseconds since the Unix epoch.
    pub fn deadline_ms(&self) -> Option<u64> {
        // Asked for at every look at a ballot, and mostly of one that has not started.
        let starters = self.rules.starters();
        if self.votes.len() < starters {
            return None;
        }
        let signed = self.votes.values().map(|v| v.vote.body.time_ms);
        // Few clusters are larger than this, and it is cheaper than to allocate.
        let (mut few, mut many) = ([0; 16], Vec::new());
        let times = match few.get_mut(..self.votes.len()) {
            Some(few) => {
                few.iter_mut().zip(signed).for_each(|(to, time)| *to = time);
                few
            }
            None => {
                many.extend(signed);
                &mut many[..]
            }
        };
        let (_, started, _) = times.select_nth_unstable(starters - 1);
        Some(started.saturating_add(self.rules.vote_timeout_ms()))
    }

    /// When an unstarted ballot is removed (row 7): when none of its votes could be
    /// recorded any more, that is the latest time signed plus
    /// [`Rules::vote_lifetime_ms`].
    pub fn expires_ms(&self) -> u64 {
        let latest = self.votes.values().map(|v| v.vote.body.time_ms).max();
        latest
            .unwrap_or(self.opened_ms)
            .saturating_add(self.rules.vote_lifetime_ms())
    }

    /// When the settle window is over, from THRESHOLD_REACHED on.
    pub fn settled_ms(&self) -> Option<u64> {
        if self.state == BallotState::Collecting {
            return None;
        }
        let reached = |passed: &&wire::StatePassed| passed.state() == BallotState::ThresholdReached;
        let reached = self.path.iter().rev().find(reached)?;
        Some(reached.at_ms.saturating_add(self.rules.settle_window_ms()))
    }

    /// The t votes for the decided value that go into a certificate: the first t by
    /// node_id. Fewer or none while no value is decided.
    pub fn deciding_votes(&self) -> Vec<SignedStatement> {
        let Some(value) = &self.value else {
            return Vec::new();
        };
        self.counted_votes()
            .filter(|vote| vote.body.choice.value() == Some(value))
            .take(self.rules.threshold())
            .map(|vote| vote.signed.clone())
            .collect()
    }

    /// Its unstarted, open state is what a trustee may cause only so often
    /// ([`crate::board::MAX_UNSTARTED`]).
    pub(crate) fn is_unstarted(&self) -> bool {
        self.is_open() && !self.is_started()
    }
}
