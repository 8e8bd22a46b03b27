-- The nonces of the challenges that have passed the policy. A nonce belongs to one challenge of one row: a partner that
-- repeats it would have the same sign-in signed twice. Both are kept as the first 16 bytes of their SHA-256, so that a
-- row costs the same whatever the partner writes.
CREATE TABLE nonces (
    nonce     BLOB PRIMARY KEY CHECK (length(nonce) = 16),
    row_id    INTEGER NOT NULL REFERENCES rows (id),
    challenge BLOB NOT NULL CHECK (length(challenge) = 16)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_row ON nonces (row_id);
