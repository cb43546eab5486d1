//! Sends made-up evidence against honest trustees, to peers and to the board: one vote
//! twice, votes of two trustees or for two transactions as two of one, too small or
//! repeated majorities, and a second vote that it signs itself. It has true statements
//! of others, too, and asks for bans by them where they do not convict: of who dissents,
//! before the board has done what follows from the votes; of who made two choices, so far
//! apart that it may have lost its memory between them.
//!
//! What must come of it: nobody honest is convicted. Where every signature is good the
//! evidence is worth the votes in it; with a signature of its own making the liar is
//! accused and banned (INVALID_SIGNATURE). The board refuses each ban that is not proven,
//! and each that would come before the ballot's own move.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::statement::{VoteBody, parse};
use quorate_consensus::wire::{
    self, Misbehaviour, SignedStatement, board_event::Event, frame, misbehaviour::Kind,
};
use quorate_consensus::{Choice, NodeId, TxId, Value};
use quorate_testkit::ops;

use super::{Budget, Cue, Liar, Lie, Stage, another, batch, told};

/// Votes of others that it keeps to make evidence of.
const MOST_KEPT: usize = 256;

/// Turns what it hears against who said it.
#[derive(Debug, Default)]
pub(super) struct FalseWitness {
    /// By transaction and voter, each the first.
    votes: BTreeMap<(TxId, NodeId), (Choice, SignedStatement)>,
    /// Another choice of a voter.
    others: BTreeMap<(TxId, NodeId), SignedStatement>,
    /// Against whose dissent it has spoken.
    told_of: BTreeSet<(TxId, NodeId)>,
    budget: Budget<300>,
    /// For what is true.
    truths: Budget<100>,
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
                return self.hear(stage, votes);
            }
            Cue::Entries(entries) => {
                let votes = told(entries).filter_map(|(_, event)| match event {
                    Event::VoteRecorded(recorded) => recorded.vote.as_ref(),
                    _ => None,
                });
                let mut lies = self.hear(stage, votes);
                for (tx_id, event) in told(entries) {
                    // The board may refuse what it would have taken later.
                    if matches!(event, Event::StateChanged(_) | Event::Expired(_)) {
                        lies.extend(self.remind(stage, &tx_id));
                    }
                }
                return lies;
            }
            _ => Vec::new(),
        };
        self.budget.of(lies)
    }
}

impl FalseWitness {
    /// Keeps the votes, tells what is true of the last new one, and makes something up.
    fn hear<'a>(
        &mut self,
        stage: &Stage<'_>,
        votes: impl Iterator<Item = &'a SignedStatement>,
    ) -> Vec<Lie> {
        let mut last = None;
        let mut truths = Vec::new();
        for vote in votes {
            let Ok((header, body)) = parse::<VoteBody>(&vote.statement) else {
                continue;
            };
            let key = (body.tx_id, header.node_id);
            if key.1 == *stage.me {
                continue;
            }
            match self.votes.get(&key) {
                Some((choice, _)) if *choice == body.choice => {}
                Some((_, first)) if !self.others.contains_key(&key) => {
                    let kind = double(first.clone(), vote.clone());
                    truths.extend(charge(stage, &key.1, kind));
                    self.others.insert(key, vote.clone());
                }
                None if self.votes.len() < MOST_KEPT => {
                    self.votes.insert(key.clone(), (body.choice, vote.clone()));
                    truths.extend(self.dissent(stage, &key.0));
                    last = Some((key, vote));
                }
                _ => {}
            }
        }
        let mut lies = self.truths.of(truths);
        if let Some(((tx_id, victim), vote)) = last
            && !self.budget.is_spent()
        {
            let made_up = self.make_up(stage, &victim, &tx_id, vote);
            lies.extend(self.budget.of(charge(stage, &victim, made_up)));
        }
        lies
    }

    /// Who voted against t others, once each.
    fn dissent(&mut self, stage: &Stage<'_>, tx_id: &TxId) -> Vec<Lie> {
        let mut values: BTreeMap<&Value, Vec<(&NodeId, &SignedStatement)>> = BTreeMap::new();
        for ((of, by), (choice, signed)) in &self.votes {
            if let (true, Some(value)) = (of == tx_id, choice.value()) {
                values.entry(value).or_default().push((by, signed));
            }
        }
        let t = stage.rules.threshold();
        let majority = values.iter().find(|(_, by)| by.len() >= t);
        let Some((value, majority)) = majority else {
            return Vec::new();
        };
        let majority: Vec<_> = majority.iter().take(t).map(|(_, vote)| *vote).collect();
        let mut lies = Vec::new();
        for (_, against) in values.iter().filter(|(other, _)| other != &value) {
            for (by, signed) in against {
                if self.told_of.insert((tx_id.clone(), (*by).clone())) {
                    let majority = majority.iter().map(|vote| (*vote).clone());
                    lies.extend(charge(stage, by, minority(signed, majority.collect())));
                }
            }
        }
        lies
    }

    /// Tells once more who made two choices.
    fn remind(&mut self, stage: &Stage<'_>, tx_id: &TxId) -> Vec<Lie> {
        let mut lies = Vec::new();
        for (key, second) in self.others.iter().filter(|((of, _), _)| of == tx_id) {
            if let Some((_, first)) = self.votes.get(key) {
                let kind = double(first.clone(), second.clone());
                lies.extend(charge(stage, &key.1, kind));
            }
        }
        self.truths.of(lies)
    }

    /// Evidence of nothing, from votes with good signatures.
    fn make_up(
        &self,
        stage: &Stage<'_>,
        victim: &NodeId,
        tx_id: &TxId,
        vote: &SignedStatement,
    ) -> Kind {
        let of_others = |(on, of): &(TxId, NodeId)| of != victim && on == tx_id;
        let others = self.votes.iter().filter(|(key, _)| of_others(key));
        let mut others = others.map(|(_, (_, signed))| signed);
        let t = stage.rules.threshold();
        match stage.pick(5, 1) {
            // One vote twice.
            0 => double(vote.clone(), vote.clone()),
            // Two trustees' votes.
            1 => match others.next() {
                Some(other) => double(vote.clone(), other.clone()),
                None => double(vote.clone(), vote.clone()),
            },
            // Votes for two transactions.
            2 => {
                let elsewhere = |(on, of): &(TxId, NodeId)| of == victim && on != tx_id;
                let mut elsewhere = self.votes.iter().filter(|(key, _)| elsewhere(key));
                let other = elsewhere.next().map_or(vote, |(_, (_, other))| other);
                double(other.clone(), vote.clone())
            }
            // A majority of one, many times.
            3 => {
                let one = others.next().unwrap_or(vote);
                minority(vote, vec![one.clone(); t])
            }
            // The victim itself among the t, or too few.
            _ => {
                let few: Vec<_> = others.take(t - 1).cloned().collect();
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
