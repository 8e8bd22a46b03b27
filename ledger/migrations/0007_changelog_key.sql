-- The key by which this ledger's records of the partition are authentic, by its id; empty: none, as in earlier versions.
-- After a change of the key all of them are written again.
ALTER TABLE changelog ADD COLUMN mac_key TEXT NOT NULL DEFAULT '';
