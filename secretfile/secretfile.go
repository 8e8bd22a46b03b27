// Package secretfile reads files that hold secrets and keys. As with ssh, a file that other users of the machine may
// read or write is an error; so is a byte order mark that an editor has added.
//
// Error texts do not contain the secret. They contain the path only in the chmod command to run, because a secret may
// have been passed as the path by mistake. They are meant to follow the name of the setting: "cannot be read: no such
// file or directory".
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
	"time"

	"golang.org/x/sys/unix"
)

// Read returns the content of a file of at most limit bytes. A file with any permission for group or others is a
// *ModeError unless insecure is set; then exposed reports whether all users of the machine may read the file. The
// permissions of pipes are not checked. Read waits at most 10 s for a pipe to be opened for writing, and a minute for
// its content. Wipe the content after use.
func Read(path string, limit int, insecure bool) (content []byte, exposed bool, err error) {
	content, info, err := usual().read(path, limit, insecure)
	if err == nil {
		err = checkMark(content)
	}
	if err != nil {
		clear(content)
		return nil, false, err
	}
	return content, info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0, nil
}

// ReadPlain is Read for a file that holds no secret: permissions and byte order mark are not checked.
func ReadPlain(path string, limit int) ([]byte, error) {
	content, _, err := usual().read(path, limit, true)
	return content, err
}

// patience is how long a file that blocks, as a pipe does, is waited for.
type patience struct {
	writer  time.Duration
	content time.Duration
}

func usual() patience { return patience{writer: 10 * time.Second, content: time.Minute} }

var errLate = errors.New("too late")

// within waits for do at most so long; then the error is errLate. do continues until it is no longer blocked, or the
// process ends; its late result goes to discard.
func within[T any](patience time.Duration, do func() (T, error), discard func(T)) (T, error) {
	type answer struct {
		got T
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		got, err := do()
		answers <- answer{got, err}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a := <-answers:
		return a.got, a.err
	case <-timer.C:
		go func() { discard((<-answers).got) }()
		var none T
		return none, errLate
	}
}

func (p patience) read(path string, limit int, insecure bool) ([]byte, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, unreadable(err)
	}
	if info.IsDir() {
		return nil, nil, unix.EISDIR
	}
	f, err := within(p.writer, func() (*os.File, error) { return os.Open(path) }, func(f *os.File) { _ = f.Close() })
	switch {
	case errors.Is(err, errLate) && info.Mode()&fs.ModeNamedPipe != 0:
		return nil, nil, fmt.Errorf("is a pipe that nothing has opened for writing within %v", p.writer)
	case errors.Is(err, errLate):
		return nil, nil, fmt.Errorf("cannot be read: not opened within %v", p.writer)
	case err != nil:
		return nil, nil, unreadable(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil { // of the opened file: the name may have got another one
		return nil, nil, unreadable(err)
	}
	if err := CheckMode(path, info, insecure); err != nil {
		return nil, nil, err
	}
	content, err := within(p.content, func() ([]byte, error) {
		return io.ReadAll(io.LimitReader(f, int64(limit)+1))
	}, func(late []byte) { clear(late) })
	switch {
	case errors.Is(err, errLate):
		err = fmt.Errorf("has not come to its end within %v: its writer must close it", p.content)
	case err != nil:
		err = unreadable(err)
	case len(content) > limit:
		err = fmt.Errorf("has more than %d bytes", limit)
	}
	if err != nil {
		clear(content)
		return nil, nil, err
	}
	return content, info, nil
}

// CheckMode returns a *ModeError for a regular file that has any permission for group or others, unless insecure is
// set. Two kinds of files that only an administrator can make are accepted: one whose access control list, which the
// group bits then are the mask of, admits no others, as that of a systemd credential does; and root's own with mode
// 0440 on a read-only mount, which is how Kubernetes mounts secrets for a user other than root.
func CheckMode(path string, info fs.FileInfo, insecure bool) error {
	mode := info.Mode()
	if insecure || !mode.IsRegular() || mode.Perm()&0o077 == 0 || runtime.GOOS == "windows" ||
		mode.Perm()&0o007 == 0 && (private(path) || mounted(path, info)) {
		return nil
	}
	return &ModeError{Path: path, Mode: mode.Perm()}
}

// CheckDirectory refuses a directory of keys that group or others may write to, because they could add and replace
// files, unless insecure is set; the error is a *ModeError. A directory on a read-only file system is accepted whatever
// its mode: Kubernetes mounts secrets that way, with mode 1777.
func CheckDirectory(path string, info fs.FileInfo, insecure bool) error {
	mode := info.Mode()
	if insecure || !mode.IsDir() || mode.Perm()&0o022 == 0 || runtime.GOOS == "windows" ||
		errors.Is(unix.Access(path, unix.W_OK), unix.EROFS) {
		return nil
	}
	return &ModeError{Path: path, Mode: mode}
}

// ModeError is a file that other users of the machine may use, or a directory that they may write to.
type ModeError struct {
	Path string
	Mode fs.FileMode // a directory has fs.ModeDir set
}

func (e *ModeError) Error() string {
	problem, permissions := "used", "600"
	if e.Mode.IsDir() {
		problem, permissions = "written to", "go-w"
	}
	quoted := "'" + strings.ReplaceAll(e.Path, "'", `'\''`) + "'" // for the shell
	return fmt.Sprintf("can be %s by other users of this machine (mode %04o): run chmod %s %s, "+
		"or set --insecure-permissions", problem, e.Mode.Perm(), permissions, quoted)
}

// Line returns the secret in content, which must be a single line, without the line end that editors and echo add.
// Other white space is part of the secret. A byte order mark, a second line, a NUL and an empty text are errors. The
// result shares content's memory.
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

// checkMark returns an error for text that begins with a byte order mark of UTF-8 or UTF-16.
func checkMark(content []byte) error {
	for _, mark := range []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(content, []byte(mark)) {
			return errors.New("begins with a byte order mark: save it as UTF-8 without byte order mark")
		}
	}
	return nil
}

func unreadable(err error) error { return fmt.Errorf("cannot be read: %w", Reason(err)) }

// Reason returns what a *fs.PathError in err wraps, without operation and path, or else err.
func Reason(err error) error {
	var operation *fs.PathError
	if errors.As(err, &operation) {
		return operation.Err
	}
	return err
}
