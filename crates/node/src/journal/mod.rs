//! The journal: what this node must never forget, in a SQLite file of its own. The
//! sign guard and the verdicts lie here, so nothing is signed before the commit
//! (write-ahead log, `synchronous = FULL`) has answered.
//!
//! The tables refuse by themselves to change a guard's choice, to turn a verdict into
//! its opposite, or to delete either: a bug above must not be able to make this
//! trustee a liar.

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use prost::Message as _;
use quorate_consensus::wire::{self, BallotState, SignedStatement};
use quorate_consensus::{Choice, ClusterId, Domain, NodeId, TxId};
use quorate_engine::{Durable, JournalEntry, Record};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

/// The version of the tables.
const SCHEMA: i64 = 4;

/// How far the audit store was seen to have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// How many pasts it had lost: revisions are compared within one.
    pub past: u64,
    /// The board's revision.
    pub revision: u64,
}

/// Why the journal cannot be used. A node whose journal fails signs nothing more.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process works on this data directory.
    #[error(
        "another process is using the data directory {}: one trustee runs once; stop the other, or give this one its own directory",
        .0.display()
    )]
    InUse(PathBuf),
    /// The directory or a file in it cannot be used.
    #[error("cannot use {}: {reason}", .path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// SQLite says no.
    #[error("the journal failed: {0}")]
    Sql(#[from] rusqlite::Error),
    /// It is another node's or another cluster's.
    #[error("the journal belongs to {found}, not to {own}: use that node's own data directory")]
    Foreign {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        own: String,
    },
    /// A newer version of this program wrote it.
    #[error("the journal has schema version {0}, this program knows {SCHEMA}: use a newer program")]
    NewerSchema(i64),
    /// A row holds what this program never wrote.
    #[error("the journal is damaged: {0}")]
    Corrupt(String),
}

impl JournalError {
    /// Whether it failed for want of room, or in writing: nothing was written, and to try
    /// again later may help. (A flush that failed is another matter: what the system
    /// dropped then is not written by a second try.)
    pub fn is_want_of_room(&self) -> bool {
        let Self::Sql(rusqlite::Error::SqliteFailure(error, _)) = self else {
            return false;
        };
        error.code == rusqlite::ErrorCode::DiskFull
            || matches!(
                error.extended_code,
                rusqlite::ffi::SQLITE_IOERR_WRITE | rusqlite::ffi::SQLITE_IOERR_SHMSIZE
            )
    }
}

/// The open journal; it holds the lock on the data directory as long as it lives.
pub struct Journal {
    connection: Connection,
    // Unlocked when dropped, or by the operating system when the process dies.
    _lock: File,
}

const TABLES: &str = "
CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), node_id TEXT NOT NULL, cluster_id BLOB NOT NULL);
CREATE TABLE generation (id INTEGER PRIMARY KEY CHECK (id = 1), generation INTEGER NOT NULL, acknowledged INTEGER NOT NULL);
CREATE TABLE seen (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
CREATE TABLE guard (tx_id TEXT PRIMARY KEY, choice BLOB NOT NULL, statement BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE verdict (tx_id TEXT PRIMARY KEY, domain TEXT NOT NULL CHECK (domain IN ('decision', 'abort')), statement BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE final (tx_id TEXT PRIMARY KEY, state INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER guard_keeps_its_choice BEFORE UPDATE ON guard WHEN NEW.choice <> OLD.choice
  BEGIN SELECT RAISE(ABORT, 'the sign guard holds another choice for this transaction'); END;
CREATE TRIGGER guard_stays BEFORE DELETE ON guard
  BEGIN SELECT RAISE(ABORT, 'the sign guard is never pruned'); END;
CREATE TRIGGER verdict_keeps_its_kind BEFORE UPDATE ON verdict WHEN NEW.domain <> OLD.domain
  BEGIN SELECT RAISE(ABORT, 'a decision and an abort exclude each other'); END;
CREATE TRIGGER verdict_stays BEFORE DELETE ON verdict
  BEGIN SELECT RAISE(ABORT, 'a verdict is never pruned'); END;
";

/// What version 2 adds.
const V2: &str = "
CREATE TABLE audit_seen (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
";

/// What version 3 adds.
const V3: &str = "
CREATE TABLE address (node_id TEXT PRIMARY KEY, statement BLOB NOT NULL, signature BLOB NOT NULL) WITHOUT ROWID;
";

/// What version 4 adds: how many pasts the audit store had lost then.
const V4: &str = "
ALTER TABLE audit_seen ADD COLUMN past INTEGER NOT NULL DEFAULT 0;
";

impl Journal {
    /// Opens the journal in `data_dir`, makes directory and journal if there are
    /// none, and keeps every other process out of the directory.
    ///
    /// # Errors
    /// [`JournalError::InUse`], [`JournalError::Foreign`], or what else is wrong.
    pub fn open(
        data_dir: &Path,
        node_id: &NodeId,
        cluster_id: &ClusterId,
    ) -> Result<Self, JournalError> {
        let lock = lock(data_dir)?;
        let connection = Connection::open(data_dir.join("journal.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        let mut journal = Self {
            connection,
            _lock: lock,
        };
        journal.prepare(node_id, cluster_id)?;
        Ok(journal)
    }

    fn prepare(&mut self, node_id: &NodeId, cluster_id: &ClusterId) -> Result<(), JournalError> {
        let transaction = self.connection.transaction()?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |r| r.get(0))?;
        if version > SCHEMA {
            return Err(JournalError::NewerSchema(version));
        }
        if version == 0 {
            transaction.execute_batch(TABLES)?;
            transaction.execute(
                "INSERT INTO owner VALUES (1, ?1, ?2)",
                params![node_id.as_str(), cluster_id.as_bytes()],
            )?;
        }
        for (since, tables) in [(2, V2), (3, V3), (4, V4)] {
            if version < since {
                transaction.execute_batch(tables)?;
            }
        }
        if version < SCHEMA {
            transaction.pragma_update(None, "user_version", SCHEMA)?;
        }
        let (found, cluster): (String, Vec<u8>) =
            transaction.query_row("SELECT node_id, cluster_id FROM owner", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if found != node_id.as_str() || cluster != cluster_id.as_bytes() {
            return Err(JournalError::Foreign {
                found: format!("{found} of cluster {}", hex::encode(cluster)),
                own: format!("{node_id} of cluster {cluster_id}"),
            });
        }
        transaction.commit()?;
        Ok(())
    }

    /// Makes all records durable, in one transaction; they are when this returns.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing of them was written.
    pub fn commit(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let transaction = self.connection.transaction()?;
        for record in records {
            write(&transaction, record)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// What an engine starts from.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn durable(&self) -> Result<Durable, JournalError> {
        let (generation, acknowledged) = self
            .connection
            .query_row("SELECT generation, acknowledged FROM generation", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .optional()?
            .unwrap_or((0, 0));
        let seen = self
            .connection
            .query_row("SELECT revision FROM seen", [], |r| r.get(0))
            .optional()?
            .unwrap_or(0);
        Ok(Durable {
            generation: from_sql("generation", generation)?,
            acknowledged: from_sql("acknowledged", acknowledged)?,
            seen: from_sql("revision", seen)?,
        })
    }

    /// What members have said of where they are reached.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn addresses(&self) -> Result<Vec<SignedStatement>, JournalError> {
        let mut all = self
            .connection
            .prepare("SELECT statement, signature FROM address ORDER BY node_id")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(SignedStatement {
                statement: row.get(0)?,
                signature: row.get(1)?,
            })
        };
        Ok(all.query_map([], read)?.collect::<Result<_, _>>()?)
    }

    /// Forgets where everybody else is reached: who is no member any more is not looked
    /// for any more.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(crate) fn keep_addresses_of(&mut self, members: &[NodeId]) -> Result<(), JournalError> {
        let transaction = self.connection.transaction()?;
        let known: Vec<String> = transaction
            .prepare("SELECT node_id FROM address")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for gone in known
            .iter()
            .filter(|id| !members.iter().any(|m| m.as_str() == **id))
        {
            transaction.execute("DELETE FROM address WHERE node_id = ?1", params![gone])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The highest revision that this node has seen the audit store reach, 0 before the
    /// first, and how many pasts the store had lost then.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn audit_seen(&self) -> Result<Reached, JournalError> {
        let sql = "SELECT past, revision FROM audit_seen";
        let seen = self
            .connection
            .query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let (past, revision) = seen.unwrap_or((0, 0));
        Ok(Reached {
            past: from_sql("past", past)?,
            revision: from_sql("revision", revision)?,
        })
    }

    /// Keeps the revision that the audit store has reached; a lower one than before
    /// changes nothing, unless the store has lost another past since.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn keep_audit_seen(&mut self, seen: Reached) -> Result<(), JournalError> {
        self.connection.execute(
            "INSERT INTO audit_seen (id, past, revision) VALUES (1, ?1, ?2)
             ON CONFLICT (id) DO UPDATE
             SET past = excluded.past, revision = excluded.revision
             WHERE excluded.past > past OR excluded.revision > revision",
            params![to_sql(seen.past)?, to_sql(seen.revision)?],
        )?;
        Ok(())
    }

    /// The trustee whose journal this is.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(crate) fn owner(&self) -> Result<NodeId, JournalError> {
        let owner: String = self
            .connection
            .query_row("SELECT node_id FROM owner", [], |row| row.get(0))?;
        NodeId::new(&owner).map_err(|error| JournalError::Corrupt(error.to_string()))
    }

    /// Forgets that the board was further than this: what an operator who has compared
    /// everything asks for. Guards and verdicts stay.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(crate) fn accept(&mut self, revision: u64, acknowledged: u64) -> Result<(), JournalError> {
        let transaction = self.connection.transaction()?;
        transaction.execute("UPDATE seen SET revision = ?1", params![to_sql(revision)?])?;
        transaction.execute(
            "UPDATE generation SET acknowledged = min(acknowledged, ?1)",
            params![to_sql(acknowledged)?],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// What is kept about one transaction.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn lookup(&self, tx_id: &TxId) -> Result<JournalEntry, JournalError> {
        let key = params![tx_id.as_str()];
        let mut guard = self
            .connection
            .prepare_cached("SELECT choice, statement FROM guard WHERE tx_id = ?1")?;
        let guard: Option<(Vec<u8>, Vec<u8>)> = guard
            .query_row(key, |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let mut verdict = self
            .connection
            .prepare_cached("SELECT domain, statement FROM verdict WHERE tx_id = ?1")?;
        let verdict: Option<(String, Vec<u8>)> = verdict
            .query_row(key, |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let mut ended = self
            .connection
            .prepare_cached("SELECT state FROM final WHERE tx_id = ?1")?;
        let ended: Option<i32> = ended.query_row(key, |r| r.get(0)).optional()?;
        Ok(JournalEntry {
            guard: guard
                .map(|(choice, statement)| read_choice(&choice).map(|c| (c, statement)))
                .transpose()?,
            verdict: verdict
                .map(|(domain, statement)| read_domain(&domain).map(|d| (d, statement)))
                .transpose()?,
            ended: ended.map(read_state).transpose()?,
        })
    }
}

fn lock(data_dir: &Path) -> Result<File, JournalError> {
    let failed = |path: &Path, e: std::io::Error| JournalError::Io {
        path: path.to_owned(),
        reason: match e.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                format!(
                    "{e}; give the user that runs the node write access there, or set node.data_dir to another directory"
                )
            }
            _ => e.to_string(),
        },
    };
    std::fs::create_dir_all(data_dir).map_err(|e| failed(data_dir, e))?;
    let path = data_dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| failed(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(e)) => Err(failed(&path, e)),
    }
}

fn write(transaction: &Transaction<'_>, record: &Record) -> Result<(), JournalError> {
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<(), JournalError> {
        transaction.prepare_cached(sql)?.execute(params)?;
        Ok(())
    };
    match record {
        Record::Generation {
            generation,
            acknowledged,
        } => run(
            "INSERT INTO generation VALUES (1, ?1, ?2) ON CONFLICT (id) DO UPDATE
             SET generation = excluded.generation, acknowledged = excluded.acknowledged",
            params![to_sql(*generation)?, to_sql(*acknowledged)?],
        ),
        Record::Guard {
            tx_id,
            choice,
            statement,
        } => run(
            "INSERT INTO guard VALUES (?1, ?2, ?3) ON CONFLICT (tx_id) DO UPDATE
             SET choice = excluded.choice, statement = excluded.statement",
            params![
                tx_id.as_str(),
                wire::Choice::from(choice).encode_to_vec(),
                statement
            ],
        ),
        Record::Verdict {
            tx_id,
            domain,
            statement,
        } => run(
            "INSERT INTO verdict VALUES (?1, ?2, ?3) ON CONFLICT (tx_id) DO UPDATE
             SET domain = excluded.domain, statement = excluded.statement",
            params![tx_id.as_str(), domain_name(*domain)?, statement],
        ),
        Record::Final { tx_id, state } => run(
            "INSERT INTO final VALUES (?1, ?2) ON CONFLICT (tx_id) DO UPDATE SET state = excluded.state",
            params![tx_id.as_str(), *state as i32],
        ),
        Record::Address { node_id, signed } => run(
            "INSERT INTO address VALUES (?1, ?2, ?3) ON CONFLICT (node_id) DO UPDATE
             SET statement = excluded.statement, signature = excluded.signature",
            params![node_id.as_str(), signed.statement, signed.signature],
        ),
        Record::Seen { revision } => run(
            "INSERT INTO seen VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET revision = excluded.revision",
            params![to_sql(*revision)?],
        ),
    }
}

pub(crate) fn to_sql(number: u64) -> Result<i64, JournalError> {
    i64::try_from(number).map_err(|_| JournalError::Corrupt(format!("{number} is too large")))
}

pub(crate) fn from_sql(what: &str, number: i64) -> Result<u64, JournalError> {
    u64::try_from(number).map_err(|_| JournalError::Corrupt(format!("{what} is negative")))
}

fn domain_name(domain: Domain) -> Result<&'static str, JournalError> {
    match domain {
        Domain::Decision => Ok("decision"),
        Domain::Abort => Ok("abort"),
        other => Err(JournalError::Corrupt(format!("{other:?} is no verdict"))),
    }
}

fn read_domain(name: &str) -> Result<Domain, JournalError> {
    match name {
        "decision" => Ok(Domain::Decision),
        "abort" => Ok(Domain::Abort),
        other => Err(JournalError::Corrupt(format!("verdict {other:?}"))),
    }
}

fn read_choice(bytes: &[u8]) -> Result<Choice, JournalError> {
    wire::Choice::decode(bytes)
        .map_err(|e| e.to_string())
        .and_then(|choice| Choice::try_from(&choice).map_err(|e| e.to_string()))
        .map_err(|e| JournalError::Corrupt(format!("guard: {e}")))
}

fn read_state(state: i32) -> Result<BallotState, JournalError> {
    BallotState::try_from(state).map_err(|_| JournalError::Corrupt(format!("state {state}")))
}
