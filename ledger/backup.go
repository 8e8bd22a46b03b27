package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/purser-onboard/purser/lockfile"
)

// Summary describes the contents of a ledger.
type Summary struct {
	Rows        int64
	LastChange  time.Time // of a row; zero: there is no row
	Environment Environment
}

// Backup is a copy that was written and checked.
type Backup struct {
	Summary
	Bytes int64
}

// WriteBackup copies the ledger at path, with its log, into one file: target, which must exist and be empty. A consumer
// may keep writing to the ledger; the copy has the state at the start of copying, without deleted data. WriteBackup
// then reads the whole copy and checks it. It does not call fsync on it. After an error the copy is unusable.
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
	source, err := openKnown(ctx, path)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	return copyInto(ctx, source, path, target)
}

// OwnFile reports whether a file is, or would be, a file of the ledger at path: the ledger itself, a file that SQLite
// creates for it, or one that RestoreBackup creates. Links are resolved. A copy under such a name would be mistaken for
// that file. The result is false while the ledger's directory does not exist.
func OwnFile(path, file string) bool {
	path, err := lockfile.Resolve(path)
	if err != nil {
		return false // its directory does not exist
	}
	info, err := os.Stat(file)
	there := err == nil
	named, err := lockfile.Resolve(file)
	for _, suffix := range []string{"", "-wal", "-shm", "-journal", ".lock", restoring, replacing} {
		if err == nil && named == path+suffix {
			return true
		}
		if own, err := os.Stat(path + suffix); err == nil && there && os.SameFile(own, info) {
			return true
		}
	}
	return false
}

// IsLedger reports whether head is the beginning of a ledger file; every backup is one. A database of another program
// is not.
func IsLedger(head []byte) bool {
	const idAt = 68 // of the application id: sqlite.org/fileformat.html, section 1.3
	return bytes.HasPrefix(head, []byte("SQLite format 3\x00")) && len(head) >= idAt+4 &&
		binary.BigEndian.Uint32(head[idAt:]) == applicationID
}

// openKnown opens a ledger for reading, of this schema or an earlier schema.
func openKnown(ctx context.Context, path string) (_ *sql.DB, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, translate(path, err)
	case !info.Mode().IsRegular():
		return nil, &foreignError{Path: path}
	}
	db := openDB(path, readMode(path), "cache_size = -4096") // VACUUM INTO does not run with query_only
	defer func() {
		if err != nil {
			err = errors.Join(translate(path, err), db.Close())
		}
	}()
	_, _, err = readSchema(ctx, db, path)
	return db, err
}

// copyInto copies an open ledger into an empty file, and checks the copy.
func copyInto(ctx context.Context, source *sql.DB, path, target string) (b Backup, err error) {
	// VACUUM INTO reads in one transaction. With a write-ahead log that does not block the writer.
	if _, err = source.ExecContext(ctx, `VACUUM INTO ?`, target); err != nil {
		var lite sqlite3.Error
		switch isLite := errors.As(err, &lite); {
		case isLite && lite.Code == sqlite3.ErrFull:
			return b, fmt.Errorf("%w: free space, or choose another place", errDiskFull)
		case isLite && lite.Code == sqlite3.ErrIoErr:
			return b, translate(target, err)
		}
		return b, translate(path, err)
	}
	copied := openDB(target, "ro", readerPragmas()...)
	defer func() { err = errors.Join(translate(target, err), copied.Close()) }()
	if err := checkIntegrity(ctx, copied, target, "integrity_check"); err != nil {
		return b, err
	}
	if b.Summary, err = summarize(ctx, copied); err != nil {
		return b, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return b, err
	}
	b.Bytes = info.Size()
	return b, nil
}

func summarize(ctx context.Context, db source) (s Summary, err error) {
	var last sql.NullInt64
	if err := db.QueryRowContext(ctx, `SELECT count(*), max(updated_at) FROM rows`).Scan(&s.Rows, &last); err != nil {
		return s, err
	}
	s.LastChange = fromMicros(last)
	s.Environment, err = readEnvironment(ctx, db)
	return s, err
}
