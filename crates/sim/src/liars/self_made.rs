//! Votes and decides alone, under a rules document of its own with t = 1: the epoch
//! after, with the same members and keys, but decided by nobody.
//!
//! What must come of it: nodes know that document's digest from nowhere, so its votes
//! and decisions count for nothing, its certificate verifies for nobody who starts from
//! the cluster id, and the board refuses both. Its ballot for the change of rules is one
//! vote of t, and is removed when nobody joins it.

use prost::Message as _;
use quorate_consensus::rules::digest_of;
use quorate_consensus::statement::{DecisionBody, VoteBody};
use quorate_consensus::wire::{self, Reservation, RulesDocument};
use quorate_consensus::{Rules, RulesDigest, TxId, Value};
use quorate_testkit::ops;

use super::{Budget, Cue, Liar, Lie, Stage, batch};

/// Its own lawgiver.
#[derive(Debug, Default)]
pub(super) struct SelfMade {
    budget: Budget<300>,
    proposed: bool,
}

impl Liar for SelfMade {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let Cue::Asked { tx_id, choice } = cue else {
            return Vec::new();
        };
        let own = own_rules(stage.rules);
        let vote = VoteBody {
            tx_id: tx_id.clone(),
            choice: choice.clone(),
            time_ms: stage.now_ms,
        };
        let vote = stage.state_under(own, &vote);
        let mut lies = vec![stage.propose(ops::record_vote(vote.clone()))];
        let mut said = wire::Batch {
            votes: vec![wire::TracedVote {
                vote: Some(vote),
                traceparent: String::new(),
            }],
            ..wire::Batch::default()
        };
        if let Some(value) = choice.value() {
            let reservation = reservation(stage, tx_id, value);
            let decision = DecisionBody {
                tx_id: tx_id.clone(),
                value: value.clone(),
                reservation: Some(reservation.clone()),
            };
            let decision = stage.state_under(own, &decision);
            said.decisions.push(decision.clone());
            lies.push(stage.propose(ops::reserve(tx_id, reservation)));
            lies.push(stage.propose(ops::certify(tx_id, vec![decision])));
        }
        lies.extend(stage.to_all(&batch(said)));
        if !std::mem::replace(&mut self.proposed, true)
            && let Ok(value) = Value::data(&own.0)
        {
            let change = TxId::rules(stage.rules.epoch() + 1, 1);
            let vote = stage.vote(&change, value.into());
            lies.push(stage.propose(ops::record_vote(vote)));
        }
        self.budget.of(lies)
    }
}

/// The digest of the rules in force with t = 1, as the epoch after.
pub(super) fn own_rules(rules: &Rules) -> RulesDigest {
    let mut document = RulesDocument::decode(rules.document()).unwrap_or_default();
    document.epoch += 1;
    document.predecessor = rules.digest().0.to_vec();
    document.threshold = 1;
    digest_of(&document.encode_to_vec())
}

/// The reservation that the ballot would get if it were decided next.
fn reservation(stage: &Stage<'_>, tx_id: &TxId, value: &Value) -> Reservation {
    let chain = stage.rules.chain();
    let before = stage.board.map_or(0, |board| {
        let reserved = board.ballots().filter(|b| b.reservation.is_some());
        reserved.count() as u64
    });
    Reservation {
        account: chain.account.clone(),
        nonce: chain.first_nonce.saturating_add(before),
        payload: stage.rules.payload(tx_id, value),
    }
}
