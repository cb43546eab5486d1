//! Votes per second that the etcd backend records, beside a plain client that does the
//! same to etcd by hand: batches of 64 guarded votes with 4 on their way. Both run in
//! turns against the same servers, so that the ratio says something on any machine.
//!
//! ```text
//! cargo run --release -p quorate-coordinator --features suite --example etcd -- \
//!     [--endpoints URL,URL] [--votes N] [--rounds N]
//! ```
//!
//! Without endpoints it starts one member of its own. Signatures are checked by a
//! verifier that costs nothing: what is measured is the coordination.

use std::sync::Arc;
use std::time::Instant;

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use quorate_consensus::wire::BoardOp;
use quorate_consensus::{Domain, PublicKey, Verifier};
use quorate_coordinator::etcd::{Options, Plain};
use quorate_coordinator::{Coordinator, Etcd};
use quorate_engine::Proposed;
use quorate_testkit::{Cluster, NOW, number, ops, servers, tx};

/// As the probe: nested transactions in one, and transactions on their way at once.
const BATCH: usize = 64;
const IN_FLIGHT: usize = 4;

/// Votes measured one by one.
const LONE: usize = 21;

/// As in the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes everything for signed.
struct Free;

impl Verifier for Free {
    fn verify(&self, _: &PublicKey, _: Domain, _: &[u8], _: &[u8]) -> bool {
        true
    }

    fn is_sound_key(&self, _: &PublicKey) -> bool {
        true
    }
}

fn argument(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let own = argument("--endpoints")
        .is_none()
        .then(|| servers::Etcd::of(1));
    let endpoints = match (argument("--endpoints"), &own) {
        (Some(list), _) => list.split(',').map(str::to_owned).collect(),
        (None, Some(own)) => own.endpoints(),
        (None, None) => Vec::new(),
    };
    let number_of = |name, or: usize| argument(name).and_then(|n| n.parse().ok()).unwrap_or(or);
    runtime.block_on(run(
        endpoints,
        number_of("--votes", 20_000),
        number_of("--rounds", 5),
    ));
}

async fn run(endpoints: Vec<String>, votes: usize, rounds: usize) {
    let cluster = Cluster::new(5, 3);
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let plain = by_hand(&endpoints, &format!("/bench/hand{round}/"), votes).await;
        println!("hand");
        let (ours, lone_us) = by_coordinator(&endpoints, &cluster, round, votes).await;
        let ratio = ours / plain;
        println!(
            "round {round}: by hand {plain:.0} votes/s, coordinator {ours:.0} votes/s, \
             ratio {ratio:.2}; a lone vote {lone_us:.0} µs"
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (ratios.first(), ratios.last()) {
        let median = ratios.get(ratios.len() / 2).unwrap_or(least);
        println!("ratio to the plain client: least {least:.2}, median {median:.2}, most {most:.2}");
    }
}

/// The least that anybody who records votes so must do: for each vote two guards, two
/// writes and the counter read back.
async fn by_hand(endpoints: &[String], prefix: &str, votes: usize) -> f64 {
    let client = Client::connect(endpoints, None)
        .await
        .expect("etcd answers");
    let begun = Instant::now();
    let per_worker = votes / IN_FLIGHT / BATCH;
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|worker| {
            let (mut client, prefix) = (client.clone(), prefix.to_owned());
            tokio::spawn(async move {
                for batch in 0..per_worker {
                    let steps = (0..BATCH).map(|i| {
                        let name = format!("{worker}-{batch}-{i}");
                        TxnOp::txn(guarded(&prefix, &name))
                    });
                    let txn = Txn::new().and_then(steps.collect::<Vec<_>>());
                    client.txn(txn).await.expect("etcd takes it");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker");
    }
    (per_worker * IN_FLIGHT * BATCH) as f64 / begun.elapsed().as_secs_f64()
}

fn guarded(prefix: &str, name: &str) -> Txn {
    let vote = format!("{prefix}votes/{name}/n1");
    let count = format!("{prefix}vote_counts/{name}/1");
    let banned = format!("{prefix}banned/n1");
    Txn::new()
        .when([
            Compare::create_revision(vote.clone(), CompareOp::Equal, 0),
            Compare::create_revision(banned, CompareOp::Equal, 0),
        ])
        .and_then([
            TxnOp::put(vote.clone(), vec![7; 200], None),
            TxnOp::put(count.clone(), "", None),
            TxnOp::get(count, None),
        ])
        .or_else([TxnOp::get(vote, None)])
}

/// Microseconds that a vote with nobody beside it takes: the middle one of several, after
/// a first one, which waits until etcd serves the new watch.
async fn lone_votes(etcd: &Etcd, cluster: &Cluster) -> f64 {
    let mut took = Vec::new();
    for i in 0..=LONE {
        let name = format!("lone-{i}");
        let lone = ops::record_vote(cluster.vote(0, &tx(&name), number(1), NOW));
        let begun = Instant::now();
        let answer = etcd.propose(lone, NOW).await;
        assert!(matches!(answer, Ok(Proposed::Applied(_))), "{answer:?}");
        if i > 0 {
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    took.sort_by(f64::total_cmp);
    took.get(LONE / 2).copied().unwrap_or_default()
}

async fn by_coordinator(
    endpoints: &[String],
    cluster: &Cluster,
    round: usize,
    votes: usize,
) -> (f64, f64) {
    let mut options = Options::new(endpoints.to_vec(), "bench");
    options.prefix = format!("/bench/coordinator{round}/");
    let rules = Arc::clone(cluster.rules());
    let opened = Etcd::open(options, rules, Arc::new(Free), Arc::new(Plain)).await;
    let etcd = Arc::new(opened.expect("etcd opens"));
    // Signed beforehand: that is the clients' work.
    let ops: Vec<BoardOp> = (0..votes)
        .map(|i| {
            let name = format!("{round}-{i}");
            ops::record_vote(cluster.vote(i % 5, &tx(&name), number(1), NOW))
        })
        .collect();
    let lone_us = lone_votes(&etcd, cluster).await;
    let begun = Instant::now();
    let waiting = BATCH * IN_FLIGHT * 2;
    let mut running = tokio::task::JoinSet::new();
    for op in ops {
        if running.len() >= waiting {
            running
                .join_next()
                .await
                .expect("some run")
                .expect("it ends");
        }
        let etcd = Arc::clone(&etcd);
        running.spawn(async move {
            let answer = etcd.propose(op, NOW).await;
            assert!(matches!(answer, Ok(Proposed::Applied(_))), "{answer:?}");
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("it ends");
    }
    (votes as f64 / begun.elapsed().as_secs_f64(), lone_us)
}
