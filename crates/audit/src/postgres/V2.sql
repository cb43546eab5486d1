-- Version 2: of which log the rows are a projection, and what was set aside when the
-- board went on without its latest past.

-- How many pasts were lost; and the digest over the log up to the revision, NULL while
-- it is not known.
ALTER TABLE audit_cursor ADD COLUMN past BIGINT NOT NULL DEFAULT 0 CHECK (past >= 0);
ALTER TABLE audit_cursor ADD COLUMN digest BYTEA CHECK (length(digest) = 32);

-- One row for each entry projected since: the digest over it and all before it, and the
-- transactions it is about, parted by spaces.
CREATE TABLE projected_entries (
    revision NUMERIC(20, 0) PRIMARY KEY
        CHECK (revision BETWEEN 0 AND 18446744073709551615),
    digest BYTEA NOT NULL CHECK (length(digest) = 32),
    tx_ids TEXT NOT NULL
);

-- Each time the board went on without what was projected. Insert only.
CREATE TABLE lost_pasts (
    id BIGINT PRIMARY KEY CHECK (id > 0),
    found_at TIMESTAMPTZ NOT NULL,
    -- The last revision that both pasts have, and the last one projected of the lost one.
    parted_at NUMERIC(20, 0) NOT NULL CHECK (parted_at BETWEEN 0 AND 18446744073709551615),
    reached NUMERIC(20, 0) NOT NULL CHECK (reached BETWEEN 0 AND 18446744073709551615)
);

-- What was set aside then: the row as it was; NULL where it still lies in its table,
-- under this id. account and nonce are those of a reservation that the board no longer
-- has, and by which something may have been sent. Insert only.
CREATE TABLE lost_rows (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    past BIGINT NOT NULL REFERENCES lost_pasts (id),
    of_table TEXT NOT NULL,
    row_key TEXT COLLATE "C" NOT NULL,
    tx_id TEXT COLLATE "C",
    state TEXT,
    account TEXT,
    nonce NUMERIC(20, 0) CHECK (nonce BETWEEN 0 AND 18446744073709551615),
    row_json JSONB,
    CHECK ((account IS NULL) = (nonce IS NULL))
);
CREATE INDEX lost_rows_tx_id ON lost_rows (tx_id);
CREATE INDEX lost_rows_of_table ON lost_rows (of_table, row_key);
CREATE INDEX lost_rows_nonce ON lost_rows (account, nonce);

CREATE FUNCTION lost_past_insert_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'what was lost is insert only'; END $$;
CREATE TRIGGER lost_pasts_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lost_pasts
    FOR EACH STATEMENT EXECUTE FUNCTION lost_past_insert_only();
CREATE TRIGGER lost_rows_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lost_rows
    FOR EACH STATEMENT EXECUTE FUNCTION lost_past_insert_only();

-- How many pasts were lost when it was written: what was proven in a lost past may be
-- proven again.
ALTER TABLE byzantine_violations ADD COLUMN past BIGINT NOT NULL DEFAULT 0 CHECK (past >= 0);
DROP INDEX byzantine_violations_proven;
CREATE UNIQUE INDEX byzantine_violations_proven
    ON byzantine_violations (node_id, tx_id, violation_type, past) WHERE proof_kind = 'proven';
