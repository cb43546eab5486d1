//! A board put back to an older copy under nodes that know better, and `reconcile`.

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use quorate_audit::AuditStore;
use quorate_audit::rows::SubmissionState;
use quorate_chain::{Chain as _, Ledger, LedgerOptions};
use quorate_consensus::wire::{BallotState, BoardOp, RecordVoteOp, board_op::Op};
use quorate_consensus::{TxId, Value};
use quorate_coordinator::{Coordinator as _, Embedded};
use quorate_crypto::CachedVerifier;
use quorate_node::reconcile::{Fate, Options, ReconcileError, Reconciliation, reconcile};
use quorate_node::record::check_record;
use quorate_node::{NodeHandle, StartError};
use quorate_testkit::servers::Postgres;
use rusqlite::Connection;

const DRY_RUN: Options = Options {
    dry_run: true,
    accept_loss: false,
};
const ACCEPT_LOSS: Options = Options {
    dry_run: false,
    accept_loss: true,
};

/// These tests copy the board's file.
fn with_a_file(n: usize, t: u32) -> Cluster {
    let mut cluster = Cluster::new(n, t);
    cluster.etcd = None;
    cluster
}

async fn decided(cluster: &Cluster, nodes: &[NodeHandle], tx_id: &str) {
    vote_at(cluster, 0..nodes.len(), tx_id, 1).await;
    for node in nodes {
        ballot_in(node, tx_id, &[BallotState::Confirmed]).await;
    }
}

async fn shut_down(nodes: Vec<NodeHandle>) {
    for node in nodes {
        node.shutdown().await;
    }
}

/// Waits until the last handle on the board, or on another file of SQLite, is closed:
/// SQLite then removes its write-ahead log, and it is one file. Of two handles that close
/// at once each may leave that to the other one; so the last handle is one of its own.
async fn closed(cluster: &Cluster, file: &str) -> PathBuf {
    let board = cluster.shared().join(file);
    let log = cluster.shared().join(format!("{file}-wal"));
    let gone = async {
        while log.exists() {
            let looked = Connection::open(&board).and_then(|board| {
                let sql = "SELECT count(*) FROM sqlite_schema";
                board.query_row(sql, [], |row| row.get::<_, i64>(0))
            });
            drop(looked);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("it is closed", gone).await;
    board
}

async fn reconciled(cluster: &Cluster, i: usize, options: Options) -> Reconciliation {
    reconcile(cluster.config(i), options).await.unwrap()
}

async fn is_stopped(node: &NodeHandle) -> bool {
    let stopped = |engine: &quorate_engine::Engine| engine.is_stopped().then_some(());
    soon("the node stops", node.until(stopped)).await.is_some()
}

async fn payments(cluster: &Cluster) -> u64 {
    let options = LedgerOptions::for_target(cluster.rules.chain(), None);
    let ledger = Ledger::open(cluster.shared().join("ledger.db"), options).unwrap();
    let blocks = ledger.recent_blocks(1000).await.unwrap();
    blocks.iter().map(|b| b.transactions.len() as u64).sum()
}

/// A copy of the board, or of another file, as it is.
fn backed_up(cluster: &Cluster, file: &str) -> PathBuf {
    let backup = cluster.shared().join(format!("{file}.backup"));
    let file = Connection::open(cluster.shared().join(file)).unwrap();
    let copy = file.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]);
    copy.unwrap();
    backup
}

/// The board as a store whose nodes have confirmed "kept" and "lost" shows it after it
/// was put back to where it had only the first.
async fn with_an_older_board() -> Cluster {
    let mut cluster = with_a_file(3, 2);
    let nodes = cluster.start_all().await;
    decided(&cluster, &nodes, "kept").await;
    // Within one start: the nodes' generations show nothing.
    let backup = backed_up(&cluster, "board.db");
    decided(&cluster, &nodes, "lost").await;
    shut_down(nodes).await;
    std::fs::copy(&backup, closed(&cluster, "board.db").await).unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_copy_lost_is_put_back_and_nothing_is_paid_twice() {
    let mut cluster = with_an_older_board().await;
    let node = cluster.start(0).await;
    assert!(is_stopped(&node).await);
    let running = reconcile(cluster.config(0), Options::default()).await;
    let Err(ReconcileError::Open(StartError::Journal(error))) = running else {
        panic!("{running:?}");
    };
    assert!(error.to_string().contains("another process"), "{error}");
    node.shutdown().await;

    let told = reconciled(&cluster, 0, DRY_RUN).await;
    assert_eq!((told.same, told.others), (told.found, 0));
    assert_eq!(told.lost.len() as u64, told.kept - told.found);
    assert!(told.lost.iter().all(|lost| lost.fate == Fate::PutBack));
    assert!(told.lost.iter().any(|lost| lost.what == "reserve for lost"));
    let told_again = reconciled(&cluster, 0, DRY_RUN).await;
    assert_eq!(told_again, told, "it changed nothing");

    let done = reconciled(&cluster, 0, Options::default()).await;
    assert_eq!((done.found, done.lost.len()), (told.found, told.lost.len()));
    assert!(done.lost.iter().all(|lost| lost.fate == Fate::PutBack));
    assert!(done.is_whole() && done.may_sign, "{done:?}");
    assert!(done.audit.is_ok() && done.audit_findings.is_empty());
    assert_eq!(done.unexplained, None);
    assert!(done.reserved.iter().all(|reserved| reserved.fits));
    assert_eq!(done.reserved.len(), 2);

    let again = reconciled(&cluster, 1, Options::default()).await;
    // It was shut down later, and may have seen a little more.
    assert!(again.found == done.kept && again.is_whole() && again.may_sign);
    let thrice = reconciled(&cluster, 0, Options::default()).await;
    assert_eq!((thrice.lost.len(), thrice.may_sign), (0, true));

    let nodes = cluster.start_all().await;
    for node in &nodes {
        ballot_in(node, "lost", &[BallotState::Confirmed]).await;
    }
    decided(&cluster, &nodes, "after").await;
    shut_down(nodes).await;
    assert_eq!(payments(&cluster).await, 3);
}

/// Votes of the third trustee on the board, by a handle that knows nothing of the loss.
async fn write_on(cluster: &Cluster, votes: impl IntoIterator<Item = (String, u64)>) {
    let verifier = Arc::new(CachedVerifier::default());
    let path = cluster.shared().join("board.db");
    let board = Embedded::open(path, Arc::new(cluster.rules.clone()), verifier).unwrap();
    for (tx_id, number) in votes {
        let vote = cluster.vote(2, &tx_id, Value::Number(number), now_ms());
        let op = BoardOp {
            op: Some(Op::RecordVote(RecordVoteOp {
                vote: Some(vote),
                only_first: false,
            })),
        };
        board.propose(op, now_ms()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_is_found_at_the_start_though_it_is_longer() {
    let mut cluster = with_an_older_board().await;
    // More than was lost: the log's end alone shows nothing.
    write_on(&cluster, (0..60).map(|i| (format!("other{i}"), 1))).await;
    let node = cluster.start(0).await;
    assert!(is_stopped(&node).await);
    node.shutdown().await;

    let done = reconciled(&cluster, 0, Options::default()).await;
    assert!(done.others >= 60 && done.found > done.seen, "{done:?}");
    assert!(done.conflicts.is_empty() && done.may_sign, "{done:?}");
    let again = reconciled(&cluster, 0, Options::default()).await;
    assert_eq!((again.others, again.lost.len()), (0, 0));

    let node = cluster.start(0).await;
    connected(&node, 0).await;
    ballot_in(&node, "lost", &[BallotState::Confirmed]).await;
    assert_eq!(node.look(|engine| engine.is_stopped()).await, Some(false));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_contradicts_what_was_believed_is_for_people_to_accept() {
    let mut cluster = with_an_older_board().await;
    // With the vote that was lost it makes two choices of one trustee.
    write_on(&cluster, [("lost".to_owned(), 9)]).await;
    for options in [DRY_RUN, Options::default(), Options::default()] {
        let done = reconciled(&cluster, 0, options).await;
        let [conflict] = &*done.conflicts else {
            panic!("{done:?}");
        };
        assert!(
            conflict.starts_with("nonce 1 was reserved for lost"),
            "{conflict}"
        );
        assert!(!done.may_sign);
    }
    let node = cluster.start(0).await;
    assert!(is_stopped(&node).await);
    node.shutdown().await;
    let accepted = reconciled(&cluster, 0, ACCEPT_LOSS).await;
    assert!(
        accepted.may_sign && accepted.unexplained.is_some(),
        "{accepted:?}"
    );
    let node = cluster.start(0).await;
    connected(&node, 0).await;
    assert_eq!(node.look(|engine| engine.is_stopped()).await, Some(false));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_own_copy_says_what_it_cannot_put_back() {
    let cluster = with_an_older_board().await;
    for name in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = std::fs::remove_file(cluster.home(0).join("data").join(name));
    }
    let told = reconciled(&cluster, 0, Options::default()).await;
    assert_eq!((told.kept, told.lost.len()), (0, 0));
    assert!(told.seen > told.found && !told.is_whole() && !told.may_sign);
    // Another node's copy has it all.
    let other = reconciled(&cluster, 1, Options::default()).await;
    assert!(other.may_sign && !other.lost.is_empty());
    let now = reconciled(&cluster, 0, Options::default()).await;
    assert!(now.may_sign, "{now:?}");
}

/// How old a vote may be that the board still takes: short, for a test waits for it.
const VOTE_TIMEOUT_MS: u64 = 5_000;
const SKEW_MS: u64 = 5_000;
const WINDOW_MS: u64 = VOTE_TIMEOUT_MS + 2 * SKEW_MS;

fn with_a_short_window() -> Cluster {
    let mut cluster = Cluster::with(3, 2, |params| {
        params.vote_timeout_ms = VOTE_TIMEOUT_MS;
        params.clock_skew_ms = SKEW_MS;
    });
    cluster.etcd = None;
    cluster
}

async fn ended(audit: &dyn AuditStore, tx_id: &TxId) {
    soon("the record has its end", async {
        while audit.final_state(tx_id).await.unwrap() != Some(BallotState::Confirmed) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Whether the lost transaction is on the chain.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lost {
    Paid,
    /// As if it had been reserved and never sent: the ledger goes back, too.
    Unpaid,
}

/// Reserved and recorded, and then lost: the record must let another transaction have
/// the nonce that the board gives it, and forget nothing.
async fn the_record_follows_the_board(mut cluster: Cluster, fate: Lost) {
    let nodes = cluster.start_all().await;
    decided(&cluster, &nodes, "kept").await;
    let files = match fate {
        Lost::Paid => &["board.db"][..],
        Lost::Unpaid => &["board.db", "ledger.db"],
    };
    let backups = files.iter().map(|file| (file, backed_up(&cluster, file)));
    let backups: Vec<_> = backups.collect();
    decided(&cluster, &nodes, "lost").await;
    let voted_ms = now_ms();
    let (lost, other) = (TxId::new("lost").unwrap(), TxId::new("other").unwrap());
    let audit = cluster.audit();
    ended(&*audit, &lost).await;
    shut_down(nodes).await;
    for (file, backup) in backups {
        std::fs::copy(backup, closed(&cluster, file).await).unwrap();
    }
    // Its votes are too old to be put back when somebody writes on.
    while now_ms() <= voted_ms + WINDOW_MS {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    write_on(&cluster, [("open".to_owned(), 9)]).await;
    for i in 0..2 {
        let stands = audit.mark().await.unwrap();
        let told = reconciled(&cluster, i, ACCEPT_LOSS).await;
        assert!(told.may_sign && !told.conflicts.is_empty(), "{told:?}");
        assert!(told.audit.is_err(), "it is of the past that was lost");
        assert_eq!(audit.mark().await.unwrap(), stands);
    }

    let nodes = [cluster.start(0).await, cluster.start(1).await];
    connected(&nodes[0], 1).await;
    vote_at(&cluster, 0..2, "other", 3).await;
    for node in &nodes {
        ballot_in(node, "other", &[BallotState::Confirmed]).await;
    }
    ended(&*audit, &other).await;
    for node in nodes {
        node.shutdown().await;
    }
    let row = audit.submission(&other).await.unwrap().expect("a row");
    match fate {
        // Its first nonce was used on the chain by what the board has lost.
        Lost::Paid => assert_eq!((row.nonce, payments(&cluster).await), (Some(2), 3)),
        Lost::Unpaid => assert_eq!((row.nonce, payments(&cluster).await), (Some(1), 2)),
    }
    let paid = audit.final_state(&lost).await.unwrap();
    assert_eq!(paid, Some(BallotState::Confirmed), "it is not forgotten");

    let report = check_record(cluster.config(0)).await.unwrap();
    assert_eq!(report.findings, []);
    let [past] = &*report.losses.pasts else {
        panic!("{:?}", report.losses.pasts);
    };
    assert!(past.parted_at < past.reached);
    let named: Vec<_> = report.losses.submissions().collect();
    let row = named.iter().find(|row| row.place.is_some());
    let row = row.expect("the lost reservation");
    let confirmed = Some(SubmissionState::Confirmed);
    assert_eq!((row.tx_id.as_ref(), row.state), (Some(&lost), confirmed));
    assert_eq!(row.place.as_ref().map(|(_, nonce)| *nonce), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_in_sqlite_follows_the_board() {
    the_record_follows_the_board(with_a_short_window(), Lost::Unpaid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_board_has_lost_and_the_chain_has_is_not_paid_twice() {
    the_record_follows_the_board(with_a_short_window(), Lost::Paid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_in_postgres_follows_the_board() {
    let database = Postgres::shared().database();
    let mut cluster = with_a_short_window();
    cluster.postgres_url = Some(database.url());
    the_record_follows_the_board(cluster, Lost::Unpaid).await;
}
