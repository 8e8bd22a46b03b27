-- The same triggers without a list: each time that a trigger runs, SQLite builds a temporary index of the list's values.
DROP TRIGGER rows_settled_by_update;
DROP TRIGGER rows_settled_at_once;

CREATE TRIGGER rows_settled_by_update AFTER UPDATE OF stage ON rows
WHEN NEW.stage <> OLD.stage AND (NEW.stage = 'onboarded' OR NEW.stage = 'conflict' OR NEW.stage = 'refused'
    OR NEW.stage = 'rejected' OR NEW.stage = 'failed')
BEGIN
    INSERT INTO outbox (row_id, version) VALUES (NEW.id, NEW.version)
    ON CONFLICT DO UPDATE SET version = excluded.version;
END;

CREATE TRIGGER rows_settled_at_once AFTER INSERT ON rows
WHEN NEW.stage = 'onboarded' OR NEW.stage = 'conflict' OR NEW.stage = 'refused' OR NEW.stage = 'rejected'
    OR NEW.stage = 'failed'
BEGIN
    INSERT INTO outbox (row_id, version) VALUES (NEW.id, NEW.version);
END;
