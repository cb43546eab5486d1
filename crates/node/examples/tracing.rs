//! What tracing costs: votes in a second with traces off, of one transaction in a
//! hundred, and of all, as ratios, in one run.
//!
//! ```text
//! cargo run --release -p quorate-node --example tracing [seconds per slice] [rounds]
//! ```
//!
//! Four nodes in this process, each with an embedded board, decide with three votes;
//! 32 ballots are under way at once, and a vote counts when the board has recorded it.
//! The collector runs in this process too and throws away what it gets, so what it
//! costs is in the figures. The three modes take turns, each slice on a fresh cluster.

#[path = "../tests/common/mod.rs"]
mod common;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Cluster, connected, number};
use quorate_node::config::TelemetrySection;
use quorate_node::{Limits, NodeHandle};
use quorate_telemetry::otlp;
use quorate_testkit::servers::Collector;

/// Ballots under way at once.
const AT_ONCE: usize = 32;

/// Trustees that vote, of four.
const VOTERS: usize = 3;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        let given = arguments.next();
        given.map_or(default, |text| text.parse().expect("a whole number"))
    };
    let (each, rounds) = (Duration::from_secs(number(5)), number(4));
    let modes = [
        ("off", None),
        ("sampled 1 %", Some(0.01)),
        ("full", Some(1.0)),
    ];
    let mut rates = vec![Vec::new(); modes.len()];
    let (mut exported, mut dropped) = (vec![0; modes.len()], vec![0; modes.len()]);
    for round in 0..=rounds {
        for (mode, (name, ratio)) in modes.iter().enumerate() {
            let slice = slice(*ratio, each).await;
            println!("round {round}: {name:<12} {:>7.0} votes/s", slice.rate);
            // The first round warms up.
            if round > 0 {
                rates[mode].push(slice.rate);
                exported[mode] += slice.exported;
                dropped[mode] += slice.dropped;
            }
        }
    }
    println!("\ntraces        votes/s (median)  ratio  spans exported  dropped");
    let medians: Vec<_> = rates.iter_mut().map(|rates| median(rates)).collect();
    for (mode, (name, _)) in modes.iter().enumerate() {
        println!(
            "{name:<12} {:>17.0}  {:>5.3}  {:>14}  {:>7}",
            medians[mode],
            medians[mode] / medians[0],
            exported[mode],
            dropped[mode]
        );
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    let middle = rates.len() / 2;
    match rates.len() % 2 {
        0 => (rates[middle - 1] + rates[middle]) / 2.0,
        _ => rates[middle],
    }
}

struct Slice {
    rate: f64,
    exported: u64,
    dropped: u64,
}

/// One mode for a while.
async fn slice(ratio: Option<f64>, each: Duration) -> Slice {
    let collector = Collector::discarding();
    let mut cluster = Cluster::new(4, 3);
    let telemetry = match ratio {
        None => TelemetrySection::default(),
        Some(sample_ratio) => TelemetrySection {
            otlp_endpoint: otlp::endpoint(&collector.endpoint()).ok(),
            sample_ratio,
            ..TelemetrySection::default()
        },
    };
    let many = NonZeroU32::MAX;
    let limits = Limits {
        calls_per_sec: many,
        burst: many,
        frames_per_sec: many,
        unstarted_per_client: many,
        ..Limits::default()
    };
    let mut nodes = Vec::new();
    for i in 0..4 {
        let node = cluster.start_with(i, |parts| {
            parts.telemetry = telemetry.clone();
            parts.limits = limits;
        });
        nodes.push(node.await);
    }
    for node in &nodes {
        connected(node, 3).await;
    }
    let (next, recorded) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..VOTERS).map(|i| cluster.client(i)).collect();
    let began = Instant::now();
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (next, recorded) = (next.clone(), recorded.clone());
            let clients = clients.clone();
            tokio::spawn(async move {
                while began.elapsed() < each {
                    let tx_id = format!("t{}", next.fetch_add(1, Ordering::Relaxed));
                    for mut client in clients.clone() {
                        let answer = client.submit(number(&tx_id, 1)).await;
                        answer.expect("the vote is recorded");
                        recorded.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker that does not panic");
    }
    let rate = recorded.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    let counts = |of: fn(quorate_telemetry::ExportCounts) -> u64| -> u64 {
        let counts = nodes.iter().filter_map(NodeHandle::span_counts);
        counts.map(of).sum()
    };
    let slice = Slice {
        rate,
        exported: counts(|counts| counts.exported),
        dropped: counts(|counts| counts.dropped),
    };
    for node in nodes {
        node.kill().await;
    }
    slice
}
