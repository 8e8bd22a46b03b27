-- The runs of consumers on this ledger, so that a night is remembered after the next one. A run without an end is under
-- way, or its process was killed. report is the JSON report.
CREATE TABLE runs (
    id         TEXT PRIMARY KEY CHECK (length(id) = 36),
    program    TEXT NOT NULL,
    host       TEXT NOT NULL,
    drain      INTEGER NOT NULL CHECK (drain IN (0, 1)),
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    exit       INTEGER,
    report     TEXT NOT NULL DEFAULT '',
    CHECK ((ended_at IS NULL) = (exit IS NULL))
) STRICT;
CREATE INDEX runs_started ON runs (started_at);
