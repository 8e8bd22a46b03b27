package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/printable"
)

// keptRuns is how many runs a ledger remembers. With a run a night they are three years.
const keptRuns = 1000

// Run is a run of a consumer, as the ledger remembers it.
type Run struct {
	ID        uuid.UUID // version 7: ids sort by their time
	Program   string    // name and version
	Host      string
	Drain     bool
	StartedAt time.Time
	EndedAt   time.Time // zero: it is under way, or its process was killed
	Exit      int       // exit code, once it has ended
	Report    string    // JSON; of a run without an end, as of its start
}

// Ended reports whether the run came to its end.
func (r Run) Ended() bool { return !r.EndedAt.IsZero() }

// BeginRun records a run that begins, and forgets the oldest ones beyond 1000.
func (l *Ledger) BeginRun(ctx context.Context, r Run) error {
	return translate(l.path, l.writer.do(ctx, 1, func(t *tx) error {
		_, err := l.conn.ExecContext(t.ctx, `INSERT INTO runs (id, program, host, drain, started_at, report)
			VALUES (?, ?, ?, ?, ?, ?)`, r.ID.String(), r.Program, r.Host, r.Drain, micros(r.StartedAt), r.Report)
		if err != nil {
			return err
		}
		_, err = l.conn.ExecContext(t.ctx, `DELETE FROM runs WHERE id NOT IN
			(SELECT id FROM runs ORDER BY started_at DESC, id DESC LIMIT ?)`, keptRuns)
		return err
	}))
}

// EndRun records the end of a run.
func (l *Ledger) EndRun(ctx context.Context, id uuid.UUID, at time.Time, exit int, report string) error {
	return translate(l.path, l.writer.do(ctx, 1, func(t *tx) error {
		result, err := l.conn.ExecContext(t.ctx, `UPDATE runs SET ended_at = ?, exit = ?, report = ? WHERE id = ?`,
			micros(at), exit, report, id.String())
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("run %s: %w", id, errNotFound))
		}
		return nil
	}))
}

// Runs returns up to n runs, the latest first.
func (q *queries) Runs(ctx context.Context, n int) ([]Run, error) {
	rows, err := q.source.QueryContext(ctx, `SELECT id, program, host, drain, started_at, ended_at, exit, report FROM runs
		ORDER BY started_at DESC, id DESC LIMIT ?`, n)
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	var runs []Run
	for rows.Next() {
		var r Run
		var id string
		var started, ended, exit sql.NullInt64
		if err := rows.Scan(&id, &r.Program, &r.Host, &r.Drain, &started, &ended, &exit, &r.Report); err != nil {
			return nil, translate(q.path, err)
		}
		if r.ID, err = uuid.Parse(id); err != nil {
			return nil, fmt.Errorf("ledger %s: id of a run: %w", q.path, err)
		}
		r.Program, r.Host = printable.Line(r.Program, maxText), printable.Line(r.Host, maxText)
		r.StartedAt, r.EndedAt, r.Exit = fromMicros(started), fromMicros(ended), int(exit.Int64)
		runs = append(runs, r)
	}
	return runs, translate(q.path, rows.Err())
}
