//! Stamps early or late: asks for real moves before their time has come (a time-out,
//! the end of a settle window, the removal of an unstarted ballot, the roll call) with
//! the time that they need, and signs votes at the edge of what is recorded and beyond.
//!
//! What must come of it: every reader believes an entry only when its own clock plus skew
//! agrees, so nothing ends earlier than the skew allows; until then it waits, for whoever
//! writes to the store can stall those who read it. The board's time never runs backwards. A vote from
//! further in the future than the skew, or older than vote timeout + 2 × skew, is not
//! recorded; nobody is accused for it.

use std::collections::BTreeSet;

use quorate_consensus::TxId;
use quorate_consensus::board::Board;
use quorate_consensus::wire::{BallotState, BoardOp};
use quorate_testkit::ops;

use super::{Budget, Cue, Liar, Lie, Stage, told, votes};

/// How far ahead it stamps, at most: milliseconds. Who may write to the store can stall
/// its readers for as long, and much longer would be for ever.
const MOST_AHEAD_MS: u64 = 600_000;

/// Lives in another time.
#[derive(Debug, Default)]
pub(super) struct ClockLiar {
    /// What it has tried to move from which state.
    tried: BTreeSet<(TxId, i32)>,
    budget: Budget<300>,
}

impl Liar for ClockLiar {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let lies = match cue {
            Cue::Asked { tx_id, choice } => {
                let (skew, age) = (stage.rules.clock_skew_ms(), stage.rules.vote_lifetime_ms());
                let now = stage.now_ms;
                let time_ms = match stage.pick(7, 1) {
                    0 => now + skew,
                    1 => now + skew + 1,
                    2 => now + 3 * skew,
                    3 => now.saturating_sub(age),
                    4 => now.saturating_sub(age + 1),
                    5 => u64::MAX,
                    _ => 1,
                };
                let vote = stage.vote_at(tx_id, choice.clone(), time_ms);
                let mut lies = stage.to_all(&votes([vote.clone()]));
                // Stamped so that it fits, as far as that may be believed one day.
                lies.push(Lie::Propose {
                    op: ops::record_vote(vote),
                    now_ms: time_ms.min(now + MOST_AHEAD_MS),
                });
                lies
            }
            Cue::Entries(entries) => {
                let Some(board) = stage.board else {
                    return Vec::new();
                };
                let about: BTreeSet<_> = told(entries).map(|(tx_id, _)| tx_id).collect();
                let moves = about
                    .into_iter()
                    .flat_map(|tx_id| self.moves(stage, board, &tx_id));
                moves.collect()
            }
            _ => Vec::new(),
        };
        self.budget.of(lies)
    }
}

impl ClockLiar {
    /// What time alone would give this ballot, at its time and a skew before.
    fn moves(&mut self, stage: &Stage<'_>, board: &Board, tx_id: &TxId) -> Vec<Lie> {
        let Some(ballot) = board.ballot(tx_id) else {
            return Vec::new();
        };
        let state = (
            tx_id.clone(),
            i32::from(ballot.is_started()) * 100 + ballot.state as i32,
        );
        if !self.tried.insert(state) {
            return Vec::new();
        }
        let mut moves: Vec<(BoardOp, u64)> = Vec::new();
        match (ballot.state, ballot.deadline_ms()) {
            (BallotState::Collecting, None) => {
                moves.push((ops::expire(tx_id), ballot.expires_ms()));
            }
            (BallotState::Collecting, Some(deadline)) => {
                let timed_out = ops::advance(tx_id, BallotState::AbortedTimeout);
                moves.push((timed_out, deadline));
            }
            _ => {}
        }
        if let Some(deadline) = ballot.deadline_ms()
            && !ballot.roll_called
        {
            moves.push((ops::mark_silent(tx_id), deadline));
        }
        if ballot.state == BallotState::ThresholdReached
            && let Some(settled) = ballot.settled_ms()
            && let Some(reservation) = board.next_reservation(ballot)
        {
            moves.push((ops::reserve(tx_id, reservation), settled));
        }
        let skew = stage.rules.clock_skew_ms();
        let lies = moves.into_iter().flat_map(|(op, needed)| {
            // As late as the store believes; as late as the move needs; long ago.
            [stage.now_ms + skew, needed.saturating_add(1), 1].map(|now_ms| {
                let (op, now_ms) = (op.clone(), now_ms.min(stage.now_ms + MOST_AHEAD_MS));
                Lie::Propose { op, now_ms }
            })
        });
        lies.collect()
    }
}
