//! Votes in its own name with a signature that does not verify: INVALID_SIGNATURE.
//!
//! What must come of it: the vote counts nowhere and is relayed by nobody; each node
//! that hears it closes the stream, refuses the liar and accuses it, and t accusations
//! ban. The board refuses the vote.

use quorate_consensus::statement::{Body, KeyRole, VoteBody};
use quorate_consensus::{Choice, Domain, TxId};
use quorate_testkit::ops;

use super::{Cue, Liar, Lie, Stage, votes};

/// Signs anything but what it says.
#[derive(Debug, Default)]
pub(super) struct Forger;

impl Liar for Forger {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let Cue::Asked { tx_id, choice } = cue else {
            return Vec::new();
        };
        let vote = forged(stage, tx_id, choice);
        let mut lies = stage.to_all(&votes([vote.clone()]));
        lies.push(stage.propose(ops::record_vote(vote)));
        lies
    }
}

fn forged(
    stage: &Stage<'_>,
    tx_id: &TxId,
    choice: &Choice,
) -> quorate_consensus::wire::SignedStatement {
    let mut vote = stage.vote(tx_id, choice.clone());
    match stage.pick(5, 1) {
        // One bit is wrong.
        0 => {
            if let Some(byte) = vote.signature.first_mut() {
                *byte ^= 1;
            }
        }
        // None at all.
        1 => vote.signature.clear(),
        // The one of its node key.
        2 => {
            vote.signature = stage
                .keys
                .sign(KeyRole::Node, VoteBody::DOMAIN, &vote.statement);
        }
        // In the domain of another kind of statement.
        3 => {
            vote.signature = stage
                .keys
                .sign(KeyRole::Vote, Domain::Decision, &vote.statement);
        }
        // That of a vote signed a millisecond later.
        _ => {
            vote.signature = stage
                .vote_at(tx_id, choice.clone(), stage.now_ms + 1)
                .signature;
        }
    }
    vote
}
