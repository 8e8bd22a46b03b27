package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

const (
	fileMode = 0o600
	dirMode  = 0o700
)

// lockFile takes the lock beside the ledger, which is what keeps two processes apart: SQLite alone would let both
// write in turn, and both would work on the same rows. The lock goes with the process, however it ends; the file
// stays, because removing it would let a third process lock another file of the same name.
func lockFile(path string) (*flock.Flock, error) {
	name := path + ".lock"
	if err := createFile(name); err != nil {
		return nil, err
	}
	lock := flock.New(name, flock.SetFlag(os.O_RDWR), flock.SetPermissions(fileMode))
	held, err := lock.TryLock()
	if err != nil {
		return nil, err
	}
	if !held {
		return nil, &LockedError{Path: path, PID: readPID(name)}
	}
	if err := os.WriteFile(name, []byte(strconv.Itoa(os.Getpid())+"\n"), fileMode); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}

// readPID is 0 when the owner is between taking the lock and writing its number.
func readPID(name string) int {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
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
