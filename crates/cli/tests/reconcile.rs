//! `quorate reconcile`: the board is put back to an older copy under five nodes.

mod common;

use std::path::Path;

use common::{Dev, Home, until_status};

const NODES: &str = "node1,node2,node3,node4";

fn decided(home: &Home, tx_id: &str) {
    let wait = ["--wait", "confirmed", "--node", NODES];
    home.run(&[&["vote", tx_id, "--value", "42"][..], &wait].concat())
        .expect(0);
}

/// Copies the board, which no process has open. What is shared by processes is made anew.
fn copy_board(from: &Path, to: &Path) {
    for (name, comes) in [
        ("board.db", true),
        ("board.db-wal", true),
        ("board.db-shm", false),
    ] {
        let _ = std::fs::remove_file(to.join(name));
        if comes && from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

#[test]
fn a_board_put_back_to_an_older_copy_is_made_whole_again() {
    let home = Home::new();
    let dev = Dev::start(&home, &[]);
    decided(&home, "kept");
    assert_eq!(dev.terminate(), 0);
    let shared = home.path().join("cluster/shared");
    let backup = home.path().join("backup");
    std::fs::create_dir(&backup).unwrap();
    copy_board(&shared, &backup);

    let dev = Dev::start(&home, &[]);
    decided(&home, "lost");
    let config = |i: usize| format!("cluster/node{i}/config.toml");
    let running = home.run(&["reconcile", "--config", &config(1)]).expect(1);
    assert!(
        running.stderr.contains("another process"),
        "{}",
        running.stderr
    );
    assert_eq!(dev.terminate(), 0);
    copy_board(&backup, &shared);

    let told = home
        .run(&["reconcile", "--config", &config(1), "--dry-run", "--json"])
        .expect(0)
        .json();
    assert_eq!(
        (&told["dry_run"], &told["may_sign"]),
        (&true.into(), &true.into())
    );
    let lost = told["lost"].as_array().unwrap();
    assert!(
        lost.iter().any(|lost| lost["what"] == "reserve for lost"),
        "{told}"
    );
    for i in 1..=5 {
        let done = home.run(&["reconcile", "--config", &config(i)]).expect(0);
        assert!(done.stdout.contains("may sign again"), "{}", done.stdout);
        assert_eq!(i == 1, done.stdout.contains("reserve for lost: put back"));
    }
    let dev = Dev::start(&home, &[]);
    until_status(&home, "node1", "lost", |ballot| {
        ballot["state"] == "CONFIRMED"
    });
    decided(&home, "after");
    assert_eq!(dev.terminate(), 0);
}
