//! This node's own eyes on the chain: what it looks at, and what it says of it.

use quorate_consensus::TxId;
use quorate_consensus::ballot::Ballot;
use quorate_consensus::statement::ObservationBody;
use quorate_consensus::wire::{BallotState, ChainOutcome};

use super::submission::{ANSWER_MS, LOOK_MS, look};
use super::{Engine, Pending};
use crate::api::{Alert, ChainAnswer, Effect, Now, Sighting, Ticket};

/// Between two looks at a transaction that is concluded.
const LOOK_AFTERWARDS_MS: u64 = 15_000;

impl Engine {
    /// Looks at the chain for a reservation, through this node's own endpoint.
    pub(super) fn watch_chain(&mut self, now: Now, tx_id: &TxId) -> Option<u64> {
        let ballot = self.board.ballot(tx_id)?;
        let reservation = ballot.reservation.as_ref()?;
        let concluded = ballot.state != BallotState::Submitted;
        if !self.is_in_service() {
            return None;
        }
        let local = self.locals.get_mut(tx_id)?;
        if let Some((_, again)) = local.looking
            && again > now.mono_ms
        {
            return Some(again);
        }
        local.looking = None;
        let at = *local.look_mono.get_or_insert(now.mono_ms);
        if at > now.mono_ms {
            return Some(at);
        }
        local.look_after_ms = if concluded {
            LOOK_AFTERWARDS_MS
        } else {
            (local.look_after_ms * 3 / 2).clamp(LOOK_MS.0, LOOK_MS.1)
        };
        local.look_mono = Some(now.mono_ms + local.look_after_ms);
        let ask = look(reservation);
        let ticket = self.ask(now, Pending::ObserverLook(tx_id.clone()));
        self.out.push(Effect::Chain { ticket, ask });
        let again = now.mono_ms + ANSWER_MS;
        self.locals.get_mut(tx_id)?.looking = Some((ticket, again));
        Some(again)
    }

    /// What the chain shows, and what this node says of it.
    pub(super) fn looked(&mut self, now: Now, ticket: Ticket, tx_id: &TxId, answer: ChainAnswer) {
        let Some(local) = self.locals.get_mut(tx_id) else {
            return;
        };
        if local.looking.is_none_or(|(asked, _)| asked != ticket) {
            return;
        }
        local.looking = None;
        let ChainAnswer::Seen(seen) = answer else {
            return;
        };
        let Some(ballot) = self.board.ballot(tx_id) else {
            return;
        };
        if seen == Sighting::Nothing {
            local.submission.not_seen(now);
        }
        let Some(body) = observation_of(ballot, &seen) else {
            return;
        };
        if body.outcome == ChainOutcome::NonceTaken {
            let nonce = body.nonce;
            let news = local
                .own_observation
                .as_ref()
                .is_none_or(|own| own.body != body);
            if news {
                let tx_id = tx_id.clone();
                self.alert(Alert::NonceTaken { tx_id, nonce });
            }
        }
        self.observe(now, tx_id, body);
    }
}

/// What there is to say about a sighting, if anything: nothing while it is not deep
/// enough, and nothing new about what was concluded alike.
fn observation_of(ballot: &Ballot, seen: &Sighting) -> Option<ObservationBody> {
    let reservation = ballot.reservation.as_ref()?;
    let confirmations = u64::from(ballot.rules.chain().confirmations);
    let concluded = matches!(ballot.state, BallotState::Confirmed | BallotState::Failed);
    let body = |outcome, tx_hash: &[u8], block_number, block_hash: &[u8]| ObservationBody {
        tx_id: ballot.tx_id.clone(),
        account: reservation.account.clone(),
        nonce: reservation.nonce,
        outcome,
        tx_hash: tx_hash.to_vec(),
        block_number,
        block_hash: block_hash.to_vec(),
        round: ballot.round,
    };
    match seen {
        Sighting::Included {
            tx_hash,
            payload,
            succeeded,
            block_number,
            block_hash,
            depth,
        } => {
            let observed = ballot.observed.as_ref();
            if concluded && observed.is_some_and(|o| o.block_hash == *block_hash) {
                return None;
            }
            if concluded {
                // It is there, in another block: it was undone in between.
                return undone(ballot);
            }
            if *depth < confirmations {
                return None;
            }
            let outcome = match (*payload == reservation.payload, succeeded) {
                (true, true) => ChainOutcome::Confirmed,
                (true, false) => ChainOutcome::Reverted,
                // A cancellation carries nothing.
                (false, _) if ballot.given_up && payload.is_empty() => ChainOutcome::Cancelled,
                (false, _) => ChainOutcome::NonceTaken,
            };
            Some(body(outcome, tx_hash, *block_number, block_hash))
        }
        Sighting::Nothing | Sighting::Pending { .. } if concluded => undone(ballot),
        Sighting::Nothing | Sighting::Pending { .. } => None,
    }
}

/// The word that what was concluded is no longer on the chain.
fn undone(ballot: &Ballot) -> Option<ObservationBody> {
    let observed = ballot.observed.clone()?;
    Some(ObservationBody {
        outcome: ChainOutcome::Undone,
        round: ballot.round,
        ..observed
    })
}
