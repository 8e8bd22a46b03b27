-- This ledger's position in each partition of the ledger topic: it has the records below the offset next. Rows with an
-- id up to met were in the ledger when it first followed the topic; those up to before may be missing there, 0: none
-- is.
CREATE TABLE changelog (
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next      INTEGER NOT NULL,
    before    INTEGER NOT NULL,
    met       INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;

-- Two consumers may have started two rows that contradict each other. When a row comes here with its partition, it
-- keeps its stage but not a claim that a row of this ledger has. So a row of any stage may be without claims. Changing
-- the constraint in this way follows https://sqlite.org/lang_altertable.html (section 7).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, 'CHECK (claims = 1 OR (claims = 0 AND stage IN (''conflict'', ''failed'')))', 'CHECK (claims IN (0, 1))')
WHERE type = 'table' AND name = 'rows';
PRAGMA writable_schema = OFF;
