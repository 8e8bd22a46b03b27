package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"

	"github.com/purser-onboard/purser/pipeline"
)

// What callers branch on; errors wrap them.
var (
	// ErrDiskFull: the change was not stored because there is no room for it. Nothing was half-written; the same call
	// succeeds once there is room.
	ErrDiskFull = errors.New("the disk is full")
	// ErrReadOnly: the ledger's file or directory cannot be written.
	ErrReadOnly = errors.New("file or directory cannot be written")
	// ErrClosed: the ledger was closed before the call was begun.
	ErrClosed = errors.New("the ledger is closed")
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("no such row in the ledger")
	// ErrEmpty: OpenReadOnly found a file that no consumer has ever opened.
	ErrEmpty = errors.New("the ledger is empty: no consumer has opened it yet")
)

// LockedError says that another process has the ledger (one process per data directory, rule 12).
type LockedError struct {
	Path string
	PID  int // 0 when the other process has not said
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("ledger %s is in use by another process: wait for it to end, or stop it", e.Path)
	}
	return fmt.Sprintf("ledger %s is in use by process %d: wait for it to end, or stop it", e.Path, e.PID)
}

// GoneError says that the ledger's file was removed or replaced while it was open. What was written to it is lost;
// nothing is written any more.
type GoneError struct {
	Path     string
	Replaced bool // another file is at Path
}

func (e *GoneError) Error() string {
	if e.Replaced {
		return fmt.Sprintf("ledger %s was replaced by another file during the run: its rows are not in the new one; "+
			"stop what replaces it, then import the export again and run again", e.Path)
	}
	return fmt.Sprintf("ledger %s was removed during the run: what it held is lost; import the export again and run "+
		"again: a new ledger finds the customers that exist at the partner", e.Path)
}

// EnvironmentError says that the ledger was made with another API host, base path or key id (rule 12): its idempotency
// keys and customer ids mean nothing there.
type EnvironmentError struct {
	Path   string
	Ledger Environment // what the ledger was made with
	Given  Environment // what this run uses
}

func (e *EnvironmentError) Error() string {
	advice := "use another data directory for another environment"
	if e.Ledger.sameAPI(e.Given) {
		advice = rotated + "; if it is another programme's, use another data directory"
	}
	return fmt.Sprintf("ledger %s belongs to API %s with key id %q, but this run uses API %s with key id %q: %s",
		e.Path, e.Ledger.API(), e.Ledger.APIKeyID, e.Given.API(), e.Given.APIKeyID, advice)
}

// SchemaError says that the ledger's schema cannot be used by this program.
type SchemaError struct {
	Path    string
	Have    int    // the ledger's schema
	Known   int    // the newest schema this program knows
	Program string // the program that wrote Have, where the ledger says
}

func (e *SchemaError) Error() string {
	if e.Have < e.Known {
		return fmt.Sprintf("ledger %s has schema %d, this program reads %d: run the consumer once to bring it up to date",
			e.Path, e.Have, e.Known)
	}
	needed := "a newer program"
	if e.Program != "" {
		needed = e.Program + " or newer"
	}
	return fmt.Sprintf("ledger %s has schema %d, this program knows schemas up to %d: %s is needed",
		e.Path, e.Have, e.Known, needed)
}

// ForeignError says that the file is an SQLite database of another application. It was not touched.
type ForeignError struct {
	Path          string
	ApplicationID uint32
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is a database of another program (application id %#08x), not a ledger: choose another path",
		e.Path, e.ApplicationID)
}

// CorruptError says that the file is damaged, or no database at all.
type CorruptError struct {
	Path   string
	Detail string
	Err    error // nil when the integrity check found it
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("ledger %s is damaged or not a ledger (%s): check the path; if it is right, move the file and "+
		"its -wal away, keep them, and run again: a new ledger finds the customers that exist at the partner",
		e.Path, e.Detail)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// StepError says that Update was asked for a step that the state machine does not know, or for one that only a new
// import may take. Nothing was written.
type StepError struct {
	ID       int64
	From, To pipeline.Stage
}

func (e *StepError) Error() string {
	return fmt.Sprintf("ledger row %d cannot go from %s to %s", e.ID, e.From, e.To)
}

// KeyError says that Update was given a key whose generation is recorded with another id or another payload. Nothing
// was written.
type KeyError struct {
	ID         int64 // of the row
	Operation  pipeline.Operation
	Generation int
}

func (e *KeyError) Error() string {
	return fmt.Sprintf("ledger row %d: generation %d of the %s key is recorded with another payload",
		e.ID, e.Generation, e.Operation)
}

// translate turns what SQLite and the file system say into this package's errors and names the file.
func translate(path string, err error) error {
	if err == nil {
		return nil
	}
	var lite sqlite3.Error
	if !errors.As(err, &lite) {
		switch {
		case errors.Is(err, sql.ErrConnDone), errors.Is(err, sql.ErrTxDone), isClosedDB(err):
			return ErrClosed
		case isNoSpace(err):
			return fmt.Errorf("ledger %s: %w: %w", path, ErrDiskFull, err)
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
			return fmt.Errorf("ledger %s: %w: %w", path, ErrReadOnly, err)
		}
		return err
	}
	switch {
	case lite.Code == sqlite3.ErrFull, lite.SystemErrno != 0 && isNoSpace(lite.SystemErrno):
		return fmt.Errorf("ledger %s: %w: %w", path, ErrDiskFull, err)
	case lite.Code == sqlite3.ErrReadonly, lite.Code == sqlite3.ErrPerm,
		lite.SystemErrno != 0 && (errors.Is(lite.SystemErrno, fs.ErrPermission) || lite.SystemErrno == syscall.EROFS):
		return fmt.Errorf("ledger %s: %w: %w", path, ErrReadOnly, err)
	case lite.Code == sqlite3.ErrCorrupt, lite.Code == sqlite3.ErrNotADB:
		return &CorruptError{Path: path, Detail: lite.Error(), Err: err}
	case lite.Code == sqlite3.ErrBusy, lite.Code == sqlite3.ErrLocked:
		return fmt.Errorf("ledger %s: another program keeps the database busy: %w", path, err)
	}
	return fmt.Errorf("ledger %s: %w", path, err)
}

// isNoSpace covers a full disk, a full quota and a file size limit: SQLite reports only the first as SQLITE_FULL.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// isClosedDB recognises database/sql's own error, which has no name.
func isClosedDB(err error) bool {
	return strings.HasSuffix(err.Error(), "sql: database is closed")
}
