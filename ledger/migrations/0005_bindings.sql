-- The environments that the ledger was bound to, oldest first; the last is that of meta. Keys and ledger topic records
-- from before a rotation of the API key belong to an earlier environment.
CREATE TABLE bindings (
    id         INTEGER PRIMARY KEY,
    api_host   TEXT NOT NULL,
    api_key_id TEXT NOT NULL,
    bound_at   INTEGER NOT NULL
) STRICT;
INSERT INTO bindings (api_host, api_key_id, bound_at)
SELECT h.value, k.value, (SELECT min(applied_at) FROM migrations)
FROM meta h, meta k WHERE h.key = 'api_host' AND k.key = 'api_key_id';
