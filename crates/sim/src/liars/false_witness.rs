//! Sends made-up evidence against honest trustees, to peers and to the board: one vote
//! twice, votes of two trustees or for two transactions as two of one, too small or
//! repeated majorities, and a second vote that it signs itself.
//!
//! What must come of it: nobody is convicted. Where every signature is good the evidence
//! is worth the votes in it; with a signature of its own making the liar is accused and
//! banned (INVALID_SIGNATURE). The board refuses each such ban.

use std::collections::BTreeMap;

use quorate_consensus::statement::{VoteBody, parse};
use quorate_consensus::wire::{
    self, Misbehaviour, SignedStatement, board_event::Event, frame, misbehaviour::Kind,
};
use quorate_consensus::{Choice, NodeId, TxId};
use quorate_testkit::ops;

use super::{Budget, Cue, Liar, Lie, Stage, another, batch, told};

/// Votes of others that it keeps to make evidence of.
const MOST_KEPT: usize = 256;

/// Turns what it hears against who said it.
#[derive(Debug, Default)]
pub(super) struct FalseWitness {
    votes: BTreeMap<(NodeId, TxId), SignedStatement>,
    budget: Budget<300>,
}

impl Liar for FalseWitness {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let lies = match cue {
            // A signature of its own making ends its streams: not every time.
            Cue::Asked { tx_id, choice } if stage.pick(8, 1) == 0 => {
                let Some(victim) = stage.pick_other(2) else {
                    return Vec::new();
                };
                let first = forged(stage, victim, tx_id, choice.clone());
                let second = forged(stage, victim, tx_id, another(choice).into());
                charge(stage, victim, double(first, second))
            }
            Cue::Heard {
                body: frame::Body::Batch(heard),
                ..
            } => {
                let votes = heard.votes.iter().filter_map(|traced| traced.vote.as_ref());
                self.hear(stage, votes)
            }
            Cue::Entries(entries) => {
                let votes = told(entries).filter_map(|(_, event)| match event {
                    Event::VoteRecorded(recorded) => recorded.vote.as_ref(),
                    _ => None,
                });
                self.hear(stage, votes)
            }
            _ => Vec::new(),
        };
        self.budget.of(lies)
    }
}

impl FalseWitness {
    /// Keeps the votes, and makes something up about the last new one.
    fn hear<'a>(
        &mut self,
        stage: &Stage<'_>,
        votes: impl Iterator<Item = &'a SignedStatement>,
    ) -> Vec<Lie> {
        let mut last = None;
        for vote in votes {
            let Ok((header, body)) = parse::<VoteBody>(&vote.statement) else {
                continue;
            };
            let key = (header.node_id, body.tx_id);
            let known = key.0 == *stage.me || self.votes.contains_key(&key);
            if !known && self.votes.len() < MOST_KEPT {
                self.votes.insert(key.clone(), vote.clone());
                last = Some((key, vote));
            }
        }
        match last {
            Some(((victim, tx_id), vote)) if !self.budget.is_spent() => {
                charge(stage, &victim, self.make_up(stage, &victim, &tx_id, vote))
            }
            _ => Vec::new(),
        }
    }

    /// Evidence of nothing, from votes with good signatures.
    fn make_up(
        &self,
        stage: &Stage<'_>,
        victim: &NodeId,
        tx_id: &TxId,
        vote: &SignedStatement,
    ) -> Kind {
        let of_others = |(of, on): &(NodeId, TxId)| of != victim && on == tx_id;
        let mut others = self.votes.iter().filter(|(key, _)| of_others(key));
        let t = stage.rules.threshold();
        match stage.pick(5, 1) {
            // One vote twice.
            0 => double(vote.clone(), vote.clone()),
            // Two trustees' votes.
            1 => match others.next() {
                Some((_, other)) => double(vote.clone(), other.clone()),
                None => double(vote.clone(), vote.clone()),
            },
            // Votes for two transactions.
            2 => {
                let elsewhere = |(of, on): &(NodeId, TxId)| of == victim && on != tx_id;
                let mut elsewhere = self.votes.iter().filter(|(key, _)| elsewhere(key));
                let other = elsewhere.next().map_or(vote, |(_, other)| other);
                double(other.clone(), vote.clone())
            }
            // A majority of one, many times.
            3 => {
                let one = others.next().map_or(vote, |(_, other)| other);
                minority(vote, vec![one.clone(); t])
            }
            // The victim itself among the t, or too few.
            _ => {
                let few: Vec<_> = others.map(|(_, other)| other.clone()).take(t - 1).collect();
                let own = few.len() + 1 == t;
                minority(
                    vote,
                    few.into_iter().chain(own.then(|| vote.clone())).collect(),
                )
            }
        }
    }
}

fn double(first: SignedStatement, second: SignedStatement) -> Kind {
    Kind::DoubleVote(wire::DoubleVote {
        first: Some(first),
        second: Some(second),
    })
}

fn minority(dissent: &SignedStatement, majority: Vec<SignedStatement>) -> Kind {
    Kind::MinorityVote(wire::MinorityVote {
        dissent: Some(dissent.clone()),
        majority,
    })
}

fn forged(stage: &Stage<'_>, victim: &NodeId, tx_id: &TxId, choice: Choice) -> SignedStatement {
    let body = VoteBody {
        tx_id: tx_id.clone(),
        choice,
        time_ms: stage.now_ms,
    };
    stage.state_as(victim, &body)
}

/// Tells everybody, and asks the board for a ban.
fn charge(stage: &Stage<'_>, victim: &NodeId, kind: Kind) -> Vec<Lie> {
    let misbehaviour = Misbehaviour { kind: Some(kind) };
    let mut lies = vec![stage.propose(ops::ban_for(victim, misbehaviour.clone()))];
    lies.extend(stage.to_all(&batch(wire::Batch {
        evidence: vec![misbehaviour],
        ..wire::Batch::default()
    })));
    lies
}
