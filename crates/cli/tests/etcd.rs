//! `quorate dev --etcd`: five processes, their board in an etcd that `dev` starts.

mod common;

use common::{Dev, Home, signal, until};

#[test]
fn five_processes_on_etcd_agree_also_after_kill_9_and_after_a_restart() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--etcd", "--processes"]);
    let vote = |nodes: &str, tx_id: &str| {
        let args = ["vote", "--tx-id", tx_id, "--value", "7", "--node", nodes];
        home.run(&args).expect(0);
    };
    vote("node1,node2,node3", "tx");
    let killed = dev.pid(1);
    signal(killed, "KILL");
    vote("node4", "tx");
    let confirmed = |node: &str, tx_id: &str| {
        until(&format!("{tx_id} confirmed at {node}"), || {
            let status = home.run(&["status", tx_id, "--node", node, "--json"]);
            let told = status.stdout.contains("BALLOT_STATE_CONFIRMED")
                || status.stdout.contains("\"CONFIRMED\"");
            told.then_some(())
        });
    };
    confirmed("node2", "tx");
    until("another process", || (dev.pid(1) != killed).then_some(()));
    confirmed("node1", "tx");
    assert_eq!(dev.terminate(), 0);

    // A board does not move from etcd to a file.
    let refused = home.run(&["dev", "--data-dir", "cluster", "--base-port", "0"]);
    let refused = refused.expect(2);
    assert!(
        refused.stderr.contains("keeps its board in etcd"),
        "{}",
        refused.stderr
    );

    let dev = Dev::start(&home, &["--etcd"]);
    confirmed("node5", "tx");
    vote("node1,node2,node3,node4", "again");
    confirmed("node5", "again");
    assert_eq!(dev.terminate(), 0);
}
