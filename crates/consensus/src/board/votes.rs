//! Votes come onto the board (rows 1, 9 and 14), and lies are found in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use litemap::LiteMap;

use crate::ballot::{Ballot, RecordedVote};
use crate::board::step::{Effect, Step, malformed};
use crate::board::{Board, MAX_UNSTARTED, MemberState, Refusal};
use crate::choice::{Choice, Value};
use crate::detector::{contradict, misbehaviour_but};
use crate::fsm::Move;
use crate::ids::{NodeId, TxId};
use crate::rules::Rules;
use crate::statement::{StatementError, Vote, VoteBody, open_parsed, parse};
use crate::wire::board_event::Event;
use crate::wire::{self, BallotState, DissentPolicy, RecordVoteOp, ViolationType, VoteRecorded};

impl Board {
    pub(super) fn record_vote(
        &mut self,
        op: &RecordVoteOp,
        step: &mut Step<'_>,
    ) -> Result<Effect, Refusal> {
        let signed = op.vote.as_ref().ok_or(StatementError::Missing)?;
        let (header, body) = parse::<VoteBody>(&signed.statement)?;
        let tx_id = body.tx_id.clone();
        let rules = match self.ballots.get(&tx_id) {
            Some(ballot) => &ballot.rules,
            None => self
                .rules_by_digest(&header.rules_digest)
                .unwrap_or(&self.rules),
        };
        let rules = Arc::clone(rules);
        let vote: Vote = open_parsed(signed, header, body, &rules, step.verifier)?;
        self.check_change_of_rules(&vote.body)?;

        if let Some(state) = self.collected.get(&tx_id) {
            return Err(Refusal::Collected(*state));
        }
        let ballot = self.ballots.get(&tx_id);
        let first = ballot.and_then(|b| b.votes.get(&vote.node_id));
        if self.is_banned(&vote.node_id) {
            let second = ballot.and_then(|b| b.second_votes.get(&vote.node_id));
            let known = [first.map(|recorded| &recorded.vote), second];
            return match known
                .into_iter()
                .flatten()
                .any(|known| known.signed == *signed)
            {
                true => Ok(Effect::None),
                false => Err(Refusal::Banned(vote.node_id)),
            };
        }
        let ahead_ms = vote.body.time_ms.saturating_sub(step.now_ms);
        if ahead_ms > rules.clock_skew_ms() {
            return Err(Refusal::FromFuture { ahead_ms });
        }
        if let Some(first) = first {
            let first = &first.vote.body;
            if first.choice == vote.body.choice {
                return Ok(Effect::None);
            }
            if op.only_first {
                let choice = first.choice.clone();
                return Err(Refusal::OtherChoice { choice });
            }
            return Ok(self.record_second(vote, step));
        }
        let age_ms = step.now_ms.saturating_sub(vote.body.time_ms);
        if age_ms > rules.vote_lifetime_ms() {
            return Err(Refusal::TooOld { age_ms });
        }
        let voted = ballot.map_or(0, |ballot| ballot.votes.len());
        let stays_unstarted = ballot.is_none_or(Ballot::is_open) && voted + 1 < rules.starters();
        let member = self.members.get(&vote.node_id);
        if stays_unstarted && member.is_some_and(|m| m.unstarted >= MAX_UNSTARTED) {
            return Err(Refusal::TooManyUnstarted(vote.node_id));
        }
        self.record_first(vote, rules, step);
        Ok(Effect::Changed)
    }

    /// A change of rules is voted on like any transaction, but for the next epoch
    /// only, and its value is a digest.
    fn check_change_of_rules(&self, vote: &VoteBody) -> Result<(), Refusal> {
        if !vote.tx_id.is_rules() {
            return Ok(());
        }
        let number = |text: &str| {
            let number = text.parse::<u64>().ok()?;
            (number.to_string() == text).then_some(number)
        };
        let mut parts = vote.tx_id.as_str().split(':').skip(1);
        let epoch = parts.next().and_then(number);
        let attempt = parts.next().and_then(number);
        let next = self.rules.epoch() + 1;
        if epoch != Some(next) || attempt.is_none() || parts.next().is_some() {
            return malformed(format!(
                "a change of rules is called rules:{next}:<try>, with a number for <try>"
            ));
        }
        match &vote.choice {
            Choice::Abstention => Ok(()),
            Choice::Value(Value::Data(digest)) if digest.len() == 32 => Ok(()),
            Choice::Value(_) => malformed("the value of a change of rules is a digest of 32 bytes"),
        }
    }

    fn record_first(&mut self, vote: Vote, rules: Arc<Rules>, step: &mut Step<'_>) {
        let (tx_id, node_id) = (vote.body.tx_id.clone(), vote.node_id.clone());
        if !self.ballots.contains_key(&tx_id) {
            let mut ballot = opened(&tx_id, rules, step.now_ms);
            let next = Move {
                row: 1,
                to: BallotState::Collecting,
                value: None,
                reason: format!("{node_id} voted first"),
            };
            step.enter(&mut ballot, next);
            self.ballots.insert(tx_id.clone(), ballot);
        }
        let Some(ballot) = self.ballots.get_mut(&tx_id) else {
            return;
        };
        let late = !ballot.is_open();
        let was_unstarted = ballot.is_unstarted();
        let recorded = VoteRecorded {
            node_id: node_id.to_string(),
            choice: Some(wire::Choice::from(&vote.body.choice)),
            late,
            vote: Some(vote.signed.clone()),
        };
        step.event(Some(&tx_id), Event::VoteRecorded(recorded));
        ballot.revision = step.revision;
        ballot
            .votes
            .insert(node_id.clone(), RecordedVote { vote, late });
        let member = state_of(&mut self.members, &node_id);
        member.total_votes += 1;
        match (was_unstarted, ballot.is_unstarted()) {
            (_, true) => member.unstarted += 1,
            (true, false) => {
                let before = ballot.votes.keys().filter(|id| **id != node_id);
                release_unstarted(&mut self.members, before);
            }
            (false, false) => {}
        }
        self.note_lies(&tx_id, step);
    }

    /// Keeps a second choice, the first such, if it proves a lie.
    fn record_second(&mut self, second: Vote, step: &mut Step<'_>) -> Effect {
        let tx_id = second.body.tx_id.clone();
        let Some(ballot) = self.ballots.get_mut(&tx_id) else {
            return Effect::None;
        };
        let proves = ballot
            .votes
            .get(&second.node_id)
            .is_some_and(|first| contradict(&first.vote.body, &second.body, &ballot.rules));
        if !proves || ballot.second_votes.contains_key(&second.node_id) {
            return Effect::None;
        }
        if ballot.is_open() && ballot.rules.dissent() == DissentPolicy::Outvote {
            ballot.struck.insert(second.node_id.clone());
        }
        ballot.revision = step.revision;
        ballot.second_votes.insert(second.node_id.clone(), second);
        self.note_lies(&tx_id, step);
        Effect::Changed
    }

    /// Notes what the ballot's votes prove by now, each once.
    fn note_lies(&mut self, tx_id: &TxId, step: &mut Step<'_>) {
        let Some(ballot) = self.ballots.get_mut(tx_id) else {
            return;
        };
        let found = misbehaviour_but(ballot, &|node_id, kind| {
            let banned = || self.members.get(node_id).is_some_and(|m| m.ban.is_some());
            is_noted(ballot, node_id, kind) || (kind == ViolationType::MinorityVote && banned())
        });
        for (node_id, kind, misbehaviour) in found {
            let member = state_of(&mut self.members, &node_id);
            step.note(ballot, member, &node_id, kind, Some(misbehaviour));
        }
    }
}

fn opened(tx_id: &TxId, rules: Arc<Rules>, now_ms: u64) -> Ballot {
    Ballot {
        tx_id: tx_id.clone(),
        rules,
        state: BallotState::Unspecified,
        since_ms: now_ms,
        opened_ms: now_ms,
        revision: 0,
        reason: String::new(),
        path: Vec::new(),
        votes: LiteMap::new(),
        second_votes: LiteMap::new(),
        struck: BTreeSet::new(),
        value: None,
        reservation: None,
        certificate: None,
        aborts: Vec::new(),
        observed: None,
        round: 0,
        given_up: false,
        lease: None,
        roll_called: false,
        silent: BTreeSet::new(),
        violations: Vec::new(),
    }
}

/// Whether misbehaviour of this kind was found in the ballot already.
pub(super) fn is_noted(ballot: &Ballot, node_id: &NodeId, kind: ViolationType) -> bool {
    let mut noted = ballot.violations.iter();
    noted.any(|violation| violation.kind == kind && violation.node_id == *node_id)
}

/// A member's state; a member of rules that are no longer in force gets one too.
pub(super) fn state_of<'a>(
    members: &'a mut BTreeMap<NodeId, MemberState>,
    node_id: &NodeId,
) -> &'a mut MemberState {
    members.entry(node_id.clone()).or_default()
}

/// Takes a ballot that is no longer unstarted off the accounts of its voters.
pub(super) fn release_unstarted<'a>(
    members: &mut BTreeMap<NodeId, MemberState>,
    voters: impl Iterator<Item = &'a NodeId>,
) {
    for node_id in voters {
        let member = state_of(members, node_id);
        member.unstarted = member.unstarted.saturating_sub(1);
    }
}
