//! Sends to the chain without a decision: before anybody has voted, with the account's
//! next nonce, or as soon as a reservation shows and before its certificate. It needs
//! the chain key for that.
//!
//! What must come of it: who holds the chain key can send what it likes, and no other
//! trustee can prevent it; what the others answer for is that none of *their* submitters
//! does. A transaction at a nonce that was reserved for another one is NONCE_TAKEN: t
//! observations of it, and the ballot is reserved anew at another nonce. The reserved
//! payload at the reserved nonce, sent early, confirms only with the certificate on the
//! board, and is not sent twice.

use quorate_consensus::wire::board_event::Event;

use super::{Budget, Cue, Liar, Lie, Stage, told};

/// Does not wait for t.
#[derive(Debug, Default)]
pub(super) struct Greedy {
    /// Reservations that the board has shown.
    reserved: u64,
    budget: Budget<16>,
}

impl Liar for Greedy {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let lies = match cue {
            // Not every time: each one takes a nonce away from a decided ballot.
            Cue::Asked { tx_id, choice } if stage.pick(3, 1) == 0 => match choice.value() {
                Some(value) => vec![Lie::Transact {
                    nonce: stage.rules.chain().first_nonce + self.reserved,
                    payload: stage.rules.payload(tx_id, value),
                }],
                None => Vec::new(),
            },
            Cue::Entries(entries) => {
                let mut lies = Vec::new();
                for (_, event) in told(entries) {
                    let Event::Reserved(reserved) = event else {
                        continue;
                    };
                    self.reserved += 1;
                    if let Some(reservation) = &reserved.reservation {
                        lies.push(Lie::Transact {
                            nonce: reservation.nonce,
                            payload: reservation.payload.clone(),
                        });
                    }
                }
                lies
            }
            _ => Vec::new(),
        };
        self.budget.of(lies)
    }
}
