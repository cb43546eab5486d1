//! Old rows go to the archive, and nothing is lost by it.

use std::sync::Arc;

use quorate_consensus::wire::{BallotState, ChainOutcome};
use quorate_testkit::{number, tx};

use super::projection::project;
use super::script::Script;
use super::tampering::check;
use super::{Builder, Place};
use crate::archive::{Archived, Horizon};
use crate::rows::{Filter, SubmissionState};
use crate::store::AuditStore;

pub(super) async fn run_all(builder: &dyn Builder) {
    only_what_is_old_and_over_is_archived(&*builder.place().await).await;
}

const DAY: u64 = 24 * 3_600_000;

async fn archive(store: &dyn AuditStore, now_ms: u64) -> Archived {
    let horizon = Horizon::at(now_ms);
    let expected = store.archivable(horizon).await.unwrap();
    let mut sum = Archived::default();
    loop {
        // Two transactions at a time.
        let some = store.archive(horizon, 2).await.unwrap();
        if some == Archived::default() {
            break;
        }
        assert!(some.submissions <= 2);
        sum.submissions += some.submissions;
        sum.votes += some.votes;
    }
    assert_eq!(sum, expected);
    assert_eq!(
        store.archivable(horizon).await.unwrap(),
        Archived::default()
    );
    sum
}

async fn only_what_is_old_and_over_is_archived(place: &dyn Place) {
    let mut script = Script::new();
    let rules = Arc::clone(script.cluster.rules());
    let store = place.open(rules).await.expect("the store opens");
    let value = number(1);
    for i in 0..5 {
        let tx_id = tx(&format!("t{i}"));
        let reservation = script.reservation(&tx_id, &value, 7 + i);
        script
            .decided(&tx_id, &value)
            .reserved(&tx_id, &value, &reservation, false);
        script.certified(&tx_id, &value, &reservation);
        // The last one waits for the chain.
        if i < 4 {
            script.concluded(&tx_id, ChainOutcome::Confirmed, i);
        }
    }
    script.vote(0, &tx("dead"), value.clone());
    let (from, to) = (BallotState::Collecting, BallotState::AbortedTimeout);
    script.moved(&tx("dead"), from, to, None);
    script.vote(0, &tx("open"), value.clone());
    project(&*store, &script).await;
    let before = store.submission(&tx("t0")).await.unwrap();

    let nothing = Archived::default();
    let first = store.submission(&tx("t0")).await.unwrap().expect("a row");
    let confirmed = first.confirmed_at_ms.expect("it is confirmed");
    assert_eq!(archive(&*store, confirmed + 30 * DAY).await, nothing);
    let one = Archived {
        submissions: 1,
        votes: 0,
    };
    assert_eq!(archive(&*store, confirmed + 30 * DAY + 1).await, one);
    assert_eq!(store.submission(&tx("t0")).await.unwrap(), before);
    let counts = store.submission_counts().await.unwrap();
    assert_eq!((counts.pending, counts.archived), (1, 1));
    let live = store.submissions(None, 100).await.unwrap();
    assert!(live.iter().all(|row| row.tx_id != tx("t0")));

    // Four ballots that ended confirmed, one aborted; one is PENDING, one is open.
    let rest = Archived {
        submissions: 3,
        votes: 4 * 4 + 1,
    };
    assert_eq!(archive(&*store, script.time() + 91 * DAY).await, rest);
    let votes = store.votes(&Filter::default()).await.unwrap();
    let open = votes.iter().filter(|vote| vote.tx_id == tx("open")).count();
    assert_eq!((votes.len(), open), (5, 1));
    let pending = Some(SubmissionState::Pending);
    assert_eq!(store.submissions(pending, 10).await.unwrap().len(), 1);
    let counts = store.submission_counts().await.unwrap();
    assert_eq!((counts.pending, counts.archived), (1, 4));
    let ended = store.final_state(&tx("t1")).await.unwrap();
    assert_eq!(ended, Some(BallotState::Confirmed));
    assert_eq!(store.final_states(None, 100).await.unwrap().len(), 5);
    // What was archived is whole.
    let count = "UPDATE node_reputation
                 SET total_votes = (SELECT count(*) FROM vote_history_archive)";
    place.sql(count).await.expect("counted");
    assert_eq!(store.reputations().await.unwrap()[0].total_votes, 17);
    let report = check(&*store, &script).await.expect("it can be told");
    assert_eq!(report.findings, []);

    // The chain undoes one: it is back, and concluded again.
    script.concluded(&tx("t1"), ChainOutcome::Undone, 1);
    script.concluded(&tx("t1"), ChainOutcome::Confirmed, 9);
    project(&*store, &script).await;
    let row = store.submission(&tx("t1")).await.unwrap().expect("a row");
    assert_eq!(row.block_number, Some(9));
    let report = check(&*store, &script).await.expect("it can be told");
    assert_eq!(report.findings, []);
}
