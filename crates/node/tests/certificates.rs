//! Certificates change while nodes run: nobody is cut off who need not be, and whoever
//! is revoked is cut off at once.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::scrape::Samples;
use common::*;
use quorate_consensus::NodeId;
use quorate_consensus::wire::{self, BallotState};
use quorate_node::exchange::RawSession;
use quorate_node::{Cause, NodeHandle, Parts};
use quorate_tls::pki::{
    self, InitCa, PersonFiles, Renew, Revoke, SignRequest, Validity, serial_issued_by,
};
use quorate_tls::{DialOptions, ExpectedPeer, Registry, Serial, TlsMaterial, TlsPaths, dial};

/// The cluster's CA, and the lists that all nodes read.
struct Ca {
    dir: PathBuf,
    crl: PathBuf,
}

impl Ca {
    fn of(cluster: &Cluster) -> Self {
        let dir = cluster.ca_cert().parent().unwrap().to_owned();
        let crl = dir.join("all.crl");
        Self { dir, crl }
    }

    fn revoke(&self, serials: Vec<Serial>) {
        revoke(
            &self.crl,
            (self.cert(), pki::cluster_ca_key(&self.dir)),
            serials,
        );
    }

    fn cert(&self) -> PathBuf {
        pki::cluster_ca_cert(&self.dir)
    }

    /// Lets node `i` read the list.
    fn read_by(&self, cluster: &Cluster, i: usize) -> impl FnOnce(&mut Parts) + use<> {
        let files = cluster.files(i);
        let paths = TlsPaths {
            ca_cert: self.cert(),
            clients_ca: Some(files.clients_ca_cert),
            node_cert: files.cert,
            node_key: files.key,
            crl: Some(self.crl.clone()),
        };
        move |parts| parts.tls = TlsMaterial::load(paths).unwrap()
    }
}

fn revoke(crl: &Path, (ca_cert, ca_key): (PathBuf, PathBuf), serials: Vec<Serial>) {
    pki::revoke(&Revoke {
        ca_cert,
        ca_key,
        serials,
        crl: crl.to_owned(),
        validity: Validity::leaf(),
    })
    .unwrap();
}

/// Waits until the node by itself uses what its files hold.
async fn uses(node: &NodeHandle, cert: &Path) {
    let serial = pki::show(&std::fs::read(cert).unwrap()).unwrap().serial;
    soon("a new certificate in use", async {
        while node.certificate().serial != serial {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Waits until a node has exactly these streams.
async fn streams_to(node: &NodeHandle, wanted: &[&NodeId]) {
    let wanted: Vec<NodeId> = wanted.iter().map(|id| (*id).clone()).collect();
    let what = format!("{} with streams to {wanted:?} only", node.node_id());
    let look =
        move |engine: &quorate_engine::Engine| engine.connected().eq(wanted.iter()).then_some(());
    soon(&what, node.until(look)).await.unwrap();
}

fn opened(nodes: &[NodeHandle]) -> Vec<u64> {
    nodes.iter().map(|n| n.counts().streams_opened).collect()
}

/// Whether a stream still answers.
async fn answers(session: &mut RawSession) {
    let ping = wire::frame::Body::Ping(wire::Ping { token: 7 });
    session.send(ping).await.unwrap();
    let pong = session.receive_until(|body| match body {
        wire::frame::Body::Pong(pong) => Some(pong.token),
        _ => None,
    });
    assert_eq!(soon("a pong", pong).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_during_votes_and_no_stream_is_dropped() {
    let mut cluster = Cluster::new(4, 3);
    let nodes = cluster.start_all().await;
    let before = opened(&nodes);
    let (ca, renewed) = (Ca::of(&cluster), Arc::new(AtomicBool::new(false)));

    let votes = async {
        let mut count = 0;
        // The last ballot begins after the last renewal.
        loop {
            let last = renewed.load(Ordering::Acquire);
            let tx_id = format!("tx-{count}");
            vote_at(&cluster, 0..4, &tx_id, 1).await;
            ballot_in(&nodes[0], &tx_id, &[BallotState::Confirmed]).await;
            count += 1;
            if last {
                return count;
            }
        }
    };
    let renewals = async {
        for round in 0..2 {
            for (i, node) in nodes.iter().enumerate() {
                let files = cluster.files(i);
                pki::renew(&Renew {
                    cert: files.cert.clone(),
                    ca_cert: ca.cert(),
                    ca_key: pki::cluster_ca_key(&ca.dir),
                    crl: None,
                    new_key: (round == 1).then(|| files.key.clone()),
                    out: files.cert.clone(),
                    validity: Validity::leaf(),
                })
                .unwrap();
                uses(node, &files.cert).await;
            }
        }
        renewed.store(true, Ordering::Release);
    };
    let (votes, ()) = tokio::join!(votes, renewals);
    assert!(votes > 0);
    assert_eq!(opened(&nodes), before, "a stream was lost and opened again");
    // Whoever comes now is shown the new certificate.
    for (i, node) in nodes.iter().enumerate() {
        let (client, addr) = (cluster.person(i, "client"), cluster.addr(i));
        let options = DialOptions::default();
        let registry = Registry::new();
        let dialled = dial(&client, &addr, ExpectedPeer::any(), &registry, options);
        let digest = dialled.await.unwrap().peer.certificate_digest;
        assert_eq!(digest, node.certificate().digest);
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_loses_its_streams_and_its_clients_and_nobody_else_does() {
    let mut cluster = Cluster::new(5, 3);
    let ca = Ca::of(&cluster);
    ca.revoke(Vec::new());
    let mut nodes = Vec::new();
    for i in 0..5 {
        let read = ca.read_by(&cluster, i);
        nodes.push(cluster.start_with(i, read).await);
    }
    for node in &nodes {
        connected(node, 4).await;
    }
    let before = opened(&nodes[..4]);
    // One connection each that lives on through it all, or does not.
    let mut clients: Vec<_> = (0..5).map(|i| cluster.client(i)).collect();
    for client in &mut clients {
        client.list(wire::ListRequest::default()).await.unwrap();
    }
    let accepted: Vec<_> = nodes.iter().map(NodeHandle::accepted_connections).collect();

    let ids = cluster.ids.clone();
    let fifth = serial_issued_by(&cluster.files(4).cert, &ca.cert()).unwrap();
    ca.revoke(vec![fifth]);
    // All read it by themselves; to measure, the first is told to.
    nodes[0].reload_certificates().await.unwrap();
    let read = Instant::now();
    let others = |i: usize| {
        ids[..4]
            .iter()
            .filter(|id| **id != ids[i])
            .collect::<Vec<_>>()
    };
    streams_to(&nodes[0], &others(0)).await;
    let took = read.elapsed();
    // How soon depends on the machine, and is printed.
    eprintln!("the revoked node's stream was gone {took:?} after the list was read");
    for (i, node) in nodes.iter().enumerate().take(4).skip(1) {
        streams_to(node, &others(i)).await;
    }
    streams_to(&nodes[4], &[]).await;
    // The revoked node takes nobody any more, not even its own clients, and says so.
    let revoked = |found: &quorate_node::Readiness| found.has(Cause::CertificateRevoked);
    soon("not ready", nodes[4].until_found(revoked))
        .await
        .unwrap();
    let call = clients[4].list(wire::ListRequest::default()).await;
    assert!(call.is_err(), "{call:?}");
    soon("it refuses connections and raises an alert", async {
        while !nodes[4].refused_connections().contains_key("own_revoked")
            || nodes[4].counts().alerts == 0
        {
            // The call above may have ended with the connection that it had.
            let _ = clients[4].list(wire::ListRequest::default()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    // The others vote on, over the same streams and connections.
    for client in &mut clients[..4] {
        client.submit(number("after", 1)).await.unwrap();
    }
    for node in &nodes[..4] {
        ballot_in(node, "after", &[BallotState::Confirmed]).await;
    }
    assert_eq!(opened(&nodes[..4]), before);
    for (i, node) in nodes.iter().enumerate().take(4) {
        assert_eq!(node.accepted_connections(), accepted[i], "node {i}");
    }

    // With a new certificate it is one of them again, without a restart.
    let files = cluster.files(4);
    pki::sign_request(&SignRequest {
        ca_dir: ca.dir.clone(),
        csr: files.csr.clone(),
        node_id: ids[4].clone(),
        sans: Vec::new(),
        out: files.cert.clone(),
        validity: Validity::leaf(),
    })
    .unwrap();
    uses(&nodes[4], &files.cert).await;
    for node in &nodes {
        connected(node, 4).await;
    }
    clients[4].list(wire::ListRequest::default()).await.unwrap();
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_is_gone_and_the_operator_beside_it_is_not() {
    let mut cluster = Cluster::new(1, 1);
    let ca = Ca::of(&cluster);
    let files = cluster.files(0);
    let own_ca = (files.clients_ca_cert.clone(), files.clients_ca_key.clone());
    revoke(&ca.crl, own_ca.clone(), Vec::new());
    let read = ca.read_by(&cluster, 0);
    let node = cluster.start_with(0, read).await;
    connected(&node, 0).await;
    let mut client = cluster.client(0);
    let operator = cluster.channel(0, &cluster.person(0, "operator"));
    let mut operator = tonic_health::pb::health_client::HealthClient::new(operator);
    let health = tonic_health::pb::HealthCheckRequest::default;
    client.list(wire::ListRequest::default()).await.unwrap();
    operator.check(health()).await.unwrap();
    let accepted = node.accepted_connections();

    let cert = PersonFiles::in_dir(&cluster.home(0), "client").cert;
    let serial = serial_issued_by(&cert, &own_ca.0).unwrap();
    revoke(&ca.crl, own_ca, vec![serial]);
    soon("the client is refused", async {
        while client.list(wire::ListRequest::default()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    operator.check(health()).await.unwrap();
    assert_eq!(
        node.accepted_connections(),
        accepted,
        "over the connection that it had"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_old_one_in_force_and_is_told() {
    let mut cluster = Cluster::new(2, 2);
    let ca = Ca::of(&cluster);
    ca.revoke(Vec::new());
    let read = ca.read_by(&cluster, 0);
    let first = cluster.start_with(0, read).await;
    let nodes = [first, cluster.start(1).await];
    for node in &nodes {
        connected(node, 1).await;
    }
    let (before, own) = (opened(&nodes), nodes[0].certificate());
    let files = cluster.files(0);
    let told = |samples: &Samples| samples.value("alerts_total{alert=\"certificates_not_taken\"}");
    let mut alerts = 0.0;
    for file in [&files.cert, &files.key, &ca.crl] {
        let good = std::fs::read(file).unwrap();
        std::fs::write(file, "nonsense").unwrap();
        // The node finds out by itself, and tells it once it is sure.
        soon("an alert", async {
            loop {
                let now = told(&Samples::of(&nodes[0]).await);
                if now > alerts {
                    alerts = now;
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let why = nodes[0].reload_certificates().await.unwrap_err();
        assert!(why.contains(file.to_str().unwrap()), "{why}");
        assert_eq!(nodes[0].certificate(), own);
        let tx_id = format!("tx-{}", file.extension().unwrap().to_str().unwrap());
        vote_at(&cluster, 0..2, &tx_id, 1).await;
        ballot_in(&nodes[0], &tx_id, &[BallotState::Confirmed]).await;
        std::fs::write(file, good).unwrap();
        nodes[0].reload_certificates().await.unwrap();
        alerts = told(&Samples::of(&nodes[0]).await);
    }
    assert_eq!(opened(&nodes), before);
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cluster_ca_replaces_another_while_nodes_run() {
    let mut cluster = Cluster::new(4, 3);
    let ca = Ca::of(&cluster);
    ca.revoke(Vec::new());
    let mut nodes = Vec::new();
    for i in 0..3 {
        let read = ca.read_by(&cluster, i);
        nodes.push(cluster.start_with(i, read).await);
    }
    for node in &nodes {
        connected(node, 2).await;
    }
    // A member whose node never hears of the new CA.
    let mut late = cluster.raw(3, 0).await;
    let before = opened(&nodes);

    let next = ca.dir.with_file_name("next");
    let made = pki::init_cluster_ca(&InitCa {
        dir: next.clone(),
        cluster_name: "test".to_owned(),
        validity: Validity::authority(),
    });
    let new = std::fs::read_to_string(made.unwrap()).unwrap();
    let old = std::fs::read_to_string(ca.cert()).unwrap();
    let write = |path: &Path, text: &str| {
        quorate_crypto::file::write_atomic(path, text.as_bytes(), 0o644).unwrap();
    };
    // First everybody trusts both, and holds the lists of both …
    let bundle = ca.dir.join("ca.crt");
    write(&bundle, &format!("{old}{new}"));
    let both = (pki::cluster_ca_cert(&next), pki::cluster_ca_key(&next));
    revoke(&ca.crl, both, Vec::new());
    for node in &nodes {
        node.reload_certificates().await.unwrap();
    }
    // … then each gets a certificate by the new one …
    for (i, node) in nodes.iter().enumerate() {
        let files = cluster.files(i);
        pki::sign_request(&SignRequest {
            ca_dir: next.clone(),
            csr: files.csr.clone(),
            node_id: cluster.ids[i].clone(),
            sans: Vec::new(),
            out: files.cert.clone(),
            validity: Validity::leaf(),
        })
        .unwrap();
        uses(node, &files.cert).await;
    }
    assert_eq!(opened(&nodes), before, "nothing was dropped so far");
    answers(&mut late).await;
    // … and then the old one is trusted no more: what was built on it ends and is built
    // anew on the other.
    std::fs::remove_file(&ca.crl).unwrap();
    let new_ca = (pki::cluster_ca_cert(&next), pki::cluster_ca_key(&next));
    revoke(&ca.crl, new_ca, Vec::new());
    write(&bundle, &new);
    for node in &nodes {
        node.reload_certificates().await.unwrap();
    }
    soon("the end of the last one", late.ended()).await.unwrap();
    for node in &nodes {
        connected(node, 2).await;
    }
    vote_at(&cluster, 0..3, "tx", 1).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}
