//! What the projection writes, and that it writes it once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::proof::{Fact, verify};
use quorate_consensus::wire::{BallotState, ChainOutcome};
use quorate_consensus::{Choice, TxId, Value};
use quorate_testkit::{Cluster, FakeVerifier, NOW, Options, data, number, tx};

use super::script::Script;
use super::{Builder, Place};
use crate::mark::Mark;
use crate::rows::{Filter, SubmissionState};
use crate::store::{AuditError, AuditStore};

pub(super) async fn run_all(builder: &dyn Builder) {
    a_new_store_knows_the_members(&*builder.place().await).await;
    another_cluster_is_refused(&*builder.place().await).await;
    votes_are_kept_as_they_were_signed(&*builder.place().await).await;
    every_number_survives(&*builder.place().await).await;
    a_ballot_is_followed_to_its_confirmation(&*builder.place().await).await;
    aborted_ballots_have_a_row(&*builder.place().await).await;
    an_undone_submission_is_pending_again(&*builder.place().await).await;
    a_change_of_rules_has_no_submission(&*builder.place().await).await;
    struck_votes_take_the_decision_back(&*builder.place().await).await;
    a_ballot_that_expired_may_open_again(&*builder.place().await).await;
    the_cursor_is_compared(&*builder.place().await).await;
    a_contradiction_writes_nothing(&*builder.place().await).await;
    two_projectors_do_no_harm(&*builder.place().await).await;
    one_at_a_time_has_the_lease(&*builder.place().await).await;
}

async fn open(place: &dyn Place, script: &Script) -> Arc<dyn AuditStore> {
    let rules = Arc::clone(script.cluster.rules());
    place.open(rules).await.expect("the store opens")
}

/// Projects what the store does not have yet.
pub(super) async fn project(store: &dyn AuditStore, script: &Script) {
    let from = store.cursor().await.expect("a cursor");
    let reached = store.project(script.mark(from), script.after(from)).await;
    assert_eq!(reached.expect("projected"), script.head());
}

async fn a_new_store_knows_the_members(place: &dyn Place) {
    let script = Script::new();
    let store = open(place, &script).await;
    assert_eq!(store.cursor().await.unwrap(), 0);
    let members = store.reputations().await.unwrap();
    assert_eq!(members.len(), 5);
    for (row, member) in members.iter().zip(script.cluster.rules().members()) {
        assert_eq!(
            (&row.node_id, row.peer_id),
            (&member.node_id, member.peer_id)
        );
        assert_eq!((row.thousandths, row.total_votes), (1000, 0));
        assert_eq!((row.violations_count, row.banned), (0, false));
        assert_eq!(row.last_seen_ms, None);
    }
    assert_eq!(store.submission(&tx("a")).await.unwrap(), None);
    assert_eq!(store.decision(&tx("a")).await.unwrap(), None);
    assert_eq!(store.final_state(&tx("a")).await.unwrap(), None);
    assert_eq!(store.project(Mark::at(0), &[]).await.unwrap(), 0);
}

async fn another_cluster_is_refused(place: &dyn Place) {
    let script = Script::new();
    drop(open(place, &script).await);
    let options = Options {
        name: "other".into(),
        ..Options::default()
    };
    let other = Cluster::with(5, 4, options);
    let refused = place.open(Arc::clone(other.rules())).await.err();
    assert!(
        matches!(&refused, Some(AuditError::OtherCluster { found, own })
            if *found == script.cluster.rules().cluster_id().to_string()
                && *own == other.rules().cluster_id()),
        "{refused:?}"
    );
    open(place, &script).await;
}

async fn votes_are_kept_as_they_were_signed(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let choices = [
        Choice::from(number(1)),
        Choice::from(data(b"1")),
        Choice::Abstention,
    ];
    for (i, choice) in choices.iter().enumerate() {
        script.vote(i, &tx("a"), choice.clone());
    }
    script.vote(0, &tx("b"), number(2)).booted(4);
    project(&*store, &script).await;

    let votes = store.votes(&Filter::tx(&tx("a"))).await.unwrap();
    assert_eq!(votes.len(), 3);
    for (i, row) in votes.iter().enumerate() {
        let member = script.cluster.rules().member(&row.node_id).unwrap();
        assert_eq!(row.node_id, script.cluster.node_id(i));
        assert_eq!(row.choice, choices[i]);
        assert_eq!(row.peer_id, Some(member.peer_id));
        assert_eq!(row.public_key.as_deref(), Some(&*member.vote_key.bytes));
        assert_eq!(row.received_at_ms, NOW + 1000 * (i as u64 + 1));
        let signed_at = NOW + 1000 * i as u64;
        let vote = script
            .cluster
            .vote(i, &tx("a"), choices[i].clone(), signed_at);
        assert_eq!(row.vote, vote);
        assert!(!row.late);
    }
    let of_first = Filter::node(&script.cluster.node_id(0));
    let votes = store.votes(&of_first).await.unwrap();
    assert_eq!(
        votes.iter().map(|row| &row.tx_id).collect::<Vec<_>>(),
        [&tx("a"), &tx("b")]
    );
    let last = Filter {
        limit: Some(1),
        ..of_first
    };
    let votes = store.votes(&last).await.unwrap();
    assert_eq!(votes.len(), 1);
    assert_eq!(votes[0].tx_id, tx("b"));

    let rows = store.reputations().await.unwrap();
    let counts: Vec<_> = rows.iter().map(|row| row.total_votes).collect();
    assert_eq!(counts, [2, 1, 1, 0, 0]);
    assert_eq!(rows[0].last_seen_ms, Some(NOW + 4000));
    assert_eq!(rows[3].last_seen_ms, None);
    assert_eq!(rows[4].last_seen_ms, Some(NOW + 5000));
}

async fn every_number_survives(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let edge = i64::MAX as u64;
    let numbers = [
        0,
        1,
        1 << 53,
        (1 << 53) + 1,
        edge,
        edge + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    for (i, found) in numbers.into_iter().enumerate() {
        let (tx_id, value) = (tx(&format!("n{i}")), number(found));
        let reservation = script.reservation(&tx_id, &value, found);
        script.decided(&tx_id, &value);
        script.reserved(&tx_id, &value, &reservation, false);
        script.concluded(&tx_id, ChainOutcome::Confirmed, found);
    }
    let bytes = data(&[0, 255, 0, 1]);
    let long = data(&[0xff; 1024]);
    for (tx_id, value) in [(tx("bytes"), &bytes), (tx("long"), &long)] {
        script.decided(&tx_id, value);
    }
    project(&*store, &script).await;
    for (i, found) in numbers.into_iter().enumerate() {
        let tx_id = tx(&format!("n{i}"));
        let row = store.submission(&tx_id).await.unwrap().expect("a row");
        assert_eq!(row.value, Some(number(found)));
        assert_eq!((row.nonce, row.block_number), (Some(found), Some(found)));
        let votes = store.votes(&Filter::tx(&tx_id)).await.unwrap();
        assert!(votes.iter().all(|vote| vote.choice == number(found).into()));
        let decision = store.decision(&tx_id).await.unwrap().expect("a row");
        assert_eq!(decision.value, Some(number(found)));
    }
    for (tx_id, value) in [(tx("bytes"), &bytes), (tx("long"), &long)] {
        let decision = store.decision(&tx_id).await.unwrap().expect("a row");
        assert_eq!(decision.value.as_ref(), Some(value));
        let votes = store.votes(&Filter::tx(&tx_id)).await.unwrap();
        assert!(votes.iter().all(|vote| vote.choice.value() == Some(value)));
    }
}

async fn a_ballot_is_followed_to_its_confirmation(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let (a, value) = (tx("a"), number(42));
    let reservation = script.reservation(&a, &value, 7);

    script.decided(&a, &value);
    project(&*store, &script).await;
    assert_eq!(store.submission(&a).await.unwrap(), None);
    let decision = store.decision(&a).await.unwrap().expect("a decision");
    assert_eq!(decision.value, Some(value.clone()));
    assert_eq!(
        (decision.total_votes, decision.threshold_reached),
        (4, true)
    );
    assert_eq!(decision.certificate, None);

    script.vote(4, &a, Choice::Abstention);
    script.reserved(&a, &value, &reservation, false);
    project(&*store, &script).await;
    let row = store.submission(&a).await.unwrap().expect("a row");
    let reserved_at = script.time();
    assert_eq!(row.state, SubmissionState::Pending);
    assert_eq!(row.account.as_ref(), Some(&reservation.account));
    assert_eq!(row.nonce, Some(7));
    assert_eq!(row.payload.as_ref(), Some(&reservation.payload));
    assert_eq!((row.attempts, row.submitted_at_ms), (0, reserved_at));
    assert_eq!(
        (row.tx_hash, row.block_number, row.confirmed_at_ms),
        (None, None, None)
    );
    assert_eq!(store.final_state(&a).await.unwrap(), None);
    let pending = Some(SubmissionState::Pending);
    assert_eq!(store.submissions(pending, 10).await.unwrap().len(), 1);

    script.certified(&a, &value, &reservation);
    script.concluded(&a, ChainOutcome::Confirmed, 99);
    project(&*store, &script).await;
    let row = store.submission(&a).await.unwrap().expect("a row");
    assert_eq!(row.state, SubmissionState::Confirmed);
    assert_eq!(row.tx_hash, Some(vec![0xcc; 32]));
    assert_eq!(row.block_number, Some(99));
    assert_eq!(row.submitted_at_ms, reserved_at);
    assert_eq!(row.confirmed_at_ms, Some(script.time()));
    let ended = store.final_state(&a).await.unwrap();
    assert_eq!(ended, Some(BallotState::Confirmed));
    assert!(store.submissions(pending, 10).await.unwrap().is_empty());

    let decision = store.decision(&a).await.unwrap().expect("a decision");
    let majority: Vec<_> = (0..4).map(|i| script.cluster.node_id(i)).collect();
    assert_eq!(decision.participating_nodes, majority);
    assert_eq!(decision.total_votes, 5);
    let proof = decision.certificate.expect("a certificate");
    let cluster_id = script.cluster.rules().cluster_id();
    let verified = verify(&proof, &cluster_id, None, &FakeVerifier).expect("it verifies");
    let Fact::Decided {
        tx_id,
        value: decided,
        reservation: found,
        ..
    } = verified.fact
    else {
        panic!("not a certificate: {:?}", verified.fact);
    };
    assert_eq!((tx_id, decided, found), (a, value, Some(reservation)));
}

async fn aborted_ballots_have_a_row(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let ends = [
        ("byzantine", BallotState::AbortedByzantine, Some(number(1))),
        ("split", BallotState::AbortedSplit, None),
        ("timeout", BallotState::AbortedTimeout, None),
    ];
    for (name, end, value) in &ends {
        script
            .vote(1, &tx(name), number(1))
            .vote(0, &tx(name), number(2));
        script.moved(&tx(name), BallotState::Collecting, *end, value.as_ref());
    }
    project(&*store, &script).await;
    for (name, end, value) in &ends {
        let row = store.submission(&tx(name)).await.unwrap().expect("a row");
        assert_eq!(Some(row.state), SubmissionState::of(*end));
        assert_eq!(row.value, *value);
        assert_eq!((row.account, row.nonce, row.payload), (None, None, None));
        assert_eq!(store.final_state(&tx(name)).await.unwrap(), Some(*end));
        let decision = store.decision(&tx(name)).await.unwrap().expect("a row");
        assert_eq!(decision.threshold_reached, value.is_some());
        assert_eq!(decision.total_votes, 2);
        let participants = decision.participating_nodes;
        let (first, second) = (script.cluster.node_id(0), script.cluster.node_id(1));
        match value {
            Some(_) => assert_eq!(participants, [second]),
            None => assert_eq!(participants, [first, second]),
        }
    }
    let latest = store.submissions(None, 2).await.unwrap();
    let names: Vec<_> = latest.iter().map(|row| row.tx_id.as_str()).collect();
    assert_eq!(names, ["timeout", "split"]);
    let split = Some(SubmissionState::AbortedSplit);
    assert_eq!(store.submissions(split, 10).await.unwrap().len(), 1);
    all_final_states(&*store, &["byzantine", "split", "timeout"]).await;
}

/// Reads them two at a time, as a node that lost its journal does.
async fn all_final_states(store: &dyn AuditStore, expected: &[&str]) {
    let mut names = Vec::new();
    let mut after: Option<TxId> = None;
    loop {
        let page = store.final_states(after.as_ref(), 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        names.extend(page.into_iter().map(|(tx_id, _)| tx_id.to_string()));
    }
    assert_eq!(names, expected);
}

async fn an_undone_submission_is_pending_again(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let (a, value) = (tx("a"), number(1));
    let reservation = script.reservation(&a, &value, 7);
    script
        .decided(&a, &value)
        .reserved(&a, &value, &reservation, false);
    script.concluded(&a, ChainOutcome::Confirmed, 5);
    script.concluded(&a, ChainOutcome::Undone, 5);
    project(&*store, &script).await;
    let row = store.submission(&a).await.unwrap().expect("a row");
    assert_eq!(row.state, SubmissionState::Pending);
    assert_eq!(
        (row.nonce, row.block_number, row.confirmed_at_ms),
        (Some(7), None, None)
    );
    assert_eq!(store.final_state(&a).await.unwrap(), None);

    script.concluded(&a, ChainOutcome::Reverted, 6);
    project(&*store, &script).await;
    let row = store.submission(&a).await.unwrap().expect("a row");
    assert_eq!(
        (row.state, row.block_number),
        (SubmissionState::Failed, Some(6))
    );
    assert_eq!(row.confirmed_at_ms, None);
    let ended = store.final_state(&a).await.unwrap();
    assert_eq!(ended, Some(BallotState::Failed));
}

async fn a_change_of_rules_has_no_submission(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let (rules, digest) = (tx("rules:2:1"), data(&[7; 32]));
    script.decided(&rules, &digest);
    let (from, to) = (BallotState::ThresholdReached, BallotState::Confirmed);
    script.moved(&rules, from, to, Some(&digest));
    project(&*store, &script).await;
    assert_eq!(store.submission(&rules).await.unwrap(), None);
    let ended = store.final_state(&rules).await.unwrap();
    assert_eq!(ended, Some(BallotState::Confirmed));
}

async fn struck_votes_take_the_decision_back(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let a = tx("a");
    script.decided(&a, &number(1));
    let (from, to) = (BallotState::ThresholdReached, BallotState::Collecting);
    script.moved(&a, from, to, None);
    project(&*store, &script).await;
    assert_eq!(store.decision(&a).await.unwrap(), None);
    assert_eq!(store.final_state(&a).await.unwrap(), None);
}

async fn a_ballot_that_expired_may_open_again(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let a = tx("a");
    script
        .vote(0, &a, number(1))
        .expired(&a)
        .vote(0, &a, number(1));
    project(&*store, &script).await;
    let votes = store.votes(&Filter::tx(&a)).await.unwrap();
    assert_eq!(votes.len(), 1);
    assert_eq!(votes[0].received_at_ms, script.time());
    // Of an open ballot the first vote stays.
    script.vote(0, &a, number(2));
    project(&*store, &script).await;
    let again = store.votes(&Filter::tx(&a)).await.unwrap();
    assert_eq!(again, votes);
    assert_eq!(store.reputations().await.unwrap()[0].total_votes, 2);
}

async fn the_cursor_is_compared(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let other = open(place, &script).await;
    script
        .vote(0, &tx("a"), number(1))
        .vote(1, &tx("a"), number(1));
    script.vote(2, &tx("a"), number(1));
    assert_eq!(
        store
            .project(Mark::at(0), &script.entries[..2])
            .await
            .unwrap(),
        2
    );
    let before = store.reputations().await.unwrap();

    for handle in [&store, &other] {
        for from in [0, 1, 3, u64::MAX] {
            let entries: &[_] = if from <= 3 { script.after(from) } else { &[] };
            let refused = handle.project(Mark::at(from), entries).await;
            assert!(
                matches!(refused, Err(AuditError::CursorMoved { found: 2 })),
                "{from}: {refused:?}"
            );
        }
        let gap = handle.project(Mark::at(2), &script.entries[..1]).await;
        assert!(matches!(
            gap,
            Err(AuditError::Gap {
                revision: 2,
                found: 1
            })
        ));
    }
    assert_eq!(store.cursor().await.unwrap(), 2);
    assert_eq!(store.reputations().await.unwrap(), before);
    assert_eq!(
        other.project(Mark::at(2), script.after(2)).await.unwrap(),
        3
    );
    assert_eq!(store.cursor().await.unwrap(), 3);
    assert_eq!(store.votes(&Filter::default()).await.unwrap().len(), 3);
}

async fn a_contradiction_writes_nothing(place: &dyn Place) {
    let mut script = Script::new();
    let store = open(place, &script).await;
    let a = tx("a");
    script.vote(0, &a, number(1));
    let (from, to) = (BallotState::Collecting, BallotState::AbortedSplit);
    script.moved(&a, from, to, None);
    script.concluded(&a, ChainOutcome::Confirmed, 1);
    let refused = store.project(Mark::at(0), &script.entries).await;
    assert!(
        matches!(refused, Err(AuditError::Contradiction(_))),
        "{refused:?}"
    );
    assert_eq!(store.cursor().await.unwrap(), 0);
    assert!(store.votes(&Filter::default()).await.unwrap().is_empty());
    assert_eq!(store.final_state(&a).await.unwrap(), None);
    assert_eq!(
        store
            .project(Mark::at(0), &script.entries[..2])
            .await
            .unwrap(),
        2
    );
}

/// Two handles project one log, each in chunks of its own size, each going on from
/// where the other one got to; every row is there once.
async fn two_projectors_do_no_harm(place: &dyn Place) {
    let mut script = Script::new();
    let ballots = 30;
    for ballot in 0..ballots {
        let a = tx(&format!("t{ballot:02}"));
        let value = Value::Number(ballot);
        let reservation = script.reservation(&a, &value, 7 + ballot);
        script
            .decided(&a, &value)
            .reserved(&a, &value, &reservation, false);
        script.concluded(&a, ChainOutcome::Confirmed, ballot);
        let lie = script.double_vote(4, &a);
        let kind = quorate_consensus::wire::ViolationType::DoubleVoting;
        script.violation(4, &a, kind, Some(lie));
    }
    let script = Arc::new(script);
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let tasks = [1, 7].map(|size| {
        let (script, both) = (Arc::clone(&script), Arc::clone(&both));
        async move {
            let store = open(place, &script).await;
            let mut at = store.cursor().await.unwrap();
            both.wait().await;
            let (mut written, mut moved) = (0, 0);
            while at < script.head() {
                let rest = script.after(at);
                match store
                    .project(Mark::at(at), &rest[..size.min(rest.len())])
                    .await
                {
                    Ok(reached) => {
                        written += reached - at;
                        at = reached;
                    }
                    Err(AuditError::CursorMoved { found }) => {
                        assert!(found > at, "the cursor never runs backwards");
                        moved += 1;
                        at = found;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            (written, moved)
        }
    });
    let [one, other] = tasks;
    let (one, other) = tokio::join!(one, other);
    assert_eq!(
        one.0 + other.0,
        script.head(),
        "each entry was written once"
    );
    assert!(one.1 + other.1 > 0, "they were in each other's way");

    let store = open(place, &script).await;
    assert_eq!(store.cursor().await.unwrap(), script.head());
    let votes = store.votes(&Filter::default()).await.unwrap();
    assert_eq!(votes.len() as u64, 4 * ballots);
    let keys: BTreeSet<_> = votes.iter().map(|v| (&v.tx_id, &v.node_id)).collect();
    assert_eq!(keys.len(), votes.len());
    let violations = store.violations(&Filter::default()).await.unwrap();
    assert_eq!(violations.len() as u64, ballots);
    let members = store.reputations().await.unwrap();
    assert_eq!(members[0].total_votes, ballots);
    assert_eq!(members[4].violations_count, ballots);
    let confirmed = Some(SubmissionState::Confirmed);
    let rows = store.submissions(confirmed, 1000).await.unwrap();
    assert_eq!(rows.len() as u64, ballots);
}

async fn one_at_a_time_has_the_lease(place: &dyn Place) {
    let script = Script::new();
    let (store, other) = (open(place, &script).await, open(place, &script).await);
    let (a, b) = (script.cluster.node_id(0), script.cluster.node_id(1));
    let (long, short) = (Duration::from_secs(600), Duration::from_millis(50));
    assert!(store.lease(&a, long).await.unwrap());
    assert!(!other.lease(&b, long).await.unwrap(), "it is taken");
    assert!(other.lease(&a, short).await.unwrap(), "its holder's own");
    // It ends by itself.
    while !store.lease(&b, long).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!store.lease(&a, long).await.unwrap());
}
