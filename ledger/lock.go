package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/purser-onboard/purser/lockfile"
)

const (
	fileMode = 0o600
	dirMode  = 0o700
)

// take locks the ledger twice: by <path>.lock, which keeps two processes apart (SQLite alone would let both write in
// turn, and both would work on the same rows), and by its inode, for paths that lead to the file alone. The ledger is
// made if it is missing.
func (l *Ledger) take() error {
	if err := lockfile.CheckDir(filepath.Dir(l.path)); err != nil {
		return err
	}
	lock, pid, err := lockfile.Acquire(l.path + ".lock")
	if err != nil {
		return l.held(pid, err)
	}
	l.lock = lock
	// SQLite gives -wal and -shm the mode of the database itself.
	if err := createFile(l.path); err != nil {
		return err
	}
	l.file, err = lockfile.Claim(l.path)
	return l.held(0, err)
}

func (l *Ledger) held(pid int, err error) error {
	if errors.Is(err, lockfile.ErrHeld) {
		return &LockedError{Path: l.path, PID: pid}
	}
	return err
}

// present returns a *GoneError if the ledger's path does not lead to it any more: what is written to it then is lost
// with the process.
func (l *Ledger) present() error {
	err := l.file.Check()
	var gone *lockfile.GoneError
	if errors.As(err, &gone) {
		return &GoneError{Path: gone.Path, Replaced: gone.Replaced}
	}
	return err
}

// createFile makes the file if it is missing, its owner's alone whatever the umask. An existing file is not opened:
// closing it again would drop the POSIX locks that SQLite may hold on it elsewhere in this process.
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

// closeToOthers takes away what group and others may do with a file, if there is one.
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

// createDir makes the directory and those above it that are missing, each its owner's alone.
func createDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
		return nil
	}
	if !os.IsNotExist(err) {
		return err
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := createDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil {
		if os.IsExist(err) {
			return nil
		}
		return err
	}
	return os.Chmod(dir, dirMode)
}
