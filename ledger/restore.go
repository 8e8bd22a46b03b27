package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/printable"
)

// RestoreOptions configure RestoreBackup.
type RestoreOptions struct {
	Path   string           // of the ledger, which need not exist; see Options.Path
	Backup string           // file of the backup
	Force  bool             // replace a ledger that is newer than the backup, or that cannot be compared with it
	Now    func() time.Time // names the replaced ledger; required

	link func(old, name string) error // for tests; nil: os.Link
}

// Replacement is the result of RestoreBackup.
type Replacement struct {
	Summary           // of the backup, now the ledger
	Replaced *Summary // of the ledger before; nil: there was none, or it could not be read
	Kept     string   // its new path; "": there was none
	Missing  int64    // rows of it that the backup does not have
	Changed  int64    // rows of it that have changed since the backup
}

// NewerError reports a ledger with rows or changes that the backup does not have. Nothing was changed.
type NewerError struct {
	Path, BackupPath string
	Ledger, Backup   Summary
	Missing, Changed int64 // rows of the ledger that the backup does not have, or has as they were earlier
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("ledger %s is newer (%s, last change %s) than the backup %s (%s, last change %s): "+
		"rows not in the backup: %d, changed since: %d; use a later backup, or replace the ledger with --force, "+
		"which keeps it under another name", e.Path, printable.Count(e.Ledger.Rows, "row", "rows"),
		when(e.Ledger.LastChange), e.BackupPath, printable.Count(e.Backup.Rows, "row", "rows"),
		when(e.Backup.LastChange), e.Missing, e.Changed)
}

// IncomparableError reports a ledger that RestoreBackup cannot compare with the backup, so it may be newer. Nothing was
// changed.
type IncomparableError struct {
	Err error // why
}

func (e *IncomparableError) Error() string {
	return fmt.Sprintf("cannot compare the ledger with the backup: %v; to restore anyway, use --force, which keeps "+
		"the ledger under another name", e.Err)
}

func (e *IncomparableError) Unwrap() error { return e.Err }

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// RestoreBackup replaces the ledger with a copy of a backup, and keeps the replaced ledger, with its log, under another
// name in the same directory. The backup is not changed. After a crash either the ledger or the backup is in place,
// complete and with its own log.
//
// Errors, after which the ledger is unchanged: *LockedError if a process has the ledger open, *NewerError,
// *IncomparableError, *BackupError (after which no file and no directory was created), *lockfile.UnsafeError; others
// for a full disk, and the system's. After a *PlacedError the backup is in place.
func RestoreBackup(ctx context.Context, o RestoreOptions) (r Replacement, err error) {
	if o.Now == nil {
		return r, errors.New("ledger: no clock")
	}
	path := o.Path
	backup, err := openBackup(ctx, o.Backup, path)
	if err != nil {
		return r, err
	}
	locks := &Ledger{}
	inPlace := false
	defer func() { err = withClosing(path, inPlace, err, errors.Join(locks.release(), backup.Close())) }()
	if err := lockfile.MakeDir(filepath.Dir(path)); err != nil {
		return r, translate(path, err)
	}
	if path, err = lockfile.Resolve(path); err != nil {
		return r, err
	}
	locks.path = path
	if err := locks.lockPath(); err != nil {
		return r, translate(path, err)
	}
	_, err = os.Lstat(path)
	there := !errors.Is(err, fs.ErrNotExist)
	if there {
		if err := removeAside(path); err != nil {
			return r, translate(path, err)
		}
		if err := locks.lockFile(); err != nil {
			return r, err
		}
	}

	next := path + restoring
	for _, left := range []string{next, path + replacing} { // by a killed process
		if err := os.Remove(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
	}
	if err := createFile(next); err != nil {
		return r, translate(path, err)
	}
	defer func() { _ = os.Remove(next) }()               // left after an error
	copied, err := copyInto(ctx, backup, o.Backup, next) // with the backup's log, if it has one
	if err != nil {
		return r, err
	}
	r.Summary = copied.Summary
	if err := syncPath(next); err != nil {
		return r, translate(path, err)
	}
	if there {
		if err := rollBack(ctx, path); err != nil {
			return r, err
		}
		damaged, err := r.compare(ctx, o, path, next)
		if err != nil {
			return r, err
		}
		if !damaged { // a damaged ledger is kept as it is
			if err := writeLogBack(ctx, path); err != nil {
				return r, err
			}
		}
	}
	link := o.link
	if link == nil {
		link = os.Link
	}
	r.Kept, err = putInPlace(path, next, there, o.Now(), link)
	if inPlace = err == nil || errors.As(err, new(*PlacedError)); inPlace {
		return r, err
	}
	return r, translate(path, err)
}

// withClosing adds to the error of a restore what failed while its files were closed, which undoes no restore.
func withClosing(path string, inPlace bool, err, closing error) error {
	if closing != nil && inPlace {
		closing = &PlacedError{Path: path, Err: fmt.Errorf("its files could not be closed: %w", closing)}
	}
	return errors.Join(err, closing)
}

// PlacedError reports a failure after the backup was put in place. If the directory could not be synced, the backup may
// not survive a crash of the machine.
type PlacedError struct {
	Path string
	Err  error
}

func (e *PlacedError) Error() string {
	return fmt.Sprintf("ledger %s: the backup is in place, but %v", e.Path, e.Err)
}

func (e *PlacedError) Unwrap() error { return e.Err }

// BackupError reports a backup that cannot be restored. Nothing was changed.
type BackupError struct {
	Path string
	Err  error
}

func (e *BackupError) Error() string { return fmt.Sprintf("backup %s: %v", e.Path, e.Err) }
func (e *BackupError) Unwrap() error { return e.Err }

// openBackup opens a backup that is no file of the ledger at path, and checks it.
func openBackup(ctx context.Context, backup, path string) (_ *sql.DB, err error) {
	abs, err := filepath.Abs(backup)
	if err != nil {
		return nil, backupError(backup, err)
	}
	file, err := os.Stat(abs)
	if err != nil {
		return nil, backupError(backup, err)
	}
	switch {
	case OwnFile(path, abs):
		return nil, backupError(backup, errors.New("is a file of the ledger itself: choose another file"))
	case !file.Mode().IsRegular():
		return nil, backupError(backup, errors.New("is not a regular file: choose another file"))
	case file.Size() == 0:
		return nil, backupError(backup, errors.New("is empty: use another backup"))
	}
	source, err := openKnown(ctx, abs)
	if err != nil {
		return nil, backupError(backup, err)
	}
	if err := translate(abs, checkIntegrity(ctx, source, abs, "integrity_check")); err != nil {
		return nil, errors.Join(backupError(backup, err), source.Close())
	}
	return source, nil
}

// backupError words an error of a backup: what is said of a damaged ledger does not help. An interruption says nothing
// of the backup.
func backupError(backup string, err error) error {
	damage := (*corruptError)(nil)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &damage):
		err = fmt.Errorf("is damaged or not a ledger (%s): use another backup", damage.Detail)
	case errors.Is(err, ErrEmpty):
		err = errors.New("has no ledger in it: use another backup")
	}
	return &BackupError{Path: backup, Err: err}
}

// compare fills in what the ledger in place is. Without RestoreOptions.Force it returns an error for a ledger that is
// newer than the backup, or that cannot be compared with it.
func (r *Replacement) compare(ctx context.Context, o RestoreOptions, path, next string) (damaged bool, err error) {
	db, err := openKnown(ctx, path)
	switch {
	case errors.Is(err, ErrEmpty):
		return false, nil
	case errors.As(err, new(*foreignError)): // the path is wrong
		return false, err
	case err == nil:
		err = r.count(ctx, db, next)
		err = errors.Join(translate(path, err), db.Close())
	}
	damaged = errors.As(err, new(*corruptError))
	switch {
	case o.Force:
		return damaged, nil
	case err != nil:
		return damaged, &IncomparableError{Err: err}
	case !r.Replaced.Environment.sameAPI(r.Environment):
		return damaged, &IncomparableError{Err: fmt.Errorf("ledger %s belongs to API %s, backup %s to API %s",
			path, r.Replaced.Environment.API(), o.Backup, r.Environment.API())}
	case r.Missing > 0, r.Changed > 0, r.Replaced.LastChange.After(r.LastChange):
		return damaged, &NewerError{
			Path: path, BackupPath: o.Backup, Ledger: *r.Replaced, Backup: r.Summary, Missing: r.Missing, Changed: r.Changed,
		}
	}
	return damaged, nil
}

// count counts the rows that the ledger in place has and the backup does not.
func (r *Replacement) count(ctx context.Context, db *sql.DB, next string) error {
	replaced, err := summarize(ctx, db)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	uri := url.URL{Scheme: "file", Path: next, RawQuery: "mode=ro"}
	if _, err := conn.ExecContext(ctx, `ATTACH ? AS backup`, uri.String()); err != nil {
		return err
	}
	// The version tells more than the time, which may have been set back; but a ledger that was lost begins with 1 again.
	if err := conn.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE b.id IS NULL),
		count(*) FILTER (WHERE r.updated_at > b.updated_at OR r.version > b.version)
		FROM main.rows r LEFT JOIN backup.rows b
		ON b.external_id = r.external_id AND b.chain_id = r.chain_id`).Scan(&r.Missing, &r.Changed); err != nil {
		return err
	}
	r.Replaced = &replaced
	return nil
}

// removeAside removes the second name of a ledger that a killed process was about to replace; see putInPlace.
func removeAside(path string) error {
	own, err := os.Stat(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), filepath.Base(path)+replaced) {
			continue
		}
		if aside, err := entry.Info(); err == nil && os.SameFile(own, aside) {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	// replaced is between the name of a ledger and the time at which it was replaced.
	replaced = ".replaced-"
	// restoring is behind the name of a ledger in that of the copy that will take its place.
	restoring = ".restoring"
	// replacing is behind it in that of the copy that will get a name with replaced, if the ledger cannot have two names.
	replacing = ".replacing"
)

// putInPlace gives next the ledger's name, and the ledger, if it is there, another name. A crash between the two steps
// leaves a ledger with two names, which Open does not accept and RestoreBackup takes back. On a file system without
// hard links the ledger is copied: a crash then leaves the copy, and the ledger with its one name. An error other than
// *PlacedError leaves the ledger as it was.
func putInPlace(
	path, next string, there bool, now time.Time, link func(old, name string) error,
) (kept string, err error) {
	aside := path + replaced + now.UTC().Format("20060102T150405.000000Z")
	var undo []func() error
	defer func() {
		for _, step := range slices.Backward(undo) {
			err = errors.Join(err, step())
		}
	}()
	// What is left is of a damaged ledger, or of a ledger that was removed: SQLite would apply it to next.
	for _, suffix := range []string{"-wal", "-journal"} {
		switch err := os.Rename(path+suffix, aside+suffix); {
		case err == nil:
			undo = append(undo, func() error { return os.Rename(aside+suffix, path+suffix) })
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if there {
		err := link(path, aside)
		if err != nil && noLinks(err) {
			if err = copyFile(path, path+replacing); err == nil {
				err = os.Rename(path+replacing, aside)
			}
		}
		if err != nil {
			return "", err
		}
		undo = append(undo, func() error { return os.Remove(aside) })
		kept = aside
	}
	if err := syncPath(filepath.Dir(path)); err != nil {
		return "", err
	}
	if err := os.Rename(next, path); err != nil {
		return "", err
	}
	undo = nil
	if err := syncPath(filepath.Dir(path)); err != nil {
		return kept, &PlacedError{Path: path, Err: fmt.Errorf("the directory could not be synced: %w", err)}
	}
	return kept, nil
}

// noLinks reports whether an error of link(2) says that the file system has no hard links, as vfat (EPERM).
func noLinks(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EOPNOTSUPP) ||
		errors.Is(err, syscall.ENOSYS)
}

// copyFile copies a file into a new one, and syncs it. After an error there is none.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// rollBack undoes what a killed process has left half done in a rollback journal, which only a connection that may
// write can undo. A ledger has a journal while its log is switched on or off. Damage is for compare to find.
func rollBack(ctx context.Context, path string) error {
	if _, err := os.Lstat(path + "-journal"); err != nil {
		return nil //nolint:nilerr // there is none
	}
	db := openDB(path, "rw")
	_, err := identify(ctx, db, path)
	err = errors.Join(translate(path, err), db.Close())
	if errors.As(err, new(*corruptError)) {
		return nil
	}
	return err
}

// writeLogBack writes the log back into the ledger and removes it. Another program that has the ledger open, if only to
// read it, is an error: it would take the next ledger's log for its own.
func writeLogBack(ctx context.Context, path string) (err error) {
	db := openDB(path, "rw", "busy_timeout = 1000")
	defer func() { err = errors.Join(translate(path, err), db.Close()) }()
	var mode string
	if err := db.QueryRowContext(ctx, `PRAGMA journal_mode = DELETE`).Scan(&mode); err != nil {
		return err
	}
	if mode != "delete" {
		return fmt.Errorf("ledger %s: cannot checkpoint its WAL (journal mode %s)", path, mode)
	}
	return nil
}
