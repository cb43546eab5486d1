//! Flags that no story needs: each does what its help says. (tools/surface holds that
//! every flag has a test.)

mod common;

use common::{Dev, Home, until};
use quorate_testkit::servers::Postgres;
use serde_json::Value;

#[test]
fn a_genesis_says_what_its_flags_say() {
    let home = Home::enrolled();
    let plain = home.run(&["rules", "show", "genesis.rules", "--json"]);
    let plain = plain.expect(0).json();
    assert_eq!(plain["dissent"], "abort");
    let init = [
        "rules",
        "init",
        "--cluster",
        "solo",
        "--threshold",
        "1",
        "--members",
        "certs",
        "--output",
        "other.rules",
        "--dissent",
        "outvote",
        "--silence",
        "ban",
        "--vote-timeout-ms",
        "60000",
        "--settle-window-ms",
        "7",
        "--clock-skew-ms",
        "5000",
        "--account",
        "treasury",
        "--destination",
        "bridge",
        "--first-nonce",
        "9",
        "--confirmations",
        "3",
        "--json",
    ];
    home.run(&init).expect(0);
    let rules = home.run(&["rules", "show", "other.rules", "--json"]);
    let rules = rules.expect(0).json();
    for (field, value) in [
        ("dissent", Value::from("outvote")),
        ("silence", "ban".into()),
        ("vote_timeout_ms", 60_000.into()),
        ("settle_window_ms", 7.into()),
        ("clock_skew_ms", 5000.into()),
    ] {
        assert_eq!(rules[field], value, "{field}");
    }
    for (field, value) in [
        ("account", Value::from("treasury")),
        ("destination", "bridge".into()),
        ("first_nonce", 9.into()),
        ("confirmations", 3.into()),
    ] {
        assert_eq!(rules["chain"][field], value, "{field}: {}", rules["chain"]);
    }
    // Another document is another cluster.
    assert_ne!(rules["cluster_id"], plain["cluster_id"]);
}

/// How long a certificate is valid, in whole days.
fn days(facts: &Value) -> u64 {
    let ms = |name: &str| facts[name].as_u64().expect("a time");
    (ms("not_after_ms") - ms("not_before_ms")) / 86_400_000
}

#[test]
fn certificates_are_made_where_and_as_their_flags_say() {
    let home = Home::new();
    let init = [
        "certs",
        "init",
        "--cluster",
        "solo",
        "--dir",
        "ca",
        "--days",
        "100",
    ];
    home.run(&init).expect(0);
    assert_eq!(days(&home.certificate("ca/ca.crt")), 100);
    let name = "quorate.example.org";
    let request = [
        "certs",
        "request",
        "--cluster",
        "solo",
        "--node-id",
        "alone",
        "--dir",
        "own",
        "--san",
        name,
    ];
    home.run(&request).expect(0);
    let sign = [
        "certs",
        "sign",
        "--node-id",
        "alone",
        "--csr",
        "own/alone.csr",
        "--dir",
        "ca",
        "-o",
        "own/alone.crt",
        "--days",
        "10",
    ];
    // The CA certifies no name that it was not told of.
    let refused = home.run(&sign).expect(1).stderr;
    assert!(refused.contains(&format!("--san {name}")), "{refused}");
    home.run(&[&sign[..], &["--san", name]].concat()).expect(0);
    let node = home.certificate("own/alone.crt");
    assert_eq!(days(&node), 10);
    let names = node["dns"].as_array().expect("names");
    assert!(names.contains(&name.into()), "{names:?}");
    let issue = [
        "certs",
        "issue",
        "--node-id",
        "alone",
        "--name",
        "alice",
        "--role",
        "operator",
        "--dir",
        "own",
        "--output-dir",
        "alice",
        "--days",
        "5",
    ];
    home.run(&issue).expect(0);
    let alice = home.certificate("alice/alice.crt");
    assert_eq!(alice["role"], "operator");
    assert_eq!(days(&alice), 5);

    // Renewed beside the old one, by a CA that lies elsewhere.
    let renew = [
        "certs",
        "renew",
        "alice/alice.crt",
        "--dir",
        "own",
        "--output",
        "alice/next.crt",
        "--new-key",
        "--days",
        "6",
    ];
    home.run(&renew).expect(0);
    assert_eq!(days(&home.certificate("alice/next.crt")), 6);
    // Revoked on a list that lies elsewhere, which `verify` takes.
    let revoke = [
        "certs",
        "revoke",
        "own/alone.crt",
        "--dir",
        "ca",
        "--crl",
        "lists/ca.crl",
        "--days",
        "30",
    ];
    std::fs::create_dir(home.path().join("lists")).expect("a directory");
    home.run(&revoke).expect(0);
    let crl = [
        "certs",
        "crl",
        "--dir",
        "ca",
        "--crl",
        "lists/ca.crl",
        "--json",
    ];
    let list = home.run(&crl).expect(0).json()["lists"][0].clone();
    assert_eq!(list["revoked"].as_array().map(Vec::len), Some(1));
    let verify = [
        "certs",
        "verify",
        "own/alone.crt",
        "--ca",
        "ca/ca.crt",
        "--crl",
        "lists/ca.crl",
    ];
    let revoked = home.run(&verify).expect(1).stderr;
    assert!(revoked.contains("revoked"), "{revoked}");
}

#[test]
fn a_ballot_is_named_by_a_flag_and_its_proof_saved_on_the_way() {
    let home = Home::new();
    let args = ["--nodes", "1", "--threshold", "1", "--settle-window", "5"];
    let dev = Dev::start(&home, &[&args[..], &["--log-level", "info"]].concat());
    let rules = home.run(&["rules", "show", "--json"]).expect(0).json();
    assert_eq!(rules["settle_window_ms"], 5);
    let vote = [
        "vote",
        "--tx-id",
        "tx_1",
        "--value",
        "1",
        "--wait",
        "confirmed",
    ];
    home.run(&vote).expect(0);
    let status = ["status", "--tx-id", "tx_1", "--save-certificate", "a.proof"];
    until("the proof", || (home.run(&status).code == 0).then_some(()));
    let cluster_id = dev.ready()["cluster_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let verify = [
        "verify",
        "a.proof",
        "--cluster-id",
        &cluster_id,
        "--least-epoch",
    ];
    home.run(&[&verify[..], &["1"]].concat()).expect(0);
    // A key that was rotated out could still sign for its old epoch.
    home.run(&[&verify[..], &["2"]].concat()).expect(1);
    let certificate = ["certificate", "--tx-id", "tx_1", "-o", "b.proof"];
    home.run(&certificate).expect(0);
    let (one, two) = (home.path().join("a.proof"), home.path().join("b.proof"));
    assert!(one.exists() && two.exists());
    // From the vote on, and from the end on.
    let revisions = |from: &str| {
        let watch = [
            "watch",
            "--tx-id",
            "tx_1",
            "--from",
            from,
            "--until-final",
            "--json",
        ];
        let told = home.run(&watch).expect(0).stdout;
        let events = told.lines().map(|line| {
            let event: Value = serde_json::from_str(line).expect("an event a line");
            event["revision"].as_u64().expect("a revision")
        });
        events.collect::<Vec<_>>()
    };
    let all = revisions("1");
    let last = all.last().expect("events").to_string();
    assert!(revisions(&last).len() < all.len(), "{all:?}");
    assert_eq!(dev.terminate(), 0);
    let log = std::fs::read_to_string(home.path().join("dev.log")).expect("a log");
    assert!(log.contains(" INFO "), "{log}");
    // Nothing was lost here: nothing need be accepted.
    let reconcile = [
        "reconcile",
        "--config",
        "cluster/node1/config.toml",
        "--accept-loss",
        "--json",
    ];
    let done = home.run(&reconcile).expect(0).json();
    assert_eq!(done["may_sign"], true);
}

#[test]
fn a_demonstration_says_what_its_nodes_log() {
    let home = Home::new();
    let quiet = home.run(&["demo", "--scenario", "1"]).expect(0);
    assert!(!quiet.stderr.contains("INFO"), "{}", quiet.stderr);
    let demo = ["demo", "--scenario", "1", "--log-level", "info"];
    let told = home.run(&demo).expect(0);
    assert!(told.stderr.contains("INFO"), "{}", told.stderr);
}

#[test]
fn a_node_listens_and_logs_as_its_flags_say() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--nodes", "1", "--threshold", "1"]);
    assert_eq!(dev.terminate(), 0);
    // Another address than the configuration's, and any port of it.
    let addr = "127.0.0.2:0";
    let log = home.path().join("node.log");
    let run = [
        "run",
        "--config",
        "cluster/node1/config.toml",
        "--listen-addr",
        addr,
        "--log-level",
        "info",
        "--set",
        "node.health_addr=none",
    ];
    let mut node = home
        .command()
        .args(run)
        .stdout(std::fs::File::create(&log).expect("a log"))
        .stderr(
            std::fs::File::options()
                .append(true)
                .open(&log)
                .expect("a log"),
        )
        .spawn()
        .expect("the binary runs");
    until("the node to listen and to say more", || {
        let text = std::fs::read_to_string(&log).ok()?;
        assert!(node.try_wait().expect("a child").is_none(), "{text}");
        let said = text.contains("listens at 127.0.0.2:") && text.contains("INFO");
        said.then_some(())
    });
    common::signal(node.id().into(), "TERM");
    let status = until("the node to end", || node.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn tables_are_made_over_tls_alone_when_a_ca_is_named() {
    let home = Home::new();
    let database = Postgres::shared().database();
    home.run(&["certs", "init", "--cluster", "solo"]).expect(0);
    // This server speaks no TLS: then nothing is said to it.
    let url = database.url();
    let migrate = [
        "audit",
        "migrate",
        "--postgres-url",
        &url,
        "--ca",
        "certs/ca.crt",
    ];
    let refused = home.run(&migrate);
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    let lost = [
        "audit",
        "migrate",
        "--postgres-url",
        &url,
        "--ca",
        "lost.crt",
    ];
    let told = home.run(&lost).expect(2).stderr;
    assert!(told.contains("lost.crt"), "{told}");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'decisions'";
    assert_eq!(database.sql(tables).as_deref(), Ok("0\n"));
}

#[test]
fn violations_are_picked_by_flags_and_all_nodes_drained_at_once() {
    let home = Home::new();
    let _dev = Dev::start(&home, &["--nodes", "4", "--threshold", "3"]);
    let lie = [
        "test-byzantine",
        "--test-type",
        "double-vote",
        "--node",
        "node4",
    ];
    let told = [&lie[..], &["--data-dir", "cluster", "--json"]].concat();
    let told = home.run(&told).expect(0).json();
    let tx_id = told["tx_id"].as_str().expect("an id").to_owned();
    let found = |line: &[&str]| {
        let line = [line, &["--json"]].concat();
        let found = home.run(&line).expect(0).json();
        found["violations"].as_array().expect("a list").len()
    };
    let all = until("the violation", || {
        Some(found(&["violations"])).filter(|all| *all > 0)
    });
    assert_eq!(found(&["violations", "--tx-id", &tx_id]), all);
    assert_eq!(found(&["violations", "--tx-id", "another"]), 0);
    let one = ["violations", "--trustee", "node4", "--limit", "1"];
    assert_eq!(found(&one), 1);
    assert_eq!(found(&["violations", "--trustee", "node1"]), 0);
    let drained = home.run(&["drain", "--all", "--json"]).expect(0).json();
    assert_eq!(drained["nodes"].as_array().map(Vec::len), Some(4));
    until("all nodes to be gone", || {
        let mut nodes = ["node1", "node2", "node3", "node4"].iter();
        nodes
            .all(|node| home.run(&["list", "--node", node]).code == 3)
            .then_some(())
    });
}
