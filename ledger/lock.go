package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/lockfile"
)

const fileMode = 0o600

// acquire locks the ledger, creating it if it is missing. <path>.lock keeps a second process out: SQLite would let both
// write in turn, and both would process the same rows. A lock on the inode covers other paths to the file.
func (l *Ledger) acquire() error {
	if err := l.lockPath(); err != nil {
		return err
	}
	// SQLite gives -wal and -shm the mode of the database itself.
	if err := createFile(l.path); err != nil {
		return err
	}
	return l.lockFile()
}

// lockPath locks the name of the ledger, which need not exist.
func (l *Ledger) lockPath() error {
	if err := lockfile.CheckDir(filepath.Dir(l.path)); err != nil {
		return err
	}
	lock, pid, err := lockfile.Acquire(l.path + ".lock")
	if err != nil {
		return l.lockError(pid, err)
	}
	l.lock = lock
	return nil
}

func (l *Ledger) lockFile() (err error) {
	l.file, err = lockfile.Claim(l.path)
	return l.lockError(0, err)
}

// runningIn returns the id of the run that goes on in the ledger at a path. It is uuid.Nil if there is none: no process
// has the ledger, or a process that has not begun a run, such as `consumer reconcile`. It takes no lock and does not
// open the ledger.
func runningIn(path string) (uuid.UUID, error) {
	path, err := lockfile.Resolve(path)
	if errors.Is(err, fs.ErrNotExist) {
		return uuid.Nil, nil
	}
	if err != nil {
		return uuid.Nil, err
	}
	held, note, err := lockfile.Held(path + ".lock")
	if err != nil || !held {
		return uuid.Nil, err
	}
	id, err := uuid.Parse(note)
	if err != nil { // no run has begun
		return uuid.Nil, nil
	}
	return id, nil
}

func (l *Ledger) lockError(pid int, err error) error {
	if errors.Is(err, lockfile.ErrHeld) {
		return &LockedError{Path: l.path, PID: pid}
	}
	return err
}

// usable returns the damage that was found in the ledger, and a *goneError if it is no longer at its path: whatever is
// written to it then is lost when the process ends.
func (l *Ledger) usable() error {
	if err := l.checking.found(); err != nil {
		return err
	}
	err := l.file.Check()
	var gone *lockfile.GoneError
	if errors.As(err, &gone) {
		return &goneError{Path: gone.Path, Replaced: gone.Replaced}
	}
	return err
}

// createFile creates the file if it is missing, with mode 0600 whatever the umask. It does not open an existing file:
// closing it would drop the POSIX locks that SQLite may hold on it elsewhere in this process.
func createFile(name string) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, fileMode)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Chmod(name, fileMode)
}

// closeToOthers removes the permissions of group and others from a file, if it exists.
func closeToOthers(name string) error {
	info, err := os.Stat(name)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return os.Chmod(name, info.Mode().Perm()&^0o077)
}
