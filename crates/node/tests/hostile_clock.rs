//! A machine whose clock is wrong: a few seconds are nothing, minutes keep it from
//! voting and from holding up the others, and it says why.

mod common;

use common::*;
use quorate_consensus::wire::BallotState;
use quorate_node::health::Cause;
use quorate_node::{Faults, NodeHandle};
use tonic::Code;
use tonic_types::StatusExt as _;

async fn start_off(cluster: &mut Cluster, i: usize, ahead_ms: i64) -> NodeHandle {
    let faults = Faults {
        clock_ahead_ms: ahead_ms,
        ..Faults::default()
    };
    cluster.start_faulty(i, faults).await
}

#[tokio::test(flavor = "multi_thread")]
async fn five_seconds_either_way_work() {
    let mut cluster = Cluster::new(3, 3);
    let mut nodes = Vec::new();
    for (i, ahead_ms) in [5_000, -5_000, 0].into_iter().enumerate() {
        nodes.push(start_off(&mut cluster, i, ahead_ms).await);
    }
    for node in &nodes {
        connected(node, 2).await;
    }
    for round in 0..3 {
        let tx_id = format!("tx{round}");
        vote_at(
            &cluster,
            [round, (round + 1) % 3, (round + 2) % 3],
            &tx_id,
            1,
        )
        .await;
        for node in &nodes {
            ballot_in(node, &tx_id, &[BallotState::Confirmed]).await;
        }
    }
}

async fn five_minutes(ahead_ms: i64, side: &str) {
    let mut cluster = Cluster::new(4, 3);
    let mut nodes = Vec::new();
    for i in 0..3 {
        nodes.push(cluster.start(i).await);
    }
    for node in &nodes {
        connected(node, 2).await;
    }
    let off = start_off(&mut cluster, 3, ahead_ms).await;
    let found = off.until_found(|found| found.has(Cause::ClockOff));
    let found = soon("its clock is found off", found).await.unwrap();
    let finding = found.findings.iter().find(|f| f.cause == Cause::ClockOff);
    let detail = &finding.unwrap().detail;
    assert!(detail.contains(side), "{detail}");
    assert!(detail.contains("set it"), "{detail}");
    // Its clients hear it, and where to go.
    let status = cluster.client(3).submit(number("tx", 1)).await;
    let status = refused(status, Code::Unavailable, "NODE_CLOCK_OFF");
    assert!(status.message().contains(side), "{status}");
    assert!(status.get_details_retry_info().is_some());
    // Nothing of it reaches the board, where its time would hold up the others: they
    // decide and submit as if it were not there.
    vote_at(&cluster, 0..3, "tx", 1).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
    let time_ms = nodes[0].look(|engine| engine.board().time_ms()).await;
    assert!(
        time_ms.unwrap() < now_ms() + 60_000,
        "the board's time is right"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn five_minutes_ahead_are_refused_and_hold_up_nobody() {
    five_minutes(300_000, "ahead of").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_minutes_behind_are_refused_and_hold_up_nobody() {
    five_minutes(-300_000, "behind").await;
}
