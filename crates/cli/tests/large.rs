//! A cluster of 25 on one machine: its statements travel along a mesh.

mod common;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::Value;

use common::{Dev, Home, until};

const N: usize = 25;

/// Two thirds of N, rounded up.
const T: usize = 17;

/// What a node tells about itself, by series.
fn metrics(node: &Value) -> BTreeMap<String, f64> {
    let address = node["health"].as_str().expect("an address");
    let mut stream = TcpStream::connect(address).expect("a node");
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let lines = answer.lines().filter(|line| line.starts_with("quorate_"));
    let read = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        (series.to_owned(), value.parse().expect("a number"))
    };
    lines.map(read).collect()
}

fn all_metrics(dev: &Dev) -> Vec<BTreeMap<String, f64>> {
    let ready = dev.ready();
    let nodes = ready["nodes"].as_array().expect("nodes");
    nodes.iter().map(metrics).collect()
}

fn sum(of: &[BTreeMap<String, f64>], series: &str) -> f64 {
    let values = of.iter().map(|samples| {
        let value = samples.get(series);
        *value.unwrap_or_else(|| panic!("no {series}"))
    });
    values.sum()
}

#[test]
fn twenty_five_nodes_decide_over_a_mesh() {
    let begun = Instant::now();
    let home = Home::new();
    let dev = Dev::start(&home, &["--nodes", "25"]);
    let ready_after = begun.elapsed();

    // Each has a stream to every other one, and some of them in its mesh.
    let before = until("every stream and every mesh", || {
        let all = all_metrics(&dev);
        let connected = |samples: &BTreeMap<String, f64>| -> f64 {
            let peers = samples.iter();
            let peers = peers.filter(|(series, _)| series.starts_with("quorate_peer_connected"));
            peers.map(|(_, value)| value).sum()
        };
        let whole = all.iter().all(|samples| {
            let degree = samples["quorate_gossip_mesh_peers"];
            connected(samples) == (N - 1) as f64 && (4.0..=12.0).contains(&degree)
        });
        whole.then_some(all)
    });
    assert_eq!(before.len(), N);

    let begun = Instant::now();
    let mut vote: Vec<String> = ["vote", "tx_001", "--value", "42"].map(String::from).into();
    for number in 1..=T {
        vote.extend(["--node".into(), format!("node{number:02}")]);
    }
    let vote: Vec<&str> = vote.iter().map(String::as_str).collect();
    home.run(&vote).expect(0);
    let recorded_after = begun.elapsed();
    for node in ["node01", "node25"] {
        until(&format!("{node} to see it CONFIRMED"), || {
            let run = home.run(&["status", "tx_001", "--node", node, "--json"]);
            let ballot = (run.code == 0).then(|| run.json())?;
            (ballot["state"] == "CONFIRMED").then_some(())
        });
    }
    let confirmed_after = begun.elapsed();

    // The votes of t, and what all others sign: decisions and observations.
    let after = all_metrics(&dev);
    let more = |series: &str| sum(&after, series) - sum(&before, series);
    let frames = more("quorate_gossip_messages_total{direction=\"sent\"}");
    let pushed = more("quorate_gossip_statements_total{what=\"pushed\"}");
    let statements = (T + 2 * N) as f64;
    println!(
        "ready after {ready_after:.1?}, {T} votes recorded after {recorded_after:.1?}, \
         confirmed after {confirmed_after:.1?}; {frames} frames, {pushed} copies of at most \
         {statements} statements, {:.0} of each",
        pushed / statements
    );
    // Along the mesh, and not to everybody from everybody: that would be N (N - 1).
    let most = statements * (N * 12) as f64;
    assert!(pushed > 0.0 && pushed <= most, "{pushed} copies");
    assert_eq!(dev.terminate(), 0);
}
