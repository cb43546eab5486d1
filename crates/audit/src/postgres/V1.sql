-- The audit store, version 1. What was released is never edited, only added to.
-- A u64 is NUMERIC(20, 0); names sort by their bytes, as they do in the program.

CREATE TABLE audit_cursor (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    revision NUMERIC(20, 0) NOT NULL CHECK (revision BETWEEN 0 AND 18446744073709551615),
    cluster_id BYTEA NOT NULL CHECK (length(cluster_id) = 32),
    -- The last row of byzantine_violations, and its hash.
    violations BIGINT NOT NULL CHECK (violations >= 0),
    violations_hash BYTEA NOT NULL CHECK (length(violations_hash) = 32)
);

-- Who projects the board's log. Advice: the revision in audit_cursor is compared.
CREATE TABLE projector_lease (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    holder TEXT NOT NULL,
    until TIMESTAMPTZ NOT NULL
);

CREATE TABLE blockchain_submissions (
    tx_id TEXT COLLATE "C" PRIMARY KEY,
    value NUMERIC(20, 0) CHECK (value BETWEEN 0 AND 18446744073709551615),
    data BYTEA CHECK (length(data) BETWEEN 1 AND 1024),
    state TEXT NOT NULL CHECK (state IN ('PENDING', 'CONFIRMED', 'FAILED',
        'ABORTED_BYZANTINE', 'ABORTED_TIMEOUT', 'ABORTED_SPLIT')),
    account TEXT,
    nonce NUMERIC(20, 0) CHECK (nonce BETWEEN 0 AND 18446744073709551615),
    tx_hash BYTEA,
    payload BYTEA,
    submitted_at TIMESTAMPTZ NOT NULL,
    confirmed_at TIMESTAMPTZ,
    block_number NUMERIC(20, 0) CHECK (block_number BETWEEN 0 AND 18446744073709551615),
    attempts BIGINT NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND 4294967295),
    UNIQUE (account, nonce),
    CHECK (value IS NULL OR data IS NULL),
    CHECK ((account IS NULL) = (nonce IS NULL) AND (account IS NULL) = (payload IS NULL)),
    CHECK ((account IS NULL) = (state LIKE 'ABORTED\_%')),
    CHECK (account IS NULL OR value IS NOT NULL OR data IS NOT NULL)
);
CREATE INDEX blockchain_submissions_state ON blockchain_submissions (state);
CREATE INDEX blockchain_submissions_nonce ON blockchain_submissions (nonce);
CREATE INDEX blockchain_submissions_submitted_at ON blockchain_submissions (submitted_at);
CREATE INDEX blockchain_submissions_confirmed_at ON blockchain_submissions (confirmed_at);

CREATE TABLE blockchain_submissions_archive (
    tx_id TEXT COLLATE "C" PRIMARY KEY,
    value NUMERIC(20, 0),
    data BYTEA,
    state TEXT NOT NULL,
    account TEXT,
    nonce NUMERIC(20, 0),
    tx_hash BYTEA,
    payload BYTEA,
    submitted_at TIMESTAMPTZ NOT NULL,
    confirmed_at TIMESTAMPTZ,
    block_number NUMERIC(20, 0),
    attempts BIGINT NOT NULL,
    UNIQUE (account, nonce)
);
CREATE INDEX blockchain_submissions_archive_submitted_at
    ON blockchain_submissions_archive (submitted_at);

CREATE TABLE submission_variants (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx_id TEXT COLLATE "C" NOT NULL,
    account TEXT NOT NULL,
    nonce NUMERIC(20, 0) NOT NULL,
    attempt BIGINT NOT NULL CHECK (attempt BETWEEN 0 AND 4294967295),
    tx_hash BYTEA NOT NULL,
    raw BYTEA NOT NULL,
    signed_at TIMESTAMPTZ NOT NULL,
    UNIQUE (tx_id, tx_hash)
);

CREATE TABLE submission_keys (
    tx_id TEXT COLLATE "C" PRIMARY KEY,
    final_state TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL
);

-- Insert only: a node's role may do no more, and the triggers stop the owner too.
-- Numbered from 1 without a gap; hash is over the row before and this one.
CREATE TABLE byzantine_violations (
    id BIGINT PRIMARY KEY CHECK (id > 0),
    peer_id BYTEA CHECK (length(peer_id) = 32),
    node_id TEXT COLLATE "C" NOT NULL,
    tx_id TEXT COLLATE "C",
    violation_type TEXT NOT NULL,
    proof_kind TEXT NOT NULL CHECK (proof_kind IN ('proven', 'accused', 'counted')),
    evidence_json JSONB NOT NULL,
    detected_at TIMESTAMPTZ NOT NULL,
    hash BYTEA NOT NULL CHECK (length(hash) = 32)
);
CREATE INDEX byzantine_violations_peer_id ON byzantine_violations (peer_id);
CREATE INDEX byzantine_violations_node_id ON byzantine_violations (node_id);
CREATE INDEX byzantine_violations_tx_id ON byzantine_violations (tx_id);
CREATE INDEX byzantine_violations_detected_at ON byzantine_violations (detected_at);
-- One member commits one proven violation of a kind in a ballot.
CREATE UNIQUE INDEX byzantine_violations_proven
    ON byzantine_violations (node_id, tx_id, violation_type) WHERE proof_kind = 'proven';
CREATE FUNCTION byzantine_violations_insert_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'byzantine_violations is insert only'; END $$;
CREATE TRIGGER byzantine_violations_insert_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON byzantine_violations
    FOR EACH STATEMENT EXECUTE FUNCTION byzantine_violations_insert_only();

CREATE TABLE vote_history (
    tx_id TEXT COLLATE "C" NOT NULL,
    node_id TEXT COLLATE "C" NOT NULL,
    peer_id BYTEA CHECK (length(peer_id) = 32),
    public_key BYTEA,
    value NUMERIC(20, 0) CHECK (value BETWEEN 0 AND 18446744073709551615),
    data BYTEA CHECK (length(data) BETWEEN 1 AND 1024),
    abstained BOOLEAN NOT NULL,
    late BOOLEAN NOT NULL,
    expired BOOLEAN NOT NULL DEFAULT FALSE,
    statement BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    received_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tx_id, node_id),
    CHECK (num_nonnulls(value, data) + abstained::int = 1)
);
CREATE INDEX vote_history_node_id ON vote_history (node_id);
CREATE INDEX vote_history_peer_id ON vote_history (peer_id);
CREATE INDEX vote_history_received_at ON vote_history (received_at);

CREATE TABLE vote_history_archive (
    tx_id TEXT COLLATE "C" NOT NULL,
    node_id TEXT COLLATE "C" NOT NULL,
    peer_id BYTEA,
    public_key BYTEA,
    value NUMERIC(20, 0),
    data BYTEA,
    abstained BOOLEAN NOT NULL,
    late BOOLEAN NOT NULL,
    expired BOOLEAN NOT NULL,
    statement BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    received_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tx_id, node_id)
);

CREATE TABLE node_reputation (
    peer_id BYTEA PRIMARY KEY CHECK (length(peer_id) = 32),
    node_id TEXT COLLATE "C" NOT NULL,
    reputation_score DOUBLE PRECISION NOT NULL CHECK (reputation_score BETWEEN 0 AND 1),
    total_votes BIGINT NOT NULL DEFAULT 0,
    violations_count BIGINT NOT NULL DEFAULT 0,
    banned BOOLEAN NOT NULL DEFAULT FALSE,
    last_seen TIMESTAMPTZ
);
CREATE INDEX node_reputation_node_id ON node_reputation (node_id);
CREATE INDEX node_reputation_reputation_score ON node_reputation (reputation_score);
CREATE VIEW reputation_scores AS
    SELECT node_id, encode(peer_id, 'hex') AS peer_id, reputation_score, total_votes,
        violations_count, banned, last_seen
    FROM node_reputation ORDER BY reputation_score, node_id;

CREATE TABLE accusations (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    accused TEXT COLLATE "C" NOT NULL,
    by TEXT COLLATE "C" NOT NULL,
    kind TEXT NOT NULL,
    tx_id TEXT COLLATE "C",
    statement BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    at TIMESTAMPTZ NOT NULL
);
CREATE INDEX accusations_accused ON accusations (accused);
CREATE INDEX accusations_tx_id ON accusations (tx_id);

CREATE TABLE bans (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    peer_id BYTEA CHECK (length(peer_id) = 32),
    node_id TEXT COLLATE "C" NOT NULL,
    violation_type TEXT NOT NULL,
    proof_kind TEXT NOT NULL CHECK (proof_kind IN ('proven', 'accused', 'counted')),
    proof BYTEA NOT NULL,
    banned_at TIMESTAMPTZ NOT NULL,
    lifted_at TIMESTAMPTZ
);
CREATE INDEX bans_node_id ON bans (node_id);

CREATE TABLE decisions (
    tx_id TEXT COLLATE "C" PRIMARY KEY,
    value NUMERIC(20, 0) CHECK (value BETWEEN 0 AND 18446744073709551615),
    data BYTEA CHECK (length(data) BETWEEN 1 AND 1024),
    participating_nodes JSONB NOT NULL,
    total_votes BIGINT NOT NULL,
    threshold_reached BOOLEAN NOT NULL,
    certificate BYTEA,
    CHECK (value IS NULL OR data IS NULL)
);
