//! The operator's commands on a cluster that `quorate dev` has just started, by the
//! contexts that it wrote.

mod common;

use serde_json::Value;

use common::{Dev, Home, PATIENCE, until, until_status, until_streams};

const NODES: [&str; 4] = ["node1", "node2", "node3", "node4"];

/// The names of an object's fields, for scripts rely on them.
#[track_caller]
fn fields(object: &Value, expected: &[&str]) {
    let object = object.as_object().expect("an object");
    let mut found: Vec<_> = object.keys().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn json(home: &Home, args: &[&str]) -> Value {
    home.run(&[args, &["--json"]].concat()).expect(0).json()
}

/// Four trustees, three of whom decide.
fn dev(home: &Home) -> Dev {
    Dev::start(home, &["--nodes", "4", "--threshold", "3"])
}

#[test]
fn everything_an_operator_sees_is_there_right_after_dev() {
    let home = Home::new();
    let dev = dev(&home);
    let seen = json(&home, &["info"]);
    fields(&seen, &["nodes"]);
    let node = &seen["nodes"][0];
    fields(node, &["node", "ok", "answer"]);
    let info = &node["answer"];
    fields(
        info,
        &[
            "node_id",
            "peer_id",
            "version",
            "cluster_name",
            "cluster_id",
            "rules",
            "server_time_ms",
            "started_ms",
            "generation",
            "protocol_min",
            "protocol_max",
            "in_service",
            "signing_stopped",
            "ready",
            "causes",
            "coordinator",
            "board_revision",
            "audit_store",
            "audit_revision",
            "chain",
            "listen_addr",
            "health_addr",
            "certificate_not_after_ms",
            "log_level",
            "ballots",
            "queues",
        ],
    );
    fields(
        &info["queues"],
        &[
            "mailbox",
            "requests",
            "own_votes",
            "held_votes",
            "held_entries",
            "questions",
            "transactions",
            "streams",
            "audit_lag",
        ],
    );
    assert_eq!(
        (&info["node_id"], &info["in_service"]),
        (&"node1".into(), &true.into())
    );
    assert_eq!(info["cluster_id"], dev.ready()["cluster_id"]);
    assert_eq!(info["log_level"], "error");
    let all = json(&home, &["info", "--all"]);
    let nodes = all["nodes"].as_array().expect("a list").iter();
    let names: Vec<_> = nodes.map(|node| node["node"].clone()).collect();
    assert_eq!(names, NODES);
    let text = home.run(&["info"]).expect(0).stdout;
    assert!(text.contains("N = 4, t = 3"), "{text}");

    let peers = until_streams(&home, "node1");
    fields(&peers, &["node_id", "peers"]);
    fields(
        &peers["peers"][0],
        &[
            "node_id",
            "peer_id",
            "connected",
            "remote_addr",
            "outgoing",
            "banned",
            "refused",
            "generation",
        ],
    );
    assert_eq!(peers["peers"].as_array().map(Vec::len), Some(3));
    until_streams(&home, "node2");
    let text = home.run(&["peers", "--node", "node2"]).expect(0).stdout;
    assert!(
        text.contains("as node2 sees them") && text.contains("from "),
        "{text}"
    );

    let said = json(&home, &["reputation"]);
    fields(&said, &["trustees"]);
    fields(
        &said["trustees"][0],
        &[
            "node_id",
            "peer_id",
            "thousandths",
            "total_votes",
            "violations",
            "absences",
            "banned",
            "banned_for",
            "banned_since_ms",
            "accused_by",
            "unban_acts_by",
        ],
    );
    let one = home.run(&["reputation", "node3"]).expect(0).stdout;
    assert!(one.contains("1.000") && !one.contains("node2"), "{one}");
    assert_eq!(home.run(&["violations"]).expect(0).stdout, "none\n");

    // The log of the process, in which all nodes of this cluster live.
    let set = json(&home, &["log-level", "warn", "--node", "node2"]);
    assert_eq!(set["nodes"][0]["answer"]["level"], "warn");
    assert_eq!(set["nodes"][0]["answer"]["previous"], "error");
    let text = home.run(&["log-level", "error", "--all"]).expect(0).stdout;
    assert!(text.contains("logs error"), "{text}");
    let bad = home.run(&["log-level", "loud", "--json"]).expect(2).error();
    assert_eq!(bad["reason"], "FIELD_INVALID");

    // A client is no operator, and told what to do.
    let node = dev.node(1);
    let path = |name: &str| node[name].as_str().expect("a path").to_owned();
    let by_flags = |cert: &str, key: &str| {
        let (cacert, cert, key) = (path("cacert"), path(cert), path(key));
        let endpoint = path("endpoint");
        let args = ["info", "--endpoint", &endpoint, "--cacert", &cacert];
        home.run(&[&args[..], &["--cert", &cert, "--key", &key, "--json"]].concat())
    };
    by_flags("operator_cert", "operator_key").expect(0);
    let refused = by_flags("cert", "key").expect(1).error();
    assert_eq!(refused["reason"], "WRONG_ROLE");

    // A context without an operator's certificate says what to do about it.
    let text = std::fs::read_to_string(home.contexts()).expect("contexts");
    let lines = text.lines().filter(|line| !line.starts_with("operator_"));
    let without: String = lines.map(|line| format!("{line}\n")).collect();
    std::fs::write(home.contexts(), without).expect("contexts");
    for args in [&["info"][..], &["info", "--all"]] {
        let lacking = home.run(args).expect(2).stderr;
        assert!(
            lacking.contains("quorate certs issue --role operator"),
            "{lacking}"
        );
    }
    assert_eq!(dev.terminate(), 0);
}

#[test]
fn one_bans_for_its_node_and_all_for_the_cluster_and_all_lift_it() {
    let home = Home::new();
    let dev = dev(&home);
    let first = json(&home, &["ban", "node4"]);
    fields(&first, &["trustee", "banned", "nodes"]);
    assert_eq!(
        (&first["trustee"], &first["banned"]),
        (&"node4".into(), &false.into())
    );
    let answer = &first["nodes"][0]["answer"];
    fields(
        answer,
        &["node_id", "accused", "accused_by", "threshold", "banned"],
    );
    assert_eq!(answer["accused_by"], serde_json::json!(["node1"]));
    let peers = home.run(&["peers"]).expect(0).stdout;
    assert!(peers.contains("refused by this node"), "{peers}");
    let said = home.run(&["reputation", "node4"]).expect(0).stdout;
    assert!(said.contains("accused by node1"), "{said}");
    let early = home.run(&["unban", "node4", "--json"]).expect(1);
    assert_eq!(early.error()["reason"], "NOT_BANNED");
    home.run(&["ban", "node1"]).expect(2);
    home.run(&["ban", "nobody"]).expect(2);

    let text = home.run(&["ban", "node4", "--all"]).expect(0).stdout;
    for node in ["node1", "node2", "node3"] {
        assert!(text.contains(node), "{text}");
    }
    until("the cluster's ban", || {
        let said = json(&home, &["reputation", "node4"]);
        (said["trustees"][0]["banned"] == true).then_some(())
    });
    home.run(&["vote", "tx", "--value", "1", "--node", "node4"])
        .expect(1);

    let found = json(&home, &["violations", "--save", "evidence"]);
    fields(
        &found,
        &[
            "violations",
            "accusations",
            "bans",
            "truncated",
            "from_record",
        ],
    );
    let ban = &found["bans"][0];
    fields(
        ban,
        &["node_id", "type", "since_ms", "proof_digest", "proof"],
    );
    assert_eq!(ban["type"], "OPERATOR");
    fields(
        &found["accusations"][0],
        &["node_id", "by", "kind", "tx_id", "time_ms", "accusation"],
    );
    let digest = ban["proof_digest"].as_str().expect("a digest").to_owned();
    let count = |args: &[&str], kind: &str| {
        let found = json(&home, &[&["violations"], args].concat());
        found[kind].as_array().map(Vec::len)
    };
    assert_eq!(count(&["--trustee", "node4"], "accusations"), Some(3));
    assert_eq!(
        count(&["--trustee", "node4", "--limit", "2"], "accusations"),
        Some(2)
    );
    assert_eq!(count(&["--trustee", "node1"], "accusations"), Some(0));
    assert_eq!(count(&["tx_001"], "bans"), Some(0));
    assert_eq!(count(&["--tx-id", "tx_001"], "accusations"), Some(0));
    let cluster_id = dev.ready()["cluster_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let proof = "evidence/node4-ban-OPERATOR.proof";
    home.run(&["verify", proof, "--cluster-id", &cluster_id])
        .expect(0);

    let wrong = "00".repeat(32);
    home.run(&["unban", "node4", "--pardon", &wrong]).expect(2);
    home.run(&["unban", "node4", "--pardon", "00"]).expect(2);
    let one = json(&home, &["unban", "node4", "--pardon", &digest]);
    fields(&one, &["trustee", "lifted", "nodes"]);
    assert_eq!(one["lifted"], false);
    fields(
        &one["nodes"][0]["answer"],
        &[
            "node_id",
            "act",
            "pardoned",
            "acts_by",
            "threshold",
            "lifted",
        ],
    );
    let said = home.run(&["reputation", "node4"]).expect(0).stdout;
    assert!(said.contains("to be lifted, say"), "{said}");
    let all = json(&home, &["unban", "node4", "--all"]);
    assert_eq!(all["lifted"], true, "{all}");
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(4));
    until("the vote of who was banned", || {
        let vote = ["vote", "tx", "--value", "1", "--node", "node4"];
        (home.run(&vote).code == 0).then_some(())
    });
    assert_eq!(dev.terminate(), 0);
}

#[test]
fn a_message_is_shown_where_it_goes_and_a_drained_node_is_gone() {
    let home = Home::new();
    let dev = dev(&home);
    // A message goes over the stream to its node.
    until_streams(&home, "node1");
    let mut watch = home.command();
    let watch = watch
        .args(["watch", "--node", "node2", "--json", "--from", "1"])
        .stdout(std::process::Stdio::piped());
    let mut watch = watch.spawn().expect("the binary runs");
    let output = watch.stdout.take().expect("its output");
    let (line, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for text in std::io::BufRead::lines(std::io::BufReader::new(output)) {
            let Ok(text) = text else { return };
            if line.send(text).is_err() {
                return;
            }
        }
    });
    // What was there before is shown: it watches.
    lines.recv_timeout(PATIENCE).expect("an event");
    let sent = json(&home, &["send", "node2", "restarting soon"]);
    fields(&sent, &["to", "bytes", "round_trip_ms"]);
    assert_eq!((&sent["to"], &sent["bytes"]), (&"node2".into(), &15.into()));
    let message = until("the message", || {
        let line = lines.recv_timeout(PATIENCE).expect("a line");
        let json: Value = serde_json::from_str(&line).expect("JSON");
        json.get("message").cloned()
    });
    fields(&message, &["node_id", "data", "time_ms"]);
    assert_eq!(message["node_id"], "node1");
    assert_eq!(message["data"], hex::encode("restarting soon"));
    let _ = watch.kill();
    let _ = watch.wait();
    reader.join().expect("the reader ends");
    home.run(&["send", "node1", "to itself"]).expect(2);
    home.run(&["send", "node2", ""]).expect(2);
    std::fs::write(home.path().join("large"), vec![b'x'; 65_537]).expect("a file");
    home.run(&["send", "node2", "@large"]).expect(2);
    std::fs::write(home.path().join("small"), "x").expect("a file");
    assert_eq!(json(&home, &["send", "node2", "@small"])["bytes"], 1);
    let mut piped = home.command();
    let piped = piped
        .args(["send", "node2", "-", "--json"])
        .stdin(std::fs::File::open(home.path().join("small")).expect("a file"));
    let sent = piped.output().expect("the binary runs");
    assert!(sent.status.success(), "{sent:?}");
    // Nothing on standard input is nothing to send.
    home.run(&["send", "node2", "-"]).expect(2);

    let drained = json(&home, &["drain", "--node", "node4"]);
    fields(&drained["nodes"][0]["answer"], &["within_ms"]);
    until("node4 to be gone", || {
        (home.run(&["list", "--node", "node4"]).code == 3).then_some(())
    });
    // The others go on, and one that is gone is told by name.
    let all = home.run(&["info", "--all", "--json"]).expect(1).json();
    let nodes = all["nodes"].as_array().expect("a list").iter();
    let ok: Vec<_> = nodes.map(|node| node["ok"].clone()).collect();
    assert_eq!(ok, [true, true, true, false]);
    fields(&all["nodes"][3], &["node", "ok", "error"]);
    until("the stream to node4 to end", || {
        let away = home.run(&["send", "node4", "are you there?", "--json"]);
        (away.code == 3 && away.error()["reason"] == "PEER_AWAY").then_some(())
    });
    let voted = ["vote", "tx", "--value", "1", "--node", "node1,node2,node3"];
    home.run(&[&voted[..], &["--wait", "confirmed"]].concat())
        .expect(0);
    assert_eq!(dev.terminate(), 0);
}

/// The findings of one check, as (subject, level).
fn found(report: &Value, check: &str) -> Vec<(String, String)> {
    let findings = report["findings"].as_array().expect("a list").iter();
    let of_check = findings.filter(|finding| finding["check"] == check);
    let text = |finding: &Value, name: &str| finding[name].as_str().expect("text").to_owned();
    of_check
        .map(|f| (text(f, "subject"), text(f, "level")))
        .collect()
}

#[test]
fn the_doctor_finds_a_cluster_well_and_what_was_broken() {
    let home = Home::new();
    let dev = dev(&home);
    let report = until("every node to be well", || {
        let run = home.run(&["doctor", "--json"]);
        let report = run.json();
        (run.code == 0 && report["warnings"] == 0).then_some(report)
    });
    fields(&report, &["bad", "warnings", "good", "findings"]);
    fields(
        &report["findings"][0],
        &["level", "check", "subject", "found", "advice"],
    );
    let good = |subject: &str| (subject.to_owned(), "good".to_owned());
    assert_eq!(found(&report, "clock"), NODES.map(good));
    assert_eq!(found(&report, "rules"), [good("4 nodes")]);
    assert_eq!(found(&report, "version"), [good("4 nodes")]);

    // On the machine of a node that runs.
    let config = dev.node(2)["config"].as_str().expect("a path").to_owned();
    let of_config = ["doctor", "--config", &config];
    let report = json(&home, &of_config);
    assert_eq!(report["bad"], 0, "{report}");
    for check in [
        "configuration",
        "rules",
        "keys",
        "certificate",
        "identity",
        "names",
        "ports",
        "directories",
        "board",
        "audit",
        "peers",
    ] {
        assert!(
            !found(&report, check).is_empty(),
            "{check} was not looked at"
        );
    }
    // The configuration of a local cluster names two of the others.
    assert_eq!(found(&report, "peers").len(), 2);
    let quiet = home.run(&of_config).expect(0).stdout;
    assert!(!quiet.contains("good "), "{quiet}");
    let told = home
        .run(&[&of_config[..], &["--verbose"]].concat())
        .expect(0)
        .stdout;
    assert!(told.contains("good  names: 127.0.0.1"), "{told}");

    // A key that others may read, and a name that is not in the certificate.
    let key = dev.node(2)["vote_key"].as_str().expect("a path").to_owned();
    let chmod = |mode: &str| {
        let changed = std::process::Command::new("chmod")
            .args([mode, &key])
            .status();
        assert!(changed.expect("chmod runs").success());
    };
    chmod("644");
    let text = std::fs::read_to_string(&config).expect("a file");
    let other = text.replace(
        "advertise_addr = \"127.0.0.1:",
        "advertise_addr = \"node2.example:",
    );
    let broken = home.path().join("broken.toml");
    std::fs::write(&broken, other).expect("a file");
    let broken = broken.to_str().expect("text");
    let run = home
        .run(&["doctor", "--config", broken, "--json"])
        .expect(1);
    let report = run.json();
    let bad = |subject: &str| (subject.to_owned(), "bad".to_owned());
    assert!(found(&report, "keys").contains(&bad(&key)), "{report}");
    assert_eq!(found(&report, "names"), [bad("node2.example")]);
    assert_eq!(report["bad"], 2, "{report}");
    let advice = report["findings"][0]["advice"].as_str().expect("text");
    assert!(!advice.is_empty());
    chmod("600");
    home.run(&["doctor", "--config", "no-such-file"]).expect(1);

    // A node that is gone is missed by name, and by the others.
    home.run(&["drain", "--node", "node4"]).expect(0);
    until("node4 to be missed", || {
        let run = home.run(&["doctor", "--all", "--json"]);
        let report = run.json();
        let missed = found(&report, "node") == [bad("node4")];
        let by_others = found(&report, "streams").len() == 3;
        (run.code == 1 && missed && by_others).then_some(())
    });
    assert_eq!(dev.terminate(), 0);
}

#[test]
fn the_monitor_prints_lines_without_a_terminal_and_goes_on_when_the_node_is_gone() {
    let home = Home::new();
    let dev = dev(&home);
    home.run(&["vote", "tx_001", "--value", "42"]).expect(0);
    let look = json(&home, &["monitor", "--count", "1"]);
    fields(
        &look,
        &["time_ms", "node", "info", "peers", "trustees", "ballots"],
    );
    assert_eq!(look["ballots"][0]["tx_id"], "tx_001");
    until_status(&home, "node2", "tx_001", |ballot| {
        ballot["state"] == "COLLECTING"
    });
    let text = home
        .run(&[
            "monitor",
            "--interval",
            "1",
            "--count",
            "2",
            "--node",
            "node2",
        ])
        .expect(0)
        .stdout;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in lines {
        assert!(
            line.contains("node2") && line.contains("COLLECTING 1"),
            "{line}"
        );
    }
    let mut monitor = home.command();
    let monitor = monitor
        .args(["monitor", "--interval", "1", "--json"])
        .stdout(std::process::Stdio::piped());
    let mut monitor = monitor.spawn().expect("the binary runs");
    let output = monitor.stdout.take().expect("its output");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    let mut next = || -> Value {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(next()["node"], "node1");
    assert_eq!(dev.terminate(), 0);
    let lost = until("the node to be missed", || {
        let look = next();
        look.get("error").is_some().then_some(look)
    });
    fields(&lost, &["time_ms", "node", "error"]);
    common::signal(monitor.id().into(), "TERM");
    let ended = until("the monitor to end", || {
        monitor.try_wait().expect("a child")
    });
    assert_eq!(ended.code(), Some(0));
    // Nobody there from the start is a failure, as everywhere.
    home.run(&["monitor"]).expect(3);
}

#[test]
fn on_a_terminal_the_monitor_draws_a_screen_and_q_gives_it_back() {
    use std::io::{Read as _, Write as _};

    let home = Home::new();
    let dev = dev(&home);
    // `script` gives a command a terminal; it is in every Debian.
    let line = format!("{} monitor --interval 1", env!("CARGO_BIN_EXE_quorate"));
    let mut script = home.command_of("script");
    let script = script
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut script = script.spawn().expect("script runs");
    let mut keys = script.stdin.take().expect("its input");
    let mut output = script.stdout.take().expect("its output");
    let (piece, pieces) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if piece.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut shown = String::new();
    // Drawn twice: a key that is pressed between two looks counts.
    while shown.matches("q ends it").count() < 2 {
        let piece = pieces.recv_timeout(PATIENCE).expect("a screen");
        shown += &String::from_utf8_lossy(&piece);
    }
    assert!(
        shown.contains("\u{1b}[?1049h") && shown.contains("trustees"),
        "{shown}"
    );
    keys.write_all(b"q").expect("a key");
    let ended = until("the monitor to end", || script.try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(0));
    reader.join().expect("the reader ends");
    for piece in pieces {
        shown += &String::from_utf8_lossy(&piece);
    }
    assert!(
        shown.contains("\u{1b}[?1049l"),
        "the terminal is not given back"
    );
    assert_eq!(dev.terminate(), 0);
}
