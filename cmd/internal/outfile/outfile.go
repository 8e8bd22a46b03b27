// Package outfile writes files that hold customer data: mode 0600, and whole or not at all.
package outfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// File is a file in the making. It takes its name with Commit; until then an earlier file of that name stays.
type File struct {
	*os.File
	path string
	done bool
}

// Create begins a file with mode 0600. Its directory is made, with mode 0700, if it is missing. What stands at the path
// already must be a regular file: a device or a directory is not replaced.
func Create(path string) (*File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file and is not replaced by one", path)
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // CreateTemp gives 0600
	if err != nil {
		return nil, err
	}
	return &File{File: f, path: path}, nil
}

// Commit syncs the file and gives it its name.
func (f *File) Commit() error {
	if f.done {
		return errors.New("file is finished already")
	}
	f.done = true
	err := f.Sync()
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// Discard drops the file if it was not committed; to be deferred.
func (f *File) Discard() {
	if f.done {
		return
	}
	f.done = true
	// Nothing is left to do about a temporary file that cannot be closed or removed.
	_ = f.Close()
	_ = os.Remove(f.Name())
}

// Write makes a whole file of data.
func Write(path string, data []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Commit()
}
