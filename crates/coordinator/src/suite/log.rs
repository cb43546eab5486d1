//! The log itself: order, repeats, refusals, reading, waking, restarting.

use quorate_consensus::board::Refusal;
use quorate_consensus::statement::StatementError;
use quorate_consensus::wire::{BallotState, BoardOp};
use quorate_engine::{ProposeError, Proposed};
use quorate_testkit::{Cluster, NOW, number, ops, tx};

use super::Builder;
use super::support::{Handle, Mirror, all_at_once, applied, refused};

fn cluster() -> Cluster {
    Cluster::new(5, 4)
}

/// A vote that opens a ballot of its own.
fn opening(cluster: &Cluster, member: usize, name: &str) -> BoardOp {
    ops::record_vote(cluster.vote(member, &tx(name), number(1), NOW))
}

pub(super) async fn empty_store(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let handle = store.handle().await;
    assert_eq!(handle.head().await, Ok(0));
    assert_eq!(handle.entries(0, 10).await, Ok(Vec::new()));
    assert_eq!(handle.entries(1, 10).await, Ok(Vec::new()));
    assert_eq!(handle.entries(u64::MAX, usize::MAX).await, Ok(Vec::new()));
    assert_eq!(*handle.watch().borrow(), 0);
}

pub(super) async fn order_and_contiguity(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let handle = store.handle().await;
    let mut proposed = Vec::new();
    for i in 0..20 {
        let op = opening(&cluster, i % 5, &format!("tx{i}"));
        // Every third proposer's clock is behind: the board's time must not be.
        let now_ms = if i % 3 == 2 { NOW } else { NOW + i as u64 };
        let revision = applied(&handle, op.clone(), now_ms).await;
        assert_eq!(revision, i as u64 + 1);
        assert_eq!(handle.head().await, Ok(revision));
        proposed.push((revision, op));
    }
    let all = handle.entries(0, 100).await.expect("entries");
    let found = all
        .iter()
        .map(|entry| (entry.revision, entry.op.clone().expect("an operation")));
    assert_eq!(found.collect::<Vec<_>>(), proposed);
    assert!(all.is_sorted_by_key(|entry| entry.time_ms));
    assert_eq!(all[19].time_ms, NOW + 19);
    assert_eq!(handle.entries(0, 1).await.expect("entries"), all[..1]);
    assert_eq!(handle.entries(7, 5).await.expect("entries"), all[7..12]);
    assert_eq!(handle.entries(18, 5).await.expect("entries"), all[18..]);
    assert_eq!(handle.entries(20, 5).await, Ok(Vec::new()));
    assert_eq!(Mirror::of(&cluster, &handle).await.entries, all);
}

pub(super) async fn repeats_change_nothing(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let (one, other) = (store.handle().await, store.handle().await);
    let vote = opening(&cluster, 0, "a");
    let boot = ops::boot(cluster.boot(1, 3, NOW));
    applied(&one, vote.clone(), NOW).await;
    applied(&other, boot.clone(), NOW).await;
    // The lost reply's retry, the same choice signed again, and both elsewhere.
    let again = ops::record_vote(cluster.vote(0, &tx("a"), number(1), NOW + 5));
    for handle in [&one, &other] {
        for op in [&vote, &boot, &again] {
            let answer = handle.propose(op.clone(), NOW + 9).await;
            assert_eq!(answer, Ok(Proposed::Unchanged(2)), "{op:?}");
        }
        assert_eq!(handle.head().await, Ok(2));
    }
    // Many at once, so that a backend's grouping meets its own repeats.
    let vote = opening(&cluster, 2, "b");
    let answers = all_at_once((0..32).map(|i| {
        let (handle, op) = ([&one, &other][i % 2].clone(), vote.clone());
        async move { handle.propose(op, NOW).await }
    }))
    .await;
    let count = |answer| answers.iter().filter(|a| **a == Ok(answer)).count();
    assert_eq!(count(Proposed::Applied(3)), 1);
    assert_eq!(count(Proposed::Unchanged(3)), 31);
    assert_eq!(one.entries(2, 9).await.expect("entries").len(), 1);
}

pub(super) async fn refusals_leave_no_entry(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let handle = store.handle().await;
    applied(&handle, opening(&cluster, 0, "a"), NOW).await;

    let mut forged = cluster.vote(1, &tx("a"), number(1), NOW);
    forged.signature[0] ^= 1;
    let refusal = refused(&handle, ops::record_vote(forged), NOW).await;
    let who = cluster.node_id(1);
    assert_eq!(
        refusal,
        Refusal::Statement(StatementError::BadSignature(who))
    );
    let refusal = refused(&handle, BoardOp::default(), NOW).await;
    assert!(matches!(refusal, Refusal::Malformed(_)), "{refusal:?}");
    let late = ops::advance(&tx("a"), BallotState::Submitted);
    let refusal = refused(&handle, late, NOW).await;
    assert!(
        matches!(refusal, Refusal::IllegalMove { .. }),
        "{refusal:?}"
    );
    let unknown = ops::advance(&tx("b"), BallotState::ThresholdReached);
    let refusal = refused(&handle, unknown, NOW).await;
    assert_eq!(refusal, Refusal::UnknownBallot(tx("b")));
    let future = cluster.vote(2, &tx("a"), number(1), NOW + 3_600_000);
    let refusal = refused(&handle, ops::record_vote(future), NOW).await;
    assert!(matches!(refusal, Refusal::FromFuture { .. }), "{refusal:?}");

    assert_eq!(handle.head().await, Ok(1));
    assert_eq!(handle.entries(1, 10).await, Ok(Vec::new()));
    // Good ones that wait beside bad ones are not held back.
    let answers = all_at_once((0..40).map(|i| {
        let (handle, cluster) = (handle.clone(), cluster.clone());
        async move {
            let mut vote = cluster.vote(i % 5, &tx(&format!("b{i}")), number(1), NOW);
            if i % 2 == 1 {
                vote.signature[0] ^= 1;
            }
            handle.propose(ops::record_vote(vote), NOW).await.is_ok()
        }
    }))
    .await;
    assert!(
        answers
            .iter()
            .enumerate()
            .all(|(i, ok)| *ok == (i % 2 == 0))
    );
    assert_eq!(handle.head().await, Ok(21));
    assert_eq!(Mirror::of(&cluster, &handle).await.board.revision(), 21);
}

pub(super) async fn one_order_for_all(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let handles: Vec<Handle> = [
        store.handle().await,
        store.handle().await,
        store.handle().await,
    ]
    .into();
    let revisions = all_at_once((0..90).map(|i| {
        let handle = handles[i % 3].clone();
        let op = opening(&cluster, i % 5, &format!("tx{i}"));
        async move { applied(&handle, op, NOW + i as u64).await }
    }))
    .await;
    let mut sorted = revisions.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=90).collect::<Vec<u64>>());
    let first = Mirror::of(&cluster, &handles[0]).await.entries;
    for (i, revision) in revisions.iter().enumerate() {
        let entry = &first[*revision as usize - 1];
        let op = opening(&cluster, i % 5, &format!("tx{i}"));
        assert_eq!(entry.op, Some(op), "its answer named revision {revision}");
    }
    for handle in &handles[1..] {
        assert_eq!(Mirror::of(&cluster, handle).await.entries, first);
    }
    let late = store.handle().await;
    assert_eq!(Mirror::of(&cluster, &late).await.entries, first);
}

pub(super) async fn head_is_linearizable(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    // Four proposers; what each was answered must be in every head from then on.
    all_at_once((0..4).map(|p| {
        let (handles, cluster) = (handles.clone(), cluster.clone());
        async move {
            for i in 0..25 {
                let op = opening(&cluster, p, &format!("tx{p}.{i}"));
                let revision = applied(&handles[i % 2], op, NOW).await;
                for handle in &handles {
                    let head = handle.head().await.expect("a head");
                    assert!(
                        head >= revision,
                        "head {head} after {revision} was answered"
                    );
                    let entry = handle.entries(revision - 1, 1).await.expect("entries");
                    assert_eq!(entry[0].revision, revision);
                }
            }
        }
    }))
    .await;
    assert_eq!(handles[0].head().await, Ok(100));
}

pub(super) async fn watchers_wake(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let handles = [store.handle().await, store.handle().await];
    let mut watches = handles.clone().map(|handle| handle.watch());
    for i in 0..10 {
        let op = opening(&cluster, i % 5, &format!("tx{i}"));
        let revision = applied(&handles[i % 2], op, NOW).await;
        for watch in &mut watches {
            // Hangs until the suite's limit if nothing wakes it.
            let head = watch.wait_for(|head| *head >= revision).await;
            assert_eq!(*head.expect("the handle lives"), revision);
        }
    }
}

pub(super) async fn abandoned_proposals(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let handle = store.handle().await;
    let running: Vec<_> = (0..200)
        .map(|i| {
            let (handle, op) = (handle.clone(), opening(&cluster, i % 5, &format!("tx{i}")));
            tokio::spawn(async move { handle.propose(op, NOW).await })
        })
        .collect();
    // Gone before an answer: whether they took effect is open, but not how.
    for task in running.iter().skip(1).step_by(2) {
        task.abort();
    }
    for (i, task) in running.into_iter().enumerate() {
        match task.await {
            Ok(answer) => drop(answer.expect("an answer")),
            Err(error) => assert!(error.is_cancelled() && i % 2 == 1),
        }
    }
    // What is repeated afterwards is applied or was.
    for i in 0..200 {
        let op = opening(&cluster, i % 5, &format!("tx{i}"));
        handle.propose(op, NOW).await.expect("an answer");
    }
    assert_eq!(handle.head().await, Ok(200));
    assert_eq!(Mirror::of(&cluster, &handle).await.board.revision(), 200);
}

pub(super) async fn restart_keeps_all(builder: &dyn Builder) {
    let cluster = cluster();
    let store = builder.store(cluster.rules().clone()).await;
    let mut before = Mirror::new(&cluster);
    for round in 0..3_u64 {
        let handle = store.handle().await;
        for i in 0..5 {
            let op = opening(&cluster, i, &format!("tx{round}"));
            applied(&handle, op, NOW + round).await;
        }
        before.catch_up(&handle).await;
        drop(handle);
        store.restart().await;
        let handle = store.handle().await;
        assert_eq!(handle.head().await, Ok(5 * (round + 1)));
        let mut watch = handle.watch();
        // Hangs until the suite's limit if a new handle's watch is not at the head.
        let seen = watch.wait_for(|head| *head == 5 * (round + 1)).await;
        drop(seen.expect("the handle lives"));
        let after = Mirror::of(&cluster, &handle).await;
        assert_eq!(after.entries, before.entries);
        assert_eq!(after.board, before.board);
        // The backend's own memory is back too: it knows what it has.
        let again = opening(&cluster, 0, &format!("tx{round}"));
        let answer = handle.propose(again, NOW + round).await;
        assert_eq!(answer, Ok(Proposed::Unchanged(5 * (round + 1))));
        let other = ops::record_first_vote(cluster.vote(0, &tx("tx0"), number(2), NOW));
        let answer = handle.propose(other, NOW + round).await;
        assert!(
            matches!(
                answer,
                Err(ProposeError::Refused(Refusal::OtherChoice { .. }))
            ),
            "{answer:?}"
        );
    }
}
