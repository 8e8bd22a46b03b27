-- The id of the MAC key that signs this ledger's records of the partition; empty: not signed, as in earlier versions.
-- After a change of the key all records are written again.
ALTER TABLE changelog ADD COLUMN mac_key TEXT NOT NULL DEFAULT '';
