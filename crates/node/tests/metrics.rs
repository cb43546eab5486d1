//! Votes through real nodes, and what `/metrics` says about them.

mod common;

use common::scrape::{Samples, get};
use common::{Cluster, PATIENCE, ballot_in, banned, number, refused, soon, vote_at};
use quorate_consensus::wire::BallotState;
use quorate_node::NodeHandle;
use quorate_telemetry::metrics::LIST;
use tonic::Code;

/// Waits until a series of a node has reached a value, and gives all of them.
async fn reached(node: &NodeHandle, series: &str, value: f64) -> Samples {
    soon(series, async {
        loop {
            let samples = Samples::of(node).await;
            if samples.value(series) >= value {
                return samples;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_counts_what_the_cluster_did() {
    let mut cluster = Cluster::new(4, 3);
    let mut nodes = cluster.start_all().await;
    vote_at(&cluster, 0..4, "good", 42).await;
    for node in &nodes {
        ballot_in(node, "good", &[BallotState::Confirmed]).await;
    }
    // Trustee 4 says something else than the others.
    vote_at(&cluster, 0..2, "bad", 7).await;
    vote_at(&cluster, [3], "bad", 9).await;
    vote_at(&cluster, [2], "bad", 7).await;
    for node in &nodes {
        ballot_in(node, "bad", &[BallotState::AbortedByzantine]).await;
        banned(node, &cluster.ids[3]).await;
    }
    // Trustee 1 changes its mind, and its node does not let it.
    let second = cluster.client(0).submit(number("good", 43)).await;
    refused(second, Code::FailedPrecondition, "SECOND_CHOICE");

    for (i, node) in nodes.iter().enumerate() {
        let samples = reached(node, "audit_revision", 1.0).await;
        for (series, expected) in [
            ("votes_received_total{node_id=\"node1\"}", 2.0),
            ("votes_received_total{node_id=\"node2\"}", 2.0),
            ("votes_received_total{node_id=\"node3\"}", 2.0),
            ("votes_received_total{node_id=\"node4\"}", 2.0),
            ("threshold_reached_total", 1.0),
            ("transactions_aborted_byzantine_total", 1.0),
            ("blockchain_submissions_total{state=\"SUBMITTED\"}", 1.0),
            ("blockchain_submissions_total{state=\"CONFIRMED\"}", 1.0),
            ("blockchain_submissions_total{state=\"FAILED\"}", 0.0),
            ("ballots{state=\"CONFIRMED\"}", 1.0),
            ("ballots{state=\"ABORTED_BYZANTINE\"}", 1.0),
            ("ballots{state=\"COLLECTING\"}", 0.0),
            ("active_votes", 0.0),
            ("etcd_active_transactions", 0.0),
            ("submission_latency_seconds_count", 1.0),
            (
                "votes_rejected_byzantine_total{type=\"MINORITY_VOTE\"}",
                1.0,
            ),
            (
                "violations_total{node_id=\"node4\",type=\"MINORITY_VOTE\"}",
                1.0,
            ),
            ("banned_peers_total", 1.0),
            ("member_banned{node_id=\"node4\"}", 1.0),
            ("member_banned{node_id=\"node1\"}", 0.0),
            ("peer_reputation{node_id=\"node4\"}", 0.0),
            ("peer_reputation{node_id=\"node1\"}", 1.0),
            ("alerts_total{alert=\"transaction_aborted\"}", 1.0),
            ("alerts_total{alert=\"store_tampering\"}", 0.0),
            ("in_service", 1.0),
            ("rules_epoch", 1.0),
        ] {
            let found = samples.value(series);
            assert!(
                (found - expected).abs() < 1e-9,
                "node{}: {series} is {found}",
                i + 1
            );
        }
        // What each has done itself.
        let own = |n: f64| if i == 0 { n } else { 0.0 };
        assert!((samples.value("sign_guard_refusals_total") - own(1.0)).abs() < 1e-9);
        assert!((samples.value("client_votes_total{result=\"refused\"}") - own(1.0)).abs() < 1e-9);
        assert!((samples.value("client_votes_total{result=\"accepted\"}") - 2.0).abs() < 1e-9);
        let submits = samples.value("calls_total{method=\"Submit\",code=\"Ok\"}");
        assert!((submits - 2.0).abs() < 1e-9, "{submits}");
        assert!(samples.value("gossip_messages_total{direction=\"sent\"}") > 0.0);
        for stage in [
            "vote.receive",
            "vote.validate",
            "vote.store",
            "threshold.check",
        ] {
            let series = format!("stage_duration_seconds_count{{stage=\"{stage}\"}}");
            assert!(samples.value(&series) > 0.0, "node{}: {series}", i + 1);
        }
        assert!(samples.value("certificate_expiry_seconds{certificate=\"node\"}") > 3600.0);
        let last = samples.value("last_vote_timestamp_seconds{node_id=\"node1\"}");
        assert!(last > 1.7e9, "{last}");
        // Labels are members and words: nothing that somebody else chooses.
        assert_eq!(
            samples.values_of("node_id"),
            ["node1", "node2", "node3", "node4"]
        );
        assert_eq!(samples.values_of("tx_id"), [""; 0]);
    }

    // History that is read again is no news.
    nodes.remove(0).shutdown().await;
    let again = cluster.start(0).await;
    ballot_in(&again, "bad", &[BallotState::AbortedByzantine]).await;
    // The ban comes after it in the log.
    banned(&again, &cluster.ids[3]).await;
    let samples = Samples::of(&again).await;
    for (series, expected) in [
        ("transactions_aborted_byzantine_total", 0.0),
        ("alerts_total{alert=\"transaction_aborted\"}", 0.0),
        ("votes_received_total{node_id=\"node1\"}", 0.0),
        ("ballots{state=\"ABORTED_BYZANTINE\"}", 1.0),
        ("member_banned{node_id=\"node4\"}", 1.0),
        ("peer_reputation{node_id=\"node4\"}", 0.0),
    ] {
        let found = samples.value(series);
        assert!((found - expected).abs() < 1e-9, "{series} is {found}");
    }
    again.shutdown().await;
    for node in nodes {
        node.shutdown().await;
    }
}

/// What one node on embedded stores cannot show, and why.
const NOT_HERE: [(&str, &str); 3] = [
    ("quorate_etcd_member_up", "there is no etcd"),
    ("quorate_etcd_db_size_bytes", "there is no etcd"),
    ("quorate_etcd_db_quota_bytes", "there is no etcd"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_list_is_filled_by_a_node() {
    let mut cluster = Cluster::new(2, 2);
    // On etcd another list would be right; this one is about embedded stores.
    (cluster.etcd, cluster.postgres_url) = (None, None);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..2, "tx", 1).await;
    ballot_in(&nodes[0], "tx", &[BallotState::Confirmed]).await;
    // Each is filled in its own time: rows, for one, are counted after the first look.
    let mut missing = Vec::new();
    let filled = tokio::time::timeout(PATIENCE, async {
        loop {
            let samples = Samples::of(&nodes[0]).await;
            let is_missing = |name: &String| {
                let excused = NOT_HERE.iter().any(|(excused, _)| excused == name);
                !samples.has(name) && !excused
            };
            missing = LIST.iter().map(|metric| metric.name()).collect();
            missing.retain(is_missing);
            if missing.is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let filled = filled.await;
    assert!(filled.is_ok(), "listed and not filled: {missing:?}");
    let addr = nodes[0].health_addr().unwrap();
    assert_eq!(get(addr, "/elsewhere").await.0, 404);
    for node in nodes {
        node.shutdown().await;
    }
}
