//! What this node alone knows about one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use litemap::LiteMap;

use quorate_consensus::ballot::Ballot;
use quorate_consensus::statement::{Abort, Decision, Observation, ObservationBody, Vote};
use quorate_consensus::{Choice, Domain, NodeId, wire};

use super::duties::Duty;
use super::submission::Submission;
use crate::api::{RequestId, Submit, Ticket};

/// Whether the journal was asked about this transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Journal {
    #[default]
    NotAsked,
    /// By this question; the answer to an earlier one may be older than the guard.
    Asked(Ticket),
    Known,
}

/// A verified vote that the board does not show.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) vote: Vote,
    /// When to record it, on the monotonic clock.
    pub(super) record_mono: u64,
}

/// This node's latest word on what the chain shows.
#[derive(Clone, Debug)]
pub(super) struct OwnObservation {
    pub(super) body: ObservationBody,
    /// None while it is being signed.
    pub(super) signed: Option<wire::SignedStatement>,
}

/// What this node alone knows about one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    pub(super) journal: Journal,
    /// The sign guard: what this trustee has chosen, and the statement's bytes.
    pub(super) guard: Option<(Choice, Vec<u8>)>,
    /// A signature over the guard's statement is being made.
    pub(super) signing_vote: bool,
    /// The signed vote, on its way to the board.
    pub(super) own_vote: Option<wire::SignedStatement>,
    /// When to hand it to the board (again), on the monotonic clock.
    pub(super) own_vote_mono: u64,
    /// The verdict that was or may be signed: never a decision and an abort.
    pub(super) verdict: Option<(Domain, Vec<u8>)>,
    /// The verdict's signature is being made.
    pub(super) signing_verdict: bool,
    /// The verdict with its signature.
    pub(super) own_verdict: Option<(Domain, wire::SignedStatement)>,
    pub(super) own_observation: Option<OwnObservation>,
    /// Requests that wait for the journal.
    pub(super) parked: LiteMap<RequestId, Submit>,
    pub(super) waiters: BTreeSet<RequestId>,
    pub(super) held: Vec<Held>,
    pub(super) decisions: LiteMap<NodeId, Decision>,
    pub(super) aborts: LiteMap<NodeId, Abort>,
    pub(super) observations: LiteMap<NodeId, Observation>,
    /// What the board is to be asked, and when, on the monotonic clock.
    pub(super) duties: LiteMap<Duty, u64>,
    /// The members before this node in the order that the transaction gives them, once
    /// they were asked for: that costs a hash for each member.
    pub(super) before: Option<Arc<[NodeId]>>,
    /// How often another ballot took the nonce that this one asked for.
    pub(super) nonces_missed: u32,
    /// When this node's statements are sent to the peers again.
    pub(super) resend_mono: Option<u64>,
    pub(super) resend_after_ms: u64,
    /// When the chain is looked at again.
    pub(super) look_mono: Option<u64>,
    pub(super) look_after_ms: u64,
    pub(super) looking: Option<(Ticket, u64)>,
    pub(super) submission: Submission,
    /// Finished, and only watched for a reorganisation.
    pub(super) afterwards: bool,
    /// The journal was asked to remember its end.
    pub(super) end_persisted: bool,
}

impl Local {
    /// This node has said that what was concluded is no longer on the chain, and the
    /// board has not heard it from t.
    pub(super) fn says_undone(&self, ballot: &Ballot) -> bool {
        self.own_observation.as_ref().is_some_and(|own| {
            own.body.outcome == wire::ChainOutcome::Undone && own.body.round == ballot.round
        })
    }

    /// Its trustee's vote is being signed, or is on its way to the board.
    pub(super) fn is_voting(&self) -> bool {
        self.signing_vote || self.own_vote.is_some()
    }

    /// Nobody waits for anything here, and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
            && self.waiters.is_empty()
            && self.parked.is_empty()
            && self.own_vote.is_none()
            && !self.signing_vote
            && !self.signing_verdict
            && !matches!(self.journal, Journal::Asked(_))
    }
}
