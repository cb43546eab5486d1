//! What the board knows about members: bans and pardons, accusations, starts.

use std::collections::btree_map::Entry;

use crate::board::step::{Effect, Step, malformed, node_id, unproven};
use crate::board::votes::{is_noted, state_of};
use crate::board::{Ban, Board, Refusal, SILENT_REPUTATION};
use crate::detector::{self, Conviction, accused_vote, convict, proof_digest};
use crate::ids::{NodeId, TxId};
use crate::statement::{
    Accusation, AccusationBody, Boot, OperatorActBody, VoteBody, open_field, parse,
};
use crate::wire::ban_proof::Kind;
use crate::wire::board_event::Event;
use crate::wire::{
    AccusationKind, Accusations, AccuseOp, Accused, BanOp, BanProof, Banned, BootOp, Booted,
    Misbehaviour, OperatorActKind, SignedStatement, SilencePolicy, UnbanOp, Unbanned,
    ViolationType,
};

/// The reputation after a ban was lifted: thousandths.
const PARDONED_REPUTATION: u32 = 500;

/// What a ban is for.
enum Grounds {
    Lie(Conviction),
    Accused(ViolationType),
    Silent,
}

impl Board {
    /// Whether a ban by this proof was pardoned.
    ///
    /// A pardoned lie stays pardoned however its evidence is put together. Silence
    /// is no lie: its pardon is the better reputation that an unban gives.
    pub fn is_pardoned(&self, proof: &BanProof) -> bool {
        match &proof.kind {
            None | Some(Kind::Silence(_)) => false,
            Some(Kind::Accusations(_)) => self.pardoned.contains(&proof_digest(proof)),
            Some(Kind::Misbehaviour(misbehaviour)) => {
                self.pardoned.contains(&proof_digest(proof))
                    || lie_in(misbehaviour).is_some_and(|lie| self.pardoned_lies.contains(&lie))
            }
        }
    }

    /// Whether a verified accusation of one member by another would still count: the
    /// accused is not banned, the accuser is not and has not accused it before, and
    /// this statement was not pardoned.
    pub fn wants_accusation(
        &self,
        accused: &NodeId,
        by: &NodeId,
        accusation: &SignedStatement,
    ) -> bool {
        let member = self.members.get(accused);
        let open = member.is_some_and(|m| m.ban.is_none() && !m.accusations.contains_key(by));
        open && by != accused
            && !self.is_banned(by)
            && !self.pardoned.contains(&digest_of(accusation))
    }

    pub(super) fn ban(&mut self, op: &BanOp, step: &mut Step<'_>) -> Result<Effect, Refusal> {
        let node_id = node_id(&op.node_id)?;
        let Some((proof, kind)) = op.proof.as_ref().and_then(|p| Some((p, p.kind.as_ref()?)))
        else {
            return malformed("the proof is missing");
        };
        let Some(member) = self.members.get(&node_id) else {
            return Err(Refusal::UnknownMember(node_id));
        };
        if member.ban.is_some() {
            return Ok(Effect::None);
        }
        if self.is_pardoned(proof) {
            return unproven("this was pardoned");
        }
        let grounds = match kind {
            Kind::Misbehaviour(proof) => Grounds::Lie(self.check_lie(&node_id, proof, step)?),
            Kind::Accusations(proof) => {
                Grounds::Accused(self.check_accusations(&node_id, proof, step)?)
            }
            Kind::Silence(_) if self.rules.silence() != SilencePolicy::Ban => {
                return unproven("the rules do not ban for silence");
            }
            Kind::Silence(_) if member.reputation >= SILENT_REPUTATION => {
                return unproven(format!(
                    "its reputation is {}, not below {SILENT_REPUTATION} thousandths",
                    member.reputation
                ));
            }
            Kind::Silence(_) => Grounds::Silent,
        };

        let kind = match &grounds {
            Grounds::Lie(conviction) => conviction.kind,
            Grounds::Accused(kind) => *kind,
            Grounds::Silent => ViolationType::SilentFailure,
        };
        let member = state_of(&mut self.members, &node_id);
        match grounds {
            Grounds::Lie(conviction) => {
                let Some(Kind::Misbehaviour(evidence)) = &proof.kind else {
                    return Ok(Effect::None);
                };
                let tx_id = &conviction.tx_id;
                let evidence = Some(evidence.clone());
                match self.ballots.get_mut(tx_id) {
                    Some(ballot) if is_noted(ballot, &node_id, kind) => {}
                    Some(ballot) => step.note(ballot, member, &node_id, kind, evidence),
                    // A collected ballot's lies were noted before.
                    None if self.collected.contains_key(tx_id) => {}
                    None => step.violation(Some(tx_id), member, &node_id, kind, evidence),
                }
                step.reputation(None, member, &node_id, 0);
            }
            Grounds::Accused(_) => {
                step.violation(None, member, &node_id, kind, None);
                step.reputation(None, member, &node_id, 0);
            }
            Grounds::Silent => {}
        }
        member.ban = Some(Ban {
            kind,
            since_ms: step.now_ms,
            proof: proof.clone(),
        });
        let banned = Banned {
            node_id: node_id.to_string(),
            r#type: kind.into(),
            proof: Some(proof.clone()),
        };
        step.event(None, Event::Banned(banned));
        Ok(Effect::Changed)
    }

    fn check_lie(
        &self,
        node_id: &NodeId,
        misbehaviour: &Misbehaviour,
        step: &Step<'_>,
    ) -> Result<Conviction, Refusal> {
        let signed_under = accused_vote(misbehaviour)
            .and_then(|vote| parse::<VoteBody>(&vote.statement).ok())
            .and_then(|(header, body)| match self.ballots.get(&body.tx_id) {
                Some(ballot) if ballot.rules.digest() == header.rules_digest => Some(&ballot.rules),
                _ => self.rules_by_digest(&header.rules_digest),
            });
        let rules = signed_under.unwrap_or(&self.rules);
        let conviction = convict(misbehaviour, rules, step.verifier)?;
        if conviction.node_id != *node_id {
            return unproven(format!("the evidence is about {}", conviction.node_id));
        }
        if !detector::bans(conviction.kind, rules) {
            return unproven("under these rules this misbehaviour marks and does not ban");
        }
        // The ban would turn the liar's dissent into none and keep its second vote
        // away, so the ballot's own move comes first.
        if let Some(ballot) = self.ballots.get(&conviction.tx_id)
            && ballot.is_open()
            && (!is_noted(ballot, node_id, conviction.kind)
                || self.move_of(ballot, step.now_ms).is_some())
        {
            return Err(Refusal::AdvanceFirst(conviction.tx_id));
        }
        Ok(conviction)
    }

    fn check_accusations(
        &self,
        accused: &NodeId,
        proof: &Accusations,
        step: &Step<'_>,
    ) -> Result<ViolationType, Refusal> {
        let opened = step.open_threshold::<AccusationBody>(&proof.accusations, &self.rules)?;
        for accusation in &opened {
            let by = &accusation.node_id;
            if accusation.body.accused != *accused {
                return unproven(format!("the accusation of {by} is about another member"));
            }
            if by == accused {
                return unproven("a member does not accuse itself");
            }
            if self.is_banned(by) {
                return unproven(format!("{by} is banned, so its accusation does not count"));
            }
            if self.pardoned.contains(&digest_of(&accusation.signed)) {
                return unproven(format!("the accusation of {by} was pardoned"));
            }
        }
        match opened.first() {
            Some(first) => Ok(violation_of(first.body.kind)),
            None => unproven("there is no accusation"),
        }
    }

    pub(super) fn unban(&mut self, op: &UnbanOp, step: &mut Step<'_>) -> Result<Effect, Refusal> {
        let node_id = node_id(&op.node_id)?;
        let Some(member) = self.members.get(&node_id) else {
            return Err(Refusal::UnknownMember(node_id));
        };
        let Some(ban) = &member.ban else {
            return Ok(Effect::None);
        };
        let rules = &self.rules;
        let acts = step.open_list::<OperatorActBody>(&op.acts, rules.threshold(), rules)?;
        let digest = proof_digest(&ban.proof);
        for act in &acts {
            let (body, by) = (&act.body, &act.node_id);
            if body.kind != OperatorActKind::Unban || body.subject != node_id.as_str() {
                return unproven(format!("the act of {by} is another one"));
            }
            if !body.pardoned.contains(&digest) {
                return unproven(format!("the act of {by} does not pardon this ban"));
            }
            // All bans for silence have one proof: an act for an earlier one must
            // not lift a later one.
            if body.time_ms.saturating_add(rules.clock_skew_ms()) < ban.since_ms {
                return unproven(format!("the act of {by} is older than the ban"));
            }
        }

        let ban = ban.proof.clone();
        let member = state_of(&mut self.members, &node_id);
        member.ban = None;
        let accusations = std::mem::take(&mut member.accusations).into_values();
        let further = std::mem::take(&mut member.further_accusations).into_values();
        let accusations = accusations.chain(further).map(|a| digest_of(&a.signed));
        self.pardoned.extend(accusations);
        match &ban.kind {
            Some(Kind::Accusations(proof)) => {
                self.pardoned
                    .extend(proof.accusations.iter().map(digest_of));
            }
            Some(Kind::Misbehaviour(misbehaviour)) => {
                self.pardoned_lies.extend(lie_in(misbehaviour));
            }
            Some(Kind::Silence(_)) | None => {}
        }
        for act in &acts {
            self.pardoned.extend(&act.body.pardoned);
        }
        let unbanned = Unbanned {
            node_id: node_id.to_string(),
        };
        step.event(None, Event::Unbanned(unbanned));
        step.reputation(None, member, &node_id, PARDONED_REPUTATION);
        Ok(Effect::Changed)
    }

    pub(super) fn accuse(&mut self, op: &AccuseOp, step: &mut Step<'_>) -> Result<Effect, Refusal> {
        let accusation: Accusation = open_field(&op.accusation, &self.rules, step.verifier)?;
        let (by, accused) = (accusation.node_id.clone(), accusation.body.accused.clone());
        if by == accused {
            return malformed("a member does not accuse itself");
        }
        let Some(member) = self.members.get(&accused) else {
            return Err(Refusal::UnknownMember(accused));
        };
        let kind = accusation.body.kind;
        let key = (by.clone(), kind);
        let first = member.accusations.get(&by);
        if first.is_some_and(|first| first.body.kind == kind)
            || member.further_accusations.contains_key(&key)
            || self.pardoned.contains(&digest_of(&accusation.signed))
        {
            return Ok(Effect::None);
        }
        if self.is_banned(&by) {
            return Err(Refusal::Banned(by));
        }
        let event = Accused {
            node_id: accused.to_string(),
            by: by.to_string(),
            kind: kind.into(),
            accusation: Some(accusation.signed.clone()),
        };
        let about = accusation.body.tx_id.clone();
        let member = state_of(&mut self.members, &accused);
        match member.accusations.entry(by) {
            Entry::Vacant(entry) => {
                entry.insert(accusation);
            }
            Entry::Occupied(_) => {
                member.further_accusations.insert(key, accusation);
            }
        }
        step.event(about.as_ref(), Event::Accused(event));
        Ok(Effect::Changed)
    }

    pub(super) fn boot(&mut self, op: &BootOp, step: &mut Step<'_>) -> Result<Effect, Refusal> {
        let boot: Boot = open_field(&op.boot, &self.rules, step.verifier)?;
        let member = state_of(&mut self.members, &boot.node_id);
        if member.boot.as_ref() == Some(&boot.signed) {
            return Ok(Effect::None);
        }
        let (current, found) = (member.generation, boot.body.generation);
        if found <= current {
            return Err(Refusal::StaleGeneration { current, found });
        }
        member.generation = found;
        member.boot = Some(boot.signed);
        let booted = Booted {
            node_id: boot.node_id.to_string(),
            generation: found,
        };
        step.event(None, Event::Booted(booted));
        Ok(Effect::Changed)
    }
}

fn violation_of(kind: AccusationKind) -> ViolationType {
    match kind {
        AccusationKind::Unspecified => ViolationType::Unspecified,
        AccusationKind::InvalidSignature => ViolationType::InvalidSignature,
        AccusationKind::Malformed => ViolationType::Malformed,
        AccusationKind::Operator => ViolationType::Operator,
    }
}

/// Who lied, and about which transaction; nothing is verified.
fn lie_in(misbehaviour: &Misbehaviour) -> Option<(NodeId, TxId)> {
    let vote = accused_vote(misbehaviour)?;
    let (header, body) = parse::<VoteBody>(&vote.statement).ok()?;
    Some((header.node_id, body.tx_id))
}

fn digest_of(signed: &SignedStatement) -> [u8; 32] {
    *blake3::hash(&signed.statement).as_bytes()
}
