//! One address is enough: nodes find each other, find each other again, and speak the
//! protocol of whoever is a version behind.

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::scrape::Samples;
use common::*;
use quorate_consensus::wire::{BallotState, frame};
use quorate_consensus::words::goodbye_word;
use quorate_consensus::{Address, NodeId};
use quorate_engine::{PROTOCOL_MIN, PROTOCOL_VERSION};
use quorate_node::config::PeerAddress;
use quorate_node::exchange::RawSession;
use quorate_node::{Node, NodeHandle, Parts};

/// Within this time a member must be in service after its start.
const IN_SERVICE: Duration = Duration::from_secs(30);

/// Node `i` with one bootstrap address, without an id: that of node `first`.
fn knows_only(cluster: &Cluster, first: usize) -> impl FnOnce(&mut Parts) + use<> {
    let address: PeerAddress = cluster.addr(first).parse().unwrap();
    move |parts| parts.peers = vec![address]
}

/// Waits until this node knows exactly these addresses.
async fn knows(node: &NodeHandle, wanted: Vec<(NodeId, String)>) {
    let what = format!("{} knows {wanted:?}", node.node_id());
    let look = move |engine: &quorate_engine::Engine| {
        let known = engine
            .addresses()
            .map(|(id, at)| (id.clone(), at.to_string()));
        known.eq(wanted.iter().cloned()).then_some(())
    };
    soon(&what, node.until(look)).await.unwrap();
}

/// The other nodes' addresses, as node `i` should know them.
fn others(cluster: &Cluster, i: usize) -> Vec<(NodeId, String)> {
    let others = (0..cluster.ids.len()).filter(|j| *j != i);
    others
        .map(|j| (cluster.ids[j].clone(), cluster.addr(j)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_is_enough() {
    let mut cluster = Cluster::new(5, 3);
    let mut nodes = Vec::new();
    // Nobody tells the first of anybody; the last alone knows it by its lowest id, and
    // the others know the last.
    for i in 0..5 {
        let first = if i == 4 { 0 } else { 4 };
        let change = knows_only(&cluster, first);
        let alone = i == 0;
        let began = std::time::Instant::now();
        let node = cluster
            .start_with(i, |parts| {
                change(parts);
                if alone {
                    parts.peers.clear();
                }
            })
            .await;
        assert!(soon("in service", node.in_service()).await);
        assert!(began.elapsed() < IN_SERVICE, "{:?}", began.elapsed());
        nodes.push(node);
    }
    for (i, node) in nodes.iter().enumerate() {
        connected(node, 4).await;
        knows(node, others(&cluster, i)).await;
    }
    vote_at(&cluster, 0..5, "tx", 1).await;
    for node in &nodes {
        ballot_in(node, "tx", &[BallotState::Confirmed]).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_is_found_again_and_who_restarts_remembers() {
    let mut cluster = Cluster::new(4, 3);
    let mut nodes = Vec::new();
    for i in 0..4 {
        let change = knows_only(&cluster, 0);
        nodes.push(cluster.start_with(i, change).await);
    }
    for node in &nodes {
        connected(node, 3).await;
    }
    // The second starts on another port. It has no bootstrap address any more, and the
    // others have none of it: it remembers them, and they hear where it is now.
    nodes.remove(1).shutdown().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let moved = socket.local_addr().unwrap();
    let again = cluster
        .start_with(1, |parts| {
            parts.listener = socket;
            parts.peers.clear();
        })
        .await;
    nodes.insert(1, again);
    for node in &nodes {
        connected(node, 3).await;
    }
    let at = |i: usize| match i {
        1 => moved.to_string(),
        _ => cluster.addr(i),
    };
    let wanted = |i: usize| -> Vec<_> {
        let others = (0..4).filter(|j| *j != i);
        others.map(|j| (cluster.ids[j].clone(), at(j))).collect()
    };
    for (i, node) in nodes.iter().enumerate() {
        knows(node, wanted(i)).await;
    }
    // Everybody restarts, without any address: what the journals hold is enough.
    while let Some(node) = nodes.pop() {
        node.kill().await;
    }
    for i in 0..4 {
        let node = cluster.start_with(i, |parts| {
            parts.peers.clear();
            if i == 1 {
                parts.listener = TcpListener::bind(moved).unwrap();
            }
        });
        nodes.push(node.await);
    }
    for node in &nodes {
        connected(node, 3).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_advertised_is_what_the_others_dial() {
    let mut cluster = Cluster::new(2, 2);
    // The second says a name, by which the first reaches it, and dials nobody.
    let port = cluster
        .addr(1)
        .parse::<std::net::SocketAddr>()
        .unwrap()
        .port();
    let name = Address::new(&format!("localhost:{port}")).unwrap();
    let advertised = name.clone();
    let second = cluster
        .start_with(1, |parts| {
            parts.advertise = Some(advertised);
            parts.peers.clear();
        })
        .await;
    let first = cluster.start_with(0, |_| {}).await;
    connected(&first, 1).await;
    knows(&first, vec![(cluster.ids[1].clone(), name.to_string())]).await;
    // Restarted without a bootstrap address, it resolves that name.
    first.kill().await;
    let first = cluster.start_with(0, |parts| parts.peers.clear()).await;
    connected(&first, 1).await;
    connected(&second, 1).await;
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn this_version_and_the_one_before_decide_together() {
    let mut cluster = Cluster::new(4, 3);
    let mut nodes = Vec::new();
    for i in 0..4 {
        let older = (i % 2 == 0).then_some((PROTOCOL_MIN, PROTOCOL_MIN));
        nodes.push(cluster.start_with(i, |parts| parts.speaks = older).await);
    }
    for node in &nodes {
        connected(node, 3).await;
    }
    for (i, node) in nodes.iter().enumerate() {
        for (j, id) in cluster.ids.iter().enumerate().filter(|(j, _)| *j != i) {
            let wanted = if i % 2 + j % 2 == 2 {
                PROTOCOL_VERSION
            } else {
                PROTOCOL_MIN
            };
            let id = id.clone();
            let spoken = node.look(move |engine| engine.version_with(&id)).await;
            assert_eq!(spoken, Some(Some(wanted)), "{i} with {j}");
        }
    }
    for round in 0..3 {
        let tx_id = format!("tx-{round}");
        vote_at(&cluster, 0..4, &tx_id, 1).await;
        for node in &nodes {
            ballot_in(node, &tx_id, &[BallotState::Confirmed]).await;
        }
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_common_version_there_is_a_reason_and_an_alert() {
    let mut cluster = Cluster::new(2, 2);
    let later = Some((PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 1));
    let first = cluster.start(0).await;
    let second = cluster.start_with(1, |parts| parts.speaks = later).await;
    for node in [&first, &second] {
        soon("an alert", async {
            let alert = "alerts_total{alert=\"no_common_version\"}";
            while Samples::of(node).await.value(alert) < 1.0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let count = node.look(|engine| engine.connected().count()).await;
        assert_eq!(count, Some(0));
    }
    // The reason is said to whoever is refused.
    let mut session = RawSession::connect(&cluster.target(0, 1)).await.unwrap();
    let greeted = session
        .greet(&cluster.rules, &cluster.ids[0], &cluster.node_key(0), 1)
        .await;
    let said = match greeted {
        Err(error) => error.to_string(),
        // Its own hello came before its goodbye.
        Ok(_) => {
            let goodbye = session.receive_until(|body| match body {
                frame::Body::Goodbye(goodbye) => Some(goodbye),
                _ => None,
            });
            let goodbye = goodbye.await.unwrap();
            format!("{} {}", goodbye_word(goodbye.reason()), goodbye.detail)
        }
    };
    assert!(said.contains("VERSION"), "{said}");
    assert!(said.contains("upgrade the older"), "{said}");
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_dial_each_other_keep_one_stream() {
    let mut cluster = Cluster::new(5, 3);
    let nodes = cluster.start_all().await;
    // Every pair has one stream, and it stays: nobody ends another's to open its own.
    let ids = cluster.ids.clone();
    let mut opened = Vec::new();
    for round in 0..20 {
        let tx_id = format!("tx-{round}");
        vote_at(&cluster, 0..5, &tx_id, 1).await;
        ballot_in(&nodes[0], &tx_id, &[BallotState::Confirmed]).await;
        if round == 4 {
            // Two that dialled each other at one moment have settled it by now.
            opened.extend(nodes.iter().map(|n| n.counts().streams_opened));
        }
    }
    for (i, node) in nodes.iter().enumerate() {
        let peers: Vec<_> = ids.iter().filter(|id| **id != ids[i]).cloned().collect();
        let now = node.look(|engine| engine.connected().cloned().collect::<Vec<_>>());
        assert_eq!(now.await.unwrap(), peers);
        assert_eq!(node.counts().streams_opened, opened[i], "node {i}");
    }
    for node in nodes {
        node.shutdown().await;
    }
}

/// A member that was told of by nobody but itself is found, whichever way round: the
/// one that listens may be the one that knows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_knows_dials() {
    for knowing in [0, 1] {
        let mut cluster = Cluster::new(2, 2);
        let mut nodes = Vec::new();
        for i in 0..2 {
            let mut parts = cluster.parts(i);
            if i != knowing {
                parts.peers.clear();
            }
            nodes.push(Node::start(parts).await.unwrap());
        }
        for node in &nodes {
            connected(node, 1).await;
        }
        for node in nodes {
            node.shutdown().await;
        }
    }
}
