//! Puts signatures right: bytes that a fuzzer changed get past the verifier, so that
//! what lies behind it is reached. A liar who holds its own keys can do the same.

use prost::Message;
use quorate_consensus::NodeId;
use quorate_consensus::statement::{
    AbortBody, AccusationBody, Body, BootBody, DecisionBody, HelloBody, ObservationBody,
    OperatorActBody, VoteBody,
};
use quorate_consensus::wire::{self, SignedStatement, board_op::Op, frame, misbehaviour, proof};
use quorate_testkit::Cluster;

/// The fields that all statements begin with.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "3")]
    node_id: String,
}

/// Signs a statement as whoever it names.
fn one<B: Body>(cluster: &Cluster, signed: &mut SignedStatement) {
    let head = Head::decode(&*signed.statement).ok();
    let signer = head.and_then(|head| NodeId::new(&head.node_id).ok());
    if let Some(i) = signer.and_then(|node_id| cluster.index(&node_id)) {
        *signed = cluster.sign(i, B::KEY, B::DOMAIN, std::mem::take(&mut signed.statement));
    }
}

fn all<B: Body>(cluster: &Cluster, signed: &mut [SignedStatement]) {
    signed
        .iter_mut()
        .for_each(|signed| one::<B>(cluster, signed));
}

fn some<B: Body>(cluster: &Cluster, signed: &mut Option<SignedStatement>) {
    if let Some(signed) = signed {
        one::<B>(cluster, signed);
    }
}

/// What may come in a frame.
pub(crate) fn frame(cluster: &Cluster, body: &mut frame::Body) {
    match body {
        frame::Body::Batch(batch) => {
            for vote in &mut batch.votes {
                some::<VoteBody>(cluster, &mut vote.vote);
            }
            all::<DecisionBody>(cluster, &mut batch.decisions);
            all::<AbortBody>(cluster, &mut batch.aborts);
            all::<ObservationBody>(cluster, &mut batch.observations);
            all::<AccusationBody>(cluster, &mut batch.accusations);
            for evidence in &mut batch.evidence {
                lie(cluster, evidence);
            }
        }
        frame::Body::Hello(hello) => some::<HelloBody>(cluster, &mut hello.hello),
        _ => {}
    }
}

fn lie(cluster: &Cluster, evidence: &mut wire::Misbehaviour) {
    match &mut evidence.kind {
        Some(misbehaviour::Kind::DoubleVote(double)) => {
            some::<VoteBody>(cluster, &mut double.first);
            some::<VoteBody>(cluster, &mut double.second);
        }
        Some(misbehaviour::Kind::MinorityVote(minority)) => {
            some::<VoteBody>(cluster, &mut minority.dissent);
            all::<VoteBody>(cluster, &mut minority.majority);
        }
        None => {}
    }
}

/// An operation of the board.
pub(crate) fn operation(cluster: &Cluster, op: &mut wire::BoardOp) {
    use wire::ban_proof::Kind;
    match &mut op.op {
        Some(Op::RecordVote(op)) => some::<VoteBody>(cluster, &mut op.vote),
        Some(Op::Reserve(op)) => all::<ObservationBody>(cluster, &mut op.observations),
        Some(Op::Certify(op)) => all::<DecisionBody>(cluster, &mut op.decisions),
        Some(Op::Conclude(op)) => all::<ObservationBody>(cluster, &mut op.observations),
        Some(Op::ProveAbort(op)) => all::<AbortBody>(cluster, &mut op.aborts),
        Some(Op::Ban(op)) => match op.proof.as_mut().and_then(|proof| proof.kind.as_mut()) {
            Some(Kind::Misbehaviour(evidence)) => lie(cluster, evidence),
            Some(Kind::Accusations(by)) => all::<AccusationBody>(cluster, &mut by.accusations),
            Some(Kind::Silence(_)) | None => {}
        },
        Some(Op::Unban(op)) => all::<OperatorActBody>(cluster, &mut op.acts),
        Some(Op::GiveUp(op)) => all::<OperatorActBody>(cluster, &mut op.acts),
        Some(Op::Accuse(op)) => some::<AccusationBody>(cluster, &mut op.accusation),
        Some(Op::Boot(op)) => some::<BootBody>(cluster, &mut op.boot),
        _ => {}
    }
}

/// A proof of any kind.
pub(crate) fn proof(cluster: &Cluster, proof: &mut wire::Proof) {
    match &mut proof.kind {
        Some(proof::Kind::Certificate(certificate)) => {
            if let Some(rules) = &mut certificate.rules {
                chain(cluster, rules);
            }
            if let Some(decided) = &mut certificate.proof {
                decision(cluster, decided);
            }
        }
        Some(proof::Kind::Abort(abort)) => all::<AbortBody>(cluster, &mut abort.aborts),
        Some(proof::Kind::Evidence(evidence)) => {
            if let Some(misbehaviour) = &mut evidence.misbehaviour {
                lie(cluster, misbehaviour);
            }
        }
        Some(proof::Kind::Accusation(proof)) => {
            all::<AccusationBody>(cluster, &mut proof.accusations);
        }
        None => {}
    }
}

fn decision(cluster: &Cluster, proof: &mut wire::DecisionProof) {
    all::<VoteBody>(cluster, &mut proof.votes);
    all::<DecisionBody>(cluster, &mut proof.decisions);
}

/// The justifications in a chain of rules.
pub(crate) fn chain(cluster: &Cluster, chain: &mut wire::RulesChain) {
    for link in &mut chain.links {
        if let Some(justification) = &mut link.justification {
            decision(cluster, justification);
        }
    }
}
