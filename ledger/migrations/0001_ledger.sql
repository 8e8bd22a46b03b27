-- The environment (api_host, api_key_id) and whether the ledger was closed cleanly (clean).
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A row for every migration, so that an older program can name the program that wrote the file.
CREATE TABLE migrations (
    version    INTEGER PRIMARY KEY,
    program    TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

-- Times are microseconds since 1970 UTC, NULL for "never". The short columns that the replay of a settled topic reads
-- come first.
CREATE TABLE rows (
    id                INTEGER PRIMARY KEY,
    external_id       TEXT NOT NULL,
    chain_id          TEXT NOT NULL, -- CAIP-10, EIP-55 form
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
    create_generation INTEGER, -- the present key of each operation; all of them are in keys
    submit_generation INTEGER,
    accepted_at       INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    -- Only a row that ended without touching a customer may be without its claims.
    CHECK (claims = 1 OR (claims = 0 AND stage IN ('conflict', 'failed')))
) STRICT;

-- The externalId comes first because exports are usually sorted by it: insertions and replays then walk the index
-- in order instead of jumping about in it as they would by address.
CREATE UNIQUE INDEX rows_pair ON rows (external_id, chain_id);

-- A row that no earlier row contradicts claims its account and its externalId.
CREATE UNIQUE INDEX rows_account_claim ON rows (chain_id) WHERE claims = 1;
CREATE UNIQUE INDEX rows_external_id_claim ON rows (external_id) WHERE claims = 1;
CREATE INDEX rows_account_rest ON rows (chain_id) WHERE claims = 0;

-- Earlier imports of a row: their messages, when delivered again, do not restart it.
CREATE TABLE row_imports (
    row_id    INTEGER NOT NULL REFERENCES rows (id),
    import_id TEXT NOT NULL,
    PRIMARY KEY (row_id, import_id)
) STRICT, WITHOUT ROWID;

-- Every idempotency key ever recorded.
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

-- The partner answers 422 to a key with another payload, so the payload of a key must not change.
CREATE TRIGGER keys_keep_their_payload BEFORE UPDATE OF id, digest ON keys
WHEN old.id <> new.id OR old.digest <> new.digest
BEGIN
    SELECT RAISE(ABORT, 'the payload of a key never changes');
END;

PRAGMA application_id = 0x50555253; -- "PURS"
