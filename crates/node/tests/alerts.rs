//! Alerts that leave a node by the webhook: to an Alertmanager that this test plays.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use common::scrape::Samples;
use common::{Cluster, ballot_in, soon, vote_at};
use quorate_chain::{Chain as _, ChainKey, Ledger, LedgerOptions};
use quorate_consensus::wire::{BallotState, Reservation};
use quorate_engine::{ChainAnswer, ChainAsk, SendOutcome};
use quorate_node::{NodeHandle, Parts};
use serde_json::Value;
use tokio::sync::mpsc;

/// What it is to answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// It takes everything, but for the first so many deliveries.
    FailsFirst(usize),
    /// It takes the connection and never answers.
    Silent,
}

struct Manager {
    mood: Mood,
    asked: AtomicUsize,
    alerts: mpsc::UnboundedSender<Value>,
}

async fn take(State(manager): State<Arc<Manager>>, body: String) -> StatusCode {
    let asked = manager.asked.fetch_add(1, Ordering::SeqCst);
    match manager.mood {
        Mood::FailsFirst(failures) if asked < failures => StatusCode::SERVICE_UNAVAILABLE,
        Mood::FailsFirst(_) => {
            let alerts: Vec<Value> = serde_json::from_str(&body).unwrap();
            for alert in alerts {
                manager.alerts.send(alert).unwrap();
            }
            StatusCode::OK
        }
        Mood::Silent => std::future::pending().await,
    }
}

/// Where it listens, and what reaches it.
async fn manager(mood: Mood) -> (SocketAddr, mpsc::UnboundedReceiver<Value>, Arc<Manager>) {
    let (alerts, arrived) = mpsc::unbounded_channel();
    let manager = Arc::new(Manager {
        mood,
        asked: AtomicUsize::new(0),
        alerts,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let routes = Router::new()
        .route("/api/v2/alerts", post(take))
        .with_state(manager.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (addr, arrived, manager)
}

/// A node that alerts there and looks at nothing by itself: what arrives was sent when
/// it happened, and not at the next look or scrape.
fn alerting(addr: SocketAddr) -> impl Fn(&mut Parts) {
    move |parts| {
        parts.telemetry.alert_webhook = Some(format!("http://{addr}").parse().unwrap());
        parts.health_limits.every = Duration::from_secs(3600);
    }
}

/// Four nodes, of which the first alerts there.
async fn first_alerting(cluster: &mut Cluster, addr: SocketAddr) -> Vec<NodeHandle> {
    let mut nodes = vec![cluster.start_with(0, alerting(addr)).await];
    for i in 1..4 {
        nodes.push(cluster.start(i).await);
    }
    for node in &nodes {
        common::connected(node, 3).await;
    }
    nodes
}

/// Trustee 4 dissents, and the ballot is aborted.
async fn abort(cluster: &Cluster, tx_id: &str) {
    vote_at(cluster, 0..2, tx_id, 7).await;
    vote_at(cluster, [3], tx_id, 9).await;
    vote_at(cluster, [2], tx_id, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_and_the_liar_reach_the_webhook_at_once() {
    let (addr, mut arrived, manager) = manager(Mood::FailsFirst(2)).await;
    let mut cluster = Cluster::new(4, 3);
    let nodes = first_alerting(&mut cluster, addr).await;
    abort(&cluster, "tx").await;
    let mut names = Vec::new();
    soon("the abort and the liar", async {
        while !(names.contains(&"QuorateTransactionAborted".to_owned())
            && names.contains(&"QuorateMisbehaviour".to_owned()))
        {
            let alert = arrived.recv().await.unwrap();
            let labels = &alert["labels"];
            assert_eq!(labels["cluster"], "test");
            assert_eq!(labels["severity"], "critical");
            let name = labels["alertname"].as_str().unwrap();
            match name {
                "QuorateTransactionAborted" => assert_eq!(labels["tx_id"], "tx"),
                "QuorateMisbehaviour" => assert_eq!(labels["node_id"], "node4"),
                other => panic!("{other} was raised: {alert}"),
            }
            assert_eq!(alert["annotations"]["raised_by"], "node1");
            let starts = alert["startsAt"].as_str().unwrap();
            assert!(
                starts.starts_with("20") && starts.ends_with('Z'),
                "{starts}"
            );
            names.push(name.to_owned());
        }
    })
    .await;
    assert!(
        manager.asked.load(Ordering::SeqCst) > 2,
        "it was tried again"
    );
    let delivered = f64::from(u32::try_from(names.len()).unwrap());
    let samples = soon("the count", async {
        loop {
            let samples = Samples::of(&nodes[0]).await;
            if samples.value("alerts_delivered_total") >= delivered {
                return samples;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!((samples.value("alert_failures_total") - 2.0).abs() < 1e-9);
    assert!(samples.value("alerts_dropped_total").abs() < 1e-9);
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_detection_to_the_webhook() {
    let (addr, mut arrived, _manager) = manager(Mood::FailsFirst(0)).await;
    let mut cluster = Cluster::new(4, 3);
    let nodes = first_alerting(&mut cluster, addr).await;
    abort(&cluster, "tx").await;
    // The clock of the whole minute that everything here is waited for; the limit of
    // 100 ms depends on the machine, and is printed.
    soon("an alert", arrived.recv()).await.unwrap();
    let samples = soon("the time it took", async {
        loop {
            let samples = Samples::of(&nodes[0]).await;
            if samples.value("alert_delivery_duration_seconds_count") > 0.0 {
                return samples;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let sum = samples.value("alert_delivery_duration_seconds_sum");
    let count = samples.value("alert_delivery_duration_seconds_count");
    println!(
        "{count} alerts, {:.1} ms each from detection to the webhook's answer",
        sum / count * 1e3
    );
    assert!(samples.value("alert_failures_total").abs() < 1e-9);
    for node in nodes {
        node.shutdown().await;
    }
}

/// Somebody with the chain's key sends past the cluster: the next transaction of the
/// account.
async fn send_past(cluster: &Cluster, ledger: &Ledger, nonce: u64) {
    let target = cluster.rules.chain();
    let reservation = Reservation {
        account: target.account.clone(),
        nonce,
        payload: b"mine".to_vec(),
    };
    let attempt = 0;
    let prepared = ledger
        .ask(ChainAsk::Prepare {
            reservation,
            attempt,
        })
        .await;
    let ChainAnswer::Prepared(prepared) = prepared else {
        panic!("{prepared:?}");
    };
    let sent = ledger.ask(ChainAsk::Send { raw: prepared.raw }).await;
    assert_eq!(sent, ChainAnswer::Sent(SendOutcome::Accepted));
}

/// Waits until the node has read blocks so many times more.
async fn looked(node: &NodeHandle, times: f64) {
    let series =
        "chain_operation_duration_seconds_count{operation=\"recent_blocks\",outcome=\"ok\"}";
    let before = Samples::of(node).await.value_or(series, 0.0);
    soon("the node looks at the chain", async {
        while Samples::of(node).await.value_or(series, 0.0) < before + times {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_no_reservation_explains_is_told() {
    let (addr, mut arrived, _manager) = manager(Mood::FailsFirst(0)).await;
    let mut cluster = Cluster::new(1, 1);
    let node = cluster.start_with(0, alerting(addr)).await;
    common::connected(&node, 0).await;
    // What counts is what is new after its first look; the health monitor looks three
    // times at most.
    looked(&node, 5.0).await;
    vote_at(&cluster, [0], "ours", 1).await;
    ballot_in(&node, "ours", &[BallotState::Confirmed]).await;
    looked(&node, 4.0).await;
    let raised = "alerts_total{alert=\"orphan_submission\"}";
    assert!(
        Samples::of(&node).await.value(raised) < 1.0,
        "ours is explained"
    );

    let key = ChainKey::read(&cluster.shared().with_file_name("chain.key")).unwrap();
    let target = cluster.rules.chain();
    let options = LedgerOptions::for_target(target, Some(key));
    let ledger = Ledger::open(cluster.shared().join("ledger.db"), options).unwrap();
    send_past(&cluster, &ledger, target.first_nonce + 1).await;
    let alert = soon("the stranger is found", arrived.recv()).await.unwrap();
    assert_eq!(alert["labels"]["alertname"], "QuorateOrphanSubmission");
    let said = alert["annotations"]["summary"].as_str().unwrap();
    assert!(said.contains("no reservation explains"), "{said}");
    // Told once, however often it is looked at.
    looked(&node, 4.0).await;
    assert!(Samples::of(&node).await.value(raised) < 2.0);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_never_answers_is_in_nobodys_way() {
    let (addr, _arrived, manager) = manager(Mood::Silent).await;
    let mut cluster = Cluster::new(4, 3);
    let mut nodes = Vec::new();
    for i in 0..4 {
        nodes.push(cluster.start_with(i, alerting(addr)).await);
    }
    for node in &nodes {
        common::connected(node, 3).await;
    }
    abort(&cluster, "bad").await;
    soon("it is asked", async {
        while manager.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    vote_at(&cluster, 0..3, "good", 1).await;
    for node in &nodes {
        ballot_in(node, "good", &[BallotState::Confirmed]).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}
