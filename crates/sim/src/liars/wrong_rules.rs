//! Signs everything under rules that nobody has: its votes, and decisions of what the
//! others decided.
//!
//! What must come of it: none of it counts, as if it were silent. Peers excuse it, for
//! it may have moved to an epoch that they have not seen, and the board refuses it. With
//! enough votes missing, SILENT_FAILURE.

use quorate_consensus::RulesDigest;
use quorate_consensus::statement::{DecisionBody, VoteBody};
use quorate_consensus::wire::{self, board_event::Event};
use quorate_testkit::ops;

use super::{Budget, Cue, Liar, Lie, Stage, batch, told, votes};

/// Stands under rules of its own imagination.
#[derive(Debug, Default)]
pub(super) struct WrongRules {
    budget: Budget<400>,
}

impl Liar for WrongRules {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let nobodys = RulesDigest(stage.rules.digest().0.map(|byte| !byte));
        let lies = match cue {
            Cue::Asked { tx_id, choice } => {
                let body = VoteBody {
                    tx_id: tx_id.clone(),
                    choice: choice.clone(),
                    time_ms: stage.now_ms,
                };
                let vote = stage.state_under(nobodys, &body);
                let mut lies = stage.to_all(&votes([vote.clone()]));
                lies.push(stage.propose(ops::record_vote(vote)));
                lies
            }
            Cue::Entries(entries) => {
                let mut decisions = Vec::new();
                for (tx_id, event) in told(entries) {
                    let Event::Reserved(reserved) = event else {
                        continue;
                    };
                    let value = reserved.value.as_ref().map(TryInto::try_into);
                    if let Some(Ok(value)) = value {
                        let body = DecisionBody {
                            tx_id,
                            value,
                            reservation: reserved.reservation.clone(),
                        };
                        decisions.push(stage.state_under(nobodys, &body));
                    }
                }
                if decisions.is_empty() {
                    return Vec::new();
                }
                stage.to_all(&batch(wire::Batch {
                    decisions,
                    ..wire::Batch::default()
                }))
            }
            _ => Vec::new(),
        };
        self.budget.of(lies)
    }
}
