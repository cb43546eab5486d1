//! Two machines run one trustee, by a mistake in a fail-over: the one that started first
//! stops signing and says so, and nothing is signed twice.

mod common;

use common::*;
use quorate_consensus::TxId;
use quorate_consensus::wire::{BallotState, Standing};
use quorate_node::{Cause, Node};
use quorate_proto::v1::vote_service_client::VoteServiceClient;
use quorate_tls::{DialOptions, ExpectedPeer, connect};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_machines_with_one_trustees_keys_none_signs_against_the_other() {
    let mut cluster = Cluster::new(4, 3);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, [0], "open", 1).await;
    ballot_in(&nodes[0], "open", &[BallotState::Collecting]).await;

    // The same keys and certificates, on a disk of its own.
    let mut parts = cluster.parts_on_any_port(0);
    parts.data_dir = cluster.home(0).join("twin");
    let twin = Node::start(parts).await.unwrap();
    let found = nodes[0].until_found(|found| found.has(Cause::SigningStopped));
    let found = soon("the first stops", found).await.unwrap();
    let finding = found
        .findings
        .iter()
        .find(|f| f.cause == Cause::SigningStopped);
    let detail = &finding.unwrap().detail;
    let words = "another process with this trustee's keys has started";
    assert!(detail.contains(words), "{detail}");
    let status = cluster.client(0).submit(number("other", 1)).await;
    let status = refused(status, Code::Unavailable, "SIGNING_STOPPED");
    assert!(status.message().contains("stop one of the two"), "{status}");

    // The second knows nothing of what the first signed: until it must, it signs nothing.
    soon("the twin's service", twin.in_service()).await;
    let tls = cluster.person(0, "client");
    let addr = twin.addr().to_string();
    let channel = connect(&tls, &addr, ExpectedPeer::any(), DialOptions::default()).unwrap();
    let mut client = VoteServiceClient::new(channel);
    for (tx_id, value) in [("open", 2), ("other", 2)] {
        let status = client.submit(number(tx_id, value)).await.unwrap_err();
        let expected = [Code::Unavailable, Code::FailedPrecondition];
        assert!(expected.contains(&status.code()), "{status:?}");
    }
    // The others decide without them, and nobody lied.
    vote_at(&cluster, 1..4, "other", 1).await;
    let ballot = ballot_in(&nodes[1], "other", &[BallotState::Confirmed]).await;
    assert_eq!(ballot.trustees[0].standing(), Standing::Missing);
    vote_at(&cluster, 1..3, "open", 1).await;
    ballot_in(&nodes[1], "open", &[BallotState::Confirmed]).await;
    let (id, tx_id) = (cluster.ids[0].clone(), TxId::new("open").unwrap());
    let look = move |engine: &quorate_engine::Engine| {
        let ballot = engine.board().ballot(&tx_id).unwrap();
        (engine.board().is_banned(&id), ballot.second_votes.len())
    };
    assert_eq!(nodes[1].look(look).await, Some((false, 0)));
}
