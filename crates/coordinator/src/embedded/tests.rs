//! What is the file's own business: whose it is, faults of the disk, damage. What
//! every backend promises is tested by the suite.

use std::sync::mpsc::{Sender, channel};

use prost::Message;
use quorate_consensus::board::Refusal;
use quorate_testkit::{Cluster, FakeVerifier, NOW, number, ops, tx};
use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::*;

struct Bench {
    directory: TempDir,
    cluster: Cluster,
}

impl Bench {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            cluster: Cluster::new(5, 4),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("board.db")
    }

    fn try_open(&self, cluster: &Cluster) -> Result<Embedded, StoreError> {
        let options = Options {
            busy_wait: Duration::from_millis(30),
            ..Options::default()
        };
        let rules = Arc::clone(cluster.rules());
        Embedded::open_with(self.path(), rules, Arc::new(FakeVerifier), options)
    }

    fn open(&self) -> Embedded {
        self.try_open(&self.cluster).unwrap()
    }

    fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// A vote that opens a ballot of its own.
    fn opening(&self, i: usize) -> BoardOp {
        ops::record_vote(
            self.cluster
                .vote(i % 5, &tx(&format!("tx{i}")), number(1), NOW),
        )
    }

    /// A board with so many entries, closed.
    async fn with_entries(count: usize) -> Self {
        let bench = Self::new();
        let board = bench.open();
        for i in 0..count {
            board.propose(bench.opening(i), NOW).await.unwrap();
        }
        board.close().await;
        bench
    }

    fn refuses_to_open(&self) -> String {
        match self.try_open(&self.cluster) {
            Err(StoreError::Corrupt(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

fn unavailable(answer: Result<Proposed, ProposeError>) -> String {
    match answer {
        Err(ProposeError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Holds the writer until the sender is dropped.
async fn hold(board: &Embedded) -> Sender<()> {
    let (release, held) = channel::<()>();
    let (arrived, wait) = oneshot::channel();
    let act = Box::new(move |_: &Connection| {
        arrived.send(()).unwrap();
        assert!(held.recv().is_err());
    });
    assert!(board.jobs.send(Job::Act(act)).await.is_ok());
    wait.await.unwrap();
    release
}

/// Proposals that all wait for a held writer, in order.
async fn queue(
    board: &Arc<Embedded>,
    ops: impl IntoIterator<Item = BoardOp>,
) -> Vec<oneshot::Receiver<Result<Proposed, ProposeError>>> {
    let mut answers = Vec::new();
    for op in ops {
        let (reply, answer) = oneshot::channel();
        let now_ms = NOW;
        let job = Job::Propose { op, now_ms, reply };
        assert!(board.jobs.send(job).await.is_ok());
        answers.push(answer);
    }
    answers
}

#[tokio::test]
async fn a_file_belongs_to_one_cluster() {
    let bench = Bench::with_entries(1).await;
    let other = Cluster::new(4, 3);
    let error = bench.try_open(&other).unwrap_err();
    let expected = StoreError::OtherCluster {
        found: bench.cluster.rules().cluster_id(),
        expected: other.rules().cluster_id(),
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("use another data directory"));
    assert_eq!(bench.open().head().await, Ok(1));
}

#[tokio::test]
async fn a_newer_file_is_left_alone() {
    let bench = Bench::with_entries(1).await;
    let newer = (file::SCHEMA_VERSION + 1).to_be_bytes();
    let sql = "UPDATE meta SET value = ?1 WHERE key = 'schema_version'";
    bench.raw().execute(sql, [&newer[..]]).unwrap();
    let error = bench.try_open(&bench.cluster).unwrap_err();
    assert_eq!(error, StoreError::NewerSchema { found: 2, known: 1 });
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let bench = Bench::new();
    bench
        .raw()
        .execute_batch("CREATE TABLE cats (name)")
        .unwrap();
    let before = std::fs::read(bench.path()).unwrap();
    assert!(bench.refuses_to_open().contains("something else"));
    assert_eq!(std::fs::read(bench.path()).unwrap(), before);

    let bench = Bench::new();
    let text = "this is a letter to a friend, and no database at all. ".repeat(20);
    std::fs::write(bench.path(), &text).unwrap();
    bench.refuses_to_open();
    assert_eq!(std::fs::read_to_string(bench.path()).unwrap(), text);
}

#[test]
fn a_directory_that_is_missing_is_said() {
    let path = Path::new("/nowhere/at/all/board.db");
    let rules = Arc::clone(Cluster::new(5, 4).rules());
    let error = Embedded::open(path, rules, Arc::new(FakeVerifier)).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(error.is_passing());
}

#[tokio::test]
async fn many_may_make_the_file_at_once() {
    for _ in 0..10 {
        let bench = Bench::new();
        let openers: Vec<_> = (0..6)
            .map(|_| {
                let (path, rules) = (bench.path(), Arc::clone(bench.cluster.rules()));
                thread::spawn(move || Embedded::open(path, rules, Arc::new(FakeVerifier)))
            })
            .collect();
        for (i, opener) in openers.into_iter().enumerate() {
            let board = opener.join().unwrap().unwrap();
            let answer = board.propose(bench.opening(i), NOW).await;
            assert_eq!(answer, Ok(Proposed::Applied(i as u64 + 1)));
        }
    }
}

#[tokio::test]
async fn damage_is_found_at_the_start() {
    let damages = [
        (
            "DELETE FROM board_log WHERE revision = 2",
            "entry 2 is missing",
        ),
        (
            "UPDATE board_log SET op = x'ff' WHERE revision = 3",
            "cannot be decoded",
        ),
        // The same operation twice: it can have had no effect.
        (
            "UPDATE board_log SET op = (SELECT op FROM board_log WHERE revision = 1)
             WHERE revision = 2",
            "entry 2 changes nothing",
        ),
        (
            "UPDATE board_log SET time_ms = time_ms - 1 WHERE revision = 3",
            "entry 3 runs backwards in time",
        ),
        (
            "UPDATE board_log SET time_ms = time_ms + 1000000000 WHERE revision = 3",
            "entry 3 is not justified",
        ),
        (
            "UPDATE board_log SET time_ms = -1 WHERE revision = 1",
            "-1 is negative",
        ),
        ("DELETE FROM meta WHERE key = 'cluster_id'", "cluster_id"),
        (
            "UPDATE meta SET value = x'00' WHERE key = 'schema_version'",
            "no number",
        ),
    ];
    for (sql, found) in damages {
        let bench = Bench::with_entries(3).await;
        bench
            .raw()
            .execute(sql, [])
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let why = bench.refuses_to_open();
        assert!(why.contains(found), "{sql}: {why}");
    }
}

#[tokio::test]
async fn a_gap_made_while_running_is_never_read_over() {
    let bench = Bench::with_entries(5).await;
    let board = bench.open();
    bench
        .raw()
        .execute("DELETE FROM board_log WHERE revision = 3", [])
        .unwrap();
    assert_eq!(board.entries(0, 2).await.unwrap().len(), 2);
    let error = board.entries(0, 5).await.unwrap_err();
    assert!(error.to_string().contains("entry 3 is missing"), "{error}");
    assert!(!error.is_passing());
}

#[tokio::test]
async fn the_file_is_trusted_for_signatures_and_for_nothing_else() {
    let bench = Bench::with_entries(1).await;
    let mut vote = bench.cluster.vote(3, &tx("b"), number(1), NOW);
    vote.signature[0] ^= 1;
    let op = ops::record_vote(vote).encode_to_vec();
    let sql = "INSERT INTO board_log (revision, time_ms, op, events) VALUES (2, ?1, ?2, x'')";
    bench.raw().execute(sql, params![NOW as i64, op]).unwrap();
    // It opens fast, and every node's own replay refuses what it reads from it.
    let board = bench.open();
    assert_eq!(board.head().await, Ok(2));
    let entries = board.entries(0, 9).await.unwrap();
    let mut mirror = quorate_consensus::board::Board::new(Arc::clone(bench.cluster.rules()));
    let [first, second] = entries.try_into().unwrap();
    mirror.replay(first, &FakeVerifier).unwrap();
    mirror.replay(second, &FakeVerifier).unwrap_err();
    // What is proposed is verified.
    let mut forged = bench.cluster.vote(4, &tx("b"), number(1), NOW);
    forged.signature[0] ^= 1;
    let answer = board.propose(ops::record_vote(forged), NOW).await;
    assert!(matches!(
        answer,
        Err(ProposeError::Refused(Refusal::Statement(_)))
    ));
}

#[tokio::test]
async fn waiting_proposals_share_one_commit() {
    let bench = Bench::new();
    let board = Arc::new(bench.open());
    board.propose(bench.opening(0), NOW).await.unwrap();
    let frames = || {
        let raw = bench.raw();
        raw.query_row("PRAGMA wal_checkpoint", [], |row| row.get::<_, i64>(1))
            .unwrap()
    };
    let before = frames();
    let release = hold(&board).await;
    let answers = queue(&board, (1..=200).map(|i| bench.opening(i))).await;
    drop(release);
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), Ok(Proposed::Applied(i as u64 + 2)));
    }
    // Each commit writes a page at least.
    let written = frames() - before;
    assert!(written < 100, "{written} pages for 200 votes");
}

#[tokio::test]
async fn a_batch_is_bounded() {
    let bench = Bench::new();
    let options = Options {
        max_batch: 3,
        queue: 100,
        ..Options::default()
    };
    let rules = Arc::clone(bench.cluster.rules());
    let board = Embedded::open_with(bench.path(), rules, Arc::new(FakeVerifier), options);
    let board = Arc::new(board.unwrap());
    let release = hold(&board).await;
    let answers = queue(&board, (0..10).map(|i| bench.opening(i))).await;
    drop(release);
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), Ok(Proposed::Applied(i as u64 + 1)));
    }
}

#[tokio::test]
async fn a_full_disk_takes_nothing_and_passes() {
    let bench = Bench::new();
    let board = Arc::new(bench.open());
    board.propose(bench.opening(0), NOW).await.unwrap();
    board
        .on_writer(|connection| {
            let pages: i64 = connection
                .query_row("PRAGMA page_count", [], |row| row.get(0))
                .unwrap();
            connection
                .pragma_update(None, "max_page_count", pages + 2)
                .unwrap();
        })
        .await;
    // The first ones of the batch would fit; then there is no room.
    for _ in 0..3 {
        let release = hold(&board).await;
        let answers = queue(&board, (1..=200).map(|i| bench.opening(i))).await;
        drop(release);
        for answer in answers {
            let why = unavailable(answer.await.unwrap());
            assert!(why.contains("the disk is full"), "{why}");
        }
        assert_eq!(board.head().await, Ok(1));
        assert_eq!(board.entries(0, 9).await.unwrap().len(), 1);
    }
    board
        .on_writer(|connection| {
            connection
                .pragma_update(None, "max_page_count", 1_000_000)
                .unwrap();
        })
        .await;
    // The memory of what failed is gone: it is applied, not "unchanged".
    let answer = board.propose(bench.opening(1), NOW).await;
    assert_eq!(answer, Ok(Proposed::Applied(2)));
    let answer = board.propose(bench.opening(0), NOW).await;
    assert_eq!(answer, Ok(Proposed::Unchanged(2)));
    let fresh = bench.open();
    assert_eq!(fresh.entries(0, 9).await, board.entries(0, 9).await);
}

#[tokio::test]
async fn what_failed_is_forgotten_though_others_went_on() {
    let bench = Bench::new();
    let (board, other) = (bench.open(), bench.open());
    let board = Arc::new(board);
    board
        .on_writer(|c| c.pragma_update(None, "max_page_count", 8).unwrap())
        .await;
    let release = hold(&board).await;
    let answers = queue(&board, (1..=100).map(|i| bench.opening(i))).await;
    drop(release);
    for answer in answers {
        unavailable(answer.await.unwrap());
    }
    // The others' log is soon longer than the failed handle's would have been.
    for i in 101..=250 {
        other.propose(bench.opening(i), NOW).await.unwrap();
    }
    board
        .on_writer(|c| {
            c.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        })
        .await;
    let answer = board.propose(bench.opening(1), NOW).await;
    assert_eq!(answer, Ok(Proposed::Applied(151)));
    let answer = board.propose(bench.opening(101), NOW).await;
    assert_eq!(answer, Ok(Proposed::Unchanged(151)));
}

#[tokio::test]
async fn a_read_only_file_is_still_read() {
    let bench = Bench::new();
    let board = bench.open();
    board.propose(bench.opening(0), NOW).await.unwrap();
    board
        .on_writer(|c| c.pragma_update(None, "query_only", true).unwrap())
        .await;
    let why = unavailable(board.propose(bench.opening(1), NOW).await);
    assert!(why.contains("read-only"), "{why}");
    assert_eq!(board.head().await, Ok(1));
    assert_eq!(board.entries(0, 9).await.unwrap().len(), 1);
    board
        .on_writer(|c| c.pragma_update(None, "query_only", false).unwrap())
        .await;
    let answer = board.propose(bench.opening(1), NOW).await;
    assert_eq!(answer, Ok(Proposed::Applied(2)));
}

#[tokio::test]
async fn a_locked_file_fails_all_who_wait_and_passes() {
    let bench = Bench::new();
    let board = Arc::new(bench.open());
    board.propose(bench.opening(0), NOW).await.unwrap();
    let other = bench.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let release = hold(&board).await;
    // More than one batch: the second does not wait for the lock once more.
    let answers = queue(&board, (1..=600).map(|i| bench.opening(i))).await;
    drop(release);
    for answer in answers {
        let why = unavailable(answer.await.unwrap());
        assert!(why.contains("another process holds it"), "{why}");
    }
    assert_eq!(board.head().await, Ok(1));
    other.execute_batch("ROLLBACK").unwrap();
    let answer = board.propose(bench.opening(600), NOW).await;
    assert_eq!(answer, Ok(Proposed::Applied(2)));
}

#[tokio::test]
async fn a_file_that_went_back_in_time_is_read_anew() {
    let bench = Bench::with_entries(5).await;
    let board = bench.open();
    let raw = bench.raw();
    raw.execute("DELETE FROM board_log WHERE revision > 2", [])
        .unwrap();
    assert_eq!(board.head().await, Ok(2));
    let answer = board.propose(bench.opening(0), NOW).await;
    assert_eq!(answer, Ok(Proposed::Unchanged(2)));
    let answer = board.propose(bench.opening(4), NOW).await;
    assert_eq!(answer, Ok(Proposed::Applied(3)));
}

#[tokio::test]
async fn a_time_that_no_column_holds_is_refused() {
    let bench = Bench::new();
    let board = bench.open();
    let boot = ops::boot(bench.cluster.boot(0, 1, NOW));
    let answer = board.propose(boot.clone(), u64::MAX).await;
    assert!(
        matches!(answer, Err(ProposeError::Refused(Refusal::Malformed(_)))),
        "{answer:?}"
    );
    let answer = board.propose(boot, file::MAX_COLUMN).await;
    assert_eq!(answer, Ok(Proposed::Applied(1)));
    let entries = bench.open().entries(0, 1).await.unwrap();
    assert_eq!(entries[0].time_ms, i64::MAX as u64);
}

#[tokio::test]
async fn a_reader_far_behind_gets_the_log_in_pieces() {
    let bench = Bench::with_entries(1).await;
    let big = vec![0_u8; file::MAX_ANSWER_LEN / 2];
    // An event of unknown fields, to be large and still an entry.
    let event = quorate_consensus::wire::BoardEvent {
        tx_id: String::from_utf8(big).unwrap(),
        ..Default::default()
    };
    let events = BoardEntry {
        events: vec![event],
        ..Default::default()
    };
    let raw = bench.raw();
    let boot = |i: u64| ops::boot(bench.cluster.boot(0, i, NOW)).encode_to_vec();
    for i in 2..=5_u64 {
        let sql = "INSERT INTO board_log (revision, time_ms, op, events) VALUES (?1, ?2, ?3, ?4)";
        let row = params![i as i64, NOW as i64, boot(i), events.encode_to_vec()];
        raw.execute(sql, row).unwrap();
    }
    let board = bench.open();
    let mut after = 0;
    let mut pieces = 0;
    while let Some(last) = board.entries(after, 100).await.unwrap().last() {
        after = last.revision;
        pieces += 1;
    }
    assert_eq!((after, pieces), (5, 4));
}

#[tokio::test]
async fn closing_answers_what_waits() {
    let bench = Bench::new();
    let board = Arc::new(bench.open());
    let release = hold(&board).await;
    let answers = queue(&board, (0..50).map(|i| bench.opening(i))).await;
    let board = Arc::into_inner(board).unwrap();
    let closing = tokio::spawn(board.close());
    drop(release);
    closing.await.unwrap();
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), Ok(Proposed::Applied(i as u64 + 1)));
    }
    // Nobody holds the file any more: only then can this mode be left.
    let leave = "PRAGMA journal_mode = DELETE";
    let mode = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    assert_eq!(bench.raw().query_row(leave, [], mode).unwrap(), "delete");
}
