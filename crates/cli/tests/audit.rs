//! `quorate audit`: the record of a running cluster is compared with the board's log,
//! and the tables on PostgreSQL are made for a role that may do no more than it needs.

mod common;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use common::{Dev, Home, until};
use quorate_testkit::servers::Postgres;

#[test]
fn the_record_of_a_running_cluster_holds() {
    let home = Home::new();
    let dev = Dev::start(&home, &[]);
    let nodes = "node1,node2,node3,node4";
    home.run(&["vote", "tx_001", "--value", "42", "--node", nodes])
        .expect(0);
    let config = "cluster/node1/config.toml";
    let report = until("the record", || {
        let run = home.run(&["audit", "verify", "--config", config, "--json"]);
        let report = run.expect(0).json();
        (report["transactions"] == 1).then_some(report)
    });
    assert_eq!(report["holds"], true);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0));
    let told = home.run(&["audit", "verify", "--config", config]).expect(0);
    assert!(told.stdout.contains("holds"), "{}", told.stdout);
    let gc = home.run(&["gc", "--config", config, "--dry-run", "--json"]);
    let archived = gc.expect(0).json();
    assert_eq!(archived["dry_run"], true);
    assert_eq!(
        (&archived["submissions"], &archived["votes"]),
        (&0.into(), &0.into())
    );
    // The same story twice: from the board's log, and from the audit store.
    let told = |more: &[&str]| {
        let command = [&["trace", "tx_001", "--json"], more].concat();
        home.run(&command).expect(0).json()
    };
    let ended = |more: &[&str]| {
        until("the end of the story", || {
            let story = told(more);
            (story["state"] == "CONFIRMED").then_some(story)
        })
    };
    let (asked, read) = (ended(&[]), ended(&["--config", config]));
    assert_eq!(asked["trace_id"], read["trace_id"]);
    assert_eq!(asked["missing"], serde_json::json!(["node5"]));
    for story in [&asked, &read] {
        let events = story["events"].as_array().expect("events");
        let votes = events.iter().filter(|event| {
            let what = event["what"].as_str().unwrap_or_default();
            what.ends_with("voted 42")
        });
        assert_eq!(votes.count(), 4, "{story}");
    }
    let linked = told(&["--jaeger-url", "http://jaeger:16686/"]);
    let link = linked["jaeger"].as_str().expect("a link");
    let trace_id = asked["trace_id"].as_str().expect("an id");
    assert_eq!(link, format!("http://jaeger:16686/trace/{trace_id}"));
    assert_eq!(dev.terminate(), 0);
    home.run(&["trace", "tx_002", "--config", config]).expect(1);
}

#[test]
fn tables_are_made_by_their_owner_and_used_by_the_nodes_role() {
    let home = Home::new();
    let database = Postgres::shared().database();
    database
        .sql("CREATE ROLE quorate_node LOGIN")
        .expect("a role");
    let url = database.url();
    let migrate = ["audit", "migrate", "--node-role", "quorate_node"];
    let made = home
        .run(&[&migrate[..], &["--postgres-url", &url, "--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(made["node_role"], "quorate_node");
    // Again does no harm, and the URL may come from a file.
    let file = home.path().join("owner-url");
    std::fs::write(&file, format!("{url}\n")).expect("a file");
    let from_file = [&migrate[..], &["--postgres-url-file", "owner-url"]].concat();
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("a mode");
    home.run(&from_file).expect(2);
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a mode");
    home.run(&from_file).expect(0);
    // A password where all can read it is refused.
    for url in [
        "postgresql://o:s3cret@h/q",
        "postgresql://h/q?password=s3cret",
    ] {
        let refused = home
            .run(&["audit", "migrate", "--postgres-url", url])
            .expect(2)
            .stderr;
        assert!(refused.contains("--postgres-url-file"), "{refused}");
    }
    home.run(&["audit", "migrate"]).expect(2);
    let may = "SELECT has_table_privilege('quorate_node', 'byzantine_violations', 'INSERT'),
                   has_table_privilege('quorate_node', 'byzantine_violations', 'UPDATE'),
                   has_table_privilege('quorate_node', 'byzantine_violations', 'DELETE')";
    assert_eq!(database.sql(may).as_deref(), Ok("t|f|f\n"));
}

#[test]
fn a_server_that_is_away_or_wrong_is_told_without_the_password() {
    let home = Home::new();
    for (url, code) in [
        ("postgresql://quorate:s3cret@127.0.0.1:1/quorate", 3),
        ("postgresql://quorate:s3cret@127.0.0.1:port/quorate", 2),
        ("s3cret", 2),
    ] {
        let mut command = home.command();
        let run = command.env("POSTGRES_URL", url).args(["audit", "migrate"]);
        let output = run.output().expect("the binary runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
    let help = home
        .command()
        .env("POSTGRES_URL", "s3cret")
        .args(["audit", "migrate", "--help"])
        .output();
    let help = help.expect("the binary runs").stdout;
    assert!(!String::from_utf8_lossy(&help).contains("s3cret"));
}
