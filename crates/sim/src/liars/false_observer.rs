//! Signs observations of what the chain does not show: confirmed, reverted, cancelled,
//! nonce taken, undone, in this round of observation, the one before and the one after.
//! All false observers of a cluster see the same, so that they agree.
//!
//! What must come of it: fewer than t of them conclude nothing (rows 11 to 13) and make
//! nobody reserve anew; the honest t agree on what is there, whatever was said before.

use std::collections::BTreeMap;

use quorate_consensus::TxId;
use quorate_consensus::statement::ObservationBody;
use quorate_consensus::wire::{self, ChainOutcome, Reservation, SignedStatement};
use quorate_consensus::wire::{BallotState, board_event::Event};
use quorate_testkit::ops;

use super::{Budget, Cue, Liar, Lie, Stage, batch, told};

const OUTCOMES: [ChainOutcome; 5] = [
    ChainOutcome::Confirmed,
    ChainOutcome::Reverted,
    ChainOutcome::Cancelled,
    ChainOutcome::Undone,
    ChainOutcome::NonceTaken,
];

/// Sees what it wants.
#[derive(Debug, Default)]
pub(super) struct FalseObserver {
    /// Reservation and round of each transaction.
    submitted: BTreeMap<TxId, (Reservation, u32)>,
    budget: Budget<600>,
}

impl Liar for FalseObserver {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let Cue::Entries(entries) = cue else {
            return Vec::new();
        };
        let mut observations = Vec::new();
        let mut lies = Vec::new();
        for (tx_id, event) in told(entries) {
            match event {
                Event::Reserved(reserved) => {
                    let Some(reservation) = reserved.reservation.clone() else {
                        continue;
                    };
                    self.submitted
                        .entry(tx_id.clone())
                        .and_modify(|known| known.0 = reservation.clone())
                        .or_insert((reservation, 0));
                }
                Event::Concluded(_) => {
                    if let Some((_, round)) = self.submitted.get_mut(&tx_id) {
                        *round += 1;
                    }
                }
                // Once certified it is sent: the right time for a word on it.
                Event::Certified(_) => {}
                Event::StateChanged(changed) if changed.to() == BallotState::Failed => {}
                _ => continue,
            }
            let Some((reservation, round)) = self.submitted.get(&tx_id) else {
                continue;
            };
            // One word at a time is heard, the last one in a round: the dice say which.
            let first = stage.pick(OUTCOMES.len(), 1);
            let outcomes = OUTCOMES.iter().cycle().skip(first).take(OUTCOMES.len());
            for round in [round.saturating_sub(1), round + 1, *round] {
                for outcome in outcomes.clone() {
                    let seen = observation(stage, &tx_id, reservation, *outcome, round);
                    lies.push(stage.propose(ops::conclude(
                        &tx_id,
                        vec![seen.clone(); stage.rules.threshold()],
                    )));
                    observations.push(seen);
                }
            }
        }
        // A few of the operations do: the board refuses each alike.
        lies.truncate(5);
        if !observations.is_empty() && !self.budget.is_spent() {
            lies.extend(stage.to_all(&batch(wire::Batch {
                observations,
                ..wire::Batch::default()
            })));
        }
        self.budget.of(lies)
    }
}

fn observation(
    stage: &Stage<'_>,
    tx_id: &TxId,
    reservation: &Reservation,
    outcome: ChainOutcome,
    round: u32,
) -> SignedStatement {
    let hash = |what: &str| {
        let text = format!("{what}/{tx_id}/{}/{outcome:?}", reservation.nonce);
        blake3::hash(text.as_bytes()).as_bytes().to_vec()
    };
    stage.state(&ObservationBody {
        tx_id: tx_id.clone(),
        account: reservation.account.clone(),
        nonce: reservation.nonce,
        outcome,
        tx_hash: hash("tx"),
        block_number: 1,
        block_hash: hash("block"),
        round,
    })
}
