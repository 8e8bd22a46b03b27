package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// source is a pool of connections, one connection, or a transaction.
type source interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// queries is what can be asked of a ledger. None of it waits for a writer.
type queries struct {
	source source
	path   string // absolute
}

// Path is the ledger's file, as an absolute path.
func (q *queries) Path() string { return q.path }

// Environment is what the ledger is bound to.
func (q *queries) Environment(ctx context.Context) (Environment, error) {
	environment, err := readEnvironment(ctx, q.source)
	return environment, translate(q.path, err)
}

// Get returns the row with that CAIP-10 account id (EIP-55 form) and externalId; ErrNotFound when there is none.
func (q *queries) Get(ctx context.Context, chainID, externalID string) (pipeline.Record, error) {
	record, _, err := scanRecord(q.source.QueryRowContext(ctx,
		recordQuery+` WHERE r.external_id = ? AND r.chain_id = ?`, externalID, chainID))
	if errors.Is(err, sql.ErrNoRows) {
		return pipeline.Record{}, fmt.Errorf("%s with externalId %s: %w", chainID, externalID, ErrNotFound)
	}
	return record, translate(q.path, err)
}

// FindAccount returns every row with that CAIP-10 account id (EIP-55 form): the one that claims it first, then those
// that contradict it, oldest first.
func (q *queries) FindAccount(ctx context.Context, chainID string) ([]pipeline.Record, error) {
	var found []pipeline.Record
	for _, claims := range []string{"1", "0"} { // each has its own index
		err := q.each(ctx, recordQuery+` WHERE r.chain_id = ? AND r.claims = `+claims+` ORDER BY r.id`,
			[]any{chainID}, func(r pipeline.Record) error {
				found = append(found, r)
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Keys returns every idempotency key recorded for the row, by operation and generation.
func (q *queries) Keys(ctx context.Context, id int64) ([]pipeline.Key, error) {
	rows, err := q.source.QueryContext(ctx, keysQuery, id)
	if err != nil {
		return nil, translate(q.path, err)
	}
	var keys []pipeline.Key
	if err := eachKey(rows, func(k pipeline.Key) { keys = append(keys, k) }); err != nil {
		return nil, translate(q.path, fmt.Errorf("ledger row %d: %w", id, err))
	}
	return keys, nil
}

// keysQuery reads every key of a row.
const keysQuery = `SELECT operation, generation, id, digest, first_sent, last_sent, outcome
	FROM keys WHERE row_id = ? ORDER BY operation, generation`

// eachKey hands over what keysQuery found, and closes it.
func eachKey(rows *sql.Rows, yield func(pipeline.Key)) error {
	defer rows.Close()
	for rows.Next() {
		var key pipeline.Key
		var text string
		var digest []byte
		var first, last sql.NullInt64
		if err := rows.Scan(&key.Operation, &key.Generation, &text, &digest, &first, &last, &key.Outcome); err != nil {
			return err
		}
		var err error
		if key.ID, err = uuid.Parse(text); err != nil {
			return fmt.Errorf("%s key %q: %w", key.Operation, text, err)
		}
		copy(key.Digest[:], digest)
		key.FirstSent, key.LastSent = fromMicros(first), fromMicros(last)
		yield(key)
	}
	return rows.Err()
}

// Count is a line of `consumer status`.
type Count struct {
	Stage            pipeline.Stage
	Class            string // kind of the bad end; empty otherwise
	Rows             int64
	AlreadyOnboarded int64  // of Rows, those whose customer was found past initiating
	Reason           string // of the row that changed last, as an example
}

// Counts counts the rows by stage and class, in the order of the road and then the most frequent class first. It reads
// the whole table: about a second per million rows.
func (q *queries) Counts(ctx context.Context) ([]Count, error) {
	// With max, SQLite takes the bare columns from the row that has it (sqlite.org/lang_select.html, section 2.5).
	rows, err := q.source.QueryContext(ctx, `SELECT stage, class, count(*), total(already_onboarded),
		reason, max(updated_at) FROM rows GROUP BY stage, class`)
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	var counts []Count
	for rows.Next() {
		var c Count
		var already float64
		var latest int64
		if err := rows.Scan(&c.Stage, &c.Class, &c.Rows, &already, &c.Reason, &latest); err != nil {
			return nil, translate(q.path, err)
		}
		c.Class, c.Reason = printable.Line(c.Class, maxClass), printable.Line(c.Reason, maxText)
		c.AlreadyOnboarded = int64(already)
		counts = append(counts, c)
	}
	if err := rows.Err(); err != nil {
		return nil, translate(q.path, err)
	}
	road := pipeline.Stages()
	slices.SortFunc(counts, func(a, b Count) int {
		switch {
		case a.Stage != b.Stage:
			return slices.Index(road, a.Stage) - slices.Index(road, b.Stage)
		case a.Rows != b.Rows:
			return int(min(max(b.Rows-a.Rows, -1), 1))
		}
		return strings.Compare(a.Class, b.Class)
	})
	return counts, nil
}

// Unsettled counts the rows that have not come to an end. It reads the whole table, as Counts does.
func (q *queries) Unsettled(ctx context.Context) (n int64, err error) {
	var terminal []any
	for _, stage := range pipeline.Stages() {
		if stage.Terminal() {
			terminal = append(terminal, stage)
		}
	}
	marks := strings.TrimSuffix(strings.Repeat("?,", len(terminal)), ",")
	err = q.source.QueryRowContext(ctx, `SELECT count(*) FROM rows WHERE stage NOT IN (`+marks+`)`, terminal...).Scan(&n)
	return n, translate(q.path, err)
}

// Failures hands over every row that is not onboarded, settled or not, by file, line and age. Memory is bounded. An
// error of yield stops it and is returned.
func (q *queries) Failures(ctx context.Context, yield func(pipeline.Record) error) error {
	return q.each(ctx, recordQuery+` WHERE r.stage <> 'onboarded' ORDER BY r.file, r.line, r.id`, nil, yield)
}

// eachPage is how many rows Each reads at once.
const eachPage = 1000

// Each hands over every row, oldest first. Memory is bounded. An error of yield stops it and is returned. yield may
// write to the ledger: Each reads page by page and keeps no transaction open between pages, so that the log does not
// grow behind it; a row is handed over as it is when its page is read.
func (q *queries) Each(ctx context.Context, yield func(pipeline.Record) error) error {
	page := make([]pipeline.Record, 0, eachPage)
	for last := int64(0); ; {
		page = page[:0]
		err := q.each(ctx, recordQuery+` WHERE r.id > ? ORDER BY r.id LIMIT ?`, []any{last, eachPage},
			func(r pipeline.Record) error {
				page = append(page, r)
				return nil
			})
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		for _, record := range page {
			if err := yield(record); err != nil {
				return err
			}
		}
		last = page[len(page)-1].ID
	}
}

func (q *queries) each(ctx context.Context, query string, args []any, yield func(pipeline.Record) error) error {
	rows, err := q.source.QueryContext(ctx, query, args...)
	if err != nil {
		return translate(q.path, err)
	}
	defer rows.Close()
	for rows.Next() {
		record, _, err := scanRecord(rows)
		if err != nil {
			return translate(q.path, err)
		}
		if err := yield(record); err != nil {
			return err
		}
	}
	return translate(q.path, rows.Err())
}
