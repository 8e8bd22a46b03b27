package ledger

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/purser-onboard/purser/pipeline"
)

// applyBatch applies a batch of snapshots and stores the position after it. It returns how many of them were newer than
// the row in this ledger.
func (t *tx) applyBatch(partition int, epoch int64, batch []*snapshot, next int64) (newer int, err error) {
	topic := t.changelog.Topic()
	for _, s := range batch {
		id, isNewer, err := t.applySnapshot(s)
		if err != nil {
			return 0, applyError(topic, partition, s, err)
		}
		if s.resign {
			if err := t.fencePartition(partition, epoch); err != nil {
				return 0, err
			}
			t.touched = append(t.touched, id)
		}
		if isNewer {
			newer++
		}
	}
	_, err = t.setPosition.ExecContext(t.ctx, next, topic, partition)
	return newer, err
}

func applyError(topic string, partition int, s *snapshot, err error) error {
	return fmt.Errorf("apply record of %s/%d, offset %d: %w", topic, partition, s.offset, err)
}

const rowIDQuery = `SELECT id, version FROM rows WHERE external_id = ? AND chain_id = ?`

const snapshotColumns = `external_id, chain_id, stage, class, reason, customer_id, import_id,
	file, line, claims, version, partner_status, challenge, challenge_at, external_tx_id, signature, refusals, attempts,
	already_onboarded, create_generation, submit_generation, accepted_at, updated_at`

const insertSnapshotQuery = `INSERT INTO rows (` + snapshotColumns + `)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT `

// addRowQuery inserts a row unless the ledger has the row, or another row that has its claims.
const addRowQuery = insertSnapshotQuery + `DO NOTHING`

const restoreRowQuery = insertSnapshotQuery + `(external_id, chain_id) DO UPDATE SET
	stage = excluded.stage, class = excluded.class,
	reason = excluded.reason, customer_id = excluded.customer_id, import_id = excluded.import_id, file = excluded.file,
	line = excluded.line, claims = excluded.claims, version = excluded.version,
	partner_status = excluded.partner_status, challenge = excluded.challenge, challenge_at = excluded.challenge_at,
	external_tx_id = excluded.external_tx_id, signature = excluded.signature, refusals = excluded.refusals,
	attempts = excluded.attempts, already_onboarded = excluded.already_onboarded,
	create_generation = excluded.create_generation, submit_generation = excluded.submit_generation,
	accepted_at = excluded.accepted_at, updated_at = excluded.updated_at, ` + leaveFirstPlace + `
	RETURNING id`

// applySnapshot stores a snapshot, unless the row in this ledger is newer: the record may be a late one of a consumer
// that had lost the partition, or this ledger may follow the topic for the first time. A record of the same version is
// stored, because imports and the outbox change without a new version.
func (t *tx) applySnapshot(s *snapshot) (id int64, isNewer bool, err error) {
	values := func(claims bool) []any {
		return []any{s.ExternalID, s.ChainID, s.Stage, s.Class, s.Reason, s.CustomerID, s.ImportID, s.File, s.Line,
			claims, s.Version, s.Status, s.Challenge, micros(s.ChallengeAt.time()), s.TxID, s.Signature, s.Refusals,
			s.Attempts, s.Already, nullable(s.CreateGeneration), nullable(s.SubmitGeneration), s.AcceptedAt.UnixMicro(),
			s.UpdatedAt.UnixMicro()}
	}
	id, isNewer, err = t.add(values(s.HasClaims))
	if err != nil {
		return 0, false, err
	}
	var version int64
	if !isNewer {
		err = t.rowID.QueryRowContext(t.ctx, s.ExternalID, s.ChainID).Scan(&id, &version)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return 0, false, err
		}
		if version > s.Version {
			return id, false, nil
		}
		isNewer = version < s.Version
		var claims bool
		if claims, err = t.claim(s, id); err != nil {
			return 0, false, err
		}
		if err := t.restoreRow.QueryRowContext(t.ctx, values(claims)...).Scan(&id); err != nil {
			return 0, false, err
		}
	}
	for _, k := range s.Keys {
		if err := t.restoreKey(id, k, version > 0); err != nil {
			return 0, false, err
		}
	}
	for _, use := range s.Nonces { // a nonce that another row has used here keeps its first use
		if _, err := t.storeNonce(id, use); err != nil {
			return 0, false, err
		}
	}
	for _, name := range s.Imports {
		if _, err := t.addImport.ExecContext(t.ctx, id, name); err != nil {
			return 0, false, err
		}
	}
	// The table's triggers have put a settled row into the outbox. Here the snapshot decides.
	switch {
	case s.Unpublished:
		_, err = t.addToOutbox.ExecContext(t.ctx, id, s.Version)
	case version > 0 || pipeline.Stage(s.Stage).Terminal():
		_, err = t.removeFromOutbox.ExecContext(t.ctx, id, s.Version)
	}
	return id, isNewer, err
}

// add inserts a row that the ledger does not have, in one statement. It reports false if the ledger has the row, or if
// another row claims its account or externalId.
func (t *tx) add(values []any) (id int64, isNew bool, err error) {
	result, err := t.addRow.ExecContext(t.ctx, values...)
	if err != nil {
		return 0, false, err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return 0, false, err
	}
	id, err = result.LastInsertId()
	return id, true, err
}

const externalTakenQuery = `SELECT EXISTS (SELECT 1 FROM rows WHERE external_id = ? AND claims = 1 AND chain_id <> ?)`

const releaseOtherClaimsQuery = `UPDATE rows SET claims = 0 WHERE chain_id = ? AND claims = 1 AND id <> ?`

// claim reports whether a restored row may have the claims to its account and externalId in this ledger, and then
// releases those of another row of the account: it is of the same partition, for which the ledger topic is right. A row
// of another account with the same externalId may be of another partition and keeps its claims: the partner knows which
// of the two customers exists.
func (t *tx) claim(s *snapshot, id int64) (bool, error) {
	if !s.HasClaims {
		return false, nil
	}
	var taken bool
	if err := t.externalTaken.QueryRowContext(t.ctx, s.ExternalID, s.ChainID).Scan(&taken); err != nil || taken {
		return false, err
	}
	_, err := t.releaseOtherClaims.ExecContext(t.ctx, s.ChainID, id)
	return true, err
}

const dropKeyQuery = `DELETE FROM keys WHERE row_id = ? AND operation = ? AND generation = ?
	AND (id <> ? OR digest <> ?)`

// restoreKey stores a key. It replaces another key of the same generation, which this ledger may have from a time when
// it did not follow the topic.
func (t *tx) restoreKey(id int64, k snapshotKey, known bool) error {
	if known {
		_, err := t.dropKey.ExecContext(t.ctx, id, string(k.Operation), k.Generation, k.ID.String(), k.Digest[:])
		if err != nil {
			return err
		}
	}
	return t.direct(func() error {
		_, err := t.putKey.run(t.ctx, id, string(k.Operation), int64(k.Generation), k.ID.String(), k.Digest[:],
			micros(k.FirstSent.time()), micros(k.LastSent.time()), string(k.Outcome))
		return err
	})
}

func nullable(n *int) driver.Value {
	if n == nil {
		return nil
	}
	return int64(*n)
}
