package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// keptMinutes is how many minutes a run may have: two days. A run that is longer keeps the latest.
const keptMinutes = 2 * 24 * 60

// Minute records what a run did in a minute.
type Minute struct {
	At   time.Time // the minute's start
	Data string    // JSON
}

// PutMinute stores a minute of a run, replacing an earlier entry for the same minute, and deletes the run's minutes
// that are two days older. The run must have begun.
func (l *Ledger) PutMinute(ctx context.Context, run uuid.UUID, m Minute) error {
	at := m.At.Truncate(time.Minute)
	return translate(l.path, l.writer.do(ctx, 1, func(t *tx) error {
		_, err := l.conn.ExecContext(t.ctx, `INSERT OR REPLACE INTO run_minutes (run, minute, data) VALUES (?, ?, ?)`,
			run.String(), at.UnixMicro(), m.Data)
		if err != nil {
			return fmt.Errorf("store a minute of run %s: %w", run, err)
		}
		_, err = l.conn.ExecContext(t.ctx, `DELETE FROM run_minutes WHERE run = ? AND minute <= ?`,
			run.String(), at.Add(-keptMinutes*time.Minute).UnixMicro())
		return err
	}))
}

// Minutes returns the minutes of a run, the earliest first. Minutes in which the run was not alive are absent.
func (q *queries) Minutes(ctx context.Context, run uuid.UUID) ([]Minute, error) {
	rows, err := q.source.QueryContext(ctx, `SELECT minute, data FROM run_minutes WHERE run = ? ORDER BY minute`,
		run.String())
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	var minutes []Minute
	for rows.Next() {
		var at int64
		var m Minute
		if err := rows.Scan(&at, &m.Data); err != nil {
			return nil, translate(q.path, err)
		}
		m.At = time.UnixMicro(at).UTC()
		minutes = append(minutes, m)
	}
	return minutes, translate(q.path, rows.Err())
}
