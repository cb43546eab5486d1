//! Who may call what, how often, and for how long.

mod common;

use std::num::NonZeroU32;
use std::time::Duration;

use common::*;
use quorate_consensus::wire::{
    BallotState, GetRulesRequest, Standing, StatusRequest, SubmitRequest, WaitFor,
};
use quorate_node::Limits;
use quorate_node::exchange::RawSession;
use quorate_proto::v1::vote_service_client::VoteServiceClient;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};
use tonic_types::StatusExt as _;

/// Waits until a node says that it serves: it does so a moment after it is in service.
async fn serving(health: &mut HealthClient<Channel>, request: HealthCheckRequest) {
    let mut answers = health.watch(request).await.unwrap().into_inner();
    soon("SERVING", async {
        while let Some(answer) = answers.message().await.unwrap() {
            if answer.status() == ServingStatus::Serving {
                return;
            }
        }
        panic!("the watch ended");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_certificate_opens_its_own_doors_only() {
    let mut cluster = Cluster::new(3, 2);
    let nodes = cluster.start_all().await;
    let rules = || GetRulesRequest {};

    for person in ["client", "operator"] {
        let channel = cluster.channel(0, &cluster.person(0, person));
        let mut own = VoteServiceClient::new(channel);
        own.get_rules(rules()).await.unwrap();
    }
    // A node may speak on streams, and not vote in another's name.
    let channel = cluster.channel(0, &cluster.node_tls(1));
    let mut node = VoteServiceClient::new(channel.clone());
    refused(
        node.get_rules(rules()).await,
        Code::PermissionDenied,
        "WRONG_ROLE",
    );
    refused(
        node.submit(number("t", 1)).await,
        Code::PermissionDenied,
        "WRONG_ROLE",
    );
    // A client may vote, and not speak on streams.
    let target = quorate_node::exchange::RawTarget {
        tls: cluster.person(0, "client"),
        addr: cluster.addr(0),
    };
    let error = RawSession::connect(&target)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("it is for nodes"), "{error}");
    // A client of another node does not even get a connection.
    let channel_of_other = cluster.channel(0, &cluster.person(1, "client"));
    let mut other = VoteServiceClient::new(channel_of_other);
    let status = other.submit(number("t", 1)).await.unwrap_err();
    assert!(status.get_details_error_info().is_none(), "{status:?}");
    assert_ne!(status.code(), Code::Ok);

    // Health and reflection are for everybody with a certificate.
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "quorate.v1.VoteService"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        serving(&mut health, request).await;
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) =
        answer.message_response
    else {
        panic!("no list");
    };
    let names: Vec<_> = service.iter().map(|s| s.name.as_str()).collect();
    for name in ["quorate.v1.VoteService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(nodes[0].counts().calls_forbidden, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_calls_are_told_when_to_go_on() {
    let mut cluster = Cluster::new(1, 1);
    let node = cluster.start_with(0, |parts| {
        let one = NonZeroU32::MIN;
        parts.limits = Limits {
            calls_per_sec: one,
            burst: one,
            ..Limits::default()
        };
    });
    let node = node.await;
    connected(&node, 0).await;
    let mut client = cluster.client(0);
    let mut limited = None;
    // However slow the machine is: two of so many fall into one second.
    for _ in 0..1000 {
        if let Err(status) = client.get_rules(GetRulesRequest {}).await {
            limited = Some(status);
            break;
        }
    }
    let status = limited.expect("a limit");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status), "RATE_LIMITED");
    let delay = status
        .get_details_retry_info()
        .unwrap()
        .retry_delay
        .unwrap();
    assert!(delay > Duration::ZERO && delay <= Duration::from_secs(1));
    // The operator has a limit of its own.
    let channel = cluster.channel(0, &cluster.person(0, "operator"));
    let mut operator = VoteServiceClient::new(channel);
    operator.get_rules(GetRulesRequest {}).await.unwrap();
    assert!(node.counts().calls_limited >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_wait_and_not_the_vote() {
    let mut cluster = Cluster::new(3, 3);
    let nodes = cluster.start_all().await;
    let mut request = Request::new(SubmitRequest {
        wait: WaitFor::Confirmed.into(),
        ..number("alone", 1)
    });
    // This client gives up by itself then, too; of so many seconds the node leaves it half
    // a second for its answer to arrive.
    request.set_timeout(Duration::from_secs(6));
    let status = cluster.client(0).submit(request).await;
    let status = refused(status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert!(
        status.message().contains("repeating it is safe"),
        "{status}"
    );
    ballot_in(&nodes[0], "alone", &[BallotState::Collecting]).await;
    let status = StatusRequest {
        tx_id: "alone".into(),
    };
    let ballot = cluster
        .client(0)
        .status(status)
        .await
        .unwrap()
        .into_inner()
        .ballot
        .unwrap();
    assert_eq!(ballot.trustees[0].standing(), Standing::Voted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_serving_before_it_is_in_service() {
    let mut cluster = Cluster::new(1, 1);
    let parts = cluster.parts(0);
    // Its view of the log stands still: it cannot see its own boot.
    let faulty = quorate_coordinator::testing::Faulty::new(parts.coordinator.clone());
    faulty.set_away(true);
    let held = faulty.clone();
    let node = quorate_node::Node::start(quorate_node::Parts {
        coordinator: std::sync::Arc::new(faulty),
        ..parts
    })
    .await
    .unwrap();
    let channel = cluster.channel(0, &cluster.person(0, "client"));
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest::default;
    let answer = health.check(request()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    let status = cluster.client(0).submit(number("t", 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_details_retry_info().is_some());
    held.set_away(false);
    soon("service", node.in_service()).await;
    serving(&mut health, request()).await;
    cluster.client(0).submit(number("t", 1)).await.unwrap();
}
