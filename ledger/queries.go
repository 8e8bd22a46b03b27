package ledger

import (
	"cmp"
	"context"
	"database/sql"
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

// queries are the reading methods of Ledger and Reader. They do not wait for writes.
type queries struct {
	source source
	path   string // absolute
}

// Path returns the absolute path of the ledger's file.
func (q *queries) Path() string { return q.path }

// Environment returns the environment that the ledger is bound to.
func (q *queries) Environment(ctx context.Context) (Environment, error) {
	environment, err := readEnvironment(ctx, q.source)
	return environment, translate(q.path, err)
}

// keysQuery reads every idempotency key of a row.
const keysQuery = `SELECT operation, generation, id, digest, first_sent, last_sent, outcome
	FROM keys WHERE row_id = +? ORDER BY operation, generation`

// eachKey calls yield for every key that keysQuery found, and closes rows.
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

// Count is the number of rows with a stage and class, a line of `consumer status`.
type Count struct {
	Stage            pipeline.Stage
	Class            string // empty unless the row ended badly
	Rows             int64
	AlreadyOnboarded int64  // of Rows, those whose customer was found past initiating
	Dismissed        int64  // of Rows, those that ended badly and are dismissed
	Reason           string // of the row that changed last, as an example
}

// Counts counts the rows by stage and class, in the order of pipeline.Stages, within a stage the most frequent class
// first. It reads the whole table: about a second per million rows.
func (q *queries) Counts(ctx context.Context) ([]Count, error) {
	// With max, SQLite takes the bare columns from the row that has it (sqlite.org/lang_select.html, section 2.5).
	rows, err := q.source.QueryContext(ctx, `SELECT stage, class, count(*), total(already_onboarded),
		total(dismissed IS version), reason, max(updated_at) FROM rows GROUP BY stage, class`)
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	var counts []Count
	for rows.Next() {
		var c Count
		var already, dismissed float64
		var latest int64
		if err := rows.Scan(&c.Stage, &c.Class, &c.Rows, &already, &dismissed, &c.Reason, &latest); err != nil {
			return nil, translate(q.path, err)
		}
		c.Class, c.Reason = printable.Line(c.Class, maxClass), printable.Line(c.Reason, maxText)
		c.AlreadyOnboarded, c.Dismissed = int64(already), int64(dismissed)
		counts = append(counts, c)
	}
	if err := rows.Err(); err != nil {
		return nil, translate(q.path, err)
	}
	stages := pipeline.Stages()
	slices.SortFunc(counts, func(a, b Count) int {
		switch {
		case a.Stage != b.Stage:
			return slices.Index(stages, a.Stage) - slices.Index(stages, b.Stage)
		case a.Rows != b.Rows:
			return cmp.Compare(b.Rows, a.Rows)
		}
		return cmp.Compare(a.Class, b.Class)
	})
	return counts, nil
}

// Has reports whether the ledger has the pair of the row's account and externalId.
func (q *queries) Has(ctx context.Context, row pipeline.Row) (has bool, err error) {
	err = q.source.QueryRowContext(ctx, `SELECT EXISTS (`+rowIDQuery+`)`, row.ExternalID, row.Account.String()).Scan(&has)
	return has, translate(q.path, err)
}

// Unsettled counts the rows that are not settled. It reads the whole table, as Counts does.
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

// Failures calls yield for every row that is not onboarded, settled or not, ordered by file, line and age. Memory is
// bounded. An error of yield ends it and is returned.
func (q *queries) Failures(ctx context.Context, yield func(pipeline.Record) error) error {
	return q.each(ctx, recordQuery+` WHERE r.stage <> 'onboarded' ORDER BY r.file, r.line, r.id`, nil, yield)
}

// eachPage is how many rows Each reads at once.
const eachPage = 250

// Each calls yield for every row, oldest first, with the listed customers of its account (in any case), in the list's
// order. Memory is bounded. An error of yield ends it and is returned. yield may write to the ledger: Each reads a page
// at a time and has no transaction open between pages, so that the log can be truncated. A record is as of the time
// when its page was read.
func (q *queries) Each(
	ctx context.Context, yield func(r pipeline.Record, listed []pipeline.Customer) error,
) error {
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
		end := page[len(page)-1].ID
		listed, err := q.listed(ctx, last, end)
		if err != nil {
			return err
		}
		for _, record := range page {
			if err := yield(record, listed[record.ID]); err != nil {
				return err
			}
		}
		last = end
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
