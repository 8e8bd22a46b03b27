-- The nonces of the challenges that the policy allowed. A nonce belongs to a single challenge of a single row: a
-- partner that repeats it would have the same sign-in signed twice. Nonce and challenge are stored as the first 16
-- bytes of their SHA-256, so that their size does not depend on the partner.
CREATE TABLE nonces (
    nonce     BLOB PRIMARY KEY CHECK (length(nonce) = 16),
    row_id    INTEGER NOT NULL REFERENCES rows (id),
    challenge BLOB NOT NULL CHECK (length(challenge) = 16)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_row ON nonces (row_id);
