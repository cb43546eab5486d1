//! `quorate config check`: what is in force and where it comes from, secrets masked,
//! and what would stop a node from starting.

mod common;

use common::{Home, enrol};
use serde_json::Value;

const NODE: &str = "\
[node]
node_id = \"alone\"
data_dir = \"data\"

[keys]
vote_key_path = \"certs/alone-vote.key\"
node_key_path = \"certs/alone-node.key\"

[mtls]
ca_cert_path = \"certs/ca.crt\"
clients_ca_path = \"certs/alone-clients-ca.crt\"
node_cert_path = \"certs/alone.crt\"
node_key_path = \"certs/alone.key\"

[consensus]
cluster_id = \"CLUSTER\"
rules_path = \"genesis.rules\"
threshold = 1
";

/// A trustee's files and its configuration, `node.toml`.
fn node() -> Home {
    let home = Home::new();
    let cluster_id = enrol(&home);
    let text = NODE.replace("CLUSTER", &cluster_id);
    std::fs::write(home.path().join("node.toml"), text).expect("a file");
    home
}

/// The entry of one key.
#[track_caller]
fn setting(report: &Value, key: &str) -> Value {
    let settings = report["settings"].as_array().expect("settings");
    let found = settings.iter().find(|setting| setting["key"] == key);
    found.unwrap_or_else(|| panic!("no {key}")).clone()
}

#[test]
fn each_value_says_where_it_comes_from() {
    let home = node();
    let output = home
        .command()
        .args(["config", "check", "--config", "node.toml", "--json"])
        .args(["--set", "logging.level=debug"])
        .env("LISTEN_ADDR", "127.0.0.1:7")
        .env(
            "POSTGRES_URL",
            "postgresql://quorate:s3cret@db:5432/quorate",
        )
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!text.contains("s3cret"), "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["ok"], true);
    for (key, value, origin, place) in [
        ("node.node_id", "alone", "file", Some("node.toml:2:11")),
        (
            "node.listen_addr",
            "127.0.0.1:7",
            "environment",
            Some("environment LISTEN_ADDR"),
        ),
        (
            "logging.level",
            "debug",
            "flag",
            Some("flag for logging.level"),
        ),
        ("network.rate_limit_burst", "1000", "default", None),
        ("storage.embedded_dir", "data", "default", None),
        (
            "storage.postgres_url",
            "postgresql://quorate:***@db:5432/quorate",
            "environment",
            Some("environment POSTGRES_URL"),
        ),
    ] {
        let setting = setting(&report, key);
        assert_eq!(setting["value"], value, "{key}");
        assert_eq!(setting["origin"], origin, "{key}");
        assert_eq!(setting["place"].as_str(), place, "{key}");
    }
    let unset = setting(&report, "node.peer_id");
    assert_eq!(unset["origin"], "unset");
    assert_eq!(unset["value"], Value::Null);
    assert_eq!(unset["variable"], "QUORATE_NODE_PEER_ID");
    assert_eq!(unset["short_variable"], "PEER_ID");
}

#[test]
fn what_would_stop_a_node_is_found() {
    let home = node();
    let check = ["config", "check", "--config", "node.toml"];
    let table = home.run(&check).expect(0).stdout;
    assert!(table.contains("node.toml:2:11"), "{table}");
    assert!(!table.contains("peer_id"), "{table}");
    let all = home.run(&[&check[..], &["--all"]].concat()).expect(0);
    assert!(all.stdout.contains("peer_id"), "{}", all.stdout);
    // A file that is not there, rules that say otherwise, a key that is open to others.
    for (set, word) in [
        ("mtls.crl_path=lost.crl", "lost.crl"),
        ("consensus.threshold=2", "the rules document says 1"),
        ("keys.node_key_path=certs/ca.crt", "chmod"),
    ] {
        let run = home.run(&[&check[..], &["--set", set]].concat()).expect(2);
        assert!(run.stdout.contains(word), "{set}: {}", run.stdout);
        assert!(run.stderr.contains("would not start"), "{}", run.stderr);
    }
    // A key that does not exist, and a secret where all can read it.
    for (set, word) in [
        ("node.listen_adr=x", "did you mean listen_addr?"),
        ("storage.etcd_password=x", "QUORATE_STORAGE_ETCD_PASSWORD"),
    ] {
        for command in [&check[..], &["run", "--config", "node.toml"]] {
            let run = home.run(&[command, &["--set", set]].concat()).expect(2);
            assert!(run.stderr.contains(word), "{set}: {}", run.stderr);
        }
    }
    home.run(&["config", "check", "--config", "lost.toml"])
        .expect(2);
}
