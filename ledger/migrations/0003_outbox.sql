-- Settled rows whose event has not been published yet. Triggers insert them in the transaction that settles the row, so
-- that a crash cannot come between the two.
CREATE TABLE outbox (
    row_id  INTEGER PRIMARY KEY REFERENCES rows (id),
    version INTEGER NOT NULL -- of the row when it was settled
) STRICT;

CREATE TRIGGER rows_settled_by_update AFTER UPDATE OF stage ON rows
WHEN NEW.stage IN ('onboarded', 'conflict', 'refused', 'rejected', 'failed') AND NEW.stage <> OLD.stage
BEGIN
    INSERT INTO outbox (row_id, version) VALUES (NEW.id, NEW.version)
    ON CONFLICT DO UPDATE SET version = excluded.version;
END;

CREATE TRIGGER rows_settled_at_once AFTER INSERT ON rows
WHEN NEW.stage IN ('onboarded', 'conflict', 'refused', 'rejected', 'failed')
BEGIN
    INSERT INTO outbox (row_id, version) VALUES (NEW.id, NEW.version);
END;

-- A row that a new import restarts has no event until it is settled again.
CREATE TRIGGER rows_restarted AFTER UPDATE OF stage ON rows
WHEN NEW.stage = 'planned' AND OLD.stage <> 'planned'
BEGIN
    DELETE FROM outbox WHERE row_id = NEW.id;
END;
