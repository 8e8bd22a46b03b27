-- Dismissed rows, and the topic of an import.

-- The version that the row had when it was dismissed. A later version is not dismissed.
ALTER TABLE rows ADD COLUMN dismissed INTEGER;

DROP VIEW v_failures;
DROP VIEW v_rows;

-- All rows.
CREATE VIEW v_rows AS
SELECT id, external_id, chain_id AS account, stage,
    stage IN ('onboarded', 'conflict', 'refused', 'rejected', 'failed') AS settled,
    class, reason, customer_id, partner_status, already_onboarded, attempts, refusals,
    external_tx_id AS custodian_transaction, import_id, file, line,
    strftime('%Y-%m-%dT%H:%M:%fZ', accepted_at / 1e6, 'unixepoch') AS accepted_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', updated_at / 1e6, 'unixepoch') AS updated_at,
    coalesce(first_file, file) AS first_file, coalesce(first_line, line) AS first_line,
    dismissed IS version AS dismissed
FROM rows;

-- Rows that ended badly.
CREATE VIEW v_failures AS
SELECT id, file, line, external_id, account, stage, class, reason, customer_id, partner_status, attempts, refusals,
    import_id, updated_at AS settled_at, first_file, first_line, dismissed
FROM v_rows WHERE settled AND stage <> 'onboarded';

-- The topic that an import published its rows to; empty: an earlier version did not record it.
ALTER TABLE imports ADD COLUMN topic TEXT NOT NULL DEFAULT '';
