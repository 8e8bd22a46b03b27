package ledger

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// recordQuery reads a whole record: the row and the current key of each operation.
const recordQuery = `SELECT r.id, r.version, r.stage, r.external_id, r.chain_id, r.import_id, r.file, r.line,
	r.customer_id, r.partner_status, r.challenge, r.challenge_at, r.external_tx_id, r.signature, r.refusals,
	r.attempts, r.already_onboarded, r.class, r.reason, r.accepted_at, r.updated_at, r.claims,
	coalesce(r.first_file, r.file), coalesce(r.first_line, r.line), r.dismissed IS r.version,
	c.generation, c.id, c.digest, c.first_sent, c.last_sent, c.outcome,
	s.generation, s.id, s.digest, s.first_sent, s.last_sent, s.outcome
	FROM rows r
	LEFT JOIN keys c ON c.row_id = r.id AND c.operation = 'create' AND c.generation = r.create_generation
	LEFT JOIN keys s ON s.row_id = r.id AND s.operation = 'submit' AND s.generation = r.submit_generation`

// scanner is *sql.Row or *sql.Rows.
type scanner interface {
	Scan(dest ...any) error
}

// scanRecord reads a row of recordQuery; hasClaims reports whether it claims its account and externalId.
func scanRecord(row scanner) (r pipeline.Record, hasClaims bool, err error) {
	var chainID string
	var challengeAt sql.NullInt64
	var acceptedAt, updatedAt int64
	var create, submit scannedKey
	err = row.Scan(&r.ID, &r.Version, &r.Stage, &r.ExternalID, &chainID, &r.ImportID, &r.File, &r.Line,
		&r.CustomerID, &r.PartnerStatus, &r.Challenge, &challengeAt, &r.ExternalTxID, &r.Signature, &r.Refusals,
		&r.Attempts, &r.AlreadyOnboarded, &r.Class, &r.Reason, &acceptedAt, &updatedAt, &hasClaims,
		&r.FirstFile, &r.FirstLine, &r.Dismissed,
		&create.generation, &create.id, &create.digest, &create.firstSent, &create.lastSent, &create.outcome,
		&submit.generation, &submit.id, &submit.digest, &submit.firstSent, &submit.lastSent, &submit.outcome)
	if err != nil {
		return r, false, err
	}
	if _, err := pipeline.ParseStage(string(r.Stage)); err != nil {
		return r, false, fmt.Errorf("ledger row %d: %w", r.ID, err)
	}
	if r.Account, err = pipeline.ParseAccount(chainID); err != nil {
		return r, false, fmt.Errorf("ledger row %d: account %q: %w", r.ID, chainID, err)
	}
	// Another version of the program may have stored unprintable text.
	r.Class, r.Reason = printable.Line(r.Class, maxClass), printable.Line(r.Reason, maxText)
	r.File, r.FirstFile = printable.Line(r.File, pipeline.MaxFile), printable.Line(r.FirstFile, pipeline.MaxFile)
	r.ChallengeAt = fromMicros(challengeAt)
	r.AcceptedAt = time.UnixMicro(acceptedAt).UTC()
	r.UpdatedAt = time.UnixMicro(updatedAt).UTC()
	if r.CreateKey, err = create.key(pipeline.OpCreate); err != nil {
		return r, false, fmt.Errorf("ledger row %d: %w", r.ID, err)
	}
	if r.SubmitKey, err = submit.key(pipeline.OpSubmit); err != nil {
		return r, false, fmt.Errorf("ledger row %d: %w", r.ID, err)
	}
	return r, hasClaims, nil
}

// scannedKey is a key from an outer join: all NULL if there is no key.
type scannedKey struct {
	generation          sql.NullInt64
	id, outcome         sql.NullString
	digest              []byte
	firstSent, lastSent sql.NullInt64
}

func (k scannedKey) key(operation pipeline.Operation) (pipeline.Key, error) {
	if !k.id.Valid {
		return pipeline.Key{}, nil
	}
	id, err := uuid.Parse(k.id.String)
	if err != nil {
		return pipeline.Key{}, fmt.Errorf("%s key %q: %w", operation, k.id.String, err)
	}
	key := pipeline.Key{
		Operation:  operation,
		Generation: int(k.generation.Int64),
		ID:         id,
		FirstSent:  fromMicros(k.firstSent),
		LastSent:   fromMicros(k.lastSent),
		Outcome:    pipeline.KeyState(k.outcome.String),
	}
	copy(key.Digest[:], k.digest)
	return key, nil
}

// micros converts a time to its stored form: microseconds since 1970, NULL for the zero time.
func micros(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func fromMicros(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}
