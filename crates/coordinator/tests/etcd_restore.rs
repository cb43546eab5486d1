//! An etcd that is put back to an older copy, as an operator does with a backup, and
//! nodes that read it before, meanwhile and afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use quorate_consensus::Value;
use quorate_consensus::wire::BoardEntry;
use quorate_coordinator::etcd::{Options, Plain};
use quorate_coordinator::{Coordinator as _, Etcd};
use quorate_engine::Proposed;
use quorate_keyspace::What;
use quorate_testkit::servers::{self, Proxy, Way};
use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops, tx};
use tokio::task::block_in_place;

/// Longer than anything takes; only what never happens reaches it.
const GUARD: Duration = Duration::from_secs(120);

async fn open(cluster: &Cluster, endpoint: String) -> Etcd {
    let mut options = Options::new(vec![endpoint], "test");
    // For the slowest machines.
    options.propose_timeout = Duration::from_secs(60);
    let opened = Etcd::open(
        options,
        Arc::clone(cluster.rules()),
        Arc::new(FakeVerifier),
        Arc::new(Plain),
    );
    opened.await.expect("it opens")
}

async fn vote(cluster: &Cluster, handle: &Etcd, member: usize, name: &str) {
    let value: Value = number(7);
    let vote = cluster.vote(member, &tx(name), value, NOW);
    let proposed = handle.propose(ops::record_vote(vote), NOW).await;
    assert!(matches!(proposed, Ok(Proposed::Applied(_))), "{proposed:?}");
}

/// The digests of the log's entries, in order; none from who has found the rollback.
async fn log(handle: &Etcd) -> Vec<String> {
    let entries = handle.entries(0, 1000).await.unwrap_or_default();
    let digest = |entry: &BoardEntry| {
        let digest = blake3::hash(&entry.encode_to_vec()).to_hex();
        digest[..8].to_owned()
    };
    entries.iter().map(digest).collect()
}

/// What is written last before the store is put back, and lost.
#[derive(Clone, Copy, Debug)]
enum Last {
    Vote,
    /// No record of the log: as a lock that ends, or a view that is put right.
    View,
}

/// A node that was away while the store was put back, and while others wrote as much
/// as was lost, so that the store's revision tells it nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_noticed_by_who_was_away() {
    for (last, written) in [
        (Last::Vote, 1),
        (Last::Vote, 2),
        (Last::Vote, 5),
        (Last::View, 1),
        (Last::View, 3),
    ] {
        notices(last, written).await;
    }
}

async fn notices(last: Last, written: usize) {
    let cluster = Cluster::new(5, 4);
    let servers = block_in_place(|| servers::Etcd::of(1));
    let proxy = Proxy::to(servers.port(0));
    let away = open(&cluster, proxy.endpoint()).await;
    let first = open(&cluster, servers.endpoint(0)).await;
    vote(&cluster, &first, 0, "kept").await;
    let backup = block_in_place(|| servers.snapshot());
    match last {
        Last::Vote => vote(&cluster, &first, 1, "lost").await,
        Last::View => {
            let client = etcd_client::Client::connect([servers.endpoint(0)], None).await;
            let mut client = client.expect("it connects");
            let put = client.put("/quorate/test/head", "", None).await;
            put.expect("it is written");
        }
    }
    away.head().await.expect("it has read what will be lost");
    proxy.set(Way::Refuse);
    drop(first);

    block_in_place(|| servers.restore_older(&backup));
    let next = open(&cluster, servers.endpoint(0)).await;
    for other in 0..written {
        vote(&cluster, &next, 2, &format!("other{other}")).await;
    }
    let mut findings = away.findings();
    proxy.set(Way::Forward);
    let begun = Instant::now();
    loop {
        let told = findings.try_recv();
        if told.is_ok_and(|f| matches!(f.what, What::RolledBack { .. })) {
            return;
        }
        let (believed, stored) = (log(&away).await, log(&next).await);
        assert!(
            begun.elapsed() < GUARD,
            "{last:?} lost, {written} written since: one node believes {believed:?}, another {stored:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
