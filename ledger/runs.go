package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// keptRuns is how many runs a ledger remembers. With a run a night they are three years.
const keptRuns = 1000

const (
	// keptMinuteRuns is how many runs, the latest, keep their minutes.
	keptMinuteRuns = 100
	// keptRunRows is how many of its bad rows a run keeps.
	keptRunRows = 1000
)

// Run is the ledger's record of a run of a consumer.
type Run struct {
	ID        uuid.UUID // version 7: ids sort by their time
	Program   string    // name and version
	Host      string
	Drain     bool
	StartedAt time.Time
	EndedAt   time.Time // zero: it is in progress, or its process was killed
	Running   bool      // it has not ended, and its process has the ledger; set by Runs
	Exit      int       // exit code, once it has ended
	Report    string    // JSON; of a run without an end, of BeginRun or the latest PutReport
}

// Ended reports whether the run recorded its end.
func (r Run) Ended() bool { return !r.EndedAt.IsZero() }

// BeginRun records the start of a run. It deletes the records of all but the latest 1000 runs, and the minutes of all
// but the latest 100. Until EndRun or Close, other processes see the run as in progress.
func (l *Ledger) BeginRun(ctx context.Context, r Run) error {
	if err := l.lock.Note(r.ID.String()); err != nil {
		return translate(l.path, err)
	}
	return translate(l.path, l.writer.do(ctx, 1, func(t *tx) error {
		_, err := l.conn.ExecContext(t.ctx, `INSERT INTO runs (id, program, host, drain, started_at, report)
			VALUES (?, ?, ?, ?, ?, ?)`, r.ID.String(), r.Program, r.Host, r.Drain, micros(r.StartedAt), r.Report)
		if err != nil {
			return err
		}
		_, err = l.conn.ExecContext(t.ctx, `DELETE FROM runs WHERE id NOT IN
			(SELECT id FROM runs ORDER BY rowid DESC LIMIT ?)`, keptRuns)
		if err != nil {
			return err
		}
		_, err = l.conn.ExecContext(t.ctx, `DELETE FROM run_minutes WHERE run NOT IN
			(SELECT id FROM runs ORDER BY rowid DESC LIMIT ?)`, keptMinuteRuns)
		return err
	}))
}

// PutReport replaces the report of a run that has not ended.
func (l *Ledger) PutReport(ctx context.Context, id uuid.UUID, report string) error {
	return translate(l.path, l.writer.do(ctx, 1, func(t *tx) error {
		_, err := l.conn.ExecContext(t.ctx, `UPDATE runs SET report = ? WHERE id = ? AND ended_at IS NULL`,
			report, id.String())
		return err
	}))
}

// RunEnd is the end of a run.
type RunEnd struct {
	At     time.Time
	Exit   int    // exit code
	Report string // JSON
	// Bad are the rows, by their ids here, that ended badly, whether this run ended them or an earlier one. The first
	// 1000 are kept, for StillBad.
	Bad []int64
}

// EndRun records the end of a run.
func (l *Ledger) EndRun(ctx context.Context, id uuid.UUID, end RunEnd) error {
	bad := end.Bad[:min(len(end.Bad), keptRunRows)]
	err := l.writer.do(ctx, 1+len(bad), func(t *tx) error {
		result, err := l.conn.ExecContext(t.ctx, `UPDATE runs SET ended_at = ?, exit = ?, report = ? WHERE id = ?`,
			micros(end.At), end.Exit, end.Report, id.String())
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("run %s: %w", id, errNotFound))
		}
		if len(bad) == 0 {
			return nil
		}
		list, err := json.Marshal(bad)
		if err != nil {
			return err
		}
		_, err = l.conn.ExecContext(t.ctx, `INSERT OR IGNORE INTO run_rows (run, row_id)
			SELECT ?, value FROM json_each(?)`, id.String(), string(list))
		return err
	})
	if err == nil {
		err = l.lock.Note("")
	}
	return translate(l.path, err)
}

// BadQuery selects rows that are in conflict, refused, rejected or failed.
type BadQuery struct {
	Runs  []uuid.UUID // rows that these runs ended with
	Since time.Time   // and rows that have changed since then; zero: none
	// Own are the rows, by their ids, of a run that began at Begun. They are not selected if they have changed since then.
	Own   []int64
	Begun time.Time
	// Splits divide the counts, by when a row changed last.
	Splits []time.Time
}

// StillBad counts, by stage, the rows that a query selects, without dismissed rows: first the rows that changed before
// all of its Splits, then those that changed after the first of them, and so on. It also returns the ids of the first
// 1000. It reads the whole table, as Counts does.
func (q *queries) StillBad(
	ctx context.Context, b BadQuery,
) (counts []map[pipeline.Stage]int64, first []int64, err error) {
	runs, err := json.Marshal(b.Runs)
	if err != nil {
		return nil, nil, err
	}
	own, err := json.Marshal(b.Own)
	if err != nil {
		return nil, nil, err
	}
	at := make([]int64, len(b.Splits))
	counts = make([]map[pipeline.Stage]int64, len(b.Splits)+1)
	for i := range counts {
		counts[i] = make(map[pipeline.Stage]int64)
	}
	for i, split := range b.Splits {
		at[i] = split.UnixMicro()
	}
	splits, err := json.Marshal(at)
	if err != nil {
		return nil, nil, err
	}
	rows, err := q.source.QueryContext(ctx, `SELECT id, stage,
		(SELECT count(*) FROM json_each(?) WHERE value <= updated_at) FROM rows
		WHERE `+stillBad+` AND (updated_at >= ?
		OR id IN (SELECT row_id FROM run_rows WHERE run IN (SELECT value FROM json_each(?))))
		AND NOT (coalesce(updated_at >= ?, 0) AND id IN (SELECT value FROM json_each(?)))`,
		string(splits), micros(b.Since), string(runs), micros(b.Begun), string(own)) // a comparison with NULL is not true
	if err != nil {
		return nil, nil, translate(q.path, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var stage pipeline.Stage
		var after int
		if err := rows.Scan(&id, &stage, &after); err != nil {
			return nil, nil, translate(q.path, err)
		}
		counts[after][stage]++
		if len(first) < keptRunRows {
			first = append(first, id)
		}
	}
	return counts, first, translate(q.path, rows.Err())
}

// Runs returns up to n runs, the latest first, in the order in which they began, whatever the clock showed.
func (q *queries) Runs(ctx context.Context, n int) ([]Run, error) {
	before, err := runningIn(q.path) // a run that ends meanwhile has its end in the table
	if err != nil {
		return nil, translate(q.path, err)
	}
	runs, err := q.readRuns(ctx, n)
	if err != nil {
		return nil, translate(q.path, err)
	}
	after, err := runningIn(q.path) // a run that begins meanwhile
	if err != nil {
		return nil, translate(q.path, err)
	}
	for i := range runs {
		r := &runs[i]
		r.Running = !r.Ended() && (r.ID == before || r.ID == after)
	}
	return runs, nil
}

func (q *queries) readRuns(ctx context.Context, n int) (runs []Run, err error) {
	rows, err := q.source.QueryContext(ctx, `SELECT id, program, host, drain, started_at, ended_at, exit, report FROM runs
		ORDER BY rowid DESC LIMIT ?`, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r Run
		var id string
		var started, ended, exit sql.NullInt64
		if err := rows.Scan(&id, &r.Program, &r.Host, &r.Drain, &started, &ended, &exit, &r.Report); err != nil {
			return nil, err
		}
		if r.ID, err = uuid.Parse(id); err != nil {
			return nil, fmt.Errorf("ledger %s: id of a run: %w", q.path, err)
		}
		r.Program, r.Host = printable.Line(r.Program, maxText), printable.Line(r.Host, maxText)
		r.StartedAt, r.EndedAt, r.Exit = fromMicros(started), fromMicros(ended), int(exit.Int64)
		runs = append(runs, r)
	}
	return runs, rows.Err()
}
