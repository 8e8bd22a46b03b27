package importcmd

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/importlog"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/csvimport"
	"github.com/purser-onboard/purser/printable"
)

// maxPath is the longest path on Linux, in bytes (PATH_MAX, limits.h).
const maxPath = 4096

// memory records the import in the data directory: when it begins, after files that took long, and when it ends. A
// directory that cannot be written to is reported once, and the import goes on.
type memory struct {
	pipeline.Import
	reasons csvimport.Summary

	log     *slog.Logger
	to      importlog.Log
	running *importlog.Running         // nil: nothing is recorded
	off     bool                       // nothing is recorded: a dry run, or the directory cannot be written to
	earlier map[string]pipeline.Import // by digest of a file
	written time.Time
}

// remember begins the record of an import of files. It names them from the start: of an import that is killed, nothing
// else says what is to be imported again.
func remember(
	c *config.Importer, id string, files []string, names map[string]string, started time.Time, log *slog.Logger,
) *memory {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	m := &memory{
		Import: pipeline.Import{
			ID: id, Program: config.Program(), Host: host, Topic: c.Topic,
			StartedAt: started.UTC().Truncate(time.Microsecond), Exit: console.ExitUnfinished,
			Files: make([]pipeline.ImportFile, len(files)),
		},
		log: log, to: importlog.In(c.DataDir), off: c.DryRun, earlier: map[string]pipeline.Import{},
	}
	m.Reason = "the import " + m.Standing()
	for n, file := range files {
		m.Files[n].Name = names[file]
		if path, err := filepath.Abs(file); err == nil && file != "-" {
			m.Files[n].Path = printable.Line(path, maxPath)
		}
	}
	if m.off {
		return m
	}
	all, err := m.to.All(c.Topic)
	if err != nil {
		log.Warn("cannot read the records of earlier imports", "error", err)
	}
	for _, i := range all { // the latest first, and the earliest stays
		if !i.Unfinished() {
			m.note(i)
		}
	}
	if m.put(); !m.off {
		if m.running, err = m.to.Begin(id); err != nil {
			log.Warn("reports cannot determine whether this import is in progress", "error", err)
		}
	}
	return m
}

// note remembers which files an import had.
func (m *memory) note(i pipeline.Import) {
	for _, file := range i.Files {
		if file.SHA256 != "" {
			m.earlier[file.SHA256] = i
		}
	}
}

func (m *memory) put() {
	if m.off {
		return
	}
	m.written = time.Now()
	if err := m.to.Put(m.Import); err != nil {
		m.off = true
		m.log.Warn("cannot record the import in the data directory; continuing without a record", "error", err)
	}
}

// read records what became of the n-th file; sum is nil if it was not read to its end.
func (m *memory) read(n int, sum *digest, s csvimport.ImportStats) {
	file := &m.Files[n]
	file.ImportCounts, file.Reasons = countsOf(s), m.reasons.Reasons()
	if sum != nil {
		file.Size, file.SHA256 = sum.size, sum.sha256
		if before, known := m.earlier[sum.sha256]; known {
			m.log.Info("an identical file was imported before: onboarded rows are skipped",
				"file", file.Name, "import", before.ID, "at", before.StartedAt)
		}
	}
	m.reasons = csvimport.Summary{}
	m.ImportCounts = m.Plus(file.ImportCounts)
	m.note(m.Import)
	if time.Since(m.written) > time.Second { // there may be thousands of small files
		m.put()
	}
}

// end records how the import ended.
func (m *memory) end(err error) {
	m.EndedAt, m.Exit, m.Reason = time.Now().UTC().Truncate(time.Microsecond), console.Code(err), ""
	if err != nil {
		m.Reason = console.Line(err)
	}
	m.Unaccounted = errors.As(err, new(*csvimport.AccountingError))
	m.put()
	m.running.End()
}

func countsOf(s csvimport.ImportStats) pipeline.ImportCounts {
	return pipeline.ImportCounts{
		Lines: s.Lines, Rows: s.Read, Published: s.Published, PublishedLines: s.PublishedLines,
		Invalid: s.Invalid, InvalidLines: s.InvalidLines, Header: s.Header, Blank: s.Blank, Neither: s.Header + s.Blank,
	}
}

// document is the importer's summary as JSON. The field names are a contract.
type document struct {
	pipeline.Import
	DryRun  bool   `json:"dryRun"`            // published counts what would be published
	Rejects string `json:"rejects,omitempty"` // the rejects file, if it has rows
	Trimmed int64  `json:"trimmed,omitempty"` // rows around whose values --trim removed white space
}

func (m *memory) document(c *config.Importer, rejects string, trimmed int64) document {
	return document{Import: m.Import, DryRun: c.DryRun, Rejects: rejects, Trimmed: trimmed}
}
