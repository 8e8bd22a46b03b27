package ledger

import (
	"context"
	"fmt"
)

// signedSettled selects the settled rows that still have a challenge or signature. It is also the condition of an
// index, which SQLite uses only for queries with the same terms.
const signedSettled = `stage IN ('onboarded', 'conflict', 'refused', 'rejected', 'failed') AND ` +
	`(challenge <> '' OR signature <> '')`

// signedIndexQuery creates the index of the rows that DropSigned still has to change. It is empty once DropSigned is
// done, so opening the ledger then reads no table, and DropSigned needs no position of its own.
const signedIndexQuery = `CREATE INDEX IF NOT EXISTS rows_signed ON rows (id) WHERE ` + signedSettled

const signedRowsQuery = `SELECT id, chain_id FROM rows INDEXED BY rows_signed WHERE ` + signedSettled +
	` AND id > ? ORDER BY id LIMIT ?`

// The version stays: it guards what a worker computes, and a settled row has no worker.
const dropSignedQuery = `UPDATE rows SET challenge = '', signature = '' WHERE id = ? AND ` + signedSettled

// dropBatch is how many rows DropSigned changes in a transaction. The rows of a run wait for a single batch at most.
const dropBatch = 500

// DropSigned deletes challenge and signature of the rows that were settled before the ledger was opened with
// Options.DropSigned, and returns the number of these rows. It works in batches, between which other calls can write.
// With a ledger topic it changes only rows of partitions that are ours and restored: call it again after a Restore. If
// interrupted, the next call continues.
func (l *Ledger) DropSigned(ctx context.Context) (dropped int, err error) {
	if !l.dropSigned {
		return 0, nil
	}
	for last := int64(0); ; {
		batch, err := l.signedAfter(ctx, last)
		if err != nil || len(batch) == 0 {
			return dropped, translate(l.path, err)
		}
		n, err := l.dropSignedOf(ctx, batch)
		if dropped += n; err != nil {
			return dropped, translate(l.path, err)
		}
		last = batch[len(batch)-1].id
	}
}

// signedRow is a settled row that still has a challenge or signature.
type signedRow struct {
	id      int64
	account string
}

// signedAfter reads the next batch of rows, those with an id above last.
func (l *Ledger) signedAfter(ctx context.Context, last int64) (batch []signedRow, err error) {
	rows, err := l.source.QueryContext(ctx, signedRowsQuery, last, dropBatch)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r signedRow
		if err := rows.Scan(&r.id, &r.account); err != nil {
			return nil, err
		}
		batch = append(batch, r)
	}
	return batch, rows.Err()
}

func (l *Ledger) dropSignedOf(ctx context.Context, batch []signedRow) (dropped int, err error) {
	err = l.writer.do(ctx, len(batch), func(t *tx) error {
		dropped = 0 // this function may run twice
		for _, r := range batch {
			if !t.owns(r.account) {
				continue
			}
			result, err := t.dropSigned.ExecContext(t.ctx, r.id)
			if err != nil {
				return fmt.Errorf("drop challenge and signature of row %d: %w", r.id, err)
			}
			n, err := result.RowsAffected()
			if err != nil {
				return err
			}
			if n > 0 { // 0 if a new import has just restarted the row
				dropped++
				t.touch(r.id)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return dropped, nil
}

// maxRewrite is the size of a ledger in bytes up to which overwriteGaps rewrites it: a second of work, about 49,000
// rows.
const maxRewrite = 64 << 20

// overwriteGaps rewrites a small ledger. Secure delete overwrites what is deleted, but when SQLite balances pages, the
// unused part of a page can keep a copy of a row as it was; only a page that is written from the start has none. A
// larger ledger is left as it is, which docs/ledger.md says.
func (l *Ledger) overwriteGaps(ctx context.Context) {
	var pages, size int64
	err := l.conn.QueryRowContext(ctx, `SELECT page_count, page_size FROM pragma_page_count, pragma_page_size`).
		Scan(&pages, &size)
	if err == nil && pages*size <= maxRewrite {
		_, err = l.conn.ExecContext(ctx, `VACUUM`)
	}
	if err != nil {
		l.log.Warn("the ledger could not be rewritten: unused parts of its pages may still hold challenges and signatures",
			"path", l.path, "error", err)
	}
}
