//! Violations, accusations, bans and reputations, and that they stay.

use std::sync::Arc;

use quorate_consensus::proof::{Fact, verify};
use quorate_consensus::wire::{AccusationKind, Accusations, Silence, ViolationType, ban_proof};
use quorate_testkit::{FakeVerifier, number, tx};

use super::projection::project;
use super::script::Script;
use super::{Builder, Place};
use crate::rows::{Filter, ProofKind};
use crate::store::AuditStore;

pub(super) async fn run_all(builder: &dyn Builder) {
    proven_violations_can_be_checked_by_a_stranger(&*builder.place().await).await;
    accusations_and_the_ban_they_make(&*builder.place().await).await;
    silence_is_counted(&*builder.place().await).await;
    violations_are_insert_only(&*builder.place().await).await;
    nothing_is_lost_by_a_restart(&*builder.place().await).await;
}

async fn open(place: &dyn Place, script: &Script) -> Arc<dyn AuditStore> {
    let rules = Arc::clone(script.cluster.rules());
    place.open(rules).await.expect("the store opens")
}

async fn proven_violations_can_be_checked_by_a_stranger(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let (a, kind) = (tx("a"), ViolationType::DoubleVoting);
    let lie = script.double_vote(4, &a);
    script.violation(4, &a, kind, Some(lie.clone()));
    let found_at = script.time();
    script.reputation(0, 510);
    script.banned(4, kind, ban_proof::Kind::Misbehaviour(lie));
    project(&*store, &script).await;

    let rows = store.violations(&Filter::tx(&a)).await.unwrap();
    assert_eq!(rows.len(), 1, "the ban is for the violation that was found");
    let row = &rows[0];
    assert_eq!(row.node_id, script.cluster.node_id(4));
    let member = script.cluster.rules().member(&row.node_id).unwrap();
    assert_eq!(row.peer_id, Some(member.peer_id));
    assert_eq!(
        (row.violation_type, row.proof_kind),
        (kind, ProofKind::Proven)
    );
    assert_eq!(row.detected_at_ms, found_at);
    assert_eq!(row.evidence["first"]["choice"], "1");
    assert_eq!(row.evidence["second"]["choice"], "2");
    let proof = hex::decode(row.evidence["proof"].as_str().unwrap()).unwrap();
    let cluster_id = script.cluster.rules().cluster_id();
    // The conviction itself is the consensus crate's; here the bytes must be a proof.
    match verify(&proof, &cluster_id, None, &FakeVerifier) {
        Ok(verified) => assert!(matches!(verified.fact, Fact::Lied(_))),
        Err(error) => panic!("the evidence does not verify: {error}"),
    }
    let members = store.reputations().await.unwrap();
    assert_eq!(members[0].thousandths, 510);
    assert_eq!((members[4].thousandths, members[4].banned), (0, true));
    assert_eq!(members[4].violations_count, 1);

    // The same member, caught in another ballot, and by a ban alone.
    let lie = script.double_vote(4, &tx("b"));
    script.banned(4, kind, ban_proof::Kind::Misbehaviour(lie));
    script.unbanned(4);
    project(&*store, &script).await;
    let rows = store.violations(&Filter::node(&row.node_id)).await.unwrap();
    let txs: Vec<_> = rows.iter().map(|row| row.tx_id.clone()).collect();
    assert_eq!(txs, [Some(a), Some(tx("b"))]);
    let members = store.reputations().await.unwrap();
    assert_eq!((members[4].violations_count, members[4].banned), (2, false));
    let bans = store.bans(Some(&rows[0].node_id)).await.unwrap();
    let lifted_at = Some(script.time());
    assert_eq!(bans.len(), 2);
    assert_eq!(bans[0].banned_at_ms, found_at + 2000);
    for ban in &bans {
        assert_eq!(
            (ban.violation_type, ban.proof_kind),
            (kind, ProofKind::Proven)
        );
        assert!(ban.proof.kind.is_some());
        assert_eq!(ban.lifted_at_ms, lifted_at);
    }
    let other = script.cluster.node_id(0);
    assert!(store.bans(Some(&other)).await.unwrap().is_empty());
    assert_eq!(store.bans(None).await.unwrap(), bans);
}

async fn accusations_and_the_ban_they_make(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let accusations: Vec<_> = (0..4).map(|by| script.accused(by, 4)).collect();
    let kind = ViolationType::InvalidSignature;
    let proof = Accusations {
        accusations: accusations.clone(),
    };
    script.banned(4, kind, ban_proof::Kind::Accusations(proof));
    project(&*store, &script).await;

    let accused = script.cluster.node_id(4);
    let rows = store.accusations(&Filter::node(&accused)).await.unwrap();
    assert_eq!(rows.len(), 4);
    for (by, row) in rows.iter().enumerate() {
        assert_eq!(
            (&row.accused, &row.by),
            (&accused, &script.cluster.node_id(by))
        );
        assert_eq!(row.kind, AccusationKind::InvalidSignature);
        assert_eq!((&row.accusation, &row.tx_id), (&accusations[by], &None));
    }
    let by = Filter::node(&script.cluster.node_id(0));
    assert!(store.accusations(&by).await.unwrap().is_empty());

    let rows = store.violations(&Filter::node(&accused)).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].violation_type, rows[0].proof_kind),
        (kind, ProofKind::Accused)
    );
    assert_eq!(rows[0].evidence["accusations"].as_array().unwrap().len(), 4);
    let proof = hex::decode(rows[0].evidence["proof"].as_str().unwrap()).unwrap();
    let cluster_id = script.cluster.rules().cluster_id();
    let verified = verify(&proof, &cluster_id, None, &FakeVerifier).expect("it verifies");
    assert!(matches!(verified.fact, Fact::Accused { node_id, .. } if node_id == accused));
}

async fn silence_is_counted(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    script.violation(3, &tx("a"), ViolationType::SilentFailure, None);
    script.violation(3, &tx("b"), ViolationType::SilentFailure, None);
    script.violation(3, &tx("b"), ViolationType::NonParticipation, None);
    script.banned(
        3,
        ViolationType::NonParticipation,
        ban_proof::Kind::Silence(Silence {}),
    );
    project(&*store, &script).await;
    let rows = store.violations(&Filter::default()).await.unwrap();
    assert!(rows.iter().all(|row| row.proof_kind == ProofKind::Counted));
    assert_eq!(
        store.violations(&Filter::tx(&tx("b"))).await.unwrap().len(),
        2
    );
    assert_eq!(rows.len(), 3, "a ban for silence is no further violation");
    assert_eq!(rows[0].evidence["counted"], "no vote at the deadline");
    let member = store.reputations().await.unwrap().swap_remove(3);
    assert_eq!((member.violations_count, member.banned), (3, true));
}

async fn violations_are_insert_only(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let lie = script.double_vote(4, &tx("a"));
    script.violation(4, &tx("a"), ViolationType::DoubleVoting, Some(lie));
    project(&*store, &script).await;
    let before = store.violations(&Filter::default()).await.unwrap();
    assert_eq!(before.len(), 1);
    for statement in [
        "UPDATE byzantine_violations SET node_id = 'node1'",
        "DELETE FROM byzantine_violations",
    ] {
        let refused = place.sql(statement).await;
        assert!(refused.is_err(), "{statement}");
    }
    assert_eq!(store.violations(&Filter::default()).await.unwrap(), before);
    place
        .sql("UPDATE node_reputation SET total_votes = 0")
        .await
        .expect("other tables are open to their owner");
}

async fn nothing_is_lost_by_a_restart(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let (a, value) = (tx("a"), number(u64::MAX));
    let reservation = script.reservation(&a, &value, u64::MAX);
    script
        .decided(&a, &value)
        .reserved(&a, &value, &reservation, false);
    script.accused(0, 1);
    project(&*store, &script).await;
    let row = store.submission(&a).await.unwrap();
    let votes = store.votes(&Filter::default()).await.unwrap();
    let members = store.reputations().await.unwrap();
    drop(store);

    let store = open(place, &script).await;
    assert_eq!(store.cursor().await.unwrap(), script.head());
    assert_eq!(store.submission(&a).await.unwrap(), row);
    assert_eq!(store.votes(&Filter::default()).await.unwrap(), votes);
    assert_eq!(store.reputations().await.unwrap(), members);
    script.vote(4, &a, value);
    project(&*store, &script).await;
    assert_eq!(store.votes(&Filter::tx(&a)).await.unwrap().len(), 5);
}
