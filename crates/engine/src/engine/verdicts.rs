//! What this node itself says: decisions, aborts, observations, accusations; and
//! what it hears the others say, until t of a kind make a proof.

use std::collections::BTreeMap;

use quorate_consensus::ballot::{Ballot, is_aborted};
use quorate_consensus::statement::{
    self, Abort, AbortBody, Accusation, AccusationBody, Body, Decision, DecisionBody, Observation,
    ObservationBody,
};
use quorate_consensus::wire::{self, AbortReason, BallotState, SignedStatement};
use quorate_consensus::{Domain, NodeId, TxId};

use super::local::{Journal, Local, OwnObservation};
use super::{Engine, Pending};
use crate::api::{Alert, Now, Record, Ticket};

/// An accusation that this node makes.
#[derive(Clone, Debug)]
pub(super) struct OwnAccusation {
    pub(super) body: AccusationBody,
    /// None while it is being signed.
    pub(super) signed: Option<SignedStatement>,
}

/// BLAKE3-256 of a signed statement: statement, then signature.
pub(super) fn digest_of(signed: &SignedStatement) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(signed.statement.len() as u64).to_be_bytes());
    hasher.update(&signed.statement);
    hasher.update(&signed.signature);
    *hasher.finalize().as_bytes()
}

impl Local {
    /// Puts this node's own statements into a batch.
    pub(super) fn add_own_statements(&self, batch: &mut wire::Batch) {
        match &self.own_verdict {
            Some((Domain::Decision, signed)) => batch.decisions.push(signed.clone()),
            Some((_, signed)) => batch.aborts.push(signed.clone()),
            None => {}
        }
        let observation = self.own_observation.as_ref();
        batch
            .observations
            .extend(observation.and_then(|own| own.signed.clone()));
    }
}

impl Engine {
    /// Signs the one verdict that the mirror of the board justifies: a decision from
    /// SUBMITTED on, an abort once aborted, and never both for one transaction.
    pub(super) fn give_verdict(&mut self, now: Now, tx_id: &TxId) {
        let Some(ballot) = self.board.ballot(tx_id) else {
            return;
        };
        let wanted = verdict_for(ballot, &self.config.node_id);
        let Some((domain, statement)) = wanted else {
            return;
        };
        let settled = match domain {
            Domain::Decision => ballot.certificate.is_some(),
            _ => !ballot.aborts.is_empty(),
        };
        if settled || self.signing_stopped(now).is_some() || !self.is_in_service() {
            return;
        }
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        if local.journal != Journal::Known || local.signing_verdict {
            return;
        }
        let said = local.own_verdict.as_ref();
        if said.is_some_and(|(_, signed)| signed.statement == statement) {
            return;
        }
        // A decision may be signed anew for a reservation that replaced one whose
        // nonce was taken; the kind never changes.
        if local
            .verdict
            .as_ref()
            .is_some_and(|(kind, _)| *kind != domain)
        {
            return;
        }
        if local
            .verdict
            .as_ref()
            .is_none_or(|(_, bytes)| *bytes != statement)
        {
            local.verdict = Some((domain, statement.clone()));
            self.persist(Record::Verdict {
                tx_id: tx_id.clone(),
                domain,
                statement: statement.clone(),
            });
            self.persist_seen(now);
        }
        if let Some(local) = self.locals.get_mut(tx_id) {
            local.signing_verdict = true;
        }
        let pending = Pending::SignVerdict(tx_id.clone());
        self.sign_bytes(now, pending, DecisionBody::KEY, domain, statement);
    }

    fn verdict_signed(&mut self, now: Now, tx_id: &TxId, result: Result<Vec<u8>, String>) {
        let rules = self.rules_of(tx_id);
        let verifier = self.verifier.clone();
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        local.signing_verdict = false;
        let (Ok(signature), Some((domain, statement))) = (result, local.verdict.clone()) else {
            return;
        };
        let signed = SignedStatement {
            statement,
            signature,
        };
        local.own_verdict = Some((domain, signed.clone()));
        local.resend_mono = None;
        let mut batch = wire::Batch::default();
        match domain {
            Domain::Decision => batch.decisions.push(signed.clone()),
            _ => batch.aborts.push(signed.clone()),
        }
        self.broadcast(batch);
        match domain {
            Domain::Decision => {
                if let Ok(own) = statement::open::<DecisionBody>(&signed, &rules, verifier.as_ref())
                {
                    self.take_decision(now, own);
                }
            }
            _ => {
                if let Ok(own) = statement::open::<AbortBody>(&signed, &rules, verifier.as_ref()) {
                    self.take_abort(now, own);
                }
            }
        }
    }

    pub(super) fn take_decision(&mut self, now: Now, decision: Decision) {
        let tx_id = decision.body.tx_id.clone();
        if self
            .board
            .ballot(&tx_id)
            .is_some_and(|b| b.certificate.is_none())
        {
            let local = self.local(now, &tx_id);
            local.decisions.insert(decision.node_id.clone(), decision);
            self.touch(&tx_id);
        }
    }

    pub(super) fn take_abort(&mut self, now: Now, abort: Abort) {
        let tx_id = abort.body.tx_id.clone();
        if self
            .board
            .ballot(&tx_id)
            .is_some_and(|b| b.aborts.is_empty())
        {
            let local = self.local(now, &tx_id);
            local.aborts.insert(abort.node_id.clone(), abort);
            self.touch(&tx_id);
        }
    }

    pub(super) fn take_observation(&mut self, now: Now, observation: Observation) {
        let tx_id = observation.body.tx_id.clone();
        if self
            .board
            .ballot(&tx_id)
            .is_some_and(|b| b.reservation.is_some())
        {
            let local = self.local(now, &tx_id);
            local
                .observations
                .insert(observation.node_id.clone(), observation);
            self.touch(&tx_id);
        }
    }

    /// t decisions for the ballot's value and reservation, if they are in hand.
    pub(super) fn certificate_in_hand(&self, ballot: &Ballot) -> Option<Vec<SignedStatement>> {
        let local = self.locals.get(&ballot.tx_id)?;
        let agreeing = local.decisions.values().filter(|decision| {
            Some(&decision.body.value) == ballot.value.as_ref()
                && decision.body.reservation == ballot.reservation
        });
        first_t(ballot.rules.threshold(), agreeing.map(|d| &d.signed))
    }

    /// t abort statements, if they are in hand.
    pub(super) fn abort_proof_in_hand(&self, ballot: &Ballot) -> Option<Vec<SignedStatement>> {
        let local = self.locals.get(&ballot.tx_id)?;
        let signed = local.aborts.values().map(|abort| &abort.signed);
        first_t(ballot.rules.threshold(), signed)
    }

    /// t equal observations of the reservation in force, if they are in hand.
    pub(super) fn observations_in_hand(
        &self,
        ballot: &Ballot,
    ) -> Option<(ObservationBody, Vec<SignedStatement>)> {
        let local = self.locals.get(&ballot.tx_id)?;
        let reservation = ballot.reservation.as_ref()?;
        let mut groups: BTreeMap<&ObservationBody, Vec<&SignedStatement>> = BTreeMap::new();
        for observation in local.observations.values() {
            let body = &observation.body;
            let current = body.round == ballot.round;
            if current && body.account == reservation.account && body.nonce == reservation.nonce {
                groups.entry(body).or_default().push(&observation.signed);
            }
        }
        let t = ballot.rules.threshold();
        let (body, signed) = groups.into_iter().find(|(_, signed)| signed.len() >= t)?;
        Some((body.clone(), first_t(t, signed.into_iter())?))
    }

    /// Signs what this node saw on the chain, unless it said so already.
    pub(super) fn observe(&mut self, now: Now, tx_id: &TxId, body: ObservationBody) {
        let rules = self.rules_of(tx_id);
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        if local
            .own_observation
            .as_ref()
            .is_some_and(|own| own.body == body)
        {
            return;
        }
        local.own_observation = Some(OwnObservation {
            body: body.clone(),
            signed: None,
        });
        self.sign(now, Pending::SignObservation(tx_id.clone()), &rules, &body);
    }

    fn observation_signed(&mut self, now: Now, tx_id: &TxId, result: Result<Vec<u8>, String>) {
        let rules = self.rules_of(tx_id);
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        let Some(own) = &mut local.own_observation else {
            return;
        };
        let Ok(signature) = result else {
            local.own_observation = None;
            return;
        };
        let signed = SignedStatement {
            statement: statement::bytes_to_sign(&rules, &self.config.node_id, &own.body),
            signature,
        };
        own.signed = Some(signed.clone());
        local.resend_mono = None;
        self.broadcast(wire::Batch {
            observations: vec![signed.clone()],
            ..wire::Batch::default()
        });
        // Opening it again also drops a signature that was made for an earlier body.
        let opened = statement::open::<ObservationBody>(&signed, &rules, self.verifier.as_ref());
        match opened {
            Ok(observation) => self.take_observation(now, observation),
            Err(_) => {
                if let Some(local) = self.locals.get_mut(tx_id) {
                    local.own_observation = None;
                }
            }
        }
    }

    /// Accuses a peer of what this node saw on its stream, once per kind.
    pub(super) fn accuse(&mut self, now: Now, body: AccusationBody, why: &str) {
        let accused = body.accused.clone();
        let kind = match body.kind {
            wire::AccusationKind::InvalidSignature => wire::ViolationType::InvalidSignature,
            wire::AccusationKind::Operator => wire::ViolationType::Operator,
            _ => wire::ViolationType::Malformed,
        };
        self.alert(Alert::Misbehaviour {
            node_id: accused.clone(),
            kind,
            detail: why.to_owned(),
        });
        if self.accusations.contains_key(&accused) {
            return;
        }
        let rules = self.board.rules().clone();
        self.sign(now, Pending::SignAccusation(accused.clone()), &rules, &body);
        let signed = None;
        self.accusations
            .insert(accused, OwnAccusation { body, signed });
    }

    fn accusation_signed(&mut self, now: Now, accused: &NodeId, result: Result<Vec<u8>, String>) {
        let rules = self.board.rules().clone();
        let Some(own) = self.accusations.get_mut(accused) else {
            return;
        };
        let Ok(signature) = result else {
            self.accusations.remove(accused);
            return;
        };
        let signed = SignedStatement {
            statement: statement::bytes_to_sign(&rules, &self.config.node_id, &own.body),
            signature,
        };
        own.signed = Some(signed.clone());
        self.broadcast(wire::Batch {
            accusations: vec![signed],
            ..wire::Batch::default()
        });
        self.evaluate_members(now);
    }

    /// Remembers a peer's accusation until the board shows it.
    pub(super) fn take_accusation(&mut self, now: Now, accusation: Accusation) {
        let body = &accusation.body;
        let (accused, by) = (body.accused.clone(), accusation.node_id.clone());
        let on_board = self
            .board
            .member(&accused)
            .is_none_or(|member| member.accusations.contains_key(&by) || member.ban.is_some());
        let most = self.board.rules().total() * self.board.rules().total();
        if on_board || self.is_own(&by) || self.heard_accusations.len() >= most {
            return;
        }
        let key = (accused, by, i32::from(body.kind));
        self.heard_accusations.insert(key, accusation.signed);
        self.wake_by(super::Timer::Members, now.mono_ms);
    }

    /// A signature came, or did not.
    pub(super) fn signed(&mut self, now: Now, ticket: Ticket, result: Result<Vec<u8>, String>) {
        let Some((pending, _)) = self.answered(now, ticket) else {
            return;
        };
        match pending {
            Pending::SignVote(tx_id) => self.vote_signed(now, &tx_id, result),
            Pending::SignVerdict(tx_id) => self.verdict_signed(now, &tx_id, result),
            Pending::SignObservation(tx_id) => self.observation_signed(now, &tx_id, result),
            Pending::SignAccusation(accused) => self.accusation_signed(now, &accused, result),
            Pending::SignBoot(statement) => {
                if let Ok(signature) = result {
                    let boot = SignedStatement {
                        statement,
                        signature,
                    };
                    self.boot_signed(now, boot);
                }
            }
            Pending::SignHello(stream, statement) => {
                if let Ok(signature) = result {
                    let hello = SignedStatement {
                        statement,
                        signature,
                    };
                    self.hello_signed(stream, hello);
                }
            }
            _ => {}
        }
    }
}

/// The verdict that a ballot's state on the board justifies.
fn verdict_for(ballot: &Ballot, node_id: &NodeId) -> Option<(Domain, Vec<u8>)> {
    let tx_id = ballot.tx_id.clone();
    if is_aborted(ballot.state) {
        let reason = match ballot.state {
            BallotState::AbortedByzantine => AbortReason::Byzantine,
            BallotState::AbortedSplit => AbortReason::Split,
            _ => AbortReason::Timeout,
        };
        let body = AbortBody { tx_id, reason };
        let bytes = statement::bytes_to_sign(&ballot.rules, node_id, &body);
        return Some((Domain::Abort, bytes));
    }
    let reservation = ballot.reservation.clone()?;
    let body = DecisionBody {
        tx_id,
        value: ballot.value.clone()?,
        reservation: Some(reservation),
    };
    let bytes = statement::bytes_to_sign(&ballot.rules, node_id, &body);
    Some((Domain::Decision, bytes))
}

/// The first t of statements that ascend by node_id, if there are so many.
fn first_t<'a>(
    t: usize,
    signed: impl Iterator<Item = &'a SignedStatement>,
) -> Option<Vec<SignedStatement>> {
    let first: Vec<_> = signed.take(t).cloned().collect();
    (first.len() == t).then_some(first)
}
