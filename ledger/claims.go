package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

const holderQuery = `SELECT id, external_id, chain_id, stage, customer_id, import_id, file, line,
	(SELECT max(k.first_sent) FROM keys k WHERE k.row_id = rows.id AND k.operation = 'create' AND k.outcome = 'open')
	FROM rows`

// maxOpenCreation is how long an unanswered creation may still turn out to have succeeded: twice the lifetime of its
// key at the partner.
const maxOpenCreation = 2 * time.Hour

const releaseClaimsQuery = `UPDATE rows SET claims = 0, version = version + 1, updated_at = ? WHERE id = ?`

// claimHolder is a row that claims the account or externalId of another row.
type claimHolder struct {
	pipeline.Row
	id         int64
	chainID    string
	stage      pipeline.Stage
	customerID string
	open       time.Time // first use of the latest unanswered create key; zero if there is none
}

// mayLoseClaim reports whether the holder's claims may pass to another row: the holder ended without a customer, and
// the other row is of another import, so the export was corrected. Two contradicting rows of the same import are an
// error in the export, and the first keeps its claims. An unanswered creation may have created a customer, so its row
// keeps its claims for maxOpenCreation.
func (h claimHolder) mayLoseClaim(to pipeline.Row, now time.Time) bool {
	return (h.stage == pipeline.Failed || h.stage == pipeline.Conflict) &&
		h.customerID == "" && h.ImportID != to.ImportID && (h.open.IsZero() || now.Sub(h.open) > maxOpenCreation)
}

// takeClaims releases the claims of other rows on the row's account and externalId, in any Unicode form. If one of them
// may not be released, it releases none and returns the reason of the contradiction. self is the row's own id, 0 for a
// new row.
func (t *tx) takeClaims(it item, self int64) (reason string, err error) {
	account, err := t.readHolder(t.accountHolder.QueryRowContext(t.ctx, it.chainID))
	if err != nil {
		return "", err
	}
	external, err := t.readHolder(t.externalHolder.QueryRowContext(t.ctx, it.row.ExternalID))
	if err != nil {
		return "", err
	}
	found := []claimHolder{account, external}
	for _, form := range pipeline.OtherForms(it.row.ExternalID) {
		h, err := t.readHolder(t.externalHolder.QueryRowContext(t.ctx, form))
		if err != nil {
			return "", err
		}
		found = append(found, h)
	}
	holders := make([]claimHolder, 0, len(found))
	for _, h := range found {
		known := func(other claimHolder) bool { return other.id == h.id }
		if h.id == 0 || h.id == self || slices.ContainsFunc(holders, known) {
			continue
		}
		if !h.mayLoseClaim(it.row, t.now) {
			return contradiction(it, h), nil
		}
		holders = append(holders, h)
	}
	for _, h := range holders {
		if _, err := t.releaseClaims.ExecContext(t.ctx, t.now.UnixMicro(), h.id); err != nil {
			return "", err
		}
		if t.owns(h.chainID) { // otherwise this ledger's record of the holder may be old
			t.touch(h.id)
		}
	}
	return "", nil
}

// readHolder reads a holder; its id is 0 if there is none.
func (t *tx) readHolder(row *sql.Row) (claimHolder, error) {
	var h claimHolder
	var open sql.NullInt64
	err := row.Scan(&h.id, &h.ExternalID, &h.chainID, &h.stage, &h.customerID, &h.ImportID, &h.File, &h.Line, &open)
	h.open = fromMicros(open)
	if errors.Is(err, sql.ErrNoRows) {
		return claimHolder{}, nil
	}
	return h, err
}

// contradiction returns the reason of a conflict, which names the row that has the claim. A line of another import is
// called so: the file may have changed since, and have another row there.
func contradiction(it item, h claimHolder) string {
	where := h.Where()
	if h.ImportID != it.row.ImportID {
		where += " of another import"
	}
	if h.chainID == it.chainID {
		return fmt.Sprintf("%s has the same account with externalId %s", where, h.ExternalID)
	}
	if h.ExternalID != it.row.ExternalID {
		return fmt.Sprintf("%s has the same externalId in another Unicode form (NFC or NFD) with account %s",
			where, h.chainID)
	}
	return fmt.Sprintf("%s has the same externalId with account %s", where, h.chainID)
}

// isSpelledOtherwise reports whether a row has the externalId in another Unicode form. No unique index knows.
func (t *tx) isSpelledOtherwise(it item) (bool, error) {
	for _, form := range pipeline.OtherForms(it.row.ExternalID) {
		if h, err := t.readHolder(t.externalHolder.QueryRowContext(t.ctx, form)); err != nil || h.id != 0 {
			return err == nil, err
		}
	}
	return false, nil
}
