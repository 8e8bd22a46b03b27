package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// statements are what the writer runs, prepared once on its connection.
type statements struct {
	begin, commit, rollback             *sql.Stmt
	savepoint, rollbackTo, releasePoint *sql.Stmt

	insertRow, rowByPair                 *sql.Stmt
	accountHolder, externalHolder, yield *sql.Stmt
	restart, contradict, place           *sql.Stmt
	importSeen, rememberImport           *sql.Stmt

	update, versionOf, putKey, partnerStatus *sql.Stmt
	dropSigned                               *sql.Stmt
	putNonce, isNonceOf, noncesOfRow         *sql.Stmt
	announced, announce, unannounced         *sql.Stmt

	rowByID, keysOfRow, importsOfRow       *sql.Stmt
	rowID, restoreRow, dropKey             *sql.Stmt
	externalTaken, unclaim                 *sql.Stmt
	meet, standing, setStanding, setMerged *sql.Stmt
	forgetStanding, rekey, advance         *sql.Stmt

	addCustomer, clearDirectory [2]*sql.Stmt
	switchDirectory             *sql.Stmt

	all []*sql.Stmt
}

func prepareStatements(ctx context.Context, conn *sql.Conn) (*statements, error) {
	s := &statements{}
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
		{&s.rowByPair, recordQuery + ` WHERE r.external_id = ? AND r.chain_id = ?`},
		{&s.accountHolder, holderQuery + ` WHERE chain_id = ? AND claims = 1`},
		{&s.externalHolder, holderQuery + ` WHERE external_id = ? AND claims = 1`},
		{&s.yield, yieldQuery},
		{&s.restart, restartQuery},
		{&s.contradict, contradictQuery},
		{&s.place, placeQuery},
		{&s.importSeen, importSeenQuery},
		{&s.rememberImport, rememberImportQuery},

		{&s.update, updateQuery},
		{&s.versionOf, versionOfQuery},
		{&s.putKey, putKeyQuery},
		{&s.partnerStatus, partnerStatusQuery},
		{&s.dropSigned, dropSignedQuery},
		{&s.putNonce, putNonceQuery},
		{&s.isNonceOf, isNonceOfQuery},
		{&s.noncesOfRow, noncesOfRowQuery},
		{&s.announced, announcedQuery},
		{&s.announce, announceQuery},
		{&s.unannounced, unannouncedQuery},

		{&s.rowByID, recordQuery + ` WHERE r.id = ?`},
		{&s.keysOfRow, keysQuery},
		{&s.importsOfRow, `SELECT import_id FROM row_imports WHERE row_id = ? ORDER BY import_id`},
		{&s.rowID, rowIDQuery},
		{&s.restoreRow, restoreRowQuery},
		{&s.externalTaken, externalTakenQuery},
		{&s.unclaim, unclaimQuery},
		{&s.dropKey, dropKeyQuery},
		{&s.meet, meetQuery},
		{&s.standing, standingQuery},
		{&s.setStanding, setStandingQuery},
		{&s.setMerged, setMergedQuery},
		{&s.forgetStanding, forgetStandingQuery},
		{&s.rekey, rekeyQuery},
		{&s.advance, advanceQuery},

		{&s.addCustomer[0], fmt.Sprintf(addCustomerQuery, 0)},
		{&s.addCustomer[1], fmt.Sprintf(addCustomerQuery, 1)},
		// Without a WHERE, SQLite gives back whole pages instead of deleting row by row from every index.
		{&s.clearDirectory[0], `DELETE FROM directory_0`},
		{&s.clearDirectory[1], `DELETE FROM directory_1`},
		{&s.switchDirectory, `UPDATE directory_state SET active = ?, begun = ? WHERE id = 1`},
	}
	for _, one := range all {
		stmt, err := conn.PrepareContext(ctx, one.query) //nolint:sqlclosecheck // close does, for all of them
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", one.query, err), s.close())
		}
		*one.into = stmt
		s.all = append(s.all, stmt)
	}
	return s, nil
}

// close has to come before the connection's: SQLite keeps a connection alive as long as it has statements.
func (s *statements) close() error {
	var errs []error
	for _, stmt := range s.all {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}
