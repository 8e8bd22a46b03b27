package ledger

import (
	"crypto/sha256"
	"fmt"

	"github.com/purser-onboard/purser/pipeline"
)

// nonceUse is a nonce and the challenge that used it, each as the first 16 bytes of its SHA-256.
type nonceUse = hexDigest

const nonceHalf = len(nonceUse{}) / 2

func nonceUseOf(nonce, challenge string) (use nonceUse) {
	n, c := sha256.Sum256([]byte(nonce)), sha256.Sum256([]byte(challenge))
	copy(use[:nonceHalf], n[:])
	copy(use[nonceHalf:], c[:])
	return use
}

const putNonceQuery = `INSERT INTO nonces (nonce, row_id, challenge) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`

const isNonceOfQuery = `SELECT EXISTS (SELECT 1 FROM nonces WHERE nonce = ? AND row_id = ? AND challenge = ?)`

const noncesOfRowQuery = `SELECT nonce, challenge FROM nonces WHERE row_id = +? ORDER BY nonce`

// claimNonce records the nonce of a row's challenge. Recording the same challenge of the same row again is not an
// error; another challenge with the same nonce is pipeline.ErrNonceUsed.
func (t *tx) claimNonce(next pipeline.Record) error {
	if next.Nonce == "" {
		return nil
	}
	use := nonceUseOf(next.Nonce, next.Challenge)
	isNew, err := t.storeNonce(next.ID, use)
	if err != nil || isNew {
		return err
	}
	var same bool
	err = t.isNonceOf.QueryRowContext(t.ctx, use[:nonceHalf], next.ID, use[nonceHalf:]).Scan(&same)
	if err == nil && !same {
		err = fmt.Errorf("row %d: %w", next.ID, pipeline.ErrNonceUsed)
	}
	return err
}

// storeNonce stores the use of a nonce and reports whether the nonce is new.
func (t *tx) storeNonce(id int64, use nonceUse) (isNew bool, err error) {
	result, err := t.putNonce.ExecContext(t.ctx, use[:nonceHalf], id, use[nonceHalf:])
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// noncesOf reads the nonces of all challenges of a row.
func (t *tx) noncesOf(id int64) (uses []nonceUse, err error) {
	rows, err := t.noncesOfRow.QueryContext(t.ctx, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var nonce, challenge []byte
		if err := rows.Scan(&nonce, &challenge); err != nil {
			return nil, err
		}
		var use nonceUse
		copy(use[:nonceHalf], nonce)
		copy(use[nonceHalf:], challenge)
		uses = append(uses, use)
	}
	return uses, rows.Err()
}
