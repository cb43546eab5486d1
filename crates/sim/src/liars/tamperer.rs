//! Asks the store for what nothing justifies: bans without proof, moves that the votes
//! do not give, certificates of nothing, reservations with another payload, leases of
//! others, starts that nobody made.
//!
//! What must come of it: the board refuses every one of them and is as it was, but for
//! the leases, which anybody may take and give back in anybody's name: they are advice,
//! and nothing is sent twice or never for want of one.

use quorate_consensus::TxId;
use quorate_consensus::ballot::STATES;
use quorate_consensus::board::Board;
use quorate_consensus::detector::proof_digest;
use quorate_consensus::statement::{
    AbortBody, AccusationBody, BootBody, DecisionBody, ObservationBody, OperatorActBody, VoteBody,
};
use quorate_consensus::wire::{
    AbortReason, AccusationKind, BoardOp, ChainOutcome, Misbehaviour, OperatorActKind, Reservation,
    SignedStatement, ban_proof::Kind,
};
use quorate_consensus::{Choice, Value};
use quorate_testkit::ops;

use super::{Budget, Cue, Liar, Lie, Stage, told};

/// Operations for each cue.
const AT_A_TIME: u32 = 3;

/// Writes whatever it likes.
#[derive(Debug, Default)]
pub(super) struct Tamperer {
    budget: Budget<150>,
}

impl Liar for Tamperer {
    fn cue(&mut self, stage: &Stage<'_>, cue: Cue<'_>) -> Vec<Lie> {
        let Cue::Entries(entries) = cue else {
            return Vec::new();
        };
        let mut about: Vec<_> = told(entries).map(|(tx_id, _)| tx_id).collect();
        about.dedup();
        let Some(tx_id) = about.get(stage.pick(about.len(), 1)) else {
            return Vec::new();
        };
        let ops = (0..AT_A_TIME).filter_map(|turn| tamper(stage, tx_id, turn));
        let lies = ops.map(|op| stage.propose(op)).collect();
        self.budget.of(lies)
    }
}

/// The same word of its own t times: what a careless count would take for t.
fn t_times(stage: &Stage<'_>, one: SignedStatement) -> Vec<SignedStatement> {
    vec![one; stage.rules.threshold()]
}

fn tamper(stage: &Stage<'_>, tx_id: &TxId, turn: u32) -> Option<BoardOp> {
    let victim = stage.pick_other(5 * turn + 2)?;
    let ballot = stage.board.and_then(|board| board.ballot(tx_id));
    let value = ballot.and_then(|ballot| ballot.value.clone());
    let value = value.unwrap_or(Value::Number(1));
    let mut reservation = reservation(stage, tx_id, &value);
    let op = match stage.pick(17, 5 * turn + 3) {
        0 => ops::ban(victim, Kind::Misbehaviour(Misbehaviour::default())),
        1 => ops::ban_silent(victim),
        2 => {
            let own = stage.state(&AccusationBody {
                accused: victim.clone(),
                kind: AccusationKind::Malformed,
                tx_id: None,
                subject_digest: [0; 32],
                time_ms: stage.now_ms,
            });
            ops::ban_accused(victim, t_times(stage, own))
        }
        3 => {
            // One that the votes do not give.
            let to = STATES[stage.pick(STATES.len(), 5 * turn + 4)];
            let next = stage.board.and_then(|b| b.next_move(tx_id, stage.now_ms));
            if next.is_some_and(|next| next.to == to) {
                return None;
            }
            ops::advance(tx_id, to)
        }
        4 => ops::certify(tx_id, Vec::new()),
        5 => {
            let own = stage.state(&DecisionBody {
                tx_id: tx_id.clone(),
                value,
                reservation: Some(reservation),
            });
            ops::certify(tx_id, t_times(stage, own))
        }
        6 => {
            reservation.payload.push(0);
            ops::reserve(tx_id, reservation)
        }
        7 => {
            reservation.nonce += 1;
            ops::reserve(tx_id, reservation)
        }
        8 => {
            let seen = observation(stage, tx_id, &reservation, ChainOutcome::Confirmed);
            ops::conclude(tx_id, t_times(stage, seen))
        }
        9 => {
            let own = stage.state(&AbortBody {
                tx_id: tx_id.clone(),
                reason: AbortReason::Byzantine,
            });
            ops::prove_abort(tx_id, t_times(stage, own))
        }
        10 => ops::lease(tx_id, victim, 60_000),
        11 => ops::release(tx_id, victim),
        12 => {
            let boot = BootBody {
                generation: u64::from(u32::MAX),
                time_ms: stage.now_ms,
            };
            ops::boot(stage.state_as(victim, &boot))
        }
        13 => {
            let act = stage.state(&OperatorActBody {
                kind: OperatorActKind::GiveUp,
                subject: tx_id.to_string(),
                pardoned: Vec::new(),
                time_ms: stage.now_ms,
            });
            ops::give_up(tx_id, t_times(stage, act))
        }
        14 => unban(stage)?,
        15 => ops::collect(tx_id),
        _ => {
            let vote = VoteBody {
                tx_id: tx_id.clone(),
                choice: Choice::from(value),
                time_ms: stage.now_ms,
            };
            ops::record_vote(stage.state_as(victim, &vote))
        }
    };
    Some(op)
}

/// A pardon by its own operator alone, of whoever is banned.
fn unban(stage: &Stage<'_>) -> Option<BoardOp> {
    let board = stage.board?;
    let mut members = stage.rules.members();
    members.find_map(|member| {
        let ban = board.member(&member.node_id)?.ban.as_ref()?;
        let act = stage.state(&OperatorActBody {
            kind: OperatorActKind::Unban,
            subject: member.node_id.to_string(),
            pardoned: vec![proof_digest(&ban.proof)],
            time_ms: stage.now_ms,
        });
        Some(ops::unban(&member.node_id, t_times(stage, act)))
    })
}

fn observation(
    stage: &Stage<'_>,
    tx_id: &TxId,
    reservation: &Reservation,
    outcome: ChainOutcome,
) -> SignedStatement {
    stage.state(&ObservationBody {
        tx_id: tx_id.clone(),
        account: reservation.account.clone(),
        nonce: reservation.nonce,
        outcome,
        tx_hash: vec![1; 32],
        block_number: 1,
        block_hash: vec![2; 32],
        round: 0,
    })
}

/// What is, or would be, reserved for the ballot.
fn reservation(stage: &Stage<'_>, tx_id: &TxId, value: &Value) -> Reservation {
    let of_ballot = |board: &Board| {
        let ballot = board.ballot(tx_id)?;
        let own = ballot.reservation.clone();
        own.or_else(|| board.next_reservation(ballot))
    };
    let chain = stage.rules.chain();
    stage.board.and_then(of_ballot).unwrap_or(Reservation {
        account: chain.account.clone(),
        nonce: chain.first_nonce,
        payload: stage.rules.payload(tx_id, value),
    })
}
