//! From the decided value to the chain's answer (rows 10 to 13): reservations,
//! certificates, observations, abort proofs, giving up, leases.

use crate::ballot::{Ballot, Lease, is_aborted};
use crate::board::moves::not_before;
use crate::board::step::{Effect, Step, malformed, node_id, tx_id, unproven};
use crate::board::votes::{release_unstarted, state_of};
use crate::board::{Board, MAX_LEASE_MS, Refusal};
use crate::fsm::Move;
use crate::ids::NodeId;
use crate::statement::{AbortBody, DecisionBody, ObservationBody, OperatorActBody};
use crate::wire::board_event::Event;
use crate::wire::{
    self, AbortProven, AbortReason, BallotState, Certified, CertifyOp, ChainOutcome, ConcludeOp,
    Concluded, DecisionProof, GiveUpOp, GivenUp, LeaseChanged, LeaseOp, OperatorActKind,
    ProveAbortOp, ReleaseOp, Reservation, ReserveOp, Reserved, SignedStatement,
};

/// What a counted vote for the decided value earns: thousandths.
const GOOD_VOTE: u32 = 10;

impl Board {
    /// The reservation that the next decided ballot gets, for this ballot's value.
    pub fn next_reservation(&self, ballot: &Ballot) -> Option<Reservation> {
        if ballot.tx_id.is_rules() {
            return None;
        }
        let value = ballot.value.as_ref()?;
        let chain = ballot.rules.chain();
        Some(Reservation {
            account: chain.account.clone(),
            nonce: chain.first_nonce.checked_add(self.reserved.len() as u64)?,
            payload: ballot.rules.payload(&ballot.tx_id, value),
        })
    }

    pub(super) fn reserve(
        &mut self,
        op: &ReserveOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let tx_id = tx_id(&op.tx_id)?;
        let ballot = self.known_ballot(&tx_id)?;
        let Some(asked) = &op.reservation else {
            return malformed("the reservation is missing");
        };
        if ballot.reservation.as_ref() == Some(asked) {
            return Ok(Effect::None);
        }
        let anew = match ballot.state {
            BallotState::ThresholdReached if op.observations.is_empty() => {
                if self.move_of(ballot, step.now_ms).is_some() {
                    return Err(Refusal::AdvanceFirst(tx_id));
                }
                not_before(ballot.settled_ms().unwrap_or(ballot.since_ms), step)?;
                false
            }
            BallotState::ThresholdReached => {
                return malformed("a first reservation takes no observations");
            }
            BallotState::Submitted => {
                self.check_nonce_taken(ballot, &op.observations, step)?;
                true
            }
            from => {
                let to = BallotState::Submitted;
                return Err(Refusal::IllegalMove { from, to });
            }
        };
        self.check_reservation(ballot, asked)?;

        let Some(ballot) = self.ballots.get_mut(&tx_id) else {
            return Ok(Effect::None);
        };
        self.reserved.insert(asked.nonce, tx_id.clone());
        ballot.reservation = Some(asked.clone());
        ballot.revision = step.revision;
        let reserved = Reserved {
            reservation: Some(asked.clone()),
            value: ballot.value.as_ref().map(wire::Choice::from),
            anew,
        };
        step.event(Some(&tx_id), Event::Reserved(reserved));
        let reason = format!("reserved as nonce {} of {}", asked.nonce, asked.account);
        if anew {
            ballot.certificate = None;
            ballot.observed = None;
            ballot.reason = format!("a stranger took the nonce; {reason}");
            return Ok(Effect::Changed);
        }
        let was_unstarted = ballot.is_unstarted();
        let next = Move {
            row: 10,
            to: BallotState::Submitted,
            value: ballot.value.clone(),
            reason,
        };
        step.enter(ballot, next);
        if was_unstarted {
            release_unstarted(&mut self.members, ballot.votes.keys());
        }
        let good =
            |vote: &&crate::statement::Vote| vote.body.choice.value() == ballot.value.as_ref();
        for vote in ballot.counted_votes().filter(good) {
            let member = state_of(&mut self.members, &vote.node_id);
            // A banned member's reputation stays at what the ban made it.
            if member.ban.is_none() {
                let more = member.reputation.saturating_add(GOOD_VOTE);
                step.reputation(Some(&tx_id), member, &vote.node_id, more);
            }
        }
        Ok(Effect::Changed)
    }

    fn check_reservation(&self, ballot: &Ballot, asked: &Reservation) -> Result<(), Refusal> {
        let wrong = |why: String| Err(Refusal::WrongReservation(why));
        let Some(next) = self.next_reservation(ballot) else {
            return wrong("this ballot gets none".into());
        };
        if asked.account != next.account {
            return wrong(format!("the account must be {}", next.account));
        }
        if asked.nonce != next.nonce {
            return wrong(format!(
                "the nonce must be {}, not {}",
                next.nonce, asked.nonce
            ));
        }
        if asked.payload != next.payload {
            return wrong("the payload is not that of tx_id and value".into());
        }
        Ok(())
    }

    fn check_nonce_taken(
        &self,
        ballot: &Ballot,
        observations: &[SignedStatement],
        step: &Step<'_>,
    ) -> Result<(), Refusal> {
        if ballot.given_up {
            return unproven("the submission was given up, so it is not reserved anew");
        }
        let seen = agreed_observation(ballot, observations, step)?;
        check_round(ballot, &seen)?;
        match seen.outcome {
            ChainOutcome::NonceTaken => Ok(()),
            _ => unproven("the observations do not say that the nonce was taken"),
        }
    }

    pub(super) fn certify(
        &mut self,
        op: &CertifyOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let tx_id = tx_id(&op.tx_id)?;
        let ballot = self.known_ballot(&tx_id)?;
        if ballot.certificate.is_some() {
            return Ok(Effect::None);
        }
        let (Some(value), Some(reservation)) = (&ballot.value, &ballot.reservation) else {
            return unproven("nothing is reserved for this ballot yet");
        };
        let decisions = step.open_threshold::<DecisionBody>(&op.decisions, &ballot.rules)?;
        for decision in &decisions {
            let body = &decision.body;
            if body.tx_id != tx_id
                || body.value != *value
                || body.reservation.as_ref() != Some(reservation)
            {
                return unproven(format!(
                    "the decision of {} is not for this ballot's value and reservation",
                    decision.node_id
                ));
            }
        }
        let proof = DecisionProof {
            votes: ballot.deciding_votes(),
            decisions: op.decisions.clone(),
        };
        if let Some(ballot) = self.ballots.get_mut(&tx_id) {
            ballot.certificate = Some(proof.clone());
            ballot.revision = step.revision;
        }
        let certified = Certified { proof: Some(proof) };
        step.event(Some(&tx_id), Event::Certified(certified));
        Ok(Effect::Changed)
    }

    /// Rows 11 to 13.
    pub(super) fn conclude(
        &mut self,
        op: &ConcludeOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        use BallotState::{Confirmed, Failed, Submitted};
        let tx_id = tx_id(&op.tx_id)?;
        let ballot = self.known_ballot(&tx_id)?;
        let seen = agreed_observation(ballot, &op.observations, step)?;
        let (row, to, what) = match seen.outcome {
            ChainOutcome::Confirmed => (11, Confirmed, "saw it on the chain"),
            ChainOutcome::Reverted => (12, Failed, "saw it fail on the chain"),
            ChainOutcome::Cancelled => (12, Failed, "saw its cancellation on the chain"),
            // Given up, its nonce gone: nothing can bring it onto the chain.
            ChainOutcome::NonceTaken => (12, Failed, "saw its nonce taken after it was given up"),
            ChainOutcome::Undone => (13, Submitted, "saw a reorganisation undo it"),
            ChainOutcome::Unspecified => return malformed("the outcome is missing"),
        };
        let from = ballot.state;
        let before = ballot.observed.as_ref().map(|observed| observed.outcome);
        if from == to && before == Some(seen.outcome) {
            return Ok(Effect::None);
        }
        let given = match row {
            13 => matches!(from, Confirmed | Failed),
            _ => from == Submitted,
        };
        if !given {
            return Err(Refusal::IllegalMove { from, to });
        }
        check_round(ballot, &seen)?;
        match seen.outcome {
            ChainOutcome::Confirmed if ballot.certificate.is_none() => {
                return unproven("there is no certificate on the board yet");
            }
            ChainOutcome::Cancelled | ChainOutcome::NonceTaken if !ballot.given_up => {
                return unproven("the submission was not given up");
            }
            _ => {}
        }
        let concluded = Concluded {
            outcome: seen.outcome.into(),
            tx_hash: seen.tx_hash.clone(),
            block_number: seen.block_number,
            block_hash: seen.block_hash.clone(),
        };
        let reason = format!(
            "{} trustees {what}, block {}",
            op.observations.len(),
            seen.block_number
        );
        step.event(Some(&tx_id), Event::Concluded(concluded));
        if let Some(ballot) = self.ballots.get_mut(&tx_id) {
            ballot.observed = Some(seen);
            ballot.round = ballot.round.saturating_add(1);
            let value = ballot.value.clone();
            let next = Move {
                row,
                to,
                value,
                reason,
            };
            step.enter(ballot, next);
        }
        Ok(Effect::Changed)
    }

    pub(super) fn prove_abort(
        &mut self,
        op: &ProveAbortOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let tx_id = tx_id(&op.tx_id)?;
        let ballot = self.known_ballot(&tx_id)?;
        if !is_aborted(ballot.state) {
            return unproven("the ballot is not aborted");
        }
        if !ballot.aborts.is_empty() {
            return Ok(Effect::None);
        }
        let aborts = step.open_threshold::<AbortBody>(&op.aborts, &ballot.rules)?;
        let reason = abort_reason(ballot.state);
        for abort in &aborts {
            if abort.body.tx_id != tx_id || abort.body.reason != reason {
                return unproven(format!(
                    "the abort statement of {} is not about this ballot's end",
                    abort.node_id
                ));
            }
        }
        if let Some(ballot) = self.ballots.get_mut(&tx_id) {
            ballot.aborts.clone_from(&op.aborts);
            ballot.revision = step.revision;
        }
        let aborts = op.aborts.clone();
        step.event(Some(&tx_id), Event::AbortProven(AbortProven { aborts }));
        Ok(Effect::Changed)
    }

    pub(super) fn give_up(
        &mut self,
        op: &GiveUpOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let tx_id = tx_id(&op.tx_id)?;
        let ballot = self.known_ballot(&tx_id)?;
        if ballot.given_up {
            return Ok(Effect::None);
        }
        if ballot.state != BallotState::Submitted {
            return unproven("only a submission under way is given up");
        }
        let threshold = ballot.rules.threshold();
        let acts = step.open_list::<OperatorActBody>(&op.acts, threshold, &ballot.rules)?;
        let about = |body: &OperatorActBody| {
            body.kind == OperatorActKind::GiveUp && body.subject == tx_id.as_str()
        };
        if let Some(act) = acts.iter().find(|act| !about(&act.body)) {
            return unproven(format!("the act of {} is another one", act.node_id));
        }
        let counting = acts.iter().filter(|act| !self.is_banned(&act.node_id));
        if counting.count() < threshold {
            return unproven(format!(
                "it takes {threshold} acts of members that are not banned"
            ));
        }
        if let Some(ballot) = self.ballots.get_mut(&tx_id) {
            ballot.given_up = true;
            ballot.revision = step.revision;
        }
        step.event(Some(&tx_id), Event::GivenUp(GivenUp {}));
        Ok(Effect::Changed)
    }

    pub(super) fn lease(&mut self, op: &LeaseOp, step: &mut Step<'_>) -> Result<Effect, Refusal> {
        let (tx_id, holder) = (tx_id(&op.tx_id)?, node_id(&op.node_id)?);
        if op.ttl_ms == 0 || op.ttl_ms > MAX_LEASE_MS {
            return malformed(format!("a lease lasts 1 to {MAX_LEASE_MS} ms"));
        }
        let ballot = self.known_ballot(&tx_id)?;
        if !ballot.rules.is_member(&holder) {
            return Err(Refusal::UnknownMember(holder));
        }
        if self.is_banned(&holder) {
            return Err(Refusal::Banned(holder));
        }
        if ballot.state != BallotState::Submitted {
            return unproven("only a submission under way has a lease");
        }
        let until_ms = step.now_ms.saturating_add(op.ttl_ms);
        match &ballot.lease {
            Some(held) if held.holder == holder && held.until_ms == until_ms => {
                return Ok(Effect::None);
            }
            Some(held) if held.holder != holder && held.until_ms > step.now_ms => {
                return Err(Refusal::LeaseHeld {
                    holder: held.holder.clone(),
                    until_ms: held.until_ms,
                });
            }
            _ => {}
        }
        let changed = LeaseChanged {
            node_id: holder.to_string(),
            until_ms,
        };
        if let Some(ballot) = self.ballots.get_mut(&tx_id) {
            ballot.lease = Some(Lease { holder, until_ms });
            ballot.revision = step.revision;
        }
        step.event(Some(&tx_id), Event::LeaseChanged(changed));
        Ok(Effect::Changed)
    }

    pub(super) fn release(
        &mut self,
        op: &ReleaseOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let (tx_id, holder) = (tx_id(&op.tx_id)?, node_id(&op.node_id)?);
        let held_by = |ballot: &&mut Ballot| {
            let lease: Option<&NodeId> = ballot.lease.as_ref().map(|lease| &lease.holder);
            lease == Some(&holder)
        };
        let Some(ballot) = self.ballots.get_mut(&tx_id).filter(held_by) else {
            return Ok(Effect::None);
        };
        ballot.lease = None;
        ballot.revision = step.revision;
        step.event(Some(&tx_id), Event::LeaseChanged(LeaseChanged::default()));
        Ok(Effect::Changed)
    }
}

/// The reason that an abort statement gives for a state.
fn abort_reason(state: BallotState) -> AbortReason {
    match state {
        BallotState::AbortedByzantine => AbortReason::Byzantine,
        BallotState::AbortedSplit => AbortReason::Split,
        BallotState::AbortedTimeout => AbortReason::Timeout,
        _ => AbortReason::Unspecified,
    }
}

/// An observation from before the last conclusion says nothing about what came after.
fn check_round(ballot: &Ballot, seen: &ObservationBody) -> Result<(), Refusal> {
    match seen.round == ballot.round {
        true => Ok(()),
        false => unproven(format!(
            "the observations are of round {}, and the ballot is in round {}",
            seen.round, ballot.round
        )),
    }
}

/// What t members observed: exactly t equal observations of the ballot's
/// reservation.
fn agreed_observation(
    ballot: &Ballot,
    observations: &[SignedStatement],
    step: &Step<'_>,
) -> Result<ObservationBody, Refusal> {
    let Some(reservation) = &ballot.reservation else {
        return unproven("nothing is reserved for this ballot yet");
    };
    let opened = step.open_threshold::<ObservationBody>(observations, &ballot.rules)?;
    let Some(seen) = opened.first().map(|first| first.body.clone()) else {
        return unproven("there is no observation");
    };
    if opened.iter().any(|observation| observation.body != seen) {
        return unproven("the observations do not agree");
    }
    if seen.tx_id != ballot.tx_id
        || seen.account != reservation.account
        || seen.nonce != reservation.nonce
    {
        return unproven("the observations are about another reservation");
    }
    Ok(seen)
}
