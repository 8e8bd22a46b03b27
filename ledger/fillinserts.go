package ledger

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
)

// rawInserts are the statements of a fill. They insert several rows at once.
type rawInserts struct {
	row, key, nonce, addImport, event rawInsert

	rows int64 // also the id of the latest row
}

func (r *rawInserts) all() []*rawInsert {
	return []*rawInsert{&r.row, &r.key, &r.nonce, &r.addImport, &r.event} // the row first: the others refer to it
}

func prepareInserts(conn any) (r rawInserts, err error) {
	for i, q := range []struct {
		query   string
		columns int
	}{
		{`INSERT INTO rows (id, ` + snapshotColumns + `) VALUES `, 24},
		{`INSERT INTO keys (row_id, operation, generation, id, digest, first_sent, last_sent, outcome) VALUES `, 8},
		{`INSERT INTO temp.fill_nonces (nonce, row_id, challenge) VALUES `, 3},
		{`INSERT OR IGNORE INTO row_imports (row_id, import_id) VALUES `, 2},
		{`INSERT INTO outbox (row_id, version) VALUES `, 2},
	} {
		if *r.all()[i], err = prepareInsert(conn, q.query, q.columns); err != nil {
			return r, errors.Join(err, r.close())
		}
	}
	return r, nil
}

// close may be called twice.
func (r *rawInserts) close() error {
	var errs []error
	for _, insert := range r.all() {
		errs = append(errs, insert.close())
	}
	return errors.Join(errs...)
}

// insert inserts a row that the ledger does not have, with all that belongs to it, now or with the next flush.
func (r *rawInserts) insert(ctx context.Context, s *snapshot) error {
	r.rows++
	r.row.add(r.rows, s.ExternalID, s.ChainID, s.Stage, s.Class, s.Reason, s.CustomerID, s.ImportID, s.File,
		int64(s.Line), s.HasClaims, s.Version, s.Status, s.Challenge, micros(s.ChallengeAt.time()), s.TxID, s.Signature,
		int64(s.Refusals), int64(s.Attempts), s.Already, nullable(s.CreateGeneration), nullable(s.SubmitGeneration),
		s.AcceptedAt.UnixMicro(), s.UpdatedAt.UnixMicro())
	for i := range s.Keys {
		k := &s.Keys[i]
		r.key.add(r.rows, string(k.Operation), int64(k.Generation), k.ID.String(), k.Digest[:],
			micros(k.FirstSent.time()), micros(k.LastSent.time()), string(k.Outcome))
	}
	for i := range s.Nonces {
		r.nonce.add(s.Nonces[i][:nonceHalf], r.rows, s.Nonces[i][nonceHalf:])
	}
	for _, name := range s.Imports {
		r.addImport.add(r.rows, name)
	}
	if s.Unpublished {
		r.event.add(r.rows, s.Version)
	}
	if r.rows%insertsAtOnce != 0 {
		return nil
	}
	for _, insert := range r.all() {
		if err := insert.runMany(ctx); err != nil {
			return err
		}
	}
	return nil
}

// flush inserts what waits.
func (r *rawInserts) flush(ctx context.Context) error {
	for _, insert := range r.all() {
		if err := insert.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// insertsAtOnce is how many rows an INSERT has.
const insertsAtOnce = 16

// rawInsert inserts into a table.
type rawInsert struct {
	many, one *directStatement // insertsAtOnce rows, a row
	columns   int
	waiting   []driver.Value
}

func prepareInsert(conn any, query string, columns int) (i rawInsert, err error) {
	i.columns = columns
	row := "(?" + strings.Repeat(",?", columns-1) + ")"
	if i.one, err = prepareDirect(conn, query+row, 0); err == nil {
		i.many, err = prepareDirect(conn, query+row+strings.Repeat(","+row, insertsAtOnce-1), 0)
	}
	return i, err
}

func (i *rawInsert) add(values ...driver.Value) { i.waiting = append(i.waiting, values...) }

func (i *rawInsert) runMany(ctx context.Context) error {
	done, next := 0, insertsAtOnce*i.columns
	for ; next <= len(i.waiting); done, next = next, next+insertsAtOnce*i.columns {
		if _, err := i.many.run(ctx, i.waiting[done:next]...); err != nil {
			return err
		}
	}
	i.waiting = append(i.waiting[:0], i.waiting[done:]...)
	return nil
}

func (i *rawInsert) flush(ctx context.Context) error {
	if err := i.runMany(ctx); err != nil {
		return err
	}
	for row := range slices.Chunk(i.waiting, i.columns) {
		if _, err := i.one.run(ctx, row...); err != nil {
			return err
		}
	}
	i.waiting = i.waiting[:0]
	return nil
}

func (i *rawInsert) close() error {
	return errors.Join(i.many.close(), i.one.close())
}
