package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"

	"github.com/purser-onboard/purser/pipeline"
)

// A recorded key is never deleted: if the record has none, the row keeps its key.
const updateQuery = `UPDATE rows SET version = version + 1, stage = ?, class = ?, reason = ?, customer_id = ?,
	partner_status = ?, challenge = ?, challenge_at = ?, external_tx_id = ?, signature = ?, refusals = ?, attempts = ?,
	already_onboarded = ?, create_generation = coalesce(?, create_generation),
	submit_generation = coalesce(?, submit_generation), updated_at = ?
	WHERE id = ? AND version = ? AND instr(?, ',' || stage || ',')`

const versionOfQuery = `SELECT stage, version FROM rows WHERE id = ?`

// An unchanged key is not written: most updates have a key that an earlier update has stored. A trigger of the table
// ensures that the id and payload of a key never change.
const putKeyQuery = `INSERT INTO keys (row_id, operation, generation, id, digest, first_sent, last_sent, outcome)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET id = excluded.id, digest = excluded.digest,
	first_sent = excluded.first_sent, last_sent = excluded.last_sent, outcome = excluded.outcome
	WHERE (id, digest, first_sent, last_sent, outcome) IS NOT
	(excluded.id, excluded.digest, excluded.first_sent, excluded.last_sent, excluded.outcome)`

// Update implements pipeline.Ledger. It does not store the pair, import, file, line and UpdatedAt of next: Accept sets
// import, file and line, and UpdatedAt becomes the transaction's time. A trigger (0003_outbox.sql) adds a row that
// becomes terminal to the outbox.
//
// Errors: pipeline.ErrStale, pipeline.ErrNonceUsed, pipeline.ErrFenced; others for a step that the state machine does
// not allow, such as any step of a settled row (only Accept restarts it), and for a key whose generation is recorded
// with another id or payload.
func (l *Ledger) Update(ctx context.Context, next pipeline.Record) (int64, error) {
	from := stagesBefore(next.Stage)
	challenge, signature := next.Challenge, next.Signature
	if l.dropSigned && next.Stage.Terminal() {
		challenge, signature = "", ""
	}
	err := l.writer.do(ctx, 1, func(t *tx) error {
		if t.changelog != nil { // otherwise every row is ours, and the account need not be written out
			if err := t.fence(next.Row, next.Account.String()); err != nil {
				return err
			}
		}
		t.touch(next.ID)
		updated := false
		err := t.direct(func() error {
			_, err := t.update.run(t.ctx, string(next.Stage), next.Class, next.Reason, next.CustomerID,
				next.PartnerStatus, challenge, micros(next.ChallengeAt), next.ExternalTxID, signature,
				int64(next.Refusals), int64(next.Attempts), next.AlreadyOnboarded, generation(next.CreateKey),
				generation(next.SubmitKey), t.now.UnixMicro(), next.ID, next.Version, from)
			if err != nil {
				return err
			}
			if updated, err = t.changed.run(t.ctx); err != nil || !updated {
				return err
			}
			if err := t.storeKey(next.ID, pipeline.OpCreate, next.CreateKey); err != nil {
				return err
			}
			return t.storeKey(next.ID, pipeline.OpSubmit, next.SubmitKey)
		})
		if err != nil {
			return err
		}
		if !updated {
			return t.whyNotUpdated(next)
		}
		return t.claimNonce(next)
	})
	if err != nil {
		return 0, translate(l.path, err)
	}
	return next.Version + 1, nil
}

// stagesBefore lists the stages from which an update to next is allowed, in the form that updateQuery needs. Terminal
// stages are not among them: only Accept restarts a row, because it checks the claims.
func stagesBefore(next pipeline.Stage) string {
	var b strings.Builder
	b.WriteByte(',')
	for _, stage := range pipeline.Stages() {
		if !stage.Terminal() && stage.CanBecome(next) {
			b.WriteString(string(stage))
			b.WriteByte(',')
		}
	}
	return b.String()
}

func (t *tx) whyNotUpdated(next pipeline.Record) error {
	var stage pipeline.Stage
	var version int64
	err := t.versionOf.QueryRowContext(t.ctx, next.ID).Scan(&stage, &version)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("row %d: %w", next.ID, errNotFound)
	case err != nil:
		return err
	case version != next.Version:
		return fmt.Errorf("row %d is at version %d, not %d: %w", next.ID, version, next.Version, pipeline.ErrStale)
	}
	return &stepError{ID: next.ID, From: stage, To: next.Stage}
}

// generation is NULL if the row has no such key yet.
func generation(key pipeline.Key) driver.Value {
	if key.IsZero() {
		return nil
	}
	return int64(key.Generation)
}

// storeKey may only be called by a function that direct calls.
func (t *tx) storeKey(id int64, operation pipeline.Operation, key pipeline.Key) error {
	if key.IsZero() {
		return nil
	}
	if key.Operation != operation {
		return fmt.Errorf("row %d: the %s key is of operation %q", id, operation, key.Operation)
	}
	_, err := t.putKey.run(t.ctx, id, string(operation), int64(key.Generation), key.ID.String(), key.Digest[:],
		micros(key.FirstSent), micros(key.LastSent), string(key.Outcome))
	var lite sqlite3.Error
	if errors.As(err, &lite) && lite.ExtendedCode == sqlite3.ErrConstraintTrigger {
		return &keyError{ID: id, Operation: operation, Generation: key.Generation}
	}
	return err
}

// A dismissed row whose status has changed may need work again.
const partnerStatusQuery = `UPDATE rows SET partner_status = ?, updated_at = ?, dismissed = NULL
	WHERE id = ? AND partner_status <> ?`

// SetPartnerStatuses stores the partner's statuses of rows' customers, by row id, for `consumer reconcile`: all or
// none, in a transaction. The stage, which may be terminal, and the version do not change, and nothing is written to
// the ledger topic: where the status matters, the partner is asked again. Setting the same status again changes
// nothing. A missing row is an error.
func (l *Ledger) SetPartnerStatuses(ctx context.Context, statuses map[int64]string) error {
	if len(statuses) == 0 {
		return nil
	}
	return translate(l.path, l.writer.do(ctx, len(statuses), func(t *tx) error {
		for _, id := range slices.Sorted(maps.Keys(statuses)) { // the rows of a page of the file together
			if err := t.setPartnerStatus(id, statuses[id]); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (t *tx) setPartnerStatus(id int64, status string) error {
	result, err := t.partnerStatus.ExecContext(t.ctx, status, t.now.UnixMicro(), id, status)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	var stage string
	var version int64
	err = t.versionOf.QueryRowContext(t.ctx, id).Scan(&stage, &version)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("row %d: %w", id, errNotFound)
	}
	return err
}
