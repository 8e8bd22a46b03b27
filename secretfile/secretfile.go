// Package secretfile reads the files that hold secrets and keys, the same way for all of them: a file that other users
// of the machine may use is refused, as ssh refuses it, and so is text that an editor has put a byte order mark before.
// Errors hold neither the secret nor, apart from the chmod to run, the file's name, which a caller may have been given
// a secret for; they read on after the name of the setting: "cannot be read: no such file or directory".
package secretfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// Read reads a file of at most so many bytes. Files that have any permission for group or others are refused unless
// insecure is set; then exposed reports whether everybody on the machine may read the file. Pipes have no permissions
// to go by. Wipe the content after use.
func Read(path string, most int, insecure bool) (content []byte, exposed bool, err error) {
	info, err := os.Stat(path) // before the file is opened: opening a pipe waits for a writer
	if err != nil {
		return nil, false, unreadable(err)
	}
	if info.IsDir() {
		return nil, false, errors.New("is a directory")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false, unreadable(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil { // of the opened file: the name may have got another one
		return nil, false, unreadable(err)
	}
	if err := CheckMode(path, info, insecure); err != nil {
		return nil, false, err
	}
	content, err = io.ReadAll(io.LimitReader(f, int64(most)+1))
	switch {
	case err != nil:
		err = unreadable(err)
	case len(content) > most:
		err = fmt.Errorf("has more than %d bytes", most)
	default:
		err = checkMark(content)
	}
	if err != nil {
		clear(content)
		return nil, false, err
	}
	return content, info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0, nil
}

// CheckMode refuses a regular file that has any permission for group or others, unless insecure is set; the error is a
// *ModeError.
func CheckMode(path string, info fs.FileInfo, insecure bool) error {
	mode := info.Mode()
	if insecure || !mode.IsRegular() || mode.Perm()&0o077 == 0 || runtime.GOOS == "windows" {
		return nil
	}
	return &ModeError{Path: path, Mode: mode.Perm()}
}

// ModeError is a file that other users of the machine may use.
type ModeError struct {
	Path string
	Mode fs.FileMode
}

func (e *ModeError) Error() string {
	quoted := "'" + strings.ReplaceAll(e.Path, "'", `'\''`) + "'" // for the shell
	return fmt.Sprintf("can be used by other users of this machine (mode %04o): run chmod 600 %s, "+
		"or set --insecure-permissions", e.Mode, quoted)
}

// Line returns the one line that a secret is, without the line end that editors and echo add. Other white space is a
// part of the secret. A byte order mark, a second line, a NUL and an empty text are refused. The result shares
// content's memory.
func Line(content []byte) ([]byte, error) {
	if err := checkMark(content); err != nil {
		return nil, err
	}
	line, ended := bytes.CutSuffix(content, []byte("\n"))
	if ended {
		line = bytes.TrimSuffix(line, []byte("\r"))
	}
	switch {
	case len(line) == 0:
		return nil, errors.New("is empty")
	case bytes.ContainsAny(line, "\r\n"):
		return nil, errors.New("has more than one line")
	case bytes.IndexByte(line, 0) >= 0:
		return nil, errors.New("has a zero byte")
	}
	return line, nil
}

// checkMark finds the byte order marks of UTF-8 and UTF-16.
func checkMark(content []byte) error {
	for _, mark := range []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(content, []byte(mark)) {
			return errors.New("begins with a byte order mark, which is no part of a secret: " +
				"save it as UTF-8 without one")
		}
	}
	return nil
}

// unreadable is an error of the file system without the path.
func unreadable(err error) error {
	var operation *fs.PathError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}
