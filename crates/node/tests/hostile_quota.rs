//! One client that opens ballots on which nobody else votes: it uses up its own share,
//! not its trustee's.

mod common;

use std::num::NonZeroU32;
use std::time::Duration;

use common::*;
use quorate_consensus::wire::BallotState;
use quorate_node::Limits;
use quorate_proto::v1::vote_service_client::VoteServiceClient;
use tonic::Code;
use tonic_types::StatusExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_at_its_quota_is_told_what_to_do_and_hinders_nobody() {
    let mut cluster = Cluster::new(4, 3);
    let greedy = cluster.start_with(0, |parts| {
        parts.limits = Limits {
            unstarted_per_client: NonZeroU32::new(3).unwrap(),
            ..Limits::default()
        };
    });
    let nodes = [greedy.await, cluster.start(1).await];
    for node in &nodes {
        connected(node, 1).await;
    }
    let mut client = cluster.client(0);
    // A vote that is refused takes no place, however often.
    for _ in 0..5 {
        let bad = client.submit(number("no good", 1)).await;
        refused(bad, Code::InvalidArgument, "FIELD_INVALID");
        let foreign = cluster.vote(1, "foreign", quorate_consensus::Value::Number(1), now_ms());
        let foreign = client.submit(handed("", foreign)).await;
        refused(foreign, Code::PermissionDenied, "OTHER_TRUSTEE");
    }
    for tx_id in ["a", "b", "c"] {
        client.submit(number(tx_id, 1)).await.unwrap();
    }
    let status = client.submit(number("d", 1)).await;
    let status = refused(status, Code::ResourceExhausted, "CLIENT_QUOTA");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["limit"], "3");
    assert!(info.metadata["caller"].ends_with("/client/node1/client"));
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    assert!(delay.unwrap() > Duration::ZERO);
    for words in ["wait until they start", "network.max_unstarted_per_client"] {
        assert!(status.message().contains(words), "{status}");
    }
    // What it has voted on it may repeat, and a ballot that its vote starts is not an
    // unstarted one.
    assert!(
        client
            .submit(number("a", 1))
            .await
            .unwrap()
            .into_inner()
            .repeated
    );
    vote_at(&cluster, [1], "begun", 1).await;
    ballot_in(&nodes[0], "begun", &[BallotState::Collecting]).await;
    client.submit(number("begun", 1)).await.unwrap();
    // Another identity of the same trustee votes on.
    let channel = cluster.channel(0, &cluster.person(0, "operator"));
    let mut operator = VoteServiceClient::new(channel);
    operator.submit(number("d", 1)).await.unwrap();
    // Once another trustee has voted on one of them, there is room for one.
    vote_at(&cluster, [1], "b", 1).await;
    let voted = soon("room for one more", async {
        loop {
            match client.submit(number("e", 1)).await {
                Ok(voted) => return voted,
                Err(status) => assert_eq!(reason(&status), "CLIENT_QUOTA", "{status}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(!voted.await.into_inner().repeated);
    let full = client.submit(number("f", 1)).await;
    refused(full, Code::ResourceExhausted, "CLIENT_QUOTA");
    let metrics = scrape::Samples::of(&nodes[0]).await;
    assert!(metrics.value("rate_limited_total{what=\"unstarted\"}") >= 2.0);
}
