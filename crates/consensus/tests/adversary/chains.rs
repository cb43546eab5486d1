//! Chains of rules documents: who may change who may decide.

use std::sync::Arc;

use prost::Message;
use quorate_consensus::proof::{self, ProofError, Verified, rules_value, verify, verify_rules};
use quorate_consensus::wire::{self, DecisionProof, RulesChain};
use quorate_consensus::{ClusterId, Rules, TxId};
use quorate_testkit::{Cluster, FakeVerifier, Options, data, number, tx};

use crate::kit::*;

/// Four members, then six of whom five decide.
fn two() -> (Cluster, Cluster) {
    let first = cluster();
    let second = first.successor(6, 5, Options::default());
    (first, second)
}

fn check_chain(chain: &RulesChain, cluster: &Cluster) -> Result<Vec<Arc<Rules>>, ProofError> {
    verify_rules(chain, &cluster.rules().cluster_id(), &FakeVerifier)
}

/// The chain must be refused, by itself and around an otherwise good certificate.
fn refuse(chain: RulesChain, first: &Cluster, second: &Cluster) -> ProofError {
    let error = check_chain(&chain, first).expect_err("this chain must not pass");
    let proof = proof::certificate(chain, good_decision(second, &tx("a"), 1));
    assert_eq!(check(&proof, first), Err(error.clone()));
    error
}

#[test]
fn a_genesis_stands_by_itself() {
    let first = cluster();
    let rules = check_chain(&chain(&first), &first).unwrap();
    assert_eq!(rules, [first.rules().clone()]);
}

#[test]
fn three_epochs_and_a_certificate_under_each() {
    let (first, second) = two();
    let third = second.successor(3, 2, Options::default());
    let mut chain3 = two_epochs(&first, &second);
    chain3.links.push(wire::RulesLink {
        document: third.rules().document().to_vec(),
        justification: Some(justification(&second, third.rules())),
    });
    let all = check_chain(&chain3, &first).unwrap();
    let epochs: Vec<_> = all.iter().map(|rules| rules.epoch()).collect();
    assert_eq!(epochs, [1, 2, 3]);
    assert_eq!(all[2], *third.rules());
    let chains = [chain(&first), two_epochs(&first, &second), chain3];
    for (cluster, chain) in [&first, &second, &third].into_iter().zip(chains) {
        let proof = proof::certificate(chain, good_decision(cluster, &tx("a"), 5));
        let verified = check(&proof, &first).unwrap();
        assert_eq!(value_of(&verified), &number(5));
        assert_eq!(verified.rules, *cluster.rules());
    }
}

#[test]
fn statements_count_under_the_last_rules_only() {
    let (first, second) = two();
    let old = good_decision(&first, &tx("a"), 1);
    let new = good_decision(&second, &tx("a"), 1);
    let under = |chain, decision| check(&proof::certificate(chain, decision), &first);
    under(chain(&first), old.clone()).unwrap();
    under(two_epochs(&first, &second), new.clone()).unwrap();
    let why = refused(under(two_epochs(&first, &second), old.clone()));
    assert!(why.contains("where 5 are needed"), "{why}");
    refused(under(chain(&first), new.clone()));
    // And where t is the same in both epochs.
    let second = first.successor(4, 3, Options::default().outvote());
    let why = refused(under(two_epochs(&first, &second), old.clone()));
    assert!(why.contains("signed under rules"), "{why}");
    let mut half = good_decision(&second, &tx("a"), 1);
    half.votes = old.votes;
    refused(under(two_epochs(&first, &second), half));
}

#[test]
fn least_epoch() {
    let (first, second) = two();
    let id = first.rules().cluster_id();
    let old = certificate(&first, &tx("a")).encode_to_vec();
    let decision = good_decision(&second, &tx("a"), 1);
    let new = proof::certificate(two_epochs(&first, &second), decision).encode_to_vec();
    let check = |bytes: &[u8], least| verify(bytes, &id, least, &FakeVerifier);
    for least in [None, Some(0), Some(1)] {
        check(&old, least).unwrap();
        check(&new, least).unwrap();
    }
    check(&new, Some(2)).unwrap();
    let old_epoch = |found, least| Err(ProofError::OldEpoch { found, least });
    assert_eq!(check(&old, Some(2)), old_epoch(1, 2));
    assert_eq!(check(&new, Some(3)), old_epoch(2, 3));
    assert_eq!(check(&new, Some(u64::MAX)), old_epoch(2, u64::MAX));
}

#[test]
fn least_epoch_holds_for_every_kind() {
    let first = cluster();
    let id = first.rules().cluster_id();
    for proof in [
        certificate(&first, &tx("a")),
        abort_proof(&first, &tx("a")),
        double_vote(&first, &tx("a")),
        minority_vote(&first, &tx("a")),
        accusation_proof(&first),
    ] {
        let bytes = proof.encode_to_vec();
        let check = |least| verify(&bytes, &id, Some(least), &FakeVerifier);
        assert!(matches!(check(1), Ok(Verified { .. })));
        assert_eq!(check(2), Err(ProofError::OldEpoch { found: 1, least: 2 }));
    }
}

#[test]
fn an_empty_chain() {
    let first = cluster();
    check_chain(&RulesChain::default(), &first).unwrap_err();
}

#[test]
fn a_pinned_id_that_is_another() {
    let first = cluster();
    let error = verify_rules(&chain(&first), &ClusterId([0; 32]), &FakeVerifier).unwrap_err();
    assert!(matches!(error, ProofError::Rules { epoch: 1, .. }));
}

#[test]
fn a_genesis_with_a_justification() {
    let (first, second) = two();
    for justification in [
        DecisionProof::default(),
        justification(&first, first.rules()),
        justification(&first, second.rules()),
    ] {
        let mut chain = two_epochs(&first, &second);
        chain.links[0].justification = Some(justification);
        let error = refuse(chain, &first, &second);
        assert!(
            matches!(error, ProofError::Unjustified { epoch: 1, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_chain_that_starts_late_or_leaves_one_out() {
    let (first, second) = two();
    let third = second.successor(4, 3, Options::default());
    let mut chain = two_epochs(&first, &second);
    chain.links.remove(0);
    refuse(chain, &first, &second);
    // Epoch 3 straight after epoch 1, even if epoch 1 decided it.
    let chain = longer(
        &first,
        third.rules().document(),
        Some(justification(&first, third.rules())),
    );
    refuse(chain, &first, &third);
    let as_second = decision(
        &first,
        &TxId::rules(2, 1),
        &rules_value(third.rules().digest()),
        None,
    );
    let chain = longer(&first, third.rules().document(), Some(as_second));
    assert!(matches!(
        refuse(chain, &first, &third),
        ProofError::Rules { epoch: 2, .. }
    ));
}

#[test]
fn a_document_twice() {
    let (first, second) = two();
    let mut chain = two_epochs(&first, &second);
    chain.links.push(chain.links[1].clone());
    refuse(chain, &first, &second);
    let mut chain = two_epochs(&first, &second);
    chain.links.insert(0, chain.links[0].clone());
    refuse(chain, &first, &second);
}

/// Epoch 2 with this justification must be refused for the lack of a good one.
fn unjustified(justification: Option<DecisionProof>) -> String {
    let (first, second) = two();
    let chain = longer(&first, second.rules().document(), justification);
    match refuse(chain, &first, &second) {
        ProofError::Unjustified { epoch: 2, reason } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn no_justification() {
    assert!(unjustified(None).contains("missing"));
    unjustified(Some(DecisionProof::default()));
}

#[test]
fn a_justification_for_another_document() {
    let (first, second) = two();
    let other = first.successor(7, 5, Options::default());
    let why = unjustified(Some(justification(&first, other.rules())));
    assert!(why.contains("another document"), "{why}");
    let of_value = |value| Some(decision(&first, &TxId::rules(2, 1), &value, None));
    unjustified(of_value(number(2)));
    unjustified(of_value(data(&[0; 32])));
    unjustified(of_value(data(&second.rules().digest().0[..31])));
    let hex = second.rules().digest().to_string();
    unjustified(of_value(data(hex.as_bytes())));
}

#[test]
fn a_justification_by_another_transaction() {
    let (first, second) = two();
    let value = rules_value(second.rules().digest());
    for wrong in [
        "rules:1:1",
        "rules:3:1",
        "rules:2",
        "rules:2:",
        "rules:02:1",
        "rules:2:01",
        "rules:2:1:1",
        "rules:2:x",
    ] {
        unjustified(Some(decision(&first, &tx(wrong), &value, None)));
    }
    // A payment whose value happens to be a document's digest makes no rules.
    let paid = reservation(first.rules(), &tx("a"), &value, 7);
    let why = unjustified(Some(decision(&first, &tx("a"), &value, Some(&paid))));
    assert!(why.contains("no change of rules"), "{why}");
    unjustified(Some(decision(&first, &tx("a"), &value, None)));
    let tx_id = TxId::rules(2, 1);
    let paid = reservation(first.rules(), &tx_id, &value, 7);
    unjustified(Some(decision(&first, &tx_id, &value, Some(&paid))));
}

#[test]
fn any_try_will_do() {
    let (first, second) = two();
    let value = rules_value(second.rules().digest());
    for attempt in [0, 1, 10, u64::MAX] {
        let justified = decision(&first, &TxId::rules(2, attempt), &value, None);
        let chain = longer(&first, second.rules().document(), Some(justified));
        check_chain(&chain, &first).unwrap();
    }
}

#[test]
fn a_justification_signed_by_the_new_epoch() {
    let (first, second) = two();
    unjustified(Some(justification(&second, second.rules())));
    // Also where the numbers fit: same N, same t, same keys.
    let same = first.successor(4, 3, Options::default());
    let by_itself = justification(&same, same.rules());
    let chain = longer(&first, same.rules().document(), Some(by_itself));
    let error = refuse(chain, &first, &same).to_string();
    assert!(error.contains("signed under rules"), "{error}");
}

#[test]
fn a_justification_with_too_few_or_half_of_it() {
    let (first, second) = two();
    let good = || justification(&first, second.rules());
    let broken = |break_it: fn(&mut DecisionProof)| {
        let mut justification = good();
        break_it(&mut justification);
        unjustified(Some(justification))
    };
    broken(|j| drop(j.votes.pop()));
    broken(|j| drop(j.decisions.pop()));
    broken(|j| j.decisions.clear());
    broken(|j| j.votes.clear());
    broken(|j| j.votes.swap(0, 1));
    broken(|j| j.decisions[1] = j.decisions[0].clone());
    broken(|j| j.decisions[1].signature[0] ^= 1);
}

#[test]
fn self_made_rules_after_the_true_genesis() {
    let first = cluster();
    let mut own = own_document(&first, "mallory");
    own.epoch = 2;
    own.predecessor = first.rules().digest().0.to_vec();
    let own = own.encode_to_vec();
    let rules = first.rules().successor(&own, &FakeVerifier).unwrap();
    let tx_id = TxId::rules(2, 1);
    let value = rules_value(rules.digest());
    let payment = reservation(&rules, &tx("a"), &number(1), 7);
    let decision = own_decision(&rules, "mallory", &tx("a"), &number(1), Some(payment));
    let mut attempts = vec![
        None,
        Some(own_decision(&rules, "mallory", &tx_id, &value, None)),
    ];
    attempts.push(Some(own_decision(
        first.rules(),
        "mallory",
        &tx_id,
        &value,
        None,
    )));
    for justification in attempts {
        let chain = longer(&first, &own, justification);
        let proof = proof::certificate(chain, decision.clone());
        let error = check(&proof, &first).unwrap_err();
        assert!(
            matches!(error, ProofError::Unjustified { epoch: 2, .. }),
            "{error}"
        );
    }
    // The same document passes once the members decided it.
    let chain = longer(&first, &own, Some(justification(&first, &rules)));
    check(&proof::certificate(chain, decision), &first).unwrap();
}

#[test]
fn a_document_that_was_decided_and_is_no_good() {
    let (first, second) = two();
    let decided = |change: fn(&mut wire::RulesDocument)| {
        let mut document = document(&second);
        change(&mut document);
        let document = document.encode_to_vec();
        let value = rules_value(quorate_consensus::rules::digest_of(&document));
        let justified = decision(&first, &TxId::rules(2, 1), &value, None);
        match refuse(longer(&first, &document, Some(justified)), &first, &second) {
            ProofError::Rules { epoch: 2, error } => error.to_string(),
            other => panic!("{other}"),
        }
    };
    assert!(decided(|d| d.threshold = 0).contains("threshold"));
    assert!(decided(|d| d.epoch = 3).contains("epoch"));
    assert!(decided(|d| d.epoch = 1).contains("predecessor"));
    assert!(decided(|d| d.predecessor = vec![0; 32]).contains("predecessor"));
    assert!(decided(|d| d.cluster_name = "other".into()).contains("cluster"));
}

#[test]
fn a_chain_longer_than_needed_changes_the_rules() {
    // Old statements with a longer chain, so as to pass the least epoch.
    let (first, second) = two();
    let old = good_decision(&first, &tx("a"), 1);
    let proof = proof::certificate(two_epochs(&first, &second), old).encode_to_vec();
    let id = first.rules().cluster_id();
    verify(&proof, &id, Some(2), &FakeVerifier).unwrap_err();
}
