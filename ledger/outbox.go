package ledger

import (
	"context"
	"errors"

	"github.com/purser-onboard/purser/pipeline"
)

// Unpublished implements results.Outbox: it returns up to n settled rows whose event is still to be published, oldest
// first. With a ledger topic it leaves out rows of partitions that are not assigned to this consumer: their owner
// publishes the events, and the rows may have changed there.
func (l *Ledger) Unpublished(ctx context.Context, n int) ([]pipeline.Record, error) {
	var found []pipeline.Record
	err := l.each(ctx, recordQuery+` JOIN outbox o ON o.row_id = r.id ORDER BY o.row_id`, nil,
		func(r pipeline.Record) error {
			if l.writer.owns(r.Account.String()) {
				found = append(found, r)
			}
			if len(found) == n {
				return errStop
			}
			return nil
		})
	if errors.Is(err, errStop) {
		err = nil
	}
	return found, err
}

// errStop ends each before its last row.
var errStop = errors.New("stop")

const removeFromOutboxQuery = `DELETE FROM outbox WHERE row_id = ? AND version <= ?`

// inOutboxQuery and addToOutboxQuery are for rows that change their owner: the new owner publishes the event.
const inOutboxQuery = `SELECT EXISTS (SELECT 1 FROM outbox WHERE row_id = ?)`

const addToOutboxQuery = `INSERT INTO outbox (row_id, version) VALUES (?, ?)
	ON CONFLICT DO UPDATE SET version = excluded.version`

// Published implements results.Outbox: it removes rows from the outbox because their events have been published. A row
// that has been settled again since it was read stays.
func (l *Ledger) Published(ctx context.Context, rows []pipeline.Record) error {
	err := l.writer.do(ctx, len(rows), func(t *tx) error {
		for _, r := range rows {
			if !t.owns(r.Account.String()) {
				continue // not ours any more: this ledger's record may be old and must not be written to the ledger topic
			}
			if _, err := t.removeFromOutbox.ExecContext(t.ctx, r.ID, r.Version); err != nil {
				return err
			}
			t.touch(r.ID)
		}
		return nil
	})
	return translate(l.path, err)
}
