package ledger

import (
	"context"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// BadEnd counts the rows that ended badly at a stage with a class.
type BadEnd struct {
	Stage    pipeline.Stage
	Class    string
	Total    int64
	Since    int64             // of Total, those that changed within the time that was asked for
	Examples []pipeline.Record // the first by file and line, those that changed within the time before the others
}

const badStages = `('conflict', 'refused', 'rejected', 'failed')`

// stillBad is the condition for rows that ended badly and are not dismissed.
const stillBad = `stage IN ` + badStages + ` AND dismissed IS NOT version`

// BadEnds counts the rows that ended badly by stage and class, but for dismissed ones, the most frequent first, with up
// to n examples of each. It reads the whole table, as Counts does.
func (q *queries) BadEnds(ctx context.Context, from, to time.Time, n int) ([]BadEnd, error) {
	const within = `(updated_at BETWEEN ? AND ?)`
	rows, err := q.source.QueryContext(ctx, `SELECT stage, class, count(*), coalesce(sum(`+within+`), 0) FROM rows
		WHERE `+stillBad+` GROUP BY stage, class ORDER BY count(*) DESC, stage, class`, micros(from), micros(to))
	if err != nil {
		return nil, translate(q.path, err)
	}
	defer rows.Close()
	type kind struct {
		stage pipeline.Stage
		class string
	}
	ends := []BadEnd{}
	at := map[kind]int{}
	for rows.Next() {
		var e BadEnd
		if err := rows.Scan(&e.Stage, &e.Class, &e.Total, &e.Since); err != nil {
			return nil, translate(q.path, err)
		}
		e.Class = printable.Line(e.Class, maxClass) // as in the records
		at[kind{e.Stage, e.Class}] = len(ends)
		ends = append(ends, e)
	}
	if err := rows.Err(); err != nil {
		return nil, translate(q.path, err)
	}
	err = q.each(ctx, recordQuery+` WHERE r.id IN (SELECT id FROM (SELECT id, row_number() OVER (
		PARTITION BY stage, class ORDER BY `+within+` DESC, file, line, id) AS nth
		FROM rows WHERE `+stillBad+`) WHERE nth <= ?) ORDER BY r.file, r.line, r.id`,
		[]any{micros(from), micros(to), n}, func(r pipeline.Record) error {
			if i, ok := at[kind{r.Stage, r.Class}]; ok { // a row may have changed between the two queries
				ends[i].Examples = append(ends[i].Examples, r)
			}
			return nil
		})
	return ends, err
}

// AtCustodian returns how many rows wait for a custodian, and up to n of them, the oldest challenge first.
func (q *queries) AtCustodian(ctx context.Context, n int) (count int64, oldest []pipeline.Record, err error) {
	const waits = `stage = 'signing' AND external_tx_id <> ''`
	if err := q.source.QueryRowContext(ctx, `SELECT count(*) FROM rows WHERE `+waits).Scan(&count); err != nil {
		return 0, nil, translate(q.path, err)
	}
	if count == 0 {
		return 0, nil, nil
	}
	err = q.each(ctx, recordQuery+` WHERE r.id IN (SELECT id FROM rows WHERE `+waits+`
		ORDER BY challenge_at, id LIMIT ?) ORDER BY r.challenge_at, r.id`, []any{n}, func(r pipeline.Record) error {
		oldest = append(oldest, r)
		return nil
	})
	return count, oldest, err
}

// UnpublishedCount counts the settled rows whose event is still to be published.
func (q *queries) UnpublishedCount(ctx context.Context) (n int64, err error) {
	err = q.source.QueryRowContext(ctx, `SELECT count(*) FROM outbox`).Scan(&n)
	return n, translate(q.path, err)
}
