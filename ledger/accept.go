package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/purser-onboard/purser/pipeline"
)

// classDuplicate is the class of a row that contradicts an earlier row of the exports.
const classDuplicate = "duplicate"

// item is a row of an Accept call.
type item struct {
	row     pipeline.Row
	chainID string // the account as it is stored
	known   bool   // the look-up found the pair, so that it need not be inserted
}

// Accept implements pipeline.Ledger. A batch of 100 to 10,000 rows is best: it is looked up in a single query, and a
// batch of settled rows needs no write. A row without account, externalId or import id, or with an externalId that
// SQLite cannot store as text, fails the whole batch: the caller must turn such messages into dead letters first.
func (l *Ledger) Accept(ctx context.Context, rows []pipeline.Row) ([]pipeline.Acceptance, error) {
	if len(rows) == 0 {
		return nil, ctx.Err()
	}
	if err := l.checking.found(); err != nil {
		return nil, err
	}
	items := make([]item, len(rows))
	for i, row := range rows {
		if err := storable(row); err != nil {
			return nil, fmt.Errorf("row %s: %w", row.Where(), err)
		}
		items[i] = item{row: row, chainID: row.Account.String()}
	}
	answers := make([]pipeline.Acceptance, len(rows))
	open, err := l.lookUp(ctx, items, answers)
	if err != nil {
		return nil, translate(l.path, err)
	}
	if len(open) == 0 {
		return answers, nil
	}
	err = l.writer.do(ctx, len(open), func(t *tx) error {
		for _, i := range open {
			var err error
			if answers[i], err = t.accept(items[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, translate(l.path, err)
	}
	return answers, nil
}

func storable(row pipeline.Row) error {
	switch {
	case row.Account.Chain == 0:
		return errors.New("no account")
	case row.ExternalID == "":
		return errors.New("no externalId")
	case row.ImportID == "":
		return errors.New("no import id")
	case !utf8.ValidString(row.ExternalID) || strings.IndexByte(row.ExternalID, 0) >= 0:
		return errors.New("externalId is not text")
	}
	return nil
}

// lookUpQuery returns a row for every member of a JSON object {chainId: externalId, …}, which may repeat names, in
// order: json_each iterates over the object and is the outer side of the join. A query for a whole batch costs a
// fraction of a query for each row.
const lookUpQuery = `SELECT r.id, r.external_id, r.stage, r.class, r.reason, r.customer_id,
	r.import_id, r.file, r.line, r.dismissed IS r.version
	FROM json_each(?) j LEFT JOIN rows r ON r.external_id = j.value AND r.chain_id = j.key`

// lookUp answers the settled rows and returns the indexes of the rows that need the writer. If there are any, these
// include settled rows that can be restarted, because an earlier row of the batch may restart them.
func (l *Ledger) lookUp(ctx context.Context, items []item, answers []pipeline.Acceptance) (open []int, err error) {
	rows, err := l.source.QueryContext(ctx, lookUpQuery, lookUpArgument(items))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var id, line sql.NullInt64
	var externalID, stage, class, reason, customerID, importID, file sql.NullString
	var dismissed bool
	unsettled := false
	i := 0
	for ; rows.Next() && i < len(items); i++ {
		if err := rows.Scan(&id, &externalID, &stage, &class, &reason, &customerID, &importID, &file, &line,
			&dismissed); err != nil {
			return nil, err
		}
		it := &items[i]
		it.known = id.Valid
		at := pipeline.Stage(stage.String)
		switch {
		case !id.Valid, !at.Terminal(), at.Retryable() && importID.String != it.row.ImportID:
			unsettled = true
			open = append(open, i)
			continue
		case externalID.String != it.row.ExternalID:
			return nil, fmt.Errorf("look up row %s: got ledger row %d with another externalId", it.row.Where(), id.Int64)
		case at.Retryable():
			open = append(open, i)
		}
		record := &answers[i].Record
		answers[i].Admission = pipeline.Settled
		record.Account = it.row.Account
		record.ExternalID = it.row.ExternalID
		record.ImportID = importID.String
		record.File = file.String
		record.Line = int(line.Int64)
		record.ID = id.Int64
		record.Stage = at
		record.Class = class.String
		record.Reason = reason.String
		record.CustomerID = customerID.String
		record.Dismissed = dismissed
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if i != len(items) {
		return nil, fmt.Errorf("look up %d rows: got %d", len(items), i)
	}
	if !unsettled {
		return nil, nil
	}
	return open, nil
}

func lookUpArgument(items []item) string {
	var b []byte
	for i, it := range items {
		if i == 0 {
			b = make([]byte, 0, len(items)*(len(it.chainID)+len(it.row.ExternalID)+16))
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, it.chainID...)
		b = append(b, '"', ':')
		b = pipeline.AppendJSONString(b, it.row.ExternalID)
	}
	return string(append(b, '}'))
}

const insertRowQuery = `INSERT INTO rows
	(external_id, chain_id, stage, class, reason, import_id, file, line, claims, version, accepted_at, updated_at)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT DO NOTHING`

// accept decides what to do with a row, in the writer's transaction.
func (t *tx) accept(it item) (pipeline.Acceptance, error) {
	if err := t.fence(it.row, it.chainID); err != nil {
		return pipeline.Acceptance{}, err
	}
	isTaken := it.known
	if !isTaken {
		var err error
		if isTaken, err = t.isSpelledOtherwise(it); err != nil {
			return pipeline.Acceptance{}, err
		}
	}
	if !isTaken {
		// Most rows are new and contradict no other: then no unique index prevents the insertion.
		answer, inserted, err := t.insert(it, pipeline.Planned, "", "")
		if err != nil || inserted {
			return answer, err
		}
	}
	record, hasClaims, err := scanRecord(t.rowByPair.QueryRowContext(t.ctx, it.row.ExternalID, it.chainID))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return t.acceptContested(it)
	case err != nil:
		return pipeline.Acceptance{}, err
	case !record.Stage.Terminal():
		return t.acceptUnfinished(it, record)
	}
	return t.acceptTerminal(it, record, hasClaims)
}

func (t *tx) insert(it item, stage pipeline.Stage, class, reason string) (pipeline.Acceptance, bool, error) {
	hasClaims := stage == pipeline.Planned
	result, err := t.insertRow.ExecContext(t.ctx, it.row.ExternalID, it.chainID, string(stage), class, reason,
		it.row.ImportID, it.row.File, it.row.Line, hasClaims, t.now.UnixMicro(), t.now.UnixMicro())
	if err != nil {
		return pipeline.Acceptance{}, false, err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return pipeline.Acceptance{}, false, err
	}
	id, err := result.LastInsertId()
	if err != nil {
		return pipeline.Acceptance{}, false, err
	}
	t.touch(id)
	answer := pipeline.Acceptance{Admission: pipeline.Open, Record: pipeline.Record{
		Row: it.row, ID: id, Version: 1, Stage: stage, Class: class, Reason: reason, AcceptedAt: t.now, UpdatedAt: t.now,
		FirstFile: it.row.File, FirstLine: it.row.Line,
	}}
	if !hasClaims {
		answer.Admission = pipeline.Contradicted
	}
	return answer, true, nil
}

// acceptContested stores a new row whose account or externalId another row claims.
func (t *tx) acceptContested(it item) (pipeline.Acceptance, error) {
	reason, err := t.takeClaims(it, 0)
	if err != nil {
		return pipeline.Acceptance{}, err
	}
	stage, class := pipeline.Planned, ""
	if reason != "" {
		stage, class = pipeline.Conflict, classDuplicate
	}
	answer, inserted, err := t.insert(it, stage, class, reason)
	if err == nil && !inserted {
		err = fmt.Errorf("insert row %s: a unique index prevents it although no row claims its account or externalId",
			it.row.Where())
	}
	return answer, err
}

// leaveFirstPlace keeps where the first import had a row. An UPDATE reads the values from before it.
const leaveFirstPlace = `first_file = coalesce(first_file, file), first_line = coalesce(first_line, line)`

const setImportQuery = `UPDATE rows SET import_id = ?, file = ?, line = ?, updated_at = ?,
	` + leaveFirstPlace + ` WHERE id = ?`

// acceptUnfinished moves the row to its newest import. The version does not change: a worker that is processing the row
// must not fail with ErrStale because the export was imported again.
func (t *tx) acceptUnfinished(it item, record pipeline.Record) (pipeline.Acceptance, error) {
	newer, err := t.isNewImport(it, record)
	if err != nil {
		return pipeline.Acceptance{}, err
	}
	if newer {
		if err := t.recordImport(record); err != nil {
			return pipeline.Acceptance{}, err
		}
		_, err := t.setImport.ExecContext(t.ctx, it.row.ImportID, it.row.File, it.row.Line, t.now.UnixMicro(), record.ID)
		if err != nil {
			return pipeline.Acceptance{}, err
		}
		t.touch(record.ID)
		record.Row, record.UpdatedAt = it.row, t.now
	}
	return pipeline.Acceptance{Admission: pipeline.Open, Record: record}, nil
}

// The keys keep their outcome (the rules "Silence keeps the key" and "Old keys are not trusted"), and the customer
// stays: a worker continues from its status. Everything else of the failed attempt is deleted.
const restartQuery = `UPDATE rows SET version = version + 1, stage = 'planned', claims = 1, class = '', reason = '',
	challenge = '', challenge_at = NULL, external_tx_id = '', signature = '', refusals = 0, attempts = 0,
	already_onboarded = 0, import_id = ?, file = ?, line = ?, updated_at = ?, ` + leaveFirstPlace + ` WHERE id = ?`

const contradictQuery = `UPDATE rows SET version = version + 1, stage = 'conflict', class = ?, reason = ?,
	import_id = ?, file = ?, line = ?, updated_at = ?, ` + leaveFirstPlace + ` WHERE id = ?`

// acceptTerminal skips a settled row, or restarts it if it comes from a new import.
func (t *tx) acceptTerminal(it item, record pipeline.Record, hasClaims bool) (pipeline.Acceptance, error) {
	settled := pipeline.Acceptance{Admission: pipeline.Settled, Record: record}
	if !record.Stage.Retryable() {
		return settled, nil
	}
	newer, err := t.isNewImport(it, record)
	if err != nil || !newer {
		return settled, err
	}
	reason := ""
	if !hasClaims {
		if reason, err = t.takeClaims(it, record.ID); err != nil {
			return pipeline.Acceptance{}, err
		}
	}
	previous := record.Class
	if err := t.recordImport(record); err != nil {
		return pipeline.Acceptance{}, err
	}
	t.touch(record.ID)
	if reason != "" {
		_, err = t.contradict.ExecContext(t.ctx, classDuplicate, reason,
			it.row.ImportID, it.row.File, it.row.Line, t.now.UnixMicro(), record.ID)
	} else {
		_, err = t.restart.ExecContext(t.ctx,
			it.row.ImportID, it.row.File, it.row.Line, t.now.UnixMicro(), record.ID)
	}
	if err != nil {
		return pipeline.Acceptance{}, err
	}
	record, _, err = scanRecord(t.rowByPair.QueryRowContext(t.ctx, it.row.ExternalID, it.chainID))
	if reason != "" {
		return pipeline.Acceptance{Admission: pipeline.Contradicted, Record: record}, err
	}
	return pipeline.Acceptance{Admission: pipeline.Open, Record: record, Previous: previous}, err
}

const importSeenQuery = `SELECT EXISTS (SELECT 1 FROM row_imports WHERE row_id = ? AND import_id = ?)`

// isNewImport reports whether the row comes from an import that it neither has nor had. A redelivered message of an
// earlier import changes nothing.
func (t *tx) isNewImport(it item, record pipeline.Record) (bool, error) {
	if it.row.ImportID == record.ImportID {
		return false, nil
	}
	var seen bool
	err := t.importSeen.QueryRowContext(t.ctx, record.ID, it.row.ImportID).Scan(&seen)
	return !seen, err
}

const addImportQuery = `INSERT INTO row_imports (row_id, import_id) VALUES (?, ?) ON CONFLICT DO NOTHING`

// recordImport stores the import that the row is about to leave. A row that cannot be restarted keeps its import, so
// replaying it writes nothing.
func (t *tx) recordImport(record pipeline.Record) error {
	_, err := t.addImport.ExecContext(t.ctx, record.ID, record.ImportID)
	return err
}
