package ledger

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// rawInserts are the statements of a fill. They run with the driver and insert several rows at once: package
// database/sql, and a call of C for each value, cost as much as SQLite itself.
type rawInserts struct {
	row, key, nonce, addImport, event rawInsert

	rows int64 // also the id of the latest row
}

func (r *rawInserts) all() []*rawInsert {
	return []*rawInsert{&r.row, &r.key, &r.nonce, &r.addImport, &r.event} // the row first: the others refer to it
}

func prepareInserts(conn *sqlite3.SQLiteConn) (r rawInserts, err error) {
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
		int64(s.Line), s.HasClaims, s.Version, s.Status, s.Challenge, moment(s.ChallengeAt), s.TxID, s.Signature,
		int64(s.Refusals), int64(s.Attempts), s.Already, number(s.CreateGeneration), number(s.SubmitGeneration),
		s.AcceptedAt.UnixMicro(), s.UpdatedAt.UnixMicro())
	for i := range s.Keys {
		k := &s.Keys[i]
		r.key.add(r.rows, string(k.Operation), int64(k.Generation), k.ID.String(), k.Digest[:],
			moment(k.FirstSent), moment(k.LastSent), string(k.Outcome))
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
	many, one *sqlite3.SQLiteStmt // insertsAtOnce rows, a row
	columns   int
	waiting   []driver.Value
	args      []driver.NamedValue
}

func prepareInsert(conn *sqlite3.SQLiteConn, query string, columns int) (i rawInsert, err error) {
	i = rawInsert{columns: columns, args: make([]driver.NamedValue, insertsAtOnce*columns)}
	for n := range i.args {
		i.args[n].Ordinal = n + 1
	}
	row := "(?" + strings.Repeat(",?", columns-1) + ")"
	if i.one, err = prepareRaw(conn, query+row); err == nil {
		i.many, err = prepareRaw(conn, query+row+strings.Repeat(","+row, insertsAtOnce-1))
	}
	return i, err
}

func prepareRaw(conn *sqlite3.SQLiteConn, query string) (*sqlite3.SQLiteStmt, error) {
	stmt, err := conn.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return stmt.(*sqlite3.SQLiteStmt), nil //nolint:forcetypeassert // the driver has no other
}

func (i *rawInsert) add(values ...driver.Value) { i.waiting = append(i.waiting, values...) }

func (i *rawInsert) runMany(ctx context.Context) error {
	done := 0
	for len(i.waiting)-done >= len(i.args) {
		if err := i.run(ctx, i.many, i.waiting[done:done+len(i.args)]); err != nil {
			return err
		}
		done += len(i.args)
	}
	i.waiting = append(i.waiting[:0], i.waiting[done:]...)
	return nil
}

func (i *rawInsert) flush(ctx context.Context) error {
	if err := i.runMany(ctx); err != nil {
		return err
	}
	for row := range slices.Chunk(i.waiting, i.columns) {
		if err := i.run(ctx, i.one, row); err != nil {
			return err
		}
	}
	i.waiting = i.waiting[:0]
	return nil
}

// run runs a statement as a query, for which the driver passes all values to C at once.
func (i *rawInsert) run(ctx context.Context, stmt *sqlite3.SQLiteStmt, values []driver.Value) error {
	for n, v := range values {
		i.args[n].Value = v
	}
	rows, err := stmt.QueryContext(ctx, i.args[:len(values)])
	if err != nil {
		return err
	}
	return rows.Close()
}

func (i *rawInsert) close() error {
	var errs []error
	for _, stmt := range []*sqlite3.SQLiteStmt{i.many, i.one} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	i.many, i.one = nil, nil
	return errors.Join(errs...)
}

func moment(s *stamp) driver.Value {
	if s == nil {
		return nil
	}
	return s.UnixMicro()
}

func number(n *int) driver.Value {
	if n == nil {
		return nil
	}
	return int64(*n)
}
