//! Proofs to start from, and the parts to break them with.

use prost::Message;
use quorate_consensus::proof::{self, Fact, ProofError, Verified, rules_value, verify};
use quorate_consensus::statement::{Body, DecisionBody, KeyRole, VoteBody, bytes_to_sign};
use quorate_consensus::wire::{
    AbortReason, DecisionProof, DoubleVote, MemberRecord, MinorityVote, Misbehaviour, Proof,
    Reservation, RulesChain, RulesDocument, RulesLink, SignatureScheme, SignedMemberRecord,
    SignedStatement, misbehaviour,
};
use quorate_consensus::{Choice, Domain, NodeId, PublicKey, Rules, TxId, Value};
use quorate_testkit::{Cluster, FakeVerifier, NOW, fake_key, fake_signature, number};

/// Four members, of whom three decide: small enough to flip every bit.
pub(crate) fn cluster() -> Cluster {
    Cluster::new(4, 3)
}

/// What the rules reserve for a value, at a nonce.
pub(crate) fn reservation(rules: &Rules, tx_id: &TxId, value: &Value, nonce: u64) -> Reservation {
    Reservation {
        account: rules.chain().account.clone(),
        nonce,
        payload: rules.payload(tx_id, value),
    }
}

/// The votes of members 0 to t − 1, and their decisions.
pub(crate) fn decision(
    cluster: &Cluster,
    tx_id: &TxId,
    value: &Value,
    reservation: Option<&Reservation>,
) -> DecisionProof {
    DecisionProof {
        votes: cluster.of_threshold(|c, i| c.vote(i, tx_id, value.clone(), NOW + i as u64)),
        decisions: cluster.of_threshold(|c, i| c.decision(i, tx_id, value, reservation)),
    }
}

/// A good decision for a number, first nonce.
pub(crate) fn good_decision(cluster: &Cluster, tx_id: &TxId, value: u64) -> DecisionProof {
    let value = number(value);
    let reservation = reservation(cluster.rules(), tx_id, &value, 7);
    decision(cluster, tx_id, &value, Some(&reservation))
}

/// What makes the document of `next` the rules after those of `cluster`.
pub(crate) fn justification(cluster: &Cluster, next: &Rules) -> DecisionProof {
    let tx_id = TxId::rules(next.epoch(), 1);
    decision(cluster, &tx_id, &rules_value(next.digest()), None)
}

/// The chain of a genesis.
pub(crate) fn chain(cluster: &Cluster) -> RulesChain {
    proof::genesis_chain(cluster.rules())
}

/// The chain of two epochs with the justification given.
pub(crate) fn longer(
    cluster: &Cluster,
    document: &[u8],
    justification: Option<DecisionProof>,
) -> RulesChain {
    let mut chain = chain(cluster);
    chain.links.push(RulesLink {
        document: document.to_vec(),
        justification,
    });
    chain
}

/// The chain of two epochs, as it should be.
pub(crate) fn two_epochs(first: &Cluster, second: &Cluster) -> RulesChain {
    let justification = justification(first, second.rules());
    longer(first, second.rules().document(), Some(justification))
}

/// A good certificate for 42.
pub(crate) fn certificate(cluster: &Cluster, tx_id: &TxId) -> Proof {
    proof::certificate(chain(cluster), good_decision(cluster, tx_id, 42))
}

/// A good abort proof.
pub(crate) fn abort_proof(cluster: &Cluster, tx_id: &TxId) -> Proof {
    let aborts = cluster.of_threshold(|c, i| c.abort(i, tx_id, AbortReason::Timeout));
    proof::abort_proof(chain(cluster), aborts)
}

/// Evidence that member 3 voted twice.
pub(crate) fn double_vote(cluster: &Cluster, tx_id: &TxId) -> Proof {
    let vote = |choice: Choice, time| Some(cluster.vote(3, tx_id, choice, time));
    let kind = misbehaviour::Kind::DoubleVote(DoubleVote {
        first: vote(number(1).into(), NOW),
        second: vote(number(2).into(), NOW + 1),
    });
    proof::evidence(chain(cluster), Misbehaviour { kind: Some(kind) })
}

/// Evidence that member 3 voted against a value with t votes.
pub(crate) fn minority_vote(cluster: &Cluster, tx_id: &TxId) -> Proof {
    let kind = misbehaviour::Kind::MinorityVote(MinorityVote {
        dissent: Some(cluster.vote(3, tx_id, number(2), NOW)),
        majority: cluster.of_threshold(|c, i| c.vote(i, tx_id, number(1), NOW)),
    });
    proof::evidence(chain(cluster), Misbehaviour { kind: Some(kind) })
}

/// A good accusation proof against member 3.
pub(crate) fn accusation_proof(cluster: &Cluster) -> Proof {
    use quorate_consensus::wire::AccusationKind::InvalidSignature;
    let accusations = cluster.of_threshold(|c, i| c.accusation(i, 3, InvalidSignature, NOW));
    proof::accusation_proof(chain(cluster), accusations)
}

/// Checks a proof against the id of the cluster, whatever its epoch.
pub(crate) fn check(proof: &Proof, cluster: &Cluster) -> Result<Verified, ProofError> {
    let id = cluster.rules().cluster_id();
    verify(&proof.encode_to_vec(), &id, None, &FakeVerifier)
}

/// Checks a decision in a certificate under the genesis.
pub(crate) fn check_decision(
    cluster: &Cluster,
    decision: DecisionProof,
) -> Result<Verified, ProofError> {
    check(&proof::certificate(chain(cluster), decision), cluster)
}

/// Insists that a proof fails, and gives why in words.
pub(crate) fn refused(result: Result<Verified, ProofError>) -> String {
    result.expect_err("this must not pass").to_string()
}

/// The value that a certificate proves.
pub(crate) fn value_of(verified: &Verified) -> &Value {
    match &verified.fact {
        Fact::Decided { value, .. } => value,
        other => panic!("not a decision: {other:?}"),
    }
}

/// A member record signed by both of its keys, whatever it says.
pub(crate) fn sign_record(record: &MemberRecord) -> SignedMemberRecord {
    let bytes = record.encode_to_vec();
    let sign = |key: &[u8]| {
        let key = PublicKey {
            scheme: SignatureScheme::Ed25519,
            bytes: key.into(),
        };
        match key.bytes.len() {
            32 => fake_signature(&key, Domain::Member, &bytes),
            _ => Vec::new(),
        }
    };
    SignedMemberRecord {
        vote_signature: sign(&record.vote_key),
        node_signature: sign(&record.node_key),
        record: bytes,
    }
}

/// A member record with keys that belong to nobody else.
pub(crate) fn record(cluster_name: &str, node_id: &str, owner: &str) -> MemberRecord {
    MemberRecord {
        cluster_name: cluster_name.into(),
        node_id: node_id.into(),
        scheme: SignatureScheme::Ed25519.into(),
        vote_key: fake_key(&format!("{owner}/{node_id}/v")).bytes.to_vec(),
        node_key: fake_key(&format!("{owner}/{node_id}/n")).bytes.to_vec(),
    }
}

/// The document of a cluster, to change.
pub(crate) fn document(cluster: &Cluster) -> RulesDocument {
    RulesDocument::decode(cluster.rules().document()).expect("a document")
}

/// Rules of the same name and member ids as a cluster's, but with keys of
/// `owner`'s.
pub(crate) fn own_document(cluster: &Cluster, owner: &str) -> RulesDocument {
    let mut document = document(cluster);
    document.members = cluster
        .rules()
        .members()
        .map(|m| sign_record(&record("test", m.node_id.as_str(), owner)))
        .collect();
    document
}

/// A statement in the name of a member, signed by the key of `owner`'s.
pub(crate) fn say_as<B: Body>(
    rules: &Rules,
    node_id: &NodeId,
    owner: &str,
    body: &B,
) -> SignedStatement {
    let role = match B::KEY {
        KeyRole::Vote => "v",
        KeyRole::Node => "n",
    };
    let statement = bytes_to_sign(rules, node_id, body);
    let key = fake_key(&format!("{owner}/{node_id}/{role}"));
    SignedStatement {
        signature: fake_signature(&key, B::DOMAIN, &statement),
        statement,
    }
}

/// A whole decision under rules whose keys are all `owner`'s.
pub(crate) fn own_decision(
    rules: &Rules,
    owner: &str,
    tx_id: &TxId,
    value: &Value,
    reservation: Option<Reservation>,
) -> DecisionProof {
    let vote = VoteBody {
        tx_id: tx_id.clone(),
        choice: value.clone().into(),
        time_ms: NOW,
    };
    let decision = DecisionBody {
        tx_id: tx_id.clone(),
        value: value.clone(),
        reservation,
    };
    let members: Vec<_> = rules.members().take(rules.threshold()).collect();
    let (votes, decisions) = members
        .iter()
        .map(|m| {
            (
                say_as(rules, &m.node_id, owner, &vote),
                say_as(rules, &m.node_id, owner, &decision),
            )
        })
        .unzip();
    DecisionProof { votes, decisions }
}
