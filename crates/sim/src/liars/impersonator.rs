//! Speaks in all others' names, signing with its own key: INVALID_SIGNATURE. With the
//! others' votes one liar would decide alone, with their abort statements it would
//! prove a transaction dead, and with their accusations ban anybody.
//!
//! What must come of it: nothing of it counts, and whoever is impersonated is neither
//! accused nor marked; the liar, on whose stream it came, is accused and banned.

use quorate_consensus::NodeId;
use quorate_consensus::statement::{AbortBody, AccusationBody, VoteBody};
use quorate_consensus::wire::{self, AbortReason, AccusationKind};
use quorate_testkit::ops;

use super::{Cue, Liar, Lie, Stage, batch, votes};

/// Every name but its own.
#[derive(Debug, Default)]
pub(super) struct Impersonator;

impl Liar for Impersonator {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let Cue::Asked { tx_id, choice } = cue else {
            return Vec::new();
        };
        let vote = |name: &NodeId| {
            let body = VoteBody {
                tx_id: tx_id.clone(),
                choice: choice.clone(),
                time_ms: stage.now_ms,
            };
            stage.state_as(name, &body)
        };
        match stage.pick(4, 1) {
            0 | 1 => {
                let all: Vec<_> = stage.others().map(vote).collect();
                let mut lies = stage.to_all(&votes(all.clone()));
                let record = |vote| stage.propose(ops::record_vote(vote));
                lies.extend(all.into_iter().map(record));
                lies
            }
            2 => {
                let body = AbortBody {
                    tx_id: tx_id.clone(),
                    reason: AbortReason::Timeout,
                };
                let aborts: Vec<_> = stage.others().map(|n| stage.state_as(n, &body)).collect();
                let mut lies = stage.to_all(&batch(wire::Batch {
                    aborts: aborts.clone(),
                    ..wire::Batch::default()
                }));
                let first_t = aborts.into_iter().take(stage.rules.threshold());
                lies.push(stage.propose(ops::prove_abort(tx_id, first_t.collect())));
                lies
            }
            _ => {
                let Some(accused) = stage.pick_other(2) else {
                    return Vec::new();
                };
                let body = AccusationBody {
                    accused: accused.clone(),
                    kind: AccusationKind::Malformed,
                    tx_id: Some(tx_id.clone()),
                    subject_digest: [7; 32],
                    time_ms: stage.now_ms,
                };
                let by = stage.others().filter(|name| *name != accused);
                let accusations: Vec<_> = by.map(|name| stage.state_as(name, &body)).collect();
                let mut lies = stage.to_all(&batch(wire::Batch {
                    accusations: accusations.clone(),
                    ..wire::Batch::default()
                }));
                let first_t = accusations.into_iter().take(stage.rules.threshold());
                lies.push(stage.propose(ops::ban_accused(accused, first_t.collect())));
                lies
            }
        }
    }
}
