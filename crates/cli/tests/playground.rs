//! `quorate dev` while one hurts it: every act, with nodes as tasks and as processes,
//! and what becomes of ballots meanwhile.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Dev, Home, Run, is_alive, signal, until, until_status};
use serde_json::Value;

/// `quorate dev ACT` against the test's cluster.
fn dev(home: &Home, act: &[&str]) -> Run {
    let line = [&["dev", "--data-dir", "cluster", "--json"], act].concat();
    home.run(&line)
}

/// It is done; gives how the playground stands then.
#[track_caller]
fn done(home: &Home, act: &[&str]) -> Value {
    dev(home, act).expect(0).json()
}

/// The entry of one node in a report.
fn node(report: &Value, number: usize) -> &Value {
    &report["nodes"][number - 1]
}

/// The trustees of these numbers vote.
#[track_caller]
fn vote(home: &Home, tx_id: &str, numbers: &[usize]) {
    for number in numbers {
        let node = format!("node{number}");
        let vote = ["vote", tx_id, "--value", "42", "--node", &node];
        home.run(&vote).expect(0);
    }
}

/// A node sees the ballot so.
#[track_caller]
fn until_state(home: &Home, number: usize, tx_id: &str, state: &str) -> Value {
    let node = format!("node{number}");
    until_status(home, &node, tx_id, |ballot| ballot["state"] == state)
}

/// A node neither takes a vote nor says that it did not: it is away.
#[track_caller]
fn votes_in_vain(home: &Home, tx_id: &str, number: usize) {
    let node = format!("node{number}");
    let vote = [
        "vote",
        tx_id,
        "--value",
        "42",
        "--node",
        &node,
        "--timeout",
        "2",
    ];
    let run = home.run(&vote);
    assert!(
        run.code == 3 || run.code == 5,
        "{}: {}{}",
        run.code,
        run.stdout,
        run.stderr
    );
}

/// A node has streams to these and to no others.
#[track_caller]
fn until_connected(home: &Home, number: usize, others: &[&str]) {
    let node = format!("node{number}");
    until(&format!("{node} to have streams to {others:?}"), || {
        let run = home.run(&["peers", "--node", &node, "--json"]);
        let peers = (run.code == 0).then(|| run.json())?;
        let peers = peers["peers"].as_array()?.iter();
        let connected = peers.filter(|peer| peer["connected"] == true);
        let names: Vec<_> = connected
            .filter_map(|peer| peer["node_id"].as_str())
            .collect();
        (names == others).then_some(())
    });
}

/// Down and up again, paused and resumed, cut off and healed, slowed down: a ballot
/// needs four, and gets them in the end.
fn survives(home: &Home, hurt: impl Fn(&[&str]) -> Value) {
    // One is down: the other four decide.
    let report = hurt(&["stop", "node5"]);
    assert_eq!(node(&report, 5)["state"], "stopped");
    assert_eq!(node(&report, 5)["in_service"], false);
    assert_eq!(node(&report, 5)["pid"], Value::Null);
    vote(home, "tx_stop", &[1, 2, 3, 4]);
    until_state(home, 4, "tx_stop", "CONFIRMED");
    // What it missed it learns.
    let report = hurt(&["start", "node5"]);
    assert_eq!(node(&report, 5)["state"], "running");
    until("node5 to say that it is in service", || {
        let report = hurt(&["status"]);
        (node(&report, 5)["in_service"] == true).then_some(())
    });
    until_state(home, 5, "tx_stop", "CONFIRMED");

    // Killed with its vote given: its vote stands.
    vote(home, "tx_kill", &[1, 2]);
    assert_eq!(node(&hurt(&["kill", "node2"]), 2)["state"], "killed");
    vote(home, "tx_kill", &[3, 4]);
    until_state(home, 1, "tx_kill", "CONFIRMED");
    hurt(&["start", "node2"]);

    // Paused, it answers nobody; resumed, it goes on.
    assert_eq!(node(&hurt(&["pause", "node1"]), 1)["state"], "paused");
    votes_in_vain(home, "tx_pause", 1);
    vote(home, "tx_pause", &[2, 3, 4]);
    hurt(&["resume", "node1"]);
    vote(home, "tx_pause", &[1]);
    until_state(home, 1, "tx_pause", "CONFIRMED");

    // Three of five decide nothing, and two without the board take no vote.
    let report = hurt(&["partition", "node1,node2", "node3,node4,node5"]);
    let boards: Vec<_> = (1..=5).map(|n| node(&report, n)["board"].clone()).collect();
    assert_eq!(boards, [false, false, true, true, true]);
    assert_eq!(node(&report, 1)["part"], 1);
    assert_eq!(node(&report, 5)["part"], 2);
    until_connected(home, 1, &["node2"]);
    until_connected(home, 4, &["node3", "node5"]);
    vote(home, "tx_cut", &[3, 4, 5]);
    votes_in_vain(home, "tx_cut", 1);
    let all_in = until_status(home, "node3", "tx_cut", |ballot| {
        ballot["votes_missing"] == 1
    });
    assert_eq!(all_in["state"], "COLLECTING");
    let report = hurt(&["heal"]);
    assert_eq!(node(&report, 1)["part"], 1);
    assert_eq!(node(&report, 1)["board"], true);
    until_connected(home, 1, &["node2", "node3", "node4", "node5"]);
    until("node1 to take the vote", || {
        let again = home.run(&["vote", "tx_cut", "--value", "42", "--node", "node1"]);
        (again.code == 0).then_some(())
    });
    until_state(home, 2, "tx_cut", "CONFIRMED");

    // Slow is not wrong.
    let report = hurt(&["delay", "node4", "200ms"]);
    assert_eq!(node(&report, 4)["delay_ms"], 200);
    vote(home, "tx_slow", &[1, 2, 3]);
    let began = Instant::now();
    vote(home, "tx_slow", &[4]);
    // Its request to the board waited, at least.
    assert!(began.elapsed() >= Duration::from_millis(200));
    until_state(home, 1, "tx_slow", "CONFIRMED");
    assert_eq!(node(&hurt(&["heal"]), 4)["delay_ms"], 0);
}

#[test]
fn a_ballot_survives_what_one_node_or_two_can_suffer() {
    let home = Home::new();
    let cluster = Dev::start(&home, &[]);
    survives(&home, |act| done(&home, act));
    let report = done(&home, &["status"]);
    assert_eq!(report["mode"], "tasks");
    assert_eq!(report["board"], "file");
    assert_eq!(node(&report, 1)["pid"], cluster.own_pid());
    assert_eq!(cluster.terminate(), 0);
}

#[test]
fn and_so_it_does_when_nodes_are_processes() {
    let home = Home::new();
    let cluster = Dev::start(&home, &["--processes"]);
    survives(&home, |act| done(&home, act));
    let report = done(&home, &["status"]);
    assert_eq!(report["mode"], "processes");
    assert_eq!(node(&report, 3)["pid"], cluster.pid(3));
    // What is done to a node outlives its process.
    done(&home, &["partition", "node3"]);
    let killed = cluster.pid(3);
    signal(killed, "KILL");
    until("another process", || {
        (cluster.pid(3) != killed).then_some(())
    });
    votes_in_vain(&home, "tx_again", 3);
    // A node that stands still ends with `dev` all the same.
    done(&home, &["pause", "node4"]);
    let pids: Vec<_> = (1..=5).map(|number| cluster.pid(number)).collect();
    signal(cluster.own_pid(), "KILL");
    until("all nodes to be gone", || {
        pids.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
}

#[test]
fn a_liar_aborts_one_ballot_and_is_lost() {
    let home = Home::new();
    let _cluster = Dev::start(&home, &[]);
    let report = done(&home, &["lie", "node5", "equivocate"]);
    assert_eq!(node(&report, 5)["state"], "lying");
    assert_eq!(node(&report, 5)["liar"], "double-vote");
    // It lies when it hears of a vote.
    vote(&home, "tx_lie", &[1]);
    let aborted = until_status(&home, "node1", "tx_lie", |ballot| {
        // The ban follows the end of the ballot.
        ballot["state"] == "ABORTED_BYZANTINE" && ballot["trustees"][4]["banned"] == true
    });
    assert_eq!(aborted["violations"][0]["node_id"], "node5");
    assert_eq!(aborted["violations"][0]["type"], "DOUBLE_VOTING");
    // The others decide without it, banned as it is.
    vote(&home, "tx_next", &[1, 2, 3, 4]);
    let confirmed = until_state(&home, 1, "tx_next", "CONFIRMED");
    assert_eq!(confirmed["trustees"][4]["banned"], true);
    // An honest node in its place is banned with it.
    let report = done(&home, &["start", "node5"]);
    assert_eq!(node(&report, 5)["state"], "running");
    assert_eq!(node(&report, 5)["liar"], Value::Null);
}

#[test]
fn a_ballot_times_out_while_the_network_is_cut() {
    let home = Home::new();
    let _cluster = Dev::start(&home, &["--vote-timeout", "2"]);
    done(&home, &["partition", "node1,node2"]);
    // Two start it: its deadline is counted from the second vote, however late that is.
    vote(&home, "tx_late", &[3, 4]);
    until_state(&home, 3, "tx_late", "ABORTED_TIMEOUT");
    done(&home, &["heal"]);
    // Whoever was cut off learns how it ended.
    until_state(&home, 1, "tx_late", "ABORTED_TIMEOUT");
}

#[test]
fn acts_that_cannot_be_say_why() {
    let home = Home::new();
    let nobody = dev(&home, &["status"]).expect(3);
    let hint = nobody.error()["hint"].to_string();
    assert!(hint.contains("quorate dev"), "{hint}");

    let cluster = Dev::start(&home, &["--nodes", "3", "--threshold", "2"]);
    for (act, code, word) in [
        (
            &["stop", "node9"][..],
            2,
            "the nodes are node1, node2, node3",
        ),
        (&["start", "node1"], 1, "quorate dev stop node1"),
        (&["resume", "node1"], 1, "paused"),
        (&["partition", "node1,node2,node3"], 2, "dev heal"),
        (
            &["partition", "node1", "node1"],
            2,
            "each node is in one part",
        ),
    ] {
        let error = dev(&home, act).expect(code).error();
        let hint = error["hint"].as_str().unwrap_or_default();
        assert!(hint.contains(word), "{act:?}: {error}");
    }
    // Clap says these.
    dev(&home, &["delay", "node1", "3s"]).expect(2);
    dev(&home, &["lie", "node1", "politely"]).expect(2);
    let mixed = dev(&home, &["--clean", "status"]).expect(2);
    assert!(mixed.stderr.contains("--clean"), "{}", mixed.stderr);
    // For people there is a table.
    let table = home
        .run(&["dev", "status", "--data-dir", "cluster"])
        .expect(0)
        .stdout;
    assert!(table.contains("in service"), "{table}");

    // The control is its owner's alone, and speaks a line for a line.
    let socket = home.path().join("cluster/control.sock");
    let mode = std::fs::metadata(&socket).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&socket).expect("a control");
    let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
    for (line, answer) in [
        ("nonsense\n", "error"),
        ("{\"act\":\"explode\"}\n", "error"),
        ("{\"act\":\"status\"}\n", "ok"),
    ] {
        stream.write_all(line.as_bytes()).expect("it is written");
        let told = lines.next().expect("an answer").expect("text");
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert!(told.get(answer).is_some(), "{line}: {told}");
    }

    // A running cluster is not deleted under its nodes.
    let clean = [
        "dev",
        "--data-dir",
        "cluster",
        "--base-port",
        "0",
        "--clean",
    ];
    let refused = home.run(&clean).expect(1);
    assert!(refused.stderr.contains("running already"));
    assert_eq!(cluster.terminate(), 0);
    assert!(!socket.exists());
}

#[test]
fn a_seed_makes_the_same_cluster_again_and_clean_another() {
    let home = Home::new();
    let id = |dev: &Dev| dev.ready()["cluster_id"].clone();
    let small = ["--nodes", "1", "--threshold", "1"];
    let start = |args: &[&str]| Dev::start(&home, &[&small[..], args].concat());

    let dev = start(&["--seed", "seven"]);
    let seeded = id(&dev);
    assert_eq!(dev.terminate(), 0);
    let log = std::fs::read_to_string(home.path().join("dev.log")).expect("a log");
    assert!(log.contains("worth nothing"), "{log}");
    // The same again: continued, and made anew.
    for args in [&["--seed", "seven"][..], &["--clean", "--seed", "seven"]] {
        let dev = start(args);
        assert_eq!(id(&dev), seeded, "{args:?}");
        assert_eq!(dev.terminate(), 0);
    }
    // Another seed is another cluster, and does not change the keys that are there.
    let other = [
        "dev",
        "--data-dir",
        "cluster",
        "--base-port",
        "0",
        "--seed",
        "8",
    ];
    let refused = home.run(&other).expect(2);
    assert!(refused.stderr.contains("--clean"), "{}", refused.stderr);
    let dev = start(&["--clean"]);
    assert_ne!(id(&dev), seeded);
    assert_eq!(dev.terminate(), 0);
    // What is no cluster is not deleted.
    std::fs::create_dir(home.path().join("letters")).expect("a directory");
    std::fs::write(home.path().join("letters/a"), "dear").expect("a file");
    let refused = home
        .run(&["dev", "--data-dir", "letters", "--clean"])
        .expect(2);
    assert!(refused.stderr.contains("nothing was deleted"));
    assert!(home.path().join("letters/a").exists());
}
