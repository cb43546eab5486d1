//! The board: a pure state machine, `apply(op, now)`, that every backend orders and
//! every node repeats for itself. It refuses a move that the table does not give.
//!
//! Every operation's handler checks everything first and changes the board after,
//! so that a refusal leaves it as it was; an operation that the board has seen
//! already has no effect and is no error, for replies get lost. The handlers:
//! `votes` (rows 1, 9 and 14 of the [table](crate::fsm)), `moves` (rows 2 to 8 and
//! 15, and what is forgotten), `submission` (rows 10 to 13, certificates, leases),
//! `members` (bans, accusations, starts). `view` tells people about a ballot, `excerpt`
//! is what a few operations need of the board.

mod excerpt;
mod members;
mod moves;
mod refusal;
mod step;
mod submission;
mod view;
mod votes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ballot::Ballot;
use crate::ids::{NodeId, RulesDigest, TxId};
use crate::rules::Rules;
use crate::statement::Accusation;
use crate::verifier::Verifier;
use crate::wire::board_op::Op;
use crate::wire::{
    AccusationKind, BallotState, BanProof, BoardEntry, BoardEvent, BoardOp, SignedStatement,
    ViolationType,
};

pub use excerpt::subject;
pub use refusal::Refusal;
use step::{Effect, Step};

/// The most unstarted ballots that a trustee may have open.
pub const MAX_UNSTARTED: usize = 10_000;

/// The greatest reputation, and the first: thousandths.
pub const FULL_REPUTATION: u32 = 1_000;

/// Below this reputation (thousandths) silence bans, under that policy.
pub const SILENT_REPUTATION: u32 = 300;

/// How long a finished ballot stays before it may be collected: milliseconds.
pub const RETENTION_MS: u64 = 24 * 60 * 60 * 1_000;

/// The longest lease: milliseconds.
pub const MAX_LEASE_MS: u64 = 60_000;

/// What an operation did.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Outcome {
    /// It changed the board; this is its entry in the log.
    Applied(BoardEntry),
    /// The board had it already: the reply to a repeated operation.
    Unchanged,
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
#[derive(Clone, Debug, PartialEq)]
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
    /// Accusations against it that are not pardoned: the first of each accuser.
    pub accusations: BTreeMap<NodeId, Accusation>,
    /// Accusations of another kind by members that had accused it before.
    pub further_accusations: BTreeMap<(NodeId, AccusationKind), Accusation>,
    /// The statement of its latest start.
    pub boot: Option<SignedStatement>,
}

impl Default for MemberState {
    /// A member of whom nothing is known: its reputation is full.
    fn default() -> Self {
        Self {
            ban: None,
            reputation: FULL_REPUTATION,
            generation: 0,
            total_votes: 0,
            violations: 0,
            absences: 0,
            unstarted: 0,
            accusations: BTreeMap::new(),
            further_accusations: BTreeMap::new(),
            boot: None,
        }
    }
}

/// The ordered public record.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    rules: Arc<Rules>,
    revision: u64,
    time_ms: u64,
    ballots: BTreeMap<TxId, Ballot>,
    collected: BTreeMap<TxId, BallotState>,
    members: BTreeMap<NodeId, MemberState>,
    /// Who got which nonce. A nonce stays used when it was taken by a stranger.
    reserved: BTreeMap<u64, TxId>,
    /// Digests of pardoned ban proofs and of pardoned accusations.
    pardoned: BTreeSet<[u8; 32]>,
    /// Lies that were pardoned: evidence can be put together in more than one way,
    /// so a digest alone would not keep the same lie from banning again.
    pardoned_lies: BTreeSet<(NodeId, TxId)>,
}

impl Board {
    /// An empty board under `rules`.
    pub fn new(rules: Arc<Rules>) -> Self {
        let members = rules
            .members()
            .map(|member| (member.node_id.clone(), MemberState::default()))
            .collect();
        Self {
            rules,
            revision: 0,
            time_ms: 0,
            ballots: BTreeMap::new(),
            collected: BTreeMap::new(),
            members,
            reserved: BTreeMap::new(),
            pardoned: BTreeSet::new(),
            pardoned_lies: BTreeSet::new(),
        }
    }

    /// Applies one operation at `now_ms` (milliseconds since the Unix epoch; a time
    /// before the board's is raised to it).
    ///
    /// # Errors
    /// [`Refusal`]; the board is then as it was.
    pub fn apply(
        &mut self,
        op: &BoardOp,
        now_ms: u64,
        verifier: &dyn Verifier,
    ) -> Result<Outcome, Refusal> {
        let events = self.change(op, now_ms, verifier)?;
        Ok(match events {
            Some(events) => Outcome::Applied(self.entry(Some(op.clone()), events)),
            None => Outcome::Unchanged,
        })
    }

    /// Carries an operation out; none when that changes nothing.
    fn change(
        &mut self,
        op: &BoardOp,
        now_ms: u64,
        verifier: &dyn Verifier,
    ) -> Result<Option<Vec<BoardEvent>>, Refusal> {
        let mut step = Step {
            revision: self.revision + 1,
            now_ms: now_ms.max(self.time_ms),
            verifier,
            events: Vec::new(),
        };
        let what = match &op.op {
            None => return Err(Refusal::Malformed("no operation is set".into())),
            Some(what) => what,
        };
        let effect = match what {
            Op::RecordVote(op) => self.record_vote(op, &mut step),
            Op::Advance(op) => self.advance(op, &mut step),
            Op::Expire(op) => self.expire(op, &mut step),
            Op::MarkSilent(op) => self.mark_silent(op, &mut step),
            Op::Collect(op) => self.collect(op, &mut step),
            Op::Reserve(op) => self.reserve(op, &mut step),
            Op::Certify(op) => self.certify(op, &mut step),
            Op::Conclude(op) => self.conclude(op, &mut step),
            Op::ProveAbort(op) => self.prove_abort(op, &mut step),
            Op::GiveUp(op) => self.give_up(op, &mut step),
            Op::Lease(op) => self.lease(op, &mut step),
            Op::Release(op) => self.release(op, &mut step),
            Op::Ban(op) => self.ban(op, &mut step),
            Op::Unban(op) => self.unban(op, &mut step),
            Op::Accuse(op) => self.accuse(op, &mut step),
            Op::Boot(op) => self.boot(op, &mut step),
        }?;
        if effect == Effect::None {
            return Ok(None);
        }
        self.revision = step.revision;
        self.time_ms = step.now_ms;
        Ok(Some(step.events))
    }

    /// The entry of the operation that was just carried out.
    fn entry(&self, op: Option<BoardOp>, events: Vec<BoardEvent>) -> BoardEntry {
        BoardEntry {
            revision: self.revision,
            time_ms: self.time_ms,
            op,
            events,
        }
    }

    /// Repeats an entry of a store's log and gives the entry as this board derives
    /// it: the store's own events are not believed.
    ///
    /// # Errors
    /// [`ReplayError`]; the board is then as it was.
    pub fn replay(
        &mut self,
        entry: BoardEntry,
        verifier: &dyn Verifier,
    ) -> Result<BoardEntry, ReplayError> {
        let revision = entry.revision;
        if revision != self.revision + 1 {
            return Err(ReplayError::Gap {
                revision: self.revision,
                found: revision,
            });
        }
        if entry.time_ms < self.time_ms {
            return Err(ReplayError::Backwards { revision });
        }
        let op = entry.op.unwrap_or_default();
        match self.change(&op, entry.time_ms, verifier) {
            Ok(Some(events)) => Ok(self.entry(Some(op), events)),
            Ok(None) => Err(ReplayError::NoChange { revision }),
            Err(refusal) => Err(ReplayError::Unjustified { revision, refusal }),
        }
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
    pub fn rules_by_digest(&self, digest: &RulesDigest) -> Option<&Arc<Rules>> {
        Some(&self.rules).filter(|rules| rules.digest() == *digest)
    }

    /// A ballot that was not collected.
    #[inline]
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

    /// Whose reservation a nonce was given to, first or anew.
    pub fn reserved_for(&self, nonce: u64) -> Option<&TxId> {
        self.reserved.get(&nonce)
    }

    /// How many nonces were given away.
    pub fn reservations(&self) -> u64 {
        self.reserved.len() as u64
    }

    /// Whether a member is banned.
    #[inline]
    pub fn is_banned(&self, node_id: &NodeId) -> bool {
        self.members.get(node_id).is_some_and(|m| m.ban.is_some())
    }

    fn known_ballot(&self, tx_id: &TxId) -> Result<&Ballot, Refusal> {
        self.ballots.get(tx_id).ok_or_else(|| self.absent(tx_id))
    }

    fn absent(&self, tx_id: &TxId) -> Refusal {
        match self.collected.get(tx_id) {
            Some(state) => Refusal::Collected(*state),
            None => Refusal::UnknownBallot(tx_id.clone()),
        }
    }
}
