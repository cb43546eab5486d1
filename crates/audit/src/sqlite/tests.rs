//! SQLite passes the suite, survives a kill anywhere, and keeps its columns in order.

use std::env;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use quorate_consensus::wire::{BoardEntry, BoardEvent, VoteRecorded, board_event::Event};
use quorate_consensus::{Rules, Value};
use quorate_testkit::{Cluster, NOW, number, tx};
use tempfile::TempDir;

use super::columns::Wide;
use super::write::Step;
use super::*;
use crate::suite::{Builder, Place, run_all};

struct Files;

struct File(TempDir);

#[async_trait]
impl Builder for Files {
    async fn place(&self) -> Box<dyn Place> {
        Box::new(File(tempfile::tempdir().unwrap()))
    }
}

#[async_trait]
impl Place for File {
    async fn open(&self, rules: Arc<Rules>) -> Result<Arc<dyn AuditStore>, AuditError> {
        Ok(Arc::new(SqliteAudit::open(
            self.0.path().join("audit.db"),
            rules,
        )?))
    }

    async fn sql(&self, statement: &str) -> Result<(), String> {
        let connection = Connection::open(self.0.path().join("audit.db")).unwrap();
        connection
            .execute_batch(statement)
            .map_err(|e| e.to_string())
    }

    async fn unlock(&self) {
        for trigger in ["no_update", "no_delete", "no_replace"] {
            let sql = format!("DROP TRIGGER byzantine_violations_{trigger}");
            self.sql(&sql).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite() {
    run_all(&Files).await;
}

fn votes(cluster: &Cluster, n: u64) -> Vec<BoardEntry> {
    (1..=n)
        .map(|revision| {
            let (tx_id, value) = (tx(&format!("t{revision}")), number(revision));
            let event = Event::VoteRecorded(VoteRecorded {
                node_id: cluster.node_id(0).to_string(),
                choice: Some((&value).into()),
                late: false,
                vote: Some(cluster.vote(0, &tx_id, value, NOW)),
            });
            BoardEntry {
                revision,
                time_ms: NOW,
                op: None,
                events: vec![BoardEvent {
                    revision,
                    time_ms: NOW,
                    tx_id: tx_id.to_string(),
                    event: Some(event),
                }],
            }
        })
        .collect()
}

const CHILD: &str = "QUORATE_AUDIT_TEST_KILL";

/// Not a test of its own: what `a_kill_anywhere_leaves_rows_and_cursor_agreed` starts
/// as a process, to be killed by its own hand at the step given.
#[test]
fn child_that_is_killed() {
    let Ok(order) = env::var(CHILD) else { return };
    let (path, step) = order.rsplit_once('@').unwrap();
    let step = match step {
        "moved" => Step::CursorMoved,
        "committed" => Step::Committed,
        count => Step::Written(count.parse().unwrap()),
    };
    let cluster = Cluster::new(5, 4);
    let mut store = SqliteAudit::open(path, Arc::clone(cluster.rules())).unwrap();
    store.step = Some(Arc::new(move |now| {
        if now == step {
            let pid = std::process::id().to_string();
            Command::new("kill").args(["-KILL", &pid]).status().unwrap();
            loop {
                thread::park();
            }
        }
    }));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let from = store.cursor().await.unwrap();
        let entries = votes(&cluster, from + 10);
        store
            .project(Mark::at(from), &entries[from as usize..])
            .await
            .unwrap();
    });
    unreachable!("the step {step:?} never came");
}

#[tokio::test]
async fn a_kill_anywhere_leaves_rows_and_cursor_agreed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    let cluster = Cluster::new(5, 4);
    let mut reached = 0;
    for step in ["1", "5", "10", "moved", "committed", "3", "committed"] {
        let status = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "sqlite::tests::child_that_is_killed",
                "--nocapture",
            ])
            .env(CHILD, format!("{}@{step}", path.display()))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), None, "{step}: the child was killed");
        if step == "committed" {
            reached += 10;
        }
        let store = SqliteAudit::open(&path, Arc::clone(cluster.rules())).unwrap();
        assert_eq!(store.cursor().await.unwrap(), reached, "{step}");
        let rows = store.votes(&Filter::default()).await.unwrap();
        assert_eq!(rows.len() as u64, reached, "{step}");
        let members = store.reputations().await.unwrap();
        assert_eq!(members[0].total_votes, reached, "{step}");
    }
    let store = SqliteAudit::open(&path, Arc::clone(cluster.rules())).unwrap();
    let rest = votes(&cluster, reached + 1).split_off(reached as usize);
    assert_eq!(
        store.project(Mark::at(reached), &rest).await.unwrap(),
        reached + 1
    );
}

#[test]
fn many_processes_may_make_the_store_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    let rules = Arc::clone(Cluster::new(5, 4).rules());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (path, rules) = (path.clone(), Arc::clone(&rules));
            thread::spawn(move || SqliteAudit::open(path, rules).map(drop))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().expect("it opens");
    }
}

#[test]
fn commits_reach_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let connection = connect(&directory.path().join("audit.db")).unwrap();
    let ask = |pragma: &str| {
        let sql = format!("PRAGMA {pragma}");
        connection.query_row(&sql, [], |row| row.get::<_, rusqlite::types::Value>(0))
    };
    assert_eq!(ask("journal_mode").unwrap(), "wal".to_owned().into());
    assert_eq!(ask("synchronous").unwrap(), 2.into(), "FULL");
}

#[test]
fn a_violation_cannot_be_replaced_either() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    SqliteAudit::open(&path, Arc::clone(Cluster::new(5, 4).rules())).unwrap();
    let connection = Connection::open(path).unwrap();
    let insert = |how: &str, id: &str, evidence: &str| {
        connection.execute(
            &format!(
                "{how} INTO byzantine_violations (id, node_id, tx_id, violation_type, proof_kind,
                     evidence_json, detected_at)
                 VALUES ({id}, 'node5', 'a', 'DOUBLE_VOTING', 'proven', ?1, '2026')"
            ),
            [evidence],
        )
    };
    insert("INSERT", "1", "{}").unwrap();
    insert("INSERT OR REPLACE", "1", "[]").unwrap_err();
    insert("INSERT OR REPLACE", "2", "[]").unwrap_err();
    insert("INSERT OR REPLACE", "NULL", "[]").unwrap_err();
    insert("INSERT", "NULL", "not JSON").unwrap_err();
    let kept: String = connection
        .query_row(
            "SELECT evidence_json FROM byzantine_violations",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(kept, "{}");
}

#[test]
fn a_bad_row_is_told_apart_from_a_store_that_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    SqliteAudit::open(&path, Arc::clone(Cluster::new(5, 4).rules())).unwrap();
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch("UPDATE node_reputation SET node_id = 'Not A Node', last_seen = 'then'")
        .unwrap();
    let bad = query::reputations(&connection);
    assert!(matches!(bad, Err(AuditError::Corrupt(_))), "{bad:?}");
}

#[tokio::test]
async fn a_store_in_a_place_that_is_not_there_says_which() {
    let rules = Arc::clone(Cluster::new(5, 4).rules());
    let error = SqliteAudit::open("/nowhere/audit.db", rules).err().unwrap();
    assert!(error.to_string().contains("/nowhere/audit.db"), "{error}");
}

proptest! {
    #[test]
    fn wide_numbers_survive_and_sort_like_numbers(a: u64, b: u64) {
        let connection = Connection::open_in_memory().unwrap();
        let (less, back): (bool, Wide) = connection
            .query_row("SELECT ?1 < ?2, ?1", params![Wide(a), Wide(b)], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        prop_assert_eq!(less, a < b);
        prop_assert_eq!(back.0, a);
    }

    #[test]
    fn values_survive(value in prop_oneof![
        any::<u64>().prop_map(Value::Number),
        proptest::collection::vec(any::<u8>(), 1..=1024).prop_map(|d| Value::Data(d.into())),
    ]) {
        let connection = Connection::open_in_memory().unwrap();
        let (number, data) = columns::split(Some(&value));
        let back = connection
            .query_row("SELECT ?1 AS value, ?2 AS data", params![number, data], |row| {
                columns::joined(row)
            })
            .unwrap();
        prop_assert_eq!(back, Some(value));
    }
}
