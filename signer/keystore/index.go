package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/secretfile"
)

// maxPath bounds how much of a path is shown; Linux has no longer ones.
const maxPath = 4 << 10

// maxKeyFile bounds a key file; a version 3 file has about 500 bytes.
const maxKeyFile = 64 << 10

// settling is how long after a change of a directory the next change may not show in the modification time: file
// systems store it in steps of up to two seconds.
const settling = 2 * time.Second

// FileError reports a key file that cannot be used.
type FileError struct {
	Path string
	Err  error // follows the file's name: "has no crypto section"
}

func (e *FileError) Error() string { return fmt.Sprintf("key file %s %v", shown(e.Path), e.Err) }

// shown returns a path for one line of text: quoted if it has characters to escape.
func shown(path string) string {
	if printable.Is(path) && !strings.ContainsAny(path, `"\`) {
		return path
	}
	return printable.Quote(path, maxPath)
}

// Unwrap returns Err.
func (e *FileError) Unwrap() error { return e.Err }

// finding is the result of reading one file of the directory.
type finding struct {
	address common.Address
	named   bool  // address is known, from the file or from its name
	problem error // why a key file cannot be used; nil when it is sound
	other   bool  // not a key file at all
	stray   bool  // … although its name or its content has the form of one: worth a warning
}

// index is the directory's content at one time. It is immutable.
type index struct {
	files    map[common.Address]string // base name of the first sound file of each account
	findings map[string]finding        // by base name
	broken   []string                  // base names, in the order of the directory
	first    string                    // the first sound file
	twice    int                       // sound files of an account that has another file
	other    int                       // files that are not key files
	strays   []string                  // base names of those that look like one
	modified time.Time                 // of the directory, taken before it was read
	stable   bool                      // a change since then shows in the modification time
}

// look reads dir. Files that were sound before are not opened again: a key file changes only when it gets a new
// password, and unlocking reads it anyway.
func look(ctx context.Context, dir string, insecure bool, before *index, now func() time.Time) (*index, error) {
	begun := now()
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if err := secretfile.CheckDirectory(dir, info, insecure); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	x := &index{
		files:    make(map[common.Address]string, len(entries)),
		findings: make(map[string]finding, len(entries)),
		modified: info.ModTime(),
		stable:   begun.Sub(info.ModTime()) > settling,
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name := entry.Name()
		// Hidden files are ..data of a mounted secret, or half-written; a final ~ is an editor's copy.
		if entry.IsDir() || strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
			continue
		}
		f, known := finding{}, false
		if before != nil {
			f, known = before.findings[name]
		}
		if !known || f.problem != nil || f.other {
			f = examine(filepath.Join(dir, name), insecure)
		}
		x.add(name, f)
	}
	return x, nil
}

func (x *index) add(name string, f finding) {
	x.findings[name] = f
	switch {
	case f.other:
		x.other++
		if f.stray {
			x.strays = append(x.strays, name)
		}
	case f.problem != nil:
		x.broken = append(x.broken, name)
	default:
		if _, taken := x.files[f.address]; taken {
			x.twice++
			return
		}
		x.files[f.address] = name
		if x.first == "" {
			x.first = name
		}
	}
}

// brokenFile returns the damaged file that has account in its name or its address field, and what is wrong with it.
func (x *index) brokenFile(account common.Address) (string, error) {
	for _, name := range x.broken {
		if f := x.findings[name]; f.named && f.address == account {
			return name, f.problem
		}
	}
	return "", nil
}

// nameless returns the first damaged key file of unknown account, and how many there are.
func (x *index) nameless() (first string, count int) {
	for _, name := range x.broken {
		if !x.findings[name].named {
			if count++; first == "" {
				first = name
			}
		}
	}
	return first, count
}

// exposed returns the first key file that other users of the machine may use, and how many there are.
func (x *index) exposed() (first *secretfile.ModeError, count int) {
	for _, name := range x.broken {
		var mode *secretfile.ModeError
		if errors.As(x.findings[name].problem, &mode) {
			if count++; first == nil {
				first = mode
			}
		}
	}
	return first, count
}

func examine(path string, insecure bool) finding {
	address, named := addressInName(filepath.Base(path))
	f := finding{address: address, named: named}
	data, err := readFile(path, true) // what is no key file may have any mode
	if err != nil {
		f.problem = err
		f.other = errors.Is(err, errNotRegular) || errors.Is(err, fs.ErrNotExist) // gone since the listing
		return f
	}
	key, err := parseKeyFile(data)
	switch {
	case err != nil:
		f.problem = err
		f.other = !named && !looksLikeKeyFile(filepath.Base(path), data)
		f.stray = f.other && (looksLikeJSON(data) || strings.HasSuffix(path, ".json"))
	case key.hasAddress:
		f.address, f.named = key.address, true
	case !named:
		f.problem = errors.New("names no account, neither in its address field nor in its file name")
	}
	if f.problem == nil {
		info, err := os.Stat(path)
		if err == nil {
			err = secretfile.CheckMode(path, info, insecure)
		}
		f.problem = err
	}
	return f
}

var errNotRegular = errors.New("is not a regular file")

func readFile(path string, insecure bool) ([]byte, error) {
	// Stat comes first: opening a pipe would wait for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", secretfile.Reason(err))
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	data, _, err := secretfile.Read(path, maxKeyFile, insecure)
	return data, err
}

// addressInName reads the account from names as go-ethereum and others make them: UTC--<time>--<address>,
// <address>, 0x<address>, each with or without .json.
func addressInName(name string) (common.Address, bool) {
	stem := strings.TrimSuffix(name, ".json")
	if i := strings.LastIndexByte(stem, '-'); i >= 0 {
		stem = stem[i+1:]
	}
	return parseAddress(stem)
}

// looksLikeKeyFile reports whether a file that does not parse is a damaged key file: it has go-ethereum's name or the
// member that holds the key.
func looksLikeKeyFile(name string, data []byte) bool {
	return strings.HasPrefix(name, "UTC--") || bytes.Contains(bytes.ToLower(data), []byte(`"crypto"`))
}
