package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

const holderQuery = `SELECT id, external_id, chain_id, stage, customer_id, import_id, file, line,
	(SELECT max(k.first_sent) FROM keys k WHERE k.row_id = rows.id AND k.operation = 'create' AND k.outcome = 'open')
	FROM rows`

// openFor is how long an unanswered creation is taken for one that may still come true: twice as long as the partner
// honours its key.
const openFor = 2 * time.Hour

const yieldQuery = `UPDATE rows SET claims = 0, version = version + 1, updated_at = ? WHERE id = ?`

// holder is a row that claims what another one wants.
type holder struct {
	pipeline.Row
	id         int64
	chainID    string
	stage      pipeline.Stage
	customerID string
	open       time.Time // first use of a create key that was never answered; zero: there is none
}

// givesWay reports whether the holder's claim is worth nothing any more: the row ended without a customer, and another
// import states its account or externalId differently, so the export was corrected. Within one import two rows that
// contradict each other are a fault of the export, and the first is kept. A creation without an answer may have made a
// customer after all, so its row keeps its claim until that can no longer be.
func (h holder) givesWay(to pipeline.Row, now time.Time) bool {
	return (h.stage == pipeline.Failed || h.stage == pipeline.Conflict) &&
		h.customerID == "" && h.ImportID != to.ImportID && (h.open.IsZero() || now.Sub(h.open) > openFor)
}

// claim frees the row's account and externalId for it. If one of them is claimed for good, nothing is freed and the
// answer is the reason of the contradiction. self is the row's own id, 0 when it has none.
func (t *tx) claim(it item, self int64) (against string, err error) {
	account, err := t.holder(t.accountHolder.QueryRowContext(t.ctx, it.chainID))
	if err != nil {
		return "", err
	}
	external, err := t.holder(t.externalHolder.QueryRowContext(t.ctx, it.row.ExternalID))
	if err != nil {
		return "", err
	}
	holders := make([]holder, 0, 2)
	for _, h := range []holder{account, external} {
		if h.id == 0 || h.id == self || len(holders) == 1 && holders[0].id == h.id {
			continue
		}
		if !h.givesWay(it.row, t.now) {
			return contradiction(it, h), nil
		}
		holders = append(holders, h)
	}
	for _, h := range holders {
		if _, err := t.yield.ExecContext(t.ctx, t.now.UnixMicro(), h.id); err != nil {
			return "", err
		}
		if t.holds(h.chainID) { // or what is here of it may be old
			t.touch(h.id)
		}
	}
	return "", nil
}

// holder reads a holder; its id is 0 when there is none.
func (t *tx) holder(row *sql.Row) (holder, error) {
	var h holder
	var open sql.NullInt64
	err := row.Scan(&h.id, &h.ExternalID, &h.chainID, &h.stage, &h.customerID, &h.ImportID, &h.File, &h.Line, &open)
	h.open = fromMicros(open)
	if errors.Is(err, sql.ErrNoRows) {
		return holder{}, nil
	}
	return h, err
}

// contradiction names the row that was first.
func contradiction(it item, h holder) string {
	if h.chainID == it.chainID {
		return fmt.Sprintf("%s has the same account with externalId %s", h.Where(), h.ExternalID)
	}
	return fmt.Sprintf("%s has the same externalId with account %s", h.Where(), h.chainID)
}
