-- Views for people who look into a ledger with sqlite3 or Datasette (docs/looking-into-a-night.md): times in ISO 8601,
-- UTC; without challenges, signatures and nonces. The program itself reads tables only. A migration that renames or
-- drops a column used here has to drop the view first.

-- All rows.
CREATE VIEW v_rows AS
SELECT id, external_id, chain_id AS account, stage,
    stage IN ('onboarded', 'conflict', 'refused', 'rejected', 'failed') AS settled,
    class, reason, customer_id, partner_status, already_onboarded, attempts, refusals,
    external_tx_id AS custodian_transaction, import_id, file, line,
    strftime('%Y-%m-%dT%H:%M:%fZ', accepted_at / 1e6, 'unixepoch') AS accepted_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', updated_at / 1e6, 'unixepoch') AS updated_at
FROM rows;

-- Rows that ended badly.
CREATE VIEW v_failures AS
SELECT id, file, line, external_id, account, stage, class, reason, customer_id, partner_status, attempts, refusals,
    import_id, updated_at AS settled_at
FROM v_rows WHERE settled AND stage <> 'onboarded';

-- Rows that are not settled yet.
CREATE VIEW v_open AS
SELECT id, file, line, external_id, account, stage, reason, attempts, custodian_transaction, import_id, accepted_at,
    updated_at
FROM v_rows WHERE NOT settled;

-- The idempotency keys under which requests were sent, or may have been. payload_sha256 is that of the request's body.
CREATE VIEW v_requests AS
SELECT k.row_id, r.external_id, r.chain_id AS account, k.operation, k.generation, k.id AS idempotency_key, k.outcome,
    lower(hex(k.digest)) AS payload_sha256,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.first_sent / 1e6, 'unixepoch') AS first_sent_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.last_sent / 1e6, 'unixepoch') AS last_sent_at
FROM keys k JOIN rows r ON r.id = k.row_id;

-- Settled rows whose event is still to be published.
CREATE VIEW v_unpublished AS
SELECT v.id, v.external_id, v.account, v.stage, v.updated_at AS settled_at
FROM outbox o JOIN v_rows v ON v.id = o.row_id;

-- The partner's customers, as the list says that was read last.
CREATE VIEW v_customers AS
SELECT d.customer_id, d.external_id, d.chain_id AS account, d.status,
    strftime('%Y-%m-%dT%H:%M:%fZ', d.created_at / 1e6, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', d.updated_at / 1e6, 'unixepoch') AS updated_at
FROM (
    SELECT * FROM directory_0 WHERE (SELECT active FROM directory_state) = 0
    UNION ALL
    SELECT * FROM directory_1 WHERE (SELECT active FROM directory_state) = 1
) d;

-- The runs, with the counts of their reports.
CREATE VIEW v_runs AS
SELECT id, program, host, drain, started_at, ended_at, seconds,
    CASE WHEN ended_at IS NULL THEN 'running' ELSE 'ended' END AS state, exit,
    json_extract(report, '$.reason') AS reason,
    json_extract(report, '$.rows.received') AS received, json_extract(report, '$.rows.skipped') AS skipped,
    json_extract(report, '$.rows.onboarded') AS onboarded,
    json_extract(report, '$.rows.alreadyOnboarded') AS already_onboarded,
    json_extract(report, '$.rows.conflict') AS conflict, json_extract(report, '$.rows.refused') AS refused,
    json_extract(report, '$.rows.rejected') AS rejected, json_extract(report, '$.rows.failed') AS failed,
    json_extract(report, '$.rows.deadLettered') AS dead_lettered,
    json_extract(report, '$.requests.sent') AS requests, json_extract(report, '$.requests.throttled') AS throttled,
    json_extract(report, '$.requests.retried') AS retried, json_extract(report, '$.signatures') AS signatures
FROM (
    SELECT id, program, host, drain, exit, CASE WHEN json_valid(report) THEN report END AS report,
        strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1e6, 'unixepoch') AS started_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', ended_at / 1e6, 'unixepoch') AS ended_at,
        round((ended_at - started_at) / 1e6, 1) AS seconds
    FROM runs
);

-- The imports whose rows came here, as their importers recorded them.
CREATE VIEW v_imports AS
SELECT id, program, host, strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1e6, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', ended_at / 1e6, 'unixepoch') AS ended_at,
    round((ended_at - started_at) / 1e6, 1) AS seconds, exit, reason, lines, published_lines, invalid_lines, neither,
    lines = published_lines + invalid_lines + neither AS adds_up, rows, published, invalid, header, blank, files
FROM imports;

-- What each run did in each minute. requests (operation, outcome, count) and settled (stage, count) are JSON.
CREATE VIEW v_minutes AS
SELECT run, strftime('%Y-%m-%dT%H:%M:%fZ', minute / 1e6, 'unixepoch') AS minute_at,
    json_extract(data, '$.rateAllowed') AS rate_allowed, json_extract(data, '$.rateUsed') AS rate_used,
    json_extract(data, '$.throttled') AS throttled, json_extract(data, '$.signatures') AS signatures,
    json_extract(data, '$.signerErrors') AS signer_errors, json_extract(data, '$.outageSeconds') AS outage_seconds,
    json_extract(data, '$.gateClosedSeconds') AS gate_closed_seconds, json_extract(data, '$.requests') AS requests,
    json_extract(data, '$.settled') AS settled
FROM (SELECT run, minute, CASE WHEN json_valid(data) THEN data END AS data FROM run_minutes);

-- How long requests, by operation, and signatures took in each run: estimated percentiles in seconds.
CREATE VIEW v_latencies AS
SELECT r.id AS run, strftime('%Y-%m-%dT%H:%M:%fZ', r.started_at / 1e6, 'unixepoch') AS run_started_at,
    json_extract(l.value, '$.operation') AS operation, json_extract(l.value, '$.count') AS count,
    json_extract(l.value, '$.p50') AS p50, json_extract(l.value, '$.p95') AS p95, json_extract(l.value, '$.p99') AS p99
FROM runs r, json_each(CASE WHEN json_valid(r.report) THEN r.report ELSE '{}' END, '$.latencies') l;
