package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/purser-onboard/purser/pipeline"
)

// A row is dismissed as long as it has the version that it had then.
const dismissQuery = `UPDATE rows SET dismissed = version
	WHERE external_id = ? AND chain_id = ? AND stage IN ` + badStages

const undismissQuery = `UPDATE rows SET dismissed = NULL
	WHERE external_id = ? AND chain_id = ? AND dismissed = version`

// Dismiss marks rows that ended badly as dealt with: BadEnds and StillBad leave them out. The mark is in this ledger
// only, not in the ledger topic, and ends with the next change of the row: a new import restarts it, or
// SetPartnerStatuses changes its status. undo removes the mark. Only account and externalId of the rows are used.
//
// All changes are made in a transaction. problems has an entry for each row: nil, or why the row was not changed: it is
// not in the ledger, is onboarded or not settled; with undo, it is not dismissed.
func (l *Ledger) Dismiss(ctx context.Context, rows []pipeline.Row, undo bool) (problems []error, err error) {
	query := dismissQuery
	if undo {
		query = undismissQuery
	}
	err = l.writer.do(ctx, len(rows), func(t *tx) error {
		problems = make([]error, len(rows)) // this function may run twice
		for i, row := range rows {
			result, err := t.conn.ExecContext(t.ctx, query, row.ExternalID, row.Account.String())
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			if err == nil && n == 0 {
				problems[i], err = t.whyNotDismissed(row)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return problems, translate(l.path, err)
}

func (t *tx) whyNotDismissed(row pipeline.Row) (problem, err error) {
	var stage pipeline.Stage
	err = t.conn.QueryRowContext(t.ctx, `SELECT stage FROM rows WHERE external_id = ? AND chain_id = ?`,
		row.ExternalID, row.Account.String()).Scan(&stage)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errors.New("the row is not in the ledger"), nil
	case err != nil:
		return nil, err
	case !stage.Terminal():
		return fmt.Errorf("the row is not settled: it is %s", stage), nil
	case stage == pipeline.Onboarded:
		return errors.New("the row is onboarded"), nil
	}
	return errors.New("the row is not dismissed"), nil
}
