-- Two copies of the partner's customer list: one is active while the other is written, so that an interrupted read of
-- the list does not change the active copy.
CREATE TABLE directory_0 (
    id          INTEGER PRIMARY KEY,
    customer_id TEXT NOT NULL,
    chain_id    TEXT NOT NULL,
    external_id TEXT NOT NULL,
    status      TEXT NOT NULL,
    created_at  INTEGER,
    updated_at  INTEGER
) STRICT;
CREATE INDEX directory_0_chain_id ON directory_0 (lower(chain_id));
CREATE INDEX directory_0_external_id ON directory_0 (external_id);

CREATE TABLE directory_1 (
    id          INTEGER PRIMARY KEY,
    customer_id TEXT NOT NULL,
    chain_id    TEXT NOT NULL,
    external_id TEXT NOT NULL,
    status      TEXT NOT NULL,
    created_at  INTEGER,
    updated_at  INTEGER
) STRICT;
CREATE INDEX directory_1_chain_id ON directory_1 (lower(chain_id));
CREATE INDEX directory_1_external_id ON directory_1 (external_id);

CREATE TABLE directory_state (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    active INTEGER NOT NULL CHECK (active IN (0, 1)),
    begun  INTEGER -- when the list in force was begun to be read, NULL when there is none
) STRICT;
INSERT INTO directory_state (id, active, begun) VALUES (1, 0, NULL);
