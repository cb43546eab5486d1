//! The file: its tables, how it is opened, and its rows as entries of the board.
//!
//! ```sql
//! meta(key, value)                             -- cluster_id, schema_version
//! board_log(revision, time_ms, op, events)     -- append only
//! ```
//!
//! `op` and `events` are protobuf; an entry is put together from its row, so that
//! nothing is stored twice.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use quorate_consensus::ClusterId;
use quorate_consensus::wire::{BoardEntry, BoardOp};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};

use crate::api::StoreError;

/// The newest schema that this program knows, and the one it makes.
pub(super) const SCHEMA_VERSION: u64 = 1;

/// The most bytes of entries in one answer, so that a reader far behind gets the
/// log in pieces; a single larger entry is still given.
pub(super) const MAX_ANSWER_LEN: usize = 16 * 1024 * 1024;

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE board_log (
        revision INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        op BLOB NOT NULL,
        events BLOB NOT NULL
    ) STRICT;
";

/// A connection to a board's file.
#[derive(Debug)]
pub(super) struct LogFile {
    connection: Connection,
}

impl LogFile {
    /// Opens the file, or makes it, and checks whose it is.
    pub(super) fn open(
        path: &Path,
        cluster_id: &ClusterId,
        busy_wait: Duration,
    ) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        wait_when_busy(&mut connection, busy_wait)?;
        let file = Self { connection };
        let deadline = Instant::now() + busy_wait;
        // While another process switches the journal mode or recovers the file,
        // SQLite says "busy" without asking the busy handler.
        loop {
            match file.prepare(cluster_id) {
                Err(StoreError::Busy) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(()) => return Ok(file),
                Err(error) => return Err(error),
            }
        }
    }

    fn prepare(&self, cluster_id: &ClusterId) -> Result<(), StoreError> {
        // Whose it is comes first: nobody else's file is touched.
        let is_new = self.is_new()?;
        if !is_new {
            self.check(cluster_id)?;
        }
        let mode: String = self
            .connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::Unavailable(format!(
                "this file system cannot share the board between processes (journal mode {mode})"
            )));
        }
        // With FULL a commit is on the disk before it is answered.
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        if is_new {
            self.make(cluster_id)?;
            self.check(cluster_id)?;
        }
        Ok(())
    }

    /// Whether there is nothing in the file yet.
    fn is_new(&self) -> Result<bool, StoreError> {
        let mut query = self
            .connection
            .prepare("SELECT count(*), ifnull(sum(name = 'meta'), 0) FROM sqlite_schema")?;
        match query.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            (0_i64, _) => Ok(true),
            (_, 1_i64) => Ok(false),
            _ => {
                let what = "the file is a database of something else".into();
                Err(StoreError::Corrupt(what))
            }
        }
    }

    fn make(&self, cluster_id: &ClusterId) -> Result<(), StoreError> {
        let transaction = self.begin()?;
        // Another process may have been faster.
        if self.is_new()? {
            transaction.execute_batch(TABLES)?;
            let mut insert =
                transaction.prepare("INSERT INTO meta (key, value) VALUES (?1, ?2)")?;
            insert.execute(params!["cluster_id", &cluster_id.0[..]])?;
            insert.execute(params!["schema_version", SCHEMA_VERSION.to_be_bytes()])?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn check(&self, cluster_id: &ClusterId) -> Result<(), StoreError> {
        let version = <[u8; 8]>::try_from(&*self.meta("schema_version")?)
            .map(u64::from_be_bytes)
            .map_err(|_| StoreError::Corrupt("the schema version is no number".into()))?;
        if version > SCHEMA_VERSION {
            return Err(StoreError::NewerSchema {
                found: version,
                known: SCHEMA_VERSION,
            });
        }
        let found = ClusterId::try_from(&*self.meta("cluster_id")?)
            .map_err(|e| StoreError::Corrupt(format!("the cluster id: {e}")))?;
        if found != *cluster_id {
            return Err(StoreError::OtherCluster {
                found,
                expected: *cluster_id,
            });
        }
        Ok(())
    }

    fn meta(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        let value = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()?;
        value.ok_or_else(|| StoreError::Corrupt(format!("it does not tell its {key}")))
    }

    /// Begins to write: nobody else writes until the transaction ends. Without a
    /// commit it is rolled back.
    pub(super) fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        Ok(Transaction::new_unchecked(
            &self.connection,
            TransactionBehavior::Immediate,
        )?)
    }

    /// A number that changes when another connection commits.
    pub(super) fn data_version(&self) -> Result<i64, StoreError> {
        let mut query = self.connection.prepare_cached("PRAGMA data_version")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// See [`head`].
    pub(super) fn head(&self) -> Result<u64, StoreError> {
        head(&self.connection)
    }

    /// The entries after a revision, at most `limit`.
    pub(super) fn entries(&self, after: u64, limit: usize) -> Result<Vec<BoardEntry>, StoreError> {
        let mut query = self.connection.prepare_cached(
            "SELECT revision, time_ms, op, events FROM board_log
             WHERE revision > ?1 ORDER BY revision LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = query.query(params![column(after), limit])?;
        let (mut entries, mut len) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let op = row.get_ref(2)?.as_blob()?;
            let events = row.get_ref(3)?.as_blob()?;
            len += op.len() + events.len();
            if len > MAX_ANSWER_LEN && !entries.is_empty() {
                break;
            }
            let entry = BoardEntry {
                events: decode::<BoardEntry>(events)?.events,
                ..bare(row.get(0)?, row.get(1)?, op)?
            };
            follows(after, entries.len(), &entry)?;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The connection itself.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Revision of the last entry; 0 before the first.
pub(super) fn head(connection: &Connection) -> Result<u64, StoreError> {
    let mut query = connection.prepare_cached("SELECT ifnull(max(revision), 0) FROM board_log")?;
    number(query.query_row([], |row| row.get(0))?)
}

/// Hands the entries after a revision to `take`, in order, without their events.
pub(super) fn each_after(
    connection: &Connection,
    after: u64,
    mut take: impl FnMut(BoardEntry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT revision, time_ms, op FROM board_log WHERE revision > ?1 ORDER BY revision",
    )?;
    let mut rows = query.query([column(after)])?;
    let mut given = 0;
    while let Some(row) = rows.next()? {
        let op = row.get_ref(2)?.as_blob()?;
        let entry = bare(row.get(0)?, row.get(1)?, op)?;
        follows(after, given, &entry)?;
        take(entry)?;
        given += 1;
    }
    Ok(())
}

/// Appends an entry.
pub(super) fn append(connection: &Connection, entry: BoardEntry) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO board_log (revision, time_ms, op, events) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let op = entry.op.unwrap_or_default().encode_to_vec();
    let events = BoardEntry {
        events: entry.events,
        ..BoardEntry::default()
    };
    insert.execute(params![
        column(entry.revision),
        column(entry.time_ms),
        op,
        events.encode_to_vec()
    ])?;
    Ok(())
}

/// The greatest number that a column holds.
pub(super) const MAX_COLUMN: u64 = i64::MAX as u64;

fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(column: i64) -> Result<u64, StoreError> {
    u64::try_from(column).map_err(|_| StoreError::Corrupt(format!("{column} is negative")))
}

fn bare(revision: i64, time_ms: i64, op: &[u8]) -> Result<BoardEntry, StoreError> {
    Ok(BoardEntry {
        revision: number(revision)?,
        time_ms: number(time_ms)?,
        op: Some(decode::<BoardOp>(op)?),
        events: Vec::new(),
    })
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|e| StoreError::Corrupt(format!("an entry cannot be decoded: {e}")))
}

fn follows(after: u64, given: usize, entry: &BoardEntry) -> Result<(), StoreError> {
    let expected = after + 1 + given as u64;
    if entry.revision == expected {
        return Ok(());
    }
    let what = format!(
        "entry {expected} is missing, the next is {}",
        entry.revision
    );
    Err(StoreError::Corrupt(what))
}

/// Waits for a lock in short naps: commits take a fraction of a millisecond, and
/// SQLite's own handler soon sleeps for tens of them.
fn wait_when_busy(connection: &mut Connection, wait: Duration) -> Result<(), StoreError> {
    let mut since = Instant::now();
    connection.busy_handler(Some(move |times: i32| {
        if times == 0 {
            since = Instant::now();
        }
        if since.elapsed() >= wait {
            return false;
        }
        thread::sleep(Duration::from_micros(100 << (times / 32).clamp(0, 4)));
        true
    }))?;
    Ok(())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error_code() else {
            // What remains are rows that do not hold what they should.
            return Self::Corrupt(error.to_string());
        };
        match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy,
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::ReadOnly => Self::ReadOnly(error.to_string()),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for StoreError {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::Corrupt(error.to_string())
    }
}
