//! Statements that peers send: opened, blamed on their sender if they are no good,
//! and taken in. Votes that the board does not show are held until it is this node's
//! turn to record them.

use quorate_consensus::TxId;
use quorate_consensus::batch::Said;
use quorate_consensus::statement::{
    self, AbortBody, AccusationBody, Body, DecisionBody, ObservationBody, OperatorActBody, Signed,
    StatementError, Vote, VoteBody,
};
use quorate_consensus::wire::{self, AccusationKind};

use super::Engine;
use super::local::Held;
use super::mesh::{Heard, Worth};
use super::verdicts::digest_of;
use crate::api::Now;

/// The most votes that are held although the board does not show them. Each trustee
/// has an equal share, so that a liar fills its own and nobody else's.
const MOST_HELD: usize = 65_536;

/// Why a batch ends its stream.
pub(super) struct Offence {
    pub(super) kind: AccusationKind,
    pub(super) tx_id: Option<TxId>,
    pub(super) subject_digest: [u8; 32],
    pub(super) why: String,
}

impl Engine {
    /// Takes a batch in, statement by statement. All of it was in one frame of one
    /// sender, so the first bad one condemns the rest.
    /// Gives what of it was understood, for the mesh.
    pub(super) fn batch(
        &mut self,
        now: Now,
        batch: wire::Batch,
    ) -> Result<Vec<Heard>, Box<Offence>> {
        let mut heard = Vec::new();
        for traced in batch.votes {
            heard.push(self.peer_vote(now, traced)?);
        }
        for misbehaviour in batch.evidence {
            self.peer_evidence(now, misbehaviour, &mut heard)?;
        }
        for signed in batch.decisions {
            let decision = self.open_peer::<DecisionBody>(&signed)?;
            let taken = decision.map(|decision| {
                let author = decision.node_id.clone();
                (author, self.take_decision(now, decision))
            });
            heard.push(Heard::new(Said::Decision(signed), taken));
        }
        for signed in batch.aborts {
            let abort = self.open_peer::<AbortBody>(&signed)?;
            let taken = abort.map(|abort| {
                let author = abort.node_id.clone();
                (author, self.take_abort(now, abort))
            });
            heard.push(Heard::new(Said::Abort(signed), taken));
        }
        for signed in batch.observations {
            let observation = self.open_peer::<ObservationBody>(&signed)?;
            let taken = observation.map(|observation| {
                let author = observation.node_id.clone();
                (author, self.take_observation(now, observation))
            });
            heard.push(Heard::new(Said::Observation(signed), taken));
        }
        for signed in batch.accusations {
            let accusation = self.open_peer::<AccusationBody>(&signed)?;
            let taken = accusation.map(|accusation| {
                let author = accusation.node_id.clone();
                (author, self.take_accusation(now, accusation))
            });
            heard.push(Heard::new(Said::Accusation(signed), taken));
        }
        for signed in batch.operator_acts {
            let act = self.open_peer::<OperatorActBody>(&signed)?;
            let taken = act.map(|act| {
                let author = act.node_id.clone();
                (author, self.take_act(now, act))
            });
            heard.push(Heard::new(Said::OperatorAct(signed), taken));
        }
        Ok(heard)
    }

    /// Opens a peer's statement under the rules that it names. None when those rules
    /// are unknown, which is excused.
    pub(super) fn open_peer<B: Body>(
        &self,
        signed: &wire::SignedStatement,
    ) -> Result<Option<Signed<B>>, Box<Offence>> {
        let offence = |error: &StatementError, tx_id| {
            Box::new(Offence {
                kind: match error {
                    StatementError::BadSignature(_) => AccusationKind::InvalidSignature,
                    _ => AccusationKind::Malformed,
                },
                tx_id,
                subject_digest: digest_of(signed),
                why: error.to_string(),
            })
        };
        let (header, body) = match statement::parse::<B>(&signed.statement) {
            Ok(parsed) => parsed,
            Err(error) => return Err(offence(&error, None)),
        };
        let Some(rules) = self.board.rules_by_digest(&header.rules_digest) else {
            return Ok(None);
        };
        match statement::open_parsed(signed, header, body, rules, self.verifier.as_ref()) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if !error.accuses_sender() => Ok(None),
            Err(error) => {
                let tx_id = statement::parse::<VoteBody>(&signed.statement)
                    .ok()
                    .map(|(_, vote)| vote.tx_id);
                Err(offence(&error, tx_id))
            }
        }
    }

    fn peer_vote(&mut self, now: Now, traced: wire::TracedVote) -> Result<Heard, Box<Offence>> {
        let signed = traced.vote.clone().unwrap_or_default();
        let digest = digest_of(&signed);
        if self.duplicates.contains(now.mono_ms, &digest) {
            self.duplicates.drop_one();
            return Ok(Heard::dealt_with(Said::Vote(traced)));
        }
        let Some(vote) = self.open_peer::<VoteBody>(&signed)? else {
            return Ok(Heard::new(Said::Vote(traced), None));
        };
        let author = vote.node_id.clone();
        let worth = if !self.is_in_service() {
            // The sender's board has it or will have it; this node reads it there.
            Worth::Unclear
        } else if self.wants(now, &vote) {
            match self.hold(now, vote) {
                true => Worth::New,
                false => Worth::Unclear,
            }
        } else if self.is_from_future(now, &vote) {
            Worth::Unclear
        } else {
            self.duplicates.remember(now.mono_ms, digest);
            match self.is_recorded(now, &vote) {
                true => Worth::New,
                false => Worth::Spent,
            }
        };
        Ok(Heard::new(Said::Vote(traced), Some((author, worth))))
    }

    /// This very statement is on the board, and not for long: others may read another
    /// board, and hear of it only so.
    fn is_recorded(&self, now: Now, vote: &Vote) -> bool {
        let body = &vote.body;
        let lifetime_ms = self.board.rules().vote_lifetime_ms();
        let ballot = self.board.ballot(&body.tx_id);
        let recorded = ballot.and_then(|ballot| ballot.votes.get(&vote.node_id));
        recorded.is_some_and(|recorded| recorded.vote.signed == vote.signed)
            && now.wall_ms <= body.time_ms.saturating_add(lifetime_ms)
    }

    /// Signed further ahead of this node's clock than the skew: not now, but perhaps
    /// when it comes again.
    pub(super) fn is_from_future(&self, now: Now, vote: &Vote) -> bool {
        vote.body.time_ms > now.wall_ms + self.board.rules().clock_skew_ms()
    }

    /// Counts votes that are held no more.
    pub(super) fn let_go<'a>(&mut self, gone: impl IntoIterator<Item = &'a Held>) {
        for held in gone {
            if let Some(count) = self.held_votes.get_mut(&held.vote.node_id) {
                *count -= 1;
                if *count == 0 {
                    self.held_votes.remove(&held.vote.node_id);
                }
            }
        }
    }

    /// Whether the board may still need this vote from this node.
    pub(super) fn wants(&self, now: Now, vote: &Vote) -> bool {
        let rules = self.board.rules();
        let body = &vote.body;
        if self.board.is_banned(&vote.node_id)
            || self.board.collected(&body.tx_id).is_some()
            || self.is_from_future(now, vote)
            || now.wall_ms > body.time_ms.saturating_add(rules.vote_lifetime_ms())
        {
            return false;
        }
        let Some(ballot) = self.board.ballot(&body.tx_id) else {
            return true;
        };
        match ballot.votes.get(&vote.node_id) {
            None => true,
            Some(recorded) => {
                recorded.vote.body.choice != body.choice
                    && !ballot.second_votes.contains_key(&vote.node_id)
                    && recorded.vote.body.time_ms.abs_diff(body.time_ms) <= rules.vote_lifetime_ms()
            }
        }
    }

    /// Keeps a vote that the board does not show, to record it when its turn comes.
    /// False when there is no room for it.
    fn hold(&mut self, now: Now, vote: Vote) -> bool {
        let tx_id = vote.body.tx_id.clone();
        let conflict = self
            .board
            .ballot(&tx_id)
            .and_then(|ballot| ballot.votes.get(&vote.node_id))
            .map(|recorded| recorded.vote.signed.clone());
        let held_by_trustee = self.locals.get(&tx_id).map_or(0, |local| {
            let same = |held: &&Held| held.vote.node_id == vote.node_id;
            local.held.iter().filter(same).count()
        });
        let known = self
            .locals
            .get(&tx_id)
            .is_some_and(|local| local.held.iter().any(|h| h.vote.signed == vote.signed));
        // Two choices of one trustee are all that evidence needs.
        let of_trustee = self.held_votes.get(&vote.node_id).copied();
        let share = MOST_HELD / self.board.rules().total();
        if known || held_by_trustee >= 2 || of_trustee.unwrap_or(0) >= share {
            return known;
        }
        let step = self.stagger_ms();
        let rank = self.rank_in(&tx_id);
        // A lie is put on the board at once by the first in rank; an ordinary vote
        // is left to its origin for a while.
        let turns = if conflict.is_some() { rank } else { rank + 1 };
        let jitter = u64::from(digest_of(&vote.signed)[0]) * step / 1024;
        let record_mono = now.mono_ms + turns * step + jitter;
        if let Some(first) = conflict {
            let evidence = wire::Misbehaviour {
                kind: Some(wire::misbehaviour::Kind::DoubleVote(wire::DoubleVote {
                    first: Some(first),
                    second: Some(vote.signed.clone()),
                })),
            };
            self.broadcast(
                now,
                wire::Batch {
                    evidence: vec![evidence],
                    ..wire::Batch::default()
                },
            );
        }
        *self.held_votes.entry(vote.node_id.clone()).or_default() += 1;
        let local = self.local(now, &tx_id);
        local.held.push(Held { vote, record_mono });
        self.touch(&tx_id);
        true
    }

    /// Evidence is worth the votes in it: they go the way of all votes.
    fn peer_evidence(
        &mut self,
        now: Now,
        misbehaviour: wire::Misbehaviour,
        heard: &mut Vec<Heard>,
    ) -> Result<(), Box<Offence>> {
        use wire::misbehaviour::Kind;
        let votes: Vec<_> = match misbehaviour.kind {
            Some(Kind::DoubleVote(double)) => [double.first, double.second]
                .into_iter()
                .flatten()
                .collect(),
            Some(Kind::MinorityVote(minority)) => {
                let dissent = minority.dissent.into_iter();
                dissent.chain(minority.majority).collect()
            }
            None => Vec::new(),
        };
        for signed in votes {
            let traced = wire::TracedVote {
                vote: Some(signed),
                traceparent: String::new(),
            };
            heard.push(self.peer_vote(now, traced)?);
        }
        Ok(())
    }
}
