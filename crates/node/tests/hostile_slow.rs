//! Those who send slowly and those who never read: they hold up themselves.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use http_body_util::StreamBody;
use quorate_consensus::Value;
use quorate_consensus::wire::{BallotState, SubmitRequest, WatchRequest, submit_request};
use quorate_node::Limits;
use tonic::Status;
use tower::Service as _;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_trickles_in_ends_in_time() {
    let mut cluster = Cluster::new(1, 1);
    let node = cluster.start_with(0, |parts| {
        parts.limits = Limits {
            // Enough for whoever sends at once, on a slow machine too.
            request_time: Duration::from_secs(2),
            ..Limits::default()
        };
    });
    let node = node.await;
    connected(&node, 0).await;
    let mut channel = cluster.channel(0, &cluster.person(0, "client"));
    // A message of 200 bytes, each of which comes well in time, and no end.
    let head = Bytes::from_static(&[0, 0, 0, 0, 200]);
    let bytes =
        tokio_stream::iter(std::iter::once(head).chain((0..200).map(|_| Bytes::from_static(&[8]))));
    let trickle = tokio_stream::StreamExt::throttle(bytes, Duration::from_millis(20));
    let frames = tokio_stream::StreamExt::map(trickle, |bytes| {
        Ok::<_, Status>(http_body::Frame::data(bytes))
    });
    let request = http::Request::post("http://node/quorate.v1.VoteService/Submit")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(StreamBody::new(frames)))
        .unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx))
        .await
        .unwrap();
    let answer = soon("an answer", channel.call(request)).await.unwrap();
    let status = Status::from_header_map(answer.headers()).expect("an error at once");
    assert_eq!(reason(&status), "REQUEST_TOO_SLOW", "{status:?}");
    // Whoever sends at once is served, on the same connection too.
    cluster.client(0).submit(number("tx", 1)).await.unwrap();
}

/// Opens ballots that nobody else votes on, with the longest values there are.
async fn much_news(cluster: &Cluster, at: usize, ids: std::ops::Range<usize>) {
    let client = cluster.client(at);
    let mut votes = tokio::task::JoinSet::new();
    for i in ids {
        let mut client = client.clone();
        if votes.len() >= 64 {
            votes.join_next().await.unwrap().unwrap();
        }
        votes.spawn(async move {
            let request = SubmitRequest {
                vote: Some(submit_request::Vote::Data(vec![7; 1024])),
                ..number(&format!("much{i}"), 0)
            };
            client.submit(request).await.unwrap();
        });
    }
    while let Some(voted) = votes.join_next().await {
        voted.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_and_a_watcher_that_never_read_hold_up_nobody() {
    let many = std::num::NonZeroU32::MAX;
    let mut cluster = Cluster::new(4, 3);
    let mut nodes = Vec::new();
    for i in 0..3 {
        let node = cluster.start_with(i, |parts| {
            parts.limits = Limits {
                calls_per_sec: many,
                burst: many,
                unstarted_per_client: many,
                ..Limits::default()
            };
        });
        nodes.push(node.await);
    }
    for node in &nodes {
        connected(node, 2).await;
    }
    // The fourth trustee's stream stands, and nobody reads it.
    let deaf = cluster.raw(3, 0).await;
    connected(&nodes[0], 3).await;
    // A watcher of everything that asks for no event.
    let all = WatchRequest {
        tx_id: String::new(),
        from_revision: 1,
    };
    let watching = cluster.client(0).watch(all).await.unwrap().into_inner();
    let dropped = async || {
        scrape::Samples::of(&nodes[0])
            .await
            .value("gossip_messages_dropped_total")
    };
    let mut rounds = 0;
    while dropped().await == 0.0 {
        assert!(rounds < 20, "its queue never filled");
        much_news(&cluster, 0, rounds * 400..(rounds + 1) * 400).await;
        if rounds == 0 {
            // While it fills, the others decide.
            vote_at(&cluster, 0..3, "meanwhile", 1).await;
            ballot_in(&nodes[2], "meanwhile", &[BallotState::Confirmed]).await;
        }
        rounds += 1;
    }
    // It is full: what cannot be sent to it is left, and the others decide.
    vote_at(&cluster, 0..3, "after", 1).await;
    for node in &nodes {
        ballot_in(node, "after", &[BallotState::Confirmed]).await;
    }
    // It is there yet, may speak, and what it says counts.
    let vote = cluster.vote(3, "spoken", Value::Number(1), now_ms());
    let traced = quorate_consensus::wire::TracedVote {
        vote: Some(vote),
        traceparent: String::new(),
    };
    let batch = quorate_consensus::wire::Batch {
        votes: vec![traced],
        ..Default::default()
    };
    let body = quorate_consensus::wire::frame::Body::Batch(batch);
    deaf.send(body).await.unwrap();
    ballot_in(&nodes[1], "spoken", &[BallotState::Collecting]).await;
    drop(watching);
}
