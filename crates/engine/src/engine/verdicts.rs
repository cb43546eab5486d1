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
use super::mesh::Worth;
use super::{Engine, Pending, Timer};
use crate::api::{Alert, Now, Record, Ticket};

/// After a key did not sign, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// An accusation that this node makes.
#[derive(Clone, Debug)]
pub(super) struct OwnAccusation {
    pub(super) body: AccusationBody,
    /// None while it is being signed.
    pub(super) signed: Option<SignedStatement>,
    /// When to ask for its signature, on the monotonic clock; none once asked.
    pub(super) sign_mono: Option<u64>,
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
        // What is proven needs no further word, and that is cheaper to see than what
        // the word would be.
        if ballot.is_proven()
            || !self.is_in_service()
            || !self.is_ready_to_say(tx_id)
            || self.signing_stopped(now).is_some()
        {
            return;
        }
        // What was said is looked at first: the words cost more.
        if self
            .locals
            .get(tx_id)
            .is_some_and(|l| self.has_said(l, ballot))
        {
            return;
        }
        let Some((domain, statement)) = verdict_for(ballot, &self.config.node_id) else {
            return;
        };
        let Some(local) = self.locals.get(tx_id) else {
            return;
        };
        let said = local.own_verdict.as_ref();
        if said.is_some_and(|(_, signed)| signed.statement == statement) {
            return;
        }
        if let Some((kind, said)) = &local.verdict
            && *said != statement
            && !(*kind == domain && self.was_replaced(tx_id, said))
        {
            // On the board that was believed then it was so. This one has another past,
            // and a second word would be worth a second certificate.
            self.stop_for_rollback(format!(
                "this node has signed another verdict on {tx_id} than this board gives"
            ));
            return;
        }
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
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
        let pending = Pending::SignVerdict(tx_id.clone(), statement.clone());
        self.sign_bytes(now, pending, DecisionBody::KEY, domain, statement);
    }

    /// Whether what this node decided once was for a reservation that this board has
    /// seen too, and replaced because a stranger took its nonce: only then may a
    /// decision be signed anew.
    fn was_replaced(&self, tx_id: &TxId, decision: &[u8]) -> bool {
        let Ok((_, body)) = statement::parse::<DecisionBody>(decision) else {
            return false;
        };
        let value = self.board.ballot(tx_id).and_then(|b| b.value.as_ref());
        let nonce = body.reservation.map(|reservation| reservation.nonce);
        value == Some(&body.value)
            && nonce.and_then(|nonce| self.board.reserved_for(nonce)) == Some(tx_id)
    }

    /// The journal was read, and no verdict is being signed.
    fn is_ready_to_say(&self, tx_id: &TxId) -> bool {
        self.locals
            .get(tx_id)
            .is_some_and(|local| local.journal == Journal::Known && !local.signing_verdict)
    }

    /// The verdict that this node has signed is the one that the ballot justifies.
    fn has_said(&self, local: &Local, ballot: &Ballot) -> bool {
        let own = &self.config.node_id;
        match &local.own_verdict {
            None => false,
            Some((Domain::Decision, said)) => local.decisions.get(own).is_some_and(|decision| {
                !is_aborted(ballot.state)
                    && decision.signed == *said
                    && self.is_for_ballot(decision)
            }),
            Some((_, said)) => local.aborts.get(own).is_some_and(|abort| {
                is_aborted(ballot.state)
                    && abort.signed == *said
                    && abort.body.reason == abort_reason(ballot.state)
            }),
        }
    }

    fn verdict_signed(
        &mut self,
        now: Now,
        tx_id: &TxId,
        statement: Vec<u8>,
        result: Result<Vec<u8>, String>,
    ) {
        let rules = self.rules_of(tx_id);
        let verifier = self.verifier.clone();
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        local.signing_verdict = false;
        let domain = match &local.verdict {
            Some((domain, current)) if *current == statement => *domain,
            _ => return,
        };
        let signed = result.ok().map(|signature| SignedStatement {
            statement,
            signature,
        });
        // Opened before anybody hears it: peers answer a signature that does not
        // verify with an accusation.
        let mut batch = wire::Batch::default();
        let taken = signed.and_then(|signed| {
            match domain {
                Domain::Decision => {
                    let own = statement::open::<DecisionBody>(&signed, &rules, verifier.as_ref());
                    self.take_decision(now, own.ok()?);
                    batch.decisions.push(signed.clone());
                }
                _ => {
                    let own = statement::open::<AbortBody>(&signed, &rules, verifier.as_ref());
                    self.take_abort(now, own.ok()?);
                    batch.aborts.push(signed.clone());
                }
            }
            Some(signed)
        });
        let Some(signed) = taken else {
            // The key was away: another try a while later.
            self.wake_by(Timer::Transaction(tx_id.clone()), now.mono_ms + RETRY_MS);
            return;
        };
        if let Some(local) = self.locals.get_mut(tx_id) {
            local.own_verdict = Some((domain, signed));
            local.resend_mono = None;
        }
        self.broadcast(now, batch);
    }

    pub(super) fn take_decision(&mut self, now: Now, decision: Decision) -> Worth {
        let tx_id = decision.body.tx_id.clone();
        match self.board.ballot(&tx_id) {
            None => return self.worth_without_ballot(&tx_id),
            Some(ballot) if ballot.certificate.is_some() => return Worth::Spent,
            Some(_) => {}
        }
        // An earlier decision that somebody repeats, for a reservation that was
        // replaced, must not push out the one that counts.
        let held = self.locals.get(&tx_id);
        let known = held.and_then(|local| local.decisions.get(&decision.node_id));
        if known.is_some_and(|known| self.is_for_ballot(known)) {
            return Worth::Spent;
        }
        // One that this node cannot place yet is passed on once for each member.
        let worth = match known.is_none() || self.is_for_ballot(&decision) {
            true => Worth::New,
            false => Worth::Unclear,
        };
        let local = self.local(now, &tx_id);
        local.decisions.insert(decision.node_id.clone(), decision);
        self.touch(&tx_id);
        worth
    }

    /// A ballot that the board does not show: it may come, or it is over.
    fn worth_without_ballot(&self, tx_id: &TxId) -> Worth {
        match self.board.collected(tx_id) {
            Some(_) => Worth::Spent,
            None => Worth::Unclear,
        }
    }

    pub(super) fn take_abort(&mut self, now: Now, abort: Abort) -> Worth {
        let tx_id = abort.body.tx_id.clone();
        let reason = match self.board.ballot(&tx_id) {
            None => return self.worth_without_ballot(&tx_id),
            Some(ballot) if !ballot.aborts.is_empty() => return Worth::Spent,
            Some(ballot) => is_aborted(ballot.state).then(|| abort_reason(ballot.state)),
        };
        let local = self.local(now, &tx_id);
        let counts = Some(abort.body.reason) == reason;
        let known = local.aborts.insert(abort.node_id.clone(), abort);
        self.touch(&tx_id);
        match known {
            None => Worth::New,
            Some(known) if Some(known.body.reason) == reason => Worth::Spent,
            Some(_) if counts => Worth::New,
            Some(_) => Worth::Unclear,
        }
    }

    pub(super) fn take_observation(&mut self, now: Now, observation: Observation) -> Worth {
        let tx_id = observation.body.tx_id.clone();
        let Some(ballot) = self.board.ballot(&tx_id) else {
            return self.worth_without_ballot(&tx_id);
        };
        // One of an earlier round that somebody repeats must not push out the one
        // that counts.
        let known = self
            .locals
            .get(&tx_id)
            .and_then(|local| local.observations.get(&observation.node_id));
        let stale = known.is_some_and(|known| observation.body.round < known.body.round);
        if ballot.reservation.is_none() {
            return Worth::Unclear;
        }
        if stale {
            return Worth::Spent;
        }
        let worth = match known {
            Some(known) if known.body == observation.body => Worth::Spent,
            _ => Worth::New,
        };
        let local = self.local(now, &tx_id);
        local
            .observations
            .insert(observation.node_id.clone(), observation);
        self.touch(&tx_id);
        worth
    }

    /// Whether a decision is for its ballot's value and reservation in force.
    fn is_for_ballot(&self, decision: &Decision) -> bool {
        let body = &decision.body;
        let ballot = self.board.ballot(&body.tx_id);
        ballot.is_some_and(|ballot| is_decision_for(ballot, body))
    }

    /// The decisions in hand for the ballot's value and reservation.
    fn agreeing_decisions<'a>(
        &'a self,
        ballot: &'a Ballot,
    ) -> impl Iterator<Item = &'a SignedStatement> {
        let local = self.locals.get(&ballot.tx_id);
        let decisions = local.into_iter().flat_map(|l| l.decisions.values());
        let agreeing = decisions.filter(|decision| is_decision_for(ballot, &decision.body));
        agreeing.map(|decision| &decision.signed)
    }

    /// Whether t decisions for the ballot's value and reservation are in hand.
    pub(super) fn has_certificate(&self, ballot: &Ballot) -> bool {
        self.agreeing_decisions(ballot).count() >= ballot.rules.threshold()
    }

    /// t decisions for the ballot's value and reservation, if they are in hand.
    pub(super) fn certificate_in_hand(&self, ballot: &Ballot) -> Option<Vec<SignedStatement>> {
        let t = ballot.rules.threshold();
        first_t(t, self.agreeing_decisions(ballot))
    }

    /// The abort statements in hand for the ballot's end.
    fn agreeing_aborts<'a>(
        &'a self,
        ballot: &'a Ballot,
    ) -> impl Iterator<Item = &'a SignedStatement> {
        let reason = abort_reason(ballot.state);
        let local = self.locals.get(&ballot.tx_id);
        let aborts = local.into_iter().flat_map(|l| l.aborts.values());
        let agreeing = aborts.filter(move |abort| abort.body.reason == reason);
        agreeing.map(|abort| &abort.signed)
    }

    /// Whether t abort statements for the ballot's end are in hand.
    pub(super) fn has_abort_proof(&self, ballot: &Ballot) -> bool {
        self.agreeing_aborts(ballot).count() >= ballot.rules.threshold()
    }

    /// t abort statements for the ballot's end, if they are in hand.
    pub(super) fn abort_proof_in_hand(&self, ballot: &Ballot) -> Option<Vec<SignedStatement>> {
        first_t(ballot.rules.threshold(), self.agreeing_aborts(ballot))
    }

    /// t equal observations of the reservation in force, if they are in hand.
    pub(super) fn observations_in_hand(
        &self,
        ballot: &Ballot,
    ) -> Option<(&ObservationBody, Vec<&SignedStatement>)> {
        let local = self.locals.get(&ballot.tx_id)?;
        let reservation = ballot.reservation.as_ref()?;
        let t = ballot.rules.threshold();
        if local.observations.len() < t {
            return None;
        }
        let mut groups: BTreeMap<&ObservationBody, Vec<&SignedStatement>> = BTreeMap::new();
        for observation in local.observations.values() {
            let body = &observation.body;
            let current = body.round == ballot.round;
            if current && body.account == reservation.account && body.nonce == reservation.nonce {
                groups.entry(body).or_default().push(&observation.signed);
            }
        }
        let (body, mut signed) = groups.into_iter().find(|(_, signed)| signed.len() >= t)?;
        signed.truncate(t);
        Some((body, signed))
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
        let pending = |statement| Pending::SignObservation(tx_id.clone(), statement);
        self.sign(now, pending, &rules, &body);
    }

    fn observation_signed(
        &mut self,
        now: Now,
        tx_id: &TxId,
        statement: Vec<u8>,
        result: Result<Vec<u8>, String>,
    ) {
        let rules = self.rules_of(tx_id);
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        let Some(own) = &mut local.own_observation else {
            return;
        };
        // The chain has shown something else meanwhile: that signature follows.
        if statement::bytes_to_sign(&rules, &self.config.node_id, &own.body) != statement {
            return;
        }
        let opened = result.ok().and_then(|signature| {
            let signed = SignedStatement {
                statement,
                signature,
            };
            statement::open::<ObservationBody>(&signed, &rules, self.verifier.as_ref()).ok()
        });
        let Some(observation) = opened else {
            // The next look says it again.
            local.own_observation = None;
            return;
        };
        own.signed = Some(observation.signed.clone());
        local.resend_mono = None;
        self.broadcast(
            now,
            wire::Batch {
                observations: vec![observation.signed.clone()],
                ..wire::Batch::default()
            },
        );
        self.take_observation(now, observation);
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
        let own = OwnAccusation {
            body,
            signed: None,
            sign_mono: Some(now.mono_ms),
        };
        self.accusations.insert(accused, own);
        self.sign_accusations(now);
    }

    /// Has signed what is not signed yet; gives when the next one is due.
    pub(super) fn sign_accusations(&mut self, now: Now) -> Option<u64> {
        let rules = self.board.rules().clone();
        let mut wake = None;
        let mut due = Vec::new();
        for (accused, own) in &mut self.accusations {
            match own.sign_mono {
                Some(at) if at <= now.mono_ms => {
                    own.sign_mono = None;
                    due.push((accused.clone(), own.body.clone()));
                }
                at => wake = super::duties::earlier(wake, at),
            }
        }
        for (accused, body) in due {
            let pending = |statement| Pending::SignAccusation(accused, statement);
            self.sign(now, pending, &rules, &body);
        }
        wake
    }

    fn accusation_signed(
        &mut self,
        now: Now,
        accused: &NodeId,
        statement: Vec<u8>,
        result: Result<Vec<u8>, String>,
    ) {
        let rules = self.board.rules().clone();
        let Some(own) = self.accusations.get_mut(accused) else {
            return;
        };
        if statement::bytes_to_sign(&rules, &self.config.node_id, &own.body) != statement {
            return;
        }
        let signed = result.ok().map(|signature| SignedStatement {
            statement,
            signature,
        });
        let good = signed.filter(|signed| {
            statement::open::<AccusationBody>(signed, &rules, self.verifier.as_ref()).is_ok()
        });
        let Some(signed) = good else {
            // The key was away: what was seen does not become unseen by that.
            own.sign_mono = Some(now.mono_ms + RETRY_MS);
            self.wake_by(Timer::Members, now.mono_ms + RETRY_MS);
            return;
        };
        own.signed = Some(signed.clone());
        self.broadcast(
            now,
            wire::Batch {
                accusations: vec![signed],
                ..wire::Batch::default()
            },
        );
        self.evaluate_members(now);
    }

    /// Remembers a peer's accusation until the board shows it.
    pub(super) fn take_accusation(&mut self, now: Now, accusation: Accusation) -> Worth {
        let body = &accusation.body;
        let (accused, by) = (body.accused.clone(), accusation.node_id.clone());
        let wanted = self
            .board
            .wants_accusation(&accused, &by, &accusation.signed);
        if !wanted || self.is_own(&by) {
            return Worth::Spent;
        }
        // As with votes: each author has an equal share, so that a liar fills its own and
        // nobody else's.
        let share = self.board.rules().total();
        let key = (accused, by, i32::from(body.kind));
        let of_author = |(_, by, _): &&(NodeId, NodeId, i32)| *by == key.1;
        if !self.heard_accusations.contains_key(&key)
            && self.heard_accusations.keys().filter(of_author).count() >= share
        {
            return Worth::Unclear;
        }
        let known = self.heard_accusations.insert(key, accusation.signed);
        self.wake_by(Timer::Members, now.mono_ms);
        match known {
            None => Worth::New,
            Some(_) => Worth::Spent,
        }
    }

    /// A signature came, or did not.
    pub(super) fn signed(&mut self, now: Now, ticket: Ticket, result: Result<Vec<u8>, String>) {
        let Some(asked) = self.answered(ticket) else {
            return;
        };
        match asked.what {
            Pending::SignVote(tx_id, statement) => {
                self.vote_signed(now, &tx_id, statement, result);
            }
            Pending::SignVerdict(tx_id, statement) => {
                self.verdict_signed(now, &tx_id, statement, result);
            }
            Pending::SignObservation(tx_id, statement) => {
                self.observation_signed(now, &tx_id, statement, result);
            }
            Pending::SignAccusation(accused, statement) => {
                self.accusation_signed(now, &accused, statement, result);
            }
            Pending::SignAct(statement) => {
                if let Ok(signature) = result {
                    let act = SignedStatement {
                        statement,
                        signature,
                    };
                    self.act_signed(now, act);
                }
            }
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
                    self.hello_signed(now, stream, hello);
                }
            }
            Pending::SignAddress(statement) => self.address_signed(now, statement, result),
            _ => {}
        }
    }
}

/// The reason that an abort statement gives for an aborted state.
fn abort_reason(state: BallotState) -> AbortReason {
    match state {
        BallotState::AbortedByzantine => AbortReason::Byzantine,
        BallotState::AbortedSplit => AbortReason::Split,
        _ => AbortReason::Timeout,
    }
}

/// The verdict that a ballot's state on the board justifies.
fn verdict_for(ballot: &Ballot, node_id: &NodeId) -> Option<(Domain, Vec<u8>)> {
    let tx_id = ballot.tx_id.clone();
    if is_aborted(ballot.state) {
        let reason = abort_reason(ballot.state);
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

/// Whether a decision on a ballot is for its value and reservation in force.
fn is_decision_for(ballot: &Ballot, body: &DecisionBody) -> bool {
    Some(&body.value) == ballot.value.as_ref() && body.reservation == ballot.reservation
}

/// The first t of statements that ascend by node_id, if there are so many.
fn first_t<'a>(
    t: usize,
    signed: impl Iterator<Item = &'a SignedStatement>,
) -> Option<Vec<SignedStatement>> {
    let first: Vec<_> = signed.take(t).cloned().collect();
    (first.len() == t).then_some(first)
}
