//! Votes for another value than its client asks for: MINORITY_VOTE, rows 3 and 8, and
//! row 14 when it comes after the point of no return.
//!
//! What must come of it: with t votes for one value the dissent aborts the ballot, or
//! under `outvote` changes nothing; a dissent after the reservation is recorded as late
//! and changes nothing. If 2t > N the liar is banned by its vote and the t others,
//! whenever it came; else it is marked.

use quorate_consensus::{Choice, TxId};

use super::{Cue, Liar, Lie, Stage, another, votes};

/// Dissents at once, or when it hopes that the others have voted.
#[derive(Debug, Default)]
pub(super) struct Minority {
    /// What it will say, and when: milliseconds since the Unix epoch.
    waiting: Vec<(u64, TxId, Choice)>,
}

impl Liar for Minority {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        match cue {
            Cue::Asked { tx_id, choice } => {
                let dissent = Choice::from(another(choice));
                // Before the threshold, within the settle window, after it.
                let settle_ms = stage.rules.settle_window_ms();
                let in_ms = match stage.pick(3, 1) {
                    0 => return stage.to_all(&votes([stage.vote(tx_id, dissent)])),
                    1 => settle_ms / 2 + 1,
                    _ => 2 * settle_ms + 1_000,
                };
                self.waiting
                    .push((stage.now_ms + in_ms, tx_id.clone(), dissent));
                vec![Lie::Wake { in_ms }]
            }
            Cue::Wake => {
                let ripe = |(at, ..): &mut (u64, TxId, Choice)| *at <= stage.now_ms;
                let due: Vec<_> = self.waiting.extract_if(.., ripe).collect();
                let say = |(_, tx_id, choice)| stage.vote(&tx_id, choice);
                match due.is_empty() {
                    true => Vec::new(),
                    false => stage.to_all(&votes(due.into_iter().map(say))),
                }
            }
            _ => Vec::new(),
        }
    }
}
