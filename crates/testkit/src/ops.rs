//! Operations on the board, in one line each.

use quorate_consensus::wire::board_op::Op;
use quorate_consensus::wire::{
    Accusations, AccuseOp, AdvanceOp, BallotState, BanOp, BanProof, BoardOp, BootOp, CertifyOp,
    CollectOp, ConcludeOp, ExpireOp, GiveUpOp, LeaseOp, MarkSilentOp, Misbehaviour, ProveAbortOp,
    RecordVoteOp, ReleaseOp, Reservation, ReserveOp, SignedStatement, Silence, UnbanOp, ban_proof,
};
use quorate_consensus::{NodeId, TxId};

fn wrap(op: Op) -> BoardOp {
    BoardOp { op: Some(op) }
}

/// Record a vote; another choice of its trustee is kept as evidence.
pub fn record_vote(vote: SignedStatement) -> BoardOp {
    wrap(Op::RecordVote(RecordVoteOp {
        vote: Some(vote),
        only_first: false,
    }))
}

/// Record a vote only if its trustee has made no other choice.
pub fn record_first_vote(vote: SignedStatement) -> BoardOp {
    wrap(Op::RecordVote(RecordVoteOp {
        vote: Some(vote),
        only_first: true,
    }))
}

/// Move a ballot.
pub fn advance(tx_id: &TxId, to: BallotState) -> BoardOp {
    wrap(Op::Advance(AdvanceOp {
        tx_id: tx_id.to_string(),
        to: to.into(),
    }))
}

/// Reserve for a ballot.
pub fn reserve(tx_id: &TxId, reservation: Reservation) -> BoardOp {
    reserve_anew(tx_id, reservation, Vec::new())
}

/// Reserve anew, given observations that the nonce was taken.
pub fn reserve_anew(
    tx_id: &TxId,
    reservation: Reservation,
    observations: Vec<SignedStatement>,
) -> BoardOp {
    wrap(Op::Reserve(ReserveOp {
        tx_id: tx_id.to_string(),
        reservation: Some(reservation),
        observations,
    }))
}

/// Put decisions on the board.
pub fn certify(tx_id: &TxId, decisions: Vec<SignedStatement>) -> BoardOp {
    wrap(Op::Certify(CertifyOp {
        tx_id: tx_id.to_string(),
        decisions,
    }))
}

/// Conclude a submission.
pub fn conclude(tx_id: &TxId, observations: Vec<SignedStatement>) -> BoardOp {
    wrap(Op::Conclude(ConcludeOp {
        tx_id: tx_id.to_string(),
        observations,
    }))
}

/// Put abort statements on the board.
pub fn prove_abort(tx_id: &TxId, aborts: Vec<SignedStatement>) -> BoardOp {
    wrap(Op::ProveAbort(ProveAbortOp {
        tx_id: tx_id.to_string(),
        aborts,
    }))
}

/// Ban by any proof.
pub fn ban(node_id: &NodeId, kind: ban_proof::Kind) -> BoardOp {
    wrap(Op::Ban(BanOp {
        node_id: node_id.to_string(),
        proof: Some(BanProof { kind: Some(kind) }),
    }))
}

/// Ban by evidence.
pub fn ban_for(node_id: &NodeId, misbehaviour: Misbehaviour) -> BoardOp {
    ban(node_id, ban_proof::Kind::Misbehaviour(misbehaviour))
}

/// Ban by accusations.
pub fn ban_accused(node_id: &NodeId, accusations: Vec<SignedStatement>) -> BoardOp {
    ban(
        node_id,
        ban_proof::Kind::Accusations(Accusations { accusations }),
    )
}

/// Ban for silence.
pub fn ban_silent(node_id: &NodeId) -> BoardOp {
    ban(node_id, ban_proof::Kind::Silence(Silence {}))
}

/// Lift a ban.
pub fn unban(node_id: &NodeId, acts: Vec<SignedStatement>) -> BoardOp {
    wrap(Op::Unban(UnbanOp {
        node_id: node_id.to_string(),
        acts,
    }))
}

/// Give up a submission.
pub fn give_up(tx_id: &TxId, acts: Vec<SignedStatement>) -> BoardOp {
    wrap(Op::GiveUp(GiveUpOp {
        tx_id: tx_id.to_string(),
        acts,
    }))
}

/// Put an accusation on the board.
pub fn accuse(accusation: SignedStatement) -> BoardOp {
    wrap(Op::Accuse(AccuseOp {
        accusation: Some(accusation),
    }))
}

/// Call the roll at the deadline.
pub fn mark_silent(tx_id: &TxId) -> BoardOp {
    wrap(Op::MarkSilent(MarkSilentOp {
        tx_id: tx_id.to_string(),
    }))
}

/// Remove an unstarted ballot.
pub fn expire(tx_id: &TxId) -> BoardOp {
    wrap(Op::Expire(ExpireOp {
        tx_id: tx_id.to_string(),
    }))
}

/// Put a boot generation on the board.
pub fn boot(boot: SignedStatement) -> BoardOp {
    wrap(Op::Boot(BootOp { boot: Some(boot) }))
}

/// Take the lease of a submission.
pub fn lease(tx_id: &TxId, node_id: &NodeId, ttl_ms: u64) -> BoardOp {
    wrap(Op::Lease(LeaseOp {
        tx_id: tx_id.to_string(),
        node_id: node_id.to_string(),
        ttl_ms,
    }))
}

/// Give the lease back.
pub fn release(tx_id: &TxId, node_id: &NodeId) -> BoardOp {
    wrap(Op::Release(ReleaseOp {
        tx_id: tx_id.to_string(),
        node_id: node_id.to_string(),
    }))
}

/// Forget a finished ballot but for its final state.
pub fn collect(tx_id: &TxId) -> BoardOp {
    wrap(Op::Collect(CollectOp {
        tx_id: tx_id.to_string(),
    }))
}
