//! The tables, as versioned migrations.
//!
//! Three kinds of column look different from PostgreSQL's and mean the same:
//! - A `u64` (`NUMERIC(20,0)` there) is TEXT of exactly 20 decimal digits, for
//!   SQLite's own integers end at 2^63 - 1 and its NUMERIC turns larger ones into
//!   floating point. So every number is kept exactly, and `=`, `<`, `ORDER BY`, `max`
//!   and UNIQUE are right. By hand: `WHERE value = printf('%020d', 42)`, and
//!   `ltrim(value, '0')` to read it.
//! - A time is TEXT in UTC, `2026-11-21T12:59:00.123Z`.
//! - JSON is TEXT that was checked to be JSON.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::query;
use crate::seal::Head;
use crate::store::AuditError;

/// One step from a version to the next.
#[derive(Clone, Copy)]
enum Migration {
    Script(&'static str),
    Code(fn(&Transaction<'_>) -> Result<(), AuditError>),
}

/// One step per version; what was released is never edited, only added to.
const MIGRATIONS: &[Migration] = &[
    Migration::Script(V1),
    Migration::Code(v2),
    Migration::Script(include_str!("V3.sql")),
];

const V1: &str = "
CREATE TABLE audit_cursor (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    revision TEXT NOT NULL CHECK (length(revision) = 20 AND revision NOT GLOB '*[^0-9]*'
        AND revision <= '18446744073709551615'),
    cluster_id BLOB NOT NULL CHECK (length(cluster_id) = 32)
) STRICT;

CREATE TABLE blockchain_submissions (
    tx_id TEXT PRIMARY KEY NOT NULL,
    value TEXT CHECK (length(value) = 20 AND value NOT GLOB '*[^0-9]*'
        AND value <= '18446744073709551615'),
    data BLOB CHECK (length(data) BETWEEN 1 AND 1024),
    state TEXT NOT NULL CHECK (state IN ('PENDING', 'CONFIRMED', 'FAILED',
        'ABORTED_BYZANTINE', 'ABORTED_TIMEOUT', 'ABORTED_SPLIT')),
    account TEXT,
    nonce TEXT CHECK (length(nonce) = 20 AND nonce NOT GLOB '*[^0-9]*'
        AND nonce <= '18446744073709551615'),
    tx_hash BLOB,
    payload BLOB,
    submitted_at TEXT NOT NULL,
    confirmed_at TEXT,
    block_number TEXT CHECK (length(block_number) = 20
        AND block_number NOT GLOB '*[^0-9]*' AND block_number <= '18446744073709551615'),
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    UNIQUE (account, nonce),
    CHECK (value IS NULL OR data IS NULL),
    CHECK ((account IS NULL) = (nonce IS NULL) AND (account IS NULL) = (payload IS NULL)),
    CHECK ((account IS NULL) = (state LIKE 'ABORTED_%')),
    CHECK (account IS NULL OR value IS NOT NULL OR data IS NOT NULL)
) STRICT;
CREATE INDEX blockchain_submissions_state ON blockchain_submissions (state);
CREATE INDEX blockchain_submissions_nonce ON blockchain_submissions (nonce);
CREATE INDEX blockchain_submissions_submitted_at ON blockchain_submissions (submitted_at);

CREATE TABLE blockchain_submissions_archive (
    tx_id TEXT PRIMARY KEY NOT NULL,
    value TEXT,
    data BLOB,
    state TEXT NOT NULL,
    account TEXT,
    nonce TEXT,
    tx_hash BLOB,
    payload BLOB,
    submitted_at TEXT NOT NULL,
    confirmed_at TEXT,
    block_number TEXT,
    attempts INTEGER NOT NULL,
    UNIQUE (account, nonce)
) STRICT;
CREATE INDEX blockchain_submissions_archive_submitted_at
    ON blockchain_submissions_archive (submitted_at);

CREATE TABLE submission_variants (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tx_id TEXT NOT NULL,
    account TEXT NOT NULL,
    nonce TEXT NOT NULL,
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    tx_hash BLOB NOT NULL,
    raw BLOB NOT NULL,
    signed_at TEXT NOT NULL,
    UNIQUE (tx_id, tx_hash)
) STRICT;

CREATE TABLE submission_keys (
    tx_id TEXT PRIMARY KEY NOT NULL,
    final_state TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;

CREATE TABLE byzantine_violations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    peer_id BLOB CHECK (length(peer_id) = 32),
    node_id TEXT NOT NULL,
    tx_id TEXT,
    violation_type TEXT NOT NULL,
    proof_kind TEXT NOT NULL CHECK (proof_kind IN ('proven', 'accused', 'counted')),
    evidence_json TEXT NOT NULL CHECK (json_valid(evidence_json)),
    detected_at TEXT NOT NULL
) STRICT;
CREATE INDEX byzantine_violations_peer_id ON byzantine_violations (peer_id);
CREATE INDEX byzantine_violations_node_id ON byzantine_violations (node_id);
CREATE INDEX byzantine_violations_tx_id ON byzantine_violations (tx_id);
CREATE INDEX byzantine_violations_detected_at ON byzantine_violations (detected_at);
-- One member commits one proven violation of a kind in a ballot.
CREATE UNIQUE INDEX byzantine_violations_proven
    ON byzantine_violations (node_id, tx_id, violation_type) WHERE proof_kind = 'proven';
CREATE TRIGGER byzantine_violations_no_update BEFORE UPDATE ON byzantine_violations
BEGIN SELECT RAISE(ABORT, 'byzantine_violations is insert only'); END;
CREATE TRIGGER byzantine_violations_no_delete BEFORE DELETE ON byzantine_violations
BEGIN SELECT RAISE(ABORT, 'byzantine_violations is insert only'); END;
-- INSERT OR REPLACE deletes without a delete trigger.
CREATE TRIGGER byzantine_violations_no_replace BEFORE INSERT ON byzantine_violations
WHEN EXISTS (SELECT 1 FROM byzantine_violations WHERE id = NEW.id)
    OR (NEW.proof_kind = 'proven' AND EXISTS (SELECT 1 FROM byzantine_violations
        WHERE proof_kind = 'proven' AND node_id = NEW.node_id AND tx_id = NEW.tx_id
            AND violation_type = NEW.violation_type))
BEGIN SELECT RAISE(ABORT, 'byzantine_violations is insert only'); END;

CREATE TABLE vote_history (
    tx_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    peer_id BLOB CHECK (length(peer_id) = 32),
    public_key BLOB,
    value TEXT CHECK (length(value) = 20 AND value NOT GLOB '*[^0-9]*'
        AND value <= '18446744073709551615'),
    data BLOB CHECK (length(data) BETWEEN 1 AND 1024),
    abstained INTEGER NOT NULL CHECK (abstained IN (0, 1)),
    late INTEGER NOT NULL CHECK (late IN (0, 1)),
    expired INTEGER NOT NULL DEFAULT 0 CHECK (expired IN (0, 1)),
    statement BLOB NOT NULL,
    signature BLOB NOT NULL,
    received_at TEXT NOT NULL,
    PRIMARY KEY (tx_id, node_id),
    CHECK ((value IS NOT NULL) + (data IS NOT NULL) + abstained = 1)
) STRICT;
CREATE INDEX vote_history_node_id ON vote_history (node_id);
CREATE INDEX vote_history_peer_id ON vote_history (peer_id);
CREATE INDEX vote_history_received_at ON vote_history (received_at);

CREATE TABLE node_reputation (
    peer_id BLOB PRIMARY KEY NOT NULL CHECK (length(peer_id) = 32),
    node_id TEXT NOT NULL,
    reputation_score REAL NOT NULL CHECK (reputation_score BETWEEN 0 AND 1),
    total_votes INTEGER NOT NULL DEFAULT 0,
    violations_count INTEGER NOT NULL DEFAULT 0,
    banned INTEGER NOT NULL DEFAULT 0 CHECK (banned IN (0, 1)),
    last_seen TEXT
) STRICT;
CREATE INDEX node_reputation_node_id ON node_reputation (node_id);
CREATE INDEX node_reputation_reputation_score ON node_reputation (reputation_score);
CREATE VIEW reputation_scores AS
    SELECT node_id, lower(hex(peer_id)) AS peer_id, reputation_score, total_votes,
        violations_count, banned, last_seen
    FROM node_reputation ORDER BY reputation_score, node_id;

CREATE TABLE accusations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    accused TEXT NOT NULL,
    \"by\" TEXT NOT NULL,
    kind TEXT NOT NULL,
    tx_id TEXT,
    statement BLOB NOT NULL,
    signature BLOB NOT NULL,
    at TEXT NOT NULL
) STRICT;
CREATE INDEX accusations_accused ON accusations (accused);
CREATE INDEX accusations_tx_id ON accusations (tx_id);

CREATE TABLE bans (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    peer_id BLOB CHECK (length(peer_id) = 32),
    node_id TEXT NOT NULL,
    violation_type TEXT NOT NULL,
    proof_kind TEXT NOT NULL CHECK (proof_kind IN ('proven', 'accused', 'counted')),
    proof BLOB NOT NULL,
    banned_at TEXT NOT NULL,
    lifted_at TEXT
) STRICT;
CREATE INDEX bans_node_id ON bans (node_id);

CREATE TABLE decisions (
    tx_id TEXT PRIMARY KEY NOT NULL,
    value TEXT CHECK (length(value) = 20 AND value NOT GLOB '*[^0-9]*'
        AND value <= '18446744073709551615'),
    data BLOB CHECK (length(data) BETWEEN 1 AND 1024),
    participating_nodes TEXT NOT NULL CHECK (json_valid(participating_nodes)),
    total_votes INTEGER NOT NULL,
    threshold_reached INTEGER NOT NULL CHECK (threshold_reached IN (0, 1)),
    certificate BLOB,
    CHECK (value IS NULL OR data IS NULL)
) STRICT;
";

/// Seals the violations, those that are there already too; adds the lease on the
/// projection and the archive of votes.
fn v2(step: &Transaction<'_>) -> Result<(), AuditError> {
    step.execute_batch(
        "CREATE TABLE projector_lease (
             only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
             holder TEXT NOT NULL,
             until TEXT NOT NULL
         ) STRICT;
         CREATE TABLE vote_history_archive (
             tx_id TEXT NOT NULL,
             node_id TEXT NOT NULL,
             peer_id BLOB,
             public_key BLOB,
             value TEXT,
             data BLOB,
             abstained INTEGER NOT NULL,
             late INTEGER NOT NULL,
             expired INTEGER NOT NULL,
             statement BLOB NOT NULL,
             signature BLOB NOT NULL,
             received_at TEXT NOT NULL,
             PRIMARY KEY (tx_id, node_id)
         ) STRICT;
         CREATE INDEX blockchain_submissions_confirmed_at
             ON blockchain_submissions (confirmed_at);
         ALTER TABLE audit_cursor ADD COLUMN violations INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE audit_cursor ADD COLUMN violations_hash BLOB;
         ALTER TABLE byzantine_violations ADD COLUMN hash BLOB CHECK (length(hash) = 32);
         DROP TRIGGER byzantine_violations_no_update;",
    )
    .map_err(super::away)?;
    let own: Vec<[u8; 32]> = query::many(step, "SELECT cluster_id FROM audit_cursor", [], |row| {
        row.get(0)
    })?;
    if let [own] = own[..] {
        let mut head = Head { id: 0, hash: own };
        let sql = "SELECT * FROM byzantine_violations ORDER BY id";
        for mut row in query::many(step, sql, [], query::violation_row)? {
            // They may have gaps: what came after one that was rolled back.
            let id = row.id.cast_signed();
            head.add(&mut row);
            let sealed = params![row.id.cast_signed(), row.hash, id];
            let sql = "UPDATE byzantine_violations SET id = ?1, hash = ?2 WHERE id = ?3";
            step.execute(sql, sealed).map_err(super::away)?;
        }
        let last = params![head.id.cast_signed(), head.hash];
        let sql = "UPDATE audit_cursor SET violations = ?1, violations_hash = ?2";
        step.execute(sql, last).map_err(super::away)?;
    }
    step.execute_batch(
        "CREATE TRIGGER byzantine_violations_no_update BEFORE UPDATE ON byzantine_violations
         BEGIN SELECT RAISE(ABORT, 'byzantine_violations is insert only'); END;",
    )
    .map_err(super::away)
}

/// Brings the tables to the newest version, each step in a transaction of its own, and
/// gives that version.
pub(super) fn migrate(connection: &mut Connection) -> Result<u32, AuditError> {
    apply(connection, MIGRATIONS)
}

fn apply(connection: &mut Connection, migrations: &[Migration]) -> Result<u32, AuditError> {
    let known = migrations.len() as u32;
    loop {
        // The version is read inside of the transaction that raises it: of two
        // processes that start at once, the second finds the work done.
        let step = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(super::away)?;
        let found: u32 = step
            .query_row("SELECT user_version FROM pragma_user_version", [], |row| {
                row.get(0)
            })
            .map_err(super::away)?;
        let Some(migration) = migrations.get(found as usize) else {
            return match found == known {
                true => Ok(known),
                false => Err(AuditError::NewerSchema { found, known }),
            };
        };
        match migration {
            Migration::Script(script) => step.execute_batch(script).map_err(super::away)?,
            Migration::Code(code) => code(&step)?,
        }
        step.pragma_update(None, "user_version", found + 1)
            .map_err(super::away)?;
        step.commit().map_err(super::away)?;
        tracing::debug!(version = found + 1, "audit.schema_migrated");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Filter;
    use crate::seal::seal;

    #[test]
    fn versions_follow_each_other_and_a_newer_one_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(migrate(&mut connection).unwrap(), 3);
        assert_eq!(migrate(&mut connection).unwrap(), 3);
        let more = Migration::Script("CREATE TABLE more (a INTEGER) STRICT;");
        let four = [MIGRATIONS, &[more]].concat();
        assert_eq!(apply(&mut connection, &four).unwrap(), 4);
        connection
            .execute("INSERT INTO more VALUES (1)", [])
            .unwrap();
        assert!(matches!(
            migrate(&mut connection),
            Err(AuditError::NewerSchema { found: 4, known: 3 })
        ));
    }

    #[test]
    fn a_script_that_fails_leaves_the_version_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        let half = "CREATE TABLE half (a INTEGER); CREATE TABLE half (a INTEGER);";
        let bad = [MIGRATIONS, &[Migration::Script(half)]].concat();
        assert!(apply(&mut connection, &bad).is_err());
        assert_eq!(migrate(&mut connection).unwrap(), 3);
        assert!(connection.prepare("SELECT a FROM half").is_err());
    }

    #[test]
    fn violations_from_before_the_seals_are_sealed() {
        let mut connection = Connection::open_in_memory().unwrap();
        apply(&mut connection, &MIGRATIONS[..1]).unwrap();
        let cluster = [7_u8; 32];
        connection
            .execute(
                "INSERT INTO audit_cursor VALUES (1, printf('%020d', 9), ?1)",
                [cluster],
            )
            .unwrap();
        connection
            .execute_batch(
                "INSERT INTO byzantine_violations (id, node_id, violation_type, proof_kind,
                     evidence_json, detected_at)
                 VALUES (2, 'node1', 'SILENT_FAILURE', 'counted', '{}',
                     '2026-11-21T12:59:00.123Z'),
                 (5, 'node2', 'SILENT_FAILURE', 'counted', '{}', '2026-11-21T12:59:00.123Z')",
            )
            .unwrap();
        assert_eq!(migrate(&mut connection).unwrap(), 3);
        let rows = query::violations(&connection, &Filter::default()).unwrap();
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(rows[0].hash, seal(&cluster, &rows[0]));
        assert_eq!(rows[1].hash, seal(&rows[0].hash, &rows[1]));
        let head = query::head(&connection).unwrap();
        assert_eq!((head.id, head.hash), (2, rows[1].hash));
        let edit = "UPDATE byzantine_violations SET node_id = 'node3'";
        connection.execute(edit, []).unwrap_err();
    }
}
