-- Version 3: of which log the rows are a projection, and what was set aside when the
-- board went on without its latest past.

-- How many pasts were lost; and the digest over the log up to the revision, NULL while
-- it is not known.
ALTER TABLE audit_cursor ADD COLUMN past INTEGER NOT NULL DEFAULT 0 CHECK (past >= 0);
ALTER TABLE audit_cursor ADD COLUMN digest BLOB CHECK (length(digest) = 32);

-- One row for each entry projected since: the digest over it and all before it, and the
-- transactions it is about, parted by spaces.
CREATE TABLE projected_entries (
    revision TEXT PRIMARY KEY NOT NULL CHECK (length(revision) = 20
        AND revision NOT GLOB '*[^0-9]*' AND revision <= '18446744073709551615'),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    tx_ids TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Each time the board went on without what was projected. Insert only.
CREATE TABLE lost_pasts (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    found_at TEXT NOT NULL,
    -- The last revision that both pasts have, and the last one projected of the lost one.
    parted_at TEXT NOT NULL CHECK (length(parted_at) = 20),
    reached TEXT NOT NULL CHECK (length(reached) = 20)
) STRICT;

-- What was set aside then: the row as it was; NULL where it still lies in its table,
-- under this id. account and nonce are those of a reservation that the board no longer
-- has, and by which something may have been sent. Insert only.
CREATE TABLE lost_rows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    past INTEGER NOT NULL,
    of_table TEXT NOT NULL,
    row_key TEXT NOT NULL,
    tx_id TEXT,
    state TEXT,
    account TEXT,
    nonce TEXT CHECK (length(nonce) = 20 AND nonce NOT GLOB '*[^0-9]*'
        AND nonce <= '18446744073709551615'),
    row_json TEXT CHECK (json_valid(row_json)),
    CHECK ((account IS NULL) = (nonce IS NULL))
) STRICT;
CREATE INDEX lost_rows_tx_id ON lost_rows (tx_id);
CREATE INDEX lost_rows_of_table ON lost_rows (of_table, row_key);
CREATE INDEX lost_rows_nonce ON lost_rows (account, nonce);

CREATE TRIGGER lost_pasts_no_update BEFORE UPDATE ON lost_pasts
BEGIN SELECT RAISE(ABORT, 'what was lost is insert only'); END;
CREATE TRIGGER lost_pasts_no_delete BEFORE DELETE ON lost_pasts
BEGIN SELECT RAISE(ABORT, 'what was lost is insert only'); END;
-- INSERT OR REPLACE deletes without a delete trigger.
CREATE TRIGGER lost_pasts_no_replace BEFORE INSERT ON lost_pasts
WHEN EXISTS (SELECT 1 FROM lost_pasts WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'what was lost is insert only'); END;
CREATE TRIGGER lost_rows_no_update BEFORE UPDATE ON lost_rows
BEGIN SELECT RAISE(ABORT, 'what was lost is insert only'); END;
CREATE TRIGGER lost_rows_no_delete BEFORE DELETE ON lost_rows
BEGIN SELECT RAISE(ABORT, 'what was lost is insert only'); END;
CREATE TRIGGER lost_rows_no_replace BEFORE INSERT ON lost_rows
WHEN EXISTS (SELECT 1 FROM lost_rows WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'what was lost is insert only'); END;

-- How many pasts were lost when it was written: what was proven in a lost past may be
-- proven again.
ALTER TABLE byzantine_violations ADD COLUMN past INTEGER NOT NULL DEFAULT 0 CHECK (past >= 0);
DROP INDEX byzantine_violations_proven;
CREATE UNIQUE INDEX byzantine_violations_proven
    ON byzantine_violations (node_id, tx_id, violation_type, past) WHERE proof_kind = 'proven';
DROP TRIGGER byzantine_violations_no_replace;
CREATE TRIGGER byzantine_violations_no_replace BEFORE INSERT ON byzantine_violations
WHEN EXISTS (SELECT 1 FROM byzantine_violations WHERE id = NEW.id)
    OR (NEW.proof_kind = 'proven' AND EXISTS (SELECT 1 FROM byzantine_violations
        WHERE proof_kind = 'proven' AND node_id = NEW.node_id AND tx_id = NEW.tx_id
            AND violation_type = NEW.violation_type AND past = NEW.past))
BEGIN SELECT RAISE(ABORT, 'byzantine_violations is insert only'); END;
