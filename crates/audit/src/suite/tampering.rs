//! Rows that somebody edited, removed or put in are found.

use std::sync::Arc;

use quorate_consensus::wire::{BallotState, ChainOutcome, ViolationType};
use quorate_engine::{AuditAnswer, AuditAsk};
use quorate_testkit::{number, tx};

use super::projection::project;
use super::script::Script;
use super::{Builder, Place};
use crate::lineage::Lineage;
use crate::rows::Filter;
use crate::seal::Head;
use crate::store::AuditStore;
use crate::verify::{FindingKind, Report, VerifyError, verify};

pub(super) async fn run_all(builder: &dyn Builder) {
    an_honest_store_is_found_honest(&*builder.place().await).await;
    every_tampering_is_found(builder).await;
    a_log_that_is_too_short_is_told(&*builder.place().await).await;
}

pub(super) async fn check(store: &dyn AuditStore, script: &Script) -> Result<Report, VerifyError> {
    let lineage = Lineage::from(Arc::clone(script.cluster.rules()));
    verify(store, &lineage, async |after| {
        let rest = script.after(after);
        Ok(rest[..rest.len().min(7)].to_vec())
    })
    .await
}

/// A store with a bit of everything.
async fn filled(place: &dyn Place) -> (Script, Arc<dyn AuditStore>) {
    let mut script = Script::new();
    let rules = Arc::clone(script.cluster.rules());
    let store = place.open(rules).await.expect("the store opens");
    for i in 0..3 {
        let (tx_id, value) = (tx(&format!("t{i}")), number(i));
        let reservation = script.reservation(&tx_id, &value, 7 + i);
        script
            .decided(&tx_id, &value)
            .reserved(&tx_id, &value, &reservation, false);
        script.certified(&tx_id, &value, &reservation);
        if i < 2 {
            script.concluded(&tx_id, ChainOutcome::Confirmed, i);
        }
        let lie = script.double_vote(4, &tx_id);
        script.violation(4, &tx_id, ViolationType::DoubleVoting, Some(lie));
        project(&*store, &script).await;
    }
    script.vote(0, &tx("dead"), number(1));
    let (from, to) = (BallotState::Collecting, BallotState::AbortedTimeout);
    script.moved(&tx("dead"), from, to, None);
    script.violation(3, &tx("dead"), ViolationType::SilentFailure, None);
    script.vote(0, &tx("open"), number(1));
    project(&*store, &script).await;
    (script, store)
}

async fn an_honest_store_is_found_honest(place: &dyn Place) {
    let (mut script, store) = filled(place).await;
    let report = check(&*store, &script).await.expect("it can be told");
    assert_eq!(report.findings, []);
    assert_eq!((report.violations, report.transactions), (4, 4));
    assert_eq!(
        (report.revision, report.head),
        (script.head(), script.head())
    );
    let head = store.head().await.unwrap();
    let rows = store.violations(&Filter::default()).await.unwrap();
    let last = Head {
        id: 4,
        hash: rows[3].hash,
    };
    assert_eq!(head, last);

    // An engine is ahead of the projection; and what it writes is not the log's.
    let (early, value) = (tx("early"), number(9));
    let reservation = script.reservation(&early, &value, 99);
    let ask = AuditAsk::Pending {
        tx_id: early.clone(),
        value: value.clone(),
        reservation: reservation.clone(),
    };
    assert_eq!(store.ask(ask).await, AuditAnswer::Done);
    let ask = AuditAsk::Attempted {
        tx_id: tx("t2"),
        attempts: 3,
    };
    assert_eq!(store.ask(ask).await, AuditAnswer::Done);
    let report = check(&*store, &script).await.expect("it can be told");
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].kind, FindingKind::Inserted);
    script
        .decided(&early, &value)
        .reserved(&early, &value, &reservation, false);
    let report = check(&*store, &script).await.expect("it can be told");
    assert_eq!(report.findings, []);
    assert!(report.revision < report.head, "it is not projected yet");
    assert_eq!(report.head, script.head());
    project(&*store, &script).await;
    let report = check(&*store, &script).await.expect("it can be told");
    assert_eq!(report.findings, []);
}

async fn every_tampering_is_found(builder: &dyn Builder) {
    use FindingKind::{Edited, Inserted, Removed};

    let violations = "byzantine_violations";
    let copy = "INSERT INTO byzantine_violations (id, node_id, tx_id, violation_type, proof_kind,
                    evidence_json, detected_at, hash)
                SELECT 5, node_id, 'x', violation_type, proof_kind, evidence_json, detected_at,
                    hash FROM byzantine_violations WHERE id = 4";
    let cases = [
        (
            "UPDATE byzantine_violations SET node_id = 'node1' WHERE id = 2",
            &[(Edited, violations, "2")][..],
        ),
        (
            "UPDATE byzantine_violations SET evidence_json = '{}' WHERE id = 4",
            &[(Edited, violations, "4")],
        ),
        // What only the seals show.
        (
            "UPDATE byzantine_violations SET peer_id = NULL WHERE id = 2",
            &[(Edited, violations, "2")],
        ),
        (
            "UPDATE byzantine_violations SET hash = (SELECT violations_hash FROM audit_cursor)
             WHERE id = 2",
            &[(Edited, violations, "2"), (Edited, violations, "3")],
        ),
        (
            "UPDATE audit_cursor SET violations_hash = cluster_id",
            &[(Edited, violations, "4")],
        ),
        (
            "DELETE FROM byzantine_violations WHERE id = 2",
            &[(Removed, violations, "2")],
        ),
        (
            "DELETE FROM byzantine_violations WHERE id = 4",
            &[(Removed, violations, "4")],
        ),
        (
            "DELETE FROM byzantine_violations",
            &[
                (Removed, violations, "1"),
                (Removed, violations, "2"),
                (Removed, violations, "3"),
                (Removed, violations, "4"),
            ],
        ),
        (
            copy,
            &[(Edited, violations, "5"), (Inserted, violations, "5")],
        ),
        (
            "UPDATE decisions SET total_votes = 5 WHERE tx_id = 't0'",
            &[(Edited, "decisions", "t0")],
        ),
        (
            "UPDATE decisions SET certificate = NULL WHERE tx_id = 't1'",
            &[(Edited, "decisions", "t1")],
        ),
        (
            "DELETE FROM decisions WHERE tx_id = 'dead'",
            &[(Removed, "decisions", "dead")],
        ),
        (
            "UPDATE blockchain_submissions SET account = 'thief' WHERE tx_id = 't2'",
            &[(Edited, "blockchain_submissions", "t2")],
        ),
        (
            "UPDATE blockchain_submissions SET tx_hash = NULL WHERE tx_id = 't0'",
            &[(Edited, "blockchain_submissions", "t0")],
        ),
        (
            "DELETE FROM blockchain_submissions WHERE tx_id = 't1'",
            &[(Removed, "blockchain_submissions", "t1")],
        ),
        (
            "INSERT INTO blockchain_submissions (tx_id, state, submitted_at)
             SELECT 'x', state, submitted_at FROM blockchain_submissions WHERE tx_id = 'dead'",
            &[(Inserted, "blockchain_submissions", "x")],
        ),
        (
            "UPDATE submission_keys SET final_state = 'FAILED' WHERE tx_id = 't0'",
            &[(Edited, "submission_keys", "t0")],
        ),
        (
            "DELETE FROM submission_keys WHERE tx_id = 'dead'",
            &[(Removed, "submission_keys", "dead")],
        ),
        (
            "INSERT INTO submission_keys SELECT 'x', final_state, at FROM submission_keys
             WHERE tx_id = 't0'",
            &[(Inserted, "submission_keys", "x")],
        ),
    ];
    for (statement, expected) in cases {
        let place = builder.place().await;
        let (script, store) = filled(&*place).await;
        place.unlock().await;
        place.sql(statement).await.expect(statement);
        let report = check(&*store, &script).await.expect(statement);
        let found: Vec<_> = report
            .findings
            .iter()
            .map(|finding| (finding.kind, finding.table, finding.row.as_str()))
            .collect();
        assert_eq!(found, expected, "{statement}: {:?}", report.findings);
    }
}

async fn a_log_that_is_too_short_is_told(place: &dyn Place) {
    let (mut script, store) = filled(place).await;
    let cursor = script.head();
    script.entries.pop();
    let told = check(&*store, &script).await;
    let Err(VerifyError::LogEnds { cursor: at, head }) = told else {
        panic!("{told:?}");
    };
    assert_eq!((at, head), (cursor, cursor - 1));
}
