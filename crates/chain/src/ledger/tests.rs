//! The ledger passes the suite, survives a kill anywhere, and notices edits.

use std::env;
use std::process::{Child, Command, Stdio};

use quorate_engine::{Prepared, Sighting};
use tempfile::TempDir;

use super::*;
use crate::suite::{Builder, Fault, Place, run_all};

const ACCOUNT: &str = "treasury";

fn options(auto_blocks: u32) -> LedgerOptions {
    LedgerOptions {
        chain_id: "test".into(),
        first_nonce: 7,
        auto_blocks,
        key: Some(ChainKey::from_bytes([42; 32])),
    }
}

struct Files {
    auto_blocks: u32,
}

struct File {
    directory: TempDir,
    ledger: Ledger,
    auto_blocks: u32,
}

#[async_trait]
impl Builder for Files {
    async fn place(&self) -> Box<dyn Place> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        Box::new(File {
            ledger: Ledger::open(path, options(self.auto_blocks)).unwrap(),
            directory,
            auto_blocks: self.auto_blocks,
        })
    }
}

#[async_trait]
impl Place for File {
    async fn open(&self) -> Result<Arc<dyn Chain>, ChainError> {
        let path = self.directory.path().join("ledger.db");
        Ok(Arc::new(Ledger::open(path, options(self.auto_blocks))?))
    }

    fn faults(&self) -> &dyn Faults {
        &self.ledger
    }

    fn can(&self, _fault: Fault) -> bool {
        true
    }

    fn account(&self) -> String {
        ACCOUNT.into()
    }

    fn first_nonce(&self) -> u64 {
        7
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite() {
    run_all(&Files { auto_blocks: 0 }).await;
    run_all(&Files { auto_blocks: 3 }).await;
}

fn prepared(ledger: &Ledger, nonce: u64, payload: &[u8]) -> Prepared {
    let reservation = Reservation {
        account: ACCOUNT.into(),
        nonce,
        payload: payload.to_vec(),
    };
    match ledger.prepare(&reservation, 0) {
        ChainAnswer::Prepared(prepared) => prepared,
        other => panic!("{other:?}"),
    }
}

async fn send(ledger: &Ledger, prepared: &Prepared) -> SendOutcome {
    let raw = prepared.raw.clone();
    match ledger.ask(ChainAsk::Send { raw }).await {
        ChainAnswer::Sent(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

async fn look(ledger: &Ledger, nonce: u64) -> Sighting {
    let account = ACCOUNT.into();
    match ledger.ask(ChainAsk::Look { account, nonce }).await {
        ChainAnswer::Seen(seen) => seen,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_same_reservation_gives_the_same_bytes_in_every_process() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = Ledger::open(one.path().join("a"), options(0)).unwrap();
    let other = Ledger::open(other.path().join("b"), options(9)).unwrap();
    assert_eq!(prepared(&one, 7, b"x"), prepared(&other, 7, b"x"));
}

#[tokio::test]
async fn auto_blocks_bury_each_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let target = ChainTarget {
        chain_id: "test".into(),
        first_nonce: u64::MAX - 1,
        confirmations: 12,
        ..ChainTarget::default()
    };
    let key = ChainKey::from_bytes([1; 32]);
    let options = LedgerOptions::for_target(&target, Some(key));
    let ledger = Ledger::open(directory.path().join("ledger.db"), options).unwrap();
    // The last two nonces that there are.
    for nonce in [u64::MAX - 1, u64::MAX] {
        let transaction = prepared(&ledger, nonce, b"x");
        assert_eq!(send(&ledger, &transaction).await, SendOutcome::Accepted);
        let seen = look(&ledger, nonce).await;
        assert!(
            matches!(seen, Sighting::Included { depth: 12, .. }),
            "{seen:?}"
        );
        assert_eq!(send(&ledger, &transaction).await, SendOutcome::NonceTooLow);
    }
    ledger.tick().await.unwrap();
    assert_eq!(ledger.verify_integrity().await.unwrap().number, 25);
}

#[tokio::test]
async fn who_has_no_key_looks_and_does_not_submit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let keyless = LedgerOptions {
        key: None,
        ..options(0)
    };
    let watcher = Ledger::open(&path, keyless).unwrap();
    let submitter = Ledger::open(&path, options(0)).unwrap();
    let transaction = prepared(&submitter, 7, b"x");
    let reservation = Reservation::default();
    let raw = transaction.raw.clone();
    for ask in [
        ChainAsk::Send { raw },
        ChainAsk::Prepare {
            reservation,
            attempt: 0,
        },
    ] {
        let answer = watcher.ask(ask).await;
        assert!(matches!(answer, ChainAnswer::Unavailable(_)), "{answer:?}");
    }
    assert_eq!(look(&watcher, 7).await, Sighting::Nothing);
    assert_eq!(send(&submitter, &transaction).await, SendOutcome::Accepted);
    let seen = look(&watcher, 7).await;
    assert!(matches!(seen, Sighting::Included { .. }), "{seen:?}");
    watcher.verify_integrity().await.unwrap();
}

#[test]
fn another_chain_or_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    drop(Ledger::open(&path, options(0)).unwrap());
    for other in [
        LedgerOptions {
            chain_id: "other".into(),
            ..options(0)
        },
        LedgerOptions {
            first_nonce: 8,
            ..options(0)
        },
    ] {
        let refused = Ledger::open(&path, other).err();
        assert!(
            matches!(refused, Some(ChainError::OtherChain { .. })),
            "{refused:?}"
        );
    }
    let other = LedgerOptions {
        key: Some(ChainKey::from_bytes([1; 32])),
        ..options(0)
    };
    let refused = Ledger::open(&path, other).err();
    assert!(matches!(refused, Some(ChainError::Key(_))), "{refused:?}");
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    let refused = Ledger::open(&path, options(0)).err().unwrap().to_string();
    assert!(refused.contains("version 2"), "{refused}");
}

#[tokio::test]
async fn an_edit_anywhere_is_found() {
    let edits = [
        ("UPDATE transactions SET payload = x'00' WHERE block = 2", 2),
        (
            "UPDATE transactions SET nonce = '00000000000000000099' WHERE block = 2",
            2,
        ),
        (
            "UPDATE transactions SET account = 'mine' WHERE block = 2",
            2,
        ),
        ("UPDATE transactions SET succeeded = 0 WHERE block = 2", 2),
        ("UPDATE transactions SET tx_hash = x'00' WHERE block = 2", 2),
        (
            "UPDATE transactions SET raw = CAST(raw || x'00' AS BLOB) WHERE block = 2",
            2,
        ),
        (
            "UPDATE transactions SET raw = (SELECT raw FROM transactions WHERE block = 1),
              payload = (SELECT payload FROM transactions WHERE block = 1) WHERE block = 2",
            2,
        ),
        ("DELETE FROM transactions WHERE block = 2", 2),
        ("UPDATE transactions SET position = 1 WHERE block = 2", 2),
        ("UPDATE blocks SET hash = x'00' WHERE number = 2", 2),
        ("UPDATE blocks SET parent = x'00' WHERE number = 2", 2),
        ("UPDATE blocks SET fork = 9 WHERE number = 2", 2),
        ("DELETE FROM blocks WHERE number = 2", 2),
        ("UPDATE blocks SET hash = x'00' WHERE number = 0", 0),
        ("UPDATE blocks SET number = 77 WHERE number = 3", 3),
        ("DELETE FROM blocks", 0),
        ("DELETE FROM blocks WHERE number = 3", 3),
    ];
    for (edit, bad) in edits {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let ledger = Ledger::open(&path, options(0)).unwrap();
        for nonce in 7..10 {
            let transaction = prepared(&ledger, nonce, &nonce.to_be_bytes());
            assert_eq!(send(&ledger, &transaction).await, SendOutcome::Accepted);
        }
        assert_eq!(ledger.verify_integrity().await.unwrap().number, 3);
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "foreign_keys", false)
            .unwrap();
        connection.execute_batch(edit).unwrap();
        match ledger.verify_integrity().await {
            Err(ChainError::Tampered { block, .. }) => assert_eq!(block, bad, "{edit}"),
            other => panic!("{edit}: {other:?}"),
        }
    }
}

/// Somebody with the key and the file can write any block that hashes well.
#[tokio::test]
async fn a_block_that_no_ledger_makes_is_found() {
    for (nonce, hash_is_right, good) in [(8, true, true), (9, true, false), (8, false, false)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let ledger = Ledger::open(&path, options(0)).unwrap();
        let first = prepared(&ledger, 7, b"x");
        assert_eq!(send(&ledger, &first).await, SendOutcome::Accepted);
        let mut forged = prepared(&ledger, nonce, b"y");
        if !hash_is_right {
            forged.tx_hash = vec![1; 32];
        }
        let connection = Connection::open(&path).unwrap();
        let (number, parent) = store::head(&connection).unwrap();
        let inside = [(&*forged.tx_hash, true)].into_iter();
        let hash = store::block_hash(&ledger.identity, number + 1, 0, &parent, inside);
        connection
            .execute(
                "INSERT INTO blocks (number, hash, parent, fork) VALUES (?1, ?2, ?3, 0)",
                params![number + 1, hash, parent],
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO transactions VALUES (?1, 0, ?2, ?3, ?4, ?5, 1, ?6)",
                params![
                    number + 1,
                    forged.tx_hash,
                    ACCOUNT,
                    Wide(nonce),
                    b"y",
                    forged.raw
                ],
            )
            .unwrap();
        match ledger.verify_integrity().await {
            Ok(head) => assert_eq!((head.number, good), (2, true)),
            Err(ChainError::Tampered { block, .. }) => assert_eq!((block, good), (2, false)),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Somebody who has no key can compute every hash anew; the tags give it away.
#[tokio::test]
async fn a_ledger_made_up_without_the_key_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let other = LedgerOptions {
        key: Some(ChainKey::from_bytes([1; 32])),
        ..options(0)
    };
    let forger = Ledger::open(&path, other).unwrap();
    let transaction = prepared(&forger, 7, b"x");
    assert_eq!(send(&forger, &transaction).await, SendOutcome::Accepted);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute("UPDATE ledger SET key_check = NULL", [])
        .unwrap();
    let ledger = Ledger::open(&path, options(0)).unwrap();
    let found = ledger.verify_integrity().await;
    assert!(
        matches!(found, Err(ChainError::Tampered { block: 1, .. })),
        "{found:?}"
    );
}

const CHILD: &str = "QUORATE_CHAIN_TEST_CHILD";

fn child(order: String) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "ledger::tests::child_process", "--nocapture"])
        .env(CHILD, order)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test of its own: the process that the tests below start. Its order is
/// `path@name@step`: submit nonces 7 to 56, and at the step die by its own hand.
#[test]
fn child_process() {
    let Ok(order) = env::var(CHILD) else { return };
    let parts: Vec<&str> = order.split('@').collect();
    let &[path, name, step] = &*parts else {
        panic!("{order}");
    };
    let last_step = match step {
        "enqueued" => Some(Step::Enqueued),
        "mined" => Some(Step::Mined),
        "committed" => Some(Step::Committed),
        _ => None,
    };
    let mut ledger = Ledger::open(path, options(1)).unwrap();
    if let Some(last_step) = last_step {
        ledger.step = Some(Arc::new(move |now| {
            if now == last_step {
                let pid = std::process::id().to_string();
                Command::new("kill").args(["-KILL", &pid]).status().unwrap();
                loop {
                    thread::park();
                }
            }
        }));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for nonce in 7..57 {
            let transaction = prepared(&ledger, nonce, name.as_bytes());
            let outcome = send(&ledger, &transaction).await;
            let fine = [SendOutcome::Accepted, SendOutcome::NonceTooLow];
            assert!(fine.contains(&outcome), "{outcome:?}");
        }
    });
}

#[tokio::test]
async fn a_kill_while_sending_leaves_a_ledger_that_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = Ledger::open(&path, options(1)).unwrap();
    // Each child begins with nonce 7 and dies with the first sending.
    for (step, there) in [
        ("enqueued", false),
        ("mined", false),
        ("committed", true),
        ("committed", true),
    ] {
        let status = child(format!("{}@x@{step}", path.display()))
            .wait()
            .unwrap();
        assert_eq!(status.code(), None, "{step}: the child was killed");
        let head = ledger.verify_integrity().await.unwrap();
        assert_eq!(head.number, if there { 2 } else { 0 }, "{step}");
        let seen = look(&ledger, 7).await;
        assert_eq!(
            matches!(seen, Sighting::Included { .. }),
            there,
            "{step}: {seen:?}"
        );
    }
    // Who recovers sends the same bytes again.
    assert_eq!(
        send(&ledger, &prepared(&ledger, 7, b"x")).await,
        SendOutcome::NonceTooLow
    );
    assert_eq!(ledger.recent_blocks(99).await.unwrap().len(), 3);
}

#[tokio::test]
async fn two_processes_that_want_the_same_nonces_get_one_entry_each() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let children: Vec<_> = ["one", "two"]
        .iter()
        .map(|name| child(format!("{}@{name}@none", path.display())))
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let ledger = Ledger::open(&path, options(1)).unwrap();
    assert_eq!(ledger.verify_integrity().await.unwrap().number, 100);
    let blocks = ledger.recent_blocks(usize::MAX).await.unwrap();
    let mut nonces: Vec<_> = blocks
        .iter()
        .flat_map(|block| &block.transactions)
        .map(|found| found.nonce)
        .collect();
    nonces.sort_unstable();
    assert_eq!(nonces, (7..57).collect::<Vec<_>>());
}

#[test]
fn many_handles_may_make_the_ledger_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            thread::spawn(move || Ledger::open(path, options(0)).map(drop))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().expect("it opens");
    }
}

#[tokio::test]
async fn the_faults_of_the_chain_show_in_every_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let test = Ledger::open(&path, options(0)).unwrap();
    let node = Ledger::open(&path, options(0)).unwrap();
    test.hold(true).await.unwrap();
    let transaction = prepared(&node, 7, b"x");
    assert_eq!(send(&node, &transaction).await, SendOutcome::Accepted);
    assert!(matches!(look(&node, 7).await, Sighting::Pending { .. }));
    test.hold(false).await.unwrap();
    // What waited goes along with the next one.
    let next = prepared(&node, 8, b"y");
    assert_eq!(send(&node, &next).await, SendOutcome::Accepted);
    assert!(matches!(
        look(&node, 7).await,
        Sighting::Included { depth: 1, .. }
    ));
    test.reorganise(99, false).await.unwrap();
    assert_eq!(
        node.recent_blocks(9).await.unwrap().len(),
        1,
        "the genesis stays"
    );
    assert_eq!(look(&node, 8).await, Sighting::Nothing);
    node.verify_integrity().await.unwrap();
}
