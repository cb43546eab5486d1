//! Signs two values for one transaction and tells each half of the members another
//! one: DOUBLE_VOTING.

use quorate_consensus::{Choice, Value};

use super::{Cue, Liar, Lie, Stage, votes};

/// Two values for every transaction that it is asked about.
#[derive(Debug, Default)]
pub(super) struct Equivocator;

impl Liar for Equivocator {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let Cue::Asked { tx_id, choice } = cue else {
            return Vec::new();
        };
        let other = match choice {
            Choice::Value(Value::Number(number)) => Value::Number(number.wrapping_add(1)),
            _ => Value::Number(1),
        };
        let both = [
            stage.vote(tx_id, choice.clone()),
            stage.vote(tx_id, other.into()),
        ];
        let say = |(i, to): (usize, &quorate_consensus::NodeId)| Lie::Say {
            to: to.clone(),
            body: votes([both[i % 2].clone()]),
        };
        stage.others().enumerate().map(say).collect()
    }
}
