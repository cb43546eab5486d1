//! Votes early on transactions that can be guessed, before anybody asks, to burn them or
//! to start their clocks: rows 1 and 7.
//!
//! What must come of it: fewer than N − t + 1 early voters start no ballot, so no
//! deadline runs; the ballots are removed when their votes are too old, and can be opened
//! again. Who votes on one meanwhile finds an open ballot, in which the squatter's vote
//! is one vote like any other.

use quorate_consensus::wire::SignedStatement;
use quorate_consensus::{Choice, TxId, Value};
use quorate_testkit::ops;

use super::{Cue, Liar, Lie, Stage, votes};

/// The transactions `tx-0` to `tx-31`.
const GUESSES: u32 = 32;

/// How often it begins anew, when its votes are too old to be recorded.
const MOST_TURNS: u32 = 3;

/// Was there first.
#[derive(Debug, Default)]
pub(super) struct Squatter {
    early: Vec<SignedStatement>,
    turns: u32,
}

impl Liar for Squatter {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        match cue {
            Cue::Start | Cue::Wake => self.squat(stage),
            Cue::Met { peer } => vec![Lie::Say {
                to: peer.clone(),
                body: votes(self.early.iter().cloned()),
            }],
            // What its client wants does not matter: it has voted.
            _ => Vec::new(),
        }
    }
}

impl Squatter {
    fn squat(&mut self, stage: &Stage<'_>) -> Vec<Lie> {
        let again = self.turns > 0;
        // The same value each time, or it would be an equivocator.
        let vote = |number: u32| {
            let tx_id = TxId::new(&format!("tx-{number}")).ok()?;
            let value = Value::Number(u64::from(number % 3));
            Some(stage.vote(&tx_id, Choice::from(value)))
        };
        self.early = (0..GUESSES).filter_map(vote).collect();
        self.turns += 1;
        let mut lies = match stage.pick(2, 1) {
            0 => {
                let record = |vote: &SignedStatement| stage.propose(ops::record_vote(vote.clone()));
                self.early.iter().map(record).collect()
            }
            _ if again => stage.to_all(&votes(self.early.iter().cloned())),
            _ => Vec::new(),
        };
        if self.turns < MOST_TURNS {
            let in_ms = stage.rules.vote_lifetime_ms() + 1_000;
            lies.push(Lie::Wake { in_ms });
        }
        lies
    }
}
