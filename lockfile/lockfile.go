// Package lockfile keeps two processes from working on the same file or directory, even under different paths. Files
// and directories for which it cannot guarantee that are an *UnsafeError.
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

// UnsafeError is a file or directory that cannot be locked safely. Nothing was written to it.
type UnsafeError struct {
	Path    string
	Problem string // "is a symbolic link"
	Advice  string // what to do, as an imperative
}

func (e *UnsafeError) Error() string { return fmt.Sprintf("%s %s: %s", e.Path, e.Problem, e.Advice) }

// GoneError is a held file that was removed from its path, or replaced there.
type GoneError struct {
	Path     string
	Replaced bool // another file is at Path
}

func (e *GoneError) Error() string {
	if e.Replaced {
		return e.Path + " was replaced by another file during the run"
	}
	return e.Path + " was removed during the run"
}

// Lock is a file that this process holds until Close. The system closes it when the process exits or is killed.
type Lock struct {
	path string
	file *os.File
	ours os.FileInfo
}

// Acquire creates the lock file if it is missing, with mode 0600, locks it and writes this process's id into it. It
// does not block. The file stays after Close: removing it would let a third process lock another file of the same name.
//
// Errors: ErrHeld, with the process id in the file, 0 if it has none; *UnsafeError for a symbolic link, for a file with
// more than one hard link and for anything but a regular file, whose content is kept; the system's.
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
	if err := l.Check(); err != nil { // a file that was removed between open and lock keeps no other process out
		return l, 0, err
	}
	// For Held. The lock is ours already: where this does nothing or fails, Held asks for the process.
	_ = lockInode(l.file)
	return l, 0, l.Note("")
}

// Note writes a text of one line behind the process id, for Held, in place of an earlier one.
func (l *Lock) Note(text string) error {
	content := strconv.Itoa(os.Getpid()) + "\n"
	if text != "" {
		content += text + "\n"
	}
	if _, err := l.file.WriteAt([]byte(content), 0); err != nil {
		return err
	}
	return l.file.Truncate(int64(len(content)))
}

// Held reports whether a process holds the lock file at a path, and what it has noted there. It takes no lock, so that
// it keeps no process from acquiring the file. Outside Linux a process with the id in the file is taken for the holder.
// A file that does not exist, or that Acquire would not take, is not held.
func Held(path string) (held bool, note string, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return false, "", nil
	case err != nil:
		return false, "", err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return false, "", err
	}
	pid, note := readContent(file)
	if !inodeLocked(file, pid) {
		return false, "", nil
	}
	return true, note, nil
}

// Release empties the lock file, so that it does not name this process while the next owner has not written its id yet,
// and closes it.
func (l *Lock) Release() error {
	_ = l.file.Truncate(0)
	return l.Close()
}

// Claim locks an existing data file by its inode, so that another path to it, such as a bind mount of the file, does
// not admit a second process. It does not block. Closing the file drops the POSIX locks that this process has on it, so
// Close it last. Outside Linux only the checks are made.
//
// Errors: ErrHeld; *UnsafeError for a symbolic link, for a file with more than one hard link and for anything but a
// regular file; the system's.
func Claim(path string) (*Lock, error) {
	// Check before opening: closing an unsafe file again would drop POSIX locks on it.
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

// Check returns a *GoneError if the held file is no longer at its path. It costs one system call.
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

// Close unlocks the file.
func (l *Lock) Close() error { return l.file.Close() }

// open opens a file for reading and writing, or returns an *UnsafeError if that is not safe.
func open(path string, flag int, advice string) (*Lock, error) {
	// O_NONBLOCK: opening a FIFO must not block. It has no effect on a regular file.
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
	if err == nil && flag&os.O_CREATE != 0 { // whatever the umask or another program made it
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

// readPID returns 0 if the owner has the lock but has not written its process id yet.
func readPID(file *os.File) int {
	pid, _ := readContent(file)
	return pid
}

// readContent reads what Acquire and Note have written: 0 and "" if that is not there.
func readContent(file *os.File) (pid int, note string) {
	text, err := io.ReadAll(io.LimitReader(file, 1<<10))
	if err != nil {
		return 0, ""
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	if pid, err = strconv.Atoi(strings.TrimSpace(first)); err != nil || pid < 0 {
		return 0, ""
	}
	return pid, strings.TrimSuffix(rest, "\n")
}

// Resolve returns the absolute path without symbolic links. The directory must exist, the file need not.
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

// Dangling returns the error of a symbolic link to a directory that does not exist.
func Dangling(link string) *UnsafeError {
	return &UnsafeError{
		Path: link, Problem: "is a symbolic link to a directory that does not exist",
		Advice: "remove it, or is its disk not mounted?",
	}
}

// MakeDir creates a directory and its missing parents with mode 0700, whatever the umask, if it is missing. A symbolic
// link to a directory that does not exist is an *UnsafeError: its disk may not be mounted, and what was written to the
// directory would be hidden once it is. Other errors are the system's.
func MakeDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if !os.IsNotExist(err) {
		return err
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := MakeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if !os.IsExist(err) {
			return err
		}
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			return Dangling(dir)
		}
		return nil
	}
	return os.Chmod(dir, 0o700)
}

// CheckDir returns an *UnsafeError if other users could put their files in place of ours: if they may write to the
// data directory (the sticky bit does not prevent that for names that do not exist yet), if it belongs neither to root
// nor to the user of this process, or if all users may replace it in one of its parents. A directory that does not
// exist is no error if its parents are safe.
func CheckDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if info, err := os.Stat(dir); err == nil {
		if err := checkData(dir, info.Mode(), owner(info), os.Geteuid()); err != nil {
			return err
		}
	}
	// The parents of the path as it is given, and those of the directory to which its symbolic links lead.
	if err := checkParents(dir); err != nil {
		return err
	}
	for there := dir; ; there = filepath.Dir(there) {
		if target, err := filepath.EvalSymlinks(there); err == nil {
			return checkParents(filepath.Join(target, dir[len(there):]))
		}
		if there == filepath.Dir(there) {
			return nil
		}
	}
}

func checkParents(dir string) error {
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			continue // creating or opening the directory gives the better error
		}
		if err := checkParent(parent, info.Mode()); err != nil {
			return err
		}
	}
	return nil
}

// checkData judges a data directory by its mode, its owner, and the user of this process.
func checkData(dir string, mode fs.FileMode, owner, us int) error {
	switch {
	case owner != us && owner != 0:
		return &UnsafeError{"data directory " + dir, fmt.Sprintf("is owned by another user (uid %d)", owner),
			fmt.Sprintf("run as that user, or run chown %d %s, or choose another directory", us, dir)}
	case mode.Perm()&0o022 == 0:
		return nil
	}
	advice := "run chmod go-w " + dir
	if checkParent(dir, mode) == nil {
		advice += ", or choose a directory below it, which is made with mode 0700"
	}
	return &UnsafeError{"data directory " + dir,
		fmt.Sprintf("may be written to by other users (mode %#o)", mode.Perm()), advice}
}

// checkParent judges a directory above a data directory. Group-writable ones are not refused, as volumes are such.
func checkParent(dir string, mode fs.FileMode) error {
	if mode.Perm()&0o002 == 0 || mode&fs.ModeSticky != 0 {
		return nil
	}
	return &UnsafeError{"directory " + dir,
		fmt.Sprintf("may be written to by all users (mode %#o), who could replace the data directory in it", mode.Perm()),
		fmt.Sprintf("run chmod o-w %s or chmod +t %s, or choose another directory", dir, dir)}
}

// owner is the user id of a file's owner; 0 where the system has none.
func owner(info os.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return 0
}
