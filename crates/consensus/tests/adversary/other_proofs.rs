//! Abort proofs, evidence and accusation proofs that are nearly right.

use quorate_consensus::detector::DetectorError;
use quorate_consensus::proof::{self, Fact, ProofError, Verified};
use quorate_consensus::statement::{AccusationBody, KeyRole};
use quorate_consensus::wire::{
    self, AbortReason, AccusationKind, DoubleVote, MinorityVote, Misbehaviour, SignedStatement,
    ViolationType, misbehaviour::Kind,
};
use quorate_consensus::{Choice, Domain, NodeId};
use quorate_testkit::{Cluster, NOW, Options, number, tx};

use crate::kit::*;

fn check_aborts(cluster: &Cluster, aborts: Vec<SignedStatement>) -> Result<Verified, ProofError> {
    check(&proof::abort_proof(chain(cluster), aborts), cluster)
}

fn aborts(cluster: &Cluster) -> Vec<SignedStatement> {
    cluster.of_threshold(|c, i| c.abort(i, &tx("a"), AbortReason::Byzantine))
}

#[test]
fn a_good_abort_proof_says_who_says_why() {
    let cluster = cluster();
    let mut aborts = aborts(&cluster);
    // Members may see it end for different reasons; it is dead all the same.
    aborts[2] = cluster.abort(3, &tx("a"), AbortReason::Timeout);
    let fact = Fact::Dead {
        tx_id: tx("a"),
        reasons: vec![
            (cluster.node_id(0), AbortReason::Byzantine),
            (cluster.node_id(1), AbortReason::Byzantine),
            (cluster.node_id(3), AbortReason::Timeout),
        ],
    };
    assert_eq!(check_aborts(&cluster, aborts).unwrap().fact, fact);
}

/// Breaks good abort statements in one way and gives why they are refused.
fn broken_aborts(break_it: impl FnOnce(&Cluster, &mut Vec<SignedStatement>)) -> String {
    let cluster = cluster();
    let mut aborts = aborts(&cluster);
    break_it(&cluster, &mut aborts);
    refused(check_aborts(&cluster, aborts))
}

#[test]
fn abort_proofs_that_are_nearly_right() {
    let other = Cluster::with(
        4,
        3,
        Options {
            name: "other".into(),
            ..Options::default()
        },
    );
    let reason = AbortReason::Split;
    assert!(broken_aborts(|_, a| a.clear()).contains("0 abort"));
    assert!(broken_aborts(|_, a| drop(a.pop())).contains("2 abort"));
    assert!(broken_aborts(|c, a| a.push(c.abort(3, &tx("a"), reason))).contains("4 abort"));
    assert!(broken_aborts(|_, a| a[1] = a[0].clone()).contains("ascend"));
    assert!(broken_aborts(|c, a| a[1] = c.abort(0, &tx("a"), reason)).contains("ascend"));
    assert!(broken_aborts(|_, a| a.swap(0, 2)).contains("ascend"));
    let why = broken_aborts(|c, a| a[2] = c.abort(2, &tx("b"), reason));
    assert!(why.contains("more than one transaction"), "{why}");
    assert!(
        broken_aborts(|_, a| a[2] = other.abort(2, &tx("a"), reason)).contains("another cluster")
    );
    assert!(broken_aborts(|_, a| a[2] = SignedStatement::default()).contains("tx_id"));
    broken_aborts(|c, a| a[2] = c.vote(2, &tx("a"), number(1), NOW));
    broken_aborts(|c, a| a[2] = c.decision(2, &tx("a"), &number(1), None));
    for (role, domain) in [
        (KeyRole::Vote, Domain::Abort),
        (KeyRole::Node, Domain::Decision),
    ] {
        let why = broken_aborts(|c, a| a[0] = c.sign(0, role, domain, a[0].statement.clone()));
        assert!(why.contains("does not verify"), "{why}");
    }
}

#[test]
fn an_abort_statement_without_a_reason() {
    let cluster = cluster();
    for reason in [0, 4, -1, i32::MAX] {
        let statement = wire::AbortStatement {
            cluster_id: cluster.rules().cluster_id().0.to_vec(),
            rules_digest: cluster.rules().digest().0.to_vec(),
            tx_id: "a".into(),
            node_id: "node1".into(),
            reason,
        };
        let bytes = prost::Message::encode_to_vec(&statement);
        let signed = cluster.sign(0, KeyRole::Node, Domain::Abort, bytes);
        assert!(broken_aborts(|_, a| a[0] = signed).contains("reason"));
    }
}

#[test]
fn abort_statements_of_another_epoch() {
    let first = cluster();
    let second = first.successor(4, 3, Options::default().outvote());
    let proof = proof::abort_proof(two_epochs(&first, &second), aborts(&first));
    assert!(refused(check(&proof, &first)).contains("signed under rules"));
    let proof = proof::abort_proof(chain(&first), aborts(&second));
    assert!(refused(check(&proof, &first)).contains("signed under rules"));
    let proof = proof::abort_proof(two_epochs(&first, &second), aborts(&second));
    check(&proof, &first).unwrap();
}

#[test]
fn proofs_without_rules() {
    let cluster = cluster();
    let none = |kind| wire::Proof { kind: Some(kind) };
    for proof in [
        none(wire::proof::Kind::Certificate(wire::Certificate::default())),
        none(wire::proof::Kind::Abort(wire::AbortProof {
            rules: None,
            aborts: aborts(&cluster),
        })),
        none(wire::proof::Kind::Evidence(wire::Evidence::default())),
        none(wire::proof::Kind::Accusation(
            wire::AccusationProof::default(),
        )),
    ] {
        assert!(refused(check(&proof, &cluster)).contains("holds no rules"));
    }
}

fn check_accusations(
    cluster: &Cluster,
    accusations: Vec<SignedStatement>,
) -> Result<Verified, ProofError> {
    check(
        &proof::accusation_proof(chain(cluster), accusations),
        cluster,
    )
}

fn accusations(cluster: &Cluster) -> Vec<SignedStatement> {
    cluster.of_threshold(|c, i| c.accusation(i, 3, AccusationKind::Malformed, NOW))
}

#[test]
fn a_good_accusation_proof_says_who_accuses_whom() {
    let cluster = cluster();
    let mut list = accusations(&cluster);
    // Each accuses it of what it saw.
    list[1] = cluster.accusation(1, 3, AccusationKind::InvalidSignature, NOW + 5);
    let fact = Fact::Accused {
        node_id: cluster.node_id(3),
        by: (0..3).map(|i| cluster.node_id(i)).collect(),
    };
    assert_eq!(check_accusations(&cluster, list).unwrap().fact, fact);
}

/// Breaks good accusations in one way and gives why they are refused.
fn broken_accusations(break_it: impl FnOnce(&Cluster, &mut Vec<SignedStatement>)) -> String {
    let cluster = cluster();
    let mut list = accusations(&cluster);
    break_it(&cluster, &mut list);
    refused(check_accusations(&cluster, list))
}

#[test]
fn accusation_proofs_that_are_nearly_right() {
    let kind = AccusationKind::Malformed;
    let other = Cluster::with(
        4,
        3,
        Options {
            name: "other".into(),
            ..Options::default()
        },
    );
    assert!(broken_accusations(|_, a| a.clear()).contains("0 accusations"));
    assert!(broken_accusations(|_, a| drop(a.pop())).contains("2 accusations"));
    assert!(broken_accusations(|_, a| a[1] = a[0].clone()).contains("ascend"));
    let twice = |c: &Cluster, a: &mut Vec<_>| a[1] = c.accusation(0, 3, kind, NOW + 1);
    assert!(broken_accusations(twice).contains("ascend"));
    assert!(broken_accusations(|_, a| a.swap(1, 2)).contains("ascend"));
    let why = broken_accusations(|c, a| a[1] = c.accusation(1, 2, kind, NOW));
    assert!(why.contains("more than one accused"), "{why}");
    let itself = |c: &Cluster, a: &mut Vec<_>| a[2] = c.accusation(3, 3, kind, NOW);
    assert!(broken_accusations(itself).contains("cannot accuse itself"));
    let four = |c: &Cluster, a: &mut Vec<_>| a.push(c.accusation(3, 3, kind, NOW));
    assert!(broken_accusations(four).contains("4 accusations"));
    let foreign = |_: &Cluster, a: &mut Vec<_>| a[0] = other.accusation(0, 3, kind, NOW);
    assert!(broken_accusations(foreign).contains("another cluster"));
    let by_vote_key = |c: &Cluster, a: &mut Vec<SignedStatement>| {
        a[0] = c.sign(0, KeyRole::Vote, Domain::Accusation, a[0].statement.clone());
    };
    assert!(broken_accusations(by_vote_key).contains("does not verify"));
}

#[test]
fn a_stranger_cannot_be_accused() {
    let why = broken_accusations(|c, a| {
        let body = AccusationBody {
            accused: NodeId::new("nobody").unwrap(),
            kind: AccusationKind::Malformed,
            tx_id: None,
            subject_digest: [0; 32],
            time_ms: NOW,
        };
        *a = c.of_threshold(|c, i| c.say(i, &body));
    });
    assert!(why.contains("nobody is not a member"), "{why}");
}

fn check_evidence(cluster: &Cluster, kind: Option<Kind>) -> Result<Verified, ProofError> {
    let evidence = proof::evidence(chain(cluster), Misbehaviour { kind });
    check(&evidence, cluster)
}

#[test]
fn good_evidence_names_the_liar() {
    let cluster = cluster();
    for (proof, kind) in [
        (double_vote(&cluster, &tx("a")), ViolationType::DoubleVoting),
        (
            minority_vote(&cluster, &tx("a")),
            ViolationType::MinorityVote,
        ),
    ] {
        let Fact::Lied(conviction) = check(&proof, &cluster).unwrap().fact else {
            panic!("no lie")
        };
        assert_eq!(conviction.node_id, cluster.node_id(3));
        assert_eq!(conviction.kind, kind);
        assert_eq!(conviction.tx_id, tx("a"));
    }
}

/// Two votes as evidence of double voting.
fn double(first: SignedStatement, second: SignedStatement) -> Option<Kind> {
    Some(Kind::DoubleVote(DoubleVote {
        first: Some(first),
        second: Some(second),
    }))
}

#[test]
fn evidence_of_double_voting_that_proves_nothing() {
    let cluster = cluster();
    let other = Cluster::with(
        4,
        3,
        Options {
            name: "other".into(),
            ..Options::default()
        },
    );
    let lifetime = cluster.rules().vote_lifetime_ms();
    let vote = |i, tx_id: &str, choice: Choice, time| cluster.vote(i, &tx(tx_id), choice, time);
    let one = || vote(3, "a", number(1).into(), NOW);
    let refuse = |why, second| {
        let result = check_evidence(&cluster, double(one(), second));
        assert!(
            matches!(result, Err(ProofError::Evidence(_))),
            "{why}: {result:?}"
        );
    };
    refuse("the same vote", one());
    refuse(
        "the same choice at another time",
        vote(3, "a", number(1).into(), NOW + 1),
    );
    refuse("another member's", vote(2, "a", number(2).into(), NOW));
    refuse("another transaction", vote(3, "b", number(2).into(), NOW));
    refuse(
        "too far apart",
        vote(3, "a", number(2).into(), NOW + lifetime + 1),
    );
    refuse(
        "too far apart",
        vote(3, "a", number(2).into(), NOW - lifetime - 1),
    );
    refuse("another cluster", other.vote(3, &tx("a"), number(2), NOW));
    refuse(
        "a decision",
        cluster.decision(3, &tx("a"), &number(2), None),
    );
    refuse("nothing", SignedStatement::default());
    let bytes = vote(3, "a", number(2).into(), NOW).statement;
    refuse(
        "by its node key",
        cluster.sign(3, KeyRole::Node, Domain::Vote, bytes.clone()),
    );
    refuse(
        "not as a vote",
        cluster.sign(3, KeyRole::Vote, Domain::Decision, bytes.clone()),
    );
    refuse(
        "forged by another",
        cluster.sign(2, KeyRole::Vote, Domain::Vote, bytes),
    );
    // What does prove it: an abstention is a choice, and the window is inclusive.
    for second in [
        vote(3, "a", Choice::Abstention, NOW),
        vote(3, "a", number(2).into(), NOW + lifetime),
        vote(3, "a", number(2).into(), NOW - lifetime),
    ] {
        check_evidence(&cluster, double(one(), second)).unwrap();
    }
}

#[test]
fn evidence_of_dissent_that_proves_nothing() {
    let cluster = cluster();
    let one = |i| cluster.vote(i, &tx("a"), number(1), NOW);
    let refuse = |why, dissent, majority| {
        let kind = Kind::MinorityVote(MinorityVote { dissent, majority });
        let result = check_evidence(&cluster, Some(kind));
        assert!(
            matches!(result, Err(ProofError::Evidence(_))),
            "{why}: {result:?}"
        );
    };
    let dissent = || Some(cluster.vote(3, &tx("a"), number(2), NOW));
    let majority = || (0..3).map(one).collect::<Vec<_>>();
    refuse("no dissent", None, majority());
    refuse("no majority", dissent(), vec![]);
    refuse("t - 1", dissent(), (0..2).map(one).collect());
    refuse("a member twice", dissent(), vec![one(0), one(1), one(1)]);
    refuse("unsorted", dissent(), vec![one(1), one(0), one(2)]);
    refuse("it agrees", Some(one(3)), majority());
    refuse(
        "it abstains",
        Some(cluster.vote(3, &tx("a"), Choice::Abstention, NOW)),
        majority(),
    );
    refuse(
        "another ballot",
        Some(cluster.vote(3, &tx("b"), number(2), NOW)),
        majority(),
    );
    let mut mixed = majority();
    mixed[2] = cluster.vote(2, &tx("a"), number(3), NOW);
    refuse("not of one value", dissent(), mixed);
    let mut mixed = majority();
    mixed[0] = cluster.vote(0, &tx("b"), number(1), NOW);
    refuse("not of one ballot", dissent(), mixed);
    let abstained = |i| cluster.vote(i, &tx("a"), Choice::Abstention, NOW);
    refuse(
        "against abstentions",
        dissent(),
        (0..3).map(abstained).collect(),
    );
    let all = cluster.of_threshold(|_, i| one(i + 1));
    refuse("it is one of the majority", dissent(), all);
}

#[test]
fn evidence_of_nothing() {
    let cluster = cluster();
    let missing = Err(ProofError::Evidence(DetectorError::Missing));
    assert_eq!(check_evidence(&cluster, None), missing);
    let kind = wire::proof::Kind::Evidence(wire::Evidence {
        rules: Some(chain(&cluster)),
        misbehaviour: None,
    });
    assert_eq!(check(&wire::Proof { kind: Some(kind) }, &cluster), missing);
    let empty = Some(Kind::DoubleVote(DoubleVote::default()));
    check_evidence(&cluster, empty).unwrap_err();
}

#[test]
fn evidence_under_other_rules() {
    let first = cluster();
    let second = first.successor(4, 3, Options::default().outvote());
    let old = double(
        first.vote(3, &tx("a"), number(1), NOW),
        first.vote(3, &tx("a"), number(2), NOW),
    );
    let proof = |chain, kind| proof::evidence(chain, Misbehaviour { kind });
    check(&proof(chain(&first), old.clone()), &first).unwrap();
    check(&proof(two_epochs(&first, &second), old), &first).unwrap_err();
    // A vote under each epoch is no double vote: a ballot keeps its rules.
    let both = double(
        first.vote(3, &tx("a"), number(1), NOW),
        second.vote(3, &tx("a"), number(2), NOW),
    );
    check(&proof(chain(&first), both.clone()), &first).unwrap_err();
    check(&proof(two_epochs(&first, &second), both), &first).unwrap_err();
}
