package ledger

import (
	"context"
	"errors"

	"github.com/purser-onboard/purser/pipeline"
)

// Unannounced implements pipeline.Outbox: up to n settled rows whose event is still to be published, oldest first. With
// a changelog those of other consumers' partitions are theirs to publish: they may have been settled anew there.
func (l *Ledger) Unannounced(ctx context.Context, n int) ([]pipeline.Record, error) {
	var found []pipeline.Record
	err := l.each(ctx, recordQuery+` JOIN outbox o ON o.row_id = r.id ORDER BY o.row_id`, nil,
		func(r pipeline.Record) error {
			if l.writer.holds(r.Account.String()) {
				found = append(found, r)
			}
			if len(found) == n {
				return errEnough
			}
			return nil
		})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// errEnough ends a walk through rows.
var errEnough = errors.New("enough")

const announcedQuery = `DELETE FROM outbox WHERE row_id = ? AND version <= ?`

// unannouncedQuery and announceQuery are for a row that comes with its partition from somebody who may not come back.
const unannouncedQuery = `SELECT EXISTS (SELECT 1 FROM outbox WHERE row_id = ?)`

const announceQuery = `INSERT INTO outbox (row_id, version) VALUES (?, ?)
	ON CONFLICT DO UPDATE SET version = excluded.version`

// Announced implements pipeline.Outbox: the events of these rows are published. A row that was settled anew meanwhile
// stays.
func (l *Ledger) Announced(ctx context.Context, rows []pipeline.Record) error {
	err := l.writer.do(ctx, len(rows), func(t *tx) error {
		for _, r := range rows {
			if !t.holds(r.Account.String()) {
				continue // its partition went away meanwhile: what is here may be old, and not to be written there
			}
			if _, err := t.announced.ExecContext(t.ctx, r.ID, r.Version); err != nil {
				return err
			}
			t.touch(r.ID)
		}
		return nil
	})
	return translate(l.path, err)
}
