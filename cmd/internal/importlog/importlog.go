// Package importlog records imports: one JSON file per import in the data directory. The importer writes them without
// the ledger, which a consumer may have locked, and the consumer reads them.
package importlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/cmd/internal/outfile"
	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

const (
	// kept is how many imports are remembered. With an import a night they are three years.
	kept = 1000
	// maxFile bounds what is read of a file; an import of a thousand exports with a hundred reasons each is within it.
	maxFile = 32 << 20
	// maxText bounds a text of an import that is shown.
	maxText = 4 << 10
)

// Log is the directory of the imports.
type Log struct{ dir string }

// In returns the log of a data directory.
func In(dataDir string) Log { return Log{filepath.Join(dataDir, "imports")} }

// Put writes an import, replacing an earlier version of it, and deletes all but the latest 1000.
func (l Log) Put(i pipeline.Import) error {
	if err := uuid.Validate(i.ID); err != nil {
		return fmt.Errorf("import %q: %w", i.ID, err)
	}
	raw, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	if err := outfile.Write(filepath.Join(l.dir, i.ID+".json"), append(raw, '\n')); err != nil {
		return err
	}
	names, err := l.names()
	if err != nil {
		return err
	}
	for ; len(names) > kept; names = names[1:] {
		for _, name := range []string{names[0], strings.TrimSuffix(names[0], ".json") + ".lock"} { // a killed one's
			if err := os.Remove(filepath.Join(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Running is an import in progress.
type Running struct {
	lock *lockfile.Lock
	path string
}

// Begin marks an import as in progress until End, or until this process ends in any way.
func (l Log) Begin(id string) (*Running, error) {
	r := &Running{path: filepath.Join(l.dir, id+".lock")}
	var err error
	if r.lock, _, err = lockfile.Acquire(r.path); err != nil {
		return nil, err
	}
	return r, nil
}

// End releases the mark of Begin; nil is allowed. The id of an import is used once, so no other process waits for the
// file.
func (r *Running) End() {
	if r != nil {
		_ = os.Remove(r.path) // one that stays does not say that the import is in progress
		_ = r.lock.Close()
	}
}

// look says of an import that has not ended whether its process is there, if it ran on this host and Begin marked it.
func (l Log) look(i *pipeline.Import) {
	host, err := os.Hostname()
	if i.Alive = nil; err != nil || i.Ended() || i.Host != host {
		return
	}
	path := filepath.Join(l.dir, i.ID+".lock")
	if _, err := os.Lstat(path); err != nil {
		return
	}
	if alive, _, err := lockfile.Held(path); err == nil {
		i.Alive = &alive
		i.Reason = "the import " + i.Standing()
	}
}

// All returns the imports to a topic, and those whose topic was not recorded, the latest first. Files that cannot be
// read are joined into the error; the other imports are still returned.
func (l Log) All(topic string) ([]pipeline.Import, error) {
	names, err := l.names()
	errs := []error{err}
	imports := make([]pipeline.Import, 0, len(names))
	for _, name := range slices.Backward(names) {
		i, err := read(filepath.Join(l.dir, name))
		if errors.Is(err, fs.ErrNotExist) { // an importer has just removed it
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read the import %s: %w", name, err))
			continue
		}
		if i.Topic != "" && i.Topic != topic {
			continue
		}
		l.look(&i)
		imports = append(imports, i)
	}
	return imports, errors.Join(errs...)
}

// names returns the names of the files in the order of their imports: version 7 ids sort by time.
func (l Log) names() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries { // ReadDir sorts
		id, isImport := strings.CutSuffix(entry.Name(), ".json")
		if isImport && len(id) == 36 && uuid.Validate(id) == nil && entry.Type().IsRegular() {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

// read reads an import. Its texts come from file names and may have been written by another version.
func read(path string) (i pipeline.Import, err error) {
	f, err := os.Open(path)
	if err != nil {
		return i, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return i, err
	}
	if len(raw) > maxFile {
		return i, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&i); err != nil {
		return i, err
	}
	if want := strings.TrimSuffix(filepath.Base(path), ".json"); i.ID != want {
		return i, fmt.Errorf("it is of import %s", printable.Quote(i.ID, 40))
	}
	for _, text := range []*string{&i.Program, &i.Host, &i.Reason} {
		*text = printable.Line(*text, maxText)
	}
	for n := range i.Files {
		file := &i.Files[n]
		file.Name, file.SHA256 = printable.Line(file.Name, pipeline.MaxFile), printable.Line(file.SHA256, 64)
		for m := range file.Reasons {
			reason := &file.Reasons[m]
			reason.Field, reason.Reason = printable.Line(reason.Field, 64), printable.Line(reason.Reason, maxText)
		}
	}
	return i, nil
}
