//! What peers say to each other in batches, one by one: a [`Batch`] has a list for each
//! kind of statement, and whoever relays, packs or repeats statements wants to take each
//! in its hand, and to lay those that it chose into batches again.

use crate::wire::{Batch, Misbehaviour, SignedStatement, TracedVote};

/// One thing that a batch says. Nothing in it is checked yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A vote, with the context of its trace.
    Vote(TracedVote),
    /// Proof of misbehaviour.
    Evidence(Misbehaviour),
    /// A member's decision.
    Decision(SignedStatement),
    /// A member's word that a ballot is aborted.
    Abort(SignedStatement),
    /// What a member saw on the chain.
    Observation(SignedStatement),
    /// A member's accusation of another.
    Accusation(SignedStatement),
    /// What an operator did through its node.
    OperatorAct(SignedStatement),
}

impl Said {
    /// All that a batch says: votes, evidence, decisions, aborts, observations,
    /// accusations, operators' acts. That is the order in which a receiver takes a batch
    /// in; within each kind it is the batch's own.
    pub fn all_of(batch: Batch) -> impl Iterator<Item = Self> {
        // Named one by one: a new list that is forgotten here does not compile.
        let Batch {
            votes,
            decisions,
            aborts,
            observations,
            accusations,
            evidence,
            operator_acts,
        } = batch;
        let votes = votes.into_iter().map(Self::Vote);
        votes
            .chain(evidence.into_iter().map(Self::Evidence))
            .chain(decisions.into_iter().map(Self::Decision))
            .chain(aborts.into_iter().map(Self::Abort))
            .chain(observations.into_iter().map(Self::Observation))
            .chain(accusations.into_iter().map(Self::Accusation))
            .chain(operator_acts.into_iter().map(Self::OperatorAct))
    }

    /// The one statement that it is. None for evidence, which is made of several, and
    /// for a vote that is not there.
    pub fn signed(&self) -> Option<&SignedStatement> {
        match self {
            Self::Vote(traced) => traced.vote.as_ref(),
            Self::Evidence(_) => None,
            Self::Decision(signed)
            | Self::Abort(signed)
            | Self::Observation(signed)
            | Self::Accusation(signed)
            | Self::OperatorAct(signed) => Some(signed),
        }
    }

    /// Says it in this batch as well, after all of its kind that are there.
    pub fn put_into(self, batch: &mut Batch) {
        match self {
            Self::Vote(traced) => batch.votes.push(traced),
            Self::Evidence(misbehaviour) => batch.evidence.push(misbehaviour),
            Self::Decision(signed) => batch.decisions.push(signed),
            Self::Abort(signed) => batch.aborts.push(signed),
            Self::Observation(signed) => batch.observations.push(signed),
            Self::Accusation(signed) => batch.accusations.push(signed),
            Self::OperatorAct(signed) => batch.operator_acts.push(signed),
        }
    }
}

impl FromIterator<Said> for Batch {
    fn from_iter<I: IntoIterator<Item = Said>>(all: I) -> Self {
        let mut batch = Self::default();
        all.into_iter().for_each(|said| said.put_into(&mut batch));
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{DoubleVote, misbehaviour};

    fn signed(number: u8) -> SignedStatement {
        SignedStatement {
            statement: vec![number],
            signature: vec![number, number],
        }
    }

    fn vote(number: u8) -> TracedVote {
        TracedVote {
            vote: Some(signed(number)),
            traceparent: format!("trace {number}"),
        }
    }

    fn evidence(number: u8) -> Misbehaviour {
        let kind = misbehaviour::Kind::DoubleVote(DoubleVote {
            first: Some(signed(number)),
            second: Some(signed(number + 100)),
        });
        Misbehaviour { kind: Some(kind) }
    }

    /// Two of each kind, no two alike.
    fn full() -> Batch {
        Batch {
            votes: vec![vote(1), vote(2)],
            decisions: vec![signed(3), signed(4)],
            aborts: vec![signed(5), signed(6)],
            observations: vec![signed(7), signed(8)],
            accusations: vec![signed(9), signed(10)],
            evidence: vec![evidence(11), evidence(12)],
            operator_acts: vec![signed(13), signed(14)],
        }
    }

    #[test]
    fn a_batch_taken_apart_and_put_together_is_the_same() {
        for batch in [full(), Batch::default()] {
            let again: Batch = Said::all_of(batch.clone()).collect();
            assert_eq!(again, batch);
        }
        // Each by itself, laid into a batch that has some already.
        let (mut whole, mut twice) = (full(), full());
        for said in Said::all_of(full()) {
            let alone: Batch = std::iter::once(said.clone()).collect();
            let found: Vec<_> = Said::all_of(alone).collect();
            assert_eq!(found, std::slice::from_ref(&said));
            said.put_into(&mut whole);
        }
        twice.votes.extend(full().votes);
        twice.decisions.extend(full().decisions);
        twice.aborts.extend(full().aborts);
        twice.observations.extend(full().observations);
        twice.accusations.extend(full().accusations);
        twice.evidence.extend(full().evidence);
        twice.operator_acts.extend(full().operator_acts);
        assert_eq!(whole, twice);
    }

    #[test]
    fn each_kind_comes_in_its_turn() {
        let expected = [
            Said::Vote(vote(1)),
            Said::Vote(vote(2)),
            Said::Evidence(evidence(11)),
            Said::Evidence(evidence(12)),
            Said::Decision(signed(3)),
            Said::Decision(signed(4)),
            Said::Abort(signed(5)),
            Said::Abort(signed(6)),
            Said::Observation(signed(7)),
            Said::Observation(signed(8)),
            Said::Accusation(signed(9)),
            Said::Accusation(signed(10)),
            Said::OperatorAct(signed(13)),
            Said::OperatorAct(signed(14)),
        ];
        assert_eq!(Said::all_of(full()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn all_but_evidence_is_one_statement() {
        let numbers: Vec<_> = Said::all_of(full())
            .map(|said| said.signed().map(|signed| signed.statement[0]))
            .collect();
        let statements = [1, 2].into_iter().map(Some);
        let expected = statements.chain([None, None]);
        let expected = expected.chain((3..=10).chain(13..=14).map(Some));
        assert_eq!(numbers, expected.collect::<Vec<_>>());
        assert_eq!(Said::Vote(TracedVote::default()).signed(), None);
    }
}
