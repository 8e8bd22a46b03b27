package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"github.com/purser-onboard/purser/pipeline"
)

// Sentinels; errors wrap them.
var (
	// errDiskFull: the change was not stored. The same call succeeds once there is room.
	errDiskFull = errors.New("the disk is full")
	// errReadOnly: the ledger's file or directory cannot be read or written.
	errReadOnly = errors.New("no permission for the file or directory, or a read-only file system")
	// errHalfDone: reading is possible once a writer has rolled the journal back.
	errHalfDone = errors.New("a killed process left a change unfinished: run again, or restore a backup")
	// errClosed: the ledger was closed before the call started.
	errClosed = errors.New("the ledger is closed")
	// errNotFound: the row does not exist.
	errNotFound = errors.New("no such row in the ledger")
	// ErrEmpty is returned by OpenReadOnly and WriteBackup for a file that no consumer has opened yet.
	ErrEmpty = errors.New("the ledger is empty: no consumer has opened it yet")
)

// LockedError reports a ledger that another process has open. Only one process may have it open.
type LockedError struct {
	Path string
	PID  int // of the other process; 0 if unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("ledger %s is in use by another process: wait for it to end, or stop it", e.Path)
	}
	return fmt.Sprintf("ledger %s is in use by process %d: wait for it to end, or stop it", e.Path, e.PID)
}

// goneError reports a ledger file that was removed or replaced while it was open. What was written to it is lost.
// Nothing more is written.
type goneError struct {
	Path     string
	Replaced bool // another file is at Path
}

func (e *goneError) Error() string {
	if e.Replaced {
		return fmt.Sprintf("ledger %s was replaced by another file during the run, which does not have its rows: "+
			"stop the program that replaces it, then import the export again and run again", e.Path)
	}
	return fmt.Sprintf("ledger %s was removed during the run and its content is lost: import the export again and run "+
		"again; a new ledger finds the customers that exist at the partner", e.Path)
}

// EnvironmentError reports a ledger that is bound to another API host, base path or key id: its idempotency keys and
// customer ids have no meaning for this run.
type EnvironmentError struct {
	Path   string
	Ledger Environment // of the ledger
	Given  Environment // of this run
}

func (e *EnvironmentError) Error() string {
	advice := "use another data directory for another environment"
	if e.Ledger.sameAPI(e.Given) {
		advice = rotated + "; if the key is unrelated to the earlier key, use another data directory"
	}
	return fmt.Sprintf("ledger %s belongs to API %s with key id %q, but this run uses API %s with key id %q: %s",
		e.Path, e.Ledger.API(), e.Ledger.APIKeyID, e.Given.API(), e.Given.APIKeyID, advice)
}

// schemaError reports a ledger whose schema this program cannot use.
type schemaError struct {
	Path    string
	Have    int    // the ledger's schema
	Known   int    // the newest schema this program knows
	Program string // the program that migrated to Have; empty if unknown
}

func (e *schemaError) Error() string {
	if e.Have < e.Known {
		return fmt.Sprintf("ledger %s has schema %d, of an earlier version, and this program reads schema %d: the next "+
			"run migrates it; `consumer ledger backup FILE` before that run keeps the way back", e.Path, e.Have, e.Known)
	}
	needed := "a newer program"
	if e.Program != "" {
		needed = e.Program + " or newer"
	}
	return fmt.Sprintf("ledger %s has schema %d, this program supports schemas up to %d: use %s, or restore a backup "+
		"from before the upgrade", e.Path, e.Have, e.Known, needed)
}

// foreignError reports an SQLite database of another application. It was not changed.
type foreignError struct {
	Path          string
	ApplicationID uint32
}

func (e *foreignError) Error() string {
	return fmt.Sprintf("%s is a database of another program (application id %#08x), not a ledger: choose another path",
		e.Path, e.ApplicationID)
}

// corruptError reports a file that is damaged or not an SQLite database.
type corruptError struct {
	Path   string
	Detail string
	Err    error // nil if the integrity check found the damage
}

func (e *corruptError) Error() string {
	return fmt.Sprintf("ledger %s is damaged or not a ledger (%s): check the path and the disk, because SQLite says the "+
		"same of a disk that cannot be read; if both are right, move the file and its -wal elsewhere, keep them, and run "+
		"again; a new ledger finds the customers that exist at the partner", e.Path, e.Detail)
}

func (e *corruptError) Unwrap() error { return e.Err }

// SetUp reports whether an error of opening a ledger is permanent: the ledger belongs to another environment or to
// another program, a newer program has changed its schema, or this user may not use its file or directory.
func SetUp(err error) bool {
	var schema *schemaError
	return errors.As(err, new(*EnvironmentError)) || errors.As(err, new(*foreignError)) || errors.Is(err, errReadOnly) ||
		errors.As(err, &schema) && schema.Have > schema.Known
}

// stepError reports an Update to a stage that the state machine does not allow, or that only Accept may set. Nothing
// was written.
type stepError struct {
	ID       int64
	From, To pipeline.Stage
}

func (e *stepError) Error() string {
	return fmt.Sprintf("ledger row %d cannot go from %s to %s", e.ID, e.From, e.To)
}

// keyError reports an Update with a key whose generation is already recorded with another id or payload. Nothing was
// written.
type keyError struct {
	ID         int64 // of the row
	Operation  pipeline.Operation
	Generation int
}

func (e *keyError) Error() string {
	return fmt.Sprintf("ledger row %d: generation %d of the %s key is recorded with another payload",
		e.ID, e.Generation, e.Operation)
}

// translate converts errors of SQLite and the file system to this package's errors and adds the path.
func translate(path string, err error) error {
	if err == nil {
		return nil
	}
	var lite sqlite3.Error
	if !errors.As(err, &lite) {
		switch {
		case errors.Is(err, sql.ErrConnDone), errors.Is(err, sql.ErrTxDone), isClosedDB(err):
			return errClosed
		case isNoSpace(err):
			return fmt.Errorf("ledger %s: %w: %w: %s", path, errDiskFull, err, freeSpace)
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
			return fmt.Errorf("ledger %s: %w: %w", path, errReadOnly, err)
		}
		return err
	}
	switch {
	case lite.Code == sqlite3.ErrFull && hasRoom(path): // SQLite does not say which file had no room
		return fmt.Errorf("ledger %s: %w: that of temporary files ($SQLITE_TMPDIR, $TMPDIR, /var/tmp or /tmp): %w: %s",
			path, errDiskFull, err, freeSpace)
	case lite.Code == sqlite3.ErrFull, lite.SystemErrno != 0 && isNoSpace(lite.SystemErrno):
		return fmt.Errorf("ledger %s: %w: %w: %s", path, errDiskFull, err, freeSpace)
	case lite.Code == sqlite3.ErrCantOpen && noInodes(path): // SQLite reports its second try, of an existing file
		return fmt.Errorf("ledger %s: %w: no inode is left (df -i): %w: remove files, then run again",
			path, errDiskFull, err)
	case lite.ExtendedCode == sqlite3.ErrReadonlyRollback:
		return fmt.Errorf("ledger %s: %w", path, errHalfDone)
	case lite.Code == sqlite3.ErrReadonly, lite.Code == sqlite3.ErrPerm,
		lite.SystemErrno != 0 && (errors.Is(lite.SystemErrno, fs.ErrPermission) || lite.SystemErrno == syscall.EROFS):
		return fmt.Errorf("ledger %s: %w: %w", path, errReadOnly, err)
	case lite.Code == sqlite3.ErrCorrupt, lite.Code == sqlite3.ErrNotADB:
		return &corruptError{Path: path, Detail: lite.Error(), Err: err}
	case lite.Code == sqlite3.ErrBusy, lite.Code == sqlite3.ErrLocked:
		return fmt.Errorf("ledger %s: another program keeps the database busy: %w", path, err)
	case lite.Code == sqlite3.ErrIoErr:
		return fmt.Errorf("ledger %s: %w: check the disk and the kernel's log, then run again", path, err)
	}
	return fmt.Errorf("ledger %s: %w", path, err)
}

// freeSpace is the advice for a full disk.
const freeSpace = "free space, then run again"

// noInodes reports whether the file system of a file can have no more files. Some have no such limit.
func noInodes(path string) bool {
	var system unix.Statfs_t
	return unix.Statfs(filepath.Dir(path), &system) == nil && system.Files > 0 && system.Ffree == 0
}

// hasRoom reports whether the file system of a file is certainly not full.
func hasRoom(path string) bool {
	const some = 256 // blocks
	var system unix.Statfs_t
	return unix.Statfs(path, &system) == nil && system.Bavail > some
}

// isNoSpace matches a full disk, a full quota and a file size limit. SQLite reports only the first as SQLITE_FULL.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// isClosedDB recognises an error of database/sql that has no exported name.
func isClosedDB(err error) bool {
	return strings.HasSuffix(err.Error(), "sql: database is closed")
}
