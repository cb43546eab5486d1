//! Signs two values for one transaction and tells each half of the members another
//! one: DOUBLE_VOTING, row 2.
//!
//! What must come of it: whoever holds both votes puts the second on the board, the
//! ballot aborts (under `outvote` its votes are struck), both votes are kept as
//! evidence, and the liar is banned by them.

use quorate_consensus::NodeId;

use super::{Cue, Liar, Lie, Stage, another, votes};

/// Two values for every transaction that it is asked about.
#[derive(Debug, Default)]
pub(super) struct Equivocator;

impl Liar for Equivocator {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let Cue::Asked { tx_id, choice } = cue else {
            return Vec::new();
        };
        let both = [
            stage.vote(tx_id, choice.clone()),
            stage.vote(tx_id, another(choice).into()),
        ];
        let say = |(i, to): (usize, &NodeId)| Lie::Say {
            to: to.clone(),
            body: votes([both[i % 2].clone()]),
        };
        stage.others().enumerate().map(say).collect()
    }
}
