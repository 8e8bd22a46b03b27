package ledger

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/mattn/go-sqlite3"
)

// directStatement is a prepared statement for the most frequent queries. It runs without package database/sql, as a
// query: for that the driver passes all values to SQLite and takes the first step in a single call of C. Package
// database/sql, and a call of C for each value, cost as much as SQLite itself. It may only run while the goroutine has
// the connection, that is within the function that sql.Conn.Raw calls.
type directStatement struct {
	stmt *sqlite3.SQLiteStmt
	args []driver.NamedValue
	row  []driver.Value
}

// prepareDirect prepares a statement on the connection that sql.Conn.Raw has passed. The statement returns at most one
// row, with so many columns.
func prepareDirect(conn any, query string, columns int) (*directStatement, error) {
	stmt, err := conn.(*sqlite3.SQLiteConn).Prepare(query) //nolint:forcetypeassert // it is the only driver
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	s := &directStatement{
		stmt: stmt.(*sqlite3.SQLiteStmt), //nolint:forcetypeassert // the driver has no other
		args: make([]driver.NamedValue, stmt.NumInput()),
		row:  make([]driver.Value, columns),
	}
	for n := range s.args {
		s.args[n].Ordinal = n + 1
	}
	return s, nil
}

// run runs the statement with a value for each parameter: nil, an int64, bool, string or []byte. It reports whether the
// statement has returned a row.
func (s *directStatement) run(ctx context.Context, values ...driver.Value) (returned bool, err error) {
	for n, v := range values {
		s.args[n].Value = v
	}
	rows, err := s.stmt.QueryContext(ctx, s.args)
	if err != nil {
		return false, err
	}
	err = rows.Next(s.row)
	if errors.Is(err, io.EOF) {
		return false, rows.Close()
	}
	return err == nil, errors.Join(err, rows.Close())
}

// close may be called twice, and on nil.
func (s *directStatement) close() error {
	if s == nil {
		return nil
	}
	return s.stmt.Close()
}
