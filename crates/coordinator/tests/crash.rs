//! Processes that are killed in the middle of their work lose nothing that was
//! acknowledged, and leave nothing by halves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use quorate_consensus::board::Board;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use quorate_coordinator::{Coordinator, Embedded};
use quorate_engine::Proposed;
use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops, tx};

/// Tells a child which board to work on, and its name.
const BOARD: &str = "QUORATE_TEST_CRASH_BOARD";
const NAME: &str = "QUORATE_TEST_CRASH_NAME";

/// Proposals that a child has in flight.
const IN_FLIGHT: usize = 8;

fn cluster() -> Cluster {
    Cluster::new(5, 4)
}

fn open(path: &Path) -> Embedded {
    let rules = Arc::clone(cluster().rules());
    Embedded::open(path, rules, Arc::new(FakeVerifier)).expect("the board opens")
}

fn vote(cluster: &Cluster, member: usize, ballot: &str) -> BoardOp {
    ops::record_vote(cluster.vote(member, &tx(ballot), number(1), NOW))
}

/// The child: not a test of its own. Proposes until it is killed, and prints every
/// answer.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let (Ok(path), Ok(name)) = (std::env::var(BOARD), std::env::var(NAME)) else {
        return;
    };
    let board = Arc::new(open(Path::new(&path)));
    // Ends the line that the test harness began.
    println!();
    let mut tasks = Vec::new();
    for task in 0..IN_FLIGHT {
        let (board, name) = (Arc::clone(&board), name.clone());
        tasks.push(tokio::spawn(async move {
            let cluster = cluster();
            for i in 0.. {
                let (member, ballot) = (i % 5, format!("{name}.{task}.{}", i / 5));
                let answer = board.propose(vote(&cluster, member, &ballot), NOW).await;
                match answer {
                    Ok(Proposed::Applied(revision)) => println!("ack {revision} {member} {ballot}"),
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("a proposer failed");
    }
}

struct Worker {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    acknowledged: BTreeMap<u64, (usize, String)>,
}

impl Worker {
    fn start(path: &Path, name: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child", "--nocapture"])
            .env(BOARD, path)
            .env(NAME, name)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let stdout = process.stdout.take().expect("its output");
        Self {
            process,
            lines: BufReader::new(stdout).lines(),
            acknowledged: BTreeMap::new(),
        }
    }

    /// Reads acknowledgements until there are `count`, or all that is left.
    fn read(&mut self, count: usize) {
        while self.acknowledged.len() < count {
            let Some(line) = self.lines.next() else {
                return;
            };
            let line = line.expect("text");
            // Lines are whole, for a kill does not divide a short write; the others
            // are the test harness's.
            let words: Vec<_> = line.split(' ').collect();
            let ["ack", revision, member, ballot] = words[..] else {
                continue;
            };
            let member = member.parse().expect("a member");
            let revision = revision.parse().expect("a revision");
            let twice = self.acknowledged.insert(revision, (member, ballot.into()));
            assert_eq!(twice, None, "revision {revision} was given twice");
        }
    }

    /// SIGKILL.
    fn kill(mut self) -> BTreeMap<u64, (usize, String)> {
        self.process.kill().expect("a kill");
        self.read(usize::MAX);
        self.process.wait().expect("its end");
        self.acknowledged
    }
}

/// Everything in the log; it is contiguous and a board justifies each entry.
async fn replayed(path: &Path) -> Vec<BoardEntry> {
    let board = open(path);
    let mut mirror = Board::new(Arc::clone(cluster().rules()));
    let mut entries = Vec::new();
    loop {
        let page = board.entries(mirror.revision(), 1000).await;
        let page = page.expect("a page of the log");
        if page.is_empty() {
            break;
        }
        for entry in page {
            let derived = mirror.replay(entry.clone(), &FakeVerifier);
            assert_eq!(derived.as_ref(), Ok(&entry));
            entries.push(entry);
        }
    }
    assert_eq!(board.head().await, Ok(entries.len() as u64));
    entries
}

fn are_in(entries: &[BoardEntry], acknowledged: &BTreeMap<u64, (usize, String)>) {
    let cluster = cluster();
    for (revision, (member, ballot)) in acknowledged {
        let entry = entries.get(*revision as usize - 1);
        let entry = entry.unwrap_or_else(|| panic!("acknowledged entry {revision} is lost"));
        let expected = vote(&cluster, *member, ballot);
        assert_eq!(entry.op.as_ref(), Some(&expected), "entry {revision}");
    }
}

#[tokio::test]
async fn what_a_killed_process_acknowledged_is_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("board.db");
    let mut acknowledged = BTreeMap::new();
    for round in 0..5 {
        let mut worker = Worker::start(&path, &format!("round{round}"));
        worker.read(100 + 37 * round);
        acknowledged.extend(worker.kill());
        let entries = replayed(&path).await;
        are_in(&entries, &acknowledged);
        // At most what was in flight is there without having been acknowledged.
        let surplus = entries.len() - acknowledged.len();
        assert!(surplus <= IN_FLIGHT * (round + 1), "{surplus}");
    }
}

#[tokio::test]
async fn processes_share_a_board_and_outlive_each_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("board.db");
    let mut acknowledged = BTreeMap::new();
    let mut stays = Worker::start(&path, "stays");
    for round in 0..4 {
        let mut falls = Worker::start(&path, &format!("falls{round}"));
        falls.read(60);
        acknowledged.extend(falls.kill());
        // The other goes on: nothing that the dead one held is in its way.
        let more = stays.acknowledged.len() + 60;
        stays.read(more);
        assert!(stays.acknowledged.len() >= more, "it stopped too");
    }
    let own = stays.kill();
    let count = own.len() + acknowledged.len();
    acknowledged.extend(own);
    assert_eq!(acknowledged.len(), count, "a revision was given to both");
    are_in(&replayed(&path).await, &acknowledged);
}
