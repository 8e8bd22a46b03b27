package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// customersPerChunk is how many customers of the partner's list are written at once: enough to spread the fsync,
// few enough that a worker's update behind them waits some milliseconds.
const customersPerChunk = 500

const addCustomerQuery = `INSERT INTO directory_%d (customer_id, chain_id, external_id, status, created_at, updated_at)
	VALUES (?, ?, ?, ?, ?, ?)`

// DirectoryAsOf says when the stored list of the partner's customers was begun to be read; zero when there is none.
func (q *queries) DirectoryAsOf(ctx context.Context) (time.Time, error) {
	var begun sql.NullInt64
	err := q.source.QueryRowContext(ctx, `SELECT begun FROM directory_state WHERE id = 1`).Scan(&begun)
	return fromMicros(begun), translate(q.path, err)
}

// The indexes of a copy are made when it is whole. Entries come in no order: with the indexes there, each would write
// pages of its own to both, 17 GB for a million customers instead of 0.6.
const (
	dropIndexes = `DROP INDEX IF EXISTS directory_%[1]d_chain_id;
		DROP INDEX IF EXISTS directory_%[1]d_external_id`
	indexAccounts    = `CREATE INDEX directory_%[1]d_chain_id ON directory_%[1]d (lower(chain_id))`
	indexExternalIDs = `CREATE INDEX directory_%[1]d_external_id ON directory_%[1]d (external_id)`
)

// ReplaceDirectory implements pipeline.Directory. The list goes into the copy that is not in force, in chunks between
// which other calls get their turn; then its indexes are made, for each of which other writers wait about two seconds
// a million; and one small transaction puts it in force. A second call waits for the first.
// feed may call add from one goroutine at a time; an error of add must end feed.
func (l *Ledger) ReplaceDirectory(ctx context.Context, begun time.Time,
	feed func(add func(pipeline.Customer) error) error,
) error {
	select {
	case l.replacing <- struct{}{}:
		defer func() { <-l.replacing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var active int
	err := l.source.QueryRowContext(ctx, `SELECT active FROM directory_state WHERE id = 1`).Scan(&active)
	if err != nil {
		return translate(l.path, err)
	}
	staging := 1 - active
	// A reading that broke off has left its part there.
	if err := l.emptyDirectory(ctx, staging); err != nil {
		return err
	}
	if err := l.defineDirectory(ctx, dropIndexes, staging); err != nil {
		return err
	}

	chunk := make([]pipeline.Customer, 0, customersPerChunk)
	var broken error // add's own error, in case feed does not return it
	add := func(c pipeline.Customer) error {
		if broken != nil {
			return broken
		}
		if chunk = append(chunk, c); len(chunk) < customersPerChunk {
			return nil
		}
		broken = l.addCustomers(ctx, staging, chunk)
		chunk = chunk[:0]
		return broken
	}
	if err := feed(add); err != nil {
		return err
	}
	if broken != nil {
		return broken
	}
	if err := l.addCustomers(ctx, staging, chunk); err != nil {
		return err
	}
	for _, definition := range []string{indexAccounts, indexExternalIDs} {
		if err := l.defineDirectory(ctx, definition, staging); err != nil {
			return err
		}
	}
	err = l.writer.do(ctx, 1, func(t *tx) error {
		_, err := t.switchDirectory.ExecContext(t.ctx, staging, micros(begun))
		return err
	})
	if err != nil {
		return translate(l.path, err)
	}
	// The new list is in force; what becomes of the old one is only a matter of room.
	if err := l.emptyDirectory(ctx, active); err != nil {
		l.log.Warn("the earlier customer list takes up room until the next one is read", "path", l.path, "error", err)
	}
	return nil
}

func (l *Ledger) defineDirectory(ctx context.Context, definition string, which int) error {
	return translate(l.path, l.writer.do(ctx, maxGroup, func(t *tx) error {
		_, err := l.conn.ExecContext(t.ctx, fmt.Sprintf(definition, which))
		return err
	}))
}

func (l *Ledger) emptyDirectory(ctx context.Context, which int) error {
	return translate(l.path, l.writer.do(ctx, maxGroup, func(t *tx) error {
		_, err := t.clearDirectory[which].ExecContext(t.ctx)
		return err
	}))
}

func (l *Ledger) addCustomers(ctx context.Context, which int, chunk []pipeline.Customer) error {
	if len(chunk) == 0 {
		return nil
	}
	return translate(l.path, l.writer.do(ctx, len(chunk), func(t *tx) error {
		for _, c := range chunk {
			_, err := t.addCustomer[which].ExecContext(t.ctx, c.ID, c.ChainID, c.ExternalID, c.Status,
				micros(c.CreatedAt), micros(c.UpdatedAt))
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// FindCustomers implements pipeline.Directory. A customer that moved from page to page while the list was read is
// in it twice; the later entry counts. Of the copies, only the one in force answers: the state is read in the same
// statement, so that a switch cannot come between.
func (q *queries) FindCustomers(ctx context.Context, chainID, externalID string) ([]pipeline.Customer, error) {
	rows, err := q.source.QueryContext(ctx, findCustomersQuery(), chainID, externalID)
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	var found []pipeline.Customer
	at := make(map[string]int)
	for rows.Next() {
		var number int64
		var c pipeline.Customer
		var created, updated sql.NullInt64
		if err := rows.Scan(&number, &c.ID, &c.ChainID, &c.ExternalID, &c.Status, &created, &updated); err != nil {
			return nil, translate(q.path, err)
		}
		c.CreatedAt, c.UpdatedAt = fromMicros(created), fromMicros(updated)
		if i, known := at[c.ID]; known {
			found[i] = c
			continue
		}
		at[c.ID] = len(found)
		found = append(found, c)
	}
	return found, translate(q.path, rows.Err())
}

// findCustomersQuery asks both indexes of both copies; UNION leaves an entry that both indexes name once. CROSS JOIN
// has SQLite look at the state first: the copy that is being written has no indexes, and is not to be read through.
func findCustomersQuery() string {
	const arm = `SELECT d.id, d.customer_id, d.chain_id, d.external_id, d.status, d.created_at, d.updated_at
		FROM directory_state s CROSS JOIN directory_%d d WHERE s.active = %[1]d AND %s`
	byAccount, byExternalID := `lower(d.chain_id) = lower(?1)`, `d.external_id = ?2`
	return fmt.Sprintf(arm, 0, byAccount) + ` UNION ` + fmt.Sprintf(arm, 0, byExternalID) + ` UNION ` +
		fmt.Sprintf(arm, 1, byAccount) + ` UNION ` + fmt.Sprintf(arm, 1, byExternalID) + ` ORDER BY 1`
}
