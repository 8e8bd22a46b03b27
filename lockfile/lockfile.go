// Package lockfile keeps two processes from working on one file or directory, whatever path leads to it, and refuses
// files and directories with which that cannot be promised.
package lockfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrHeld: another process holds the file.
var ErrHeld = errors.New("held by another process")

// UnsafeError says why a file or directory is not used. Nothing was written to it.
type UnsafeError struct {
	Path    string
	Problem string
	Advice  string
}

func (e *UnsafeError) Error() string { return fmt.Sprintf("%s %s: %s", e.Path, e.Problem, e.Advice) }

// GoneError says that the path of a file that is held does not lead to it any more.
type GoneError struct {
	Path     string
	Replaced bool // another file is there
}

func (e *GoneError) Error() string {
	if e.Replaced {
		return e.Path + " was replaced by another file during the run"
	}
	return e.Path + " was removed during the run"
}

// Lock is a file that this process holds until Close, or until it ends, however it ends.
type Lock struct {
	path string
	file *os.File
	ours os.FileInfo
}

// Acquire makes the lock file if it is missing, with mode 0600, locks it and writes this process's id into it. The file
// stays after Close: removing it would let a third process lock another file of the same name. It does not wait.
//
// Errors: ErrHeld, with the process id that the file says, 0 if it says none; *UnsafeError for a symbolic link, for a
// second name of another file and for what is not a regular file, whose content is kept; the system's.
func Acquire(path string) (l *Lock, pid int, err error) {
	if l, err = open(path, os.O_CREATE, "remove it"); err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.file.Close())
			l = nil
		}
	}()
	switch err := flock(l.file); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return l, readPID(l.file), ErrHeld
	case err != nil:
		return l, 0, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	if err := l.Check(); err != nil { // removed between open and lock: what is locked then keeps no other process away
		return l, 0, err
	}
	if err := l.file.Truncate(0); err != nil {
		return l, 0, err
	}
	_, err = l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return l, 0, err
}

// Release empties the lock file, or the next owner would go by this process's id until it has written its own, and
// closes it.
func (l *Lock) Release() error {
	_ = l.file.Truncate(0)
	return l.Close()
}

// Claim holds an existing data file itself, so that another path to it, such as a mount of the file alone, does not
// admit a second process. Closing the file drops the POSIX locks that this process has on it: Close it last.
//
// Errors: ErrHeld; *UnsafeError for a symbolic link, for a file with more than one hard link and for what is not a
// regular file; the system's.
func Claim(path string) (*Lock, error) {
	// Looking first keeps a file that is refused from being opened and closed.
	if info, err := os.Lstat(path); err != nil {
		return nil, err
	} else if err := checkFile(path, info, oneName); err != nil {
		return nil, err
	}
	l, err := open(path, 0, oneName)
	if err != nil {
		return nil, err
	}
	if err := lockInode(l.file); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

const oneName = "keep one name of it and remove the others"

// Path is the path that was given.
func (l *Lock) Path() string { return l.path }

// Check returns a *GoneError if the path does not lead to the held file any more. It costs one system call.
func (l *Lock) Check() error {
	info, err := os.Lstat(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return &GoneError{Path: l.path}
	case err != nil:
		return err
	case !os.SameFile(info, l.ours):
		return &GoneError{Path: l.path, Replaced: true}
	}
	return nil
}

// Close lets the next process have the file.
func (l *Lock) Close() error { return l.file.Close() }

// open opens a file for reading and writing and refuses what is not safe to write to.
func open(path string, flag int, advice string) (*Lock, error) {
	// Opening a FIFO must not block; a regular file does not care.
	file, err := os.OpenFile(path, flag|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, &UnsafeError{path, "is a symbolic link", advice}
	}
	if err != nil {
		return nil, err
	}
	l := &Lock{path: path, file: file}
	if l.ours, err = file.Stat(); err == nil {
		err = checkFile(path, l.ours, advice)
	}
	if err == nil && flag&os.O_CREATE != 0 { // made by a narrow umask, or wider by another program
		err = file.Chmod(0o600)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

func checkFile(path string, info os.FileInfo, advice string) error {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return &UnsafeError{path, "is a symbolic link", advice}
	case !info.Mode().IsRegular():
		return &UnsafeError{path, "is not a regular file", "choose another path"}
	}
	if n := links(info); n > 1 {
		return &UnsafeError{path, fmt.Sprintf("has %d hard links", n), advice}
	}
	return nil
}

func links(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Nlink) //nolint:unconvert // not the same type on every system
	}
	return 1
}

func flock(file *os.File) error {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// readPID is 0 when the owner is between taking the lock and writing its number.
func readPID(file *os.File) int {
	text, err := io.ReadAll(io.LimitReader(file, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// Resolve returns the absolute path without symbolic links. The file itself need not exist, its directory must.
func Resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if info, err := os.Lstat(path); err == nil {
		target, err := filepath.EvalSymlinks(path)
		if errors.Is(err, fs.ErrNotExist) && info.Mode()&fs.ModeSymlink != 0 {
			return "", &UnsafeError{path, "is a symbolic link to a file that does not exist", "remove it"}
		}
		return target, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

// CheckDir returns an *UnsafeError if users other than the owner may write to the directory: they could put files of
// theirs in place of ours. The sticky bit does not change that, as names that are not there yet are theirs to take. A
// directory that cannot be found is no error.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return nil // making or opening it says more
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return &UnsafeError{"data directory " + dir, fmt.Sprintf("may be written to by other users (mode %#o)", mode),
			fmt.Sprintf("run chmod go-w %s, or choose a directory below it, which is made with mode 0700", dir)}
	}
	return nil
}
