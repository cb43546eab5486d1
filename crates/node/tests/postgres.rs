//! Real nodes whose audit record is on a real PostgreSQL server, which is stopped,
//! killed, and put back to an older backup under them.

mod common;

use common::{Cluster, ballot_in, connected, soon, vote_at};
use quorate_audit::rows::{Filter, SubmissionState};
use quorate_audit::verify::FindingKind;
use quorate_audit::{AuditError, AuditStore};
use quorate_chain::{Chain as _, Ledger, LedgerOptions};
use quorate_consensus::TxId;
use quorate_consensus::wire::BallotState;
use quorate_node::record::check_record;
use quorate_node::{NodeHandle, StartError};
use quorate_testkit::servers::{Database, Durability, Postgres};

/// A cluster of four, three of whom decide, on a database.
fn cluster_on(database: &Database) -> Cluster {
    let mut cluster = Cluster::new(4, 3);
    cluster.postgres_url = Some(database.url());
    cluster
}

async fn confirmed(audit: &dyn AuditStore, tx_id: &str) {
    let id = TxId::new(tx_id).unwrap();
    soon(&format!("{tx_id} confirmed in the record"), async {
        loop {
            match audit.final_state(&id).await {
                Ok(Some(BallotState::Confirmed)) => return,
                Ok(_) | Err(AuditError::Unavailable(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
}

/// As many transactions on the ledger as rows CONFIRMED in the record, each with its
/// certificate.
async fn all_there_once(cluster: &Cluster, audit: &dyn AuditStore, count: usize) {
    let options = LedgerOptions::for_target(cluster.rules.chain(), None);
    let ledger = Ledger::open(cluster.shared().join("ledger.db"), options).unwrap();
    let blocks = ledger.recent_blocks(100).await.unwrap();
    let sent: Vec<_> = blocks.iter().flat_map(|b| &b.transactions).collect();
    assert_eq!(sent.len(), count);
    let state = Some(SubmissionState::Confirmed);
    let rows = audit.submissions(state, 100).await.unwrap();
    assert_eq!(rows.len(), count);
    for row in rows {
        let decision = audit.decision(&row.tx_id).await.unwrap().expect("a row");
        assert!(decision.certificate.is_some(), "{}", row.tx_id);
        let votes = audit.votes(&Filter::tx(&row.tx_id)).await.unwrap();
        assert!(votes.len() >= 3, "{}", row.tx_id);
    }
}

/// Waits until a node's journal keeps how far the store was seen.
async fn seen(cluster: &Cluster, i: usize, revision: u64) {
    let journal = cluster.home(i).join("data/journal.db");
    let journal = rusqlite::Connection::open(journal).unwrap();
    let kept = || -> i64 {
        let row = journal.query_row("SELECT revision FROM audit_seen", [], |row| row.get(0));
        row.unwrap_or(0)
    };
    soon("the journal keeps it", async {
        while kept().cast_unsigned() < revision {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn shut_down(nodes: Vec<NodeHandle>) {
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_are_taken_while_the_server_is_away_and_submitted_once_when_it_is_back() {
    let server = Postgres::start(Durability::Kept);
    let database = server.database();
    let mut cluster = cluster_on(&database);
    let nodes = cluster.start_all().await;
    let audit = cluster.audit();
    vote_at(&cluster, 0..4, "before", 1).await;
    confirmed(&*audit, "before").await;

    for (tx_id, stop) in [("stopped", true), ("killed", false)] {
        match stop {
            true => server.stop(),
            false => server.kill(),
        }
        vote_at(&cluster, 0..4, tx_id, 2).await;
        // The board goes on; the way to the chain waits for its fence.
        ballot_in(&nodes[0], tx_id, &[BallotState::Submitted]).await;
        server.start_again();
        confirmed(&*audit, tx_id).await;
        ballot_in(&nodes[0], tx_id, &[BallotState::Confirmed]).await;
    }
    all_there_once(&cluster, &*audit, 3).await;
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_its_audit_store_but_not_on_anothers() {
    let server = Postgres::start(Durability::Kept);
    let database = server.database();
    let mut cluster = cluster_on(&database);
    server.stop();
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..3, "early", 1).await;
    ballot_in(&nodes[0], "early", &[BallotState::Submitted]).await;
    server.start_again();
    let audit = cluster.audit();
    confirmed(&*audit, "early").await;

    let mut other = cluster_on(&database);
    let parts = other.parts(0);
    let refused = quorate_node::Node::start(parts).await.err().unwrap();
    let StartError::Audit(AuditError::OtherCluster { .. }) = refused else {
        panic!("{refused}");
    };
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_projects_when_the_one_that_did_is_gone() {
    let database = Postgres::shared().database();
    let mut cluster = cluster_on(&database);
    let mut nodes = cluster.start_all().await;
    let audit = cluster.audit();
    vote_at(&cluster, 0..4, "first", 1).await;
    confirmed(&*audit, "first").await;
    let holder = database.sql("SELECT holder FROM projector_lease").unwrap();
    let holder = holder.trim();
    let leader = nodes
        .iter()
        .position(|node| node.node_id().as_str() == holder);
    let leader = leader.expect("one of them");
    nodes.remove(leader).kill().await;
    let rest: Vec<_> = (0..4).filter(|i| *i != leader).collect();
    vote_at(&cluster, rest, "second", 2).await;
    confirmed(&*audit, "second").await;
    let next = database.sql("SELECT holder FROM projector_lease").unwrap();
    assert_ne!(next.trim(), holder);
    all_there_once(&cluster, &*audit, 2).await;
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_edited_behind_the_nodes_is_found() {
    let database = Postgres::shared().database();
    let mut cluster = cluster_on(&database);
    let nodes = cluster.start_all().await;
    vote_at(&cluster, 0..4, "tx_001", 1).await;
    let audit = cluster.audit();
    confirmed(&*audit, "tx_001").await;
    // What still comes of the ballot would be written over what is edited below.
    let head = nodes[0].look(|engine| engine.board().revision()).await;
    soon("the whole log in the record", async {
        while audit.cursor().await.unwrap() < head.unwrap() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let report = check_record(cluster.config(0)).await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.transactions, 1);

    database
        .sql("UPDATE blockchain_submissions SET value = 2; UPDATE decisions SET certificate = ''")
        .unwrap();
    let report = check_record(cluster.config(0)).await.unwrap();
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|finding| (finding.kind, finding.table, finding.row.as_str()))
        .collect();
    let edited = FindingKind::Edited;
    assert_eq!(
        found,
        [
            (edited, "blockchain_submissions", "tx_001"),
            (edited, "decisions", "tx_001"),
        ]
    );
    shut_down(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_archives_what_is_old() {
    let database = Postgres::shared().database();
    let mut cluster = cluster_on(&database);
    let nodes = cluster.start_all().await;
    let audit = cluster.audit();
    for tx_id in ["old", "young"] {
        vote_at(&cluster, 0..4, tx_id, 1).await;
        confirmed(&*audit, tx_id).await;
    }
    shut_down(nodes).await;
    database
        .sql(
            "UPDATE blockchain_submissions
             SET confirmed_at = confirmed_at - interval '31 days' WHERE tx_id = 'old'",
        )
        .unwrap();
    let node = cluster.start(0).await;
    soon("the archive", async {
        let sql = "SELECT tx_id FROM blockchain_submissions_archive";
        while database.sql(sql).as_deref() != Ok("old\n") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let live = audit.submissions(None, 10).await.unwrap();
    assert_eq!(live.len(), 1);
    let old = TxId::new("old").unwrap();
    assert!(audit.submission(&old).await.unwrap().is_some());
    confirmed(&*audit, "old").await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_is_found_out_and_projected_anew() {
    let server = Postgres::shared();
    let (database, backup) = (server.database(), server.database());
    let mut cluster = cluster_on(&database);
    let nodes = cluster.start_all().await;
    let audit = cluster.audit();
    vote_at(&cluster, 0..4, "kept", 1).await;
    confirmed(&*audit, "kept").await;
    shut_down(nodes).await;
    drop(audit);
    // A copy as of now; then life goes on.
    server.copy(&database, &backup);
    let mut nodes = Vec::new();
    for i in 0..4 {
        nodes.push(cluster.start(i).await);
    }
    for node in &nodes {
        connected(node, 3).await;
    }
    let audit = cluster.audit();
    vote_at(&cluster, 0..4, "lost", 2).await;
    confirmed(&*audit, "lost").await;
    let reached = audit.cursor().await.unwrap();
    for i in 0..4 {
        seen(&cluster, i, reached).await;
    }
    shut_down(nodes).await;

    cluster.postgres_url = Some(backup.url());
    let audit = cluster.audit();
    assert!(audit.cursor().await.unwrap() < reached, "it is older");
    let mut nodes = Vec::new();
    for i in 0..4 {
        nodes.push(cluster.start(i).await);
    }
    // Whoever starts before the first has projected it anew sees it.
    soon("somebody notices", async {
        while nodes.iter().all(|node| node.counts().alerts == 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    confirmed(&*audit, "lost").await;
    vote_at(&cluster, 0..4, "after", 3).await;
    confirmed(&*audit, "after").await;
    all_there_once(&cluster, &*audit, 3).await;
    shut_down(nodes).await;
}
