//! What survives: kills, a crash after the sign guard, drains.

mod common;

use std::time::{Duration, Instant};

use common::*;
use quorate_consensus::wire::{BallotState, StatusRequest, SubmitRequest, WaitFor};
use quorate_engine::Effect;
use quorate_node::journal::JournalError;
use quorate_node::{Faults, Node, StartError, Stopped};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_in_a_ballot_comes_back_and_agrees() {
    let mut cluster = Cluster::new(5, 4);
    let mut nodes = cluster.start_all().await;
    vote_at(&cluster, 0..3, "tx", 7).await;
    let first = nodes.remove(0);
    let generation = first.look(|engine| engine.generation()).await.unwrap();
    first.kill().await;
    // The others decide without it.
    vote_at(&cluster, [3], "tx", 7).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
    let again = cluster.start(0).await;
    connected(&again, 4).await;
    let ballot = ballot_in(&again, "tx", &[BallotState::Confirmed]).await;
    assert_eq!(ballot.tally[0].count, 4);
    assert!(again.look(|engine| engine.generation()).await.unwrap() > generation);
    assert_eq!(
        again
            .look(|engine| engine.board().is_banned(engine.node_id()))
            .await,
        Some(false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sign_guard_outlives_the_process() {
    let mut cluster = Cluster::new(3, 3);
    // It crashes after its choice is durable and before anybody hears of the vote.
    let faults = Faults::crash_before(|effect| {
        matches!(effect, Effect::Sign { key, .. }
            if *key == quorate_consensus::statement::KeyRole::Vote)
    });
    let node = cluster.start_faulty(0, faults).await;
    connected(&node, 0).await;
    let mut client = cluster.client(0);
    let (submitted, stopped) = tokio::join!(client.submit(number("tx", 1)), node.stopped());
    assert_eq!(stopped, Stopped::Crash);
    assert!(submitted.is_err());
    drop(node);
    let again = cluster.start(0).await;
    connected(&again, 0).await;
    let mut client = cluster.client(0);
    let second = client.submit(number("tx", 2)).await;
    refused(second, Code::FailedPrecondition, "SECOND_CHOICE");
    client.submit(number("tx", 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_answers_who_waits_and_loses_nothing() {
    let mut cluster = Cluster::new(3, 3);
    let mut nodes = cluster.start_all().await;
    vote_at(&cluster, 0..1, "kept", 1).await;
    // A client waits for a decision that does not come.
    let mut client = cluster.client(0);
    let waiting = tokio::spawn(async move {
        let request = SubmitRequest {
            wait: WaitFor::Decided.into(),
            ..number("waits", 1)
        };
        client.submit(request).await
    });
    ballot_in(&nodes[1], "waits", &[BallotState::Collecting]).await;
    let began = Instant::now();
    nodes.remove(0).shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(30));
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(reason(&status), "SHUTTING_DOWN");
    // Its peers heard a goodbye, or at least the end.
    let look = |engine: &quorate_engine::Engine| (engine.connected().count() == 1).then_some(());
    soon("the peers notice", nodes[0].until(look))
        .await
        .unwrap();

    // What was acknowledged is there, and the ballots go on.
    let again = cluster.start(0).await;
    connected(&again, 2).await;
    for tx_id in ["kept", "waits"] {
        let request = StatusRequest {
            tx_id: tx_id.into(),
        };
        let ballot = cluster
            .client(0)
            .status(request)
            .await
            .unwrap()
            .into_inner()
            .ballot;
        assert_eq!(ballot.unwrap().tally[0].count, 1);
        vote_at(&cluster, 1..3, tx_id, 1).await;
        ballot_in(&again, tx_id, &[BallotState::Confirmed]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trustee_runs_once() {
    let mut cluster = Cluster::new(1, 1);
    let node = cluster.start(0).await;
    let mut parts = cluster.parts_on_any_port(0);
    let second = Node::start(parts).await.err().expect("refused");
    assert!(
        matches!(second, StartError::Journal(JournalError::InUse(_))),
        "{second}"
    );
    node.kill().await;
    parts = cluster.parts_on_any_port(0);
    let third = Node::start(parts).await.unwrap();
    connected(&third, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_do_not_belong_together_do_not_start() {
    let cluster = Cluster::new(2, 2);
    let start = async |change: &dyn Fn(&mut quorate_node::Parts)| {
        let mut parts = cluster.parts_on_any_port(0);
        change(&mut parts);
        Node::start(parts).await.err().expect("refused").to_string()
    };
    let other_key = start(&|parts| parts.node_key = cluster.node_key(1)).await;
    assert!(
        other_key.contains("the node key is not the one"),
        "{other_key}"
    );
    let other_key = start(&|parts| parts.vote_key = Some(cluster.vote_key(1))).await;
    assert!(
        other_key.contains("the vote key is not the one"),
        "{other_key}"
    );
    let other = cluster.parts_on_any_port(1).tls;
    let identity = start(&|parts| parts.tls = other.clone()).await;
    assert!(identity.contains("use its own certificate"), "{identity}");
    let stranger = quorate_consensus::NodeId::new("node9").unwrap();
    let unknown = start(&|parts| parts.node_id = stranger.clone()).await;
    assert!(unknown.contains("not a member"), "{unknown}");
}
