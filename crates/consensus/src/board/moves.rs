//! What moves a ballot without a proof: its votes (rows 2 to 6 and 8) and time
//! (rows 7 and 15, collection).

use crate::ballot::{Ballot, is_final};
use crate::board::step::{Effect, Step, malformed, tx_id, unproven};
use crate::board::votes::{release_unstarted, state_of};
use crate::board::{Board, RETENTION_MS, Refusal};
use crate::fsm::{self, Move};
use crate::ids::{NodeId, TxId};
use crate::wire::board_event::Event;
use crate::wire::{
    AdvanceOp, BallotState, CollectOp, Collected, ExpireOp, Expired, MarkSilentOp, ViolationType,
};

/// What silence at a deadline, and what ten in a row cost: thousandths.
const SILENCE_COST: u32 = 100;

/// Decided ballots in a row without a vote that make NON_PARTICIPATION.
const ABSENCES: u32 = 10;

impl Board {
    /// The move that the table gives for a ballot at `now_ms`, if any.
    pub fn next_move(&self, tx_id: &TxId, now_ms: u64) -> Option<Move> {
        let ballot = self.ballots.get(tx_id)?;
        self.move_of(ballot, now_ms.max(self.time_ms))
    }

    pub(super) fn move_of(&self, ballot: &Ballot, now_ms: u64) -> Option<Move> {
        fsm::next_move(ballot, &|node_id| self.is_banned(node_id), now_ms)
    }

    pub(super) fn advance(
        &mut self,
        op: &AdvanceOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let tx_id = tx_id(&op.tx_id)?;
        let to = op.to();
        if to == BallotState::Unspecified {
            return malformed("the state to move to is missing");
        }
        let ballot = self.known_ballot(&tx_id)?;
        let from = ballot.state;
        let next = match self.move_of(ballot, step.now_ms) {
            Some(next) if next.to == to => next,
            _ if from == to => return Ok(Effect::None),
            _ => return Err(Refusal::IllegalMove { from, to }),
        };
        let Some(ballot) = self.ballots.get_mut(&tx_id) else {
            return Ok(Effect::None);
        };
        let was_unstarted = ballot.is_unstarted();
        step.enter(ballot, next);
        if was_unstarted && !ballot.is_unstarted() {
            release_unstarted(&mut self.members, ballot.votes.keys());
        }
        Ok(Effect::Changed)
    }

    /// Row 7.
    pub(super) fn expire(&mut self, op: &ExpireOp, step: &mut Step<'_>) -> Result<Effect, Refusal> {
        let tx_id = tx_id(&op.tx_id)?;
        let Ok(ballot) = self.known_ballot(&tx_id) else {
            return Ok(Effect::None);
        };
        if ballot.state != BallotState::Collecting || ballot.is_started() {
            return unproven("only a collecting ballot that never started expires");
        }
        if self.move_of(ballot, step.now_ms).is_some() {
            return Err(Refusal::AdvanceFirst(tx_id));
        }
        not_before(ballot.expires_ms(), step)?;
        if let Some(ballot) = self.ballots.remove(&tx_id) {
            release_unstarted(&mut self.members, ballot.votes.keys());
        }
        step.event(Some(&tx_id), Event::Expired(Expired {}));
        Ok(Effect::Changed)
    }

    /// Row 15.
    pub(super) fn mark_silent(
        &mut self,
        op: &MarkSilentOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let tx_id = tx_id(&op.tx_id)?;
        let ballot = self.known_ballot(&tx_id)?;
        if ballot.roll_called {
            return Ok(Effect::None);
        }
        let Some(deadline) = ballot.deadline_ms() else {
            return unproven("the ballot has not started, so it has no deadline");
        };
        not_before(deadline, step)?;
        let missing: Vec<NodeId> = ballot
            .without_vote()
            .filter(|node_id| !self.is_banned(node_id))
            .cloned()
            .collect();
        let Some(ballot) = self.ballots.get_mut(&tx_id) else {
            return Ok(Effect::None);
        };
        ballot.roll_called = true;
        ballot.revision = step.revision;
        // More than could be missing from a decided ballot: an outage, and nobody's
        // fault.
        if missing.len() > ballot.rules.total() - ballot.rules.threshold() {
            return Ok(Effect::Changed);
        }
        let decided = matches!(
            ballot.state,
            BallotState::Submitted | BallotState::Confirmed | BallotState::Failed
        );
        if decided {
            for node_id in ballot.votes.keys() {
                state_of(&mut self.members, node_id).absences = 0;
            }
        }
        for node_id in missing {
            let member = state_of(&mut self.members, &node_id);
            let mut kinds = vec![ViolationType::SilentFailure];
            if decided {
                member.absences += 1;
                if member.absences >= ABSENCES {
                    member.absences = 0;
                    kinds.push(ViolationType::NonParticipation);
                }
            }
            for kind in kinds {
                step.note(ballot, member, &node_id, kind, None);
                let left = member.reputation.saturating_sub(SILENCE_COST);
                step.reputation(Some(&tx_id), member, &node_id, left);
            }
            ballot.silent.insert(node_id);
        }
        Ok(Effect::Changed)
    }

    pub(super) fn collect(
        &mut self,
        op: &CollectOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let tx_id = tx_id(&op.tx_id)?;
        if self.collected.contains_key(&tx_id) {
            return Ok(Effect::None);
        }
        let ballot = self.known_ballot(&tx_id)?;
        let state = ballot.state;
        if !is_final(state) {
            return unproven("only a ballot that ended is collected");
        }
        not_before(ballot.since_ms.saturating_add(RETENTION_MS), step)?;
        self.ballots.remove(&tx_id);
        self.collected.insert(tx_id.clone(), state);
        let collected = Collected {
            state: state.into(),
        };
        step.event(Some(&tx_id), Event::Collected(collected));
        Ok(Effect::Changed)
    }
}

pub(super) fn not_before(time_ms: u64, step: &Step<'_>) -> Result<(), Refusal> {
    match time_ms.saturating_sub(step.now_ms) {
        0 => Ok(()),
        early => Err(Refusal::TooEarly(early)),
    }
}
