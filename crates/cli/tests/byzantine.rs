//! `quorate test-byzantine` against a running `quorate dev`: each lie is caught, and
//! the table says so.

mod common;

use common::{Dev, Home};

/// The lie, its liar, how the ballot ends, and the charge in the ballot. Liars are
/// banned and lost to the lies after theirs: an accusation needs four accusers to the
/// end, and only what the last one does is proven without them.
const LIES: [(&str, &str, &str, &str); 5] = [
    ("silent", "node7", "CONFIRMED", "SILENT_FAILURE"),
    ("minority", "node7", "ABORTED_BYZANTINE", "MINORITY_VOTE"),
    ("invalid-signature", "node6", "CONFIRMED", ""),
    ("malformed", "node5", "CONFIRMED", ""),
    ("double-vote", "node4", "ABORTED_BYZANTINE", "DOUBLE_VOTING"),
];

#[test]
fn every_lie_is_caught() {
    let home = Home::new();
    // The silent one is waited for until the deadline; before it, all honest votes of each
    // other ballot must be in.
    let args = ["--nodes", "7", "--threshold", "4", "--vote-timeout", "15"];
    let dev = Dev::start(&home, &args);
    for (lie, node, state, charge) in LIES {
        let run = home.run(&[
            "test-byzantine",
            "--test-type",
            lie,
            "--node",
            node,
            "--data-dir",
            "cluster",
            "--json",
        ]);
        let told = run.expect(0).json();
        assert_eq!(told["node_id"], node, "{lie}");
        assert_eq!(told["ballot"]["state"], state, "{lie}: {told:#}");
        assert_eq!(told["banned"], lie != "silent", "{lie}: {told:#}");
        let charges: Vec<_> = told["charges"].as_array().into_iter().flatten().collect();
        match charge {
            "" => assert!(charges.is_empty(), "{lie}: {told:#}"),
            charge => assert_eq!(charges, [charge], "{lie}"),
        }
    }
    // Evidence is there for what a stranger can check, and convinces one.
    let listed = home
        .run(&["list", "--state", "aborted-byzantine", "--json"])
        .expect(0)
        .json();
    let ballots = listed["ballots"].as_array().expect("ballots");
    assert_eq!(ballots.len(), 2);
    let cluster_id = dev.ready()["cluster_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for ballot in ballots {
        let tx_id = ballot["tx_id"].as_str().expect("an id");
        let args = ["certificate", tx_id, "--evidence-dir", "lies", "--json"];
        let saved = home.run(&args).expect(0).json();
        let file = saved["files"][0].as_str().expect("a file");
        let verify = ["verify", file, "--json", "--cluster-id", &cluster_id];
        let verified = home.run(&verify).expect(0).json();
        assert_eq!(verified["kind"], "evidence");
        assert_eq!(verified["fact"]["tx_id"], tx_id);
    }
    // A liar that is banned already finds no listener.
    let again = home.run(&[
        "test-byzantine",
        "--test-type",
        "malformed",
        "--node",
        "node7",
        "--data-dir",
        "cluster",
    ]);
    assert!(again.expect(3).stderr.contains("banned"));
    assert_eq!(dev.terminate(), 0);
}

/// What an honest trustee may say comes to nothing, and costs nothing; what each node
/// sees for itself costs the liar everything, and nobody else anything.
#[test]
fn every_lie_costs_the_liar_alone() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--nodes", "5", "--threshold", "3"]);
    for (lie, node, banned) in [
        ("wrong-rules", "node5", false),
        ("replayer", "node5", false),
        ("flooder", "node5", false),
        ("forger", "node5", true),
        ("false-witness", "node4", true),
    ] {
        let run = home.run(&[
            "test-byzantine",
            "--test-type",
            lie,
            "--node",
            node,
            "--data-dir",
            "cluster",
            "--json",
        ]);
        let told = run.expect(0).json();
        assert_eq!(told["test_type"], lie);
        assert_eq!(told["ballot"]["state"], "CONFIRMED", "{lie}: {told:#}");
        assert_eq!(told["banned"], banned, "{lie}: {told:#}");
        assert_eq!(told["charges"], serde_json::json!([]), "{lie}: {told:#}");
        let trustees = told["ballot"]["trustees"].as_array().expect("trustees");
        for trustee in trustees {
            let node_id = &trustee["node_id"];
            let lied = node_id == "node5" && lie == "false-witness" || node_id == node;
            let is_banned = trustee["banned"] == true;
            assert_eq!(is_banned, lied && banned, "{lie}: {trustee:#}");
        }
    }
    assert_eq!(dev.terminate(), 0);
}

/// The simulator's names for the first lies are understood, too.
#[test]
fn the_liars_have_the_simulators_names() {
    let home = Home::new();
    for name in ["equivocator", "impersonator"] {
        let args = ["test-byzantine", "--test-type", name, "--data-dir", "none"];
        let refused = home.run(&args).expect(3).stderr;
        assert!(refused.contains("no local cluster"), "{refused}");
    }
}
