//! Ballots that ended long ago leave the board, and are answered for all the same.

mod common;

use std::time::Duration;

use common::*;
use prost::Message as _;
use quorate_consensus::TxId;
use quorate_consensus::ballot::state_name;
use quorate_consensus::proof;
use quorate_consensus::wire::{BallotState, GetCertificateRequest, StatusRequest};
use quorate_crypto::CachedVerifier;
use quorate_node::{Faults, NodeHandle};
use tonic::Code;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The cluster, its nodes' clocks so far ahead.
async fn later(cluster: &mut Cluster, ahead: Duration) -> Vec<NodeHandle> {
    let mut nodes = Vec::new();
    for i in 0..cluster.ids.len() {
        let faults = Faults {
            clock_ahead_ms: i64::try_from(ahead.as_millis()).unwrap(),
            ..Faults::default()
        };
        nodes.push(cluster.start_faulty(i, faults).await);
    }
    // The fourth was banned: nobody speaks with it.
    for node in &nodes[..3] {
        connected(node, 2).await;
    }
    nodes
}

async fn collected(node: &NodeHandle, tx_id: &str) -> BallotState {
    let tx_id = TxId::new(tx_id).unwrap();
    let look = move |engine: &quorate_engine::Engine| engine.board().collected(&tx_id);
    soon("it is collected", node.until(look)).await.unwrap()
}

async fn shut_down(nodes: Vec<NodeHandle>) {
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_long_ago_is_collected_answered_for_and_never_starts_again() {
    let mut cluster = Cluster::new(4, 3);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..4, "good", 1).await;
    vote_at(&cluster, 0..2, "bad", 1).await;
    vote_at(&cluster, [3], "bad", 2).await;
    vote_at(&cluster, [2], "bad", 1).await;
    for node in &nodes {
        ballot_in(node, "good", &[BallotState::Confirmed]).await;
        ballot_in(node, "bad", &[BallotState::AbortedByzantine]).await;
        let proven = |engine: &quorate_engine::Engine| {
            let mut ballots = engine.board().ballots();
            ballots.all(|ballot| ballot.is_proven()).then_some(())
        };
        soon("both are proven", node.until(proven)).await.unwrap();
    }
    shut_down(nodes).await;

    // Within the day nothing leaves.
    let nodes = later(&mut cluster, DAY / 2).await;
    vote_at(&cluster, 0..3, "meanwhile", 1).await;
    ballot_in(&nodes[0], "meanwhile", &[BallotState::Confirmed]).await;
    // Their deadlines are over: who was silent is noted before they can be collected,
    // which is tried once an hour.
    let called = |engine: &quorate_engine::Engine| {
        let mut ballots = engine.board().ballots();
        let old = ballots.all(|b| b.tx_id.as_str() == "meanwhile" || b.roll_called);
        old.then_some(())
    };
    soon("the rolls are called", nodes[0].until(called))
        .await
        .unwrap();
    assert_eq!(
        nodes[0].look(|e| e.board().ballots().count()).await,
        Some(3)
    );
    shut_down(nodes).await;

    let nodes = later(&mut cluster, DAY + DAY / 4).await;
    for node in &nodes[..3] {
        assert_eq!(collected(node, "good").await, BallotState::Confirmed);
        assert_eq!(collected(node, "bad").await, BallotState::AbortedByzantine);
        assert_eq!(node.look(|e| e.board().ballots().count()).await, Some(1));
    }
    let mut client = cluster.client(0);
    for (tx_id, state) in [
        ("good", BallotState::Confirmed),
        ("bad", BallotState::AbortedByzantine),
    ] {
        let again = client.submit(number(tx_id, 1)).await;
        let closed = refused(again, Code::FailedPrecondition, "BALLOT_CLOSED");
        let ended = format!("it ended as {}", state_name(state));
        assert!(closed.message().ends_with(&ended), "{closed:?}");
        let status = StatusRequest {
            tx_id: tx_id.into(),
        };
        let ballot = client.status(status).await.unwrap().into_inner().ballot;
        assert_eq!(ballot.unwrap().state(), state);
        let wanted = GetCertificateRequest {
            tx_id: tx_id.into(),
        };
        let proof = client.get_certificate(wanted).await.unwrap().into_inner();
        let verifier = CachedVerifier::default();
        let cluster_id = cluster.rules.cluster_id();
        let holds = proof::verify(
            &proof.proof.unwrap().encode_to_vec(),
            &cluster_id,
            None,
            &verifier,
        );
        assert!(holds.is_ok(), "{holds:?}");
        assert_eq!(proof.evidence.len(), usize::from(tx_id == "bad"));
    }
    shut_down(nodes).await;

    // A node that has lost its journal reads it from the board.
    std::fs::remove_dir_all(cluster.home(0).join("data")).unwrap();
    let nodes = later(&mut cluster, DAY + DAY / 4).await;
    let again = cluster.client(0).submit(number("good", 2)).await;
    refused(again, Code::FailedPrecondition, "BALLOT_CLOSED");
    shut_down(nodes).await;
}
