//! Certificates that are nearly right.

use prost::Message;
use quorate_consensus::proof::{self, Fact, ProofError, verify, verify_decision_proof};
use quorate_consensus::statement::{KeyRole, StatementError};
use quorate_consensus::wire::{self, DecisionProof, Proof, Reservation, SignedStatement};
use quorate_consensus::{Choice, Domain, Rules, TxId, Value};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, data, number, tx};

use crate::kit::*;

#[test]
fn a_good_certificate_says_what_was_decided() {
    let cluster = cluster();
    for value in [number(42), number(0), data(b"42"), data(&[0; 1024])] {
        let reservation = reservation(cluster.rules(), &tx("a"), &value, 9);
        let proof = decision(&cluster, &tx("a"), &value, Some(&reservation));
        let verified = check_decision(&cluster, proof).unwrap();
        assert_eq!(verified.rules, *cluster.rules());
        let voters = (0..3).map(|i| cluster.node_id(i)).collect();
        let fact = Fact::Decided {
            tx_id: tx("a"),
            value,
            reservation: Some(reservation),
            voters,
        };
        assert_eq!(verified.fact, fact);
    }
}

#[test]
fn voters_and_deciders_may_be_different_members() {
    let cluster = cluster();
    let mut proof = good_decision(&cluster, &tx("a"), 42);
    proof.votes = (1..4)
        .map(|i| cluster.vote(i, &tx("a"), number(42), NOW))
        .collect();
    check_decision(&cluster, proof).unwrap();
}

#[test]
fn clusters_of_one_and_of_two_hundred() {
    for (n, t) in [(1, 1), (2, 2), (200, 200), (200, 134)] {
        let cluster = Cluster::new(n, t);
        check_decision(&cluster, good_decision(&cluster, &tx("a"), 1)).unwrap();
    }
}

/// Breaks a good decision in one way and gives why it is refused.
fn broken(break_it: impl FnOnce(&Cluster, &mut DecisionProof)) -> String {
    let cluster = cluster();
    let mut proof = good_decision(&cluster, &tx("a"), 42);
    check_decision(&cluster, proof.clone()).expect("good before it is broken");
    break_it(&cluster, &mut proof);
    refused(check_decision(&cluster, proof))
}

fn good_reservation(cluster: &Cluster) -> Reservation {
    reservation(cluster.rules(), &tx("a"), &number(42), 7)
}

#[test]
fn votes_without_decisions() {
    let why = broken(|_, proof| proof.decisions.clear());
    assert!(why.contains("0 decisions where 3"), "{why}");
}

#[test]
fn decisions_without_votes() {
    let why = broken(|_, proof| proof.votes.clear());
    assert!(why.contains("0 votes where 3"), "{why}");
}

#[test]
fn neither() {
    let cluster = cluster();
    refused(check_decision(&cluster, DecisionProof::default()));
    let mut empty = certificate(&cluster, &tx("a"));
    let Some(wire::proof::Kind::Certificate(inner)) = &mut empty.kind else {
        unreachable!()
    };
    inner.proof = None;
    assert!(refused(check(&empty, &cluster)).contains("holds no votes and decisions"));
}

#[test]
fn one_too_few_and_one_too_many() {
    assert!(broken(|_, p| drop(p.votes.pop())).contains("2 votes"));
    assert!(broken(|_, p| drop(p.decisions.pop())).contains("2 decisions"));
    let why = broken(|c, p| p.votes.push(c.vote(3, &tx("a"), number(42), NOW)));
    assert!(why.contains("4 votes"), "{why}");
    let why = broken(|c, p| {
        let reservation = good_reservation(c);
        p.decisions
            .push(c.decision(3, &tx("a"), &number(42), Some(&reservation)));
    });
    assert!(why.contains("4 decisions"), "{why}");
}

#[test]
fn a_member_twice() {
    assert!(broken(|_, p| p.votes[1] = p.votes[0].clone()).contains("ascend"));
    assert!(broken(|_, p| p.decisions[2] = p.decisions[1].clone()).contains("ascend"));
    // With another time it is another statement, and still the same member.
    let why = broken(|c, p| p.votes[1] = c.vote(0, &tx("a"), number(42), NOW + 77));
    assert!(why.contains("ascend"), "{why}");
}

#[test]
fn unsorted() {
    assert!(broken(|_, p| p.votes.swap(0, 1)).contains("ascend"));
    assert!(broken(|_, p| p.votes.swap(1, 2)).contains("ascend"));
    assert!(broken(|_, p| p.decisions.reverse()).contains("ascend"));
}

#[test]
fn an_abstention_among_the_votes() {
    let why = broken(|c, p| p.votes[2] = c.vote(2, &tx("a"), Choice::Abstention, NOW));
    assert!(why.contains("abstention"), "{why}");
    let why = broken(|c, p| {
        p.votes = c.of_threshold(|c, i| c.vote(i, &tx("a"), Choice::Abstention, NOW))
    });
    assert!(why.contains("abstention"), "{why}");
}

#[test]
fn a_vote_for_another_value() {
    let why = broken(|c, p| p.votes[0] = c.vote(0, &tx("a"), number(43), NOW));
    assert!(why.contains("43"), "{why}");
    // The number 42 and the bytes "42" are two values.
    broken(|c, p| p.votes[0] = c.vote(0, &tx("a"), data(b"42"), NOW));
}

#[test]
fn decisions_for_another_value_than_the_votes() {
    broken(|c, p| p.decisions = good_decision(c, &tx("a"), 43).decisions);
    broken(|c, p| p.votes = good_decision(c, &tx("a"), 43).votes);
    let why = broken(|c, p| p.decisions[2] = good_decision(c, &tx("a"), 43).decisions[2].clone());
    assert!(why.contains("differ"), "{why}");
}

#[test]
fn another_transaction() {
    broken(|c, p| p.votes = good_decision(c, &tx("b"), 42).votes);
    broken(|c, p| p.decisions = good_decision(c, &tx("b"), 42).decisions);
    broken(|c, p| p.votes[1] = good_decision(c, &tx("b"), 42).votes[1].clone());
    broken(|c, p| p.decisions[0] = good_decision(c, &tx("b"), 42).decisions[0].clone());
    // Other case is another transaction.
    broken(|c, p| p.votes[1] = c.vote(1, &tx("A"), number(42), NOW));
}

#[test]
fn decisions_that_disagree_on_the_reservation() {
    let why = broken(|c, p| {
        let mut other = good_reservation(c);
        other.nonce += 1;
        p.decisions[2] = c.decision(2, &tx("a"), &number(42), Some(&other));
    });
    assert!(why.contains("differ"), "{why}");
    let why = broken(|c, p| p.decisions[2] = c.decision(2, &tx("a"), &number(42), None));
    assert!(why.contains("differ"), "{why}");
}

/// All decisions name this reservation.
fn reserved(change: impl Fn(&Rules, &mut Reservation)) -> String {
    broken(|c, p| {
        let mut reservation = good_reservation(c);
        change(c.rules(), &mut reservation);
        let decide = |c: &Cluster, i| c.decision(i, &tx("a"), &number(42), Some(&reservation));
        p.decisions = c.of_threshold(decide);
    })
}

#[test]
fn a_reservation_that_the_rules_do_not_give() {
    let why = reserved(|_, r| r.account = "thief".into());
    assert!(why.contains("account"), "{why}");
    assert!(reserved(|_, r| r.account.clear()).contains("account"));
    let why = reserved(|_, r| r.nonce = 6);
    assert!(why.contains("nonce"), "{why}");
    let payload = |tx_id: TxId, value: Value| {
        move |rules: &Rules, r: &mut Reservation| r.payload = rules.payload(&tx_id, &value)
    };
    assert!(reserved(payload(tx("a"), number(43))).contains("payload"));
    assert!(reserved(payload(tx("a"), data(b"42"))).contains("payload"));
    assert!(reserved(payload(tx("b"), number(42))).contains("payload"));
    assert!(reserved(|_, r| r.payload.clear()).contains("payload"));
    assert!(reserved(|_, r| r.payload.push(0)).contains("payload"));
    assert!(reserved(|_, r| *r = Reservation::default()).contains("account"));
    let elsewhere = |rules: &Rules, r: &mut Reservation| {
        let mut payload = wire::Payload::decode(&*r.payload).unwrap();
        assert_eq!(payload.cluster_id, rules.cluster_id().0);
        payload.destination = "thief".into();
        r.payload = payload.encode_to_vec();
    };
    assert!(reserved(elsewhere).contains("payload"));
}

#[test]
fn no_reservation() {
    let why = broken(|c, p| {
        p.decisions = c.of_threshold(|c, i| c.decision(i, &tx("a"), &number(42), None));
    });
    assert!(why.contains("no reservation"), "{why}");
}

#[test]
fn any_nonce_from_the_first_on() {
    let cluster = cluster();
    for nonce in [7, 8, u64::MAX] {
        let reservation = reservation(cluster.rules(), &tx("a"), &number(1), nonce);
        let proof = decision(&cluster, &tx("a"), &number(1), Some(&reservation));
        check_decision(&cluster, proof).unwrap();
    }
}

/// Signs the statements of a list again, by another key or in another domain.
fn signed_as(
    cluster: &Cluster,
    list: &[SignedStatement],
    role: KeyRole,
    domain: Domain,
) -> Vec<SignedStatement> {
    let again =
        |(i, s): (usize, &SignedStatement)| cluster.sign(i, role, domain, s.statement.clone());
    list.iter().enumerate().map(again).collect()
}

#[test]
fn signatures_made_for_something_else() {
    use KeyRole::{Node, Vote};
    // A vote's bytes have the fields of a decision: only the domain tells them apart.
    let why = broken(|c, p| p.decisions = signed_as(c, &p.decisions, Node, Domain::Vote));
    assert!(why.contains("does not verify"), "{why}");
    for (role, domain) in [
        (Vote, Domain::Decision),
        (Node, Domain::Vote),
        (Node, Domain::Decision),
    ] {
        let why = broken(|c, p| p.votes = signed_as(c, &p.votes, role, domain));
        assert!(why.contains("does not verify"), "{why}");
    }
    for (role, domain) in [
        (Vote, Domain::Decision),
        (Vote, Domain::Vote),
        (Node, Domain::Abort),
    ] {
        let why = broken(|c, p| p.decisions = signed_as(c, &p.decisions, role, domain));
        assert!(why.contains("does not verify"), "{why}");
    }
}

#[test]
fn votes_used_as_decisions() {
    // Decision 5 is a choice as in a vote; a vote's time is no reservation.
    broken(|_, p| p.decisions = p.votes.clone());
    broken(|_, p| p.votes = p.decisions.clone());
    broken(|_, p| std::mem::swap(&mut p.votes, &mut p.decisions));
    // A vote of time 0 decodes as a decision without reservation, which is what a
    // change of rules needs.
    let cluster = cluster();
    let next = cluster.successor(4, 3, Options::default());
    let tx_id = TxId::rules(2, 1);
    let value = proof::rules_value(next.rules().digest());
    let votes = cluster.of_threshold(|c, i| c.vote(i, &tx_id, value.clone(), 0));
    let decisions = votes.clone();
    let why = refused(check_decision(&cluster, DecisionProof { votes, decisions }));
    assert!(why.contains("does not verify"), "{why}");
}

#[test]
fn a_signature_of_another_member() {
    broken(|_, p| p.votes[0].signature = p.votes[1].signature.clone());
    broken(|_, p| p.decisions[0].signature.clear());
    broken(|_, p| p.decisions[2].signature.push(0));
    broken(|_, p| p.votes[2] = SignedStatement::default());
}

#[test]
fn a_stranger_and_a_self_made_member() {
    let stranger = Cluster::new(5, 3);
    // Same name and keys, but other rules and so another digest.
    broken(|_, p| p.votes[2] = stranger.vote(4, &tx("a"), number(42), NOW));
    let why = broken(|c, p| {
        let body = quorate_consensus::statement::VoteBody {
            tx_id: tx("a"),
            choice: number(42).into(),
            time_ms: NOW,
        };
        p.votes[2] = say_as(c.rules(), &stranger.node_id(4), "mallory", &body);
    });
    assert!(why.contains("node5 is not a member"), "{why}");
    let why = broken(|c, p| {
        let body = quorate_consensus::statement::VoteBody {
            tx_id: tx("a"),
            choice: number(42).into(),
            time_ms: NOW,
        };
        p.votes[2] = say_as(c.rules(), &c.node_id(2), "mallory", &body);
    });
    assert!(why.contains("signature of node3"), "{why}");
}

#[test]
fn self_made_rules() {
    let cluster = cluster();
    let id = cluster.rules().cluster_id();
    let own = own_document(&cluster, "mallory").encode_to_vec();
    let rules = Rules::genesis(&own, &FakeVerifier).unwrap();
    let reservation = reservation(&rules, &tx("a"), &number(42), 7);
    let decision = own_decision(&rules, "mallory", &tx("a"), &number(42), Some(reservation));
    let proof = proof::certificate(proof::genesis_chain(&rules), decision.clone());
    // Under its own genesis it is perfect.
    verify(
        &proof.encode_to_vec(),
        &rules.cluster_id(),
        None,
        &FakeVerifier,
    )
    .unwrap();
    let why = refused(check(&proof, &cluster));
    assert!(why.contains(&id.to_string()), "{why}");
    // Under the true genesis its statements are another cluster's.
    let mixed = proof::certificate(chain(&cluster), decision.clone());
    let wrong_cluster = ProofError::Statement(StatementError::WrongCluster);
    assert_eq!(check(&mixed, &cluster), Err(wrong_cluster));
    // Nor may two genesis documents stand side by side.
    let mut both = chain(&cluster);
    both.links.extend(proof::genesis_chain(&rules).links);
    refused(check(&proof::certificate(both, decision.clone()), &cluster));
    let mut both = proof::genesis_chain(&rules);
    both.links.extend(chain(&cluster).links);
    refused(check(&proof::certificate(both, decision), &cluster));
}

#[test]
fn rules_that_differ_in_one_policy_only() {
    // Who could lower t in the document would need fewer voices.
    let cluster = cluster();
    let lower = Cluster::new(4, 2);
    let proof = certificate(&lower, &tx("a"));
    check(&proof, &lower).unwrap();
    refused(check(&proof, &cluster));
}

#[test]
fn another_cluster_of_the_same_members() {
    let cluster = cluster();
    let options = Options {
        name: "other".into(),
        ..Options::default()
    };
    let other = Cluster::with(4, 3, options);
    let proof = certificate(&other, &tx("a"));
    check(&proof, &other).unwrap();
    assert!(matches!(
        check(&proof, &cluster),
        Err(ProofError::Rules { epoch: 1, .. })
    ));
    let mixed = proof::certificate(chain(&cluster), good_decision(&other, &tx("a"), 42));
    refused(check(&mixed, &cluster));
    let mut parts = good_decision(&cluster, &tx("a"), 42);
    parts.decisions = good_decision(&other, &tx("a"), 42).decisions;
    refused(check_decision(&cluster, parts));
}

#[test]
fn no_rules_at_all() {
    let cluster = cluster();
    let mut proof = certificate(&cluster, &tx("a"));
    let Some(wire::proof::Kind::Certificate(inner)) = &mut proof.kind else {
        unreachable!()
    };
    inner.rules = None;
    assert!(refused(check(&proof, &cluster)).contains("holds no rules"));
    let empty = proof::certificate(
        wire::RulesChain::default(),
        good_decision(&cluster, &tx("a"), 42),
    );
    assert!(refused(check(&empty, &cluster)).contains("no rules document"));
}

#[test]
fn not_a_proof() {
    let cluster = cluster();
    let id = cluster.rules().cluster_id();
    for bytes in [&b""[..], b"\0", b"hello", &[0xff; 64], &[0x2a, 0]] {
        let result = verify(bytes, &id, None, &FakeVerifier);
        assert!(
            matches!(result, Err(ProofError::Undecodable(_))),
            "{bytes:?}"
        );
    }
    assert!(refused(check(&Proof { kind: None }, &cluster)).contains("no known kind"));
}

#[test]
fn changes_of_rules_are_decided_without_a_chain() {
    let cluster = cluster();
    let digest = data(&[7; 32]);
    let decide = |tx_id: &str, value: &Value| decision(&cluster, &tx(tx_id), value, None);
    let good = check_decision(&cluster, decide("rules:2:1", &digest)).unwrap();
    assert_eq!(value_of(&good), &digest);
    for wrong in [
        "rules:1:1",
        "rules:3:1",
        "rules:2",
        "rules:2:",
        "rules:02:1",
        "rules:2:01",
        "rules:x",
    ] {
        let why = refused(check_decision(&cluster, decide(wrong, &digest)));
        assert!(why.contains("cannot be decided"), "{why}");
    }
    for wrong in [number(7), data(&[7; 31]), data(&[7; 33])] {
        let why = refused(check_decision(&cluster, decide("rules:2:1", &wrong)));
        assert!(why.contains("digest"), "{why}");
    }
    let tx_id = tx("rules:2:1");
    let reservation = reservation(cluster.rules(), &tx_id, &digest, 7);
    let why = refused(check_decision(
        &cluster,
        decision(&cluster, &tx_id, &digest, Some(&reservation)),
    ));
    assert!(why.contains("no reservation"), "{why}");
    // What only looks like one is a transaction as any other.
    for other in ["rule:2:1", "Rules:2:1", "rules", "rules.2.1"] {
        refused(check_decision(&cluster, decide(other, &digest)));
    }
}

#[test]
fn the_same_check_without_bytes_around_it() {
    let cluster = cluster();
    let proof = good_decision(&cluster, &tx("a"), 42);
    let decided = verify_decision_proof(&proof, cluster.rules(), &FakeVerifier).unwrap();
    assert_eq!(decided.reservation, Some(good_reservation(&cluster)));
    assert_eq!(decided.voters.len(), 3);
}
