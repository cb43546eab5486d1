//! No bit of a proof can change and leave a proof.

use proptest::prelude::*;
use prost::Message;
use quorate_consensus::proof::{self, verify};
use quorate_consensus::wire::{DecisionProof, Proof};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, number, tx};

use crate::kit::*;

/// Insists that the proof holds, and that nothing one step away from it does: one
/// bit changed, one byte more or less anywhere, or cut short.
fn nothing_near_it_passes(proof: &Proof, cluster: &Cluster) {
    let id = cluster.rules().cluster_id();
    let passes = |bytes: &[u8]| verify(bytes, &id, None, &FakeVerifier).is_ok();
    let good = proof.encode_to_vec();
    assert!(passes(&good));
    let mut bytes = good.clone();
    for at in 0..good.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(!passes(&bytes), "bit {bit} of byte {at} may change");
            bytes[at] ^= 1 << bit;
        }
        assert!(!passes(&good[..at]), "{at} bytes are enough");
        let removed = bytes.remove(at);
        assert!(!passes(&bytes), "byte {at} is not needed");
        bytes.insert(at, removed);
        for added in [0, 1, removed, 0xff] {
            bytes.insert(at, added);
            assert!(!passes(&bytes), "{added} fits in before byte {at}");
            bytes.remove(at);
        }
    }
    // What some other version might add at the end: field 100, any type.
    for added in [&[0xa0, 6, 1][..], &[0xa2, 6, 0], &[0xa2, 6, 1, 0], &[0]] {
        let longer = [&good, added].concat();
        assert!(!passes(&longer), "{added:?} may follow");
    }
    assert!(!passes(&[&good[..], &good].concat()), "it may come twice");
}

#[test]
fn of_a_certificate() {
    let cluster = cluster();
    nothing_near_it_passes(&certificate(&cluster, &tx("tx_001")), &cluster);
}

#[test]
fn of_a_certificate_where_one_decides() {
    // With one statement of each kind, lists and single messages look alike.
    let cluster = Cluster::new(1, 1);
    nothing_near_it_passes(&certificate(&cluster, &tx("tx_001")), &cluster);
}

#[test]
fn of_a_certificate_under_the_second_epoch() {
    let first = Cluster::new(3, 2);
    let second = first.successor(2, 2, Options::default());
    let decision = good_decision(&second, &tx("tx_001"), 42);
    let proof = proof::certificate(two_epochs(&first, &second), decision);
    nothing_near_it_passes(&proof, &first);
}

#[test]
fn of_an_abort_proof() {
    let cluster = cluster();
    nothing_near_it_passes(&abort_proof(&cluster, &tx("tx_001")), &cluster);
}

#[test]
fn of_evidence() {
    let cluster = cluster();
    nothing_near_it_passes(&double_vote(&cluster, &tx("tx_001")), &cluster);
    nothing_near_it_passes(&minority_vote(&cluster, &tx("tx_001")), &cluster);
}

#[test]
fn of_evidence_where_one_decides() {
    let cluster = Cluster::new(4, 1);
    nothing_near_it_passes(&double_vote(&cluster, &tx("tx_001")), &cluster);
    nothing_near_it_passes(&minority_vote(&cluster, &tx("tx_001")), &cluster);
}

#[test]
fn of_an_accusation_proof() {
    let cluster = cluster();
    nothing_near_it_passes(&accusation_proof(&cluster), &cluster);
}

#[test]
fn statements_of_one_kind_of_proof_are_worth_nothing_in_another() {
    // Abort and accusation proofs have the same shape on the wire.
    let cluster = cluster();
    let id = cluster.rules().cluster_id();
    for proof in [
        certificate(&cluster, &tx("a")),
        abort_proof(&cluster, &tx("a")),
        double_vote(&cluster, &tx("a")),
        minority_vote(&cluster, &tx("a")),
        accusation_proof(&cluster),
    ] {
        let good = proof.encode_to_vec();
        for kind in 1..=16 {
            let mut bytes = good.clone();
            bytes[0] = kind << 3 | 2;
            let passes = verify(&bytes, &id, None, &FakeVerifier).is_ok();
            assert_eq!(passes, bytes == good, "as kind {kind}");
        }
    }
}

/// A statement as the oracle sees it.
#[derive(Clone, Copy, Debug)]
struct Said {
    member: usize,
    tx: usize,
    value: u64,
    nonce: u64,
    other_cluster: bool,
}

fn said() -> impl Strategy<Value = Said> {
    // Mostly alike, so that some of the proofs are good.
    let odd = || prop::bool::weighted(0.06);
    (0..3usize, odd(), odd(), odd(), odd()).prop_map(|(member, tx, value, nonce, other)| Said {
        member,
        tx: tx.into(),
        value: 1 + u64::from(value),
        nonce: 7 + u64::from(nonce),
        other_cluster: other,
    })
}

/// The obvious, slow reading of what a certificate is.
fn is_certificate(votes: &[Said], decisions: &[Said], t: usize) -> bool {
    let all = || votes.iter().chain(decisions);
    let ascending = |list: &[Said]| list.windows(2).all(|pair| pair[0].member < pair[1].member);
    votes.len() == t
        && decisions.len() == t
        && ascending(votes)
        && ascending(decisions)
        && all().all(|s| !s.other_cluster)
        && all().all(|s| s.tx == votes[0].tx && s.value == votes[0].value)
        && decisions.iter().all(|s| s.nonce == decisions[0].nonce)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_fast_check_agrees_with_the_obvious_one(
        votes in prop::collection::vec(said(), 1..=3),
        decisions in prop::collection::vec(said(), 1..=3),
    ) {
        let options = Options { name: "other".into(), ..Options::default() };
        let clusters = [Cluster::new(3, 2), Cluster::with(3, 2, options)];
        let names = [tx("a"), tx("b")];
        let of = |s: &Said| &clusters[usize::from(s.other_cluster)];
        let vote = |s: &Said| of(s).vote(s.member, &names[s.tx], number(s.value), NOW);
        let decide = |s: &Said| {
            let (tx_id, value) = (&names[s.tx], number(s.value));
            let reservation = reservation(of(s).rules(), tx_id, &value, s.nonce);
            of(s).decision(s.member, tx_id, &value, Some(&reservation))
        };
        let proof = DecisionProof {
            votes: votes.iter().map(vote).collect(),
            decisions: decisions.iter().map(decide).collect(),
        };
        let passes = check_decision(&clusters[0], proof).is_ok();
        prop_assert_eq!(passes, is_certificate(&votes, &decisions, 2));
    }

    #[test]
    fn random_bytes_are_no_proof(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let id = quorate_consensus::ClusterId([1; 32]);
        prop_assert!(verify(&bytes, &id, None, &FakeVerifier).is_err());
    }

    #[test]
    fn several_changes_at_once_never_pass(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let cluster = cluster();
        let id = cluster.rules().cluster_id();
        let good = certificate(&cluster, &tx("a")).encode_to_vec();
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let passes = verify(&bytes, &id, None, &FakeVerifier).is_ok();
        prop_assert_eq!(passes, bytes == good);
    }
}
