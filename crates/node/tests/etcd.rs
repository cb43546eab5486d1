//! Real nodes whose board is in a real etcd: of three members, the leading one of which
//! is killed; by TLS and with a user; and put back to an older copy under them.

mod common;

use std::sync::Arc;

use common::{Cluster, ballot_in, banned, connected, in_etcd, number, soon, vote_at};
use quorate_consensus::wire::BallotState;
use quorate_node::reconcile::{Options, reconcile};
use quorate_node::{NodeHandle, Parts, StartError};
use quorate_testkit::servers::Etcd;
use quorate_testkit::servers::etcd::EtcdOptions;

async fn apart<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

async fn shut_down(nodes: Vec<NodeHandle>) {
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ballots_are_decided_while_the_leading_member_is_killed_and_a_node_comes_back() {
    let etcd = Arc::new(apart(|| Etcd::of(3)).await);
    let mut cluster = Cluster::new(5, 4);
    cluster.etcd = Some(in_etcd(&etcd));
    let mut nodes = cluster.start_all().await;
    vote_at(&cluster, 0..5, "before", 1).await;
    for node in &nodes {
        ballot_in(node, "before", &[BallotState::Confirmed]).await;
    }

    vote_at(&cluster, 0..3, "meanwhile", 2).await;
    let breaking = Arc::clone(&etcd);
    let leader = apart(move || {
        let leader = breaking.leader();
        breaking.kill(leader);
        leader
    })
    .await;
    let killed = nodes.remove(4);
    let generation = killed.look(|engine| engine.generation()).await.unwrap();
    killed.kill().await;
    vote_at(&cluster, [3], "meanwhile", 2).await;
    for node in &nodes {
        ballot_in(node, "meanwhile", &[BallotState::Confirmed]).await;
    }
    let mending = Arc::clone(&etcd);
    apart(move || {
        mending.restart(leader);
        mending.wait_healthy();
    })
    .await;

    let again = cluster.start(4).await;
    connected(&again, 4).await;
    for tx_id in ["before", "meanwhile"] {
        ballot_in(&again, tx_id, &[BallotState::Confirmed]).await;
    }
    assert!(again.look(|engine| engine.generation()).await.unwrap() > generation);
    nodes.push(again);
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dissenter_is_banned_on_every_node() {
    let mut cluster = Cluster::new(4, 3);
    let etcd = apart(Etcd::shared).await;
    cluster.etcd = Some(in_etcd(etcd));
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..2, "tx", 7).await;
    vote_at(&cluster, [3], "tx", 9).await;
    vote_at(&cluster, [2], "tx", 7).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::AbortedByzantine]).await;
        banned(node, &cluster.ids[3]).await;
    }
    shut_down(nodes).await;
}

/// Waits until a node has raised more alerts than before.
async fn alerted(node: &NodeHandle, before: u64) {
    soon("an alert", async {
        while node.counts().alerts <= before {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_writes_past_all_nodes_is_told_by_each_and_believed_by_none() {
    let mut cluster = Cluster::new(3, 2);
    let etcd = apart(Etcd::shared).await;
    let prefix = etcd.fresh_prefix();
    cluster.etcd = Some(format!(
        "coordinator = \"etcd\"\netcd_endpoints = {:?}\netcd_prefix = {prefix:?}",
        etcd.endpoints()
    ));
    let nodes = cluster.start_all().await;
    let before: Vec<_> = nodes.iter().map(|node| node.counts().alerts).collect();
    let forged = format!("{}/banned/{}", prefix.trim_end_matches('/'), cluster.ids[0]);
    let key = forged.clone();
    apart(move || etcd.put(&key, b"because I say so")).await;
    for (node, before) in nodes.iter().zip(before) {
        alerted(node, before).await;
    }
    vote_at(&cluster, 0..3, "tx", 1).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
    shut_down(nodes).await;

    // Nobody is there to mend it: whoever starts first finds it before it serves.
    apart(move || etcd.put(&forged, b"still")).await;
    let node = cluster.start(1).await;
    alerted(&node, 0).await;
    let own = cluster.ids[0].clone();
    let is_banned = node.look(move |engine| engine.board().is_banned(&own));
    assert_eq!(is_banned.await, Some(false));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_and_with_a_user() {
    let secured = EtcdOptions {
        tls: true,
        auth: true,
        ..EtcdOptions::default()
    };
    let etcd = apart(move || Etcd::start(secured)).await;
    let tls = etcd.tls().expect("it speaks TLS");
    let user = etcd.user().expect("it has users");
    let mut cluster = Cluster::new(3, 2);
    let lines = format!(
        "{}\netcd_ca_path = {:?}\netcd_cert_path = {:?}\netcd_key_path = {:?}\netcd_user = {:?}",
        in_etcd(&etcd),
        tls.certificates.ca(),
        tls.client.cert,
        tls.client.key,
        user.name,
    );
    cluster.etcd = Some(format!("{lines}\netcd_password = {:?}", user.password));
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..3, "tx", 1).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
    shut_down(nodes).await;

    cluster.etcd = Some(format!("{lines}\netcd_password = \"wrong\""));
    let config = cluster.config(0);
    let refused = apart(move || Parts::open(&config).err().unwrap()).await;
    let StartError::Board(error) = refused else {
        panic!("{refused}");
    };
    assert!(
        error.to_string().contains("authentication failed"),
        "{error}"
    );
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_put_back_to_an_older_copy_stops_signing_until_it_is_reconciled() {
    let etcd = Arc::new(apart(|| Etcd::of(1)).await);
    let mut cluster = Cluster::new(3, 2);
    cluster.etcd = Some(in_etcd(&etcd));
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..3, "kept", 1).await;
    for node in &nodes {
        ballot_in(node, "kept", &[BallotState::Confirmed]).await;
    }
    let saving = Arc::clone(&etcd);
    let backup = apart(move || saving.snapshot()).await;
    vote_at(&cluster, 0..3, "lost", 1).await;
    for node in &nodes {
        ballot_in(node, "lost", &[BallotState::Confirmed]).await;
    }
    let restoring = Arc::clone(&etcd);
    apart(move || restoring.restore_older(&backup)).await;
    for (i, node) in nodes.iter().enumerate() {
        // What asks the board makes the node look; how it is answered is no matter.
        soon("the node stops", async {
            while node.look(|engine| engine.is_stopped()).await != Some(true) {
                let mut client = cluster.client(i);
                let _ = client.submit(number("after", 1)).await;
            }
        })
        .await;
        ballot_in(node, "lost", &[BallotState::Confirmed]).await;
    }
    shut_down(nodes).await;

    for i in 0..3 {
        let done = reconcile(cluster.config(i), Options::default()).await;
        let done = done.unwrap();
        // A client's vote may have come onto the older copy before its node looked; then
        // what was lost comes behind it.
        assert!(done.may_sign && done.conflicts.is_empty(), "{done:?}");
        assert!(i > 0 || !done.lost.is_empty());
        assert!(done.reserved.iter().all(|reserved| reserved.fits));
    }
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..3, "after", 1).await;
    for node in &nodes {
        for tx_id in ["kept", "lost", "after"] {
            ballot_in(node, tx_id, &[BallotState::Confirmed]).await;
        }
    }
    shut_down(nodes).await;
}
