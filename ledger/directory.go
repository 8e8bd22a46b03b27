package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// customersPerChunk is how many customers of the partner's list are written in a transaction: enough to share the
// fsync, few enough that a waiting update of a worker is delayed by milliseconds only.
const customersPerChunk = 500

const addCustomerQuery = `INSERT INTO directory_%d (customer_id, chain_id, external_id, status, created_at, updated_at)
	VALUES (?, ?, ?, ?, ?, ?)`

// DirectoryAsOf returns the time at which reading of the stored customer list began; zero if there is no list.
func (q *queries) DirectoryAsOf(ctx context.Context) (time.Time, error) {
	var begun sql.NullInt64
	err := q.source.QueryRowContext(ctx, `SELECT begun FROM directory_state WHERE id = 1`).Scan(&begun)
	return fromMicros(begun), translate(q.path, err)
}

// The indexes of a copy are created when it is complete. Customers come in no order: inserting them into existing
// indexes would write 17 GB for a million customers instead of 0.6 GB.
const (
	dropIndexes = `DROP INDEX IF EXISTS directory_%[1]d_chain_id;
		DROP INDEX IF EXISTS directory_%[1]d_external_id`
	indexAccounts    = `CREATE INDEX directory_%[1]d_chain_id ON directory_%[1]d (lower(chain_id))`
	indexExternalIDs = `CREATE INDEX directory_%[1]d_external_id ON directory_%[1]d (external_id)`
)

// ReplaceDirectory implements pipeline.Directory. It writes the list to the inactive copy, in chunks between which
// other calls can write, then creates the copy's indexes, during each of which other writers wait about two seconds per
// million customers, and activates the copy in a short transaction. A second call waits for the first. feed must not
// call add concurrently and must return if add returns an error.
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
	// An interrupted call has left a part of its list there.
	if err := l.emptyDirectory(ctx, staging); err != nil {
		return err
	}
	if err := l.defineDirectory(ctx, dropIndexes, staging); err != nil {
		return err
	}

	chunk := make([]pipeline.Customer, 0, customersPerChunk)
	var addErr error // in case feed does not return it
	add := func(c pipeline.Customer) error {
		if addErr != nil {
			return addErr
		}
		if chunk = append(chunk, c); len(chunk) < customersPerChunk {
			return nil
		}
		addErr = l.addCustomers(ctx, staging, chunk)
		chunk = chunk[:0]
		return addErr
	}
	if err := feed(add); err != nil {
		return err
	}
	if addErr != nil {
		return addErr
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
	// The new list is active. The old copy only takes up disk space.
	if err := l.emptyDirectory(ctx, active); err != nil {
		l.log.Warn("cannot delete the earlier customer list; the next read of the list will", "path", l.path, "error", err)
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

// FindCustomers implements pipeline.Directory. A customer that moved between pages while the list was read is listed
// twice; the later entry counts. The statement also reads which copy is active, so that a concurrent switch is
// harmless.
func (q *queries) FindCustomers(ctx context.Context, chainID, externalID string) ([]pipeline.Customer, error) {
	rows, err := q.source.QueryContext(ctx, findCustomersQuery(), chainID, externalID)
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	var found []pipeline.Customer
	at := make(map[string]int)
	for rows.Next() {
		var place int64
		c, err := scanCustomer(rows, &place)
		if err != nil {
			return nil, translate(q.path, err)
		}
		if i, known := at[c.ID]; known {
			found[i] = c
			continue
		}
		at[c.ID] = len(found)
		found = append(found, c)
	}
	return found, translate(q.path, rows.Err())
}

const customerColumns = `d.customer_id, d.chain_id, d.external_id, d.status, d.created_at, d.updated_at`

// scanCustomer reads the columns before customerColumns into first.
func scanCustomer(rows scanner, first ...any) (c pipeline.Customer, err error) {
	var created, updated sql.NullInt64
	err = rows.Scan(append(first, &c.ID, &c.ChainID, &c.ExternalID, &c.Status, &created, &updated)...)
	c.CreatedAt, c.UpdatedAt = fromMicros(created), fromMicros(updated)
	return c, err
}

// findCustomersQuery searches both indexes of both copies; UNION removes duplicates. CROSS JOIN makes SQLite read the
// state first, so that it does not scan the inactive copy, which may have no indexes.
func findCustomersQuery() string {
	const arm = `SELECT d.id, ` + customerColumns + `
		FROM directory_state s CROSS JOIN directory_%d d WHERE s.active = %[1]d AND %s`
	byAccount, byExternalID := `lower(d.chain_id) = lower(?1)`, `d.external_id = +?2`
	return fmt.Sprintf(arm, 0, byAccount) + ` UNION ` + fmt.Sprintf(arm, 0, byExternalID) + ` UNION ` +
		fmt.Sprintf(arm, 1, byAccount) + ` UNION ` + fmt.Sprintf(arm, 1, byExternalID) + ` ORDER BY 1`
}

// listed returns the listed customers of the accounts of the rows with ids above after up to last, by row id. A
// statement for each row would take three times as long as reading the list.
func (q *queries) listed(ctx context.Context, after, last int64) (map[int64][]pipeline.Customer, error) {
	const arm = `SELECT r.id, d.id, ` + customerColumns + `
		FROM directory_state s CROSS JOIN rows r CROSS JOIN directory_%d d WHERE s.active = %[1]d
		AND r.id > ?1 AND r.id <= ?2 AND lower(d.chain_id) = lower(r.chain_id)`
	rows, err := q.source.QueryContext(ctx, fmt.Sprintf(arm, 0)+` UNION ALL `+fmt.Sprintf(arm, 1)+` ORDER BY 1, 2`,
		after, last)
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	found := make(map[int64][]pipeline.Customer)
	for rows.Next() {
		var id, place int64
		c, err := scanCustomer(rows, &id, &place)
		if err != nil {
			return nil, translate(q.path, err)
		}
		found[id] = append(found[id], c)
	}
	return found, translate(q.path, rows.Err())
}
