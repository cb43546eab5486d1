//! Tests that stop and kill the server while somebody projects and somebody asks: in
//! the end everything is there, and once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::Value;
use quorate_consensus::wire::ChainOutcome;
use quorate_engine::{AuditAnswer, AuditAsk, Prepared};
use quorate_testkit::servers::{Durability, Postgres};
use quorate_testkit::tx;
use tokio::sync::watch;

use super::{BreakerState, Options, PostgresAudit};
use crate::mark::Mark;
use crate::rows::{Filter, SubmissionState};
use crate::store::{AuditError, AuditStore};
use crate::suite::script::Script;

/// Ballots in the log, and submissions asked for beside it.
const BALLOTS: u64 = 60;

/// What a call may take: the limit of one, and some room for a slow machine.
const BOUND: Duration = Duration::from_secs(20);

/// The longest that any call took.
#[derive(Default)]
struct Longest(Duration);

impl Longest {
    async fn of<T>(&mut self, call: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let done = call.await;
        self.0 = self.0.max(begun.elapsed());
        done
    }
}

/// Between two tries of somebody who found the store away.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Projects the whole log as a node does, a few entries at a time.
async fn project_all(store: PostgresAudit, script: Arc<Script>, at: watch::Sender<u64>) -> Longest {
    let mut longest = Longest::default();
    let mut cursor = None;
    while cursor != Some(script.head()) {
        let step = async {
            let from = match cursor {
                Some(from) => from,
                None => store.cursor().await?,
            };
            let rest = script.after(from);
            store
                .project(Mark::at(from), &rest[..rest.len().min(3)])
                .await
        };
        match longest.of(step).await {
            Ok(reached) => {
                cursor = Some(reached);
                at.send_replace(reached);
            }
            Err(AuditError::CursorMoved { found }) => cursor = Some(found),
            Err(AuditError::Unavailable(_)) => {
                cursor = None;
                a_moment().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    longest
}

/// Asks as engines do, each question until it is answered.
async fn ask_all(store: PostgresAudit, script: Arc<Script>, at: watch::Sender<u64>) -> Longest {
    let mut longest = Longest::default();
    for number in 0..BALLOTS {
        let (tx_id, value) = (tx(&format!("asked{number}")), Value::Number(number));
        let reservation = script.reservation(&tx_id, &value, 1000 + number);
        let prepared = Prepared {
            tx_hash: number.to_be_bytes().to_vec(),
            raw: vec![7; 100],
        };
        for ask in [
            AuditAsk::Pending {
                tx_id: tx_id.clone(),
                value,
                reservation,
            },
            AuditAsk::Variant {
                tx_id: tx_id.clone(),
                nonce: 1000 + number,
                attempt: 0,
                prepared,
            },
            AuditAsk::Attempted { tx_id, attempts: 1 },
        ] {
            loop {
                match longest.of(store.ask(ask.clone())).await {
                    AuditAnswer::Done => break,
                    AuditAnswer::Unavailable(_) => a_moment().await,
                    answer => panic!("{ask:?}: {answer:?}"),
                }
            }
        }
        at.send_replace(number + 1);
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_stops_and_kills_everything_is_there_once() {
    let server = Postgres::start(Durability::Kept);
    let database = server.database();
    let mut script = Script::new();
    for number in 0..BALLOTS {
        let (tx_id, value) = (tx(&format!("t{number:02}")), Value::Number(number));
        let reservation = script.reservation(&tx_id, &value, number);
        script
            .decided(&tx_id, &value)
            .reserved(&tx_id, &value, &reservation, false);
        script.concluded(&tx_id, ChainOutcome::Confirmed, number);
        let lie = script.double_vote(4, &tx_id);
        let kind = quorate_consensus::wire::ViolationType::DoubleVoting;
        script.violation(4, &tx_id, kind, Some(lie));
    }
    let script = Arc::new(script);
    let rules = Arc::clone(script.cluster.rules());
    let url = database.url();
    let open = || PostgresAudit::new(&url, Arc::clone(&rules), &Options::default()).unwrap();
    let (store, other) = (open(), open());
    let (projected, mut reached) = watch::channel(0);
    let (asked, mut answered) = watch::channel(0);
    let projecting = tokio::spawn(project_all(store.clone(), Arc::clone(&script), projected));
    let asking = tokio::spawn(ask_all(other, Arc::clone(&script), asked));

    for (number, stopped) in [true, false, true, false, false].into_iter().enumerate() {
        // Somewhere in the middle of what both do.
        let goal = 10 * (number as u64 + 1);
        let far = answered.wait_for(|count| *count >= goal).await;
        drop(far.expect("it is asked"));
        let far = reached.wait_for(|revision| *revision >= 5 * goal).await;
        drop(far.expect("it is projected"));
        match stopped {
            true => server.stop(),
            false => server.kill(),
        }
        while store.breaker() == BreakerState::Closed {
            let away = store.cursor().await;
            assert!(matches!(away, Err(AuditError::Unavailable(_))), "{away:?}");
        }
        server.start_again();
    }
    for longest in [projecting.await.unwrap(), asking.await.unwrap()] {
        assert!(longest.0 < BOUND, "a call took {:?}", longest.0);
    }
    assert_eq!(store.breaker(), BreakerState::Closed);

    assert_eq!(store.cursor().await.unwrap(), script.head());
    let votes = store.votes(&Filter::default()).await.unwrap();
    assert_eq!(votes.len() as u64, 4 * BALLOTS);
    let confirmed = Some(SubmissionState::Confirmed);
    let rows = store.submissions(confirmed, 1000).await.unwrap();
    assert_eq!(rows.len() as u64, BALLOTS);
    let violations = store.violations(&Filter::default()).await.unwrap();
    let ids: Vec<_> = violations.iter().map(|row| row.id).collect();
    assert_eq!(ids, (1..=BALLOTS).collect::<Vec<_>>());
    let members = store.reputations().await.unwrap();
    assert_eq!(members[0].total_votes, BALLOTS);
    assert_eq!(members[4].violations_count, BALLOTS);
    let pending = Some(SubmissionState::Pending);
    let rows = store.submissions(pending, 1000).await.unwrap();
    assert_eq!(rows.len() as u64, BALLOTS);
    assert!(rows.iter().all(|row| row.attempts == 1));
    for row in rows {
        let variants = store.ask(AuditAsk::Variants { tx_id: row.tx_id });
        let AuditAnswer::Variants(variants) = variants.await else {
            panic!("no answer");
        };
        assert_eq!(variants.len(), 1);
    }
}
