// Package outfile writes files atomically. They have mode 0600, because they may contain customer data, except those of
// WriteReadable.
package outfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/purser-onboard/purser/lockfile"
)

// File is a file that is being written. Commit gives it its name; until then an earlier file of that name stays.
type File struct {
	*os.File
	path string
	done bool
}

// Create creates a file with mode 0600. Leftovers of killed processes are removed. Its directory is created, with mode
// 0700, if it is missing. Errors are the system's and *lockfile.UnsafeError: an existing file at the path must be a
// regular file, because a device or a directory is not replaced. Symbolic links are followed if they belong to this
// user or root, but not those of other users, like the kernel's protected_symlinks.
func Create(path string) (*File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, &lockfile.UnsafeError{Path: path, Problem: "is not a regular file and is not overwritten",
			Advice: "choose another path"}
	}
	path, err := follow(path, os.Geteuid(), 0)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := lockfile.MakeDir(dir); err != nil {
		return nil, err
	}
	prefix := "." + filepath.Base(path) + "."
	if err := removeLeftovers(dir, prefix); err != nil {
		return nil, err
	}
	f, err := createLocked(dir, prefix)
	if err != nil {
		return nil, err
	}
	return &File{File: f, path: path}, nil
}

// headSize is how much of a file Replaces looks at: in a sorted report, imports of up to 2 KiB each come first.
const headSize = 64 << 10

// Replaces returns an error if there is a file with other content at the path, by the judgement of known on its first
// 64 KiB: a mistake in a setting must not destroy an export, a key or the ledger. what names the new content: "a
// report". An empty file, a path that is not a regular file, and an unreadable file are not errors here.
func Replaces(path, what string, known func(head []byte) bool) error {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil //nolint:nilerr // Create gives the error, if it is one
	}
	f, err := os.Open(path)
	if err != nil {
		return nil //nolint:nilerr // the same
	}
	defer f.Close()
	head := make([]byte, headSize)
	n, _ := io.ReadFull(f, head)
	if n > 0 && !known(head[:n]) {
		return fmt.Errorf("%s is not %s: choose another name, or move the file away", path, what)
	}
	return nil
}

// createLocked makes a temporary file with mode 0600 and a lock that ends with this process.
func createLocked(dir, prefix string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(dir, prefix+"*") // gives 0600
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil && !unsupported(err) {
			// Another process has just taken it for a leftover.
			_ = f.Close()
			continue
		}
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if named, err := os.Lstat(f.Name()); err == nil && os.SameFile(ours, named) {
			return f, nil
		}
		_ = f.Close()
	}
}

// unsupported reports whether a file system has no locks.
func unsupported(err error) bool {
	return errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// journal is what SQLite puts behind the name of a file while it fills it.
const journal = "-journal"

// removeLeftovers removes the temporary files of processes that were killed: those that are locked by none.
func removeLeftovers(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		random, ok := strings.CutPrefix(entry.Name(), prefix)
		random, isJournal := strings.CutSuffix(random, journal)
		if !ok || random == "" || strings.Trim(random, "0123456789") != "" || !entry.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		if isJournal { // the file that it belongs to is made before it, and comes before it here
			if _, err := os.Lstat(strings.TrimSuffix(path, journal)); errors.Is(err, fs.ErrNotExist) {
				_ = os.Remove(path)
			}
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue // it is gone, or not ours
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(path) // what cannot be removed does no harm
		}
		_ = f.Close()
	}
	return nil
}

// mostLinks is how many symbolic links a path may have, as many as the kernel follows.
const mostLinks = 40

// follow returns the path without symbolic links as far as it exists; us is the user of this process, links how many
// were followed already.
func follow(path string, us, links int) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for end := 1; end <= len(path); end++ {
		if end < len(path) && path[end] != filepath.Separator {
			continue
		}
		element, rest := path[:end], path[end:]
		info, err := os.Lstat(element)
		if err != nil {
			return path, nil // making it says more
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if !trusted(info, us) {
			return "", &lockfile.UnsafeError{Path: element, Problem: "is another user's symbolic link and is not followed",
				Advice: "remove it, or choose another path"}
		}
		target, err := os.Readlink(element)
		if err != nil {
			return "", err
		}
		if links++; links > mostLinks {
			return "", &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(element), target)
		}
		there := target // the directory that has to be there
		if rest == "" {
			there = filepath.Dir(target)
		}
		if _, err := os.Stat(there); errors.Is(err, fs.ErrNotExist) {
			return "", lockfile.Dangling(element)
		}
		return follow(filepath.Join(target, rest), us, links)
	}
	return path, nil
}

// trusted reports whether a file is owned by us or by root.
func trusted(info fs.FileInfo, us int) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(stat.Uid) == us || stat.Uid == 0
}

// Commit syncs the file, gives it its name, and syncs the directory. An earlier file of that name is replaced.
func (f *File) Commit() error { return f.commit(os.Rename) }

// CommitNew is Commit for a name that must be new: if another process has taken it in the meantime, that file stays,
// and the error wraps fs.ErrExist.
func (f *File) CommitNew() error {
	return f.commit(func(from, to string) error { return renameNew(from, to, os.Link) })
}

// renameNew renames a file, if no file has the new name. Where link is not possible, as on vfat, the name is taken by
// an empty file first.
func renameNew(from, to string, link func(from, to string) error) error {
	err := link(from, to)
	switch {
	case err == nil:
		return os.Remove(from)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	taken, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(taken.Close(), os.Rename(from, to)); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

func (f *File) commit(rename func(from, to string) error) error {
	if f.done {
		return errors.New("file is already finished")
	}
	f.done = true
	err := f.Sync()
	err = errors.Join(err, f.Close())
	if err == nil {
		err = rename(f.Name(), f.path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the temporary file; the next Create removes what stays
		return written(f.path, err)
	}
	return syncDir(filepath.Dir(f.path))
}

// written gives the error of a temporary file the name that the file would have got.
func written(path string, err error) error {
	var file *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &file):
		err = file.Err
	case errors.As(err, &link):
		err = link.Err
	}
	return fmt.Errorf("write %s: %w", path, err)
}

// Hold reserves so many bytes of the file system of the file at a path until the result is closed or the process ends:
// what is written after that has space there, even if the disk has become full in the meantime. It leaves no file.
func Hold(path string, bytes int) (io.Closer, error) {
	path, err := follow(path, os.Geteuid(), 0)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.Write(make([]byte, bytes))
	}
	if err == nil {
		err = f.Sync() // with delayed allocation it is not taken before
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncDir makes the names in a directory durable, where its file system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // a directory to which this user may write and which it may not read
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// Discard removes the file if it was not committed; call it with defer.
func (f *File) Discard() {
	if f.done {
		return
	}
	f.done = true
	// Nothing is left to do about a temporary file that cannot be closed or removed.
	_ = f.Close()
	_ = os.Remove(f.Name())
}

// Write writes data as a complete file.
func Write(path string, data []byte) error { return write(path, data, false) }

// WriteReadable writes data without customer data as a complete file that every user of the machine may read. Its
// directory must exist, because a missing directory would be created for this user alone.
func WriteReadable(path string, data []byte) error {
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return err
	}
	return write(path, data, true)
}

func write(path string, data []byte, readable bool) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(data); err != nil {
		return written(path, err)
	}
	if readable {
		if err := f.Chmod(0o644); err != nil {
			return written(path, err)
		}
	}
	return f.Commit()
}
