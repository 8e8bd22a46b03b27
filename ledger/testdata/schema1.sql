-- A ledger as schema 1 left it, with one row under way. Frozen: later schemas must open it.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE migrations (
    version    INTEGER PRIMARY KEY,
    program    TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE rows (
    id                INTEGER PRIMARY KEY,
    external_id       TEXT NOT NULL,
    chain_id          TEXT NOT NULL,
    stage             TEXT NOT NULL,
    class             TEXT NOT NULL DEFAULT '',
    reason            TEXT NOT NULL DEFAULT '',
    customer_id       TEXT NOT NULL DEFAULT '',
    import_id         TEXT NOT NULL,
    file              TEXT NOT NULL,
    line              INTEGER NOT NULL,
    claims            INTEGER NOT NULL,
    version           INTEGER NOT NULL,
    partner_status    TEXT NOT NULL DEFAULT '',
    challenge         TEXT NOT NULL DEFAULT '',
    challenge_at      INTEGER,
    external_tx_id    TEXT NOT NULL DEFAULT '',
    signature         TEXT NOT NULL DEFAULT '',
    refusals          INTEGER NOT NULL DEFAULT 0,
    attempts          INTEGER NOT NULL DEFAULT 0,
    already_onboarded INTEGER NOT NULL DEFAULT 0 CHECK (already_onboarded IN (0, 1)),
    create_generation INTEGER,
    submit_generation INTEGER,
    accepted_at       INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    CHECK (claims = 1 OR (claims = 0 AND stage IN ('conflict', 'failed')))
) STRICT;

CREATE UNIQUE INDEX rows_pair ON rows (external_id, chain_id);

CREATE UNIQUE INDEX rows_account_claim ON rows (chain_id) WHERE claims = 1;
CREATE UNIQUE INDEX rows_external_id_claim ON rows (external_id) WHERE claims = 1;
CREATE INDEX rows_account_rest ON rows (chain_id) WHERE claims = 0;

CREATE TABLE row_imports (
    row_id    INTEGER NOT NULL REFERENCES rows (id),
    import_id TEXT NOT NULL,
    PRIMARY KEY (row_id, import_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    row_id     INTEGER NOT NULL REFERENCES rows (id),
    operation  TEXT NOT NULL,
    generation INTEGER NOT NULL CHECK (generation >= 0),
    id         TEXT NOT NULL,
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    first_sent INTEGER,
    last_sent  INTEGER,
    outcome    TEXT NOT NULL,
    PRIMARY KEY (row_id, operation, generation)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER keys_keep_their_payload BEFORE UPDATE OF id, digest ON keys
WHEN old.id <> new.id OR old.digest <> new.digest
BEGIN
    SELECT RAISE(ABORT, 'the payload of a key never changes');
END;

PRAGMA application_id = 0x50555253;
PRAGMA user_version = 1;
INSERT INTO migrations VALUES (1, 'purser 0.0.9', 1760000000000000);
INSERT INTO meta VALUES ('api_host', 'api.example.com'), ('api_key_id', 'key-1'), ('clean', '1');
INSERT INTO rows (id, external_id, chain_id, stage, import_id, file, line, claims, version, create_generation,
    accepted_at, updated_at)
VALUES (1, 'cust-0000001', 'eip155:300:0xCd2662154E6D76b2b2b92E70c0CaC3cCf534F9B7', 'creating', 'i1', 'customers.csv', 3, 1, 2, 0, 1760000000000000, 1760000000500000);
INSERT INTO keys VALUES (1, 'create', 0, 'cbb80531-39c8-5df5-b6db-9c917e384374', x'ff4c0ed644d5af199022dcb1f3466ed6e9d748fc1883e6fd8023c442c80c6fef', 1760000000500000, 1760000000500000, 'open');
