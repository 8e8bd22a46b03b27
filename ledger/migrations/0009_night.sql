-- What importers recorded of their imports, for the imports whose rows came here. A time without a value is an import
-- that had not ended. files is the JSON array of the exports with their sizes, digests, counts and reasons. Lines are
-- read = published + invalid + neither.
CREATE TABLE imports (
    id              TEXT PRIMARY KEY CHECK (length(id) = 36),
    program         TEXT NOT NULL,
    host            TEXT NOT NULL,
    started_at      INTEGER NOT NULL,
    ended_at        INTEGER,
    exit            INTEGER NOT NULL,
    reason          TEXT NOT NULL,
    lines           INTEGER NOT NULL,
    rows            INTEGER NOT NULL,
    published       INTEGER NOT NULL,
    published_lines INTEGER NOT NULL,
    invalid         INTEGER NOT NULL,
    invalid_lines   INTEGER NOT NULL,
    header          INTEGER NOT NULL,
    blank           INTEGER NOT NULL,
    neither         INTEGER NOT NULL,
    files           TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What a run did in a minute (microseconds since 1970, UTC), as JSON.
CREATE TABLE run_minutes (
    run    TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    minute INTEGER NOT NULL,
    data   TEXT NOT NULL,
    PRIMARY KEY (run, minute)
) STRICT, WITHOUT ROWID;

-- Rows for which a run ended with 3, up to 1,000 of a run: a run that receives nothing repeats the result while they
-- are as they were.
CREATE TABLE run_rows (
    run    TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    row_id INTEGER NOT NULL,
    PRIMARY KEY (run, row_id)
) STRICT, WITHOUT ROWID;
