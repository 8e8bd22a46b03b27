package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// statements are the writer's statements, prepared once on its connection.
//
// In queries that SQLite has to plan, such as joins, a parameter is written as +?: SQLite would otherwise look at its
// value, to plan `column = 1` differently, and parse and plan the statement again in each execution, because the driver
// clears the parameters before (sqlite.org/c3ref/prepare.html, sqlite3_prepare_v2).
type statements struct {
	conn *sql.Conn

	begin, commit, rollback             *sql.Stmt
	savepoint, rollbackTo, releasePoint *sql.Stmt

	insertRow, rowByPair                         *sql.Stmt
	accountHolder, externalHolder, releaseClaims *sql.Stmt
	restart, contradict, setImport               *sql.Stmt
	importSeen, addImport                        *sql.Stmt

	update, changed, putKey                 *directStatement
	versionOf, partnerStatus                *sql.Stmt
	dropSigned                              *sql.Stmt
	putNonce, isNonceOf, noncesOfRow        *sql.Stmt
	removeFromOutbox, addToOutbox, inOutbox *sql.Stmt

	rowByID, keysOfRow, importsOfRow      *sql.Stmt
	rowID, addRow, restoreRow, dropKey    *sql.Stmt
	externalTaken, releaseOtherClaims     *sql.Stmt
	insertPosition, position, setPosition *sql.Stmt
	setMerged, resetPosition              *sql.Stmt
	changeMACKey, advancePosition         *sql.Stmt

	addCustomer, clearDirectory [2]*sql.Stmt
	switchDirectory             *sql.Stmt

	all []*sql.Stmt
}

func prepareStatements(ctx context.Context, conn *sql.Conn) (*statements, error) {
	s := &statements{conn: conn}
	all := []struct {
		into  **sql.Stmt
		query string
	}{
		{&s.begin, `BEGIN IMMEDIATE`},
		{&s.commit, `COMMIT`},
		{&s.rollback, `ROLLBACK`},
		{&s.savepoint, `SAVEPOINT operation`},
		{&s.rollbackTo, `ROLLBACK TO operation`},
		{&s.releasePoint, `RELEASE operation`},

		{&s.insertRow, insertRowQuery},
		{&s.rowByPair, recordQuery + ` WHERE r.external_id = +? AND r.chain_id = +?`},
		{&s.accountHolder, holderQuery + ` WHERE chain_id = ? AND claims = 1`},
		{&s.externalHolder, holderQuery + ` WHERE external_id = ? AND claims = 1`},
		{&s.releaseClaims, releaseClaimsQuery},
		{&s.restart, restartQuery},
		{&s.contradict, contradictQuery},
		{&s.setImport, setImportQuery},
		{&s.importSeen, importSeenQuery},
		{&s.addImport, addImportQuery},

		{&s.versionOf, versionOfQuery},
		{&s.partnerStatus, partnerStatusQuery},
		{&s.dropSigned, dropSignedQuery},
		{&s.putNonce, putNonceQuery},
		{&s.isNonceOf, isNonceOfQuery},
		{&s.noncesOfRow, noncesOfRowQuery},
		{&s.removeFromOutbox, removeFromOutboxQuery},
		{&s.addToOutbox, addToOutboxQuery},
		{&s.inOutbox, inOutboxQuery},

		{&s.rowByID, recordQuery + ` WHERE r.id = +?`},
		{&s.keysOfRow, keysQuery},
		{&s.importsOfRow, `SELECT import_id FROM row_imports WHERE row_id = +? ORDER BY import_id`},
		{&s.rowID, rowIDQuery},
		{&s.addRow, addRowQuery},
		{&s.restoreRow, restoreRowQuery},
		{&s.externalTaken, externalTakenQuery},
		{&s.releaseOtherClaims, releaseOtherClaimsQuery},
		{&s.dropKey, dropKeyQuery},
		{&s.insertPosition, insertPositionQuery},
		{&s.position, positionQuery},
		{&s.setPosition, setPositionQuery},
		{&s.setMerged, setMergedQuery},
		{&s.resetPosition, resetPositionQuery},
		{&s.changeMACKey, changeMACKeyQuery},
		{&s.advancePosition, advancePositionQuery},

		{&s.addCustomer[0], fmt.Sprintf(addCustomerQuery, 0)},
		{&s.addCustomer[1], fmt.Sprintf(addCustomerQuery, 1)},
		// Without a WHERE, SQLite frees whole pages instead of deleting row by row from every index.
		{&s.clearDirectory[0], `DELETE FROM directory_0`},
		{&s.clearDirectory[1], `DELETE FROM directory_1`},
		{&s.switchDirectory, `UPDATE directory_state SET active = ?, begun = ? WHERE id = 1`},
	}
	for _, entry := range all {
		stmt, err := conn.PrepareContext(ctx, entry.query) //nolint:sqlclosecheck // close does, for all of them
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", entry.query, err), s.close())
		}
		*entry.into = stmt
		s.all = append(s.all, stmt)
	}
	err := conn.Raw(func(conn any) error {
		for _, entry := range []struct {
			into    **directStatement
			query   string
			columns int
		}{
			{&s.update, updateQuery, 0},
			{&s.changed, `SELECT 1 WHERE changes() > 0`, 1},
			{&s.putKey, putKeyQuery, 0},
		} {
			var err error
			if *entry.into, err = prepareDirect(conn, entry.query, entry.columns); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close must run before the connection is closed: SQLite keeps a connection open as long as it has statements.
func (s *statements) close() error {
	errs := []error{s.direct(func() error {
		return errors.Join(s.update.close(), s.changed.close(), s.putKey.close())
	})}
	for _, stmt := range s.all {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}

// direct calls run, which may use the directStatements and nothing else of the connection.
func (s *statements) direct(run func() error) error {
	return s.conn.Raw(func(any) error { return run() })
}
