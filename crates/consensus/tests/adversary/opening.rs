//! Opening a statement: whose it is, under which rules, and what it may say.

use prost::Message;
use quorate_consensus::statement::{
    AbortBody, Accusation, AccusationBody, AddressBody, Body, BootBody, DecisionBody, HelloBody,
    KeyRole, MAX_SIGNATURE_LEN, ObservationBody, OperatorActBody, StatementError, VoteBody,
    bytes_to_sign, open, open_field,
};
use quorate_consensus::wire::{self, AbortReason, AccusationKind, ChainOutcome, OperatorActKind};
use quorate_consensus::{Address, Domain, NodeId};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, number, tx};

use crate::kit::{cluster, record, say_as};

const DOMAINS: [Domain; 11] = [
    Domain::Vote,
    Domain::Decision,
    Domain::Abort,
    Domain::Observation,
    Domain::Accusation,
    Domain::Boot,
    Domain::Hello,
    Domain::Address,
    Domain::Act,
    Domain::Member,
    Domain::Rules,
];

fn vote() -> VoteBody {
    VoteBody {
        tx_id: tx("a"),
        choice: number(1).into(),
        time_ms: NOW,
    }
}

fn hello() -> HelloBody {
    HelloBody {
        generation: 1,
        protocol_min: 1,
        protocol_max: 2,
        own_certificate: [1; 32],
        peer_certificate: [2; 32],
        challenge: [3; 32],
    }
}

fn address() -> AddressBody {
    AddressBody {
        address: Address::new("node0:9000").unwrap(),
        generation: 1,
        time_ms: NOW,
    }
}

fn accusation(cluster: &Cluster) -> AccusationBody {
    AccusationBody {
        accused: cluster.node_id(1),
        kind: AccusationKind::Malformed,
        tx_id: None,
        subject_digest: [1; 32],
        time_ms: NOW,
    }
}

fn act() -> OperatorActBody {
    OperatorActBody {
        kind: OperatorActKind::Unban,
        subject: "node1".into(),
        pardoned: vec![[1; 32], [2; 32]],
        time_ms: NOW,
    }
}

/// Only the member's own key for this kind, in this kind's domain, opens it.
fn one_key_and_one_domain<B: Body>(cluster: &Cluster, body: &B) {
    let bytes = bytes_to_sign(cluster.rules(), &cluster.node_id(0), body);
    for member in 0..cluster.n() {
        for role in [KeyRole::Vote, KeyRole::Node] {
            for domain in DOMAINS {
                let signed = cluster.sign(member, role, domain, bytes.clone());
                let result = open::<B>(&signed, cluster.rules(), &FakeVerifier);
                if (member, role, domain) == (0, B::KEY, B::DOMAIN) {
                    let Ok(opened) = result else {
                        panic!("its own")
                    };
                    assert_eq!(opened.node_id, cluster.node_id(0));
                    assert_eq!(opened.signed, signed);
                } else {
                    let bad = Some(StatementError::BadSignature(cluster.node_id(0)));
                    assert_eq!(result.err(), bad, "{member} {role:?} {domain:?}");
                }
            }
        }
    }
}

#[test]
fn every_kind_has_one_key_and_one_domain() {
    let cluster = cluster();
    let reservation = crate::kit::reservation(cluster.rules(), &tx("a"), &number(1), 7);
    one_key_and_one_domain(&cluster, &vote());
    let decision = DecisionBody {
        tx_id: tx("a"),
        value: number(1),
        reservation: Some(reservation.clone()),
    };
    one_key_and_one_domain(&cluster, &decision);
    let reason = AbortReason::Split;
    one_key_and_one_domain(
        &cluster,
        &AbortBody {
            tx_id: tx("a"),
            reason,
        },
    );
    let seen = cluster.seen(&tx("a"), &reservation, ChainOutcome::Confirmed);
    one_key_and_one_domain(&cluster, &seen);
    one_key_and_one_domain(&cluster, &accusation(&cluster));
    one_key_and_one_domain(
        &cluster,
        &BootBody {
            generation: 1,
            time_ms: NOW,
        },
    );
    one_key_and_one_domain(&cluster, &hello());
    one_key_and_one_domain(&cluster, &address());
    one_key_and_one_domain(&cluster, &act());
}

#[test]
fn only_votes_are_signed_by_the_vote_key() {
    assert_eq!(VoteBody::KEY, KeyRole::Vote);
    let others = [
        DecisionBody::KEY,
        AbortBody::KEY,
        ObservationBody::KEY,
        AccusationBody::KEY,
        BootBody::KEY,
        HelloBody::KEY,
        AddressBody::KEY,
        OperatorActBody::KEY,
    ];
    assert!(others.iter().all(|role| *role == KeyRole::Node));
}

#[test]
fn no_domain_is_the_beginning_of_another() {
    for a in DOMAINS {
        assert_eq!(a.tag().last(), Some(&0));
        assert_eq!(a.tag().iter().filter(|byte| **byte == 0).count(), 1);
        assert!(
            DOMAINS
                .iter()
                .all(|b| a == *b || !b.tag().starts_with(a.tag()))
        );
    }
}

#[test]
fn another_cluster_other_rules_and_strangers() {
    let cluster = cluster();
    let refused = |signed: &wire::SignedStatement| {
        open::<VoteBody>(signed, cluster.rules(), &FakeVerifier).unwrap_err()
    };
    let other = Cluster::with(
        4,
        3,
        Options {
            name: "other".into(),
            ..Options::default()
        },
    );
    let foreign = other.vote(0, &tx("a"), number(1), NOW);
    assert_eq!(refused(&foreign), StatementError::WrongCluster);
    assert!(refused(&foreign).accuses_sender());
    let next = cluster.successor(4, 3, Options::default().outvote());
    let early = next.vote(0, &tx("a"), number(1), NOW);
    let wrong_rules = StatementError::WrongRules {
        found: next.rules().digest(),
        expected: cluster.rules().digest(),
    };
    assert_eq!(refused(&early), wrong_rules);
    // The one thing that is excused: the sender may know a newer epoch.
    assert!(!wrong_rules.accuses_sender());
    let nobody = NodeId::new("nobody").unwrap();
    let stranger = say_as(cluster.rules(), &nobody, "mallory", &vote());
    assert_eq!(refused(&stranger), StatementError::UnknownMember(nobody));
}

#[test]
fn missing_and_too_large() {
    let cluster = cluster();
    let open_vote = |signed: &Option<wire::SignedStatement>| {
        open_field::<VoteBody>(signed, cluster.rules(), &FakeVerifier)
    };
    assert_eq!(open_vote(&None), Err(StatementError::Missing));
    let mut signed = cluster.vote(0, &tx("a"), number(1), NOW);
    assert!(open_vote(&Some(signed.clone())).is_ok());
    signed.signature = vec![0; MAX_SIGNATURE_LEN + 1];
    let too_large = StatementError::TooLarge(MAX_SIGNATURE_LEN + 1);
    assert_eq!(open_vote(&Some(signed.clone())), Err(too_large));
    signed.signature.pop();
    let bad = StatementError::BadSignature(cluster.node_id(0));
    assert_eq!(open_vote(&Some(signed)), Err(bad));
}

/// What `change` makes of a good message must be refused because of `field`.
fn wrong_field<B: Body>(
    cluster: &Cluster,
    body: &B,
    field: &str,
    change: impl FnOnce(&mut B::Wire),
) {
    let bytes = bytes_to_sign(cluster.rules(), &cluster.node_id(0), body);
    let mut message = B::Wire::decode(&*bytes).unwrap();
    change(&mut message);
    // Properly signed, so that nothing else is wrong with it.
    let signed = cluster.sign(0, B::KEY, B::DOMAIN, message.encode_to_vec());
    match open::<B>(&signed, cluster.rules(), &FakeVerifier).err() {
        Some(StatementError::Field { field: found, .. }) => assert_eq!(found, field),
        other => panic!("{field}: {other:?}"),
    }
}

#[test]
fn names_and_digests_have_limits() {
    let c = &cluster();
    for wrong in ["", "a b", "a/b", "ä", "a\n", &"a".repeat(129)] {
        wrong_field(c, &vote(), "tx_id", |m| m.tx_id = wrong.into());
        let reason = AbortReason::Split;
        wrong_field(
            c,
            &AbortBody {
                tx_id: tx("a"),
                reason,
            },
            "tx_id",
            |m| m.tx_id = wrong.into(),
        );
        if !wrong.is_empty() {
            wrong_field(c, &accusation(c), "tx_id", |m| m.tx_id = wrong.into());
        }
    }
    for wrong in ["", "Node1", "node 1", "node.1", &"a".repeat(64)] {
        wrong_field(c, &vote(), "node_id", |m| m.node_id = wrong.into());
        wrong_field(c, &accusation(c), "accused", |m| m.accused = wrong.into());
    }
    for wrong in [vec![], vec![1; 31], vec![1; 33]] {
        wrong_field(c, &vote(), "cluster_id", |m| m.cluster_id = wrong.clone());
        wrong_field(c, &vote(), "rules_digest", |m| {
            m.rules_digest = wrong.clone()
        });
        wrong_field(c, &hello(), "own_certificate", |m| {
            m.own_certificate = wrong.clone()
        });
        wrong_field(c, &hello(), "peer_certificate", |m| {
            m.peer_certificate = wrong.clone()
        });
        wrong_field(c, &hello(), "challenge", |m| m.challenge = wrong.clone());
        wrong_field(c, &accusation(c), "subject_digest", |m| {
            m.subject_digest = wrong.clone()
        });
        wrong_field(c, &act(), "pardoned", |m| m.pardoned[0] = wrong.clone());
    }
}

#[test]
fn numbers_and_kinds_have_limits() {
    let c = &cluster();
    wrong_field(
        c,
        &BootBody {
            generation: 1,
            time_ms: NOW,
        },
        "generation",
        |m| m.generation = 0,
    );
    wrong_field(c, &hello(), "protocol_min", |m| m.protocol_min = 3);
    wrong_field(c, &address(), "generation", |m| m.generation = 0);
    for text in [
        "",
        "node0",
        "node0:0",
        "node0:09000",
        "[::0:1]:9000",
        "a b:1",
    ] {
        wrong_field(c, &address(), "address", |m| m.address = text.into());
    }
    let reservation = crate::kit::reservation(c.rules(), &tx("a"), &number(1), 7);
    let seen = c.seen(&tx("a"), &reservation, ChainOutcome::Confirmed);
    wrong_field(c, &seen, "tx_hash", |m| m.tx_hash = vec![0; 65]);
    wrong_field(c, &seen, "block_hash", |m| m.block_hash = vec![0; 65]);
    for unknown in [0, 99, -1, i32::MIN] {
        wrong_field(c, &seen, "outcome", |m| m.outcome = unknown);
        wrong_field(c, &accusation(c), "kind", |m| m.kind = unknown);
        wrong_field(c, &act(), "kind", |m| m.kind = unknown);
    }
    wrong_field(c, &act(), "pardoned", |m| m.pardoned.reverse());
    wrong_field(c, &act(), "pardoned", |m| {
        m.pardoned[1] = m.pardoned[0].clone()
    });
}

#[test]
fn a_decision_is_for_a_value() {
    let c = &cluster();
    let decision = DecisionBody {
        tx_id: tx("a"),
        value: number(1),
        reservation: None,
    };
    wrong_field(c, &decision, "value", |m| m.value = None);
    wrong_field(c, &decision, "value", |m| {
        m.value = Some(wire::Choice { kind: None })
    });
    let abstention = wire::choice::Kind::Abstention(wire::Abstention {});
    wrong_field(c, &decision, "value", |m| {
        m.value = Some(wire::Choice {
            kind: Some(abstention),
        });
    });
    wrong_field(c, &vote(), "choice", |m| m.choice = None);
}

#[test]
fn every_reason_is_told_apart() {
    let node = || NodeId::new("a").unwrap();
    let rules = || cluster().rules().digest();
    let all = [
        StatementError::Missing,
        StatementError::TooLarge(1),
        StatementError::Undecodable(String::new()),
        StatementError::NotCanonical,
        StatementError::Field {
            field: "x",
            reason: String::new(),
        },
        StatementError::WrongCluster,
        StatementError::WrongRules {
            found: rules(),
            expected: rules(),
        },
        StatementError::UnknownMember(node()),
        StatementError::BadSignature(node()),
    ];
    let reasons: std::collections::BTreeSet<_> = all.iter().map(StatementError::reason).collect();
    assert_eq!(reasons.len(), all.len());
    let excused: Vec<_> = all.iter().filter(|e| !e.accuses_sender()).collect();
    assert!(matches!(excused[..], [StatementError::WrongRules { .. }]));
}

#[test]
fn an_accusation_may_be_about_no_transaction() {
    let cluster = cluster();
    for tx_id in [None, Some(tx("a"))] {
        let body = AccusationBody {
            tx_id: tx_id.clone(),
            ..accusation(&cluster)
        };
        let opened: Accusation =
            open(&cluster.say(0, &body), cluster.rules(), &FakeVerifier).unwrap();
        assert_eq!(opened.body.tx_id, tx_id);
    }
    // A member record is no statement of any kind.
    let record = record("test", "node1", "x").encode_to_vec();
    let signed = cluster.sign(0, KeyRole::Node, Domain::Accusation, record);
    open::<AccusationBody>(&signed, cluster.rules(), &FakeVerifier).unwrap_err();
}
