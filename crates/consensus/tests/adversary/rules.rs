//! Rules documents that are nearly right.

use prost::Message;
use quorate_consensus::rules::{MAX_DOCUMENT_LEN, MAX_MEMBERS, RulesError, digest_of, open_member};
use quorate_consensus::wire::{
    ChainTarget, MemberRecord, RulesDocument, SignatureScheme, SignedMemberRecord,
};
use quorate_consensus::{Domain, NodeId, Rules};
use quorate_testkit::{Cluster, FakeVerifier, Options, data, fake_key, fake_signature, number, tx};

use crate::kit::{cluster, document, record, sign_record};

fn read(document: &RulesDocument) -> Result<Rules, RulesError> {
    Rules::genesis(&document.encode_to_vec(), &FakeVerifier)
}

/// Changes a good genesis.
fn changed(change: impl FnOnce(&mut RulesDocument)) -> Result<Rules, RulesError> {
    let mut document = document(&cluster());
    change(&mut document);
    read(&document)
}

/// What the change makes must be refused because of the field.
fn wrong(field: &str, change: impl FnOnce(&mut RulesDocument)) {
    match changed(change) {
        Err(RulesError::Field {
            field: found,
            reason,
        }) => {
            assert_eq!(found, field, "{reason}");
        }
        other => panic!("{field}: {other:?}"),
    }
}

fn chain(document: &mut RulesDocument) -> &mut ChainTarget {
    document.chain.as_mut().unwrap()
}

/// Changes the record of member `i`, which signs it again.
fn change_record(document: &mut RulesDocument, i: usize, change: impl FnOnce(&mut MemberRecord)) {
    let mut record = MemberRecord::decode(&*document.members[i].record).unwrap();
    change(&mut record);
    document.members[i] = sign_record(&record);
}

#[test]
fn a_good_genesis_says_what_it_says() {
    let cluster = cluster();
    let rules = read(&document(&cluster)).unwrap();
    assert_eq!(rules, **cluster.rules());
    assert_eq!(rules.cluster_id().0, rules.digest().0);
    assert_eq!(rules.digest(), digest_of(rules.document()));
    assert_eq!(rules.epoch(), 1);
    let numbers = (
        rules.total(),
        rules.threshold(),
        rules.tolerated(),
        rules.starters(),
    );
    assert_eq!(numbers, (4, 3, 0, 2));
    assert_eq!(rules.vote_lifetime_ms(), 300_000 + 2 * 30_000);
    let member = rules.member(&cluster.node_id(2)).unwrap();
    assert_eq!(member.peer_id, member.vote_key.peer_id());
    assert!(!rules.is_member(&NodeId::new("node5").unwrap()));
}

#[test]
fn the_digest_is_in_a_domain_of_its_own() {
    let bytes = cluster().rules().document().to_vec();
    assert_ne!(digest_of(&bytes).0, *blake3::hash(&bytes).as_bytes());
    let tagged = [b"quorate.rules.v1\0", &bytes[..]].concat();
    assert_eq!(digest_of(&bytes).0, *blake3::hash(&tagged).as_bytes());
}

#[test]
fn threshold() {
    wrong("threshold", |d| d.threshold = 0);
    wrong("threshold", |d| d.threshold = 5);
    wrong("threshold", |d| d.threshold = u32::MAX);
    for t in 1..=4 {
        assert_eq!(
            changed(|d| d.threshold = t).unwrap().threshold(),
            t as usize
        );
    }
}

#[test]
fn how_many_members() {
    wrong("members", |d| d.members.clear());
    let many = |n: usize| {
        move |d: &mut RulesDocument| {
            let one = |i| sign_record(&record("test", &format!("m{i:03}"), "many"));
            d.members = (0..n).map(one).collect();
        }
    };
    assert_eq!(changed(many(MAX_MEMBERS)).unwrap().total(), 200);
    wrong("members", many(MAX_MEMBERS + 1));
    let one = |d: &mut RulesDocument| (d.members.truncate(1), d.threshold = 1).1;
    assert_eq!(changed(one).unwrap().total(), 1);
}

#[test]
fn the_tolerated_number_of_liars() {
    // floor((N - t) / 2) for every N and t that a small cluster can have.
    for n in 1..=9 {
        for t in 1..=n {
            let rules = Cluster::new(n, t).rules().clone();
            assert_eq!(rules.tolerated(), (n - t) / 2);
            assert_eq!(rules.starters(), n - t + 1);
            assert_eq!(rules.summary().tolerated as usize, rules.tolerated());
        }
    }
}

#[test]
fn members_ascend() {
    wrong("members", |d| d.members.swap(0, 1));
    wrong("members", |d| d.members.reverse());
    wrong("members", |d| d.members[1] = d.members[0].clone());
    // The same id with other keys.
    wrong("members", |d| {
        d.members[1] = sign_record(&record("test", "node1", "other"))
    });
    // By bytes, not as people count.
    wrong("members", |d| {
        let named = |id| sign_record(&record("test", id, "other"));
        d.members = vec![named("node9"), named("node10")];
        d.threshold = 1;
    });
}

#[test]
fn no_key_occurs_twice() {
    let key = |name: &str| fake_key(name).bytes.to_vec();
    wrong("members", |d| {
        change_record(d, 0, |r| r.node_key = r.vote_key.clone());
    });
    let (first, second) = (key("test/node1/vote"), key("test/node1/node"));
    for taken in [first, second] {
        wrong("members", |d| {
            change_record(d, 3, |r| r.vote_key = taken.clone())
        });
        wrong("members", |d| {
            change_record(d, 3, |r| r.node_key = taken.clone())
        });
    }
    changed(|d| change_record(d, 3, |r| r.vote_key = key("fresh"))).unwrap();
}

#[test]
fn weak_and_malformed_keys() {
    let weak = RulesError::WeakKey(NodeId::new("node2").unwrap());
    for bad in [vec![0; 32], vec![], vec![1; 31], vec![1; 33]] {
        for change in [
            (|r, key| r.vote_key = key) as fn(&mut MemberRecord, Vec<u8>),
            |r, key| r.node_key = key,
        ] {
            let result = changed(|d| change_record(d, 1, |r| change(r, bad.clone())));
            assert_eq!(result, Err(weak.clone()));
        }
    }
}

#[test]
fn proof_of_possession() {
    let missing = RulesError::NoPossession(NodeId::new("node2").unwrap());
    let broken = |break_it: fn(&mut SignedMemberRecord)| {
        assert_eq!(
            changed(|d| break_it(&mut d.members[1])),
            Err(missing.clone())
        );
    };
    broken(|m| m.vote_signature.clear());
    broken(|m| m.node_signature.clear());
    broken(|m| m.vote_signature[0] ^= 1);
    broken(|m| m.node_signature[31] ^= 1);
    broken(|m| std::mem::swap(&mut m.vote_signature, &mut m.node_signature));
    broken(|m| m.node_signature = m.vote_signature.clone());
    // Signed, but for another purpose.
    broken(|m| {
        let key = fake_key("test/node2/vote");
        m.vote_signature = fake_signature(&key, Domain::Vote, &m.record);
    });
    // Somebody else's key put into one's own record.
    let result = changed(|d| {
        let mut record = MemberRecord::decode(&*d.members[1].record).unwrap();
        record.vote_key = fake_key("fresh").bytes.to_vec();
        d.members[1].record = record.encode_to_vec();
    });
    assert_eq!(result, Err(missing));
}

#[test]
fn a_record_for_another_cluster() {
    wrong("cluster_name", |d| {
        change_record(d, 0, |r| r.cluster_name = "other".into())
    });
    wrong("cluster_name", |d| {
        change_record(d, 0, |r| r.cluster_name.clear())
    });
    let signed = sign_record(&record("here", "node1", "x"));
    open_member(&signed, "here", &FakeVerifier).unwrap();
    open_member(&signed, "there", &FakeVerifier).unwrap_err();
}

#[test]
fn a_record_with_a_wrong_field() {
    wrong("node_id", |d| {
        change_record(d, 0, |r| r.node_id = "Node1".into())
    });
    wrong("node_id", |d| change_record(d, 0, |r| r.node_id.clear()));
    for scheme in [0, 2, -1] {
        wrong("scheme", |d| change_record(d, 0, |r| r.scheme = scheme));
    }
    assert_eq!(SignatureScheme::Ed25519 as i32, 1);
}

#[test]
fn a_record_that_is_not_canonical() {
    let result = changed(|d| {
        let mut bytes = d.members[0].record.clone();
        bytes.extend([0xa0, 6, 1]);
        let sign = |name| fake_signature(&fake_key(name), Domain::Member, &bytes);
        d.members[0] = SignedMemberRecord {
            vote_signature: sign("test/node1/vote"),
            node_signature: sign("test/node1/node"),
            record: bytes,
        };
    });
    assert_eq!(result, Err(RulesError::NotCanonical));
    let garbage = changed(|d| d.members[0].record = vec![0xff; 9]);
    assert!(matches!(garbage, Err(RulesError::Undecodable(_))));
    wrong("node_id", |d| d.members[0] = SignedMemberRecord::default());
}

#[test]
fn a_document_that_is_not_canonical() {
    let good = cluster().rules().document().to_vec();
    let refuse = |bytes: Vec<u8>| {
        let result = Rules::genesis(&bytes, &FakeVerifier);
        assert_eq!(result, Err(RulesError::NotCanonical));
    };
    refuse([&good[..], &[0xa0, 6, 1]].concat());
    refuse([&good[..], &[0xa2, 6, 0]].concat());
    refuse([&good[..], &good].concat());
    // The epoch once more, at the end and at the beginning.
    refuse([&good[..], &[0x10, 1]].concat());
    refuse([&[0x10, 1], &good[..]].concat());
    // An explicit empty predecessor between epoch and members.
    let epoch = good.windows(2).position(|pair| pair == [0x10, 1]).unwrap();
    refuse([&good[..epoch + 2], &[0x1a, 0], &good[epoch + 2..]].concat());
    refuse([&good[..epoch], &[0x10, 0x81, 0], &good[epoch + 2..]].concat());
}

#[test]
fn not_a_document() {
    for bytes in [&b"\xff"[..], b"hello world", &[0x0a, 200, 1]] {
        let result = Rules::genesis(bytes, &FakeVerifier);
        assert!(
            matches!(result, Err(RulesError::Undecodable(_))),
            "{result:?}"
        );
    }
    assert!(Rules::genesis(&[], &FakeVerifier).is_err());
    let result = Rules::genesis(&vec![0; MAX_DOCUMENT_LEN + 1], &FakeVerifier);
    assert_eq!(result, Err(RulesError::TooLarge(MAX_DOCUMENT_LEN + 1)));
}

#[test]
fn the_largest_document_fits() {
    // 200 members with the longest names, and signatures of 64 bytes.
    let mut document = document(&cluster());
    let name = "c".repeat(63);
    document.cluster_name = name.clone();
    document.members = (0..MAX_MEMBERS)
        .map(|i| sign_record(&record(&name, &format!("{i:0>63}"), "x")))
        .collect();
    let spare = 2 * 32 * MAX_MEMBERS;
    assert!(document.encoded_len() + spare < MAX_DOCUMENT_LEN);
    read(&document).unwrap();
}

#[test]
fn the_clusters_name() {
    for bad in ["", "Test", "te st", "te.st", "te_st", &"a".repeat(64)] {
        wrong("cluster_name", |d| d.cluster_name = bad.into());
    }
}

#[test]
fn epoch_and_predecessor_of_a_genesis() {
    wrong("epoch", |d| d.epoch = 0);
    wrong("predecessor", |d| d.predecessor = vec![0; 32]);
    wrong("predecessor", |d| d.predecessor = vec![0]);
    // A later epoch is no genesis, whatever it says.
    wrong("epoch", |d| (d.epoch, d.predecessor) = (2, vec![0; 32]));
    wrong("predecessor", |d| d.epoch = 2);
    wrong("predecessor", |d| {
        (d.epoch, d.predecessor) = (2, vec![0; 31])
    });
}

#[test]
fn epoch_and_predecessor_of_a_successor() {
    let first = cluster();
    let good = document(&first.successor(4, 3, Options::default()));
    let follow = |change: fn(&mut RulesDocument)| {
        let mut document = good.clone();
        change(&mut document);
        first
            .rules()
            .successor(&document.encode_to_vec(), &FakeVerifier)
    };
    let next = follow(|_| ()).unwrap();
    assert_eq!(next.epoch(), 2);
    assert_eq!(next.cluster_id(), first.rules().cluster_id());
    assert_ne!(next.digest(), first.rules().digest());
    let refuse = |field: &str, change| match follow(change) {
        Err(RulesError::Field { field: found, .. }) => assert_eq!(found, field),
        other => panic!("{field}: {other:?}"),
    };
    refuse("epoch", |d| d.epoch = 0);
    refuse("epoch", |d| d.epoch = 3);
    refuse("epoch", |d| d.epoch = u64::MAX);
    refuse("epoch", |d| (d.epoch, d.predecessor) = (1, vec![]));
    refuse("predecessor", |d| d.epoch = 1);
    refuse("predecessor", |d| d.predecessor = vec![]);
    refuse("predecessor", |d| d.predecessor = vec![1; 32]);
    refuse("predecessor", |d| d.predecessor.push(0));
    refuse("cluster_name", |d| {
        d.cluster_name = "other".into();
        let renamed = |i| sign_record(&record("other", &format!("node{i}"), "x"));
        d.members = (1..=4).map(renamed).collect();
    });
    refuse("threshold", |d| d.threshold = 9);
    // A genesis does not follow itself.
    let again = first
        .rules()
        .successor(first.rules().document(), &FakeVerifier);
    assert!(again.is_err());
}

#[test]
fn policies() {
    for unknown in [0, 3, -1] {
        wrong("dissent", |d| d.dissent = unknown);
        wrong("silence", |d| d.silence = unknown);
    }
}

#[test]
fn limits_of_times() {
    type Field = fn(&mut RulesDocument) -> &mut u64;
    let fields: [(&str, Field, u64, u64); 3] = [
        (
            "vote_timeout_ms",
            |d| &mut d.vote_timeout_ms,
            100,
            86_400_000,
        ),
        ("settle_window_ms", |d| &mut d.settle_window_ms, 0, 60_000),
        ("clock_skew_ms", |d| &mut d.clock_skew_ms, 100, 300_000),
    ];
    for (name, field, least, most) in fields {
        for good in [least, least + 1, most - 1, most] {
            changed(|d| *field(d) = good).unwrap();
        }
        wrong(name, |d| *field(d) = most + 1);
        wrong(name, |d| *field(d) = u64::MAX);
        if let Some(less) = least.checked_sub(1) {
            wrong(name, |d| *field(d) = less);
            wrong(name, |d| *field(d) = 0);
        }
    }
}

#[test]
fn the_chain_target() {
    wrong("chain", |d| d.chain = None);
    for unknown in [0, 99, -1] {
        wrong("chain.kind", |d| chain(d).kind = unknown);
        wrong("chain.encoding", |d| chain(d).encoding = unknown);
    }
    wrong("chain.chain_id", |d| chain(d).chain_id.clear());
    wrong("chain.chain_id", |d| chain(d).chain_id = "x".repeat(65));
    wrong("chain.account", |d| chain(d).account.clear());
    wrong("chain.account", |d| chain(d).account = "x".repeat(129));
    wrong("chain.destination", |d| {
        chain(d).destination = "x".repeat(129)
    });
    wrong("chain.confirmations", |d| chain(d).confirmations = 0);
    wrong("chain.confirmations", |d| chain(d).confirmations = 1001);
    for first_nonce in [0, u64::MAX] {
        changed(|d| chain(d).first_nonce = first_nonce).unwrap();
    }
    changed(|d| {
        *chain(d) = ChainTarget {
            chain_id: "x".repeat(64),
            account: "x".repeat(128),
            destination: String::new(),
            confirmations: 1000,
            ..chain(d).clone()
        }
    })
    .unwrap();
}

#[test]
fn every_part_of_a_document_counts() {
    // Whatever differs makes other rules.
    let base = cluster().rules().digest();
    let changes: [fn(&mut RulesDocument); 12] = [
        |d| d.threshold = 2,
        |d| d.dissent = 2,
        |d| d.silence = 2,
        |d| d.vote_timeout_ms += 1,
        |d| d.settle_window_ms += 1,
        |d| d.clock_skew_ms += 1,
        |d| chain(d).chain_id.push('x'),
        |d| chain(d).account.push('x'),
        |d| chain(d).destination.push('x'),
        |d| chain(d).first_nonce += 1,
        |d| chain(d).confirmations += 1,
        |d| drop(d.members.pop()),
    ];
    let mut digests: Vec<_> = changes
        .iter()
        .map(|c| changed(c).unwrap().digest())
        .collect();
    digests.push(base);
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), changes.len() + 1);
}

#[test]
fn a_payload_is_for_one_cluster_transaction_destination_and_value() {
    let rules = cluster().rules().clone();
    let base = rules.payload(&tx("a"), &number(1));
    assert_eq!(base, rules.payload(&tx("a"), &number(1)));
    let other = changed(|d| chain(d).destination = "elsewhere".into()).unwrap();
    let others = [
        rules.payload(&tx("b"), &number(1)),
        rules.payload(&tx("a"), &number(2)),
        rules.payload(&tx("a"), &number(0)),
        rules.payload(&tx("a"), &data(b"1")),
        rules.payload(&tx("a"), &data(&[1])),
        other.payload(&tx("a"), &number(1)),
    ];
    assert!(others.iter().all(|payload| *payload != base));
}
