-- How far this ledger stands in the topic that a fleet's ledgers are kept in, for each partition: what is below next is
-- in here. Rows up to the id met were in here when it met the topic; those up to before may not be there yet, 0: none.
CREATE TABLE changelog (
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next      INTEGER NOT NULL,
    before    INTEGER NOT NULL,
    met       INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;

-- Two consumers may have begun two rows that contradict each other, each without knowing the other's. When one of them
-- comes here with its partition, it comes as far as it got, and without the claim that is ours. This is the way that
-- https://sqlite.org/lang_altertable.html (section 7) gives for a constraint: the rows stay where they are.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, 'CHECK (claims = 1 OR (claims = 0 AND stage IN (''conflict'', ''failed'')))', 'CHECK (claims IN (0, 1))')
WHERE type = 'table' AND name = 'rows';
PRAGMA writable_schema = OFF;
