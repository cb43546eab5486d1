//! What the board is to be asked for a ballot, derived anew each time from the
//! mirror and the statements in hand.
//!
//! A duty is done by the first in rank at once, by the next one a step later, and
//! so on, until the board shows that it was done: no node is needed for it, and a
//! lost reply is nothing but one repetition.

use std::collections::BTreeMap;

use quorate_consensus::ballot::{Ballot, is_aborted, is_final};
use quorate_consensus::board::{Refusal, SILENT_REPUTATION};
use quorate_consensus::detector;
use quorate_consensus::wire::{
    self, BallotState, BanProof, ChainOutcome, SilencePolicy, board_op::Op,
};
use quorate_consensus::{NodeId, TxId};

use super::local::Held;
use super::{Engine, Pending, Signing, Timer};
use crate::api::{Now, ProposeError, Proposed, Ticket};

/// How long the board is given to show what it was asked, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// First and longest pause between two sendings of this node's own statements.
const RESEND_MS: (u64, u64) = (1_000, 30_000);

/// Answers of the store that take longer count as this long, in milliseconds.
const SLOWEST_MS: u64 = 2_500;

/// One thing that the board is to be asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Duty {
    Advance(i32),
    // Not by nonce: while other ballots take one nonce after the other, this
    // ballot's turn must come all the same.
    Reserve,
    Certify,
    Conclude(i32),
    ProveAbort,
    MarkSilent,
    Expire,
    Release,
    Ban(NodeId),
    Accuse(NodeId, NodeId, i32),
    Unban(NodeId),
}

/// What a duty asks for. What takes statements together is put together when it is
/// asked: a duty is looked at far more often than it is done.
enum Asks {
    This(Op),
    /// [`Op::Certify`] with the decisions in hand.
    Certify,
    /// [`Op::ProveAbort`] with the abort statements in hand.
    ProveAbort,
    /// [`Op::Conclude`] with the observations in hand.
    Conclude,
}

/// The earlier of two times, where none is never.
pub(super) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Engine {
    /// Looks at one transaction anew, does what is due, and sets its next alarm.
    pub(super) fn evaluate(&mut self, now: Now, tx_id: &TxId) {
        if !self.is_live() || !self.locals.contains_key(tx_id) {
            return;
        }
        self.adopt_own_vote(tx_id);
        self.answer_waiters(tx_id);
        self.give_verdict(now, tx_id);
        let mut wake = self.record_own_vote(now, tx_id);
        wake = earlier(wake, self.record_held(now, tx_id));
        if !matches!(self.signing, Signing::Stopped(_)) {
            wake = earlier(wake, self.do_duties(now, tx_id));
            wake = earlier(wake, self.walk_submission(now, tx_id));
        }
        wake = earlier(wake, self.resend_own(now, tx_id));
        // On a store that is not to be believed, what is reserved is not known.
        if !matches!(self.signing, Signing::Stopped(_)) {
            wake = earlier(wake, self.watch_chain(now, tx_id));
        }
        self.nap(now, tx_id, wake);
        self.retire(tx_id);
    }

    fn retry_ms(&self) -> u64 {
        RETRY_MS.max(2 * self.stagger_ms())
    }

    /// Records votes that somebody else should have recorded.
    fn record_held(&mut self, now: Now, tx_id: &TxId) -> Option<u64> {
        let local = self.locals.get_mut(tx_id)?;
        if local.held.is_empty() || local.journal != super::local::Journal::Known {
            return None;
        }
        let mut wake = None;
        let mut keep = Vec::with_capacity(local.held.len());
        for mut held in std::mem::take(&mut local.held) {
            if !self.wants(now, &held.vote) {
                let digest = super::verdicts::digest_of(&held.vote.signed);
                if !self.is_from_future(now, &held.vote) {
                    self.duplicates.remember(now.mono_ms, digest);
                }
                self.let_go([&held]);
                continue;
            }
            if held.record_mono <= now.mono_ms {
                let digest = super::verdicts::digest_of(&held.vote.signed);
                held.record_mono = now.mono_ms + self.retry_ms();
                let own = self.is_own(&held.vote.node_id);
                let op = wire::RecordVoteOp {
                    vote: Some(held.vote.signed.clone()),
                    only_first: own,
                };
                let pending = Pending::ProposeHeld(tx_id.clone(), digest);
                self.propose(now, pending, Op::RecordVote(op));
            }
            wake = earlier(wake, Some(held.record_mono));
            keep.push(held);
        }
        if let Some(local) = self.locals.get_mut(tx_id) {
            local.held = keep;
        }
        wake
    }

    fn do_duties(&mut self, now: Now, tx_id: &TxId) -> Option<u64> {
        let ballot = self.board.ballot(tx_id)?;
        let mut due = BTreeMap::new();
        let later_wall = self.duties_of(now, ballot, &mut due);
        if due.is_empty() {
            if let Some(local) = self.locals.get_mut(tx_id) {
                local.duties.clear();
            }
            return later_wall.map(|wall| now.mono_ms + wall.saturating_sub(now.wall_ms).max(1));
        }
        // The rank costs a hash per member, so it is computed for a new duty only.
        let is_new =
            |local: &super::local::Local| due.keys().any(|d| !local.duties.contains_key(d));
        let delay = match self.locals.get(tx_id).is_some_and(is_new) {
            true => self.rank_in(tx_id) * self.stagger_ms(),
            false => 0,
        };
        let retry = self.retry_ms();
        let mut wake = later_wall.map(|wall| now.mono_ms + wall.saturating_sub(now.wall_ms).max(1));
        let Some(local) = self.locals.get_mut(tx_id) else {
            return wake;
        };
        local.duties.retain(|duty, _| due.contains_key(duty));
        let mut ops = Vec::new();
        for (duty, asks) in due {
            // A lease is its holder's own to give back: no rank there.
            let first = match duty {
                Duty::Release => now.mono_ms,
                _ => now.mono_ms + delay,
            };
            let at = local.duties.entry(duty.clone()).or_insert(first);
            if *at <= now.mono_ms {
                *at = now.mono_ms + retry;
                ops.push((duty, asks));
            }
            wake = earlier(wake, Some(*at));
        }
        for (duty, asks) in ops {
            if let Some(op) = self.operation(tx_id, asks) {
                let pending = Pending::ProposeDuty(Some((tx_id.clone(), duty)));
                self.propose(now, pending, op);
            }
        }
        wake
    }

    fn operation(&self, tx_id: &TxId, asks: Asks) -> Option<Op> {
        let ballot = self.board.ballot(tx_id)?;
        let tx_id = || tx_id.as_str().to_owned();
        Some(match asks {
            Asks::This(op) => op,
            Asks::Certify => Op::Certify(wire::CertifyOp {
                tx_id: tx_id(),
                decisions: self.certificate_in_hand(ballot)?,
            }),
            Asks::ProveAbort => Op::ProveAbort(wire::ProveAbortOp {
                tx_id: tx_id(),
                aborts: self.abort_proof_in_hand(ballot)?,
            }),
            Asks::Conclude => {
                let (_, observations) = self.observations_in_hand(ballot)?;
                Op::Conclude(wire::ConcludeOp {
                    tx_id: tx_id(),
                    observations: observations.into_iter().cloned().collect(),
                })
            }
        })
    }

    /// Fills in what the board is to be asked now, and says at which wall time to
    /// look again.
    fn duties_of(&self, now: Now, ballot: &Ballot, due: &mut BTreeMap<Duty, Asks>) -> Option<u64> {
        let tx_id = || ballot.tx_id.as_str().to_owned();
        let mut later = None;
        if let Some(lease) = &ballot.lease
            && self.is_own(&lease.holder)
            && is_final(ballot.state)
        {
            let op = wire::ReleaseOp {
                tx_id: tx_id(),
                node_id: self.config.node_id.to_string(),
            };
            due.insert(Duty::Release, Asks::This(Op::Release(op)));
        }
        if let Some(step) = self.board.next_move(&ballot.tx_id, now.wall_ms) {
            let (tx_id, to) = (tx_id(), i32::from(step.to));
            let op = Op::Advance(wire::AdvanceOp { tx_id, to });
            due.insert(Duty::Advance(to), Asks::This(op));
            // The ballot's own move comes before any ban that would change it.
            return None;
        }
        if ballot.state == BallotState::ThresholdReached {
            match ballot.settled_ms() {
                Some(settled) if settled > now.wall_ms => later = Some(settled),
                _ => self.reserve(ballot, Vec::new(), due),
            }
        }
        self.submission_duties(ballot, due);
        if is_aborted(ballot.state) && ballot.aborts.is_empty() && self.has_abort_proof(ballot) {
            due.insert(Duty::ProveAbort, Asks::ProveAbort);
        }
        for violation in &ballot.violations {
            // Evidence is large: it is put together only for a ban that is missing.
            if !detector::bans(violation.kind, &ballot.rules)
                || self.board.is_banned(&violation.node_id)
            {
                continue;
            }
            let Some(misbehaviour) = violation.misbehaviour.clone() else {
                continue;
            };
            let proof = BanProof {
                kind: Some(wire::ban_proof::Kind::Misbehaviour(misbehaviour)),
            };
            if !self.board.is_pardoned(&proof) {
                let op = wire::BanOp {
                    node_id: violation.node_id.to_string(),
                    proof: Some(proof),
                };
                let duty = Duty::Ban(violation.node_id.clone());
                due.insert(duty, Asks::This(Op::Ban(op)));
            }
        }
        let deadline = ballot.deadline_ms();
        match deadline {
            Some(at) if !ballot.roll_called && at <= now.wall_ms => {
                let op = Op::MarkSilent(wire::MarkSilentOp { tx_id: tx_id() });
                due.insert(Duty::MarkSilent, Asks::This(op));
            }
            Some(at) if !ballot.roll_called => later = earlier(later, Some(at)),
            None if ballot.state == BallotState::Collecting => {
                let at = ballot.expires_ms();
                if at <= now.wall_ms {
                    let op = Op::Expire(wire::ExpireOp { tx_id: tx_id() });
                    due.insert(Duty::Expire, Asks::This(op));
                } else {
                    later = earlier(later, Some(at));
                }
            }
            _ => {}
        }
        later
    }

    fn submission_duties(&self, ballot: &Ballot, due: &mut BTreeMap<Duty, Asks>) {
        if ballot.reservation.is_none() {
            return;
        }
        if ballot.certificate.is_none() && self.has_certificate(ballot) {
            due.insert(Duty::Certify, Asks::Certify);
        }
        let Some((body, observations)) = self.observations_in_hand(ballot) else {
            return;
        };
        let concludes = match (ballot.state, body.outcome) {
            (BallotState::Submitted, ChainOutcome::Confirmed) => ballot.certificate.is_some(),
            (BallotState::Submitted, ChainOutcome::Reverted) => true,
            (BallotState::Submitted, ChainOutcome::Cancelled) => ballot.given_up,
            // Given up, its nonce gone: nothing can bring it onto the chain.
            (BallotState::Submitted, ChainOutcome::NonceTaken) if ballot.given_up => true,
            (BallotState::Confirmed | BallotState::Failed, ChainOutcome::Undone) => true,
            (BallotState::Submitted, ChainOutcome::NonceTaken) => {
                let observations = observations.into_iter().cloned().collect();
                self.reserve(ballot, observations, due);
                return;
            }
            _ => false,
        };
        if concludes {
            due.insert(Duty::Conclude(body.outcome.into()), Asks::Conclude);
        }
    }

    fn reserve(
        &self,
        ballot: &Ballot,
        observations: Vec<wire::SignedStatement>,
        due: &mut BTreeMap<Duty, Asks>,
    ) {
        let Some(reservation) = self.board.next_reservation(ballot) else {
            return;
        };
        let op = wire::ReserveOp {
            tx_id: ballot.tx_id.to_string(),
            reservation: Some(reservation),
            observations,
        };
        due.insert(Duty::Reserve, Asks::This(Op::Reserve(op)));
    }

    /// Says again what this node has said about a ballot until it is proven.
    fn resend_own(&mut self, now: Now, tx_id: &TxId) -> Option<u64> {
        let ballot = self.board.ballot(tx_id)?;
        let undone = self.locals.get(tx_id)?.says_undone(ballot);
        let open_question = match ballot.state {
            BallotState::Collecting | BallotState::ThresholdReached => false,
            BallotState::Submitted => true,
            BallotState::Confirmed | BallotState::Failed => ballot.certificate.is_none() || undone,
            _ => ballot.aborts.is_empty(),
        };
        let local = self.locals.get_mut(tx_id)?;
        let silent = local.own_verdict.is_none()
            && local
                .own_observation
                .as_ref()
                .is_none_or(|own| own.signed.is_none());
        if !open_question || silent {
            local.resend_mono = None;
            return None;
        }
        match local.resend_mono {
            None => {
                local.resend_after_ms = RESEND_MS.0;
                local.resend_mono = Some(now.mono_ms + local.resend_after_ms);
            }
            Some(at) if at <= now.mono_ms => {
                local.resend_after_ms = (local.resend_after_ms * 2).min(RESEND_MS.1);
                local.resend_mono = Some(now.mono_ms + local.resend_after_ms);
                let at = local.resend_mono;
                let mut batch = wire::Batch::default();
                local.add_own_statements(&mut batch);
                if !self.remind(now, tx_id) {
                    self.broadcast(now, batch);
                }
                return at;
            }
            Some(_) => {}
        }
        local.resend_mono
    }

    /// The board's answer to an operation.
    pub(super) fn proposed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: Result<Proposed, ProposeError>,
    ) {
        let Some(asked) = self.answered(ticket) else {
            return;
        };
        if let Ok(proposed) = result {
            let took_ms = now.mono_ms.saturating_sub(asked.mono_ms);
            // One answer that came after an outage must not slow every rank down for
            // minutes.
            self.latency_ms = (7 * self.latency_ms + took_ms.min(SLOWEST_MS)) / 8;
            // A new entry comes behind all that was believed when it was asked for.
            let head = match proposed {
                Proposed::Applied(revision) => revision.saturating_sub(1),
                Proposed::Unchanged(head) => head,
            };
            if head < asked.revision {
                self.store_is_older(now, head, asked.revision);
            }
        }
        if let Err(ProposeError::OlderStore { head }) = result {
            self.store_is_older(now, head, asked.revision);
        }
        match asked.what {
            Pending::ProposeOwnVote(tx_id, digest) => {
                self.own_vote_proposed(&tx_id, digest, result);
            }
            Pending::ProposeHeld(tx_id, digest) => {
                // What the board refuses it would refuse again and again; a peer
                // that still has it may bring it back.
                if let Err(ProposeError::Refused(_)) = result
                    && let Some(local) = self.locals.get_mut(&tx_id)
                {
                    let refused =
                        |held: &mut Held| super::verdicts::digest_of(&held.vote.signed) == digest;
                    let gone: Vec<_> = local.held.extract_if(.., refused).collect();
                    self.let_go(gone.iter());
                    self.touch(&tx_id);
                }
            }
            Pending::ProposeDuty(Some((tx_id, duty @ Duty::Reserve))) => {
                // Another ballot took the nonce: ask again soon, for the next one,
                // and the later the more ballots there are that ask.
                if let Err(ProposeError::Refused(Refusal::WrongReservation(_))) = result
                    && let Some(local) = self.locals.get_mut(&tx_id)
                {
                    let jitter = u64::from(blake3::hash(tx_id.as_str().as_bytes()).as_bytes()[0]);
                    let pause = (2 + jitter / 16) << local.nonces_missed.min(5);
                    local.nonces_missed += 1;
                    local.duties.insert(duty, now.mono_ms + pause);
                    self.touch(&tx_id);
                }
            }
            _ => {}
        }
    }

    /// Looks at the members anew: who is accused by t, who fell too low, which
    /// accusations the board lacks.
    pub(super) fn evaluate_members(&mut self, now: Now) {
        if !self.is_live() || matches!(self.signing, Signing::Stopped(_)) {
            return;
        }
        let unsigned = self.sign_accusations(now);
        let mut due: BTreeMap<Duty, (u64, Op)> = BTreeMap::new();
        let members: Vec<_> = self
            .board
            .rules()
            .members()
            .map(|m| m.node_id.clone())
            .collect();
        for node_id in members {
            if let Some(proof) = self.ban_proof(&node_id) {
                let op = wire::BanOp {
                    node_id: node_id.to_string(),
                    proof: Some(proof),
                };
                let rank = self.rank(node_id.as_str());
                due.insert(Duty::Ban(node_id), (rank, Op::Ban(op)));
            }
        }
        self.unban_duties(&mut due);
        for (accused, own) in &self.accusations {
            let own_id = &self.config.node_id;
            let on_board = self.board.member(accused).is_none_or(|member| {
                member.ban.is_some() || member.accusations.contains_key(own_id)
            });
            if !on_board
                && !self.board.is_banned(own_id)
                && let Some(signed) = own.signed.clone()
            {
                let duty = Duty::Accuse(
                    accused.clone(),
                    self.config.node_id.clone(),
                    own.body.kind.into(),
                );
                let accusation = Some(signed);
                due.insert(duty, (0, Op::Accuse(wire::AccuseOp { accusation })));
            }
        }
        self.heard_accusations
            .retain(|(accused, by, _), signed| self.board.wants_accusation(accused, by, signed));
        for ((accused, by, kind), signed) in &self.heard_accusations {
            let duty = Duty::Accuse(accused.clone(), by.clone(), *kind);
            let rank = self.rank(by.as_str()) + 1;
            let accusation = Some(signed.clone());
            due.insert(duty, (rank, Op::Accuse(wire::AccuseOp { accusation })));
        }
        let stagger = self.stagger_ms();
        let retry = self.retry_ms();
        self.member_duties.retain(|duty, _| due.contains_key(duty));
        let mut wake = unsigned;
        for (duty, (rank, op)) in due {
            let first = now.mono_ms + rank * stagger;
            let at = self.member_duties.entry(duty).or_insert(first);
            if *at <= now.mono_ms {
                *at = now.mono_ms + retry;
                wake = earlier(wake, Some(*at));
                self.propose(now, Pending::ProposeDuty(None), op);
            } else {
                wake = earlier(wake, Some(*at));
            }
        }
        if let Some(at) = wake {
            self.wake_at(Timer::Members, at);
        }
    }

    /// The proof that bans a member by what the board counts, if there is one.
    fn ban_proof(&self, node_id: &NodeId) -> Option<BanProof> {
        use wire::ban_proof::Kind;
        let member = self.board.member(node_id)?;
        if member.ban.is_some() {
            return None;
        }
        let t = self.board.rules().threshold();
        let accusations: Vec<_> = member
            .accusations
            .iter()
            .filter(|(by, _)| !self.board.is_banned(by))
            .map(|(_, accusation)| accusation.signed.clone())
            .take(t)
            .collect();
        let kind = if accusations.len() == t {
            Kind::Accusations(wire::Accusations { accusations })
        } else if self.board.rules().silence() == SilencePolicy::Ban
            && member.reputation < SILENT_REPUTATION
        {
            Kind::Silence(wire::Silence {})
        } else {
            return None;
        };
        let proof = BanProof { kind: Some(kind) };
        (!self.board.is_pardoned(&proof)).then_some(proof)
    }
}
