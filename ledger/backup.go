package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mattn/go-sqlite3"
)

// Backup is a copy that was written and checked.
type Backup struct {
	Rows        int64
	Bytes       int64
	Environment Environment
}

// WriteBackup copies the ledger at path, with its log, into one file: target, which must exist and be empty. A consumer
// may hold the ledger and goes on writing; the copy has the ledger as of the moment when the copying began. It has no
// deleted content. WriteBackup then reads the whole copy and checks it. It does not call fsync on it. After an error the
// copy is of no use.
//
// Errors: fs.ErrNotExist and ErrEmpty for the ledger; others for a schema that is newer than this program's, for a file
// that is damaged or not a ledger, and for a full disk.
func WriteBackup(ctx context.Context, path, target string) (b Backup, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return b, err
	}
	if target, err = filepath.Abs(target); err != nil {
		return b, err
	}
	if _, err := os.Stat(path); err != nil {
		return b, translate(path, err)
	}
	mode := "ro"
	if frozen(path) {
		mode = "ro&immutable=1"
	}
	if err := copyInto(ctx, path, mode, target); err != nil {
		return b, err
	}
	copied := openDB(target, "ro", readerPragmas()...)
	defer func() { err = errors.Join(translate(target, err), copied.Close()) }()
	if err := checkIntegrity(ctx, copied, target, "integrity_check"); err != nil {
		return b, err
	}
	if b.Environment, err = readEnvironment(ctx, copied); err != nil {
		return b, err
	}
	if err := copied.QueryRowContext(ctx, `SELECT count(*) FROM rows`).Scan(&b.Rows); err != nil {
		return b, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return b, err
	}
	b.Bytes = info.Size()
	return b, nil
}

// copyInto checks that path is a ledger of a known schema and copies it.
func copyInto(ctx context.Context, path, mode, target string) (err error) {
	db := openDB(path, mode)
	defer func() { err = errors.Join(err, db.Close()) }()
	steps, err := readMigrations(embedded)
	if err != nil {
		return err
	}
	have, err := identify(ctx, db, path)
	switch {
	case err != nil:
		return translate(path, err)
	case have == 0:
		return fmt.Errorf("%s: %w", path, ErrEmpty)
	}
	if err := checkSchema(ctx, db, path, have, len(steps)); err != nil {
		return err
	}
	// VACUUM INTO reads in one transaction. With a write-ahead log that does not block the writer.
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, target)
	var lite sqlite3.Error
	if errors.As(err, &lite) && (lite.Code == sqlite3.ErrFull || lite.Code == sqlite3.ErrIoErr) {
		return translate(target, err)
	}
	return translate(path, err)
}
