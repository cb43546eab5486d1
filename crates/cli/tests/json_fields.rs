//! What `--json` prints has field names that scripts rely on. Every command runs here,
//! and its fields are held against `json_fields.txt`: a name that goes away or is spelt
//! otherwise is a break. New names are added with `QUORATE_REWRITE=1`.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{Dev, Home, until, until_streams};
use quorate_testkit::servers::Postgres;
use serde_json::Value;

const LIST: &str = include_str!("json_fields.txt");

/// Commands that print no JSON of their own, and why.
const NONE: &[(&str, &str)] = &[
    ("run", "a node prints nothing but its log"),
    ("completions", "a script for a shell, whoever asks"),
];

/// Fields under these hold names that are not ours: one stands for all of them.
const MAPS: &[&str] = &["metadata"];

/// Every command's fields, as they are seen.
#[derive(Default)]
struct Seen(BTreeMap<String, BTreeSet<String>>);

impl Seen {
    /// Runs a command and notes what it prints: one document, or one for each line.
    #[track_caller]
    fn run(&mut self, home: &Home, command: &str, args: &[&str]) -> Value {
        self.ends(home, command, args, 0)
    }

    #[track_caller]
    fn ends(&mut self, home: &Home, command: &str, args: &[&str], code: i32) -> Value {
        let words: Vec<_> = command.split(' ').collect();
        let line = [&words[..], args, &["--json"]].concat();
        let run = home.run(&line).expect(code);
        self.note(command, &run.stdout)
    }

    /// Notes documents; gives the last one.
    #[track_caller]
    fn note(&mut self, command: &str, text: &str) -> Value {
        let fields = self.0.entry(command.to_owned()).or_default();
        let mut last = Value::Null;
        for document in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            last = document.unwrap_or_else(|e| panic!("{command}: {e}\n{text}"));
            paths("", &last, fields);
        }
        assert!(!last.is_null(), "{command} prints nothing: {text}");
        last
    }

    fn text(&self) -> String {
        let lines = self.0.iter().flat_map(|(command, fields)| {
            fields
                .iter()
                .map(move |field| format!("{command}: {field}\n"))
        });
        lines.collect()
    }
}

/// Every field's path; items of a list are `[]`.
fn paths(at: &str, value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = match at {
                    "" => name.clone(),
                    at => format!("{at}.{name}"),
                };
                fields.insert(path.clone());
                if !MAPS.contains(&name.as_str()) {
                    paths(&path, value, fields);
                }
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| paths(&format!("{at}[]"), item, fields)),
        _ => {}
    }
}

#[test]
fn fields_keep_their_names() {
    let home = Home::new();
    let mut seen = Seen::default();
    offline(&home, &mut seen);
    with_a_cluster(&home, &mut seen);
    with_operators(&mut seen);
    none_is_missing(&home, &seen);
    compare(&seen);
}

/// What needs no cluster.
fn offline(home: &Home, seen: &mut Seen) {
    seen.run(home, "version", &[]);
    seen.run(home, "man", &["pages"]);
    seen.run(home, "certs init", &["--cluster", "solo"]);
    let names = ["--cluster", "solo", "--node-id", "alone"];
    seen.run(home, "certs request", &names);
    seen.run(home, "certs sign", &["--node-id", "alone"]);
    let person = ["--node-id", "alone", "--name", "app"];
    seen.run(home, "certs issue", &person);
    seen.run(home, "certs show", &["certs/alone.crt"]);
    let ca = ["certs/alone.crt", "--ca", "certs/ca.crt"];
    seen.run(home, "certs verify", &ca);
    seen.run(home, "certs renew", &["certs/alone.crt"]);
    seen.run(home, "certs revoke", &["certs/app.crt"]);
    seen.run(home, "certs crl", &["--node-id", "alone"]);
    seen.run(home, "keygen", &["-o", "vote.key"]);
    let init = [
        "--cluster",
        "solo",
        "--threshold",
        "1",
        "--members",
        "certs",
        "-o",
        "genesis.rules",
    ];
    let rules = seen.run(home, "rules init", &init);
    let cluster_id = rules["cluster_id"].as_str().expect("an id").to_owned();
    let config = "[node]\nnode_id = \"alone\"\n[keys]\nnode_key_path = \"certs/alone-node.key\"\n\
         [mtls]\nca_cert_path = \"certs/ca.crt\"\nclients_ca_path = \"certs/alone-clients-ca.crt\"\n\
         node_cert_path = \"certs/alone.crt\"\nnode_key_path = \"certs/alone.key\"\n\
         [consensus]\n";
    std::fs::write(home.path().join("node.toml"), config).expect("a file");
    let accept = [
        "genesis.rules",
        "--config",
        "node.toml",
        "--cluster-id",
        &cluster_id,
    ];
    seen.run(home, "rules accept", &accept);
    seen.run(home, "config check", &["--config", "node.toml"]);
    let context = [
        "prod",
        "--endpoint",
        "localhost:1",
        "--cacert",
        "certs/ca.crt",
        "--cert",
        "certs/app.crt",
        "--key",
        "certs/app.key",
    ];
    seen.run(home, "config set-context", &context);
    seen.run(home, "config use-context", &["prod"]);
    seen.run(home, "config current-context", &[]);
    seen.run(home, "config get-contexts", &[]);
    seen.run(home, "config delete-context", &["prod"]);
    seen.run(home, "demo", &["--scenario", "1"]);
    let sim = ["--seed", "1", "--schedules", "1", "--out", "sim"];
    seen.run(home, "sim", &sim);
    seen.run(home, "sim", &["--seed", "1", "--trace"]);
    let database = Postgres::shared().database();
    let url = database.url();
    seen.run(home, "audit migrate", &["--postgres-url", &url]);
    // Errors have the same fields, whichever command fails.
    let error = home.run(&["status", "tx", "--json"]).expect(2);
    seen.note("an error", &error.stderr);
}

fn with_a_cluster(home: &Home, seen: &mut Seen) {
    let dev = Dev::start(home, &["--json", "--seed", "fields"]);
    let cluster_id = dev.ready()["cluster_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let four = ["--node", "node1,node2,node3,node4", "--wait", "confirmed"];
    let vote = [&["tx_1", "--value", "42"][..], &four].concat();
    seen.run(home, "vote", &vote);
    let data = [&["tx_2", "--data", "cafe"][..], &four].concat();
    seen.run(home, "vote", &data);
    seen.run(home, "status", &["tx_1"]);
    seen.run(home, "status", &["tx_1", "--node", "node1,node2"]);
    seen.run(home, "watch", &["tx_1", "--until-final"]);
    seen.run(home, "trace", &["tx_1"]);
    seen.run(home, "list", &[]);
    seen.run(home, "rules show", &[]);
    seen.run(home, "rules show", &["genesis.rules"]);
    until("the certificate", || {
        let run = home.run(&["certificate", "tx_1", "-o", "tx_1.proof"]);
        (run.code == 0).then_some(())
    });
    seen.run(home, "certificate", &["tx_1", "-o", "tx_1.proof"]);
    let verify = ["tx_1.proof", "--cluster-id", &cluster_id];
    seen.run(home, "verify", &verify);
    let config = ["--config", "cluster/node1/config.toml"];
    until("the record", || {
        let run = home.run(&[&["audit", "verify", "--json"][..], &config].concat());
        (run.expect(0).json()["transactions"] == 2).then_some(())
    });
    seen.run(home, "audit verify", &config);
    seen.run(home, "gc", &[&config[..], &["--dry-run"]].concat());
    let here = ["--data-dir", "cluster"];
    for act in [
        &["dev status"][..],
        &["dev stop", "node5"],
        &["dev start", "node5"],
        &["dev kill", "node5"],
        &["dev start", "node5"],
        &["dev pause", "node5"],
        &["dev resume", "node5"],
        &["dev partition", "node5"],
        &["dev delay", "node5", "1ms"],
        &["dev heal"],
    ] {
        seen.run(home, act[0], &[&act[1..], &here].concat());
    }
    // One that lies for evidence, and one that only lies.
    let lie = ["--test-type", "double-vote", "--node", "node5"];
    let told = seen.run(home, "test-byzantine", &[&lie[..], &here].concat());
    let tx_id = told["tx_id"].as_str().expect("an id").to_owned();
    let evidence = [&*tx_id, "--evidence-dir", "lies"];
    let saved = seen.run(home, "certificate", &evidence);
    let file = saved["files"][0].as_str().expect("a file");
    seen.run(home, "verify", &[file, "--cluster-id", &cluster_id]);
    seen.run(home, "watch", &[&*tx_id, "--until-final"]);
    let lie = ["node5", "silent"];
    seen.run(home, "dev lie", &[&lie[..], &here].concat());
    assert_eq!(dev.terminate(), 0);
    let log = std::fs::read_to_string(home.path().join("dev.log")).expect("a log");
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with('{')).collect();
    seen.note("dev", &lines.join("\n"));
    let reconcile = [&config[..], &["--dry-run"]].concat();
    seen.run(home, "reconcile", &reconcile);
}

/// What operators call.
fn with_operators(seen: &mut Seen) {
    let home = &Home::new();
    let dev = Dev::start(home, &["--nodes", "4", "--threshold", "3"]);
    // The doctor ends with 0 when nobody misses anybody.
    for node in ["node1", "node2", "node3", "node4"] {
        until_streams(home, node);
    }
    until("every node to be well", || {
        (home.run(&["doctor", "--all"]).code == 0).then_some(())
    });
    seen.run(home, "info", &[]);
    seen.run(home, "peers", &[]);
    seen.run(home, "reputation", &[]);
    seen.run(home, "monitor", &["--count", "1"]);
    seen.run(home, "doctor", &["--all", "--verbose"]);
    seen.run(home, "send", &["node2", "hello"]);
    seen.run(home, "log-level", &["error"]);
    seen.run(home, "ban", &["node3", "--all"]);
    until("the cluster's ban", || {
        let said = home.run(&["reputation", "node3", "--json"]).expect(0);
        (said.json()["trustees"][0]["banned"] == true).then_some(())
    });
    seen.run(home, "unban", &["node3", "--all"]);
    let lie = ["--test-type", "double-vote", "--node", "node4"];
    let here = ["--data-dir", "cluster"];
    seen.run(home, "test-byzantine", &[&lie[..], &here].concat());
    until("the violation", || {
        let found = home.run(&["violations", "--json"]).expect(0).stdout;
        found.contains("DOUBLE_VOTING").then_some(())
    });
    seen.run(home, "violations", &[]);
    seen.run(home, "drain", &["--node", "node3"]);
    drop(dev);
}

/// A command that is not run here could change its fields unseen.
fn none_is_missing(home: &Home, seen: &Seen) {
    let surface = home.run(&["surface"]).expect(0).json();
    let commands = surface["commands"].as_array().expect("commands");
    assert!(commands.len() > 40, "{}", commands.len());
    for command in commands {
        let name = command["command"].as_str().expect("a name");
        let Some(name) = name.strip_prefix("quorate ") else {
            continue;
        };
        let excused = NONE.iter().any(|(none, _)| *none == name);
        let known = excused || command["group"] == true || seen.0.contains_key(name);
        assert!(known, "`quorate {name} --json` is not run here: add it");
    }
}

fn compare(seen: &Seen) {
    let text = seen.text();
    if std::env::var_os("QUORATE_REWRITE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json_fields.txt");
        std::fs::write(path, text).expect("the list is written");
        return;
    }
    let (listed, found): (BTreeSet<_>, BTreeSet<_>) =
        (LIST.lines().collect(), text.lines().collect());
    let gone: Vec<_> = listed.difference(&found).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(
        gone.is_empty(),
        "scripts rely on these fields, and they are gone: {gone:#?}"
    );
    assert!(
        new.is_empty(),
        "these fields are not in json_fields.txt; if they are meant, run this test with \
         QUORATE_REWRITE=1: {new:#?}"
    );
}
