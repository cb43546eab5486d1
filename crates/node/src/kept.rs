//! The kept log: this node's own copy of all that it has believed of the board, in a
//! file of its own in the data directory. What a node has believed never un-happens: a
//! store that shows another history is found out at the next start, and what a store
//! lost when it was put back to an older copy can be put on the board again from here
//! (`quorate reconcile`).
//!
//! It is written behind the engine's back and without waiting for the disk: nothing is
//! signed by it, and what a crash takes from its end is read from the store again.

use std::borrow::Borrow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::watch;

use crate::feed::Feed;
use crate::journal::{JournalError, from_sql, to_sql};

/// The version of the tables.
const SCHEMA: i64 = 1;

/// Entries read or written at once.
const CHUNK: usize = 256;

/// The pause after an error.
const PAUSE: Duration = Duration::from_secs(1);

const TABLES: &str = "
CREATE TABLE entries (revision INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, op BLOB NOT NULL);
CREATE TABLE given_up (at_ms INTEGER NOT NULL, revision INTEGER NOT NULL, time_ms INTEGER NOT NULL, op BLOB NOT NULL);
";

/// See the module's head.
pub(crate) struct Kept {
    connection: Mutex<Connection>,
    /// The revision of the last entry; 0 before the first.
    last: watch::Sender<u64>,
    /// The store shows another history: nothing of that is kept.
    frozen: AtomicBool,
}

impl Kept {
    /// Opens the file in a data directory whose journal is held open, and makes it if
    /// there is none.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, JournalError> {
        let mut connection = Connection::open(data_dir.join("log.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        let transaction = connection.transaction()?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |r| r.get(0))?;
        if version > SCHEMA {
            return Err(JournalError::NewerSchema(version));
        }
        if version < SCHEMA {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
        }
        let last: Option<i64> =
            transaction.query_row("SELECT max(revision) FROM entries", [], |r| r.get(0))?;
        transaction.commit()?;
        Ok(Self {
            connection: Mutex::new(connection),
            last: watch::Sender::new(from_sql("revision", last.unwrap_or(0))?),
            frozen: AtomicBool::new(false),
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic leaves at most a transaction that was not committed.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision of the last entry; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Waits until everything up to a revision is kept, unless nothing is kept any more.
    pub(crate) async fn reaches(&self, revision: u64) {
        if !self.is_frozen() {
            let mut last = self.last.subscribe();
            // The sender is this one's own.
            let _ = last.wait_for(|last| *last >= revision).await;
        }
    }

    fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    /// Keeps no more: what the store shows is not the log that this node has believed.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    /// Appends entries that follow the last one. What is not next is left out.
    pub(crate) fn append(&self, entries: &[impl Borrow<BoardEntry>]) -> Result<(), JournalError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let mut last = self.last();
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3)")?;
            for entry in entries.iter().map(Borrow::borrow) {
                if self.is_frozen() || entry.revision != last + 1 {
                    break;
                }
                let (revision, time_ms) = (to_sql(entry.revision)?, to_sql(entry.time_ms)?);
                insert.execute(params![revision, time_ms, op_bytes(entry)])?;
                last = entry.revision;
            }
        }
        transaction.commit()?;
        self.last.send_replace(last);
        Ok(())
    }

    /// The entries after a revision, without their events, at most `limit`.
    pub(crate) fn read(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, JournalError> {
        let connection = self.connection();
        let mut select = connection.prepare_cached(
            "SELECT revision, time_ms, op FROM entries WHERE revision > ?1 ORDER BY revision LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = select.query_map(params![to_sql(after)?, limit], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
        let entries = rows.map(|row| {
            let (revision, time_ms, op): (i64, i64, Vec<u8>) = row?;
            let op = BoardOp::decode(&*op)
                .map_err(|error| JournalError::Corrupt(format!("kept entry {revision}: {error}")));
            Ok(BoardEntry {
                revision: from_sql("revision", revision)?,
                time_ms: from_sql("time", time_ms)?,
                op: Some(op?),
                events: Vec::new(),
            })
        });
        entries.collect()
    }

    /// The first of these entries that is another one here.
    pub(crate) fn first_other(&self, entries: &[BoardEntry]) -> Result<Option<u64>, JournalError> {
        let connection = self.connection();
        let mut select =
            connection.prepare_cached("SELECT time_ms, op FROM entries WHERE revision = ?1")?;
        for entry in entries {
            let row = select.query_row(params![to_sql(entry.revision)?], |row| {
                Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?))
            });
            if let Some((time_ms, op)) = row.optional()?
                && (from_sql("time", time_ms)? != entry.time_ms || op != op_bytes(entry))
            {
                return Ok(Some(entry.revision));
            }
        }
        Ok(None)
    }

    /// Gives up what comes after a revision, for the board has taken another course; it
    /// is put aside, for people.
    pub(crate) fn give_up_after(&self, revision: u64, at_ms: u64) -> Result<(), JournalError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let after = to_sql(revision)?;
        transaction.execute(
            "INSERT INTO given_up SELECT ?1, revision, time_ms, op FROM entries WHERE revision > ?2",
            params![to_sql(at_ms)?, after],
        )?;
        transaction.execute("DELETE FROM entries WHERE revision > ?1", params![after])?;
        transaction.commit()?;
        self.last.send_modify(|last| *last = revision.min(*last));
        Ok(())
    }
}

fn op_bytes(entry: &BoardEntry) -> Vec<u8> {
    entry
        .op
        .as_ref()
        .map(BoardOp::encode_to_vec)
        .unwrap_or_default()
}

/// Keeps what the node believes for as long as it runs.
pub(crate) async fn keep(feed: Arc<Feed>, kept: Arc<Kept>) {
    let mut heads = feed.heads();
    let mut failing = false;
    loop {
        heads.borrow_and_update();
        let read = feed.read(kept.last(), CHUNK).await;
        let done = match read {
            Ok(entries) if entries.is_empty() => {
                if heads.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Ok(entries) => {
                let kept = Arc::clone(&kept);
                let appended = tokio::task::spawn_blocking(move || kept.append(&entries)).await;
                match appended {
                    Ok(result) => result.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        if kept.is_frozen() {
            return;
        }
        match done {
            Ok(()) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "kept_log.behind: it goes on when that is mended");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_consensus::wire::{BallotState, board_op::Op};

    use super::*;

    fn entry(revision: u64, tx_id: &str) -> Arc<BoardEntry> {
        Arc::new(BoardEntry {
            revision,
            time_ms: 10 * revision,
            op: Some(BoardOp {
                op: Some(Op::Advance(quorate_consensus::wire::AdvanceOp {
                    tx_id: tx_id.to_owned(),
                    to: BallotState::Collecting.into(),
                })),
            }),
            events: Vec::new(),
        })
    }

    fn some(revisions: std::ops::RangeInclusive<u64>) -> Vec<Arc<BoardEntry>> {
        revisions.map(|revision| entry(revision, "tx")).collect()
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_in_order_and_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        kept.append(&some(1..=3)).unwrap();
        // Neither what it has nor what leaves a gap.
        kept.append(&some(2..=5)).unwrap();
        kept.append(&some(6..=7)).unwrap();
        assert_eq!(kept.last(), 3);
        kept.append(&some(4..=7)).unwrap();
        drop(kept);
        let kept = Kept::open(dir.path()).unwrap();
        assert_eq!(kept.last(), 7);
        let read = kept.read(2, 3).unwrap();
        let expected: Vec<_> = some(3..=5).iter().map(|e| (**e).clone()).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn another_history_is_told_from_the_kept_one_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        kept.append(&some(1..=5)).unwrap();
        let mut shown: Vec<_> = some(1..=8).iter().map(|e| (**e).clone()).collect();
        assert_eq!(kept.first_other(&shown).unwrap(), None);
        shown[3] = (*entry(4, "other")).clone();
        assert_eq!(kept.first_other(&shown).unwrap(), Some(4));
        shown[2].time_ms += 1;
        assert_eq!(kept.first_other(&shown).unwrap(), Some(3));
        kept.freeze();
        kept.append(&some(6..=8)).unwrap();
        assert_eq!(kept.last(), 5);
    }

    #[test]
    fn what_is_given_up_is_put_aside_and_the_other_course_kept() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        kept.append(&some(1..=5)).unwrap();
        kept.give_up_after(3, 99).unwrap();
        assert_eq!(kept.last(), 3);
        kept.append(&[entry(4, "other")]).unwrap();
        assert_eq!(kept.read(3, 9).unwrap(), [(*entry(4, "other")).clone()]);
        let aside: i64 = kept
            .connection()
            .query_row("SELECT count(*) FROM given_up WHERE at_ms = 99", [], |r| {
                r.get(0)
            })
            .unwrap();
        assert_eq!(aside, 2);
    }
}
