//! A node that says how it is: its loops are frozen, its stores stopped, its certificate
//! runs out, and each time it says so, why, and when it is over.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::scrape::{Samples, get};
use common::{Cluster, ballot_in, in_etcd, soon, vote_at};
use quorate_consensus::wire::BallotState;
use quorate_node::{Cause, Faults, Freezer, HealthLimits, Loop, NodeHandle, Parts};
use quorate_proto::v1::vote_service_server::SERVICE_NAME;
use quorate_testkit::servers::{Durability, Etcd, Postgres};
use quorate_tls::pki::{self, SignRequest, Validity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// As in earnest, in shorter times.
fn quick(parts: &mut Parts) {
    parts.health_limits = HealthLimits {
        every: Duration::from_millis(50),
        silence: Duration::from_millis(500),
        ..HealthLimits::default()
    };
}

/// Waits until it is ready, by the node and by whoever asks.
async fn ready(node: &NodeHandle) {
    let what = format!("{} ready", node.node_id());
    soon(&what, async {
        loop {
            node.until_found(|found| found.is_ready()).await.unwrap();
            let (status, body) = get(node.health_addr().unwrap(), "/ready").await;
            if status == 200 {
                assert!(body.contains("\"ready\":true"), "{body}");
                return;
            }
        }
    })
    .await;
}

/// Waits until it is not ready for this cause, by the node and by whoever asks.
async fn not_ready(node: &NodeHandle, cause: Cause) {
    let what = format!("{}: {}", node.node_id(), cause.word());
    let body = soon(&what, async {
        loop {
            node.until_found(|found| found.has(cause)).await.unwrap();
            let (status, body) = get(node.health_addr().unwrap(), "/ready").await;
            if status == 503 && body.contains(cause.word()) {
                return body;
            }
        }
    })
    .await;
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["ready"], false);
    assert_eq!(told["node_id"], node.node_id().as_str());
    let causes = told["causes"].as_array().unwrap();
    let found = causes.iter().find(|found| found["cause"] == cause.word());
    let found = found.unwrap_or_else(|| panic!("no {} in {body}", cause.word()));
    assert!(!found["detail"].as_str().unwrap().is_empty());
    assert_eq!(found["do"], cause.advice());
    // Not ready, and alive.
    let (status, body) = get(node.health_addr().unwrap(), "/health").await;
    assert_eq!(status, 200, "{body}");
}

/// What the node says of a service by gRPC.
async fn serving(cluster: &Cluster, i: usize, service: &str, expected: bool) {
    let mut health = HealthClient::new(cluster.channel(i, &cluster.person(i, "client")));
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let wanted = match expected {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    };
    let mut answers = health.watch(request).await.unwrap().into_inner();
    soon(&format!("{service:?}: {wanted:?}"), async {
        while let Some(answer) = answers.message().await.unwrap() {
            if answer.status() == wanted {
                return;
            }
        }
        panic!("the watch ended");
    })
    .await;
}

async fn apart<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_stands_still_is_named_until_it_moves_again() {
    let mut cluster = Cluster::new(1, 1);
    let freezer = Freezer::default();
    freezer.freeze(Loop::Certificates);
    let faults = Faults {
        freezer: Some(freezer.clone()),
        ..Faults::default()
    };
    let start = cluster.start_with(0, |parts| {
        quick(parts);
        parts.faults = faults;
    });
    let node = start.await;
    not_ready(&node, Cause::CertificatesStalled).await;
    freezer.thaw(Loop::Certificates);
    ready(&node).await;
    for (which, cause) in [
        (Loop::Driver, Cause::DriverStalled),
        (Loop::Follower, Cause::FollowerStalled),
        (Loop::Projector, Cause::ProjectorStalled),
    ] {
        freezer.freeze(which);
        not_ready(&node, cause).await;
        let samples = Samples::of(&node).await;
        let series = format!("not_ready{{cause=\"{}\"}}", cause.word());
        assert!(samples.value(&series) > 0.0, "{series}");
        freezer.thaw(which);
        ready(&node).await;
    }
    serving(&cluster, 0, "", true).await;
    freezer.freeze(Loop::Follower);
    serving(&cluster, 0, SERVICE_NAME, false).await;
    freezer.thaw(Loop::Follower);
    serving(&cluster, 0, SERVICE_NAME, true).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_stopped_and_comes_back() {
    let etcd = Arc::new(apart(|| Etcd::of(3)).await);
    let mut cluster = Cluster::new(1, 1);
    cluster.etcd = Some(in_etcd(&etcd));
    let node = cluster.start_with(0, quick).await;
    ready(&node).await;
    let members = |samples: &Samples| -> f64 {
        let up = |at: &String| samples.value(&format!("etcd_member_up{{endpoint=\"{at}\"}}"));
        etcd.endpoints().iter().map(up).sum()
    };
    let all_up = async |wanted: f64| {
        soon(&format!("{wanted} members up"), async {
            while (members(&Samples::of(&node).await) - wanted).abs() > 0.5 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    all_up(3.0).await;
    // One of three is nobody's trouble but the operator's.
    let breaking = etcd.clone();
    apart(move || breaking.kill(2)).await;
    all_up(2.0).await;
    ready(&node).await;
    let breaking = etcd.clone();
    apart(move || breaking.kill(1)).await;
    not_ready(&node, Cause::BoardUnavailable).await;
    serving(&cluster, 0, SERVICE_NAME, false).await;
    serving(&cluster, 0, "quorate.board", false).await;
    serving(&cluster, 0, "quorate.audit", true).await;
    let mending = etcd.clone();
    apart(move || {
        mending.restart(1);
        mending.restart(2);
        mending.wait_healthy();
    })
    .await;
    ready(&node).await;
    all_up(3.0).await;
    serving(&cluster, 0, SERVICE_NAME, true).await;
    vote_at(&cluster, [0], "after", 1).await;
    ballot_in(&node, "after", &[BallotState::Confirmed]).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_near_its_end_is_named() {
    let etcd = apart(Etcd::shared).await;
    let mut cluster = Cluster::new(1, 1);
    cluster.etcd = Some(in_etcd(etcd));
    let node = cluster
        .start_with(0, |parts| {
            quick(parts);
            // Near from the first byte on.
            parts.health_limits.quota_percent = 0;
        })
        .await;
    // Members before 3.6 do not tell their quota.
    let tells = !etcd.version().starts_with("3.4") && !etcd.version().starts_with("3.5");
    match tells {
        true => not_ready(&node, Cause::BoardQuota).await,
        false => ready(&node).await,
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_stopped_and_comes_back_and_votes_are_taken_meanwhile() {
    let server = Arc::new(apart(|| Postgres::start(Durability::Kept)).await);
    let making = server.clone();
    let database = apart(move || making.database()).await;
    let mut cluster = Cluster::new(1, 1);
    cluster.postgres_url = Some(database.url());
    let node = cluster.start_with(0, quick).await;
    ready(&node).await;
    let stopping = server.clone();
    apart(move || stopping.stop()).await;
    not_ready(&node, Cause::AuditUnavailable).await;
    serving(&cluster, 0, "", false).await;
    serving(&cluster, 0, "quorate.audit", false).await;
    serving(&cluster, 0, SERVICE_NAME, true).await;
    vote_at(&cluster, [0], "meanwhile", 1).await;
    ballot_in(&node, "meanwhile", &[BallotState::Submitted]).await;
    let mending = server.clone();
    apart(move || mending.start_again()).await;
    ready(&node).await;
    ballot_in(&node, "meanwhile", &[BallotState::Confirmed]).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_runs_out_and_is_renewed() {
    let mut cluster = Cluster::new(1, 1);
    let node = cluster
        .start_with(0, |parts| {
            quick(parts);
            // Near its end is when it has ended.
            parts.health_limits.expiry = Duration::ZERO;
        })
        .await;
    ready(&node).await;
    let (files, ca_dir) = (cluster.files(0), cluster.home(0).with_file_name("ca"));
    let certify = |lasts: Duration| {
        let now = SystemTime::now();
        let request = SignRequest {
            ca_dir: ca_dir.clone(),
            csr: files.csr.clone(),
            node_id: cluster.ids[0].clone(),
            sans: Vec::new(),
            out: files.cert.clone(),
            validity: Validity {
                not_before: now - Duration::from_secs(60),
                not_after: now + lasts,
            },
        };
        pki::sign_request(&request).unwrap();
    };
    // It must be good when it is read; a machine that is too slow for that tries again.
    soon("a short-lived certificate", async {
        loop {
            certify(Duration::from_secs(3));
            if node.reload_certificates().await.is_ok() {
                return;
            }
        }
    })
    .await;
    not_ready(&node, Cause::CertificateExpiring).await;
    let samples = Samples::of(&node).await;
    assert!(samples.value("certificate_expiry_seconds{certificate=\"node\"}") <= 0.0);
    assert!(samples.value("ready") < 1.0);
    certify(Duration::from_secs(3600));
    node.reload_certificates().await.unwrap();
    ready(&node).await;
    node.shutdown().await;
}
